/* Records and segments: log.h. */
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "map.h"
#include "support.h"

TestSuite(log, .timeout = 60, .fini = remove_temp_directories);

/* ---- looking at a map's log ---------------------------------------------------------------------------------------- */

static struct log *log_of(const odm_map *map)
{
    return &map->store->log;
}

static uint64_t tail_of(const odm_map *map)
{
    return atomic_load(&map->store->client.file->tail);
}

static uint64_t head_of(const odm_map *map)
{
    return map->reader.head;
}

/* The address of the key's record: what was never copied has its address as its version. */
static uint64_t address_of(odm_map *map, const void *key, size_t key_size)
{
    uint64_t version;
    ok(odm_entry_get(map, key, key_size, NULL, NULL, &version));
    return version;
}

static struct segment *segment_of(const odm_map *map, uint64_t address)
{
    struct segment *segment;
    ok(odm__log_segment(log_of(map), address_number(address), &segment, NULL));
    return segment;
}

/* Calls seen for every record from head to tail, in order; ends with a failure at anything that is no record. */
static size_t walk_log(odm_map *map, void (*seen)(void *context, const struct record *record), void *context)
{
    struct chain chain;
    ok(odm__log_chain(log_of(map), head_of(map), &chain, NULL));
    size_t count = 0;
    uint64_t address = head_of(map), tail = tail_of(map), end, next;
    odm__chain_next(&chain, address, &end, &next);
    while (address != tail) {
        if (address == end) {
            address = next;
            odm__chain_next(&chain, address, &end, &next);
            continue;
        }
        struct segment *segment = segment_of(map, address);
        struct record record;
        cr_assert(odm__segment_is_whole(log_of(map), segment));
        cr_assert_eq(odm__log_read(log_of(map), segment, address, CHECK_ALL, &record), RECORD_WHOLE);
        if (seen != NULL) seen(context, &record);
        odm__log_release(log_of(map), segment);
        address += record.size / ADDRESS_UNIT;
        count++;
    }
    odm__chain_free(&chain);
    return count;
}

/* Spares above the tail: their count; sizes and numbers are checked against their files. */
static unsigned spare_count(const odm_map *map, uint64_t size[SPARES_MAX])
{
    unsigned count = 0;
    uint64_t seen = 0;
    for (int i = 0; i < SPARES_MAX; i++) {
        uint64_t spare = atomic_load(&map->store->client.file->spare[i]);
        if (spare_number(spare) <= address_number(tail_of(map))) continue;
        cr_assert_neq(spare_number(spare), seen);
        seen = spare_number(spare);
        char name[SEGMENT_NAME_SIZE], file[SEGMENT_NAME_SIZE + 4];
        odm__segment_name(seen, name);
        snprintf(file, sizeof file, "log/%s", name);
        cr_assert_eq(file_size(path_of(map->store->path, file)), spare_size(spare));
        if (size != NULL) size[count] = spare_size(spare);
        count++;
    }
    return count;
}

/* ---- records ------------------------------------------------------------------------------------------------------- */

static const size_t sizes[] = {0, 1, 7, 8, 9, 20, 255, 256, 257, 264, 1000, 5000, 70000};

static void fill(unsigned char *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)((i * 131 + seed) >> (i % 3));
}

/* A record comes back as it went in, whatever its sizes: 8-byte aligned, padded with zeros.
 * Method: all pairs of sizes around the borders, among them keys longer than what is checked at once. */
Test(log, records_of_all_sizes_are_whole_and_aligned)
{
    odm_map *map = open_map(temp_map_path());
    static unsigned char key[70000], value[70000];
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (size_t k = 0; k < COUNT_OF(sizes); k++) {
            fill(key, sizes[i], 1);
            fill(value, sizes[k], 2);
            ok(odm_put(map, key, sizes[i], value, sizes[k]));
            uint64_t address = address_of(map, key, sizes[i]);
            struct segment *segment = segment_of(map, address);
            struct record record;
            cr_assert_eq(odm__log_read(log_of(map), segment, address, CHECK_ALL, &record), RECORD_WHOLE);
            cr_assert_eq(record.kind, RECORD_PUT);
            cr_assert_eq(record.lsn, address);
            cr_assert_eq(record.key_size, sizes[i]);
            cr_assert_eq(record.value_size, sizes[k]);
            cr_assert_eq(record.size, record_size(sizes[i], sizes[k]));
            cr_assert_eq((uintptr_t)record.value % 8, 0);
            cr_assert_eq(memcmp(record.key, key, sizes[i]), 0);
            cr_assert_eq(memcmp(record.value, value, sizes[k]), 0);
            for (size_t at = sizes[i]; at % 8 != 0; at++) cr_assert_eq(record.key[at], 0);
            for (size_t at = sizes[k]; at % 8 != 0; at++) cr_assert_eq(record.value[at], 0);
            odm__log_release(log_of(map), segment);
        }
    }
    odm_close(map);
}

/* A copy of a segment in which bytes can be changed. */
static struct segment copy_segment(const struct segment *segment)
{
    unsigned char *bytes = malloc(segment->size);
    cr_assert_not_null(bytes);
    memcpy(bytes, segment->base, segment->size);
    return (struct segment){.number = segment->number, .size = segment->size, .base = bytes};
}

/* No change of a bit that means something passes. Method: flip each bit of header, key and value, for keys below and above
 * the size that is checked at once. */
