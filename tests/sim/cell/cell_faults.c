/* cell_faults.c: what goes wrong, and the end of it. */
#include "cell.h"

enum { TASKS = 14, HOSTS = CELL_MACHINES + CELL_CLIENTS };

struct faults {
    unsigned kinds;
    ch_time until, pause_max;
    size_t running;
};

static const char *host(size_t i)
{
    return i < CELL_MACHINES ? cell.machines[i].host : cell.clients[i - CELL_MACHINES].host;
}

/* A program that runs; `core`: a clustermaster or clusteragent, else one of a task. */
static struct cell_program *victim(bool core)
{
    for (int tries = 0; tries < 50; tries++) {
        struct cell_program *program = cell.programs[cell_below(cell.program_count)];
        const struct cell_machine *machine = &cell.machines[program->machine];
        bool is_core = program == machine->master || program == machine->agent;

        if (is_core == core && ch_sim_running(program->node))
            return program;
    }
    return NULL;
}

static void say(const char *what, const char *who)
{
    cell.counts.faults++;
    if (getenv("STRATA_CELL_FAULTS"))
        fprintf(stderr, "%.3f %s %s\n", (double)ch_sim_now(cell.sim) / 1e9, what, who);
}

static void cut(const char *a, const char *b, bool one_way, bool cut)
{
    ch_sim_net_cut(cell.sim, a, b, cut);
    if (!one_way)
        ch_sim_net_cut(cell.sim, b, a, cut);
}

/* Of a machine from others, or of a client. */
static CH_WAITS void cut_some(const struct faults *faults, bool one_way)
{
    size_t a = cell_below(HOSTS), b = cell_below(CELL_MACHINES);

    if (a == b)
        return;
    if (cell_below(2))
        cut(host(b), host(a), one_way, true);
    else
        cut(host(a), host(b), one_way, true);
    say(one_way ? "cut one way" : "cut", host(a));
    cell_rest(100 * CH_MS, faults->pause_max);
    cut(host(a), host(b), false, false);
}

static CH_WAITS void silence(const struct faults *faults)
{
    size_t a = cell_below(CELL_MACHINES);

    say("silent", host(a));
    for (size_t b = 0; b < HOSTS; b++)
        if (b != a)
            cut(host(a), host(b), false, true);
    cell_rest(100 * CH_MS, faults->pause_max);
    for (size_t b = 0; b < HOSTS; b++)
        if (b != a)
            cut(host(a), host(b), false, false);
}

static CH_WAITS void power(const struct faults *faults, bool all)
{
    size_t one = cell_below(CELL_MACHINES);

    for (size_t i = 0; i < CELL_MACHINES; i++)
        if (all || i == one) {
            say("power off", host(i));
            cell_machine_off(i);
        }
    cell_rest(100 * CH_MS, faults->pause_max);
    for (size_t i = 0; i < CELL_MACHINES; i++)
        if (all || i == one) {
            say("power on", host(i));
            cell_machine_on(i);
        }
}

static CH_WAITS void pause_one(const struct faults *faults)
{
    struct cell_program *program = victim(cell_below(4) == 0);

    if (!program)
        return;
    say("pause", program->name);
    ch_sim_pause(program->node, true);
    cell_rest(50 * CH_MS, faults->pause_max);
    ch_sim_pause(program->node, false);
}

static CH_WAITS void disk_slow(const struct faults *faults)
{
    struct cell_program *program = victim(cell_below(3) == 0);

    if (!program)
        return;
    say("slow disk", program->name);
    ch_sim_disk_delay(program->node, 5 * CH_MS, (ch_time)(20 + cell_below(400)) * CH_MS);
    cell_rest(500 * CH_MS, faults->pause_max);
    ch_sim_disk_delay(program->node, 100 * CH_US, 300 * CH_US);
}

static CH_WAITS void disk_full(const struct faults *faults)
{
    struct cell_program *program = victim(cell_below(3) == 0);

    if (!program)
        return;
    say("full disk", program->name);
    ch_sim_disk_limit(program->node, ch_sim_disk_used(program->node) + cell_below(100000) + 1);
    cell_rest(500 * CH_MS, faults->pause_max);
    ch_sim_disk_limit(program->node, 0);
}

