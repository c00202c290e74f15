# Pure parts of queryapi.
if(TARGET queryapi_core)
  foreach(test rows entries plan index_yaml cursor)
    strata_test(test_qry_${test} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_${test}.c DEPS queryapi_core)
  endforeach()
endif()
