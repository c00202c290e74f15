/* Logs that live in etcd, in this process, against three members of Debian's etcd-server: leading
 * and standing by, handing over, snapshots, what was tampered with, a full database, nobody
 * there. */
#include <inttypes.h>
#include <stdio.h>

#include "etcd_format.h"
#include "etcd_world.h"

static struct base_status member_propose(struct member *member, uint64_t number,
                                         size_t len) CH_WAITS;
static struct base_status member_propose(struct member *member, uint64_t number, size_t len)
{
    struct base_buf command = { 0 }, reply = { 0 };
    struct base_status status;
    uint64_t count;

    list_encode((struct list_item){ 0, number, con_log_term(member->log) }, &command);
    if (len > command.len) {
        size_t more = len - command.len;

        memset(base_buf_extend(&command, more), 'p', more);
    }
    status = con_log_propose(member->log, base_buf_bytes(&command), ch_in(member->env, 15 * CH_S),
                             &reply);
    if (!base_failed(status)) {
        struct base_bytes in = base_buf_bytes(&reply);

        cr_assert(base_take_le64(&in, &count) && count <= member->list.count &&
                  member->list.items[count - 1].number == number);
    }
    base_buf_free(&command);
    base_buf_free(&reply);
    return status;
}

static void lists_equal(const struct list_machine *a, const struct list_machine *b)
{
    cr_assert(a->count == b->count, "%zu and %zu", a->count, b->count);
    cr_assert(a->count == 0 || memcmp(a->items, b->items, a->count * sizeof(*a->items)) == 0);
}

static int leader_and_standby(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct member a, b, c;
    struct con_log_view view;
    uint64_t term, later;
    ch_time begin;

    member_open(env, &a, "a:1", false, 0);
    term = member_lead(&a);
    member_open(env, &b, "b:1", false, 0);
    for (uint64_t i = 1; i <= 50; i++)
        OK(member_propose(&a, i, 0));
    OK(member_propose(&a, 51, 1 << 20));
    OK(member_propose(&a, 52, 900000));
    FAILS(member_propose(&a, 53, (1 << 20) + 1), BASE_INVALID_ARGUMENT, "1048576");
    OK(con_log_read_barrier(a.log, ch_in(env, 5 * CH_S)));
    UNTIL(env, 5, con_log_applied(b.log) == 52);
    lists_equal(&a.list, &b.list);
    FAILS(member_propose(&b, 54, 0), BASE_FAILED_PRECONDITION, "not the leader; it is at a:1");
    FAILS(con_log_read_barrier(b.log, ch_in(env, 5 * CH_S)), BASE_FAILED_PRECONDITION,
          "not the leader; it is at a:1");
    cr_assert_str_eq(con_log_leader(b.log), "a:1");

    /* Membership is whoever runs. */
    con_log_look(a.log, &view);
    UNTIL(env, 5, (con_log_look(a.log, &view), view.count == 2));
    cr_assert(view.members[0].leads != view.members[1].leads && view.applied == 52);
    FAILS(con_log_add(a.log, &view.members[0].member, ch_in(env, CH_S)), BASE_UNIMPLEMENTED,
          "whoever runs");
    FAILS(con_log_remove(a.log, 1, ch_in(env, CH_S)), BASE_UNIMPLEMENTED, "whoever runs");
    FAILS(con_log_transfer(a.log, 12345, ch_in(env, CH_S)), BASE_NOT_FOUND, "12345");
    OK(con_log_transfer(a.log, 0, ch_in(env, 10 * CH_S)));
    cr_assert_eq(con_log_term(a.log), 0);
    cr_assert_eq(a.list.led, 0);
    later = member_lead(&b);
    cr_assert(later > term);
    OK(member_propose(&b, 55, 0));
    UNTIL(env, 5, con_log_applied(a.log) == 53);
    lists_equal(&a.list, &b.list);

    /* A close hands over at once: no lease is waited for. */
    begin = ch_now(env);
    member_close(&b);
    cr_assert(member_lead(&a) > later);
    cr_assert(ch_now(env) - begin < 2 * CH_S, "%lld ms",
              (long long)((ch_now(env) - begin) / CH_MS));
    member_open(env, &c, "c:1", true, 0);
    UNTIL(env, 5, con_log_applied(c.log) == 53);
    lists_equal(&a.list, &c.list);
    member_close(&a);
    member_close(&c);
    return 0;
}

static size_t keys_below(struct con_etcd *etcd, struct ch_env *env, const char *key) CH_WAITS;
static size_t keys_below(struct con_etcd *etcd, struct ch_env *env, const char *key)
{
    struct base_arena arena = { 0 };
    struct con_etcd_txn txn;
    Etcdserverpb__TxnResponse *response;
    const Etcdserverpb__RangeResponse *range;
    size_t count;

    con__etcd_txn_init(&txn, &arena);
    con__etcd_then_range(&txn, key, con__etcd_below(&arena, key), 0);
    OK(con__etcd_commit(etcd, &txn, ch_in(env, 10 * CH_S), &response, NULL));
    OK(con__etcd_found(response, 0, &range));
    count = range->n_kvs;
    base_arena_free(&arena);
    return count;
}

