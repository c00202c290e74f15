/* Traces: spans nest as the code does, on every fiber for itself; what leaves the process is W3C
 * and OTLP; a collector that is away costs nothing but its spans. Logs share the file: their
 * lines carry the trace. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "env_int.h"
#include "log_int.h"
#include "metrics_int.h"
#include "test.h"
#include "trace_int.h"

/* ---- nesting ---- */

static struct ch__span_record seen[8192];
static size_t seen_count;

static void collect(void *arg, const struct ch__span_record *record)
{
    seen[seen_count++] = *record;
}

static const struct ch__span_record *by_name(const char *name)
{
    for (size_t i = 0; i < seen_count; i++)
        if (strcmp(seen[i].name, name) == 0)
            return &seen[i];
    return NULL;
}

static void child(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_span span;
    ch_span_begin(&span, ch_fiber_env(), arg);
    ch_yield(); /* the other child begins meanwhile */
    ch_yield();
    ch_span_end(&span, BASE_OK);
}

static int nest(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_span outer, inner, other;
    struct ch_gather gather;
    ch_span_begin(&outer, env, "outer");
    ch_gather_init(&gather, "children");
    ch_gather_add(&gather, child, "left");
    ch_gather_add(&gather, child, "right");
    ch_gather_wait(&gather);
    ch_span_begin(&inner, env, "inner");
    ch_span_end(&inner, BASE_NOT_FOUND);
    ch_span_end(&outer, BASE_OK);
    cr_assert_null(ch_context_current());
    ch_span_begin(&other, env, "other");
    ch_span_end(&other, BASE_OK);
    ch__trace_each(env, collect, NULL);
    return 0;
}

Test(trace, spans_nest_as_the_code_does_also_across_fibers)
{
    ch_env_run(nest, NULL);
    const struct ch__span_record *outer = by_name("outer"), *other = by_name("other");
    cr_assert(outer && outer->parent == 0 && outer->end_unix_ns >= outer->start_unix_ns);
    static const char *const children[] = { "left", "right", "inner" };
    for (size_t i = 0; i < 3; i++) {
        const struct ch__span_record *record = by_name(children[i]);
        cr_assert(record && record->parent == outer->id, "%s hangs elsewhere", children[i]);
        cr_assert(record->trace_hi == outer->trace_hi && record->trace_lo == outer->trace_lo);
    }
    cr_assert_eq(by_name("inner")->code, BASE_NOT_FOUND);
    cr_assert(other->parent == 0 && other->trace_lo != outer->trace_lo);
}

static int wrap(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    for (int i = 0; i < CH_TRACE_RING_MAX + 100; i++) {
        struct ch_span span;
        char name[16];
        snprintf(name, sizeof(name), "%d", i);
        ch_span_begin(&span, env, name);
        ch_span_end(&span, BASE_OK);
    }
    ch__trace_each(env, collect, NULL);
    return 0;
}

Test(trace, the_ring_keeps_the_last_ones_in_order)
{
    ch_env_run(wrap, NULL);
    cr_assert_eq(seen_count, CH_TRACE_RING_MAX);
    for (size_t i = 0; i < seen_count; i++)
        cr_assert_eq(atoi(seen[i].name), (int)i + 100);
}

/* ---- traceparent ---- */

static int parents(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    static const char good[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    static const char *const bad[] = {
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    };
    char out[56];
    struct ch_span span;
    struct ch_context *context = ch_context_new();
    cr_assert(!ch_trace_parent(out));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ch_trace_adopt(context, base_bytes_str(bad[i]), env);
        cr_assert(context->trace_hi == 0 && context->trace_lo == 0, "\"%s\" was taken", bad[i]);
    }
    ch_trace_adopt(context,
                   BASE_BYTES_LIT("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later"),
                   env);
    cr_assert_eq(context->trace_hi, 0x0af7651916cd43ddULL); /* a later version may have more */
    ch_trace_adopt(context, base_bytes_str(good), env);
    cr_assert(context->trace_lo == 0x8448eb211c80319cULL &&
              context->span == 0xb7ad6b7169203331ULL && context->sampled);
    ch_context_set(context);
    cr_assert(ch_trace_parent(out));
    cr_assert_str_eq(out, good);
    ch_span_begin(&span, env, "served");
    cr_assert(ch_trace_parent(out) && strncmp(out, good, 36) == 0 &&
              strncmp(out + 36, good + 36, 16) != 0);
    ch_span_end(&span, BASE_OK);
    ch_trace_adopt(context,
                   BASE_BYTES_LIT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), env);
    ch_span_begin(&span, env, "unsampled");
    cr_assert(ch_trace_parent(out) && strcmp(out + 52, "-00") == 0);
    ch_span_end(&span, BASE_OK);
    ch__trace_each(env, collect, NULL);
    return 0;
}

