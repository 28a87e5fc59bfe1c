/* close.h - what the last writer of a map does before it goes: it leaves a stamp, if a rebuild would be felt.
 *
 * Calls map.h, sync.h, stamp.h. The exclusive file lock on meta, which is only tried, says whether it is the last.
 *
 * Threads: the handle is used by nobody else.
 */
#ifndef ODM_CLOSE_H
#define ODM_CLOSE_H

#include "map.h"

/* Before the handle is freed. ODM_OK: stamped, or no stamp is due: others go on, the log is short, or a sync has failed. Any other
 * status: there is no stamp, and nothing else is amiss. */
odm_status odm__close_stamp(struct odm_map *map);

#endif
