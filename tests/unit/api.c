/* The exported functions: their statuses, their arguments, and that a failure changes nothing. opendiskmap.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format.h"
#include "support.h"

TestSuite(api, .timeout = 60, .fini = remove_temp_directories);

/* ---- options ------------------------------------------------------------------------------------------------------- */

Test(api, options_init_gives_the_defaults)
{
    odm_options options, expected = ODM_OPTIONS_INIT;
    memset(&options, 0xff, sizeof options);
    ok(odm_options_init(&options, sizeof options));
    cr_assert_eq(memcmp(&options, &expected, sizeof options), 0);
    unsigned char larger[sizeof options + 16];
    memset(larger, 0xff, sizeof larger);
    ok(odm_options_init((odm_options *)(void *)larger, sizeof larger));
    for (size_t i = 4; i < sizeof larger; i++) cr_assert_eq(larger[i], 0);
    expect_status(odm_options_init(NULL, sizeof options), ODM_E_INVALID);
    expect_status(odm_options_init(&options, sizeof options - 1), ODM_E_INVALID);
    expect_status(odm_options_init(&options, 0), ODM_E_INVALID);
    expect_status(odm_options_init(&options, SIZE_MAX), ODM_E_INVALID);
}

/* Nonsense in the options is refused by name, and nothing is made. */
Test(api, options_out_of_their_range_are_refused)
{
    static const struct {
        odm_options options;
        odm_status status;
        const char *message;
    } cases[] = {
        {{.flags = 64}, ODM_E_INVALID, "0x40"},
        {{.flags = UINT32_MAX}, ODM_E_INVALID, "flags"},
        {{.flags = UINT32_C(1) << 31}, ODM_E_INVALID, "flags"},
        {{.flags = ODM_SALVAGE | ODM_READ_ONLY}, ODM_E_INVALID, "ODM_SALVAGE"},
        {{.flags = ODM_SALVAGE | ODM_MUST_CREATE}, ODM_E_INVALID, "ODM_SALVAGE"},
        {{.flags = ODM_MUST_CREATE | ODM_MUST_EXIST}, ODM_E_INVALID, "ODM_MUST_CREATE"},
        {{.flags = ODM_MUST_CREATE | ODM_READ_ONLY}, ODM_E_INVALID, "ODM_MUST_CREATE"},
        {{.reserved = 1}, ODM_E_INVALID, "reserved"},
        {{.stripes = 3}, ODM_E_INVALID, "stripes"},
        {{.stripes = 128}, ODM_E_INVALID, "stripes"},
        {{.stripes = UINT32_MAX}, ODM_E_INVALID, "stripes"},
        {{.file_mode = 01000}, ODM_E_INVALID, "file_mode"},
        {{.file_mode = 0755}, ODM_E_INVALID, "file_mode"},
        {{.file_mode = 0444}, ODM_E_INVALID, "file_mode"},
        {{.capacity = UINT64_MAX}, ODM_E_INVALID, "capacity"},
        {{.capacity_bytes = UINT64_MAX}, ODM_E_INVALID, "capacity"},
        {{.schema = NULL, .schema_size = 1}, ODM_E_INVALID, "schema"},
        {{.schema = "x", .schema_size = ODM_SCHEMA_SIZE_MAX + 1}, ODM_E_INVALID, "schema"},
    };
    const char *directory = temp_directory();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        odm_options options = cases[i].options;
        options.struct_size = sizeof options;
        odm_error error;
        expect_status(try_open_with(path_of(directory, "map"), &error, &options), cases[i].status);
        expect_message(error, cases[i].message);
        cr_assert_eq(file_count(directory), 0, "case %zu made something", i);
        expect_status(try_open_with(NULL, NULL, &options), cases[i].status);
    }
    odm_error error;
    expect_status(try_open(NULL, &error, .flags = ODM_READ_ONLY), ODM_E_INVALID);
    expect_message(error, "in memory");
    expect_status(try_open(NULL, &error, .flags = ODM_MUST_EXIST), ODM_E_INVALID);
    expect_status(try_open("", &error), ODM_E_INVALID);
    expect_message(error, "empty");
    odm_close(open_map(NULL, .flags = ODM_MUST_CREATE));
}

