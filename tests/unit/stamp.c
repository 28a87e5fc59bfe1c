/* Maps at rest: stamp.h, close.h, and what recover.h makes of a stamp. */
#include "stamp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "close.h"
#include "compact.h"
#include "image.h"
#include "map.h"
#include "oracle.h"
#include "failing.h"
#include "support.h"

TestSuite(stamp, .init = lies_begin, .fini = remove_temp_directories, .timeout = 120);

enum { COUNT = 300 };

static struct meta_slot slot_of(const char *path)
{
    struct directory directory;
    struct meta meta;
    struct meta_slot slot;
    ok(odm__directory_open(&directory, path, NULL));
    ok(odm__meta_open(&directory, false, &meta, NULL));
    ok(odm__meta_read_slot(&meta, &slot, NULL));
    odm__meta_close(&meta);
    odm__directory_close(&directory);
    return slot;
}

static bool is_stamped(const char *path)
{
    struct meta_slot slot = slot_of(path);
    return (slot.stamp[0] | slot.stamp[1]) != 0;
}

static odm_status close_with_stamp(odm_map *map)
{
    atomic_store(&map->store->stamp_at_close, true);
    return odm_close(map);
}

/* A map of numbers, closed and stamped. */
static const char *stamped_map(void)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    put_numbers(map, 0, COUNT, 0);
    ok(odm_remove(map, "key 0", 5));
    ok(close_with_stamp(map));
    cr_assert(is_stamped(path));
    return path;
}

static void expect_stamped_numbers(odm_map *map)
{
    expect_absent(map, "key 0");
    expect_numbers(map, 1, COUNT, 0);
    cr_assert_eq(odm_count(map), COUNT - 1);
}

static uint64_t inode_of(const char *path, const char *name)
{
    struct stat status;
    cr_assert_eq(stat(path_of(path, name), &status), 0);
    return status.st_ino;
}

static uint64_t tail_of(const odm_map *map)
{
    return atomic_load(&map->store->client.file->tail);
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

/* After a reboot a stamped map has nothing to rebuild: the index is the file it was, the log goes on at its tail, and who only
 * reads changes nothing at all. */
Test(stamp, leaves_nothing_to_do_after_a_reboot)
{
    const char *path = stamped_map();
    uint64_t index = inode_of(path, "index");
    lie_about_boot(1);
    lie_about_mount(1);
    uint64_t digest = tree_digest(path);
    odm_map *map = open_map(path, .flags = ODM_READ_ONLY | ODM_VERIFY_READS);
    expect_stamped_numbers(map);
    odm_statistics statistics = statistics_of(map);
    cr_assert_eq(statistics.recovery_kind, ODM_RECOVERY_NONE);
    cr_assert_eq(statistics.tail, slot_of(path).watermark);
    ok(odm_close(map));
    cr_assert_eq(tree_digest(path), digest);

    for (unsigned turn = 0; turn < 3; turn++) {
        lie_about_boot(2 + turn);
        map = open_map(path);
        expect_stamped_numbers(map);
        cr_assert_eq(inode_of(path, "index"), index, "the index was rebuilt");
        cr_assert_eq(tail_of(map), statistics.tail);
        cr_assert(is_stamped(path), "opening is no write");
        ok(odm_close(map));
    }
    map = open_map(path);
    put_numbers(map, COUNT, 2 * COUNT, 0);
    cr_assert_not(is_stamped(path));
    ok(close_with_stamp(map));
    lie_about_boot(9);
    map = open_map(path);
    cr_assert_eq(inode_of(path, "index"), index);
    expect_numbers(map, 1, 2 * COUNT, 0);
    ok(odm_close(map));
}

/* Only a long log is stamped without being asked for: closing a small map makes no sync. */
static unsigned syncs;
static int sync_counted(int fd)
{
    ++syncs;
    return real_os()->sync_data(fd);
}
static int sync_map_counted(void *base, size_t size)
{
    ++syncs;
    return real_os()->sync_map(base, size);
}

Test(stamp, is_put_when_a_rebuild_would_be_felt)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 200, 0);
    odm__os.sync_data = sync_counted;
    odm__os.sync_map = sync_map_counted;
    ok(odm_close(map));
    cr_assert_eq(syncs, 0);
    cr_assert_not(is_stamped(path));

    map = open_map(path);
    char value[3000];
    memset(value, 'v', sizeof value);
    for (unsigned i = 0; statistics_of(map).log_bytes <= STAMP_LOG_BYTES_MIN; i++) {
        ok(odm_put(map, &i, sizeof i, value, sizeof value));
    }
    ok(odm_close(map));
    cr_assert(is_stamped(path));
    syncs = 0;
    map = open_map(path); // Nothing written: it is as it was left.
    ok(odm_close(map));
    cr_assert_eq(syncs, 0);
    cr_assert(is_stamped(path));
}

/* Only who goes last stamps: other handles, other processes go on. */
static void hold_open(void *context)
{
    struct {
        const char *path;
        _Atomic int *state;
    } *held = context;
    odm_map *map;
    must(odm_open(held->path, NULL, &map, NULL) == ODM_OK);
    atomic_store(held->state, 1);
    wait_for(held->state, 2);
    must(odm_put(map, "child", 5, "1", 1) == ODM_OK);
    must(close_with_stamp(map) == ODM_OK);
}

