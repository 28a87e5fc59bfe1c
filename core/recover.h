/* recover.h - from the files of a map to a state that can be trusted.
 *
 * Calls meta, log, index, lock and the reader. The page cache survives the death of processes, but not of the machine; so:
 *   - a writer is attached, or the marks in `lock` (boot, device, inodes, birth times, mount) are those of the files: all
 *     that was returned is there. Nothing to do; what the dead left half done is mended by who takes their locks.
 *   - same boot and files, but another mount: the log must prove that nothing of it is missing up to the tail in `lock`.
 *     Then the index is built anew and nothing returned is lost.
 *   - else the log is read from head. Above the watermark it ends at the first record that is not whole; what lies behind
 *     is cut off for good before anything is served. Below the watermark that is damage, and nothing is touched.
 *
 * What always holds: the index, and then the lock file, are replaced by renaming a whole new one over them. Killed anywhere,
 * the next opener finds the old or the new, and marks that do not fit the other.
 *
 * Threads: the caller holds the store's mutex, or is the only one who knows the store.
 */
#ifndef ODM_RECOVER_H
#define ODM_RECOVER_H

#include "store.h"

/* Brings a writable store to: files trusted, lock file mapped, meta locked shared, number claimed. Waits for another
 * builder as long as it lives, unless wait_ms is UINT32_MAX; meanwhile the store's mutex is given back.
 * path: where it is being opened, or NULL. ODM_EXISTS, without a message, and nothing was changed: another map lies
 * there by now. */
odm_status odm__recover_writable(struct store *store, const char *path, uint32_t wait_ms, odm_error *error);

/* Brings a read-only store to an index: the one on disk if it can be trusted, else a private one. Waits likewise. path:
 * likewise. */
odm_status odm__recover_read_only(struct store *store, const char *path, uint32_t wait_ms, odm_error *error);

/* ODM_EXISTS, without a message: another directory lies at `path` by now than the one that the store has open. To be
 * asked once the lock on meta is held: salvage holds it until two maps have changed names. */
odm_status odm__recover_check_place(const struct store *store, const char *path, odm_error *error);

/* For a read-only store: if another index lies under the name by now and can be trusted, it becomes the store's; and if the stamp
 * it came in by is gone, it goes by the lock file. */
odm_status odm__recover_look_again(struct store *store, odm_error *error);

/* Nobody looks through this index any more: if it is the private one, what it was kept with goes. The caller owns the mutex. */
void odm__recover_leave_private(struct store *store, const struct index_file *index);

/* Where the log ends, as the lock file says, if that can be believed as it is: nothing was lost since. Else 0. */
odm_status odm__recover_tail(const struct store *store, uint64_t *tail, odm_error *error);

/* What the lock file should say of the files as they are. */
odm_status odm__recover_marks(const struct store *store, int index_fd, int lock_fd, struct marks *marks,
                              odm_error *error);

/* Finishes the replacement of an open map's index (reindex.h) if the new one has its name already, else takes it back: for whose
 * owner died over it. `old`: the index the caller looks through, or NULL. The caller owns the compaction lock. */
odm_status odm__recover_replacement(const struct store *store, struct lock_file *lock, int lock_fd,
                                    struct index_file *old, odm_error *error);

/* ---- building an index from records that come one by one: for copies of a map ------------------------------------------- */

struct replay;
enum { REPLAY_PENDING_MAX = 32 }; // records between two flushes
/* store: the copy's, of which only directory, log and meta.fixed are used. */
odm_status odm__replay_begin(const struct store *store, const char *name, uint64_t head, uint64_t capacity,
                             struct replay **result, odm_error *error);
/* In the order of the log. The record's bytes must stay mapped until the flush. */
odm_status odm__replay_record(struct replay *state, const struct record *record, odm_error *error);
/* What came so far stands in the copy's log. */
odm_status odm__replay_flush(struct replay *state, odm_error *error);
/* Frees it, and hands over the index. */
odm_status odm__replay_end(struct replay *state, struct index_file **index, odm_error *error);
void odm__replay_free(struct replay *state);

/* ODM_E_CORRUPT: a file of a map that is linked from two places can not be written. */
odm_status odm__linked(odm_error *error, const char *name, uint32_t links);

#endif
