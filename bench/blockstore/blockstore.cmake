# bench_blockstore: durable appends, three replicas, beside a bare fdatasync loop on the same disk in the same run.
if(TARGET blockstore_client AND TARGET blockserver)
  add_executable(bench_blockstore ${CMAKE_CURRENT_LIST_DIR}/bench_blockstore.c)
  target_link_libraries(bench_blockstore PRIVATE blockstore_client chassis)
  add_dependencies(bench_blockstore blockmaster blockserver)
endif()
