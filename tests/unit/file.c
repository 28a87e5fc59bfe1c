/* Files and directories: file.h. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "support.h"

TestSuite(file, .timeout = 60, .fini = remove_temp_directories);

static struct directory open_directory(const char *path)
{
    struct directory directory;
    ok(odm__directory_open(&directory, path, NULL));
    return directory;
}

static struct stat status_of(int fd)
{
    struct stat status;
    cr_assert_eq(fstat(fd, &status), 0);
    return status;
}

/* ---- room ---------------------------------------------------------------------------------------------------------- */

Test(file, a_new_file_is_zeros_and_reserved_on_disk)
{
    struct directory directory = open_directory(temp_directory());
    int fd;
    ok(odm__file_create(&directory, "a", 5 * 4096, &fd, NULL));
    struct stat status = status_of(fd);
    cr_assert_eq(status.st_size, 5 * 4096);
    cr_assert_geq(status.st_blocks * 512, 5 * 4096, "a hole: a store into it could meet a full disk");
    unsigned char bytes[5 * 4096], zeros[5 * 4096] = {0};
    cr_assert_eq(pread(fd, bytes, sizeof bytes, 0), (ssize_t)sizeof bytes);
    cr_assert_arr_eq(bytes, zeros, sizeof bytes);
    ok(odm__file_grow(&directory, "a", fd, 5 * 4096, 9 * 4096, 0, NULL));
    status = status_of(fd);
    cr_assert_eq(status.st_size, 9 * 4096);
    cr_assert_geq(status.st_blocks * 512, 9 * 4096);
    int other;
    expect_status(odm__file_create(&directory, "a", 4096, &other, NULL), ODM_EXISTS);
    close(fd);
    odm__directory_close(&directory);
}

static int failing_errno;

/* As ext4: what could be had is kept. */
static int reserve_half(int fd, off_t offset, off_t size)
{
    cr_assert_eq(real_os()->reserve(fd, offset, size / 2), 0);
    errno = failing_errno;
    return -1;
}

/* A reservation that fails half-way gives its blocks back, and a new file is gone.
 * Method: a reserve() that takes half of the room and then says no. */
Test(file, a_failed_reservation_gives_its_blocks_back)
{
    static const int numbers[] = {ENOSPC, EDQUOT, EFBIG};
    const char *path = temp_directory();
    struct directory directory = open_directory(path);
    int fd;
    ok(odm__file_create(&directory, "kept", 4 * 4096, &fd, NULL));
    blkcnt_t blocks = status_of(fd).st_blocks;
    size_t descriptors = descriptor_count();
    odm__os.reserve = reserve_half;
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        odm_error error = {.struct_size = sizeof error};
        int none = -1;
        failing_errno = numbers[i];
        expect_status(odm__file_create(&directory, "new", 64 * 4096, &none, &error), ODM_E_NO_SPACE);
        cr_assert_eq(error.os_errno, numbers[i]);
        expect_message(error, "new");
        cr_assert_not(file_exists(path_of(path, "new")));
        expect_status(odm__file_grow(&directory, "kept", fd, 4 * 4096, 64 * 4096, 0, &error), ODM_E_NO_SPACE);
        cr_assert_eq(status_of(fd).st_size, 4 * 4096);
        cr_assert_eq(status_of(fd).st_blocks, blocks);
    }
    cr_assert_eq(descriptor_count(), descriptors);
    close(fd);
    odm__directory_close(&directory);
}

/* A file size limit is a status. Method: a real limit; without the question before, SIGXFSZ would end this process. */
Test(file, a_file_size_limit_is_a_status_and_no_signal)
{
    struct directory directory = open_directory(temp_directory());
    struct rlimit before;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit limit = {.rlim_cur = 4 * 4096, .rlim_max = before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);

    odm_error error = {.struct_size = sizeof error};
    int fd, none;
    ok(odm__file_create(&directory, "a", 4 * 4096, &fd, NULL));
    expect_status(odm__file_grow(&directory, "a", fd, 4 * 4096, 5 * 4096, 0, &error), ODM_E_NO_SPACE);
    cr_assert_eq(error.os_errno, EFBIG);
    cr_assert_eq(status_of(fd).st_size, 4 * 4096);
    expect_status(odm__file_create(&directory, "b", 5 * 4096, &none, &error), ODM_E_NO_SPACE);
    expect_status(odm__file_open(&directory, "b", false, &none, NULL), ODM_NOT_FOUND);

    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    ok(odm__file_grow(&directory, "a", fd, 4 * 4096, 5 * 4096, 0, &error));
    close(fd);
    odm__directory_close(&directory);
}

static int reserve_not_supported(int fd, off_t offset, off_t size)
{
    (void)fd, (void)offset, (void)size;
    errno = EOPNOTSUPP;
    return -1;
}

