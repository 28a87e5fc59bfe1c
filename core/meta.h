/* meta.h - the file `meta`: what a map is, and how much of it is known to be on disk.
 *
 * Calls file.h. The fixed part is written once, when the map is made. The slot {head, watermark, stamp, failed sync} is
 * written in turn to two places, so that a torn write leaves the one before.
 *
 * What always holds: who writes a slot holds the sync lock, or the exclusive file lock on meta with no writer attached.
 */
#ifndef ODM_META_H
#define ODM_META_H

#include <stdbool.h>

#include "file.h"
#include "format.h"

struct meta {
    int fd;
    struct meta_fixed fixed;
};

/* Fills in what a new map is: its random id and seed, and what the options ask for. */
odm_status odm__meta_make(struct meta_fixed *fixed, const odm_options *options, odm_error *error);

/* Makes the file, with a first slot, under a temporary name and gives it its own. ODM_EXISTS if another opener was first. */
odm_status odm__meta_create(const struct directory *directory, const struct meta_fixed *fixed,
                            const struct meta_slot *first, odm_error *error);

/* Opens and checks it: magic, byte order, version, features, geometry, hash. ODM_NOT_FOUND if there is none. */
odm_status odm__meta_open(const struct directory *directory, bool writable, struct meta *meta, odm_error *error);
void odm__meta_close(struct meta *meta);

odm_status odm__meta_read_slot(const struct meta *meta, struct meta_slot *slot, odm_error *error);
/* Writes the slot after `slot->sequence`, syncs it, and counts the sequence up. */
odm_status odm__meta_write_slot(const struct meta *meta, struct meta_slot *slot, odm_error *error);

/* ODM_E_MISMATCH, showing both, unless the options ask for no schema or for this one. */
odm_status odm__meta_check_schema(const struct meta_fixed *fixed, const odm_options *options, odm_error *error);

#endif
