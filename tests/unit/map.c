/* One key: put, get, remove, entries, clear, count. map.h, and the promises of opendiskmap.h. */
#include "map.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"

TestSuite(map, .timeout = 60, .fini = remove_temp_directories);

Test(map, put_get_remove)
{
    odm_map *map = open_map(temp_map_path());
    expect_absent(map, "red");
    expect_status(odm_remove(map, "red", 3), ODM_NOT_FOUND);
    put(map, "red", "#f00");
    expect_value(map, "red", "#f00");
    put(map, "red", "crimson");
    expect_value(map, "red", "crimson");
    cr_assert_eq(odm_count(map), 1);
    expect_absent(map, "re");
    expect_absent(map, "redd");
    expect_absent(map, "Red");
    ok(odm_remove(map, "red", 3));
    expect_absent(map, "red");
    expect_status(odm_remove(map, "red", 3), ODM_NOT_FOUND);
    cr_assert_eq(odm_count(map), 0);
    odm_close(map);
}

/* Keys are told apart byte by byte, at every size. Method: keys that differ from another in one bit somewhere. */
Test(map, keys_that_differ_in_one_bit_are_different)
{
    odm_map *map = open_in_memory();
    unsigned char key[40];
    for (size_t size = 1; size <= sizeof key; size++) {
        memset(key, 'k', sizeof key);
        ok(odm_put(map, key, size, &size, sizeof size));
        for (size_t at = 0; at < size; at++) {
            key[at] ^= 1;
            expect_status(odm_get(map, key, size, NULL, NULL), ODM_NOT_FOUND);
            key[at] ^= 1;
        }
        const void *value;
        ok(odm_get(map, key, size, &value, NULL));
        cr_assert_eq(memcmp(value, &size, sizeof size), 0);
    }
    cr_assert_eq(odm_count(map), sizeof key);
    odm_close(map);
}

Test(map, bytes_are_bytes)
{
    odm_map *map = open_in_memory();
    ok(odm_put(map, "a\0b", 3, "x\0y\0", 4));
    ok(odm_put(map, "a", 1, "other", 5));
    const void *value;
    size_t size;
    ok(odm_get(map, "a\0b", 3, &value, &size));
    cr_assert_eq(size, 4);
    cr_assert_arr_eq(value, "x\0y\0", 4);
    expect_status(odm_get(map, "a\0", 2, NULL, NULL), ODM_NOT_FOUND);
    odm_close(map);
}

/* Empty keys and values are fine; NULL with size 0 is an argument like any. */
Test(map, empty_keys_and_values_are_fine)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    const void *value = "x";
    size_t size = 7;
    uint64_t version;
    expect_status(odm_get(map, NULL, 0, &value, &size), ODM_NOT_FOUND);
    ok(odm_put(map, NULL, 0, NULL, 0));
    ok(odm_get(map, "", 0, &value, &size));
    cr_assert_not_null(value);
    cr_assert_eq(size, 0);
    cr_assert_eq(odm_count(map), 1);
    ok(odm_entry_get(map, NULL, 0, &value, &size, &version));
    cr_assert_not_null(value);
    ok(odm_entry_put(map, "", 0, "now full", 8, version));
    odm_close(map);
    map = open_map(path);
    ok(odm_get(map, NULL, 0, &value, &size));
    cr_assert_eq(size, 8);
    ok(odm_remove(map, NULL, 0));
    expect_status(odm_get(map, NULL, 0, NULL, NULL), ODM_NOT_FOUND);
    ok(odm_put(map, "a", 1, NULL, 0));
    expect_value(map, "a", "");
    odm_close(map);
}

/* ---- arguments that alias ------------------------------------------------------------------------------------------ */

