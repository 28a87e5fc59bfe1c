/* map.c - a handle, and the operations on one key. Contract: map.h. */
#include "map.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "os.h"
#include "recover.h"
#include "status.h"

enum { MEND_POLL_NS = 1000 * 1000 };

/* ---- a handle's life ---------------------------------------------------------------------------------------------- */

odm_status odm__map_open(struct store *store, uint32_t flags, uint32_t wait_ms, struct odm_map **result,
                         odm_error *error)
{
    struct odm_map *map = calloc(1, sizeof *map);
    if (map == NULL) return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    map->store = store;
    map->flags = flags;
    map->wait_ms = wait_ms;
    map->error.struct_size = sizeof map->error;
    map->writer = (struct log_writer){.log = &store->log, .client = &store->client, .wait_ms = wait_ms};
    struct index_file *index = NULL;
    odm_status status = odm__reader_open(&map->reader, store, &store->log, store->meta.fixed.seed, error);
    if (status == ODM_OK) status = odm__store_index(store, &index, error);
    if (status != ODM_OK) {
        odm__reader_close(&map->reader);
        free(map);
        return status;
    }
    odm__reader_attach(&map->reader, index, &store->meta.fixed, &store->client, wait_ms);
    map->reader.verify = (flags & ODM_VERIFY_READS) != 0;
    odm__store_retain(store);
    *result = map;
    return ODM_OK;
}

void odm__map_close(struct odm_map *map)
{
    odm__log_writer_close(&map->writer);
    odm__reader_close(&map->reader);
    odm__store_release(map->store);
    free(map);
}

/* ---- stripes ------------------------------------------------------------------------------------------------------ */

static struct stripe *stripe_of(const struct odm_map *map, uint32_t number)
{
    return &map->reader.index.stripes[number];
}

static struct intent *intent_for(const struct odm_map *map, uint32_t number)
{
    return intent_of(map->store->client.file, map->store->meta.fixed.stripes, number);
}

static void intent_clear(struct intent *intent)
{
    // Release: partner of the acquire in odm__map_settle: who sees no intent sees a whole record. Killed before it: the next
    // owner applies the record again, which changes nothing.
    atomic_store_explicit(&intent->kind, RECORD_NONE, memory_order_release);
}

static void stripe_set_counts(struct stripe *stripe, uint64_t count, uint64_t live_bytes)
{
    atomic_store_explicit(&stripe->count, count, memory_order_relaxed);
    atomic_store_explicit(&stripe->live_bytes, live_bytes, memory_order_relaxed);
}

/* Applies a whole record to its stripe, as its dead writer was about to. */
static odm_status apply_again(struct odm_map *map, uint32_t number, const struct record *record)
{
    struct reader *reader = &map->reader;
    if (record->kind == RECORD_CLEAR) return odm__index_clear(&reader->index, number, &map->error);

    uint64_t hash = hash_key(record->key, record->key_size, reader->seed);
    if (hash_stripe(hash, reader->index.stripe_bits) != number) {
        return odm__fail(&map->error, ODM_E_CORRUPT, "lock: the intent of stripe %u names a record of another", number);
    }
    struct chunk chunk;
    struct place place;
    odm_status status = odm__index_chunk(&reader->index, hash, &chunk, &map->error);
    if (status == ODM_OK) {
        status = odm__reader_locate(reader, &chunk, record->key, record->key_size, hash, &place, &map->error);
    }
    if (status != ODM_OK) return status;
    if (record->kind == RECORD_REMOVE) {
        if (place.found) odm__chunk_remove(&chunk, place.at);
    } else if (place.found) {
        odm__chunk_update(&chunk, place.at, record->address);
    } else {
        odm__chunk_insert(&chunk, place.at, hash, record->address);
    }
    return ODM_OK;
}

