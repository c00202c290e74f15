/* main_blockserver.c: the blockserver daemon's main. */
#include "services.h"

int main(int argc, char **argv)
{
    return ch_service_run(&blk__blockserver_service, argc, argv);
}
