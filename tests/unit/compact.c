/* compact.c - unit tests of compact.h: the log stays within its bound, what is live survives it, and what is damaged stops it.
 *
 * Method: the small geometry, in which segments have 4 KiB and the log may be 32 KiB above what is live; so everything moves
 * within some hundred puts. The map is compared with what was put, before and after a rebuild of its index.
 */
#include "compact.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "map.h"
#include "support.h"

TestSuite(compact, .timeout = 120, .fini = remove_temp_directories);

/* The bound that the README promises: spares are counted apart; one segment and one record above it. */
static uint64_t bound(const odm_statistics *s)
{
    uint64_t slack = s->live_bytes > odm__test_dead_bytes_min ? s->live_bytes : odm__test_dead_bytes_min;
    return s->live_bytes + slack + SEGMENT_SIZE_HOT;
}

static void expect_within_bound(odm_map *map)
{
    odm_statistics s = statistics_of(map);
    cr_assert_leq(s.log_bytes, bound(&s), "live %lu, log %lu", (unsigned long)s.live_bytes, (unsigned long)s.log_bytes);
}

/* Deletes the index and opens again: what the log says. */
static odm_map *rebuilt(odm_map *map, const char *path)
{
    ok(odm_close(map));
    cr_assert_eq(unlink(path_of(path, "index")), 0);
    return open_map(path, .flags = ODM_VERIFY_READS);
}

/* ---- as writes go on ----------------------------------------------------------------------------------------------- */

/* Whatever the pattern of updates, the log stays within its bound, and every value is the last one put.
 * Method: 40 times the live set; uniform, a hot tenth, and a window that slides. */
Test(compact, the_log_stays_within_its_bound)
{
    enum { KEYS = 1500, ROUNDS = 40 };
    for (int pattern = 0; pattern < 3; pattern++) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path);
        static unsigned round_of[KEYS];
        memset(round_of, 0, sizeof round_of);
        put_numbers(map, 0, KEYS, 0);
        uint64_t random = 1;
        for (unsigned i = 1; i <= KEYS * ROUNDS; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            unsigned any = (unsigned)(random >> 33);
            unsigned number = pattern == 0 ? any % KEYS : pattern == 1 ? any % (KEYS / 10) : (i / 50 + any % 30) % KEYS;
            put_numbers(map, number, number + 1, i);
            round_of[number] = i;
            if (i % 500 == 0) expect_within_bound(map);
        }
        odm_statistics s = statistics_of(map);
        cr_assert_gt(s.compacted_bytes, 0);
        cr_assert_gt(s.head, address_make(FIRST_NUMBER, SEGMENT_HEADER_SIZE));
        cr_assert_eq(s.count, KEYS);
        for (int again = 0; again < 2; again++) {
            for (unsigned k = 0; k < KEYS; k++) expect_numbers(map, k, k + 1, round_of[k]);
            if (again == 0) map = rebuilt(map, path);
        }
        cr_assert_eq(statistics_of(map).count, KEYS);
        odm_close(map);
    }
}

static odm_map *watched;
static uint64_t longest;

/* The log is at its longest when it is synced to be shortened. */
static int sync_and_look(void *base, size_t size)
{
    const struct lock_file *lock = watched->store->client.file;
    uint64_t head = atomic_load(&watched->reader.index.header->head);
    uint64_t bytes = odm__log_bytes(&watched->store->log, head, atomic_load(&lock->tail));
    if (bytes > longest) longest = bytes;
    return real_os()->sync_map(base, size);
}

/* Nor is it left for a moment, where everything old is live and has to be moved before anything can go: a hot set beside much
 * that never changes. */
Test(compact, the_bound_holds_at_every_moment)
{
    enum { KEYS = 8000, HOT = 80 };
    watched = open_map(temp_map_path());
    put_numbers(watched, 0, KEYS, 0);
    uint64_t live = statistics_of(watched).live_bytes;
    odm__os.sync_map = sync_and_look;
    for (unsigned i = 0; i < 60000; i++) put_numbers(watched, i % HOT, i % HOT + 1, 0);
    odm__os.sync_map = real_os()->sync_map;
    cr_assert_eq(statistics_of(watched).live_bytes, live);
    cr_assert_gt(statistics_of(watched).compacted_bytes, live);
    cr_assert_leq(longest, 2 * live + 2 * SEGMENT_SIZE_HOT, "live %lu, log %lu", (unsigned long)live,
                  (unsigned long)longest);
    odm_close(watched);
}

/* However many handles write, each a little.
 * Method: the handles take turns, so that one alone appends less than what is worth a look at how much is dead. */
Test(compact, the_log_of_many_handles_stays_within_its_bound)
{
    enum { HANDLES = 256, KEYS = 20 };
    odm_map *map = open_map(temp_map_path()), *handles[HANDLES];
    for (unsigned i = 0; i < HANDLES; i++) ok(odm_dup(map, &handles[i], NULL));
    for (unsigned i = 0; i < 20000; i++) {
        put_numbers(handles[i % HANDLES], i % KEYS, i % KEYS + 1, i);
        if (i % 50 == 0) expect_within_bound(map);
    }
    for (unsigned i = 0; i < HANDLES; i++) odm_close(handles[i]);
    odm_close(map);
}

