/* new_service.c: `strata new-service NAME [--dir services/NAME]`: from no code to a running
 * service.
 *
 * Writes a folder from the templates of new_service_files.c: an interface, a service with one
 * method, a setting and a metric, its main(), a test that calls it in the simulator, a job file.
 * The build of the repository takes up every folder of services/.
 * 1. Nothing that exists is overwritten: the folder must not exist, or be empty.
 * 2. A name makes good identifiers in C, protobuf and the cell: lower case, digits, underscores. */
#include "new_service.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { NAME_MAX_LEN = 32, EXIT_BAD = 1, EXIT_USAGE = 2 };

struct names {
    const char *lower; /* guest_book */
    char upper[NAME_MAX_LEN + 1], camel[NAME_MAX_LEN + 1];
};

/* Letters first, single underscores between parts, no part that begins with a digit: GuestBook must
 * turn back into guest_book. */
static bool name_ok(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_LEN || name[len - 1] == '_')
        return false;
    bool begins = true; /* a part */
    for (const char *at = name; *at; at++) {
        bool letter = *at >= 'a' && *at <= 'z';
        if (begins ? !letter : !letter && *at != '_' && !isdigit((unsigned char)*at))
            return false;
        begins = *at == '_';
    }
    return true;
}

static void names_make(struct names *names, const char *name)
{
    char *camel = names->camel;
    bool begins = true;
    names->lower = name;
    for (size_t i = 0; i <= strlen(name); i++)
        names->upper[i] = (char)toupper((unsigned char)name[i]);
    for (const char *at = name; *at; at++) {
        if (*at != '_')
            *camel++ = begins ? (char)toupper((unsigned char)*at) : *at;
        begins = *at == '_';
    }
    *camel = '\0';
}

/* Writes text with the names put in. */
static void put_expanded(FILE *out, const char *text, const struct names *names)
{
    const struct {
        const char *mark, *value;
    } marks[] = { { "@name@", names->lower },
                  { "@Name@", names->camel },
                  { "@NAME@", names->upper } };
    for (const char *at = text; *at;) {
        const char *value = NULL;
        for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]) && !value; i++)
            if (strncmp(at, marks[i].mark, strlen(marks[i].mark)) == 0)
                value = marks[i].value;
        if (value)
            fputs(value, out);
        else
            fputc(*at, out);
        at += value ? 6 : 1;
    }
}

static bool dir_is_empty(const char *path)
{
    DIR *dir = opendir(path);
    bool empty = true;
    if (!dir)
        return errno == ENOENT;
    for (struct dirent *entry; empty && (entry = readdir(dir));)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(dir);
    return empty;
}

/* Makes the folders that lead to the file `path`. */
static bool parents_make(const char *path)
{
    char *copy = strdup(path);
    bool made = copy != NULL;
    for (char *at = copy; made && (at = strchr(at + 1, '/'));) {
        *at = '\0';
        made = mkdir(copy, 0755) == 0 || errno == EEXIST;
        *at = '/';
    }
    free(copy);
    return made;
}

static bool file_write(const char *dir, const struct cli_template *template,
                       const struct names *names)
{
    char *path = NULL;
    size_t len;
    FILE *text = open_memstream(&path, &len);
    if (!text)
        return false;
    fprintf(text, "%s/", dir);
    put_expanded(text, template->path, names);
    fclose(text);
    FILE *out = parents_make(path) ? fopen(path, "wxe") : NULL;
    bool written = out != NULL;
    if (out) {
        put_expanded(out, template->text, names);
        written = fclose(out) == 0;
    }
    if (!written)
        fprintf(stderr, "strata: %s: %s\n", path, strerror(errno));
    free(path);
    return written;
}

static int usage(void)
{
    fprintf(
        stderr,
        "strata: new-service NAME [--dir services/NAME]: NAME is lower case letters, digits and "
        "underscores, at most %d\n",
        NAME_MAX_LEN);
    return EXIT_USAGE;
}

int cli_new_service(int argc, char **argv)
{
    const char *name = NULL, *dir = NULL;
    char fallback[NAME_MAX_LEN + 16];
    struct names names;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc)
            dir = argv[++i];
        else if (strncmp(argv[i], "--dir=", 6) == 0)
            dir = argv[i] + 6;
        else if (!name && argv[i][0] != '-')
            name = argv[i];
        else
            return usage();
    }
    if (!name || !name_ok(name))
        return usage();
    names_make(&names, name);
    snprintf(fallback, sizeof(fallback), "services/%s", name);
    if (!dir)
        dir = fallback;
    if (!dir_is_empty(dir)) {
        fprintf(stderr, "strata: %s is there already, and not an empty folder\n", dir);
        return EXIT_BAD;
    }
    for (size_t i = 0; i < cli_template_count; i++)
        if (!file_write(dir, &cli_templates[i], &names))
            return EXIT_BAD;
    printf("%s: a service with one method, a setting, a metric, a test and a job file.\n"
           "Its README.md says where what is. Build the repository, then: ctest -R test_%s; bin/%s "
           "--help\n",
           dir, name, name);
    return 0;
}
