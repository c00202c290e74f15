# The pure parts of the transaction layer against naive models.
if(TARGET txlayer_pure)
  foreach(test conflict rows entry oracle ids)
    strata_test(test_txn_${test} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_${test}.c DEPS txlayer_pure PRIVATE_OF txlayer)
  endforeach()
endif()
