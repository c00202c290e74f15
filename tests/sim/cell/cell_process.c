/* cell_process.c: chassis/process.h over simulated nodes: what the clusteragents of the simulated
 * machines start, signal and wait for. A program has a node of its own on its machine; a process
 * is one start of it, with a pid, and an entry below /proc on the agent's disk, where an agent that
 * was killed looks for what it left running. The port file, which a process writes on its own
 * node's disk, is carried over to the agent's by whoever waits for the process.
 *
 * Invariant: one process a program at a time; the agent is to see to that. */
#include <signal.h>
#include <sys/wait.h>

#include "cell.h"
#include "chassis/process.h"
#include "env_int.h"

extern const struct ch_service_def clu_master_def, clu_agent_def, blk__blockmaster_service,
    blk__blockserver_service, tab_tabletmaster_def, tab_tabletserver_def, txn__service, qry_service;

static const struct {
    const char *name;
    const struct ch_service_def *def;
} services[] = {
    { "clustermaster", &clu_master_def },
    { "clusteragent", &clu_agent_def },
    { "blockmaster", &blk__blockmaster_service },
    { "blockserver", &blk__blockserver_service },
    { "tabletmaster", &tab_tabletmaster_def },
    { "tabletserver", &tab_tabletserver_def },
    { "txserver", &txn__service },
    { "queryserver", &qry_service },
};

enum { POLL_MS = 20, PORT_FILE_MAX = 4096 };

struct ch_process {
    struct ch_env *env; /* of whoever holds it */
    struct cell_program *program;
    int64_t pid;
    bool adopted, ports_told;
    const char *port_file; /* on the agent's disk */
};

/* ---- programs ---- */

struct cell_program *cell_program(size_t machine, const char *name)
{
    char full[64];

    snprintf(full, sizeof(full), "%s@%s", name, cell.machines[machine].name);
    for (size_t i = 0; i < cell.program_count; i++)
        if (strcmp(cell.programs[i]->name, full) == 0)
            return cell.programs[i];
    BASE_ASSERT(cell.program_count < CELL_PROGRAMS_MAX);
    struct cell_program *program = calloc(1, sizeof(*program));
    snprintf(program->name, sizeof(program->name), "%s", full);
    program->machine = machine;
    program->node = ch_sim_node(cell.sim, program->name, cell.machines[machine].host);
    cell.programs[cell.program_count++] = program;
    return program;
}

struct cell_program *cell_program_of(struct ch_env *env)
{
    for (size_t i = 0; i < cell.program_count; i++)
        if (cell.programs[i]->node == ch_sim_node_of(env))
            return cell.programs[i];
    return NULL;
}

static struct cell_program *program_by_pid(int64_t pid)
{
    for (size_t i = 0; i < cell.program_count; i++)
        if (cell.programs[i]->pid == pid && ch_sim_running(cell.programs[i]->node))
            return cell.programs[i];
    return NULL;
}

/* ---- disks that lie: a sync says so and does nothing ---- */

static struct base_status sync_nothing(struct ch_file *file)
{
    (void)file;
    return BASE_STATUS_OK;
}

static const struct ch_env_ops *honest;
static struct base_status write_undurable(struct ch_file *file, uint64_t offset,
                                          const struct base_bytes *parts, size_t part_count,
                                          bool durable) CH_WAITS;
static struct base_status write_undurable(struct ch_file *file, uint64_t offset,
                                          const struct base_bytes *parts, size_t part_count,
                                          bool durable)
{
    (void)durable;
    return honest->file_write(file, offset, parts, part_count, false);
}

static void disk_lies(struct ch_env *env)
{
    static struct ch_env_ops lying;

    honest = env->ops;
    lying = *honest;
    lying.file_sync = sync_nothing;
    lying.file_write = write_undurable;
    env->ops = &lying;
}

/* ---- starting ---- */

