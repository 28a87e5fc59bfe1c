/* Hash -> slot: index.h. */
#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "map.h"
#include "support.h"

TestSuite(index, .timeout = 60, .fini = remove_temp_directories);

/* ---- an index alone ------------------------------------------------------------------------------------------------ */

enum { KEYS_MAX = 20000 };

/* An index in memory that nobody else sees, and what should be in it: key i has hash[i] and the address i + 1. */
struct world {
    struct directory directory;
    struct index_file *file;
    struct index index;
    struct meta_fixed fixed;
    uint64_t hash[KEYS_MAX];
    bool present[KEYS_MAX];
    unsigned questions; // times a split asked for a hash
};

static struct world world;

static uint64_t address_of(unsigned key)
{
    return address_make(1 + key / 1000, 64 + key % 1000 * 8);
}

static unsigned key_at(uint64_t slot)
{
    return (unsigned)((slot_number(slot) - 1) * 1000 + (slot_offset(slot) - 64) / 8);
}

static void make_world(uint32_t stripes, uint64_t capacity)
{
    memset(&world, 0, sizeof world);
    world.fixed = (struct meta_fixed){.stripes = stripes, .map_id = {1, 2}};
    ok(odm__directory_open_in(&world.directory, NULL, "", "", true, NULL));
    ok(odm__index_create(&world.directory, "index", &world.fixed, capacity, &world.file, NULL));
    odm__index_view(&world.index, world.file, &world.fixed, NULL, 0);
}

static void end_world(void)
{
    odm__index_close(world.file);
    odm__directory_close(&world.directory);
}

