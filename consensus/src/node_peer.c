/* node_peer.c: the way to one other process: an outbox, a fiber, a stream.
 *
 * Invariants
 * 1. Whatever waits when the sender comes round leaves in one Delivery (up to
 * CON_DELIVERY_BYTES): no timer, no delay when idle, fewer and larger messages under load.
 * 2. The outbox is bounded: messages with entries or pieces of snapshots are dropped first, others
 * at twice the count. The algorithm sends again what was lost.
 * 3. What a stream that had worked fails to take is sent again, once, on a new one; so a peer that
 * was started anew loses no vote. A duplicate does no harm.
 * 4. Nothing stale is kept for a peer that cannot be reached: a failed connection empties the
 * outbox.
 *
 * Failure modes: a peer that does not read (stopped, cut off) holds the sender in flow control and
 * the outbox fills; keepalive ends the stream in the end. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "chassis/rpc_client.h"
#include "group_int.h"
#include "node_int.h"

void con__peer_init(struct con__peer_way *peer, struct con_node *node, const char *target)
{
    struct ch_client_options options = { .naming = node->naming, .no_retry = true };
    char labels[CON_ADDRESS_MAX + 32] = "";

    peer->node = node;
    snprintf(peer->target, sizeof(peer->target), "%s", target);
    ch_cond_init(&peer->work);
    peer->heard = peer->sent = ch_now(node->env);
    peer->client = ch_client_new(node->env, target, &options);
    ch_label(labels, sizeof(labels), "peer", target);
    peer->metrics.messages = ch_counter(node->env, "strata_consensus_messages_sent_total", labels,
                                        "Messages to other members, heartbeats too.");
    peer->metrics.deliveries = ch_counter(node->env, "strata_consensus_deliveries_sent_total",
                                          labels, "What messages travelled in.");
    peer->metrics.dropped = ch_counter(node->env, "strata_consensus_messages_dropped_total", labels,
                                       "Messages there was no room or no connection for.");
    peer->metrics.streams = ch_counter(node->env, "strata_consensus_streams_total", labels,
                                       "Streams opened to another member.");
}

/* ---- the outbox ---- */

static void outbox_clear(struct con__outbox *box)
{
    base_arena_reset(&box->arena);
    box->count = box->bytes = 0;
    box->beats[0].count = box->beats[1].count = 0;
    box->beats[0].any_quiet = box->beats[1].any_quiet = false;
}

static void outbox_free(struct con__outbox *box)
{
    base_arena_free(&box->arena);
    free(box->messages);
    free(box->sizes);
    for (int i = 0; i < 2; i++)
        free(box->beats[i].to); /* one block of columns */
}

static size_t outbox_count(const struct con__outbox *box)
{
    return box->count + box->beats[0].count + box->beats[1].count;
}

static void beats_grow(struct con__beat_rows *rows)
{
    size_t cap = rows->cap ? 2 * rows->cap : 64;
    uint64_t *block = malloc(7 * cap * sizeof(*block)), *old = rows->to;

    if (!block)
        abort();
    for (int column = 0; column < 7 && rows->count > 0; column++)
        memcpy(block + (size_t)column * cap, old + (size_t)column * rows->cap,
               rows->count * sizeof(*block));
    free(old);
    rows->to = block;
    rows->from = block + cap;
    rows->term = block + 2 * cap;
    rows->commit = block + 3 * cap;
    rows->round = block + 4 * cap;
    rows->index = block + 5 * cap;
    rows->quiet = block + 6 * cap;
    rows->cap = cap;
}

static bool beat_put(struct con__outbox *box, const struct con_message *message)
{
    struct con__beat_rows *rows = &box->beats[message->kind == CON_HEARTBEAT_REPLY];
    size_t at = rows->count;

    if (at >= CON_PEER_BEATS_MAX)
        return false;
    if (at == rows->cap)
        beats_grow(rows);
    rows->to[at] = message->to;
    rows->from[at] = message->from;
    rows->term[at] = message->term;
    rows->commit[at] = message->commit;
    rows->round[at] = message->round;
    rows->index[at] = message->index;
    rows->quiet[at] = message->quiet;
    rows->any_quiet |= message->quiet != 0;
    rows->count++;
    return true;
}