Test(file, a_file_system_without_reservation_is_refused_unless_asked_for)
{
    const char *path = temp_directory();
    struct directory directory = open_directory(path);
    odm__os.reserve = reserve_not_supported;
    odm_error error = {.struct_size = sizeof error};
    int fd;
    expect_status(odm__file_create(&directory, "a", 4096, &fd, &error), ODM_E_UNSUPPORTED);
    expect_message(error, "ODM_ANY_FILE_SYSTEM");
    cr_assert_eq(file_count(path), 0);

    directory.any_file_system = true;
    ok(odm__file_create(&directory, "a", 4096, &fd, &error));
    cr_assert_eq(status_of(fd).st_size, 4096);
    ok(odm__file_grow(&directory, "a", fd, 4096, 8192, 0, &error));
    cr_assert_eq(status_of(fd).st_size, 8192);
    close(fd);
    odm__directory_close(&directory);
}

/* ---- file systems -------------------------------------------------------------------------------------------------- */

static uint64_t magic;

static int pretend_magic(int fd, uint64_t *found)
{
    (void)fd;
    *found = magic;
    return 0;
}

static const struct {
    uint64_t magic;
    const char *name;
} network[] = {
    {0x6969, "NFS"},       {0x517B, "SMB"},      {0xFF534D42, "CIFS"},   {0xFE534D42, "SMB2"},
    {0x01021997, "9p"},    {0x65735546, "FUSE"}, {0x00C36400, "Ceph"},   {0x794C7630, "overlayfs"},
    {0x73757245, "Coda"},  {0x5346414F, "AFS"},  {0x6B414653, "AFS"},    {0x0BD00BD0, "Lustre"},
    {0x7461636F, "OCFS2"}, {0x01161970, "GFS2"}, {0x786F4256, "vboxsf"}, {0xF15F, "eCryptfs"},
};
static const uint64_t local[] = {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x2FC12FC1, 0xF2F52010};

/* Writing on a network or layered file system is refused by its name, before anything is made.
 * Method: the magic numbers as the kernel's headers have them, through statfs replaced. */
Test(file, network_and_layered_file_systems_are_refused_by_name)
{
    const char *path = temp_directory();
    struct directory directory = open_directory(path);
    odm__os.file_system = pretend_magic;
    for (size_t i = 0; i < COUNT_OF(network); i++) {
        magic = network[i].magic;
        odm_error error;
        expect_status(odm__directory_check_kind(&directory, NULL), ODM_E_UNSUPPORTED);
        expect_status(try_open(path_of(path, "map"), &error), ODM_E_UNSUPPORTED);
        expect_message(error, network[i].name);
        expect_message(error, "ODM_ANY_FILE_SYSTEM");
        cr_assert_eq(file_count(path), 0, "%s: something was made", network[i].name);
    }
    for (size_t i = 0; i < COUNT_OF(local); i++) {
        magic = local[i];
        ok(odm__directory_check_kind(&directory, NULL));
    }
    odm__directory_close(&directory);
}

Test(file, a_map_on_a_network_file_system_can_be_read_or_asked_for)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put(map, "a", "1");
    odm_close(map);
    odm__os.file_system = pretend_magic;
    magic = 0x6969;
    map = open_map(path, .flags = ODM_READ_ONLY);
    expect_value(map, "a", "1");
    odm_close(map);
    map = open_map(path, .flags = ODM_ANY_FILE_SYSTEM);
    put(map, "b", "2");
    odm_close(map);
    expect_status(try_open(path, NULL), ODM_E_UNSUPPORTED);
    odm_close(open_map(NULL)); // Memory is no file system.
}

/* ---- directories --------------------------------------------------------------------------------------------------- */

Test(file, a_directory_that_is_none_is_told_from_one_that_is_missing)
{
    const char *path = temp_directory();
    make_file(path_of(path, "file"), "x", 1);
    struct directory directory;
    odm_error error = {.struct_size = sizeof error};
    size_t descriptors = descriptor_count();
    expect_status(odm__directory_open(&directory, path_of(path, "nothing"), &error), ODM_NOT_FOUND);
    expect_status(odm__directory_open(&directory, path_of(path, "file"), &error), ODM_E_INVALID);
    expect_message(error, "not a directory");
    directory = open_directory(path);
    struct directory inner;
    expect_status(odm__directory_open_in(&inner, &directory, "log", "log/", false, NULL), ODM_NOT_FOUND);
    ok(odm__directory_open_in(&inner, &directory, "log", "log/", true, NULL));
    odm__directory_close(&inner);
    ok(odm__directory_open_in(&inner, &directory, "log", "log/", true, NULL)); // It is there already.
    odm__directory_close(&inner);
    // What a link leads to is another's.
    cr_assert_eq(symlink("log", path_of(path, "link")), 0);
    for (int create = 0; create < 2; create++) {
        expect_status(odm__directory_open_in(&inner, &directory, "link", "link/", create, &error), ODM_E_CORRUPT);
        expect_message(error, "link is a symbolic link");
    }
    odm__directory_close(&directory);
    cr_assert_eq(descriptor_count(), descriptors);
}

