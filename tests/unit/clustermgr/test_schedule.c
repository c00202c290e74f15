/* The scheduler (clustermgr/src/schedule.c): small cells where the right answer is plain, then
 * random ones against the invariants that every plan must keep. */
#include "schedule.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

enum { MACHINES = 40, JOBS = 12, TASKS = 400 };

struct cell {
    struct clu_view view;
    struct clu_view_machine machines[MACHINES];
    struct clu_view_job jobs[JOBS];
    struct clu_view_task tasks[TASKS];
    char names[MACHINES + JOBS][16];
    struct base_arena arena;
    struct clu_plan plan;
};

static struct cell *cell_new(void)
{
    struct cell *cell = calloc(1, sizeof(*cell));

    cell->view = (struct clu_view){
        .machines = cell->machines, .jobs = cell->jobs, .tasks = cell->tasks, .moves_max = 1000
    };
    base_arena_init(&cell->arena);
    return cell;
}

static void cell_free(struct cell *cell)
{
    base_arena_free(&cell->arena);
    free(cell);
}

static struct clu_view_machine *machine_add(struct cell *cell, const char *zone, uint64_t cpu)
{
    size_t i = cell->view.machine_count++;

    snprintf(cell->names[i], sizeof(cell->names[i]), "m%02zu", i);
    cell->machines[i] =
        (struct clu_view_machine){ cell->names[i], zone, "", { cpu, 1000, 1000 }, true };
    return &cell->machines[i];
}

static struct clu_view_job *job_add(struct cell *cell, uint64_t cpu, uint32_t tasks)
{
    size_t job = cell->view.job_count++;

    snprintf(cell->names[MACHINES + job], sizeof(cell->names[0]), "j%02zu", job);
    cell->jobs[job] = (struct clu_view_job){
        .name = cell->names[MACHINES + job], .band = 2, .resources = { cpu, 0, 0 }, .generation = 1
    };
    for (uint32_t i = 0; i < tasks; i++)
        cell->tasks[cell->view.task_count++] = (struct clu_view_task){
            .job = (int32_t)job, .index = i, .machine = CLU_NONE, .pin = CLU_NONE, .generation = 1
        };
    return &cell->jobs[job];
}

static void schedule(struct cell *cell)
{
    clu_schedule(&cell->view, &cell->arena, &cell->plan);
}

/* Makes the plan true. */
static void apply(struct cell *cell)
{
    for (size_t i = 0; i < cell->plan.count; i++) {
        struct clu_decision *decision = &cell->plan.decisions[i];
        struct clu_view_task *task = &cell->tasks[decision->task];

        task->reason = decision->reason;
        if (decision->kind == CLU_ADVANCE) {
            task->generation = cell->jobs[task->job].generation;
            task->available = false;
        }
        if (decision->kind != CLU_PLACE)
            continue;
        task->machine = decision->machine;
        task->generation = cell->jobs[task->job].generation;
        if (cell->jobs[task->job].pinned) {
            task->pin = decision->machine;
            task->pin_name = cell->machines[decision->machine].name;
        }
    }
}

static size_t on_machine(const struct cell *cell, int32_t machine, int32_t job)
{
    size_t count = 0;

    for (size_t i = 0; i < cell->view.task_count; i++)
        count += cell->tasks[i].machine == machine && (job < 0 || cell->tasks[i].job == job);
    return count;
}

static size_t kinds(const struct cell *cell, enum clu_decision_kind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < cell->plan.count; i++)
        count += cell->plan.decisions[i].kind == kind;
    return count;
}

Test(schedule, spreads_over_machines)
{
    /* Three tasks on three machines go one to each: so one machine's death takes one task. */
    struct cell *cell = cell_new();

    for (int i = 0; i < 3; i++)
        machine_add(cell, "a", 1000);
    job_add(cell, 100, 3);
    schedule(cell);
    apply(cell);
    for (int32_t i = 0; i < 3; i++)
        cr_assert_eq(on_machine(cell, i, 0), 1);
    schedule(cell);
    cr_assert_eq(cell->plan.count, 0, "what is placed stays: a second pass decides nothing");
    cell_free(cell);
}

