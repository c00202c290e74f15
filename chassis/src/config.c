/* config.c: declared configuration (see config.h).
 *
 * 1. Every key of every table is given a value, checked against its type and range, whatever its
 *    source: default, file, flag.
 * 2. A failure names the key, the value and the source ("--lease=soon", "strata.yaml line 7",
 *    "default").
 * 3. A key given twice in one source is an error in a file (a forgotten line) and the last one
 *    wins among flags. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <yaml.h>

#include "config_int.h"

enum { FILE_BYTES_MAX = 1 << 20 };

struct parse {
    const struct ch_config_table *tables;
    size_t table_count;
    void *const *configs;
    struct base_arena *arena;
};

/* ---- values ---- */

struct unit {
    const char *name;
    int64_t factor;
};

static bool scaled_parse(const char *text, const struct unit *units, size_t unit_count,
                         int64_t *value)
{
    char *end;
    errno = 0;
    if (*text < '0' || *text > '9')
        return false;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || n > INT64_MAX)
        return false;
    for (size_t i = 0; i < unit_count; i++)
        if (strcmp(end, units[i].name) == 0)
            return !__builtin_mul_overflow((int64_t)n, units[i].factor, value);
    *value = 0;
    return *end == '\0' && n == 0; /* zero needs no unit */
}

static const struct unit sizes[] = { { "", 1 },
                                     { "B", 1 },
                                     { "KiB", 1LL << 10 },
                                     { "MiB", 1LL << 20 },
                                     { "GiB", 1LL << 30 },
                                     { "TiB", 1LL << 40 } };
static const struct unit durations[] = { { "ns", 1 },   { "us", CH_US },    { "ms", CH_MS },
                                         { "s", CH_S }, { "m", 60 * CH_S }, { "h", 3600 * CH_S } };

bool ch__size_parse(const char *text, int64_t *bytes)
{
    return scaled_parse(text, sizes, sizeof(sizes) / sizeof(sizes[0]), bytes);
}

bool ch__duration_parse(const char *text, ch_time *ns)
{
    return scaled_parse(text, durations, sizeof(durations) / sizeof(durations[0]), ns);
}

static bool int_parse(const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return !errno && end != text && *end == '\0' && *text != ' ';
}

static bool bool_parse(const char *text, bool *value)
{
    *value = strcmp(text, "true") == 0;
    return *value || strcmp(text, "false") == 0;
}

static const char *const expected[] = {
    [CH_CONFIG_STRING] = "a text",
    [CH_CONFIG_INT] = "a whole number",
    [CH_CONFIG_BOOL] = "true or false",
    [CH_CONFIG_SIZE] = "a size (4096, 64KiB, 8MiB, 1GiB)",
    [CH_CONFIG_DURATION] = "a duration (250ms, 3s, 5m, 2h)",
};
static const char *const type_names[] = {
    [CH_CONFIG_STRING] = "TEXT",       [CH_CONFIG_INT] = "N",
    [CH_CONFIG_BOOL] = "true|false",   [CH_CONFIG_SIZE] = "SIZE",
    [CH_CONFIG_DURATION] = "DURATION",
};

static void put_shortest(struct base_buf *out, int64_t value, const struct unit *units,
                         size_t unit_count)
{
    const struct unit *best = &units[0];
    for (size_t i = 0; i < unit_count; i++)
        if (value != 0 && value % units[i].factor == 0 && units[i].factor > best->factor)
            best = &units[i];
    base_buf_printf(out, "%" PRId64 "%s", value / best->factor, value == 0 ? "" : best->name);
}

static void put_number(struct base_buf *out, enum ch_config_type type, int64_t value)
{
    if (type == CH_CONFIG_SIZE)
        put_shortest(out, value, sizes, sizeof(sizes) / sizeof(sizes[0]));
    else if (type == CH_CONFIG_DURATION)
        put_shortest(out, value, durations, sizeof(durations) / sizeof(durations[0]));
    else
        base_buf_printf(out, "%" PRId64, value);
}

void ch__config_value(const struct ch_config_key *key, const void *config, struct base_buf *out)
{
    const void *field = (const char *)config + key->offset;
    if (key->type == CH_CONFIG_STRING)
        base_buf_put_str(out, *(char *const *)field ? *(char *const *)field : "");
    else if (key->type == CH_CONFIG_BOOL)
        base_buf_put_str(out, *(const bool *)field ? "true" : "false");
    else
        put_number(out, key->type, *(const int64_t *)field);
}

