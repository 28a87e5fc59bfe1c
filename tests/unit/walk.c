/* Walking over a map: walk.h, and odm_iter_... in opendiskmap.h. */
#include "walk.h"

#include <stdlib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "support.h"

TestSuite(walk, .timeout = 60, .fini = remove_temp_directories);

enum { NUMBERS_MAX = 4000 };

/* The number of a key "key 17"; fails the test for any other. */
static unsigned number_of(const void *key, size_t size)
{
    char text[NUMBER_TEXT_SIZE] = {0};
    cr_assert(size > 4 && size < sizeof text, "a key of %zu bytes", size);
    memcpy(text, key, size);
    unsigned number;
    cr_assert_eq(sscanf(text, "key %u", &number), 1, "\"%s\"", text);
    cr_assert_lt(number, NUMBERS_MAX);
    return number;
}

static odm_iter *open_walk(odm_map *map)
{
    odm_iter *iter = NULL;
    ok(odm_iter_open(map, &iter));
    return iter;
}

/* The next number; -1 at the end. Counts it in seen. */
static int next_number(odm_iter *iter, unsigned *seen)
{
    const void *key, *value;
    size_t key_size, value_size;
    odm_status status = odm_iter_next(iter, &key, &key_size, &value, &value_size);
    if (status == ODM_DONE) return -1;
    expect_status(status, ODM_OK);
    unsigned number = number_of(key, key_size);
    char text[NUMBER_TEXT_SIZE];
    int length = snprintf(text, sizeof text, "value %u of ", number);
    cr_assert((int)value_size > length && memcmp(value, text, (size_t)length) == 0, "another key's value");
    cr_assert_eq((uintptr_t)value % 8, 0);
    seen[number]++;
    return (int)number;
}

static unsigned walk_all(odm_map *map, unsigned *seen)
{
    odm_iter *iter = open_walk(map);
    unsigned count = 0;
    while (next_number(iter, seen) >= 0) count++;
    expect_status(odm_iter_next(iter, NULL, NULL, NULL, NULL), ODM_DONE); // and stays so
    ok(odm_iter_close(iter));
    return count;
}

Test(walk, visits_every_key_once)
{
    static const uint32_t stripes[] = {1, 4, 16, 64};
    for (size_t i = 0; i < COUNT_OF(stripes); i++) {
        odm_map *map = open_map(temp_map_path(), .stripes = stripes[i]);
        unsigned seen[NUMBERS_MAX] = {0};
        cr_assert_eq(walk_all(map, seen), 0);
        put_numbers(map, 0, 1000, 0);
        put_numbers(map, 500, 1000, 1);
        remove_numbers(map, 200, 300);
        cr_assert_eq(walk_all(map, seen), 900);
        for (unsigned n = 0; n < 1000; n++)
            cr_assert_eq(seen[n], n < 200 || n >= 300, "key %u came %u times", n, seen[n]);
        odm_close(map);
    }
}

/* Keys that are there throughout come exactly once, although chunks split, are cleaned and used again under the walk; the
 * values are current. Method: between the steps another handle adds, replaces and removes others. */
Test(walk, visits_every_key_once_while_chunks_split)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 2), *writer = open_map(path);
    put_numbers(map, 0, 300, 0);
    unsigned seen[NUMBERS_MAX] = {0};
    odm_iter *iter = open_walk(map);
    uint64_t splits = statistics_of(map).splits;
    unsigned put_up_to = 300;
    for (unsigned step = 0; next_number(iter, seen) >= 0; step++) {
        if (put_up_to + 10 < NUMBERS_MAX) put_numbers(writer, put_up_to, put_up_to + 10, 0);
        put_up_to += 10;
        put_numbers(writer, step % 300, step % 300 + 1, step);
        if (step % 3 == 0) remove_numbers(writer, put_up_to - 10, put_up_to - 5);
        cr_assert_lt(step, 5000);
        if (put_up_to >= NUMBERS_MAX - 20) put_up_to = NUMBERS_MAX - 20; // Enough splits by then.
        if (put_up_to == NUMBERS_MAX - 20) break;
    }
    while (next_number(iter, seen) >= 0) continue;
    cr_assert_gt(statistics_of(map).splits, splits + 20);
    for (unsigned n = 0; n < 300; n++) cr_assert_eq(seen[n], 1, "key %u came %u times", n, seen[n]);
    for (unsigned n = 300; n < NUMBERS_MAX; n++) cr_assert_leq(seen[n], 1, "key %u came %u times", n, seen[n]);
    ok(odm_iter_close(iter));
    odm_close(writer);
    odm_close(map);
}

