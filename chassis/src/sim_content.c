/* sim_content.c: what a simulated file holds, and what of it a power loss leaves.
 *
 * A file is twice: `now`, what reads see, and `stored`, what is surely on the medium; between them
 * stands the list of changes that no sync has covered. A sync replays changes onto `stored`. A loss
 * takes, for each 512-byte sector on its own, what some number of its oldest changes made of it: a
 * page cache writes a sector as it is at one moment, never a newer change without an older one, but
 * different sectors of one write, or of several, in any order. Invariants: 1. replaying all changes
 * onto `stored` gives `now`, unless a sync has failed since. 2. disk->used is the sum of `now.size`
 * over all live inodes (one that is removed and closed gives its room back, though a crash may
 * bring it back). */
#include "sim_int.h"

enum { PAGE_BYTES = 4096, SECTOR_BYTES = 512, SECTORWISE_MAX = 4 << 20 };

struct ch__change {
    struct ch__change *next;
    uint64_t seq, offset, len;
    enum { WRITE, ZERO, TRUNCATE } kind; /* TRUNCATE: to offset */
    uint8_t data[];
};

/* ---- contents ---- */

void ch__content_free(struct ch__content *content)
{
    for (size_t i = 0; i < content->page_count; i++)
        free(content->pages[i]);
    free(content->pages);
    *content = (struct ch__content){ 0 };
}

void ch__content_resize(struct ch__content *content, uint64_t size)
{
    size_t pages = (size_t)((size + PAGE_BYTES - 1) / PAGE_BYTES);
    for (size_t i = pages; i < content->page_count; i++)
        free(content->pages[i]);
    if (pages > content->page_count) {
        content->pages = realloc(content->pages, pages * sizeof(uint8_t *));
        BASE_ASSERT(content->pages != NULL);
        memset(content->pages + content->page_count, 0,
               (pages - content->page_count) * sizeof(uint8_t *));
    }
    content->page_count = pages;
    size_t tail = size % PAGE_BYTES;
    if (size < content->size && tail && content->pages[pages - 1])
        memset(content->pages[pages - 1] + tail, 0, PAGE_BYTES - tail);
    content->size = size;
}

static void write_page(struct ch__content *content, size_t page, size_t at, const uint8_t *data,
                       size_t len)
{
    BASE_ASSERT(page < content->page_count && content->pages);
    uint8_t **slot = &content->pages[page];
    if (!*slot) {
        if (!data)
            return;
        *slot = calloc(1, PAGE_BYTES);
        BASE_ASSERT(*slot != NULL);
    }
    if (data)
        memcpy(*slot + at, data, len);
    else
        memset(*slot + at, 0, len);
}

void ch__content_write(struct ch__content *content, uint64_t offset, const void *data, uint64_t len)
{
    const uint8_t *from = data;
    if (offset + len > content->size)
        ch__content_resize(content, offset + len);
    while (len > 0) {
        size_t at = offset % PAGE_BYTES,
               part = PAGE_BYTES - at < len ? PAGE_BYTES - at : (size_t)len;
        write_page(content, (size_t)(offset / PAGE_BYTES), at, from, part);
        offset += part;
        len -= part;
        from = from ? from + part : NULL;
    }
}

size_t ch__content_read(const struct ch__content *content, uint64_t offset, void *data, size_t len)
{
    if (offset >= content->size)
        return 0;
    if (len > content->size - offset)
        len = (size_t)(content->size - offset);
    for (size_t done = 0; done < len;) {
        size_t at = (offset + done) % PAGE_BYTES,
               part = PAGE_BYTES - at < len - done ? PAGE_BYTES - at : len - done;
        const uint8_t *page = content->pages[(offset + done) / PAGE_BYTES];
        if (page)
            memcpy((uint8_t *)data + done, page + at, part);
        else
            memset((uint8_t *)data + done, 0, part);
        done += part;
    }
    return len;
}

void ch__content_copy(struct ch__content *to, const struct ch__content *from)
{
    ch__content_free(to);
    ch__content_resize(to, from->size);
    for (size_t i = 0; i < from->page_count; i++)
        if (from->pages[i])
            write_page(to, i, 0, from->pages[i], PAGE_BYTES);
}

/* ---- inodes ---- */

struct ch__inode *ch__inode_new(struct ch__disk *disk, bool dir)
{
    struct ch__inode *inode = calloc(1, sizeof(*inode));
    BASE_ASSERT(inode != NULL);
    inode->disk = disk;
    inode->dir = dir;
    inode->refs = 1;
    inode->changes_end = &inode->changes;
    return inode;
}

struct ch__inode *ch__inode_ref(struct ch__inode *inode)
{
    inode->refs++;
    return inode;
}

static void pop_change(struct ch__inode *inode)
{
    struct ch__change *change = inode->changes;
    inode->changes = change->next;
    if (!inode->changes)
        inode->changes_end = &inode->changes;
    free(change);
}

