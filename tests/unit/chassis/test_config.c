/* Configuration: values come from defaults, file and flags in that order, and every mistake is
 * named with its place. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config_int.h"
#include "test.h"

struct demo {
    char *name;
    int64_t count;
    bool on;
    uint64_t size;
    ch_time wait;
    char *must;
};
static const struct ch_config_key keys[] = {
    CH_CONFIG(demo, name, "name", CH_CONFIG_STRING, "nobody", "a name"),
    { "count", CH_CONFIG_INT, offsetof(struct demo, count), "3", "how many", 1, 10 },
    CH_CONFIG(demo, on, "on", CH_CONFIG_BOOL, "false", "whether"),
    CH_CONFIG_LIVE(demo, size, "size", CH_CONFIG_SIZE, "64KiB", "how large"),
    { "wait", CH_CONFIG_DURATION, offsetof(struct demo, wait), "250ms", "how long", 1, 10 * CH_S,
      true },
};
static const struct ch_config_key must_keys[] = { CH_CONFIG(demo, must, "must", CH_CONFIG_STRING,
                                                            NULL, "what has no default") };
static const struct ch_config_table tables[] = { { keys, 5 }, { must_keys, 1 } };

static struct demo demo;
static struct base_arena arena;
static char file_path[] = "/tmp/test_config_XXXXXX";

static struct base_status parse_n(size_t table_count, int argc, char **argv)
{
    void *configs[] = { &demo, &demo };
    memset(&demo, 0, sizeof(demo));
    return ch_config_parse(tables, table_count, configs, argc, argv, &arena);
}
#define PARSE(...)                                                                \
    parse_n(1, (int)(sizeof((char *[]){ "demo", __VA_ARGS__ }) / sizeof(char *)), \
            (char *[]){ "demo", __VA_ARGS__ })

static void must_fail(struct base_status status, const char *text)
{
    cr_assert_eq(status.code, BASE_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(base_status_text(&status), text), "\"%s\" is not in \"%s\"", text,
                       base_status_text(&status));
    base_status_free(&status);
}

static const char *file_of(const char *text)
{
    strcpy(file_path, "/tmp/test_config_XXXXXX");
    int fd = mkstemp(file_path);
    FILE *file = fdopen(fd, "w");
    fputs(text, file);
    fclose(file);
    static char flag[64];
    snprintf(flag, sizeof(flag), "--config=%s", file_path);
    return flag;
}

static void cleanup(void)
{
    unlink(file_path);
    base_arena_free(&arena);
}

Test(config, defaults_have_their_types, .fini = cleanup)
{
    cr_assert(!base_failed(parse_n(1, 1, (char *[]){ "demo" })));
    cr_assert_str_eq(demo.name, "nobody");
    cr_assert_eq(demo.count, 3);
    cr_assert_eq(demo.on, false);
    cr_assert_eq(demo.size, 65536);
    cr_assert_eq(demo.wait, 250 * CH_MS);
}

Test(config, flags_come_with_equals_or_apart_and_a_lone_boolean_is_true, .fini = cleanup)
{
    cr_assert(
        !base_failed(PARSE("--name=a=b", "--count", "7", "--on", "--size", "8MiB", "--wait=3s")));
    cr_assert_str_eq(demo.name, "a=b");
    cr_assert_eq(demo.count, 7);
    cr_assert(demo.on);
    cr_assert_eq(demo.size, 8 << 20);
    cr_assert_eq(demo.wait, 3 * CH_S);
    cr_assert(!base_failed(PARSE("--on", "false", "--name=")));
    cr_assert(!demo.on);
    cr_assert_str_eq(demo.name, "");
}

Test(config, flags_win_over_the_file_wherever_they_stand, .fini = cleanup)
{
    char *flag = (char *)file_of("# a comment\nname: from-file\ncount: 5\nwait: 2s\non: true\n");
    cr_assert(!base_failed(PARSE("--count=9", flag)));
    cr_assert_str_eq(demo.name, "from-file");
    cr_assert_eq(demo.count, 9);
    cr_assert_eq(demo.wait, 2 * CH_S);
    cr_assert(demo.on);
}

Test(config, an_empty_file_is_fine, .fini = cleanup)
{
    cr_assert(!base_failed(PARSE((char *)file_of(""))));
    cr_assert(!base_failed(PARSE((char *)file_of("# nothing\n"))));
    cr_assert_eq(demo.count, 3);
}

Test(config, a_mistake_in_a_flag_is_named, .fini = cleanup)
{
    must_fail(PARSE("--nmae=x"), "there is no key \"nmae\"");
    must_fail(PARSE("name=x"), "\"name=x\" is no flag");
    must_fail(PARSE("--name"), "--name has no value");
    must_fail(PARSE("--count=many"), "--count: count is \"many\", must be a whole number");
    must_fail(PARSE("--count=11"), "must be 1 to 10");
    must_fail(PARSE("--size=3kb"), "--size: size is \"3kb\", must be a size");
    must_fail(PARSE("--size=-1"), "must be a size");
    must_fail(PARSE("--size=99999999TiB"), "must be a size");
    must_fail(PARSE("--wait=5"), "must be a duration");
    must_fail(PARSE("--wait=1h"), "must be 1ns to 10s");
    must_fail(PARSE("--on=yes"), "must be true or false");
    must_fail(PARSE("--config=/nowhere/at/all"), "/nowhere/at/all");
}

Test(config, a_mistake_in_the_file_is_named_with_its_line, .fini = cleanup)
{
    char *flag = (char *)file_of("name: x\ncuont: 5\n");
    must_fail(PARSE(flag), "line 2: there is no key \"cuont\"");
    unlink(file_path);
    flag = (char *)file_of("count: 5\n\ncount: 6\n");
    must_fail(PARSE(flag), "line 3: count is given twice");
    unlink(file_path);
    flag = (char *)file_of("count: [1, 2]\n");
    must_fail(PARSE(flag), "line 1: expected \"key: value\"");
    unlink(file_path);
    flag = (char *)file_of("- a\n- b\n");
    must_fail(PARSE(flag), "expected \"key: value\" lines");
    unlink(file_path);
    flag = (char *)file_of("name: \"open\n");
    must_fail(PARSE(flag), "line");
    unlink(file_path);
    flag = (char *)file_of("size: large\n");
    must_fail(PARSE(flag), "line 1: size is \"large\"");
}

Test(config, what_has_no_default_must_be_given, .fini = cleanup)
{
    must_fail(parse_n(2, 1, (char *[]){ "demo" }), "--must must be given: what has no default");
    cr_assert(!base_failed(parse_n(2, 2, (char *[]){ "demo", "--must=x" })));
    char *flag = (char *)file_of("must: y\n");
    cr_assert(!base_failed(parse_n(2, 2, (char *[]){ "demo", flag })));
    cr_assert_str_eq(demo.must, "y");
}

Test(config, what_is_shown_can_be_read_back, .fini = cleanup)
{
    /* /configz prints the form of the file: feeding it back must give the same values. */
    void *configs[] = { &demo };
    struct base_buf shown = { 0 };
    uint8_t from[5] = { CH__FROM_FLAG, CH__FROM_FILE };
    struct ch__config_origin origin = { from, NULL };
    cr_assert(
        !base_failed(PARSE("--name=x", "--count=2", "--on", "--size=1536KiB", "--wait=1500ms")));
    ch__config_show(tables, 1, configs, &origin, &shown);
    base_buf_put_u8(&shown, 0);
    char *flag = (char *)file_of((char *)shown.data);
    struct demo before = demo;
    cr_assert(!base_failed(PARSE(flag)));
    cr_assert_str_eq(demo.name, "x");
    cr_assert_eq(demo.count, before.count);
    cr_assert_eq(demo.on, before.on);
    cr_assert_eq(demo.size, before.size);
    cr_assert_eq(demo.wait, before.wait);
    cr_assert_not_null(strstr((char *)shown.data, "name: x   # flag: a name\n"));
    cr_assert_not_null(strstr((char *)shown.data, "count: 2   # file: how many\n"));
    cr_assert_not_null(strstr((char *)shown.data, "size: 1536KiB   # default, live: how large"));
    base_buf_free(&shown);
}

