/* Blockmaster's state machine, command by command: what it refuses matters as much as what it does,
 * since fencing rests on it. After each command the state goes through a snapshot and back: both
 * must say the same. */
#include <stdarg.h>
#include <stdlib.h>

#include "state.h"
#include "test.h"

static struct blk__state state;
static struct base_arena arena;

static void setup(void)
{
    blk__state_init(&state);
    base_arena_init(&arena);
}

static void teardown(void)
{
    blk__state_free(&state);
    base_arena_free(&arena);
}

static void through_snapshot(void)
{
    struct base_buf one = { 0 }, two = { 0 };
    blk__state_save(&state, &one);
    struct blk__state copy;
    blk__state_init(&copy);
    struct base_status status = blk__state_load(&copy, base_buf_bytes(&one));
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    blk__state_save(&copy, &two);
    cr_assert(one.len == two.len && memcmp(one.data, two.data, one.len) == 0);
    blk__state_free(&state);
    state = copy;
    base_buf_free(&one);
    base_buf_free(&two);
}

static BLK_PB(Result) * apply(BLK_PB(Command) * command, int64_t now_us)
{
    struct base_buf bytes = { 0 }, reply = { 0 };
    ProtobufCMessage *result;
    command->now_us = now_us;
    ch_proto_encode(&command->base, &bytes);
    blk__state_apply(&state, base_buf_bytes(&bytes), &reply);
    struct base_status status = ch_proto_decode(&strata__blockstore__v1__result__descriptor,
                                                base_buf_bytes(&reply), &arena, &result);
    cr_assert(!base_failed(status));
    base_buf_free(&bytes);
    base_buf_free(&reply);
    through_snapshot();
    return (BLK_PB(Result) *)result;
}

static BLK_PB(Command) * command(int change)
{
    BLK_PB(Command) *c = BLK_NEW(&arena, Command, command);
    c->change_case = (BLK_PB(Command__ChangeCase))change;
    return c;
}
#define CHANGE(NAME) command(STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_##NAME)

static BLK_PB(Result) * take(const char *path, bool create, bool exclusive, uint64_t fence)
{
    BLK_PB(Command) *c = CHANGE(TAKE);
    c->take = BLK_NEW(&arena, TakeFile, take_file);
    c->take->path = ch_data_str(path);
    c->take->create = create;
    c->take->exclusive = exclusive;
    c->take->fence = fence;
    return apply(c, 1);
}

struct end {
    uint64_t block, length;
};
static BLK_PB(EndedBlock) * *ends_of(const struct end *ends, size_t n)
{
    BLK_PB(EndedBlock) **out = BASE_NEW_ARRAY(&arena, BLK_PB(EndedBlock) *, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = BLK_NEW(&arena, EndedBlock, ended_block);
        out[i]->block = ends[i].block;
        out[i]->length = ends[i].length;
    }
    return out;
}

static BLK_PB(Result) * extend(uint64_t file, uint64_t epoch, uint32_t allocated, bool want,
                               bool seal, const struct end *ends, size_t n)
{
    static uint64_t servers[3] = { 1, 2, 3 };
    BLK_PB(Command) *c = CHANGE(EXTEND);
    c->extend = BLK_NEW(&arena, ExtendFile, extend_file);
    c->extend->file = file;
    c->extend->epoch = epoch;
    c->extend->allocated = allocated;
    c->extend->want_block = want;
    c->extend->seal_file = seal;
    c->extend->servers = servers;
    c->extend->n_servers = 3;
    c->extend->ends = ends_of(ends, n);
    c->extend->n_ends = n;
    return apply(c, 2);
}

static BLK_PB(Result) * seal_tail(uint64_t file, uint64_t epoch, const struct end *ends, size_t n)
{
    BLK_PB(Command) *c = CHANGE(SEAL_TAIL);
    c->seal_tail = BLK_NEW(&arena, SealTail, seal_tail);
    c->seal_tail->file = file;
    c->seal_tail->epoch = epoch;
    c->seal_tail->ends = ends_of(ends, n);
    c->seal_tail->n_ends = n;
    return apply(c, 3);
}