/* A slice of the map is an argument like any. Method: keys and values that come from the map itself, over rollovers. */
Test(map, arguments_may_be_slices_of_the_same_map)
{
    odm_map *map = open_map(temp_map_path());
    put(map, "0", "1");
    const void *key = "0", *value;
    size_t key_size = 1, size;
    char text[NUMBER_TEXT_SIZE];
    for (unsigned i = 1; i < 500; i++) {
        // The value found is the next key, and the key before its value.
        ok(odm_get(map, key, key_size, &value, &size));
        ok(odm_put(map, value, size, text, (size_t)snprintf(text, sizeof text, "%u", i + 1)));
        const void *again;
        size_t again_size;
        ok(odm_get(map, value, size, &again, &again_size));
        ok(odm_put(map, value, size, again, again_size)); // with its own value
        key = value;
        key_size = size;
    }
    expect_value(map, "499", "500");
    cr_assert_eq(odm_count(map), 500);
    ok(odm_get(map, "0", 1, &value, &size));
    ok(odm_remove(map, value, size));
    expect_absent(map, "1");
    uint64_t version;
    ok(odm_entry_get(map, "7", 1, &value, &size, &version));
    ok(odm_entry_put(map, "7", 1, value, size, version));
    expect_value(map, "7", "8");
    odm_close(map);
}

/* ---- entries ------------------------------------------------------------------------------------------------------- */

Test(map, entries_insert_only_what_is_absent)
{
    odm_map *map = open_map(temp_map_path());
    ok(odm_entry_put(map, "a", 1, "first", 5, 0));
    expect_status(odm_entry_put(map, "a", 1, "second", 6, 0), ODM_EXISTS);
    expect_value(map, "a", "first");
    cr_assert_eq(odm_count(map), 1);
    ok(odm_remove(map, "a", 1));
    ok(odm_entry_put(map, "a", 1, "third", 5, 0));
    expect_value(map, "a", "third");
    odm_close(map);
}

/* A version changes with every put and never comes back. Method: collect versions of one key over puts of the same value,
 * removes and inserts, and see that each old one is refused. */
Test(map, a_version_never_comes_back)
{
    odm_map *map = open_map(temp_map_path());
    enum { STEPS = 60 };
    uint64_t versions[STEPS];
    for (unsigned i = 0; i < STEPS; i++) {
        if (i % 7 == 6) ok(odm_remove(map, "k", 1));
        if (i == 30) ok(odm_clear(map, NULL));
        put(map, "k", "the same");
        ok(odm_entry_get(map, "k", 1, NULL, NULL, &versions[i]));
        cr_assert_neq(versions[i], 0);
        for (unsigned k = 0; k < i; k++) {
            cr_assert_neq(versions[i], versions[k]);
            expect_status(odm_entry_put(map, "k", 1, "x", 1, versions[k]), ODM_CONFLICT);
            expect_status(odm_entry_remove(map, "k", 1, versions[k]), ODM_CONFLICT);
        }
        expect_value(map, "k", "the same");
    }
    ok(odm_entry_put(map, "k", 1, "new", 3, versions[STEPS - 1]));
    expect_value(map, "k", "new");
    odm_close(map);
}

Test(map, entries_conflict_with_any_change)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *other = open_map(path);
    uint64_t version, vacant = 99;
    const void *value = "untouched";
    size_t size = 42;
    expect_status(odm_entry_get(map, "k", 1, &value, &size, &vacant), ODM_NOT_FOUND);
    cr_assert_eq(vacant, 0);
    put(map, "k", "1");
    ok(odm_entry_get(map, "k", 1, &value, &size, &version));
    cr_assert_eq(size, 1);

    put(other, "another", "x"); // No change of this key.
    ok(odm_entry_put(map, "k", 1, "2", 1, version));
    expect_status(odm_entry_put(map, "k", 1, "3", 1, version), ODM_CONFLICT);
    ok(odm_entry_get(map, "k", 1, NULL, NULL, &version));
    put(other, "k", "2");
    expect_status(odm_entry_put(map, "k", 1, "3", 1, version), ODM_CONFLICT);
    expect_status(odm_entry_remove(map, "k", 1, version), ODM_CONFLICT);
    ok(odm_entry_get(map, "k", 1, NULL, NULL, &version));
    ok(odm_remove(other, "k", 1));
    expect_status(odm_entry_put(map, "k", 1, "3", 1, version), ODM_CONFLICT);
    expect_status(odm_entry_remove(map, "k", 1, version), ODM_CONFLICT);
    expect_absent(map, "k");

    put(map, "k", "4");
    ok(odm_entry_get(other, "k", 1, NULL, NULL, &version));
    ok(odm_entry_remove(map, "k", 1, version)); // A version is for all handles.
    expect_absent(other, "k");
    cr_assert_eq(odm_count(map), 1);
    odm_close(other);
    odm_close(map);
}

