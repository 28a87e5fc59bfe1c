/* walk.c - walking over a map. Contract: walk.h; the exported functions: opendiskmap.h. */
#include "walk.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "os.h"
#include "status.h"

// Entries ahead of the one that is returned: there a record is fetched, then its end, once its sizes can be read.
enum { FETCH_AHEAD = 24, FETCH_END_AHEAD = 8, FETCHED = 32 };
_Static_assert(FETCHED > FETCH_AHEAD, "what was fetched stays until it is returned");

/* An entry whose record was fetched. */
struct fetched {
    struct record_header *record; // NULL: its slot names no place in a segment
    uint64_t left;                // bytes that the segment has from there
    uint32_t slot;                // which of the chunk
};

struct odm_iter {
    struct odm_iter *next; // of the same handle
    struct odm_map *map;   // NULL once it was closed
    uint64_t position;     // hashes below it are over: the chunk to read, loaded or not, is the one it lies in
    bool over;
    bool loaded;
    uint32_t *entries; // the copy's slots that name a record
    uint32_t entry_room;
    uint32_t entry_count;
    uint32_t at;                     // the next of them
    struct fetched fetched[FETCHED]; // the entries from `at` on, each at its number modulo FETCHED
    struct word_place word;          // of the chunk
    uint64_t recycled;               // when it was copied
    uint64_t generation;             // of the index it was copied from
    struct chunk_copy copy;
    struct segment_view *views; // the segments the copy names, by number modulo 2^16
    struct held_segment *held;  // a reference on each, and on those of earlier copies
};

/* ---- a walk's life ------------------------------------------------------------------------------------------------ */