/* Keys that are there throughout come exactly once, although the index is built anew under the walk with fewer and larger
 * chunks. It once came to a chunk that also held hashes it had been at already, and gave their keys again.
 * Method: the index of many keys, of which few are left, is made smaller after each number of steps; likewise for a walk that
 * goes on from the position of the first. */
Test(walk, visits_every_key_once_though_the_index_becomes_smaller)
{
    for (unsigned steps = 1; steps < 300; steps += 23) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path, .stripes = 2), *writer = open_map(path);
        put_numbers(map, 0, 3000, 0);
        remove_numbers(map, 300, 3000);
        unsigned seen[NUMBERS_MAX] = {0}, seen_from[NUMBERS_MAX] = {0};
        odm_iter *iter = open_walk(map), *resumed = open_walk(map);
        for (unsigned i = 0; i < steps; i++) cr_assert_geq(next_number(iter, seen), 0);
        uint64_t position, slots = statistics_of(map).slots;
        ok(odm_iter_position(iter, &position));
        ok(odm_iter_seek(resumed, position));
        ok(odm_compact(writer, NULL, NULL));
        cr_assert_lt(statistics_of(map).slots, slots);
        while (next_number(iter, seen) >= 0) continue;
        while (next_number(resumed, seen_from) >= 0) continue;
        for (unsigned n = 0; n < 300; n++) {
            cr_assert_eq(seen[n], 1, "%u steps: key %u came %u times", steps, n, seen[n]);
            cr_assert_leq(seen_from[n], 1, "%u steps: key %u came %u times after the position", steps, n, seen_from[n]);
        }
        ok(odm_iter_close(resumed));
        ok(odm_iter_close(iter));
        odm_close(writer);
        odm_close(map);
    }
}

/* A loop may remove what it is given, with the very slices it was given. */
Test(walk, the_loop_may_remove_as_it_goes)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 800, 0);
    odm_iter *iter = open_walk(map);
    const void *key;
    size_t key_size;
    unsigned count = 0;
    while (odm_iter_next(iter, &key, &key_size, NULL, NULL) == ODM_OK) {
        ok(odm_remove(map, key, key_size));
        cr_assert_eq(odm_count(map), 799 - count++);
    }
    cr_assert_eq(count, 800);
    ok(odm_iter_close(iter));
    odm_close(map);
}

Test(walk, what_is_removed_before_it_is_reached_does_not_come)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 1);
    put_numbers(map, 0, 200, 0);
    unsigned seen[NUMBERS_MAX] = {0};
    odm_iter *iter = open_walk(map);
    bool gone[200] = {false};
    for (unsigned step = 0; next_number(iter, seen) >= 0; step++) {
        unsigned victim = step * 37 % 200;
        if (seen[victim] != 0 || gone[victim]) continue;
        remove_numbers(map, victim, victim + 1);
        gone[victim] = true;
    }
    for (unsigned n = 0; n < 200; n++) cr_assert_eq(seen[n], !gone[n], "key %u", n);
    ok(odm_iter_close(iter));
    odm_close(map);
}

