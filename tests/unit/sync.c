/* Making the log durable: sync.h. */
#include "sync.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

#include "support.h"

TestSuite(sync, .timeout = 60, .fini = remove_temp_directories);

static atomic_uint sync_calls;
static atomic_int failing_errno;

static int sync_map_watched(void *base, size_t size)
{
    sync_calls++;
    if (failing_errno != 0) {
        errno = failing_errno;
        return -1;
    }
    return real_os()->sync_map(base, size);
}

static uint64_t tail_of(const odm_map *map)
{
    return atomic_load(&map->store->client.file->tail);
}

/* After a sync everything up to the tail counts as on disk; the watermark never runs ahead of it. */
Test(sync, moves_the_watermark_to_the_tail)
{
    odm_map *map = open_map(temp_map_path());
    uint64_t watermark = statistics_of(map).watermark;
    cr_assert_eq(watermark, tail_of(map));
    for (unsigned round = 0; round < 10; round++) {
        put_numbers(map, 0, 60, round);
        cr_assert_eq(statistics_of(map).watermark, watermark, "moved without a sync");
        ok(odm_sync(map, NULL));
        watermark = statistics_of(map).watermark;
        cr_assert_eq(watermark, tail_of(map));
        cr_assert_eq(statistics_of(map).tail, watermark);
    }
    cr_assert_eq(statistics_of(map).sync_failed, 0);
    odm_close(map);
}

struct synced_range {
    const unsigned char *base;
    size_t size;
};
static struct synced_range ranges[64];
static unsigned range_count, directory_syncs;

static int sync_map_noted(void *base, size_t size)
{
    cr_assert_lt(range_count, COUNT_OF(ranges));
    ranges[range_count++] = (struct synced_range){base, size};
    return real_os()->sync_map(base, size);
}

static int sync_directory_noted(int fd)
{
    directory_syncs++;
    return real_os()->sync_directory(fd);
}

static unsigned writes_before_syncs;

static ssize_t write_noted(int fd, const void *bytes, size_t size, off_t offset)
{
    writes_before_syncs += range_count == 0 || directory_syncs == 0;
    return real_os()->write_at(fd, bytes, size, offset);
}

/* What is synced is every segment that has something above the watermark, all of it, and then the directory; only then is the
 * watermark written. Method: watch the system calls of a sync over several rollovers. */
Test(sync, syncs_every_segment_above_the_watermark_before_it_says_so)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 100, 0);
    ok(odm_sync(map, NULL));
    uint64_t from = tail_of(map);
    put_numbers(map, 0, 600, 1);
    uint64_t to = tail_of(map);
    cr_assert_gt(address_number(to), address_number(from) + 3);
    odm__os.sync_map = sync_map_noted;
    odm__os.sync_directory = sync_directory_noted;
    odm__os.write_at = write_noted;
    ok(odm_sync(map, NULL));
    odm__os = *real_os();
    cr_assert_eq(writes_before_syncs, 0, "the watermark was written first");
    cr_assert_geq(directory_syncs, 1);

    struct chain chain;
    ok(odm__log_chain(&map->store->log, from, &chain, NULL));
    for (size_t i = 0; i < chain.count; i++) {
        if (!chain.links[i].whole || chain.links[i].number > address_number(to)) continue;
        struct segment *segment;
        ok(odm__log_segment(&map->store->log, chain.links[i].number, &segment, NULL));
        bool synced = false;
        for (unsigned k = 0; k < range_count; k++) {
            synced |=
                ranges[k].base <= segment->base && ranges[k].base + ranges[k].size >= segment->base + segment->size;
        }
        cr_assert(synced, "segment %u was not synced", (unsigned)segment->number);
        odm__log_release(&map->store->log, segment);
    }
    odm__chain_free(&chain);
    odm_close(map);
}

