/* Keeping what is whole of a damaged map: salvage.h. */
#include "salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
static const char *current; // the map that is being damaged

/* A map of numbers, each written once, so many of them synced; where their records stand is noted. */
static const char *made_with(unsigned synced)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    put_numbers(map, 0, synced, 0);
    if (synced != 0) ok(odm_sync(map, NULL));
    put_numbers(map, synced, COUNT, 0);
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

static const char *made(void)
{
    return made_with(COUNT);
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
    if (damage == SEGMENT_HEADER) return; // What stands in it is known by its checks.
    bool all = damage == SEGMENT_GONE || damage == HEAD_GONE;
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

static void flip_record(unsigned n)
{
    flip_bits_at(segment_path(current, places[n].address), address_offset(places[n].address) + 5, 4);
}

static uint64_t number_of(unsigned n)
{
    return address_number(places[n].address);
}

/* The first record of the segment after that of n. */
static unsigned next_segment(unsigned n)
{
    uint64_t number = number_of(n);
    while (n < COUNT && number_of(n) == number) n++;
    cr_assert_lt(n, COUNT);
    return n;
}

/* Salvages the map, and closes it. */
static void expect_kept_all_but(const bool *lost)
{
    odm_map *map = open_map(current, .flags = ODM_SALVAGE);
    expect_all_but(map, lost);
    odm_statistics statistics = statistics_of(map);
    cr_assert_eq(statistics.recovery_kind, ODM_RECOVERY_SALVAGED);
    uint64_t bytes = 0, first = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        if (lost[i]) bytes += places[i].size;
        if (lost[i] && first == 0) first = places[i].address;
    }
    cr_assert_eq(statistics.recovery_from, first);
    cr_assert_geq(statistics.recovery_bytes_cut, bytes);
    cr_assert_leq(statistics.recovery_bytes_cut, bytes + (bytes == 0 ? 0 : PAGE));
    ok(odm_close(map));
}

/* What was put and not synced is kept behind damage as well, for as long as the machine runs on. Method: some of a map
 * synced, or none; one record damaged, or the last, or many. */
Test(salvage, keeps_what_was_never_synced_unless_power_was_lost)
{
    for (unsigned synced = 0; synced < COUNT; synced += 100) {
        for (unsigned step = 1; step < COUNT; step = step * 4 + 3) {
            bool lost[COUNT] = {false};
            current = made_with(synced);
            for (unsigned i = step == 1 ? COUNT - 1 : 5; i < COUNT; i += step) {
                lost[i] = true;
                flip_record(i);
            }
            expect_kept_all_but(lost);
        }
    }
}

/* After power loss nothing behind the first gap above the watermark is believed, however whole; that it was there is
 * told. */
Test(salvage, believes_nothing_behind_the_first_gap_after_power_loss)
{
    bool lost[COUNT] = {false};
    current = made_with(100);
    lost[50] = true;
    flip_record(50);
    flip_record(180);
    for (unsigned i = 180; i < COUNT; i++) lost[i] = true;
    lie_about_boot(1);
    odm_map *map = open_map(current, .flags = ODM_SALVAGE);
    expect_all_but(map, lost);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < COUNT; i++) bytes += lost[i] ? places[i].size : 0;
    cr_assert_geq(statistics_of(map).recovery_bytes_cut, bytes);
    cr_assert_eq(statistics_of(map).recovery_from, places[50].address);
    ok(odm_close(map));
}

/* A segment whose header is damaged gives all its records. Method: each segment of the log; two in a row;
 * with a damaged record before, behind and in it; in this boot and in another. */