Test(stamp, is_put_by_the_last_to_close)
{
    struct {
        const char *path;
        _Atomic int *state;
    } held = {temp_map_path(), shared_memory(sizeof(int))};
    pid_t child = start_child(hold_open, &held); // Before there is a handle it could inherit.
    wait_for(held.state, 1);
    odm_map *map = open_map(held.path), *dup, *other = open_map(held.path);
    put(map, "a", "1");
    ok(odm_dup(map, &dup, NULL));
    ok(close_with_stamp(other));
    ok(close_with_stamp(dup));
    cr_assert_not(is_stamped(held.path));
    put(map, "b", "2");
    ok(close_with_stamp(map));
    cr_assert_not(is_stamped(held.path), "a process still has it open");
    atomic_store(held.state, 2);
    expect_child_succeeds(child);
    cr_assert(is_stamped(held.path));
    lie_about_boot(1);
    map = open_map(held.path);
    expect_value(map, "a", "1");
    expect_value(map, "b", "2");
    expect_value(map, "child", "1");
    ok(odm_close(map));
}

/* Several processes have a stamped map open; whoever writes first withdraws the stamp, and it is withdrawn once for all. */
Test(stamp, is_withdrawn_by_the_first_write_of_any_handle)
{
    const char *path = stamped_map();
    odm_map *maps[3] = {open_map(path), open_map(path), NULL};
    ok(odm_dup(maps[0], &maps[2], NULL));
    cr_assert(is_stamped(path));
    ok(odm_sync(maps[0], NULL));
    statistics_of(maps[1]);
    cr_assert(is_stamped(path), "a sync writes nothing");
    ok(odm_clear(maps[2], NULL));
    cr_assert_not(is_stamped(path));
    struct meta_slot slot = slot_of(path);
    put(maps[1], "a", "1");
    put(maps[0], "b", "1");
    cr_assert_eq(slot_of(path).sequence, slot.sequence);
    for (int i = 0; i < 3; i++) ok(odm_close(maps[i]));
}

/* A batch and a conditional write are writes, too. */
Test(stamp, is_withdrawn_by_every_kind_of_write)
{
    for (int kind = 0; kind < 5; kind++) {
        const char *path = stamped_map();
        odm_map *map = open_map(path);
        size_t n = 1;
        uint64_t end = 3;
        if (kind == 0) put(map, "key", "1");
        if (kind == 1) ok(odm_remove(map, "key 1", 5));
        if (kind == 2) ok(odm_clear(map, NULL));
        if (kind == 3) ok(odm_write_many(map, &n, NULL, "key", &end, "val", &end, NULL));
        if (kind == 4) ok(odm_entry_put(map, "key", 3, "1", 1, 0));
        cr_assert_not(is_stamped(path), "kind %d", kind);
        ok(odm_close(map));
    }
}

static int die_in_sync(int fd)
{
    (void)fd;
    _exit(7);
}

static int stand_in_sync(int fd)
{
    (void)fd;
    sleep(30); // It is killed before.
    _exit(7);
}

static int (*first_sync)(int fd);

static void write_first(void *path)
{
    odm_map *map;
    must(odm_open(path, NULL, &map, NULL) == ODM_OK);
    odm__os.sync_data = first_sync;
    (void)odm_put(map, "key", 3, "1", 1);
    _exit(1);
}

/* Who withdraws a stamp has noted that in `meta`, but only in memory: he is syncing it, or died before he did. Nobody else may
 * write before it is on disk; else power loss would leave a stamp that stands, and an index that is half written. */
Test(stamp, is_gone_only_when_that_is_on_disk)
{
    for (int dies = 0; dies < 2; dies++) {
        const char *path = stamped_map();
        odm_map *map = open_map(path), *other = open_map(path);
        first_sync = dies ? die_in_sync : stand_in_sync;
        pid_t child = start_child(write_first, (void *)(uintptr_t)path);
        while (is_stamped(path)) usleep(1000);
        if (dies) waitpid(child, NULL, 0);
        syncs = 0;
        odm__os.sync_data = sync_counted;
        put(map, "a", "1");
        cr_assert_eq(syncs, 1, "written to while the stamp may stand on disk");
        put(map, "b", "1");
        if (!dies) kill_child(child);
        ok(odm_sync(map, NULL)); // What the dead has left is mended.
        syncs = 0;
        odm_map *dup;
        ok(odm_dup(other, &dup, NULL));
        put(dup, "c", "1");
        cr_assert_eq(syncs, 0);
        odm__os.sync_data = real_os()->sync_data;
        odm_close(dup);
        odm_close(other);
        ok(odm_close(map));
    }
}

/* A disk that fails one sync, and a kernel that forgets what was to be written: a later sync is a false success. */
static bool lost, written_anew;
static int sync_loses_once(int fd)
{
    (void)fd;
    if (lost) return 0;
    lost = true;
    errno = EIO;
    return -1;
}
static ssize_t write_noted(int fd, const void *bytes, size_t size, off_t offset)
{
    written_anew = lost;
    return real_os()->write_at(fd, bytes, size, offset);
}

/* Else the stamp would still stand on disk, while log and index go on. */
Test(stamp, is_withdrawn_anew_if_that_could_not_be_synced)
{
    for (int by_another = 0; by_another < 2; by_another++) {
        const char *path = stamped_map();
        odm_map *map = open_map(path), *dup;
        ok(odm_dup(map, &dup, NULL));
        lost = written_anew = false;
        odm__os.sync_data = sync_loses_once;
        odm__os.write_at = write_noted;
        expect_status(odm_put(map, "a", 1, "1", 1), ODM_E_IO);
        cr_assert(lost);
        put(by_another ? dup : map, "a", "1");
        cr_assert(written_anew, "written to while the stamp may stand on disk");
        odm__os = *real_os();
        lies_begin();
        expect_status(odm_sync(map, NULL), ODM_E_IO); // That something may be lost is told.
        ok(odm_compact(map, NULL, NULL));
        ok(odm_sync(map, NULL));
        ok(odm_close(dup));
        ok(odm_close(map));
    }
}

