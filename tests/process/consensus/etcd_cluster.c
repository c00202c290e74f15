/* etcd_cluster.c: see etcd_cluster.h. */
#include "etcd_cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

bool etcd_installed(void)
{
    return access("/usr/bin/etcd", X_OK) == 0;
}

static bool port_free(int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((unsigned short)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    bool free_ = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
                 bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return free_;
}

void etcd_cluster_init(struct etcd_cluster *cluster, const char *dir)
{
    memset(cluster, 0, sizeof *cluster);
    snprintf(cluster->dir, sizeof cluster->dir, "%s", dir);
    /* Below the range the kernel hands out for outgoing connections. */
    for (int port = 20000 + getpid() % 10000 / 6 * 6;; port = port >= 32000 ? 20000 : port + 6) {
        int free_ports = 0;
        while (free_ports < 2 * ETCD_MEMBERS && port_free(port + free_ports))
            free_ports++;
        if (free_ports == 2 * ETCD_MEMBERS) {
            cluster->port = port;
            break;
        }
    }
    snprintf(cluster->state, sizeof cluster->state,
             "etcd://127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d/test", cluster->port, cluster->port + 2,
             cluster->port + 4);
}

void etcd_start(struct etcd_cluster *cluster, int member, const char *extra)
{
    char name[32], data[300], client[64], peer[64], all[300], log[300];
    int port = cluster->port;
    snprintf(name, sizeof name, "e%d", member);
    snprintf(data, sizeof data, "%s/etcd%d", cluster->dir, member);
    snprintf(log, sizeof log, "%s/etcd%d.log", cluster->dir, member);
    snprintf(client, sizeof client, "http://127.0.0.1:%d", port + 2 * member);
    snprintf(peer, sizeof peer, "http://127.0.0.1:%d", port + 2 * member + 1);
    snprintf(all, sizeof all,
             "e0=http://127.0.0.1:%d,e1=http://127.0.0.1:%d,e2=http://127.0.0.1:%d", port + 1,
             port + 3, port + 5);
    const char *argv[] = { "etcd",   "--name",
                           name,     "--data-dir",
                           data,     "--listen-client-urls",
                           client,   "--advertise-client-urls",
                           client,   "--listen-peer-urls",
                           peer,     "--initial-advertise-peer-urls",
                           peer,     "--initial-cluster",
                           all,      "--initial-cluster-state",
                           "new",    "--logger",
                           "zap",    "--log-outputs",
                           "stderr", extra,
                           NULL };
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0644);
        dup2(fd, 1);
        dup2(fd, 2);
        execv("/usr/bin/etcd", (char **)argv);
        _exit(127);
    }
    cluster->pids[member] = pid;
}

void etcd_kill(struct etcd_cluster *cluster, int member, int signal)
{
    if (cluster->pids[member] <= 0)
        return;
    kill(cluster->pids[member], signal);
    if (signal != SIGKILL)
        return;
    waitpid(cluster->pids[member], NULL, 0);
    cluster->pids[member] = 0;
}

void etcd_cluster_end(struct etcd_cluster *cluster)
{
    for (int i = 0; i < ETCD_MEMBERS; i++)
        etcd_kill(cluster, i, SIGKILL);
}

/* ---- the proxy ---- */

enum { PAIRS_MAX = 64 };

static int connect_to(int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((unsigned short)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* False at the end of either side. */
static bool pass(int from, int to)
{
    char data[65536];
    ssize_t got = read(from, data, sizeof data);
    for (ssize_t at = 0, n; at < got; at += n)
        if ((n = write(to, data + at, (size_t)(got - at))) <= 0)
            return false;
    return got > 0;
}

static volatile sig_atomic_t held;

static void hold_toggle(int signal_)
{
    held = !held;
}

static void proxy_loop(int listener, int port)
{
    struct pollfd fds[1 + 2 * PAIRS_MAX];
    nfds_t count = 1;
    fds[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
    /* Odd: clients. A signal that comes between the look at `held` and poll waits 100 ms. */
    while (true) {
        for (nfds_t i = 1; i < count; i += 2)
            fds[i].events = held ? 0 : POLLIN;
        if (poll(fds, count, 100) <= 0)
            continue;
        for (nfds_t i = 1; i < count; i++) {
            nfds_t peer = (i - 1) ^ 1;
            if (!fds[i].revents || (held && i % 2) || fds[i].fd < 0 ||
                pass(fds[i].fd, fds[peer + 1].fd))
                continue;
            close(fds[i].fd);
            close(fds[peer + 1].fd);
            fds[i].fd = fds[peer + 1].fd = -1;
            fds[i].revents = fds[peer + 1].revents = 0;
        }
        if (fds[0].revents && count + 2 <= 1 + 2 * PAIRS_MAX) {
            int in = accept(listener, NULL, NULL), out = in < 0 ? -1 : connect_to(port);
            if (out < 0) {
                close(in);
                continue;
            }
            fds[count++] = (struct pollfd){ .fd = in, .events = POLLIN };
            fds[count++] = (struct pollfd){ .fd = out, .events = POLLIN };
        }
    }
}

pid_t etcd_proxy(struct etcd_cluster *cluster, int member, int *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    pid_t pid = -1;
    if (listener >= 0 && bind(listener, (struct sockaddr *)&address, len) == 0 &&
        listen(listener, 16) == 0 &&
        getsockname(listener, (struct sockaddr *)&address, &len) == 0) {
        *port = ntohs(address.sin_port);
        pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            signal(SIGPIPE, SIG_IGN);
            signal(SIGUSR1, hold_toggle);
            proxy_loop(listener, cluster->port + 2 * member);
            _exit(0);
        }
    }
    close(listener);
    return pid;
}
