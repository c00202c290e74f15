/* leader_members.c: the members of a group as leader.c knows them.
 *
 * Invariants
 * 1. A try never waits long for a member that is dead, paused or cut off: the watchdog asks a
 * member    that owes an answer whether it lives; when it does not say so, its client is replaced
 * and all    that waited for it goes on.
 * 2. A member that did not answer is asked whether it lives before it is used again, and one that
 *    just failed to say so is passed over for a while, whatever others say of it (their word is
 *    older than its silence).
 * 3. A member in use keeps its place in the table, also when the names know it no longer. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/naming.h"
#include "grpc/health/v1/health.strata.h"
#include "leader_int.h"

enum {
    OWING_MAX_MS = 4000,  /* patience doubles to this while the member says it lives */
    PING_MS = 700,        /* how long it has to say so */
    PASSED_OVER_MS = 500, /* after it did not say so */
};

static ch_fiber_fn watchdog_fiber, reaper_fiber;

/* ---- members ---- */

bool ch__leader_listed(const struct ch__member *member)
{
    return member->name && !member->gone;
}

size_t ch_leader_members(const struct ch_leader *leader)
{
    size_t count = 0;

    for (size_t i = 0; i < CH__LEADER_MEMBERS_MAX; i++)
        count += ch__leader_listed(&leader->members[i]);
    return count;
}

const char *ch_leader_address(const struct ch_leader *leader)
{
    return ch__leader_listed(&leader->members[leader->at]) ? leader->members[leader->at].address
                                                           : "";
}

static struct ch__member *member_find(struct ch_leader *leader, const char *name)
{
    for (size_t i = 0; i < CH__LEADER_MEMBERS_MAX; i++)
        if (ch__leader_listed(&leader->members[i]) && strcmp(leader->members[i].name, name) == 0)
            return &leader->members[i];
    return NULL;
}

struct ch__member *ch__leader_member_add(struct ch_leader *leader, const char *name,
                                         const char *address)
{
    for (size_t i = 0; i < CH__LEADER_MEMBERS_MAX; i++) {
        struct ch__member *member = &leader->members[i];

        if (member->name)
            continue;
        *member = (struct ch__member){ .name = strdup(name), .address = strdup(address) };
        BASE_ASSERT(member->name && member->address);
        ch_cond_broadcast(&leader->changed);
        return member;
    }
    return NULL;
}

void ch__leader_member_clear(struct ch__member *member)
{
    free(member->name);
    free(member->address);
    *member = (struct ch__member){ 0 };
}

void ch__leader_member_release(struct ch__member *member)
{
    if (--member->uses == 0 && member->gone && !member->client)
        ch__leader_member_clear(member);
}

/* Closes its connections: everybody who waits for it gets CANCELLED, or UNAVAILABLE. */
static void member_break(struct ch_leader *leader, struct ch__member *member)
{
    struct ch_client *client = member->client;

    if (!client)
        return;
    member->client = NULL;
    if (base_status_drop(ch_gate_spawn(&leader->reapers, "leader reaper", reaper_fiber, client)) !=
        BASE_OK)
        member->client = client; /* no fiber to be had: the watchdog comes round again */
}

static void reaper_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    ch_client_free(arg);
}

struct ch_client *ch__leader_client(struct ch_leader *leader, struct ch__member *member)
{
    const struct ch_client_options options = { .no_retry = true };

    if (!member->client)
        member->client = ch_client_new(leader->env, member->address, &options);
    return member->client;
}

static bool passed_over(const struct ch_leader *leader, const struct ch__member *member)
{
    return member->suspect && ch_now(leader->env) < member->passed_until;
}

/* Of a refusal that says "it is at X". NULL: it does not, or X cannot be asked. */
static struct ch__member *hinted(struct ch_leader *leader, const struct base_status *status)
{
    static const char hint[] = "not the leader; it is at ";
    const char *at = strstr(base_status_text(status), hint);
    char name[256];
    struct ch__member *member;
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
        member = ch__leader_member_add(leader, name, name);
    return member;
}

/* After the member `asked` refused or failed: whom to ask now. */
void ch__leader_go_on(struct ch_leader *leader, size_t asked, const struct base_status *status)
{
    struct ch__member *hint = status ? hinted(leader, status) : NULL;
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
    for (size_t i = 1; i <= 2 * CH__LEADER_MEMBERS_MAX; i++) {
        const struct ch__member *member = &leader->members[(asked + i) % CH__LEADER_MEMBERS_MAX];

        next = (asked + i) % CH__LEADER_MEMBERS_MAX;
        if (ch__leader_listed(member) &&
            (!passed_over(leader, member) || i > CH__LEADER_MEMBERS_MAX))
            break;
    }
    leader->at = next;
}

/* ---- does a member live? ---- */

bool ch__leader_ping(struct ch_leader *leader, struct ch__member *member, int64_t patience_ms)
{
    struct ch_call_options options = { .deadline = ch_in(leader->env, patience_ms * CH_MS),
                                       .no_retry = true };
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    enum base_code code = base_status_drop(
        ch_client_call(ch__leader_client(leader, member),
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

void ch__leader_owe(struct ch_leader *leader, struct ch__owing *owing, size_t member,
                    int64_t patience_ms)
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

void ch__leader_owe_no_more(struct ch__owing *owing)
{
    *owing->prev = owing->next;
    if (owing->next)
        owing->next->prev = owing->prev;
}

/* One that owes for too long, or NULL and when to look again. */
static struct ch__owing *overdue(struct ch_leader *leader, ch_time *look)
{
    ch_time now = ch_now(leader->env);

    *look = CH_NEVER;
    for (struct ch__owing *owing = leader->owed; owing; owing = owing->next) {
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

    for (struct ch__owing *owing = leader->owed; owing; owing = owing->next) {
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
        struct ch__owing *owing = overdue(leader, &leader->watch_until);
        size_t at;

        if (!owing) {
            (void)!ch_cond_wait(&leader->watch, leader->watch_until);
            continue;
        }
        at = owing->member;
        leader->members[at].uses++;
        if (!ch__leader_ping(leader, &leader->members[at], PING_MS) && !ch_cancelled())
            member_break(leader, &leader->members[at]);
        more_patience(leader, at); /* also with those that just end */
        ch__leader_member_release(&leader->members[at]);
    }
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
    struct ch__member *member = member_find(leader, path);

    if (!member) {
        (void)ch__leader_member_add(leader, path, address);
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
    for (size_t i = 0; i < CH__LEADER_MEMBERS_MAX; i++) {
        struct ch__member *member = &leader->members[i];
        bool there = false;

        for (size_t k = 0; ch__leader_listed(member) && k < count; k++)
            there = there || strcmp(entries[k].path, member->name) == 0;
        if (!ch__leader_listed(member) || there)
            continue;
        member->gone = true;
        member_break(leader, member);
        if (member->uses == 0)
            ch__leader_member_clear(member);
    }
    for (size_t i = 0; i < count; i++) {
        char address[256];

        snprintf(address, sizeof(address), "%.*s", BASE_FMT(entries[i].value));
        address[strcspn(address, " ,\n")] = '\0';
        if (*address && is_task(entries[i].path, leader->target))
            take_entry(leader, entries[i].path, address);
    }
}

void ch__leader_follow_fiber(void *arg)
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