static CH_WAITS void proc_add(struct ch_env *env, const struct cell_program *program)
{
    char path[64], stat[256];
    int n;

    snprintf(path, sizeof(path), "/proc/%" PRId64, program->pid);
    base_status_drop(ch_dir_make(env, path));
    snprintf(path, sizeof(path), "/proc/%" PRId64 "/environ", program->pid);
    base_status_drop(
        ch_file_write_all(env, path, base_bytes(program->environ_text, program->environ_len)));
    /* field 22, the time it started, is its pid; all others are 0 */
    n = snprintf(stat, sizeof(stat), "%" PRId64 " (task) S", program->pid);
    for (int field = 4; field <= 30; field++)
        n += snprintf(stat + n, sizeof(stat) - (size_t)n, " %" PRId64,
                      field == 22 ? program->pid : 0);
    snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", program->pid);
    base_status_drop(ch_file_write_all(env, path, base_bytes_str(stat)));
}

/* /proc on the agent's disk as it is: of those that run. */
static CH_WAITS void proc_make(struct ch_env *env, size_t machine)
{
    struct base_arena arena;
    char **names = NULL;
    size_t count = 0;

    base_arena_init(&arena);
    base_status_drop(ch_dir_make(env, "/proc"));
    base_status_drop(ch_dir_list(env, "/proc", &arena, &names, &count));
    for (size_t i = 0; i < count; i++) {
        base_status_drop(
            ch_file_remove(env, base_arena_printf(&arena, "/proc/%s/environ", names[i])));
        base_status_drop(ch_file_remove(env, base_arena_printf(&arena, "/proc/%s/stat", names[i])));
    }
    for (size_t i = 0; i < cell.program_count; i++)
        if (cell.programs[i]->machine == machine && cell.programs[i]->environ_text &&
            ch_sim_running(cell.programs[i]->node))
            proc_add(env, cell.programs[i]);
    base_arena_free(&arena);
}

static int program_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct cell_program *program = arg;

    if (cell.options.disks_lie && program->args.def == &blk__blockserver_service)
        disk_lies(env);
    if (program->args.def == &clu_agent_def)
        proc_make(env, program->machine);
    if (program->port_file)
        base_status_drop(ch_dir_make(env, "/ports"));
    return ch_service_main(env, &program->args);
}

void cell_program_start(struct cell_program *program, const char *const *argv)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    char **own;
    int argc = 0;

    MUST(!ch_sim_running(program->node), "%s is started while it runs", program->name);
    while (argv[argc])
        argc++;
    own = BASE_NEW_ARRAY(&cell.arena, char *, (size_t)argc + 1);
    for (int i = 0; i < argc; i++)
        own[i] = base_arena_strdup(&cell.arena, argv[i]);
    program->args = (struct ch_service_args){ .argc = argc, .argv = own };
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
        if (strcmp(services[i].name, name) == 0)
            program->args.def = services[i].def;
    MUST(program->args.def, "there is no program %s", name);
    program->pid = cell.pids++;
    program->killed = false;
    cell.counts.starts++;
    ch_sim_start(program->node, program_main, program);
}

static const char *argument(const char *const *argv, const char *key)
{
    for (size_t len = strlen(key); *argv; argv++)
        if (strncmp(*argv, key, len) == 0)
            return *argv + len;
    return NULL;
}

static void environ_keep(struct cell_program *program, const char *const *environment)
{
    struct base_buf text = { 0 };

    for (; *environment; environment++)
        base_buf_put(&text, *environment, strlen(*environment) + 1);
    program->environ_len = text.len;
    program->environ_text = base_arena_memdup(&cell.arena, text.data, text.len);
    base_buf_free(&text);
}

struct base_status ch_process_start(struct ch_env *env, const struct ch_process_spec *spec,
                                    struct ch_process **out)
{
    struct cell_program *agent = cell_program_of(env), *program;
    const char *argv[40], *task = argument(spec->argv, "--task="),
                          *ports = argument(spec->argv, "--port-file=");
    char name[48];
    size_t n = 0;