static uint64_t random_hash(uint64_t number)
{
    number += UINT64_C(0x9E3779B97F4A7C15);
    number = (number ^ number >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    number = (number ^ number >> 27) * UINT64_C(0x94D049BB133111EB);
    return number ^ number >> 31;
}

static odm_status hash_of(void *context, uint64_t slot, uint64_t *hash, odm_error *error)
{
    (void)context, (void)error;
    world.questions++;
    *hash = world.hash[key_at(slot)];
    return ODM_OK;
}

static const struct hash_source source = {hash_of, NULL};

static struct stripe *stripe_of(uint64_t hash)
{
    return &world.index.stripes[hash_stripe(hash, world.index.stripe_bits)];
}

/* Where the key's address stands in its chunk, or UINT32_MAX. */
static uint32_t slot_of(const struct chunk *chunk, unsigned key)
{
    uint64_t slot = slot_make(hash_tag(world.hash[key]), address_of(key));
    for (uint32_t i = 0; i < chunk->slot_count; i++) {
        if (atomic_load(&chunk->slots[i]) == slot) return i;
    }
    return UINT32_MAX;
}

static odm_status try_insert(unsigned key, uint64_t hash)
{
    struct chunk chunk;
    world.hash[key] = hash;
    ok(odm__index_chunk(&world.index, hash, &chunk, NULL));
    odm_status status = odm__index_make_room(&world.index, hash, &source, &chunk, NULL);
    if (status != ODM_OK) return status;
    uint32_t mask = chunk.slot_count - 1, at = hash_home(hash) & mask;
    for (;; at = (at + 1) & mask) {
        uint64_t slot = atomic_load(&chunk.slots[at]);
        if (slot == SLOT_EMPTY || slot == SLOT_TOMBSTONE) break;
    }
    odm__chunk_insert(&chunk, at, hash, address_of(key));
    atomic_fetch_add(&stripe_of(hash)->count, 1); // Which is the map's business, but splitting looks at it.
    world.present[key] = true;
    return ODM_OK;
}

static void insert(unsigned key, uint64_t hash)
{
    ok(try_insert(key, hash));
}

static void take_away(unsigned key)
{
    struct chunk chunk;
    ok(odm__index_chunk(&world.index, world.hash[key], &chunk, NULL));
    odm__chunk_remove(&chunk, slot_of(&chunk, key));
    atomic_fetch_sub(&stripe_of(world.hash[key])->count, 1);
    world.present[key] = false;
}

/* Whether a lookup comes across the key. */
static bool is_found(struct index *index, unsigned key)
{
    uint64_t word, slot;
    ok(odm__index_word(index, world.hash[key], &word, NULL));
    struct probe probe;
    odm__probe_start(index, word, world.hash[key], &probe);
    while ((slot = odm__probe_next(&probe)) != SLOT_EMPTY) {
        if (slot == slot_make(hash_tag(world.hash[key]), address_of(key))) return true;
    }
    return false;
}

/* What always holds: every key is found, none that is gone; chunks cover all hashes, have an empty slot, and are counted not
 * too low. Method: look at all. */
static void check_world(unsigned keys)
{
    struct index fresh; // without anything in its caches
    odm__index_view(&fresh, world.file, &world.fixed, NULL, 0);
    unsigned present = 0;
    for (unsigned i = 0; i < keys; i++) {
        present += world.present[i];
        cr_assert_eq(is_found(&world.index, i), world.present[i], "key %u", i);
        cr_assert_eq(is_found(&fresh, i), world.present[i], "key %u, seen anew", i);
    }
    struct chunk_copy copy = {.room = 0};
    unsigned live = 0;
    uint64_t hash = 0, recycled = atomic_load(&fresh.header->recycled);
    for (;;) {
        bool torn;
        ok(odm__index_copy(&fresh, hash, recycled, &copy, &torn, NULL));
        cr_assert_not(torn);
        cr_assert_eq(copy.hash_first, hash, "chunks overlap or leave a gap");
        struct chunk chunk;
        ok(odm__index_chunk(&fresh, hash, &chunk, NULL));
        uint32_t used = 0;
        for (uint32_t i = 0; i < copy.slot_count; i++) {
            uint64_t slot = copy.slots[i];
            used += slot != SLOT_EMPTY;
            if (slot == SLOT_EMPTY || slot == SLOT_TOMBSTONE) continue;
            uint64_t its = world.hash[key_at(slot)];
            cr_assert(its >= copy.hash_first && its <= copy.hash_last, "key %u is in a wrong chunk", key_at(slot));
            cr_assert_eq(atomic_load(&chunk.cold[i]), cold_make(its));
            live++;
        }
        cr_assert_lt(used, copy.slot_count, "a chunk without an empty slot");
        cr_assert_geq(atomic_load(chunk.used), used, "counted too low");
        if (copy.hash_last == UINT64_MAX) break;
        hash = copy.hash_last + 1;
    }
    odm__chunk_copy_free(&copy);
    cr_assert_eq(live, present, "a key is there twice");
    struct index_totals totals;
    ok(odm__index_totals(&fresh, true, &totals, NULL));
    cr_assert_eq(totals.count, present);
}

/* ---- growing ------------------------------------------------------------------------------------------------------- */

Test(index, splits_keep_every_key)
{
    static const uint32_t stripes[] = {1, 2, 16, 64};
    for (size_t i = 0; i < COUNT_OF(stripes); i++) {
        make_world(stripes[i], 0);
        for (unsigned key = 0; key < 5000; key++) {
            insert(key, random_hash(key));
            if (key % 500 == 0 || key < 100) check_world(key + 1);
        }
        check_world(5000);
        struct index_totals totals;
        ok(odm__index_totals(&world.index, true, &totals, NULL));
        cr_assert_gt(totals.splits, 20);
        cr_assert_geq(totals.slots, 5000);
        cr_assert_leq(totals.slots, 4 * 5000, "%u stripes: %u slots", stripes[i], (unsigned)totals.slots);
        end_world();
    }
}

/* `capacity` entries fit without growth, on average. */
Test(index, has_room_for_its_capacity_from_the_start)
{
    static const uint64_t capacities[] = {0, 100, 1000, 15000};
    for (size_t i = 0; i < COUNT_OF(capacities); i++) {
        make_world(4, capacities[i]);
        struct index_totals before, after;
        ok(odm__index_totals(&world.index, true, &before, NULL));
        cr_assert_geq(before.slots / 8 * 7, capacities[i]);
        cr_assert_leq(before.slots, capacities[i] * 4 + 4 * 2 * CHUNK_SLOTS);
        for (unsigned key = 0; key < capacities[i]; key++) insert(key, random_hash(key));
        ok(odm__index_totals(&world.index, true, &after, NULL));
        cr_assert_leq(after.splits, capacities[i] / CHUNK_SLOTS / 4, "%u splits", (unsigned)after.splits);
        check_world((unsigned)capacities[i]);
        end_world();
    }
}

/* A directory is doubled by making another: who still reads the old one finds all that was there. */
Test(index, an_old_directory_stays_readable)
{
    make_world(1, 0);
    struct index_header *header = world.index.header;
    uint64_t root = atomic_load(&world.index.stripes[0].root);
    unsigned doublings = 0;
    for (unsigned key = 0; key < 3000; key++) {
        uint64_t recycled = atomic_load(&header->recycled);
        struct root_cache before = world.index.roots[0];
        insert(key, random_hash(key));
        uint64_t now = atomic_load(&world.index.stripes[0].root);
        if (now == root) continue;
        doublings++;
        cr_assert_eq(root_depth(now), root_depth(root) + 1);
        uint64_t old_end = root_location(root) + directory_units(root_depth(root));
        cr_assert(root_location(now) >= old_end, "a directory was used again");
        // Its words name the chunks as they were: a lookup through them is right, unless something was recycled.
        for (unsigned i = 0; recycled == atomic_load(&header->recycled) && before.root == root && i < key; i++) {
            uint64_t word = atomic_load(&before.words[hash_prefix(world.hash[i], 0, before.depth)]);
            struct probe probe;
            uint64_t slot;
            odm__probe_start(&world.index, word, world.hash[i], &probe);
            do slot = odm__probe_next(&probe);
            while (slot != SLOT_EMPTY && slot != slot_make(hash_tag(world.hash[i]), address_of(i)));
            cr_assert_neq(slot, SLOT_EMPTY, "key %u is gone from the old directory", i);
        }
        root = now;
    }
    cr_assert_geq(doublings, 4);
    end_world();
}

/* Before a frozen chunk is written again, `recycled` is raised.
 * Method: remember what every chunk that was left looked like; as long as `recycled` stays, so does it. */
Test(index, a_frozen_chunk_is_unchanged_until_recycled_is_raised)
{
    enum { FROZEN_MAX = 64 };
    static struct {
        odm__u64 *slots;
        uint64_t copy[CHUNK_SLOTS];
        uint32_t count;
    } frozen[FROZEN_MAX];
    unsigned frozen_count = 0, raised = 0, left = 0;
    make_world(1, 0);
    uint64_t recycled = 0;
    for (unsigned step = 0; step < 6000; step++) {
        unsigned key = step % 2000;
        struct chunk before, after;
        uint64_t hash = random_hash(key);
        ok(odm__index_chunk(&world.index, hash, &before, NULL));
        uint64_t copy[CHUNK_SLOTS];
        for (uint32_t i = 0; i < before.slot_count; i++) copy[i] = atomic_load(&before.slots[i]);
        if (world.present[key]) {
            take_away(key);
        } else {
            insert(key, hash);
        }
        ok(odm__index_chunk(&world.index, hash, &after, NULL));
        uint64_t now = atomic_load(&world.index.header->recycled);
        if (now != recycled) {
            frozen_count = 0; // Nobody believes what he reads there any more.
            raised++;
        }
        recycled = now;
        for (unsigned i = 0; i < frozen_count; i++) {
            for (uint32_t k = 0; k < frozen[i].count; k++) {
                cr_assert_eq(atomic_load(&frozen[i].slots[k]), frozen[i].copy[k], "step %u", step);
            }
        }
        if (word_location(after.word) == word_location(before.word)) continue;
        left++;
        if (frozen_count == FROZEN_MAX) continue;
        frozen[frozen_count].slots = before.slots;
        frozen[frozen_count].count = before.slot_count;
        memcpy(frozen[frozen_count++].copy, copy, sizeof copy);
    }
    cr_assert_gt(left, 50);
    cr_assert_gt(raised, 5, "no chunk was ever used again");
    check_world(2000);
    end_world();
}

/* Tombstones do not pile up. Method: few keys that come and go for long: neither the slots nor the file grow. */
Test(index, cleaning_keeps_a_churned_index_small)
{
    make_world(1, 0);
    enum { LIVE = 300, STEPS = 20000 };
    for (unsigned key = 0; key < LIVE; key++) insert(key, random_hash(key));
    uint64_t slots = 0, size = 0;
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned gone = step % LIVE;
        take_away(gone);
        insert(gone, random_hash(LIVE + step));
        if (step % 2000 != 1999) continue;
        check_world(LIVE);
        struct index_totals totals;
        ok(odm__index_totals(&world.index, true, &totals, NULL));
        if (slots == 0) {
            slots = totals.slots;
            size = atomic_load(&world.index.header->size);
        }
        cr_assert_leq(totals.slots, 2 * slots);
        cr_assert_leq(atomic_load(&world.index.header->size), 2 * size);
    }
    end_world();
}

