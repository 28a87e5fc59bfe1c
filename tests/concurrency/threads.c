/* threads.c - many threads of one process on one map, a handle each.
 *
 * The other files of this folder kill and stop processes; here everybody lives, and the question is what threads see of each
 * other: every get a value that was current during the call, no write lost, walks that miss nothing. ThreadSanitizer watches
 * in the preset tsan.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "map.h"
#include "proof.h"
#include "support.h"

TestSuite(threads, .fini = remove_temp_directories, .timeout = 300);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EFFORT = 1 };
#else
enum { EFFORT = 8 };
#endif

/* What a failing thread does: a Criterion assertion belongs to the thread of the test. */
#define must_in_thread(condition, ...)                      \
    do {                                                    \
        if (!(condition)) {                                 \
            fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
            fprintf(stderr, __VA_ARGS__);                   \
            fputc('\n', stderr);                            \
            abort();                                        \
        }                                                   \
    } while (0)

static odm_map *dup_of(odm_map *map)
{
    odm_map *dup = NULL;
    must_in_thread(odm_dup(map, &dup, NULL) == ODM_OK, "dup");
    return dup;
}

/* For what must succeed. */
static void must_be_ok(odm_map *map, odm_status status, const char *what)
{
    odm_error error = {.struct_size = sizeof error};
    odm_last_error(map, &error);
    must_in_thread(status == ODM_OK, "%s: %s, %s", what, odm_status_name(status), error.message);
}

static uint64_t next_random(uint64_t *state)
{
    return proof_mix(++*state, 99);
}

/* ---- no increment is lost ---------------------------------------------------------------------------------------- */

enum { COUNTERS = 4, COUNTER_THREADS = 4, INCREMENTS = 2000 * EFFORT };

struct counting {
    odm_map *map;
    _Atomic uint64_t conflicts;
};

static void count_up(void *context, unsigned number)
{
    struct counting *counting = context;
    odm_map *map = dup_of(counting->map);
    uint64_t random = number;
    for (int i = 0; i < INCREMENTS; ++i) {
        uint32_t key = i % COUNTERS;
        for (;;) {
            const void *value;
            size_t size;
            uint64_t version, sum = 0;
            odm_status status = odm_entry_get(map, &key, sizeof key, &value, &size, &version);
            must_in_thread(status >= 0, "get: %s", odm_status_name(status));
            if (status == ODM_OK) memcpy(&sum, value, sizeof sum);
            must_in_thread((status == ODM_NOT_FOUND) == (version == 0), "a version of %d", (int)version);
            ++sum;
            status = odm_entry_put(map, &key, sizeof key, &sum, sizeof sum, version);
            if (status == ODM_OK) break;
            must_in_thread(status == (version == 0 ? ODM_EXISTS : ODM_CONFLICT), "put: %s", odm_status_name(status));
            atomic_fetch_add(&counting->conflicts, 1);
        }
        if (next_random(&random) % 64 == 0) odm_refresh(map);
    }
    odm_close(map);
}

static void count_with(uint32_t stripes)
{
    struct counting counting = {.map = open_map(temp_map_path(), .stripes = stripes)};
    run_threads(COUNTER_THREADS, count_up, &counting);
    for (uint32_t key = 0; key < COUNTERS; ++key) {
        const void *value;
        size_t size;
        uint64_t sum;
        ok(odm_get(counting.map, &key, sizeof key, &value, &size));
        memcpy(&sum, value, sizeof sum);
        cr_assert_eq(sum, COUNTER_THREADS * INCREMENTS / COUNTERS, "a counter is %llu", (unsigned long long)sum);
    }
    cr_assert_eq(odm_count(counting.map), COUNTERS);
    odm_close(counting.map);
}

/* odm_entry_put writes only if nothing changed: of increments by compare-and-swap none is lost and none is done twice.
 * Method: threads raise a few counters together; the sums must be exact. */
Test(threads, lose_no_increment_of_a_counter)
{
    count_with(1);
    count_with(2);
    count_with(16);
}

/* ---- a register is linearizable ------------------------------------------------------------------------------------ */

enum { REGISTERS = 6, REGISTER_WRITERS = 2, REGISTER_READERS = 2, REGISTER_WRITES = 10000 * EFFORT };

