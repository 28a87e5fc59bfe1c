/* files.c - damaged and hostile files: whatever is in them, a map gives statuses, and never a crash, a hang or a wrong value.
 *
 * Method. A map with a known content is damaged in one place after the other: every byte of every header, places drawn by
 * lot elsewhere, lengths, whole pages, whole files. A child then opens it and does a bit of everything. A copy passes for the
 * original half of the time (same boot, same files: what the index and the lock file say is believed), else it is opened as
 * after a reboot. A child that crashes or hangs says by which damage: ODM_TEST_DAMAGE=<number> does only that one.
 *
 * Values are asserted where a check must catch the damage: with ODM_VERIFY_READS. A key may be missing, for what is damaged
 * is skipped or cut; but a value that is given must be the one that was put. Every key is put once, so an older value can
 * not be mistaken for damage.
 *
 * ODM_TEST_DAMAGES sets how many are tried in each test, ODM_TEST_SEED which. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "format.h"
#include "image.h"
#include "oracle.h"
#include "support.h"

enum { IDS = 120, NEW_IDS = 80, HANG_SECONDS = 60 };

/* One process at a time damages and reads: ThreadSanitizer has little to find here, and takes its time. */
#if defined(__SANITIZE_THREAD__)
enum { DAMAGES_USUAL = 40, DAMAGES_LENGTHS = 80 };
#elif defined(__SANITIZE_ADDRESS__)
enum { DAMAGES_USUAL = 350, DAMAGES_LENGTHS = 400 };
#else
enum { DAMAGES_USUAL = 600, DAMAGES_LENGTHS = 100000 };
#endif

TestSuite(hostile, .init = lies_begin, .fini = remove_temp_directories, .timeout = 280);

/* ---- the map before it is damaged ----------------------------------------------------------------------------------- */

static uint32_t value_size(uint32_t id)
{
    return id * 7 % 300;
}

static uint64_t value_tag(uint32_t id)
{
    return id * UINT64_C(0x9e3779b97f4a7c15) + 5;
}

/* A closed map: some entries synced, some not, some removed, several segments and split chunks. */
static struct image undamaged(uint32_t stripes)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = stripes, .schema = "hostile", .schema_size = 7);
    for (uint32_t id = 0; id < IDS; ++id) {
        struct test_write write = {WRITE_PUT, id, value_size(id), value_tag(id)};
        if (id == 11) continue; // 100 KiB are of no use here
        ok(write_do(&write, map));
        if (id == IDS / 2) ok(odm_sync(map, NULL));
    }
    for (uint32_t id = 0; id < IDS; id += 13) {
        struct test_write write = {.kind = WRITE_REMOVE, .id = id};
        ok(write_do(&write, map));
    }
    ok(odm_close(map));
    struct image image = image_take(path);
    remove_tree(path);
    return image;
}

static struct image copy_of(const struct image *image)
{
    struct image copy = *image;
    copy.files = calloc(image->count + 4, sizeof *copy.files);
    for (size_t i = 0; i < image->count; ++i) {
        copy.files[i] = image->files[i];
        copy.files[i].bytes = malloc(image->files[i].size + 1);
        memcpy(copy.files[i].bytes, image->files[i].bytes, image->files[i].size);
    }
    return copy;
}

/* ---- what is done to a damaged map, in a child ------------------------------------------------------------------------ */

static bool is_a_status(odm_status status)
{
    return strcmp(odm_status_name(status), "unknown status") != 0;
}

#define FINE(status) must(is_a_status(status))

static void get_all(odm_map *map, uint32_t ids, bool sure)
{
    for (uint32_t id = 0; id < ids; ++id) {
        size_t key_size, size;
        const void *key = key_of_id(id, &key_size), *value;
        uint64_t version;
        odm_status status = odm_get(map, key, key_size, &value, &size);
        FINE(status);
        must(status == ODM_OK || status == ODM_NOT_FOUND || status < 0);
        if (status == ODM_OK && sure) must(size == value_size(id) && value_has_tag(value, size, value_tag(id)));
        // Every byte can be read, whatever it is.
        uint64_t sum = 0;
        for (size_t i = 0; status == ODM_OK && i < size; ++i) sum += ((const unsigned char *)value)[i];
        __asm__ volatile("" : : "r"(sum));
        if (id % 5 == 0) FINE(odm_entry_get(map, key, key_size, &value, &size, &version));
    }
}