Test(salvage, reads_a_segment_whose_header_is_damaged)
{
    for (uint64_t boot = 0; boot < 2; boot++) {
        for (unsigned n = 0; n < COUNT; n++) {
            bool lost[COUNT] = {false};
            current = made_with(boot == 0 ? 100 : COUNT);
            if (n != 0 && number_of(n) == number_of(n - 1)) continue;
            // Each byte of a header in turn; of the first the history's length, which what is made must not go by.
            uint64_t at = n == 0 ? offsetof(struct segment_header, position) + 6 : n % SEGMENT_HEADER_SIZE;
            flip_bits_at(segment_path(current, places[n].address), at, 1);
            bool last = number_of(n) == number_of(COUNT - 1);
            // Where the log leaves the last but one, only the last one's header tells: nothing is believed behind a
            // gap there.
            for (unsigned i = n < 3 || last ? n + 2 : n - 3; i < COUNT && i < n + 30; i += 5) {
                lost[i] = true;
                flip_record(i);
            }
            lie_about_boot(boot);
            expect_kept_all_but(lost);
            struct segment_header header;
            read_file_at(segment_path(current, places[0].address), 0, &header, sizeof header);
            cr_assert_lt(header.position, 1U << 30);
            lie_about_boot(0);
        }
        bool lost[COUNT] = {false};
        current = made();
        unsigned n = next_segment(100);
        flip_bits_at(segment_path(current, places[n].address), 60, 1);
        flip_bits_at(segment_path(current, places[next_segment(n)].address), 10, 1);
        lie_about_boot(boot);
        expect_kept_all_but(lost);
        lie_about_boot(0);
    }
}

/* What was cut off after power loss does not come back, though whole records of it stand in the segment's file, and
 * the header that says where the log left it is damaged. */
Test(salvage, does_not_bring_back_what_was_cut)
{
    keep_whole_log();
    for (unsigned later = 0; later < 2; later++) {
        bool lost[COUNT] = {false};
        current = made_with(100);
        unsigned gap = next_segment(150) + 1;
        flip_record(gap);
        for (unsigned i = gap; i < COUNT; i++) lost[i] = true;
        lie_about_boot(1);
        odm_map *map = open_map(current);
        cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_CUT);
        uint64_t number = address_number(atomic_load(&map->store->client.file->tail));
        // Later the recovery's segment has a successor.
        if (later != 0) put_numbers(map, 0, gap, 0);
        ok(odm_sync(map, NULL));
        ok(odm_close(map));
        flip_bits_at(segment_path(current, address_make(number, SEGMENT_HEADER_SIZE)), 60, 1);
        flip_record(50);
        lost[50] = later == 0;
        map = open_map(current, .flags = ODM_SALVAGE);
        cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_SALVAGED);
        expect_all_but(map, lost);
        ok(odm_close(map));
        lie_about_boot(0);
    }
}

/* ---- others who come meanwhile ---------------------------------------------------------------------------------- */

/* Opens the map to be salvaged, does so, and puts something into it. */
static void salvage_and_put(void)
{
    odm_map *map = open_map(current, .flags = ODM_SALVAGE);
    put(map, "put", "after it");
    ok(odm_sync(map, NULL));
    ok(odm_close(map));
}

static int command_awaited;
static bool lock_came;

static int salvage_before_lock(int fd, int command, short type, off_t at, off_t size, short *type_found)
{
    odm__os.lock = real_os()->lock;
    if (command == command_awaited && (command == F_OFD_GETLK || type == F_WRLCK)) {
        lock_came = true;
        salvage_and_put();
    } else {
        odm__os.lock = salvage_before_lock;
    }
    return real_os()->lock(fd, command, type, at, size, type_found);
}

/* Who has found the damaged map's files, and comes to lock them when another has salvaged it, is given the salvaged
 * one. Method: openers for writing, for reading, and another that salvages; it all happens before the lock of each. */
Test(salvage, whoever_was_just_opening_is_given_the_salvaged_map)
{
    static const struct {
        uint32_t flags;
        int command;
    } cases[] = {{0, F_OFD_SETLK}, {ODM_READ_ONLY, F_OFD_GETLK}, {ODM_SALVAGE, F_OFD_SETLK}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        current = made();
        flip_record(50);
        char beside[600];
        snprintf(beside, sizeof beside, "%s.damaged", current);
        uint64_t digest = tree_digest(current);
        command_awaited = cases[i].command;
        lock_came = false;
        odm__os.lock = salvage_before_lock;
        odm_map *map = open_map(current, .flags = cases[i].flags);
        odm__os.lock = real_os()->lock;
        cr_assert(lock_came);
        expect_value(map, "put", "after it");
        if (cases[i].flags != ODM_READ_ONLY) put(map, "put", "here");
        ok(odm_close(map));
        cr_assert_eq(tree_digest(beside), digest);
        map = open_map(current);
        expect_value(map, "put", cases[i].flags != ODM_READ_ONLY ? "here" : "after it");
        ok(odm_close(map));
    }
}