static struct base_status range_check(const struct ch_config_key *key, int64_t number,
                                      const char *text, const char *source)
{
    struct base_buf range = { 0 };
    if (key->max <= key->min || (number >= key->min && number <= key->max))
        return BASE_STATUS_OK;
    put_number(&range, key->type, key->min);
    base_buf_put_str(&range, " to ");
    put_number(&range, key->type, key->max);
    struct base_status status =
        base_status_make(BASE_INVALID_ARGUMENT, "%s: %s is \"%s\", must be %.*s", source, key->name,
                         text, BASE_FMT(base_buf_bytes(&range)));
    base_buf_free(&range);
    return status;
}

struct base_status ch__config_value_set(const struct ch_config_key *key, void *config,
                                        const char *text, const char *source,
                                        struct base_arena *arena)
{
    void *field = (char *)config + key->offset;
    int64_t number = 0;
    bool good = true;
    switch (key->type) {
    case CH_CONFIG_STRING:
        *(char **)field = base_arena_strdup(arena, text);
        return BASE_STATUS_OK;
    case CH_CONFIG_BOOL:
        good = bool_parse(text, field);
        break;
    case CH_CONFIG_INT:
        good = int_parse(text, &number);
        break;
    case CH_CONFIG_SIZE:
        good = ch__size_parse(text, &number);
        break;
    case CH_CONFIG_DURATION:
        good = ch__duration_parse(text, &number);
        break;
    }
    if (!good)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s: %s is \"%s\", must be %s", source,
                                key->name, text, expected[key->type]);
    if (key->type == CH_CONFIG_BOOL)
        return BASE_STATUS_OK;
    *(int64_t *)field = number;
    return range_check(key, number, text, source);
}

static struct base_status value_set(const struct parse *parse, const struct ch_config_key *key,
                                    void *config, const char *text, const char *source)
{
    return ch__config_value_set(key, config, text, source, parse->arena);
}

/* Finds a key of any table; *table is its index. */
static const struct ch_config_key *key_find(const struct parse *parse, const char *name, size_t len,
                                            size_t *table)
{
    for (size_t t = 0; t < parse->table_count; t++)
        for (size_t k = 0; k < parse->tables[t].count; k++) {
            const struct ch_config_key *key = &parse->tables[t].keys[k];
            if (strlen(key->name) == len && memcmp(key->name, name, len) == 0) {
                *table = t;
                return key;
            }
        }
    return NULL;
}

static struct base_status named_set(const struct parse *parse, const char *name, const char *text,
                                    const char *source)
{
    size_t table;
    const struct ch_config_key *key = key_find(parse, name, strlen(name), &table);
    if (!key)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s: there is no key \"%s\"", source, name);
    return value_set(parse, key, parse->configs[table], text, source);
}

static struct base_status defaults_set(const struct parse *parse)
{
    struct base_status status = BASE_STATUS_OK;
    for (size_t t = 0; t < parse->table_count; t++)
        for (size_t k = 0; k < parse->tables[t].count && !base_failed(status); k++) {
            const struct ch_config_key *key = &parse->tables[t].keys[k];
            if (key->fallback)
                status = value_set(parse, key, parse->configs[t], key->fallback, "default");
        }
    return status;
}

/* ---- the file ---- */

/* Which keys a source gave, for "twice" and "missing": one bit a key of all tables, in order. */
struct seen {
    uint8_t *bits;
};

static size_t key_index(const struct parse *parse, size_t table, const struct ch_config_key *key)
{
    size_t index = (size_t)(key - parse->tables[table].keys);
    for (size_t t = 0; t < table; t++)
        index += parse->tables[t].count;
    return index;
}

static struct base_status file_pair(const struct parse *parse, struct seen *seen,
                                    const yaml_event_t *name, const char *text, const char *path)
{
    const char *key_text = (const char *)name->data.scalar.value;
    char source[512];
    snprintf(source, sizeof(source), "%s line %zu", path, name->start_mark.line + 1);
    size_t table;
    const struct ch_config_key *key = key_find(parse, key_text, strlen(key_text), &table);
    if (!key)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s: there is no key \"%s\"", source,
                                key_text);
    uint8_t *bit = &seen->bits[key_index(parse, table, key)];
    if (*bit & 1)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s: %s is given twice", source, key_text);
    *bit |= 1;
    return value_set(parse, key, parse->configs[table], text, source);
}

static struct base_status yaml_failed(const yaml_parser_t *yaml, const char *path)
{
    return base_status_make(BASE_INVALID_ARGUMENT, "%s line %zu: %s", path,
                            yaml->problem_mark.line + 1,
                            yaml->problem ? yaml->problem : "not YAML");
}

static struct base_status event_next(yaml_parser_t *yaml, yaml_event_t *event, const char *path)
{
    return yaml_parser_parse(yaml, event) ? BASE_STATUS_OK : yaml_failed(yaml, path);
}

