/* rest.c: HTTP/1.1 beside gRPC: POST /v1/projects/PROJECT:METHOD with proto3 JSON or, for clients
 * of an older kind, protobuf bodies (application/x-protobuf; errors are then google.rpc.Status).
 * The reply is of the request's kind. */
#include <stdlib.h>

#include "google/rpc/status.pb-c.h"
#include "server.h"

#define JSON "application/json; charset=UTF-8"
#define PROTOBUF "application/x-protobuf"

static int http_code(enum base_code code)
{
    switch (code) {
    case BASE_OK:
        return 200;
    case BASE_INVALID_ARGUMENT:
    case BASE_FAILED_PRECONDITION:
    case BASE_OUT_OF_RANGE:
        return 400;
    case BASE_UNAUTHENTICATED:
        return 401;
    case BASE_PERMISSION_DENIED:
        return 403;
    case BASE_NOT_FOUND:
        return 404;
    case BASE_ALREADY_EXISTS:
    case BASE_ABORTED:
        return 409;
    case BASE_RESOURCE_EXHAUSTED:
        return 429;
    case BASE_CANCELLED:
        return 499;
    case BASE_UNIMPLEMENTED:
        return 501;
    case BASE_UNAVAILABLE:
        return 503;
    case BASE_DEADLINE_EXCEEDED:
        return 504;
    default:
        return 500;
    }
}

static void put_json_string(struct base_buf *out, const char *text)
{
    base_buf_put_str(out, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            base_buf_printf(out, "\\%c", c);
        else if (c < 0x20)
            base_buf_printf(out, "\\u%04x", c);
        else
            base_buf_put_u8(out, c);
    }
    base_buf_put_str(out, "\"");
}

static void put_error(struct ch_http_reply *reply, int code, const struct base_status *status,
                      bool protobuf)
{
    reply->code = code;
    if (protobuf) {
        Google__Rpc__Status error = GOOGLE__RPC__STATUS__INIT;
        error.code = status->code;
        error.message = ch_data_str(base_status_text(status));
        reply->content_type = PROTOBUF;
        ch_proto_encode(&error.base, &reply->body);
        return;
    }
    reply->content_type = JSON;
    base_buf_printf(&reply->body, "{\"error\":{\"code\":%d,\"message\":", code);
    put_json_string(&reply->body, base_status_text(status));
    base_buf_printf(&reply->body, ",\"status\":\"%s\"}}\n", base_code_name(status->code));
}

/* "/v1/projects/P:method", or "/v1/projects/P/databases/D:method" never: the database is in the
 * body. */
static const struct qry_method *find_method(const char *path, struct base_bytes *project)
{
    static const char prefix[] = "/v1/projects/";
    if (strncmp(path, prefix, sizeof(prefix) - 1) != 0)
        return NULL;
    const char *name = path + sizeof(prefix) - 1, *colon = strrchr(name, ':');
    if (!colon || colon == name || memchr(name, '/', (size_t)(colon - name)))
        return NULL;
    *project = base_bytes(name, (size_t)(colon - name));
    for (size_t i = 0; i < qry_method_count; i++)
        if (qry_methods[i].rest && strcmp(qry_methods[i].rest, colon + 1) == 0)
            return &qry_methods[i];
    return NULL;
}

static struct base_status decode(const struct ch_http_request *request,
                                 const struct qry_method *method, struct base_bytes project,
                                 bool protobuf, void **message)
{
    ProtobufCMessage *decoded;
    const ProtobufCMessageDescriptor *descriptor = qry_method_of(method)->request;
    struct base_bytes body =
        !protobuf && request->body.len == 0 ? BASE_BYTES_LIT("{}") : request->body;
    struct base_status status =
        protobuf ? ch_proto_decode(descriptor, body, request->arena, &decoded)
                 : ch_proto_from_json(descriptor, body, request->arena, &decoded);
    if (base_failed(status))
        return protobuf ? status : base_status_wrap(status, "Payload isn't valid for request.");
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(descriptor, "project_id");
    ProtobufCBinaryData *named = (ProtobufCBinaryData *)((uint8_t *)decoded + field->offset);
    if (named->len > 0 && !base_bytes_eq(ch_bytes_of(*named), project))
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "the URL's project is \"%.*s\", the body's is \"%.*s\"",
                                BASE_FMT(project), BASE_FMT(ch_bytes_of(*named)));
    *named = ch_data_of(project);
    *message = decoded;
    return status;
}

/* Replies carry entities as stored, undecoded: for JSON they are decoded here. */
static struct base_status encode(const struct ch_http_request *request,
                                 const struct qry_method *method, const void *message,
                                 bool protobuf, struct ch_http_reply *reply)
{
    ProtobufCMessage *whole;
    struct base_buf bytes = { 0 };
    if (protobuf) {
        reply->content_type = PROTOBUF;
        ch_proto_encode(message, &reply->body);
        return BASE_STATUS_OK;
    }
    reply->content_type = JSON;
    ch_proto_encode(message, &bytes);
    struct base_status status = ch_proto_decode(qry_method_of(method)->reply,
                                                base_buf_bytes(&bytes), request->arena, &whole);
    if (!base_failed(status))
        status = ch_proto_to_json(whole,
                                  strstr(request->query, "enum-encoding=int") != NULL ||
                                      strstr(request->query, "enum-encoding%3Dint") != NULL,
                                  &reply->body);
    base_buf_free(&bytes);
    return status;
}

void qry_rest_handle(void *self, const struct ch_http_request *request, struct ch_http_reply *reply)
{
    struct qry_server *server = self;
    struct base_bytes project;
    void *message = NULL, *answer = NULL;
    bool protobuf = strncmp(request->content_type, PROTOBUF, sizeof(PROTOBUF) - 1) == 0;
    const struct qry_method *method = find_method(request->path, &project);
    struct base_status status = BASE_STATUS_OK;
    if (strcmp(request->path, "/") == 0) { /* how clients of emulators ask whether one is there */
        reply->code = 200;
        reply->content_type = "text/plain";
        base_buf_put_str(&reply->body, "Ok\n");
        return;
    }
    if (!method || strcmp(request->method, "POST") != 0) {
        status = base_status_make(BASE_NOT_FOUND, "%s %s is no method of this service",
                                  request->method, request->path);
        put_error(reply, method ? 405 : 404, &status, protobuf);
        base_status_free(&status);
        return;
    }
    status = decode(request, method, project, protobuf, &message);
    if (!base_failed(status))
        status = qry_method_run(server, method, message, request->arena, CH_NEVER, &answer);
    if (!base_failed(status))
        status = encode(request, method, answer, protobuf, reply);
    if (base_failed(status))
        put_error(reply, http_code(status.code), &status, protobuf);
    else
        reply->code = 200;
    base_status_free(&status);
}
