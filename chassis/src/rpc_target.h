/* rpc_target.h (private to chassis): what a client's target stands for: its endpoints, fixed or
 * followed through naming. */
#ifndef CHASSIS_RPC_TARGET_H
#define CHASSIS_RPC_TARGET_H

#include "rpc_client_int.h"

void ch__target_start(struct ch_client *client);
/* Lets go of every endpoint; open calls on them end. */
void ch__target_close(struct ch_client *client);
/* NULL is fine. */
void ch__endpoint_unref(struct ch_client *client, struct ch_endpoint *endpoint);
/* Makes the list be exactly these (empty addresses are skipped); endpoints that stay keep their
 * state. */
void ch__target_set(struct ch_client *client, const char *const *addresses, const bool *healthy,
                    size_t count);

#endif