static ssize_t no_room_to_write(int fd, const void *bytes, size_t size, off_t offset)
{
    (void)fd, (void)bytes, (void)size, (void)offset;
    errno = ENOSPC;
    return -1;
}

/* A full disk may keep a stamp from being withdrawn; then nobody makes room by compaction, for that would write while it stands. */
Test(stamp, stands_while_nothing_is_written_on_a_full_disk)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    keep_whole_log();
    put_numbers(map, 0, 1000, 0);
    put_numbers(map, 0, 500, 1);
    ok(close_with_stamp(map));
    map = open_map(path);
    uint64_t tail = tail_of(map);
    odm__test_dead_bytes_min = 8 * PAGE;
    odm__os.write_at = no_room_to_write;
    expect_status(odm_put(map, "key 1", 5, "x", 1), ODM_E_NO_SPACE);
    odm__os.write_at = real_os()->write_at;
    cr_assert(is_stamped(path));
    cr_assert_eq(tail_of(map), tail, "written to while stamped");
    ok(odm_close(map));
}

static void limit_files_to(rlim_t size)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = size;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A limit on the size of files that is below the index's keeps a stamp from being withdrawn, and from being put: with a status, for
 * SIGXFSZ would end the process. */
Test(stamp, is_neither_withdrawn_nor_put_beyond_a_file_size_limit)
{
    const char *path = stamped_map();
    rlim_t limit = file_size(path_of(path, "index")) - 1;
    odm_map *map = open_map(path);
    limit_files_to(limit);
    expect_status(odm_put(map, "key 0", 5, "1", 1), ODM_E_NO_SPACE);
    cr_assert_eq(last_error_of(map).os_errno, EFBIG);
    expect_stamped_numbers(map);
    cr_assert(is_stamped(path));
    limit_files_to(RLIM_INFINITY);
    put(map, "key 0", "1");
    limit_files_to(limit);
    expect_status(close_with_stamp(map), ODM_E_NO_SPACE);
    cr_assert_not(is_stamped(path));
    limit_files_to(RLIM_INFINITY);
    map = open_map(path);
    expect_value(map, "key 0", "1");
    expect_numbers(map, 1, COUNT, 0);
    ok(close_with_stamp(map));
    cr_assert(is_stamped(path));
}

/* ---- copies ------------------------------------------------------------------------------------------------------- */

/* A copy of a stamped map opens at once, read-only and for writing; its log goes on in a new segment, because behind the tail of a
 * copy anything may stand. */
Test(stamp, holds_in_a_copy)
{
    const char *path = stamped_map();
    // What a copier may have met behind the tail: a record that came later.
    odm_map *map = open_map(path);
    uint64_t tail = tail_of(map);
    ok(odm_close(map));
    struct image stamped = image_take(path);
    map = open_map(path);
    put(map, "later", "1");
    struct image later = image_take(path);
    ok(odm_close(map));
    char name[64];
    snprintf(name, sizeof name, "log/%011u", (unsigned)address_number(tail));
    memcpy(image_find(&stamped, name)->bytes, image_find(&later, name)->bytes, image_find(&later, name)->size);

    const char *copy = temp_map_path();
    image_write(&stamped, copy);
    uint64_t index = inode_of(copy, "index"), digest = tree_digest(copy);
    map = open_map(copy, .flags = ODM_READ_ONLY);
    expect_stamped_numbers(map);
    expect_absent(map, "later");
    cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
    ok(odm_close(map));
    cr_assert_eq(tree_digest(copy), digest);

    map = open_map(copy);
    cr_assert_eq(inode_of(copy, "index"), index);
    cr_assert_gt(address_number(tail_of(map)), address_number(tail));
    expect_stamped_numbers(map);
    put(map, "new", "1");
    ok(odm_close(map));
    for (uint64_t boot = 1; boot < 3; boot++) { // By the log alone, and by the index.
        lie_about_boot(boot);
        map = open_map(copy);
        expect_absent(map, "later");
        expect_value(map, "new", "1");
        ok(odm_remove(map, "new", 3));
        expect_stamped_numbers(map);
        put(map, "new", "1");
        ok(boot == 1 ? odm_close(map) : close_with_stamp(map));
    }
    image_free(&stamped);
    image_free(&later);
}

/* A copy whose first open only looked is stamped still; the segment that was begun for it is not taken for the end of the log. */
Test(stamp, holds_in_a_copy_that_was_only_looked_at)
{
    const char *copy = temp_map_path();
    copy_tree(stamped_map(), copy);
    ok(odm_close(open_map(copy)));
    cr_assert(is_stamped(copy));
    for (uint64_t boot = 1; boot < 4; boot++) {
        lie_about_boot(boot);
        odm_map *map = open_map(copy);
        expect_stamped_numbers(map);
        ok(odm_close(map));
    }
    odm_map *map = open_map(copy);
    put(map, "new", "1");
    ok(odm_close(map));
    lie_about_boot(4);
    map = open_map(copy);
    expect_value(map, "new", "1");
    ok(odm_remove(map, "new", 3));
    expect_stamped_numbers(map);
    ok(odm_close(map));
}

/* Writes a file anew, with a hole for every page of zeros, as `cp` does. */
static void make_holes(const char *path)
{
    static const char zeros[PAGE];
    uint64_t size = file_size(path);
    char *bytes = malloc(size);
    read_file_at(path, 0, bytes, size);
    make_file(path, "", 0);
    cr_assert_eq(truncate(path, (off_t)size), 0);
    for (uint64_t at = 0; at < size; at += PAGE) {
        uint64_t part = size - at < PAGE ? size - at : PAGE;
        if (memcmp(bytes + at, zeros, part) != 0) write_file_at(path, at, bytes + at, part);
    }
    free(bytes);
}

