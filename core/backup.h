/* backup.h - a copy of a map while others write: its log up to the tail as it was at the first step, and an index, stamped.
 *
 * Calls job.h, copy.h. What is copied is checked. A record that is only reserved when its turn comes becomes a filler in the copy: its
 * writer had not returned when the backup began, and nobody has to be waited for. Compaction goes on meanwhile; what it retires takes
 * disk space until it was copied.
 *
 * Threads: as the handle.
 */
#ifndef ODM_BACKUP_H
#define ODM_BACKUP_H

#include "map.h"

/* odm_backup: ODM_DONE only with progress. */
odm_status odm__backup(struct odm_map *map, const char *path, odm_progress *progress);

#endif
