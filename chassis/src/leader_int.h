/* leader_int.h (private to chassis): a group as its callers know it: leader.c (calls, streams),
 * leader_members.c (who they are, whether they live). */
#ifndef CHASSIS_LEADER_INT_H
#define CHASSIS_LEADER_INT_H

#include "chassis/leader.h"

enum {
    CH__LEADER_MEMBERS_MAX = 16,
    CH__LEADER_OWING_MS = 500,        /* a call not answered for so long: does the member live? */
    CH__LEADER_SILENT_MS = 1500,      /* the same of a stream */
    CH__LEADER_PING_SUSPECT_MS = 300, /* how long a member that failed before has to say so */
};

struct ch__member {
    char *name, *address; /* name: as hints call it; of a plain address: that. NULL: a free slot */
    struct ch_client *client; /* NULL: none yet */
    size_t uses;
    bool gone;            /* no longer in the list: nobody asks it any more */
    bool suspect;         /* failed last time */
    ch_time passed_until; /* leader_members.c, invariant 2 */
};

/* Something a member owes an answer to. */
struct ch__owing {
    struct ch__owing *next, **prev;
    size_t member;
    ch_time since, patience;
};

struct ch_leader {
    struct ch_env *env;
    struct ch_naming *naming;
    char *target;
    struct ch__member members[CH__LEADER_MEMBERS_MAX];
    size_t at;       /* whom to ask first */
    size_t refusals; /* since a call last succeeded */
    struct ch__owing *owed;
    struct ch_gate gate;    /* the watchdog, and who follows the names */
    struct ch_gate reapers; /* freeing clients that were replaced */
    struct ch_cond changed; /* members, or nobody is inside any more */
    struct ch_cond watch;   /* the watchdog's */
    ch_time watch_until;    /* when it looks by itself */
    bool watching, closed;
    size_t inside;
};

/* ---- leader_members.c ---- */
bool ch__leader_listed(const struct ch__member *member);
/* NULL when there is no room. */
struct ch__member *ch__leader_member_add(struct ch_leader *leader, const char *name,
                                         const char *address);
/* One of its uses is over. */
void ch__leader_member_release(struct ch__member *member);
void ch__leader_member_clear(struct ch__member *member);
struct ch_client *ch__leader_client(struct ch_leader *leader, struct ch__member *member);
/* After the member `asked` refused or failed: whom to ask now. `status` may have a hint. */
void ch__leader_go_on(struct ch_leader *leader, size_t asked, const struct base_status *status);
/* Whether it says that it lives. */
bool ch__leader_ping(struct ch_leader *leader, struct ch__member *member,
                     int64_t patience_ms) CH_WAITS;
/* From now on the member owes an answer; the watchdog minds it. */
void ch__leader_owe(struct ch_leader *leader, struct ch__owing *owing, size_t member,
                    int64_t patience_ms);
void ch__leader_owe_no_more(struct ch__owing *owing);
/* Makes the members what the names below the target say. */
ch_fiber_fn ch__leader_follow_fiber;

#endif
