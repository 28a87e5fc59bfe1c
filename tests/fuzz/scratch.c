/* scratch.c - a directory for the maps of a fuzz target. Contract: scratch.h. */
#include "scratch.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "image.h"
#include "os.h"
#include "ramdisk.h"

static enum { NOWHERE, ON_DISK, IN_MEMORY } place;
static char directory[256], map_path[300];

static void empty(const char *path)
{
    DIR *listing = opendir(path);
    if (listing == NULL) return;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (unlinkat(dirfd(listing), entry->d_name, 0) == 0) continue;
        char inner[600];
        snprintf(inner, sizeof inner, "%s/%.200s", path, entry->d_name);
        empty(inner);
        (void)rmdir(inner);
    }
    closedir(listing);
}

static void remove_directory(void)
{
    empty(directory);
    (void)rmdir(directory);
}

static int same_random_bytes(void *buffer, size_t size)
{
    memset(buffer, 0x5a, size);
    return 0;
}

/* A forged length must not fill the memory of the machine that looks for it: here the disk is small. */
enum { FILE_BYTES_MAX = 16 * 1024 * 1024 };

static int (*real_reserve)(int fd, off_t offset, off_t size);
static int (*real_truncate)(int fd, off_t size);

static int small_reserve(int fd, off_t offset, off_t size)
{
    if (offset + size <= FILE_BYTES_MAX) return real_reserve(fd, offset, size);
    errno = ENOSPC;
    return -1;
}

static int small_truncate(int fd, off_t size)
{
    if (size <= FILE_BYTES_MAX) return real_truncate(fd, size);
    errno = ENOSPC;
    return -1;
}

void scratch_choose(bool in_memory)
{
    if (place != NOWHERE) lies_end();
    if (place == IN_MEMORY) ramdisk_end();
    place = in_memory ? IN_MEMORY : ON_DISK;
    if (in_memory) {
        ramdisk_begin();
        strcpy(map_path, "/map");
    } else if (directory[0] == '\0') {
        struct stat status;
        const char *parent = stat("/dev/shm", &status) == 0 && S_ISDIR(status.st_mode) ? "/dev/shm" : "/tmp";
        snprintf(directory, sizeof directory, "%s/opendiskmap-fuzz.XXXXXX", parent);
        right(mkdtemp(directory) != NULL, "%s", directory);
        (void)atexit(remove_directory);
    }
    if (!in_memory) snprintf(map_path, sizeof map_path, "%s/map", directory);

    lies_begin();
    odm__os.random_bytes = same_random_bytes;
    if (in_memory) return;
    real_reserve = odm__os.reserve;
    odm__os.reserve = small_reserve;
    real_truncate = odm__os.truncate;
    odm__os.truncate = small_truncate;
}

void scratch_begin(void)
{
    if (place == NOWHERE) scratch_choose(getenv("ODM_TEST_REAL_FILES") == NULL);
    scratch_end();
}

void scratch_end(void)
{
    if (place == IN_MEMORY) {
        ramdisk_empty();
        return;
    }
    empty(map_path);
    (void)rmdir(map_path);
}

const char *scratch_map_path(void)
{
    return map_path;
}
