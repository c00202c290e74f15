/* sstable_bridge.h: LevelDB's table format and RE2, as C sees them. The only door to C++ in this
 * layer. Reads go through a callback that may wait: no lock is held across it. */
#ifndef TAB_SSTABLE_BRIDGE_H
#define TAB_SSTABLE_BRIDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- block cache, shared by all tables of a server ---- */
struct tab_bridge_cache;
struct tab_bridge_cache *tab_bridge_cache_new(size_t bytes);
void tab_bridge_cache_free(struct tab_bridge_cache *cache);
size_t tab_bridge_cache_used(const struct tab_bridge_cache *cache);

/* ---- writing ---- */
struct tab_bridge_builder;
struct tab_bridge_builder *tab_bridge_builder_new(size_t block_bytes);
/* Keys in growing order. */
void tab_bridge_builder_add(struct tab_bridge_builder *builder, const void *key, size_t key_len,
                            const void *value, size_t value_len);
/* What was produced since the last take; valid till the next call on the builder. */
void tab_bridge_builder_take(struct tab_bridge_builder *builder, const void **data, size_t *len);
size_t tab_bridge_builder_pending(const struct tab_bridge_builder *builder);
/* False when the table could not be finished. *size: of the whole table. */
bool tab_bridge_builder_finish(struct tab_bridge_builder *builder, uint64_t *size);
void tab_bridge_builder_free(struct tab_bridge_builder *builder);

/* ---- reading ---- */
/* Fills data[0..len); false: failed (the callee keeps its reason). */
typedef bool tab_bridge_read_fn(void *self, uint64_t offset, size_t len, void *data);
struct tab_bridge_table;
/* NULL: failed, with a reason in error. */
struct tab_bridge_table *tab_bridge_open(tab_bridge_read_fn *read, void *self, uint64_t size,
                                         struct tab_bridge_cache *cache, char *error,
                                         size_t error_len);
void tab_bridge_close(struct tab_bridge_table *table);
/* About where a key lies in the table. */
uint64_t tab_bridge_offset(struct tab_bridge_table *table, const void *key, size_t len);

struct tab_bridge_iter;
struct tab_bridge_iter *tab_bridge_iter_new(struct tab_bridge_table *table, bool fill_cache);
void tab_bridge_iter_free(struct tab_bridge_iter *iter);
void tab_bridge_iter_seek(struct tab_bridge_iter *iter, const void *key, size_t len);
void tab_bridge_iter_seek_last(struct tab_bridge_iter *iter);
void tab_bridge_iter_next(struct tab_bridge_iter *iter);
void tab_bridge_iter_prev(struct tab_bridge_iter *iter);
/* False at the end or after a failure. */
bool tab_bridge_iter_at(struct tab_bridge_iter *iter, const void **key, size_t *key_len,
                        const void **value, size_t *value_len);
/* True when it failed; the reason goes to error. */
bool tab_bridge_iter_failed(struct tab_bridge_iter *iter, char *error, size_t error_len);

/* ---- regular expressions: RE2, Latin-1, full match, as google.bigtable.v2 says ---- */
struct tab_bridge_regex;
struct tab_bridge_regex *tab_bridge_regex_new(const void *pattern, size_t len, char *error,
                                              size_t error_len);
bool tab_bridge_regex_match(const struct tab_bridge_regex *regex, const void *text, size_t len);
void tab_bridge_regex_free(struct tab_bridge_regex *regex);

#ifdef __cplusplus
}
#endif

#endif
