/* proto_utf8.c: see proto_wire.h. The table of well-formed sequences of the Unicode standard (3.9,
 * table 3-7): only the second byte's range depends on the first. */
#include "base/codec.h"
#include "proto_wire.h"

/* The length of the ASCII run at the start, in whole words of eight. */
static size_t ascii_words(struct base_bytes text)
{
    size_t at = 0;
    while (text.len - at >= 8 && (base_get_le64(text.data + at) & 0x8080808080808080u) == 0)
        at += 8;
    return at;
}

bool ch__utf8_valid(struct base_bytes text)
{
    const uint8_t *at = text.data, *end = text.len ? text.data + text.len : text.data;
    while (at < end) {
        uint8_t lead = *at;
        if (lead < 0x80) {
            size_t run = ascii_words(base_bytes(at, (size_t)(end - at)));
            at += run ? run : 1;
            continue;
        }
        int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
        if (lead < 0xc2 || lead > 0xf4 || end - at <= more)
            return false;
        uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        if (at[1] < low || at[1] > high)
            return false;
        for (int i = 2; i <= more; i++)
            if ((at[i] & 0xc0) != 0x80)
                return false;
        at += more + 1;
    }
    return true;
}