static struct base_status mapping_read(const struct parse *parse, struct seen *seen,
                                       yaml_parser_t *yaml, const char *path)
{
    for (;;) {
        yaml_event_t name, value;
        struct base_status status = event_next(yaml, &name, path);
        if (base_failed(status))
            return status;
        if (name.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&name);
            return BASE_STATUS_OK;
        }
        status = event_next(yaml, &value, path);
        if (base_failed(status)) {
            yaml_event_delete(&name);
            return status;
        }
        if (name.type == YAML_SCALAR_EVENT && value.type == YAML_SCALAR_EVENT)
            status = file_pair(parse, seen, &name, (const char *)value.data.scalar.value, path);
        else
            status = base_status_make(BASE_INVALID_ARGUMENT, "%s line %zu: expected \"key: value\"",
                                      path, name.start_mark.line + 1);
        yaml_event_delete(&name);
        yaml_event_delete(&value);
        if (base_failed(status))
            return status;
    }
}

/* One document that is empty or one mapping of scalars. */
static struct base_status document_read(const struct parse *parse, struct seen *seen,
                                        yaml_parser_t *yaml, const char *path)
{
    for (;;) {
        yaml_event_t event;
        struct base_status status = event_next(yaml, &event, path);
        if (base_failed(status))
            return status;
        yaml_event_type_t type = event.type;
        bool empty = type == YAML_SCALAR_EVENT && event.data.scalar.length == 0;
        size_t line = event.start_mark.line + 1;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT)
            return BASE_STATUS_OK;
        if (type == YAML_MAPPING_START_EVENT)
            status = mapping_read(parse, seen, yaml, path);
        else if (type == YAML_SEQUENCE_START_EVENT || (type == YAML_SCALAR_EVENT && !empty) ||
                 type == YAML_ALIAS_EVENT)
            status = base_status_make(BASE_INVALID_ARGUMENT,
                                      "%s line %zu: expected \"key: value\" lines", path, line);
        if (base_failed(status))
            return status;
    }
}

static struct base_status file_read(const struct parse *parse, struct seen *seen, const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        struct base_status cause = base_status_errno(errno, path);
        struct base_status status =
            base_status_make(BASE_INVALID_ARGUMENT, "--config: %s", base_status_text(&cause));
        base_status_free(&cause);
        return status;
    }
    struct base_buf text = { 0 };
    size_t n;
    while (text.len <= FILE_BYTES_MAX &&
           (n = fread(base_buf_extend(&text, 4096), 1, 4096, file)) > 0)
        text.len -= 4096 - n;
    if (text.len <= FILE_BYTES_MAX)
        text.len -= 4096; /* of the read that found the end */
    fclose(file);
    struct base_status status;
    yaml_parser_t yaml;
    if (text.len > FILE_BYTES_MAX) {
        status = base_status_make(BASE_INVALID_ARGUMENT, "--config: %s is larger than 1 MiB", path);
    } else if (!yaml_parser_initialize(&yaml)) {
        status = base_status_make(BASE_RESOURCE_EXHAUSTED, "--config: no memory");
    } else {
        yaml_parser_set_input_string(&yaml, text.data, text.len);
        status = document_read(parse, seen, &yaml, path);
        yaml_parser_delete(&yaml);
    }
    base_buf_free(&text);
    return status;
}

/* ---- flags ---- */

/* Takes argv[*at], and argv[*at + 1] when the value stands there. *name is cut out of the flag. A
 * lone --flag of a boolean means true. */
static struct base_status flag_take(const struct parse *parse, int argc, char **argv, int *at,
                                    char **name, const char **value)
{
    const char *flag = argv[*at];
    if (strncmp(flag, "--", 2) != 0 || !flag[2])
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "\"%s\" is no flag: flags are --key=value or --key value", flag);
    const char *equals = strchr(flag, '=');
    size_t len = equals ? (size_t)(equals - flag - 2) : strlen(flag + 2);
    *name = base_arena_memdup(parse->arena, flag + 2, len + 1);
    (*name)[len] = '\0';
    *value = equals ? equals + 1 : NULL;
    if (*value)
        return BASE_STATUS_OK;
    size_t table;
    const struct ch_config_key *key = key_find(parse, *name, len, &table);
    const char *next = *at + 1 < argc ? argv[*at + 1] : NULL;
    bool flag_alone = key && key->type == CH_CONFIG_BOOL &&
                      !(next && (strcmp(next, "true") == 0 || strcmp(next, "false") == 0));
    if (flag_alone) {
        *value = "true";
        return BASE_STATUS_OK;
    }
    if (!key && strcmp(*name, "config") != 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s: there is no key \"%s\"", flag, *name);
    if (!next)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s has no value", flag);
    *value = next;
    ++*at;
    return BASE_STATUS_OK;
}

