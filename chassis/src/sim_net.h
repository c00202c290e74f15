/* sim_net.h (private to the simulated network): connections (sim_net.c) the calls on them
 * (sim_rpc.c), channels and listeners (transport_sim.c).
 *
 * A connection is two pipes, one each way. What is put into a pipe comes out in order after a
 * seeded delay, unless the pipe is stalled: its direction is cut, or the node it leads to is
 * paused. A call (struct ch__rpc) has two halves, one a side; each is a struct ch_tcall in the
 * hands of its side's user. Invariants:
 *  1. What goes into one pipe comes out in that order, or (from some point on) not at all.
 *  2. A side that is lost sends nothing and receives nothing; every half on it is over.
 *  3. A half becomes over once; its status never changes after that.
 *  4. A connection lives while a side is not lost or a call refers to it; a call while a half or a
 * frame does. */
#ifndef CHASSIS_SIM_NET_H
#define CHASSIS_SIM_NET_H

#include "sim_int.h"

enum { CH__CLIENT = 0, CH__SERVER = 1 };

enum ch__frame_kind {
    CH__FRAME_SYN,      /* to the server: the connection is asked for */
    CH__FRAME_ACCEPTED, /* to the client */
    CH__FRAME_REFUSED,  /* to the client: nobody listens */
    CH__FRAME_GONE,     /* the other side has closed or lost the connection */
    CH__FRAME_OPEN,     /* to the server: a call begins */
    CH__FRAME_MESSAGE,
    CH__FRAME_HALF_CLOSE, /* to the server: no more messages */
    CH__FRAME_CREDIT,     /* `credit` more bytes may be sent */
    CH__FRAME_CANCEL,     /* to the server */
    CH__FRAME_STATUS,     /* to the client: the end */
};

struct ch__frame {
    struct ch__frame *next;
    enum ch__frame_kind kind;
    bool not_seen;       /* STATUS: the server turned the call away before anything ran */
    struct ch__rpc *rpc; /* counted; NULL for those of the connection */
    ch_time due;
    int64_t credit;
    uint8_t *data; /* MESSAGE; owned */
    size_t len;
    struct base_status status;
    struct ch__pairs *trailers;
};

struct ch__pipe {
    struct ch__conn *conn;
    struct ch__frame *first, **end;
    struct ch_timer timer; /* of the first frame */
    ch_time last_due;
};

struct ch__conn {
    struct ch__conn *next, *prev; /* of the net, while a side is not lost */
    struct ch_sim *sim;
    uint64_t id;
    uint32_t refs;
    struct ch_tchannel *channel;
    struct ch_tlistener *listener;
    struct {
        char *host;
        struct ch__sim_inc *inc; /* NULL: not (or no longer) known */
        bool lost;
    } side[2];
    uint32_t port; /* the server's */
    uint32_t client_port;
    struct ch__pipe pipe[2]; /* [CH__SERVER] leads to the server */
    struct ch_timer timer;   /* connecting: gives up; open and stalled: keepalive */
    bool open;               /* the client has heard ACCEPTED */
    struct ch__rpc *rpcs;
};

struct ch__net_rule { /* of one direction; "*" is every host */
    struct ch__net_rule *next;
    char *from, *to;
    bool cut;
    ch_time extra;
};

/* ---- sim_net.c ---- */
/* Asks for a connection; the channel hears by ch__channel_connected or ch__channel_lost. */
struct ch__conn *ch__conn_new(struct ch_tchannel *channel, struct ch__sim_inc *client,
                              const char *host, uint32_t port);
void ch__conn_unref(struct ch__conn *conn);
/* Puts a frame (taken) into the pipe to `side`; drops it when the sender's side is lost. */
void ch__conn_send(struct ch__conn *conn, int side, struct ch__frame *frame);
/* The side has no connection any more: halves on it end with UNAVAILABLE and `why`. */
void ch__conn_lose(struct ch__conn *conn, int side, const char *why);
/* A side closes: it is lost at once, the other hears of it in order after what is in the pipe. */
void ch__conn_close(struct ch__conn *conn, int side, const char *why);
struct ch__frame *ch__frame_new(enum ch__frame_kind kind, struct ch__rpc *rpc);
void ch__frame_free(struct ch__frame *frame);

/* ---- calls (sim_rpc.c) ---- */
enum { CH__WINDOW_BYTES = 64 * 1024, CH__MESSAGE_OVERHEAD_BYTES = 16, CH__HOST_MAX = 96 };

struct ch__pairs {
    size_t count;
    struct ch_metadata pairs[];
};