struct registers {
    odm_map *map;
    _Atomic uint64_t started[REGISTERS];
    _Atomic uint64_t returned[REGISTERS];
    _Atomic unsigned writers_left;
    bool removes;
};

/* Every eighth write is a remove, if there are any. */
static bool is_remove(const struct registers *registers, uint64_t sequence)
{
    return registers->removes && sequence % 8 == 0;
}

static void write_registers(struct registers *registers, odm_map *map, unsigned number)
{
    unsigned char key[PROOF_KEY_MAX];
    static _Thread_local unsigned char value[PROOF_VALUE_MAX];
    for (uint64_t i = 0; i < REGISTER_WRITES; ++i) {
        uint32_t which = (uint32_t)(i % (REGISTERS / REGISTER_WRITERS)) * REGISTER_WRITERS + number;
        uint64_t sequence = atomic_load(&registers->started[which]) + 1;
        size_t key_size = proof_key(which, key);
        atomic_store(&registers->started[which], sequence);
        odm_status status = is_remove(registers, sequence)
                                ? odm_remove(map, key, key_size)
                                : odm_put(map, key, key_size, value, proof_value(which, sequence, value));
        must_in_thread(status == ODM_OK, "write: %s", odm_status_name(status));
        atomic_store(&registers->returned[which], sequence);
    }
    atomic_fetch_sub(&registers->writers_left, 1);
}

static void read_registers(struct registers *registers, odm_map *map, unsigned number)
{
    unsigned char key[PROOF_KEY_MAX];
    uint64_t last[REGISTERS] = {0}, random = number;
    bool gone[REGISTERS] = {false};
    while (atomic_load(&registers->writers_left) > 0) {
        uint32_t which = (uint32_t)(next_random(&random) % REGISTERS);
        const void *value = NULL;
        size_t size = 0;
        uint64_t returned = atomic_load(&registers->returned[which]);
        odm_status status = odm_get(map, key, proof_key(which, key), &value, &size);
        must_in_thread(status >= 0, "get: %s", odm_status_name(status));
        uint64_t sequence = 0, started;
        if (status == ODM_OK) {
            must_in_thread(proof_read(which, value, size, &sequence), "a torn or foreign value");
            started = atomic_load(&registers->started[which]);
            must_in_thread(sequence >= returned && sequence <= started && !is_remove(registers, sequence),
                           "write %llu seen, %llu had returned", (unsigned long long)sequence,
                           (unsigned long long)returned);
            must_in_thread(sequence > last[which] || (sequence == last[which] && !gone[which]), "a key went back");
            last[which] = sequence;
            gone[which] = false;
        } else if (returned != 0) {
            started = atomic_load(&registers->started[which]);
            bool removed = false;
            for (uint64_t i = returned; i <= started && i < returned + 8; ++i) removed |= is_remove(registers, i);
            must_in_thread(removed, "a key is gone, write %llu had returned", (unsigned long long)returned);
            gone[which] = true;
        }
        if (next_random(&random) % 16 == 0) odm_refresh(map);
    }
}

static void use_registers(void *context, unsigned number)
{
    struct registers *registers = context;
    odm_map *map = dup_of(registers->map);
    if (number < REGISTER_WRITERS)
        write_registers(registers, map, number);
    else
        read_registers(registers, map, number);
    odm_close(map);
}

static void try_registers(uint32_t stripes, bool removes)
{
    struct registers registers = {
        .map = open_map(temp_map_path(), .stripes = stripes), .writers_left = REGISTER_WRITERS, .removes = removes};
    run_threads(REGISTER_WRITERS + REGISTER_READERS, use_registers, &registers);
    odm_close(registers.map);
}

/* Each get returns a value that was current at some moment of the call, and writes of one key are seen in one order.
 * Method: one writer per key counts its writes; readers bracket a get with the numbers of returned and started writes. */
Test(threads, see_each_key_as_a_register)
{
    try_registers(1, false);
    try_registers(16, false);
}

Test(threads, see_removed_keys_gone_and_come_back)
{
    try_registers(1, true);
    try_registers(2, true);
}

/* ---- walks ---------------------------------------------------------------------------------------------------------- */

enum { STAYING = 300, COMING = 3000 * EFFORT, WALKERS = 2, GROWERS = 2 };

struct walking {
    odm_map *map;
    _Atomic unsigned growers_left;
    _Atomic unsigned walks;
};

