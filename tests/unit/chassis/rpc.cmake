# Tests of the RPC part. The Echo service (proto_echo) serves bench/rpc too.
strata_proto(proto_echo ROOT ${CMAKE_CURRENT_LIST_DIR}/protos PROTOS strata/test/v1/echo.proto DEPS proto_wkt)
if(TARGET chassis)
  set(rpc_echo ${CMAKE_CURRENT_LIST_DIR}/rpc_echo.c)
  foreach(part rpc rpc_hedge rpc_mixed rpc_seen rpc_services rpc_load rpc_wire)
    strata_test(test_${part} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_${part}.c ${rpc_echo}
                DEPS chassis proto_echo proto_health proto_reflection PkgConfig::GRPC PRIVATE_OF chassis TIMEOUT 300)
  endforeach()
  strata_test(test_rpc_parts SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_rpc_parts.c DEPS chassis ZLIB::ZLIB PRIVATE_OF chassis)
endif()
