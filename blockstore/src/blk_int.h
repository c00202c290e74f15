/* blk_int.h: what all of blockstore's own files share: short names of its messages, and the limits.
 */
#ifndef BLK_INT_H
#define BLK_INT_H

#include "chassis/proto.h"
#include "strata/blockstore/v1/blockstore.pb-c.h"
#include "strata/blockstore/v1/blockstore.strata.h"

#define BLK_PB(Name) Strata__Blockstore__V1__##Name
#define BLK_NEW(arena, Name, name) \
    CH_MESSAGE(arena, Strata__Blockstore__V1__##Name, strata__blockstore__v1__##name)
#define BLK_MASTER(NAME)                            \
    (&strata__blockstore__v1__block_master__service \
          .methods[STRATA__BLOCKSTORE__V1__BLOCK_MASTER__##NAME])
#define BLK_SERVER(NAME)                            \
    (&strata__blockstore__v1__block_server__service \
          .methods[STRATA__BLOCKSTORE__V1__BLOCK_SERVER__##NAME])

enum {
    BLK_CHUNK_BYTES = 64 * 1024,     /* each has its checksum */
    BLK_MESSAGE_BYTES = 1024 * 1024, /* data in one append or read message */
    BLK_REPLICAS_MAX = 8,            /* of one block */
    BLK_TAIL_MAX = 16,               /* unsealed blocks of one file */
    BLK_REPLICAS_WANTED = 3,
    BLK_QUORUM = 2,
    BLK_PATH_MAX = 1024,
    BLK_LIST_MAX = 1000,
};

#endif
