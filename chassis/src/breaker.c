/* breaker.c: see breaker.h. A call that was begun before the breaker opened may end after: it
 * counts as any other, but cannot close it; only the probe can. */
#include "breaker.h"

bool ch_breaker_allows(const struct ch_breaker *breaker, ch_time now)
{
    if (breaker->state == CH__BREAKER_CLOSED)
        return true;
    if (breaker->state == CH__BREAKER_OPEN)
        return now >= breaker->until;
    return !breaker->probing;
}

void ch_breaker_begin(struct ch_breaker *breaker, ch_time now)
{
    if (breaker->state == CH__BREAKER_OPEN && now >= breaker->until)
        breaker->state = CH__BREAKER_HALF_OPEN;
    if (breaker->state == CH__BREAKER_HALF_OPEN)
        breaker->probing = true;
}

static void open_for_a_while(struct ch_breaker *breaker, ch_time now)
{
    ch_time pause = CH__BREAKER_OPEN_FIRST << (breaker->opened < 5 ? breaker->opened : 5);
    breaker->state = CH__BREAKER_OPEN;
    breaker->until = now + (pause < CH__BREAKER_OPEN_MOST ? pause : CH__BREAKER_OPEN_MOST);
    breaker->opened++;
    breaker->in_a_row = breaker->calls = breaker->failures = 0;
    breaker->probing = false;
}

void ch_breaker_end(struct ch_breaker *breaker, ch_time now, bool failed)
{
    if (breaker->state == CH__BREAKER_OPEN)
        return;
    if (breaker->state == CH__BREAKER_HALF_OPEN) {
        if (failed)
            open_for_a_while(breaker, now);
        else
            *breaker = (struct ch_breaker){ 0 };
        return;
    }
    breaker->calls++;
    breaker->failures += failed;
    breaker->in_a_row = failed ? breaker->in_a_row + 1 : 0;
    bool many = breaker->calls >= CH__BREAKER_RATIO_CALLS &&
                breaker->failures * 100 > breaker->calls * CH__BREAKER_RATIO_PERCENT;
    if (breaker->in_a_row >= CH__BREAKER_IN_A_ROW || many) {
        open_for_a_while(breaker, now);
    } else if (breaker->calls >= CH__BREAKER_WINDOW_CALLS) {
        breaker->calls /= 2;
        breaker->failures /= 2;
        if (breaker->opened && breaker->failures == 0)
            breaker->opened = 0;
    }
}
