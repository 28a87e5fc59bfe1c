/* api.c - the exported functions: arguments are checked here, and only here; the work is done below. Contract: opendiskmap.h.
 *
 * Calls map.h, walk.h, sync.h, store.h. The exported functions of a walk are in walk.c, those of many keys in batch.c.
 */
#include <stdlib.h>
#include <string.h>

#include "backup.h"
#include "close.h"
#include "compact.h"
#include "job.h"
#include "map.h"
#include "os.h"
#include "salvage.h"
#include "status.h"
#include "sync.h"
#include "verify.h"
#include "walk.h"

/* ---- opening and closing ------------------------------------------------------------------------------------------ */

enum {
    STRIPES_DEFAULT = 16,
    WAIT_MS_DEFAULT = 30 * 1000,
    FLAGS_KNOWN =
        ODM_READ_ONLY | ODM_MUST_EXIST | ODM_MUST_CREATE | ODM_VERIFY_READS | ODM_ANY_FILE_SYSTEM | ODM_SALVAGE
};
#define CAPACITY_MAX (UINT64_C(1) << 40)

odm_status odm_options_init(odm_options *options, size_t struct_size)
{
    if (options == NULL || struct_size < sizeof *options || struct_size > UINT32_MAX) return ODM_E_INVALID;
    memset(options, 0, struct_size);
    options->struct_size = (uint32_t)struct_size;
    return ODM_OK;
}

static bool all_zero(const void *bytes, size_t size)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < size; ++i) {
        if (byte[i] != 0) return false;
    }
    return true;
}

/* Copies a caller's struct of whatever size over defaults of zero. */
static odm_status options_copy(const odm_options *from, odm_options *to, odm_error *error)
{
    memset(to, 0, sizeof *to);
    to->struct_size = sizeof *to;
    if (from == NULL) return ODM_OK;
    uint32_t size = from->struct_size;
    if (size < sizeof from->struct_size + sizeof from->flags) {
        return odm__fail(error, ODM_E_INVALID, "options.struct_size is %u: set it to sizeof(odm_options)", size);
    }
    memcpy(to, from, size < sizeof *to ? size : sizeof *to);
    to->struct_size = sizeof *to;
    if (size > sizeof *to && !all_zero((const unsigned char *)from + sizeof *to, size - sizeof *to)) {
        return odm__fail(error, ODM_E_INVALID, "options has fields set that this version (%s) does not know",
                         ODM_VERSION_STRING);
    }
    return ODM_OK;
}

static odm_status options_check(const char *path, odm_options *options, odm_error *error)
{
    uint32_t flags = options->flags;
    if ((flags & ~(uint32_t)FLAGS_KNOWN) != 0) {
        return odm__fail(error, ODM_E_INVALID, "options.flags has bits that are unknown: 0x%x",
                         flags & ~(uint32_t)FLAGS_KNOWN);
    }
    if ((flags & ODM_SALVAGE) != 0 && (path == NULL || (flags & (ODM_READ_ONLY | ODM_MUST_CREATE)) != 0)) {
        return odm__fail(
            error, ODM_E_INVALID,
            "ODM_SALVAGE writes a map that exists: it goes with neither ODM_READ_ONLY nor ODM_MUST_CREATE");
    }
    if (path == NULL && (flags & (ODM_READ_ONLY | ODM_MUST_EXIST)) != 0) {
        return odm__fail(error, ODM_E_INVALID,
                         "a map in memory (path NULL) is always a new one: it can not be ODM_READ_ONLY "
                         "or ODM_MUST_EXIST");
    }
    if ((flags & ODM_MUST_CREATE) != 0 && (flags & (ODM_READ_ONLY | ODM_MUST_EXIST)) != 0) {
        return odm__fail(error, ODM_E_INVALID, "ODM_MUST_CREATE goes with neither ODM_READ_ONLY nor ODM_MUST_EXIST");
    }
    if (path != NULL && path[0] == '\0') return odm__fail(error, ODM_E_INVALID, "path is empty");
    if (options->reserved != 0) return odm__fail(error, ODM_E_INVALID, "options.reserved is not 0");
    if (options->stripes > ODM_STRIPES_MAX || (options->stripes & (options->stripes - 1)) != 0) {
        return odm__fail(error, ODM_E_INVALID, "options.stripes is %u: it must be a power of two up to %d",
                         options->stripes, ODM_STRIPES_MAX);
    }
    if ((options->file_mode & ~0666U) != 0 || (options->file_mode != 0 && (options->file_mode & 0600) != 0600)) {
        return odm__fail(error, ODM_E_INVALID, "options.file_mode is 0%o: it must have 0600 and nothing beyond 0666",
                         options->file_mode);
    }
    if (options->capacity > CAPACITY_MAX || options->capacity_bytes > CAPACITY_MAX * 4096) {
        return odm__fail(error, ODM_E_INVALID, "options.capacity is %llu, capacity_bytes %llu: too much",
                         (unsigned long long)options->capacity, (unsigned long long)options->capacity_bytes);
    }
    if (options->schema_size > ODM_SCHEMA_SIZE_MAX || (options->schema == NULL && options->schema_size != 0)) {
        return odm__fail(error, ODM_E_INVALID, "options.schema is NULL or longer than %d bytes", ODM_SCHEMA_SIZE_MAX);
    }
    if (options->stripes == 0) options->stripes = STRIPES_DEFAULT;
    if (options->wait_ms == 0) options->wait_ms = WAIT_MS_DEFAULT;
    return ODM_OK;
}

