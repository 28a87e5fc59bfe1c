/* Looking up, and what was given out: reader.h. */
#include "reader.h"

#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "map.h"
#include "support.h"

TestSuite(reader, .timeout = 60, .fini = remove_temp_directories);

/* ---- slices -------------------------------------------------------------------------------------------------------- */

/* The lifetime rule: a slice stays as it is until its handle is refreshed.
 * Method: hold a slice of every key, overwrite, remove and clear until the log has rolled over many times and chunks were
 * used again, by this handle and another; compare the held bytes. */
Test(reader, slices_stay_unchanged_until_their_handle_is_refreshed)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *writer = open_map(path);
    enum { KEYS = 100 };
    const void *held[KEYS];
    size_t held_size[KEYS];
    char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
    put_numbers(map, 0, KEYS, 0);
    for (unsigned i = 0; i < KEYS; i++) ok(odm_get(map, key, number_key(i, key), &held[i], &held_size[i]));
    for (unsigned round = 1; round < 10; round++) {
        odm_map *by = round % 2 ? map : writer;
        if (round == 4) remove_numbers(by, 0, KEYS);
        if (round == 7) ok(odm_clear(by, NULL));
        put_numbers(by, 0, KEYS, round);
        expect_numbers(map, 0, KEYS, round);
        for (unsigned i = 0; i < KEYS; i++) {
            cr_assert_eq(held_size[i], number_value(i, 0, value));
            cr_assert_arr_eq(held[i], value, held_size[i]);
        }
    }
    ok(odm_refresh(map));
    expect_numbers(map, 0, KEYS, 9);
    odm_close(writer);
    odm_close(map);
}

/* Slices belong to their handle: closing another one ends nothing. */
Test(reader, closing_another_handle_ends_no_slice)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *other = open_map(path);
    put_numbers(other, 0, 300, 0);
    char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
    const void *held[300];
    size_t size;
    for (unsigned i = 0; i < 300; i++) ok(odm_get(map, key, number_key(i, key), &held[i], &size));
    odm_close(other);
    for (unsigned i = 0; i < 300; i++) cr_assert_eq(memcmp(held[i], value, number_value(i, 0, value)), 0);
    odm_close(map);
}

Test(reader, values_are_aligned_and_an_empty_one_is_not_null)
{
    odm_map *map = open_in_memory();
    char key[300];
    memset(key, 'k', sizeof key);
    for (size_t i = 0; i < sizeof key; i++) {
        const void *value = NULL;
        size_t size = 99;
        ok(odm_put(map, key, i, key, i % 9));
        ok(odm_get(map, key, i, &value, &size));
        cr_assert_not_null(value);
        cr_assert_eq((uintptr_t)value % 8, 0);
        cr_assert_eq(size, i % 9);
        cr_assert_eq(memcmp(value, key, size), 0);
    }
    odm_close(map);
}

/* ---- damaged records ----------------------------------------------------------------------------------------------- */

/* Flips bits of a byte of the record in its file. */
static void damage_record(odm_map *map, const char *key, uint64_t at, unsigned char bits)
{
    uint64_t address;
    ok(odm_entry_get(map, key, strlen(key), NULL, NULL, &address));
    char name[SEGMENT_NAME_SIZE], file[SEGMENT_NAME_SIZE + 4];
    odm__segment_name(address_number(address), name);
    snprintf(file, sizeof file, "log/%s", name);
    flip_bits_at(path_of(map->store->path, file), address_offset(address) + at, bits);
}

