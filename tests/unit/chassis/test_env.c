/* The real env: posts from other threads all arrive, timers are precise, files do what they say and
 * name the culprit. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env_int.h"
#include "test.h"

enum { POSTERS = 3, POSTS_EACH = 20000 };

struct poster {
    struct ch_env *env;
    struct ch_post *posts;
    pthread_t thread;
};
struct counted_post {
    struct ch_post post;
    size_t *arrived;
};

static void arrived(struct ch_post *post)
{
    ++*((struct counted_post *)post)->arrived;
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;
    struct counted_post *posts = (struct counted_post *)poster->posts;
    for (int i = 0; i < POSTS_EACH; i++)
        ch_env_post(poster->env, &posts[i].post);
    return NULL;
}

static int posts_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    size_t count = 0;
    struct poster posters[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        struct counted_post *posts = calloc(POSTS_EACH, sizeof(*posts));
        for (int j = 0; j < POSTS_EACH; j++)
            posts[j] = (struct counted_post){ .post.fn = arrived, .arrived = &count };
        posters[i] = (struct poster){ .env = env, .posts = &posts->post };
        pthread_create(&posters[i].thread, NULL, post_all, &posters[i]);
    }
    while (count < (size_t)POSTERS * POSTS_EACH)
        (void)ch_sleep_until(env, ch_in(env, CH_MS));
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(posters[i].thread, NULL);
        free(posters[i].posts);
    }
    return (int)(count / 1000);
}

Test(env, every_post_from_other_threads_arrives)
{
    cr_assert_eq(ch_env_run(posts_main, NULL), POSTERS * POSTS_EACH / 1000);
}

static int files_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    const char *dir = arg;
    struct base_arena arena = { 0 };
    struct base_buf back = { 0 };
    struct ch_file *file, *again;
    char **names;
    size_t count, got;
    uint8_t data[16];
    cr_assert_eq(base_status_drop(ch_dir_make(env, base_arena_printf(&arena, "%s/a/b", dir))),
                 BASE_OK);
    const char *path = base_arena_printf(&arena, "%s/a/b/f", dir);
    cr_assert_eq(base_status_drop(ch_file_open(env, path, CH_FILE_READ, &file)), BASE_NOT_FOUND);
    cr_assert_eq(base_status_drop(
                     ch_file_open(env, path, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE, &file)),
                 BASE_OK);
    cr_assert_eq(base_status_drop(ch_file_lock(file)), BASE_OK);
    cr_assert_eq(base_status_drop(ch_file_open(env, path, CH_FILE_READ, &again)), BASE_OK);
    cr_assert_eq(base_status_drop(ch_file_lock(again)), BASE_FAILED_PRECONDITION);
    ch_file_close(again);
    struct base_bytes parts[] = { BASE_BYTES_LIT("hello"), BASE_BYTES_EMPTY,
                                  BASE_BYTES_LIT(" world") };
    cr_assert_eq(base_status_drop(ch_file_write(file, 3, parts, 3, true)), BASE_OK);
    cr_assert_eq(base_status_drop(ch_file_read(file, 3, data, 16, &got)), BASE_OK);
    cr_assert_eq(got, 11u);
    cr_assert_arr_eq(data, "hello world", 11);
    cr_assert_eq(base_status_drop(ch_file_allocate(file, 4096, 100000)), BASE_OK);
    uint64_t size;
    cr_assert_eq(base_status_drop(ch_file_size(file, &size)), BASE_OK);
    cr_assert_eq(size, 104096u);
    ch_file_close(file);
    path = base_arena_printf(&arena, "%s/a/whole", dir);
    cr_assert_eq(base_status_drop(ch_file_write_all(env, path, BASE_BYTES_LIT("x\0y"))), BASE_OK);
    cr_assert_eq(base_status_drop(ch_file_read_all(env, path, 10, &back)), BASE_OK);
    cr_assert(base_bytes_eq(base_buf_bytes(&back), BASE_BYTES_LIT("x\0y")));
    cr_assert_eq(base_status_drop(ch_file_read_all(env, path, 2, &back)), BASE_RESOURCE_EXHAUSTED);
    cr_assert_eq(base_status_drop(ch_dir_list(env, base_arena_printf(&arena, "%s/a", dir), &arena,
                                              &names, &count)),
                 BASE_OK);
    cr_assert_eq(count, 2u);
    cr_assert_str_eq(names[0], "b");
    cr_assert_str_eq(names[1], "whole");
    struct base_status status = ch_file_remove(env, base_arena_printf(&arena, "%s/nothing", dir));
    cr_assert_eq(status.code, BASE_NOT_FOUND);
    cr_assert_not_null(strstr(base_status_text(&status), "/nothing"), "the culprit is named");
    base_status_free(&status);
    base_buf_free(&back);
    base_arena_free(&arena);
    return 0;
}

Test(env, files_read_back_lock_list_and_name_the_culprit)
{
    char dir[] = "/tmp/strata-test-XXXXXX", command[64];
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(ch_env_run(files_main, dir), 0);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

enum { LINES = 20000, LINE = 40 };

/* Another process appends numbered lines, as fast as it can. */
static void append_lines(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND);
    char line[LINE + 1];
    for (int i = 0; i < LINES; i++) {
        snprintf(line, sizeof(line), "%*d\n", LINE - 1, i);
        if (write(fd, line, LINE) != LINE)
            _exit(1);
    }
    _exit(0);
}