/* ---- slots --------------------------------------------------------------------------------------------------------- */

/* A removed slot becomes empty where no probe goes on past it, together with the tombstones left of it. */
Test(index, tombstones_are_swept_from_the_right)
{
    enum { HOME = LINE_SLOTS };
    make_world(1, 0);
    struct chunk chunk;
    for (unsigned key = 0; key < 6; key++) insert(key, UINT64_C(1) << 20 | key << 14 | HOME); // All of one home.
    ok(odm__index_chunk(&world.index, world.hash[0], &chunk, NULL));
    cr_assert_eq(atomic_load(chunk.used), 6);
    take_away(2);
    take_away(1);
    take_away(4);
    for (int i = 1; i < 5; i++) {
        cr_assert_eq(atomic_load(&chunk.slots[HOME + i]) == SLOT_TOMBSTONE, i != 3);
    }
    cr_assert_eq(atomic_load(chunk.used), 6);
    check_world(6);
    take_away(5); // Sweeps itself and 4.
    cr_assert_eq(atomic_load(&chunk.slots[HOME + 5]), SLOT_EMPTY);
    cr_assert_eq(atomic_load(&chunk.slots[HOME + 4]), SLOT_EMPTY);
    cr_assert_neq(atomic_load(&chunk.slots[HOME + 3]), SLOT_EMPTY);
    cr_assert_eq(atomic_load(chunk.used), 4);
    take_away(3); // Sweeps itself, 2 and 1.
    cr_assert_eq(atomic_load(chunk.used), 1);
    check_world(6);
    take_away(0);
    cr_assert_eq(atomic_load(chunk.used), 0);
    end_world();
}