Test(trace, traceparent_is_taken_and_handed_on_as_w3c_says)
{
    ch_env_run(parents, NULL);
    cr_assert_eq(seen_count, 1);
    cr_assert_eq(by_name("served")->parent, 0xb7ad6b7169203331ULL);
}

/* ---- out ---- */

static int to_json(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_span span;
    ch_log_set(env, "a\"service", CH_LOG_INFO);
    ch_span_begin(&span, env, "with \"quotes\" and \x01");
    ch_span_end(&span, BASE_ABORTED);
    ch_trace_json(env, arg);
    return 0;
}

Test(trace, the_ring_is_otlp_json)
{
    struct base_buf text = { 0 };
    ch_env_run(to_json, &text);
    json_t *root = json_loadb((char *)text.data, text.len, 0, NULL), *spans = NULL;
    const char *service = NULL, *name, *status;
    cr_assert_not_null(root);
    cr_assert_eq(json_unpack(root, "{s:[{s:{s:[{s:{s:s}}]}, s:[{s:o}]}]}", "resourceSpans",
                             "resource", "attributes", "value", "stringValue", &service,
                             "scopeSpans", "spans", &spans),
                 0);
    cr_assert_str_eq(service, "a\"service");
    cr_assert_eq(json_unpack(json_array_get(spans, 0), "{s:s, s:{s:s}}", "name", &name, "status",
                             "message", &status),
                 0);
    cr_assert_str_eq(name, "with \"quotes\" and \x01");
    cr_assert_str_eq(status, "ABORTED");
    json_decref(root);
    base_buf_free(&text);
}

struct collector {
    int fd;
    char address[64];
    char request[64 * 1024];
    size_t len;
};

static void collector_open(struct collector *collector)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    collector->fd = socket(AF_INET, SOCK_STREAM, 0);
    bind(collector->fd, (struct sockaddr *)&address, sizeof(address));
    listen(collector->fd, 4);
    getsockname(collector->fd, (struct sockaddr *)&address, &len);
    snprintf(collector->address, sizeof(collector->address), "127.0.0.1:%d",
             ntohs(address.sin_port));
}

static void *collector_main(void *arg)
{
    struct collector *collector = arg;
    int fd = accept(collector->fd, NULL, NULL);
    while (collector->len < sizeof(collector->request) - 1 &&
           !strstr(collector->request, "]}]}]}")) {
        ssize_t n = read(fd, collector->request + collector->len,
                         sizeof(collector->request) - 1 - collector->len);
        if (n <= 0)
            break;
        collector->len += (size_t)n;
    }
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    (void)!write(fd, ok, sizeof(ok) - 1);
    close(fd);
    return NULL;
}

static int exporting(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_span span;
    struct base_status status = ch__trace_export(env, "exporter", arg);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    ch_span_begin(&span, env, "exported");
    ch_span_end(&span, BASE_OK);
    return 0; /* the env's end sends what is queued */
}

Test(trace, spans_reach_a_collector_as_one_post)
{
    static struct collector collector;
    pthread_t thread;
    collector_open(&collector);
    pthread_create(&thread, NULL, collector_main, &collector);
    ch_env_run(exporting, collector.address);
    pthread_join(thread, NULL);
    close(collector.fd);
    cr_assert_eq(strncmp(collector.request, "POST /v1/traces HTTP/1.1\r\n", 26), 0, "%s",
                 collector.request);
    cr_assert_not_null(strstr(collector.request, "\"name\":\"exported\""));
}