static int cut_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    const char *path = arg;
    struct base_buf whole = { 0 };
    struct ch_file *file;
    size_t cuts = 0, got;
    int ended = 0;
    cr_assert_eq(base_status_drop(
                     ch_file_open(env, path, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE, &file)),
                 BASE_OK);
    pid_t child = fork();
    if (child == 0)
        append_lines(path);
    while (waitpid(child, &ended, WNOHANG) == 0) {
        uint64_t size = 0;
        cr_assert_eq(base_status_drop(ch_file_size(file, &size)), BASE_OK);
        if (size <= CH_FILE_CUT_UNIT)
            continue;
        cr_assert_eq(
            base_status_drop(ch_file_read(file, 0, base_buf_extend(&whole, CH_FILE_CUT_UNIT),
                                          CH_FILE_CUT_UNIT, &got)),
            BASE_OK);
        struct base_status status = ch_file_cut_front(file, CH_FILE_CUT_UNIT);
        cr_assert(!base_failed(status), "%s: is $TMPDIR on a file system that cannot?",
                  base_status_text(&status));
        cuts++;
    }
    cr_assert(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    for (got = 1; got > 0;) {
        size_t before = whole.len;
        uint8_t *into = base_buf_extend(&whole, 65536);
        cr_assert_eq(base_status_drop(
                         ch_file_read(file, before - cuts * CH_FILE_CUT_UNIT, into, 65536, &got)),
                     BASE_OK);
        whole.len = before + got;
    }
    ch_file_close(file);
    cr_assert_eq(whole.len, (size_t)LINES * LINE);
    base_buf_put_u8(&whole, 0);
    for (int i = 0; i < LINES; i++)
        cr_assert_eq(atoi((char *)whole.data + (size_t)i * LINE), i);
    cr_assert_gt(cuts, 0u);
    base_buf_free(&whole);
    return 0;
}

/* A log is cut at its front while its process writes on: every line is in what was taken away or
 * in what is left, once, in order. */
Test(env, the_front_is_cut_off_while_another_appends)
{
    char dir[] = "/tmp/strata-test-XXXXXX", path[64], command[64];
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/log", dir);
    cr_assert_eq(ch_env_run(cut_main, path), 0);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

static int signal_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    kill(getpid(), SIGTERM);
    return ch_sleep_until(env, CH_NEVER) == CH_CANCELLED ? 7 : 1;
}

Test(env, sigterm_cancels_the_main_fiber)
{
    cr_assert_eq(ch_env_run(signal_main, NULL), 7);
}

static void wait_a_little(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = ch_fiber_env();
    for (int i = 0; i < 20; i++)
        if (ch_sleep_until(env, ch_in(env, 300 * CH_US)) != CH_TIMEOUT)
            abort();
    ++*(int *)arg;
}

static int timers_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    int ended = 0;
    struct ch_gather g;
    ch_gather_init(&g, "timers");
    for (int i = 0; i < 50; i++)
        ch_gather_add(&g, wait_a_little, &ended);
    ch_gather_wait(&g);
    return ended;
}

Test(env, many_short_timers_all_end)
{
    cr_assert_eq(ch_env_run(timers_main, NULL), 50);
}
