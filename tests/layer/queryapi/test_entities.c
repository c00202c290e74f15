/* Entities through google.datastore.v1, over the txlayer's double: what is written is found as it
 * was; what must be refused is, with the documented code, and leaves nothing behind. */
#include "bed.h"

#define KEY(kind, name) "{'path':[{'kind':'" kind "','name':'" name "'}]}"
#define ENTITY(name, properties) "{'key':" KEY("T", name) ",'properties':{" properties "}}"

static qry_lookup_reply *look_up(struct bed *t, const char *name) CH_WAITS;
static qry_lookup_reply *look_up(struct bed *t, const char *name)
{
    return bed_call(t, LOOKUP, "{'keys':[{'path':[{'kind':'T','name':'%s'}]}]}", name);
}

/* An upsert is found as it was, with one version for its row and times; a second one keeps the
 * time of creation. Two requests of the txlayer each write, one each lookup: that is the budget
 * everything is measured by. */
BED_TEST(upsert_and_lookup)
{
    bed_call(t, COMMIT,
             "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                 "zero", "") "}]}"); /* fills the cache */
    uint64_t gets = t->store.gets, scans = t->store.scans, commits = t->store.commits_done;
    qry_commit_reply *reply =
        bed_call(t, COMMIT,
                 "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                     "a", "'n':{'integerValue':'7'},'s':{'stringValue':'x'}") "}]}");
    cr_assert_eq(t->store.gets - gets, 1u);
    cr_assert_eq(t->store.scans - scans, 0u);
    cr_assert_eq(t->store.commits_done - commits, 1u);
    cr_assert_eq(reply->n_mutation_results, 1u);
    cr_assert(reply->commit_time == NULL);
    cr_assert(reply->mutation_results[0]->key == NULL);
    cr_assert_eq(reply->index_updates, 3);
    int64_t version = reply->mutation_results[0]->version;
    gets = t->store.gets;
    qry_lookup_reply *found = look_up(t, "a");
    cr_assert_eq(t->store.gets - gets, 1u);
    cr_assert_eq(found->n_found, 1u);
    cr_assert_eq(found->found[0]->version, version);
    cr_assert_eq(found->found[0]->entity->n_properties, 2u);
    cr_assert(base_bytes_eq_str(ch_bytes_of(found->found[0]->entity->key->partition_id->project_id),
                                "p"));
    int64_t created = qry_time_us(found->found[0]->create_time);
    cr_assert_eq(created, version);
    reply = bed_call(t, COMMIT,
                     "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                         "a", "'n':{'integerValue':'8'}") "}]}");
    cr_assert_eq(reply->index_updates, 3, "n goes and comes, s goes");
    found = look_up(t, "a");
    cr_assert_gt(found->found[0]->version, version);
    cr_assert_eq(qry_time_us(found->found[0]->create_time), created);
    version = found->found[0]->version;
    reply = bed_call(t, COMMIT,
                     "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                         "a", "'n':{'integerValue':'8'}") "}]}");
    cr_assert_eq(reply->mutation_results[0]->version, version,
                 "what changes nothing keeps its version");
    found = bed_call(t, LOOKUP, "{'keys':[" KEY("T", "a") "," KEY("T", "b") "," KEY("T", "a") "]}");
    cr_assert(found->n_found == 1 && found->n_missing == 1, "a key named twice is answered once");
    found = look_up(t, "none");
    cr_assert_eq(found->n_missing, 1u);
    cr_assert_gt(found->missing[0]->version, 0);
}

/* Insert, update and delete say no as documented, and a commit that is refused has written nothing
 * of itself. */
