/* leaders.c: who leads which database, as far as this client knows, and its connections. A wrong
 * memory costs one trip. */
#include <stdlib.h>
#include <string.h>

#include "client_int.h"
#include "strata/txlayer/v1/txlayer.strata.h"

#include <uthash.h>

struct known {
    UT_hash_handle hh;
    struct txn__leader *leader;
    char database[];
};
TAILQ_HEAD(leader_list, txn__leader);

struct txn__leaders {
    struct ch_env *env;
    struct ch_client *any; /* whichever txserver */
    struct ch_naming *naming;
    struct known *known;
    struct leader_list list;
};

struct txn__leaders *txn__leaders_new(struct ch_env *env, const struct txn_client_options *options)
{
    struct txn__leaders *leaders = calloc(1, sizeof(*leaders));
    BASE_ASSERT(leaders);
    struct ch_client_options client = { .naming = options->naming };
    leaders->env = env;
    leaders->naming = options->naming;
    leaders->any = ch_client_new(env, options->target, &client);
    TAILQ_INIT(&leaders->list);
    return leaders;
}

static void forget(struct txn__leaders *leaders, struct known *known)
{
    HASH_DEL(leaders->known, known);
    free(known);
}

static void forget_all(struct txn__leaders *leaders)
{
    struct known *known, *next;
    HASH_ITER(hh, leaders->known, known, next)
    forget(leaders, known);
}

void txn__leaders_free(struct txn__leaders *leaders)
{
    struct txn__leader *leader;
    forget_all(leaders);
    while ((leader = TAILQ_FIRST(&leaders->list))) {
        TAILQ_REMOVE(&leaders->list, leader, link);
        ch_client_free(leader->client);
        free(leader->address);
        free(leader);
    }
    ch_client_free(leaders->any);
    free(leaders);
}

static struct txn__leader *leader_at(struct txn__leaders *leaders, struct base_bytes address)
{
    struct txn__leader *leader;
    TAILQ_FOREACH(leader, &leaders->list, link)
    if (base_bytes_eq_str(address, leader->address))
        return leader;
    const struct ch_method *methods = strata__txlayer__v1__tx_layer__service.methods;
    struct ch_client_options options = { .naming = leaders->naming, .no_retry = true };
    leader = calloc(1, sizeof(*leader));
    BASE_ASSERT(leader);
    leader->address = strndup((const char *)address.data, address.len);
    leader->client = ch_client_new(leaders->env, leader->address, &options);
    txn__combiner_init(&leader->gets, leaders->env, leader->client,
                       &methods[STRATA__TXLAYER__V1__TX_LAYER__GET]);
    txn__combiner_init(&leader->commits, leaders->env, leader->client,
                       &methods[STRATA__TXLAYER__V1__TX_LAYER__COMMIT]);
    TAILQ_INSERT_HEAD(&leaders->list, leader, link);
    return leader;
}

static void remember(struct txn__leaders *leaders, const char *database, struct txn__leader *leader)
{
    struct known *known;
    HASH_FIND_STR(leaders->known, database, known);
    if (!known) {
        if (HASH_COUNT(leaders->known) >= TXN__DATABASES_MAX)
            forget_all(leaders);
        known = calloc(1, sizeof(*known) + strlen(database) + 1);
        BASE_ASSERT(known);
        memcpy(known->database, database, strlen(database) + 1);
        HASH_ADD_STR(leaders->known, database, known);
    }
    known->leader = leader;
}

struct base_status txn__leader_find(struct txn__leaders *leaders, const char *database,
                                    ch_time deadline, struct txn__leader **leader)
{
    struct known *known;
    HASH_FIND_STR(leaders->known, database, known);
    if (known) {
        *leader = known->leader;
        return BASE_STATUS_OK;
    }
    struct base_arena arena;
    base_arena_init(&arena);
    Strata__Txlayer__V1__LocateRequest request;
    strata__txlayer__v1__locate_request__init(&request);
    request.database = ch_data_str(database);
    struct ch_call_options options = { .deadline = deadline };
    void *reply;
    struct base_status status = ch_client_call(
        leaders->any,
        &strata__txlayer__v1__tx_layer__service.methods[STRATA__TXLAYER__V1__TX_LAYER__LOCATE],
        &request, &options, &arena, &reply);
    if (!base_failed(status)) {
        *leader =
            leader_at(leaders, ch_bytes_of(((Strata__Txlayer__V1__LocateReply *)reply)->leader));
        remember(leaders, database, *leader);
    }
    base_arena_free(&arena);
    return status;
}

void txn__leader_wrong(struct txn__leaders *leaders, const char *database,
                       const struct txn__leader *wrong, struct base_bytes hint)
{
    struct known *known;
    HASH_FIND_STR(leaders->known, database, known);
    if (!known || known->leader != wrong)
        return; /* somebody else has learnt better meanwhile */
    if (hint.len)
        known->leader = leader_at(leaders, hint);
    else
        forget(leaders, known);
}