static void walk_once(odm_map *map, size_t many)
{
    unsigned char times[STAYING] = {0};
    odm_iter *iter;
    must_in_thread(odm_iter_open(map, &iter) == ODM_OK, "iter_open");
    const void *keys[16], *values[16];
    uint64_t key_sizes[16], value_sizes[16];
    for (;;) {
        size_t n = many;
        odm_status status = odm_iter_next_many(iter, &n, keys, key_sizes, values, value_sizes);
        if (status == ODM_DONE) break;
        must_in_thread(status == ODM_OK && n >= 1, "next_many: %s", odm_status_name(status));
        for (size_t i = 0; i < n; ++i) {
            uint32_t number;
            uint64_t sequence;
            must_in_thread(proof_number(keys[i], key_sizes[i], &number), "a key nobody wrote");
            must_in_thread(proof_read(number, values[i], value_sizes[i], &sequence), "a value nobody wrote");
            if (number < STAYING) ++times[number];
        }
    }
    odm_iter_close(iter);
    for (uint32_t i = 0; i < STAYING; ++i) must_in_thread(times[i] == 1, "key %u came %u times", i, times[i]);
}

static void walk_or_grow(void *context, unsigned number)
{
    struct walking *walking = context;
    odm_map *map = dup_of(walking->map);
    unsigned char key[PROOF_KEY_MAX];
    static _Thread_local unsigned char value[PROOF_VALUE_MAX];
    if (number < WALKERS) {
        while (atomic_load(&walking->growers_left) > 0) {
            walk_once(map, number == 0 ? 1 : 16);
            odm_refresh(map);
            atomic_fetch_add(&walking->walks, 1);
        }
    } else {
        for (uint32_t i = 0; i < COMING; ++i) {
            // New keys split chunks; keys that stay are updated; keys that came are removed again, which leaves tombstones.
            uint32_t coming = STAYING + i * GROWERS + number;
            uint32_t staying = (uint32_t)proof_mix(i, number) % (STAYING / GROWERS) * GROWERS + number % GROWERS;
            size_t key_size = proof_key(coming, key);
            must_be_ok(map, odm_put(map, key, key_size, value, proof_value(coming, 1, value)), "put");
            key_size = proof_key(staying, key);
            must_be_ok(map, odm_put(map, key, key_size, value, proof_value(staying, i, value)), "put");
            if (i % 3 != 0) {
                key_size =
                    proof_key(coming - (i % 3 == 1 ? 0 : 2 * GROWERS), key); // This one, or the one before the last.
                must_be_ok(map, odm_remove(map, key, key_size), "remove");
            }
        }
        atomic_fetch_sub(&walking->growers_left, 1);
    }
    odm_close(map);
}

static void try_walks(uint32_t stripes)
{
    struct walking walking = {.map = open_map(temp_map_path(), .stripes = stripes), .growers_left = GROWERS};
    unsigned char key[PROOF_KEY_MAX];
    static unsigned char value[PROOF_VALUE_MAX];
    for (uint32_t i = 0; i < STAYING; ++i) {
        size_t key_size = proof_key(i, key);
        ok(odm_put(walking.map, key, key_size, value, proof_value(i, 0, value)));
    }
    run_threads(WALKERS + GROWERS, walk_or_grow, &walking);
    cr_assert_gt(statistics_of(walking.map).splits, 10);
    odm_close(walking.map);
}

/* A walk visits every key that is in the map throughout exactly once, whatever is split, updated and removed meanwhile.
 * Method: some keys stay, others come and go in numbers that split every chunk several times; walkers count. */
Test(threads, walk_past_splits_without_missing_a_key)
{
    try_walks(1);
    try_walks(2);
    try_walks(16);
}

/* ---- slices ---------------------------------------------------------------------------------------------------------- */

enum { HELD = 200, HOLDERS = 2 };

struct holding {
    odm_map *map;
    _Atomic unsigned holders_ready;
    _Atomic bool changed;
};

