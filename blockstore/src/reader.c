/* reader.c: reading a file, also while it is written.
 *
 * Invariants:
 * 1. A read that needs to know where a growing file ends asks the master for its blocks and then
 * their servers for lengths, both after the read began: so it sees every append acknowledged
 * before. Reads below an end once known ask nobody.
 * 2. Only bytes below a durable length (durable.c), or of a sealed block, are handed out: they
 * never go away.
 * 3. Bytes are checked against their checksum by their server and again here; another replica is
 * read where one is bad, short, slow or away. */
#include <inttypes.h>
#include <stdlib.h>

#include "client_int.h"
#include "durable.h"

enum {
    POLL_MS = 2,      /* between looks at an end that is not certain yet */
    ATTEMPT_MS = 400, /* patience with one replica while there is another */
    PARALLEL = 4,     /* pieces of one read under way */
};

struct rblock {
    uint64_t id, start, length; /* length: of a sealed one its own; else the durable length known */
    bool sealed, started;       /* started: `start` is known */
    uint32_t quorum;
    size_t count;
    struct {
        uint64_t server;
        struct base_bytes address;
    } replicas[BLK_REPLICAS_MAX];
};
struct layout {
    struct base_arena arena;
    struct rblock *blocks;
    size_t count;
    uint64_t length; /* durable, of the file */
    bool sealed;
    uint32_t refs;
};
struct blk_reader {
    struct blk_client *client;
    struct ch_env *env;
    char *path;
    uint64_t file;
    struct layout *layout; /* what is known; replaced as a whole */
    uint32_t prefer;       /* the replica that answered last */
    struct ch_mutex looking;
    uint64_t looks; /* begun */
};

static void layout_unref(struct layout *layout)
{
    if (layout && --layout->refs == 0) {
        base_arena_free(&layout->arena);
        free(layout);
    }
}

/* ---- the layout ---- */

static void take_block(struct layout *layout, struct rblock *block, const BLK_PB(Block) * in,
                       bool first_unsealed)
{
    *block = (struct rblock){ .id = in->id,
                              .start = in->start,
                              .length = in->sealed ? in->length : 0,
                              .sealed = in->sealed,
                              .started = in->sealed || first_unsealed,
                              .quorum = in->quorum };
    for (size_t i = 0; i < in->n_replicas && i < BLK_REPLICAS_MAX; i++) {
        block->replicas[block->count].server = in->replicas[i]->server;
        block->replicas[block->count++].address =
            base_bytes_dup(&layout->arena, ch_bytes_of(in->replicas[i]->address));
    }
}

static struct base_status fetch_layout(struct blk_reader *reader, ch_time deadline,
                                       struct layout **out) CH_WAITS BASE_MUST_CHECK;
static struct base_status fetch_layout(struct blk_reader *reader, ch_time deadline,
                                       struct layout **out)
{
    struct layout *layout = calloc(1, sizeof *layout);
    BASE_ASSERT(layout);
    layout->refs = 1;
    BLK_PB(GetLayoutRequest) request;
    void *reply;
    strata__blockstore__v1__get_layout_request__init(&request);
    request.path = ch_data_str(reader->path);
    request.file = reader->file;
    struct base_status status = blk__call_master(reader->client, BLK_MASTER(GET_LAYOUT), &request,
                                                 deadline, &layout->arena, &reply);
    if (base_failed(status)) {
        layout_unref(layout);
        return status;
    }
    const BLK_PB(GetLayoutReply) *in = reply;
    bool unsealed_seen = false;
    layout->blocks = BASE_NEW_ARRAY(&layout->arena, struct rblock, in->n_blocks);
    layout->sealed = in->sealed;
    for (size_t i = 0; i < in->n_blocks; i++) {
        take_block(layout, &layout->blocks[layout->count++], in->blocks[i], !unsealed_seen);
        unsealed_seen = unsealed_seen || !in->blocks[i]->sealed;
        if (in->blocks[i]->sealed)
            layout->length = in->blocks[i]->start + in->blocks[i]->length;
    }
    reader->file = in->file;
    *out = layout;
    return status;
}

