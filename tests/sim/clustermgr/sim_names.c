/* Names on a simulated network and disk: lists, watches, limits and bad input, as a client sees
 * them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/naming.h"
#include "chassis/service.h"
#include "chassis/sim.h"
#include "master.h"
#include "test.h"

static struct ch_sim *sim;
static struct ch_sim_node *master;
static char *master_argv[] = { "clustermaster",   "--listen=10.0.0.100:7000",
                               "--data-dir=data", "--cell=sim",
                               "--admin=",        "--fronts=datastore=10.0.0.1:8081" };
static struct ch_service_args master_args = { &clu_master_def, 6, master_argv };

static void run(ch_fiber_fn *body)
{
    sim = ch_sim_new(ch_sim_seed(3));
    master = ch_sim_node(sim, "master", "10.0.0.100");
    ch_sim_start(master, ch_service_main, &master_args);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 50 * CH_MS);
    ch_sim_do(sim, body, ch_sim_tester_env(sim), ch_sim_now(sim) + 600 * CH_S);
    ch_sim_free(sim);
}

static void ok(struct base_status status)
{
    cr_assert(!base_failed(status), "%s: %s", base_code_name(status.code),
              base_status_text(&status));
}

static void fails(struct base_status status, enum base_code code, const char *text)
{
    cr_assert_eq(status.code, code, "%s: %s", base_code_name(status.code),
                 base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), text) != NULL, "\"%s\" is not in \"%s\"", text,
              base_status_text(&status));
    base_status_free(&status);
}

struct client {
    struct ch_env *env;
    struct ch_client *rpc;
    struct base_arena arena;
};

static void client_init(struct client *client, struct ch_env *env)
{
    *client = (struct client){ .env = env, .rpc = ch_client_new(env, "10.0.0.100:7000", NULL) };
    base_arena_init(&client->arena);
}

static CH_WAITS void client_free(struct client *client)
{
    ch_client_free(client->rpc);
    base_arena_free(&client->arena);
}

static CH_WAITS struct base_status call(struct client *client, const struct ch_method *method,
                                        const void *request, void *reply)
{
    struct ch_call_options options = { .deadline = ch_in(client->env, 5 * CH_S) };

    return ch_client_call(client->rpc, method, request, &options, &client->arena, reply);
}

static void bad_input(void *arg)
{
    CH_FIBER_ENTRY();
    static const char *const paths[] = { "",   "/",    "a",     "/a/",      "/a//b",
                                         "//", "/a b", "/\x01", "/\xc3\xa4" };
    struct client client;
    CLU_PB(SetRequest) set;
    CLU_PB(AcquireRequest) acquire;
    CLU_PB(KeepAliveRequest) alive;
    CLU_PB(SubmitJobRequest) submit;
    CLU_PB(ReportRequest) report;
    CLU_PB(WhyRequest) why;
    CLU_PB(JobSpec) spec;
    char longest[CLU_PATH_MAX + 2], *large = calloc(1, CLU_VALUE_MAX + 1);
    void *reply;

    client_init(&client, arg);
    strata__clustermgr__v1__set_request__init(&set);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        set.path = ch_data_str(paths[i]);
        fails(call(&client, CLU_METHOD(names, NAMES__SET), &set, &reply), BASE_INVALID_ARGUMENT,
              "path \"");
    }
    memset(longest, 'a', sizeof(longest));
    longest[0] = '/';
    longest[CLU_PATH_MAX + 1] = '\0';
    set.path = ch_data_str(longest);
    fails(call(&client, CLU_METHOD(names, NAMES__SET), &set, &reply), BASE_INVALID_ARGUMENT, "256");
    set.path = ch_data_str("/a");
    set.value = ch_data_of(base_bytes(large, CLU_VALUE_MAX + 1));
    fails(call(&client, CLU_METHOD(names, NAMES__SET), &set, &reply), BASE_INVALID_ARGUMENT,
          "value: 65537 bytes");
    set.value = ch_data_str("");
    set.expected_version = -2;
    fails(call(&client, CLU_METHOD(names, NAMES__SET), &set, &reply), BASE_INVALID_ARGUMENT,
          "expected_version");
    strata__clustermgr__v1__acquire_request__init(&acquire);
    acquire.path = ch_data_str("/lock");
    acquire.session = 4711;
    fails(call(&client, CLU_METHOD(names, NAMES__ACQUIRE), &acquire, &reply), BASE_NOT_FOUND,
          "session 4711 has ended");
    strata__clustermgr__v1__keep_alive_request__init(&alive);
    alive.session = 4711;
    fails(call(&client, CLU_METHOD(names, NAMES__KEEP_ALIVE), &alive, &reply), BASE_NOT_FOUND,
          "session 4711 has ended");
    strata__clustermgr__v1__submit_job_request__init(&submit);
    fails(call(&client, CLU_METHOD(cell, CELL__SUBMIT_JOB), &submit, &reply), BASE_INVALID_ARGUMENT,
          "spec: missing");
    strata__clustermgr__v1__job_spec__init(&spec);
    submit.spec = &spec;
    spec.name = ch_data_str("web");
    spec.command = ch_data_str("web");
    spec.front = ch_data_str("gopher");
    fails(call(&client, CLU_METHOD(cell, CELL__SUBMIT_JOB), &submit, &reply), BASE_INVALID_ARGUMENT,
          "no front door \"gopher\"");
    strata__clustermgr__v1__report_request__init(&report);
    fails(call(&client, CLU_METHOD(cell, CELL__REPORT), &report, &reply), BASE_INVALID_ARGUMENT,
          "machine: ");
    strata__clustermgr__v1__why_request__init(&why);
    why.job = ch_data_str("web");
    fails(call(&client, CLU_METHOD(cell, CELL__WHY), &why, &reply), BASE_NOT_FOUND, "web/0");
    client_free(&client);
    free(large);
}

Test(sim_names, bad_input_names_the_culprit)
{
    /* What a client gets wrong comes back with the right code and a text that says what; the
     * master lives on. */
    run(bad_input);
}

