/* index_yaml.c: index.yaml as libyaml's events: indexes: [{kind, ancestor, properties: [{name,
 * direction}]}]. A walk over the loaded document; every refusal names the line of the node at
 * fault. */
#include <yaml.h>

#include "chassis/proto.h"
#include "ds.h"
#include "index.h"

enum { YAML_BYTES_MAX = 1 << 20 };

struct walk {
    yaml_document_t document;
    struct base_arena *arena;
};

#define BAD(node, fmt, ...)                                              \
    base_status_make(BASE_INVALID_ARGUMENT, "index.yaml line %zu: " fmt, \
                     (node)->start_mark.line + 1, ##__VA_ARGS__)

static struct base_bytes scalar(const yaml_node_t *node)
{
    return base_bytes(node->data.scalar.value, node->data.scalar.length);
}

static yaml_node_t *node_of(struct walk *walk, int index)
{
    return yaml_document_get_node(&walk->document, index);
}

static struct base_status want_scalar(const yaml_node_t *node, const char *what,
                                      struct base_bytes *out)
{
    *out = BASE_BYTES_EMPTY;
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.length == 0)
        return BAD(node, "%s must be a word", what);
    *out = scalar(node);
    return BASE_STATUS_OK;
}

static struct base_status want_choice(const yaml_node_t *node, const char *what,
                                      const char *const yes[3], const char *const no[3], bool *out)
{
    struct base_bytes text;
    struct base_status status = want_scalar(node, what, &text);
    if (base_failed(status))
        return status;
    for (size_t i = 0; i < 3; i++) {
        if (yes[i] && base_bytes_eq_str(text, yes[i])) {
            *out = true;
            return status;
        }
        if (no[i] && base_bytes_eq_str(text, no[i])) {
            *out = false;
            return status;
        }
    }
    return BAD(node, "%s must be %s or %s, not %.*s", what, yes[0], no[0], BASE_FMT(text));
}

static struct base_status take_property(struct walk *walk, yaml_node_t *node,
                                        qry_index_proto *index)
{
    static const char *const desc[3] = { "desc" }, *const asc[3] = { "asc" };
    typedef Strata__Queryapi__V1__Index__Property property_proto;
    property_proto *property =
        CH_MESSAGE(walk->arena, property_proto, strata__queryapi__v1__index__property);
    if (node->type != YAML_MAPPING_NODE)
        return BAD(node, "a property must be a mapping with a name");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        yaml_node_t *key = node_of(walk, pair->key), *value = node_of(walk, pair->value);
        struct base_bytes text, name;
        struct base_status status = want_scalar(key, "a key", &text);
        if (!base_failed(status) && base_bytes_eq_str(text, "name")) {
            status = want_scalar(value, "name", &name);
            if (!base_failed(status))
                property->name = ch_data_of(base_bytes_dup(walk->arena, name));
        } else if (!base_failed(status) && base_bytes_eq_str(text, "direction")) {
            bool descending = false;
            status = want_choice(value, "direction", desc, asc, &descending);
            property->descending = descending;
        } else if (!base_failed(status)) {
            status = BAD(key, "unknown key %.*s of a property", BASE_FMT(text));
        }
        if (base_failed(status))
            return status;
    }
    if (property->name.len == 0)
        return BAD(node, "a property has no name");
    index->properties[index->n_properties++] = property;
    return BASE_STATUS_OK;
}

