if(TARGET consensus)
  strata_test(sim_con_log SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_log.c DEPS consensus chassis base PRIVATE_OF consensus LABEL sim)
  strata_test(sim_con_group SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_group.c ${CMAKE_CURRENT_LIST_DIR}/group_world.c ${CMAKE_SOURCE_DIR}/tests/support/con_store_memory.c
    DEPS consensus chassis base LABEL sim)
  strata_test(sim_con_group_members SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_group_members.c ${CMAKE_CURRENT_LIST_DIR}/group_world.c ${CMAKE_SOURCE_DIR}/tests/support/con_store_memory.c
    DEPS consensus chassis base LABEL sim)
  strata_test(sim_con_group_faults SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_group_faults.c ${CMAKE_CURRENT_LIST_DIR}/group_world.c ${CMAKE_SOURCE_DIR}/tests/support/con_store_memory.c
    DEPS consensus chassis base LABEL sim TIMEOUT 300)
  strata_test(sim_con_many_groups SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_many_groups.c ${CMAKE_SOURCE_DIR}/tests/support/con_store_memory.c
    DEPS consensus chassis base LABEL sim)
  strata_test(sim_con_node SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_node.c ${CMAKE_CURRENT_LIST_DIR}/group_world.c ${CMAKE_SOURCE_DIR}/tests/support/con_store_memory.c
    DEPS consensus chassis base PRIVATE_OF consensus LABEL sim)
endif()
if(TARGET consensus)
  strata_test(sim_con_store SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_store.c ${CMAKE_CURRENT_LIST_DIR}/store_model.c ${CMAKE_SOURCE_DIR}/tests/support/con_store_memory.c
    DEPS consensus chassis base PRIVATE_OF consensus LABEL sim)
  strata_test(sim_con_store_damage SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_store_damage.c ${CMAKE_CURRENT_LIST_DIR}/store_model.c
    DEPS consensus chassis base PRIVATE_OF consensus LABEL sim)
endif()