Test(index, probes_wrap_around_the_end_of_a_chunk)
{
    enum { COUNT = LINE_SLOTS + 4 }; // all of the last line, so that four of them go to the first one
    make_world(1, 0);
    for (unsigned key = 0; key < COUNT; key++) insert(key, (uint64_t)key << 14 | (FIRST_CHUNK_SLOTS - LINE_SLOTS));
    check_world(COUNT);
    for (unsigned key = 0; key < COUNT; key += 2) take_away(key);
    check_world(COUNT);
    for (unsigned key = 1; key < COUNT; key += 2) take_away(key);
    check_world(COUNT);
    struct chunk chunk;
    ok(odm__index_chunk(&world.index, 0, &chunk, NULL));
    cr_assert_eq(atomic_load(chunk.used), 0, "not all was swept");
    end_world();
}

/* ---- hashes that are alike ----------------------------------------------------------------------------------------- */

/* Beyond the bits that the cold words keep, a split asks for the hash. Method: hashes that agree in their top COLD_HASH_BITS. */
Test(index, a_split_deeper_than_its_bits_asks_for_the_hash)
{
    make_world(1, 0);
    for (unsigned key = 0; key < 200; key++) {
        insert(key, UINT64_C(0xAB) << (64 - COLD_HASH_BITS) | random_hash(key) >> COLD_HASH_BITS);
    }
    cr_assert_gt(world.questions, 0);
    uint64_t word;
    ok(odm__index_word(&world.index, world.hash[0], &word, NULL));
    cr_assert_gt(word_depth(word), COLD_HASH_BITS);
    check_world(200);
    end_world();
}

