/* Logs that live in etcd, in processes of their own, against three members of Debian's etcd-server.
 * What must hold: what was acknowledged is there once and in order, whichever etcd member or
 * leading process is killed, cut short or paused; and who has lost the lead can write no more,
 * however it missed the news. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "etcd_world.h"

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

/* How often the leadership has changed since `*seen`, the newest term known then. */
static int lead_changed(uint64_t *seen)
{
    uint64_t term = term_of(0) > term_of(1) ? term_of(0) : term_of(1);
    bool changed = term != *seen;

    *seen = term;
    return changed;
}

/* One member of etcd after the other, its leader among them, is lost and comes back; returns how
 * often another process came to lead, which need not be: no lease ends while etcd has no leader. */
static int each_lost(struct ch_env *env, int lose, int rounds, uint64_t *term) CH_WAITS;
static int each_lost(struct ch_env *env, int lose, int rounds, uint64_t *term)
{
    int changes = 0;

    for (int i = 0; i < rounds; i++) {
        int which = i % ETCD_MEMBERS, now;
        ch_time took;

        etcd_kill(&t.etcd, which, lose);
        took = goes_on(env);
        if (lose == SIGKILL)
            etcd_start(&t.etcd, which, NULL);
        else
            etcd_kill(&t.etcd, which, SIGCONT);
        etcd_up(env, which);
        goes_on(env);
        now = lead_changed(term);
        changes += now;
        fprintf(stderr, "etcd member %d %s: goes on after %lld ms%s\n", which,
                lose == SIGKILL ? "killed" : "paused", (long long)(took / CH_MS),
                now ? ", led by another" : "");
    }
    return changes;
}

static int etcd_members_die(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    int rounds = getenv("STRATA_ROUNDS") ? atoi(getenv("STRATA_ROUNDS")) : ETCD_MEMBERS;
    uint64_t term = 0;
    int changes;

    process_start(0);
    process_start(1);
    goes_on(env);
    (void)lead_changed(&term);
    changes = each_lost(env, SIGKILL, rounds, &term);
    fprintf(stderr, "%d etcd members killed: led by another %d times\n", rounds, changes);
    cr_assert(changes <= 1 + rounds / 10, "%d of %d", changes, rounds);
    changes = each_lost(env, SIGSTOP, rounds, &term);
    fprintf(stderr, "%d etcd members paused: led by another %d times\n", rounds, changes);
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

/* All of etcd stands still for longer than a lease: it may end them all when it goes on. Whoever
 * has lost its own asks for another at once, and somebody leads. */
static int etcd_stands_still(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    ch_time took;

    process_start(0);
    process_start(1);
    goes_on(env);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < ETCD_MEMBERS; i++)
            etcd_kill(&t.etcd, i, SIGSTOP);
        (void)ch_sleep_until(env, ch_in(env, (2 + 2 * round) * CH_S));
        for (int i = 0; i < ETCD_MEMBERS; i++)
            etcd_kill(&t.etcd, i, SIGCONT);
        took = goes_on(env);
        fprintf(stderr, "etcd stood still for %d s: goes on after %lld ms more\n", 2 + 2 * round,
                (long long)(took / CH_MS));
        (void)ch_sleep_until(env, ch_in(env, CH_S)); /* every member is there again */
    }
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

/* The leading process and a member of etcd, its leader sooner or later, die in the same moment: the
 * lease is given its whole time anew by etcd's next leader, and then ends. */
static int both_die(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    int leader = 0;

    process_start(0);
    UNTIL(env, 20, acked_count(0) > 50);
    process_start(1);
    for (int i = 0; i < ETCD_MEMBERS; i++, leader = !leader) {
        size_t acked = acked_count(!leader);
        ch_time begin;

        (void)ch_sleep_until(env, ch_in(env, CH_S)); /* the other is there and follows */
        begin = ch_now(env);
        etcd_kill(&t.etcd, i, SIGKILL);
        process_kill(leader, SIGKILL);
        UNTIL(env, 20, acked_count(!leader) > acked + 20);
        fprintf(stderr, "leading process and etcd member %d killed: goes on after %lld ms\n", i,
                (long long)((ch_now(env) - begin) / CH_MS));
        etcd_start(&t.etcd, i, NULL);
        etcd_up(env, i);
        process_start(leader);
        goes_on(env);
    }
    process_kill(0, SIGTERM);
    process_kill(1, SIGTERM);
    check_history(env);
    return 0;
}

/* A leader's lease is no shorter than one and a half of etcd's election timeouts: where those are
 * long it is followed later, and all else is the same. */
static int patient_etcd(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    size_t acked;
    ch_time took;

    process_start(0);
    UNTIL(env, 40, acked_count(0) > 50);
    process_start(1);
    (void)ch_sleep_until(env, ch_in(env, CH_S)); /* the second is there and follows */
    acked = acked_count(1);
    took = ch_now(env);
    process_kill(0, SIGKILL);
    UNTIL(env, 20, acked_count(1) > acked + 20);
    took = (ch_now(env) - took) / CH_MS;
    fprintf(stderr,
            "etcd's election timeout is 3 s; leading process killed: goes on after %lld "
            "ms\n",
            (long long)took);
    cr_assert(took > 3500, "%lld ms: the lease was to be 5 s", (long long)took);
    process_kill(1, SIGTERM);
    check_history(env);
    return 0;
}

/* A leader that is cut off from etcd, and from nothing else, gives up about when another begins:
 * it tells its proposers, and what it had sent is refused when it arrives at last. */
static int deaf_leader(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    ch_time begin, told = 0, followed = 0;
    size_t failed, others;
    int port = 0;

    t.proxy = etcd_proxy(&t.etcd, 0, &port);
    cr_assert(t.proxy > 0);
    snprintf(t.state, sizeof t.state, "etcd://127.0.0.1:%d/test", port);
    process_start(0);
    UNTIL(env, 20, acked_count(0) > 50);
    process_start(1);
    (void)ch_sleep_until(env, ch_in(env, CH_S)); /* the second is there and follows */
    failed = failed_count(0);
    others = acked_count(1);
    begin = ch_now(env);
    kill(t.proxy, SIGUSR1);
    UNTIL(env, 15,
          (told = told || failed_count(0) <= failed ? told : ch_now(env),
           followed = followed || acked_count(1) <= others ? followed : ch_now(env),
           told && followed));
    fprintf(stderr,
            "leader cut off from etcd: it tells its proposers after %lld ms, another leads "
            "after %lld ms\n",
            (long long)((told - begin) / CH_MS), (long long)((followed - begin) / CH_MS));
    cr_assert(told - begin < 5 * CH_S, "it told its proposers after %lld ms",
              (long long)((told - begin) / CH_MS));
    kill(t.proxy, SIGUSR1);
    goes_on(env);
    cr_assert(term_of(1) > term_of(0));
    process_kill(1, SIGTERM);
    process_kill(0, SIGTERM);
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

Test(log_etcd, etcd_members_die, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(etcd_members_die);
}
Test(log_etcd, etcd_stands_still, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(etcd_stands_still);
}
Test(log_etcd, both_die, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(both_die);
}
Test(log_etcd, patient_etcd, .init = etcd_setup_patient, .fini = etcd_teardown)
{
    etcd_run(patient_etcd);
}
Test(log_etcd, deaf_leader, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(deaf_leader);
}
Test(log_etcd, leading_processes_die, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(leading_processes_die);
}
Test(log_etcd, paused_leader, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(paused_leader);
}
Test(log_etcd, late_writes, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(late_writes);
}
