/* scheduler.c: the leader's fiber that keeps placing tasks: state -> view -> schedule.c -> plan
 * -> one command. The plan names each task's incarnation, so what changed meanwhile makes its
 * decision void, not wrong. Sleeps until jobs, tasks or machines change; how many tasks may leave
 * dead machines is a token bucket. */
#include <stdlib.h>

#include "chassis/log.h"
#include "master.h"
#include "schedule.h"

enum { PLAN_MAX = 4096 }; /* decisions of one command; the rest follow in the next pass */

/* ---- the view ---- */

static struct clu_constraint *constraints_make(const CLU_PB(JobSpec) * spec,
                                               struct base_arena *arena)
{
    struct clu_constraint *out =
        BASE_NEW_ARRAY(arena, struct clu_constraint, spec->n_constraints + 1);

    for (size_t i = 0; i < spec->n_constraints; i++)
        out[i] =
            (struct clu_constraint){ clu_str(arena, spec->constraints[i]->attribute),
                                     clu_str(arena, spec->constraints[i]->value),
                                     spec->constraints[i]->negated, spec->constraints[i]->soft };
    return out;
}

static void job_view(const struct clu_job *job, struct base_arena *arena, struct clu_view_job *out)
{
    const CLU_PB(JobSpec) *spec = job->spec;

    *out = (struct clu_view_job){
        .name = job->name,
        .band = spec->band ? (int)spec->band : STRATA__CLUSTERMGR__V1__BAND__PRODUCTION,
        .constraints = constraints_make(spec, arena),
        .constraint_count = spec->n_constraints,
        .distinct_machines = spec->distinct_machines,
        .pinned = spec->pinned,
        .generation = job->generation,
    };
    if (spec->resources)
        out->resources =
            (struct clu_resources){ spec->resources->cpu_millis, spec->resources->memory_bytes,
                                    spec->resources->disk_bytes };
}

static void task_view(struct clu_master *master, const struct clu_task *task, int32_t job,
                      struct clu_view_task *out)
{
    const char *pin =
        task->job->spec->pinned ? clu__pin_find(master->state, task->job->name, task->index) : NULL;
    struct clu_machine *pin_machine = pin ? clu__machine_find(master->state, pin) : NULL;

    *out = (struct clu_view_task){
        .job = job,
        .index = task->index,
        .machine = task->machine ? task->machine->view_index : CLU_NONE,
        .pin = pin_machine ? pin_machine->view_index : CLU_NONE,
        .pin_name = pin,
        .generation = task->generation,
        .available = task->healthy && task->state == CLU_TASK(RUNNING),
        .reason = task->reason,
    };
}

void clu__view_make(struct clu_master *master, struct base_arena *arena, struct clu_view *view,
                    const struct clu_task *subject, size_t *subject_index)
{
    struct clu_state *state = master->state;
    struct clu_view_machine *machines =
        BASE_NEW_ARRAY(arena, struct clu_view_machine, state->machine_count + 1);
    struct clu_view_job *jobs = BASE_NEW_ARRAY(arena, struct clu_view_job, state->job_count + 1);
    struct clu_view_task *tasks;
    struct clu_machine *machine;
    struct clu_job *job;
    size_t count = 0;

    *view = (struct clu_view){ .machines = machines, .jobs = jobs };
    RB_FOREACH(machine, clu_machines, &state->machines)
    {
        machine->view_index = (int32_t)view->machine_count;
        machines[view->machine_count++] = (struct clu_view_machine){
            machine->name,
            machine->zone,
            machine->rack,
            { machine->capacity.cpu_millis, machine->capacity.memory_bytes,
              machine->capacity.disk_bytes },
            machine->up,
        };
    }
    RB_FOREACH(job, clu_jobs, &state->jobs)
    count += job->spec->tasks;
    view->tasks = tasks = BASE_NEW_ARRAY(arena, struct clu_view_task, count + 1);
    RB_FOREACH(job, clu_jobs, &state->jobs)
    {
        job_view(job, arena, &jobs[view->job_count]);
        for (uint32_t i = 0; i < job->spec->tasks; i++) {
            if (subject && job->tasks[i] == subject)
                *subject_index = view->task_count;
            task_view(master, job->tasks[i], (int32_t)view->job_count, &tasks[view->task_count++]);
        }
        view->job_count++;
    }
}

/* ---- the fiber ---- */

