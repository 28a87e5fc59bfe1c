/* engine_rocksdb.cc - RocksDB set up for point lookups, without compression.
 *
 * Its log is written, not synced: what a put returned survives the death of the process, as with an odm_put. Flushes and
 * compactions run beside, on the machine's other cores, and go on into what is measured next: as they do in use.
 */
#include "engine.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/version.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace
{

constexpr size_t kCacheBytes = size_t{4} << 30; // All of the data fits: so it is for the others.
constexpr size_t kBufferBytes = size_t{256} << 20;

struct Store {
    rocksdb::DB *db = nullptr;
    rocksdb::ReadOptions read;
    rocksdb::WriteOptions write;
    rocksdb::PinnableSlice value;
    std::vector<rocksdb::PinnableSlice> values{BENCH_BLOCK_SIZE};
    std::unique_ptr<rocksdb::Iterator> walk;
};

void check(const rocksdb::Status &status, const char *what)
{
    if (!status.ok() && !status.IsNotFound()) bench_die("rocksdb: %s: %s", what, status.ToString().c_str());
}

rocksdb::Slice slice(const void *bytes, size_t size)
{
    return {static_cast<const char *>(bytes), size};
}

Store &self(void *handle)
{
    return *static_cast<Store *>(handle);
}

void describe(char *text, size_t text_size, bool)
{
    snprintf(
        text, text_size,
        "RocksDB %d.%d.%d, hash index in blocks, bloom filter of 10 bits a key, cache 4 GiB, write buffers 256 MiB, "
        "no compression, log not synced",
        ROCKSDB_MAJOR, ROCKSDB_MINOR, ROCKSDB_PATCH);
}

void *store_open(const engine_setup *setup)
{
    rocksdb::BlockBasedTableOptions table;
    table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
    table.data_block_hash_table_util_ratio = 0.75;
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    table.block_cache = rocksdb::NewLRUCache(kCacheBytes);
    rocksdb::Options options;
    options.create_if_missing = setup->create;
    options.compression = rocksdb::kNoCompression;
    options.write_buffer_size = kBufferBytes;
    options.IncreaseParallelism();
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    auto *store = new Store;
    check(rocksdb::DB::Open(options, setup->directory, &store->db), "open");
    return store;
}

void store_close(void *handle)
{
    Store &store = self(handle);
    store.value.Reset();
    store.values.clear();
    check(store.db->Close(), "close");
    delete store.db;
    delete &store;
}

void nothing(void *)
{
}

void put(void *handle, const void *key, size_t key_size, const void *value, size_t value_size)
{
    check(self(handle).db->Put(self(handle).write, slice(key, key_size), slice(value, value_size)), "put");
}

bool get(void *handle, const void *key, size_t key_size, const void **value, size_t *value_size)
{
    Store &store = self(handle);
    store.value.Reset();
    rocksdb::Status status =
        store.db->Get(store.read, store.db->DefaultColumnFamily(), slice(key, key_size), &store.value);
    check(status, "get");
    *value = store.value.data();
    *value_size = store.value.size();
    return status.ok();
}

/* RocksDB writes a mark whether the key is there or not; so "removed" is all that it says. */
bool store_remove(void *handle, const void *key, size_t key_size)
{
    check(self(handle).db->Delete(self(handle).write, slice(key, key_size)), "delete");
    return true;
}

/* A get and a put; one thread writes, so no transaction is needed. */
void increment(void *handle, const void *key, size_t key_size)
{
    Store &store = self(handle);
    const void *value;
    size_t value_size;
    uint64_t number;
    if (!get(handle, key, key_size, &value, &value_size) || value_size != sizeof number) {
        bench_die("rocksdb: there is no number to count up");
    }
    memcpy(&number, value, sizeof number);
    number++;
    store.value.Reset();
    put(handle, key, key_size, &number, sizeof number);
}

void get_many(void *handle, const block *block, const void **values, uint64_t *value_sizes)
{
    Store &store = self(handle);
    rocksdb::Slice keys[BENCH_BLOCK_SIZE];
    rocksdb::Status statuses[BENCH_BLOCK_SIZE];
    uint64_t begin = 0;
    for (size_t i = 0; i < block->count; begin = block->key_ends[i++]) {
        keys[i] = slice(block->keys + begin, block->key_ends[i] - begin);
        store.values[i].Reset();
    }
    store.db->MultiGet(store.read, store.db->DefaultColumnFamily(), block->count, keys, store.values.data(), statuses);
    for (size_t i = 0; i < block->count; i++) {
        check(statuses[i], "multi get");
        values[i] = statuses[i].ok() ? store.values[i].data() : nullptr;
        value_sizes[i] = store.values[i].size();
    }
}

void write_many(void *handle, const block *block)
{
    rocksdb::WriteBatch batch;
    uint64_t key_begin = 0, value_begin = 0;
    for (size_t i = 0; i < block->count; i++) {
        check(batch.Put(slice(block->keys + key_begin, block->key_ends[i] - key_begin),
                        slice(block->values + value_begin, block->value_ends[i] - value_begin)),
              "batch");
        key_begin = block->key_ends[i];
        value_begin = block->value_ends[i];
    }
    check(self(handle).db->Write(self(handle).write, &batch), "write");
}

void walk_begin(void *handle)
{
    Store &store = self(handle);
    store.walk.reset(store.db->NewIterator(store.read));
    store.walk->SeekToFirst();
}

bool walk_next(void *handle, const void **key, size_t *key_size, const void **value, size_t *value_size)
{
    rocksdb::Iterator &walk = *self(handle).walk;
    static bool fresh;
    if (fresh) walk.Next(); // What was given out is looked at until now.
    fresh = walk.Valid();
    check(walk.status(), "next");
    if (!fresh) return false;
    *key = walk.key().data();
    *key_size = walk.key().size();
    *value = walk.value().data();
    *value_size = walk.value().size();
    return true;
}

void walk_end(void *handle)
{
    self(handle).walk.reset();
}

engine make()
{
    engine rocksdb = {};
    rocksdb.name = "rocksdb";
    rocksdb.persistent = true;
    rocksdb.describe = describe;
    rocksdb.open = store_open;
    rocksdb.close = store_close;
    rocksdb.reads_begin = rocksdb.reads_end = rocksdb.writes_end = nothing;
    rocksdb.put = put;
    rocksdb.get = get;
    rocksdb.remove = store_remove;
    rocksdb.increment = increment;
    rocksdb.get_many = get_many;
    rocksdb.write_many = write_many;
    rocksdb.walk_begin = walk_begin;
    rocksdb.walk_next = walk_next;
    rocksdb.walk_end = walk_end;
    return rocksdb;
}

} // namespace

extern "C" const engine bench_engine = make();
