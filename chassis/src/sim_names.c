/* sim_names.c: the names of a simulated disk: those of now, those stored, and the changes between
 * them.
 *
 * A name that is made, renamed or removed is stored by a sync of its directory only (a rename: of
 * the directory of the new name), not by an fdatasync of the file: POSIX promises no more. A power
 * loss keeps any subset of the changes, in order. A sync of a directory stores the directory's own
 * name and its parents' too, as every journalling file system does. Invariants: 1. every name's
 * parent is a name of a directory ("/" always is). 2. `now` is `stored` with all changes made. */
#include "sim_int.h"

struct ch__name_change {
    struct ch__name_change *next;
    uint64_t seq;
    char *from, *to; /* either may be NULL */
    struct ch__inode *inode;
};

/* ---- a table of names ---- */

static size_t lower_bound(const struct ch__names *names, const char *path)
{
    size_t low = 0, high = names->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (strcmp(names->all[mid].path, path) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct ch__name *ch__names_find(const struct ch__names *names, const char *path)
{
    size_t at = lower_bound(names, path);
    return at < names->count && strcmp(names->all[at].path, path) == 0 ? &names->all[at] : NULL;
}

static void remove_at(struct ch__names *names, size_t at)
{
    free(names->all[at].path);
    if (names->live)
        ch__inode_live(names->all[at].inode, false);
    ch__inode_unref(names->all[at].inode);
    memmove(names->all + at, names->all + at + 1, (--names->count - at) * sizeof(names->all[0]));
}

static void insert_at(struct ch__names *names, size_t at, const char *path, struct ch__inode *inode)
{
    if (names->count == names->cap) {
        names->cap = names->cap ? names->cap * 2 : 16;
        names->all = realloc(names->all, names->cap * sizeof(names->all[0]));
        BASE_ASSERT(names->all != NULL);
    }
    memmove(names->all + at + 1, names->all + at, (names->count++ - at) * sizeof(names->all[0]));
    names->all[at] = (struct ch__name){ .path = strdup(path), .inode = ch__inode_ref(inode) };
    BASE_ASSERT(names->all[at].path != NULL);
    if (names->live)
        ch__inode_live(inode, true);
}

void ch__names_set(struct ch__names *names, const char *path, struct ch__inode *inode)
{
    size_t at = lower_bound(names, path);
    bool there = at < names->count && strcmp(names->all[at].path, path) == 0;
    if (there && inode) {
        char *same = strdup(path);
        BASE_ASSERT(same != NULL);
        remove_at(names, at);
        insert_at(names, at, same, inode);
        free(same);
    } else if (there) {
        remove_at(names, at);
    } else if (inode) {
        insert_at(names, at, path, inode);
    }
}

void ch__names_clear(struct ch__names *names)
{
    while (names->count > 0)
        remove_at(names, names->count - 1);
    free(names->all);
    *names = (struct ch__names){ .live = names->live };
}

/* ---- paths ---- */

char *ch__path_clean(const char *path)
{
    char *clean = malloc(strlen(path) + 2);
    BASE_ASSERT(clean != NULL);
    size_t len = 0;
    while (*path) {
        size_t part = strcspn(path, "/");
        if (part > 0 && !(part == 1 && path[0] == '.')) {
            clean[len++] = '/';
            memcpy(clean + len, path, part);
            len += part;
        }
        path += part + (path[part] == '/');
    }
    if (len == 0)
        clean[len++] = '/';
    clean[len] = 0;
    return clean;
}

char *ch__path_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    BASE_ASSERT(parent != NULL);
    return parent;
}

static bool is_in(const char *path, const char *dir)
{
    char *parent = ch__path_parent(path);
    bool in = strcmp(parent, dir) == 0;
    free(parent);
    return in;
}

/* Whether `path` is `dir` or one of its parents. */
static bool leads_to(const char *path, const char *dir)
{
    size_t len = strlen(path);
    return strncmp(path, dir, len) == 0 && (dir[len] == 0 || dir[len] == '/');
}

/* ---- changes ---- */

static void make_change(struct ch__names *names, const char *from, const char *to,
                        struct ch__inode *inode)
{
    struct ch__name *old = from ? ch__names_find(names, from) : NULL;
    if (old && old->inode == inode)
        ch__names_set(names, from, NULL);
    if (to)
        ch__names_set(names, to, inode);
}

void ch__disk_name(struct ch__disk *disk, const char *from, const char *to, struct ch__inode *inode)
{
    struct ch__name_change *change = calloc(1, sizeof(*change));
    BASE_ASSERT(change != NULL);
    change->from = from ? strdup(from) : NULL;
    change->to = to ? strdup(to) : NULL;
    change->inode = ch__inode_ref(inode);
    change->seq = ++disk->change_seq;
    *disk->changes_end = change;
    disk->changes_end = &change->next;
    make_change(&disk->now, change->from, change->to, inode);
}

/* Takes the change at *at off the list. */
static void end_change(struct ch__disk *disk, struct ch__name_change **at)
{
    struct ch__name_change *change = *at;
    *at = change->next;
    if (!change->next)
        disk->changes_end = at;
    ch__inode_unref(change->inode);
    free(change->from);
    free(change->to);
    free(change);
}

void ch__disk_sync_names(struct ch__disk *disk, const char *dir, uint64_t seq)
{
    for (struct ch__name_change **at = &disk->changes; *at;) {
        struct ch__name_change *change = *at;
        const char *path = change->to ? change->to : change->from;
        if (change->seq > seq)
            break;
        if (!is_in(path, dir) && !(change->inode->dir && leads_to(path, dir))) {
            at = &change->next;
            continue;
        }
        make_change(&disk->stored, change->from, change->to, change->inode);
        end_change(disk, at);
    }
}

/* A change kept without the one before it must not leave the inode under two names. */
static void forget_inode(struct ch__names *names, const struct ch__inode *inode)
{
    for (size_t i = names->count; i-- > 0;)
        if (names->all[i].inode == inode)
            remove_at(names, i);
}

static void drop_orphans(struct ch__names *names)
{
    for (size_t i = 0; i < names->count;) { /* parents sort before their children */
        char *parent = ch__path_parent(names->all[i].path);
        struct ch__name *dir = ch__names_find(names, parent);
        if (strcmp(parent, "/") == 0 || (dir && dir->inode->dir))
            i++;
        else
            remove_at(names, i);
        free(parent);
    }
}

void ch__disk_crash(struct ch__disk *disk, struct ch__rng *rng)
{
    static const uint32_t ways[] = { 0, 100, 50, 90, 10 };
    uint32_t keep_per_cent = ways[ch__rng_below(rng, 5)];
    while (disk->changes) {
        struct ch__name_change *change = disk->changes;
        if (ch__rng_below(rng, 100) < keep_per_cent) {
            forget_inode(&disk->stored, change->inode);
            make_change(&disk->stored, change->from, change->to, change->inode);
        }
        end_change(disk, &disk->changes);
    }
    drop_orphans(&disk->stored);
    ch__names_clear(&disk->now);
    for (size_t i = 0; i < disk->stored.count; i++) {
        struct ch__inode *inode = disk->stored.all[i].inode;
        ch__inode_lose(inode, UINT64_MAX, rng, true);
        ch__names_set(&disk->now, disk->stored.all[i].path, inode);
    }
}

void ch__disk_init(struct ch__disk *disk, struct ch_sim_node *node)
{
    *disk = (struct ch__disk){ .node = node, .sync_min = 100 * CH_US, .sync_max = 300 * CH_US };
    disk->changes_end = &disk->changes;
    disk->now.live = true;
}

void ch__disk_free(struct ch__disk *disk)
{
    while (disk->changes)
        end_change(disk, &disk->changes);
    ch__names_clear(&disk->now);
    ch__names_clear(&disk->stored);
}
