/* cell_lists.c: transactions that read some lists and append to some of them, judged by
 * tests/checker: all that was read and acknowledged must fit one order that respects real time
 * (strict serializability), with every acknowledged append in the end. And registers that are
 * written without a transaction and read, judged for linearizability. */
#include "cell.h"

enum { ELEMENTS_MAX = 4000, TEXT_MAX = ELEMENTS_MAX * 8, OPS_MAX = 6000 };

struct cell_lists {
    struct check_history *history;
    int next_process;
    int64_t next_element, next_value;
    size_t transactions, reads;
    struct {
        struct check_register_op ops[OPS_MAX];
        size_t count;
    } registers[CELL_REGISTERS];
};

static const char *const list_names[] = { "l0", "l1", "l2", "l3", "l4" };
static const char *const register_names[] = { "r0", "r1", "r2" };

void lists_begin(struct ds_api *api)
{
    (void)api;
    cell.lists = calloc(1, sizeof(*cell.lists));
    BASE_ASSERT(cell.lists);
    cell.lists->history = check_new();
}

struct list {
    int64_t elements[ELEMENTS_MAX];
    size_t count;
};

static struct list *list_of(struct base_arena *arena, const ds_entity *entity)
{
    struct list *list = BASE_NEW(arena, struct list);
    const char *at = entity ? base_bytes_cstr(arena, ds_text(entity, "v")) : "";

    while (*at) {
        MUST(list->count < ELEMENTS_MAX, "a list is too long");
        list->elements[list->count++] = strtoll(at, (char **)&at, 10);
        at += *at == ',';
    }
    return list;
}

static ds_mutation *list_put(struct base_arena *arena, size_t k, const struct list *list,
                             int64_t element)
{
    ds_entity *entity = ds_entity_new(arena, "List", list_names[k]);
    char *text = base_arena_alloc(arena, TEXT_MAX), *at = text;

    for (size_t i = 0; i < list->count; i++)
        at += sprintf(at, "%" PRId64 ",", list->elements[i]);
    sprintf(at, "%" PRId64, element);
    ds_set_text(arena, entity, "v", text);
    return ds_upsert(arena, entity);
}

/* Reads the lists in `chosen`, of which there are `count`, in one snapshot. */
static CH_WAITS bool read_lists(struct ds_api *api, struct base_arena *arena,
                                struct base_bytes token, const size_t *chosen, size_t count,
                                struct list **lists)
{
    ds_key *keys[CELL_LISTS];
    ds_entity *found[CELL_LISTS];

    for (size_t i = 0; i < count; i++)
        keys[i] = ds_key_new(arena, "List", list_names[chosen[i]]);
    if (!ds_lookup(api, arena, token, keys, count, found))
        return false;
    for (size_t i = 0; i < count; i++)
        lists[i] = list_of(arena, found[i]);
    return true;
}

static void note(const size_t *chosen, size_t count, struct list **lists, const int64_t *elements,
                 ch_time invoked, ch_time completed, enum check_type type)
{
    struct check_history *history = cell.lists->history;
    size_t txn = check_begin(history, cell.lists->next_process++, invoked);

    for (size_t i = 0; i < count; i++)
        check_read(history, txn, list_names[chosen[i]], lists[i]->elements, lists[i]->count);
    for (size_t i = 0; i < count; i++)
        if (elements[i])
            check_append(history, txn, list_names[chosen[i]], elements[i]);
    check_end(history, txn, type, completed, 0);
}

static CH_WAITS bool list_txn(struct ds_api *api, struct base_arena *arena, bool read_only)
{
    size_t chosen[CELL_LISTS], count = read_only ? CELL_LISTS : 1 + ch_random_below(api->env, 3),
                               first, puts = 0;
    struct list *lists[CELL_LISTS];
    int64_t elements[CELL_LISTS] = { 0 };
    ds_mutation *mutations[CELL_LISTS];
    ch_time invoked = ch_now(api->env);
    struct base_bytes token;
    enum ds_outcome outcome = DS_DONE;

    first = ch_random_below(api->env, CELL_LISTS);
    for (size_t i = 0; i < count; i++)
        chosen[i] = (first + i) % CELL_LISTS;
    if (!ds_begin(api, arena, read_only ? DS_READ_ONLY : DS_READ_WRITE, &token) ||
        !read_lists(api, arena, token, chosen, count, lists))
        return false;
    for (size_t i = 0; !read_only && i < count; i++) {
        if (i > 0 && ch_random_below(api->env, 2))
            continue;
        elements[i] = ++cell.lists->next_element;
        mutations[puts++] = list_put(arena, chosen[i], lists[i], elements[i]);
    }
    if (puts > 0)
        outcome = ds_commit(api, arena, token, mutations, puts);
    note(chosen, count, lists, elements, invoked, ch_now(api->env),
         outcome == DS_DONE     ? CHECK_OK
         : outcome == DS_FAILED ? CHECK_FAIL
                                : CHECK_INFO);
    cell.lists->transactions += outcome == DS_DONE;
    cell.lists->reads += read_only;
    return outcome == DS_DONE;
}

