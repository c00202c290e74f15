/* metac.c: see metac.h.
 *
 * Invariants: 1. What is remembered may be wrong: a server that does not serve a row says
 * OUT_OF_RANGE and nothing was done; then it is forgotten and looked up again. 2. Nothing here
 * decides who serves: METADATA does. */
#include "metac.h"

#include <stdio.h>
#include <stdlib.h>

#include "chassis/proto.h"
#include "strata/tablet/v1/tablet.strata.h"

enum { PEERS_MAX = 65536, RETRY_MS = 30, RPC_TIMEOUT_S = 5, SCAN_PAGE = 500 };

struct peer {
    char address[TAB_ADDRESS_BYTES];
    struct ch_client *client;
};

struct known { /* a remembered tablet; sorted by (table, end), an empty end last */
    uint64_t table, tablet;
    struct base_buf start, end;
    char address[TAB_ADDRESS_BYTES], server[TAB_SERVER_BYTES];
};

struct tab_metac {
    struct ch_env *env;
    struct ch_naming *naming;
    char root_path[128];
    struct peer *peers;
    size_t peer_count, peer_cap;
    struct known *known;
    size_t known_count, known_cap;
    bool root_known;
    char root_address[TAB_ADDRESS_BYTES], root_server[TAB_SERVER_BYTES];
    uint64_t root_tablet;
};

struct tab_metac *tab_metac_new(struct ch_env *env, struct ch_naming *naming, const char *cell)
{
    struct tab_metac *metac = calloc(1, sizeof(*metac));
    BASE_ASSERT(metac != NULL);
    metac->env = env;
    metac->naming = naming;
    snprintf(metac->root_path, sizeof(metac->root_path), "/%s/tablet/root", cell);
    return metac;
}

static void known_free(struct known *known)
{
    base_buf_free(&known->start);
    base_buf_free(&known->end);
}

void tab_metac_free(struct tab_metac *metac)
{
    if (!metac)
        return;
    for (size_t i = 0; i < metac->peer_count; i++)
        ch_client_free(metac->peers[i].client);
    for (size_t i = 0; i < metac->known_count; i++)
        known_free(&metac->known[i]);
    free(metac->peers);
    free(metac->known);
    free(metac);
}

struct ch_client *tab_metac_peer(struct tab_metac *metac, const char *address)
{
    for (size_t i = 0; i < metac->peer_count; i++)
        if (strcmp(metac->peers[i].address, address) == 0)
            return metac->peers[i].client;
    BASE_ASSERT(metac->peer_count < PEERS_MAX);
    if (metac->peer_count == metac->peer_cap) {
        metac->peer_cap = metac->peer_cap ? metac->peer_cap * 2 : 16;
        metac->peers = realloc(metac->peers, metac->peer_cap * sizeof(*metac->peers));
        BASE_ASSERT(metac->peers != NULL);
    }
    struct ch_client_options options = { .no_retry = true };
    struct peer *peer = &metac->peers[metac->peer_count++];
    snprintf(peer->address, sizeof(peer->address), "%s", address);
    peer->client = ch_client_new(metac->env, address, &options);
    return peer->client;
}

/* ---- memory ---- */

static int order_known(const struct known *known, uint64_t table, struct base_bytes end)
{
    if (known->table != table)
        return known->table < table ? -1 : 1;
    if (known->end.len == 0 || end.len == 0)
        return (known->end.len == 0) - (end.len == 0);
    return base_bytes_cmp(base_buf_bytes(&known->end), end);
}

