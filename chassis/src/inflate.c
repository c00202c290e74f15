/* inflate.c: inflates a compressed message without ever holding more than a message may have.
 * gRPC's own decompression has no such limit (a 10 MiB message may inflate to 10 GiB), so it is
 * switched off and this is used. */
#include <zlib.h>

#include "transport_grpc_int.h"

enum { STEP_BYTES = 64 * 1024 };

struct base_status ch__inflate(struct base_bytes in, size_t bytes_max, struct base_buf *out)
{
    z_stream stream = { .next_in = (uint8_t *)in.data, .avail_in = (uInt)in.len };
    if (in.len > UINT32_MAX || inflateInit2(&stream, 15 + 32) != Z_OK)
        return base_status_make(BASE_INTERNAL, "inflate: no memory");
    size_t begin = out->len;
    int rc = Z_OK;
    while (rc == Z_OK) {
        base_buf_reserve(out, STEP_BYTES);
        size_t space = out->cap - out->len;
        stream.next_out = out->data + out->len;
        stream.avail_out = (uInt)(space < UINT32_MAX ? space : UINT32_MAX);
        size_t before = stream.avail_out;
        rc = inflate(&stream, Z_NO_FLUSH);
        out->len += before - stream.avail_out;
        if (out->len - begin > bytes_max)
            break;
        if (rc == Z_BUF_ERROR || (rc == Z_OK && stream.avail_in == 0 && stream.avail_out > 0))
            rc = Z_DATA_ERROR; /* cut short */
    }
    inflateEnd(&stream);
    if (out->len - begin > bytes_max)
        return base_status_make(BASE_RESOURCE_EXHAUSTED,
                                "compressed message inflates to more than the limit of %zu bytes",
                                bytes_max);
    if (rc != Z_STREAM_END)
        return base_status_make(BASE_INVALID_ARGUMENT, "compressed message does not inflate");
    return BASE_STATUS_OK;
}
