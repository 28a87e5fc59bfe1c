/* unicode.c - every named character of Unicode in two maps on disk: code point -> name, name -> code point.
 *
 *     cc unicode.c -lopendiskmap -o unicode
 *     ./unicode load                            makes the maps from UnicodeData.txt, if they are not there
 *     ./unicode U+1F600 SNOWMAN 7 "latin small letter a"
 *     ./unicode live                            one process writes, another one reads it
 *     ./unicode cost                            checks every entry, and measures
 *
 * -m DIRECTORY: where the maps are. -f FILE: another UnicodeData.txt.
 *
 * Contents: 1 small things · 2 the table: UnicodeData.txt in memory · 3 the maps · 4 the commands
 *
 * What becomes of UnicodeData.txt: field 1 is the name. Controls have none; they are listed under their Unicode 1.0
 * name, field 10, or as CONTROL-0080. A range (two lines, "<..., First>" and "<..., Last>") of Han, Tangut or Hangul
 * becomes one entry per character, named by the standard's rules; surrogates and private use have no names and are left
 * out. BELL is the name of U+1F514 and the old name of U+0007: the later line wins. */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <opendiskmap.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NAME_SIZE_MAX = 127, PATH_SIZE_MAX = 4000 };

/* ---- 1 small things ---------------------------------------------------------------------------------------------- */

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("unicode: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* Ends the program unless the call on `map` went well. */
static void must(odm_map *map, odm_status status)
{
    if (status == ODM_OK) return;
    odm_error error = {.struct_size = sizeof error};
    odm_last_error(map, &error);
    fail("%s: %s", odm_status_name(status), status < 0 ? error.message : odm_status_message(status));
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* 1234567 as "1,234,567". Four results are kept at a time. */
static const char *grouped(uint64_t n)
{
    static char buffers[4][32];
    static int next;
    char digits[24], *out = buffers[next++ % 4];
    int count = snprintf(digits, sizeof digits, "%" PRIu64, n), length = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) out[length++] = ',';
        out[length++] = digits[i];
    }
    out[length] = '\0';
    return out;
}

/* Keys and values are the same bytes on every machine: little-endian, the encoding "u32". */
static void store_u32(unsigned char bytes[4], uint32_t n)
{
    for (int i = 0; i < 4; i++) bytes[i] = (unsigned char)(n >> 8 * i);
}

