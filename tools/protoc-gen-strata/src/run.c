/* run.c: see gen.h. The request goes through an unlinked temporary file, the answer through a pipe:
 * nothing can block. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gen.h"

static int request_file(struct base_arena *arena, const gen_request *request)
{
    size_t len = google__protobuf__compiler__code_generator_request__get_packed_size(request);
    uint8_t *bytes = base_arena_alloc(arena, len);
    google__protobuf__compiler__code_generator_request__pack(request, bytes);
    FILE *file = tmpfile();
    if (!file || fwrite(bytes, 1, len, file) != len || fflush(file) != 0)
        gen_fail("a temporary file: %s", strerror(errno));
    int fd = dup(fileno(file));
    fclose(file);
    if (fd < 0 || lseek(fd, 0, SEEK_SET) != 0)
        gen_fail("a temporary file: %s", strerror(errno));
    return fd;
}

static void child(int in, int out)
{
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
        _exit(126);
    execlp("protoc-gen-c", "protoc-gen-c", (char *)NULL);
    gen_fail("cannot run protoc-gen-c: %s", strerror(errno));
}

static void read_answer(int fd, struct base_buf *buf)
{
    ssize_t n;
    do {
        base_buf_reserve(buf, 65536);
        n = read(fd, buf->data + buf->len, 65536);
        if (n > 0)
            buf->len += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    if (n < 0)
        gen_fail("reading from protoc-gen-c: %s", strerror(errno));
}

gen_response *gen_run_protoc_c(struct base_arena *arena, const gen_request *request)
{
    int in = request_file(arena, request), out[2];
    if (pipe(out) != 0)
        gen_fail("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        gen_fail("fork: %s", strerror(errno));
    if (pid == 0)
        child(in, out[1]);
    close(in);
    close(out[1]);
    struct base_buf answer = { 0 };
    read_answer(out[0], &answer);
    close(out[0]);
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            gen_fail("waiting for protoc-gen-c: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        gen_fail("protoc-gen-c failed");
    ProtobufCAllocator allocator = gen_allocator(arena);
    gen_response *response = google__protobuf__compiler__code_generator_response__unpack(
        &allocator, answer.len, answer.data);
    base_buf_free(&answer);
    if (!response)
        gen_fail("protoc-gen-c did not answer with a CodeGeneratorResponse");
    if (response->error)
        gen_fail("protoc-gen-c: %s", response->error);
    return response;
}
