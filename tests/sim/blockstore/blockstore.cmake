# The blockstore on the simulated world.
if(TARGET blockstore_core)
  set(here ${CMAKE_CURRENT_LIST_DIR})
  strata_test(sim_blockstore_basic SOURCES ${here}/test_blockstore_basic.c ${here}/blk_cluster.c
    DEPS blockstore_core blockstore_client chassis PRIVATE_OF blockstore LABEL sim)
  strata_test(sim_blockstore_limits SOURCES ${here}/test_blockstore_limits.c ${here}/blk_cluster.c
    DEPS blockstore_core blockstore_client chassis PRIVATE_OF blockstore LABEL sim)
  strata_test(sim_blockstore_faults SOURCES ${here}/test_blockstore_faults.c ${here}/faults_world.c ${here}/faults_model.c
    ${here}/faults_clients.c ${here}/faults_nemesis.c ${here}/blk_cluster.c
    DEPS blockstore_core blockstore_client chassis PRIVATE_OF blockstore LABEL sim)
endif()
