/* A service's life: what start() made is stopped once whatever happens, signals drain it,
 * failures end it with a word, and the same functions run in a simulated node. */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chassis/fault.h"
#include "chassis/metrics.h"
#include "chassis/service.h"
#include "chassis/sim.h"
#include "chassis/trace.h"
#include "test.h"

/* ---- a service that counts what happens to it ---- */

struct demo_config {
    int64_t answer;
    char *fail_at;
};
static const struct ch_config_key keys[] = {
    CH_CONFIG_LIVE(demo_config, answer, "answer", CH_CONFIG_INT, "42", "what it answers"),
    CH_CONFIG(demo_config, fail_at, "fail-at", CH_CONFIG_STRING, "", "start, serve or later"),
};

struct demo {
    struct ch_env *env;
    const struct demo_config *config;
    struct ch_server *server;
    struct ch_gate gate;
};
static struct {
    int starts, serves, retires, stops, cancelled_serves;
    bool retired_in_time;
    bool stop_was_cancelled;
    int64_t answer, answer_told;
} seen;

static void later(void *arg)
{
    CH_FIBER_ENTRY();
    struct demo *demo = arg;
    (void)ch_sleep_until(demo->env, ch_in(demo->env, 50 * CH_MS));
    ch_service_fail(demo->env, base_status_make(BASE_ABORTED, "the lock was lost"));
    (void)ch_sleep_until(demo->env, CH_NEVER);
}

static CH_WAITS struct base_status demo_start(const struct ch_service_start *start, void **self)
{
    const struct demo_config *config = start->config;
    seen.starts++;
    seen.answer = config->answer;
    if (strcmp(config->fail_at, "start") == 0)
        return base_status_make(BASE_DATA_LOSS, "no data");
    struct demo *demo = calloc(1, sizeof(*demo));
    demo->env = start->env;
    demo->config = config;
    demo->server = start->server;
    ch_gate_init(&demo->gate, start->env, "demo");
    ch_count(ch_counter(start->env, "demo_calls_total", "peer=\"10.0.0.9:1\"", "Calls."), 3);
    *self = demo;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status demo_serve(void *self)
{
    struct demo *demo = self;
    struct ch_span span;
    __atomic_fetch_add(&seen.serves, 1, __ATOMIC_RELEASE); /* terminate() looks at it */
    ch_span_begin(&span, demo->env, "recover");
    ch_span_end(&span, BASE_OK);
    if (strcmp(demo->config->fail_at, "serve") == 0)
        return base_status_make(BASE_DATA_LOSS, "no recovery");
    if (strcmp(demo->config->fail_at, "never") == 0) {
        seen.cancelled_serves += ch_sleep_until(demo->env, CH_NEVER) == CH_CANCELLED;
        return base_status_make(BASE_CANCELLED, "waiting for the lock");
    }
    if (strcmp(demo->config->fail_at, "later") == 0)
        return ch_gate_spawn(&demo->gate, "later", later, demo);
    ch_server_set_serving(demo->server, true);
    return BASE_STATUS_OK;
}

static CH_WAITS void demo_stop(void *self)
{
    struct demo *demo = self;
    seen.stops++;
    seen.stop_was_cancelled =
        ch_cancelled() || ch_sleep_until(demo->env, ch_in(demo->env, CH_MS)) != CH_TIMEOUT;
    ch_gate_stop(&demo->gate);
    free(demo);
}

static CH_WAITS void demo_retire(void *self)
{
    struct demo *demo = self;
    seen.retires++;
    seen.retired_in_time = seen.stops == 0 && *ch_server_address(demo->server) &&
                           ch_sleep_until(demo->env, ch_in(demo->env, CH_MS)) == CH_TIMEOUT;
}

static struct base_status demo_reconfigured(void *self, const char *key)
{
    struct demo *demo = self;
    if (strcmp(key, "answer") == 0 && demo->config->answer < 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "answers are not negative");
    seen.answer_told = demo->config->answer;
    return BASE_STATUS_OK;
}

/* The analysis wants slots to be read in a fiber; a constant table is filled outside of one. */
static struct ch_service_def demo_def(void)
{
    struct ch_service_def def = { .name = "demo",
                                  .about = "counts",
                                  .config = { keys, 2 },
                                  .config_size = sizeof(struct demo_config) };
    CH_FIBER_ENTRY();
    def.start = demo_start;
    def.serve = demo_serve;
    def.stop = demo_stop;
    def.retire = demo_retire;
    def.reconfigured = demo_reconfigured;
    return def;
}

/* ---- real ---- */

static char directory[64], port_file[96], config_file[96];

static void setup(void)
{
    strcpy(directory, "/tmp/test_service_XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(port_file, sizeof(port_file), "%s/ports", directory);
    snprintf(config_file, sizeof(config_file), "%s/config", directory);
}

static void cleanup(void)
{
    char path[128];
    unlink(port_file);
    unlink(config_file);
    snprintf(path, sizeof(path), "%s/data/deep", directory);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/data", directory);
    rmdir(path);
    rmdir(directory);
}

struct visitor {
    pthread_t thread;
    char listen[64], admin[64], front[64];
    const char *const *requests; /* "GET /x", or "HUP text": into the file, SIGHUP, /configz then */
    char *replies[12];
};

static char *fetch(const char *address, const char *request)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1)) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *reply = calloc(1, 1 << 20);
    size_t len = 0;
    ssize_t n;
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0) {
        dprintf(fd, "%s HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                request);
        while (len < (1 << 20) - 1 && (n = read(fd, reply + len, (1 << 20) - 1 - len)) > 0)
            len += (size_t)n;
    }
    close(fd);
    return reply;
}