odm_status odm_open(const char *path, const odm_options *options, odm_map **map, odm_error *error)
{
    odm_error detail = {.struct_size = sizeof detail};
    odm_options checked;
    odm_status status = ODM_OK;
    if (map == NULL) status = odm__fail(&detail, ODM_E_INVALID, "odm_open: map is NULL");
    if (map != NULL) *map = NULL;
    if (status == ODM_OK) status = options_copy(options, &checked, &detail);
    if (status == ODM_OK) status = options_check(path, &checked, &detail);
    if (status == ODM_OK && (checked.flags & ODM_SALVAGE) != 0) status = odm__salvage(path, &checked, &detail);
    if (status == ODM_OK) {
        struct store *store;
        status = odm__store_open(path, &checked, &store, &detail);
        if (status == ODM_OK) {
            status = odm__map_open(store, checked.flags, checked.wait_ms, map, &detail);
            odm__store_release(store);
        }
    }
    if (status != ODM_OK) odm__error_copy(error, &detail);
    return status;
}

odm_status odm_dup(odm_map *map, odm_map **dup, odm_error *error)
{
    if (dup != NULL) *dup = NULL;
    odm_error detail = {.struct_size = sizeof detail};
    odm_status status;
    if (map == NULL || dup == NULL) {
        status = odm__fail(&detail, ODM_E_INVALID, "odm_dup: map or dup is NULL");
    } else {
        status = odm__map_open(map->store, map->flags, map->wait_ms, dup, &detail);
    }
    if (status != ODM_OK && map != NULL) map->error = detail;
    if (status != ODM_OK) odm__error_copy(error, &detail);
    return status;
}

odm_status odm_close(odm_map *map)
{
    if (map == NULL) return ODM_OK;
    odm__walk_orphan(map);
    odm__compact_close(map);
    odm__job_end(map);
    odm_status status = odm__close_stamp(map);
    odm__map_close(map);
    return status;
}

/* Passes on a status, and its detail to the caller's odm_error. ODM_EXISTS: odm_backup's, which has one, too. */
static odm_status pass_on(const odm_map *map, odm_status status, odm_error *error)
{
    if (status < 0 || status == ODM_EXISTS) odm__error_copy(error, &map->error);
    return status;
}

static odm_status no_map(const char *function, odm_error *error)
{
    odm_error detail = {.struct_size = sizeof detail};
    odm_status status = odm__fail(&detail, ODM_E_INVALID, "%s: map is NULL", function);
    odm__error_copy(error, &detail);
    return status;
}