static void set_name(struct ch_naming *naming, struct ch_env *env, const char *path,
                     const char *value) CH_WAITS;
static void set_name(struct ch_naming *naming, struct ch_env *env, const char *path,
                     const char *value)
{
    uint64_t version;

    ok(ch_name_set(naming, path, base_bytes_str(value), CH_NAME_ANY, false, ch_in(env, 30 * CH_S),
                   &version));
}

static void prefixes(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *naming = ch_naming_new(env, "10.0.0.100:7000");
    struct ch_name_entry *entries;
    struct base_arena arena;
    size_t count = 0;

    base_arena_init(&arena);
    set_name(naming, env, "/a/b", "");
    set_name(naming, env, "/a-b", "");
    set_name(naming, env, "/a", "");
    set_name(naming, env, "/a/b/c", "");
    set_name(naming, env, "/ab", "");
    ok(ch_name_list(naming, "/a", ch_in(env, CH_S), &arena, &entries, &count));
    cr_assert_eq(count, 3, "/a, /a/b and /a/b/c; neither /a-b nor /ab");
    cr_assert_str_eq(entries[2].path, "/a/b/c");
    ok(ch_name_list(naming, "/", ch_in(env, CH_S), &arena, &entries, &count));
    cr_assert_eq(count, 5);
    base_arena_free(&arena);
    ch_naming_free(naming);
}

Test(sim_names, a_prefix_is_a_path)
{
    /* "Below /a" means the tree below it, not every name that begins with the letters. */
    run(prefixes);
}

/* Waits until the watch shows `count` entries whose values are all `value`. */
static bool shows(struct ch_name_watch *watch, size_t want, const char *value,
                  struct ch_env *env) CH_WAITS;
static bool shows(struct ch_name_watch *watch, size_t want, const char *value, struct ch_env *env)
{
    ch_time deadline = ch_in(env, 60 * CH_S);
    uint64_t generation = 0;

    while (ch_name_watch_wait(watch, &generation, deadline) == CH_OK) {
        size_t count = 0;
        const struct ch_name_entry *entries = ch_name_watch_entries(watch, &count);
        bool all = count == want;

        for (size_t i = 0; all && i < count; i++)
            all = base_bytes_eq_str(entries[i].value, value);
        if (all)
            return true;
    }
    return false;
}

