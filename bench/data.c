#include "data.h"

#include <stdlib.h>
#include <string.h>

static const struct workload workloads[] = {
    {"seed", "random alphanumeric keys of 1-25 bytes, values of 1-250", false, 1, 25, 1, 250},
    {"u64", "random 8-byte integer keys, values of 1-250 bytes", true, 8, 8, 1, 250},
    {"counter", "random 8-byte integer keys, values of 8 bytes", true, 8, 8, 8, 8},
};

enum { KEY_SIZE_MAX = 25, VALUE_SIZE_MAX = 250 };

/* Values are slices of one pool of random bytes. It fits the second-level cache: writers of real values have just made
 * them. */
enum { POOL_SIZE = 1 << 19, POOL_SLACK = BENCH_BLOCK_SIZE * VALUE_SIZE_MAX };
static _Alignas(8) uint8_t pool[POOL_SIZE + POOL_SLACK];

const struct workload *workload_find(const char *name)
{
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        if (strcmp(workloads[i].name, name) == 0) return &workloads[i];
    }
    return NULL;
}

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

/* The finalizer of SplitMix64: one to one, and every bit of the result depends on every bit of x. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t random_next(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(*state);
}

/* Evenly from 0 to limit - 1, as good as: limit is far below 2^32. */
static size_t below(uint64_t random, size_t limit)
{
    return (size_t)(((random >> 32) * limit) >> 32);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) bench_die("out of memory: %zu x %zu bytes", count, size);
    return memory;
}

/* ---- distinct keys ----------------------------------------------------------------------------------------------- */

/* The hashes of all keys so far. A key whose hash was seen is drawn again, whether or not it is really the same key:
 * that makes them distinct without keeping them. Integer keys are all different anyhow: mix is one to one. */
struct seen {
    uint64_t *hashes; // 0 is an empty place
    size_t mask;
};

static struct seen seen_make(size_t count)
{
    size_t places = 16;
    while (places < count * 2) places *= 2;
    return (struct seen){allocate(places, sizeof(uint64_t)), places - 1};
}

static bool seen_add(struct seen *seen, const uint8_t *key, size_t key_size)
{
    uint64_t hash = mix(key_size);
    for (size_t i = 0; i < key_size; i += sizeof(uint64_t)) {
        uint64_t word = 0;
        size_t left = key_size - i;
        memcpy(&word, key + i, left < sizeof word ? left : sizeof word);
        hash = mix(hash ^ word) + i;
    }
    if (hash == 0) hash = 1;

    size_t place = (size_t)hash & seen->mask;
    while (seen->hashes[place] != 0) {
        if (seen->hashes[place] == hash) return false;
        place = (place + 1) & seen->mask;
    }
    seen->hashes[place] = hash;
    return true;
}

