/* A member's store on a local disk that is damaged after it was written: a flipped bit, a file
 * gone, cut or from elsewhere is reported and left alone; what is set aside takes the id along. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/sim.h"
#include "segment.h"
#include "store_model.h"
#include "test.h"

#define DIR "data/log"

static struct ch_sim *sim;
static struct ch_sim_node *node;

/* What is to be done on the node by a fiber there, and how it ended. */
static struct task {
    void (*run)(struct ch_env *env);
    bool done;
} task;

/* ---- doing things on the node ---- */

static int task_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    task.run(env);
    task.done = true;
    return 0;
}

static void on_node(void (*run)(struct ch_env *env))
{
    task = (struct task){ run, false };
    ch_sim_start(node, task_main, NULL);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 60 * CH_S);
    cr_assert(task.done && !ch_sim_running(node));
}

static void must(struct base_status status)
{
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
}

/* ---- a store with entries 1 to ENTRIES, a vote, and a snapshot ---- */

enum { ENTRIES = 1500, SNAPSHOT = 400, TERM = 4 };
static uint64_t member;

static void entries_write(const struct con_store *store, uint64_t first, uint64_t count)
{
    struct con_entry entries[10];
    struct base_buf data[10] = { 0 };
    struct con_store_write write = { .entries = entries, .entry_count = count };

    write.save_vote = first == 1;
    write.term = TERM;
    write.vote = 7;
    for (uint64_t i = 0; i < count; i++) {
        store_entry_data(first + i, TERM, &data[i]);
        entries[i] = (struct con_entry){ first + i, TERM, (enum con_entry_kind)((first + i) % 3),
                                         base_buf_bytes(&data[i]) };
    }
    must(store->write(store->self, &write));
    for (uint64_t i = 0; i < count; i++)
        base_buf_free(&data[i]);
}

static void fill(struct ch_env *env)
{
    static struct store_found found;
    struct con_store_visitor visitor = store_found_visitor(&found);
    struct con_store store;
    struct con_config config;
    struct base_buf state = { 0 };

    must(con_store_local_open(env, DIR, &store));
    must(store.load(store.self, &visitor));
    cr_assert(found.first == 0 && found.term == 0 && found.snapshot_index == 0);
    member = store.member;
    for (uint64_t i = 1; i <= ENTRIES; i += 10) {
        entries_write(&store, i, 10);
        if (i + 9 == SNAPSHOT) {
            store_snapshot_config(SNAPSHOT, TERM, &config);
            store_snapshot_state(SNAPSHOT, TERM, &state);
            must(store.snapshot_save(store.self, SNAPSHOT, TERM, &config, base_buf_bytes(&state),
                                     SNAPSHOT - 50));
            base_buf_free(&state);
        }
    }
    store.close(store.self);
}

/* Opens and loads; what came of it. */
static struct {
    struct base_status status;
    struct store_found found;
    uint64_t member;
} opened;

static void open_it(struct ch_env *env)
{
    struct con_store_visitor visitor = store_found_visitor(&opened.found);
    struct con_store store;

    base_status_free(&opened.status);
    opened.member = 0;
    opened.status = con_store_local_open(env, DIR, &store);
    if (base_failed(opened.status))
        return;
    opened.member = store.member;
    opened.status = store.load(store.self, &visitor);
    store.close(store.self);
}

static bool all_there(void)
{
    return !base_failed(opened.status) && opened.member == member && !opened.found.wrong &&
           opened.found.snapshot_index == SNAPSHOT && opened.found.first == SNAPSHOT + 1 &&
           opened.found.last == ENTRIES && opened.found.term == TERM && opened.found.vote == 7;
}

static bool new_and_empty(void)
{
    return !base_failed(opened.status) && opened.member != 0 && opened.member != member &&
           opened.found.snapshot_index == 0 && opened.found.first == 0 && opened.found.term == 0;
}

static void begin(uint64_t seed)
{
    sim = ch_sim_new(seed);
    node = ch_sim_node(sim, "log", "10.0.0.1");
    on_node(fill);
}

