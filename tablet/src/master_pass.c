/* master_pass.c: a pass: look at everything, put right what is not. Passes are idempotent and
 * keep nothing from one to the next:
 * (1) which servers hold their locks, and what they say they serve; (2) logs of dead ones:
 * sealed, sorted; (3) the root tablet, METADATA's tablets, users' tablets, in that order,
 * because each level is read through the one above: a tablet whose server is dead (or nobody) is
 * given to a live one, with its redo file; one whose live server does not know it is loaded
 * there; (4) tables half made are completed, tablets of deleted tables dropped; (5) when nothing
 * was wrong: logs and files of the dead removed, one tablet moved for balance. A pass runs when
 * something changed, after a failure, and every IDLE_S. (Bigtable 5.2.) */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/fault.h"
#include "chassis/log.h"
#include "master.h"
#include "strata/tablet/v1/tablet.strata.h"

enum {
    IDLE_S = 5,
    AGAIN_MS = 100,
    STEP_TIMEOUT_S = 10,
    LOAD_TIMEOUT_S = 60,
    REPORT_TIMEOUT_S = 2,
    SIDE_BY_SIDE = 16
};

struct pass {
    struct tab_master *master;
    struct base_arena arena;
    struct tab_live *live;
    size_t live_count;
    struct tab_dead *dead;
    Strata__Tablet__V1__TableMeta **tables;
    size_t table_count;
    char **named; /* files METADATA names */
    size_t named_count, named_cap;
    size_t wrong;  /* things that were not as they should be */
    size_t failed; /* of them, not put right */
    struct mover *movable;
};

struct job { /* one tablet to be put right, on a fiber of its own */
    struct pass *pass;
    Strata__Tablet__V1__TabletMeta *meta;
    struct tab_meta_row *row;
    uint64_t *root_version;
    const char *table_name;
    struct tab_live *to; /* to be given to; NULL: only loaded where it is */
    char address[TAB_ADDRESS_BYTES];
};

struct mover {
    Strata__Tablet__V1__TabletMeta *meta;
    struct tab_meta_row row;
    struct tab_live *from;
    const char *table_name;
};

static ch_time step(const struct tab_master *master)
{
    return ch_in(master->env, STEP_TIMEOUT_S * CH_S);
}

/* ---- giving and loading ---- */

struct base_status tab_master_load(struct tab_master *master,
                                   const Strata__Tablet__V1__TabletMeta *meta,
                                   const char *table_name, const char *address, ch_time deadline)
{
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__LoadRequest request = STRATA__TABLET__V1__LOAD_REQUEST__INIT;
    void *reply;
    request.table = meta->table;
    request.end = meta->end;
    request.id = meta->id;
    request.root = meta->table == TAB_TABLE_METADATA && meta->start.len == 0;
    request.table_name = ch_data_str(table_name);
    struct base_status status =
        tab_master_call(master, address, STRATA__TABLET__V1__TABLETSERVER__LOAD, &request, deadline,
                        &arena, &reply);
    base_arena_free(&arena);
    return base_failed(status)
               ? base_status_wrap(status, "tablet %llx", (unsigned long long)meta->id)
               : status;
}

struct base_status tab_master_assign(struct tab_master *master,
                                     Strata__Tablet__V1__TabletMeta *meta, struct tab_meta_row *row,
                                     uint64_t *root_version, const char *table_name,
                                     const struct tab_live *to, ch_time deadline)
{
    struct base_status status = BASE_STATUS_OK;
    if (meta->left) {
        status = tab_meta_put_left(master->metac, meta, deadline);
        meta->left = NULL;
    }
    meta->server = ch_data_str(to->server);
    meta->address = ch_data_str(to->address);
    if (!base_failed(status) && root_version) {
        status = tab_metac_root_write(master->metac, meta, deadline, root_version);
    } else if (!base_failed(status)) {
        struct base_buf value = { 0 };
        ch_proto_encode(&meta->base, &value);
        row->value = base_buf_bytes(&value);
        status = tab_metac_write(master->metac, row, false, deadline);
        row->value = BASE_BYTES_EMPTY;
        base_buf_free(&value);
    }
    if (!base_failed(status))
        status = ch_fault(master->env, "tablet_assigned");
    if (!base_failed(status))
        status = tab_master_load(master, meta, table_name, to->address, deadline);
    return status;
}

