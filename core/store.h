/* store.h - one map as one process has it open: its files, its mappings, its attach number.
 *
 * Calls recover.h to bring the files into a state that can be trusted, and the modules of the single files. The writable
 * handles of a process share one store, found again by the identity of `meta`; a read-only open has a store of its own.
 *
 * What always holds: a store that writes holds a shared file lock on meta and an attach number, but in a child made by
 * fork, where it gets new ones at its first write. The child must not keep the parent's: a file lock lives as long as any
 * copy of the descriptor. So a store has file locks only while it is in the registry, takes them under its mutex, and
 * waits for them without.
 *
 * Threads: everything here may be called by any thread; a handle keeps its reference.
 */
#ifndef ODM_STORE_H
#define ODM_STORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "file.h"
#include "index.h"
#include "lock.h"
#include "log.h"
#include "meta.h"

struct store {
    struct store *next; // all stores of the process, for fork and for sharing
    unsigned references;
    uint64_t device;
    uint64_t inode; // of meta
    bool read_only;
    bool in_memory;
    bool opening;              // not ready to be shared
    atomic_bool private_index; // read-only, and no index could be trusted
    uint64_t log_end;          // where the log ends, for a private index
    struct directory directory;
    struct directory private_directory; // in memory: where a private index lies
    struct private_log {
        const struct index_file *index; // which a private index is that some handle looks through; or NULL
        struct held_segment *held;      // the segments that it names
    } private_log;
    struct meta meta;
    struct log log;
    pthread_mutex_t mutex;           // guards what follows
    struct index_file *index;        // the newest known
    struct file_identity index_seen; // read-only: what the name `index` stood for when last looked at
    int lock_fd;
    struct lock_client client;
    atomic_bool attached;        // for writing
    atomic_bool may_write;       // attached, and no stamp stands in meta
    bool closing;                // its last handle is being closed: it is not shared any more
    atomic_bool stamp_at_close;  // whatever the log's size
    atomic_bool lock_is_current; // read-only: what the lock file says can be believed; else a stamp says it, or nothing
    atomic_bool forked;          // in memory, and this is a child: nothing works
    bool made;                   // by this open; not beside what the registry reads: loads of neighbours are merged
    char path[240];              // for messages
};

/* Opens or makes the map. path NULL: in memory. The options are complete and checked. */
odm_status odm__store_open(const char *path, const odm_options *options, struct store **result, odm_error *error);
void odm__store_retain(struct store *store);
void odm__store_release(struct store *store);

/* Sees to it that the store may write; in a child made by fork it attaches anew. */
odm_status odm__store_attach(struct store *store, odm_error *error);

/* The same, and sees to it that no stamp stands any more: before anything is written to log or index. */
odm_status odm__store_begin_writing_slowly(struct store *store, uint32_t wait_ms, odm_error *error);
static inline odm_status odm__store_begin_writing(struct store *store, uint32_t wait_ms, odm_error *error)
{
    if (__builtin_expect(atomic_load_explicit(&store->may_write, memory_order_acquire), 1)) return ODM_OK;
    return odm__store_begin_writing_slowly(store, wait_ms, error);
}

/* Whether the caller's reference is the last. If so no other handle of this process will share the store. */
bool odm__store_begin_closing(struct store *store);

/* Takes a reference on the newest index, opening it if the known one has been superseded; a read-only store looks at what
 * the name stands for. */
odm_status odm__store_index(struct store *store, struct index_file **index, odm_error *error);
void odm__store_index_release(struct store *store, struct index_file *index);

#endif
