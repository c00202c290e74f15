/* master_tablets.c: strata.tablet.v1.Tabletmaster: splitting, moving and listing tablets, for
 * the `strata` command and tests. */
#include "chassis/log.h"
#include "master.h"
#include "master_admin.h"
#include "strata/tablet/v1/tablet.strata.h"

/* The tablet of a table that holds a row; METADATA's own for an empty name. */
static struct base_status find(struct tab_master *master, struct base_bytes table_name,
                               struct base_bytes row, ch_time deadline, struct base_arena *arena,
                               struct tab_location *location) CH_WAITS;
static struct base_status find(struct tab_master *master, struct base_bytes table_name,
                               struct base_bytes row, ch_time deadline, struct base_arena *arena,
                               struct tab_location *location)
{
    struct base_status status = tab_master_check(master);
    uint64_t number = TAB_TABLE_METADATA;
    if (!base_failed(status) && table_name.len) {
        Strata__Tablet__V1__TableMeta *table = NULL;
        struct tab_meta_row unused;
        status = tab_master_table(master, table_name, deadline, arena, &table, &unused);
        if (!base_failed(status))
            number = table->id;
    }
    if (base_failed(status))
        return status;
    tab_metac_forget(master->metac, number, row);
    return tab_metac_locate(master->metac, number, row, deadline, arena, location);
}

/* OUT_OF_RANGE is between us: the tablet has just moved, and the caller may try again. */
static struct base_status outward(struct base_status status)
{
    if (status.code == BASE_OUT_OF_RANGE)
        status.code = BASE_UNAVAILABLE;
    return status;
}

static struct base_status on_split(void *self, struct ch_call *call, const void *message,
                                   void **reply) CH_WAITS;
static struct base_status on_split(void *self, struct ch_call *call, const void *message,
                                   void **reply)
{
    struct tab_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    const Strata__Tablet__V1__SplitTabletRequest *request = message;
    ch_time deadline = tab_admin_deadline(master, call);
    struct tab_location location;
    struct base_status status = find(master, ch_bytes_of(request->table), ch_bytes_of(request->row),
                                     deadline, arena, &location);
    if (base_failed(status))
        return status;
    Strata__Tablet__V1__SplitRequest split = STRATA__TABLET__V1__SPLIT_REQUEST__INIT;
    Strata__Tablet__V1__SplitReply *done;
    split.id = location.tablet;
    split.row = request->row;
    status = tab_master_call(master, location.address, STRATA__TABLET__V1__TABLETSERVER__SPLIT,
                             &split, deadline, arena, (void **)&done);
    tab_metac_forget(master->metac, location.table, ch_bytes_of(request->row));
    if (base_failed(status))
        return outward(status);
    Strata__Tablet__V1__SplitTabletReply *response = CH_MESSAGE(
        arena, Strata__Tablet__V1__SplitTabletReply, strata__tablet__v1__split_tablet_reply);
    response->row = done->row;
    *reply = response;
    tab_master_poke(master);
    return BASE_STATUS_OK;
}

static struct base_status choose(struct tab_master *master, const struct tab_location *from,
                                 struct base_bytes wanted, ch_time deadline,
                                 struct base_arena *arena, struct tab_live **to) CH_WAITS;
static struct base_status choose(struct tab_master *master, const struct tab_location *from,
                                 struct base_bytes wanted, ch_time deadline,
                                 struct base_arena *arena, struct tab_live **to)
{
    struct tab_live *live;
    size_t count;
    *to = NULL;
    struct base_status status = tab_master_live(master, deadline, arena, &live, &count);
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        bool named =
            base_bytes_eq_str(wanted, live[i].name) || base_bytes_eq_str(wanted, live[i].server);
        if (live[i].alive && (wanted.len ? named : strcmp(live[i].server, from->server) != 0))
            *to = &live[i];
    }
    if (!base_failed(status) && !*to)
        status = base_status_make(BASE_NOT_FOUND,
                                  wanted.len ? "no such tabletserver: %.*s"
                                             : "there is no other tabletserver%.*s",
                                  BASE_FMT(wanted));
    return status;
}

static struct base_status move(struct tab_master *master, const struct tab_location *from,
                               struct base_bytes table_name, struct tab_live *to, ch_time deadline,
                               struct base_arena *arena) CH_WAITS;
