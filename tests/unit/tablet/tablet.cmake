if(TARGET tablet_core)
  foreach(name key compaction filter chunk rowset log_format)
    strata_test(test_tablet_${name} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_${name}.c DEPS tablet_core tablet_client chassis
      PRIVATE_OF tablet)
  endforeach()
  strata_test(test_tablet_rowread SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_rowread.c ${CMAKE_CURRENT_LIST_DIR}/model.c
    DEPS tablet_core tablet_client chassis PRIVATE_OF tablet)
endif()
