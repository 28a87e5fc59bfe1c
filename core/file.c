/* file.c - files of one directory, on disk or in memory. Contract: file.h. */
#include "file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "status.h"

enum { PAGE_BYTES = 4096 };

/* ---- directories in memory: names for memfds ---------------------------------------------------------------------- */

struct memory_file {
    struct memory_file *next;
    int fd;
    char name[32];
};

struct memory_directory {
    pthread_mutex_t mutex;
    struct memory_file *files;
};

/* The link that points at the file of that name, or at NULL. */
static struct memory_file **memory_find(struct memory_directory *memory, const char *name)
{
    struct memory_file **link = &memory->files;
    while (*link != NULL && strcmp((*link)->name, name) != 0) link = &(*link)->next;
    return link;
}

static int memory_open(struct memory_directory *memory, const char *name)
{
    pthread_mutex_lock(&memory->mutex);
    struct memory_file *file = *memory_find(memory, name);
    int fd = file == NULL ? -1 : odm__os.duplicate(file->fd);
    int number = file == NULL ? ENOENT : errno;
    pthread_mutex_unlock(&memory->mutex);
    errno = number;
    return fd;
}

static int memory_create(struct memory_directory *memory, const char *name)
{
    struct memory_file *file = calloc(1, sizeof *file);
    if (file == NULL) return -1;
    assert(strlen(name) < sizeof file->name);
    memcpy(file->name, name, strlen(name));
    file->fd = odm__os.memory_file(name);
    int fd = file->fd < 0 ? -1 : odm__os.duplicate(file->fd);
    if (fd < 0) {
        int number = errno;
        if (file->fd >= 0) odm__os.close(file->fd);
        free(file);
        errno = number;
        return -1;
    }
    pthread_mutex_lock(&memory->mutex);
    file->next = memory->files;
    memory->files = file;
    pthread_mutex_unlock(&memory->mutex);
    return fd;
}

static void memory_unlink(struct memory_directory *memory, const char *name)
{
    pthread_mutex_lock(&memory->mutex);
    struct memory_file **link = memory_find(memory, name);
    struct memory_file *file = *link;
    if (file != NULL) *link = file->next;
    pthread_mutex_unlock(&memory->mutex);
    if (file == NULL) return;
    odm__os.close(file->fd);
    free(file);
}

static void memory_rename(struct memory_directory *memory, const char *from, const char *to)
{
    memory_unlink(memory, to);
    pthread_mutex_lock(&memory->mutex);
    struct memory_file *file = *memory_find(memory, from);
    assert(file != NULL && strlen(to) < sizeof file->name);
    if (file != NULL) {
        memset(file->name, 0, sizeof file->name);
        memcpy(file->name, to, strlen(to));
    }
    pthread_mutex_unlock(&memory->mutex);
}

static void memory_free(struct memory_directory *memory)
{
    while (memory->files != NULL) {
        struct memory_file *file = memory->files;
        memory->files = file->next;
        odm__os.close(file->fd);
        free(file);
    }
    pthread_mutex_destroy(&memory->mutex);
    free(memory);
}

uint32_t odm__directory_mode(uint32_t file_mode)
{
    return file_mode | (file_mode & 0444) >> 2;
}

/* ---- directories -------------------------------------------------------------------------------------------------- */

static odm_status directory_adopt(struct directory *directory, int fd, odm_error *error)
{
    struct file_identity identity;
    if (odm__os.identify(fd, &identity) != 0) {
        odm_status status = odm__fail_os(error, "look at", directory->name);
        odm__os.close(fd);
        return status;
    }
    directory->fd = fd;
    directory->uid = identity.uid;
    directory->gid = identity.gid;
    directory->give_to_owner = geteuid() == 0 && (identity.uid != 0 || identity.gid != 0);
    return ODM_OK;
}

