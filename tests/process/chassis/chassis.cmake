# A generated service is built on this build's archives and run.
if(TARGET chassis AND EXISTS ${CMAKE_SOURCE_DIR}/cli/src/new_service.c)
  add_executable(new_service_tool ${CMAKE_CURRENT_LIST_DIR}/new_service/tool.c ${CMAKE_SOURCE_DIR}/cli/src/new_service.c
                 ${CMAKE_SOURCE_DIR}/cli/src/new_service_files.c)
  target_include_directories(new_service_tool PRIVATE ${CMAKE_SOURCE_DIR}/cli/src)
  add_test(NAME new_service COMMAND ${STRATA_TEST_PREFIX} ${CMAKE_CURRENT_LIST_DIR}/new_service.sh $<TARGET_FILE:new_service_tool>
           $<TARGET_FILE:protoc-gen-strata> ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR} "${STRATA_SANITIZE}")
  set_tests_properties(new_service PROPERTIES LABELS process TIMEOUT 300)
endif()
