/* store_local.c: the store on a local disk: opening, closing, setting aside.
 *
 * Invariants
 * 1. Only one process has the folder (LOCK).
 * 2. A member's id exists only beside a log that began with it: ID is made after the first segment,
 * and set_aside moves ID first. So no crash leaves an empty log with an old id, which would vote
 * on what it cannot remember.
 *
 * Happy path: open (folder, lock, id) -> load -> write, write, … with reads, snapshots and the
 * keeper beside -> close. Shutdown: close lets the keeper end what it does; nothing else may be
 * inside. */
#include "store_local.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"

enum { ID_BYTES = 20 };
static const char id_magic[8] = "STRATID1";

char *con__store_path(const struct con__store_local *store, const char *prefix, uint64_t number,
                      const char *suffix)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s%020" PRIu64 "%s", store->dir, prefix, number, suffix) < 0)
        abort();
    return path;
}

bool con__store_name_parse(const char *name, const char *prefix, uint64_t *number)
{
    char *end = NULL;

    if (strncmp(name, prefix, strlen(prefix)) != 0 || strlen(name) != strlen(prefix) + 20)
        return false;
    *number = strtoull(name + strlen(prefix), &end, 10);
    return *end == '\0';
}

static uint64_t store_log_bytes(void *self)
{
    struct con__store_local *store = self;

    return store->bytes;
}

/* ---- opening and closing ---- */

static CH_WAITS void store_close(void *self)
{
    struct con__store_local *store = self;

    BASE_ASSERT(!store->writing);
    store->closing = true;
    ch_gate_close(&store->gate);
    ch_gate_join_always(&store->gate);
    con__snapshot_abandon(store, &store->receiving);
    if (store->active)
        ch_file_close(store->active);
    if (store->lock)
        ch_file_close(store->lock);
    con__index_free(&store->index);
    base_buf_free(&store->records);
    base_buf_free(&store->image);
    free(store->dir);
    free(store);
}

static CH_WAITS struct base_status folder_take(struct ch_env *env, const char *dir,
                                               struct ch_file **lock)
{
    struct base_status status = ch_dir_make(env, dir);
    char *path = NULL, *slash;

    if (base_failed(status))
        return status;
    if (asprintf(&path, "%s/LOCK", dir) < 0)
        abort();
    status = ch_file_open(env, path, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE, lock);
    if (!base_failed(status)) {
        status = base_status_wrap(ch_file_lock(*lock), "another process uses it");
        if (base_failed(status)) {
            ch_file_close(*lock);
            *lock = NULL;
        }
    }
    free(path);
    if (base_failed(status))
        return status;
    /* The folder's own name must outlast a crash, or all that is synced inside it goes with it. */
    path = strdup(dir);
    slash = strrchr(path, '/');
    if (slash && slash != path) {
        *slash = '\0';
        status = ch_dir_sync(env, path);
    }
    free(path);
    return status;
}

/* What lies in the folder, by its names. */
struct folder {
    bool id, snapshots, old_format;
    size_t segments;
    uint64_t segment; /* the last one's number */
};

static CH_WAITS struct base_status folder_look(struct con__store_local *store,
                                               struct folder *folder)
{
    struct base_arena arena;
    char **names = NULL;
    size_t count = 0;
    uint64_t number;
    struct base_status status;

    base_arena_init(&arena);
    status = ch_dir_list(store->env, store->dir, &arena, &names, &count);
    for (size_t i = 0; !base_failed(status) && i < count; i++) {
        if (strcmp(names[i], CON_ID_NAME) == 0)
            folder->id = true;
        else if (con__store_name_parse(names[i], CON_SNAPSHOT_PREFIX, &number))
            folder->snapshots = true;
        else if (con__store_name_parse(names[i], "journal-", &number))
            folder->old_format = true;
        else if (con__store_name_parse(names[i], CON_SEGMENT_PREFIX, &folder->segment))
            folder->segments++;
    }
    base_arena_free(&arena);
    return status;
}

static CH_WAITS struct base_status id_read(struct con__store_local *store)
{
    struct base_buf file = { 0 };
    char *path = NULL;
    struct base_status status;

    if (asprintf(&path, "%s/" CON_ID_NAME, store->dir) < 0)
        abort();
    status = ch_file_read_all(store->env, path, 4096, &file);
    if (!base_failed(status)) {
        if (file.len != ID_BYTES || memcmp(file.data, id_magic, sizeof(id_magic)) != 0 ||
            base_get_le32(file.data + 16) != base_crc32c(0, file.data, 16))
            status = base_status_make(BASE_DATA_LOSS, "%s is damaged", path);
        else
            store->member = base_get_le64(file.data + 8);
    }
    base_buf_free(&file);
    free(path);
    return status;
}

/* Invariant 2: the id comes last. */
static CH_WAITS struct base_status log_create(struct con__store_local *store)
{
    uint8_t id[ID_BYTES];
    struct con_segment_head head = { .number = 1, .size = CON_SEGMENT_BYTES_MIN, .sequence = 1 };
    char *path = NULL;
    struct base_status status;

    do {
        store->member = ch_random(store->env);
    } while (store->member == 0);
    head.member = store->member;
    status = con__segment_make(store, 1, CON_SEGMENT_BYTES_MIN, &head);
    if (base_failed(status))
        return status;
    if (asprintf(&path, "%s/" CON_ID_NAME, store->dir) < 0)
        abort();
    memcpy(id, id_magic, sizeof(id_magic));
    base_put_le64(id + 8, store->member);
    base_put_le32(id + 16, base_crc32c(0, id, 16));
    status = ch_file_write_all(store->env, path, base_bytes(id, sizeof(id)));
    free(path);
    return status;
}