Test(log, a_record_with_any_bit_changed_does_not_pass)
{
    odm_map *map = open_map(temp_map_path());
    static const struct {
        size_t key, value;
    } cases[] = {{5, 9}, {0, 3}, {4, 0}, {256, 8}, {257, 8}, {700, 40}};
    unsigned char key[700], value[40];
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        fill(key, cases[i].key, (unsigned)i);
        fill(value, cases[i].value, (unsigned)i + 50);
        ok(odm_put(map, key, cases[i].key, value, cases[i].value));
        uint64_t address = address_of(map, key, cases[i].key);
        struct segment *segment = segment_of(map, address);
        struct segment copy = copy_segment(segment);
        unsigned char *record_bytes = (unsigned char *)(uintptr_t)copy.base + address_offset(address);
        struct record record;
        for (size_t at = 0; at < record_size(cases[i].key, cases[i].value); at++) {
            bool in_key = at >= 24 && at < 24 + cases[i].key;
            bool in_value = at >= 24 + padded(cases[i].key) && at < 24 + padded(cases[i].key) + cases[i].value;
            for (int bit = 0; bit < 8; bit++) {
                record_bytes[at] ^= (unsigned char)(1 << bit);
                enum record_state all = odm__log_read(log_of(map), &copy, address, CHECK_ALL, &record);
                enum record_state header = odm__log_read(log_of(map), &copy, address, CHECK_HEADER, &record);
                bool matters = at < 24 || in_key || in_value;
                cr_assert_eq(all == RECORD_WHOLE, !matters, "case %zu, byte %zu, bit %d", i, at, bit);
                cr_assert_eq(header == RECORD_WHOLE, at >= 24 && !in_key, "case %zu, byte %zu, bit %d", i, at, bit);
                record_bytes[at] ^= (unsigned char)(1 << bit);
            }
        }
        cr_assert_eq(odm__log_read(log_of(map), &copy, address, CHECK_ALL, &record), RECORD_WHOLE);
        free((void *)(uintptr_t)copy.base);
        odm__log_release(log_of(map), segment);
    }
    odm_close(map);
}

/* A whole record at another place, of another segment, or of another map is none. */
Test(log, a_stale_or_misplaced_record_does_not_pass)
{
    odm_map *map = open_map(temp_map_path());
    put(map, "some key", "and its value");
    uint64_t address = address_of(map, "some key", 8);
    struct segment *segment = segment_of(map, address);
    struct segment copy = copy_segment(segment);
    unsigned char *bytes = (unsigned char *)(uintptr_t)copy.base;
    uint64_t offset = address_offset(address);
    uint64_t size = record_size(8, 13);
    struct record record;
    for (uint64_t to = SEGMENT_HEADER_SIZE; to + size < copy.size; to += 8) {
        memmove(bytes + to, segment->base + offset, size);
        enum record_state state =
            odm__log_read(log_of(map), &copy, address_make(copy.number, to), CHECK_HEADER, &record);
        cr_assert_eq(state == RECORD_WHOLE, to == offset, "at %zu", (size_t)to);
    }
    memcpy(bytes, segment->base, copy.size);
    uint64_t elsewhere = address_make(address_number(address) + 1024, offset);
    cr_assert_eq(odm__log_read(log_of(map), &copy, elsewhere, CHECK_HEADER, &record), RECORD_BAD);

    struct meta_fixed other_fixed = *log_of(map)->fixed;
    other_fixed.seed ^= 1;
    struct log other = {.fixed = &other_fixed};
    cr_assert_eq(odm__log_read(&other, &copy, address, CHECK_HEADER, &record), RECORD_BAD);
    cr_assert_eq(odm__log_read(log_of(map), &copy, address, CHECK_ALL, &record), RECORD_WHOLE);
    free(bytes);
    odm__log_release(log_of(map), segment);
    odm_close(map);
}

/* Impossible places and sizes are bad, not read. Method: every offset up to and beyond the end; headers of large sizes, with
 * right checks. Under AddressSanitizer the copy of the segment has nothing behind it. */
Test(log, what_does_not_fit_into_its_segment_is_bad)
{
    odm_map *map = open_map(temp_map_path());
    put(map, "a", "1");
    struct segment *segment = segment_of(map, head_of(map));
    struct segment copy = copy_segment(segment);
    struct record record;
    for (uint64_t offset = 0; offset < copy.size + 4096; offset += 8) {
        enum record_state state =
            odm__log_read(log_of(map), &copy, address_make(copy.number, offset), CHECK_ALL, &record);
        cr_assert_eq(state == RECORD_WHOLE, offset == SEGMENT_HEADER_SIZE);
        if (offset > copy.size - RECORD_HEADER_SIZE) cr_assert_eq(state, RECORD_BAD);
    }
    static const struct {
        uint64_t key;
        uint32_t value;
    } cases[] = {{0, UINT32_MAX}, {ODM_KEY_SIZE_MAX, 0}, {ODM_KEY_SIZE_MAX, UINT32_MAX}, {0, 4096}, {4096, 0},
                 {8, 4000}};
    uint64_t address = address_make(copy.number, 512);
    struct record_header *header = (void *)((uintptr_t)copy.base + 512);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        header->value_size = cases[i].value;
        header->lsn = address;
        atomic_store(&header->first, first_of_room(RECORD_RESERVED, cases[i].key, cases[i].value, address,
                                                   log_of(map)->fixed->seed, address));
        cr_assert_eq(odm__log_read(log_of(map), &copy, address, CHECK_NOTHING, &record), RECORD_BAD, "case %zu", i);
    }
    free((void *)(uintptr_t)copy.base);
    odm__log_release(log_of(map), segment);
    odm_close(map);
}

