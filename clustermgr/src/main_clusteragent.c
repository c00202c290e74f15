/* clusteragent: see agent.c. Programs that jobs name are, unless told otherwise, beside this
 * one. */
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent.h"

int main(int argc, char **argv)
{
    char self[4096], flag[4200];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char **args = calloc((size_t)argc + 2, sizeof(*args));
    int exit_value;

    if (len <= 0 || !args) {
        perror("clusteragent: /proc/self/exe");
        free(args);
        return 1;
    }
    self[len] = '\0';
    snprintf(flag, sizeof(flag), "--bin-dir=%s", dirname(self));
    args[0] = argv[0];
    args[1] = flag; /* first: a flag given after it wins */
    for (int i = 1; i < argc; i++)
        args[i + 1] = argv[i];
    exit_value = ch_service_run(&clu_agent_def, argc + 1, args);
    free(args);
    return exit_value;
}
