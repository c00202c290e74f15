/* raft_log.c: the log as the algorithm sees it: terms of all entries since the last compaction (as
 * runs: few), the configurations among them, and the tail's data.
 *
 * Memory always holds what is not yet durable or not yet applied; beyond that it is a cache for
 * followers that lag a little. */
#include <stdlib.h>

#include "raft_int.h"

static void *grown(void *at, size_t *cap, size_t wanted, size_t size)
{
    size_t next = *cap ? *cap : 4;

    if (wanted <= *cap)
        return at;
    while (next < wanted)
        next *= 2;
    at = realloc(at, next * size);
    if (!at)
        abort();
    *cap = next;
    return at;
}

static void slot_free(struct con__log *log, struct con_entry *slot)
{
    log->memory_bytes -= slot->data.len;
    free((void *)slot->data.data);
}

static void config_push(struct con__log *log, const struct con_config *config)
{
    log->configs =
        grown(log->configs, &log->config_cap, log->config_count + 1, sizeof(*log->configs));
    log->configs[log->config_count++] = *config;
}

void con__log_init(struct con__log *log, uint64_t index, uint64_t term,
                   const struct con_config *config)
{
    memset(log, 0, sizeof(*log));
    log->offset = log->last = log->written = log->flight = log->durable = index;
    log->offset_term = term;
    log->memory_first = index + 1;
    config_push(log, config);
}

void con__log_free(struct con__log *log)
{
    for (uint64_t i = log->memory_first; i <= log->last; i++)
        slot_free(log, con__log_entry(log, i));
    free(log->slots);
    free(log->runs);
    free(log->configs);
}

/* The number of runs that begin at or before `index`. */
static size_t runs_until(const struct con__log *log, uint64_t index)
{
    size_t low = 0, high = log->run_count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (log->runs[middle].first <= index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t con__log_term(const struct con__log *log, uint64_t index)
{
    if (index == log->offset)
        return log->offset_term;
    if (index < log->offset || index > log->last)
        return 0;
    return log->runs[runs_until(log, index) - 1].term;
}

uint64_t con__log_last_term(const struct con__log *log)
{
    return con__log_term(log, log->last);
}

uint64_t con__log_before_term(const struct con__log *log, uint64_t index, uint64_t term)
{
    size_t run;

    if (index > log->last)
        index = log->last;
    if (index <= log->offset)
        return log->offset;
    run = runs_until(log, index);
    while (run > 0 && log->runs[run - 1].term > term) {
        index = log->runs[run - 1].first - 1;
        run--;
    }
    return index;
}

bool con__log_append(struct con__log *log, const struct con_entry *entry)
{
    struct con_entry *slot;
    struct con_config config;
    size_t held = (size_t)(log->last + 1 - log->memory_first);

    if (entry->kind == CON_ENTRY_CONFIG) {
        struct base_status status = con_config_decode(entry->data, &config);

        if (base_status_drop(status) != BASE_OK)
            return false;
        config.index = entry->index;
        config_push(log, &config);
    }
    if (log->run_count == 0 || log->runs[log->run_count - 1].term != entry->term) {
        log->runs = grown(log->runs, &log->run_cap, log->run_count + 1, sizeof(*log->runs));
        log->runs[log->run_count++] = (struct con__run){ entry->index, entry->term };
    }
    if (log->head + held == log->cap && log->head > log->cap / 2) {
        memmove(log->slots, log->slots + log->head, held * sizeof(*log->slots));
        log->head = 0;
    }
    log->slots = grown(log->slots, &log->cap, log->head + held + 1, sizeof(*log->slots));
    log->last = entry->index;
    slot = con__log_entry(log, log->last);
    *slot = *entry;
    slot->data.data = NULL;
    if (entry->data.len > 0) {
        uint8_t *copy = malloc(entry->data.len);

        if (!copy)
            abort();
        memcpy(copy, entry->data.data, entry->data.len);
        slot->data.data = copy;
    }
    log->memory_bytes += entry->data.len;
    return true;
}

static void bound(uint64_t *value, uint64_t most)
{
    if (*value > most)
        *value = most;
}

void con__log_truncate(struct con__log *log, uint64_t from)
{
    for (uint64_t i = from < log->memory_first ? log->memory_first : from; i <= log->last; i++)
        slot_free(log, con__log_entry(log, i));
    log->last = from - 1;
    if (log->memory_first > from)
        log->memory_first = from;
    log->run_count = runs_until(log, log->last);
    while (log->config_count > 1 && con__log_config(log)->index >= from)
        log->config_count--;
    bound(&log->written, log->last);
    bound(&log->flight, log->last);
    bound(&log->durable, log->last);
}

void con__log_compact(struct con__log *log, uint64_t index)
{
    size_t runs, configs = 0;

    con__log_trim(log, index, 0);
    log->offset_term = con__log_term(log, index);
    runs = runs_until(log, index + 1);
    if (runs > 0 && index < log->last) {
        /* the run that holds index + 1 stays, from there on */
        log->runs[runs - 1].first = index + 1;
        runs--;
    } else if (index >= log->last) {
        runs = log->run_count;
    }
    memmove(log->runs, log->runs + runs, (log->run_count - runs) * sizeof(*log->runs));
    log->run_count -= runs;
    while (configs + 1 < log->config_count && log->configs[configs + 1].index <= index)
        configs++;
    memmove(log->configs, log->configs + configs,
            (log->config_count - configs) * sizeof(*log->configs));
    log->config_count -= configs;
    log->offset = index;
}

void con__log_reset(struct con__log *log, uint64_t index, uint64_t term,
                    const struct con_config *config)
{
    struct con_config kept = *config; /* may be one of ours */

    con__log_free(log);
    con__log_init(log, index, term, &kept);
}

void con__log_trim(struct con__log *log, uint64_t most, size_t bytes)
{
    while (log->memory_first <= most && log->memory_first <= log->last &&
           (bytes == 0 || log->memory_bytes > bytes)) {
        slot_free(log, con__log_entry(log, log->memory_first));
        log->memory_first++;
        log->head++;
    }
    if (log->memory_first > log->last)
        log->head = 0;
}
