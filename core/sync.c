/* sync.c - making the log durable. Contract: sync.h. */
#include "sync.h"

#include "os.h"
#include "status.h"

#define FAR_BYTES_MIN (UINT64_C(64) << 20)
enum { FAR_SHARE = 16 }; // of the log

static odm_status already_failed(struct odm_map *map)
{
    return odm__fail(
        &map->error, ODM_E_IO,
        "a sync of this map has failed, so writes may be lost that no later sync would tell of: odm_compact "
        "writes them anew");
}

/* Tells every process, and the next opener of this boot, that the kernel may have dropped what was to be written. */
static void note_failure(struct odm_map *map, struct meta_slot *slot)
{
    atomic_store_explicit(&map->store->client.file->sync_failed, 1, memory_order_release);
    if (odm__os.boot_id(slot->failed_boot) != 0) return;
    (void)odm__meta_write_slot(&map->store->meta, slot, NULL);
}

/* Syncs the segments from one address to another, as their headers chain them: other files that lie between are of makers
 * who are not done, or who died. */
static odm_status sync_segments(struct odm_map *map, uint64_t from, uint64_t to)
{
    struct log *log = map->writer.log;
    struct chain chain;
    odm_status status = odm__log_chain(log, from, &chain, &map->error);
    if (status != ODM_OK) return status;
    for (uint64_t address = from, end; status == ODM_OK;) {
        status = odm__log_sync_segment(log, address_number(address), &map->error);
        if (status != ODM_OK || address_number(address) == address_number(to)) break;
        odm__chain_next(&chain, address, &end, &address);
        if (end == UINT64_MAX) {
            status = odm__fail(&map->error, ODM_E_CORRUPT, "log/: no segment goes on towards the tail");
        }
    }
    odm__chain_free(&chain);
    return status == ODM_OK ? odm__directory_sync(&log->directory, &map->error) : status;
}

/* Tells readers that the map begins at another head by now, and removes the files below it. all: whatever is there, because
 * somebody died over it. */
static void tell_head(struct odm_map *map, uint64_t head, bool all)
{
    struct index_header *header = map->reader.index.header;
    uint64_t old = atomic_load_explicit(&header->head, memory_order_relaxed);
    // Head, then the counter, then the unlink: who sees the counter sees the head, and who meets a file that is gone sees the
    // counter. Killed in between: the next owner of the sync lock tells it again.
    if (head > old) atomic_store_explicit(&header->head, head, memory_order_release);
    atomic_fetch_add_explicit(&header->recycled, 1, memory_order_release);
    odm__log_unlink_below(map->writer.log, all ? 0 : old, head);
}

/* A failure that came from the disk is one that no later sync may forget. */
static odm_status fail_for_good(struct odm_map *map, struct meta_slot *slot)
{
    note_failure(map, slot);
    return map->error.status = ODM_E_IO;
}

/* Makes the log durable from the slot's watermark, or from `from`, up to the tail. */
static odm_status sync_log(struct odm_map *map, struct meta_slot *slot, uint64_t from, uint64_t tail)
{
    if (map->store->in_memory) return ODM_OK;
    // Only then is there nothing below the tail that would read as the end of the log.
    odm_status status = odm__map_settle(map, tail);
    if (status != ODM_OK) return status;
    status = sync_segments(map, from, tail);
    return status == ODM_E_IO ? fail_for_good(map, slot) : status;
}

static odm_status write_slot(struct odm_map *map, struct meta_slot *slot, const struct meta_slot *next)
{
    struct meta_slot written = *next;
    if (odm__meta_write_slot(&map->store->meta, &written, &map->error) != ODM_OK) return fail_for_good(map, slot);
    atomic_store_explicit(&map->store->client.file->synced_number, address_number(next->watermark),
                          memory_order_relaxed);
    if (next->head != slot->head) tell_head(map, next->head, false);
    return ODM_OK;
}

static odm_status read_slot(struct odm_map *map, struct meta_slot *slot)
{
    odm_status status = odm__meta_read_slot(&map->store->meta, slot, &map->error);
    if (status != ODM_OK || slot->head != 0) return status;
    return odm__fail(&map->error, ODM_E_CORRUPT, "meta: its newer slot is lost");
}

/* Whether head may be moved there. Asked, because it is a number in the lock file: a wrong one would give the log away. */
static odm_status check_emptied(struct odm_map *map, uint64_t emptied, uint64_t tail)
{
    uint64_t position;
    bool begins_a_segment = emptied <= tail && address_offset(emptied) == SEGMENT_HEADER_SIZE &&
                            odm__log_position(map->writer.log, emptied, &position);
    if (begins_a_segment) return ODM_OK;
    return odm__fail(&map->error, ODM_E_CORRUPT, "lock: the log is said to begin at %llx, which is no segment of it",
                     (unsigned long long)emptied);
}