BED_TEST(existence)
{
    bed_fails(t, COMMIT, BASE_NOT_FOUND, "no entity to update",
              "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                  "b", "") "},{'update':" ENTITY("a", "") "}]}");
    cr_assert_eq(look_up(t, "b")->n_missing, 1u);
    bed_call(t, COMMIT,
             "{'mode':'NON_TRANSACTIONAL','mutations':[{'insert':" ENTITY(
                 "a", "'x':{'nullValue':null}") "}]}");
    bed_fails(t, COMMIT, BASE_ALREADY_EXISTS, "exists",
              "{'mode':'NON_TRANSACTIONAL','mutations':[{'insert':" ENTITY("a", "") "}]}");
    bed_call(t, COMMIT, "{'mode':'NON_TRANSACTIONAL','mutations':[{'delete':" KEY("T", "a") "}]}");
    cr_assert_eq(look_up(t, "a")->n_missing, 1u);
    cr_assert_eq(double_count(&t->store, "p/", BASE_BYTES_EMPTY), 0u,
                 "a delete takes every index row along");
    bed_call(t, COMMIT, "{'mode':'NON_TRANSACTIONAL','mutations':[{'delete':" KEY("T", "a") "}]}");
}

/* Keys without an id get one, that nobody has; AllocateIds answers in order. */
BED_TEST(ids)
{
    qry_commit_reply *reply =
        bed_call(t, COMMIT,
                 "{'mode':'NON_TRANSACTIONAL','mutations':[{'insert':{'key':{'path':[{'kind':'T'}]}"
                 "}},{'insert':{'key':{'path':[{'kind':'T'}]}}}]}");
    int64_t a = reply->mutation_results[0]->key->path[0]->id,
            b = reply->mutation_results[1]->key->path[0]->id;
    cr_assert(a > 1LL << 40 && a < 1LL << 53 && a != b);
    qry_lookup_reply *found =
        bed_call(t, LOOKUP, "{'keys':[{'path':[{'kind':'T','id':'%lld'}]}]}", (long long)a);
    cr_assert_eq(found->n_found, 1u);
    Google__Datastore__V1__AllocateIdsResponse *ids =
        bed_call(t, ALLOCATE, "{'keys':[{'path':[{'kind':'A'}]},{'path':[{'kind':'B'}]}]}");
    cr_assert_eq(ids->n_keys, 2u);
    cr_assert(base_bytes_eq_str(ch_bytes_of(ids->keys[1]->path[0]->kind), "B"));
    bed_fails(t, ALLOCATE, BASE_INVALID_ARGUMENT, "incomplete", "{'keys':[" KEY("T", "x") "]}");
    bed_call(t, RESERVE, "{'keys':[{'path':[{'kind':'T','id':'5'}]}]}");
}

/* The order of mutations of one entity within a commit is the protocol's. */
BED_TEST(mutation_order)
{
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT,
              "Cannot insert then insert an entity in the same request.",
              "{'singleUseTransaction':{},'mutations':[{'insert':" ENTITY(
                  "a", "") "},{'insert':" ENTITY("a", "") "}]}");
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT,
              "Cannot delete then update an entity in the same request.",
              "{'singleUseTransaction':{},'mutations':[{'delete':" KEY(
                  "T", "a") "},{'update':" ENTITY("a", "") "}]}");
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT, "multiple mutations affecting the same entity",
              "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                  "a", "") "},{'delete':" KEY("T", "a") "}]}");
    qry_commit_reply *reply = bed_call(
        t, COMMIT,
        "{'singleUseTransaction':{},'mutations':[{'insert':" ENTITY(
            "a",
            "'v':{'integerValue':'1'}") "},{'update':" ENTITY("a",
                                                              "'v':{'integerValue':'2'}") "}]}");
    cr_assert(reply->commit_time != NULL);
    cr_assert_eq(look_up(t, "a")->found[0]->entity->properties[0]->value->integer_value, 2);
    bed_call(t, COMMIT,
             "{'singleUseTransaction':{},'mutations':[{'delete':" KEY(
                 "T", "a") "},{'insert':" ENTITY("a", "'v':{'integerValue':'3'}") "}]}");
    cr_assert_eq(look_up(t, "a")->found[0]->entity->properties[0]->value->integer_value, 3);
    bed_call(t, COMMIT,
             "{'singleUseTransaction':{},'mutations':[{'insert':" ENTITY(
                 "b", "'v':{'integerValue':'3'}") "},{'delete':" KEY("T", "b") "}]}");
    cr_assert_eq(look_up(t, "b")->n_missing, 1u);
}