static void job_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct job *job = arg;
    struct tab_master *master = job->pass->master;
    ch_time deadline = ch_in(master->env, LOAD_TIMEOUT_S * CH_S);
    struct base_status status =
        job->to ? tab_master_assign(master, job->meta, job->row, job->root_version, job->table_name,
                                    job->to, deadline)
                : tab_master_load(master, job->meta, job->table_name, job->address, deadline);
    if (base_failed(status)) {
        job->pass->failed++;
        ch_warn(master->env, "%s", base_status_text(&status));
    }
    base_status_free(&status);
}

/* ---- one tablet ---- */

static void add_redo(struct pass *pass, Strata__Tablet__V1__TabletMeta *meta,
                     const struct tab_dead *dead)
{
    for (const struct tab_redo *redo = dead ? dead->redo : NULL; redo; redo = redo->next) {
        if (redo->tablet != meta->id)
            continue;
        ProtobufCBinaryData *list =
            BASE_NEW_ARRAY(&pass->arena, ProtobufCBinaryData, meta->n_redo + 1);
        if (meta->n_redo)
            memcpy(list, meta->redo, meta->n_redo * sizeof(*list));
        list[meta->n_redo++] = ch_data_str(redo->path);
        meta->redo = list;
    }
}

static struct tab_dead *dead_server(struct pass *pass, struct base_bytes server)
{
    for (struct tab_dead *dead = pass->dead; dead; dead = dead->next)
        if (base_bytes_eq_str(server, dead->server))
            return dead;
    return NULL;
}

static bool serves(const struct tab_live *live, uint64_t id)
{
    for (size_t i = 0; i < live->tablet_count; i++)
        if (live->tablets[i] == id)
            return true;
    return false;
}

static void name_files(struct pass *pass, const Strata__Tablet__V1__TabletMeta *meta)
{
    size_t more = meta->n_files + meta->n_redo;
    if (pass->named_count + more > pass->named_cap) {
        pass->named_cap = (pass->named_count + more) * 2;
        char **list = BASE_NEW_ARRAY(&pass->arena, char *, pass->named_cap);
        if (pass->named_count)
            memcpy(list, pass->named, pass->named_count * sizeof(*list));
        pass->named = list;
    }
    for (size_t i = 0; i < meta->n_files; i++)
        pass->named[pass->named_count++] =
            base_bytes_cstr(&pass->arena, ch_bytes_of(meta->files[i]->path));
    for (size_t i = 0; i < meta->n_redo; i++)
        pass->named[pass->named_count++] =
            base_bytes_cstr(&pass->arena, ch_bytes_of(meta->redo[i]));
    if (meta->left)
        name_files(pass, meta->left);
}

/* Whether something is to be done, and what. Decides only. */
static bool judge(struct pass *pass, Strata__Tablet__V1__TabletMeta *meta, struct job *job)
{
    struct base_bytes server = ch_bytes_of(meta->server);
    name_files(pass, meta);
    struct tab_live *holder = tab_live_find(pass->live, pass->live_count, server);
    if (holder) {
        holder->assigned++;
        if (!holder->reported) {
            pass->wrong++;
            pass->failed++; /* ask again */
            return false;
        }
        if (serves(holder, meta->id))
            return false;
        snprintf(job->address, sizeof(job->address), "%s", holder->address);
        job->to = NULL;
    } else {
        struct tab_dead *dead = dead_server(pass, server);
        struct tab_live *to = tab_live_least(pass->live, pass->live_count);
        bool younger = tab_incarnation_of(pass->live, pass->live_count, server) == TAB_YOUNGER;
        if (!to || younger || (dead && !dead->sorted)) {
            pass->wrong++;
            pass->failed++;
            return false;
        }
        add_redo(pass, meta, dead);
        to->assigned++;
        job->to = to;
    }
    pass->wrong++;
    job->pass = pass;
    job->meta = meta;
    return true;
}