/* The first whose end is greater than the row (or, with `exact`, not less than that end). */
static size_t known_at(const struct tab_metac *metac, uint64_t table, struct base_bytes row,
                       bool exact)
{
    size_t low = 0, high = metac->known_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct known *known = &metac->known[middle];
        bool before;
        if (exact)
            before = order_known(known, table, row) < 0;
        else
            before =
                known->table < table || (known->table == table && known->end.len > 0 &&
                                         base_bytes_cmp(base_buf_bytes(&known->end), row) <= 0);
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct known *recall(struct tab_metac *metac, uint64_t table, struct base_bytes row)
{
    size_t at = known_at(metac, table, row, false);
    if (at == metac->known_count || metac->known[at].table != table ||
        base_bytes_cmp(row, base_buf_bytes(&metac->known[at].start)) < 0)
        return NULL;
    return &metac->known[at];
}

static void drop_known(struct tab_metac *metac, size_t at)
{
    known_free(&metac->known[at]);
    memmove(&metac->known[at], &metac->known[at + 1],
            (metac->known_count - at - 1) * sizeof(*metac->known));
    metac->known_count--;
}

static void remember(struct tab_metac *metac, const Strata__Tablet__V1__TabletMeta *meta)
{
    struct base_bytes end = ch_bytes_of(meta->end);
    size_t at = known_at(metac, meta->table, end, true);
    if (at < metac->known_count && order_known(&metac->known[at], meta->table, end) == 0)
        drop_known(metac, at);
    if (metac->known_count == TAB_LOCATIONS_MAX) {
        drop_known(metac, ch_random_below(metac->env, metac->known_count));
        at = known_at(metac, meta->table, end, true);
    }
    if (metac->known_count == metac->known_cap) {
        metac->known_cap = metac->known_cap ? metac->known_cap * 2 : 64;
        metac->known = realloc(metac->known, metac->known_cap * sizeof(*metac->known));
        BASE_ASSERT(metac->known != NULL);
    }
    memmove(&metac->known[at + 1], &metac->known[at],
            (metac->known_count - at) * sizeof(*metac->known));
    metac->known_count++;
    struct known *known = &metac->known[at];
    *known = (struct known){ .table = meta->table, .tablet = meta->id };
    base_buf_put_bytes(&known->start, ch_bytes_of(meta->start));
    base_buf_put_bytes(&known->end, end);
    snprintf(known->address, sizeof(known->address), "%.*s", BASE_FMT(ch_bytes_of(meta->address)));
    snprintf(known->server, sizeof(known->server), "%.*s", BASE_FMT(ch_bytes_of(meta->server)));
}

void tab_metac_forget(struct tab_metac *metac, uint64_t table, struct base_bytes row)
{
    struct known *known = recall(metac, table, row);
    if (known)
        drop_known(metac, (size_t)(known - metac->known));
    struct base_buf end = { 0 };
    tab_meta_root_end(&end);
    if (table == TAB_TABLE_METADATA && base_bytes_cmp(row, base_buf_bytes(&end)) < 0)
        metac->root_known = false;
    base_buf_free(&end);
}

/* ---- the root ---- */

struct base_status tab_meta_decode(struct base_bytes value, struct base_arena *arena,
                                   Strata__Tablet__V1__TabletMeta **meta)
{
    ProtobufCMessage *message;
    struct base_status status =
        ch_proto_decode(&strata__tablet__v1__tablet_meta__descriptor, value, arena, &message);
    *meta = base_failed(status) ? NULL : (Strata__Tablet__V1__TabletMeta *)message;
    return base_failed(status) ? base_status_wrap(status, "METADATA") : status;
}

struct base_status tab_metac_root(struct tab_metac *metac, ch_time deadline,
                                  struct base_arena *arena, Strata__Tablet__V1__TabletMeta **root,
                                  uint64_t *version)
{
    struct ch_name_entry entry;
    struct base_status status =
        ch_name_get(metac->naming, metac->root_path, deadline, arena, &entry);
    if (base_failed(status))
        return base_status_wrap(status, "root tablet");
    *version = entry.version;
    return tab_meta_decode(entry.value, arena, root);
}

struct base_status tab_metac_root_write(struct tab_metac *metac,
                                        const Strata__Tablet__V1__TabletMeta *root,
                                        ch_time deadline, uint64_t *version)
{
    struct base_buf value = { 0 };
    ch_proto_encode(&root->base, &value);
    struct base_status status = ch_name_set(metac->naming, metac->root_path, base_buf_bytes(&value),
                                            (int64_t)*version, false, deadline, version);
    base_buf_free(&value);
    return base_failed(status) ? base_status_wrap(status, "root tablet") : status;
}

static struct base_status locate_root(struct tab_metac *metac, ch_time deadline,
                                      struct base_arena *arena,
                                      struct tab_location *location) CH_WAITS;
static struct base_status locate_root(struct tab_metac *metac, ch_time deadline,
                                      struct base_arena *arena, struct tab_location *location)
{
    if (!metac->root_known) {
        Strata__Tablet__V1__TabletMeta *root;
        uint64_t version;
        struct base_status status = tab_metac_root(metac, deadline, arena, &root, &version);
        if (base_failed(status)) {
            if (status.code == BASE_NOT_FOUND)
                status.code = BASE_UNAVAILABLE; /* not made yet */
            return status;
        }
        if (root->address.len == 0)
            return base_status_make(BASE_UNAVAILABLE, "nobody serves the root tablet");
        snprintf(metac->root_address, sizeof(metac->root_address), "%.*s",
                 BASE_FMT(ch_bytes_of(root->address)));
        snprintf(metac->root_server, sizeof(metac->root_server), "%.*s",
                 BASE_FMT(ch_bytes_of(root->server)));
        metac->root_tablet = root->id;
        metac->root_known = true;
    }
    struct base_buf end = { 0 };
    tab_meta_root_end(&end);
    *location = (struct tab_location){ .table = TAB_TABLE_METADATA, .tablet = metac->root_tablet };
    memcpy(location->address, metac->root_address, sizeof(location->address));
    memcpy(location->server, metac->root_server, sizeof(location->server));
    location->end = base_bytes_dup(arena, base_buf_bytes(&end));
    base_buf_free(&end);
    return BASE_STATUS_OK;
}

/* ---- looking up ---- */

/* The tablet of METADATA's record: itself, or the left half of a split whose row is not there
 * yet. */
static const Strata__Tablet__V1__TabletMeta *holder(const Strata__Tablet__V1__TabletMeta *meta,
                                                    uint64_t table, struct base_bytes row)
{
    for (; meta; meta = meta->left)
        if (meta->table == table &&
            tab_range_holds(ch_bytes_of(meta->start), ch_bytes_of(meta->end), row))
            return meta;
    return NULL;
}

static struct base_status look_up(struct tab_metac *metac, uint64_t table, struct base_bytes row,
                                  ch_time deadline, struct base_arena *arena) CH_WAITS;
static struct base_status look_up(struct tab_metac *metac, uint64_t table, struct base_bytes row,
                                  ch_time deadline, struct base_arena *arena)
{
    struct base_buf start = { 0 }, end = { 0 }, unused = { 0 };
    tab_meta_seek_key(&start, table, row);
    tab_meta_table_range(table, &unused, &end);
    struct tab_meta_row *rows;
    size_t count = 0;
    struct base_status status = tab_metac_scan(metac, base_buf_bytes(&start), base_buf_bytes(&end),
                                               1, deadline, arena, &rows, &count);
    Strata__Tablet__V1__TabletMeta *meta = NULL;
    if (!base_failed(status) && count > 0)
        status = tab_meta_decode(rows[0].value, arena, &meta);
    const Strata__Tablet__V1__TabletMeta *found = meta ? holder(meta, table, row) : NULL;
    if (!base_failed(status) && !found)
        status = base_status_make(BASE_NOT_FOUND, "no tablet of table %llu holds the row",
                                  (unsigned long long)table);
    if (!base_failed(status) && found->address.len == 0)
        status = base_status_make(BASE_UNAVAILABLE, "nobody serves tablet %llx",
                                  (unsigned long long)found->id);
    if (!base_failed(status))
        remember(metac, found);
    base_buf_free(&start);
    base_buf_free(&end);
    base_buf_free(&unused);
    return status;
}

struct base_status tab_metac_locate(struct tab_metac *metac, uint64_t table, struct base_bytes row,
                                    ch_time deadline, struct base_arena *arena,
                                    struct tab_location *location)
{
    if (table == TAB_TABLE_METADATA) {
        struct base_status status = locate_root(metac, deadline, arena, location);
        if (base_failed(status) || base_bytes_cmp(row, location->end) < 0)
            return status;
    }
    struct known *known = recall(metac, table, row);
    if (!known) {
        struct base_status status = look_up(metac, table, row, deadline, arena);
        if (base_failed(status))
            return status;
        known = recall(metac, table, row);
        if (!known)
            return base_status_make(BASE_UNAVAILABLE, "the tablet moved while it was looked up");
    }
    *location = (struct tab_location){ .table = table, .tablet = known->tablet };
    memcpy(location->address, known->address, sizeof(location->address));
    memcpy(location->server, known->server, sizeof(location->server));
    location->start = base_bytes_dup(arena, base_buf_bytes(&known->start));
    location->end = base_bytes_dup(arena, base_buf_bytes(&known->end));
    return BASE_STATUS_OK;
}

/* ---- rows ---- */

static bool worth_retrying(enum base_code code)
{
    return code == BASE_OUT_OF_RANGE || code == BASE_UNAVAILABLE || code == BASE_CANCELLED ||
           code == BASE_DEADLINE_EXCEEDED || code == BASE_RESOURCE_EXHAUSTED ||
           code == BASE_ABORTED || code == BASE_UNIMPLEMENTED;
}

/* Calls the server of the METADATA tablet that holds `key`, again and again until it answers or
 * the deadline. */
static struct base_status call_holder(struct tab_metac *metac, struct base_bytes key,
                                      const struct ch_method *method, const void *request,
                                      ch_time deadline, struct base_arena *arena, void **reply,
                                      bool *unknown) CH_WAITS;
static struct base_status call_holder(struct tab_metac *metac, struct base_bytes key,
                                      const struct ch_method *method, const void *request,
                                      ch_time deadline, struct base_arena *arena, void **reply,
                                      bool *unknown)
{
    for (;;) {
        struct tab_location location;
        struct base_status status =
            tab_metac_locate(metac, TAB_TABLE_METADATA, key, deadline, arena, &location);
        if (!base_failed(status)) {
            ch_time until = ch_in(metac->env, RPC_TIMEOUT_S * CH_S);
            struct ch_call_options options = { .deadline = until < deadline ? until : deadline,
                                               .no_retry = true };
            status = ch_client_call(tab_metac_peer(metac, location.address), method, request,
                                    &options, arena, reply);
            if (!base_failed(status))
                return status;
            if (options.outcome_unknown && status.code != BASE_OUT_OF_RANGE)
                *unknown = true;
        }
        tab_metac_forget(metac, TAB_TABLE_METADATA, key);
        bool ours = ch_cancelled() || ch_now(metac->env) >= deadline;
        if (!worth_retrying(status.code) || ours || (*unknown && !method->idempotent))
            return base_status_wrap(status, "METADATA");
        base_status_free(&status);
        ch_sleep_until(metac->env, ch_in(metac->env, RETRY_MS * CH_MS));
    }
}

static void take_row(const Strata__Tablet__V1__MetaRow *from, struct tab_meta_row *row)
{
    *row =
        (struct tab_meta_row){ .key = ch_bytes_of(from->key), .value = ch_bytes_of(from->value) };
    if (from->version.len == TAB_META_VERSION_BYTES)
        memcpy(row->version, from->version.data, TAB_META_VERSION_BYTES);
}

struct base_status tab_metac_scan(struct tab_metac *metac, struct base_bytes start,
                                  struct base_bytes end, size_t limit, ch_time deadline,
                                  struct base_arena *arena, struct tab_meta_row **rows,
                                  size_t *count)
{
    size_t cap = 0;
    *rows = NULL;
    *count = 0;
    for (;;) {
        Strata__Tablet__V1__MetaScanRequest request = STRATA__TABLET__V1__META_SCAN_REQUEST__INIT;
        request.start = ch_data_of(start);
        request.end = ch_data_of(end);
        request.limit =
            limit && limit - *count < SCAN_PAGE ? (uint32_t)(limit - *count) : SCAN_PAGE;
        Strata__Tablet__V1__MetaScanReply *reply;
        bool unknown = false;
        const struct ch_method *method = &strata__tablet__v1__tabletserver__service
                                              .methods[STRATA__TABLET__V1__TABLETSERVER__META_SCAN];
        struct base_status status =
            call_holder(metac, start, method, &request, deadline, arena, (void **)&reply, &unknown);
        if (base_failed(status))
            return status;
        if (*count + reply->n_rows > cap) {
            cap = (*count + reply->n_rows) * 2;
            struct tab_meta_row *more = BASE_NEW_ARRAY(arena, struct tab_meta_row, cap);
            if (*count)
                memcpy(more, *rows, *count * sizeof(**rows));
            *rows = more;
        }
        for (size_t i = 0; i < reply->n_rows; i++)
            take_row(reply->rows[i], &(*rows)[(*count)++]);
        if (reply->covered.len == 0 || (limit && *count >= limit))
            return BASE_STATUS_OK;
        start = ch_bytes_of(reply->covered);
    }
}

struct base_status tab_metac_get(struct tab_metac *metac, struct base_bytes key, ch_time deadline,
                                 struct base_arena *arena, struct tab_meta_row *row)
{
    struct base_buf end = { 0 };
    base_buf_put_bytes(&end, key);
    base_buf_put_u8(&end, 0);
    struct tab_meta_row *rows;
    size_t count;
    struct base_status status =
        tab_metac_scan(metac, key, base_buf_bytes(&end), 1, deadline, arena, &rows, &count);
    base_buf_free(&end);
    if (base_failed(status))
        return status;
    if (count == 0)
        return base_status_make(BASE_NOT_FOUND, "METADATA: no such row");
    *row = rows[0];
    return BASE_STATUS_OK;
}

void tab_metac_version_new(struct tab_metac *metac, uint8_t version[TAB_META_VERSION_BYTES])
{
    base_put_le64(version, ch_random(metac->env));
    base_put_le64(version + 8, ch_random(metac->env));
}

/* After an unknown outcome: whether the row is now as the write would have left it. */
static struct base_status settle(struct tab_metac *metac, struct base_bytes key,
                                 const uint8_t *version, bool deleted, ch_time deadline, bool *done,
                                 bool *untouched, const uint8_t *expected) CH_WAITS;
static struct base_status settle(struct tab_metac *metac, struct base_bytes key,
                                 const uint8_t *version, bool deleted, ch_time deadline, bool *done,
                                 bool *untouched, const uint8_t *expected)
{
    struct base_arena arena = { 0 };
    struct tab_meta_row row;
    struct base_status status = tab_metac_get(metac, key, deadline, &arena, &row);
    bool none = status.code == BASE_NOT_FOUND;
    if (none)
        base_status_free(&status);
    if (!base_failed(status)) {
        *done =
            none ? deleted : !deleted && memcmp(row.version, version, TAB_META_VERSION_BYTES) == 0;
        *untouched = none ? expected == NULL
                          : expected && memcmp(row.version, expected, TAB_META_VERSION_BYTES) == 0;
    }
    base_arena_free(&arena);
    return status;
}

static struct base_status write_row(struct tab_metac *metac, const struct tab_meta_row *row,
                                    const uint8_t *expected, const uint8_t *version, bool delete,
                                    ch_time deadline) CH_WAITS;
static struct base_status write_row(struct tab_metac *metac, const struct tab_meta_row *row,
                                    const uint8_t *expected, const uint8_t *version, bool delete,
                                    ch_time deadline)
{
    Strata__Tablet__V1__MetaRow put = STRATA__TABLET__V1__META_ROW__INIT;
    Strata__Tablet__V1__MetaWriteRequest request = STRATA__TABLET__V1__META_WRITE_REQUEST__INIT;
    put.key = ch_data_of(row->key);
    put.value = ch_data_of(row->value);
    put.version = ch_data_of(base_bytes(version, TAB_META_VERSION_BYTES));
    request.row = &put;
    request.delete_ = delete;
    if (expected)
        request.expected_version = ch_data_of(base_bytes(expected, TAB_META_VERSION_BYTES));
    const struct ch_method *method = &strata__tablet__v1__tabletserver__service
                                          .methods[STRATA__TABLET__V1__TABLETSERVER__META_WRITE];
    struct base_arena arena = { 0 };
    struct base_status status;
    bool unknown =
        false; /* of any attempt: a lost one may still arrive, and make the next one fail */
    for (;;) {
        void *reply;
        bool done = false, untouched = false;
        status = call_holder(metac, row->key, method, &request, deadline, &arena, &reply, &unknown);
        if (!base_failed(status) || !unknown)
            break;
        struct base_status settled =
            settle(metac, row->key, version, delete, deadline, &done, &untouched, expected);
        if (base_failed(settled)) {
            base_status_free(&settled);
            break; /* still unknown: the first failure tells */
        }
        base_status_free(&status);
        if (done)
            break;
        if (!untouched) {
            status = base_status_make(BASE_FAILED_PRECONDITION, "METADATA: the row changed");
            break;
        }
    }
    base_arena_free(&arena);
    return status;
}

struct base_status tab_metac_write(struct tab_metac *metac, struct tab_meta_row *row, bool create,
                                   ch_time deadline)
{
    uint8_t version[TAB_META_VERSION_BYTES];
    tab_metac_version_new(metac, version);
    struct base_status status =
        write_row(metac, row, create ? NULL : row->version, version, false, deadline);
    if (!base_failed(status))
        memcpy(row->version, version, sizeof(version));
    return status;
}

struct base_status tab_metac_delete(struct tab_metac *metac, const struct tab_meta_row *row,
                                    ch_time deadline)
{
    uint8_t version[TAB_META_VERSION_BYTES] = { 0 };
    return write_row(metac, row, row->version, version, true, deadline);
}

struct base_status tab_meta_put_left(struct tab_metac *metac,
                                     const Strata__Tablet__V1__TabletMeta *meta, ch_time deadline)
{
    struct base_buf key = { 0 }, value = { 0 };
    tab_meta_key(&key, meta->left->table, ch_bytes_of(meta->left->end));
    ch_proto_encode(&meta->left->base, &value);
    struct tab_meta_row row = { .key = base_buf_bytes(&key), .value = base_buf_bytes(&value) };
    struct base_status status = tab_metac_write(metac, &row, true, deadline);
    if (status.code == BASE_FAILED_PRECONDITION)
        base_status_free(&status);
    base_buf_free(&key);
    base_buf_free(&value);
    return status;
}
