/* engine_floor.c - no store at all, but what none can fall below: each get loads a slot and the record it names.
 *
 * Before the clock starts it is told which keys will be asked for, in which order, and looks up where their slots are. A get
 * then hashes nothing and compares nothing. Slots and records have the sizes that ours have (8 bytes, 60 % of them used; a
 * header of 24, everything padded to 8) and lie in memory in huge pages.
 *
 * The gets do not depend on each other, so a processor has as many of them on their way as it can hold instructions: the
 * floor is that of the memory for independent gets, not the time of two misses one after the other.
 */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HEADER_SIZE = 24, RECORD_WORDS_MAX = (HEADER_SIZE + 32 + 256) / 8 };

struct record {
    uint64_t key_size, value_size, unused;
    unsigned char bytes[]; // key, value, each padded to 8
};
_Static_assert(sizeof(struct record) == HEADER_SIZE, "as ours");

struct store {
    uint64_t *slots; // offset in the log + 1; 0 is empty
    uint64_t slot_count;
    unsigned char *log;
    uint64_t log_bytes, log_end;
    uint64_t *expected; // slots of the keys that will be asked for, in order
    size_t expected_count, expected_room, at;
    uint64_t walk;
};

static void *memory(uint64_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) bench_die("floor: out of memory");
    madvise(at, size, MADV_HUGEPAGE);
    return at;
}

static uint64_t padded(uint64_t size)
{
    return (size + 7) & ~UINT64_C(7);
}

static void describe(char *text, size_t text_size, bool u64_keys)
{
    (void)u64_keys;
    snprintf(text, text_size, "two dependent loads a get, from places that are known; in memory, huge pages");
}

static void *store_open(const struct engine_setup *setup)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store) bench_die("floor: out of memory");
    store->slot_count = setup->entries * 10 / 6 + 1;
    store->slots = memory(store->slot_count * sizeof *store->slots);
    store->log_bytes = setup->entries * RECORD_WORDS_MAX * 8 + (1 << 20);
    store->log = memory(store->log_bytes);
    return store;
}

static void store_close(void *handle)
{
    struct store *store = handle;
    munmap(store->slots, store->slot_count * sizeof *store->slots);
    munmap(store->log, store->log_bytes);
    free(store->expected);
    free(store);
}

static struct record *record_of(const struct store *store, uint64_t slot)
{
    return (struct record *)(void *)(store->log + slot - 1);
}

/* Where a key's slot is, or the empty one where it would be. FNV-1a: it is not measured. */
static uint64_t place_of(const struct store *store, const void *key, size_t key_size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < key_size; i++) hash = (hash ^ ((const unsigned char *)key)[i]) * UINT64_C(0x100000001b3);
    hash ^= hash >> 29;
    for (uint64_t at = hash % store->slot_count;; at = (at + 1) % store->slot_count) {
        uint64_t slot = store->slots[at];
        if (slot == 0) return at;
        const struct record *record = record_of(store, slot);
        if (record->key_size == key_size && memcmp(record->bytes, key, key_size) == 0) return at;
    }
}

static void put(void *handle, const void *key, size_t key_size, const void *value, size_t value_size)
{
    struct store *store = handle;
    uint64_t at = place_of(store, key, key_size);
    uint64_t size = HEADER_SIZE + padded(key_size) + padded(value_size);
    if (store->slots[at] != 0 || store->log_end + size > store->log_bytes) bench_die("floor: a key twice, or too much");
    store->slots[at] = store->log_end + 1;
    struct record *record = record_of(store, store->slots[at]);
    record->key_size = key_size;
    record->value_size = value_size;
    memcpy(record->bytes, key, key_size);
    memcpy(record->bytes + padded(key_size), value, value_size);
    store->log_end += size;
}

static void expect(void *handle, const struct block *block)
{
    struct store *store = handle;
    if (!block) {
        store->expected_count = 0;
        return;
    }
    if (store->expected_count + block->count > store->expected_room) {
        store->expected_room = store->expected_room * 2 + BENCH_BLOCK_SIZE;
        store->expected = realloc(store->expected, store->expected_room * sizeof *store->expected);
        if (!store->expected) bench_die("floor: out of memory");
    }
    uint64_t begin = 0;
    for (size_t i = 0; i < block->count; begin = block->key_ends[i++]) {
        store->expected[store->expected_count++] = place_of(store, block->keys + begin, block->key_ends[i] - begin);
    }
}

static void reads_begin(void *handle)
{
    ((struct store *)handle)->at = 0;
}

static void nothing(void *handle)
{
    (void)handle;
}

static bool get(void *handle, const void *key, size_t key_size, const void **value, size_t *value_size)
{
    struct store *store = handle;
    (void)key;
    uint64_t slot = store->slots[store->expected[store->at++]];
    if (slot == 0) return false;
    const struct record *record = record_of(store, slot);
    *value = record->bytes + padded(key_size);
    *value_size = record->value_size;
    return true;
}

static void walk_begin(void *handle)
{
    ((struct store *)handle)->walk = 0;
}

static bool walk_next(void *handle, const void **key, size_t *key_size, const void **value, size_t *value_size)
{
    struct store *store = handle;
    if (store->walk == store->log_end) return false;
    const struct record *record = record_of(store, store->walk + 1);
    *key = record->bytes;
    *key_size = record->key_size;
    *value = record->bytes + padded(record->key_size);
    *value_size = record->value_size;
    store->walk += HEADER_SIZE + padded(record->key_size) + padded(record->value_size);
    return true;
}

const struct engine bench_engine = {
    .name = "floor",
    .persistent = false,
    .reads_only = true,
    .describe = describe,
    .open = store_open,
    .close = store_close,
    .expect = expect,
    .reads_begin = reads_begin,
    .reads_end = nothing,
    .writes_end = nothing,
    .put = put,
    .get = get,
    .walk_begin = walk_begin,
    .walk_next = walk_next,
    .walk_end = nothing,
};