Test(api, options_in_their_range_are_taken)
{
    for (uint32_t stripes = 1; stripes <= 64; stripes *= 2) {
        odm_map *map = open_map(temp_map_path(), .stripes = stripes, .capacity = 100, .capacity_bytes = 1000);
        cr_assert_eq(statistics_of(map).stripes, stripes);
        put_numbers(map, 0, 100, 0);
        expect_numbers(map, 0, 100, 0);
        odm_close(map);
    }
    const char *path = temp_map_path();
    umask(077);
    odm_close(open_map(path, .file_mode = 0664));
    struct stat status;
    cr_assert_eq(stat(path_of(path, "meta"), &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0664);
    cr_assert_eq(stat(path_of(path, "index"), &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0664);
    odm_map *map = open_map(temp_map_path());
    cr_assert_eq(statistics_of(map).stripes, 16);
    odm_close(map);
}

/* A program may have been built with an older or a newer header. */
Test(api, options_of_other_versions)
{
    struct {
        odm_options options;
        unsigned char tail[64];
    } newer;
    memset(&newer, 0, sizeof newer);
    newer.options.struct_size = sizeof newer;
    newer.options.stripes = 4;
    const char *path = temp_map_path();
    odm_map *map = NULL;
    ok(odm_open(path, &newer.options, &map, NULL));
    cr_assert_eq(statistics_of(map).stripes, 4);
    odm_close(map);
    for (size_t i = 0; i < sizeof newer.tail; i++) {
        newer.tail[i] = 1;
        odm_error error;
        expect_status(try_open_with(path, &error, &newer.options), ODM_E_INVALID);
        expect_message(error, "does not know");
        newer.tail[i] = 0;
    }
    // What lies behind an older, smaller struct is not looked at.
    odm_options older = {.struct_size = 8, .flags = ODM_MUST_EXIST, .stripes = 3, .reserved = 9, .schema_size = 5};
    ok(odm_open(path, &older, &map, NULL));
    odm_close(map);
    for (uint32_t size = 0; size < 8; size++) {
        older.struct_size = size;
        expect_status(try_open_with(path, NULL, &older), ODM_E_INVALID);
    }
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

Test(api, open_without_options_or_error)
{
    const char *path = temp_map_path();
    odm_map *map = (odm_map *)(uintptr_t)1;
    ok(odm_open(path, NULL, &map, NULL));
    put(map, "a", "1");
    ok(odm_close(map));
    ok(odm_close(NULL));
    ok(odm_open(NULL, NULL, &map, NULL));
    ok(odm_close(map));
    odm_error error = {.struct_size = sizeof error};
    expect_status(odm_open(path, NULL, NULL, &error), ODM_E_INVALID);
    cr_assert_eq(error.status, ODM_E_INVALID);
    expect_status(odm_open(path, NULL, NULL, NULL), ODM_E_INVALID);
}

Test(api, must_exist_and_must_create)
{
    const char *directory = temp_directory(), *path = path_of(directory, "map");
    odm_error error;
    expect_status(try_open(path, &error, .flags = ODM_MUST_EXIST), ODM_NOT_FOUND);
    expect_message(error, path);
    expect_status(try_open(path, &error, .flags = ODM_READ_ONLY), ODM_NOT_FOUND);
    expect_status(try_open(path, &error, .flags = ODM_READ_ONLY | ODM_MUST_EXIST), ODM_NOT_FOUND);
    cr_assert_eq(file_count(directory), 0);
    cr_assert_eq(mkdir(path, 0755), 0); // An empty directory is no map.
    expect_status(try_open(path, &error, .flags = ODM_MUST_EXIST), ODM_NOT_FOUND);
    expect_status(try_open(path, &error, .flags = ODM_READ_ONLY), ODM_NOT_FOUND);
    cr_assert_eq(file_count(path), 0);

    odm_map *map = open_map(path, .flags = ODM_MUST_CREATE);
    put(map, "a", "1");
    expect_status(try_open(path, &error, .flags = ODM_MUST_CREATE), ODM_EXISTS);
    odm_close(map);
    uint64_t digest = tree_digest(path);
    expect_status(try_open(path, &error, .flags = ODM_MUST_CREATE), ODM_EXISTS);
    expect_message(error, path);
    cr_assert_eq(tree_digest(path), digest);
    map = open_map(path, .flags = ODM_MUST_EXIST);
    expect_value(map, "a", "1");
    odm_close(map);
}

Test(api, a_path_that_is_no_directory_is_invalid)
{
    const char *directory = temp_directory(), *path = path_of(directory, "file");
    make_file(path, "precious", 8);
    uint64_t digest = tree_digest(directory);
    odm_error error;
    static const uint32_t flags[] = {0, ODM_READ_ONLY, ODM_MUST_EXIST, ODM_MUST_CREATE};
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        expect_status(try_open(path, &error, .flags = flags[i]), ODM_E_INVALID);
        expect_message(error, "not a directory");
        cr_assert_neq(try_open(path_of(path, "below"), &error, .flags = flags[i]), ODM_OK);
    }
    // Its parent is missing: nothing is made in between.
    cr_assert_lt(try_open(path_of(directory, "no/map"), &error) - 1, ODM_NOT_FOUND);
    cr_assert_eq(tree_digest(directory), digest);
}

/* A directory of somebody else's is left alone. */
Test(api, a_directory_with_other_files_is_invalid)
{
    static const char *const names[] = {"notes.txt", ".hidden", "metadata", "logs", "index.html", "lock.pid"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *path = temp_directory();
        make_file(path_of(path, names[i]), "precious", 8);
        uint64_t digest = tree_digest(path);
        odm_error error;
        expect_status(try_open(path, &error), ODM_E_INVALID);
        expect_message(error, names[i]);
        expect_status(try_open(path, &error, .flags = ODM_MUST_CREATE), ODM_E_INVALID);
        cr_assert_eq(tree_digest(path), digest);
    }
}

/* What an unfinished creation leaves counts as empty; the rest of a map whose meta is gone does not. */
Test(api, remnants_of_a_creation_count_as_empty)
{
    const char *path = temp_directory();
    make_file(path_of(path, "meta.0123456789abcdef"), "half", 4);
    cr_assert_eq(mkdir(path_of(path, "log"), 0755), 0);
    odm_map *map = open_map(path);
    put_numbers(map, 0, 100, 0);
    odm_close(map);
    cr_assert_eq(rename(path_of(path, "meta"), path_of(path, "meta.away")), 0);
    uint64_t digest = tree_digest(path);
    odm_error error;
    static const uint32_t flags[] = {0, ODM_READ_ONLY, ODM_MUST_EXIST, ODM_MUST_CREATE};
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        expect_status(try_open(path, &error, .flags = flags[i]), ODM_E_CORRUPT);
        expect_message(error, "meta");
    }
    cr_assert_eq(unlink(path_of(path, "index")), 0);
    cr_assert_eq(unlink(path_of(path, "lock")), 0);
    expect_status(try_open(path, &error), ODM_E_CORRUPT); // Segments alone, too.
    cr_assert_neq(tree_digest(path), digest);
    cr_assert_eq(rename(path_of(path, "meta.away"), path_of(path, "meta")), 0);
    map = open_map(path);
    expect_numbers(map, 0, 100, 0);
    odm_close(map);
}

Test(api, a_part_that_is_missing_is_corrupt)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 100, 0);
    ok(odm_sync(map, NULL));
    odm_close(map);
    cr_assert_eq(rename(path_of(path, "log"), path_of(path, "gone")), 0);
    odm_error error;
    expect_status(try_open(path, &error), ODM_E_CORRUPT);
    expect_message(error, "log");
    expect_status(try_open(path, &error, .flags = ODM_READ_ONLY), ODM_E_CORRUPT);
    cr_assert_eq(rename(path_of(path, "gone"), path_of(path, "log")), 0);
    cr_assert_eq(unlink(path_of(path, "index")), 0); // So that the log is read.
    cr_assert_eq(rename(path_of(path, "log/00000001020"), path_of(path, "away")), 0);
    uint64_t digest = tree_digest(path);
    expect_status(try_open(path, &error), ODM_E_CORRUPT);
    expect_message(error, "00000001020");
    cr_assert_eq(tree_digest(path), digest);
}

