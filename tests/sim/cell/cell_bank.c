/* cell_bank.c: accounts, each an entity group of its own, and transfers between two of them; each
 * transfer also inserts a record of itself. Whatever happens:
 *  1. a snapshot shows all accounts, and the total is what it was at the beginning;
 *  2. in the end there is a record of each acknowledged transfer, none of one that failed, once;
 *  3. each balance is what the records make of it. */
#include "cell.h"

enum { BALANCE = 1000, TRANSFERS_MAX = 20000, AMOUNT_MAX = 20 };

struct transfer {
    uint32_t from, to, amount;
    enum { GOING, DONE, FAILED, UNKNOWN } state;
    bool seen; /* its record, in the end */
};

struct cell_bank {
    struct transfer transfers[TRANSFERS_MAX];
    size_t count, totals;
};

static const char *account_name(size_t i)
{
    static const char *const names[CELL_ACCOUNTS] = {
        "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"
    };
    return names[i];
}

static ds_mutation *account_put(struct base_arena *arena, size_t i, int64_t balance)
{
    ds_entity *account = ds_entity_new(arena, "Account", account_name(i));

    ds_set_int(arena, account, "balance", balance);
    return ds_upsert(arena, account);
}

void bank_begin(struct ds_api *api)
{
    struct base_arena arena;
    ds_mutation *mutations[CELL_ACCOUNTS];

    cell.bank = calloc(1, sizeof(*cell.bank));
    BASE_ASSERT(cell.bank);
    base_arena_init(&arena);
    for (size_t i = 0; i < CELL_ACCOUNTS; i++)
        mutations[i] = account_put(&arena, i, BALANCE);
    while (ds_commit(api, &arena, BASE_BYTES_EMPTY, mutations, CELL_ACCOUNTS) != DS_DONE)
        cell_rest(50 * CH_MS, 100 * CH_MS);
    base_arena_free(&arena);
}

static CH_WAITS bool transfer(struct ds_api *api, struct base_arena *arena)
{
    struct cell_bank *bank = cell.bank;
    struct base_bytes token;
    size_t from = ch_random_below(api->env, CELL_ACCOUNTS),
           to = (from + 1 + ch_random_below(api->env, CELL_ACCOUNTS - 1)) % CELL_ACCOUNTS, id;
    int64_t amount = 1 + (int64_t)ch_random_below(api->env, AMOUNT_MAX);
    ds_entity *found[2], *record;
    enum ds_outcome outcome;

    MUST(bank->count < TRANSFERS_MAX, "too many transfers");
    id = bank->count++;
    bank->transfers[id] =
        (struct transfer){ (uint32_t)from, (uint32_t)to, (uint32_t)amount, FAILED, false };
    if (!ds_begin(api, arena, DS_READ_WRITE, &token))
        return false;
    ds_key *keys[2] = { ds_key_new(arena, "Account", account_name(from)),
                        ds_key_new(arena, "Account", account_name(to)) };
    if (!ds_lookup(api, arena, token, keys, 2, found))
        return false;
    MUST(found[0] && found[1], "account %zu or %zu is missing", from, to);
    record = ds_entity_new(arena, "Transfer", base_arena_printf(arena, "t%zu", id));
    ds_set_int(arena, record, "from", (int64_t)from);
    ds_set_int(arena, record, "to", (int64_t)to);
    ds_set_int(arena, record, "amount", amount);
    ds_mutation *mutations[3] = {
        account_put(arena, from, ds_int(found[0], "balance") - amount),
        account_put(arena, to, ds_int(found[1], "balance") + amount),
        ds_insert(arena, record),
    };
    bank->transfers[id].state = GOING;
    outcome = ds_commit(api, arena, token, mutations, 3);
    bank->transfers[id].state = outcome == DS_DONE ? DONE : outcome == DS_FAILED ? FAILED : UNKNOWN;
    return outcome == DS_DONE;
}

/* All accounts at one moment: by a lookup, or by a query. */
static CH_WAITS bool total(struct ds_api *api, struct base_arena *arena, struct base_bytes token,
                           bool by_query, int64_t balances[CELL_ACCOUNTS])
{
    ds_key *keys[CELL_ACCOUNTS];
    ds_entity *looked_up[CELL_ACCOUNTS], **found = looked_up;
    size_t count = CELL_ACCOUNTS;
    int64_t sum = 0;

    for (size_t i = 0; i < CELL_ACCOUNTS; i++)
        keys[i] = ds_key_new(arena, "Account", account_name(i));
    if (by_query ? !ds_query(api, arena, token, "Account", NULL, 0, &found, &count)
                 : !ds_lookup(api, arena, token, keys, CELL_ACCOUNTS, looked_up))
        return false;
    MUST(count == CELL_ACCOUNTS, "a query shows %zu accounts of %d", count, CELL_ACCOUNTS);
    for (size_t i = 0; i < CELL_ACCOUNTS; i++) {
        MUST(found[i], "account %zu is missing", i);
        MUST(base_bytes_eq_str(ds_name(found[i]), account_name(i)), "accounts out of order");
        balances[i] = ds_int(found[i], "balance");
        sum += balances[i];
    }
    MUST(sum == (int64_t)CELL_ACCOUNTS * BALANCE, "the total is %" PRId64 " by a %s", sum,
         by_query ? "query" : "lookup");
    cell.bank->totals++;
    return true;
}

