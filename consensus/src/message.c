/* message.c: see message.h.
 *
 * Invariants of what con__message_decode hands out
 * 1. Entries are consecutive from index + 1 on; their terms do not shrink and are at most the
 *    message's; kinds are known ones. (A configuration among them is for the algorithm to read.)
 * 2. A chunk lies within its total, and a snapshot has a configuration with members in order.
 * 3. No number is beyond NUMBER_MAX: indexes and terms can be added to without overflow. */
#include "message.h"

#include <inttypes.h>

#define NUMBER_MAX (UINT64_C(1) << 62)

/* ---- encoding ---- */

CON_PB(Member) * con__member_encode(struct base_arena *arena, const struct con_member *member)
{
    CON_PB(Member) *out = CON_NEW(arena, Member, member);

    out->id = member->id;
    out->voter = member->voter;
    out->voter_old = member->voter_old;
    out->witness = member->witness;
    out->target = ch_data_str(base_arena_strdup(arena, member->address));
    return out;
}

static CON_PB(Config) * config_encode(struct base_arena *arena, const struct con_config *config)
{
    CON_PB(Config) *out = CON_NEW(arena, Config, config);

    out->index = config->index;
    out->joint = config->joint;
    out->n_members = config->count;
    out->members = BASE_NEW_ARRAY(arena, CON_PB(Member) *, config->count);
    for (uint32_t i = 0; i < config->count; i++)
        out->members[i] = con__member_encode(arena, &config->members[i]);
    return out;
}

static void entries_encode(struct base_arena *arena, const struct con_message *message,
                           CON_PB(Message) * out)
{
    CON_PB(Entry) *entries = BASE_NEW_ARRAY(arena, CON_PB(Entry), message->entry_count);

    out->n_entries = message->entry_count;
    out->entries = BASE_NEW_ARRAY(arena, CON_PB(Entry) *, message->entry_count);
    for (size_t i = 0; i < message->entry_count; i++) {
        const struct con_entry *entry = &message->entries[i];

        strata__consensus__v1__entry__init(&entries[i]);
        entries[i].index = entry->index;
        entries[i].term = entry->term;
        entries[i].kind = entry->kind;
        entries[i].data = ch_data_of(base_bytes_dup(arena, entry->data));
        out->entries[i] = &entries[i];
    }
}

CON_PB(Message) * con__message_encode(struct base_arena *arena, const char *group,
                                      const struct con_message *message)
{
    CON_PB(Message) *out = CON_NEW(arena, Message, message);

    out->group =
        ch_data_str(base_arena_strdup(arena, group)); /* the group may go before it leaves */
    out->kind = message->kind;
    out->from = message->from;
    out->to = message->to;
    out->term = message->term;
    out->index = message->index;
    out->log_term = message->log_term;
    out->commit = message->commit;
    out->reject = message->reject;
    out->hint_index = message->hint_index;
    out->hint_term = message->hint_term;
    out->round = message->round;
    out->transfer = message->transfer;
    out->quiet = message->quiet;
    out->held = message->held;
    if (message->entry_count > 0)
        entries_encode(arena, message, out);
    out->offset = message->offset;
    out->total = message->total;
    out->data = ch_data_of(base_bytes_dup(arena, message->data));
    if (message->config)
        out->config = config_encode(arena, message->config);
    return out;
}

/* The hint of a reply says something only when it refuses. */
bool con__message_is_beat(const struct con_message *message)
{
    return (message->kind == CON_HEARTBEAT || message->kind == CON_HEARTBEAT_REPLY) &&
           !message->reject;
}

/* ---- decoding ---- */

