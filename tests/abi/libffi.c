/* libffi.c - drives every export of the library the way other languages do: by name, with scalars, and without the header.
 *
 *   libffi <library> <version script>
 *
 * The table below says what a binding would say of each function. It names the same functions as the version script, and
 * each of them is called at least once.
 */
#include <dlfcn.h>
#include <ffi.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS_MAX = 8 };

/* i int32_t, u uint32_t, U uint64_t, z size_t, p pointer. The result comes before the colon. */
static struct export
{
    const char *name;
    const char *signature;
    bool called;
}
exports[] = {
    {"odm_status_name", "p:i", false},
    {"odm_status_message", "p:i", false},
    {"odm_version", "u:", false},
    {"odm_version_string", "p:", false},
    {"odm_options_init", "i:pz", false},
    {"odm_open", "i:pppp", false},
    {"odm_dup", "i:ppp", false},
    {"odm_close", "i:p", false},
    {"odm_sync", "i:pp", false},
    {"odm_refresh", "i:p", false},
    {"odm_last_error", "i:pp", false},
    {"odm_get", "i:ppzpp", false},
    {"odm_try_get", "i:ppzpp", false},
    {"odm_put", "i:ppzpz", false},
    {"odm_remove", "i:ppz", false},
    {"odm_clear", "i:pp", false},
    {"odm_count", "U:p", false},
    {"odm_entry_get", "i:ppzppp", false},
    {"odm_entry_put", "i:ppzpzU", false},
    {"odm_entry_remove", "i:ppzU", false},
    {"odm_iter_open", "i:pp", false},
    {"odm_iter_next", "i:ppppp", false},
    {"odm_iter_next_many", "i:pppppp", false},
    {"odm_iter_position", "i:pp", false},
    {"odm_iter_seek", "i:pU", false},
    {"odm_iter_close", "i:p", false},
    {"odm_get_many", "i:pppppp", false},
    {"odm_write_many", "i:pppppppp", false},
    {"odm_schema", "i:ppp", false},
    {"odm_stat", "i:pp", false},
    {"odm_compact", "i:ppp", false},
    {"odm_verify", "i:pppp", false},
    {"odm_backup", "i:pppp", false},
};
enum { EXPORT_COUNT = sizeof exports / sizeof exports[0] };

/* What the header's constants and structs are to a language that can not read it. */
enum { OK = 0, NOT_FOUND = 1, EXISTS = 2, DONE = 3, CONFLICT = 4, INVALID = -1, UNSUPPORTED = -11 };
enum { OPTIONS_SIZE = 56, OPTIONS_FLAGS_AT = 4, ERROR_SIZE = 256, ERROR_STATUS_AT = 4 };
enum { STATISTICS_SIZE = 200, STATISTICS_COUNT_AT = 24, REPORT_SIZE = 56, PROGRESS_SIZE = 56 };
enum { ANY_FILE_SYSTEM = 16, OP_PUT = 0, OP_INSERT = 1, OP_REMOVE = 2 };

/* ---- calling ------------------------------------------------------------------------------------------------------- */

/* An argument or a result. Little-endian: the narrow ones are the low bytes of the wide one. */
union word {
    const void *p;
    uint64_t u64;
    ffi_arg result;
    int32_t i32;
    uint32_t u32;
};
#define P(pointer) ((union word){.p = (pointer)})
#define N(number) ((union word){.u64 = (uint64_t)(number)})

static void *library;

#define CHECK(condition) check((condition), #condition, __LINE__)

static void check(bool holds, const char *what, int line)
{
    if (holds) return;
    fprintf(stderr, "libffi.c:%d: not so: %s\n", line, what);
    exit(1);
}

static ffi_type *type_of(char letter)
{
    switch (letter) {
        case 'i': return &ffi_type_sint32;
        case 'u': return &ffi_type_uint32;
        case 'U': return &ffi_type_uint64;
        case 'z': return sizeof(size_t) == 8 ? &ffi_type_uint64 : &ffi_type_uint32;
        case 'p': return &ffi_type_pointer;
        default: abort();
    }
}

