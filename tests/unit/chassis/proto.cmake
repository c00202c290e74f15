# Tests of chassis/proto.h and of what protoc-gen-strata writes.
set(proto_tests ${CMAKE_CURRENT_LIST_DIR})
strata_proto(proto_test ROOT ${proto_tests}/protos PROTOS strata/test/v1/everything.proto DEPS proto_wkt)
strata_test(test_proto_gen SOURCES ${proto_tests}/test_proto_gen.c DEPS proto_test)
strata_test(test_proto_decode SOURCES ${proto_tests}/test_proto_decode.c DEPS chassis_proto proto_test
  PRIVATE_OF chassis)
