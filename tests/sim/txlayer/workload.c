/* workload.c: see workload.h. A list is a row whose value is 8 bytes an element. */
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"

enum { OPS_MAX = 4 };

static const char *const databases[WORK_DATABASES] = { "lists/one", "lists/two" };

struct list {
    int64_t elements[WORK_LIST_MAX];
    size_t count;
    bool touched; /* appended to by this transaction */
};

/* One transaction, from the client's side. */
struct work_open {
    struct work_open *next;
    struct base_arena arena;
    size_t database, client;
    int process;
    ch_time invoked;
    struct txn_commit commit;
    struct txn_key read_keys[WORK_KEYS * OPS_MAX];
    struct txn_range ranges[OPS_MAX];
    struct txn_write writes[WORK_KEYS];
    /* for the history, in order */
    struct {
        bool append;
        size_t key;
        int64_t element;
        int64_t *elements;
        size_t count;
    } mops[WORK_KEYS * OPS_MAX * 2];
    size_t mop_count;
};

struct work_past {
    struct work_past *next;
    size_t database, key, count;
    uint64_t timestamp;
    int64_t elements[];
};

static const char *key_name(size_t k)
{
    static const char *const names[WORK_KEYS + 1] = { "k0", "k1", "k2", "k3", "k4", "k5", "k6" };
    return names[k];
}

static ch_time op_deadline(struct workload *work)
{
    return ch_in(work->env, 3 * CH_S + (ch_time)ch_random_below(work->env, 5 * CH_S));
}

static void decode_list(struct base_bytes value, struct list *list)
{
    list->count = value.len / 8;
    BASE_ASSERT(list->count <= WORK_LIST_MAX);
    memcpy(list->elements, value.data, list->count * 8);
}

static void note_read(struct work_open *txn, size_t key, const struct list *list)
{
    txn->mops[txn->mop_count].append = false;
    txn->mops[txn->mop_count].key = key;
    txn->mops[txn->mop_count].count = list->count;
    txn->mops[txn->mop_count].elements =
        base_arena_memdup(&txn->arena, list->elements, list->count * sizeof(int64_t));
    txn->mop_count++;
}

static void to_history(struct workload *work, struct work_open *txn, enum check_type type,
                       uint64_t timestamp)
{
    struct check_history *history = work->histories[txn->database];
    size_t index = check_begin(history, txn->process, txn->invoked);
    for (size_t i = 0; i < txn->mop_count; i++)
        if (txn->mops[i].append)
            check_append(history, index, key_name(txn->mops[i].key), txn->mops[i].element);
        else
            check_read(history, index, key_name(txn->mops[i].key), txn->mops[i].elements,
                       txn->mops[i].count);
    check_end(history, index, type, ch_now(work->env), timestamp);
}

static struct work_open *txn_new(struct workload *work, int process)
{
    struct work_open *txn = calloc(1, sizeof(*txn));
    base_arena_init(&txn->arena);
    txn->process = process;
    txn->database = ch_random_below(work->env, WORK_DATABASES);
    txn->client = (size_t)process % 2;
    txn->invoked = ch_now(work->env);
    return txn;
}

static void txn_free(struct work_open *txn)
{
    base_arena_free(&txn->arena);
    free(txn);
}

/* Reads all keys of [from, to) at once, or one key. The lists of this transaction are in
 * `lists`. */
static struct base_status read_some(struct workload *work, struct work_open *txn, size_t from,
                                    size_t to, bool scan, uint64_t timestamp, struct list *lists,
                                    uint64_t *read_at) CH_WAITS;
static struct base_status read_some(struct workload *work, struct work_open *txn, size_t from,
                                    size_t to, bool scan, uint64_t timestamp, struct list *lists,
                                    uint64_t *read_at)
{
    struct txn_client *client = work->clients[txn->client];
    const char *database = databases[txn->database];
    struct base_status status;
    for (size_t k = from; k < to; k++)
        lists[k].count = 0;
    if (scan) {
        struct txn_scan range = { .start = base_bytes_str(key_name(from)),
                                  .end = base_bytes_str(key_name(to)),
                                  .descending = ch_random_below(work->env, 2),
                                  .limit = 1 + ch_random_below(work->env, WORK_KEYS) };
        struct txn_row *rows;
        size_t count;
        bool more = true;
        while (more) {
            status = txn_scan(client, database, timestamp, &range, op_deadline(work), &txn->arena,
                              &rows, &count, &more, read_at);
            if (base_failed(status))
                return status;
            timestamp = *read_at;
            for (size_t i = 0; i < count; i++)
                decode_list(rows[i].value, &lists[rows[i].key.data[1] - '0']);
            if (!count)
                break;
            struct base_bytes last = rows[count - 1].key;
            if (range.descending)
                range.end = last;
            else
                range.start =
                    base_bytes_str(base_arena_printf(&txn->arena, "%.*s!", BASE_FMT(last)));
        }
        return BASE_STATUS_OK;
    }
    struct txn_key keys[WORK_KEYS];
    struct txn_value values[WORK_KEYS];
    for (size_t k = from; k < to; k++)
        keys[k - from] = (struct txn_key){ base_bytes_str("g"), base_bytes_str(key_name(k)) };
    status = txn_get(client, database, timestamp, keys, to - from, op_deadline(work), &txn->arena,
                     values, read_at);
    for (size_t k = from; k < to && !base_failed(status); k++)
        if (values[k - from].found)
            decode_list(values[k - from].value, &lists[k]);
    return status;
}

