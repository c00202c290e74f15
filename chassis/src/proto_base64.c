/* proto_base64.c: see proto_json.h. */
#include "proto_json.h"

void ch__base64_put(struct base_buf *out, struct base_bytes bytes)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t have = bytes.len - i < 3 ? bytes.len - i : 3;
        uint32_t bits = (uint32_t)bytes.data[i] << 16;
        if (have > 1)
            bits |= (uint32_t)bytes.data[i + 1] << 8;
        if (have > 2)
            bits |= bytes.data[i + 2];
        uint8_t *quad = base_buf_extend(out, 4);
        for (size_t j = 0; j < 4; j++)
            quad[j] = j > have ? '=' : (uint8_t)alphabet[bits >> (18 - 6 * j) & 63];
    }
}

static int digit_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

bool ch__base64_take(struct base_bytes text, struct base_arena *arena, struct base_bytes *bytes)
{
    size_t pad = 0;
    while (pad < 2 && text.len > 0 && text.data[text.len - 1] == '=') {
        text.len--;
        pad++;
    }
    size_t rest = text.len % 4;
    if (rest == 1 || (pad && (rest + pad) != 4))
        return false;
    uint8_t *out = base_arena_alloc(arena, text.len / 4 * 3 + 3);
    size_t len = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < text.len; i++) {
        int digit = digit_of(text.data[i]);
        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0)
            out[len++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    *bytes = base_bytes(out, len);
    return true;
}
