/* masters.c: strata masters: the two groups of masters (consensus), looked at and changed. Each
 * member is asked for itself; what the leader says of the others (how far they hold the log, when
 * they were last heard) is shown beside it.
 *
 * Changing: clustermasters are machines of the cell's file, blockmasters are tasks of a job. A new
 * one asks by itself to be let in, first as a learner; here we start it and wait for it to be a
 * voter. A removed member never comes back under its old name: its folder is put aside. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"
#include "strata/consensus/v1/consensus.strata.h"

#define CON_PB(Type) Strata__Consensus__V1__##Type
#define CON_METHOD(NAME) \
    (&strata__consensus__v1__consensus__service.methods[STRATA__CONSENSUS__V1__CONSENSUS__##NAME])

enum { ASK_MS = 700, CHANGE_MS = 15000, JOIN_MS = 30000, POLL_MS = 50 };

static const char clusters[] = "clustermaster", blocks[] = "blockmaster";

struct master {
    const char *target;  /* as the group calls it */
    const char *address; /* "": none now */
    const char *machine;
    CON_PB(GetGroupReply) * reply; /* NULL: it did not answer: */
    const char *trouble;
};
struct view {
    const char *group;
    struct master masters[CLI_MASTERS_MAX];
    size_t count;
    const CON_PB(GetGroupReply) * told; /* the leader's word, or anybody's, or NULL */
};

/* ---- looking ---- */

static CH_WAITS void master_ask(struct cli *cli, const char *group, struct master *master)
{
    struct ch_call_options options = { .deadline = ch_in(cli->env, ASK_MS * CH_MS),
                                       .no_retry = true };
    CON_PB(GetGroupRequest) request = STRATA__CONSENSUS__V1__GET_GROUP_REQUEST__INIT;
    struct ch_client *client;
    struct base_status status;

    if (!*master->address) {
        master->trouble = "has no address";
        return;
    }
    client = ch_client_new(cli->env, master->address, NULL);
    request.group = ch_data_str(group);
    status = ch_client_call(client, CON_METHOD(GET_GROUP), &request, &options, &cli->arena,
                            (void **)&master->reply);
    ch_client_free(client);
    if (!base_failed(status))
        return;
    master->reply = NULL;
    master->trouble = status.code == BASE_NOT_FOUND ? "not in a group yet" : "does not answer";
    base_status_free(&status);
}

static const CON_PB(GetGroupReply__MemberState) *
    state_of(const CON_PB(GetGroupReply) * told, const char *target)
{
    for (size_t i = 0; told && i < told->n_members; i++)
        if (told->members[i]->member &&
            base_bytes_eq_str(ch_bytes_of(told->members[i]->member->target), target))
            return told->members[i];
    return NULL;
}

static bool leads(const struct master *master)
{
    const CON_PB(GetGroupReply__MemberState) *self = state_of(master->reply, master->target);

    return self && self->leads;
}

static CH_WAITS void view_ask(struct cli *cli, struct view *view)
{
    for (size_t i = 0; i < view->count; i++) {
        master_ask(cli, view->group, &view->masters[i]);
        if (view->masters[i].reply && (!view->told || leads(&view->masters[i])))
            view->told = view->masters[i].reply;
    }
}

static CH_WAITS void clustermasters_view(struct cli *cli, struct view *view)
{
    *view = (struct view){ .group = clusters, .count = cli->cell.master_count };
    for (size_t i = 0; i < view->count; i++) {
        const char *machine = cli->cell.masters[i], *address = cli_master_address(cli, machine);

        view->masters[i] =
            (struct master){ .target = address, .address = address, .machine = machine };
    }
    view_ask(cli, view);
}

