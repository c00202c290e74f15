/* bytes.c: see bytes.h. */
#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct base_bytes base_bytes_dup(struct base_arena *arena, struct base_bytes bytes)
{
    return base_bytes(base_arena_memdup(arena, bytes.data, bytes.len), bytes.len);
}

char *base_bytes_cstr(struct base_arena *arena, struct base_bytes bytes)
{
    char *text = base_arena_alloc(arena, bytes.len + 1);
    if (bytes.len)
        memcpy(text, bytes.data, bytes.len);
    text[bytes.len] = 0;
    return text;
}

const char *base_bytes_show(struct base_arena *arena, struct base_bytes bytes, size_t max)
{
    static const char hex[] = "0123456789abcdef";
    size_t shown = bytes.len < max ? bytes.len : max, at = 0;
    char *text = base_arena_alloc(arena, shown * 4 + 4);
    for (size_t i = 0; i < shown; i++) {
        uint8_t c = bytes.data[i];
        if (c >= 0x20 && c < 0x7f && c != '\\') {
            text[at++] = (char)c;
            continue;
        }
        text[at++] = '\\';
        text[at++] = 'x';
        text[at++] = hex[c >> 4];
        text[at++] = hex[c & 15];
    }
    if (shown < bytes.len) {
        memcpy(text + at, "\xe2\x80\xa6", 3);
        at += 3;
    }
    text[at] = 0;
    return text;
}

void base_buf_free(struct base_buf *buf)
{
    free(buf->data);
    *buf = (struct base_buf){ 0 };
}

void base_buf_clear(struct base_buf *buf)
{
    buf->len = 0;
}

void base_buf_reserve(struct base_buf *buf, size_t more)
{
    if (buf->cap - buf->len >= more)
        return;
    BASE_ASSERT(more < SIZE_MAX / 4);
    size_t cap = buf->cap ? buf->cap : 64;
    while (cap - buf->len < more)
        cap *= 2;
    buf->data = realloc(buf->data, cap);
    BASE_ASSERT(buf->data != NULL);
    buf->cap = cap;
}

uint8_t *base_buf_extend(struct base_buf *buf, size_t len)
{
    base_buf_reserve(buf, len ? len : 1);
    uint8_t *at = buf->data + buf->len;
    buf->len += len;
    return at;
}

void base_buf_put(struct base_buf *buf, const void *data, size_t len)
{
    if (len)
        memcpy(base_buf_extend(buf, len), data, len);
}

void base_buf_put_bytes(struct base_buf *buf, struct base_bytes bytes)
{
    base_buf_put(buf, bytes.data, bytes.len);
}

void base_buf_put_str(struct base_buf *buf, const char *text)
{
    base_buf_put(buf, text, strlen(text));
}

void base_buf_put_u8(struct base_buf *buf, uint8_t value)
{
    *base_buf_extend(buf, 1) = value;
}

void base_buf_printf(struct base_buf *buf, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    BASE_ASSERT(len >= 0);
    base_buf_reserve(buf, (size_t)len + 1);
    vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, fmt, again);
    va_end(again);
    buf->len += (size_t)len;
}
