# The published protocols: compatible with the last release; and the checker that says so, on protocols broken on purpose.
find_program(NODE node)
if(NODE AND PROTOC)
  add_test(NAME proto_compatible COMMAND ${CMAKE_SOURCE_DIR}/tools/check-proto-compatible)
  add_test(NAME test_proto_compatible COMMAND ${NODE} ${CMAKE_CURRENT_LIST_DIR}/compatible.js
           ${CMAKE_SOURCE_DIR}/tools/check-proto-compatible)
  set_tests_properties(proto_compatible test_proto_compatible PROPERTIES LABELS unit TIMEOUT 120)
endif()
