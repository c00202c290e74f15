/* main_tabletserver.c: the tabletserver daemon. */
#include "server.h"

int main(int argc, char **argv)
{
    return ch_service_run(&tab_tabletserver_def, argc, argv);
}
