/* reflection.c: placeholder until the services it reads are listed. */
#include "rpc_server_int.h"

void ch__reflection_register(struct ch_server *server)
{
}
