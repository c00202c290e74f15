/* env_real.c: the env of a real process: one loop thread that blocks in gRPC's completion queue.
 *
 * Invariants:
 *  1. Fibers, handlers and all of chassis' state run on the loop thread only; other threads reach
 * it by ch_env_post.
 *  2. A post wakes the loop by an empty batch on a call of a lame channel: its tag arrives on the
 * completion queue like any other (nothing in gRPC documents this; test_env.c pins it). Only the
 * post that finds the stack empty wakes, so at most one such batch is out.
 *  3. Helper threads are joined before the queue is shut down: a batch started after that would
 * abort the process.
 *
 * Threads: the loop; FILE_THREADS for file system calls; one for precise timers; one that takes
 * SIGTERM and SIGINT. */
#include "env_real.h"

#include <errno.h>
#include <grpc/grpc.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { FILE_THREADS = 4, EVENTS_A_TURN = 32 };
static const ch_time TIMER_THREAD_HORIZON =
    5 * CH_MS; /* a cq_next deadline comes 1 ms late; sooner timers get the thread */

struct offload {
    struct offload *next;
    void (*fn)(void *arg);
    void *arg;
    struct ch_post post;
    struct ch_wait_node node;
};

struct real_env {
    struct ch_env env;
    struct ch_loop loop;
    grpc_completion_queue *cq;
    grpc_channel *lame;
    grpc_call *wake_call;
    struct ch_tag wake_tag;
    struct ch_post *posts; /* atomic stack, newest first */
    uint64_t random[2];
    size_t held;
    /* file threads */
    pthread_t file_threads[FILE_THREADS];
    pthread_mutex_t file_lock;
    pthread_cond_t file_wake;
    struct offload *file_first, *file_last;
    bool file_stop;
    /* timer thread */
    pthread_t timer_thread;
    pthread_mutex_t timer_lock;
    pthread_cond_t timer_wake;
    ch_time timer_armed;
    bool timer_stop;
    struct ch_post timer_post;
    bool timer_posted; /* atomic */
    /* signals */
    pthread_t signal_thread;
    struct ch_post signal_post, reload_post;
    bool reload_posted; /* atomic */
    bool signal_stop;   /* atomic */
    ch_main_fn *main_fn;
    void *main_arg;
};

static struct real_env *real(struct ch_env *env)
{
    return (struct real_env *)env;
}

/* ---- clock, random ---- */

static ch_time monotonic(void *self)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * CH_S + now.tv_nsec;
}

static ch_time real_now(struct ch_env *env)
{
    return monotonic(env);
}

static int64_t real_wall_us(struct ch_env *env)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static uint64_t real_random(
    struct ch_env *env) /* xoroshiro128+ (Blackman, Vigna), seeded by the kernel */
{
    uint64_t *s = real(env)->random, a = s[0], b = s[1], result = a + b;
    b ^= a;
    s[0] = (a << 24 | a >> 40) ^ b ^ (b << 16);
    s[1] = b << 37 | b >> 27;
    return result;
}

/* ---- posts ---- */

