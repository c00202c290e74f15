# failover: how long writes stop when a leading master goes; bench/failover/run starts the masters and breaks them.
if(TARGET blockstore_client AND TARGET proto_strata_consensus AND TARGET proto_strata_clustermgr)
  add_executable(failover ${CMAKE_CURRENT_LIST_DIR}/failover.c ${CMAKE_CURRENT_LIST_DIR}/members.c)
  target_link_libraries(failover PRIVATE blockstore_client chassis base proto_strata_consensus proto_strata_clustermgr)
endif()
