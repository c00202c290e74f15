/* What protoc-gen-strata writes is what chassis/proto.h promises: the marks on fields, the tables
 * of methods, the file as reflection shows it. */
#include "test.h"

#include "strata/test/v1/everything.strata.h"

static const ProtobufCFieldDescriptor *field(const char *name)
{
    const ProtobufCFieldDescriptor *found = protobuf_c_message_descriptor_get_field_by_name(
        &strata__test__v1__everything__descriptor, name);
    cr_assert_not_null(found, "%s", name);
    return found;
}

Test(proto_gen, fields_are_marked)
{
    static const struct {
        const char *name;
        unsigned flags;
        const char *json_name;
    } cases[] = {
        { "a_string", CH_FIELD_STRING, "aString" },
        { "strings", CH_FIELD_STRING, "strings" },
        { "maybe_string", CH_FIELD_STRING, "maybeString" },
        { "chosen_string", CH_FIELD_STRING, "chosenString" },
        { "a_bytes", 0, "aBytes" },
        { "an_int32", 0, "anInt32" },
        { "child", 0, "child" },
        { "children", 0, "children" },
        { "by_name", CH_FIELD_MAP, "byName" },
        { "by_bool", CH_FIELD_MAP, "byBool" },
        { "renamed", 0, "somethingElse" },
        { "num_3d__odd", 0, "num3dOdd" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const ProtobufCFieldDescriptor *f = field(cases[i].name);
        cr_assert_eq(f->reserved_flags, cases[i].flags, "%s", f->name);
        cr_assert_str_eq((const char *)f->reserved2, cases[i].json_name);
        cr_assert_neq(f->type, PROTOBUF_C_TYPE_STRING);
    }
    const ProtobufCMessageDescriptor *entry = field("by_name")->descriptor;
    cr_assert_eq(entry->n_fields, 2);
    cr_assert_eq(entry->fields[0].reserved_flags, CH_FIELD_STRING);
}

Test(proto_gen, services)
{
    static const struct {
        const char *path;
        int index;
        bool client_streaming, server_streaming, idempotent;
    } want[] = {
        { "/strata.test.v1.Things/Get", STRATA__TEST__V1__THINGS__GET, false, false, true },
        { "/strata.test.v1.Things/WatchURLs", STRATA__TEST__V1__THINGS__WATCH_URLS, false, true,
          false },
        { "/strata.test.v1.Things/Put", STRATA__TEST__V1__THINGS__PUT, true, false, true },
        { "/strata.test.v1.Things/Talk", STRATA__TEST__V1__THINGS__TALK, true, true, false },
    };
    const struct ch_service *service = &strata__test__v1__things__service;
    cr_assert_str_eq(service->name, "strata.test.v1.Things");
    cr_assert_eq(service->file, &strata__test__v1__everything__file);
    cr_assert_eq(service->method_count, 4);
    for (size_t i = 0; i < 4; i++) {
        const struct ch_method *method = &service->methods[want[i].index];
        cr_assert_str_eq(method->path, want[i].path);
        cr_assert_str_eq(method->name, strrchr(want[i].path, '/') + 1);
        cr_assert_eq(method->client_streaming, want[i].client_streaming);
        cr_assert_eq(method->server_streaming, want[i].server_streaming);
        cr_assert_eq(method->idempotent, want[i].idempotent, "%s", method->path);
    }
    cr_assert_eq(service->methods[0].request, &strata__test__v1__older__descriptor);
    cr_assert_eq(service->methods[0].reply, &strata__test__v1__everything__descriptor);
}

static bool contains(struct base_bytes bytes, const char *text)
{
    return memmem(bytes.data, bytes.len, text, strlen(text)) != NULL;
}

/* FieldDescriptorProto of a_string: number 14, label optional, type 9 is string. */
Test(proto_gen, the_file_is_as_written)
{
    const struct ch_proto_file *file = &strata__test__v1__everything__file;
    cr_assert_str_eq(file->name, "strata/test/v1/everything.proto");
    cr_assert(contains(file->descriptor, "\x0a\x08"
                                         "a_string\x18\x0e\x20\x01\x28\x09"),
              "strings are strings there");
    cr_assert(contains(file->descriptor, "ByNameEntry"));
    cr_assert(contains(file->descriptor, "Things"));
    cr_assert(!contains(file->descriptor, "every kind of field"), "comments are left out");
    cr_assert_eq(file->import_count, 6);
    cr_assert_str_eq(file->imports[0]->name, "google/protobuf/any.proto");
    cr_assert_eq(file->imports[0]->import_count, 0);
}
