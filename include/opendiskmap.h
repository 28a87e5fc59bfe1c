/* opendiskmap.h - a persistent hash map: a directory on disk that behaves like a map in memory.
 *
 * Keys and values are byte strings. Values are read in place, 8-byte aligned, without a copy. A map is shared live by any
 * number of threads, processes and languages, and survives kills and power loss (the promises: README.md).
 *
 *     odm_map *map;
 *     if (odm_open("colours", NULL, &map, NULL) != ODM_OK) return 1;
 *     odm_put(map, "red", 3, "#f00", 4);
 *     const void *value;
 *     size_t value_size;
 *     if (odm_get(map, "red", 3, &value, &value_size) == ODM_OK) fwrite(value, 1, value_size, stdout);
 *     odm_close(map);
 *
 * Four rules hold for everything below.
 *
 * THREADS. A handle (odm_map *) is used by one thread at a time; so are its iterators, together with it. A map is used by
 * any number of handles, threads and processes at once. odm_dup makes another handle, cheaply. The functions that take no
 * handle may be called from anywhere. No lock outlives a call: a paused or killed client holds nobody up between calls.
 *
 * LIFETIMES. A slice (a pointer and a size) that a handle gave out points into the map itself. It is 8-byte aligned and
 * stays readable and unchanged until that handle is refreshed (odm_refresh) or closed. Writes never end it, neither this
 * handle's nor anybody else's; so an argument may be a slice of the same map. Until the refresh, the disk space it lies in
 * can not be given back. A handle that gave out nothing since its last refresh lets go by itself, at its next call. The
 * last slices of an iterator outlive a refresh, until the next call on that iterator. The library never returns memory
 * that the caller must free.
 *
 * STATUSES. 0 is success, positive an ordinary outcome, negative an error. A call that returns an error has changed
 * nothing, unless its comment says so. Besides those listed, every function that takes a handle or an iterator can return
 * ODM_E_INVALID (a NULL handle, or NULL where a pointer is needed) and, in a child made by fork, ODM_E_UNSUPPORTED for a
 * map in memory. The detail of a handle's last error: odm_last_error.
 *
 * LIMITS. A key is shorter than 16 MiB (ODM_KEY_SIZE_MAX). A record, that is 24 bytes, the key and the value, both padded
 * to a multiple of 8, is at most 4 GiB - 8 KiB (ODM_RECORD_SIZE_MAX). Beyond: ODM_E_TOO_BIG. Empty keys and values are
 * fine: NULL with size 0 is a valid argument, and an empty value comes back as a non-NULL pointer with size 0.
 *
 * Fork: parent and child may both go on using a map on disk, each its handles; a handle that another thread was using
 * during the fork is dead in the child, which may only close it. Exec inherits nothing.
 */
#ifndef OPENDISKMAP_H
#define OPENDISKMAP_H

/* `cc -E -P -DOPENDISKMAP_CDEF opendiskmap.h` is text for LuaJIT's ffi.cdef: nothing but declarations. */
#ifndef OPENDISKMAP_CDEF
#include <stddef.h>
#include <stdint.h>
#endif

#define ODM_VERSION_MAJOR 1
#define ODM_VERSION_MINOR 0
#define ODM_VERSION_PATCH 0
#define ODM_VERSION (ODM_VERSION_MAJOR * 10000 + ODM_VERSION_MINOR * 100 + ODM_VERSION_PATCH)
#define ODM_VERSION_STRING "1.0.0"

/* Defined while the library itself is built; its users need nothing. */
#ifndef ODM_API
#define ODM_API
#endif

