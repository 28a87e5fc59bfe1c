/* sync.h - making the log durable.
 *
 * Calls map.h, log.h, meta.h, lock.h. Who waited and finds his writes synced by another is done: one sync serves all.
 *
 * What always holds: the watermark in `meta` is a position below which every byte of the log is on disk. Who writes `meta`
 * holds the sync lock. A failed sync is remembered in shared memory for every process, because the kernel answers a second
 * try with a false success.
 */
#ifndef ODM_SYNC_H
#define ODM_SYNC_H

#include "map.h"

/* What compaction has emptied leaves the map on the way. */
odm_status odm__sync(struct odm_map *map);

/* Which failed sync it is that makes all others fail; 0 if none has failed, or all was written anew since. */
odm_status odm__sync_failure(struct odm_map *map, uint64_t *failure);

/* After this failed sync, once everything live was written anew from the segment that begins at `first` on: syncs that, makes
 * it the head, and forgets the failure. ODM_CONFLICT: it is another failure by now, or none, so what was written anew counts
 * for nothing. */
odm_status odm__sync_anew(struct odm_map *map, uint64_t first, uint64_t failure);

/* Takes the sync lock, and mends what a dead owner left: one of two slots of meta torn, or head moved without telling. Then the
 * handle's index is the newest. */
odm_status odm__sync_take(struct odm_map *map);
void odm__sync_give(struct odm_map *map);

/* After a rollover: syncs if so much lies above the watermark that losing it to one bad sector would hurt. */
void odm__sync_if_far(struct odm_map *map);

#endif