odm_status odm__directory_open(struct directory *directory, const char *path, odm_error *error)
{
    *directory = (struct directory){.fd = -1, .name = ""};
    int fd = odm__os.open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 && errno == ENOENT) return odm__fail(error, ODM_NOT_FOUND, "there is no map at %s", path);
    if (fd < 0 && errno == ENOTDIR) {
        return odm__fail(error, ODM_E_INVALID, "%s is not a directory: a map is a directory of its own", path);
    }
    if (fd < 0) return odm__fail_os(error, "open", path);
    return directory_adopt(directory, fd, error);
}

static odm_status memory_directory_open(struct directory *directory, odm_error *error)
{
    directory->memory = calloc(1, sizeof *directory->memory);
    if (directory->memory == NULL) return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    pthread_mutex_init(&directory->memory->mutex, NULL);
    return ODM_OK;
}

odm_status odm__directory_open_in(struct directory *directory, const struct directory *parent, const char *name,
                                  const char *shown_as, bool create, odm_error *error)
{
    *directory = (struct directory){.fd = -1, .name = shown_as, .mode = 0};
    if (parent == NULL || parent->memory != NULL) return memory_directory_open(directory, error);

    directory->mode = parent->mode;
    directory->any_file_system = parent->any_file_system;
    bool made = create && odm__os.make_directory(parent->fd, name, 0777) == 0;
    if (create && !made && errno != EEXIST) return odm__fail_os(error, "make", name);
    // A link would lead us to files that are another's.
    int fd = odm__os.open(parent->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0 && errno == ENOENT) return ODM_NOT_FOUND;
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR)) {
        return odm__fail(error, ODM_E_CORRUPT, "%s is a symbolic link, or else no directory", name);
    }
    if (fd < 0) return odm__fail_os(error, "open", name);
    if (made && parent->give_to_owner) (void)odm__os.change_owner(fd, parent->uid, parent->gid);
    if (made && parent->mode != 0) (void)odm__os.change_mode(fd, odm__directory_mode(parent->mode));
    return directory_adopt(directory, fd, error);
}

void odm__directory_close(struct directory *directory)
{
    if (directory->memory != NULL) memory_free(directory->memory);
    if (directory->fd >= 0) odm__os.close(directory->fd);
    *directory = (struct directory){.fd = -1, .name = ""};
}

odm_status odm__directory_sync(const struct directory *directory, odm_error *error)
{
    if (directory->memory != NULL) return ODM_OK;
    if (odm__os.sync_directory(directory->fd) != 0) return odm__fail_sync(error, directory->name);
    return ODM_OK;
}

odm_status odm__directory_check_kind(const struct directory *directory, odm_error *error)
{
    static const struct {
        uint32_t magic;
        const char *name;
    } refused[] = {
        {0x6969, "NFS"},       {0x517B, "SMB"},      {0xFF534D42, "CIFS"},      {0xFE534D42, "SMB2"},
        {0x01021997, "9p"},    {0x65735546, "FUSE"}, {0x794C7630, "overlayfs"}, {0x00C36400, "Ceph"},
        {0x73757245, "Coda"},  {0x5346414F, "AFS"},  {0x6B414653, "AFS"},       {0x0BD00BD0, "Lustre"},
        {0x7461636F, "OCFS2"}, {0x01161970, "GFS2"}, {0x786F4256, "vboxsf"},    {0xF15F, "eCryptfs"},
    };
    if (directory->memory != NULL || directory->any_file_system) return ODM_OK;
    uint64_t magic;
    if (odm__os.file_system(directory->fd, &magic) != 0)
        return odm__fail_os(error, "ask the file system of", "the map");
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        if (refused[i].magic != magic) continue;
        return odm__fail(
            error, ODM_E_UNSUPPORTED,
            "the map would lie on %s, where crash safety can not be kept: use a local file system, open it "
            "with ODM_READ_ONLY, or pass ODM_ANY_FILE_SYSTEM and do without",
            refused[i].name);
    }
    return ODM_OK;
}

