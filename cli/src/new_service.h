/* new_service.h (private to cli): `strata new-service`, and the files it writes. */
#ifndef CLI_NEW_SERVICE_H
#define CLI_NEW_SERVICE_H

#include <stddef.h>

/* argv[0] is "new-service". Needs neither a cell nor an env. Returns the exit value. */
int cli_new_service(int argc, char **argv);

/* A file of a new service. In path and text @name@ stands for guest_book, @Name@ for GuestBook,
 * @NAME@ for GUEST_BOOK. */
struct cli_template {
    const char *path;
    const char *text;
};
extern const struct cli_template cli_templates[];
extern const size_t cli_template_count;

#endif
