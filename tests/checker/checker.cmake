# The checker of histories: a library for tests, a program for files, and its own tests.
if(TARGET base)
  add_library(history_checker STATIC ${CMAKE_CURRENT_LIST_DIR}/checker.c ${CMAKE_CURRENT_LIST_DIR}/graph.c
    ${CMAKE_CURRENT_LIST_DIR}/replay.c ${CMAKE_CURRENT_LIST_DIR}/jsonl.c ${CMAKE_CURRENT_LIST_DIR}/registers.c)
  target_include_directories(history_checker PUBLIC ${CMAKE_CURRENT_LIST_DIR})
  target_link_libraries(history_checker PUBLIC base PRIVATE PkgConfig::JANSSON)
  add_executable(check_history ${CMAKE_CURRENT_LIST_DIR}/main.c)
  target_link_libraries(check_history PRIVATE history_checker)
  strata_test(test_checker SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_checker.c DEPS history_checker)
endif()