bool bank_step(struct ds_api *api, struct cell_client *client)
{
    struct base_bytes token = BASE_BYTES_EMPTY;
    struct base_arena arena;
    int64_t balances[CELL_ACCOUNTS];
    bool ok;

    (void)client;
    base_arena_init(&arena);
    if (ch_random_below(api->env, 4))
        ok = transfer(api, &arena);
    else
        ok = (ch_random_below(api->env, 2) || ds_begin(api, &arena, DS_READ_ONLY, &token)) &&
             total(api, &arena, token, ch_random_below(api->env, 2), balances);
    base_arena_free(&arena);
    return ok;
}

static void record_check(const ds_entity *record, int64_t balances[CELL_ACCOUNTS])
{
    struct base_bytes name = ds_name(record);
    char text[24];
    size_t id;
    struct transfer *transfer;

    snprintf(text, sizeof(text), "%.*s", BASE_FMT(name));
    id = strtoull(text + 1, NULL, 10);
    MUST(text[0] == 't' && id < cell.bank->count, "a record of no transfer: %s", text);
    transfer = &cell.bank->transfers[id];
    MUST(ds_int(record, "from") == transfer->from && ds_int(record, "to") == transfer->to &&
             ds_int(record, "amount") == transfer->amount,
         "the record of transfer %zu is another's", id);
    MUST(!transfer->seen, "the record of transfer %zu is there twice", id);
    MUST(transfer->state != FAILED, "transfer %zu failed, and there is a record of it", id);
    transfer->seen = true;
    balances[transfer->from] -= transfer->amount;
    balances[transfer->to] += transfer->amount;
}

/* Whether an index shows what a scan of the kind does: of each account the same transfers. */
static CH_WAITS bool indexes_check(struct ds_api *api, struct base_arena *arena,
                                   struct base_bytes token, size_t records)
{
    size_t sum = 0;

    for (size_t i = 0; i < CELL_ACCOUNTS; i++) {
        ds_entity **found;
        size_t count;

        if (!ds_query(api, arena, token, "Transfer", "from", (int64_t)i, &found, &count))
            return false;
        for (size_t k = 0; k < count; k++)
            MUST(ds_int(found[k], "from") == (int64_t)i, "a transfer by the wrong index row");
        sum += count;
    }
    MUST(sum == records, "by their index %zu transfers, %zu by a scan", sum, records);
    return true;
}

static CH_WAITS bool check(struct ds_api *api, struct base_arena *arena)
{
    int64_t balances[CELL_ACCOUNTS], made[CELL_ACCOUNTS];
    struct base_bytes token;
    ds_entity **records;
    size_t count, done = 0, unknown = 0, happened = 0;

    if (!ds_begin(api, arena, DS_READ_ONLY, &token) || !total(api, arena, token, true, balances) ||
        !total(api, arena, token, false, balances) ||
        !ds_query(api, arena, token, "Transfer", NULL, 0, &records, &count) ||
        !indexes_check(api, arena, token, count))
        return false;
    for (size_t i = 0; i < cell.bank->count; i++)
        cell.bank->transfers[i].seen = false;
    for (size_t i = 0; i < CELL_ACCOUNTS; i++)
        made[i] = BALANCE;
    for (size_t i = 0; i < count; i++)
        record_check(records[i], made);
    for (size_t i = 0; i < cell.bank->count; i++) {
        const struct transfer *transfer = &cell.bank->transfers[i];

        MUST(transfer->state != DONE || transfer->seen,
             "transfer %zu was acknowledged, and there is no record of it", i);
        done += transfer->state == DONE;
        unknown += transfer->state == UNKNOWN || transfer->state == GOING;
        happened += transfer->seen;
    }
    for (size_t i = 0; i < CELL_ACCOUNTS; i++)
        MUST(made[i] == balances[i], "account %zu has %" PRId64 ", by the records %" PRId64, i,
             balances[i], made[i]);
    if (getenv("STRATA_VERBOSE"))
        fprintf(stderr,
                "seed %" PRIu64 ": %zu transfers: %zu done, %zu unknown of which %zu happened; "
                "%zu totals\n",
                cell.seed, cell.bank->count, done, unknown, happened - done, cell.bank->totals);
    return true;
}

void bank_check(struct ds_api *api)
{
    struct base_arena arena;

    base_arena_init(&arena);
    while (!check(api, &arena))
        base_arena_reset(&arena);
    base_arena_free(&arena);
}

void bank_free(void)
{
    free(cell.bank);
}