/* ODM_VERIFY_READS finds damage that a plain get can not see, and names the place. */
Test(reader, verified_reads_find_damage)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    odm_map *verifying = open_map(path, .flags = ODM_VERIFY_READS);
    put_numbers(map, 0, 100, 0);
    expect_numbers(verifying, 0, 100, 0);
    damage_record(map, "key 17", 24 + 8 + 3, 0x40); // in the value
    const void *value;
    size_t size;
    ok(odm_get(map, "key 17", 6, &value, &size));
    expect_status(odm_get(verifying, "key 17", 6, &value, &size), ODM_E_CORRUPT);
    odm_error error = last_error_of(verifying);
    expect_message(error, "log/0000000");
    expect_message(error, "offset");
    uint64_t version = 5;
    expect_status(odm_entry_get(verifying, "key 17", 6, &value, &size, &version), ODM_E_CORRUPT);
    cr_assert_eq(version, 0);
    uint64_t ends[2] = {6, 12}, sizes[2];
    size_t n = 2;
    expect_status(odm_get_many(verifying, &n, "key 16key 17", ends, NULL, sizes), ODM_E_CORRUPT);
    cr_assert_eq(n, 1);
    expect_numbers(verifying, 0, 17, 0);
    expect_numbers(verifying, 18, 100, 0);
    odm_map *dup; // A flag is inherited.
    ok(odm_dup(verifying, &dup, NULL));
    expect_status(odm_get(dup, "key 17", 6, &value, &size), ODM_E_CORRUPT);
    odm_close(dup);
    odm_map *reader = open_map(path, .flags = ODM_VERIFY_READS | ODM_READ_ONLY);
    expect_status(odm_get(reader, "key 17", 6, &value, &size), ODM_E_CORRUPT);
    odm_close(reader);

    // A walk reads, too.
    odm_iter *iter;
    unsigned corrupt = 0, entries = 0;
    ok(odm_iter_open(verifying, &iter));
    for (odm_status status; (status = odm_iter_next(iter, NULL, NULL, NULL, NULL)) != ODM_DONE;) {
        corrupt += status == ODM_E_CORRUPT;
        entries += status == ODM_OK;
        cr_assert_leq(corrupt + entries, 100);
    }
    cr_assert_eq(corrupt, 1);
    cr_assert_eq(entries, 99);
    odm_iter_close(iter);
    odm_close(verifying);
    odm_close(map);
}

/* Without it: what a lookup needs is checked all the same. Method: damage the header's words. */
Test(reader, impossible_records_are_corrupt_without_verifying)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 50, 0);
    damage_record(map, "key 3", 7, 2);     // the kind: a clear
    damage_record(map, "key 4", 11, 0x40); // the top of the value's size: beyond the segment
    const void *value;
    size_t size;
    expect_status(odm_get(map, "key 3", 5, &value, &size), ODM_E_CORRUPT);
    expect_status(odm_get(map, "key 4", 5, &value, &size), ODM_E_CORRUPT);
    expect_status(odm_put(map, "key 3", 5, "new", 3), ODM_E_CORRUPT);
    expect_numbers(map, 5, 50, 0);
    odm_close(map);
}

Test(reader, a_missing_segment_is_corrupt_and_named)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 300, 0);
    odm_close(map);
    cr_assert_eq(unlink(path_of(path, "log/00000001022")), 0);
    map = open_map(path);
    char key[NUMBER_TEXT_SIZE];
    unsigned corrupt = 0, found = 0;
    for (unsigned i = 0; i < 300; i++) {
        const void *value;
        odm_status status = odm_get(map, key, number_key(i, key), &value, NULL);
        cr_assert(status == ODM_OK || status == ODM_E_CORRUPT);
        corrupt += status == ODM_E_CORRUPT;
        found += status == ODM_OK;
        if (status == ODM_E_CORRUPT) expect_message(last_error_of(map), "log/00000001022");
    }
    cr_assert_gt(corrupt, 0);
    cr_assert_gt(found, 0);
    odm_close(map);
}

/* ---- damaged indexes ----------------------------------------------------------------------------------------------- */