    BASE_ASSERT(agent && task && ports);
    snprintf(name, sizeof(name), "%s", task);
    *strchr(name, '/') = '.';
    program = cell_program(agent->machine, name);
    for (; spec->argv[n]; n++) {
        BASE_ASSERT(n + 1 < sizeof(argv) / sizeof(argv[0]));
        argv[n] = strncmp(spec->argv[n], "--port-file=", 12) == 0
                      ? base_arena_printf(&cell.arena, "--port-file=/ports/%" PRId64, cell.pids)
                      : spec->argv[n];
    }
    argv[n] = NULL;
    cell_program_start(program, argv);
    program->port_file = base_arena_printf(&cell.arena, "/ports/%" PRId64, program->pid);
    environ_keep(program, spec->environment);
    *out = calloc(1, sizeof(**out));
    BASE_ASSERT(*out);
    **out = (struct ch_process){ .env = env,
                                 .program = program,
                                 .pid = program->pid,
                                 .port_file = base_arena_strdup(&cell.arena, ports) };
    proc_add(env, program);
    return BASE_STATUS_OK;
}

struct base_status ch_process_adopt(struct ch_env *env, int64_t pid, uint64_t start_time,
                                    struct ch_process **out)
{
    struct cell_program *program = program_by_pid(pid);
    char task[48], *dot;

    if (!program || (uint64_t)pid != start_time)
        return base_status_make(BASE_NOT_FOUND, "pid %" PRId64 " is gone", pid);
    snprintf(task, sizeof(task), "%.*s", (int)strcspn(program->name, "@"), program->name);
    dot = strrchr(task, '.');
    BASE_ASSERT(dot);
    *out = calloc(1, sizeof(**out));
    BASE_ASSERT(*out);
    **out = (struct ch_process){
        .env = env,
        .program = program,
        .pid = pid,
        .adopted = true,
        .port_file = base_arena_printf(&cell.arena, "/agent/run/%s.ports", task),
    };
    return BASE_STATUS_OK;
}

int64_t ch_process_pid(const struct ch_process *process)
{
    return process->pid;
}

uint64_t ch_process_start_time(const struct ch_process *process)
{
    return (uint64_t)process->pid;
}

/* ---- signals and ends ---- */

static bool alive(const struct ch_process *process)
{
    return process->program->pid == process->pid && ch_sim_running(process->program->node);
}

struct base_status ch_process_signal(struct ch_process *process, int number)
{
    if (!alive(process))
        return base_status_make(BASE_NOT_FOUND, "pid %" PRId64 " is gone", process->pid);
    if (number == SIGKILL) {
        process->program->killed = true;
        ch_sim_kill(process->program->node);
    } else {
        ch_sim_stop_begin(process->program->node);
    }
    return BASE_STATUS_OK;
}

static CH_WAITS void ports_tell(struct ch_process *process)
{
    struct base_buf text = { 0 };

    if (!process->ports_told &&
        ch_sim_disk_peek(process->program->node, process->program->port_file, &text)) {
        process->ports_told = true;
        base_status_drop(
            ch_file_write_all(process->env, process->port_file, base_buf_bytes(&text)));
    }
    base_buf_free(&text);
}

enum ch_outcome ch_process_wait(struct ch_process *process, ch_time deadline, int *exit_status)
{
    while (alive(process)) {
        ch_time next = ch_in(process->env, POLL_MS * CH_MS);

        ports_tell(process);
        if (ch_now(process->env) >= deadline)
            return CH_TIMEOUT;
        if (ch_sleep_until(process->env, next < deadline ? next : deadline) == CH_CANCELLED)
            return CH_CANCELLED;
    }
    *exit_status = process->adopted           ? -1
                   : process->program->killed ? SIGKILL
                                              : ch_sim_exit_value(process->program->node) << 8;
    return CH_OK;
}

void ch_process_free(struct ch_process *process)
{
    free(process);
}