Test(log, reserved_and_filler_are_whole_as_such)
{
    odm_map *map = open_map(temp_map_path());
    put(map, "a", "1");
    struct segment *segment = segment_of(map, head_of(map));
    struct segment copy = copy_segment(segment);
    uint64_t address = address_make(copy.number, 512), seed = log_of(map)->fixed->seed;
    struct record_header *header = (void *)((uintptr_t)copy.base + 512);
    struct record record;
    cr_assert_eq(odm__log_read(log_of(map), &copy, address, CHECK_ALL, &record), RECORD_ABSENT);
    header->value_size = 100;
    header->lsn = address - 5;
    for (enum record_kind kind = RECORD_FILLER; kind <= RECORD_RESERVED; kind++) {
        atomic_store(&header->first, first_of_room(kind, 17, 100, address - 5, seed, address));
        header->check_b = 12345; // Left over from whoever was to fill it.
        cr_assert_eq(odm__log_read(log_of(map), &copy, address, CHECK_ALL, &record), RECORD_WHOLE);
        cr_assert_eq(record.kind, kind);
        cr_assert_eq(record.lsn, address - 5);
        cr_assert_eq(record.size, record_size(17, 100));
        header->value_size++;
        cr_assert_eq(odm__log_read(log_of(map), &copy, address, CHECK_ALL, &record), RECORD_BAD);
        header->value_size--;
    }
    static const uint32_t words[] = {6u << 24, 15u << 24, 1u << 28, 0xF1000001u};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        uint32_t check =
            check_header(words[i], 100, header->check_b, address - 5, header + 1, words[i] & 0xff, seed, address);
        atomic_store(&header->first, (uint64_t)words[i] << 32 | check);
        cr_assert_eq(odm__log_read(log_of(map), &copy, address, CHECK_ALL, &record), RECORD_BAD, "word %zu", i);
    }
    free((void *)(uintptr_t)copy.base);
    odm__log_release(log_of(map), segment);
    odm_close(map);
}

/* ---- write-once, and rolling over ---------------------------------------------------------------------------------- */

enum { SHADOWS = 128 };

/* A byte below the tail never changes. Method: a shadow copy of the log, compared after every step of puts, replacements,
 * removes, a clear and a sync, over rollovers. */
Test(log, what_was_written_once_never_changes)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 2);
    static unsigned char shadow[SHADOWS][4 * PAGE];
    static uint64_t known[SHADOWS]; // bytes of it
    char key[NUMBER_TEXT_SIZE], value[600];
    uint64_t first = address_number(head_of(map));
    for (unsigned step = 0; step < 700; step++) {
        size_t key_size = number_key(step * 7 % 90, key);
        memset(value, (int)step, sizeof value);
        if (step % 100 == 99) {
            ok(step == 399 ? odm_clear(map, NULL) : odm_sync(map, NULL));
        } else if (step % 4 == 3) {
            odm_status status = odm_remove(map, key, key_size);
            cr_assert(status == ODM_OK || status == ODM_NOT_FOUND);
        } else {
            ok(odm_put(map, key, key_size, value, step * 37 % sizeof value));
        }
        uint64_t tail = tail_of(map), number = address_number(tail);
        cr_assert_lt(number - first, SHADOWS);
        for (uint64_t i = first; i <= number; i++) {
            struct segment *segment;
            if (odm__log_segment(log_of(map), i, &segment, NULL) != ODM_OK) continue;
            uint64_t *size = &known[i - first];
            cr_assert_leq(segment->size, sizeof shadow[0]);
            cr_assert_eq(memcmp(shadow[i - first], segment->base, *size), 0, "step %u", step);
            // What lies between the last record of a segment that was left and its end is nobody's.
            if (i == number) *size = address_offset(tail);
            if (i == number) memcpy(shadow[i - first], segment->base, *size);
            odm__log_release(log_of(map), segment);
        }
    }
    cr_assert_gt(address_number(tail_of(map)) - first, 10, "hardly any rollover");
    odm_close(map);
}

struct replay {
    odm_map *map;
    unsigned puts, removes, clears;
    uint64_t lsn;
};

static void replay_record(void *context, const struct record *record)
{
    struct replay *replay = context;
    cr_assert_gt(record->lsn, replay->lsn, "not in the order of the log");
    replay->lsn = record->lsn;
    replay->puts += record->kind == RECORD_PUT;
    replay->removes += record->kind == RECORD_REMOVE;
    replay->clears += record->kind == RECORD_CLEAR;
}

/* From head to tail there is a record for every write, over all rollovers and the wrap of the segment number.
 * Method: count kinds along the chain; more segments than the number has values after its wrap from 1020 to 1024. */
Test(log, the_chain_holds_every_write_over_rollovers_and_wraps)
{
    keep_whole_log();
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 300, 0);
    put_numbers(map, 0, 300, 1);
    remove_numbers(map, 0, 100);
    ok(odm_clear(map, NULL));
    put_numbers(map, 0, 200, 2);
    struct replay replay = {.map = map};
    cr_assert_eq(walk_log(map, replay_record, &replay), 300 + 300 + 100 + 1 + 200);
    cr_assert_eq(replay.puts, 800);
    cr_assert_eq(replay.removes, 100);
    cr_assert_eq(replay.clears, 1);
    cr_assert_lt(address_number(head_of(map)), 1024);
    cr_assert_gt(address_number(tail_of(map)), 1026);
    expect_numbers(map, 0, 200, 2);
    expect_no_numbers(map, 200, 300);
    odm_close(map);
    map = open_map(path);
    expect_numbers(map, 0, 200, 2);
    odm_close(map);
}

/* ---- segments and spares ------------------------------------------------------------------------------------------- */

