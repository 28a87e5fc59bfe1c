/* addon.c - opendiskmap for Node.js: unpacks arguments, calls the engine once, packs the result.
 *
 * C moves numbers and bytes; JavaScript (../lib) makes objects, types and errors. Nothing here decides anything about maps.
 *
 * How arguments come in: JavaScript writes keys and values into the scratch buffer, one per environment (a thread's Node.js),
 * and passes their ends. Key: from 0 to key_end. Value: from key_end to value_end; or, instead of value_end, a Uint8Array of
 * its own, or a string, which is written behind the key here. A version goes both ways in state[0] (low half) and state[1]; how many of a batch were done
 * comes back in state[2], and how many bytes a walk gave in state[3].
 *
 * How results go out: a negative number is a status of the engine, or CLOSED. A value is undefined if it is absent; a string
 * if the map's values are text; else its size, and its bytes are in the scratch buffer; else, if it is too long for that, an
 * ArrayBuffer. Everything is copied before the call returns, and the handle is refreshed: nothing is left lent.
 *
 * What always holds:
 *   1. No code of the user runs between the writing of the scratch buffer and the call: ../lib sees to that.
 *   2. The functions of a map carry it as their data, and live in one object whose finalizer frees it. That object is the
 *      receiver of every call, so it outlives the call.
 *
 * Threads: an environment's functions run in its thread. job_run alone runs in libuv's pool, on a handle of its own.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define NAPI_VERSION 8
#include <node_api.h>
#include <opendiskmap.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLOSED = -100,   /* the map was closed */
    TOO_LONG = -101, /* longer than a string of JavaScript can be */
    DOUBTFUL =
        -102, /* a string that may have a lone surrogate, or is too long for the scratch buffer: pass its bytes */
};
enum { BATCH_MAX = 1024 };                   /* entries a call */
enum { BATCH_BYTES_MAX = 64 * 1024 * 1024 }; /* of values a call, unless one alone is longer */
enum { TEXT_SLACK = 4 };                     /* bytes: a string that was cut short leaves less room than that */
enum { VALUE_UNIT = 8 };                     /* packed values begin at multiples of it */
#define PACKED_ABSENT UINT32_MAX

/* What the maps of one environment share. */
struct environment {
    uint8_t *scratch;
    size_t scratch_size;
    uint32_t *state;
    napi_ref scratch_ref, state_ref, list_of_ref;
};
enum { STATE_VERSION_LOW, STATE_VERSION_HIGH, STATE_DONE, STATE_BYTES };

struct binding {
    odm_map *map; // NULL: closed
    struct environment *environment;
    bool text_keys, text_values;
    uint32_t views; // buffers of view() that are in use: no refresh meanwhile
};

/* ---- numbers, strings, errors ------------------------------------------------------------------------------------- */

/* Of Node-API itself, such as a wrong type of argument: a mistake in ../lib, or no memory. */
static napi_value node_failed(napi_env env)
{
    const napi_extended_error_info *info = NULL;
    bool pending = false;
    napi_get_last_error_info(env, &info);
    const char *message = info != NULL && info->error_message != NULL ? info->error_message : "Node-API failed";
    napi_is_exception_pending(env, &pending);
    if (!pending) napi_throw_error(env, "ERR_NODE_API", message);
    return NULL;
}
#define TRY(call)                                       \
    do {                                                \
        if ((call) != napi_ok) return node_failed(env); \
    } while (0)

static napi_value number(napi_env env, double n)
{
    napi_value result;
    TRY(napi_create_double(env, n, &result));
    return result;
}

static napi_value status_number(napi_env env, odm_status status)
{
    napi_value result;
    TRY(napi_create_int32(env, status, &result));
    return result;
}

static bool is_ascii(const uint8_t *bytes, size_t size)
{
    uint64_t seen = 0, word;
    size_t i = 0;
    for (; i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, bytes + i, sizeof word);
        seen |= word;
    }
    for (; i < size; i++) seen |= bytes[i];
    return (seen & UINT64_C(0x8080808080808080)) == 0;
}

enum { CACHE_LINE = 64, FETCH_MAX = 8 * CACHE_LINE };

/* Asks for all lines of a value before the first is looked at: else each is waited for by itself. */
static inline __attribute__((always_inline)) void fetch(const void *value, size_t size)
{
    for (size_t i = 0; i < size && i < FETCH_MAX; i += CACHE_LINE) __builtin_prefetch((const uint8_t *)value + i);
}

static napi_value text_as(napi_env env, const void *bytes, size_t size, bool ascii)
{
    napi_value result;
    if (size > INT32_MAX) return status_number(env, TOO_LONG);
    napi_status made = ascii ? napi_create_string_latin1(env, bytes, size, &result)
                             : napi_create_string_utf8(env, bytes, size, &result);
    if (made == napi_ok) return result;
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    return pending ? NULL : status_number(env, TOO_LONG);
}

/* Most text is ASCII, and that is copied as it is. What is not UTF-8 becomes U+FFFD. */
static napi_value text(napi_env env, const void *bytes, size_t size)
{
    return text_as(env, bytes, size, is_ascii(bytes, size));
}

static napi_value bytes_copied(napi_env env, const void *bytes, size_t size)
{
    napi_value result;
    void *to;
    TRY(napi_create_arraybuffer(env, size, &to, &result));
    if (size > 0) memcpy(to, bytes, size);
    return result;
}

/* ---- arguments ---------------------------------------------------------------------------------------------------- */

/* The arguments of a call to one of a map's functions. NULL: the map is closed, or something was thrown. */
static struct binding *arguments(napi_env env, napi_callback_info info, size_t count, napi_value *argv)
{
    struct binding *binding = NULL;
    if (napi_get_cb_info(env, info, &count, argv, NULL, (void **)&binding) != napi_ok) {
        node_failed(env);
        return NULL;
    }
    return binding->map != NULL ? binding : NULL;
}