/* Once for --config, once for all others: flags win over the file whatever their order. */
static struct base_status flags_read(const struct parse *parse, struct seen *seen, int argc,
                                     char **argv, const char **file)
{
    for (int at = 1; at < argc; at++) {
        char *name = NULL;
        const char *value = NULL;
        struct base_status status = flag_take(parse, argc, argv, &at, &name, &value);
        if (base_failed(status))
            return status;
        if (strcmp(name, "config") == 0) {
            if (file)
                *file = value;
            continue;
        }
        if (file)
            continue;
        char source[256];
        snprintf(source, sizeof(source), "--%s", name);
        status = named_set(parse, name, value, source);
        if (base_failed(status))
            return status;
        size_t table;
        const struct ch_config_key *key = key_find(parse, name, strlen(name), &table);
        seen->bits[key_index(parse, table, key)] |= 2;
    }
    return BASE_STATUS_OK;
}

static struct base_status missing_check(const struct parse *parse, const struct seen *seen)
{
    for (size_t t = 0; t < parse->table_count; t++)
        for (size_t k = 0; k < parse->tables[t].count; k++) {
            const struct ch_config_key *key = &parse->tables[t].keys[k];
            if (!key->fallback && !seen->bits[key_index(parse, t, key)])
                return base_status_make(BASE_INVALID_ARGUMENT, "--%s must be given: %s", key->name,
                                        key->doc);
        }
    return BASE_STATUS_OK;
}

struct base_status ch_config_parse(const struct ch_config_table *tables, size_t table_count,
                                   void *const *configs, int argc, char **argv,
                                   struct base_arena *arena)
{
    struct ch__config_origin origin;
    return ch__config_parse(tables, table_count, configs, argc, argv, arena, &origin);
}

struct base_status ch__config_parse(const struct ch_config_table *tables, size_t table_count,
                                    void *const *configs, int argc, char **argv,
                                    struct base_arena *arena, struct ch__config_origin *origin)
{
    struct parse parse = { tables, table_count, configs, arena };
    size_t keys = 0;
    for (size_t t = 0; t < table_count; t++)
        keys += tables[t].count;
    struct seen seen = { base_arena_calloc(arena, keys, 1) };
    const char *file = NULL;
    struct base_status status = defaults_set(&parse);
    if (!base_failed(status))
        status = flags_read(&parse, &seen, argc, argv, &file);
    if (!base_failed(status) && file)
        status = file_read(&parse, &seen, file);
    if (!base_failed(status))
        status = flags_read(&parse, &seen, argc, argv, NULL);
    if (!base_failed(status))
        status = missing_check(&parse, &seen);
    for (size_t i = 0; i < keys; i++)
        seen.bits[i] = seen.bits[i] & 2   ? CH__FROM_FLAG
                       : seen.bits[i] & 1 ? CH__FROM_FILE
                                          : CH__FROM_DEFAULT;
    *origin = (struct ch__config_origin){ seen.bits, file };
    return status;
}

/* ---- out ---- */

static void help_key(const struct ch_config_key *key, struct base_buf *out)
{
    base_buf_printf(out, "  --%s=%s\n      %s", key->name, type_names[key->type], key->doc);
    if (key->max > key->min) {
        base_buf_put_str(out, " (");
        put_number(out, key->type, key->min);
        base_buf_put_str(out, " to ");
        put_number(out, key->type, key->max);
        base_buf_put_u8(out, ')');
    }
    if (!key->fallback)
        base_buf_put_str(out, " [must be given]");
    else if (key->fallback[0])
        base_buf_printf(out, " [%s]", key->fallback);
    base_buf_put_u8(out, '\n');
}

void ch_config_help(const struct ch_config_table *tables, size_t table_count, const char *program,
                    const char *about, struct base_buf *out)
{
    base_buf_printf(out, "%s: %s\n\nUsage: %s [--config=FILE] [--key=value ...]\n\n", program,
                    about, program);
    base_buf_put_str(
        out,
        "  --config=FILE\n      YAML lines \"key: value\" of the keys below; flags win over it\n"
        "  --help, --version\n");
    for (size_t t = 0; t < table_count; t++)
        for (size_t k = 0; k < tables[t].count; k++)
            help_key(&tables[t].keys[k], out);
}

void ch__config_show(const struct ch_config_table *tables, size_t table_count, void *const *configs,
                     const struct ch__config_origin *origin, struct base_buf *out)
{
    static const char *const sources[] = { "default", "file", "flag", "set here" };
    size_t index = 0;
    for (size_t t = 0; t < table_count; t++)
        for (size_t k = 0; k < tables[t].count; k++, index++) {
            const struct ch_config_key *key = &tables[t].keys[k];
            base_buf_printf(out, "%s: ", key->name);
            ch__config_value(key, configs[t], out);
            base_buf_printf(out, "   # %s%s: %s\n", sources[origin->from[index]],
                            key->live ? ", live" : "", key->doc);
        }
}
