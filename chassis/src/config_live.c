/* config_live.c: values that change while the process runs (see config.h).
 *
 * 1. A change is whole or not at all: a value that does not parse, is out of range, or is not
 *    liked by whoever is told, leaves the field as it was.
 * 2. What the process was started with stays the truth: a reload takes the file as it is now under
 *    the flags as they were, and forgets what was set by hand since.
 * 3. Texts that were replaced stay in the arena: somebody may still read them. People change
 *    values; programs should not. */
#include "config_int.h"

enum { FIELD_MAX = 8 };

static size_t field_size(const struct ch_config_key *key)
{
    switch (key->type) {
    case CH_CONFIG_STRING:
        return sizeof(char *);
    case CH_CONFIG_BOOL:
        return sizeof(bool);
    default:
        return sizeof(int64_t);
    }
}

static bool differs(const struct ch_config_key *key, const void *a, const void *b)
{
    const char *x = (const char *)a + key->offset, *y = (const char *)b + key->offset;
    if (key->type != CH_CONFIG_STRING)
        return memcmp(x, y, field_size(key)) != 0;
    const char *s = *(char *const *)x, *t = *(char *const *)y;
    return strcmp(s ? s : "", t ? t : "") != 0;
}

/* The new value is in the field, the old one in `before`. */
static struct base_status settle(struct ch__config_live *live, const struct ch_config_key *key,
                                 void *field, const uint8_t *before)
{
    struct base_status status = live->changed(live->self, key);
    if (base_failed(status))
        memcpy(field, before, field_size(key));
    return status;
}

struct base_status ch__config_change(struct ch__config_live *live, const char *name,
                                     const char *text)
{
    size_t index = 0;
    for (size_t t = 0; t < live->table_count; t++)
        for (size_t k = 0; k < live->tables[t].count; k++, index++) {
            const struct ch_config_key *key = &live->tables[t].keys[k];
            char *field = (char *)live->configs[t] + key->offset;
            uint8_t before[FIELD_MAX];
            if (strcmp(key->name, name) != 0)
                continue;
            if (!key->live)
                return base_status_make(BASE_FAILED_PRECONDITION,
                                        "%s is read at the start only: restart with --%s=%s", name,
                                        name, text);
            memcpy(before, field, field_size(key));
            struct base_status status =
                ch__config_value_set(key, live->configs[t], text, "/configz", live->arena);
            if (base_failed(status)) {
                memcpy(field, before, field_size(key));
                return status;
            }
            status = settle(live, key, field, before);
            if (!base_failed(status))
                live->origin.from[index] = CH__FROM_POST;
            return status;
        }
    return base_status_make(BASE_NOT_FOUND, "there is no key \"%s\"", name);
}

struct base_status ch__config_reload(struct ch__config_live *live,
                                     void (*skipped)(void *self, const struct ch_config_key *key),
                                     size_t *changes)
{
    void **fresh = base_arena_calloc(live->arena, live->table_count, sizeof(*fresh));
    struct ch__config_origin origin;
    *changes = 0;
    for (size_t t = 0; t < live->table_count; t++)
        fresh[t] = base_arena_calloc(live->arena, 1, live->sizes[t] ? live->sizes[t] : 1);
    struct base_status status = ch__config_parse(live->tables, live->table_count, fresh, live->argc,
                                                 live->argv, live->arena, &origin);
    size_t index = 0;
    for (size_t t = 0; t < live->table_count && !base_failed(status); t++)
        for (size_t k = 0; k < live->tables[t].count && !base_failed(status); k++, index++) {
            const struct ch_config_key *key = &live->tables[t].keys[k];
            char *field = (char *)live->configs[t] + key->offset;
            uint8_t before[FIELD_MAX];
            if (key->live)
                live->origin.from[index] = origin.from[index];
            if (!differs(key, live->configs[t], fresh[t]))
                continue;
            if (!key->live) {
                skipped(live->self, key);
                continue;
            }
            memcpy(before, field, field_size(key));
            memcpy(field, (char *)fresh[t] + key->offset, field_size(key));
            status = settle(live, key, field, before);
            *changes += !base_failed(status);
        }
    return status;
}
