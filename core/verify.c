/* verify.c - looking at everything. Contract: verify.h. */
#include "verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "os.h"
#include "status.h"

enum { CLOCK_BYTES = 256 * 1024, CLOCK_SLOTS = 256 }; // looked at between two looks at the clock

struct verify {
    struct job job;
    odm_report report;
    odm_error first; // the first damage
    uint64_t done, total;

    // The log.
    struct job_log log;
    size_t segment; // being read
    uint64_t address;

    // The index.
    bool over;
    uint64_t position; // hash that the chunk being looked at begins with, unless the index was exchanged on the way
    bool loaded;
    struct chunk_copy copy;
    uint64_t recycled, generation; // when it was copied
    uint32_t at;                   // next slot of the copy
    // Of the stripe, up to the chunk being looked at; and of that chunk.
    uint64_t stripe_count, stripe_bytes, chunk_count, chunk_bytes;
    bool unsized; // A slot of the stripe names no whole record: its bytes are not known.
    // As the stripe said when it was begun.
    uint64_t count_before, bytes_before, tail_before, generation_before;
};

static void verify_free(struct odm_map *map, struct job *job)
{
    struct verify *verify = (struct verify *)(void *)job;
    odm__job_release_log(map, &verify->log);
    odm__chunk_copy_free(&verify->copy);
    free(verify);
}

/* ---- what is found --------------------------------------------------------------------------------------------------- */

/* number 0: the file `index`. */
static void note_bad(struct verify *verify, uint64_t *counter, uint64_t count, uint64_t number, uint64_t offset,
                     const char *what)
{
    *counter += count;
    if (verify->first.status != ODM_OK) return;
    verify->report.bad_number = number;
    verify->report.bad_offset = offset;
    char name[SEGMENT_NAME_SIZE + 8] = "index";
    if (number != 0) snprintf(name, sizeof name, "log/%011" PRIu64, number);
    odm__note(&verify->first, ODM_E_CORRUPT, "%s, offset %" PRIu64 ": %s", name, offset, what);
}

static void bad_record(struct verify *verify, uint64_t address, const char *what)
{
    note_bad(verify, &verify->report.bad_records, 1, address_number(address), address_offset(address), what);
}

/* ---- the log --------------------------------------------------------------------------------------------------------- */

static void verify_record(struct odm_map *map, struct verify *verify, const struct job_segment *held)
{
    struct record record;
    uint64_t address = verify->address;
    enum record_state state = odm__log_read(map->writer.log, held->segment, address, CHECK_ALL, &record);
    uint64_t next = state == RECORD_WHOLE ? address + record.size / ADDRESS_UNIT : 0;
    if (state == RECORD_WHOLE && held->end != UINT64_MAX && next > held->end) {
        bad_record(verify, address, "a record goes on behind the place where the log leaves its segment");
        next = held->end;
    } else if (state == RECORD_WHOLE && record.kind == RECORD_RESERVED && address < verify->log.slot.watermark) {
        bad_record(verify, address, "a record was never completed, below what was synced");
    } else if (state != RECORD_WHOLE) {
        // With a header that is whole only the value is damaged, and it is known where the next record is.
        bool header = state == RECORD_BAD &&
                      odm__log_read(map->writer.log, held->segment, address, CHECK_HEADER, &record) == RECORD_WHOLE;
        bad_record(verify, address,
                   state == RECORD_ABSENT ? "a record is missing"
                   : header               ? "the check of a value fails"
                                          : "a record's header is not whole");
        next = header ? address + record.size / ADDRESS_UNIT
                      : odm__log_search(map->writer.log, held->segment, address, held->end);
    }
    ++verify->report.records;
    verify->report.bytes += (next - address) * ADDRESS_UNIT;
    verify->address = next;
}

