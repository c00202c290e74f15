/* etcd_cluster.h: three members of Debian's etcd-server on loopback, for tests and benches. Their
 * data lies below a folder of the caller's; they die with the process that started them. */
#ifndef TESTS_ETCD_CLUSTER_H
#define TESTS_ETCD_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { ETCD_MEMBERS = 3 };

struct etcd_cluster {
    char dir[200];
    int port; /* member i: port + 2i for clients, the next for its fellows */
    pid_t pids[ETCD_MEMBERS];
    char state[128]; /* "etcd://…" of all three */
};

bool etcd_installed(void);
/* A free run of ports is looked for. */
void etcd_cluster_init(struct etcd_cluster *cluster, const char *dir);
/* `extra` is one more flag, or NULL. */
void etcd_start(struct etcd_cluster *cluster, int member, const char *extra);
void etcd_kill(struct etcd_cluster *cluster, int member, int signal);
/* Kills all and waits for them. */
void etcd_cluster_end(struct etcd_cluster *cluster);

/* A process that passes bytes on between 127.0.0.1:PORT and member `member`. SIGUSR1: it holds back
 * what clients send, until the next SIGUSR1. Returns its pid. */
pid_t etcd_proxy(struct etcd_cluster *cluster, int member, int *port);

#endif
