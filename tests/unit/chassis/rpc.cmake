# Tests of the RPC part. The Echo service (proto_echo) serves bench/rpc too.
strata_proto(proto_echo ROOT ${CMAKE_CURRENT_LIST_DIR}/protos PROTOS strata/test/v1/echo.proto DEPS proto_wkt)
if(TARGET chassis)
  strata_test(test_rpc SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_rpc.c ${CMAKE_CURRENT_LIST_DIR}/rpc_echo.c
              DEPS chassis proto_echo PRIVATE_OF chassis TIMEOUT 300)
  strata_test(test_rpc_mixed SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_rpc_mixed.c ${CMAKE_CURRENT_LIST_DIR}/rpc_echo.c
              DEPS chassis proto_echo PRIVATE_OF chassis)
endif()