static uint64_t backed_bytes(const char *path)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static int no_room_to_reserve(int fd, off_t offset, off_t size)
{
    (void)fd, (void)offset, (void)size;
    errno = ENOSPC;
    return -1;
}

/* A copy may have holes where the map had room reserved, and on a full disk a store to one is a SIGBUS: so they are filled before the
 * copy is written to, or it is not opened, and nothing is changed. */
Test(stamp, holds_in_a_copy_with_holes)
{
    const char *path = temp_map_path(), *copy = temp_map_path();
    odm_map *map = open_map(path, .capacity = 500000);
    put_numbers(map, 1, COUNT, 0);
    uint64_t size = atomic_load(&map->reader.index.header->size);
    ok(close_with_stamp(map));
    copy_tree(path, copy);
    const char *index = path_of(copy, "index");
    make_holes(index);
    cr_assert_lt(backed_bytes(index), size / 2);

    uint64_t digest = tree_digest(copy);
    odm_error error = {.struct_size = sizeof error};
    odm__os.reserve = no_room_to_reserve;
    expect_status(try_open(copy, &error), ODM_E_NO_SPACE);
    expect_message(error, "index");
    cr_assert_eq(tree_digest(copy), digest);
    map = open_map(copy, .flags = ODM_READ_ONLY);
    expect_stamped_numbers(map);
    ok(odm_close(map));
    odm__os.reserve = real_os()->reserve;
    map = open_map(copy);
    cr_assert_geq(backed_bytes(index), size);
    expect_stamped_numbers(map);
    put_numbers(map, COUNT, 2 * COUNT, 0);
    expect_numbers(map, 1, 2 * COUNT, 0);
    ok(odm_close(map));
}

/* Who only reads, and came in by the stamp, is told by it where the log ends: until somebody writes, for from then on the lock file
 * that he has made tells it. Else a backup lacks all that was written since; once it did. A writer that has gone again has left it,
 * too, and be it on a mount that can not be told from another. */
Test(stamp, tells_who_came_in_by_it_when_it_is_gone)
{
    enum { IN_A_COPY, AFTER_A_REBOOT, BY_ONE_THAT_HAS_GONE, KINDS };
    for (int kind = 0; kind < KINDS; kind++) {
        const char *path = temp_map_path(), *backup = temp_map_path();
        copy_tree(stamped_map(), path);
        if (kind == AFTER_A_REBOOT) ok(odm_close(open_map(path)));
        if (kind == AFTER_A_REBOOT) lie_about_boot(1);
        odm_map *reader = open_map(path, .flags = ODM_READ_ONLY), *again;
        cr_assert_eq(statistics_of(reader).recovery_kind, ODM_RECOVERY_NONE);
        ok(odm_refresh(reader));
        odm_map *writer = open_map(path);
        put_numbers(writer, COUNT, 3 * COUNT, 0);
        uint64_t tail = tail_of(writer);
        cr_assert_neq(slot_of(path).watermark, tail);
        if (kind == BY_ONE_THAT_HAS_GONE) {
            ok(odm_close(writer));
            cr_assert_not(is_stamped(path));
            lie_about_mount(1);
        }
        cr_assert_eq(statistics_of(reader).tail, tail);
        ok(odm_backup(reader, backup, NULL, NULL));
        ok(odm_verify(reader, NULL, NULL, NULL));
        again = open_map(backup, .flags = ODM_READ_ONLY);
        expect_numbers(again, 1, 3 * COUNT, 0);
        cr_assert_eq(odm_count(again), 3 * COUNT - 1);
        ok(odm_close(again));
        ok(odm_close(reader));
        if (kind != BY_ONE_THAT_HAS_GONE) ok(odm_close(writer));
        lies_begin();
        lie_about_boot(0);
        lie_about_mount(0);
    }
}

/* Between the two, while somebody rebuilds, nothing tells where the log ends: then a backup is refused, rather than made without what
 * was written since. Method: a writer that has spoiled the marks, and died. */
Test(stamp, tells_nobody_where_the_log_ends_when_it_is_gone)
{
    const char *path = temp_map_path(), *backup = temp_map_path();
    copy_tree(stamped_map(), path);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY), *again;
    odm_map *writer = open_map(path);
    put_numbers(writer, COUNT, 2 * COUNT, 0);
    writer->store->client.file->marks.index_inode = 0;
    ok(odm_close(writer));
    expect_status(odm_backup(reader, backup, NULL, NULL), ODM_E_BUSY);
    expect_status(odm_verify(reader, NULL, NULL, NULL), ODM_E_BUSY);
    ok(odm_refresh(reader));
    expect_numbers(reader, 1, 2 * COUNT, 0);
    ok(odm_close(open_map(path)));
    ok(odm_verify(reader, NULL, NULL, NULL));
    ok(odm_backup(reader, backup, NULL, NULL));
    again = open_map(backup, .flags = ODM_READ_ONLY);
    expect_numbers(again, 1, 2 * COUNT, 0);
    ok(odm_close(again));
    ok(odm_close(reader));
}

/* A map that is verified through such a handle is sound, though the stamp goes on the way: it is no longer nobody who writes.
 * Method: keys go and others come, so that the stripe has as many at the end as it had at the begin; but not as many are met. */
