/* proof.h - values that prove themselves: each tells its key and a sequence number, and every byte of it follows from these.
 *
 * A torn value, a foreign one, or one of two mixed writes does not pass proof_read; an old one shows by its number.
 */
#ifndef ODM_TEST_PROOF_H
#define ODM_TEST_PROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROOF_KEY_MAX = 64, PROOF_VALUE_MAX = 48 * 1024 };

/* A hash of two numbers; also for reproducible choices. */
uint64_t proof_mix(uint64_t a, uint64_t b);

/* Writes the key that a number stands for; its size. Keys of different numbers differ. */
size_t proof_key(uint32_t number, unsigned char key[PROOF_KEY_MAX]);
/* The number a key stands for; false if it stands for none. */
bool proof_number(const void *key, size_t size, uint32_t *number);

/* Writes the value of a key's write number `sequence`; its size: mostly small, sometimes some KiB, seldom tens of KiB. */
size_t proof_value(uint32_t number, uint64_t sequence, unsigned char value[PROOF_VALUE_MAX]);
/* Whether these bytes are a value that proof_value made for this key; *sequence is the write it was. */
bool proof_read(uint32_t number, const void *value, size_t size, uint64_t *sequence);

#endif
