/* http.c: an HTTP/1.1 server (see http.h) on libmicrohttpd ("MHD").
 *
 * MHD has one thread a server. It reads a whole request, parks ("suspends") the connection and
 * posts the exchange to the loop; a fiber of the server's gate runs the handler and resumes the
 * connection; MHD's thread sends the reply.
 * 1. An exchange belongs to MHD's thread, except between the post and the resume, when it is the
 *    loop's.
 * 2. Once `stopping` is set no connection is suspended any more (both under the mutex), so the
 *    daemon, which aborts when it is stopped with suspended connections, is stopped only after
 *    `suspended` came down to 0.
 * 3. Bodies are bounded one by one and in sum, also what gzip makes of them; connections and
 *    header sizes are bounded by MHD.
 * Stop: no new connections; running handlers are answered, cancelled after CH__HTTP_DRAIN_MS;
 * replies go out; daemon ends. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http_int.h"

enum { BACKLOG = 128, REPLIES_OUT_MS = 2000, HEADER_BYTES = 32 * 1024 };

struct listen_job {
    const char *address;
    int fd;
    char bound[128];
    struct base_status status;
};

/* "host:port" or "[v6]:port", split in place. */
static bool address_split(char *address, char **host, char **port)
{
    char *colon = strrchr(address, ':');
    if (!colon || colon == address)
        return false;
    *colon = '\0';
    *port = colon + 1;
    *host = address;
    size_t len = strlen(address);
    if (address[0] == '[' && address[len - 1] == ']') {
        address[len - 1] = '\0';
        *host = address + 1;
    }
    return **port && strspn(*port, "0123456789") == strlen(*port);
}

static void bound_text(struct listen_job *job)
{
    struct sockaddr_storage bound = { 0 };
    socklen_t len = sizeof(bound);
    char host[80], port[16];
    if (getsockname(job->fd, (struct sockaddr *)&bound, &len) != 0 ||
        getnameinfo((struct sockaddr *)&bound, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    snprintf(job->bound, sizeof(job->bound), bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
             host, port);
}

/* On a helper thread: names may be looked up. */
static void listen_open(void *arg)
{
    struct listen_job *job = arg;
    char copy[128], *host, *port;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found = NULL;
    if ((size_t)snprintf(copy, sizeof(copy), "%s", job->address) >= sizeof(copy) ||
        !address_split(copy, &host, &port)) {
        job->status = base_status_make(BASE_INVALID_ARGUMENT,
                                       "http address \"%s\" is not host:port", job->address);
        return;
    }
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) {
        job->status = base_status_make(BASE_INVALID_ARGUMENT, "http address \"%s\": %s",
                                       job->address, gai_strerror(rc));
        return;
    }
    int one = 1;
    job->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (job->fd < 0 || setsockopt(job->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(job->fd, found->ai_addr, found->ai_addrlen) != 0 || listen(job->fd, BACKLOG) != 0) {
        job->status = base_status_errno(errno, job->address);
        if (job->fd >= 0)
            close(job->fd);
        job->fd = -1;
    } else {
        bound_text(job);
    }
    freeaddrinfo(found);
}

static struct base_status daemon_start(struct ch_http_server *server, int listen_fd)
{
    unsigned flags =
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
    if (listen_fd < 0)
        flags |= MHD_USE_NO_LISTEN_SOCKET;
    struct MHD_OptionItem listen_option[] = {
        { listen_fd < 0 ? MHD_OPTION_END : MHD_OPTION_LISTEN_SOCKET, listen_fd, NULL },
        { MHD_OPTION_END, 0, NULL },
    };
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, ch__http_access, server, MHD_OPTION_ARRAY, listen_option,
        MHD_OPTION_URI_LOG_CALLBACK, ch__http_begin, server, MHD_OPTION_NOTIFY_COMPLETED,
        ch__http_end, server, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CH__HTTP_CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CH__HTTP_IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_BYTES, MHD_OPTION_END);
    return server->daemon ? BASE_STATUS_OK
                          : base_status_make(BASE_INTERNAL, "http %s: no server", server->address);
}

static void server_free(struct ch_http_server *server)
{
    pthread_mutex_destroy(&server->mutex);
    pthread_cond_destroy(&server->idle);
    free(server);
}

struct base_status ch_http_start(struct ch_env *env, const char *address,
                                 const struct ch_http_handler *handler, struct ch_http_server **out)
{
    struct listen_job job = { .address = address, .fd = -1 };
    if (env->simulated)
        return base_status_make(BASE_UNIMPLEMENTED, "there is no HTTP in a simulated env");
    if (address)
        ch_offload(env, listen_open, &job);
    if (base_failed(job.status))
        return job.status;
    struct ch_http_server *server = calloc(1, sizeof(*server));
    pthread_condattr_t monotonic;
    BASE_ASSERT(server);
    server->env = env;
    server->handler = *handler;
    if (server->handler.body_bytes_max == 0)
        server->handler.body_bytes_max = CH__HTTP_BODY_DEFAULT;
    memcpy(server->address, job.bound, sizeof(server->address));
    server->requests = ch_counter(env, "chassis_http_requests_total", "", "HTTP requests handled.");
    server->refused = ch_counter(env, "chassis_http_refused_total", "",
                                 "HTTP requests whose handler could not be started.");
    ch_gate_init(&server->gate, env, "http");
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&server->mutex, NULL);
    struct base_status status = daemon_start(server, job.fd);
    if (base_failed(status)) {
        if (job.fd >= 0)
            close(job.fd);
        server_free(server);
        return status;
    }
    *out = server;
    return BASE_STATUS_OK;
}

