/* reboot.c - what an open finds: after a reboot, on another mount, as a copy, damaged, half rebuilt, or with nothing to do.
 *
 * No power is lost here, so all that was written is in the files unless the test takes it out: power.c goes further. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "checksum.h"
#include "format.h"
#include "hash.h"
#include "image.h"
#include "log.h"
#include "map.h"
#include "oracle.h"
#include "support.h"

enum { IDS = 150, SIZE_MAX_USUAL = 700 };

static void begin(void)
{
    lies_begin();
    keep_whole_log(); // Histories are read off the log.
    lie_about_syncs();
}

TestSuite(reboot, .init = begin, .fini = remove_temp_directories, .timeout = 120);

/* ---- histories: writes, and where each of them stands in the log ------------------------------------------------------ */

struct history {
    struct oracle start; // what the map held before
    struct test_write *writes;
    uint64_t *from; // addresses
    size_t count;
};

static struct history history_make(uint64_t salt, size_t count)
{
    struct sequence sequence = sequence_start(salt);
    struct history history = {.count = count};
    oracle_init(&history.start, IDS);
    history.writes = calloc(count, sizeof *history.writes);
    history.from = calloc(count, sizeof *history.from);
    for (size_t i = 0; i < count; ++i) history.writes[i] = write_random(&sequence, IDS, SIZE_MAX_USUAL, false);
    return history;
}

static void history_free(struct history *history)
{
    oracle_free(&history->start);
    free(history->writes);
    free(history->from);
}

static uint64_t tail_of(odm_map *map)
{
    return atomic_load(&map->store->client.file->tail);
}

/* Does the writes from one to another and notes where they stand. A remove of what is not there is made a put. */
static void history_do(struct history *history, size_t from, size_t to, odm_map *map)
{
    for (size_t i = from; i < to; ++i) {
        struct test_write *write = &history->writes[i];
        size_t key_size;
        const void *key = key_of_id(write->id, &key_size);
        if (write->kind == WRITE_REMOVE && odm_get(map, key, key_size, NULL, NULL) != ODM_OK) write->kind = WRITE_PUT;
        uint64_t before = tail_of(map);
        ok(write_do(write, map));
        uint64_t after = tail_of(map);
        bool rolled = address_number(before) != address_number(after);
        history->from[i] = rolled ? address_make(address_number(after), SEGMENT_HEADER_SIZE) : before;
    }
}

static void state_after(const struct history *history, size_t n, struct oracle *state)
{
    oracle_copy(state, &history->start);
    for (size_t i = 0; i < n; ++i) write_apply(&history->writes[i], state);
}

/* The map holds exactly what the first n writes make. */
#define expect_state(map, history, n) expect_state_at(__LINE__, map, history, n)
static void expect_state_at(int line, odm_map *map, const struct history *history, size_t n)
{
    struct oracle state;
    state_after(history, n, &state);
    const char *why = oracle_mismatch(&state, map);
    cr_assert_null(why, "line %d, after %zu writes: %s", line, n, why);
    oracle_free(&state);
}

/* A map with a history, closed. */
static const char *map_with(struct history *history, size_t synced)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    history_do(history, 0, synced, map);
    if (synced != 0) ok(odm_sync(map, NULL));
    history_do(history, synced, history->count, map);
    ok(odm_close(map));
    return path;
}

static const char *segment_path(const char *map_path, uint64_t address)
{
    char name[64] = "log/";
    odm__segment_name(address_number(address), name + 4);
    return path_of(map_path, name);
}

/* Which part of a record is damaged. Padding is not covered by any check. */
enum part { CHECK, VALUE_SIZE, CHECK_OF_VALUE, LSN, KEY, VALUE, ALL_ZERO, PARTS };

/* Damages write i in the closed map; false if it has no such part. */
static bool tear(const char *path, const struct history *history, size_t i, enum part part)
{
    const struct test_write *write = &history->writes[i];
    static const uint64_t offsets[PARTS] = {1, 9, 13, 18, RECORD_HEADER_SIZE, RECORD_HEADER_SIZE, 0};
    size_t key_size;
    key_of_id(write->id, &key_size);
    uint64_t size = write->kind == WRITE_PUT ? write->size : 0;
    if ((part == KEY && key_size == 0) || (part == VALUE && size == 0)) return false;
    uint64_t offset = address_offset(history->from[i]) + offsets[part];
    if (part == KEY) offset += key_size - 1;
    if (part == VALUE) offset += padded(key_size) + size / 2;
    const char *segment = segment_path(path, history->from[i]);
    if (part == ALL_ZERO) {
        uint64_t zero = 0;
        write_file_at(segment, offset, &zero, 8);
    } else {
        flip_bits_at(segment, offset, 0x10);
    }
    return true;
}

/* The log's files are those of its segments and spares, and there are no others anywhere. */
static void expect_tidy(const char *path, odm_map *map)
{
    struct image image = image_take(path);
    const struct lock_file *lock = map->store->client.file;
    for (size_t i = 0; i < image.count; ++i) {
        const struct image_file *file = &image.files[i];
        if (strncmp(file->name, "log/", 4) != 0) {
            bool known =
                strcmp(file->name, "meta") == 0 || strcmp(file->name, "index") == 0 || strcmp(file->name, "lock") == 0;
            cr_assert(known, "%s was left behind", file->name);
            continue;
        }
        uint64_t number = strtoull(file->name + 4, NULL, 10);
        bool spare = number == lock->spare[0] >> 20 || number == lock->spare[1] >> 20;
        bool whole = ((const struct segment_header *)(const void *)file->bytes)->magic == SEGMENT_MAGIC;
        cr_assert(whole || spare, "%s is neither a segment nor a spare", file->name);
        cr_assert(number <= address_number(tail_of(map)) || spare, "%s lies behind the tail", file->name);
    }
    image_free(&image);
}

/* ---- a log that is whole --------------------------------------------------------------------------------------------- */

