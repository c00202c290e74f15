/* base/bytes.h: byte strings. struct base_bytes is a borrowed view (it owns nothing; who hands one
 * out says how long it lives); struct base_buf is an owned, growing one. Order is memcmp order, a
 * prefix first: the order of keys in every layer. No function here may wait. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"

struct base_bytes {
    const uint8_t *data; /* may be NULL when len is 0 */
    size_t len;
};

#define BASE_BYTES_EMPTY ((struct base_bytes){ 0, 0 })
/* Of a string literal, without its NUL. */
#define BASE_BYTES_LIT(lit) ((struct base_bytes){ (const uint8_t *)(lit), sizeof(lit) - 1 })
/* For printf("%.*s"): the two arguments. */
#define BASE_FMT(b) (int)(b).len, (b).len ? (const char *)(b).data : ""

static inline struct base_bytes base_bytes(const void *data, size_t len)
{
    return (struct base_bytes){ (const uint8_t *)data, len };
}
static inline struct base_bytes base_bytes_str(const char *text)
{
    return base_bytes(text, strlen(text));
}
static inline int base_bytes_cmp(struct base_bytes a, struct base_bytes b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.data, b.data, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}
static inline bool base_bytes_eq(struct base_bytes a, struct base_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}
static inline bool base_bytes_eq_str(struct base_bytes a, const char *text)
{
    return base_bytes_eq(a, base_bytes_str(text));
}
static inline bool base_bytes_starts_with(struct base_bytes a, struct base_bytes prefix)
{
    return a.len >= prefix.len && (prefix.len == 0 || memcmp(a.data, prefix.data, prefix.len) == 0);
}
struct base_bytes base_bytes_dup(struct base_arena *arena, struct base_bytes bytes);
/* A NUL-terminated copy (embedded NULs stay and hide the rest from C). */
char *base_bytes_cstr(struct base_arena *arena, struct base_bytes bytes);
/* For messages: at most `max` bytes shown, what is not printable ASCII as \xNN, "…" where cut. */
const char *base_bytes_show(struct base_arena *arena, struct base_bytes bytes, size_t max);

/* A growing buffer on the heap. A zeroed struct is an empty one. Growth that runs out of memory
 * aborts. */
struct base_buf {
    uint8_t *data;
    size_t len, cap;
};
void base_buf_free(struct base_buf *buf);
void base_buf_clear(struct base_buf *buf); /* keeps its memory */
void base_buf_reserve(struct base_buf *buf, size_t more);
/* Appends `len` undefined bytes and returns where they are (valid till the next append). */
uint8_t *base_buf_extend(struct base_buf *buf, size_t len);
void base_buf_put(struct base_buf *buf, const void *data, size_t len);
void base_buf_put_bytes(struct base_buf *buf, struct base_bytes bytes);
void base_buf_put_str(struct base_buf *buf, const char *text); /* without its NUL */
void base_buf_put_u8(struct base_buf *buf, uint8_t value);
void base_buf_printf(struct base_buf *buf, const char *fmt, ...) BASE_PRINTF(2, 3);
static inline struct base_bytes base_buf_bytes(const struct base_buf *buf)
{
    return base_bytes(buf->data, buf->len);
}

#endif
