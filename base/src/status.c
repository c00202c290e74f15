/* status.c: see status.h. Text is heap memory of its own because an error outlives the arena of the
 * request that met it. */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not as the analyzer reads them (status.h). */
#undef base_status_make
#undef base_status_wrap
#undef base_status_errno
#undef base_status_copy

struct base_status base_status_make(enum base_code code, const char *fmt, ...)
{
    struct base_status status = { .code = code };
    BASE_ASSERT(code != BASE_OK);
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&status.text, fmt, args) < 0)
        status.text = NULL;
    va_end(args);
    return status;
}

struct base_status base_status_wrap(struct base_status status, const char *fmt, ...)
{
    if (!base_failed(status))
        return status;
    char *prefix = NULL, *whole = NULL;
    va_list args;
    va_start(args, fmt);
    int rc = vasprintf(&prefix, fmt, args);
    va_end(args);
    if (rc < 0)
        return status;
    if (asprintf(&whole, "%s: %s", prefix, base_status_text(&status)) >= 0) {
        free(status.text);
        status.text = whole;
    }
    free(prefix);
    return status;
}

static enum base_code code_of_errno(int err)
{
    switch (err) {
    case ENOENT:
        return BASE_NOT_FOUND;
    case EEXIST:
        return BASE_ALREADY_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return BASE_RESOURCE_EXHAUSTED;
    case EACCES:
    case EPERM:
    case EROFS:
        return BASE_PERMISSION_DENIED;
    case EINVAL:
    case ENAMETOOLONG:
        return BASE_INVALID_ARGUMENT;
    case EADDRINUSE:
    case ECONNREFUSED:
    case EAGAIN:
        return BASE_UNAVAILABLE;
    case ETIMEDOUT:
        return BASE_DEADLINE_EXCEEDED;
    default:
        return BASE_INTERNAL;
    }
}

struct base_status base_status_errno(int err, const char *what)
{
    char text[128];
    return base_status_make(code_of_errno(err), "%s: %s", what,
                            strerror_r(err, text, sizeof(text)));
}

struct base_status base_status_copy(const struct base_status *status)
{
    struct base_status copy = { .code = status->code };
    if (status->text)
        copy.text = strdup(status->text);
    return copy;
}

void base_status_free(struct base_status *status)
{
    free(status->text);
    *status = BASE_STATUS_OK;
}

enum base_code base_status_drop(struct base_status status)
{
    enum base_code code = status.code;
    base_status_free(&status);
    return code;
}

const char *base_status_text(const struct base_status *status)
{
    return status->text ? status->text : base_code_name(status->code);
}

static const char *const code_names[] = {
#define X(name, number) [number] = #name,
    BASE_CODES(X)
#undef X
};

const char *base_code_name(enum base_code code)
{
    size_t i = (size_t)code;
    return i < sizeof(code_names) / sizeof(code_names[0]) ? code_names[i] : "UNKNOWN";
}

bool base_code_parse(const char *name, enum base_code *code)
{
    for (size_t i = 0; i < sizeof(code_names) / sizeof(code_names[0]); i++)
        if (strcmp(code_names[i], name) == 0) {
            *code = (enum base_code)i;
            return true;
        }
    return false;
}

void base_assert_failed(const char *file, int line, const char *func, const char *what)
{
    fprintf(stderr, "%s:%d: %s: broken invariant: %s\n", file, line, func, what);
    fflush(stderr);
    abort();
}
