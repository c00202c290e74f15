if(TARGET clustermgr_core)
  strata_test(sim_clu_locks SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_locks.c DEPS clustermgr_core chassis base PRIVATE_OF clustermgr LABEL sim)
  strata_test(sim_clu_names SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_names.c DEPS clustermgr_core chassis base PRIVATE_OF clustermgr LABEL sim)
endif()
