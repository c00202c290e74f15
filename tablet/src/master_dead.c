/* master_dead.c: what a dead tabletserver leaves behind: its log (sealed, sorted), its files
 * nobody names.
 *
 * Invariants: 1. An incarnation "name@epoch" whose lock is not held with that epoch is dead for
 * good. 2. Its log is sealed with a greater epoch before it is read: what was acknowledged is in
 * it, and nothing can be added. Segments are sealed and listed again until no new one shows: a
 * segment that was acknowledged from is named by the one before it, so it was there when that
 * was sealed.
 * 3. A log is removed only after every tablet that was given to its incarnation is given to
 * another, with the redo file named in METADATA. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "master.h"
#include "strata/tablet/v1/tablet.strata.h"

enum { LIST_PAGE = 1000, SORT_TIMEOUT_S = 120 };
#define LOG_PREFIX "/tablet/log/"
#define REDO_PREFIX "/tablet/redo/"

/* The part of a path behind `prefix` up to the next slash. */
static bool incarnation_of(const char *path, const char *prefix, char *out, size_t size)
{
    if (strncmp(path, prefix, strlen(prefix)) != 0)
        return false;
    const char *start = path + strlen(prefix), *slash = strchr(start, '/');
    if (!slash || (size_t)(slash - start) >= size || !memchr(start, '@', (size_t)(slash - start)))
        return false;
    snprintf(out, size, "%.*s", (int)(slash - start), start);
    return true;
}

static struct base_status list_all(struct tab_master *master, const char *prefix, ch_time deadline,
                                   struct base_arena *arena, struct blk_stat **all,
                                   size_t *count) CH_WAITS;
static struct base_status list_all(struct tab_master *master, const char *prefix, ch_time deadline,
                                   struct base_arena *arena, struct blk_stat **all, size_t *count)
{
    size_t cap = 0;
    const char *after = "";
    *count = 0;
    *all = NULL;
    for (;;) {
        struct blk_stat *page;
        size_t page_count;
        struct base_status status =
            blk_list(master->blk, prefix, after, LIST_PAGE, deadline, arena, &page, &page_count);
        if (base_failed(status))
            return base_status_wrap(status, "list %s", prefix);
        if (*count + page_count > cap) {
            cap = (*count + page_count) * 2;
            struct blk_stat *more = BASE_NEW_ARRAY(arena, struct blk_stat, cap);
            if (*count)
                memcpy(more, *all, *count * sizeof(**all));
            *all = more;
        }
        if (page_count)
            memcpy(*all + *count, page, page_count * sizeof(*page));
        *count += page_count;
        if (page_count < LIST_PAGE)
            return BASE_STATUS_OK;
        after = page[page_count - 1].path;
    }
}

static struct tab_dead *dead_of(struct tab_dead **dead, const char *server,
                                struct base_arena *arena)
{
    for (struct tab_dead *one = *dead; one; one = one->next)
        if (strcmp(one->server, server) == 0)
            return one;
    struct tab_dead *one = BASE_NEW(arena, struct tab_dead);
    snprintf(one->server, sizeof(one->server), "%s", server);
    one->next = *dead;
    return *dead = one;
}

/* An epoch greater than the incarnation's: of the lock's next holder, or made by breaking the
 * lock. */
static struct base_status fence_of(struct tab_master *master, const char *server,
                                   struct tab_live *live, size_t live_count, ch_time deadline,
                                   uint64_t *fence) CH_WAITS;
static struct base_status fence_of(struct tab_master *master, const char *server,
                                   struct tab_live *live, size_t live_count, ch_time deadline,
                                   uint64_t *fence)
{
    const char *at = strrchr(server, '@');
    int name_len = (int)(at - server);
    for (size_t i = 0; i < live_count; i++)
        if (live[i].alive && (int)strlen(live[i].name) == name_len &&
            strncmp(live[i].name, server, (size_t)name_len) == 0) {
            *fence = live[i].epoch;
            return BASE_STATUS_OK;
        }
    char path[256];
    snprintf(path, sizeof(path), "/%s/locks/tabletserver/%.*s", master->cell, name_len, server);
    struct base_status status = ch_lock_break(master->naming, path, false, deadline, fence);
    return base_failed(status) ? base_status_wrap(status, "break the lock of %s", server) : status;
}

