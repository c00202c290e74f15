/* base/status.h: the one error type of Strata.
 *
 * A status is a code (gRPC's own numbers, so nothing is ever translated) and a text that grows as
 * it travels up: "commit group 7: append: replica 3: deadline exceeded". Success allocates nothing.
 * A failed status OWNS its text: give it on (return it, base_status_wrap it) or end it with
 * base_status_free. Every function that returns one is marked BASE_MUST_CHECK. No function here may
 * wait. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#define BASE_MUST_CHECK __attribute__((warn_unused_result))
#define BASE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* X-macro list: BASE_CODE(name, number). */
#define BASE_CODES(X)         \
    X(OK, 0)                  \
    X(CANCELLED, 1)           \
    X(UNKNOWN, 2)             \
    X(INVALID_ARGUMENT, 3)    \
    X(DEADLINE_EXCEEDED, 4)   \
    X(NOT_FOUND, 5)           \
    X(ALREADY_EXISTS, 6)      \
    X(PERMISSION_DENIED, 7)   \
    X(RESOURCE_EXHAUSTED, 8)  \
    X(FAILED_PRECONDITION, 9) \
    X(ABORTED, 10)            \
    X(OUT_OF_RANGE, 11)       \
    X(UNIMPLEMENTED, 12)      \
    X(INTERNAL, 13)           \
    X(UNAVAILABLE, 14)        \
    X(DATA_LOSS, 15)          \
    X(UNAUTHENTICATED, 16)

enum base_code {
#define X(name, number) BASE_##name = number,
    BASE_CODES(X)
#undef X
};

struct base_status {
    enum base_code code;
    char *text; /* owned; NULL exactly when code is BASE_OK or memory ran out while failing */
};

#define BASE_STATUS_OK ((struct base_status){ BASE_OK, 0 })

static inline bool base_failed(struct base_status status)
{
    return status.code != BASE_OK;
}

/* A failed status with a formatted text. `code` must not be BASE_OK. */
struct base_status base_status_make(enum base_code code, const char *fmt, ...)
    BASE_PRINTF(2, 3) BASE_MUST_CHECK;

/* Puts "<formatted>: " before the text of a failed status; hands a success through untouched. */
struct base_status base_status_wrap(struct base_status status, const char *fmt, ...)
    BASE_PRINTF(2, 3) BASE_MUST_CHECK;

/* The code gRPC would use for an errno, with "<what>: <strerror>". ENOSPC and EDQUOT are
 * RESOURCE_EXHAUSTED, ENOENT is NOT_FOUND, EEXIST is ALREADY_EXISTS; what has no better home is
 * INTERNAL. */
struct base_status base_status_errno(int err, const char *what) BASE_MUST_CHECK;

/* A copy that owns its own text. */
struct base_status base_status_copy(const struct base_status *status) BASE_MUST_CHECK;

/* Ends a status and leaves OK behind. Safe on a success and on what was freed before. */
void base_status_free(struct base_status *status);

/* Takes the status and ends it: for the places where an error is, on purpose, of no further use.
 * Returns its code. */
enum base_code base_status_drop(struct base_status status);

/* Never NULL; valid till the status is freed. */
const char *base_status_text(const struct base_status *status);

/* "INVALID_ARGUMENT"; "UNKNOWN" for numbers outside the list. */
const char *base_code_name(enum base_code code);
/* The inverse; false when the name is none of the list. */
bool base_code_parse(const char *name, enum base_code *code);

/* A broken invariant: prints file, line and text to stderr and aborts, in every build. */
#define BASE_ASSERT(cond)                                            \
    do {                                                             \
        if (__builtin_expect(!(cond), 0))                            \
            base_assert_failed(__FILE__, __LINE__, __func__, #cond); \
    } while (0)
void base_assert_failed(const char *file, int line, const char *func, const char *what)
    __attribute__((noreturn, cold));

/* What clang's static analyzer (./dev tidy) cannot see from the declarations: a made status has
 * failed, and wrapping or copying one keeps its code. */
#ifdef __clang_analyzer__
#define BASE__ANALYZED(call, same_code_as)                   \
    ({                                                       \
        struct base_status made_ = call;                     \
        if (base_failed(made_) != base_failed(same_code_as)) \
            __builtin_unreachable();                         \
        made_;                                               \
    })
#define BASE__A_FAILURE ((struct base_status){ BASE_UNKNOWN, 0 })
#define base_status_make(...) BASE__ANALYZED((base_status_make)(__VA_ARGS__), BASE__A_FAILURE)
#define base_status_errno(...) BASE__ANALYZED((base_status_errno)(__VA_ARGS__), BASE__A_FAILURE)
#define base_status_wrap(status, ...)                                    \
    ({                                                                   \
        struct base_status given_ = (status);                            \
        BASE__ANALYZED((base_status_wrap)(given_, __VA_ARGS__), given_); \
    })
#define base_status_copy(from) BASE__ANALYZED((base_status_copy)(from), *(from))
#endif

#endif
