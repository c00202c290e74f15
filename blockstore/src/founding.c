/* founding.c: see founding.h. Exactly one member founds a group, once in the group's life, whatever
 * crashes in between.
 *
 * A task's folder has a token (DIR/founder), made at random with it. The task that creates the node
 * in the cell's names, its token the value, founds; the others join. Invariants:
 * 1. The node is created once (expected version 0) and never changed, so one token founds.
 * 2. The token is durable before the node is: a founder that crashed knows itself again.
 * 3. "done" is written behind the token once the group leads or another is found to be the founder:
 *    whoever has lost its log after that joins, as anybody. A lost folder has lost its token
 * too. */
#include "founding.h"

#include <inttypes.h>
#include <stdio.h>

#include "chassis/log.h"

enum { ASK_MS = 2000, PAUSE_MS = 200, TOKEN_LEN = 32 };

struct token {
    char text[TOKEN_LEN + 1];
    bool done;
};

static struct base_status token_write(struct ch_env *env, const char *dir,
                                      const struct token *token) CH_WAITS BASE_MUST_CHECK;
static struct base_status token_write(struct ch_env *env, const char *dir,
                                      const struct token *token)
{
    char path[512], text[TOKEN_LEN + 8];

    snprintf(path, sizeof path, "%s/founder", dir);
    snprintf(text, sizeof text, "%s%s\n", token->text, token->done ? " done" : "");
    return ch_file_write_all(env, path, base_bytes_str(text));
}

/* Makes one when there is none. */
static struct base_status token_get(struct ch_env *env, const char *dir,
                                    struct token *token) CH_WAITS BASE_MUST_CHECK;
static struct base_status token_get(struct ch_env *env, const char *dir, struct token *token)
{
    char path[512];
    struct base_buf known = { 0 };
    struct base_status status;

    *token = (struct token){ .done = false };
    snprintf(path, sizeof path, "%s/founder", dir);
    status = ch_file_read_all(env, path, 256, &known);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
        snprintf(token->text, sizeof token->text, "%016" PRIx64 "%016" PRIx64, ch_random(env),
                 ch_random(env));
        status = token_write(env, dir, token);
    } else if (!base_failed(status)) {
        if (known.len < TOKEN_LEN)
            status = base_status_make(BASE_DATA_LOSS, "%s is not whole", path);
        else
            memcpy(token->text, known.data, TOKEN_LEN);
        token->done = known.len > TOKEN_LEN && known.data[TOKEN_LEN] == ' ';
    }
    base_buf_free(&known);
    return base_status_wrap(status, "who founds the group");
}

/* One look, and maybe one try to be it. NOT_FOUND: look again. */
static struct base_status ask(struct ch_env *env, struct ch_naming *naming,
                              const struct blk__founding *founding, const struct token *token,
                              bool *ours) CH_WAITS BASE_MUST_CHECK;
static struct base_status ask(struct ch_env *env, struct ch_naming *naming,
                              const struct blk__founding *founding, const struct token *token,
                              bool *ours)
{
    struct base_arena arena = { 0 };
    struct ch_name_entry entry;
    struct base_status status =
        ch_name_get(naming, founding->node, ch_in(env, ASK_MS * CH_MS), &arena, &entry);

    if (!base_failed(status)) {
        *ours =
            entry.value.len >= TOKEN_LEN && memcmp(entry.value.data, token->text, TOKEN_LEN) == 0;
    } else if (status.code == BASE_NOT_FOUND) {
        char value[256];

        snprintf(value, sizeof value, "%s %s", token->text, founding->task);
        base_status_free(&status);
        /* Whatever comes of it, the next look tells. */
        base_status_drop(ch_name_set(naming, founding->node, base_bytes_str(value), 0, false,
                                     ch_in(env, ASK_MS * CH_MS), NULL));
        status = base_status_make(BASE_NOT_FOUND, "%s is not seen yet", founding->node);
    }
    base_arena_free(&arena);
    return status;
}

struct base_status blk__founding_decide(struct ch_env *env, struct ch_naming *naming,
                                        const struct blk__founding *founding, bool *found)
{
    struct token token;
    struct base_status status = token_get(env, founding->dir, &token);

    *found = false;
    if (base_failed(status) || token.done)
        return status;
    for (;;) {
        enum base_code code;

        status = ask(env, naming, founding, &token, found);
        if (!base_failed(status))
            break;
        code = status.code;
        if (code != BASE_NOT_FOUND)
            ch_info(env, "who founds the group: %s", base_status_text(&status));
        base_status_free(&status);
        if (ch_cancelled() || (code != BASE_NOT_FOUND &&
                               ch_sleep_until(env, ch_in(env, PAUSE_MS * CH_MS)) != CH_TIMEOUT))
            return base_status_make(BASE_CANCELLED, "who founds the group: cancelled");
    }
    return *found ? status : blk__founding_done(env, founding->dir);
}

struct base_status blk__founding_done(struct ch_env *env, const char *dir)
{
    struct token token;
    struct base_status status = token_get(env, dir, &token);

    if (base_failed(status) || token.done)
        return status;
    token.done = true;
    return token_write(env, dir, &token);
}
