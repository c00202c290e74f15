/* master_admin.h: shared by the admin handlers. Nothing here waits. */
#ifndef TAB_MASTER_ADMIN_H
#define TAB_MASTER_ADMIN_H

#include "google/bigtable/admin/v2/bigtable_instance_admin.pb-c.h"
#include "google/bigtable/admin/v2/bigtable_table_admin.pb-c.h"
#include "google/longrunning/operations.pb-c.h"
#include "master.h"

enum {
    TAB_TABLE_ID_MAX = 50,
    TAB_FAMILY_ID_MAX = 64,
    TAB_FAMILIES_MAX = 1000,
    TAB_GC_RULE_MAX = 500,
    TAB_SPLIT_KEY_MAX = 4096,
    TAB_ADMIN_TIMEOUT_S = 60
};

ch_time tab_admin_deadline(struct tab_master *master, const struct ch_call *call);
/* [_a-zA-Z0-9][-_.a-zA-Z0-9]*, at most `max` bytes. */
struct base_status tab_check_id(const char *field, struct base_bytes id,
                                size_t max) BASE_MUST_CHECK;
/* projects/P/instances/I */
struct base_status tab_check_parent(struct base_bytes parent) BASE_MUST_CHECK;

/* Families: checked, changed in place; table->families has room for one more or is made anew in
 * `arena`. */
struct base_status tab_add_family(Strata__Tablet__V1__TableMeta *table, struct base_bytes name,
                                  Google__Bigtable__Admin__V2__ColumnFamily *family,
                                  struct base_arena *arena) BASE_MUST_CHECK;
struct base_status tab_modify_family(
    Strata__Tablet__V1__TableMeta *table,
    const Google__Bigtable__Admin__V2__ModifyColumnFamiliesRequest__Modification *change,
    struct base_arena *arena) BASE_MUST_CHECK;
Google__Bigtable__Admin__V2__Table *tab_table_reply(const Strata__Tablet__V1__TableMeta *table,
                                                    int view, struct base_arena *arena);

#endif
