# The tablet layer alone, on the simulated world: doubles of the names service and of blockstore.
if(TARGET tablet_core AND TARGET chassis)
  add_library(tablet_cell STATIC ${CMAKE_CURRENT_LIST_DIR}/cell.c)
  target_include_directories(tablet_cell PUBLIC ${CMAKE_CURRENT_LIST_DIR} PRIVATE ${CMAKE_SOURCE_DIR}/tablet/src)
  target_link_libraries(tablet_cell PUBLIC tablet_core tablet_client chassis names_double)
  add_library(tablet_blk_double STATIC ${CMAKE_CURRENT_LIST_DIR}/blk_double.c
    ${CMAKE_CURRENT_LIST_DIR}/cell_store_double.c)
  target_link_libraries(tablet_blk_double PUBLIC tablet_cell)
  strata_test(test_tablet_cell SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_tablet_cell.c
    DEPS tablet_cell tablet_blk_double LABEL layer)
  strata_test(test_tablet_retire SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_tablet_retire.c
    DEPS tablet_cell tablet_blk_double LABEL layer)
  strata_test(test_tablet_split SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_tablet_split.c
    DEPS tablet_cell tablet_blk_double LABEL layer)
  strata_test(test_tablet_chaos SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_tablet_chaos.c
    DEPS tablet_cell tablet_blk_double LABEL sim TIMEOUT 180)
endif()
