/* transactions.c: see transactions.h. A token's layout is at make_token; its check (a hash of what
 * comes before it and of the database's name) tells garbage and other databases' tokens apart, it
 * is no secret. */
#include "transactions.h"

#include <stdlib.h>
#include <uthash.h>

#define OVER "The referenced transaction has expired or is no longer valid."
enum { READ_WRITE = 1, READ_ONLY = 2 };
enum { CHECKED = 50 }; /* bytes of a token before its check */

struct qry_transaction {
    uint8_t id[16];
    bool read_only, fixing, committing, over;
    uint64_t timestamp;
    ch_time begun, used, committed; /* committed: 0, or when */
    size_t holds;
    struct qry_reads reads;
    struct base_buf reply;
    struct ch_cond fixed;
    UT_hash_handle hh;
};

void qry_transactions_init(struct qry_transactions *all, struct ch_env *env)
{
    *all = (struct qry_transactions){ .env = env, .instance = ch_random(env) };
}

static void forget(struct qry_transactions *all, struct qry_transaction *state)
{
    HASH_DEL(all->all, state);
    all->count--;
    base_arena_free(&state->reads.arena);
    base_buf_free(&state->reply);
    free(state);
}

void qry_transactions_free(struct qry_transactions *all)
{
    struct qry_transaction *state, *next;
    HASH_ITER(hh, all->all, state, next)
    {
        BASE_ASSERT(state->holds == 0);
        forget(all, state);
    }
}

/* ---- tokens ---- */

static uint64_t token_check(const uint8_t *token, const char *database)
{
    return base_hash(token, CHECKED, base_hash(database, strlen(database), 0x5354524154ULL));
}

/* Fixed layout; offsets: 0 'T', 1 mode, 2 instance, 10 begun, 18 timestamp, 26 id, 42 zero, 50
 * check. */
static struct base_bytes make_token(struct qry_transactions *all,
                                    const struct qry_transaction *state, const char *database,
                                    struct base_arena *arena)
{
    uint8_t *token = base_arena_calloc(arena, 1, QRY_TOKEN_LEN);
    token[0] = 'T';
    token[1] = state->read_only ? READ_ONLY : READ_WRITE;
    base_put_le64(token + 2, all->instance);
    base_put_le64(token + 10, (uint64_t)ch_wall_us(all->env));
    base_put_le64(token + 18, state->timestamp);
    memcpy(token + 26, state->id, 16);
    base_put_le64(token + CHECKED, token_check(token, database));
    return base_bytes(token, QRY_TOKEN_LEN);
}

struct base_status qry_transaction_begin(struct qry_transactions *all, const char *database,
                                         bool read_only, uint64_t timestamp,
                                         struct base_arena *arena, struct base_bytes *token)
{
    if (all->count >= QRY_TRANSACTIONS_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "%d transactions are open at this server",
                                QRY_TRANSACTIONS_MAX);
    struct qry_transaction *state = calloc(1, sizeof(*state));
    BASE_ASSERT(state);
    base_put_le64(state->id, ch_random(all->env));
    base_put_le64(state->id + 8, ch_random(all->env));
    state->read_only = read_only;
    state->timestamp = timestamp;
    state->begun = state->used = ch_now(all->env);
    ch_cond_init(&state->fixed);
    HASH_ADD(hh, all->all, id, sizeof(state->id), state);
    all->count++;
    *token = make_token(all, state, database, arena);
    return BASE_STATUS_OK;
}

static bool expired(const struct qry_transaction *state, ch_time now)
{
    if (state->committed)
        return now > state->committed + QRY_REPLY_KEPT_S * CH_S;
    return state->over || now > state->begun + QRY_TRANSACTION_LIFE_S * CH_S ||
           now > state->used + QRY_TRANSACTION_IDLE_S * CH_S;
}

static struct base_status hold_elsewhere(struct qry_transactions *all, const uint8_t *token,
                                         struct qry_hold *hold)
{
    int64_t age_us = ch_wall_us(all->env) - (int64_t)base_get_le64(token + 10);
    if (base_get_le64(token + 2) == all->instance || age_us > QRY_TRANSACTION_LIFE_S * 1000000LL)
        return base_status_make(BASE_INVALID_ARGUMENT, OVER);
    if (!hold->read_only)
        return base_status_make(
            BASE_ABORTED,
            "The transaction's reads were lost when its server restarted; begin it again.");
    hold->timestamp = base_get_le64(token + 18);
    return BASE_STATUS_OK;
}

struct base_status qry_transaction_hold(struct qry_transactions *all, const char *database,
                                        struct base_bytes token, struct qry_hold *hold)
{
    *hold = (struct qry_hold){ 0 };
    if (token.len != QRY_TOKEN_LEN || token.data[0] != 'T' ||
        base_get_le64(token.data + CHECKED) != token_check(token.data, database))
        return base_status_make(BASE_INVALID_ARGUMENT, "Invalid transaction.");
    hold->read_only = token.data[1] == READ_ONLY;
    memcpy(hold->id, token.data + 26, sizeof(hold->id));
    struct qry_transaction *state;
    HASH_FIND(hh, all->all, hold->id, sizeof(hold->id), state);
    if (!state)
        return hold_elsewhere(all, token.data, hold);
    ch_time now = ch_now(all->env);
    if (expired(state, now))
        return base_status_make(BASE_INVALID_ARGUMENT, OVER);
    state->used = now;
    state->holds++;
    hold->state = state;
    hold->timestamp = state->timestamp;
    return BASE_STATUS_OK;
}