static void end(void)
{
    ch_sim_free(sim);
    base_status_free(&opened.status);
}

/* ---- looking at the disk from outside ---- */

enum { FILES_MAX = 32 };
static struct file {
    char path[100];
    struct base_buf bytes;
} files[FILES_MAX];
static size_t file_count;

static void files_list(struct ch_env *env)
{
    struct base_arena arena;
    char **names;
    size_t count;

    base_arena_init(&arena);
    must(ch_dir_list(env, DIR, &arena, &names, &count));
    file_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], "LOCK") == 0 || strncmp(names[i], "damaged-", 8) == 0)
            continue;
        cr_assert(file_count < FILES_MAX);
        snprintf(files[file_count++].path, sizeof(files[0].path), DIR "/%s", names[i]);
    }
    base_arena_free(&arena);
}

static void files_take(void)
{
    on_node(files_list);
    for (size_t i = 0; i < file_count; i++) {
        base_buf_clear(&files[i].bytes);
        cr_assert(ch_sim_disk_peek(node, files[i].path, &files[i].bytes));
    }
}

static bool files_same(void)
{
    struct base_buf now = { 0 };
    bool same = true;

    for (size_t i = 0; i < file_count && same; i++) {
        base_buf_clear(&now);
        same = ch_sim_disk_peek(node, files[i].path, &now) &&
               base_bytes_eq(base_buf_bytes(&now), base_buf_bytes(&files[i].bytes));
    }
    base_buf_free(&now);
    return same;
}

static void files_free(void)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        base_buf_free(&files[i].bytes);
}

/* Bytes of the file that were written: the log's zeros after its end do not count. */
static size_t used(const struct file *file)
{
    size_t len = file->bytes.len;

    if (!strstr(file->path, "/segment-"))
        return len;
    while (len > 0 && file->bytes.data[len - 1] == 0)
        len--;
    return len;
}

static const char *victim;
static void victim_remove(struct ch_env *env)
{
    must(ch_file_remove(env, victim));
}

static void refused(const char *what)
{
    on_node(open_it);
    cr_assert_eq(opened.status.code, BASE_DATA_LOSS, "%s: %s", what,
                 base_status_text(&opened.status));
}

/* ---- tests ---- */

Test(sim_store_damage, nothing_is_wrong_with_it_before)
{
    /* The store the others damage is whole, spread over several segments, and opening it twice
     * changes nothing. */
    begin(1);
    files_take();
    cr_assert(file_count >= 4, "%zu files", file_count);
    for (int i = 0; i < 2; i++) {
        on_node(open_it);
        cr_assert(all_there(), "%s", base_status_text(&opened.status));
        cr_assert(files_same());
    }
    files_free();
    end();
}

Test(sim_store_damage, a_flipped_bit_is_data_loss)
{
    /* A bit that flips anywhere in what was acknowledged (id, log, snapshot) makes the opening fail
     * with a text that names the file. Nothing is cut off, mended or overwritten: the evidence
     * stays, and a member whose log is not whole takes no part. */
    begin(2);
    files_take();
    for (int i = 0; i < 400; i++) {
        struct file *file = &files[ch_sim_random(sim) % file_count];
        size_t at;
        uint8_t mask = (uint8_t)(1u << ch_sim_random(sim) % 8);

        if (used(file) == 0)
            continue; /* a segment not yet in use */
        at = ch_sim_random(sim) % used(file);
        ch_sim_disk_flip(node, file->path, at, mask);
        file->bytes.data[at] ^= mask;
        refused(file->path);
        cr_assert(strstr(base_status_text(&opened.status), file->path) != NULL,
                  "byte %zu of %s: %s", at, file->path, base_status_text(&opened.status));
        cr_assert(files_same(), "byte %zu of %s: the opening changed a file", at, file->path);
        ch_sim_disk_flip(node, file->path, at, mask);
        file->bytes.data[at] ^= mask;
    }
    on_node(open_it);
    cr_assert(all_there(), "%s", base_status_text(&opened.status));
    files_free();
    end();
}

