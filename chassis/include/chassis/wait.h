/* chassis/wait.h: marks for what may wait (fibers.md rule 1), and how a wait ends.
 *
 * CH_WAITS marks every function that may park the calling fiber. clang -Wthread-safety then reports
 * a call of one from a function that is not marked itself; gcc ignores the marks. A vtable slot
 * that may wait is CH_WAITS_SLOT. A fiber's entry function, and nothing else, begins with
 * CH_FIBER_ENTRY(). A section between CH_NO_WAIT_BEGIN and CH_NO_WAIT_END may not wait: clang
 * refuses it and, in every build, a switch inside it aborts.
 *
 * Every wait takes an absolute deadline on the env's monotonic clock (CH_NEVER: none), looks at
 * cancellation on entry, and ends with one outcome, written once by whoever ended it. Waits that
 * ignore cancellation say so in their name (_always). */
#ifndef CHASSIS_WAIT_H
#define CHASSIS_WAIT_H

#include "base/status.h"

#if defined(__clang__)
struct __attribute__((capability("may_wait"))) ch_may_wait_capability {
    char unused;
};
extern struct ch_may_wait_capability ch_may_wait;
#define CH_WAITS __attribute__((requires_capability(ch_may_wait)))
#define CH_WAITS_SLOT __attribute__((guarded_by(ch_may_wait)))
static inline void ch_assert_may_wait_(void) __attribute__((assert_capability(ch_may_wait)))
{
}
static inline void ch_release_may_wait_(void)
    __attribute__((release_capability(ch_may_wait), no_thread_safety_analysis))
{
}
static inline void ch_acquire_may_wait_(void)
    __attribute__((acquire_capability(ch_may_wait), no_thread_safety_analysis))
{
}
#else
#define CH_WAITS
#define CH_WAITS_SLOT
static inline void ch_assert_may_wait_(void)
{
}
static inline void ch_release_may_wait_(void)
{
}
static inline void ch_acquire_may_wait_(void)
{
}
#endif

#define CH_FIBER_ENTRY() ch_assert_may_wait_()
#define CH_NO_WAIT_BEGIN()      \
    do {                        \
        ch_release_may_wait_(); \
        ch_no_wait_enter();     \
    } while (0)
#define CH_NO_WAIT_END()        \
    do {                        \
        ch_no_wait_leave();     \
        ch_acquire_may_wait_(); \
    } while (0)
void ch_no_wait_enter(void);
void ch_no_wait_leave(void);

/* Nanoseconds of the env's monotonic clock. */
typedef int64_t ch_time;
#define CH_NEVER INT64_MAX
#define CH_US 1000LL
#define CH_MS 1000000LL
#define CH_S 1000000000LL

enum ch_outcome {
    CH_OK = 0,
    CH_TIMEOUT,   /* the deadline passed */
    CH_CANCELLED, /* the waiting fiber was cancelled */
    CH_CLOSED,    /* what was waited for is closed or broken */
};

/* OK, DEADLINE_EXCEEDED, CANCELLED or UNAVAILABLE, with `what` ("lock tablet 7") in the text. */
struct base_status ch_outcome_status(enum ch_outcome outcome, const char *what) BASE_MUST_CHECK;

#endif
