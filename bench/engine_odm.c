/* engine_odm.c - opendiskmap with its default options: no capacity hint, so growing is part of every figure. */
#include "engine.h"

#include <opendiskmap.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct store {
    odm_map *map;
    odm_iter *walk;
};

static void check(odm_status status, const char *what)
{
    if (status < 0) bench_die("odm: %s: %s (%s)", what, odm_status_message(status), odm_status_name(status));
}

static void describe(char *text, size_t text_size, bool u64_keys)
{
    (void)u64_keys; // One setting for all keys.
    snprintf(text, text_size, "opendiskmap %s, default options", odm_version_string());
}

static void *store_open(const struct engine_setup *setup)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store) bench_die("odm: out of memory");

    odm_options options = ODM_OPTIONS_INIT;
    options.flags = setup->create ? ODM_MUST_CREATE : ODM_MUST_EXIST;
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_open(setup->directory, &options, &store->map, &error);
    if (status != ODM_OK) bench_die("odm: open: %s: %s", odm_status_name(status), error.message);
    return store;
}

static void store_close(void *handle)
{
    struct store *store = handle;
    check(odm_close(store->map), "close");
    free(store);
}

static void *share(void *handle)
{
    struct store *store = handle;
    struct store *shared = calloc(1, sizeof *shared);
    if (!shared) bench_die("odm: out of memory");
    check(odm_dup(store->map, &shared->map, NULL), "dup");
    return shared;
}

/* After this the next open is that of a copy, or after a new start of the machine: the index is built anew. */
static void forget(const char *directory)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/index", directory);
    if (remove(path) != 0) bench_die("odm: %s could not be removed", path);
}

static uint64_t log_bytes(void *handle)
{
    struct store *store = handle;
    odm_statistics statistics = {.struct_size = sizeof statistics};
    check(odm_stat(store->map, &statistics), "stat");
    return statistics.log_bytes;
}

static void reads_begin(void *handle)
{
    (void)handle; // A get needs no preparation.
}

static void reads_end(void *handle)
{
    struct store *store = handle;
    check(odm_refresh(store->map), "refresh");
}

static void writes_end(void *handle)
{
    (void)handle; // Every put was visible when it returned.
}

static void put(void *handle, const void *key, size_t key_size, const void *value, size_t value_size)
{
    struct store *store = handle;
    check(odm_put(store->map, key, key_size, value, value_size), "put");
}

static bool get(void *handle, const void *key, size_t key_size, const void **value, size_t *value_size)
{
    struct store *store = handle;
    odm_status status = odm_get(store->map, key, key_size, value, value_size);
    check(status, "get");
    return status == ODM_OK;
}

static bool store_remove(void *handle, const void *key, size_t key_size)
{
    struct store *store = handle;
    odm_status status = odm_remove(store->map, key, key_size);
    check(status, "remove");
    return status == ODM_OK;
}

/* An entry: read, then written if nobody was faster. */
static void increment(void *handle, const void *key, size_t key_size)
{
    struct store *store = handle;
    odm_status status;
    do {
        const void *value = NULL;
        size_t value_size = 0;
        uint64_t version, number;
        check(odm_entry_get(store->map, key, key_size, &value, &value_size, &version), "entry_get");
        if (value_size != sizeof number) bench_die("odm: there is no number to count up");
        memcpy(&number, value, sizeof number);
        number++;
        status = odm_entry_put(store->map, key, key_size, &number, sizeof number, version);
        check(status, "entry_put");
    } while (status == ODM_CONFLICT);
    check(odm_refresh(store->map), "refresh"); // The value was copied: its place may be given back.
}

static void get_many(void *handle, const struct block *block, const void **values, uint64_t *value_sizes)
{
    struct store *store = handle;
    size_t count = block->count;
    check(odm_get_many(store->map, &count, block->keys, block->key_ends, values, value_sizes), "get_many");
}

static void write_many(void *handle, const struct block *block)
{
    struct store *store = handle;
    size_t count = block->count;
    check(
        odm_write_many(store->map, &count, NULL, block->keys, block->key_ends, block->values, block->value_ends, NULL),
        "write_many");
}

static void walk_begin(void *handle)
{
    struct store *store = handle;
    check(odm_iter_open(store->map, &store->walk), "iter_open");
}

static bool walk_next(void *handle, const void **key, size_t *key_size, const void **value, size_t *value_size)
{
    struct store *store = handle;
    odm_status status = odm_iter_next(store->walk, key, key_size, value, value_size);
    check(status, "iter_next");
    return status == ODM_OK;
}

static void walk_end(void *handle)
{
    struct store *store = handle;
    check(odm_iter_close(store->walk), "iter_close");
    store->walk = NULL;
}

const struct engine bench_engine = {
    .name = "odm",
    .persistent = true,
    .processes = true,
    .describe = describe,
    .open = store_open,
    .close = store_close,
    .share = share,
    .unshare = store_close,
    .forget = forget,
    .log_bytes = log_bytes,
    .reads_begin = reads_begin,
    .reads_end = reads_end,
    .writes_end = writes_end,
    .put = put,
    .get = get,
    .remove = store_remove,
    .increment = increment,
    .get_many = get_many,
    .write_many = write_many,
    .walk_begin = walk_begin,
    .walk_next = walk_next,
    .walk_end = walk_end,
};