static BLK_PB(Result) * replicas(uint64_t block, uint64_t add, uint64_t generation, uint64_t remove)
{
    BLK_PB(Command) *c = CHANGE(CHANGE_REPLICAS);
    c->change_replicas = BLK_NEW(&arena, ChangeReplicas, change_replicas);
    c->change_replicas->block = block;
    c->change_replicas->add_server = add;
    c->change_replicas->add_generation = generation;
    c->change_replicas->remove_server = remove;
    return apply(c, 4);
}

static BLK_PB(Result) *
    name_change(int change, const char *a, const char *b, bool replace, int64_t now_us)
{
    BLK_PB(Command) *c = command(change);
    if (change == STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_RENAME) {
        c->rename = BLK_NEW(&arena, RenameFile, rename_file);
        c->rename->from = ch_data_str(a);
        c->rename->to = ch_data_str(b);
        c->rename->replace = replace;
    } else if (change == STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_LINK) {
        c->link = BLK_NEW(&arena, LinkFile, link_file);
        c->link->existing = ch_data_str(a);
        c->link->name = ch_data_str(b);
    } else {
        c->delete_ = BLK_NEW(&arena, DeleteFile, delete_file);
        c->delete_->path = ch_data_str(a);
    }
    return apply(c, now_us);
}
#define RENAME(a, b, replace, now) \
    name_change(STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_RENAME, a, b, replace, now)
#define LINK(a, b) name_change(STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_LINK, a, b, false, 0)
#define DELETE(a, now) name_change(STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_DELETE, a, 0, false, now)

static uint32_t purge(int64_t before)
{
    BLK_PB(Command) *c = CHANGE(PURGE);
    c->purge = BLK_NEW(&arena, PurgeFiles, purge_files);
    c->purge->before_us = before;
    return apply(c, 0)->count;
}

Test(state, epochs_and_fences, .init = setup, .fini = teardown)
{
    cr_assert_eq(take("/f", false, false, 0)->code, BASE_NOT_FOUND);
    BLK_PB(Result) *r = take("/f", true, true, 5);
    cr_assert(r->code == BASE_OK && r->epoch == 1);
    cr_assert_eq(take("/f", true, true, 5)->code, BASE_ALREADY_EXISTS);
    cr_assert_eq(take("/f", true, false, 4)->code, BASE_FAILED_PRECONDITION);
    cr_assert_eq(take("/f", true, false, 5)->epoch, 2, "the same holder again");
    cr_assert_eq(take("/f", true, false, 0)->epoch, 3, "no fence asks for no check");
    cr_assert_eq(take("/f", true, false, 4)->code, BASE_FAILED_PRECONDITION, "and forgets none");
    cr_assert_eq(extend(1, 2, 0, true, false, 0, 0)->code, BASE_FAILED_PRECONDITION,
                 "an older epoch gets nothing");
    cr_assert_eq(extend(1, 4, 0, true, false, 0, 0)->code, BASE_FAILED_PRECONDITION);
    cr_assert_eq(extend(1, 3, 0, true, false, 0, 0)->code, BASE_OK);
    cr_assert_eq(seal_tail(1, 2, (struct end[]){ { 1, 5 } }, 1)->code, BASE_FAILED_PRECONDITION);
}