static CH_WAITS struct base_status blockmasters_view(struct cli *cli, struct view *view)
{
    CLI_PB(ListTasksRequest) request;
    CLI_PB(ListTasksReply) *reply = NULL;
    struct base_status status;

    *view = (struct view){ .group = blocks };
    strata__clustermgr__v1__list_tasks_request__init(&request);
    request.job = ch_data_str(blocks);
    status =
        cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_TASKS, &request, CLI_CALL_MS, &reply);
    for (size_t i = 0; !base_failed(status) && i < reply->n_tasks && i < CLI_MASTERS_MAX; i++)
        view->masters[view->count++] = (struct master){
            .target = base_arena_printf(&cli->arena, "/%s/%s/%" PRIu32, cli->cell.cell, blocks,
                                        reply->tasks[i]->index),
            .address = cli_str(cli, reply->tasks[i]->endpoint),
            .machine = cli_str(cli, reply->tasks[i]->machine),
        };
    view_ask(cli, view);
    return status;
}

static const char *role_of(const struct master *master,
                           const CON_PB(GetGroupReply__MemberState) * state)
{
    if (leads(master))
        return "leader";
    if (master->reply && master->reply->removed)
        return "removed";
    if (!state)
        return "no member";
    if (state->member->witness)
        return "witness";
    return state->member->voter ? "voter" : "learner";
}

static const char *number(struct cli *cli, uint64_t value)
{
    return base_arena_printf(&cli->arena, "%" PRIu64, value);
}

static void row_put(struct cli *cli, struct cli_table *table, const struct view *view,
                    const struct master *master)
{
    const CON_PB(GetGroupReply__MemberState) *state = state_of(view->told, master->target);
    const CON_PB(GetGroupReply) *own = master->reply;
    bool lead = leads(master);
    const char *cells[] = {
        master->target,
        *master->machine ? master->machine : "-",
        role_of(master, state),
        own ? number(cli, own->term) : "-",
        own ? number(cli, own->applied) : "-",
        own && own->last >= own->applied ? number(cli, own->last - own->applied) : "-",
        lead ? "-"
        : state && state->heard_ms >= 0
            ? base_arena_printf(&cli->arena, "%" PRId64 " ms ago", (int64_t)state->heard_ms)
            : "never",
        own ? "answers" : master->trouble,
    };

    cli_table_row(table, cells);
}

/* Also members of the group that are none of the cell's. */
static void view_print(struct cli *cli, const char *title, const struct view *view)
{
    const char *heads[] = { title, "MACHINE", "ROLE", "TERM", "APPLIED", "BEHIND", "HEARD", "" };
    struct cli_table table;

    cli_table_init(&table, &cli->arena, 8, heads);
    for (size_t i = 0; i < view->count; i++)
        row_put(cli, &table, view, &view->masters[i]);
    for (size_t k = 0; view->told && k < view->told->n_members; k++) {
        struct master other = { .target = cli_str(cli, view->told->members[k]->member->target),
                                .address = "",
                                .machine = "",
                                .trouble = "is not of the cell" };
        bool known = false;

        for (size_t i = 0; i < view->count; i++)
            known = known || strcmp(view->masters[i].target, other.target) == 0;
        if (!known)
            row_put(cli, &table, view, &other);
    }
    cli_table_print(&table, stdout);
}

static CH_WAITS int show(struct cli *cli)
{
    struct view view;
    struct base_status status;

    if (*cli->cell.state) {
        printf("the cell's state is in %s; the clustermasters:\n", cli->cell.state);
        for (size_t i = 0; i < cli->cell.master_count; i++)
            printf("%s  %s\n", cli_master_address(cli, cli->cell.masters[i]), cli->cell.masters[i]);
    } else {
        clustermasters_view(cli, &view);
        view_print(cli, "CLUSTERMASTER", &view);
    }
    printf("\n");
    status = blockmasters_view(cli, &view);
    if (base_failed(status))
        return cli_fail(cli, status);
    if (view.count > 0)
        view_print(cli, "BLOCKMASTER", &view);
    return CLI_OK;
}

static size_t voters(const struct view *view)
{
    size_t count = 0;

    for (size_t i = 0; i < view->count; i++) {
        const CON_PB(GetGroupReply__MemberState) *state =
            state_of(view->told, view->masters[i].target);

        count += state && state->member->voter;
    }
    return view->told && view->told->joint && count == view->count ? count - 1 : count;
}

