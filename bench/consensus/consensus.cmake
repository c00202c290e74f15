# bench_consensus: commits a second of a group of three processes on one disk, beside a bare fdatasync loop and Debian's etcd.
if(TARGET consensus AND TARGET proto_etcd)
  set(here ${CMAKE_CURRENT_LIST_DIR})
  add_executable(bench_consensus ${here}/bench_consensus.c ${here}/bench_member.c ${here}/bench_etcd.c
    ${CMAKE_SOURCE_DIR}/tests/process/consensus/etcd_cluster.c ${CMAKE_SOURCE_DIR}/tests/support/con_store_memory.c)
  target_include_directories(bench_consensus PRIVATE ${CMAKE_SOURCE_DIR}/tests/process/consensus
    ${CMAKE_SOURCE_DIR}/tests/support ${CMAKE_SOURCE_DIR}/consensus/src)
  target_link_libraries(bench_consensus PRIVATE consensus proto_etcd chassis base)
endif()
