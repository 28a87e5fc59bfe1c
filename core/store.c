/* store.c - one map as one process has it open. Contract: store.h. */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os.h"
#include "recover.h"
#include "stamp.h"
#include "status.h"

/* ---- the stores of this process, and fork ------------------------------------------------------------------------- */

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct store *registry;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void fork_prepare(void)
{
    pthread_mutex_lock(&registry_mutex);
    for (struct store *store = registry; store != NULL; store = store->next) {
        pthread_mutex_lock(&store->mutex);
        pthread_mutex_lock(&store->log.mutex);
    }
}

static void fork_unlock(void)
{
    for (struct store *store = registry; store != NULL; store = store->next) {
        pthread_mutex_unlock(&store->log.mutex);
        pthread_mutex_unlock(&store->mutex);
    }
    pthread_mutex_unlock(&registry_mutex);
}

/* Gives every lookup of this child through a map in memory something to stumble over: a `recycled` of its own. The page is
 * shared with the parent, so it is replaced by a private copy first. */
static void fork_spoil(struct store *store)
{
    unsigned char copy[PAGE];
    memcpy(copy, store->index->base, PAGE);
    void *page = mmap(store->index->base, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (page == MAP_FAILED) return;
    memcpy(page, copy, PAGE);
    struct index_header *header = page;
    atomic_fetch_add(&header->recycled, 1);
}

/* A mapping keeps a descriptor's locks alive just as a copy of the descriptor does. */
static void file_locks_drop(struct store *store)
{
    if (store->client.file != NULL) odm__file_unmap(store->client.file, sizeof *store->client.file);
    if (store->lock_fd >= 0) odm__os.close(store->lock_fd);
    odm__meta_close(&store->meta);
    store->lock_fd = -1;
    store->client.file = NULL;
    store->log.lock = NULL;
}

/* The child lets go of the descriptors whose file locks tell that the parent lives. */
static void fork_child(void)
{
    for (struct store *store = registry; store != NULL; store = store->next) {
        if (store->in_memory && !store->opening) {
            atomic_store(&store->forked, true);
            atomic_store(&store->attached, false);
            atomic_store(&store->may_write, false);
            fork_spoil(store);
            continue;
        }
        // A store that a thread of the parent is just opening has locks, too; nobody will use it here. One that is just
        // being attached may have no lock yet: through a shared descriptor each would take the other's for its own.
        if (store->read_only && !store->opening) continue;
        atomic_store(&store->attached, false);
        atomic_store(&store->may_write, false);
        file_locks_drop(store);
    }
    fork_unlock();
}

static void fork_register(void)
{
    (void)pthread_atfork(fork_prepare, fork_unlock, fork_child);
}

static void registry_add(struct store *store)
{
    pthread_mutex_lock(&registry_mutex);
    store->next = registry;
    registry = store;
    pthread_mutex_unlock(&registry_mutex);
}

static void registry_opened(struct store *store)
{
    pthread_mutex_lock(&registry_mutex);
    store->opening = false;
    pthread_mutex_unlock(&registry_mutex);
}

/* The store of this process that writes this map, with a reference. If there is none, `candidate` becomes it (NULL: none)
 * and NULL is returned. */
static struct store *registry_find(uint64_t device, uint64_t inode, struct store *candidate)
{
    struct store *found = NULL;
    pthread_mutex_lock(&registry_mutex);
    for (struct store *store = registry; store != NULL && found == NULL; store = store->next) {
        if (store->opening || store->closing || store->read_only || store->in_memory) continue;
        if (store->device == device && store->inode == inode) found = store;
    }
    if (found != NULL) ++found->references;
    if (found == NULL && candidate != NULL) candidate->opening = false;
    pthread_mutex_unlock(&registry_mutex);
    return found;
}

/* ---- a store's life ----------------------------------------------------------------------------------------------- */

static struct store *store_new(const char *path, const odm_options *options)
{
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL) return NULL;
    store->references = 1;
    store->opening = true;
    store->directory.fd = store->private_directory.fd = store->log.directory.fd = -1;
    store->meta.fd = store->lock_fd = -1;
    store->in_memory = path == NULL;
    store->read_only = (options->flags & ODM_READ_ONLY) != 0;
    snprintf(store->path, sizeof store->path, "%s", path == NULL ? "(in memory)" : path);
    pthread_mutex_init(&store->mutex, NULL);
    pthread_mutex_init(&store->log.mutex, NULL);
    return store;
}