/* Entries that come and go leave nothing: neither their records, nor those of their removal. */
Test(compact, removes_are_dropped_and_nothing_comes_back)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 100, 0);
    for (unsigned i = 100; i < 20000; i++) {
        put_numbers(map, i, i + 1, 0);
        remove_numbers(map, i - 50, i - 49);
        if (i % 500 == 0) expect_within_bound(map);
    }
    cr_assert_eq(odm_count(map), 100);
    map = rebuilt(map, path);
    cr_assert_eq(odm_count(map), 100);
    expect_numbers(map, 0, 50, 0);
    expect_no_numbers(map, 50, 19950);
    expect_numbers(map, 19950, 20000, 0);
    odm_close(map);
}

Test(compact, a_clear_is_dropped_and_brings_nothing_back)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    for (unsigned round = 0; round < 60; round++) {
        put_numbers(map, 0, 300, round);
        ok(odm_clear(map, NULL));
        put_numbers(map, round, round + 3, round);
    }
    expect_within_bound(map);
    map = rebuilt(map, path);
    cr_assert_eq(odm_count(map), 3);
    expect_numbers(map, 59, 62, 59);
    odm_close(map);
}

/* A client is killed between making a file for the log and giving it a size: an empty file stays, whose number lies between
 * those of the log. It must not stop compaction, or the log grows for ever.
 * Method: a number is taken and an empty file made, as that client did; then the log goes past it. */
Test(compact, an_empty_file_of_a_dead_client_does_not_stop_it)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    char name[32];
    for (unsigned round = 0; round < 3; round++) {
        uint64_t number = atomic_fetch_add(&map->store->client.file->next_number, 1);
        snprintf(name, sizeof name, "log/%011llu", (unsigned long long)number);
        int fd = open(path_of(path, name), O_CREAT | O_EXCL | O_RDWR, 0644);
        cr_assert_geq(fd, 0);
        close(fd);
        for (unsigned i = 0; i < 100; i++) put_numbers(map, 0, 100, i);
        cr_assert_gt(address_number(statistics_of(map).head), number);
        cr_assert_neq(access(path_of(path, name), F_OK), 0, "it is removed with the segments around it");
    }
    expect_within_bound(map);
    ok(odm_compact(map, NULL, NULL));
    expect_numbers(map, 0, 100, 99);
    odm_close(map);
}

/* In memory there is no disk to wait for. */
Test(compact, a_map_in_memory_gives_back_too)
{
    odm_map *map = open_in_memory();
    for (unsigned round = 0; round < 200; round++) put_numbers(map, 0, 100, round);
    expect_within_bound(map);
    expect_numbers(map, 0, 100, 199);
    cr_assert_gt(statistics_of(map).head, address_make(FIRST_NUMBER, SEGMENT_HEADER_SIZE));
    odm_close(map);
}

/* What a handle lent stays, whoever retires the segment, and its disk space is given back by the refresh. */
Test(compact, slices_outlive_their_segments)
{
    odm_map *map = open_map(temp_map_path()), *reader;
    put_numbers(map, 0, 200, 0);
    ok(odm_dup(map, &reader, NULL));
    const void *value[200];
    size_t size[200];
    char key[NUMBER_TEXT_SIZE], text[NUMBER_TEXT_SIZE];
    for (unsigned i = 0; i < 200; i++) ok(odm_get(reader, key, number_key(i, key), &value[i], &size[i]));
    for (unsigned round = 1; round < 100; round++) put_numbers(map, 0, 200, round);
    odm_statistics s = statistics_of(map);
    cr_assert_gt(s.head, address_make(FIRST_NUMBER + 3, SEGMENT_HEADER_SIZE));
    expect_numbers(reader, 0, 200, 99);
    for (unsigned i = 0; i < 200; i++) {
        cr_assert_eq(size[i], number_value(i, 0, text));
        cr_assert_eq(memcmp(value[i], text, size[i]), 0);
    }
    cr_assert_gt(statistics_of(map).unlinked_bytes, 0);
    ok(odm_refresh(reader));
    cr_assert_eq(statistics_of(map).unlinked_bytes, 0);
    odm_close(reader);
    odm_close(map);
}

/* A handle that slept while the segment numbers went once round finds every key, and nothing stale.
 * Method: 1,100 segments, where a slot keeps a number modulo 1,024. */
Test(compact, a_sleeper_is_not_led_astray_by_numbers_that_wrapped)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 60, 0);
    odm_map *sleeper, *reader = open_map(path, .flags = ODM_READ_ONLY);
    ok(odm_dup(map, &sleeper, NULL));
    expect_numbers(sleeper, 0, 60, 0);
    expect_numbers(reader, 0, 60, 0);
    unsigned round = 0;
    char key[NUMBER_TEXT_SIZE];
    static char big[1500];
    while (address_number(statistics_of(map).tail) < FIRST_NUMBER + 1100) {
        round++;
        for (unsigned i = 0; i < 60; i++) ok(odm_put(map, key, number_key(i, key), big, sizeof big));
    }
    put_numbers(map, 0, 60, round);
    expect_numbers(sleeper, 0, 60, round);
    expect_numbers(reader, 0, 60, round);
    put_numbers(sleeper, 0, 60, round + 1);
    expect_numbers(map, 0, 60, round + 1);
    odm_close(reader);
    odm_close(sleeper);
    odm_close(map);
}

