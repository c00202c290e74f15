/* gen.h: the parts of protoc-gen-strata. All memory is one arena's, given by main and freed at its
 * end. What goes wrong is told to stderr by gen_fail, which ends the process: protoc then reports
 * that the plugin failed. */
#ifndef GEN_H
#define GEN_H

#include <google/protobuf/compiler/plugin.pb-c.h>

#include "base/arena.h"
#include "base/bytes.h"

typedef Google__Protobuf__FileDescriptorProto gen_file;
typedef Google__Protobuf__DescriptorProto gen_message;
typedef Google__Protobuf__FieldDescriptorProto gen_field;
typedef Google__Protobuf__Compiler__CodeGeneratorRequest gen_request;
typedef Google__Protobuf__Compiler__CodeGeneratorResponse gen_response;
typedef Google__Protobuf__Compiler__CodeGeneratorResponse__File gen_output;

void gen_fail(const char *fmt, ...) BASE_PRINTF(1, 2) __attribute__((noreturn));

/* main.c: a protobuf-c allocator over an arena; unpacked messages live as long as it. */
ProtobufCAllocator gen_allocator(struct base_arena *arena);

/* names.c: names in C, by protoc-gen-c's own rules. */
/* "google.datastore.v1.RunQuery" -> "google__datastore__v1__run_query". */
char *gen_lower_name(struct base_arena *arena, const char *full_name);
/* The same in capitals. */
char *gen_upper_name(struct base_arena *arena, const char *full_name);
/* "google/datastore/v1/query.proto" -> "google__datastore__v1__query". */
char *gen_file_symbol(struct base_arena *arena, const char *path);
/* "google/datastore/v1/query.proto" -> "google/datastore/v1/query". */
char *gen_file_stem(struct base_arena *arena, const char *path);
/* package "a.b", name "C" -> "a.b.C"; an empty or absent package adds nothing. */
char *gen_join(struct base_arena *arena, const char *package, const char *name);

/* rewrite.c: turns a request into what protoc-gen-c understands and this project wants: strings
 * become bytes, proto3 optional fields plain members of their one-member oneofs, map entries plain
 * messages, services nothing. */
void gen_rewrite(gen_request *request);

/* run.c: runs protoc-gen-c on the request; returns its answer. */
gen_response *gen_run_protoc_c(struct base_arena *arena, const gen_request *request);

/* patch.c: writes into the text of a .pb-c.c what protobuf-c's descriptors do not say of
 * themselves: in each field's reserved words, CH_FIELD_STRING and CH_FIELD_MAP flags and its JSON
 * name. `file` is the file as the .proto has it. */
char *gen_patch(struct base_arena *arena, const gen_file *file, const char *text);

/* emit.c: the texts of <file>.strata.h and <file>.strata.c. */
char *gen_emit_header(struct base_arena *arena, const gen_file *file);
char *gen_emit_source(struct base_arena *arena, const gen_file *file);

#endif
