/* store_local_snapshot.c: snapshots: a file each, checksummed in blocks, so that any piece of one
 * can be read and sent by itself.
 *
 * Invariants
 * 1. A file under its final name is whole and durable: it is written under another name, synced,
 * renamed, and the folder synced; only then is it the newest, and only then older ones and entries
 * go.
 * 2. The newest has the highest index; one that comes late is not taken.
 * 3. A block's checksum is seeded with the head's: a block of another snapshot does not pass.
 * 4. Saving and receiving run beside writes and share nothing with them but the disk: slices of
 * SLICE_BLOCKS are synced one by one, so the log's syncs get in between. `install` keeps two that
 * end at once apart.
 * 5. A snapshot that the log does not lead on from (it ends before it, or has another entry there)
 * replaces the log: the next batch says so in a record (clear_index). Until that is durable no
 * segment goes, so that a load finds what it needs to come to the same end. */
#include "store_local.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/codec.h"

enum {
    HEAD = 4096,
    BLOCK = 64 << 10, /* with its head */
    BLOCK_HEAD = 8,   /* crc, number */
    BLOCK_DATA = BLOCK - BLOCK_HEAD,
    SLICE_BLOCKS = 16,
    READ_MAX = 4 << 20, /* of state, in one go */
};
static const char magic[8] = "STRATSN2";

/* ---- the format ---- */

static void head_put(const struct con__snapshot_meta *meta, uint8_t head[HEAD])
{
    struct base_buf config = { 0 };

    con_config_encode(&meta->config, &config);
    BASE_ASSERT(config.len <= HEAD - 52);
    memset(head, 0, HEAD);
    memcpy(head, magic, sizeof(magic));
    base_put_le32(head + 12, (uint32_t)config.len);
    base_put_le64(head + 16, meta->member);
    base_put_le64(head + 24, meta->index);
    base_put_le64(head + 32, meta->term);
    base_put_le64(head + 40, meta->total);
    memcpy(head + 52, config.data, config.len);
    base_put_le32(head + 8, base_crc32c(0, head + 12, HEAD - 12));
    base_buf_free(&config);
}

static bool head_take(const uint8_t head[HEAD], struct con__snapshot_meta *meta)
{
    uint32_t config_len = base_get_le32(head + 12);

    if (memcmp(head, magic, sizeof(magic)) != 0 ||
        base_get_le32(head + 8) != base_crc32c(0, head + 12, HEAD - 12) || config_len > HEAD - 52)
        return false;
    meta->member = base_get_le64(head + 16);
    meta->index = base_get_le64(head + 24);
    meta->term = base_get_le64(head + 32);
    meta->total = base_get_le64(head + 40);
    return base_status_drop(con_config_decode(base_bytes(head + 52, config_len), &meta->config)) ==
           BASE_OK;
}

static uint32_t block_crc(uint32_t seed, uint32_t number, struct base_bytes data)
{
    uint8_t le[4];

    base_put_le32(le, number);
    return base_crc32c(base_crc32c(seed, le, sizeof(le)), data.data, data.len);
}

static uint64_t file_size(uint64_t total)
{
    return HEAD + total + (total + BLOCK_DATA - 1) / BLOCK_DATA * BLOCK_HEAD;
}

/* ---- making one ---- */

void con__snapshot_abandon(struct con__store_local *store, struct con__snapshot_maker *maker)
{
    struct con__snapshot_maker gone = *maker;

    *maker = (struct con__snapshot_maker){ 0 };
    if (!gone.file)
        return;
    ch_file_close(gone.file);
    base_status_drop(
        ch_file_remove(store->env, gone.path)); /* the next load does, if this cannot */
    free(gone.path);
    base_buf_free(&gone.tail);
}

/* `kind` tells a saved one from a received one of the same index. */
static CH_WAITS struct base_status maker_begin(struct con__store_local *store,
                                               struct con__snapshot_maker *maker,
                                               const struct con__snapshot_meta *meta,
                                               const char *kind)
{
    uint8_t *head = malloc(HEAD);
    struct base_bytes part = { head, HEAD };
    struct base_status status;

    BASE_ASSERT(head != NULL && !maker->file);
    head_put(meta, head);
    *maker = (struct con__snapshot_maker){
        .path = con__store_path(store, CON_SNAPSHOT_PREFIX, meta->index, kind),
        .meta = *meta,
        .seed = base_get_le32(head + 8),
    };
    status = ch_file_open(store->env, maker->path,
                          CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE | CH_FILE_TRUNCATE,
                          &maker->file);
    if (!base_failed(status))
        status = ch_file_write(maker->file, 0, &part, 1, false);
    if (!maker->file) {
        free(maker->path);
        *maker = (struct con__snapshot_maker){ 0 };
    }
    free(head);
    return status;
}