/* ---- the levels ---- */

static struct base_status bootstrap_root(struct pass *pass) CH_WAITS;
static struct base_status bootstrap_root(struct pass *pass)
{
    struct tab_master *master = pass->master;
    Strata__Tablet__V1__TabletMeta root = STRATA__TABLET__V1__TABLET_META__INIT;
    struct base_buf end = { 0 };
    uint64_t version = 0;
    tab_meta_root_end(&end);
    root.id = ch_random(master->env) | 1;
    root.end = ch_data_of(base_buf_bytes(&end));
    struct base_status status = tab_metac_root_write(master->metac, &root, step(master), &version);
    base_buf_free(&end);
    if (status.code == BASE_FAILED_PRECONDITION || status.code == BASE_ALREADY_EXISTS)
        base_status_free(&status);
    if (!base_failed(status))
        ch_info(master->env, "made the root tablet");
    return status;
}

static struct base_status pass_root(struct pass *pass) CH_WAITS;
static struct base_status pass_root(struct pass *pass)
{
    struct tab_master *master = pass->master;
    Strata__Tablet__V1__TabletMeta *root;
    uint64_t version = 0;
    struct base_status status =
        tab_metac_root(master->metac, step(master), &pass->arena, &root, &version);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
        status = bootstrap_root(pass);
        if (!base_failed(status))
            status = tab_metac_root(master->metac, step(master), &pass->arena, &root, &version);
    }
    struct job job = { .root_version = &version, .table_name = "METADATA" };
    if (!base_failed(status) && judge(pass, root, &job))
        job_fiber(&job);
    if (!base_failed(status) && pass->failed)
        status = base_status_make(BASE_UNAVAILABLE, "the root tablet is not served");
    tab_metac_forget(master->metac, TAB_TABLE_METADATA, BASE_BYTES_EMPTY);
    return status;
}

/* METADATA's second level begins as one tablet. */
static struct base_status bootstrap_metadata(struct pass *pass) CH_WAITS;
static struct base_status bootstrap_metadata(struct pass *pass)
{
    struct tab_master *master = pass->master;
    Strata__Tablet__V1__TabletMeta meta = STRATA__TABLET__V1__TABLET_META__INIT;
    struct base_buf start = { 0 }, key = { 0 }, value = { 0 };
    tab_meta_root_end(&start);
    tab_meta_key(&key, TAB_TABLE_METADATA, BASE_BYTES_EMPTY);
    meta.id = ch_random(master->env) | 1;
    meta.start = ch_data_of(base_buf_bytes(&start));
    ch_proto_encode(&meta.base, &value);
    struct tab_meta_row row = { .key = base_buf_bytes(&key), .value = base_buf_bytes(&value) };
    struct base_status status = tab_metac_write(master->metac, &row, true, step(master));
    base_buf_free(&start);
    base_buf_free(&key);
    base_buf_free(&value);
    if (status.code == BASE_FAILED_PRECONDITION)
        base_status_free(&status);
    return status;
}

static const char *table_name(struct pass *pass, uint64_t table)
{
    if (table == TAB_TABLE_METADATA)
        return "METADATA";
    for (size_t i = 0; i < pass->table_count; i++)
        if (pass->tables[i]->id == table)
            return base_bytes_cstr(&pass->arena, ch_bytes_of(pass->tables[i]->name));
    return NULL;
}