static CH_WAITS void net_slow(const struct faults *faults)
{
    size_t a = cell_below(HOSTS), b = cell_below(CELL_MACHINES);

    say("slow", host(a));
    ch_sim_net_slow(cell.sim, host(a), host(b), (ch_time)(1 + cell_below(300)) * CH_MS);
    cell_rest(500 * CH_MS, faults->pause_max);
    ch_sim_net_slow(cell.sim, host(a), host(b), 0);
}

static void end_one(unsigned kind)
{
    struct cell_program *program = victim(kind == FAULT_KILL_CORE);

    if (!program)
        return;
    say(kind == FAULT_STOP ? "stop" : "kill", program->name);
    if (kind == FAULT_STOP) {
        ch_sim_stop_begin(program->node);
        return;
    }
    program->killed = true;
    ch_sim_kill(program->node);
}

static void clock_jump(void)
{
    size_t machine = cell_below(CELL_MACHINES);
    int64_t by = (int64_t)cell_below(UINT64_C(7200000000)) - INT64_C(3600000000);

    if (cell_below(2))
        by /= 1000;
    say("clock", host(machine));
    for (size_t i = 0; i < cell.program_count; i++)
        if (cell.programs[i]->machine == machine)
            ch_sim_clock_jump(cell.programs[i]->node, by);
}

static CH_WAITS void flaky(const struct faults *faults)
{
    say("flaky", "net");
    ch_sim_net_flaky(cell.sim, (uint32_t)cell_below(10000));
    cell_rest(500 * CH_MS, faults->pause_max);
    ch_sim_net_flaky(cell.sim, 0);
}

static CH_WAITS void act(const struct faults *faults, unsigned kind)
{
    switch (kind) {
    case FAULT_KILL:
    case FAULT_KILL_CORE:
    case FAULT_STOP:
        end_one(kind);
        break;
    case FAULT_POWER:
    case FAULT_POWER_ALL:
        power(faults, kind == FAULT_POWER_ALL);
        break;
    case FAULT_PAUSE:
        pause_one(faults);
        break;
    case FAULT_CUT:
    case FAULT_CUT_ONE_WAY:
        cut_some(faults, kind == FAULT_CUT_ONE_WAY);
        break;
    case FAULT_SILENT:
        silence(faults);
        break;
    case FAULT_SLOW_NET:
        net_slow(faults);
        break;
    case FAULT_FLAKY:
        flaky(faults);
        break;
    case FAULT_CLOCK:
        clock_jump();
        break;
    case FAULT_FULL_DISK:
        disk_full(faults);
        break;
    default:
        disk_slow(faults);
        break;
    }
}

static void faults_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct faults *faults = arg;
    ch_time gap = (ch_time)(200 + cell_below(4000)) * CH_MS;

    while (faults->kinds && ch_now(cell_env()) < faults->until) {
        unsigned kind = 1u << cell_below(FAULT_KINDS);

        if (!(faults->kinds & kind))
            continue;
        act(faults, kind);
        cell_rest(gap / 10, gap);
    }
    faults->running--;
}

static void heal(void)
{
    ch_sim_net_heal(cell.sim);
    for (size_t i = 0; i < CELL_MACHINES; i++)
        cell_machine_on(i);
    for (size_t i = 0; i < cell.program_count; i++) {
        ch_sim_pause(cell.programs[i]->node, false);
        ch_sim_disk_delay(cell.programs[i]->node, 100 * CH_US, 300 * CH_US);
        ch_sim_disk_limit(cell.programs[i]->node, 0);
    }
}

void cell_faults(unsigned kinds, ch_time length, ch_time pause_max)
{
    struct faults faults = { .kinds = kinds, .pause_max = pause_max };
    size_t fibers = 1 + cell_below(2);

    faults.until = ch_in(cell_env(), length);
    for (size_t i = 0; i < fibers; i++, faults.running++)
        MUST(base_status_drop(ch_gate_spawn(&cell.gate, "faults", faults_fiber, &faults)) ==
                 BASE_OK,
             "no faults");
    while (faults.running > 0 || ch_now(cell_env()) < faults.until)
        cell_rest(50 * CH_MS, 50 * CH_MS);
    heal();
    say("healed", "");
}
