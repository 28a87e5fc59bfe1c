/* oracle.c - what a map should hold. Contract: oracle.h. */
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(void *memory)
{
    if (memory != NULL) return memory;
    fputs("a test is out of memory\n", stderr);
    abort();
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static uint64_t scramble(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t sequence_next(struct sequence *sequence)
{
    sequence->state += UINT64_C(0x9e3779b97f4a7c15);
    return scramble(sequence->state);
}

uint64_t sequence_below(struct sequence *sequence, uint64_t limit)
{
    return limit == 0 ? 0 : sequence_next(sequence) % limit;
}

size_t count_of(const char *variable, size_t usual)
{
    const char *text = getenv(variable);
    return text == NULL || text[0] == '\0' ? usual : strtoull(text, NULL, 10);
}

uint64_t seed_of_run(void)
{
    return count_of("ODM_TEST_SEED", 1);
}

struct sequence sequence_start(uint64_t salt)
{
    return (struct sequence){scramble(seed_of_run()) ^ scramble(salt + 77)};
}

/* ---- keys and values ---------------------------------------------------------------------------------------------- */

enum { DIGITS = 7, SHORT_KEYS = 4 }; // Key 0 is empty; keys 1 to 3 have one byte; the others begin with their number.

static size_t key_size_of(uint32_t id)
{
    static const uint16_t sizes[] = {7, 8, 9, 15, 16, 17, 23, 24, 25, 40, 63, 64, 255, 256, 257, 300};
    if (id == 0) return 0;
    if (id < SHORT_KEYS) return 1;
    if (id == 11) return 100 * 1024;
    if (id % 389 == 10) return 4095 + id % 3;
    return sizes[scramble(id) % (sizeof sizes / sizeof sizes[0])];
}

const void *key_of_id(uint32_t id, size_t *size)
{
    static unsigned char *keys[KEY_ID_MAX];
    *size = key_size_of(id);
    if (keys[id] != NULL) return keys[id];
    unsigned char *key = need(malloc(*size + 1));
    if (id < SHORT_KEYS) {
        key[0] = (unsigned char)('a' + id);
    } else {
        for (uint32_t i = 0, rest = id; i < DIGITS; ++i, rest /= 10)
            key[DIGITS - 1 - i] = (unsigned char)('0' + rest % 10);
        for (size_t i = DIGITS; i < *size; ++i) key[i] = (unsigned char)scramble(id * UINT64_C(1000003) + i);
    }
    keys[id] = key;
    return key;
}

uint32_t id_of_key(const void *key, size_t key_size)
{
    const unsigned char *bytes = key;
    uint32_t id = 0;
    if (key_size == 1) id = (uint32_t)bytes[0] - 'a';
    if (key_size > 1 && key_size < DIGITS) return KEY_ID_NONE;
    for (size_t i = 0; i < DIGITS && key_size >= DIGITS; ++i) id = id * 10 + (uint32_t)(bytes[i] - '0');
    if (id >= KEY_ID_MAX) return KEY_ID_NONE;
    size_t size;
    const void *right = key_of_id(id, &size);
    return size == key_size && (size == 0 || memcmp(right, key, size) == 0) ? id : KEY_ID_NONE;
}

const void *value_of_tag(uint64_t tag, size_t size)
{
    static _Thread_local uint64_t *words;
    static _Thread_local size_t room;
    size_t needed = size / 8 + 1;
    if (needed > room) {
        words = need(realloc(words, needed * sizeof *words));
        room = needed;
    }
    for (size_t i = 0; i < needed; ++i) words[i] = i == 0 ? tag : scramble(tag + i);
    return words;
}

bool value_has_tag(const void *value, size_t size, uint64_t tag)
{
    const unsigned char *bytes = value;
    uint64_t word = tag, is;
    size_t i = 0;
    for (; size - i >= 8; word = scramble(tag + i / 8)) {
        memcpy(&is, bytes + i, 8);
        if (is != word) return false;
        i += 8;
    }
    return i == size || memcmp(bytes + i, &word, size - i) == 0;
}

/* ---- the model ---------------------------------------------------------------------------------------------------- */

void oracle_init(struct oracle *oracle, uint32_t ids)
{
    *oracle = (struct oracle){.ids = ids, .entries = need(calloc(ids, sizeof *oracle->entries))};
}

void oracle_free(struct oracle *oracle)
{
    free(oracle->entries);
    oracle->entries = NULL;
}

void oracle_copy(struct oracle *to, const struct oracle *from)
{
    *to = *from;
    to->entries = need(malloc(from->ids * sizeof *to->entries));
    memcpy(to->entries, from->entries, from->ids * sizeof *to->entries);
}

static uint64_t up_to_8(uint64_t size)
{
    return (size + 7) / 8 * 8;
}

/* What FORMAT.md says of a record's size, told again on purpose. */
static uint64_t record_bytes(uint32_t id, uint32_t value_size)
{
    return 24 + up_to_8(key_size_of(id)) + up_to_8(value_size);
}

void oracle_remove(struct oracle *oracle, uint32_t id)
{
    struct oracle_entry *entry = &oracle->entries[id];
    if (!entry->present) return;
    --oracle->count;
    oracle->live_bytes -= record_bytes(id, entry->size);
    *entry = (struct oracle_entry){.present = false};
}

void oracle_put(struct oracle *oracle, uint32_t id, uint64_t tag, uint32_t size)
{
    oracle_remove(oracle, id);
    oracle->entries[id] = (struct oracle_entry){.tag = tag, .size = size, .present = true};
    ++oracle->count;
    oracle->live_bytes += record_bytes(id, size);
}

void oracle_clear(struct oracle *oracle)
{
    memset(oracle->entries, 0, oracle->ids * sizeof *oracle->entries);
    oracle->count = oracle->live_bytes = 0;
}

static char mismatch[400];
#define MISMATCH(...) (snprintf(mismatch, sizeof mismatch, __VA_ARGS__), (const char *)mismatch)

static const char *detail_of(odm_map *map)
{
    static odm_error error;
    error.struct_size = sizeof error;
    odm_last_error(map, &error);
    return error.message;
}

static const char *gets_differ(const struct oracle *oracle, odm_map *map)
{
    for (uint32_t id = 0; id < oracle->ids; ++id) {
        const struct oracle_entry *entry = &oracle->entries[id];
        size_t key_size, value_size = 0;
        const void *value = NULL;
        const void *key = key_of_id(id, &key_size);
        odm_status status = odm_get(map, key, key_size, &value, &value_size);
        if (status < 0) return MISMATCH("get of key %u: %s, %s", id, odm_status_name(status), detail_of(map));
        if (status != (entry->present ? ODM_OK : ODM_NOT_FOUND))
            return MISMATCH("get of key %u: %s", id, odm_status_name(status));
        if (status != ODM_OK) continue;
        if ((uintptr_t)value % 8 != 0) return MISMATCH("the value of key %u is not aligned", id);
        if (value_size != entry->size || !value_has_tag(value, value_size, entry->tag))
            return MISMATCH("the value of key %u (%zu bytes) is not the one last put (%u bytes)", id, value_size,
                            entry->size);
    }
    return NULL;
}

static const char *walk_differs(const struct oracle *oracle, odm_map *map)
{
    bool *seen = need(calloc(oracle->ids, 1));
    const char *why = NULL;
    odm_iter *iter = NULL;
    odm_status status = odm_iter_open(map, &iter);
    uint64_t count = 0;
    while (status == ODM_OK && why == NULL) {
        const void *key, *value;
        size_t key_size, value_size;
        status = odm_iter_next(iter, &key, &key_size, &value, &value_size);
        if (status != ODM_OK) break;
        uint32_t id = id_of_key(key, key_size);
        if (id >= oracle->ids) {
            why = MISMATCH("a walk gave a key of %zu bytes that nobody put", key_size);
        } else if (seen[id]) {
            why = MISMATCH("a walk gave key %u twice", id);
        } else if (!oracle->entries[id].present) {
            why = MISMATCH("a walk gave key %u, which is not there", id);
        } else if (value_size != oracle->entries[id].size ||
                   !value_has_tag(value, value_size, oracle->entries[id].tag)) {
            why = MISMATCH("a walk gave a wrong value for key %u", id);
        } else {
            seen[id] = true;
            ++count;
        }
    }
    odm_iter_close(iter);
    free(seen);
    if (why != NULL) return why;
    if (status != ODM_DONE) return MISMATCH("a walk ended with %s, %s", odm_status_name(status), detail_of(map));
    if (count != oracle->count)
        return MISMATCH("a walk gave %llu keys of %llu", (unsigned long long)count, (unsigned long long)oracle->count);
    return NULL;
}

const char *oracle_mismatch(const struct oracle *oracle, odm_map *map)
{
    const char *why = gets_differ(oracle, map);
    if (why == NULL) why = walk_differs(oracle, map);
    if (why != NULL) return why;
    if (odm_count(map) != oracle->count)
        return MISMATCH("odm_count is %llu, not %llu", (unsigned long long)odm_count(map),
                        (unsigned long long)oracle->count);
    odm_statistics statistics = {.struct_size = sizeof statistics};
    odm_status status = odm_stat(map, &statistics);
    if (status != ODM_OK) return MISMATCH("odm_stat: %s, %s", odm_status_name(status), detail_of(map));
    if (statistics.count != oracle->count || statistics.live_bytes != oracle->live_bytes)
        return MISMATCH("odm_stat counts %llu keys, %llu live bytes; right are %llu and %llu",
                        (unsigned long long)statistics.count, (unsigned long long)statistics.live_bytes,
                        (unsigned long long)oracle->count, (unsigned long long)oracle->live_bytes);
    // A private index goes without the lock file, and so without the tail.
    if (statistics.recovery_kind != ODM_RECOVERY_PRIVATE &&
        statistics.live_bytes + statistics.dead_bytes != statistics.log_bytes)
        return MISMATCH("live %llu and dead %llu bytes are not the log's %llu",
                        (unsigned long long)statistics.live_bytes, (unsigned long long)statistics.dead_bytes,
                        (unsigned long long)statistics.log_bytes);
    return NULL;
}

/* ---- writes ------------------------------------------------------------------------------------------------------- */

struct test_write write_random(struct sequence *sequence, uint32_t ids, uint32_t size_max, bool clears)
{
    static const uint32_t sizes[] = {0, 1, 7, 8, 9, 16, 31, 100, 200, 500};
    struct test_write write = {.kind = WRITE_PUT, .tag = sequence_next(sequence)};
    write.id = (uint32_t)sequence_below(sequence, ids);
    write.size = sizes[sequence_below(sequence, sizeof sizes / sizeof sizes[0])];
    uint64_t rare = sequence_below(sequence, 200);
    if (rare < 3) write.size = 4095 + (uint32_t)rare; // a page, less and more
    if (rare == 3) write.size = 20000;                // more than a usual segment of the test build
    if (write.size > size_max) write.size %= size_max + 1;
    if (rare >= 160) write.kind = WRITE_REMOVE;
    if (rare == 199 && clears && sequence_below(sequence, 4) == 0) write.kind = WRITE_CLEAR;
    return write;
}

odm_status write_do(const struct test_write *write, odm_map *map)
{
    size_t key_size;
    const void *key = key_of_id(write->id, &key_size);
    if (write->kind == WRITE_CLEAR) return odm_clear(map, NULL);
    if (write->kind == WRITE_PUT)
        return odm_put(map, key, key_size, value_of_tag(write->tag, write->size), write->size);
    odm_status status = odm_remove(map, key, key_size);
    return status == ODM_NOT_FOUND ? ODM_OK : status;
}

void write_apply(const struct test_write *write, struct oracle *oracle)
{
    if (write->kind == WRITE_CLEAR) oracle_clear(oracle);
    if (write->kind == WRITE_PUT) oracle_put(oracle, write->id, write->tag, write->size);
    if (write->kind == WRITE_REMOVE) oracle_remove(oracle, write->id);
}

/* What a map shows of a key: a value that stays where it is until the handle is refreshed. */
struct shown {
    const void *value;
    size_t size;
    bool present;
};

static bool is_as(const struct shown *shown, const struct oracle_entry *entry)
{
    if (shown->present != entry->present) return false;
    return !shown->present || (shown->size == entry->size && value_has_tag(shown->value, shown->size, entry->tag));
}

size_t prefix_shown(odm_map *map, const struct oracle *start, const struct test_write *writes, size_t from, size_t to,
                    const char **why)
{
    struct oracle state;
    oracle_copy(&state, start);
    struct shown *shown = need(calloc(state.ids, sizeof *shown));
    bool *same = need(calloc(state.ids, 1));
    uint32_t different = 0;
    size_t result = SIZE_MAX;
    *why = NULL;
    for (uint32_t id = 0; id < state.ids && *why == NULL; ++id) {
        size_t key_size;
        const void *key = key_of_id(id, &key_size);
        odm_status status = odm_get(map, key, key_size, &shown[id].value, &shown[id].size);
        if (status < 0) *why = MISMATCH("get of key %u: %s, %s", id, odm_status_name(status), detail_of(map));
        shown[id].present = status == ODM_OK;
        same[id] = is_as(&shown[id], &state.entries[id]);
        different += !same[id];
    }
    uint32_t least = UINT32_MAX;
    for (size_t n = 0; *why == NULL; ++n) {
        if (n >= from && different < least) least = different;
        if (n >= from && different == 0) {
            result = n;
            break;
        }
        if (n == to) break;
        write_apply(&writes[n], &state);
        for (uint32_t id = 0; id < state.ids; ++id) {
            if (writes[n].kind != WRITE_CLEAR && id != writes[n].id) continue;
            bool now = is_as(&shown[id], &state.entries[id]);
            different = different + same[id] - now;
            same[id] = now;
        }
    }
    if (result != SIZE_MAX) {
        *why = oracle_mismatch(&state, map); // The same again by walking and counting.
        if (*why != NULL) result = SIZE_MAX;
    } else if (*why == NULL) {
        *why = MISMATCH("shown is no prefix of %zu to %zu writes: at best %u keys differ", from, to, least);
    }
    odm_refresh(map);
    free(shown);
    free(same);
    oracle_free(&state);
    return result;
}