static void store_free(struct store *store)
{
    odm__recover_leave_private(store, store->index);
    if (store->index != NULL) odm__index_close(store->index);
    odm__log_close(&store->log);
    pthread_mutex_destroy(&store->log.mutex);
    odm__directory_close(&store->private_directory);
    odm__directory_close(&store->directory);
    pthread_mutex_destroy(&store->mutex);
    free(store);
}

void odm__store_retain(struct store *store)
{
    pthread_mutex_lock(&registry_mutex);
    ++store->references;
    pthread_mutex_unlock(&registry_mutex);
}

void odm__store_release(struct store *store)
{
    pthread_mutex_lock(&registry_mutex);
    bool last = --store->references == 0;
    if (last) {
        struct store **link = &registry;
        while (*link != NULL && *link != store) link = &(*link)->next;
        // No fork may come between: a child would keep locks that its handler does not know of.
        file_locks_drop(store);
        if (*link == store) *link = store->next;
    }
    pthread_mutex_unlock(&registry_mutex);
    if (last) store_free(store);
}

bool odm__store_begin_closing(struct store *store)
{
    pthread_mutex_lock(&registry_mutex);
    bool last = store->references == 1;
    if (last) store->closing = true;
    pthread_mutex_unlock(&registry_mutex);
    return last;
}

/* ---- making a map ------------------------------------------------------------------------------------------------- */

struct contents {
    bool foreign;
    bool ours; // files that only a map has
    char name[64];
};

static void contents_look(void *context, const char *name)
{
    struct contents *contents = context;
    if (strcmp(name, "log") == 0 || strncmp(name, "meta.", 5) == 0) return;
    static const char *const ours[] = {"meta", "index", "index.new", "lock", "lock.new"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; ++i) {
        if (strcmp(name, ours[i]) != 0) continue;
        contents->ours = true;
        return;
    }
    if (contents->foreign) return;
    contents->foreign = true;
    snprintf(contents->name, sizeof contents->name, "%s", name);
}

static void segments_look(void *context, const char *name)
{
    struct contents *contents = context;
    (void)name;
    contents->ours = true;
}

/* Whether a directory without `meta` may become a map: only if nothing in it is anybody's. */
static odm_status check_empty(const struct store *store, odm_error *error)
{
    struct contents contents = {.foreign = false};
    odm_status status = odm__directory_list(&store->directory, contents_look, &contents, error);
    if (status != ODM_OK) return status;
    if (contents.foreign) {
        return odm__fail(error, ODM_E_INVALID,
                         "%s is no map and not empty (%s is in it): give a map a directory of its own", store->path,
                         contents.name);
    }
    struct directory log;
    status = odm__directory_open_in(&log, &store->directory, "log", "log/", false, error);
    if (status == ODM_OK) {
        status = odm__directory_list(&log, segments_look, &contents, error);
        odm__directory_close(&log);
    } else if (status == ODM_NOT_FOUND) {
        status = ODM_OK;
    }
    if (status != ODM_OK) return status;
    if (!contents.ours) return ODM_OK;
    // Between the look for `meta` and this one another process may have made the map.
    struct meta meta;
    status = odm__meta_open(&store->directory, false, &meta, error);
    if (status == ODM_OK) {
        odm__meta_close(&meta);
        return ODM_EXISTS;
    }
    if (status != ODM_NOT_FOUND) return status;
    return odm__fail(error, ODM_E_CORRUPT, "%s has files of a map, but meta is missing", store->path);
}