Test(config, help_shows_every_key_with_default_and_range)
{
    struct base_buf text = { 0 };
    ch_config_help(tables, 2, "demo", "shows", &text);
    base_buf_put_u8(&text, 0);
    const char *help = (char *)text.data;
    cr_assert_not_null(strstr(help, "--wait=DURATION\n      how long (1ns to 10s) [250ms]"), "%s",
                       help);
    cr_assert_not_null(strstr(help, "--must=TEXT\n      what has no default [must be given]"), "%s",
                       help);
    base_buf_free(&text);
}

/* ---- live ---- */

static struct {
    char log[256];
    bool refuse;
} told;

static struct base_status on_changed(void *self, const struct ch_config_key *key)
{
    if (told.refuse)
        return base_status_make(BASE_INVALID_ARGUMENT, "not now");
    strncat(told.log, key->name, sizeof(told.log) - strlen(told.log) - 2);
    strcat(told.log, " ");
    return BASE_STATUS_OK;
}

static void on_skipped(void *self, const struct ch_config_key *key)
{
    strncat(told.log, "!", sizeof(told.log) - strlen(told.log) - 1);
    strncat(told.log, key->name, sizeof(told.log) - strlen(told.log) - 2);
    strcat(told.log, " ");
}

static void *live_configs[] = { &demo };
static const size_t live_sizes[] = { sizeof(struct demo) };

