/* faults_model.c: what every byte of a file must be, from who opened it when and what was
 * acknowledged. */
#include "faults_world.h"

struct fw_world w;

uint8_t byte_of(int file, uint64_t epoch, uint64_t x)
{
    uint64_t h = (x / 8 + 1) * 0x9e3779b97f4a7c15ULL ^ epoch * 0xff51afd7ed558ccdULL ^
                 (uint64_t)file * 0xc4ceb9fe1a85ec53ULL;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9ULL;
    return (uint8_t)(h >> (x % 8 * 8));
}

uint64_t acked_of(const struct file *f)
{
    uint64_t acked = 0;
    for (size_t i = 0; i < f->epoch_count; i++)
        acked = f->epochs[i].acked > acked ? f->epochs[i].acked : acked;
    return acked;
}

void epoch_add(struct file *f, uint64_t epoch, uint64_t start)
{
    size_t at = f->epoch_count;
    MUST(f->epoch_count < EPOCHS_MAX, "too many epochs");
    while (at > 0 && f->epochs[at - 1].epoch > epoch)
        at--;
    MUST(at == 0 || f->epochs[at - 1].epoch < epoch, "%s: epoch %llu twice", f->path,
         (unsigned long long)epoch);
    memmove(&f->epochs[at + 1], &f->epochs[at], (f->epoch_count - at) * sizeof f->epochs[0]);
    f->epochs[at] = (struct epoch){ epoch, start, start };
    f->epoch_count++;
    for (size_t i = 1; i < f->epoch_count; i++)
        MUST(f->epochs[i - 1].start <= f->epochs[i].start &&
                 f->epochs[i - 1].acked <= f->epochs[i].start,
             "%s: epoch %llu began at %llu, but %llu had acknowledged up to %llu", f->path,
             (unsigned long long)f->epochs[i].epoch, (unsigned long long)f->epochs[i].start,
             (unsigned long long)f->epochs[i - 1].epoch,
             (unsigned long long)f->epochs[i - 1].acked);
}

void epoch_acked(struct file *f, uint64_t epoch, uint64_t end)
{
    for (size_t i = 0; i < f->epoch_count; i++) {
        if (f->epochs[i].epoch != epoch)
            continue;
        if (end > f->epochs[i].acked)
            f->epochs[i].acked = end;
        MUST(i + 1 == f->epoch_count || end <= f->epochs[i + 1].start,
             "%s: an append up to %llu of epoch %llu was acknowledged after epoch %llu had begun "
             "at %llu",
             f->path, (unsigned long long)end, (unsigned long long)epoch,
             (unsigned long long)f->epochs[i + 1].epoch,
             (unsigned long long)f->epochs[i + 1].start);
    }
}

void check_bytes(const struct file *f, uint64_t offset, const uint8_t *data, size_t len,
                 const char *who)
{
    size_t e = 0;
    for (size_t i = 0; i < len; i++) {
        uint64_t x = offset + i;
        while (e + 1 < f->epoch_count && f->epochs[e + 1].start <= x)
            e++;
        MUST(data[i] == byte_of(f->id, f->epochs[e].epoch, x),
             "%s: %s: byte %llu (epoch %llu from %llu) is wrong", f->path, who,
             (unsigned long long)x, (unsigned long long)f->epochs[e].epoch,
             (unsigned long long)f->epochs[e].start);
    }
}