static odm_status check_not_forked(odm_map *map)
{
    if (!atomic_load(&map->store->forked)) return ODM_OK;
    return odm__fail(&map->error, ODM_E_UNSUPPORTED, "a map in memory stays behind when a process forks");
}

odm_status odm_sync(odm_map *map, odm_error *error)
{
    if (map == NULL) return no_map("odm_sync", error);
    return pass_on(map, odm__sync(map), error);
}

odm_status odm_refresh(odm_map *map)
{
    if (map == NULL) return ODM_E_INVALID;
    if (__builtin_expect(map->job != NULL, 0)) odm__job_end(map);                      // It holds segments.
    if (__builtin_expect(map->compaction.segment != NULL, 0)) odm__compact_close(map); // Likewise.
    return odm__reader_refresh(&map->reader, &map->error);
}

odm_status odm_last_error(const odm_map *map, odm_error *error)
{
    if (map == NULL || error == NULL || error->struct_size < offsetof(odm_error, message)) return ODM_E_INVALID;
    odm__error_copy(error, &map->error);
    return ODM_OK;
}

/* ---- one key ------------------------------------------------------------------------------------------------------ */

static __attribute__((noinline, cold)) odm_status key_fails(odm_map *map, const void *key, size_t key_size)
{
    if (map == NULL) return ODM_E_INVALID;
    if (key == NULL && key_size != 0) {
        return odm__fail(&map->error, ODM_E_INVALID, "key is NULL, key_size is %zu", key_size);
    }
    return odm__fail(&map->error, ODM_E_TOO_BIG, "the key has %zu bytes, at most %d are possible", key_size,
                     ODM_KEY_SIZE_MAX);
}

static inline bool key_is_fine(const odm_map *map, const void *key, size_t key_size)
{
    return map != NULL && (key != NULL || key_size == 0) && key_size <= ODM_KEY_SIZE_MAX;
}

static odm_status value_check(odm_map *map, size_t key_size, const void *value, size_t value_size)
{
    if (value == NULL && value_size != 0) {
        return odm__fail(&map->error, ODM_E_INVALID, "value is NULL, value_size is %zu", value_size);
    }
    if (value_size > ODM_RECORD_SIZE_MAX || record_size(key_size, value_size) > ODM_RECORD_SIZE_MAX) {
        return odm__fail(&map->error, ODM_E_TOO_BIG, "key and value have %zu and %zu bytes: a record is at most %llu",
                         key_size, value_size, (unsigned long long)ODM_RECORD_SIZE_MAX);
    }
    return ODM_OK;
}

/* Says where a record's value is: what is lent is kept until a refresh. */
static inline odm_status lend(odm_map *map, const struct record_header *record, size_t key_size, const void **value,
                              size_t *value_size)
{
    if (value != NULL) {
        *value = record_key(record) + padded(key_size);
        map->reader.lent = true;
    }
    if (value_size != NULL) *value_size = record->value_size;
    return ODM_OK;
}

static odm_status find(odm_map *map, const void *key, size_t key_size, const struct record_header **record)
{
    if (__builtin_expect(!key_is_fine(map, key, key_size), 0)) return key_fails(map, key, key_size);
    uint64_t hash = hash_key(key, key_size, map->reader.seed);
    *record = odm__reader_find_at_once(&map->reader, key, key_size, hash);
    if (__builtin_expect(*record != NULL, 1)) return ODM_OK;
    return odm__reader_find(&map->reader, key, key_size, hash, record, &map->error);
}

static __attribute__((noinline)) odm_status get(odm_map *map, const void *key, size_t key_size, const void **value,
                                                size_t *value_size)
{
    const struct record_header *record = NULL;
    odm_status status = find(map, key, key_size, &record);
    return status == ODM_OK ? lend(map, record, key_size, value, value_size) : status;
}

/* The common case, without a call and so without a register to save: the fewer instructions a get has, the more gets does the
 * processor have on their way to memory at a time. NULL: begin anew. */
