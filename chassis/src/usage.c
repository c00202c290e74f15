/* usage.c: what a server's calls have cost, by tenant: usage_calls, usage_bytes_received,
 * usage_bytes_sent, usage_busy_ns {tenant}. The tenant is the one that came with the call (the
 * context's); calls without one are the system's own. Busy is the time that handlers had the loop,
 * so with one process a CPU it is CPU time; what a handler's helper fibers do is not in it, and
 * what other servers do for it is on their accounts, since the tenant travels with the calls.
 *
 * Names come from outside: at most CH__TENANTS_MAX get an account of their own, in the order they
 * first came; the rest shares "other". */
#include <stdlib.h>
#include <string.h>

#include "rpc_server_int.h"

static struct ch__usage *usage_new(struct ch_server *server, const char *tenant, const char *shown)
{
    struct ch__usage *usage = calloc(1, sizeof(*usage));
    char labels[256] = "";
    BASE_ASSERT(usage != NULL);
    strncpy(usage->tenant, tenant, sizeof(usage->tenant) - 1);
    ch_label(labels, sizeof(labels), "tenant", shown);
    usage->calls = ch_counter(server->env, "usage_calls", labels, "Calls served, by tenant.");
    usage->received =
        ch_counter(server->env, "usage_bytes_received", labels, "Bytes of requests, by tenant.");
    usage->sent = ch_counter(server->env, "usage_bytes_sent", labels, "Bytes of replies.");
    usage->busy_ns =
        ch_counter(server->env, "usage_busy_ns", labels, "Time its handlers had the loop.");
    return usage;
}

static struct ch__usage *usage_of(struct ch_server *server, const char *tenant)
{
    for (size_t i = 0; i < server->tenant_count; i++)
        if (strcmp(server->tenants[i]->tenant, tenant) == 0)
            return server->tenants[i];
    struct ch__usage **other = &server->tenants[CH__TENANTS_MAX];
    if (server->tenant_count < CH__TENANTS_MAX) {
        struct ch__usage *usage = usage_new(server, tenant, *tenant ? tenant : "system");
        server->tenants[server->tenant_count++] = usage;
        return usage;
    }
    if (!*other)
        *other = usage_new(server, "", "other");
    return *other;
}

void ch__usage_add(struct ch_server *server, const char *tenant, const struct ch_call *call)
{
    struct ch__usage *usage = usage_of(server, tenant);
    ch_count(usage->calls, 1);
    ch_count(usage->received, call->received_bytes);
    ch_count(usage->sent, call->sent_bytes);
    ch_count(usage->busy_ns, call->busy_ns);
}

void ch__usage_free(struct ch_server *server)
{
    for (size_t i = 0; i <= CH__TENANTS_MAX; i++)
        free(server->tenants[i]);
}
