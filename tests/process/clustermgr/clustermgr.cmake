if(TARGET clustermgr_core AND TARGET strata)
  add_executable(clu_echo ${CMAKE_CURRENT_LIST_DIR}/echo_service.c)
  target_link_libraries(clu_echo PRIVATE chassis)
  strata_test(process_clu_cell SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_cell.c LABEL process TIMEOUT 300)
  target_compile_definitions(process_clu_cell PRIVATE BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}"
    JOBS_DIR="${CMAKE_CURRENT_LIST_DIR}/jobs")
  add_dependencies(process_clu_cell clu_echo strata clustermaster clusteragent)
endif()
# The leader of the clustermasters, then of the blockmasters, killed, paused, cut off, once each: what must hold is checked; how
# long it takes is printed (bench/failover/run says it with more rounds, on a quiet machine).
if(TARGET clustermaster AND TARGET blockmaster AND "bench" IN_LIST STRATA_LAYERS)
  add_test(NAME process_failover COMMAND ${STRATA_TEST_PREFIX} ${CMAKE_SOURCE_DIR}/bench/failover/run ${CMAKE_BINARY_DIR} 1)
  set_tests_properties(process_failover PROPERTIES LABELS process TIMEOUT 300 ENVIRONMENT FAILOVER_MS_MAX=15000)
endif()