static size_t message_size(const struct con_message *message)
{
    size_t size = 128 + message->data.len + (message->config ? sizeof(*message->config) : 0);

    for (size_t i = 0; i < message->entry_count; i++)
        size += 24 + message->entries[i].data.len;
    return size;
}

static bool message_put(struct con__outbox *box, const char *group,
                        const struct con_message *message)
{
    bool heavy = message->entry_count > 0 || message->data.len > 0;
    size_t size = message_size(message);

    if (heavy ? box->count >= CON_PEER_MESSAGES_MAX || box->bytes + size > CON_PEER_BYTES_MAX
              : box->count >= 2 * CON_PEER_MESSAGES_MAX)
        return false;
    if (box->count == box->cap) {
        box->cap = box->cap ? 2 * box->cap : 64;
        box->messages = realloc(box->messages, box->cap * sizeof(box->messages[0]));
        box->sizes = realloc(box->sizes, box->cap * sizeof(box->sizes[0]));
        if (!box->messages || !box->sizes)
            abort();
    }
    box->messages[box->count] = con__message_encode(&box->arena, group, message);
    box->sizes[box->count++] = size;
    box->bytes += size;
    return true;
}

void con__peer_send(struct con__peer_way *peer, const char *group,
                    const struct con_message *message)
{
    bool idle = outbox_count(&peer->open) == 0;

    if (con__message_is_beat(message) ? !beat_put(&peer->open, message)
                                      : !message_put(&peer->open, group, message)) {
        ch_count(peer->metrics.dropped, 1);
        peer->lost = true;
        return;
    }
    ch_count(peer->metrics.messages, 1);
    if (idle)
        ch_cond_signal(&peer->work);
}

/* ---- the stream ---- */

static CON_PB(Beats) * beats_message(struct con__beat_rows *rows, CON_PB(Beats) * out)
{
    strata__consensus__v1__beats__init(out);
    out->n_to = out->n_from = out->n_term = out->n_commit = out->n_round = out->n_index =
        rows->count;
    out->to = rows->to;
    out->from = rows->from;
    out->term = rows->term;
    out->commit = rows->commit;
    out->round = rows->round;
    out->index = rows->index;
    out->n_quiet = rows->any_quiet ? rows->count : 0;
    out->quiet = rows->quiet;
    return out;
}

/* All of `leaving`, in as many Deliveries as it takes. */
static CH_WAITS struct base_status leaving_send(struct con__peer_way *peer,
                                                struct ch_client_stream *stream)
{
    struct con__outbox *box = &peer->leaving;
    struct base_status status = BASE_STATUS_OK;
    size_t at = 0;

    do {
        CON_PB(Delivery) delivery;
        CON_PB(Beats) beats[2];
        size_t begin = at, bytes = 0;

        strata__consensus__v1__delivery__init(&delivery);
        while (at < box->count && (at == begin || bytes + box->sizes[at] <= CON_DELIVERY_BYTES))
            bytes += box->sizes[at++];
        delivery.messages = box->messages + begin;
        delivery.n_messages = at - begin;
        if (begin == 0 && box->beats[0].count > 0)
            delivery.heartbeats = beats_message(&box->beats[0], &beats[0]);
        if (begin == 0 && box->beats[1].count > 0)
            delivery.heartbeat_replies = beats_message(&box->beats[1], &beats[1]);
        if (peer->node->group_count > 0)
            delivery.from_target = ch_data_str(peer->node->groups[0].group->self);
        ch_count(peer->metrics.deliveries, 1);
        status = ch_stream_send(stream, &delivery);
    } while (!base_failed(status) && at < box->count);
    return status;
}

struct reading {
    struct con__peer_way *peer;
    struct ch_client_stream *stream;
};

