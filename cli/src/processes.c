/* processes.c: the processes of a cell, found by what is in their environment: STRATA_CELL_DIR is
 * the cell's folder, STRATA_MACHINE its machine, STRATA_ROLE what it is. So nothing has to be
 * kept anywhere about them, and whatever way a command or an agent died, the next command finds
 * all that is left. Nothing without the mark is ever touched. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { ENVIRON_MAX = 128 << 10, POLL_MS = 20 };

static size_t proc_read(const char *pid, const char *name, char *out, size_t size)
{
    char path[300];
    size_t len = 0;
    ssize_t got;
    int fd;

    snprintf(path, sizeof(path), "/proc/%s/%s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    while (len < size - 1 && (got = read(fd, out + len, size - 1 - len)) > 0)
        len += (size_t)got;
    close(fd);
    out[len] = '\0';
    return len;
}

static const char *variable(const char *environ_text, size_t len, const char *name)
{
    size_t name_len = strlen(name);

    for (const char *at = environ_text; at < environ_text + len; at += strlen(at) + 1)
        if (strncmp(at, name, name_len) == 0 && at[name_len] == '=')
            return at + name_len + 1;
    return "";
}

/* A process that has ended and is not yet waited for. */
static bool zombie(const char *pid)
{
    char stat[512];
    const char *bracket;

    if (proc_read(pid, "stat", stat, sizeof(stat)) == 0)
        return true;
    bracket = strrchr(stat, ')');
    return bracket && (bracket[2] == 'Z' || bracket[2] == 'X');
}

struct cli_process *cli_processes(struct cli *cli, const char *machine, size_t *count)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    struct cli_process *all = NULL;
    size_t cap = 0;
    char *text = malloc(ENVIRON_MAX);

    *count = 0;
    while (proc && text && (entry = readdir(proc))) {
        struct cli_process process = { .pid = atoi(entry->d_name) };
        size_t len;

        if (process.pid <= 0 || process.pid == getpid())
            continue;
        len = proc_read(entry->d_name, "environ", text, ENVIRON_MAX);
        if (len == 0 || strcmp(variable(text, len, "STRATA_CELL_DIR"), cli->dir) != 0 ||
            zombie(entry->d_name))
            continue;
        snprintf(process.role, sizeof(process.role), "%s", variable(text, len, "STRATA_ROLE"));
        snprintf(process.machine, sizeof(process.machine), "%s",
                 variable(text, len, "STRATA_MACHINE"));
        snprintf(process.task, sizeof(process.task), "%s", variable(text, len, "STRATA_TASK"));
        if (*process.task)
            snprintf(process.role, sizeof(process.role), "task");
        if (!*process.role || (machine && strcmp(machine, process.machine) != 0))
            continue;
        if (*count == cap) {
            struct cli_process *more =
                BASE_NEW_ARRAY(&cli->arena, struct cli_process, 2 * cap + 32);

            if (all)
                memcpy(more, all, cap * sizeof(*more));
            all = more;
            cap = 2 * cap + 32;
        }
        all[(*count)++] = process;
    }
    if (proc)
        closedir(proc);
    free(text);
    return all;
}

static size_t role_count(struct cli *cli, const char *machine, const char *role)
{
    size_t count, matching = 0;
    const struct cli_process *all = cli_processes(cli, machine, &count);

    for (size_t i = 0; i < count; i++)
        matching += !*role || strcmp(all[i].role, role) == 0;
    return matching;
}

size_t cli_signal(struct cli *cli, const char *machine, const char *role, int signal)
{
    size_t count, signalled = 0;
    const struct cli_process *all = cli_processes(cli, machine, &count);

    for (size_t i = 0; i < count; i++)
        if (!*role || strcmp(all[i].role, role) == 0)
            signalled += kill(all[i].pid, signal) == 0;
    return signalled;
}

bool cli_wait_gone(struct cli *cli, const char *machine, const char *role, int64_t timeout_ms)
{
    ch_time deadline = ch_in(cli->env, timeout_ms * CH_MS);

    while (role_count(cli, machine, role) > 0)
        if (ch_now(cli->env) >= deadline ||
            ch_sleep_until(cli->env, ch_in(cli->env, POLL_MS * CH_MS)) != CH_TIMEOUT)
            return false;
    return true;
}

bool cli_init_alive(struct cli *cli, const char *machine)
{
    return role_count(cli, machine, "init") > 0;
}
