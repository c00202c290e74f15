/* histogram.c: log-linear histograms (see metrics.h), in the manner of HdrHistogram.
 *
 * A value below CELLS has a cell of its own; above, each doubling ("octave") is cut into CELLS
 * equal cells. A cell at v is at most v / CELLS wide and is answered by its middle.
 * 1. |answer - value| <= value / (2 * CELLS): 0.79% with 64 cells, for any 64-bit value.
 * 2. count is the sum of all cells; an octave without values has no memory (512 bytes each
 *    otherwise).
 * 3. The least and the greatest value are exact, and no answer lies outside them. */
#include <stdlib.h>

#include "metrics_int.h"

enum { CELL_BITS = 6, CELLS = 1 << CELL_BITS, OCTAVES = 64 - CELL_BITS + 1 };

struct ch_histogram {
    uint64_t count, least, greatest;
    double sum;
    uint64_t *octaves[OCTAVES];
};

struct ch_histogram *ch_histogram_new(void)
{
    struct ch_histogram *histogram = calloc(1, sizeof(*histogram));
    BASE_ASSERT(histogram);
    histogram->least = UINT64_MAX;
    return histogram;
}

void ch_histogram_free(struct ch_histogram *histogram)
{
    if (!histogram)
        return;
    for (size_t i = 0; i < OCTAVES; i++)
        free(histogram->octaves[i]);
    free(histogram);
}

/* Octave 0 holds 0..CELLS-1; octave k >= 1 holds [CELLS << (k-1), CELLS << k), in cells of 1 <<
 * (k-1). */
static void place(uint64_t value, size_t *octave, size_t *cell)
{
    if (value < CELLS) {
        *octave = 0;
        *cell = value;
        return;
    }
    unsigned top = 63u - (unsigned)__builtin_clzll(value);
    *octave = top - CELL_BITS + 1;
    *cell = (value >> (top - CELL_BITS)) & (CELLS - 1);
}

static uint64_t middle(size_t octave, size_t cell)
{
    if (octave == 0)
        return cell;
    uint64_t width = 1ULL << (octave - 1);
    return (CELLS + cell) * width + width / 2;
}

static uint64_t *octave_of(struct ch_histogram *histogram, size_t octave)
{
    if (__builtin_expect(!histogram->octaves[octave], 0)) {
        histogram->octaves[octave] = calloc(CELLS, sizeof(uint64_t));
        BASE_ASSERT(histogram->octaves[octave]);
    }
    return histogram->octaves[octave];
}

void ch_observe(struct ch_histogram *histogram, uint64_t value)
{
    size_t octave, cell;
    place(value, &octave, &cell);
    octave_of(histogram, octave)[cell]++;
    histogram->count++;
    histogram->sum += (double)value;
    if (value < histogram->least)
        histogram->least = value;
    if (value > histogram->greatest)
        histogram->greatest = value;
}

static uint64_t clamp(const struct ch_histogram *histogram, uint64_t value)
{
    if (value < histogram->least)
        return histogram->least;
    return value > histogram->greatest ? histogram->greatest : value;
}

uint64_t ch_histogram_quantile(const struct ch_histogram *histogram, double q)
{
    if (histogram->count == 0)
        return 0;
    if (!(q > 0))
        return histogram->least;
    if (q >= 1)
        return histogram->greatest;
    /* The smallest value with at least q of all at or below it. */
    uint64_t rank = (uint64_t)(q * (double)histogram->count);
    if ((double)rank < q * (double)histogram->count)
        rank++;
    uint64_t seen = 0;
    for (size_t octave = 0; octave < OCTAVES; octave++) {
        const uint64_t *cells = histogram->octaves[octave];
        for (size_t cell = 0; cells && cell < CELLS; cell++) {
            seen += cells[cell];
            if (seen >= rank && cells[cell])
                return clamp(histogram, middle(octave, cell));
        }
    }
    return histogram->greatest;
}

uint64_t ch_histogram_count(const struct ch_histogram *histogram)
{
    return histogram->count;
}

double ch__histogram_sum(const struct ch_histogram *histogram)
{
    return histogram->sum;
}

double ch_histogram_mean(const struct ch_histogram *histogram)
{
    return histogram->count ? histogram->sum / (double)histogram->count : 0;
}

void ch_histogram_merge(struct ch_histogram *into, const struct ch_histogram *from)
{
    for (size_t octave = 0; octave < OCTAVES; octave++) {
        if (!from->octaves[octave])
            continue;
        uint64_t *cells = octave_of(into, octave);
        for (size_t cell = 0; cell < CELLS; cell++)
            cells[cell] += from->octaves[octave][cell];
    }
    into->count += from->count;
    into->sum += from->sum;
    if (from->least < into->least)
        into->least = from->least;
    if (from->greatest > into->greatest)
        into->greatest = from->greatest;
}
