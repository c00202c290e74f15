/* index.c: see index.h. __key__ as the last property states the direction of the key, which
 * otherwise is that of the last property before it; such an index is stored without it. */
#include "index.h"

#include "chassis/proto.h"
#include "ds.h"

typedef Strata__Queryapi__V1__Index__Property index_property_proto;

bool qry_index_same(const struct qry_index *a, const struct qry_index *b)
{
    bool same = base_bytes_eq(a->kind, b->kind) && a->ancestor == b->ancestor &&
                a->property_count == b->property_count && a->key_descending == b->key_descending;
    for (size_t i = 0; same && i < a->property_count; i++)
        same = base_bytes_eq(a->properties[i].name, b->properties[i].name) &&
               a->properties[i].descending == b->properties[i].descending;
    return same;
}

static bool implied_direction(const struct qry_index *index)
{
    return index->property_count > 0 && index->properties[index->property_count - 1].descending;
}

struct base_status qry_index_of_proto(const qry_index_proto *in, struct base_arena *arena,
                                      struct qry_index *out)
{
    *out = (struct qry_index){
        .id = in->id, .kind = ch_bytes_of(in->kind), .ancestor = in->ancestor, .ready = in->ready
    };
    out->properties = BASE_NEW_ARRAY(arena, struct qry_index_property, in->n_properties);
    if (out->kind.len == 0 || out->kind.len > QRY_NAME_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "an index needs a kind of 1 to %d bytes",
                                QRY_NAME_MAX);
    if (in->n_properties > QRY_INDEX_PROPERTIES_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "an index of kind %.*s has more than %d properties",
                                BASE_FMT(out->kind), QRY_INDEX_PROPERTIES_MAX);
    bool explicit_key = false;
    for (size_t i = 0; i < in->n_properties; i++) {
        struct base_bytes name = ch_bytes_of(in->properties[i]->name);
        if (name.len == 0 || name.len > QRY_NAME_MAX || explicit_key)
            return base_status_make(BASE_INVALID_ARGUMENT, "an index of kind %.*s: %s",
                                    BASE_FMT(out->kind),
                                    explicit_key ? "__key__ must be the last property"
                                                 : "a property name is empty or too long");
        explicit_key = base_bytes_eq_str(name, "__key__");
        if (explicit_key)
            out->key_descending = in->properties[i]->descending;
        else
            out->properties[out->property_count++] =
                (struct qry_index_property){ name, in->properties[i]->descending };
    }
    if (out->property_count == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "an index of kind %.*s has no properties",
                                BASE_FMT(out->kind));
    if (!explicit_key)
        out->key_descending = implied_direction(out);
    return BASE_STATUS_OK;
}

static index_property_proto *property_proto(struct base_arena *arena, struct base_bytes name,
                                            bool descending)
{
    index_property_proto *out =
        CH_MESSAGE(arena, index_property_proto, strata__queryapi__v1__index__property);
    out->name = ch_data_of(name);
    out->descending = descending;
    return out;
}

qry_index_proto *qry_index_to_proto(const struct qry_index *in, struct base_arena *arena)
{
    qry_index_proto *out = CH_MESSAGE(arena, qry_index_proto, strata__queryapi__v1__index);
    out->kind = ch_data_of(in->kind);
    out->ancestor = in->ancestor;
    out->id = in->id;
    out->ready = in->ready;
    out->properties = BASE_NEW_ARRAY(arena, index_property_proto *, in->property_count + 1);
    for (size_t i = 0; i < in->property_count; i++)
        out->properties[out->n_properties++] =
            property_proto(arena, in->properties[i].name, in->properties[i].descending);
    if (in->key_descending != implied_direction(in))
        out->properties[out->n_properties++] =
            property_proto(arena, BASE_BYTES_LIT("__key__"), in->key_descending);
    return out;
}

/* A YAML scalar: plain where that is safe, else in double quotes. */
static void put_scalar(struct base_buf *out, struct base_bytes text)
{
    bool plain = text.len > 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        plain = plain && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                          c >= 0x80 || (i > 0 && ((c >= '0' && c <= '9') || c == '.' || c == '-')));
    }
    if (plain) {
        base_buf_put_bytes(out, text);
        return;
    }
    base_buf_put_str(out, "\"");
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '"' || c == '\\')
            base_buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            base_buf_printf(out, "\\x%02x", c);
        else
            base_buf_put_u8(out, c);
    }
    base_buf_put_str(out, "\"");
}

static void put_property(struct base_buf *out, struct base_bytes name, bool descending)
{
    base_buf_put_str(out, "\n  - name: ");
    put_scalar(out, name);
    if (descending)
        base_buf_put_str(out, "\n    direction: desc");
}

void qry_index_put_stanza(struct base_buf *out, const struct qry_index *index)
{
    base_buf_put_str(out, "- kind: ");
    put_scalar(out, index->kind);
    if (index->ancestor)
        base_buf_put_str(out, "\n  ancestor: yes");
    base_buf_put_str(out, "\n  properties:");
    for (size_t i = 0; i < index->property_count; i++)
        put_property(out, index->properties[i].name, index->properties[i].descending);
    if (index->key_descending != implied_direction(index))
        put_property(out, BASE_BYTES_LIT("__key__"), index->key_descending);
}