const char *cli_masters_missing(struct cli *cli)
{
    struct view view;

    if (!*cli->cell.state && cli->cell.master_count > 1) {
        clustermasters_view(cli, &view);
        if (voters(&view) < view.count)
            return base_arena_printf(&cli->arena, "clustermasters: %zu of %zu are members",
                                     voters(&view), view.count);
    }
    if (base_status_drop(blockmasters_view(cli, &view)) != BASE_OK)
        return "the clustermaster";
    if (view.count > 1 && voters(&view) < view.count)
        return base_arena_printf(&cli->arena, "blockmasters: %zu of %zu are members", voters(&view),
                                 view.count);
    return NULL;
}

/* ---- changing ---- */

/* At whoever leads the group. */
static CH_WAITS struct base_status group_call(struct cli *cli, const struct view *view,
                                              const struct ch_method *method, const void *request)
{
    struct ch_leader_options options = { .deadline = ch_in(cli->env, CHANGE_MS * CH_MS) };
    struct ch_leader *leader;
    const char *all = "";
    void *reply;
    struct base_status status;

    for (size_t i = 0; i < view->count; i++)
        if (view->masters[i].reply)
            all = base_arena_printf(&cli->arena, "%s%s%s", all, *all ? "," : "",
                                    view->masters[i].address);
    if (!*all)
        return base_status_make(BASE_UNAVAILABLE, "no %s answers", view->group);
    leader = ch_leader_new(cli->env, all, NULL);
    status = ch_leader_call(leader, method, request, &options, &cli->arena, &reply);
    ch_leader_free(leader);
    return status;
}

static CH_WAITS struct base_status member_remove(struct cli *cli, const struct view *view,
                                                 const char *target)
{
    const CON_PB(GetGroupReply__MemberState) *state = state_of(view->told, target);
    CON_PB(RemoveMemberRequest) request = STRATA__CONSENSUS__V1__REMOVE_MEMBER_REQUEST__INIT;

    if (!state) /* an earlier try got so far, or it never came up */
        return BASE_STATUS_OK;
    request.group = ch_data_str(view->group);
    request.id = state->member->id;
    return group_call(cli, view, CON_METHOD(REMOVE_MEMBER), &request);
}

/* Waits until the group says that `target` votes. */
static CH_WAITS struct base_status voter_wait(struct cli *cli, const char *group,
                                              const char *target)
{
    ch_time deadline = ch_in(cli->env, JOIN_MS * CH_MS);

    do {
        struct view view;
        const CON_PB(GetGroupReply__MemberState) * state;

        if (strcmp(group, clusters) == 0)
            clustermasters_view(cli, &view);
        else
            base_status_drop(blockmasters_view(cli, &view));
        state = state_of(view.told, target);
        if (state && state->member->voter && !view.told->joint)
            return BASE_STATUS_OK;
    } while (ch_now(cli->env) < deadline &&
             ch_sleep_until(cli->env, ch_in(cli->env, POLL_MS * CH_MS)) == CH_TIMEOUT);
    return base_status_make(BASE_DEADLINE_EXCEEDED,
                            "%s is started but is no full member yet; strata masters shows it",
                            target);
}

static CH_WAITS struct base_status put_aside(struct cli *cli, const char *folder)
{
    const char *to = base_arena_printf(&cli->arena, "%s.removed-%" PRId64, folder,
                                       ch_wall_us(cli->env) / 1000000);
    struct base_status status = ch_file_rename(cli->env, folder, to);

    if (status.code == BASE_NOT_FOUND)
        base_status_free(&status);
    return status;
}

