/* shard.c: see shard.h. */
#include "shard.h"

struct base_status txn__database_check(struct base_bytes database)
{
    if (database.len == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "the database's name is empty");
    if (database.len > TXN__DATABASE_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "the database's name has %zu bytes: the limit is %d", database.len,
                                TXN__DATABASE_MAX);
    for (size_t i = 0; i < database.len; i++)
        if (database.data[i] <= 0x20 || database.data[i] >= 0x7f)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "the database's name has byte 0x%02x at %zu: printable ASCII "
                                    "without spaces is allowed",
                                    database.data[i], i);
    return BASE_STATUS_OK;
}

uint32_t txn__shard_of(struct base_bytes database, uint32_t shards)
{
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < database.len; i++)
        hash = (hash ^ database.data[i]) * 0x100000001b3ULL;
    hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdULL;
    hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ULL;
    return (uint32_t)((hash ^ hash >> 33) % shards);
}
