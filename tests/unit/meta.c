/* The file `meta`: meta.h. */
#include "meta.h"

#include <stddef.h>
#include <string.h>

#include "checksum.h"
#include "support.h"

TestSuite(meta, .timeout = 60, .fini = remove_temp_directories);

/* ---- slots --------------------------------------------------------------------------------------------------------- */

struct made {
    const char *path; // of the file
    struct directory directory;
    struct meta meta;
};

static struct made make_meta(void)
{
    struct made made;
    const char *path = temp_directory();
    made.path = path_of(path, "meta");
    ok(odm__directory_open(&made.directory, path, NULL));
    struct meta_fixed fixed;
    odm_options options = {.struct_size = sizeof options, .stripes = 4, .schema = "u64/str", .schema_size = 7};
    ok(odm__meta_make(&fixed, &options, NULL));
    ok(odm__meta_create(&made.directory, &fixed, &(struct meta_slot){.head = 0}, NULL));
    ok(odm__meta_open(&made.directory, true, &made.meta, NULL));
    cr_assert_eq(memcmp(&fixed, &made.meta.fixed, sizeof fixed), 0);
    return made;
}

static void close_meta(struct made *made)
{
    odm__meta_close(&made->meta);
    odm__directory_close(&made->directory);
}

static struct meta_slot read_slot(const struct made *made)
{
    struct meta_slot slot;
    ok(odm__meta_read_slot(&made->meta, &slot, NULL));
    return slot;
}

Test(meta, is_made_once)
{
    struct made made = make_meta();
    struct meta_fixed other;
    odm_options options = {.struct_size = sizeof options, .stripes = 16};
    ok(odm__meta_make(&other, &options, NULL));
    uint64_t before = tree_digest(made.path);
    expect_status(odm__meta_create(&made.directory, &other, &(struct meta_slot){.head = 0}, NULL), ODM_EXISTS);
    cr_assert_eq(tree_digest(made.path), before);
    close_meta(&made);
}

Test(meta, no_temporary_file_stays)
{
    const char *path = temp_directory();
    struct directory directory;
    ok(odm__directory_open(&directory, path, NULL));
    odm_options options = {.struct_size = sizeof options, .stripes = 16};
    for (int i = 0; i < 2; i++) {
        struct meta_fixed fixed;
        ok(odm__meta_make(&fixed, &options, NULL));
        expect_status(odm__meta_create(&directory, &fixed, &(struct meta_slot){.head = 0}, NULL),
                      i == 0 ? ODM_OK : ODM_EXISTS);
        cr_assert_eq(file_count(path), 1);
    }
    odm__directory_close(&directory);
}

Test(meta, ids_and_seeds_are_each_map_s_own)
{
    odm_options options = {.struct_size = sizeof options, .stripes = 16};
    struct meta_fixed a, b;
    ok(odm__meta_make(&a, &options, NULL));
    ok(odm__meta_make(&b, &options, NULL));
    cr_assert_neq(a.seed, b.seed);
    cr_assert_neq(a.map_id[0], b.map_id[0]);
    cr_assert_neq(a.hash_of_text, b.hash_of_text);
}

/* A torn slot leaves the one before. Method: write some, tear the newest in every word, read. */
Test(meta, a_torn_slot_falls_back_to_the_one_before)
{
    struct made made = make_meta();
    struct meta_slot slot = read_slot(&made);
    cr_assert_eq(slot.sequence, 0);
    for (uint64_t i = 1; i <= 5; i++) {
        slot.head = i * 100;
        slot.watermark = i * 1000;
        ok(odm__meta_write_slot(&made.meta, &slot, NULL));
        cr_assert_eq(slot.sequence, i);
        cr_assert_eq(read_slot(&made).watermark, i * 1000);
    }
    for (size_t word = 0; word < sizeof slot / 8; word++) {
        uint64_t offset = slot.sequence % 2 == 0 ? META_SLOT_OFFSET_0 : META_SLOT_OFFSET_1;
        flip_bits_at(made.path, offset + word * 8 + 2, 0x10);
        struct meta_slot found = read_slot(&made);
        cr_assert_eq(found.sequence, 4, "a slot with word %zu torn was believed", word);
        cr_assert_eq(found.watermark, 4000);
        flip_bits_at(made.path, offset + word * 8 + 2, 0x10);
    }
    cr_assert_eq(read_slot(&made).sequence, 5);
    close_meta(&made);
}

Test(meta, two_torn_slots_are_corrupt)
{
    struct made made = make_meta();
    struct meta_slot slot = read_slot(&made);
    ok(odm__meta_write_slot(&made.meta, &slot, NULL));
    flip_bits_at(made.path, META_SLOT_OFFSET_0, 1);
    flip_bits_at(made.path, META_SLOT_OFFSET_1, 1);
    odm_error error = {.struct_size = sizeof error};
    expect_status(odm__meta_read_slot(&made.meta, &slot, &error), ODM_E_CORRUPT);
    expect_message(error, "meta");
    close_meta(&made);
}

static bool writes_fail, syncs_fail;
static uint64_t written_at;