odm_status odm_iter_open(odm_map *map, odm_iter **iter)
{
    if (iter != NULL) *iter = NULL;
    if (map == NULL) return ODM_E_INVALID;
    if (iter == NULL) return odm__fail(&map->error, ODM_E_INVALID, "odm_iter_open: iter is NULL");
    struct odm_iter *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return odm__fail(&map->error, ODM_E_NO_MEMORY, "out of memory");
    void *views = odm__os.map(NULL, READER_VIEW_COUNT * sizeof *opened->views, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (views == MAP_FAILED) {
        free(opened);
        return odm__fail_os(&map->error, "map", "a table of segments");
    }
    opened->views = views;
    opened->map = map;
    opened->next = map->iters;
    map->iters = opened;
    *iter = opened;
    return ODM_OK;
}

/* Gives back the references on segments below a number. */
static void release_segments(struct odm_iter *iter, uint64_t number_end)
{
    struct reader *reader = &iter->map->reader;
    struct held_segment **link = &iter->held;
    while (*link != NULL) {
        struct held_segment *held = *link;
        if (held->segment->number >= number_end) {
            link = &held->next;
            continue;
        }
        *link = held->next;
        iter->views[held->segment->number & ((1 << SLOT_NUMBER_BITS) - 1)] = (struct segment_view){.end = 0};
        if (reader->lent && held->segment->number < address_number(reader->head)) {
            // It has left the map, so the reader may hold it no more; what was lent from it stays until the refresh.
            held->next = reader->dropped;
            reader->dropped = held;
            continue;
        }
        odm__log_release(reader->log, held->segment);
        free(held);
    }
}

/* Lets go of the copied chunk. The next one names the same segments, but for those that have left the map. */
static void unload(struct odm_iter *iter)
{
    release_segments(iter, address_number(iter->map->reader.head));
    iter->loaded = false;
}

odm_status odm_iter_close(odm_iter *iter)
{
    if (iter == NULL) return ODM_OK;
    if (iter->map != NULL) {
        release_segments(iter, UINT64_MAX);
        struct odm_iter **link = &iter->map->iters;
        while (*link != iter) link = &(*link)->next;
        *link = iter->next;
    }
    odm__chunk_copy_free(&iter->copy);
    free(iter->entries);
    odm__os.unmap(iter->views, READER_VIEW_COUNT * sizeof *iter->views);
    free(iter);
    return ODM_OK;
}

void odm__walk_orphan(struct odm_map *map)
{
    for (struct odm_iter *iter = map->iters; iter != NULL; iter = iter->next) {
        release_segments(iter, UINT64_MAX);
        iter->map = NULL;
    }
}

odm_status odm_iter_position(const odm_iter *iter, uint64_t *position)
{
    if (iter == NULL || iter->map == NULL) return ODM_E_INVALID;
    if (position == NULL) return odm__fail(&iter->map->error, ODM_E_INVALID, "odm_iter_position: position is NULL");
    *position = iter->over ? UINT64_MAX : iter->position;
    return ODM_OK;
}

odm_status odm_iter_seek(odm_iter *iter, uint64_t position)
{
    if (iter == NULL || iter->map == NULL) return ODM_E_INVALID;
    unload(iter);
    iter->position = position;
    iter->over = position == UINT64_MAX;
    return ODM_OK;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------- */

/* Lists the slots of the copy that name a record. */
static odm_status list_entries(struct odm_iter *iter)
{
    if (iter->copy.slot_count > iter->entry_room) {
        uint32_t *entries = realloc(iter->entries, iter->copy.slot_count * sizeof *entries);
        if (entries == NULL) return odm__fail(&iter->map->error, ODM_E_NO_MEMORY, "out of memory");
        iter->entries = entries;
        iter->entry_room = iter->copy.slot_count;
    }
    const uint64_t *slots = iter->copy.slots;
    uint32_t *entries = iter->entries;
    uint32_t count = 0;
    for (uint32_t i = 0, end = iter->copy.slot_count; i < end; ++i) {
        entries[count] = i; // Without a branch, which the processor could not foresee.
        count += (slots[i] != SLOT_EMPTY) & (slots[i] != SLOT_TOMBSTONE);
    }
    iter->entry_count = count;
    return ODM_OK;
}

static uint64_t slot_of(const struct odm_iter *iter, uint32_t entry)
{
    return iter->copy.slots[iter->entries[entry]];
}

/* Takes a reference on each segment that the copy names. */
static odm_status hold_segments(struct odm_iter *iter)
{
    struct odm_map *map = iter->map;
    for (uint32_t i = 0; i < iter->entry_count; ++i) {
        uint64_t slot = slot_of(iter, i);
        if (__builtin_expect(iter->views[slot_number(slot)].end != 0, 1)) continue;
        struct segment *segment;
        odm_status status = odm__reader_segment_of(&map->reader, slot, &segment, &map->error);
        if (status == ODM_OK) status = odm__held_add(&iter->held, map->reader.log, segment, &map->error);
        if (status != ODM_OK) return status;
        iter->views[slot_number(slot)] = (struct segment_view){.base = segment->base, .end = segment->size};
    }
    return ODM_OK;
}

/* Fetches an entry's record. Always inlined: GCC takes out the call of a function that does nothing but fetch. */
static inline __attribute__((always_inline)) void fetch_record(struct odm_iter *iter, uint32_t entry)
{
    if (entry >= iter->entry_count) return;
    uint32_t i = iter->entries[entry];
    uint64_t slot = iter->copy.slots[i];
    struct fetched *fetched = &iter->fetched[entry % FETCHED];
    fetched->record = odm__views_aim(iter->views, slot, &fetched->left);
    if (slot_offset(slot) < SEGMENT_HEADER_SIZE) fetched->record = NULL;
    fetched->slot = i;
    __builtin_prefetch(fetched->record);
}

/* Fetches where an entry's record ends: who walks looks at values. */
static inline __attribute__((always_inline)) void fetch_end(const struct odm_iter *iter, uint32_t entry)
{
    if (entry >= iter->entry_count) return;
    // A header that begins in a segment may be read: SEGMENT_GUARD bytes follow.
    const struct record_header *record = iter->fetched[entry % FETCHED].record;
    if (record == NULL) return;
    const unsigned char *value = record_value(record);
    __builtin_prefetch(value);
    __builtin_prefetch(value + record->value_size - 1);
}

/* Copies the chunk at the walk's position. */
static odm_status load(struct odm_iter *iter)
{
    struct reader *reader = &iter->map->reader;
    for (;;) {
        // What has left the map since the last chunk goes first, by head as the reader knows it now: its number, as slots keep
        // it, may have become that of another segment.
        unload(iter);
        bool torn = false;
        odm_status status =
            odm__index_copy(&reader->index, iter->position, reader->recycled, &iter->copy, &torn, &iter->map->error);
        if (status == ODM_OK && !torn) status = list_entries(iter);
        if (status == ODM_OK && !torn) status = hold_segments(iter);
        // Whatever it was, it is believed only if nothing was recycled meanwhile.
        if (!odm__reader_is_stale(reader)) {
            if (status != ODM_OK) {
                unload(iter);
                return status;
            }
            iter->recycled = reader->recycled;
            iter->generation = reader->generation;
            iter->loaded = true;
            iter->at = 0;
            iter->word = odm__index_word_place(&reader->index, iter->copy.hash_first);
            for (uint32_t i = 0; i < FETCH_AHEAD; ++i) fetch_record(iter, i);
            return ODM_OK;
        }
        status = odm__reader_renew(reader, &iter->map->error);
        if (status != ODM_OK) return status;
    }
}

/* Whether slot i is still as it was copied, in a chunk that still counts. */
static inline bool is_unchanged(struct odm_iter *iter, uint32_t i)
{
    struct reader *reader = &iter->map->reader;
    if (iter->generation != reader->generation) return false; // The copied chunk may be unmapped by now.
    if (__builtin_expect(odm__word_at(&iter->word) != iter->copy.word, 0)) {
        iter->word = odm__index_word_place(&reader->index, iter->copy.hash_first); // The directory may have grown.
        if (odm__word_at(&iter->word) != iter->copy.word) return false;
    }
    if (atomic_load_explicit(&iter->copy.live[i], memory_order_acquire) != iter->copy.slots[i]) return false;
    return atomic_load_explicit(&reader->index.header->recycled, memory_order_acquire) == iter->recycled;
}

/* ---- entries ------------------------------------------------------------------------------------------------------ */

/* With all checks. */
static __attribute__((noinline)) odm_status read_with_checks(const struct odm_iter *iter, uint64_t slot,
                                                             struct record *record)
{
    struct odm_map *map = iter->map;
    struct segment_view view = iter->views[slot_number(slot)];
    struct segment segment = {.base = view.base, .size = view.end};
    uint64_t modulus_number =
        slot_number(slot); // Good enough: only the check of the whole record needs the full address.
    for (const struct held_segment *held = iter->held; map->reader.verify && held != NULL; held = held->next) {
        if (held->segment->base == view.base) modulus_number = held->segment->number;
    }
    bool inside = slot_offset(slot) < view.end; // else it is no place in any segment
    uint64_t address = inside ? address_make(modulus_number, slot_offset(slot)) : 0;
    enum record_check check = map->reader.verify ? CHECK_ALL : CHECK_NOTHING;
    if (inside && odm__log_read(map->reader.log, &segment, address, check, record) == RECORD_WHOLE &&
        record->kind == RECORD_PUT) {
        return ODM_OK;
    }
    return odm__fail(&map->error, ODM_E_CORRUPT,
                     "log, segment %llu modulo 65536, offset %llu: the index names no whole record",
                     (unsigned long long)slot_number(slot), (unsigned long long)slot_offset(slot));
}

/* The record of an entry: the common case, of a put that lies within its segment. */
static inline odm_status fetched_record(const struct odm_iter *iter, const struct fetched *fetched,
                                        struct record *record)
{
    struct record_header *header = fetched->record;
    if (__builtin_expect(header != NULL && !iter->map->reader.verify, 1)) {
        // Acquire: partner of the release that stores it last.
        uint32_t word = (uint32_t)(atomic_load_explicit(&header->first, memory_order_acquire) >> 32);
        record->key_size = record_word_key_size(word);
        record->value_size = header->value_size;
        record->key = record_key(header);
        record->value = record->key + padded(record->key_size);
        bool whole = word == record_word(RECORD_PUT, record->key_size) &&
                     record_size(record->key_size, record->value_size) <= fetched->left;
        if (__builtin_expect(whole, 1)) return ODM_OK;
    }
    return read_with_checks(iter, iter->copy.slots[fetched->slot], record);
}

/* Takes a reference on the segment of a record that was found anew: the copy does not name it, and the reader's own ends with
 * the next refresh, when what was returned last must stay. */
static odm_status hold_segment_at(struct odm_iter *iter, const struct record_header *record)
{
    struct odm_map *map = iter->map;
    const struct segment *found = odm__reader_segment_at(&map->reader, record);
    struct segment_view *view = &iter->views[found->number & ((1 << SLOT_NUMBER_BITS) - 1)];
    if (view->base == found->base) return ODM_OK;
    struct segment *segment;
    odm_status status = odm__log_segment(map->reader.log, found->number, &segment, &map->error);
    if (status == ODM_OK) status = odm__held_add(&iter->held, map->reader.log, segment, &map->error);
    if (status != ODM_OK) return status;
    // The number may have wrapped: what the copy names, it is still read by.
    if (view->end == 0) *view = (struct segment_view){.base = segment->base, .end = segment->size};
    return ODM_OK;
}

/* An entry that was changed since it was copied, as it is now; ODM_NOT_FOUND if it was removed. */
static __attribute__((noinline)) odm_status find_changed(struct odm_iter *iter, struct record *record)
{
    struct reader *reader = &iter->map->reader;
    const struct record_header *found;
    uint64_t hash = hash_key(record->key, record->key_size, reader->seed);
    odm_status status = odm__reader_find(reader, record->key, record->key_size, hash, &found, &iter->map->error);
    if (status == ODM_OK) status = hold_segment_at(iter, found);
    if (status != ODM_OK) return status;
    record->key = record_key(found);
    record->value = record_value(found);
    record->value_size = found->value_size;
    return ODM_OK;
}

/* The next entry of the loaded chunk; ODM_DONE if there is none. After an error it is still the next. */
static inline __attribute__((always_inline)) odm_status next_in_chunk(struct odm_iter *iter, struct record *record)
{
    struct reader *reader = &iter->map->reader;
    for (; iter->at < iter->entry_count; ++iter->at) {
        fetch_record(iter, iter->at + FETCH_AHEAD);
        fetch_end(iter, iter->at + FETCH_END_AHEAD);
        const struct fetched *fetched = &iter->fetched[iter->at % FETCHED];
        odm_status status = fetched_record(iter, fetched, record);
        if (__builtin_expect(status != ODM_OK, 0)) return status;
        // Where the walk was resumed; or in an index built anew, whose chunk here holds what came from a smaller one, too.
        bool partial = iter->copy.hash_first < iter->position;
        if (partial && hash_key(record->key, record->key_size, reader->seed) < iter->position) continue;
        reader->lent = true;
        if (__builtin_expect(!is_unchanged(iter, fetched->slot), 0)) status = find_changed(iter, record);
        if (status == ODM_NOT_FOUND) continue;
        if (__builtin_expect(status == ODM_OK, 1)) ++iter->at;
        return status;
    }
    return ODM_DONE;
}

/* Goes on to the next chunk. */
static __attribute__((noinline)) odm_status next_chunk(struct odm_iter *iter)
{
    if (iter->loaded) {
        iter->loaded = false;
        iter->position = iter->copy.hash_last + 1;
        iter->over = iter->copy.hash_last == UINT64_MAX;
    }
    return iter->over ? ODM_DONE : load(iter);
}

static inline __attribute__((always_inline)) odm_status next_entry(struct odm_iter *iter, struct record *record)
{
    for (;;) {
        odm_status status = iter->loaded ? next_in_chunk(iter, record) : ODM_DONE;
        // Damage is told once, and the walk can go on behind it; what else has failed may be tried again.
        if (__builtin_expect(status == ODM_E_CORRUPT, 0)) ++iter->at;
        if (__builtin_expect(status != ODM_DONE, 1)) return status;
        status = next_chunk(iter);
        if (status != ODM_OK) return status;
    }
}

odm_status odm_iter_next_many(odm_iter *iter, size_t *n, const void **keys, uint64_t *key_sizes, const void **values,
                              uint64_t *value_sizes)
{
    if (iter == NULL || iter->map == NULL) return ODM_E_INVALID;
    if (n == NULL || *n == 0) return odm__fail(&iter->map->error, ODM_E_INVALID, "odm_iter_next_many: n is NULL or 0");
    size_t room = *n;
    *n = 0;
    while (*n < room) {
        // The chunk that the entries of this call lie in stays loaded until the next call.
        bool chunk_is_over = iter->loaded && iter->at >= iter->entry_count;
        if (*n != 0 && chunk_is_over) break;
        struct record record;
        odm_status status = *n == 0 ? next_entry(iter, &record) : next_in_chunk(iter, &record);
        if (status == ODM_DONE && *n != 0) break;
        if (status < 0 && *n != 0) break; // The next call meets it first.
        if (status != ODM_OK) return status;
        if (keys != NULL) keys[*n] = record.key;
        if (key_sizes != NULL) key_sizes[*n] = record.key_size;
        if (values != NULL) values[*n] = record.value;
        if (value_sizes != NULL) value_sizes[*n] = record.value_size;
        ++*n;
    }
    return ODM_OK;
}

odm_status odm_iter_next(odm_iter *iter, const void **key, size_t *key_size, const void **value, size_t *value_size)
{
    if (iter == NULL || iter->map == NULL) return ODM_E_INVALID;
    struct record record;
    odm_status status = next_entry(iter, &record);
    if (status != ODM_OK) return status;
    if (key != NULL) *key = record.key;
    if (key_size != NULL) *key_size = (size_t)record.key_size;
    if (value != NULL) *value = record.value;
    if (value_size != NULL) *value_size = (size_t)record.value_size;
    return ODM_OK;
}
