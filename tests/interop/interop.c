/* interop.c - the C side of the tests between languages: values as C structs, laid out by the compiler, over the C interface.
 *
 *     interop_c vectors VECTORS          every value's bytes, read and written; bad bytes are refused
 *     interop_c write VECTORS DIR        writes all values to maps in DIR
 *     interop_c read VECTORS DIR         reads what any language has written there
 *     interop_c live MAP INDEX ALL N     one of ALL processes that write one map at once
 *
 * README.md says what is in VECTORS, in the maps, and what `live` does. */
#include <jansson.h>
#include <math.h>
#include <opendiskmap.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("FAILED (C): ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

// ---- the structs: declared as a C program declares them, and listed, from one list ------------------------------------------

typedef uint8_t u8, boolean;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;
typedef float f32;
typedef double f64;
typedef odm_slice str, raw, of_boolean, of_u8, of_u16, of_u32, of_u64, of_i8, of_i16, of_i32, of_i64, of_f32, of_f64;

struct field {
    const char *kind, *name; // kind as in the list: "u32", "of_f64"
    size_t offset;
};

struct layout {
    size_t size, field_count;
    const struct field *fields;
};

#define PLAYER(X, T) X(T, u32, id) X(T, str, name) X(T, of_f64, scores)
#define REORDERED(X, T) X(T, of_f64, scores) X(T, str, name) X(T, u32, id)
#define PADDED(X, T) X(T, u8, k1) X(T, u16, k2) X(T, boolean, k3) X(T, u32, k4) X(T, i8, k5) X(T, f64, k6) X(T, u8, k7)
#define ONE(X, T) X(T, boolean, yes)
#define TINY(X, T) X(T, u8, kind) X(T, str, text)
#define BLOB(X, T) X(T, u16, head) X(T, raw, blob) X(T, u64, tail)
#define EACH(X, T)                                                                                                    \
    X(T, boolean, flag) X(T, u8, b1) X(T, u16, b2) X(T, u32, b4) X(T, u64, b8) X(T, i8, s1) X(T, i16, s2)             \
    X(T, i32, s4) X(T, i64, s8) X(T, f32, half) X(T, f64, full) X(T, str, text) X(T, raw, blob)
#define LISTS(X, T)                                                                                                   \
    X(T, of_boolean, f1) X(T, of_u8, u1) X(T, of_u16, u2) X(T, of_u32, u4) X(T, of_u64, u8) X(T, of_i8, i1)           \
    X(T, of_i16, i2) X(T, of_i32, i4) X(T, of_i64, i8) X(T, of_f32, r4) X(T, of_f64, r8)

#define MEMBER(T, kind, name) kind name;
#define PLACE(T, kind, name) {#kind, #name, offsetof(T, name)},
#define DECLARE(tag, LIST)                                                                                            \
    struct tag { LIST(MEMBER, ) };                                                                                    \
    static const struct field tag##_fields[] = {LIST(PLACE, struct tag)};
DECLARE(player, PLAYER)
DECLARE(reordered, REORDERED)
DECLARE(padded, PADDED)
DECLARE(one, ONE)
DECLARE(tiny, TINY)
DECLARE(blob, BLOB)
DECLARE(each, EACH)
DECLARE(lists, LISTS)

#define LAYOUT(tag) {sizeof(struct tag), sizeof tag##_fields / sizeof tag##_fields[0], tag##_fields}
static const struct layout layouts[] = {LAYOUT(player), LAYOUT(reordered), LAYOUT(padded), LAYOUT(one),
                                        LAYOUT(tiny),   LAYOUT(blob),      LAYOUT(each),   LAYOUT(lists)};

/* "of_f64" as the schema spells it: "[f64]". */
static const char *kind_name(const char *kind, char name[16])
{
    int list = strncmp(kind, "of_", 3) == 0;
    const char *element = list ? kind + 3 : kind;
    if (strcmp(element, "boolean") == 0) element = "bool"; // C has taken that word,
    if (strcmp(element, "raw") == 0) element = "bytes";    // and this file the other.
    snprintf(name, 16, list ? "[%s]" : "%s", element);
    return name;
}

static const struct layout *layout_of(const char *type)
{
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        char text[1024] = "struct{", kind[16];
        for (size_t j = 0; j < layouts[i].field_count; j++) {
            const struct field *field = &layouts[i].fields[j];
            size_t end = strlen(text);
            snprintf(text + end, sizeof text - end, "%s%s:%s", j ? "," : "", field->name, kind_name(field->kind, kind));
        }
        strcat(text, "}");
        if (strcmp(text, type) == 0) return &layouts[i];
    }
    fail("no struct here is a %s", type);
}