/* All operations on some keys: whatever they return, they return, and what they return is allowed. */
static void use_damaged(odm_map *map, bool also_write)
{
    char key[NUMBER_TEXT_SIZE];
    odm_statistics statistics = {.struct_size = sizeof statistics};
    for (unsigned i = 0; i < 110; i += 3) {
        const void *value;
        size_t size = 0;
        odm_status status = odm_get(map, key, number_key(i, key), &value, &size);
        cr_assert(status == ODM_OK || status == ODM_NOT_FOUND || status == ODM_E_CORRUPT, "%s",
                  odm_status_name(status));
        static volatile unsigned char sink;
        for (size_t k = 0; status == ODM_OK && k < size; k++) sink = ((const unsigned char *)value)[k];
        (void)sink;
        if (!also_write) continue;
        status = odm_put(map, key, number_key(i, key), "x", 1);
        cr_assert(status == ODM_OK || status == ODM_E_CORRUPT, "%s", odm_status_name(status));
        status = odm_remove(map, key, number_key(i, key));
        cr_assert(status == ODM_OK || status == ODM_NOT_FOUND || status == ODM_E_CORRUPT, "%s",
                  odm_status_name(status));
    }
    odm_status status = odm_stat(map, &statistics);
    cr_assert(status == ODM_OK || status == ODM_E_CORRUPT);
    odm_iter *iter;
    ok(odm_iter_open(map, &iter));
    unsigned entries = 0;
    while ((status = odm_iter_next(iter, NULL, NULL, NULL, NULL)) == ODM_OK) cr_assert_lt(entries++, 10000);
    cr_assert(status == ODM_DONE || status == ODM_E_CORRUPT, "%s", odm_status_name(status));
    odm_iter_close(iter);
}

static const uint64_t bad_words[] = {
    0,
    1,
    UINT64_MAX,
    WORD_BIG,
    UINT64_C(1) << 28,            // the header as a chunk
    UINT64_C(1) << 62,            // far beyond the file
    255,                          // deeper than any directory
    UINT64_C(64) << 28 | 31 << 8, // smaller than a slot
    UINT64_C(64) << 28 | 31 << 13,
    UINT64_C(64) << 28 | WORD_BIG | 31 << 13,
    UINT64_C(64) << 28 | WORD_BIG | 1 << 13 | 1 << 8,
    UINT64_C(64) << 28 | 64, // the stripes as a chunk
};

/* A damaged directory word is a status. Method: every kind of nonsense in every word of one stripe, for handles that know
 * the map and for ones that do not. */
Test(reader, a_damaged_directory_word_is_no_crash)
{
    for (size_t i = 0; i < COUNT_OF(bad_words); i++) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path, .stripes = 1);
        put_numbers(map, 0, 100, 0);
        struct index *index = &map->reader.index;
        uint64_t hash = 0, word;
        ok(odm__index_word(index, hash, &word, NULL));
        for (uint64_t k = 0; k < UINT64_C(1) << index->roots[0].depth; k++) {
            atomic_store(&index->roots[0].words[k], bad_words[i]);
        }
        odm_map *fresh = open_map(path, .flags = ODM_READ_ONLY);
        use_damaged(map, false);
        use_damaged(fresh, false);
        cr_assert_neq(odm_get(fresh, "key 1", 5, NULL, NULL), ODM_OK); // Its chunk is nowhere.
        odm_close(fresh);
        use_damaged(map, bad_words[i] == 0 || bad_words[i] == UINT64_MAX || bad_words[i] == 255);
        odm_close(map);
    }
}

Test(reader, a_damaged_root_is_corrupt)
{
    static const uint64_t bad_roots[] = {0,           1, 255, UINT64_MAX, 64 << 8, 64 << 8 | 31, UINT64_C(1) << 60 | 1,
                                         64 << 8 | 30};
    for (size_t i = 0; i < COUNT_OF(bad_roots); i++) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path, .stripes = 1);
        put_numbers(map, 0, 100, 0);
        uint64_t root = atomic_load(&map->reader.index.stripes[0].root);
        atomic_store(&map->reader.index.stripes[0].root, bad_roots[i]);
        expect_status(odm_get(map, "key 1", 5, NULL, NULL), ODM_E_CORRUPT);
        expect_message(last_error_of(map), "root of stripe 0");
        expect_status(odm_put(map, "key 1", 5, "x", 1), ODM_E_CORRUPT);
        odm_iter *iter;
        ok(odm_iter_open(map, &iter));
        expect_status(odm_iter_next(iter, NULL, NULL, NULL, NULL), ODM_E_CORRUPT);
        odm_iter_close(iter);
        odm_statistics statistics = {.struct_size = sizeof statistics};
        expect_status(odm_stat(map, &statistics), ODM_E_CORRUPT);
        atomic_store(&map->reader.index.stripes[0].root, root);
        expect_numbers(map, 0, 100, 0);
        odm_close(map);
    }
}

