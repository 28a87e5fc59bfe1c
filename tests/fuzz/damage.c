/* damage.c - damages the files of a map as an input says, opens them and looks. Contract: damage.h. */
#include "damage.h"

#include <fcntl.h>
#include <string.h>

#include "checksum.h"
#include "format.h"
#include "fuzz.h"
#include "image.h"
#include "oracle.h"
#include "scratch.h"

enum { IDS = 40, WRITES = 90, SYNCED = 50, NEW_IDS = 12, EDITS_MAX = 40, FILE_BYTES_MAX = 1 << 18 };

/* ---- the map before it is damaged ----------------------------------------------------------------------------------- */

static struct base {
    struct image image;
    struct test_write writes[WRITES];
    uint64_t seed; // of its hashes
    uint64_t map_id[2];
} base;

static void make_base(void)
{
    if (base.image.count != 0) return;
    struct sequence sequence = {.state = 7};
    odm_options options = {.struct_size = sizeof options, .stripes = 2, .schema = "fuzz", .schema_size = 4};
    odm_map *map;
    right(odm_open(scratch_map_path(), &options, &map, NULL) == ODM_OK, "the base");
    for (size_t i = 0; i < WRITES; ++i) {
        struct test_write *write = &base.writes[i];
        *write = write_random(&sequence, IDS, 120, i == 30 || i == 70);
        if (write->id == 11) write->id = 12; // Key 11 has 100 KiB.
        if (i == 30 || i == 70) write->kind = WRITE_CLEAR;
        right(write_do(write, map) == ODM_OK, "write %zu", i);
        if (i + 1 == SYNCED) right(odm_sync(map, NULL) == ODM_OK, "the sync");
    }
    right(odm_close(map) == ODM_OK, "the base");
    base.image = image_take(scratch_map_path());
    const struct meta_fixed *fixed = (const void *)image_find(&base.image, "meta")->bytes;
    base.seed = fixed->seed;
    memcpy(base.map_id, fixed->map_id, sizeof base.map_id);
    scratch_end();
}

static struct image copy_of_base(void)
{
    struct image copy = base.image;
    copy.files = calloc(base.image.count, sizeof *copy.files);
    right(copy.files != NULL, "memory");
    for (size_t i = 0; i < base.image.count; ++i) {
        const struct image_file *file = &base.image.files[i];
        copy.files[i] = *file;
        copy.files[i].bytes = malloc(file->size + 1);
        right(copy.files[i].bytes != NULL, "memory");
        memcpy(copy.files[i].bytes, file->bytes, file->size);
    }
    return copy;
}

/* ---- edits ----------------------------------------------------------------------------------------------------------- */

static struct trial {
    struct input input;
    enum damaged damaged;
    struct image image;
    bool forged; // a check was made right for what it should refuse
    bool roomy;  // besides, `meta` asks for other room than the base did
} trial;

static bool in_log(const struct image_file *file)
{
    return strncmp(file->name, "log/", 4) == 0;
}

/* The file that an edit is of; NULL if it is gone. */
static struct image_file *next_file(void)
{
    static const char *const names[] = {[DAMAGED_INDEX] = "index", [DAMAGED_META] = "meta", [DAMAGED_LOCK] = "lock"};
    if (trial.damaged != DAMAGED_LOG) return image_find(&trial.image, names[trial.damaged]);
    unsigned nth = input_byte(&trial.input) % 8;
    struct image_file *found = NULL;
    for (size_t i = 0; i < trial.image.count; ++i) {
        if (!in_log(&trial.image.files[i])) continue;
        found = &trial.image.files[i];
        if (nth-- == 0) break;
    }
    return found;
}

static uint64_t number_of(const struct image_file *file)
{
    return strtoull(file->name + 4, NULL, 10);
}

static uint64_t next_offset(const struct image_file *file, uint64_t unit, uint64_t size)
{
    uint64_t offset = input_number(&trial.input, 2) * unit;
    return file->size <= size ? 0 : offset % (file->size - size);
}