Test(walk, values_are_current)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 1), *writer = open_map(path);
    put_numbers(map, 0, 200, 0);
    odm_iter *iter = open_walk(map);
    const void *key, *value;
    size_t key_size, value_size;
    for (unsigned step = 1; odm_iter_next(iter, &key, &key_size, &value, &value_size) == ODM_OK; step++) {
        char text[NUMBER_TEXT_SIZE];
        unsigned number = number_of(key, key_size);
        size_t size = number_value(number, step - 1, text);
        cr_assert(value_size == size && memcmp(value, text, size) == 0, "an old value of key %u", number);
        put_numbers(writer, 0, 200, step);
    }
    ok(odm_iter_close(iter));
    odm_close(writer);
    odm_close(map);
}

/* A clear under a walk ends it; what is put after may come. */
Test(walk, a_clear_ends_it)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 500, 0);
    unsigned seen[NUMBERS_MAX] = {0};
    odm_iter *iter = open_walk(map);
    for (unsigned i = 0; i < 100; i++) next_number(iter, seen);
    ok(odm_clear(map, NULL));
    cr_assert_eq(next_number(iter, seen), -1);
    ok(odm_iter_close(iter));
    odm_close(map);
}

/* ---- lifetimes ----------------------------------------------------------------------------------------------------- */

struct kept {
    const void *key, *value;
    size_t key_size, value_size;
};

static void expect_kept(const struct kept *kept, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char text[NUMBER_TEXT_SIZE];
        size_t size = number_value(number_of(kept[i].key, kept[i].key_size), 0, text);
        cr_assert_eq(kept[i].value_size, size);
        cr_assert_arr_eq(kept[i].value, text, size);
    }
}

/* All slices of a walk stay until the handle is refreshed, not only those of the chunk it is at.
 * Method: a handle that has read nothing else, in a process that holds no other handle; keep every slice of a walk over many
 * segments, look at all after the walk was closed. An unmapped segment would be a crash. */
Test(walk, slices_stay_until_the_handle_is_refreshed)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 1500, 0);
    odm_close(map);
    static struct kept kept[1500];
    static const uint32_t flags[] = {ODM_READ_ONLY, 0};
    for (size_t f = 0; f < COUNT_OF(flags); f++) {
        map = open_map(path, .flags = flags[f]);
        odm_iter *iter = open_walk(map);
        unsigned count = 0;
        for (;; count++) {
            struct kept *k = &kept[count < 1500 ? count : 0];
            odm_status status = odm_iter_next(iter, &k->key, &k->key_size, &k->value, &k->value_size);
            if (status == ODM_DONE) break;
            expect_status(status, ODM_OK);
            cr_assert_lt(count, 1500);
        }
        cr_assert_eq(count, 1500);
        expect_kept(kept, count);
        ok(odm_iter_close(iter));
        expect_kept(kept, count);
        ok(odm_refresh(map));
        odm_close(map);
    }
}

/* The last slices outlive a refresh, until the next call on the iterator. */
Test(walk, the_last_slices_outlive_a_refresh)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *writer = open_map(path);
    put_numbers(map, 0, 500, 0);
    odm_iter *iter = open_walk(map);
    struct kept kept;
    unsigned count = 0;
    while (odm_iter_next(iter, &kept.key, &kept.key_size, &kept.value, &kept.value_size) == ODM_OK) {
        if (count % 50 == 0) put_numbers(writer, 1000 + count, 1050 + count, 0);
        ok(odm_refresh(map));
        expect_kept(&kept, 1);
        count++;
    }
    cr_assert_geq(count, 500);
    ok(odm_iter_close(iter));
    odm_close(writer);
    odm_close(map);
}

/* So do those of entries that were changed since their chunk was copied: they lie in segments which the copy does not name.
 * Method: a walk is at its first entry when all are written anew, in another segment; that one is compacted away after the next
 * step, of one or of many. An unmapped segment is a crash. */
