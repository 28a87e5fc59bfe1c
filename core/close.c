/* close.c - the last writer leaves a stamp. Contract: close.h. */
#include "close.h"

#include "stamp.h"
#include "status.h"
#include "sync.h"

/* Alone: nobody else is attached, and nobody can be until the file lock is given back. */
static odm_status stamp_alone(struct odm_map *map)
{
    struct store *store = map->store;
    struct lock_file *lock = store->client.file;
    odm_status status = odm__map_mend(map);
    if (status == ODM_OK) status = odm__sync(map);
    struct meta_slot slot;
    if (status == ODM_OK) status = odm__meta_read_slot(&store->meta, &slot, &map->error);
    if (status != ODM_OK) return status;
    if (slot.watermark != atomic_load(&lock->tail)) {
        return odm__fail(&map->error, ODM_E_BUSY, "the map was written to while it was closed");
    }
    // Who died in a compaction may have moved head in `meta` only.
    if (odm__reader_is_stale(&map->reader)) status = odm__reader_renew(&map->reader, &map->error);
    if (status != ODM_OK) return status;
    atomic_store_explicit(&map->reader.index.header->head, slot.head, memory_order_release);
    status = odm__stamp_put(&store->log, &store->meta, map->reader.index.file, &slot, &map->error);
    // The kernel may have dropped pages of the index: nobody believes it again.
    if (status == ODM_E_IO) lock->marks.index_inode = 0;
    return status;
}

odm_status odm__close_stamp(struct odm_map *map)
{
    struct store *store = map->store;
    if (store->in_memory || store->read_only || !atomic_load(&store->attached)) return ODM_OK;
    if (!odm__store_begin_closing(store)) return ODM_OK;
    if (atomic_load(&store->client.file->sync_failed) != 0) return ODM_OK;

    struct meta_slot slot;
    if (odm__meta_read_slot(&store->meta, &slot, &map->error) != ODM_OK) return map->error.status;
    if (!stamp_is_none(slot.stamp)) return ODM_OK; // Nobody has written since.
    uint64_t tail = atomic_load_explicit(&store->client.file->tail, memory_order_acquire);
    bool due =
        atomic_load(&store->stamp_at_close) || odm__log_bytes(&store->log, slot.head, tail) > STAMP_LOG_BYTES_MIN;
    if (!due) return ODM_OK;

    bool alone = false;
    odm_status status = odm__file_lock_exclusive(store->meta.fd, &alone, &map->error);
    return status == ODM_OK && alone ? stamp_alone(map) : status;
}
