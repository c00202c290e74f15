/* leader.c: see leader.h. Who the members are and whether they live: leader_members.c.
 *
 * Invariants
 * 1. A call is sent again only when no member acted on the try before: it was refused, provably not
 *    seen, or may be repeated.
 * 2. Every call ends by its deadline. Between rounds in which nobody led there is a pause with
 *    jitter.
 *
 * Happy path: the member that led last time is asked, and answers. */
#include "leader_int.h"

#include <stdlib.h>

enum {
    BACKOFF_MS = 20,
    BACKOFF_MAX_MS = 200,
    DEADLINE_DEFAULT_S = 60,
    UNKNOWN_MAX = 5, /* tries of one call that some member may have acted on, and failed */
};

struct ch_leader_stream {
    struct ch_leader *leader;
    struct ch_client_stream *stream;
    struct ch__owing owing;
    bool ended;
};

/* ---- making and freeing ---- */

struct ch_leader *ch_leader_new(struct ch_env *env, const char *target, struct ch_naming *naming)
{
    struct ch_leader *leader = calloc(1, sizeof(*leader));

    BASE_ASSERT(leader);
    leader->env = env;
    leader->naming = naming;
    leader->target = strdup(target);
    BASE_ASSERT(leader->target);
    ch_gate_init(&leader->gate, env, "leader");
    ch_gate_init(&leader->reapers, env, "leader reapers");
    ch_cond_init(&leader->changed);
    ch_cond_init(&leader->watch);
    if (*target == '/') {
        if (naming)
            base_status_drop(
                ch_gate_spawn(&leader->gate, "leader names", ch__leader_follow_fiber, leader));
    } else {
        char *text = strdup(target), *state = NULL;

        BASE_ASSERT(text);
        for (char *address = strtok_r(text, ", ", &state); address;
             address = strtok_r(NULL, ", ", &state))
            (void)ch__leader_member_add(leader, address, address);
        free(text);
    }
    return leader;
}

void ch_leader_free(struct ch_leader *leader)
{
    if (!leader)
        return;
    leader->closed = true;
    ch_gate_stop(&leader->gate);
    ch_cond_broadcast(&leader->changed);
    for (size_t i = 0; i < CH__LEADER_MEMBERS_MAX; i++) {
        struct ch_client *client = leader->members[i].client;

        leader->members[i].client = NULL;
        if (client)
            ch_client_free(client);
    }
    ch_gate_close(&leader->reapers);
    ch_gate_join_always(&leader->reapers);
    while (leader->inside > 0)
        ch_cond_wait_always(&leader->changed);
    for (size_t i = 0; i < CH__LEADER_MEMBERS_MAX; i++)
        ch__leader_member_clear(&leader->members[i]);
    free(leader->target);
    free(leader);
}

static void leave(struct ch_leader *leader)
{
    if (--leader->inside == 0 && leader->closed)
        ch_cond_broadcast(&leader->changed);
}

/* ---- calls ---- */

bool ch_leader_refused(const struct base_status *status)
{
    return status->code == BASE_FAILED_PRECONDITION &&
           strstr(base_status_text(status), "not the leader") != NULL;
}

ch_time ch_leader_backoff(struct ch_env *env, unsigned round)
{
    uint64_t ms = (uint64_t)BACKOFF_MS << (round < 8 ? round : 8);

    if (ms > BACKOFF_MAX_MS)
        ms = BACKOFF_MAX_MS;
    return CH_MS + (ch_time)ch_random_below(env, ms * CH_MS);
}

/* Waits until there is a member to ask. */
static struct base_status members_wait(struct ch_leader *leader,
                                       ch_time deadline) CH_WAITS BASE_MUST_CHECK;
static struct base_status members_wait(struct ch_leader *leader, ch_time deadline)
{
    while (!leader->closed && ch_leader_members(leader) == 0) {
        enum ch_outcome outcome;

        if (*leader->target != '/' || !leader->naming)
            return base_status_make(BASE_FAILED_PRECONDITION, "no members are configured");
        outcome = ch_cond_wait(&leader->changed, deadline);
        if (outcome != CH_OK)
            return base_status_wrap(ch_outcome_status(outcome, "nobody serves it"), "%s",
                                    leader->target);
    }
    if (leader->closed)
        return base_status_make(BASE_CANCELLED, "%s: its client is closed", leader->target);
    if (!ch__leader_listed(&leader->members[leader->at]))
        ch__leader_go_on(leader, leader->at, NULL);
    return BASE_STATUS_OK;
}

