/* leases.c: what only the leader knows: until when sessions have their leases, and when machines
 * were last heard of. Their ends are proposed as commands, so that the state itself reads no
 * clock.
 *
 * Invariants
 * 1. A session's end is proposed only after its lease surely ended on the client's side: the
 * client counts from before it sent its keep-alive, we from when it arrived, plus a margin of an
 * eighth of the lease and 200 ms for clocks that run at different rates.
 * 2. A member that begins to lead, or a leader that finds it was paused, knows nothing of the
 * keep-alives it missed: every session gets a whole new lease, every machine its whole time.
 * 3. Once its end is being proposed a session is not kept alive any more. */
#include <inttypes.h>

#include "chassis/log.h"
#include "master.h"

enum { TICK_MS = 250, PAUSED_MS = 1000 };

static ch_time lease_end(struct clu_master *master, const struct clu_session *session)
{
    ch_time lease = session->lease_ms * CH_MS;

    return ch_in(master->env, lease + lease / 8 + 200 * CH_MS);
}

bool clu__lease_extend(struct clu_master *master, uint64_t id)
{
    struct clu_session *session = clu__session_find(master->state, id);

    if (!session || session->ending)
        return false;
    session->lease_until = lease_end(master, session);
    return true;
}

void clu__machine_heard(struct clu_master *master, struct clu_machine *machine)
{
    machine->heard_at = ch_now(master->env);
}

/* Invariant 2. `anew`: this member has just begun to lead. */
static void grant_all(struct clu_master *master, bool anew)
{
    struct clu_session *session;
    struct clu_machine *machine;

    RB_FOREACH(session, clu_sessions, &master->state->sessions)
    {
        session->lease_until = lease_end(master, session);
        /* An end proposed under an earlier leadership has come to be by now, or never will. */
        session->ending = session->ending && !anew;
    }
    RB_FOREACH(machine, clu_machines, &master->state->machines)
    machine->heard_at = ch_now(master->env);
}

static CH_WAITS void session_end(struct clu_master *master, uint64_t id)
{
    struct base_arena arena;
    CLU_PB(Command) command;
    CLU_PB(CloseSessionRequest) close;
    CLU_PB(CommandReply) *reply = NULL;
    struct clu_session *session = clu__session_find(master->state, id);
    struct base_status status;

    base_arena_init(&arena);
    ch_info(master->env, "session %" PRIu64 " of %s was not kept alive: its locks are free", id,
            session->owner);
    strata__clustermgr__v1__command__init(&command);
    strata__clustermgr__v1__close_session_request__init(&close);
    close.session = id;
    command.what_case = STRATA__CLUSTERMGR__V1__COMMAND__WHAT_CLOSE_SESSION;
    command.close_session = &close;
    session->ending = true;
    status = clu__propose(master, &command, clu__propose_deadline(master, NULL), &arena, &reply);
    if (base_failed(status))
        ch_warn(master->env, "end session %" PRIu64 ": %s", id, base_status_text(&status));
    else
        ch_count(master->metrics.sessions_ended, 1);
    session = clu__session_find(master->state, id);
    if (session) {
        /* It failed: a later round tries again; the client is to open a new one all the same. */
        session->lease_until = ch_in(master->env, TICK_MS * CH_MS);
    }
    base_status_free(&status);
    base_arena_free(&arena);
}

static CH_WAITS void machine_end(struct clu_master *master, struct clu_machine *machine)
{
    struct base_arena arena;
    CLU_PB(Command) command;
    CLU_PB(MachineDown) down;
    CLU_PB(CommandReply) *reply = NULL;
    const char *name;
    struct base_status status;

    base_arena_init(&arena);
    name = base_arena_strdup(&arena, machine->name);
    ch_warn(master->env, "machine %s is not heard of: taken for dead", name);
    strata__clustermgr__v1__command__init(&command);
    strata__clustermgr__v1__machine_down__init(&down);
    down.name = ch_data_str(name);
    command.what_case = STRATA__CLUSTERMGR__V1__COMMAND__WHAT_MACHINE_DOWN;
    command.machine_down = &down;
    status = clu__propose(master, &command, clu__propose_deadline(master, NULL), &arena, &reply);
    if (base_failed(status))
        ch_warn(master->env, "machine %s down: %s", name, base_status_text(&status));
    else
        ch_count(master->metrics.machines_lost, 1);
    base_status_free(&status);
    base_arena_free(&arena);
}

/* Ends one that is due; false when none is. One at a time: after the wait everything is looked at
 * anew. */
static CH_WAITS bool due_end(struct clu_master *master, ch_time *next)
{
    ch_time now = ch_now(master->env);
    struct clu_session *session;
    struct clu_machine *machine;

    RB_FOREACH(session, clu_sessions, &master->state->sessions)
    {
        if (session->lease_until == 0)
            session->lease_until = lease_end(master, session);
        if (session->lease_until <= now) {
            session_end(master, session->id);
            return true;
        }
        if (session->lease_until < *next)
            *next = session->lease_until;
    }
    RB_FOREACH(machine, clu_machines, &master->state->machines)
    {
        ch_time end = machine->heard_at + master->config->machine_dead_after;

        if (!machine->up)
            continue;
        if (end <= now) {
            machine_end(master, machine);
            return true;
        }
        if (end < *next)
            *next = end;
    }
    return false;
}

void clu__leases_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_master *master = arg;
    ch_time next = 0;
    uint64_t term = 0; /* under which the leases were granted */

    while (!ch_cancelled()) {
        ch_time now = ch_now(master->env), woken;
        struct clu_machine *machine;
        int64_t up = 0;

        if (master->term == 0) {
            if (ch_cond_wait(&master->changed, CH_NEVER) != CH_OK)
                return;
            continue;
        }
        if (master->term != term)
            grant_all(master, true);
        term = master->term;
        next = now + TICK_MS * CH_MS; /* new ones may be shorter than any there is */
        while (!ch_cancelled() && master->term == term && due_end(master, &next))
            next = ch_in(master->env, TICK_MS * CH_MS);
        RB_FOREACH(machine, clu_machines, &master->state->machines)
        up += machine->up;
        master->metrics.machines_up->value = up;
        if (ch_sleep_until(master->env, next) != CH_TIMEOUT)
            return;
        woken = ch_now(master->env);
        if (woken - next > PAUSED_MS * CH_MS) {
            ch_warn(master->env, "was paused for %" PRId64 " ms: all leases begin anew",
                    (int64_t)((woken - next) / CH_MS));
            grant_all(master, false);
        }
    }
}
