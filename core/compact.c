/* compact.c - giving space back. Contract: compact.h. */
#include "compact.h"

#include <inttypes.h>

#include "os.h"
#include "recover.h"
#include "reindex.h"
#include "status.h"
#include "sync.h"

/* The log may be twice the live bytes, or this much above them, whichever is more. */
#ifdef ODM_TEST_SMALL
uint64_t odm__test_dead_bytes_min = UINT64_C(8) * PAGE; // UINT64_MAX: compaction by writes is off
#define DEAD_BYTES_MIN odm__test_dead_bytes_min
enum { SLICE_BYTES = 128, MEASURE_BYTES = 256 };
#else
#define DEAD_BYTES_MIN (UINT64_C(64) << 20)
enum {
    SLICE_BYTES = 1024,
    MEASURE_BYTES = 16 * 1024
}; // appended by a handle between two looks, while there is work to do
#endif
enum { BATCH = 16 };                      // records judged together, so that their cache misses overlap
enum { FULL_DISK_BYTES = 64 * 1024 };     // looked through after each write while the disk is full
enum { STEP_BYTES = 1024 * 1024 };        // looked through by odm_compact between two looks at the clock
enum { CREDIT_BYTES_MAX = 1024 * 1024 };  // saved up while another process compacts
#define RETIRE_BYTES (UINT64_C(64) << 20) // emptied by odm_compact between two syncs

void odm__compact_close(struct odm_map *map)
{
    struct segment *segment = map->compaction.segment;
    map->compaction.segment = NULL;
    if (segment == NULL) return;
    odm__log_end_in_order(map->writer.log, segment);
    odm__log_release(map->writer.log, segment);
}

static struct lock_file *lock_file(const struct odm_map *map)
{
    return map->store->client.file;
}

/* ---- how much is dead --------------------------------------------------------------------------------------------- */

struct space {
    uint64_t live;     // bytes of records that count
    uint64_t log;      // from head to tail
    uint64_t kept;     // the same, less what is emptied and only waits for a sync
    uint64_t dead_max; // how much more than live the log may be
    uint64_t segment;  // size of the one that is written to
};

static uint64_t head_of(const struct odm_map *map)
{
    return atomic_load_explicit(&map->reader.index.header->head, memory_order_acquire);
}

