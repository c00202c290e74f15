/* Simulated disks: what was synced is there after a crash, what was not may be there in any part a
 * real disk could leave, and the faults a real disk has can be had. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chassis/sim.h"
#include "env_int.h"
#include "test.h"

enum { SECTOR = 512, SEEDS = 200 };

#define MUST(call)                                                          \
    do {                                                                    \
        struct base_status status_ = (call);                                \
        cr_assert(!base_failed(status_), "%s", base_status_text(&status_)); \
    } while (0)

/* One node, whose main runs `fn` and then waits to be crashed or stopped. */
struct bed {
    struct ch_sim *sim;
    struct ch_sim_node *node;
    struct ch_env *env;
    void (*fn)(struct bed *bed) CH_WAITS_SLOT;
    bool done;
    int arg;
    enum base_code code;
    size_t count;
};

static int bed_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct bed *bed = arg;
    bed->env = env;
    bed->fn(bed);
    bed->done = true;
    (void)ch_sleep_until(env, CH_NEVER);
    return 0;
}

static bool bed_done(void *arg)
{
    return ((struct bed *)arg)->done;
}

static void start(struct bed *bed, void (*fn)(struct bed *bed))
{
    CH_FIBER_ENTRY(); /* for the analysis: fn runs on a fiber */
    bed->fn = fn;
    bed->done = false;
    ch_sim_start(bed->node, bed_main, bed);
}

static void run(struct bed *bed, void (*fn)(struct bed *bed))
{
    if (ch_sim_running(bed->node))
        ch_sim_stop(bed->node);
    start(bed, fn);
    cr_assert(ch_sim_run(bed->sim, bed_done, bed, ch_sim_now(bed->sim) + 100 * CH_S));
}

static struct bed bed_new(uint64_t seed)
{
    struct bed bed = { .sim = ch_sim_new(seed) };
    bed.node = ch_sim_node(bed.sim, "disk", "10.0.0.1");
    return bed;
}

static bool peek(struct bed *bed, const char *path, struct base_buf *out)
{
    base_buf_clear(out);
    return ch_sim_disk_peek(bed->node, path, out);
}

static bool is_text(const struct base_buf *buf, const char *text)
{
    return base_bytes_eq_str(base_buf_bytes(buf), text);
}

static struct ch_file *open_new(struct bed *bed, const char *path) CH_WAITS;
static struct ch_file *open_new(struct bed *bed, const char *path)
{
    struct ch_file *file;
    MUST(ch_file_open(bed->env, path, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE, &file));
    return file;
}

static void put(struct ch_file *file, uint64_t offset, uint8_t byte, size_t len,
                bool durable) CH_WAITS;
static void put(struct ch_file *file, uint64_t offset, uint8_t byte, size_t len, bool durable)
{
    uint8_t *data = malloc(len);
    memset(data, byte, len);
    struct base_bytes parts[] = { { data, len / 2 }, { data, len - len / 2 } };
    MUST(ch_file_write(file, offset, parts, 2, durable));
    free(data);
}

/* ---- what a crash leaves ---- */

static void write_durable_then_not(struct bed *bed) CH_WAITS;
static void write_durable_then_not(struct bed *bed)
{
    struct ch_file *file = open_new(bed, "/log");
    put(file, 0, 'a', 8 * SECTOR, true);
    MUST(ch_dir_sync(bed->env, "/"));
    put(file, 2 * SECTOR, 'b', 4 * SECTOR, false);
    put(file, 3 * SECTOR + 100, 'c', 2 * SECTOR, false);
    put(file, 8 * SECTOR, 'd', 2 * SECTOR, false);
    ch_file_close(file); /* a close is no sync */
}

/* The state of a sector as the largest letter in it; every sector must be as one of its moments
 * was. */
static void check_sector(const uint8_t *data, size_t sector, size_t torn[4])
{
    size_t begin = sector * SECTOR;
    bool has_b = memchr(data + begin, 'b', SECTOR), has_c = memchr(data + begin, 'c', SECTOR);
    if (sector < 2 || sector == 6 || sector == 7)
        cr_assert_eq(data[begin] == 'a' && !has_b && !has_c, 1, "synced sector %zu", sector);
    if (sector == 3 || sector == 5) /* c overlaps b in a part of the sector: never c without b */
        cr_assert(!has_c || has_b, "sector %zu has the newer write without the older one", sector);
    torn[0] += has_b;
    torn[1] += has_c;
}

