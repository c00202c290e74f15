/* leader.c: see leader.h.
 *
 * Invariants
 * 1. A call is sent again only when no member acted on the try before: it was refused, provably not
 *    seen, or may be repeated.
 * 2. Every call ends by its deadline. Between rounds in which nobody led there is a pause with
 *    jitter.
 * 3. A try never waits long for a member that is dead, paused or cut off: the watchdog asks a member
 *    that owes an answer whether it lives; when it does not say so, its client is replaced and all
 *    that waited for it goes on.
 * 4. A member that did not answer is asked whether it lives before it is used again, and one that
 *    just failed to say so is passed over for a while, whatever others say of it (their word is
 *    older than its silence).
 *
 * Happy path: the member that led last time is asked, and answers. */
#include "chassis/leader.h"

#include <stdio.h>
#include <stdlib.h>

#include "chassis/naming.h"
#include "grpc/health/v1/health.strata.h"

enum {
    MEMBERS_MAX = 16,
    BACKOFF_MS = 20,
    BACKOFF_MAX_MS = 200,
    OWING_MS = 500,        /* a call that is not answered for so long: does the member live? */
    SILENT_MS = 1500,      /* the same of a stream */
    OWING_MAX_MS = 4000,   /* doubles to this while the member says it lives */
    PING_MS = 700,         /* how long it has to say so */
    PING_SUSPECT_MS = 300, /* one that failed before */
    PASSED_OVER_MS = 500,  /* after it did not say so */
    DEADLINE_DEFAULT_S = 60,
    UNKNOWN_MAX = 5, /* tries of one call that some member may have acted on, and failed */
};

struct member {
    char *name, *address; /* name: as hints call it; of a plain address: that. NULL: a free slot */
    struct ch_client *client; /* NULL: none yet */
    size_t uses;
    bool gone;            /* no longer in the list: nobody asks it any more */
    bool suspect;         /* failed last time */
    ch_time passed_until; /* invariant 4 */
};

/* Something a member owes an answer to. */
struct owing {
    struct owing *next, **prev;
    size_t member;
    ch_time since, patience;
};

struct ch_leader {
    struct ch_env *env;
    struct ch_naming *naming;
    char *target;
    struct member members[MEMBERS_MAX];
    size_t at;       /* whom to ask first */
    size_t refusals; /* since a call last succeeded */
    struct owing *owed;
    struct ch_gate gate;    /* the watchdog, and who follows the names */
    struct ch_gate reapers; /* freeing clients that were replaced */
    struct ch_cond changed; /* members, or nobody is inside any more */
    struct ch_cond watch;   /* the watchdog's */
    ch_time watch_until;    /* when it looks by itself */
    bool watching, closed;
    size_t inside;
};

struct ch_leader_stream {
    struct ch_leader *leader;
    struct ch_client_stream *stream;
    struct owing owing;
    bool ended;
};

static ch_fiber_fn watchdog_fiber, follow_fiber, reaper_fiber;
static struct member *member_add(struct ch_leader *leader, const char *name, const char *address);

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
            base_status_drop(ch_gate_spawn(&leader->gate, "leader names", follow_fiber, leader));
    } else {
        char *text = strdup(target), *state = NULL;

        BASE_ASSERT(text);
        for (char *address = strtok_r(text, ", ", &state); address;
             address = strtok_r(NULL, ", ", &state))
            (void)member_add(leader, address, address);
        free(text);
    }
    return leader;
}

static void member_clear(struct member *member)
{
    free(member->name);
    free(member->address);
    *member = (struct member){ 0 };
}

void ch_leader_free(struct ch_leader *leader)
{
    if (!leader)
        return;
    leader->closed = true;
    ch_gate_stop(&leader->gate);
    ch_cond_broadcast(&leader->changed);
    for (size_t i = 0; i < MEMBERS_MAX; i++) {
        struct ch_client *client = leader->members[i].client;

        leader->members[i].client = NULL;
        if (client)
            ch_client_free(client);
    }
    ch_gate_close(&leader->reapers);
    ch_gate_join_always(&leader->reapers);
    while (leader->inside > 0)
        ch_cond_wait_always(&leader->changed);
    for (size_t i = 0; i < MEMBERS_MAX; i++)
        member_clear(&leader->members[i]);
    free(leader->target);
    free(leader);
}