static odm_status hash_is_lost(void *context, uint64_t slot, uint64_t *hash, odm_error *error)
{
    (void)context, (void)slot, (void)hash, (void)error;
    return ODM_E_CORRUPT;
}

Test(index, a_hash_that_can_not_be_told_fails_the_split_and_nothing_else)
{
    make_world(1, 0);
    struct hash_source lost = {hash_is_lost, NULL};
    odm_status status = ODM_OK;
    unsigned key = 0;
    for (; status == ODM_OK; key++) {
        cr_assert_lt(key, 500);
        uint64_t hash = UINT64_C(0xAB) << (64 - COLD_HASH_BITS) | random_hash(key) >> COLD_HASH_BITS;
        struct chunk chunk;
        ok(odm__index_chunk(&world.index, hash, &chunk, NULL));
        status = odm__index_make_room(&world.index, hash, &lost, &chunk, NULL);
        if (status == ODM_OK) insert(key, hash);
    }
    expect_status(status, ODM_E_CORRUPT);
    check_world(key - 1);
    end_world();
}

/* Keys of one hash are all kept, in a chunk that grows. */
Test(index, equal_hashes_grow_a_big_chunk)
{
    make_world(1, 0);
    for (unsigned key = 0; key < 1500; key++) insert(key, UINT64_C(0x123456789ABCDEF0));
    uint64_t word;
    ok(odm__index_word(&world.index, world.hash[0], &word, NULL));
    cr_assert(word & WORD_BIG);
    cr_assert_geq(1 << word_bits(word), 1500);
    check_world(1500);
    for (unsigned key = 2000; key < 3000; key++) insert(key, random_hash(key)); // Others beside them.
    check_world(3000);
    for (unsigned key = 0; key < 1500; key += 3) take_away(key);
    check_world(3000);
    for (unsigned key = 0; key < 1500; key += 3) insert(key, UINT64_C(0x123456789ABCDEF0));
    check_world(3000);
    end_world();
}

static const uint64_t masks[] = {
    0,
    UINT64_C(0x000000000fffffff), // one chunk, but tags and homes
    UINT64_C(0xffffffff00000000), // one home and one tag
    UINT64_C(0x0000000000001000), // tags 0 and 1, the tombstone's
    UINT64_C(0xffff00000000003f),
};

/* The same through a map: no key of a bad hash is lost or refused, also over a rebuild. */
Test(index, keys_whose_hashes_collide_are_neither_lost_nor_refused)
{
    for (size_t i = 0; i < COUNT_OF(masks); i++) {
        odm__test_hash_mask = masks[i];
        const char *path = temp_map_path();
        odm_map *map = open_map(path, .stripes = 4);
        put_numbers(map, 0, 400, 0);
        expect_numbers(map, 0, 400, 0);
        remove_numbers(map, 0, 200);
        put_numbers(map, 100, 250, 1);
        for (int opened = 0; opened < 3; opened++) {
            expect_no_numbers(map, 0, 100);
            expect_numbers(map, 100, 250, 1);
            expect_numbers(map, 250, 400, 0);
            expect_no_numbers(map, 400, 420);
            cr_assert_eq(odm_count(map), 300);
            odm_close(map);
            if (opened == 1) cr_assert_eq(unlink(path_of(path, "index")), 0);
            map = open_map(path);
        }
        ok(odm_clear(map, NULL));
        expect_no_numbers(map, 0, 400);
        odm_close(map);
    }
}