/* Whether somebody has meta's lock alone: whoever else comes waits for him. */
static bool is_locked(void)
{
    int fd = open(path_of(current, "meta"), O_RDONLY);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
    cr_assert(fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0);
    close(fd);
    return lock.l_type != F_UNLCK;
}

static unsigned opens, open_awaited;
static bool open_came;

static int salvage_before_open(int directory, const char *name, int flags, mode_t mode)
{
    if (directory == AT_FDCWD && strcmp(name, current) == 0 && ++opens == open_awaited && !is_locked()) {
        odm__os.open = real_os()->open;
        salvage_and_put();
        odm__os.open = salvage_before_open;
        open_came = true;
    }
    return real_os()->open(directory, name, flags, mode);
}

/* What was judged is what is salvaged: another who salvages it at any moment has done it for both. Method: that happens before
 * each of the times that the path is opened, but those with the lock. */
Test(salvage, happens_once_however_many_ask_for_it)
{
    unsigned came = 0;
    opens = UINT32_MAX;
    for (open_awaited = 1; open_awaited <= opens; open_awaited++) {
        current = made();
        flip_record(50);
        char beside[600], again[600];
        snprintf(beside, sizeof beside, "%s.damaged", current);
        snprintf(again, sizeof again, "%s.damaged.1", current);
        uint64_t digest = tree_digest(current);
        opens = 0;
        open_came = false;
        odm__os.open = salvage_before_open;
        odm_map *map = open_map(current, .flags = ODM_SALVAGE);
        odm__os.open = real_os()->open;
        came += open_came;
        if (open_came) expect_value(map, "put", "after it");
        cr_assert_gt(statistics_of(map).recovery_bytes_cut, 0);
        ok(odm_close(map));
        cr_assert_eq(tree_digest(beside), digest);
        cr_assert_neq(access(again, F_OK), 0, "before open %u", open_awaited);
    }
    cr_assert_gt(came, 3, "%u", came);
}

static _Atomic int opener_waits;
static pthread_t opener;

static int note_wait(int fd, int command, short type, off_t at, off_t size, short *type_found)
{
    if (command == F_OFD_SETLKW) atomic_store(&opener_waits, 1);
    int result = real_os()->lock(fd, command, type, at, size, type_found);
    if (result != 0) atomic_store(&opener_waits, 1);
    return result;
}

static void *open_and_put(void *context)
{
    odm_map *map = NULL;
    bool *done = context;
    *done = odm_open(current, NULL, &map, NULL) == ODM_OK && odm_put(map, "put", 3, "here", 4) == ODM_OK;
    (void)odm_close(map);
    atomic_store(&opener_waits, 1);
    return NULL;
}

static bool opener_done;

static int exchange_beside_opener(int directory, const char *a, const char *b)
{
    if (directory == AT_FDCWD && strcmp(a, current) == 0) {
        odm__os.lock = note_wait;
        cr_assert_eq(pthread_create(&opener, NULL, open_and_put, &opener_done), 0);
        wait_for(&opener_waits, 1);
    }
    return real_os()->exchange(directory, a, b);
}

/* The same of who waits for the lock while the map is salvaged: it is held until the names are changed. */
Test(salvage, whoever_waits_for_it_is_given_the_salvaged_map)
{
    current = made();
    flip_record(50);
    odm__os.exchange = exchange_beside_opener;
    odm_map *map = open_map(current, .flags = ODM_SALVAGE);
    odm__os.exchange = real_os()->exchange;
    cr_assert_eq(pthread_join(opener, NULL), 0);
    odm__os.lock = real_os()->lock;
    cr_assert(opener_done);
    expect_value(map, "put", "here");
    ok(odm_close(map));
}

static pid_t forked;

static int fork_and_fail(int fd)
{
    (void)fd;
    odm__os.sync_data = real_os()->sync_data;
    forked = fork();
    if (forked == 0) {
        alarm(60);
        pause();
        _exit(0);
    }
    errno = EIO;
    return -1;
}

/* A child forked while the map is salvaged does not keep it locked. */
Test(salvage, a_child_does_not_keep_the_map_locked)
{
    bool lost[COUNT] = {false};
    current = made();
    flip_record(50);
    lost[50] = true;
    odm__os.sync_data = fork_and_fail;
    expect_status(try_open(current, NULL, .flags = ODM_SALVAGE), ODM_E_IO);
    cr_assert_gt(forked, 0);
    expect_kept_all_but(lost);
    kill_child(forked);
}

