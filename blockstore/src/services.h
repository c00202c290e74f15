/* services.h: the two daemons, as services: for their main functions and for simulated nodes. */
#ifndef BLK_SERVICES_H
#define BLK_SERVICES_H

#include "chassis/service.h"

extern const struct ch_service_def blk__blockmaster_service;
extern const struct ch_service_def blk__blockserver_service;

#endif
