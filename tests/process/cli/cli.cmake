if(TARGET strata AND TARGET clustermaster)
  add_test(NAME process_cli_usage COMMAND ${STRATA_TEST_PREFIX} ${CMAKE_CURRENT_LIST_DIR}/usage.sh $<TARGET_FILE:strata>)
  set_tests_properties(process_cli_usage PROPERTIES LABELS process TIMEOUT 120)
endif()
