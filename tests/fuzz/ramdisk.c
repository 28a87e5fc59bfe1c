/* ramdisk.c - files, mappings, locks and time in the memory of this process. Contract: ramdisk.h. */
#include "ramdisk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "image.h"
#include "lock.h"
#include "os.h"

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESSES_ARE_CHECKED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESSES_ARE_CHECKED
#endif
#endif
#ifdef ADDRESSES_ARE_CHECKED
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(base, size) ((void)(base), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(base, size) ((void)(base), (void)(size))
#endif

#define MIB (UINT64_C(1) << 20)
#define FILE_ROOM (16 * MIB)                   // then the disk is full
#define FILE_STRIDE (FILE_ROOM + 32 * MIB)     // with what may be read behind a segment
#define UNREADABLE_BYTES (64 * UINT64_C(1024)) // poisoned behind what may be read
#define ADDRESSES_FIRST (UINT64_C(1) << 46)    // of reservations, which nobody reads before a file is mapped there
enum { NODES_MAX = 256, OPENS_MAX = 256, FDS_MAX = 512, LOCKS_MAX = 64, RESERVATIONS_MAX = 16, TABLES_MAX = 64 };
enum { FD_FIRST = 1 << 20, ROOT = 0, NAME_SIZE = 40, PAGE_SIZE = 4096, TABLE_USED_BYTES = 4 * PAGE_SIZE };

/* A file or a directory. A file's bytes lie at its place in the arena; what was never written there is zero. */
static struct node {
    bool used, is_directory, named;
    unsigned parent;
    char name[NAME_SIZE];
    size_t name_size;                // without the zero
    uint64_t number, size, readable; // readable: bytes from its base on that a mapping allows to read
    uint64_t touched;                // bytes that may not be zero
    unsigned opens, mappings;
} nodes[NODES_MAX];

/* An open file description, which locks belong to. */
static struct description {
    unsigned node, fds;
} descriptions[OPENS_MAX];

static struct lock {
    unsigned description; // + 1; 0: none
    short type;
    off_t at, size;
} locks[LOCKS_MAX];

static struct reservation {
    uint64_t at, size;
} reservations[RESERVATIONS_MAX];

/* Memory that belongs to no file. It is kept when it is unmapped, for the next who asks for as much. */
static struct table {
    unsigned char *base;
    size_t size;
    bool mapped;
} tables[TABLES_MAX];

static unsigned fds[FDS_MAX]; // description + 1; 0: closed
static unsigned nodes_end, fds_end, locks_end, reservations_made;
static uint64_t numbers, addresses = ADDRESSES_FIRST, time_ns;
static unsigned char *arena;
static struct odm__os real;
static int real_spins;

static int fail_with(int number)
{
    errno = number;
    return -1;
}

static unsigned char *base_of(const struct node *node)
{
    return arena + (uint64_t)(node - nodes) * FILE_STRIDE;
}

/* What lies behind the last page, or behind the guard that was asked for, can not be read. */
static void set_readable(struct node *node)
{
    uint64_t end = (node->size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
    if (node->mappings != 0 && node->readable > end) end = node->readable;
    ASAN_UNPOISON_MEMORY_REGION(base_of(node), end);
    ASAN_POISON_MEMORY_REGION(base_of(node) + end, UNREADABLE_BYTES);
}

/* A file that has neither a name nor a user goes. */
static void free_unused(struct node *node)
{
    if (node->named || node->opens != 0 || node->mappings != 0) return;
    ASAN_UNPOISON_MEMORY_REGION(base_of(node), node->touched);
    if (node->touched > MIB) {
        (void)madvise(base_of(node), node->touched, MADV_DONTNEED);
    } else {
        memset(base_of(node), 0, node->touched);
    }
    node->used = false;
}

static struct node *make_node(bool is_directory)
{
    unsigned i = 1;
    while (i < NODES_MAX && nodes[i].used) ++i;
    right(i < NODES_MAX, "more than %d files", NODES_MAX);
    if (i >= nodes_end) nodes_end = i + 1;
    nodes[i] = (struct node){.used = true, .is_directory = is_directory, .number = ++numbers};
    return &nodes[i];
}

static struct node *find(unsigned parent, const char *name, size_t size)
{
    for (unsigned i = 1; i < nodes_end; ++i) {
        struct node *node = &nodes[i];
        if (node->used && node->named && node->parent == parent && node->name_size == size &&
            memcmp(node->name, name, size) == 0)
            return node;
    }
    return NULL;
}

static struct description *description_of(int fd)
{
    int i = fd - FD_FIRST;
    return i >= 0 && i < FDS_MAX && fds[i] != 0 ? &descriptions[fds[i] - 1] : NULL;
}

static struct node *node_of(int fd)
{
    struct description *description = description_of(fd);
    errno = EBADF;
    return description == NULL ? NULL : &nodes[description->node];
}

/* Follows a path up to its last name. False: a directory on the way is missing. */
static bool follow(int directory, const char *path, unsigned *parent, const char **last)
{
    struct node *from = directory == AT_FDCWD ? &nodes[ROOT] : node_of(directory);
    if (from == NULL) return false;
    while (*path == '/') ++path;
    for (const char *slash; (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        from = find((unsigned)(from - nodes), path, (size_t)(slash - path));
        errno = ENOENT;
        if (from == NULL) return false;
    }
    *parent = (unsigned)(from - nodes);
    *last = path;
    return true;
}

static struct node *look_up(int directory, const char *path)
{
    unsigned parent;
    const char *last;
    if (!follow(directory, path, &parent, &last)) return NULL;
    if (last[0] == '\0' || strcmp(last, ".") == 0) return &nodes[parent];
    if (strcmp(last, "..") == 0) return &nodes[nodes[parent].parent];
    struct node *node = find(parent, last, strlen(last));
    errno = ENOENT;
    return node;
}

static void set_name(struct node *node, unsigned parent, const char *name)
{
    node->name_size = strlen(name);
    right(node->name_size < NAME_SIZE, "%s", name);
    memcpy(node->name, name, node->name_size + 1);
    node->parent = parent;
    node->named = true;
}

static int make_fd(unsigned description)
{
    unsigned i = 0;
    while (i < FDS_MAX && fds[i] != 0) ++i;
    right(i < FDS_MAX, "more than %d descriptors", FDS_MAX);
    if (i >= fds_end) fds_end = i + 1;
    fds[i] = description + 1;
    ++descriptions[description].fds;
    return FD_FIRST + (int)i;
}

static int open_node(struct node *node)
{
    unsigned i = 0;
    while (i < OPENS_MAX && descriptions[i].fds != 0) ++i;
    right(i < OPENS_MAX, "more than %d open files", OPENS_MAX);
    descriptions[i].node = (unsigned)(node - nodes);
    ++node->opens;
    return make_fd(i);
}

/* ---- files ---------------------------------------------------------------------------------------------------------- */

static int ram_open(int directory, const char *name, int flags, mode_t mode)
{
    (void)mode;
    struct node *node = look_up(directory, name);
    if (node == NULL && errno == ENOENT && (flags & O_CREAT) != 0) {
        unsigned parent;
        const char *last;
        if (!follow(directory, name, &parent, &last)) return -1;
        node = make_node(false);
        set_name(node, parent, last);
        set_readable(node);
        return open_node(node);
    }
    if (node == NULL) return -1;
    if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) return fail_with(EEXIST);
    if ((flags & O_DIRECTORY) == O_DIRECTORY && !node->is_directory) return fail_with(ENOTDIR);
    if (node->is_directory && (flags & O_ACCMODE) != O_RDONLY) return fail_with(EISDIR);
    return open_node(node);
}

static int ram_memory_file(const char *name)
{
    (void)name;
    return open_node(make_node(false));
}

static int ram_duplicate(int fd)
{
    struct description *description = description_of(fd);
    return description == NULL ? fail_with(EBADF) : make_fd((unsigned)(description - descriptions));
}

static int ram_close(int fd)
{
    struct description *description = description_of(fd);
    if (description == NULL) return fail_with(EBADF);
    fds[fd - FD_FIRST] = 0;
    if (--description->fds != 0) return 0;
    for (unsigned i = 0; i < locks_end; ++i) {
        if (locks[i].description == description - descriptions + 1) locks[i].description = 0;
    }
    --nodes[description->node].opens;
    free_unused(&nodes[description->node]);
    return 0;
}

static void identity_of(const struct node *node, struct file_identity *identity)
{
    *identity = (struct file_identity){.device = 1,
                                       .inode = 1000 + node->number,
                                       .birth_ns = 1000000 + node->number,
                                       .mount_id = 1,
                                       .size = node->size,
                                       .links = node->named,
                                       .mode = node->is_directory ? S_IFDIR | 0755 : S_IFREG | 0644};
}

static int ram_identify(int fd, struct file_identity *identity)
{
    struct node *node = node_of(fd);
    if (node == NULL) return -1;
    identity_of(node, identity);
    return 0;
}

static int ram_identify_name(int directory, const char *name, struct file_identity *identity)
{
    struct node *node = look_up(directory, name);
    if (node == NULL) return -1;
    identity_of(node, identity);
    return 0;
}

static int ram_file_system(int fd, uint64_t *magic)
{
    *magic = 0xEF53; // ext4
    return node_of(fd) == NULL ? -1 : 0;
}

static ssize_t ram_read_at(int fd, void *buffer, size_t size, off_t offset)
{
    struct node *node = node_of(fd);
    if (node == NULL) return -1;
    uint64_t at = (uint64_t)offset;
    if (at >= node->size) return 0;
    if (size > node->size - at) size = node->size - at;
    memcpy(buffer, base_of(node) + at, size);
    return (ssize_t)size;
}

/* Bytes up to here may be zero no more. */
static void touch(struct node *node, uint64_t end)
{
    if (end > node->touched) node->touched = end;
}

static int set_size(struct node *node, uint64_t size)
{
    if (size > FILE_ROOM) return fail_with(ENOSPC);
    ASAN_UNPOISON_MEMORY_REGION(base_of(node), size < node->size ? node->size : size);
    // What is cut off is zero if the file becomes longer again.
    if (size < node->touched) {
        memset(base_of(node) + size, 0, node->touched - size);
        node->touched = size;
    }
    node->size = size;
    if (node->mappings != 0) touch(node, size);
    set_readable(node);
    return 0;
}

static bool is_zero(const unsigned char *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static ssize_t ram_write_at(int fd, const void *buffer, size_t size, off_t offset)
{
    struct node *node = node_of(fd);
    if (node == NULL) return -1;
    uint64_t end = (uint64_t)offset + size;
    if (end > node->size && set_size(node, end) != 0) return -1;
    // A new file's blocks are written once with zeros: no need to have memory for them.
    if ((uint64_t)offset >= node->touched && is_zero(buffer, size)) return (ssize_t)size;
    memcpy(base_of(node) + offset, buffer, size);
    touch(node, end);
    return (ssize_t)size;
}

static int ram_reserve(int fd, off_t offset, off_t size)
{
    struct node *node = node_of(fd);
    if (node == NULL) return -1;
    uint64_t end = (uint64_t)(offset + size);
    return end > node->size ? set_size(node, end) : 0;
}

static int ram_truncate(int fd, off_t size)
{
    struct node *node = node_of(fd);
    return node == NULL ? -1 : set_size(node, (uint64_t)size);
}

static int ram_file_size_limit(uint64_t *bytes)
{
    *bytes = UINT64_MAX;
    return 0;
}

static int ram_memory_size(uint64_t *bytes)
{
    *bytes = MIB; // little, so that maps that memory can not hold are met as well
    return 0;
}

/* ---- mappings ------------------------------------------------------------------------------------------------------- */

static void *map_file(uint64_t reserved, size_t size, int fd)
{
    struct node *node = node_of(fd);
    if (node == NULL) return MAP_FAILED;
    uint64_t whole = size;
    for (unsigned i = 0; i < RESERVATIONS_MAX; ++i) {
        const struct reservation *reservation = &reservations[i];
        if (reserved - reservation->at < reservation->size) whole = reservation->at + reservation->size - reserved;
    }
    // The reservation begins at a multiple of 2 MiB and was 2 MiB longer; what a mapping is longer than its file is not for reading.
    uint64_t guard = whole - size > 2 * MIB ? whole - size - 2 * MIB : 0;
    if (guard != 0 && size + guard > node->readable) node->readable = size + guard;
    right(node->readable <= FILE_STRIDE - UNREADABLE_BYTES, "a guard of %llu bytes", (unsigned long long)guard);
    ++node->mappings;
    touch(node, node->size);
    set_readable(node);
    return base_of(node);
}

static void *map_table(size_t size)
{
    struct table *table = tables;
    while (table->mapped || (table->size != size && table->base != NULL)) {
        ++table;
        right(table < tables + TABLES_MAX, "more than %d tables", TABLES_MAX);
    }
    if (table->base == NULL) {
        void *base = real.map(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) return base;
        *table = (struct table){.base = base, .size = size};
    }
    table->mapped = true;
    ASAN_UNPOISON_MEMORY_REGION(table->base, size);
    return table->base;
}

/* Most of it was never stored to, so that the kernel has little to take back. */
static int unmap_table(void *base, size_t size)
{
    struct table *table = tables;
    while (table->base != base || !table->mapped) {
        ++table;
        right(table < tables + TABLES_MAX && table->base != NULL, "unmapped what was not mapped");
    }
    right(table->size == size, "unmapped a part of a table");
    size_t used = size < TABLE_USED_BYTES ? size : TABLE_USED_BYTES;
    memset(table->base, 0, used);
    if (size > used) (void)madvise(table->base + used, size - used, MADV_DONTNEED);
    ASAN_POISON_MEMORY_REGION(table->base, size);
    table->mapped = false;
    return 0;
}

/* An address space that is reserved for a file is only a number: the file lies where it lies. */
static void *ram_map(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    right(offset == 0, "a mapping from %lld on", (long long)offset);
    if ((flags & MAP_ANONYMOUS) == 0) return map_file((uint64_t)(uintptr_t)at, size, fd);
    if (protection != PROT_READ) return map_table(size);
    uint64_t begin = addresses;
    addresses += (size + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    right(addresses < (uint64_t)(uintptr_t)arena, "no addresses are left");
    reservations[reservations_made++ % RESERVATIONS_MAX] = (struct reservation){begin, size};
    return (void *)(uintptr_t)begin;
}

static int ram_unmap(void *base, size_t size)
{
    uint64_t at = (uint64_t)(uintptr_t)base;
    if (at >= ADDRESSES_FIRST && at < addresses) return 0;
    if ((unsigned char *)base < arena || (unsigned char *)base >= arena + NODES_MAX * FILE_STRIDE)
        return unmap_table(base, size);
    uint64_t offset = (uint64_t)((unsigned char *)base - arena);
    struct node *node = &nodes[offset / FILE_STRIDE];
    right(offset % FILE_STRIDE == 0 && node->used && node->mappings != 0, "unmapped what was not mapped");
    --node->mappings;
    free_unused(node);
    return 0;
}

static int ram_advise(void *base, size_t size, int advice)
{
    (void)base;
    (void)size;
    (void)advice;
    return 0;
}

static int ram_resident(void *base, size_t size, unsigned char *pages)
{
    (void)base;
    memset(pages, 1, (size + PAGE_SIZE - 1) / PAGE_SIZE);
    return 0;
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

static int ram_make_directory(int directory, const char *name, mode_t mode)
{
    (void)mode;
    unsigned parent;
    const char *last;
    if (look_up(directory, name) != NULL) return fail_with(EEXIST);
    if (!follow(directory, name, &parent, &last)) return -1;
    set_name(make_node(true), parent, last);
    return 0;
}

static int ram_unlink(int directory, const char *name, bool is_directory)
{
    struct node *node = look_up(directory, name);
    if (node == NULL) return -1;
    if (node->is_directory != is_directory) return fail_with(is_directory ? ENOTDIR : EISDIR);
    for (unsigned i = 1; is_directory && i < nodes_end; ++i) {
        if (nodes[i].used && nodes[i].named && &nodes[nodes[i].parent] == node) return fail_with(ENOTEMPTY);
    }
    node->named = false;
    free_unused(node);
    return 0;
}

static int ram_rename(int directory, const char *from, const char *to)
{
    struct node *node = look_up(directory, from), *old = look_up(directory, to);
    unsigned parent;
    const char *last;
    if (node == NULL) return fail_with(ENOENT);
    if (!follow(directory, to, &parent, &last)) return -1;
    if (node == old) return 0;
    if (old != NULL && ram_unlink(directory, to, old->is_directory) != 0) return -1;
    set_name(node, parent, last);
    return 0;
}

static int ram_rename_new(int directory, const char *from, const char *to)
{
    return look_up(directory, to) != NULL ? fail_with(EEXIST) : ram_rename(directory, from, to);
}

static int ram_exchange(int directory, const char *a, const char *b)
{
    struct node *x = look_up(directory, a), *y = look_up(directory, b);
    if (x == NULL || y == NULL) return fail_with(ENOENT);
    struct node was = *x;
    set_name(x, y->parent, y->name);
    set_name(y, was.parent, was.name);
    return 0;
}

static int ram_list(int directory, void (*found)(void *context, const char *name), void *context)
{
    struct node *listed = node_of(directory);
    if (listed == NULL) return -1;
    for (unsigned i = 1; i < nodes_end; ++i) {
        if (!nodes[i].used || !nodes[i].named || &nodes[nodes[i].parent] != listed) continue;
        char name[NAME_SIZE];
        memcpy(name, nodes[i].name, sizeof name); // `found` may take it away.
        found(context, name);
    }
    return 0;
}

static int ram_change_owner(int fd, uid_t uid, gid_t gid)
{
    (void)uid;
    (void)gid;
    return node_of(fd) == NULL ? -1 : 0;
}

static int ram_change_mode(int fd, mode_t mode)
{
    (void)mode;
    return node_of(fd) == NULL ? -1 : 0;
}

static int ram_set_no_copy_on_write(int fd)
{
    (void)fd;
    return fail_with(EOPNOTSUPP);
}

/* ---- locks, time ------------------------------------------------------------------------------------------------------ */

static struct lock *conflict(unsigned description, short type, off_t at, off_t size)
{
    for (unsigned i = 0; i < locks_end; ++i) {
        struct lock *lock = &locks[i];
        if (lock->description == 0 || lock->description == description + 1) continue;
        if (descriptions[lock->description - 1].node != descriptions[description].node) continue;
        bool overlap = lock->at < at + size && at < lock->at + lock->size;
        if (overlap && (type == F_WRLCK || lock->type == F_WRLCK)) return lock;
    }
    return NULL;
}

/* Ranges are those of earlier locks, whole: the engine never asks for parts. */
static int ram_lock(int fd, int command, short type, off_t at, off_t size, short *type_found)
{
    struct description *found = description_of(fd);
    if (found == NULL) return fail_with(EBADF);
    unsigned description = (unsigned)(found - descriptions);
    struct lock *other = type == F_UNLCK ? NULL : conflict(description, type, at, size);
    if (command == F_OFD_GETLK) {
        *type_found = other == NULL ? F_UNLCK : other->type;
        return 0;
    }
    right(other == NULL || command != F_OFD_SETLKW, "waits for a lock of its own process");
    if (other != NULL) return fail_with(EAGAIN);
    struct lock *place = NULL;
    for (unsigned i = 0; i < LOCKS_MAX && i <= locks_end; ++i) {
        if (locks[i].description == description + 1 && locks[i].at == at && locks[i].size == size) place = &locks[i];
        if (locks[i].description == 0 && place == NULL) place = &locks[i];
    }
    right(place != NULL, "more than %d locks", LOCKS_MAX);
    if (type == F_UNLCK && place->description == 0) return 0;
    if (place >= locks + locks_end) locks_end = (unsigned)(place - locks) + 1;
    *place = (struct lock){type == F_UNLCK ? 0 : description + 1, type, at, size};
    return 0;
}

static uint64_t ram_now_ns(void)
{
    return time_ns += 1000;
}

static int ram_futex_wait(void *word, uint32_t expected, uint64_t timeout_ns)
{
    uint32_t value;
    memcpy(&value, word, sizeof value);
    if (value != expected) return fail_with(EAGAIN);
    time_ns += timeout_ns;
    return fail_with(ETIMEDOUT);
}

static int ram_futex_wake(void *word, int waiters)
{
    (void)word;
    (void)waiters;
    return 0;
}

/* ---- begin, end --------------------------------------------------------------------------------------------------------- */

void ramdisk_begin(void)
{
    real_spins = odm__test_spins;
    odm__test_spins = 0; // There is nobody who could give a lock back meanwhile.
    if (arena == NULL) {
        arena = mmap(NULL, NODES_MAX * FILE_STRIDE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
        right(arena != MAP_FAILED, "no addresses for files");
        time_ns = 1000000000;
        nodes[ROOT] = (struct node){.used = true, .is_directory = true, .named = true};
        nodes_end = 1;
    }
    real = odm__os;
    odm__os.open = ram_open;
    odm__os.memory_file = ram_memory_file;
    odm__os.duplicate = ram_duplicate;
    odm__os.close = ram_close;
    odm__os.identify = ram_identify;
    odm__os.identify_name = ram_identify_name;
    odm__os.file_system = ram_file_system;
    odm__os.read_at = ram_read_at;
    odm__os.write_at = ram_write_at;
    odm__os.reserve = ram_reserve;
    odm__os.truncate = ram_truncate;
    odm__os.file_size_limit = ram_file_size_limit;
    odm__os.memory_size = ram_memory_size;
    odm__os.map = ram_map;
    odm__os.unmap = ram_unmap;
    odm__os.advise = ram_advise;
    odm__os.resident = ram_resident;
    odm__os.make_directory = ram_make_directory;
    odm__os.rename_new = ram_rename_new;
    odm__os.rename = ram_rename;
    odm__os.exchange = ram_exchange;
    odm__os.unlink = ram_unlink;
    odm__os.list = ram_list;
    odm__os.change_owner = ram_change_owner;
    odm__os.change_mode = ram_change_mode;
    odm__os.set_no_copy_on_write = ram_set_no_copy_on_write;
    odm__os.lock = ram_lock;
    odm__os.now_ns = ram_now_ns;
    odm__os.futex_wait = ram_futex_wait;
    odm__os.futex_wake = ram_futex_wake;
    image_kernel_changed();
}

void ramdisk_end(void)
{
    ramdisk_empty();
    odm__os = real;
    odm__test_spins = real_spins;
    image_kernel_changed();
}

void ramdisk_empty(void)
{
    for (unsigned i = 1; i < nodes_end; ++i) {
        if (!nodes[i].used) continue;
        right(nodes[i].opens == 0 && nodes[i].mappings == 0, "%s is left open or mapped", nodes[i].name);
        nodes[i].named = false;
        free_unused(&nodes[i]);
    }
    for (unsigned i = 0; i < fds_end; ++i) right(fds[i] == 0, "a descriptor is left open");
    for (unsigned i = 0; i < TABLES_MAX && tables[i].base != NULL; ++i)
        right(!tables[i].mapped, "a table is left mapped");
    addresses = ADDRESSES_FIRST; // Else they would come to those of the arena some day.
    memset(reservations, 0, sizeof reservations);
    nodes_end = 1;
    fds_end = locks_end = 0;
}