const char *ch_http_address(const struct ch_http_server *server)
{
    return server->address;
}

struct base_status ch__http_adopt(struct ch_http_server *server, int fd)
{
    struct sockaddr_storage peer = { 0 };
    socklen_t len = sizeof(peer);
    if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0) {
        int err = errno;
        close(fd);
        return base_status_errno(err, "http connection");
    }
    /* MHD closes the descriptor itself when it refuses one. */
    if (MHD_add_connection(server->daemon, fd, (struct sockaddr *)&peer, len) != MHD_YES)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "http: no room for a connection");
    return BASE_STATUS_OK;
}

/* On a helper thread: lets the last replies out, then ends the daemon (which joins its thread). */
static void daemon_stop(void *arg)
{
    struct ch_http_server *server = arg;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += REPLIES_OUT_MS / 1000;
    pthread_mutex_lock(&server->mutex);
    int rc = 0;
    while (server->exchanges > 0 && rc == 0)
        rc = pthread_cond_timedwait(&server->idle, &server->mutex, &until);
    pthread_mutex_unlock(&server->mutex);
    MHD_stop_daemon(server->daemon);
}

static size_t suspended(struct ch_http_server *server)
{
    pthread_mutex_lock(&server->mutex);
    size_t count = server->suspended;
    pthread_mutex_unlock(&server->mutex);
    return count;
}

void ch_http_stop(struct ch_http_server *server)
{
    if (!server)
        return;
    struct ch_env *env = server->env;
    int listen_fd = MHD_quiesce_daemon(server->daemon);
    pthread_mutex_lock(&server->mutex);
    server->stopping = true;
    pthread_mutex_unlock(&server->mutex);
    /* Posts that are on their way still find the gate open or closed; either way they resume
     * their connection. */
    ch_time deadline = ch_in(env, CH__HTTP_DRAIN_MS * CH_MS);
    while (suspended(server) > 0 && ch_now(env) < deadline && !ch_cancelled())
        (void)ch_sleep_until(env, ch_in(env, 5 * CH_MS));
    ch_gate_stop(&server->gate);
    while (suspended(server) > 0)
        ch_yield();
    ch_offload(env, daemon_stop, server);
    if (listen_fd >= 0)
        close(listen_fd);
    server_free(server);
}

const char *ch_http_query(const struct ch_http_request *request, const char *name)
{
    size_t name_len = strlen(name);
    for (const char *at = request->query; *at;) {
        size_t len = strcspn(at, "&");
        const char *equals = memchr(at, '=', len);
        size_t key_len = equals ? (size_t)(equals - at) : len;
        if (key_len == name_len && memcmp(at, name, name_len) == 0)
            return equals ? ch__http_unescape(request->arena, equals + 1, len - key_len - 1, true)
                          : "";
        at += len;
        if (*at == '&')
            at++;
    }
    return NULL;
}
