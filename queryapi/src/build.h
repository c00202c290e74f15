/* build.h: makes the entries of entities that were there before their index was. */
#ifndef QUERYAPI_BUILD_H
#define QUERYAPI_BUILD_H

#include "server.h"

/* Builds every index of the database that is not ready, and marks it so. Goes on in the background
 * when the caller's wait ends early; called again, it begins anew: entries that are there already
 * are written once more, which changes nothing. */
struct base_status qry_build_all(struct qry_request *request) CH_WAITS BASE_MUST_CHECK;

/* indexes.c */
struct base_status qry_definitions_store(struct qry_request *request,
                                         const struct qry_definitions *definitions,
                                         const struct qry_index *indexes,
                                         size_t count) CH_WAITS BASE_MUST_CHECK;

#endif
