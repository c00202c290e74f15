# bench_rpc: what a unary call of chassis costs beside bare gRPC C core and a bare TCP ping-pong, in one run.
if(TARGET chassis AND TARGET proto_echo)
  set(here ${CMAKE_CURRENT_LIST_DIR})
  add_executable(bench_rpc ${here}/bench_rpc.c ${here}/bench_floor.c ${here}/bench_bare.c ${here}/bench_chassis.c)
  target_link_libraries(bench_rpc PRIVATE chassis proto_echo PkgConfig::GRPC)
endif()