/* One try. *again: nothing was done, or it may be done again. */
static struct base_status attempt(struct ch_leader *leader, const struct ch_method *method,
                                  const void *request, struct ch_leader_options *options,
                                  struct base_arena *arena, void **reply, bool *again) CH_WAITS;
static struct base_status attempt(struct ch_leader *leader, const struct ch_method *method,
                                  const void *request, struct ch_leader_options *options,
                                  struct base_arena *arena, void **reply, bool *again)
{
    size_t at = leader->at;
    struct ch__member *member = &leader->members[at];
    struct ch_call_options call = { .deadline = options->deadline, .no_retry = true };
    struct base_status status;
    struct ch__owing owing;
    bool bounded = false;

    *again = true;
    member->uses++;
    if (member->suspect && !ch__leader_ping(leader, member, CH__LEADER_PING_SUSPECT_MS)) {
        status = base_status_make(BASE_UNAVAILABLE, "%s to %s: it does not answer", method->name,
                                  member->address);
        ch__leader_go_on(leader, at, NULL);
        ch__leader_member_release(member);
        return status;
    }
    options->sent = ch_now(leader->env);
    if (options->attempt && options->sent + options->attempt < call.deadline) {
        call.deadline = options->sent + options->attempt;
        bounded = true;
    }
    ch__leader_owe(leader, &owing, at, CH__LEADER_OWING_MS);
    status =
        ch_client_call(ch__leader_client(leader, member), method, request, &call, arena, reply);
    ch__leader_owe_no_more(&owing);
    if (status.code == BASE_CANCELLED && !ch_cancelled() && !leader->closed)
        status.code = BASE_UNAVAILABLE; /* the watchdog gave the member up */
    if (!base_failed(status)) {
        leader->refusals = 0;
        member->suspect = false;
    } else if (ch_leader_refused(&status)) {
        member->suspect = false;
        ch__leader_go_on(leader, at, &status);
    } else if (status.code == BASE_UNAVAILABLE ||
               (status.code == BASE_DEADLINE_EXCEEDED && bounded)) {
        options->outcome_unknown = options->outcome_unknown || call.outcome_unknown;
        *again = options->repeatable || method->idempotent || !call.outcome_unknown;
        if (status.code == BASE_UNAVAILABLE) {
            member->suspect = true;
            ch__leader_go_on(leader, at, NULL);
        }
        if (!*again)
            status = base_status_wrap(status, "outcome unknown");
    } else {
        options->outcome_unknown = options->outcome_unknown || call.outcome_unknown;
        *again = false;
    }
    *again = *again && base_failed(status);
    ch__leader_member_release(member);
    return status;
}

static struct base_status calls(struct ch_leader *leader, const struct ch_method *method,
                                const void *request, struct ch_leader_options *options,
                                struct base_arena *arena, void **reply, bool *maybe) CH_WAITS;
/* *maybe: some member may have acted on it. */
static struct base_status calls(struct ch_leader *leader, const struct ch_method *method,
                                const void *request, struct ch_leader_options *options,
                                struct base_arena *arena, void **reply, bool *maybe)
{
    unsigned unknown = 0;

    for (unsigned tries = 1;; tries++) {
        bool again = false;
        size_t count;
        ch_time pause = 0;
        struct base_status status = members_wait(leader, options->deadline);

        if (!base_failed(status))
            status = attempt(leader, method, request, options, arena, reply, &again);
        if (options->outcome_unknown && again) {
            options->outcome_unknown = false;
            *maybe = true;
            again = ++unknown < UNKNOWN_MAX;
        }
        if (!again)
            return status;
        count = ch_leader_members(leader);
        if (count == 0 || tries % count == 0)
            pause = ch_leader_backoff(leader->env, tries / (unsigned)(count ? count : 1));
        if (ch_in(leader->env, pause) >= options->deadline) {
            status.code = BASE_DEADLINE_EXCEEDED;
            return base_status_wrap(status, "no leader answered in time");
        }
        if (ch_cancelled() ||
            (pause && ch_sleep_until(leader->env, ch_in(leader->env, pause)) == CH_CANCELLED)) {
            status.code = BASE_CANCELLED;
            return base_status_wrap(status, "cancelled");
        }
        base_status_free(&status);
    }
}

