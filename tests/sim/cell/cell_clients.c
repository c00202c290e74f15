/* cell_clients.c: clients, each a program of its own on a machine of its own: one step of a load
 * after the other, chosen by the seed, until they are told to stop. */
#include "cell.h"

static const struct {
    bool (*step)(struct ds_api *api, struct cell_client *client) CH_WAITS_SLOT;
} loads[] = { { bank_step }, { items_step }, { lists_step }, { registers_step } };
enum {
    LOADS = sizeof(loads) / sizeof(loads[0]),
    THINK_MS = 300,
    HURRY_MS = 40,
    SERVED_POLL_MS = 100
};

static int client_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct cell_client *client = arg;
    struct ds_api api;
    /* A few who think, or some in a hurry, so that they meet. */
    uint64_t think_ms = cell.seed % 3 ? THINK_MS : HURRY_MS;

    ds_open(&api, env, client->index);
    while (!cell.stop && !ch_cancelled()) {
        size_t load = ch_random_below(env, LOADS);

        if (loads[load].step(&api, client)) {
            client->done++;
            client->kinds_done |= UINT64_C(1) << load;
        }
        (void)!ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, think_ms) * CH_MS));
    }
    ds_close(&api);
    return 0;
}

void cell_clients_start(void)
{
    cell.stop = false;
    for (size_t i = 0; i < CELL_CLIENTS; i++) {
        struct cell_client *client = &cell.clients[i];

        client->index = i;
        snprintf(client->name, sizeof(client->name), "client%zu", i);
        snprintf(client->host, sizeof(client->host), "10.0.9.%zu", i + 1);
        if (!client->node)
            client->node = ch_sim_node(cell.sim, client->name, client->host);
        ch_sim_start(client->node, client_main, client);
    }
}

void cell_clients_stop(void)
{
    bool running = true;

    cell.stop = true;
    while (running) {
        running = false;
        for (size_t i = 0; i < CELL_CLIENTS; i++)
            running |= ch_sim_running(cell.clients[i].node);
        cell_rest(SERVED_POLL_MS * CH_MS, SERVED_POLL_MS * CH_MS);
    }
}

void cell_wait_served(ch_time bound)
{
    ch_time deadline = ch_in(cell_env(), bound);

    for (size_t i = 0; i < CELL_CLIENTS; i++)
        cell.clients[i].kinds_done = 0;
    for (size_t i = 0; i < CELL_CLIENTS; i++)
        while (cell.clients[i].kinds_done != (UINT64_C(1) << LOADS) - 1) {
            MUST(ch_now(cell_env()) < deadline,
                 "after %.0f s of peace client %zu has got through with loads %" PRIx64 " of %x",
                 (double)bound / 1e9, i, cell.clients[i].kinds_done, (1u << LOADS) - 1);
            cell_rest(SERVED_POLL_MS * CH_MS, SERVED_POLL_MS * CH_MS);
        }
}
