/* Many keys in one call: odm_get_many, odm_write_many. */
#include <errno.h>
#include <string.h>

#include "map.h"
#include "support.h"

TestSuite(batch, .timeout = 60, .fini = remove_temp_directories);

enum { BATCH_MAX = 200 };

/* Numbered keys and values, packed. */
struct packed {
    char keys[BATCH_MAX * NUMBER_TEXT_SIZE], values[BATCH_MAX * NUMBER_TEXT_SIZE];
    uint64_t key_ends[BATCH_MAX], value_ends[BATCH_MAX];
};

static struct packed pack(unsigned from, unsigned count, unsigned round)
{
    static struct packed packed;
    uint64_t key_end = 0, value_end = 0;
    for (unsigned i = 0; i < count; i++) {
        key_end += number_key(from + i, packed.keys + key_end);
        value_end += number_value(from + i, round, packed.values + value_end);
        packed.key_ends[i] = key_end;
        packed.value_ends[i] = value_end;
    }
    return packed;
}

/* All that a batch says is what single gets say. Method: sizes around the group of 64, absent keys among present ones. */
Test(batch, get_many_answers_as_get_does)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 50, 150, 0);
    static const unsigned counts[] = {0, 1, 2, 63, 64, 65, 128, 129, BATCH_MAX};
    for (size_t c = 0; c < COUNT_OF(counts); c++) {
        struct packed packed = pack(0, counts[c], 0);
        const void *values[BATCH_MAX + 1] = {0};
        uint64_t sizes[BATCH_MAX + 1];
        memset(sizes, 0x55, sizeof sizes);
        size_t n = counts[c];
        ok(odm_get_many(map, &n, packed.keys, packed.key_ends, values, sizes));
        cr_assert_eq(n, counts[c]);
        for (unsigned i = 0; i < counts[c]; i++) {
            const void *value;
            size_t size;
            char key[NUMBER_TEXT_SIZE];
            odm_status status = odm_get(map, key, number_key(i, key), &value, &size);
            cr_assert_eq(status == ODM_OK, i >= 50 && i < 150);
            cr_assert_eq(sizes[i], status == ODM_OK ? size : ODM_ABSENT);
            cr_assert_eq(values[i], status == ODM_OK ? value : NULL);
        }
        cr_assert_eq(sizes[counts[c]], UINT64_C(0x5555555555555555));
        n = counts[c]; // Sizes only.
        ok(odm_get_many(map, &n, packed.keys, packed.key_ends, NULL, sizes));
        for (unsigned i = 0; i < counts[c]; i++) cr_assert_eq(sizes[i] == ODM_ABSENT, i < 50 || i >= 150);
    }
    odm_close(map);
}

/* Keys of eight bytes are looked up by code made for them: it answers as a get does, whatever the other keys of the map are. Method:
 * sizes around the groups, absent keys among present ones, a map whose keys of other sizes begin with the same bytes. */
Test(batch, get_many_of_keys_of_eight_bytes_answers_as_get_does)
{
    odm_map *map = open_map(temp_map_path());
    uint64_t keys[BATCH_MAX + 1], ends[BATCH_MAX];
    for (unsigned i = 0; i <= BATCH_MAX; i++) keys[i] = i * UINT64_C(0x9e3779b97f4a7c15);
    for (unsigned i = 0; i < BATCH_MAX; i++) {
        ends[i] = 8 * (i + 1);
        if (i % 3 != 0) ok(odm_put(map, &keys[i], 8, &ends[i], i % 7));
        ok(odm_put(map, &keys[i], 9, "longer", 6));
        ok(odm_put(map, &keys[i], 7, "shorter", 7));
    }
    static const unsigned counts[] = {1, 2, 63, 64, 65, 128, BATCH_MAX};
    for (size_t c = 0; c < COUNT_OF(counts); c++) {
        const void *values[BATCH_MAX + 1] = {0};
        uint64_t sizes[BATCH_MAX + 1], sizes_only[BATCH_MAX];
        memset(sizes, 0x55, sizeof sizes);
        size_t n = counts[c];
        ok(odm_get_many(map, &n, keys, ends, values, sizes));
        cr_assert_eq(n, counts[c]);
        ok(odm_get_many(map, &n, keys, ends, NULL, sizes_only));
        for (unsigned i = 0; i < counts[c]; i++) {
            const void *value;
            size_t size;
            odm_status status = odm_get(map, &keys[i], 8, &value, &size);
            cr_assert_eq(status, i % 3 != 0 ? ODM_OK : ODM_NOT_FOUND);
            cr_assert_eq(sizes[i], status == ODM_OK ? size : ODM_ABSENT, "key %u of %u", i, counts[c]);
            cr_assert_eq(values[i], status == ODM_OK ? value : NULL);
            cr_assert_eq(sizes_only[i], sizes[i]);
        }
        cr_assert_eq(sizes[counts[c]], UINT64_C(0x5555555555555555));
        cr_assert_eq(values[counts[c]], NULL);
    }
    odm_close(map);
}

