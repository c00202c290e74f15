/* Messages as protobuf: all that the algorithm says comes back as it was, and what cannot be is
 * refused by name before it gets there. */
#include "message.h"
#include "test.h"

static struct base_arena arena;

/* Through bytes, as a peer gets it. */
static CON_PB(Message) * sent(const struct con_message *message)
{
    CON_PB(Message) *encoded = con__message_encode(&arena, "a group", message);
    struct base_buf bytes = { 0 };
    ProtobufCMessage *decoded = NULL;
    struct base_status status;

    ch_proto_encode(&encoded->base, &bytes);
    status = ch_proto_decode(&strata__consensus__v1__message__descriptor,
                             base_bytes_dup(&arena, base_buf_bytes(&bytes)), &arena, &decoded);
    base_buf_free(&bytes);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    return (void *)decoded;
}

static void refused(const struct con_message *message, const char *why)
{
    struct con_message got;
    struct base_status status = con__message_decode(sent(message), &arena, &got);

    cr_assert_eq(status.code, BASE_INVALID_ARGUMENT, "%s", base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), why) != NULL, "\"%s\" is not in \"%s\"", why,
              base_status_text(&status));
    base_status_free(&status);
}

Test(message, comes_back_as_it_was)
{
    /* Every field of every kind survives the way: one that is forgotten breaks the algorithm
     * quietly. */
    struct con_entry entries[] = {
        { 8, 3, CON_ENTRY_COMMAND, BASE_BYTES_LIT("a\0b") },
        { 9, 4, CON_ENTRY_NO_OP, BASE_BYTES_EMPTY },
        { 10, 4, CON_ENTRY_COMMAND, BASE_BYTES_LIT("c") },
    };
    struct con_config config = {
        .index = 6,
        .joint = true,
        .count = 2,
        .members = { { .id = 1, .voter = true, .address = "10.0.0.1:7" },
                     { .id = 9, .voter_old = true, .witness = true, .address = "/cell/x/1" } },
    };
    struct con_message message = { .from = 0x8000000000000001,
                                   .to = 2,
                                   .term = 5,
                                   .index = 7,
                                   .log_term = 2,
                                   .commit = 6,
                                   .reject = true,
                                   .hint_index = 3,
                                   .hint_term = 1,
                                   .quiet = 8,
                                   .held = 7,
                                   .round = 77,
                                   .transfer = true,
                                   .entries = entries,
                                   .entry_count = 3,
                                   .offset = 10,
                                   .total = 14,
                                   .data = BASE_BYTES_LIT("data"),
                                   .config = &config };

    base_arena_init(&arena);
    for (int kind = CON_PRE_VOTE; kind <= CON_TIMEOUT_NOW; kind++) {
        struct con_message got;

        message.kind = (enum con_message_kind)kind;
        cr_assert(base_status_drop(con__message_decode(sent(&message), &arena, &got)) == BASE_OK);
        cr_assert(got.kind == message.kind && got.from == message.from && got.to == message.to &&
                  got.term == message.term && got.index == message.index &&
                  got.log_term == message.log_term && got.commit == message.commit && got.reject &&
                  got.hint_index == message.hint_index && got.quiet == message.quiet &&
                  got.held == message.held && got.hint_term == message.hint_term &&
                  got.round == message.round && got.transfer && got.offset == message.offset &&
                  got.total == message.total && base_bytes_eq(got.data, message.data));
        cr_assert_eq(got.entry_count, (size_t)3);
        for (int i = 0; i < 3; i++)
            cr_assert(got.entries[i].index == entries[i].index &&
                      got.entries[i].term == entries[i].term &&
                      got.entries[i].kind == entries[i].kind &&
                      base_bytes_eq(got.entries[i].data, entries[i].data));
        cr_assert(got.config->index == 6 && got.config->joint && got.config->count == 2);
        cr_assert(memcmp(got.config->members, config.members, sizeof(config.members)) == 0);
    }
    base_arena_free(&arena);
}

Test(message, what_cannot_be_is_refused)
{
    /* Gaps between entries, terms that shrink or are ahead of the message's, unknown kinds, members
     * out of order, pieces beyond the end, numbers near the end of numbers. */
    struct con_entry entry = { 8, 3, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY };
    struct con_config config = { .count = 2, .members = { { .id = 2 }, { .id = 1 } } };
    struct con_message good = { .kind = CON_APPEND,
                                .from = 1,
                                .to = 2,
                                .term = 5,
                                .index = 7,
                                .entries = &entry,
                                .entry_count = 1 };
    struct con_message bad;

    base_arena_init(&arena);
    cr_assert(base_status_drop(con__message_decode(sent(&good), &arena, &bad)) == BASE_OK);
    entry.index = 9;
    refused(&good, "entry 0 (index 9");
    entry.index = 8;
    entry.term = 6;
    refused(&good, "term 6");
    entry.term = 0;
    refused(&good, "term 0");
    entry.term = 3;
    entry.kind = (enum con_entry_kind)3;
    refused(&good, "kind 3");
    bad = (struct con_message){ .kind = (enum con_message_kind)12, .from = 1, .to = 2 };
    refused(&bad, "kind 12");
    bad = (struct con_message){ .kind = CON_VOTE, .to = 2 };
    refused(&bad, "kind 3");
    bad = (struct con_message){ .kind = CON_VOTE, .from = 1, .to = 2, .term = UINT64_MAX };
    refused(&bad, "out of range");
    bad = (struct con_message){ .kind = CON_SNAPSHOT,
                                .from = 1,
                                .to = 2,
                                .index = 4,
                                .total = 3,
                                .data = BASE_BYTES_LIT("four") };
    refused(&bad, "out of range");
    bad.total = 4;
    refused(&bad, "without a configuration");
    bad.config = &config;
    refused(&bad, "member 1");
    base_arena_free(&arena);
}

Test(message, only_plain_heartbeats_are_beats)
{
    /* A row of Beats has no room for a refusal's hint: that has to travel as a message. */
    struct con_message message = { .kind = CON_HEARTBEAT, .round = 1, .index = 2, .commit = 3 };

    cr_assert(con__message_is_beat(&message));
    message.kind = CON_HEARTBEAT_REPLY;
    cr_assert(con__message_is_beat(&message));
    message.reject = true;
    cr_assert(!con__message_is_beat(&message));
    message = (struct con_message){ .kind = CON_APPEND };
    cr_assert(!con__message_is_beat(&message));
}
