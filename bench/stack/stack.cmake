if(TARGET chassis AND TARGET proto_datastore_v1)
  add_executable(bench_stack ${CMAKE_CURRENT_LIST_DIR}/bench_stack.c)
  target_link_libraries(bench_stack PRIVATE chassis proto_datastore_v1)
endif()
