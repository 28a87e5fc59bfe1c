/* odm_stat: what it tells must be what is. */
#include <string.h>

#include "map.h"
#include "support.h"

TestSuite(stat, .timeout = 60, .fini = remove_temp_directories);

Test(stat, a_new_map)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 8);
    odm_statistics s = statistics_of(map);
    cr_assert_eq(s.struct_size, sizeof s);
    cr_assert_eq(s.stripes, 8);
    cr_assert_eq(s.count, 0);
    cr_assert_eq(s.slots, 8 * FIRST_CHUNK_SLOTS);
    cr_assert_eq(s.capacity, s.slots / 8 * 7);
    cr_assert_eq(s.live_bytes, 0);
    cr_assert_eq(s.log_bytes, 0);
    cr_assert_eq(s.dead_bytes, 0);
    cr_assert_eq(s.tombstones, 0);
    cr_assert_eq(s.segments, 1);
    cr_assert_eq(s.head, s.tail);
    cr_assert_eq(s.watermark, s.tail);
    cr_assert_eq(s.reserved_bytes, SPARES_KEPT * SEGMENT_SIZE_MIN);
    cr_assert_eq(s.unlinked_bytes, 0);
    cr_assert_eq(s.splits, 0);
    cr_assert_eq(s.recovery_kind, ODM_RECOVERY_NONE);
    cr_assert_eq(s.sync_failed, 0);
    static const uint8_t none[16];
    cr_assert_neq(memcmp(s.map_id, none, 16), 0);
    odm_close(map);
}

/* The sums follow every write. Method: a model of count, live and dead bytes beside it. */
Test(stat, sums_follow_every_write)
{
    keep_whole_log();
    const char *path = temp_map_path();
    odm_map *map = open_map(path), *reader = open_map(path, .flags = ODM_READ_ONLY);
    enum { KEYS = 40 };
    uint64_t size_of[KEYS] = {0}, live = 0, written = 0, count = 0;
    char key[NUMBER_TEXT_SIZE], value[500] = {0};
    for (unsigned step = 0; step < 600; step++) {
        unsigned i = step * 17 % KEYS;
        size_t key_size = number_key(i, key);
        if (step % 5 == 4 && size_of[i] != 0) {
            ok(odm_remove(map, key, key_size));
            written += record_size(key_size, 0);
            live -= size_of[i];
            size_of[i] = 0;
            count--;
        } else {
            size_t value_size = step * 31 % sizeof value;
            ok(odm_put(map, key, key_size, value, value_size));
            count += size_of[i] == 0;
            live += record_size(key_size, value_size) - size_of[i];
            size_of[i] = record_size(key_size, value_size);
            written += size_of[i];
        }
        odm_statistics s = statistics_of(map);
        cr_assert_eq(s.count, count);
        cr_assert_eq(s.live_bytes, live);
        cr_assert_eq(s.dead_bytes, s.log_bytes - live);
        // The log holds segment headers beside the records, and nothing else.
        cr_assert_eq(s.log_bytes, written + (s.segments - 1) * SEGMENT_HEADER_SIZE, "step %u", step);
        odm_statistics seen = statistics_of(reader);
        cr_assert_eq(seen.count, count);
        cr_assert_eq(seen.live_bytes, live);
        cr_assert_eq(seen.tail, s.tail);
        cr_assert_eq(seen.log_bytes, s.log_bytes);
        cr_assert_eq(seen.reserved_bytes, s.reserved_bytes);
    }
    odm_close(reader);
    odm_close(map);
    cr_assert_eq(unlink(path_of(path, "index")), 0); // And so does what a rebuild counts.
    map = open_map(path);
    cr_assert_eq(statistics_of(map).count, count);
    cr_assert_eq(statistics_of(map).live_bytes, live);
    odm_close(map);
}

Test(stat, sizes_are_those_of_the_files)
{
    keep_whole_log();
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 1500, 0);
    remove_numbers(map, 0, 700);
    odm_statistics s = statistics_of(map);
    cr_assert_leq(s.index_bytes, file_size(path_of(path, "index")));
    cr_assert_geq(s.index_bytes, s.slots * (SLOT_SIZE + COLD_SIZE));
    cr_assert_geq(s.slots, s.count + s.tombstones);
    cr_assert_gt(s.splits, 0);
    size_t spares = file_count(path_of(path, "log")) - s.segments;
    cr_assert(spares >= SPARES_KEPT && spares <= SPARES_MAX);
    cr_assert_eq(s.head, address_make(FIRST_NUMBER, SEGMENT_HEADER_SIZE));
    cr_assert_gt(s.tail, s.head);
    odm_map *other = open_map(temp_map_path());
    cr_assert_neq(memcmp(s.map_id, statistics_of(other).map_id, 16), 0);
    odm_close(other);
    odm_close(map);
}

/* The caller's struct may be older and smaller, or newer and larger. */
Test(stat, fits_into_a_struct_of_any_size)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 10, 0);
    odm_statistics all = statistics_of(map);
    union {
        odm_statistics statistics;
        unsigned char bytes[sizeof(odm_statistics) + 64];
    } to;
    for (uint32_t size = 8; size <= sizeof to; size += 8) {
        memset(&to, 0xee, sizeof to);
        to.statistics.struct_size = size;
        ok(odm_stat(map, &to.statistics));
        cr_assert_eq(to.statistics.struct_size, size);
        for (size_t i = 4; i < sizeof to; i++) {
            unsigned char expected = i < sizeof all ? ((unsigned char *)&all)[i] : 0;
            cr_assert_eq(to.bytes[i], i < size ? expected : 0xee, "size %u, byte %zu", size, i);
        }
    }
    odm_close(map);
}