static void watches(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *naming = ch_naming_new(env, "10.0.0.100:7000");
    struct ch_name_watch *watch = ch_name_watch(naming, "/w");
    char path[32];
    ch_time began;

    for (int i = 0; i < 20; i++) {
        snprintf(path, sizeof(path), "/w/%d", i);
        set_name(naming, env, path, "1");
    }
    cr_assert(shows(watch, 20, "1", env));
    began = ch_now(env);
    set_name(naming, env, "/w/0", "2");
    set_name(naming, env, "/w/0", "1");
    ok(ch_name_delete(naming, "/w/19", CH_NAME_ANY, ch_in(env, CH_S)));
    cr_assert(shows(watch, 19, "1", env));
    cr_assert(ch_now(env) - began < 100 * CH_MS,
              "changes come by themselves, not by asking now and then");
    ch_sim_crash(master);
    cr_assert_eq(ch_sleep_until(env, ch_in(env, 2 * CH_S)), CH_TIMEOUT);
    ch_sim_start(master, ch_service_main, &master_args);
    for (int i = 0; i < 19; i++) {
        snprintf(path, sizeof(path), "/w/%d", i);
        set_name(naming, env, path, "3");
    }
    cr_assert(shows(watch, 19, "3", env), "after the master's restart the watch goes on");
    for (int i = 0; i < CLU_CHANGES_MAX + 100; i++)
        set_name(naming, env, "/elsewhere", "x"); /* more changes than are remembered */
    set_name(naming, env, "/w/19", "3");
    cr_assert(shows(watch, 20, "3", env));
    ch_name_watch_free(watch);
    ch_naming_free(naming);
}

static int watcher_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    watches(env);
    *(bool *)arg = true;
    return 0;
}

static bool flag(void *arg)
{
    return *(bool *)arg;
}

Test(sim_names, watches_see_every_state_in_the_end)
{
    /* A watch shows all there is, then each change at once, through the master's restarts and
     * however far it was behind. */
    bool done = false;
    struct ch_sim_node *node;

    sim = ch_sim_new(ch_sim_seed(4));
    master = ch_sim_node(sim, "master", "10.0.0.100");
    node = ch_sim_node(sim, "watcher", "10.0.0.1");
    ch_sim_start(master, ch_service_main, &master_args);
    ch_sim_start(node, watcher_main, &done);
    cr_assert(ch_sim_run(sim, flag, &done, ch_sim_now(sim) + 600 * CH_S));
    ch_sim_free(sim);
}

/* ---- machines by hand: an agent's calls, without an agent ---- */

static CH_WAITS void machine_report(struct client *client, const char *name)
{
    CLU_PB(ReportRequest) *report = CLU_NEW(&client->arena, ReportRequest, report_request);
    void *reply;

    report->machine = CLU_NEW(&client->arena, Machine, machine);
    report->machine->name = ch_data_str(name);
    report->machine->address = ch_data_str("10.0.0.1");
    report->machine->zone = ch_data_str(name);
    report->machine->capacity = CLU_NEW(&client->arena, Resources, resources);
    report->machine->capacity->cpu_millis = 1000;
    ok(call(client, CLU_METHOD(cell, CELL__REPORT), report, &reply));
}

static CH_WAITS const CLU_PB(Task) * task_of(struct client *client, const char *job)
{
    CLU_PB(ListTasksRequest) *list = CLU_NEW(&client->arena, ListTasksRequest, list_tasks_request);
    CLU_PB(ListTasksReply) *reply = NULL;

    list->job = ch_data_str(job);
    ok(call(client, CLU_METHOD(cell, CELL__LIST_TASKS), list, &reply));
    cr_assert_eq(reply->n_tasks, 1);
    return reply->tasks[0];
}

static CH_WAITS void job_submit(struct client *client, const char *name, bool pinned)
{
    CLU_PB(SubmitJobRequest) *submit =
        CLU_NEW(&client->arena, SubmitJobRequest, submit_job_request);
    void *reply;

    submit->spec = CLU_NEW(&client->arena, JobSpec, job_spec);
    submit->spec->name = ch_data_str(name);
    submit->spec->command = ch_data_str("x");
    submit->spec->tasks = 1;
    submit->spec->pinned = pinned;
    ok(call(client, CLU_METHOD(cell, CELL__SUBMIT_JOB), submit, &reply));
}