/* One sync serves all: whoever finds its writes covered asks the disk for nothing. */
Test(sync, what_is_synced_already_costs_nothing)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *other = open_map(path);
    put_numbers(map, 0, 100, 0);
    ok(odm_sync(map, NULL));
    odm__os.sync_map = sync_map_watched;
    ok(odm_sync(map, NULL));
    ok(odm_sync(other, NULL));
    cr_assert_eq(sync_calls, 0);
    put(other, "a", "1");
    ok(odm_sync(map, NULL));
    unsigned calls = sync_calls;
    cr_assert_gt(calls, 0);
    ok(odm_sync(other, NULL));
    cr_assert_eq(sync_calls, calls);
    odm_close(other);
    odm_close(map);
}

static _Atomic int inside;

/* Slow, so that others queue up behind it. */
static int sync_map_slow(void *base, size_t size)
{
    sync_calls++;
    atomic_store(&inside, 1);
    usleep(50 * 1000);
    return real_os()->sync_map(base, size);
}

static void sync_in_thread(void *context, unsigned number)
{
    odm_map *map = ((odm_map **)context)[number];
    if (number > 0) {
        while (atomic_load(&inside) == 0) usleep(100);
    }
    if (odm_sync(map, NULL) != ODM_OK) atomic_store(&failing_errno, 1);
}

/* Group commit: those who wait while another syncs, with nothing written meanwhile, do not sync again. */
Test(sync, who_waited_for_a_sync_that_covers_it_is_done)
{
    odm_map *maps[6];
    maps[0] = open_map(temp_map_path());
    for (unsigned i = 1; i < COUNT_OF(maps); i++) ok(odm_dup(maps[0], &maps[i], NULL));
    put(maps[0], "a", "1");
    odm__os.sync_map = sync_map_slow;
    run_threads(COUNT_OF(maps), sync_in_thread, maps);
    cr_assert_eq(failing_errno, 0);
    cr_assert_eq(sync_calls, 1);
    for (unsigned i = 0; i < COUNT_OF(maps); i++) odm_close(maps[i]);
}

static void sync_fails_in_child(void *context)
{
    odm_map *map;
    odm_error error = {.struct_size = sizeof error};
    must(odm_open(context, NULL, &map, NULL) == ODM_OK);
    must(odm_sync(map, &error) == ODM_E_IO);
    must(odm_put(map, "child", 5, "1", 1) == ODM_OK);
    must(odm_sync(map, NULL) == ODM_E_IO);
    odm_close(map);
}

/* A failed sync fails for everybody from then on: the kernel would call the next one a success.
 * Method: one msync that fails, then none; ask every handle, another process, and who opens it later. */
Test(sync, a_failed_sync_is_never_followed_by_a_success)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *other = open_map(path);
    put_numbers(map, 0, 100, 0);
    ok(odm_sync(map, NULL));
    uint64_t watermark = statistics_of(map).watermark;
    put_numbers(map, 0, 100, 1);
    odm__os.sync_map = sync_map_watched;
    failing_errno = EIO;
    odm_error error = {.struct_size = sizeof error};
    expect_status(odm_sync(map, &error), ODM_E_IO);
    cr_assert_eq(error.os_errno, EIO);
    failing_errno = 0;

    for (int i = 0; i < 3; i++) {
        expect_status(odm_sync(map, &error), ODM_E_IO);
        expect_message(error, "odm_compact");
        expect_status(odm_sync(other, &error), ODM_E_IO);
        expect_numbers(map, 0, 100, 1); // Reads and writes go on.
        put_numbers(other, i, i + 1, 1);
    }
    cr_assert_eq(statistics_of(map).watermark, watermark);
    cr_assert_eq(statistics_of(other).sync_failed, 1);
    expect_child_succeeds(start_child(sync_fails_in_child, (void *)(uintptr_t)path));
    odm_close(other);
    odm_close(map);

    map = open_map(path); // Its files are trusted: the mark is in `lock`.
    expect_status(odm_sync(map, NULL), ODM_E_IO);
    odm_close(map);
    cr_assert_eq(unlink(path_of(path, "lock")), 0); // Now it is in `meta` alone.
    map = open_map(path);
    expect_status(odm_sync(map, NULL), ODM_E_IO);
    cr_assert_eq(statistics_of(map).sync_failed, 1);
    odm_close(map);
}

