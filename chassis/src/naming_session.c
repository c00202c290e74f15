/* naming_session.c: the one session of a naming client, and the fiber that keeps it alive.
 *
 * 1. The session is sure to live until session_until: the time the last answered OpenSession or
 *    KeepAlive was SENT, plus the lease, less a margin for clocks that run apart. The server
 *    counts from a later moment, so this side always gives it up first.
 * 2. Given up is given up: an answer that comes after session_until does not bring it back
 *    (someone may have seen it lost).
 * 3. At most one is open; it is opened when first needed, and anew when needed after a loss. Its
 *    ephemeral nodes and locks are gone with it: their owners are told (locks) or must look
 *    (nodes).
 * The keeper sends every third of the lease. */
#include "naming_int.h"

static void session_set(struct ch_naming *naming, uint64_t session, ch_time sent, uint32_t lease_ms)
{
    naming->session = session;
    naming->session_sent = sent;
    naming->lease = lease_ms * CH_MS;
    naming->session_until = sent + naming->lease - naming->lease / CH__LEASE_MARGIN;
    ch_cond_broadcast(&naming->changed);
}

static bool session_sure(const struct ch_naming *naming)
{
    return naming->session != 0 && ch_now(naming->env) < naming->session_until;
}

static void session_lose(struct ch_naming *naming, const char *why)
{
    uint64_t session = naming->session;
    if (session == 0)
        return;
    naming->session = 0;
    naming->session_until = 0;
    ch_count(naming->lost, 1);
    ch_warn(naming->env, "naming: session %llu is lost: %s", (unsigned long long)session, why);
    ch__locks_lost(naming, session);
    ch_cond_broadcast(&naming->changed);
}

void ch__session_gone(struct ch_naming *naming, uint64_t session)
{
    if (naming->session == session)
        session_lose(naming, "the master has ended it");
}

/* ---- the keeper ---- */

/* One try; true when the session was kept. */
static bool keep_once(struct ch_naming *naming) CH_WAITS;
static bool keep_once(struct ch_naming *naming)
{
    CH__PB(KeepAliveRequest) request = STRATA__CLUSTERMGR__V1__KEEP_ALIVE_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply = NULL;
    ch_time sent = 0, until = naming->session_until;
    uint64_t session = naming->session;
    request.session = session;
    struct base_status status = ch__naming_call(naming, CH__NAMES(KEEP_ALIVE), &request, true, 0,
                                                until, &arena, &reply, &sent);
    bool kept = false;
    if (naming->session != session) {
        base_status_free(&status); /* ended meanwhile */
    } else if (ch_now(naming->env) >= until) {
        base_status_free(&status);
        session_lose(naming, "no keep-alive was answered within its lease");
    } else if (!base_failed(status)) {
        uint32_t lease_ms = ((const CH__PB(KeepAliveReply) *)reply)->lease_ms;
        session_set(naming, session, sent, lease_ms ? lease_ms : (uint32_t)(naming->lease / CH_MS));
        kept = true;
    } else if (status.code == BASE_NOT_FOUND) {
        session_lose(naming, base_status_text(&status));
        base_status_free(&status);
    } else {
        base_status_free(&status);
    }
    base_arena_free(&arena);
    return kept;
}

static void keeper_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_naming *naming = arg;
    unsigned failures = 0;
    enum ch_outcome outcome = CH_OK;
    while (!naming->closed && outcome != CH_CANCELLED) {
        if (naming->session == 0) {
            failures = 0;
            outcome = ch_cond_wait(&naming->changed, CH_NEVER);
            continue;
        }
        ch_time now = ch_now(naming->env), next = naming->session_sent + naming->lease / 3;
        if (now >= naming->session_until) {
            session_lose(naming, "no keep-alive was answered within its lease");
        } else if (now < next && failures == 0) {
            outcome = ch_cond_wait(&naming->changed, next);
        } else if (keep_once(naming)) {
            failures = 0;
        } else if (naming->session) {
            ch_time pause = ch_in(naming->env, ch_leader_backoff(naming->env, ++failures));
            outcome = ch_sleep_until(naming->env,
                                     pause < naming->session_until ? pause : naming->session_until);
        }
        if (ch_cancelled())
            break;
    }
    naming->keeper = false;
}

