/* patch.c: see gen.h. protoc-gen-c prints a field's initialiser as lines: "{", the quoted name,
 * and last the reserved words. The text is copied line by line; what is expected and not found ends
 * the program, so a protoc-gen-c that prints otherwise is noticed by the build. */
#include <string.h>

#include "gen.h"

#define ARRAY_START "static const ProtobufCFieldDescriptor "
#define ARRAY_END "__field_descriptors["
#define RESERVED "    0,NULL,NULL    /* reserved1"

enum { FLAG_STRING = 1, FLAG_MAP = 2 }; /* CH_FIELD_STRING, CH_FIELD_MAP of chassis/proto.h */

struct patcher {
    struct base_arena *arena;
    const gen_file *file;
    const gen_message *message; /* whose array of fields is being read */
    const gen_field *field;
    struct base_buf out;
    size_t fields_patched;
};

/* The message whose fields the array named "<symbol>__field_descriptors" holds. */
static const gen_message *find_message(struct patcher *p, const char *scope,
                                       gen_message *const *messages, size_t count,
                                       struct base_bytes symbol)
{
    for (size_t i = 0; i < count; i++) {
        const char *full = gen_join(p->arena, scope, messages[i]->name);
        if (base_bytes_eq_str(symbol, gen_lower_name(p->arena, full)))
            return messages[i];
        const gen_message *inner =
            find_message(p, full, messages[i]->nested_type, messages[i]->n_nested_type, symbol);
        if (inner)
            return inner;
    }
    return NULL;
}

static const gen_field *find_field(const gen_message *message, struct base_bytes name)
{
    for (size_t i = 0; i < message->n_field; i++)
        if (base_bytes_eq_str(name, message->field[i]->name))
            return message->field[i];
    return NULL;
}

/* Whether a field's type is one of its own message's map entries (protoc nests them there). */
static bool is_map(const gen_message *message, const gen_field *field)
{
    if (field->type != GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_MESSAGE)
        return false;
    const char *dot = strrchr(field->type_name, '.');
    for (size_t i = 0; i < message->n_nested_type; i++) {
        const gen_message *nested = message->nested_type[i];
        if (nested->options && nested->options->map_entry &&
            strcmp(nested->name, dot ? dot + 1 : field->type_name) == 0)
            return true;
    }
    return false;
}

static unsigned field_flags(const gen_message *message, const gen_field *field)
{
    if (field->type == GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_STRING)
        return FLAG_STRING;
    return is_map(message, field) ? FLAG_MAP : 0;
}

static size_t count_fields(gen_message *const *messages, size_t count)
{
    size_t fields = 0;
    for (size_t i = 0; i < count; i++)
        fields += messages[i]->n_field +
                  count_fields(messages[i]->nested_type, messages[i]->n_nested_type);
    return fields;
}

static void start_array(struct patcher *p, struct base_bytes line)
{
    size_t skip = sizeof(ARRAY_START) - 1;
    const uint8_t *end = memmem(line.data, line.len, ARRAY_END, sizeof(ARRAY_END) - 1);
    if (!end)
        return;
    struct base_bytes symbol = base_bytes(line.data + skip, (size_t)(end - line.data) - skip);
    p->message =
        find_message(p, p->file->package, p->file->message_type, p->file->n_message_type, symbol);
    if (!p->message)
        gen_fail("%s: protoc-gen-c wrote fields of an unknown message %.*s", p->file->name,
                 BASE_FMT(symbol));
}

/* `    "name",` names the field whose initialiser follows. */
static void start_field(struct patcher *p, struct base_bytes line)
{
    struct base_bytes name = base_bytes(line.data + 5, line.len - 7);
    p->field = find_field(p->message, name);
    if (!p->field)
        gen_fail("%s: protoc-gen-c wrote an unknown field %.*s", p->file->name, BASE_FMT(name));
}

static bool is_field_name(struct base_bytes line)
{
    return base_bytes_starts_with(line, BASE_BYTES_LIT("    \"")) && line.len > 7 &&
           memcmp(line.data + line.len - 2, "\",", 2) == 0;
}

static void patch_line(struct patcher *p, struct base_bytes line)
{
    if (base_bytes_starts_with(line, BASE_BYTES_LIT(ARRAY_START)))
        start_array(p, line);
    else if (base_bytes_eq(line, BASE_BYTES_LIT("};")))
        p->message = NULL;
    else if (p->message && is_field_name(line))
        start_field(p, line);
    if (p->field && base_bytes_starts_with(line, BASE_BYTES_LIT(RESERVED))) {
        base_buf_printf(&p->out, "    %u,(void *)\"%s\",NULL    /* flags, JSON name */\n",
                        field_flags(p->message, p->field), p->field->json_name);
        p->field = NULL;
        p->fields_patched++;
        return;
    }
    base_buf_put_bytes(&p->out, line);
    base_buf_put_u8(&p->out, '\n');
}

char *gen_patch(struct base_arena *arena, const gen_file *file, const char *text)
{
    struct patcher p = { .arena = arena, .file = file };
    while (*text) {
        size_t len = strcspn(text, "\n");
        patch_line(&p, base_bytes(text, len));
        text += len + (text[len] == '\n');
    }
    size_t expected = count_fields(file->message_type, file->n_message_type);
    if (p.fields_patched != expected)
        gen_fail("%s: %zu fields, and protoc-gen-c wrote %zu that could be marked", file->name,
                 expected, p.fields_patched);
    char *patched = base_bytes_cstr(arena, base_buf_bytes(&p.out));
    base_buf_free(&p.out);
    return patched;
}
