/* os.c - the system calls of Linux behind os.h. The only file that knows Linux. */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* Calls that are younger than the C libraries we run with (glibc 2.17, musl) are made without them; what the kernel gives
 * for statx is spelt here, for no two headers agree on it. */
enum { MEMORY_FILE_CLOSE_ON_EXEC = 1 };
enum { STATX_WANTED_BASIC = 0x7ff, STATX_WANTED_BIRTH = 0x800, STATX_WANTED_MOUNT_ID_UNIQUE = 0x4000 /* Linux 6.8 */ };

struct kernel_time {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t reserved;
};

struct kernel_statx {
    uint32_t mask;
    uint32_t block_size;
    uint64_t attributes;
    uint32_t links;
    uint32_t uid;
    uint32_t gid;
    uint16_t mode;
    uint16_t spare;
    uint64_t inode;
    uint64_t size;
    uint64_t blocks;
    uint64_t attributes_mask;
    struct kernel_time access, birth, change, modification;
    uint32_t special_major, special_minor;
    uint32_t device_major, device_minor;
    uint64_t mount_id;
    uint64_t later[13];
};
_Static_assert(offsetof(struct kernel_statx, mount_id) == 0x90 && sizeof(struct kernel_statx) == 0x100,
               "as in linux/stat.h");

static int os_open(int directory, const char *name, int flags, mode_t mode)
{
    int fd;
    do {
        fd = openat(directory, name, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* All of it, or up to the end of the file. */
static ssize_t os_read_at(int fd, void *buffer, size_t size, off_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t read = pread(fd, (unsigned char *)buffer + done, size - done, offset + (off_t)done);
        if (read < 0 && errno == EINTR) continue;
        if (read < 0) return -1;
        if (read == 0) break;
        done += (size_t)read;
    }
    return (ssize_t)done;
}

/* All of it, or as much as there is room for. */
static ssize_t os_write_at(int fd, const void *buffer, size_t size, off_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t written = pwrite(fd, (const unsigned char *)buffer + done, size - done, offset + (off_t)done);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return done == 0 ? written : (ssize_t)done;
        done += (size_t)written;
    }
    return (ssize_t)done;
}

static int os_truncate(int fd, off_t size)
{
    int result;
    do {
        result = ftruncate(fd, size);
    } while (result != 0 && errno == EINTR);
    return result;
}

static int os_memory_file(const char *name)
{
    return (int)syscall(SYS_memfd_create, name, MEMORY_FILE_CLOSE_ON_EXEC);
}

static int os_duplicate(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static int identify_at(int directory, const char *name, struct file_identity *identity)
{
    struct kernel_statx status = {0};
    unsigned mask = STATX_WANTED_BASIC | STATX_WANTED_BIRTH | STATX_WANTED_MOUNT_ID_UNIQUE;
    if (syscall(SYS_statx, directory, name, AT_EMPTY_PATH, mask, &status) != 0) return -1;

    uint64_t birth_ns = (uint64_t)status.birth.seconds * 1000000000U + status.birth.nanoseconds;
    *identity = (struct file_identity){
        .device = makedev(status.device_major, status.device_minor),
        .inode = status.inode,
        .birth_ns = status.mask & STATX_WANTED_BIRTH ? birth_ns : 0,
        .mount_id = status.mask & STATX_WANTED_MOUNT_ID_UNIQUE ? status.mount_id : 0,
        .size = status.size,
        .links = status.links,
        .mode = status.mode,
        .uid = status.uid,
        .gid = status.gid,
    };
    return 0;
}

static int os_identify(int fd, struct file_identity *identity)
{
    return identify_at(fd, "", identity);
}

static int os_file_system(int fd, uint64_t *magic)
{
    struct statfs status;
    if (fstatfs(fd, &status) != 0) return -1;
    *magic = (uint32_t)status.f_type;
    return 0;
}

static int os_reserve(int fd, off_t offset, off_t size)
{
    int result;
    do {
        result = fallocate(fd, 0, offset, size);
    } while (result != 0 && errno == EINTR);
    return result;
}

static int os_file_size_limit(uint64_t *bytes)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0) return -1;
    *bytes = limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)limit.rlim_cur;
    return 0;
}

/* All of a small file that the kernel makes up, and a 0 behind it; false if it can not be read. */
static bool read_text(const char *path, char *text, size_t room)
{
    int fd = os_open(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0) return false;
    ssize_t size = os_read_at(fd, text, room - 1, 0);
    close(fd);
    if (size < 0) return false;
    text[size] = '\0';
    return true;
}

/* Lowers *bytes to the least that a control group or one above it may use. In a container the group's own path may not be
 * mounted; what is mounted in its place is met on the way up. */
static void apply_group_limits(const char *root, const char *file, const char *group, uint64_t *bytes)
{
    char path[512], text[32];
    for (int length = (int)strlen(group);; --length) {
        if (length != 0 && group[length] != '/' && group[length] != '\0') continue;
        int size = snprintf(path, sizeof path, "%s%.*s/%s", root, length, group, file);
        if (size < (int)sizeof path && read_text(path, text, sizeof text) && text[0] >= '0' && text[0] <= '9') {
            uint64_t limit = strtoull(text, NULL, 10);
            if (limit < *bytes) *bytes = limit;
        }
        if (length == 0) return;
    }
}

