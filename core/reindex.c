/* reindex.c - a new index in the place of the old one. Contract: reindex.h. */
#include "reindex.h"

#include "os.h"
#include "recover.h"
#include "status.h"

#define NEW_NAME "index.new"

static bool worth_it(const struct odm_map *map, uint64_t capacity)
{
    uint64_t size = atomic_load_explicit(&map->reader.index.header->size, memory_order_relaxed);
    return odm__index_bytes_for(&map->store->meta.fixed, capacity) <= size / 4 * 3;
}

/* Gives the new index the name. The caller owns everything. */
static odm_status exchange(struct odm_map *map, struct index_file *built)
{
    struct store *store = map->store;
    struct lock_file *lock = store->client.file;
    struct index_file *old = map->reader.index.file;
    struct marks marks;
    odm_status status = odm__recover_marks(store, built->fd, store->lock_fd, &marks, &map->error);
    if (status != ODM_OK) return status;
    // Killed from here on: the next who takes a stripe, or opens the map, sees by the names whether it had happened.
    atomic_store_explicit(&lock->replacing, 1, memory_order_release);
    if (store->in_memory) {
        status = odm__file_rename(&store->directory, NEW_NAME, "index", &map->error);
    } else if (odm__os.exchange(store->directory.fd, NEW_NAME, "index") != 0) {
        status = odm__fail_os(&map->error, "exchange the names of", "index and index.new");
    }
    if (status == ODM_OK) {
        // The marks first: who can only read looks once when he is told, and must find an index that is trusted.
        lock->marks.index_inode = marks.index_inode;
        lock->marks.index_birth_ns = marks.index_birth_ns;
        kill_fence();
        odm__index_supersede(old);
        (void)odm__file_unlink(&store->directory, NEW_NAME, NULL); // By now the old one.
    }
    atomic_store_explicit(&lock->replacing, 0, memory_order_release);
    return status;
}

/* Builds the new index from the old one's slots. The caller owns the locks of all stripes. */
static odm_status build(struct odm_map *map, uint64_t capacity, struct index_file **built)
{
    struct store *store = map->store;
    odm_status status = odm__file_unlink(&store->directory, NEW_NAME, &map->error);
    if (status == ODM_OK) {
        status = odm__index_create(&store->directory, NEW_NAME, &store->meta.fixed, capacity, built, &map->error);
    }
    if (status != ODM_OK) return status;
    struct index index;
    struct hash_source source = {odm__reader_hash_of, &map->reader};
    odm__index_view(&index, *built, &store->meta.fixed, NULL, 0);
    status = odm__index_copy_all(&map->reader.index, &index, &source, &map->error);
    if (status != ODM_OK) {
        odm__index_close(*built);
        (void)odm__file_unlink(&store->directory, NEW_NAME, NULL);
    }
    return status;
}

static odm_status replace(struct odm_map *map)
{
    struct index_totals totals;
    odm_status status = odm__index_totals(&map->reader.index, false, &totals, &map->error);
    uint64_t capacity = map->store->meta.fixed.capacity;
    if (totals.count > capacity) capacity = totals.count;
    if (status != ODM_OK || !worth_it(map, capacity)) return status;
    struct index_file *built;
    status = build(map, capacity, &built);
    if (status != ODM_OK) return status;
    odm_error error = map->error;
    status = exchange(map, built);
    if (status != ODM_OK) {
        // Not every file system can. The index stays as it was.
        (void)odm__file_unlink(&map->store->directory, NEW_NAME, NULL);
        map->error = error;
    }
    odm__index_close(built);
    return ODM_OK;
}

odm_status odm__reindex(struct odm_map *map)
{
    odm_status status = odm__map_take_all(map);
    if (status != ODM_OK) return status;
    status = replace(map);
    odm__map_give_all(map);
    return status;
}