static uint32_t load_u32(const unsigned char *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* The character itself, in UTF-8; a blank for what would upset a terminal. */
static void print_character(uint32_t code)
{
    bool printable = code >= 0x20 && !(code >= 0x7f && code < 0xa0) && !(code >= 0xd800 && code < 0xe000);
    if (!printable) code = ' ';
    char bytes[5] = {0};
    if (code < 0x80) {
        bytes[0] = (char)code;
    } else if (code < 0x800) {
        bytes[0] = (char)(0xc0 | code >> 6);
        bytes[1] = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        bytes[0] = (char)(0xe0 | code >> 12);
        bytes[1] = (char)(0x80 | (code >> 6 & 63));
        bytes[2] = (char)(0x80 | (code & 63));
    } else {
        bytes[0] = (char)(0xf0 | code >> 18);
        bytes[1] = (char)(0x80 | (code >> 12 & 63));
        bytes[2] = (char)(0x80 | (code >> 6 & 63));
        bytes[3] = (char)(0x80 | (code & 63));
    }
    fputs(bytes, stdout);
}

/* True if `text` is exactly one character in UTF-8. */
static bool one_character(const char *text, uint32_t *code)
{
    const unsigned char *b = (const unsigned char *)text;
    size_t size = b[0] < 0x80 ? 1 : b[0] >= 0xf0 ? 4 : b[0] >= 0xe0 ? 3 : 2;
    if (strlen(text) != size) return false;
    *code = size == 1 ? b[0] : b[0] & (0xffu >> (size + 1));
    for (size_t i = 1; i < size; i++) *code = *code << 6 | (b[i] & 63);
    return true;
}

/* ---- 2 the table: UnicodeData.txt in memory ---------------------------------------------------------------------- */

struct character {
    uint32_t code;
    uint32_t name_size;
    size_t name_offset;
};

struct table {
    struct character *characters;
    size_t count, room;
    char *names;
    size_t names_size, names_room;
};

static const char *name_of(const struct table *table, const struct character *c)
{
    return table->names + c->name_offset;
}

static void *grown(void *old, size_t size)
{
    void *memory = realloc(old, size);
    if (memory == NULL) fail("out of memory");
    return memory;
}

static void table_add(struct table *table, uint32_t code, const char *name)
{
    size_t size = strlen(name);
    if (table->count == table->room) {
        table->room = table->room == 0 ? 1 << 16 : table->room * 2;
        table->characters = grown(table->characters, table->room * sizeof *table->characters);
    }
    if (table->names_room - table->names_size < size) {
        table->names_room = table->names_room * 2 + (1 << 20);
        table->names = grown(table->names, table->names_room);
    }
    memcpy(table->names + table->names_size, name, size);
    table->characters[table->count++] = (struct character){code, (uint32_t)size, table->names_size};
    table->names_size += size;
}

/* Hangul syllables are named after the letters they are made of. */
static void hangul_name(uint32_t code, char name[NAME_SIZE_MAX + 1])
{
    static const char *const leading[] = {"G",  "GG", "N", "D",  "DD", "R", "M", "B", "BB", "S",
                                          "SS", "",   "J", "JJ", "C",  "K", "T", "P", "H"};
    static const char *const vowel[] = {"A",  "AE", "YA", "YAE", "EO", "E",  "YEO", "YE", "O",  "WA", "WAE",
                                        "OE", "YO", "U",  "WEO", "WE", "WI", "YU",  "EU", "YI", "I"};
    static const char *const trailing[] = {"",   "G",  "GG", "GS", "N",  "NJ", "NH", "D", "L",  "LG",
                                           "LM", "LB", "LS", "LT", "LP", "LH", "M",  "B", "BS", "S",
                                           "SS", "NG", "J",  "C",  "K",  "T",  "P",  "H"};
    uint32_t i = code - 0xac00;
    snprintf(name, NAME_SIZE_MAX + 1, "HANGUL SYLLABLE %s%s%s", leading[i / 588], vowel[i / 28 % 21], trailing[i % 28]);
}

/* One entry for each character of a range whose characters have names. `label` is what stands before ", First>". */
static void table_add_range(struct table *table, const char *label, uint32_t first, uint32_t last)
{
    bool hangul = strncmp(label, "Hangul", 6) == 0;
    const char *prefix = strncmp(label, "CJK", 3) == 0      ? "CJK UNIFIED"
                         : strncmp(label, "Tangut", 6) == 0 ? "TANGUT"
                                                            : NULL;
    if (prefix == NULL && !(hangul && first == 0xac00 && last == 0xd7a3)) return; // No names.
    for (uint32_t code = first; code <= last; code++) {
        char name[NAME_SIZE_MAX + 1];
        if (hangul)
            hangul_name(code, name);
        else
            snprintf(name, sizeof name, "%s IDEOGRAPH-%04" PRIX32, prefix, code);
        table_add(table, code, name);
    }
}

/* Field `number` of a line of UnicodeData.txt; an empty one if there are not so many. */
static void field(const char *line, int number, char out[NAME_SIZE_MAX + 1])
{
    while (number > 0 && *line != '\0') number -= *line++ == ';';
    size_t size = strcspn(line, ";\r\n");
    if (size > NAME_SIZE_MAX) size = NAME_SIZE_MAX;
    memcpy(out, line, size);
    out[size] = '\0';
}

static struct table table_read(const char *path)
{
    struct table table = {0};
    FILE *file = fopen(path, "r");
    if (file == NULL) fail("%s: %s (it comes with the package unicode-data)", path, strerror(errno));
    char line[1024], name[NAME_SIZE_MAX + 1];
    uint32_t first = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        uint32_t code = (uint32_t)strtoul(line, NULL, 16);
        if (code > 0x10ffff) fail("%s has a line that is none: %s", path, line);
        field(line, 1, name);
        char *range = strstr(name, ", First>");
        if (range != NULL) {
            first = code;
        } else if ((range = strstr(name, ", Last>")) != NULL) {
            *range = '\0';
            table_add_range(&table, name + 1, first, code);
        } else if (strcmp(name, "<control>") == 0) {
            field(line, 10, name);
            if (name[0] == '\0') snprintf(name, sizeof name, "CONTROL-%04" PRIX32, code);
            table_add(&table, code, name);
        } else {
            table_add(&table, code, name);
        }
    }
    fclose(file);
    if (table.count == 0) fail("%s is empty", path);
    return table;
}

