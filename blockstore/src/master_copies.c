/* master_copies.c: how many servers keep each block, by how many machines the cell has.
 *
 * A cell of one machine (--one-machine) keeps one copy, as there is one disk; any other keeps three
 * and acknowledges by two. When a second machine's blockserver is there, the first kind becomes the
 * second: new blocks have the new number at once, sealed ones are copied by repair.
 *
 * Invariants:
 * 1. Copies only grow once there is a block: a machine that is away never makes them fewer. The log
 * decides (apply_set_copies), not who asks.
 * 2. They grow when two machines' servers are live: with fewer no block could be begun after. */
#include "master_int.h"

enum { CHANGE_MS = 5000 };

/* Of all servers that ever were, or of the live ones; 2 stands for more. */
static int machines(const struct blk__master *master, bool live)
{
    const char *first = NULL;
    for (const struct blk__server *s = master->state.servers; s; s = s->hh.next) {
        if (live && blk__soft_health(&master->soft, s->id, ch_now(master->env)) != BLK_LIVE)
            continue;
        if (first && strcmp(first, s->machine) != 0)
            return 2;
        first = s->machine;
    }
    return first ? 1 : 0;
}

void blk__master_copies_follow(struct blk__master *master)
{
    uint32_t now = master->state.replicas,
             wanted =
                 blk__copies_wanted(now, master->options.one_machine, master->state.next_block > 1,
                                    machines(master, false), machines(master, true));
    struct base_arena arena;
    BLK_PB(Result) * result;
    if (wanted == now)
        return;
    base_arena_init(&arena);
    BLK_PB(Command) *command = BLK_NEW(&arena, Command, command);
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_SET_COPIES;
    command->set_copies = BLK_NEW(&arena, SetCopies, set_copies);
    command->set_copies->replicas = wanted;
    command->set_copies->quorum = wanted / 2 + 1;
    struct base_status status = blk__master_propose(
        master, command, ch_in(master->env, CHANGE_MS * CH_MS), &arena, &result);
    if (base_failed(status)) /* the next sweep tries again */
        ch_warn(master->env, "%u copies of each block: %s", wanted, base_status_text(&status));
    else
        ch_info(master->env, "%u cop%s of each block from now on", wanted,
                wanted == 1 ? "y" : "ies");
    base_status_free(&status);
    base_arena_free(&arena);
}