/* Spares for removes and compaction are always there, and nothing else lies about. */
Test(log, spares_are_kept)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    for (unsigned i = 0; i < 60; i++) {
        put_numbers(map, 20 * i, 20 * i + 20, 0);
        unsigned spares = spare_count(map, NULL);
        cr_assert(spares >= SPARES_KEPT && spares <= SPARES_MAX, "%u after %u puts", spares, 20 * i);
        cr_assert_eq(file_count(path_of(path, "log")), statistics_of(map).segments + spares);
    }
    cr_assert_gt(statistics_of(map).segments, 10);
    odm_close(map);
}

/* A record for which no spare has room gets a segment of its own size. */
Test(log, an_oversized_record_makes_its_own_segment)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    static unsigned char value[300 * 1000];
    fill(value, sizeof value, 3);
    static const size_t big[] = {4096 - 64 - 24 - 8, 4096 - 64 - 24, 5000, 20000, 65536, 300 * 1000, 100};
    char key[NUMBER_TEXT_SIZE];
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < COUNT_OF(big); i++) {
            ok(odm_put(map, key, number_key(round * 100 + i, key), value, big[i]));
            cr_assert_eq(file_count(path_of(path, "log")), statistics_of(map).segments + spare_count(map, NULL),
                         "%zu files, %u segments", file_count(path_of(path, "log")),
                         (unsigned)statistics_of(map).segments);
        }
    }
    put_numbers(map, 1000, 1100, 0);
    cr_assert_geq(spare_count(map, NULL), SPARES_KEPT);
    for (int reopened = 0; reopened < 2; reopened++) {
        for (unsigned round = 0; round < 3; round++) {
            for (unsigned i = 0; i < COUNT_OF(big); i++) {
                const void *found;
                size_t size;
                ok(odm_get(map, key, number_key(round * 100 + i, key), &found, &size));
                cr_assert_eq(size, big[i]);
                cr_assert_eq(memcmp(found, value, size), 0);
            }
        }
        walk_log(map, NULL, NULL);
        odm_close(map);
        map = open_map(path);
    }
    odm_close(map);
}

/* Segments grow with the log and with what was ever written, and stop where the policy says. */
Test(log, segments_grow_with_the_log_and_with_what_was_written)
{
    keep_whole_log();
    odm_map *map = open_map(temp_map_path());
    uint64_t size[SPARES_MAX];
    cr_assert_geq(spare_count(map, size), SPARES_KEPT);
    cr_assert_eq(size[0], SEGMENT_SIZE_MIN);

    // The same few keys over and over: hot, but small.
    static unsigned char value[1000];
    for (unsigned i = 0; i < 1200; i++) ok(odm_put(map, "key", i % 3, value, sizeof value));
    uint64_t position = statistics_of(map).log_bytes;
    cr_assert_gt(position / SEGMENTS_PER_LOG, SEGMENT_SIZE_HOT / 2);
    uint64_t largest = 0;
    for (unsigned i = 0, count = spare_count(map, size); i < count; i++) {
        if (size[i] > largest) largest = size[i];
    }
    cr_assert_gt(largest, SEGMENT_SIZE_MIN);
    cr_assert_lt(statistics_of(map).segments, 5 * SEGMENTS_PER_LOG, "%u segments",
                 (unsigned)statistics_of(map).segments);
    odm_close(map);
}

Test(log, capacity_bytes_sizes_the_segments_from_the_start)
{
    odm_map *map = open_map(temp_map_path(), .capacity_bytes = 100 * 1000 * SEGMENTS_PER_LOG);
    uint64_t size[SPARES_MAX];
    cr_assert_geq(spare_count(map, size), SPARES_KEPT);
    cr_assert_geq(size[0], 100 * 1000);
    cr_assert_leq(size[0], 2 * 100 * 1000);
    struct segment *segment = segment_of(map, head_of(map));
    cr_assert_eq(segment->size, size[0]);
    odm__log_release(log_of(map), segment);
    odm_close(map);
}

/* Numbers must last: from 2^24 on no segment is small. */
Test(log, late_segments_are_big)
{
    odm_map *map = open_map(temp_map_path());
    uint64_t spare;
    ok(odm__log_make_spare(log_of(map), SEGMENT_NUMBER_LATE, 0, 0, 0, false, &spare, NULL));
    cr_assert_eq(spare_size(spare), SEGMENT_SIZE_MIN_LATE);
    cr_assert_eq(spare_number(spare), SEGMENT_NUMBER_LATE);
    ok(odm__log_make_spare(log_of(map), SEGMENT_NUMBER_LATE - 1, 0, 0, 0, false, &spare, NULL));
    cr_assert_eq(spare_size(spare), SEGMENT_SIZE_MIN);
    odm_close(map);
}

/* ---- a full disk --------------------------------------------------------------------------------------------------- */

static unsigned refused;

static int reserve_fails(int fd, off_t offset, off_t size)
{
    (void)fd, (void)offset, (void)size;
    refused++;
    errno = ENOSPC;
    return -1;
}

/* A full disk: puts get a status and leave the map as it was; reads and removes go on; puts resume once there is room.
 * Method: reservations that fail. */
