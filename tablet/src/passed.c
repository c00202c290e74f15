/* passed.c: admin requests at a tabletserver: passed on, as they are, to the tabletmaster that
 * leads (its address is the value of its lock in naming). While nobody leads they wait for one,
 * until their deadline. */
#include <stdio.h>
#include <stdlib.h>

#include "google/bigtable/admin/v2/bigtable_instance_admin.strata.h"
#include "google/bigtable/admin/v2/bigtable_table_admin.strata.h"
#include "google/longrunning/operations.strata.h"
#include "server.h"
#include "strata/tablet/v1/tablet.strata.h"

enum { RETRY_MS = 50 };

static bool master_address(struct tab_server *server, char *out, size_t size)
{
    size_t count;
    const struct ch_name_entry *entries = ch_name_watch_entries(server->master_watch, &count);
    for (size_t i = 0; i < count; i++) {
        if (!entries[i].locked || entries[i].value.len == 0 || entries[i].value.len >= size)
            continue;
        snprintf(out, size, "%.*s", BASE_FMT(entries[i].value));
        return true;
    }
    return false;
}

static struct base_status on_passed(void *self, struct ch_call *call, const void *request,
                                    void **reply) CH_WAITS;
static struct base_status on_passed(void *self, struct ch_call *call, const void *request,
                                    void **reply)
{
    struct tab_passed *passed = self;
    struct tab_server *server = passed->server;
    ch_time deadline = tab_call_deadline(server, call);
    for (;;) {
        char address[TAB_ADDRESS_BYTES];
        struct base_status status = base_status_make(BASE_UNAVAILABLE, "no tabletmaster leads");
        struct ch_call_options options = { .deadline = deadline, .no_retry = true };
        if (master_address(server, address, sizeof(address))) {
            base_status_free(&status);
            status = ch_client_call(tab_metac_peer(server->store.metac, address), passed->method,
                                    request, &options, ch_call_arena(call), reply);
        }
        bool unknown = options.outcome_unknown && !passed->method->idempotent;
        if (status.code != BASE_UNAVAILABLE || unknown || ch_cancelled() || server->stopping ||
            ch_in(server->env, RETRY_MS * CH_MS) >= deadline)
            return status;
        base_status_free(&status);
        ch_sleep_until(server->env, ch_in(server->env, RETRY_MS * CH_MS));
    }
}

void tab_register_passed(struct tab_server *server)
{
    static const struct ch_service *const services[] = {
        &google__bigtable__admin__v2__bigtable_table_admin__service,
        &google__bigtable__admin__v2__bigtable_instance_admin__service,
        &google__longrunning__operations__service,
        &strata__tablet__v1__tabletmaster__service,
    };
    size_t total = 0;
    for (size_t s = 0; s < sizeof(services) / sizeof(services[0]); s++)
        total += services[s]->method_count;
    server->passed = calloc(total, sizeof(*server->passed));
    BASE_ASSERT(server->passed != NULL);
    for (size_t s = 0; s < sizeof(services) / sizeof(services[0]); s++) {
        ch_server_add_service(server->rpc, services[s]);
        for (size_t m = 0; m < services[s]->method_count; m++) {
            struct tab_passed *passed = &server->passed[server->passed_count++];
            *passed = (struct tab_passed){ server, &services[s]->methods[m] };
            ch_server_handle(server->rpc, passed->method, on_passed, passed);
        }
    }
}