Test(batch, get_many_gives_slices_that_stay)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 100, 0);
    struct packed packed = pack(0, 100, 0);
    const void *values[100];
    uint64_t sizes[100];
    size_t n = 100;
    ok(odm_get_many(map, &n, packed.keys, packed.key_ends, values, sizes));
    for (unsigned round = 1; round < 6; round++) put_numbers(map, 0, 100, round);
    char value[NUMBER_TEXT_SIZE];
    for (unsigned i = 0; i < 100; i++) {
        cr_assert_eq(sizes[i], number_value(i, 0, value));
        cr_assert_arr_eq(values[i], value, sizes[i]);
        cr_assert_eq((uintptr_t)values[i] % 8, 0);
    }
    odm_close(map);
}

/* A handle that has given out nothing lets go by itself of what compaction has emptied. */
Test(batch, get_many_that_finds_nothing_lends_nothing)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 2), *reader;
    put_numbers(map, 0, 100, 0);
    ok(odm_dup(map, &reader, NULL));
    for (unsigned round = 1; round < 5; round++) {
        put_numbers(map, 0, 100, round);
        for (unsigned i = 0; i < 100; i++) { // Maps segments, and gives out nothing.
            char key[NUMBER_TEXT_SIZE];
            ok(odm_get(reader, key, number_key(i, key), NULL, NULL));
        }
        ok(odm_compact(map, NULL, NULL));
        const void *value;
        uint64_t end = 6, size;
        size_t n = 1;
        ok(odm_get_many(reader, &n, "absent", &end, &value, &size));
        cr_assert_eq(size, ODM_ABSENT);
        cr_assert_eq(reader->reader.dropped, NULL, "round %u", round);
    }
    odm_close(reader);
    odm_close(map);
}

static struct turns {
    _Atomic int now;
} * turns;

static void write_and_compact(void *path)
{
    odm_map *map;
    must(odm_open(path, NULL, &map, NULL) == ODM_OK);
    for (unsigned round = 1; round < 300; round++) { // Its record is in another segment, then.
        char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
        size_t key_size = number_key(1, key), value_size = number_value(1, round, value);
        must(odm_put(map, key, key_size, value, value_size) == ODM_OK);
    }
    atomic_store(&turns->now, 1);
    wait_for(&turns->now, 2);
    must(odm_compact(map, NULL, NULL) == ODM_OK);
    atomic_store(&turns->now, 3);
    must(odm_close(map) == ODM_OK);
}

static int open_after_compaction(int directory, const char *name, int flags, mode_t mode)
{
    odm__os.open = real_os()->open;
    atomic_store(&turns->now, 2);
    wait_for(&turns->now, 3);
    return odm__os.open(directory, name, flags, mode);
}

/* What a batch has given out stays, though a later key of it makes the handle look anew and let go of segments. Method: the
 * second key's segment has to be mapped, and meanwhile compaction empties and unlinks that of the first. */