/* Draws the size as well on every attempt: there are only 62 keys of one byte. */
static size_t draw_key(const struct workload *workload, uint64_t *state, uint8_t *key)
{
    static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    if (workload->u64_keys) {
        uint64_t number = random_next(state);
        memcpy(key, &number, sizeof number);
        return sizeof number;
    }
    size_t size =
        workload->key_size_min + below(random_next(state), workload->key_size_max - workload->key_size_min + 1);
    for (size_t i = 0; i < size; i++) key[i] = (uint8_t)alphabet[below(random_next(state), sizeof alphabet - 1)];
    return size;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static void list_make(struct list *list, const struct workload *workload, size_t capacity)
{
    size_t blocks = capacity / BENCH_BLOCK_SIZE + 1;
    list->count = 0;
    list->keys = allocate(capacity, workload->key_size_max);
    list->block_starts = allocate(blocks, sizeof *list->block_starts);
    list->key_ends = allocate(capacity, sizeof *list->key_ends);
    list->values = allocate(blocks, sizeof *list->values);
    list->value_ends = allocate(capacity, sizeof *list->value_ends);
}

/* salt decides about the values' sizes and bytes: lists with different salts have different values. */
static void list_append(struct list *list, const struct workload *workload, const void *key, size_t key_size,
                        uint64_t salt)
{
    size_t i = list->count++;
    size_t number = i / BENCH_BLOCK_SIZE;
    uint64_t key_begin = 0;
    uint64_t value_begin = 0;
    if (i % BENCH_BLOCK_SIZE == 0) {
        uint64_t start = i ? list->block_starts[number - 1] + list->key_ends[i - 1] : 0;
        list->block_starts[number] = start;
        // A multiple of 8: integers are 8-byte aligned.
        list->values[number] = pool + below(mix(salt ^ mix(number)), POOL_SIZE / 8) * 8;
    } else {
        key_begin = list->key_ends[i - 1];
        value_begin = list->value_ends[i - 1];
    }
    size_t value_size =
        workload->value_size_min + below(mix(salt + i), workload->value_size_max - workload->value_size_min + 1);
    memcpy(list->keys + list->block_starts[number] + key_begin, key, key_size);
    list->key_ends[i] = key_begin + key_size;
    list->value_ends[i] = value_begin + value_size;
}

static const uint8_t *list_key(const struct list *list, size_t i, size_t *key_size)
{
    uint64_t begin = i % BENCH_BLOCK_SIZE ? list->key_ends[i - 1] : 0;
    *key_size = (size_t)(list->key_ends[i] - begin);
    return list->keys + list->block_starts[i / BENCH_BLOCK_SIZE] + begin;
}

static const uint8_t *list_value(const struct list *list, size_t i, size_t *value_size)
{
    uint64_t begin = i % BENCH_BLOCK_SIZE ? list->value_ends[i - 1] : 0;
    *value_size = (size_t)(list->value_ends[i] - begin);
    return list->values[i / BENCH_BLOCK_SIZE] + begin;
}

/* Fills `to` with capacity distinct keys. */
static void list_draw(struct list *to, const struct workload *workload, size_t capacity, struct seen *seen,
                      uint64_t *state, uint64_t salt)
{
    list_make(to, workload, capacity);
    while (to->count < capacity) {
        uint8_t key[KEY_SIZE_MAX];
        size_t key_size = draw_key(workload, state, key);
        if (workload->u64_keys || seen_add(seen, key, key_size)) list_append(to, workload, key, key_size, salt);
    }
}

/* The first `operations` of a random permutation of 0 .. count - 1 (Fisher and Yates). */
static uint32_t *permutation(size_t count, size_t operations, uint64_t state)
{
    uint32_t *indexes = allocate(count, sizeof *indexes);
    for (size_t i = 0; i < count; i++) indexes[i] = (uint32_t)i;
    for (size_t i = 0; i < operations; i++) {
        size_t other = i + below(random_next(&state), count - i);
        uint32_t index = indexes[other];
        indexes[other] = indexes[i];
        indexes[i] = index;
    }
    return indexes;
}

void data_make(struct data *data, const struct workload *workload, uint64_t seed, size_t count, size_t operations)
{
    if (count == 0 || count > UINT32_MAX || operations > count) bench_die("a size of %zu is not possible", count);
    *data = (struct data){0};

    uint64_t pool_state = mix(seed) + 1;
    for (size_t i = 0; i < sizeof pool; i++) pool[i] = (uint8_t)random_next(&pool_state);

    uint64_t state = mix(seed);
    struct seen seen = seen_make(workload->u64_keys ? 0 : count + operations);
    list_draw(&data->load, workload, count, &seen, &state, mix(seed + 1));
    list_draw(&data->absent, workload, operations, &seen, &state, mix(seed + 2));
    free(seen.hashes);

    for (size_t i = 0; i < count; i++) {
        size_t key_size, value_size;
        list_key(&data->load, i, &key_size);
        const uint8_t *value = list_value(&data->load, i, &value_size);
        data->load_bytes += key_size + value_size;
        data->load_sum += touch(value, value_size);
    }

    list_make(&data->order, workload, operations);
    uint32_t *indexes = permutation(count, operations, mix(seed + 3));
    for (size_t i = 0; i < operations; i++) {
        size_t key_size, value_size;
        const uint8_t *value = list_value(&data->load, indexes[i], &value_size);
        data->order_sum_before += touch(value, value_size);
        const uint8_t *key = list_key(&data->load, indexes[i], &key_size);
        list_append(&data->order, workload, key, key_size, mix(seed + 4));
        value = list_value(&data->order, i, &value_size);
        data->order_sum_after += touch(value, value_size);
    }
    free(indexes);

    list_make(&data->again, workload, operations);
    indexes = permutation(operations, operations, mix(seed + 5));
    for (size_t i = 0; i < operations; i++) {
        size_t key_size;
        const uint8_t *key = list_key(&data->order, indexes[i], &key_size);
        list_append(&data->again, workload, key, key_size, mix(seed + 6));
    }
    free(indexes);
}
