/* ds.h: short names for the messages of google.datastore.v1 that this layer works on, and its
 * limits (the public ones). */
#ifndef QUERYAPI_DS_H
#define QUERYAPI_DS_H

#include "chassis/proto.h"
#include "google/datastore/v1/datastore.pb-c.h"
#include "google/datastore/v1/datastore.strata.h"

typedef Google__Datastore__V1__PartitionId qry_partition;
typedef Google__Datastore__V1__Key qry_key;
typedef Google__Datastore__V1__Key__PathElement qry_path_element;
typedef Google__Datastore__V1__Value qry_value;
typedef Google__Datastore__V1__Entity qry_entity;
typedef Google__Datastore__V1__Entity__PropertiesEntry qry_property;
typedef Google__Datastore__V1__EntityResult qry_result;
typedef Google__Datastore__V1__PropertyMask qry_mask;
typedef Google__Datastore__V1__Mutation qry_mutation;
typedef Google__Datastore__V1__MutationResult qry_mutation_result;
typedef Google__Datastore__V1__PropertyTransform qry_transform;
typedef Google__Datastore__V1__ReadOptions qry_read_options;
typedef Google__Datastore__V1__TransactionOptions qry_transaction_options;
typedef Google__Datastore__V1__Filter qry_filter;
typedef Google__Datastore__V1__Query qry_query_proto;
typedef Google__Datastore__V1__QueryResultBatch qry_batch;
typedef Google__Protobuf__Timestamp qry_time;

#define ELEMENT(id_or_name) GOOGLE__DATASTORE__V1__KEY__PATH_ELEMENT__ID_TYPE_##id_or_name
#define VALUE(type) GOOGLE__DATASTORE__V1__VALUE__VALUE_TYPE_##type
#define MUTATION(op) GOOGLE__DATASTORE__V1__MUTATION__OPERATION_##op
#define FILTER_OP(op) GOOGLE__DATASTORE__V1__PROPERTY_FILTER__OPERATOR__##op

enum {
    QRY_PATH_ELEMENTS_MAX = 100,
    QRY_NAME_MAX = 1500,         /* bytes of a kind, a name, a property name */
    QRY_INDEXED_MAX = 1500,      /* bytes of an indexed string or blob */
    QRY_UNINDEXED_MAX = 1048487, /* bytes of any other */
    QRY_ENTITY_MAX = 1048572,    /* bytes of an entity */
    QRY_KEY_MAX = 6 << 10,       /* bytes of a key */
    QRY_NESTING_MAX = 20,        /* entities in entities */
    QRY_ENTRIES_MAX = 20000,     /* index entries an entity */
    QRY_LOOKUP_KEYS_MAX = 1000,
    QRY_ALLOCATE_KEYS_MAX = 10000,
    QRY_TRANSFORMS_MAX = 500, /* an entity */
    QRY_INDEX_PROPERTIES_MAX = 100,
    QRY_INDEXES_MAX = 500, /* composite indexes a database */
    QRY_COMMIT_MUTATIONS_MAX = 20000,
};

#endif
