/* main.c: check_history FILE.jsonl [--final-reads] [--timestamps]: exit 0 when valid, 1 when
 * not, 2 when it cannot be read. */
#include <stdio.h>
#include <stdlib.h>

#include "checker.h"

static void read_all(FILE *file, struct base_buf *out)
{
    size_t got;
    do {
        got = fread(base_buf_extend(out, 1 << 16), 1, 1 << 16, file);
        out->len -= (1 << 16) - got;
    } while (got);
}

int main(int argc, char **argv)
{
    struct check_options options = { 0 };
    struct base_buf text = { 0 };
    FILE *file = argc > 1 ? fopen(argv[1], "r") : NULL;
    if (!file) {
        fprintf(stderr, "usage: check_history FILE.jsonl [--final-reads] [--timestamps]\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        options.final_reads |= strcmp(argv[i], "--final-reads") == 0;
        options.timestamps |= strcmp(argv[i], "--timestamps") == 0;
    }
    read_all(file, &text);
    fclose(file);
    struct check_history *history = check_new();
    struct base_status status = check_load(history, base_buf_bytes(&text));
    if (base_failed(status)) {
        fprintf(stderr, "%s: %s\n", argv[1], base_status_text(&status));
        return 2;
    }
    struct check_result result;
    check_run(history, &options, &result);
    base_buf_clear(&text);
    check_report(&result, &text);
    fwrite(text.data, 1, text.len, stdout);
    base_buf_free(&text);
    check_free(history);
    return result.valid ? 0 : 1;
}
