/* etcd_world.c: see etcd_world.h. */
#include "etcd_world.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

struct etcd_world t;

void member_open(struct ch_env *env, struct member *member, const char *self, bool learner,
                 uint64_t snapshot_bytes)
{
    struct con_log_options options = { .group = "list",
                                       .self = self,
                                       .state = t.etcd.state,
                                       .learner = learner,
                                       .snapshot_bytes_min = snapshot_bytes };
    struct con_machine machine;

    memset(member, 0, sizeof *member);
    member->env = env;
    machine = list_machine_of(&member->list);
    OK(con_log_open(env, &options, &machine, &member->log));
}

void member_close(struct member *member)
{
    con_log_close(member->log);
    free(member->list.items);
}

uint64_t member_lead(struct member *member)
{
    uint64_t term = 0;

    cr_assert(con_log_wait_lead(member->log, ch_in(member->env, 15 * CH_S), &term) == CH_OK);
    cr_assert(term != 0 && term == member->list.led && term == con_log_term(member->log));
    return term;
}

static void setup_with(const char *flag)
{
    ssize_t n = readlink("/proc/self/exe", t.bin, sizeof t.bin - 1);

    cr_assert(n > 0);
    *strrchr(t.bin, '/') = 0;
    snprintf(t.dir, sizeof t.dir, "/tmp/process_con_etcd.XXXXXX");
    cr_assert(mkdtemp(t.dir) != 0);
    if (!etcd_installed())
        return;
    etcd_cluster_init(&t.etcd, t.dir);
    for (int i = 0; i < ETCD_MEMBERS; i++)
        etcd_start(&t.etcd, i, flag);
}

void etcd_setup(void)
{
    setup_with(NULL);
}

void etcd_setup_small(void)
{
    setup_with("--quota-backend-bytes=16777216");
}

void etcd_setup_patient(void)
{
    setup_with("--election-timeout=3000");
}

void etcd_teardown(void)
{
    char command[200];

    for (int i = 0; i < PROCESSES; i++)
        if (t.pids[i] > 0) {
            kill(t.pids[i], SIGKILL);
            waitpid(t.pids[i], NULL, 0);
        }
    if (t.proxy > 0) {
        kill(t.proxy, SIGKILL);
        waitpid(t.proxy, NULL, 0);
    }
    etcd_cluster_end(&t.etcd);
    snprintf(command, sizeof command, "rm -rf '%s'", t.dir);
    cr_assert_eq(system(command), 0);
}

void etcd_run(ch_main_fn *fn)
{
    if (!etcd_installed())
        cr_assert_fail("etcd-server is not installed (tools/packages.txt)");
    cr_assert_eq(ch_env_run(fn, 0), 0);
}
