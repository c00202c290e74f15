if(TARGET clustermgr_core AND TARGET strata)
  add_executable(clu_echo ${CMAKE_CURRENT_LIST_DIR}/echo_service.c)
  target_link_libraries(clu_echo PRIVATE chassis)
  strata_test(process_clu_cell SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_cell.c LABEL process TIMEOUT 300)
  target_compile_definitions(process_clu_cell PRIVATE BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}"
    JOBS_DIR="${CMAKE_CURRENT_LIST_DIR}/jobs")
  add_dependencies(process_clu_cell clu_echo strata clustermaster clusteragent)
endif()