/* Writes a record whose checks are right, whatever it says. */
static void forge_record(struct image_file *file)
{
    uint64_t offset = next_offset(file, 8, RECORD_HEADER_SIZE + 512) / 8 * 8;
    if (offset < SEGMENT_HEADER_SIZE || file->size < offset + RECORD_HEADER_SIZE + 512) return;
    unsigned kind = input_byte(&trial.input), key_kind = input_byte(&trial.input);
    uint32_t key_size = key_kind < 200 ? key_kind : (uint32_t)input_number(&trial.input, 3);
    uint32_t value_size = (uint32_t)input_number(&trial.input, 1 + kind / 64);
    uint64_t lsn = input_number(&trial.input, 8);
    uint64_t address = number_of(file) << ADDRESS_OFFSET_BITS | offset / 8;
    if (lsn == 0) lsn = address;
    kind %= 8;
    uint64_t room = file->size - offset - RECORD_HEADER_SIZE;
    bool fits = padded(key_size) <= room && padded(value_size) <= room - padded(key_size);
    unsigned char *key = file->bytes + offset + RECORD_HEADER_SIZE;
    uint32_t word = key_size | (uint32_t)kind << 24;
    uint32_t check_b = fits ? check_value(key + padded(key_size), value_size, base.seed, address) : 0;
    uint64_t first = kind >= RECORD_FILLER
                         ? (uint64_t)word << 32 | check_header(word, value_size, 0, lsn, NULL, 0, base.seed, address)
                         : (uint64_t)word << 32 | check_header(word, value_size, check_b, lsn, key, fits ? key_size : 0,
                                                               base.seed, address);
    struct record_header header = {.value_size = value_size, .check_b = check_b, .lsn = lsn};
    atomic_store(&header.first, first);
    memcpy(file->bytes + offset, &header, sizeof header);
    trial.forged = true;
}

static void forge_segment_header(struct image_file *file)
{
    if (file->size < SEGMENT_HEADER_SIZE) return;
    struct segment_header header;
    memcpy(&header, file->bytes, sizeof header);
    unsigned what = input_byte(&trial.input);
    if ((what & 1) != 0) header.predecessor_end = input_number(&trial.input, 8);
    if ((what & 2) != 0) {
        header.predecessor_end =
            (number_of(file) - 1 - what / 16) << ADDRESS_OFFSET_BITS | input_number(&trial.input, 2);
    }
    if ((what & 4) != 0) header.position = input_number(&trial.input, 8);
    header.magic = SEGMENT_MAGIC;
    header.number = number_of(file);
    header.size = file->size;
    memcpy(header.map_id, base.map_id, sizeof header.map_id);
    atomic_store(&header.check, check_bytes(&header, offsetof(struct segment_header, check), base.seed));
    memcpy(file->bytes, &header, sizeof header);
    trial.forged = true;
}

static void forge_meta(void)
{
    struct image_file *file = image_find(&trial.image, "meta");
    if (file == NULL || file->size < META_SIZE) return;
    unsigned what = input_byte(&trial.input);
    if (what % 4 == 0 && trial.damaged == DAMAGED_META) {
        struct meta_fixed fixed;
        memcpy(&fixed, file->bytes, sizeof fixed);
        trial.roomy |= fixed.capacity_bytes != 0;
        fixed.check = check_bytes(&fixed, offsetof(struct meta_fixed, check), 0);
        memcpy(file->bytes, &fixed, sizeof fixed);
    } else {
        struct meta_slot slot;
        unsigned char *at = file->bytes + ((what & 4) != 0 ? META_SLOT_OFFSET_0 : META_SLOT_OFFSET_1);
        memcpy(&slot, at, sizeof slot);
        if ((what & 8) != 0) slot.head = input_number(&trial.input, 8);
        if ((what & 16) != 0) slot.watermark = input_number(&trial.input, 8);
        if ((what & 32) != 0) slot.sequence = input_number(&trial.input, 8);
        if ((what & 64) != 0) slot.stamp[0] = slot.stamp[1] = input_number(&trial.input, 8);
        slot.check = check_bytes(&slot, offsetof(struct meta_slot, check), base.seed);
        memcpy(at, &slot, sizeof slot);
    }
    trial.forged = true;
}

