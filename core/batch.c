/* batch.c - many keys in one call, their cache misses overlapped. Contract: opendiskmap.h.
 *
 * Calls map.h and reader.h. Keys are taken in groups: first all are hashed and their slots fetched, then the slots are looked
 * at and the records fetched; then the records are looked at. What was not found so is looked up the ordinary way; and each key
 * of a batch of writes is written the ordinary way.
 */
#include <string.h>

#include "compact.h"
#include "map.h"
#include "status.h"

enum { GROUP = 64 }; // as many as a word has bits

static uint64_t end_before(const uint64_t *ends, size_t i)
{
    return i == 0 ? 0 : ends[i - 1];
}

/* Keys i of a batch. */
struct keys {
    const unsigned char *bytes;
    const uint64_t *ends; // NULL: each key has 8 bytes, and the compiler makes code for that
};

static inline size_t size_of_key(const struct keys *keys, size_t i)
{
    return keys->ends == NULL ? 8 : (size_t)(keys->ends[i] - end_before(keys->ends, i));
}

static inline const void *key_of(const struct keys *keys, size_t i, size_t *size)
{
    *size = size_of_key(keys, i);
    if (keys->ends == NULL) return keys->bytes + 8 * i;
    return *size == 0 ? NULL : keys->bytes + end_before(keys->ends, i);
}

/* A key of a group on its way. */
struct lookup {
    uint64_t hash;
    odm__u64 *line;               // at which its probe begins, or NULL
    struct record_header *record; // that is probably its own, or NULL
    uint64_t left;                // bytes that record's segment has from there
};

/* Into the second-level cache: the first has too few places for lines on their way, and the second is near enough. */
static inline __attribute__((always_inline)) void fetch_soon(const void *at)
{
    __builtin_prefetch(at, 0, 2);
}

static inline void fetch_slot_record(const struct reader *reader, uint64_t slot, size_t key_size, struct lookup *lookup)
{
    lookup->record = odm__views_aim(reader->views, slot, &lookup->left);
    // Fetching from NULL, where nothing is mapped, does no harm.
    uintptr_t record = (uintptr_t)lookup->record;
    fetch_soon((const void *)record);
    fetch_soon((const void *)(record + RECORD_HEADER_SIZE + padded(key_size))); // its value
}

/* For keys, a bit each, that are not in the first line of their probes: fetches the next line, then the record it names. */
static __attribute__((noinline)) void fetch_behind(struct reader *reader, struct keys keys, size_t first,
                                                   uint64_t unmatched, struct lookup *lookups)
{
    uint64_t behind = 0;
    for (; unmatched != 0; unmatched &= unmatched - 1) {
        int i = __builtin_ctzll(unmatched);
        odm__u64 *line = lookups[i].line;
        if (line == NULL || odm__line_empties(line) != 0) continue;
        behind |= UINT64_C(1) << i;
        fetch_soon(line + LINE_SLOTS); // There a probe goes on, but at the end of a chunk.
    }
    for (; behind != 0; behind &= behind - 1) {
        size_t i = (size_t)__builtin_ctzll(behind);
        uint64_t word;
        struct probe probe;
        if (odm__index_word(&reader->index, lookups[i].hash, &word, NULL) != ODM_OK) continue;
        odm__probe_start(&reader->index, word, lookups[i].hash, &probe);
        uint64_t slot = odm__probe_next(&probe);
        if (slot != SLOT_EMPTY) fetch_slot_record(reader, slot, size_of_key(&keys, first + i), &lookups[i]);
    }
}

/* Hashes a group of keys and brings what their lookups will touch into the cache. */
static inline __attribute__((always_inline)) void fetch_group(struct reader *reader, const struct keys *keys,
                                                              size_t first, size_t count, bool to_write,
                                                              struct lookup *lookups)
{
    const uint64_t seed = reader->seed;
    for (size_t i = 0; i < count; ++i) {
        struct lookup *lookup = &lookups[i];
        size_t key_size;
        const void *key = key_of(keys, first + i, &key_size);
        lookup->hash = hash_key(key, key_size, seed);
        lookup->line = odm__index_fetch(&reader->index, lookup->hash, to_write);
    }
    uint64_t unmatched = 0;
    for (size_t i = 0; i < count; ++i) {
        struct lookup *lookup = &lookups[i];
        uint32_t matches = lookup->line == NULL ? 0 : odm__line_matches(lookup->line, hash_tag(lookup->hash));
        if (__builtin_expect(matches == 0, 0)) {
            lookup->record = NULL;
            unmatched |= UINT64_C(1) << i;
            continue;
        }
        uint64_t slot = atomic_load_explicit(&lookup->line[__builtin_ctz(matches)], memory_order_acquire);
        fetch_slot_record(reader, slot, size_of_key(keys, first + i), lookup);
    }
    if (unmatched != 0) fetch_behind(reader, *keys, first, unmatched, lookups);
}

