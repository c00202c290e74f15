/* stored.c: see stored.h. */
#include "stored.h"

#include "check.h"
#include "mask.h"

enum { FORMAT = 1, ENTITY_FIELD = 1 };

struct base_status qry_stored_decode(const struct txn_value *value, struct qry_stored *out)
{
    struct base_bytes in = value->value, format;
    *out = (struct qry_stored){ .found = value->found, .version = value->timestamp };
    if (!value->found)
        return BASE_STATUS_OK;
    if (!base_take_bytes(&in, 1, &format) || format.data[0] != FORMAT ||
        !base_take_varint(&in, &out->created))
        return base_status_make(BASE_DATA_LOSS, "an entity's row does not begin as one");
    out->field = in;
    if (!base_take_lenbytes(&in, &out->entity) || in.len > 0)
        return base_status_make(BASE_DATA_LOSS, "an entity's row is cut");
    if (out->created == 0)
        out->created = value->timestamp;
    return BASE_STATUS_OK;
}

struct base_bytes qry_stored_encode(uint64_t created, const qry_entity *entity,
                                    struct base_arena *arena)
{
    struct base_buf out = { 0 };
    size_t size = ch_proto_size(&entity->base);
    base_buf_reserve(&out, size + 24);
    base_buf_put_u8(&out, FORMAT);
    base_buf_put_varint(&out, created);
    base_buf_put_varint(&out, size);
    ch_proto_encode(&entity->base, &out);
    struct base_bytes value = base_bytes_dup(arena, base_buf_bytes(&out));
    base_buf_free(&out);
    return value;
}

struct base_status qry_stored_entity(const struct qry_stored *stored, struct base_arena *arena,
                                     qry_entity **entity)
{
    ProtobufCMessage *message;
    struct base_status status = ch_proto_decode(&google__datastore__v1__entity__descriptor,
                                                stored->entity, arena, &message);
    if (base_failed(status))
        return base_status_wrap(status, "a stored entity");
    *entity = (qry_entity *)message;
    return status;
}

struct base_status qry_result_full(const struct qry_stored *stored, const qry_mask *mask,
                                   struct base_arena *arena, qry_result **out)
{
    qry_result *result = CH_MESSAGE(arena, qry_result, google__datastore__v1__entity_result);
    result->version = (int64_t)stored->version;
    result->update_time = qry_time_of(arena, stored->version);
    result->create_time = qry_time_of(arena, stored->created);
    *out = result;
    if (mask) {
        struct base_status status = qry_stored_entity(stored, arena, &result->entity);
        return base_failed(status) ? status
                                   : qry_mask_select(mask, result->entity, arena, &result->entity);
    }
    ProtobufCMessageUnknownField *raw = BASE_NEW(arena, ProtobufCMessageUnknownField);
    raw->tag = ENTITY_FIELD;
    raw->wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    raw->len = stored->field.len;
    raw->data = (uint8_t *)stored->field.data;
    result->base.unknown_fields = raw;
    result->base.n_unknown_fields = 1;
    return BASE_STATUS_OK;
}