/* What the lock file says, and a directory word or a slot of the index, are believed as they are. */
static void set_field(struct image_file *file)
{
    unsigned what = input_byte(&trial.input);
    uint64_t value = input_number(&trial.input, 8);
    static const uint16_t lock_fields[] = {offsetof(struct lock_file, next_number),
                                           offsetof(struct lock_file, spare),
                                           offsetof(struct lock_file, spare) + 8,
                                           offsetof(struct lock_file, tail),
                                           offsetof(struct lock_file, intents),
                                           offsetof(struct lock_file, intents) + 8,
                                           offsetof(struct lock_file, stripes),
                                           offsetof(struct lock_file, append),
                                           offsetof(struct lock_file, grow),
                                           offsetof(struct lock_file, sync),
                                           offsetof(struct lock_file, intents) + CACHE_LINE,
                                           offsetof(struct lock_file, intents) + CACHE_LINE + 8,
                                           offsetof(struct lock_file, stripes) + 8,
                                           offsetof(struct lock_file, append) + 8};
    static const uint16_t index_fields[] = {offsetof(struct index_header, size),
                                            offsetof(struct index_header, next),
                                            offsetof(struct index_header, head),
                                            offsetof(struct index_header, recycled),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, root),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, count),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, spare),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, spare_directory),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, change.kind),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, change.first),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, change.old),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, change.left),
                                            INDEX_STRIPES_OFFSET + offsetof(struct stripe, change.right)};
    uint64_t offset = trial.damaged == DAMAGED_LOCK    ? lock_fields[what % (sizeof lock_fields / 2)]
                      : trial.damaged == DAMAGED_INDEX ? index_fields[what % (sizeof index_fields / 2)]
                                                       : next_offset(file, 8, 8);
    if (file->size >= offset + 8) memcpy(file->bytes + offset, &value, 8);
}

static void edit(void)
{
    unsigned kind = input_byte(&trial.input);
    struct image_file *file = next_file();
    if (file == NULL || file->size == 0) return;
    uint64_t offset, size, from;
    unsigned char *bytes;
    switch (kind % 12) {
        case 0: // some bytes
        case 1:
            size = 1 + kind / 12 % 16;
            offset = next_offset(file, 1, size);
            for (uint64_t i = 0; i < size && offset + i < file->size; ++i)
                file->bytes[offset + i] = (unsigned char)input_byte(&trial.input);
            break;
        case 2: // a bit
            offset = next_offset(file, 1, 1);
            file->bytes[offset] ^= (unsigned char)(1U << kind / 12 % 8);
            break;
        case 3: // a stretch of one byte
            offset = next_offset(file, 8, 1);
            size = input_number(&trial.input, 2);
            if (size > file->size - offset) size = file->size - offset;
            memset(file->bytes + offset, kind / 12 % 2 == 0 ? 0 : (int)input_byte(&trial.input), size);
            break;
        case 4: // a stretch from elsewhere in it
            from = next_offset(file, 8, 1);
            offset = next_offset(file, 8, 1);
            size = input_number(&trial.input, 2);
            if (size > file->size - offset) size = file->size - offset;
            if (size > file->size - from) size = file->size - from;
            memmove(file->bytes + offset, file->bytes + from, size);
            trial.forged |= trial.damaged == DAMAGED_META; // An old slot is whole.
            break;
        case 5: // another size
            size = input_number(&trial.input, 2) * (kind / 12 % 2 == 0 ? 1 : 64);
            if (size <= FILE_BYTES_MAX) image_resize(file, size);
            break;
        case 6: image_drop(&trial.image, file->name); break;
        case 7: // another file's bytes
            if (trial.damaged == DAMAGED_LOG) {
                struct image_file *other = next_file();
                if (other == NULL || other == file) break;
                image_resize(file, other->size);
                memcpy(file->bytes, other->bytes, other->size);
            } else {
                bytes = file->bytes;
                for (size = file->size; size-- > 0;) bytes[size] = (unsigned char)(size * kind);
            }
            break;
        case 8:
        case 9:
            if (trial.damaged == DAMAGED_LOG) forge_record(file);
            if (trial.damaged == DAMAGED_META) forge_meta();
            if (trial.damaged == DAMAGED_LOCK || trial.damaged == DAMAGED_INDEX) set_field(file);
            break;
        case 10:
            if (trial.damaged == DAMAGED_LOG) forge_segment_header(file);
            if (trial.damaged == DAMAGED_META) forge_meta();
            if (trial.damaged == DAMAGED_LOCK || trial.damaged == DAMAGED_INDEX) set_field(file);
            break;
        default:
            if (trial.damaged == DAMAGED_LOG) forge_meta();
    }
}

/* ---- looking --------------------------------------------------------------------------------------------------------- */

static odm_status fine(odm_status status)
{
    right(strcmp(odm_status_name(status), "unknown status") != 0, "status %d", status);
    return status;
}

static const struct test_write *put_of(uint32_t id, const void *value, size_t size)
{
    for (size_t i = 0; i < WRITES; ++i) {
        const struct test_write *write = &base.writes[i];
        bool same = write->kind == WRITE_PUT && write->id == id && write->size == size;
        if (same && value_has_tag(value, size, write->tag)) return write;
    }
    return NULL;
}

/* What a map shows of the base's keys; a key may be unreadable. */
struct shown {
    const void *value[IDS];
    size_t size[IDS];
    odm_status status[IDS];
};