/* A reader that had to build an index of its own keeps the moment it was built at, though a writer comes and retires all of it;
 * then it sees what is there. */
Test(compact, a_private_reader_keeps_its_moment)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 300, 0);
    ok(odm_close(map));
    cr_assert_eq(unlink(path_of(path, "index")), 0);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY);
    cr_assert_eq(statistics_of(reader).recovery_kind, ODM_RECOVERY_PRIVATE);
    map = open_map(path);
    for (unsigned round = 1; round < 50; round++) put_numbers(map, 0, 300, round);
    ok(odm_compact(map, NULL, NULL));
    expect_numbers(reader, 0, 300, 0);
    ok(odm_refresh(reader));
    expect_numbers(reader, 0, 300, 49);
    odm_close(reader);
    odm_close(map);
}

/* And what it kept for that is given back when its last handle has gone on: the disk space of the log as it was, and the memory of
 * the index. Not before; and not what slices lie in that outlive a refresh. */
Test(compact, a_private_reader_keeps_nothing_of_its_moment_when_it_is_over)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 300, 0);
    ok(odm_close(map));
    cr_assert_eq(unlink(path_of(path, "index")), 0);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY), *dup;
    ok(odm_dup(reader, &dup, NULL));
    odm_iter *iter;
    const void *value;
    size_t size;
    ok(odm_iter_open(dup, &iter));
    map = open_map(path);
    for (unsigned round = 1; round < 50; round++) put_numbers(map, 0, 300, round);
    ok(odm_compact(map, NULL, NULL));
    ok(odm_refresh(reader));
    expect_numbers(reader, 0, 300, 49);
    cr_assert_gt(statistics_of(reader).unlinked_bytes, 0);
    expect_numbers(dup, 0, 300, 0);
    ok(odm_iter_next(iter, NULL, NULL, &value, &size));
    char first[NUMBER_TEXT_SIZE];
    cr_assert_lt(size, sizeof first);
    memcpy(first, value, size);

    size_t descriptors = descriptor_count();
    ok(odm_refresh(dup));
    cr_assert_eq(descriptor_count(), descriptors - 2, "the index, or its name, is still there");
    expect_numbers(dup, 0, 300, 49);
    cr_assert_eq(memcmp(value, first, size), 0);
    ok(odm_iter_close(iter));
    ok(odm_refresh(dup));
    cr_assert_eq(statistics_of(reader).unlinked_bytes, 0);
    odm_close(dup);
    odm_close(reader);
    odm_close(map);
}

/* A walk beside compaction returns every key exactly once. */
Test(compact, a_walk_beside_it_returns_each_key_once)
{
    enum { KEYS = 800 };
    odm_map *map = open_map(temp_map_path()), *writer;
    ok(odm_dup(map, &writer, NULL));
    put_numbers(map, 0, KEYS, 0);
    for (unsigned round = 1; round < 8; round++) {
        static unsigned seen[KEYS];
        memset(seen, 0, sizeof seen);
        odm_iter *iter;
        ok(odm_iter_open(map, &iter));
        const void *key;
        size_t size, n = 0;
        odm_status status;
        while ((status = odm_iter_next(iter, &key, &size, NULL, NULL)) == ODM_OK) {
            unsigned number = (unsigned)strtoul((const char *)key + strlen("key "), NULL, 10);
            cr_assert_lt(number, KEYS);
            cr_assert_eq(seen[number]++, 0, "key %u came twice", number);
            n++;
            unsigned other = (number * 7 + 3) % KEYS;
            for (int i = 0; i < 5; i++) put_numbers(writer, other, other + 1, round);
        }
        expect_status(status, ODM_DONE);
        cr_assert_eq(n, KEYS);
        odm_iter_close(iter);
        ok(odm_refresh(map));
    }
    odm_close(writer);
    odm_close(map);
}

/* ---- odm_compact --------------------------------------------------------------------------------------------------- */

/* A clock on which every look takes 10 ms: so every step of long work is one call. */
static uint64_t slow_clock_ns(void)
{
    static uint64_t now;
    return now += 10 * 1000 * 1000;
}

