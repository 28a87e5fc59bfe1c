/* Looking at everything: verify.h and job.h. */
#include "verify.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "job.h"
#include "map.h"
#include "oracle.h"
#include "support.h"

TestSuite(verify, .init = lies_begin, .fini = remove_temp_directories, .timeout = 120);

enum { COUNT = 400 };

static odm_report report_of(odm_map *map, odm_status expected)
{
    odm_report report = {.struct_size = sizeof report};
    expect_status(odm_verify(map, &report, NULL, NULL), expected);
    return report;
}

static void expect_sound(odm_map *map)
{
    odm_statistics statistics = statistics_of(map);
    odm_error error = {.struct_size = sizeof error};
    odm_report report = {.struct_size = sizeof report};
    odm_status status = odm_verify(map, &report, NULL, &error);
    cr_assert_eq(status, ODM_OK, "%s: %s", odm_status_name(status), error.message);
    cr_assert_eq(report.bad_records + report.bad_slots + report.bad_number + report.bad_offset, 0);
    cr_assert_geq(report.records, statistics.count);
    // But for the headers of segments it is all of the log.
    cr_assert_eq(report.bytes + (statistics.segments - 1) * SEGMENT_HEADER_SIZE, statistics.log_bytes,
                 "%u bytes in %u segments, of %u", (unsigned)report.bytes, (unsigned)statistics.segments,
                 (unsigned)statistics.log_bytes);
}

static odm_map *numbered(const char *path)
{
    odm_map *map = open_map(path, .stripes = 4);
    put_numbers(map, 0, COUNT, 0);
    put_numbers(map, 0, COUNT / 4, 1);
    remove_numbers(map, COUNT / 2, COUNT / 2 + 40);
    return map;
}

/* Sound maps of all kinds are found sound, to the last byte, by every kind of handle. */
Test(verify, finds_a_sound_map_sound)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    expect_sound(map);
    ok(odm_close(map));
    remove_tree(path);
    map = numbered(path);
    expect_sound(map);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY);
    expect_sound(reader);
    ok(odm_close(reader));
    ok(odm_compact(map, NULL, NULL));
    expect_sound(map);
    ok(odm_close(map)); // with a stamp
    for (uint64_t boot = 1; boot < 4; boot++) {
        lie_about_boot(boot);
        reader = open_map(path, .flags = ODM_READ_ONLY);
        expect_sound(reader);
        ok(odm_close(reader));
        map = open_map(path);
        expect_sound(map);
        put(map, "a", "1");
        expect_sound(map);
        if (boot == 2) ok(odm_clear(map, NULL));
        expect_sound(map);
        ok(odm_close(map));
    }
    map = open_in_memory();
    put_numbers(map, 0, COUNT, 0);
    expect_sound(map);
    ok(odm_close(map));
}

/* In steps: each does a part, done never falls and ends at total, and all steps together find what one call does. */
Test(verify, goes_on_where_it_was)
{
    odm_map *map = numbered(temp_map_path());
    char value[9000] = "big";
    for (unsigned i = 0; i < 300; i++) ok(odm_put(map, &i, sizeof i, value, sizeof value));
    odm_report whole = report_of(map, ODM_OK), report = {.struct_size = sizeof report};
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
    uint64_t done = 0;
    unsigned steps = 0;
    odm_status status = ODM_OK;
    for (; status == ODM_OK; steps++) {
        status = odm_verify(map, &report, &progress, NULL);
        cr_assert_geq(progress.done, done);
        cr_assert_leq(progress.done, progress.total);
        cr_assert_gt(progress.total, 0);
        done = progress.done;
    }
    expect_status(status, ODM_DONE);
    cr_assert_eq(progress.done, progress.total);
    cr_assert_eq(memcmp(&report, &whole, sizeof report), 0);
    ok(odm_close(map));
}

/* A step that is late ends soon, wherever it is. Method: a clock on which every look is late. */
Test(verify, ends_a_step_when_it_is_late)
{
    odm_map *map = numbered(temp_map_path());
    char value[9000] = "big";
    for (unsigned i = 0; i < 300; i++) ok(odm_put(map, &i, sizeof i, value, sizeof value));
    odm_report whole = report_of(map, ODM_OK), report = {.struct_size = sizeof report};
    odm__os.now_ns = hasty_clock;
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
    unsigned steps = 0;
    odm_status status = ODM_OK;
    for (; status == ODM_OK; steps++) status = odm_verify(map, &report, &progress, NULL);
    expect_status(status, ODM_DONE);
    cr_assert_gt(steps, 20);
    cr_assert_eq(memcmp(&report, &whole, sizeof report), 0);
    ok(odm_close(map));
}

