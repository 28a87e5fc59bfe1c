/* model.c - random operations on a map and on a model of it; whatever they differ in is shown with its seed.
 *
 * ODM_TEST_OPERATIONS sets how many operations each shape of map gets, ODM_TEST_SEED which ones. */
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "hash.h"
#include "image.h"
#include "oracle.h"
#include "support.h"

#if defined(__SANITIZE_THREAD__)
enum { OPERATIONS_USUAL = 1000 };
#else
enum { OPERATIONS_USUAL = 4000 };
#endif
enum { IDS = 400, HANDLES = 3, HELD_MAX = 64, SEGMENTS_MAX = 350 };

TestSuite(model, .fini = remove_temp_directories, .timeout = 120);

/* One map, what it should hold, and who looks at it. */
struct run {
    const char *path;
    uint32_t stripes;
    odm_map *maps[HANDLES];
    struct oracle oracle;
    struct sequence sequence;
    uint64_t boot;
    size_t operation;
    size_t held_count;
    struct held {
        unsigned handle;
        const void *value;
        uint64_t tag;
        uint32_t size;
    } held[HELD_MAX];
};

/* The detail of the handles' last errors. */
static const char *last_message(const struct run *run)
{
    static char text[HANDLES * 240];
    text[0] = '\0';
    for (unsigned i = 0; i < HANDLES; ++i) {
        odm_error error = {.struct_size = sizeof error};
        if (odm_last_error(run->maps[i], &error) == ODM_OK) strcat(text, error.message);
    }
    return text;
}