/* Makes good what an intent says, or void. */
static odm_status intent_mend(struct odm_map *map, uint32_t number)
{
    struct intent *intent = intent_for(map, number);
    if (atomic_load_explicit(&intent->kind, memory_order_acquire) == RECORD_NONE) return ODM_OK;
    uint64_t address = atomic_load_explicit(&intent->address, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&map->store->client.file->tail, memory_order_acquire);
    if (address >= tail) {
        intent_clear(intent);
        return ODM_OK;
    }
    struct segment *segment;
    odm_status status = odm__log_segment(map->writer.log, address_number(address), &segment, &map->error);
    if (status == ODM_NOT_FOUND) {
        status = odm__fail(&map->error, ODM_E_CORRUPT, "log/%011" PRIu64 ", which an intent names, is missing",
                           address_number(address));
    }
    if (status != ODM_OK) return status;
    // A header that is no longer reserved is whole; so the body need not be read, however long it is.
    struct record record;
    if (odm__log_read(map->writer.log, segment, address, CHECK_NOTHING, &record) != RECORD_WHOLE) {
        status =
            odm__fail(&map->error, ODM_E_CORRUPT, "log/%011" PRIu64 ", offset %" PRIu64 ": an intent names no record",
                      address_number(address), address_offset(address));
    } else if (record.kind == RECORD_RESERVED) {
        status = odm__log_fill(&map->writer, address, &map->error);
    } else if (record.kind != RECORD_FILLER) {
        status = apply_again(map, number, &record);
        if (status == ODM_OK) stripe_set_counts(stripe_of(map, number), intent->count, intent->live_bytes);
    }
    odm__log_release(map->writer.log, segment);
    if (status == ODM_OK) intent_clear(intent);
    return status;
}

/* Mends what a dead owner of a stripe left. The append lock is taken and given back first: only then is it certain that the
 * intent names room that was reserved. */
static odm_status stripe_mend(struct odm_map *map, uint32_t number)
{
    odm_status status = odm__log_settle_tail(&map->writer, &map->error);
    if (status == ODM_OK) status = odm__index_mend(&map->reader.index, number, &map->error);
    if (status == ODM_OK) status = intent_mend(map, number);
    if (status == ODM_OK) odm__lock_mended(&map->store->client.file->stripes[number]);
    return status;
}

/* Finishes or takes back a replacement of the index whose owner died over it. Who owns the compaction lock by now is doing so
 * himself: it is not waited for, because it may not be waited for by who owns the sync lock. */
odm_status odm__map_mend_replacement(struct odm_map *map)
{
    struct store *store = map->store;
    struct lock_file *lock = store->client.file;
    odm_status status = ODM_OK;
    uint64_t since_ns = odm__os.now_ns();
    while (status == ODM_OK && atomic_load_explicit(&lock->replacing, memory_order_acquire) != 0) {
        bool mend;
        odm_status taken =
            odm__lock_take(&store->client, &lock->compact, UINT32_MAX, "the compaction lock", &mend, &map->error);
        uint64_t waited_ns = odm__os.now_ns() - since_ns;
        bool patient = map->wait_ms != UINT32_MAX && waited_ns < map->wait_ms * UINT64_C(1000000);
        if (taken == ODM_E_BUSY && patient) {
            (void)odm__os.futex_wait(&lock->replacing, 1, MEND_POLL_NS);
            continue;
        }
        if (taken != ODM_OK) return taken;
        status = odm__recover_replacement(store, lock, store->lock_fd, map->reader.index.file, &map->error);
        if (status == ODM_OK) odm__lock_mended(&lock->compact);
        odm__lock_give(&store->client, &lock->compact);
    }
    return status;
}

static odm_status stripe_lock(struct odm_map *map, uint32_t number, bool *mend)
{
    struct lock_line *lock = &map->store->client.file->stripes[number];
    return odm__lock_take(&map->store->client, lock, map->wait_ms, "a stripe", mend, &map->error);
}

static void stripe_give(struct odm_map *map, uint32_t number)
{
    odm__lock_give(&map->store->client, &map->store->client.file->stripes[number]);
}

/* A stripe that was taken is to be mended, or something was recycled since this handle last looked. */
static __attribute__((noinline, cold)) odm_status stripe_settle(struct odm_map *map, uint32_t number, bool mend)
{
    odm_status status = ODM_OK;
    while (mend && atomic_load_explicit(&map->store->client.file->replacing, memory_order_acquire) != 0) {
        // Its owner died over the whole index: that first, while holding nothing.
        stripe_give(map, number);
        status = odm__map_mend_replacement(map);
        if (status == ODM_OK) status = stripe_lock(map, number, &mend);
        if (status != ODM_OK) return status;
    }
    if (odm__reader_is_stale(&map->reader)) status = odm__reader_renew(&map->reader, &map->error);
    if (mend && status == ODM_OK) status = stripe_mend(map, number);
    if (status != ODM_OK) stripe_give(map, number);
    return status;
}