Test(batch, get_many_lends_before_it_goes_on)
{
    char *path = strdup(temp_map_path());
    odm_map *map = open_map(path);
    put_numbers(map, 0, 2, 0);
    ok(odm_close(map));
    map = open_map(path);
    expect_numbers(map, 0, 2, 0);
    ok(odm_refresh(map));
    turns = shared_memory(sizeof *turns);
    pid_t writer = start_child(write_and_compact, path);
    wait_for(&turns->now, 1);

    uint64_t recycled = map->reader.recycled;
    odm__os.open = open_after_compaction;
    struct packed packed = pack(0, 2, 0);
    const void *values[2];
    uint64_t sizes[2];
    size_t n = 2;
    ok(odm_get_many(map, &n, packed.keys, packed.key_ends, values, sizes));
    cr_assert_eq(atomic_load(&turns->now), 3, "nothing was to be mapped");
    cr_assert_neq(map->reader.recycled, recycled);
    cr_assert_neq(map->reader.dropped, NULL);
    cr_assert_eq(sizes[0], packed.value_ends[0]);
    cr_assert_arr_eq(values[0], packed.values, sizes[0]);
    char newest[NUMBER_TEXT_SIZE];
    cr_assert_eq(sizes[1], number_value(1, 299, newest));
    cr_assert_arr_eq(values[1], newest, sizes[1]);
    expect_child_succeeds(writer);
    odm_close(map);
    free(path);
}

Test(batch, write_many_does_all_in_order)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    // The same key again and again: the outcomes tell the order.
    static const uint8_t ops[] = {ODM_OP_INSERT, ODM_OP_INSERT, ODM_OP_PUT,    ODM_OP_REMOVE, ODM_OP_REMOVE,
                                  ODM_OP_PUT,    ODM_OP_INSERT, ODM_OP_REMOVE, ODM_OP_INSERT};
    static const uint8_t expected[] = {ODM_OK, ODM_EXISTS, ODM_OK, ODM_OK, ODM_NOT_FOUND,
                                       ODM_OK, ODM_EXISTS, ODM_OK, ODM_OK};
    uint64_t key_ends[9], value_ends[9] = {1, 2, 3, 3, 3, 4, 5, 5, 6};
    for (unsigned i = 0; i < 9; i++) key_ends[i] = i + 1;
    uint8_t outcomes[9];
    memset(outcomes, 99, sizeof outcomes);
    size_t n = 9;
    ok(odm_write_many(map, &n, ops, "kkkkkkkkk", key_ends, "123456", value_ends, outcomes));
    cr_assert_eq(n, 9);
    cr_assert_arr_eq(outcomes, expected, 9);
    expect_value(map, "k", "6");
    cr_assert_eq(odm_count(map), 1);

    struct packed packed = pack(0, BATCH_MAX, 3);
    n = BATCH_MAX;
    ok(odm_write_many(map, &n, NULL, packed.keys, packed.key_ends, packed.values, packed.value_ends, NULL));
    cr_assert_eq(n, BATCH_MAX);
    expect_numbers(map, 0, BATCH_MAX, 3);
    // In the log, too: a version is an address.
    uint64_t before = 0, version;
    char key[NUMBER_TEXT_SIZE];
    for (unsigned i = 0; i < BATCH_MAX; i++) {
        ok(odm_entry_get(map, key, number_key(i, key), NULL, NULL, &version));
        cr_assert_gt(version, before);
        before = version;
    }
    static uint8_t removes[BATCH_MAX];
    memset(removes, ODM_OP_REMOVE, sizeof removes);
    n = BATCH_MAX;
    ok(odm_write_many(map, &n, removes, packed.keys, packed.key_ends, NULL, NULL, NULL));
    cr_assert_eq(n, BATCH_MAX);
    expect_no_numbers(map, 0, BATCH_MAX);
    odm_close(map);
}

