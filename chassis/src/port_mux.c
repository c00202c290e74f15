/* port_mux.c: one port for gRPC and HTTP/1.1 (docs/adr/: one port). A helper thread accepts,
 * looks at the first bytes of a connection without taking them (MSG_PEEK), and posts the
 * descriptor to the loop, which hands it to gRPC (an HTTP/2 connection begins with "PRI ") or to
 * the HTTP server. After that neither this thread nor a copy of bytes is between the peers.
 *
 * Invariants:
 *  1. A descriptor has one owner at a time: the thread's list, a post on its way to the loop,
 *     gRPC or the HTTP server.
 *  2. A connection that has not sent four bytes within FIRST_BYTES_WAIT is closed; at most
 *     PENDING_MAX wait, the oldest is closed for a newer one: a silent or slow peer holds nobody
 *     up.
 *  3. The struct lives until it was stopped and the last post has run. */
#include "port_mux.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "env_int.h"
#include "http_int.h"
#include "transport_grpc_int.h"

enum {
    PORTS_MAX = 8,
    PENDING_MAX = 1024,
    EVENTS = 64,
    BACKLOG = 511,
    PREFACE_BYTES = 4,
    PAUSE_MS = 100
};
static const int FIRST_BYTES_WAIT_MS = 10000;

struct pending {
    int fd; /* first: what epoll's pointers lead to */
    int64_t until_ms;
    struct pending *next, *prev; /* oldest first */
};

struct port {
    int fd; /* first */
};

struct ch_mux {
    struct ch_env *env;
    struct ch_tlistener *listener;
    struct ch_http_server *http;
    pthread_t thread;
    int poll, wake;
    struct port ports[PORTS_MAX];
    size_t port_count, posts;
    struct pending oldest; /* list head; the thread's */
    size_t pending_count;
    bool paused;  /* the thread's: no descriptors left, listening again in PAUSE_MS */
    bool stopped; /* the loop's */
};

struct handover {
    struct ch_post post; /* first */
    struct ch_mux *mux;
    int fd;
    bool grpc;
};

/* ---- the loop's side ---- */

static void mux_unref(struct ch_mux *mux)
{
    if (__atomic_sub_fetch(&mux->posts, 1, __ATOMIC_ACQ_REL) == 0)
        free(mux);
}

static void hand_over(struct ch_post *post)
{
    struct handover *handover = (struct handover *)post;
    struct ch_mux *mux = handover->mux;
    if (mux->stopped)
        close(handover->fd);
    else if (handover->grpc)
        ch__grpc_listener_adopt(mux->listener, handover->fd);
    else
        base_status_drop(
            ch__http_adopt(mux->http, handover->fd)); /* it has closed the descriptor */
    free(handover);
    mux_unref(mux);
}

/* ---- the thread's side ---- */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void watch_fd(struct ch_mux *mux, int op, int fd, uint32_t events, void *ptr)
{
    struct epoll_event event = { .events = events, .data.ptr = ptr };
    epoll_ctl(mux->poll, op, fd, &event);
}

static void set_option(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof(value));
}

/* Takes it off the list; the descriptor stays. */
static int pending_end(struct ch_mux *mux, struct pending *pending)
{
    int fd = pending->fd;
    pending->prev->next = pending->next;
    pending->next->prev = pending->prev;
    mux->pending_count--;
    epoll_ctl(mux->poll, EPOLL_CTL_DEL, fd, NULL);
    free(pending);
    return fd;
}