/* A directory is held by its descriptor: it may be renamed under a map. */
Test(file, a_directory_may_be_renamed_while_it_is_open)
{
    const char *path = temp_directory();
    cr_assert_eq(mkdir(path_of(path, "before"), 0755), 0);
    struct directory directory = open_directory(path_of(path, "before"));
    cr_assert_eq(rename(path_of(path, "before"), path_of(path, "after")), 0);
    int fd;
    ok(odm__file_create(&directory, "a", 4096, &fd, NULL));
    cr_assert(file_exists(path_of(path, "after/a")));
    close(fd);
    odm__directory_close(&directory);
}

static void count_name(void *context, const char *name)
{
    unsigned *seen = context;
    if (strcmp(name, "a") == 0)
        seen[0]++;
    else if (strcmp(name, "b") == 0)
        seen[1]++;
    else
        seen[2]++;
}

/* What holds for a directory, whether it is on disk or in memory. */
static void check_names(struct directory *directory)
{
    int a, b, none;
    expect_status(odm__file_open(directory, "a", true, &none, NULL), ODM_NOT_FOUND);
    ok(odm__file_create(directory, "a", 4096, &a, NULL));
    ok(odm__file_create(directory, "b", 8192, &b, NULL));
    cr_assert_eq(status_of(a).st_size, 4096);
    cr_assert_eq(pwrite(a, "from a", 6, 0), 6);
    cr_assert_eq(pwrite(b, "from b", 6, 0), 6);
    unsigned seen[3] = {0};
    ok(odm__directory_list(directory, count_name, seen, NULL));
    cr_assert(seen[0] == 1 && seen[1] == 1 && seen[2] == 0);

    // A descriptor keeps its file; the name goes to the other.
    ok(odm__file_rename(directory, "a", "b", NULL));
    char text[6];
    int fd;
    ok(odm__file_open(directory, "b", false, &fd, NULL));
    cr_assert_eq(pread(fd, text, sizeof text, 0), 6);
    cr_assert_arr_eq(text, "from a", 6);
    close(fd);
    expect_status(odm__file_open(directory, "a", false, &none, NULL), ODM_NOT_FOUND);
    cr_assert_eq(pread(b, text, sizeof text, 0), 6);
    cr_assert_arr_eq(text, "from b", 6);

    ok(odm__file_unlink(directory, "b", NULL));
    ok(odm__file_unlink(directory, "b", NULL)); // Missing is fine.
    expect_status(odm__file_open(directory, "b", false, &none, NULL), ODM_NOT_FOUND);
    ok(odm__directory_sync(directory, NULL));
    close(a);
    close(b);
}

Test(file, names_on_disk_and_in_memory_behave_alike)
{
    size_t descriptors = descriptor_count();
    struct directory disk = open_directory(temp_directory());
    check_names(&disk);
    odm__directory_close(&disk);

    struct directory memory;
    ok(odm__directory_open_in(&memory, NULL, "", "", true, NULL));
    check_names(&memory);
    int fd;
    ok(odm__file_create(&memory, "left", 4096, &fd, NULL)); // Goes with its directory.
    close(fd);
    odm__directory_close(&memory);
    cr_assert_eq(descriptor_count(), descriptors + 1); // The lock of the temporary directory.
}

Test(file, directories_in_memory_know_nothing_of_each_other)
{
    struct directory one, two, inner;
    ok(odm__directory_open_in(&one, NULL, "", "", true, NULL));
    ok(odm__directory_open_in(&two, NULL, "", "", true, NULL));
    ok(odm__directory_open_in(&inner, &one, "log", "log/", true, NULL));
    int fd, none;
    ok(odm__file_create(&one, "a", 4096, &fd, NULL));
    expect_status(odm__file_open(&two, "a", false, &none, NULL), ODM_NOT_FOUND);
    expect_status(odm__file_open(&inner, "a", false, &none, NULL), ODM_NOT_FOUND);
    close(fd);
    odm__directory_close(&inner);
    odm__directory_close(&two);
    odm__directory_close(&one);
}

static int memory_file_fails(const char *name)
{
    (void)name;
    errno = EMFILE;
    return -1;
}

