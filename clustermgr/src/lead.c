/* lead.c: the members of the clustermaster's group: one of them leads, and only it answers.
 *
 * Invariants
 * 1. Nothing is answered from the state, and no keep-alive or report is taken, but after a read
 * barrier: the member led when the call came, and had applied all that was committed before.
 * 2. What goes on for long (a watch, a lock waited for) ends when the leadership it began under
 * does; the client goes on at the next leader, which gives watches everything first.
 * 3. The leader's own fibers (leases.c, scheduler.c) begin anew with each leadership.
 *
 * A cell is created by whoever leads first. */
#include <inttypes.h>

#include "chassis/log.h"
#include "master.h"

enum { RETRY_MS = 200 };

void clu__led(void *self, uint64_t term)
{
    struct clu_master *master = self;

    if (term > 0)
        ch_info(master->env, "this member leads the cell from now, term %" PRIu64, term);
    else if (master->term > 0)
        ch_info(master->env, "this member leads no more");
    master->term = term;
    master->metrics.leads->value = term > 0;
    ch_cond_broadcast(&master->changed);
}

struct base_status clu__not_leader(const struct clu_master *master)
{
    const char *leader = con_log_leader(master->log);

    if (!*leader)
        return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; none is known");
    return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; it is at %s", leader);
}

struct base_status clu__barrier(struct clu_master *master, struct ch_call *call)
{
    ch_time deadline = clu__propose_deadline(master, call);
    struct base_status status = con_log_read_barrier(master->log, deadline);

    while (!base_failed(status) && !*master->state->cell_id && master->term > 0) {
        if (clu__changed_wait(master, deadline) == CH_CANCELLED)
            status = ch_outcome_status(CH_CANCELLED, "the cell is being created");
        else if (ch_now(master->env) >= deadline)
            status = ch_outcome_status(CH_TIMEOUT, "the cell is being created");
    }
    if (!base_failed(status) && master->term == 0)
        status = clu__not_leader(master);
    return status;
}

/* A cell that begins gets an id of its own: an agent of another cell is not to obey this one. */
static struct base_status cell_create(struct clu_master *master) CH_WAITS BASE_MUST_CHECK;
static struct base_status cell_create(struct clu_master *master)
{
    struct base_arena arena;
    CLU_PB(Command) command;
    CLU_PB(CellCreate) create;
    CLU_PB(CommandReply) *reply = NULL;
    struct base_status status;

    base_arena_init(&arena);
    strata__clustermgr__v1__command__init(&command);
    strata__clustermgr__v1__cell_create__init(&create);
    create.cell = ch_data_str(master->cell);
    create.cell_id = ch_data_str(base_arena_printf(&arena, "%016" PRIx64 "%016" PRIx64,
                                                   ch_random(master->env), ch_random(master->env)));
    command.what_case = STRATA__CLUSTERMGR__V1__COMMAND__WHAT_CELL_CREATE;
    command.cell_create = &create;
    status =
        clu__propose(master, &command, ch_in(master->env, CLU_PROPOSE_MS * CH_MS), &arena, &reply);
    base_arena_free(&arena);
    return base_status_wrap(status, "create the cell");
}

/* A log that failed for good ends the process: its successor reads what is on the disk. */
void clu__log_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_master *master = arg;

    for (;;) {
        uint64_t term = 0;
        enum ch_outcome outcome = con_log_wait_lead(master->log, CH_NEVER, &term);

        if (outcome == CH_CLOSED) {
            const char *why = con_log_failure(master->log);

            ch_service_fail(master->env, base_status_make(BASE_UNAVAILABLE, "the log failed: %s",
                                                          why ? why : "closed"));
            return;
        }
        while (outcome == CH_OK && master->term == term)
            outcome = ch_cond_wait(&master->changed, CH_NEVER);
        if (outcome == CH_CANCELLED)
            return;
    }
}

void clu__lead_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_master *master = arg;

    while (!ch_cancelled()) {
        struct base_status status = BASE_STATUS_OK;

        if (master->term > 0 && !*master->state->cell_id) {
            status = cell_create(master);
        } else if (master->term > 0 && strcmp(master->state->cell, master->cell) != 0) {
            ch_service_fail(master->env, base_status_make(BASE_FAILED_PRECONDITION,
                                                          "the data is of cell \"%s\", not \"%s\"",
                                                          master->state->cell, master->cell));
            return;
        } else if (ch_cond_wait(&master->changed, CH_NEVER) != CH_OK) {
            return;
        }
        if (!base_failed(status))
            continue;
        if (master->term > 0)
            ch_warn(master->env, "%s", base_status_text(&status));
        base_status_free(&status);
        if (ch_sleep_until(master->env, ch_in(master->env, RETRY_MS * CH_MS)) != CH_TIMEOUT)
            return;
    }
}

void clu__retire(void *self)
{
    struct clu_master *master = self;

    /* The others still hear us: who leads now is known before anybody misses it. Failing is well:
     * alone, or all stop at once. */
    if (master->node && master->term > 0)
        base_status_drop(
            con_log_transfer(master->log, 0, ch_in(master->env, CLU_RETIRE_MS * CH_MS)));
}