Test(state, blocks_end_in_order_and_once, .init = setup, .fini = teardown)
{
    take("/f", true, false, 0);
    cr_assert_eq(extend(1, 1, 0, true, false, 0, 0)->block, 1);
    cr_assert_eq(extend(1, 1, 0, true, false, 0, 0)->block, 1, "repeated: no second block");
    cr_assert_eq(extend(1, 1, 1, true, false, 0, 0)->block, 2);
    cr_assert_eq(extend(1, 1, 5, true, false, 0, 0)->code, BASE_INVALID_ARGUMENT);
    cr_assert_eq(extend(1, 1, 2, false, false, (struct end[]){ { 2, 9 } }, 1)->code,
                 BASE_FAILED_PRECONDITION, "1 is first");
    cr_assert_eq(extend(1, 1, 2, true, false, (struct end[]){ { 1, 100 } }, 1)->block, 3);
    cr_assert_eq(extend(1, 1, 2, true, false, (struct end[]){ { 1, 100 } }, 1)->block, 3,
                 "repeated");
    cr_assert_eq(extend(1, 1, 3, false, false, (struct end[]){ { 1, 99 } }, 1)->code,
                 BASE_FAILED_PRECONDITION, "another length");
    cr_assert_eq(extend(1, 1, 3, true, false, (struct end[]){ { 3, 0 } }, 1)->block, 4,
                 "an unused one may go at any time");
    cr_assert_eq(extend(1, 1, 4, false, true, (struct end[]){ { 2, 50 } }, 1)->code,
                 BASE_FAILED_PRECONDITION, "4 has not ended");
    cr_assert_eq(blk__state_path(&state, base_bytes_str("/f"))->length, 100,
                 "a refused command changes nothing");
    cr_assert_eq(extend(1, 1, 4, false, true, (struct end[]){ { 2, 50 }, { 4, 7 } }, 2)->length,
                 157);
    cr_assert_eq(extend(1, 1, 4, false, true, (struct end[]){ { 2, 50 }, { 4, 7 } }, 2)->code,
                 BASE_OK, "repeated");
    cr_assert_eq(extend(1, 1, 4, true, false, 0, 0)->code, BASE_FAILED_PRECONDITION, "sealed");
    cr_assert_eq(take("/f", true, false, 0)->code, BASE_FAILED_PRECONDITION);
    const struct blk__file *file = blk__state_path(&state, base_bytes_str("/f"));
    cr_assert(file->sealed && file->block_count == 3 && file->sealed_count == 3 &&
              !blk__state_block(&state, 3));
}

Test(state, recovery_ends_everything_under_its_epoch, .init = setup, .fini = teardown)
{
    take("/f", true, false, 0);
    extend(1, 1, 0, true, false, 0, 0);
    extend(1, 1, 1, true, false, 0, 0);
    take("/f", true, false, 0);
    cr_assert_eq(seal_tail(1, 2, (struct end[]){ { 1, 10 } }, 1)->code, BASE_FAILED_PRECONDITION,
                 "not all of them");
    cr_assert_eq(seal_tail(1, 2, (struct end[]){ { 1, 10 }, { 1, 10 } }, 2)->code,
                 BASE_INVALID_ARGUMENT, "one twice");
    cr_assert_eq(seal_tail(1, 2, (struct end[]){ { 1, 10 }, { 2, 0 } }, 2)->length, 10);
    cr_assert_eq(seal_tail(1, 2, (struct end[]){ { 1, 10 }, { 2, 0 } }, 2)->length, 10, "repeated");
    cr_assert_eq(extend(1, 1, 2, false, false, (struct end[]){ { 1, 8 } }, 1)->code,
                 BASE_FAILED_PRECONDITION, "the old writer");
    cr_assert_eq(extend(1, 2, 0, true, false, 0, 0)->block, 3);
}

