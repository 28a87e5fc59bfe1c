/* job.h - long work in steps: what a handle keeps between two of them.
 *
 * Calls map.h, log.h. A handle has one job at most. It ends when it is done or has failed, when another begins, and when the handle
 * is refreshed or closed, for a job holds segments.
 *
 * Threads: as the handle.
 */
#ifndef ODM_JOB_H
#define ODM_JOB_H

#include "map.h"

/* First in the struct of each kind of job. */
struct job {
    void (*free)(struct odm_map *map, struct job *job);
    uint64_t number;   // what the caller's odm_progress knows it by
    uint64_t until_ns; // when the present step should be over
};

/* The job that `progress` goes on with, known by its free; *job is NULL if it begins one: then whatever the handle had is ended.
 * ODM_E_INVALID: it has ended. */
odm_status odm__job_find(struct odm_map *map, const odm_progress *progress, const char *what,
                         void (*free)(struct odm_map *map, struct job *job), struct job **job);
/* Makes it the handle's. */
void odm__job_begin(struct odm_map *map, struct job *job, odm_progress *progress);
/* The present step ends after max_ms, or when all is done. */
void odm__job_set_clock(struct job *job, const odm_progress *progress);
bool odm__job_is_late(const struct job *job);
/* Ends what the handle has, if anything. */
void odm__job_end(struct odm_map *map);

/* ---- the log as it was when a job began -------------------------------------------------------------------------------- */

/* A part of the log. Where there is no segment, one is missing or its header is damaged. */
struct job_segment {
    struct segment *segment;
    uint64_t number;
    uint64_t first; // address of its first record that is of the log
    uint64_t end;   // address at which the log leaves it; UINT64_MAX: no segment goes on from it
    bool entered;   // it is being read
};
struct job_log {
    struct job_segment *segments; // with a reference on each
    size_t count;
    uint64_t head;
    uint64_t tail;
    struct meta_slot slot;
};

/* The address up to which the log is known to this handle. */
odm_status odm__job_tail(struct odm_map *map, uint64_t *tail);
odm_status odm__job_hold_log(struct odm_map *map, struct job_log *log);
void odm__job_release_log(struct odm_map *map, struct job_log *log);
/* A segment is read from here on, in order. */
void odm__job_enter(struct odm_map *map, struct job_segment *held);
/* It is needed no more: compaction may have it. */
void odm__job_leave(struct odm_map *map, struct job_segment *held);

#endif
