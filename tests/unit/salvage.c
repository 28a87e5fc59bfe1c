/* Keeping what is whole of a damaged map: salvage.h. */
#include "salvage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "copy.h"
#include "failing.h"
#include "image.h"
#include "job.h"
#include "map.h"
#include "support.h"

TestSuite(salvage, .init = lies_begin, .fini = remove_temp_directories, .timeout = 120);

enum { COUNT = 300 };

struct stands {
    uint64_t address, size;
    unsigned number; // of the key
};
static struct stands places[COUNT];

/* A map of numbers, each written once, all of it synced; where their records stand is noted. */
static const char *made(void)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    put_numbers(map, 0, COUNT, 0);
    ok(odm_sync(map, NULL));
    struct job_log log;
    ok(odm__job_hold_log(map, &log));
    unsigned n = 0;
    for (size_t i = 0; i < log.count; i++) {
        for (uint64_t address = log.segments[i].first; address < log.segments[i].end;) {
            struct record record;
            cr_assert_eq(odm__log_read(&map->store->log, log.segments[i].segment, address, CHECK_ALL, &record),
                         RECORD_WHOLE);
            cr_assert_lt(n, COUNT);
            places[n] = (struct stands){address, record.size, n};
            n++;
            address += record.size / ADDRESS_UNIT;
        }
    }
    odm__job_release_log(map, &log);
    cr_assert_eq(n, COUNT);
    ok(odm_close(map));
    return path;
}

static const char *segment_path(const char *path, uint64_t address)
{
    char name[64];
    snprintf(name, sizeof name, "log/%011u", (unsigned)address_number(address));
    return path_of(path, name);
}

/* Everything but the keys told is there; nothing else. */
static void expect_all_but(odm_map *map, const bool *lost)
{
    unsigned there = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        if (lost[i]) expect_no_numbers(map, i, i + 1);
        if (!lost[i]) expect_numbers(map, i, i + 1, 0);
        there += !lost[i];
    }
    cr_assert_eq(odm_count(map), there);
    ok(odm_verify(map, NULL, NULL, NULL));
}

/* A sound map is opened as ever, and nothing is made beside it; where there is none, none is made. */
Test(salvage, leaves_a_sound_map_alone)
{
    const char *path = made();
    bool lost[COUNT] = {false};
    char beside[600];
    snprintf(beside, sizeof beside, "%s.damaged", path);
    odm_map *map = open_map(path, .flags = ODM_SALVAGE);
    expect_all_but(map, lost);
    cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
    ok(odm_close(map));
    cr_assert_not(file_exists(beside));
    expect_status(try_open(temp_map_path(), NULL, .flags = ODM_SALVAGE), ODM_NOT_FOUND);
}

enum damage {
    IN_VALUE,
    IN_KEY,
    IN_HEADER,
    ZEROED,
    MANY,
    SEGMENT_GONE,
    SEGMENT_HEADER,
    HEAD_GONE,
    SLOTS_OF_META,
    INDEX_ONLY,
    DAMAGES
};

/* Damages a map; tells which keys go with it. */
static void spoil(const char *path, enum damage damage, bool lost[COUNT])
{
    static const unsigned char zeros[64];
    const struct stands *place = &places[150];
    const char *file = segment_path(path, place->address);
    uint64_t at = address_offset(place->address), number = address_number(place->address);
    switch (damage) {
        case IN_VALUE: flip_bits_at(file, at + place->size - 10, 1); break;
        case IN_KEY: flip_bits_at(file, at + RECORD_HEADER_SIZE, 1); break;
        case IN_HEADER: flip_bits_at(file, at + 9, 1); break;
        case ZEROED: write_file_at(file, at, zeros, place->size); break;
        case MANY:
            for (unsigned i = 3; i < COUNT; i += 11) {
                lost[i] = true;
                flip_bits_at(segment_path(path, places[i].address), address_offset(places[i].address) + 5 + i % 18, 4);
            }
            return;
        case SEGMENT_GONE: cr_assert_eq(unlink(file), 0); break;
        case SEGMENT_HEADER: flip_bits_at(file, 20, 1); break;
        case HEAD_GONE:
            number = address_number(places[0].address);
            cr_assert_eq(unlink(segment_path(path, places[0].address)), 0);
            break;
        case SLOTS_OF_META:
            flip_bits_at(path_of(path, "meta"), META_SLOT_OFFSET_0, 1);
            flip_bits_at(path_of(path, "meta"), META_SLOT_OFFSET_1, 1);
            return;
        default: {
            // Every slot of the index, while the boot lets it be trusted.
            uint64_t size = file_size(path_of(path, "index"));
            for (uint64_t offset = 3 * PAGE; offset < size; offset += 8) {
                uint64_t slot;
                read_file_at(path_of(path, "index"), offset, &slot, sizeof slot);
                if (slot >> SLOT_TAG_SHIFT != 0) flip_bits_at(path_of(path, "index"), offset, 1);
            }
            return;
        }
    }
    bool all = damage == SEGMENT_GONE || damage == SEGMENT_HEADER || damage == HEAD_GONE;
    if (!all) lost[150] = true;
    for (unsigned i = 0; i < COUNT && all; i++) lost[i] = address_number(places[i].address) == number;
}

