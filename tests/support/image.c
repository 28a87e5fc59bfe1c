/* image.c - a map's directory held in memory, and a kernel that lies about it. Contract: image.h. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static _Noreturn void fail(const char *what, const char *name)
{
    fprintf(stderr, "a test can not %s %s: %s\n", what, name, strerror(errno));
    abort();
}

/* What images are taken from and written to, whatever a test makes of the calls of the map. */
static struct odm__os kernel;

__attribute__((constructor)) void image_kernel_changed(void)
{
    kernel = odm__os;
}

/* The table before the lies. */
static struct odm__os truth;
static bool lying;

/* ---- images ------------------------------------------------------------------------------------------------------- */

struct taking {
    struct image *image;
    int directory;
    const char *prefix;
};

static void take_directory(struct image *image, int directory, const char *prefix);

static void take_file(void *context, const char *name)
{
    const struct taking *taking = context;
    struct image *image = taking->image;
    if (name[0] == '.') return;
    struct file_identity identity;
    int fd = kernel.open(taking->directory, name, O_RDONLY, 0);
    if (fd < 0 || kernel.identify(fd, &identity) != 0) fail("open", name);
    if (S_ISDIR(identity.mode)) {
        char inner[64];
        snprintf(inner, sizeof inner, "%.50s/", name);
        take_directory(image, fd, inner);
    } else {
        image->files = realloc(image->files, (image->count + 1) * sizeof *image->files);
        if (image->files == NULL) fail("hold", name);
        struct image_file *file = &image->files[image->count++];
        *file = (struct image_file){.size = identity.size, .identity = identity, .bytes = malloc(identity.size + 1)};
        snprintf(file->name, sizeof file->name, "%.12s%.50s", taking->prefix, name);
        if (file->bytes == NULL) fail("hold", name);
        if (kernel.read_at(fd, file->bytes, file->size, 0) != (ssize_t)file->size) fail("read", name);
    }
    kernel.close(fd);
}

static void take_directory(struct image *image, int directory, const char *prefix)
{
    struct taking taking = {image, directory, prefix};
    if (kernel.list(directory, take_file, &taking) != 0) fail("list", prefix);
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const struct image_file *)a)->name, ((const struct image_file *)b)->name);
}

struct image image_take(const char *path)
{
    struct image image = {.files = NULL};
    int fd = kernel.open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 || kernel.identify(fd, &image.identity) != 0) fail("look at", path);
    take_directory(&image, fd, "");
    kernel.close(fd);
    if (image.count != 0) qsort(image.files, image.count, sizeof *image.files, compare_files);
    return image;
}

void image_free(struct image *image)
{
    for (size_t i = 0; i < image->count; ++i) free(image->files[i].bytes);
    free(image->files);
    *image = (struct image){.files = NULL};
}

struct image_file *image_find(const struct image *image, const char *name)
{
    for (size_t i = 0; i < image->count; ++i) {
        if (strcmp(image->files[i].name, name) == 0) return &image->files[i];
    }
    return NULL;
}

void image_drop(struct image *image, const char *name)
{
    struct image_file *file = image_find(image, name);
    if (file == NULL) return;
    free(file->bytes);
    memmove(file, file + 1, (size_t)(image->files + image->count - (file + 1)) * sizeof *file);
    --image->count;
}

void image_resize(struct image_file *file, uint64_t size)
{
    file->bytes = realloc(file->bytes, size + 1);
    if (file->bytes == NULL) fail("hold", file->name);
    if (size > file->size) memset(file->bytes + file->size, 0, size - file->size);
    file->size = size;
}

void image_write(const struct image *image, const char *path)
{
    if (kernel.make_directory(AT_FDCWD, path, 0755) != 0 && errno != EEXIST) fail("make", path);
    int directory = kernel.open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (directory < 0) fail("open", path);
    if (kernel.make_directory(directory, "log", 0755) != 0 && errno != EEXIST) fail("make", "log");
    for (size_t i = 0; i < image->count; ++i) {
        const struct image_file *file = &image->files[i];
        int fd = kernel.open(directory, file->name, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0) fail("make", file->name);
        if (kernel.write_at(fd, file->bytes, file->size, 0) != (ssize_t)file->size) fail("write", file->name);
        kernel.close(fd);
    }
    kernel.close(directory);
}

const char *image_difference(const struct image *image, const char *path)
{
    static char text[256];
    struct image now = image_take(path);
    text[0] = '\0';
    for (size_t i = 0; i < image->count && text[0] == '\0'; ++i) {
        const struct image_file *was = &image->files[i];
        const struct image_file *is = image_find(&now, was->name);
        if (is == NULL) {
            snprintf(text, sizeof text, "%s is gone", was->name);
        } else if (is->size != was->size) {
            snprintf(text, sizeof text, "%s has another size", was->name);
        } else if (memcmp(is->bytes, was->bytes, is->size) != 0) {
            snprintf(text, sizeof text, "%s has other bytes", was->name);
        } else if (is->identity.inode != was->identity.inode) {
            snprintf(text, sizeof text, "%s is another file", was->name);
        }
    }
    for (size_t i = 0; i < now.count && text[0] == '\0'; ++i) {
        if (image_find(image, now.files[i].name) == NULL) snprintf(text, sizeof text, "%s is new", now.files[i].name);
    }
    image_free(&now);
    return text[0] == '\0' ? NULL : text;
}

/* ---- lies --------------------------------------------------------------------------------------------------------- */

static uint64_t boot_told, mount_told;

enum { DISGUISES_MAX = 3 };
static struct disguise {
    uint64_t inode, birth_ns; // the file that passes
    struct file_identity as;
} disguises[DISGUISES_MAX];
static size_t disguise_count;

