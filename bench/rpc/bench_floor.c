/* bench_floor.c: the floor: messages of a fixed size over TCP, epoll, one thread a side, nothing
 * in them looked at. A client with n outstanding has n connections. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench_rpc.h"

enum { EVENTS = 64, BUF = 1 << 20 };

static void no_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

void floor_server(void)
{
    static char buf[BUF];
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    if (bind(listener, (struct sockaddr *)&address, len) != 0 || listen(listener, 128) != 0)
        abort();
    getsockname(listener, (struct sockaddr *)&address, &len);
    bench_say_port(ntohs(address.sin_port));
    struct epoll_event event = { .events = EPOLLIN, .data.fd = listener }, events[EVENTS];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                no_delay(fd);
                event = (struct epoll_event){ .events = EPOLLIN, .data.fd = fd };
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            ssize_t got = read(fd, buf, sizeof(buf));
            if (got <= 0 || write(fd, buf, (size_t)got) != got)
                close(fd);
        }
    }
}

void floor_client(struct bench_run *run)
{
    static char buf[BUF];
    static int64_t sent[4096];
    static size_t got_bytes[4096];
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)run->port) };
    int poll = epoll_create1(0);
    struct epoll_event events[EVENTS];
    int64_t begin = bench_now_ns();
    bool warm = false;
    for (int i = 0; i < run->outstanding; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd >= 4096 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
            abort();
        no_delay(fd);
        struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        sent[fd] = bench_now_ns();
        if (write(fd, buf, run->payload) != (ssize_t)run->payload)
            abort();
    }
    for (;;) {
        int count = epoll_wait(poll, events, EVENTS, -1);
        int64_t now = bench_now_ns();
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            ssize_t got = read(fd, buf, sizeof(buf));
            if (got <= 0)
                abort();
            got_bytes[fd] += (size_t)got;
            if (got_bytes[fd] < run->payload)
                continue;
            got_bytes[fd] = 0;
            run->ops++;
            if (warm)
                ch_observe(run->latency, (uint64_t)(now - sent[fd]));
            sent[fd] = now;
            if (write(fd, buf, run->payload) != (ssize_t)run->payload)
                abort();
        }
        if (!warm && now - begin > (int64_t)(run->seconds * 0.2e9)) {
            warm = true;
            bench_mark_begin(run);
        }
        if (warm && now - begin > (int64_t)(run->seconds * 1.2e9))
            bench_mark_end(run);
    }
}