static inline const struct record_header *find_short(odm_map *map, const void *key, size_t key_size)
{
    if (__builtin_expect(map == NULL || key == NULL || key_size - 1 >= HASH_SHORT_MAX, 0)) return NULL;
    uint64_t hash = hash_key(key, key_size, map->reader.seed);
    return odm__reader_find_at_once(&map->reader, key, key_size, hash);
}

__attribute__((flatten)) odm_status odm_get(odm_map *map, const void *key, size_t key_size, const void **value,
                                            size_t *value_size)
{
    const struct record_header *record = find_short(map, key, key_size);
    if (__builtin_expect(record != NULL, 1)) return lend(map, record, key_size, value, value_size);
    return get(map, key, key_size, value, value_size);
}

static __attribute__((noinline)) odm_status try_get(odm_map *map, const void *key, size_t key_size, const void **value,
                                                    size_t *value_size)
{
    if (map == NULL) return ODM_E_INVALID;
    if (!key_is_fine(map, key, key_size)) return ODM_WOULD_BLOCK; // odm_get says what is wrong.
    const struct record_header *record;
    uint64_t hash = hash_key(key, key_size, map->reader.seed);
    odm_status status = odm__reader_try_find(&map->reader, key, key_size, hash, &record);
    return status == ODM_OK ? lend(map, record, key_size, value, value_size) : status;
}

__attribute__((flatten)) odm_status odm_try_get(odm_map *map, const void *key, size_t key_size, const void **value,
                                                size_t *value_size)
{
    const struct record_header *record = find_short(map, key, key_size);
    if (__builtin_expect(record != NULL, 1)) return lend(map, record, key_size, value, value_size);
    return try_get(map, key, key_size, value, value_size);
}

odm_status odm_entry_get(odm_map *map, const void *key, size_t key_size, const void **value, size_t *value_size,
                         uint64_t *version)
{
    if (map != NULL && version == NULL) {
        return odm__fail(&map->error, ODM_E_INVALID, "odm_entry_get: version is NULL");
    }
    if (version != NULL) *version = 0;
    const struct record_header *record = NULL;
    odm_status status = find(map, key, key_size, &record);
    if (status != ODM_OK) return status;
    *version = record->lsn;
    return lend(map, record, key_size, value, value_size);
}

static odm_status write_one(odm_map *map, const struct write *write)
{
    if (!key_is_fine(map, write->key, write->key_size)) return key_fails(map, write->key, write->key_size);
    odm_status status = value_check(map, write->key_size, write->value, write->value_size);
    if (status != ODM_OK) return status;
    return odm__write(map, write);
}

odm_status odm_put(odm_map *map, const void *key, size_t key_size, const void *value, size_t value_size)
{
    struct write write = {
        .key = key, .key_size = key_size, .value = value, .value_size = value_size, .kind = RECORD_PUT};
    return write_one(map, &write);
}

odm_status odm_remove(odm_map *map, const void *key, size_t key_size)
{
    struct write write = {.key = key, .key_size = key_size, .kind = RECORD_REMOVE};
    return write_one(map, &write);
}

odm_status odm_entry_put(odm_map *map, const void *key, size_t key_size, const void *value, size_t value_size,
                         uint64_t version)
{
    struct write write = {
        .key = key, .key_size = key_size, .value = value, .value_size = value_size, .kind = RECORD_PUT};
    write.condition = version == 0 ? IF_ABSENT : IF_VERSION;
    write.version = version;
    return write_one(map, &write);
}

odm_status odm_entry_remove(odm_map *map, const void *key, size_t key_size, uint64_t version)
{
    if (map != NULL && version == 0) {
        return odm__fail(&map->error, ODM_E_INVALID, "odm_entry_remove: version 0 stands for a vacant entry");
    }
    struct write write = {.key = key, .key_size = key_size, .kind = RECORD_REMOVE, .condition = IF_VERSION};
    write.version = version;
    return write_one(map, &write);
}

odm_status odm_clear(odm_map *map, odm_error *error)
{
    if (map == NULL) return no_map("odm_clear", error);
    return pass_on(map, odm__clear(map), error);
}

