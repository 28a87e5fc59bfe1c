#include "memory_limit.h"

#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where groups are made, and the file that takes the limit. */
static const struct hierarchy {
    const char *root, *limit_file;
} hierarchies[] = {
    {"/sys/fs/cgroup", "memory.max"},
    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
};

static const struct hierarchy *entered;
static char group[64];

/* Without O_CREAT: where nothing is mounted there is no such file, and that is how it is found out. */
static bool write_number(const char *directory, const char *file, uint64_t number)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool written = dprintf(fd, "%" PRIu64, number) > 0;
    return close(fd) == 0 && written;
}

bool memory_limit_enter(uint64_t bytes)
{
    for (size_t i = 0; i < sizeof hierarchies / sizeof *hierarchies; i++) {
        const struct hierarchy *hierarchy = &hierarchies[i];
        snprintf(group, sizeof group, "%s/odm_bench", hierarchy->root);
        if (mkdir(group, 0755) != 0 && errno != EEXIST) continue; // One that was killed has left it.
        if (write_number(group, hierarchy->limit_file, bytes) &&
            write_number(group, "cgroup.procs", (uint64_t)getpid())) {
            entered = hierarchy;
            return true;
        }
        rmdir(group);
    }
    return false;
}

void memory_limit_leave(void)
{
    if (!write_number(entered->root, "cgroup.procs", (uint64_t)getpid()) || rmdir(group) != 0) {
        fprintf(stderr, "%s could not be removed: %s\n", group, strerror(errno));
    }
}

static int evict_file(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)place;
    if (type != FTW_F) return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) {
        bench_die("%s: %s", path, strerror(errno));
    }
    close(fd);
    return 0;
}

void memory_limit_evict(const char *directory)
{
    if (nftw(directory, evict_file, 16, FTW_PHYS) != 0) bench_die("%s: %s", directory, strerror(errno));
}
