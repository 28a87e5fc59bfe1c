/* scratch.h - a directory for the maps of a fuzz target, and a world in which the same input does the same.
 */
#ifndef ODM_TEST_SCRATCH_H
#define ODM_TEST_SCRATCH_H

#include <stdbool.h>

/* Whether the maps lie in memory (ramdisk.h), or in files of the real kernel. If it is not chosen: in memory, unless
 * ODM_TEST_REAL_FILES is in the environment. */
void scratch_choose(bool in_memory);
/* Fixed random bytes, and the lies of image.h. What lies at scratch_map_path is removed. */
void scratch_begin(void);
/* Removes what lies there again. */
void scratch_end(void);
const char *scratch_map_path(void);

#endif