/* Looks at what has come; sends the connection on its way when that is enough to tell. */
static void sniff(struct ch_mux *mux, struct pending *pending, bool no_more)
{
    char first[PREFACE_BYTES];
    ssize_t got = recv(pending->fd, first, sizeof(first), MSG_PEEK | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || (got < PREFACE_BYTES && no_more)) {
        close(pending_end(mux, pending));
        return;
    }
    bool grpc = memcmp(first, "PRI ", (size_t)got) == 0;
    if (grpc && got < PREFACE_BYTES)
        return;
    struct handover *handover = calloc(1, sizeof(*handover));
    BASE_ASSERT(handover != NULL);
    *handover = (struct handover){
        .post.fn = hand_over, .mux = mux, .fd = pending_end(mux, pending), .grpc = grpc
    };
    set_option(handover->fd, SOL_SOCKET, SO_RCVLOWAT, 1);
    __atomic_add_fetch(&mux->posts, 1, __ATOMIC_RELAXED);
    ch_env_post(mux->env, &handover->post);
}

static void accept_one(struct ch_mux *mux, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            for (size_t i = 0; i < mux->port_count; i++)
                watch_fd(mux, EPOLL_CTL_MOD, mux->ports[i].fd, 0, &mux->ports[i]);
            mux->paused = true;
        }
        return;
    }
    if (mux->pending_count == PENDING_MAX)
        close(pending_end(mux, mux->oldest.next));
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_RCVLOWAT, PREFACE_BYTES); /* no wake-ups by less */
    struct pending *pending = calloc(1, sizeof(*pending));
    BASE_ASSERT(pending != NULL);
    *pending = (struct pending){ .fd = fd,
                                 .until_ms = now_ms() + FIRST_BYTES_WAIT_MS,
                                 .next = &mux->oldest,
                                 .prev = mux->oldest.prev };
    pending->prev->next = pending->next->prev = pending;
    mux->pending_count++;
    watch_fd(mux, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP, pending);
    sniff(mux, pending, false);
}

static bool is_port(const struct ch_mux *mux, const void *ptr)
{
    return (const struct port *)ptr >= mux->ports &&
           (const struct port *)ptr < mux->ports + PORTS_MAX;
}

static int wait_ms(const struct ch_mux *mux)
{
    if (mux->paused)
        return PAUSE_MS;
    if (mux->pending_count == 0)
        return -1;
    int64_t left = mux->oldest.next->until_ms - now_ms();
    return left < 0 ? 0 : (int)left + 1;
}

