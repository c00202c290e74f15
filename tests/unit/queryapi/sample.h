/* sample.h: entities, values and queries for unit tests, from JSON ('...' for "..."). */
#ifndef QUERYAPI_SAMPLE_H
#define QUERYAPI_SAMPLE_H

#include "check.h"
#include "test.h"

static struct base_arena arena; /* of the test: each runs in a process of its own */

static inline void *sample(const ProtobufCMessageDescriptor *descriptor, const char *json)
{
    ProtobufCMessage *message = NULL;
    char *text = base_arena_strdup(&arena, json);
    for (char *at = text; *at; at++)
        if (*at == '\'')
            *at = '"';
    struct base_status status =
        ch_proto_from_json(descriptor, base_bytes_str(text), &arena, &message);
    cr_assert(!base_failed(status), "%s: %s", json, base_status_text(&status));
    return message;
}
#define ENTITY(json) ((qry_entity *)sample(&google__datastore__v1__entity__descriptor, json))
#define VALUE_OF(json) ((qry_value *)sample(&google__datastore__v1__value__descriptor, json))
#define KEY_OF(json) ((qry_key *)sample(&google__datastore__v1__key__descriptor, json))
#define QUERY_OF(json) ((qry_query_proto *)sample(&google__datastore__v1__query__descriptor, json))

#endif
