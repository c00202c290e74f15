/* schedule.c: the scheduler, as a function.
 *
 * Invariants of every plan
 * 1. A machine is never promised more than its capacity by a placement of the plan; it is up; it
 * meets the hard constraints.
 * 2. No two tasks of a distinct_machines job share a machine.
 * 3. A pinned task that was placed once is placed nowhere else.
 * 4. A task that sits on a machine that is up stays there: nothing moves for a better score.
 * 5. At most moves_max tasks leave dead machines in a pass: a partition looks like many deaths
 * (Borg, section 4).
 * 6. At most one task of a job is restarted for a new specification, and only when all others of
 * it are available.
 * 7. The plan depends on the view alone: the same view gives the same plan.
 *
 * Order: bands, then jobs by name, then index. Feasibility, then the lowest cost: few tasks of
 * the job on the machine and in the zone, wishes met, then even use, and little of one resource
 * stranded beside another that is used up (Borg, 3.2). */
#include "schedule.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What a pass knows of a machine: the view's, plus what this plan has promised so far. */
struct slot {
    struct clu_resources used;
    int32_t zone; /* index of the first machine of the same zone */
};
enum obstacle {
    OBSTACLE_NONE,
    OBSTACLE_DOWN,
    OBSTACLE_CONSTRAINT,
    OBSTACLE_DISTINCT,
    OBSTACLE_CPU,
    OBSTACLE_MEMORY,
    OBSTACLE_DISK
};
enum { OBSTACLES = OBSTACLE_DISK + 1 };
static const char *const obstacle_texts[OBSTACLES] = {
    "feasible",       "not heard of",      "against a constraint", "has a task of the job already",
    "too little CPU", "too little memory", "too little disk",
};

struct pass {
    const struct clu_view *view;
    struct base_arena *arena;
    struct slot *slots;
    uint32_t *on_machine, *in_zone; /* tasks of the job at hand, by machine and by zone */
    int32_t counted_job;
    /* The ranking of machines for the job at hand: made at its first pick, kept up as its tasks
     * are placed. */
    bool ranked;
    enum obstacle *obstacles;
    double *costs;  /* without what the zone adds */
    int32_t *zones; /* the first machine of each: that is a zone's index */
    size_t zone_count;
    int32_t *zone_best; /* of each zone, the feasible machine of least cost */
    size_t against[OBSTACLES];
    size_t moves;
    struct clu_plan *plan;
};

static void pass_init(struct pass *pass, const struct clu_view *view, struct base_arena *arena);
static size_t *order_make(const struct clu_view *view, struct base_arena *arena);
static void task_consider(struct pass *pass, size_t task);
static void generations_advance(struct pass *pass);

void clu_schedule(const struct clu_view *view, struct base_arena *arena, struct clu_plan *plan)
{
    struct pass pass;
    size_t *order = order_make(view, arena);

    *plan =
        (struct clu_plan){ .decisions = BASE_NEW_ARRAY(arena, struct clu_decision,
                                                       view->task_count + view->job_count + 1) };
    pass_init(&pass, view, arena);
    pass.plan = plan;
    for (size_t i = 0; i < view->task_count; i++)
        task_consider(&pass, order[i]);
    generations_advance(&pass);
}

/* ---- the pass ---- */

static void resources_add(struct clu_resources *to, const struct clu_resources *more)
{
    to->cpu_millis += more->cpu_millis;
    to->memory_bytes += more->memory_bytes;
    to->disk_bytes += more->disk_bytes;
}