/* Reads on until it is late. *over: all is read. */
static void verify_log(struct odm_map *map, struct verify *verify, bool *over)
{
    uint64_t looked = 0;
    while (verify->segment < verify->log.count) {
        struct job_segment *held = &verify->log.segments[verify->segment];
        if (verify->address == 0) {
            verify->address = held->first;
            odm__job_enter(map, held);
        }
        if (held->segment == NULL) {
            note_bad(verify, &verify->report.bad_records, 1, held->number, 0,
                     "the segment is missing or its header is damaged");
        }
        // Without a successor that names its end a segment is read as far as something stands there.
        uint64_t end = held->end;
        while (held->segment != NULL && verify->address < end) {
            uint64_t left = held->segment->size - address_offset(verify->address);
            struct record record;
            if (end == UINT64_MAX &&
                (left < RECORD_HEADER_SIZE || odm__log_read(map->writer.log, held->segment, verify->address,
                                                            CHECK_NOTHING, &record) == RECORD_ABSENT)) {
                break;
            }
            uint64_t before = verify->report.bytes;
            verify_record(map, verify, held);
            looked += verify->report.bytes - before;
            if (looked >= CLOCK_BYTES && odm__job_is_late(&verify->job)) return;
            if (looked >= CLOCK_BYTES) looked = 0;
        }
        if (held->segment != NULL && end == UINT64_MAX) {
            bad_record(verify, verify->address, "no segment goes on where the log leaves this one");
        }
        odm__job_leave(map, held);
        ++verify->segment;
        verify->address = 0;
    }
    *over = true;
}

/* ---- the index ------------------------------------------------------------------------------------------------------- */

static uint64_t stripe_first_hash(const struct index *index, uint32_t stripe)
{
    return index->stripe_bits == 0 ? 0 : (uint64_t)stripe << (64 - index->stripe_bits);
}

static uint64_t offset_in_index(const struct odm_map *map, const void *at)
{
    return (uint64_t)((const unsigned char *)at - map->reader.index.base);
}

static void bad_slot(struct odm_map *map, struct verify *verify, uint32_t i, const char *what)
{
    note_bad(verify, &verify->report.bad_slots, 1, 0, offset_in_index(map, &verify->copy.live[i]), what);
}

static odm_status load_chunk(struct odm_map *map, struct verify *verify, bool *damaged)
{
    struct reader *reader = &map->reader;
    *damaged = false;
    for (;;) {
        bool torn = false;
        odm_error detail = {.struct_size = sizeof detail};
        odm_status status =
            odm__index_copy(&reader->index, verify->position, reader->recycled, &verify->copy, &torn, &detail);
        if (odm__reader_is_stale(reader)) {
            status = odm__reader_renew(reader, &map->error);
            if (status != ODM_OK) return status;
            continue;
        }
        if (status == ODM_E_CORRUPT) {
            *damaged = true;
            uint32_t stripe = hash_stripe(verify->position, reader->index.stripe_bits);
            note_bad(verify, &verify->report.bad_slots, 1, 0, offset_in_index(map, &reader->index.stripes[stripe]),
                     detail.message);
            return ODM_OK;
        }
        if (status != ODM_OK) {
            map->error = detail;
            return status;
        }
        verify->recycled = reader->recycled;
        verify->generation = reader->generation;
        verify->loaded = true;
        verify->at = 0;
        verify->chunk_count = verify->chunk_bytes = 0;
        return ODM_OK;
    }
}

/* Whether slot i is still what was copied, so that what was found wrong with it is wrong. */
static bool still_there(struct odm_map *map, const struct verify *verify, uint32_t i)
{
    struct reader *reader = &map->reader;
    uint64_t word;
    if (verify->generation != reader->generation) return false;
    if (odm__index_word(&reader->index, verify->copy.hash_first, &word, NULL) != ODM_OK) return false;
    return word == verify->copy.word &&
           atomic_load_explicit(&verify->copy.live[i], memory_order_acquire) == verify->copy.slots[i] &&
           !odm__reader_is_stale(reader);
}

static odm_status record_is_whole(struct odm_map *map, uint64_t slot, struct record *record)
{
    struct reader *reader = &map->reader;
    odm_status status = odm__reader_resolve(reader, slot, record, &map->error);
    if (status != ODM_OK) return status;
    struct segment segment = {
        .number = address_number(record->address),
        .base = record->key - RECORD_HEADER_SIZE - address_offset(record->address),
        .size = reader->views[slot_number(slot)].end,
    };
    struct record again;
    // The values of what was in the log when the work began have been checked.
    return odm__log_read(reader->log, &segment, record->address, CHECK_HEADER, &again) == RECORD_WHOLE ? ODM_OK
                                                                                                       : ODM_E_CORRUPT;
}