static void hold_or_change(void *context, unsigned number)
{
    struct holding *holding = context;
    odm_map *map = dup_of(holding->map);
    unsigned char key[PROOF_KEY_MAX];
    static _Thread_local unsigned char value[PROOF_VALUE_MAX];
    if (number < HOLDERS) {
        const void *values[HELD];
        size_t sizes[HELD];
        for (uint32_t i = 0; i < HELD; ++i) {
            must_in_thread(odm_get(map, key, proof_key(i, key), &values[i], &sizes[i]) == ODM_OK, "get");
            must_in_thread((uintptr_t)values[i] % 8 == 0, "a slice that is not aligned");
        }
        atomic_fetch_add(&holding->holders_ready, 1);
        while (atomic_load(&holding->holders_ready) < HOLDERS) continue;
        bool over = false;
        while (!over) {
            over = atomic_load(&holding->changed);
            for (uint32_t i = 0; i < HELD; ++i) {
                uint64_t sequence;
                must_in_thread(proof_read(i, values[i], sizes[i], &sequence) && sequence == 0, "a slice has changed");
            }
            // Other uses of the handle end no slice, either.
            size_t key_size = proof_key(7, key);
            if (number == 0) must_be_ok(map, odm_put(map, key, key_size, "x", 1), "put");
            must_in_thread(odm_get(map, key, key_size, NULL, NULL) >= 0, "get");
        }
    } else {
        while (atomic_load(&holding->holders_ready) < HOLDERS) continue;
        for (uint32_t round = 1; round < 10 * EFFORT; ++round) {
            for (uint32_t i = 0; i < HELD; ++i) {
                size_t key_size = proof_key(i, key);
                odm_status status = i % 5 == round % 5
                                        ? odm_remove(map, key, key_size)
                                        : odm_put(map, key, key_size, value, proof_value(i, round, value));
                must_in_thread(status >= 0, "write: %s", odm_status_name(status));
            }
            if (round % 8 == 0) must_be_ok(map, odm_clear(map, NULL), "clear");
        }
        atomic_store(&holding->changed, true);
    }
    odm_close(map);
}

/* The lifetime rule: a slice stays as it is until its handle is refreshed, whatever anybody writes.
 * Method: two handles hold slices of every key, while others overwrite, remove and clear all of them many times. */
Test(threads, keep_their_slices_over_all_changes)
{
    struct holding holding = {.map = open_map(temp_map_path(), .stripes = 2)};
    unsigned char key[PROOF_KEY_MAX];
    static unsigned char value[PROOF_VALUE_MAX];
    for (uint32_t i = 0; i < HELD; ++i) {
        size_t key_size = proof_key(i, key);
        ok(odm_put(holding.map, key, key_size, value, proof_value(i, 0, value)));
    }
    run_threads(HOLDERS + 2, hold_or_change, &holding);
    odm_close(holding.map);
}

/* ---- clear ------------------------------------------------------------------------------------------------------------- */

enum { CLEAR_KEYS = 400, CLEAR_ROUNDS = 40 * EFFORT };

struct clearing {
    odm_map *map;
    _Atomic uint64_t filled;   // rounds whose keys are all there
    _Atomic uint64_t clearing; // rounds whose clear has begun
    _Atomic uint64_t cleared;  // rounds whose clear has returned
};

static void clear_or_get(void *context, unsigned number)
{
    struct clearing *clearing = context;
    odm_map *map = dup_of(clearing->map);
    unsigned char key[PROOF_KEY_MAX];
    static _Thread_local unsigned char value[PROOF_VALUE_MAX];
    if (number == 0) {
        for (uint64_t round = 1; round <= CLEAR_ROUNDS; ++round) {
            for (uint32_t i = 0; i < CLEAR_KEYS; ++i) {
                size_t key_size = proof_key(i, key);
                must_be_ok(map, odm_put(map, key, key_size, value, proof_value(i, round, value)), "put");
            }
            atomic_store(&clearing->filled, round);
            must_in_thread(odm_count(map) == CLEAR_KEYS, "count is %d", (int)odm_count(map));
            atomic_store(&clearing->clearing, round);
            must_be_ok(map, odm_clear(map, NULL), "clear");
            must_in_thread(odm_count(map) == 0, "count is %d after a clear", (int)odm_count(map));
            atomic_store(&clearing->cleared, round);
        }
        odm_close(map);
        return;
    }
    uint64_t random = number;
    while (atomic_load(&clearing->cleared) < CLEAR_ROUNDS) {
        uint32_t i = (uint32_t)(next_random(&random) % CLEAR_KEYS);
        const void *found;
        size_t size;
        uint64_t cleared = atomic_load(&clearing->cleared), filled = atomic_load(&clearing->filled), sequence;
        odm_status status = odm_get(map, key, proof_key(i, key), &found, &size);
        must_in_thread(status >= 0, "get: %s", odm_status_name(status));
        if (status == ODM_OK) {
            must_in_thread(proof_read(i, found, size, &sequence), "a torn or foreign value");
            must_in_thread(sequence > cleared, "round %d, which was cleared", (int)sequence);
        } else if (filled > cleared) {
            // It was there before the call: only the clear that follows can have taken it.
            must_in_thread(atomic_load(&clearing->clearing) >= filled, "a key is gone before its clear");
        }
        if (next_random(&random) % 16 == 0) odm_refresh(map);
    }
    odm_close(map);
}