/* False if it can not be told just now: another process has moved head meanwhile. */
static bool measure(struct odm_map *map, struct space *space)
{
    struct compaction *compaction = &map->compaction;
    struct log *log = map->writer.log;
    struct index_totals totals;
    (void)odm__index_totals(&map->reader.index, false, &totals, NULL);
    uint64_t tail = atomic_load_explicit(&lock_file(map)->tail, memory_order_acquire);
    uint64_t emptied = atomic_load_explicit(&lock_file(map)->emptied_to, memory_order_acquire);
    uint64_t head = head_of(map);
    uint64_t tail_position, emptied_position;
    struct segment *newest;
    if (head != compaction->head) {
        if (!odm__log_position(log, head, &compaction->head_position)) return false;
        compaction->head = head;
    }
    if (odm__log_segment(log, address_number(tail), &newest, NULL) != ODM_OK) return false;
    space->segment = newest->size;
    tail_position = odm__segment_position(newest, tail);
    odm__log_release(log, newest);
    emptied_position = compaction->head_position;
    if (emptied > head && !odm__log_position(log, emptied, &emptied_position)) return false;
    if (tail_position < emptied_position) return false;
    space->live = totals.live_bytes;
    space->log = tail_position - compaction->head_position;
    space->kept = tail_position - emptied_position;
    space->dead_max = space->live > DEAD_BYTES_MIN ? space->live : DEAD_BYTES_MIN;
    return true;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Dead bytes below which a full disk is not worth compacting for: the whole log may have to be written anew for a segment of
 * room. For a remove it is, as soon as there is one to be had: it is how a user gets out of a full disk. */
static uint64_t worth_of_room(const struct space *space, bool is_put)
{
    if (space->dead_max == UINT64_MAX) return UINT64_MAX;
    return is_put ? 2 * space->segment : space->segment / 4 * 5;
}

/* ---- looking through ---------------------------------------------------------------------------------------------- */

static odm_status compact_take(struct odm_map *map, uint32_t wait_ms)
{
    bool mend;
    struct lock_line *line = &lock_file(map)->compact;
    odm_status status = odm__lock_take(&map->store->client, line, wait_ms, "the compaction lock", &mend, &map->error);
    if (status != ODM_OK || !mend) return status;
    // Who died had looked at no more records than compacted_to says; what he was moving, his stripe's mender sees to.
    struct store *store = map->store;
    status = odm__recover_replacement(store, store->client.file, store->lock_fd, map->reader.index.file, &map->error);
    if (status == ODM_OK) {
        odm__lock_mended(line);
    } else {
        odm__lock_give(&store->client, line);
    }
    return status;
}

static void compact_give(struct odm_map *map)
{
    odm__lock_give(&map->store->client, &lock_file(map)->compact);
}

/* Where to look next. */
static uint64_t position(const struct odm_map *map)
{
    uint64_t at = atomic_load_explicit(&lock_file(map)->compacted_to, memory_order_relaxed);
    uint64_t head = head_of(map);
    return at > head ? at : head;
}

/* Begins to look through a segment below the tail's. */
static odm_status enter(struct odm_map *map, uint64_t number, uint64_t tail)
{
    struct compaction *compaction = &map->compaction;
    if (compaction->segment != NULL && compaction->segment->number == number) return ODM_OK;
    odm__compact_close(map);
    // What was begun in it is made good or void first. Then what no slot names now, none ever will.
    odm_status status = odm__map_settle(map, address_make(number + 1, 0));
    if (status == ODM_OK) {
        status = odm__log_successor(map->writer.log, number, tail, &compaction->end, &compaction->next, &map->error);
    }
    if (status == ODM_OK) status = odm__log_segment(map->writer.log, number, &compaction->segment, &map->error);
    if (status == ODM_NOT_FOUND) {
        status = odm__fail(&map->error, ODM_E_CORRUPT, "log/%011" PRIu64 " is missing", number);
    }
    if (status == ODM_OK) odm__log_begin_in_order(map->writer.log, compaction->segment);
    return status;
}

/* A damaged record is not copied, for that would give it a check that passes; so compaction ends here. */
static odm_status stop_at(struct odm_map *map, uint64_t address)
{
    atomic_store_explicit(&lock_file(map)->compaction_stopped_at, address, memory_order_relaxed);
    return odm__fail(&map->error, ODM_E_CORRUPT,
                     "log/%011" PRIu64 ", offset %" PRIu64 ": a damaged record, which compaction can not pass",
                     address_number(address), address_offset(address));
}

static odm_status is_named(struct odm_map *map, uint64_t hash, uint64_t address, bool *named)
{
    struct reader *reader = &map->reader;
    for (;;) {
        odm_status status = odm__index_names(&reader->index, hash, address, named, &map->error);
        if (!odm__reader_is_stale(reader)) return status;
        status = odm__reader_renew(reader, &map->error);
        if (status != ODM_OK) return status;
    }
}

struct candidate {
    struct record record;
    uint64_t hash;
};

/* Reads the headers of the next records, and fetches the slots that may name them. */
static odm_status read_batch(struct odm_map *map, uint64_t at, struct candidate batch[BATCH], unsigned *count)
{
    struct compaction *compaction = &map->compaction;
    double credit = compaction->credit;
    *count = 0;
    while (*count < BATCH && credit > 0 && at < compaction->end) {
        struct candidate *candidate = &batch[*count];
        enum record_state state =
            odm__log_read(map->writer.log, compaction->segment, at, CHECK_HEADER, &candidate->record);
        if (state != RECORD_WHOLE || candidate->record.kind == RECORD_RESERVED) {
            return *count != 0 ? ODM_OK : stop_at(map, at); // First what stands before it.
        }
        candidate->hash = 0;
        if (candidate->record.kind == RECORD_PUT) {
            candidate->hash = hash_key(candidate->record.key, candidate->record.key_size, map->reader.seed);
            odm__index_fetch(&map->reader.index, candidate->hash, false);
        }
        credit -= (double)candidate->record.size;
        at += candidate->record.size / ADDRESS_UNIT;
        ++*count;
    }
    return ODM_OK;
}

/* Moves a record if it is live. Removes and clears go: what they took away, nothing older is left of. */
static odm_status judge(struct odm_map *map, const struct candidate *candidate)
{
    bool named = false;
    if (candidate->record.kind != RECORD_PUT) return ODM_OK;
    odm_status status = is_named(map, candidate->hash, candidate->record.address, &named);
    if (status != ODM_OK || !named) return status;
    struct record record;
    if (odm__log_read(map->writer.log, map->compaction.segment, candidate->record.address, CHECK_ALL, &record) !=
        RECORD_WHOLE) {
        return stop_at(map, candidate->record.address);
    }
    status = odm__map_move(map, &record, candidate->hash);
    if (status == ODM_OK) {
        atomic_fetch_add_explicit(&lock_file(map)->compacted_bytes, record.size, memory_order_relaxed);
    }
    return status;
}

/* Looks through the oldest records that were not looked through yet, as far as the credit goes, but not into the segment
 * `limit`. The caller owns the compaction lock. */
static odm_status look_through(struct odm_map *map, uint64_t limit)
{
    struct compaction *compaction = &map->compaction;
    struct lock_file *lock = lock_file(map);
    uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_acquire);
    uint64_t at = position(map);
    // Checked, not asserted: it comes from a file.
    if (at > tail || limit > address_number(tail)) {
        return odm__fail(&map->error, ODM_E_CORRUPT,
                         "lock: compaction has come to log/%011" PRIu64 ", offset %" PRIu64
                         ", and the log ends before it",
                         address_number(at), address_offset(at));
    }
    while (compaction->credit > 0 && address_number(at) < limit) {
        odm_status status = enter(map, address_number(at), tail);
        if (status != ODM_OK) return status;
        if (at > compaction->end) return stop_at(map, at); // A record reached into where the log had left the segment.
        if (at == compaction->end) {
            at = compaction->next;
            atomic_store_explicit(&lock->compacted_to, at, memory_order_relaxed);
            // Release: partner of the acquire in odm__sync, whose tail, read later, lies above all that was moved.
            atomic_store_explicit(&lock->emptied_to, at, memory_order_release);
            continue;
        }
        struct candidate batch[BATCH];
        unsigned count = 0;
        status = read_batch(map, at, batch, &count);
        for (unsigned i = 0; status == ODM_OK && i < count; ++i) {
            status = judge(map, &batch[i]);
            if (status != ODM_OK) break;
            at += batch[i].record.size / ADDRESS_UNIT;
            compaction->credit -= (double)batch[i].record.size;
            // Killed before it: the record is judged again, and is dead by then.
            atomic_store_explicit(&lock->compacted_to, at, memory_order_relaxed);
        }
        if (status != ODM_OK) return status;
    }
    return ODM_OK;
}