Test(log, a_full_disk_is_a_status_and_passes)
{
    keep_whole_log();
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 1);
    put_numbers(map, 0, 1500, 0);
    odm__os.reserve = reserve_fails;
    char key[NUMBER_TEXT_SIZE];
    unsigned done = 0;
    odm_status status = ODM_OK;
    while ((status = odm_put(map, key, number_key(done % 200, key), "new", 3)) == ODM_OK) cr_assert_lt(++done, 1000);
    expect_status(status, ODM_E_NO_SPACE);
    cr_assert_eq(last_error_of(map).os_errno, ENOSPC);
    cr_assert_eq(atomic_load(&map->store->client.file->no_space), 1);

    uint64_t count = odm_count(map), tail = tail_of(map);
    size_t files = file_count(path_of(path, "log"));
    cr_assert_eq(spare_count(map, NULL), SPARES_KEPT, "puts have used what is kept for removes and compaction");
    for (unsigned i = 0; i < 5; i++) {
        expect_status(odm_put(map, "another", 7, "value", 5), ODM_E_NO_SPACE);
        expect_status(odm_put(map, "key 3", 5, "value", 5), ODM_E_NO_SPACE);
        expect_absent(map, "another");
    }
    cr_assert_eq(odm_count(map), count);
    cr_assert_eq(tail_of(map), tail);
    cr_assert_eq(file_count(path_of(path, "log")), files);
    expect_value(map, "key 0", "new");

    // A put leaves the room that is left to removes; the last spare is left by them to compaction.
    unsigned removed = 0;
    while (removed < 1500 && (status = odm_remove(map, key, number_key(removed, key))) == ODM_OK) removed++;
    expect_status(status, ODM_E_NO_SPACE); // The whole log is kept here, so that nothing comes back.
    cr_assert_gt(removed, 100, "%s after %u removes", odm_status_name(status), removed);
    cr_assert_eq(odm_count(map), count - removed);
    cr_assert_eq(spare_count(map, NULL), 1);
    ok(odm_sync(map, NULL));

    odm__os.reserve = real_os()->reserve;
    put_numbers(map, 0, 200, 1);
    cr_assert_eq(atomic_load(&map->store->client.file->no_space), 0);
    expect_numbers(map, 0, 200, 1);
    put_numbers(map, 200, 300, 1);
    cr_assert_geq(spare_count(map, NULL), SPARES_KEPT);
    odm_close(map);
}

/* The flag is for all: another handle does not try its luck with the room that is left, but tries the disk first. */
Test(log, the_no_space_flag_is_cleared_by_the_first_that_gets_room)
{
    odm_map *map = open_map(temp_map_path());
    odm_map *other;
    ok(odm_dup(map, &other, NULL));
    atomic_store(&map->store->client.file->no_space, 1);
    odm__os.reserve = reserve_fails;
    uint64_t tail = tail_of(map);
    expect_status(odm_put(other, "a", 1, "1", 1), ODM_E_NO_SPACE);
    cr_assert_eq(refused, 1);
    cr_assert_eq(tail_of(map), tail);
    odm__os.reserve = real_os()->reserve;
    put(other, "a", "1");
    cr_assert_eq(atomic_load(&map->store->client.file->no_space), 0);
    odm__os.reserve = reserve_fails;
    put(map, "b", "2");
    cr_assert_eq(refused, 1);
    odm_close(other);
    odm_close(map);
}

Test(log, an_oversized_record_on_a_full_disk_leaves_nothing)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put(map, "a", "1");
    static unsigned char value[100 * 1000];
    size_t files = file_count(path_of(path, "log"));
    uint64_t tail = tail_of(map);
    odm__os.reserve = reserve_fails;
    expect_status(odm_put(map, "a", 1, value, sizeof value), ODM_E_NO_SPACE);
    cr_assert_eq(file_count(path_of(path, "log")), files);
    cr_assert_eq(tail_of(map), tail);
    expect_value(map, "a", "1");
    odm_close(map);
}

/* ---- what the dead leave ------------------------------------------------------------------------------------------- */

/* A writer that takes a stripe, reserves room for a put there, and dies: all by the engine's own functions, in this process,
 * with an attach number of its own. */
struct dead_writer {
    struct lock_client client;
    struct log_writer writer;
    struct append append;
};

static uint32_t stripe_of_key(const odm_map *map, const char *key)
{
    return hash_stripe(hash_key(key, strlen(key), map->reader.seed), map->reader.index.stripe_bits);
}

static void reserve_as_another(odm_map *map, const char *key, const char *value, struct dead_writer *dead)
{
    int fd;
    bool mend;
    memset(dead, 0, sizeof *dead);
    ok(odm__file_open(&map->store->directory, "lock", true, &fd, NULL));
    ok(odm__lock_attach(&dead->client, map->store->client.file, fd, NULL));
    uint32_t stripe = stripe_of_key(map, key);
    ok(odm__lock_take(&dead->client, &map->store->client.file->stripes[stripe], 1000, "a stripe", &mend, NULL));
    cr_assert_not(mend);
    dead->writer = (struct log_writer){.log = log_of(map), .client = &dead->client, .wait_ms = 1000};
    dead->append = (struct append){
        .kind = RECORD_PUT,
        .class = APPEND_PUT,
        .key_size = strlen(key),
        .value_size = strlen(value),
        .stripe = stripe,
        .stripe_count = 1,
        .count = atomic_load(&map->reader.index.stripes[stripe].count) + 1,
        .live_bytes =
            atomic_load(&map->reader.index.stripes[stripe].live_bytes) + record_size(strlen(key), strlen(value)),
    };
    ok(odm__log_reserve(&dead->writer, head_of(map), &dead->append, NULL));
}

static void die(struct dead_writer *dead)
{
    odm__log_writer_close(&dead->writer);
    close(dead->client.fd);
}

static enum record_kind kind_at(odm_map *map, uint64_t address)
{
    struct segment *segment = segment_of(map, address);
    struct record record;
    cr_assert_eq(odm__log_read(log_of(map), segment, address, CHECK_HEADER, &record), RECORD_WHOLE);
    odm__log_release(log_of(map), segment);
    return record.kind;
}