/* Writes the blocks that `data` fills, and a last one that is not full; durably. */
static CH_WAITS struct base_status slice_write(struct con__snapshot_maker *maker, uint64_t offset,
                                               struct base_bytes data)
{
    uint8_t heads[SLICE_BLOCKS][BLOCK_HEAD];
    struct base_bytes parts[2 * SLICE_BLOCKS];
    size_t blocks = 0;
    uint32_t number = (uint32_t)(offset / BLOCK_DATA);

    BASE_ASSERT(offset % BLOCK_DATA == 0 && data.len <= (size_t)SLICE_BLOCKS * BLOCK_DATA);
    for (; data.len > 0; blocks++) {
        struct base_bytes block = { data.data, data.len < BLOCK_DATA ? data.len : BLOCK_DATA };

        base_put_le32(heads[blocks], block_crc(maker->seed, number + (uint32_t)blocks, block));
        base_put_le32(heads[blocks] + 4, number + (uint32_t)blocks);
        parts[2 * blocks] = base_bytes(heads[blocks], BLOCK_HEAD);
        parts[2 * blocks + 1] = block;
        data = base_bytes(data.data + block.len, data.len - block.len);
    }
    return ch_file_write(maker->file, HEAD + (uint64_t)number * BLOCK, parts, 2 * blocks, true);
}

/* Takes more of the state; writes what makes whole blocks, and with the last of it the rest. */
static CH_WAITS struct base_status maker_put(struct con__snapshot_maker *maker,
                                             struct base_bytes data)
{
    struct base_status status = BASE_STATUS_OK;

    while (data.len > 0 && !base_failed(status)) {
        uint64_t begin = maker->taken - maker->tail.len;
        size_t take = data.len;

        if (maker->tail.len > 0 && take > BLOCK_DATA - maker->tail.len)
            take = BLOCK_DATA - maker->tail.len;
        if (take > (size_t)SLICE_BLOCKS * BLOCK_DATA)
            take = (size_t)SLICE_BLOCKS * BLOCK_DATA;
        if (maker->tail.len == 0 && take >= BLOCK_DATA) {
            take -= take % BLOCK_DATA;
            status = slice_write(maker, begin, base_bytes(data.data, take));
        } else {
            base_buf_put(&maker->tail, data.data, take);
            if (maker->tail.len == BLOCK_DATA || maker->taken + take == maker->meta.total) {
                status = slice_write(maker, begin, base_buf_bytes(&maker->tail));
                base_buf_clear(&maker->tail);
            }
        }
        maker->taken += take;
        data = base_bytes(data.data + take, data.len - take);
    }
    return status;
}

/* Makes the finished file the newest snapshot. *installed: false when a newer one is there; then
 * it is abandoned. */
static CH_WAITS struct base_status maker_install(struct con__store_local *store,
                                                 struct con__snapshot_maker *maker, bool *installed)
{
    struct con__snapshot_meta meta = maker->meta, before;
    char *path = con__store_path(store, CON_SNAPSHOT_PREFIX, meta.index, "");
    struct base_status status = BASE_STATUS_OK;

    BASE_ASSERT(maker->taken == meta.total && maker->tail.len == 0);
    *installed = false;
    ch_mutex_lock_always(&store->install);
    before = store->snapshot;
    if (before.index < meta.index) {
        status = ch_file_sync(maker->file); /* the head of an empty one */
        if (!base_failed(status))
            status = ch_file_rename(store->env, maker->path, path);
        if (!base_failed(status))
            status = ch_dir_sync(store->env, store->dir);
        if (!base_failed(status)) {
            store->snapshot = meta;
            *installed = true;
        }
    }
    ch_mutex_unlock(&store->install);
    free(path);
    con__snapshot_abandon(store, maker); /* of the name it had: gone when it was installed */
    if (*installed && before.index > 0) {
        path = con__store_path(store, CON_SNAPSHOT_PREFIX, before.index, "");
        base_status_drop(ch_file_remove(store->env, path)); /* the next load does, else */
        free(path);
    }
    return status;
}

void con__snapshot_anchor(struct con__store_local *store)
{
    if (store->clear_index > 0)
        return;
    if (!store->anchored)
        store->anchored =
            store->index.cleared_index == store->snapshot.index ||
            con__index_term(&store->index, store->snapshot.index) == store->snapshot.term;
    if (store->anchored)
        con__index_drop(&store->index, store->drop);
}

/* ---- saving ---- */

struct base_status con__store_snapshot_save(void *self, uint64_t index, uint64_t term,
                                            const struct con_config *config,
                                            struct base_bytes state, uint64_t drop)
{
    struct con__store_local *store = self;
    struct con__snapshot_maker maker = { 0 };
    struct con__snapshot_meta meta = {
        .member = store->member, .index = index, .term = term, .total = state.len, .config = *config
    };
    bool installed = false;
    struct base_status status;

