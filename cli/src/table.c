/* table.c: columns as wide as their widest cell. */
#include <string.h>

#include "cli.h"

void cli_table_init(struct cli_table *table, struct base_arena *arena, size_t columns,
                    const char *const *heads)
{
    *table = (struct cli_table){ .arena = arena, .columns = columns };
    cli_table_row(table, heads);
}

void cli_table_row(struct cli_table *table, const char *const *cells)
{
    if (table->rows == table->cap) {
        const char **text =
            BASE_NEW_ARRAY(table->arena, const char *, (2 * table->cap + 8) * table->columns);

        if (table->rows > 0)
            memcpy(text, table->text, table->rows * table->columns * sizeof(*text));
        table->text = text;
        table->cap = 2 * table->cap + 8;
    }
    for (size_t i = 0; i < table->columns; i++)
        table->text[table->rows * table->columns + i] = base_arena_strdup(table->arena, cells[i]);
    table->rows++;
}

void cli_table_print(const struct cli_table *table, FILE *out)
{
    size_t widths[16] = { 0 };

    for (size_t i = 0; i < table->rows * table->columns; i++) {
        size_t len = strlen(table->text[i]);

        if (len > widths[i % table->columns])
            widths[i % table->columns] = len;
    }
    for (size_t i = 0; i < table->rows * table->columns; i++) {
        bool last = i % table->columns == table->columns - 1;

        fprintf(out, "%s%-*s%s", i % table->columns ? "  " : "",
                last ? 0 : (int)widths[i % table->columns], table->text[i], last ? "\n" : "");
    }
}