static struct base_status take_properties(struct walk *walk, yaml_node_t *node,
                                          qry_index_proto *index)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return BAD(node, "properties must be a list");
    yaml_node_item_t *start = node->data.sequence.items.start, *top = node->data.sequence.items.top;
    if (index->properties || top - start > QRY_INDEX_PROPERTIES_MAX)
        return BAD(node, "more than %d properties, or given twice", QRY_INDEX_PROPERTIES_MAX);
    index->properties = BASE_NEW_ARRAY(walk->arena, Strata__Queryapi__V1__Index__Property *,
                                       (size_t)(top - start) + 1);
    for (yaml_node_item_t *item = start; item < top; item++) {
        struct base_status status = take_property(walk, node_of(walk, *item), index);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static struct base_status take_index(struct walk *walk, yaml_node_t *node, struct qry_index *out)
{
    static const char *const yes[3] = { "yes", "true", "on" }, *const no[3] = { "no", "false",
                                                                                "off" };
    qry_index_proto *index = CH_MESSAGE(walk->arena, qry_index_proto, strata__queryapi__v1__index);
    if (node->type != YAML_MAPPING_NODE)
        return BAD(node, "an index must be a mapping with kind and properties");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        yaml_node_t *key = node_of(walk, pair->key), *value = node_of(walk, pair->value);
        struct base_bytes text, kind;
        struct base_status status = want_scalar(key, "a key", &text);
        if (!base_failed(status) && base_bytes_eq_str(text, "kind")) {
            status = want_scalar(value, "kind", &kind);
            if (!base_failed(status))
                index->kind = ch_data_of(base_bytes_dup(walk->arena, kind));
        } else if (!base_failed(status) && base_bytes_eq_str(text, "ancestor")) {
            bool ancestor = false;
            status = want_choice(value, "ancestor", yes, no, &ancestor);
            index->ancestor = ancestor;
        } else if (!base_failed(status) && base_bytes_eq_str(text, "properties")) {
            status = take_properties(walk, value, index);
        } else if (!base_failed(status)) {
            status = BAD(key, "unknown key %.*s of an index", BASE_FMT(text));
        }
        if (base_failed(status))
            return status;
    }
    struct base_status status = qry_index_of_proto(index, walk->arena, out);
    if (!base_failed(status) || status.code != BASE_INVALID_ARGUMENT)
        return status;
    return base_status_wrap(status, "index.yaml line %zu", node->start_mark.line + 1);
}

static struct base_status take_indexes(struct walk *walk, yaml_node_t *node,
                                       struct qry_index **indexes, size_t *count)
{
    if (node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0)
        return BASE_STATUS_OK; /* "indexes:" and nothing */
    if (node->type != YAML_SEQUENCE_NODE)
        return BAD(node, "indexes must be a list");
    yaml_node_item_t *start = node->data.sequence.items.start, *top = node->data.sequence.items.top;
    if (top - start > QRY_INDEXES_MAX)
        return BAD(node, "more than %d indexes", QRY_INDEXES_MAX);
    *indexes = BASE_NEW_ARRAY(walk->arena, struct qry_index, (size_t)(top - start) + 1);
    for (yaml_node_item_t *item = start; item < top; item++) {
        struct qry_index index;
        struct base_status status = take_index(walk, node_of(walk, *item), &index);
        bool known = false;
        if (base_failed(status))
            return status;
        for (size_t i = 0; i < *count; i++)
            known = known || qry_index_same(&(*indexes)[i], &index);
        if (!known)
            (*indexes)[(*count)++] = index;
    }
    return BASE_STATUS_OK;
}

static struct base_status take_document(struct walk *walk, struct qry_index **indexes,
                                        size_t *count)
{
    yaml_node_t *root = yaml_document_get_root_node(&walk->document);
    struct base_status status = BASE_STATUS_OK;
    if (!root)
        return status; /* an empty file */
    if (root->type != YAML_MAPPING_NODE)
        return BAD(root, "the file must begin with \"indexes:\"");
    for (yaml_node_pair_t *pair = root->data.mapping.pairs.start;
         pair < root->data.mapping.pairs.top && !base_failed(status); pair++) {
        yaml_node_t *key = node_of(walk, pair->key);
        if (key->type != YAML_SCALAR_NODE || !base_bytes_eq_str(scalar(key), "indexes") ||
            *count > 0)
            status = BAD(key, "only one key is known here: indexes");
        else
            status = take_indexes(walk, node_of(walk, pair->value), indexes, count);
    }
    return status;
}

struct base_status qry_index_parse_yaml(struct base_bytes yaml, struct base_arena *arena,
                                        struct qry_index **indexes, size_t *count)
{
    struct walk walk = { .arena = arena };
    yaml_parser_t parser;
    struct base_status status;
    *count = 0;
    *indexes = NULL;
    if (yaml.len > YAML_BYTES_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "index.yaml is larger than %d bytes",
                                YAML_BYTES_MAX);
    BASE_ASSERT(yaml_parser_initialize(&parser));
    yaml_parser_set_input_string(&parser, yaml.data, yaml.len);
    if (!yaml_parser_load(&parser, &walk.document)) {
        status = base_status_make(BASE_INVALID_ARGUMENT, "index.yaml line %zu: %s",
                                  parser.problem_mark.line + 1,
                                  parser.problem ? parser.problem : "not YAML");
    } else {
        status = take_document(&walk, indexes, count);
        yaml_document_delete(&walk.document);
    }
    yaml_parser_delete(&parser);
    return status;
}
