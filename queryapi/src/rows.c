/* rows.c: see rows.h. */
#include "rows.h"

enum { ID = 1, NAME = 2 };
enum { TAG_NULL = 1, TAG_INTEGER, TAG_BOOLEAN, TAG_STRING, TAG_DOUBLE, TAG_POINT, TAG_KEY };

/* ---- paths ---- */

static void put_element(struct base_buf *out, const qry_path_element *element)
{
    base_buf_put_ordered(out, ch_bytes_of(element->kind));
    if (element->id_type_case == ELEMENT(ID)) {
        base_buf_put_u8(out, ID);
        base_buf_put_ordered_i64(out, element->id);
        return;
    }
    BASE_ASSERT(element->id_type_case == ELEMENT(NAME));
    base_buf_put_u8(out, NAME);
    base_buf_put_ordered(out, ch_bytes_of(element->name));
}

void qry_put_path(struct base_buf *out, const qry_key *key)
{
    for (size_t i = 0; i < key->n_path; i++)
        put_element(out, key->path[i]);
}

void qry_put_path_end(struct base_buf *out)
{
    base_buf_put_u8(out, 0);
    base_buf_put_u8(out, 0);
}

static bool take_string(struct base_bytes *in, struct base_arena *arena, ProtobufCBinaryData *out)
{
    struct base_buf plain = { 0 };
    bool good = base_take_ordered(in, &plain);
    if (good)
        *out = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&plain)));
    base_buf_free(&plain);
    return good;
}

static bool take_element(struct base_bytes *in, struct base_arena *arena, qry_path_element *element)
{
    struct base_bytes tag;
    if (!take_string(in, arena, &element->kind) || !base_take_bytes(in, 1, &tag))
        return false;
    if (tag.data[0] == ID) {
        element->id_type_case = ELEMENT(ID);
        return base_take_ordered_i64(in, &element->id);
    }
    element->id_type_case = ELEMENT(NAME);
    return tag.data[0] == NAME && take_string(in, arena, &element->name);
}

bool qry_take_path(struct base_bytes in, const Google__Datastore__V1__PartitionId *partition,
                   struct base_arena *arena, qry_key **key)
{
    qry_key *taken = CH_MESSAGE(arena, qry_key, google__datastore__v1__key);
    taken->partition_id = (Google__Datastore__V1__PartitionId *)partition;
    taken->path = BASE_NEW_ARRAY(arena, qry_path_element *, QRY_PATH_ELEMENTS_MAX);
    while (in.len > 0) {
        if (taken->n_path == QRY_PATH_ELEMENTS_MAX)
            return false;
        qry_path_element *element =
            CH_MESSAGE(arena, qry_path_element, google__datastore__v1__key__path_element);
        if (!take_element(&in, arena, element))
            return false;
        taken->path[taken->n_path++] = element;
    }
    *key = taken;
    return taken->n_path > 0;
}

struct base_bytes qry_name_space_of(const qry_key *key)
{
    return key->partition_id ? ch_bytes_of(key->partition_id->namespace_id) : BASE_BYTES_EMPTY;
}

void qry_put_group(struct base_buf *out, const qry_key *key)
{
    base_buf_put_ordered(out, qry_name_space_of(key));
    put_element(out, key->path[0]);
}

/* Skips an ordered string; its length with its end, or 0. */
static size_t ordered_len(struct base_bytes in)
{
    for (size_t i = 0; i + 1 < in.len; i++) {
        if (in.data[i] != 0)
            continue;
        if (in.data[i + 1] == 0x01)
            return i + 2;
        if (in.data[i + 1] != 0xff)
            return 0;
        i++;
    }
    return 0;
}

size_t qry_path_root_len(struct base_bytes path)
{
    size_t kind = ordered_len(path);
    if (kind == 0 || kind >= path.len)
        return 0;
    if (path.data[kind] == ID)
        return kind + 9 <= path.len ? kind + 9 : 0;
    size_t name = ordered_len(base_bytes(path.data + kind + 1, path.len - kind - 1));
    return path.data[kind] == NAME && name > 0 ? kind + 1 + name : 0;
}

void qry_put_group_of_path(struct base_buf *out, struct base_bytes name_space,
                           struct base_bytes path)
{
    size_t len = qry_path_root_len(path);
    BASE_ASSERT(len > 0);
    base_buf_put_ordered(out, name_space);
    base_buf_put(out, path.data, len);
}

/* ---- values ---- */

static void put_key_value(struct base_buf *out, const qry_key *key)
{
    base_buf_put_ordered(out, qry_name_space_of(key));
    qry_put_path(out, key);
    qry_put_path_end(out);
}

static int64_t timestamp_us(const Google__Protobuf__Timestamp *at)
{
    return at->seconds * 1000000 + at->nanos / 1000;
}

