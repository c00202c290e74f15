/* log.c: JSON lines to stderr (see log.h).
 *
 * A real env has one writer thread and a bounded queue of bytes before it: whoever holds stderr's
 * other end may stop reading and the loop goes on. A simulated env has no thread; it writes at
 * once, and only when STRATA_LOG is set (a level), since fifty services share the terminal of a
 * test.
 * 1. ch_log_at never blocks on the descriptor in a real env; a line that does not fit the queue
 *    is dropped and counted.
 * 2. A line is written whole or not at all, in order.
 * 3. A call site (file and line) writes at most SITE_LINES a second; the next line of it after
 *    that says how many were dropped ("dropped":n).
 * 4. When the env is freed the queue is written out, for at most FLUSH_MS.
 * The thread never touches the env. Any thread of a real env may log. */
#include "log_int.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "env_int.h"
#include "metrics_int.h"

enum {
    QUEUE_BYTES = 1 << 20,
    SITES = 512,
    SITE_LINES = 50,
    FLUSH_MS = 1000,
    MESSAGE_MAX = 8 * 1024
};

struct site {
    const char *file;
    int line;
    uint32_t lines; /* in this second */
    uint32_t dropped;
    ch_time second;
};

/* Outlives the env when the writer is stuck in write(): whoever leaves last frees it. */
struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t more, empty;
    struct base_buf pending;
    bool writing, stop, abandoned;
    int fd;
    uint64_t dropped;
};

struct logger {
    char service[64];
    enum ch_log_level least;
    bool started;
    pthread_t thread;
    struct queue *queue;
    struct ch_counter *lines, *lost;
    struct site sites[SITES];
};

static const char *const level_names[] = { "debug", "info", "warn", "error" };

bool ch__log_level_parse(const char *text, enum ch_log_level *level)
{
    for (size_t i = 0; i < 4; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum ch_log_level)i;
            return true;
        }
    return false;
}

static void queue_free(struct queue *queue)
{
    pthread_mutex_destroy(&queue->mutex);
    pthread_cond_destroy(&queue->more);
    pthread_cond_destroy(&queue->empty);
    base_buf_free(&queue->pending);
    free(queue);
}

static void write_fully(int fd, struct base_bytes bytes)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.data, bytes.len);
        if (n <= 0)
            return; /* stderr is gone: there is nobody to tell */
        bytes = base_bytes(bytes.data + n, bytes.len - (size_t)n);
    }
}

static void *writer_main(void *arg)
{
    struct queue *queue = arg;
    struct base_buf batch = { 0 };
    pthread_setname_np(pthread_self(), "log");
    pthread_mutex_lock(&queue->mutex);
    while (queue->pending.len > 0 || !queue->stop) {
        if (queue->pending.len == 0) {
            pthread_cond_wait(&queue->more, &queue->mutex);
            continue;
        }
        struct base_buf full = queue->pending;
        queue->pending = batch;
        queue->writing = true;
        pthread_mutex_unlock(&queue->mutex);
        write_fully(queue->fd, base_buf_bytes(&full));
        base_buf_clear(&full);
        batch = full;
        pthread_mutex_lock(&queue->mutex);
        queue->writing = false;
        if (queue->pending.len == 0)
            pthread_cond_broadcast(&queue->empty);
    }
    bool abandoned = queue->abandoned;
    queue->writing = false;
    pthread_mutex_unlock(&queue->mutex);
    base_buf_free(&batch);
    if (abandoned)
        queue_free(queue);
    return NULL;
}

/* Under the mutex. True when all is written. */
static bool wait_written(struct queue *queue)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FLUSH_MS / 1000;
    int rc = 0;
    while (rc == 0 && (queue->pending.len > 0 || queue->writing))
        rc = pthread_cond_timedwait(&queue->empty, &queue->mutex, &until);
    return queue->pending.len == 0 && !queue->writing;
}

