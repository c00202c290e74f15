# Google's own clients against a real cell. They need node_modules (./dev test installs them).
if(TARGET strata)
  foreach(script datastore_cities bigtable_basic bad_input survival)
    add_test(NAME client_${script} COMMAND ${STRATA_TEST_PREFIX} ${CMAKE_CURRENT_LIST_DIR}/run ${CMAKE_BINARY_DIR} ${script}.js)
    set_tests_properties(client_${script} PROPERTIES LABELS client TIMEOUT 900 RUN_SERIAL TRUE)
  endforeach()
endif()