static void pass_init(struct pass *pass, const struct clu_view *view, struct base_arena *arena)
{
    *pass = (struct pass){ .view = view, .arena = arena, .counted_job = CLU_NONE };
    pass->slots = BASE_NEW_ARRAY(arena, struct slot, view->machine_count + 1);
    pass->on_machine = BASE_NEW_ARRAY(arena, uint32_t, view->machine_count + 1);
    pass->in_zone = BASE_NEW_ARRAY(arena, uint32_t, view->machine_count + 1);
    pass->obstacles = BASE_NEW_ARRAY(arena, enum obstacle, view->machine_count + 1);
    pass->costs = BASE_NEW_ARRAY(arena, double, view->machine_count + 1);
    pass->zone_best = BASE_NEW_ARRAY(arena, int32_t, view->machine_count + 1);
    pass->zones = BASE_NEW_ARRAY(arena, int32_t, view->machine_count + 1);
    for (size_t i = 0; i < view->machine_count; i++) {
        size_t first = 0;

        while (strcmp(view->machines[first].zone, view->machines[i].zone) != 0)
            first++;
        pass->slots[i].zone = (int32_t)first;
        if (first == i)
            pass->zones[pass->zone_count++] = (int32_t)i;
    }
    for (size_t i = 0; i < view->task_count; i++)
        if (view->tasks[i].machine != CLU_NONE)
            resources_add(&pass->slots[view->tasks[i].machine].used,
                          &view->jobs[view->tasks[i].job].resources);
}

struct order_key {
    size_t task;
    int band;
};

static int order_cmp(const void *a, const void *b)
{
    const struct order_key *x = a, *y = b;

    if (x->band != y->band)
        return x->band < y->band ? -1 : 1;
    return x->task < y->task ? -1 : x->task > y->task;
}

static size_t *order_make(const struct clu_view *view, struct base_arena *arena)
{
    struct order_key *keys = BASE_NEW_ARRAY(arena, struct order_key, view->task_count + 1);
    size_t *order = BASE_NEW_ARRAY(arena, size_t, view->task_count + 1);

    for (size_t i = 0; i < view->task_count; i++)
        keys[i] = (struct order_key){ i, view->jobs[view->tasks[i].job].band };
    qsort(keys, view->task_count, sizeof(*keys), order_cmp);
    for (size_t i = 0; i < view->task_count; i++)
        order[i] = keys[i].task;
    return order;
}

/* Tasks of `job` by machine and zone, as the view and the plan so far have them. */
static void job_count(struct pass *pass, int32_t job)
{
    const struct clu_view *view = pass->view;

    if (pass->counted_job == job)
        return;
    pass->counted_job = job;
    pass->ranked = false;
    memset(pass->on_machine, 0, view->machine_count * sizeof(*pass->on_machine));
    memset(pass->in_zone, 0, view->machine_count * sizeof(*pass->in_zone));
    for (size_t i = 0; i < view->task_count; i++) {
        int32_t machine = view->tasks[i].machine;

        if (view->tasks[i].job != job || machine == CLU_NONE)
            continue;
        /* One that sits on a dead machine moves or comes back there; it does not crowd the
         * living. */
        pass->on_machine[machine]++;
        if (view->machines[machine].up)
            pass->in_zone[pass->slots[machine].zone]++;
    }
}

/* ---- feasibility and cost ---- */

static const char *attribute_of(const struct clu_view_machine *machine, const char *attribute)
{
    if (strcmp(attribute, "machine") == 0)
        return machine->name;
    if (strcmp(attribute, "zone") == 0)
        return machine->zone;
    return strcmp(attribute, "rack") == 0 ? machine->rack : "";
}

static bool constraint_met(const struct clu_constraint *constraint,
                           const struct clu_view_machine *machine)
{
    return (strcmp(attribute_of(machine, constraint->attribute), constraint->value) == 0) !=
           constraint->negated;
}