struct loss {
    bool boot, index, lock;
    uint32_t kind;
};

static void lose(const struct loss *loss)
{
    struct history history = history_make(1, 250);
    const char *path = map_with(&history, 100);
    uint64_t tail;
    {
        struct lock_file lock;
        read_file_at(path_of(path, "lock"), 0, &lock, sizeof lock);
        tail = lock.tail;
    }
    for (uint64_t boot = 1; boot <= 3; ++boot) {
        if (loss->boot) lie_about_boot(boot);
        if (loss->index) cr_assert_eq(unlink(path_of(path, "index")), 0);
        if (loss->lock) cr_assert_eq(unlink(path_of(path, "lock")), 0);
        odm_map *map = open_map(path, .flags = ODM_VERIFY_READS);
        odm_statistics statistics = statistics_of(map);
        cr_expect_eq(statistics.recovery_kind, loss->kind);
        cr_expect_eq(statistics.recovery_from, 0);
        cr_expect_eq(statistics.recovery_bytes_cut, 0);
        cr_expect_eq(statistics.recovery_records, history.count);
        cr_expect_eq(statistics.watermark, statistics.tail, "what was kept is synced");
        cr_expect_gt(address_number(statistics.tail), address_number(tail), "the log goes on in a new segment");
        tail = statistics.tail;
        expect_state(map, &history, history.count);
        expect_tidy(path, map);
        ok(odm_close(map));
    }
    history_free(&history);
}

/* Nothing that was in the page cache is lost if the log is whole, whatever else is gone; and the log goes on in a new segment.
 * Method: lose the boot, the index, the lock file, in turn and together, three times each. */
Test(reboot, loses_nothing_of_a_whole_log_after_a_reboot)
{
    lose(&(struct loss){.boot = true, .kind = ODM_RECOVERY_CUT});
}
Test(reboot, loses_nothing_of_a_whole_log_when_the_index_is_gone)
{
    lose(&(struct loss){.index = true, .kind = ODM_RECOVERY_KEPT});
}
Test(reboot, loses_nothing_of_a_whole_log_when_the_lock_file_is_gone)
{
    lose(&(struct loss){.lock = true, .kind = ODM_RECOVERY_CUT});
}
Test(reboot, loses_nothing_of_a_whole_log_when_index_and_lock_file_are_gone)
{
    lose(&(struct loss){.index = true, .lock = true, .kind = ODM_RECOVERY_CUT});
}
Test(reboot, loses_nothing_of_a_whole_log_when_all_is_gone)
{
    lose(&(struct loss){.boot = true, .index = true, .lock = true, .kind = ODM_RECOVERY_CUT});
}

/* A clear is replayed as it was done. */
Test(reboot, replays_a_clear)
{
    struct history history = history_make(2, 200);
    history.writes[120].kind = WRITE_CLEAR;
    history.writes[199].kind = WRITE_CLEAR;
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    history_do(&history, 0, 199, map);
    ok(odm_close(map));
    lie_about_boot(1);
    map = open_map(path);
    expect_state(map, &history, 199);
    history_do(&history, 199, 200, map);
    ok(odm_close(map));
    lie_about_boot(2);
    map = open_map(path);
    cr_expect_eq(odm_count(map), 0);
    expect_state(map, &history, 200);
    ok(odm_close(map));
    history_free(&history);
}

/* ---- a log that is torn ---------------------------------------------------------------------------------------------- */

/* The first record at or above the watermark that is not whole ends the log, whatever of it is damaged: the map holds exactly
 * the writes before it, says where it cut, seals the log there with a new segment, and removes the later ones. */
Test(reboot, cuts_the_log_at_the_first_torn_record)
{
    enum { SYNCED = 60, COUNT = 130 };
    struct history history = history_make(3, COUNT);
    const char *original = map_with(&history, SYNCED);
    struct image image = image_take(original);
    uint64_t boot = 0;
    for (size_t i = SYNCED; i < COUNT; ++i) {
        enum part part = (enum part)(i % PARTS);
        const char *path = temp_map_path();
        image_write(&image, path);
        if (!tear(path, &history, i, part)) continue;
        // One further back as well: it must not matter.
        if (i + 5 < COUNT) tear(path, &history, i + 5, CHECK);
        lie_about_boot(++boot);
        odm_map *map = open_map(path);
        odm_statistics statistics = statistics_of(map);
        cr_assert_eq(statistics.recovery_kind, ODM_RECOVERY_CUT);
        cr_assert_eq(statistics.recovery_from, history.from[i], "write %zu, part %d", i, part);
        bool behind = address_number(history.from[i]) < address_number(history.from[COUNT - 1]);
        cr_assert_eq(statistics.recovery_bytes_cut != 0, behind);
        expect_state(map, &history, i);
        expect_tidy(path, map);
        struct segment_header header;
        read_file_at(segment_path(path, statistics.tail), 0, &header, sizeof header);
        cr_assert_eq(header.predecessor_end, history.from[i]);
        cr_assert_eq(statistics.watermark, statistics.tail);
        ok(odm_close(map));
        // What was decided once stays so: even now that the record is mended.
        tear(path, &history, i, part == ALL_ZERO ? CHECK : part);
        lie_about_boot(++boot);
        map = open_map(path);
        expect_state(map, &history, i);
        ok(odm_close(map));
        remove_tree(path);
    }
    image_free(&image);
    history_free(&history);
}

/* What one open did not show never comes back.
 * Method: many generations of put, tear, open, put records of the very same sizes to the very same keys, tear ... Each open
 * must show a prefix of what was written since the last one, beginning with all that that one showed. */