/* Seals every segment; lists again until there is none that was not sealed. */
static struct base_status seal_log(struct tab_master *master, struct tab_dead *dead, uint64_t fence,
                                   ch_time deadline, struct base_arena *arena) CH_WAITS;
static struct base_status seal_log(struct tab_master *master, struct tab_dead *dead, uint64_t fence,
                                   ch_time deadline, struct base_arena *arena)
{
    char prefix[256];
    snprintf(prefix, sizeof(prefix), LOG_PREFIX "%s/", dead->server);
    for (size_t sealed = 0;;) {
        struct blk_stat *segments;
        size_t count;
        struct base_status status = list_all(master, prefix, deadline, arena, &segments, &count);
        if (base_failed(status))
            return status;
        if (count == sealed) {
            dead->segment_count = count;
            dead->segments = BASE_NEW_ARRAY(arena, char *, count);
            for (size_t i = 0; i < count; i++)
                dead->segments[i] = segments[i].path;
            return BASE_STATUS_OK;
        }
        for (size_t i = 0; i < count; i++) {
            uint64_t length;
            status = blk_seal(master->blk, segments[i].path, fence, deadline, &length);
            if (base_failed(status))
                return base_status_wrap(status, "seal %s", segments[i].path);
        }
        sealed = count;
    }
}

static struct base_status sort_log(struct tab_master *master, struct tab_dead *dead,
                                   const struct tab_live *by, ch_time deadline,
                                   struct base_arena *arena) CH_WAITS;
static struct base_status sort_log(struct tab_master *master, struct tab_dead *dead,
                                   const struct tab_live *by, ch_time deadline,
                                   struct base_arena *arena)
{
    Strata__Tablet__V1__SortLogRequest request = STRATA__TABLET__V1__SORT_LOG_REQUEST__INIT;
    Strata__Tablet__V1__SortLogReply *reply;
    char directory[300];
    snprintf(directory, sizeof(directory), "/tablet/redo/%s/%llu-%llu", dead->server,
             (unsigned long long)ch_lock_epoch(master->lock),
             (unsigned long long)++master->attempts);
    request.directory = ch_data_str(directory);
    request.n_segments = dead->segment_count;
    request.segments = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, dead->segment_count);
    for (size_t i = 0; i < dead->segment_count; i++)
        request.segments[i] = ch_data_str(dead->segments[i]);
    struct base_status status =
        tab_master_call(master, by->address, STRATA__TABLET__V1__TABLETSERVER__SORT_LOG, &request,
                        deadline, arena, (void **)&reply);
    if (base_failed(status))
        return base_status_wrap(status, "sort the log of %s", dead->server);
    for (size_t i = 0; i < reply->n_logs; i++) {
        struct tab_redo *redo = BASE_NEW(arena, struct tab_redo);
        redo->tablet = reply->logs[i]->tablet;
        redo->path = base_bytes_cstr(arena, ch_bytes_of(reply->logs[i]->path));
        redo->next = dead->redo;
        dead->redo = redo;
    }
    ch_info(master->env, "sorted the log of %s: %zu segments, %zu tablets", dead->server,
            dead->segment_count, reply->n_logs);
    return BASE_STATUS_OK;
}