/* What is wrong with a slot as it was copied; NULL: nothing. */
static const char *look_at_slot(struct odm_map *map, struct verify *verify, uint32_t i, odm_status *failed)
{
    struct reader *reader = &map->reader;
    uint64_t slot = verify->copy.slots[i];
    struct record record;
    *failed = ODM_OK;
    odm_status status = record_is_whole(map, slot, &record);
    if (status == ODM_E_CORRUPT) {
        verify->unsized = true;
        return "a slot names no whole record of a put";
    }
    if (status != ODM_OK) {
        *failed = status;
        return NULL;
    }
    verify->chunk_bytes += record.size;
    uint64_t hash = hash_key(record.key, record.key_size, reader->seed);
    if (hash < verify->copy.hash_first || hash > verify->copy.hash_last) return "a slot's key belongs to another chunk";
    if (hash_tag(hash) != slot >> SLOT_TAG_SHIFT) return "a slot's tag is not that of its key";
    odm__u32 *cold = (odm__u32 *)(void *)(verify->copy.live + verify->copy.slot_count);
    if (atomic_load_explicit(&cold[i], memory_order_relaxed) != cold_make(hash))
        return "a slot's cold word is not that of its key";

    uint32_t mask = verify->copy.slot_count - 1, at = hash_home(hash) & mask;
    while (at != i && verify->copy.slots[at] != slot) at = (at + 1) & mask;
    if (at != i) return "a slot is there twice";
    const struct record_header *found;
    status = odm__reader_find(reader, record.key, record.key_size, hash, &found, &map->error);
    if (status == ODM_NOT_FOUND) return "a slot can not be reached from its key's home";
    if (status == ODM_E_CORRUPT) return "looking up a slot's key meets damage";
    if (status != ODM_OK) *failed = status;
    if (status == ODM_OK && record_key(found) != record.key) return "two slots have the same key";
    return NULL;
}

static odm_status verify_slots(struct odm_map *map, struct verify *verify)
{
    uint32_t looked = 0;
    while (verify->at < verify->copy.slot_count) {
        if (++looked % CLOCK_SLOTS == 0 && odm__job_is_late(&verify->job)) return ODM_OK;
        if (verify->generation != map->reader.generation) { // Another index: look at this chunk anew.
            verify->loaded = false;
            return ODM_OK;
        }
        uint32_t i = verify->at++;
        uint64_t slot = verify->copy.slots[i];
        if (slot == SLOT_EMPTY || slot == SLOT_TOMBSTONE) continue;
        ++verify->chunk_count;
        odm_status failed;
        // As if it were lent: while its key is looked up the segment may leave the map.
        struct reader *reader = &map->reader;
        uint64_t recycled = reader->recycled;
        bool lent = reader->lent;
        reader->lent = true;
        const char *wrong = look_at_slot(map, verify, i, &failed);
        reader->lent = lent;
        if (wrong != NULL && still_there(map, verify, i)) {
            bad_slot(map, verify, i, wrong);
        } else if (failed != ODM_OK && !odm__reader_is_stale(reader)) {
            return failed;
        }
        if (odm__reader_is_stale(reader) || reader->recycled != recycled) {
            odm_status status = odm__reader_renew(reader, &map->error);
            if (status != ODM_OK) return status;
        }
    }
    return ODM_OK;
}

/* Counts a stripe's keys; the caller owns its lock. */
static odm_status count_locked(struct odm_map *map, uint32_t stripe, uint64_t *count)
{
    struct index *index = &map->reader.index;
    *count = 0;
    uint64_t last =
        stripe_first_hash(index, stripe) | (index->stripe_bits == 0 ? UINT64_MAX : UINT64_MAX >> index->stripe_bits);
    for (uint64_t hash = stripe_first_hash(index, stripe);;) {
        struct chunk chunk;
        odm_status status = odm__index_chunk(index, hash, &chunk, &map->error);
        if (status != ODM_OK) return status;
        for (uint32_t i = 0; i < chunk.slot_count; ++i) {
            uint64_t slot = atomic_load_explicit(&chunk.slots[i], memory_order_relaxed);
            *count += slot != SLOT_EMPTY && slot != SLOT_TOMBSTONE;
        }
        unsigned top = index->stripe_bits + word_depth(chunk.word);
        uint64_t chunk_last = top == 0 ? UINT64_MAX : hash | UINT64_MAX >> top;
        if (chunk_last >= last) return ODM_OK;
        hash = chunk_last + 1;
    }
}

