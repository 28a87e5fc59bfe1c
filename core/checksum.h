/* checksum.h - the two checks of a record, and those of headers.
 *
 * Calls xxHash. A record's checks are seeded with the map's seed xor the record's own address, so that a record that is
 * stale or not in its place never passes.
 */
#ifndef ODM_CHECKSUM_H
#define ODM_CHECKSUM_H

#include <string.h>

#include "format.h"
#include "hash.h"

/* Check B: over the value. */
static inline uint32_t check_value(const void *value, uint64_t value_size, uint64_t seed, uint64_t address)
{
    seed ^= address;
    return (uint32_t)(value_size == 8 ? hash_8(value, seed) : XXH3_64bits_withSeed(value, value_size, seed));
}

/* Bytes 4 to 23 of a header. */
enum { CHECKED_HEADER_SIZE = 20 };

/* Check A with a key of any size; word_0 and word_1 are the first 16 of the checked bytes, by value: so they stay in registers. */
static __attribute__((noinline, unused)) uint32_t check_header_usual(uint64_t word_0, uint64_t word_1, uint64_t lsn,
                                                                     const void *key, uint64_t key_size, uint64_t seed)
{
    enum { AT_ONCE_MAX = 256 };
    unsigned char bytes[CHECKED_HEADER_SIZE + AT_ONCE_MAX];
    const uint32_t lsn_high = (uint32_t)(lsn >> 32);
    // Few wide stores: what is loaded from several at once waits until they have left the processor.
    const uint64_t first[2] = {word_0, word_1};
    memcpy(bytes, first, sizeof first);
    memcpy(bytes + sizeof first, &lsn_high, sizeof lsn_high);
    if (key_size <= AT_ONCE_MAX) {
        memcpy(bytes + CHECKED_HEADER_SIZE, key, key_size);
        return (uint32_t)XXH3_64bits_withSeed(bytes, CHECKED_HEADER_SIZE + key_size, seed);
    }
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, seed);
    XXH3_64bits_update(&state, bytes, CHECKED_HEADER_SIZE);
    XXH3_64bits_update(&state, key, key_size);
    return (uint32_t)XXH3_64bits_digest(&state);
}

/* Check A: over bytes 4 to 23 of the header and the key. For reserved records and fillers: without a key, and with
 * check_b taken as 0. */
static inline uint32_t check_header(uint32_t word, uint32_t value_size, uint32_t check_b, uint64_t lsn, const void *key,
                                    uint64_t key_size, uint64_t seed, uint64_t address)
{
    const uint64_t first[2] = {word | (uint64_t)value_size << 32, check_b | lsn << 32};
    seed ^= address;
    if (key_size == 0) {
        const uint64_t last[2] = {value_size | (uint64_t)check_b << 32, lsn};
        return (uint32_t)hash_17_to_32(first, last, CHECKED_HEADER_SIZE, seed);
    }
    if (key_size == 8) {
        uint64_t last[2] = {lsn, 0};
        memcpy(&last[1], key, 8);
        return (uint32_t)hash_17_to_32(first, last, CHECKED_HEADER_SIZE + 8, seed);
    }
    return check_header_usual(first[0], first[1], lsn, key, key_size, seed);
}

/* `first` of a record that is reserved, or a filler. */
static inline uint64_t first_of_room(enum record_kind kind, uint64_t key_size, uint32_t value_size, uint64_t lsn,
                                     uint64_t seed, uint64_t address)
{
    uint32_t word = record_word(kind, key_size);
    return (uint64_t)word << 32 | check_header(word, value_size, 0, lsn, NULL, 0, seed, address);
}

static inline uint64_t check_bytes(const void *bytes, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, size, seed);
}

#endif
