# The transaction layer under faults, from seeds, judged by the checker.
if(TARGET txlayer_doubles AND TARGET history_checker)
  strata_test(test_txlayer_sim SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_txlayer_sim.c ${CMAKE_CURRENT_LIST_DIR}/workload.c
    ${CMAKE_CURRENT_LIST_DIR}/nemesis.c DEPS txlayer_doubles history_checker LABEL sim TIMEOUT 300)
endif()