/* A snapshot of now: strict, and alone. */
static void run_read_only(struct workload *work, int process) CH_WAITS;
static void run_read_only(struct workload *work, int process)
{
    struct work_open *txn = txn_new(work, process);
    struct list *lists = calloc(WORK_KEYS, sizeof(*lists));
    size_t from = ch_random_below(work->env, WORK_KEYS),
           to = from + 1 + ch_random_below(work->env, WORK_KEYS - from);
    uint64_t read_at = 0;
    struct base_status status =
        read_some(work, txn, from, to, ch_random_below(work->env, 2), 0, lists, &read_at);
    if (!base_failed(status)) {
        for (size_t k = from; k < to; k++)
            note_read(txn, k, &lists[k]);
        to_history(work, txn, CHECK_OK, read_at);
        work->reads++;
    }
    base_status_free(&status);
    free(lists);
    txn_free(txn);
}

/* Somewhere in the last seconds. */
static void run_past_read(struct workload *work, int process) CH_WAITS;
static void run_past_read(struct workload *work, int process)
{
    struct work_open *txn = txn_new(work, process);
    struct list *lists = calloc(WORK_KEYS, sizeof(*lists));
    uint64_t now;
    struct base_status status = txn_read_timestamp(
        work->clients[txn->client], databases[txn->database], op_deadline(work), &now);
    if (!base_failed(status)) {
        uint64_t at =
            now - ch_random_below(work->env, 20000000) + ch_random_below(work->env, 1000000);
        status = read_some(work, txn, 0, WORK_KEYS, ch_random_below(work->env, 2), at, lists, &now);
        for (size_t k = 0; k < WORK_KEYS && !base_failed(status); k++) {
            struct work_past *past = calloc(1, sizeof(*past) + lists[k].count * sizeof(int64_t));
            *past = (struct work_past){ work->past, txn->database, k, lists[k].count, at };
            memcpy(past->elements, lists[k].elements, lists[k].count * sizeof(int64_t));
            work->past = past;
            work->past_reads++;
        }
    }
    base_status_free(&status);
    free(lists);
    txn_free(txn);
}

static void append(struct workload *work, struct work_open *txn, size_t k, struct list *list)
{
    int64_t element = ++work->next_element;
    if (list->count == WORK_LIST_MAX)
        return;
    list->elements[list->count++] = element;
    list->touched = true;
    txn->mops[txn->mop_count].append = true;
    txn->mops[txn->mop_count].key = k;
    txn->mops[txn->mop_count++].element = element;
}

static struct base_status run_ops(struct workload *work, struct work_open *txn,
                                  struct list *lists) CH_WAITS;
static struct base_status run_ops(struct workload *work, struct work_open *txn, struct list *lists)
{
    bool known[WORK_KEYS] = { 0 };
    size_t ops = 1 + ch_random_below(work->env, OPS_MAX);
    for (size_t i = 0; i < ops; i++) {
        size_t from = ch_random_below(work->env, WORK_KEYS), to = from + 1;
        bool scan = ch_random_below(work->env, 4) == 0;
        if (scan)
            to += ch_random_below(work->env, WORK_KEYS - from);
        bool fresh = true;
        for (size_t k = from; k < to; k++)
            fresh = fresh && !known[k];
        if (!fresh)
            continue;
        uint64_t read_at;
        struct base_status status =
            read_some(work, txn, from, to, scan, txn->commit.read_timestamp, lists, &read_at);
        if (base_failed(status))
            return status;
        txn->commit.read_timestamp = read_at;
        for (size_t k = from; k < to; k++) {
            known[k] = true;
            note_read(txn, k, &lists[k]);
            if (!scan)
                txn->read_keys[txn->commit.read_key_count++] =
                    (struct txn_key){ base_bytes_str("g"), base_bytes_str(key_name(k)) };
        }
        if (scan)
            txn->ranges[txn->commit.read_range_count++] =
                (struct txn_range){ base_bytes_str(key_name(from)), base_bytes_str(key_name(to)) };
        if (ch_random_below(work->env, 3))
            append(work, txn, from, &lists[from]);
        if (ch_random_below(work->env, 3) == 0)
            append(work, txn, from, &lists[from]);
        if (ch_random_below(work->env, 8) == 0)
            (void)!ch_sleep_until(
                work->env,
                ch_in(work->env, (ch_time)ch_random_below(work->env, (uint64_t)work->think * 7)));
    }
    return BASE_STATUS_OK;
}

