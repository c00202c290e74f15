# What a service leans on beside RPC: metrics, logs, traces, configuration, HTTP, faults, naming, processes, its own life.
if(TARGET chassis)
  set(chassis_services ${CMAKE_CURRENT_LIST_DIR})
  strata_test(test_metrics SOURCES ${chassis_services}/test_metrics.c DEPS chassis m PRIVATE_OF chassis)
  strata_test(test_config SOURCES ${chassis_services}/test_config.c DEPS chassis PRIVATE_OF chassis)
  strata_test(test_fault SOURCES ${chassis_services}/test_fault.c DEPS chassis PRIVATE_OF chassis)
  strata_test(test_trace SOURCES ${chassis_services}/test_trace.c DEPS chassis PkgConfig::JANSSON Threads::Threads PRIVATE_OF chassis)
  strata_test(test_http SOURCES ${chassis_services}/test_http.c DEPS chassis PkgConfig::MICROHTTPD ZLIB::ZLIB PRIVATE_OF chassis)
  strata_test(test_process SOURCES ${chassis_services}/test_process.c DEPS chassis PRIVATE_OF chassis)
  strata_test(test_service SOURCES ${chassis_services}/test_service.c DEPS chassis Threads::Threads PRIVATE_OF chassis)
  if(TARGET proto_strata_clustermgr)
    strata_test(test_naming SOURCES ${chassis_services}/test_naming.c ${chassis_services}/fake_names.c
                DEPS chassis proto_strata_clustermgr PRIVATE_OF chassis)
    strata_test(test_leader SOURCES ${chassis_services}/test_leader.c ${chassis_services}/fake_names.c
                DEPS chassis proto_strata_clustermgr PRIVATE_OF chassis)
  endif()
endif()
