/* transport.c: what every transport does alike. */
#include "chassis/transport.h"

void ch__tfinish_trailer(struct ch_tfinish *finish, struct base_bytes key, struct base_bytes value)
{
    if (base_bytes_eq_str(key, "x-strata-not-run")) {
        finish->never_seen = true;
        return;
    }
    if (!base_bytes_eq_str(key, "grpc-retry-pushback-ms"))
        return;
    int64_t ms = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9' || ms > 1000 * 1000) {
            finish->pushback = -1; /* negative or no number: no retries (gRFC A6) */
            return;
        }
        ms = ms * 10 + (value.data[i] - '0');
    }
    finish->pushback = value.len ? ms * CH_MS + 1 : -1;
}
