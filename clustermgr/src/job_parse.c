/* job_parse.c: job files. YAML by libyaml; keys, types and units are checked here, with the file
 * and line of the culprit; what a job may say at all is job_check.c's. README.md lists the keys. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "clustermgr/job.h"
#include "pb.h"

enum { JOB_FILE_MAX = 256 << 10 };

struct parse {
    yaml_document_t *document;
    const char *file;
    struct base_arena *arena;
    CLU_PB(JobSpec) * spec;
};
typedef struct base_status key_fn(struct parse *parse, const yaml_node_t *node);
struct key {
    const char *name;
    key_fn *fn;
};

static struct base_status bad(const struct parse *parse, const yaml_node_t *node, const char *what)
{
    return base_status_make(BASE_INVALID_ARGUMENT, "%s:%zu: %s", parse->file,
                            node->start_mark.line + 1, what);
}

static const yaml_node_t *node_at(const struct parse *parse, int index)
{
    return yaml_document_get_node(parse->document, index);
}

/* ---- values ---- */

static struct base_status text_of(struct parse *parse, const yaml_node_t *node, const char **text)
{
    if (node->type != YAML_SCALAR_NODE)
        return bad(parse, node, "a single value is expected");
    if (memchr(node->data.scalar.value, 0, node->data.scalar.length))
        return bad(parse, node, "a value with a NUL in it");
    *text = base_arena_strdup(parse->arena, (const char *)node->data.scalar.value);
    return BASE_STATUS_OK;
}

/* A number and a unit of a table; `units` ends with a NULL name; the unit "" stands for none
 * given. */
struct unit {
    const char *name;
    uint64_t factor;
};
static struct base_status number_of(struct parse *parse, const yaml_node_t *node,
                                    const struct unit *units, uint64_t *number)
{
    const char *text = NULL;
    char *end = NULL;
    struct base_status status = text_of(parse, node, &text);
    double value;

    if (base_failed(status))
        return status;
    value = strtod(text, &end);
    for (const struct unit *unit = units; end != text && unit->name; unit++) {
        if (strcmp(end, unit->name) != 0)
            continue;
        if (!(value >= 0) || value * (double)unit->factor > 1e18)
            break;
        *number = (uint64_t)(value * (double)unit->factor + 0.5);
        return BASE_STATUS_OK;
    }
    return bad(parse, node,
               base_arena_printf(parse->arena, "\"%s\" is no such quantity here", text));
}

static const struct unit plain[] = { { "", 1 }, { NULL, 0 } };
static const struct unit cpus[] = { { "", 1000 }, { "m", 1 }, { NULL, 0 } };
static const struct unit bytes[] = { { "", 1 },
                                     { "KiB", 1ull << 10 },
                                     { "MiB", 1ull << 20 },
                                     { "GiB", 1ull << 30 },
                                     { "TiB", 1ull << 40 },
                                     { NULL, 0 } };
static const struct unit times[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { NULL, 0 } };

static struct base_status u32_of(struct parse *parse, const yaml_node_t *node,
                                 const struct unit *units, uint32_t *out)
{
    uint64_t number = 0;
    struct base_status status = number_of(parse, node, units, &number);

    if (!base_failed(status) && number > UINT32_MAX)
        status = bad(parse, node, "too large");
    *out = (uint32_t)number;
    return status;
}

static struct base_status bool_of(struct parse *parse, const yaml_node_t *node,
                                  protobuf_c_boolean *out)
{
    const char *text = NULL;
    struct base_status status = text_of(parse, node, &text);

    if (base_failed(status))
        return status;
    *out = strcmp(text, "true") == 0;
    return *out || strcmp(text, "false") == 0 ? BASE_STATUS_OK
                                              : bad(parse, node, "true or false is expected");
}

static struct base_status string_of(struct parse *parse, const yaml_node_t *node,
                                    ProtobufCBinaryData *out)
{
    const char *text = NULL;
    struct base_status status = text_of(parse, node, &text);

    if (!base_failed(status))
        *out = ch_data_str(text);
    return status;
}

static struct base_status strings_of(struct parse *parse, const yaml_node_t *node,
                                     ProtobufCBinaryData **out, size_t *count)
{
    size_t n;
    struct base_status status = BASE_STATUS_OK;

    if (node->type != YAML_SEQUENCE_NODE)
        return bad(parse, node, "a list is expected");
    n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    *out = BASE_NEW_ARRAY(parse->arena, ProtobufCBinaryData, n + 1);
    *count = n;
    for (size_t i = 0; i < n && !base_failed(status); i++)
        status = string_of(parse, node_at(parse, node->data.sequence.items.start[i]), &(*out)[i]);
    return status;
}

/* ---- maps ---- */

