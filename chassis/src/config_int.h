/* config_int.h (private to chassis): values out of declared tables, and the numbers in them. */
#ifndef CHASSIS_CONFIG_INT_H
#define CHASSIS_CONFIG_INT_H

#include "chassis/config.h"

/* "64KiB", "8MiB", "1GiB", "512", "512B": bytes. False for anything else, or over 2^63-1. */
bool ch__size_parse(const char *text, int64_t *bytes);
/* "250ms", "3s", "5m", "2h", "100us", "7ns", and "0": nanoseconds. */
bool ch__duration_parse(const char *text, ch_time *ns);
/* Appends a value as it could be written on the command line. */
void ch__config_value(const struct ch_config_key *key, const void *config, struct base_buf *out);
/* Where each key's value is from: a byte a key, those of all tables in order. */
enum ch__config_source { CH__FROM_DEFAULT, CH__FROM_FILE, CH__FROM_FLAG, CH__FROM_POST };
struct ch__config_origin {
    uint8_t *from;    /* enum ch__config_source */
    const char *file; /* --config; NULL: none */
};
/* ch_config_parse, that also says where values are from (memory of `arena`). */
struct base_status ch__config_parse(const struct ch_config_table *tables, size_t table_count,
                                    void *const *configs, int argc, char **argv,
                                    struct base_arena *arena,
                                    struct ch__config_origin *origin) BASE_MUST_CHECK;
/* Appends one line a key, "key: value   # source, live: doc", in the form of the file. */
void ch__config_show(const struct ch_config_table *tables, size_t table_count, void *const *configs,
                     const struct ch__config_origin *origin, struct base_buf *out);

/* What a text means for a key; on failure the field may hold anything. */
struct base_status ch__config_value_set(const struct ch_config_key *key, void *config,
                                        const char *text, const char *source,
                                        struct base_arena *arena) BASE_MUST_CHECK;

/* ---- config_live.c: values that change while the process runs ---- */
struct ch__config_live {
    const struct ch_config_table *tables;
    size_t table_count;
    void *const *configs;
    const size_t *sizes; /* of the config structs */
    struct ch__config_origin origin;
    struct base_arena *arena;
    int argc;
    char **argv;
    /* Asked before a new value counts, told after; a failed status takes it back. */
    struct base_status (*changed)(void *self, const struct ch_config_key *key);
    void *self;
};
/* One live key by name. NOT_FOUND, FAILED_PRECONDITION (not live), INVALID_ARGUMENT: nothing has
 * changed. */
struct base_status ch__config_change(struct ch__config_live *live, const char *name,
                                     const char *text) BASE_MUST_CHECK;
/* Reads the file and the flags again: live keys get what they say now, also those that were set by
 * ch__config_change since; for others that differ `skipped` is called. On failure (a bad file)
 * nothing has changed. */
struct base_status ch__config_reload(struct ch__config_live *live,
                                     void (*skipped)(void *self, const struct ch_config_key *key),
                                     size_t *changes) BASE_MUST_CHECK;

#endif