/* Nothing dead is left, nothing live is lost, versions stay, and the files of what went are gone. */
Test(compact, compact_reclaims_all_dead_bytes)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    keep_whole_log();
    for (unsigned round = 0; round < 5; round++) put_numbers(map, 0, 400, round);
    remove_numbers(map, 100, 200);
    static uint64_t version[400];
    char key[NUMBER_TEXT_SIZE];
    for (unsigned i = 0; i < 400; i++) (void)odm_entry_get(map, key, number_key(i, key), NULL, NULL, &version[i]);
    cr_assert_gt(statistics_of(map).dead_bytes, 3 * statistics_of(map).live_bytes);

    ok(odm_compact(map, NULL, NULL));
    odm_statistics s = statistics_of(map);
    cr_assert_leq(s.dead_bytes, (s.segments + 1) * SEGMENT_HEADER_SIZE);
    cr_assert_eq(s.count, 300);
    cr_assert_leq(file_count(path_of(path, "log")), s.segments + SPARES_MAX);
    for (unsigned i = 0; i < 400; i++) {
        uint64_t now;
        (void)odm_entry_get(map, key, number_key(i, key), NULL, NULL, &now);
        cr_assert_eq(now, version[i], "a move must not look like a change");
    }
    uint64_t tail = s.tail;
    ok(odm_compact(map, NULL, NULL)); // Nothing is dead: nothing is written.
    cr_assert_eq(statistics_of(map).tail, tail);
    map = rebuilt(map, path);
    cr_assert_eq(odm_count(map), 300);
    expect_numbers(map, 0, 100, 4);
    expect_no_numbers(map, 100, 200);
    expect_numbers(map, 200, 400, 4);
    odm_close(map);
}

/* In steps, with writes in between; done never falls and reaches total. */
Test(compact, compact_goes_in_steps_beside_writers)
{
    odm_map *map = open_map(temp_map_path()), *writer;
    ok(odm_dup(map, &writer, NULL));
    keep_whole_log();
    for (unsigned round = 0; round < 300; round++) put_numbers(map, 0, 100, round);
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
    odm__os.now_ns = slow_clock_ns;
    odm_status status;
    uint64_t done = 0;
    unsigned steps = 0;
    while ((status = odm_compact(map, &progress, NULL)) == ODM_OK) {
        cr_assert_geq(progress.done, done);
        cr_assert_leq(progress.done, progress.total);
        done = progress.done;
        steps++;
        put_numbers(writer, steps % 100, steps % 100 + 1, 1000 + steps);
    }
    expect_status(status, ODM_DONE);
    cr_assert_geq(steps, 2);
    cr_assert_eq(progress.done, progress.total);
    expect_status(odm_compact(map, &progress, NULL), ODM_DONE);
    cr_assert_eq(odm_count(map), 100);
    cr_assert_lt(statistics_of(map).dead_bytes, 20000);
    odm_close(writer);
    odm_close(map);
}

/* A record that fails its check is not given a new one that passes: compaction stops before it and says where. What lies
 * behind it is still there. */
Test(compact, a_damaged_record_stops_it_and_is_named)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    keep_whole_log();
    put_numbers(map, 0, 300, 0);
    put_numbers(map, 0, 20, 1);
    const void *value;
    size_t size;
    uint64_t version;
    ok(odm_entry_get(map, "key 100", 7, &value, &size, &version));
    char name[SEGMENT_NAME_SIZE];
    odm__segment_name(address_number(version), name);
    char file[64];
    snprintf(file, sizeof file, "log/%s", name);
    uint64_t offset = address_offset(version);
    flip_bits_at(path_of(path, file), offset + RECORD_HEADER_SIZE + padded(7) + 2, 4);

    odm_error error = {.struct_size = sizeof error};
    expect_status(odm_compact(map, NULL, &error), ODM_E_CORRUPT);
    char where[64];
    snprintf(where, sizeof where, "%s, offset %lu", name, (unsigned long)offset);
    expect_message(error, where);
    odm_statistics s = statistics_of(map);
    cr_assert_eq(s.compaction_stopped_at, version);
    cr_assert_eq(s.count, 300);
    expect_numbers(map, 0, 20, 1);
    expect_numbers(map, 101, 300, 0);
    odm__test_dead_bytes_min = 8 * PAGE;
    for (unsigned round = 0; round < 100; round++) put_numbers(map, 0, 50, round); // Puts go on, and the log grows.
    cr_assert_eq(statistics_of(map).compaction_stopped_at, version);
    cr_assert_eq(statistics_of(map).head, s.head);

    // Once the record has gone, nothing is in the way any more.
    ok(odm_remove(map, "key 100", 7));
    ok(odm_compact(map, NULL, &error));
    cr_assert_eq(statistics_of(map).compaction_stopped_at, 0);
    cr_assert_eq(odm_count(map), 299);
    odm_close(map);
}

/* How far compaction has come stands in the lock file; if that is damaged, odm_compact says so rather than that it is done. */
Test(compact, a_place_behind_the_log_is_named)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 300, 0);
    struct lock_file *lock = map->store->client.file;
    for (unsigned round = 0; round < 2; round++) {
        uint64_t number = address_number(atomic_load(&lock->tail)) + 2;
        atomic_store(&lock->compacted_to, address_make(number, SEGMENT_HEADER_SIZE));
        odm_error error = {.struct_size = sizeof error};
        expect_status(odm_compact(map, NULL, &error), ODM_E_CORRUPT);
        char where[64];
        snprintf(where, sizeof where, "log/%011lu, offset 64", (unsigned long)number);
        expect_message(error, where);
        atomic_store(&lock->compacted_to, 0);
        put_numbers(map, 0, 20, 1); // Next time there is something to compact.
    }
    ok(odm_compact(map, NULL, NULL));
    expect_numbers(map, 20, 300, 0);
    odm_close(map);
}

