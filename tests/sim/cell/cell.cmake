# A whole cell on the simulated world.
if(TARGET clustermgr_core AND TARGET blockstore_core AND TARGET tablet_core AND TARGET txlayer_core AND TARGET queryapi_core AND TARGET history_checker)
  set(here ${CMAKE_CURRENT_LIST_DIR})
  strata_test(sim_cell SOURCES ${here}/test_cell.c ${here}/cell_world.c ${here}/cell_process.c ${here}/cell_api.c ${here}/cell_clients.c
    ${here}/cell_bank.c ${here}/cell_items.c ${here}/cell_lists.c ${here}/cell_faults.c
    DEPS clustermgr_core queryapi_core txlayer_core txlayer_client tablet_core tablet_client blockstore_core blockstore_client consensus chassis
         history_checker base
    PRIVATE_OF chassis LABEL sim TIMEOUT 600)
  target_compile_definitions(sim_cell PRIVATE CELL_JOBS_DIR="${CMAKE_SOURCE_DIR}/jobs")
endif()
