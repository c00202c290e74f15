/* reflection.c: gRPC server reflection, v1 and v1alpha (the same messages under two names), over
 * the ch_proto_file tables of the services a server was told of. An answer for a file carries
 * its imports too, so that a tool asks once. None of our files defines extensions: those
 * questions are answered "none" or NOT_FOUND. */
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/reflection/v1/reflection.strata.h"
#include "grpc/reflection/v1alpha/reflection.strata.h"
#include "rpc_server_int.h"
#include "symbols.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

#define ASKED(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define ANSWERED(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

enum { FILES_MAX = 256 };

struct files {
    const struct ch_proto_file *files[FILES_MAX];
    size_t count;
};

/* The file and, after it, what it imports, each once. */
static void add_file(struct files *files, const struct ch_proto_file *file)
{
    for (size_t i = 0; i < files->count; i++)
        if (files->files[i] == file)
            return;
    if (!file || files->count == FILES_MAX)
        return;
    files->files[files->count++] = file;
    for (size_t i = 0; i < file->import_count; i++)
        add_file(files, file->imports[i]);
}

static void known_files(const struct ch_server *server, struct files *files)
{
    files->count = 0;
    for (size_t i = 0; i < server->service_count; i++)
        add_file(files, server->services[i]->file);
}

static void answer_error(Response *response, struct base_arena *arena, const char *what,
                         struct base_bytes name)
{
    Grpc__Reflection__V1__ErrorResponse *error = CH_MESSAGE(
        arena, Grpc__Reflection__V1__ErrorResponse, grpc__reflection__v1__error_response);
    error->error_code = BASE_NOT_FOUND;
    error->error_message =
        ch_data_str(base_arena_printf(arena, "%s: %s", what, base_bytes_show(arena, name, 200)));
    response->message_response_case = ANSWERED(ERROR_RESPONSE);
    response->error_response = error;
}

static void answer_file(Response *response, struct base_arena *arena,
                        const struct ch_proto_file *file)
{
    typedef Grpc__Reflection__V1__FileDescriptorResponse Files;
    struct files all = { .count = 0 };
    add_file(&all, file);
    Files *files = CH_MESSAGE(arena, Files, grpc__reflection__v1__file_descriptor_response);
    files->n_file_descriptor_proto = all.count;
    files->file_descriptor_proto = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, all.count);
    for (size_t i = 0; i < all.count; i++)
        files->file_descriptor_proto[i] = ch_data_of(all.files[i]->descriptor);
    response->message_response_case = ANSWERED(FILE_DESCRIPTOR_RESPONSE);
    response->file_descriptor_response = files;
}

static void answer_services(const struct ch_server *server, Response *response,
                            struct base_arena *arena)
{
    typedef Grpc__Reflection__V1__ServiceResponse Service;
    typedef Grpc__Reflection__V1__ListServiceResponse List;
    List *list = CH_MESSAGE(arena, List, grpc__reflection__v1__list_service_response);
    list->n_service = server->service_count;
    list->service = BASE_NEW_ARRAY(arena, Service *, list->n_service);
    for (size_t i = 0; i < list->n_service; i++) {
        list->service[i] = CH_MESSAGE(arena, Service, grpc__reflection__v1__service_response);
        list->service[i]->name = ch_data_str(server->services[i]->name);
    }
    response->message_response_case = ANSWERED(LIST_SERVICES_RESPONSE);
    response->list_services_response = list;
}

static void by_name(const struct ch_server *server, Response *response, struct base_arena *arena,
                    struct base_bytes name)
{
    struct files files;
    known_files(server, &files);
    for (size_t i = 0; i < files.count; i++)
        if (base_bytes_eq_str(name, files.files[i]->name)) {
            answer_file(response, arena, files.files[i]);
            return;
        }
    answer_error(response, arena, "unknown file", name);
}

static void by_symbol(const struct ch_server *server, Response *response, struct base_arena *arena,
                      struct base_bytes name, bool extensions)
{
    struct files files;
    known_files(server, &files);
    for (size_t i = 0; i < files.count; i++) {
        enum ch_symbol symbol = ch_symbol_find(files.files[i]->descriptor, name);
        if (symbol == CH_SYMBOL_NONE || (extensions && symbol != CH_SYMBOL_MESSAGE))
            continue;
        if (!extensions) {
            answer_file(response, arena, files.files[i]);
            return;
        }
        typedef Grpc__Reflection__V1__ExtensionNumberResponse Numbers;
        Numbers *numbers =
            CH_MESSAGE(arena, Numbers, grpc__reflection__v1__extension_number_response);
        numbers->base_type_name = ch_data_of(name);
        response->message_response_case = ANSWERED(ALL_EXTENSION_NUMBERS_RESPONSE);
        response->all_extension_numbers_response = numbers;
        return;
    }
    answer_error(response, arena, extensions ? "unknown message" : "unknown symbol", name);
}

static void answer(const struct ch_server *server, struct base_arena *arena, Request *request,
                   Response *response)
{
    grpc__reflection__v1__server_reflection_response__init(response);
    response->valid_host = request->host;
    response->original_request = request;
    switch (request->message_request_case) {
    case ASKED(FILE_BY_FILENAME):
        by_name(server, response, arena, ch_bytes_of(request->file_by_filename));
        break;
    case ASKED(FILE_CONTAINING_SYMBOL):
        by_symbol(server, response, arena, ch_bytes_of(request->file_containing_symbol), false);
        break;
    case ASKED(ALL_EXTENSION_NUMBERS_OF_TYPE):
        by_symbol(server, response, arena, ch_bytes_of(request->all_extension_numbers_of_type),
                  true);
        break;
    case ASKED(LIST_SERVICES):
        answer_services(server, response, arena);
        break;
    case ASKED(FILE_CONTAINING_EXTENSION):
        answer_error(response, arena, "unknown extension of",
                     ch_bytes_of(request->file_containing_extension->containing_type));
        break;
    default:
        answer_error(response, arena, "no question", BASE_BYTES_EMPTY);
        response->error_response->error_code = BASE_INVALID_ARGUMENT;
    }
}

static struct base_status reflect(void *self, struct ch_call *call) CH_WAITS;
static struct base_status reflect(void *self, struct ch_call *call)
{
    struct ch_server *server = self;
    struct base_arena arena;
    void *message = NULL;
    struct base_status status;
    base_arena_init(&arena);
    while (!base_failed(status = ch_call_recv(call, &arena, &message)) && message) {
        Response response;
        answer(server, &arena, message, &response);
        status = ch_call_send(call, &response);
        base_arena_reset(&arena);
        if (base_failed(status))
            break;
    }
    base_arena_free(&arena);
    return status;
}

void ch__reflection_register(struct ch_server *server)
{
    const struct ch_service *service = &grpc__reflection__v1__server_reflection__service;
    const struct ch_service *alpha = &grpc__reflection__v1alpha__server_reflection__service;
    ch_server_add_service(server, service);
    ch_server_add_service(server, alpha);
    ch__server_handle_internal(server, &service->methods[0], NULL, reflect, server);
    server->reflection_alpha =
        service->methods[0]; /* the same bytes, and so the same C types, under the older path */
    server->reflection_alpha.path = alpha->methods[0].path;
    ch__server_handle_internal(server, &server->reflection_alpha, NULL, reflect, server);
}
