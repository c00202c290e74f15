/* base/arena.h: memory that is freed in one go.
 *
 * A bump allocator: what it hands out lives until the arena is reset or freed. Allocation never
 * returns NULL (running out of memory aborts: a server's limits are kept by admission, not by
 * malloc). One arena, one owner; not for sharing between threads. No function here may wait. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct base_arena {
    struct base_arena_chunk *chunks; /* newest first */
    uint8_t *at, *end;               /* the free part of the newest */
    size_t bytes;                    /* held from the system, all chunks */
};

/* An empty arena; the first allocation takes memory. A zeroed struct is one too. */
void base_arena_init(struct base_arena *arena);
/* Gives all memory back. The arena is empty and may be used again. */
void base_arena_free(struct base_arena *arena);
/* Forgets all allocations, keeps one chunk for reuse. */
void base_arena_reset(struct base_arena *arena);

/* `size` bytes, aligned for any type, contents undefined / zeroed. Size 0 gives a valid pointer. */
void *base_arena_alloc(struct base_arena *arena, size_t size)
    __attribute__((returns_nonnull, malloc));
void *base_arena_calloc(struct base_arena *arena, size_t count, size_t size)
    __attribute__((returns_nonnull, malloc));
void *base_arena_memdup(struct base_arena *arena, const void *data, size_t size)
    __attribute__((returns_nonnull));
char *base_arena_strdup(struct base_arena *arena, const char *text)
    __attribute__((returns_nonnull));
char *base_arena_printf(struct base_arena *arena, const char *fmt, ...) BASE_PRINTF(2, 3)
    __attribute__((returns_nonnull));

/* A zeroed struct / array of a type. */
#define BASE_NEW(arena, type) ((type *)base_arena_calloc((arena), 1, sizeof(type)))
#define BASE_NEW_ARRAY(arena, type, count) \
    ((type *)base_arena_calloc((arena), (count), sizeof(type)))

#endif
