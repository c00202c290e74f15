/* The client of names and locks, against three simulated masters of which one leads: it finds the
 * leader, its watches miss nothing for good, and it never thinks it holds a lock that the master
 * may have given to another. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/naming.h"
#include "chassis/sim.h"
#include "fake_names.h"
#include "test.h"

enum { MEMBERS = 3 };
static const char masters[] = "10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000";
static const char *const hosts[MEMBERS] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" };

static struct fake_names names;
static struct fake_member members[MEMBERS];
static struct ch_sim *sim;
static struct ch_sim_node *nodes[MEMBERS];

static int member_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct fake_member *member = arg;
    char address[32];
    snprintf(address, sizeof(address), "%s:7000", hosts[member->index]);
    const struct ch_server_options options = { .address = address };
    member->env = env;
    member->names = &names;
    if (base_failed(ch_server_new(env, &options, &member->server)))
        abort();
    fake_names_serve(member);
    if (base_failed(ch_server_start(member->server)))
        abort();
    ch_server_set_serving(member->server, true);
    (void)ch_sleep_until(env, CH_NEVER);
    ch_server_stop(member->server, ch_in(env, CH_S));
    return 0;
}

static void member_start(int index)
{
    members[index].index = index;
    ch_sim_start(nodes[index], member_main, &members[index]);
}

/* Runs body on a fiber of the tester's node, in a world with the three masters. */
static void run(ch_fiber_fn *body)
{
    sim = ch_sim_new(ch_sim_seed(7));
    for (int i = 0; i < MEMBERS; i++) {
        nodes[i] = ch_sim_node(sim, hosts[i], hosts[i]);
        member_start(i);
    }
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 10 * CH_MS);
    ch_sim_do(sim, body, ch_sim_tester_env(sim), ch_sim_now(sim) + 600 * CH_S);
    ch_sim_free(sim);
}

static void ok(struct base_status status)
{
    cr_assert(!base_failed(status), "%s: %s", base_code_name(status.code),
              base_status_text(&status));
}

static void fails(struct base_status status, enum base_code code)
{
    cr_assert_eq(status.code, code, "%s: %s", base_code_name(status.code),
                 base_status_text(&status));
    base_status_free(&status);
}

static ch_time soon(struct ch_env *env)
{
    return ch_in(env, 10 * CH_S);
}

/* ---- reading and writing ---- */

static void read_and_write(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *naming = ch_naming_new(env, masters);
    struct base_arena arena = { 0 };
    struct ch_name_entry *entries, entry;
    size_t count;
    uint64_t version = 0;
    ok(ch_name_set(naming, "/c/b", BASE_BYTES_LIT("1"), 0, false, soon(env), &version));
    ok(ch_name_set(naming, "/c/a", BASE_BYTES_LIT("2"), CH_NAME_ANY, false, soon(env), NULL));
    ok(ch_name_set(naming, "/cx", BASE_BYTES_LIT("3"), CH_NAME_ANY, false, soon(env), NULL));
    fails(ch_name_set(naming, "/c/b", BASE_BYTES_LIT("4"), 0, false, soon(env), NULL),
          BASE_FAILED_PRECONDITION);
    ok(ch_name_set(naming, "/c/b", BASE_BYTES_LIT("5"), (int64_t)version, false, soon(env), NULL));
    ok(ch_name_list(naming, "/c", soon(env), &arena, &entries, &count));
    cr_assert_eq(count, 2);
    cr_assert_str_eq(entries[0].path, "/c/a");
    cr_assert(base_bytes_eq_str(entries[1].value, "5") && entries[1].healthy && !entries[1].locked);
    ok(ch_name_get(naming, "/c/a", soon(env), &arena, &entry));
    cr_assert(base_bytes_eq_str(entry.value, "2"));
    fails(ch_name_get(naming, "/c", soon(env), &arena, &entry), BASE_NOT_FOUND);
    ok(ch_name_delete(naming, "/c/a", CH_NAME_ANY, soon(env)));
    fails(ch_name_delete(naming, "/c/a", CH_NAME_ANY, soon(env)), BASE_NOT_FOUND);
    base_arena_free(&arena);
    ch_naming_free(naming);
}