static void config_write(const char *text)
{
    FILE *file = fopen(config_file, "we");
    fputs(text, file);
    fclose(file);
}

/* The page once it shows the file's value; the last one it gave if it never does. */
static char *hang_up(const char *address, const char *text)
{
    char *page = NULL;
    config_write(text);
    kill(getpid(), SIGHUP);
    for (int i = 0; i < 1000; i++) {
        free(page);
        page = fetch(address, "GET /configz");
        if (strstr(page, text))
            break;
        usleep(5000);
    }
    return page;
}

/* Waits for the port file, asks, then sends SIGTERM as an operator would. */
static void *visit(void *arg)
{
    struct visitor *visitor = arg;
    for (int i = 0; i < 2000; i++) {
        FILE *file = fopen(port_file, "re");
        if (file) {
            int n = fscanf(file, "%63s %63s %63s", visitor->listen, visitor->admin, visitor->front);
            fclose(file);
            if (n >= 2)
                break;
        }
        usleep(5000);
    }
    for (size_t i = 0; visitor->admin[0] && visitor->requests && visitor->requests[i]; i++)
        visitor->replies[i] = strncmp(visitor->requests[i], "HUP ", 4) == 0
                                  ? hang_up(visitor->admin, visitor->requests[i] + 4)
                                  : fetch(visitor->admin, visitor->requests[i]);
    kill(getpid(), SIGTERM);
    return NULL;
}

static void replies_free(struct visitor *visitor)
{
    for (size_t i = 0; i < sizeof(visitor->replies) / sizeof(visitor->replies[0]); i++)
        free(visitor->replies[i]);
}

static int run_real(struct visitor *visitor, int argc, char **argv)
{
    struct ch_service_def def = demo_def();
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &block, NULL); /* the visitor must not take it */
    if (visitor)
        pthread_create(&visitor->thread, NULL, visit, visitor);
    int exit_value = ch_service_run(&def, argc, argv);
    if (visitor)
        pthread_join(visitor->thread, NULL);
    return exit_value;
}
#define RUN(visitor, ...)                                                                \
    run_real(visitor, (int)(sizeof((char *[]){ "demo", __VA_ARGS__ }) / sizeof(char *)), \
             (char *[]){ "demo", __VA_ARGS__ })