Test(sim_disk, a_crash_keeps_all_that_was_synced_and_any_part_of_the_rest)
{
    size_t kept[4] = { 0 }, none = 0, all = 0, some = 0;
    struct base_buf left = { 0 };
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bed bed = bed_new(seed);
        run(&bed, write_durable_then_not);
        ch_sim_crash(bed.node);
        cr_assert(peek(&bed, "/log", &left));
        cr_assert(left.len == 8 * SECTOR || left.len == 9 * SECTOR || left.len == 10 * SECTOR,
                  "%zu", left.len);
        size_t before = kept[0];
        for (size_t sector = 0; sector < 8; sector++)
            check_sector(left.data, sector, kept);
        kept[2] += left.len > 8 * SECTOR;
        size_t b = kept[0] - before;
        none += b == 0;
        all += b == 4 || (b == 3 && left.data[4 * SECTOR] == 'c');
        some += b == 1 || b == 2;
        cr_assert_eq(ch_sim_disk_used(bed.node), left.len);
        ch_sim_free(bed.sim);
    }
    cr_assert(none > 0 && all > 0 && some > 0 && kept[1] > 0 && kept[2] > 0 && kept[2] < SEEDS,
              "%zu %zu %zu", none, all, some);
    base_buf_free(&left);
}

static void sync_in_flight(struct bed *bed) CH_WAITS;
static void sync_in_flight(struct bed *bed)
{
    struct ch_file *file = open_new(bed, "/log");
    MUST(ch_dir_sync(bed->env, "/"));
    put(file, 0, 'x', SECTOR, false);
    struct base_status status = ch_file_sync(file); /* the crash comes within */
    bed->code = base_status_drop(status);
    ch_file_close(file);
}

Test(sim_disk, a_sync_that_a_crash_interrupts_may_have_stored_its_bytes_or_not)
{
    size_t stored = 0;
    struct base_buf left = { 0 };
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct bed bed = bed_new(seed);
        ch_sim_disk_delay(bed.node, 10 * CH_MS, 10 * CH_MS);
        start(&bed, sync_in_flight);
        ch_sim_run(bed.sim, NULL, NULL,
                   ch_sim_now(bed.sim) +
                       15 * CH_MS); /* the directory's is over, the file's is not */
        ch_sim_crash(bed.node);
        cr_assert_eq(bed.code, BASE_UNAVAILABLE);
        cr_assert(peek(&bed, "/log", &left));
        stored += left.len == SECTOR;
        ch_sim_free(bed.sim);
    }
    cr_assert(stored > 0 && stored < 40, "%zu", stored);
    base_buf_free(&left);
}

static void make_names(struct bed *bed) CH_WAITS;
static void make_names(struct bed *bed)
{
    MUST(ch_dir_make(bed->env, "/data/deep/"));
    ch_file_close(open_new(bed, "/data/deep/synced"));
    ch_file_close(open_new(bed, "data/deep/doomed"));
    MUST(ch_dir_sync(bed->env, "/data/deep"));
    struct ch_file *file = open_new(bed, "/data/deep/file");
    put(file, 0, 'f', 10, true); /* its bytes are stored, its name is not */
    ch_file_close(file);
    MUST(ch_file_remove(bed->env, "/data/deep/doomed"));
    MUST(ch_file_rename(bed->env, "/data/deep/synced", "/data/deep/renamed"));
    MUST(ch_dir_make(bed->env, "/other"));
}