/* A job ends with a refresh, and when another begins; who goes on with it is told. Closing, or dropping it, leaks nothing. */
Test(verify, must_be_begun_anew_after_a_refresh)
{
    odm_map *map = numbered(temp_map_path());
    odm__os.now_ns = hasty_clock;
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1}, other = progress;
    ok(odm_verify(map, NULL, &progress, NULL));
    ok(odm_refresh(map));
    odm_error error = {.struct_size = sizeof error};
    expect_status(odm_verify(map, NULL, &progress, &error), ODM_E_INVALID);
    expect_message(error, "anew");
    progress = (odm_progress){.struct_size = sizeof progress, .max_ms = 1};
    ok(odm_verify(map, NULL, &progress, NULL));
    ok(odm_verify(map, NULL, &other, NULL));
    expect_status(odm_verify(map, NULL, &progress, NULL), ODM_E_INVALID);
    ok(odm_verify(map, NULL, &other, NULL));
    expect_status(odm_verify(map, &(odm_report){.struct_size = 0}, NULL, NULL), ODM_E_INVALID);
    expect_status(odm_verify(map, NULL, &(odm_progress){.struct_size = 3}, NULL), ODM_E_INVALID);
    ok(odm_close(map));
}

/* What compaction takes away meanwhile stays readable for the job, and does not look like damage. */
Test(verify, is_not_led_astray_by_compaction)
{
    odm_map *map = numbered(temp_map_path()), *other;
    ok(odm_dup(map, &other, NULL));
    odm__os.now_ns = hasty_clock;
    for (unsigned before = 0; before < 30; before += 3) {
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
        odm_status status = ODM_OK;
        for (unsigned i = 0; i < before && status == ODM_OK; i++) status = odm_verify(map, NULL, &progress, NULL);
        ok(odm_compact(other, NULL, NULL));
        put_numbers(other, 0, COUNT, before);
        while (status == ODM_OK) status = odm_verify(map, NULL, &progress, NULL);
        expect_status(status, ODM_DONE);
    }
    ok(odm_close(other));
    ok(odm_close(map));
}

/* Nor does an index that another builds anew with larger chunks, while nothing is written: the keys of a chunk that also holds
 * what was looked at already once counted twice. Method: a map of which nothing is dead, so that compaction moves nothing, but
 * with an index that is too big; it becomes smaller after each number of steps. */
Test(verify, is_not_led_astray_by_an_index_that_becomes_smaller)
{
    for (unsigned before = 0; before < 40; before += 3) {
        odm_map *map = open_map(temp_map_path(), .stripes = 1), *other;
        put_numbers(map, 0, 8 * COUNT, 0);
        remove_numbers(map, COUNT, 8 * COUNT);
        compact_all_but_the_index(map);
        ok(odm_dup(map, &other, NULL));
        odm_statistics large = statistics_of(map);

        odm__os.now_ns = hasty_clock;
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
        odm_error error = {.struct_size = sizeof error};
        odm_status status = ODM_OK;
        for (unsigned i = 0; i < before && status == ODM_OK; i++) status = odm_verify(map, NULL, &progress, &error);
        ok(odm_compact(other, NULL, NULL));
        cr_assert_lt(statistics_of(other).slots, large.slots);
        cr_assert_eq(statistics_of(other).tail, large.tail);
        while (status == ODM_OK) status = odm_verify(map, NULL, &progress, &error);
        cr_assert_eq(status, ODM_DONE, "after %u steps: %s", before, error.message);
        ok(odm_close(other));
        ok(odm_close(map));
        odm__os.now_ns = real_os()->now_ns;
    }
}

/* ---- while others write ----------------------------------------------------------------------------------------------- */

struct busy {
    const char *path;
    atomic_bool stop;
    atomic_uint failures;
};

