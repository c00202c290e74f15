/* agent_spawn.c: a task's process: its folders, its flags (chassis/service.h), its environment,
 * the port file it answers with. Everything taken from the assignment is copied before the first
 * wait: a new assignment may replace it meanwhile. */
#include <inttypes.h>
#include <stdlib.h>

#include "agent.h"

struct places {
    const char *data_dir, *port_file, *log;
};

static const char *job_of(const struct clu_agent_task *task, struct base_arena *arena)
{
    return clu_str(arena, task->assignment->spec->name);
}

static const char *port_path(const struct clu_agent_task *task, struct base_arena *arena)
{
    return base_arena_printf(arena, "%s/run/%s.%" PRIu32 ".ports", task->agent->dir,
                             job_of(task, arena), task->assignment->index);
}

char *clu__agent_log_path(struct clu_agent_task *task, struct base_arena *arena)
{
    return base_arena_printf(arena, "%s/logs/%s.%" PRIu32 ".log", task->agent->dir,
                             job_of(task, arena), task->assignment->index);
}

static const char **argv_make(const struct clu_agent_task *task, const struct places *places,
                              struct base_arena *arena)
{
    const struct clu_agent *agent = task->agent;
    const CLU_PB(JobSpec) *spec = task->assignment->spec;
    const char *command = clu_str(arena, spec->command);
    const char **argv = BASE_NEW_ARRAY(arena, const char *, spec->n_args + 16);
    size_t n = 0;

    argv[n++] =
        command[0] == '/' ? command : base_arena_printf(arena, "%s/%s", agent->bin_dir, command);
    for (size_t i = 0; i < spec->n_args; i++)
        argv[n++] = clu_str(arena, spec->args[i]);
    argv[n++] = base_arena_printf(arena, "--listen=%s:%" PRIu32, agent->address, task->port);
    argv[n++] = base_arena_printf(arena, "--admin=%s:0", agent->address);
    argv[n++] = base_arena_printf(arena, "--names=%s", agent->common->names);
    argv[n++] = base_arena_printf(arena, "--cell=%s", agent->common->cell);
    argv[n++] = base_arena_printf(arena, "--task=%s/%" PRIu32, job_of(task, arena),
                                  task->assignment->index);
    argv[n++] = base_arena_printf(arena, "--zone=%s", agent->common->zone);
    argv[n++] = base_arena_printf(arena, "--run=%s", task->run_name);
    argv[n++] = base_arena_printf(arena, "--data-dir=%s", places->data_dir);
    argv[n++] = base_arena_printf(arena, "--port-file=%s", places->port_file);
    if (task->assignment->front.len > 0)
        argv[n++] = base_arena_printf(arena, "--front=%s", clu_str(arena, task->assignment->front));
    argv[n] = NULL;
    return argv;
}

/* STRATA_TASK and STRATA_AGENT_DIR are how the process is found when nobody has it on record
 * (agent_state.c, the CLI). */
static const char **environment_make(const struct clu_agent_task *task, struct base_arena *arena)
{
    const CLU_PB(JobSpec) *spec = task->assignment->spec;
    const char **environment = BASE_NEW_ARRAY(arena, const char *, spec->n_environment + 5);
    size_t n = 0;

    environment[n++] = base_arena_printf(arena, "STRATA_TASK=%s/%" PRIu32, job_of(task, arena),
                                         task->assignment->index);
    environment[n++] = base_arena_printf(arena, "STRATA_RUN=%s", task->run_name);
    environment[n++] = base_arena_printf(arena, "STRATA_AGENT_DIR=%s", task->agent->dir);
    environment[n++] =
        base_arena_printf(arena, "STRATA_START_ORDER=%" PRIu32, task->assignment->start_order);
    for (size_t i = 0; i < spec->n_environment; i++)
        environment[n++] = clu_str(arena, spec->environment[i]);
    environment[n] = NULL;
    return environment;
}

static CH_WAITS struct base_status folders_make(struct clu_agent *agent,
                                                const struct places *places,
                                                struct base_arena *arena)
{
    struct base_status status = ch_dir_make(agent->env, places->data_dir);

    if (!base_failed(status))
        status = ch_dir_make(agent->env, base_arena_printf(arena, "%s/run", agent->dir));
    if (!base_failed(status))
        status = ch_dir_make(agent->env, base_arena_printf(arena, "%s/logs", agent->dir));
    if (base_failed(status))
        return status;
    status = ch_file_remove(agent->env, places->port_file); /* of the process before */
    if (status.code == BASE_NOT_FOUND)
        base_status_free(&status);
    return status;
}

struct base_status clu__agent_spawn(struct clu_agent_task *task, struct clu_agent_run *run)
{
    struct clu_agent *agent = task->agent;
    struct base_arena arena;
    struct places places;
    struct ch_process_spec spec;
    struct base_status status;

    base_arena_init(&arena);
    places.data_dir = base_arena_printf(&arena, "%s/tasks/%s/%" PRIu32, agent->dir,
                                        job_of(task, &arena), task->assignment->index);
    places.port_file = port_path(task, &arena);
    places.log = clu__agent_log_path(task, &arena);
    spec = (struct ch_process_spec){
        .argv = argv_make(task, &places, &arena),
        .environment = environment_make(task, &arena),
        .directory = places.data_dir,
        .log_path = places.log,
    };
    status = folders_make(agent, &places, &arena);
    if (!base_failed(status))
        status = ch_process_start(agent->env, &spec, &run->process);
    status = base_status_wrap(status, "start %s", spec.argv[0]);
    base_arena_free(&arena);
    return status;
}

/* "listen\nadmin\nfront\n" */
struct base_status clu__agent_ports_read(struct clu_agent_task *task)
{
    struct base_arena arena;
    struct base_buf text = { 0 };
    char *at, *endpoint, *admin;
    struct base_status status;

    base_arena_init(&arena);
    status = ch_file_read_all(task->agent->env, port_path(task, &arena), 4096, &text);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
    } else if (!base_failed(status)) {
        base_buf_put_u8(&text, 0);
        at = (char *)text.data;
        endpoint = strsep(&at, "\n");
        admin = at ? strsep(&at, "\n") : NULL;
        clu__str_set(&task->endpoint, base_bytes_str(endpoint));
        clu__str_set(&task->admin, base_bytes_str(admin ? admin : ""));
    }
    base_buf_free(&text);
    base_arena_free(&arena);
    return status;
}
