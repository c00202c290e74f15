/* chassis/leader.h: calling whichever member of a replicated group leads it (the clustermaster, the
 * blockmaster).
 *
 * A target is the members' addresses ("127.0.0.1:7340,127.0.0.2:7340") or a name of the cell below
 * which they are ("/local/blockmaster": "/local/blockmaster/0", …), followed as tasks move. A
 * member that does not lead refuses with FAILED_PRECONDITION "not the leader; it is at X", which
 * proves that it did nothing; X is one of the members as they are named in the target (an address
 * not in the list is learned). A member that answers nothing for a while is asked whether it lives
 * (grpc.health.v1); one that does not say so has its connections closed, so that whoever waits for
 * it goes on elsewhere. */
#ifndef CHASSIS_LEADER_H
#define CHASSIS_LEADER_H

#include "chassis/rpc_client.h"

struct ch_leader;
struct ch_leader_stream;

/* `naming` is needed for names; borrowed, outlives it. Never fails: the calls do. */
struct ch_leader *ch_leader_new(struct ch_env *env, const char *target, struct ch_naming *naming);
/* Ends what is open with CANCELLED. */
void ch_leader_free(struct ch_leader *leader) CH_WAITS;

struct ch_leader_options {
    ch_time deadline; /* absolute; 0: the context's, or 60 s */
    ch_time attempt;  /* of one try, which is then made again when it may be; 0: no bound */
    /* It may be sent again when its outcome is unknown; so may methods marked idempotent. */
    bool repeatable;
    ch_time sent;         /* set: when the last try was sent */
    bool outcome_unknown; /* set by a failed call when some member may have acted on it */
};
/* One unary call, at the leader. Goes on until a leader has answered or the deadline:
 * DEADLINE_EXCEEDED when none is known by then. UNAVAILABLE "outcome unknown" when it may have been
 * done and may not be repeated. `options` may be NULL. */
struct base_status ch_leader_call(struct ch_leader *leader, const struct ch_method *method,
                                  const void *request, struct ch_leader_options *options,
                                  struct base_arena *arena, void **reply) CH_WAITS BASE_MUST_CHECK;

/* A stream of answers to one request, from the member that is thought to lead. Not retried: after
 * its end, opening it again asks the next one. The caller pauses between tries. */
struct base_status ch_leader_open(struct ch_leader *leader, const struct ch_method *method,
                                  const void *request, ch_time deadline,
                                  struct ch_leader_stream **stream) CH_WAITS BASE_MUST_CHECK;
/* As ch_stream_recv. */
struct base_status ch_leader_recv(struct ch_leader_stream *stream, struct base_arena *arena,
                                  void **message) CH_WAITS BASE_MUST_CHECK;
void ch_leader_close(struct ch_leader_stream *stream) CH_WAITS;

/* How many members are known. */
size_t ch_leader_members(const struct ch_leader *leader);
/* The address of the member that is asked first; "" when none is known. Borrowed until a wait. */
const char *ch_leader_address(const struct ch_leader *leader);
/* Full jitter, doubling to a fifth of a second: between rounds in which nobody led. */
ch_time ch_leader_backoff(struct ch_env *env, unsigned round);
/* Whether a status is the refusal of a member that does not lead. */
bool ch_leader_refused(const struct base_status *status);

#endif