/* ---- what the dead leave half done --------------------------------------------------------------------------------- */

/* A change that was noted and not yet, or half, applied is applied by whoever mends the stripe.
 * Method: let a change happen, then take back some of its stores: all that a kill in change_apply could have left out. The
 * fields of the change stay after it, only its kind is cleared. */
static void check_mending(enum change_kind kind)
{
    unsigned mended = 0;
    make_world(1, 0);
    unsigned keys = 0;
    // Replaced chunks: by filling them with tombstones. Split ones: by filling them.
    for (unsigned step = 0; step < 3000 && mended < 12; step++) {
        struct stripe *stripe = &world.index.stripes[0];
        struct root_cache *cache = &world.index.roots[0];
        unsigned key = keys;
        uint64_t hash = random_hash(step);
        struct chunk chunk, before;
        ok(odm__index_chunk(&world.index, hash, &chunk, NULL));
        before = chunk;
        uint64_t spare[2] = {stripe->spare[0], stripe->spare[1]};
        uint64_t root = atomic_load(&stripe->root);
        uint32_t used_before = atomic_load(chunk.used);
        uint64_t splits = atomic_load(&stripe->splits);
        world.hash[key] = hash;
        ok(odm__index_make_room(&world.index, hash, &source, &chunk, NULL));
        bool split = atomic_load(&stripe->splits) != splits;
        bool changed = chunk.word != before.word;
        if (changed && split == (kind == CHANGE_SPLIT) && atomic_load(&stripe->root) == root &&
            stripe->change.old == before.word && stripe->change.first == before.first) {
            mended++;
            uint64_t spare_after[2] = {stripe->spare[0], stripe->spare[1]};
            uint64_t count = UINT64_C(1) << (cache->depth - word_depth(before.word));
            for (uint64_t stored = 0; stored <= count; stored++) {
                // Killed after `stored` of the words.
                uint64_t right[64];
                cr_assert_leq(count, COUNT_OF(right));
                for (uint64_t i = 0; i < count; i++) {
                    right[i] = atomic_load(&cache->words[before.first + i]);
                    if (i >= stored) atomic_store(&cache->words[before.first + i], before.word);
                }
                stripe->spare[0] = stored == count ? spare_after[0] : spare[0];
                stripe->spare[1] = spare[1];
                if (stored == 0) atomic_store(before.used, used_before);
                atomic_store(&stripe->change.kind, kind);

                struct index other; // a client that knows nothing
                odm__index_view(&other, world.file, &world.fixed, NULL, 0);
                ok(odm__index_mend(&other, 0, NULL));
                cr_assert_eq(atomic_load(&stripe->change.kind), CHANGE_NONE);
                for (uint64_t i = 0; i < count; i++) {
                    cr_assert_eq(atomic_load(&cache->words[before.first + i]), right[i]);
                }
                cr_assert_eq(stripe->spare[0], spare_after[0]);
                cr_assert_eq(stripe->spare[1], spare_after[1]);
                check_world(keys);
                ok(odm__index_mend(&other, 0, NULL)); // Nothing is left to do.
            }
        }
        insert(keys++, hash);
        if (kind == CHANGE_REPLACE && keys > 40) take_away(keys - 41);
    }
    cr_assert_geq(mended, 3, "only %u changes were seen", mended);
    check_world(keys);
    end_world();
}

Test(index, a_half_applied_split_is_mended)
{
    check_mending(CHANGE_SPLIT);
}

Test(index, a_half_applied_replacement_is_mended)
{
    check_mending(CHANGE_REPLACE);
}

