/* The pure parts of the client and admission: breaker, balancer, retry rules, inflating. */
#include <zlib.h>

#include "admission.h"
#include "balancer.h"
#include "loop_fixture.h"
#include "retry.h"
#include "test.h"
#include "transport_grpc_int.h"

/* ---- breaker ---- */

/* Some failures in a row open it; after a pause one probe is let through, whose end decides. */
Test(breaker, opens_probes_closes)
{
    struct ch_breaker b = { 0 };
    ch_time now = 100 * CH_S;
    for (int i = 0; i < CH__BREAKER_IN_A_ROW; i++) {
        cr_assert(ch_breaker_allows(&b, now));
        ch_breaker_begin(&b, now);
        ch_breaker_end(&b, now, true);
    }
    cr_assert(!ch_breaker_allows(&b, now));
    now += CH__BREAKER_OPEN_FIRST;
    cr_assert(ch_breaker_allows(&b, now));
    ch_breaker_begin(&b, now);
    cr_assert(!ch_breaker_allows(&b, now), "a second probe");
    ch_breaker_end(&b, now, true);
    cr_assert(!ch_breaker_allows(&b, now + CH__BREAKER_OPEN_FIRST), "the second pause is longer");
    now += 2 * CH__BREAKER_OPEN_FIRST;
    cr_assert(ch_breaker_allows(&b, now));
    ch_breaker_begin(&b, now);
    ch_breaker_end(&b, now, false);
    cr_assert_eq(b.state, CH__BREAKER_CLOSED);
}

/* A failing half of the calls opens it although no run is long; few failures never do. */
Test(breaker, share_of_failures)
{
    struct ch_breaker bad = { 0 }, good = { 0 };
    for (int i = 0; i < 100; i++) {
        ch_breaker_end(&bad, 0, i % 3 != 0);
        ch_breaker_end(&good, 0, i % 4 == 0);
    }
    cr_assert(bad.opened > 0);
    cr_assert_eq(good.opened, 0u);
}

/* ---- balancer ---- */

struct pool {
    struct ch_endpoint endpoints[8];
    struct ch_balancer balancer;
};

static void pool_init(struct pool *pool, size_t count)
{
    memset(pool, 0, sizeof(*pool));
    pool->balancer.count = count;
    for (size_t i = 0; i < count; i++) {
        pool->endpoints[i].healthy = true;
        pool->balancer.endpoints[i] = &pool->endpoints[i];
    }
}

/* The less busy of two drawn ones is taken, so no endpoint gets far ahead of the others. */
Test(balancer, two_choices_level_the_load)
{
    struct pool pool;
    pool_init(&pool, 4);
    uint64_t x = 1;
    for (int i = 0; i < 4000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        ch_balancer_pick(&pool.balancer, NULL, 0, x >> 33, x >> 20)->outstanding++;
    }
    for (int i = 0; i < 4; i++)
        cr_assert(pool.endpoints[i].outstanding > 900 && pool.endpoints[i].outstanding < 1100, "%u",
                  pool.endpoints[i].outstanding);
}

/* Unhealthy and ejected ones are passed over, but never so many that nothing is left. */
Test(balancer, always_a_choice)
{
    struct pool pool;
    pool_init(&pool, 4);
    pool.endpoints[0].healthy = false;
    pool.endpoints[1].breaker = (struct ch_breaker){ .state = CH__BREAKER_OPEN, .until = 10 };
    for (uint64_t i = 0; i < 200; i++) {
        struct ch_endpoint *picked = ch_balancer_pick(&pool.balancer, NULL, 0, i, i * 7);
        cr_assert(picked == &pool.endpoints[2] || picked == &pool.endpoints[3]);
        cr_assert_eq(ch_balancer_pick(&pool.balancer, &pool.endpoints[2], 0, i, i * 7),
                     &pool.endpoints[3], "the one that failed is avoided");
    }
    size_t hits[4] = { 0 };
    for (int i = 1; i < 4; i++) /* three of four open: more than half, so not heeded */
        pool.endpoints[i].breaker = (struct ch_breaker){ .state = CH__BREAKER_OPEN, .until = 10 };
    for (uint64_t i = 0; i < 200; i++)
        hits[ch_balancer_pick(&pool.balancer, NULL, 0, i * 13, i * 7) - pool.endpoints]++;
    cr_assert(hits[1] && hits[2] && hits[3] && !hits[0]);
    pool_init(&pool, 0);
    cr_assert(ch_balancer_pick(&pool.balancer, NULL, 0, 1, 2) == NULL);
}