Test(state, names_links_and_trash, .init = setup, .fini = teardown)
{
    take("/a", true, false, 0);
    take("/b", true, false, 0);
    cr_assert_eq(LINK("/a", "/c")->code, BASE_FAILED_PRECONDITION, "not sealed");
    extend(1, 1, 0, true, false, 0, 0);
    extend(1, 1, 1, false, true, (struct end[]){ { 1, 5 } }, 1);
    cr_assert_eq(LINK("/a", "/b")->code, BASE_ALREADY_EXISTS);
    cr_assert_eq(LINK("/x", "/c")->code, BASE_NOT_FOUND);
    cr_assert_eq(LINK("/a", "/c")->code, BASE_OK);
    cr_assert_eq(RENAME("/a", "/b", false, 10)->code, BASE_ALREADY_EXISTS);
    cr_assert_eq(RENAME("/x", "/y", true, 10)->code, BASE_NOT_FOUND);
    cr_assert_eq(RENAME("/a", "/a", false, 10)->code, BASE_OK);
    cr_assert_eq(RENAME("/a", "/b", true, 10)->code, BASE_OK);
    cr_assert(!blk__state_path(&state, base_bytes_str("/a")));
    cr_assert_eq(blk__state_path(&state, base_bytes_str("/b"))->id, 1);
    cr_assert_eq(state.unnamed_files, 1, "what was replaced is trash");
    cr_assert_eq(purge(9), 0);
    cr_assert_eq(purge(10), 1);
    cr_assert_eq(DELETE("/b", 20)->code, BASE_OK);
    cr_assert_eq(DELETE("/b", 20)->code, BASE_NOT_FOUND);
    cr_assert_eq(purge(100), 0, "it has another name");
    cr_assert(blk__state_block(&state, 1));
    cr_assert_eq(DELETE("/c", 30)->code, BASE_OK);
    cr_assert_eq(purge(29), 0);
    cr_assert_eq(purge(30), 1);
    cr_assert(!blk__state_block(&state, 1) && state.next_block == 2 && state.next_file == 3);
}

Test(state, replicas_change_but_never_all_go, .init = setup, .fini = teardown)
{
    take("/a", true, false, 0);
    extend(1, 1, 0, true, false, 0, 0);
    cr_assert_eq(replicas(1, 4, 9, 0)->code, BASE_FAILED_PRECONDITION,
                 "not sealed: its writer may be at it");
    extend(1, 1, 1, false, false, (struct end[]){ { 1, 5 } }, 1);
    cr_assert_eq(replicas(2, 4, 9, 0)->code, BASE_NOT_FOUND);
    cr_assert_eq(replicas(1, 4, 9, 0)->code, BASE_OK);
    cr_assert_eq(blk__state_block(&state, 1)->replicas[3].generation, 9);
    cr_assert_eq(replicas(1, 4, 10, 2)->code, BASE_OK);
    cr_assert(blk__state_block(&state, 1)->replica_count == 3 &&
              blk__replica_of(blk__state_block(&state, 1), 2) < 0);
    replicas(1, 0, 0, 1);
    replicas(1, 0, 0, 3);
    cr_assert_eq(replicas(1, 0, 0, 4)->code, BASE_FAILED_PRECONDITION);
    cr_assert_eq(blk__state_block(&state, 1)->replica_count, 1);
}

static BLK_PB(Result) * set_copies(uint32_t count, uint32_t quorum)
{
    BLK_PB(Command) *c = CHANGE(SET_COPIES);
    c->set_copies = BLK_NEW(&arena, SetCopies, set_copies);
    c->set_copies->replicas = count;
    c->set_copies->quorum = quorum;
    return apply(c, 5);
}

static BLK_PB(Result) * extend_on_one(uint64_t file, uint64_t epoch, uint32_t allocated)
{
    static uint64_t server = 1;
    BLK_PB(Command) *c = CHANGE(EXTEND);
    c->extend = BLK_NEW(&arena, ExtendFile, extend_file);
    c->extend->file = file;
    c->extend->epoch = epoch;
    c->extend->allocated = allocated;
    c->extend->want_block = true;
    c->extend->servers = &server;
    c->extend->n_servers = 1;
    return apply(c, 2);
}

