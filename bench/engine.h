/* engine.h - what the benchmark asks of a key-value store. One C (or C++) file per store implements it.
 *
 * A new peer: write engine_<name>.c, which defines `bench_engine`; add it to CMakeLists.txt; name it in --engines.
 * Every engine becomes a program of its own, bench_worker_<name>, so that no store shares memory, allocator or page
 * tables with another one.
 *
 * Nothing here returns an error: an engine that fails calls bench_die, because a figure of half a run is worth nothing.
 */
#ifndef BENCH_ENGINE_H
#define BENCH_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a store may know about the data when it is opened. */
struct engine_setup {
    const char *directory;  // exists; empty if create
    bool create;            // else: open what an earlier process left there
    bool u64_keys;          // every key is a uint64_t of this machine's byte order, 8-byte aligned
    bool outgrown;          // the map is larger than the memory it may use
    uint64_t payload_bytes; // keys and values to come, for stores that must be told a maximum. 0 unless create
    uint64_t entries;       // likewise
};

/* Up to BENCH_BLOCK_SIZE entries, packed: key i is the bytes from key_ends[i - 1] (0 for the first) up to key_ends[i];
 * values likewise. */
enum { BENCH_BLOCK_SIZE = 64 };
struct block {
    size_t count;
    const uint8_t *keys;
    const uint64_t *key_ends;
    const uint8_t *values;
    const uint64_t *value_ends;
};

/* Calls come in this order: open; any number of runs of reads (reads_begin, gets or a walk, reads_end) and of writes
 * (puts or removes, writes_end); close. Reads and writes are never mixed within a run. */
struct engine {
    const char *name;
    bool persistent; // false: a peer in memory, which can not be reopened
    bool reads_only; // nothing is measured but reads: the floor
    bool processes;  // several may use a map at a time

    /* One line: the version and every setting that matters. */
    void (*describe)(char *text, size_t text_size, bool u64_keys);

    void *(*open)(const struct engine_setup *setup);
    void (*close)(void *store);

    /* Another handle on the store, for another thread; closed before the store by unshare. Both NULL: one thread only. */
    void *(*share)(void *store);
    void (*unshare)(void *shared);

    /* May be NULL. The keys that the next runs of gets will ask for, block by block; before the first of them, NULL. */
    void (*expect)(void *store, const struct block *block);

    void (*reads_begin)(void *store);
    void (*reads_end)(void *store);  // what the gets gave out is no longer looked at
    void (*writes_end)(void *store); // what was written is visible to every other process

    void (*put)(void *store, const void *key, size_t key_size, const void *value, size_t value_size);
    bool (*get)(void *store, const void *key, size_t key_size, const void **value, size_t *value_size);
    bool (*remove)(void *store, const void *key, size_t key_size); // may be NULL

    /* A write: adds 1 to the uint64_t, of this machine's byte order, that is the value of a key which is there. Between its
     * read and its write nobody else's can come. */
    void (*increment)(void *store, const void *key, size_t key_size);

    /* Both may be NULL: the store has no such call. get_many: values[i] is NULL for a key that is not there. write_many puts
     * the whole block. */
    void (*get_many)(void *store, const struct block *block, const void **values, uint64_t *value_sizes);
    void (*write_many)(void *store, const struct block *block);

    /* Both may be NULL: only ours has a log from which it builds its index. */
    void (*forget)(const char *directory); // of a closed map: its next open builds the index
    uint64_t (*log_bytes)(void *store);

    /* All three may be NULL. */
    void (*walk_begin)(void *store);
    bool (*walk_next)(void *store, const void **key, size_t *key_size, const void **value, size_t *value_size);
    void (*walk_end)(void *store);
};

/* The one engine of this program. */
extern const struct engine bench_engine;

/* Prints the message to standard error and exits with 1. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2), noreturn))
#endif
void bench_die(const char *format, ...);

#ifdef __cplusplus
}
#endif
#endif
