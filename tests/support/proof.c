/* proof.c - values that prove themselves. Contract: proof.h. */
#include "proof.h"

#include <string.h>

uint64_t proof_mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * UINT64_C(0x9E3779B97F4A7C15) + b;
    x = (x ^ x >> 32) * UINT64_C(0xD6E8FEB86659FD93);
    x = (x ^ x >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
    return x ^ x >> 32;
}

enum { KEY_SIZE_MIN = 4, KEY_SIZE_SPREAD = 40 };

size_t proof_key(uint32_t number, unsigned char key[PROOF_KEY_MAX])
{
    size_t size = KEY_SIZE_MIN + proof_mix(1, number) % KEY_SIZE_SPREAD;
    memcpy(key, &number, sizeof number);
    for (size_t i = sizeof number; i < size; ++i) key[i] = (unsigned char)proof_mix(number, i);
    return size;
}

bool proof_number(const void *key, size_t size, uint32_t *number)
{
    unsigned char expected[PROOF_KEY_MAX];
    if (size < sizeof *number) return false;
    memcpy(number, key, sizeof *number);
    return size == proof_key(*number, expected) && memcmp(key, expected, size) == 0;
}

static size_t value_size(uint32_t number, uint64_t sequence)
{
    uint64_t random = proof_mix(number, sequence);
    uint64_t more = random >> 32;
    if (random % 1024 < 860) return 16 + more % 100;
    if (random % 1024 < 1010) return 16 + more % 700;
    if (random % 1024 < 1023) return 16 + more % 6000;
    return 16 + more % (PROOF_VALUE_MAX - 64);
}

/* Bytes 16 and on. */
static uint64_t body(uint64_t seed, size_t word)
{
    return (seed + word) * UINT64_C(0x9E3779B97F4A7C15) ^ seed >> 17;
}

size_t proof_value(uint32_t number, uint64_t sequence, unsigned char value[PROOF_VALUE_MAX])
{
    size_t size = value_size(number, sequence);
    uint64_t key = number, seed = proof_mix(number, ~sequence);
    memcpy(value, &key, 8);
    memcpy(value + 8, &sequence, 8);
    for (size_t at = 16; at < size; at += 8) {
        uint64_t word = body(seed, at);
        memcpy(value + at, &word, size - at < 8 ? size - at : 8);
    }
    return size;
}

bool proof_read(uint32_t number, const void *value, size_t size, uint64_t *sequence)
{
    const unsigned char *bytes = value;
    uint64_t key;
    if (size < 16) return false;
    memcpy(&key, bytes, 8);
    memcpy(sequence, bytes + 8, 8);
    if (key != number || size != value_size(number, *sequence)) return false;
    uint64_t seed = proof_mix(number, ~*sequence);
    for (size_t at = 16; at < size; at += 8) {
        uint64_t word = body(seed, at);
        if (memcmp(bytes + at, &word, size - at < 8 ? size - at : 8) != 0) return false;
    }
    return true;
}