/* ---- 3 the maps -------------------------------------------------------------------------------------------------- */

struct maps {
    odm_map *names;      /* code point -> name */
    odm_map *characters; /* name -> code point */
};

/* A schema is text that the map keeps: opening it as something else is an error that shows both texts. */
static odm_map *map_open(const char *directory, const char *name, const char *schema, uint32_t flags)
{
    char path[PATH_SIZE_MAX + 16];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    odm_options options = ODM_OPTIONS_INIT;
    options.flags = flags;
    options.schema = schema;
    options.schema_size = strlen(schema);

    odm_map *map = NULL;
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_open(path, &options, &map, &error);
    if (status == ODM_E_UNSUPPORTED && !(flags & ODM_ANY_FILE_SYSTEM)) {
        // Such as the writable layer of a container: fine for trying things out, so do, but say it.
        static bool said;
        if (!said) printf("   note: %s\n   note: going on with ODM_ANY_FILE_SYSTEM, to show the rest\n", error.message);
        said = true;
        return map_open(directory, name, schema, flags | ODM_ANY_FILE_SYSTEM);
    }
    if (status == ODM_NOT_FOUND) fail("there is no map in %s yet: run `unicode load` first", path);
    if (status != ODM_OK) fail("%s: %s", odm_status_name(status), error.message);
    return map;
}

static struct maps maps_open(const char *directory, uint32_t flags)
{
    if (strlen(directory) > PATH_SIZE_MAX) fail("the path of the directory is too long");
    bool may_make = !(flags & (ODM_READ_ONLY | ODM_MUST_EXIST));
    if (may_make && mkdir(directory, 0777) != 0 && errno != EEXIST) fail("%s: %s", directory, strerror(errno));
    return (struct maps){
        map_open(directory, "names", "u32/str", flags),
        map_open(directory, "characters", "str/u32", flags),
    };
}

static void maps_close(struct maps maps)
{
    odm_close(maps.names);
    odm_close(maps.characters);
}

/* ---- 4 the commands ---------------------------------------------------------------------------------------------- */

static void load(const char *directory, const char *file)
{
    struct table table = table_read(file);
    uint64_t start = now_ns();
    struct maps maps = maps_open(directory, 0);
    double open_us = (double)(now_ns() - start) / 1e3;

    if (odm_count(maps.names) >= table.count) {
        printf("   the maps are already there, with %s and %s entries from an earlier run\n",
               grouped(odm_count(maps.names)), grouped(odm_count(maps.characters)));
        printf("   opened in %.0f us: nothing was read or loaded again\n", open_us);
    } else {
        start = now_ns();
        for (const struct character *c = table.characters; c < table.characters + table.count; c++) {
            unsigned char code[4];
            store_u32(code, c->code);
            must(maps.names, odm_put(maps.names, code, 4, name_of(&table, c), c->name_size));
            must(maps.characters, odm_put(maps.characters, name_of(&table, c), c->name_size, code, 4));
        }
        uint64_t put = now_ns();
        must(maps.names, odm_sync(maps.names, NULL));
        must(maps.characters, odm_sync(maps.characters, NULL));
        uint64_t synced = now_ns();
        printf("   loaded %s\n", file);
        printf("   code point -> name   %9s entries\n", grouped(odm_count(maps.names)));
        printf("   name -> code point   %9s entries\n", grouped(odm_count(maps.characters)));
        printf("   %.3f s, %.0f ns per put; then synced to disk in %.3f s\n", (double)(put - start) / 1e9,
               (double)(put - start) / (2.0 * (double)table.count), (double)(synced - put) / 1e9);
    }
    maps_close(maps);
    free(table.characters);
    free(table.names);
}