void qry_put_value(struct base_buf *out, const qry_value *value)
{
    switch (value->value_type_case) {
    case VALUE(NULL_VALUE):
        base_buf_put_u8(out, TAG_NULL);
        break;
    case VALUE(INTEGER_VALUE):
        base_buf_put_u8(out, TAG_INTEGER);
        base_buf_put_ordered_i64(out, value->integer_value);
        break;
    case VALUE(TIMESTAMP_VALUE):
        base_buf_put_u8(out, TAG_INTEGER);
        base_buf_put_ordered_i64(out, timestamp_us(value->timestamp_value));
        break;
    case VALUE(BOOLEAN_VALUE):
        base_buf_put_u8(out, TAG_BOOLEAN);
        base_buf_put_u8(out, value->boolean_value ? 1 : 0);
        break;
    case VALUE(STRING_VALUE):
        base_buf_put_u8(out, TAG_STRING);
        base_buf_put_ordered(out, ch_bytes_of(value->string_value));
        break;
    case VALUE(BLOB_VALUE):
        base_buf_put_u8(out, TAG_STRING);
        base_buf_put_ordered(out, ch_bytes_of(value->blob_value));
        break;
    case VALUE(DOUBLE_VALUE):
        base_buf_put_u8(out, TAG_DOUBLE);
        base_buf_put_ordered_double(out, value->double_value);
        break;
    case VALUE(GEO_POINT_VALUE):
        base_buf_put_u8(out, TAG_POINT);
        base_buf_put_ordered_double(out, value->geo_point_value->latitude);
        base_buf_put_ordered_double(out, value->geo_point_value->longitude);
        break;
    case VALUE(KEY_VALUE):
        base_buf_put_u8(out, TAG_KEY);
        put_key_value(out, value->key_value);
        break;
    default:
        BASE_ASSERT(!"an indexable value");
    }
}

void qry_put_value_descending(struct base_buf *out, const qry_value *value)
{
    size_t from = out->len;
    qry_put_value(out, value);
    for (size_t i = from; i < out->len; i++)
        out->data[i] = (uint8_t)~out->data[i];
}

void qry_put_flipped(struct base_buf *out, struct base_bytes plain)
{
    uint8_t *at = base_buf_extend(out, plain.len);
    for (size_t i = 0; i < plain.len; i++)
        at[i] = (uint8_t)~plain.data[i];
}

/* ---- taking values apart ---- */

/* Moves one byte from `in`, flipped when descending, to `plain`. */
static bool take_u8(struct base_bytes *in, uint8_t flip, struct base_buf *plain, uint8_t *byte)
{
    if (in->len == 0)
        return false;
    *byte = in->data[0] ^ flip;
    base_buf_put_u8(plain, *byte);
    in->data++;
    in->len--;
    return true;
}

static bool take_fixed(struct base_bytes *in, uint8_t flip, struct base_buf *plain, size_t len)
{
    uint8_t byte;
    while (len-- > 0)
        if (!take_u8(in, flip, plain, &byte))
            return false;
    return true;
}

/* An ordered string: up to and with its end, 00 01. */
static bool take_ordered(struct base_bytes *in, uint8_t flip, struct base_buf *plain)
{
    uint8_t byte;
    for (;;) {
        if (!take_u8(in, flip, plain, &byte))
            return false;
        if (byte != 0)
            continue;
        if (!take_u8(in, flip, plain, &byte) || (byte != 0x01 && byte != 0xff))
            return false;
        if (byte == 0x01)
            return true;
    }
}

/* A key value: namespace, elements, 00 00. */
static bool take_key_value(struct base_bytes *in, uint8_t flip, struct base_buf *plain)
{
    uint8_t tag;
    if (!take_ordered(in, flip, plain))
        return false;
    for (;;) {
        if (in->len >= 2 && (in->data[0] ^ flip) == 0 && (in->data[1] ^ flip) == 0)
            return take_fixed(in, flip, plain, 2);
        if (!take_ordered(in, flip, plain) || !take_u8(in, flip, plain, &tag))
            return false;
        if (tag != ID && tag != NAME)
            return false;
        if (!(tag == ID ? take_fixed(in, flip, plain, 8) : take_ordered(in, flip, plain)))
            return false;
    }
}

bool qry_take_value(struct base_bytes *in, bool descending, struct base_buf *plain)
{
    struct base_bytes rest = *in;
    size_t keep = plain->len;
    uint8_t flip = descending ? 0xff : 0, tag;
    bool good = take_u8(&rest, flip, plain, &tag);
    if (good)
        switch (tag) {
        case TAG_NULL:
            break;
        case TAG_INTEGER:
        case TAG_DOUBLE:
            good = take_fixed(&rest, flip, plain, 8);
            break;
        case TAG_BOOLEAN:
            good = take_fixed(&rest, flip, plain, 1);
            break;
        case TAG_STRING:
            good = take_ordered(&rest, flip, plain);
            break;
        case TAG_POINT:
            good = take_fixed(&rest, flip, plain, 16);
            break;
        case TAG_KEY:
            good = take_key_value(&rest, flip, plain);
            break;
        default:
            good = false;
        }
    if (good)
        *in = rest;
    else
        plain->len = keep;
    return good;
}