Test(reboot, never_brings_back_what_an_open_did_not_show)
{
    enum { GENERATIONS = 25, WRITES = 14 };
    struct sequence sequence = sequence_start(4);
    const char *path = temp_map_path();
    struct history history = history_make(5, WRITES);
    for (size_t i = 0; i < WRITES; ++i) {
        history.writes[i].kind = WRITE_PUT;
        history.writes[i].size = i % 5 == 4 ? 1500 : (uint32_t)(i % 3) * 50 + 24;
        history.writes[i].id = (uint32_t)(20 + i % 9);
    }
    odm_map *map = open_map(path, .stripes = 2);
    for (uint64_t generation = 1; generation <= GENERATIONS; ++generation) {
        for (size_t i = 0; i < WRITES; ++i) history.writes[i].tag = generation << 32 | i;
        size_t synced = sequence_below(&sequence, 4) == 0 ? sequence_below(&sequence, WRITES) : 0;
        history_do(&history, 0, synced, map);
        if (synced != 0) ok(odm_sync(map, NULL));
        history_do(&history, synced, WRITES, map);
        ok(odm_close(map));

        size_t torn = synced + sequence_below(&sequence, WRITES - synced);
        cr_assert(tear(path, &history, torn, (enum part)sequence_below(&sequence, PARTS)));
        // Later writes may be torn, too, or be whole: an open that steps over the hole would show them.
        for (size_t i = torn + 1; i < WRITES; ++i) {
            if (sequence_below(&sequence, 3) == 0) tear(path, &history, i, CHECK_OF_VALUE);
        }
        lie_about_boot(generation);
        map = open_map(path);
        expect_state(map, &history, torn);
        struct oracle shown;
        state_after(&history, torn, &shown);
        oracle_free(&history.start);
        history.start = shown;
    }
    ok(odm_close(map));
    history_free(&history);
}

/* A log without a single sync opens as well, and holds what stands before the damage. */
Test(reboot, opens_a_map_that_was_never_synced)
{
    struct history history = history_make(6, 40);
    const char *path = map_with(&history, 0);
    tear(path, &history, 0, CHECK);
    lie_about_boot(1);
    odm_map *map = open_map(path);
    expect_state(map, &history, 0);
    ok(odm_close(map));
    history_free(&history);
}

/* ---- damage below the watermark -------------------------------------------------------------------------------------- */

static void expect_refused(const char *path, uint64_t address, bool names_offset)
{
    struct image before = image_take(path);
    static const uint32_t flags[] = {0, ODM_READ_ONLY, ODM_MUST_EXIST};
    for (size_t i = 0; i < COUNT_OF(flags); ++i) {
        odm_error error;
        expect_status(try_open(path, &error, .flags = flags[i]), ODM_E_CORRUPT);
        char place[64] = "log/";
        odm__segment_name(address_number(address), place + 4);
        expect_message(error, place);
        snprintf(place, sizeof place, "offset %llu:", (unsigned long long)address_offset(address));
        if (names_offset) expect_message(error, place);
        const char *why = image_difference(&before, path);
        cr_assert_null(why, "flags %u: %s", flags[i], why);
    }
    image_free(&before);
}

/* The older slot of meta may be from before anything was written. If the newer one is lost it is not believed: the map would count
 * as new, and what is in its log would go. Method: damage one slot of a map that was just made and written to, then the other. */
Test(reboot, does_not_take_a_map_for_new_because_a_slot_of_meta_is_lost)
{
    static const uint64_t offsets[] = {META_SLOT_OFFSET_0, META_SLOT_OFFSET_1};
    unsigned refused = 0;
    for (size_t i = 0; i < COUNT_OF(offsets); ++i) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path);
        put_numbers(map, 0, 50, 0);
        ok(odm_close(map));
        flip_bits_at(path_of(path, "meta"), offsets[i], 1);
        struct image before = image_take(path);
        lie_about_boot(1 + i);
        odm_error error = {.struct_size = sizeof error};
        odm_options options = {.struct_size = sizeof options};
        odm_status status = odm_open(path, &options, &map, &error);
        if (status == ODM_OK) {
            expect_numbers(map, 0, 50, 0);
            ok(odm_close(map));
        } else {
            expect_status(status, ODM_E_CORRUPT);
            expect_message(error, "one of its slots is lost");
            cr_assert_null(image_difference(&before, path));
            ++refused;
        }
        image_free(&before);
    }
    cr_assert_eq(refused, 1, "the slot that says that the map is new was never the only one");
}

/* Damage below the watermark is told with file and offset, and not a byte is changed; by whom it is opened makes no matter.
 * Method: damage each part of many records in turn, the header of a segment, and take a segment away. Values are left out:
 * they are not read there. */
Test(reboot, refuses_damage_below_the_watermark_and_touches_nothing)
{
    enum { SYNCED = 100, COUNT = 120 };
    struct history history = history_make(7, COUNT);
    const char *original = map_with(&history, SYNCED);
    struct image image = image_take(original);
    lie_about_boot(1);
    for (size_t i = 0; i < SYNCED; i += 1 + i % 4) {
        enum part part = (enum part)(i % PARTS);
        const char *path = temp_map_path();
        image_write(&image, path);
        if (part != VALUE && tear(path, &history, i, part)) expect_refused(path, history.from[i], true);
        remove_tree(path);
    }
    uint64_t last = history.from[SYNCED - 1];
    for (uint64_t number = FIRST_NUMBER; number < address_number(last); ++number) {
        const char *path = temp_map_path();
        image_write(&image, path);
        const char *segment = segment_path(path, address_make(number, 64));
        if (file_exists(segment)) {
            flip_bits_at(segment, 20, 1);
            odm_error error;
            struct image before = image_take(path);
            expect_status(try_open(path, &error), ODM_E_CORRUPT);
            cr_assert_null(image_difference(&before, path), "%s", image_difference(&before, path));
            cr_assert_eq(unlink(segment), 0);
            image_free(&before);
            before = image_take(path);
            expect_status(try_open(path, &error), ODM_E_CORRUPT);
            expect_message(error, "log/");
            cr_assert_null(image_difference(&before, path), "%s", image_difference(&before, path));
            image_free(&before);
        }
        remove_tree(path);
    }
    image_free(&image);
    history_free(&history);
}