void qry_transaction_release(struct qry_transactions *all, struct qry_hold *hold)
{
    struct qry_transaction *state = hold->state;
    hold->state = NULL;
    if (!state)
        return;
    BASE_ASSERT(state->holds > 0);
    state->used = ch_now(all->env);
    if (--state->holds == 0 && state->over)
        forget(all, state);
}

void qry_transactions_sweep(struct qry_transactions *all)
{
    struct qry_transaction *state, *next;
    ch_time now = ch_now(all->env);
    HASH_ITER(hh, all->all, state, next)
    {
        if (state->holds == 0 && expired(state, now))
            forget(all, state);
    }
}

/* ---- reads ---- */

static struct base_status not_over(const struct qry_hold *hold)
{
    if (hold->state && (hold->state->over || hold->state->committed))
        return base_status_make(BASE_INVALID_ARGUMENT, OVER);
    return BASE_STATUS_OK;
}

struct base_status qry_transaction_fix(struct qry_hold *hold, ch_time deadline, bool *first)
{
    struct qry_transaction *state = hold->state;
    *first = false;
    while (state && state->timestamp == 0 && state->fixing) {
        enum ch_outcome outcome = ch_cond_wait(&state->fixed, deadline);
        if (outcome != CH_OK)
            return ch_outcome_status(outcome, "wait for the transaction's first read");
    }
    struct base_status status = not_over(hold);
    if (base_failed(status) || !state)
        return status;
    hold->timestamp = state->timestamp;
    *first = state->fixing = state->timestamp == 0;
    return status;
}

void qry_transaction_fixed(struct qry_hold *hold, uint64_t timestamp)
{
    hold->state->timestamp = hold->timestamp = timestamp;
    hold->state->fixing = false;
    ch_cond_broadcast(&hold->state->fixed);
}

static void *grow(struct base_arena *arena, void *items, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return items;
    size_t more = *cap ? *cap * 2 : 8;
    void *grown = base_arena_alloc(arena, more * size);
    if (count)
        memcpy(grown, items, count * size);
    *cap = more;
    return grown;
}

static struct base_status may_record(struct qry_reads *reads, size_t bytes)
{
    if (reads->key_count + reads->range_count >= QRY_TRANSACTION_READS_MAX ||
        reads->bytes + bytes > QRY_TRANSACTION_BYTES_MAX)
        return base_status_make(
            BASE_INVALID_ARGUMENT,
            "The transaction has read more than %d rows and ranges or %d bytes of them.",
            QRY_TRANSACTION_READS_MAX, QRY_TRANSACTION_BYTES_MAX);
    reads->bytes += bytes;
    return BASE_STATUS_OK;
}

struct base_status qry_transaction_read_key(struct qry_hold *hold, const struct txn_key *key)
{
    if (hold->read_only)
        return BASE_STATUS_OK;
    struct qry_reads *reads = &hold->state->reads;
    struct base_status status = may_record(reads, key->key.len + key->group.len);
    if (base_failed(status))
        return status;
    reads->keys =
        grow(&reads->arena, reads->keys, reads->key_count, &reads->key_cap, sizeof(*reads->keys));
    reads->keys[reads->key_count++] = (struct txn_key){ base_bytes_dup(&reads->arena, key->group),
                                                        base_bytes_dup(&reads->arena, key->key) };
    return status;
}

struct base_status qry_transaction_read_range(struct qry_hold *hold, struct base_bytes start,
                                              struct base_bytes end)
{
    if (hold->read_only || base_bytes_cmp(start, end) >= 0)
        return BASE_STATUS_OK;
    struct qry_reads *reads = &hold->state->reads;
    struct base_status status = may_record(reads, start.len + end.len);
    if (base_failed(status))
        return status;
    reads->ranges = grow(&reads->arena, reads->ranges, reads->range_count, &reads->range_cap,
                         sizeof(*reads->ranges));
    reads->ranges[reads->range_count++] = (struct txn_range){ base_bytes_dup(&reads->arena, start),
                                                              base_bytes_dup(&reads->arena, end) };
    return status;
}

const struct qry_reads *qry_transaction_reads(const struct qry_hold *hold)
{
    return hold->state && !hold->read_only ? &hold->state->reads : NULL;
}

/* ---- the end ---- */

struct base_status qry_transaction_commit_begin(struct qry_hold *hold, struct base_arena *arena,
                                                struct base_bytes *kept)
{
    struct qry_transaction *state = hold->state;
    *kept = BASE_BYTES_EMPTY;
    if (!state)
        return BASE_STATUS_OK;
    if (state->committed) {
        *kept = base_bytes_dup(arena, base_buf_bytes(&state->reply));
        return kept->len > 0 ? BASE_STATUS_OK : base_status_make(BASE_INVALID_ARGUMENT, OVER);
    }
    if (state->over || state->committing)
        return base_status_make(BASE_INVALID_ARGUMENT, OVER);
    state->committing = true;
    return BASE_STATUS_OK;
}

void qry_transaction_commit_done(struct qry_hold *hold, struct base_bytes reply)
{
    struct qry_transaction *state = hold->state;
    if (!state)
        return;
    if (reply.len == 0 || reply.len > QRY_REPLY_BYTES_MAX) {
        qry_transaction_over(hold);
        return;
    }
    state->committing = false;
    state->committed = state->used;
    base_buf_put_bytes(&state->reply, reply);
    base_arena_free(&state->reads.arena);
    state->reads = (struct qry_reads){ 0 };
}

void qry_transaction_commit_unknown(struct qry_hold *hold)
{
    if (hold->state)
        hold->state->committing = false;
}

void qry_transaction_over(struct qry_hold *hold)
{
    if (hold->state)
        hold->state->over = true;
}