/* A tablet of a table that is deleted: its server lets go of it, its row goes; the sweep finds
 * its files. */
static void drop_orphan(struct pass *pass, const Strata__Tablet__V1__TabletMeta *meta,
                        const struct tab_meta_row *row) CH_WAITS;
static void drop_orphan(struct pass *pass, const Strata__Tablet__V1__TabletMeta *meta,
                        const struct tab_meta_row *row)
{
    struct tab_master *master = pass->master;
    struct tab_live *holder =
        tab_live_find(pass->live, pass->live_count, ch_bytes_of(meta->server));
    struct base_status status = BASE_STATUS_OK;
    if (holder) {
        Strata__Tablet__V1__UnloadRequest request = STRATA__TABLET__V1__UNLOAD_REQUEST__INIT;
        void *reply;
        request.id = meta->id;
        request.drop = true;
        status = tab_master_call(master, holder->address, STRATA__TABLET__V1__TABLETSERVER__UNLOAD,
                                 &request, step(master), &pass->arena, &reply);
    }
    if (!base_failed(status))
        status = tab_metac_delete(master->metac, row, step(master));
    pass->wrong++;
    pass->failed += base_failed(status);
    base_status_free(&status);
}

static void note_movable(struct pass *pass, Strata__Tablet__V1__TabletMeta *meta,
                         const struct tab_meta_row *row, const char *name)
{
    struct tab_live *from = tab_live_find(pass->live, pass->live_count, ch_bytes_of(meta->server));
    if (!from || meta->table == TAB_TABLE_METADATA)
        return;
    struct mover *mover = BASE_NEW(&pass->arena, struct mover);
    *mover = (struct mover){ meta, *row, from, name };
    if (!pass->movable || pass->movable->from->assigned < from->assigned)
        pass->movable = mover;
}

static struct base_status pass_rows(struct pass *pass, struct tab_meta_row *rows,
                                    size_t count) CH_WAITS;
static struct base_status pass_rows(struct pass *pass, struct tab_meta_row *rows, size_t count)
{
    struct job *jobs = BASE_NEW_ARRAY(&pass->arena, struct job, count);
    size_t job_count = 0;
    for (size_t i = 0; i < count; i++) {
        Strata__Tablet__V1__TabletMeta *meta;
        struct base_status status = tab_meta_decode(rows[i].value, &pass->arena, &meta);
        if (base_failed(status))
            return status;
        const char *name = table_name(pass, meta->table);
        if (!name) {
            drop_orphan(pass, meta, &rows[i]);
            continue;
        }
        jobs[job_count].row = &rows[i];
        jobs[job_count].table_name = name;
        if (judge(pass, meta, &jobs[job_count]))
            job_count++;
        else
            note_movable(pass, meta, &rows[i], name);
        ch_yield_if_long();
    }
    for (size_t at = 0; at < job_count; at += SIDE_BY_SIDE) {
        struct ch_gather gather;
        ch_gather_init(&gather, "tablets");
        for (size_t i = at; i < job_count && i < at + SIDE_BY_SIDE; i++)
            ch_gather_add(&gather, job_fiber, &jobs[i]);
        ch_gather_wait(&gather);
    }
    return BASE_STATUS_OK;
}

static struct base_status pass_metadata(struct pass *pass) CH_WAITS;
static struct base_status pass_metadata(struct pass *pass)
{
    struct base_buf end = { 0 };
    struct tab_meta_row *rows;
    size_t count;
    tab_meta_root_end(&end);
    struct base_status status =
        tab_metac_scan(pass->master->metac, BASE_BYTES_EMPTY, base_buf_bytes(&end), 0,
                       step(pass->master), &pass->arena, &rows, &count);
    if (!base_failed(status) && count == 0) {
        status = bootstrap_metadata(pass);
        if (!base_failed(status))
            status = tab_metac_scan(pass->master->metac, BASE_BYTES_EMPTY, base_buf_bytes(&end), 0,
                                    step(pass->master), &pass->arena, &rows, &count);
    }
    if (!base_failed(status))
        status = pass_rows(pass, rows, count);
    if (!base_failed(status) && pass->failed)
        status = base_status_make(BASE_UNAVAILABLE, "METADATA is not all served");
    base_buf_free(&end);
    return status;
}