static int snapshots(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct con_etcd_keys keys;
    struct con_etcd *etcd;
    struct member a, b;

    OK(con__etcd_new(env, t.etcd.state, &etcd));
    con__etcd_keys(&keys, con__etcd_prefix(etcd), "list");
    member_open(env, &a, "a:1", false, 1 << 20);
    a.list.state_bytes = 1200000; /* three pieces */
    member_lead(&a);
    for (uint64_t i = 1; i <= 120; i++)
        OK(member_propose(&a, i, 64 << 10));
    /* 7.5 MiB of log in 120 batches; a state of 1.2 MB is saved about every 1.2 MB of it. */
    UNTIL(env, 10, keys_below(etcd, env, keys.snapshot) == 3);
    UNTIL(env, 10, keys_below(etcd, env, keys.log) < 60);
    OK(member_propose(&a, 121, 0));
    member_open(env, &b, "b:1", false, 1 << 20);
    b.list.state_bytes = a.list.state_bytes;
    UNTIL(env, 10, con_log_applied(b.log) == 121);
    lists_equal(&a.list, &b.list);
    member_close(&a);
    member_lead(&b);
    for (uint64_t i = 122; i <= 200; i++)
        OK(member_propose(&b, i, 64 << 10));
    member_open(env, &a, "a:1", true, 0);
    UNTIL(env, 10, con_log_applied(a.log) == 200);
    lists_equal(&a.list, &b.list);
    member_close(&a);
    member_close(&b);

    /* A batch that was tampered with is told, and who reads it gets no further. */
    struct base_arena arena = { 0 };
    OK(con__etcd_put(etcd, con__etcd_log_key(&arena, &keys, 201), BASE_BYTES_LIT("rubbish"),
                     ch_in(env, 5 * CH_S)));
    member_open(env, &a, "a:1", false, 0);
    UNTIL(env, 10, con_log_applied(a.log) == 200);
    (void)ch_sleep_until(env, ch_in(env, 500 * CH_MS)); /* it must not come to lead */
    cr_assert(con_log_term(a.log) == 0 && con_log_applied(a.log) == 200);
    member_close(&a);
    base_arena_free(&arena);
    con__etcd_free(etcd);
    return 0;
}

/* Others fill the database too: etcd then finds out that it is full while it carries a write out,
 * and answers as if it had not. */
static void junk_writer(void *arg)
{
    CH_FIBER_ENTRY();
    static uint8_t junk[200000];
    struct base_status status = BASE_STATUS_OK;
    char key[32];

    for (int i = 0; i < 1000 && !base_failed(status); i++) {
        snprintf(key, sizeof key, "/junk/%p/%d", (void *)&key, i);
        status = con__etcd_put(arg, key, base_bytes(junk, sizeof junk),
                               ch_in(ch_fiber_env(), 10 * CH_S));
    }
    base_status_free(&status);
}

static int full(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct base_status status = BASE_STATUS_OK;
    struct member a, b;
    struct con_etcd *etcd;
    struct ch_gather others;
    uint64_t number = 0;

    member_open(env, &a, "a:1", false, 1 << 30);
    member_lead(&a);
    OK(con__etcd_new(env, t.etcd.state, &etcd));
    ch_gather_init(&others, "others");
    for (int i = 0; i < 4; i++)
        ch_gather_add(&others, junk_writer, etcd);
    while (!base_failed(status) && number < 1000)
        status = member_propose(&a, ++number, 100000);
    ch_gather_wait(&others);
    con__etcd_free(etcd);
    cr_assert(status.code == BASE_RESOURCE_EXHAUSTED &&
                  strstr(base_status_text(&status), "database space exceeded") &&
                  strstr(base_status_text(&status), "127.0.0.1:"),
              "%" PRIu64 ": %s %s", number, base_code_name(status.code), base_status_text(&status));
    base_status_free(&status);
    /* What was acknowledged can be read, and it still leads. */
    OK(con_log_read_barrier(a.log, ch_in(env, 5 * CH_S)));
    cr_assert_eq(con_log_applied(a.log), number - 1);
    member_open(env, &b, "b:1", true, 0);
    UNTIL(env, 10, con_log_applied(b.log) >= number - 1);
    (void)ch_sleep_until(env, ch_in(env, 200 * CH_MS)); /* there must not be more */
    lists_equal(&a.list, &b.list);
    member_close(&a);
    member_close(&b);
    return 0;
}

static int unreachable(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct member a;
    uint64_t term;
    ch_time begin;

    snprintf(t.etcd.state, sizeof t.etcd.state, "etcd://127.0.0.1:1,127.0.0.1:2");
    member_open(env, &a, "a:1", false, 0);
    cr_assert(con_log_wait_lead(a.log, ch_in(env, 300 * CH_MS), &term) == CH_TIMEOUT);
    FAILS(member_propose(&a, 1, 0), BASE_FAILED_PRECONDITION, "not the leader; none is known");
    begin = ch_now(env);
    member_close(&a);
    cr_assert(ch_now(env) - begin < 3 * CH_S);

    struct con_machine machine = list_machine_of(&a.list);
    struct con_log_options options = { .group = "list", .self = "a:1" };
    static const char *const bad[][2] = {
        { "zookeeper://127.0.0.1:1", "etcd://" },
        { "etcd://", "host:port" },
        { "etcd://127.0.0.1:1,", "host:port" },
        { "etcd://localhost/x", "localhost" },
        { "etcd://a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1,j:1", "9 endpoints" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        options.state = bad[i][0];
        FAILS(con_log_open(env, &options, &machine, &a.log), BASE_INVALID_ARGUMENT, bad[i][1]);
    }
    options.state = "etcd://127.0.0.1:1";
    options.group = NULL;
    FAILS(con_log_open(env, &options, &machine, &a.log), BASE_INVALID_ARGUMENT, "group");
    return 0;
}

Test(log_etcd, leader_and_standby, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(leader_and_standby);
}
Test(log_etcd, snapshots, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(snapshots);
}
Test(log_etcd, full, .init = etcd_setup_small, .fini = etcd_teardown)
{
    etcd_run(full);
}
Test(log_etcd, unreachable, .init = etcd_setup, .fini = etcd_teardown)
{
    etcd_run(unreachable);
}
