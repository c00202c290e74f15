/* arena.c: see arena.h. Chunks double up to 1 MiB, so an arena costs a logarithmic number of
 * mallocs; an allocation larger than a chunk gets one of its own behind the newest, so the free
 * tail of the newest stays in use. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_MIN = 4096, CHUNK_MAX = 1 << 20, ALIGN = 16 };

struct base_arena_chunk {
    struct base_arena_chunk *next;
    size_t size; /* of data */
    _Alignas(ALIGN) uint8_t data[];
};

void base_arena_init(struct base_arena *arena)
{
    *arena = (struct base_arena){ 0 };
}

static void free_chunks(struct base_arena_chunk *chunk)
{
    while (chunk) {
        struct base_arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

void base_arena_free(struct base_arena *arena)
{
    free_chunks(arena->chunks);
    *arena = (struct base_arena){ 0 };
}

void base_arena_reset(struct base_arena *arena)
{
    struct base_arena_chunk *keep = arena->chunks;
    if (!keep)
        return;
    free_chunks(keep->next);
    keep->next = NULL;
    arena->at = keep->data;
    arena->end = keep->data + keep->size;
    arena->bytes = keep->size;
}

static struct base_arena_chunk *new_chunk(struct base_arena *arena, size_t size)
{
    struct base_arena_chunk *chunk = malloc(sizeof(*chunk) + size);
    BASE_ASSERT(chunk != NULL);
    chunk->size = size;
    chunk->next = NULL;
    arena->bytes += size;
    return chunk;
}

static void *alloc_slow(struct base_arena *arena, size_t size)
{
    size_t next = arena->chunks ? arena->chunks->size * 2 : CHUNK_MIN;
    if (next > CHUNK_MAX)
        next = CHUNK_MAX;
    if (size > next / 2 && arena->chunks) {
        struct base_arena_chunk *own = new_chunk(arena, size);
        own->next = arena->chunks->next;
        arena->chunks->next = own;
        return own->data;
    }
    struct base_arena_chunk *chunk = new_chunk(arena, size > next ? size : next);
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->at = chunk->data + size;
    arena->end = chunk->data + chunk->size;
    return chunk->data;
}

void *base_arena_alloc(struct base_arena *arena, size_t size)
{
    BASE_ASSERT(size < SIZE_MAX / 2);
    size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (arena->at && size <= (size_t)(arena->end - arena->at)) {
        void *result = arena->at;
        arena->at += size;
        return result;
    }
    return alloc_slow(arena, size);
}

void *base_arena_calloc(struct base_arena *arena, size_t count, size_t size)
{
    size_t total;
    BASE_ASSERT(!__builtin_mul_overflow(count, size, &total));
    void *result = base_arena_alloc(arena, total);
    memset(result, 0, total);
    return result;
}

void *base_arena_memdup(struct base_arena *arena, const void *data, size_t size)
{
    void *result = base_arena_alloc(arena, size);
    if (size)
        memcpy(result, data, size);
    return result;
}

char *base_arena_strdup(struct base_arena *arena, const char *text)
{
    return base_arena_memdup(arena, text, strlen(text) + 1);
}

char *base_arena_printf(struct base_arena *arena, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    BASE_ASSERT(len >= 0);
    char *text = base_arena_alloc(arena, (size_t)len + 1);
    vsnprintf(text, (size_t)len + 1, fmt, again);
    va_end(again);
    return text;
}