Test(naming, names_are_read_and_written_with_versions)
{
    run(read_and_write);
}

static void follow_leader(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *naming = ch_naming_new(env, masters);
    for (int i = 0; i < 7; i++) {
        names.leader = (i * 2) % MEMBERS;
        names.hint = i > 3;
        names.leader_address = names.leader == 0   ? "10.0.0.1:7000"
                               : names.leader == 1 ? "10.0.0.2:7000"
                                                   : "10.0.0.3:7000";
        ok(ch_name_set(naming, "/x", BASE_BYTES_LIT("v"), CH_NAME_ANY, false, soon(env), NULL));
    }
    names.leader = -1; /* an election */
    ch_time before = ch_now(env);
    fails(ch_name_set(naming, "/x", BASE_BYTES_LIT("v"), CH_NAME_ANY, false, ch_in(env, 2 * CH_S),
                      NULL),
          BASE_DEADLINE_EXCEEDED);
    cr_assert_leq(ch_now(env) - before, 2 * CH_S);
    names.leader = 2;
    ok(ch_name_set(naming, "/x", BASE_BYTES_LIT("v"), CH_NAME_ANY, false, soon(env), NULL));
    cr_assert_eq(names.version, 8, "a write was done twice or not at all: %d", (int)names.version);
    ch_naming_free(naming);
}

Test(naming, calls_follow_the_leader_and_end_by_their_deadline)
{
    run(follow_leader);
}

/* ---- watches ---- */

static void expect(struct ch_name_watch *watch, uint64_t *generation, const char *what,
                   ch_time deadline) CH_WAITS;
/* Waits until the watch shows exactly "path=value …". */
static void expect(struct ch_name_watch *watch, uint64_t *generation, const char *what,
                   ch_time deadline)
{
    char shown[512];
    for (;;) {
        size_t count, len = 0;
        shown[0] = '\0';
        const struct ch_name_entry *entries = ch_name_watch_entries(watch, &count);
        for (size_t i = 0; i < count; i++)
            len += (size_t)snprintf(shown + len, sizeof(shown) - len, "%s%s=%.*s", i ? " " : "",
                                    entries[i].path, BASE_FMT(entries[i].value));
        if (*generation && strcmp(shown, what) == 0)
            return;
        cr_assert_eq(ch_name_watch_wait(watch, generation, deadline), CH_OK,
                     "shows \"%s\", never \"%s\"", shown, what);
    }
}

static void watching(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *naming = ch_naming_new(env, masters);
    struct ch_name_watch *watch = ch_name_watch(naming, "/t"),
                         *nothing = ch_name_watch(naming, "/none");
    uint64_t generation = 0, none = 0;
    ok(ch_name_set(naming, "/t/1", BASE_BYTES_LIT("a"), CH_NAME_ANY, false, soon(env), NULL));
    expect(watch, &generation, "/t/1=a", soon(env));
    expect(nothing, &none, "", soon(env)); /* the first state counts, empty as it is */
    ok(ch_name_set(naming, "/t/0", BASE_BYTES_LIT("b"), CH_NAME_ANY, false, soon(env), NULL));
    ok(ch_name_set(naming, "/other", BASE_BYTES_LIT("x"), CH_NAME_ANY, false, soon(env), NULL));
    expect(watch, &generation, "/t/0=b /t/1=a", soon(env));
    ok(ch_name_delete(naming, "/t/1", CH_NAME_ANY, soon(env)));
    ok(ch_name_set(naming, "/t/2", BASE_BYTES_LIT("c"), CH_NAME_ANY, false, soon(env), NULL));
    expect(watch, &generation, "/t/0=b /t/2=c", soon(env));
    cr_assert_eq(ch_name_watch_wait(watch, &generation, ch_in(env, 20 * CH_S)), CH_TIMEOUT,
                 "heartbeats are no changes");

    /* All masters go; what was seen stays. They come back changed: only the comparison can tell. */
    names.leader = -1;
    struct fake_node *two = fake_node_find(&names, "/t/2");
    strcpy(two->value, "d");
    two->version = ++names.version;
    fake_node_find(&names, "/t/0")->version = 0;
    (void)ch_sleep_until(env, ch_in(env, 30 * CH_S));
    expect(watch, &generation, "/t/0=b /t/2=c", ch_now(env));
    names.leader = 1;
    expect(watch, &generation, "/t/2=d", soon(env));
    ch_name_watch_free(watch);
    ch_name_watch_free(nothing);
    ch_naming_free(naming);
}