static void dead_machines(void *arg)
{
    CH_FIBER_ENTRY();
    struct client client;
    ch_time silent;

    client_init(&client, arg);
    machine_report(&client, "m1");
    job_submit(&client, "moves", false);
    job_submit(&client, "stays", true);
    machine_report(&client, "m2");
    (void)ch_sleep_until(client.env, ch_in(client.env, 200 * CH_MS));
    cr_assert(base_bytes_eq_str(ch_bytes_of(task_of(&client, "moves")->machine), "m1"));
    silent = ch_now(client.env);
    while (base_bytes_eq_str(ch_bytes_of(task_of(&client, "moves")->machine), "m1")) {
        machine_report(&client, "m2");
        (void)ch_sleep_until(client.env, ch_in(client.env, 100 * CH_MS));
        cr_assert(ch_now(client.env) - silent < 4 * CH_S, "m1 is silent for too long");
    }
    cr_assert(ch_now(client.env) - silent > 2500 * CH_MS,
              "a machine is not dead after a moment's silence");
    cr_assert(base_bytes_eq_str(ch_bytes_of(task_of(&client, "stays")->machine), "m1"));
    cr_assert(task_of(&client, "stays")->state == CLU_TASK(LOST));
    client_free(&client);
}

Test(sim_names, silent_machines_lose_their_movable_tasks)
{
    /* 3 s after the last report a machine is dead: a stateless task moves to a living one, a
     * pinned one waits; not sooner. */
    run(dead_machines);
}

/* ---- processes that are seen to end ---- */

static CH_WAITS uint64_t session_open(struct client *client, const char *owner)
{
    CLU_PB(OpenSessionRequest) *request =
        CLU_NEW(&client->arena, OpenSessionRequest, open_session_request);
    CLU_PB(OpenSessionReply) *reply = NULL;

    request->owner = ch_data_str(owner);
    request->lease_ms = 60000;
    ok(call(client, CLU_METHOD(names, NAMES__OPEN_SESSION), request, &reply));
    return reply->session;
}

static CH_WAITS struct base_status lock_acquire(struct client *client, uint64_t session,
                                                const char *path)
{
    CLU_PB(AcquireRequest) *request = CLU_NEW(&client->arena, AcquireRequest, acquire_request);
    void *reply;

    request->session = session;
    request->path = ch_data_str(path);
    return call(client, CLU_METHOD(names, NAMES__ACQUIRE), request, &reply);
}

static void ended_runs(void *arg)
{
    CH_FIBER_ENTRY();
    struct client client;
    CLU_PB(ReportRequest) * report;
    ProtobufCBinaryData runs[2] = { ch_data_str("m1-1"), ch_data_str("") };
    uint64_t gone, lives, nameless, next;
    void *reply;

    client_init(&client, arg);
    gone = session_open(&client, "server/0#m1-1");
    lives = session_open(&client, "server/0#m1-11");
    nameless = session_open(&client, "");
    ok(lock_acquire(&client, gone, "/l1"));
    ok(lock_acquire(&client, lives, "/l2"));
    ok(lock_acquire(&client, nameless, "/l3"));
    next = session_open(&client, "server/1#m2-1");
    report = CLU_NEW(&client.arena, ReportRequest, report_request);
    report->machine = CLU_NEW(&client.arena, Machine, machine);
    report->machine->name = ch_data_str("m1");
    report->machine->address = ch_data_str("10.0.0.1");
    report->machine->capacity = CLU_NEW(&client.arena, Resources, resources);
    report->ended_runs = runs;
    report->n_ended_runs = 2;
    ok(call(&client, CLU_METHOD(cell, CELL__REPORT), report, &reply));
    ok(lock_acquire(&client, next, "/l1"));
    fails(lock_acquire(&client, next, "/l2"), BASE_DEADLINE_EXCEEDED, "Acquire");
    fails(lock_acquire(&client, next, "/l3"), BASE_DEADLINE_EXCEEDED, "Acquire");
    client_free(&client);
}

Test(sim_names, a_process_seen_to_end_frees_its_locks)
{
    /* When an agent has seen a process end, that process' sessions end at once, not a lease
     * later; nobody else's do. */
    run(ended_runs);
}