static int os_memory_size(uint64_t *bytes)
{
    struct sysinfo machine;
    if (sysinfo(&machine) != 0) return -1;
    *bytes = (uint64_t)machine.totalram * machine.mem_unit;

    // Lines of "0::GROUP" (version 2) and "NUMBER:CONTROLLERS:GROUP" (version 1).
    char text[4096], *rest = text;
    if (!read_text("/proc/self/cgroup", text, sizeof text)) return 0;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        (void)strsep(&line, ":");
        const char *controllers = strsep(&line, ":");
        if (line == NULL) continue;
        if (controllers[0] == '\0') apply_group_limits("/sys/fs/cgroup", "memory.max", line, bytes);
        if (strcmp(controllers, "memory") == 0) {
            apply_group_limits("/sys/fs/cgroup/memory", "memory.limit_in_bytes", line, bytes);
        }
    }
    return 0;
}

static int os_sync_map(void *base, size_t size)
{
    return msync(base, size, MS_SYNC);
}

static int os_start_write_back(int fd, off_t offset, off_t size)
{
    return sync_file_range(fd, offset, size, SYNC_FILE_RANGE_WRITE);
}

static int os_rename_new(int directory, const char *from, const char *to)
{
    int result = (int)syscall(SYS_renameat2, directory, from, directory, to, RENAME_NOREPLACE);
    if (result == 0 || (errno != EINVAL && errno != ENOSYS)) return result;
    // File systems without it have links. Killed between the two, both names stay, and no writer opens the map.
    result = linkat(directory, from, directory, to, 0);
    return result == 0 ? unlinkat(directory, from, 0) : result;
}

static int os_rename(int directory, const char *from, const char *to)
{
    return renameat(directory, from, directory, to);
}

static int os_exchange(int directory, const char *a, const char *b)
{
    return (int)syscall(SYS_renameat2, directory, a, directory, b, RENAME_EXCHANGE);
}

static int os_unlink(int directory, const char *name, bool is_directory)
{
    return unlinkat(directory, name, is_directory ? AT_REMOVEDIR : 0);
}

static int os_list(int directory, void (*found)(void *context, const char *name), void *context)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    DIR *listing = fdopendir(fd);
    if (listing == NULL) {
        close(fd);
        return -1;
    }
    errno = 0;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL; errno = 0) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) found(context, entry->d_name);
    }
    int number = errno;
    closedir(listing);
    errno = number;
    return number == 0 ? 0 : -1;
}

static int os_set_no_copy_on_write(int fd)
{
    int flags = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return -1;
    flags |= FS_NOCOW_FL;
    return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

/* Open-file-description locks: they belong to the descriptor, not the process, so two copies of this
 * library do not disturb each other, and the kernel frees them when the last copy of the descriptor is closed. */
static int os_lock(int fd, int command, short type, off_t at, off_t size, short *type_found)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = size};
    int result;
    do {
        result = fcntl(fd, command, &lock);
    } while (result != 0 && errno == EINTR);
    if (result == 0 && type_found != NULL) *type_found = lock.l_type;
    return result;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

static int os_boot_id(uint64_t id[2])
{
    char text[64];
    if (!read_text("/proc/sys/kernel/random/boot_id", text, sizeof text)) return -1;

    int digits = 0;
    id[0] = id[1] = 0;
    for (const char *at = text; *at != '\0' && digits < 32; ++at) {
        int digit = hex_digit(*at);
        if (digit < 0) continue;
        id[digits / 16] = id[digits / 16] << 4 | (uint64_t)digit;
        ++digits;
    }
    return digits == 32 ? 0 : -1;
}

static int os_random_bytes(void *buffer, size_t size)
{
    return syscall(SYS_getrandom, buffer, size, 0) == (ssize_t)size ? 0 : -1;
}

static uint64_t os_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* Not private: the waiters may be in other processes. */
static int os_futex_wait(void *word, uint32_t expected, uint64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000U),
                               .tv_nsec = (long)(timeout_ns % 1000000000U)};
    return (int)syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, NULL, 0);
}

static int os_futex_wake(void *word, int waiters)
{
    return (int)syscall(SYS_futex, word, FUTEX_WAKE, waiters, NULL, NULL, 0);
}

struct odm__os odm__os = {
    .open = os_open,
    .memory_file = os_memory_file,
    .duplicate = os_duplicate,
    .close = close,
    .identify = os_identify,
    .identify_name = identify_at,
    .file_system = os_file_system,
    .read_at = os_read_at,
    .write_at = os_write_at,
    .reserve = os_reserve,
    .truncate = os_truncate,
    .file_size_limit = os_file_size_limit,
    .memory_size = os_memory_size,
    .sync_data = fdatasync,
    .sync_directory = fsync,
    .sync_map = os_sync_map,
    .start_write_back = os_start_write_back,
    .map = mmap,
    .unmap = munmap,
    .advise = madvise,
    .resident = mincore,
    .make_directory = mkdirat,
    .rename_new = os_rename_new,
    .rename = os_rename,
    .exchange = os_exchange,
    .unlink = os_unlink,
    .list = os_list,
    .change_owner = fchown,
    .change_mode = fchmod,
    .set_no_copy_on_write = os_set_no_copy_on_write,
    .lock = os_lock,
    .boot_id = os_boot_id,
    .random_bytes = os_random_bytes,
    .now_ns = os_now_ns,
    .futex_wait = os_futex_wait,
    .futex_wake = os_futex_wake,
};
