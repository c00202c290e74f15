/* list_machine.h: a machine that keeps every command it was given, in order, for tests of logs. A
 * command says who proposed it, as what number of its own, and under which term; the rest of it is
 * padding. */
#ifndef TESTS_LIST_MACHINE_H
#define TESTS_LIST_MACHINE_H

#include <stdlib.h>

#include "base/codec.h"
#include "consensus/log.h"

struct list_item {
    uint64_t who, number, term;
};
struct list_machine {
    struct list_item *items;
    size_t count, cap;
    uint64_t led;       /* the last term it was told */
    size_t state_bytes; /* padding of its snapshots */
};

static inline void list_add(struct list_machine *list, struct list_item item)
{
    if (list->count == list->cap) {
        list->cap = list->cap ? 2 * list->cap : 1024;
        list->items = realloc(list->items, list->cap * sizeof(*list->items));
        BASE_ASSERT(list->items != NULL);
    }
    list->items[list->count++] = item;
}

static inline void list_encode(struct list_item item, struct base_buf *out)
{
    base_buf_put_le64(out, item.who);
    base_buf_put_le64(out, item.number);
    base_buf_put_le64(out, item.term);
}

/* Replies with how many there are now. */
static inline void list_apply(void *self, uint64_t index, struct base_bytes command,
                              struct base_buf *reply)
{
    struct list_machine *list = self;
    struct list_item item;
    bool whole = base_take_le64(&command, &item.who) && base_take_le64(&command, &item.number) &&
                 base_take_le64(&command, &item.term);

    BASE_ASSERT(whole);
    list_add(list, item);
    BASE_ASSERT(index == list->count);
    base_buf_put_le64(reply, list->count);
}

static inline void list_snapshot(void *self, struct base_buf *out)
{
    struct list_machine *list = self;

    base_buf_put_le64(out, list->count);
    for (size_t i = 0; i < list->count; i++)
        list_encode(list->items[i], out);
    memset(base_buf_extend(out, list->state_bytes), 'x', list->state_bytes);
}

static inline struct base_status list_restore(void *self, struct base_bytes from)
{
    struct list_machine *list = self;
    uint64_t count = 0;
    bool whole = base_take_le64(&from, &count) && from.len >= count * 24;

    list->count = 0;
    for (uint64_t i = 0; i < count && whole; i++) {
        struct list_item item;

        whole = base_take_le64(&from, &item.who) && base_take_le64(&from, &item.number) &&
                base_take_le64(&from, &item.term);
        list_add(list, item);
    }
    return whole ? BASE_STATUS_OK : base_status_make(BASE_DATA_LOSS, "the state is cut short");
}

static inline void list_lead(void *self, uint64_t term)
{
    ((struct list_machine *)self)->led = term;
}

static inline struct con_machine list_machine_of(struct list_machine *list)
{
    return (struct con_machine){ list_apply, list_snapshot, list_restore, list_lead, list };
}

#endif