Test(naming, a_watch_shows_every_change_and_survives_the_masters)
{
    run(watching);
}

static void silent(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *naming = ch_naming_new(env, masters);
    struct ch_name_watch *watch = ch_name_watch(naming, "/t");
    uint64_t generation = 0;
    expect(watch, &generation, "", soon(env));
    /* The leader's machine goes dark without a word: no reset, no end of the stream. Another
     * leads now. */
    ch_sim_pause(nodes[0], true);
    names.leader = 2;
    ok(ch_name_set(naming, "/t/1", BASE_BYTES_LIT("a"), CH_NAME_ANY, false, soon(env), NULL));
    expect(watch, &generation, "/t/1=a", ch_in(env, 30 * CH_S));
    ch_sim_pause(nodes[0], false);
    ch_name_watch_free(watch);
    ch_naming_free(naming);
}

Test(naming, a_watch_that_hears_nothing_asks_another_master)
{
    run(silent);
}

/* ---- locks ---- */

static void lock_and_wait(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *a = ch_naming_new(env, masters), *b = ch_naming_new(env, masters);
    struct ch_lock *first, *second;
    ok(ch_lock_acquire(a, "/l", BASE_BYTES_LIT("a:1"), soon(env), &first));
    cr_assert(ch_lock_held(first) && ch_lock_epoch(first) > 0);
    cr_assert_str_eq(fake_node_find(&names, "/l")->value, "a:1");
    fails(ch_lock_acquire(b, "/l", BASE_BYTES_LIT("b:1"), ch_in(env, 9 * CH_S), &second),
          BASE_DEADLINE_EXCEEDED);
    cr_assert(ch_lock_held(first), "the session was not kept alive over two leases");
    fails(ch_lock_break(b, "/l", false, soon(env), NULL), BASE_FAILED_PRECONDITION);
    uint64_t epoch = ch_lock_epoch(first), broken = 0;
    ch_lock_free(first);
    ok(ch_lock_acquire(b, "/l", BASE_BYTES_LIT("b:2"), ch_in(env, 100 * CH_MS), &second));
    cr_assert_gt(ch_lock_epoch(second), epoch);
    cr_assert_eq(ch_lock_wait_lost(second, ch_in(env, 20 * CH_S)), CH_TIMEOUT);
    epoch = ch_lock_epoch(second);
    ch_lock_free(second);
    ok(ch_lock_break(a, "/l", true, soon(env), &broken));
    cr_assert_gt(broken, epoch);
    ch_naming_free(a);
    ch_naming_free(b);
}

Test(naming, a_lock_has_one_holder_and_a_growing_epoch)
{
    run(lock_and_wait);
}