static union word call_with(const char *name, size_t count, union word *arguments)
{
    struct export *export = exports;
    while (export < exports + EXPORT_COUNT && strcmp(export->name, name) != 0) export ++;
    CHECK(export < exports + EXPORT_COUNT);
    export->called = true;

    const char *letters = export->signature + 2;
    CHECK(strlen(letters) == count && count <= ARGUMENTS_MAX);
    ffi_type *types[ARGUMENTS_MAX];
    void *values[ARGUMENTS_MAX];
    for (size_t i = 0; i < count; i++) {
        types[i] = type_of(letters[i]);
        values[i] = &arguments[i];
    }
    ffi_cif cif;
    CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, (unsigned)count, type_of(export->signature[0]), types) == FFI_OK);

    void *symbol = dlsym(library, name);
    CHECK(symbol != NULL);
    void (*function)(void);
    memcpy(&function, &symbol, sizeof function); // C has no cast from an object to a function.
    union word result = {0};
    ffi_call(&cif, function, &result.result, values);
    return result;
}

#define ARGUMENTS(...) ((union word[]){__VA_ARGS__})
#define CALL(name, ...) call_with(name, sizeof ARGUMENTS(__VA_ARGS__) / sizeof(union word), ARGUMENTS(__VA_ARGS__))
#define STATUS(...) (CALL(__VA_ARGS__).i32)

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static void the_table_names_what_the_version_script_names(const char *path)
{
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    size_t count = 0;
    char line[256];
    char name[64];
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, " %63[a-z0-9_];", name) != 1 || strncmp(name, "odm_", 4) != 0) continue;
        count++;
        size_t i = 0;
        while (i < EXPORT_COUNT && strcmp(exports[i].name, name) != 0) i++;
        if (i == EXPORT_COUNT) fprintf(stderr, "%s is not in the table\n", name);
        CHECK(i < EXPORT_COUNT);
    }
    fclose(file);
    CHECK(count == EXPORT_COUNT);
}

static void every_export_was_called(void)
{
    for (size_t i = 0; i < EXPORT_COUNT; i++) {
        if (!exports[i].called) fprintf(stderr, "%s was not called\n", exports[i].name);
        CHECK(exports[i].called);
    }
}

/* ---- a life of a map ----------------------------------------------------------------------------------------------- */

static void the_library_tells_what_it_is(void)
{
    CHECK(call_with("odm_version", 0, NULL).u32 / 10000 == 1);
    CHECK(strncmp(call_with("odm_version_string", 0, NULL).p, "1.", 2) == 0);
    CHECK(strcmp(CALL("odm_status_name", N(NOT_FOUND)).p, "ODM_NOT_FOUND") == 0);
    CHECK(strcmp(CALL("odm_status_name", N(INVALID)).p, "ODM_E_INVALID") == 0);
    CHECK(strlen(CALL("odm_status_message", N(INVALID)).p) > 0);
}

static void *open_map(const char *path)
{
    _Alignas(8) unsigned char options[OPTIONS_SIZE];
    _Alignas(8) unsigned char error[ERROR_SIZE] = {0};
    CHECK(STATUS("odm_options_init", P(options), N(sizeof options)) == OK);
    uint32_t flags = ANY_FILE_SYSTEM; // The folder for temporary files may be on any.
    memcpy(options + OPTIONS_FLAGS_AT, &flags, sizeof flags);
    uint32_t error_size = ERROR_SIZE;
    memcpy(error, &error_size, sizeof error_size);

    void *map = NULL;
    int32_t status = STATUS("odm_open", P(path), P(options), P(&map), P(error));
    if (status != OK) fprintf(stderr, "odm_open: %d, %s\n", status, (char *)error + 16);
    CHECK(status == OK && map != NULL);
    return map;
}

