/* combine.c: operations that wait at the same time travel in one message (no timer: the first
 * goes at once, the rest gathers while messages are under way). There is no fiber of its own:
 * the operation at the head of the queue carries the message for itself and those behind it of
 * the same tenant, on its own fiber and context.
 *
 * Who was taken along waits until the message is answered, whatever happens to its own deadline:
 * its memory is in use. The message's deadline is the earliest of all in it, so that is no
 * longer than any asked for. */
#include "client_int.h"

#include <string.h>

typedef Strata__Txlayer__V1__GetRequest get_request_t;
typedef Strata__Txlayer__V1__CommitRequest commit_request_t;

void txn__combiner_init(struct txn__combiner *combiner, struct ch_env *env,
                        struct ch_client *client, const struct ch_method *method)
{
    *combiner = (struct txn__combiner){ .env = env, .client = client, .method = method };
    TAILQ_INIT(&combiner->calls);
}

static void finish(struct txn__call *call, struct base_status status)
{
    call->status = status;
    call->state = TXN__CALL_DONE;
    ch_cond_signal(&call->changed);
}

/* `first` and those that wait and may travel with it. */
static size_t gather(struct txn__combiner *combiner, struct txn__call *first,
                     struct txn__call **calls)
{
    size_t count = 0, bytes = first->bytes;
    struct txn__call *call, *next;
    calls[count++] = first;
    for (call = TAILQ_FIRST(&combiner->calls); call && count < TXN__COMBINE_OPS_MAX; call = next) {
        next = TAILQ_NEXT(call, link);
        if (strcmp(call->tenant, first->tenant) != 0 || call->state != TXN__CALL_WAITING)
            continue;
        if (bytes + call->bytes > TXN__COMBINE_BYTES_MAX)
            break;
        TAILQ_REMOVE(&combiner->calls, call, link);
        combiner->waiting--;
        call->state = TXN__CALL_TAKEN;
        bytes += call->bytes;
        calls[count++] = call;
    }
    return count;
}

static void promote_next(struct txn__combiner *combiner)
{
    struct txn__call *call = TAILQ_FIRST(&combiner->calls);
    if (!call || combiner->under_way >= TXN__WINDOW)
        return;
    TAILQ_REMOVE(&combiner->calls, call, link);
    combiner->waiting--;
    combiner->under_way++; /* its place is kept */
    call->state = TXN__CALL_LEADS;
    ch_cond_signal(&call->changed);
}

/* Both kinds of messages are one repeated field of operations, one of results. */
static void *make_request(struct txn__combiner *combiner, struct txn__call **calls, size_t count,
                          struct base_arena *arena)
{
    ProtobufCMessage **ops = BASE_NEW_ARRAY(arena, ProtobufCMessage *, count);
    for (size_t i = 0; i < count; i++)
        ops[i] = calls[i]->op;
    if (combiner->method->request == &strata__txlayer__v1__get_request__descriptor) {
        get_request_t *request = CH_MESSAGE(arena, get_request_t, strata__txlayer__v1__get_request);
        request->ops = (Strata__Txlayer__V1__GetOp **)ops;
        request->n_ops = count;
        return request;
    }
    commit_request_t *request =
        CH_MESSAGE(arena, commit_request_t, strata__txlayer__v1__commit_request);
    request->ops = (Strata__Txlayer__V1__CommitOp **)ops;
    request->n_ops = count;
    return request;
}

static size_t results_of(struct txn__combiner *combiner, void *reply, ProtobufCMessage ***results)
{
    if (combiner->method->request == &strata__txlayer__v1__get_request__descriptor) {
        *results = (ProtobufCMessage **)((Strata__Txlayer__V1__GetReply *)reply)->results;
        return ((Strata__Txlayer__V1__GetReply *)reply)->n_results;
    }
    *results = (ProtobufCMessage **)((Strata__Txlayer__V1__CommitReply *)reply)->results;
    return ((Strata__Txlayer__V1__CommitReply *)reply)->n_results;
}

/* One message for all of `calls`; the first is the carrier's own. */
static void carry(struct txn__combiner *combiner, struct txn__call **calls, size_t count) CH_WAITS;
static void carry(struct txn__combiner *combiner, struct txn__call **calls, size_t count)
{
    struct base_arena shared;
    base_arena_init(&shared);
    struct base_arena *arena = count == 1 ? calls[0]->arena : &shared;
    struct ch_call_options options = { .deadline = calls[0]->deadline, .no_retry = true };
    for (size_t i = 1; i < count; i++)
        if (calls[i]->deadline < options.deadline)
            options.deadline = calls[i]->deadline;
    void *reply = NULL;
    ProtobufCMessage **results = NULL;
    struct base_status status =
        ch_client_call(combiner->client, combiner->method,
                       make_request(combiner, calls, count, arena), &options, arena, &reply);
    if (!base_failed(status) && results_of(combiner, reply, &results) != count)
        status = base_status_make(BASE_INTERNAL, "%s: %zu operations, but not as many results",
                                  combiner->method->name, count);
    for (size_t i = 0; i < count; i++) {
        if (!base_failed(status))
            calls[i]->result = count == 1 ? results[i] : ch_proto_copy(results[i], calls[i]->arena);
        finish(calls[i], base_status_copy(&status));
    }
    base_status_free(&status);
    base_arena_free(&shared);
}

/* Waits until the call is done or is to carry; leaves the queue at its deadline. */
static void wait_in_queue(struct txn__combiner *combiner, struct txn__call *call) CH_WAITS;
static void wait_in_queue(struct txn__combiner *combiner, struct txn__call *call)
{
    call->state = TXN__CALL_WAITING;
    TAILQ_INSERT_TAIL(&combiner->calls, call, link);
    combiner->waiting++;
    while (call->state == TXN__CALL_WAITING) {
        enum ch_outcome outcome = ch_cond_wait(&call->changed, call->deadline);
        if (outcome != CH_OK && call->state == TXN__CALL_WAITING) {
            TAILQ_REMOVE(&combiner->calls, call, link);
            combiner->waiting--;
            finish(call, ch_outcome_status(outcome, "wait for a message to the leader"));
        }
    }
    while (call->state == TXN__CALL_TAKEN)
        ch_cond_wait_always(&call->changed);
}

struct base_status txn__combine(struct txn__combiner *combiner, ProtobufCMessage *op, size_t bytes,
                                ch_time deadline, struct base_arena *arena, void **result)
{
    const struct ch_context *context = ch_context_current();
    struct txn__call call = { .deadline = deadline,
                              .bytes = bytes,
                              .op = op,
                              .arena = arena,
                              .tenant = context ? context->tenant : "" };
    if (combiner->waiting >= TXN__WAITING_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "%d operations wait for the leader",
                                TXN__WAITING_MAX);
    ch_cond_init(&call.changed);
    if (combiner->under_way < TXN__WINDOW && !combiner->waiting) {
        call.state = TXN__CALL_LEADS;
        combiner->under_way++;
    } else {
        wait_in_queue(combiner, &call);
    }
    if (call.state == TXN__CALL_LEADS) {
        struct txn__call *calls[TXN__COMBINE_OPS_MAX];
        size_t count = gather(combiner, &call, calls);
        carry(combiner, calls, count);
        combiner->under_way--;
        promote_next(combiner);
    }
    *result = call.result;
    return call.status;
}
