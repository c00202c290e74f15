/* pb.h: short names for this layer's messages: CLU_PB(Task) for the type, CLU_NEW(arena, Task,
 * task) for one in an arena. */
#ifndef CLU_PB_H
#define CLU_PB_H

#include "chassis/proto.h"
#include "strata/clustermgr/v1/agent.strata.h"
#include "strata/clustermgr/v1/cell.strata.h"
#include "strata/clustermgr/v1/names.strata.h"
#include "strata/clustermgr/v1/state.strata.h"

#define CLU_PB(Type) Strata__Clustermgr__V1__##Type
#define CLU_NEW(arena, Type, lower) \
    CH_MESSAGE(arena, Strata__Clustermgr__V1__##Type, strata__clustermgr__v1__##lower)
#define CLU_DESCRIPTOR(lower) (&strata__clustermgr__v1__##lower##__descriptor)
#define CLU_METHOD(service, METHOD) \
    (&strata__clustermgr__v1__##service##__service.methods[STRATA__CLUSTERMGR__V1__##METHOD])
#define CLU_TASK(STATE) STRATA__CLUSTERMGR__V1__TASK_STATE__TASK_##STATE

/* A NUL-terminated copy of a field. */
static inline char *clu_str(struct base_arena *arena, ProtobufCBinaryData data)
{
    return base_bytes_cstr(arena, ch_bytes_of(data));
}

#endif