static void one_key(void *map)
{
    const void *value = NULL;
    size_t size = 0;
    CHECK(STATUS("odm_get", P(map), P("red"), N(3), P(&value), P(&size)) == NOT_FOUND);
    CHECK(STATUS("odm_put", P(map), P("red"), N(3), P("#f00"), N(4)) == OK);
    CHECK(STATUS("odm_get", P(map), P("red"), N(3), P(&value), P(&size)) == OK);
    CHECK(size == 4 && memcmp(value, "#f00", 4) == 0 && (uintptr_t)value % 8 == 0);
    CHECK(STATUS("odm_try_get", P(map), P("red"), N(3), P(&value), P(&size)) == OK && size == 4);
    CHECK(STATUS("odm_get", P(map), P("red"), N(3), P(NULL), P(NULL)) == OK);
    CHECK(CALL("odm_count", P(map)).u64 == 1);
    CHECK(STATUS("odm_remove", P(map), P("red"), N(3)) == OK);
    CHECK(STATUS("odm_remove", P(map), P("red"), N(3)) == NOT_FOUND);
}

static void entries(void *map)
{
    const void *value = NULL;
    size_t size = 0;
    uint64_t version = 7;
    CHECK(STATUS("odm_entry_get", P(map), P("blue"), N(4), P(&value), P(&size), P(&version)) == NOT_FOUND);
    CHECK(version == 0);
    CHECK(STATUS("odm_entry_put", P(map), P("blue"), N(4), P("#00f"), N(4), N(0)) == OK);
    CHECK(STATUS("odm_entry_put", P(map), P("blue"), N(4), P("#00e"), N(4), N(0)) == EXISTS);
    CHECK(STATUS("odm_entry_get", P(map), P("blue"), N(4), P(&value), P(&size), P(&version)) == OK);
    CHECK(version != 0 && size == 4 && memcmp(value, "#00f", 4) == 0);
    CHECK(STATUS("odm_entry_put", P(map), P("blue"), N(4), P("#00e"), N(4), N(version)) == OK);
    CHECK(STATUS("odm_entry_remove", P(map), P("blue"), N(4), N(version)) == CONFLICT);
    CHECK(STATUS("odm_entry_get", P(map), P("blue"), N(4), P(NULL), P(NULL), P(&version)) == OK);
    CHECK(STATUS("odm_entry_remove", P(map), P("blue"), N(4), N(version)) == OK);
    CHECK(CALL("odm_count", P(map)).u64 == 0);
}

static void batches(void *map)
{
    // Puts a and b, inserts b again, removes a, puts c: b = "2" and c = "33" stay.
    static const uint8_t operations[] = {OP_PUT, OP_PUT, OP_INSERT, OP_REMOVE, OP_PUT};
    static const uint64_t key_ends[] = {1, 2, 3, 4, 5};
    static const uint64_t value_ends[] = {1, 2, 3, 3, 5};
    uint8_t outcomes[5];
    size_t count = 5;
    CHECK(STATUS("odm_write_many", P(map), P(&count), P(operations), P("abbac"), P(key_ends), P("12x33"), P(value_ends),
                 P(outcomes)) == OK);
    CHECK(count == 5);
    CHECK(outcomes[0] == OK && outcomes[1] == OK && outcomes[2] == EXISTS && outcomes[3] == OK && outcomes[4] == OK);

    const void *values[3];
    uint64_t sizes[3];
    count = 3;
    CHECK(STATUS("odm_get_many", P(map), P(&count), P("abc"), P(key_ends), P(values), P(sizes)) == OK);
    CHECK(count == 3);
    CHECK(values[0] == NULL && sizes[0] == UINT64_MAX);
    CHECK(sizes[1] == 1 && memcmp(values[1], "2", 1) == 0);
    CHECK(sizes[2] == 2 && memcmp(values[2], "33", 2) == 0);
}

