if(TARGET base)
  strata_test(test_base SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_status.c ${CMAKE_CURRENT_LIST_DIR}/test_arena.c
              ${CMAKE_CURRENT_LIST_DIR}/test_codec.c DEPS base)
endif()