static napi_value closed(napi_env env)
{
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    return pending ? NULL : status_number(env, CLOSED);
}

static uint32_t u32_of(napi_env env, napi_value value)
{
    uint32_t n = 0;
    napi_get_value_uint32(env, value, &n);
    return n;
}

/* A typed array's memory. */
struct array {
    void *data;
    size_t count;
};

/* False for null and undefined. */
static bool array_of(napi_env env, napi_value value, struct array *array)
{
    return napi_get_typedarray_info(env, value, NULL, &array->count, &array->data, NULL, NULL) == napi_ok;
}

/* Lets go of what a call was lent, unless a view looks at the map. */
static void settle(struct binding *binding)
{
    if (binding->views == 0) odm_refresh(binding->map);
}

struct slice {
    const void *data;
    size_t size;
};

static struct slice key_of(const struct binding *binding, uint32_t key_end)
{
    size_t room = binding->environment->scratch_size;
    return (struct slice){binding->environment->scratch, key_end <= room ? key_end : room};
}

/* Writes a string behind the key. A lone surrogate becomes U+FFFD, which must not be stored silently. */
static odm_status text_of(napi_env env, const struct binding *binding, uint32_t key_end, napi_value string,
                          struct slice *value)
{
    char *to = (char *)binding->environment->scratch + key_end;
    size_t room = binding->environment->scratch_size - key_end, size;
    if (napi_get_value_string_utf8(env, string, to, room, &size) != napi_ok) return ODM_E_INVALID;
    if (size + TEXT_SLACK >= room) return DOUBTFUL;
    if (!is_ascii((uint8_t *)to, size) && memmem(to, size, "\xef\xbf\xbd", 3) != NULL) return DOUBTFUL;
    *value = (struct slice){to, size};
    return ODM_OK;
}

/* The value of a call: it follows its key in the scratch buffer, or is an array of its own, or a string. */
static odm_status value_of(napi_env env, const struct binding *binding, uint32_t key_end, napi_value argument,
                           struct slice *value)
{
    uint32_t end;
    if (key_end > binding->environment->scratch_size) return ODM_E_INVALID;
    if (napi_get_value_uint32(env, argument, &end) == napi_ok) {
        if (end < key_end || end > binding->environment->scratch_size) return ODM_E_INVALID;
        *value = (struct slice){binding->environment->scratch + key_end, end - key_end};
        return ODM_OK;
    }
    struct array array;
    if (!array_of(env, argument, &array)) return text_of(env, binding, key_end, argument, value);
    *value = (struct slice){array.data, array.count};
    return ODM_OK;
}

/* ---- one key ------------------------------------------------------------------------------------------------------ */

/* A value as JavaScript takes it, copied. */
static napi_value value_copied(napi_env env, const struct binding *binding, const void *value, size_t size)
{
    fetch(value, size);
    if (binding->text_values) return text(env, value, size);
    struct environment *environment = binding->environment;
    if (size > environment->scratch_size) return bytes_copied(env, value, size);
    memcpy(environment->scratch, value, size);
    return number(env, (double)size);
}

/* get(key_end): the value. */
static napi_value map_get(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct binding *binding = arguments(env, info, 1, argv);
    if (binding == NULL) return closed(env);
    struct slice key = key_of(binding, u32_of(env, argv[0]));

    const void *value;
    size_t value_size;
    odm_status status = odm_get(binding->map, key.data, key.size, &value, &value_size);
    if (status == ODM_NOT_FOUND) return NULL; // Node-API's undefined: what Map.prototype.get gives.
    if (status != ODM_OK) return status_number(env, status);
    napi_value result = value_copied(env, binding, value, value_size);
    settle(binding);
    return result;
}

/* has(key_end): 0 yes, 1 no, or an error. */
static napi_value map_has(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct binding *binding = arguments(env, info, 1, argv);
    if (binding == NULL) return closed(env);
    struct slice key = key_of(binding, u32_of(env, argv[0]));
    return status_number(env, odm_get(binding->map, key.data, key.size, NULL, NULL));
}

/* put(key_end, value): a status. */
static napi_value map_put(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    struct binding *binding = arguments(env, info, 2, argv);
    if (binding == NULL) return closed(env);
    uint32_t key_end = u32_of(env, argv[0]);
    struct slice key = key_of(binding, key_end), value;
    odm_status status = value_of(env, binding, key_end, argv[1], &value);
    if (status != ODM_OK) return status_number(env, status);
    return status_number(env, odm_put(binding->map, key.data, key.size, value.data, value.size));
}

/* remove(key_end): a status. */
static napi_value map_remove(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct binding *binding = arguments(env, info, 1, argv);
    if (binding == NULL) return closed(env);
    struct slice key = key_of(binding, u32_of(env, argv[0]));
    return status_number(env, odm_remove(binding->map, key.data, key.size));
}

/* A shorter value is copied by view(): that takes less time than to make and end a buffer in the map's memory. */
enum { VIEW_COPY_MAX = 4096 };

static void lent_ends(napi_env env, void *data, void *hint)
{
    (void)env, (void)data, (void)hint; // The handle's refresh ends it.
}

/* view(key_end): the value as an ArrayBuffer, in the map's own memory if it is long; undefined if it is absent. Until
 * viewEnd() nothing that was lent ends. */
