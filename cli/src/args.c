/* args.c: flags and words of a subcommand. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void args_remove(int *argc, char **argv, int at, int count)
{
    memmove(argv + at, argv + at + count, (size_t)(*argc - at - count + 1) * sizeof(*argv));
    *argc -= count;
}

const char *cli_take_flag(int *argc, char **argv, const char *name)
{
    size_t len = strlen(name);

    for (int i = 1; i < *argc; i++) {
        const char *value;

        if (strncmp(argv[i], name, len) != 0)
            continue;
        if (argv[i][len] == '=') {
            value = argv[i] + len + 1;
            args_remove(argc, argv, i, 1);
            return value;
        }
        if (argv[i][len] != '\0' || i + 1 >= *argc)
            continue;
        value = argv[i + 1];
        args_remove(argc, argv, i, 2);
        return value;
    }
    return NULL;
}

bool cli_take_number(int *argc, char **argv, const char *name, int min, int max, int *number)
{
    const char *text = cli_take_flag(argc, argv, name);
    char *end;
    long value;

    if (!text)
        return true;
    errno = 0;
    value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < min || value > max) {
        fprintf(stderr, "strata: %s %s: must be a number from %d to %d\n", name, text, min, max);
        return false;
    }
    *number = (int)value;
    return true;
}

bool cli_take_switch(int *argc, char **argv, const char *name)
{
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], name) != 0)
            continue;
        args_remove(argc, argv, i, 1);
        return true;
    }
    return false;
}

bool cli_args_end(int argc, char **argv, int min, int max, const char *usage)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-')
            continue;
        fprintf(stderr, "strata: unknown flag %s, or its value is missing\nusage: strata %s\n",
                argv[i], usage);
        return false;
    }
    if (argc - 1 >= min && argc - 1 <= max)
        return true;
    fprintf(stderr, "usage: strata %s\n", usage);
    return false;
}