static void show(odm_map *map, struct shown *shown, bool sure)
{
    for (uint32_t id = 0; id < IDS; ++id) {
        size_t key_size;
        if (id == 11) continue;
        const void *key = key_of_id(id, &key_size);
        odm_status status = fine(odm_get(map, key, key_size, &shown->value[id], &shown->size[id]));
        shown->status[id] = status;
        if (status != ODM_OK) continue;
        uint64_t sum = 0; // Every byte can be read, whatever it is.
        for (size_t i = 0; i < shown->size[id]; ++i) sum += ((const unsigned char *)shown->value[id])[i];
        __asm__ volatile("" : : "r"(sum));
        if (sure) right(put_of(id, shown->value[id], shown->size[id]) != NULL, "key %u has a value nobody put", id);
    }
}

/* A number of writes that explains what is shown, from `from` on; SIZE_MAX if there is none. */
static size_t prefix_of(const struct shown *shown, size_t from)
{
    struct oracle oracle;
    size_t found = SIZE_MAX;
    oracle_init(&oracle, IDS);
    for (size_t n = 0; n <= WRITES && found == SIZE_MAX; ++n) {
        bool same = n >= from;
        for (uint32_t id = 0; id < IDS && same; ++id) {
            const struct oracle_entry *entry = &oracle.entries[id];
            if (id == 11 || shown->status[id] < 0) continue;
            same = entry->present == (shown->status[id] == ODM_OK);
            if (same && entry->present)
                same = shown->size[id] == entry->size && value_has_tag(shown->value[id], entry->size, entry->tag);
        }
        if (same) found = n;
        if (n < WRITES) write_apply(&base.writes[n], &oracle);
    }
    oracle_free(&oracle);
    return found;
}

static void walk_all(odm_map *map)
{
    odm_iter *iter;
    right(fine(odm_iter_open(map, &iter)) == ODM_OK, "iter_open");
    const void *key, *value;
    size_t key_size, size;
    // A damaged index may name a record many times, but not for ever: it has but so many slots.
    for (uint64_t i = 0;; ++i) {
        if (fine(odm_iter_next(iter, &key, &key_size, &value, &size)) != ODM_OK) break;
        right(i < UINT64_C(1) << 24, "a walk without an end");
    }
    (void)fine(odm_iter_close(iter));
}

static void write_some(odm_map *map, bool sure)
{
    for (uint32_t i = 0; i < NEW_IDS + 8; ++i) {
        uint32_t id = i < NEW_IDS ? 2 * IDS + i : i;
        uint64_t tag = 1000 + id;
        uint32_t size = 30 + 40 * (id % 9);
        size_t key_size, size_shown;
        const void *value, *key = key_of_id(id, &key_size);
        odm_status status = fine(odm_put(map, key, key_size, value_of_tag(tag, size), size));
        if (status != ODM_OK) continue;
        status = fine(odm_get(map, key, key_size, &value, &size_shown));
        if (!sure) continue;
        right(status == ODM_OK && size_shown == size && value_has_tag(value, size, tag), "key %u was just put", id);
    }
    for (uint32_t id = 0; id < IDS; id += 7) {
        struct test_write write = {.kind = WRITE_REMOVE, .id = id};
        (void)fine(write_do(&write, map));
    }
}

static odm_map *open_damaged(uint32_t flags)
{
    odm_options options = {.struct_size = sizeof options, .flags = flags | ODM_MUST_EXIST, .wait_ms = 20};
    if ((flags & ODM_READ_ONLY) != 0) options.flags = flags;
    odm_error error = {.struct_size = sizeof error};
    odm_map *map = NULL;
    odm_status status = fine(odm_open(scratch_map_path(), &options, &map, &error));
    right((map != NULL) == (status == ODM_OK), "%s", odm_status_name(status));
    if (status != ODM_OK) right(error.status == status && memchr(error.message, 0, sizeof error.message), "no message");
    return map;
}

struct listing {
    int directory;
    uint64_t bytes;
};

static void add_size(void *context, const char *name)
{
    struct listing *listing = context;
    struct file_identity identity;
    right(odm__os.identify_name(listing->directory, name, &identity) == 0, "%s", name);
    listing->bytes += identity.size;
}

static uint64_t log_file_bytes(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/log", scratch_map_path());
    struct listing listing = {.directory = odm__os.open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0)};
    right(listing.directory >= 0 && odm__os.list(listing.directory, add_size, &listing) == 0, "%s", path);
    odm__os.close(listing.directory);
    return listing.bytes;
}

