/* faults_clients.c: writers that append, pipelined, and take files from each other; readers of
 * what was acknowledged. */
#include "faults_world.h"

/* ---- writers ---- */

struct appending {
    struct file *f;
    struct blk_writer *writer;
    uint64_t next; /* where the next append goes */
    bool failed;
    int left;
};

static void append_one(struct appending *a, struct ch_env *env) CH_WAITS;
static void append_one(struct appending *a, struct ch_env *env)
{
    size_t len = 1 + ch_random_below(env, ch_random_below(env, 16) == 0 ? 60000 : 3000);
    uint64_t at = a->next, offset = 0, epoch = blk_writer_epoch(a->writer);
    uint8_t *data = malloc(len);
    for (size_t i = 0; i < len; i++)
        data[i] = byte_of(a->f->id, epoch, at + i);
    struct base_bytes parts[2] = { base_bytes(data, len / 2),
                                   base_bytes(data + len / 2, len - len / 2) };
    a->next += len;
    struct base_status status = blk_append(a->writer, parts, 2, ch_in(env, 4 * CH_S), &offset);
    if (base_failed(status)) {
        a->failed = true;
        w.failed_appends++;
    } else {
        MUST(offset == at, "%s: append at %llu went to %llu", a->f->path, (unsigned long long)at,
             (unsigned long long)offset);
        epoch_acked(a->f, epoch, at + len);
        w.appends++;
    }
    base_status_free(&status);
    free(data);
}

static void append_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct appending *a = arg;
    struct ch_env *env = ch_fiber_env();
    while (!a->failed && !w.stop && !ch_cancelled() && a->left-- > 0) {
        append_one(a, env);
        if (ch_random_below(env, 4) &&
            ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 120) * CH_MS)) !=
                CH_TIMEOUT)
            return;
    }
}

static void write_session(struct ch_env *env, struct blk_client *client, struct file *f) CH_WAITS;
static void write_session(struct ch_env *env, struct blk_client *client, struct file *f)
{
    struct blk_writer *writer;
    uint64_t length, acked = acked_of(f), observed = f->observed;
    struct base_status status =
        blk_open_append(client, f->path, &(struct blk_append_options){ .create = true },
                        ch_in(env, 4 * CH_S), &writer, &length);
    if (base_failed(status)) {
        base_status_free(&status);
        (void)ch_sleep_until(env, ch_in(env, 100 * CH_MS));
        return;
    }
    w.opens++;
    MUST(length >= acked, "%s: opened at %llu, %llu was acknowledged", f->path,
         (unsigned long long)length, (unsigned long long)acked);
    MUST(length >= observed, "%s: opened at %llu, a reader was told %llu", f->path,
         (unsigned long long)length, (unsigned long long)observed);
    epoch_add(f, blk_writer_epoch(writer), length);
    struct appending a = { f, writer, length, false, 1 + (int)ch_random_below(env, 150) };
    struct ch_gather gather;
    ch_gather_init(&gather, "appends");
    for (uint64_t i = 1 + ch_random_below(env, PIPELINED); i > 0; i--)
        ch_gather_add(&gather, append_fiber, &a);
    ch_gather_wait(&gather);
    blk_writer_close(writer);
    if (ch_random_below(env, 3) == 0)
        (void)ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 500) * CH_MS));
}

int writer_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct client *c = arg;
    struct blk_client *client = blk_cluster_client(&w.cluster);
    while (!w.stop && !ch_cancelled())
        write_session(env, client, &w.files[c->file]);
    blk_client_free(client);
    return 0;
}

/* ---- readers ---- */

static void read_once(struct ch_env *env, struct blk_reader *reader, struct file *f,
                      uint8_t *buffer, size_t cap) CH_WAITS;
static void read_once(struct ch_env *env, struct blk_reader *reader, struct file *f,
                      uint8_t *buffer, size_t cap)
{
    uint64_t acked = acked_of(f), length = 0, offset;
    size_t got = 0;
    struct base_status status = BASE_STATUS_OK;
    if (ch_random_below(env, 3) == 0) {
        status = blk_reader_length(reader, ch_in(env, 2 * CH_S), &length);
        if (!base_failed(status)) {
            MUST(length >= acked, "%s: a reader was told %llu, %llu was acknowledged", f->path,
                 (unsigned long long)length, (unsigned long long)acked);
            f->observed = length > f->observed ? length : f->observed;
        }
        base_status_free(&status);
        return;
    }
    bool tail = ch_random_below(env, 2) == 0;
    offset = tail && acked > cap / 2 ? acked - cap / 2 : ch_random_below(env, acked + 1);
    size_t len = 1 + ch_random_below(env, cap);
    status = blk_read(reader, offset, buffer, len, ch_in(env, 2 * CH_S), &got);
    if (!base_failed(status)) {
        uint64_t must = acked > offset ? acked - offset : 0;
        MUST(got >= (must < len ? must : len), "%s: read %zu of %zu at %llu, %llu was acknowledged",
             f->path, got, len, (unsigned long long)offset, (unsigned long long)acked);
        if (got > 0) {
            check_bytes(f, offset, buffer, got, "reader");
            f->observed = offset + got > f->observed ? offset + got : f->observed;
        }
        w.reads++;
    } else {
        MUST(status.code != BASE_DATA_LOSS || true, "%s", base_status_text(&status));
    }
    base_status_free(&status);
}

int reader_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&w.cluster);
    enum { CAP = 150000 };
    uint8_t *buffer = malloc(CAP);
    while (!w.stop && !ch_cancelled()) {
        struct file *f = &w.files[ch_random_below(env, FILES)];
        struct blk_reader *reader;
        struct base_status status = blk_open_read(client, f->path, ch_in(env, CH_S), &reader);
        if (base_failed(status)) {
            base_status_free(&status);
            (void)ch_sleep_until(env, ch_in(env, 50 * CH_MS));
            continue;
        }
        for (uint64_t n = ch_random_below(env, 30); n > 0 && !w.stop && !ch_cancelled(); n--) {
            read_once(env, reader, f, buffer, CAP);
            (void)ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 40) * CH_MS));
        }
        blk_reader_close(reader);
    }
    free(buffer);
    blk_client_free(client);
    return 0;
}
