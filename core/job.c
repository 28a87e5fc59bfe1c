/* job.c - long work in steps. Contract: job.h. */
#include "job.h"

#include <stdlib.h>

#include "os.h"
#include "status.h"

enum { AT_NUMBER }; // of odm_progress.position

odm_status odm__job_find(struct odm_map *map, const odm_progress *progress, const char *what,
                         void (*free)(struct odm_map *map, struct job *job), struct job **job)
{
    *job = NULL;
    uint64_t number = progress == NULL ? 0 : progress->position[AT_NUMBER];
    if (number == 0) {
        odm__job_end(map);
        return ODM_OK;
    }
    if (map->job == NULL || map->job->number != number || map->job->free != free) {
        return odm__fail(
            &map->error, ODM_E_INVALID,
            "%s: what `progress` goes on with has ended: by a refresh, an error, or other long work. Begin "
            "anew, with a progress of zeros",
            what);
    }
    *job = map->job;
    return ODM_OK;
}

void odm__job_begin(struct odm_map *map, struct job *job, odm_progress *progress)
{
    assert(map->job == NULL);
    job->number = ++map->job_count;
    map->job = job;
    if (progress != NULL) progress->position[AT_NUMBER] = job->number;
}

void odm__job_set_clock(struct job *job, const odm_progress *progress)
{
    bool unlimited = progress == NULL || progress->max_ms == 0;
    job->until_ns = unlimited ? UINT64_MAX : odm__os.now_ns() + progress->max_ms * UINT64_C(1000000);
}

bool odm__job_is_late(const struct job *job)
{
    return job->until_ns != UINT64_MAX && odm__os.now_ns() >= job->until_ns;
}

void odm__job_end(struct odm_map *map)
{
    struct job *job = map->job;
    map->job = NULL;
    if (job != NULL) job->free(map, job);
}

/* ---- the log -------------------------------------------------------------------------------------------------------- */

/* Once the stamp is gone that this handle came in by, what writers share is to be believed. */
static odm_status look_for_lock(struct odm_map *map)
{
    struct store *store = map->store;
    struct index_file *index;
    odm_status status = odm__store_index(store, &index, &map->error); // It looks.
    if (status != ODM_OK) return status;
    odm__store_index_release(store, index);
    if (store->lock_is_current) return ODM_OK;
    // Who went by the watermark would leave out, without a word, what was written since.
    return odm__fail(
        &map->error, ODM_E_BUSY,
        "%s is just being rebuilt, or that was broken off, so it can not be told where its log ends: try again, "
        "or open it anew",
        store->path);
}

/* What writers share says where the log ends, if this handle can see it; else what the index was built from. */
odm_status odm__job_tail(struct odm_map *map, uint64_t *tail)
{
    struct store *store = map->store;
    if (!store->read_only) {
        *tail = atomic_load_explicit(&store->client.file->tail, memory_order_acquire);
        return ODM_OK;
    }
    if (store->private_index) {
        *tail = store->log_end;
        return ODM_OK;
    }
    if (!store->lock_is_current) {
        struct meta_slot slot;
        odm_status status = odm__meta_read_slot(&store->meta, &slot, &map->error);
        if (status != ODM_OK) return status;
        *tail = slot.watermark;
        if (!stamp_is_none(slot.stamp)) return ODM_OK; // Under it nothing is written.
        status = look_for_lock(map);
        // A closing writer may have put a stamp in between.
        if (status == ODM_E_BUSY && odm__meta_read_slot(&store->meta, &slot, &map->error) == ODM_OK &&
            !stamp_is_none(slot.stamp)) {
            *tail = slot.watermark;
            return ODM_OK;
        }
        if (status != ODM_OK) return status;
    }
    int fd;
    odm_status status = odm__file_open(&store->directory, "lock", false, &fd, &map->error);
    if (status == ODM_NOT_FOUND) status = odm__fail(&map->error, ODM_E_CORRUPT, "lock is missing");
    if (status != ODM_OK) return status;
    ssize_t size = odm__os.read_at(fd, tail, sizeof *tail, offsetof(struct lock_file, tail));
    if (size != (ssize_t)sizeof *tail) status = odm__fail_os(&map->error, "read", "lock");
    odm__os.close(fd);
    return status;
}

static const struct chain_link *chain_find(const struct chain *chain, uint64_t number)
{
    for (size_t i = 0; i < chain->count; ++i) {
        if (chain->links[i].number == number) return chain->links[i].whole ? &chain->links[i] : NULL;
    }
    return NULL;
}