/* ---- names and rights ------------------------------------------------------------------------------------------- */

/* However the path leads to it, it is the map's own name that the salvaged one gets; where that can not be, nothing is
 * done. */
Test(salvage, is_where_the_path_leads_to)
{
    for (int i = 0; i < 6; i++) {
        bool lost[COUNT] = {false};
        const char *path = current = made();
        char beside[600], link[600], here[600];
        flip_record(50);
        lost[50] = true;
        snprintf(beside, sizeof beside, "%s.damaged", path);
        cr_assert_not_null(getcwd(here, sizeof here));
        bool inside = i >= 4;
        switch (i) {
            case 0: current = path_of(path, "."); break;
            case 1: current = path_of(path, "log/../"); break;
            case 2:
                snprintf(link, sizeof link, "%s.link", path);
                cr_assert_eq(symlink(path, link), 0);
                current = link;
                break;
            case 3: cr_assert_eq(chdir(path), 0); break; // the whole path is given
            case 4:
                cr_assert_eq(chdir(path), 0);
                current = ".";
                break;
            default:
                cr_assert_eq(chdir(path_of(path, "log")), 0);
                current = "..";
                break;
        }
        uint64_t digest = tree_digest(path);
        if (inside) {
            odm_error error;
            expect_status(try_open(current, &error, .flags = ODM_SALVAGE), ODM_E_INVALID);
            expect_message(error, path);
            cr_assert_eq(tree_digest(path), digest);
            cr_assert_not(file_exists(beside));
        } else {
            expect_kept_all_but(lost);
            cr_assert_eq(tree_digest(beside), digest);
        }
        cr_assert_eq(chdir(here), 0);
    }
}

static struct stat status_of(const char *path)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0, "%s", path);
    return status;
}

/* The salvaged map is as accessible as the damaged one was, and its owner's. */
Test(salvage, keeps_mode_and_owner)
{
    static const char *const names[] = {"", "log", "meta", "index", "lock"};
    bool lost[COUNT] = {false};
    bool root = geteuid() == 0;
    current = made();
    flip_record(50);
    lost[50] = true;
    cr_assert_eq(chmod(current, 0710), 0);
    cr_assert_eq(chmod(path_of(current, "meta"), 0640), 0);
    for (size_t i = 0; i < COUNT_OF(names) && root; i++) {
        cr_assert_eq(chown(path_of(current, names[i]), 12345, 23456), 0);
    }
    expect_kept_all_but(lost);
    cr_assert_eq(status_of(current).st_mode & 07777, 0710);
    cr_assert_eq(status_of(path_of(current, "meta")).st_mode & 07777, 0640);
    for (size_t i = 0; i < COUNT_OF(names) && root; i++) {
        struct stat status = status_of(path_of(current, names[i]));
        cr_assert(status.st_uid == 12345 && status.st_gid == 23456, "%s", names[i]);
    }
}

/* So that who is not root can make it, its owner may write what he makes, though the old one was for reading only. */
Test(salvage, of_a_map_for_reading_only_can_be_written)
{
    bool lost[COUNT] = {false};
    current = made();
    flip_record(50);
    lost[50] = true;
    cr_assert_eq(chmod(current, 0555), 0);
    expect_kept_all_but(lost);
    cr_assert_eq(status_of(current).st_mode & 07777, 0755);
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

/* While another process has it open it is not taken from under its feet; nor is what another salvager is just making. */
Test(salvage, waits_for_no_one_and_takes_from_no_one)
{
    const char *path = made();
    bool lost[COUNT] = {false};
    odm_map *map = open_map(path);
    spoil(path, IN_VALUE, lost);
    char salvaged[600];
    snprintf(salvaged, sizeof salvaged, "%s.salvaged", path);
    cr_assert_eq(mkdir(salvaged, 0700), 0);
    odm_error error;
    expect_status(try_open(path, &error, .flags = ODM_SALVAGE), ODM_E_BUSY);
    expect_message(error, "open elsewhere");
    cr_assert_eq(access(salvaged, F_OK), 0);
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
