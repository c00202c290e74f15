/* main.c: the txserver daemon. */
#include "server.h"

int main(int argc, char **argv)
{
    return ch_service_run(&txn__service, argc, argv);
}
