/* service.c: a daemon's life (see service.h).
 *
 *   flags -> logs, faults, traces -> data dir -> naming -> server -> start() -> listen -> admin
 *   port -> serve() -> port file ... until SIGTERM, ch_service_fail or a failure on the way ...
 *   serve() cancelled -> NOT_SERVING -> retire() -> server drained and gone -> stop() -> admin
 *   port, naming -> exit
 *
 * 1. What start() made is stopped exactly once, by stop(), whatever came after it.
 * 2. Starting and stopping each run on a fiber of the service's gate, not on the main one: the
 *    main fiber is what a signal cancels, starting must end then, stopping must not.
 * 3. All a service needs hangs off struct ch__service in its env: many run in one process in the
 *    simulator, where there are no signals, no admin port and no writing to stderr. */
#include "service_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "fault_int.h"
#include "log_int.h"
#include "trace_int.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define KEY(field, name, type, fallback, doc) \
    CH_CONFIG(ch_service_config, field, name, type, fallback, doc)
static const struct ch_config_key common_keys[] = {
    KEY(listen, "listen", CH_CONFIG_STRING, "127.0.0.1:0",
        "address of the RPC server; port 0: any free one"),
    KEY(front, "front", CH_CONFIG_STRING, "", "a second address, the front door; empty: none"),
    KEY(admin, "admin", CH_CONFIG_STRING, "127.0.0.1:0", "address of the admin pages; empty: none"),
    KEY(names, "names", CH_CONFIG_STRING, "",
        "the clustermaster's members, host:port,...; empty: none"),
    KEY(cell, "cell", CH_CONFIG_STRING, "local", "name of the cell; names are /<cell>/..."),
    KEY(task, "task", CH_CONFIG_STRING, "", "this task's name below the cell, tabletserver/2"),
    KEY(zone, "zone", CH_CONFIG_STRING, "zone-a", "the zone this task runs in"),
    KEY(data_dir, "data-dir", CH_CONFIG_STRING, "", "where data is kept; made when missing"),
    CH_CONFIG_LIVE(ch_service_config, log_level, "log-level", CH_CONFIG_STRING, "info",
                   "least level logged: debug, info, warn, error"),
    KEY(trace_collector, "trace-collector", CH_CONFIG_STRING, "",
        "host:port or URL of an OTLP/HTTP collector; empty: none"),
    KEY(port_file, "port-file", CH_CONFIG_STRING, "",
        "written once serving: listen, admin and front address, a line each"),
    KEY(run, "run", CH_CONFIG_STRING, "",
        "names this process among all that ran the task: its sessions end when it is seen to end"),
    KEY(faults, "faults", CH_CONFIG_BOOL, "false",
        "a test cell: fault points may be set through /faultz"),
};

static void service_free(void *ext)
{
    struct ch__service *service = ext;
    base_status_free(&service->failure);
    base_arena_free(&service->arena);
    free(service);
}

static void tables_fill(const struct ch_service_def *def, struct ch_config_table tables[CH__TABLES])
{
    tables[0] =
        (struct ch_config_table){ common_keys, sizeof(common_keys) / sizeof(common_keys[0]) };
    tables[1] = def->config;
}

static struct ch__service *service_new(struct ch_env *env, const struct ch_service_def *def)
{
    struct ch__service *service = calloc(1, sizeof(*service));
    BASE_ASSERT(service && !env->ext[CH_EXT_SERVICE]);
    service->env = env;
    service->def = def;
    service->begun = ch_now(env);
    tables_fill(def, service->tables);
    service->configs[0] = &service->common;
    service->configs[1] =
        base_arena_calloc(&service->arena, 1, def->config_size ? def->config_size : 1);
    ch_gate_init(&service->gate, env, "service");
    env->ext[CH_EXT_SERVICE] = service;
    env->ext_free[CH_EXT_SERVICE] = service_free;
    return service;
}

/* ---- failing ---- */

/* The first failure is the reason; later ones are logged only. */
static void service_failed(struct ch__service *service, struct base_status why)
{
    ch_error(service->env, "%s stops: %s", service->def->name, base_status_text(&why));
    if (base_failed(service->failure))
        base_status_free(&why);
    else
        service->failure = why;
    ch_env_stop_main(service->env);
}

void ch_service_fail(struct ch_env *env, struct base_status why)
{
    struct ch__service *service = env->ext[CH_EXT_SERVICE];
    BASE_ASSERT(service && base_failed(why));
    service_failed(service, why);
}

/* ---- configuration that changes ---- */

static struct base_status log_level_set(struct ch__service *service)
{
    enum ch_log_level level;
    if (!ch__log_level_parse(service->common.log_level, &level))
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "--log-level is \"%s\", must be debug, info, warn or error",
                                service->common.log_level);
    ch_log_set(service->env, service->def->name, level);
    return BASE_STATUS_OK;
}

