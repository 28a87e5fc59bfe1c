/* fuzz.h - what the fuzz targets share: reading an input, and telling what is wrong.
 *
 * Each target is a function of a few bytes, LLVMFuzzerTestOneInput, that aborts if a promise is broken. libFuzzer looks for
 * bytes that do (preset fuzz); replay.c gives it the bytes in corpora/ (every preset).
 */
#ifndef ODM_TEST_FUZZ_H
#define ODM_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct input {
    const uint8_t *bytes;
    size_t left;
};

/* Little-endian; an input that is over gives zeros. */
static inline uint64_t input_number(struct input *input, unsigned size)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < size && input->left > 0; ++i, ++input->bytes, --input->left) {
        number |= (uint64_t)*input->bytes << 8 * i;
    }
    return number;
}

static inline unsigned input_byte(struct input *input)
{
    return (unsigned)input_number(input, 1);
}

/* Ends the process with what is wrong unless the condition holds. */
#define right(condition, ...)                                                       \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s: ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                                           \
            fputc('\n', stderr);                                                    \
            abort();                                                                \
        }                                                                           \
    } while (0)

#endif