/* ---- after writes ------------------------------------------------------------------------------------------------- */

static bool may_compact(const struct odm_map *map)
{
    const struct lock_file *lock = lock_file(map);
    return atomic_load_explicit(&lock->compaction_stopped_at, memory_order_relaxed) == 0 &&
           atomic_load_explicit(&lock->sync_failed, memory_order_relaxed) == 0;
}

static bool disk_is_full(const struct odm_map *map)
{
    return atomic_load_explicit(&lock_file(map)->no_space, memory_order_relaxed) != 0;
}

/* Works out whether there is something to do, and how much for each byte appended: so much that the whole log has been
 * looked through before it reaches its bound. */
static void set_pace(struct odm_map *map)
{
    struct compaction *compaction = &map->compaction;
    uint64_t appended = map->writer.appended_bytes;
    struct space space;
    compaction->measure_at = compaction->look_at = appended + MEASURE_BYTES;
    if (!measure(map, &space)) return;

    uint64_t dead = less(space.kept, space.live);
    uint64_t dead_min = space.dead_max / 4 * 3;
    if (disk_is_full(map)) dead_min = worth_of_room(&space, true);
    compaction->on = may_compact(map) && dead > dead_min;
    if (!compaction->on) {
        // Others append too, so not all that is left until then.
        uint64_t left = less(dead_min, dead) / 16;
        if (left > MEASURE_BYTES) compaction->measure_at = compaction->look_at = appended + left;
        compaction->credit = 0;
        return;
    }
    uint64_t room = less(space.live + space.dead_max, space.kept);
    if (room < space.dead_max / 32) room = space.dead_max / 32;
    compaction->rate = (double)space.kept / (double)room;
}

