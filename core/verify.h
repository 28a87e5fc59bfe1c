/* verify.h - looking at everything: every record of the log, every slot of the index, every count, the chain of segments.
 *
 * Calls job.h, reader.h, index.h, log.h. Others may write meanwhile. Nothing is changed, but that what dead writers left is mended
 * where a lock of theirs is taken.
 *
 * What always holds: what is reported is damage. Something that looks wrong counts only if it is seen again while nothing was
 * recycled and the slot has not changed, or while the stripe's lock is held.
 *
 * Threads: as the handle.
 */
#ifndef ODM_VERIFY_H
#define ODM_VERIFY_H

#include "map.h"

/* odm_verify: ODM_DONE only with progress. report may be NULL. */
odm_status odm__verify(struct odm_map *map, odm_report *report, odm_progress *progress);

#endif
