/* operations.c - fuzz target: operations on a map and on a model of it.
 *
 * The input is a list of operations with their arguments. Every answer must be the model's, every slice must stay as it is
 * until its handle is refreshed, and in the end the map must hold what the model holds by every way of reading it. The first
 * byte chooses stripes, how much of the hash counts (so that keys collide), and whether the map lies in memory or in files;
 * there it may be closed and opened again: with nothing to do, on another mount, after a reboot.
 */
#include <string.h>

#include "fuzz.h"
#include "hash.h"
#include "image.h"
#include "oracle.h"
#include "scratch.h"

enum { IDS = 64, HANDLES = 2, HELD_MAX = 12, OPERATIONS_MAX = 400, REOPENS_MAX = 4, BATCH_MAX = 8 };

static struct run {
    struct input input;
    const char *path; // NULL: in memory
    uint32_t stripes;
    uint64_t boot, mount;
    unsigned reopens;
    odm_map *maps[HANDLES];
    odm_iter *iters[HANDLES];
    struct oracle oracle;
    uint64_t next_tag;
    struct held {
        unsigned handle;
        const void *value;
        uint64_t tag;
        uint32_t size;
    } held[HELD_MAX];
    size_t held_count;
} run;

static const char *last_message(odm_map *map)
{
    static odm_error error;
    error.struct_size = sizeof error;
    return odm_last_error(map, &error) == ODM_OK ? error.message : "";
}

#define right_status(map, call, expected)                                                                    \
    do {                                                                                                     \
        odm_status status_is = (call);                                                                       \
        right(status_is == (expected), "%s, %s; expected %s", odm_status_name(status_is), last_message(map), \
              odm_status_name(expected));                                                                    \
    } while (0)

static uint32_t next_id(void)
{
    uint32_t id = input_byte(&run.input) % IDS;
    return id == 11 ? 12 : id; // Key 11 has 100 KiB.
}

static uint32_t next_size(void)
{
    static const uint32_t sizes[] = {0, 1, 7, 8, 9, 24, 100, 300, 1000, 3000, 4095, 9000};
    unsigned byte = input_byte(&run.input);
    return byte < 200 ? byte : sizes[byte % (sizeof sizes / sizeof sizes[0])];
}

/* ---- slices that were lent ---------------------------------------------------------------------------------------- */

static void check_held(unsigned handle, bool drop)
{
    size_t kept = 0;
    for (size_t i = 0; i < run.held_count; ++i) {
        struct held held = run.held[i];
        if (held.handle == handle) right(value_has_tag(held.value, held.size, held.tag), "a slice has changed");
        if (!drop || held.handle != handle) run.held[kept++] = held;
    }
    run.held_count = kept;
}