static void logger_free(void *ext)
{
    struct logger *logger = ext;
    struct queue *queue = logger->queue;
    pthread_mutex_lock(&queue->mutex);
    bool written = !logger->started || wait_written(queue);
    queue->stop = true;
    queue->abandoned = !written;
    if (!written)
        base_buf_clear(&queue->pending);
    pthread_cond_broadcast(&queue->more);
    pthread_mutex_unlock(&queue->mutex);
    if (logger->started && written)
        pthread_join(logger->thread, NULL);
    else if (logger->started)
        pthread_detach(logger->thread);
    if (written)
        queue_free(queue);
    free(logger);
}

static enum ch_log_level initial_level(const struct ch_env *env)
{
    const char *text = getenv("STRATA_LOG");
    enum ch_log_level level = env->simulated ? CH_LOG_ERROR + 1 : CH_LOG_INFO;
    if (text && ch__log_level_parse(text, &level))
        return level;
    return level;
}

static struct logger *logger_of(struct ch_env *env)
{
    struct logger *logger = env->ext[CH_EXT_LOG];
    if (logger)
        return logger;
    logger = calloc(1, sizeof(*logger));
    struct queue *queue = calloc(1, sizeof(*queue));
    BASE_ASSERT(logger && queue);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->more, NULL);
    pthread_cond_init(&queue->empty, &monotonic);
    pthread_condattr_destroy(&monotonic);
    queue->fd = STDERR_FILENO;
    logger->queue = queue;
    logger->least = initial_level(env);
    logger->lines = ch_counter(env, "chassis_log_lines_total", "", "Lines logged.");
    logger->lost =
        ch_counter(env, "chassis_log_lines_lost_total", "",
                   "Lines dropped by the rate limit of their call site or a full queue.");
    env->ext[CH_EXT_LOG] = logger;
    env->ext_free[CH_EXT_LOG] = logger_free;
    return logger;
}

void ch_log_set(struct ch_env *env, const char *service, enum ch_log_level least)
{
    struct logger *logger = logger_of(env);
    snprintf(logger->service, sizeof(logger->service), "%s", service);
    if (!env->simulated && !getenv("STRATA_LOG"))
        logger->least = least;
}

const char *ch__log_service(struct ch_env *env)
{
    return logger_of(env)->service;
}

void ch__log_to(struct ch_env *env, int fd)
{
    logger_of(env)->queue->fd = fd;
}

void ch__log_flush(struct ch_env *env)
{
    struct logger *logger = logger_of(env);
    if (!logger->started)
        return;
    pthread_mutex_lock(&logger->queue->mutex);
    (void)wait_written(logger->queue);
    pthread_mutex_unlock(&logger->queue->mutex);
}

/* Decides whether this site may write; *dropped is what it lost since it last did. Sites that
 * share a slot share a budget only through eviction: a newcomer takes the slot over. */
static bool site_admit(struct logger *logger, const char *file, int line, ch_time now,
                       uint32_t *dropped)
{
    uint64_t hash = ((uint64_t)(uintptr_t)file * 31 + (uint64_t)line) * 0x9E3779B97F4A7C15ULL;
    struct site *site = &logger->sites[hash >> 55];
    ch_time second = now / CH_S;
    if (site->file != file || site->line != line)
        *site = (struct site){ .file = file, .line = line, .second = second };
    if (site->second != second) {
        site->second = second;
        site->lines = 0;
    }
    if (site->lines >= SITE_LINES) {
        site->dropped++;
        return false;
    }
    site->lines++;
    *dropped = site->dropped;
    site->dropped = 0;
    return true;
}

