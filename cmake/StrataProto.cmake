# strata_proto(NAME PROTOS a/b.proto … [DEPS targets…] [ROOT dir]): a static library of the C of
# .proto files, which lie under ROOT (default: proto/). All of it is written by protoc-gen-strata into
# one tree, so users include "a/b.pb-c.h" (messages) and "a/b.strata.h" (services, the file's
# descriptor). DEPS are the targets whose files these import.
#
# The generated headers are system headers to their users, and their own code is compiled without
# warnings: their style is protoc-gen-c's.
set(STRATA_PROTO_OUT ${CMAKE_BINARY_DIR}/proto-gen)

function(strata_proto name)
  cmake_parse_arguments(A "" "ROOT" "PROTOS;DEPS" ${ARGN})
  if(NOT A_ROOT)
    set(A_ROOT ${CMAKE_SOURCE_DIR}/proto)
  endif()
  set(inputs)
  set(outputs)
  set(imported)
  foreach(proto IN LISTS A_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    list(APPEND inputs ${A_ROOT}/${proto})
    foreach(suffix pb-c.c pb-c.h strata.c strata.h)
      list(APPEND outputs ${STRATA_PROTO_OUT}/${stem}.${suffix})
    endforeach()
  endforeach()
  foreach(dep IN LISTS A_DEPS)
    list(APPEND imported "$<TARGET_PROPERTY:${dep},STRATA_PROTO_INPUTS>")
  endforeach()
  add_custom_command(OUTPUT ${outputs}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${STRATA_PROTO_OUT}
    COMMAND ${PROTOC} --plugin=protoc-gen-strata=$<TARGET_FILE:protoc-gen-strata>
            --strata_out=${STRATA_PROTO_OUT}
            -I${A_ROOT} -I${CMAKE_SOURCE_DIR}/proto -I${PROTOBUF_INCLUDE} ${inputs}
    DEPENDS protoc-gen-strata ${inputs} ${imported}
    COMMENT "Generating ${name}" VERBATIM)
  add_library(${name} STATIC ${outputs})
  set_target_properties(${name} PROPERTIES STRATA_PROTO_INPUTS "${inputs}")
  target_compile_options(${name} PRIVATE -w)
  target_include_directories(${name} SYSTEM PUBLIC ${STRATA_PROTO_OUT})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR}/chassis/include)
  target_link_libraries(${name} PUBLIC base PkgConfig::PROTOBUF_C ${A_DEPS})
endfunction()
