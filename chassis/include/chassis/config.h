/* chassis/config.h: declared configuration. A service declares its keys in one table: name, type,
 * unit in the name, default, doc. Values come, later ones winning, from the default, a file
 * (--config FILE: YAML "key: value" lines, the same keys), and flags (--key=value or --key
 * value). --help and /configz are written from the table. An unknown key or a bad value stops the
 * start with a text that names it. A key marked live may change while the process runs (POST
 * /configz?key=value, or SIGHUP, which reads the file again): whoever uses it reads the struct's
 * field each time, or asks to be told (service.h: reconfigured). */
#ifndef CHASSIS_CONFIG_H
#define CHASSIS_CONFIG_H

#include <stddef.h>

#include "base/bytes.h"
#include "chassis/wait.h"

enum ch_config_type {
    CH_CONFIG_STRING,
    CH_CONFIG_INT,
    CH_CONFIG_BOOL,
    CH_CONFIG_SIZE /* 64KiB, 8MiB */,
    CH_CONFIG_DURATION /* ms: 250ms, 3s */
};

struct ch_config_key {
    const char *name; /* "data-dir" */
    enum ch_config_type type;
    /* In the service's own config struct: char *, int64_t, bool, uint64_t bytes, ch_time ns. */
    size_t offset;
    const char *fallback; /* as it would be written; NULL: must be given */
    const char *doc;
    int64_t min, max; /* for the numeric ones, when max > min */
    bool live;        /* may change while the process runs */
};
#define CH_CONFIG(struct_name, field, name, type, fallback, doc)             \
    {                                                                        \
        name, type, offsetof(struct struct_name, field), fallback, doc, 0, 0 \
    }
#define CH_CONFIG_LIVE(struct_name, field, name, type, fallback, doc)              \
    {                                                                              \
        name, type, offsetof(struct struct_name, field), fallback, doc, 0, 0, true \
    }

struct ch_config_table {
    const struct ch_config_key *keys;
    size_t count;
};
/* Fills the config structs, one a table (strings live in `arena`). INVALID_ARGUMENT names the key
 * and the source: default, file and line, or flag. */
struct base_status ch_config_parse(const struct ch_config_table *tables, size_t table_count,
                                   void *const *configs, int argc, char **argv,
                                   struct base_arena *arena) BASE_MUST_CHECK;
void ch_config_help(const struct ch_config_table *tables, size_t table_count, const char *program,
                    const char *about, struct base_buf *out);

#endif