static CH_WAITS struct base_status clustermaster_add(struct cli *cli, const char *name)
{
    const struct cli_machine *machine = cli_machine_find(cli, name);
    struct base_status status = BASE_STATUS_OK;

    if (!machine)
        return base_status_make(BASE_NOT_FOUND, "the cell has no machine %s; strata machine list",
                                name);
    if (!cli_has_master(cli, name)) {
        if (cli->cell.master_count == CLI_MASTERS_MAX)
            return base_status_make(BASE_FAILED_PRECONDITION, "a group has at most %d members",
                                    CLI_MASTERS_MAX);
        if (!cli_port_free(machine->address, cli->cell.master_port))
            return base_status_make(BASE_UNAVAILABLE, "port %d is taken at %s",
                                    cli->cell.master_port, machine->address);
        cli->cell.masters[cli->cell.master_count++] = machine->name;
        status = cli_cell_save(cli);
    }
    if (!base_failed(status))
        status = cli_machine_renew(cli, machine);
    if (!base_failed(status) && !*cli->cell.state)
        status = voter_wait(cli, clusters, cli_master_address(cli, name));
    return status;
}

static CH_WAITS struct base_status clustermaster_remove(struct cli *cli, const char *name)
{
    const struct cli_machine *machine = cli_machine_find(cli, name);
    struct base_status status = BASE_STATUS_OK;
    struct view view;
    size_t at = 0;

    if (!machine || !cli_has_master(cli, name))
        return base_status_make(BASE_NOT_FOUND, "machine %s has no clustermaster", name);
    if (cli->cell.master_count == 1)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "the last clustermaster stays; add another first");
    if (!*cli->cell.state) {
        clustermasters_view(cli, &view);
        status = member_remove(cli, &view, cli_master_address(cli, name));
    }
    if (base_failed(status))
        return status;
    while (strcmp(cli->cell.masters[at], name) != 0)
        at++;
    memmove(&cli->cell.masters[at], &cli->cell.masters[at + 1],
            (--cli->cell.master_count - at) * sizeof(cli->cell.masters[0]));
    status = cli_cell_save(cli);
    if (!base_failed(status) && cli_init_alive(cli, name))
        status = cli_machine_renew(cli, machine);
    if (!base_failed(status))
        status =
            put_aside(cli, base_arena_printf(&cli->arena, "%s/master", cli_machine_dir(cli, name)));
    return status;
}

/* The job with `tasks` more, or less. */
static CH_WAITS struct base_status blockmasters_scale(struct cli *cli, int by, uint32_t *tasks)
{
    CLI_PB(ListJobsRequest) list;
    CLI_PB(ListJobsReply) *jobs = NULL;
    CLI_PB(UpdateJobRequest) request;
    CLI_PB(UpdateJobReply) *reply = NULL;
    struct base_status status;

    strata__clustermgr__v1__list_jobs_request__init(&list);
    strata__clustermgr__v1__update_job_request__init(&request);
    status = cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_JOBS, &list, CLI_CALL_MS, &jobs);
    if (base_failed(status))
        return status;
    for (size_t i = 0; i < jobs->n_jobs; i++)
        if (base_bytes_eq_str(ch_bytes_of(jobs->jobs[i]->spec->name), blocks))
            request.spec = jobs->jobs[i]->spec;
    if (!request.spec)
        return base_status_make(BASE_NOT_FOUND, "the cell has no job %s", blocks);
    if (by > 0 && request.spec->tasks >= cli->cell.machine_count)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "each of the %" PRIu32 " machines has one already",
                                request.spec->tasks);
    request.spec->tasks = (uint32_t)((int)request.spec->tasks + by);
    *tasks = request.spec->tasks;
    return cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__UPDATE_JOB, &request, CLI_CALL_MS,
                         &reply);
}

static CH_WAITS struct base_status blockmaster_add(struct cli *cli)
{
    uint32_t tasks = 0;
    struct base_status status = blockmasters_scale(cli, 1, &tasks);

    if (base_failed(status))
        return status;
    return voter_wait(
        cli, blocks,
        base_arena_printf(&cli->arena, "/%s/%s/%" PRIu32, cli->cell.cell, blocks, tasks - 1));
}