static int without_collector(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch__exporter *exporter = NULL;
    struct ch__span_record record = { .name = "x" };
    cr_assert(!base_failed(ch__exporter_start("s", arg, &exporter)));
    uint64_t dropped = 0, put = 0;
    for (; dropped == 0 && put < 200000;
         put++) /* more than the queue holds, faster than refused connects drain it */
        dropped += ch__exporter_put(exporter, &record);
    ch__exporter_stop(exporter);
    return dropped > 0;
}

Test(trace, a_collector_that_is_away_costs_spans_and_nothing_else)
{
    static struct collector collector;
    collector_open(&collector);
    close(collector.fd); /* nobody listens there now */
    cr_assert_eq(ch_env_run(without_collector, collector.address), 1);
}

Test(trace, a_bad_collector_url_is_refused)
{
    static const char *const bad[] = { "nowhere", "https://host:1/x", ":1", "host:", "host:http" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ch__exporter *exporter;
        struct base_status status = ch__exporter_start("s", bad[i], &exporter);
        cr_assert_eq(status.code, BASE_INVALID_ARGUMENT, "\"%s\" was taken", bad[i]);
        base_status_free(&status);
    }
}

/* ---- logs ---- */

static int logging(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_span span;
    int *pipe_fd = arg;
    ch_log_set(env, "logger", CH_LOG_INFO);
    ch__log_to(env, pipe_fd[1]);
    ch_debug(env, "not shown");
    ch_span_begin(&span, env, "s");
    ch_warn(env, "two\nlines, \"quotes\", bad utf-8 \xff and %d", 7);
    ch_span_end(&span, BASE_OK);
    ch__log_flush(env);
    return 0;
}

Test(log, a_line_is_one_json_object_with_the_trace)
{
    int fds[2];
    char text[4096];
    cr_assert_eq(pipe(fds), 0);
    ch_env_run(logging, fds);
    close(fds[1]);
    ssize_t len = read(fds[0], text, sizeof(text) - 1);
    cr_assert(len > 0);
    text[len] = '\0';
    cr_assert_eq(strchr(text, '\n'), text + len - 1, "more than one line: %s", text);
    json_t *line = json_loads(text, 0, NULL);
    const char *level, *service, *message, *trace, *fiber;
    cr_assert_not_null(line, "%s", text);
    cr_assert_eq(json_unpack(line, "{s:s, s:s, s:s, s:s, s:s}", "level", &level, "service",
                             &service, "message", &message, "trace", &trace, "fiber", &fiber),
                 0);
    cr_assert_str_eq(level, "warn");
    cr_assert_str_eq(message, "two\nlines, \"quotes\", bad utf-8 \xEF\xBF\xBD and 7");
    cr_assert_eq(strlen(trace), 32);
    json_decref(line);
}

static int logging_into_a_full_pipe(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    char filler[8000];
    memset(filler, 'x', sizeof(filler) - 1);
    filler[sizeof(filler) - 1] = '\0';
    ch__log_to(env, *(int *)arg);
    for (int i = 0; i < 400;
         i++) /* 3.2 MB into a pipe that nobody reads; from many lines, each with its own budget */
        ch_log_at(env, CH_LOG_ERROR, "many", i, "%s", filler);
    return (int)ch_counter(env, "chassis_log_lines_lost_total", "", "")->value;
}

Test(log, a_full_pipe_does_not_stop_the_loop, .timeout = 20)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    cr_assert_gt(ch_env_run(logging_into_a_full_pipe, &fds[1]), 100);
}

static int one_site(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    ch__log_to(env, *(int *)arg);
    ch_time second = ch_now(env) / CH_S;
    for (int i = 0; i < 1000; i++)
        ch_error(env, "again");
    bool one_second = ch_now(env) / CH_S == second;
    int lines = (int)ch_counter(env, "chassis_log_lines_total", "", "")->value;
    return one_second ? lines : 50;
}

Test(log, a_call_site_has_a_rate_limit)
{
    int fd = open("/dev/null", O_WRONLY);
    cr_assert_eq(ch_env_run(one_site, &fd), 50);
}