Test(service, it_starts_shows_itself_and_stops_at_sigterm, .init = setup, .fini = cleanup,
     .timeout = 60)
{
    static const char *const requests[] = { "GET /healthz",
                                            "GET /metrics",
                                            "GET /tracez",
                                            "GET /tracez?text",
                                            "GET /configz",
                                            "GET /peersz",
                                            "GET /fibersz",
                                            "GET /nope",
                                            "POST /faultz?a=fail",
                                            "GET /",
                                            NULL };
    static const char *const wanted[] = { "ok\n",
                                          "demo_calls_total{peer=\"10.0.0.9:1\"} 3",
                                          "\"name\":\"recover\"",
                                          "recover",
                                          "answer: 7",
                                          "10.0.0.9:1\n  demo_calls_total",
                                          "start",
                                          "HTTP/1.1 404",
                                          "HTTP/1.1 403",
                                          "/metrics" };
    struct visitor visitor = { .requests = requests };
    char ports[128], data[128];
    snprintf(ports, sizeof(ports), "--port-file=%s", port_file);
    snprintf(data, sizeof(data), "--data-dir=%s/data/deep", directory);
    cr_assert_eq(
        RUN(&visitor, "--answer=7", ports, data, "--front", "127.0.0.1:0", "--log-level=error"), 0);
    for (size_t i = 0; requests[i]; i++) {
        if (i == 6)
            continue; /* fibers: any */
        cr_assert_not_null(strstr(visitor.replies[i], wanted[i]), "%s gave\n%s", requests[i],
                           visitor.replies[i]);
    }
    cr_assert_not_null(strstr(visitor.replies[6], "live fibers"));
    replies_free(&visitor);
    cr_assert(strncmp(visitor.listen, "127.0.0.1:", 10) == 0 &&
              strncmp(visitor.front, "127.0.0.1:", 10) == 0);
    cr_assert(seen.starts == 1 && seen.serves == 1 && seen.stops == 1 && !seen.stop_was_cancelled &&
              seen.answer == 7);
    cr_assert(seen.retires == 1 && seen.retired_in_time,
              "asked to stop, it hands over while its server still answers");
    snprintf(data, sizeof(data), "%s/data/deep", directory);
    cr_assert_eq(access(data, F_OK), 0);
}

Test(service, faults_can_be_set_in_a_test_cell, .init = setup, .fini = cleanup, .timeout = 60)
{
    static const char *const requests[] = { "POST /faultz?a=fail:3&b=delay:5",
                                            "POST /faultz?a=bogus",
                                            "POST /faultz",
                                            "GET /faultz",
                                            "POST /metrics",
                                            NULL };
    static const char *const wanted[] = { "b=delay:5", "HTTP/1.1 400", "HTTP/1.1 400", "a=fail:3",
                                          "HTTP/1.1 405" };
    struct visitor visitor = { .requests = requests };
    char ports[128];
    snprintf(ports, sizeof(ports), "--port-file=%s", port_file);
    cr_assert_eq(RUN(&visitor, "--faults", ports, "--log-level=error"), 0);
    for (size_t i = 0; requests[i]; i++)
        cr_assert_not_null(strstr(visitor.replies[i], wanted[i]), "%s gave\n%s", requests[i],
                           visitor.replies[i]);
    replies_free(&visitor);
}

Test(service, live_settings_change_while_it_runs, .init = setup, .fini = cleanup, .timeout = 60)
{
    /* By hand through the admin port, or by the file and SIGHUP; the service is told and may
     * refuse; what is not live, unknown or wrong is refused in words. */
    static const char *const requests[] = { "POST /configz?answer=8",
                                            "POST /configz?answer=-1",
                                            "POST /configz?answer=many",
                                            "POST /configz?fail-at=x",
                                            "POST /configz?color=red",
                                            "POST /configz?answer=1&answer=2",
                                            "POST /configz?log-level=loud",
                                            "POST /configz?log-level=warn",
                                            "GET /configz",
                                            "HUP answer: 9",
                                            NULL };
    static const char *const wanted[] = { "answer: 8   # set here, live: what it answers",
                                          "answers are not negative",
                                          "answer is \"many\", must be a whole number",
                                          "fail-at is read at the start only",
                                          "HTTP/1.1 404",
                                          "one at a time",
                                          "must be debug, info, warn or error",
                                          "log-level: warn   # set here, live",
                                          "answer: 8",
                                          "answer: 9   # file, live" };
    struct visitor visitor = { .requests = requests };
    char ports[128], config[128];
    snprintf(ports, sizeof(ports), "--port-file=%s", port_file);
    snprintf(config, sizeof(config), "--config=%s", config_file);
    config_write("answer: 7\n");
    cr_assert_eq(RUN(&visitor, ports, config, "--log-level=error"), 0);
    for (size_t i = 0; requests[i]; i++)
        cr_assert_not_null(strstr(visitor.replies[i], wanted[i]), "%s gave\n%s", requests[i],
                           visitor.replies[i]);
    cr_assert_not_null(strstr(visitor.replies[9], "log-level: error   # flag, live"));
    cr_assert_eq(seen.answer, 7);
    cr_assert_eq(seen.answer_told, 9);
    replies_free(&visitor);
}

