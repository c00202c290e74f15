/* graph.c: dependencies between transactions, and their cycles (anchors F.5, 5 and 6).
 *
 * Edges u -> v: ww: v appended right after u's; wr: v read what u appended last; rw: v appended
 * right after what u read; rt: u was acknowledged before v began. A cycle of ww is G0, of ww and
 * wr G1c, with one rw G-single, with more G2; when it needs rt, the same with "-realtime". */
#include "checker_int.h"

#include <stdlib.h>

enum { WW = 1, WR = 2, RW = 4, RT = 8 };
enum { SEARCHES_MAX = 2000 }; /* of one component and mask */
#define NONE SIZE_MAX

struct edge {
    size_t to;
    int kind;
    size_t key;
};
struct graph {
    struct check_history *history;
    size_t count;
    struct edge **out; /* a list a transaction */
    size_t *lens, *caps;
    /* components of the last search */
    size_t *component, *sizes;
    size_t component_count;
};

static void add_edge(struct graph *graph, size_t from, size_t to, int kind, size_t key)
{
    if (from == to || !graph->history->txns[from].committed || !graph->history->txns[to].committed)
        return;
    if (graph->lens[from] == graph->caps[from]) {
        graph->caps[from] = graph->caps[from] * 2 + 4;
        graph->out[from] = realloc(graph->out[from], graph->caps[from] * sizeof(struct edge));
        BASE_ASSERT(graph->out[from]);
    }
    graph->out[from][graph->lens[from]++] = (struct edge){ to, kind, key };
}

static void add_list_edges(struct graph *graph)
{
    struct check_history *history = graph->history;
    for (size_t k = 0; k < history->key_count; k++) {
        const struct key *key = history->key_list[k];
        for (size_t i = 1; i < key->order_count; i++) {
            const struct writer *a = check__writer(history, k, key->order[i - 1]),
                                *b = check__writer(history, k, key->order[i]);
            if (a && b)
                add_edge(graph, a->txn, b->txn, WW, k);
        }
    }
}

static void add_read_edges(struct graph *graph, size_t t)
{
    struct check_history *history = graph->history;
    const struct txn *txn = &history->txns[t];
    for (size_t m = 0; m < txn->mop_count; m++) {
        const struct mop *mop = &txn->mops[m];
        if (mop->kind != MOP_READ || txn->type != CHECK_OK)
            continue;
        const struct key *key = history->key_list[mop->key];
        size_t external = check__external(txn, m);
        const struct writer *last =
            external ? check__writer(history, mop->key, mop->elements[external - 1]) : NULL;
        if (last)
            add_edge(graph, last->txn, t, WR, mop->key);
        if (external < key->order_count) {
            const struct writer *after = check__writer(history, mop->key, key->order[external]);
            if (after)
                add_edge(graph, t, after->txn, RW, mop->key);
        }
    }
}

struct event {
    int64_t at;
    bool is_end;
    size_t txn;
};

static int order_events(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (int)x->is_end - (int)y->is_end; /* at one instant: concurrent, so invocations first */
}

/* A sweep over time with the frontier of what ended last: an edge from each of it suffices, the
 * rest is implied. */
static void add_time_edges(struct graph *graph)
{
    struct check_history *history = graph->history;
    struct event *events = malloc((2 * history->count + 1) * sizeof(*events));
    size_t *frontier = malloc((history->count + 1) * sizeof(*frontier)), frontier_count = 0, n = 0;
    for (size_t t = 0; t < history->count; t++)
        if (history->txns[t].committed) {
            events[n++] = (struct event){ history->txns[t].invoked, false, t };
            if (history->txns[t].completed != INT64_MAX)
                events[n++] = (struct event){ history->txns[t].completed, true, t };
        }
    qsort(events, n, sizeof(*events), order_events);
    for (size_t i = 0; i < n; i++) {
        size_t t = events[i].txn;
        if (!events[i].is_end) {
            for (size_t f = 0; f < frontier_count; f++)
                add_edge(graph, frontier[f], t, RT, NONE);
            continue;
        }
        size_t kept = 0;
        for (size_t f = 0; f < frontier_count; f++)
            if (history->txns[frontier[f]].completed >= history->txns[t].invoked) /* no edge to t */
                frontier[kept++] = frontier[f];
        frontier[kept++] = t;
        frontier_count = kept;
    }
    free(frontier);
    free(events);
}

