/* A real cell on loopback, driven as a person drives it, by `strata`: three machines with agents,
 * a clustermaster, and six tasks of a service that does nothing (echo_service.c): three that may
 * move, three pinned. Each test has a cell of its own in a folder of its own, and leaves no
 * process behind. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

enum { OUTPUT_MAX = 64 << 10, TASKS_MAX = 32 };

static char dir[64];
static char output[OUTPUT_MAX];
static bool began; /* the cell was up once */

/* ---- helpers ---- */

/* Runs a command of a shell; what it prints is in `output`. Returns its exit value. */
static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int sh(const char *fmt, ...)
{
    char command[2048];
    va_list args;
    size_t len = 0, got;
    int status;
    FILE *pipe;

    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    pipe = popen(command, "r");
    cr_assert(pipe != NULL);
    while (len < sizeof(output) - 1 &&
           (got = fread(output + len, 1, sizeof(output) - 1 - len, pipe)) > 0)
        len += got;
    output[len] = '\0';
    status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#define STRATA(fmt, ...) sh(BIN_DIR "/strata " fmt " --dir %s 2>&1", ##__VA_ARGS__, dir)

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* A port nobody has; where it begins to look is this process' own, so that tests side by side do
 * not meet. */
static int port_any(void)
{
    static int next;

    if (next == 0)
        next = 20000 + getpid() % 10000;
    for (;; next++) {
        struct sockaddr_in address = { .sin_family = AF_INET,
                                       .sin_port = htons((uint16_t)next),
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        bool good = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

        close(fd);
        if (good)
            return next++;
    }
}

/* The first time at ports of its own; later the cell knows them. */
static void cell_up(void)
{
    char ports[64] = "";

    if (!began)
        snprintf(ports, sizeof(ports), "--datastore-port %d --bigtable-port %d", port_any(),
                 port_any());
    began = true;
    cr_assert_eq(STRATA("up --jobs " JOBS_DIR " --wait 60 %s", ports), 0, "%s", output);
}

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/strata-test-XXXXXX");
    cr_assert(mkdtemp(dir) != NULL);
}

/* Nothing of the cell is left running, whatever the test did. */
static void teardown(void)
{
    int stopped = STRATA("down --kill");
    char said[256];

    snprintf(said, sizeof(said), "%.255s", output);
    sh("grep -laz STRATA_CELL_DIR=%s /proc/[0-9]*/environ 2>/dev/null", dir);
    cr_assert_str_eq(output, "");
    cr_assert(stopped == 0 || strstr(said, "there is no cell"), "%s", said);
    sh("rm -rf %s", dir);
}

struct task {
    char name[64], machine[16], state[16];
    int pid, restarts;
};
static size_t tasks_get(struct task tasks[TASKS_MAX])
{
    size_t count = 0;

    if (STRATA("ps") != 0)
        return 0;
    for (char *line = strtok(output, "\n"); line && count < TASKS_MAX; line = strtok(NULL, "\n")) {
        struct task *task = &tasks[count];
        char *ready = strstr(line, "not ready");

        if (ready)
            ready[3] = '_'; /* one word */
        count += sscanf(line, "%63s %15s %d %15s %*s %*s %d", task->name, task->machine, &task->pid,
                        task->state, &task->restarts) == 5;
    }
    return count;
}

static struct task task_get(const char *name)
{
    struct task tasks[TASKS_MAX];
    size_t count = tasks_get(tasks);

    for (size_t i = 0; i < count; i++)
        if (strcmp(tasks[i].name, name) == 0)
            return tasks[i];
    return (struct task){ 0 };
}

static bool healthy(size_t wanted)
{
    struct task tasks[TASKS_MAX];
    size_t count = tasks_get(tasks), running = 0;

    for (size_t i = 0; i < count; i++)
        running += strcmp(tasks[i].state, "running") == 0;
    return running == wanted && count == wanted;
}

/* Polls until it holds; the processes tell nobody when they are done. */
#define WAIT_UNTIL(seconds, condition)                                                   \
    do {                                                                                 \
        double end_ = now() + (seconds);                                                 \
        bool held_ = false;                                                              \
        while (!(held_ = (condition)) && now() < end_)                                   \
            usleep(20000);                                                               \
        if (!held_)                                                                      \
            STRATA("status");                                                            \
        cr_assert(held_, "not within %d s: " #condition "\n%s", (int)(seconds), output); \
    } while (0)

/* The pid of the agent or master of a machine. */
static int daemon_pid(const char *role, const char *machine)
{
    sh("for p in /proc/[0-9]*; do e=$(tr '\\0' ' ' < $p/environ 2>/dev/null) || continue; case "
       "\"$e\" in *STRATA_CELL_DIR=%s\\ *) ;; "
       "*) continue;; esac; case \"$e\" in *STRATA_TASK=*) continue;; esac; case \"$e\" in "
       "*STRATA_ROLE=%s\\ *) ;; *) continue;; esac; "
       "case \"$e\" in *STRATA_MACHINE=%s\\ *) echo ${p#/proc/};; esac; done 2>/dev/null",
       dir, role, machine);
    return atoi(output);
}

#define CELL_TEST(name) Test(cell, name, .init = setup, .fini = teardown, .timeout = 240)

/* ---- the tests ---- */

CELL_TEST(comes_up_and_up_again_is_quick)
{
    /* One command brings a cell up from nothing; the same again finds it running, changes nothing
     * and is quick. */
    struct task before[TASKS_MAX], after[TASKS_MAX];
    size_t count;
    double start;

    cell_up();
    cr_assert(strstr(output, "the cell is up (3 machines") && strstr(output, "bigtable"), "%s",
              output);
    cr_assert(healthy(6));
    count = tasks_get(before);
    start = now();
    cell_up();
    cr_assert(now() - start < 5, "%f s", now() - start);
    cr_assert_eq(tasks_get(after), count);
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(before[i].pid, after[i].pid, "%s was restarted", before[i].name);
    cr_assert_eq(STRATA("status"), 0);
    cr_assert_eq(STRATA("env"), 0);
    cr_assert(strstr(output, "export DATASTORE_EMULATOR_HOST=127.0.0.1:") &&
              strstr(output, "export BIGTABLE_EMULATOR_HOST=127.0.0.1:"));
    cr_assert_eq(STRATA("names /local/echo"), 0);
    cr_assert(strstr(output, "/local/echo/0") && strstr(output, "/local/echo/2") &&
              !strstr(output, "keeper"));
    for (int i = 0; i < 3; i++) { /* spread and pinned: one a machine */
        char name[16], other[16];

        snprintf(name, sizeof(name), "keeper/%d", i);
        snprintf(other, sizeof(other), "keeper/%d", (i + 1) % 3);
        cr_assert_str_neq(task_get(name).machine, task_get(other).machine);
    }
}

CELL_TEST(a_killed_task_comes_back_at_its_address)
{
    /* A task killed by the kernel or a person is running again in a moment, at the same address,
     * and the count is kept. */
    char address[64] = "";
    struct task was, is;

    cell_up();
    was = task_get("echo/1");
    cr_assert_eq(STRATA("names /local/echo/1"), 0);
    cr_assert_eq(sscanf(strchr(output, '\n'), "%*s %63s", address), 1);
    cr_assert_eq(kill(was.pid, SIGKILL), 0);
    WAIT_UNTIL(20, (is = task_get("echo/1"), is.restarts == 1 && strcmp(is.state, "running") == 0));
    cr_assert(is.pid != was.pid && strcmp(is.machine, was.machine) == 0);
    cr_assert_eq(STRATA("names /local/echo/1"), 0);
    cr_assert(strstr(output, address), "%s is not in %s", address, output);
    cr_assert_eq(STRATA("status"), 0);
    cr_assert(strstr(output, "killed by signal 9"), "%s", output);
}

CELL_TEST(tasks_outlive_their_agent)
{
    /* An agent's death is nothing to its tasks: the next agent adopts the very processes. */
    struct task before[TASKS_MAX], after[TASKS_MAX];
    size_t count;
    int agent;

    cell_up();
    count = tasks_get(before);
    agent = daemon_pid("agent", "m2");
    cr_assert(agent > 0);
    cr_assert_eq(kill(agent, SIGKILL), 0);
    WAIT_UNTIL(20, daemon_pid("agent", "m2") != agent && daemon_pid("agent", "m2") > 0);
    WAIT_UNTIL(20, sh("grep -c adopted %s/machines/m2/agent.log", dir) == 0 && atoi(output) == 2);
    WAIT_UNTIL(20, healthy(6));
    cr_assert_eq(tasks_get(after), count);
    for (size_t i = 0; i < count; i++)
        cr_assert(before[i].pid == after[i].pid && after[i].restarts == 0, "%s was restarted",
                  before[i].name);
    /* And it looks after them as before. */
    for (size_t i = 0; i < count; i++)
        if (strcmp(before[i].machine, "m2") == 0)
            cr_assert_eq(kill(before[i].pid, SIGKILL), 0);
    WAIT_UNTIL(20, healthy(6) && task_get("keeper/1").restarts + task_get("echo/1").restarts > 0);
}

CELL_TEST(the_master_s_state_outlives_it)
{
    /* The masters killed one after the other, and all at once: jobs, places and names are there
     * after each restart, and no task notices. */
    struct task before[TASKS_MAX], after[TASKS_MAX];
    size_t count;
    char names[4096];

    cell_up();
    count = tasks_get(before);
    cr_assert_eq(STRATA("names"), 0);
    snprintf(names, sizeof(names), "%.4095s", output);
    for (int i = 0; i < 3; i++) {
        static const char *const machines[] = { "m1", "m2", "m3" };
        int master = daemon_pid("master", machines[i]);

        cr_assert(master > 0 && kill(master, SIGKILL) == 0);
        WAIT_UNTIL(20, daemon_pid("master", machines[i]) > 0 &&
                           daemon_pid("master", machines[i]) != master && STRATA("status") == 0);
    }
    for (int i = 1; i <= 3; i++)
        cr_assert_eq(STRATA("kill master:m%d -9", i), 0, "%s", output);
    WAIT_UNTIL(20, STRATA("status") == 0);
    cr_assert_eq(tasks_get(after), count);
    for (size_t i = 0; i < count; i++)
        cr_assert(before[i].pid == after[i].pid &&
                  strcmp(before[i].machine, after[i].machine) == 0);
    cr_assert_eq(STRATA("names"), 0);
    cr_assert_str_eq(output, names, "not a version changed");
}

CELL_TEST(a_dead_machine_s_tasks_move_and_its_data_waits)
{
    /* When a machine loses power its stateless task runs elsewhere within seconds; its pinned
     * task waits, says why, and is back on the same machine after power comes on. A task that
     * moved stays where it is, once. */
    struct task moved;

    cell_up();
    cr_assert(strcmp(task_get("echo/2").machine, "m3") == 0 &&
              strcmp(task_get("keeper/2").machine, "m3") == 0);
    cr_assert_eq(STRATA("machine stop m3 -9"), 0, "%s", output);
    WAIT_UNTIL(30, (moved = task_get("echo/2"),
                    strcmp(moved.state, "running") == 0 && strcmp(moved.machine, "m3") != 0));
    WAIT_UNTIL(30, strcmp(task_get("keeper/2").state, "lost") == 0);
    cr_assert_eq(STRATA("why keeper/2"), 0);
    cr_assert(strstr(output, "waits for machine m3, which is not heard of: its data is there"),
              "%s", output);
    cr_assert_eq(STRATA("status"), 1, "not all is well");
    cr_assert_eq(STRATA("machine start m3"), 0);
    WAIT_UNTIL(30, healthy(6));
    cr_assert_str_eq(task_get("keeper/2").machine, "m3");
    cr_assert_str_eq(task_get("echo/2").machine, moved.machine);
}

CELL_TEST(down_and_up_again)
{
    /* Down leaves no process; up finds jobs and pinned places again, whether it went down in
     * order or by a power cut. */
    struct task before[TASKS_MAX], after[TASKS_MAX];
    size_t count;

    cell_up();
    cr_assert_eq(STRATA("job scale echo 4"), 0, "%s", output);
    WAIT_UNTIL(20, healthy(7));
    count = tasks_get(before);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(STRATA("down%s", i ? " --kill" : ""), 0, "%s", output);
        sh("grep -laz STRATA_CELL_DIR=%s /proc/[0-9]*/environ 2>/dev/null", dir);
        cr_assert_str_eq(output, "", "left running");
        cr_assert_eq(STRATA("status"), 1);
        cr_assert(strstr(output, "strata up starts it"), "%s", output);
        cell_up();
        WAIT_UNTIL(20, healthy(7));
        cr_assert_eq(tasks_get(after), count);
        for (size_t j = 0; j < count; j++)
            if (strncmp(before[j].name, "keeper", 6) == 0)
                cr_assert_str_eq(before[j].machine, after[j].machine);
    }
    cr_assert_eq(STRATA("down"), 0);
    sh("grep -h goodbye %s/machines/*/agent/logs/*.log | wc -l", dir);
    cr_assert(atoi(output) >= 14, "of the orderly downs every task took its leave: %s", output);
}

CELL_TEST(what_a_killed_up_leaves_is_found)
{
    /* strata itself killed in the middle of up: whatever it had started by then, down finds; and
     * up gets through after it. */
    for (int i = 0; i < 4; i++) {
        sh("timeout -s KILL 0.%d " BIN_DIR "/strata up --jobs " JOBS_DIR " --dir %s 2>&1", 1 + i,
           dir);
        STRATA("down --kill");
        sh("grep -laz STRATA_CELL_DIR=%s /proc/[0-9]*/environ 2>/dev/null", dir);
        cr_assert_str_eq(output, "", "left running");
    }
    cell_up();
    cr_assert(healthy(6));
}

CELL_TEST(taken_ports)
{
    /* A default port that another program has is no obstacle: another is used and said. One asked
     * for by number is an error. */
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    cr_assert_eq(STRATA("up --jobs " JOBS_DIR " --bigtable-port %d", ntohs(address.sin_port)), 1);
    cr_assert(strstr(output, "is taken by another program"), "%s", output);
    address.sin_port = htons(8086); /* taken by us now, or by somebody before */
    int other = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(bind(other, (struct sockaddr *)&address, sizeof(address)) == 0 ||
              errno == EADDRINUSE);
    (void)!listen(other, 1);
    began = true;
    cell_up();
    cr_assert(strstr(output, "port 8086 is taken: bigtable is at "), "%s", output);
    close(fd);
    close(other);
}

CELL_TEST(jobs_by_hand)
{
    /* Submit, scale, update, why, logs, kill: each does what it says; mistakes are told with the
     * culprit. */
    FILE *file;
    char path[128];
    struct task was;

    cell_up();
    snprintf(path, sizeof(path), "%s/web.yaml", dir);
    file = fopen(path, "w");
    fprintf(file, "name: web\ncommand: clu_echo\ntasks: 2\nresources: { cpu: 50m }\n");
    fclose(file);
    cr_assert_eq(STRATA("job submit %s", path), 0, "%s", output);
    WAIT_UNTIL(20, healthy(8));
    was = task_get("web/0");
    file = fopen(path, "w");
    fprintf(file, "name: web\ncommand: clu_echo\nargs: [--greeting=bonjour]\ntasks: 2\nresources: "
                  "{ cpu: 50m }\n");
    fclose(file);
    cr_assert_eq(STRATA("job submit %s", path), 1);
    cr_assert(strstr(output, "another specification"), "%s", output);
    cr_assert_eq(STRATA("job update %s", path), 0, "%s", output);
    WAIT_UNTIL(30, STRATA("logs web/0") == 0 && strstr(output, "says bonjour") &&
                       STRATA("logs web/1") == 0 && strstr(output, "says bonjour"));
    WAIT_UNTIL(20, healthy(8));
    cr_assert(task_get("web/0").pid != was.pid);
    cr_assert_eq(STRATA("why web/0"), 0);
    cr_assert(strstr(output, "new specification"), "%s", output);
    cr_assert_eq(STRATA("kill web/0 -9"), 0);
    WAIT_UNTIL(20, task_get("web/0").restarts == 1 && healthy(8));
    cr_assert_eq(STRATA("job kill web"), 0);
    WAIT_UNTIL(20, healthy(6));
    file = fopen(path, "w");
    fprintf(file, "name: huge\ncommand: clu_echo\nresources: { cpu: 64 }\n");
    fclose(file);
    cr_assert_eq(STRATA("job submit %s", path), 0);
    WAIT_UNTIL(20, STRATA("why huge/0") == 0 && strstr(output, "3 too little CPU"));
    cr_assert_eq(STRATA("job kill huge"), 0);
    file = fopen(path, "w");
    fprintf(file, "name: web\ncolour: red\n");
    fclose(file);
    cr_assert_eq(STRATA("job submit %s", path), 1);
    cr_assert(strstr(output, ":2: unknown key \"colour\""), "%s", output);
    cr_assert_eq(STRATA("why nobody/3"), 1);
    cr_assert(strstr(output, "there is no task nobody/3"), "%s", output);
    cr_assert_eq(STRATA("kill nobody/3"), 1);
    cr_assert_eq(STRATA("machine stop m9"), 1);
    cr_assert(strstr(output, "no machine m9"), "%s", output);
}