Test(api, files_with_several_links_are_not_written)
{
    static const char *const names[] = {"meta", "index", "lock"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *directory = temp_directory(), *path = path_of(directory, "map");
        odm_map *map = open_map(path);
        put(map, "a", "1");
        odm_close(map);
        cr_assert_eq(link(path_of(path, names[i]), path_of(directory, "link")), 0);
        odm_error error;
        uint64_t digest = tree_digest(path);
        expect_status(try_open(path, &error), ODM_E_CORRUPT);
        expect_message(error, names[i]);
        expect_message(error, "2 links");
        cr_assert_eq(tree_digest(path), digest);
        map = open_map(path, .flags = ODM_READ_ONLY);
        expect_value(map, "a", "1");
        odm_close(map);
    }
}

/* ---- permissions --------------------------------------------------------------------------------------------------- */

enum { NOBODY = 65534 };

static void open_as_nobody(void *context)
{
    const char *directory = context;
    if (geteuid() == 0) must(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    odm_error error = {.struct_size = sizeof error};
    odm_map *map = NULL;
    // No permission to look into it, to make something in it, to write what is in it.
    char path[600];
    snprintf(path, sizeof path, "%s/closed/map", directory);
    must(odm_open(path, NULL, &map, &error) == ODM_E_IO && map == NULL);
    must(error.os_errno == EACCES);
    snprintf(path, sizeof path, "%s/closed", directory);
    must(odm_open(path, NULL, &map, &error) == ODM_E_IO && error.os_errno == EACCES);
    snprintf(path, sizeof path, "%s/readable/new", directory);
    must(odm_open(path, NULL, &map, &error) == ODM_E_IO && error.os_errno == EACCES);
    snprintf(path, sizeof path, "%s/readable/map", directory);
    must(odm_open(path, NULL, &map, &error) == ODM_E_IO && error.os_errno == EACCES);
    // To read it needs no permission to write.
    odm_options reading = {.struct_size = sizeof reading, .flags = ODM_READ_ONLY};
    const void *value;
    size_t size;
    must(odm_open(path, &reading, &map, &error) == ODM_OK);
    must(odm_get(map, "a", 1, &value, &size) == ODM_OK && size == 1 && *(const char *)value == '1');
    must(odm_put(map, "a", 1, "x", 1) == ODM_E_READ_ONLY);
    odm_statistics statistics = {.struct_size = sizeof statistics};
    must(odm_stat(map, &statistics) == ODM_OK && statistics.count == 1);
    must(odm_close(map) == ODM_OK);
}

/* Without permission opening is ODM_E_IO with its errno, and makes nothing; reading needs none to write.
 * Method: a child that is nobody, if this is root. */
Test(api, permissions_are_asked_of_the_system)
{
    const char *directory = temp_directory();
    cr_assert_eq(mkdir(path_of(directory, "closed"), 0700), 0);
    cr_assert_eq(mkdir(path_of(directory, "readable"), 0755), 0);
    if (geteuid() != 0) cr_assert_eq(chmod(path_of(directory, "closed"), 0), 0);
    odm_map *map = open_map(path_of(directory, "readable/map"));
    put(map, "a", "1");
    if (geteuid() != 0) {
        odm_close(map);
        cr_skip("only root can make files that this process may not write");
    }
    uint64_t digest = tree_digest(directory);
    expect_child_succeeds(start_child(open_as_nobody, (void *)(uintptr_t)directory)); // while it is open
    odm_close(map);
    expect_child_succeeds(start_child(open_as_nobody, (void *)(uintptr_t)directory));
    cr_assert_eq(tree_digest(directory), digest);
}

/* ---- failures of the system ---------------------------------------------------------------------------------------- */

static int calls_left;
static int injected_errno;

static bool fails_now(void)
{
    if (calls_left < 0 || calls_left-- > 0) return false;
    errno = injected_errno;
    return true;
}

#define INJECTED(result, call, arguments)                          \
    {                                                              \
        return fails_now() ? (result) : real_os()->call arguments; \
    }
static int failing_open(int directory, const char *name, int flags, mode_t mode)
    INJECTED(-1, open, (directory, name, flags, mode)) static int failing_reserve(int fd, off_t offset, off_t size)
        INJECTED(-1, reserve, (fd, offset, size)) static void *failing_map(void *at, size_t size, int protection,
                                                                           int flags, int fd, off_t offset)
            INJECTED((void *)-1, map,
                     (at, size, protection, flags, fd,
                      offset)) static int failing_identify(int fd, struct file_identity *identity)
                INJECTED(-1, identify, (fd, identity)) static ssize_t
    failing_write(int fd, const void *bytes, size_t size, off_t offset)
        INJECTED(-1, write_at, (fd, bytes, size, offset)) static ssize_t
    failing_read(int fd, void *bytes, size_t size,
                 off_t offset) INJECTED(-1, read_at, (fd, bytes, size, offset)) static int failing_sync_data(int fd)
        INJECTED(-1, sync_data, (fd)) static int failing_sync_directory(int fd)
            INJECTED(-1, sync_directory, (fd)) static int failing_sync_map(void *base, size_t size)
                INJECTED(-1, sync_map, (base, size)) static int failing_make_directory(int directory, const char *name,
                                                                                       mode_t mode)
                    INJECTED(-1, make_directory, (directory, name, mode)) static int failing_rename(int directory,
                                                                                                    const char *from,
                                                                                                    const char *to)
                        INJECTED(-1, rename, (directory, from, to)) static int failing_rename_new(int directory,
                                                                                                  const char *from,
                                                                                                  const char *to)
                            INJECTED(-1, rename_new, (directory, from, to)) static int failing_random(void *bytes,
                                                                                                      size_t size)
                                INJECTED(-1, random_bytes, (bytes, size)) static int failing_list(
                                    int directory, void (*found)(void *context, const char *name), void *context)
                                    INJECTED(-1, list,
                                             (directory, found, context)) static int failing_truncate(int fd,
                                                                                                      off_t size)
                                        INJECTED(-1, truncate, (fd, size))

                                            static const struct injection {
    const char *name;
    int number;
    odm_status status;
} injections[] = {
    {"open", EMFILE, ODM_E_NO_MEMORY},   {"open", EROFS, ODM_E_READ_ONLY},  {"reserve", ENOSPC, ODM_E_NO_SPACE},
    {"reserve", EDQUOT, ODM_E_NO_SPACE}, {"map", ENOMEM, ODM_E_NO_MEMORY},  {"identify", EIO, ODM_E_IO},
    {"write", ENOSPC, ODM_E_NO_SPACE},   {"read", EIO, ODM_E_IO},           {"sync_data", EIO, ODM_E_IO},
    {"sync_directory", EIO, ODM_E_IO},   {"sync_map", EIO, ODM_E_IO},       {"mkdir", EROFS, ODM_E_READ_ONLY},
    {"mkdir", EACCES, ODM_E_IO},         {"rename", EIO, ODM_E_IO},         {"rename_new", EIO, ODM_E_IO},
    {"random", EIO, ODM_E_IO},           {"list", EMFILE, ODM_E_NO_MEMORY}, {"truncate", ENOSPC, ODM_E_NO_SPACE},
};

static void inject(const struct injection *injection, int call)
{
    odm__os = *real_os();
    calls_left = call;
    injected_errno = injection->number;
    const char *name = injection->name;
    if (strcmp(name, "open") == 0) odm__os.open = failing_open;
    if (strcmp(name, "reserve") == 0) odm__os.reserve = failing_reserve;
    if (strcmp(name, "map") == 0) odm__os.map = failing_map;
    if (strcmp(name, "identify") == 0) odm__os.identify = failing_identify;
    if (strcmp(name, "write") == 0) odm__os.write_at = failing_write;
    if (strcmp(name, "read") == 0) odm__os.read_at = failing_read;
    if (strcmp(name, "sync_data") == 0) odm__os.sync_data = failing_sync_data;
    if (strcmp(name, "sync_directory") == 0) odm__os.sync_directory = failing_sync_directory;
    if (strcmp(name, "sync_map") == 0) odm__os.sync_map = failing_sync_map;
    if (strcmp(name, "mkdir") == 0) odm__os.make_directory = failing_make_directory;
    if (strcmp(name, "rename") == 0) odm__os.rename = failing_rename;
    if (strcmp(name, "rename_new") == 0) odm__os.rename_new = failing_rename_new;
    if (strcmp(name, "random") == 0) odm__os.random_bytes = failing_random;
    if (strcmp(name, "list") == 0) odm__os.list = failing_list;
    if (strcmp(name, "truncate") == 0) odm__os.truncate = failing_truncate;
}

/* Opens `path` with every n-th call failing in turn, until none does. prepare puts the directory into its state before each;
 * check looks at it after a failure. */
static void open_with_failures(const struct injection *injection, const char *path, void (*prepare)(const char *path),
                               void (*check)(const char *path, const struct injection *injection, int call))
{
    for (int call = 0;; call++) {
        cr_assert_lt(call, 300);
        prepare(path);
        size_t descriptors = descriptor_count();
        odm_map *map = (odm_map *)(uintptr_t)1;
        odm_error error = {.struct_size = sizeof error};
        inject(injection, call);
        odm_status status = odm_open(path, NULL, &map, &error);
        bool failed = calls_left < 0;
        odm__os = *real_os();
        if (status == ODM_OK) {
            put(map, "fresh", "1");
            expect_value(map, "fresh", "1");
            odm_close(map);
            if (!failed) break;
            continue; // It could do without.
        }
        cr_assert_null(map, "%s, call %d", injection->name, call);
        cr_assert_eq(descriptor_count(), descriptors, "%s, call %d: a descriptor is lost", injection->name, call);
        cr_assert_eq(status, injection->status, "%s, call %d: %s, %s", injection->name, call, odm_status_name(status),
                     error.message);
        check(path, injection, call);
    }
}

static void remove_map(const char *path)
{
    remove_tree(path);
}

static void make_empty_directory(const char *path)
{
    remove_tree(path);
    cr_assert_eq(mkdir(path, 0755), 0);
}

/* No temporary file, nothing that is not empty, and the next open goes on from there. */
static void check_leaves_at_most_an_empty_map(const char *path, const struct injection *injection, int call)
{
    static const char *const names[] = {"meta", "index", "lock", "log"};
    if (file_exists(path)) {
        size_t known = 0;
        for (size_t i = 0; i < COUNT_OF(names); i++) known += file_exists(path_of(path, names[i]));
        cr_assert_eq(file_count(path), known, "%s, call %d: a temporary file stays", injection->name, call);
        if (!file_exists(path_of(path, "meta")) && file_exists(path_of(path, "log"))) {
            cr_assert_eq(file_count(path_of(path, "log")), 0);
        }
    }
    odm_map *map = open_map(path);
    cr_assert_eq(odm_count(map), 0);
    cr_assert_eq(file_count(path), COUNT_OF(names));
    cr_assert_eq(file_count(path_of(path, "log")), statistics_of(map).segments + SPARES_KEPT, "%s, call %d",
                 injection->name, call);
    odm_close(map);
}

/* A creation that fails leaves nothing that is in the way of the next. Method: the n-th call of every kind that opening makes
 * fails, where there is no directory and where there is an empty one. */
Test(api, a_failed_creation_leaves_at_most_an_empty_map)
{
    const char *path = temp_map_path();
    for (size_t i = 0; i < COUNT_OF(injections); i++) {
        open_with_failures(&injections[i], path, remove_map, check_leaves_at_most_an_empty_map);
        open_with_failures(&injections[i], path, make_empty_directory, check_leaves_at_most_an_empty_map);
    }
}

static int make_directory_fails(int directory, const char *name, mode_t mode)
{
    (void)directory, (void)mode;
    errno = strcmp(name, "log") == 0 ? ENOSPC : EEXIST;
    return -1;
}

/* Where not even `log` could be made there is nothing at all. */
Test(api, a_creation_that_fails_at_once_makes_nothing)
{
    const char *path = temp_map_path();
    odm__os.make_directory = make_directory_fails;
    cr_assert_neq(try_open(path, NULL), ODM_OK);
    cr_assert_not(file_exists(path));
    make_empty_directory(path);
    expect_status(try_open(path, NULL), ODM_E_NO_SPACE);
    cr_assert_eq(file_count(path), 0);
}

static const char *original;

static void make_unsettled_map(const char *path)
{
    remove_tree(path);
    copy_tree(original, path);
}

static void check_loses_nothing(const char *path, const struct injection *injection, int call)
{
    (void)injection, (void)call;
    odm_map *map = open_map(path);
    expect_numbers(map, 0, 100, 1);
    expect_no_numbers(map, 100, 120);
    cr_assert_eq(odm_count(map), 100);
    odm_close(map);
}

/* An open that fails while it rebuilds loses nothing: the next one finds everything. */
Test(api, a_failed_rebuild_loses_nothing)
{
    original = temp_map_path();
    odm_map *map = open_map(original);
    put_numbers(map, 0, 120, 0);
    put_numbers(map, 0, 120, 1);
    remove_numbers(map, 100, 120);
    ok(odm_sync(map, NULL));
    odm_close(map); // Its copy is other files: they must be read.
    const char *path = temp_map_path();
    for (size_t i = 0; i < COUNT_OF(injections); i++) {
        open_with_failures(&injections[i], path, make_unsettled_map, check_loses_nothing);
    }
}

/* ---- one key: arguments -------------------------------------------------------------------------------------------- */

Test(api, arguments_of_the_functions_of_one_key)
{
    odm_map *map = open_in_memory();
    put(map, "a", "1");
    const void *value = NULL;
    size_t size = 0;
    uint64_t version = 0, big = ODM_KEY_SIZE_MAX;
    big++;

    expect_status(odm_get(NULL, "a", 1, &value, &size), ODM_E_INVALID);
    expect_status(odm_put(NULL, "a", 1, "1", 1), ODM_E_INVALID);
    expect_status(odm_remove(NULL, "a", 1), ODM_E_INVALID);
    expect_status(odm_entry_get(NULL, "a", 1, &value, &size, &version), ODM_E_INVALID);
    expect_status(odm_entry_put(NULL, "a", 1, "1", 1, 0), ODM_E_INVALID);
    expect_status(odm_entry_remove(NULL, "a", 1, 1), ODM_E_INVALID);
    expect_status(odm_entry_remove(NULL, "a", 1, 0), ODM_E_INVALID);

    expect_status(odm_get(map, NULL, 1, &value, &size), ODM_E_INVALID);
    expect_message(last_error_of(map), "key is NULL");
    expect_status(odm_put(map, NULL, 1, "1", 1), ODM_E_INVALID);
    expect_status(odm_put(map, "a", 1, NULL, 1), ODM_E_INVALID);
    expect_message(last_error_of(map), "value is NULL");
    expect_status(odm_remove(map, NULL, 1), ODM_E_INVALID);
    expect_status(odm_entry_get(map, NULL, 1, &value, &size, &version), ODM_E_INVALID);
    expect_status(odm_entry_get(map, "a", 1, &value, &size, NULL), ODM_E_INVALID);
    expect_status(odm_entry_put(map, NULL, 1, "1", 1, 0), ODM_E_INVALID);
    expect_status(odm_entry_put(map, "a", 1, NULL, 1, 0), ODM_E_INVALID);
    expect_status(odm_entry_remove(map, NULL, 1, 1), ODM_E_INVALID);
    expect_status(odm_entry_remove(map, "a", 1, 0), ODM_E_INVALID);

    expect_status(odm_get(map, "a", big, &value, &size), ODM_E_TOO_BIG);
    expect_message(last_error_of(map), "16777215");
    expect_status(odm_put(map, "a", big, "1", 1), ODM_E_TOO_BIG);
    expect_status(odm_remove(map, "a", big), ODM_E_TOO_BIG);
    expect_status(odm_entry_get(map, "a", big, &value, &size, &version), ODM_E_TOO_BIG);
    expect_status(odm_entry_put(map, "a", big, "1", 1, 0), ODM_E_TOO_BIG);
    expect_status(odm_entry_remove(map, "a", SIZE_MAX, 1), ODM_E_TOO_BIG);
    // A value is not read before its size was found to fit.
    expect_status(odm_put(map, "a", 1, "1", ODM_RECORD_SIZE_MAX - 24 - 8 + 1), ODM_E_TOO_BIG);
    expect_status(odm_put(map, "a", 1, "1", SIZE_MAX), ODM_E_TOO_BIG);
    expect_status(odm_put(map, "a", 1, "1", SIZE_MAX - 30), ODM_E_TOO_BIG);
    expect_status(odm_entry_put(map, "a", 1, "1", UINT64_C(1) << 32, 0), ODM_E_TOO_BIG);

    expect_value(map, "a", "1");
    cr_assert_eq(odm_count(map), 1);
    ok(odm_get(map, "a", 1, NULL, NULL));
    ok(odm_get(map, "a", 1, &value, NULL));
    ok(odm_get(map, "a", 1, NULL, &size));
    cr_assert_eq(size, 1);
    ok(odm_entry_get(map, "a", 1, NULL, NULL, &version));
    odm_close(map);
}

/* The largest key works, in every function. */
Test(api, a_key_may_have_16777215_bytes)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    unsigned char *key = malloc(ODM_KEY_SIZE_MAX);
    cr_assert_not_null(key);
    memset(key, 'k', ODM_KEY_SIZE_MAX);
    ok(odm_put(map, key, ODM_KEY_SIZE_MAX, "a", 1));
    key[ODM_KEY_SIZE_MAX - 1] = 'l';
    expect_status(odm_get(map, key, ODM_KEY_SIZE_MAX, NULL, NULL), ODM_NOT_FOUND);
    ok(odm_put(map, key, ODM_KEY_SIZE_MAX, "b", 1));
    ok(odm_put(map, key, ODM_KEY_SIZE_MAX - 1, "c", 1));
    cr_assert_eq(odm_count(map), 3);
    odm_close(map);
    cr_assert_eq(unlink(path_of(path, "index")), 0);
    map = open_map(path);
    const void *value;
    ok(odm_get(map, key, ODM_KEY_SIZE_MAX, &value, NULL));
    cr_assert_eq(*(const char *)value, 'b');
    key[ODM_KEY_SIZE_MAX - 1] = 'k';
    ok(odm_remove(map, key, ODM_KEY_SIZE_MAX));
    cr_assert_eq(odm_count(map), 2);
    free(key);
    odm_close(map);
}