static void run_read_write(struct workload *work, int *process) CH_WAITS;
static void run_read_write(struct workload *work, int *process)
{
    struct work_open *txn = txn_new(work, *process);
    struct list *lists = calloc(WORK_KEYS, sizeof(*lists));
    struct base_status status = run_ops(work, txn, lists);
    for (size_t k = 0; k < WORK_KEYS && !base_failed(status); k++)
        if (lists[k].touched)
            txn->writes[txn->commit.write_count++] = (struct txn_write){
                .key = { base_bytes_str("g"), base_bytes_str(key_name(k)) },
                .value = base_bytes(
                    base_arena_memdup(&txn->arena, lists[k].elements, lists[k].count * 8),
                    lists[k].count * 8),
            };
    free(lists);
    if (base_failed(status) || !txn->commit.write_count) {
        base_status_free(&status);
        txn_free(txn);
        return;
    }
    uint64_t id[2] = { 0x1111, ++work->next_id }, timestamp;
    txn->commit.read_keys = txn->read_keys;
    txn->commit.read_ranges = txn->ranges;
    txn->commit.writes = txn->writes;
    txn->commit.idempotency_id = base_bytes(base_arena_memdup(&txn->arena, id, 16), 16);
    status = txn_commit(work->clients[txn->client], databases[txn->database], &txn->commit,
                        op_deadline(work), &timestamp);
    if (!base_failed(status) || status.code == BASE_ABORTED ||
        status.code == BASE_INVALID_ARGUMENT) {
        BASE_ASSERT(status.code != BASE_INVALID_ARGUMENT ||
                    strstr(base_status_text(&status), "too old") ||
                    work->no_strong_reads); /* one long succeeded does not know newer timestamps */
        to_history(work, txn, base_failed(status) ? CHECK_FAIL : CHECK_OK, timestamp);
        *(base_failed(status) ? &work->failed : &work->ok) += 1;
        txn_free(txn);
    } else {
        BASE_ASSERT(status.code == BASE_UNAVAILABLE || status.code == BASE_DEADLINE_EXCEEDED);
        txn->next = work->open;
        work->open = txn;
        if (getenv("STRATA_TEST_LOG"))
            fprintf(stderr, "commit %llu of %s, read at %llu, unknown: %s\n",
                    (unsigned long long)id[1], databases[txn->database],
                    (unsigned long long)txn->commit.read_timestamp, base_status_text(&status));
        work->unknown++;
        *process = work->next_process++; /* the old one is for ever in this transaction */
    }
    base_status_free(&status);
}

static void run_client(void *arg)
{
    CH_FIBER_ENTRY();
    struct workload *work = arg;
    int process = work->next_process++;
    while (ch_now(work->env) < work->until && !ch_cancelled()) {
        uint64_t what = ch_random_below(work->env, 10);
        if (what < 3 && !work->no_strong_reads)
            run_read_only(work, process);
        else if (what < 4)
            run_past_read(work, process);
        else
            run_read_write(work, &process);
        (void)!ch_sleep_until(work->env, ch_in(work->env, (ch_time)ch_random_below(
                                                              work->env, (uint64_t)work->think)));
    }
}

void work_start(struct workload *work, struct world *world, size_t clients, ch_time length,
                ch_time think, bool no_strong_reads)
{
    *work = (struct workload){ .world = world,
                               .env = ch_sim_tester_env(world->sim),
                               .think = think,
                               .no_strong_reads = no_strong_reads };
    work->naming = world_naming(world);
    work->until = ch_in(work->env, length);
    for (size_t i = 0; i < 2; i++)
        work->clients[i] = world_client(world, work->naming);
    for (size_t d = 0; d < WORK_DATABASES; d++)
        work->histories[d] = check_new();
    ch_gate_init(&work->gate, work->env, "workload");
    for (size_t i = 0; i < clients; i++)
        BASE_ASSERT(!base_failed(ch_gate_spawn(&work->gate, "workload", run_client, work)));
}

void work_join(struct workload *work)
{
    ch_gate_close(&work->gate);
    ch_gate_join_always(&work->gate);
}