static void leave(struct ch_leader *leader)
{
    if (--leader->inside == 0 && leader->closed)
        ch_cond_broadcast(&leader->changed);
}

/* ---- members ---- */

static bool listed(const struct member *member)
{
    return member->name && !member->gone;
}

size_t ch_leader_members(const struct ch_leader *leader)
{
    size_t count = 0;

    for (size_t i = 0; i < MEMBERS_MAX; i++)
        count += listed(&leader->members[i]);
    return count;
}

const char *ch_leader_address(const struct ch_leader *leader)
{
    return listed(&leader->members[leader->at]) ? leader->members[leader->at].address : "";
}

static struct member *member_find(struct ch_leader *leader, const char *name)
{
    for (size_t i = 0; i < MEMBERS_MAX; i++)
        if (listed(&leader->members[i]) && strcmp(leader->members[i].name, name) == 0)
            return &leader->members[i];
    return NULL;
}

/* NULL when there is no room. */
static struct member *member_add(struct ch_leader *leader, const char *name, const char *address)
{
    for (size_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *member = &leader->members[i];

        if (member->name)
            continue;
        *member = (struct member){ .name = strdup(name), .address = strdup(address) };
        BASE_ASSERT(member->name && member->address);
        ch_cond_broadcast(&leader->changed);
        return member;
    }
    return NULL;
}

static void member_release(struct member *member)
{
    if (--member->uses == 0 && member->gone && !member->client)
        member_clear(member);
}

/* Closes its connections: everybody who waits for it gets CANCELLED, or UNAVAILABLE. */
static void member_break(struct ch_leader *leader, struct member *member)
{
    struct ch_client *client = member->client;

    if (!client)
        return;
    member->client = NULL;
    base_status_drop(ch_gate_spawn(&leader->reapers, "leader reaper", reaper_fiber, client));
}

static void reaper_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    ch_client_free(arg);
}

static struct ch_client *client_of(struct ch_leader *leader, struct member *member)
{
    const struct ch_client_options options = { .no_retry = true };

    if (!member->client)
        member->client = ch_client_new(leader->env, member->address, &options);
    return member->client;
}

static bool passed_over(const struct ch_leader *leader, const struct member *member)
{
    return member->suspect && ch_now(leader->env) < member->passed_until;
}

/* Of a refusal that says "it is at X". NULL: it does not, or X cannot be asked. */
static struct member *hinted(struct ch_leader *leader, const struct base_status *status)
{
    static const char hint[] = "not the leader; it is at ";
    const char *at = strstr(base_status_text(status), hint);
    char name[256];
    struct member *member;
    size_t len;

    if (!at)
        return NULL;
    at += sizeof(hint) - 1;
    len = strcspn(at, " ,;\n\t)\"");
    if (len == 0 || len >= sizeof(name))
        return NULL;
    memcpy(name, at, len);
    name[len] = '\0';
    member = member_find(leader, name);
    if (!member && *leader->target != '/' && strchr(name, ':'))
        member = member_add(leader, name, name);
    return member;
}

/* After the member `asked` refused or failed: whom to ask now. */
static void go_on(struct ch_leader *leader, size_t asked, const struct base_status *status)
{
    struct member *hint = status ? hinted(leader, status) : NULL;
    size_t count = ch_leader_members(leader), next = asked;
    bool believed;

    if (leader->at != asked || count == 0)
        return; /* another fiber went on already */
    /* Hints may be stale and point in a circle: every second round they are not believed. */
    believed = leader->refusals++ / count % 2 == 0;
    if (hint && believed && hint != &leader->members[asked] && !passed_over(leader, hint)) {
        leader->at = (size_t)(hint - leader->members);
        return;
    }
    for (size_t i = 1; i <= 2 * MEMBERS_MAX; i++) {
        const struct member *member = &leader->members[(asked + i) % MEMBERS_MAX];

        next = (asked + i) % MEMBERS_MAX;
        if (listed(member) && (!passed_over(leader, member) || i > MEMBERS_MAX))
            break;
    }
    leader->at = next;
}

/* ---- does a member live? ---- */

