/* internal.h: shared by internal.c, logsort.c and server.c. */
#ifndef TAB_INTERNAL_H
#define TAB_INTERNAL_H

#include "server.h"

ch_unary_fn tab_on_sort_log;
/* Makes an id known as "about to be served here", so that nobody loads it meanwhile. Caller's
 * memory. */
void tab_loading_begin(struct tab_server *server, struct tab_loading *loading, uint64_t id);
void tab_loading_end(struct tab_server *server, struct tab_loading *loading);

#endif