/* ---- where a growing file ends ---- */

struct ask { /* of one replica of one unsealed block */
    struct blk_reader *reader;
    struct rblock *block;
    struct base_bytes address;
    ch_time deadline;
    bool answered, exists;
    uint64_t start, length, committed;
};

static void ask_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct ask *ask = arg;
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(GetReplicasRequest) request;
    void *reply;
    strata__blockstore__v1__get_replicas_request__init(&request);
    request.n_blocks = 1;
    request.blocks = &ask->block->id;
    struct ch_call_options options = { .deadline = ask->deadline };
    struct base_status status = BASE_STATUS_OK;
    if (ask->address.len == 0)
        status = base_status_make(BASE_UNAVAILABLE, "no address");
    else
        status = ch_client_call(blk__peer(ask->reader->client->peers, ask->address),
                                BLK_SERVER(GET_REPLICAS), &request, &options, &arena, &reply);
    if (!base_failed(status)) {
        const BLK_PB(GetReplicasReply) *got = reply;
        if (got->n_replicas == 1 && !got->replicas[0]->doubtful) {
            ask->answered = true;
            ask->exists = got->replicas[0]->exists && got->replicas[0]->length > 0;
            ask->start = got->replicas[0]->start;
            ask->length = got->replicas[0]->length;
            ask->committed = got->replicas[0]->committed;
        }
    }
    base_status_free(&status);
    base_arena_free(&arena);
}

/* From the answers for the unsealed blocks: the file's durable length, and whether no acknowledged
 * byte can lie beyond. */
static bool judge_tail(struct layout *layout, size_t first, struct ask *asks, uint64_t *length)
{
    uint64_t low = layout->length, high = layout->length;
    size_t at = 0;
    bool certain = true;
    for (size_t i = first; i < layout->count; i++) {
        struct rblock *block = &layout->blocks[i];
        uint64_t lengths[BLK_REPLICAS_MAX], committed = 0;
        size_t answered = 0;
        for (size_t k = 0; k < block->count; k++, at++) {
            if (!asks[at].answered)
                continue;
            lengths[answered++] = asks[at].length;
            committed = asks[at].committed > committed ? asks[at].committed : committed;
            if (asks[at].exists && !block->started) {
                block->started = true;
                block->start = asks[at].start;
            }
        }
        struct blk__durable durable =
            blk__durable_length(lengths, answered, block->count, block->quorum, committed);
        block->length = durable.low;
        if (durable.high == UINT64_MAX || (durable.high > 0 && !block->started)) {
            certain = false;
            continue;
        }
        if (!block->started)
            continue;
        /* That the block has begun says that all before it was acknowledged; so is what it has
         * itself. */
        if (block->start > low)
            low = block->start;
        if (block->start + durable.low > low)
            low = block->start + durable.low;
        if (block->start + durable.high > high)
            high = block->start + durable.high;
    }
    *length = low;
    return certain && low >= high;
}

static struct base_status ask_tail(struct blk_reader *reader, struct layout *layout, size_t first,
                                   ch_time deadline, bool *certain) CH_WAITS BASE_MUST_CHECK;
