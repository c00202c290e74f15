/* cell_items.c: entities with an indexed property, inserted, changed, deleted, each by the one
 * client that it belongs to; queries by the property, by everybody. Whatever happens:
 *  1. who an item belongs to finds it as its last acknowledged change left it, or as one of those
 *     made of it since whose outcome is not known;
 *  2. a query shows an item that nobody is changing exactly when it has the value asked for;
 *  3. in the end a scan of the kind, the queries by each value and the model are the same.
 *
 * Changes are read-modify-write transactions: when one is acknowledged, all earlier ones have
 * happened or never will. */
#include "cell.h"

enum { COLORS = 4, MAYBES_MAX = 200 };

struct version {
    int64_t rev, color; /* rev 0: there is none */
};

struct item {
    struct version known, maybes[MAYBES_MAX];
    size_t maybe_count;
    bool changing;
    uint64_t changes; /* grows with every change of this */
    int64_t next_rev;
    char name[8];
};

struct cell_items {
    struct item items[CELL_ITEMS];
    size_t changes, queries;
};

void items_begin(struct ds_api *api)
{
    (void)api;
    cell.items = calloc(1, sizeof(*cell.items));
    BASE_ASSERT(cell.items);
    for (size_t i = 0; i < CELL_ITEMS; i++)
        snprintf(cell.items->items[i].name, sizeof(cell.items->items[i].name), "i%zu", i);
}

static struct version version_of(const ds_entity *entity)
{
    return entity ? (struct version){ ds_int(entity, "rev"), ds_int(entity, "color") }
                  : (struct version){ 0, 0 };
}

static bool same(struct version a, struct version b)
{
    return a.rev == b.rev && a.color == b.color;
}

static void settle(struct item *item, struct version version)
{
    item->known = version;
    item->maybe_count = 0;
    item->changes++;
}

/* What was read is the last acknowledged one, or one of unknown outcome, which has happened. */
static void seen(struct item *item, struct version version)
{
    if (same(version, item->known))
        return;
    for (size_t i = 0; i < item->maybe_count; i++)
        if (same(version, item->maybes[i])) {
            settle(item, version);
            return;
        }
    cell_fail(__FILE__, __LINE__,
              "%s is read as rev %" PRId64 " color %" PRId64 ", acknowledged is rev %" PRId64
              " color %" PRId64 ", %zu are unknown",
              item->name, version.rev, version.color, item->known.rev, item->known.color,
              item->maybe_count);
}

static CH_WAITS bool change(struct ds_api *api, struct base_arena *arena, struct item *item)
{
    struct version next = { 0, 0 };
    struct base_bytes token;
    ds_key *key = ds_key_new(arena, "Item", item->name);
    ds_entity *found;
    ds_mutation *mutation;
    enum ds_outcome outcome;

    if (!ds_begin(api, arena, DS_READ_WRITE, &token) ||
        !ds_lookup(api, arena, token, &key, 1, &found))
        return false;
    seen(item, version_of(found));
    if (found && ch_random_below(api->env, 3) == 0) {
        mutation = ds_delete(arena, key);
    } else {
        ds_entity *entity = ds_entity_new(arena, "Item", item->name);

        next = (struct version){ ++item->next_rev, (int64_t)ch_random_below(api->env, COLORS) };
        ds_set_int(arena, entity, "rev", next.rev);
        ds_set_int(arena, entity, "color", next.color);
        mutation = found ? ds_upsert(arena, entity) : ds_insert(arena, entity);
    }
    item->changes++;
    MUST(item->maybe_count < MAYBES_MAX, "too many unknown outcomes");
    item->maybes[item->maybe_count++] = next;
    outcome = ds_commit(api, arena, token, &mutation, 1);
    if (outcome == DS_DONE)
        settle(item, next);
    else if (outcome == DS_FAILED)
        item->maybe_count--;
    item->changes++;
    return outcome == DS_DONE;
}

/* Which items nobody is changing, and who has had no change since `before`. */
static bool quiet(const struct item *item, const uint64_t *before)
{
    return !item->changing && item->maybe_count == 0 && (!before || item->changes == *before);
}