/* Syncs, so that emptied segments go, if the log would reach its bound before somebody else does. */
static void retire_if_due(struct odm_map *map)
{
    struct space space;
    uint64_t emptied = atomic_load_explicit(&lock_file(map)->emptied_to, memory_order_relaxed);
    if (emptied <= head_of(map) || !measure(map, &space)) return;
    bool due = less(space.log, space.live) > space.dead_max / 16 * 15;
    if (due || map->store->in_memory || disk_is_full(map)) (void)odm__sync(map);
}

/* Spends the credit, a step at a time: what a step has emptied goes before the next, if it is due. */
static void spend(struct odm_map *map, bool measured)
{
    struct compaction *compaction = &map->compaction;
    struct lock_file *lock = lock_file(map);
    while (compaction->credit > 0 && compact_take(map, UINT32_MAX) == ODM_OK) {
        double later = compaction->credit > STEP_BYTES ? compaction->credit - STEP_BYTES : 0;
        compaction->credit -= later;
        uint64_t limit = address_number(atomic_load_explicit(&lock->tail, memory_order_acquire));
        uint64_t emptied = atomic_load_explicit(&lock->emptied_to, memory_order_relaxed);
        odm_status status = look_through(map, limit);
        bool more = atomic_load_explicit(&lock->emptied_to, memory_order_relaxed) != emptied;
        bool over = address_number(position(map)) >= limit;
        compact_give(map);
        compaction->credit += later;
        if (more || measured) retire_if_due(map);
        if (status != ODM_OK || over) break;
    }
}

static void slice(struct odm_map *map)
{
    struct compaction *compaction = &map->compaction;
    const uint64_t *appended = &map->writer.appended_bytes;
    bool was_on = compaction->on;
    // With many handles none may come that far alone; so each looks again whenever the log has gone on to another segment.
    bool measured = *appended >= compaction->measure_at || compaction->segments_seen != map->writer.segments;
    if (measured) set_pace(map);
    if (compaction->on) {
        // What was appended while there was nothing to do would be too much for one put; of that no more than a slice's share.
        uint64_t earned = *appended - compaction->looked_at;
        if (!was_on && earned > SLICE_BYTES) earned = SLICE_BYTES;
        double credit = (double)earned * compaction->rate;
        if (disk_is_full(map)) credit += FULL_DISK_BYTES;
        compaction->credit += credit;
        if (compaction->credit > credit + CREDIT_BYTES_MAX) compaction->credit = credit + CREDIT_BYTES_MAX;
        spend(map, measured);
        compaction->look_at = *appended + SLICE_BYTES;
    }
    compaction->looked_at = *appended; // What was moved earns nothing.
    compaction->segments_seen = map->writer.segments;
}