/* The first segment after a gap; 0 if there is none up to the tail's. */
static uint64_t chain_after(const struct chain *chain, uint64_t number, uint64_t tail)
{
    for (size_t i = 0; i < chain->count; ++i) {
        const struct chain_link *link = &chain->links[i];
        if (link->number > number && link->number <= address_number(tail) && link->whole) return link->number;
    }
    return 0;
}

static odm_status hold_chain(struct odm_map *map, struct job_log *log, const struct chain *chain)
{
    uint64_t address = log->head;
    while (address != 0) {
        struct job_segment *more = realloc(log->segments, (log->count + 1) * sizeof *more);
        if (more == NULL) return odm__fail(&map->error, ODM_E_NO_MEMORY, "out of memory");
        log->segments = more;
        struct job_segment *held = &more[log->count++];
        uint64_t number = address_number(address);
        *held = (struct job_segment){.number = number, .first = address, .end = UINT64_MAX};
        if (chain_find(chain, number) != NULL) {
            odm_status status = odm__log_segment(map->writer.log, number, &held->segment, &map->error);
            if (status != ODM_OK) held->segment = NULL;
            if (status != ODM_OK && status != ODM_NOT_FOUND) return status;
        }
        uint64_t next = UINT64_MAX;
        if (number == address_number(log->tail)) {
            held->end = log->tail;
        } else if (held->segment != NULL) {
            odm__chain_next(chain, address, &held->end, &next);
        }
        // Checked, not asserted: both come from files. Who believed it would look for records far behind the segment.
        bool outside =
            held->segment != NULL && held->end != UINT64_MAX && address_offset(held->end) > held->segment->size;
        if (outside) held->end = UINT64_MAX;
        if (number == address_number(log->tail)) return ODM_OK;
        if (next == UINT64_MAX) {
            uint64_t after = chain_after(chain, number, log->tail);
            next = after == 0 ? 0 : address_make(after, SEGMENT_HEADER_SIZE);
        }
        address = next;
    }
    return ODM_OK;
}

static bool is_complete(const struct job_log *log)
{
    for (size_t i = 0; i < log->count; ++i) {
        if (log->segments[i].segment == NULL || log->segments[i].end == UINT64_MAX) return false;
    }
    return log->count == 0 || log->segments[log->count - 1].number == address_number(log->tail);
}

odm_status odm__job_hold_log(struct odm_map *map, struct job_log *log)
{
    for (;;) {
        *log = (struct job_log){.count = 0};
        odm_status status = odm__reader_renew(&map->reader, &map->error);
        if (status == ODM_OK) status = odm__meta_read_slot(&map->store->meta, &log->slot, &map->error);
        // The tail before the chain is read: every segment up to it has its header.
        if (status == ODM_OK) status = odm__job_tail(map, &log->tail);
        log->head = map->reader.head;
        struct chain chain;
        if (status == ODM_OK) status = odm__log_chain(map->writer.log, log->head, &chain, &map->error);
        if (status != ODM_OK) return status;
        status = hold_chain(map, log, &chain);
        odm__chain_free(&chain);
        // Compaction may have taken the oldest away meanwhile.
        bool moved = odm__reader_is_stale(&map->reader);
        if (status == ODM_OK && (is_complete(log) || !moved)) return ODM_OK;
        odm__job_release_log(map, log);
        if (status != ODM_OK) return status;
    }
}

void odm__job_enter(struct odm_map *map, struct job_segment *held)
{
    if (held->segment == NULL) return;
    odm__log_begin_in_order(map->writer.log, held->segment);
    held->entered = true;
}

void odm__job_leave(struct odm_map *map, struct job_segment *held)
{
    struct job_segment left = *held;
    // Forgotten first: a child forked meanwhile closes the handle, and must not give it back once more.
    held->segment = NULL;
    held->entered = false;
    kill_fence();
    if (left.entered) odm__log_end_in_order(map->writer.log, left.segment);
    if (left.segment != NULL) odm__log_release(map->writer.log, left.segment);
}

void odm__job_release_log(struct odm_map *map, struct job_log *log)
{
    for (size_t i = 0; i < log->count; ++i) odm__job_leave(map, &log->segments[i]);
    free(log->segments);
    *log = (struct job_log){.count = 0};
}