static odm_status stripe_take(struct odm_map *map, uint32_t number)
{
    bool mend;
    odm_status status = stripe_lock(map, number, &mend);
    if (__builtin_expect(status != ODM_OK, 0)) return status;
    // Once, under the lock: from here on what this stripe names can not leave.
    if (__builtin_expect(mend || odm__reader_is_stale(&map->reader), 0)) return stripe_settle(map, number, mend);
    return ODM_OK;
}

static void give_first(struct odm_map *map, uint32_t count)
{
    while (count > 0) stripe_give(map, --count);
}

odm_status odm__map_take_all(struct odm_map *map)
{
    uint32_t taken = 0;
    while (taken < map->store->meta.fixed.stripes) {
        odm_status status = stripe_take(map, taken);
        if (status != ODM_OK) {
            give_first(map, taken);
            return status;
        }
        ++taken;
    }
    return ODM_OK;
}

void odm__map_give_all(struct odm_map *map)
{
    give_first(map, map->store->meta.fixed.stripes);
}

odm_status odm__map_settle(struct odm_map *map, uint64_t address)
{
    for (uint32_t i = 0; i < map->store->meta.fixed.stripes; ++i) {
        struct intent *intent = intent_for(map, i);
        if (atomic_load_explicit(&intent->kind, memory_order_acquire) == RECORD_NONE) continue;
        if (atomic_load_explicit(&intent->address, memory_order_relaxed) >= address) continue;
        odm_status status = stripe_take(map, i);
        if (status != ODM_OK) return status;
        stripe_give(map, i);
    }
    return ODM_OK;
}

odm_status odm__map_take_stripe(struct odm_map *map, uint32_t number)
{
    return stripe_take(map, number);
}

void odm__map_give_stripe(struct odm_map *map, uint32_t number)
{
    stripe_give(map, number);
}

odm_status odm__map_mend(struct odm_map *map)
{
    odm_status status = odm__log_settle_tail(&map->writer, &map->error);
    for (uint32_t i = 0; status == ODM_OK && i < map->store->meta.fixed.stripes; ++i) {
        status = stripe_take(map, i);
        if (status == ODM_OK) stripe_give(map, i);
    }
    return status;
}

/* ---- writing one key ---------------------------------------------------------------------------------------------- */

/* Finds the key, and checks the condition. ODM_OK: go on. */
static odm_status find_and_check(struct odm_map *map, const struct write *write, uint64_t hash, struct chunk *chunk,
                                 struct place *place)
{
    struct reader *reader = &map->reader;
    odm_status status = odm__index_chunk(&reader->index, hash, chunk, &map->error);
    if (status == ODM_OK) {
        status = odm__reader_locate(reader, chunk, write->key, write->key_size, hash, place, &map->error);
    }
    if (status != ODM_OK) return status;
    if (write->condition == IF_VERSION && (!place->found || place->lsn != write->version)) return ODM_CONFLICT;
    if (write->condition == IF_ABSENT && place->found) return ODM_EXISTS;
    if (write->kind == RECORD_REMOVE && !place->found) return ODM_NOT_FOUND;
    if (place->found) return ODM_OK;

    // A new key: its chunk may have to be split before anything is appended, and the place be looked for again.
    uint64_t word = chunk->word;
    struct hash_source source = {odm__reader_hash_of, reader};
    status = odm__index_make_room(&reader->index, hash, &source, chunk, &map->error);
    if (status != ODM_OK || chunk->word == word) return status;
    return odm__reader_locate(reader, chunk, write->key, write->key_size, hash, place, &map->error);
}

static odm_status write_locked(struct odm_map *map, const struct write *write, uint64_t hash, uint32_t number)
{
    struct chunk chunk;
    struct place place;
    odm_status status = find_and_check(map, write, hash, &chunk, &place);
    if (status != ODM_OK) return status;

    struct stripe *stripe = stripe_of(map, number);
    bool is_put = write->kind == RECORD_PUT;
    struct append append = {
        .kind = write->kind,
        .class = is_put ? APPEND_PUT : APPEND_REMOVE,
        .key_size = write->key_size,
        .value_size = write->value_size,
        .stripe = number,
        .stripe_count = 1,
        .count = atomic_load_explicit(&stripe->count, memory_order_relaxed),
        .live_bytes = atomic_load_explicit(&stripe->live_bytes, memory_order_relaxed),
    };
    if (place.found) {
        --append.count;
        append.live_bytes -= place.size;
    }
    if (is_put) {
        ++append.count;
        append.live_bytes += record_size(write->key_size, write->value_size);
    }
    status = odm__log_reserve(&map->writer, map->reader.head, &append, &map->error);
    if (status != ODM_OK) return status;

    odm__log_complete(map->writer.log, &append, write->key, write->value);
    if (!is_put) {
        odm__chunk_remove(&chunk, place.at);
    } else if (place.found) {
        odm__chunk_update(&chunk, place.at, append.address);
    } else {
        odm__chunk_insert(&chunk, place.at, hash, append.address);
    }
    stripe_set_counts(stripe, append.count, append.live_bytes);
    intent_clear(intent_for(map, number));
    return ODM_OK;
}