/* A place before the first record of the segment to compact up to, in a damaged file, does not make it go on for ever. */
Test(compact, a_place_before_all_records_is_no_trap)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 300, 0);
    struct lock_file *lock = map->store->client.file;
    uint64_t first;
    ok(odm__log_roll(&map->writer, map->reader.head, false, &first, NULL));
    atomic_store(&lock->emptied_to, address_make(address_number(first) + 5, SEGMENT_HEADER_SIZE));
    atomic_store(&lock->compacted_to, first - 1);
    expect_status(odm_compact(map, NULL, NULL), ODM_E_CORRUPT);
    atomic_store(&lock->emptied_to, 0);
    atomic_store(&lock->compacted_to, 0);
    ok(odm_compact(map, NULL, NULL));
    expect_numbers(map, 0, 300, 0);
    odm_close(map);
}

/* ---- a failed sync --------------------------------------------------------------------------------------------------- */

static int sync_map_fails(void *base, size_t size)
{
    (void)base, (void)size;
    errno = EIO;
    return -1;
}

/* After a failed sync odm_compact writes everything anew, and then syncs are to be believed again. Nothing goes before. */
Test(compact, compact_is_the_way_back_from_a_failed_sync)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    for (unsigned round = 0; round < 30; round++) put_numbers(map, 0, 100, round);
    uint64_t head = statistics_of(map).head;
    odm__os.sync_map = sync_map_fails;
    expect_status(odm_sync(map, NULL), ODM_E_IO);
    odm__os.sync_map = real_os()->sync_map;
    expect_status(odm_sync(map, NULL), ODM_E_IO);
    cr_assert_eq(statistics_of(map).sync_failed, 1);
    for (unsigned round = 30; round < 60; round++) put_numbers(map, 0, 100, round);
    cr_assert_eq(statistics_of(map).head, head, "nothing is given up while nothing can be made durable");

    odm__os.sync_map = sync_map_fails;
    expect_status(odm_compact(map, NULL, NULL), ODM_E_IO);
    cr_assert_eq(statistics_of(map).head, head);
    odm__os.sync_map = real_os()->sync_map;
    uint64_t tail = statistics_of(map).tail;
    ok(odm_compact(map, NULL, NULL));
    odm_statistics s = statistics_of(map);
    cr_assert_eq(s.sync_failed, 0);
    cr_assert_gt(s.head, tail, "all of it was written anew");
    ok(odm_sync(map, NULL));
    expect_numbers(map, 0, 100, 59);
    map = rebuilt(map, path);
    expect_numbers(map, 0, 100, 59);
    ok(odm_sync(map, NULL));
    odm_close(map);
}

/* In an empty map, too, where nothing stands behind the header of the last segment: that header may be lost like anything else that
 * was to be synced then, and the kernel says of it that it is on disk. A map that began there once did not open after power loss. */
Test(compact, the_way_back_from_a_failed_sync_begins_no_log_that_may_be_lost)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    for (unsigned turn = 0; turn < 3; turn++) {
        put_numbers(map, 0, 50, turn);
        remove_numbers(map, 0, 50);
        odm__os.sync_map = sync_map_fails;
        expect_status(odm_compact(map, NULL, NULL), ODM_E_IO);
        odm__os.sync_map = real_os()->sync_map;
        odm_statistics failed = statistics_of(map);
        cr_assert_eq(failed.sync_failed, 1);
        cr_assert_eq(failed.tail, address_make(address_number(failed.tail), SEGMENT_HEADER_SIZE));
        ok(odm_compact(map, NULL, NULL));
        ok(odm_sync(map, NULL));
        cr_assert_gt(address_number(statistics_of(map).head), address_number(failed.tail));
        cr_assert_eq(statistics_of(map).sync_failed, 0);
        if (turn == 1) map = rebuilt(map, path);
        cr_assert_eq(odm_count(map), 0);
    }
    odm_close(map);
}

/* Runs odm_compact on, step by step, to its end. */
static void expect_compacted(odm_map *map, odm_progress *progress)
{
    odm_status status;
    while ((status = odm_compact(map, progress, NULL)) == ODM_OK) continue;
    expect_status(status, ODM_DONE);
}

/* What was moved before a sync failed may be lost just as what was not: it is moved once more, for the kernel would answer a
 * second sync of it with a false success. Be it another's sync that fails between two steps, or the very sync of odm_compact,
 * which is then called again with the same progress; and whether there was anything to move before or not. */
Test(compact, a_sync_that_fails_on_the_way_makes_it_begin_anew)
{
    for (unsigned steps = 1; steps < 6; steps++) {
        odm_map *map = open_map(temp_map_path());
        keep_whole_log();
        for (unsigned round = 0; round < (steps == 5 ? 1 : 300); round++) put_numbers(map, 0, 100, round);
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = steps == 4 ? 0 : 1};
        odm__os.now_ns = slow_clock_ns;
        if (steps == 4) odm__os.sync_map = sync_map_fails;
        if (steps == 4) expect_status(odm_compact(map, &progress, NULL), ODM_E_IO);
        for (unsigned i = 0; steps != 4 && i < steps % 4; i++) ok(odm_compact(map, &progress, NULL));
        uint64_t tail = statistics_of(map).tail;
        odm__os.sync_map = sync_map_fails;
        expect_status(odm_sync(map, NULL), ODM_E_IO);
        odm__os.sync_map = real_os()->sync_map;

        expect_compacted(map, &progress);
        cr_assert_eq(statistics_of(map).sync_failed, 0);
        cr_assert_gt(statistics_of(map).head, tail, "after %u steps: taken for durable as it was", steps);
        expect_numbers(map, 0, 100, steps == 5 ? 0 : 299);
        odm_close(map);
    }
}