/* ---- components: Tarjan (1972), without recursion ---- */

struct tarjan {
    size_t *index, *low, *stack, *path, *next;
    bool *on_stack;
    size_t stack_len, path_len, counter;
};

static void close_component(struct graph *graph, struct tarjan *t, size_t root)
{
    size_t size = 0, v;
    do {
        v = t->stack[--t->stack_len];
        t->on_stack[v] = false;
        graph->component[v] = graph->component_count;
        size++;
    } while (v != root);
    graph->sizes[graph->component_count++] = size;
}

static void visit(struct graph *graph, struct tarjan *t, size_t root, int mask)
{
    t->path[t->path_len++] = root;
    t->index[root] = t->low[root] = ++t->counter;
    t->stack[t->stack_len++] = root;
    t->on_stack[root] = true;
    while (t->path_len) {
        size_t v = t->path[t->path_len - 1];
        if (t->next[v] < graph->lens[v]) {
            const struct edge *edge = &graph->out[v][t->next[v]++];
            size_t w = edge->to;
            if (!(edge->kind & mask))
                continue;
            if (!t->index[w]) {
                t->index[w] = t->low[w] = ++t->counter;
                t->stack[t->stack_len++] = w;
                t->on_stack[w] = true;
                t->path[t->path_len++] = w;
            } else if (t->on_stack[w] && t->index[w] < t->low[v]) {
                t->low[v] = t->index[w];
            }
            continue;
        }
        if (t->low[v] == t->index[v])
            close_component(graph, t, v);
        t->path_len--;
        if (t->path_len && t->low[v] < t->low[t->path[t->path_len - 1]])
            t->low[t->path[t->path_len - 1]] = t->low[v];
    }
}

static void find_components(struct graph *graph, int mask)
{
    size_t n = graph->count + 1;
    struct tarjan t = { calloc(n, sizeof(size_t)),
                        calloc(n, sizeof(size_t)),
                        calloc(n, sizeof(size_t)),
                        calloc(n, sizeof(size_t)),
                        calloc(n, sizeof(size_t)),
                        calloc(n, 1),
                        0,
                        0,
                        0 };
    graph->component_count = 0;
    for (size_t v = 0; v < graph->count; v++)
        if (!t.index[v])
            visit(graph, &t, v, mask);
    free(t.index);
    free(t.low);
    free(t.stack);
    free(t.path);
    free(t.next);
    free(t.on_stack);
}

/* ---- witnesses: breadth first, inside one component ---- */

static const char *kind_name(int kind)
{
    return kind == WW ? "ww" : kind == WR ? "wr" : kind == RW ? "rw" : "rt";
}

/* A shortest way from `from` to `to`; appended as " -ww x-> T7". */
static bool find_way(struct graph *graph, size_t from, size_t to, int mask, struct base_buf *out)
{
    size_t *back = malloc(graph->count * sizeof(*back)),
           *queue = malloc(graph->count * sizeof(*queue)), head = 0, tail = 0;
    const struct edge **by = calloc(graph->count, sizeof(*by));
    bool found = false;
    for (size_t i = 0; i < graph->count; i++)
        back[i] = NONE;
    queue[tail++] = from;
    back[from] = from;
    while (head < tail && !found) {
        size_t v = queue[head++];
        for (size_t e = 0; e < graph->lens[v] && !found; e++) {
            const struct edge *edge = &graph->out[v][e];
            if (!(edge->kind & mask) || graph->component[edge->to] != graph->component[from] ||
                back[edge->to] != NONE)
                continue;
            back[edge->to] = v;
            by[edge->to] = edge;
            queue[tail++] = edge->to;
            found = edge->to == to;
        }
    }
    if (found) {
        size_t way[64], len = 0;
        for (size_t v = to; v != from && len < 64; v = back[v])
            way[len++] = v;
        while (len--)
            base_buf_printf(
                out, " -%s%s%s-> T%zu", kind_name(by[way[len]]->kind),
                by[way[len]]->key == NONE ? "" : " ",
                by[way[len]]->key == NONE ? "" : graph->history->key_list[by[way[len]]->key]->name,
                way[len]);
    }
    free(back);
    free(queue);
    free(by);
    return found;
}