static void complete_tables(struct pass *pass) CH_WAITS;
static void complete_tables(struct pass *pass)
{
    for (size_t i = 0; i < pass->table_count; i++) {
        if (!pass->tables[i]->creating)
            continue;
        struct base_status status =
            tab_master_make_tablets(pass->master, pass->tables[i], step(pass->master));
        pass->wrong++;
        pass->failed += base_failed(status);
        base_status_free(&status);
    }
}

static struct base_status pass_tables(struct pass *pass) CH_WAITS;
static struct base_status pass_tables(struct pass *pass)
{
    struct base_buf start = { 0 };
    struct tab_meta_row *rows;
    size_t count;
    base_buf_put_be64(&start, TAB_TABLE_FIRST);
    struct tab_master *master = pass->master;
    /* Tablets first, then tables: a tablet's table was there before it, so a table not found now
     * is deleted. */
    struct base_status status =
        tab_metac_scan(master->metac, base_buf_bytes(&start), BASE_BYTES_EMPTY, 0, step(master),
                       &pass->arena, &rows, &count);
    if (!base_failed(status))
        status = tab_master_tables(master, "", step(master), &pass->arena, &pass->tables,
                                   &pass->table_count);
    if (!base_failed(status))
        status = pass_rows(pass, rows, count);
    if (!base_failed(status))
        complete_tables(pass);
    base_buf_free(&start);
    return status;
}

/* ---- reports ---- */

struct report_job {
    struct tab_master *master;
    struct tab_live *live;
    struct base_arena arena;
};

static void report_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct report_job *job = arg;
    Strata__Tablet__V1__ReportRequest request = STRATA__TABLET__V1__REPORT_REQUEST__INIT;
    Strata__Tablet__V1__ReportReply *reply;
    struct base_status status = tab_master_call(
        job->master, job->live->address, STRATA__TABLET__V1__TABLETSERVER__REPORT, &request,
        ch_in(job->master->env, REPORT_TIMEOUT_S * CH_S), &job->arena, (void **)&reply);
    if (!base_failed(status) && base_bytes_eq_str(ch_bytes_of(reply->server), job->live->server)) {
        job->live->tablets = BASE_NEW_ARRAY(&job->arena, uint64_t, reply->n_tablets);
        for (size_t i = 0; i < reply->n_tablets; i++)
            job->live->tablets[job->live->tablet_count++] = reply->tablets[i]->id;
        job->live->reported = true;
        job->live->retiring = reply->retiring;
    }
    base_status_free(&status);
}

static struct report_job *ask_reports(struct pass *pass) CH_WAITS;
static struct report_job *ask_reports(struct pass *pass)
{
    struct report_job *jobs = BASE_NEW_ARRAY(&pass->arena, struct report_job, pass->live_count);
    struct ch_gather gather;
    ch_gather_init(&gather, "reports");
    for (size_t i = 0; i < pass->live_count; i++) {
        jobs[i] = (struct report_job){ .master = pass->master, .live = &pass->live[i] };
        if (pass->live[i].alive)
            ch_gather_add(&gather, report_fiber, &jobs[i]);
    }
    ch_gather_wait(&gather);
    return jobs;
}

