/* fault.c: fault points (see fault.h).
 *
 * 1. With none set in an env, asking costs one load and a compare.
 * 2. A point counts every hit while it is set; "fail:3" turns itself off after the third.
 * 3. Chances are drawn from the env's random source: a simulated run replays them from its seed.
 * Actions: off | fail | fail:N | fail@P | delay:MS | crash (each but off also with @P, the
 * probability of a hit taking effect). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "chassis/sim.h"
#include "env_int.h"
#include "fault_int.h"

enum { POINTS_MAX = 256, NAME_MAX_LEN = 63 };

enum effect { OFF, FAIL, DELAY, CRASH };

struct point {
    char name[NAME_MAX_LEN + 1];
    char action[64]; /* as it was set, for showing */
    enum effect effect;
    int64_t left; /* hits that still take effect; -1: all */
    ch_time delay;
    double chance;
    uint64_t hits, taken;
};

struct faults {
    struct point points[POINTS_MAX];
    size_t count;
};

static struct point *point_find(struct faults *faults, const char *name)
{
    for (size_t i = 0; i < faults->count; i++)
        if (strcmp(faults->points[i].name, name) == 0)
            return &faults->points[i];
    return NULL;
}

/* What happens at this hit. */
static enum effect hit(struct ch_env *env, const char *name, ch_time *delay)
{
    struct faults *faults = env->ext[CH_EXT_FAULT];
    struct point *point = point_find(faults, name);
    if (!point || point->effect == OFF)
        return OFF;
    point->hits++;
    if (point->left == 0)
        return OFF;
    if (point->chance < 1 && (double)(ch_random(env) >> 11) * 0x1p-53 >= point->chance)
        return OFF;
    if (point->left > 0)
        point->left--;
    point->taken++;
    *delay = point->delay;
    return point->effect;
}

static void crash(struct ch_env *env, const char *name)
{
    if (env->simulated) {
        ch_sim_crash(ch_sim_node_of(env)); /* the caller gets UNAVAILABLE and unwinds */
        return;
    }
    fprintf(stderr, "fault %s: crash\n", name);
    _exit(70);
}

struct base_status ch_fault(struct ch_env *env, const char *name)
{
    if (__builtin_expect(!env->ext[CH_EXT_FAULT], 1))
        return BASE_STATUS_OK;
    ch_time delay = 0;
    switch (hit(env, name, &delay)) {
    case OFF:
        return BASE_STATUS_OK;
    case DELAY: {
        enum ch_outcome outcome = ch_sleep_until(env, ch_in(env, delay));
        return outcome == CH_TIMEOUT ? BASE_STATUS_OK : ch_outcome_status(outcome, name);
    }
    case CRASH:
        crash(env, name);
        break;
    case FAIL:
        break;
    }
    return base_status_make(BASE_UNAVAILABLE, "fault %s", name);
}

bool ch_fault_hit(struct ch_env *env, const char *name)
{
    if (__builtin_expect(!env->ext[CH_EXT_FAULT], 1))
        return false;
    ch_time delay = 0;
    enum effect effect = hit(env, name, &delay);
    if (effect == CRASH)
        crash(env, name);
    return effect == FAIL || effect == CRASH;
}

static bool number_parse(const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return !errno && end != text && !*end && *value >= 0;
}

/* "fail:3@0.5" into its parts; false when it is none of the actions. */
static bool action_parse(const char *action, struct point *point)
{
    char text[64];
    if ((size_t)snprintf(text, sizeof(text), "%s", action) >= sizeof(text))
        return false;
    point->chance = 1;
    point->left = -1;
    point->delay = 0;
    char *at = strchr(text, '@');
    if (at) {
        char *end;
        *at++ = '\0';
        point->chance = strtod(at, &end);
        if (end == at || *end || !(point->chance >= 0 && point->chance <= 1))
            return false;
    }
    char *colon = strchr(text, ':');
    if (colon)
        *colon++ = '\0';
    int64_t number = 0;
    if (colon && !number_parse(colon, &number))
        return false;
    if (strcmp(text, "off") == 0 && !colon && !at) {
        point->effect = OFF;
    } else if (strcmp(text, "fail") == 0) {
        point->effect = FAIL;
        point->left = colon ? number : -1;
    } else if (strcmp(text, "delay") == 0 && colon && number <= 3600 * 1000) {
        point->effect = DELAY;
        point->delay = number * CH_MS;
    } else if (strcmp(text, "crash") == 0 && !colon) {
        point->effect = CRASH;
    } else {
        return false;
    }
    return true;
}

static void faults_free(void *ext)
{
    free(ext);
}

struct base_status ch_fault_set(struct ch_env *env, const char *name, const char *action)
{
    struct point parsed = { 0 };
    if (!*name || strlen(name) > NAME_MAX_LEN)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "fault name \"%.80s\" is empty or longer than %d", name,
                                NAME_MAX_LEN);
    if (!action_parse(action, &parsed))
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "fault %s: \"%.80s\" is none of off, fail[:N], delay:MS, crash "
                                "(each with @probability)",
                                name, action);
    struct faults *faults = env->ext[CH_EXT_FAULT];
    if (!faults) {
        faults = calloc(1, sizeof(*faults));
        BASE_ASSERT(faults);
        env->ext[CH_EXT_FAULT] = faults;
        env->ext_free[CH_EXT_FAULT] = faults_free;
    }
    struct point *point = point_find(faults, name);
    if (!point && faults->count == POINTS_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "fault %s: %d points are set", name,
                                POINTS_MAX);
    if (!point)
        point = &faults->points[faults->count++];
    parsed.hits = point->hits;
    parsed.taken = point->taken;
    snprintf(parsed.name, sizeof(parsed.name), "%s", name);
    snprintf(parsed.action, sizeof(parsed.action), "%s", action);
    *point = parsed;
    return BASE_STATUS_OK;
}

struct base_status ch__fault_set_all(struct ch_env *env, const char *list)
{
    struct base_status status = BASE_STATUS_OK;
    char *copy = strdup(list), *state = NULL;
    BASE_ASSERT(copy);
    for (char *item = strtok_r(copy, ", ", &state); item && !base_failed(status);
         item = strtok_r(NULL, ", ", &state)) {
        char *equals = strchr(item, '=');
        if (!equals) {
            status =
                base_status_make(BASE_INVALID_ARGUMENT, "fault \"%.80s\" is not name=action", item);
        } else {
            *equals = '\0';
            status = ch_fault_set(env, item, equals + 1);
        }
    }
    free(copy);
    return status;
}

void ch__fault_show(struct ch_env *env, struct base_buf *out)
{
    const struct faults *faults = env->ext[CH_EXT_FAULT];
    for (size_t i = 0; faults && i < faults->count; i++)
        base_buf_printf(out, "%s=%s hits=%llu taken=%llu\n", faults->points[i].name,
                        faults->points[i].action, (unsigned long long)faults->points[i].hits,
                        (unsigned long long)faults->points[i].taken);
}