// ---- values -----------------------------------------------------------------------------------------------------------------

struct buffer {
    uint8_t *bytes; // 8-byte aligned, as in a map
    size_t size;
};

static struct buffer buffer_of(size_t size)
{
    struct buffer buffer = {calloc(size + 1, 1), size};
    if (buffer.bytes == NULL) fail("no memory");
    return buffer;
}

static struct buffer from_hex(const char *hex)
{
    struct buffer buffer = buffer_of(strlen(hex) / 2);
    for (size_t i = 0; i < buffer.size; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) fail("'%s' is no hexadecimal text", hex);
        buffer.bytes[i] = (uint8_t)byte;
    }
    return buffer;
}

static const char *string_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static struct buffer repeated(struct buffer once, const json_t *from)
{
    size_t count = (size_t)json_integer_value(json_object_get(from, "count"));
    struct buffer all = buffer_of(once.size * count);
    for (size_t i = 0; i < count; i++) memcpy(all.bytes + i * once.size, once.bytes, once.size);
    free(once.bytes);
    return all;
}

/* Bytes as VECTORS gives them: hexadecimal, or {"repeat": hexadecimal, "count": n}. */
static struct buffer bytes_of(const json_t *given)
{
    return json_is_object(given) ? repeated(from_hex(string_of(given, "repeat")), given) : from_hex(json_string_value(given));
}

/* Stores a number or bool of VECTORS at `to`. Its size; 0 if `type` is none of these. */
static size_t store(const char *type, const json_t *value, void *to)
{
    const char *text = json_is_string(value) ? json_string_value(value) : "";
#define INTEGER(t, parse)                                                                                             \
    if (strcmp(type, #t) == 0) {                                                                                      \
        *(t *)to = (t)parse(text, NULL, 10);                                                                          \
        return sizeof(t);                                                                                             \
    }
    INTEGER(u8, strtoull) INTEGER(u16, strtoull) INTEGER(u32, strtoull) INTEGER(u64, strtoull)
    INTEGER(i8, strtoll) INTEGER(i16, strtoll) INTEGER(i32, strtoll) INTEGER(i64, strtoll)
    if (strcmp(type, "f32") == 0) return *(f32 *)to = strtof(text, NULL), sizeof(f32);
    if (strcmp(type, "f64") == 0) return *(f64 *)to = strtod(text, NULL), sizeof(f64);
    if (strcmp(type, "bool") == 0 || strcmp(type, "boolean") == 0) return *(u8 *)to = json_is_true(value), 1;
    return 0;
}

static size_t width_of(const char *type)
{
    uint64_t anything;
    return store(type, NULL, &anything);
}

static int is_nan(const char *type, const void *bytes)
{
    return (strcmp(type, "f32") == 0 && isnan(*(const f32 *)bytes)) || (strcmp(type, "f64") == 0 && isnan(*(const f64 *)bytes));
}

/* The bytes that a str, bytes or list field refers to, and the number of its elements. */
static struct buffer payload_of(const char *kind, const json_t *value, size_t *count)
{
    struct buffer payload;
    if (strncmp(kind, "of_", 3) == 0) {
        size_t width = width_of(kind + 3);
        *count = json_array_size(value);
        payload = buffer_of(*count * width);
        for (size_t i = 0; i < *count; i++) store(kind + 3, json_array_get(value, i), payload.bytes + i * width);
        return payload;
    }
    if (strcmp(kind, "raw") == 0) {
        payload = from_hex(json_string_value(value));
    } else {
        payload = buffer_of(json_string_length(value));
        memcpy(payload.bytes, json_string_value(value), payload.size);
    }
    *count = payload.size;
    return payload;
}

static struct buffer encode_struct(const struct layout *layout, const json_t *value)
{
    struct buffer all = buffer_of(layout->size);
    for (size_t i = 0; i < layout->field_count; i++) {
        const struct field *field = &layout->fields[i];
        const json_t *given = json_object_get(value, field->name);
        if (store(field->kind, given, all.bytes + field->offset)) continue;
        size_t count, at = (all.size + 7) / 8 * 8;
        struct buffer payload = payload_of(field->kind, given, &count);
        struct buffer longer = buffer_of(at + payload.size);
        memcpy(longer.bytes, all.bytes, all.size);
        memcpy(longer.bytes + at, payload.bytes, payload.size);
        *(odm_slice *)(void *)(longer.bytes + field->offset) = (odm_slice){(uint32_t)at, (uint32_t)count};
        free(payload.bytes);
        free(all.bytes);
        all = longer;
    }
    return all;
}

static struct buffer encode(const char *type, const json_t *value)
{
    if (strcmp(type, "json") == 0) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        struct buffer buffer = buffer_of(strlen(text));
        memcpy(buffer.bytes, text, buffer.size);
        free(text);
        return buffer;
    }
    if (strncmp(type, "struct{", 7) == 0) return encode_struct(layout_of(type), value);
    if (strcmp(type, "bytes") == 0) return bytes_of(value);
    if (strcmp(type, "str") == 0) {
        size_t count;
        if (!json_is_object(value)) return payload_of("str", value, &count);
        return repeated(payload_of("str", json_object_get(value, "repeat"), &count), value);
    }
    struct buffer number = buffer_of(width_of(type));
    if (number.size == 0) fail("there is no type %s here", type);
    store(type, value, number.bytes);
    return number;
}

