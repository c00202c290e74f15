/* rpc_target.c: see rpc_target.h. A target that begins with '/' is a name of the cell: a fiber
 * follows a naming watch and makes the list what the watch shows, keeping the last list while
 * naming is away. Anything else is a list of addresses.
 *
 * Invariants: 1. An endpoint in the list has one reference for it. 2. The channel lives as long
 * as the endpoint. */
#include "rpc_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ch_endpoint *endpoint_new(const char *address)
{
    struct ch_endpoint *endpoint = calloc(1, sizeof(*endpoint));
    BASE_ASSERT(endpoint != NULL);
    snprintf(endpoint->address, sizeof(endpoint->address), "%s", address);
    endpoint->refs = 1;
    return endpoint;
}

void ch__endpoint_unref(struct ch_client *client, struct ch_endpoint *endpoint)
{
    if (!endpoint || --endpoint->refs)
        return;
    if (endpoint->channel)
        client->transport->channel_free(endpoint->channel);
    free(endpoint);
}

static struct ch_endpoint *find(struct ch_client *client, const char *address)
{
    for (size_t i = 0; i < client->balancer.count; i++)
        if (strcmp(client->balancer.endpoints[i]->address, address) == 0)
            return client->balancer.endpoints[i];
    return NULL;
}

void ch__target_set(struct ch_client *client, const char *const *addresses, const bool *healthy,
                    size_t count)
{
    struct ch_balancer old = client->balancer, next = { .count = 0 };
    for (size_t i = 0; i < old.count; i++)
        old.endpoints[i]->listed = false;
    for (size_t i = 0; i < count && next.count < CH__ENDPOINTS_MAX; i++) {
        if (!*addresses[i])
            continue;
        struct ch_endpoint *endpoint = find(client, addresses[i]);
        if (endpoint && endpoint->listed)
            continue; /* twice in the list */
        if (endpoint)
            endpoint->refs++;
        else
            endpoint = endpoint_new(addresses[i]);
        endpoint->listed = true;
        endpoint->healthy = healthy ? healthy[i] : true;
        next.endpoints[next.count++] = endpoint;
    }
    client->balancer = next;
    client->resolved = true;
    for (size_t i = 0; i < old.count; i++)
        ch__endpoint_unref(client, old.endpoints[i]);
    ch_cond_broadcast(&client->changed);
}

static void set_fixed(struct ch_client *client)
{
    const char *addresses[CH__ENDPOINTS_MAX];
    size_t count = 0;
    char *text = strdup(client->target), *rest = text, *address;
    BASE_ASSERT(text != NULL);
    while (count < CH__ENDPOINTS_MAX && (address = strsep(&rest, ",")))
        addresses[count++] = address;
    ch__target_set(client, addresses, NULL, count);
    free(text);
}

/* The watch's entries as a list: an entry's value is "host:port", perhaps followed by more after
 * a space. */
static void set_named(struct ch_client *client, const struct ch_name_entry *entries,
                      size_t entry_count)
{
    struct base_arena arena;
    base_arena_init(&arena);
    const char **addresses = BASE_NEW_ARRAY(&arena, const char *, entry_count);
    bool *healthy = BASE_NEW_ARRAY(&arena, bool, entry_count);
    for (size_t i = 0; i < entry_count; i++) {
        char *value = base_bytes_cstr(&arena, entries[i].value);
        value[strcspn(value, " ,\n")] = '\0';
        addresses[i] = value;
        healthy[i] = entries[i].healthy;
    }
    ch__target_set(client, addresses, healthy, entry_count);
    base_arena_free(&arena);
}

static void follow(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_client *client = arg;
    struct ch_name_watch *watch = ch_name_watch(client->naming, client->target);
    uint64_t generation = 0;
    while (ch_name_watch_wait(watch, &generation, CH_NEVER) == CH_OK) {
        size_t count = 0;
        const struct ch_name_entry *entries = ch_name_watch_entries(watch, &count);
        set_named(client, entries, count);
    }
    ch_name_watch_free(watch);
}

void ch__target_start(struct ch_client *client)
{
    if (*client->target != '/' || !client->naming) {
        if (*client->target != '/')
            set_fixed(client);
        return;
    }
    base_status_drop(ch_gate_spawn(&client->gate, "rpc target", follow,
                                   client)); /* without a fiber calls say "not resolved" */
}

void ch__target_close(struct ch_client *client)
{
    struct ch_balancer old = client->balancer;
    client->balancer.count = 0;
    for (size_t i = 0; i < old.count; i++) {
        struct ch_endpoint *endpoint = old.endpoints[i];
        if (endpoint->channel)
            client->transport->channel_free(endpoint->channel);
        endpoint->channel = NULL;
        ch__endpoint_unref(client, endpoint);
    }
}

struct base_status ch__client_pick(struct ch_client *client, const struct ch_endpoint *avoid,
                                   ch_time deadline, struct ch_endpoint **out)
{
    while (!client->resolved && !client->closed) {
        if (*client->target == '/' && !client->naming)
            return base_status_make(BASE_FAILED_PRECONDITION,
                                    "target %s is a name, and there is no naming", client->target);
        enum ch_outcome outcome = ch_cond_wait(&client->changed, deadline);
        if (outcome != CH_OK)
            return base_status_wrap(ch_outcome_status(outcome, "resolve"), "%s", client->target);
    }
    if (client->closed)
        return base_status_make(BASE_CANCELLED, "%s: the client is closed", client->target);
    struct ch_endpoint *endpoint = ch_balancer_pick(&client->balancer, avoid, ch_now(client->env),
                                                    ch_random(client->env), ch_random(client->env));
    if (!endpoint)
        return base_status_make(BASE_UNAVAILABLE, "%s: nobody serves it", client->target);
    if (!endpoint->channel)
        endpoint->channel = client->transport->channel_new(client->env, endpoint->address,
                                                           client->message_bytes_max);
    endpoint->refs++;
    endpoint->outstanding++;
    ch_breaker_begin(&endpoint->breaker, ch_now(client->env));
    *out = endpoint;
    return BASE_STATUS_OK;
}

void ch__client_done(struct ch_client *client, struct ch_endpoint *endpoint, enum base_code code)
{
    bool failed = code == BASE_UNAVAILABLE || code == BASE_DEADLINE_EXCEEDED;
    endpoint->outstanding--;
    if (client->balancer.count > 1)
        ch_breaker_end(&endpoint->breaker, ch_now(client->env), failed);
    ch__endpoint_unref(client, endpoint);
}