/* A counter that many count up is right: no update is lost. */
static void count_up(void *context, unsigned number)
{
    (void)number;
    odm_map *map;
    if (odm_open(context, NULL, &map, NULL) != ODM_OK) return;
    for (unsigned done = 0; done < 200;) {
        const void *value;
        size_t size;
        uint64_t version, count = 0;
        odm_status status = odm_entry_get(map, "counter", 7, &value, &size, &version);
        if (status < 0) return;
        if (status == ODM_OK) memcpy(&count, value, sizeof count);
        count++;
        status = odm_entry_put(map, "counter", 7, &count, sizeof count, version);
        if (status < 0) return;
        done += status == ODM_OK;
        odm_refresh(map);
    }
    odm_close(map);
}

Test(map, no_update_of_a_counter_is_lost)
{
    const char *path = temp_map_path();
    run_threads(4, count_up, (void *)(uintptr_t)path);
    odm_map *map = open_map(path);
    const void *value;
    uint64_t count;
    ok(odm_get(map, "counter", 7, &value, NULL));
    memcpy(&count, value, sizeof count);
    cr_assert_eq(count, 4 * 200);
    odm_close(map);
}

/* ---- count and clear ----------------------------------------------------------------------------------------------- */

Test(map, count_is_exact)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *other = open_map(path);
    for (unsigned i = 0; i < 300; i++) {
        put_numbers(map, i, i + 1, 0);
        cr_assert_eq(odm_count(other), i + 1);
        put_numbers(map, i / 2, i / 2 + 1, 1);
        cr_assert_eq(odm_count(map), i + 1);
    }
    for (unsigned i = 0; i < 300; i++) {
        remove_numbers(other, i, i + 1);
        cr_assert_eq(odm_count(map), 299 - i);
    }
    cr_assert_eq(odm_count(NULL), 0);
    odm_close(other);
    odm_close(map);
}

Test(map, clear_removes_all_and_keeps_the_size)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *other = open_map(path);
    ok(odm_clear(map, NULL)); // Nothing is there.
    put_numbers(map, 0, 500, 0);
    expect_numbers(other, 0, 500, 0);
    uint64_t slots = statistics_of(map).slots;
    ok(odm_clear(map, NULL));
    cr_assert_eq(odm_count(other), 0);
    expect_no_numbers(other, 0, 500);
    odm_statistics after = statistics_of(map);
    cr_assert_eq(after.slots, slots);
    cr_assert_eq(after.live_bytes, 0);
    cr_assert_eq(after.tombstones, 0);
    put_numbers(other, 100, 200, 1);
    odm_close(other);
    odm_close(map);
    cr_assert_eq(unlink(path_of(path, "index")), 0); // Also for who reads the log.
    map = open_map(path);
    expect_numbers(map, 100, 200, 1);
    cr_assert_eq(odm_count(map), 100);
    odm_close(map);
}

/* Everything survives closing and a rebuild. Method: many rounds of the same keys, reopened after each, every other time
 * without its index. */
Test(map, what_was_put_is_there_after_reopening)
{
    const char *path = temp_map_path();
    for (unsigned round = 0; round < 8; round++) {
        odm_map *map = open_map(path);
        if (round > 0) expect_numbers(map, 0, 150, round - 1);
        if (round > 0) expect_no_numbers(map, 150, 200);
        put_numbers(map, 0, 200, round);
        remove_numbers(map, 150, 200);
        odm_close(map);
        if (round % 2) cr_assert_eq(unlink(path_of(path, "index")), 0);
    }
}

/* ---- in memory ----------------------------------------------------------------------------------------------------- */