Test(stamp, does_not_make_damage_of_what_is_written_when_it_is_gone)
{
    for (unsigned before = 0; before < 12; before++) {
        const char *path = temp_map_path(), *copy = temp_map_path();
        odm_map *map = open_map(path, .stripes = 1);
        put_numbers(map, 0, COUNT, 0);
        ok(close_with_stamp(map));
        copy_tree(path, copy);
        odm_map *reader = open_map(copy, .flags = ODM_READ_ONLY);
        map = open_map(copy);
        odm__os.now_ns = hasty_clock;
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
        odm_status status = ODM_OK;
        for (unsigned i = 0; i < COUNT && status == ODM_OK; i++) {
            if (i >= before) {
                remove_numbers(map, i, i + 1);
                put_numbers(map, COUNT + i, COUNT + i + 1, 0);
            }
            status = odm_verify(reader, NULL, &progress, NULL);
        }
        cr_assert_eq(status, ODM_DONE, "%s", last_error_of(reader).message);
        odm__os.now_ns = real_os()->now_ns;
        ok(odm_close(map));
        ok(odm_close(reader));
    }
}

/* What a copier sees of a map: the files one after the other, page by page, in its own order. Between any two pages the map goes
 * on. */
struct copier {
    const char *from, *to;
    char names[200][64]; // still to be copied; log/ is listed when its turn comes
    size_t count;
    int in, out;
    struct sequence *dice;
};

static void copier_list(struct copier *copier, const char *directory, const char *prefix)
{
    DIR *listing = opendir(path_of(copier->from, directory));
    cr_assert_not_null(listing);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        cr_assert_lt(copier->count, COUNT_OF(copier->names));
        snprintf(copier->names[copier->count++], 64, "%s%.40s", prefix, entry->d_name);
    }
    closedir(listing);
}