Test(file, a_memory_file_that_can_not_be_made_leaves_nothing)
{
    struct directory memory;
    ok(odm__directory_open_in(&memory, NULL, "", "", true, NULL));
    odm__os.memory_file = memory_file_fails;
    int fd;
    expect_status(odm__file_create(&memory, "a", 4096, &fd, NULL), ODM_E_NO_MEMORY);
    odm__os = *real_os();
    odm__os.reserve = reserve_half;
    failing_errno = ENOSPC;
    expect_status(odm__file_create(&memory, "a", 4 * 4096, &fd, NULL), ODM_E_NO_SPACE);
    expect_status(odm__file_open(&memory, "a", false, &fd, NULL), ODM_NOT_FOUND);
    odm__directory_close(&memory);
}

Test(file, rename_new_never_replaces)
{
    struct directory directory = open_directory(temp_directory());
    int a, b;
    ok(odm__file_create(&directory, "a", 4096, &a, NULL));
    ok(odm__file_create(&directory, "b", 8192, &b, NULL));
    expect_status(odm__file_rename_new(&directory, "a", "b", NULL), ODM_EXISTS);
    close(b);
    ok(odm__file_open(&directory, "b", false, &b, NULL));
    cr_assert_eq(status_of(b).st_size, 8192);
    ok(odm__file_rename_new(&directory, "a", "c", NULL));
    cr_assert_eq(status_of(a).st_nlink, 1);
    close(a);
    close(b);
    odm__directory_close(&directory);
}

/* ---- owners and modes ---------------------------------------------------------------------------------------------- */

Test(file, the_mode_asked_for_does_not_depend_on_the_umask)
{
    struct directory directory = open_directory(temp_directory());
    umask(077);
    int fd;
    ok(odm__file_create(&directory, "default", 4096, &fd, NULL));
    cr_assert_eq(status_of(fd).st_mode & 0777, 0600);
    close(fd);
    directory.mode = 0664;
    ok(odm__file_create(&directory, "asked", 4096, &fd, NULL));
    cr_assert_eq(status_of(fd).st_mode & 0777, 0664);
    close(fd);
    odm__directory_close(&directory);
}

/* A map that root makes belongs to the owner of its directory, in every file. */
Test(file, what_root_makes_belongs_to_the_owner_of_the_directory)
{
    if (geteuid() != 0) cr_skip("only root can give files away");
    const char *path = temp_directory();
    cr_assert_eq(chown(path, 12345, 23456), 0);
    odm_map *map = open_map(path);
    put_numbers(map, 0, 300, 0);
    odm_close(map);
    static const char *const names[] = {"meta", "index", "lock", "log", "log/00000001020", "log/00000001022"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct stat status;
        cr_assert_eq(stat(path_of(path, names[i]), &status), 0, "%s: %s", names[i], strerror(errno));
        cr_assert_eq(status.st_uid, 12345, "%s", names[i]);
        cr_assert_eq(status.st_gid, 23456, "%s", names[i]);
    }
}

/* ---- mappings ------------------------------------------------------------------------------------------------------ */

/* After a mapped file `guard_size` bytes can be read, and are zero. */
Test(file, a_guard_of_zeros_follows_a_mapping)
{
    struct directory directory = open_directory(temp_directory());
    int fd;
    ok(odm__file_create(&directory, "a", 4096, &fd, NULL));
    cr_assert_eq(pwrite(fd, "x", 1, 4095), 1);
    enum { GUARD = 1 << 20 };
    void *base, *writable;
    ok(odm__file_map(fd, 4096, GUARD, false, &base, NULL));
    const unsigned char *bytes = base;
    cr_assert_eq(bytes[4095], 'x');
    for (size_t i = 0; i < GUARD; i++) cr_assert_eq(bytes[4096 + i], 0);
    ok(odm__file_map(fd, 4096, 0, true, &writable, NULL));
    ((unsigned char *)writable)[17] = 'y';
    cr_assert_eq(bytes[17], 'y');
    odm__file_unmap(writable, 4096);
    odm__file_unmap(base, 4096 + GUARD);
    close(fd);
    odm__directory_close(&directory);
}

static size_t mapped_bytes;

static void *map_fails(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fd < 0) {
        mapped_bytes += size;
        return real_os()->map(at, size, protection, flags, fd, offset);
    }
    errno = ENOMEM;
    return MAP_FAILED;
}

static int unmap_counted(void *base, size_t size)
{
    mapped_bytes -= size;
    return real_os()->unmap(base, size);
}

Test(file, a_mapping_that_fails_gives_its_addresses_back)
{
    struct directory directory = open_directory(temp_directory());
    int fd;
    ok(odm__file_create(&directory, "a", 4096, &fd, NULL));
    odm__os.map = map_fails;
    odm__os.unmap = unmap_counted;
    void *base;
    expect_status(odm__file_map(fd, 4096, 8192, false, &base, NULL), ODM_E_NO_MEMORY);
    cr_assert_eq(mapped_bytes, 0);
    close(fd);
    odm__directory_close(&directory);
}