Test(sim_disk, names_are_stored_by_a_sync_of_their_directory_alone)
{
    size_t file = 0, doomed = 0, renamed = 0, other = 0;
    struct base_buf left = { 0 };
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bed bed = bed_new(seed);
        run(&bed, make_names);
        ch_sim_crash(bed.node);
        bool was = peek(&bed, "/data/deep/synced", &left),
             is = peek(&bed, "/data/deep/renamed", &left);
        cr_assert_neq(was, is); /* a rename is whole */
        renamed += is;
        doomed += peek(&bed, "/data/deep/doomed", &left);
        bool has_file = peek(&bed, "/data/deep/file", &left);
        file += has_file;
        if (has_file)
            cr_assert(is_text(&left, "ffffffffff"));
        run(&bed, make_names); /* a half-made tree can be made again */
        other += ch_sim_disk_used(bed.node) > 0;
        ch_sim_free(bed.sim);
    }
    cr_assert(file > 0 && file < SEEDS && doomed > 0 && doomed < SEEDS && renamed > 0 &&
              renamed < SEEDS);
    cr_assert_eq(other, SEEDS);
    base_buf_free(&left);
}

static void replace_file(struct bed *bed) CH_WAITS;
static void replace_file(struct bed *bed)
{
    for (; bed->arg < 100; bed->arg++) {
        char text[16];
        snprintf(text, sizeof(text), "version %03d", bed->arg);
        bed->code = base_status_drop(ch_file_write_all(bed->env, "/conf", base_bytes_str(text)));
        if (bed->code != BASE_OK)
            return;
        bed->count = (size_t)bed->arg + 1;
    }
}

/* ch_file_write_all promises old or new, never between, and after it has returned: new. */
Test(sim_disk, write_all_is_old_or_new_wherever_the_crash_falls)
{
    size_t ahead = 0;
    struct base_buf left = { 0 };
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bed bed = bed_new(seed);
        start(&bed, replace_file);
        ch_sim_run(bed.sim, NULL, NULL,
                   ch_sim_now(bed.sim) + (ch_time)(ch_sim_random(bed.sim) % (20 * CH_MS)));
        size_t acknowledged = bed.count;
        ch_sim_crash(bed.node);
        if (!peek(&bed, "/conf", &left)) {
            cr_assert_eq(acknowledged, 0u);
        } else {
            base_buf_put_u8(&left, 0);
            cr_assert(strncmp((char *)left.data, "version ", 8) == 0 && left.len == 12, "%s",
                      (char *)left.data);
            size_t version = strtoul((char *)left.data + 8, NULL, 10) + 1;
            cr_assert(version == acknowledged || version == acknowledged + 1,
                      "%zu, acknowledged %zu", version, acknowledged);
            ahead += version > acknowledged;
        }
        ch_sim_free(bed.sim);
    }
    cr_assert_gt(ahead, 0u);
    base_buf_free(&left);
}

static void unsynced(struct bed *bed) CH_WAITS;
static void unsynced(struct bed *bed)
{
    struct ch_file *file = open_new(bed, "/f");
    put(file, 0, 'k', 100, false);
    ch_file_close(file);
}

Test(sim_disk, a_kill_or_a_stop_without_power_loss_loses_nothing)
{
    struct base_buf left = { 0 };
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct bed bed = bed_new(seed);
        run(&bed, unsynced);
        seed % 2 ? ch_sim_kill(bed.node) : ch_sim_stop(bed.node);
        cr_assert(peek(&bed, "/f", &left));
        cr_assert_eq(left.len, 100u);
        ch_sim_free(bed.sim);
    }
    base_buf_free(&left);
}

static void allocate(struct bed *bed) CH_WAITS;
static void allocate(struct bed *bed)
{
    struct ch_file *file = open_new(bed, "/segment");
    MUST(ch_file_allocate(file, 0, 100000));
    MUST(ch_dir_sync(bed->env, "/"));
    put(file, 0, 'z', 1000, true);
    MUST(ch_file_truncate(file, 50000));
    ch_file_close(file);
}

Test(sim_disk, allocated_bytes_are_zeros_and_stored_and_a_truncation_may_be_lost)
{
    size_t cut = 0;
    struct base_buf left = { 0 };
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct bed bed = bed_new(seed);
        run(&bed, allocate);
        ch_sim_crash(bed.node);
        cr_assert(peek(&bed, "/segment", &left));
        cr_assert(left.len == 100000 || left.len == 50000);
        cut += left.len == 50000;
        for (size_t i = 0; i < left.len; i++)
            cr_assert_eq(left.data[i], i < 1000 ? 'z' : 0);
        ch_sim_free(bed.sim);
    }
    cr_assert(cut > 0 && cut < 40);
    base_buf_free(&left);
}