static CLU_PB(Command) * plan_command(struct clu_master *master, const struct clu_view *view,
                                      const struct clu_plan *plan, struct base_arena *arena)
{
    CLU_PB(Command) *command = CLU_NEW(arena, Command, command);
    CLU_PB(Plan) *out = CLU_NEW(arena, Plan, plan);
    size_t count = plan->count < PLAN_MAX ? plan->count : PLAN_MAX;

    out->decisions = BASE_NEW_ARRAY(arena, CLU_PB(Decision) *, count + 1);
    for (size_t i = 0; i < count; i++) {
        const struct clu_decision *decision = &plan->decisions[i];
        const struct clu_view_task *task = &view->tasks[decision->task];
        CLU_PB(Decision) *record = out->decisions[out->n_decisions++] =
            CLU_NEW(arena, Decision, decision);

        record->job = ch_data_str(view->jobs[task->job].name);
        record->index = task->index;
        record->incarnation =
            clu__task_find(master->state, view->jobs[task->job].name, task->index)->incarnation;
        record->kind = decision->kind == CLU_PLACE ? STRATA__CLUSTERMGR__V1__DECISION__KIND__PLACE
                       : decision->kind == CLU_ADVANCE
                           ? STRATA__CLUSTERMGR__V1__DECISION__KIND__ADVANCE
                           : STRATA__CLUSTERMGR__V1__DECISION__KIND__WAIT;
        record->machine = ch_data_str(
            decision->machine == CLU_NONE ? "" : view->machines[decision->machine].name);
        record->reason = ch_data_str(decision->reason);
    }
    command->what_case = STRATA__CLUSTERMGR__V1__COMMAND__WHAT_PLAN;
    command->plan = out;
    return command;
}

static void plan_count(struct clu_master *master, const struct clu_view *view,
                       const struct clu_plan *plan, double *tokens)
{
    for (size_t i = 0; i < plan->count && i < PLAN_MAX; i++) {
        if (plan->decisions[i].kind != CLU_PLACE)
            continue;
        ch_count(master->metrics.placements, 1);
        if (view->tasks[plan->decisions[i].task].machine == CLU_NONE)
            continue;
        ch_count(master->metrics.moves, 1);
        *tokens -= 1;
    }
    master->metrics.tasks_pending->value = 0;
    for (size_t i = 0; i < view->task_count; i++)
        master->metrics.tasks_pending->value += view->tasks[i].machine == CLU_NONE;
}

/* One pass. *held: there are moves left to make when there are tokens again. */
static CH_WAITS struct base_status pass(struct clu_master *master, double *tokens, bool *held)
{
    struct base_arena arena;
    struct clu_view view;
    struct clu_plan plan;
    CLU_PB(CommandReply) *reply = NULL;
    struct base_status status = BASE_STATUS_OK;
    ch_time begin = ch_now(master->env);

    base_arena_init(&arena);
    clu__view_make(master, &arena, &view, NULL, NULL);
    view.moves_max = *tokens > 0 ? (size_t)*tokens : 0;
    clu_schedule(&view, &arena, &plan);
    ch_observe(master->metrics.schedule_ns, (uint64_t)(ch_now(master->env) - begin));
    *held = plan.moves_held;
    plan_count(master, &view, &plan, tokens);
    if (plan.count > 0)
        status = clu__propose(master, plan_command(master, &view, &plan, &arena),
                              clu__propose_deadline(master, NULL), &arena, &reply);
    base_arena_free(&arena);
    return status;
}

void clu__scheduler_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_master *master = arg;
    double rate = (double)master->config->moves_per_second, tokens = rate;
    ch_time refilled = ch_now(master->env);
    uint64_t seen = UINT64_MAX, term = 0;
    bool again = false;

    while (!ch_cancelled()) {
        ch_time now = ch_now(master->env);
        struct base_status status;

        if (master->term != term) {
            term = master->term;
            seen = UINT64_MAX;
            again = false;
        }
        if (term == 0 || (!again && master->state->cell_changed == seen)) {
            if (ch_cond_wait(&master->changed, CH_NEVER) != CH_OK)
                return;
            continue;
        }
        tokens += rate * (double)(now - refilled) / (double)CH_S;
        tokens = tokens < rate ? tokens : rate;
        refilled = now;
        seen = master->state->cell_changed;
        status = pass(master, &tokens, &again);
        if (base_failed(status)) {
            if (master->term == term)
                ch_warn(master->env, "schedule: %s", base_status_text(&status));
            again = true;
        }
        base_status_free(&status);
        /* Held moves, or a failure: later; changes meanwhile are seen then too. */
        if (again && ch_sleep_until(master->env, ch_in(master->env, 100 * CH_MS)) != CH_TIMEOUT)
            return;
    }
}
