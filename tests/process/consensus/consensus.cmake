# Logs that live in an etcd cluster: Debian's etcd-server, three members on loopback.
if(TARGET consensus AND TARGET proto_etcd)
  add_executable(con_etcd_member ${CMAKE_CURRENT_LIST_DIR}/member.c)
  target_link_libraries(con_etcd_member PRIVATE consensus chassis)
  strata_test(process_con_etcd SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_log_etcd.c ${CMAKE_CURRENT_LIST_DIR}/test_log_etcd_kills.c
    ${CMAKE_CURRENT_LIST_DIR}/etcd_world.c ${CMAKE_CURRENT_LIST_DIR}/etcd_cluster.c
    DEPS consensus proto_etcd chassis base PRIVATE_OF consensus LABEL process TIMEOUT 300)
  add_dependencies(process_con_etcd con_etcd_member)
endif()
# A whole cell on one.
if(TARGET clustermaster AND TARGET strata AND TARGET clu_echo)
  add_test(NAME process_cell_on_etcd COMMAND ${STRATA_TEST_PREFIX} ${CMAKE_CURRENT_LIST_DIR}/cell_on_etcd.sh ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
  set_tests_properties(process_cell_on_etcd PROPERTIES LABELS process TIMEOUT 300)
endif()