Test(index, a_change_that_can_not_be_is_corrupt)
{
    make_world(1, 0);
    for (unsigned key = 0; key < 500; key++) insert(key, random_hash(key));
    struct stripe *stripe = &world.index.stripes[0];
    struct change good = {.first = stripe->change.first,
                          .old = stripe->change.old,
                          .left = stripe->change.left,
                          .right = stripe->change.right};
    cr_assert_neq(good.right, 0);
    for (int i = 0; i < 8; i++) {
        stripe->change.first = good.first;
        stripe->change.old = good.old;
        stripe->change.left = good.left;
        stripe->change.right = good.right;
        uint64_t kind = CHANGE_SPLIT;
        switch (i) {
            case 0: kind = 3; break;
            case 1: kind = UINT64_MAX; break;
            case 2: stripe->change.first = UINT64_MAX; break;
            case 3: stripe->change.first = UINT64_C(1) << 20; break;
            case 4: stripe->change.left = 0; break;
            case 5: stripe->change.right = UINT64_MAX; break;
            case 6: stripe->change.old = 255; break;
            case 7: stripe->change.left = word_make(UINT64_C(1) << 30, CHUNK_SLOT_BITS, 3); break;
        }
        atomic_store(&stripe->change.kind, kind);
        odm_error error = {.struct_size = sizeof error};
        struct index fresh;
        odm__index_view(&fresh, world.file, &world.fixed, NULL, 0);
        expect_status(odm__index_mend(&fresh, 0, &error), ODM_E_CORRUPT);
        cr_assert_eq(atomic_load(&stripe->change.kind), kind);
        for (unsigned key = 0; key < 500; key++) cr_assert(is_found(&world.index, key));
    }
    end_world();
}

/* ---- clearing ------------------------------------------------------------------------------------------------------ */

Test(index, clearing_a_stripe_empties_it_in_place_and_no_other)
{
    make_world(4, 0);
    for (unsigned key = 0; key < 2000; key++) insert(key, random_hash(key));
    struct index_totals before, after;
    ok(odm__index_totals(&world.index, true, &before, NULL));
    for (int again = 0; again < 2; again++) {
        ok(odm__index_clear(&world.index, 2, NULL));
        for (unsigned key = 0; key < 2000; key++) {
            if (hash_stripe(world.hash[key], 2) == 2) world.present[key] = false;
        }
        atomic_store(&world.index.stripes[2].count, 0);
        check_world(2000);
    }
    ok(odm__index_totals(&world.index, true, &after, NULL));
    cr_assert_eq(after.slots, before.slots);
    cr_assert_eq(after.splits, before.splits);
    cr_assert_lt(after.used, before.used);
    for (unsigned key = 2000; key < 4000; key++) insert(key, random_hash(key));
    check_world(4000);
    end_world();
}

/* ---- no room ------------------------------------------------------------------------------------------------------- */

static int reserve_fails(int fd, off_t offset, off_t size)
{
    (void)fd, (void)offset, (void)size;
    errno = ENOSPC;
    return -1;
}

/* On a full disk keys are taken as long as one slot stays empty; then it is a status. All is as it was, and goes on. */
Test(index, fills_up_to_the_last_but_one_slot_when_it_can_not_grow)
{
    make_world(1, 0);
    unsigned key = 0;
    for (; key < 300; key++) insert(key, random_hash(key));
    odm__os.reserve = reserve_fails;
    unsigned refused = 0;
    for (; key < 3000; key++) {
        odm_status status = try_insert(key, random_hash(key));
        refused += status != ODM_OK;
        if (status != ODM_OK) expect_status(status, ODM_E_NO_SPACE);
    }
    cr_assert_gt(refused, 2000);
    check_world(3000);
    odm__os.reserve = real_os()->reserve;
    for (unsigned again = 300; again < 3000; again++) {
        if (!world.present[again]) insert(again, random_hash(again));
    }
    check_world(3000);
    end_world();
}

/* Inserts keys from this one on, until the index needs room and says that it is damaged; returns the first that is not in it. */
static unsigned insert_until_corrupt(unsigned key)
{
    odm_status status = ODM_OK;
    for (; status == ODM_OK && key < KEYS_MAX; key += status == ODM_OK) status = try_insert(key, random_hash(key));
    expect_status(status, ODM_E_CORRUPT);
    return key;
}