static void lose(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *a = ch_naming_new(env, "10.0.0.1:7000,10.0.0.2:7000");
    struct ch_lock *lock;
    ok(ch_lock_acquire(a, "/l", BASE_BYTES_LIT("a"), soon(env), &lock));
    (void)ch_sleep_until(env, ch_in(env, 3700 * CH_MS));
    cr_assert(ch_lock_held(lock));
    for (int i = 0; i < MEMBERS; i++)
        ch_sim_pause(nodes[i], true);
    ch_time paused = ch_now(env), until = ch_lock_valid_until(lock);
    cr_assert_leq(until, paused + CH_SESSION_LEASE_MS * CH_MS);
    cr_assert_eq(ch_lock_wait_lost(lock, ch_in(env, 60 * CH_S)), CH_CLOSED);
    cr_assert(!ch_lock_held(lock) && ch_now(env) >= until && ch_now(env) <= until + CH_MS);
    for (int i = 0; i < MEMBERS; i++)
        ch_sim_pause(nodes[i], false);
    /* The master finds the lease over only now, and not before this side did. */
    struct ch_lock *again;
    ok(ch_lock_acquire(a, "/l", BASE_BYTES_LIT("a2"), soon(env), &again));
    cr_assert(names.last_ended >= until, "the master ended the session before the client knew");
    cr_assert(!ch_lock_held(lock), "a lost lock came back");
    cr_assert_gt(ch_lock_epoch(again), ch_lock_epoch(lock));
    ch_lock_free(lock);
    cr_assert(ch_lock_held(again), "freeing the lost one released the new one");
    ch_lock_free(again);
    ch_naming_free(a);
}

Test(naming, a_lock_is_lost_here_before_the_master_gives_it_away)
{
    run(lose);
}

struct contender {
    struct ch_env *env;
    struct ch_naming *naming;
    int *holders, *turns;
};

static void contend(void *arg)
{
    CH_FIBER_ENTRY();
    struct contender *self = arg;
    for (int i = 0; i < 5; i++) {
        struct ch_lock *lock;
        ok(ch_lock_acquire(self->naming, "/l", BASE_BYTES_LIT("x"), ch_in(self->env, 60 * CH_S),
                           &lock));
        cr_assert_eq(++*self->holders, 1, "two hold the lock");
        (void)ch_sleep_until(self->env, ch_in(self->env, 50 * CH_MS));
        --*self->holders;
        ++*self->turns;
        ch_lock_free(lock);
    }
}

static void contention(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *a = ch_naming_new(env, masters), *b = ch_naming_new(env, masters);
    int holders = 0, turns = 0;
    struct contender contenders[4] = { { env, a, &holders, &turns },
                                       { env, a, &holders, &turns },
                                       { env, b, &holders, &turns },
                                       { env, b, &holders, &turns } };
    struct ch_gather gather;
    ch_gather_init(&gather, "contenders");
    for (int i = 0; i < 4; i++)
        ch_gather_add(&gather, contend, &contenders[i]);
    ch_gather_wait(&gather);
    cr_assert_eq(turns, 20);
    ch_naming_free(a);
    ch_naming_free(b);
}

Test(naming, fibers_of_one_process_exclude_each_other_too)
{
    run(contention);
}

static void lost_answer(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *a = ch_naming_new(env, masters), *b = ch_naming_new(env, masters);
    struct ch_lock *warm, *lock;
    ok(ch_lock_acquire(a, "/warm", BASE_BYTES_LIT("a"), soon(env),
                       &warm)); /* a session that will live on */
    ch_sim_net_delay(sim, 400 * CH_MS, 400 * CH_MS);
    /* Granted at 400 ms; the answer would come at 800. */
    fails(ch_lock_acquire(a, "/l", BASE_BYTES_LIT("a"), ch_in(env, 500 * CH_MS), &lock),
          BASE_DEADLINE_EXCEEDED);
    ch_sim_net_delay(sim, CH_MS / 10, CH_MS / 2);
    ok(ch_lock_acquire(b, "/l", BASE_BYTES_LIT("b"), ch_in(env, 3 * CH_S),
                       &lock)); /* sooner than any lease ends */
    cr_assert(ch_lock_held(warm));
    ch_lock_free(lock);
    ok(ch_lock_acquire(a, "/l", BASE_BYTES_LIT("a"), soon(env), &lock));
    ch_lock_free(lock);
    ch_lock_free(warm);
    ch_naming_free(a);
    ch_naming_free(b);
}

