/* master_lead.c: the members of the blockmaster's group: one leads, and only it answers.
 *
 * Invariants:
 * 1. What is known only from being told (soft.h) begins anew with each leadership: nobody is dead
 * before the new leader has led for dead_after, nothing is missing before its server has reported
 * everything.
 * 2. Generations of copies grow from leader to leader (their term is in the upper half), and a
 * server takes no copy of an older generation than what it has: a deposed leader's copy that ends
 * late replaces nothing.
 * 3. A copy joins its block's list only by the leadership it was begun under. */
#include <inttypes.h>
#include <stdlib.h>

#include "chassis/service.h"
#include "founding.h"
#include "master_int.h"

enum { RETRY_MS = 200 };

static void absences_forget(struct blk__master *master)
{
    struct blk__absence *absence, *next;
    HASH_ITER(hh, master->absences, absence, next)
    {
        HASH_DEL(master->absences, absence);
        free(absence);
    }
}

void blk__master_lead(void *self, uint64_t term)
{
    struct blk__master *master = self;
    master->term = term;
    master->leads->value = term > 0;
    if (term > 0) {
        ch_info(master->env, "this member leads the blockstore from now, term %" PRIu64, term);
        blk__soft_free(&master->soft);
        master->soft.servers = NULL;
        master->soft.since = ch_now(master->env);
        master->generation = term << 32;
        absences_forget(master);
        blk__master_find_open(master);
    }
    blk__master_sweep_soon(master);
}

struct base_status blk__master_not_leader(const struct blk__master *master)
{
    const char *leader = con_log_leader(master->log);
    if (!*leader)
        return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; none is known");
    return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; it is at %s", leader);
}

struct base_status blk__master_barrier(struct blk__master *master, ch_time deadline)
{
    struct base_status status = con_log_read_barrier(master->log, deadline);
    if (!base_failed(status) && master->term == 0)
        status = blk__master_not_leader(master);
    return status;
}

/* A log that failed for good ends the process: its successor reads what is on the disk. */
void blk__log_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__master *master = arg;
    for (;;) {
        uint64_t term = 0;
        enum ch_outcome outcome = con_log_wait_lead(master->log, CH_NEVER, &term);
        if (outcome == CH_CLOSED) {
            const char *why = con_log_failure(master->log);
            ch_service_fail(master->env, base_status_make(BASE_UNAVAILABLE, "the log failed: %s",
                                                          why ? why : "closed"));
            return;
        }
        while (outcome == CH_OK && master->term == term)
            outcome = ch_cond_wait(&master->sweep_soon, CH_NEVER);
        if (outcome == CH_CANCELLED)
            return;
    }
}

void blk__founded_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__master *master = arg;
    while (!ch_cancelled()) {
        if (master->term == 0) {
            if (ch_cond_wait(&master->sweep_soon, CH_NEVER) != CH_OK)
                return;
            continue;
        }
        struct base_status status = blk__founding_done(master->env, master->options.founder_dir);
        if (!base_failed(status))
            return;
        ch_warn(master->env, "%s", base_status_text(&status));
        base_status_free(&status);
        if (ch_sleep_until(master->env, ch_in(master->env, RETRY_MS * CH_MS)) != CH_TIMEOUT)
            return;
    }
}