static napi_value map_view(napi_env env, napi_callback_info info)
{
    napi_value argv[1], result;
    struct binding *binding = arguments(env, info, 1, argv);
    if (binding == NULL) return closed(env);
    struct slice key = key_of(binding, u32_of(env, argv[0]));

    const void *value;
    size_t size;
    odm_status status = odm_get(binding->map, key.data, key.size, &value, &size);
    if (status == ODM_NOT_FOUND) return NULL;
    if (status != ODM_OK) return status_number(env, status);
    // The engine lends memory for reading only; Node-API has no const. Forbidden in some hosts, such as Electron.
    void *lent = (void *)(uintptr_t)value;
    if (size <= VIEW_COPY_MAX ||
        napi_create_external_arraybuffer(env, lent, size, lent_ends, NULL, &result) != napi_ok) {
        result = bytes_copied(env, value, size);
        if (result == NULL) return NULL;
    }
    binding->views++;
    return result;
}

/* viewEnd(arraybuffer): takes the memory away from it, and lets go of it after the last one. Also after close. */
static napi_value map_view_end(napi_env env, napi_callback_info info)
{
    size_t argc = 1;
    napi_value argv[1];
    struct binding *binding;
    TRY(napi_get_cb_info(env, info, &argc, argv, NULL, (void **)&binding));
    TRY(napi_detach_arraybuffer(env, argv[0]));
    binding->views--;
    if (binding->map != NULL) settle(binding);
    return NULL;
}

/* ---- entries ------------------------------------------------------------------------------------------------------ */

static void version_out(const struct binding *binding, uint64_t version)
{
    binding->environment->state[STATE_VERSION_LOW] = (uint32_t)version;
    binding->environment->state[STATE_VERSION_HIGH] = (uint32_t)(version >> 32);
}

static uint64_t version_in(const struct binding *binding)
{
    const uint32_t *state = binding->environment->state;
    return (uint64_t)state[STATE_VERSION_HIGH] << 32 | state[STATE_VERSION_LOW];
}

/* entryGet(key_end): as get, and sets the version. */
static napi_value map_entry_get(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct binding *binding = arguments(env, info, 1, argv);
    if (binding == NULL) return closed(env);
    struct slice key = key_of(binding, u32_of(env, argv[0]));

    const void *value;
    size_t value_size;
    uint64_t version;
    odm_status status = odm_entry_get(binding->map, key.data, key.size, &value, &value_size, &version);
    version_out(binding, version);
    if (status == ODM_NOT_FOUND) return NULL;
    if (status != ODM_OK) return status_number(env, status);
    napi_value result = value_copied(env, binding, value, value_size);
    settle(binding);
    return result;
}

/* entryPut(key_end, value): puts if the key is still at the version. */
static napi_value map_entry_put(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    struct binding *binding = arguments(env, info, 2, argv);
    if (binding == NULL) return closed(env);
    uint32_t key_end = u32_of(env, argv[0]);
    struct slice key = key_of(binding, key_end), value;
    odm_status status = value_of(env, binding, key_end, argv[1], &value);
    if (status != ODM_OK) return status_number(env, status);
    return status_number(env,
                         odm_entry_put(binding->map, key.data, key.size, value.data, value.size, version_in(binding)));
}

/* entryRemove(key_end): removes the key if it is still at the version. */
static napi_value map_entry_remove(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct binding *binding = arguments(env, info, 1, argv);
    if (binding == NULL) return closed(env);
    struct slice key = key_of(binding, u32_of(env, argv[0]));
    return status_number(env, odm_entry_remove(binding->map, key.data, key.size, version_in(binding)));
}

/* entryIs(key_end, value): 0 if the key's value has just these bytes (the version is set), 1 if it is absent, 4 if it has
 * others; or an error. */
static napi_value map_entry_is(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    struct binding *binding = arguments(env, info, 2, argv);
    if (binding == NULL) return closed(env);
    uint32_t key_end = u32_of(env, argv[0]);
    struct slice key = key_of(binding, key_end), wanted;
    odm_status status = value_of(env, binding, key_end, argv[1], &wanted);
    if (status != ODM_OK) return status_number(env, status);

    const void *value;
    size_t value_size;
    uint64_t version;
    status = odm_entry_get(binding->map, key.data, key.size, &value, &value_size, &version);
    version_out(binding, version);
    if (status == ODM_OK) {
        bool same = value_size == wanted.size && (value_size == 0 || memcmp(value, wanted.data, value_size) == 0);
        if (!same) status = ODM_CONFLICT;
        settle(binding);
    }
    return status_number(env, status);
}

/* ---- many keys ---------------------------------------------------------------------------------------------------- */

static size_t padded(size_t size)
{
    return (size + VALUE_UNIT - 1) / VALUE_UNIT * VALUE_UNIT;
}

enum { FETCH_AHEAD = 4 }; /* values */

static inline __attribute__((always_inline)) void fetch_present(const void *value, uint64_t size)
{
    if (size != ODM_ABSENT) fetch(value, (size_t)size);
}

/* An array of n strings: undefined for those that are absent, TOO_LONG for those that are. Made by one call of
 * Array.of: to set its elements one by one takes several times as long. Tells whether all are ASCII. */
static napi_value texts(napi_env env, const struct environment *environment, size_t n, const void **values,
                        const uint64_t *sizes, bool *all_ascii)
{
    napi_value result, undefined, list_of, strings[BATCH_MAX];
    *all_ascii = true;
    TRY(napi_get_undefined(env, &undefined));
    for (size_t i = 0; i < n && i < FETCH_AHEAD; i++) fetch_present(values[i], sizes[i]);
    for (size_t i = 0; i < n; i++) {
        if (i + FETCH_AHEAD < n) fetch_present(values[i + FETCH_AHEAD], sizes[i + FETCH_AHEAD]);
        strings[i] = undefined;
        if (sizes[i] == ODM_ABSENT) continue;
        bool ascii = is_ascii(values[i], (size_t)sizes[i]);
        *all_ascii &= ascii;
        strings[i] = text_as(env, values[i], (size_t)sizes[i], ascii);
        if (strings[i] == NULL) return NULL;
    }
    TRY(napi_get_reference_value(env, environment->list_of_ref, &list_of));
    TRY(napi_call_function(env, undefined, list_of, n, strings, &result));
    return result;
}