uint64_t odm_count(odm_map *map)
{
    struct index_totals totals;
    if (map == NULL || check_not_forked(map) != ODM_OK) return 0;
    if (odm__reader_is_stale(&map->reader) && odm__reader_renew(&map->reader, &map->error) != ODM_OK) return 0;
    return odm__index_totals(&map->reader.index, false, &totals, &map->error) == ODM_OK ? totals.count : 0;
}

/* ---- the map as a whole ------------------------------------------------------------------------------------------- */

odm_status odm_schema(odm_map *map, const void **schema, size_t *size)
{
    if (map == NULL) return ODM_E_INVALID;
    if (schema == NULL || size == NULL)
        return odm__fail(&map->error, ODM_E_INVALID, "odm_schema: schema or size is NULL");
    odm_status status = check_not_forked(map);
    if (status != ODM_OK) return status;
    *schema = map->store->meta.fixed.schema;
    *size = map->store->meta.fixed.schema_size;
    return ODM_OK;
}

/* What writers share, if this process can see it: mapped by writers, read from the file by others. */
static bool lock_file_look(const struct store *store, struct lock_file *copy)
{
    if (store->client.file != NULL) {
        memcpy(copy, store->client.file, sizeof *copy);
        return true;
    }
    int fd;
    if (!store->lock_is_current || odm__file_open(&store->directory, "lock", false, &fd, NULL) != ODM_OK) return false;
    bool read = odm__os.read_at(fd, copy, sizeof *copy, 0) == (ssize_t)sizeof *copy;
    odm__os.close(fd);
    return read;
}

static void stat_lock_file(const struct odm_map *map, odm_statistics *s)
{
    struct lock_file *lock = aligned_alloc(PAGE, sizeof *lock);
    if (lock == NULL) return;
    pthread_mutex_lock(&map->store->mutex);
    bool seen = lock_file_look(map->store, lock);
    pthread_mutex_unlock(&map->store->mutex);
    if (seen) {
        s->tail = atomic_load(&lock->tail);
        s->lock_waits = atomic_load(&lock->lock_waits);
        s->compacted_bytes = atomic_load(&lock->compacted_bytes);
        s->compaction_stopped_at = atomic_load(&lock->compaction_stopped_at);
        s->sync_failed = atomic_load(&lock->sync_failed);
        for (int i = 0; i < SPARES_MAX; ++i) {
            uint64_t spare = atomic_load(&lock->spare[i]);
            if (spare_number(spare) > address_number(s->tail)) s->reserved_bytes += spare_size(spare);
        }
    }
    free(lock);
}

static odm_status stat_fill(odm_map *map, odm_statistics *s)
{
    struct store *store = map->store;
    struct reader *reader = &map->reader;
    odm_status status = check_not_forked(map);
    // A child made by fork has no `meta` open before it attaches.
    if (status == ODM_OK && !store->read_only) status = odm__store_attach(store, &map->error);
    // Who came in by a stamp may not know yet that it is gone, and that the lock file tells where the log ends.
    bool by_stamp = store->read_only && !store->private_index && !store->lock_is_current;
    bool look = status == ODM_OK && (by_stamp || odm__reader_is_stale(reader));
    if (look) status = odm__reader_renew(reader, &map->error);
    struct index_totals totals;
    if (status == ODM_OK) status = odm__index_totals(&reader->index, true, &totals, &map->error);
    struct meta_slot slot;
    if (status == ODM_OK) status = odm__meta_read_slot(&store->meta, &slot, &map->error);
    if (status != ODM_OK) return status;

    const struct index_header *header = reader->index.header;
    s->stripes = store->meta.fixed.stripes;
    memcpy(s->map_id, store->meta.fixed.map_id, sizeof s->map_id);
    s->count = totals.count;
    s->slots = totals.slots;
    s->capacity = totals.slots / 8 * 7;
    s->tombstones = totals.used > totals.count ? totals.used - totals.count : 0;
    s->live_bytes = totals.live_bytes;
    s->splits = totals.splits;
    s->index_bytes = atomic_load(&header->size);
    s->head = reader->head;
    s->watermark = slot.watermark;
    s->recovery_kind = header->recovery_kind;
    s->recovery_records = header->recovery_records;
    s->recovery_bytes_cut = header->recovery_bytes_cut;
    s->recovery_from = header->recovery_from;
    s->unlinked_bytes = odm__log_unlinked_bytes(&store->log, reader->head);
    stat_lock_file(map, s);
    if (s->tail == 0) s->tail = store->private_index ? store->log_end : slot.watermark;
    s->log_bytes = odm__log_bytes(&store->log, s->head, s->tail);
    s->dead_bytes = s->log_bytes > s->live_bytes ? s->log_bytes - s->live_bytes : 0;

    struct chain chain;
    status = odm__log_chain(&store->log, s->head, &chain, &map->error);
    if (status != ODM_OK) return status;
    for (size_t i = 0; i < chain.count; ++i)
        s->segments += chain.links[i].whole && chain.links[i].number <= address_number(s->tail);
    odm__chain_free(&chain);
    return ODM_OK;
}