static ssize_t write_watched(int fd, const void *bytes, size_t size, off_t offset)
{
    written_at = (uint64_t)offset;
    if (writes_fail) return real_os()->write_at(fd, bytes, size / 2, offset); // as on a full disk
    return real_os()->write_at(fd, bytes, size, offset);
}

static int sync_fails(int fd)
{
    (void)fd;
    return syncs_fail ? -1 : 0;
}

/* The slot that counts is never the one that is written. Method: watch where writes go; fail them half-way. */
Test(meta, a_write_never_touches_the_slot_that_counts)
{
    struct made made = make_meta();
    struct meta_slot slot = read_slot(&made);
    odm__os.write_at = write_watched;
    odm__os.sync_data = sync_fails;
    for (uint64_t i = 0; i < 6; i++) {
        uint64_t counts = slot.sequence % 2 == 0 ? META_SLOT_OFFSET_0 : META_SLOT_OFFSET_1;
        slot.watermark = i + 1;
        struct meta_slot tried = slot;
        tried.watermark = 777;
        writes_fail = true;
        expect_status(odm__meta_write_slot(&made.meta, &tried, NULL), ODM_E_NO_SPACE);
        cr_assert_neq(written_at, counts);
        cr_assert_eq(tried.sequence, slot.sequence, "a failed write counts");
        cr_assert_eq(read_slot(&made).watermark, i);
        writes_fail = false;
        ok(odm__meta_write_slot(&made.meta, &slot, NULL));
        cr_assert_neq(written_at, counts);
        cr_assert_eq(read_slot(&made).watermark, i + 1);
    }
    syncs_fail = true;
    uint64_t sequence = slot.sequence;
    cr_assert_neq(odm__meta_write_slot(&made.meta, &slot, NULL), ODM_OK);
    cr_assert_eq(slot.sequence, sequence);
    close_meta(&made);
}

/* ---- what is refused ----------------------------------------------------------------------------------------------- */

enum spoil {
    MAGIC,
    BYTE_ORDER_OTHER,
    FORMAT_NEWER,
    FEATURE_INCOMPATIBLE,
    FEATURE_READABLE,
    FEATURE_COMPATIBLE,
    GEOMETRY_OTHER,
    HASH_OTHER,
    STRIPES_ODD,
    STRIPES_MANY,
    STRIPES_NONE,
    SCHEMA_LONG,
    CHECK_WRONG
};

/* Changes one field, as another version of the library would have written it: with a right check. */
static void spoil(const char *path, enum spoil what)
{
    struct meta_fixed fixed;
    read_file_at(path, 0, &fixed, sizeof fixed);
    switch (what) {
        case MAGIC: fixed.magic ^= 1; break;
        case BYTE_ORDER_OTHER: fixed.byte_order = 0x04030201; break;
        case FORMAT_NEWER: fixed.format = FORMAT_VERSION + 1; break;
        case FEATURE_INCOMPATIBLE: fixed.features_incompatible = 1 << 5; break;
        case FEATURE_READABLE: fixed.features_readable = UINT64_C(1) << 63; break;
        case FEATURE_COMPATIBLE: fixed.features_compatible = UINT64_MAX; break;
        case GEOMETRY_OTHER: fixed.geometry += 1; break;
        case HASH_OTHER: fixed.hash_of_text ^= 1; break;
        case STRIPES_ODD: fixed.stripes = 12; break;
        case STRIPES_MANY: fixed.stripes = 128; break;
        case STRIPES_NONE: fixed.stripes = 0; break;
        case SCHEMA_LONG: fixed.schema_size = 1025; break;
        case CHECK_WRONG: fixed.schema[1000] ^= 1; break;
    }
    if (what != CHECK_WRONG) fixed.check = check_bytes(&fixed, offsetof(struct meta_fixed, check), 0);
    write_file_at(path, 0, &fixed, sizeof fixed);
}

/* What this library can not be right about is refused by name, before a byte is written.
 * Method: a map of which one field of meta is another version's, and a digest of all its files. */