static int sync_directory_fails(int fd)
{
    (void)fd;
    errno = EIO;
    return -1;
}

static int sync_data_fails(int fd)
{
    (void)fd;
    errno = ENOSPC;
    return -1;
}

/* The same if it is the directory, or meta, that could not be synced. */
Test(sync, every_part_of_a_sync_may_fail)
{
    for (int part = 0; part < 2; part++) {
        odm_map *map = open_map(temp_map_path());
        put(map, "a", "1");
        if (part == 0) odm__os.sync_directory = sync_directory_fails;
        if (part == 1) odm__os.sync_data = sync_data_fails;
        expect_status(odm_sync(map, NULL), ODM_E_IO);
        odm__os = *real_os();
        expect_status(odm_sync(map, NULL), ODM_E_IO);
        cr_assert_eq(last_error_of(map).status, ODM_E_IO);
        cr_assert_eq(statistics_of(map).sync_failed, 1);
        odm_close(map);
    }
}

static int boot_other(uint64_t id[2])
{
    id[0] = 1;
    id[1] = 2;
    return 0;
}

/* In another boot the page cache is gone, and with it what could not be written: what is there then can be synced. */
Test(sync, a_failure_is_of_its_boot)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 50, 0);
    odm__os.sync_map = sync_map_watched;
    failing_errno = EIO;
    expect_status(odm_sync(map, NULL), ODM_E_IO);
    odm_close(map);
    odm__os = *real_os();
    odm__os.boot_id = boot_other;
    map = open_map(path);
    cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_CUT);
    expect_numbers(map, 0, 50, 0);
    ok(odm_sync(map, NULL));
    odm_close(map);
}

struct stopped {
    const char *path;
    _Atomic int *state;
};

static void hold_a_stripe(void *context)
{
    struct stopped *stopped = context;
    odm_map *map;
    must(odm_open(stopped->path, NULL, &map, NULL) == ODM_OK);
    must(odm_put(map, "a", 1, "from the child", 14) == ODM_OK);
    struct lock_file *lock = map->store->client.file;
    bool mend;
    must(odm__lock_take(&map->store->client, &lock->stripes[0], 1000, "it", &mend, NULL) == ODM_OK);
    // Reserved, and not completed: what a sync has to settle.
    struct append append = {
        .kind = RECORD_PUT, .class = APPEND_PUT, .key_size = 1, .value_size = 1, .stripe = 0, .stripe_count = 1};
    must(odm__log_reserve(&map->writer, map->reader.head, &append, NULL) == ODM_OK);
    atomic_store(stopped->state, 1);
    for (;;) pause();
}

/* A writer that is stopped in the middle of a write holds a sync up: ODM_E_BUSY after wait_ms. Killed, it does not. */
Test(sync, waits_for_live_writers_and_settles_dead_ones)
{
    struct stopped stopped = {temp_map_path(), shared_memory(sizeof(int))};
    odm_map *map = open_map(stopped.path, .stripes = 1, .wait_ms = 200);
    pid_t child = start_child(hold_a_stripe, &stopped);
    wait_for(stopped.state, 1);
    stop_child(child);
    odm_error error = {.struct_size = sizeof error};
    expect_status(odm_sync(map, &error), ODM_E_BUSY);
    expect_message(error, "stripe");
    expect_status(odm_put(map, "b", 1, "x", 1), ODM_E_BUSY);
    expect_status(odm_clear(map, NULL), ODM_E_BUSY);
    expect_value(map, "a", "from the child"); // Readers wait for nobody.
    cr_assert_eq(odm_count(map), 1);
    cr_assert_eq(statistics_of(map).sync_failed, 0);
    kill_child(child);
    ok(odm_sync(map, NULL));
    put(map, "b", "x");
    expect_value(map, "a", "from the child");
    cr_assert_eq(odm_count(map), 2);
    cr_assert_gt(statistics_of(map).lock_waits, 0);
    odm_close(map);
}