/* The same on another mount of the same boot, where the lock file is asked first. */
Test(reboot, refuses_damage_below_the_watermark_on_another_mount)
{
    struct history history = history_make(8, 80);
    const char *path = map_with(&history, 60);
    tear(path, &history, 30, KEY);
    lie_about_mount(1);
    expect_refused(path, history.from[30], true);
    history_free(&history);
}

/* ---- the same boot, another mount ------------------------------------------------------------------------------------- */

/* Reserves room for a put as a writer does, and goes no further. */
static uint64_t reserve_only(odm_map *map, uint32_t id, uint32_t value_size)
{
    size_t key_size;
    const void *key = key_of_id(id, &key_size);
    uint64_t hash = hash_key(key, key_size, map->reader.seed);
    uint32_t stripe = hash_stripe(hash, map->reader.index.stripe_bits);
    bool mend;
    must(odm__lock_take(&map->store->client, &map->store->client.file->stripes[stripe], 1000, "a stripe", &mend,
                        NULL) == ODM_OK);
    struct append append = {.kind = RECORD_PUT,
                            .class = APPEND_PUT,
                            .key_size = key_size,
                            .value_size = value_size,
                            .stripe = stripe,
                            .stripe_count = 1};
    must(odm__log_reserve(&map->writer, map->reader.head, &append, NULL) == ODM_OK);
    return append.address;
}

static uint32_t stripe_of_id(const odm_map *map, uint32_t id)
{
    size_t key_size;
    const void *key = key_of_id(id, &key_size);
    return hash_stripe(hash_key(key, key_size, map->reader.seed), map->reader.index.stripe_bits);
}

/* A map whose last writers died: `before` writes, a hole where one of them stopped, `after` writes of other stripes. */
struct hole {
    const char *path;
    struct history history;
    uint64_t address; // of the hole
};
enum { BEFORE_HOLE = 60, AFTER_HOLE = 50, HOLE_ID = 149 };

