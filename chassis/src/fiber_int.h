/* fiber_int.h (private): what loop.c and fiber.c need of each other. */
#ifndef CHASSIS_FIBER_INT_H
#define CHASSIS_FIBER_INT_H

#include "loop.h"

void ch_loop_make_ready(struct ch_loop *loop, struct ch_fiber *fiber);
void ch_fiber_enter(struct ch_loop *loop,
                    struct ch_fiber *fiber); /* from the loop's stack; back when it waits or ends */
void ch_fiber_leave(struct ch_loop *loop,
                    struct ch_fiber *fiber); /* from the fiber's; back when it is entered again */
enum ch_outcome ch__gate_join(struct ch_gate *gate, bool always) CH_WAITS;
void ch_fiber_pool_free(struct ch_loop *loop);

#endif