/* The code point that an argument means: U+2603, one character, or a name. */
static bool code_of(odm_map *characters, const char *argument, uint32_t *code)
{
    if (strncmp(argument, "U+", 2) == 0 || strncmp(argument, "u+", 2) == 0) {
        char *end;
        *code = (uint32_t)strtoul(argument + 2, &end, 16);
        return end != argument + 2 && *end == '\0';
    }
    if (one_character(argument, code)) return true;

    char name[NAME_SIZE_MAX + 1];
    size_t size = 0;
    for (; argument[size] != '\0' && size < NAME_SIZE_MAX; size++) {
        bool small = argument[size] >= 'a' && argument[size] <= 'z';
        name[size] = (char)(small ? argument[size] - 'a' + 'A' : argument[size]);
    }
    const void *value;
    size_t value_size;
    odm_status status = odm_get(characters, name, size, &value, &value_size);
    if (status == ODM_NOT_FOUND) return false;
    must(characters, status);
    *code = load_u32(value);
    return true;
}

/* Returns how many of the arguments are no characters. */
static int look_up(const char *directory, char **arguments)
{
    // A read-only handle locks nothing, writes nothing, and still sees what others write now.
    struct maps maps = maps_open(directory, ODM_READ_ONLY);
    int unknown = 0;
    for (; *arguments != NULL; arguments++) {
        unsigned char key[4];
        uint32_t code = 0;
        const void *name;
        size_t size;
        odm_status status = ODM_NOT_FOUND;
        if (code_of(maps.characters, *arguments, &code)) {
            store_u32(key, code);
            status = odm_get(maps.names, key, 4, &name, &size);
        }
        if (status == ODM_NOT_FOUND) {
            printf("   no character: %s\n", *arguments);
            unknown++;
            continue;
        }
        must(maps.names, status);
        printf("   ");
        print_character(code);
        printf("\tU+%04" PRIX32 "%*s%.*s\n", code,
               code > 0xfffff  ? 2
               : code > 0xffff ? 3
                               : 4,
               "", (int)size, (const char *)name);
    }
    maps_close(maps);
    return unknown;
}

enum { LIVE_CODE = 0xe000, LIVE_ROUNDS = 100 }; // U+E000 is for private use: it has no name of its own.

static void live_name(int round, char name[NAME_SIZE_MAX + 1])
{
    snprintf(name, NAME_SIZE_MAX + 1, "SMILING DISK NUMBER %d", round);
}

