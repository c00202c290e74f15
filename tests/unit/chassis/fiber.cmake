if(TARGET chassis)
  strata_test(test_fiber SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_fiber.c ${CMAKE_CURRENT_LIST_DIR}/test_sync.c
              DEPS chassis PRIVATE_OF chassis)
  strata_test(test_env SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_env.c DEPS chassis Threads::Threads PRIVATE_OF chassis)
endif()