static odm_status sync_parent(const struct store *store)
{
    if (store->in_memory) return ODM_OK;
    int fd = odm__os.open(store->directory.fd, "..", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return ODM_OK; // A parent that may not be read was not changed by us either.
    (void)odm__os.sync_directory(fd);
    odm__os.close(fd);
    return ODM_OK;
}

/* Makes log/ and meta. ODM_EXISTS: another opener was first. */
static odm_status make_map(struct store *store, const odm_options *options, odm_error *error)
{
    odm_status status = check_empty(store, error);
    if (status != ODM_OK) return status;
    struct meta_fixed fixed;
    status = odm__meta_make(&fixed, options, error);
    if (status != ODM_OK) return status;
    struct directory log;
    status = odm__directory_open_in(&log, &store->directory, "log", "log/", true, error);
    if (status != ODM_OK) return status;
    odm__directory_close(&log);
    // Before meta has its name: a disk that has meta but no log/ would be a damaged map.
    status = odm__directory_sync(&store->directory, error);
    if (status != ODM_OK) return status;
    // Once more, now that log/ is there: a copy that is just being made here looks for it when it has made its mark.
    status = check_empty(store, error);
    if (status != ODM_OK) return status;
    const struct meta_slot nothing_written = {.head = 0};
    status = odm__meta_create(&store->directory, &fixed, &nothing_written, error);
    return status == ODM_OK ? sync_parent(store) : status;
}

/* Opens the directory, making it if it may be made. *made: it was. */
static odm_status open_directory(struct store *store, const char *path, const odm_options *options, bool *made,
                                 odm_error *error)
{
    *made = false;
    odm_status status = odm__directory_open(&store->directory, path, error);
    if (status == ODM_NOT_FOUND && (options->flags & (ODM_READ_ONLY | ODM_MUST_EXIST)) == 0) {
        if (odm__os.make_directory(AT_FDCWD, path, 0777) == 0) {
            *made = true;
        } else if (errno != EEXIST) {
            return odm__fail_os(error, "make the directory", path);
        }
        status = odm__directory_open(&store->directory, path, error);
    }
    if (status == ODM_OK && *made && options->file_mode != 0) {
        (void)odm__os.change_mode(store->directory.fd, odm__directory_mode(options->file_mode));
    }
    return status;
}

/* Opens meta, making the map if it may be made. */
static odm_status open_meta(struct store *store, const odm_options *options, odm_error *error)
{
    for (;;) {
        odm_status status = odm__meta_open(&store->directory, !store->read_only, &store->meta, error);
        if (status == ODM_OK && (options->flags & ODM_MUST_CREATE) != 0) {
            return odm__fail(error, ODM_EXISTS, "%s is a map already", store->path);
        }
        if (status != ODM_NOT_FOUND) return status;
        if ((options->flags & (ODM_READ_ONLY | ODM_MUST_EXIST)) != 0) {
            status = check_empty(store, error);
            if (status == ODM_EXISTS) continue;
            return status == ODM_OK ? odm__fail(error, ODM_NOT_FOUND, "there is no map at %s", store->path) : status;
        }
        status = make_map(store, options, error);
        if (status == ODM_EXISTS) continue;
        if (status != ODM_OK) return status;
        store->made = true;
        return odm__meta_open(&store->directory, true, &store->meta, error);
    }
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static odm_status open_files(struct store *store, const char *path, const odm_options *options, bool *made,
                             odm_error *error)
{
    *made = false;
    odm_status status = path == NULL ? odm__directory_open_in(&store->directory, NULL, "", "", true, error)
                                     : open_directory(store, path, options, made, error);
    if (status != ODM_OK) return status;
    // Of a map in memory, for a backup of it.
    store->directory.mode = options->file_mode;
    store->directory.any_file_system = (options->flags & ODM_ANY_FILE_SYSTEM) != 0;
    if (path != NULL && !store->read_only) status = odm__directory_check_kind(&store->directory, error);
    if (status == ODM_OK) status = open_meta(store, options, error);
    if (status == ODM_OK) status = odm__meta_check_schema(&store->meta.fixed, options, error);
    if (status != ODM_OK) return status;

    struct file_identity identity;
    if (odm__os.identify(store->meta.fd, &identity) != 0) return odm__fail_os(error, "look at", "meta");
    if (!store->read_only && identity.links > 1) return odm__linked(error, "meta", identity.links);
    store->device = identity.device;
    store->inode = identity.inode;
    if (path != NULL) store->directory.mode = identity.mode & 0666; // New files are as accessible as the first one.
    return ODM_OK;
}

static odm_status open_trusted(struct store *store, const char *path, const odm_options *options, odm_error *error)
{
    odm_status status =
        odm__log_open(&store->log, &store->directory, &store->meta.fixed, !store->read_only, false, error);
    if (status != ODM_OK) return status;
    return store->read_only ? odm__recover_read_only(store, path, options->wait_ms, error)
                            : odm__recover_writable(store, path, options->wait_ms, error);
}

/* *moved: another map lies at the path by now. */
static odm_status store_open_once(const char *path, const odm_options *options, struct store **result, bool *moved,
                                  odm_error *error)
{
    *moved = false;
    struct store *store = store_new(path, options);
    if (store == NULL) return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");

    registry_add(store);
    bool made;
    struct store *shared = NULL;
    bool shareable = !store->read_only && !store->in_memory;
    // The mutex makes a fork wait: file locks that are just being taken must be known to its handlers.
    pthread_mutex_lock(&store->mutex);
    odm_status status = open_files(store, path, options, &made, error);
    pthread_mutex_unlock(&store->mutex);
    if (status == ODM_OK && shareable) shared = registry_find(store->device, store->inode, NULL);
    if (status == ODM_OK && shared == NULL) {
        pthread_mutex_lock(&store->mutex);
        status = open_trusted(store, path, options, error);
        pthread_mutex_unlock(&store->mutex);
        *moved = status == ODM_EXISTS;
        // Another thread may have opened it meanwhile.
        if (status == ODM_OK && shareable) shared = registry_find(store->device, store->inode, store);
        if (status == ODM_OK && !shareable) registry_opened(store);
    }
    if (status != ODM_OK || shared != NULL) odm__store_release(store);
    if (status != ODM_OK && made) (void)rmdir(path); // Only if nothing came into it.
    if (status == ODM_OK) *result = shared != NULL ? shared : store;
    return status;
}

odm_status odm__store_open(const char *path, const odm_options *options, struct store **result, odm_error *error)
{
    pthread_once(&fork_once, fork_register);
    enum { ATTEMPTS = 100 };
    // Salvage, for which we had to wait, has given the path to another map.
    for (int i = 0; i < ATTEMPTS; ++i) {
        bool moved;
        odm_status status = store_open_once(path, options, result, &moved, error);
        if (!moved) return status;
    }
    return odm__fail(error, ODM_E_BUSY, "%s leads to another directory each time", path);
}

/* In a child made by fork: a descriptor of its own, if it is still the same map. */
static odm_status reopen_meta(struct store *store, odm_error *error)
{
    struct meta meta;
    odm_status status = odm__meta_open(&store->directory, true, &meta, error);
    if (status == ODM_NOT_FOUND) return odm__fail(error, ODM_E_CORRUPT, "meta is missing");
    if (status != ODM_OK) return status;
    if (meta.fixed.check != store->meta.fixed.check) {
        odm__meta_close(&meta);
        return odm__fail(error, ODM_E_CORRUPT, "another map lies at %s by now", store->path);
    }
    store->meta.fd = meta.fd;
    return ODM_OK;
}

odm_status odm__store_attach(struct store *store, odm_error *error)
{
    if (__builtin_expect(atomic_load_explicit(&store->attached, memory_order_acquire), 1)) return ODM_OK;
    if (store->read_only) {
        return odm__fail(error, ODM_E_READ_ONLY, "%s is open for reading only", store->path);
    }
    if (atomic_load(&store->forked)) {
        return odm__fail(error, ODM_E_UNSUPPORTED, "a map in memory stays behind when a process forks");
    }
    pthread_mutex_lock(&store->mutex);
    odm_status status = ODM_OK;
    if (!atomic_load(&store->attached)) {
        if (store->meta.fd < 0) status = reopen_meta(store, error);
        if (status == ODM_OK) status = odm__recover_writable(store, NULL, 0, error);
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

odm_status odm__store_begin_writing_slowly(struct store *store, uint32_t wait_ms, odm_error *error)
{
    odm_status status = odm__store_attach(store, error);
    if (status != ODM_OK) return status;
    if (!store->in_memory) {
        struct index_file *index;
        status = odm__store_index(store, &index, error);
        if (status != ODM_OK) return status;
        status = odm__stamp_withdraw(&store->log, &store->meta, &store->client, index, wait_ms, error);
        odm__store_index_release(store, index);
    }
    if (status == ODM_OK) atomic_store_explicit(&store->may_write, true, memory_order_release);
    return status;
}

/* ---- the index ---------------------------------------------------------------------------------------------------- */

static bool index_is_superseded(const struct index_file *index)
{
    struct index_header *header = (void *)index->base;
    return atomic_load_explicit(&header->superseded, memory_order_acquire) != 0;
}

odm_status odm__store_index(struct store *store, struct index_file **index, odm_error *error)
{
    odm_status status = ODM_OK;
    pthread_mutex_lock(&store->mutex);
    if (atomic_load(&store->forked)) {
        status = odm__fail(error, ODM_E_UNSUPPORTED, "a map in memory stays behind when a process forks");
    } else if (store->read_only) {
        status = odm__recover_look_again(store, error);
    } else if (index_is_superseded(store->index)) {
        struct index_file *newer;
        status = odm__index_open(&store->directory, "index", &store->meta.fixed, !store->read_only, &newer, error);
        if (status == ODM_NOT_FOUND) status = odm__fail(error, ODM_E_CORRUPT, "index is missing");
        if (status == ODM_OK) {
            if (--store->index->references == 0) odm__index_close(store->index);
            store->index = newer;
        }
    }
    if (status == ODM_OK) {
        ++store->index->references;
        *index = store->index;
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

void odm__store_index_release(struct store *store, struct index_file *index)
{
    pthread_mutex_lock(&store->mutex);
    bool last = --index->references == 0;
    if (last) odm__recover_leave_private(store, index);
    pthread_mutex_unlock(&store->mutex);
    if (last) odm__index_close(index);
}
