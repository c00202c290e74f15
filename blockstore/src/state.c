/* state.c: blockmaster's state: its structures, and looking things up. Changes: state_apply.c;
 * snapshots: state_save.c. */
#include "state.h"

#include <stdlib.h>

static int name_cmp(const struct blk__name *a, const struct blk__name *b)
{
    return base_bytes_cmp(base_bytes(a->path, a->len), base_bytes(b->path, b->len));
}
RB_GENERATE_INTERNAL(blk__names, blk__name, by_path, name_cmp, __attribute__((unused)) static)

void blk__state_init(struct blk__state *state)
{
    *state = (struct blk__state){
        .next_file = 1, .next_block = 1, .replicas = BLK_REPLICAS_WANTED, .quorum = BLK_QUORUM
    };
    RB_INIT(&state->names);
}

void blk__state_drop_name(struct blk__state *state, struct blk__name *name)
{
    RB_REMOVE(blk__names, &state->names, name);
    TAILQ_REMOVE(&name->file->names, name, of_file);
    if (--name->file->name_count == 0)
        state->unnamed_files++;
    free(name);
}

static void block_free(struct blk__state *state, struct blk__block *block)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): it is in the table */
    HASH_DEL(state->blocks, block);
    free(block);
}

void blk__state_drop_block(struct blk__state *state, struct blk__block *block)
{
    struct blk__file *file = block->file;
    size_t at = file->sealed_count;
    while (at < file->block_count && file->blocks[at] != block)
        at++;
    BASE_ASSERT(at < file->block_count);
    memmove(&file->blocks[at], &file->blocks[at + 1],
            (file->block_count - at - 1) * sizeof *file->blocks);
    file->block_count--;
    block_free(state, block);
}

void blk__state_drop_file(struct blk__state *state, struct blk__file *file)
{
    while (!TAILQ_EMPTY(&file->names))
        blk__state_drop_name(state, TAILQ_FIRST(&file->names));
    state->unnamed_files--;
    for (size_t i = 0; i < file->block_count; i++)
        block_free(state, file->blocks[i]);
    free(file->blocks);
    HASH_DEL(state->files, file);
    free(file);
}

static void server_free(struct blk__state *state, struct blk__server *server)
{
    HASH_DEL(state->servers, server);
    free(server->address);
    free(server->machine);
    free(server->zone);
    free(server);
}

void blk__state_free(struct blk__state *state)
{
    struct blk__file *file, *next_file;
    struct blk__server *server, *next_server;
    HASH_ITER(hh, state->files, file, next_file)
    blk__state_drop_file(state, file);
    HASH_ITER(hh, state->servers, server, next_server)
    server_free(state, server);
}

/* ---- looking ---- */

struct blk__name *blk__state_find_name(const struct blk__state *state, struct base_bytes path)
{
    struct blk__name *name = RB_ROOT(&state->names);
    while (name) {
        int order = base_bytes_cmp(path, base_bytes(name->path, name->len));
        if (order == 0)
            break;
        name = order < 0 ? RB_LEFT(name, by_path) : RB_RIGHT(name, by_path);
    }
    return name;
}

struct blk__file *blk__state_path(const struct blk__state *state, struct base_bytes path)
{
    struct blk__name *name = blk__state_find_name(state, path);
    return name ? name->file : 0;
}

struct blk__file *blk__state_file(const struct blk__state *state, uint64_t id)
{
    struct blk__file *file;
    HASH_FIND(hh, state->files, &id, sizeof id, file);
    return file;
}

struct blk__block *blk__state_block(const struct blk__state *state, uint64_t id)
{
    struct blk__block *block;
    HASH_FIND(hh, state->blocks, &id, sizeof id, block);
    return block;
}

struct blk__server *blk__state_server(const struct blk__state *state, uint64_t id)
{
    struct blk__server *server;
    HASH_FIND(hh, state->servers, &id, sizeof id, server);
    return server;
}

struct blk__name *blk__state_name_from(const struct blk__state *state, struct base_bytes after,
                                       bool inclusive)
{
    struct blk__name *name = RB_ROOT(&state->names), *best = 0;
    while (name) {
        int order = base_bytes_cmp(base_bytes(name->path, name->len), after);
        if (order > 0 || (order == 0 && inclusive)) {
            best = name;
            name = RB_LEFT(name, by_path);
        } else {
            name = RB_RIGHT(name, by_path);
        }
    }
    return best;
}