Test(walk, the_last_slices_outlive_a_refresh_though_their_entries_were_changed)
{
    enum { ENTRIES = 20 };
    static char filler[100000];
    static const size_t rooms[] = {1, 5, ENTRIES};
    for (size_t r = 0; r < COUNT_OF(rooms); r++) {
        odm_map *map = open_map(temp_map_path(), .stripes = 1);
        put_numbers(map, 0, ENTRIES, 0);
        odm_iter *iter = open_walk(map);
        ok(odm_iter_next(iter, NULL, NULL, NULL, NULL));
        ok(odm_put(map, "filler", 6, filler, sizeof filler));
        ok(odm_remove(map, "filler", 6));
        put_numbers(map, 0, ENTRIES, 0);

        const void *keys[ENTRIES], *values[ENTRIES];
        uint64_t key_sizes[ENTRIES], value_sizes[ENTRIES];
        size_t n = rooms[r];
        ok(odm_iter_next_many(iter, &n, keys, key_sizes, values, value_sizes));
        put_numbers(map, 0, ENTRIES, 1);
        ok(odm_compact(map, NULL, NULL));
        ok(odm_refresh(map));
        cr_assert_gt(statistics_of(map).unlinked_bytes, 0, "what the slices lie in has not left the map");
        for (size_t i = 0; i < n; i++) {
            expect_kept(&(struct kept){keys[i], values[i], key_sizes[i], value_sizes[i]}, 1);
        }
        for (size_t left = ENTRIES; odm_iter_next(iter, NULL, NULL, NULL, NULL) == ODM_OK; left--)
            cr_assert_gt(left, 0);
        ok(odm_iter_close(iter));
        ok(odm_refresh(map));
        cr_assert_eq(statistics_of(map).unlinked_bytes, 0, "a reference was not given back");
        odm_close(map);
    }
}

Test(walk, an_iterator_of_a_closed_map_is_invalid_and_must_be_closed)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 200, 0);
    odm_iter *fresh = open_walk(map), *begun = open_walk(map), *over = open_walk(map), *closed = open_walk(map);
    unsigned seen[NUMBERS_MAX] = {0};
    for (unsigned i = 0; i < 10; i++) next_number(begun, seen);
    while (next_number(over, seen) >= 0) continue;
    ok(odm_iter_close(closed));
    ok(odm_close(map));
    odm_iter *all[] = {fresh, begun, over};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        const void *key;
        size_t n = 5;
        uint64_t position;
        expect_status(odm_iter_next(all[i], &key, NULL, NULL, NULL), ODM_E_INVALID);
        expect_status(odm_iter_next_many(all[i], &n, NULL, NULL, NULL, NULL), ODM_E_INVALID);
        expect_status(odm_iter_position(all[i], &position), ODM_E_INVALID);
        expect_status(odm_iter_seek(all[i], 0), ODM_E_INVALID);
        ok(odm_iter_close(all[i]));
    }
}

Test(walk, walks_of_a_handle_do_not_disturb_each_other)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 400, 0);
    odm_iter *iters[5];
    unsigned seen[5][NUMBERS_MAX] = {{0}};
    for (unsigned i = 0; i < 5; i++) iters[i] = open_walk(map);
    for (unsigned step = 0; step < 401 * 5; step++) {
        if (step == 700) ok(odm_iter_close(iters[2])); // from the middle of the list
        if (step >= 700 && step % 5 == 2) continue;
        next_number(iters[step % 5], seen[step % 5]);
    }
    for (unsigned i = 0; i < 5; i++) {
        for (unsigned n = 0; n < 400 && i != 2; n++) cr_assert_eq(seen[i][n], 1);
        if (i != 2) ok(odm_iter_close(iters[i]));
    }
    odm_close(map);
}

/* ---- many at once -------------------------------------------------------------------------------------------------- */

