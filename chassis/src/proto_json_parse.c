/* proto_json_parse.c: JSON text into jansson's tree: see proto_json_read.h. The text is looked over
 * first, because jansson recurses, so nesting is limited before it starts; and because it refuses
 * whole numbers beyond 64 bits, which JavaScript prints for doubles such as 1e20, so those get a
 * ".0". */
#include "proto_json_read.h"

/* Each message inside another may be an element of an array. */
enum { JSON_DEPTH_MAX = 2 * CH_PROTO_DEPTH_MAX + 1 };

static bool beyond_int64(const uint8_t *digits, size_t count, bool negative)
{
    const char *limit = negative ? "9223372036854775808" : "9223372036854775807";
    return count > 19 || (count == 19 && memcmp(digits, limit, 19) > 0);
}

/* Past the string that starts at `at`. */
static size_t skip_string(struct base_bytes json, size_t at)
{
    for (at++; at < json.len && json.data[at] != '"'; at++)
        if (json.data[at] == '\\')
            at++;
    return at < json.len ? at + 1 : json.len;
}

/* Past the digits that start at `at`; *whole tells whether no fraction or exponent follows. */
static size_t skip_digits(struct base_bytes json, size_t at, bool *whole)
{
    while (at < json.len && json.data[at] >= '0' && json.data[at] <= '9')
        at++;
    *whole = at == json.len || !strchr(".eE", json.data[at]) || json.data[at] == '\0';
    return at;
}

/* Fails when nested too deep; fills `fixed` with the text to parse when that is not `json` itself.
 */
static struct base_status prepare(struct base_bytes json, struct base_buf *fixed)
{
    size_t depth = 0, copied = 0;
    bool after_number =
        false; /* inside a number, its fraction or exponent: those digits are no whole number */
    for (size_t i = 0; i < json.len;) {
        uint8_t c = json.data[i];
        if (c == '"') {
            i = skip_string(json, i);
            after_number = false;
            continue;
        }
        if (c >= '0' && c <= '9') {
            bool whole, negative = i > 0 && json.data[i - 1] == '-';
            size_t end = skip_digits(json, i, &whole);
            if (whole && !after_number && beyond_int64(json.data + i, end - i, negative)) {
                base_buf_put(fixed, json.data + copied, end - copied);
                base_buf_put_str(fixed, ".0");
                copied = end;
            }
            after_number = true;
            i = end;
            continue;
        }
        after_number = after_number && strchr(".eE+-", c) && c;
        if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        if (depth > JSON_DEPTH_MAX) {
            base_buf_free(fixed);
            return base_status_make(BASE_INVALID_ARGUMENT, "JSON: nested too deep");
        }
        i++;
    }
    if (fixed->len)
        base_buf_put(fixed, json.data + copied, json.len - copied);
    return BASE_STATUS_OK;
}

struct base_status ch__json_parse(struct base_bytes json, json_t **tree)
{
    struct base_buf fixed = { 0 };
    struct base_status status = prepare(json, &fixed);
    if (base_failed(status))
        return status;
    struct base_bytes text = fixed.len ? base_buf_bytes(&fixed) : json;
    json_error_t error;
    *tree = json_loadb(text.len ? (const char *)text.data : "", text.len,
                       JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    base_buf_free(&fixed);
    if (!*tree)
        return base_status_make(BASE_INVALID_ARGUMENT, "JSON: line %d column %d: %s", error.line,
                                error.column, error.text);
    return BASE_STATUS_OK;
}