/* Copies a page, or goes on to another file. False: all is copied. */
static bool copier_step(struct copier *copier)
{
    if (copier->in >= 0) {
        unsigned char page[PAGE];
        ssize_t size = read(copier->in, page, sizeof page);
        if (size > 0) {
            cr_assert_eq(write(copier->out, page, (size_t)size), size);
            return true;
        }
        close(copier->in);
        close(copier->out);
        copier->in = -1;
    }
    if (copier->count == 0) return false;
    size_t i = sequence_below(copier->dice, copier->count);
    char name[64];
    memcpy(name, copier->names[i], sizeof name);
    memcpy(copier->names[i], copier->names[--copier->count], sizeof name);
    if (strcmp(name, "log") == 0) {
        cr_assert_eq(mkdir(path_of(copier->to, name), 0755), 0);
        copier_list(copier, "log", "log/");
        return true;
    }
    copier->in = open(path_of(copier->from, name), O_RDONLY | O_CLOEXEC);
    if (copier->in < 0) return true; // It has gone since it was listed.
    copier->out = open(path_of(copier->to, name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    cr_assert_geq(copier->out, 0);
    return true;
}

enum { IDS = 40, WRITES_MAX = 4000 };
static struct test_write writes[WRITES_MAX];
static size_t write_count;

/* The map goes on: writes, or is closed, stamped or not, and opened again. */
static void go_on(odm_map **map, const char *path, struct sequence *dice)
{
    uint64_t choice = sequence_below(dice, 100);
    if (choice < 80 && write_count < WRITES_MAX) {
        if (*map == NULL) *map = open_map(path, .stripes = 2);
        writes[write_count] = write_random(dice, IDS, 600, false);
        ok(write_do(&writes[write_count++], *map));
    } else if (choice < 90 && *map != NULL) {
        ok(choice < 85 ? close_with_stamp(*map) : odm_close(*map));
        *map = NULL;
    } else if (choice < 95 && *map != NULL) {
        ok(odm_sync(*map, NULL));
    }
}

/* A copy made by a slow copier while the map is written, closed, stamped and opened again is like after power loss, or it is
 * refused. Method: random interleavings; what opens must hold exactly the first n writes, for one n, whoever opens it, and go on
 * to hold it. ODM_TEST_COPIES: how many. */
Test(stamp, a_copy_made_meanwhile_is_a_prefix_or_refused)
{
    struct sequence dice = sequence_start(40);
    struct oracle start;
    oracle_init(&start, IDS);
    size_t copies = count_of("ODM_TEST_COPIES", 150), at_once = 0, rebuilt = 0, refused = 0;
    for (size_t i = 0; i < copies; i++) {
        const char *path = temp_map_path(), *to = temp_map_path();
        odm_map *map = open_map(path, .stripes = 2);
        write_count = 0;
        uint64_t before = sequence_below(&dice, 60);
        for (uint64_t k = 0; k < before; k++) go_on(&map, path, &dice);
        if (map != NULL && sequence_below(&dice, 2) == 0) {
            ok(close_with_stamp(map));
            map = NULL;
        }
        cr_assert_eq(mkdir(to, 0755), 0);
        struct copier copier = {.from = path, .to = to, .in = -1, .dice = &dice};
        copier_list(&copier, ".", "");
        // Sometimes the copier is fast, sometimes the writer; often all that happens is within a few pages.
        uint64_t speed = 1 + sequence_below(&dice, 30), busy_from = sequence_below(&dice, 60);
        uint64_t busy_to = busy_from + sequence_below(&dice, 60);
        for (uint64_t step = 0; copier_step(&copier); step++) {
            if (step < busy_from || step > busy_to || step % speed != 0) continue;
            for (uint64_t k = sequence_below(&dice, 8); k > 0; k--) go_on(&map, path, &dice);
        }
        if (map != NULL) ok(odm_close(map));

        bool stamped = file_exists(path_of(to, "index"));
        uint64_t index = stamped ? inode_of(to, "index") : 0;
        for (unsigned turn = 0; turn < 3; turn++) {
            odm_map *opened = NULL;
            odm_options options = {.struct_size = sizeof options, .flags = turn == 0 ? ODM_READ_ONLY : ODM_MUST_EXIST};
            odm_status status = odm_open(to, &options, &opened, NULL);
            if (status != ODM_OK) {
                cr_assert(status == ODM_E_CORRUPT || (status == ODM_NOT_FOUND && !file_exists(path_of(to, "meta"))),
                          "copy %zu: %s", i, odm_status_name(status));
                cr_assert_eq(turn, 0, "copy %zu: a reader opened it, a writer does not", i);
                refused++;
                break;
            }
            const char *why;
            size_t n = prefix_shown(opened, &start, writes, 0, write_count, &why);
            cr_assert_neq(n, SIZE_MAX, "copy %zu, open %u, of %zu writes: %s (seed %llu)", i, turn, write_count, why,
                          (unsigned long long)seed_of_run());
            ok(odm_close(opened));
            if (turn == 1 && stamped && inode_of(to, "index") == index) at_once++;
            if (turn == 1 && (!stamped || inode_of(to, "index") != index)) rebuilt++;
            lie_about_boot(i * 2 + turn + 1);
        }
        remove_tree(path);
        remove_tree(to);
    }
    oracle_free(&start);
    cr_log_info("%zu copies: %zu opened at once, %zu were rebuilt, %zu refused", copies, at_once, rebuilt, refused);
    if (copies >= 100) cr_assert(at_once > 0 && rebuilt > 0, "%zu, %zu", at_once, rebuilt);
}

/* A copier that came to log/ first has the segments as they were then; the stamp that was put afterwards, which it finds in `meta`
 * and `index`, does not speak for them. Method: log/ from before some writes and the stamp, all else from after. */
Test(stamp, does_not_speak_for_a_log_that_was_copied_before)
{
    const char *path = temp_map_path(), *copy = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    put_numbers(map, 0, 20, 0);
    struct image early = image_take(path);
    put_numbers(map, 20, 25, 0);
    ok(close_with_stamp(map));
    struct image late = image_take(path);
    struct image mixed = {.files = calloc(early.count + late.count, sizeof *mixed.files), .identity = late.identity};
    for (size_t i = 0; i < early.count; i++) {
        if (strncmp(early.files[i].name, "log/", 4) == 0) mixed.files[mixed.count++] = early.files[i];
    }
    for (size_t i = 0; i < late.count; i++) {
        if (strncmp(late.files[i].name, "log/", 4) != 0) mixed.files[mixed.count++] = late.files[i];
    }
    image_write(&mixed, copy);
    free(mixed.files);
    expect_status(try_open(copy, NULL, .flags = ODM_READ_ONLY), ODM_E_CORRUPT);
    expect_status(try_open(copy, NULL), ODM_E_CORRUPT);
    image_free(&early);
    image_free(&late);
}

/* ---- stamps that do not count -------------------------------------------------------------------------------------- */

static void remove_stamp_file(const char *path)
{
    DIR *listing = opendir(path_of(path, "log"));
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        if (strncmp(entry->d_name, "stamp.", 6) == 0) cr_assert_eq(unlinkat(dirfd(listing), entry->d_name, 0), 0);
    }
    closedir(listing);
}

/* Every one of its places must agree. Method: spoil one at a time; the index is rebuilt, and nothing is missing. */
Test(stamp, counts_only_if_all_its_places_agree)
{
    for (int place = 0; place < 5; place++) {
        const char *path = stamped_map();
        uint64_t index = inode_of(path, "index"), size = file_size(path_of(path, "index"));
        const char *index_path = path_of(path, "index");
        if (place == 0) flip_bits_at(index_path, offsetof(struct index_header, stamp), 1);
        if (place == 1) flip_bits_at(index_path, size - 1, 1);
        if (place == 2) remove_stamp_file(path);
        if (place == 3) flip_bits_at(index_path, offsetof(struct index_header, head), 1);
        if (place == 4) { // the slot: the one before has none
            uint64_t at = slot_of(path).sequence % 2 == 0 ? META_SLOT_OFFSET_0 : META_SLOT_OFFSET_1;
            flip_bits_at(path_of(path, "meta"), at + offsetof(struct meta_slot, stamp), 1);
        }
        lie_about_boot(1);
        odm_map *reader = open_map(path, .flags = ODM_READ_ONLY);
        cr_assert_eq(statistics_of(reader).recovery_kind, ODM_RECOVERY_PRIVATE, "place %d", place);
        expect_stamped_numbers(reader);
        ok(odm_close(reader));
        odm_map *map = open_map(path);
        expect_stamped_numbers(map);
        cr_assert_neq(inode_of(path, "index"), index, "place %d: the index was trusted", place);
        ok(odm_close(map));
        lie_about_boot(0);
    }
}

/* A segment of a stamped map that is missing is damage, for readers and writers. */
Test(stamp, does_not_hide_a_missing_segment)
{
    struct image image = image_take(stamped_map());
    size_t segments = 0;
    lie_about_boot(1);
    struct meta_slot slot = {0};
    for (size_t i = 0; i < image.count; i++) {
        if (strncmp(image.files[i].name, "log/0", 5) != 0) continue;
        const char *path = temp_map_path();
        image_write(&image, path);
        if (slot.head == 0) slot = slot_of(path);
        uint64_t number = strtoull(image.files[i].name + 4, NULL, 10);
        if (number > address_number(slot.watermark)) continue; // a spare
        cr_assert_eq(unlink(path_of(path, image.files[i].name)), 0);
        uint64_t digest = tree_digest(path);
        expect_status(try_open(path, NULL, .flags = ODM_READ_ONLY), ODM_E_CORRUPT);
        expect_status(try_open(path, NULL), ODM_E_CORRUPT);
        cr_assert_eq(tree_digest(path), digest);
        segments++;
    }
    cr_assert_gt(segments, 2);
    image_free(&image);
}

static int sync_map_fails(void *base, size_t size)
{
    (void)base;
    (void)size;
    errno = EIO;
    return -1;
}

/* After a failed sync nobody knows what is on disk: such a map is never stamped, by whom ever. */
Test(stamp, is_never_put_after_a_failed_sync)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 50, 0);
    odm__os.sync_map = sync_map_fails;
    expect_status(odm_sync(map, NULL), ODM_E_IO);
    odm__os.sync_map = real_os()->sync_map;
    ok(close_with_stamp(map));
    cr_assert_not(is_stamped(path));
    map = open_map(path);
    put(map, "a", "1");
    ok(close_with_stamp(map));
    cr_assert_not(is_stamped(path));

    path = temp_map_path(); // The sync that fails is the closing one.
    map = open_map(path);
    put_numbers(map, 0, 50, 0);
    odm__os.sync_map = sync_map_fails;
    expect_status(close_with_stamp(map), ODM_E_IO);
    odm__os.sync_map = real_os()->sync_map;
    cr_assert_not(is_stamped(path));
    map = open_map(path);
    expect_status(odm_sync(map, NULL), ODM_E_IO);
    expect_numbers(map, 0, 50, 0);
    ok(odm_close(map));
}

