/* member: a process with a log in etcd that proposes whenever it leads, for as long as it lives.
 *
 *   con_etcd_member STATE NUMBER FILE
 *
 * FILE gets a line for each proposal that was acknowledged ("a NUMBER"), and for each that was not
 * ("f CODE text"), and one for each change of leadership ("t TERM"). */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "list_machine.h"

enum { PROPOSERS = 8 };

static struct {
    struct ch_env *env;
    struct con_log *log;
    struct list_machine list;
    uint64_t who, number, told;
    int out;
} m;

static void say(const char *what, uint64_t number, const char *text)
{
    char line[400];
    int len = snprintf(line, sizeof line, "%s %" PRIu64 " %s\n", what, number, text);

    if (write(m.out, line, (size_t)len) != len)
        _exit(3);
}

static void proposer(void *arg)
{
    CH_FIBER_ENTRY();
    struct base_buf command = { 0 }, reply = { 0 };

    while (!ch_cancelled()) {
        struct list_item item = { m.who, 0, 0 };
        struct base_status status;

        if (con_log_wait_lead(m.log, ch_in(m.env, CH_S), &item.term) != CH_OK)
            continue;
        if (item.term > m.told)
            say("t", m.told = item.term, "");
        item.number = ++m.number;
        base_buf_clear(&command);
        base_buf_clear(&reply);
        list_encode(item, &command);
        status = con_log_propose(m.log, base_buf_bytes(&command), ch_in(m.env, 8 * CH_S), &reply);
        if (base_failed(status))
            say("f", status.code, base_status_text(&status));
        else
            say("a", item.number, "");
        base_status_free(&status);
    }
    base_buf_free(&command);
    base_buf_free(&reply);
}

/* Numbers begin above all that an earlier run of this member can have used. */
static uint64_t number_first(const char *path)
{
    uint64_t number, most = 0;
    char line[500], what[2];
    FILE *file = fopen(path, "r");

    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%1s %" SCNu64, what, &number) == 2 && *what == 'a' && number > most)
            most = number;
    if (file)
        fclose(file);
    return most + 1000;
}

static int run(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    char **argv = arg;
    char self[32];
    struct con_machine machine = list_machine_of(&m.list);
    struct con_log_options options = { .group = "list", .self = self, .state = argv[1] };
    struct base_status status;
    struct ch_gate gate;

    m.env = env;
    m.number = number_first(argv[3]);
    snprintf(self, sizeof self, "member:%s", argv[2]);
    status = con_log_open(env, &options, &machine, &m.log);
    if (base_failed(status)) {
        fprintf(stderr, "%s\n", base_status_text(&status));
        return 1;
    }
    ch_gate_init(&gate, env, "proposers");
    for (int i = 0; i < PROPOSERS; i++)
        base_status_drop(ch_gate_spawn(&gate, "proposer", proposer, NULL));
    while (ch_sleep_until(env, CH_NEVER) == CH_TIMEOUT)
        ;
    ch_gate_stop(&gate);
    con_log_close(m.log);
    free(m.list.items);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    m.who = strtoull(argv[2], NULL, 10);
    m.out = open(argv[3], O_CREAT | O_WRONLY | O_APPEND, 0644);
    if (m.out < 0)
        return 2;
    return ch_env_run(run, argv);
}
