/* salvage.h - keeping what is whole of a damaged map. Only when asked for, with ODM_SALVAGE.
 *
 * Calls verify.h, copy.h, recover.h, meta.h, log.h. What is whole is copied to a new map beside the damaged one; then
 * the two change names, so that nothing of the damaged one is lost.
 *
 * Behind damage one reads on up to the bound: the watermark or, if the lock file can be believed, the tail. What a
 * damaged header of a segment said is taken from its neighbours; its records are known by their own checks.
 *
 * What always holds:
 *   1. The damaged files are not changed, only their directory's name.
 *   2. Nobody else writes to the map, from before it is read until the names are changed; who waits for that finds out.
 *   3. Above the bound nothing behind the first gap is kept. What was once cut off does not come back, unless both slots
 *      of meta are lost, or the headers of two segments in a row.
 *
 * Threads: any.
 */
#ifndef ODM_SALVAGE_H
#define ODM_SALVAGE_H

#include "map.h"

/* Before the map is opened: sees to it that a whole one lies at `path`, if it does not already. */
odm_status odm__salvage(const char *path, const odm_options *options, odm_error *error);

#endif