Test(map, a_map_in_memory_is_one_like_any)
{
    size_t descriptors = descriptor_count();
    odm_map *map = open_map(NULL, .stripes = 2, .capacity = 100, .schema = "s", .schema_size = 1), *dup;
    odm_map *stranger = open_in_memory();
    put_numbers(map, 0, 1000, 0);
    ok(odm_dup(map, &dup, NULL));
    expect_numbers(dup, 0, 1000, 0);
    put_numbers(dup, 500, 1500, 1);
    expect_numbers(map, 500, 1500, 1);
    cr_assert_eq(odm_count(map), 1500);
    cr_assert_eq(odm_count(stranger), 0);
    ok(odm_sync(map, NULL));
    odm_statistics statistics = statistics_of(map);
    cr_assert_eq(statistics.stripes, 2);
    cr_assert_gt(statistics.segments, 4);
    odm_iter *iter;
    ok(odm_iter_open(map, &iter));
    unsigned entries = 0;
    while (odm_iter_next(iter, NULL, NULL, NULL, NULL) == ODM_OK) entries++;
    cr_assert_eq(entries, 1500);
    odm_iter_close(iter);
    ok(odm_clear(map, NULL));
    cr_assert_eq(odm_count(dup), 0);
    odm_close(map);
    put(dup, "a", "1"); // It lives as long as one of its handles.
    odm_close(dup);
    odm_close(stranger);
    cr_assert_eq(descriptor_count(), descriptors);
}

Test(map, maps_in_memory_can_be_many)
{
    odm_map *maps[40];
    for (unsigned i = 0; i < COUNT_OF(maps); i++) {
        maps[i] = open_in_memory();
        put_numbers(maps[i], i, i + 3, i);
    }
    for (unsigned i = 0; i < COUNT_OF(maps); i++) {
        cr_assert_eq(odm_count(maps[i]), 3);
        expect_numbers(maps[i], i, i + 3, i);
        odm_close(maps[i]);
    }
}

struct left_behind {
    odm_map *map;
    odm_iter *iter;
};

static void use_in_child(void *context)
{
    struct left_behind *left = context;
    odm_map *map = left->map, *dup = NULL;
    const void *value = NULL;
    size_t size = 0, n = 1;
    uint64_t version, end = 5, sizes[1];
    uint8_t outcome;
    odm_statistics statistics = {.struct_size = sizeof statistics};
    const void *schema;
    must(odm_get(map, "key 1", 5, &value, &size) == ODM_E_UNSUPPORTED);
    must(odm_get(map, "key 1", 5, &value, &size) == ODM_E_UNSUPPORTED); // and not only once
    must(odm_get(map, "nothing", 7, NULL, NULL) == ODM_E_UNSUPPORTED);
    must(odm_put(map, "key 1", 5, "x", 1) == ODM_E_UNSUPPORTED);
    must(odm_remove(map, "key 1", 5) == ODM_E_UNSUPPORTED);
    must(odm_clear(map, NULL) == ODM_E_UNSUPPORTED);
    must(odm_sync(map, NULL) == ODM_E_UNSUPPORTED);
    must(odm_refresh(map) == ODM_E_UNSUPPORTED);
    must(odm_entry_get(map, "key 1", 5, &value, &size, &version) == ODM_E_UNSUPPORTED);
    must(odm_entry_put(map, "key 1", 5, "x", 1, 0) == ODM_E_UNSUPPORTED);
    must(odm_entry_remove(map, "key 1", 5, 1) == ODM_E_UNSUPPORTED);
    must(odm_get_many(map, &n, "key 1", &end, NULL, sizes) == ODM_E_UNSUPPORTED && n == 0);
    n = 1;
    must(odm_write_many(map, &n, NULL, "key 1", &end, "key 1", &end, &outcome) == ODM_E_UNSUPPORTED && n == 0);
    must(odm_stat(map, &statistics) == ODM_E_UNSUPPORTED);
    must(odm_schema(map, &schema, &size) == ODM_E_UNSUPPORTED);
    must(odm_dup(map, &dup, NULL) == ODM_E_UNSUPPORTED && dup == NULL);
    must(odm_iter_next(left->iter, NULL, NULL, NULL, NULL) == ODM_E_UNSUPPORTED);
    n = 1;
    must(odm_iter_next_many(left->iter, &n, NULL, NULL, NULL, NULL) == ODM_E_UNSUPPORTED);
    odm_error error = {.struct_size = sizeof error};
    map->error.status = ODM_OK; // Else it is told from the last call.
    must(odm_count(map) == 0);
    must(odm_last_error(map, &error) == ODM_OK && error.status == ODM_E_UNSUPPORTED);
    must(odm_iter_close(left->iter) == ODM_OK);
    must(odm_close(map) == ODM_OK);
    // A child may make its own.
    must(odm_open(NULL, NULL, &map, NULL) == ODM_OK);
    must(odm_put(map, "a", 1, "b", 1) == ODM_OK);
    must(odm_get(map, "a", 1, &value, &size) == ODM_OK);
    must(odm_close(map) == ODM_OK);
}

