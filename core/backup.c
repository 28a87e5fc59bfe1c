/* backup.c - a copy of a map while others write. Contract: backup.h. */
#include "backup.h"

#include <inttypes.h>
#include <stdlib.h>

#include "copy.h"
#include "job.h"
#include "os.h"
#include "status.h"

enum { COPY_STEP_BYTES = 256 * 1024 }; // copied between two looks at the clock

struct backup {
    struct job job;
    struct job_log log;
    struct copy *copy;
    bool stepping;  // a thread is at it
    size_t segment; // being copied
    uint64_t address;
    uint64_t done, total;
};

static void backup_free(struct odm_map *map, struct job *job)
{
    struct backup *backup = (struct backup *)(void *)job;
    odm__job_release_log(map, &backup->log);
    // In a child, while a thread of the parent is at it: it may be half changed, and is left alone.
    bool torn = backup->stepping && backup->copy != NULL && odm__copy_is_inherited(backup->copy);
    if (backup->copy != NULL && !torn) odm__copy_free(backup->copy);
    free(backup);
}

static odm_status damaged(struct odm_map *map, uint64_t address)
{
    return odm__fail(&map->error, ODM_E_CORRUPT,
                     "log/%011" PRIu64 ", offset %" PRIu64 ": a damaged record can not be copied: odm_verify tells how "
                     "much is damaged, ODM_SALVAGE keeps the rest",
                     address_number(address), address_offset(address));
}

static odm_status backup_begin(struct odm_map *map, const char *path, odm_progress *progress, struct backup **begun)
{
    struct backup *backup = calloc(1, sizeof *backup);
    if (backup == NULL) return odm__fail(&map->error, ODM_E_NO_MEMORY, "out of memory");
    backup->job.free = backup_free;
    odm_status status = odm__job_hold_log(map, &backup->log);
    for (size_t i = 0; status == ODM_OK && i < backup->log.count; ++i) {
        const struct job_segment *held = &backup->log.segments[i];
        if (held->segment == NULL || held->end == UINT64_MAX) {
            status = damaged(map, held->first);
        } else {
            backup->total += (held->end - held->first) * ADDRESS_UNIT;
        }
    }
    if (status == ODM_OK && backup->log.count == 0) {
        status = odm__fail(&map->error, ODM_E_CORRUPT, "meta: its newer slot is lost");
    }
    struct index_totals totals;
    if (status == ODM_OK) status = odm__index_totals(&map->reader.index, false, &totals, &map->error);
    if (status == ODM_OK) {
        uint64_t capacity = map->store->meta.fixed.capacity;
        if (totals.count > capacity) capacity = totals.count;
        status = odm__copy_begin(map->store, path, backup->log.head, capacity, &backup->copy, &map->error);
    }
    if (status != ODM_OK) {
        backup_free(map, &backup->job);
        return status;
    }
    odm__job_begin(map, &backup->job, progress);
    *begun = backup;
    return ODM_OK;
}

/* Copies on, some of a segment. */
static odm_status copy_some(struct odm_map *map, struct backup *backup)
{
    struct job_segment *held = &backup->log.segments[backup->segment];
    odm_status status = ODM_OK;
    if (backup->address == 0) {
        backup->address = held->first;
        odm__job_enter(map, held);
        uint64_t before = backup->segment == 0 ? 0 : backup->log.segments[backup->segment - 1].end;
        status = odm__copy_segment(backup->copy, held->segment, before, &map->error);
    }
    uint64_t until = backup->address + COPY_STEP_BYTES / ADDRESS_UNIT;
    while (status == ODM_OK && backup->address < held->end && backup->address < until) {
        struct record record;
        enum record_state state = odm__log_read(map->writer.log, held->segment, backup->address, CHECK_ALL, &record);
        if (state != RECORD_WHOLE || record.size / ADDRESS_UNIT > held->end - backup->address) {
            return damaged(map, backup->address);
        }
        status = odm__copy_record(backup->copy, &record, &map->error);
        backup->address += record.size / ADDRESS_UNIT;
        backup->done += record.size;
    }
    if (status == ODM_OK) status = odm__copy_settle(backup->copy, &map->error);
    if (status != ODM_OK || backup->address < held->end) return status;
    status = odm__copy_segment_end(backup->copy, held->end, &map->error);
    odm__job_leave(map, held);
    backup->address = 0;
    ++backup->segment;
    return status;
}

odm_status odm__backup(struct odm_map *map, const char *path, odm_progress *progress)
{
    struct job *job;
    odm_status status = odm__job_find(map, progress, "odm_backup", backup_free, &job);
    struct backup *backup = (struct backup *)(void *)job;
    if (status == ODM_OK && backup != NULL && odm__copy_is_inherited(backup->copy)) {
        odm__job_end(map);
        return odm__fail(
            &map->error, ODM_E_INVALID,
            "odm_backup: what `progress` goes on with belongs to the process that this one was forked from. "
            "Begin anew, with a progress of zeros");
    }
    if (status == ODM_OK && backup == NULL) status = backup_begin(map, path, progress, &backup);
    if (status != ODM_OK) return status;
    backup->stepping = true;
    odm__job_set_clock(&backup->job, progress);

    bool over = false;
    while (status == ODM_OK && !over) {
        if (backup->segment < backup->log.count) {
            status = copy_some(map, backup);
        } else {
            status = odm__copy_finish(backup->copy, NULL, &map->error);
            over = status == ODM_OK;
        }
        if (odm__job_is_late(&backup->job)) break;
    }
    if (progress != NULL) {
        progress->done = backup->done;
        progress->total = backup->total;
    }
    if (status == ODM_OK && !over) {
        backup->stepping = false;
        return ODM_OK; // Called again, it goes on.
    }
    odm__job_end(map);
    if (progress != NULL) progress->position[0] = 0;
    return status == ODM_OK && progress != NULL ? ODM_DONE : status;
}
