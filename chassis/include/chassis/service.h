/* chassis/service.h: ties the parts into a daemon: configuration, logs, naming, RPC server, admin
 * port, signals. A service is a struct of functions; main() is one call. The same functions run a
 * service in the simulator (ch_service_main). */
#ifndef CHASSIS_SERVICE_H
#define CHASSIS_SERVICE_H

#include "chassis/config.h"
#include "chassis/env.h"
#include "chassis/http.h"
#include "chassis/log.h"
#include "chassis/naming.h"
#include "chassis/rpc_client.h"
#include "chassis/rpc_server.h"

/* Keys every service has. */
struct ch_service_config {
    char *listen; /* --listen 127.0.0.2:7001 */
    /* --front 127.0.0.1:8086: a front door, served beside listen by the same server; "": none. */
    char *front;
    char *admin;    /* --admin 127.0.0.2:0; "" : none */
    char *names;    /* --names host:port,…: the clustermaster's members; "" : none */
    char *cell;     /* --cell local: names are /<cell>/… */
    char *task;     /* --task tabletserver/2: this task's name below the cell */
    char *zone;     /* --zone zone-a */
    char *data_dir; /* --data-dir: made when missing */
    char *log_level, *trace_collector;
    bool faults; /* --faults: a test cell; POST /faultz may set fault points */
    /* --port-file: "host:port\nadmin-host:port\nfront-host:port\n" as bound (empty lines for what
     * there is none of), written there, whole, once serve() has returned; "": none. */
    char *port_file;
    char
        *run; /* --run: this process among all that ran the task; owner of its sessions: task#run */
};

struct ch_service_start {
    struct ch_env *env;
    const struct ch_service_config *common;
    void *config;             /* the service's own, parsed */
    struct ch_naming *naming; /* NULL when --names is "" */
    struct ch_server *server; /* register handlers; it is started after start() returns OK */
};

struct ch_service_def {
    const char *name, *about;
    struct ch_config_table config; /* its own keys */
    size_t config_size;
    /* Registers handlers and starts background fibers in gates of its own. *self is handed to the
     * others. */
    struct base_status (*start)(const struct ch_service_start *start, void **self) CH_WAITS_SLOT;
    /* After the server listens: e.g. take the lock, recover, then ch_server_set_serving. May be
     * NULL: serving at once. A failed status stops the process. */
    struct base_status (*serve)(void *self) CH_WAITS_SLOT;
    /* Asked to stop, while RPCs are still answered (NOT_SERVING by health): hand over what others
     * can go on with. Bounds its own time; may be NULL. Called only when serve() returned OK. */
    void (*retire)(void *self) CH_WAITS_SLOT;
    /* The RPC server has drained; stop and free everything. */
    void (*stop)(void *self) CH_WAITS_SLOT;
    /* A live key has a new value, which is in the config struct; on the loop, may not wait. A
     * failed status takes it back. May be NULL. */
    struct base_status (*reconfigured)(void *self, const char *key);
    size_t message_bytes_max; /* received by its RPC server; 0: the server's default */
    bool http_on_main_port;   /* set server options' http from http_handler */
    struct ch_http_handler (*http_handler)(void *self); /* with http_on_main_port */
};

/* The whole of main(). Exit values: 0 stopped as asked, 1 failed (a line on stderr and in the log
 * says why), 2 bad flags or file. SIGTERM: serve() is cancelled, retire() hands over,
 * the RPC server drains (CH_SERVICE_DRAIN_MS), stop() ends the rest; the two on a fiber that is not
 * cancelled. */
enum { CH_SERVICE_DRAIN_MS = 10000 };
int ch_service_run(const struct ch_service_def *def, int argc, char **argv);
/* The same on an env that is there already (a simulated node's main): argv-style flags, no
 * process-wide effects. */
struct ch_service_args {
    const struct ch_service_def *def;
    int argc;
    char **argv;
};
int ch_service_main(struct ch_env *env, void *service_args) CH_WAITS;
/* Ends the process from within (lost lock, dead disk): logs why, cancels the main fiber. Takes
 * `why`. */
void ch_service_fail(struct ch_env *env, struct base_status why);

#endif