static struct base_status ask_tail(struct blk_reader *reader, struct layout *layout, size_t first,
                                   ch_time deadline, bool *certain)
{
    struct ch_gather gather;
    struct ask asks[BLK_TAIL_MAX * BLK_REPLICAS_MAX];
    size_t n = 0;
    ch_time patience = ch_in(reader->env, ATTEMPT_MS * CH_MS);
    ch_gather_init(&gather, "ask lengths");
    for (size_t i = first; i < layout->count; i++) {
        for (size_t k = 0; k < layout->blocks[i].count; k++) {
            if (n == BLK_TAIL_MAX * BLK_REPLICAS_MAX)
                return base_status_make(BASE_INTERNAL, "%s has too many unsealed blocks",
                                        reader->path);
            asks[n] = (struct ask){ .reader = reader,
                                    .block = &layout->blocks[i],
                                    .address = layout->blocks[i].replicas[k].address,
                                    .deadline = patience < deadline ? patience : deadline };
            ch_gather_add(&gather, ask_main, &asks[n++]);
        }
    }
    ch_gather_wait(&gather);
    *certain = judge_tail(layout, first, asks, &layout->length);
    return ch_cancelled() ? base_status_make(BASE_CANCELLED, "read of %s", reader->path)
                          : BASE_STATUS_OK;
}

/* What was durable is: maybe fewer servers answered now. */
static void keep_known(struct layout *layout, const struct layout *old)
{
    if (layout->length < old->length)
        layout->length = old->length;
    for (size_t i = 0; i < layout->count; i++) {
        struct rblock *block = &layout->blocks[i];
        for (size_t k = 0; k < old->count && !block->sealed; k++) {
            if (old->blocks[k].id != block->id || old->blocks[k].length <= block->length)
                continue;
            block->length = old->blocks[k].length;
            block->start = old->blocks[k].start;
            block->started = old->blocks[k].started;
        }
    }
}

/* A block begins where all before it was acknowledged: so the one before it has at least that much,
 * somewhere. */
static void close_gaps(struct layout *layout)
{
    for (size_t i = 0; i + 1 < layout->count; i++) {
        struct rblock *block = &layout->blocks[i];
        for (size_t k = i + 1; k < layout->count && !block->sealed && block->started; k++) {
            const struct rblock *next = &layout->blocks[k];
            if (next->started && next->start > block->start) {
                if (next->start - block->start > block->length)
                    block->length = next->start - block->start;
                break;
            }
        }
    }
}

/* A layout that was asked for after this call began, and (certain) whose length is the end as of
 * some moment since. */
static struct base_status look_once(struct blk_reader *reader, ch_time deadline,
                                    bool *certain) CH_WAITS BASE_MUST_CHECK;
static struct base_status look_once(struct blk_reader *reader, ch_time deadline, bool *certain)
{
    struct layout *layout;
    struct base_status status = fetch_layout(reader, deadline, &layout);
    if (base_failed(status))
        return status;
    size_t first = 0;
    while (first < layout->count && layout->blocks[first].sealed)
        first++;
    *certain = true;
    if (first < layout->count && !layout->sealed)
        status = ask_tail(reader, layout, first, deadline, certain);
    if (base_failed(status)) {
        layout_unref(layout);
        return status;
    }
    if (reader->layout)
        keep_known(layout, reader->layout);
    close_gaps(layout);
    layout_unref(reader->layout);
    reader->layout = layout;
    return status;
}

/* Looks until the end is certain, or `enough` bytes are known to be durable. */
static struct base_status look(struct blk_reader *reader, uint64_t enough,
                               ch_time deadline) CH_WAITS BASE_MUST_CHECK;
static struct base_status look(struct blk_reader *reader, uint64_t enough, ch_time deadline)
{
    enum ch_outcome outcome = ch_mutex_lock(&reader->looking, deadline);
    if (outcome != CH_OK)
        return ch_outcome_status(outcome, "read");
    struct base_status status = BASE_STATUS_OK;
    bool certain = false;
    while (!base_failed(status) && !certain &&
           !(reader->layout && reader->layout->length >= enough)) {
        status = look_once(reader, deadline, &certain);
        if (!base_failed(status) && !certain && reader->layout->length < enough) {
            outcome = ch_sleep_until(reader->env, ch_in(reader->env, POLL_MS * CH_MS));
            if (outcome == CH_CANCELLED)
                status = ch_outcome_status(outcome, "read");
            else if (ch_now(reader->env) >= deadline)
                status = base_status_make(BASE_UNAVAILABLE,
                                          "%s: too few servers answer to tell where it ends",
                                          reader->path);
        }
    }
    ch_mutex_unlock(&reader->looking);
    return base_status_wrap(status, "read %s", reader->path);
}