/* Checks that the ends never fall, that there are bytes if there are ends, and that no item is too big. */
static odm_status check_items(odm_map *map, const char *what, const void *bytes, const uint64_t *ends, size_t n,
                              uint64_t size_max)
{
    if (n == 0) return ODM_OK;
    if (ends == NULL) return odm__fail(&map->error, ODM_E_INVALID, "%s_ends is NULL", what);
    for (size_t i = 0; i < n; ++i) {
        uint64_t start = end_before(ends, i);
        if (ends[i] < start)
            return odm__fail(&map->error, ODM_E_INVALID, "%s_ends[%zu] is below the end before it", what, i);
        if (ends[i] - start > size_max) {
            return odm__fail(&map->error, ODM_E_TOO_BIG, "%s %zu has %llu bytes, at most %llu are possible", what, i,
                             (unsigned long long)(ends[i] - start), (unsigned long long)size_max);
        }
    }
    if (bytes == NULL && ends[n - 1] != 0) return odm__fail(&map->error, ODM_E_INVALID, "%ss is NULL", what);
    return ODM_OK;
}

/* What a get of many tells of its keys. */
struct answers {
    const void **values; // or NULL
    uint64_t *value_sizes;
};

static inline void answer(const struct answers *answers, size_t i, const struct record_header *record, size_t key_size)
{
    answers->value_sizes[i] = record == NULL ? ODM_ABSENT : record->value_size;
    if (answers->values == NULL) return;
    const unsigned char *value = record == NULL ? NULL : record_key(record) + padded(key_size);
    answers->values[i] = value;
    if (record != NULL) fetch_soon(value + record->value_size - 1); // Its end may be some lines away.
}

/* Looks up a group of keys; *done of them have their answers, also on an error. */
static inline __attribute__((always_inline)) odm_status get_group(struct reader *reader, const struct keys *keys,
                                                                  size_t first, size_t count,
                                                                  const struct answers *answers, size_t *done,
                                                                  odm_error *error)
{
    struct lookup lookups[GROUP];
    fetch_group(reader, keys, first, count, false, lookups);
    uint64_t others = 0; // the keys, a bit each, that the records fetched for them do not hold
    for (size_t i = 0; i < count; ++i) {
        const struct lookup *lookup = &lookups[i];
        size_t key_size;
        const void *key = key_of(keys, first + i, &key_size);
        if (__builtin_expect(lookup->record == NULL || !odm__record_holds(lookup->record, lookup->left, key, key_size),
                             0)) {
            others |= UINT64_C(1) << i;
        } else {
            answer(answers, first + i, lookup->record, key_size);
        }
    }
    // Asked once for all of the group: the reader has not looked anew since the first slot was fetched.
    const uint64_t all = UINT64_MAX >> (GROUP - count);
    if (odm__reader_is_stale(reader) || reader->verify) others = all;
    // What is given out is lent before the next lookup, which may let go of what is not.
    if (answers->values != NULL && others != all) reader->lent = true;

    for (*done = count; others != 0; others &= others - 1) {
        size_t i = (size_t)__builtin_ctzll(others), key_size;
        const struct record_header *record;
        const void *key = key_of(keys, first + i, &key_size);
        odm_status status = odm__reader_find(reader, key, key_size, lookups[i].hash, &record, error);
        if (status < 0) {
            *done = i;
            return status;
        }
        answer(answers, first + i, status == ODM_OK ? record : NULL, key_size);
        if (answers->values != NULL && status == ODM_OK) reader->lent = true;
    }
    return ODM_OK;
}

static inline __attribute__((always_inline)) odm_status get_groups(odm_map *map, const struct keys *keys, size_t count,
                                                                   const struct answers *answers, size_t *n)
{
    odm_status status = ODM_OK;
    while (status == ODM_OK && *n < count) {
        size_t group = count - *n < GROUP ? count - *n : GROUP, done;
        status = get_group(&map->reader, keys, *n, group, answers, &done, &map->error);
        *n += done;
    }
    return status;
}

static bool have_8_bytes_each(const uint64_t *ends, size_t n)
{
    uint64_t end = 8;
    for (size_t i = 0; i < n; ++i, end += 8) {
        if (ends[i] != end) return false;
    }
    return true;
}