odm_status odm__directory_list(const struct directory *directory, void (*found)(void *context, const char *name),
                               void *context, odm_error *error)
{
    if (directory->memory == NULL) {
        if (odm__os.list(directory->fd, found, context) != 0) return odm__fail_os(error, "list", directory->name);
        return ODM_OK;
    }
    pthread_mutex_lock(&directory->memory->mutex);
    for (struct memory_file *file = directory->memory->files; file != NULL; file = file->next)
        found(context, file->name);
    pthread_mutex_unlock(&directory->memory->mutex);
    return ODM_OK;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

odm_status odm__file_open(const struct directory *directory, const char *name, bool writable, int *fd, odm_error *error)
{
    // A pipe under one of our names must not make us wait, nor a link lead us elsewhere.
    int flags = (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOFOLLOW;
    *fd =
        directory->memory != NULL ? memory_open(directory->memory, name) : odm__os.open(directory->fd, name, flags, 0);
    if (*fd < 0) return errno == ENOENT ? ODM_NOT_FOUND : odm__fail_os(error, "open", name);

    struct file_identity identity;
    odm_status status = ODM_OK;
    if (odm__os.identify(*fd, &identity) != 0) {
        status = odm__fail_os(error, "look at", name);
    } else if (!S_ISREG(identity.mode)) {
        status = odm__fail(error, ODM_E_CORRUPT, "%s%s is no ordinary file", directory->name, name);
    }
    if (status != ODM_OK) {
        odm__os.close(*fd);
        *fd = -1;
    }
    return status;
}

odm_status odm__file_grow(const struct directory *directory, const char *name, int fd, uint64_t size, uint64_t new_size,
                          uint64_t hole, odm_error *error)
{
    assert(new_size >= size);
    // Asked first: a reservation beyond this limit kills the process with SIGXFSZ.
    uint64_t limit = UINT64_MAX;
    if (odm__os.file_size_limit(&limit) != 0 || new_size + hole > limit) {
        errno = EFBIG;
        return odm__fail_os(error, "reserve room for", name);
    }
    if (new_size == size || odm__os.reserve(fd, (off_t)size, (off_t)(new_size - size)) == 0) {
        if (hole == 0 || odm__os.truncate(fd, (off_t)(new_size + hole)) == 0) return ODM_OK;
    }

    int number = errno;
    // ext4 keeps the blocks that a failed reservation got.
    (void)odm__os.truncate(fd, (off_t)(size + hole));
    if (number == EOPNOTSUPP && directory->any_file_system) {
        if (odm__os.truncate(fd, (off_t)(new_size + hole)) == 0) return ODM_OK;
        return odm__fail_os(error, "grow", name);
    }
    if (number == EOPNOTSUPP) {
        return odm__fail(
            error, ODM_E_UNSUPPORTED,
            "the file system can not reserve disk space, so a full disk would kill the process: use another "
            "one, or pass ODM_ANY_FILE_SYSTEM");
    }
    errno = number;
    return odm__fail_os(error, "reserve room for", name);
}

odm_status odm__file_create(const struct directory *directory, const char *name, uint64_t size, int *fd,
                            odm_error *error)
{
    if (directory->memory != NULL) {
        *fd = memory_create(directory->memory, name);
    } else {
        mode_t mode = directory->mode != 0 ? directory->mode : 0644;
        *fd = odm__os.open(directory->fd, name, O_CREAT | O_EXCL | O_RDWR, mode);
    }
    if (*fd < 0 && errno == EEXIST) return ODM_EXISTS;
    if (*fd < 0) return odm__fail_os(error, "make", name);

    if (directory->memory == NULL) {
        // A map made by root belongs to whom its directory belongs to, or its workers could not write it.
        if (directory->give_to_owner) (void)odm__os.change_owner(*fd, directory->uid, directory->gid);
        if (directory->mode != 0) (void)odm__os.change_mode(*fd, directory->mode); // whatever this process's umask is
        (void)odm__os.set_no_copy_on_write(*fd); // where stores would need new blocks, a full disk would be a SIGBUS
    }
    odm_status status = odm__file_grow(directory, name, *fd, 0, size, 0, error);
    if (status != ODM_OK) {
        odm__os.close(*fd);
        (void)odm__file_unlink(directory, name, NULL);
    }
    return status;
}

void odm__file_populate(int fd, uint64_t from, uint64_t to, uint64_t block_size)
{
    static unsigned char zeros[POPULATE_HUGE]; // Not const, or they would lie in the library's file.
    for (uint64_t at = from; at < to; at += block_size) {
        uint64_t size = to - at < block_size ? to - at : block_size;
        if (odm__os.write_at(fd, zeros, size, (off_t)at) != (ssize_t)size) return;
    }
}

odm_status odm__file_rename(const struct directory *directory, const char *from, const char *to, odm_error *error)
{
    if (directory->memory != NULL) {
        memory_rename(directory->memory, from, to);
        return ODM_OK;
    }
    if (odm__os.rename(directory->fd, from, to) != 0) return odm__fail_os(error, "rename", from);
    return ODM_OK;
}

odm_status odm__file_exchange(const struct directory *directory, const char *from, const char *to, odm_error *error)
{
    if (directory->memory == NULL && odm__os.exchange(directory->fd, from, to) == 0) return ODM_OK;
    return odm__file_rename(directory, from, to, error);
}

odm_status odm__file_rename_new(const struct directory *directory, const char *from, const char *to, odm_error *error)
{
    if (directory->memory != NULL) return odm__file_rename(directory, from, to, error);
    if (odm__os.rename_new(directory->fd, from, to) == 0) return ODM_OK;
    return errno == EEXIST ? ODM_EXISTS : odm__fail_os(error, "rename", from);
}

odm_status odm__file_unlink(const struct directory *directory, const char *name, odm_error *error)
{
    if (directory->memory != NULL) {
        memory_unlink(directory->memory, name);
        return ODM_OK;
    }
    if (odm__os.unlink(directory->fd, name, false) == 0 || errno == ENOENT) return ODM_OK;
    return odm__fail_os(error, "unlink", name);
}

/* ---- mappings ----------------------------------------------------------------------------------------------------- */

/* Address space that starts at a multiple of 2 MiB, so that big files can be mapped by huge pages. */
static void *reserve_aligned(uint64_t size)
{
    enum { ALIGNMENT = 2 * 1024 * 1024 };
    unsigned char *at =
        odm__os.map(NULL, size + ALIGNMENT, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return MAP_FAILED;
    size_t before = (0 - (uintptr_t)at) % ALIGNMENT;
    if (before != 0) odm__os.unmap(at, before);
    odm__os.unmap(at + before + size, ALIGNMENT - before);
    return at + before;
}

odm_status odm__file_map(int fd, uint64_t size, uint64_t guard_size, bool writable, void **base, odm_error *error)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    assert(size % PAGE_BYTES == 0 || guard_size == 0);
    uint64_t whole = (size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES + guard_size;
    void *at = reserve_aligned(whole);
    if (at == MAP_FAILED) return odm__fail_os(error, "reserve addresses for", "a mapping");
    void *mapped = odm__os.map(at, size, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    if (mapped == MAP_FAILED) {
        odm_status status = odm__fail_os(error, "map", "a file");
        odm__os.unmap(at, whole);
        return status;
    }
    *base = mapped;
    return ODM_OK;
}

void odm__file_unmap(void *base, uint64_t size)
{
    int result = odm__os.unmap(base, size);
    // A process at its limit of mappings may not even give one up if a neighbour has grown together with it. Addresses are lost.
    assert(result == 0 || errno == ENOMEM);
    (void)result;
}
