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

static odm_status sync_to(struct odm_map *map, uint64_t tail)
{
    struct store *store = map->store;
    if (atomic_load_explicit(&store->client.file->sync_failed, memory_order_acquire) != 0) return already_failed(map);
    struct meta_slot slot;
    odm_status status = odm__meta_read_slot(&store->meta, &slot, &map->error);
    if (status == ODM_OK && slot.head == 0)
        status = odm__fail(&map->error, ODM_E_CORRUPT, "meta: its newer slot is lost");
    if (status != ODM_OK || slot.watermark >= tail) return status;

    // Only then is there nothing below the tail that would read as the end of the log.
    status = odm__map_settle(map, tail);
    if (status != ODM_OK) return status;
    status = sync_segments(map, slot.watermark, tail);
    bool failed = status == ODM_E_IO;
    if (status == ODM_OK) {
        struct meta_slot next = slot;
        next.watermark = tail;
        status = odm__meta_write_slot(&store->meta, &next, &map->error);
        failed = status != ODM_OK;
    }
    if (failed) {
        note_failure(map, &slot);
        map->error.status = status = ODM_E_IO;
    } else if (status == ODM_OK) {
        atomic_store_explicit(&store->client.file->synced_number, address_number(tail), memory_order_relaxed);
    }
    return status;
}

odm_status odm__sync(struct odm_map *map)
{
    odm_status status = odm__store_attach(map->store, &map->error);
    if (status != ODM_OK || map->store->in_memory) return status;
    struct lock_file *lock = map->store->client.file;
    // Acquire: partner of the release that moves the tail. Taken before the lock: another's sync may cover it.
    uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_acquire);
    bool mend;
    status = odm__lock_take(&map->store->client, &lock->sync, map->wait_ms, "the sync lock", &mend, &map->error);
    if (status != ODM_OK) return status;
    // Who died here left one of two slots of meta torn, or moved head without telling: readers look again.
    if (mend) {
        atomic_fetch_add_explicit(&map->reader.index.header->recycled, 1, memory_order_release);
        odm__lock_mended(&lock->sync);
        // What it wrote to `meta` may be in memory only, and would be believed from there.
        if (odm__os.sync_data(map->store->meta.fd) != 0) status = odm__fail_os(&map->error, "sync", "meta");
    }
    if (status == ODM_OK) status = sync_to(map, tail);
    odm__lock_give(&map->store->client, &lock->sync);
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
