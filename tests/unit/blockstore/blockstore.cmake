# The blockstore's pure parts.
if(TARGET blockstore_core)
  foreach(name sums placement recovery journal_format state repair)
    strata_test(unit_blockstore_${name} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_${name}.c
      DEPS blockstore_core blockstore_client chassis PRIVATE_OF blockstore LABEL unit)
  endforeach()
endif()