#if defined(__cplusplus) && !defined(OPENDISKMAP_CDEF)
extern "C" {
#endif

/* ---- statuses ---------------------------------------------------------------------------------------------------- */

typedef int32_t odm_status;

/* Every status once: name, code, message. The constants, odm_status_name and odm_status_message come from here. A released
 * code never changes its number. */
#define ODM_STATUS_LIST(X)                                                                                                \
    X(ODM_OK, 0, "ok")                                                                                                    \
    X(ODM_NOT_FOUND, 1, "the key is not in the map")                                                                      \
    X(ODM_EXISTS, 2, "the key is in the map already")                                                                     \
    X(ODM_DONE, 3, "nothing is left to do")                                                                               \
    X(ODM_CONFLICT, 4, "the entry is no longer at that version")                                                          \
    X(ODM_WOULD_BLOCK, 5, "the call would have to lock, or to ask the operating system")                                  \
    X(ODM_E_INVALID, -1, "an argument is not valid")                                                                      \
    X(ODM_E_IO, -2, "the operating system reported an error")                                                             \
    X(ODM_E_NO_SPACE, -3, "the disk, a quota or a file size limit is full")                                               \
    X(ODM_E_NO_MEMORY, -4, "out of memory, address space or file descriptors")                                            \
    X(ODM_E_CORRUPT, -5, "the files of the map are damaged")                                                              \
    X(ODM_E_VERSION, -6, "the map was made by another version, or on a machine of another kind")                          \
    X(ODM_E_READ_ONLY, -7, "the map or its file system is open for reading only")                                         \
    X(ODM_E_TOO_BIG, -8, "the key or the value is too big")                                                               \
    X(ODM_E_MISMATCH, -9, "the map has another schema")                                                                   \
    X(ODM_E_BUSY, -10, "a live client held a lock for too long")                                                          \
    X(ODM_E_UNSUPPORTED, -11, "not supported here")

#define ODM_STATUS_VALUE(name, code, message) name = code,
enum { ODM_STATUS_LIST(ODM_STATUS_VALUE) };
#undef ODM_STATUS_VALUE

/* "ODM_E_CORRUPT", for logs; "unknown status" for a number that is none. Never NULL. */
ODM_API const char *odm_status_name(odm_status status);

/* What a status means, in one English sentence without a full stop. Never NULL. */
ODM_API const char *odm_status_message(odm_status status);

/* The version of the library that is loaded: 10203 is 1.2.3. Compare its / 10000 with ODM_VERSION_MAJOR. */
ODM_API uint32_t odm_version(void);
ODM_API const char *odm_version_string(void); /* "1.2.3" */

/* ---- constants --------------------------------------------------------------------------------------------------- */

/* odm_options.flags */
enum {
    ODM_READ_ONLY = 1,       /* lock nothing, write nothing, need no permission to write; the map must exist */
    ODM_MUST_EXIST = 2,      /* ODM_NOT_FOUND instead of making a map */
    ODM_MUST_CREATE = 4,     /* ODM_EXISTS instead of opening a map that is there */
    ODM_VERIFY_READS = 8,    /* check both checksums of a record whenever it is read */
    ODM_ANY_FILE_SYSTEM = 16, /* also where the promises do not hold: network and layered file systems, no reservation */
    ODM_SALVAGE = 32         /* if the map is damaged, keep what is whole of it: see odm_open */
};

/* The operations of odm_write_many. */
enum {
    ODM_OP_PUT = 0,    /* put */
    ODM_OP_INSERT = 1, /* put only if the key is absent, else the outcome is ODM_EXISTS */
    ODM_OP_REMOVE = 2  /* remove; the outcome is ODM_NOT_FOUND if the key is absent. Its value must be empty */
};

/* odm_statistics.recovery_kind: how the index came to be that the map works with. */
enum {
    ODM_RECOVERY_NONE = 0,    /* the map was made with it */
    ODM_RECOVERY_KEPT = 1,    /* rebuilt from a log of which nothing returned was lost */
    ODM_RECOVERY_CUT = 2,     /* rebuilt as after power loss: the log was cut at its first record that is not whole */
    ODM_RECOVERY_PRIVATE = 3, /* a read-only handle built its own, because none could be trusted */
    ODM_RECOVERY_SALVAGED = 4 /* ODM_SALVAGE kept what was whole of a damaged map */
};

enum {
    ODM_KEY_SIZE_MAX = 16777215,  /* bytes */
    ODM_SCHEMA_SIZE_MAX = 1024,   /* bytes */
    ODM_STRIPES_MAX = 64
};
#define ODM_RECORD_SIZE_MAX UINT64_C(4294959104) /* 4 GiB - 8 KiB: 24 bytes, key and value, both padded to 8 */
#define ODM_ABSENT UINT64_MAX                    /* the size that odm_get_many reports for a key that is absent */

/* ---- structs ----------------------------------------------------------------------------------------------------- */

typedef struct odm_map odm_map;   /* a handle on a map: used by one thread at a time; any number per map */
typedef struct odm_iter odm_iter; /* a walk over a map: belongs to its handle */

/* Every struct starts with its own size, set by the caller. A larger struct of a newer header is accepted as long as the
 * part this library does not know is all zeros; in all that is known, zero means "default". */

typedef struct odm_options {
    uint32_t struct_size;    /* sizeof(odm_options) */
    uint32_t flags;          /* ODM_READ_ONLY | ... */
    uint64_t capacity;       /* entries to make room for at creation. Ignored on a map that exists */
    uint64_t capacity_bytes; /* bytes of keys and values to expect: sizes the files from the start. Likewise */
    uint32_t stripes;        /* write locks, a power of two up to ODM_STRIPES_MAX, fixed at creation. 0 = 16 */
    uint32_t file_mode;      /* permission bits of new files, at creation. 0 = 0644 less the umask */
    uint32_t wait_ms;        /* the longest wait for one live holder of a lock. 0 = 30,000; UINT32_MAX = only try */
    uint32_t reserved;       /* 0 */
    const void *schema;      /* up to ODM_SCHEMA_SIZE_MAX bytes, stored at creation, compared later. NULL = any */
    size_t schema_size;      /* bytes */
} odm_options;

#define ODM_OPTIONS_INIT { sizeof(odm_options), 0, 0, 0, 0, 0, 0, 0, NULL, 0 }

/* Where a call went wrong. Passing NULL for it is always fine. */
typedef struct odm_error {
    uint32_t struct_size; /* sizeof(odm_error) */
    odm_status status;
    int32_t os_errno; /* the operating system's errno, or 0 */
    uint32_t reserved;
    char message[240]; /* English, with a terminating zero: what, which file, which offset, and the cure if there is one */
} odm_error;

/* Long work in steps. The caller zeroes it, sets struct_size (and max_ms), and keeps it between the calls. */
typedef struct odm_progress {
    uint32_t struct_size; /* sizeof(odm_progress) */
    uint32_t max_ms;      /* work at most about this long in a call; 0 = as long as it takes */
    uint64_t done;        /* out: work done so far, in the unit of total */
    uint64_t total;       /* out: work in all, as known now */
    uint64_t position[4]; /* the library's */
} odm_progress;

/* What odm_stat tells. Places in the log (head, tail, ...) are addresses: segment number << 29 | offset / 8. */
typedef struct odm_statistics {
    uint32_t struct_size;           /* sizeof(odm_statistics) */
    uint32_t stripes;               /* write locks */
    uint8_t map_id[16];             /* random, made with the map */
    uint64_t count;                 /* entries: exact while no write is in flight */
    uint64_t slots;                 /* of the index */
    uint64_t capacity;              /* entries the index has room for as it is: 7/8 of the slots */
    uint64_t tombstones;            /* slots that removed keys still take */
    uint64_t live_bytes;            /* records that count: headers, keys and values with padding */
    uint64_t log_bytes;             /* the log from head to tail */
    uint64_t dead_bytes;            /* log_bytes - live_bytes: replaced, removed, or never completed */
    uint64_t reserved_bytes;        /* log files made ready for later */
    uint64_t index_bytes;           /* the index file */
    uint64_t unlinked_bytes;        /* log files this process still maps although they left the map (slices pin them) */
    uint64_t segments;              /* log files from head to tail */
    uint64_t head;                  /* address of the oldest record */
    uint64_t tail;                  /* address at which the next record goes */
    uint64_t watermark;             /* everything below this address is known to be on disk */
    uint64_t splits;                /* times a chunk of the index was split, since the index was built */
    uint64_t lock_waits;            /* times a writer had to sleep for a lock, since boot */
    uint64_t compacted_bytes;       /* bytes compaction has moved, since boot */
    uint64_t compaction_stopped_at; /* address of a damaged record that compaction will not pass, or 0 */
    uint64_t recovery_records;      /* records of the log that the last rebuild read, or salvage kept */
    uint64_t recovery_bytes_cut;    /* bytes it left out, because they were not whole or lay behind such */
    uint64_t recovery_from;         /* address at which it cut the log, or met the first damage, or 0 */
    uint32_t recovery_kind;         /* ODM_RECOVERY_... */
    uint32_t sync_failed;           /* 1 after a failed sync: every sync fails until odm_compact has mended it */
} odm_statistics;

/* What odm_verify found. */
typedef struct odm_report {
    uint32_t struct_size; /* sizeof(odm_report) */
    uint32_t reserved;
    uint64_t records;     /* read */
    uint64_t bytes;       /* of the log, read */
    uint64_t bad_records; /* of these, not whole; a missing segment file counts as one */
    uint64_t bad_slots;   /* of the index, naming no record or the wrong one; by how many its count of keys is wrong, too */
    uint64_t bad_number;  /* the first damage: number of its segment file; 0: it is in the file `index` */
    uint64_t bad_offset;  /* and its offset in that file, bytes */
} odm_report;

/* A part of a value, as the `struct` encoding stores it: `count` elements at `offset` bytes from the start of the value. */
typedef struct odm_slice {
    uint32_t offset;
    uint32_t count;
} odm_slice;

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

/* Sets *options to the defaults, as ODM_OPTIONS_INIT does. struct_size: the size the caller knows.
 *
 *   ODM_OK, ODM_E_INVALID (NULL, or smaller than any released odm_options) */
ODM_API odm_status odm_options_init(odm_options *options, size_t struct_size);

/* Opens the map in the directory `path`, or makes it. path NULL: a new map in memory, seen by this process only; it can not
 * be asked to be read-only or to exist.
 *
 * Opening takes no time that grows with the map, unless the index has to be rebuilt from the log: after power loss, after a
 * reboot if the map was not closed in good order or its log is short (64 MiB), or when the files are a copy made while it was
 * written. Rebuilding reads the log at some 0.3 to 1.3 GB/s; other openers wait for it as long as its process lives.
 * Whatever a rebuild lost is in odm_stat. Many processes may open, and make, one map at once. A map made by root belongs to
 * the owner of its directory.
 *
 * ODM_SALVAGE: everything is looked at first, as odm_verify does. If nothing is damaged the map is opened as ever.
 * Else what is whole is copied to a new map, in the directory `path`.salvaged until it is complete; then it gets the
 * name `path`, and the damaged map, of which not a byte is changed, lies in `path`.damaged (or .damaged.1, ...).
 * Records that are not whole are left out; so a key may have an older value again, or be there although it was
 * removed. odm_stat tells how much was left out, and from where. What was never synced is kept as well, unless the
 * machine was started anew since (or the file system was mounted anew, or `lock` or `index` is lost, or the files are
 * a copy): then nothing behind the first damage above what was synced is believed. A whole record may be missed in two
 * cases: behind a damaged one, its key is longer than 4 KiB; or the header of the segment that follows its own is
 * damaged, too. Needs as much disk space as the map takes, and that nobody else has it open. The new map has the mode
 * and the owner of the old one. `path` may be a symbolic link: the map it leads to is meant.
 *
 * options NULL: the defaults. error NULL: no detail. On failure *map is NULL and no map was changed. A map that could not be
 * made leaves nothing, or an empty directory, `log` or map, which the next open takes up.
 *
 *   ODM_OK
 *   ODM_NOT_FOUND     ODM_MUST_EXIST, ODM_READ_ONLY or ODM_SALVAGE, and there is no map
 *   ODM_EXISTS        ODM_MUST_CREATE, and there is one
 *   ODM_E_INVALID     unknown flags or a non-zero tail of *options; a path that is no directory; a directory with other
 *                     files in it; options out of their range; ODM_SALVAGE by a relative path of a damaged map in
 *                     which the working directory lies
 *   ODM_E_IO          the operating system said no: os_errno tells why (permission, for one)
 *   ODM_E_NO_SPACE    no room for the first files
 *   ODM_E_NO_MEMORY   memory, address space or descriptors
 *   ODM_E_CORRUPT     the files are damaged below what was synced, or a part is missing. Nothing was touched
 *   ODM_E_VERSION     made by a newer version, with another hash, or on a machine of the other byte order
 *   ODM_E_READ_ONLY   opened for writing on a read-only file system
 *   ODM_E_MISMATCH    the map was made with another schema, or without one: the message shows both
 *   ODM_E_BUSY        wait_ms UINT32_MAX, and the map is just being made or rebuilt; ODM_SALVAGE, and it is open elsewhere
 *   ODM_E_UNSUPPORTED a network or layered file system without ODM_ANY_FILE_SYSTEM */
ODM_API odm_status odm_open(const char *path, const odm_options *options, odm_map **map, odm_error *error);

/* Makes *dup another handle on the same map, for another thread. This call is a use of `map`; afterwards the two know
 * nothing of each other. Flags, wait_ms and a private index are inherited.
 *
 *   ODM_OK, ODM_E_NO_MEMORY */
ODM_API odm_status odm_dup(odm_map *map, odm_map **dup, odm_error *error);

/* Ends the handle and the slices it gave out; its iterators then answer ODM_E_INVALID and must still be closed. NULL is
 * fine. Always frees the handle, whatever it returns.
 *
 * Closing a short map is no sync. The last writer to close one whose log exceeds 64 MiB, or that odm_compact was called for, makes
 * all of it durable and stamps it: then the next open has nothing to do, after a reboot, on another machine, from media that can
 * not be written. That takes as long as writing the changed pages of the index does.
 *
 *   ODM_OK            also where no stamp is due: others have the map open, or a sync has failed
 *   any other         the stamp could not be written, so a later open may rebuild the index; nothing returned is lost */
ODM_API odm_status odm_close(odm_map *map);

/* Returns when everything that any process put or removed before the call survives power loss.
 *
 *   ODM_OK
 *   ODM_E_IO          the disk failed, now or at an earlier sync, by whichever process; odm_compact is the way back
 *   ODM_E_READ_ONLY   a read-only handle
 *   ODM_E_BUSY        a live writer did not finish within wait_ms
 *   ODM_E_NO_MEMORY, ODM_E_CORRUPT */
ODM_API odm_status odm_sync(odm_map *map, odm_error *error);

/* Lets go of every slice this handle gave out. One load if there is nothing to let go of. A read-only handle looks for a
 * newer index here.
 *
 *   ODM_OK
 *   ODM_E_CORRUPT, ODM_E_NO_MEMORY, ODM_E_IO    a newer index can not be used; the slices are let go of */
ODM_API odm_status odm_refresh(odm_map *map);

/* Detail of the last negative status that this handle or one of its iterators returned, or of odm_backup's ODM_EXISTS; a
 * success does not clear it. error->status is ODM_OK if there was none.
 *
 *   ODM_OK */
ODM_API odm_status odm_last_error(const odm_map *map, odm_error *error);

/* ---- one key ------------------------------------------------------------------------------------------------------ */

/* Points *value at key's value, in the map itself. value and value_size NULL: only tells whether the key is there.
 * Takes no lock, waits for nobody.
 *
 *   ODM_OK, ODM_NOT_FOUND
 *   ODM_E_CORRUPT     the files are damaged where the key should be
 *   ODM_E_TOO_BIG     the key
 *   ODM_E_NO_MEMORY, ODM_E_IO   a log file could not be mapped */
ODM_API odm_status odm_get(odm_map *map, const void *key, size_t key_size, const void **value, size_t *value_size);

/* odm_get for callers that must not be kept, such as schedulers of threads of their own: locks nothing, makes no system
 * call, needs less than 1 KiB of stack (if built with optimization). It waits for the disk only as any load does: where a
 * page is not in memory.
 *
 *   ODM_OK, ODM_NOT_FOUND
 *   ODM_WOULD_BLOCK   nothing was looked up: call odm_get, which also tells of errors. Seldom: where others have recycled
 *                     space since this handle's last call, it meets a part of the map for the first time, or thousands of
 *                     keys have nearly the same hash. Always with ODM_VERIFY_READS */
ODM_API odm_status odm_try_get(odm_map *map, const void *key, size_t key_size, const void **value, size_t *value_size);

/* Sets key's value, whether the key was there or not. When it returns ODM_OK every get by any process sees it, and it
 * survives the death of this process; power loss only after a sync.
 *
 *   ODM_OK
 *   ODM_E_NO_SPACE    the map is as before
 *   ODM_E_TOO_BIG     key or value
 *   ODM_E_READ_ONLY   a read-only handle
 *   ODM_E_BUSY        a live writer held the key's stripe for longer than wait_ms
 *   ODM_E_NO_MEMORY, ODM_E_IO, ODM_E_CORRUPT, ODM_E_UNSUPPORTED */
ODM_API odm_status odm_put(odm_map *map, const void *key, size_t key_size, const void *value, size_t value_size);

/* Removes key. As odm_put, and ODM_NOT_FOUND if it was not there. */
ODM_API odm_status odm_remove(odm_map *map, const void *key, size_t key_size);

/* Removes every key that was there. What is put meanwhile may stay or go. Keeps the index's size. After a kill or power
 * loss it has happened or has not; other clients may see it happen a part of the map at a time. Statuses as odm_put. */
ODM_API odm_status odm_clear(odm_map *map, odm_error *error);

/* Entries in the map: exact while no write is in flight. 0 for NULL, and where it can not be told (odm_last_error). */
ODM_API uint64_t odm_count(odm_map *map);

/* ---- entries: read, decide, write only if nothing changed --------------------------------------------------------- */

/* An entry is a key and the version it was found at; 0 stands for "vacant". A version changes with every put of the key and
 * never comes back. It is for comparing only, in any process, and not to be kept over a power loss. */

/* As odm_get, and sets *version (0 on ODM_NOT_FOUND). value and value_size may be NULL. */
ODM_API odm_status odm_entry_get(odm_map *map, const void *key, size_t key_size, const void **value, size_t *value_size,
                                 uint64_t *version);

/* As odm_put, but only if key is still at that version. version 0: inserts if absent.
 *
 *   ODM_OK
 *   ODM_EXISTS        version 0, and the key is there
 *   ODM_CONFLICT      another version, and the key was changed or removed
 *   the errors of odm_put */
ODM_API odm_status odm_entry_put(odm_map *map, const void *key, size_t key_size, const void *value, size_t value_size,
                                 uint64_t version);

/* As odm_remove, but only if key is still at that version.
 *
 *   ODM_OK
 *   ODM_CONFLICT      the key was changed or removed
 *   ODM_E_INVALID     version 0
 *   the errors of odm_put */
ODM_API odm_status odm_entry_remove(odm_map *map, const void *key, size_t key_size, uint64_t version);

/* ---- walking ------------------------------------------------------------------------------------------------------ */

/* A walk visits every key that is in the map during the whole walk exactly once, in no meaningful order. Keys removed before
 * the walk reaches them do not come; keys put meanwhile may or may not. Values are current. Everything may be changed
 * meanwhile, also by the loop's own body. */

/* Starts a walk at the beginning. The iterator belongs to `map` and must be closed, also after the map.
 *
 *   ODM_OK, ODM_E_NO_MEMORY */
ODM_API odm_status odm_iter_open(odm_map *map, odm_iter **iter);

/* The next entry. Any of the four may be NULL.
 *
 *   ODM_OK
 *   ODM_DONE          the walk is over
 *   ODM_E_INVALID     the map was closed
 *   ODM_E_CORRUPT, ODM_E_NO_MEMORY, ODM_E_IO */
ODM_API odm_status odm_iter_next(odm_iter *iter, const void **key, size_t *key_size, const void **value,
                                 size_t *value_size);

/* The next entries, up to *n, at least 1; *n becomes the number returned. Any of the arrays may be NULL. ODM_OK with
 * *n >= 1; ODM_DONE only with *n = 0. An error that was met after some entries is returned by the next call. */
ODM_API odm_status odm_iter_next_many(odm_iter *iter, size_t *n, const void **keys, uint64_t *key_sizes,
                                      const void **values, uint64_t *value_sizes);

/* A point from which another walk, in any process, can go on: it repeats at most the keys of the chunk being read (some
 * thousands), and misses none. So it is for going on after many entries: who takes fewer than a chunk has never gets beyond
 * it. 0 is the start, UINT64_MAX the end. Means nothing for another map.
 *
 *   ODM_OK, ODM_E_INVALID */
ODM_API odm_status odm_iter_position(const odm_iter *iter, uint64_t *position);

/* Goes on from a position.
 *
 *   ODM_OK, ODM_E_INVALID */
ODM_API odm_status odm_iter_seek(odm_iter *iter, uint64_t position);

/* Ends a walk. NULL is fine. Needed also after the map was closed.
 *
 *   ODM_OK */
ODM_API odm_status odm_iter_close(odm_iter *iter);

/* ---- many keys ---------------------------------------------------------------------------------------------------- */

/* Keys are packed in one buffer: key i is the bytes from ends[i - 1] (0 for the first) up to ends[i]; values likewise. On
 * entry *n is the number of keys. What is written to must not overlap what is read. Arguments are checked first:
 * ODM_E_INVALID (NULL where something is needed, ends that fall, an unknown operation, a remove with a value) or
 * ODM_E_TOO_BIG with *n = 0 and nothing done. On an error met later, *n operations are done and their outputs valid; on
 * ODM_OK it is all of them. */

/* Looks up *n keys, overlapping their cache misses. values[i] and value_sizes[i]: as odm_get; NULL and ODM_ABSENT for a key
 * that is absent. values NULL: sizes only; value_sizes is needed. No snapshot: each value was current at some moment of the
 * call. */
ODM_API odm_status odm_get_many(odm_map *map, size_t *n, const void *keys, const uint64_t *key_ends,
                                const void **values, uint64_t *value_sizes);

/* Writes *n keys strictly in order, also in the log; not atomic. ops[i]: ODM_OP_...; NULL = all puts. outcomes[i]: ODM_OK,
 * ODM_EXISTS or ODM_NOT_FOUND; may be NULL. values and value_ends may be NULL if every operation is a remove. */
ODM_API odm_status odm_write_many(odm_map *map, size_t *n, const uint8_t *ops, const void *keys,
                                  const uint64_t *key_ends, const void *values, const uint64_t *value_ends,
                                  uint8_t *outcomes);

/* ---- the map as a whole ------------------------------------------------------------------------------------------- */

/* The schema the map was made with; *size 0 if there is none. Valid as long as the handle.
 *
 *   ODM_OK */
ODM_API odm_status odm_schema(odm_map *map, const void **schema, size_t *size);

/* Fills in *statistics; struct_size is set by the caller. Costs a look at every chunk of the index.
 *
 *   ODM_OK, ODM_E_INVALID (struct_size is not set), ODM_E_CORRUPT, ODM_E_NO_MEMORY, ODM_E_IO */
ODM_API odm_status odm_stat(odm_map *map, odm_statistics *statistics);

/* Long work. progress NULL: all at once, ODM_OK when finished. Else about progress->max_ms of work a call: ODM_OK = call
 * again, ODM_DONE = finished; to cancel, do not call again. No lock is held between calls. Between the calls of odm_verify and
 * odm_backup the handle keeps segment files they need, as if they were slices; a refresh of the handle, the other of the two, an
 * error of theirs and closing end such work, and going on with it is ODM_E_INVALID: begin anew, with a progress of zeros.
 * A backup belongs to the process that began it: in a child made by fork going on with it is ODM_E_INVALID, too. */

/* Reclaims all dead bytes: what is live is written anew, the files it lay in go. Writers do this by themselves, a little with
 * each write, as far as is needed to keep the log within twice the live bytes or 64 MiB above them, whichever is more; this
 * call does the rest, for example after most entries were removed. Others may read and write meanwhile. Needs room for a
 * segment file, and after a failed sync for all live bytes. After a failed sync it is the way back: everything is written and
 * synced anew, then syncs can succeed again.
 *
 *   ODM_OK            progress NULL: finished; else: call again
 *   ODM_DONE          finished
 *   ODM_E_INVALID     progress->struct_size is not set, or progress was not zeroed before the first call
 *   ODM_E_CORRUPT     a damaged record, which is named: it is not copied, and nothing behind it is reclaimed
 *   ODM_E_IO          a sync failed
 *   ODM_E_READ_ONLY   a read-only handle
 *   ODM_E_BUSY        another process was compacting or writing for longer than wait_ms
 *   ODM_E_NO_SPACE, ODM_E_NO_MEMORY, ODM_E_UNSUPPORTED (a map in memory, in a forked child) */
ODM_API odm_status odm_compact(odm_map *map, odm_progress *progress, odm_error *error);

/* Looks at everything: reads every record up to the present end of the log and checks its checksums, then looks at every slot of
 * the index and at its counts. Others may write meanwhile; nothing healthy is reported. Changes nothing, but that what a dead
 * writer left half done may be mended on the way. *report (NULL: none) is filled in by every call; with damage it goes on to the
 * end.
 *
 *   ODM_OK            progress NULL: all is sound; else: call again
 *   ODM_DONE          finished, and all is sound
 *   ODM_E_CORRUPT     finished, and something is damaged: *report says how much, the message what the first is and where
 *   ODM_E_INVALID     struct_size is not set, or the work has ended (see above)
 *   ODM_E_BUSY        a live writer held a stripe for longer than wait_ms; read-only, and the map is just being rebuilt
 *   ODM_E_NO_MEMORY, ODM_E_IO */
ODM_API odm_status odm_verify(odm_map *map, odm_report *report, odm_progress *progress, odm_error *error);

/* Copies the map to the directory `path`, while others write: as it is at the first call, with each write that had returned by then
 * and none that began later. What is copied is checked. The copy is durable, and stamped: it opens at once, anywhere. So a map in
 * memory comes to disk. Its files are as accessible as the map's; those of a map in memory as its options say. `path` is
 * absent, empty, or holds what a backup that was killed has left; until all is copied it is no map, and if it fails or is
 * given up nothing stays. In the calls after the first it is not looked at what `path` says.
 *
 *   ODM_OK            progress NULL: finished; else: call again
 *   ODM_DONE          finished
 *   ODM_EXISTS        there is a map at `path`
 *   ODM_E_INVALID     `path` is no directory or has other files in it; struct_size is not set; the work has ended (see above)
 *   ODM_E_CORRUPT     a damaged record, which is named
 *   ODM_E_BUSY        another backup is just being made there; read-only, and the map is just being rebuilt
 *   ODM_E_UNSUPPORTED `path` lies on a network or layered file system, and the map was opened without ODM_ANY_FILE_SYSTEM
 *   ODM_E_NO_SPACE, ODM_E_NO_MEMORY, ODM_E_IO */
ODM_API odm_status odm_backup(odm_map *map, const char *path, odm_progress *progress, odm_error *error);

#if defined(__cplusplus) && !defined(OPENDISKMAP_CDEF)
}
#endif
#endif