/* An ArrayBuffer with n values one behind the other, each padded to a multiple of VALUE_UNIT. Their sizes go to sizes_out. */
static napi_value packed(napi_env env, size_t n, const void **values, const uint64_t *sizes, uint32_t *sizes_out)
{
    napi_value result;
    size_t total = 0, at = 0;
    uint8_t *to;
    for (size_t i = 0; i < n; i++) total += sizes[i] == ODM_ABSENT ? 0 : padded((size_t)sizes[i]);
    TRY(napi_create_arraybuffer(env, total, (void **)&to, &result));
    for (size_t i = 0; i < n; i++) {
        bool absent = sizes[i] == ODM_ABSENT;
        sizes_out[i] = absent ? PACKED_ABSENT : (uint32_t)sizes[i];
        if (absent || sizes[i] == 0) continue;
        memcpy(to + at, values[i], (size_t)sizes[i]);
        at += padded((size_t)sizes[i]);
    }
    return result;
}

/* How many of n values one call should give out. */
static size_t within_batch(size_t n, const uint64_t *sizes)
{
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (sizes[i] != ODM_ABSENT) total += sizes[i];
        if (total > BATCH_BYTES_MAX) return i > 0 ? i : 1;
    }
    return n;
}

static void widen(size_t n, const uint32_t *from, uint64_t *to)
{
    for (size_t i = 0; i < n; i++) to[i] = from[i];
}

/* getMany(n, keys, ends, sizes): the first state[2] values, as an array of strings or packed, their sizes in `sizes`; or a
 * negative number. */
static napi_value map_get_many(napi_env env, napi_callback_info info)
{
    napi_value argv[4], result;
    struct binding *binding = arguments(env, info, 4, argv);
    if (binding == NULL) return closed(env);
    size_t n = u32_of(env, argv[0]);
    struct array keys, ends, sizes_out;
    bool fine = array_of(env, argv[1], &keys) && array_of(env, argv[2], &ends) && array_of(env, argv[3], &sizes_out);
    if (!fine || n > BATCH_MAX || n > ends.count || n > sizes_out.count) return status_number(env, ODM_E_INVALID);

    uint64_t key_ends[BATCH_MAX], sizes[BATCH_MAX];
    const void *values[BATCH_MAX];
    widen(n, ends.data, key_ends);
    odm_status status = odm_get_many(binding->map, &n, keys.data, key_ends, values, sizes);
    if (status != ODM_OK) {
        result = status_number(env, status);
    } else {
        bool ascii;
        n = within_batch(n, sizes);
        binding->environment->state[STATE_DONE] = (uint32_t)n;
        result = binding->text_values ? texts(env, binding->environment, n, values, sizes, &ascii)
                                      : packed(env, n, values, sizes, sizes_out.data);
    }
    settle(binding);
    return result;
}

/* writeMany(n, ops, keys, key_ends, values, value_ends, outcomes): a status; how many were done is in state[2]. */
static napi_value map_write_many(napi_env env, napi_callback_info info)
{
    napi_value argv[7];
    struct binding *binding = arguments(env, info, 7, argv);
    if (binding == NULL) return closed(env);
    size_t n = u32_of(env, argv[0]);
    struct array ops, keys, key_ends, values, value_ends, outcomes;
    bool fine = array_of(env, argv[1], &ops) && array_of(env, argv[2], &keys) && array_of(env, argv[3], &key_ends) &&
                array_of(env, argv[4], &values) && array_of(env, argv[5], &value_ends) &&
                array_of(env, argv[6], &outcomes);
    if (!fine || n > BATCH_MAX || n > ops.count || n > key_ends.count || n > value_ends.count || n > outcomes.count) {
        return status_number(env, ODM_E_INVALID);
    }
    uint64_t key_ends_wide[BATCH_MAX], value_ends_wide[BATCH_MAX];
    widen(n, key_ends.data, key_ends_wide);
    widen(n, value_ends.data, value_ends_wide);
    odm_status status = odm_write_many(binding->map, &n, ops.data, keys.data, key_ends_wide, values.data,
                                       value_ends_wide, outcomes.data);
    binding->environment->state[STATE_DONE] = (uint32_t)n;
    return status_number(env, status);
}

/* ---- walking ------------------------------------------------------------------------------------------------------ */

static void walk_free(napi_env env, void *iter, void *hint)
{
    (void)env, (void)hint;
    odm_iter_close(*(odm_iter **)iter);
    free(iter);
}

/* walkOpen(): a walk, closed by walkClose or the garbage collector; or a status. */
static napi_value map_walk_open(napi_env env, napi_callback_info info)
{
    struct binding *binding = arguments(env, info, 0, NULL);
    if (binding == NULL) return closed(env);
    odm_iter **iter = malloc(sizeof(odm_iter *));
    if (iter == NULL) return status_number(env, ODM_E_NO_MEMORY);
    odm_status status = odm_iter_open(binding->map, iter);
    napi_value result;
    if (status == ODM_OK && napi_create_external(env, iter, walk_free, NULL, &result) == napi_ok) return result;
    if (status != ODM_OK) *iter = NULL;
    walk_free(env, iter, NULL);
    return status != ODM_OK ? status_number(env, status) : node_failed(env);
}

static odm_iter **iter_of(napi_env env, napi_value external)
{
    void *iter = NULL;
    return napi_get_value_external(env, external, &iter) == napi_ok ? iter : NULL;
}

