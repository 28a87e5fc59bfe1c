/* engine_tkrzw.cc - tkrzw's hash database on a memory-mapped file, told how many entries will come.
 *
 * Two buckets an entry and in-place updates: a chain is short, and nothing has to be rebuilt. Writes go to the mapping, so
 * they survive the death of the process, as with an odm_put.
 */
#include "engine.h"

#include <tkrzw_dbm_hash.h>
#include <tkrzw_file_mmap.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

namespace
{

struct Store {
    tkrzw::HashDBM dbm{std::make_unique<tkrzw::MemoryMapParallelFile>()};
    std::unique_ptr<tkrzw::DBM::Iterator> walk;
    std::string key, value;
};

void check(const tkrzw::Status &status, const char *what)
{
    if (status == tkrzw::Status::SUCCESS || status == tkrzw::Status::NOT_FOUND_ERROR) return;
    bench_die("tkrzw: %s: %s", what, tkrzw::ToString(status).c_str());
}

std::string_view slice(const void *bytes, size_t size)
{
    return {static_cast<const char *>(bytes), size};
}

Store &self(void *handle)
{
    return *static_cast<Store *>(handle);
}

void describe(char *text, size_t text_size, bool)
{
    snprintf(text, text_size, "tkrzw %s, HashDBM on MemoryMapParallelFile, two buckets an entry, in-place updates",
             tkrzw::PACKAGE_VERSION);
}

void *store_open(const engine_setup *setup)
{
    auto *store = new Store;
    tkrzw::HashDBM::TuningParameters tuning;
    if (setup->create) {
        tuning.num_buckets = static_cast<int64_t>(setup->entries * 2);
        tuning.offset_width = 5; // up to 8 TiB
        tuning.update_mode = tkrzw::HashDBM::UPDATE_IN_PLACE;
    }
    check(store->dbm.OpenAdvanced(std::string(setup->directory) + "/map.tkh", true, tkrzw::File::OPEN_DEFAULT, tuning),
          "open");
    return store;
}

void store_close(void *handle)
{
    check(self(handle).dbm.Close(), "close");
    delete &self(handle);
}

void nothing(void *)
{
}

void put(void *handle, const void *key, size_t key_size, const void *value, size_t value_size)
{
    check(self(handle).dbm.Set(slice(key, key_size), slice(value, value_size)), "set");
}

bool get(void *handle, const void *key, size_t key_size, const void **value, size_t *value_size)
{
    Store &store = self(handle);
    tkrzw::Status status = store.dbm.Get(slice(key, key_size), &store.value);
    check(status, "get");
    *value = store.value.data();
    *value_size = store.value.size();
    return status == tkrzw::Status::SUCCESS;
}

bool store_remove(void *handle, const void *key, size_t key_size)
{
    tkrzw::Status status = self(handle).dbm.Remove(slice(key, key_size));
    check(status, "remove");
    return status == tkrzw::Status::SUCCESS;
}

/* Its own call for this: the record is read and written under one lock, and looked for once. */
class Increment final : public tkrzw::DBM::RecordProcessor
{
    uint64_t number_ = 0;

  public:
    std::string_view ProcessFull(std::string_view, std::string_view value) override
    {
        if (value.size() != sizeof number_) bench_die("tkrzw: there is no number to count up");
        memcpy(&number_, value.data(), sizeof number_);
        number_++;
        return {reinterpret_cast<const char *>(&number_), sizeof number_};
    }
    std::string_view ProcessEmpty(std::string_view) override
    {
        bench_die("tkrzw: there is no number to count up");
    }
};

void increment(void *handle, const void *key, size_t key_size)
{
    Increment processor;
    check(self(handle).dbm.Process(slice(key, key_size), &processor, true), "process");
}

void walk_begin(void *handle)
{
    Store &store = self(handle);
    store.walk = store.dbm.MakeIterator();
    check(store.walk->First(), "first");
}

bool walk_next(void *handle, const void **key, size_t *key_size, const void **value, size_t *value_size)
{
    Store &store = self(handle);
    tkrzw::Status status = store.walk->Step(&store.key, &store.value);
    check(status, "step");
    if (status != tkrzw::Status::SUCCESS) return false;
    *key = store.key.data();
    *key_size = store.key.size();
    *value = store.value.data();
    *value_size = store.value.size();
    return true;
}

void walk_end(void *handle)
{
    self(handle).walk.reset();
}

engine make()
{
    engine tkrzw = {};
    tkrzw.name = "tkrzw";
    tkrzw.persistent = true;
    tkrzw.describe = describe;
    tkrzw.open = store_open;
    tkrzw.close = store_close;
    tkrzw.reads_begin = tkrzw.reads_end = tkrzw.writes_end = nothing;
    tkrzw.put = put;
    tkrzw.get = get;
    tkrzw.remove = store_remove;
    tkrzw.increment = increment;
    tkrzw.walk_begin = walk_begin;
    tkrzw.walk_next = walk_next;
    tkrzw.walk_end = walk_end;
    return tkrzw;
}

} // namespace

extern "C" const engine bench_engine = make();
