/* upkeep.h: a tabletserver's background work: flushes, merges, log trimming, splits by size. */
#ifndef TAB_UPKEEP_H
#define TAB_UPKEEP_H

#include "server.h"

struct base_status tab_upkeep_start(struct tab_server *server) BASE_MUST_CHECK;

#endif