Test(sim_store_damage, a_missing_file_is_data_loss)
{
    /* A file that is gone (id, a segment with entries that the snapshot does not cover, the
     * snapshot) is damage too. Only an unused segment at the end is nobody's loss. */
    size_t tried = 0;

    for (size_t which = 0;; which++) {
        begin(3);
        files_take();
        if (which == file_count) {
            end();
            break;
        }
        victim = files[which].path;
        on_node(victim_remove);
        on_node(open_it);
        if (used(&files[which]) == 0) {
            cr_assert(all_there(), "%s: %s", victim, base_status_text(&opened.status));
        } else if (which + 1 < file_count && strstr(victim, "/segment-") &&
                   !strstr(files[which + 1].path, "/snapshot-") && used(&files[which + 1]) > 0) {
            /* Entries up to the snapshot may go with the first segments. */
            cr_assert(all_there() || opened.status.code == BASE_DATA_LOSS);
            tried++;
        } else if (!strstr(victim, "/segment-")) {
            cr_assert(opened.status.code == BASE_DATA_LOSS, "%s: %s", victim,
                      base_status_text(&opened.status));
            tried++;
        }
        end();
    }
    cr_assert(tried >= 4);
    files_free();
}

static uint64_t cut_to;
static void victim_cut(struct ch_env *env)
{
    struct ch_file *file;

    must(ch_file_open(env, victim, CH_FILE_READ | CH_FILE_WRITE, &file));
    must(ch_file_truncate(file, cut_to));
    must(ch_file_sync(file));
    ch_file_close(file);
}

Test(sim_store_damage, a_file_cut_short_is_data_loss)
{
    /* Files have their length from the start: a shorter one was cut by something else. */
    file_count = 1;
    for (size_t which = 0; which < file_count; which++) {
        begin(4);
        files_take();
        for (size_t cut = 3; cut-- > 0 && used(&files[which]) > 0;) {
            victim = files[which].path;
            cut_to = cut == 0 ? 0 : files[which].bytes.len - cut;
            on_node(victim_cut);
            refused(victim);
        }
        end();
    }
    files_free();
}

static const char *from;
static void victim_replace(struct ch_env *env)
{
    struct base_buf bytes = { 0 };

    must(ch_file_read_all(env, from, SIZE_MAX, &bytes));
    must(ch_file_write_all(env, victim, base_buf_bytes(&bytes)));
    base_buf_free(&bytes);
}

Test(sim_store_damage, a_file_from_elsewhere_is_data_loss)
{
    /* A whole and sound file in the wrong place (an older segment's, another member's) is not part
     * of this log. */
    struct base_buf other = { 0 };

    begin(5);
    files_take();
    cr_assert(strstr(files[1].path, "/segment-") && strstr(files[2].path, "/segment-"));
    from = files[1].path;
    victim = files[2].path;
    on_node(victim_replace);
    refused("the segment before");
    base_buf_put_bytes(&other, base_buf_bytes(&files[2].bytes));
    end();

    begin(6); /* another member of the same history */
    files_take();
    cr_assert_eq(files[2].bytes.len, other.len);
    for (size_t at = 0; at < other.len; at++)
        if (files[2].bytes.data[at] != other.data[at])
            ch_sim_disk_flip(node, files[2].path, at,
                             (uint8_t)(files[2].bytes.data[at] ^ other.data[at]));
    refused("another member's segment");
    cr_assert(strstr(base_status_text(&opened.status), "another member"), "%s",
              base_status_text(&opened.status));
    end();
    base_buf_free(&other);
    files_free();
}

static void old_format_make(struct ch_env *env)
{
    must(ch_dir_make(env, DIR));
    must(ch_file_write_all(env, DIR "/journal-00000000000000000001",
                           base_bytes_str("as an earlier version wrote it")));
}