/* Two go the way back at a time, and one comes first: the other must not take head back to what is gone, though it has seen the
 * failure, or another one has come. */
Test(compact, two_ways_back_from_a_failed_sync)
{
    for (int again = 0; again < 2; again++) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path), *other;
        ok(odm_dup(map, &other, NULL));
        put_numbers(map, 0, 100, 0);
        odm__os.sync_map = sync_map_fails;
        expect_status(odm_sync(map, NULL), ODM_E_IO);
        odm__os.sync_map = real_os()->sync_map;
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
        odm__os.now_ns = slow_clock_ns;
        for (int i = 0; i < 2; i++) ok(odm_compact(map, &progress, NULL)); // All is moved, and not yet synced.
        ok(odm_compact(other, NULL, NULL));
        uint64_t head = statistics_of(map).head;
        put_numbers(map, 0, 100, 1);
        odm__os.sync_map = sync_map_fails;
        if (again) expect_status(odm_sync(map, NULL), ODM_E_IO);
        odm__os.sync_map = real_os()->sync_map;
        expect_compacted(map, &progress);
        cr_assert_geq(statistics_of(map).head, head);
        ok(odm_sync(other, NULL));
        odm_close(other);
        map = rebuilt(map, path);
        expect_numbers(map, 0, 100, 1);
        odm_close(map);
    }
}

static odm_map *watched;
static uint64_t recycled_before;
static unsigned unlinked;

static int unlink_after_it_was_told(int directory, const char *name, bool is_directory)
{
    const struct index_header *header = watched->reader.index.header;
    uint64_t number = strtoull(name, NULL, 10); // 0: no segment
    if (number != 0) {
        cr_assert_gt(address_number(atomic_load(&header->head)), number, "head is still in log/%s", name);
        cr_assert_gt(atomic_load(&header->recycled), recycled_before, "nobody was told that log/%s goes", name);
        ++unlinked;
    }
    return real_os()->unlink(directory, name, is_directory);
}

/* Who meets a file that is gone must find, when he looks, that something has changed, and where the log begins now. So that is
 * told before the file goes. Method: look at each unlink. */
Test(compact, readers_are_told_before_a_segment_goes)
{
    watched = open_map(temp_map_path());
    for (unsigned round = 0; round < 20; round++) put_numbers(watched, 0, 300, round);
    recycled_before = atomic_load(&watched->reader.index.header->recycled);
    odm__os.unlink = unlink_after_it_was_told;
    ok(odm_sync(watched, NULL));
    for (unsigned round = 20; round < 40; round++) {
        recycled_before = atomic_load(&watched->reader.index.header->recycled);
        ok(odm_compact(watched, NULL, NULL));
        put_numbers(watched, 0, 300, round);
    }
    cr_assert_gt(unlinked, 20);
    expect_numbers(watched, 0, 300, 39);
    odm__os.unlink = real_os()->unlink;
    odm_close(watched);
}

/* ---- a full disk ----------------------------------------------------------------------------------------------------- */

static _Atomic int64_t disk_left;

static int reserve_from_disk(int fd, off_t offset, off_t size)
{
    if (atomic_fetch_sub(&disk_left, size) >= size) return real_os()->reserve(fd, offset, size);
    atomic_fetch_add(&disk_left, size);
    errno = ENOSPC;
    return -1;
}

static int unlink_to_disk(int directory, const char *name, bool is_directory)
{
    struct file_identity identity = {0};
    bool known = odm__os.identify_name(directory, name, &identity) == 0;
    int result = real_os()->unlink(directory, name, is_directory);
    if (result == 0 && known && !is_directory) atomic_fetch_add(&disk_left, (int64_t)identity.size);
    return result;
}

/* On a full disk updates go on for ever, because what they make dead is given back; what is really too much is refused, and
 * everything that was there stays.
 * Method: a system call table that counts bytes reserved and unlinked. */