Test(walk, next_many_is_next_many_times)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 700, 0);
    static const size_t rooms[] = {1, 2, 7, 64, 1000};
    for (size_t r = 0; r < COUNT_OF(rooms); r++) {
        odm_iter *one = open_walk(map), *many = open_walk(map);
        const void *keys[1000], *values[1000];
        uint64_t key_sizes[1000], value_sizes[1000];
        size_t n, count = 0;
        odm_status status;
        while (n = rooms[r], (status = odm_iter_next_many(many, &n, keys, key_sizes, values, value_sizes)) == ODM_OK) {
            cr_assert(n >= 1 && n <= rooms[r]);
            for (size_t i = 0; i < n; i++) {
                const void *key, *value;
                size_t key_size, value_size;
                ok(odm_iter_next(one, &key, &key_size, &value, &value_size));
                cr_assert(key == keys[i] && value == values[i]);
                cr_assert(key_size == key_sizes[i] && value_size == value_sizes[i]);
            }
            count += n;
        }
        expect_status(status, ODM_DONE);
        cr_assert_eq(n, 0);
        cr_assert_eq(count, 700);
        expect_status(odm_iter_next(one, NULL, NULL, NULL, NULL), ODM_DONE);
        ok(odm_iter_close(one));
        ok(odm_iter_close(many));
    }
    odm_iter *iter = open_walk(map);
    size_t n = 10, count = 0;
    while (odm_iter_next_many(iter, &n, NULL, NULL, NULL, NULL) == ODM_OK) {
        count += n;
        n = 10;
    }
    cr_assert_eq(count, 700);
    ok(odm_iter_close(iter));
    odm_close(map);
}

/* ---- positions ----------------------------------------------------------------------------------------------------- */

/* A walk that goes on from another's position misses nothing and repeats at most one chunk.
 * Method: stop after every number of steps, resume by a handle that was opened anew. */
Test(walk, resumes_in_another_handle)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    put_numbers(map, 0, 500, 0);
    odm_close(map);
    for (unsigned stop = 0; stop <= 500; stop += 23) {
        unsigned seen[NUMBERS_MAX] = {0};
        uint64_t position = 1;
        map = open_map(path);
        odm_iter *iter = open_walk(map);
        ok(odm_iter_position(iter, &position));
        cr_assert_eq(position, 0);
        for (unsigned i = 0; i < stop; i++) cr_assert_geq(next_number(iter, seen), 0);
        ok(odm_iter_position(iter, &position));
        ok(odm_iter_close(iter));
        odm_close(map);

        map = open_map(path, .flags = stop % 2 ? ODM_READ_ONLY : 0);
        iter = open_walk(map);
        ok(odm_iter_seek(iter, position));
        uint64_t again;
        ok(odm_iter_position(iter, &again));
        cr_assert_eq(again, position);
        while (next_number(iter, seen) >= 0) continue;
        ok(odm_iter_position(iter, &again));
        cr_assert_eq(again, UINT64_MAX);
        unsigned repeated = 0;
        for (unsigned n = 0; n < 500; n++) {
            cr_assert_geq(seen[n], 1, "stopped after %u: key %u is missing", stop, n);
            repeated += seen[n] - 1;
        }
        cr_assert_leq(repeated, CHUNK_SLOTS);
        ok(odm_iter_close(iter));
        odm_close(map);
    }
}

/* The same when the index was grown, or built anew, in between: what came before does not come again. */
Test(walk, resumes_after_the_index_was_rebuilt)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 2);
    put_numbers(map, 0, 300, 0);
    unsigned seen[NUMBERS_MAX] = {0};
    odm_iter *iter = open_walk(map);
    uint64_t position;
    for (unsigned i = 0; i < 120; i++) next_number(iter, seen);
    ok(odm_iter_position(iter, &position));
    cr_assert(position != 0 && position != UINT64_MAX);
    ok(odm_iter_close(iter));
    put_numbers(map, 300, 1500, 0);
    odm_close(map);
    cr_assert_eq(unlink(path_of(path, "index")), 0);
    map = open_map(path);
    iter = open_walk(map);
    ok(odm_iter_seek(iter, position));
    while (next_number(iter, seen) >= 0) continue;
    unsigned repeated = 0;
    for (unsigned n = 0; n < 300; n++) {
        cr_assert_geq(seen[n], 1, "key %u is missing", n);
        repeated += seen[n] - 1;
    }
    cr_assert_leq(repeated, CHUNK_SLOTS);
    for (unsigned n = 300; n < 1500; n++) cr_assert_leq(seen[n], 1);
    ok(odm_iter_close(iter));
    odm_close(map);
}