    BASE_ASSERT(store->loaded && drop <= index && index > 0);
    if (index <= store->snapshot.index)
        return BASE_STATUS_OK;
    status = maker_begin(store, &maker, &meta, ".save.new");
    if (!base_failed(status))
        status = maker_put(&maker, state);
    if (!base_failed(status))
        status = maker_install(store, &maker, &installed);
    con__snapshot_abandon(store, &maker);
    if (installed) {
        /* The log may not have come so far: what is applied may be on its way to our disk while
         * others hold it already. */
        store->anchored = con__index_term(&store->index, index) == term;
        store->drop = drop > store->drop ? drop : store->drop;
        store->bytes = con__index_bytes(&store->index, index);
        con__snapshot_anchor(store);
        con__keeper_kick(store);
    }
    return base_status_wrap(status, "log store %s: snapshot of index %" PRIu64, store->dir, index);
}

/* ---- receiving ---- */

static bool chunk_follows(const struct con__snapshot_maker *maker,
                          const struct con_store_chunk *chunk)
{
    return maker->file && chunk->index == maker->meta.index && chunk->term == maker->meta.term &&
           chunk->total == maker->meta.total && chunk->offset == maker->taken &&
           chunk->data.len <= chunk->total - chunk->offset;
}

/* The snapshot is durable and the newest; the log follows it. No write is under way. */
static void received_apply(struct con__store_local *store)
{
    uint64_t index = store->snapshot.index;

    if (con__index_term(&store->index, index) == store->snapshot.term) {
        store->anchored = true;
        store->clear_index = 0;
    } else {
        con__index_clear(&store->index, index);
        store->anchored = false;
        store->clear_index = index;
        store->clear_term = store->snapshot.term;
    }
    store->drop = index;
    store->bytes = con__index_bytes(&store->index, index);
    con__snapshot_anchor(store);
    con__keeper_kick(store);
}

static CH_WAITS struct base_status received_install(struct con__store_local *store,
                                                    struct base_buf *state)
{
    uint64_t index = store->receiving.meta.index;
    struct con__snapshot_meta meta;
    bool installed = false;
    struct base_status status = maker_install(store, &store->receiving, &installed);

    if (base_failed(status))
        return status;
    if (!installed)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "a newer one, of index %" PRIu64 ", is here",
                                store->snapshot.index);
    received_apply(store);
    return state ? con__snapshot_load(store, index, &meta, state) : BASE_STATUS_OK;
}

struct base_status con__store_snapshot_receive(void *self, const struct con_store_chunk *chunk,
                                               struct base_buf *state)
{
    struct con__store_local *store = self;
    uint64_t index = chunk->index;
    struct con__snapshot_meta meta = { .member = store->member,
                                       .index = chunk->index,
                                       .term = chunk->term,
                                       .total = chunk->total,
                                       .config = chunk->config };
    struct base_status status = BASE_STATUS_OK;
    bool last = chunk->offset + chunk->data.len == chunk->total;

    BASE_ASSERT(store->loaded && !store->writing && index > 0);
    if (index <= store->snapshot.index) {
        status =
            base_status_make(BASE_FAILED_PRECONDITION, "one of index %" PRIu64 " is here already",
                             store->snapshot.index);
    } else if (chunk->offset == 0) {
        con__snapshot_abandon(store, &store->receiving);
        status = maker_begin(store, &store->receiving, &meta, ".receive.new");
    }
    if (!base_failed(status) && !chunk_follows(&store->receiving, chunk))
        status = base_status_make(BASE_INVALID_ARGUMENT,
                                  "a piece at %" PRIu64 " of %" PRIu64
                                  " bytes is not the one that comes next",
                                  chunk->offset, chunk->total);
    if (!base_failed(status))
        status = maker_put(&store->receiving, chunk->data);
    if (!base_failed(status) && last)
        status = received_install(store, state);
    if (base_failed(status) && status.code != BASE_INVALID_ARGUMENT)
        con__snapshot_abandon(store, &store->receiving);
    return base_status_wrap(status, "log store %s: snapshot of index %" PRIu64 " from a peer",
                            store->dir, index);
}

/* ---- reading ---- */

static CH_WAITS struct base_status head_read(struct ch_file *file, uint64_t index,
                                             struct con__snapshot_meta *meta, uint32_t *seed)
{
    uint8_t *head = malloc(HEAD);
    uint64_t size = 0;
    size_t got = 0;
    struct base_status status = ch_file_read(file, 0, head, HEAD, &got);

