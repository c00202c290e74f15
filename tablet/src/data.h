/* data.h: what the handlers of google.bigtable.v2 share. */
#ifndef TAB_DATA_H
#define TAB_DATA_H

#include "chunk.h"
#include "filter.h"
#include "rowset.h"
#include "server.h"

/* Now, in whole milliseconds: what the server writes when a client leaves the time to it. */
int64_t tab_now_us(struct tab_server *server);
/* UNIMPLEMENTED when a view is named. */
struct base_status tab_no_views(struct base_bytes view) BASE_MUST_CHECK;

#endif
