/* names.c: see gen.h. protoc-gen-c lower-cases a name part by part: an underscore goes before each
 * capital that follows a character which is none ("MyURL" -> "my_url"), and the parts are joined by
 * two underscores. */
#include <ctype.h>
#include <string.h>

#include "gen.h"

char *gen_lower_name(struct base_arena *arena, const char *full_name)
{
    char *out = base_arena_alloc(arena, strlen(full_name) * 2 + 1), *at = out;
    bool was_upper = true; /* no underscore before the first character */
    for (const char *in = full_name; *in; in++) {
        if (*in == '.') {
            *at++ = '_';
            *at++ = '_';
            was_upper = true;
            continue;
        }
        bool upper = isupper((unsigned char)*in);
        if (upper && !was_upper)
            *at++ = '_';
        *at++ = (char)tolower((unsigned char)*in);
        was_upper = upper;
    }
    *at = '\0';
    return out;
}

char *gen_upper_name(struct base_arena *arena, const char *full_name)
{
    char *out = gen_lower_name(arena, full_name);
    for (char *at = out; *at; at++)
        *at = (char)toupper((unsigned char)*at);
    return out;
}

char *gen_file_stem(struct base_arena *arena, const char *path)
{
    char *out = base_arena_strdup(arena, path);
    size_t len = strlen(out);
    if (len > 6 && strcmp(out + len - 6, ".proto") == 0)
        out[len - 6] = '\0';
    return out;
}

char *gen_file_symbol(struct base_arena *arena, const char *path)
{
    char *stem = gen_file_stem(arena, path);
    char *out = base_arena_alloc(arena, strlen(stem) * 2 + 1), *at = out;
    for (const char *in = stem; *in; in++) {
        if (*in == '/') {
            *at++ = '_';
            *at++ = '_';
        } else {
            *at++ = isalnum((unsigned char)*in) ? *in : '_';
        }
    }
    *at = '\0';
    return out;
}

char *gen_join(struct base_arena *arena, const char *package, const char *name)
{
    if (!package || !package[0])
        return base_arena_strdup(arena, name);
    return base_arena_printf(arena, "%s.%s", package, name);
}