static struct hole *hole_make(uint64_t salt)
{
    struct hole *hole = shared_memory(sizeof *hole);
    struct history history = history_make(salt, BEFORE_HOLE + AFTER_HOLE);
    hole->path = temp_map_path();
    odm_map *map = open_map(hole->path, .stripes = 4);
    // Only writes that do not wait for the dead writer's stripe.
    for (size_t i = BEFORE_HOLE; i < history.count; ++i) {
        while (stripe_of_id(map, history.writes[i].id) == stripe_of_id(map, HOLE_ID))
            history.writes[i].id = (history.writes[i].id + 1) % IDS;
    }
    history_do(&history, 0, 30, map);
    ok(odm_sync(map, NULL));
    history_do(&history, 30, BEFORE_HOLE, map);
    ok(odm_close(map));
    // Removes of what is not there were made puts: a child would keep that to itself.
    struct test_write *writes =
        mmap(NULL, history.count * sizeof *writes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(writes, MAP_FAILED);
    memcpy(writes, history.writes, history.count * sizeof *writes);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        odm_map *first = NULL, *second = NULL;
        must(odm_open(hole->path, NULL, &first, NULL) == ODM_OK);
        must(odm_open(hole->path, NULL, &second, NULL) == ODM_OK);
        hole->address = reserve_only(first, HOLE_ID, 100);
        for (size_t i = BEFORE_HOLE; i < history.count; ++i) {
            struct test_write *write = &writes[i];
            size_t key_size;
            const void *key = key_of_id(write->id, &key_size);
            if (odm_get(second, key, key_size, NULL, NULL) != ODM_OK) write->kind = WRITE_PUT;
            must(write_do(write, second) == ODM_OK);
        }
        kill(getpid(), SIGKILL);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    memcpy(history.writes, writes, history.count * sizeof *writes);
    munmap(writes, history.count * sizeof *writes);
    hole->history = history;
    return hole;
}

static void hole_free(struct hole *hole)
{
    history_free(&hole->history);
    munmap(hole, sizeof *hole);
}

static uint32_t kind_at(const char *path, uint64_t address)
{
    uint64_t first;
    read_file_at(segment_path(path, address), address_offset(address), &first, 8);
    return record_word_kind((uint32_t)(first >> 32));
}

/* A container that is started again: same boot, another mount, and writers that died in the midst. Nothing returned is lost,
 * and room that was only reserved becomes a filler. */
Test(reboot, keeps_all_on_another_mount_and_fills_what_was_only_reserved)
{
    struct hole *hole = hole_make(9);
    cr_assert_eq(kind_at(hole->path, hole->address), RECORD_RESERVED);
    lie_about_mount(1);
    odm_map *map = open_map(hole->path);
    odm_statistics statistics = statistics_of(map);
    cr_expect_eq(statistics.recovery_kind, ODM_RECOVERY_KEPT);
    cr_expect_eq(statistics.recovery_from, 0);
    cr_expect_eq(statistics.recovery_bytes_cut, 0);
    cr_expect_eq(kind_at(hole->path, hole->address), RECORD_FILLER);
    expect_state(map, &hole->history, hole->history.count);
    expect_tidy(hole->path, map);
    ok(odm_close(map));
    // From now on the filler is as good as any record.
    lie_about_boot(1);
    map = open_map(hole->path);
    expect_state(map, &hole->history, hole->history.count);
    ok(odm_close(map));
    hole_free(hole);
}

/* Writes the header of the first spare, as a writer does that rolls over; the tail is not stored. */
static void roll_halfway(const char *path)
{
    struct lock_file lock;
    struct meta_fixed fixed;
    read_file_at(path_of(path, "lock"), 0, &lock, sizeof lock);
    read_file_at(path_of(path, "meta"), 0, &fixed, sizeof fixed);
    uint64_t spare = lock.spare[0] < lock.spare[1] ? lock.spare[0] : lock.spare[1];
    if (spare_number(spare) <= address_number(lock.tail)) spare = lock.spare[0] + lock.spare[1] - spare;
    struct segment_header last,
        header = {.magic = SEGMENT_MAGIC, .number = spare_number(spare), .size = spare_size(spare)};
    read_file_at(segment_path(path, lock.tail), 0, &last, sizeof last);
    header.predecessor_end = lock.tail;
    header.map_id[0] = fixed.map_id[0];
    header.map_id[1] = fixed.map_id[1];
    header.position = last.position + address_offset(lock.tail);
    atomic_store(&header.check, check_bytes(&header, offsetof(struct segment_header, check), fixed.seed));
    write_file_at(segment_path(path, address_make(header.number, 64)), 0, &header, sizeof header);
}

/* The same when one writer died while it reserved and another in the midst of a rollover: the tail then still stands at the
 * end of a segment that has a successor. The log ends there; that the successor is empty is no sign that something is lost. */
Test(reboot, keeps_all_on_another_mount_when_a_rollover_was_broken_off)
{
    struct hole *hole = hole_make(10);
    roll_halfway(hole->path);
    lie_about_mount(1);
    odm_map *map = open_map(hole->path);
    odm_statistics statistics = statistics_of(map);
    cr_expect_eq(statistics.recovery_kind, ODM_RECOVERY_KEPT);
    expect_state(map, &hole->history, hole->history.count);
    expect_tidy(hole->path, map);
    ok(odm_close(map));
    lie_about_boot(1);
    map = open_map(hole->path);
    expect_state(map, &hole->history, hole->history.count);
    ok(odm_close(map));
    hole_free(hole);
}

/* On the same mount nothing is rebuilt, and whoever comes next mends what the dead left. */
Test(reboot, mends_a_hole_and_a_rollover_without_rebuilding_on_the_same_mount)
{
    struct hole *hole = hole_make(11);
    roll_halfway(hole->path);
    odm_map *map = open_map(hole->path);
    cr_expect_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
    expect_state(map, &hole->history, hole->history.count);
    struct oracle state;
    state_after(&hole->history, hole->history.count, &state);
    for (uint32_t id = 0; id < IDS; ++id) {
        struct test_write write = {WRITE_PUT, id, 50, id + 1000};
        ok(write_do(&write, map));
        write_apply(&write, &state);
    }
    cr_expect_eq(kind_at(hole->path, hole->address), RECORD_FILLER);
    const char *why = oracle_mismatch(&state, map);
    cr_assert_null(why, "%s", why);
    ok(odm_sync(map, NULL));
    ok(odm_close(map));
    lie_about_boot(1);
    map = open_map(hole->path);
    why = oracle_mismatch(&state, map);
    cr_assert_null(why, "%s", why);
    ok(odm_close(map));
    oracle_free(&state);
    hole_free(hole);
}

/* After a reboot a hole is where the log ends: who reserved it might have been writing still. */
Test(reboot, cuts_at_a_hole_after_a_reboot)
{
    struct hole *hole = hole_make(12);
    lie_about_boot(1);
    odm_map *map = open_map(hole->path);
    odm_statistics statistics = statistics_of(map);
    cr_expect_eq(statistics.recovery_kind, ODM_RECOVERY_CUT);
    cr_expect_eq(statistics.recovery_from, hole->address);
    expect_state(map, &hole->history, BEFORE_HOLE);
    ok(odm_close(map));
    hole_free(hole);
}

/* Same boot, another mount, but the log does not bear out what the lock file says of its tail: a file system that was lost and
 * mounted again looks like this. Then it is as after power loss. */
Test(reboot, falls_back_to_a_cut_when_the_log_does_not_bear_out_the_tail)
{
    enum { SYNCED = 50, COUNT = 110, TORN = 80 };
    struct history history = history_make(13, COUNT);
    const char *original = map_with(&history, SYNCED);
    struct image image = image_take(original);
    lie_about_mount(1);
    for (int variant = 0; variant < 6; ++variant) {
        const char *path = temp_map_path();
        image_write(&image, path);
        lie_about_files(&image, path);
        size_t right = COUNT;
        struct lock_file lock;
        const char *lock_path = path_of(path, "lock");
        read_file_at(lock_path, 0, &lock, sizeof lock);
        switch (variant) {
            case 0: // a record is torn
                tear(path, &history, TORN, CHECK);
                right = TORN;
                break;
            case 1: // a record never came to the disk
                tear(path, &history, TORN, ALL_ZERO);
                right = TORN;
                break;
            case 2: // the tail's page is older than the log
                lock.tail = history.from[TORN];
                break;
            case 3: // the tail is older than the watermark
                lock.tail = history.from[10];
                break;
            case 4: // the tail names a place where nothing is
                lock.tail += 100;
                break;
            default: // nothing is wrong: the disguise works
                break;
        }
        write_file_at(lock_path, 0, &lock, sizeof lock);
        odm_map *map = open_map(path);
        odm_statistics statistics = statistics_of(map);
        cr_assert_eq(statistics.recovery_kind, variant == 5 ? ODM_RECOVERY_KEPT : ODM_RECOVERY_CUT, "variant %d",
                     variant);
        expect_state(map, &history, right);
        expect_tidy(path, map);
        ok(odm_close(map));
    }
    image_free(&image);
    history_free(&history);
}

/* A reserved record that no intent names was not left by a writer that died: something is missing. */
Test(reboot, falls_back_to_a_cut_when_no_intent_names_a_hole)
{
    struct hole *hole = hole_make(14);
    struct lock_file lock;
    const char *lock_path = path_of(hole->path, "lock");
    read_file_at(lock_path, 0, &lock, sizeof lock);
    memset(lock.intents, 0, sizeof lock.intents);
    write_file_at(lock_path, 0, &lock, sizeof lock);
    lie_about_mount(1);
    odm_map *map = open_map(hole->path);
    cr_expect_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_CUT);
    cr_expect_eq(statistics_of(map).recovery_from, hole->address);
    expect_state(map, &hole->history, BEFORE_HOLE);
    ok(odm_close(map));
    hole_free(hole);
}