static void write_and_verify(void *context, unsigned number)
{
    struct busy *busy = context;
    odm_map *map;
    odm_options options = {.struct_size = sizeof options, .flags = number == 0 ? ODM_READ_ONLY : 0};
    if (odm_open(busy->path, &options, &map, NULL) != ODM_OK) {
        busy->failures++;
        return;
    }
    if (number < 2) {
        for (unsigned i = 0; i < 150; i++) {
            odm_error error = {.struct_size = sizeof error};
            odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
            odm_status status = ODM_OK;
            while (status == ODM_OK) status = odm_verify(map, NULL, &progress, &error);
            if (status != ODM_DONE) {
                fprintf(stderr, "verify %u of thread %u: %s\n", i, number, error.message);
                busy->failures++;
            }
        }
        if (number == 1) busy->stop = true;
    } else {
        struct sequence sequence = sequence_start(50 + number);
        while (!busy->stop) {
            static const char value[700] = "of a busy writer";
            uint64_t key = sequence_below(&sequence, 300), choice = sequence_below(&sequence, 1000);
            odm_status status = ODM_OK;
            if (choice < 750) status = odm_put(map, &key, 8, value, (size_t)sequence_below(&sequence, sizeof value));
            if (choice >= 750) status = odm_remove(map, &key, 8);
            if (choice == 999 && number == 2) status = odm_clear(map, NULL);
            if (status < 0) busy->failures++;
            if (sequence_below(&sequence, 200) == 0 && odm_sync(map, NULL) != ODM_OK) busy->failures++;
        }
    }
    if (odm_close(map) != ODM_OK) busy->failures++;
}

/* Writers put, remove, clear, sync and compact without rest; nobody is told of damage. */
Test(verify, finds_a_busy_map_sound)
{
    struct busy busy = {.path = temp_map_path()};
    ok(odm_close(open_map(busy.path, .stripes = 2)));
    run_threads(4, write_and_verify, &busy);
    cr_assert_eq(busy.failures, 0);
}

/* ---- damage ----------------------------------------------------------------------------------------------------------- */

struct found_record {
    uint64_t address, size, key_size, value_size;
    enum record_kind kind;
};
static struct found_record records[4000];
static size_t record_count;

/* Where each record of a map stands. */
static void list_records(odm_map *map)
{
    struct job_log log;
    record_count = 0;
    ok(odm__job_hold_log(map, &log));
    for (size_t i = 0; i < log.count; i++) {
        for (uint64_t address = log.segments[i].first; address < log.segments[i].end;) {
            struct record record;
            cr_assert_eq(odm__log_read(&map->store->log, log.segments[i].segment, address, CHECK_ALL, &record),
                         RECORD_WHOLE);
            records[record_count++] =
                (struct found_record){address, record.size, record.key_size, record.value_size, record.kind};
            address += record.size / ADDRESS_UNIT;
        }
    }
    odm__job_release_log(map, &log);
}

static const char *segment_path(const char *path, uint64_t address)
{
    char name[64];
    snprintf(name, sizeof name, "log/%011u", (unsigned)address_number(address));
    return path_of(path, name);
}

/* Whatever byte of whatever record is damaged, it is named, and the rest of the log is looked at all the same.
 * Method: flip a bit of one at a time: in each field of the header, in key and value. */
Test(verify, names_a_damaged_record)
{
    const char *path = temp_map_path();
    odm_map *map = numbered(path);
    list_records(map);
    odm_report sound = report_of(map, ODM_OK);
    cr_assert_eq(sound.records, record_count);
    for (size_t i = 0; i < record_count; i += 7) {
        const struct found_record *record = &records[i];
        const uint64_t places[] = {
            0, 4, 7, 8, 11, 12, 16, 23, 24, 24 + record->key_size - 1, 24 + padded(record->key_size), record->size - 8};
        uint64_t place = places[i / 7 % COUNT_OF(places)];
        bool in_padding = place >= 24 + padded(record->key_size) + record->value_size;
        if (in_padding) place = 0;
        flip_bits_at(segment_path(path, record->address), address_offset(record->address) + place, 0x10);
        odm_report report = {.struct_size = sizeof report};
        odm_error error = {.struct_size = sizeof error};
        expect_status(odm_verify(map, &report, NULL, &error), ODM_E_CORRUPT);
        cr_assert_eq(report.bad_records, 1, "record %zu, byte %u: %u bad", i, (unsigned)place,
                     (unsigned)report.bad_records);
        cr_assert_eq(report.bad_number, address_number(record->address));
        cr_assert_eq(report.bad_offset, address_offset(record->address));
        cr_assert_eq(report.bytes, sound.bytes);
        cr_assert_leq(report.bad_slots, 1, "that of the record: %u", (unsigned)report.bad_slots);
        char text[64];
        snprintf(text, sizeof text, "log/%011u, offset %u", (unsigned)report.bad_number, (unsigned)report.bad_offset);
        expect_message(error, text);
        flip_bits_at(segment_path(path, record->address), address_offset(record->address) + place, 0x10);
    }
    expect_sound(map);
    ok(odm_close(map));
}

