/* node_rpc.c: what other processes ask of a node: messages in, membership asked for.
 *
 * Invariants
 * 1. A message for a member that is not here, or that cannot be, is counted and dropped: the
 * stream goes on with those of other groups. A Delivery whose bytes do not decode ends the stream.
 * 2. All messages of a Delivery are fed before anything is done about them: what they bring goes
 * together. Heartbeats are answered at once, group by group: that costs least.
 * 3. When the server stops, leadership is handed over while answers can still be heard, for
 * RETIRE_MS at most; then the streams end. */
#include "chassis/log.h"
#include "group_int.h"
#include "node_int.h"

enum { LOOK_MS = 100, RETIRE_MS = 1000, FED_MAX = 64, JOIN_MS = 2000 };

struct incoming {
    struct con_node *node;
    struct ch_call *call;
    struct base_status status;
    bool ended;
    struct ch_cond changed;
};

/* ---- Deliver ---- */

static void beats_receive(struct con_node *node, const CON_PB(Beats) * beats,
                          enum con_message_kind kind, const char *from)
{
    size_t count = beats->n_to, at = 0;
    ch_time now = ch_now(node->env);

    ch_count(node->metrics.received, count);
    if (beats->n_from != count || beats->n_term != count || beats->n_commit != count ||
        beats->n_round != count || beats->n_index != count ||
        (beats->n_quiet != count && beats->n_quiet != 0)) {
        ch_count(node->metrics.refused, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct con__group *group = con__node_find_next(node, beats->to[i], &at);
        struct con_message message = { .kind = kind,
                                       .to = beats->to[i],
                                       .from = beats->from[i],
                                       .term = beats->term[i],
                                       .commit = beats->commit[i],
                                       .round = beats->round[i],
                                       .index = beats->index[i],
                                       .quiet = beats->n_quiet ? beats->quiet[i] : 0 };

        if (!group) {
            ch_count(node->metrics.refused, 1);
            continue;
        }
        con__group_receive(group, &message, from, now);
        con__group_pump(group);
    }
}

/* The groups that were fed, each once while there is room to remember them. */
struct fed {
    struct con__group *groups[FED_MAX];
    size_t count;
};

static void fed_note(struct fed *fed, struct con__group *group)
{
    if (fed->count > 0 && fed->groups[fed->count - 1] == group)
        return;
    if (fed->count == FED_MAX) {
        con__group_poke(group);
        return;
    }
    fed->groups[fed->count++] = group;
}

static void message_receive(struct con_node *node, const CON_PB(Message) * in,
                            struct base_arena *arena, const char *from, struct fed *fed)
{
    struct con__group *group = con__node_find_member(node, in->to);
    struct con_message message;
    struct base_status status;

    ch_count(node->metrics.received, 1);
    if (!group || !base_bytes_eq_str(ch_bytes_of(in->group), group->name)) {
        ch_count(node->metrics.refused, 1);
        return;
    }
    status = con__message_decode(in, arena, &message);
    if (base_failed(status)) {
        ch_warn(node->env, "group %s: refused from %s: %s", group->name, from,
                base_status_text(&status));
        base_status_free(&status);
        ch_count(node->metrics.refused, 1);
        return;
    }
    con__group_receive(group, &message, from, ch_now(node->env));
    fed_note(fed, group);
}

static void delivery_receive(struct incoming *incoming, const CON_PB(Delivery) * delivery,
                             struct base_arena *arena)
{
    struct con_node *node = incoming->node;
    struct fed fed = { .count = 0 };
    const char *from = delivery->from_target.len < CON_ADDRESS_MAX
                           ? base_bytes_cstr(arena, ch_bytes_of(delivery->from_target))
                           : "";

    con__contact_heard(node, from, incoming);
    for (size_t i = 0; i < delivery->n_messages; i++)
        message_receive(node, delivery->messages[i], arena, from, &fed);
    for (size_t i = 0; i < fed.count; i++)
        con__group_poke(fed.groups[i]);
    if (delivery->heartbeats)
        beats_receive(node, delivery->heartbeats, CON_HEARTBEAT, from);
    if (delivery->heartbeat_replies)
        beats_receive(node, delivery->heartbeat_replies, CON_HEARTBEAT_REPLY, from);
}

static void receiver_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct incoming *incoming = arg;
    struct base_arena arena;