odm_status odm_stat(odm_map *map, odm_statistics *statistics)
{
    if (map == NULL) return ODM_E_INVALID;
    if (statistics == NULL || statistics->struct_size < sizeof statistics->struct_size) {
        return odm__fail(&map->error, ODM_E_INVALID, "odm_stat: statistics is NULL, or its struct_size is not set");
    }
    odm_statistics filled = {.struct_size = statistics->struct_size};
    odm_status status = stat_fill(map, &filled);
    if (status != ODM_OK) return status;
    size_t size = filled.struct_size;
    memset(statistics, 0, size);
    memcpy(statistics, &filled, size < sizeof filled ? size : sizeof filled);
    return ODM_OK;
}

/* ---- long work ----------------------------------------------------------------------------------------------------- */

static odm_status check_progress(odm_map *map, const odm_progress *progress, const char *what)
{
    if (progress == NULL || progress->struct_size >= sizeof *progress) return ODM_OK;
    return odm__fail(&map->error, ODM_E_INVALID, "%s: progress->struct_size is %u: set it to sizeof(odm_progress)",
                     what, progress->struct_size);
}

odm_status odm_compact(odm_map *map, odm_progress *progress, odm_error *error)
{
    if (map == NULL) return no_map("odm_compact", error);
    odm_status status = check_progress(map, progress, "odm_compact");
    if (status == ODM_OK) status = odm__compact(map, progress);
    return pass_on(map, status, error);
}

odm_status odm_verify(odm_map *map, odm_report *report, odm_progress *progress, odm_error *error)
{
    if (map == NULL) return no_map("odm_verify", error);
    odm_status status = check_not_forked(map);
    if (status == ODM_OK) status = check_progress(map, progress, "odm_verify");
    if (status == ODM_OK && report != NULL && report->struct_size < sizeof report->struct_size) {
        status = odm__fail(&map->error, ODM_E_INVALID,
                           "odm_verify: report->struct_size is %u: set it to sizeof(odm_report)", report->struct_size);
    }
    // A child made by fork has no lock file before it attaches.
    if (status == ODM_OK && !map->store->read_only) status = odm__store_attach(map->store, &map->error);
    if (status == ODM_OK) status = odm__verify(map, report, progress);
    return pass_on(map, status, error);
}

odm_status odm_backup(odm_map *map, const char *path, odm_progress *progress, odm_error *error)
{
    if (map == NULL) return no_map("odm_backup", error);
    odm_status status = check_not_forked(map);
    if (status == ODM_OK) status = check_progress(map, progress, "odm_backup");
    if (status == ODM_OK && (path == NULL || path[0] == '\0')) {
        status = odm__fail(&map->error, ODM_E_INVALID, "odm_backup: path is NULL or empty");
    }
    // A child made by fork has no lock file before it attaches.
    if (status == ODM_OK && !map->store->read_only) status = odm__store_attach(map->store, &map->error);
    if (status == ODM_OK) status = odm__backup(map, path, progress);
    return pass_on(map, status, error);
}