static bool is_utf8(struct base_bytes text)
{
    for (size_t i = 0; i < text.len;) {
        uint8_t lead = text.data[i];
        size_t more = lead < 0x80                   ? 0
                      : lead >= 0xc2 && lead < 0xe0 ? 1
                      : (lead & 0xf0) == 0xe0       ? 2
                      : lead >= 0xf0 && lead < 0xf5 ? 3
                                                    : 9;
        if (more == 9 || text.len - i <= more)
            return false;
        uint32_t point = more ? lead & (0x3fu >> more) : lead;
        for (size_t k = 1; k <= more; k++) {
            if ((text.data[i + k] & 0xc0) != 0x80)
                return false;
            point = point << 6 | (text.data[i + k] & 0x3f);
        }
        if ((more == 2 && point < 0x800) || (more == 3 && (point < 0x10000 || point > 0x10ffff)) ||
            (point >= 0xd800 && point < 0xe000))
            return false;
        i += more + 1;
    }
    return true;
}

static bool decode_text(struct base_bytes *in, struct base_arena *arena, qry_value *value)
{
    ProtobufCBinaryData data;
    if (!take_string(in, arena, &data))
        return false;
    bool text = is_utf8(ch_bytes_of(data));
    value->value_type_case = text ? VALUE(STRING_VALUE) : VALUE(BLOB_VALUE);
    if (text)
        value->string_value = data;
    else
        value->blob_value = data;
    return true;
}

static bool decode_key(struct base_bytes *in, struct base_arena *arena, qry_value *value)
{
    qry_partition *partition =
        CH_MESSAGE(arena, qry_partition, google__datastore__v1__partition_id);
    if (!take_string(in, arena, &partition->namespace_id) || in->len < 2)
        return false;
    struct base_bytes path = base_bytes(in->data, in->len - 2);
    in->data += in->len;
    in->len = 0;
    value->value_type_case = VALUE(KEY_VALUE);
    return qry_take_path(path, partition, arena, &value->key_value);
}

static bool decode_point(struct base_bytes *in, struct base_arena *arena, qry_value *value)
{
    value->value_type_case = VALUE(GEO_POINT_VALUE);
    value->geo_point_value = CH_MESSAGE(arena, Google__Type__LatLng, google__type__lat_lng);
    return base_take_ordered_double(in, &value->geo_point_value->latitude) &&
           base_take_ordered_double(in, &value->geo_point_value->longitude);
}

bool qry_value_decode(struct base_bytes plain, struct base_arena *arena, qry_value **value)
{
    qry_value *out = CH_MESSAGE(arena, qry_value, google__datastore__v1__value);
    struct base_bytes in = plain, tag, byte;
    bool good = base_take_bytes(&in, 1, &tag);
    switch (good ? tag.data[0] : 0) {
    case TAG_NULL:
        out->value_type_case = VALUE(NULL_VALUE);
        break;
    case TAG_INTEGER:
        out->value_type_case = VALUE(INTEGER_VALUE);
        good = base_take_ordered_i64(&in, &out->integer_value);
        break;
    case TAG_BOOLEAN:
        out->value_type_case = VALUE(BOOLEAN_VALUE);
        good = base_take_bytes(&in, 1, &byte);
        out->boolean_value = good && byte.data[0] != 0;
        break;
    case TAG_STRING:
        good = decode_text(&in, arena, out);
        break;
    case TAG_DOUBLE:
        out->value_type_case = VALUE(DOUBLE_VALUE);
        good = base_take_ordered_double(&in, &out->double_value);
        break;
    case TAG_POINT:
        good = decode_point(&in, arena, out);
        break;
    case TAG_KEY:
        good = decode_key(&in, arena, out);
        break;
    default:
        good = false;
    }
    *value = out;
    return good && in.len == 0;
}

/* ---- row keys ---- */

void qry_put_space(struct base_buf *out, enum qry_row_space space, struct base_bytes name_space)
{
    base_buf_put_u8(out, (uint8_t)space);
    base_buf_put_ordered(out, name_space);
}

void qry_put_entity_row(struct base_buf *out, const qry_key *key)
{
    qry_put_space(out, QRY_ROWS_ENTITY, qry_name_space_of(key));
    qry_put_path(out, key);
}

void qry_put_kind_prefix(struct base_buf *out, struct base_bytes name_space, struct base_bytes kind)
{
    qry_put_space(out, QRY_ROWS_KIND, name_space);
    base_buf_put_ordered(out, kind);
}

void qry_put_property_prefix(struct base_buf *out, struct base_bytes name_space,
                             struct base_bytes kind, struct base_bytes property)
{
    qry_put_space(out, QRY_ROWS_PROPERTY, name_space);
    base_buf_put_ordered(out, kind);
    base_buf_put_ordered(out, property);
}

void qry_put_composite_prefix(struct base_buf *out, uint64_t index_id, struct base_bytes name_space)
{
    base_buf_put_u8(out, QRY_ROWS_COMPOSITE);
    base_buf_put_be64(out, index_id);
    base_buf_put_ordered(out, name_space);
}
