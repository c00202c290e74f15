/* trace_export.c: sends spans to an OpenTelemetry collector as OTLP/HTTP JSON, from a thread of
 * its own.
 *
 * 1. The loop only copies a span into a bounded queue; when that is full, or a POST fails, spans
 *    are dropped and counted.
 * 2. A batch goes out when BATCH_MAX spans wait or BATCH_MS after the first of them; one
 *    connection a batch.
 * 3. Every socket operation ends within IO_MS, so stopping takes at most a few of those. */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "trace_int.h"

enum { QUEUE_MAX = 8192, BATCH_MAX = 512, BATCH_MS = 1000, IO_MS = 1000, REPLY_MAX = 4096 };

struct ch__exporter {
    char *service, *host, *port, *path;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t change;
    struct ch__span_record *queue; /* ring */
    size_t head, len;
    uint64_t dropped;
    bool stop;
};

/* "http://host:port/path", "host:port/path" or "host:port". */
static bool url_parse(struct ch__exporter *exporter, const char *url)
{
    if (strncmp(url, "http://", 7) == 0)
        url += 7;
    const char *slash = strchr(url, '/');
    size_t authority = slash ? (size_t)(slash - url) : strlen(url);
    const char *colon = memrchr(url, ':', authority);
    if (!colon || colon == url || colon + 1 == url + authority || strstr(url, "://"))
        return false;
    exporter->host = strndup(url, (size_t)(colon - url));
    exporter->port = strndup(colon + 1, authority - (size_t)(colon + 1 - url));
    exporter->path = strdup(slash ? slash : "/v1/traces");
    return strspn(exporter->port, "0123456789") == strlen(exporter->port);
}

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return -1;
    int fd = -1;
    for (const struct addrinfo *at = found; at && fd < 0; at = at->ai_next) {
        fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
        if (fd < 0)
            continue;
        struct timeval limit = { .tv_sec = IO_MS / 1000, .tv_usec = IO_MS % 1000 * 1000 };
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)); /* bounds connect too */
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
        if (connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static bool send_fully(int fd, struct base_bytes bytes)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.data, bytes.len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes = base_bytes(bytes.data + n, bytes.len - (size_t)n);
    }
    return true;
}

/* True when the collector answered 2xx. Only the status line is looked at; the connection closes
 * after it. */
static bool reply_ok(int fd)
{
    char reply[REPLY_MAX];
    size_t len = 0;
    while (len < sizeof(reply) - 1) {
        ssize_t n = recv(fd, reply + len, sizeof(reply) - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        if (memchr(reply, '\n', len))
            break;
    }
    reply[len] = '\0';
    int code = 0;
    return sscanf(reply, "HTTP/1.%*d %d", &code) == 1 && code >= 200 && code < 300;
}

static bool post(const struct ch__exporter *exporter, struct base_bytes body)
{
    int fd = connect_to(exporter->host, exporter->port);
    if (fd < 0)
        return false;
    struct base_buf head = { 0 };
    base_buf_printf(&head,
                    "POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: "
                    "application/json\r\nContent-Length: %zu\r\n"
                    "Connection: close\r\n\r\n",
                    exporter->path, exporter->host, exporter->port, body.len);
    bool ok = send_fully(fd, base_buf_bytes(&head)) && send_fully(fd, body) && reply_ok(fd);
    base_buf_free(&head);
    close(fd);
    return ok;
}

/* Under the mutex: waits for a full batch, BATCH_MS after the first span, or the stop. */
static void await_batch(struct ch__exporter *exporter)
{
    while (exporter->len == 0 && !exporter->stop)
        pthread_cond_wait(&exporter->change, &exporter->mutex);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += BATCH_MS / 1000;
    int rc = 0;
    while (rc != ETIMEDOUT && exporter->len < BATCH_MAX && !exporter->stop)
        rc = pthread_cond_timedwait(&exporter->change, &exporter->mutex, &until);
}

static void *exporter_main(void *arg)
{
    struct ch__exporter *exporter = arg;
    struct ch__span_record *batch = calloc(BATCH_MAX, sizeof(*batch));
    struct base_buf body = { 0 };
    BASE_ASSERT(batch);
    pthread_setname_np(pthread_self(), "trace");
    pthread_mutex_lock(&exporter->mutex);
    for (;;) {
        await_batch(exporter);
        size_t count = 0;
        for (; count < BATCH_MAX && exporter->len > 0; count++, exporter->len--) {
            batch[count] = exporter->queue[exporter->head];
            exporter->head = (exporter->head + 1) % QUEUE_MAX;
        }
        if (count == 0)
            break; /* stopped and nothing is left */
        pthread_mutex_unlock(&exporter->mutex);
        base_buf_clear(&body);
        ch__otlp_json(exporter->service, batch, count, &body);
        bool sent = post(exporter, base_buf_bytes(&body));
        pthread_mutex_lock(&exporter->mutex);
        if (!sent)
            exporter->dropped += count;
        if (!sent && exporter->stop)
            break; /* the collector is away: do not hold up the stop */
    }
    pthread_mutex_unlock(&exporter->mutex);
    base_buf_free(&body);
    free(batch);
    return NULL;
}

static void exporter_free(struct ch__exporter *exporter)
{
    pthread_cond_destroy(&exporter->change);
    pthread_mutex_destroy(&exporter->mutex);
    free(exporter->service);
    free(exporter->host);
    free(exporter->port);
    free(exporter->path);
    free(exporter->queue);
    free(exporter);
}

struct base_status ch__exporter_start(const char *service, const char *url,
                                      struct ch__exporter **out)
{
    struct ch__exporter *exporter = calloc(1, sizeof(*exporter));
    pthread_condattr_t monotonic;
    BASE_ASSERT(exporter);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&exporter->change, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&exporter->mutex, NULL);
    exporter->service = strdup(service);
    exporter->queue = calloc(QUEUE_MAX, sizeof(*exporter->queue));
    BASE_ASSERT(exporter->service && exporter->queue);
    if (!url_parse(exporter, url)) {
        exporter_free(exporter);
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "trace collector \"%s\" is not host:port or http://host:port/path",
                                url);
    }
    int rc = pthread_create(&exporter->thread, NULL, exporter_main, exporter);
    if (rc != 0) {
        exporter_free(exporter);
        return base_status_errno(rc, "trace exporter's thread");
    }
    *out = exporter;
    return BASE_STATUS_OK;
}

uint64_t ch__exporter_put(struct ch__exporter *exporter, const struct ch__span_record *record)
{
    pthread_mutex_lock(&exporter->mutex);
    if (exporter->len == QUEUE_MAX) {
        exporter->dropped++;
    } else {
        exporter->queue[(exporter->head + exporter->len++) % QUEUE_MAX] = *record;
        if (exporter->len == 1 || exporter->len == BATCH_MAX)
            pthread_cond_signal(&exporter->change);
    }
    uint64_t dropped = exporter->dropped;
    exporter->dropped = 0;
    pthread_mutex_unlock(&exporter->mutex);
    return dropped;
}

void ch__exporter_stop(struct ch__exporter *exporter)
{
    pthread_mutex_lock(&exporter->mutex);
    exporter->stop = true;
    pthread_cond_signal(&exporter->change);
    pthread_mutex_unlock(&exporter->mutex);
    pthread_join(exporter->thread, NULL);
    exporter_free(exporter);
}
