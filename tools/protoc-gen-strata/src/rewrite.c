/* rewrite.c: see gen.h. Imported files are rewritten too: protoc-gen-c links the whole set of
 * descriptors again and would find a difference. The wire format of what is rewritten stays the
 * same. */
#include "gen.h"

static void rewrite_field(gen_field *field, const char *owner)
{
    field->has_proto3_optional = 0;
    if (field->label == GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__LABEL__LABEL_REQUIRED ||
        field->type == GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_GROUP)
        gen_fail("%s.%s: required fields and groups are not supported", owner, field->name);
    if (field->type != GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_STRING)
        return;
    if (field->default_value && field->default_value[0])
        gen_fail("%s.%s: a string field with a default value is not supported", owner, field->name);
    field->type = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_BYTES;
}

static void rewrite_message(gen_message *message)
{
    for (size_t i = 0; i < message->n_field; i++)
        rewrite_field(message->field[i], message->name);
    for (size_t i = 0; i < message->n_extension; i++)
        rewrite_field(message->extension[i], message->name);
    for (size_t i = 0; i < message->n_nested_type; i++)
        rewrite_message(message->nested_type[i]);
    /* A map's key may not be bytes, a plain message's may. */
    if (message->options)
        message->options->has_map_entry = 0;
}

void gen_rewrite(gen_request *request)
{
    for (size_t i = 0; i < request->n_proto_file; i++) {
        gen_file *file = request->proto_file[i];
        for (size_t j = 0; j < file->n_message_type; j++)
            rewrite_message(file->message_type[j]);
        for (size_t j = 0; j < file->n_extension; j++)
            rewrite_field(file->extension[j], file->name);
        file->n_service = 0;
    }
}