/* ---- the others: arguments ----------------------------------------------------------------------------------------- */

Test(api, arguments_of_the_other_functions)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *dup = (odm_map *)(uintptr_t)1;
    odm_error error = {.struct_size = sizeof error};
    odm_statistics statistics = {.struct_size = 0};
    odm_iter *iter = (odm_iter *)(uintptr_t)1;
    const void *schema;
    size_t size, n = 1;
    uint64_t position;
    expect_status(odm_dup(NULL, &dup, &error), ODM_E_INVALID);
    cr_assert_null(dup);
    cr_assert_eq(error.status, ODM_E_INVALID);
    expect_status(odm_dup(map, NULL, &error), ODM_E_INVALID);
    expect_status(odm_sync(NULL, &error), ODM_E_INVALID);
    expect_message(error, "odm_sync: map is NULL");
    expect_status(odm_backup(NULL, path, NULL, &error), ODM_E_INVALID);
    expect_message(error, "odm_backup: map is NULL");
    expect_status(odm_refresh(NULL), ODM_E_INVALID);
    expect_status(odm_last_error(NULL, &error), ODM_E_INVALID);
    expect_status(odm_last_error(map, NULL), ODM_E_INVALID);
    expect_status(odm_clear(NULL, &error), ODM_E_INVALID);
    expect_status(odm_schema(NULL, &schema, &size), ODM_E_INVALID);
    expect_status(odm_schema(map, NULL, &size), ODM_E_INVALID);
    expect_status(odm_schema(map, &schema, NULL), ODM_E_INVALID);
    expect_status(odm_stat(NULL, &statistics), ODM_E_INVALID);
    expect_status(odm_stat(map, NULL), ODM_E_INVALID);
    expect_status(odm_stat(map, &statistics), ODM_E_INVALID); // struct_size 0
    expect_status(odm_iter_open(NULL, &iter), ODM_E_INVALID);
    cr_assert_null(iter);
    expect_status(odm_iter_open(map, NULL), ODM_E_INVALID);
    expect_status(odm_iter_next(NULL, NULL, NULL, NULL, NULL), ODM_E_INVALID);
    expect_status(odm_iter_next_many(NULL, &n, NULL, NULL, NULL, NULL), ODM_E_INVALID);
    expect_status(odm_iter_position(NULL, &position), ODM_E_INVALID);
    expect_status(odm_iter_seek(NULL, 0), ODM_E_INVALID);
    ok(odm_iter_close(NULL));
    ok(odm_iter_open(map, &iter));
    expect_status(odm_iter_next_many(iter, NULL, NULL, NULL, NULL, NULL), ODM_E_INVALID);
    expect_status(odm_iter_position(iter, NULL), ODM_E_INVALID);
    ok(odm_iter_close(iter));
    odm_close(map);
}

