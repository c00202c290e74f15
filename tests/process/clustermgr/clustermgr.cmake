if(TARGET clustermgr_core)
  add_executable(clu_echo ${CMAKE_CURRENT_LIST_DIR}/echo_service.c)
  target_link_libraries(clu_echo PRIVATE chassis)
endif()