/* Room that a dead writer reserved and did not fill becomes a filler: its write did not happen. */
Test(log, room_that_the_dead_left_reserved_becomes_a_filler)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 4);
    put_numbers(map, 0, 50, 0);
    struct dead_writer dead;
    reserve_as_another(map, "key 7", "never", &dead);
    cr_assert_eq(kind_at(map, dead.append.address), RECORD_RESERVED);
    char key[NUMBER_TEXT_SIZE];
    unsigned other = 0;
    while (number_key(other, key), stripe_of_key(map, key) == dead.append.stripe) other++;
    put(map, key, "another stripe goes on beside it");
    die(&dead);
    put(map, "key 7", "later");
    cr_assert_eq(kind_at(map, dead.append.address), RECORD_FILLER);
    expect_value(map, "key 7", "later");
    walk_log(map, NULL, NULL);
    odm_close(map);
}

/* Room that was filled is a write that happened, although its writer never came to the index. */
Test(log, a_record_that_the_dead_completed_is_applied)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    put_numbers(map, 0, 50, 0);
    struct dead_writer dead;
    reserve_as_another(map, "fresh", "from the dead", &dead);
    odm__log_complete(log_of(map), &dead.append, "fresh", "from the dead");
    expect_absent(map, "fresh");
    uint64_t count = odm_count(map);
    die(&dead);
    ok(odm_sync(map, NULL)); // Settles what lies below the tail.
    expect_value(map, "fresh", "from the dead");
    cr_assert_eq(odm_count(map), count + 1);
    cr_assert_eq(kind_at(map, dead.append.address), RECORD_PUT);
    expect_numbers(map, 0, 50, 0);
    odm_close(map);
    map = open_map(path);
    expect_value(map, "fresh", "from the dead");
    cr_assert_eq(odm_count(map), 51);
    odm_close(map);
}

/* Mending that fails is left to the next: the stripe stays dirty. Method: damage what the intent names, see every writer of
 * the stripe fail, and put it right again. */
Test(log, what_could_not_be_mended_is_mended_by_the_next)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 1);
    put_numbers(map, 0, 20, 0);
    struct dead_writer dead;
    reserve_as_another(map, "fresh", "from the dead", &dead);
    odm__log_complete(log_of(map), &dead.append, "fresh", "from the dead");
    struct record_header *header = (void *)dead.append.place;
    uint64_t first = atomic_load(&header->first);
    atomic_store(&header->first, UINT64_C(0xF1) << 56 | 1); // No kind that is known.
    odm__log_writer_close(&dead.writer);
    close(dead.client.fd);

    for (int i = 0; i < 3; i++) {
        expect_status(odm_put(map, "a", 1, "1", 1), ODM_E_CORRUPT);
        expect_status(odm_remove(map, "key 1", 5), ODM_E_CORRUPT);
        expect_status(odm_sync(map, NULL), ODM_E_CORRUPT);
        expect_value(map, "key 1", "value 1 of 0");
    }
    struct segment *segment = segment_of(map, dead.append.address);
    char name[SEGMENT_NAME_SIZE], file[SEGMENT_NAME_SIZE + 4];
    odm__segment_name(segment->number, name);
    snprintf(file, sizeof file, "log/%s", name);
    odm__log_release(log_of(map), segment);
    write_file_at(path_of(map->store->path, file), address_offset(dead.append.address), &first, sizeof first);
    put(map, "a", "1");
    expect_value(map, "fresh", "from the dead");
    cr_assert_eq(odm_count(map), 22);
    odm_close(map);
}

/* Who dies owning the append lock, before the tail was moved, reserved nothing: whoever takes the lock voids the intent, or a
 * record that comes to stand there would be taken for the dead one's.
 * Method: the room is used again by another stripe, before the dead one's is mended. */
Test(log, an_intent_at_the_tail_is_void)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 4);
    put_numbers(map, 0, 20, 0);
    struct dead_writer dead;
    uint64_t tail = tail_of(map);
    reserve_as_another(map, "fresh", "never", &dead);
    struct lock_file *lock = map->store->client.file;
    bool mend;
    ok(odm__lock_take(&dead.client, &lock->append, 1000, "the append lock", &mend, NULL));
    atomic_store(&lock->tail, tail); // As if killed just before it was stored.
    die(&dead);
    cr_assert_eq(dead.append.address, tail);
    cr_assert_eq(atomic_load(&intent_of(lock, 4, dead.append.stripe)->kind), RECORD_PUT);
    char key[NUMBER_TEXT_SIZE];
    unsigned other = 0;
    while (number_key(other, key), stripe_of_key(map, key) == dead.append.stripe) other++;
    put(map, key, "of the living");
    cr_assert_eq(address_of(map, key, strlen(key)), tail, "the room was not used again");
    cr_assert_eq(atomic_load(&intent_of(lock, 4, dead.append.stripe)->kind), RECORD_NONE);
    expect_absent(map, "fresh");
    put(map, "fresh", "now"); // Mends the dead one's stripe.
    expect_value(map, "fresh", "now");
    expect_value(map, key, "of the living");
    cr_assert_eq(odm_count(map), 21);
    cr_assert_eq(walk_log(map, NULL, NULL), 22);
    odm_close(map);
}

/* Who dies between a spare's header and the tail has rolled over all the same. Method: write the header as a rollover does,
 * under an append lock whose owner then dies. */
