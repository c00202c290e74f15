/* bed.c: see bed.h. */
#include "bed.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static struct bed *starting; /* the start function has no other way to hand the server out */

static struct base_status start(const struct ch_service_start *start, void **self) CH_WAITS;
static struct base_status start(const struct ch_service_start *start, void **self)
{
    struct base_status status = qry_service.start(start, self);
    starting->server = *self;
    return status;
}

static int64_t clock_us(void *arg)
{
    return ch_wall_us(((struct bed *)arg)->env);
}

struct body {
    struct bed *t;
    void (*run)(struct bed *t) CH_WAITS_SLOT;
};

static void connect_and_run(void *arg)
{
    CH_FIBER_ENTRY();
    struct body *body = arg;
    struct ch_client_options options = { 0 };
    body->t->client = ch_client_new(body->t->env, "10.0.0.1:8086", &options);
    body->run(body->t);
    ch_client_free(body->t->client);
}

void bed_run(void (*run)(struct bed *t))
{
    CH_FIBER_ENTRY();
    struct bed *t = calloc(1, sizeof(*t));
    struct body body = { t };
    body.run = run;
    starting = t;
    t->sim = ch_sim_new(ch_sim_seed(1));
    t->node = ch_sim_node(t->sim, "query", "10.0.0.1");
    t->env = ch_sim_tester_env(t->sim);
    double_init(&t->store);
    t->store.clock_us = clock_us;
    t->store.clock_arg = t;
    t->def = qry_service;
    t->def.start = start;
    char *argv[] = { "queryserver",      "--listen=10.0.0.1:8086",
                     "--admin=",         "--names=",
                     "--log-level=warn", (char *)double_flag(&t->store, t->flag) };
    memcpy(t->argv, argv, sizeof(argv));
    t->args = (struct ch_service_args){ &t->def, 6, t->argv };
    ch_sim_start(t->node, ch_service_main, &t->args);
    ch_sim_do(t->sim, connect_and_run, &body, 100000 * CH_S);
    ch_sim_free(t->sim);
    double_free(&t->store);
    base_arena_free(&t->arena);
    free(t);
}

static const struct qry_method *method_of(int method)
{
    return &qry_methods[method];
}

static const char *quoted(struct bed *t, const char *fmt, va_list args)
{
    char *text = NULL;
    cr_assert(vasprintf(&text, fmt, args) >= 0);
    char *json = base_arena_strdup(&t->arena, text);
    free(text);
    for (char *at = json; *at; at++)
        if (*at == '\'')
            *at = '"';
    return json;
}

static void *request_of(struct bed *t, int method, const char *json)
{
    ProtobufCMessage *message = NULL;
    struct base_status status = ch_proto_from_json(qry_method_of(method_of(method))->request,
                                                   base_bytes_str(json), &t->arena, &message);
    cr_assert(!base_failed(status), "%s: %s", json, base_status_text(&status));
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, "project_id");
    ProtobufCBinaryData *project = (ProtobufCBinaryData *)((uint8_t *)message + field->offset);
    if (project->len == 0)
        *project = ch_data_str("p");
    return message;
}

void *bed_request(struct bed *t, int method, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    void *message = request_of(t, method, quoted(t, fmt, args));
    va_end(args);
    return message;
}

void *bed_send(struct bed *t, int method, void *request, struct base_status *status)
{
    void *reply = NULL;
    struct ch_call_options options = { .no_retry = t->lost_answer,
                                       .deadline = ch_in(t->env, 1000 * CH_S) };
    struct base_status got = ch_client_call(t->client, qry_method_of(method_of(method)), request,
                                            &options, &t->arena, &reply);
    if (status)
        *status = got;
    else
        cr_assert(!base_failed(got), "%s", base_status_text(&got));
    return base_failed(got) ? NULL : reply;
}

void *bed_call(struct bed *t, int method, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    void *message = request_of(t, method, quoted(t, fmt, args));
    va_end(args);
    return bed_send(t, method, message, NULL);
}

void bed_fails(struct bed *t, int method, enum base_code code, const char *text, const char *fmt,
               ...)
{
    struct base_status status;
    va_list args;
    va_start(args, fmt);
    void *message = request_of(t, method, quoted(t, fmt, args));
    va_end(args);
    void *reply = bed_send(t, method, message, &status);
    cr_assert(reply == NULL, "was accepted: %s", bed_json(t, reply));
    cr_assert(status.code == code && strstr(base_status_text(&status), text), "%s %s, not %s %s",
              base_code_name(status.code), base_status_text(&status), base_code_name(code), text);
    base_status_free(&status);
}

const char *bed_json(struct bed *t, const void *message)
{
    struct base_buf out = { 0 };
    struct base_status status = ch_proto_to_json(message, false, &out);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    const char *text = base_bytes_cstr(&t->arena, base_buf_bytes(&out));
    base_buf_free(&out);
    return text;
}

const char *bed_base64(struct bed *t, ProtobufCBinaryData bytes)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = base_arena_alloc(&t->arena, bytes.len * 4 / 3 + 8), *at = out;
    for (size_t i = 0; i < bytes.len; i += 3) {
        uint32_t v = (uint32_t)bytes.data[i] << 16 |
                     (i + 1 < bytes.len ? (uint32_t)bytes.data[i + 1] << 8 : 0) |
                     (i + 2 < bytes.len ? bytes.data[i + 2] : 0);
        *at++ = letters[v >> 18];
        *at++ = letters[v >> 12 & 63];
        *at++ = i + 1 < bytes.len ? letters[v >> 6 & 63] : '=';
        *at++ = i + 2 < bytes.len ? letters[v & 63] : '=';
    }
    *at = 0;
    return out;
}

void bed_restart(struct bed *t)
{
    ch_sim_kill(t->node);
    ch_sim_start(t->node, ch_service_main, &t->args);
}