static struct base_status config_changed(void *self, const struct ch_config_key *key)
{
    struct ch__service *service = self;
    bool common =
        key >= common_keys && key < common_keys + sizeof(common_keys) / sizeof(common_keys[0]);
    struct base_buf value = { 0 };
    struct base_status status = BASE_STATUS_OK;
    if (common) /* the one there is */
        status = log_level_set(service);
    else if (service->def->reconfigured && service->started)
        status = service->def->reconfigured(service->self, key->name);
    ch__config_value(key, service->configs[!common], &value);
    if (!base_failed(status))
        ch_info(service->env, "--%s is %.*s now", key->name, BASE_FMT(base_buf_bytes(&value)));
    base_buf_free(&value);
    return status;
}

static void config_skipped(void *self, const struct ch_config_key *key)
{
    struct ch__service *service = self;
    ch_warn(service->env, "--%s has changed, and is read at the start only", key->name);
}

static void reload(struct ch_env *env)
{
    struct ch__service *service = env->ext[CH_EXT_SERVICE];
    size_t changes;
    struct base_status status = ch__config_reload(&service->live, config_skipped, &changes);
    if (base_failed(status))
        ch_error(env, "SIGHUP: %s", base_status_text(&status));
    else
        ch_info(env, "SIGHUP: %s read again, %zu changes",
                service->live.origin.file ? service->live.origin.file : "no --config", changes);
    base_status_free(&status);
}

static struct base_status config_read(struct ch__service *service, int argc, char **argv)
{
    service->config_sizes[0] = sizeof(service->common);
    service->config_sizes[1] = service->def->config_size;
    service->live = (struct ch__config_live){ .tables = service->tables,
                                              .table_count = CH__TABLES,
                                              .configs = service->configs,
                                              .sizes = service->config_sizes,
                                              .arena = &service->arena,
                                              .argc = argc,
                                              .argv = argv,
                                              .changed = config_changed,
                                              .self = service };
    return ch__config_parse(service->tables, CH__TABLES, service->configs, argc, argv,
                            &service->arena, &service->live.origin);
}

/* ---- starting ---- */

static struct base_status tools_start(struct ch__service *service) CH_WAITS;
static struct base_status tools_start(struct ch__service *service)
{
    struct ch_env *env = service->env;
    const struct ch_service_config *common = &service->common;
    const char *faults = env->simulated ? NULL : getenv("STRATA_FAULTS");
    struct base_status status = log_level_set(service);
    if (!base_failed(status) && faults && *faults)
        status = base_status_wrap(ch__fault_set_all(env, faults), "STRATA_FAULTS");
    if (!base_failed(status) && *common->trace_collector)
        status = ch__trace_export(env, *common->task ? common->task : service->def->name,
                                  common->trace_collector);
    if (!base_failed(status) && *common->data_dir)
        status = base_status_wrap(ch_dir_make(env, common->data_dir), "--data-dir");
    return status;
}

static struct base_status server_make(struct ch__service *service)
{
    const struct ch_service_config *common = &service->common;
    struct ch_server_options options = {
        .address = *common->front
                       ? base_arena_printf(&service->arena, "%s,%s", common->listen, common->front)
                       : common->listen,
        .message_bytes_max = service->def->message_bytes_max,
        .http = service->def->http_on_main_port ? &service->http : NULL,
    };
    if (*common->names) {
        service->naming = ch_naming_new(service->env, common->names);
        ch_naming_set_owner(service->naming,
                            base_arena_printf(&service->arena, "%s%s%s", common->task,
                                              *common->run ? "#" : "", common->run));
    }
    return ch_server_new(service->env, &options, &service->server);
}

static struct base_status service_start(struct ch__service *service) CH_WAITS;
static struct base_status service_start(struct ch__service *service)
{
    const struct ch_service_start start = {
        .env = service->env,
        .common = &service->common,
        .config = service->configs[1],
        .naming = service->naming,
        .server = service->server,
    };
    struct base_status status = service->def->start(&start, &service->self);
    if (base_failed(status))
        return base_status_wrap(status, "start");
    service->started = true;
    if (service->def->http_on_main_port)
        service->http = service->def->http_handler(service->self);
    status = ch_server_start(service->server);
    if (base_failed(status) || service->env->simulated || !*service->common.admin)
        return status;
    struct ch_http_handler admin = ch__admin_handler(service);
    return base_status_wrap(
        ch_http_start(service->env, service->common.admin, &admin, &service->admin), "--admin");
}

/* "listen\nadmin\nfront\n"; an address there is none of is an empty line. */
static struct base_status port_file_write(struct ch__service *service) CH_WAITS;
static struct base_status port_file_write(struct ch__service *service)
{
    if (!*service->common.port_file)
        return BASE_STATUS_OK;
    const char *bound = ch_server_address(service->server), *comma = strchr(bound, ',');
    struct base_buf text = { 0 };
    base_buf_put(&text, bound, comma ? (size_t)(comma - bound) : strlen(bound));
    base_buf_printf(&text, "\n%s\n%s\n", service->admin ? ch_http_address(service->admin) : "",
                    comma ? comma + 1 : "");
    struct base_status status =
        ch_file_write_all(service->env, service->common.port_file, base_buf_bytes(&text));
    base_buf_free(&text);
    return base_status_wrap(status, "--port-file");
}

