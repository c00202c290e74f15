/* bed.h: a queryserver on a simulated node over the txlayer's double, and a client that speaks to
 * it. Requests are written as JSON ('...' for "..."). */
#ifndef QUERYAPI_BED_H
#define QUERYAPI_BED_H

#include "chassis/rpc_client.h"
#include "chassis/sim.h"
#include "server.h"
#include "test.h"
#include "txn_double.h"

struct bed {
    struct ch_sim *sim;
    struct ch_sim_node *node;
    struct double_store store;
    struct ch_service_def def;
    struct qry_server *server; /* of the last start */
    struct ch_env *env;        /* the tester's */
    struct ch_client *client;
    struct base_arena arena;
    char flag[64];
    char *argv[6];
    struct ch_service_args args;
    bool lost_answer;
};

/* Runs body on a fiber of a tester's node. */
#define BED_TEST(name)                              \
    static void bed_##name(struct bed *t) CH_WAITS; \
    Test(queryapi, name, .timeout = 120)            \
    {                                               \
        CH_FIBER_ENTRY();                           \
        bed_run(bed_##name);                        \
    }                                               \
    static void bed_##name(struct bed *t)

void bed_run(void (*body)(struct bed *t));
void bed_restart(struct bed *t) CH_WAITS;

enum {
    LOOKUP,
    RUN_QUERY,
    AGGREGATE,
    BEGIN,
    COMMIT,
    ROLLBACK,
    ALLOCATE,
    RESERVE,
    LOAD_INDEXES,
    LIST_INDEXES
};
/* The request's message, with project "p" where it names none. */
void *bed_request(struct bed *t, int method, const char *fmt, ...) BASE_PRINTF(3, 4);
/* NULL when it failed; *status is then the caller's to free (NULL: it must not fail). */
void *bed_send(struct bed *t, int method, void *request, struct base_status *status) CH_WAITS;
void *bed_call(struct bed *t, int method, const char *fmt, ...) CH_WAITS BASE_PRINTF(3, 4);
/* Must fail with this code, and a text that holds `text`. */
void bed_fails(struct bed *t, int method, enum base_code code, const char *text, const char *fmt,
               ...) CH_WAITS BASE_PRINTF(5, 6);
const char *bed_json(struct bed *t, const void *message);
const char *bed_base64(struct bed *t, ProtobufCBinaryData bytes);

#endif