/* The well-formed UTF-8 sequence at the start of text, in bytes; 0 when there is none. */
static size_t utf8_len(const unsigned char *text, size_t len)
{
    unsigned char c = text[0];
    size_t n = c < 0x80                ? 1
               : c >= 0xC2 && c < 0xE0 ? 2
               : c >= 0xE0 && c < 0xF0 ? 3
               : c >= 0xF0 && c < 0xF5 ? 4
                                       : 0;
    if (n == 0 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    if ((c == 0xE0 && text[1] < 0xA0) || (c == 0xED && text[1] > 0x9F) ||
        (c == 0xF0 && text[1] < 0x90) || (c == 0xF4 && text[1] > 0x8F))
        return 0;
    return n;
}

void ch__json_escape(struct base_buf *out, const char *text, size_t len)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + len;
    while (at < end) {
        size_t n = utf8_len(at, (size_t)(end - at));
        if (*at == '"' || *at == '\\')
            base_buf_printf(out, "\\%c", *at);
        else if (*at == '\n')
            base_buf_put_str(out, "\\n");
        else if (*at < 0x20 || *at == 0x7F)
            base_buf_printf(out, "\\u%04x", *at);
        else if (n == 0)
            base_buf_put_str(out, "\xEF\xBF\xBD"); /* U+FFFD */
        else
            base_buf_put(out, at, n);
        at += n ? n : 1;
    }
}

static void put_time(struct base_buf *out, int64_t wall_us)
{
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm tm;
    char text[32];
    gmtime_r(&seconds, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    base_buf_printf(out, "{\"time\":\"%s.%06dZ\"", text, (int)(wall_us % 1000000));
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void put_line(struct base_buf *out, struct ch_env *env, const struct logger *logger,
                     enum ch_log_level level, const char *file, int line, const char *message,
                     uint32_t dropped)
{
    put_time(out, ch_wall_us(env));
    base_buf_printf(out, ",\"level\":\"%s\",\"service\":\"", level_names[level]);
    ch__json_escape(out, logger->service, strlen(logger->service));
    base_buf_printf(out, "\",\"at\":\"%s:%d\"", base_name(file), line);
    if (ch_loop_current() == env->loop && ch_in_fiber()) {
        base_buf_put_str(out, ",\"fiber\":\"");
        ch__json_escape(out, ch_fiber_name(), strlen(ch_fiber_name()));
        base_buf_put_u8(out, '"');
        const struct ch_context *context = ch_context_current();
        if (context && (context->trace_hi | context->trace_lo))
            base_buf_printf(out, ",\"trace\":\"%016llx%016llx\"",
                            (unsigned long long)context->trace_hi,
                            (unsigned long long)context->trace_lo);
    }
    if (dropped)
        base_buf_printf(out, ",\"dropped\":%u", dropped);
    base_buf_put_str(out, ",\"message\":\"");
    ch__json_escape(out, message, strlen(message));
    base_buf_put_str(out, "\"}\n");
}

/* Under the mutex. The first line starts the writer; without a thread lines are dropped, not
 * written in place. */
static bool writer_ready(struct logger *logger)
{
    if (!logger->started)
        logger->started = pthread_create(&logger->thread, NULL, writer_main, logger->queue) == 0;
    return logger->started;
}

static void log_line(struct ch_env *env, struct logger *logger, enum ch_log_level level,
                     const char *file, int line, const char *message)
{
    struct queue *queue = logger->queue;
    uint32_t dropped = 0;
    struct base_buf text = { 0 };
    pthread_mutex_lock(&queue->mutex);
    if (!site_admit(logger, file, line, ch_now(env), &dropped)) {
        logger->lost->value++;
    } else {
        put_line(&text, env, logger, level, file, line, message, dropped);
        logger->lines->value++;
        if (env->simulated) {
            write_fully(queue->fd, base_buf_bytes(&text));
        } else if (queue->pending.len + text.len > QUEUE_BYTES || !writer_ready(logger)) {
            logger->lost->value++;
        } else {
            base_buf_put_bytes(&queue->pending, base_buf_bytes(&text));
            if (!queue->writing)
                pthread_cond_signal(&queue->more);
        }
    }
    pthread_mutex_unlock(&queue->mutex);
    base_buf_free(&text);
}

void ch_log_at(struct ch_env *env, enum ch_log_level level, const char *file, int line,
               const char *fmt, ...)
{
    struct logger *logger = logger_of(env);
    if (level < logger->least)
        return;
    char *message = malloc(MESSAGE_MAX); /* not on the fiber's stack */
    if (!message)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, MESSAGE_MAX, fmt, args);
    va_end(args);
    log_line(env, logger, level, file, line, message);
    free(message);
}
