/* message.h: what members say to each other, as protobuf: struct con_message (raft.h) to and from
 * strata.consensus.v1.Message. Pure; what is decoded is checked: a hostile Delivery gets as far as
 * an INVALID_ARGUMENT here and never to the algorithm. */
#ifndef CON_MESSAGE_H
#define CON_MESSAGE_H

#include "chassis/proto.h"
#include "raft.h"
#include "strata/consensus/v1/consensus.pb-c.h"
#include "strata/consensus/v1/consensus.strata.h"

#define CON_PB(name) Strata__Consensus__V1__##name
#define CON_NEW(arena, Name, name) CH_MESSAGE(arena, CON_PB(Name), strata__consensus__v1__##name)

/* A deep copy in `arena`. */
CON_PB(Message) * con__message_encode(struct base_arena *arena, const char *group,
                                      const struct con_message *message);
/* *out points into `in` and `arena`. INVALID_ARGUMENT says what is wrong. */
struct base_status con__message_decode(const CON_PB(Message) * in, struct base_arena *arena,
                                       struct con_message *out) BASE_MUST_CHECK;
/* A heartbeat, or the answer to one, that a row of Beats has room for. */
bool con__message_is_beat(const struct con_message *message);

CON_PB(Member) * con__member_encode(struct base_arena *arena, const struct con_member *member);

#endif
