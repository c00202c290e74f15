# Tests of chassis/proto.h and of what protoc-gen-strata writes.
strata_proto(proto_test ROOT ${CMAKE_CURRENT_LIST_DIR}/protos PROTOS strata/test/v1/everything.proto DEPS proto_wkt)