/* ---- retry ---- */

/* Only what was not acted on, or is harmless to repeat, is ever repeated; push-back forbids. */
Test(retry, what_is_safe)
{
    static const struct {
        enum base_code code;
        bool never_seen, idempotent;
        ch_time pushback;
        bool safe, unknown;
    } cases[] = {
        { BASE_UNAVAILABLE, false, true, 0, true, true },
        { BASE_UNAVAILABLE, false, false, 0, false, true },
        { BASE_UNAVAILABLE, true, false, 0, true, false },
        { BASE_UNAVAILABLE, true, true, -1, false, false },
        { BASE_RESOURCE_EXHAUSTED, true, false, 0, true, false },
        { BASE_RESOURCE_EXHAUSTED, false, true, 0, false, true },
        { BASE_DEADLINE_EXCEEDED, false, true, 0, false, true },
        { BASE_CANCELLED, true, true, 0, false, false },
        { BASE_ABORTED, false, true, 0, false, false },
        { BASE_INTERNAL, false, true, 0, false, true },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ch_tfinish finish = { .status.code = cases[i].code,
                                     .never_seen = cases[i].never_seen,
                                     .pushback = cases[i].pushback };
        cr_assert_eq(ch_retry_safe(&finish, cases[i].idempotent), cases[i].safe, "case %zu", i);
        cr_assert_eq(ch_retry_outcome_unknown(&finish), cases[i].unknown, "case %zu", i);
    }
}

/* An outage is met with a few retries, not one for each call; successes earn them back. */
Test(retry, budget)
{
    struct ch_retry_budget budget;
    int allowed = 0;
    ch_retry_budget_init(&budget);
    for (int i = 0; i < 100; i++) {
        ch_retry_budget_failure(&budget);
        allowed += ch_retry_budget_allows(&budget);
    }
    cr_assert_eq(allowed, 4);
    for (int i = 0; i < 51; i++) {
        cr_assert(!ch_retry_budget_allows(&budget));
        ch_retry_budget_success(&budget);
    }
    cr_assert(ch_retry_budget_allows(&budget));
}

/* Waits are spread over the whole range and never beyond it; push-back is at least what the
 * server asked. */
Test(retry, waits)
{
    for (int attempt = 1; attempt < 80; attempt++)
        for (uint64_t random = 0; random < 50; random++) {
            ch_time wait = ch_retry_wait(attempt, 0, random * 0x9E3779B97F4A7C15u);
            cr_assert(wait >= 0 && wait < CH__RETRY_WAIT_MOST);
            cr_assert(attempt > 1 || wait < CH__RETRY_WAIT_FIRST);
            cr_assert(ch_retry_wait(attempt, 3 * CH_S, random) >= 3 * CH_S);
        }
}

/* The trailers of gRFC A6 and ours, good and bad. */
Test(retry, trailers)
{
    static const struct {
        const char *value;
        ch_time pushback;
    } cases[] = {
        { "20", 20 * CH_MS + 1 },      { "0", 1 }, { "-1", -1 }, { "", -1 }, { "soon", -1 },
        { "99999999999999999999", -1 }
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ch_tfinish finish = { .pushback = 0 };
        ch__tfinish_trailer(&finish, BASE_BYTES_LIT("grpc-retry-pushback-ms"),
                            base_bytes_str(cases[i].value));
        cr_assert_eq(finish.pushback, cases[i].pushback, "%s", cases[i].value);
    }
}

/* ---- admission ---- */

struct guest {
    struct fixture *f;
    struct ch_admission *admission;
    enum ch_criticality criticality;
    ch_time stay;
    struct base_status status;
    int order;
};
static int admitted;

static void guest_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct guest *guest = arg;
    guest->status =
        ch_admission_enter(guest->admission, &guest->f->env, guest->criticality, CH_NEVER);
    if (base_failed(guest->status))
        return;
    guest->order = ++admitted;
    (void)ch_sleep_until(&guest->f->env, guest->f->now + guest->stay);
    ch_admission_leave(guest->admission, guest->stay);
}

/* Beyond the limit calls wait, the critical ones first; beyond the queue, or after its wait,
 * they are shed by name. */