Test(state, copies_follow_the_cell_and_only_grow, .init = setup, .fini = teardown)
{
    /* Before there is a block the cell may choose; then an acknowledged byte may rest on the number
     * there was, so it only grows. What a file asked for itself stays. */
    cr_assert_eq(take("/early", true, true, 0)->code, BASE_OK);
    cr_assert_eq(extend_on_one(1, 1, 0)->code, BASE_UNAVAILABLE, "two of three are to have it");
    cr_assert_eq(set_copies(0, 1)->code, BASE_INVALID_ARGUMENT);
    cr_assert_eq(set_copies(2, 1)->code, BASE_INVALID_ARGUMENT);
    cr_assert_eq(set_copies(5, 3)->code, BASE_INVALID_ARGUMENT, "3 of 5 miss a quorum of 2 of 3");
    cr_assert_eq(set_copies(1, 1)->code, BASE_OK);
    cr_assert(blk__state_file(&state, 1)->replicas == 1 && blk__state_file(&state, 1)->quorum == 1);
    cr_assert_eq(extend(1, 1, 0, true, false, 0, 0)->code, BASE_UNAVAILABLE,
                 "three, chosen before: its quorum of 1 would become 2");
    BLK_PB(Command) *own = CHANGE(TAKE);
    own->take = BLK_NEW(&arena, TakeFile, take_file);
    own->take->path = ch_data_str("/own");
    own->take->create = true;
    own->take->replicas = own->take->quorum = 2;
    cr_assert_eq(apply(own, 1)->code, BASE_OK);
    cr_assert_eq(extend_on_one(1, 1, 0)->code, BASE_OK);
    cr_assert_eq(set_copies(3, 2)->code, BASE_OK);
    cr_assert(blk__state_file(&state, 1)->replicas == 3 && blk__state_file(&state, 1)->quorum == 2);
    cr_assert(blk__state_file(&state, 2)->replicas == 2 && blk__state_file(&state, 2)->quorum == 2);
    cr_assert_eq(blk__state_block(&state, 1)->replica_count, 1u, "copying is repair's");
    cr_assert_eq(extend_on_one(1, 1, 1)->code, BASE_UNAVAILABLE);
    cr_assert_eq(set_copies(1, 1)->code, BASE_FAILED_PRECONDITION);
    cr_assert_eq(set_copies(3, 2)->code, BASE_OK);
    cr_assert_eq(take("/late", true, true, 0)->code, BASE_OK);
    cr_assert_eq(blk__state_path(&state, base_bytes_str("/late"))->replicas, 3u);
}

Test(state, paths, .init = setup, .fini = teardown)
{
    const char *good[] = { "/a", "/a/b", "/.", "/-_.=+:,@%aZ9/x" };
    const char *bad[] = { "", "a", "/", "//", "/a/", "/a//b", "/a b", "/a\n", "/\xc3\xa4" };
    char name[300];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        cr_assert_eq(base_status_drop(blk__path_check(base_bytes_str(good[i]))), BASE_OK, "%s",
                     good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(base_status_drop(blk__path_check(base_bytes_str(bad[i]))),
                     BASE_INVALID_ARGUMENT, "%s", bad[i]);
    memset(name, 'x', sizeof name);
    name[0] = '/';
    cr_assert_eq(base_status_drop(blk__path_check(base_bytes(name, 256))), BASE_OK);
    cr_assert_eq(base_status_drop(blk__path_check(base_bytes(name, 257))), BASE_INVALID_ARGUMENT);
    cr_assert_eq(base_status_drop(blk__path_check(base_bytes("/a\0b", 4))), BASE_INVALID_ARGUMENT,
                 "a NUL is no end");
}

/* Bytes that are no command, cut and flipped ones too, must be refused, not crash the master. */
Test(state, nonsense, .init = setup, .fini = teardown)
{
    take("/f", true, false, 0);
    BLK_PB(Command) *c = CHANGE(TAKE);
    c->take = BLK_NEW(&arena, TakeFile, take_file);
    c->take->path = ch_data_str("/g");
    c->take->create = true;
    struct base_buf bytes = { 0 };
    ch_proto_encode(&c->base, &bytes);
    for (size_t i = 0; i < bytes.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct base_buf reply = { 0 };
            bytes.data[i] ^= (uint8_t)(1 << bit);
            blk__state_apply(&state, base_bytes(bytes.data, i + 1), &reply);
            blk__state_apply(&state, base_buf_bytes(&bytes), &reply);
            bytes.data[i] ^= (uint8_t)(1 << bit);
            base_buf_free(&reply);
        }
    }
    base_buf_free(&bytes);
    through_snapshot();
}
