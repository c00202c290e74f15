/* env_real.h (private): the parts of the real env. */
#ifndef CHASSIS_ENV_REAL_H
#define CHASSIS_ENV_REAL_H

#include "env_int.h"

extern const struct ch_transport ch_transport_grpc;

struct base_status ch_real_file_open(struct ch_env *env, const char *path, int flags,
                                     struct ch_file **file) CH_WAITS;
struct base_status ch_real_file_read(struct ch_file *file, uint64_t offset, void *data, size_t len,
                                     size_t *got) CH_WAITS;
struct base_status ch_real_file_write(struct ch_file *file, uint64_t offset,
                                      const struct base_bytes *parts, size_t part_count,
                                      bool durable) CH_WAITS;
struct base_status ch_real_file_sync(struct ch_file *file) CH_WAITS;
struct base_status ch_real_file_allocate(struct ch_file *file, uint64_t offset,
                                         uint64_t len) CH_WAITS;
struct base_status ch_real_file_truncate(struct ch_file *file, uint64_t size) CH_WAITS;
struct base_status ch_real_file_cut_front(struct ch_file *file, uint64_t bytes) CH_WAITS;
struct base_status ch_real_file_size(struct ch_file *file, uint64_t *size) CH_WAITS;
struct base_status ch_real_file_lock(struct ch_file *file) CH_WAITS;
void ch_real_file_close(struct ch_file *file) CH_WAITS;
struct base_status ch_real_dir_make(struct ch_env *env, const char *path) CH_WAITS;
struct base_status ch_real_dir_list(struct ch_env *env, const char *path, struct base_arena *arena,
                                    char ***names, size_t *count) CH_WAITS;
struct base_status ch_real_dir_sync(struct ch_env *env, const char *path) CH_WAITS;
struct base_status ch_real_file_rename(struct ch_env *env, const char *from,
                                       const char *to) CH_WAITS;
struct base_status ch_real_file_remove(struct ch_env *env, const char *path) CH_WAITS;
struct base_status ch_real_disk_space(struct ch_env *env, const char *path, uint64_t *total,
                                      uint64_t *available) CH_WAITS;

#endif
