/* docs/consensus.md lists every invariant that the code checks, by number and in the same words:
 * who reads of a broken one finds it there. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "test.h"

enum { NUMBERS_MAX = 100 };

static void file_read(const char *path, struct base_buf *out)
{
    FILE *file = fopen(path, "r");
    char piece[4096];
    size_t got;

    cr_assert_not_null(file, "%s", path);
    base_buf_clear(out);
    while ((got = fread(piece, 1, sizeof(piece), file)) > 0)
        base_buf_put(out, piece, got);
    base_buf_put_u8(out, 0);
    fclose(file);
}

/* "7. one change of the group at a time" under the heading "## Invariants". */
static void documented_read(char *texts[NUMBERS_MAX])
{
    struct base_buf doc = { 0 };
    char *line, *save = NULL, *begin;

    file_read(SOURCE_DIR "/docs/consensus.md", &doc);
    begin = strstr((char *)doc.data, "\n## Invariants");
    cr_assert_not_null(begin, "no heading \"## Invariants\"");
    for (line = strtok_r(begin + 4, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *after;
        long number = strtol(line, &after, 10);

        if (strncmp(line, "## ", 3) == 0)
            break;
        if (number <= 0 || number >= NUMBERS_MAX || strncmp(after, ". ", 2) != 0)
            continue;
        cr_assert_null(texts[number], "number %ld is given twice", number);
        texts[number] = strdup(after + 2);
    }
    base_buf_free(&doc);
}

/* The number and the string literals of the next CON_INVARIANT(…). */
static char *invariant_next(char *at, long *number, struct base_buf *text)
{
    char *end;

    at = strstr(at, "CON_INVARIANT(");
    if (!at)
        return NULL;
    *number = strtol(at + strlen("CON_INVARIANT("), &end, 10);
    base_buf_clear(text);
    at = end;
    for (end = strstr(at, ");"); at < end; at++)
        if (*at == '"')
            for (at++; *at != '"'; at++)
                base_buf_put_u8(text, (uint8_t)*at);
    base_buf_put_u8(text, 0);
    return at;
}

Test(raft_docs, the_same_invariants_in_the_same_words)
{
    char *documented[NUMBERS_MAX] = { NULL };
    bool checked[NUMBERS_MAX] = { false };
    struct base_buf file = { 0 }, text = { 0 };
    glob_t files;
    size_t found = 0;

    documented_read(documented);
    cr_assert_eq(glob(SOURCE_DIR "/consensus/src/*.c", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        long number;
        char *at;

        file_read(files.gl_pathv[i], &file);
        for (at = (char *)file.data; (at = invariant_next(at, &number, &text)) != NULL; found++) {
            cr_assert(number > 0 && number < NUMBERS_MAX && documented[number],
                      "%s: invariant %ld (%s) is not in docs/consensus.md", files.gl_pathv[i],
                      number, (char *)text.data);
            cr_assert_str_eq((char *)text.data, documented[number], "%s: invariant %ld",
                             files.gl_pathv[i], number);
            checked[number] = true;
        }
    }
    cr_assert(found >= 5, "only %zu were found", found);
    for (long number = 1; number < NUMBERS_MAX; number++) {
        cr_assert(!documented[number] || checked[number],
                  "invariant %ld is documented, and nowhere in the code: %s", number,
                  documented[number]);
        free(documented[number]);
    }
    globfree(&files);
    base_buf_free(&file);
    base_buf_free(&text);
}
