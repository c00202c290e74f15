/* Hostile and broken messages: whatever a peer sends, a member does not crash, does not loop and
 * does not grow without bound; and garbage from outside the group's members does no harm to what is
 * committed. */
#include "raft_hand.h"

#include <stdlib.h>

static uint64_t state;

static uint64_t random_next(void)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Small ones mostly, of the kind that fits; now and then something absurd. */
static uint64_t number(uint64_t about)
{
    switch (random_next() % 12) {
    case 0:
        return random_next();
    case 1:
        return UINT64_MAX - random_next() % 3;
    case 2:
        return 0;
    case 3:
        return about + random_next() % 100;
    default:
        return about + random_next() % 5 - (about > 2 ? 2 : about);
    }
}

struct garbage {
    struct con_message message;
    struct con_entry entries[6];
    struct con_config config;
    struct base_buf encoded;
    uint8_t data[64];
};

static void garbage_config(struct con_config *config)
{
    memset(config, 0, sizeof(*config));
    config->count = (uint32_t)(random_next() % (CON_MEMBERS_MAX + 1));
    config->joint = random_next() % 2;
    config->index = number(5);
    for (uint32_t i = 0; i < config->count; i++) {
        config->members[i] = hand_voter(i + 1 + random_next() % 2 * 3);
        config->members[i].id += i > 0 && config->members[i].id <= config->members[i - 1].id
                                     ? config->members[i - 1].id
                                     : 0;
        config->members[i].voter = random_next() % 2;
        config->members[i].voter_old = random_next() % 2;
        config->members[i].witness = random_next() % 4 == 0;
    }
}

static void garbage_make(struct garbage *g, const struct con_raft_status *status)
{
    struct con_message *m = &g->message;

    memset(m, 0, sizeof(*m));
    for (size_t i = 0; i < sizeof(g->data); i++)
        g->data[i] = (uint8_t)random_next();
    garbage_config(&g->config);
    base_buf_clear(&g->encoded);
    con_config_encode(&g->config, &g->encoded);
    m->kind = (enum con_message_kind)(random_next() % 14);
    m->from = random_next() % 7;
    m->to = random_next() % 20 ? status->id : number(1);
    m->term = random_next() % 3 ? status->term : number(status->term);
    m->index = number(random_next() % 2 ? status->last : status->commit);
    m->log_term = random_next() % 2 ? status->term : number(status->term);
    m->commit = number(status->commit);
    m->reject = random_next() % 2;
    m->hint_index = number(status->last);
    m->hint_term = number(status->term);
    m->round = number(3);
    m->transfer = random_next() % 4 == 0;
    m->offset = number(0) % (random_next() % 2 ? 100 : UINT64_MAX);
    m->total = number(20);
    m->data = base_bytes(g->data, random_next() % sizeof(g->data));
    m->config = random_next() % 4 ? &g->config : NULL;
    m->entries = g->entries;
    m->entry_count = random_next() % 3 ? 0 : random_next() % 6;
    for (size_t i = 0; i < m->entry_count; i++) {
        g->entries[i].index = random_next() % 9 ? m->index + 1 + i : number(m->index);
        g->entries[i].term = random_next() % 9 ? m->log_term : number(m->term);
        g->entries[i].kind =
            random_next() % 6 ? CON_ENTRY_COMMAND : (enum con_entry_kind)(random_next() % 5);
        g->entries[i].data = g->entries[i].kind == CON_ENTRY_CONFIG && random_next() % 2
                                 ? base_buf_bytes(&g->encoded)
                                 : m->data;
    }
}

/* What a person or a driver may ask for, sensible or not. */
static void ask_for_change(struct hand *hand, struct garbage *garbage)
{
    struct hand_member *member = &hand->members[1];
    uint64_t index;

    if (random_next() % 8 == 0)
        (void)!con_raft_change(member->raft, &garbage->config, &index);
    if (random_next() % 20 == 0) { /* one that is good */
        struct con_config next = *hand_status(hand, 1).config;
        struct con_member some = hand_voter(2 + random_next() % 4);

        some.voter = random_next() % 2;
        if (random_next() % 3 == 0)
            con_config_remove(&next, some.id);
        else
            (void)!con_config_put(&next, &some);
        (void)!con_raft_change(member->raft, &next, &index);
    }
    if (random_next() % 40 == 0)
        (void)!con_raft_transfer(member->raft, 1 + random_next() % 5);
    if (random_next() % 40 == 0 && member->applied > member->disk.snapshot_index &&
        !member->writing && !member->chunk.here)
        hand_compact(hand, 1, member->applied - random_next() % 2);
}