odm_status odm_get_many(odm_map *map, size_t *n, const void *keys, const uint64_t *key_ends, const void **values,
                        uint64_t *value_sizes)
{
    if (map == NULL && n != NULL) *n = 0;
    if (map == NULL) return ODM_E_INVALID;
    if (n == NULL) return odm__fail(&map->error, ODM_E_INVALID, "odm_get_many: n is NULL");
    size_t count = *n;
    *n = 0;
    if (value_sizes == NULL && count != 0) {
        return odm__fail(&map->error, ODM_E_INVALID, "odm_get_many: value_sizes is NULL");
    }
    const struct answers answers = {values, value_sizes};
    if (keys != NULL && key_ends != NULL && have_8_bytes_each(key_ends, count)) {
        return get_groups(map, &(struct keys){keys, NULL}, count, &answers, n);
    }
    odm_status status = check_items(map, "key", keys, key_ends, count, ODM_KEY_SIZE_MAX);
    return status == ODM_OK ? get_groups(map, &(struct keys){keys, key_ends}, count, &answers, n) : status;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

struct batch {
    size_t count;
    struct keys keys;
    const unsigned char *values;
    const uint64_t *value_ends; // NULL if every operation is a remove
    const uint8_t *ops;         // NULL = all puts
};

static uint8_t op_of(const struct batch *batch, size_t i)
{
    return batch->ops == NULL ? ODM_OP_PUT : batch->ops[i];
}

static uint64_t value_size_of(const struct batch *batch, size_t i)
{
    return batch->value_ends == NULL ? 0 : batch->value_ends[i] - end_before(batch->value_ends, i);
}

static odm_status check_batch(odm_map *map, const struct batch *batch)
{
    odm_status status = check_items(map, "key", batch->keys.bytes, batch->keys.ends, batch->count, ODM_KEY_SIZE_MAX);
    if (status == ODM_OK && batch->value_ends != NULL) {
        status = check_items(map, "value", batch->values, batch->value_ends, batch->count, ODM_RECORD_SIZE_MAX);
    }
    for (size_t i = 0; status == ODM_OK && i < batch->count; ++i) {
        uint8_t op = op_of(batch, i);
        uint64_t value_size = value_size_of(batch, i);
        size_t key_size;
        (void)key_of(&batch->keys, i, &key_size);
        if (op > ODM_OP_REMOVE) {
            status = odm__fail(&map->error, ODM_E_INVALID, "ops[%zu] is %u, which is no operation", i, op);
        } else if (op == ODM_OP_REMOVE && value_size != 0) {
            status = odm__fail(&map->error, ODM_E_INVALID, "ops[%zu] is a remove, but has a value", i);
        } else if (op != ODM_OP_REMOVE && batch->value_ends == NULL) {
            status = odm__fail(&map->error, ODM_E_INVALID, "value_ends is NULL, but ops[%zu] needs a value", i);
        } else if (record_size(key_size, value_size) > ODM_RECORD_SIZE_MAX) {
            status = odm__fail(&map->error, ODM_E_TOO_BIG, "key and value %zu are too big together", i);
        }
    }
    return status;
}

static odm_status write_op(odm_map *map, const struct batch *batch, size_t i)
{
    uint8_t op = op_of(batch, i);
    struct write write = {
        .value_size = (size_t)value_size_of(batch, i),
        .kind = op == ODM_OP_REMOVE ? RECORD_REMOVE : RECORD_PUT,
        .condition = op == ODM_OP_INSERT ? IF_ABSENT : ALWAYS,
    };
    write.key = key_of(&batch->keys, i, &write.key_size);
    if (write.value_size != 0) write.value = batch->values + end_before(batch->value_ends, i);
    return odm__write(map, &write);
}

odm_status odm_write_many(odm_map *map, size_t *n, const uint8_t *ops, const void *keys, const uint64_t *key_ends,
                          const void *values, const uint64_t *value_ends, uint8_t *outcomes)
{
    if (map == NULL && n != NULL) *n = 0;
    if (map == NULL) return ODM_E_INVALID;
    if (n == NULL) return odm__fail(&map->error, ODM_E_INVALID, "odm_write_many: n is NULL");
    struct batch batch = {*n, {keys, key_ends}, values, value_ends, ops};
    *n = 0;
    odm_status status = check_batch(map, &batch);
    if (status == ODM_OK && batch.count != 0) status = odm__store_begin_writing(map->store, map->wait_ms, &map->error);
    if (status != ODM_OK) return status;

    struct lookup lookups[GROUP];
    while (*n < batch.count) {
        size_t group = batch.count - *n < GROUP ? batch.count - *n : GROUP;
        fetch_group(&map->reader, &batch.keys, *n, group, true, lookups);
        for (size_t i = 0; i < group; ++i) {
            status = write_op(map, &batch, *n);
            if (status < 0) return status;
            if (outcomes != NULL) outcomes[*n] = (uint8_t)status;
            ++*n;
        }
    }
    return ODM_OK;
}