/* A folder without an id is one whose making a crash cut short: nothing but a first segment with
 * nothing in it. */
static CH_WAITS struct base_status unfinished_check(struct con__store_local *store,
                                                    const struct folder *folder)
{
    struct base_buf bytes = { 0 };
    struct con_segment_head head;
    bool unused = !folder->snapshots && folder->segments == 1 && folder->segment == 1;
    struct base_status status = BASE_STATUS_OK;

    if (unused) {
        char *path = con__store_path(store, CON_SEGMENT_PREFIX, 1, "");

        status = ch_file_read_all(store->env, path, CON_SEGMENT_BYTES_MAX, &bytes);
        unused = !base_failed(status) && bytes.len >= CON_SECTOR &&
                 con__segment_head_take(bytes.data, &head) && head.sequence == 1;
        for (size_t i = CON_SECTOR; i < bytes.len && unused; i++)
            unused = bytes.data[i] == 0;
        free(path);
        base_buf_free(&bytes);
    }
    if (!base_failed(status) && !unused)
        status = base_status_make(BASE_DATA_LOSS,
                                  "there is a log, but its file " CON_ID_NAME " is missing");
    return status;
}

static CH_WAITS struct base_status member_take(struct con__store_local *store)
{
    struct folder folder = { 0 };
    struct base_status status = folder_look(store, &folder);

    if (base_failed(status))
        return status;
    if (folder.old_format)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "it holds a log in the format of an earlier version (journal-*), "
                                "which this one does not read");
    if (folder.id)
        return id_read(store);
    if (folder.segments > 0 || folder.snapshots)
        status = unfinished_check(store, &folder);
    if (!base_failed(status))
        status = log_create(store);
    return status;
}

struct base_status con_store_local_open(struct ch_env *env, const char *dir,
                                        struct con_store *opened)
{
    struct con__store_local *store = calloc(1, sizeof(*store));
    struct base_status status;

    BASE_ASSERT(store != NULL);
    *store = (struct con__store_local){ .env = env, .dir = strdup(dir) };
    ch_gate_init(&store->gate, env, "log store");
    ch_cond_init(&store->made);
    ch_mutex_init(&store->install);
    status = folder_take(env, dir, &store->lock);
    if (!base_failed(status))
        status = member_take(store);
    if (base_failed(status)) {
        store_close(store);
        return base_status_wrap(status, "log store %s", dir);
    }
    *opened = (struct con_store){
        .self = store,
        .member = store->member,
        .load = con__store_load,
        .write = con__store_write,
        .read = con__store_read,
        .snapshot_save = con__store_snapshot_save,
        .snapshot_read = con__store_snapshot_read,
        .snapshot_receive = con__store_snapshot_receive,
        .log_bytes = store_log_bytes,
        .close = store_close,
    };
    return BASE_STATUS_OK;
}

/* ---- setting aside ---- */

#define ASIDE_PREFIX "damaged-"

/* ID is moved first and durably (invariant 2). */
static CH_WAITS struct base_status names_move(struct ch_env *env, const char *dir,
                                              const char *aside, char **names, size_t count,
                                              struct base_arena *arena, bool ids)
{
    struct base_status status = BASE_STATUS_OK;

    for (size_t i = 0; i < count && !base_failed(status); i++) {
        if (strcmp(names[i], "LOCK") == 0 ||
            strncmp(names[i], ASIDE_PREFIX, strlen(ASIDE_PREFIX)) == 0 ||
            (strcmp(names[i], CON_ID_NAME) == 0) != ids)
            continue;
        status = ch_file_rename(env, base_arena_printf(arena, "%s/%s", dir, names[i]),
                                base_arena_printf(arena, "%s/%s", aside, names[i]));
    }
    if (!base_failed(status))
        status = ch_dir_sync(env, aside);
    if (!base_failed(status))
        status = ch_dir_sync(env, dir);
    return status;
}

struct base_status con_store_local_set_aside(struct ch_env *env, const char *dir)
{
    struct base_arena arena;
    char **names = NULL, *aside = NULL;
    size_t count = 0;
    unsigned long number = 1;
    struct ch_file *lock = NULL;
    struct base_status status;

    base_arena_init(&arena);
    status = folder_take(env, dir, &lock);
    if (!base_failed(status))
        status = ch_dir_list(env, dir, &arena, &names, &count);
    for (size_t i = 0; i < count && !base_failed(status); i++)
        if (strncmp(names[i], ASIDE_PREFIX, strlen(ASIDE_PREFIX)) == 0) {
            unsigned long taken = strtoul(names[i] + strlen(ASIDE_PREFIX), NULL, 10);

            number = taken >= number ? taken + 1 : number;
        }
    if (!base_failed(status)) {
        aside = base_arena_printf(&arena, "%s/" ASIDE_PREFIX "%lu", dir, number);
        status = ch_dir_make(env, aside);
    }
    if (!base_failed(status))
        status = ch_dir_sync(env, dir);
    if (!base_failed(status))
        status = names_move(env, dir, aside, names, count, &arena, true);
    if (!base_failed(status))
        status = names_move(env, dir, aside, names, count, &arena, false);
    if (!base_failed(status))
        ch_warn(env, "log store %s: what is damaged was set aside in %s", dir, aside);
    if (lock)
        ch_file_close(lock);
    base_arena_free(&arena);
    return base_status_wrap(status, "log store %s: set aside", dir);
}