/* Hands each key's value to its function; unknown and repeated keys are errors. */
static struct base_status map_read(struct parse *parse, const yaml_node_t *node,
                                   const struct key *keys, size_t key_count)
{
    uint64_t seen = 0;

    if (node->type != YAML_MAPPING_NODE)
        return bad(parse, node, "\"key: value\" lines are expected");
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = node_at(parse, pair->key);
        const char *name = NULL;
        size_t i = 0;
        struct base_status status = text_of(parse, key_node, &name);

        if (base_failed(status))
            return status;
        while (i < key_count && strcmp(keys[i].name, name) != 0)
            i++;
        if (i == key_count)
            return bad(parse, key_node,
                       base_arena_printf(parse->arena, "unknown key \"%s\"", name));
        if (seen & 1ull << i)
            return bad(parse, key_node,
                       base_arena_printf(parse->arena, "\"%s\" is given twice", name));
        seen |= 1ull << i;
        status = keys[i].fn(parse, node_at(parse, pair->value));
        if (base_failed(status))
            return base_status_wrap(status, "%s", name);
    }
    return BASE_STATUS_OK;
}
#define MAP_READ(parse, node, keys) \
    map_read((parse), (node), (keys), sizeof(keys) / sizeof((keys)[0]))

/* A key whose value goes straight into a field. */
#define KEY_FN(fn_name, of, target)                                                 \
    static struct base_status fn_name(struct parse *parse, const yaml_node_t *node) \
    {                                                                               \
        return of(parse, node, target);                                             \
    }
#define KEY_NUMBER_FN(fn_name, of, units, target)                                   \
    static struct base_status fn_name(struct parse *parse, const yaml_node_t *node) \
    {                                                                               \
        return of(parse, node, units, target);                                      \
    }

KEY_NUMBER_FN(key_cpu, number_of, cpus, &parse->spec->resources->cpu_millis)
KEY_NUMBER_FN(key_memory, number_of, bytes, &parse->spec->resources->memory_bytes)
KEY_NUMBER_FN(key_disk, number_of, bytes, &parse->spec->resources->disk_bytes)
static struct base_status key_resources(struct parse *parse, const yaml_node_t *node)
{
    static const struct key keys[] = { { "cpu", key_cpu },
                                       { "memory", key_memory },
                                       { "disk", key_disk } };

    return MAP_READ(parse, node, keys);
}

KEY_NUMBER_FN(key_interval, u32_of, times, &parse->spec->health->interval_ms)
KEY_NUMBER_FN(key_timeout, u32_of, times, &parse->spec->health->timeout_ms)
KEY_NUMBER_FN(key_unhealthy_after, u32_of, plain, &parse->spec->health->unhealthy_after)
KEY_NUMBER_FN(key_restart_after, u32_of, times, &parse->spec->health->restart_after_ms)
static struct base_status key_health(struct parse *parse, const yaml_node_t *node)
{
    static const struct key keys[] = { { "interval", key_interval },
                                       { "timeout", key_timeout },
                                       { "unhealthy_after", key_unhealthy_after },
                                       { "restart_after", key_restart_after } };

    parse->spec->health = CLU_NEW(parse->arena, HealthCheck, health_check);
    return MAP_READ(parse, node, keys);
}

KEY_NUMBER_FN(key_backoff_min, u32_of, times, &parse->spec->restart->backoff_min_ms)
KEY_NUMBER_FN(key_backoff_max, u32_of, times, &parse->spec->restart->backoff_max_ms)
static struct base_status key_policy(struct parse *parse, const yaml_node_t *node)
{
    const char *text = NULL;
    struct base_status status = text_of(parse, node, &text);

    if (base_failed(status))
        return status;
    parse->spec->restart->never = strcmp(text, "never") == 0;
    return parse->spec->restart->never || strcmp(text, "always") == 0
               ? BASE_STATUS_OK
               : bad(parse, node, "always or never is expected");
}
static struct base_status key_restart(struct parse *parse, const yaml_node_t *node)
{
    static const struct key keys[] = { { "policy", key_policy },
                                       { "backoff_min", key_backoff_min },
                                       { "backoff_max", key_backoff_max } };

    parse->spec->restart = CLU_NEW(parse->arena, RestartPolicy, restart_policy);
    return MAP_READ(parse, node, keys);
}

/* The constraint being read is the last one. */
#define LAST_CONSTRAINT (parse->spec->constraints[parse->spec->n_constraints - 1])
KEY_FN(key_attribute, string_of, &LAST_CONSTRAINT->attribute)
KEY_FN(key_value, string_of, &LAST_CONSTRAINT->value)
KEY_FN(key_not, bool_of, &LAST_CONSTRAINT->negated)
KEY_FN(key_soft, bool_of, &LAST_CONSTRAINT->soft)
static struct base_status key_constraints(struct parse *parse, const yaml_node_t *node)
{
    static const struct key keys[] = { { "attribute", key_attribute },
                                       { "value", key_value },
                                       { "not", key_not },
                                       { "soft", key_soft } };
    CLU_PB(JobSpec) *spec = parse->spec;
    struct base_status status = BASE_STATUS_OK;
    size_t count;

    if (node->type != YAML_SEQUENCE_NODE)
        return bad(parse, node, "a list is expected");
    count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    spec->constraints = BASE_NEW_ARRAY(parse->arena, CLU_PB(Constraint) *, count + 1);
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        spec->constraints[spec->n_constraints++] = CLU_NEW(parse->arena, Constraint, constraint);
        status = MAP_READ(parse, node_at(parse, node->data.sequence.items.start[i]), keys);
    }
    return status;
}

