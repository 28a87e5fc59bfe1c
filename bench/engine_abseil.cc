/* engine_abseil.cc - absl::flat_hash_map<std::string, std::string>: what a program has that keeps its map in memory. */
#include "engine.h"

#include <absl/base/config.h>
#include <absl/container/flat_hash_map.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace
{

using Map = absl::flat_hash_map<std::string, std::string>;

struct Store {
    Map map;
    Map::const_iterator walk;
};

absl::string_view slice(const void *bytes, size_t size)
{
    return {static_cast<const char *>(bytes), size};
}

Store &self(void *handle)
{
    return *static_cast<Store *>(handle);
}

void describe(char *text, size_t text_size, bool)
{
    snprintf(text, text_size, "Abseil %d, flat_hash_map<string, string>, in memory, not reserved",
             ABSL_LTS_RELEASE_VERSION);
}

void *store_open(const engine_setup *)
{
    return new Store;
}

void store_close(void *handle)
{
    delete &self(handle);
}

void nothing(void *)
{
}

void put(void *handle, const void *key, size_t key_size, const void *value, size_t value_size)
{
    self(handle).map[slice(key, key_size)].assign(static_cast<const char *>(value), value_size);
}

bool get(void *handle, const void *key, size_t key_size, const void **value, size_t *value_size)
{
    const Map &map = self(handle).map;
    auto found = map.find(slice(key, key_size));
    if (found == map.end()) return false;
    *value = found->second.data();
    *value_size = found->second.size();
    return true;
}

bool store_remove(void *handle, const void *key, size_t key_size)
{
    return self(handle).map.erase(slice(key, key_size)) != 0;
}

void increment(void *handle, const void *key, size_t key_size)
{
    auto found = self(handle).map.find(slice(key, key_size));
    uint64_t number;
    if (found == self(handle).map.end() || found->second.size() != sizeof number) {
        bench_die("abseil: there is no number to count up");
    }
    memcpy(&number, found->second.data(), sizeof number);
    number++;
    memcpy(&found->second[0], &number, sizeof number);
}

void walk_begin(void *handle)
{
    self(handle).walk = self(handle).map.cbegin();
}

bool walk_next(void *handle, const void **key, size_t *key_size, const void **value, size_t *value_size)
{
    Store &store = self(handle);
    if (store.walk == store.map.cend()) return false;
    *key = store.walk->first.data();
    *key_size = store.walk->first.size();
    *value = store.walk->second.data();
    *value_size = store.walk->second.size();
    ++store.walk;
    return true;
}

engine make()
{
    engine abseil = {};
    abseil.name = "abseil";
    abseil.persistent = false;
    abseil.describe = describe;
    abseil.open = store_open;
    abseil.close = store_close;
    abseil.reads_begin = abseil.reads_end = abseil.writes_end = nothing;
    abseil.put = put;
    abseil.get = get;
    abseil.remove = store_remove;
    abseil.increment = increment;
    abseil.walk_begin = walk_begin;
    abseil.walk_next = walk_next;
    abseil.walk_end = nothing;
    return abseil;
}

} // namespace

extern "C" const engine bench_engine = make();
