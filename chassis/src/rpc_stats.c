/* rpc_stats.c: what a client counts, by method and peer (its target: that is what /peersz groups
 * by).
 *
 *   rpc_client_calls{method,peer,code}   calls by how they ended; a stream counts when it is freed
 *   rpc_client_latency_ns{method,peer}   of a call with its retries; of a stream to its end
 *   rpc_client_retries, _hedges, _hedge_wins {method,peer}
 *   rpc_client_messages{method,peer,direction}   of streams */
#include <stdio.h>
#include <string.h>

#include "rpc_client_int.h"

/* Room for the longest method, target and code. */
enum { LABELS_MAX = 640 };

static void labels_of(const struct ch_client *client, const struct ch_method *method,
                      const char *name, const char *value, char labels[LABELS_MAX])
{
    labels[0] = '\0';
    ch_label(labels, LABELS_MAX, "method", method->path + 1);
    ch_label(labels, LABELS_MAX, "peer", client->target);
    if (name)
        ch_label(labels, LABELS_MAX, name, value);
}

struct ch__client_method *ch__client_method(struct ch_client *client,
                                            const struct ch_method *method)
{
    size_t at = ((uintptr_t)method / sizeof(*method)) % CH__CLIENT_METHODS_MAX, tries = 0;
    while (client->methods[at].method && client->methods[at].method != method &&
           tries++ < CH__CLIENT_METHODS_MAX)
        at = (at + 1) % CH__CLIENT_METHODS_MAX;
    struct ch__client_method *stats = &client->methods[at];
    if (stats->method)
        return stats;
    char labels[LABELS_MAX];
    labels_of(client, method, NULL, NULL, labels);
    stats->method = method;
    stats->latency =
        ch_histogram(client->env, "rpc_client_latency_ns", labels,
                     "Of a call, with its retries; of a stream, from its opening to its end.");
    stats->retries =
        ch_counter(client->env, "rpc_client_retries", labels, "Attempts after the first.");
    if (!method->client_streaming && !method->server_streaming)
        return stats;
    labels_of(client, method, "direction", "sent", labels);
    stats->sent = ch_counter(client->env, "rpc_client_messages", labels, "Messages of streams.");
    labels_of(client, method, "direction", "received", labels);
    stats->received =
        ch_counter(client->env, "rpc_client_messages", labels, "Messages of streams.");
    return stats;
}

void ch__client_count(struct ch_client *client, struct ch__client_method *stats,
                      enum base_code code, ch_time took)
{
    if ((unsigned)code >= CH__CLIENT_CODES)
        code = BASE_UNKNOWN;
    if (!stats->codes[code]) {
        char labels[LABELS_MAX];
        labels_of(client, stats->method, "code", base_code_name(code), labels);
        stats->codes[code] =
            ch_counter(client->env, "rpc_client_calls", labels, "Calls made, by status code.");
    }
    ch_count(stats->codes[code], 1);
    ch_observe(stats->latency, (uint64_t)took);
}

void ch__client_count_hedge(struct ch_client *client, struct ch__client_method *stats, bool won)
{
    if (!stats->hedges) {
        char labels[LABELS_MAX];
        labels_of(client, stats->method, NULL, NULL, labels);
        stats->hedges = ch_counter(client->env, "rpc_client_hedges", labels,
                                   "Second copies of slow calls that were sent.");
        stats->hedge_wins =
            ch_counter(client->env, "rpc_client_hedge_wins", labels, "Those that were faster.");
    }
    ch_count(won ? stats->hedge_wins : stats->hedges, 1);
}
