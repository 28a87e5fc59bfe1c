/* damage.h - fuzz targets that damage the files of a map: what the input says is done to them, and what must hold after.
 *
 * A map is made once: some writes, a sync, more writes. Each input then is a list of edits of a copy of its files, and a way
 * to open it. An edit changes bytes; or it forges what a check would else refuse: a record, a header or a slot of `meta`
 * whose check is right. Whatever was done: statuses, no crash, no hang, no read outside the map. If nothing was forged,
 * besides: every value that is given is one that was put, and a rebuild shows a prefix of the writes with all that was
 * synced, or refuses; and it shows the same the next time.
 */
#ifndef ODM_TEST_DAMAGE_H
#define ODM_TEST_DAMAGE_H

#include <stddef.h>
#include <stdint.h>

/* Which file the edits are of. */
enum damaged { DAMAGED_LOG, DAMAGED_INDEX, DAMAGED_META, DAMAGED_LOCK };

int damage_try(enum damaged damaged, const uint8_t *bytes, size_t size);

#endif
