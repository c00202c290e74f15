/* echo_service.c: the smallest service there is: nothing but what chassis/service.h gives every
 * daemon (health, ports, names). Stands in for the storage daemons in tests of clustermgr. */
#include <stdlib.h>

#include "chassis/service.h"

struct echo_config {
    char *greeting; /* something a job file can change */
};
static const struct ch_config_key keys[] = {
    CH_CONFIG(echo_config, greeting, "greeting", CH_CONFIG_STRING, "hello",
              "a setting without an effect"),
};

static CH_WAITS struct base_status echo_start(const struct ch_service_start *start, void **self)
{
    const struct echo_config *config = start->config;

    ch_info(start->env, "says %s", config->greeting);
    *self = start->env;
    return BASE_STATUS_OK;
}

static CH_WAITS void echo_stop(void *self)
{
    ch_info((struct ch_env *)self, "says goodbye");
}

int main(int argc, char **argv)
{
    static const struct ch_service_def def = {
        .name = "clu_echo",
        .about = "a service that does nothing, for tests",
        .config = { keys, 1 },
        .config_size = sizeof(struct echo_config),
        .start = echo_start,
        .stop = echo_stop,
    };

    return ch_service_run(&def, argc, argv);
}