Test(batch, nothing_is_fine)
{
    odm_map *map = open_in_memory();
    size_t n = 0;
    ok(odm_get_many(map, &n, NULL, NULL, NULL, NULL));
    ok(odm_write_many(map, &n, NULL, NULL, NULL, NULL, NULL, NULL));
    cr_assert_eq(n, 0);
    uint64_t ends[3] = {0, 0, 0}, sizes[3]; // Three times the empty key, with empty values.
    n = 3;
    ok(odm_write_many(map, &n, NULL, NULL, ends, NULL, ends, NULL));
    cr_assert_eq(n, 3);
    cr_assert_eq(odm_count(map), 1);
    ok(odm_get_many(map, &n, NULL, ends, NULL, sizes));
    cr_assert(n == 3 && sizes[0] == 0 && sizes[2] == 0);
    odm_close(map);
}

/* Everything is checked before anything is done: n is 0, the map as before, and no byte of the arrays written. */
Test(batch, arguments_are_checked_first)
{
    odm_map *map = open_map(temp_map_path());
    put(map, "a", "before");
    uint64_t ends[3] = {1, 2, 3}, falling[3] = {1, 0, 3}, same[3] = {1, 1, 1};
    uint64_t wide[3] = {1, 2 + (uint64_t)ODM_KEY_SIZE_MAX + 1, 2 + (uint64_t)ODM_KEY_SIZE_MAX + 2};
    uint64_t huge[3] = {1, UINT64_MAX - 1, UINT64_MAX},
             large[3] = {1, 2 + ODM_RECORD_SIZE_MAX, 3 + ODM_RECORD_SIZE_MAX};
    static const uint8_t puts[3], unknown[3] = {0, 3, 0}, removes[3] = {2, 2, 2}, one_remove[3] = {0, 2, 0};
    uint8_t outcomes[3] = {77, 77, 77};
    uint64_t sizes[3] = {77, 77, 77};
    const char *keys = "abc";
    const struct {
        odm_status status;
        const uint8_t *ops;
        const void *keys;
        const uint64_t *key_ends;
        const void *values;
        const uint64_t *value_ends;
    } cases[] = {
        {ODM_E_INVALID, NULL, keys, falling, "xyz", ends},   {ODM_E_INVALID, NULL, keys, ends, "xyz", falling},
        {ODM_E_INVALID, unknown, keys, ends, "xyz", ends},   {ODM_E_INVALID, one_remove, keys, ends, "xyz", ends},
        {ODM_E_INVALID, removes, keys, ends, "xyz", same},   {ODM_E_INVALID, NULL, NULL, ends, "xyz", ends},
        {ODM_E_INVALID, NULL, keys, NULL, "xyz", ends},      {ODM_E_INVALID, NULL, keys, ends, NULL, ends},
        {ODM_E_INVALID, NULL, keys, ends, "xyz", NULL},      {ODM_E_INVALID, puts, keys, ends, NULL, NULL},
        {ODM_E_INVALID, one_remove, keys, ends, NULL, NULL}, {ODM_E_TOO_BIG, NULL, keys, wide, "xyz", ends},
        {ODM_E_TOO_BIG, NULL, keys, huge, "xyz", ends},      {ODM_E_TOO_BIG, NULL, keys, ends, "xyz", huge},
        {ODM_E_TOO_BIG, NULL, keys, ends, "xyz", large},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t n = 3;
        odm_status status = odm_write_many(map, &n, cases[i].ops, cases[i].keys, cases[i].key_ends, cases[i].values,
                                           cases[i].value_ends, outcomes);
        cr_assert_eq(status, cases[i].status, "case %zu: %s", i, odm_status_name(status));
        cr_assert_eq(n, 0, "case %zu", i);
        cr_assert_eq(last_error_of(map).status, status);
        expect_value(map, "a", "before");
        cr_assert_eq(odm_count(map), 1, "case %zu", i);
        cr_assert(outcomes[0] == 77 && outcomes[1] == 77 && outcomes[2] == 77);
    }
    const struct {
        odm_status status;
        const void *keys;
        const uint64_t *key_ends;
        uint64_t *sizes;
    } gets[] = {
        {ODM_E_INVALID, keys, falling, sizes}, {ODM_E_INVALID, NULL, ends, sizes}, {ODM_E_INVALID, keys, NULL, sizes},
        {ODM_E_INVALID, keys, ends, NULL},     {ODM_E_TOO_BIG, keys, wide, sizes}, {ODM_E_TOO_BIG, keys, huge, sizes},
    };
    for (size_t i = 0; i < COUNT_OF(gets); i++) {
        size_t n = 3;
        expect_status(odm_get_many(map, &n, gets[i].keys, gets[i].key_ends, NULL, gets[i].sizes), gets[i].status);
        cr_assert_eq(n, 0, "case %zu", i);
        cr_assert(sizes[0] == 77 && sizes[2] == 77);
    }
    size_t n = 3;
    expect_status(odm_get_many(NULL, &n, keys, ends, NULL, sizes), ODM_E_INVALID);
    cr_assert_eq(n, 0);
    expect_status(odm_get_many(map, NULL, keys, ends, NULL, sizes), ODM_E_INVALID);
    expect_status(odm_write_many(NULL, &n, NULL, keys, ends, "xyz", ends, NULL), ODM_E_INVALID);
    expect_status(odm_write_many(map, NULL, NULL, keys, ends, "xyz", ends, NULL), ODM_E_INVALID);
    odm_close(map);
}

