/* registers.c: single registers. With unique values: zones (Gibbons and Korach, 1997; anchors
 * F.5, 8), O(n log n). With compare-and-set: a search for an order (Wing and Gong, 1993) that
 * remembers where it has been (Lowe, 2017). */
#include "checker.h"

#include <stdio.h>
#include <stdlib.h>

#include <uthash.h>

/* All operations on one value. Between the least end and the greatest start the register must
 * hold it. */
struct cluster {
    UT_hash_handle hh;
    int64_t value, min_end, max_start, write_start;
    bool written;
};
struct zone {
    int64_t low, high;
    bool forward;
    int64_t value;
};

static int order_zones(const void *a, const void *b)
{
    const struct zone *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

static struct cluster *cluster_of(struct cluster **clusters, int64_t value)
{
    struct cluster *cluster;
    HASH_FIND(hh, *clusters, &value, sizeof(value), cluster);
    if (cluster)
        return cluster;
    cluster = calloc(1, sizeof(*cluster));
    cluster->value = value;
    cluster->min_end = INT64_MAX;
    cluster->max_start = INT64_MIN;
    HASH_ADD(hh, *clusters, value, sizeof(value), cluster);
    return cluster;
}

static const char *judge_zones(struct zone *zones, size_t count)
{
    static char text[200];
    qsort(zones, count, sizeof(*zones), order_zones);
    /* Forward zones may not overlap; so their highs ascend too, and a backward zone is only
     * inside the last that began. */
    const struct zone *last = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!zones[i].forward)
            continue;
        if (last && zones[i].low < last->high) {
            snprintf(text, sizeof(text), "the register must hold %lld and %lld at once",
                     (long long)last->value, (long long)zones[i].value);
            return text;
        }
        last = &zones[i];
    }
    last = NULL;
    for (size_t i = 0; i < count; i++) {
        if (zones[i].forward) {
            last = &zones[i];
        } else if (last && zones[i].low > last->low && zones[i].high < last->high) {
            snprintf(text, sizeof(text),
                     "value %lld has no place: the register holds %lld all that time",
                     (long long)zones[i].value, (long long)last->value);
            return text;
        }
    }
    return NULL;
}

static const char *fill_clusters(struct cluster **clusters, const struct check_register_op *ops,
                                 size_t count)
{
    static char text[200];
    struct cluster *initial = cluster_of(clusters, 0);
    initial->written = true;
    initial->write_start = INT64_MIN;
    initial->min_end = INT64_MIN;
    for (size_t i = 0; i < count; i++) {
        struct cluster *cluster = cluster_of(clusters, ops[i].value);
        if (ops[i].is_write && cluster->written) {
            snprintf(text, sizeof(text), "value %lld is written twice: values must be unique",
                     (long long)ops[i].value);
            return text;
        }
        if (ops[i].is_write) {
            cluster->written = true;
            cluster->write_start = ops[i].start_ns;
        }
        if (ops[i].end_ns < cluster->min_end)
            cluster->min_end = ops[i].end_ns;
        if (ops[i].start_ns > cluster->max_start)
            cluster->max_start = ops[i].start_ns;
    }
    for (size_t i = 0; i < count; i++) {
        const struct cluster *cluster = cluster_of(clusters, ops[i].value);
        if (!ops[i].is_write && (!cluster->written || ops[i].end_ns < cluster->write_start)) {
            snprintf(text, sizeof(text), "value %lld is read before it is written",
                     (long long)ops[i].value);
            return text;
        }
    }
    return NULL;
}

const char *check_register(const struct check_register_op *ops, size_t count)
{
    struct cluster *clusters = NULL, *cluster, *next;
    const char *wrong = fill_clusters(&clusters, ops, count);
    struct zone *zones = calloc(count + 1, sizeof(*zones));
    size_t n = 0;
    HASH_ITER(hh, clusters, cluster, next)
    {
        if (cluster->max_start !=
            INT64_MIN) { /* the initial value unread puts nothing under an obligation */
            bool forward = cluster->min_end < cluster->max_start;
            zones[n++] = (struct zone){ forward ? cluster->min_end : cluster->max_start,
                                        forward ? cluster->max_start : cluster->min_end, forward,
                                        cluster->value };
        }
        HASH_DEL(clusters, cluster);
        free(cluster);
    }
    if (!wrong)
        wrong = judge_zones(zones, n);
    free(zones);
    return wrong;
}

/* ---- compare-and-set ---- */

struct place {
    UT_hash_handle hh;
    struct {
        uint64_t done;
        int64_t state;
    } at;
};
struct search {
    const struct check_cas_op *ops;
    size_t count;
    struct place *been;
};

static bool applies(const struct check_cas_op *op, int64_t state, int64_t *after)
{
    *after = state;
    if (op->kind == CHECK_CAS_READ)
        return op->to == state;
    if (op->kind == CHECK_CAS_CAS && op->failed)
        return op->from != state;
    if (op->kind == CHECK_CAS_CAS && op->from != state)
        return false;
    *after = op->to;
    return true;
}

static bool place_known(struct search *search, uint64_t done, int64_t state)
{
    struct place *place = calloc(1, sizeof(*place)), *known;
    place->at.done = done;
    place->at.state = state;
    HASH_FIND(hh, search->been, &place->at, sizeof(place->at), known);
    if (known)
        free(place);
    else
        HASH_ADD(hh, search->been, at, sizeof(place->at), place);
    return known != NULL;
}

static bool go_on(struct search *search, uint64_t done, int64_t state)
{
    int64_t first_end = INT64_MAX, after;
    for (size_t i = 0; i < search->count; i++)
        if (!(done >> i & 1) && search->ops[i].end_ns < first_end)
            first_end = search->ops[i].end_ns;
    if (first_end == INT64_MAX)
        return true; /* what is left may never have happened */
    if (place_known(search, done, state))
        return false;
    for (size_t i = 0; i < search->count; i++)
        if (!(done >> i & 1) && search->ops[i].start_ns <= first_end &&
            applies(&search->ops[i], state, &after) && go_on(search, done | 1ULL << i, after))
            return true;
    return false;
}

bool check_cas(const struct check_cas_op *ops, size_t count, int64_t initial)
{
    struct search search = { ops, count, NULL };
    struct place *place, *next;
    BASE_ASSERT(count <= 64);
    bool good = go_on(&search, 0, initial);
    HASH_ITER(hh, search.been, place, next)
    {
        HASH_DEL(search.been, place);
        free(place);
    }
    return good;
}