static void hold(unsigned handle, const void *value, const struct oracle_entry *entry)
{
    if (run.held_count == HELD_MAX) return;
    run.held[run.held_count++] = (struct held){handle, value, entry->tag, entry->size};
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

static void open_map(void)
{
    odm_options options = {.struct_size = sizeof options, .stripes = run.stripes, .wait_ms = 1000};
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_open(run.path, &options, &run.maps[0], &error);
    right(status == ODM_OK, "open: %s, %s", odm_status_name(status), error.message);
    right_status(run.maps[0], odm_dup(run.maps[0], &run.maps[1], NULL), ODM_OK);
}

static void close_map(void)
{
    for (unsigned i = 0; i < HANDLES; ++i) {
        check_held(i, true);
        right_status(run.maps[i], odm_close(run.maps[i]), ODM_OK);
        if (run.iters[i] != NULL) {
            right(odm_iter_next(run.iters[i], NULL, NULL, NULL, NULL) == ODM_E_INVALID, "an orphan goes on");
            (void)odm_iter_close(run.iters[i]);
        }
        run.iters[i] = NULL;
    }
}

static void reopen(unsigned how)
{
    if (run.path == NULL || ++run.reopens > REOPENS_MAX) return; // They take long.
    close_map();
    if (how % 3 == 1) lie_about_mount(++run.mount);
    if (how % 3 == 2) lie_about_boot(++run.boot);
    open_map();
    odm_statistics statistics = {.struct_size = sizeof statistics};
    right_status(run.maps[0], odm_stat(run.maps[0], &statistics), ODM_OK);
    right(statistics.recovery_bytes_cut == 0, "something was cut");
}

/* ---- operations ---------------------------------------------------------------------------------------------------- */

static void get(unsigned handle, bool keep)
{
    uint32_t id = next_id();
    const struct oracle_entry *entry = &run.oracle.entries[id];
    size_t key_size, size = 0;
    const void *value = NULL, *key = key_of_id(id, &key_size);
    right_status(run.maps[handle], odm_get(run.maps[handle], key, key_size, &value, &size),
                 entry->present ? ODM_OK : ODM_NOT_FOUND);
    if (!entry->present) return;
    right(size == entry->size && value_has_tag(value, size, entry->tag), "key %u has another value", id);
    right((uintptr_t)value % 8 == 0, "key %u: not aligned", id);
    if (keep) hold(handle, value, entry);
}

static void put(unsigned handle)
{
    uint32_t id = next_id(), size = next_size();
    size_t key_size;
    const void *key = key_of_id(id, &key_size);
    uint64_t tag = ++run.next_tag;
    right_status(run.maps[handle], odm_put(run.maps[handle], key, key_size, value_of_tag(tag, size), size), ODM_OK);
    oracle_put(&run.oracle, id, tag, size);
}

static void put_own_slice(unsigned handle)
{
    uint32_t from = next_id(), to = next_id();
    const struct oracle_entry entry = run.oracle.entries[from];
    size_t key_size, size;
    const void *value, *key = key_of_id(from, &key_size);
    if (odm_get(run.maps[handle], key, key_size, &value, &size) != ODM_OK) return;
    key = key_of_id(to, &key_size);
    right_status(run.maps[handle], odm_put(run.maps[handle], key, key_size, value, size), ODM_OK);
    oracle_put(&run.oracle, to, entry.tag, entry.size);
}

static void remove_key(unsigned handle)
{
    uint32_t id = next_id();
    size_t key_size;
    const void *key = key_of_id(id, &key_size);
    right_status(run.maps[handle], odm_remove(run.maps[handle], key, key_size),
                 run.oracle.entries[id].present ? ODM_OK : ODM_NOT_FOUND);
    oracle_remove(&run.oracle, id);
}

static void use_entry(unsigned handle, unsigned what)
{
    uint32_t id = next_id(), size = next_size();
    odm_map *map = run.maps[handle];
    bool present = run.oracle.entries[id].present;
    size_t key_size;
    const void *key = key_of_id(id, &key_size);
    uint64_t version = 1, tag = ++run.next_tag;
    right_status(map, odm_entry_get(map, key, key_size, NULL, NULL, &version), present ? ODM_OK : ODM_NOT_FOUND);
    right((version != 0) == present, "version %llu", (unsigned long long)version);
    const void *value = value_of_tag(tag, size);
    switch (what % 4) {
        case 0:
            right_status(map, odm_entry_put(map, key, key_size, value, size, version), ODM_OK);
            oracle_put(&run.oracle, id, tag, size);
            break;
        case 1: // A version that is not the key's.
            right_status(map, odm_entry_put(map, key, key_size, value, size, version + 8), ODM_CONFLICT);
            break;
        case 2:
            right_status(map, odm_entry_put(map, key, key_size, value, size, 0), present ? ODM_EXISTS : ODM_OK);
            if (!present) oracle_put(&run.oracle, id, tag, size);
            break;
        default:
            right_status(map, odm_entry_remove(map, key, key_size, version), present ? ODM_OK : ODM_E_INVALID);
            oracle_remove(&run.oracle, id);
    }
}

static void write_many(unsigned handle)
{
    static unsigned char keys[BATCH_MAX * 5000], values[BATCH_MAX * 10000];
    uint64_t key_ends[BATCH_MAX], value_ends[BATCH_MAX];
    uint8_t ops[BATCH_MAX], outcomes[BATCH_MAX], expected[BATCH_MAX];
    size_t count = input_byte(&run.input) % (BATCH_MAX + 1), n = count, keys_end = 0, values_end = 0;
    for (size_t i = 0; i < count; ++i) {
        uint32_t id = next_id(), size = next_size();
        bool present = run.oracle.entries[id].present;
        uint64_t tag = ++run.next_tag;
        size_t key_size;
        const void *key = key_of_id(id, &key_size);
        ops[i] = (uint8_t)(input_byte(&run.input) % 3);
        if (ops[i] == ODM_OP_REMOVE) size = 0;
        memcpy(keys + keys_end, key, key_size);
        memcpy(values + values_end, value_of_tag(tag, size), size);
        key_ends[i] = keys_end += key_size;
        value_ends[i] = values_end += size;
        expected[i] = ODM_OK;
        if (ops[i] == ODM_OP_INSERT && present) expected[i] = ODM_EXISTS;
        if (ops[i] == ODM_OP_REMOVE && !present) expected[i] = ODM_NOT_FOUND;
        if (expected[i] != ODM_OK) continue;
        if (ops[i] == ODM_OP_REMOVE) oracle_remove(&run.oracle, id);
        if (ops[i] != ODM_OP_REMOVE) oracle_put(&run.oracle, id, tag, size);
    }
    right_status(run.maps[handle],
                 odm_write_many(run.maps[handle], &n, ops, keys, key_ends, values, value_ends, outcomes), ODM_OK);
    right(n == count && memcmp(outcomes, expected, count) == 0, "%zu of %zu", n, count);
}

static void get_many(unsigned handle)
{
    static unsigned char keys[BATCH_MAX * 5000];
    uint64_t ends[BATCH_MAX], sizes[BATCH_MAX];
    const void *values[BATCH_MAX];
    uint32_t ids[BATCH_MAX];
    size_t count = input_byte(&run.input) % (BATCH_MAX + 1), n = count, end = 0;
    for (size_t i = 0; i < count; ++i) {
        size_t key_size;
        ids[i] = next_id();
        const void *key = key_of_id(ids[i], &key_size);
        memcpy(keys + end, key, key_size);
        ends[i] = end += key_size;
    }
    right_status(run.maps[handle], odm_get_many(run.maps[handle], &n, keys, ends, values, sizes), ODM_OK);
    right(n == count, "%zu of %zu", n, count);
    for (size_t i = 0; i < count; ++i) {
        const struct oracle_entry *entry = &run.oracle.entries[ids[i]];
        right(sizes[i] == (entry->present ? entry->size : ODM_ABSENT), "key %u has another size", ids[i]);
        if (!entry->present) continue;
        right(value_has_tag(values[i], entry->size, entry->tag), "key %u has another value", ids[i]);
        hold(handle, values[i], entry);
    }
}

static void walk(unsigned handle, unsigned what)
{
    odm_map *map = run.maps[handle];
    if (run.iters[handle] == NULL) right_status(map, odm_iter_open(map, &run.iters[handle]), ODM_OK);
    odm_iter *iter = run.iters[handle];
    uint64_t position;
    if (what % 8 == 0) {
        right_status(map, odm_iter_close(iter), ODM_OK);
        run.iters[handle] = NULL;
        return;
    }
    if (what % 8 == 1) {
        right_status(map, odm_iter_position(iter, &position), ODM_OK);
        if ((what & 8) != 0) position = input_number(&run.input, 8);
        right_status(map, odm_iter_seek(iter, position), ODM_OK);
    }
    for (unsigned i = 0; i < what / 8; ++i) {
        const void *key, *value;
        size_t key_size, size;
        odm_status status = odm_iter_next(iter, &key, &key_size, &value, &size);
        if (status == ODM_DONE) return;
        right_status(map, status, ODM_OK);
        uint32_t id = id_of_key(key, key_size);
        right(id < IDS && run.oracle.entries[id].present, "a walk gave key %u", id);
        const struct oracle_entry *entry = &run.oracle.entries[id];
        right(size == entry->size && value_has_tag(value, size, entry->tag), "a walk gave another value for %u", id);
        if (what % 8 == 7) { // The key lies in the map itself.
            right_status(map, odm_remove(map, key, key_size), ODM_OK);
            oracle_remove(&run.oracle, id);
        }
    }
}

static void verify(unsigned handle)
{
    odm_report report = {.struct_size = sizeof report};
    right_status(run.maps[handle], odm_verify(run.maps[handle], &report, NULL, NULL), ODM_OK);
    right(report.bad_records == 0 && report.bad_slots == 0, "%llu bad records, %llu bad slots",
          (unsigned long long)report.bad_records, (unsigned long long)report.bad_slots);
}

static void operate(void)
{
    unsigned code = input_byte(&run.input), handle = code >> 7, what = code >> 4 & 7;
    switch (code & 15) {
        case 0:
        case 1:
        case 2:
        case 3: put(handle); break;
        case 4: get(handle, true); break;
        case 5: get(handle, false); break;
        case 6:
        case 7: remove_key(handle); break;
        case 8: use_entry(handle, what); break;
        case 9: write_many(handle); break;
        case 10: get_many(handle); break;
        case 11: walk(handle, input_byte(&run.input)); break;
        case 12:
            check_held(handle, true);
            right_status(run.maps[handle], odm_refresh(run.maps[handle]), ODM_OK);
            break;
        case 13: put_own_slice(handle); break;
        case 14:
            if (what > 3) {
                right_status(run.maps[handle], odm_sync(run.maps[handle], NULL), ODM_OK);
                break;
            }
            if (what > 1) {
                right_status(run.maps[handle], odm_compact(run.maps[handle], NULL, NULL), ODM_OK);
                break;
            }
            if (what == 1) {
                verify(handle);
                break;
            }
            right_status(run.maps[handle], odm_clear(run.maps[handle], NULL), ODM_OK);
            oracle_clear(&run.oracle);
            break;
        default: reopen(what);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const uint64_t masks[] = {UINT64_MAX, ~(UINT64_C(0xffff) << 12), ~UINT64_C(0x3f),
                                     ~UINT64_C(0xff00000000000fff)};
    scratch_begin();
    lie_about_syncs();
    memset(&run, 0, sizeof run);
    run.input = (struct input){bytes, size};
    unsigned shape = input_byte(&run.input);
    run.stripes = 1U << shape % 4;
    run.path = (shape & 64) != 0 ? scratch_map_path() : NULL;
    odm__test_hash_mask = masks[shape >> 2 & 3];
    oracle_init(&run.oracle, IDS);
    lie_about_boot(run.boot = 1);
    lie_about_mount(run.mount = 1);
    open_map();
    for (int i = 0; i < OPERATIONS_MAX && run.input.left > 0; ++i) operate();
    const char *why = oracle_mismatch(&run.oracle, run.maps[run.stripes % HANDLES]);
    right(why == NULL, "%s", why);
    verify(0);
    close_map();
    oracle_free(&run.oracle);
    odm__test_hash_mask = UINT64_MAX;
    scratch_end();
    return 0;
}