struct ch_tcall { /* one half */
    struct ch__rpc *rpc;
    int side;
    bool held; /* its user has not freed it */
    bool over, in_ended, replied;
    struct base_status status;
    bool never_seen;
    struct ch__pairs *trailers;
    struct ch__frame *inbox, **inbox_end;
    int64_t credit;
    size_t bytes_max;
    struct ch_wait_list waiters;
    struct ch_timer timer; /* the deadline */
    ch_time deadline;
    void (*on_cancel)(void *self);
    void *self;
    struct ch_tlistener *listener; /* server: while it counts as unfinished there */
    char peer[CH__HOST_MAX + 16];
};

struct ch__rpc {
    uint32_t refs; /* halves held, frames */
    struct ch_sim *sim;
    struct ch__conn *conn;       /* counted; NULL until sent */
    struct ch__rpc *next, *prev; /* of the connection */
    struct ch_tchannel *channel; /* while it waits for a connection */
    struct ch__rpc *queue_next;
    struct ch__frame *queued, **queued_end; /* frames put before there was a connection */
    char *path;
    struct ch__pairs *metadata;
    ch_time sent;
    bool wait_for_ready;
    struct ch_tcall half[2];
};

struct ch__rpc *ch__rpc_new(struct ch_sim *sim, const char *path);
struct ch__pairs *ch__pairs_copy(const struct ch_metadata *pairs, size_t count);
void ch__pairs_free(struct ch__pairs *pairs);
void ch__rpc_ref(struct ch__rpc *rpc);
void ch__rpc_unref(struct ch__rpc *rpc);
/* The half is over with this status (taken), unless it was already. Its waiters wake, its server's
 * user hears of it. */
void ch__half_over(struct ch_tcall *half, struct base_status status);
/* The same, and the other half is told. */
void ch__half_abort(struct ch_tcall *half, struct base_status status);
void ch__half_deadline(struct ch_tcall *half, ch_time deadline);
/* Sends a frame (taken) to the other half, now or when there is a connection. */
void ch__half_transmit(struct ch_tcall *half, struct ch__frame *frame);
/* Takes the status and the trailers. */
void ch__half_send_status(struct ch_tcall *half, struct base_status status,
                          struct ch__pairs *trailers, bool not_seen);
/* A frame of a call arrives at `side`; takes it. */
void ch__rpc_deliver(struct ch__conn *conn, int side, struct ch__frame *frame);
/* Ends every half on the side. */
void ch__rpc_side_lost(struct ch__conn *conn, int side, const char *why);
/* Of struct ch_transport. */
struct base_status ch__sim_send(struct ch_tcall *half, struct base_bytes message) CH_WAITS;
struct base_status ch__sim_close_send(struct ch_tcall *half) CH_WAITS;
struct base_status ch__sim_recv(struct ch_tcall *half, struct base_buf *message,
                                bool *end) CH_WAITS;
struct ch_tfinish ch__sim_finish(struct ch_tcall *half) CH_WAITS;
void ch__sim_cancel(struct ch_tcall *half);
void ch__sim_free(struct ch_tcall *half);
const char *ch__sim_path(const struct ch_tcall *half);
const char *ch__sim_peer(const struct ch_tcall *half);
ch_time ch__sim_deadline(const struct ch_tcall *half);
size_t ch__sim_metadata(const struct ch_tcall *half, const struct ch_metadata **pairs);
void ch__sim_on_cancel(struct ch_tcall *half, void (*cancelled)(void *self), void *self);
void ch__sim_reply(struct ch_tcall *half, const struct base_bytes *message,
                   const struct base_status *status, const struct ch_metadata *trailers,
                   size_t trailer_count) CH_WAITS;

/* ---- channels and listeners (transport_sim.c) ---- */
/* Takes a call that waits for a connection off its channel's queue. */
void ch__rpc_unqueue(struct ch__rpc *rpc);
/* A call begins at the server. */
void ch__rpc_open(struct ch__conn *conn, struct ch__rpc *rpc);
/* The half counts no more as unfinished at its listener. */
void ch__listener_done_with(struct ch_tcall *half);
void ch__channel_connected(struct ch_tchannel *channel);
/* While connecting: what waits for a connection is told why it failed. */
void ch__channel_lost(struct ch_tchannel *channel, const char *why);
/* The incarnation's channels fail what waits on them; nothing listens for it any more. */
void ch__endpoints_gone(struct ch__sim_inc *inc);
struct ch_tlistener *ch__listener_find(struct ch_sim *sim, const char *host, uint32_t port);
struct ch__sim_inc *ch__listener_inc(const struct ch_tlistener *listener);

#endif
