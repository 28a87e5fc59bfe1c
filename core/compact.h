/* compact.h - giving space back: the oldest segments are looked through, what is live in them is written again at the tail, and
 * then they go.
 *
 * Calls map.h, sync.h, log.h, index.h, lock.h. There is no background thread: writers do the work, a slice after each write,
 * paced so that the log stays within its bound; odm_compact does all of it at once.
 *
 * What always holds:
 *   1. Below `compacted_to` no slot names a record, and none ever will: a sealed segment is settled before it is looked
 *      through, and a slot never goes back to an older record.
 *   2. A segment leaves the map only after the whole log, up to a tail that was read after the segment was emptied, is on
 *      disk (sync.h): what replaced its records, and their copies, lie below that tail.
 *   3. Only checked records are copied. A damaged one stops compaction before it, and is told in odm_stat.
 *   4. One process compacts at a time; no lock is held between two slices.
 *
 * Threads: as the handle.
 */
#ifndef ODM_COMPACT_H
#define ODM_COMPACT_H

#include "map.h"

/* A write, and whatever work it owes: a full disk is met by compaction first. Statuses as odm__map_write. */
odm_status odm__write(struct odm_map *map, const struct write *write);
odm_status odm__clear(struct odm_map *map);

#ifdef ODM_TEST_SMALL
extern uint64_t odm__test_dead_bytes_min;
#endif

/* odm_compact. */
odm_status odm__compact(struct odm_map *map, odm_progress *progress);

/* Lets go of the segment that a handle is looking through. */
void odm__compact_close(struct odm_map *map);

#endif
