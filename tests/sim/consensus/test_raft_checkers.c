/* The checks of the simulated world are checked: a world that is broken in a known way must fail
 * within some hundred seeds. A check that nothing can fail proves nothing. */
#include <inttypes.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raft_world.h"
#include "seeds.h"
#include "test.h"

enum { SEEDS_MAX = 2000 };

/* The first seed that fails, 0: none does. In a process of its own: an invariant of the code may
 * abort it, which is as good as any other way of being noticed. *text: what was noticed. */
static uint64_t caught_at(enum rw_sabotage sabotage, bool outcome_only, char *text, size_t size)
{
    int pipes[2], status;
    struct {
        uint64_t seed;
        char text[200];
    } found = { 0 };
    ssize_t got;
    pid_t pid;

    cr_assert_eq(pipe(pipes), 0);
    pid = fork();
    if (pid == 0) {
        struct rw_options options = { .sabotage = sabotage, .outcome_only = outcome_only };
        struct rw_result result = { .failed = false };

        close(2); /* what an abort says is expected */
        for (options.seed = 1; options.seed <= seeds_count(SEEDS_MAX) && !result.failed;
             options.seed++)
            rw_run(&options, &result);
        found.seed = result.failed ? options.seed - 1 : 0;
        snprintf(found.text, sizeof(found.text), "%s", result.text);
        _exit(write(pipes[1], &found, sizeof(found)) != sizeof(found));
    }
    close(pipes[1]);
    got = read(pipes[0], &found, sizeof(found));
    close(pipes[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    if (got != sizeof(found)) {
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %d", status);
        snprintf(text, size, "an invariant of the code");
        return UINT64_MAX;
    }
    snprintf(text, size, "%s", found.text);
    return found.seed;
}

static void must_be_caught(enum rw_sabotage sabotage, bool outcome_only)
{
    char text[200];
    uint64_t seed = caught_at(sabotage, outcome_only, text, sizeof(text));

    /* Under a sanitizer only the runs count: the seed that shows it may lie further out. */
    cr_assert(seed != 0 || SEEDS_SANITIZED, "\"%s\" was not noticed in %d seeds%s",
              rw_sabotage_names[sabotage], SEEDS_MAX, outcome_only ? " by what users see" : "");
    cr_log_info("%s: seed %" PRIu64 ": %s", rw_sabotage_names[sabotage], seed, text);
}

Test(raft_checkers, a_sound_world_is_clean)
{
    /* The other half of a good check: it says nothing when nothing is wrong. And the same seed is
     * the same run. */
    for (uint64_t seed = 1; seed <= seeds_count(20); seed++) {
        struct rw_options options = { .seed = seed };
        struct rw_result first, again;

        rw_run(&options, &first);
        cr_assert(!first.failed, "seed %" PRIu64 ": %s", seed, first.text);
        rw_run(&options, &again);
        cr_assert_eq(first.trace_hash, again.trace_hash, "seed %" PRIu64, seed);
        cr_assert(first.commits > 0 && first.events > 100);
    }
}

Test(raft_checkers, a_member_that_votes_twice, .timeout = 300)
{
    /* Two leaders of one term: also seen without looking at the votes. */
    must_be_caught(RW_VOTES_TWICE, false);
    must_be_caught(RW_VOTES_TWICE, true);
}

Test(raft_checkers, a_vote_forgotten_at_restart, .timeout = 300)
{
    must_be_caught(RW_FORGETS_VOTE, false);
    must_be_caught(RW_FORGETS_VOTE, true);
}

Test(raft_checkers, commits_by_counting_earlier_terms, .timeout = 300)
{
    /* Figure 8 must come up by itself, not only when it is played by hand. */
    must_be_caught(RW_COUNTS_OLD_TERMS, true);
}

Test(raft_checkers, reads_without_a_round, .timeout = 300)
{
    must_be_caught(RW_READS_WITHOUT_ROUND, false);
    must_be_caught(RW_READS_WITHOUT_ROUND, true);
}

Test(raft_checkers, an_entry_applied_before_it_is_committed, .timeout = 300)
{
    must_be_caught(RW_APPLIES_EARLY, false);
    must_be_caught(RW_APPLIES_EARLY, true);
}

Test(raft_checkers, acknowledged_before_durable, .timeout = 300)
{
    must_be_caught(RW_ACKS_EARLY, false);
}

Test(raft_checkers, a_disk_that_forgets_its_tail, .timeout = 300)
{
    must_be_caught(RW_FORGETS_TAIL, false);
    must_be_caught(RW_FORGETS_TAIL, true);
}

Test(raft_checkers, a_lost_disk_under_its_old_id, .timeout = 300)
{
    /* Why an id is never used again. */
    must_be_caught(RW_REJOINS_AS_SELF, false);
    must_be_caught(RW_REJOINS_AS_SELF, true);
}

Test(raft_checkers, a_snapshot_of_another_state, .timeout = 300)
{
    must_be_caught(RW_BAD_SNAPSHOT, false);
    must_be_caught(RW_BAD_SNAPSHOT, true);
}

/* ---- broken histories ---- */

static void history_begin(struct rw_world *world, struct rw_result *result, struct rw_group *group)
{
    memset(world, 0, sizeof(*world));
    memset(result, 0, sizeof(*result));
    memset(group, 0, sizeof(*group));
    world->result = result;
    group->world = world;
    group->ops = calloc(RW_OPS_MAX, sizeof(group->ops[0]));
}

static void history_add(struct rw_group *group, enum rw_op_kind kind, int64_t from, int64_t to,
                        int64_t start, int64_t end)
{
    for (uint32_t key = 0; key < 3; key++) /* one of three is looked at: all are the same */
        group->ops[group->op_count++] = (struct rw_op){ .kind = kind,
                                                        .state = RW_OP_OK,
                                                        .key = key,
                                                        .from = from,
                                                        .to = to,
                                                        .start = start,
                                                        .end = end };
}

Test(raft_checkers, broken_histories)
{
    /* A read that misses a write completed before it, a value from nowhere, a compare-and-set that
     * succeeds twice from one value: none has an order. The same with a read that overlaps has. */
    struct {
        int64_t read_value, read_start;
        enum rw_op_kind third;
        bool good;
    } cases[] = {
        { 1, 30, RW_READ, true },  { 0, 30, RW_READ, false }, { 0, 5, RW_READ, true },
        { 7, 30, RW_READ, false }, { 2, 30, RW_CAS, false },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rw_world world;
        struct rw_result result;
        struct rw_group group;

        history_begin(&world, &result, &group);
        history_add(&group, RW_CAS, 0, 1, 10, 20);
        if (cases[i].third == RW_CAS)
            history_add(&group, RW_CAS, 0, cases[i].read_value, cases[i].read_start, 40);
        else
            history_add(&group, RW_READ, 0, cases[i].read_value, cases[i].read_start, 40);
        rw_clients_check(&group);
        cr_assert_eq(result.failed, !cases[i].good, "case %zu: %s", i, result.text);
        free(group.ops);
    }
}

Test(raft_checkers, quorums_that_do_not_meet)
{
    /* The check of configurations: one voter more or less always meets; two disjoint majorities are
     * found; through a joint configuration any change meets. */
    struct con_config three = { .count = 3 }, five = { .count = 5 }, joint;

    for (uint32_t i = 0; i < 5; i++) {
        five.members[i] = (struct con_member){ .id = i + 1, .voter = true };
        if (i < 3)
            three.members[i] = five.members[i];
    }
    cr_assert(raft_quorums_meet(&three, &three));
    cr_assert(!raft_quorums_meet(&three, &five), "1, 2 of three; 3, 4, 5 of five");
    joint = five;
    joint.joint = true;
    for (uint32_t i = 0; i < 3; i++)
        joint.members[i].voter_old = true;
    cr_assert(raft_quorums_meet(&three, &joint) && raft_quorums_meet(&joint, &five));
    cr_assert(!raft_is_quorum(&joint, 0x1c) && raft_is_quorum(&joint, 0x0d));
}