static enum obstacle feasible(const struct pass *pass, const struct clu_view_job *job,
                              size_t machine)
{
    const struct clu_view_machine *view = &pass->view->machines[machine];
    const struct clu_resources *used = &pass->slots[machine].used;

    if (!view->up)
        return OBSTACLE_DOWN;
    for (size_t i = 0; i < job->constraint_count; i++)
        if (!job->constraints[i].soft && !constraint_met(&job->constraints[i], view))
            return OBSTACLE_CONSTRAINT;
    if (job->distinct_machines && pass->on_machine[machine] > 0)
        return OBSTACLE_DISTINCT;
    if (used->cpu_millis + job->resources.cpu_millis > view->capacity.cpu_millis)
        return OBSTACLE_CPU;
    if (used->memory_bytes + job->resources.memory_bytes > view->capacity.memory_bytes)
        return OBSTACLE_MEMORY;
    if (used->disk_bytes + job->resources.disk_bytes > view->capacity.disk_bytes)
        return OBSTACLE_DISK;
    return OBSTACLE_NONE;
}

static double share(uint64_t used, uint64_t more, uint64_t capacity)
{
    return capacity > 0 ? (double)(used + more) / (double)capacity : 0;
}

enum {
    COST_SAME_MACHINE = 1000,
    COST_SAME_ZONE = 300,
    COST_WISH = 200,
    COST_USE = 100,
    COST_STRANDED = 20
};

static double zone_cost(const struct pass *pass, int32_t zone)
{
    return COST_SAME_ZONE * (double)pass->in_zone[zone];
}

/* Without zone_cost. */
static double cost_of(const struct pass *pass, const struct clu_view_job *job, size_t machine)
{
    const struct clu_view_machine *view = &pass->view->machines[machine];
    const struct slot *slot = &pass->slots[machine];
    double cpu = share(slot->used.cpu_millis, job->resources.cpu_millis, view->capacity.cpu_millis);
    double memory =
        share(slot->used.memory_bytes, job->resources.memory_bytes, view->capacity.memory_bytes);
    double disk =
        share(slot->used.disk_bytes, job->resources.disk_bytes, view->capacity.disk_bytes);
    double most = cpu > memory ? cpu : memory, least = cpu < memory ? cpu : memory;
    double cost = COST_SAME_MACHINE * (double)pass->on_machine[machine];

    most = most > disk ? most : disk;
    for (size_t i = 0; i < job->constraint_count; i++)
        if (job->constraints[i].soft && !constraint_met(&job->constraints[i], view))
            cost += COST_WISH;
    return cost + COST_USE * most + COST_STRANDED * (most - least);
}

/* ---- ranking ---- */

static void machine_rank(struct pass *pass, const struct clu_view_job *job, size_t machine)
{
    pass->obstacles[machine] = feasible(pass, job, machine);
    pass->against[pass->obstacles[machine]]++;
    if (pass->obstacles[machine] == OBSTACLE_NONE)
        pass->costs[machine] = cost_of(pass, job, machine);
}

static void zone_rank(struct pass *pass, int32_t zone)
{
    int32_t best = CLU_NONE;

    for (size_t i = (size_t)zone; i < pass->view->machine_count; i++)
        if (pass->slots[i].zone == zone && pass->obstacles[i] == OBSTACLE_NONE &&
            (best == CLU_NONE || pass->costs[i] < pass->costs[best]))
            best = (int32_t)i;
    pass->zone_best[zone] = best;
}

static void job_rank(struct pass *pass, const struct clu_view_job *job)
{
    size_t count = pass->view->machine_count;

    memset(pass->against, 0, sizeof(pass->against));
    for (size_t i = 0; i < count; i++)
        machine_rank(pass, job, i);
    for (size_t i = 0; i < pass->zone_count; i++)
        zone_rank(pass, pass->zones[i]);
    pass->ranked = true;
}

/* ---- decisions ---- */

static void decide(struct pass *pass, enum clu_decision_kind kind, size_t task, int32_t machine,
                   const char *reason)
{
    const struct clu_view_task *view = &pass->view->tasks[task];

    if (kind == CLU_WAIT && view->reason && strcmp(view->reason, reason) == 0)
        return;
    pass->plan->decisions[pass->plan->count++] =
        (struct clu_decision){ kind, task, machine, reason };
}