/* ---- the rest of the file calls ---- */

static void basics(struct bed *bed) CH_WAITS;
static void basics(struct bed *bed)
{
    struct ch_env *env = bed->env;
    struct base_arena arena = { 0 };
    struct base_buf all = { 0 };
    char **names;
    size_t count, got;
    uint8_t data[64];
    MUST(ch_dir_make(env, "/d/e"));
    MUST(ch_dir_make(env, "/d/e"));
    MUST(ch_file_write_all(env, "/d/b", BASE_BYTES_LIT("hello")));
    MUST(ch_file_write_all(env, "d//./a", BASE_BYTES_LIT("")));
    MUST(ch_dir_list(env, "/d", &arena, &names, &count));
    cr_assert_eq(count, 3u);
    cr_assert(strcmp(names[0], "a") == 0 && strcmp(names[1], "b") == 0 &&
              strcmp(names[2], "e") == 0);
    MUST(ch_dir_list(env, "/", &arena, &names, &count));
    cr_assert(count == 1 && strcmp(names[0], "d") == 0);
    MUST(ch_file_read_all(env, "/d/b", 100, &all));
    cr_assert(is_text(&all, "hello"));
    cr_assert_eq(base_status_drop(ch_file_read_all(env, "/d/b", 4, &all)), BASE_RESOURCE_EXHAUSTED);
    struct ch_file *file = open_new(bed, "/d/b");
    MUST(ch_file_read(file, 3, data, sizeof(data), &got));
    cr_assert(got == 2 && memcmp(data, "lo", 2) == 0);
    MUST(ch_file_read(file, 5, data, sizeof(data), &got));
    cr_assert_eq(got, 0u);
    MUST(ch_file_remove(env, "/d/b")); /* an open file outlives its name */
    MUST(ch_file_read(file, 0, data, sizeof(data), &got));
    cr_assert_eq(got, 5u);
    ch_file_close(file);
    struct base_status status = ch_file_open(env, "/d/b", CH_FILE_READ, &file);
    cr_assert_eq(status.code, BASE_NOT_FOUND);
    cr_assert_not_null(strstr(base_status_text(&status), "/d/b"));
    base_status_free(&status);
    cr_assert_eq(base_status_drop(ch_file_open(
                     env, "/d/a", CH_FILE_WRITE | CH_FILE_CREATE | CH_FILE_EXCLUSIVE, &file)),
                 BASE_ALREADY_EXISTS);
    cr_assert_eq(
        base_status_drop(ch_file_open(env, "/no/a", CH_FILE_WRITE | CH_FILE_CREATE, &file)),
        BASE_NOT_FOUND);
    cr_assert_neq(base_status_drop(ch_file_remove(env, "/d")), BASE_OK); /* not empty */
    cr_assert_eq(base_status_drop(ch_dir_list(env, "/none", &arena, &names, &count)),
                 BASE_NOT_FOUND);
    base_buf_free(&all);
    base_arena_free(&arena);
}

Test(sim_disk, files_and_directories_do_what_real_ones_do)
{
    struct bed bed = bed_new(1);
    run(&bed, basics);
    cr_assert_eq(ch_sim_disk_used(bed.node), 0u); /* what was removed takes no room */
    ch_sim_free(bed.sim);
}

static void fill(struct bed *bed) CH_WAITS;
static void fill(struct bed *bed)
{
    struct ch_file *file = open_new(bed, "/big");
    struct base_bytes data = { (const uint8_t[4096]){ 1 }, 4096 };
    uint64_t total, available;
    while (bed->code == BASE_OK) {
        bed->code = base_status_drop(ch_file_write(file, 4096 * bed->count, &data, 1, true));
        bed->count += bed->code == BASE_OK;
    }
    MUST(ch_disk_space(bed->env, "/", &total, &available));
    cr_assert(total == 50000 && available == 0);
    MUST(ch_file_write(file, 0, &data, 1, true)); /* what is there can be written over */
    MUST(ch_file_truncate(file, 0));
    MUST(ch_file_write(file, 0, &data, 1, true));
    ch_file_close(file);
}