/* Whatever is damaged, exactly what is whole is kept, under the old name; statistics tell what was left out; the damaged map lies beside
 * it, byte for byte. Method: each kind of damage, to a map whose index is trusted, and after a reboot. */
Test(salvage, keeps_exactly_what_is_whole)
{
    for (int damage = 0; damage < DAMAGES; damage++) {
        for (uint64_t boot = 0; boot < 2; boot++) {
            if (damage == INDEX_ONLY && boot == 1) continue; // a reboot mends that
            const char *path = made();
            bool lost[COUNT] = {false};
            spoil(path, (enum damage)damage, lost);
            lie_about_boot(boot);
            uint64_t digest = tree_digest(path);
            odm_map *map = open_map(path, .flags = ODM_SALVAGE);
            expect_all_but(map, lost);
            odm_statistics statistics = statistics_of(map);
            cr_assert_eq(statistics.recovery_kind, ODM_RECOVERY_SALVAGED, "damage %d, boot %u", damage, (unsigned)boot);
            unsigned gone = 0, bytes = 0;
            for (unsigned i = 0; i < COUNT; i++) {
                gone += lost[i];
                if (lost[i]) bytes += (unsigned)places[i].size;
            }
            cr_assert_eq(statistics.recovery_records, COUNT - gone);
            cr_assert_geq(statistics.recovery_bytes_cut, bytes, "damage %d: %u, %u", damage,
                          (unsigned)statistics.recovery_bytes_cut, bytes);
            cr_assert_leq(statistics.recovery_bytes_cut, bytes + PAGE, "damage %d", damage);
            cr_assert_eq(statistics.recovery_from != 0, gone != 0);
            char beside[600];
            snprintf(beside, sizeof beside, "%s.damaged", path);
            cr_assert_eq(tree_digest(beside), digest, "damage %d: the originals were changed", damage);
            cr_assert(file_exists(beside));
            snprintf(beside, sizeof beside, "%s.salvaged", path);
            cr_assert_not(file_exists(beside));
            put(map, "new", "1");
            ok(odm_close(map));
            lie_about_boot(10);
            map = open_map(path);
            expect_value(map, "new", "1");
            ok(odm_remove(map, "new", 3));
            expect_all_but(map, lost);
            ok(odm_close(map));
            lie_about_boot(0);
        }
    }
}

/* Without the flag nothing of it happens; and what can not be kept is said. */
Test(salvage, happens_only_when_asked_for)
{
    const char *path = made();
    bool lost[COUNT] = {false};
    spoil(path, ZEROED, lost);
    lie_about_boot(1);
    uint64_t digest = tree_digest(path);
    expect_status(try_open(path, NULL), ODM_E_CORRUPT);
    expect_status(try_open(path, NULL, .flags = ODM_READ_ONLY), ODM_E_CORRUPT);
    cr_assert_eq(tree_digest(path), digest);
    flip_bits_at(path_of(path, "meta"), 60, 1); // the seed
    odm_error error;
    expect_status(try_open(path, &error, .flags = ODM_SALVAGE), ODM_E_CORRUPT);
    expect_message(error, "meta");
    flip_bits_at(path_of(path, "meta"), 60, 1);
    cr_assert_eq(tree_digest(path), digest);
}

/* While another process has it open it is not taken from under its feet. */
Test(salvage, waits_for_no_one_and_takes_from_no_one)
{
    const char *path = made();
    bool lost[COUNT] = {false};
    odm_map *map = open_map(path);
    spoil(path, IN_VALUE, lost);
    odm_error error;
    expect_status(try_open(path, &error, .flags = ODM_SALVAGE), ODM_E_BUSY);
    expect_message(error, "open elsewhere");
    ok(odm_close(map));
    map = open_map(path, .flags = ODM_SALVAGE);
    expect_all_but(map, lost);
    ok(odm_close(map));
}

/* A full disk, or whatever fails, leaves the damaged map as it is, and what was made of the other is gone. */
Test(salvage, any_call_may_fail)
{
    bool failed = true;
    size_t n = 1;
    bool lost[COUNT] = {false};
    struct image image = image_take(made());
    for (; failed; n++) {
        cr_assert_lt(n, 300);
        const char *path = temp_map_path();
        image_write(&image, path);
        memset(lost, 0, sizeof lost);
        spoil(path, IN_KEY, lost);
        lie_about_boot(1);
        uint64_t digest = tree_digest(path);
        fail_call(n, ENOSPC);
        odm_status status = try_open(path, NULL, .flags = ODM_SALVAGE);
        failed = fail_no_more();
        char beside[600];
        snprintf(beside, sizeof beside, "%s.damaged", path);
        if (status != ODM_OK) {
            bool changed = file_exists(beside);
            if (!changed) cr_assert_eq(tree_digest(path), digest, "call %zu", n);
        }
        odm_map *map = open_map(path, .flags = ODM_SALVAGE);
        expect_all_but(map, lost);
        ok(odm_close(map));
        lie_about_boot(0);
    }
    cr_assert_gt(n, 10);
    image_free(&image);
}
