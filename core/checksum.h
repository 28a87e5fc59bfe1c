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
    return (uint32_t)XXH3_64bits_withSeed(value, value_size, seed ^ address);
}

/* Bytes 4 to 23 of a header. */
struct checked_header {
    uint32_t word;
    uint32_t value_size;
    uint32_t check_b;
    uint32_t lsn_low, lsn_high;
};
_Static_assert(sizeof(struct checked_header) == 20, "no padding");

/* Check A: over bytes 4 to 23 of the header and the key. For reserved records and fillers: without a key, and with
 * check_b taken as 0. */
static inline uint32_t check_header(uint32_t word, uint32_t value_size, uint32_t check_b, uint64_t lsn, const void *key,
                                    uint64_t key_size, uint64_t seed, uint64_t address)
{
    enum { AT_ONCE_MAX = 256 };
    struct {
        struct checked_header header;
        unsigned char key[AT_ONCE_MAX];
    } bytes;
    bytes.header = (struct checked_header){word, value_size, check_b, (uint32_t)lsn, (uint32_t)(lsn >> 32)};
    if (key_size <= AT_ONCE_MAX) {
        if (key_size != 0) memcpy(bytes.key, key, key_size);
        return (uint32_t)XXH3_64bits_withSeed(&bytes, sizeof bytes.header + key_size, seed ^ address);
    }
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, seed ^ address);
    XXH3_64bits_update(&state, &bytes.header, sizeof bytes.header);
    XXH3_64bits_update(&state, key, key_size);
    return (uint32_t)XXH3_64bits_digest(&state);
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