/* What this kernel can not tell is made up, so that the tests see the same everywhere. */
static int told_identity(int fd, struct file_identity *identity)
{
    if (truth.identify(fd, identity) != 0) return -1;
    uint64_t birth_ns = identity->birth_ns;
    for (size_t i = 0; i < disguise_count; ++i) {
        if (disguises[i].inode != identity->inode || disguises[i].birth_ns != birth_ns) continue;
        identity->device = disguises[i].as.device;
        identity->inode = disguises[i].as.inode;
        identity->birth_ns = disguises[i].as.birth_ns;
    }
    if (identity->birth_ns == 0) identity->birth_ns = identity->inode + 1;
    identity->mount_id = 1000 + mount_told;
    return 0;
}

static int told_boot(uint64_t id[2])
{
    id[0] = id[1] = 1000000 + boot_told;
    return 0;
}

static int no_sync(int fd)
{
    (void)fd;
    return 0;
}

static int no_sync_map(void *base, size_t size)
{
    (void)base;
    (void)size;
    return 0;
}

static int no_write_back(int fd, off_t offset, off_t size)
{
    (void)fd;
    (void)offset;
    (void)size;
    return 0;
}

void lies_begin(void)
{
    if (lying) return;
    truth = odm__os;
    lying = true;
    boot_told = mount_told = 0;
    disguise_count = 0;
    odm__os.identify = told_identity;
    odm__os.boot_id = told_boot;
}

void lies_end(void)
{
    if (lying) odm__os = truth;
    lying = false;
}

void lie_about_boot(uint64_t boot)
{
    boot_told = boot;
}

void lie_about_mount(uint64_t mount)
{
    mount_told = mount;
}

void lie_about_syncs(void)
{
    odm__os.sync_data = odm__os.sync_directory = no_sync;
    odm__os.sync_map = no_sync_map;
    odm__os.start_write_back = no_write_back;
}

static void disguise(const char *path, const struct file_identity *as)
{
    struct file_identity identity;
    int fd = kernel.open(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0) return; // The image has no such file.
    if (kernel.identify(fd, &identity) != 0) fail("look at", path);
    kernel.close(fd);
    disguises[disguise_count++] = (struct disguise){identity.inode, identity.birth_ns, *as};
}

void lie_about_files(const struct image *image, const char *path)
{
    static const char *const names[] = {"index", "lock"};
    disguise_count = 0;
    disguise(path, &image->identity);
    for (size_t i = 0; i < 2; ++i) {
        const struct image_file *file = image_find(image, names[i]);
        char file_path[1024];
        snprintf(file_path, sizeof file_path, "%s/%s", path, names[i]);
        if (file != NULL) disguise(file_path, &file->identity);
    }
    for (size_t i = 0; i < disguise_count; ++i) {
        if (disguises[i].as.birth_ns == 0) disguises[i].as.birth_ns = disguises[i].as.inode + 1;
    }
}

/* ---- dying in the midst ------------------------------------------------------------------------------------------- */

static struct odm__os alive;
static size_t calls, last_call;

static void count_call(void)
{
    if (++calls == last_call) kill(getpid(), SIGKILL);
}

#define COUNTED(result, name, parameters, arguments) \
    static result counted_##name parameters          \
    {                                                \
        count_call();                                \
        return alive.name arguments;                 \
    }
COUNTED(int, open, (int directory, const char *name, int flags, mode_t mode), (directory, name, flags, mode))
COUNTED(int, close, (int fd), (fd))
COUNTED(ssize_t, read_at, (int fd, void *buffer, size_t size, off_t offset), (fd, buffer, size, offset))
COUNTED(ssize_t, write_at, (int fd, const void *buffer, size_t size, off_t offset), (fd, buffer, size, offset))
COUNTED(int, reserve, (int fd, off_t offset, off_t size), (fd, offset, size))
COUNTED(int, truncate, (int fd, off_t size), (fd, size))
COUNTED(int, sync_data, (int fd), (fd))
COUNTED(int, sync_directory, (int fd), (fd))
COUNTED(int, sync_map, (void *base, size_t size), (base, size))
COUNTED(void *, map, (void *at, size_t size, int protection, int flags, int fd, off_t offset),
        (at, size, protection, flags, fd, offset))
COUNTED(int, unmap, (void *base, size_t size), (base, size))
COUNTED(int, make_directory, (int directory, const char *name, mode_t mode), (directory, name, mode))
COUNTED(int, rename_new, (int directory, const char *from, const char *to), (directory, from, to))
COUNTED(int, rename, (int directory, const char *from, const char *to), (directory, from, to))
COUNTED(int, unlink, (int directory, const char *name, bool is_directory), (directory, name, is_directory))
COUNTED(int, lock, (int fd, int command, short type, off_t at, off_t size, short *type_found),
        (fd, command, type, at, size, type_found))
COUNTED(int, identify, (int fd, struct file_identity *identity), (fd, identity))

void die_before_call(size_t n)
{
    alive = odm__os;
    calls = 0;
    last_call = n;
    odm__os.open = counted_open;
    odm__os.close = counted_close;
    odm__os.read_at = counted_read_at;
    odm__os.write_at = counted_write_at;
    odm__os.reserve = counted_reserve;
    odm__os.truncate = counted_truncate;
    odm__os.sync_data = counted_sync_data;
    odm__os.sync_directory = counted_sync_directory;
    odm__os.sync_map = counted_sync_map;
    odm__os.map = counted_map;
    odm__os.unmap = counted_unmap;
    odm__os.make_directory = counted_make_directory;
    odm__os.rename_new = counted_rename_new;
    odm__os.rename = counted_rename;
    odm__os.unlink = counted_unlink;
    odm__os.lock = counted_lock;
    odm__os.identify = counted_identify;
}

size_t calls_so_far(void)
{
    return calls;
}