struct base_status tab_master_find_dead(struct tab_master *master, struct tab_live *live,
                                        size_t live_count, ch_time deadline,
                                        struct base_arena *arena, struct tab_dead **dead)
{
    struct blk_stat *segments;
    size_t count;
    *dead = NULL;
    struct base_status status = list_all(master, LOG_PREFIX, deadline, arena, &segments, &count);
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        char server[TAB_SERVER_BYTES];
        if (incarnation_of(segments[i].path, LOG_PREFIX, server, sizeof(server)) &&
            tab_incarnation_of(live, live_count, base_bytes_str(server)) == TAB_DEAD)
            dead_of(dead, server, arena);
    }
    for (struct tab_dead *one = *dead; one && !base_failed(status); one = one->next) {
        uint64_t fence = 0;
        struct tab_live *by = tab_live_least(live, live_count);
        if (!by)
            return base_status_make(BASE_UNAVAILABLE,
                                    "no tabletserver is there to take up the tablets of %s",
                                    one->server);
        struct base_status result =
            fence_of(master, one->server, live, live_count, deadline, &fence);
        if (!base_failed(result))
            result = seal_log(master, one, fence, deadline, arena);
        if (!base_failed(result))
            result = sort_log(master, one, by, ch_in(master->env, SORT_TIMEOUT_S * CH_S), arena);
        one->sorted = !base_failed(result);
        if (base_failed(result)) /* its tablets wait for the next pass; others go on */
            ch_warn(master->env, "%s", base_status_text(&result));
        base_status_free(&result);
    }
    return status;
}

void tab_master_remove_logs(struct tab_master *master, const struct tab_dead *dead,
                            ch_time deadline)
{
    for (; dead; dead = dead->next) {
        if (!dead->sorted)
            continue;
        bool all = true;
        for (size_t i = 0; i < dead->segment_count; i++) {
            enum base_code code =
                base_status_drop(blk_delete(master->blk, dead->segments[i], deadline));
            all &= code == BASE_OK || code == BASE_NOT_FOUND;
        }
        if (all)
            ch_info(master->env, "removed the log of %s", dead->server);
    }
}

static int by_text(const void *key, const void *element)
{
    return strcmp(key, *(char *const *)element);
}

/* Redo files of a leader after this one are not this one's to judge (its lock may be gone
 * without its knowing). */
static bool later_leader(const struct tab_master *master, const char *path, const char *prefix,
                         const char *server)
{
    if (strcmp(prefix, REDO_PREFIX) != 0)
        return false;
    return strtoull(path + strlen(prefix) + strlen(server) + 1, NULL, 10) >
           ch_lock_epoch(master->lock);
}

static void sweep_prefix(struct tab_master *master, const char *prefix, struct tab_live *live,
                         size_t live_count, char **named, size_t named_count,
                         ch_time deadline) CH_WAITS;
static void sweep_prefix(struct tab_master *master, const char *prefix, struct tab_live *live,
                         size_t live_count, char **named, size_t named_count, ch_time deadline)
{
    struct base_arena arena = { 0 };
    struct blk_stat *files;
    size_t count, removed = 0;
    struct base_status status = list_all(master, prefix, deadline, &arena, &files, &count);
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        char server[TAB_SERVER_BYTES];
        if (!incarnation_of(files[i].path, prefix, server, sizeof(server)) ||
            later_leader(master, files[i].path, prefix, server) ||
            tab_incarnation_of(live, live_count, base_bytes_str(server)) != TAB_DEAD ||
            (named_count && bsearch(files[i].path, named, named_count, sizeof(*named), by_text)))
            continue;
        removed += base_status_drop(blk_delete(master->blk, files[i].path, deadline)) == BASE_OK;
    }
    if (removed)
        ch_info(master->env, "removed %zu files below %s that no tablet names", removed, prefix);
    base_status_free(&status);
    base_arena_free(&arena);
}

void tab_master_sweep(struct tab_master *master, struct tab_live *live, size_t live_count,
                      char **named, size_t named_count, ch_time deadline)
{
    sweep_prefix(master, "/tablet/sst/", live, live_count, named, named_count, deadline);
    sweep_prefix(master, REDO_PREFIX, live, live_count, named, named_count, deadline);
}
