/* build.h: makes the entries of entities that were there before their index was. */
#ifndef QUERYAPI_BUILD_H
#define QUERYAPI_BUILD_H

#include "server.h"

/* Builds every index of the database that is not ready, and marks it so. Goes on in the background
 * when the caller's wait ends early, and at another server when this one's life does (builds.c);
 * called again, it begins anew: entries that are there already are written once more, which changes
 * nothing. */
struct base_status qry_build_all(struct qry_request *request) CH_WAITS BASE_MUST_CHECK;
/* The same in the background, unless it is under way here. */
struct base_status qry_build_resume(struct qry_server *server,
                                    const char *database) BASE_MUST_CHECK;

/* ---- builds.c: what is to be built, kept in the store ---- */
struct base_status qry_builds_add(struct qry_request *request) CH_WAITS BASE_MUST_CHECK;
/* When the request's database was last added, 0: it is not there. */
struct base_status qry_builds_get(struct qry_request *request, uint64_t *written,
                                  uint64_t *read_at) CH_WAITS BASE_MUST_CHECK;
/* If it was not added again since. */
struct base_status qry_builds_remove(struct qry_request *request,
                                     uint64_t written) CH_WAITS BASE_MUST_CHECK;
/* *lock: NULL without naming. */
struct base_status qry_builds_lock(struct qry_request *request,
                                   struct ch_lock **lock) CH_WAITS BASE_MUST_CHECK;
/* Takes up what is there, now and then; arg: the server. */
void qry_builds_fiber(void *arg);

/* indexes.c */
struct base_status qry_definitions_store(struct qry_request *request,
                                         const struct qry_definitions *definitions,
                                         const struct qry_index *indexes,
                                         size_t count) CH_WAITS BASE_MUST_CHECK;

#endif
