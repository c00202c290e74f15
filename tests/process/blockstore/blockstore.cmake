# Real blockmaster and blockserver processes on loopback.
if(TARGET blockserver AND TARGET blockmaster)
  strata_test(process_blockstore SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_blockstore_process.c
    DEPS blockstore_client proto_strata_consensus chassis LABEL process TIMEOUT 180)
  add_dependencies(process_blockstore blockmaster blockserver)
endif()
