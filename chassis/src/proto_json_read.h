/* proto_json_read.h: the parts of the JSON reader. */
#ifndef CHASSIS_PROTO_JSON_READ_H
#define CHASSIS_PROTO_JSON_READ_H

#include <jansson.h>

#include "proto_json.h"

/* Where in the message the reader is, for error texts: a list from the innermost out, on the stack.
 */
struct ch__json_path {
    const struct ch__json_path *up;
    const char *name; /* NULL: an element of an array */
    size_t index;
};

/* INVALID_ARGUMENT: "<path>: <formatted>". */
struct base_status ch__json_fail(const struct ch__json_path *path, const char *fmt, ...)
    BASE_PRINTF(2, 3) BASE_MUST_CHECK;

static inline struct base_bytes ch__json_text(const json_t *string)
{
    return base_bytes(json_string_value(string), json_string_length(string));
}

/* proto_json_parse.c. The tree is the caller's, to json_decref. Depth is limited; an object's key
 * given twice, or with a NUL in it (jansson's limit), is an error. */
struct base_status ch__json_parse(struct base_bytes json, json_t **tree) BASE_MUST_CHECK;

/* proto_json_scalar.c. Sets the slot of a field of any type but message. */
struct base_status ch__json_scalar(struct base_arena *arena, const ProtobufCFieldDescriptor *field,
                                   void *slot, const json_t *json,
                                   const struct ch__json_path *path) BASE_MUST_CHECK;

#endif