Test(log, a_rollover_that_was_begun_is_finished)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 1);
    put_numbers(map, 0, 20, 0);
    struct lock_file *lock = map->store->client.file;
    struct dead_writer dead = {.client = {.file = NULL}};
    int fd;
    bool mend;
    ok(odm__file_open(&map->store->directory, "lock", true, &fd, NULL));
    ok(odm__lock_attach(&dead.client, lock, fd, NULL));
    ok(odm__lock_take(&dead.client, &lock->append, 1000, "the append lock", &mend, NULL));
    uint64_t tail = tail_of(map);
    uint64_t spare = atomic_load(&lock->spare[0]), other = atomic_load(&lock->spare[1]);
    if (spare_number(other) < spare_number(spare)) spare = other;
    cr_assert_gt(spare_number(spare), address_number(tail));

    struct segment *old = segment_of(map, tail);
    struct segment_header header = {
        .magic = SEGMENT_MAGIC,
        .number = spare_number(spare),
        .predecessor_end = tail,
        .size = spare_size(spare),
        .map_id = {log_of(map)->fixed->map_id[0], log_of(map)->fixed->map_id[1]},
        .position = odm__segment_position(old, tail),
    };
    odm__log_release(log_of(map), old);
    header.check = check_bytes(&header, offsetof(struct segment_header, check), log_of(map)->fixed->seed);
    char name[SEGMENT_NAME_SIZE], file[SEGMENT_NAME_SIZE + 4];
    odm__segment_name(spare_number(spare), name);
    snprintf(file, sizeof file, "log/%s", name);
    write_file_at(path_of(map->store->path, file), 0, &header, sizeof header);
    close(fd);

    put(map, "fresh", "1");
    cr_assert_eq(address_of(map, "fresh", 5), address_make(spare_number(spare), SEGMENT_HEADER_SIZE));
    cr_assert_eq(walk_log(map, NULL, NULL), 21);
    put_numbers(map, 20, 200, 0);
    expect_numbers(map, 0, 200, 0);
    odm_close(map);
}

/* A number that could not have been given out is not ours, and no number is counted from it. */
Test(log, files_of_other_names_in_the_log_are_left_alone)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 30, 0);
    odm_close(map);
    static const char *const names[] = {"log/notes", "log/99999999999", "log/00000009999", "log/1020"};
    for (size_t i = 0; i < COUNT_OF(names); i++) make_file(path_of(path, names[i]), "x", 1);
    cr_assert_eq(unlink(path_of(path, "index")), 0); // A rebuild has to look at the log.
    map = open_map(path);
    expect_numbers(map, 0, 30, 0);
    for (size_t i = 0; i < COUNT_OF(names); i++) cr_assert(file_exists(path_of(path, names[i])), "%s", names[i]);
    cr_assert_lt(address_number(tail_of(map)), 2000);
    odm_close(map);
}

/* ---- what the kernel reads ahead ----------------------------------------------------------------------------------- */

enum { ADVISED_MAX = 1024 };

/* What was advised of the mapping that begins there, as far as it is about reading ahead. */
static struct advised {
    const void *base;
    int advice;
} advised[ADVISED_MAX];
static size_t advised_count;
static unsigned advices, normal_advices;
static bool one_at_a_time; // nothing but a segment that is read in order may be read ahead
static uint64_t memory_bytes;
static unsigned memory_asked;

static int advise_and_note(void *base, size_t size, int advice)
{
    if (advice == MADV_NORMAL || advice == MADV_RANDOM) {
        size_t i = 0;
        while (i < advised_count && advised[i].base != base) i++;
        cr_assert_lt(i, ADVISED_MAX);
        if (i == advised_count) advised[advised_count++] = (struct advised){.base = base};
        advised[i].advice = advice;
        advices++;
        normal_advices += advice == MADV_NORMAL;
        size_t normal = 0;
        for (size_t k = 0; k < advised_count; k++) normal += advised[k].advice == MADV_NORMAL;
        if (one_at_a_time) cr_assert_leq(normal, 1);
    }
    return real_os()->advise(base, size, advice);
}

static int unmap_and_forget(void *base, size_t size)
{
    for (size_t i = 0; i < advised_count; i++) {
        if (advised[i].base == base) advised[i] = advised[--advised_count];
    }
    return real_os()->unmap(base, size);
}

static int tell_memory(uint64_t *bytes)
{
    memory_asked++;
    if (memory_bytes == 0) return -1;
    *bytes = memory_bytes;
    return 0;
}

static void note_advice(uint64_t memory)
{
    memory_bytes = memory;
    odm__os.advise = advise_and_note;
    odm__os.unmap = unmap_and_forget;
    odm__os.memory_size = tell_memory;
}

static struct advised advised_of(const struct segment *segment)
{
    for (size_t i = 0; i < advised_count; i++) {
        if (advised[i].base == segment->base) return advised[i];
    }
    return (struct advised){.advice = MADV_NORMAL};
}

/* Of all segments that are mapped; how many that is. */
static size_t expect_advice(const odm_map *map, int advice)
{
    size_t count = 0;
    for (const struct segment *segment = log_of(map)->segments; segment != NULL; segment = segment->next, count++) {
        cr_assert_eq(advised_of(segment).advice, advice, "segment %d", (int)segment->number);
    }
    return count;
}

/* Where gets go on in a map that memory can not hold, the kernel reads nothing around what they need; as soon as it outgrows
 * memory, also in segments that were mapped before; and no more once it has shrunk. Memory counts as full at half its size.
 * Method: a memory of 128 KiB, and numbers put until a get maps another segment. */