/* After a clear has returned nothing that was there before it comes back; gets meanwhile see old, new or nothing.
 * Method: one thread fills the map and clears it, round after round; others get, and know the last round cleared. */
Test(threads, see_nothing_of_what_was_cleared)
{
    struct clearing clearing = {.map = open_map(temp_map_path(), .stripes = 4)};
    run_threads(4, clear_or_get, &clearing);
    odm_close(clearing.map);
}

/* ---- everything at once -------------------------------------------------------------------------------------------------- */

enum { MIX_THREADS = 4, MIX_KEYS = 3000, MIX_WRITES = 8000 * EFFORT };

struct mix {
    odm_map *map;
    uint64_t last[MIX_KEYS]; // by the key's own thread
};

static void write_mix(void *context, unsigned number)
{
    struct mix *mix = context;
    odm_map *map = dup_of(mix->map);
    unsigned char key[PROOF_KEY_MAX];
    static _Thread_local unsigned char value[PROOF_VALUE_MAX];
    uint64_t random = number + 1000;
    for (uint64_t i = 1; i <= MIX_WRITES; ++i) {
        uint32_t which = (uint32_t)(next_random(&random) % (MIX_KEYS / MIX_THREADS)) * MIX_THREADS + number;
        size_t key_size = proof_key(which, key);
        if (i % 5 == 0) {
            odm_status status = odm_remove(map, key, key_size);
            must_in_thread(status == (mix->last[which] == 0 ? ODM_NOT_FOUND : ODM_OK), "remove: %s",
                           odm_status_name(status));
            mix->last[which] = 0;
        } else {
            must_be_ok(map, odm_put(map, key, key_size, value, proof_value(which, i, value)), "put");
            mix->last[which] = i;
        }
        if (i % 4096 == 0) must_be_ok(map, odm_sync(map, NULL), "sync");
    }
    odm_close(map);
}

static void try_mix(uint32_t stripes, uint64_t hash_mask)
{
    odm__test_hash_mask = hash_mask;
    static struct mix mix;
    mix = (struct mix){.map = open_map(temp_map_path(), .stripes = stripes)};
    run_threads(MIX_THREADS, write_mix, &mix);
    uint64_t count = 0, bytes = 0;
    unsigned char key[PROOF_KEY_MAX];
    for (uint32_t i = 0; i < MIX_KEYS; ++i) {
        const void *value;
        size_t size, key_size = proof_key(i, key);
        odm_status status = odm_get(mix.map, key, key_size, &value, &size);
        expect_status(status, mix.last[i] == 0 ? ODM_NOT_FOUND : ODM_OK);
        if (status != ODM_OK) continue;
        uint64_t sequence;
        cr_assert(proof_read(i, value, size, &sequence));
        cr_assert_eq(sequence, mix.last[i]);
        ++count;
        bytes += record_size(key_size, size);
    }
    odm_statistics statistics = statistics_of(mix.map);
    cr_assert_eq(statistics.count, count);
    cr_assert_eq(statistics.live_bytes, bytes);
    odm_close(mix.map);
}

/* Splits, updates and removes in several stripes at once leave exactly what was written last; so do keys whose hashes are
 * alike. Method: each thread writes keys of its own, among which the chunks do not distinguish; then all are compared. */
Test(threads, split_and_update_side_by_side)
{
    try_mix(1, UINT64_MAX);
    try_mix(2, UINT64_MAX);
    try_mix(16, UINT64_MAX);
    try_mix(2, ~(UINT64_C(0xffff) << 12)); // All tags are the same.
}