/* Any number is a position: the walk from it gives the keys whose hashes are not below it. */
Test(walk, seeks_to_any_position)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 4);
    put_numbers(map, 0, 600, 0);
    odm_iter *iter = open_walk(map);
    for (unsigned i = 0; i <= 64; i++) {
        uint64_t position = i == 64 ? UINT64_MAX - 1 : UINT64_C(0x9E3779B97F4A7C15) * i;
        unsigned seen[NUMBERS_MAX] = {0};
        ok(odm_iter_seek(iter, position));
        while (next_number(iter, seen) >= 0) continue;
        for (unsigned n = 0; n < 600; n++) {
            char key[512]; // xxHash has cases for long keys, which the compiler looks into.
            uint64_t hash = hash_key(key, number_key(n, key), map->reader.seed);
            cr_assert_eq(seen[n], hash >= position, "key %u", n);
        }
    }
    ok(odm_iter_seek(iter, UINT64_MAX));
    expect_status(odm_iter_next(iter, NULL, NULL, NULL, NULL), ODM_DONE);
    ok(odm_iter_close(iter));
    odm_close(map);
}

/* A walk that slept while the segment numbers went once round returns every key, with the value it has by now: be it between
 * two entries, or at the end of a chunk, or after it was told to begin anew.
 * Method: a walk for each number of entries it has returned before it slept; 1,024 segments, after which a slot's number of
 * a segment is the same again. */
Test(walk, is_not_led_astray_by_numbers_that_wrapped)
{
    enum { KEYS = 60, OTHERS = 1000 };
    odm_map *writer = open_map(temp_map_path(), .stripes = 4), *maps[KEYS];
    odm_iter *iters[KEYS];
    unsigned seen[KEYS][KEYS] = {0};
    put_numbers(writer, 0, KEYS, 0);
    for (unsigned i = 0; i < KEYS; i++) {
        ok(odm_dup(writer, &maps[i], NULL));
        iters[i] = open_walk(maps[i]);
        for (unsigned k = 0; k < i; k++) cr_assert_geq(next_number(iters[i], seen[i]), 0);
    }
    static char big[1500];
    char key[NUMBER_TEXT_SIZE];
    uint64_t first = address_number(statistics_of(writer).tail);
    for (unsigned n = 0; address_number(statistics_of(writer).tail) < first + 1024; n++) {
        ok(odm_put(writer, key, number_key(OTHERS + n % 8, key), big, sizeof big));
        put_numbers(writer, n % KEYS, n % KEYS + 1, 1);
    }
    remove_numbers(writer, OTHERS, OTHERS + 8);
    put_numbers(writer, 0, KEYS, 2);
    uint64_t version;
    ok(odm_entry_get(writer, key, number_key(KEYS / 2, key), NULL, NULL, &version));
    cr_assert_eq(address_number(version), first + 1024, "the numbers do not meet");
    (void)odm_sync(writer, NULL);
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % 7 == 6) { // The handle has seen the new head before the walk goes on.
            memset(seen[i], 0, sizeof seen[i]);
            ok(odm_iter_seek(iters[i], 0));
            expect_numbers(maps[i], 0, 1, 2);
        }
        while (next_number(iters[i], seen[i]) >= 0) continue;
        for (unsigned k = 0; k < KEYS; k++) cr_assert_eq(seen[i][k], 1, "walk %u, key %u: %u times", i, k, seen[i][k]);
        ok(odm_iter_close(iters[i]));
        odm_close(maps[i]);
    }
    odm_close(writer);
}