/* The reading process: tells the time at which it has seen each new name, and at last that the entry is gone. */
static void live_reader(const char *directory, int out)
{
    struct maps maps = maps_open(directory, ODM_READ_ONLY);
    unsigned char key[4];
    store_u32(key, LIVE_CODE);
    uint64_t time = 0;
    if (write(out, &time, sizeof time) < 0) fail("the writing process is gone"); // Ready.
    for (int round = 1; round <= LIVE_ROUNDS + 1; round++) {
        char expected[NAME_SIZE_MAX + 1];
        live_name(round, expected);
        uint64_t start = now_ns();
        for (;;) {
            const void *name;
            size_t size;
            odm_status status = odm_get(maps.names, key, 4, &name, &size);
            time = now_ns();
            bool seen = round > LIVE_ROUNDS
                            ? status == ODM_NOT_FOUND
                            : status == ODM_OK && size == strlen(expected) && !memcmp(name, expected, size);
            odm_refresh(maps.names);
            if (seen) break;
            if (status < 0) must(maps.names, status);
            if (time - start > 10u * 1000000000u) fail("the reading process has seen nothing new for 10 s");
        }
        if (write(out, &time, sizeof time) < 0) fail("the writing process is gone");
    }
    maps_close(maps);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t read_time(int in)
{
    uint64_t time;
    if (read(in, &time, sizeof time) != (ssize_t)sizeof time) fail("the reading process is gone");
    return time;
}

static void live(const char *directory)
{
    int ends[2];
    if (pipe(ends) != 0) fail("pipe: %s", strerror(errno));
    fflush(stdout);
    pid_t reader = fork();
    if (reader < 0) fail("fork: %s", strerror(errno));
    if (reader == 0) {
        close(ends[0]);
        live_reader(directory, ends[1]);
        exit(0);
    }
    close(ends[1]);
    struct maps maps = maps_open(directory, ODM_MUST_EXIST);
    read_time(ends[0]); // Until the reader has its maps open.

    unsigned char key[4];
    store_u32(key, LIVE_CODE);
    char name[NAME_SIZE_MAX + 1];
    uint64_t delays[LIVE_ROUNDS];
    for (int round = 1; round <= LIVE_ROUNDS; round++) {
        live_name(round, name);
        uint64_t start = now_ns();
        must(maps.names, odm_put(maps.names, key, 4, name, strlen(name)));
        delays[round - 1] = read_time(ends[0]) - start;
    }
    must(maps.names, odm_remove(maps.names, key, 4));
    read_time(ends[0]);
    int ended = -1;
    waitpid(reader, &ended, 0);
    if (ended != 0) fail("the reading process failed");

    qsort(delays, LIVE_ROUNDS, sizeof delays[0], compare_u64);
    printf("   process %ld   put U+E000, \"%s\"\n", (long)getpid(), name);
    printf("   process %ld   has read it, while both were running\n", (long)reader);
    printf("   process %ld   removed it; the other one no longer found it\n", (long)getpid());
    printf("   from the start of the put until the other had it: median of %d puts %.1f us, longest %.1f us\n",
           LIVE_ROUNDS, (double)delays[LIVE_ROUNDS / 2] / 1e3, (double)delays[LIVE_ROUNDS - 1] / 1e3);
    maps_close(maps);
}

/* What `cost` asks for, in random order, packed as the batch functions take it. */
struct questions {
    size_t count;
    struct character **asked;
    unsigned char *codes;
    uint64_t *code_ends;
};

static struct questions questions_make(const struct table *table)
{
    struct questions q = {
        .count = table->count,
        .asked = grown(NULL, table->count * sizeof *q.asked),
        .codes = grown(NULL, table->count * 4),
        .code_ends = grown(NULL, table->count * sizeof *q.code_ends),
    };
    uint64_t random = 88172645463325252u; // The same order every time.
    for (size_t i = 0; i < q.count; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t j = random % (i + 1);
        q.asked[i] = q.asked[j];
        q.asked[j] = &table->characters[i];
    }
    for (size_t i = 0; i < q.count; i++) {
        store_u32(q.codes + 4 * i, q.asked[i]->code);
        q.code_ends[i] = 4 * (i + 1);
    }
    return q;
}

/* Each of the passes asks everything once, and returns how many answers were missing. */
typedef uint64_t pass(struct maps maps, const struct table *table, const struct questions *q);

static uint64_t pass_names(struct maps maps, const struct table *table, const struct questions *q)
{
    uint64_t missing = 0;
    (void)table;
    for (size_t i = 0; i < q->count; i++) {
        const void *name;
        size_t size;
        missing += odm_get(maps.names, q->codes + 4 * i, 4, &name, &size) != ODM_OK;
    }
    return missing;
}

static uint64_t pass_characters(struct maps maps, const struct table *table, const struct questions *q)
{
    uint64_t missing = 0;
    for (size_t i = 0; i < q->count; i++) {
        const struct character *c = q->asked[i];
        const void *code;
        size_t size;
        missing += odm_get(maps.characters, name_of(table, c), c->name_size, &code, &size) != ODM_OK;
    }
    return missing;
}

static uint64_t pass_many(struct maps maps, const struct table *table, const struct questions *q)
{
    enum { MANY = 64 };
    const void *names[MANY];
    uint64_t sizes[MANY], missing = 0;
    (void)table;
    for (size_t i = 0; i < q->count; i += MANY) {
        // Ends count from the start of the keys given: as all keys are 4 bytes, the first 64 ends fit every piece.
        size_t n = q->count - i < MANY ? q->count - i : MANY;
        must(maps.names, odm_get_many(maps.names, &n, q->codes + 4 * i, q->code_ends, names, sizes));
        for (size_t j = 0; j < n; j++) missing += sizes[j] == ODM_ABSENT;
    }
    return missing;
}

static uint64_t pass_walk(struct maps maps, const struct table *table, const struct questions *q)
{
    odm_iter *iter = NULL;
    const void *key, *name;
    size_t key_size, size;
    uint64_t visited = 0;
    (void)table;
    must(maps.names, odm_iter_open(maps.names, &iter));
    odm_status status;
    while ((status = odm_iter_next(iter, &key, &key_size, &name, &size)) == ODM_OK) visited++;
    if (status != ODM_DONE) must(maps.names, status);
    odm_iter_close(iter);
    return visited < q->count ? q->count - visited : 0;
}

/* The fastest of five passes, in ns per question. */
static double fastest(pass *ask, struct maps maps, const struct table *table, const struct questions *q,
                      uint64_t *wrong)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        uint64_t start = now_ns();
        *wrong += ask(maps, table, q);
        uint64_t time = now_ns() - start;
        if (time < best) best = time;
        odm_refresh(maps.names);
        odm_refresh(maps.characters);
    }
    return (double)best / (double)q->count;
}