/* ---- when all is well ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void balance(struct pass *pass) CH_WAITS;
static void balance(struct pass *pass)
{
    struct tab_master *master = pass->master;
    struct tab_live *least = tab_live_least(pass->live, pass->live_count);
    struct mover *mover = pass->movable;
    if (!master->config->balance || !mover || !least ||
        mover->from->assigned < least->assigned + 2 || ch_now(master->env) < master->next_balance)
        return;
    master->next_balance = ch_in(master->env, master->config->balance_interval);
    Strata__Tablet__V1__UnloadRequest request = STRATA__TABLET__V1__UNLOAD_REQUEST__INIT;
    void *reply;
    request.id = mover->meta->id;
    struct base_status status =
        tab_master_call(master, mover->from->address, STRATA__TABLET__V1__TABLETSERVER__UNLOAD,
                        &request, step(master), &pass->arena, &reply);
    struct tab_meta_row row;
    Strata__Tablet__V1__TabletMeta *meta;
    if (!base_failed(status))
        status = tab_metac_get(master->metac, mover->row.key, step(master), &pass->arena, &row);
    if (!base_failed(status))
        status = tab_meta_decode(row.value, &pass->arena, &meta);
    if (!base_failed(status) && meta->server.len == 0)
        status =
            tab_master_assign(master, meta, &row, NULL, mover->table_name, least, step(master));
    if (!base_failed(status))
        ch_info(master->env, "moved tablet %llx from %s to %s", (unsigned long long)mover->meta->id,
                mover->from->server, least->server);
    else
        ch_warn(master->env, "balance: %s", base_status_text(&status));
    base_status_free(&status);
    tab_master_poke(master);
}

/* ---- the pass ---- */

static struct base_status look_at_all(struct pass *pass) CH_WAITS;
static struct base_status look_at_all(struct pass *pass)
{
    struct tab_master *master = pass->master;
    struct base_status status = tab_master_find_dead(master, pass->live, pass->live_count,
                                                     step(master), &pass->arena, &pass->dead);
    if (!base_failed(status))
        status = pass_root(pass);
    if (!base_failed(status))
        status = pass_metadata(pass);
    if (!base_failed(status))
        status = pass_tables(pass);
    return status;
}

static bool one_pass(struct tab_master *master) CH_WAITS;
static bool one_pass(struct tab_master *master)
{
    struct pass pass = { .master = master };
    struct report_job *reports = NULL;
    struct base_status status =
        tab_master_live(master, step(master), &pass.arena, &pass.live, &pass.live_count);
    if (!base_failed(status))
        reports = ask_reports(&pass);
    if (!base_failed(status) && pass.live_count == 0)
        status = base_status_make(BASE_UNAVAILABLE, "there is no tabletserver");
    if (!base_failed(status))
        status = look_at_all(&pass);
    bool good = !base_failed(status) && pass.failed == 0;
    if (good) {
        tab_master_remove_logs(master, pass.dead, step(master));
        master->passes++;
        ch_cond_broadcast(&master->passed);
    }
    if (good && pass.wrong == 0 && ch_lock_held(master->lock)) {
        if (pass.named_count)
            qsort(pass.named, pass.named_count, sizeof(*pass.named), by_text);
        tab_master_sweep(master, pass.live, pass.live_count, pass.named, pass.named_count,
                         step(master));
        balance(&pass);
    }
    if (base_failed(status))
        ch_info(master->env, "pass: %s", base_status_text(&status));
    base_status_free(&status);
    for (size_t i = 0; reports && i < pass.live_count; i++)
        base_arena_free(&reports[i].arena);
    base_arena_free(&pass.arena);
    return good && pass.wrong == 0;
}

void tab_master_pass_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_master *master = arg;
    while (!master->stopping && !ch_cancelled()) {
        master->dirty = false;
        bool clean = one_pass(master);
        ch_time until = ch_in(master->env, clean ? IDLE_S * CH_S : AGAIN_MS * CH_MS);
        while (!master->dirty && ch_cond_wait(&master->wake, until) == CH_OK)
            ;
        if (!clean) /* at most so many a second, whatever changes */
            ch_sleep_until(master->env, ch_in(master->env, AGAIN_MS * CH_MS));
    }
}
