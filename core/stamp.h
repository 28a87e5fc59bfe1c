/* stamp.h - the mark that a map was left in good order: who finds it has nothing to do, on whatever machine.
 *
 * Calls meta.h, index.h, log.h, lock.h. A stamp is a random number that stands in four places: in the slot of `meta`, in the
 * first and in the last page of `index`, and in the name of an empty file in `log/`. Each is there for a copier that meets a
 * writer. Who copies `index` while it changes gets two different ends of it. Who listed `log/` before the log was complete does
 * not know the file's name, so it has none of the segments from before they were.
 *
 * What always holds:
 *   1. While a stamp stands in `meta` on disk, log and index are on disk as they are, every record is whole and in the index,
 *      and the tail is the watermark.
 *   2. So nobody writes to log or index before the stamp is gone from `meta`, on disk. What `index` says does not count there:
 *      it may be older on disk than in memory.
 *   3. No stamp is used twice.
 *
 * Threads: who puts one is alone; withdrawing takes the sync lock.
 */
#ifndef ODM_STAMP_H
#define ODM_STAMP_H

#include <stdbool.h>

#include "index.h"
#include "lock.h"
#include "log.h"
#include "meta.h"

/* Whether the slot's stamp is that of the index and of the log, and every segment from head to the watermark is there. */
odm_status odm__stamp_fits(const struct log *log, const struct meta_slot *slot, const struct index_file *index,
                           bool *fits, odm_error *error);

/* Stamps a map of which the caller knows that nobody writes to it, nothing is left to mend, and the log is on disk up to its
 * tail, which is the slot's watermark. Makes the index durable, then the stamp. On failure there is none; ODM_E_IO: the pages of
 * the index in memory are not to be believed any more. */
odm_status odm__stamp_put(const struct log *log, const struct meta *meta, struct index_file *index,
                          struct meta_slot *slot, odm_error *error);

/* The same but for `meta`: makes the index durable, and the slot ready to be written. On failure there is no stamp. */
odm_status odm__stamp_prepare(const struct log *log, struct index_file *index, struct meta_slot *slot,
                              odm_error *error);

/* Sees to it that no stamp stands in `meta`, on disk. By a writer that is attached: nobody else can put one meanwhile. */
odm_status odm__stamp_withdraw(const struct log *log, const struct meta *meta, const struct lock_client *client,
                               struct index_file *index, uint32_t wait_ms, odm_error *error);

#endif