/* What rolling over while records were moved has left to do. */
static void make_spares(struct odm_map *map)
{
    if (map->writer.sealed != 0) odm__log_after_rollover(&map->writer, map->reader.head);
}

static inline bool slice_is_due(const struct odm_map *map)
{
    return map->writer.appended_bytes >= map->compaction.look_at ||
           map->writer.segments != map->compaction.segments_seen;
}

static __attribute__((noinline, cold)) void upkeep_slowly(struct odm_map *map)
{
    if (!atomic_load_explicit(&map->store->attached, memory_order_relaxed)) return; // The write was refused.
    odm_error error = map->error; // What happens here is no failure of the call that led to it.
    if (map->writer.sealed != 0) {
        odm__log_after_rollover(&map->writer, map->reader.head);
        odm__sync_if_far(map);
    }
    if (slice_is_due(map)) {
        // A put waits for nobody here: who holds a lock is at work himself, and the credit is kept.
        uint32_t wait_ms = map->wait_ms;
        map->wait_ms = map->writer.wait_ms = UINT32_MAX;
        slice(map);
        map->wait_ms = map->writer.wait_ms = wait_ms;
        make_spares(map);
    }
    map->error = error;
}

/* What a write owes, while nothing is held: spares, a sync if it is overdue, a slice of compaction. */
static inline void upkeep(struct odm_map *map)
{
    bool nothing = map->writer.sealed == 0 && !slice_is_due(map);
    if (__builtin_expect(!nothing, 0)) upkeep_slowly(map);
}

/* ---- a full disk -------------------------------------------------------------------------------------------------- */

/* Retires what is emptied. False: nothing went. */
static bool retire(struct odm_map *map)
{
    uint64_t head = head_of(map);
    if (atomic_load_explicit(&lock_file(map)->emptied_to, memory_order_relaxed) <= head) return false;
    odm_status status = odm__sync(map);
    make_spares(map);
    return status == ODM_OK && head_of(map) > head;
}

/* Empties and retires the oldest segments until that is worth a segment of room, or everything was looked through once. Each
 * turn needs no more room than one segment, which the turn before has given back. True: it is worth another try. */
static __attribute__((noinline, cold)) bool make_room(struct odm_map *map, bool for_put)
{
    struct lock_file *lock = lock_file(map);
    struct space space;
    uint64_t from, at;
    if (!may_compact(map) || !measure(map, &space)) return false;
    if (less(space.log, space.live) < worth_of_room(&space, for_put)) return false;
    if (!odm__log_position(map->writer.log, position(map), &from)) return false;

    uint64_t limit = address_number(atomic_load_explicit(&lock->tail, memory_order_acquire));
    uint64_t moved = atomic_load_explicit(&lock->compacted_bytes, memory_order_relaxed);
    while (address_number(position(map)) < limit) {
        if (compact_take(map, map->wait_ms) != ODM_OK) return false;
        map->compaction.credit = FULL_DISK_BYTES;
        odm_status status = look_through(map, limit);
        map->compaction.credit = 0;
        compact_give(map);
        make_spares(map);

        uint64_t cost = atomic_load_explicit(&lock->compacted_bytes, memory_order_relaxed) - moved;
        bool known = odm__log_position(map->writer.log, position(map), &at);
        if (known && less(at, from) >= cost + space.segment) return retire(map);
        if (status == ODM_E_NO_SPACE && !retire(map)) return false;
        if (status != ODM_OK && status != ODM_E_NO_SPACE) return false;
    }
    return retire(map);
}

/* write NULL: a clear. */
static inline odm_status try_write(struct odm_map *map, const struct write *write)
{
    odm_status status = write != NULL ? odm__map_write(map, write) : odm__map_clear(map);
    upkeep(map);
    return status;
}