/* One member under fire, in whatever role it happens to be; a driver that does its part. */
static void fire(uint64_t seed, int messages)
{
    struct con_raft_options options = {
        .election_ns = 1000 * (int64_t)HAND_MS,
        .heartbeat_ns = 150 * (int64_t)HAND_MS,
        .memory_bytes_max = 100,
    };
    struct hand *hand = hand_new(3, &options);
    struct garbage garbage = { .encoded = { 0 } };
    uint64_t index, term;

    state = seed;
    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    if (seed % 3 == 0) /* a follower */
        hand_elect(hand, 2);
    for (int i = 0; i < messages; i++) {
        struct con_raft_status status = hand_status(hand, 1);

        if (status.term > UINT64_MAX / 8 || status.last > 100000)
            break; /* driven to the end of all numbers; nothing is left to be seen there */
        garbage_make(&garbage, &status);
        con_raft_receive(hand->members[1].raft, &garbage.message,
                         hand->members[1].now + (int64_t)(random_next() % HAND_MS));
        hand_run(hand, 1);
        if (random_next() % 10 == 0)
            hand_tick(hand, 1, (int64_t)(random_next() % 300));
        if (random_next() % 10 == 0)
            (void)!con_raft_propose(hand->members[1].raft, BASE_BYTES_LIT("p"), &index, &term);
        if (random_next() % 10 == 0)
            con_raft_read(hand->members[1].raft, 1);
        hand->members[1].read_count = 0;
        ask_for_change(hand, &garbage);
        if (random_next() % 100 == 0)
            con_raft_campaign(hand->members[1].raft);
        hand_run(hand, 1);
        hand_drop_all(hand);
        if (random_next() % 200 == 0) {
            hand_crash(hand, 1);
            hand_restart(hand, 1);
        }
    }
    base_buf_free(&garbage.encoded);
    hand_free(hand);
}

Test(raft_fuzz, garbage_does_not_crash_a_member, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 150; seed++)
        fire(seed, 600);
}

Test(raft_fuzz, unsound_fields_are_dropped)
{
    /* Messages that no member can have sent leave no trace: neither state nor answer. */
    struct hand *hand = hand_new(3, NULL);
    struct con_entry gap[] = { { 3, 1, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY },
                               { 5, 1, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY } };
    struct con_entry falls[] = { { 3, 2, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY },
                                 { 4, 1, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY } };
    struct con_entry ahead[] = { { 3, 9, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY } };
    struct con_entry config[] = { { 3, 1, CON_ENTRY_CONFIG, BASE_BYTES_LIT("no") } };
    struct con_config known = hand_voters(3);
    struct con_message bad[] = {
        { .kind = 0, .from = 2, .to = 1, .term = 7 },
        { .kind = 99, .from = 2, .to = 1, .term = 7 },
        { .kind = CON_VOTE, .from = 1, .to = 1, .term = 7 },
        { .kind = CON_VOTE, .from = 0, .to = 1, .term = 7 },
        { .kind = CON_VOTE, .from = 2, .to = 3, .term = 7 },
        { .kind = CON_VOTE, .from = 2, .to = 1, .term = UINT64_MAX },
        { .kind = CON_HEARTBEAT, .from = 2, .to = 1, .term = 7, .commit = UINT64_MAX },
        { .kind = CON_APPEND,
          .from = 2,
          .to = 1,
          .term = 7,
          .index = 2,
          .log_term = 1,
          .entries = gap,
          .entry_count = 2 },
        { .kind = CON_APPEND,
          .from = 2,
          .to = 1,
          .term = 7,
          .index = 2,
          .log_term = 1,
          .entries = falls,
          .entry_count = 2 },
        { .kind = CON_APPEND,
          .from = 2,
          .to = 1,
          .term = 7,
          .index = 2,
          .log_term = 1,
          .entries = ahead,
          .entry_count = 1 },
        { .kind = CON_APPEND,
          .from = 2,
          .to = 1,
          .term = 7,
          .index = 2,
          .log_term = 1,
          .entries = config,
          .entry_count = 1 },
        { .kind = CON_SNAPSHOT, .from = 2, .to = 1, .term = 7, .index = 9, .log_term = 7 },
        { .kind = CON_SNAPSHOT,
          .from = 2,
          .to = 1,
          .term = 7,
          .index = 9,
          .log_term = 7,
          .offset = 10,
          .total = 5,
          .config = &known },
        { .kind = CON_SNAPSHOT,
          .from = 2,
          .to = 1,
          .term = 7,
          .index = 9,
          .log_term = 7,
          .total = 2,
          .data = BASE_BYTES_LIT("too long"),
          .config = &known },
        { .kind = CON_SNAPSHOT,
          .from = 2,
          .to = 1,
          .term = 7,
          .index = 9,
          .log_term = 8,
          .total = 1,
          .data = BASE_BYTES_LIT("a"),
          .config = &known },
    };

    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        con_raft_receive(hand->members[1].raft, &bad[i], hand->members[1].now);
        cr_assert(con_raft_idle(hand->members[1].raft, false), "case %zu is answered", i);
        cr_assert(hand_leads(hand, 1) && hand_status(hand, 1).term == 1, "case %zu", i);
    }
    hand_free(hand);
}

Test(raft_fuzz, strangers_vote_for_nobody)
{
    /* Votes and acknowledgements of who is not a member count for nothing. */
    struct hand *hand = hand_new(5, NULL);

    con_raft_campaign(hand->members[1].raft);
    hand_run(hand, 1);
    for (uint64_t id = 6; id < 12; id++) {
        struct con_message vote = { .kind = CON_VOTE_REPLY, .from = id, .to = 1, .term = 1 };

        hand_deliver(hand, &vote);
    }
    cr_assert(!hand_leads(hand, 1));
    hand_settle(hand);
    cr_assert(hand_leads(hand, 1));
    for (uint64_t id = 2; id <= 5; id++)
        hand_isolate(hand, id, true);
    hand_propose(hand, 1, "a");
    for (uint64_t id = 6; id < 12; id++) {
        struct con_message reply = {
            .kind = CON_APPEND_REPLY, .from = id, .to = 1, .term = 1, .index = 2
        };

        hand_deliver(hand, &reply);
    }
    cr_assert_str_eq(hand_state(hand, 1), "");
    hand_free(hand);
}
