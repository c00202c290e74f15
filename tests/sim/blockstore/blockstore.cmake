# The blockstore on the simulated world.
if(TARGET blockstore_core)
  foreach(name basic faults)
    strata_test(sim_blockstore_${name}
      SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_blockstore_${name}.c ${CMAKE_CURRENT_LIST_DIR}/blk_cluster.c
      DEPS blockstore_core blockstore_client chassis PRIVATE_OF blockstore LABEL sim)
  endforeach()
endif()