/* Why an element is none: what a C program must look at before it uses the bytes. NULL: it is fine. */
static const char *wrong_bool(const char *kind, const uint8_t *bytes, size_t count)
{
    if (strstr(kind, "bool") == NULL) return NULL;
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] > 1) return "is a bool that is neither 0 nor 1";
    }
    return NULL;
}

/* Why a field is not there; NULL: *start and *count are its bytes and their number of elements, in place. */
static const char *locate(const struct field *field, const uint8_t *bytes, size_t size, const uint8_t **start, size_t *count)
{
    *start = bytes + field->offset;
    *count = 1;
    if (width_of(field->kind) == 0) {
        const odm_slice *slice = (const void *)*start;
        size_t width = strncmp(field->kind, "of_", 3) == 0 ? width_of(field->kind + 3) : 1;
        // Divided, not multiplied; subtracted, not added: nothing wraps.
        if (slice->offset > size || slice->count > (size - slice->offset) / width) return "lies outside the value";
        if (slice->offset % width != 0) return "is not aligned";
        *start = bytes + slice->offset;
        *count = slice->count;
    }
    return wrong_bool(field->kind, *start, *count);
}

/* Decodes: NULL, or what is wrong with the bytes. *same: they are `value` (NULL: nobody asks). */
static const char *decode(const char *type, const uint8_t *bytes, size_t size, const json_t *value, int *same)
{
    static char message[256];
    if (strcmp(type, "json") == 0) {
        json_t *found = json_loadb((const char *)bytes, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (found == NULL) return "is no JSON text";
        *same = json_equal(found, value);
        json_decref(found);
        return NULL;
    }
    struct buffer wanted = value ? encode(type, value) : buffer_of(0);
    const char *problem = NULL;
    *same = wanted.size == size && memcmp(wanted.bytes, bytes, size) == 0;
    if (width_of(type) != 0) {
        problem = size != width_of(type) ? "has another size" : wrong_bool(type, bytes, 1);
        if (value && problem == NULL && is_nan(type, wanted.bytes)) *same = is_nan(type, bytes);
    } else if (strncmp(type, "struct{", 7) == 0) {
        const struct layout *layout = layout_of(type);
        int slices = 0;
        for (size_t i = 0; i < layout->field_count; i++) slices |= width_of(layout->fields[i].kind) == 0;
        if (slices ? size < layout->size : size != layout->size) problem = "has another size";
        *same = 1;
        for (size_t i = 0; problem == NULL && i < layout->field_count; i++) {
            const struct field *field = &layout->fields[i];
            const uint8_t *start, *wanted_start;
            size_t count, wanted_count;
            problem = locate(field, bytes, size, &start, &count);
            if (problem) {
                snprintf(message, sizeof message, "field %s %s", field->name, problem);
                problem = message;
            } else if (value) {
                const char *element = strncmp(field->kind, "of_", 3) == 0 ? field->kind + 3 : field->kind;
                size_t width = width_of(element) ? width_of(element) : 1;
                locate(field, wanted.bytes, wanted.size, &wanted_start, &wanted_count);
                *same = *same && count == wanted_count && memcmp(start, wanted_start, count * width) == 0;
            }
        }
    }
    free(wanted.bytes);
    return problem;
}

// ---- vectors ------------------------------------------------------------------------------------------------------------------

static const char *native_type(const json_t *type) // C has no u53: it is a u64 here
{
    const char *name = string_of(type, "type");
    return strcmp(name, "u53") == 0 ? "u64" : name;
}

static json_t *load(const char *path)
{
    json_error_t error;
    json_t *types = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (types == NULL) fail("%s:%d: %s", path, error.line, error.text);
    return types;
}

/* The field of a struct is named in the message, and no other one. */
static void expect_field(const char *type, const json_t *bad, const char *message)
{
    const char *field = string_of(bad, "field");
    if (*field && strstr(message, field) == NULL) fail("%s, %s: '%s' does not name %s", type, string_of(bad, "name"), message, field);
}

static void vectors(const char *path)
{
    json_t *types = load(path), *type, *vector;
    size_t i, j, count = 0;
    json_array_foreach(types, i, type)
    {
        const char *name = native_type(type);
        for (int part = 0; part < 2; part++) {
            json_array_foreach(json_object_get(type, part ? "read_only" : "values"), j, vector)
            {
                json_t *value = json_object_get(vector, "value");
                struct buffer wanted = bytes_of(json_object_get(vector, "bytes")), made = encode(name, value);
                int same;
                const char *problem = decode(name, wanted.bytes, wanted.size, value, &same);
                if (problem || !same) fail("%s, %s: is read as another value %s", name, string_of(vector, "name"), problem ? problem : "");
                problem = decode(name, made.bytes, made.size, value, &same);
                if (problem || !same) fail("%s, %s: does not come back", name, string_of(vector, "name"));
                int exact = part == 0 && strcmp(name, "json") != 0 && !is_nan(name, made.bytes);
                if (exact && (made.size != wanted.size || memcmp(made.bytes, wanted.bytes, made.size) != 0)) {
                    fail("%s, %s: is written otherwise", name, string_of(vector, "name"));
                }
                free(wanted.bytes);
                free(made.bytes);
                count++;
            }
        }
        if (strcmp(name, string_of(type, "type")) != 0) continue; // u53
        json_array_foreach(json_object_get(type, "bad"), j, vector)
        {
            struct buffer bad = bytes_of(json_object_get(vector, "bytes"));
            int same;
            const char *problem = decode(name, bad.bytes, bad.size, NULL, &same);
            if (problem == NULL) fail("%s, %s: is not refused", name, string_of(vector, "name"));
            expect_field(name, vector, problem);
            free(bad.bytes);
            count++;
        }
    }
    printf("C: %zu vectors\n", count);
    json_decref(types);
}

// ---- maps -----------------------------------------------------------------------------------------------------------------------

static odm_map *open_map(const char *directory, size_t number, const char *kind, const char *schema, uint32_t flags)
{
    char path[1024];
    snprintf(path, sizeof path, number == SIZE_MAX ? "%s" : "%s/%zu-%s", directory, number, kind);
    odm_options options = {.struct_size = sizeof options, .flags = flags, .schema = schema, .schema_size = strlen(schema)};
    odm_error error = {.struct_size = sizeof error};
    odm_map *map;
    if (odm_open(path, &options, &map, &error) != ODM_OK) fail("%s", error.message);
    return map;
}

static void expect(odm_map *map, odm_status status, odm_status wanted, const char *what)
{
    if (status == wanted) return;
    odm_error error = {.struct_size = sizeof error};
    odm_last_error(map, &error);
    fail("%s: %s %s", what, odm_status_name(status), error.message);
}

static void close_map(odm_map *map)
{
    expect(map, odm_close(map), ODM_OK, "close");
}

/* As a key: 0 and -0 are one, and so are all NaN. */
static struct buffer encode_key(const char *type, const json_t *value)
{
    struct buffer key = encode(type, value);
    if (strcmp(type, "f64") == 0) {
        f64 number = *(f64 *)(void *)key.bytes;
        *(f64 *)(void *)key.bytes = isnan(number) ? (f64)NAN : number + 0;
    } else if (strcmp(type, "f32") == 0) {
        f32 number = *(f32 *)(void *)key.bytes;
        *(f32 *)(void *)key.bytes = isnan(number) ? NAN : number + 0;
    }
    return key;
}

static void write_maps(const char *path, const char *directory)
{
    json_t *types = load(path), *type, *vector;
    size_t i, j;
    mkdir(directory, 0755);
    json_array_foreach(types, i, type)
    {
        const char *name = native_type(type);
        int keys_too = strcmp(name, "json") != 0;
        char schema[2][1024];
        snprintf(schema[0], sizeof schema[0], "str/%s", name);
        snprintf(schema[1], sizeof schema[1], "%s/str", name);
        odm_map *values = open_map(directory, i, "values", schema[0], ODM_MUST_CREATE);
        odm_map *keys = keys_too ? open_map(directory, i, "keys", schema[1], ODM_MUST_CREATE) : NULL;
        json_array_foreach(json_object_get(type, "values"), j, vector)
        {
            const char *label = string_of(vector, "name");
            struct buffer value = encode(name, json_object_get(vector, "value"));
            expect(values, odm_put(values, label, strlen(label), value.bytes, value.size), ODM_OK, "put");
            if (keys_too) {
                struct buffer key = encode_key(name, json_object_get(vector, "value"));
                expect(keys, odm_put(keys, key.bytes, key.size, label, strlen(label)), ODM_OK, "put");
                free(key.bytes);
            }
            free(value.bytes);
        }
        close_map(values);
        if (keys_too) close_map(keys);
    }
    json_decref(types);
}

/* Another schema is refused, and the message shows both. */
static void expect_mismatch(const char *directory, size_t number, const char *schema)
{
    static const char other[] = "u16/bytes";
    char path[1024];
    snprintf(path, sizeof path, "%s/%zu-values", directory, number);
    odm_options options = {.struct_size = sizeof options, .schema = other, .schema_size = strlen(other)};
    odm_error error = {.struct_size = sizeof error};
    odm_map *map;
    odm_status status = odm_open(path, &options, &map, &error);
    if (status != ODM_E_MISMATCH) fail("%s: opened as %s: %s", path, other, odm_status_name(status));
    char shown[64]; // A long one is shown by its beginning.
    snprintf(shown, sizeof shown, "%.40s", schema);
    if (!strstr(error.message, other) || !strstr(error.message, shown)) fail("'%s' does not show both schemas", error.message);
}

/* The keys of a type, in hexadecimal, each with the name that was put last. */
static json_t *names_by_key(const json_t *type, const char *name)
{
    json_t *names = json_object(), *vector;
    size_t i;
    json_array_foreach(json_object_get(type, "values"), i, vector)
    {
        struct buffer key = encode_key(name, json_object_get(vector, "value"));
        char *hex = calloc(2 * key.size + 1, 1);
        for (size_t j = 0; j < key.size; j++) snprintf(hex + 2 * j, 3, "%02x", key.bytes[j]);
        json_object_set_new(names, hex, json_string(string_of(vector, "name")));
        free(hex);
        free(key.bytes);
    }
    return names;
}

static void read_keys(const json_t *type, const char *name, const char *directory, size_t number)
{
    char schema[1024];
    snprintf(schema, sizeof schema, "%s/str", name);
    odm_map *map = open_map(directory, number, "keys", schema, ODM_READ_ONLY);
    json_t *names = names_by_key(type, name), *label;
    const char *hex;
    json_object_foreach(names, hex, label)
    {
        struct buffer key = from_hex(hex);
        const void *found;
        size_t size;
        expect(map, odm_get(map, key.bytes, key.size, &found, &size), ODM_OK, json_string_value(label));
        if (size != json_string_length(label) || memcmp(found, json_string_value(label), size) != 0) {
            fail("%s, key %s: is '%.*s'", name, json_string_value(label), (int)size, (const char *)found);
        }
        free(key.bytes);
    }
    if (odm_count(map) != json_object_size(names)) fail("%s: %zu keys, not %zu", name, (size_t)odm_count(map), json_object_size(names));
    json_decref(names);
    close_map(map);
}

static void read_maps(const char *path, const char *directory)
{
    json_t *types = load(path), *type, *vector;
    size_t i, j;
    json_array_foreach(types, i, type)
    {
        const char *name = native_type(type);
        char schema[1024];
        snprintf(schema, sizeof schema, "str/%s", name);
        expect_mismatch(directory, i, schema);
        odm_map *map = open_map(directory, i, "values", schema, ODM_READ_ONLY);
        json_array_foreach(json_object_get(type, "values"), j, vector)
        {
            const char *label = string_of(vector, "name");
            const void *found;
            size_t size;
            int same;
            expect(map, odm_get(map, label, strlen(label), &found, &size), ODM_OK, label);
            const char *problem = decode(name, found, size, json_object_get(vector, "value"), &same);
            if (problem || !same) fail("%s in %s/%zu, %s: another value %s", name, directory, i, label, problem ? problem : "");
        }
        size_t count = json_array_size(json_object_get(type, "values"));
        if (odm_count(map) != count) fail("%s: %zu values, not %zu", name, (size_t)odm_count(map), count);
        close_map(map);
        if (strcmp(name, "json") != 0) read_keys(type, name, directory, i);
    }
    json_decref(types);
}

// ---- live -----------------------------------------------------------------------------------------------------------------------

enum { COUNTERS = 4 };

static uint64_t number_at(odm_map *map, const char *key, uint64_t *version)
{
    const void *found;
    size_t size;
    odm_status status = odm_entry_get(map, key, strlen(key), &found, &size, version);
    uint64_t number = 0;
    if (status == ODM_OK && size == sizeof number) number = *(const uint64_t *)found;
    else expect(map, status, ODM_NOT_FOUND, key);
    odm_refresh(map);
    return number;
}

static void add_one(odm_map *map, const char *key)
{
    odm_status status;
    do {
        uint64_t version, number = number_at(map, key, &version) + 1;
        status = odm_entry_put(map, key, strlen(key), &number, sizeof number, version);
    } while (status == ODM_EXISTS || status == ODM_CONFLICT);
    expect(map, status, ODM_OK, key);
}

/* Waits until all processes have come here. CTest ends a wait that does not end. */
static void meet(odm_map *map, const char *key, uint64_t all)
{
    uint64_t version;
    add_one(map, key);
    while (number_at(map, key, &version) != all) usleep(200);
}

static void expect_number(odm_map *map, const char *key, uint64_t wanted)
{
    uint64_t version, number = number_at(map, key, &version);
    if (number != wanted) fail("%s is %llu, not %llu", key, (unsigned long long)number, (unsigned long long)wanted);
    if ((version == 0) != (wanted == 0)) fail("%s: vacant or not", key);
}

static void live(const char *path, uint64_t index, uint64_t all, uint64_t n)
{
    odm_map *map = open_map(path, SIZE_MAX, "", "str/u64", 0);
    char key[64];
    meet(map, "ready", all);
    for (uint64_t i = 1; i <= n; i++) {
        snprintf(key, sizeof key, "shared %d", (int)(i % COUNTERS));
        add_one(map, key);
        uint64_t own = i * (index + 1);
        snprintf(key, sizeof key, "own %d %d", (int)index, (int)i);
        expect(map, odm_put(map, key, strlen(key), &own, sizeof own), ODM_OK, "put");
        if (i % 3 == 0) expect(map, odm_remove(map, key, strlen(key)), ODM_OK, "remove");
    }
    meet(map, "written", all);
    for (uint64_t i = 0; i < COUNTERS; i++) {
        snprintf(key, sizeof key, "shared %d", (int)i);
        expect_number(map, key, all * (n / COUNTERS));
    }
    for (uint64_t other = 0; other < all; other++) {
        for (uint64_t i = 1; i <= n; i++) {
            snprintf(key, sizeof key, "own %d %d", (int)other, (int)i);
            expect_number(map, key, i % 3 == 0 ? 0 : i * (other + 1));
        }
    }
    uint64_t count = COUNTERS + 2 + all * (n - n / 3);
    if (odm_count(map) != count) fail("%zu entries, not %zu", (size_t)odm_count(map), (size_t)count);
    odm_report report = {.struct_size = sizeof report};
    odm_error error = {.struct_size = sizeof error};
    if (odm_verify(map, &report, NULL, &error) != ODM_OK) fail("verify: %s", error.message);
    if (report.bad_records || report.bad_slots) fail("verify: %zu bad records", (size_t)report.bad_records);
    close_map(map);
}

int main(int argc, char **argv)
{
    const char *command = argc > 2 ? argv[1] : "";
    if (strcmp(command, "vectors") == 0 && argc == 3) vectors(argv[2]);
    else if (strcmp(command, "write") == 0 && argc == 4) write_maps(argv[2], argv[3]);
    else if (strcmp(command, "read") == 0 && argc == 4) read_maps(argv[2], argv[3]);
    else if (strcmp(command, "live") == 0 && argc == 6)
        live(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
    else fail("usage: interop_c vectors|write|read VECTORS [DIR], or live MAP INDEX ALL N");
    return 0;
}