/* Conflict detection: the server's value stays and the result says so; or the commit fails, when
 * it asks for that. */
BED_TEST(conflicts)
{
    qry_commit_reply *reply = bed_call(t, COMMIT,
                                       "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                                           "a", "'v':{'integerValue':'1'}") "}]}");
    long long version = (long long)reply->mutation_results[0]->version;
    reply =
        bed_call(t, COMMIT,
                 "{'mode':'NON_TRANSACTIONAL','mutations':[{'baseVersion':'%lld','upsert':" ENTITY(
                     "a", "'v':{'integerValue':'2'}") "}]}",
                 version - 1);
    cr_assert(reply->mutation_results[0]->conflict_detected);
    cr_assert_eq(reply->mutation_results[0]->version, version);
    cr_assert_eq(look_up(t, "a")->found[0]->entity->properties[0]->value->integer_value, 1);
    bed_fails(t, COMMIT, BASE_FAILED_PRECONDITION, "does not match the required base version",
              "{'mode':'NON_TRANSACTIONAL','mutations':[{'baseVersion':'%lld','"
              "conflictResolutionStrategy':'FAIL','upsert':" ENTITY("a", "") "}]}",
              version + 1);
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT, "conflict_resolution_strategy",
              "{'mode':'NON_TRANSACTIONAL','mutations':[{'conflictResolutionStrategy':'FAIL','"
              "upsert':" ENTITY("a", "") "}]}");
    reply =
        bed_call(t, COMMIT,
                 "{'mode':'NON_TRANSACTIONAL','mutations':[{'baseVersion':'%lld','upsert':" ENTITY(
                     "a", "'v':{'integerValue':'2'}") "}]}",
                 version);
    cr_assert(!reply->mutation_results[0]->conflict_detected);
    cr_assert_eq(look_up(t, "a")->found[0]->entity->properties[0]->value->integer_value, 2);
}

/* A mask writes what it names and removes what it names and the entity lacks; transforms come
 * after, in order. */
BED_TEST(masks_and_transforms)
{
    bed_call(
        t, COMMIT,
        "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
            "a",
            "'x':{'integerValue':'1'},'y':{'integerValue':'1'},'z':{'integerValue':'1'}") "}]}");
    bed_call(t, COMMIT,
             "{'mode':'NON_TRANSACTIONAL','mutations':[{'propertyMask':{'paths':['x','y']},'upsert'"
             ":" ENTITY("a", "'x':{'integerValue':'2'},'z':{'integerValue':'2'}") "}]}");
    qry_entity *entity = look_up(t, "a")->found[0]->entity;
    cr_assert_eq(entity->n_properties, 2u);
    const char *json = bed_json(t, entity);
    cr_assert(strstr(json, "\"x\":{\"integerValue\":\"2\"") &&
                  strstr(json, "\"z\":{\"integerValue\":\"1\""),
              "%s", json);
    qry_commit_reply *reply = bed_call(
        t, COMMIT,
        "{'mode':'NON_TRANSACTIONAL','mutations':[{'propertyMask':{'paths':[]},'upsert':" ENTITY(
            "a", "") ",'propertyTransforms':["
                     "{'property':'x','increment':{'integerValue':'9223372036854775807'}},{'"
                     "property':'y','maximum':{'doubleValue':1.5}},"
                     "{'property':'l','appendMissingElements':{'values':[{'integerValue':'1'},{'"
                     "integerValue':'1'},{'integerValue':'2'}]}},"
                     "{'property':'l','removeAllFromArray':{'values':[{'integerValue':'1'}]}},{'"
                     "property':'now','setToServerValue':'REQUEST_TIME'}]}]}");
    cr_assert_eq(reply->mutation_results[0]->n_transform_results, 5u);
    cr_assert_eq(reply->mutation_results[0]->transform_results[0]->integer_value, INT64_MAX);
    json = bed_json(t, look_up(t, "a")->found[0]->entity);
    cr_assert(strstr(json, "9223372036854775807") && strstr(json, "\"y\":{\"doubleValue\":1.5}") &&
                  strstr(json, "\"now\":{\"timestampValue\"") &&
                  strstr(json, "\"l\":{\"arrayValue\":{\"values\":[{\"integerValue\":\"2\"}]}}"),
              "%s", json);
    qry_lookup_reply *masked =
        bed_call(t, LOOKUP, "{'propertyMask':{'paths':['y']},'keys':[" KEY("T", "a") "]}");
    cr_assert_eq(masked->found[0]->entity->n_properties, 1u);
}