#define RIGHT(run, condition)                                                                                         \
    cr_assert(condition, "seed %llu, operation %zu: not so: %s", (unsigned long long)seed_of_run(), (run)->operation, \
              #condition)
#define RIGHT_STATUS(run, call, expected)                                                                              \
    do {                                                                                                               \
        odm_status status_is = (call);                                                                                 \
        cr_assert_eq(status_is, expected, "seed %llu, operation %zu: %s is %s, %s", (unsigned long long)seed_of_run(), \
                     (run)->operation, #call, odm_status_name(status_is), last_message(run));                          \
    } while (0)

static uint64_t below(struct run *run, uint64_t limit)
{
    return sequence_below(&run->sequence, limit);
}

static void check_all(struct run *run)
{
    const char *why = oracle_mismatch(&run->oracle, run->maps[0]);
    cr_assert_null(why, "seed %llu, operation %zu: %s", (unsigned long long)seed_of_run(), run->operation, why);
}

/* ---- slices that were lent ---------------------------------------------------------------------------------------- */

static void check_held(struct run *run, unsigned handle, bool drop)
{
    size_t kept = 0;
    for (size_t i = 0; i < run->held_count; ++i) {
        struct held *held = &run->held[i];
        if (held->handle == handle) RIGHT(run, value_has_tag(held->value, held->size, held->tag));
        if (!drop || held->handle != handle) run->held[kept++] = *held;
    }
    run->held_count = kept;
}

static void hold(struct run *run, unsigned handle, const void *value, const struct oracle_entry *entry)
{
    size_t place = run->held_count < HELD_MAX ? run->held_count++ : below(run, HELD_MAX);
    run->held[place] = (struct held){handle, value, entry->tag, entry->size};
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

static void get_one(struct run *run, unsigned handle)
{
    uint32_t id = (uint32_t)below(run, IDS);
    const struct oracle_entry *entry = &run->oracle.entries[id];
    size_t key_size, size = 12345;
    const void *value = NULL;
    const void *key = key_of_id(id, &key_size);
    RIGHT_STATUS(run, odm_get(run->maps[handle], key, key_size, &value, &size),
                 entry->present ? ODM_OK : ODM_NOT_FOUND);
    if (!entry->present) return;
    RIGHT(run, size == entry->size && value != NULL && (uintptr_t)value % 8 == 0);
    RIGHT(run, value_has_tag(value, size, entry->tag));
    if (below(run, 4) == 0) hold(run, handle, value, entry);
}

static void write_one(struct run *run, unsigned handle)
{
    struct test_write write = write_random(&run->sequence, IDS, UINT32_MAX, true);
    size_t key_size;
    const void *key = key_of_id(write.id, &key_size);
    if (write.kind == WRITE_REMOVE) {
        bool present = run->oracle.entries[write.id].present;
        RIGHT_STATUS(run, odm_remove(run->maps[handle], key, key_size), present ? ODM_OK : ODM_NOT_FOUND);
    } else {
        RIGHT_STATUS(run, write_do(&write, run->maps[handle]), ODM_OK);
    }
    write_apply(&write, &run->oracle);
}

/* The value put is a slice of the same map. */
static void put_own_slice(struct run *run, unsigned handle)
{
    uint32_t from = (uint32_t)below(run, IDS), to = (uint32_t)below(run, IDS);
    const struct oracle_entry entry = run->oracle.entries[from];
    size_t key_size, size;
    const void *value;
    const void *key = key_of_id(from, &key_size);
    if (odm_get(run->maps[handle], key, key_size, &value, &size) != ODM_OK) return;
    key = key_of_id(to, &key_size);
    RIGHT_STATUS(run, odm_put(run->maps[handle], key, key_size, value, size), ODM_OK);
    oracle_put(&run->oracle, to, entry.tag, entry.size);
}

/* Conditional writes: with the right version, with one that was right before, and with 0. */
static void write_entry(struct run *run, unsigned handle)
{
    struct test_write write = write_random(&run->sequence, IDS, 2000, false);
    struct oracle_entry *entry = &run->oracle.entries[write.id];
    odm_map *map = run->maps[handle];
    size_t key_size;
    const void *key = key_of_id(write.id, &key_size), *value = value_of_tag(write.tag, write.size);
    uint64_t version = 99;
    RIGHT_STATUS(run, odm_entry_get(map, key, key_size, NULL, NULL, &version), entry->present ? ODM_OK : ODM_NOT_FOUND);
    RIGHT(run, (version != 0) == entry->present);

    uint64_t stale = version == 0 ? 8 : version;
    if (below(run, 2) == 0 && version != 0) {
        // The same bytes again make another version all the same.
        const void *same;
        size_t same_size;
        RIGHT_STATUS(run, odm_get(map, key, key_size, &same, &same_size), ODM_OK);
        RIGHT_STATUS(run, odm_put(map, key, key_size, same, same_size), ODM_OK);
        uint64_t newer;
        RIGHT_STATUS(run, odm_entry_get(map, key, key_size, NULL, NULL, &newer), ODM_OK);
        RIGHT(run, newer != version);
        version = newer;
    } else {
        stale += 1;
    }
    switch (below(run, 5)) {
        case 0: RIGHT_STATUS(run, odm_entry_put(map, key, key_size, value, write.size, stale), ODM_CONFLICT); break;
        case 1: RIGHT_STATUS(run, odm_entry_remove(map, key, key_size, stale), ODM_CONFLICT); break;
        case 2:
            RIGHT_STATUS(run, odm_entry_put(map, key, key_size, value, write.size, 0),
                         entry->present ? ODM_EXISTS : ODM_OK);
            if (!entry->present) oracle_put(&run->oracle, write.id, write.tag, write.size);
            break;
        case 3:
            if (version == 0) break;
            RIGHT_STATUS(run, odm_entry_put(map, key, key_size, value, write.size, version), ODM_OK);
            RIGHT_STATUS(run, odm_entry_remove(map, key, key_size, version), ODM_CONFLICT);
            oracle_put(&run->oracle, write.id, write.tag, write.size);
            break;
        default:
            if (version == 0) break;
            RIGHT_STATUS(run, odm_entry_remove(map, key, key_size, version), ODM_OK);
            RIGHT_STATUS(run, odm_entry_put(map, key, key_size, value, write.size, version), ODM_CONFLICT);
            oracle_remove(&run->oracle, write.id);
    }
}

/* ---- many keys ---------------------------------------------------------------------------------------------------- */

enum { MANY_MAX = 150 };
struct packed {
    unsigned char *bytes;
    size_t size;
    uint64_t ends[MANY_MAX];
};

static void pack(struct packed *packed, size_t i, const void *bytes, size_t size)
{
    packed->bytes = realloc(packed->bytes, packed->size + size + 1);
    if (size != 0) memcpy(packed->bytes + packed->size, bytes, size);
    packed->size += size;
    packed->ends[i] = packed->size;
}

static void get_many(struct run *run, unsigned handle)
{
    struct packed keys = {.bytes = NULL};
    uint32_t ids[MANY_MAX];
    size_t count = below(run, MANY_MAX + 1), n = count;
    for (size_t i = 0; i < count; ++i) {
        size_t key_size;
        ids[i] = (uint32_t)below(run, IDS);
        const void *key = key_of_id(ids[i], &key_size);
        pack(&keys, i, key, key_size);
    }
    const void *values[MANY_MAX];
    uint64_t sizes[MANY_MAX];
    bool only_sizes = below(run, 4) == 0;
    RIGHT_STATUS(run, odm_get_many(run->maps[handle], &n, keys.bytes, keys.ends, only_sizes ? NULL : values, sizes),
                 ODM_OK);
    RIGHT(run, n == count);
    for (size_t i = 0; i < count; ++i) {
        const struct oracle_entry *entry = &run->oracle.entries[ids[i]];
        RIGHT(run, sizes[i] == (entry->present ? entry->size : ODM_ABSENT));
        if (only_sizes) continue;
        RIGHT(run, (values[i] != NULL) == entry->present);
        if (!entry->present) continue;
        RIGHT(run, value_has_tag(values[i], entry->size, entry->tag));
        if (below(run, 16) == 0) hold(run, handle, values[i], entry);
    }
    free(keys.bytes);
}

static void write_many(struct run *run, unsigned handle)
{
    struct packed keys = {.bytes = NULL}, values = {.bytes = NULL};
    uint8_t ops[MANY_MAX], outcomes[MANY_MAX], right[MANY_MAX];
    size_t count = below(run, MANY_MAX + 1), n = count;
    bool only_puts = below(run, 3) == 0;
    for (size_t i = 0; i < count; ++i) {
        struct test_write write = write_random(&run->sequence, IDS, 5000, false);
        bool present = run->oracle.entries[write.id].present;
        size_t key_size;
        const void *key = key_of_id(write.id, &key_size);
        ops[i] = only_puts ? ODM_OP_PUT : (uint8_t)below(run, 3);
        if (ops[i] == ODM_OP_REMOVE) write.size = 0;
        pack(&keys, i, key, key_size);
        pack(&values, i, value_of_tag(write.tag, write.size), write.size);
        right[i] = ODM_OK;
        if (ops[i] == ODM_OP_INSERT && present) right[i] = ODM_EXISTS;
        if (ops[i] == ODM_OP_REMOVE && !present) right[i] = ODM_NOT_FOUND;
        if (ops[i] == ODM_OP_REMOVE) oracle_remove(&run->oracle, write.id);
        if (ops[i] != ODM_OP_REMOVE && right[i] == ODM_OK) oracle_put(&run->oracle, write.id, write.tag, write.size);
    }
    memset(outcomes, 77, sizeof outcomes);
    RIGHT_STATUS(run,
                 odm_write_many(run->maps[handle], &n, only_puts ? NULL : ops, keys.bytes, keys.ends, values.bytes,
                                values.ends, outcomes),
                 ODM_OK);
    RIGHT(run, n == count);
    RIGHT(run, count == 0 || memcmp(outcomes, right, count) == 0);
    free(keys.bytes);
    free(values.bytes);
}

/* ---- walking ------------------------------------------------------------------------------------------------------ */

/* Walks while the map is changed: who is there throughout comes exactly once, nobody twice, and every value is current. Some
 * walks are broken off and resumed from their position, on another handle: then entries may come again, but only those of
 * one chunk. */
static void walk_and_change(struct run *run)
{
    uint8_t *came = calloc(IDS, 1);
    bool *throughout = calloc(IDS, sizeof *throughout);
    for (uint32_t id = 0; id < IDS; ++id) throughout[id] = run->oracle.entries[id].present;
    bool resumes = below(run, 2) == 0, changes = below(run, 3) != 0;
    size_t until = below(run, run->oracle.count + 1), seen = 0, again = 0;
    unsigned handle = 0;
    odm_iter *iter;
    RIGHT_STATUS(run, odm_iter_open(run->maps[handle], &iter), ODM_OK);
    for (;;) {
        const void *keys[7], *values[7];
        uint64_t key_sizes[7], value_sizes[7];
        size_t n = 1 + below(run, 7);
        odm_status status = odm_iter_next_many(iter, &n, keys, key_sizes, values, value_sizes);
        if (status == ODM_DONE) RIGHT(run, n == 0);
        if (status == ODM_DONE) break;
        RIGHT_STATUS(run, status, ODM_OK);
        for (size_t i = 0; i < n; ++i) {
            uint32_t id = id_of_key(keys[i], key_sizes[i]);
            RIGHT(run, id < IDS);
            const struct oracle_entry *entry = &run->oracle.entries[id];
            RIGHT(run, entry->present && value_sizes[i] == entry->size);
            RIGHT(run, value_has_tag(values[i], value_sizes[i], entry->tag));
            again += came[id];
            if (!resumes) RIGHT(run, !came[id]);
            came[id] = 1;
        }
        seen += n;
        if (resumes && until != SIZE_MAX && seen >= until) {
            until = SIZE_MAX;
            uint64_t position;
            RIGHT_STATUS(run, odm_iter_position(iter, &position), ODM_OK);
            RIGHT_STATUS(run, odm_iter_close(iter), ODM_OK);
            handle = HANDLES - 1;
            RIGHT_STATUS(run, odm_iter_open(run->maps[handle], &iter), ODM_OK);
            RIGHT_STATUS(run, odm_iter_seek(iter, position), ODM_OK);
        }
        for (uint64_t left = changes ? below(run, 6) : 0; left > 0; --left) {
            struct test_write write = write_random(&run->sequence, IDS, 1000, false);
            RIGHT_STATUS(run, write_do(&write, run->maps[below(run, HANDLES)]), ODM_OK);
            write_apply(&write, &run->oracle);
            if (write.kind == WRITE_REMOVE) throughout[write.id] = false;
        }
    }
    uint64_t position;
    RIGHT_STATUS(run, odm_iter_position(iter, &position), ODM_OK);
    RIGHT(run, position == UINT64_MAX);
    RIGHT_STATUS(run, odm_iter_close(iter), ODM_OK);
    for (uint32_t id = 0; id < IDS; ++id) RIGHT(run, !throughout[id] || came[id]);
    if (odm__test_hash_mask == UINT64_MAX) RIGHT(run, again <= CHUNK_SLOTS);
    free(came);
    free(throughout);
}

/* ---- opening again ------------------------------------------------------------------------------------------------ */

static void open_all(struct run *run)
{
    run->maps[0] = open_map(run->path, .stripes = run->stripes);
    for (unsigned i = 1; i < HANDLES; ++i) {
        run->maps[i] = NULL;
        if (i % 2 == 1) RIGHT_STATUS(run, odm_dup(run->maps[0], &run->maps[i], NULL), ODM_OK);
        if (i % 2 == 0) run->maps[i] = open_map(run->path);
    }
}

static void close_all(struct run *run)
{
    for (unsigned i = 0; i < HANDLES; ++i) {
        check_held(run, i, true);
        RIGHT_STATUS(run, odm_close(run->maps[i]), ODM_OK);
    }
}

static void reopen(struct run *run, bool reboot)
{
    odm_statistics before = statistics_of(run->maps[0]);
    close_all(run);
    if (reboot) lie_about_boot(++run->boot);
    open_all(run);
    odm_statistics after = statistics_of(run->maps[0]);
    // A long log was stamped when it was closed, so a reboot leaves nothing to do.
    bool rebuilt = reboot && before.log_bytes <= STAMP_LOG_BYTES_MIN;
    RIGHT(run, after.recovery_kind == (rebuilt ? ODM_RECOVERY_CUT : before.recovery_kind));
    RIGHT(run, after.recovery_from == 0 && after.recovery_bytes_cut == 0);
    // Where nothing was to be done the log goes on at its tail.
    RIGHT(run, rebuilt ? after.tail > before.tail : after.tail == before.tail);
    RIGHT(run, after.stripes == run->stripes);
    check_all(run);
}

/* Each reboot begins a segment, and this version gives none back: before their numbers run out, another map. */
static void begin_anew_if_long(struct run *run)
{
    odm_statistics statistics = statistics_of(run->maps[0]);
    if ((statistics.tail >> ADDRESS_OFFSET_BITS) - (statistics.head >> ADDRESS_OFFSET_BITS) < SEGMENTS_MAX) return;
    close_all(run);
    remove_tree(run->path);
    oracle_clear(&run->oracle);
    open_all(run);
}

static void operate(struct run *run)
{
    unsigned handle = (unsigned)below(run, HANDLES);
    uint64_t choice = below(run, 1000);
    if (choice < 350) {
        get_one(run, handle);
    } else if (choice < 750) {
        write_one(run, handle);
    } else if (choice < 780) {
        put_own_slice(run, handle);
    } else if (choice < 860) {
        write_entry(run, handle);
    } else if (choice < 890) {
        get_many(run, handle);
    } else if (choice < 910) {
        write_many(run, handle);
    } else if (choice < 950) {
        check_held(run, handle, true);
        RIGHT_STATUS(run, odm_refresh(run->maps[handle]), ODM_OK);
    } else if (choice < 975) {
        RIGHT(run, odm_count(run->maps[handle]) == run->oracle.count);
    } else if (choice < 985) {
        walk_and_change(run);
    } else if (choice < 990) {
        check_all(run);
        check_held(run, 0, false);
    } else if (choice < 994) {
        RIGHT_STATUS(run, odm_sync(run->maps[handle], NULL), ODM_OK);
        odm_statistics statistics = statistics_of(run->maps[handle]);
        RIGHT(run, statistics.watermark == statistics.tail);
    } else if (choice < 997) {
        reopen(run, false);
    } else if (choice < 998) {
        reopen(run, true);
    } else {
        begin_anew_if_long(run);
    }
}

static void run_model(uint32_t stripes, uint64_t hash_mask, uint64_t salt)
{
    struct run run = {.path = temp_map_path(), .stripes = stripes, .sequence = sequence_start(salt)};
    lies_begin();
    odm__test_hash_mask = hash_mask;
    oracle_init(&run.oracle, IDS);
    open_all(&run);
    size_t operations = count_of("ODM_TEST_OPERATIONS", OPERATIONS_USUAL);
    for (; run.operation < operations; ++run.operation) operate(&run);
    check_all(&run);
    reopen(&run, false);
    reopen(&run, true);
    close_all(&run);
    oracle_free(&run.oracle);
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

#define SOME_HASHES (UINT64_C(0xc000000000001003)) // 32 of them, so that about a dozen keys share each

/* A map is what its model is, whatever was done to it.
 * Method: the same random operation on both, and now and then a look at all: gets, walks, counts, live bytes. */
Test(model, holds_with_1_stripe)
{
    run_model(1, UINT64_MAX, 1);
}
Test(model, holds_with_2_stripes)
{
    run_model(2, UINT64_MAX, 2);
}
Test(model, holds_with_16_stripes)
{
    run_model(16, UINT64_MAX, 16);
}
Test(model, holds_with_64_stripes)
{
    run_model(64, UINT64_MAX, 64);
}

/* No key is refused because others have its hash; such keys lie in chunks that grow instead of being split. */
Test(model, holds_with_keys_of_equal_hash_in_1_stripe)
{
    run_model(1, SOME_HASHES, 101);
}
Test(model, holds_with_keys_of_equal_hash_in_16_stripes)
{
    run_model(16, SOME_HASHES, 116);
}
Test(model, holds_with_one_hash_for_all_keys)
{
    run_model(2, 0, 102);
}

/* Hashes that only differ at the bottom are told apart by reading the records: the index keeps but the top bits. */
Test(model, holds_with_hashes_that_differ_low_down)
{
    run_model(2, UINT64_C(0x000fffff0fffffff), 103);
}

/* The lifetime rule: a slice stays as it is until its handle is refreshed.
 * Method: hold one slice of every value, overwrite and clear everything many times over through another handle, reboot or
 * not, and compare the held bytes. */
Test(model, held_slices_outlive_any_number_of_writes)
{
    lies_begin();
    struct sequence sequence = sequence_start(7);
    const char *path = temp_map_path();
    odm_map *reader = open_map(path, .stripes = 4), *writer = open_map(path);
    struct oracle oracle;
    oracle_init(&oracle, 200);
    for (uint32_t id = 0; id < 200; ++id) {
        struct test_write write = {WRITE_PUT, id, (uint32_t)sequence_below(&sequence, 700), sequence_next(&sequence)};
        ok(write_do(&write, writer));
        write_apply(&write, &oracle);
    }
    const void *held[200];
    for (uint32_t id = 0; id < 200; ++id) {
        size_t key_size, size;
        const void *key = key_of_id(id, &key_size);
        ok(odm_get(reader, key, key_size, &held[id], &size));
    }
    struct oracle now;
    oracle_copy(&now, &oracle);
    for (int i = 0; i < 3000; ++i) {
        struct test_write write = write_random(&sequence, 200, 600, true);
        ok(write_do(&write, i % 3 == 0 ? reader : writer));
        write_apply(&write, &now);
    }
    const char *why = oracle_mismatch(&now, reader);
    cr_assert_null(why, "%s", why);
    for (uint32_t id = 0; id < 200; ++id) {
        cr_assert(value_has_tag(held[id], oracle.entries[id].size, oracle.entries[id].tag), "the slice of key %u", id);
    }
    ok(odm_close(writer));
    ok(odm_close(reader));
    oracle_free(&oracle);
    oracle_free(&now);
}