    base_arena_init(&arena);
    for (;;) {
        void *message = NULL;

        base_arena_reset(&arena);
        incoming->status = ch_call_recv(incoming->call, &arena, &message);
        if (base_failed(incoming->status) || !message)
            break;
        delivery_receive(incoming, message, &arena);
    }
    base_arena_free(&arena);
    incoming->ended = true;
    ch_cond_broadcast(&incoming->changed);
}

/* Invariant 3. */
static CH_WAITS void retire(struct con_node *node)
{
    ch_time until = ch_in(node->env, RETIRE_MS * CH_MS);

    for (;;) {
        bool leads = false;

        for (size_t i = 0; i < node->group_count; i++) {
            struct con__group *group = node->groups[i].group;

            if (!con__group_leads_others(group))
                continue;
            leads = true;
            if (con_raft_status(group->raft).transfer == 0)
                (void)con__group_transfer_begin(group, 0);
        }
        if (!leads || ch_cond_wait(&node->retired, until) != CH_OK)
            return;
    }
}

static CH_WAITS struct base_status serve_deliver(void *self, struct ch_call *call)
{
    struct con_node *node = self;
    struct incoming incoming = { .node = node, .call = call };
    struct ch_gate gate;
    struct base_status status;

    ch_cond_init(&incoming.changed);
    ch_gate_init(&gate, node->env, "consensus receiver");
    status = ch_gate_spawn_inherit(&gate, "consensus receiver", receiver_fiber, &incoming);
    if (base_failed(status))
        return status;
    node->incoming++;
    while (!incoming.ended && !ch_server_stopping(node->server))
        if (ch_cond_wait(&incoming.changed, ch_in(node->env, LOOK_MS * CH_MS)) == CH_CANCELLED)
            break;
    if (ch_server_stopping(node->server))
        retire(node);
    ch_gate_stop(&gate);
    con__contact_ended(node, &incoming);
    node->incoming--;
    return incoming.status;
}

/* ---- the rest ---- */

/* The group does not go before group_leave. */
static struct base_status group_enter(struct con_node *node, ProtobufCBinaryData name,
                                      struct ch_call *call, struct con__group **group)
{
    *group = name.len < CON_GROUP_NAME_MAX
                 ? con__node_find(node, base_bytes_cstr(ch_call_arena(call), ch_bytes_of(name)))
                 : NULL;
    if (*group && (*group)->closing)
        *group = NULL;
    if (*group) {
        (*group)->inside++;
        return BASE_STATUS_OK;
    }
    return base_status_make(BASE_NOT_FOUND, "there is no group \"%s\" here",
                            base_bytes_show(ch_call_arena(call), ch_bytes_of(name), 64));
}

static struct base_status group_leave(struct con__group *group, struct base_status status)
{
    group->inside--;
    ch_cond_broadcast(&group->changed);
    return status;
}

static ch_time deadline_of(const struct con_node *node, const struct ch_call *call)
{
    ch_time bound = ch_in(node->env, JOIN_MS * CH_MS), deadline = ch_call_deadline(call);

    return deadline < bound ? deadline : bound;
}

static CH_WAITS struct base_status serve_join(void *self, struct ch_call *call, const void *message,
                                              void **reply)
{
    struct con_node *node = self;
    const CON_PB(JoinRequest) *request = message;
    CON_PB(JoinReply) * out;
    struct con_member member = { .id = request->id, .witness = request->witness };
    struct con__group *group;
    struct base_status status = group_enter(node, request->group, call, &group);

    if (base_failed(status))
        return status;
    if (request->id == 0 || request->target.len == 0 || request->target.len >= CON_ADDRESS_MAX ||
        memchr(request->target.data, 0, request->target.len))
        return group_leave(group, base_status_make(BASE_INVALID_ARGUMENT,
                                                   "join: a member needs an id and a target"));
    memcpy(member.address, request->target.data, request->target.len);
    out = CON_NEW(ch_call_arena(call), JoinReply, join_reply);
    *reply = out;
    status = con__group_let_in(group, &member, request->stay_learner, request->member_since,
                               deadline_of(node, call), &out->removed_at);
    return group_leave(group, base_status_wrap(status, "join group %s", group->name));
}