/* Damaged slots: they name no segment, no record, another key's record, a place beyond the end. */
Test(reader, damaged_slots_are_no_crash)
{
    for (unsigned kind = 0; kind < 9; kind++) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path, .stripes = 1);
        put_numbers(map, 0, 100, 0);
        struct index_header *header = map->reader.index.header;
        uint64_t slots_seen = 0, words = atomic_load(&header->next) * INDEX_UNIT / 8;
        odm__u64 *word = (odm__u64 *)(void *)map->reader.index.base;
        // Every word of the file that looks like a slot of this map, wherever chunks lie.
        for (uint64_t i = (INDEX_STRIPES_OFFSET + 4096) / 8; i < words; i++) {
            uint64_t slot = atomic_load(&word[i]);
            uint64_t tag = slot >> SLOT_TAG_SHIFT << SLOT_TAG_SHIFT;
            if (slot_number(slot) < 1000 || slot_number(slot) > 1023 || slot_offset(slot) > 4096) continue;
            slots_seen++;
            switch (kind) {
                case 0: slot ^= UINT64_C(1) << 29; break;                          // another segment
                case 1: slot = tag | UINT64_C(0x1fffffffffff); break;              // number and offset at their ends
                case 2: slot = tag | ((slot & SLOT_ADDRESS_MASK) + 1); break;      // not where a record starts
                case 3: slot = tag | UINT64_C(1020) << 29; break;                  // the segment's header
                case 4: slot = tag | UINT64_C(1020) << 29 | (4096 - 8) / 8; break; // its last bytes
                case 5: slot = tag | UINT64_C(1020) << 29 | 4096 / 8; break;       // just beyond
                case 6: slot = tag | UINT64_C(1023) << 29 | 4000 / 8; break;       // zeros
                case 7: slot |= UINT64_C(7) << 45; break;                          // spare bits
                case 8: slot = tag | UINT64_C(0xffff) << 29 | 64 / 8; break;       // more than a number has
            }
            atomic_store(&word[i], slot);
        }
        cr_assert_geq(slots_seen, 90);
        odm_map *fresh = open_map(path, .flags = ODM_READ_ONLY);
        odm_map *verifying = open_map(path, .flags = ODM_READ_ONLY | ODM_VERIFY_READS);
        use_damaged(map, false);
        use_damaged(fresh, false);
        use_damaged(verifying, false);
        odm_close(verifying);
        odm_close(fresh);
        use_damaged(map, true);
        odm_close(map);
    }
}

/* A chunk without an empty slot would be probed for ever. */
Test(reader, a_chunk_without_an_empty_slot_is_corrupt)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 1);
    put_numbers(map, 0, 5, 0);
    struct chunk chunk;
    ok(odm__index_chunk(&map->reader.index, 0, &chunk, NULL));
    for (uint32_t i = 0; i < chunk.slot_count; i++) {
        if (atomic_load(&chunk.slots[i]) == SLOT_EMPTY) atomic_store(&chunk.slots[i], SLOT_TOMBSTONE);
    }
    expect_numbers(map, 0, 5, 0);
    expect_status(odm_get(map, "another", 7, NULL, NULL), ODM_E_CORRUPT);
    expect_message(last_error_of(map), "empty slot");
    expect_status(odm_put(map, "another", 7, "x", 1), ODM_E_CORRUPT);
    odm_close(map);
}

Test(reader, an_index_that_says_it_is_bigger_than_its_file_is_corrupt)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 1);
    put_numbers(map, 0, 5, 0);
    struct index_header *header = map->reader.index.header;
    atomic_store(&header->size, UINT64_C(1) << 40);
    uint64_t word = word_make((UINT64_C(1) << 30) / INDEX_UNIT, CHUNK_SLOT_BITS, 0);
    for (int i = 0; i < 2; i++) atomic_store(&map->reader.index.roots[0].words[i], word);
    expect_status(odm_get(map, "key 1", 5, NULL, NULL), ODM_E_CORRUPT);
    odm_close(map);
}

/* ---- gets that must not block -------------------------------------------------------------------------------------- */

