# A small replicated service on simulated nodes: the rpc stack, disks and death together.
if(TARGET chassis)
  strata_test(sim_counter SOURCES ${CMAKE_CURRENT_LIST_DIR}/sim_counter.c DEPS chassis proto_echo PRIVATE_OF chassis
              LABEL sim TIMEOUT 300)
endif()
