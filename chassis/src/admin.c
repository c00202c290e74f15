/* admin.c: the pages of a service's admin port.
 *
 * /healthz (200 or 503)  /metrics (Prometheus text)  /tracez (OTLP JSON; ?text for people) 
 * /configz (GET: value, source, whether live; POST ?key=value sets a live one)  /peersz  /fibersz
 * /faultz (GET: the points set; POST ?name=action sets one, in a cell with --faults or
 * STRATA_FAULTS). Everything but POSTs only reads; nothing here waits, so a page is a consistent
 * picture of one moment. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fault_int.h"
#include "http_int.h"
#include "metrics_int.h"
#include "rpc_server_int.h"
#include "service_int.h"
#include "trace_int.h"

static const char text_plain[] = "text/plain; charset=utf-8";

static void page_index(struct ch__service *service, const struct ch_http_request *request,
                       struct ch_http_reply *reply)
{
    base_buf_printf(
        &reply->body,
        "%s %s  %s  up %" PRId64
        " s\nrpc %s\n\n/healthz /metrics /tracez (?text) /configz /peersz /fibersz /faultz\n",
        service->def->name, STRATA_VERSION, service->common.task,
        (int64_t)((ch_now(service->env) - service->begun) / CH_S),
        ch_server_address(service->server));
}

static void page_health(struct ch__service *service, const struct ch_http_request *request,
                        struct ch_http_reply *reply)
{
    bool serving = service->server && service->server->serving;
    reply->code = serving ? 200 : 503;
    base_buf_put_str(&reply->body, serving ? "ok\n" : "not serving\n");
}

/* What the process itself can tell; set when the page is asked for. */
static void process_metrics(struct ch__service *service)
{
    struct ch_env *env = service->env;
    long pages = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm && fscanf(statm, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (statm)
        fclose(statm);
    ch_gauge(env, "process_resident_memory_bytes", "", "Resident memory.")->value =
        resident * sysconf(_SC_PAGESIZE);
    ch_gauge(env, "chassis_fibers", "", "Live fibers.")->value = (int64_t)env->loop->live;
    ch_counter(env, "chassis_fiber_switches_total", "", "Fiber switches.")->value =
        env->loop->switches;
    ch_gauge(env, "chassis_uptime_seconds", "", "Seconds since the service began.")->value =
        (ch_now(env) - service->begun) / CH_S;
}

static void page_metrics(struct ch__service *service, const struct ch_http_request *request,
                         struct ch_http_reply *reply)
{
    process_metrics(service);
    reply->content_type = "text/plain; version=0.0.4; charset=utf-8";
    ch_metrics_text(service->env, &reply->body);
}

static void put_span_line(void *arg, const struct ch__span_record *record)
{
    base_buf_printf(
        arg, "%016" PRIx64 "%016" PRIx64 " %016" PRIx64 " < %016" PRIx64 " %10.3f ms  %-18s %s\n",
        record->trace_hi, record->trace_lo, record->id, record->parent,
        (double)(record->end_unix_ns - record->start_unix_ns) / 1e6, base_code_name(record->code),
        record->name);
}

static void page_traces(struct ch__service *service, const struct ch_http_request *request,
                        struct ch_http_reply *reply)
{
    if (ch_http_query(request, "text")) {
        base_buf_put_str(&reply->body,
                         "trace, span < parent, duration, status, name; newest last\n");
        ch__trace_each(service->env, put_span_line, &reply->body);
        return;
    }
    reply->content_type = "application/json";
    ch_trace_json(service->env, &reply->body);
}

/* POST ?key=value: one live key. */
static void config_set(struct ch__service *service, const struct ch_http_request *request,
                       struct ch_http_reply *reply)
{
    char *name = ch__http_unescape(request->arena, request->query, strlen(request->query), true),
         *value = name ? strchr(name, '=') : NULL;
    struct base_status status =
        base_status_make(BASE_INVALID_ARGUMENT, "POST /configz?key=value, one at a time");
    if (value && !strchr(request->query, '&')) {
        *value++ = '\0';
        base_status_free(&status);
        status = ch__config_change(&service->live, name, value);
    }
    if (!base_failed(status))
        return;
    reply->code = status.code == BASE_NOT_FOUND ? 404 : 400;
    base_buf_printf(&reply->body, "%s\n", base_status_text(&status));
    base_status_free(&status);
}

static void page_config(struct ch__service *service, const struct ch_http_request *request,
                        struct ch_http_reply *reply)
{
    if (strcmp(request->method, "POST") == 0)
        config_set(service, request, reply);
    if (reply->code == 200)
        ch__config_show(service->tables, CH__TABLES, service->configs, &service->live.origin,
                        &reply->body);
}

/* Every metric that has a peer label, grouped by peer: who calls whom, how often, with what end
 * and latency. */
struct peer_line {
    char peer[128];
    const struct ch__metric *metric;
};

static int by_peer(const void *a, const void *b)
{
    const struct peer_line *x = a, *y = b;
    int order = strcmp(x->peer, y->peer);
    return order ? order : (x->metric > y->metric) - (x->metric < y->metric);
}

static void put_peer_line(const struct ch__metric *metric, struct base_buf *out)
{
    base_buf_printf(out, "  %s{%s} ", metric->name, metric->labels);
    if (metric->histogram)
        base_buf_printf(out, "count %" PRIu64 " p50 %" PRIu64 " p99 %" PRIu64 " p999 %" PRIu64 "\n",
                        ch_histogram_count(metric->histogram),
                        ch_histogram_quantile(metric->histogram, 0.5),
                        ch_histogram_quantile(metric->histogram, 0.99),
                        ch_histogram_quantile(metric->histogram, 0.999));
    else if (metric->counter)
        base_buf_printf(out, "%" PRIu64 "\n", metric->counter->value);
    else
        base_buf_printf(out, "%" PRId64 "\n", metric->gauge->value);
}

static void page_peers(struct ch__service *service, const struct ch_http_request *request,
                       struct ch_http_reply *reply)
{
    size_t count, lines = 0;
    struct ch__metric *all = ch__metrics_all(service->env, &count);
    struct peer_line *peers = calloc(count + 1, sizeof(*peers));
    BASE_ASSERT(peers);
    for (size_t i = 0; i < count; i++)
        if (ch__label_value(all[i].labels, "peer", peers[lines].peer, sizeof(peers[lines].peer)))
            peers[lines++].metric = &all[i];
    qsort(peers, lines, sizeof(*peers), by_peer);
    for (size_t i = 0; i < lines; i++) {
        if (i == 0 || strcmp(peers[i].peer, peers[i - 1].peer) != 0)
            base_buf_printf(&reply->body, "%s\n", peers[i].peer);
        put_peer_line(peers[i].metric, &reply->body);
    }
    free(peers);
    free(all);
}

static void page_fibers(struct ch__service *service, const struct ch_http_request *request,
                        struct ch_http_reply *reply)
{
    const struct ch_loop *loop = service->env->loop;
    ch_time now = ch_now(service->env);
    base_buf_printf(&reply->body, "%zu live fibers: name, gate, what it waits on, milliseconds\n",
                    loop->live);
    for (const struct ch_fiber *fiber = loop->all; fiber; fiber = fiber->all_next) {
        const struct ch_wait_node *node = fiber->waiting;
        base_buf_printf(&reply->body, "%s  %s  %s", fiber->name, fiber->gate->name,
                        node                     ? node->what ? node->what : "?"
                        : fiber == loop->current ? "running"
                                                 : "ready");
        if (node)
            base_buf_printf(&reply->body, "  %.3f%s", (double)(now - node->since) / 1e6,
                            node->always ? "  ignoring cancellation" : "");
        base_buf_put_str(&reply->body, fiber->cancelled ? "  cancelled\n" : "\n");
    }
}

static void page_faults(struct ch__service *service, const struct ch_http_request *request,
                        struct ch_http_reply *reply)
{
    if (strcmp(request->method, "POST") == 0) {
        if (!service->common.faults && !getenv("STRATA_FAULTS")) {
            reply->code = 403;
            base_buf_put_str(&reply->body, "fault points may be set only with --faults\n");
            return;
        }
        char *list =
            ch__http_unescape(request->arena, request->query, strlen(request->query), true);
        for (char *at = list; at && *at; at++)
            if (*at == '&')
                *at = ',';
        struct base_status status =
            list && *list ? ch__fault_set_all(service->env, list)
                          : base_status_make(BASE_INVALID_ARGUMENT, "POST /faultz?name=action");
        if (base_failed(status)) {
            reply->code = 400;
            base_buf_printf(&reply->body, "%s\n", base_status_text(&status));
            base_status_free(&status);
            return;
        }
        ch_warn(service->env, "fault points set through the admin port: %s", list);
    }
    ch__fault_show(service->env, &reply->body);
}

static const struct page {
    const char *path;
    void (*write)(struct ch__service *service, const struct ch_http_request *request,
                  struct ch_http_reply *reply);
} pages[] = {
    { "/", page_index },         { "/healthz", page_health }, { "/metrics", page_metrics },
    { "/tracez", page_traces },  { "/configz", page_config }, { "/peersz", page_peers },
    { "/fibersz", page_fibers }, { "/faultz", page_faults },
};

static void admin_handle(void *self, const struct ch_http_request *request,
                         struct ch_http_reply *reply)
{
    const struct page *page = NULL;
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        if (strcmp(pages[i].path, request->path) == 0)
            page = &pages[i];
    bool reads = strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
    reply->content_type = text_plain;
    if (!page) {
        reply->code = 404;
        base_buf_put_str(&reply->body, "there is no such page; / lists them\n");
    } else if (!reads && page->write != page_faults && page->write != page_config) {
        reply->code = 405;
        base_buf_put_str(&reply->body, "this page is only read\n");
    } else {
        reply->code = 200;
        page->write(self, request, reply);
    }
}

struct ch_http_handler ch__admin_handler(struct ch__service *service)
{
    return (struct ch_http_handler){ .handle = admin_handle,
                                     .self = service,
                                     .body_bytes_max = 64 * 1024 };
}
