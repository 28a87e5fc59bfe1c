/* reindex.h - a new index of the proper size in the place of the one an open map has.
 *
 * Calls map.h, index.h, recover.h. An index only grows by itself; odm_compact ends with this.
 *
 * What always holds: while names change, `replacing` is set in the lock file and the owner has the compaction lock, the sync lock
 * and all stripes'. Should he die, nobody gets a stripe before the replacement is finished or taken back (recover.h); so no two
 * clients ever write to two different indexes.
 *
 * Threads: as the handle.
 */
#ifndef ODM_REINDEX_H
#define ODM_REINDEX_H

#include "map.h"

/* Replaces the index if that makes it smaller by a quarter. Nobody writes meanwhile; readers go on. Nothing is done where the file
 * system can not exchange two names. The caller owns the compaction lock and the sync lock. */
odm_status odm__reindex(struct odm_map *map);

#endif
