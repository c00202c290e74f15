/* What every server serves by itself: grpc.health.v1 and reflection. */
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/health/v1/health.strata.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/reflection/v1/reflection.strata.h"
#include "grpc/reflection/v1alpha/reflection.strata.h"
#include "rpc_echo.h"
#include "symbols.h"
#include "test.h"

typedef Grpc__Health__V1__HealthCheckRequest HealthRequest;
typedef Grpc__Health__V1__HealthCheckResponse HealthResponse;
typedef Grpc__Reflection__V1__ServerReflectionRequest Question;
typedef Grpc__Reflection__V1__ServerReflectionResponse Answer;

#define ANSWERED(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

static const int SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
static const int NOT_SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
static const int SERVICE_UNKNOWN =
    GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;

static int check(struct echo *t, const char *service, struct base_status *status) CH_WAITS;
static int check(struct echo *t, const char *service, struct base_status *status)
{
    HealthRequest *request =
        CH_MESSAGE(&t->arena, HealthRequest, grpc__health__v1__health_check_request);
    void *reply = NULL;
    request->service = ch_data_str(service);
    *status = ch_client_call(
        t->client, &grpc__health__v1__health__service.methods[GRPC__HEALTH__V1__HEALTH__CHECK],
        request, NULL, &t->arena, &reply);
    return base_failed(*status) ? -1 : (int)((HealthResponse *)reply)->status;
}

/* Load balancers act on Check: the state the server set, for the whole and for each service;
 * unknown ones are NOT_FOUND. */
RPC_TEST(health_check)
{
    struct base_status status;
    echo_connect(t);
    cr_assert_eq(check(t, "", &status), SERVING);
    cr_assert_eq(check(t, "strata.test.v1.Echo", &status), SERVING);
    ch_server_set_serving(t->server, false);
    cr_assert_eq(check(t, "", &status), NOT_SERVING);
    cr_assert_eq(check(t, "no.such.Service", &status), -1);
    cr_assert_eq(status.code, BASE_NOT_FOUND);
    cr_assert(strstr(base_status_text(&status), "no.such.Service") != NULL);
    base_status_free(&status);
}

static int watched(struct echo *t, struct ch_client_stream *stream) CH_WAITS;
static int watched(struct echo *t, struct ch_client_stream *stream)
{
    void *message = NULL;
    struct base_status status = ch_stream_recv(stream, &t->arena, &message);
    return base_status_drop(status) != BASE_OK || !message
               ? -1
               : (int)((HealthResponse *)message)->status;
}

static struct ch_client_stream *watch(struct echo *t, const char *service) CH_WAITS;
static struct ch_client_stream *watch(struct echo *t, const char *service)
{
    struct ch_client_stream *stream = NULL;
    HealthRequest *request =
        CH_MESSAGE(&t->arena, HealthRequest, grpc__health__v1__health_check_request);
    request->service = ch_data_str(service);
    cr_assert(!base_failed(ch_client_open(
        t->client, &grpc__health__v1__health__service.methods[GRPC__HEALTH__V1__HEALTH__WATCH],
        NULL, &stream)));
    cr_assert(!base_failed(ch_stream_send(stream, request)));
    cr_assert(!base_failed(ch_stream_close_send(stream)));
    return stream;
}

/* Watch tells the state now and after every change, and ends when the server stops instead of
 * holding the stop up. */
RPC_TEST(health_watch)
{
    echo_connect(t);
    struct ch_client_stream *whole = watch(t, ""), *unknown = watch(t, "no.such.Service");
    cr_assert_eq(watched(t, whole), SERVING);
    cr_assert_eq(watched(t, unknown), SERVICE_UNKNOWN);
    ch_server_set_serving(t->server, false);
    cr_assert_eq(watched(t, whole), NOT_SERVING);
    ch_server_set_serving(t->server, true);
    cr_assert_eq(watched(t, whole), SERVING);
    ch_time begin = ch_now(t->env);
    echo_stop_server(t, 10 * CH_S);
    cr_assert(ch_now(t->env) - begin < 5 * CH_S);
    cr_assert_eq(watched(t, whole), NOT_SERVING);
    cr_assert_eq(watched(t, whole), -1);
    ch_stream_free(whole);
    ch_stream_free(unknown);
}