static void *mux_thread(void *arg)
{
    struct ch_mux *mux = arg;
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(mux->poll, events, EVENTS, wait_ms(mux));
        if (mux->paused && count == 0) {
            mux->paused = false;
            for (size_t i = 0; i < mux->port_count; i++)
                watch_fd(mux, EPOLL_CTL_MOD, mux->ports[i].fd, EPOLLIN, &mux->ports[i]);
        }
        /* Connections first: accepting may close the oldest of them. */
        for (int i = 0; i < count; i++) {
            if (!events[i].data.ptr)
                return NULL;
            if (!is_port(mux, events[i].data.ptr))
                sniff(mux, events[i].data.ptr,
                      (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
        }
        for (int i = 0; i < count; i++)
            if (is_port(mux, events[i].data.ptr))
                accept_one(mux, ((struct port *)events[i].data.ptr)->fd);
        while (mux->pending_count > 0 && mux->oldest.next->until_ms <= now_ms())
            close(pending_end(mux, mux->oldest.next));
    }
}

/* ---- start and stop ---- */

struct bind_job {
    const char *address;
    int fd;
    char bound[128];
    struct base_status status;
};

static void bound_text(struct bind_job *job)
{
    struct sockaddr_storage name = { 0 };
    socklen_t len = sizeof(name);
    char host[64] = "?", port[16] = "0";
    getsockname(job->fd, (struct sockaddr *)&name, &len);
    getnameinfo((struct sockaddr *)&name, len, host, sizeof(host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(job->bound, sizeof(job->bound), name.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
             port);
}

static void bind_one(void *arg)
{
    struct bind_job *job = arg;
    char host[256];
    snprintf(host, sizeof(host), "%s", job->address);
    char *colon = strrchr(host, ':'), *begin = host;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found = NULL;
    if (!colon) {
        job->status = base_status_make(BASE_INVALID_ARGUMENT, "listen %s: no port", job->address);
        return;
    }
    *colon = '\0';
    if (*begin == '[' && colon[-1] == ']') {
        begin++;
        colon[-1] = '\0';
    }
    int rc = getaddrinfo(begin, colon + 1, &hints, &found);
    if (rc != 0) {
        job->status = base_status_make(BASE_INVALID_ARGUMENT, "listen %s: %s", job->address,
                                       gai_strerror(rc));
        return;
    }
    job->fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (job->fd >= 0)
        set_option(job->fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (job->fd < 0 || bind(job->fd, found->ai_addr, found->ai_addrlen) != 0 ||
        listen(job->fd, BACKLOG) != 0) {
        job->status =
            base_status_make(BASE_UNAVAILABLE, "listen %s: %s", job->address, strerror(errno));
        if (job->fd >= 0)
            close(job->fd);
    } else {
        bound_text(job);
    }
    freeaddrinfo(found);
}

static void mux_close_fds(struct ch_mux *mux)
{
    for (size_t i = 0; i < mux->port_count; i++)
        close(mux->ports[i].fd);
    close(mux->poll);
    close(mux->wake);
}

static struct base_status bind_all(struct ch_mux *mux, const char *addresses, char *bound,
                                   size_t bound_size) CH_WAITS;
static struct base_status bind_all(struct ch_mux *mux, const char *addresses, char *bound,
                                   size_t bound_size)
{
    char *copy = strdup(addresses), *rest = copy, *address;
    struct base_status status = BASE_STATUS_OK;
    BASE_ASSERT(copy != NULL);
    *bound = '\0';
    while (!base_failed(status) && (address = strsep(&rest, ","))) {
        struct bind_job job = { .address = address, .fd = -1 };
        if (!*address)
            continue;
        if (mux->port_count == PORTS_MAX) {
            status = base_status_make(BASE_INVALID_ARGUMENT, "listen: more than %d addresses",
                                      PORTS_MAX);
            break;
        }
        ch_offload(mux->env, bind_one, &job);
        status = job.status;
        if (base_failed(status))
            break;
        mux->ports[mux->port_count].fd = job.fd;
        watch_fd(mux, EPOLL_CTL_ADD, job.fd, EPOLLIN, &mux->ports[mux->port_count++]);
        size_t at = strlen(bound);
        snprintf(bound + at, bound_size - at, "%s%s", at ? "," : "", job.bound);
    }
    free(copy);
    return status;
}

struct base_status ch__mux_start(struct ch_env *env, const char *addresses,
                                 struct ch_tlistener *listener, struct ch_http_server *http,
                                 char *bound, size_t bound_size, struct ch_mux **out)
{
    struct ch_mux *mux = calloc(1, sizeof(*mux));
    BASE_ASSERT(mux != NULL);
    mux->env = env;
    mux->listener = listener;
    mux->http = http;
    mux->posts = 1;
    mux->oldest.next = mux->oldest.prev = &mux->oldest;
    mux->poll = epoll_create1(EPOLL_CLOEXEC);
    mux->wake = eventfd(0, EFD_CLOEXEC);
    BASE_ASSERT(mux->poll >= 0 && mux->wake >= 0);
    watch_fd(mux, EPOLL_CTL_ADD, mux->wake, EPOLLIN, NULL);
    struct base_status status = bind_all(mux, addresses, bound, bound_size);
    if (base_failed(status)) {
        mux_close_fds(mux);
        free(mux);
        return status;
    }
    BASE_ASSERT(pthread_create(&mux->thread, NULL, mux_thread, mux) == 0);
    *out = mux;
    return status;
}

void ch__mux_stop(struct ch_mux *mux)
{
    uint64_t one = 1;
    BASE_ASSERT(write(mux->wake, &one, sizeof(one)) == sizeof(one));
    pthread_join(mux->thread, NULL);
    while (mux->pending_count > 0)
        close(pending_end(mux, mux->oldest.next));
    mux_close_fds(mux);
    mux->stopped = true;
    mux_unref(mux);
}
