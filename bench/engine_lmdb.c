/* engine_lmdb.c - LMDB at its fastest settings that still survive the death of the process.
 *
 * MDB_NOSYNC | MDB_WRITEMAP: writes go straight to the mapped file and nobody waits for the disk, as with an odm_put.
 * 10,000 puts or removes a transaction, all gets of a run in one read transaction, MDB_INTEGERKEY for keys that
 * are uint64_t, MDB_NORDAHEAD where the map is larger than memory.
 */
#include "engine.h"

#include <lmdb.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WRITES_PER_TRANSACTION = 10000 };
#define MAP_SIZE_SPARE (UINT64_C(1) << 30) // bytes

struct store {
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *reader;
    MDB_txn *writer;
    MDB_cursor *walk;
    MDB_cursor *counter; // ends with the writer's transaction
    unsigned writes;     // in the writer's transaction
};

static void check(int code, const char *what)
{
    if (code != MDB_SUCCESS) bench_die("lmdb: %s: %s", what, mdb_strerror(code));
}

static MDB_val slice(const void *bytes, size_t size)
{
    return (MDB_val){.mv_size = size, .mv_data = (void *)bytes}; // LMDB writes to no argument of ours.
}

static void describe(char *text, size_t text_size, bool u64_keys)
{
    int major, minor, patch;
    mdb_version(&major, &minor, &patch);
    snprintf(text, text_size, "LMDB %d.%d.%d, MDB_NOSYNC|MDB_WRITEMAP%s, %d writes a transaction, one read transaction",
             major, minor, patch, u64_keys ? ", MDB_INTEGERKEY" : "", WRITES_PER_TRANSACTION);
}

static void *store_open(const struct engine_setup *setup)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store) bench_die("lmdb: out of memory");

    check(mdb_env_create(&store->env), "mdb_env_create");
    // Half-empty pages, their headers and copies on write stay far below eight times the payload; the file is sparse. A
    // map that exists knows its size.
    if (setup->create) {
        check(mdb_env_set_mapsize(store->env, (size_t)(setup->payload_bytes * 8 + MAP_SIZE_SPARE)),
              "mdb_env_set_mapsize");
    }
    unsigned flags = MDB_NOSYNC | MDB_WRITEMAP | (setup->outgrown ? MDB_NORDAHEAD : 0);
    check(mdb_env_open(store->env, setup->directory, flags, 0644), "mdb_env_open");

    MDB_txn *txn;
    check(mdb_txn_begin(store->env, NULL, setup->create ? 0 : MDB_RDONLY, &txn), "mdb_txn_begin");
    check(mdb_dbi_open(txn, NULL, setup->u64_keys ? MDB_INTEGERKEY : 0, &store->dbi), "mdb_dbi_open");
    check(mdb_txn_commit(txn), "mdb_txn_commit");
    return store;
}

static void store_close(void *handle)
{
    struct store *store = handle;
    mdb_env_close(store->env);
    free(store);
}

/* The same environment; transactions belong to a thread. */
static void *share(void *handle)
{
    struct store *store = handle;
    struct store *shared = calloc(1, sizeof *shared);
    if (!shared) bench_die("lmdb: out of memory");
    shared->env = store->env;
    shared->dbi = store->dbi;
    return shared;
}

static void reads_begin(void *handle)
{
    struct store *store = handle;
    check(mdb_txn_begin(store->env, NULL, MDB_RDONLY, &store->reader), "mdb_txn_begin");
}

static void reads_end(void *handle)
{
    struct store *store = handle;
    mdb_txn_abort(store->reader);
    store->reader = NULL;
}

static void writes_end(void *handle)
{
    struct store *store = handle;
    if (!store->writer) return;
    check(mdb_txn_commit(store->writer), "mdb_txn_commit");
    store->writer = NULL;
    store->counter = NULL;
    store->writes = 0;
}

/* Ends the transaction if it is full, and begins one if there is none. */
static void write_begin(struct store *store)
{
    if (store->writes == WRITES_PER_TRANSACTION) writes_end(store);
    if (!store->writer) check(mdb_txn_begin(store->env, NULL, 0, &store->writer), "mdb_txn_begin");
    store->writes++;
}

static void put(void *handle, const void *key, size_t key_size, const void *value, size_t value_size)
{
    struct store *store = handle;
    write_begin(store);
    MDB_val key_slice = slice(key, key_size);
    MDB_val value_slice = slice(value, value_size);
    check(mdb_put(store->writer, store->dbi, &key_slice, &value_slice, 0), "mdb_put");
}

static bool get(void *handle, const void *key, size_t key_size, const void **value, size_t *value_size)
{
    struct store *store = handle;
    MDB_val key_slice = slice(key, key_size);
    MDB_val value_slice;
    int code = mdb_get(store->reader, store->dbi, &key_slice, &value_slice);
    if (code == MDB_NOTFOUND) return false;
    check(code, "mdb_get");
    *value = value_slice.mv_data;
    *value_size = value_slice.mv_size;
    return true;
}

static bool store_remove(void *handle, const void *key, size_t key_size)
{
    struct store *store = handle;
    write_begin(store);
    MDB_val key_slice = slice(key, key_size);
    int code = mdb_del(store->writer, store->dbi, &key_slice, NULL);
    if (code == MDB_NOTFOUND) return false;
    check(code, "mdb_del");
    return true;
}

/* By a cursor, which finds the key once for both the read and the write. */
static void increment(void *handle, const void *key, size_t key_size)
{
    struct store *store = handle;
    write_begin(store);
    if (!store->counter) check(mdb_cursor_open(store->writer, store->dbi, &store->counter), "mdb_cursor_open");
    MDB_val key_slice = slice(key, key_size);
    MDB_val value_slice;
    check(mdb_cursor_get(store->counter, &key_slice, &value_slice, MDB_SET), "mdb_cursor_get");
    uint64_t number;
    if (value_slice.mv_size != sizeof number) bench_die("lmdb: there is no number to count up");
    memcpy(&number, value_slice.mv_data, sizeof number);
    number++;
    value_slice = slice(&number, sizeof number);
    check(mdb_cursor_put(store->counter, &key_slice, &value_slice, MDB_CURRENT), "mdb_cursor_put");
}

static void walk_begin(void *handle)
{
    struct store *store = handle;
    check(mdb_cursor_open(store->reader, store->dbi, &store->walk), "mdb_cursor_open");
}

static bool walk_next(void *handle, const void **key, size_t *key_size, const void **value, size_t *value_size)
{
    struct store *store = handle;
    MDB_val key_slice;
    MDB_val value_slice;
    int code = mdb_cursor_get(store->walk, &key_slice, &value_slice, MDB_NEXT);
    if (code == MDB_NOTFOUND) return false;
    check(code, "mdb_cursor_get");
    *key = key_slice.mv_data;
    *key_size = key_slice.mv_size;
    *value = value_slice.mv_data;
    *value_size = value_slice.mv_size;
    return true;
}

static void walk_end(void *handle)
{
    struct store *store = handle;
    mdb_cursor_close(store->walk);
    store->walk = NULL;
}

const struct engine bench_engine = {
    .name = "lmdb",
    .persistent = true,
    .processes = true,
    .describe = describe,
    .open = store_open,
    .close = store_close,
    .share = share,
    .unshare = free,
    .reads_begin = reads_begin,
    .reads_end = reads_end,
    .writes_end = writes_end,
    .put = put,
    .get = get,
    .remove = store_remove,
    .increment = increment,
    .walk_begin = walk_begin,
    .walk_next = walk_next,
    .walk_end = walk_end,
};
