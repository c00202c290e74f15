/* Logs that live in etcd, against three members of Debian's etcd-server. What must hold: what was
 * acknowledged is there once and in order, whichever etcd member or leading process is killed, cut
 * short or paused; and who has lost the lead can write no more, however it missed the news. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "etcd.h"
#include "etcd_cluster.h"
#include "etcd_format.h"
#include "list_machine.h"
#include "test.h"

enum { PROCESSES = 2 };

static struct {
    struct etcd_cluster etcd;
    char dir[128], bin[512];
    pid_t pids[PROCESSES], proxy;
    char state[64]; /* of member 0 when it is to have another than all */
} t;

#define OK(expr)                                                                       \
    do {                                                                               \
        struct base_status status_ = (expr);                                           \
        cr_assert(!base_failed(status_), "%s: %s", #expr, base_status_text(&status_)); \
    } while (0)

/* Fails with this code and this in its text. */
#define FAILS(expr, code_, part)                                                                 \
    do {                                                                                         \
        struct base_status status_ = (expr);                                                     \
        cr_assert(status_.code == (code_) && strstr(base_status_text(&status_), (part)),         \
                  "%s: %s %s", #expr, base_code_name(status_.code), base_status_text(&status_)); \
        base_status_free(&status_);                                                              \
    } while (0)

/* Waits for a condition that others bring about. */
#define UNTIL(env, seconds, cond)                                                     \
    do {                                                                              \
        ch_time until_ = ch_in((env), (seconds)*CH_S);                                \
        while (!(cond)) {                                                             \
            cr_assert(ch_now(env) < until_, "not within %d s: %s", (seconds), #cond); \
            (void)ch_sleep_until((env), ch_in((env), 5 * CH_MS));                     \
        }                                                                             \
    } while (0)

/* ---- logs of this process ---- */

struct member {
    struct ch_env *env;
    struct con_log *log;
    struct list_machine list;
};

static void member_open(struct ch_env *env, struct member *member, const char *self, bool learner,
                        uint64_t snapshot_bytes) CH_WAITS;
static void member_open(struct ch_env *env, struct member *member, const char *self, bool learner,
                        uint64_t snapshot_bytes)
{
    struct con_log_options options = { .group = "list",
                                       .self = self,
                                       .state = t.etcd.state,
                                       .learner = learner,
                                       .snapshot_bytes_min = snapshot_bytes };
    struct con_machine machine;

    memset(member, 0, sizeof *member);
    member->env = env;
    machine = list_machine_of(&member->list);
    OK(con_log_open(env, &options, &machine, &member->log));
}

static void member_close(struct member *member) CH_WAITS;
static void member_close(struct member *member)
{
    con_log_close(member->log);
    free(member->list.items);
}

static uint64_t member_lead(struct member *member) CH_WAITS;
static uint64_t member_lead(struct member *member)
{
    uint64_t term = 0;

    cr_assert(con_log_wait_lead(member->log, ch_in(member->env, 15 * CH_S), &term) == CH_OK);
    cr_assert(term != 0 && term == member->list.led && term == con_log_term(member->log));
    return term;
}

static struct base_status member_propose(struct member *member, uint64_t number,
                                         size_t len) CH_WAITS;
static struct base_status member_propose(struct member *member, uint64_t number, size_t len)
{
    struct base_buf command = { 0 }, reply = { 0 };
    struct base_status status;
    uint64_t count;

    list_encode((struct list_item){ 0, number, con_log_term(member->log) }, &command);
    if (len > command.len) {
        size_t more = len - command.len;

        memset(base_buf_extend(&command, more), 'p', more);
    }
    status = con_log_propose(member->log, base_buf_bytes(&command), ch_in(member->env, 15 * CH_S),
                             &reply);
    if (!base_failed(status)) {
        struct base_bytes in = base_buf_bytes(&reply);

        cr_assert(base_take_le64(&in, &count) && count <= member->list.count &&
                  member->list.items[count - 1].number == number);
    }
    base_buf_free(&command);
    base_buf_free(&reply);
    return status;
}

static void lists_equal(const struct list_machine *a, const struct list_machine *b)
{
    cr_assert(a->count == b->count, "%zu and %zu", a->count, b->count);
    cr_assert(a->count == 0 || memcmp(a->items, b->items, a->count * sizeof(*a->items)) == 0);
}

/* ---- members that are processes ---- */

static void process_start(int i)
{
    char path[600], number[8], file[200], log[200];

    snprintf(path, sizeof path, "%s/con_etcd_member", t.bin);
    snprintf(number, sizeof number, "%d", i + 1);
    snprintf(file, sizeof file, "%s/acks%d", t.dir, i);
    snprintf(log, sizeof log, "%s/member%d.log", t.dir, i);
    t.pids[i] = fork();
    if (t.pids[i] == 0) {
        int fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0644);
        dup2(fd, 1);
        dup2(fd, 2);
        execl(path, path, i == 0 && *t.state ? t.state : t.etcd.state, number, file, NULL);
        _exit(127);
    }
}

static void process_kill(int i, int signal)
{
    kill(t.pids[i], signal);
    if (signal != SIGKILL && signal != SIGTERM)
        return;
    waitpid(t.pids[i], NULL, 0);
    t.pids[i] = 0;
}

/* What member i has said so far: all its acknowledged numbers, its failures, its last term. */
struct said {
    uint64_t *acked;
    size_t acked_count, failed_count;
    uint64_t term;
};

static void said_free(struct said *said)
{
    free(said->acked);
    *said = (struct said){ 0 };
}

static struct said said_read(int i)
{
    struct said said = { 0 };
    char path[200], line[500], what[2];
    uint64_t number;
    size_t cap = 0;
    FILE *file;

    snprintf(path, sizeof path, "%s/acks%d", t.dir, i);
    file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%1s %" SCNu64, what, &number) != 2)
            continue;
        if (*what == 'a') {
            if (said.acked_count == cap) {
                cap = cap ? 2 * cap : 1024;
                said.acked = realloc(said.acked, cap * sizeof(*said.acked));
            }
            said.acked[said.acked_count++] = number;
        } else if (*what == 't') {
            said.term = number;
        } else {
            said.failed_count++;
        }
    }
    if (file)
        fclose(file);
    return said;
}

static size_t acked_count(int i)
{
    struct said said = said_read(i);
    size_t count = said.acked_count;

    said_free(&said);
    return count;
}

static size_t failed_count(int i)
{
    struct said said = said_read(i);
    size_t count = said.failed_count;

    said_free(&said);
    return count;
}

static uint64_t term_of(int i)
{
    struct said said = said_read(i);
    uint64_t term = said.term;

    said_free(&said);
    return term;
}

/* Waits until somebody's acknowledged proposals go on, for twenty more; returns how long it
 * took. */
static ch_time goes_on(struct ch_env *env) CH_WAITS;
static ch_time goes_on(struct ch_env *env)
{
    ch_time begin = ch_now(env);
    size_t before = acked_count(0) + acked_count(1);

    UNTIL(env, 20, acked_count(0) + acked_count(1) >= before + 20);
    return ch_now(env) - begin;
}

/* All that was acknowledged is in the log, once; terms never go down. */
static void check_history(struct ch_env *env) CH_WAITS;
static void check_history(struct ch_env *env)
{
    struct member reader;
    uint64_t term = 0;

    /* A reader that leads has read all there is. */
    member_open(env, &reader, "reader:1", false, 0);
    member_lead(&reader);
    for (size_t i = 0; i < reader.list.count; i++) {
        cr_assert(reader.list.items[i].term >= term,
                  "index %zu was proposed in term %" PRIu64 ", after one of term %" PRIu64, i + 1,
                  reader.list.items[i].term, term);
        term = reader.list.items[i].term;
    }
    for (int who = 0; who < PROCESSES; who++) {
        struct said said = said_read(who);
        uint8_t *times = calloc(1, 1 << 22);

        for (size_t i = 0; i < reader.list.count; i++)
            if (reader.list.items[i].who == (uint64_t)who + 1)
                times[reader.list.items[i].number & ((1 << 22) - 1)]++;
        for (size_t i = 0; i < said.acked_count; i++)
            cr_assert(times[said.acked[i]] == 1,
                      "member %d: number %" PRIu64 " was acknowledged and is there %d times", who,
                      said.acked[i], times[said.acked[i]]);
        fprintf(stderr, "member %d: %zu acknowledged, %zu failed\n", who, said.acked_count,
                said.failed_count);
        free(times);
        said_free(&said);
    }
    member_close(&reader);
}

/* ---- the tests ---- */

static int leader_and_standby(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct member a, b, c;
    struct con_log_view view;
    uint64_t term, later;
    ch_time begin;

    member_open(env, &a, "a:1", false, 0);
    term = member_lead(&a);
    member_open(env, &b, "b:1", false, 0);
    for (uint64_t i = 1; i <= 50; i++)
        OK(member_propose(&a, i, 0));
    OK(member_propose(&a, 51, 1 << 20));
    OK(member_propose(&a, 52, 900000));
    FAILS(member_propose(&a, 53, (1 << 20) + 1), BASE_INVALID_ARGUMENT, "1048576");
    OK(con_log_read_barrier(a.log, ch_in(env, 5 * CH_S)));
    UNTIL(env, 5, con_log_applied(b.log) == 52);
    lists_equal(&a.list, &b.list);
    FAILS(member_propose(&b, 54, 0), BASE_FAILED_PRECONDITION, "not the leader; it is at a:1");
    FAILS(con_log_read_barrier(b.log, ch_in(env, 5 * CH_S)), BASE_FAILED_PRECONDITION,
          "not the leader; it is at a:1");
    cr_assert_str_eq(con_log_leader(b.log), "a:1");

    /* Membership is whoever runs. */
    con_log_look(a.log, &view);
    UNTIL(env, 5, (con_log_look(a.log, &view), view.count == 2));
    cr_assert(view.members[0].leads != view.members[1].leads && view.applied == 52);
    FAILS(con_log_add(a.log, &view.members[0].member, ch_in(env, CH_S)), BASE_UNIMPLEMENTED,
          "whoever runs");
    FAILS(con_log_remove(a.log, 1, ch_in(env, CH_S)), BASE_UNIMPLEMENTED, "whoever runs");
    FAILS(con_log_transfer(a.log, 12345, ch_in(env, CH_S)), BASE_NOT_FOUND, "12345");
    OK(con_log_transfer(a.log, 0, ch_in(env, 10 * CH_S)));
    cr_assert_eq(con_log_term(a.log), 0);
    cr_assert_eq(a.list.led, 0);
    later = member_lead(&b);
    cr_assert(later > term);
    OK(member_propose(&b, 55, 0));
    UNTIL(env, 5, con_log_applied(a.log) == 53);
    lists_equal(&a.list, &b.list);

    /* A close hands over at once: no lease is waited for. */
    begin = ch_now(env);
    member_close(&b);
    cr_assert(member_lead(&a) > later);
    cr_assert(ch_now(env) - begin < 2 * CH_S, "%lld ms",
              (long long)((ch_now(env) - begin) / CH_MS));
    member_open(env, &c, "c:1", true, 0);
    UNTIL(env, 5, con_log_applied(c.log) == 53);
    lists_equal(&a.list, &c.list);
    member_close(&a);
    member_close(&c);
    return 0;
}

static size_t keys_below(struct con_etcd *etcd, struct ch_env *env, const char *key) CH_WAITS;
static size_t keys_below(struct con_etcd *etcd, struct ch_env *env, const char *key)
{
    struct base_arena arena = { 0 };
    struct con_etcd_txn txn;
    Etcdserverpb__TxnResponse *response;
    const Etcdserverpb__RangeResponse *range;
    size_t count;

    con__etcd_txn_init(&txn, &arena);
    con__etcd_then_range(&txn, key, con__etcd_below(&arena, key), 0);
    OK(con__etcd_commit(etcd, &txn, ch_in(env, 10 * CH_S), &response, NULL));
    OK(con__etcd_found(response, 0, &range));
    count = range->n_kvs;
    base_arena_free(&arena);
    return count;
}

static int snapshots(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct con_etcd_keys keys;
    struct con_etcd *etcd;
    struct member a, b;

    OK(con__etcd_new(env, t.etcd.state, &etcd));
    con__etcd_keys(&keys, con__etcd_prefix(etcd), "list");
    member_open(env, &a, "a:1", false, 1 << 20);
    a.list.state_bytes = 1200000; /* three pieces */
    member_lead(&a);
    for (uint64_t i = 1; i <= 120; i++)
        OK(member_propose(&a, i, 64 << 10));
    /* 7.5 MiB of log in 120 batches; a state of 1.2 MB is saved about every 1.2 MB of it. */
    UNTIL(env, 10, keys_below(etcd, env, keys.snapshot) == 3);
    UNTIL(env, 10, keys_below(etcd, env, keys.log) < 60);
    OK(member_propose(&a, 121, 0));
    member_open(env, &b, "b:1", false, 1 << 20);
    b.list.state_bytes = a.list.state_bytes;
    UNTIL(env, 10, con_log_applied(b.log) == 121);
    lists_equal(&a.list, &b.list);
    member_close(&a);
    member_lead(&b);
    for (uint64_t i = 122; i <= 200; i++)
        OK(member_propose(&b, i, 64 << 10));
    member_open(env, &a, "a:1", true, 0);
    UNTIL(env, 10, con_log_applied(a.log) == 200);
    lists_equal(&a.list, &b.list);
    member_close(&a);
    member_close(&b);

    /* A batch that was tampered with is told, and who reads it gets no further. */
    struct base_arena arena = { 0 };
    OK(con__etcd_put(etcd, con__etcd_log_key(&arena, &keys, 201), BASE_BYTES_LIT("rubbish"),
                     ch_in(env, 5 * CH_S)));
    member_open(env, &a, "a:1", false, 0);
    UNTIL(env, 10, con_log_applied(a.log) == 200);
    (void)ch_sleep_until(env, ch_in(env, 500 * CH_MS)); /* it must not come to lead */
    cr_assert(con_log_term(a.log) == 0 && con_log_applied(a.log) == 200);
    member_close(&a);
    base_arena_free(&arena);
    con__etcd_free(etcd);
    return 0;
}

/* Waits until this member of the cluster answers for a quorum. */
static void etcd_up(struct ch_env *env, int i) CH_WAITS;
static void etcd_up(struct ch_env *env, int i)
{
    struct base_arena arena = { 0 };
    struct con_etcd *etcd;
    const Mvccpb__KeyValue *kv;
    char state[64];

    snprintf(state, sizeof state, "etcd://127.0.0.1:%d", t.etcd.port + 2 * i);
    OK(con__etcd_new(env, state, &etcd));
    OK(con__etcd_get(etcd, "x", ch_in(env, 20 * CH_S), &arena, &kv));
    con__etcd_free(etcd);
    base_arena_free(&arena);
}

static int etcd_members_die(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();

    process_start(0);
    process_start(1);
    goes_on(env);
    for (int i = 0; i < ETCD_MEMBERS; i++) { /* the leader of them is one of the three */
        ch_time took;

        etcd_kill(&t.etcd, i, SIGKILL);
        took = goes_on(env);
        fprintf(stderr, "etcd member %d killed: goes on after %lld ms\n", i,
                (long long)(took / CH_MS));
        etcd_start(&t.etcd, i, NULL);
        etcd_up(env, i);
        goes_on(env);
    }
    for (int i = 0; i < ETCD_MEMBERS; i++) {
        ch_time took;

        etcd_kill(&t.etcd, i, SIGSTOP);
        took = goes_on(env);
        fprintf(stderr, "etcd member %d paused: goes on after %lld ms\n", i,
                (long long)(took / CH_MS));
        etcd_kill(&t.etcd, i, SIGCONT);
        etcd_up(env, i);
        goes_on(env);
    }
    /* Without a quorum nothing is acknowledged; with one again it goes on. */
    etcd_kill(&t.etcd, 0, SIGKILL);
    etcd_kill(&t.etcd, 1, SIGKILL);
    (void)ch_sleep_until(env, ch_in(env, 6 * CH_S)); /* longer than a lease */
    size_t stuck = acked_count(0) + acked_count(1);
    (void)ch_sleep_until(env, ch_in(env, 500 * CH_MS));
    cr_assert_eq(acked_count(0) + acked_count(1), stuck);
    etcd_start(&t.etcd, 0, NULL);
    goes_on(env);
    process_kill(0, SIGTERM);
    process_kill(1, SIGTERM);
    check_history(env);
    return 0;
}

static int leading_processes_die(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();

    process_start(0);
    UNTIL(env, 20, acked_count(0) > 50);
    process_start(1);
    for (int round = 0; round < 2; round++) {
        int leader = round % 2, other = !leader;
        uint64_t before = term_of(leader);
        size_t acked = acked_count(other);
        ch_time begin = ch_now(env);

        process_kill(leader, SIGKILL);
        UNTIL(env, 15, acked_count(other) > acked + 20);
        fprintf(stderr, "leading process killed: goes on after %lld ms\n",
                (long long)((ch_now(env) - begin) / CH_MS));
        cr_assert(term_of(other) > before);
        process_start(leader);
        goes_on(env);
    }
    process_kill(0, SIGTERM);
    process_kill(1, SIGTERM);
    check_history(env);
    return 0;
}

/* A leader that was stopped for longer than its lease leads no more when it goes on. */
static int paused_leader(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct said before, after;

    process_start(0);
    UNTIL(env, 20, acked_count(0) > 50);
    process_start(1);
    (void)ch_sleep_until(env, ch_in(env, CH_S)); /* the second is there and follows */
    process_kill(0, SIGSTOP);
    UNTIL(env, 15, acked_count(1) > 50);
    before = said_read(0);
    process_kill(0, SIGCONT);
    goes_on(env);
    after = said_read(0);
    /* At most the eight in flight when it was stopped, which etcd had before, were acknowledged. */
    cr_assert(after.acked_count <= before.acked_count + 8, "%zu, then %zu", before.acked_count,
              after.acked_count);
    cr_assert(after.term == before.term && term_of(1) > before.term);
    process_kill(1, SIGTERM);
    UNTIL(env, 15, acked_count(0) > after.acked_count + 8);
    process_kill(0, SIGTERM);
    check_history(env);
    said_free(&before);
    said_free(&after);
    return 0;
}

/* A leader's writes that are held up on their way until another has led and written for long must
 * be refused when they arrive, or one index would be written twice, or out of order. */
static int late_writes(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct said before, after;
    int port = 0;

    t.proxy = etcd_proxy(&t.etcd, 0, &port);
    cr_assert(t.proxy > 0);
    snprintf(t.state, sizeof t.state, "etcd://127.0.0.1:%d/test", port);
    for (int round = 0; round < 3; round++) {
        process_start(0);
        before = said_read(0);
        UNTIL(env, 20, acked_count(0) > before.acked_count + 50);
        process_start(1);
        (void)ch_sleep_until(env, ch_in(env, CH_S)); /* the second is there and follows */
        size_t others = acked_count(1);
        size_t failed = before.failed_count;
        kill(t.proxy, SIGUSR1);
        said_free(&before);
        (void)ch_sleep_until(env, ch_in(env, 300 * CH_MS)); /* its next write is on its way */
        process_kill(0, SIGSTOP);                           /* and it cannot take it back */
        UNTIL(env, 15, acked_count(1) > others + 50);
        before = said_read(0);
        kill(t.proxy, SIGUSR1);
        goes_on(env);
        process_kill(0, SIGCONT);
        UNTIL(env, 15, failed_count(0) > failed); /* it tells its proposers */
        after = said_read(0);
        cr_assert(
            after.acked_count == before.acked_count && term_of(1) > after.term,
            "round %d: %zu then %zu acknowledged, terms %" PRIu64 " %" PRIu64 " then %" PRIu64,
            round, before.acked_count, after.acked_count, before.term, after.term, term_of(1));
        said_free(&before);
        said_free(&after);
        process_kill(1, SIGTERM);
        process_kill(0, SIGTERM);
    }
    check_history(env);
    return 0;
}

/* Others fill the database too: etcd then finds out that it is full while it carries a write out,
 * and answers as if it had not. */
static void junk_writer(void *arg)
{
    CH_FIBER_ENTRY();
    static uint8_t junk[200000];
    struct base_status status = BASE_STATUS_OK;
    char key[32];

    for (int i = 0; i < 1000 && !base_failed(status); i++) {
        snprintf(key, sizeof key, "/junk/%p/%d", (void *)&key, i);
        status = con__etcd_put(arg, key, base_bytes(junk, sizeof junk),
                               ch_in(ch_fiber_env(), 10 * CH_S));
    }
    base_status_free(&status);
}

static int full(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct base_status status = BASE_STATUS_OK;
    struct member a, b;
    struct con_etcd *etcd;
    struct ch_gather others;
    uint64_t number = 0;

    member_open(env, &a, "a:1", false, 1 << 30);
    member_lead(&a);
    OK(con__etcd_new(env, t.etcd.state, &etcd));
    ch_gather_init(&others, "others");
    for (int i = 0; i < 4; i++)
        ch_gather_add(&others, junk_writer, etcd);
    while (!base_failed(status) && number < 1000)
        status = member_propose(&a, ++number, 100000);
    ch_gather_wait(&others);
    con__etcd_free(etcd);
    cr_assert(status.code == BASE_RESOURCE_EXHAUSTED &&
                  strstr(base_status_text(&status), "database space exceeded") &&
                  strstr(base_status_text(&status), "127.0.0.1:"),
              "%" PRIu64 ": %s %s", number, base_code_name(status.code), base_status_text(&status));
    base_status_free(&status);
    /* What was acknowledged can be read, and it still leads. */
    OK(con_log_read_barrier(a.log, ch_in(env, 5 * CH_S)));
    cr_assert_eq(con_log_applied(a.log), number - 1);
    member_open(env, &b, "b:1", true, 0);
    UNTIL(env, 10, con_log_applied(b.log) >= number - 1);
    (void)ch_sleep_until(env, ch_in(env, 200 * CH_MS)); /* there must not be more */
    lists_equal(&a.list, &b.list);
    member_close(&a);
    member_close(&b);
    return 0;
}

static int unreachable(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct member a;
    uint64_t term;
    ch_time begin;

    snprintf(t.etcd.state, sizeof t.etcd.state, "etcd://127.0.0.1:1,127.0.0.1:2");
    member_open(env, &a, "a:1", false, 0);
    cr_assert(con_log_wait_lead(a.log, ch_in(env, 300 * CH_MS), &term) == CH_TIMEOUT);
    FAILS(member_propose(&a, 1, 0), BASE_FAILED_PRECONDITION, "not the leader; none is known");
    begin = ch_now(env);
    member_close(&a);
    cr_assert(ch_now(env) - begin < 3 * CH_S);

    struct con_machine machine = list_machine_of(&a.list);
    struct con_log_options options = { .group = "list", .self = "a:1" };
    static const char *const bad[][2] = {
        { "zookeeper://127.0.0.1:1", "etcd://" },
        { "etcd://", "host:port" },
        { "etcd://127.0.0.1:1,", "host:port" },
        { "etcd://localhost/x", "localhost" },
        { "etcd://a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1,j:1", "9 endpoints" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        options.state = bad[i][0];
        FAILS(con_log_open(env, &options, &machine, &a.log), BASE_INVALID_ARGUMENT, bad[i][1]);
    }
    options.state = "etcd://127.0.0.1:1";
    options.group = NULL;
    FAILS(con_log_open(env, &options, &machine, &a.log), BASE_INVALID_ARGUMENT, "group");
    return 0;
}

static void setup_with(const char *flag)
{
    ssize_t n = readlink("/proc/self/exe", t.bin, sizeof t.bin - 1);

    cr_assert(n > 0);
    *strrchr(t.bin, '/') = 0;
    snprintf(t.dir, sizeof t.dir, "/tmp/process_con_etcd.XXXXXX");
    cr_assert(mkdtemp(t.dir) != 0);
    if (!etcd_installed())
        return;
    etcd_cluster_init(&t.etcd, t.dir);
    for (int i = 0; i < ETCD_MEMBERS; i++)
        etcd_start(&t.etcd, i, flag);
}

static void setup(void)
{
    setup_with(NULL);
}

static void setup_small(void)
{
    setup_with("--quota-backend-bytes=16777216");
}

static void teardown(void)
{
    char command[200];

    for (int i = 0; i < PROCESSES; i++)
        if (t.pids[i] > 0)
            process_kill(i, SIGKILL);
    if (t.proxy > 0) {
        kill(t.proxy, SIGKILL);
        waitpid(t.proxy, NULL, 0);
    }
    etcd_cluster_end(&t.etcd);
    snprintf(command, sizeof command, "rm -rf '%s'", t.dir);
    cr_assert_eq(system(command), 0);
}

static void run(ch_main_fn *fn)
{
    if (!etcd_installed())
        cr_skip_test("etcd-server is not installed (tools/packages.txt)");
    cr_assert_eq(ch_env_run(fn, 0), 0);
}

Test(log_etcd, leader_and_standby, .init = setup, .fini = teardown)
{
    run(leader_and_standby);
}
Test(log_etcd, snapshots, .init = setup, .fini = teardown)
{
    run(snapshots);
}
Test(log_etcd, etcd_members_die, .init = setup, .fini = teardown)
{
    run(etcd_members_die);
}
Test(log_etcd, leading_processes_die, .init = setup, .fini = teardown)
{
    run(leading_processes_die);
}
Test(log_etcd, paused_leader, .init = setup, .fini = teardown)
{
    run(paused_leader);
}
Test(log_etcd, late_writes, .init = setup, .fini = teardown)
{
    run(late_writes);
}
Test(log_etcd, full, .init = setup_small, .fini = teardown)
{
    run(full);
}
Test(log_etcd, unreachable, .init = setup, .fini = teardown)
{
    run(unreachable);
}