/* In each component: a cycle that begins with an edge of one of `first` and goes on over `rest`. */
static bool find_cycles(struct graph *graph, int first, int rest, enum check_anomaly anomaly,
                        struct check_result *result)
{
    bool any = false;
    size_t searches = 0;
    for (size_t v = 0; v < graph->count; v++)
        for (size_t e = 0; e < graph->lens[v] && graph->sizes[graph->component[v]] > 1; e++) {
            const struct edge *edge = &graph->out[v][e];
            if (!(edge->kind & first) || graph->component[edge->to] != graph->component[v] ||
                searches++ > SEARCHES_MAX)
                continue;
            struct base_buf text = { 0 };
            base_buf_printf(&text, "T%zu -%s%s%s-> T%zu", v, kind_name(edge->kind),
                            edge->key == NONE ? "" : " ",
                            edge->key == NONE ? "" : graph->history->key_list[edge->key]->name,
                            edge->to);
            bool found = find_way(graph, edge->to, v, rest, &text);
            if (found)
                check__found(result, anomaly, "%.*s", (int)text.len, (const char *)text.data);
            base_buf_free(&text);
            any |= found;
            if (found)
                return true; /* one witness is enough */
        }
    return any;
}

static bool has_cycle(struct graph *graph, int mask)
{
    find_components(graph, mask);
    for (size_t i = 0; i < graph->component_count; i++)
        if (graph->sizes[i] > 1)
            return true;
    return false;
}

/* All four kinds within ww, wr, rw and `extra`. */
static void classify(struct graph *graph, int extra, enum check_anomaly g0,
                     struct check_result *result)
{
    if (has_cycle(graph, WW | extra) && find_cycles(graph, WW, WW | extra, g0, result))
        return;
    if (has_cycle(graph, WW | WR | extra) &&
        find_cycles(graph, WR | WW, WW | WR | extra, g0 + 1, result))
        return;
    if (!has_cycle(graph, WW | WR | RW | extra))
        return;
    if (!find_cycles(graph, RW, WW | WR | extra, g0 + 2, result))
        find_cycles(graph, RW, WW | WR | RW | extra, g0 + 3, result);
}

void check__cycles(struct check_history *history, struct check_result *result)
{
    size_t n = history->count + 1;
    struct graph graph = { .history = history,
                           .count = history->count,
                           .out = calloc(n, sizeof(struct edge *)),
                           .lens = calloc(n, sizeof(size_t)),
                           .caps = calloc(n, sizeof(size_t)),
                           .component = calloc(n, sizeof(size_t)),
                           .sizes = calloc(n, sizeof(size_t)) };
    add_list_edges(&graph);
    for (size_t t = 0; t < history->count; t++)
        add_read_edges(&graph, t);
    classify(&graph, 0, CHECK_G0, result);
    if (!result->counts[CHECK_G0] && !result->counts[CHECK_G1C] && !result->counts[CHECK_GSINGLE] &&
        !result->counts[CHECK_G2]) {
        add_time_edges(&graph);
        classify(&graph, RT, CHECK_G0_RT, result);
    }
    for (size_t i = 0; i < n; i++)
        free(graph.out[i]);
    free(graph.out);
    free(graph.lens);
    free(graph.caps);
    free(graph.component);
    free(graph.sizes);
}
