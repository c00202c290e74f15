# Tests of the simulated environment.
if(TARGET chassis)
  foreach(test sim sim_disk)
    strata_test(test_${test} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_${test}.c DEPS chassis PRIVATE_OF chassis)
  endforeach()
  foreach(test sim_net sim_net_faults)
    strata_test(test_${test} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_${test}.c ${CMAKE_CURRENT_LIST_DIR}/sim_net_bed.c DEPS chassis
                PRIVATE_OF chassis)
  endforeach()
  if(TARGET test_rpc) # declared before this file: its tests over both transports
    target_compile_definitions(test_rpc PRIVATE RPC_TEST_SIM)
  endif()
endif()