Test(compact, updates_go_on_on_a_full_disk)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 300, 0);
    ok(odm_compact(map, NULL, NULL));
    odm__test_dead_bytes_min = 1024 * PAGE; // So that only the full disk makes it compact.
    atomic_store(&disk_left, 30 * PAGE);
    odm__os.reserve = reserve_from_disk;
    odm__os.unlink = unlink_to_disk;
    for (unsigned round = 1; round <= 200; round++) put_numbers(map, 0, 300, round);
    expect_numbers(map, 0, 300, 200);

    unsigned fresh = 300;
    char key[NUMBER_TEXT_SIZE];
    odm_status status;
    while ((status = odm_put(map, key, number_key(fresh, key), "value", 5)) == ODM_OK) fresh++;
    expect_status(status, ODM_E_NO_SPACE);
    cr_assert_gt(fresh, 600);
    cr_assert_eq(odm_count(map), fresh);
    expect_numbers(map, 0, 300, 200);
    // Half of it is removed: there is room again, by itself.
    for (unsigned i = 300; i < fresh; i++) ok(odm_remove(map, key, number_key(i, key)));
    for (unsigned round = 201; round <= 300; round++) put_numbers(map, 0, 300, round);
    odm__os = *real_os();
    map = rebuilt(map, path);
    expect_numbers(map, 0, 300, 300);
    cr_assert_eq(odm_count(map), 300);
    odm_close(map);
}

/* ---- the index ------------------------------------------------------------------------------------------------------- */

/* After most keys were removed odm_compact makes the index small again, beside readers and writers that go on; with the few bits
 * that the index keeps of a hash, and with more.
 * Method: 1 stripe and 16, of which the latter needs bits of the hash that only the record's key has. */
Test(compact, compact_makes_the_index_small_again)
{
    for (uint32_t stripes = 1; stripes <= 16; stripes *= 16) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path, .stripes = stripes);
        odm_map *dup, *reader, *other;
        put_numbers(map, 0, 5000, 0);
        uint64_t large = statistics_of(map).index_bytes;
        remove_numbers(map, 200, 5000);
        ok(odm_dup(map, &dup, NULL));
        reader = open_map(path, .flags = ODM_READ_ONLY);
        expect_numbers(dup, 0, 200, 0);
        expect_numbers(reader, 0, 200, 0);
        odm_iter *iter;
        ok(odm_iter_open(dup, &iter));
        ok(odm_iter_next(iter, NULL, NULL, NULL, NULL));

        ok(odm_compact(map, NULL, NULL));
        odm_statistics s = statistics_of(map);
        cr_assert_lt(s.index_bytes, large / 2);
        cr_assert_eq(s.count, 200);
        cr_assert_lt(file_size(path_of(path, "index")), large);
        cr_assert(!file_exists(path_of(path, "index.new")));
        other = open_map(path);
        put_numbers(dup, 200, 400, 1);
        put_numbers(other, 400, 900, 1);
        odm_map *all[] = {map, dup, reader, other};
        for (size_t i = 0; i < COUNT_OF(all); i++) {
            expect_numbers(all[i], 0, 200, 0);
            expect_numbers(all[i], 200, 900, 1);
            expect_no_numbers(all[i], 900, 5000);
        }
        size_t n = 1;
        while (odm_iter_next(iter, NULL, NULL, NULL, NULL) == ODM_OK) n++;
        cr_assert_geq(n, 200);
        odm_iter_close(iter);
        for (size_t i = 1; i < COUNT_OF(all); i++) odm_close(all[i]);
        ok(odm_close(map));
        map = open_map(path, .flags = ODM_VERIFY_READS);
        expect_numbers(map, 200, 900, 1);
        cr_assert_eq(odm_count(map), 900);
        cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE, "the lock file vouches for the new index");
        odm_close(map);
    }
}

static int exchange_and_die(int directory, const char *a, const char *b)
{
    (void)real_os()->exchange(directory, a, b);
    _exit(7);
}

static int die_before_exchange(int directory, const char *a, const char *b)
{
    (void)directory, (void)a, (void)b;
    _exit(7);
}

static void compact_and_die(void *path)
{
    odm_map *map;
    must(odm_open(path, NULL, &map, NULL) == ODM_OK);
    (void)odm_compact(map, NULL, NULL);
    _exit(1);
}

/* Killed over the exchange of names, before it and after it: who lives finishes it or takes it back, whether it is a writer that
 * had the map open all the time, or one that opens it now. */
Test(compact, a_death_over_the_new_index_is_mended)
{
    for (int after = 0; after < 2; after++) {
        for (int opener = 0; opener < 2; opener++) {
            const char *path = temp_map_path();
            odm_map *map = open_map(path), *other;
            put_numbers(map, 0, 5000, 0);
            remove_numbers(map, 100, 5000);
            odm_map *reader = open_map(path, .flags = ODM_READ_ONLY);
            odm__os.exchange = after ? exchange_and_die : die_before_exchange;
            pid_t child = start_child(compact_and_die, (void *)(uintptr_t)path);
            int status;
            cr_assert_eq(waitpid(child, &status, 0), child);
            cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
            odm__os.exchange = real_os()->exchange;
            cr_assert(file_exists(path_of(path, "index.new")));

            expect_numbers(map, 0, 100, 0); // Readers wait for nobody.
            if (opener) {
                other = open_map(path);
                put_numbers(other, 100, 150, 1);
                odm_close(other);
            } else {
                put_numbers(map, 100, 150, 1);
            }
            cr_assert(!file_exists(path_of(path, "index.new")));
            other = open_map(path);
            odm_map *all[] = {map, reader, other};
            for (size_t i = 0; i < COUNT_OF(all); i++) {
                expect_numbers(all[i], 0, 100, 0);
                expect_numbers(all[i], 100, 150, 1);
                cr_assert_eq(odm_count(all[i]), 150);
            }
            put_numbers(other, 0, 150, 2);
            put_numbers(map, 150, 160, 2);
            expect_numbers(map, 0, 160, 2);
            expect_numbers(other, 0, 160, 2);
            ok(odm_compact(map, NULL, NULL));
            for (size_t i = 0; i < COUNT_OF(all); i++) expect_numbers(all[i], 0, 160, 2);
            for (size_t i = 0; i < COUNT_OF(all); i++) odm_close(all[i]);
        }
    }
}