static inline odm_status write_with_room(struct odm_map *map, const struct write *write)
{
    odm_status status = try_write(map, write);
    if (__builtin_expect(status != ODM_E_NO_SPACE, 1)) return status;
    // It may not even have come so far that it may write: then nobody may who would make room.
    if (!atomic_load_explicit(&map->store->may_write, memory_order_relaxed)) return status;
    odm_error error = map->error;
    bool again = make_room(map, write != NULL && write->kind == RECORD_PUT);
    map->error = error;
    return again ? try_write(map, write) : status;
}

odm_status odm__write(struct odm_map *map, const struct write *write)
{
    return write_with_room(map, write);
}

odm_status odm__clear(struct odm_map *map)
{
    return write_with_room(map, NULL);
}

/* ---- odm_compact --------------------------------------------------------------------------------------------------- */

/* What odm_progress.position holds between calls. */
enum {
    AT_TARGET,  // address to compact up to
    AT_START,   // bytes of the log before its start
    AT_PHASE,   // enum phase
    AT_FAILURE, // the failed sync that this is the way back from, or 0
};
enum phase { PHASE_BEGIN, PHASE_MOVE, PHASE_RETIRE, PHASE_INDEX, PHASE_DONE };

static bool sync_has_failed(const struct odm_map *map)
{
    return atomic_load_explicit(&lock_file(map)->sync_failed, memory_order_acquire) != 0;
}

/* Settles what is to be compacted: everything that is in the log now, or nothing if nothing of it is dead. */
static odm_status begin(struct odm_map *map, odm_progress *progress)
{
    odm_status status = compact_take(map, map->wait_ms); // What stopped compaction is tried again.
    if (status != ODM_OK) return status;
    atomic_store_explicit(&lock_file(map)->compaction_stopped_at, 0, memory_order_relaxed);
    compact_give(map);

    // Before the log goes on in a new segment: all that this failure may have lost lies before that.
    status = odm__sync_failure(map, &progress->position[AT_FAILURE]);
    if (status != ODM_OK) return status;

    struct space space = {.log = 0};
    uint64_t from = position(map);
    progress->position[AT_TARGET] = from;
    // Headers of segments are not dead.
    uint64_t segments = address_number(atomic_load_explicit(&lock_file(map)->tail, memory_order_acquire)) -
                        address_number(head_of(map)) + 1;
    bool known = measure(map, &space);
    // The header of the tail's segment, too, was to be synced when that failed: with nothing behind it, it is no new one.
    bool anew = progress->position[AT_FAILURE] != 0;
    if (!known || anew || less(space.log, space.live) > segments * SEGMENT_HEADER_SIZE) {
        uint64_t *target = &progress->position[AT_TARGET];
        status = odm__log_roll(&map->writer, map->reader.head, anew, target, &map->error);
        if (status != ODM_OK) return status;
    }
    uint64_t to;
    (void)odm__log_position(map->writer.log, from, &progress->position[AT_START]);
    bool both = odm__log_position(map->writer.log, progress->position[AT_TARGET], &to);
    progress->total = both ? less(to, progress->position[AT_START]) : 0;
    progress->done = 0;
    progress->position[AT_PHASE] = PHASE_MOVE;
    return ODM_OK;
}

/* One step of moving. *over: everything below the target has been looked through. */
static odm_status move_step(struct odm_map *map, odm_progress *progress, bool *over)
{
    uint64_t target = progress->position[AT_TARGET];
    odm_status status = compact_take(map, map->wait_ms);
    if (status != ODM_OK) return status;
    map->compaction.credit = STEP_BYTES;
    status = look_through(map, address_number(target));
    map->compaction.credit = 0;
    uint64_t at = position(map), emptied = atomic_load(&lock_file(map)->emptied_to), bytes;
    compact_give(map);
    make_spares(map);
    if (odm__log_position(map->writer.log, at, &bytes)) progress->done = less(bytes, progress->position[AT_START]);
    if (progress->done > progress->total) progress->done = progress->total;
    // Only the numbers: a damaged file may have it begin before the first record of a segment.
    *over = address_number(at) >= address_number(target);

    // After a failed sync nothing can go before everything has been written anew.
    bool may_retire = emptied > head_of(map) && !sync_has_failed(map);
    if (status == ODM_E_NO_SPACE && may_retire) {
        uint64_t head = head_of(map);
        odm_status synced = odm__sync(map);
        if (synced != ODM_OK) return synced;
        make_spares(map);
        return head_of(map) != head ? ODM_OK : status;
    }
    if (status == ODM_OK && may_retire && odm__log_bytes(map->writer.log, head_of(map), emptied) >= RETIRE_BYTES) {
        status = odm__sync(map);
    }
    return status;
}