static ch_time deadline_of(struct ch_leader *leader, ch_time given)
{
    ch_time deadline = ch_context_deadline(given ? given : CH_NEVER);

    return deadline == CH_NEVER ? ch_in(leader->env, DEADLINE_DEFAULT_S * CH_S) : deadline;
}

struct base_status ch_leader_call(struct ch_leader *leader, const struct ch_method *method,
                                  const void *request, struct ch_leader_options *options,
                                  struct base_arena *arena, void **reply)
{
    struct ch_leader_options own = { 0 };
    struct base_status status;
    bool maybe = false;

    options = options ? options : &own;
    options->deadline = deadline_of(leader, options->deadline);
    options->outcome_unknown = false;
    leader->inside++;
    status = calls(leader, method, request, options, arena, reply, &maybe);
    options->outcome_unknown = (options->outcome_unknown || maybe) && base_failed(status);
    leave(leader);
    return status;
}

/* ---- streams ---- */

/* It ended, in whatever way: the next is opened elsewhere, unless it ended well. */
static void stream_ended(struct ch_leader_stream *stream, const struct base_status *status)
{
    struct ch_leader *leader = stream->leader;
    struct ch__member *member = &leader->members[stream->owing.member];

    if (stream->ended)
        return;
    stream->ended = true;
    ch__leader_owe_no_more(&stream->owing);
    if (ch_leader_refused(status)) {
        ch__leader_go_on(leader, stream->owing.member, status);
    } else if (base_failed(*status) && !ch_cancelled()) {
        member->suspect = member->suspect || status->code == BASE_UNAVAILABLE;
        ch__leader_go_on(leader, stream->owing.member, NULL);
    }
}

struct base_status ch_leader_open(struct ch_leader *leader, const struct ch_method *method,
                                  const void *request, ch_time deadline,
                                  struct ch_leader_stream **out)
{
    struct ch_call_options options = { .deadline = deadline };
    struct ch_leader_stream *stream = NULL;
    struct ch__member *member;
    struct base_status status;
    size_t at;

    *out = NULL;
    leader->inside++;
    status = members_wait(leader, deadline ? deadline : CH_NEVER);
    if (base_failed(status)) {
        leave(leader);
        return status;
    }
    at = leader->at;
    member = &leader->members[at];
    member->uses++;
    stream = calloc(1, sizeof(*stream));
    BASE_ASSERT(stream);
    stream->leader = leader;
    ch__leader_owe(leader, &stream->owing, at, CH__LEADER_OWING_MS);
    if (member->suspect && !ch__leader_ping(leader, member, CH__LEADER_PING_SUSPECT_MS))
        status = base_status_make(BASE_UNAVAILABLE, "%s to %s: it does not answer", method->name,
                                  member->address);
    if (!base_failed(status))
        status =
            ch_client_open(ch__leader_client(leader, member), method, &options, &stream->stream);
    if (!base_failed(status))
        status = ch_stream_send(stream->stream, request);
    if (!base_failed(status))
        status = ch_stream_close_send(stream->stream);
    if (base_failed(status)) {
        stream_ended(stream, &status);
        ch_leader_close(stream);
        return status;
    }
    *out = stream;
    return status;
}

struct base_status ch_leader_recv(struct ch_leader_stream *stream, struct base_arena *arena,
                                  void **message)
{
    struct base_status status = ch_stream_recv(stream->stream, arena, message);

    if (base_failed(status) || !*message) {
        stream_ended(stream, &status);
    } else {
        stream->leader->members[stream->owing.member].suspect = false;
        stream->owing.since = ch_now(stream->leader->env);
        stream->owing.patience = CH__LEADER_SILENT_MS * CH_MS;
    }
    return status;
}

void ch_leader_close(struct ch_leader_stream *stream)
{
    struct ch_leader *leader = stream->leader;

    if (!stream->ended)
        ch__leader_owe_no_more(&stream->owing);
    if (stream->stream)
        ch_stream_free(stream->stream);
    ch__leader_member_release(&leader->members[stream->owing.member]);
    free(stream);
    leave(leader);
}