static void task_place(struct pass *pass, size_t task, int32_t machine, const char *reason)
{
    const struct clu_view_task *view = &pass->view->tasks[task];
    const struct clu_resources *resources = &pass->view->jobs[view->job].resources;

    if (view->machine != CLU_NONE)
        pass->on_machine[view->machine]--;
    resources_add(&pass->slots[machine].used, resources);
    pass->on_machine[machine]++;
    pass->in_zone[pass->slots[machine].zone]++;
    if (pass->ranked) {
        pass->against[pass->obstacles[machine]]--;
        machine_rank(pass, &pass->view->jobs[view->job], (size_t)machine);
        zone_rank(pass, pass->slots[machine].zone);
    }
    decide(pass, CLU_PLACE, task, machine, reason);
}

/* The best machine, or CLU_NONE with why not in *reason. */
static int32_t machine_pick(struct pass *pass, const struct clu_view_job *job, const char **reason)
{
    size_t count = pass->view->machine_count;
    int32_t best = CLU_NONE;
    double best_cost = 0;

    if (!pass->ranked)
        job_rank(pass, job);
    for (size_t i = 0; i < pass->zone_count; i++) {
        int32_t machine = pass->zone_best[pass->zones[i]];
        double cost;

        if (machine == CLU_NONE)
            continue;
        cost = pass->costs[machine] + zone_cost(pass, pass->zones[i]);
        if (best == CLU_NONE || cost < best_cost || (cost <= best_cost && machine < best)) {
            best = machine;
            best_cost = cost;
        }
    }
    if (best != CLU_NONE) {
        *reason = base_arena_printf(pass->arena, "the best of %zu machines that fit, of %zu",
                                    pass->against[OBSTACLE_NONE], count);
        return best;
    }
    if (count == 0)
        *reason = "waits: the cell has no machine yet";
    else
        *reason = base_arena_printf(pass->arena, "waits: none of %zu machines fits:", count);
    for (int i = 1; i < OBSTACLES; i++)
        if (pass->against[i] > 0)
            *reason = base_arena_printf(pass->arena, "%s %zu %s;", *reason, pass->against[i],
                                        obstacle_texts[i]);
    return CLU_NONE;
}

/* Invariant 3. */
static void pinned_consider(struct pass *pass, size_t task)
{
    const struct clu_view_task *view = &pass->view->tasks[task];
    const struct clu_view_job *job = &pass->view->jobs[view->job];
    enum obstacle obstacle = OBSTACLE_DOWN;

    if (view->machine != CLU_NONE) {
        if (pass->view->machines[view->machine].up)
            return;
        decide(pass, CLU_WAIT, task, view->machine,
               base_arena_printf(pass->arena,
                                 "waits for machine %s, which is not heard of: its data is there",
                                 view->pin_name));
        return;
    }
    if (view->pin != CLU_NONE)
        obstacle = feasible(pass, job, (size_t)view->pin);
    if (obstacle == OBSTACLE_NONE)
        task_place(pass, task, view->pin,
                   base_arena_printf(pass->arena, "its data is on machine %s", view->pin_name));
    else
        decide(pass, CLU_WAIT, task, CLU_NONE,
               base_arena_printf(pass->arena, "waits for machine %s, where its data is: %s",
                                 view->pin_name, obstacle_texts[obstacle]));
}