Test(admission, queue_and_shed)
{
    struct fixture *f = fixture_new();
    struct ch_admission admission;
    ch_admission_init(&admission, 4); /* a queue of two */
    struct guest guests[8];
    for (int i = 0; i < 8; i++)
        guests[i] = (struct guest){
            .f = f, .admission = &admission, .criticality = CH_DEFAULT, .stay = 10 * CH_MS
        };
    guests[5].criticality = CH_CRITICAL;
    for (int i = 0; i < 8; i++)
        fixture_spawn(f, guest_main, &guests[i]);
    fixture_run(f);
    cr_assert(guests[0].order && guests[1].order && guests[2].order && guests[3].order);
    cr_assert(guests[5].order > 4 && guests[5].order < guests[4].order, "%d %d", guests[5].order,
              guests[4].order);
    cr_assert_eq(guests[7].status.code, BASE_RESOURCE_EXHAUSTED);
    cr_assert(strstr(base_status_text(&guests[7].status), "overloaded") != NULL);
    cr_assert_eq(admission.running, 0u);
    for (int i = 0; i < 8; i++)
        base_status_free(&guests[i].status);
    fixture_free(f);
}

/* Who waits longer than the queue's limit is shed even when a slot would come later. */
Test(admission, the_wait_is_short)
{
    struct fixture *f = fixture_new();
    struct ch_admission admission;
    ch_admission_init(&admission, 2);
    struct guest guests[3];
    for (int i = 0; i < 3; i++) {
        guests[i] = (struct guest){
            .f = f, .admission = &admission, .criticality = CH_CRITICAL, .stay = 60 * CH_S
        };
        fixture_spawn(f, guest_main, &guests[i]);
    }
    fixture_run(f);
    cr_assert_eq(guests[2].status.code, BASE_RESOURCE_EXHAUSTED);
    base_status_free(&guests[2].status);
    fixture_free(f);
}

/* When calls take many times their best, the limit goes down, but not below the floor; when they
 * are quick again, up. */
Test(admission, limit_follows_latency)
{
    struct ch_admission admission;
    ch_admission_init(&admission, 4096);
    for (int i = 0; i < CH__GRADIENT_CALLS; i++)
        admission.running++, ch_admission_leave(&admission, CH_MS);
    cr_assert_eq(admission.limit, 4096u);
    for (int i = 0; i < 20 * CH__GRADIENT_CALLS; i++) {
        admission.peak_running = 4096;
        admission.running++, ch_admission_leave(&admission, 100 * CH_MS);
    }
    cr_assert(admission.limit < 1000 && admission.limit >= CH__LIMIT_MIN, "%zu", admission.limit);
    for (int i = 0; i < 100 * CH__GRADIENT_CALLS; i++) {
        admission.peak_running = 4096;
        admission.running++, ch_admission_leave(&admission, CH_MS);
    }
    cr_assert_eq(admission.limit, 4096u);
}

/* ---- inflating ---- */

static struct base_buf deflated(size_t len, int window)
{
    struct base_buf out = { 0 };
    uint8_t *data = calloc(1, len);
    z_stream stream = { .next_in = data, .avail_in = (uInt)len };
    deflateInit2(&stream, 9, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY);
    stream.avail_out = (uInt)deflateBound(&stream, len);
    stream.next_out = base_buf_extend(&out, stream.avail_out);
    deflate(&stream, Z_FINISH);
    out.len = stream.total_out;
    deflateEnd(&stream);
    free(data);
    return out;
}

/* A small message that inflates to a huge one is refused at the limit, long before it fills the
 * memory. */
Test(inflate, limit_and_damage)
{
    for (int window = 15; window <= 31; window += 16) { /* zlib, gzip */
        struct base_buf packed = deflated(100 << 20, window), out = { 0 };
        struct base_status status = ch__inflate(base_buf_bytes(&packed), 1 << 20, &out);
        cr_assert_eq(status.code, BASE_RESOURCE_EXHAUSTED, "%s", base_status_text(&status));
        cr_assert(out.cap < 8 << 20, "%zu", out.cap);
        base_status_free(&status);
        base_buf_free(&packed);
        packed = deflated(300000, window);
        base_buf_clear(&out);
        status = ch__inflate(base_buf_bytes(&packed), 1 << 20, &out);
        cr_assert(!base_failed(status) && out.len == 300000);
        for (size_t cut = 0; cut < packed.len; cut += 1 + packed.len / 40) {
            base_buf_clear(&out);
            status = ch__inflate(base_bytes(packed.data, cut), 1 << 20, &out);
            cr_assert_eq(status.code, BASE_INVALID_ARGUMENT);
            base_status_free(&status);
        }
        base_buf_free(&packed);
        base_buf_free(&out);
    }
}