/* ---- nothing to do ---------------------------------------------------------------------------------------------------- */

static uint64_t inode_of(const char *path)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    return status.st_ino;
}

/* An open that finds its own boot, files and mount rebuilds nothing, makes nothing and syncs nothing. */
Test(reboot, trusts_what_it_left_itself)
{
    struct history history = history_make(15, 120);
    const char *path = map_with(&history, 40);
    struct image before = image_take(path);
    uint64_t index = inode_of(path_of(path, "index")), lock = inode_of(path_of(path, "lock"));
    for (int i = 0; i < 5; ++i) {
        odm_map *map = open_map(path);
        cr_expect_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
        expect_state(map, &history, history.count);
        ok(odm_close(map));
        cr_expect_eq(inode_of(path_of(path, "index")), index);
        cr_expect_eq(inode_of(path_of(path, "lock")), lock);
    }
    for (size_t i = 0; i < before.count; ++i) {
        // An attach number was claimed; nothing else has changed.
        if (strcmp(before.files[i].name, "lock") == 0)
            read_file_at(path_of(path, "lock"), 0, before.files[i].bytes, before.files[i].size);
    }
    const char *why = image_difference(&before, path);
    cr_assert_null(why, "%s", why);

    // The image, disguised, passes as well: the hostile tests count on that.
    const char *copy = temp_map_path();
    image_write(&before, copy);
    lie_about_files(&before, copy);
    odm_map *map = open_map(copy);
    cr_expect_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
    expect_state(map, &history, history.count);
    ok(odm_close(map));
    image_free(&before);
    history_free(&history);
}

/* A mark that can not be had counts as different, but nothing is lost by that. */
Test(reboot, rebuilds_where_the_boot_is_not_known)
{
    struct history history = history_make(16, 90);
    const char *path = map_with(&history, 40);
    for (int i = 0; i < 2; ++i) {
        lie_about_boot(UINT64_C(0) - 1000000); // {0, 0}
        odm_map *map = open_map(path);
        cr_expect_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_CUT);
        expect_state(map, &history, history.count);
        ok(odm_close(map));
    }
    history_free(&history);
}

/* ---- copies and links -------------------------------------------------------------------------------------------------- */

/* A copy of a closed map opens complete; and neither it nor the original knows of the other. */
Test(reboot, opens_a_copy_and_leaves_the_original_alone)
{
    struct history history = history_make(17, 150);
    const char *path = map_with(&history, 50), *copy = temp_map_path();
    copy_tree(path, copy);
    struct image before = image_take(path);
    odm_map *map = open_map(copy);
    cr_expect_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_CUT);
    expect_state(map, &history, history.count);
    put(map, "only", "in the copy");
    ok(odm_close(map));
    cr_assert_null(image_difference(&before, path), "%s", image_difference(&before, path));
    map = open_map(path);
    cr_expect_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
    expect_state(map, &history, history.count);
    expect_absent(map, "only");
    ok(odm_close(map));
    image_free(&before);
    history_free(&history);
}

/* A copy made while the map was open and written opens as after power loss: a prefix, or it is refused; never wrong. */
Test(reboot, opens_a_copy_made_while_others_wrote)
{
    struct history history = history_make(18, 2000);
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 4);
    size_t done = 0;
    for (int i = 0; i < 40; ++i) {
        struct image image = {.files = NULL};
        // Half of the files as they are now, half as they are later: a copy takes time.
        struct image early = image_take(path);
        size_t from = done;
        history_do(&history, done, done + 1 + (size_t)i, map);
        done += 1 + (size_t)i;
        struct image late = image_take(path);
        image.identity = late.identity;
        image.files = calloc(late.count, sizeof *image.files);
        for (size_t k = 0; k < late.count; ++k) {
            struct image_file *old = image_find(&early, late.files[k].name);
            bool take_old = (k + (size_t)i) % 2 == 0;
            if (take_old && old == NULL) continue;
            struct image_file *file = &image.files[image.count++];
            *file = take_old ? *old : late.files[k];
            file->bytes = malloc(file->size + 1);
            memcpy(file->bytes, take_old ? old->bytes : late.files[k].bytes, file->size);
        }
        const char *copy = temp_map_path();
        image_write(&image, copy);
        odm_map *opened = NULL;
        odm_status status = odm_open(copy, NULL, &opened, NULL);
        cr_assert(status == ODM_OK || status == ODM_E_CORRUPT);
        if (status == ODM_OK) {
            const char *why;
            size_t n = prefix_shown(opened, &history.start, history.writes, 0, done, &why);
            cr_assert_neq(n, SIZE_MAX, "copy %d, between %zu and %zu writes: %s", i, from, done, why);
        }
        ok(odm_close(opened));
        remove_tree(copy);
        image_free(&image);
        image_free(&early);
        image_free(&late);
    }
    ok(odm_close(map));
    history_free(&history);
}

/* A map that is linked from two places is not opened for writing, whatever else is to be done; and nothing is changed. */
Test(reboot, refuses_to_write_where_a_file_has_several_links)
{
    struct history history = history_make(19, 60);
    static const char *const names[] = {"meta", "index", "lock"};
    uint64_t boot = 0;
    for (size_t i = 0; i < COUNT_OF(names); ++i) {
        for (int variant = 0; variant < 3; ++variant) {
            const char *path = map_with(&history, 20);
            const char *other = path_of(temp_directory(), "other");
            cr_assert_eq(link(path_of(path, names[i]), other), 0);
            if (variant == 1) lie_about_boot(++boot);
            if (variant == 2 && i == 1) cr_assert_eq(unlink(path_of(path, "lock")), 0);
            struct image before = image_take(path);
            odm_error error;
            expect_status(try_open(path, &error), ODM_E_CORRUPT);
            expect_message(error, names[i]);
            expect_message(error, "2 links");
            const char *why = image_difference(&before, path);
            cr_assert_null(why, "%s, variant %d: %s", names[i], variant, why);
            image_free(&before);
            odm_map *map = open_map(path, .flags = ODM_READ_ONLY);
            expect_state(map, &history, history.count);
            ok(odm_close(map));
            cr_assert_eq(unlink(other), 0);
            map = open_map(path);
            expect_state(map, &history, history.count);
            ok(odm_close(map));
        }
    }
    history_free(&history);
}

