/* sim_events.c: what is remembered of a simulated world's run: the hash of its events, by which two
 * runs are compared, and the probes, by which a test knows that its faults reached the rare paths
 * they were meant for. */
#include "base/codec.h"
#include "sim_int.h"

struct ch__probe {
    struct ch__probe *next;
    const char *name;
    uint64_t count;
};

void ch__sim_event(struct ch_sim *sim, const char *what, const struct ch_sim_node *node,
                   uint64_t number)
{
    uint64_t event[3] = { (uint64_t)sim->now, node ? node->id : 0, number };
    sim->trace = base_hash(what, strlen(what), base_hash(event, sizeof(event), sim->trace));
    if (sim->print_trace)
        fprintf(stderr, "sim %.6f %s %s %llu\n", (double)sim->now / 1e9, node ? node->name : "-",
                what, (unsigned long long)number);
}

uint64_t ch_sim_trace(const struct ch_sim *sim)
{
    return sim->trace;
}

static struct ch__probe *probe_of(const struct ch_sim *sim, const char *name)
{
    for (struct ch__probe *probe = sim->probes; probe; probe = probe->next)
        if (strcmp(probe->name, name) == 0)
            return probe;
    return NULL;
}

void ch_sim_probe(struct ch_env *env, const char *name)
{
    if (!env->simulated)
        return;
    struct ch_sim *sim = ch__sim_of(env);
    struct ch__probe *probe = probe_of(sim, name);
    if (!probe) {
        probe = calloc(1, sizeof(*probe));
        BASE_ASSERT(probe != NULL);
        *probe = (struct ch__probe){ .next = sim->probes, .name = name };
        sim->probes = probe;
    }
    probe->count++;
}

uint64_t ch_sim_probe_count(const struct ch_sim *sim, const char *name)
{
    struct ch__probe *probe = probe_of(sim, name);
    return probe ? probe->count : 0;
}

void ch__sim_probes_free(struct ch_sim *sim)
{
    while (sim->probes) {
        struct ch__probe *probe = sim->probes;
        sim->probes = probe->next;
        if (getenv("STRATA_PROBES"))
            fprintf(stderr, "probe %s: %llu\n", probe->name, (unsigned long long)probe->count);
        free(probe);
    }
}