Test(service, a_mistake_in_the_flags_stops_it_before_it_begins, .timeout = 60)
{
    cr_assert_eq(RUN(NULL, "--no-such-key=1"), 2);
    cr_assert_eq(RUN(NULL, "--answer=many"), 2);
    cr_assert_eq(seen.starts, 0);
    cr_assert_eq(RUN(NULL, "--help"), 0);
    cr_assert_eq(RUN(NULL, "--version"), 0);
}

Test(service, a_failed_start_ends_it_and_nothing_is_stopped, .timeout = 60)
{
    cr_assert_eq(RUN(NULL, "--fail-at=start", "--log-level=error"), 1);
    cr_assert(seen.starts == 1 && seen.serves == 0 && seen.stops == 0);
    cr_assert_eq(RUN(NULL, "--listen=127.0.0.1:1x"), 1);
    cr_assert_eq(RUN(NULL, "--log-level=loud"), 1);
}

Test(service, a_failed_serve_ends_it_and_stops_what_started, .timeout = 60)
{
    cr_assert_eq(RUN(NULL, "--fail-at=serve"), 1);
    cr_assert(seen.starts == 1 && seen.serves == 1 && seen.stops == 1 && !seen.stop_was_cancelled);
}

Test(service, a_failure_from_within_ends_it, .timeout = 60)
{
    cr_assert_eq(RUN(NULL, "--fail-at=later"), 1);
    cr_assert(seen.serves == 1 && seen.stops == 1 && !seen.stop_was_cancelled);
}

static void *terminate(void *arg)
{
    while (__atomic_load_n(&seen.serves, __ATOMIC_ACQUIRE) == 0)
        usleep(1000);
    usleep(20000);
    kill(getpid(), SIGTERM);
    return NULL;
}

Test(service, a_serve_that_still_waits_is_cancelled_by_sigterm, .timeout = 60)
{
    /* A standby master waits for its lock there, perhaps for days. */
    pthread_t thread;
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &block, NULL);
    pthread_create(&thread, NULL, terminate, NULL);
    cr_assert_eq(RUN(NULL, "--fail-at=never"), 0);
    pthread_join(thread, NULL);
    cr_assert(seen.cancelled_serves == 1 && seen.stops == 1);
}

/* ---- simulated ---- */

static struct ch_sim *sim;

static void run_until(ch_time span)
{
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + span);
}

Test(service, it_runs_in_a_simulated_node_and_stops_or_crashes_there)
{
    struct ch_service_def def = demo_def();
    char *argv[] = { "demo",
                     "--listen=10.0.0.1:7001",
                     "--port-file=/data/ports",
                     "--data-dir=/data",
                     "--answer=5",
                     "--admin=" };
    struct ch_service_args args = { &def, 6, argv };
    struct base_buf ports = { 0 };
    sim = ch_sim_new(ch_sim_seed(1));
    struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
    ch_sim_start(node, ch_service_main, &args);
    run_until(CH_S);
    cr_assert(seen.serves == 1 && seen.answer == 5);
    cr_assert(ch_sim_disk_peek(node, "/data/ports", &ports));
    cr_assert(base_bytes_eq_str(base_buf_bytes(&ports), "10.0.0.1:7001\n\n\n"), "%.*s",
              BASE_FMT(base_buf_bytes(&ports)));
    ch_sim_stop(node);
    cr_assert(seen.stops == 1 && !seen.stop_was_cancelled);
    cr_assert_eq(ch_sim_exit_value(node), 0);
    ch_sim_start(node, ch_service_main, &args);
    run_until(CH_S);
    ch_sim_crash(node); /* must not hang, leak or abort; what stop() sees is a dead env */
    cr_assert_eq(seen.serves, 2);
    ch_sim_start(node, ch_service_main, &args);
    run_until(CH_S);
    cr_assert_eq(seen.serves, 3);
    base_buf_free(&ports);
    ch_sim_free(sim);
    cr_assert_eq(seen.stops, 3);
}

Test(service, a_failing_one_ends_its_simulated_node_with_its_value)
{
    struct ch_service_def def = demo_def();
    char *argv[] = { "demo", "--listen=10.0.0.1:7001", "--fail-at=later" };
    struct ch_service_args args = { &def, 3, argv };
    sim = ch_sim_new(ch_sim_seed(1));
    struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
    ch_sim_start(node, ch_service_main, &args);
    run_until(5 * CH_S);
    cr_assert(!ch_sim_running(node));
    cr_assert_eq(ch_sim_exit_value(node), 1);
    ch_sim_free(sim);
}