static struct base_status service_up(struct ch__service *service) CH_WAITS;
static struct base_status service_up(struct ch__service *service)
{
    struct base_status status = service_start(service);
    if (base_failed(status))
        return status;
    ch_info(service->env, "%s listens on %s, admin %s", service->def->name,
            ch_server_address(service->server),
            service->admin ? ch_http_address(service->admin) : "none");
    if (service->def->serve)
        status = base_status_wrap(service->def->serve(service->self), "serve");
    else
        ch_server_set_serving(service->server, true);
    return base_failed(status) ? status : port_file_write(service);
}

static void up_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch__service *service = arg;
    struct base_status status = service_up(service);
    if (!base_failed(status))
        service->up = true;
    else if (ch_cancelled() && !base_failed(service->failure))
        base_status_free(&status); /* asked to stop while it was starting */
    else
        service_failed(service, status);
}

/* ---- stopping ---- */

static void down_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch__service *service = arg;
    struct ch_env *env = service->env;
    if (service->server) {
        ch_server_set_serving(service->server, false);
        if (service->up && service->def->retire)
            service->def->retire(service->self);
        ch_server_stop(service->server, ch_in(env, CH_SERVICE_DRAIN_MS * CH_MS));
        service->server = NULL;
    }
    if (service->started && service->def->stop)
        service->def->stop(service->self);
    service->started = false;
    if (service->admin)
        ch_http_stop(service->admin);
    service->admin = NULL;
    if (service->naming)
        ch_naming_free(service->naming);
    service->naming = NULL;
}

/* Runs fn on a fiber that the main fiber's cancellation does not touch, and waits for its end. */
static void run_apart(struct ch__service *service, const char *name, ch_fiber_fn *fn) CH_WAITS;
static void run_apart(struct ch__service *service, const char *name, ch_fiber_fn *fn)
{
    struct ch_gate gate;
    ch_gate_init(&gate, service->env, name);
    struct base_status status = ch_gate_spawn(&gate, name, fn, service);
    if (base_failed(status)) {
        base_status_free(&status);
        fn(service); /* no fiber to be had: here, cancelled or not */
        return;
    }
    ch_gate_join_always(&gate);
}

/* ---- the main fiber ---- */

static int service_main(struct ch__service *service) CH_WAITS;
static int service_main(struct ch__service *service)
{
    struct ch_env *env = service->env;
    struct base_status status = tools_start(service);
    if (!base_failed(status))
        status = server_make(service);
    if (!base_failed(status))
        status = ch_gate_spawn(&service->gate, "start", up_fiber, service);
    if (base_failed(status))
        service_failed(service, status);
    /* Only a cancel ends this: SIGTERM, ch_service_fail, or a failed start. */
    enum ch_outcome outcome = CH_OK;
    while (outcome != CH_CANCELLED)
        outcome = ch_sleep_until(env, CH_NEVER);
    ch_gate_stop(&service->gate);
    ch_info(env, "%s stops", service->def->name);
    run_apart(service, "stop", down_fiber);
    return base_failed(service->failure) ? EXIT_FAILED : 0;
}

/* Lines of failure for a person; a simulated node has the log alone. */
static void say(struct ch_env *env, const char *name, const struct base_status *status)
{
    if (!env->simulated)
        fprintf(stderr, "%s: %s\n", name, base_status_text(status));
}

int ch_service_main(struct ch_env *env, void *service_args)
{
    const struct ch_service_args *args = service_args;
    struct ch__service *service = service_new(env, args->def);
    struct base_status status = config_read(service, args->argc, args->argv);
    int exit_value = EXIT_USAGE;
    if (base_failed(status)) {
        say(env, args->def->name, &status);
        base_status_free(&status);
    } else {
        env->reload = reload;
        exit_value = service_main(service);
        env->reload = NULL;
        if (base_failed(service->failure)) {
            if (!env->simulated)
                ch__log_flush(env);
            say(env, args->def->name, &service->failure);
        }
    }
    return exit_value;
}

int ch_service_run(const struct ch_service_def *def, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            struct ch_config_table tables[CH__TABLES];
            struct base_buf text = { 0 };
            tables_fill(def, tables);
            ch_config_help(tables, CH__TABLES, def->name, def->about, &text);
            fwrite(text.data, 1, text.len, stdout);
            base_buf_free(&text);
            return 0;
        }
        if (strcmp(argv[i], "--version") == 0) {
            printf("%s %s\n", def->name, STRATA_VERSION);
            return 0;
        }
    }
    struct ch_service_args args = { def, argc, argv };
    return ch_env_run(ch_service_main, &args);
}
