# Tests of the simulated environment.
if(TARGET chassis)
  foreach(test sim sim_disk sim_net)
    strata_test(test_${test} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_${test}.c DEPS chassis PRIVATE_OF chassis)
  endforeach()
endif()
