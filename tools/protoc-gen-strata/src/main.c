/* protoc-gen-strata: the protoc plugin that turns each F.proto into
 *   F.pb-c.h, F.pb-c.c      by protoc-gen-c (on PATH), from a rewritten request (rewrite.c), then
 * patched (patch.c); F.strata.h, F.strata.c  the ch_proto_file, ch_service and ch_method tables of
 * chassis/proto.h (emit.c).
 *
 *   protoc --plugin=protoc-gen-strata --strata_out=OUT -I DIR a/b.proto
 *
 * It reads a CodeGeneratorRequest on stdin and writes a CodeGeneratorResponse to stdout. It takes
 * no parameters. Every failure is one line on stderr and exit code 1. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gen.h"

static struct base_bytes read_all(int fd, struct base_buf *buf)
{
    for (;;) {
        base_buf_reserve(buf, 65536);
        ssize_t n = read(fd, buf->data + buf->len, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            gen_fail("reading the request: %s", strerror(errno));
        if (n == 0)
            return base_buf_bytes(buf);
        buf->len += (size_t)n;
    }
}

static gen_request *unpack_request(struct base_arena *arena, struct base_bytes bytes)
{
    ProtobufCAllocator allocator = gen_allocator(arena);
    gen_request *request = google__protobuf__compiler__code_generator_request__unpack(
        &allocator, bytes.len, bytes.data);
    if (!request)
        gen_fail("stdin is not a CodeGeneratorRequest: this program is run by protoc");
    return request;
}

static const gen_file *find_file(const gen_request *request, const char *name)
{
    for (size_t i = 0; i < request->n_proto_file; i++)
        if (strcmp(request->proto_file[i]->name, name) == 0)
            return request->proto_file[i];
    gen_fail("protoc asked for %s and did not send it", name);
}

static gen_output *new_output(struct base_arena *arena, char *name, char *content)
{
    gen_output *output = base_arena_alloc(arena, sizeof(*output));
    google__protobuf__compiler__code_generator_response__file__init(output);
    output->name = name;
    output->content = content;
    return output;
}

static void patch_outputs(struct base_arena *arena, const gen_request *request,
                          gen_response *response)
{
    for (size_t i = 0; i < request->n_file_to_generate; i++) {
        const char *name = request->file_to_generate[i];
        char *source = base_arena_printf(arena, "%s.pb-c.c", gen_file_stem(arena, name));
        size_t at = 0;
        while (at < response->n_file && strcmp(response->file[at]->name, source) != 0)
            at++;
        if (at == response->n_file)
            gen_fail("protoc-gen-c did not write %s", source);
        gen_output *output = response->file[at];
        output->content = gen_patch(arena, find_file(request, name), output->content);
    }
}

static void add_outputs(struct base_arena *arena, const gen_request *request,
                        gen_response *response)
{
    size_t count = response->n_file;
    gen_output **files =
        BASE_NEW_ARRAY(arena, gen_output *, count + 2 * request->n_file_to_generate);
    if (count)
        memcpy(files, response->file, count * sizeof(*files));
    for (size_t i = 0; i < request->n_file_to_generate; i++) {
        const gen_file *file = find_file(request, request->file_to_generate[i]);
        char *stem = gen_file_stem(arena, file->name);
        files[count++] = new_output(arena, base_arena_printf(arena, "%s.strata.h", stem),
                                    gen_emit_header(arena, file));
        files[count++] = new_output(arena, base_arena_printf(arena, "%s.strata.c", stem),
                                    gen_emit_source(arena, file));
    }
    response->file = files;
    response->n_file = count;
}

static void write_response(struct base_arena *arena, gen_response *response)
{
    response->has_supported_features = 1;
    response->supported_features =
        GOOGLE__PROTOBUF__COMPILER__CODE_GENERATOR_RESPONSE__FEATURE__FEATURE_PROTO3_OPTIONAL;
    size_t len = google__protobuf__compiler__code_generator_response__get_packed_size(response);
    uint8_t *bytes = base_arena_alloc(arena, len);
    google__protobuf__compiler__code_generator_response__pack(response, bytes);
    if (fwrite(bytes, 1, len, stdout) != len || fflush(stdout) != 0)
        gen_fail("writing the response: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        fprintf(stderr, "%s is a plugin: protoc --plugin=%s --strata_out=DIR FILE.proto\n", argv[0],
                argv[0]);
        return 2;
    }
    struct base_arena arena = { 0 };
    struct base_buf input = { 0 };
    struct base_bytes bytes = read_all(STDIN_FILENO, &input);
    gen_request *request = unpack_request(&arena, bytes);
    if (request->parameter && request->parameter[0])
        gen_fail("unknown parameter \"%s\": there are none", request->parameter);
    gen_request *rewritten = unpack_request(&arena, bytes);
    gen_rewrite(rewritten);
    gen_response *response = gen_run_protoc_c(&arena, rewritten);
    patch_outputs(&arena, request, response);
    add_outputs(&arena, request, response);
    write_response(&arena, response);
    base_buf_free(&input);
    base_arena_free(&arena);
    return 0;
}

void gen_fail(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("protoc-gen-strata: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    _exit(1);
}

static void *arena_alloc(void *data, size_t size)
{
    return base_arena_alloc(data, size);
}

static void arena_free(void *data, void *pointer)
{
}

ProtobufCAllocator gen_allocator(struct base_arena *arena)
{
    return (ProtobufCAllocator){ arena_alloc, arena_free, arena };
}