/* ---- every step fails, every step is the last ------------------------------------------------------------------------ */

/* Whichever call of a closing fails, the handle is gone, its answer says whether there is a stamp, and nothing is lost. */
Test(stamp, any_call_of_closing_may_fail)
{
    static const int numbers[] = {EIO, ENOSPC};
    for (size_t k = 0; k < COUNT_OF(numbers); k++) {
        bool failed = true;
        size_t n = 1;
        for (; failed; n++) {
            cr_assert_lt(n, 300);
            const char *path = temp_map_path();
            size_t descriptors = descriptor_count();
            odm_map *map = open_map(path, .stripes = 4);
            put_numbers(map, 0, COUNT, 0);
            ok(odm_remove(map, "key 0", 5));
            fail_call(n, numbers[k]);
            odm_status status = close_with_stamp(map);
            failed = fail_no_more();
            cr_assert_eq(descriptor_count(), descriptors, "call %zu", n);
            if (status == ODM_OK) cr_assert(is_stamped(path), "call %zu", n);
            for (uint64_t boot = 0; boot < 3; boot++) {
                lie_about_boot(boot);
                map = open_map(path);
                expect_stamped_numbers(map);
                if (boot == 1) put(map, "key 1", "value 1 of 0");
                ok(odm_close(map));
            }
            lie_about_boot(0);
            remove_tree(path);
        }
        cr_assert_gt(n, 12, "closing makes more calls than %zu", n);
    }
}

/* Whichever call of a first write fails, nothing was written before the stamp was gone. */
Test(stamp, any_call_of_withdrawing_may_fail)
{
    struct image image = image_take(stamped_map());
    bool failed = true;
    size_t n = 1;
    for (; failed; n++) {
        cr_assert_lt(n, 100);
        const char *path = temp_map_path();
        image_write(&image, path);
        odm_map *map = open_map(path);
        uint64_t tail = tail_of(map);
        fail_call(n, EIO);
        odm_status status = odm_put(map, "a", 1, "1", 1);
        failed = fail_no_more();
        if (status != ODM_OK) cr_assert_eq(tail_of(map), tail, "call %zu: %s", n, odm_status_name(status));
        if (status != ODM_OK) ok(odm_put(map, "a", 1, "1", 1));
        cr_assert_not(is_stamped(path), "call %zu", n);
        ok(odm_close(map));
        lie_about_boot(n);
        map = open_map(path);
        expect_value(map, "a", "1");
        ok(odm_remove(map, "a", 1));
        expect_stamped_numbers(map);
        ok(odm_close(map));
        lie_about_boot(0);
        remove_tree(path);
    }
    cr_assert_gt(n, 4);
    image_free(&image);
}

/* What a child does until its n-th system call, and whether it got to its end. */
static bool killed_before(size_t call, const char *path, bool writes_first)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        odm_map *map;
        must(odm_open(path, &(odm_options){.struct_size = sizeof(odm_options), .stripes = 4}, &map, NULL) == ODM_OK);
        if (!writes_first) die_before_call(call);
        for (unsigned i = 0; i < COUNT; i++) {
            char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
            size_t key_size = number_key(i, key), value_size = number_value(i, 1, value);
            must(odm_put(map, key, key_size, value, value_size) == ODM_OK);
            if (!writes_first) break;
        }
        if (writes_first) die_before_call(call);
        if (writes_first) must(close_with_stamp(map) == ODM_OK);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) cr_assert_eq(WEXITSTATUS(status), 0, "call %zu", call);
    return WIFEXITED(status);
}

