/* data.h - the entries a workload puts and asks for: the same in every process that is given the same seed.
 *
 * Everything is made before the clock starts, and laid out in the order of its use, so that what is measured is the
 * store and not the cache misses of the benchmark's own arrays.
 *
 * What always holds:
 *   1. All keys of a data set, present and absent ones, are distinct.
 *   2. The first keys of a data set depend on the workload and the seed only, not on how many follow. So a process that
 *      needs one key which is in a big map makes a small data set.
 */
#ifndef BENCH_DATA_H
#define BENCH_DATA_H

#include "engine.h"

/* A kind of entries. Sizes are bytes, drawn evenly from min to max. */
struct workload {
    const char *name;
    const char *about;
    bool u64_keys; // random uint64_t, else random letters and digits
    size_t key_size_min, key_size_max;
    size_t value_size_min, value_size_max;
};

/* A value is a uint64_t too, and can be counted up. */
static inline bool workload_counts(const struct workload *workload)
{
    return workload->value_size_min == sizeof(uint64_t) && workload->value_size_max == sizeof(uint64_t);
}

/* NULL if there is no workload of that name. */
const struct workload *workload_find(const char *name);

/* Entries in blocks of BENCH_BLOCK_SIZE; only the last may be shorter. */
struct list {
    size_t count;
    uint8_t *keys;          // all, packed
    uint64_t *block_starts; // offset in keys, by block
    uint64_t *key_ends;     // by entry, from its block's start
    const uint8_t **values; // by block: a place in the pool of random bytes
    uint64_t *value_ends;   // by entry, from its block's values
};

static inline size_t list_block_count(const struct list *list)
{
    return (list->count + BENCH_BLOCK_SIZE - 1) / BENCH_BLOCK_SIZE;
}

static inline struct block list_block(const struct list *list, size_t number)
{
    size_t first = number * BENCH_BLOCK_SIZE;
    size_t left = list->count - first;
    return (struct block){
        .count = left < BENCH_BLOCK_SIZE ? left : BENCH_BLOCK_SIZE,
        .keys = list->keys + list->block_starts[number],
        .key_ends = list->key_ends + first,
        .values = list->values[number],
        .value_ends = list->value_ends + first,
    };
}

/* The count entries from number first on, which is a multiple of BENCH_BLOCK_SIZE; less if there are no more. */
static inline struct list list_slice(const struct list *list, size_t first, size_t count)
{
    if (first > list->count) first = list->count / BENCH_BLOCK_SIZE * BENCH_BLOCK_SIZE;
    size_t left = list->count - first;
    size_t number = first / BENCH_BLOCK_SIZE;
    return (struct list){
        .count = count < left ? count : left,
        .keys = list->keys,
        .block_starts = list->block_starts + number,
        .key_ends = list->key_ends + first,
        .values = list->values + number,
        .value_ends = list->value_ends + first,
    };
}

/* What every read does with its value: looks at the first and the last byte, so that the memory was really there. */
static inline uint64_t touch(const void *value, uint64_t value_size)
{
    const uint8_t *bytes = value;
    return value_size ? (uint64_t)bytes[0] + bytes[value_size - 1] : 0;
}

struct data {
    struct list load;          // what is in the map, in the order it was put
    struct list order;         // `operations` of these keys in another, random order, with other values: for updates
    struct list again;         // order's keys in a third order, with yet other values
    struct list absent;        // `operations` keys that are not in the map
    uint64_t load_bytes;       // keys and values
    uint64_t load_sum;         // of touch, over load's values
    uint64_t order_sum_before; // of touch, over the values that order's keys have in load
    uint64_t order_sum_after;  // of touch, over order's values
};

/* Never freed: it lives as long as its process. operations <= count. */
void data_make(struct data *data, const struct workload *workload, uint64_t seed, size_t count, size_t operations);

#endif