static struct base_status keeper_start(struct ch_naming *naming)
{
    if (naming->keeper)
        return BASE_STATUS_OK;
    struct base_status status =
        ch_gate_spawn(&naming->gate, "naming session", keeper_fiber, naming);
    naming->keeper = !base_failed(status);
    return status;
}

/* ---- opening, closing ---- */

static struct base_status session_open(struct ch_naming *naming, ch_time deadline) CH_WAITS;
static struct base_status session_open(struct ch_naming *naming, ch_time deadline)
{
    CH__PB(OpenSessionRequest) request = STRATA__CLUSTERMGR__V1__OPEN_SESSION_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    request.lease_ms = CH_SESSION_LEASE_MS;
    if (naming->owner)
        request.owner = ch_data_str(naming->owner);
    /* The moment before the last try was sent is what counts. An open whose answer was lost leaves
     * a session behind that nobody keeps alive: it ends by itself. */
    ch_time sent;
    struct base_status status = ch__naming_call(naming, CH__NAMES(OPEN_SESSION), &request, true, 0,
                                                deadline, &arena, &reply, &sent);
    if (!base_failed(status) && naming->closed)
        status = base_status_make(BASE_CANCELLED, "naming is being closed");
    if (!base_failed(status)) {
        const CH__PB(OpenSessionReply) *opened = reply;
        session_set(naming, opened->session, sent,
                    opened->lease_ms ? opened->lease_ms : CH_SESSION_LEASE_MS);
        if (!session_sure(naming)) {
            naming->session = 0;
            status = base_status_make(BASE_UNAVAILABLE, "the answer took longer than the lease");
        }
    }
    base_arena_free(&arena);
    return base_status_wrap(status, "open a session");
}

struct base_status ch__session_get(struct ch_naming *naming, ch_time deadline, uint64_t *session)
{
    while (!session_sure(naming)) {
        if (naming->closed)
            return base_status_make(BASE_CANCELLED, "naming is being closed");
        if (naming->session) { /* past its time, and the keeper has not run yet */
            session_lose(naming, "no keep-alive was answered within its lease");
        } else if (naming->opening) {
            enum ch_outcome outcome = ch_cond_wait(&naming->changed, ch_context_deadline(deadline));
            if (outcome != CH_OK)
                return ch_outcome_status(outcome, "open a session");
        } else {
            naming->opening = true;
            struct base_status status = session_open(naming, deadline);
            naming->opening = false;
            ch_cond_broadcast(&naming->changed);
            if (base_failed(status))
                return status;
            status = keeper_start(naming);
            if (base_failed(status))
                return status;
        }
    }
    *session = naming->session;
    return BASE_STATUS_OK;
}

static void close_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_naming *naming = arg;
    CH__PB(CloseSessionRequest) request = STRATA__CLUSTERMGR__V1__CLOSE_SESSION_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    request.session = naming->session;
    (void)base_status_drop(
        ch__naming_call(naming, CH__NAMES(CLOSE_SESSION), &request, true, CH__FAREWELL_MS / 2,
                        ch_in(naming->env, CH__FAREWELL_MS * CH_MS), &arena, &reply, NULL));
    base_arena_free(&arena);
}

void ch__session_close(struct ch_naming *naming)
{
    if (!session_sure(naming))
        return;
    struct base_status status =
        ch_gate_spawn(&naming->farewells, "naming close", close_fiber, naming);
    (void)base_status_drop(status); /* the lease ends it */
    ch_gate_close(&naming->farewells);
    ch_gate_join_always(&naming->farewells);
    ch__locks_lost(naming, naming->session);
    naming->session = 0;
}
