/* test_ids.c: ids against a list. */
#include "entry.h"
#include "ids.h"
#include "model.h"
#include "test.h"

static struct base_bytes id_of(uint64_t i)
{
    static uint64_t id[2];
    id[0] = i;
    id[1] = ~i;
    return base_bytes(id, TXN__ID_BYTES);
}

Test(ids, remembers_the_newest_up_to_its_limit)
{
    /* Whatever was added, trimmed and pushed out: an id that should be known is, with its first
     * timestamp; others are not. */
    enum { MAX = 3000, ADDED = 20000 };
    struct txn__ids *ids = txn__ids_new(MAX);
    struct dice dice = { 9 };
    uint64_t oldest = 1, ts;
    for (uint64_t i = 1; i <= ADDED; i++) {
        txn__ids_add(ids, id_of(i), i * 10);
        txn__ids_add(ids, id_of(i), i * 10 + 5); /* a repetition changes nothing */
        if (i > MAX && i - MAX + 1 > oldest)
            oldest = i - MAX + 1;
        if (roll(&dice, 500) == 0) {
            uint64_t upto = i - roll(&dice, i < 4000 ? i : 4000);
            txn__ids_trim(ids, upto * 10);
            oldest = upto + 1 > oldest ? upto + 1 : oldest;
        }
        uint64_t probe = 1 + roll(&dice, i + 5);
        bool known = txn__ids_find(ids, id_of(probe), &ts);
        cr_assert_eq(known, probe >= oldest && probe <= i, "%llu of %llu, oldest %llu",
                     (unsigned long long)probe, (unsigned long long)i, (unsigned long long)oldest);
        cr_assert(!known || ts == probe * 10);
        cr_assert_eq(txn__ids_count(ids), i - oldest + 1);
    }
    cr_assert(!txn__ids_find(ids, BASE_BYTES_LIT("short"), &ts));
    txn__ids_free(ids);
}