Test(sim_store_damage, an_earlier_format_is_refused)
{
    /* A folder with a log in the format of before groups is neither read nor overwritten. */
    struct base_buf left = { 0 };

    sim = ch_sim_new(7);
    node = ch_sim_node(sim, "log", "10.0.0.1");
    on_node(old_format_make);
    on_node(open_it);
    cr_assert(opened.status.code == BASE_FAILED_PRECONDITION &&
                  strstr(base_status_text(&opened.status), "earlier version"),
              "%s", base_status_text(&opened.status));
    cr_assert(ch_sim_disk_peek(node, DIR "/journal-00000000000000000001", &left) && left.len > 10);
    cr_assert(!ch_sim_disk_peek(node, DIR "/ID", &left));
    base_buf_free(&left);
    end();
}

static void two_openers(struct ch_env *env)
{
    struct con_store first, second;
    struct base_status status;

    must(con_store_local_open(env, DIR, &first));
    status = con_store_local_open(env, DIR, &second);
    cr_assert_eq(status.code, BASE_FAILED_PRECONDITION, "%s", base_status_text(&status));
    base_status_free(&status);
    status = con_store_local_set_aside(env, DIR);
    cr_assert_eq(status.code, BASE_FAILED_PRECONDITION, "%s", base_status_text(&status));
    base_status_free(&status);
    first.close(first.self);
}

Test(sim_store_damage, one_opener_at_a_time)
{
    /* Two writers would tear the log: the second opener of a folder is refused while the first
     * has it, and nobody sets aside what is in use. */
    begin(8);
    on_node(two_openers);
    on_node(open_it);
    cr_assert(all_there());
    end();
}

/* ---- setting aside ---- */

static void set_aside(struct ch_env *env)
{
    must(con_store_local_set_aside(env, DIR));
}

Test(sim_store_damage, set_aside_keeps_the_evidence_and_begins_anew)
{
    /* What is damaged is moved as it is, for a person to look at; the folder then makes a new
     * member with a new id, and that may happen more than once. */
    static const char *const places[] = { DIR "/damaged-1/", DIR "/damaged-2/" };

    begin(9);
    for (int i = 0; i < 2; i++) {
        struct base_buf moved = { 0 };

        files_take();
        ch_sim_disk_flip(node, DIR "/ID", 9, 1);
        refused("ID");
        on_node(set_aside);
        for (size_t f = 0; f < file_count; f++) {
            char path[200];

            snprintf(path, sizeof(path), "%s%s", places[i], strrchr(files[f].path, '/') + 1);
            base_buf_clear(&moved);
            cr_assert(ch_sim_disk_peek(node, path, &moved) && moved.len == files[f].bytes.len, "%s",
                      path);
        }
        base_buf_free(&moved);
        on_node(open_it);
        cr_assert(new_and_empty(), "%s", base_status_text(&opened.status));
        member = opened.member;
    }
    files_free();
    end();
}

static void set_aside_quietly(struct ch_env *env)
{
    base_status_drop(con_store_local_set_aside(env, DIR));
}

static bool counted_down(void *arg)
{
    return --*(int64_t *)arg <= 0;
}

Test(sim_store_damage, a_crash_while_setting_aside)
{
    /* Wherever the power goes, the next opening finds all of it, or a new member, or says that it
     * is damaged (then it is set aside again): never the old id with less than it promised, for it
     * would vote on what it does not remember. */
    size_t whole = 0, damaged = 0, anew = 0;

    for (int64_t step = 1; step < 120; step++) {
        int64_t left = step;

        begin(1000 + (uint64_t)step);
        task = (struct task){ set_aside_quietly, false };
        ch_sim_start(node, task_main, NULL);
        (void)ch_sim_run(sim, counted_down, &left, ch_sim_now(sim) + CH_S);
        if (ch_sim_running(node))
            ch_sim_crash(node);
        on_node(open_it);
        whole += all_there();
        damaged += opened.status.code == BASE_DATA_LOSS;
        anew += new_and_empty();
        cr_assert(all_there() || new_and_empty() || opened.status.code == BASE_DATA_LOSS,
                  "step %" PRId64 ": %s, member %" PRIx64 " was %" PRIx64 ", entries to %" PRIu64,
                  step, base_status_text(&opened.status), opened.member, member, opened.found.last);
        end();
    }
    cr_assert(whole > 0 && damaged > 0 && anew > 0, "%zu whole, %zu damaged, %zu anew", whole,
              damaged, anew);
}