/* A wrong count of keys is as many bad slots as it is wrong by; one of bytes is one. */
static void bad_count(struct odm_map *map, struct verify *verify, uint32_t stripe, uint64_t said, uint64_t counted)
{
    char what[96];
    snprintf(what, sizeof what, "stripe %u says it has %" PRIu64 " keys, but there are %" PRIu64, stripe, said,
             counted);
    note_bad(verify, &verify->report.bad_slots, said > counted ? said - counted : counted - said, 0,
             offset_in_index(map, &map->reader.index.stripes[stripe].count), what);
}

static void bad_bytes(struct odm_map *map, struct verify *verify, uint32_t stripe, uint64_t said)
{
    char what[112];
    snprintf(what, sizeof what, "stripe %u says its records have %" PRIu64 " bytes, but they have %" PRIu64, stripe,
             said, verify->stripe_bytes);
    note_bad(verify, &verify->report.bad_slots, 1, 0,
             offset_in_index(map, &map->reader.index.stripes[stripe].live_bytes), what);
}

/* A stripe's slots were all looked at: are they as many, and as long, as it says? If it was written meanwhile its keys are counted
 * once more, with its lock. */
static odm_status verify_counts(struct odm_map *map, struct verify *verify, uint32_t number)
{
    struct stripe *stripe = &map->reader.index.stripes[number];
    uint64_t count = atomic_load(&stripe->count), bytes = atomic_load(&stripe->live_bytes), tail;
    odm_status status = odm__job_tail(map, &tail);
    if (status != ODM_OK) return status;
    // In another index a chunk may also hold keys that were counted already.
    bool quiet = tail == verify->tail_before && count == verify->count_before && bytes == verify->bytes_before &&
                 map->reader.generation == verify->generation_before;
    bool right = count == verify->stripe_count && (bytes == verify->stripe_bytes || verify->unsized);
    if (quiet && right) return ODM_OK;
    if (map->store->read_only) {
        // Who may not lock can not tell a write in flight from damage, where there are writers.
        bool alone = map->store->private_index || !map->store->lock_is_current;
        if (quiet && alone) bad_count(map, verify, number, count, verify->stripe_count);
        return ODM_OK;
    }
    status = odm__map_take_stripe(map, number);
    if (status != ODM_OK) return status;
    stripe = &map->reader.index.stripes[number];
    uint64_t counted = 0;
    count = atomic_load(&stripe->count);
    status = count_locked(map, number, &counted);
    // Mended, it may say something else by now; nothing was written if the tail is the same.
    bytes = atomic_load(&stripe->live_bytes);
    odm_status asked = odm__job_tail(map, &tail);
    odm__map_give_stripe(map, number);
    if (status == ODM_E_CORRUPT) return ODM_OK; // Noted when its chunk was to be copied.
    if (status != ODM_OK || asked != ODM_OK) return status != ODM_OK ? status : asked;
    if (counted != count) {
        bad_count(map, verify, number, count, counted);
    } else if (quiet && tail == verify->tail_before && bytes != verify->stripe_bytes && !verify->unsized) {
        bad_bytes(map, verify, number, bytes);
    }
    return ODM_OK;
}

static odm_status begin_stripe(struct odm_map *map, struct verify *verify, uint32_t number)
{
    const struct stripe *stripe = &map->reader.index.stripes[number];
    verify->stripe_count = verify->stripe_bytes = 0;
    verify->unsized = false;
    odm_status status = odm__job_tail(map, &verify->tail_before);
    verify->generation_before = map->reader.generation;
    verify->count_before = atomic_load(&stripe->count);
    verify->bytes_before = atomic_load(&stripe->live_bytes);
    return status;
}