/* Killed anywhere in a closing, the map is stamped or it is not, and holds everything, in this boot and the next. */
Test(stamp, survives_a_kill_anywhere_in_closing)
{
    bool finished = false;
    size_t n = 1, stamped = 0;
    for (; !finished; n++) {
        cr_assert_lt(n, 500);
        const char *path = temp_map_path();
        finished = killed_before(n, path, true);
        stamped += is_stamped(path);
        if (finished) cr_assert(is_stamped(path));
        lie_about_boot(n % 2);
        for (uint64_t boot = 1; boot < 4; boot++) {
            odm_map *map = open_map(path);
            expect_numbers(map, 0, COUNT, 1);
            cr_assert_eq(odm_count(map), COUNT);
            if (boot == 2) put(map, "key 1", "value 1 of 1");
            ok(odm_close(map));
            lie_about_boot(n + boot);
        }
        lie_about_boot(0);
        remove_tree(path);
    }
    cr_assert_gt(n, 20);
    cr_assert_gt(stamped, 1);
}

/* Killed anywhere in a first write, it happened or it did not, and no stamp speaks for what it left. */
Test(stamp, survives_a_kill_anywhere_in_withdrawing)
{
    struct image image = image_take(stamped_map());
    bool finished = false;
    size_t n = 1;
    for (; !finished; n++) {
        cr_assert_lt(n, 300);
        const char *path = temp_map_path();
        image_write(&image, path);
        finished = killed_before(n, path, false);
        bool before = is_stamped(path);
        if (finished) cr_assert_not(before);
        lie_about_boot(n % 3 == 0 ? 0 : n); // the next open trusts the index, or looks for a stamp
        odm_map *map = open_map(path);
        bool happened = odm_get(map, "key 0", 5, NULL, NULL) == ODM_OK;
        cr_assert(happened || !finished, "call %zu", n);
        cr_assert_not(happened && before, "call %zu: written under a stamp", n);
        expect_numbers(map, 1, COUNT, 0);
        put(map, "key 0", "again");
        cr_assert_not(is_stamped(path));
        ok(odm_close(map));
        lie_about_boot(1000);
        map = open_map(path);
        expect_value(map, "key 0", "again");
        expect_numbers(map, 1, COUNT, 0);
        ok(odm_close(map));
        lie_about_boot(0);
        remove_tree(path);
    }
    cr_assert_gt(n, 5);
    image_free(&image);
}

/* What a dead writer left half done is mended before the stamp speaks for the index.
 * Method: reserve room, and die; also with the stripe's lock held. */
static void die_in_a_write(void *context)
{
    odm_map *map;
    must(odm_open(context, NULL, &map, NULL) == ODM_OK);
    must(odm_put(map, "child", 5, "1", 1) == ODM_OK);
    struct lock_file *lock = map->store->client.file;
    bool mend;
    must(odm__lock_take(&map->store->client, &lock->stripes[0], 1000, "it", &mend, NULL) == ODM_OK);
    struct append append = {
        .kind = RECORD_PUT, .class = APPEND_PUT, .key_size = 1, .value_size = 1, .stripe = 0, .stripe_count = 1};
    must(odm__log_reserve(&map->writer, map->reader.head, &append, NULL) == ODM_OK);
    _exit(0);
}

Test(stamp, is_put_after_what_the_dead_left_is_mended)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 1);
    put_numbers(map, 0, 20, 0);
    expect_child_succeeds(start_child(die_in_a_write, (void *)(uintptr_t)path));
    ok(close_with_stamp(map));
    cr_assert(is_stamped(path));
    lie_about_boot(1);
    map = open_map(path);
    expect_numbers(map, 0, 20, 0);
    expect_value(map, "child", "1");
    cr_assert_eq(odm_count(map), 21);
    ok(odm_close(map));
}

/* ---- media that can not be written ----------------------------------------------------------------------------------- */

static void read_from_read_only_mount(void *context)
{
    const char *path = context;
    lie_about_boot(1);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) _exit(77);
    if (mount(path, path, NULL, MS_BIND, NULL) != 0) _exit(77);
    if (mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) != 0) _exit(77);
    must(mkdir(path_of(path, "new"), 0755) != 0 && errno == EROFS);
    for (unsigned turn = 0; turn < 2; turn++) {
        // As root, then as nobody.
        if (turn == 1) must(setgid(65534) == 0 && setuid(65534) == 0);
        odm_options options = {.struct_size = sizeof options, .flags = ODM_READ_ONLY};
        odm_error error = {.struct_size = sizeof error};
        odm_map *map = NULL;
        odm_status status = odm_open(path, &options, &map, &error);
        if (status != ODM_OK) fprintf(stderr, "%s: %s\n", odm_status_name(status), error.message);
        must(status == ODM_OK);
        odm_statistics statistics = {.struct_size = sizeof statistics};
        must(odm_stat(map, &statistics) == ODM_OK);
        must(statistics.recovery_kind == ODM_RECOVERY_NONE); // not a private index
        must(statistics.count == COUNT - 1 && odm_count(map) == COUNT - 1);
        must(odm_get(map, "key 7", 5, NULL, NULL) == ODM_OK);
        must(odm_get(map, "key 0", 5, NULL, NULL) == ODM_NOT_FOUND);
        must(odm_close(map) == ODM_OK);
        options.flags = 0;
        status = odm_open(path, &options, &map, NULL);
        must(status == ODM_E_READ_ONLY || (turn == 1 && status == ODM_E_IO)); // EROFS, or EACCES
        must(map == NULL);
    }
}

/* A stamped map opens at once from media that can not be written, and by a user who may not write. */
Test(stamp, opens_from_read_only_media_and_by_nobody)
{
    if (geteuid() != 0) cr_skip_test("only root can mount, and become nobody");
    const char *copy = temp_map_path();
    copy_tree(stamped_map(), copy);
    uint64_t digest = tree_digest(copy);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        read_from_read_only_mount((void *)(uintptr_t)copy);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) cr_skip_test("no mounts can be made here");
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(tree_digest(copy), digest);
}