/* The largest key and value of a batch fit as they do alone. */
Test(batch, a_key_and_value_too_big_together_are_too_big)
{
    odm_map *map = open_in_memory();
    uint64_t key_ends[1] = {16}, value_ends[1] = {ODM_RECORD_SIZE_MAX - 24 - 16 + 1};
    size_t n = 1;
    expect_status(odm_write_many(map, &n, NULL, "sixteen bytes...", key_ends, "x", value_ends, NULL), ODM_E_TOO_BIG);
    cr_assert_eq(n, 0);
    odm_close(map);
}

static unsigned until_failure;

static int reserve_fails_later(int fd, off_t offset, off_t size)
{
    if (until_failure-- > 0) return real_os()->reserve(fd, offset, size);
    until_failure = 0;
    errno = ENOSPC;
    return -1;
}

/* On an error *n operations are done, and exactly these. Method: a disk that fills up during the batch. */
Test(batch, an_error_leaves_what_was_done_before_it)
{
    for (unsigned room = 0; room < 4; room++) {
        odm_map *map = open_map(temp_map_path(), .stripes = 2);
        put_numbers(map, 0, 20, 0);
        until_failure = room;
        odm__os.reserve = reserve_fails_later;
        size_t done = 0;
        odm_status status = ODM_OK;
        for (unsigned i = 0; i < 50 && status == ODM_OK; i++) {
            struct packed packed = pack(0, BATCH_MAX, i + 1);
            uint8_t outcomes[BATCH_MAX];
            memset(outcomes, 99, sizeof outcomes);
            done = BATCH_MAX;
            status = odm_write_many(map, &done, NULL, packed.keys, packed.key_ends, packed.values, packed.value_ends,
                                    outcomes);
            for (size_t k = 0; k < BATCH_MAX; k++) cr_assert_eq(outcomes[k], k < done ? ODM_OK : 99);
            expect_numbers(map, 0, (unsigned)done, i + 1);
            if (i > 0) expect_numbers(map, (unsigned)done, BATCH_MAX, i);
            if (i == 0 && done < BATCH_MAX) expect_no_numbers(map, done < 20 ? 20 : (unsigned)done, BATCH_MAX);
        }
        expect_status(status, ODM_E_NO_SPACE);
        odm__os.reserve = real_os()->reserve;
        odm_close(map);
    }
}

Test(batch, a_read_only_handle_writes_nothing)
{
    const char *path = temp_map_path();
    odm_close(open_map(path));
    odm_map *map = open_map(path, .flags = ODM_READ_ONLY);
    uint64_t ends[1] = {1};
    size_t n = 1;
    expect_status(odm_write_many(map, &n, NULL, "a", ends, "b", ends, NULL), ODM_E_READ_ONLY);
    cr_assert_eq(n, 0);
    odm_close(map);
}

