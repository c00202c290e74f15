/* emit.c: see gen.h. What is written is documented in chassis/proto.h. */
#include <string.h>

#include "gen.h"

typedef Google__Protobuf__ServiceDescriptorProto gen_service;
typedef Google__Protobuf__MethodDescriptorProto gen_method;

static char *take_text(struct base_arena *arena, struct base_buf *out)
{
    char *text = base_bytes_cstr(arena, base_buf_bytes(out));
    base_buf_free(out);
    return text;
}

static void emit_method_enum(struct base_arena *arena, struct base_buf *out, const char *full,
                             const gen_service *service)
{
    if (service->n_method == 0)
        return;
    base_buf_put_str(out, "enum {\n");
    for (size_t i = 0; i < service->n_method; i++)
        base_buf_printf(out, "    %s = %zu,\n",
                        gen_upper_name(arena, gen_join(arena, full, service->method[i]->name)), i);
    base_buf_put_str(out, "};\n");
}

char *gen_emit_header(struct base_arena *arena, const gen_file *file)
{
    struct base_buf out = { 0 };
    const char *symbol = gen_file_symbol(arena, file->name),
               *stem = gen_file_stem(arena, file->name);
    base_buf_printf(&out, "/* Written by protoc-gen-strata from %s: do not edit. */\n", file->name);
    base_buf_printf(&out, "#ifndef STRATA_PROTO_%s_H\n#define STRATA_PROTO_%s_H\n\n", symbol,
                    symbol);
    base_buf_printf(&out, "#include \"%s.pb-c.h\"\n#include \"chassis/proto.h\"\n\n", stem);
    base_buf_printf(&out, "extern const struct ch_proto_file %s__file;\n", symbol);
    for (size_t i = 0; i < file->n_service; i++) {
        const char *full = gen_join(arena, file->package, file->service[i]->name);
        base_buf_printf(&out, "\n/* service %s */\n", full);
        base_buf_printf(&out, "extern const struct ch_service %s__service;\n",
                        gen_lower_name(arena, full));
        emit_method_enum(arena, &out, full, file->service[i]);
    }
    base_buf_put_str(&out, "\n#endif\n");
    return take_text(arena, &out);
}

static void emit_includes(struct base_arena *arena, struct base_buf *out, const gen_file *file)
{
    base_buf_printf(out, "/* Written by protoc-gen-strata from %s: do not edit. */\n", file->name);
    base_buf_printf(out, "#include \"%s.strata.h\"\n", gen_file_stem(arena, file->name));
    for (size_t i = 0; i < file->n_dependency; i++)
        base_buf_printf(out, "#include \"%s.strata.h\"\n",
                        gen_file_stem(arena, file->dependency[i]));
    base_buf_put_u8(out, '\n');
}

/* Octal with three digits always, so that a digit may follow. */
static void emit_bytes(struct base_buf *out, struct base_bytes bytes)
{
    enum { PER_LINE = 24 };
    for (size_t i = 0; i < bytes.len; i++) {
        if (i % PER_LINE == 0)
            base_buf_put_str(out, i ? "\"\n    \"" : "    \"");
        base_buf_printf(out, "\\%03o", bytes.data[i]);
    }
    base_buf_put_str(out, bytes.len ? "\"" : "    \"\"");
}

/* The descriptor as reflection shows it: without comments and positions. */
static void emit_descriptor(struct base_arena *arena, struct base_buf *out, const gen_file *file)
{
    gen_file stripped = *file;
    stripped.source_code_info = NULL;
    size_t len = google__protobuf__file_descriptor_proto__get_packed_size(&stripped);
    uint8_t *bytes = base_arena_alloc(arena, len);
    google__protobuf__file_descriptor_proto__pack(&stripped, bytes);
    base_buf_put_str(out, "static const char file_descriptor[] =\n");
    emit_bytes(out, base_bytes(bytes, len));
    base_buf_put_str(out, ";\n\n");
}

static void emit_file(struct base_arena *arena, struct base_buf *out, const gen_file *file)
{
    if (file->n_dependency) {
        base_buf_put_str(out, "static const struct ch_proto_file *const file_imports[] = {\n");
        for (size_t i = 0; i < file->n_dependency; i++)
            base_buf_printf(out, "    &%s__file,\n", gen_file_symbol(arena, file->dependency[i]));
        base_buf_put_str(out, "};\n\n");
    }
    base_buf_printf(out, "const struct ch_proto_file %s__file = {\n",
                    gen_file_symbol(arena, file->name));
    base_buf_printf(out, "    .name = \"%s\",\n", file->name);
    base_buf_put_str(
        out,
        "    .descriptor = { (const uint8_t *)file_descriptor, sizeof(file_descriptor) - 1 },\n");
    if (file->n_dependency)
        base_buf_put_str(out, "    .imports = file_imports,\n");
    base_buf_printf(out, "    .import_count = %zu,\n};\n", file->n_dependency);
}

static bool is_idempotent(const gen_method *method)
{
    return method->options &&
           method->options->idempotency_level !=
               GOOGLE__PROTOBUF__METHOD_OPTIONS__IDEMPOTENCY_LEVEL__IDEMPOTENCY_UNKNOWN;
}

static bool has_no_side_effects(const gen_method *method)
{
    return method->options &&
           method->options->idempotency_level ==
               GOOGLE__PROTOBUF__METHOD_OPTIONS__IDEMPOTENCY_LEVEL__NO_SIDE_EFFECTS;
}

static void emit_method(struct base_arena *arena, struct base_buf *out, const char *service,
                        const gen_method *method)
{
    /* Type names are fully qualified, with a dot in front. */
    const char *input = gen_lower_name(arena, method->input_type + 1);
    const char *output = gen_lower_name(arena, method->output_type + 1);
    base_buf_printf(out, "    { .path = \"/%s/%s\",\n      .name = \"%s\",\n", service,
                    method->name, method->name);
    base_buf_printf(out, "      .request = &%s__descriptor,\n      .reply = &%s__descriptor,\n",
                    input, output);
    base_buf_printf(out,
                    "      .client_streaming = %d, .server_streaming = %d, .idempotent = %d,\n"
                    "      .no_side_effects = %d },\n",
                    method->client_streaming != 0, method->server_streaming != 0,
                    is_idempotent(method), has_no_side_effects(method));
}

static void emit_service(struct base_arena *arena, struct base_buf *out, const gen_file *file,
                         const gen_service *service)
{
    const char *full = gen_join(arena, file->package, service->name),
               *lower = gen_lower_name(arena, full);
    if (service->n_method) {
        base_buf_printf(out, "\nstatic const struct ch_method %s__methods[] = {\n", lower);
        for (size_t i = 0; i < service->n_method; i++)
            emit_method(arena, out, full, service->method[i]);
        base_buf_put_str(out, "};\n");
    }
    base_buf_printf(out, "\nconst struct ch_service %s__service = {\n    .name = \"%s\",\n", lower,
                    full);
    if (service->n_method)
        base_buf_printf(out, "    .methods = %s__methods,\n", lower);
    base_buf_printf(out, "    .method_count = %zu,\n    .file = &%s__file,\n};\n",
                    service->n_method, gen_file_symbol(arena, file->name));
}

char *gen_emit_source(struct base_arena *arena, const gen_file *file)
{
    struct base_buf out = { 0 };
    emit_includes(arena, &out, file);
    emit_descriptor(arena, &out, file);
    emit_file(arena, &out, file);
    for (size_t i = 0; i < file->n_service; i++)
        emit_service(arena, &out, file, file->service[i]);
    return take_text(arena, &out);
}
