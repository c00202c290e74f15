// sstable_bridge.cc: see sstable_bridge.h. Thin on purpose: no policy here, no state beyond
// LevelDB's and RE2's own objects.
#include "sstable_bridge.h"

#include <leveldb/cache.h>
#include <leveldb/env.h>
#include <leveldb/iterator.h>
#include <leveldb/options.h>
#include <leveldb/table.h>
#include <leveldb/table_builder.h>
#include <re2/re2.h>

#include <cstdio>
#include <memory>
#include <string>

namespace
{

void say(char *error, size_t error_len, const std::string &text)
{
    if (error_len)
        snprintf(error, error_len, "%s", text.c_str());
}

// What the builder writes is kept until C takes it.
class Sink : public leveldb::WritableFile
{
  public:
    leveldb::Status Append(const leveldb::Slice &data) override
    {
        bytes.append(data.data(), data.size());
        return leveldb::Status::OK();
    }
    leveldb::Status Close() override
    {
        return leveldb::Status::OK();
    }
    leveldb::Status Flush() override
    {
        return leveldb::Status::OK();
    }
    leveldb::Status Sync() override
    {
        return leveldb::Status::OK();
    }
    std::string bytes;
};

class Source : public leveldb::RandomAccessFile
{
  public:
    Source(tab_bridge_read_fn *read, void *self) : read_(read), self_(self)
    {
    }
    leveldb::Status Read(uint64_t offset, size_t n, leveldb::Slice *result,
                         char *scratch) const override
    {
        if (!read_(self_, offset, n, scratch))
            return leveldb::Status::IOError("read failed");
        *result = leveldb::Slice(scratch, n);
        return leveldb::Status::OK();
    }

  private:
    tab_bridge_read_fn *read_;
    void *self_;
};

leveldb::Slice slice(const void *data, size_t len)
{
    return leveldb::Slice(static_cast<const char *>(data), len);
}

} // namespace

struct tab_bridge_cache {
    std::unique_ptr<leveldb::Cache> cache;
};

struct tab_bridge_builder {
    Sink sink;
    std::string taken;
    leveldb::Options options;
    std::unique_ptr<leveldb::TableBuilder> builder;
};

struct tab_bridge_table {
    std::unique_ptr<Source> source;
    std::unique_ptr<leveldb::Table> table;
};

struct tab_bridge_iter {
    std::unique_ptr<leveldb::Iterator> iter;
};

struct tab_bridge_regex {
    std::unique_ptr<RE2> re;
};

tab_bridge_cache *tab_bridge_cache_new(size_t bytes)
{
    return new tab_bridge_cache{ std::unique_ptr<leveldb::Cache>(leveldb::NewLRUCache(bytes)) };
}

void tab_bridge_cache_free(tab_bridge_cache *cache)
{
    delete cache;
}

size_t tab_bridge_cache_used(const tab_bridge_cache *cache)
{
    return cache->cache->TotalCharge();
}

tab_bridge_builder *tab_bridge_builder_new(size_t block_bytes)
{
    auto *builder = new tab_bridge_builder;
    builder->options.block_size = block_bytes;
    builder->options.compression = leveldb::kSnappyCompression;
    builder->builder.reset(new leveldb::TableBuilder(builder->options, &builder->sink));
    return builder;
}

void tab_bridge_builder_add(tab_bridge_builder *builder, const void *key, size_t key_len,
                            const void *value, size_t value_len)
{
    builder->builder->Add(slice(key, key_len), slice(value, value_len));
}

void tab_bridge_builder_take(tab_bridge_builder *builder, const void **data, size_t *len)
{
    builder->taken.clear();
    builder->taken.swap(builder->sink.bytes);
    *data = builder->taken.data();
    *len = builder->taken.size();
}

size_t tab_bridge_builder_pending(const tab_bridge_builder *builder)
{
    return builder->sink.bytes.size();
}

bool tab_bridge_builder_finish(tab_bridge_builder *builder, uint64_t *size)
{
    bool ok = builder->builder->Finish().ok();
    *size = builder->builder->FileSize();
    builder->builder.reset();
    return ok;
}

void tab_bridge_builder_free(tab_bridge_builder *builder)
{
    if (builder && builder->builder)
        builder->builder->Abandon();
    delete builder;
}

tab_bridge_table *tab_bridge_open(tab_bridge_read_fn *read, void *self, uint64_t size,
                                  tab_bridge_cache *cache, char *error, size_t error_len)
{
    leveldb::Options options;
    options.block_cache = cache ? cache->cache.get() : nullptr;
    options.paranoid_checks = true;
    auto *table = new tab_bridge_table;
    table->source.reset(new Source(read, self));
    leveldb::Table *opened = nullptr;
    leveldb::Status status = leveldb::Table::Open(options, table->source.get(), size, &opened);
    table->table.reset(opened);
    if (!status.ok()) {
        say(error, error_len, status.ToString());
        delete table;
        return nullptr;
    }
    return table;
}

void tab_bridge_close(tab_bridge_table *table)
{
    delete table;
}

uint64_t tab_bridge_offset(tab_bridge_table *table, const void *key, size_t len)
{
    return table->table->ApproximateOffsetOf(slice(key, len));
}

tab_bridge_iter *tab_bridge_iter_new(tab_bridge_table *table, bool fill_cache)
{
    leveldb::ReadOptions options;
    options.verify_checksums = true;
    options.fill_cache = fill_cache;
    return new tab_bridge_iter{ std::unique_ptr<leveldb::Iterator>(
        table->table->NewIterator(options)) };
}

void tab_bridge_iter_free(tab_bridge_iter *iter)
{
    delete iter;
}

void tab_bridge_iter_seek(tab_bridge_iter *iter, const void *key, size_t len)
{
    iter->iter->Seek(slice(key, len));
}

void tab_bridge_iter_seek_last(tab_bridge_iter *iter)
{
    iter->iter->SeekToLast();
}

void tab_bridge_iter_next(tab_bridge_iter *iter)
{
    iter->iter->Next();
}

void tab_bridge_iter_prev(tab_bridge_iter *iter)
{
    iter->iter->Prev();
}

bool tab_bridge_iter_at(tab_bridge_iter *iter, const void **key, size_t *key_len,
                        const void **value, size_t *value_len)
{
    if (!iter->iter->Valid())
        return false;
    leveldb::Slice k = iter->iter->key(), v = iter->iter->value();
    *key = k.data();
    *key_len = k.size();
    *value = v.data();
    *value_len = v.size();
    return true;
}

bool tab_bridge_iter_failed(tab_bridge_iter *iter, char *error, size_t error_len)
{
    leveldb::Status status = iter->iter->status();
    if (status.ok())
        return false;
    say(error, error_len, status.ToString());
    return true;
}

tab_bridge_regex *tab_bridge_regex_new(const void *pattern, size_t len, char *error,
                                       size_t error_len)
{
    RE2::Options options(RE2::Latin1);
    options.set_log_errors(false);
    options.set_max_mem(1 << 20);
    auto re =
        std::make_unique<RE2>(re2::StringPiece(static_cast<const char *>(pattern), len), options);
    if (!re->ok()) {
        say(error, error_len, re->error());
        return nullptr;
    }
    return new tab_bridge_regex{ std::move(re) };
}

bool tab_bridge_regex_match(const tab_bridge_regex *regex, const void *text, size_t len)
{
    return RE2::FullMatch(re2::StringPiece(static_cast<const char *>(text), len), *regex->re);
}

void tab_bridge_regex_free(tab_bridge_regex *regex)
{
    delete regex;
}