/* A rebuild, twice: the second shows what the first did, whatever was written is there. */
static void open_after_reboot(bool read_only)
{
    static struct shown first, second;
    bool exact = !trial.forged && trial.damaged == DAMAGED_LOG;
    odm_map *map = open_damaged(ODM_VERIFY_READS | (read_only ? (uint32_t)ODM_READ_ONLY : 0));
    if (map == NULL) return;
    show(map, &first, !trial.forged);
    size_t n = exact ? prefix_of(&first, SYNCED) : 0;
    right(n != SIZE_MAX, "what is shown is no prefix of the writes");
    walk_all(map);
    odm_statistics statistics = {.struct_size = sizeof statistics};
    (void)fine(odm_stat(map, &statistics));
    uint64_t bytes = log_file_bytes(); // Nor are files made of any size because a file says so.
    right(bytes <= 1 << 20 || trial.roomy, "log/ has %llu bytes", (unsigned long long)bytes);
    (void)fine(odm_close(map)); // The stamp may fail.
    if (read_only) return;

    lie_about_boot(3);
    map = open_damaged(ODM_VERIFY_READS);
    if (trial.forged) {
        if (map == NULL) return;
    } else {
        right(map != NULL, "opened once, and not again");
    }
    show(map, &second, !trial.forged);
    for (uint32_t id = 0; id < IDS && exact; ++id)
        right(second.status[id] == first.status[id] || id == 11, "key %u was %s, is %s", id,
              odm_status_name(first.status[id]), odm_status_name(second.status[id]));
    right(!exact || prefix_of(&second, n) != SIZE_MAX, "what was shown once is shown no more");
    write_some(map, exact);
    walk_all(map);
    odm_report report = {.struct_size = sizeof report};
    (void)fine(odm_verify(map, &report, NULL, NULL));
    odm_status compacted = fine(odm_compact(map, NULL, NULL));
    walk_all(map);
    right(!exact || compacted == ODM_OK || compacted == ODM_E_CORRUPT, "compact: %s", odm_status_name(compacted));
    (void)fine(odm_sync(map, NULL));
    (void)fine(odm_close(map)); // The stamp may fail.
}

/* The files as they are, believed. */
static void open_trusted(uint32_t flags)
{
    static struct shown shown;
    bool sure = (flags & ODM_VERIFY_READS) != 0 && !trial.forged;
    for (int turn = 0; turn < 2; ++turn) {
        odm_map *map = open_damaged(flags);
        if (map == NULL) return;
        show(map, &shown, sure && turn == 0);
        walk_all(map);
        odm_statistics statistics = {.struct_size = sizeof statistics};
        (void)fine(odm_stat(map, &statistics));
        (void)odm_count(map);
        if ((flags & ODM_READ_ONLY) == 0) write_some(map, false);
        (void)fine(odm_refresh(map));
        show(map, &shown, false);
        (void)fine(odm_sync(map, NULL));
        odm_report report = {.struct_size = sizeof report};
        (void)fine(odm_verify(map, &report, NULL, NULL));
        if (turn == 0) (void)fine(odm_compact(map, NULL, NULL));
        if (turn == 1) (void)fine(odm_clear(map, NULL));
        (void)fine(odm_close(map)); // The stamp may fail.
    }
}

int damage_try(enum damaged damaged, const uint8_t *bytes, size_t size)
{
    scratch_begin();
    lie_about_syncs();
    lie_about_boot(1);
    make_base();
    memset(&trial, 0, sizeof trial);
    trial.input = (struct input){bytes, size};
    trial.damaged = damaged;
    trial.image = copy_of_base();
    unsigned how = input_byte(&trial.input);
    for (int i = 0; i < EDITS_MAX && trial.input.left > 0; ++i) edit();

    bool reboot = damaged == DAMAGED_LOG ? how % 4 != 3 : how % 4 == 3;
    if (reboot) { // Nobody looks at these.
        image_drop(&trial.image, "index");
        image_drop(&trial.image, "lock");
    }
    image_write(&trial.image, scratch_map_path());
    if (reboot) {
        lie_about_boot(2);
        open_after_reboot((how & 4) != 0);
    } else {
        lie_about_files(&base.image, scratch_map_path());
        if (how % 4 == 2) lie_about_mount(9); // The log must bear out what the lock file says.
        open_trusted(((how & 8) != 0 ? (uint32_t)ODM_VERIFY_READS : 0) |
                     ((how & 4) != 0 ? (uint32_t)ODM_READ_ONLY : 0));
        lie_about_mount(0);
    }
    image_free(&trial.image);
    scratch_end();
    return 0;
}
