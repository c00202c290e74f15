/* raft_sim.c: runs seeds of the simulated world (raft_world.h).
 *
 *     raft_sim --seeds 1 500          each of them; probes at the end
 *     raft_sim --seed 17 [--trace]    one again, with its trace hash
 *     --all-probes                    fails when a rare path was never taken
 *     --broken NAME [--outcome-only]  a world broken on purpose
 * A failing seed prints the command line that repeats it and ends the program with 1. */
#include "raft_world.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct sim {
    uint64_t first, last;
    bool all_probes, quiet;
    struct rw_options options;
};
static volatile uint64_t current; /* for the handler below */

/* A broken invariant of the code itself aborts: say which seed it was. */
static void on_abort(int signal)
{
    char text[120];
    int len = snprintf(text, sizeof(text),
                       "seed %" PRIu64 " aborted; again: raft_sim --seed %" PRIu64 " --trace\n",
                       current, current);
    ssize_t written = write(2, text, (size_t)len);

    (void)written;
    (void)signal;
}

static void usage(void)
{
    fprintf(stderr, "usage: raft_sim (--seeds FIRST LAST | --seed N [--trace]) [--all-probes] "
                    "[--broken NAME [--outcome-only]]\n");
    exit(2);
}

static enum rw_sabotage sabotage_of(const char *name)
{
    for (int i = 0; i < RW_SABOTAGE_COUNT; i++)
        if (strcmp(name, rw_sabotage_names[i]) == 0)
            return (enum rw_sabotage)i;
    usage();
    return RW_SOUND;
}

static void parse(struct sim *sim, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seeds") == 0 && i + 2 < argc) {
            sim->first = strtoull(argv[++i], NULL, 0);
            sim->last = strtoull(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            sim->first = sim->last = strtoull(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "--trace") == 0) {
            sim->options.trace = stdout;
        } else if (strcmp(argv[i], "--all-probes") == 0) {
            sim->all_probes = true;
        } else if (strcmp(argv[i], "--outcome-only") == 0) {
            sim->options.outcome_only = true;
        } else if (strcmp(argv[i], "--broken") == 0 && i + 1 < argc) {
            sim->options.sabotage = sabotage_of(argv[++i]);
        } else {
            usage();
        }
    }
    if (sim->first == 0 || sim->last < sim->first)
        usage();
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int report(const struct sim *sim, const struct rw_result *sum, uint64_t seeds, double took)
{
    int missing = 0;

    printf("%" PRIu64 " seeds clean: %" PRIu64 " events, %" PRIu64 " entries committed, %" PRIu64
           " operations, %.0f s of their time in %.1f s; trace %016" PRIx64 "\n",
           seeds, sum->events, sum->commits, sum->operations, (double)sum->virtual_ns / 1e9, took,
           sum->trace_hash);
    for (int i = 0; i < RW_PROBE_COUNT; i++) {
        printf("%10u  %-18s %s\n", sum->probes[i], rw_probe_names[i], rw_probe_texts[i]);
        missing += sum->probes[i] == 0;
    }
    if (sim->all_probes && missing) {
        fprintf(stderr, "%d rare paths were never taken\n", missing);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct sim sim = { 0 };
    struct rw_result sum = { 0 }, one;
    double began = seconds();

    parse(&sim, argc, argv);
    signal(SIGABRT, on_abort);
    for (uint64_t seed = sim.first; seed <= sim.last; seed++) {
        current = sim.options.seed = seed;
        rw_run(&sim.options, &one);
        if (one.failed) {
            fprintf(stderr,
                    "seed %" PRIu64 " failed: %s\nagain: raft_sim --seed %" PRIu64 " --trace%s%s\n",
                    seed, one.text, seed, sim.options.sabotage ? " --broken " : "",
                    sim.options.sabotage ? rw_sabotage_names[sim.options.sabotage] : "");
            return 1;
        }
        sum.events += one.events;
        sum.commits += one.commits;
        sum.operations += one.operations;
        sum.virtual_ns += one.virtual_ns;
        sum.trace_hash = rw_hash(sum.trace_hash, one.trace_hash);
        for (int i = 0; i < RW_PROBE_COUNT; i++)
            sum.probes[i] += one.probes[i];
    }
    return report(&sim, &sum, sim.last - sim.first + 1, seconds() - began);
}