static void real_post(struct ch_env *env, struct ch_post *post)
{
    struct real_env *self = real(env);
    struct ch_post *head = __atomic_load_n(&self->posts, __ATOMIC_RELAXED);
    do
        post->next = head;
    while (!__atomic_compare_exchange_n(&self->posts, &head, post, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
    if (head)
        return;
    grpc_call_error error = grpc_call_start_batch(self->wake_call, NULL, 0, &self->wake_tag, NULL);
    BASE_ASSERT(error == GRPC_CALL_OK);
}

static void run_posts(struct ch_tag *tag, bool ok)
{
    struct real_env *self = (void *)((char *)tag - offsetof(struct real_env, wake_tag));
    struct ch_post *newest = __atomic_exchange_n(&self->posts, NULL, __ATOMIC_ACQUIRE),
                   *oldest = NULL;
    while (newest) {
        struct ch_post *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct ch_post *next = oldest->next;
        oldest->fn(oldest);
        oldest = next;
    }
}

/* ---- file threads ---- */

static void offload_done(struct ch_post *post)
{
    struct offload *job = (void *)((char *)post - offsetof(struct offload, post));
    ch_wait_end(&job->node, CH_OK);
}

static void *file_thread(void *arg)
{
    struct real_env *self = arg;
    pthread_mutex_lock(&self->file_lock);
    for (;;) {
        struct offload *job = self->file_first;
        if (!job && self->file_stop)
            break;
        if (!job) {
            pthread_cond_wait(&self->file_wake, &self->file_lock);
            continue;
        }
        self->file_first = job->next;
        if (!self->file_first)
            self->file_last = NULL;
        pthread_mutex_unlock(&self->file_lock);
        job->fn(job->arg);
        job->post.fn = offload_done;
        real_post(&self->env, &job->post);
        pthread_mutex_lock(&self->file_lock);
    }
    pthread_mutex_unlock(&self->file_lock);
    return NULL;
}

static void real_offload(struct ch_env *env, void (*fn)(void *arg), void *arg) CH_WAITS;
static void real_offload(struct ch_env *env, void (*fn)(void *arg), void *arg)
{
    struct real_env *self = real(env);
    struct offload job = { .fn = fn, .arg = arg };
    pthread_mutex_lock(&self->file_lock);
    if (self->file_last)
        self->file_last->next = &job;
    else
        self->file_first = &job;
    self->file_last = &job;
    pthread_cond_signal(&self->file_wake);
    pthread_mutex_unlock(&self->file_lock);
    enum ch_outcome outcome = ch_wait_on(NULL, &job.node, CH_NEVER, true, "helper thread");
    BASE_ASSERT(outcome == CH_OK);
}

/* ---- timer thread ---- */

static void timer_fired(struct ch_post *post)
{
    struct real_env *self = (void *)((char *)post - offsetof(struct real_env, timer_post));
    __atomic_store_n(&self->timer_posted, false, __ATOMIC_RELEASE);
}

static void *timer_thread(void *arg)
{
    struct real_env *self = arg;
    pthread_mutex_lock(&self->timer_lock);
    while (!self->timer_stop) {
        if (self->timer_armed == CH_NEVER) {
            pthread_cond_wait(&self->timer_wake, &self->timer_lock);
            continue;
        }
        struct timespec until = { self->timer_armed / CH_S, self->timer_armed % CH_S };
        if (pthread_cond_timedwait(&self->timer_wake, &self->timer_lock, &until) != ETIMEDOUT)
            continue;
        self->timer_armed = CH_NEVER;
        if (!__atomic_exchange_n(&self->timer_posted, true, __ATOMIC_ACQ_REL))
            real_post(&self->env, &self->timer_post);
    }
    pthread_mutex_unlock(&self->timer_lock);
    return NULL;
}

static void arm_timer_thread(struct real_env *self, ch_time deadline)
{
    pthread_mutex_lock(&self->timer_lock);
    if (deadline < self->timer_armed) {
        self->timer_armed = deadline;
        pthread_cond_signal(&self->timer_wake);
    }
    pthread_mutex_unlock(&self->timer_lock);
}

/* ---- signals ---- */

static void signal_arrived(struct ch_post *post)
{
    struct real_env *self = (void *)((char *)post - offsetof(struct real_env, signal_post));
    ch_env_stop_main(&self->env);
}

static void reload_asked(struct ch_post *post)
{
    struct real_env *self = (void *)((char *)post - offsetof(struct real_env, reload_post));
    __atomic_store_n(&self->reload_posted, false, __ATOMIC_RELEASE);
    if (self->env.reload)
        self->env.reload(&self->env);
    else
        ch_env_stop_main(&self->env);
}

static void signal_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR2); /* ends the thread */
}

static void *signal_thread(void *arg)
{
    struct real_env *self = arg;
    sigset_t set;
    int number, count = 0;
    signal_set(&set);
    while (sigwait(&set, &number) == 0) {
        if (__atomic_load_n(&self->signal_stop, __ATOMIC_ACQUIRE))
            break;
        if (number == SIGUSR2)
            continue;
        if (number == SIGHUP) {
            if (!__atomic_exchange_n(&self->reload_posted, true, __ATOMIC_ACQ_REL))
                real_post(&self->env, &self->reload_post);
            continue;
        }
        if (++count > 1)
            _exit(128 + number);
        real_post(&self->env, &self->signal_post);
    }
    return NULL;
}

/* ---- the loop ---- */

struct grpc_completion_queue *ch_env_cq(struct ch_env *env)
{
    return real(env)->cq;
}

void ch_env_hold(struct ch_env *env)
{
    real(env)->held++;
}

void ch_env_release(struct ch_env *env)
{
    BASE_ASSERT(real(env)->held > 0);
    real(env)->held--;
}

/* How long the queue may block: not at all with fibers ready, else until the next timer. */
static gpr_timespec block_until(struct real_env *self)
{
    if (self->loop.ready_len)
        return gpr_inf_past(GPR_CLOCK_MONOTONIC);
    ch_time next = ch_loop_next_timer(&self->loop);
    if (next == CH_NEVER)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    ch_time left = next - monotonic(self);
    if (left <= 0)
        return gpr_inf_past(GPR_CLOCK_MONOTONIC);
    if (left < TIMER_THREAD_HORIZON)
        arm_timer_thread(self, next);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(left, GPR_TIMESPAN));
}

static void turn(struct real_env *self)
{
    gpr_timespec until = block_until(self);
    for (int i = 0; i < EVENTS_A_TURN; i++) {
        grpc_event event = grpc_completion_queue_next(self->cq, until, NULL);
        if (event.type != GRPC_OP_COMPLETE)
            break;
        struct ch_tag *tag = event.tag;
        tag->run(tag, event.success != 0);
        until = gpr_inf_past(GPR_CLOCK_MONOTONIC);
    }
    ch_loop_fire(&self->loop, monotonic(self));
    ch_loop_run_ready(&self->loop);
}

static void main_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct real_env *self = arg;
    self->env.exit_value = self->main_fn(&self->env, self->main_arg);
}