/* A batch of gets finds every number with the value of a round. */
static void expect_many(odm_map *map, unsigned round)
{
    struct packed packed = pack(0, BATCH_MAX, round);
    const void *values[BATCH_MAX];
    uint64_t sizes[BATCH_MAX];
    size_t n = BATCH_MAX;
    ok(odm_get_many(map, &n, packed.keys, packed.key_ends, values, sizes));
    for (unsigned i = 0; i < BATCH_MAX; i++) {
        uint64_t from = i == 0 ? 0 : packed.value_ends[i - 1];
        cr_assert_eq(sizes[i], packed.value_ends[i] - from);
        cr_assert_arr_eq(values[i], packed.values + from, sizes[i], "key %u has the value it had before", i);
    }
}

/* A batch of gets fetches many slots before it looks at the first. If it then finds that there is another index, what it fetched
 * from the old one may be older than the call. Method: a smaller index, in which a key was updated, unknown to the reader. */
Test(batch, gets_do_not_believe_what_they_fetched_from_an_old_index)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 2), *reader;
    put_numbers(map, 0, 3000, 0);
    remove_numbers(map, BATCH_MAX, 3000);
    compact_all_but_the_index(map);
    ok(odm_dup(map, &reader, NULL));
    expect_numbers(reader, 0, BATCH_MAX, 0);
    uint64_t tail = statistics_of(map).tail;
    ok(odm_compact(map, NULL, NULL));
    cr_assert_eq(statistics_of(map).tail, tail, "the records are where the old index says");
    put_numbers(map, 0, BATCH_MAX, 1);

    expect_many(reader, 1);
    odm_close(reader);
    odm_close(map);
}

static uint64_t fast_clock(void)
{
    static uint64_t ns;
    return ns += 700 * 1000;
}

static uint64_t recycled_of(odm_map *map)
{
    return atomic_load(&map->reader.index.header->recycled);
}

static bool is_superseded(odm_map *map)
{
    return atomic_load(&map->reader.index.header->superseded) != 0;
}

/* The same, where the new index has counted as much as the old one had when the reader looked last: only that it is another
 * index tells, and by then what the old one named may be unmapped. */
Test(batch, gets_do_not_take_another_index_for_the_same)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 2), *reader;
    put_numbers(map, 0, 3000, 0);
    remove_numbers(map, BATCH_MAX, 3000);
    ok(odm_dup(map, &reader, NULL));
    uint64_t last_seen;
    odm__os.now_ns = fast_clock; // So that odm_compact comes back after every few records.
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
    do {
        expect_numbers(reader, 0, BATCH_MAX, 0);
        ok(odm_refresh(reader));
        last_seen = reader->reader.recycled;
    } while (odm_compact(map, &progress, NULL) == ODM_OK && !is_superseded(reader));
    cr_assert(is_superseded(reader));
    odm__os.now_ns = real_os()->now_ns;
    unsigned round = 1;
    for (ok(odm_refresh(map)); recycled_of(map) < last_seen; round++) {
        put_numbers(map, 0, BATCH_MAX, round);
        ok(odm_sync(map, NULL));
    }
    cr_assert_gt(round, 1);
    cr_assert_eq(recycled_of(map), last_seen);

    expect_many(reader, round - 1);
    odm_close(reader);
    odm_close(map);
}

/* Packed arguments may lie in the map, too. */
Test(batch, arguments_may_be_slices_of_the_same_map)
{
    odm_map *map = open_map(temp_map_path());
    put(map, "packed", "abcdefghij");
    const void *bytes;
    ok(odm_get(map, "packed", 6, &bytes, NULL));
    uint64_t ends[10], sizes[10];
    for (unsigned i = 0; i < 10; i++) ends[i] = i + 1;
    size_t n = 10;
    ok(odm_write_many(map, &n, NULL, bytes, ends, bytes, ends, NULL));
    expect_value(map, "a", "a");
    expect_value(map, "j", "j");
    ok(odm_get_many(map, &n, bytes, ends, NULL, sizes));
    for (unsigned i = 0; i < 10; i++) cr_assert_eq(sizes[i], 1);
    odm_close(map);
}
