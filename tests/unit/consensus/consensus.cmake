if(TARGET consensus)
  strata_test(test_con_batch SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_batch.c DEPS consensus base PRIVATE_OF consensus)
endif()