Test(sim_disk, a_full_disk_says_so_and_takes_writes_again_when_there_is_room)
{
    struct bed bed = bed_new(1);
    ch_sim_disk_limit(bed.node, 50000);
    run(&bed, fill);
    cr_assert_eq(bed.code, BASE_RESOURCE_EXHAUSTED);
    cr_assert_eq(bed.count, 12u);
    ch_sim_free(bed.sim);
}

static void failed_sync(struct bed *bed) CH_WAITS;
static void failed_sync(struct bed *bed)
{
    uint8_t data[SECTOR];
    size_t got;
    struct ch_file *file = open_new(bed, "/log");
    MUST(ch_dir_sync(bed->env, "/"));
    put(file, 0, 'p', SECTOR, false);
    ch_sim_disk_fail_sync(bed->node, true);
    cr_assert_eq(base_status_drop(ch_file_sync(file)), BASE_INTERNAL);
    ch_sim_disk_fail_sync(bed->node, false);
    MUST(ch_file_sync(file)); /* "success": of nothing */
    MUST(ch_file_read(file, 0, data, sizeof(data), &got));
    cr_assert(got == SECTOR &&
              data[0] == 'p'); /* the page cache shows what the disk may not have */
    ch_file_close(file);
}

/* The trap known from PostgreSQL's fsync reports: a sync after a failed one succeeds, and the bytes
 * are gone at the next crash. */
Test(sim_disk, after_a_failed_sync_a_later_one_that_succeeds_proves_nothing)
{
    size_t lost = 0;
    struct base_buf left = { 0 };
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct bed bed = bed_new(seed);
        run(&bed, failed_sync);
        ch_sim_crash(bed.node);
        cr_assert(peek(&bed, "/log", &left));
        lost += left.len == 0;
        ch_sim_free(bed.sim);
    }
    cr_assert(lost > 0 && lost < 40, "%zu", lost);
    base_buf_free(&left);
}

static void locker(struct bed *bed) CH_WAITS;
static void locker(struct bed *bed)
{
    struct ch_file *first = open_new(bed, "/LOCK"), *second = open_new(bed, "/LOCK");
    MUST(ch_file_lock(first));
    cr_assert_eq(base_status_drop(ch_file_lock(second)), BASE_FAILED_PRECONDITION);
    ch_file_close(first);
    MUST(ch_file_lock(second));
    bed->count++;
    if (bed->arg)
        (void)ch_sleep_until(bed->env, ch_in(bed->env, CH_S)); /* dies or ends with the lock */
    ch_file_close(second);
}

Test(sim_disk, a_lock_keeps_others_out_until_it_is_closed_or_its_holder_dies)
{
    struct bed bed = bed_new(1);
    bed.arg = 1;
    for (size_t round = 1; round < 5; round++) {
        start(&bed, locker);
        ch_sim_run(bed.sim, NULL, NULL, ch_sim_now(bed.sim) + 100 * CH_MS);
        cr_assert_eq(bed.count, round);
        ch_sim_crash(bed.node);
    }
    ch_sim_free(bed.sim);
}

Test(sim_disk, flipped_bits_stay_and_a_lost_disk_is_empty)
{
    struct bed bed = bed_new(1);
    struct base_buf left = { 0 };
    bed.arg = 99;
    run(&bed, replace_file);
    ch_sim_disk_flip(bed.node, "/conf", 0, 1);
    ch_sim_crash(bed.node);
    cr_assert(peek(&bed, "/conf", &left));
    cr_assert(is_text(&left, "wersion 099"));
    ch_sim_disk_lose(bed.node);
    cr_assert_not(peek(&bed, "/conf", &left));
    cr_assert_eq(ch_sim_disk_used(bed.node), 0u);
    bed.arg = 99;
    run(&bed, replace_file);
    cr_assert(peek(&bed, "/conf", &left));
    ch_sim_free(bed.sim);
    base_buf_free(&left);
}
