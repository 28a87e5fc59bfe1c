/* full_disk.c - a map on a file system that is really full, under a file size limit, over a quota.
 *
 * Method: a tmpfs of some MiB, mounted by the test in a mount namespace of its own; skipped where that is not allowed. Puts go on
 * until they are refused. Whatever happens, the map is compared with what was put, and no signal comes.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include "compact.h"
#include "support.h"

TestSuite(full_disk, .timeout = 120, .fini = remove_temp_directories);

/* A new tmpfs that nobody else sees. */
static const char *small_disk(const char *size)
{
    const char *path = temp_directory();
    char options[32];
    snprintf(options, sizeof options, "size=%s", size);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", path, "tmpfs", 0, options) != 0) {
        cr_skip_test("no file system can be mounted here: %s", strerror(errno));
    }
    return path;
}

static uint64_t free_bytes(const char *path)
{
    struct statvfs now;
    cr_assert_eq(statvfs(path, &now), 0);
    return (uint64_t)now.f_bavail * now.f_bsize;
}

/* Puts new keys until one is refused; returns how many are there. */
static unsigned fill(odm_map *map, unsigned from)
{
    char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
    odm_status status;
    for (unsigned i = from;; i++) {
        status = odm_put(map, key, number_key(i, key), value, number_value(i, 0, value));
        if (status != ODM_OK) {
            expect_status(status, ODM_E_NO_SPACE);
            return i;
        }
        cr_assert_lt(i, 1000000);
    }
}

/* Full, a put is refused and changes nothing; gets, removes, syncs and odm_compact go on; puts resume when there is room. */
Test(full_disk, a_put_is_refused_and_the_rest_goes_on)
{
    const char *disk = small_disk("3m"), *path = path_of(disk, "map");
    odm_map *map = open_map(path), *other = open_map(path);
    unsigned count = fill(map, 0);
    cr_assert_gt(count, 10000);
    for (int again = 0; again < 3; again++) {
        expect_status(odm_put(map, "one more", 8, "x", 1), ODM_E_NO_SPACE);
        expect_status(odm_put(other, "key 0", 5, "x", 1), ODM_E_NO_SPACE);
    }
    cr_assert_eq(odm_count(map), count);
    expect_absent(map, "one more");
    expect_numbers(other, 0, count, 0);
    ok(odm_sync(map, NULL));
    remove_numbers(map, 0, 50);
    expect_numbers(map, 50, count, 0);

    // What was removed gives room to go on removing, where no idle handle holds the segments it lay in.
    odm_close(map);
    ok(odm_refresh(other));
    remove_numbers(other, 50, count / 2);
    ok(odm_compact(other, NULL, NULL));
    ok(odm_refresh(other));
    map = open_map(path);
    cr_assert_gt(free_bytes(disk), 500000);
    unsigned more = fill(other, count);
    cr_assert_gt(more, count + 5000);
    expect_no_numbers(map, 0, count / 2);
    expect_numbers(map, count / 2, more, 0);
    odm_close(other);
    ok(odm_close(map));
    map = open_map(path, .flags = ODM_READ_ONLY | ODM_VERIFY_READS);
    expect_numbers(map, count / 2, more, 0);
    odm_close(map);
}

/* Updates of what is there go on for ever on a disk with some room less than twice the live bytes. */
Test(full_disk, updates_go_on_because_what_is_dead_is_given_back)
{
    const char *path = path_of(small_disk("2m"), "map");
    odm_map *map = open_map(path);
    put_numbers(map, 0, 12000, 0);
    for (unsigned round = 1; round <= 12; round++) put_numbers(map, 0, 12000, round);
    expect_numbers(map, 0, 12000, 12);
    cr_assert_eq(odm_count(map), 12000);
    odm_close(map);
}

/* Somebody else fills the disk and makes room again, again and again. */
Test(full_disk, comes_and_goes_by_others)
{
    const char *disk = small_disk("3m"), *path = path_of(disk, "map");
    odm_map *map = open_map(path);
    unsigned count = 0;
    for (int round = 0; round < 10; round++) {
        FILE *file = fopen(path_of(disk, "other"), "w");
        cr_assert_not_null(file);
        static char zeros[4096];
        while (fwrite(zeros, sizeof zeros, 1, file) == 1 && fflush(file) == 0) continue;
        (void)fclose(file);
        unsigned before = count;
        count = fill(map, count);
        cr_assert_lt(count, before + 3000);
        cr_assert_eq(odm_count(map), count);
        cr_assert_eq(remove(path_of(disk, "other")), 0);
        put_numbers(map, count, count + 200, 0);
        count += 200;
    }
    expect_numbers(map, 0, count, 0);
    odm_close(map);
}

/* Every open on a disk that is full from the start is a status, and leaves nothing that would be in the way later. */
Test(full_disk, a_map_that_finds_no_room_is_made_later)
{
    const char *disk = small_disk("1m");
    char filler[32];
    for (unsigned kept = 0; kept < 600; kept += 24) {
        FILE *file = fopen(path_of(disk, "other"), "w");
        cr_assert_not_null(file);
        static char zeros[4096];
        for (uint64_t left = free_bytes(disk); left > kept * 1024; left = free_bytes(disk)) {
            if (fwrite(zeros, sizeof zeros, 1, file) != 1 || fflush(file) != 0) break;
        }
        (void)fclose(file);
        snprintf(filler, sizeof filler, "map %u", kept);
        odm_error error = {.struct_size = sizeof error};
        odm_map *map;
        odm_status status = odm_open(path_of(disk, filler), NULL, &map, &error);
        if (status == ODM_OK) {
            (void)odm_put(map, "a", 1, "1", 1);
            odm_close(map);
        } else {
            expect_status(status, ODM_E_NO_SPACE);
        }
        cr_assert_eq(remove(path_of(disk, "other")), 0);
        map = open_map(path_of(disk, filler));
        put(map, "b", "2");
        expect_value(map, "b", "2");
        odm_close(map);
        remove_tree(path_of(disk, filler));
    }
}

/* A limit on the size of files is a status, and SIGXFSZ does not come. */
Test(full_disk, a_file_size_limit)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    struct rlimit limit = {.rlim_cur = 40 * 1024, .rlim_max = 40 * 1024};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    unsigned count = fill(map, 0); // The index can not grow beyond it.
    expect_numbers(map, 0, count, 0);
    remove_numbers(map, 0, count);
    put_numbers(map, 0, 10, 1);
    expect_numbers(map, 0, 10, 1);
    odm_close(map);
}

static int over_quota(int fd, off_t offset, off_t size)
{
    (void)fd, (void)offset, (void)size;
    errno = EDQUOT;
    return -1;
}

Test(full_disk, a_quota)
{
    odm_map *map = open_map(temp_map_path());
    odm__os.reserve = over_quota;
    unsigned count = fill(map, 0);
    cr_assert_eq(last_error_of(map).os_errno, EDQUOT);
    expect_numbers(map, 0, count, 0);
    odm__os.reserve = real_os()->reserve;
    put_numbers(map, count, count + 1000, 0);
    expect_numbers(map, 0, count + 1000, 0);
    odm_close(map);
}
