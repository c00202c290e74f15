/* datastore.h: the Datastore front door, for the subcommands that are its clients (sample.c,
 * index.c). Private to cli. */
#ifndef CLI_DATASTORE_H
#define CLI_DATASTORE_H

#include "cli.h"
#include "google/datastore/v1/datastore.strata.h"
#include "strata/queryapi/v1/indexes.strata.h"

/* A client of the cell's front door; NULL, with a word to stderr, when there is no cell. Free it
 * with ch_client_free. */
struct ch_client *cli_datastore(struct cli *cli) CH_WAITS;
/* One call; the request is given as JSON, the reply lives in `arena`. */
struct base_status cli_datastore_call(struct cli *cli, struct ch_client *client,
                                      const struct ch_method *method, const char *json,
                                      struct base_arena *arena,
                                      void *reply) CH_WAITS BASE_MUST_CHECK;
/* Loads an index.yaml (bytes); *reply may be NULL. */
struct base_status cli_index_load(struct cli *cli, struct ch_client *client, const char *project,
                                  const char *database, struct base_bytes yaml,
                                  Strata__Queryapi__V1__LoadReply **reply) CH_WAITS BASE_MUST_CHECK;

#define CLI_DATASTORE(NAME) \
    &google__datastore__v1__datastore__service.methods[GOOGLE__DATASTORE__V1__DATASTORE__##NAME]
#define CLI_INDEXES(NAME) \
    &strata__queryapi__v1__indexes__service.methods[STRATA__QUERYAPI__V1__INDEXES__##NAME]

#endif
