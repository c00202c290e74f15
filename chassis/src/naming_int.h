/* naming_int.h (private to chassis): a client of names and locks; its parts are naming.c (calls,
 * reading, writing), naming_session.c, naming_lock.c and naming_watch.c. */
#ifndef CHASSIS_NAMING_INT_H
#define CHASSIS_NAMING_INT_H

#include "chassis/log.h"
#include "chassis/metrics.h"
#include "chassis/naming.h"
#include "chassis/rpc_client.h"
#include "strata/clustermgr/v1/names.pb-c.h"
#include "strata/clustermgr/v1/names.strata.h"

#define CH__PB(name) Strata__Clustermgr__V1__##name
#define CH__NAMES(METHOD) \
    (&strata__clustermgr__v1__names__service.methods[STRATA__CLUSTERMGR__V1__NAMES__##METHOD])

enum {
    CH__MEMBERS_MAX = 16,
    CH__NAMING_ATTEMPT_MS = 2000, /* of one try of a call at one member */
    CH__NAMING_BACKOFF_MS = 20,   /* after all members refused: doubles, full jitter */
    CH__NAMING_BACKOFF_MAX_MS = 500,
    CH__ACQUIRE_ATTEMPT_MS = 3000, /* a waiting Acquire is repeated this often */
    CH__FAREWELL_MS = 1500,        /* releasing a lock or a session takes at most this */
    CH__WATCH_SILENCE_MS = 15000,  /* no event, not even a heartbeat: the stream is taken as dead */
    CH__LEASE_MARGIN =
        20, /* this side's lease is shorter by a 20th: clocks of two machines run apart */
};

struct ch_lock;
struct ch_name_watch;

struct ch_naming {
    struct ch_env *env;
    char *masters, *owner; /* owner: NULL: nobody is named */
    struct {
        const char *address; /* in masters */
        struct ch_client *client;
    } members[CH__MEMBERS_MAX];
    size_t member_count, leader; /* leader: whom to ask first */
    size_t refusals;             /* since a call last succeeded */
    struct ch_gate gate;         /* the session's keeper; cancelled to stop */
    struct ch_gate farewells;    /* releases, undoing, closing: not cancelled, each bounded */
    bool closed;
    /* the session: 0: none */
    uint64_t session;
    ch_time session_until; /* sure to live till then */
    ch_time session_sent;  /* when the last answered keep-alive was sent */
    ch_time lease;
    bool opening, keeper;   /* a fiber opens one; the keeper fiber runs */
    struct ch_cond changed; /* of session, opening, closed, and the list of locks */
    struct ch_lock *locks;
    struct ch_name_watch *watches;
    struct ch_counter *lost, *calls_failed;
};

/* ---- naming.c ---- */
/* One call, at whatever member leads; refusals and unreachable members are followed by others
 * until the deadline. `repeatable`: may be sent again when its outcome is unknown. `attempt_ms`
 * bounds each try. */
struct base_status ch__naming_call(struct ch_naming *naming, const struct ch_method *method,
                                   const void *request, bool repeatable, uint32_t attempt_ms,
                                   ch_time deadline, struct base_arena *arena,
                                   void **reply) CH_WAITS BASE_MUST_CHECK;
/* After a member refused or failed: whom to ask next ("it is at X" in the text is taken as a
 * hint). */
void ch__naming_next(struct ch_naming *naming, size_t asked, const struct base_status *status);
bool ch__naming_refused(const struct base_status *status); /* by a member that does not lead */
/* Full jitter, doubling. */
ch_time ch__naming_backoff(struct ch_naming *naming, unsigned round);
struct ch_name_entry ch__name_entry(const CH__PB(Node) * node, struct base_arena *arena);

/* ---- naming_session.c ---- */
/* Makes sure there is a session and returns its id. */
struct base_status ch__session_get(struct ch_naming *naming, ch_time deadline,
                                   uint64_t *session) CH_WAITS BASE_MUST_CHECK;
/* A server said that this session has ended. */
void ch__session_gone(struct ch_naming *naming, uint64_t session);
void ch__session_close(struct ch_naming *naming) CH_WAITS;

/* ---- naming_lock.c ---- */
/* Every lock held under the session is lost; waiters are woken. */
void ch__locks_lost(struct ch_naming *naming, uint64_t session);
void ch__locks_orphan(struct ch_naming *naming);

/* ---- naming_watch.c ---- */
void ch__watches_orphan(struct ch_naming *naming) CH_WAITS;

#endif