static void walk_all(odm_map *map, bool sure)
{
    odm_iter *iter;
    must(odm_iter_open(map, &iter) == ODM_OK);
    // A damaged index may name a record many times, but not for ever: it has but so many slots.
    for (uint64_t i = 0; i < UINT64_C(1) << 24; ++i) {
        const void *key, *value;
        size_t key_size, size;
        odm_status status = odm_iter_next(iter, &key, &key_size, &value, &size);
        FINE(status);
        if (status != ODM_OK) break;
        uint32_t id = id_of_key(key, key_size);
        if (sure) must(id < IDS + NEW_IDS && size == value_size(id) && value_has_tag(value, size, value_tag(id)));
    }
    FINE(odm_iter_close(iter));
}

static void get_many(odm_map *map)
{
    unsigned char keys[64 * 400];
    uint64_t ends[64], sizes[64], end = 0;
    const void *values[64];
    size_t n = 0;
    for (uint32_t id = 20; n < 64; ++id) {
        size_t size;
        const void *key = key_of_id(id, &size);
        if (size > 400) continue;
        memcpy(keys + end, key, size);
        ends[n++] = end += size;
    }
    FINE(odm_get_many(map, &n, keys, ends, values, sizes));
}

static void use(const char *path, uint32_t flags)
{
    odm_options options = {.struct_size = sizeof options, .flags = flags, .wait_ms = 50};
    odm_error error = {.struct_size = sizeof error};
    odm_map *map = NULL;
    bool sure = (flags & ODM_VERIFY_READS) != 0;
    odm_status status = odm_open(path, &options, &map, &error);
    FINE(status);
    must((map != NULL) == (status == ODM_OK));
    if (status != ODM_OK) {
        must(status < 0 || status == ODM_NOT_FOUND);
        must(error.status == status && memchr(error.message, 0, sizeof error.message) != NULL);
        return;
    }
    odm_statistics statistics = {.struct_size = sizeof statistics};
    get_all(map, IDS, sure);
    walk_all(map, sure);
    get_many(map);
    FINE(odm_stat(map, &statistics));
    (void)odm_count(map);
    for (uint32_t id = IDS; id < IDS + NEW_IDS; ++id) {
        struct test_write write = {WRITE_PUT, id, value_size(id), value_tag(id)};
        status = write_do(&write, map);
        FINE(status);
        size_t key_size, size;
        const void *key = key_of_id(id, &key_size), *value;
        if (status != ODM_OK) continue;
        status = odm_get(map, key, key_size, &value, &size);
        FINE(status);
        if (status == ODM_OK && sure) must(size == value_size(id) && value_has_tag(value, size, value_tag(id)));
    }
    for (uint32_t id = 0; id < IDS; id += 9) {
        struct test_write write = {.kind = WRITE_REMOVE, .id = id};
        FINE(write_do(&write, map));
    }
    FINE(odm_refresh(map));
    get_all(map, IDS + NEW_IDS, sure);
    walk_all(map, sure);
    FINE(odm_sync(map, NULL));
    if ((statistics.count & 3) == 0) FINE(odm_clear(map, NULL));
    odm_map *dup = NULL;
    FINE(odm_dup(map, &dup, NULL));
    FINE(odm_close(dup));
    FINE(odm_close(map));
}

/* ---- damages ----------------------------------------------------------------------------------------------------------- */

/* Everything that is done to the image for one try. */
struct damage {
    char what[160];
    size_t file;
    enum { FLIP, CUT_FILE, GROW_FILE, ZERO_PAGE, RANDOM_PAGE, SET_WORD, SWAP, DELETE, RANDOM_FILE, EMPTY_FILE } kind;
    uint64_t at, with;
};