static const struct ch_env_ops real_ops = {
    .now = real_now,
    .wall_us = real_wall_us,
    .random = real_random,
    .transport = &ch_transport_grpc,
    .post = real_post,
    .offload = real_offload,
    .file_open = ch_real_file_open,
    .file_read = ch_real_file_read,
    .file_write = ch_real_file_write,
    .file_sync = ch_real_file_sync,
    .file_allocate = ch_real_file_allocate,
    .file_truncate = ch_real_file_truncate,
    .file_cut_front = ch_real_file_cut_front,
    .file_size = ch_real_file_size,
    .file_lock = ch_real_file_lock,
    .file_close = ch_real_file_close,
    .dir_make = ch_real_dir_make,
    .dir_list = ch_real_dir_list,
    .dir_sync = ch_real_dir_sync,
    .file_rename = ch_real_file_rename,
    .file_remove = ch_real_file_remove,
    .disk_space = ch_real_disk_space,
};

static void start_threads(struct real_env *self)
{
    pthread_condattr_t monotonic_clock;
    pthread_condattr_init(&monotonic_clock);
    pthread_condattr_setclock(&monotonic_clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&self->file_lock, NULL);
    pthread_cond_init(&self->file_wake, NULL);
    pthread_mutex_init(&self->timer_lock, NULL);
    pthread_cond_init(&self->timer_wake, &monotonic_clock);
    pthread_condattr_destroy(&monotonic_clock);
    self->timer_armed = CH_NEVER;
    self->timer_post.fn = timer_fired;
    self->signal_post.fn = signal_arrived;
    self->reload_post.fn = reload_asked;
    for (int i = 0; i < FILE_THREADS; i++)
        BASE_ASSERT(pthread_create(&self->file_threads[i], NULL, file_thread, self) == 0);
    BASE_ASSERT(pthread_create(&self->timer_thread, NULL, timer_thread, self) == 0);
    BASE_ASSERT(pthread_create(&self->signal_thread, NULL, signal_thread, self) == 0);
}

static void stop_threads(struct real_env *self)
{
    pthread_mutex_lock(&self->file_lock);
    self->file_stop = true;
    pthread_cond_broadcast(&self->file_wake);
    pthread_mutex_unlock(&self->file_lock);
    for (int i = 0; i < FILE_THREADS; i++)
        pthread_join(self->file_threads[i], NULL);
    pthread_mutex_lock(&self->timer_lock);
    self->timer_stop = true;
    pthread_cond_signal(&self->timer_wake);
    pthread_mutex_unlock(&self->timer_lock);
    pthread_join(self->timer_thread, NULL);
    __atomic_store_n(&self->signal_stop, true, __ATOMIC_RELEASE);
    pthread_kill(self->signal_thread, SIGUSR2);
    pthread_join(self->signal_thread, NULL);
    pthread_mutex_destroy(&self->file_lock);
    pthread_cond_destroy(&self->file_wake);
    pthread_mutex_destroy(&self->timer_lock);
    pthread_cond_destroy(&self->timer_wake);
}

static void queue_open(struct real_env *self)
{
    self->cq = grpc_completion_queue_create_for_next(NULL);
    self->lame =
        grpc_lame_client_channel_create("wake", GRPC_STATUS_UNAVAILABLE, "only wakes the loop");
    grpc_slice path = grpc_slice_from_static_string("/wake");
    self->wake_call =
        grpc_channel_create_call(self->lame, NULL, GRPC_PROPAGATE_DEFAULTS, self->cq, path, NULL,
                                 gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    self->wake_tag.run = run_posts;
}

static void queue_close(struct real_env *self)
{
    while (self->posts) /* threads are gone; what they posted last is still to be run */
        turn(self);
    grpc_call_unref(self->wake_call);
    grpc_channel_destroy(self->lame);
    grpc_completion_queue_shutdown(self->cq);
    while (grpc_completion_queue_next(self->cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        ;
    grpc_completion_queue_destroy(self->cq);
}

int ch_env_run(ch_main_fn *main_fn, void *arg)
{
    struct real_env *self = calloc(1, sizeof(*self));
    sigset_t blocked, before;
    BASE_ASSERT(self != NULL);
    signal_set(&blocked);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    signal(SIGPIPE, SIG_IGN);
    grpc_init();
    ch_loop_init(&self->loop, monotonic, self);
    self->env.ops = &real_ops;
    self->env.loop = &self->loop;
    self->main_fn = main_fn;
    self->main_arg = arg;
    BASE_ASSERT(getrandom(self->random, sizeof(self->random), 0) == sizeof(self->random));
    queue_open(self);
    start_threads(self);
    ch_gate_init(&self->env.main_gate, &self->env, "main");
    struct base_status status = ch_gate_spawn(&self->env.main_gate, "main", main_fiber, self);
    BASE_ASSERT(!base_failed(status));
    while (self->loop.live > 0 || self->held > 0)
        turn(self);
    ch__env_free_ext(&self->env);
    stop_threads(self);
    queue_close(self);
    grpc_shutdown_blocking();
    ch_loop_destroy(&self->loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    int exit_value = self->env.exit_value;
    free(self);
    return exit_value;
}
