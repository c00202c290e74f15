# chassis_proto: chassis/proto.h. Stands on base and protobuf-c alone, so tools and tests may use it
# without the rest.
set(proto_sources proto_base64.c proto_check.c proto_decode.c proto_encode.c
                  proto_json_parse.c proto_json_read.c proto_json_scalar.c proto_json_time.c
                  proto_json_wkt.c proto_json_write.c proto_map.c proto_slot.c
                  proto_utf8.c)
list(TRANSFORM proto_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/src/)
strata_library(chassis_proto
  SOURCES ${proto_sources}
  PUBLIC_DEPS base PkgConfig::PROTOBUF_C
  DEPS PkgConfig::JANSSON m)