Test(meta, what_is_not_known_is_refused_by_name)
{
    static const struct {
        enum spoil what;
        odm_status writing, reading;
        const char *message;
    } cases[] = {
        {MAGIC, ODM_E_CORRUPT, ODM_E_CORRUPT, "opendiskmap"},
        {BYTE_ORDER_OTHER, ODM_E_VERSION, ODM_E_VERSION, "byte order"},
        {FORMAT_NEWER, ODM_E_VERSION, ODM_E_VERSION, "format 2"},
        {FEATURE_INCOMPATIBLE, ODM_E_VERSION, ODM_E_VERSION, "features"},
        {FEATURE_READABLE, ODM_E_VERSION, ODM_OK, "features"},
        {FEATURE_COMPATIBLE, ODM_OK, ODM_OK, ""},
        {GEOMETRY_OTHER, ODM_E_VERSION, ODM_E_VERSION, "geometry"},
        {HASH_OTHER, ODM_E_VERSION, ODM_E_VERSION, "hash"},
        {STRIPES_ODD, ODM_E_CORRUPT, ODM_E_CORRUPT, "stripes"},
        {STRIPES_MANY, ODM_E_CORRUPT, ODM_E_CORRUPT, "stripes"},
        {STRIPES_NONE, ODM_E_CORRUPT, ODM_E_CORRUPT, "stripes"},
        {SCHEMA_LONG, ODM_E_CORRUPT, ODM_E_CORRUPT, "schema"},
        {CHECK_WRONG, ODM_E_CORRUPT, ODM_E_CORRUPT, "check"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path);
        put(map, "a", "1");
        odm_close(map);
        spoil(path_of(path, "meta"), cases[i].what);
        uint64_t digest = tree_digest(path);
        odm_error error;
        expect_status(try_open(path, &error, .flags = ODM_READ_ONLY), cases[i].reading);
        if (cases[i].reading != ODM_OK) expect_message(error, cases[i].message);
        cr_assert_eq(tree_digest(path), digest, "case %zu", i);
        if (cases[i].writing == ODM_OK) continue;
        expect_status(try_open(path, &error), cases[i].writing);
        expect_message(error, cases[i].message);
        expect_status(try_open(path, &error, .flags = ODM_MUST_EXIST), cases[i].writing);
        cr_assert_eq(tree_digest(path), digest, "case %zu", i);
    }
}

Test(meta, a_meta_that_is_cut_off_is_corrupt)
{
    static const size_t sizes[] = {0, 1, 8, sizeof(struct meta_fixed) - 1, PAGE, PAGE + 8};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        const char *path = temp_map_path();
        odm_map *map = open_map(path);
        put(map, "a", "1");
        odm_close(map);
        cr_assert_eq(truncate(path_of(path, "meta"), (off_t)sizes[i]), 0);
        uint64_t digest = tree_digest(path);
        // Files that are trusted need no slot to be read: opening says so, or sync does.
        odm_map *opened;
        odm_status status = odm_open(path, NULL, &opened, NULL);
        if (status == ODM_OK) {
            status = odm_sync(opened, NULL);
            odm_close(opened);
        }
        expect_status(status, ODM_E_CORRUPT);
        if (sizes[i] < sizeof(struct meta_fixed)) cr_assert_eq(tree_digest(path), digest);
    }
}

/* ---- schemas ------------------------------------------------------------------------------------------------------- */

Test(meta, another_schema_is_refused_and_both_are_shown)
{
    const char *path = temp_map_path();
    odm_close(open_map(path, .schema = "u64/str", .schema_size = 7));
    uint64_t digest = tree_digest(path);
    odm_error error;
    expect_status(try_open(path, &error, .schema = "u64/json", .schema_size = 8), ODM_E_MISMATCH);
    expect_message(error, "\"u64/str\"");
    expect_message(error, "\"u64/json\"");
    expect_status(try_open(path, &error, .schema = "u64/st", .schema_size = 6), ODM_E_MISMATCH);
    expect_status(try_open(path, &error, .schema = "", .schema_size = 0), ODM_E_MISMATCH);
    expect_status(try_open(path, &error, .schema = "u64/json", .schema_size = 8, .flags = ODM_READ_ONLY),
                  ODM_E_MISMATCH);
    cr_assert_eq(tree_digest(path), digest);

    odm_map *map = open_map(path, .schema = "u64/str", .schema_size = 7);
    const void *schema;
    size_t size;
    ok(odm_schema(map, &schema, &size));
    cr_assert_eq(size, 7);
    cr_assert_arr_eq(schema, "u64/str", 7);
    odm_close(map);
    odm_close(open_map(path)); // NULL: any.
}

Test(meta, a_schema_asked_of_a_map_without_one_is_a_mismatch)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    const void *schema;
    size_t size = 1;
    ok(odm_schema(map, &schema, &size));
    cr_assert_eq(size, 0);
    odm_close(map);
    odm_error error;
    expect_status(try_open(path, &error, .schema = "str/str", .schema_size = 7), ODM_E_MISMATCH);
    expect_message(error, "str/str");
    expect_message(error, "without a schema");
}

Test(meta, a_schema_may_have_1024_bytes_and_any_of_them)
{
    char schema[ODM_SCHEMA_SIZE_MAX + 1];
    for (size_t i = 0; i < sizeof schema; i++) schema[i] = (char)(i * 7);
    const char *path = temp_map_path();
    expect_status(try_open(path, NULL, .schema = schema, .schema_size = sizeof schema), ODM_E_INVALID);
    cr_assert_not(file_exists(path));
    odm_close(open_map(path, .schema = schema, .schema_size = ODM_SCHEMA_SIZE_MAX));
    odm_map *map = open_map(path, .schema = schema, .schema_size = ODM_SCHEMA_SIZE_MAX);
    const void *found;
    size_t size;
    ok(odm_schema(map, &found, &size));
    cr_assert_eq(size, ODM_SCHEMA_SIZE_MAX);
    cr_assert_arr_eq(found, schema, ODM_SCHEMA_SIZE_MAX);
    odm_close(map);
    schema[1023] ^= 1;
    expect_status(try_open(path, NULL, .schema = schema, .schema_size = ODM_SCHEMA_SIZE_MAX), ODM_E_MISMATCH);
}
