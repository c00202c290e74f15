/* queryserver: see service.c. */
#include "server.h"

int main(int argc, char **argv)
{
    return ch_service_run(&qry_service, argc, argv);
}