/* A map in memory stays behind when a process forks: every call in the child says so, and the parent goes on. */
Test(map, a_map_in_memory_stays_behind_in_a_fork)
{
    struct left_behind left = {.map = open_in_memory()};
    put_numbers(left.map, 0, 200, 0);
    expect_numbers(left.map, 0, 10, 0);
    ok(odm_iter_open(left.map, &left.iter));
    ok(odm_iter_next(left.iter, NULL, NULL, NULL, NULL));
    expect_child_succeeds(start_child(use_in_child, &left));
    expect_numbers(left.map, 0, 200, 0);
    put_numbers(left.map, 100, 300, 1);
    expect_numbers(left.map, 100, 300, 1);
    cr_assert_eq(odm_count(left.map), 300);
    unsigned entries = 1;
    while (odm_iter_next(left.iter, NULL, NULL, NULL, NULL) == ODM_OK) entries++;
    cr_assert_geq(entries, 200);
    odm_iter_close(left.iter);
    odm_close(left.map);
}

/* ---- handles ------------------------------------------------------------------------------------------------------- */

Test(map, a_dup_is_a_handle_of_its_own)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .wait_ms = 77), *dup;
    put(map, "a", "1");
    ok(odm_dup(map, &dup, NULL));
    cr_assert_eq(dup->wait_ms, 77);
    odm_close(map);
    put(dup, "b", "2");
    expect_value(dup, "a", "1");
    odm_close(dup);

    map = open_map(path, .flags = ODM_READ_ONLY);
    ok(odm_dup(map, &dup, NULL));
    odm_close(map);
    expect_value(dup, "b", "2");
    expect_status(odm_put(dup, "c", 1, "3", 1), ODM_E_READ_ONLY);
    odm_close(dup);
}

/* The last error is the last one, also when it was told already; a success does not clear it. */
Test(map, the_last_error_stays_until_the_next)
{
    odm_map *map = open_in_memory(), *dup;
    cr_assert_eq(last_error_of(map).status, ODM_OK);
    put(map, "a", "1");
    expect_absent(map, "b"); // No error.
    cr_assert_eq(last_error_of(map).status, ODM_OK);
    expect_status(odm_get(map, NULL, 3, NULL, NULL), ODM_E_INVALID);
    expect_value(map, "a", "1");
    cr_assert_eq(last_error_of(map).status, ODM_E_INVALID);
    expect_status(odm_put(map, "a", ODM_KEY_SIZE_MAX + 1, "x", 1), ODM_E_TOO_BIG);
    cr_assert_eq(last_error_of(map).status, ODM_E_TOO_BIG);
    odm_error error = {.struct_size = sizeof error};
    odm_progress progress = {.struct_size = 1};
    expect_status(odm_compact(map, &progress, &error), ODM_E_INVALID);
    cr_assert_eq(error.status, ODM_E_INVALID);
    cr_assert_eq(last_error_of(map).status, ODM_E_INVALID);
    cr_assert_str_eq(last_error_of(map).message, error.message);
    ok(odm_dup(map, &dup, NULL));
    cr_assert_eq(last_error_of(dup).status, ODM_OK, "a dup has its own");
    odm_iter *iter;
    ok(odm_iter_open(map, &iter));
    expect_status(odm_iter_position(iter, NULL), ODM_E_INVALID);
    cr_assert_eq(last_error_of(map).status, ODM_E_INVALID, "an iterator's errors are its handle's");
    odm_iter_close(iter);
    odm_close(dup);
    odm_close(map);
}
