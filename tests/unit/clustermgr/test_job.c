/* Job files (clustermgr/src/job_parse.c) and what a job may say (job_check.c). */
#include "clustermgr/job.h"

#include <string.h>

#include "pb.h"
#include "test.h"

static struct base_status parse(const char *yaml, struct base_arena *arena, CLU_PB(JobSpec) * *spec)
{
    return clu_job_parse(base_bytes_str(yaml), "x.yaml", arena, spec);
}

Test(job, every_key)
{
    /* Each key of a job file arrives in its field, with its unit. */
    struct base_arena arena;
    CLU_PB(JobSpec) *spec = NULL;
    struct base_status status;

    base_arena_init(&arena);
    status = parse(
        "name: web\nowner: me\ncommand: webserver\nargs: [--a, \"--b=1\"]\nenvironment: { A: b "
        "}\ntasks: 3\n"
        "resources: { cpu: 1.5, memory: 1GiB, disk: 2TiB }\nband: batch\nspread: machine\npinned: "
        "true\nfront: datastore\n"
        "constraints:\n  - { attribute: zone, value: zone-a, not: true, soft: true }\n"
        "health: { interval: 2s, timeout: 500ms, unhealthy_after: 3, restart_after: 1m }\n"
        "restart: { policy: never, backoff_min: 50ms, backoff_max: 5s }\nafter: [db, cache]\n",
        &arena, &spec);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    cr_assert(base_bytes_eq_str(ch_bytes_of(spec->name), "web") &&
              base_bytes_eq_str(ch_bytes_of(spec->command), "webserver"));
    cr_assert(spec->n_args == 2 && base_bytes_eq_str(ch_bytes_of(spec->args[1]), "--b=1"));
    cr_assert(spec->n_environment == 1 &&
              base_bytes_eq_str(ch_bytes_of(spec->environment[0]), "A=b"));
    cr_assert(spec->tasks == 3 && spec->pinned && spec->distinct_machines &&
              base_bytes_eq_str(ch_bytes_of(spec->front), "datastore"));
    cr_assert(spec->resources->cpu_millis == 1500 && spec->resources->memory_bytes == 1ull << 30 &&
              spec->resources->disk_bytes == 2ull << 40);
    cr_assert_eq(spec->band, STRATA__CLUSTERMGR__V1__BAND__BATCH);
    cr_assert(spec->n_constraints == 1 && spec->constraints[0]->negated &&
              spec->constraints[0]->soft);
    cr_assert(spec->health->interval_ms == 2000 && spec->health->timeout_ms == 500 &&
              spec->health->unhealthy_after == 3 && spec->health->restart_after_ms == 60000);
    cr_assert(spec->restart->never && spec->restart->backoff_min_ms == 50 &&
              spec->restart->backoff_max_ms == 5000);
    cr_assert(spec->n_after == 2 && base_bytes_eq_str(ch_bytes_of(spec->after[1]), "cache"));
    base_arena_free(&arena);
}

Test(job, mistakes_name_the_line)
{
    /* A job file with a mistake is refused, and the text names what and, where there is a line,
     * which. */
    static const struct {
        const char *yaml, *text;
    } cases[] = {
        { "", "x.yaml: empty" },
        { "name: [", "x.yaml:" },
        { "just text", "x.yaml:1: \"key: value\" lines are expected" },
        { "name: a\ncommand: b\ncolour: red\n", "x.yaml:3: unknown key \"colour\"" },
        { "name: a\nname: b\n", "x.yaml:2: \"name\" is given twice" },
        { "name: a\ncommand: b\ntasks: many\n",
          "tasks: x.yaml:3: \"many\" is no such quantity here" },
        { "name: a\ncommand: b\ntasks: -1\n", "tasks: x.yaml:3:" },
        { "name: a\ncommand: b\nresources: { memory: 1GB }\n", "resources: memory: x.yaml:3:" },
        { "name: a\ncommand: b\npinned: yes\n", "pinned: x.yaml:3: true or false is expected" },
        { "name: a\ncommand: b\nargs: --x\n", "args: x.yaml:3: a list is expected" },
        { "name: a\ncommand: b\nband: gold\n", "band: x.yaml:3:" },
        { "name: Web\ncommand: b\n", "name: \"Web\"" },
        { "name: a\n", "command: missing" },
        { "name: a\ncommand: b\ntasks: 1000000\n", "tasks: 1000000, at most 2000" },
        { "name: a\ncommand: b\nconstraints: [{ attribute: colour, value: red }]\n",
          "constraints[0].attribute: \"colour\"" },
        { "name: a\ncommand: b\nafter: [Nope]\n", "after[0]: \"Nope\"" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct base_arena arena;
        CLU_PB(JobSpec) *spec = NULL;
        struct base_status status;

        base_arena_init(&arena);
        status = parse(cases[i].yaml, &arena, &spec);
        cr_assert_eq(status.code, BASE_INVALID_ARGUMENT, "case %zu", i);
        cr_assert(strstr(base_status_text(&status), cases[i].text) != NULL,
                  "case %zu: \"%s\" is not in \"%s\"", i, cases[i].text, base_status_text(&status));
        base_status_free(&status);
        base_arena_free(&arena);
    }
}