/* ---- killed while rebuilding ------------------------------------------------------------------------------------------- */

struct broken {
    struct image image;
    struct history history;
    size_t right;   // writes that the first open must show
    bool disguised; // the copies pass for the original
};

/* Whether the child got to its end. */
static bool open_until_call(const char *path, size_t call)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        odm_map *map;
        die_before_call(call);
        odm_status status = odm_open(path, NULL, &map, NULL);
        must(status == ODM_OK);
        _exit(0); // without closing
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) cr_assert_eq(WEXITSTATUS(status), 0, "call %zu", call);
    return WIFEXITED(status);
}

static void kill_everywhere(const struct broken *broken)
{
#if defined(__SANITIZE_THREAD__)
    size_t step = 3; // There is but one thread in each of these processes.
#else
    size_t step = 1;
#endif
    bool finished = false;
    size_t call = 1 + seed_of_run() % step;
    for (; !finished; call += step) {
        cr_assert_lt(call, 2000);
        const char *path = temp_map_path();
        image_write(&broken->image, path);
        if (broken->disguised) lie_about_files(&broken->image, path);
        finished = open_until_call(path, call);
        // Once more, not as far or further, so that the leavings of two meet.
        if (!finished && call % 3 == 0) (void)open_until_call(path, call / 2 + 1);
        if (!finished && call % 3 == 1) (void)open_until_call(path, call + 7);
        odm_map *map = open_map(path, .wait_ms = 5000);
        expect_state(map, &broken->history, broken->right);
        expect_tidy(path, map);
        put(map, "and it", "can be written");
        ok(odm_close(map));
        lie_about_boot(call);
        map = open_map(path);
        expect_value(map, "and it", "can be written");
        ok(odm_remove(map, "and it", 6));
        expect_state(map, &broken->history, broken->right);
        ok(odm_close(map));
        lie_about_boot(0);
        remove_tree(path);
    }
    cr_assert_gt(call, 50, "an open that rebuilds makes more calls than %zu", call);
}

/* A builder killed before any of its system calls leaves the old state or the new, and the next opener is right.
 * Method: a torn log after a reboot; kill the opener before its first call, its second, ... until one gets through. */
Test(reboot, survives_a_kill_anywhere_in_a_rebuild_that_cuts)
{
    struct broken broken = {.history = history_make(20, 90), .right = 66};
    const char *path = map_with(&broken.history, 40);
    tear(path, &broken.history, broken.right, VALUE_SIZE);
    broken.image = image_take(path);
    kill_everywhere(&broken);
    image_free(&broken.image);
    history_free(&broken.history);
}

/* The same where nothing may be lost: another mount, a hole, a rollover that was broken off. */
Test(reboot, survives_a_kill_anywhere_in_a_rebuild_that_keeps)
{
    struct hole *hole = hole_make(21);
    struct broken broken = {.history = hole->history, .right = hole->history.count, .disguised = true};
    broken.image = image_take(hole->path);
    lie_about_mount(1);
    kill_everywhere(&broken);
    image_free(&broken.image);
    hole_free(hole);
}

/* A builder for another mount may die when the log has gone on already, and the next opener be on the mount of before: then index
 * and lock file of before are those of that mount, and yet no longer go with the log. What is written then must be there after a
 * reboot. Method: kill the builder before each of its calls. */
Test(reboot, does_not_trust_what_was_there_before_a_rebuild_for_another_mount_was_broken_off)
{
    const char *original = temp_map_path();
    odm_map *map = open_map(original);
    put_numbers(map, 0, 100, 0);
    struct image image = image_take(original); // as if it were killed
    bool finished = false;
    for (size_t call = 1; !finished; ++call) {
        cr_assert_lt(call, 2000);
        const char *path = temp_map_path();
        image_write(&image, path);
        lie_about_files(&image, path);
        lie_about_mount(1);
        finished = open_until_call(path, call);
        lie_about_mount(0);
        odm_map *again = open_map(path);
        expect_numbers(again, 0, 100, 0);
        put_numbers(again, 50, 150, 1);
        ok(odm_sync(again, NULL));
        ok(odm_close(again));
        lie_about_boot(call);
        again = open_map(path);
        expect_numbers(again, 0, 50, 0);
        expect_numbers(again, 50, 150, 1);
        ok(odm_close(again));
        lie_about_boot(0);
        remove_tree(path);
    }
    image_free(&image);
    ok(odm_close(map));
}

/* The same while a map is made: whoever comes next makes it, or finds it. */
Test(reboot, survives_a_kill_anywhere_in_the_making_of_a_map)
{
    bool finished = false;
    for (size_t call = 1; !finished; ++call) {
        cr_assert_lt(call, 2000);
        const char *path = temp_map_path();
        finished = open_until_call(path, call);
        odm_map *map = open_map(path);
        cr_assert_eq(odm_count(map), 0);
        put(map, "key", "value");
        ok(odm_close(map));
        lie_about_boot(call);
        map = open_map(path, .flags = ODM_MUST_EXIST);
        expect_value(map, "key", "value");
        cr_assert_eq(odm_count(map), 1);
        ok(odm_close(map));
        lie_about_boot(0);
        remove_tree(path);
    }
}

/* ---- read-only -------------------------------------------------------------------------------------------------------- */

