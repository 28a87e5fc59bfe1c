/* reader.c - looking up, and the segments a handle keeps mapped. Contract: reader.h. */
#include "reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "checksum.h"
#include "os.h"
#include "status.h"

odm_status odm__reader_open(struct reader *reader, struct store *store, struct log *log, uint64_t seed,
                            odm_error *error)
{
    memset(reader, 0, sizeof *reader);
    reader->store = store;
    reader->log = log;
    reader->seed = seed;
    // 1 MiB of addresses, of which a map of a few hundred segments touches a page or two.
    void *views = odm__os.map(NULL, READER_VIEW_COUNT * sizeof *reader->views, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (views == MAP_FAILED) return odm__fail_os(error, "map", "a table of segments");
    reader->views = views;
    return ODM_OK;
}

void odm__reader_attach(struct reader *reader, struct index_file *file, const struct meta_fixed *fixed,
                        const struct lock_client *client, uint32_t wait_ms)
{
    odm__index_view(&reader->index, file, fixed, client, wait_ms);
    ++reader->generation;
    reader->recycled = atomic_load_explicit(&reader->index.header->recycled, memory_order_acquire);
    reader->head = atomic_load_explicit(&reader->index.header->head, memory_order_acquire);
}

odm_status odm__held_add(struct held_segment **list, struct log *log, struct segment *segment, odm_error *error)
{
    struct held_segment *held = malloc(sizeof *held);
    if (held == NULL) {
        odm__log_release(log, segment);
        return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    }
    *held = (struct held_segment){.next = *list, .segment = segment};
    *list = held;
    return ODM_OK;
}

void odm__held_release(struct held_segment **list, struct log *log)
{
    while (*list != NULL) {
        struct held_segment *held = *list;
        *list = held->next;
        odm__log_release(log, held->segment);
        free(held);
    }
}

void odm__reader_close(struct reader *reader)
{
    odm__held_release(&reader->held, reader->log);
    odm__held_release(&reader->dropped, reader->log);
    if (reader->views != NULL) odm__os.unmap(reader->views, READER_VIEW_COUNT * sizeof *reader->views);
    if (reader->store != NULL && reader->index.file != NULL)
        odm__store_index_release(reader->store, reader->index.file);
    reader->views = NULL;
}

/* ---- segments ----------------------------------------------------------------------------------------------------- */

static struct segment_view *view_of(const struct reader *reader, uint64_t slot)
{
    return &reader->views[slot_number(slot)];
}

/* The full number of the segment a slot names: the one from head on that it is the remainder of. */
static uint64_t number_of(const struct reader *reader, uint64_t slot)
{
    uint64_t modulus = UINT64_C(1) << SLOT_NUMBER_BITS;
    uint64_t head = address_number(reader->head);
    return head + ((slot_number(slot) - head) & (modulus - 1));
}

static odm_status segment_missing(uint64_t number, odm_error *error)
{
    return odm__fail(error, ODM_E_CORRUPT, "log/%011" PRIu64 ", which the index names, is missing or not of this map",
                     number);
}

/* Maps the segment a slot names, for this reader. */
static odm_status view_map(struct reader *reader, uint64_t slot, odm_error *error)
{
    uint64_t number = number_of(reader, slot);
    struct index_totals totals;
    (void)odm__index_totals(&reader->index, false, &totals, NULL);
    odm__log_expect_gets(reader->log, totals.live_bytes, totals.count);
    struct segment *segment;
    odm_status status = odm__log_segment(reader->log, number, &segment, error);
    if (status == ODM_NOT_FOUND) status = segment_missing(number, error);
    if (status == ODM_OK && !odm__segment_is_whole(reader->log, segment)) {
        odm__log_release(reader->log, segment);
        status = segment_missing(number, error);
    }
    if (status == ODM_OK) status = odm__held_add(&reader->held, reader->log, segment, error);
    if (status != ODM_OK) return status;
    *view_of(reader, slot) = (struct segment_view){.base = segment->base, .end = segment->size};
    return ODM_OK;
}

odm_status odm__reader_segment_of(struct reader *reader, uint64_t slot, struct segment **segment, odm_error *error)
{
    // The reader's own reference is what keeps the slices that are lent from it.
    odm_status status = view_of(reader, slot)->end == 0 ? view_map(reader, slot, error) : ODM_OK;
    if (status != ODM_OK) return status;
    uint64_t number = number_of(reader, slot);
    status = odm__log_segment(reader->log, number, segment, error);
    return status == ODM_NOT_FOUND ? segment_missing(number, error) : status;
}

struct segment *odm__reader_segment_at(const struct reader *reader, const struct record_header *record)
{
    // What is written now lies in what was mapped last, so the search is short.
    const struct held_segment *held = reader->held;
    while ((uintptr_t)record - (uintptr_t)held->segment->base >= held->segment->size) held = held->next;
    return held->segment;
}

static bool index_may_be_old(const struct reader *reader)
{
    return reader->store->read_only || atomic_load(&reader->store->forked) ||
           atomic_load_explicit(&reader->index.header->superseded, memory_order_acquire) != 0;
}

odm_status odm__reader_renew(struct reader *reader, odm_error *error)
{
    // The counter first, then head: the other way round, a segment that left in between would be missed for ever.
    uint64_t recycled = atomic_load_explicit(&reader->index.header->recycled, memory_order_acquire);
    if (reader->store != NULL && index_may_be_old(reader)) {
        struct index_file *newer;
        odm_status status = odm__store_index(reader->store, &newer, error);
        if (status != ODM_OK) return status;
        struct index_file *older = reader->index.file;
        if (newer != older) {
            odm__reader_attach(reader, newer, &reader->store->meta.fixed, reader->index.client, reader->index.wait_ms);
            recycled = reader->recycled;
        }
        odm__store_index_release(reader->store, older);
    }
    uint64_t head = atomic_load_explicit(&reader->index.header->head, memory_order_acquire);
    for (struct held_segment **link = &reader->held; *link != NULL;) {
        struct held_segment *held = *link;
        if (held->segment->number >= address_number(head)) {
            link = &held->next;
            continue;
        }
        reader->views[held->segment->number & ((1 << SLOT_NUMBER_BITS) - 1)] = (struct segment_view){.end = 0};
        *link = held->next;
        held->next = reader->dropped;
        reader->dropped = held;
    }
    reader->head = head;
    reader->recycled = recycled;
    if (!reader->lent) odm__held_release(&reader->dropped, reader->log);
    return ODM_OK;
}

odm_status odm__reader_refresh(struct reader *reader, odm_error *error)
{
    if (reader->lent) {
        reader->lent = false;
        odm__held_release(&reader->dropped, reader->log);
    }
    bool look = odm__reader_is_stale(reader) || (reader->store != NULL && reader->store->read_only);
    return look ? odm__reader_renew(reader, error) : ODM_OK;
}

/* ---- records ------------------------------------------------------------------------------------------------------ */

static odm_status slot_is_corrupt(const struct reader *reader, uint64_t slot, const char *why, odm_error *error)
{
    return odm__fail(error, ODM_E_CORRUPT, "log/%011" PRIu64 ", offset %" PRIu64 ": %s", number_of(reader, slot),
                     slot_offset(slot), why);
}

odm_status odm__reader_resolve(struct reader *reader, uint64_t slot, struct record *record, odm_error *error)
{
    if (view_of(reader, slot)->end == 0) {
        odm_status status = view_map(reader, slot, error);
        if (status != ODM_OK) return status;
    }
    struct segment_view view = *view_of(reader, slot);
    struct segment segment = {.number = number_of(reader, slot), .base = view.base, .size = view.end};
    // Checked, not asserted: a damaged slot may name what is no place in any segment.
    if (slot_offset(slot) >= view.end) {
        return slot_is_corrupt(reader, slot, "the index names this place, which lies behind the segment's end", error);
    }
    uint64_t address = address_make(segment.number, slot_offset(slot));
    enum record_check check = reader->verify ? CHECK_ALL : CHECK_NOTHING;
    if (odm__log_read(reader->log, &segment, address, check, record) != RECORD_WHOLE || record->kind != RECORD_PUT) {
        return slot_is_corrupt(reader, slot, "the index names this place, but no whole record of a put stands there",
                               error);
    }
    return ODM_OK;
}

odm_status odm__reader_hash_of(void *context, uint64_t slot, uint64_t *hash, odm_error *error)
{
    struct reader *reader = context;
    struct record record;
    odm_status status = odm__reader_resolve(reader, slot, &record, error);
    if (status == ODM_OK) *hash = hash_key(record.key, record.key_size, reader->seed);
    return status;
}

odm_status odm__reader_locate(struct reader *reader, const struct chunk *chunk, const void *key, size_t key_size,
                              uint64_t hash, struct place *place, odm_error *error)
{
    const uint32_t nowhere = UINT32_MAX;
    uint32_t mask = chunk->slot_count - 1;
    uint32_t first = hash_home(hash) & mask; // of a line
    place->found = false;
    place->at = nowhere;
    // To the end of the probe, before a tombstone is taken: the key may lie behind it.
    for (uint32_t seen = 0; seen < chunk->slot_count; seen += LINE_SLOTS, first = (first + LINE_SLOTS) & mask) {
        odm__u64 *line = &chunk->slots[first];
        uint32_t empties = odm__line_empties(line);
        uint32_t probed = (empties & (0 - empties)) - 1; // the slots before the first empty one; all if none is
        for (uint32_t left = odm__line_matches(line, hash_tag(hash)) & probed; left != 0; left &= left - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(left);
            uint64_t slot = atomic_load_explicit(&line[i], memory_order_relaxed);
            if (slot == SLOT_TOMBSTONE) continue;
            const struct record_header *header = NULL;
            if (!reader->verify) header = odm__reader_match(reader, slot, key, key_size);
            if (header != NULL) {
                place->lsn = header->lsn;
                place->size = record_size(key_size, header->value_size);
            } else {
                struct record record;
                odm_status status = odm__reader_resolve(reader, slot, &record, error);
                if (status != ODM_OK) return status;
                if (record.key_size != key_size || !same_bytes(record.key, key, key_size)) continue;
                place->lsn = record.lsn;
                place->size = record.size;
            }
            place->found = true;
            place->at = first + i;
            return ODM_OK;
        }
        uint32_t removed = odm__line_matches(line, SLOT_TOMBSTONE >> SLOT_TAG_SHIFT) & probed;
        for (; place->at == nowhere && removed != 0; removed &= removed - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(removed);
            if (atomic_load_explicit(&line[i], memory_order_relaxed) == SLOT_TOMBSTONE) place->at = first + i;
        }
        if (empties != 0) {
            if (place->at == nowhere) place->at = first + (uint32_t)__builtin_ctz(empties);
            return ODM_OK;
        }
    }
    return odm__fail(error, ODM_E_CORRUPT, "index: a chunk has no empty slot");
}

/* What a single try of a lookup comes to. */
enum find_outcome { FIND_HIT, FIND_MISS, FIND_NOT_MAPPED, FIND_DAMAGE, FIND_INDEX_ERROR };

/* A slot with the right tag has not matched: another key (FIND_MISS), a segment not mapped yet, or damage. */
static __attribute__((noinline, cold)) enum find_outcome why_no_match(const struct reader *reader, uint64_t slot,
                                                                      const void *key, size_t key_size)
{
    const struct segment_view *view = view_of(reader, slot);
    uint64_t offset = slot_offset(slot);
    if (offset >= view->end) return FIND_NOT_MAPPED;
    struct record_header *header = (struct record_header *)(uintptr_t)(view->base + offset);
    uint32_t word = (uint32_t)(atomic_load_explicit(&header->first, memory_order_relaxed) >> 32);
    if (record_word_kind(word) != RECORD_PUT) return FIND_DAMAGE; // A live slot never names anything else.
    bool same = word == record_word(RECORD_PUT, key_size) && same_bytes(record_key(header), key, key_size);
    return same ? FIND_DAMAGE : FIND_MISS; // The key is right, so it is longer than its segment.
}

/* Looks through the chunk that a directory word names. */
static inline __attribute__((always_inline)) enum find_outcome find_in(const struct reader *reader, uint64_t word,
                                                                       const void *key, size_t key_size, uint64_t hash,
                                                                       uint64_t *slot,
                                                                       const struct record_header **record)
{
    struct probe probe;
    odm__probe_start(&reader->index, word, hash, &probe);
    for (;;) {
        *slot = odm__probe_next(&probe);
        if (*slot == SLOT_EMPTY) return __builtin_expect(probe.lines != 0, 1) ? FIND_MISS : FIND_DAMAGE;

        *record = odm__reader_match(reader, *slot, key, key_size);
        if (__builtin_expect(*record != NULL, 1)) return FIND_HIT;
        enum find_outcome why = why_no_match(reader, *slot, key, key_size);
        if (why != FIND_MISS) return why;
    }
}

static inline __attribute__((always_inline)) enum find_outcome find_once(struct reader *reader, const void *key,
                                                                         size_t key_size, uint64_t hash, uint64_t *slot,
                                                                         const struct record_header **record,
                                                                         odm_error *error)
{
    uint64_t word;
    if (__builtin_expect(odm__index_word(&reader->index, hash, &word, error) != ODM_OK, 0)) return FIND_INDEX_ERROR;
    return find_in(reader, word, key, key_size, hash, slot, record);
}

/* A reader that can write nothing may look through an index that is no more; before it reports damage it looks for another.
 * True at most once for each: then there is one. */
static bool newer_index(struct reader *reader)
{
    if (reader->store == NULL || !reader->store->read_only) return false;
    const struct index_file *before = reader->index.file;
    return odm__reader_renew(reader, NULL) == ODM_OK && reader->index.file != before;
}

static __attribute__((noinline, cold)) odm_status find_slowly(struct reader *reader, const void *key, size_t key_size,
                                                              uint64_t hash, const struct record_header **record,
                                                              odm_error *error)
{
    // Each turn either maps a segment, or follows something that another client has recycled meanwhile.
    for (;;) {
        uint64_t slot = 0;
        enum find_outcome outcome = find_once(reader, key, key_size, hash, &slot, record, error);
        odm_status status = outcome == FIND_HIT ? ODM_OK : ODM_NOT_FOUND;
        if (outcome == FIND_NOT_MAPPED && view_of(reader, slot)->end != 0) outcome = FIND_DAMAGE;
        if (outcome == FIND_NOT_MAPPED) status = view_map(reader, slot, error);
        if (outcome == FIND_INDEX_ERROR) status = error != NULL ? error->status : ODM_E_CORRUPT;
        if (outcome == FIND_DAMAGE && slot == 0) {
            status = odm__fail(error, ODM_E_CORRUPT, "index: a chunk has no empty slot");
        } else if (outcome == FIND_DAMAGE) {
            status =
                slot_is_corrupt(reader, slot, "the index names this place, but no record of a put stands there", error);
        }
        if (odm__reader_is_stale(reader) || (status == ODM_E_CORRUPT && newer_index(reader))) {
            status = odm__reader_renew(reader, error);
            if (status != ODM_OK) return status;
            continue;
        }
        if (outcome == FIND_NOT_MAPPED && status == ODM_OK) continue;
        if (outcome == FIND_HIT && reader->verify) {
            struct record whole;
            return odm__reader_resolve(reader, slot, &whole, error);
        }
        return status;
    }
}

odm_status odm__reader_find(struct reader *reader, const void *key, size_t key_size, uint64_t hash,
                            const struct record_header **record, odm_error *error)
{
    uint64_t slot;
    enum find_outcome outcome = find_once(reader, key, key_size, hash, &slot, record, error);
    if (__builtin_expect(outcome <= FIND_MISS && !odm__reader_is_stale(reader) && !reader->verify, 1)) {
        return outcome == FIND_HIT ? ODM_OK : ODM_NOT_FOUND;
    }
    return find_slowly(reader, key, key_size, hash, record, error);
}

odm_status odm__reader_try_find(struct reader *reader, const void *key, size_t key_size, uint64_t hash,
                                const struct record_header **record)
{
    uint64_t word = odm__index_word_at_once(&reader->index, hash);
    if (word >> WORD_LOCATION_SHIFT > reader->index.limit) return ODM_WOULD_BLOCK;
    uint64_t slot;
    enum find_outcome outcome = find_in(reader, word, key, key_size, hash, &slot, record);
    if (outcome > FIND_MISS || odm__reader_is_stale(reader) || reader->verify) return ODM_WOULD_BLOCK;
    return outcome == FIND_HIT ? ODM_OK : ODM_NOT_FOUND;
}