/* walkNext(walk, n, key_sizes, value_sizes): [keys, values, bytes], state[2] of each; or a status, 3 at the end.
 * value_sizes null: values are not asked for. `bytes` are the keys packed, where keys are strings that may not tell
 * all: what is no UTF-8 shows as U+FFFD. Else undefined. In place of a string that is too long there is TOO_LONG. */
static napi_value map_walk_next(napi_env env, napi_callback_info info)
{
    napi_value argv[4], result, side;
    struct binding *binding = arguments(env, info, 4, argv);
    if (binding == NULL) return closed(env);
    odm_iter **iter = iter_of(env, argv[0]);
    size_t n = u32_of(env, argv[1]);
    struct array key_sizes_out, value_sizes_out;
    bool want_keys = array_of(env, argv[2], &key_sizes_out), want_values = array_of(env, argv[3], &value_sizes_out);
    if (iter == NULL || n == 0 || n > BATCH_MAX || !want_keys || n > key_sizes_out.count ||
        (want_values && n > value_sizes_out.count)) {
        return status_number(env, ODM_E_INVALID);
    }

    const void *keys[BATCH_MAX], *values[BATCH_MAX];
    uint64_t key_sizes[BATCH_MAX], value_sizes[BATCH_MAX];
    odm_status status =
        odm_iter_next_many(*iter, &n, keys, key_sizes, want_values ? values : NULL, want_values ? value_sizes : NULL);
    if (status != ODM_OK) return status_number(env, status);
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += key_sizes[i] + (want_values ? value_sizes[i] : 0);
    binding->environment->state[STATE_DONE] = (uint32_t)n;
    binding->environment->state[STATE_BYTES] = bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
    TRY(napi_create_array(env, &result));
    bool ascii_keys = true, ascii_values;
    side = binding->text_keys ? texts(env, binding->environment, n, keys, key_sizes, &ascii_keys)
                              : packed(env, n, keys, key_sizes, key_sizes_out.data);
    if (side == NULL) return NULL;
    TRY(napi_set_element(env, result, 0, side));
    if (want_values) {
        side = binding->text_values ? texts(env, binding->environment, n, values, value_sizes, &ascii_values)
                                    : packed(env, n, values, value_sizes, value_sizes_out.data);
        if (side == NULL) return NULL;
        TRY(napi_set_element(env, result, 1, side));
    }
    if (!ascii_keys) {
        side = packed(env, n, keys, key_sizes, key_sizes_out.data);
        if (side == NULL) return NULL;
        TRY(napi_set_element(env, result, 2, side));
    }
    settle(binding);
    return result;
}

/* walkPosition(walk): a BigInt, or a status. */
static napi_value map_walk_position(napi_env env, napi_callback_info info)
{
    napi_value argv[1], result;
    struct binding *binding = arguments(env, info, 1, argv);
    if (binding == NULL) return closed(env);
    odm_iter **iter = iter_of(env, argv[0]);
    uint64_t position;
    odm_status status = iter != NULL ? odm_iter_position(*iter, &position) : ODM_E_INVALID;
    if (status != ODM_OK) return status_number(env, status);
    TRY(napi_create_bigint_uint64(env, position, &result));
    return result;
}

/* walkSeek(walk, position): a status. */
static napi_value map_walk_seek(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    struct binding *binding = arguments(env, info, 2, argv);
    if (binding == NULL) return closed(env);
    odm_iter **iter = iter_of(env, argv[0]);
    uint64_t position;
    bool whole;
    TRY(napi_get_value_bigint_uint64(env, argv[1], &position, &whole));
    return status_number(env, iter != NULL && whole ? odm_iter_seek(*iter, position) : ODM_E_INVALID);
}

/* walkClose(walk). Also after the map was closed. */
static napi_value map_walk_close(napi_env env, napi_callback_info info)
{
    size_t argc = 1;
    napi_value argv[1];
    TRY(napi_get_cb_info(env, info, &argc, argv, NULL, NULL));
    odm_iter **iter = iter_of(env, argv[0]);
    if (iter == NULL) return NULL;
    odm_iter_close(*iter);
    *iter = NULL; // The finalizer closes NULL, which is fine.
    return NULL;
}

/* ---- the map as a whole ------------------------------------------------------------------------------------------- */

/* count(): a number. */
static napi_value map_count(napi_env env, napi_callback_info info)
{
    struct binding *binding = arguments(env, info, 0, NULL);
    if (binding == NULL) return closed(env);
    return number(env, (double)odm_count(binding->map));
}

/* clear(): a status. */
static napi_value map_clear(napi_env env, napi_callback_info info)
{
    struct binding *binding = arguments(env, info, 0, NULL);
    if (binding == NULL) return closed(env);
    return status_number(env, odm_clear(binding->map, NULL));
}

/* types(textKeys, textValues): which sides are given out as strings. */
static napi_value map_types(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    struct binding *binding = arguments(env, info, 2, argv);
    if (binding == NULL) return closed(env);
    TRY(napi_get_value_bool(env, argv[0], &binding->text_keys));
    TRY(napi_get_value_bool(env, argv[1], &binding->text_values));
    return NULL;
}

/* schema(): the text the map was made with, '' if there is none. */
static napi_value map_schema(napi_env env, napi_callback_info info)
{
    struct binding *binding = arguments(env, info, 0, NULL);
    if (binding == NULL) return closed(env);
    const void *schema;
    size_t size;
    odm_status status = odm_schema(binding->map, &schema, &size);
    return status == ODM_OK ? text(env, size > 0 ? schema : "", size) : status_number(env, status);
}