static bool ping(struct ch_leader *leader, struct member *member, int64_t patience_ms) CH_WAITS;
static bool ping(struct ch_leader *leader, struct member *member, int64_t patience_ms)
{
    struct ch_call_options options = { .deadline = ch_in(leader->env, patience_ms * CH_MS),
                                       .no_retry = true };
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    enum base_code code = base_status_drop(
        ch_client_call(client_of(leader, member),
                       &grpc__health__v1__health__service.methods[GRPC__HEALTH__V1__HEALTH__CHECK],
                       &request, &options, &arena, &reply));
    bool lives =
        code != BASE_UNAVAILABLE && code != BASE_DEADLINE_EXCEEDED && code != BASE_CANCELLED;

    base_arena_free(&arena);
    member->suspect = !lives;
    if (!lives)
        member->passed_until = ch_in(leader->env, PASSED_OVER_MS * CH_MS);
    return lives;
}

static void owe(struct ch_leader *leader, struct owing *owing, size_t member, int64_t patience_ms)
{
    owing->member = member;
    owing->since = ch_now(leader->env);
    owing->patience = patience_ms * CH_MS;
    owing->next = leader->owed;
    owing->prev = &leader->owed;
    if (owing->next)
        owing->next->prev = &owing->next;
    leader->owed = owing;
    if (!leader->watching) {
        struct base_status status =
            ch_gate_spawn(&leader->gate, "leader watchdog", watchdog_fiber, leader);

        leader->watching = !base_failed(status);
        base_status_free(&status); /* the next call tries again */
    } else if (owing->since + owing->patience < leader->watch_until) {
        ch_cond_signal(&leader->watch);
    }
}

static void owe_no_more(struct owing *owing)
{
    *owing->prev = owing->next;
    if (owing->next)
        owing->next->prev = owing->prev;
}

/* One that owes for too long, or NULL and when to look again. */
static struct owing *overdue(struct ch_leader *leader, ch_time *look)
{
    ch_time now = ch_now(leader->env);

    *look = CH_NEVER;
    for (struct owing *owing = leader->owed; owing; owing = owing->next) {
        if (owing->since + owing->patience <= now)
            return owing;
        if (owing->since + owing->patience < *look)
            *look = owing->since + owing->patience;
    }
    return NULL;
}

static void more_patience(struct ch_leader *leader, size_t member)
{
    ch_time now = ch_now(leader->env);

    for (struct owing *owing = leader->owed; owing; owing = owing->next) {
        if (owing->member != member || owing->since + owing->patience > now)
            continue;
        owing->since = now;
        if (owing->patience < OWING_MAX_MS * CH_MS)
            owing->patience *= 2;
    }
}

static void watchdog_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_leader *leader = arg;

    while (!ch_cancelled()) {
        struct owing *owing = overdue(leader, &leader->watch_until);
        size_t at;

        if (!owing) {
            (void)!ch_cond_wait(&leader->watch, leader->watch_until);
            continue;
        }
        at = owing->member;
        leader->members[at].uses++;
        if (!ping(leader, &leader->members[at], PING_MS) && !ch_cancelled())
            member_break(leader, &leader->members[at]);
        more_patience(leader, at); /* also with those that just end */
        member_release(&leader->members[at]);
    }
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
    if (!listed(&leader->members[leader->at]))
        go_on(leader, leader->at, NULL);
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
    struct member *member = &leader->members[at];
    struct ch_call_options call = { .deadline = options->deadline, .no_retry = true };
    struct base_status status;
    struct owing owing;
    bool bounded = false;

    *again = true;
    member->uses++;
    if (member->suspect && !ping(leader, member, PING_SUSPECT_MS)) {
        status = base_status_make(BASE_UNAVAILABLE, "%s to %s: it does not answer", method->name,
                                  member->address);
        go_on(leader, at, NULL);
        member_release(member);
        return status;
    }
    options->sent = ch_now(leader->env);
    if (options->attempt && options->sent + options->attempt < call.deadline) {
        call.deadline = options->sent + options->attempt;
        bounded = true;
    }
    owe(leader, &owing, at, OWING_MS);
    status = ch_client_call(client_of(leader, member), method, request, &call, arena, reply);
    owe_no_more(&owing);
    if (status.code == BASE_CANCELLED && !ch_cancelled() && !leader->closed)
        status.code = BASE_UNAVAILABLE; /* the watchdog gave the member up */
    if (!base_failed(status)) {
        leader->refusals = 0;
        member->suspect = false;
    } else if (ch_leader_refused(&status)) {
        member->suspect = false;
        go_on(leader, at, &status);
    } else if (status.code == BASE_UNAVAILABLE ||
               (status.code == BASE_DEADLINE_EXCEEDED && bounded)) {
        options->outcome_unknown = options->outcome_unknown || call.outcome_unknown;
        *again = options->repeatable || method->idempotent || !call.outcome_unknown;
        if (status.code == BASE_UNAVAILABLE) {
            member->suspect = true;
            go_on(leader, at, NULL);
        }
        if (!*again)
            status = base_status_wrap(status, "outcome unknown");
    } else {
        options->outcome_unknown = options->outcome_unknown || call.outcome_unknown;
        *again = false;
    }
    *again = *again && base_failed(status);
    member_release(member);
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
    struct member *member = &leader->members[stream->owing.member];

    if (stream->ended)
        return;
    stream->ended = true;
    owe_no_more(&stream->owing);
    if (ch_leader_refused(status)) {
        go_on(leader, stream->owing.member, status);
    } else if (base_failed(*status) && !ch_cancelled()) {
        member->suspect = member->suspect || status->code == BASE_UNAVAILABLE;
        go_on(leader, stream->owing.member, NULL);
    }
}