/* An end of the used part that is far off, in a damaged file, is told of when units are wanted; it is not believed even if its
 * bytes are few again because they are counted modulo 2^64. */
Test(index, a_wild_end_is_corrupt)
{
    static const uint64_t ends[] = {UINT64_C(1) << 35, UINT64_C(1) << 58, UINT64_MAX / INDEX_UNIT - 8, UINT64_MAX};
    make_world(1, 0);
    unsigned key = 0;
    for (; key < 300; key++) insert(key, random_hash(key));
    struct index_header *header = world.index.header;
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        uint64_t next = atomic_load(&header->next);
        atomic_store(&header->next, ends[i]);
        key = insert_until_corrupt(key);
        cr_assert_eq(atomic_load(&header->next), ends[i]);
        check_world(key);
        atomic_store(&header->next, next);
        for (unsigned end = key + 200; key < end; key++) insert(key, random_hash(key));
        check_world(key);
    }
    end_world();
}

/* A size that has become smaller, in a damaged file, is told of: the file is not cut off where it is in use. */
Test(index, a_size_that_shrinks_is_corrupt)
{
    make_world(1, 0);
    unsigned key = 0;
    for (; key < 300; key++) insert(key, random_hash(key));
    struct index_header *header = world.index.header;
    uint64_t size = atomic_load(&header->size), next = atomic_load(&header->next);
    atomic_store(&header->size, 0);
    atomic_store(&header->next, 0);
    key = insert_until_corrupt(key);
    struct file_identity identity;
    cr_assert_eq(odm__os.identify(world.file->fd, &identity), 0);
    cr_assert_geq(identity.size, size);
    atomic_store(&header->size, size);
    atomic_store(&header->next, next);
    for (unsigned end = key + 200; key < end; key++) insert(key, random_hash(key));
    check_world(key);
    end_world();
}

/* ---- files that are not ours --------------------------------------------------------------------------------------- */

Test(index, a_file_of_another_map_or_geometry_is_corrupt)
{
    make_world(4, 0);
    struct index_header *header = world.index.header;
    struct index_file *opened;
    ok(odm__index_open(&world.directory, "index", &world.fixed, true, &opened, NULL));
    odm__index_close(opened);
    expect_status(odm__index_open(&world.directory, "none", &world.fixed, true, &opened, NULL), ODM_NOT_FOUND);
    struct meta_fixed other = world.fixed;
    other.map_id[1]++;
    expect_status(odm__index_open(&world.directory, "index", &other, true, &opened, NULL), ODM_E_CORRUPT);
    other = world.fixed;
    other.stripes = 8;
    expect_status(odm__index_open(&world.directory, "index", &other, true, &opened, NULL), ODM_E_CORRUPT);

    uint64_t size = atomic_load(&header->size);
    atomic_store(&header->size, size + (1 << 20)); // More than the file has.
    expect_status(odm__index_open(&world.directory, "index", &world.fixed, true, &opened, NULL), ODM_E_CORRUPT);
    atomic_store(&header->size, size);
    header->geometry++;
    expect_status(odm__index_open(&world.directory, "index", &world.fixed, true, &opened, NULL), ODM_E_CORRUPT);
    header->geometry--;
    header->magic++;
    expect_status(odm__index_open(&world.directory, "index", &world.fixed, true, &opened, NULL), ODM_E_CORRUPT);
    header->magic--;
    header->format++;
    expect_status(odm__index_open(&world.directory, "index", &world.fixed, true, &opened, NULL), ODM_E_CORRUPT);
    header->format--;
    ok(odm__index_open(&world.directory, "index", &world.fixed, true, &opened, NULL));
    cr_assert_eq(odm__os.truncate(opened->fd, 5000), 0);
    struct index_file *cut;
    expect_status(odm__index_open(&world.directory, "index", &world.fixed, true, &cut, NULL), ODM_E_CORRUPT);
    odm__index_close(opened);
    end_world();
}