/* The last task: a job's tasks are numbered without gaps. */
static CH_WAITS struct base_status blockmaster_remove(struct cli *cli)
{
    struct view view;
    struct master *last;
    uint32_t tasks = 0;
    struct base_status status = blockmasters_view(cli, &view);

    if (base_failed(status))
        return status;
    if (view.count < 2)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "the last blockmaster stays; add another first");
    last = &view.masters[view.count - 1];
    status = member_remove(cli, &view, last->target);
    if (!base_failed(status))
        status = blockmasters_scale(cli, -1, &tasks);
    for (int i = 0; i < 100 && !base_failed(status) && *last->address; i++) {
        if (!cli_serving(cli, last->address)) /* its agent has stopped it */
            break;
        if (ch_sleep_until(cli->env, ch_in(cli->env, POLL_MS * CH_MS)) != CH_TIMEOUT)
            break;
    }
    if (!base_failed(status) && *last->machine)
        status =
            put_aside(cli, base_arena_printf(&cli->arena, "%s/agent/tasks/%s/%" PRIu32,
                                             cli_machine_dir(cli, last->machine), blocks, tasks));
    return status;
}

/* `to`: a machine, or NULL: whoever has most. */
static CH_WAITS struct base_status lead_move(struct cli *cli, const char *group, const char *to)
{
    CON_PB(TransferLeadershipRequest)
    request = STRATA__CONSENSUS__V1__TRANSFER_LEADERSHIP_REQUEST__INIT;
    struct view view;
    struct base_status status = BASE_STATUS_OK;

    if (strcmp(group, clusters) == 0)
        clustermasters_view(cli, &view);
    else
        status = blockmasters_view(cli, &view);
    request.group = ch_data_str(group);
    for (size_t i = 0; to && i < view.count; i++) {
        const CON_PB(GetGroupReply__MemberState) *state =
            state_of(view.told, view.masters[i].target);

        if (state &&
            (strcmp(view.masters[i].machine, to) == 0 || strcmp(view.masters[i].target, to) == 0))
            request.id = state->member->id;
    }
    if (!base_failed(status) && to && request.id == 0)
        status = base_status_make(BASE_NOT_FOUND, "no %s is on machine %s", group, to);
    if (!base_failed(status))
        status = group_call(cli, &view, CON_METHOD(TRANSFER_LEADERSHIP), &request);
    return status;
}

static CH_WAITS struct base_status change(struct cli *cli, const char *what, const char *group,
                                          const char *machine)
{
    bool cluster = strcmp(group, clusters) == 0;

    if (strcmp(what, "move-lead") == 0)
        return cluster && *cli->cell.state
                   ? base_status_make(BASE_FAILED_PRECONDITION, "leadership is in %s",
                                      cli->cell.state)
                   : lead_move(cli, group, machine);
    if (strcmp(what, "add") == 0)
        return cluster ? clustermaster_add(cli, machine) : blockmaster_add(cli);
    return cluster ? clustermaster_remove(cli, machine) : blockmaster_remove(cli);
}

int cli_masters(struct cli *cli, int argc, char **argv)
{
    static const char usage[] = "masters [add MACHINE|add blockmaster|remove MACHINE|remove "
                                "blockmaster|move-lead [clustermaster|blockmaster] [MACHINE]]";
    const char *what = argc > 1 ? argv[1] : "", *group = clusters, *machine = NULL;
    bool move = strcmp(what, "move-lead") == 0;
    struct ch_file *lock = NULL;
    struct base_status status;
    int at = 2;

    if (!cli_args_end(argc, argv, 0, 3, usage) || !cli_cell_need(cli))
        return CLI_USAGE;
    if (argc == 1)
        return show(cli);
    if (at < argc && (strcmp(argv[at], clusters) == 0 || strcmp(argv[at], blocks) == 0))
        group = strcmp(argv[at++], blocks) == 0 ? blocks : clusters;
    if (at < argc)
        machine = argv[at++];
    if ((!move && strcmp(what, "add") != 0 && strcmp(what, "remove") != 0) || at < argc ||
        (!move && (strcmp(group, clusters) == 0) != (machine != NULL)))
        return cli_usage(usage);
    status = cli_lock(cli, &lock);
    if (!base_failed(status)) {
        status = change(cli, what, group, machine);
        ch_file_close(lock);
    }
    return base_failed(status) ? cli_fail(cli, status) : show(cli);
}