Test(log, what_memory_can_not_hold_is_read_without_what_lies_around)
{
    keep_whole_log();
    note_advice(UINT64_C(128) << 10);
    odm_map *map = open_map(temp_map_path());
    unsigned count = 0;
    do {
        put_numbers(map, count, count + 10, 0);
        expect_numbers(map, count, count + 10, 0);
        expect_advice(map, MADV_NORMAL);
        count += 10;
    } while (statistics_of(map).live_bytes < memory_bytes / 2 - 1000);
    cr_assert_eq(advices, 0);
    cr_assert_eq(memory_asked, 1);

    put_numbers(map, count, 2 * count, 0);
    expect_numbers(map, 0, 2 * count, 0);
    cr_assert_gt(expect_advice(map, MADV_RANDOM), 4);

    remove_numbers(map, count / 2, 2 * count);
    for (unsigned round = 1; round < 4; round++) {
        put_numbers(map, 0, count / 2, round);
        expect_numbers(map, 0, count / 2, round);
    }
    expect_advice(map, MADV_NORMAL);
    cr_assert_eq(memory_asked, 1);
    odm_close(map);
}

/* Method: records of more than a page; a map in memory; a kernel that does not tell. */
Test(log, the_kernel_reads_ahead_where_that_is_better_or_nothing_is_known)
{
    keep_whole_log();
    note_advice(UINT64_C(64) << 10);
    static unsigned char value[5000];
    odm_map *map = open_map(temp_map_path());
    for (unsigned i = 0; i < 100; i++) ok(odm_put(map, &i, sizeof i, value, sizeof value));
    const void *found;
    size_t size;
    for (unsigned i = 0; i < 100; i++) ok(odm_get(map, &i, sizeof i, &found, &size));
    odm_close(map);
    cr_assert_eq(memory_asked, 0);

    map = open_in_memory();
    put_numbers(map, 0, 3000, 0);
    expect_numbers(map, 0, 3000, 0);
    odm_close(map);
    cr_assert_eq(memory_asked, 0);

    memory_bytes = 0;
    map = open_map(temp_map_path());
    put_numbers(map, 0, 3000, 0);
    expect_numbers(map, 0, 3000, 0);
    cr_assert_eq(memory_asked, 1);
    odm_close(map);
    cr_assert_eq(advices, 0);
}

/* The segments of a map that memory can not hold, all of them mapped. */
static odm_map *outgrown(const char *path)
{
    keep_whole_log();
    note_advice(UINT64_C(16) << 10);
    odm_map *map = open_map(path);
    put_numbers(map, 0, 2000, 0);
    expect_numbers(map, 0, 2000, 0);
    cr_assert_gt(expect_advice(map, MADV_RANDOM), 4);
    one_at_a_time = true;
    return map;
}

/* The segment that the kernel reads ahead in, or NULL; there is one at most. */
static struct segment *read_ahead_in(const odm_map *map)
{
    struct segment *found = NULL;
    for (struct segment *segment = log_of(map)->segments; segment != NULL; segment = segment->next) {
        if (advised_of(segment).advice != MADV_NORMAL) continue;
        cr_assert_null(found);
        found = segment;
    }
    return found;
}

/* Where long work reads a segment in order, the kernel reads ahead all the same: in each for as long as it is read, one after the
 * other; also if the work is dropped on the way. */
Test(log, what_verify_and_backup_read_is_read_ahead)
{
    const char *path = temp_map_path();
    odm_map *map = outgrown(path);
    uint64_t segments = address_number(tail_of(map)) - address_number(head_of(map)) + 1;
    normal_advices = 0;
    ok(odm_verify(map, NULL, NULL, NULL));
    cr_assert_eq(normal_advices, segments);
    cr_assert_null(read_ahead_in(map));
    ok(odm_backup(map, path_of(path, "../copy"), NULL, NULL));
    cr_assert_eq(normal_advices, 2 * segments);
    cr_assert_null(read_ahead_in(map));

    put_numbers(map, 0, 10000, 1);
    odm__os.now_ns = hasty_clock;
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
    ok(odm_verify(map, NULL, &progress, NULL));
    cr_assert_not_null(read_ahead_in(map));
    ok(odm_refresh(map));
    cr_assert_null(read_ahead_in(map));
    odm_close(map);
}

static struct segment *compacted; // when its records were looked at
static odm_map *compacting;
static uint64_t now_and_look(void)
{
    if (compacting->compaction.segment != NULL) {
        compacted = compacting->compaction.segment;
        cr_assert_eq(read_ahead_in(compacting), compacted);
    }
    return hasty_clock();
}

/* Method: a clock that looks between the steps of compaction. */
Test(log, what_compaction_looks_through_is_read_ahead)
{
    compacting = outgrown(temp_map_path());
    remove_numbers(compacting, 0, 1000);
    odm__os.now_ns = now_and_look;
    ok(odm_compact(compacting, NULL, NULL));
    cr_assert_not_null(compacted);
    odm__os.now_ns = real_os()->now_ns;
    ok(odm_refresh(compacting));
    cr_assert_null(read_ahead_in(compacting));
    odm_close(compacting);
}

/* A rebuild looks keys up, too, and learns on the way that memory can not hold the map. Method: every key twice; a segment that was
 * mapped to look up is advised once more when it is read in order. */
Test(log, a_rebuild_is_read_ahead)
{
    const char *path = temp_map_path();
    odm_map *map = outgrown(path);
    put_numbers(map, 0, 2000, 1);
    uint64_t segments = address_number(tail_of(map)) - address_number(head_of(map));
    odm_close(map);
    cr_assert_eq(unlink(path_of(path, "index")), 0);
    normal_advices = 0;
    one_at_a_time = false;
    map = open_map(path);
    cr_assert(log_of(map)->outgrown);
    cr_assert_geq(normal_advices, segments / 3, "%u of %d", normal_advices, (int)segments);
    expect_numbers(map, 0, 2000, 1);
    cr_assert_gt(expect_advice(map, MADV_RANDOM), 4);
    odm_close(map);
}
