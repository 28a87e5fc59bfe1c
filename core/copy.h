/* copy.h - writing a map anew into a directory of its own, record by record. For backups, and for salvage.
 *
 * Calls recover.h, stamp.h, meta.h, log.h, file.h. Knows nothing of where the records come from.
 *
 * What always holds: the target has no `meta` before all else is on disk, so it is no map until it is whole. Until then a file named
 * COPY_MARK, locked while its maker lives, tells that the other files are remnants of a copy; without it, or where
 * `meta` is, nothing that lies in a directory is touched.
 *
 * Threads: a copy belongs to one, and to the process that began it: a child made by fork only frees it.
 */
#ifndef ODM_COPY_H
#define ODM_COPY_H

#include "recover.h"

#define COPY_MARK "copy.part"

struct copy;

/* Makes the directory, or takes one that is empty or holds a remnant. source: whose map it is, whose files' mode it gets.
 * ODM_EXISTS: there is a map; ODM_E_INVALID: there is something else; ODM_E_BUSY: another copy is just being made there. */
odm_status odm__copy_begin(const struct store *source, const char *path, uint64_t head, uint64_t capacity,
                           struct copy **result, odm_error *error);

/* Begins a segment that goes on where the one before ended. */
odm_status odm__copy_segment(struct copy *copy, const struct segment *segment, uint64_t predecessor_end,
                             odm_error *error);
/* Copies a whole record to its place in the segment. A reserved one becomes a filler. Its bytes stay mapped until odm__copy_settle. */
odm_status odm__copy_record(struct copy *copy, const struct record *record, odm_error *error);
/* Fills room of which nothing could be kept. */
odm_status odm__copy_fill(struct copy *copy, uint64_t address, uint64_t end, odm_error *error);
/* Takes what was copied into the index. */
odm_status odm__copy_settle(struct copy *copy, odm_error *error);
/* All of the segment has been copied, up to here. */
odm_status odm__copy_segment_end(struct copy *copy, uint64_t end, odm_error *error);

/* Makes it durable, and a map. report: what its statistics say of where it came from, or NULL. */
struct copy_report {
    uint32_t recovery_kind;
    uint64_t records, bytes_cut, from;
};
odm_status odm__copy_finish(struct copy *copy, const struct copy_report *report, odm_error *error);
/* Frees it; what was not finished is removed, but by a child made by fork. */
void odm__copy_free(struct copy *copy);
/* This is a child made by fork, and the copy its parent's. */
bool odm__copy_is_inherited(const struct copy *copy);

#endif
