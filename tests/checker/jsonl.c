/* jsonl.c: histories as JSON lines. A process has one transaction at a time: an invoke, then its
 * completion. */
#include "checker_int.h"

#include <stdlib.h>

#include <jansson.h>

struct loading {
    struct check_history *history;
    size_t line;
    struct open {
        UT_hash_handle hh;
        int process;
        int64_t invoked;
    } * open;
};

static struct base_status bad(const struct loading *loading, const char *what)
{
    return base_status_make(BASE_INVALID_ARGUMENT, "line %zu: %s", loading->line, what);
}

static struct base_status load_mop(struct loading *loading, size_t txn, json_t *mop, bool completed)
{
    const char *kind = json_string_value(json_array_get(mop, 0)),
               *key = json_string_value(json_array_get(mop, 1));
    json_t *value = json_array_get(mop, 2);
    if (!kind || !key)
        return bad(loading, "an operation is [\"append\" or \"r\", key, value]");
    if (strcmp(kind, "append") == 0 && json_is_integer(value)) {
        check_append(loading->history, txn, key, json_integer_value(value));
        return BASE_STATUS_OK;
    }
    if (strcmp(kind, "r") != 0 || (completed && !json_is_array(value) && !json_is_null(value)))
        return bad(loading, "an operation is neither an append of a number nor a read of a list");
    if (!completed)
        return BASE_STATUS_OK;
    size_t count = json_array_size(value);
    int64_t *elements = malloc((count + 1) * sizeof(*elements));
    for (size_t i = 0; i < count; i++)
        elements[i] = json_integer_value(json_array_get(value, i));
    check_read(loading->history, txn, key, elements, count);
    free(elements);
    return BASE_STATUS_OK;
}

static struct base_status load_end(struct loading *loading, json_t *event, struct open *open,
                                   enum check_type type, int64_t at)
{
    struct base_status status = BASE_STATUS_OK;
    json_t *mops = json_object_get(event, "txn");
    size_t txn = check_begin(loading->history, open->process, open->invoked);
    for (size_t i = 0; i < json_array_size(mops) && !base_failed(status); i++)
        status = load_mop(loading, txn, json_array_get(mops, i), type == CHECK_OK);
    check_end(loading->history, txn, type, at,
              (uint64_t)json_integer_value(json_object_get(event, "commit_ts")));
    HASH_DEL(loading->open, open);
    free(open);
    return status;
}

static struct base_status load_event(struct loading *loading, json_t *event)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    json_t *process = json_object_get(event, "process"), *at = json_object_get(event, "t_ns");
    if (!type || !json_is_integer(process) || !json_is_integer(at))
        return bad(loading, "process, type or t_ns is missing");
    int id = (int)json_integer_value(process);
    struct open *open;
    HASH_FIND_INT(loading->open, &id, open);
    if (strcmp(type, "invoke") == 0) {
        if (open)
            return bad(loading, "the process has a transaction already");
        open = calloc(1, sizeof(*open));
        open->process = id;
        open->invoked = json_integer_value(at);
        HASH_ADD_INT(loading->open, process, open);
        return BASE_STATUS_OK;
    }
    if (!open)
        return bad(loading, "the process has no transaction");
    int64_t t = json_integer_value(at);
    if (strcmp(type, "ok") == 0)
        return load_end(loading, event, open, CHECK_OK, t);
    if (strcmp(type, "fail") == 0)
        return load_end(loading, event, open, CHECK_FAIL, t);
    if (strcmp(type, "info") == 0)
        return load_end(loading, event, open, CHECK_INFO, t);
    return bad(loading, "type is none of invoke, ok, fail, info");
}

struct base_status check_load(struct check_history *history, struct base_bytes text)
{
    struct loading loading = { .history = history };
    struct base_status status = BASE_STATUS_OK;
    while (text.len && !base_failed(status)) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        size_t len = end ? (size_t)(end - text.data) : text.len;
        loading.line++;
        if (len) {
            json_error_t error;
            json_t *event = json_loadb((const char *)text.data, len, 0, &error);
            status = event ? load_event(&loading, event) : bad(&loading, error.text);
            json_decref(event);
        }
        len += end != NULL;
        text.data += len;
        text.len -= len;
    }
    struct open *open, *next;
    HASH_ITER(hh, loading.open, open, next)
    {
        HASH_DEL(loading.open, open);
        free(open);
    }
    return status;
}

static void dump_mops(const struct check_history *history, const struct txn *txn, bool values,
                      struct base_buf *out)
{
    base_buf_put_str(out, "\"txn\":[");
    for (size_t m = 0; m < txn->mop_count; m++) {
        const struct mop *mop = &txn->mops[m];
        const char *key = history->key_list[mop->key]->name;
        if (mop->kind == MOP_APPEND) {
            base_buf_printf(out, "%s[\"append\",\"%s\",%lld]", m ? "," : "", key,
                            (long long)mop->element);
        } else if (!values) {
            base_buf_printf(out, "%s[\"r\",\"%s\",null]", m ? "," : "", key);
        } else {
            base_buf_printf(out, "%s[\"r\",\"%s\",[", m ? "," : "", key);
            for (size_t i = 0; i < mop->count; i++)
                base_buf_printf(out, "%s%lld", i ? "," : "", (long long)mop->elements[i]);
            base_buf_put_str(out, "]]");
        }
    }
    base_buf_put_str(out, "]");
}

void check_dump(const struct check_history *history, struct base_buf *out)
{
    static const char *const types[] = { "info", "ok", "fail" };
    for (size_t t = 0; t < history->count; t++) {
        const struct txn *txn = &history->txns[t];
        /* One process a transaction: each is told whole, invoke and completion side by side. */
        base_buf_printf(out, "{\"process\":%zu,\"type\":\"invoke\",\"t_ns\":%lld,", t,
                        (long long)txn->invoked);
        dump_mops(history, txn, false, out);
        base_buf_printf(out,
                        "}\n{\"process\":%zu,\"type\":\"%s\",\"t_ns\":%lld,\"commit_ts\":%llu,", t,
                        types[txn->type],
                        (long long)(txn->completed == INT64_MAX ? txn->invoked : txn->completed),
                        (unsigned long long)txn->timestamp);
        dump_mops(history, txn, txn->type == CHECK_OK, out);
        base_buf_put_str(out, "}\n");
    }
}