Test(schedule, spreads_over_zones)
{
    /* Two tasks and two zones: one to each zone, though zone a has twice the machines: so a
     * zone's death takes one. */
    struct cell *cell = cell_new();

    machine_add(cell, "a", 1000);
    machine_add(cell, "a", 1000);
    machine_add(cell, "b", 1000);
    job_add(cell, 100, 2);
    schedule(cell);
    apply(cell);
    cr_assert_eq(on_machine(cell, 2, 0), 1);
    cell_free(cell);
}

Test(schedule, says_what_is_missing)
{
    /* A task that fits nowhere waits, and the reason counts what stands against it: "why pending"
     * must not be a riddle. */
    struct cell *cell = cell_new();

    machine_add(cell, "a", 100);
    machine_add(cell, "a", 1000)->up = false;
    job_add(cell, 500, 1);
    schedule(cell);
    cr_assert_eq(cell->plan.count, 1);
    cr_assert_eq(cell->plan.decisions[0].kind, CLU_WAIT);
    cr_assert_str_eq(cell->plan.decisions[0].reason,
                     "waits: none of 2 machines fits: 1 not heard of; 1 too little CPU;");
    apply(cell);
    schedule(cell);
    cr_assert_eq(cell->plan.count, 0, "the same reason is not written again and again");
    cell_free(cell);
}

Test(schedule, distinct_machines_wait_for_one_more)
{
    /* Two tasks that must not share a machine, and one machine: one is placed, the other waits,
     * rather than lose both at once. */
    struct cell *cell = cell_new();

    machine_add(cell, "a", 1000);
    job_add(cell, 100, 2)->distinct_machines = true;
    schedule(cell);
    cr_assert(kinds(cell, CLU_PLACE) == 1 && kinds(cell, CLU_WAIT) == 1);
    apply(cell);
    machine_add(cell, "a", 1000);
    schedule(cell);
    apply(cell);
    cr_assert(on_machine(cell, 0, 0) == 1 && on_machine(cell, 1, 0) == 1);
    cell_free(cell);
}

Test(schedule, constraints)
{
    /* A hard constraint is kept even when its machine is fuller; a wish only when it can be. */
    struct clu_constraint hard = { "zone", "b", false, false },
                          wish = { "machine", "m00", true, true };
    struct cell *cell = cell_new();
    struct clu_view_job *job;

    machine_add(cell, "a", 1000);
    machine_add(cell, "b", 200);
    job = job_add(cell, 100, 1);
    job->constraints = &hard;
    job->constraint_count = 1;
    job = job_add(cell, 150, 1);
    job->constraints = &wish;
    job->constraint_count = 1;
    schedule(cell);
    apply(cell);
    cr_assert_eq(cell->tasks[0].machine, 1);
    cr_assert_eq(cell->tasks[1].machine, 0,
                 "only m00 has room left: the wish not to be there gives way");
    cell_free(cell);
}

Test(schedule, urgent_bands_first)
{
    /* When not all fits, the more urgent band gets the place, whatever the names of the jobs. */
    struct cell *cell = cell_new();

    machine_add(cell, "a", 100);
    job_add(cell, 100, 1)->band = 3;
    job_add(cell, 100, 1)->band = 1;
    schedule(cell);
    apply(cell);
    cr_assert(cell->tasks[0].machine == CLU_NONE && cell->tasks[1].machine == 0);
    cell_free(cell);
}

Test(schedule, a_dead_machine_s_tasks_move_at_a_bounded_rate)
{
    /* Stateless tasks leave a dead machine, but only so many a pass: a cut network looks like
     * many deaths. */
    struct cell *cell = cell_new();

    machine_add(cell, "a", 10000);
    machine_add(cell, "b", 10000);
    job_add(cell, 10, 20);
    schedule(cell);
    apply(cell);
    cell->machines[0].up = false;
    cell->view.moves_max = 3;
    schedule(cell);
    cr_assert(kinds(cell, CLU_PLACE) == 3 && cell->plan.moves_held);
    apply(cell);
    cr_assert_eq(on_machine(cell, 0, 0), 7);
    cell->view.moves_max = 100;
    schedule(cell);
    apply(cell);
    cr_assert(on_machine(cell, 0, 0) == 0 && !cell->plan.moves_held);
    cell_free(cell);
}