struct base_status ch_leader_open(struct ch_leader *leader, const struct ch_method *method,
                                  const void *request, ch_time deadline,
                                  struct ch_leader_stream **out)
{
    struct ch_call_options options = { .deadline = deadline };
    struct ch_leader_stream *stream = NULL;
    struct member *member;
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
    owe(leader, &stream->owing, at, OWING_MS);
    if (member->suspect && !ping(leader, member, PING_SUSPECT_MS))
        status = base_status_make(BASE_UNAVAILABLE, "%s to %s: it does not answer", method->name,
                                  member->address);
    if (!base_failed(status))
        status = ch_client_open(client_of(leader, member), method, &options, &stream->stream);
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
        stream->owing.patience = SILENT_MS * CH_MS;
    }
    return status;
}

void ch_leader_close(struct ch_leader_stream *stream)
{
    struct ch_leader *leader = stream->leader;

    if (!stream->ended)
        owe_no_more(&stream->owing);
    if (stream->stream)
        ch_stream_free(stream->stream);
    member_release(&leader->members[stream->owing.member]);
    free(stream);
    leave(leader);
}

/* ---- names ---- */

/* "/local/blockmaster/2" below "/local/blockmaster". */
static bool is_task(const char *path, const char *target)
{
    size_t len = strlen(target);

    return strncmp(path, target, len) == 0 && path[len] == '/' && path[len + 1] &&
           strspn(path + len + 1, "0123456789") == strlen(path + len + 1);
}

static void take_entry(struct ch_leader *leader, const char *path, const char *address)
{
    struct member *member = member_find(leader, path);

    if (!member) {
        (void)member_add(leader, path, address);
    } else if (strcmp(member->address, address) != 0) {
        free(member->address);
        member->address = strdup(address);
        BASE_ASSERT(member->address);
        member_break(leader, member);
        member->suspect = false;
    }
}

static void take_names(struct ch_leader *leader, const struct ch_name_entry *entries, size_t count)
{
    for (size_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *member = &leader->members[i];
        bool there = false;

        for (size_t k = 0; listed(member) && k < count; k++)
            there = there || strcmp(entries[k].path, member->name) == 0;
        if (!listed(member) || there)
            continue;
        member->gone = true;
        member_break(leader, member);
        if (member->uses == 0)
            member_clear(member);
    }
    for (size_t i = 0; i < count; i++) {
        char address[256];

        snprintf(address, sizeof(address), "%.*s", BASE_FMT(entries[i].value));
        address[strcspn(address, " ,\n")] = '\0';
        if (*address && is_task(entries[i].path, leader->target))
            take_entry(leader, entries[i].path, address);
    }
}

static void follow_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_leader *leader = arg;
    struct ch_name_watch *watch = ch_name_watch(leader->naming, leader->target);
    uint64_t generation = 0;

    while (ch_name_watch_wait(watch, &generation, CH_NEVER) == CH_OK) {
        size_t count = 0;
        const struct ch_name_entry *entries = ch_name_watch_entries(watch, &count);

        take_names(leader, entries, count);
    }
    ch_name_watch_free(watch);
}