/* Where odm_try_get decides, it decides as odm_get does: keys of all lengths, there or not, and probes of several lines. */
Test(reader, a_try_finds_what_a_get_finds)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 1);
    char key[400];
    for (unsigned size = 0; size < sizeof key; size += 2) {
        memset(key, 'k', size);
        ok(odm_put(map, key, size, &size, sizeof size));
    }
    for (unsigned size = 0; size < sizeof key; size++) {
        memset(key, 'k', size);
        const void *value = NULL, *tried = NULL;
        size_t value_size = 0, tried_size = 0;
        odm_status status = odm_get(map, key, size, &value, &value_size);
        cr_assert_eq(status, size % 2 == 0 ? ODM_OK : ODM_NOT_FOUND);
        expect_status(odm_try_get(map, key, size, &tried, &tried_size), status);
        cr_assert_eq(tried, value);
        cr_assert_eq(tried_size, value_size);
    }
    odm_close(map);
}

/* What it gives out is lent, as by odm_get: it stays through whatever others do. */
Test(reader, what_a_try_gave_out_stays)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 1), *writer;
    ok(odm_dup(map, &writer, NULL));
    put(map, "key", "first");
    expect_value(map, "key", "first");
    ok(odm_refresh(map));
    const void *value;
    size_t size;
    ok(odm_try_get(map, "key", 3, &value, &size));
    for (unsigned round = 0; round < 10; round++) put_numbers(writer, 0, 100, round);
    put(writer, "key", "second");
    ok(odm_compact(writer, NULL, NULL));
    expect_value(map, "key", "second");
    cr_assert_arr_eq(value, "first", size);
    odm_close(writer);
    odm_close(map);
}

static unsigned calls_made;
static int counted_open(int directory, const char *name, int flags, mode_t mode)
{
    calls_made++;
    return real_os()->open(directory, name, flags, mode);
}
static void *counted_map(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    calls_made++;
    return real_os()->map(at, size, protection, flags, fd, offset);
}

static void expect_would_block(odm_map *map, const char *key, size_t key_size)
{
    const void *value = NULL;
    size_t size = 0;
    expect_status(odm_try_get(map, key, key_size, &value, &size), ODM_WOULD_BLOCK);
    cr_assert_null(value);
    cr_assert_eq(last_error_of(map).status, ODM_OK);
}

/* A segment the handle has not met, something recycled, an index that was superseded, reads that verify, and errors are odm_get's. */
Test(reader, a_try_leaves_to_a_get_what_may_block)
{
    const char *path = temp_map_path();
    odm_map *writer = open_map(path, .stripes = 1);
    put_numbers(writer, 0, 150, 0);
    odm_close(writer); // Or its segments, which handles share, would be mapped.
    odm_map *map = open_map(path);
    char key[NUMBER_TEXT_SIZE];
    size_t size = number_key(3, key);
    odm__os.open = counted_open;
    odm__os.map = counted_map;
    expect_would_block(map, key, size);
    cr_assert_eq(calls_made, 0);
    ok(odm_get(map, key, size, NULL, NULL));
    cr_assert_gt(calls_made, 0);
    odm__os = *real_os();
    expect_numbers(map, 0, 150, 0);
    ok(odm_try_get(map, key, size, NULL, NULL));

    writer = open_map(path);
    uint64_t recycled = atomic_load(&writer->reader.index.header->recycled);
    for (unsigned round = 1; recycled == atomic_load(&writer->reader.index.header->recycled); round++) {
        put_numbers(writer, round * 100, round * 100 + 100, 0);
    }
    expect_would_block(map, key, size);
    ok(odm_get(map, key, size, NULL, NULL));
    ok(odm_try_get(map, key, size, NULL, NULL));

    expect_would_block(map, NULL, 1);
    expect_would_block(map, key, (size_t)ODM_KEY_SIZE_MAX + 1);
    expect_status(odm_try_get(NULL, key, size, NULL, NULL), ODM_E_INVALID);
    odm_close(map);
    map = open_map(path, .flags = ODM_VERIFY_READS);
    ok(odm_get(map, key, size, NULL, NULL));
    expect_would_block(map, key, size);
    odm_close(map);
    odm_close(writer);
}

#if defined __OPTIMIZE__ && !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
static odm_map *tried_map;
static void try_keys_of_all_lengths(void)
{
    static const char key[1000];
    for (unsigned size = 0; size < sizeof key; size++) (void)odm_try_get(tried_map, key, size, NULL, NULL);
}

