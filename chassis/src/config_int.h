/* config_int.h (private to chassis): values out of declared tables, and the numbers in them. */
#ifndef CHASSIS_CONFIG_INT_H
#define CHASSIS_CONFIG_INT_H

#include "chassis/config.h"

/* "64KiB", "8MiB", "1GiB", "512", "512B": bytes. False for anything else, or over 2^63-1. */
bool ch__size_parse(const char *text, int64_t *bytes);
/* "250ms", "3s", "5m", "2h", "100us", "7ns", and "0": nanoseconds. */
bool ch__duration_parse(const char *text, ch_time *ns);
/* Appends a value as it could be written on the command line. */
void ch__config_value(const struct ch_config_key *key, const void *config, struct base_buf *out);
/* Appends one line a key, "key: value", in the form of the file. */
void ch__config_show(const struct ch_config_table *tables, size_t table_count, void *const *configs,
                     struct base_buf *out);

#endif