Test(api, long_work_checks_its_arguments)
{
    odm_map *map = open_map(temp_map_path());
    odm_error error = {.struct_size = sizeof error};
    odm_progress progress = {.struct_size = 8};
    expect_status(odm_compact(map, &progress, &error), ODM_E_INVALID);
    expect_message(error, "odm_compact");
    expect_status(odm_verify(map, NULL, &progress, &error), ODM_E_INVALID);
    expect_message(error, "odm_verify");
    expect_status(odm_backup(map, temp_map_path(), &progress, &error), ODM_E_INVALID);
    expect_message(error, "odm_backup");
    expect_status(odm_compact(NULL, NULL, NULL), ODM_E_INVALID);
    expect_status(odm_verify(NULL, NULL, NULL, NULL), ODM_E_INVALID);
    expect_status(odm_backup(NULL, NULL, NULL, NULL), ODM_E_INVALID);
    odm_close(map);
}

/* A read-only handle writes nothing, and says so everywhere. */
Test(api, a_read_only_handle_refuses_every_write)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 50, 0);
    odm_close(map);
    uint64_t digest = tree_digest(path), version;
    map = open_map(path, .flags = ODM_READ_ONLY);
    odm_error error = {.struct_size = sizeof error};
    ok(odm_entry_get(map, "key 1", 5, NULL, NULL, &version));
    expect_status(odm_put(map, "a", 1, "1", 1), ODM_E_READ_ONLY);
    expect_message(last_error_of(map), "reading only");
    expect_status(odm_remove(map, "key 1", 5), ODM_E_READ_ONLY);
    expect_status(odm_remove(map, "nothing", 7), ODM_E_READ_ONLY);
    expect_status(odm_clear(map, &error), ODM_E_READ_ONLY);
    cr_assert_eq(error.status, ODM_E_READ_ONLY);
    expect_status(odm_sync(map, &error), ODM_E_READ_ONLY);
    expect_status(odm_entry_put(map, "key 1", 5, "x", 1, version), ODM_E_READ_ONLY);
    expect_status(odm_entry_put(map, "a", 1, "x", 1, 0), ODM_E_READ_ONLY);
    expect_status(odm_entry_remove(map, "key 1", 5, version), ODM_E_READ_ONLY);
    expect_numbers(map, 0, 50, 0);
    cr_assert_eq(odm_count(map), 50);
    ok(odm_refresh(map));
    odm_close(map);
    cr_assert_eq(tree_digest(path), digest);
}