void ch__inode_unref(struct ch__inode *inode)
{
    if (--inode->refs > 0)
        return;
    while (inode->changes)
        pop_change(inode);
    ch__content_free(&inode->now);
    ch__content_free(&inode->stored);
    free(inode);
}

void ch__inode_live(struct ch__inode *inode, bool more)
{
    if (more && inode->live++ == 0)
        inode->disk->used += inode->now.size;
    else if (!more && --inode->live == 0)
        inode->disk->used -= inode->now.size;
}

static void used_changes(struct ch__inode *inode, uint64_t before)
{
    if (inode->live)
        inode->disk->used += inode->now.size - before;
}

static struct ch__change *add_change(struct ch__inode *inode, int kind, uint64_t offset,
                                     uint64_t len, const void *data)
{
    struct ch__change *change = malloc(sizeof(*change) + (data ? (size_t)len : 0));
    BASE_ASSERT(change != NULL);
    *change = (struct ch__change){
        .kind = kind, .seq = ++inode->change_seq, .offset = offset, .len = len
    };
    if (data)
        memcpy(change->data, data, (size_t)len);
    *inode->changes_end = change;
    inode->changes_end = &change->next;
    return change;
}

void ch__inode_write(struct ch__inode *inode, uint64_t offset, const void *data, uint64_t len)
{
    if (len == 0)
        return;
    uint64_t before = inode->now.size;
    add_change(inode, data ? WRITE : ZERO, offset, len, data);
    ch__content_write(&inode->now, offset, data, len);
    used_changes(inode, before);
}

void ch__inode_truncate(struct ch__inode *inode, uint64_t size)
{
    uint64_t before = inode->now.size;
    add_change(inode, TRUNCATE, size, 0, NULL);
    ch__content_resize(&inode->now, size);
    used_changes(inode, before);
}

void ch__inode_sync(struct ch__inode *inode, uint64_t seq)
{
    for (; inode->changes && inode->changes->seq <= seq; pop_change(inode)) {
        struct ch__change *change = inode->changes;
        if (change->kind == TRUNCATE)
            ch__content_resize(&inode->stored, change->offset);
        else
            ch__content_write(&inode->stored, change->offset,
                              change->kind == WRITE ? change->data : NULL, change->len);
    }
}

/* ---- loss ---- */

struct loss {
    struct ch__content *stored;
    struct ch__rng *rng;
    uint32_t keep_per_cent;
    uint8_t *frozen; /* a bit a sector: takes no newer change */
    uint64_t sectors;
};

static bool keeps(struct loss *loss)
{
    return ch__rng_below(loss->rng, 100) < loss->keep_per_cent;
}

static void keep_some_sectors(struct loss *loss, const struct ch__change *change)
{
    const uint8_t *data = change->kind == WRITE ? change->data : NULL;
    for (uint64_t done = 0; done < change->len;) {
        uint64_t at = change->offset + done, sector = at / SECTOR_BYTES,
                 part = SECTOR_BYTES - at % SECTOR_BYTES;
        if (part > change->len - done)
            part = change->len - done;
        bool frozen = loss->frozen[sector / 8] & (1 << sector % 8);
        if (!frozen && keeps(loss))
            ch__content_write(loss->stored, at, data ? data + done : NULL, part);
        else
            loss->frozen[sector / 8] |= (uint8_t)(1 << sector % 8);
        done += part;
    }
}

static void keep_some(struct loss *loss, const struct ch__change *change)
{
    if (change->kind == TRUNCATE) {
        if (keeps(loss))
            ch__content_resize(loss->stored, change->offset);
    } else if (change->kind == ZERO && change->len > SECTORWISE_MAX) {
        if (keeps(loss)) /* too many sectors to draw for each: as one */
            ch__content_write(loss->stored, change->offset, NULL, change->len);
    } else {
        keep_some_sectors(loss, change);
    }
}

void ch__inode_lose(struct ch__inode *inode, uint64_t seq, struct ch__rng *rng, bool crash)
{
    struct loss loss = { .stored = &inode->stored, .rng = rng };
    for (struct ch__change *change = inode->changes; change; change = change->next)
        if (change->offset + change->len > loss.sectors * SECTOR_BYTES)
            loss.sectors = (change->offset + change->len + SECTOR_BYTES - 1) / SECTOR_BYTES;
    if (inode->changes) {
        static const uint32_t ways[] = { 0, 100, 50, 90, 10 };
        loss.keep_per_cent = ways[ch__rng_below(rng, 5)];
        loss.frozen = calloc(1, (size_t)(loss.sectors / 8 + 1));
        BASE_ASSERT(loss.frozen != NULL);
        for (; inode->changes && inode->changes->seq <= seq; pop_change(inode))
            keep_some(&loss, inode->changes);
        free(loss.frozen);
    }
    if (!crash)
        return;
    uint64_t before = inode->now.size;
    ch__content_copy(&inode->now, &inode->stored);
    used_changes(inode, before);
}
