if(TARGET consensus)
  strata_test(test_con_segment SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_segment.c DEPS consensus base PRIVATE_OF consensus)
  strata_test(test_con_segment_index SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_segment_index.c DEPS consensus base PRIVATE_OF consensus)
endif()