bool lists_step(struct ds_api *api, struct cell_client *client)
{
    struct base_arena arena;
    bool ok;

    (void)client;
    base_arena_init(&arena);
    ok = list_txn(api, &arena, ch_random_below(api->env, 4) == 0);
    base_arena_free(&arena);
    return ok;
}

void lists_check(struct ds_api *api)
{
    struct base_arena arena;
    struct check_result *result = calloc(1, sizeof(*result));
    struct base_buf report = { 0 };

    BASE_ASSERT(result);
    base_arena_init(&arena);
    while (!list_txn(api, &arena, true))
        base_arena_reset(&arena);
    base_arena_free(&arena);
    check_run(cell.lists->history, &(struct check_options){ .final_reads = true }, result);
    check_report(result, &report);
    if (!result->valid && getenv("STRATA_CELL_HISTORY")) {
        struct base_buf lines = { 0 };
        check_dump(cell.lists->history, &lines);
        fwrite(lines.data, 1, lines.len, stderr);
        base_buf_free(&lines);
    }
    MUST(result->valid, "%.*s", BASE_FMT(base_buf_bytes(&report)));
    if (getenv("STRATA_VERBOSE"))
        fprintf(stderr, "seed %" PRIu64 ": lists: %zu transactions, %zu that read all\n", cell.seed,
                cell.lists->transactions, cell.lists->reads);
    base_buf_free(&report);
    free(result);
}

/* ---- registers ---- */

static struct check_register_op *op_new(size_t r)
{
    MUST(cell.lists->registers[r].count < OPS_MAX, "too many operations of a register");
    return &cell.lists->registers[r].ops[cell.lists->registers[r].count++];
}

static CH_WAITS bool register_write(struct ds_api *api, struct base_arena *arena, size_t r)
{
    ds_entity *entity = ds_entity_new(arena, "Register", register_names[r]);
    struct check_register_op op = { .is_write = true,
                                    .value = ++cell.lists->next_value,
                                    .start_ns = ch_now(api->env) };
    ds_mutation *mutation;
    enum ds_outcome outcome;

    ds_set_int(arena, entity, "v", op.value);
    mutation = ds_upsert(arena, entity);
    outcome = ds_commit(api, arena, BASE_BYTES_EMPTY, &mutation, 1);
    op.end_ns = outcome == DS_DONE ? ch_now(api->env) : INT64_MAX;
    if (outcome != DS_FAILED)
        *op_new(r) = op;
    return outcome == DS_DONE;
}

static CH_WAITS bool register_read(struct ds_api *api, struct base_arena *arena, size_t r)
{
    struct check_register_op op = { .start_ns = ch_now(api->env) };
    ds_key *key = ds_key_new(arena, "Register", register_names[r]);
    ds_entity *found;

    if (!ds_lookup(api, arena, BASE_BYTES_EMPTY, &key, 1, &found))
        return false;
    op.value = found ? ds_int(found, "v") : 0;
    op.end_ns = ch_now(api->env);
    *op_new(r) = op;
    return true;
}

bool registers_step(struct ds_api *api, struct cell_client *client)
{
    struct base_arena arena;
    size_t r = ch_random_below(api->env, CELL_REGISTERS);
    bool ok;

    (void)client;
    base_arena_init(&arena);
    ok = ch_random_below(api->env, 2) ? register_write(api, &arena, r)
                                      : register_read(api, &arena, r);
    base_arena_free(&arena);
    return ok;
}

void registers_check(struct ds_api *api)
{
    struct base_arena arena;

    base_arena_init(&arena);
    for (size_t r = 0; r < CELL_REGISTERS; r++) {
        const char *wrong;

        while (!register_read(api, &arena, r))
            base_arena_reset(&arena);
        wrong = check_register(cell.lists->registers[r].ops, cell.lists->registers[r].count);
        MUST(!wrong, "register %zu is not linearizable: %s", r, wrong);
    }
    base_arena_free(&arena);
}

void lists_free(void)
{
    if (cell.lists)
        check_free(cell.lists->history);
    free(cell.lists);
}
