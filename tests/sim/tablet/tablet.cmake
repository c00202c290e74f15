# The same trouble on real, simulated blockstore daemons.
if(TARGET tablet_core AND TARGET blockstore_core AND TARGET chassis)
  strata_test(sim_tablet_chaos
    SOURCES ${CMAKE_SOURCE_DIR}/tests/layer/tablet/test_tablet_chaos.c
            ${CMAKE_SOURCE_DIR}/tests/layer/tablet/cell.c
            ${CMAKE_CURRENT_LIST_DIR}/cell_store_real.c
    DEPS tablet_core tablet_client blockstore_core blockstore_client chassis names_double
    PRIVATE_OF tablet blockstore LABEL sim TIMEOUT 180)
  target_compile_definitions(sim_tablet_chaos PRIVATE CHAOS_SEEDS=3)
  target_include_directories(sim_tablet_chaos PRIVATE ${CMAKE_SOURCE_DIR}/tests/layer/tablet)
endif()