/* Where a record that was lent stands. */
static const char *file_of(const odm_map *map, const char *path, const unsigned char *at, uint64_t *offset)
{
    static char name[64];
    const struct held_segment *held = map->reader.held;
    while (at < held->segment->base || at >= held->segment->base + held->segment->size) held = held->next;
    *offset = (uint64_t)(at - held->segment->base);
    snprintf(name, sizeof name, "log/%011" PRIu64, held->segment->number);
    return path_of(path, name);
}

/* In the middle of a batch, behind keys that were removed since the walk read the index. */
Test(walk, damage_is_told_once_and_everything_else_comes_once)
{
    enum { COUNT = 76, REMOVED_FROM = 2, DAMAGED = 12 };
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 1, .capacity = 40);
    put_numbers(map, 0, COUNT, 0);
    odm_iter *order = open_walk(map), *iter = open_walk(map);
    unsigned seen[NUMBERS_MAX] = {0}, numbers[COUNT];
    const unsigned char *damaged = NULL;
    for (unsigned i = 0; i < COUNT; i++) {
        const void *key;
        size_t size;
        ok(odm_iter_next(order, &key, &size, NULL, NULL));
        numbers[i] = number_of(key, size);
        if (i == DAMAGED) damaged = (const unsigned char *)key - RECORD_HEADER_SIZE;
    }
    cr_assert_eq(next_number(iter, seen), (int)numbers[0]); // It has copied the chunk.
    for (unsigned i = REMOVED_FROM; i < DAMAGED; i++) remove_numbers(map, numbers[i], numbers[i] + 1);
    uint64_t offset;
    const char *file = file_of(map, path, damaged, &offset);
    flip_bits_at(file, offset + 7, 0xff);

    unsigned told = 0;
    for (odm_status status = ODM_OK; status != ODM_DONE;) {
        const void *keys[10];
        uint64_t sizes[10];
        size_t n = 10;
        status = odm_iter_next_many(iter, &n, keys, sizes, NULL, NULL);
        if (status == ODM_E_CORRUPT) told++;
        for (size_t i = 0; status == ODM_OK && i < n; i++) seen[number_of(keys[i], sizes[i])]++;
        cr_assert_leq(told, 1);
    }
    cr_assert_eq(told, 1);
    for (unsigned i = 0; i < COUNT; i++) {
        bool comes = i < REMOVED_FROM || i > DAMAGED;
        cr_assert_eq(seen[numbers[i]], comes, "entry %u came %u times", i, seen[numbers[i]]);
    }
    ok(odm_iter_close(order));
    ok(odm_iter_close(iter));
    odm_close(map);
}

/* A segment's header may have bytes that look like the header of a record. */
Test(walk, a_slot_that_names_the_header_of_a_segment_is_damage)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 1);
    put_numbers(map, 0, 1, 0);
    const void *value;
    size_t size;
    ok(odm_get(map, "key 0", 5, &value, &size));
    uint64_t offset;
    const char *file = file_of(map, path, value, &offset);
    const uint64_t like_a_put[2] = {(uint64_t)record_word(RECORD_PUT, 8) << 32, 8};
    write_file_at(file, 32, like_a_put, sizeof like_a_put);
    uint64_t word;
    struct index *index = &map->reader.index;
    ok(odm__index_word(index, 0, &word, NULL));
    odm__u64 *slots = (odm__u64 *)(void *)(index->base + word_location(word) * INDEX_UNIT);
    for (unsigned i = 0; i < 1U << word_bits(word); i++) {
        uint64_t slot = atomic_load(&slots[i]);
        if (slot == SLOT_EMPTY) continue;
        uint64_t elsewhere = slot & ~((UINT64_C(1) << ADDRESS_OFFSET_BITS) - 1);
        atomic_store(&slots[i], elsewhere | 32 / ADDRESS_UNIT);
    }
    odm_iter *iter = open_walk(map);
    expect_status(odm_iter_next(iter, NULL, NULL, NULL, NULL), ODM_E_CORRUPT);
    expect_status(odm_iter_next(iter, NULL, NULL, NULL, NULL), ODM_DONE);
    ok(odm_iter_close(iter));
    odm_close(map);
}
