/* shard.h: names of databases, and which shard a database lives on. Pure. */
#ifndef TXLAYER_SHARD_H
#define TXLAYER_SHARD_H

#include "base/bytes.h"

enum { TXN__DATABASE_MAX = 256, TXN__SHARDS_MAX = 1024 };

/* 1 to TXN__DATABASE_MAX bytes of printable ASCII without spaces. */
struct base_status txn__database_check(struct base_bytes database) BASE_MUST_CHECK;
/* Part of the stored format: FNV-1a of the name, finished as in MurmurHash3, modulo the number
 * of shards. */
uint32_t txn__shard_of(struct base_bytes database, uint32_t shards);

#endif