/* ---- the end ---- */

static void resolve(struct workload *work) CH_WAITS;
static void resolve(struct workload *work)
{
    struct work_open *txn;
    while ((txn = work->open)) {
        uint64_t timestamp;
        work->open = txn->next;
        enum check_type type = CHECK_INFO;
        /* Some stay unknown for ever, as a client's that died. */
        if (ch_random_below(work->env, 4)) {
            struct base_status status =
                txn_commit(work->clients[txn->client], databases[txn->database], &txn->commit,
                           ch_in(work->env, 60 * CH_S), &timestamp);
            type = !base_failed(status) ? CHECK_OK : CHECK_FAIL;
            BASE_ASSERT(!base_failed(status) || status.code == BASE_ABORTED ||
                        status.code == BASE_INVALID_ARGUMENT);
            work->resolved += !base_failed(status);
            if (base_failed(status) && getenv("STRATA_TEST_LOG"))
                fprintf(stderr, "commit %llu, read at %llu: %s\n",
                        (unsigned long long)((uint64_t *)txn->commit.idempotency_id.data)[1],
                        (unsigned long long)txn->commit.read_timestamp, base_status_text(&status));
            base_status_free(&status);
        }
        to_history(work, txn, type, type == CHECK_OK ? timestamp : 0);
        txn_free(txn);
    }
}

/* Everything, in one transaction a database; compares what was read in the past on the way. */
static void read_all(struct workload *work, size_t database, struct list *lists) CH_WAITS;
static void read_all(struct workload *work, size_t database, struct list *lists)
{
    struct work_open *txn = txn_new(work, work->next_process++);
    uint64_t read_at;
    txn->database = database;
    struct base_status status = read_some(work, txn, 0, WORK_KEYS, true, 0, lists, &read_at);
    for (int tries = 0; base_failed(status) && tries < 10; tries++) {
        base_status_free(&status);
        status = read_some(work, txn, 0, WORK_KEYS, true, 0, lists, &read_at);
    }
    BASE_ASSERT(!base_failed(status));
    for (size_t k = 0; k < WORK_KEYS; k++)
        note_read(txn, k, &lists[k]);
    to_history(work, txn, CHECK_OK, read_at);
    txn_free(txn);
}

/* What was read at T must be the last state's beginning, and its length must be what a read at T
 * gives now. */
static void judge_past(struct workload *work, struct list lists[WORK_DATABASES][WORK_KEYS],
                       struct base_buf *report) CH_WAITS;
static void judge_past(struct workload *work, struct list lists[WORK_DATABASES][WORK_KEYS],
                       struct base_buf *report)
{
    struct list *now = calloc(WORK_KEYS, sizeof(*now));
    for (struct work_past *past = work->past; past; past = past->next) {
        const struct list *list = &lists[past->database][past->key];
        if (past->count > list->count ||
            memcmp(past->elements, list->elements, past->count * sizeof(int64_t)) != 0)
            base_buf_printf(report, "a read of %s at %llu is no prefix of the end\n",
                            key_name(past->key), (unsigned long long)past->timestamp);
        if (ch_random_below(work->env, 8))
            continue;
        struct work_open *txn = txn_new(work, 0);
        uint64_t read_at;
        txn->database = past->database;
        struct base_status status =
            read_some(work, txn, past->key, past->key + 1, false, past->timestamp, now, &read_at);
        if (!base_failed(status) && now[past->key].count != past->count)
            base_buf_printf(report, "a read of %s at %llu gave %zu elements, and now %zu\n",
                            key_name(past->key), (unsigned long long)past->timestamp, past->count,
                            now[past->key].count);
        base_status_free(&status);
        txn_free(txn);
    }
    free(now);
}

void work_judge(struct workload *work, struct base_buf *report)
{
    struct list(*lists)[WORK_KEYS] = calloc(WORK_DATABASES, sizeof(*lists));
    struct check_options options = { .final_reads = true, .timestamps = true };
    resolve(work);
    for (size_t d = 0; d < WORK_DATABASES; d++) {
        struct check_result result;
        read_all(work, d, lists[d]);
        check_run(work->histories[d], &options, &result);
        if (!result.valid)
            check_report(&result, report);
    }
    judge_past(work, lists, report);
    free(lists);
}

void work_free(struct workload *work)
{
    for (size_t i = 0; i < 2; i++)
        txn_client_free(work->clients[i]);
    ch_naming_free(work->naming);
    for (size_t d = 0; d < WORK_DATABASES; d++)
        check_free(work->histories[d]);
    for (struct work_past *past = work->past, *next; past; past = next) {
        next = past->next;
        free(past);
    }
}
