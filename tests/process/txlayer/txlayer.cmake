# A bench of this layer alone; run by hand.
if(TARGET txlayer_doubles)
  add_executable(bench_txlayer ${CMAKE_CURRENT_LIST_DIR}/bench_txlayer.c)
  target_include_directories(bench_txlayer PRIVATE ${CMAKE_SOURCE_DIR}/txlayer/src)
  target_link_libraries(bench_txlayer PRIVATE txlayer_doubles)
endif()