/* The map holds b = "2" and c = "33". */
static void walks(void *map)
{
    void *iter = NULL;
    CHECK(STATUS("odm_iter_open", P(map), P(&iter)) == OK);
    uint64_t start = 1;
    CHECK(STATUS("odm_iter_position", P(iter), P(&start)) == OK && start == 0);

    const void *key = NULL;
    const void *value = NULL;
    size_t key_size = 0;
    size_t value_size = 0;
    size_t bytes = 0;
    size_t count = 0;
    while (STATUS("odm_iter_next", P(iter), P(&key), P(&key_size), P(&value), P(&value_size)) == OK) {
        count++;
        bytes += key_size + value_size;
    }
    CHECK(count == 2 && bytes == 5);

    const void *keys[4];
    const void *values[4];
    uint64_t key_sizes[4];
    uint64_t value_sizes[4];
    CHECK(STATUS("odm_iter_seek", P(iter), N(0)) == OK);
    size_t seen = 0;
    int32_t status;
    do {
        count = 4;
        status = STATUS("odm_iter_next_many", P(iter), P(&count), P(keys), P(key_sizes), P(values), P(value_sizes));
        seen += count;
    } while (status == OK);
    CHECK(status == DONE && seen == 2);
    CHECK(STATUS("odm_iter_close", P(iter)) == OK);
}

static void the_map_as_a_whole(void *map, const char *folder)
{
    _Alignas(8) unsigned char statistics[STATISTICS_SIZE] = {0};
    uint32_t size = STATISTICS_SIZE;
    memcpy(statistics, &size, sizeof size);
    CHECK(STATUS("odm_stat", P(map), P(statistics)) == OK);
    uint64_t count;
    memcpy(&count, statistics + STATISTICS_COUNT_AT, sizeof count);
    CHECK(count == 2);

    const void *schema = NULL;
    size_t schema_size = 1;
    CHECK(STATUS("odm_schema", P(map), P(&schema), P(&schema_size)) == OK && schema_size == 0);

    // These two and backup are not in version 1.0: either answer is one, a crash is not.
    _Alignas(8) unsigned char report[REPORT_SIZE] = {0};
    size = REPORT_SIZE;
    memcpy(report, &size, sizeof size);
    int32_t status = STATUS("odm_compact", P(map), P(NULL), P(NULL));
    CHECK(status == OK || status == UNSUPPORTED);
    status = STATUS("odm_verify", P(map), P(report), P(NULL), P(NULL));
    CHECK(status == OK || status == UNSUPPORTED);
    char path[512];
    snprintf(path, sizeof path, "%s/backup", folder);
    status = STATUS("odm_backup", P(map), P(path), P(NULL), P(NULL));
    CHECK(status == OK || status == UNSUPPORTED);

    CHECK(STATUS("odm_sync", P(map), P(NULL)) == OK);
    CHECK(STATUS("odm_refresh", P(map)) == OK);
}

static void two_handles(void *map)
{
    void *dup = NULL;
    CHECK(STATUS("odm_dup", P(map), P(&dup), P(NULL)) == OK && dup != NULL && dup != map);
    CHECK(STATUS("odm_get", P(dup), P("c"), N(1), P(NULL), P(NULL)) == OK);

    // A version of 0 is no version: an error, whose detail the handle keeps.
    _Alignas(8) unsigned char error[ERROR_SIZE] = {0};
    uint32_t size = ERROR_SIZE;
    memcpy(error, &size, sizeof size);
    CHECK(STATUS("odm_entry_remove", P(dup), P("c"), N(1), N(0)) == INVALID);
    CHECK(STATUS("odm_last_error", P(dup), P(error)) == OK);
    int32_t status;
    memcpy(&status, error + ERROR_STATUS_AT, sizeof status);
    CHECK(status == INVALID);

    CHECK(STATUS("odm_clear", P(map), P(NULL)) == OK);
    CHECK(CALL("odm_count", P(dup)).u64 == 0);
    CHECK(STATUS("odm_close", P(dup)) == OK);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    the_table_names_what_the_version_script_names(argv[2]);

    char folder[] = "/tmp/odm-libffi-XXXXXX";
    CHECK(mkdtemp(folder) != NULL);
    char path[512];
    snprintf(path, sizeof path, "%s/map", folder);

    the_library_tells_what_it_is();
    void *map = open_map(path);
    one_key(map);
    entries(map);
    batches(map);
    walks(map);
    the_map_as_a_whole(map, folder);
    two_handles(map);
    CHECK(STATUS("odm_close", P(map)) == OK);
    CHECK(STATUS("odm_close", P(NULL)) == OK);
    CHECK(STATUS("odm_iter_close", P(NULL)) == OK);
    every_export_was_called();

    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}
