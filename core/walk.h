/* walk.h - walking over a map, chunk by chunk in the order of the hash.
 *
 * Calls reader.h and index.h. A chunk is copied, together with a reference on each segment it names; each of its entries is
 * then checked against the live slot. Unchanged: returned. Changed: looked up by its key. So values are current, keys that
 * are there throughout come exactly once, and keys that were removed do not come.
 *
 * Threads: an iterator belongs to its handle.
 */
#ifndef ODM_WALK_H
#define ODM_WALK_H

#include "map.h"

/* The map is closed: its iterators answer ODM_E_INVALID from now on, and hold nothing. */
void odm__walk_orphan(struct odm_map *map);

#endif