Test(schedule, pinned_tasks_wait_for_their_machine)
{
    /* A task whose data is on a machine's disk never starts elsewhere with an empty disk: it
     * waits, and says for whom. */
    struct cell *cell = cell_new();

    machine_add(cell, "a", 1000);
    machine_add(cell, "b", 1000);
    job_add(cell, 10, 1)->pinned = true;
    schedule(cell);
    apply(cell);
    cr_assert_eq(cell->tasks[0].machine, 0);
    cell->machines[0].up = false;
    schedule(cell);
    cr_assert(kinds(cell, CLU_PLACE) == 0 && kinds(cell, CLU_WAIT) == 1);
    cr_assert(strstr(cell->plan.decisions[0].reason, "m00") != NULL);
    cell->tasks[0].machine = CLU_NONE; /* its job was killed and submitted again */
    cell->machines[0].up = true;
    schedule(cell);
    apply(cell);
    cr_assert_eq(cell->tasks[0].machine, 0);
    cell_free(cell);
}

Test(schedule, new_specifications_one_task_at_a_time)
{
    /* An update restarts one task, and the next only when all others are available again: the job
     * never loses two at once. */
    struct cell *cell = cell_new();

    machine_add(cell, "a", 1000);
    job_add(cell, 10, 3);
    schedule(cell);
    apply(cell);
    for (int i = 0; i < 3; i++)
        cell->tasks[i].available = true;
    cell->jobs[0].generation = 2;
    for (int round = 0; round < 3; round++) {
        schedule(cell);
        cr_assert_eq(kinds(cell, CLU_ADVANCE), 1, "round %d", round);
        apply(cell);
        schedule(cell);
        cr_assert_eq(kinds(cell, CLU_ADVANCE), 0, "while one is restarting, no other is touched");
        for (int i = 0; i < 3; i++)
            cell->tasks[i].available = true;
    }
    schedule(cell);
    cr_assert_eq(cell->plan.count, 0);
    cell_free(cell);
}

/* ---- random cells ---- */

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}

static void invariants_check(const struct cell *before, const struct cell *after, uint64_t seed)
{
    uint64_t used[MACHINES] = { 0 };
    size_t moves = 0, advances[JOBS] = { 0 };

    for (size_t i = 0; i < after->view.task_count; i++) {
        const struct clu_view_task *was = &before->tasks[i], *is = &after->tasks[i];
        const struct clu_view_job *job = &after->jobs[is->job];

        if (is->machine != CLU_NONE)
            used[is->machine] += job->resources.cpu_millis;
        if (was->machine != is->machine) {
            cr_assert(after->machines[is->machine].up, "seed %" PRIu64 ": placed on a dead machine",
                      seed);
            cr_assert(was->machine == CLU_NONE || !after->machines[was->machine].up,
                      "seed %" PRIu64 ": left a living one", seed);
            moves += was->machine != CLU_NONE;
            cr_assert(!was->pin_name || was->pin == is->machine,
                      "seed %" PRIu64 ": a pinned task moved", seed);
            for (size_t j = 0; job->distinct_machines && j < after->view.task_count; j++)
                cr_assert(j == i || after->tasks[j].job != is->job ||
                              after->tasks[j].machine != is->machine,
                          "seed %" PRIu64 ": two tasks of a spread job on one machine", seed);
            if (job->constraint_count > 0)
                cr_assert_str_eq(after->machines[is->machine].zone, job->constraints[0].value);
        } else if (was->generation != is->generation) {
            advances[is->job]++;
        }
    }
    for (size_t i = 0; i < after->view.machine_count; i++) {
        bool grew = false;

        for (size_t j = 0; j < after->view.task_count; j++)
            grew |= after->tasks[j].machine == (int32_t)i && before->tasks[j].machine != (int32_t)i;
        cr_assert(!grew || used[i] <= after->machines[i].capacity.cpu_millis,
                  "seed %" PRIu64 ": machine %zu is overfull", seed, i);
    }
    cr_assert(moves <= after->view.moves_max, "seed %" PRIu64 ": %zu moves", seed, moves);
    for (size_t i = 0; i < JOBS; i++)
        cr_assert(advances[i] <= 1, "seed %" PRIu64 ": %zu restarts of one job", seed, advances[i]);
}

