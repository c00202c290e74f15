# The transaction layer alone, on doubles of the names service and of the tablet client.
if(TARGET txlayer_core AND TARGET chassis)
  add_library(txlayer_doubles STATIC ${CMAKE_CURRENT_LIST_DIR}/tablet_double.c
    ${CMAKE_CURRENT_LIST_DIR}/tablet_double_store.c ${CMAKE_CURRENT_LIST_DIR}/world.c)
  target_include_directories(txlayer_doubles PUBLIC ${CMAKE_CURRENT_LIST_DIR} ${CMAKE_SOURCE_DIR}/tablet/include
    PRIVATE ${CMAKE_SOURCE_DIR}/txlayer/src)
  target_link_libraries(txlayer_doubles PUBLIC txlayer_core txlayer_client chassis names_double proto_bigtable_v2
    proto_bigtable_admin_v2)
  strata_test(test_txlayer SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_txlayer.c DEPS txlayer_doubles LABEL layer)
  strata_test(test_txlayer_protocol SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_protocol.c DEPS txlayer_doubles LABEL layer
    PRIVATE_OF txlayer)
  target_include_directories(test_txlayer_protocol PRIVATE ${CMAKE_SOURCE_DIR}/tablet/include)
endif()