/* The same where a record was zeroed, or several: the first is named, all are counted. */
Test(verify, counts_what_is_bad)
{
    const char *path = temp_map_path();
    odm_map *map = numbered(path);
    list_records(map);
    static const unsigned char zeros[RECORD_HEADER_SIZE];
    const size_t spoiled[] = {5, 60, 61, 200, 410};
    for (size_t i = 0; i < COUNT_OF(spoiled); i++) {
        const struct found_record *record = &records[spoiled[i]];
        write_file_at(segment_path(path, record->address), address_offset(record->address), zeros, sizeof zeros);
    }
    odm_report report = report_of(map, ODM_E_CORRUPT);
    cr_assert(report.bad_records >= 4 && report.bad_records <= 5, "%u",
              (unsigned)report.bad_records); // two are neighbours
    cr_assert_eq(report.bad_number, address_number(records[5].address));
    cr_assert_eq(report.bad_offset, address_offset(records[5].address));
    cr_assert_gt(report.bad_slots, 0, "what slots named is gone");
    ok(odm_close(map));
}

/* A segment that is missing, or whose header is damaged, is named, by who opened the map before. */
Test(verify, names_a_missing_segment)
{
    for (int kind = 0; kind < 2; kind++) {
        const char *path = temp_map_path();
        odm_map *map = numbered(path);
        uint64_t number = address_number(statistics_of(map).head) + 2;
        ok(odm_close(map));
        const char *file = segment_path(path, address_make(number, 64));
        if (kind == 0) cr_assert_eq(unlink(file), 0);
        if (kind == 1) flip_bits_at(file, offsetof(struct segment_header, position), 1);
        map = open_map(path);
        odm_report report = report_of(map, ODM_E_CORRUPT);
        cr_assert_geq(report.bad_records, 1);
        cr_assert_eq(report.bad_number, number - 1);
        cr_assert_gt(report.bad_slots, 0);
        ok(odm_close(map));
    }
}

/* A tail far behind its segment, in a damaged lock file, is told of, and is no reason to look for records up to there.
 * Method: as many bytes are looked at as the log has. */
Test(verify, is_not_led_far_by_a_damaged_tail)
{
    odm_map *map = numbered(temp_map_path());
    odm_report sound = report_of(map, ODM_OK);
    odm__u64 *tail = &map->store->client.file->tail;
    uint64_t was = atomic_load(tail);
    atomic_store(tail, address_make(address_number(was), UINT64_C(1) << 31));
    odm_report report = report_of(map, ODM_E_CORRUPT);
    cr_assert_eq(report.bad_records, 1);
    cr_assert_eq(report.bad_number, address_number(was));
    cr_assert_eq(report.bad_offset, address_offset(was));
    cr_assert_eq(report.bytes, sound.bytes);
    atomic_store(tail, was);
    expect_sound(map);
    ok(odm_close(map));
}

/* ---- a damaged index ---------------------------------------------------------------------------------------------- */

/* The n-th live slot of a map, and its cold word. */
static odm__u64 *slot_number_n(odm_map *map, unsigned n, odm__u32 **cold, struct chunk *chunk)
{
    struct index *index = &map->reader.index;
    for (uint64_t hash = 0;;) {
        ok(odm__index_chunk(index, hash, chunk, NULL));
        for (uint32_t i = 0; i < chunk->slot_count; i++) {
            uint64_t slot = atomic_load(&chunk->slots[i]);
            if (slot == SLOT_EMPTY || slot == SLOT_TOMBSTONE || n-- > 0) continue;
            *cold = &chunk->cold[i];
            return &chunk->slots[i];
        }
        unsigned top = index->stripe_bits + word_depth(chunk->word);
        cr_assert_neq(hash | UINT64_MAX >> top, UINT64_MAX);
        hash = (hash | UINT64_MAX >> top) + 1;
    }
}

