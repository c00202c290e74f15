# The algorithm alone (consensus_raft), driven by hand.
if(TARGET consensus_raft)
  set(raft_hand ${CMAKE_CURRENT_LIST_DIR}/raft_hand.c ${CMAKE_SOURCE_DIR}/tests/support/raft_model.c)
  foreach(name figure8 elect log read quiet member snapshot fuzz)
    strata_test(test_raft_${name} SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_raft_${name}.c ${raft_hand} DEPS consensus_raft base PRIVATE_OF consensus)
  endforeach()
  strata_test(test_raft_docs SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_raft_docs.c DEPS base)
  target_compile_definitions(test_raft_docs PRIVATE SOURCE_DIR="${CMAKE_SOURCE_DIR}")
endif()