static struct base_status move(struct tab_master *master, const struct tab_location *from,
                               struct base_bytes table_name, struct tab_live *to, ch_time deadline,
                               struct base_arena *arena)
{
    Strata__Tablet__V1__UnloadRequest request = STRATA__TABLET__V1__UNLOAD_REQUEST__INIT;
    void *reply;
    struct base_buf key = { 0 };
    struct tab_meta_row row;
    Strata__Tablet__V1__TabletMeta *meta;
    request.id = from->tablet;
    struct base_status status =
        tab_master_call(master, from->address, STRATA__TABLET__V1__TABLETSERVER__UNLOAD, &request,
                        deadline, arena, &reply);
    tab_meta_key(&key, from->table, from->end);
    if (!base_failed(status))
        status = tab_metac_get(master->metac, base_buf_bytes(&key), deadline, arena, &row);
    if (!base_failed(status))
        status = tab_meta_decode(row.value, arena, &meta);
    if (!base_failed(status) && (meta->server.len || meta->id != from->tablet))
        status = base_status_make(BASE_ABORTED, "the tablet was given to %.*s meanwhile",
                                  BASE_FMT(ch_bytes_of(meta->server)));
    const char *name = table_name.len ? base_bytes_cstr(arena, table_name) : "METADATA";
    if (!base_failed(status))
        status = tab_master_assign(master, meta, &row, NULL, name, to, deadline);
    base_buf_free(&key);
    tab_master_poke(master);
    return status;
}

static struct base_status on_move(void *self, struct ch_call *call, const void *message,
                                  void **reply) CH_WAITS;
static struct base_status on_move(void *self, struct ch_call *call, const void *message,
                                  void **reply)
{
    struct tab_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    const Strata__Tablet__V1__MoveTabletRequest *request = message;
    ch_time deadline = tab_admin_deadline(master, call);
    struct tab_location location;
    struct tab_live *to = NULL;
    struct base_status status = find(master, ch_bytes_of(request->table), ch_bytes_of(request->row),
                                     deadline, arena, &location);
    if (!base_failed(status) && location.table == TAB_TABLE_METADATA && location.start.len == 0)
        status = base_status_make(BASE_FAILED_PRECONDITION,
                                  "the root tablet moves only when its server dies");
    if (!base_failed(status))
        status = choose(master, &location, ch_bytes_of(request->server), deadline, arena, &to);
    if (!base_failed(status) && strcmp(to->server, location.server) != 0)
        status = move(master, &location, ch_bytes_of(request->table), to, deadline, arena);
    if (base_failed(status))
        return outward(status);
    Strata__Tablet__V1__MoveTabletReply *response = CH_MESSAGE(
        arena, Strata__Tablet__V1__MoveTabletReply, strata__tablet__v1__move_tablet_reply);
    response->server = ch_data_str(to->server);
    *reply = response;
    return BASE_STATUS_OK;
}

static struct base_status on_list(void *self, struct ch_call *call, const void *message,
                                  void **reply) CH_WAITS;
static struct base_status on_list(void *self, struct ch_call *call, const void *message,
                                  void **reply)
{
    struct tab_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    const Strata__Tablet__V1__ListTabletsRequest *request = message;
    ch_time deadline = tab_admin_deadline(master, call);
    uint64_t number = TAB_TABLE_METADATA;
    struct tab_meta_row unused, *rows;
    struct base_status status = tab_master_check(master);
    if (!base_failed(status) && request->table.len) {
        Strata__Tablet__V1__TableMeta *table;
        status =
            tab_master_table(master, ch_bytes_of(request->table), deadline, arena, &table, &unused);
        if (!base_failed(status))
            number = table->id;
    }
    Strata__Tablet__V1__ListTabletsReply *response = CH_MESSAGE(
        arena, Strata__Tablet__V1__ListTabletsReply, strata__tablet__v1__list_tablets_reply);
    if (!base_failed(status))
        status = tab_master_tablets(master, number, deadline, arena, &response->tablets, &rows,
                                    &response->n_tablets);
    *reply = response;
    return status;
}

void tab_register_master(struct tab_master *master)
{
    const struct ch_service *service = &strata__tablet__v1__tabletmaster__service;
    const struct ch_method *methods = service->methods;
    ch_server_add_service(master->rpc, service);
    ch_server_handle(master->rpc, &methods[STRATA__TABLET__V1__TABLETMASTER__SPLIT_TABLET],
                     on_split, master);
    ch_server_handle(master->rpc, &methods[STRATA__TABLET__V1__TABLETMASTER__MOVE_TABLET], on_move,
                     master);
    ch_server_handle(master->rpc, &methods[STRATA__TABLET__V1__TABLETMASTER__LIST_TABLETS], on_list,
                     master);
}
