/* retry.c: see retry.h. */
#include "retry.h"

void ch_retry_budget_init(struct ch_retry_budget *budget)
{
    budget->tenths = CH__RETRY_TOKENS_MAX * CH__RETRY_TENTHS;
}

void ch_retry_budget_success(struct ch_retry_budget *budget)
{
    if (budget->tenths < CH__RETRY_TOKENS_MAX * CH__RETRY_TENTHS)
        budget->tenths++;
}

void ch_retry_budget_failure(struct ch_retry_budget *budget)
{
    budget->tenths = budget->tenths > CH__RETRY_TENTHS ? budget->tenths - CH__RETRY_TENTHS : 0;
}

bool ch_retry_budget_allows(const struct ch_retry_budget *budget)
{
    return budget->tenths > CH__RETRY_TOKENS_MAX * CH__RETRY_TENTHS / 2;
}

bool ch_retry_safe(const struct ch_tfinish *finish, bool idempotent)
{
    enum base_code code = finish->status.code;
    if (finish->pushback < 0 || code == BASE_CANCELLED || code == BASE_DEADLINE_EXCEEDED)
        return false;
    return finish->never_seen || (idempotent && code == BASE_UNAVAILABLE);
}

bool ch_retry_outcome_unknown(const struct ch_tfinish *finish)
{
    switch (finish->status.code) {
    case BASE_OK:
        return false;
    case BASE_CANCELLED:
    case BASE_UNKNOWN:
    case BASE_DEADLINE_EXCEEDED:
    case BASE_RESOURCE_EXHAUSTED: /* a reply too large for us comes after the deed */
    case BASE_INTERNAL:
    case BASE_UNAVAILABLE:
    case BASE_DATA_LOSS:
        return !finish->never_seen;
    default: /* the server's own word that it did not */
        return false;
    }
}

ch_time ch_retry_wait(int attempt, ch_time pushback, uint64_t random)
{
    ch_time most = CH__RETRY_WAIT_FIRST << (attempt < 10 ? attempt - 1 : 9);
    if (most > CH__RETRY_WAIT_MOST)
        most = CH__RETRY_WAIT_MOST;
    ch_time jitter = (ch_time)(random % (uint64_t)most);
    return pushback > 0 ? pushback + jitter / 4 : jitter;
}