/* Every malformed request is INVALID_ARGUMENT, with a text that names the culprit; the server
 * lives on. */
BED_TEST(refusals)
{
    static const struct {
        int method;
        const char *text, *json;
    } cases[] = {
        { LOOKUP, "at least one key", "{}" },
        { LOOKUP, "invalid database id", "{'databaseId':'(default)','keys':[" KEY("T", "a") "]}" },
        { LOOKUP, "in project id", "{'projectId':'a b','keys':[" KEY("T", "a") "]}" },
        { LOOKUP, "must not be incomplete: [T: ]", "{'keys':[{'path':[{'kind':'T'}]}]}" },
        { LOOKUP, "Must not be zero", "{'keys':[{'path':[{'kind':'T','id':'0'}]}]}" },
        { LOOKUP, "The kind \"__x__\" is reserved.",
          "{'keys':[{'path':[{'kind':'__x__','id':'1'}]}]}" },
        { LOOKUP, "The key path element name \"__n__\" is reserved.",
          "{'keys':[" KEY("T", "__n__") "]}" },
        { LOOKUP, "The key path is empty", "{'keys':[{}]}" },
        { LOOKUP, "Illegal string \"a b\" in namespace id.",
          "{'keys':[{'partitionId':{'namespaceId':'a b'},'path':[{'kind':'T','id':'1'}]}]}" },
        { LOOKUP, "mismatched projects",
          "{'keys':[{'partitionId':{'projectId':'q'},'path':[{'kind':'T','id':'1'}]}]}" },
        { LOOKUP, "ReadConsistency must be specified.",
          "{'readOptions':{'readConsistency':'READ_CONSISTENCY_UNSPECIFIED'},'keys':[" KEY(
              "T", "a") "]}" },
        { LOOKUP, "future",
          "{'readOptions':{'readTime':'2900-01-01T00:00:00Z'},'keys':[" KEY("T", "a") "]}" },
        { LOOKUP, "Invalid transaction.",
          "{'readOptions':{'transaction':'AAAA'},'keys':[" KEY("T", "a") "]}" },
        { COMMIT, "needs a transaction", "{'mutations':[]}" },
        { COMMIT, "no operation", "{'mode':'NON_TRANSACTIONAL','mutations':[{}]}" },
        { COMMIT, "The entity has no key.",
          "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':{}}]}" },
        { COMMIT, "cannot name a transaction",
          "{'mode':'NON_TRANSACTIONAL','transaction':'AAAA'}" },
        { COMMIT, "does not contain a value",
          "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY("a", "'a':{}") "}]}" },
        { COMMIT, "The property.name \"__q__\" is reserved.",
          "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
              "a", "'__q__':{'nullValue':null}") "}]}" },
        { COMMIT, "another list_value",
          "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
              "a", "'a':{'arrayValue':{'values':[{'arrayValue':{}}]}}") "}]}" },
        { COMMIT, "exclude_from_indexes",
          "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
              "a", "'a':{'excludeFromIndexes':true,'arrayValue':{}}") "}]}" },
        { COMMIT, "geo point",
          "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
              "a", "'a':{'geoPointValue':{'latitude':91}}") "}]}" },
        { COMMIT, "must not be incomplete",
          "{'mode':'NON_TRANSACTIONAL','mutations':[{'update':{'key':{'path':[{'kind':'T'}]}}}]}" },
        { COMMIT, "read-only",
          "{'singleUseTransaction':{'readOnly':{}},'mutations':[{'upsert':" ENTITY("a", "") "}]}" },
        { RUN_QUERY, "multiple kinds", "{'query':{'kind':[{'name':'a'},{'name':'b'}]}}" },
        { RUN_QUERY, "Limit must be non-negative.", "{'query':{'limit':-1}}" },
        { RUN_QUERY, "kind is required for filter",
          "{'query':{'filter':{'propertyFilter':{'property':{'name':'a'},'op':'EQUAL','value':{'"
          "integerValue':'1'}}}}}" },
        { RUN_QUERY, "kind is required for all orders except __key__ ascending",
          "{'query':{'order':[{'property':{'name':'a'}}]}}" },
        { RUN_QUERY, "An entity value is not allowed",
          "{'query':{'kind':[{'name':'a'}],'filter':{'propertyFilter':{'property':{'name':'a'},'op'"
          ":'EQUAL','value':{'entityValue':{}}}}}}" },
        { RUN_QUERY, "A list value is not allowed",
          "{'query':{'kind':[{'name':'a'}],'filter':{'propertyFilter':{'property':{'name':'a'},'op'"
          ":'EQUAL','value':{'arrayValue':{}}}}}}" },
        { RUN_QUERY, "Error parsing cursor", "{'query':{'startCursor':'AAAA'}}" },
        { AGGREGATE, "Received: 6",
          "{'aggregationQuery':{'nestedQuery':{},'aggregations':[{'count':{}},{'count':{}},{'count'"
          ":{}},{'count':{}},{'count':{}},{'count':{}}]}}" },
        { AGGREGATE, "not supported for the property: __key__",
          "{'aggregationQuery':{'nestedQuery':{},'aggregations':[{'sum':{'property':{'name':'__key_"
          "_'}}}]}}" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        bed_fails(t, cases[i].method, BASE_INVALID_ARGUMENT, cases[i].text, "%s", cases[i].json);
    char *big = base_arena_alloc(&t->arena, 1502);
    memset(big, 'x', 1501);
    big[1501] = 0;
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT,
              "The value of property \"s\" is longer than 1500 bytes.",
              "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                  "a", "'s':{'stringValue':'%s'}") "}]}",
              big);
    bed_call(t, COMMIT,
             "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
                 "a", "'s':{'excludeFromIndexes':true,'stringValue':'%s'}") "}]}",
             big);
    bed_fails(t, RUN_QUERY, BASE_UNIMPLEMENTED, "OR",
              "{'query':{'kind':[{'name':'a'}],'filter':{'compositeFilter':{'op':'OR','filters':[{'"
              "propertyFilter':{'property':{'name':'a'},'op':'EQUAL','value':{'integerValue':'1'}}}"
              ",{'propertyFilter':{'property':{'name':'a'},'op':'EQUAL','value':{'integerValue':'2'"
              "}}}]}}}}");
    bed_fails(t, RUN_QUERY, BASE_UNIMPLEMENTED, "GQL", "{'gqlQuery':{}}");
}

/* An entity with more combinations of values than index entries are allowed is refused before
 * anything is written. */
BED_TEST(exploding_index)
{
    bed_call(t, LOAD_INDEXES,
             "{'yaml':'"
             "aW5kZXhlczoKLSBraW5kOiBUCiAgcHJvcGVydGllczoKICAtIG5hbWU6IGEKICAtIG5hbWU6IGIK'}");
    struct base_buf list = { 0 };
    for (int i = 0; i < 150; i++)
        base_buf_printf(&list, "%s{'integerValue':'%d'}", i ? "," : "", i);
    base_buf_put_u8(&list, 0);
    bed_fails(
        t, COMMIT, BASE_INVALID_ARGUMENT, "more than 20000 index entries",
        "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':" ENTITY(
            "a", "'a':{'arrayValue':{'values':[%s]}},'b':{'arrayValue':{'values':[%s]}}") "}]}",
        (char *)list.data, (char *)list.data);
    base_buf_free(&list);
    cr_assert_eq(double_count(&t->store, "p/", BASE_BYTES_LIT("E")), 0u);
}