static struct base_status config_decode(const CON_PB(Config) * in, struct con_config *out)
{
    memset(out, 0, sizeof(*out));
    if (in->n_members > CON_MEMBERS_MAX || in->index > NUMBER_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "a configuration of %zu members",
                                in->n_members);
    out->index = in->index;
    out->joint = in->joint;
    for (size_t i = 0; i < in->n_members; i++) {
        const CON_PB(Member) *from = in->members[i];
        struct con_member member = { .id = from->id,
                                     .voter = from->voter,
                                     .voter_old = from->voter_old,
                                     .witness = from->witness };

        if (!from->id || (i > 0 && from->id <= in->members[i - 1]->id) ||
            from->target.len >= CON_ADDRESS_MAX ||
            (from->target.len && memchr(from->target.data, 0, from->target.len)))
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "a configuration whose member %zu cannot be", i);
        if (from->target.len)
            memcpy(member.address, from->target.data, from->target.len);
        out->members[out->count++] = member;
    }
    return BASE_STATUS_OK;
}

static struct base_status entries_decode(const CON_PB(Message) * in, struct base_arena *arena,
                                         struct con_message *out)
{
    struct con_entry *entries = BASE_NEW_ARRAY(arena, struct con_entry, in->n_entries);
    uint64_t term = 0;

    for (size_t i = 0; i < in->n_entries; i++) {
        const CON_PB(Entry) *from = in->entries[i];

        if (from->index != in->index + 1 + i || from->term < term || from->term > in->term ||
            from->term == 0 || from->kind > CON_ENTRY_CONFIG ||
            from->data.len > CON_COMMAND_BYTES_MAX)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "entry %zu (index %" PRIu64 ", term %" PRIu64
                                    ", kind %u, %zu bytes) after index %" PRIu64,
                                    i, from->index, from->term, from->kind, from->data.len,
                                    in->index);
        term = from->term;
        entries[i] = (struct con_entry){ .index = from->index,
                                         .term = from->term,
                                         .kind = (enum con_entry_kind)from->kind,
                                         .data = ch_bytes_of(from->data) };
    }
    out->entries = entries;
    out->entry_count = in->n_entries;
    return BASE_STATUS_OK;
}

struct base_status con__message_decode(const CON_PB(Message) * in, struct base_arena *arena,
                                       struct con_message *out)
{
    struct base_status status = BASE_STATUS_OK;

    *out = (struct con_message){
        .kind = (enum con_message_kind)in->kind,
        .from = in->from,
        .to = in->to,
        .term = in->term,
        .index = in->index,
        .log_term = in->log_term,
        .commit = in->commit,
        .reject = in->reject,
        .hint_index = in->hint_index,
        .hint_term = in->hint_term,
        .round = in->round,
        .transfer = in->transfer,
        .quiet = in->quiet,
        .held = in->held,
        .offset = in->offset,
        .total = in->total,
        .data = ch_bytes_of(in->data),
    };
    if (in->kind < CON_PRE_VOTE || in->kind > CON_TIMEOUT_NOW || !in->from || !in->to)
        return base_status_make(BASE_INVALID_ARGUMENT, "a message of kind %u", in->kind);
    if (in->term > NUMBER_MAX || in->index > NUMBER_MAX || in->log_term > NUMBER_MAX ||
        in->commit > NUMBER_MAX || in->hint_index > NUMBER_MAX || in->hint_term > NUMBER_MAX ||
        in->total > NUMBER_MAX || in->quiet > NUMBER_MAX || in->held > NUMBER_MAX ||
        in->offset > in->total || in->data.len > in->total - in->offset)
        return base_status_make(BASE_INVALID_ARGUMENT, "a number out of range");
    if (in->n_entries > 0)
        status = entries_decode(in, arena, out);
    if (!base_failed(status) && in->config) {
        struct con_config *config = BASE_NEW(arena, struct con_config);

        status = config_decode(in->config, config);
        out->config = config;
    }
    if (!base_failed(status) && in->kind == CON_SNAPSHOT && (!in->config || !in->index))
        status = base_status_make(BASE_INVALID_ARGUMENT, "a snapshot without a configuration");
    return status;
}