struct blk__name *blk__state_name_next(struct blk__name *name)
{
    return RB_NEXT(blk__names, 0, name);
}

int blk__replica_of(const struct blk__block *block, uint64_t server)
{
    for (uint32_t i = 0; i < block->replica_count; i++)
        if (block->replicas[i].server == server)
            return (int)i;
    return -1;
}

static bool path_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("-_.=+:,@%", c));
}

struct base_status blk__path_check(struct base_bytes path)
{
    struct base_arena arena;
    base_arena_init(&arena);
    const char *shown = base_bytes_show(&arena, path, 80), *wrong = 0;
    size_t name = 0;
    if (path.len == 0 || path.data[0] != '/')
        wrong = "does not begin with /";
    else if (path.len > BLK_PATH_MAX)
        wrong = "is longer than 1024 bytes";
    for (size_t i = 1; i < path.len && !wrong; i++) {
        if (path.data[i] == '/')
            wrong = name ? 0 : "has an empty name";
        else if (!path_char(path.data[i]))
            wrong = "has a character other than -_.=+:,@%a-zA-Z0-9";
        name = path.data[i] == '/' ? 0 : name + 1;
        if (name > 255)
            wrong = "has a name longer than 255 bytes";
    }
    if (!wrong && name == 0)
        wrong = "ends without a name";
    struct base_status status = BASE_STATUS_OK;
    if (wrong)
        status = base_status_make(BASE_INVALID_ARGUMENT, "path \"%s\" %s", shown, wrong);
    base_arena_free(&arena);
    return status;
}

/* ---- building ---- */

struct blk__file *blk__state_add_file(struct blk__state *state, uint64_t id)
{
    struct blk__file *file = calloc(1, sizeof *file);
    BASE_ASSERT(file);
    file->id = id;
    TAILQ_INIT(&file->names);
    HASH_ADD(hh, state->files, id, sizeof file->id, file);
    state->unnamed_files++;
    return file;
}

struct blk__block *blk__state_add_block(struct blk__state *state, struct blk__file *file,
                                        uint64_t id)
{
    struct blk__block *block = calloc(1, sizeof *block);
    BASE_ASSERT(block);
    block->id = id;
    block->file = file;
    HASH_ADD(hh, state->blocks, id, sizeof block->id, block);
    if (file->block_count == file->block_cap) {
        file->block_cap = file->block_cap ? 2 * file->block_cap : 4;
        file->blocks = realloc(file->blocks, file->block_cap * sizeof *file->blocks);
        BASE_ASSERT(file->blocks);
    }
    file->blocks[file->block_count++] = block;
    return block;
}

void blk__state_add_name(struct blk__state *state, struct blk__file *file, struct base_bytes path)
{
    struct blk__name *name = malloc(sizeof *name + path.len + 1);
    BASE_ASSERT(name);
    name->file = file;
    name->len = path.len;
    if (path.len)
        memcpy(name->path, path.data, path.len);
    name->path[path.len] = 0;
    BASE_ASSERT(!RB_INSERT(blk__names, &state->names, name));
    TAILQ_INSERT_TAIL(&file->names, name, of_file);
    if (file->name_count++ == 0)
        state->unnamed_files--;
}

static char *text_of(struct base_bytes bytes)
{
    char *text = malloc(bytes.len + 1);
    BASE_ASSERT(text);
    if (bytes.len)
        memcpy(text, bytes.data, bytes.len);
    text[bytes.len] = 0;
    return text;
}

void blk__state_set_server(struct blk__state *state, uint64_t id, struct base_bytes address,
                           struct base_bytes machine, struct base_bytes zone)
{
    struct blk__server *server = blk__state_server(state, id);
    if (server)
        server_free(state, server);
    server = calloc(1, sizeof *server);
    BASE_ASSERT(server);
    server->id = id;
    server->address = text_of(address);
    server->machine = text_of(machine);
    server->zone = text_of(zone);
    HASH_ADD(hh, state->servers, id, sizeof server->id, server);
}