static void damage_do(struct image *image, const struct damage *damage, struct sequence *sequence)
{
    struct image_file *file = &image->files[damage->file];
    uint64_t page_size = file->size - damage->at < PAGE ? file->size - damage->at : PAGE;
    switch (damage->kind) {
        case FLIP: file->bytes[damage->at] ^= (unsigned char)damage->with; break;
        case SET_WORD: memcpy(file->bytes + damage->at, &damage->with, 8); break;
        case CUT_FILE:
        case GROW_FILE: image_resize(file, damage->at); break;
        case ZERO_PAGE: memset(file->bytes + damage->at, 0, page_size); break;
        case RANDOM_PAGE:
            for (uint64_t i = 0; i < page_size; ++i)
                file->bytes[damage->at + i] = (unsigned char)sequence_next(sequence);
            break;
        case RANDOM_FILE:
            for (uint64_t i = 0; i < file->size; ++i) file->bytes[i] = (unsigned char)sequence_next(sequence);
            break;
        case EMPTY_FILE: image_resize(file, 0); break;
        case DELETE: image_drop(image, file->name); break;
        case SWAP: {
            struct image_file *other = &image->files[damage->with];
            unsigned char *bytes = file->bytes;
            uint64_t size = file->size;
            file->bytes = other->bytes;
            file->size = other->size;
            other->bytes = bytes;
            other->size = size;
        }
    }
}

static void describe(struct damage *damage, const struct image *image)
{
    static const char *const names[] = {"flip",     "cut",  "grow",   "zero page",   "random page",
                                        "set word", "swap", "delete", "random file", "empty file"};
    snprintf(damage->what, sizeof damage->what, "%s: %s at %llu with %llx", image->files[damage->file].name,
             names[damage->kind], (unsigned long long)damage->at, (unsigned long long)damage->with);
}

/* The children's place in the list of damages. */
struct place {
    size_t at;
    unsigned variant;
};
enum { VARIANTS = 4 }; // of opening

static void try_one(const struct image *image, const struct damage *damage, unsigned variant, size_t number)
{
    static const uint32_t flags[VARIANTS] = {ODM_VERIFY_READS, 0, ODM_READ_ONLY | ODM_VERIFY_READS, ODM_VERIFY_READS};
    struct sequence sequence = sequence_start(number);
    struct image damaged = copy_of(image);
    damage_do(&damaged, damage, &sequence);
    const char *path = path_of(temp_directory(), "map");
    image_write(&damaged, path);
    bool as_the_original = variant != 3;
    if (as_the_original) {
        lie_about_files(image, path);
        lie_about_boot(0);
    } else {
        lie_about_boot(number + 1);
    }
    alarm(HANG_SECONDS);
    use(path, flags[variant]);
    // What one open made of it, the next can read.
    use(path, flags[variant]);
    alarm(0);
    image_free(&damaged);
    remove_temp_directories();
}

static void try_all(const struct image *image, const struct damage *damages, size_t count)
{
    struct place *place = shared_memory(sizeof *place);
    size_t failures = 0, only = count_of("ODM_TEST_DAMAGE", SIZE_MAX);
    if (only != SIZE_MAX) place->at = only;
    while (place->at < count) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            lie_about_syncs();
            for (; place->at < count; ++place->at, place->variant = 0) {
                // All ways of opening in turn; each of them for a single damage that is asked for.
                if (only == SIZE_MAX) place->variant = (unsigned)(place->at % VARIANTS);
                for (; place->variant < VARIANTS; ++place->variant) {
                    try_one(image, &damages[place->at], place->variant, place->at);
                    if (only == SIZE_MAX) break;
                }
                if (only != SIZE_MAX) break;
            }
            _exit(0);
        }
        int status;
        while (waitpid(child, &status, 0) < 0) continue;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
        fprintf(stderr, "damage %zu (%s), opened in way %u: %s %d\n", place->at, damages[place->at].what,
                place->variant,
                WIFSIGNALED(status) ? (WTERMSIG(status) == SIGALRM ? "hangs, signal" : "signal") : "exit",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        ++failures;
        cr_assert_lt(failures, 20, "and so on");
        ++place->at;
        place->variant = 0;
        if (only != SIZE_MAX) break;
    }
    cr_assert_eq(failures, 0, "seed %llu", (unsigned long long)seed_of_run());
}

