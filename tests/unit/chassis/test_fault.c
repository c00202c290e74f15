/* Fault points: off they change nothing; set, they fail, wait or count down as told. */
#include "chassis/env.h"
#include "fault_int.h"
#include "test.h"

static bool fails(struct ch_env *env, const char *name) CH_WAITS;
static bool fails(struct ch_env *env, const char *name)
{
    struct base_status status = ch_fault(env, name);
    bool failed = base_failed(status);
    if (failed)
        cr_assert_eq(status.code, BASE_UNAVAILABLE);
    base_status_free(&status);
    return failed;
}

static void set(struct ch_env *env, const char *name, const char *action)
{
    struct base_status status = ch_fault_set(env, name, action);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
}

static int actions(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    cr_assert(!fails(env, "a"));
    set(env, "a", "fail");
    cr_assert(fails(env, "a") && ch_fault_hit(env, "a") && !fails(env, "b"));
    set(env, "a", "fail:2");
    cr_assert(fails(env, "a") && ch_fault_hit(env, "a"));
    cr_assert(!fails(env, "a") && !ch_fault_hit(env, "a"));
    set(env, "a", "off");
    cr_assert(!fails(env, "a"));
    set(env, "d", "delay:20");
    ch_time before = ch_now(env);
    cr_assert(!fails(env, "d") && ch_now(env) - before >= 20 * CH_MS);
    cr_assert(!ch_fault_hit(env, "d")); /* a place that may not wait is not delayed */
    return 0;
}

Test(fault, actions_do_what_they_say)
{
    ch_env_run(actions, NULL);
}

static int chances(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    int hits = 0;
    set(env, "p", "fail@0.25");
    for (int i = 0; i < 4000; i++)
        hits += ch_fault_hit(env, "p");
    set(env, "p", "fail@0");
    cr_assert(!ch_fault_hit(env, "p"));
    set(env, "p", "fail@1");
    cr_assert(ch_fault_hit(env, "p"));
    return hits;
}

Test(fault, chances_are_met)
{
    int hits = ch_env_run(chances, NULL);
    cr_assert(hits > 850 && hits < 1150, "%d of 4000 at 0.25", hits); /* 5.5 sigma */
}

static int mistakes(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    static const char *const bad[] = { "",      "fial",  "fail:",    "fail:x",  "fail@2",
                                       "fail@", "delay", "delay:-1", "crash:2", "off:1" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct base_status status = ch_fault_set(env, "a", bad[i]);
        cr_assert_eq(status.code, BASE_INVALID_ARGUMENT, "\"%s\" was taken", bad[i]);
        base_status_free(&status);
    }
    struct base_status status = ch__fault_set_all(env, "x=fail,y");
    cr_assert_eq(status.code, BASE_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(base_status_text(&status), "\"y\" is not name=action"));
    base_status_free(&status);
    cr_assert(ch_fault_hit(env, "x"));
    struct base_buf shown = { 0 };
    ch__fault_show(env, &shown);
    base_buf_put_u8(&shown, 0);
    cr_assert_str_eq((char *)shown.data, "x=fail hits=1 taken=1\n");
    base_buf_free(&shown);
    return 0;
}

Test(fault, mistakes_are_refused_by_name_and_the_list_is_shown)
{
    ch_env_run(mistakes, NULL);
}
