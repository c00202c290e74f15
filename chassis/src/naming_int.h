/* naming_int.h (private to chassis): a client of names and locks; its parts are naming.c (calls,
 * reading, writing), naming_session.c, naming_lock.c and naming_watch.c. */
#ifndef CHASSIS_NAMING_INT_H
#define CHASSIS_NAMING_INT_H

#include "chassis/leader.h"
#include "chassis/log.h"
#include "chassis/metrics.h"
#include "chassis/naming.h"
#include "strata/clustermgr/v1/names.pb-c.h"
#include "strata/clustermgr/v1/names.strata.h"

#define CH__PB(name) Strata__Clustermgr__V1__##name
#define CH__NAMES(METHOD) \
    (&strata__clustermgr__v1__names__service.methods[STRATA__CLUSTERMGR__V1__NAMES__##METHOD])

enum {
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
    char *owner; /* NULL: nobody is named */
    struct ch_leader *masters;
    struct ch_gate gate;      /* the session's keeper; cancelled to stop */
    struct ch_gate farewells; /* releases, undoing, closing: not cancelled, each bounded */
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
/* One call, at whatever member leads (leader.h). `repeatable`: may be sent again when its outcome
 * is unknown. `attempt_ms` bounds each try; 0: none. *sent, when not NULL: when the last was
 * sent. */
struct base_status ch__naming_call(struct ch_naming *naming, const struct ch_method *method,
                                   const void *request, bool repeatable, uint32_t attempt_ms,
                                   ch_time deadline, struct base_arena *arena, void **reply,
                                   ch_time *sent) CH_WAITS BASE_MUST_CHECK;
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