Test(schedule, all_at_once_is_one_by_one)
{
    /* Placing a job's tasks in one pass, with the ranking of machines kept up as it goes, gives
     * what placing them one a pass
     * gives, with everything computed anew. */
    static const char *const zones[] = { "a", "b", "c" };

    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct cell *at_once = cell_new(), *one_by_one = cell_new();
        uint64_t random = seed;
        size_t machines = 1 + next_random(&random) % MACHINES, jobs = 1 + next_random(&random) % 4;
        size_t first = 0;

        for (size_t i = 0; i < machines; i++) {
            const char *zone = zones[next_random(&random) % 3];
            uint64_t cpu = 200 + next_random(&random) % 1000;

            machine_add(at_once, zone, cpu);
            machine_add(one_by_one, zone, cpu);
        }
        for (size_t i = 0; i < jobs; i++) {
            uint64_t cpu = 10 + next_random(&random) % 100;
            uint32_t tasks = next_random(&random) % 60;
            bool distinct = next_random(&random) % 3 == 0;

            job_add(at_once, cpu, tasks)->distinct_machines = distinct;
            job_add(one_by_one, cpu, tasks)->distinct_machines = distinct;
        }
        schedule(at_once);
        apply(at_once);
        for (size_t count = one_by_one->view.task_count; first < count; first++) {
            one_by_one->view.task_count = first + 1;
            schedule(one_by_one);
            apply(one_by_one);
        }
        for (size_t i = 0; i < at_once->view.task_count; i++)
            cr_assert_eq(at_once->tasks[i].machine, one_by_one->tasks[i].machine,
                         "seed %" PRIu64 " task %zu", seed, i);
        cell_free(at_once);
        cell_free(one_by_one);
    }
}

Test(schedule, random_cells_keep_the_invariants)
{
    /* Whatever the cell, over many passes with machines dying and coming back, every plan keeps
     * the numbered invariants of schedule.c, and the same view gives the same plan. */
    static const char *const zones[] = { "a", "b", "c" };
    static const struct clu_constraint in_zone[] = { { "zone", "a", false, false },
                                                     { "zone", "b", false, false } };

    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct cell *cell = cell_new(), *before = cell_new();
        struct base_arena before_arena = before->arena;
        uint64_t random = seed;
        size_t machines = 1 + next_random(&random) % MACHINES,
               jobs = 1 + next_random(&random) % JOBS;

        for (size_t i = 0; i < machines; i++)
            machine_add(cell, zones[next_random(&random) % 3], 200 + next_random(&random) % 1000);
        for (size_t i = 0; i < jobs; i++) {
            struct clu_view_job *job =
                job_add(cell, 10 + next_random(&random) % 200, next_random(&random) % 30);

            job->distinct_machines = next_random(&random) % 4 == 0;
            job->pinned = next_random(&random) % 4 == 0;
            job->band = 1 + (int)(next_random(&random) % 4);
            if (next_random(&random) % 4 == 0) {
                job->constraints = &in_zone[next_random(&random) % 2];
                job->constraint_count = 1;
            }
        }
        for (int pass = 0; pass < 12; pass++) {
            struct clu_plan again;

            cell->machines[next_random(&random) % machines].up = next_random(&random) % 3 > 0;
            cell->jobs[next_random(&random) % jobs].generation += next_random(&random) % 2;
            cell->view.moves_max = next_random(&random) % 10;
            for (size_t i = 0; i < cell->view.task_count; i++)
                cell->tasks[i].available =
                    cell->tasks[i].machine != CLU_NONE && next_random(&random) % 8 > 0;
            *before = *cell;
            schedule(cell);
            clu_schedule(&cell->view, &cell->arena, &again);
            cr_assert_eq(again.count, cell->plan.count);
            for (size_t i = 0; i < again.count; i++)
                cr_assert(again.decisions[i].task == cell->plan.decisions[i].task &&
                          again.decisions[i].machine == cell->plan.decisions[i].machine);
            apply(cell);
            invariants_check(before, cell, seed);
        }
        before->arena = before_arena;
        cell_free(before);
        cell_free(cell);
    }
}