/* Each of `all` possible ones has the same chance to be among those that are tried. */
struct lottery {
    struct sequence sequence;
    struct damage *drawn;
    size_t count, room, seen;
};

static struct lottery lottery(uint64_t salt)
{
    struct lottery lottery = {.sequence = sequence_start(salt), .room = count_of("ODM_TEST_DAMAGES", DAMAGES_USUAL)};
    lottery.drawn = calloc(lottery.room + 1, sizeof *lottery.drawn);
    return lottery;
}

static void enter(struct lottery *lottery, const struct image *image, struct damage damage)
{
    ++lottery->seen;
    size_t place =
        lottery->count < lottery->room ? lottery->count++ : sequence_below(&lottery->sequence, lottery->seen);
    if (place >= lottery->room) return;
    describe(&damage, image);
    lottery->drawn[place] = damage;
}

static void run(struct lottery *lottery, struct image *image)
{
    cr_assert_gt(lottery->count, 10);
    try_all(image, lottery->drawn, lottery->count);
    free(lottery->drawn);
    image_free(image);
}

/* The parts of a file that say where other things are. */
static uint64_t header_size(const struct image_file *file)
{
    if (strcmp(file->name, "meta") == 0) return META_SIZE;
    if (strcmp(file->name, "lock") == 0) return file->size;
    if (strcmp(file->name, "index") == 0) return file->size; // all of it is slots, words and roots
    return SEGMENT_HEADER_SIZE;
}

static void enter_flips(struct lottery *lottery, const struct image *image, const char *prefix)
{
    for (size_t i = 0; i < image->count; ++i) {
        const struct image_file *file = &image->files[i];
        if (strncmp(file->name, prefix, strlen(prefix)) != 0) continue;
        uint64_t header = header_size(file);
        for (uint64_t at = 0; at < header; ++at) {
            // Where all is zero there is little to damage: seldom.
            if (file->bytes[at] == 0 && at % 8 != 0 && sequence_below(&lottery->sequence, 8) != 0) continue;
            uint64_t word = 0;
            memcpy(&word, file->bytes + at / 8 * 8, file->size - at / 8 * 8 < 8 ? 1 : 8);
            if (word == 0 && sequence_below(&lottery->sequence, 16) != 0) continue;
            enter(lottery, image,
                  (struct damage){
                      .file = i, .kind = FLIP, .at = at, .with = 1U << sequence_below(&lottery->sequence, 8)});
        }
        for (uint64_t n = 0; header < file->size && n < 60; ++n) {
            uint64_t at = header + sequence_below(&lottery->sequence, file->size - header);
            enter(lottery, image,
                  (struct damage){
                      .file = i, .kind = FLIP, .at = at, .with = 1U << sequence_below(&lottery->sequence, 8)});
        }
    }
}

/* ---- tests -------------------------------------------------------------------------------------------------------------- */

/* The tests below would be worth little if the copies were not believed. */
Test(hostile, believes_an_undamaged_copy)
{
    struct image image = undamaged(4);
    const char *path = temp_map_path();
    image_write(&image, path);
    lie_about_files(&image, path);
    odm_map *map = open_map(path);
    cr_expect_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
    cr_expect_eq(odm_count(map), IDS - 1 - (IDS + 12) / 13);
    ok(odm_close(map));
    image_free(&image);
}

Test(hostile, survives_flipped_bits_in_the_index)
{
    struct image image = undamaged(4);
    struct lottery all = lottery(41);
    enter_flips(&all, &image, "index");
    run(&all, &image);
}

Test(hostile, survives_flipped_bits_in_the_lock_file)
{
    struct image image = undamaged(4);
    struct lottery all = lottery(42);
    enter_flips(&all, &image, "lock");
    run(&all, &image);
}

Test(hostile, survives_flipped_bits_in_meta)
{
    struct image image = undamaged(16);
    struct lottery all = lottery(43);
    enter_flips(&all, &image, "meta");
    run(&all, &image);
}

Test(hostile, survives_flipped_bits_in_segments)
{
    struct image image = undamaged(4);
    struct lottery all = lottery(44);
    enter_flips(&all, &image, "log/");
    run(&all, &image);
}