    if (!base_failed(status))
        status = ch_file_size(file, &size);
    if (!base_failed(status)) {
        if (got < HEAD || !head_take(head, meta) || meta->index != index)
            status = base_status_make(BASE_DATA_LOSS, "its head is damaged");
        else if (size != file_size(meta->total))
            status = base_status_make(BASE_DATA_LOSS,
                                      "it has %" PRIu64 " bytes and should have %" PRIu64, size,
                                      file_size(meta->total));
        *seed = base_get_le32(head + 8);
    }
    free(head);
    return status;
}

/* Appends state [offset, offset + len), which is there, to `out`; checks every block it touches. */
static CH_WAITS struct base_status range_read(struct ch_file *file, uint32_t seed, uint64_t total,
                                              uint64_t offset, size_t len, struct base_buf *out)
{
    uint64_t number = offset / BLOCK_DATA, end = (offset + len + BLOCK_DATA - 1) / BLOCK_DATA;
    uint64_t from = number * BLOCK_DATA;
    struct base_buf bytes = { 0 };
    struct base_status status = BASE_STATUS_OK;

    while (number < end && !base_failed(status)) {
        uint64_t left = total - from;
        size_t data_len = left < BLOCK_DATA ? (size_t)left : BLOCK_DATA, got = 0;
        size_t skip = offset > from ? (size_t)(offset - from) : 0, take;

        base_buf_clear(&bytes);
        status = ch_file_read(file, HEAD + number * BLOCK,
                              base_buf_extend(&bytes, BLOCK_HEAD + data_len), BLOCK_HEAD + data_len,
                              &got);
        if (base_failed(status))
            break;
        if (got < BLOCK_HEAD + data_len ||
            base_get_le32(bytes.data) !=
                block_crc(seed, (uint32_t)number, base_bytes(bytes.data + BLOCK_HEAD, data_len))) {
            status =
                base_status_make(BASE_DATA_LOSS, "block %" PRIu64 " fails its checksum", number);
            break;
        }
        take = data_len - skip < len ? data_len - skip : len;
        base_buf_put(out, bytes.data + BLOCK_HEAD + skip, take);
        len -= take;
        from += data_len;
        number++;
    }
    base_buf_free(&bytes);
    return status;
}

struct base_status con__snapshot_load(struct con__store_local *store, uint64_t index,
                                      struct con__snapshot_meta *meta, struct base_buf *state)
{
    char *path = con__store_path(store, CON_SNAPSHOT_PREFIX, index, "");
    struct ch_file *file = NULL;
    uint32_t seed = 0;
    struct base_status status = ch_file_open(store->env, path, CH_FILE_READ, &file);

    if (!base_failed(status))
        status = head_read(file, index, meta, &seed);
    if (!base_failed(status) && meta->member != store->member)
        status = base_status_make(BASE_DATA_LOSS, "it belongs to another member");
    if (!base_failed(status))
        status = range_read(file, seed, meta->total, 0, (size_t)meta->total, state);
    if (file)
        ch_file_close(file);
    status = base_status_wrap(status, "%s", path);
    free(path);
    return status;
}

struct base_status con__store_snapshot_read(void *self, uint64_t index, uint64_t offset, size_t len,
                                            struct base_arena *arena, struct con_store_chunk *chunk)
{
    struct con__store_local *store = self;
    struct con__snapshot_meta meta;
    struct base_buf data = { 0 };
    struct ch_file *file = NULL;
    uint32_t seed = 0;
    char *path;
    struct base_status status;

    if (store->snapshot.index == 0 || (index != 0 && index != store->snapshot.index))
        return base_status_make(BASE_NOT_FOUND,
                                "log store %s: no snapshot of index %" PRIu64 " (any more)",
                                store->dir, index);
    index = store->snapshot.index;
    path = con__store_path(store, CON_SNAPSHOT_PREFIX, index, "");
    status = ch_file_open(store->env, path, CH_FILE_READ, &file);
    if (!base_failed(status))
        status = head_read(file, index, &meta, &seed);
    if (!base_failed(status) && offset > meta.total)
        status = base_status_make(BASE_INVALID_ARGUMENT, "byte %" PRIu64 " of %" PRIu64, offset,
                                  meta.total);
    if (!base_failed(status)) {
        len = len < READ_MAX ? len : READ_MAX;
        len = len < meta.total - offset ? len : (size_t)(meta.total - offset);
        status = range_read(file, seed, meta.total, offset, len, &data);
    }
    if (!base_failed(status))
        *chunk = (struct con_store_chunk){
            .index = meta.index,
            .term = meta.term,
            .config = meta.config,
            .offset = offset,
            .total = meta.total,
            .data = base_bytes_dup(arena, base_buf_bytes(&data)),
        };
    if (file)
        ch_file_close(file);
    base_buf_free(&data);
    status = base_status_wrap(status, "%s", path);
    free(path);
    return status;
}