odm_status odm__map_write(struct odm_map *map, const struct write *write)
{
    odm_status status = odm__store_begin_writing(map->store, map->wait_ms, &map->error);
    if (status != ODM_OK) return status;
    uint64_t hash = hash_key(write->key, write->key_size, map->reader.seed);
    uint32_t number = hash_stripe(hash, map->reader.index.stripe_bits);
    odm__index_fetch(&map->reader.index, hash, true); // They come while the lock is taken.
    status = stripe_take(map, number);
    if (status != ODM_OK) return status;
    status = write_locked(map, write, hash, number);
    stripe_give(map, number);
    return status;
}

/* ---- moving -------------------------------------------------------------------------------------------------------- */

static odm_status move_locked(struct odm_map *map, const struct record *record, uint64_t hash, uint32_t number)
{
    struct chunk chunk;
    uint32_t at;
    odm_status status = odm__index_chunk(&map->reader.index, hash, &chunk, &map->error);
    if (status != ODM_OK || !odm__chunk_find(&chunk, hash, record->address, &at)) return status;

    struct stripe *stripe = stripe_of(map, number);
    struct append append = {
        .kind = RECORD_PUT,
        .class = APPEND_MOVE,
        .key_size = record->key_size,
        .value_size = record->value_size,
        .lsn = record->lsn, // It is the entry's version: a move must not look like a change.
        .stripe = number,
        .stripe_count = 1,
        .count = atomic_load_explicit(&stripe->count, memory_order_relaxed),
        .live_bytes = atomic_load_explicit(&stripe->live_bytes, memory_order_relaxed),
    };
    status = odm__log_reserve(&map->writer, map->reader.head, &append, &map->error);
    if (status != ODM_OK) return status;
    odm__log_complete(map->writer.log, &append, record->key, record->value);
    odm__chunk_update(&chunk, at, append.address);
    intent_clear(intent_for(map, number));
    return ODM_OK;
}

odm_status odm__map_move(struct odm_map *map, const struct record *record, uint64_t hash)
{
    uint32_t number = hash_stripe(hash, map->reader.index.stripe_bits);
    odm_status status = stripe_take(map, number);
    if (status != ODM_OK) return status;
    status = move_locked(map, record, hash, number);
    stripe_give(map, number);
    return status;
}

/* ---- clearing ----------------------------------------------------------------------------------------------------- */

static odm_status clear_locked(struct odm_map *map)
{
    uint32_t stripes = map->store->meta.fixed.stripes;
    struct append append = {.kind = RECORD_CLEAR, .class = APPEND_REMOVE, .stripe = 0, .stripe_count = stripes};
    // All of the index is looked at first: what is damaged or can not be asked for must show before the record is whole.
    struct index_totals totals;
    odm_status status = odm__index_totals(&map->reader.index, true, &totals, &map->error);
    if (status != ODM_OK) return status;
    status = odm__log_reserve(&map->writer, map->reader.head, &append, &map->error);
    if (status != ODM_OK) return status;
    odm__log_complete(map->writer.log, &append, NULL, NULL);
    // From here on it has happened: who mends a stripe that was not reached goes by the record.
    for (uint32_t i = 0; i < stripes; ++i) {
        odm_status cleared = odm__index_clear(&map->reader.index, i, &map->error);
        if (cleared != ODM_OK) {
            status = cleared; // Its intent stays, and is made good by whoever mends the stripe.
            atomic_store_explicit(&map->store->client.file->stripes[i].dirty, 1, memory_order_relaxed);
            continue;
        }
        stripe_set_counts(stripe_of(map, i), 0, 0);
        intent_clear(intent_for(map, i));
    }
    return status;
}

odm_status odm__map_clear(struct odm_map *map)
{
    odm_status status = odm__store_begin_writing(map->store, map->wait_ms, &map->error);
    if (status == ODM_OK) status = odm__map_take_all(map);
    if (status != ODM_OK) return status;
    status = clear_locked(map);
    odm__map_give_all(map);
    return status;
}