/* Words that hold places and sizes become numbers that somebody thought of. */
Test(hostile, survives_words_of_ill_will)
{
    static const uint64_t words[] = {0,
                                     1,
                                     UINT64_MAX,
                                     UINT64_MAX - 7,
                                     UINT64_C(1) << 63,
                                     UINT64_C(1) << 62,
                                     UINT32_MAX,
                                     UINT64_C(1) << 32,
                                     0x7fffffff,
                                     UINT64_C(0xffffffff00000000),
                                     PAGE,
                                     8,
                                     64,
                                     UINT64_C(1) << 58,
                                     UINT64_C(0x0400000000000001)};
    struct image image = undamaged(4);
    struct lottery all = lottery(45);
    for (size_t i = 0; i < image.count; ++i) {
        for (uint64_t at = 0; at + 8 <= image.files[i].size; at += 8) {
            uint64_t word;
            memcpy(&word, image.files[i].bytes + at, 8);
            if (word == 0 && sequence_below(&all.sequence, 30) != 0) continue;
            if (strncmp(image.files[i].name, "log/", 4) == 0 && sequence_below(&all.sequence, 4) != 0) continue;
            uint64_t with = words[sequence_below(&all.sequence, COUNT_OF(words))];
            enter(&all, &image, (struct damage){.file = i, .kind = SET_WORD, .at = at, .with = with});
        }
    }
    run(&all, &image);
}

/* Files that are too short, too long, empty, gone, or another's. */
Test(hostile, survives_files_of_wrong_lengths_and_wrong_files)
{
    struct image image = undamaged(4);
    struct lottery all = lottery(46);
    // All of them, unless a number is asked for: they are few.
    all.room = count_of("ODM_TEST_DAMAGES", DAMAGES_LENGTHS);
    free(all.drawn);
    all.drawn = calloc(all.room + 1, sizeof *all.drawn);
    for (size_t i = 0; i < image.count; ++i) {
        uint64_t size = image.files[i].size;
        const uint64_t sizes[] = {1,        7,    8,        63,       64,          65,       72,      1000,
                                  PAGE - 1, PAGE, PAGE + 1, size / 2, size - PAGE, size - 8, size - 1};
        for (unsigned variant = 0; variant < VARIANTS; ++variant) { // The place in the list chooses the way of opening.
            for (size_t k = 0; k < COUNT_OF(sizes); ++k) {
                if (sizes[k] >= size || (k + variant) % 2 == 0) continue;
                enter(&all, &image, (struct damage){.file = i, .kind = CUT_FILE, .at = sizes[k]});
            }
            enter(&all, &image, (struct damage){.file = i, .kind = GROW_FILE, .at = size + 1 + 99 * variant});
            enter(&all, &image, (struct damage){.file = i, .kind = GROW_FILE, .at = size + PAGE * (variant + 1)});
            enter(&all, &image, (struct damage){.file = i, .kind = EMPTY_FILE});
            enter(&all, &image, (struct damage){.file = i, .kind = DELETE});
            enter(&all, &image, (struct damage){.file = i, .kind = RANDOM_FILE});
            size_t other = sequence_below(&all.sequence, image.count);
            if (other != i) enter(&all, &image, (struct damage){.file = i, .kind = SWAP, .with = other});
            // One more for each, so that the ways go round.
            enter(&all, &image,
                  (struct damage){.file = i, .kind = CUT_FILE, .at = sequence_below(&all.sequence, size)});
        }
    }
    run(&all, &image);
}

Test(hostile, survives_pages_of_zeros_and_of_noise)
{
    struct image image = undamaged(4);
    struct lottery all = lottery(47);
    for (int round = 0; round < 2; ++round) {
        for (size_t i = 0; i < image.count; ++i) {
            for (uint64_t at = 0; at < image.files[i].size; at += PAGE) {
                enter(&all, &image, (struct damage){.file = i, .kind = ZERO_PAGE, .at = at});
                enter(&all, &image, (struct damage){.file = i, .kind = RANDOM_PAGE, .at = at});
                if (at % (2 * PAGE) != 0) enter(&all, &image, (struct damage){.file = i, .kind = ZERO_PAGE, .at = at});
            }
        }
    }
    run(&all, &image);
}

