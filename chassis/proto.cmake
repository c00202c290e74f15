# chassis_proto: chassis/proto.h. Stands on base and protobuf-c alone, so tools and tests may use it without the rest.
strata_library(chassis_proto
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/src/proto_base64.c ${CMAKE_CURRENT_LIST_DIR}/src/proto_check.c
          ${CMAKE_CURRENT_LIST_DIR}/src/proto_decode.c ${CMAKE_CURRENT_LIST_DIR}/src/proto_encode.c
          ${CMAKE_CURRENT_LIST_DIR}/src/proto_json_parse.c ${CMAKE_CURRENT_LIST_DIR}/src/proto_json_read.c
          ${CMAKE_CURRENT_LIST_DIR}/src/proto_json_scalar.c ${CMAKE_CURRENT_LIST_DIR}/src/proto_json_time.c
          ${CMAKE_CURRENT_LIST_DIR}/src/proto_json_wkt.c ${CMAKE_CURRENT_LIST_DIR}/src/proto_json_write.c
          ${CMAKE_CURRENT_LIST_DIR}/src/proto_map.c ${CMAKE_CURRENT_LIST_DIR}/src/proto_slot.c
          ${CMAKE_CURRENT_LIST_DIR}/src/proto_utf8.c
  PUBLIC_DEPS base PkgConfig::PROTOBUF_C
  DEPS PkgConfig::JANSSON)