Test(naming, a_grant_whose_answer_was_lost_is_given_back)
{
    run(lost_answer);
}

struct cancelled {
    struct ch_env *env;
    struct ch_lock *lock;
};

static void free_when_cancelled(void *arg)
{
    CH_FIBER_ENTRY();
    struct cancelled *self = arg;
    cr_assert_eq(ch_lock_wait_lost(self->lock, CH_NEVER), CH_CANCELLED);
    ch_lock_free(self->lock);
}

static void cancelled_free(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *a = ch_naming_new(env, masters), *b = ch_naming_new(env, masters);
    struct cancelled self = { .env = env };
    struct ch_lock *lock;
    struct ch_gate gate;
    ch_gate_init(&gate, env, "test");
    ok(ch_lock_acquire(a, "/l", BASE_BYTES_LIT("a"), soon(env), &self.lock));
    ok(ch_gate_spawn(&gate, "holder", free_when_cancelled, &self));
    ch_yield();
    ch_gate_stop(&gate);
    ok(ch_lock_acquire(b, "/l", BASE_BYTES_LIT("b"), ch_in(env, 100 * CH_MS), &lock));
    ch_lock_free(lock);
    ch_naming_free(a);
    ch_naming_free(b);
}

Test(naming, a_cancelled_fiber_still_releases_its_lock)
{
    run(cancelled_free);
}

static void ephemeral(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *a = ch_naming_new(env, masters), *b = ch_naming_new(env, masters);
    struct base_arena arena = { 0 };
    struct ch_name_entry entry;
    ok(ch_name_set(a, "/e", BASE_BYTES_LIT("x"), CH_NAME_ANY, true, soon(env), NULL));
    (void)ch_sleep_until(env, ch_in(env, 20 * CH_S));
    ok(ch_name_get(b, "/e", soon(env), &arena, &entry));
    /* The masters forgot the session; the client hears of it from the refusal, and takes another.
     * */
    names.sessions[0].id = 0;
    ok(ch_name_set(a, "/e", BASE_BYTES_LIT("y"), CH_NAME_ANY, true, soon(env), NULL));
    ch_naming_free(a); /* ends the session */
    fails(ch_name_get(b, "/e", soon(env), &arena, &entry), BASE_NOT_FOUND);
    base_arena_free(&arena);
    ch_naming_free(b);
}

Test(naming, an_ephemeral_node_lives_as_long_as_its_session)
{
    run(ephemeral);
}

/* ---- all of it, with everything going wrong ---- */

enum { HOLDERS = 3 };
static struct holder {
    struct ch_sim_node *node;
    struct ch_lock *lock;
    int turns;
} holders[HOLDERS];
static uint64_t epoch_last;
static const char *const holder_hosts[HOLDERS] = { "10.0.1.1", "10.0.1.2", "10.0.1.3" };

static void one_holder_at_most(void)
{
    int held = 0;
    for (int i = 0; i < HOLDERS; i++)
        held += holders[i].lock && ch_lock_held(holders[i].lock);
    cr_assert_leq(held, 1, "%d hold the lock", held);
}

static int holder_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct holder *self = arg;
    struct ch_naming *naming = ch_naming_new(env, masters);
    while (!ch_cancelled()) {
        struct base_status status =
            ch_lock_acquire(naming, "/l", BASE_BYTES_LIT("x"), ch_in(env, 5 * CH_S), &self->lock);
        if (base_status_drop(status) != BASE_OK)
            continue;
        one_holder_at_most();
        cr_assert(!ch_lock_held(self->lock) || ch_lock_epoch(self->lock) > epoch_last,
                  "an epoch came back");
        epoch_last = ch_lock_epoch(self->lock);
        self->turns++;
        ch_time until = ch_in(env, (ch_time)ch_random_below(env, 5 * CH_S));
        while (ch_now(env) < until && ch_lock_held(self->lock) && !ch_cancelled()) {
            (void)ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 20 * CH_MS)));
            one_holder_at_most();
        }
        struct ch_lock *lock = self->lock;
        self->lock = NULL;
        ch_lock_free(lock);
    }
    ch_naming_free(naming);
    return 0;
}