/* ---- reading ---- */

struct piece {
    struct blk_reader *reader;
    const struct rblock *block;
    uint64_t offset; /* in the block */
    size_t len;
    uint8_t *out;
    ch_time deadline;
    struct base_status status;
};

static void report_bad(struct blk_reader *reader, uint64_t block, uint64_t server,
                       const char *reason) CH_WAITS;
static void report_bad(struct blk_reader *reader, uint64_t block, uint64_t server,
                       const char *reason)
{
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(ReportBadRequest) request;
    void *reply;
    strata__blockstore__v1__report_bad_request__init(&request);
    request.block = block;
    request.server = server;
    request.reason = ch_data_str(reason);
    base_status_drop(blk__call_master(reader->client, BLK_MASTER(REPORT_BAD), &request,
                                      ch_in(reader->env, ATTEMPT_MS * CH_MS), &arena,
                                      &reply)); /* a hint */
    base_arena_free(&arena);
}

static void piece_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct piece *p = arg;
    struct blk_reader *reader = p->reader;
    size_t n = p->block->count;
    struct base_arena arena;
    base_arena_init(&arena);
    struct base_status status =
        base_status_make(BASE_DATA_LOSS, "block %" PRIu64 " has no replica", p->block->id);
    for (size_t i = 0; i < n && base_failed(status) && !ch_cancelled(); i++) {
        size_t k = (reader->prefer + i) % n;
        struct base_bytes data, address = p->block->replicas[k].address;
        if (address.len == 0)
            continue;
        ch_time attempt = ch_in(reader->env, ATTEMPT_MS * CH_MS);
        base_status_free(&status);
        status = blk__peer_read(blk__peer(reader->client->peers, address), p->block->id, p->offset,
                                p->len, i + 1 < n && attempt < p->deadline ? attempt : p->deadline,
                                &arena, &data);
        if (!base_failed(status)) {
            memcpy(p->out, data.data, p->len);
            reader->prefer = (uint32_t)k;
            break;
        }
        ch_count(reader->client->read_failovers, 1);
        if (status.code == BASE_DATA_LOSS)
            report_bad(reader, p->block->id, p->block->replicas[k].server,
                       base_status_text(&status));
    }
    base_arena_free(&arena);
    p->status = status;
}

/* [offset, offset+len) lies below the layout's length. Splits it into pieces. */
static size_t cut_pieces(struct blk_reader *reader, const struct layout *layout, uint64_t offset,
                         uint8_t *data, size_t len, ch_time deadline, struct piece *pieces,
                         size_t max, size_t *covered)
{
    size_t n = 0;
    *covered = 0;
    for (size_t i = layout->count;
         i-- > 0;) { /* the later block first, where two have the byte: it is the same */
        const struct rblock *b = &layout->blocks[i];
        if (!b->started || b->length == 0 || offset < b->start || offset >= b->start + b->length)
            continue;
        uint64_t in = offset - b->start;
        size_t left = b->length - in < len ? b->length - in : len;
        for (size_t k = i + 1; k < layout->count; k++) /* a later block takes over */
            if (layout->blocks[k].started && layout->blocks[k].length &&
                layout->blocks[k].start > offset && layout->blocks[k].start - offset < left)
                left = layout->blocks[k].start - offset;
        while (left > 0 && n < max) {
            size_t take = left < BLK_MESSAGE_BYTES ? left : BLK_MESSAGE_BYTES;
            pieces[n++] = (struct piece){ reader, b, in, take, data, deadline, BASE_STATUS_OK };
            in += take;
            data += take;
            left -= take;
            *covered += take;
        }
        break;
    }
    return n;
}