static CH_WAITS struct base_status serve_get_group(void *self, struct ch_call *call,
                                                   const void *message, void **reply)
{
    struct con_node *node = self;
    const CON_PB(GetGroupRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CON_PB(GetGroupReply) *out = CON_NEW(arena, GetGroupReply, get_group_reply);
    struct con_log_view view;
    struct con__group *group;
    struct base_status status = group_enter(node, request->group, call, &group);

    if (base_failed(status))
        return status;
    con__group_look(&group->base, &view);
    out->term = view.term;
    out->commit = view.commit;
    out->applied = view.applied;
    out->last = view.last;
    out->joint = view.joint;
    out->removed = view.removed;
    out->leader = ch_data_str(base_arena_strdup(arena, con__group_leader(&group->base)));
    out->n_members = view.count;
    out->members = BASE_NEW_ARRAY(arena, CON_PB(GetGroupReply__MemberState) *, view.count);
    for (size_t i = 0; i < view.count; i++) {
        out->members[i] = CON_NEW(arena, GetGroupReply__MemberState, get_group_reply__member_state);
        out->members[i]->member = con__member_encode(arena, &view.members[i].member);
        out->members[i]->leads = view.members[i].leads;
        out->members[i]->match = view.members[i].match;
        out->members[i]->heard_ms = view.members[i].heard_ms;
    }
    *reply = out;
    return group_leave(group, status);
}

static CH_WAITS struct base_status serve_remove(void *self, struct ch_call *call,
                                                const void *message, void **reply)
{
    struct con_node *node = self;
    const CON_PB(RemoveMemberRequest) *request = message;
    struct con__group *group;
    struct base_status status = group_enter(node, request->group, call, &group);

    if (base_failed(status))
        return status;
    *reply = CON_NEW(ch_call_arena(call), RemoveMemberReply, remove_member_reply);
    return group_leave(group,
                       con__group_remove(&group->base, request->id, deadline_of(node, call)));
}

static CH_WAITS struct base_status serve_transfer(void *self, struct ch_call *call,
                                                  const void *message, void **reply)
{
    struct con_node *node = self;
    const CON_PB(TransferLeadershipRequest) *request = message;
    struct con__group *group;
    struct base_status status = group_enter(node, request->group, call, &group);

    if (base_failed(status))
        return status;
    *reply = CON_NEW(ch_call_arena(call), TransferLeadershipReply, transfer_leadership_reply);
    return group_leave(group,
                       con__group_transfer(&group->base, request->id, deadline_of(node, call)));
}

void con__node_serve(struct con_node *node, struct ch_server *server)
{
    const struct ch_method *methods = strata__consensus__v1__consensus__service.methods;

    ch_server_add_service(server, &strata__consensus__v1__consensus__service);
    ch_server_handle_stream(server, &methods[STRATA__CONSENSUS__V1__CONSENSUS__DELIVER],
                            serve_deliver, node);
    ch_server_handle(server, &methods[STRATA__CONSENSUS__V1__CONSENSUS__JOIN], serve_join, node);
    ch_server_handle(server, &methods[STRATA__CONSENSUS__V1__CONSENSUS__GET_GROUP], serve_get_group,
                     node);
    ch_server_handle(server, &methods[STRATA__CONSENSUS__V1__CONSENSUS__REMOVE_MEMBER],
                     serve_remove, node);
    ch_server_handle(server, &methods[STRATA__CONSENSUS__V1__CONSENSUS__TRANSFER_LEADERSHIP],
                     serve_transfer, node);
}