/* Two seconds of one random fault, then none for up to two. */
static void one_fault(struct ch_env *env) CH_WAITS;
static void one_fault(struct ch_env *env)
{
    int member = (int)ch_random_below(env, MEMBERS), holder = (int)ch_random_below(env, HOLDERS);
    struct ch_sim_node *paused = NULL;
    switch (ch_random_below(env, 6)) {
    case 0:
        ch_sim_net_cut(sim, holder_hosts[holder], hosts[member], true);
        break;
    case 1:
        ch_sim_net_cut(sim, hosts[member], holder_hosts[holder], true); /* answers only */
        break;
    case 2:
        paused = nodes[member];
        break;
    case 3:
        paused = holders[holder].node;
        break;
    case 4:
        names.leader = (int)ch_random_below(env, MEMBERS + 1) - 1; /* or none */
        break;
    case 5:
        ch_sim_net_flaky(sim, 100000);
        break;
    }
    if (paused)
        ch_sim_pause(paused, true);
    (void)ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 6 * CH_S)));
    if (paused)
        ch_sim_pause(paused, false);
    ch_sim_net_heal(sim);
    if (names.leader < 0)
        names.leader = member;
    (void)ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 2 * CH_S)));
}

static void trouble(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    for (ch_time end = ch_in(env, 400 * CH_S); ch_now(env) < end;)
        one_fault(env);
    (void)ch_sleep_until(env, ch_in(env, 30 * CH_S));
}

Test(naming, whatever_happens_two_never_hold_a_lock_and_someone_gets_it_again)
{
    sim = ch_sim_new(ch_sim_seed(7));
    for (int i = 0; i < MEMBERS; i++) {
        nodes[i] = ch_sim_node(sim, hosts[i], hosts[i]);
        member_start(i);
    }
    for (int i = 0; i < HOLDERS; i++) {
        holders[i].node = ch_sim_node(sim, holder_hosts[i], holder_hosts[i]);
        ch_sim_start(holders[i].node, holder_main, &holders[i]);
    }
    ch_sim_do(sim, trouble, ch_sim_tester_env(sim), ch_sim_now(sim) + 600 * CH_S);
    for (int i = 0; i < HOLDERS; i++)
        cr_assert_gt(holders[i].turns, 3, "holder %d had %d turns", i, holders[i].turns);
    ch_sim_free(sim);
}

/* ---- over gRPC ---- */

static int real_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct fake_member member = { .names = &names, .env = env, .index = 0 };
    const struct ch_server_options options = { .address = "127.0.0.1:0" };
    struct ch_lock *lock;
    uint64_t generation = 0;
    ok(ch_server_new(env, &options, &member.server));
    fake_names_serve(&member);
    ok(ch_server_start(member.server));
    ch_server_set_serving(member.server, true);
    struct ch_naming *naming = ch_naming_new(env, ch_server_address(member.server));
    struct ch_name_watch *watch = ch_name_watch(naming, "/");
    ok(ch_lock_acquire(naming, "/l", BASE_BYTES_LIT("me"), soon(env), &lock));
    struct ch_name_watch *one = ch_name_watch(naming, "/l");
    expect(one, &generation, "/l=me", soon(env));
    cr_assert(ch_lock_held(lock));
    ch_lock_free(lock);
    ch_name_watch_free(one);
    ch_name_watch_free(watch);
    ch_naming_free(naming);
    ch_server_stop(member.server, ch_in(env, 2 * CH_S));
    return 0;
}

Test(naming, it_works_over_grpc, .timeout = 30)
{
    ch_env_run(real_main, NULL);
}