/* Files that are not a map's, among them or instead. */
Test(hostile, leaves_foreign_files_alone)
{
    lie_about_syncs();
    struct image image = undamaged(4);
    const char *path = temp_map_path();
    image_write(&image, path);
    lie_about_files(&image, path);
    make_file(path_of(path, "log/readme"), "hello", 5);
    make_file(path_of(path, "log/99999999999"), "far", 3);
    make_file(path_of(path, "notes"), "mine", 4);
    lie_about_boot(1);
    for (int i = 0; i < 2; ++i) {
        odm_map *map = open_map(path);
        cr_expect_eq(odm_count(map), IDS - 1 - (IDS + 12) / 13);
        put(map, "key", "value");
        ok(odm_remove(map, "key", 3));
        ok(odm_close(map));
        lie_about_boot(2);
    }
    char text[8] = "";
    read_file_at(path_of(path, "log/readme"), 0, text, 5);
    cr_expect_str_eq(text, "hello");
    cr_expect_eq(file_size(path_of(path, "log/99999999999")), 3);
    cr_expect_eq(file_size(path_of(path, "notes")), 4);

    // Without meta it is no map, and nobody's files are made into one.
    cr_assert_eq(unlink(path_of(path, "meta")), 0);
    uint64_t digest = tree_digest(path);
    odm_error error;
    expect_status(try_open(path, &error), ODM_E_INVALID);
    cr_assert_eq(unlink(path_of(path, "notes")), 0);
    digest = tree_digest(path);
    expect_status(try_open(path, &error), ODM_E_CORRUPT);
    expect_status(try_open(path, &error, .flags = ODM_READ_ONLY), ODM_E_CORRUPT);
    cr_expect_eq(tree_digest(path), digest);
    image_free(&image);
}

/* A segment file of a number that is not yet due can be anybody's: it must not make two segments look like one, nor use up
 * the numbers. */
Test(hostile, is_not_led_astray_by_a_segment_of_a_high_number)
{
    lie_about_syncs();
    struct image image = undamaged(4);
    static const uint64_t aheads[] = {3,
                                      20,
                                      100,
                                      400,
                                      SEGMENT_SPAN_MAX - 2,
                                      SEGMENT_SPAN_MAX - 1,
                                      SEGMENT_SPAN_MAX,
                                      700,
                                      2 * SEGMENT_SPAN_MAX - 2,
                                      2 * SEGMENT_SPAN_MAX - 1,
                                      2 * SEGMENT_SPAN_MAX,
                                      5000};
    for (size_t i = 0; i < COUNT_OF(aheads); ++i) {
        uint64_t ahead = aheads[i];
        const char *path = temp_map_path();
        image_write(&image, path);
        char name[32];
        snprintf(name, sizeof name, "log/%011llu", (unsigned long long)(FIRST_NUMBER + ahead));
        if (!file_exists(path_of(path, name))) make_file(path_of(path, name), "x", 1);
        lie_about_boot(ahead);
        odm_map *map = NULL;
        odm_status status = odm_open(path, &(odm_options){.struct_size = sizeof(odm_options)}, &map, NULL);
        if (status == ODM_E_NO_SPACE && ahead >= SEGMENT_SPAN_MAX) continue; // Refused is right as well.
        ok(status);
        cr_assert_eq(odm_count(map), IDS - 1 - (IDS + 12) / 13);
        status = odm_put(map, "key", 3, "value", 5);
        cr_assert(status == ODM_OK || status == ODM_E_NO_SPACE, "%llu ahead: %s", (unsigned long long)ahead,
                  odm_status_name(status));
        if (status == ODM_OK) expect_value(map, "key", "value");
        for (uint32_t id = 0; id < IDS; ++id) {
            size_t key_size;
            const void *key = key_of_id(id, &key_size);
            bool there = id % 13 != 0 && id != 11;
            expect_status(odm_get(map, key, key_size, NULL, NULL), there ? ODM_OK : ODM_NOT_FOUND);
        }
        ok(odm_close(map));
        remove_tree(path);
    }
    image_free(&image);
}