static odm_map *only_reader;

static int unlink_and_read(int directory, const char *name, bool is_directory)
{
    int result = real_os()->unlink(directory, name, is_directory);
    if (only_reader != NULL && strcmp(name, "index.new") == 0) expect_numbers(only_reader, 0, 10, 0);
    return result;
}

static void child_that_dies_over_the_new_index(const char *path, void (*body)(void *path))
{
    odm__os.exchange = exchange_and_die;
    pid_t child = start_child(body, (void *)(uintptr_t)path);
    odm__os.exchange = real_os()->exchange;
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* Who can only read, and reads while a death over the new index is mended, or while the index is built anew, comes to see what is
 * written to the new one. */
Test(compact, a_reader_that_looks_in_the_middle_sees_the_new_index)
{
    for (int rebuild = 0; rebuild < 2; rebuild++) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path);
        put_numbers(map, 0, 5000, 0);
        remove_numbers(map, 10, 5000);
        only_reader = open_map(path, .flags = ODM_READ_ONLY);
        expect_numbers(only_reader, 0, 10, 0);
        if (rebuild) {
            ok(odm_close(map));
            cr_assert_eq(unlink(path_of(path, "lock")), 0);
            odm__os.unlink = unlink_and_read;
            map = open_map(path);
        } else {
            child_that_dies_over_the_new_index(path, compact_and_die);
            odm__os.unlink = unlink_and_read;
        }
        put_numbers(map, 0, 10, 1);
        odm__os.unlink = real_os()->unlink;
        expect_numbers(only_reader, 0, 10, 1);
        odm_close(only_reader);
        odm_close(map);
    }
}

static void empty_more_and_die(void *path)
{
    odm_map *map, *other;
    odm_progress index_is_next = {.struct_size = sizeof index_is_next}, moved = index_is_next;
    must(odm_open(path, NULL, &map, NULL) == ODM_OK);
    must(odm_dup(map, &other, NULL) == ODM_OK);
    while (file_count(path_of(path, "log")) > 1 + SPARES_MAX) must(odm_compact(map, &index_is_next, NULL) == ODM_OK);
    uint64_t emptied = atomic_load(&map->store->client.file->emptied_to);
    char value[1000] = "";
    for (int i = 0; i < 100; i++) must(odm_put(other, "key 1", 5, value, sizeof value) == ODM_OK);
    for (int i = 0; i < 2; i++) must(odm_compact(other, &moved, NULL) == ODM_OK);
    must(atomic_load(&map->store->client.file->emptied_to) > emptied);
    (void)odm_compact(map, &index_is_next, NULL);
    _exit(1);
}

/* Killed over the new index while segments wait for a sync: the sync that retires them finishes the replacement first. Else head
 * would be told in the old index only, and compaction would be over for this map.
 * Method: between the last two steps of odm_compact another handle empties some segments. */
Test(compact, head_is_told_in_the_new_index)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    keep_whole_log();
    put_numbers(map, 0, 5000, 0);
    remove_numbers(map, 10, 5000);
    child_that_dies_over_the_new_index(path, empty_more_and_die);
    ok(odm_sync(map, NULL));
    struct meta_slot slot;
    ok(odm__meta_read_slot(&map->store->meta, &slot, NULL));
    put_numbers(map, 0, 10, 1);
    cr_assert_eq(statistics_of(map).head, slot.head);
    odm_close(map);
}

static int stop_before_unlink(int directory, const char *name, bool is_directory)
{
    if (strcmp(name, "index.new") == 0) raise(SIGSTOP);
    return real_os()->unlink(directory, name, is_directory);
}

static void mend_and_stop(void *path)
{
    odm_map *map;
    odm__os.unlink = stop_before_unlink;
    if (odm_open(path, NULL, &map, NULL) == ODM_OK) (void)odm_put(map, "a", 1, "b", 1);
    _exit(1);
}

/* Stopped while he mends that: who writes waits for as long as he was told to, and no longer. */
Test(compact, a_stopped_mender_is_not_waited_for_for_ever)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .wait_ms = 20);
    put_numbers(map, 0, 5000, 0);
    remove_numbers(map, 10, 5000);
    child_that_dies_over_the_new_index(path, compact_and_die);
    pid_t child = start_child(mend_and_stop, (void *)(uintptr_t)path);
    int status;
    cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
    cr_assert(WIFSTOPPED(status));
    expect_status(odm_put(map, "key 1", 5, "x", 1), ODM_E_BUSY);
    kill_child(child);
    ok(odm_put(map, "key 1", 5, "x", 1));
    odm_close(map);
}