/* Waits for the stream's end: the other side says nothing before. */
static void reader_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct reading *reading = arg;
    struct base_arena arena;
    struct base_status status;
    void *message = NULL;

    base_arena_init(&arena);
    do {
        base_arena_reset(&arena);
        status = ch_stream_recv(reading->stream, &arena, &message);
    } while (!base_failed(status) && message);
    base_status_free(&status);
    base_arena_free(&arena);
    reading->peer->broken = true;
    ch_cond_broadcast(&reading->peer->work);
}

/* One stream, till it ends. *worked: it took something, and lived for a while. */
static CH_WAITS struct base_status stream_run(struct con__peer_way *peer, bool *worked)
{
    ch_time begin = ch_now(peer->node->env);
    struct reading reading = { .peer = peer };
    struct ch_gate gate;
    struct base_status status =
        ch_client_open(peer->client,
                       &strata__consensus__v1__consensus__service
                            .methods[STRATA__CONSENSUS__V1__CONSENSUS__DELIVER],
                       NULL, &reading.stream);

    if (base_failed(status))
        return status;
    ch_count(peer->metrics.streams, 1);
    peer->broken = false;
    peer->up = true;
    ch_gate_init(&gate, peer->node->env, "consensus peer reader");
    status = ch_gate_spawn(&gate, "consensus peer reader", reader_fiber, &reading);
    while (!base_failed(status) && !peer->broken) {
        if (!peer->unsent && !peer->knock && outbox_count(&peer->open) == 0) {
            if (ch_cond_wait(&peer->work, CH_NEVER) != CH_OK)
                status = base_status_make(BASE_CANCELLED, "the node is closed");
            continue;
        }
        if (!peer->unsent) {
            struct con__outbox taken = peer->open;

            peer->open = peer->leaving;
            peer->leaving = taken;
        }
        peer->unsent = true;
        peer->knock = false;
        peer->sent = ch_now(peer->node->env);
        status = leaving_send(peer, reading.stream);
        if (base_failed(status))
            break;
        peer->unsent = false;
        *worked = true;
        outbox_clear(&peer->leaving);
    }
    peer->up = peer->knock = false;
    peer->lost = true;
    *worked &= ch_now(peer->node->env) - begin >= CON_PEER_BACKOFF_MS * CH_MS;
    ch_gate_stop(&gate);
    ch_stream_free(reading.stream);
    return status;
}

static void drop_all(struct con__peer_way *peer)
{
    ch_count(peer->metrics.dropped, outbox_count(&peer->open) + outbox_count(&peer->leaving));
    outbox_clear(&peer->open);
    outbox_clear(&peer->leaving);
    peer->unsent = false;
    peer->lost = true;
}

void con__peer_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con__peer_way *peer = arg;
    struct ch_env *env = peer->node->env;
    uint64_t backoff = CON_PEER_BACKOFF_MS;

    while (!ch_cancelled()) {
        bool worked = false;
        struct base_status status;

        if (!peer->unsent && outbox_count(&peer->open) == 0) {
            if (ch_cond_wait(&peer->work, CH_NEVER) != CH_OK)
                return;
            continue;
        }
        status = stream_run(peer, &worked);
        if (base_failed(status) && status.code != BASE_CANCELLED)
            ch_debug(env, "to %s: %s", peer->target, base_status_text(&status));
        base_status_free(&status);
        if (worked) {
            backoff = CON_PEER_BACKOFF_MS;
            continue;
        }
        drop_all(peer);
        (void)ch_sleep_until(
            env, ch_in(env, (ch_time)(backoff / 2 + ch_random_below(env, backoff)) * CH_MS));
        drop_all(peer); /* what came meanwhile is as old as the pause */
        backoff = backoff * 2 < CON_PEER_BACKOFF_MS_MAX ? backoff * 2 : CON_PEER_BACKOFF_MS_MAX;
    }
}

void con__peer_free(struct con__peer_way *peer)
{
    ch_client_free(peer->client);
    outbox_free(&peer->open);
    outbox_free(&peer->leaving);
}