/* Looks at the chunk at `position`, or the rest of it. */
static odm_status verify_chunk(struct odm_map *map, struct verify *verify)
{
    struct index *index = &map->reader.index;
    uint32_t stripe = hash_stripe(verify->position, index->stripe_bits);
    bool damaged = false;
    odm_status status = ODM_OK;
    if (!verify->loaded && verify->position == stripe_first_hash(index, stripe))
        status = begin_stripe(map, verify, stripe);
    if (status == ODM_OK && !verify->loaded) status = load_chunk(map, verify, &damaged);
    if (status == ODM_OK && !damaged) status = verify_slots(map, verify);
    if (status != ODM_OK) return status;
    if (!damaged && (!verify->loaded || verify->at < verify->copy.slot_count)) return ODM_OK; // late, or once more

    uint64_t stripe_last =
        index->stripe_bits == 0 ? UINT64_MAX : stripe_first_hash(index, stripe) | UINT64_MAX >> index->stripe_bits;
    uint64_t last = damaged ? stripe_last : verify->copy.hash_last;
    verify->loaded = false;
    verify->stripe_count += verify->chunk_count;
    verify->stripe_bytes += verify->chunk_bytes;
    verify->done += (uint64_t)verify->copy.slot_count * (SLOT_SIZE + COLD_SIZE);
    if (last == stripe_last && !damaged) status = verify_counts(map, verify, stripe);
    verify->over = last == UINT64_MAX;
    verify->position = last + 1;
    return status;
}

/* ---- the job --------------------------------------------------------------------------------------------------------- */

static odm_status verify_begin(struct odm_map *map, odm_progress *progress, struct verify **begun)
{
    struct verify *verify = calloc(1, sizeof *verify);
    if (verify == NULL) return odm__fail(&map->error, ODM_E_NO_MEMORY, "out of memory");
    verify->job.free = verify_free;
    verify->first.struct_size = sizeof verify->first;
    odm_status status = odm__job_hold_log(map, &verify->log);
    if (status != ODM_OK) {
        free(verify);
        return status;
    }
    uint64_t from = 0, to = 0;
    for (size_t i = 0; i < verify->log.count; ++i) {
        const struct job_segment *held = &verify->log.segments[i];
        if (held->segment == NULL) continue;
        if (from == 0) from = odm__segment_position(held->segment, held->first);
        to = odm__segment_position(held->segment, held->end != UINT64_MAX ? held->end : held->first);
    }
    verify->total = (to > from ? to - from : 0) + atomic_load(&map->reader.index.header->size);
    odm__job_begin(map, &verify->job, progress);
    *begun = verify;
    return ODM_OK;
}

static void verify_tell(const struct verify *verify, bool over, odm_report *report, odm_progress *progress)
{
    if (report != NULL) {
        odm_report told = verify->report;
        told.struct_size = report->struct_size;
        size_t size = told.struct_size < sizeof told ? told.struct_size : sizeof told;
        memset(report, 0, told.struct_size);
        memcpy(report, &told, size);
    }
    if (progress == NULL) return;
    uint64_t done = verify->report.bytes + verify->done;
    progress->total = verify->total;
    progress->done = over || done > verify->total ? verify->total : done;
}

odm_status odm__verify(struct odm_map *map, odm_report *report, odm_progress *progress)
{
    struct job *job;
    odm_error before = map->error;
    odm_status status = odm__job_find(map, progress, "odm_verify", verify_free, &job);
    struct verify *verify = (struct verify *)(void *)job;
    if (status == ODM_OK && verify == NULL) status = verify_begin(map, progress, &verify);
    if (status != ODM_OK) return status;
    odm__job_set_clock(&verify->job, progress);

    bool read = false;
    verify_log(map, verify, &read);
    while (read && status == ODM_OK && !verify->over) {
        status = verify_chunk(map, verify);
        if (odm__job_is_late(&verify->job)) break;
    }
    bool over = read && verify->over;
    verify_tell(verify, over, report, progress);
    // What was noted on the way is no failure of this call.
    if (status == ODM_OK) map->error = before;
    if (status == ODM_OK && !over) return ODM_OK; // Called again, it goes on.
    if (status == ODM_OK && verify->first.status != ODM_OK) {
        map->error = verify->first;
        status = ODM_E_CORRUPT;
    }
    odm__job_end(map);
    if (progress != NULL) progress->position[0] = 0;
    return status == ODM_OK && progress != NULL ? ODM_DONE : status;
}