static struct base_status key_environment(struct parse *parse, const yaml_node_t *node)
{
    CLU_PB(JobSpec) *spec = parse->spec;
    size_t count;

    if (node->type != YAML_MAPPING_NODE)
        return bad(parse, node, "\"NAME: value\" lines are expected");
    count = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    spec->environment = BASE_NEW_ARRAY(parse->arena, ProtobufCBinaryData, count + 1);
    for (size_t i = 0; i < count; i++) {
        const yaml_node_pair_t *pair = &node->data.mapping.pairs.start[i];
        const char *name = NULL, *value = NULL;
        struct base_status status = text_of(parse, node_at(parse, pair->key), &name);

        if (!base_failed(status))
            status = text_of(parse, node_at(parse, pair->value), &value);
        if (base_failed(status))
            return status;
        spec->environment[spec->n_environment++] =
            ch_data_str(base_arena_printf(parse->arena, "%s=%s", name, value));
    }
    return BASE_STATUS_OK;
}

static struct base_status key_band(struct parse *parse, const yaml_node_t *node)
{
    static const char *const names[] = { "", "monitoring", "production", "batch", "best-effort" };
    const char *text = NULL;
    struct base_status status = text_of(parse, node, &text);

    if (base_failed(status))
        return status;
    for (int i = 1; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
        if (strcmp(names[i], text) != 0)
            continue;
        parse->spec->band = (CLU_PB(Band))i;
        return BASE_STATUS_OK;
    }
    return bad(parse, node, "monitoring, production, batch or best-effort is expected");
}

static struct base_status key_spread(struct parse *parse, const yaml_node_t *node)
{
    const char *text = NULL;
    struct base_status status = text_of(parse, node, &text);

    if (base_failed(status))
        return status;
    parse->spec->distinct_machines = strcmp(text, "machine") == 0;
    return parse->spec->distinct_machines || strcmp(text, "wish") == 0
               ? BASE_STATUS_OK
               : bad(parse, node,
                     "machine (no two tasks on one) or wish (as far as it goes) is expected");
}

KEY_FN(key_name, string_of, &parse->spec->name)
KEY_FN(key_owner, string_of, &parse->spec->owner)
KEY_FN(key_command, string_of, &parse->spec->command)
KEY_FN(key_front, string_of, &parse->spec->front)
KEY_FN(key_pinned, bool_of, &parse->spec->pinned)
KEY_FN(key_group, bool_of, &parse->spec->group)
KEY_NUMBER_FN(key_tasks, u32_of, plain, &parse->spec->tasks)
static struct base_status key_args(struct parse *parse, const yaml_node_t *node)
{
    return strings_of(parse, node, &parse->spec->args, &parse->spec->n_args);
}
static struct base_status key_after(struct parse *parse, const yaml_node_t *node)
{
    return strings_of(parse, node, &parse->spec->after, &parse->spec->n_after);
}

static const struct key job_keys[] = {
    { "name", key_name },
    { "owner", key_owner },
    { "command", key_command },
    { "args", key_args },
    { "environment", key_environment },
    { "tasks", key_tasks },
    { "resources", key_resources },
    { "band", key_band },
    { "constraints", key_constraints },
    { "spread", key_spread },
    { "pinned", key_pinned },
    { "group", key_group },
    { "front", key_front },
    { "health", key_health },
    { "restart", key_restart },
    { "after", key_after },
};

/* ---- the file ---- */

struct base_status clu_job_parse(struct base_bytes yaml, const char *file, struct base_arena *arena,
                                 CLU_PB(JobSpec) * *spec)
{
    yaml_parser_t parser;
    yaml_document_t document;
    struct parse parse = { .document = &document, .file = file, .arena = arena };
    const yaml_node_t *root;
    struct base_status status;

    if (yaml.len > JOB_FILE_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s: %zu bytes, at most %d", file, yaml.len,
                                JOB_FILE_MAX);
    if (!yaml_parser_initialize(&parser))
        abort();
    yaml_parser_set_input_string(&parser, yaml.data, yaml.len);
    if (!yaml_parser_load(&parser, &document)) {
        status = base_status_make(BASE_INVALID_ARGUMENT, "%s:%zu: %s", file,
                                  parser.problem_mark.line + 1,
                                  parser.problem ? parser.problem : "not YAML");
        yaml_parser_delete(&parser);
        return status;
    }
    parse.spec = CLU_NEW(arena, JobSpec, job_spec);
    parse.spec->tasks = 1;
    parse.spec->resources = CLU_NEW(arena, Resources, resources);
    root = yaml_document_get_root_node(&document);
    if (root)
        status = MAP_READ(&parse, root, job_keys);
    else
        status = base_status_make(BASE_INVALID_ARGUMENT, "%s: empty", file);
    yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    if (!base_failed(status))
        status = base_status_wrap(clu_job_check(parse.spec), "%s", file);
    *spec = parse.spec;
    return status;
}