static Answer *ask(struct echo *t, struct ch_client_stream *stream, Question *question) CH_WAITS;
static Answer *ask(struct echo *t, struct ch_client_stream *stream, Question *question)
{
    void *message = NULL;
    cr_assert(!base_failed(ch_stream_send(stream, question)));
    struct base_status status = ch_stream_recv(stream, &t->arena, &message);
    cr_assert(!base_failed(status) && message, "%s", base_status_text(&status));
    return message;
}

static void check_reflection(struct echo *t, const struct ch_method *method) CH_WAITS;
static void check_reflection(struct echo *t, const struct ch_method *method)
{
    struct ch_client_stream *stream;
    cr_assert(!base_failed(ch_client_open(t->client, method, NULL, &stream)));
    Question question;
    grpc__reflection__v1__server_reflection_request__init(&question);
    question.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
    Answer *answer = ask(t, stream, &question);
    bool echo_listed = false;
    for (size_t i = 0; i < answer->list_services_response->n_service; i++)
        echo_listed |= base_bytes_eq_str(
            ch_bytes_of(answer->list_services_response->service[i]->name), "strata.test.v1.Echo");
    cr_assert(echo_listed);
    question.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL;
    question.file_containing_symbol = ch_data_str("strata.test.v1.Echo.Say");
    answer = ask(t, stream, &question);
    cr_assert_eq(answer->message_response_case, ANSWERED(FILE_DESCRIPTOR_RESPONSE));
    cr_assert_eq(answer->file_descriptor_response->n_file_descriptor_proto,
                 2u); /* echo.proto and timestamp.proto */
    question.file_containing_symbol = ch_data_str("google.protobuf.Timestamp");
    cr_assert_eq(ask(t, stream, &question)->file_descriptor_response->n_file_descriptor_proto, 1u);
    question.file_containing_symbol = ch_data_str("strata.test.v1.Nothing");
    cr_assert_eq(ask(t, stream, &question)->error_response->error_code, BASE_NOT_FOUND);
    question.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
    question.file_by_filename = ch_data_str("strata/test/v1/echo.proto");
    cr_assert_eq(ask(t, stream, &question)->file_descriptor_response->n_file_descriptor_proto, 2u);
    question.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET;
    cr_assert_eq(ask(t, stream, &question)->error_response->error_code, BASE_INVALID_ARGUMENT);
    ch_stream_free(stream);
}

/* Tools find services and whole files, with what they import, under both names of the reflection
 * service. */
RPC_TEST(reflection)
{
    echo_connect(t);
    struct ch_method alpha = grpc__reflection__v1__server_reflection__service.methods[0];
    alpha.path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
    check_reflection(t, &grpc__reflection__v1__server_reflection__service.methods[0]);
    check_reflection(t, &alpha);
}

/* Names are found at any depth, and only whole ones. */
Test(symbols, found_whole)
{
    struct base_bytes file = strata__test__v1__echo__service.file->descriptor;
    static const struct {
        const char *name;
        enum ch_symbol symbol;
    } cases[] = {
        { "strata.test.v1.EchoRequest", CH_SYMBOL_MESSAGE },
        { "strata.test.v1.EchoRequest.payload", CH_SYMBOL_OTHER },
        { "strata.test.v1.Echo", CH_SYMBOL_OTHER },
        { "strata.test.v1.Echo.Say", CH_SYMBOL_OTHER },
        { "strata.test.v1.Ech", CH_SYMBOL_NONE },
        { "strata.test.v1", CH_SYMBOL_NONE },
        { "strata.test.v1.EchoRequest.", CH_SYMBOL_NONE },
        { "EchoRequest", CH_SYMBOL_NONE },
        { "", CH_SYMBOL_NONE },
        { "strata.test.v1.Echo.Say.x", CH_SYMBOL_NONE },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        cr_assert_eq(ch_symbol_find(file, base_bytes_str(cases[i].name)), cases[i].symbol, "%s",
                     cases[i].name);
}
