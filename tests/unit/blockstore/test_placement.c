/* Replicas of one block must lie on different machines, then zones, as far as there are such, and
 * never on a server that cannot take one: a choice that forgets this loses data to one power cord.
 */
#include "placement.h"
#include "test.h"

static struct blk__candidate candidate(uint64_t server, const char *machine, const char *zone)
{
    return (struct blk__candidate){ .server = server,
                                    .machine = machine,
                                    .zone = zone,
                                    .bytes_free = 50,
                                    .bytes_total = 100,
                                    .usable = true };
}

static const char *machine_of(const struct blk__candidate *c, size_t n, uint64_t server)
{
    for (size_t i = 0; i < n; i++)
        if (c[i].server == server)
            return c[i].machine;
    return "";
}

Test(placement, different_machines_whatever_the_chance)
{
    struct blk__candidate c[6];
    const char *machines[3] = { "a", "b", "c" };
    for (uint64_t i = 0; i < 6; i++)
        c[i] = candidate(i + 1, machines[i / 2], "z");
    for (uint64_t random = 0; random < 500; random++) {
        uint64_t chosen[3];
        cr_assert_eq(blk__placement_choose(c, 6, 3, 2, random, chosen), 3);
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < i; k++)
                cr_assert(strcmp(machine_of(c, 6, chosen[i]), machine_of(c, 6, chosen[k])) != 0,
                          "chance %d", (int)random);
    }
}

Test(placement, zones_after_machines_and_one_machine_when_there_is_no_other)
{
    struct blk__candidate c[4] = { candidate(1, "a", "x"), candidate(2, "b", "x"),
                                   candidate(3, "c", "y"), candidate(4, "c", "z") };
    uint64_t chosen[3];
    for (uint64_t random = 0; random < 200; random++) {
        cr_assert_eq(blk__placement_choose(c, 4, 2, 2, random, chosen), 2);
        bool both_x = chosen[0] <= 2 && chosen[1] <= 2;
        cr_assert(!both_x, "two in zone x while others are free");
    }
    cr_assert_eq(blk__placement_choose(c + 2, 2, 2, 2, 7, chosen), 2,
                 "the same machine is better than no replica");
}

Test(placement, only_usable_servers_and_avoided_ones_last)
{
    struct blk__candidate c[4] = { candidate(1, "a", "z"), candidate(2, "b", "z"),
                                   candidate(3, "c", "z"), candidate(4, "d", "z") };
    uint64_t chosen[3];
    c[0].usable = false;
    c[1].taken = true;
    for (uint64_t random = 0; random < 100; random++) {
        cr_assert_eq(blk__placement_choose(c, 4, 3, 2, random, chosen), 2);
        cr_assert(chosen[0] >= 3 && chosen[1] >= 3 && chosen[0] != chosen[1]);
    }
    c[2].avoid = 1;
    cr_assert_eq(blk__placement_choose(c, 4, 3, 1, 1, chosen), 1,
                 "an avoided one is not used when `least` is there");
    cr_assert_eq(chosen[0], 4);
    cr_assert_eq(blk__placement_choose(c, 4, 3, 2, 1, chosen), 2, "it is when it is not");
    c[3].avoid = 2;
    cr_assert_eq(blk__placement_choose(c, 4, 3, 1, 1, chosen), 1);
    cr_assert_eq(chosen[0], 3, "of two avoided ones the less bad");
    cr_assert_eq(blk__placement_choose(c, 1, 3, 2, 1, chosen), 0);
}

Test(placement, spreads_and_prefers_the_empty)
{
    struct blk__candidate c[4] = { candidate(1, "a", "z"), candidate(2, "b", "z"),
                                   candidate(3, "c", "z"), candidate(4, "d", "z") };
    int count[5] = { 0 };
    c[3].bytes_free = 2;
    for (uint64_t random = 0; random < 1000; random++) {
        uint64_t chosen[1];
        cr_assert_eq(blk__placement_choose(c, 4, 1, 1, random, chosen), 1);
        count[chosen[0]]++;
    }
    for (int i = 1; i <= 3; i++)
        cr_assert(count[i] > 200, "server %d got %d of 1000", i, count[i]);
    cr_assert(count[4] < count[1] / 4, "the full one got %d", count[4]);
}
