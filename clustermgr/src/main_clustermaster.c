/* clustermaster: see master.c. */
#include "master.h"

int main(int argc, char **argv)
{
    return ch_service_run(&clu_master_def, argc, argv);
}
