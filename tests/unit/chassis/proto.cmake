# Tests of chassis/proto.h and of what protoc-gen-strata writes.
set(proto_tests ${CMAKE_CURRENT_LIST_DIR})
strata_proto(proto_test ROOT ${proto_tests}/protos
  PROTOS strata/test/v1/everything.proto DEPS proto_wkt)
strata_test(test_proto_gen SOURCES ${proto_tests}/test_proto_gen.c DEPS proto_test)
strata_test(test_proto_decode SOURCES ${proto_tests}/test_proto_decode.c DEPS chassis_proto proto_test
  PRIVATE_OF chassis)
strata_test(test_proto_json SOURCES ${proto_tests}/test_proto_json.c DEPS chassis_proto proto_test
  PRIVATE_OF chassis)

# Random bytes, for a few seconds in every run of the tests; more by `fuzz_proto_decode ROUNDS SEED`.
add_executable(fuzz_proto_decode ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_proto_decode.c)
target_link_libraries(fuzz_proto_decode PRIVATE
  chassis_proto proto_test proto_bigtable_v2 proto_datastore_v1)
add_test(NAME fuzz_proto_decode COMMAND ${STRATA_TEST_PREFIX} $<TARGET_FILE:fuzz_proto_decode> 10000 1)
set_tests_properties(fuzz_proto_decode PROPERTIES LABELS unit TIMEOUT 120)