static odm_status sync_to(struct odm_map *map, uint64_t tail, uint64_t emptied)
{
    if (atomic_load_explicit(&map->store->client.file->sync_failed, memory_order_acquire) != 0) {
        return already_failed(map);
    }
    struct meta_slot slot;
    odm_status status = read_slot(map, &slot);
    bool covered = status == ODM_OK && slot.watermark >= tail;
    if (status != ODM_OK || (covered && emptied <= slot.head)) return status;
    if (emptied > slot.head) status = check_emptied(map, emptied, tail);
    if (status != ODM_OK) return status;

    struct meta_slot next = slot;
    if (!covered) {
        status = sync_log(map, &slot, slot.watermark, tail);
        next.watermark = tail;
    }
    if (emptied > slot.head) next.head = emptied;
    return status == ODM_OK ? write_slot(map, &slot, &next) : status;
}

odm_status odm__sync_take(struct odm_map *map)
{
    struct lock_line *line = &map->store->client.file->sync;
    bool mend;
    odm_status status = odm__lock_take(&map->store->client, line, map->wait_ms, "the sync lock", &mend, &map->error);
    if (status != ODM_OK) return status;
    // Where head is told must be the newest index; it is replaced only by who holds this lock, and may have died over it.
    if (mend) status = odm__map_mend_replacement(map);
    if (status == ODM_OK && odm__reader_is_stale(&map->reader)) status = odm__reader_renew(&map->reader, &map->error);
    if (status == ODM_OK && mend) {
        struct meta_slot slot;
        // What the dead wrote to `meta` may be in memory only, and would be believed from there.
        status = read_slot(map, &slot);
        if (status == ODM_OK && odm__os.sync_data(map->store->meta.fd) != 0) {
            (void)odm__fail_os(&map->error, "sync", "meta");
            status = fail_for_good(map, &slot);
        }
        if (status == ODM_OK) {
            tell_head(map, slot.head, true);
            odm__lock_mended(line);
        }
    }
    if (status != ODM_OK) odm__lock_give(&map->store->client, line);
    return status;
}

void odm__sync_give(struct odm_map *map)
{
    odm__lock_give(&map->store->client, &map->store->client.file->sync);
}

odm_status odm__sync(struct odm_map *map)
{
    odm_status status = odm__store_attach(map->store, &map->error);
    if (status != ODM_OK) return status;
    struct lock_file *lock = map->store->client.file;
    // Acquire: partner of the release that stores it. Before the tail: so all that was moved out of what was emptied, and all
    // that replaced its records, lies below the tail.
    uint64_t emptied = atomic_load_explicit(&lock->emptied_to, memory_order_acquire);
    // Acquire: partner of the release that moves the tail. Before the lock: another's sync may cover it.
    uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_acquire);
    if (map->store->in_memory && emptied <= atomic_load(&map->reader.index.header->head)) return ODM_OK;
    status = odm__sync_take(map);
    if (status != ODM_OK) return status;
    status = sync_to(map, tail, emptied);
    odm__sync_give(map);
    return status;
}

/* Each failure is noted in a slot of its own, and so is the end of one. */
static uint64_t failure_of(const struct odm_map *map, const struct meta_slot *slot)
{
    bool failed = atomic_load_explicit(&map->store->client.file->sync_failed, memory_order_acquire) != 0;
    return failed ? slot->sequence + 1 : 0;
}

odm_status odm__sync_failure(struct odm_map *map, uint64_t *failure)
{
    struct meta_slot slot;
    odm_status status = read_slot(map, &slot);
    if (status == ODM_OK) *failure = failure_of(map, &slot);
    return status;
}

odm_status odm__sync_anew(struct odm_map *map, uint64_t first, uint64_t failure)
{
    struct lock_file *lock = map->store->client.file;
    odm_status status = odm__sync_take(map);
    if (status != ODM_OK) return status;
    uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_acquire);
    struct meta_slot slot;
    status = read_slot(map, &slot);
    if (status == ODM_OK && failure_of(map, &slot) != failure) status = ODM_CONFLICT;
    if (status == ODM_OK) status = sync_log(map, &slot, first, tail);
    if (status == ODM_OK) {
        struct meta_slot next = slot;
        next.head = first;
        next.watermark = tail;
        next.failed_boot[0] = next.failed_boot[1] = 0;
        status = write_slot(map, &slot, &next);
    }
    // Killed before it: syncs go on failing, and odm_compact can be called again.
    if (status == ODM_OK) atomic_store_explicit(&lock->sync_failed, 0, memory_order_release);
    odm__sync_give(map);
    return status;
}

void odm__sync_if_far(struct odm_map *map)
{
    struct store *store = map->store;
    struct meta_slot slot;
    if (store->in_memory || atomic_load(&store->client.file->sync_failed) != 0) return;
    if (odm__meta_read_slot(&store->meta, &slot, NULL) != ODM_OK) return;
    uint64_t tail = atomic_load_explicit(&store->client.file->tail, memory_order_acquire);
    uint64_t unsynced = odm__log_bytes(&store->log, slot.watermark, tail);
    uint64_t all = odm__log_bytes(&store->log, slot.head, tail);
    if (unsynced > FAR_BYTES_MIN && unsynced > all / FAR_SHARE) {
        // A put must not wait for it: whoever holds the lock is syncing, too.
        uint32_t wait_ms = map->wait_ms;
        map->wait_ms = map->writer.wait_ms = UINT32_MAX;
        (void)odm__sync(map);
        map->wait_ms = map->writer.wait_ms = wait_ms;
    }
}