static void task_consider(struct pass *pass, size_t task)
{
    const struct clu_view_task *view = &pass->view->tasks[task];
    const struct clu_view_job *job = &pass->view->jobs[view->job];
    const char *reason = NULL, *from;
    int32_t machine;

    if (view->machine != CLU_NONE && pass->view->machines[view->machine].up)
        return;
    job_count(pass, view->job);
    if (job->pinned && view->pin_name) {
        pinned_consider(pass, task);
        return;
    }
    if (view->machine != CLU_NONE && pass->moves >= pass->view->moves_max) {
        pass->plan->moves_held = true;
        return;
    }
    machine = machine_pick(pass, job, &reason);
    if (machine == CLU_NONE) {
        decide(pass, CLU_WAIT, task, view->machine, reason);
        return;
    }
    from = view->machine == CLU_NONE ? "" : pass->view->machines[view->machine].name;
    if (*from) {
        pass->moves++;
        reason = base_arena_printf(pass->arena, "moved from %s, which is not heard of: %s", from,
                                   reason);
    }
    task_place(pass, task, machine, reason);
}

/* Invariant 6. */
static void generations_advance(struct pass *pass)
{
    const struct clu_view *view = pass->view;
    size_t *behind =
        BASE_NEW_ARRAY(pass->arena, size_t, view->job_count + 1); /* 1 + a task to restart */
    uint32_t *missing =
        BASE_NEW_ARRAY(pass->arena, uint32_t, view->job_count + 1); /* not available */

    for (size_t i = 0; i < view->task_count; i++) {
        const struct clu_view_task *task = &view->tasks[i];
        bool old =
            task->machine != CLU_NONE && task->generation != view->jobs[task->job].generation;

        if (!task->available)
            missing[task->job]++;
        /* One that is not available anyway costs nothing to restart: it goes first. */
        if (old && (!behind[task->job] ||
                    (view->tasks[behind[task->job] - 1].available && !task->available)))
            behind[task->job] = 1 + i;
    }
    for (size_t job = 0; job < view->job_count; job++) {
        const struct clu_view_task *task;

        if (!behind[job])
            continue;
        task = &view->tasks[behind[job] - 1];
        if (view->machines[task->machine].up && missing[job] <= (task->available ? 0u : 1u))
            decide(pass, CLU_ADVANCE, behind[job] - 1, task->machine,
                   "restarted for its job's new specification");
    }
}

/* ---- why ---- */

void clu_schedule_explain(const struct clu_view *view, size_t task, struct base_arena *arena,
                          const char ***lines, size_t *count)
{
    const struct clu_view_task *subject = &view->tasks[task];
    const struct clu_view_job *job = &view->jobs[subject->job];
    struct pass pass;

    pass_init(&pass, view, arena);
    job_count(&pass, subject->job);
    *lines = BASE_NEW_ARRAY(arena, const char *, view->machine_count + 1);
    *count = view->machine_count;
    for (size_t i = 0; i < view->machine_count; i++) {
        const struct clu_view_machine *machine = &view->machines[i];
        struct slot *slot = &pass.slots[i];
        enum obstacle obstacle;

        if ((int32_t)i == subject->machine) { /* what it takes itself does not speak against it */
            slot->used.cpu_millis -= job->resources.cpu_millis;
            slot->used.memory_bytes -= job->resources.memory_bytes;
            slot->used.disk_bytes -= job->resources.disk_bytes;
            pass.on_machine[i]--;
        }
        obstacle = feasible(&pass, job, i);
        (*lines)[i] =
            base_arena_printf(arena,
                              "%s%s: %s (zone %s; %" PRIu64 " of %" PRIu64 " millicores, %" PRIu64
                              " of %" PRIu64 " MiB memory, %" PRIu64 " of %" PRIu64
                              " MiB disk promised to others; %u other tasks of the job; cost %.0f)",
                              machine->name, (int32_t)i == subject->machine ? " (it is here)" : "",
                              obstacle_texts[obstacle], machine->zone, slot->used.cpu_millis,
                              machine->capacity.cpu_millis, slot->used.memory_bytes >> 20,
                              machine->capacity.memory_bytes >> 20, slot->used.disk_bytes >> 20,
                              machine->capacity.disk_bytes >> 20, pass.on_machine[i],
                              cost_of(&pass, job, i) + zone_cost(&pass, slot->zone));
    }
}
