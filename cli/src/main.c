/* main.c: strata, the one command a person types: the table of its subcommands. */
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chassis/log.h"
#include "cli.h"

struct command {
    const char *name, *args, *about;
    cli_fn *fn CH_WAITS_SLOT;
    int (*plain)(int argc, char **argv); /* needs no cell */
    bool hidden;
};
static const struct command commands[] = {
    { "up", "[--machines N] [--masters N] [--datastore-port P] [--bigtable-port P]",
      "start a cell on this computer, or what is missing of it (port 0: any that is free)", cli_up,
      NULL, false },
    { "down", "[--kill]", "stop it; its data stays (--kill: at once, as a power cut)", cli_down,
      NULL, false },
    { "status", "", "machines, jobs, tasks, front doors", cli_status, NULL, false },
    { "ps", "[JOB]", "tasks with their processes", cli_ps, NULL, false },
    { "why", "JOB/INDEX", "why a task is where it is, or waits", cli_why, NULL, false },
    { "masters", "[add|remove|move-lead …]",
      "who leads the clustermasters and blockmasters, how far each is; change their members",
      cli_masters, NULL, false },
    { "logs", "JOB/INDEX|master[:MACHINE]|agent:MACHINE [-f]", "what it wrote", cli_logs, NULL,
      false },
    { "env", "", "settings for clients: eval $(strata env)", cli_env, NULL, false },
    { "job", "submit FILE|update FILE|kill NAME|list|scale NAME N", "jobs", cli_job, NULL, false },
    { "names", "[PREFIX]", "the cell's names", cli_names, NULL, false },
    { "locks", "", "the cell's locks", cli_locks, NULL, false },
    { "kill", "JOB/INDEX [-SIGNAL] | master:MACHINE [-SIGNAL] | machine NAME [-9]",
      "for experiments: signal a task or a clustermaster; stop a machine", cli_kill, NULL, false },
    { "machine", "stop NAME [-9]|start NAME|list", "for experiments: a machine's power button",
      cli_machine, NULL, false },
    { "sample", "FILE.tsv [--project P]",
      "store the cities of a file as entities and show some queries", cli_sample, NULL, false },
    { "index", "load FILE.yaml|list [--project P] [--database D]",
      "composite indexes of the Datastore API", cli_index, NULL, false },
    { "new-service", "NAME", "write a new service, ready to build", NULL, cli_new_service, false },
    { "machine-init", "", "", cli_machine_init, NULL, true },
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

__attribute__((weak)) int cli_new_service(int argc, char **argv)
{
    fprintf(stderr, "strata: new-service is not part of this build\n");
    return CLI_FAILED;
}

static void help(FILE *out)
{
    fprintf(out, "strata COMMAND [--dir DIR]: a cell of Strata on this computer\n\n");
    for (size_t i = 0; i < COMMANDS; i++)
        if (!commands[i].hidden)
            fprintf(out, "  strata %-12s %s\n      %s\n", commands[i].name, commands[i].args,
                    commands[i].about);
    fprintf(out, "\nA cell lives in a folder: --dir, else $STRATA_DIR, else ./.strata\n");
}

struct invocation {
    const struct command *command;
    const char *dir;
    int argc;
    char **argv;
};

static char *whole_path(const char *path)
{
    char *cwd, *whole = NULL;

    if (path[0] == '/')
        return strdup(path);
    cwd = getcwd(NULL, 0);
    if (!cwd ||
        asprintf(&whole, "%s/%s", cwd, path[0] == '.' && path[1] == '/' ? path + 2 : path) < 0)
        abort();
    free(cwd);
    return whole;
}

static int run(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct invocation *invocation = arg;
    struct cli cli = { .env = env };
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    int value;

    ch_log_set(env, "strata", CH_LOG_ERROR);
    base_arena_init(&cli.arena);
    self[len > 0 ? len : 0] = '\0';
    cli.bin_dir = strdup(dirname(self));
    cli.dir = whole_path(invocation->dir);
    value = invocation->command->fn(&cli, invocation->argc, invocation->argv);
    if (cli.master)
        ch_leader_free(cli.master);
    base_arena_free(&cli.arena);
    free(cli.bin_dir);
    free(cli.dir);
    return value;
}

int main(int argc, char **argv)
{
    const char *dir = cli_take_flag(&argc, argv, "--dir");
    struct invocation invocation;

    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        help(argc < 2 ? stderr : stdout);
        return argc < 2 ? CLI_USAGE : CLI_OK;
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        const struct command *command = &commands[i];

        if (strcmp(command->name, argv[1]) != 0)
            continue;
        if (cli_take_switch(&argc, argv, "--help")) {
            printf("strata %s %s\n    %s\n", command->name, command->args, command->about);
            return CLI_OK;
        }
        if (command->plain) {
            if (dir) { /* its own meaning there; the room in argv is what the flag left */
                char *flag = NULL;
                if (asprintf(&flag, "--dir=%s", dir) < 0)
                    abort();
                argv[argc++] = flag;
            }
            return command->plain(argc - 1, argv + 1);
        }
        const char *usual = getenv("STRATA_DIR");
        if (!dir)
            dir = usual && *usual ? usual : ".strata";
        invocation = (struct invocation){ command, dir, argc - 1, argv + 1 };
        return ch_env_run(run, &invocation);
    }
    fprintf(stderr, "strata: there is no command \"%s\"; strata help lists them\n", argv[1]);
    return CLI_USAGE;
}