/* The header promises less than 1 KiB of stack, to callers who have no more. A stack of our own shows how far down it was written to. */
Test(reader, a_try_needs_little_stack)
{
    enum { STACK_SIZE = 1 << 16 };
    static unsigned char stack[STACK_SIZE];
    memset(stack, 0xa5, sizeof stack);
    tried_map = open_map(temp_map_path());
    char key[1000] = {0};
    for (unsigned size = 0; size < sizeof key; size += 3) ok(odm_put(tried_map, key, size, NULL, 0));
    ucontext_t here, there;
    cr_assert_eq(getcontext(&there), 0);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    makecontext(&there, try_keys_of_all_lengths, 0);
    cr_assert_eq(swapcontext(&here, &there), 0);
    size_t untouched = 0;
    while (untouched < sizeof stack && stack[untouched] == 0xa5) untouched++;
    cr_assert_lt(sizeof stack - untouched, 1024);
    odm_close(tried_map);
}
#endif

/* ---- what other clients recycle ------------------------------------------------------------------------------------ */

/* A handle that is not used for long goes on, whatever was split, recycled and rolled over meanwhile. */
Test(reader, a_handle_that_slept_sees_what_is_current)
{
    const char *path = temp_map_path();
    odm_map *writer = open_map(path, .stripes = 1);
    odm_map *sleeper = open_map(path), *reader = open_map(path, .flags = ODM_READ_ONLY);
    unsigned recycled = 0;
    for (unsigned round = 0; round < 30; round++) {
        unsigned from = round * 40;
        uint64_t before = atomic_load(&writer->reader.index.header->recycled);
        if (round > 0) remove_numbers(writer, from - 40, from);
        put_numbers(writer, from, from + 150, round);
        recycled += atomic_load(&writer->reader.index.header->recycled) != before;
        expect_no_numbers(sleeper, from < 100 ? 0 : from - 100, from);
        expect_no_numbers(reader, from < 100 ? 0 : from - 100, from);
        expect_numbers(sleeper, from, from + 150, round);
        expect_numbers(reader, from, from + 150, round);
    }
    cr_assert_gt(recycled, 3);
    odm_close(reader);
    odm_close(sleeper);
    odm_close(writer);
}

/* A read-only handle follows an index that was rebuilt and renamed over the one it has. */
Test(reader, follows_an_index_that_was_superseded)
{
    const char *path = temp_map_path();
    odm_map *writer = open_map(path);
    put_numbers(writer, 0, 100, 0);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY), *dup;
    ok(odm_dup(reader, &dup, NULL));
    expect_numbers(reader, 0, 100, 0);
    odm_close(writer);
    cr_assert_eq(unlink(path_of(path, "lock")), 0); // Nobody vouches for the index now.
    writer = open_map(path);
    cr_assert_neq(statistics_of(writer).recovery_kind, ODM_RECOVERY_NONE);
    put_numbers(writer, 50, 150, 1);
    ok(odm_refresh(reader));
    expect_numbers(reader, 0, 50, 0);
    expect_numbers(reader, 50, 150, 1);
    expect_numbers(dup, 50, 150, 1);
    odm_close(dup);
    odm_close(reader);
    odm_close(writer);
}

/* With no index that can be trusted a read-only handle builds its own, writes nothing, and sees the moment it was built. */
Test(reader, builds_a_private_index_when_none_can_be_trusted)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 200, 0);
    remove_numbers(map, 0, 50);
    odm_close(map);
    static const char *const missing[] = {"lock", "index"};
    for (size_t i = 0; i < COUNT_OF(missing); i++) {
        cr_assert_eq(unlink(path_of(path, missing[i])), 0);
        uint64_t digest = tree_digest(path);
        map = open_map(path, .flags = ODM_READ_ONLY);
        expect_no_numbers(map, 0, 50);
        expect_numbers(map, 50, 200, 0);
        cr_assert_eq(odm_count(map), 150);
        cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_PRIVATE);
        odm_map *dup;
        ok(odm_dup(map, &dup, NULL));
        ok(odm_refresh(dup));
        expect_numbers(dup, 50, 200, 0);
        odm_close(dup);
        odm_close(map);
        cr_assert_eq(tree_digest(path), digest, "reading has written");
    }
}
