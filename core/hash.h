/* hash.h - the hash of a key, and which bits of it mean what.
 *
 * Calls xxHash, inlined, so that the library exports nothing of it. Hash bits, from the top: stripe, directory, ...; and
 * from the bottom: three that are not used, home line, tag. The seed is secret and the map's own: nobody can choose keys that collide.
 */
#ifndef ODM_HASH_H
#define ODM_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "format.h"

_Static_assert(XXH_VERSION_NUMBER >= 800, "XXH3 gives the same hashes in every version from 0.8.0 on");

#ifdef ODM_TEST_SMALL
extern uint64_t odm__test_hash_mask; // ANDed to every hash: a test makes keys collide
#define TEST_HASH_MASK odm__test_hash_mask
#else
#define TEST_HASH_MASK UINT64_MAX
#endif

/* Keys up to this are hashed without a loop or a call. */
enum { HASH_SHORT_MAX = 32 };

/* XXH3_64bits_withSeed of 8 bytes, which is what many keys and values have: without a call or a look at the size. */
static inline __attribute__((flatten)) uint64_t hash_8(const void *bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, 8, seed);
}

/* The same of 17 to 32 bytes that are still in registers: `first` and `last` are the first and the last 16 of them, and overlap.
 * Bytes that are stored and then loaded across two stores would wait until the stores have left the processor. */
static inline uint64_t hash_17_to_32(const uint64_t first[2], const uint64_t last[2], uint64_t size, uint64_t seed)
{
    uint64_t sum = size * XXH_PRIME64_1;
    sum += XXH3_mix16B((const unsigned char *)first, XXH3_kSecret, seed);
    sum += XXH3_mix16B((const unsigned char *)last, XXH3_kSecret + 16, seed);
    return XXH3_avalanche(sum);
}

static inline uint64_t hash_key(const void *key, size_t key_size, uint64_t seed)
{
    uint64_t hash;
    if (key_size > 16 && key_size <= HASH_SHORT_MAX) {
        uint64_t first[2], last[2];
        __builtin_memcpy(first, key, sizeof first);
        __builtin_memcpy(last, (const unsigned char *)key + key_size - sizeof last, sizeof last);
        hash = hash_17_to_32(first, last, key_size, seed);
    } else {
        hash = key_size == 8 ? hash_8(key, seed) : XXH3_64bits_withSeed(key, key_size, seed);
    }
    return hash & TEST_HASH_MASK;
}

static inline uint32_t hash_stripe(uint64_t hash, unsigned stripe_bits)
{
    return (uint32_t)((hash >> 58) >> (6 - stripe_bits)); // no shift by 64 where there is one stripe
}

/* Index into a directory of this depth (at least 1). */
static inline uint64_t hash_prefix(uint64_t hash, unsigned stripe_bits, unsigned depth)
{
    return hash << stripe_bits >> (64 - depth);
}

enum { HASH_TAG_SHIFT = 12 };
static inline uint64_t hash_tag(uint64_t hash)
{
    return hash >> HASH_TAG_SHIFT & 0xffff;
}

/* The home in a chunk: the first slot of a line. A chunk bigger than the usual spreads no further. */
static inline uint32_t hash_home(uint64_t hash)
{
    return (uint32_t)hash & (CHUNK_SLOTS - LINE_SLOTS);
}

/* What an index keeps of a hash beside the slot: home (CHUNK_SLOT_BITS) | top bits (COLD_HASH_BITS). */
static inline uint32_t cold_make(uint64_t hash)
{
    return hash_home(hash) << COLD_HASH_BITS | (uint32_t)(hash >> (64 - COLD_HASH_BITS));
}
static inline uint32_t cold_home(uint32_t cold)
{
    return cold >> COLD_HASH_BITS;
}
/* The hash's top COLD_HASH_BITS, in place; the rest zero. */
static inline uint64_t cold_hash(uint32_t cold)
{
    return (uint64_t)cold << (64 - COLD_HASH_BITS);
}

#endif