/* As much as one block and a few pieces give. */
static struct base_status read_some(struct blk_reader *reader, uint64_t offset, uint8_t *data,
                                    size_t len, ch_time deadline,
                                    size_t *got) CH_WAITS BASE_MUST_CHECK;
static struct base_status read_some(struct blk_reader *reader, uint64_t offset, uint8_t *data,
                                    size_t len, ch_time deadline, size_t *got)
{
    struct piece pieces[PARALLEL];
    struct layout *layout = reader->layout;
    layout->refs++;
    size_t n = cut_pieces(reader, layout, offset, data, len, deadline, pieces, PARALLEL, got);
    struct base_status status = BASE_STATUS_OK;
    if (n == 0)
        status = base_status_make(BASE_UNAVAILABLE, "no block that is known has offset %" PRIu64,
                                  offset);
    if (n == 1) {
        piece_main(&pieces[0]);
    } else if (n > 1) {
        struct ch_gather gather;
        ch_gather_init(&gather, "read pieces");
        for (size_t i = 0; i < n; i++)
            ch_gather_add(&gather, piece_main, &pieces[i]);
        ch_gather_wait(&gather);
    }
    for (size_t i = 0; i < n; i++) {
        if (!base_failed(status))
            status = pieces[i].status;
        else
            base_status_free(&pieces[i].status);
    }
    layout_unref(layout);
    return status;
}

struct base_status blk_read(struct blk_reader *reader, uint64_t offset, void *data, size_t len,
                            ch_time deadline, size_t *got)
{
    uint8_t *out = data;
    struct base_status status = BASE_STATUS_OK;
    *got = 0;
    if (len > UINT64_MAX - offset)
        return base_status_make(BASE_INVALID_ARGUMENT, "read %s: %zu bytes at %" PRIu64,
                                reader->path, len, offset);
    if (offset + len > reader->layout->length && !reader->layout->sealed)
        status = look(reader, offset + len, deadline);
    uint64_t end = reader->layout->length < offset + len ? reader->layout->length : offset + len;
    int tries = 0;
    while (!base_failed(status) && offset + *got < end) {
        size_t part = 0;
        status = read_some(reader, offset + *got, out + *got, end - offset - *got, deadline, &part);
        if (!base_failed(status)) {
            *got += part;
        } else if (++tries <= 3 && ch_now(reader->env) < deadline && !ch_cancelled()) {
            /* The blocks may have changed: ended elsewhere, repaired, moved. */
            bool certain;
            struct base_status why = status;
            status = look_once(reader, deadline, &certain);
            if (base_failed(status)) {
                base_status_free(&status);
                status = why;
                break;
            }
            base_status_free(&why);
        }
    }
    if (base_failed(status))
        *got = 0;
    return base_status_wrap(status, "read %s at %" PRIu64, reader->path, offset);
}

struct base_status blk_reader_length(struct blk_reader *reader, ch_time deadline, uint64_t *length)
{
    struct base_status status = BASE_STATUS_OK;
    if (!reader->layout->sealed)
        status = look(reader, UINT64_MAX, deadline);
    *length = reader->layout->length;
    return status;
}

struct base_status blk_open_read(struct blk_client *client, const char *path, ch_time deadline,
                                 struct blk_reader **out)
{
    struct blk_reader *reader = calloc(1, sizeof *reader);
    BASE_ASSERT(reader);
    reader->client = client;
    reader->env = client->env;
    reader->path = strdup(path);
    ch_mutex_init(&reader->looking);
    reader->prefer = (uint32_t)ch_random_below(client->env, BLK_REPLICAS_MAX);
    struct base_status status = fetch_layout(reader, deadline, &reader->layout);
    if (base_failed(status))
        blk_reader_close(reader);
    else
        *out = reader;
    return status;
}

void blk_reader_close(struct blk_reader *reader)
{
    layout_unref(reader->layout);
    free(reader->path);
    free(reader);
}