/* Names of odm_statistics, as JavaScript writes them. Counts are numbers, places in the log BigInts. */
#define STATISTICS_NUMBERS(X)                 \
    X(stripes, "stripes")                     \
    X(count, "count")                         \
    X(slots, "slots")                         \
    X(capacity, "capacity")                   \
    X(tombstones, "tombstones")               \
    X(live_bytes, "liveBytes")                \
    X(log_bytes, "logBytes")                  \
    X(dead_bytes, "deadBytes")                \
    X(reserved_bytes, "reservedBytes")        \
    X(index_bytes, "indexBytes")              \
    X(unlinked_bytes, "unlinkedBytes")        \
    X(segments, "segments")                   \
    X(splits, "splits")                       \
    X(lock_waits, "lockWaits")                \
    X(compacted_bytes, "compactedBytes")      \
    X(recovery_records, "recoveryRecords")    \
    X(recovery_bytes_cut, "recoveryBytesCut") \
    X(recovery_kind, "recoveryKind")          \
    X(sync_failed, "syncFailed")
#define STATISTICS_ADDRESSES(X)                     \
    X(head, "head")                                 \
    X(tail, "tail")                                 \
    X(watermark, "watermark")                       \
    X(compaction_stopped_at, "compactionStoppedAt") \
    X(recovery_from, "recoveryFrom")

/* stat(): an object; or a status. */
static napi_value map_stat(napi_env env, napi_callback_info info)
{
    struct binding *binding = arguments(env, info, 0, NULL);
    if (binding == NULL) return closed(env);
    odm_statistics statistics = {.struct_size = sizeof statistics};
    odm_status status = odm_stat(binding->map, &statistics);
    if (status != ODM_OK) return status_number(env, status);

    napi_value result, value;
    TRY(napi_create_object(env, &result));
    char id[2 * sizeof statistics.map_id];
    for (size_t i = 0; i < sizeof id; i++) id[i] = "0123456789abcdef"[statistics.map_id[i / 2] >> (i % 2 ? 0 : 4) & 15];
    TRY(napi_create_string_latin1(env, id, sizeof id, &value));
    TRY(napi_set_named_property(env, result, "mapId", value));
#define SET_NUMBER(field, name)                                     \
    TRY(napi_create_double(env, (double)statistics.field, &value)); \
    TRY(napi_set_named_property(env, result, name, value));
#define SET_ADDRESS(field, name)                                   \
    TRY(napi_create_bigint_uint64(env, statistics.field, &value)); \
    TRY(napi_set_named_property(env, result, name, value));
    STATISTICS_NUMBERS(SET_NUMBER)
    STATISTICS_ADDRESSES(SET_ADDRESS)
    return result;
}

/* [status, errno, message] */
static napi_value detail(napi_env env, const odm_error *error)
{
    napi_value result, value;
    TRY(napi_create_array_with_length(env, 3, &result));
    TRY(napi_create_int32(env, error->status, &value));
    TRY(napi_set_element(env, result, 0, value));
    TRY(napi_create_int32(env, error->os_errno, &value));
    TRY(napi_set_element(env, result, 1, value));
    TRY(napi_create_string_utf8(env, error->message, NAPI_AUTO_LENGTH, &value));
    TRY(napi_set_element(env, result, 2, value));
    return result;
}

/* lastError(): [status, errno, message] of the last error. */
static napi_value map_last_error(napi_env env, napi_callback_info info)
{
    struct binding *binding = arguments(env, info, 0, NULL);
    if (binding == NULL) return closed(env);
    odm_error error = {.struct_size = sizeof error};
    odm_last_error(binding->map, &error);
    return detail(env, &error);
}

/* close(): closes the map, once. */
static napi_value map_close(napi_env env, napi_callback_info info)
{
    struct binding *binding = arguments(env, info, 0, NULL);
    if (binding == NULL) return NULL;
    odm_map *map = binding->map;
    binding->map = NULL;
    return status_number(env, odm_close(map));
}

/* ---- long work, in libuv's pool ----------------------------------------------------------------------------------- */

/* A job has a handle of its own, so the map stays usable meanwhile, and may even be closed. */
enum job_kind { JOB_SYNC, JOB_COMPACT, JOB_VERIFY, JOB_BACKUP };
struct job {
    enum job_kind kind;
    odm_map *map;
    char *path;
    odm_progress progress;
    odm_report report;
    odm_error error;
    odm_status status;
    napi_async_work work; // while a step runs
    napi_deferred deferred;
    napi_ref self; // keeps the job while a step runs
};

static void job_free(napi_env env, void *data, void *hint)
{
    (void)env, (void)hint;
    struct job *job = data;
    odm_close(job->map);
    free(job->path);
    free(job);
}

/* job(kind, path): a job to be run by steps; or [status, errno, message]. */
static napi_value map_job(napi_env env, napi_callback_info info)
{
    napi_value argv[2], result;
    struct binding *binding = arguments(env, info, 2, argv);
    if (binding == NULL) return closed(env);
    struct job *job = calloc(1, sizeof *job);
    odm_error error = {.struct_size = sizeof error, .status = ODM_E_NO_MEMORY, .message = "out of memory"};
    if (job == NULL) return detail(env, &error);
    job->kind = (enum job_kind)u32_of(env, argv[0]);
    job->progress.struct_size = sizeof job->progress;
    job->report.struct_size = sizeof job->report;
    job->error.struct_size = sizeof job->error;
    size_t path_size;
    if (napi_get_value_string_utf8(env, argv[1], NULL, 0, &path_size) == napi_ok) {
        job->path = malloc(path_size + 1);
        if (job->path == NULL) goto failed;
        napi_get_value_string_utf8(env, argv[1], job->path, path_size + 1, &path_size);
    }
    if (odm_dup(binding->map, &job->map, &error) != ODM_OK) goto failed;
    if (napi_create_external(env, job, job_free, NULL, &result) == napi_ok) return result;
    job_free(env, job, NULL);
    return node_failed(env);
failed:
    job_free(env, job, NULL);
    return detail(env, &error);
}