static struct ch__config_live live_of(int argc, char **argv)
{
    struct ch__config_live live = { .tables = tables,
                                    .table_count = 1,
                                    .configs = live_configs,
                                    .sizes = live_sizes,
                                    .arena = &arena,
                                    .argc = argc,
                                    .argv = argv,
                                    .changed = on_changed };
    memset(&demo, 0, sizeof(demo));
    memset(&told, 0, sizeof(told));
    cr_assert(
        !base_failed(ch__config_parse(tables, 1, live_configs, argc, argv, &arena, &live.origin)));
    return live;
}

Test(config, live_keys_change_and_others_do_not, .fini = cleanup)
{
    /* A change is whole or not at all: what is unknown, not live, unreadable, out of range or
     * refused leaves every field as it was, and says why. */
    struct ch__config_live live = live_of(2, (char *[]){ "demo", "--wait=1s" });
    cr_assert(!base_failed(ch__config_change(&live, "wait", "2s")));
    cr_assert_eq(demo.wait, 2 * CH_S);
    cr_assert_eq(live.origin.from[4], CH__FROM_POST);
    struct base_status status = ch__config_change(&live, "no-such", "1");
    cr_assert_eq(status.code, BASE_NOT_FOUND);
    base_status_free(&status);
    status = ch__config_change(&live, "count", "4");
    cr_assert_eq(status.code, BASE_FAILED_PRECONDITION);
    base_status_free(&status);
    must_fail(ch__config_change(&live, "wait", "soon"), "wait is \"soon\"");
    must_fail(ch__config_change(&live, "wait", "11s"), "must be 1ns to 10s");
    told.refuse = true;
    must_fail(ch__config_change(&live, "size", "1KiB"), "not now");
    cr_assert(demo.wait == 2 * CH_S && demo.count == 3 && demo.size == 64 << 10);
    cr_assert_str_eq(told.log, "wait ");
}

Test(config, a_reload_takes_the_file_under_the_flags, .fini = cleanup)
{
    /* SIGHUP: the file as it is now, under the flags as they were; what was set by hand is
     * forgotten; what is not live is named and left; a bad file changes nothing. */
    char *argv[] = { "demo", (char *)file_of("size: 1KiB\ncount: 4\nwait: 3s\n"), "--wait=1s" };
    struct ch__config_live live = live_of(3, argv);
    size_t changes;
    cr_assert(demo.size == 1024 && demo.count == 4 && demo.wait == CH_S);
    cr_assert(!base_failed(ch__config_change(&live, "wait", "2s")));
    FILE *file = fopen(file_path, "w");
    fputs("size: 2KiB\ncount: 5\nwait: 4s\n", file);
    fclose(file);
    told.log[0] = '\0';
    cr_assert(!base_failed(ch__config_reload(&live, on_skipped, &changes)));
    cr_assert(demo.size == 2048 && demo.count == 4 && demo.wait == CH_S);
    cr_assert_eq(changes, 2u);
    cr_assert_str_eq(told.log, "!count size wait ");
    cr_assert(live.origin.from[3] == CH__FROM_FILE && live.origin.from[4] == CH__FROM_FLAG);
    file = fopen(file_path, "w");
    fputs("size: 4KiB\ncolor: red\n", file);
    fclose(file);
    must_fail(ch__config_reload(&live, on_skipped, &changes), "no key \"color\"");
    cr_assert_eq(demo.size, 2048u);
    file = fopen(file_path, "w");
    fputs("count: 4\n", file); /* what the file no longer says is the default again */
    fclose(file);
    cr_assert(!base_failed(ch__config_reload(&live, on_skipped, &changes)));
    cr_assert(demo.size == 64 << 10 && live.origin.from[3] == CH__FROM_DEFAULT);
}
