/* service_int.h (private to chassis): a running service, for its admin pages. */
#ifndef CHASSIS_SERVICE_INT_H
#define CHASSIS_SERVICE_INT_H

#include "chassis/service.h"
#include "config_int.h"
#include "env_int.h"

enum { CH__TABLES = 2 }; /* common, the service's own */

#ifndef STRATA_VERSION
#define STRATA_VERSION "0.1.0"
#endif

struct ch__service {
    struct ch_env *env;
    const struct ch_service_def *def;
    struct base_arena arena; /* configuration */
    struct ch_service_config common;
    struct ch_config_table tables[CH__TABLES];
    void *configs[CH__TABLES];
    size_t config_sizes[CH__TABLES];
    struct ch__config_live live;
    struct ch_naming *naming;
    struct ch_server *server;
    struct ch_http_handler http; /* of the main port */
    struct ch_http_server *admin;
    void *self;
    bool started; /* start() returned OK */
    bool up;      /* serve() returned OK: the end of the starting fiber is no reason to stop */
    struct base_status failure;
    struct ch_gate gate;
    ch_time begun;
};

/* ---- admin.c ---- */
/* The handler of the admin port; it borrows the service. */
struct ch_http_handler ch__admin_handler(struct ch__service *service);

#endif