static void job_run(napi_env env, void *data)
{
    (void)env;
    struct job *job = data;
    switch (job->kind) {
        case JOB_SYNC: job->status = odm_sync(job->map, &job->error); break;
        case JOB_COMPACT: job->status = odm_compact(job->map, &job->progress, &job->error); break;
        case JOB_VERIFY: job->status = odm_verify(job->map, &job->report, &job->progress, &job->error); break;
        case JOB_BACKUP: job->status = odm_backup(job->map, job->path, &job->progress, &job->error); break;
    }
    if (job->kind == JOB_SYNC && job->status == ODM_OK) job->status = ODM_DONE; // It has only one step.
}

static void job_ran(napi_env env, napi_status ran, void *data)
{
    (void)ran;
    struct job *job = data;
    napi_handle_scope scope;
    napi_value value;
    if (napi_open_handle_scope(env, &scope) != napi_ok) return;
    napi_deferred deferred = job->deferred;
    napi_delete_async_work(env, job->work);
    job->work = NULL;
    if (napi_create_int32(env, job->status, &value) == napi_ok) napi_resolve_deferred(env, deferred, value);
    napi_delete_reference(env, job->self); // From here on the job may be freed.
    napi_close_handle_scope(env, scope);
}

/* jobStep(job, max_ms): a promise of the step's status. Not again before that one is kept. */
static napi_value job_step(napi_env env, napi_callback_info info)
{
    size_t argc = 2;
    napi_value argv[2], promise, name;
    struct job *job;
    TRY(napi_get_cb_info(env, info, &argc, argv, NULL, NULL));
    TRY(napi_get_value_external(env, argv[0], (void **)&job));
    if (job->work != NULL || job->map == NULL) return status_number(env, ODM_E_INVALID);
    job->progress.max_ms = u32_of(env, argv[1]);
    TRY(napi_create_promise(env, &job->deferred, &promise));
    TRY(napi_create_string_latin1(env, "opendiskmap", NAPI_AUTO_LENGTH, &name));
    TRY(napi_create_async_work(env, NULL, name, job_run, job_ran, job, &job->work));
    TRY(napi_create_reference(env, argv[0], 1, &job->self));
    TRY(napi_queue_async_work(env, job->work));
    return promise;
}

/* jobEnd(job): lets go of its handle. Not while a step runs. */
static napi_value job_end(napi_env env, napi_callback_info info)
{
    size_t argc = 1;
    napi_value argv[1];
    struct job *job;
    TRY(napi_get_cb_info(env, info, &argc, argv, NULL, NULL));
    TRY(napi_get_value_external(env, argv[0], (void **)&job));
    if (job->work != NULL) return status_number(env, ODM_E_INVALID);
    odm_close(job->map);
    job->map = NULL;
    return NULL;
}