/* Compares both maps with the file, byte by byte. */
static uint64_t count_wrong(struct maps maps, const struct table *table)
{
    uint64_t wrong = 0;
    for (const struct character *c = table->characters; c < table->characters + table->count; c++) {
        unsigned char key[4];
        const void *name, *code, *other;
        size_t size, code_size, other_size;
        store_u32(key, c->code);
        if (odm_get(maps.names, key, 4, &name, &size) != ODM_OK || size != c->name_size ||
            memcmp(name, name_of(table, c), size) != 0) {
            wrong++;
            continue;
        }
        // A slice of one map may be the key for another. It leads back here, or to a later character of the same name.
        if (odm_get(maps.characters, name, size, &code, &code_size) != ODM_OK || code_size != 4 ||
            load_u32(code) < c->code || odm_get(maps.names, code, 4, &other, &other_size) != ODM_OK ||
            other_size != size || memcmp(other, name, size) != 0)
            wrong++;
    }
    odm_refresh(maps.names);
    odm_refresh(maps.characters);
    return wrong;
}

static uint64_t disk_bytes;

static int add_disk_bytes(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)path, (void)kind, (void)where;
    disk_bytes += (uint64_t)status->st_blocks * 512;
    return 0;
}

static int cost(const char *directory, const char *file)
{
    struct table table = table_read(file);
    struct questions q = questions_make(&table);
    uint64_t start = now_ns();
    struct maps maps = maps_open(directory, ODM_MUST_EXIST);
    double open_us = (double)(now_ns() - start) / 1e3;

    uint64_t wrong = count_wrong(maps, &table);
    double names_ns = fastest(pass_names, maps, &table, &q, &wrong);
    double characters_ns = fastest(pass_characters, maps, &table, &q, &wrong);
    double many_ns = fastest(pass_many, maps, &table, &q, &wrong);
    double walk_ns = fastest(pass_walk, maps, &table, &q, &wrong);
    if (nftw(directory, add_disk_bytes, 16, FTW_PHYS) != 0) fail("%s: %s", directory, strerror(errno));

    printf("   entries              %s + %s\n", grouped(odm_count(maps.names)), grouped(odm_count(maps.characters)));
    printf("   wrong answers        %s\n", grouped(wrong));
    printf("   keys and values      %.1f MB\n", 2.0 * (double)(table.names_size + 4 * table.count) / 1e6);
    printf("   on disk              %.1f MB, with the room made ready for more\n", (double)disk_bytes / 1e6);
    printf("   open both maps       %.0f us\n", open_us);
    printf("   code point -> name   %.0f ns per look-up\n", names_ns);
    printf("   name -> code point   %.0f ns per look-up\n", characters_ns);
    printf("   64 in one call       %.0f ns per look-up\n", many_ns);
    printf("   a walk               %.0f ns per entry\n", walk_ns);
    printf("   (every character once, in random order, by one thread, files in the page cache; fastest of 5)\n");
    maps_close(maps);
    free(q.asked);
    free(q.codes);
    free(q.code_ends);
    free(table.characters);
    free(table.names);
    return wrong != 0;
}

static int usage(void)
{
    fputs("usage: unicode [-m DIRECTORY] [-f FILE] load | live | cost | CHARACTER...\n"
          "a CHARACTER is U+2603, or the character itself, or its name: unicode U+1F600 SNOWMAN 7\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    const char *directory = "unicode.map", *file = "/usr/share/unicode/UnicodeData.txt";
    int option;
    while ((option = getopt(argc, argv, "m:f:")) != -1) {
        if (option == 'm')
            directory = optarg;
        else if (option == 'f')
            file = optarg;
        else
            return usage();
    }
    const char *command = argv[optind];
    if (command == NULL) return usage();
    if (strcmp(command, "load") == 0)
        load(directory, file);
    else if (strcmp(command, "live") == 0)
        live(directory);
    else if (strcmp(command, "cost") == 0)
        return cost(directory, file);
    else
        return look_up(directory, argv + optind) != 0;
    return 0;
}
