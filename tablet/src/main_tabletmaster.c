/* main_tabletmaster.c: the tabletmaster daemon. */
#include "master.h"

int main(int argc, char **argv)
{
    return ch_service_run(&tab_tabletmaster_def, argc, argv);
}
