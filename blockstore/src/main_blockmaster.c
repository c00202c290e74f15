/* main_blockmaster.c: the blockmaster daemon's main. */
#include "services.h"

int main(int argc, char **argv)
{
    return ch_service_run(&blk__blockmaster_service, argc, argv);
}
