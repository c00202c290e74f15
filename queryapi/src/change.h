/* change.h: what a commit does to its entities: mutations, in order, applied to what is stored.
 * Pure functions over values.
 *
 * A change is one entity of a commit with all its mutations. First the mutations are laid out
 * (checked, keys completed, those of one entity joined); then, for each try of the commit, old
 * entities are given and the mutations applied. Applying never alters the request, so it can be
 * done again. */
#ifndef QUERYAPI_CHANGE_H
#define QUERYAPI_CHANGE_H

#include "check.h"
#include "stored.h"

struct qry_change {
    struct txn_key row;
    qry_key *key;
    struct qry_stored old;
    qry_entity *old_entity; /* decoded when old.found */
    qry_entity *entity;     /* after the mutations so far; NULL: there is none */
    uint64_t created;       /* 0: by this commit */
    bool written;           /* a mutation took effect */
    bool allocated;         /* the key's id was given here */
    int last_op;            /* of the mutations laid out so far */
    /* The outcome, for results: */
    bool changed; /* the row is rewritten */
};
struct qry_changes {
    struct qry_change *items;
    size_t count;
    size_t *of_mutation;      /* index of the change of each mutation */
    bool *conflicts;          /* of each mutation */
    qry_value ***transformed; /* of each mutation: one value a transform */
};

/* Lays out. `transactional`: several mutations of one entity are allowed where the protocol does.
 */
struct base_status qry_changes_lay_out(const struct qry_scope *scope, qry_mutation **mutations,
                                       size_t count, bool transactional, struct ch_env *env,
                                       struct base_arena *arena,
                                       struct qry_changes *changes) BASE_MUST_CHECK;
/* Applies all mutations; each change's old, old_entity are set. NOT_FOUND, ALREADY_EXISTS,
 * FAILED_PRECONDITION name the key. */
struct base_status qry_changes_apply(const struct qry_scope *scope, struct qry_changes *changes,
                                     qry_mutation **mutations, size_t count, uint64_t now_us,
                                     struct base_arena *arena) BASE_MUST_CHECK;

#endif
