# Doubles that tests of several layers stand on.
if(TARGET chassis AND TARGET proto_strata_clustermgr)
  add_library(names_double STATIC ${CMAKE_CURRENT_LIST_DIR}/names_double.c)
  target_include_directories(names_double PUBLIC ${CMAKE_CURRENT_LIST_DIR})
  target_link_libraries(names_double PUBLIC chassis proto_strata_clustermgr)
endif()