static CH_WAITS bool query(struct ds_api *api, struct base_arena *arena)
{
    uint64_t before[CELL_ITEMS];
    bool still[CELL_ITEMS], shown[CELL_ITEMS] = { false };
    int64_t color = (int64_t)ch_random_below(api->env, COLORS);
    ds_entity **found;
    size_t count;

    for (size_t i = 0; i < CELL_ITEMS; i++) {
        before[i] = cell.items->items[i].changes;
        still[i] = quiet(&cell.items->items[i], NULL);
    }
    if (!ds_query(api, arena, BASE_BYTES_EMPTY, "Item", "color", color, &found, &count))
        return false;
    for (size_t k = 0; k < count; k++) {
        size_t i = 0;

        while (i < CELL_ITEMS && !base_bytes_eq_str(ds_name(found[k]), cell.items->items[i].name))
            i++;
        MUST(i < CELL_ITEMS && !shown[i], "a query shows %.*s, %s", BASE_FMT(ds_name(found[k])),
             i < CELL_ITEMS ? "twice" : "which there is not");
        MUST(ds_int(found[k], "color") == color,
             "a query by color %" PRId64 " shows %s of %" PRId64, color, cell.items->items[i].name,
             ds_int(found[k], "color"));
        shown[i] = true;
        if (still[i] && quiet(&cell.items->items[i], &before[i]))
            MUST(same(version_of(found[k]), cell.items->items[i].known),
                 "a query shows rev %" PRId64 " of %s, acknowledged is rev %" PRId64,
                 ds_int(found[k], "rev"), cell.items->items[i].name,
                 cell.items->items[i].known.rev);
    }
    for (size_t i = 0; i < CELL_ITEMS; i++) {
        const struct item *item = &cell.items->items[i];

        if (still[i] && quiet(item, &before[i]))
            MUST(shown[i] == (item->known.rev > 0 && item->known.color == color),
                 "a query by color %" PRId64 " shows %s %s; acknowledged is rev %" PRId64
                 " color %" PRId64,
                 color, shown[i] ? "" : "no", item->name, item->known.rev, item->known.color);
    }
    cell.items->queries++;
    return true;
}

bool items_step(struct ds_api *api, struct cell_client *client)
{
    struct base_arena arena;
    bool ok;

    base_arena_init(&arena);
    if (ch_random_below(api->env, 3)) {
        size_t own = ch_random_below(api->env, CELL_ITEMS / CELL_CLIENTS);
        struct item *item = &cell.items->items[own * CELL_CLIENTS + client->index];

        item->changing = true;
        ok = change(api, &arena, item);
        item->changing = false;
        cell.items->changes += ok;
    } else {
        ok = query(api, &arena);
    }
    base_arena_free(&arena);
    return ok;
}

/* ---- the end ---- */

static CH_WAITS bool check(struct ds_api *api, struct base_arena *arena)
{
    struct base_bytes token;
    ds_entity **all, **found;
    size_t count, shown, sum = 0, there = 0;

    if (!ds_begin(api, arena, DS_READ_ONLY, &token) ||
        !ds_query(api, arena, token, "Item", NULL, 0, &all, &count))
        return false;
    for (size_t i = 0; i < CELL_ITEMS; i++) {
        struct item *item = &cell.items->items[i];
        const ds_entity *entity = NULL;

        for (size_t k = 0; k < count; k++)
            if (base_bytes_eq_str(ds_name(all[k]), item->name))
                entity = all[k];
        seen(item, version_of(entity));
        settle(item, version_of(entity));
        there += entity != NULL;
    }
    MUST(there == count, "a scan shows %zu items, %zu of them known", count, there);
    for (int64_t color = 0; color < COLORS; color++) {
        if (!ds_query(api, arena, token, "Item", "color", color, &found, &shown))
            return false;
        for (size_t k = 0; k < shown; k++) {
            const ds_entity *entity = NULL;

            for (size_t a = 0; a < count; a++)
                if (base_bytes_eq(ds_name(all[a]), ds_name(found[k])))
                    entity = all[a];
            MUST(entity && same(version_of(entity), version_of(found[k])) &&
                     ds_int(entity, "color") == color,
                 "by color %" PRId64 " there is %.*s, by a scan not so", color,
                 BASE_FMT(ds_name(found[k])));
        }
        sum += shown;
    }
    MUST(sum == count, "%zu items by their colors, %zu by a scan", sum, count);
    return true;
}

void items_check(struct ds_api *api)
{
    struct base_arena arena;

    base_arena_init(&arena);
    while (!check(api, &arena))
        base_arena_reset(&arena);
    base_arena_free(&arena);
    if (getenv("STRATA_VERBOSE"))
        fprintf(stderr, "seed %" PRIu64 ": items: %zu changes, %zu queries\n", cell.seed,
                cell.items->changes, cell.items->queries);
}

void items_free(void)
{
    free(cell.items);
}
