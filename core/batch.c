/* batch.c - many keys in one call, their cache misses overlapped. Contract: opendiskmap.h.
 *
 * Calls map.h and reader.h. Keys are taken in groups: first all are hashed and their slots fetched, then the slots are looked
 * at and the records fetched; only then is each key looked up, or written, the ordinary way.
 */
#include <string.h>

#include "compact.h"
#include "map.h"
#include "status.h"

enum { GROUP = 64 };

static uint64_t end_before(const uint64_t *ends, size_t i)
{
    return i == 0 ? 0 : ends[i - 1];
}

/* Keys i of a batch. */
struct keys {
    const unsigned char *bytes;
    const uint64_t *ends;
};

static const void *key_of(const struct keys *keys, size_t i, size_t *size)
{
    uint64_t start = end_before(keys->ends, i);
    *size = (size_t)(keys->ends[i] - start);
    return *size == 0 ? NULL : keys->bytes + start;
}

/* A key of a group on its way. */
struct lookup {
    const unsigned char *key;
    size_t key_size;
    uint64_t hash;
    odm__u64 *line;               // at which its probe begins, or NULL
    struct record_header *record; // that is probably its own, or NULL
    uint64_t left;                // bytes that record's segment has from there
};

/* Hashes a group of keys and brings what their lookups will touch into the cache. */
static inline __attribute__((always_inline)) void fetch_group(struct reader *reader, const struct keys *keys,
                                                              size_t first, size_t count, bool to_write,
                                                              struct lookup *lookups)
{
    uint64_t start = end_before(keys->ends, first);
    for (size_t i = 0; i < count; ++i) {
        struct lookup *lookup = &lookups[i];
        uint64_t end = keys->ends[first + i];
        lookup->key_size = (size_t)(end - start);
        lookup->key = lookup->key_size == 0 ? NULL : keys->bytes + start;
        lookup->hash = hash_key(lookup->key, lookup->key_size, reader->seed);
        lookup->line = odm__index_fetch(&reader->index, lookup->hash, to_write);
        start = end;
    }
    for (size_t i = 0; i < count; ++i) {
        struct lookup *lookup = &lookups[i];
        uint32_t matches = lookup->line == NULL ? 0 : odm__line_matches(lookup->line, hash_tag(lookup->hash));
        lookup->record = NULL;
        if (__builtin_expect(matches == 0, 0)) continue;
        uint64_t slot = atomic_load_explicit(&lookup->line[__builtin_ctz(matches)], memory_order_acquire);
        lookup->record = odm__views_aim(reader->views, slot, &lookup->left);
        // Prefetching from NULL, where nothing is mapped, does no harm.
        uintptr_t record = (uintptr_t)lookup->record;
        __builtin_prefetch((const void *)record);
        __builtin_prefetch((const void *)(record + RECORD_HEADER_SIZE + padded(lookup->key_size))); // its value
    }
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

/* What a reader looked through: each index counts for itself what was recycled. */
struct outlook {
    uint64_t recycled;
    uint64_t generation;
};

static inline struct outlook outlook_of(const struct reader *reader)
{
    return (struct outlook){reader->recycled, reader->generation};
}

static inline bool same_outlook(const struct reader *reader, const struct outlook *outlook)
{
    return reader->recycled == outlook->recycled && reader->generation == outlook->generation;
}

/* Looks at the record that was fetched; if it is not the key's, looks the key up the ordinary way. */
static inline odm_status find_fetched(struct reader *reader, const struct lookup *lookup, const struct outlook *outlook,
                                      const struct record_header **record, odm_error *error)
{
    // What was fetched before the reader has looked anew is not believed, nor looked at: it may be unmapped.
    bool found = same_outlook(reader, outlook) && lookup->record != NULL &&
                 odm__record_holds(lookup->record, lookup->left, lookup->key, lookup->key_size);
    *record = lookup->record;
    if (__builtin_expect(found && !odm__reader_is_stale(reader) && !reader->verify, 1)) return ODM_OK;
    return odm__reader_find(reader, lookup->key, lookup->key_size, lookup->hash, record, error);
}

odm_status odm_get_many(odm_map *map, size_t *n, const void *keys, const uint64_t *key_ends, const void **values,
                        uint64_t *value_sizes)
{
    if (map == NULL) return ODM_E_INVALID;
    if (n == NULL || (value_sizes == NULL && *n != 0)) {
        return odm__fail(&map->error, ODM_E_INVALID, "odm_get_many: n or value_sizes is NULL");
    }
    size_t count = *n;
    *n = 0;
    odm_status status = check_items(map, "key", keys, key_ends, count, ODM_KEY_SIZE_MAX);
    if (status != ODM_OK) return status;

    struct reader *reader = &map->reader;
    struct keys packed = {keys, key_ends};
    struct lookup lookups[GROUP];
    while (*n < count) {
        size_t first = *n, group = count - first < GROUP ? count - first : GROUP;
        struct outlook outlook = outlook_of(reader);
        fetch_group(reader, &packed, first, group, false, lookups);
        for (size_t i = 0; i < group; ++i, ++*n) {
            const struct record_header *record;
            status = find_fetched(reader, &lookups[i], &outlook, &record, &map->error);
            if (status < 0) return status;
            bool found = status == ODM_OK;
            value_sizes[first + i] = found ? record->value_size : ODM_ABSENT;
            if (values == NULL) continue;
            values[first + i] = found ? record_key(record) + padded(lookups[i].key_size) : NULL;
            if (found) reader->lent = true;
        }
    }
    return ODM_OK;
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