/* jobState(job): {done, total, error: [status, errno, message], report}. */
static napi_value job_state(napi_env env, napi_callback_info info)
{
    size_t argc = 1;
    napi_value argv[1], result, value, report;
    struct job *job;
    TRY(napi_get_cb_info(env, info, &argc, argv, NULL, NULL));
    TRY(napi_get_value_external(env, argv[0], (void **)&job));
    TRY(napi_create_object(env, &result));
    TRY(napi_create_object(env, &report));
#define SET(object, from, name)                           \
    TRY(napi_create_double(env, (double)(from), &value)); \
    TRY(napi_set_named_property(env, object, name, value));
    SET(result, job->progress.done, "done")
    SET(result, job->progress.total, "total")
    SET(report, job->report.records, "records")
    SET(report, job->report.bytes, "bytes")
    SET(report, job->report.bad_records, "badRecords")
    SET(report, job->report.bad_slots, "badSlots")
    SET(report, job->report.bad_number, "badNumber")
    SET(report, job->report.bad_offset, "badOffset")
    TRY(napi_set_named_property(env, result, "report", report));
    value = detail(env, &job->error);
    if (value == NULL) return NULL;
    TRY(napi_set_named_property(env, result, "error", value));
    return result;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static void binding_free(napi_env env, void *data, void *hint)
{
    (void)env, (void)hint;
    struct binding *binding = data;
    odm_close(binding->map);
    free(binding);
}

/* The functions of a map. */
static const struct {
    const char *name;
    napi_callback call;
} map_functions[] = {
    {"get", map_get},
    {"has", map_has},
    {"put", map_put},
    {"remove", map_remove},
    {"view", map_view},
    {"viewEnd", map_view_end},
    {"entryGet", map_entry_get},
    {"entryPut", map_entry_put},
    {"entryRemove", map_entry_remove},
    {"entryIs", map_entry_is},
    {"getMany", map_get_many},
    {"writeMany", map_write_many},
    {"walkOpen", map_walk_open},
    {"walkNext", map_walk_next},
    {"walkPosition", map_walk_position},
    {"walkSeek", map_walk_seek},
    {"walkClose", map_walk_close},
    {"count", map_count},
    {"clear", map_clear},
    {"types", map_types},
    {"schema", map_schema},
    {"stat", map_stat},
    {"lastError", map_last_error},
    {"close", map_close},
    {"job", map_job},
};
enum { MAP_FUNCTION_COUNT = sizeof map_functions / sizeof *map_functions };

static napi_value binding_object(napi_env env, struct binding *binding)
{
    napi_value object;
    napi_property_descriptor properties[MAP_FUNCTION_COUNT];
    for (size_t i = 0; i < MAP_FUNCTION_COUNT; i++) {
        properties[i] = (napi_property_descriptor){
            .utf8name = map_functions[i].name,
            .method = map_functions[i].call,
            .attributes = napi_default,
            .data = binding,
        };
    }
    TRY(napi_create_object(env, &object));
    TRY(napi_define_properties(env, object, MAP_FUNCTION_COUNT, properties));
    TRY(napi_wrap(env, object, binding, binding_free, NULL, NULL));
    return object;
}

/* A string with a terminating zero, to be freed; NULL for what is no string, or if there is no memory. */
static char *string_of(napi_env env, napi_value value, size_t *size)
{
    if (napi_get_value_string_utf8(env, value, NULL, 0, size) != napi_ok) return NULL;
    char *string = malloc(*size + 1);
    if (string != NULL) napi_get_value_string_utf8(env, value, string, *size + 1, size);
    return string;
}

/* open(path or undefined, schema or undefined, [flags, capacity, capacityBytes, stripes, fileMode, waitMs]): the object with
 * the functions of the map; or [status, errno, message]. */
static napi_value open_map(napi_env env, napi_callback_info info)
{
    size_t argc = 3;
    napi_value argv[3], result = NULL;
    struct environment *environment;
    TRY(napi_get_cb_info(env, info, &argc, argv, NULL, NULL));
    TRY(napi_get_instance_data(env, (void **)&environment));
    double numbers[6];
    for (uint32_t i = 0; i < 6; i++) {
        napi_value element;
        TRY(napi_get_element(env, argv[2], i, &element));
        TRY(napi_get_value_double(env, element, &numbers[i]));
    }
    size_t path_size = 0, schema_size = 0;
    char *path = string_of(env, argv[0], &path_size);
    char *schema = string_of(env, argv[1], &schema_size);
    odm_options options = {
        .struct_size = sizeof options,
        .flags = (uint32_t)numbers[0],
        .capacity = (uint64_t)numbers[1],
        .capacity_bytes = (uint64_t)numbers[2],
        .stripes = (uint32_t)numbers[3],
        .file_mode = (uint32_t)numbers[4],
        .wait_ms = (uint32_t)numbers[5],
        .schema = schema,
        .schema_size = schema != NULL ? schema_size : 0,
    };
    odm_error error = {.struct_size = sizeof error, .status = ODM_E_NO_MEMORY, .message = "out of memory"};
    struct binding *binding = calloc(1, sizeof *binding);
    if (binding != NULL && odm_open(path, &options, &binding->map, &error) == ODM_OK) {
        binding->environment = environment;
        result = binding_object(env, binding);
        if (result == NULL) binding_free(env, binding, NULL);
    } else {
        free(binding);
        result = detail(env, &error);
    }
    free(path);
    free(schema);
    return result;
}

/* ---- the module --------------------------------------------------------------------------------------------------- */

/* share(scratch, state, listOf): the buffers of this environment, a Uint8Array and a Uint32Array, and a function that gives an
 * array of its arguments. Again when scratch has grown. */
static napi_value share(napi_env env, napi_callback_info info)
{
    size_t argc = 3;
    napi_value argv[3];
    struct environment *environment;
    struct array scratch, state;
    TRY(napi_get_cb_info(env, info, &argc, argv, NULL, NULL));
    TRY(napi_get_instance_data(env, (void **)&environment));
    if (!array_of(env, argv[0], &scratch) || !array_of(env, argv[1], &state)) return node_failed(env);
    if (environment->scratch_ref != NULL) TRY(napi_delete_reference(env, environment->scratch_ref));
    if (environment->state_ref != NULL) TRY(napi_delete_reference(env, environment->state_ref));
    TRY(napi_create_reference(env, argv[0], 1, &environment->scratch_ref));
    TRY(napi_create_reference(env, argv[1], 1, &environment->state_ref));
    if (environment->list_of_ref == NULL) TRY(napi_create_reference(env, argv[2], 1, &environment->list_of_ref));
    environment->scratch = scratch.data;
    environment->scratch_size = scratch.count;
    environment->state = state.data;
    return NULL;
}

static napi_value status_text(napi_env env, napi_callback_info info, const char *(*describe)(odm_status))
{
    size_t argc = 1;
    napi_value argv[1], result;
    int32_t status;
    TRY(napi_get_cb_info(env, info, &argc, argv, NULL, NULL));
    TRY(napi_get_value_int32(env, argv[0], &status));
    TRY(napi_create_string_latin1(env, describe(status), NAPI_AUTO_LENGTH, &result));
    return result;
}

/* statusName(status): 'ODM_E_CORRUPT'. */
static napi_value status_name(napi_env env, napi_callback_info info)
{
    return status_text(env, info, odm_status_name);
}

/* statusMessage(status) */
static napi_value status_message(napi_env env, napi_callback_info info)
{
    return status_text(env, info, odm_status_message);
}

static void environment_free(napi_env env, void *data, void *hint)
{
    (void)env, (void)hint;
    free(data);
}

NAPI_MODULE_INIT()
{
    struct environment *environment = calloc(1, sizeof *environment);
    if (environment == NULL) return node_failed(env);
    TRY(napi_set_instance_data(env, environment, environment_free, NULL));
    static const napi_property_descriptor properties[] = {
        {.utf8name = "share", .method = share},
        {.utf8name = "open", .method = open_map},
        {.utf8name = "jobStep", .method = job_step},
        {.utf8name = "jobEnd", .method = job_end},
        {.utf8name = "jobState", .method = job_state},
        {.utf8name = "statusName", .method = status_name},
        {.utf8name = "statusMessage", .method = status_message},
    };
    TRY(napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties));
    napi_value version;
    TRY(napi_create_string_latin1(env, odm_version_string(), NAPI_AUTO_LENGTH, &version));
    TRY(napi_set_named_property(env, exports, "version", version));
    return exports;
}