/* Each kind of damage of a slot is found and its place in the file named: where it points, its tag, its cold word, that it is gone,
 * or there twice, or in a place its key's probe does not come to. */
Test(verify, names_a_damaged_slot)
{
    const char *path = temp_map_path();
    odm_map *map = numbered(path);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY);
    for (unsigned n = 0; n < 120; n += 3) {
        odm__u32 *cold, *other_cold;
        struct chunk chunk, other_chunk;
        odm__u64 *slot = slot_number_n(map, n, &cold, &chunk),
                 *other = slot_number_n(map, n + 1, &other_cold, &other_chunk);
        uint64_t was = *slot, other_was = *other;
        uint32_t cold_was = *cold;
        int kind = (int)(n / 3 % 7);
        uint32_t used = *chunk.used;
        if (kind == 0) *slot = was ^ 1;                                          // one unit beside
        if (kind == 1) *slot = was ^ (UINT64_C(1) << (SLOT_TAG_SHIFT + 3));      // a tag
        if (kind == 2) *slot = was ^ (UINT64_C(1) << (ADDRESS_OFFSET_BITS + 7)); // a segment that is not
        if (kind == 3) *cold = cold_was ^ 1;
        if (kind == 4) *slot = SLOT_TOMBSTONE;                                    // gone
        if (kind == 5) *other = was;                                              // there twice, or in another chunk
        if (kind == 6) *slot = was | (ADDRESS_OFFSET_BITS < 29 ? 0 : 0x1fffffff); // behind the segment's end
        odm_error error = {.struct_size = sizeof error};
        odm_report report = {.struct_size = sizeof report};
        expect_status(odm_verify(map, &report, NULL, &error), ODM_E_CORRUPT);
        cr_assert_geq(report.bad_slots, 1);
        cr_assert_eq(report.bad_records, 0, "kind %d", kind);
        cr_assert_eq(report.bad_number, 0);
        const unsigned char *at = map->reader.index.base + report.bad_offset;
        if (kind != 4 && kind != 5) cr_assert_eq((const void *)at, (const void *)slot, "kind %d", kind);
        if (kind == 5) cr_assert((const void *)at == (const void *)slot || (const void *)at == (const void *)other);
        expect_message(error, "index");
        if (kind != 4) expect_status(odm_verify(reader, NULL, NULL, NULL), ODM_E_CORRUPT);
        *slot = was;
        *other = other_was;
        *cold = cold_was;
        *chunk.used = used;
        expect_sound(map);
    }
    ok(odm_close(reader));
    ok(odm_close(map));
}

Test(verify, names_a_wrong_count)
{
    odm_map *map = numbered(temp_map_path());
    struct stripe *stripe = &map->reader.index.stripes[2];
    for (int kind = 0; kind < 2; kind++) {
        odm__u64 *field = kind == 0 ? &stripe->count : &stripe->live_bytes;
        *field += 8;
        odm_report report = report_of(map, ODM_E_CORRUPT);
        cr_assert_eq(report.bad_slots, kind == 0 ? 8 : 1);
        cr_assert_eq(report.bad_number, 0);
        size_t at = kind == 0 ? offsetof(struct stripe, count) : offsetof(struct stripe, live_bytes);
        cr_assert_eq(report.bad_offset, INDEX_STRIPES_OFFSET + 2 * sizeof *stripe + at);
        expect_message(last_error_of(map), "stripe 2");
        *field -= 8;
    }
    expect_sound(map);
    ok(odm_close(map));
}

/* A directory that names no chunk: its stripe is told of, the others are looked at. */
Test(verify, names_a_damaged_directory)
{
    odm_map *map = numbered(temp_map_path());
    struct index *index = &map->reader.index;
    uint64_t root = atomic_load(&index->stripes[1].root);
    odm__u64 *word = (odm__u64 *)(void *)(index->base + root_location(root) * INDEX_UNIT);
    uint64_t was = *word;
    *word = was | UINT64_C(0x3ffffffff) << WORD_LOCATION_SHIFT;
    odm_report report = report_of(map, ODM_E_CORRUPT);
    cr_assert_eq(report.bad_slots, 1);
    *word = was;
    expect_sound(map);
    ok(odm_close(map));
}
