/* salvage.h - keeping what is whole of a damaged map. Only when asked for, with ODM_SALVAGE.
 *
 * Calls verify.h, copy.h, meta.h, log.h. What is whole is copied to a new map beside the damaged one; then the two change names, so
 * that nothing of the damaged one is lost.
 *
 * What always holds: the damaged files are not changed, only their directory's name. Nobody else has the map open meanwhile.
 *
 * Threads: any.
 */
#ifndef ODM_SALVAGE_H
#define ODM_SALVAGE_H

#include "map.h"

/* Before the map is opened: sees to it that a whole one lies at `path`, if it does not already. */
odm_status odm__salvage(const char *path, const odm_options *options, odm_error *error);

#endif
