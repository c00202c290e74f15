/* builds.c: which databases have an index build under way, so that it outlives the server that
 * began it. A row for each in a database of the queryservers' own, "builds" (users' databases have
 * a slash in their names): key: the database, value: 16 random bytes.
 *
 * 1. The row is written before the definitions that are to be built, and removed after the last of
 *    them is ready; only as the row that was there when the build began, so that who adds more
 *    definitions meanwhile keeps theirs.
 * 2. Every server looks for rows when it starts and now and then, and builds. A lock lets one do so
 *    at a time; the others wait for it, and then find nothing left to do, or go on.
 * A build that is taken up begins with the first index that is not ready, at that one's beginning:
 * entries that are there already are written once more, which changes nothing. */
#include <inttypes.h>
#include <stdio.h>

#include "base/codec.h"
#include "build.h"

static const char home[] = "builds", group[] = "B";

enum { LOOK_FIRST_MS = 500, LOOK_S = 30, LOOK_TIMEOUT_S = 10, LOOK_ROWS = 100 };

static struct txn_key key_of(const char *database)
{
    return (struct txn_key){ base_bytes_str(group), base_bytes_str(database) };
}

static void random_id(struct ch_env *env, uint8_t id[16])
{
    base_put_le64(id, ch_random(env));
    base_put_le64(id + 8, ch_random(env));
}

struct base_status qry_builds_add(struct qry_request *request)
{
    uint8_t id[16], value[16];
    uint64_t at;
    random_id(request->server->env, id);
    random_id(request->server->env, value);
    struct txn_write write = { .key = key_of(request->database),
                               .value = base_bytes(value, sizeof(value)) };
    struct txn_commit commit = { .writes = &write,
                                 .write_count = 1,
                                 .idempotency_id = base_bytes(id, 16) };
    return base_status_wrap(txn_commit(request->server->txn, home, &commit, request->deadline, &at),
                            "note the index build");
}

struct base_status qry_builds_get(struct qry_request *request, uint64_t *written, uint64_t *read_at)
{
    struct txn_key key = key_of(request->database);
    struct txn_value value;
    struct base_status status = txn_get(request->server->txn, home, 0, &key, 1, request->deadline,
                                        request->arena, &value, read_at);
    *written = !base_failed(status) && value.found ? value.timestamp : 0;
    return status;
}

struct base_status qry_builds_remove(struct qry_request *request, uint64_t written)
{
    struct txn_key key = key_of(request->database);
    struct txn_write write = { .key = key, .is_delete = true };
    uint8_t id[16];
    uint64_t now, read_at, at;
    struct base_status status = qry_builds_get(request, &now, &read_at);
    if (base_failed(status) || now == 0 || now != written)
        return status;
    random_id(request->server->env, id);
    struct txn_commit commit = { .read_timestamp = read_at,
                                 .read_keys = &key,
                                 .read_key_count = 1,
                                 .writes = &write,
                                 .write_count = 1,
                                 .idempotency_id = base_bytes(id, 16) };
    status = txn_commit(request->server->txn, home, &commit, request->deadline, &at);
    if (status.code == BASE_ABORTED) /* somebody has added to it just now */
        base_status_free(&status);
    return status;
}

struct base_status qry_builds_lock(struct qry_request *request, struct ch_lock **lock)
{
    struct qry_server *server = request->server;
    char path[160];
    *lock = NULL;
    if (!server->naming)
        return BASE_STATUS_OK;
    snprintf(path, sizeof(path), "/%s/locks/queryapi/build/%016" PRIx64, server->cell,
             base_hash(request->database, strlen(request->database), 0));
    return ch_lock_acquire(server->naming, path, base_bytes_str(request->database),
                           request->deadline, lock);
}

/* ---- taking them up ---- */

static struct base_status look(struct qry_server *server, struct base_arena *arena) CH_WAITS;
static struct base_status look(struct qry_server *server, struct base_arena *arena)
{
    struct txn_scan scan = { .keys_only = true, .limit = LOOK_ROWS };
    struct txn_row *rows;
    size_t count = 0;
    bool more;
    uint64_t read_at;
    struct base_status status =
        txn_scan(server->txn, home, 0, &scan, ch_in(server->env, LOOK_TIMEOUT_S * CH_S), arena,
                 &rows, &count, &more, &read_at);
    for (size_t i = 0; i < count && !base_failed(status); i++)
        status = qry_build_resume(server, base_bytes_cstr(arena, rows[i].key));
    return status;
}

void qry_builds_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct qry_server *server = arg;
    ch_time pause = LOOK_FIRST_MS * CH_MS;
    while (ch_sleep_until(server->env, ch_in(server->env, pause)) == CH_TIMEOUT) {
        struct base_arena arena = { 0 };
        struct base_status status = look(server, &arena);
        if (base_failed(status) && !ch_cancelled())
            ch_info(server->env, "look for index builds: %s", base_status_text(&status));
        base_status_free(&status);
        base_arena_free(&arena);
        pause = LOOK_S * CH_S;
    }
}