/* Makes durable what was moved, and retires what it was moved from. */
static odm_status retire_step(struct odm_map *map, odm_progress *progress)
{
    uint64_t failure = progress->position[AT_FAILURE];
    odm_status status = ODM_CONFLICT;
    if (failure != 0) {
        status = odm__sync_anew(map, progress->position[AT_TARGET], failure);
    } else if (!sync_has_failed(map)) {
        status = odm__sync(map);
    }
    if (status == ODM_OK) odm__log_unlink_below(map->writer.log, 0, head_of(map));
    progress->position[AT_PHASE] = status == ODM_OK ? PHASE_INDEX : PHASE_RETIRE;
    // A sync that failed after the moving began may have lost what was moved: all of it is to be moved once more.
    if (status == ODM_CONFLICT || status == ODM_E_IO) progress->position[AT_PHASE] = PHASE_BEGIN;
    return status == ODM_CONFLICT ? ODM_OK : status;
}

static odm_status reindex(struct odm_map *map)
{
    odm_status status = compact_take(map, map->wait_ms);
    if (status != ODM_OK) return status;
    status = odm__sync_take(map);
    if (status == ODM_OK) {
        status = odm__reindex(map);
        odm__sync_give(map);
    }
    compact_give(map);
    return status;
}

static odm_status step(struct odm_map *map, odm_progress *progress)
{
    bool over = false;
    odm_status status = ODM_OK;
    switch ((enum phase)progress->position[AT_PHASE]) {
        case PHASE_BEGIN: return begin(map, progress);
        case PHASE_MOVE:
            status = move_step(map, progress, &over);
            if (status == ODM_OK && over) progress->position[AT_PHASE] = PHASE_RETIRE;
            return status;
        case PHASE_RETIRE: return retire_step(map, progress);
        case PHASE_INDEX:
            status = reindex(map);
            if (status == ODM_E_NO_SPACE)
                status = ODM_OK; // What was asked for is done; the index stays as big as it was.
            if (status == ODM_OK) progress->position[AT_PHASE] = PHASE_DONE;
            return status;
        case PHASE_DONE: return ODM_OK;
    }
    return odm__fail(&map->error, ODM_E_INVALID, "odm_compact: progress was not zeroed before the first call");
}

odm_status odm__compact(struct odm_map *map, odm_progress *progress)
{
    odm_progress all_at_once = {.struct_size = sizeof all_at_once};
    odm_progress *state = progress != NULL ? progress : &all_at_once;
    odm_status status = odm__store_begin_writing(map->store, map->wait_ms, &map->error);
    bool unlimited = progress == NULL || progress->max_ms == 0;
    uint64_t until_ns = unlimited ? UINT64_MAX : odm__os.now_ns() + progress->max_ms * UINT64_C(1000000);
    while (status == ODM_OK) {
        status = step(map, state);
        if (status == ODM_OK && state->position[AT_PHASE] == PHASE_DONE) {
            atomic_store(&map->store->stamp_at_close, true);
            return progress != NULL ? ODM_DONE : ODM_OK;
        }
        if (status == ODM_OK && odm__os.now_ns() >= until_ns) return ODM_OK;
    }
    return status;
}
