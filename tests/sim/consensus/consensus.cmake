if(TARGET consensus)
  strata_test(sim_con_log SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_log.c DEPS consensus chassis base PRIVATE_OF consensus LABEL sim)
endif()
