/* oracle.h - what a map should hold: a model in memory, and keys and values that tell whose they are.
 *
 * Calls the API only. Every key is known by a number (its id), every value by a tag, from which its bytes follow. What is
 * found wrong is returned as a text and asserted by the caller, so that all of it works in children made by fork as well.
 */
#ifndef ODM_TEST_ORACLE_H
#define ODM_TEST_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opendiskmap.h"

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

/* A sequence that depends on its start only. */
struct sequence {
    uint64_t state;
};
uint64_t sequence_next(struct sequence *sequence);
uint64_t sequence_below(struct sequence *sequence, uint64_t limit);
/* ODM_TEST_SEED, else 1; with something mixed in, so that each test has its own. Failure messages show seed_of_run(). */
struct sequence sequence_start(uint64_t salt);
uint64_t seed_of_run(void);
/* How often: an environment variable, else the usual number. */
size_t count_of(const char *variable, size_t usual);

/* ---- keys and values ---------------------------------------------------------------------------------------------- */

/* Key `id`: sizes from 0 to some hundreds of bytes; if `big`, number 11 has 100 KiB and some have a page or more. The bytes
 * live as long as the process. */
enum { KEY_ID_MAX = 65536, KEY_ID_NONE = UINT32_MAX };
const void *key_of_id(uint32_t id, size_t *size);
/* The id of a key, or KEY_ID_NONE for bytes that nobody put. */
uint32_t id_of_key(const void *key, size_t key_size);
/* Value bytes: valid until the next call. */
const void *value_of_tag(uint64_t tag, size_t size);
bool value_has_tag(const void *value, size_t size, uint64_t tag);

/* ---- the model ---------------------------------------------------------------------------------------------------- */

struct oracle_entry {
    uint64_t tag;
    uint64_t version; // as the map last told, or 0
    uint32_t size;    // of the value, bytes
    bool present;
};
struct oracle {
    struct oracle_entry *entries; // by id
    uint32_t ids;
    uint64_t count;
    uint64_t live_bytes; // as odm_stat counts
};
void oracle_init(struct oracle *oracle, uint32_t ids);
void oracle_free(struct oracle *oracle);
void oracle_copy(struct oracle *to, const struct oracle *from); // `to` is initialized by it
void oracle_put(struct oracle *oracle, uint32_t id, uint64_t tag, uint32_t size);
void oracle_remove(struct oracle *oracle, uint32_t id);
void oracle_clear(struct oracle *oracle);

/* NULL if the map holds exactly this, by every way of reading it; else what differs. */
const char *oracle_mismatch(const struct oracle *oracle, odm_map *map);

/* ---- writes ------------------------------------------------------------------------------------------------------- */

enum write_kind { WRITE_PUT, WRITE_REMOVE, WRITE_CLEAR };
struct test_write {
    enum write_kind kind;
    uint32_t id;
    uint32_t size;
    uint64_t tag;
};
/* A random one: mostly puts, some removes, a clear now and then if `clears`. size_max: of values. */
struct test_write write_random(struct sequence *sequence, uint32_t ids, uint32_t size_max, bool clears);
/* Does it to a map: ODM_OK, also for a remove of what is not there, or an error. */
odm_status write_do(const struct test_write *write, odm_map *map);
void write_apply(const struct test_write *write, struct oracle *oracle);

/* Which state of a history a map shows: the number n, from <= n <= to, so that it holds exactly what the first n writes make
 * of `start`; SIZE_MAX if none, and *why. */
size_t prefix_shown(odm_map *map, const struct oracle *start, const struct test_write *writes, size_t from, size_t to,
                    const char **why);

#endif
