/* tool.c: `strata new-service` alone, so that its test needs nothing of the rest of the command. */
#include <string.h>

#include "new_service.h"

int main(int argc, char **argv)
{
    return argc > 1 && strcmp(argv[1], "new-service") == 0 ? cli_new_service(argc - 1, argv + 1)
                                                           : 2;
}