/* A read-only handle beside a live writer sees what the writer puts, at once. */
Test(reboot, reads_current_values_beside_a_live_writer)
{
    struct history history = history_make(22, 300);
    const char *path = map_with(&history, 50);
    lie_about_mount(1); // The index is believed because somebody is attached, or not at all.
    lie_about_boot(1);
    odm_map *writer = open_map(path);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY);
    struct oracle state;
    state_after(&history, history.count, &state);
    struct sequence sequence = sequence_start(23);
    for (int round = 0; round < 30; ++round) {
        for (int i = 0; i < 20; ++i) {
            struct test_write write = write_random(&sequence, IDS, 900, i == 7);
            ok(write_do(&write, writer));
            write_apply(&write, &state);
        }
        const char *why = oracle_mismatch(&state, reader);
        cr_assert_null(why, "round %d: %s", round, why);
        ok(odm_refresh(reader));
    }
    cr_expect_neq(statistics_of(reader).recovery_kind, ODM_RECOVERY_PRIVATE);
    expect_status(odm_put(reader, "a", 1, "b", 1), ODM_E_READ_ONLY);
    expect_status(odm_remove(reader, "a", 1), ODM_E_READ_ONLY);
    expect_status(odm_clear(reader, NULL), ODM_E_READ_ONLY);
    expect_status(odm_sync(reader, NULL), ODM_E_READ_ONLY);
    ok(odm_close(reader));
    ok(odm_close(writer));
    oracle_free(&state);
    history_free(&history);
}

/* After a reboot a read-only handle builds an index of its own, shows what a writer would keep, and writes nothing. */
Test(reboot, reads_through_a_private_index_after_a_reboot)
{
    enum { COUNT = 140, TORN = 110 };
    struct history history = history_make(24, COUNT);
    const char *path = map_with(&history, 50);
    tear(path, &history, TORN, CHECK);
    lie_about_boot(1);
    struct image before = image_take(path);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY | ODM_VERIFY_READS), *dup;
    cr_expect_eq(statistics_of(reader).recovery_kind, ODM_RECOVERY_PRIVATE);
    expect_state(reader, &history, TORN);
    ok(odm_dup(reader, &dup, NULL));
    expect_state(dup, &history, TORN);
    ok(odm_close(dup));
    expect_status(odm_put(reader, "a", 1, "b", 1), ODM_E_READ_ONLY);
    ok(odm_close(reader));
    const char *why = image_difference(&before, path);
    cr_assert_null(why, "%s", why);
    image_free(&before);
    // A writer agrees.
    odm_map *map = open_map(path);
    expect_state(map, &history, TORN);
    ok(odm_close(map));
    history_free(&history);
}

static void read_as_nobody(void *context)
{
    const char *path = context;
    must(setgid(65534) == 0 && setuid(65534) == 0);
    must(access(path, W_OK) != 0);
    odm_options options = {.struct_size = sizeof options, .flags = ODM_READ_ONLY};
    odm_error error = {.struct_size = sizeof error};
    odm_map *map = NULL;
    odm_status status = odm_open(path, &options, &map, &error);
    if (status != ODM_OK) fprintf(stderr, "read-only open as nobody: %s, %s\n", odm_status_name(status), error.message);
    must(status == ODM_OK);
    must(odm_count(map) == 100);
    must(odm_get(map, "key 7", 5, NULL, NULL) == ODM_OK);
    must(odm_put(map, "key 7", 5, "", 0) == ODM_E_READ_ONLY);
    must(odm_close(map) == ODM_OK);
}

/* Reading needs no permission to write, neither with an index that can be trusted nor without, nor beside a writer. */
Test(reboot, reads_without_permission_to_write)
{
    if (geteuid() != 0) cr_skip_test("only root can become nobody");
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 100, 1);
    expect_child_succeeds(start_child(read_as_nobody, (void *)(uintptr_t)path));
    ok(odm_close(map));
    expect_child_succeeds(start_child(read_as_nobody, (void *)(uintptr_t)path));
    lie_about_boot(1);
    expect_child_succeeds(start_child(read_as_nobody, (void *)(uintptr_t)path));
}

/* A reader that was there before goes over to the index of a writer that rebuilt. */
Test(reboot, shows_a_reader_the_rebuilt_index)
{
    struct hole *hole = hole_make(25);
    odm_map *reader = open_map(hole->path, .flags = ODM_READ_ONLY);
    cr_expect_eq(statistics_of(reader).recovery_kind, ODM_RECOVERY_NONE);
    expect_state(reader, &hole->history, hole->history.count);
    lie_about_mount(1);
    odm_map *writer = open_map(hole->path);
    cr_expect_eq(statistics_of(writer).recovery_kind, ODM_RECOVERY_KEPT);
    put(writer, "new", "value");
    expect_value(reader, "new", "value");
    ok(odm_remove(writer, "new", 3));
    expect_state(reader, &hole->history, hole->history.count);
    cr_expect_eq(statistics_of(reader).recovery_kind, ODM_RECOVERY_KEPT);
    ok(odm_close(reader));
    ok(odm_close(writer));
    hole_free(hole);
}

/* A reader with an index of its own shows the moment it was built, until a writer has recovered the map and the reader is
 * refreshed: then it goes over to the writer's. */
Test(reboot, leaves_a_private_index_at_the_refresh_after_a_writer_recovered)
{
    struct history history = history_make(26, 100);
    const char *path = map_with(&history, 50);
    lie_about_boot(1);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY);
    cr_expect_eq(statistics_of(reader).recovery_kind, ODM_RECOVERY_PRIVATE);
    odm_map *writer = open_map(path);
    put(writer, "new", "value");
    const void *held;
    size_t size;
    expect_absent(reader, "new");
    size_t key_size, some = 0;
    struct oracle state;
    state_after(&history, history.count, &state);
    while (!state.entries[some].present) ++some;
    const void *key = key_of_id((uint32_t)some, &key_size);
    ok(odm_get(reader, key, key_size, &held, &size));
    cr_assert(value_has_tag(held, size, state.entries[some].tag));
    ok(odm_refresh(reader));
    expect_value(reader, "new", "value");
    ok(odm_close(reader));
    ok(odm_close(writer));
    oracle_free(&state);
    history_free(&history);
}
