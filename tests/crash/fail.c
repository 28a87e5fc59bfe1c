/* fail.c - every system call of an operation fails, one after the other.
 *
 * An operation is done again and again, each time on the same files. First it is watched: which calls does it make? Then the
 * n-th of them fails, for every n, with each errno that this call can give; once, and in another run from then on. Running out
 * of memory counts as a call that fails: the engine's allocations are wrapped by the linker.
 *
 * What must hold, whatever fails: the operation gives a status; if that is negative, the map is as before, else as after; with
 * no more failures later calls work, and the map can be closed and opened again with the same in it; nothing leaks: no
 * descriptor, no mapping, no memory. After a sync that could not write, no sync says ok.
 *
 * ODM_TEST_FAILURES: "all" = each errno of each call, once and from then on. Default: some of them, in turn, for each call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "compact.h"
#include "image.h"
#include "oracle.h"
#include "support.h"

/* ---- which errno a call can give --------------------------------------------------------------------------------------- */

enum {
    BAD_IO = 1,
    NO_ROOM = 2,
    NO_FILES = 4,
    NO_MEMORY = 8,
    BROKEN_OFF = 16,
    NO_QUOTA = 32,
    HALF = 64,
    NO_LOCKS = 128
};
static const struct error {
    int bit, number;
    const char *name;
} errors[] = {{BAD_IO, EIO, "EIO"},          {NO_ROOM, ENOSPC, "ENOSPC"},  {NO_FILES, EMFILE, "EMFILE"},
              {NO_MEMORY, ENOMEM, "ENOMEM"}, {BROKEN_OFF, EINTR, "EINTR"}, {NO_QUOTA, EDQUOT, "EDQUOT"},
              {HALF, 0, "half of it"},       {NO_LOCKS, ENOLCK, "ENOLCK"}};

/* The call that fails, and what has been called. */
enum { CALLS_MAX = 20000 };
static struct {
    bool counting;
    bool from_then_on;
    size_t fails_at; // 1 = the first; 0: none
    struct error error;
    size_t calls;
    size_t failed;
    bool sync_failed;  // one of those that make data durable
    bool write_failed; // what was written may be there in part
    struct {
        const char *name;
        int errors;
    } made[CALLS_MAX];
} plan;

/* What the process has. */
static int64_t mapped_bytes, allocations;

static const struct odm__os *os;

/* Whether this call is to fail; errno is set. */
static bool fails(const char *name, int possible)
{
    if (!plan.counting) return false;
    size_t n = plan.calls++;
    if (n < CALLS_MAX) {
        plan.made[n].name = name;
        plan.made[n].errors = possible;
    }
    bool its_turn = plan.fails_at != 0 && (plan.from_then_on ? n + 1 >= plan.fails_at : n + 1 == plan.fails_at);
    if (!its_turn || (plan.error.bit & possible) == 0) return false;
    ++plan.failed;
    if (plan.error.number != 0) errno = plan.error.number;
    return true;
}

/* ---- the calls --------------------------------------------------------------------------------------------------------- */

#define FAILING(result, name, parameters, arguments, possible) \
    static result failing_##name parameters                    \
    {                                                          \
        if (fails(#name, possible)) return -1;                 \
        return os->name arguments;                             \
    }
FAILING(int, memory_file, (const char *name), (name), NO_FILES | NO_MEMORY)
FAILING(int, duplicate, (int fd), (fd), NO_FILES)
FAILING(int, identify, (int fd, struct file_identity *identity), (fd, identity), BAD_IO | NO_MEMORY)
FAILING(int, identify_name, (int directory, const char *name, struct file_identity *identity),
        (directory, name, identity), BAD_IO | NO_MEMORY)
FAILING(int, file_system, (int fd, uint64_t *magic), (fd, magic), BAD_IO | NO_MEMORY)
FAILING(int, reserve, (int fd, off_t offset, off_t size), (fd, offset, size), BAD_IO | NO_ROOM | NO_QUOTA | NO_MEMORY)
FAILING(int, truncate, (int fd, off_t size), (fd, size), BAD_IO | NO_ROOM | NO_MEMORY | NO_QUOTA)
FAILING(int, file_size_limit, (uint64_t * bytes), (bytes), BAD_IO)
FAILING(int, memory_size, (uint64_t * bytes), (bytes), BAD_IO | NO_FILES)
FAILING(int, start_write_back, (int fd, off_t offset, off_t size), (fd, offset, size), BAD_IO | NO_ROOM)
FAILING(int, advise, (void *base, size_t size, int advice), (base, size, advice), NO_MEMORY | BAD_IO)
FAILING(int, resident, (void *base, size_t size, unsigned char *pages), (base, size, pages), NO_MEMORY)
FAILING(int, make_directory, (int directory, const char *name, mode_t mode), (directory, name, mode),
        BAD_IO | NO_ROOM | NO_MEMORY | NO_QUOTA)
FAILING(int, rename_new, (int directory, const char *from, const char *to), (directory, from, to),
        BAD_IO | NO_ROOM | NO_MEMORY | NO_QUOTA)
FAILING(int, rename, (int directory, const char *from, const char *to), (directory, from, to),
        BAD_IO | NO_ROOM | NO_MEMORY | NO_QUOTA)
FAILING(int, exchange, (int directory, const char *a, const char *b), (directory, a, b),
        BAD_IO | NO_ROOM | NO_MEMORY | NO_QUOTA)
FAILING(int, unlink, (int directory, const char *name, bool is_directory), (directory, name, is_directory),
        BAD_IO | NO_MEMORY)
FAILING(int, list, (int directory, void (*found)(void *context, const char *name), void *context),
        (directory, found, context), BAD_IO | NO_FILES | NO_MEMORY)
FAILING(int, change_owner, (int fd, uid_t uid, gid_t gid), (fd, uid, gid), BAD_IO | NO_QUOTA)
FAILING(int, change_mode, (int fd, mode_t mode), (fd, mode), BAD_IO)
FAILING(int, set_no_copy_on_write, (int fd), (fd), BAD_IO)
FAILING(int, lock, (int fd, int command, short type, off_t at, off_t size, short *type_found),
        (fd, command, type, at, size, type_found), NO_LOCKS | NO_MEMORY)
FAILING(int, boot_id, (uint64_t id[2]), (id), BAD_IO | NO_FILES | NO_MEMORY)
FAILING(int, random_bytes, (void *buffer, size_t size), (buffer, size), BROKEN_OFF)

static int failing_open(int directory, const char *name, int flags, mode_t mode)
{
    int possible = BAD_IO | NO_FILES | NO_MEMORY;
    if ((flags & O_CREAT) != 0) possible |= NO_ROOM | NO_QUOTA;
    return fails("open", possible) ? -1 : os->open(directory, name, flags, mode);
}

/* They write nothing: this is no test of power loss. */
#define FAILING_SYNC(name, parameters)                                        \
    static int failing_##name parameters                                      \
    {                                                                         \
        if (!fails(#name, BAD_IO | NO_ROOM | NO_QUOTA | NO_MEMORY)) return 0; \
        plan.sync_failed = true;                                              \
        return -1;                                                            \
    }
FAILING_SYNC(sync_data, (__attribute__((unused)) int fd))
FAILING_SYNC(sync_directory, (__attribute__((unused)) int fd))
FAILING_SYNC(sync_map, (__attribute__((unused)) void *base, __attribute__((unused)) size_t size))

/* The descriptor is gone all the same. */
static int failing_close(int fd)
{
    bool failing = fails("close", BAD_IO | NO_ROOM | NO_QUOTA | BROKEN_OFF);
    int number = errno, result = os->close(fd);
    if (failing) errno = number;
    return failing ? -1 : result;
}

static ssize_t failing_read_at(int fd, void *buffer, size_t size, off_t offset)
{
    return fails("read_at", BAD_IO | NO_MEMORY) ? -1 : os->read_at(fd, buffer, size, offset);
}

static ssize_t failing_write_at(int fd, const void *buffer, size_t size, off_t offset)
{
    if (!fails("write_at", BAD_IO | NO_ROOM | NO_QUOTA | HALF)) return os->write_at(fd, buffer, size, offset);
    plan.write_failed = true;
    return plan.error.bit == HALF ? os->write_at(fd, buffer, size / 2, offset) : -1;
}

static void *failing_map(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fails("map", NO_MEMORY)) return MAP_FAILED;
    void *base = os->map(at, size, protection, flags, fd, offset);
    if (base != MAP_FAILED && (flags & MAP_FIXED) == 0) mapped_bytes += (int64_t)size;
    return base;
}

static int failing_unmap(void *base, size_t size)
{
    mapped_bytes -= (int64_t)size; // Of what the kernel will not unmap nothing can be asked.
    int result = os->unmap(base, size);
    return fails("unmap", NO_MEMORY) ? -1 : result;
}

/* ---- memory: the linker leads the engine's calls here (--wrap) ------------------------------------------------------------ */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *memory);

static void *counted(void *memory)
{
    allocations += memory != NULL;
    return memory;
}

void *__wrap_malloc(size_t size)
{
    return fails("malloc", NO_MEMORY) ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails("calloc", NO_MEMORY) ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *memory, size_t size)
{
    if (fails("realloc", NO_MEMORY)) return NULL;
    if (memory == NULL) return counted(__real_realloc(NULL, size));
    return __real_realloc(memory, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails("aligned_alloc", NO_MEMORY) ? NULL : counted(__real_aligned_alloc(alignment, size));
}

void __wrap_free(void *memory)
{
    allocations -= memory != NULL;
    __real_free(memory);
}

/* The same seed each time, so that the same put splits; but each map has an id of its own. */
static int same_random_bytes(void *buffer, size_t size)
{
    static uint64_t maps;
    uint64_t number = size == sizeof(uint64_t) ? 77 : ++maps;
    memset(buffer, 0x5a, size);
    memcpy(buffer, &number, sizeof number);
    return 0;
}

static void begin(void)
{
    static struct odm__os before;
    lies_begin();
    odm__os.random_bytes = same_random_bytes;
    (void)value_of_tag(0, 32768); // It allocates now, and not when allocations fail.
    before = odm__os;
    os = &before;
#define TAKE(name) odm__os.name = failing_##name
    TAKE(open), TAKE(memory_file), TAKE(duplicate), TAKE(close), TAKE(identify), TAKE(identify_name), TAKE(file_system);
    TAKE(read_at), TAKE(write_at), TAKE(reserve), TAKE(truncate), TAKE(file_size_limit), TAKE(sync_data);
    TAKE(memory_size), TAKE(sync_directory), TAKE(sync_map), TAKE(start_write_back), TAKE(map), TAKE(unmap),
        TAKE(advise), TAKE(resident);
    TAKE(make_directory), TAKE(rename_new), TAKE(rename), TAKE(exchange), TAKE(unlink), TAKE(list), TAKE(change_owner);
    TAKE(change_mode), TAKE(set_no_copy_on_write), TAKE(lock), TAKE(boot_id), TAKE(random_bytes);
#undef TAKE
}

TestSuite(fail, .init = begin, .fini = remove_temp_directories, .timeout = 86400);

/* ---- operations --------------------------------------------------------------------------------------------------------- */

enum { IDS = 400, STRIPES = 2 };

/* What a run is about; and the map in it. */
static struct run {
    const char *name;
    const char *path;
    struct image image; // of the files before; count 0: there are none
    struct oracle before, after;
    odm_status (*operation)(void);
    const char *target; // of a backup
    uint32_t flags;     // of the open
    bool in_memory;
    odm_map *map;      // NULL: the operation is to open it
    char message[240]; // of an open that failed
    struct test_write write;
} run;

static odm_status open_it(void)
{
    odm_options options = {.struct_size = sizeof options, .stripes = STRIPES, .flags = run.flags, .wait_ms = 50};
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_open(run.in_memory ? NULL : run.path, &options, &run.map, &error);
    if (status < 0) {
        cr_assert_eq(error.status, status);
        cr_assert(error.message[0] != '\0');
        snprintf(run.message, sizeof run.message, "%s", error.message);
    }
    cr_assert_eq(run.map != NULL, status == ODM_OK);
    return status;
}

static odm_status write_it(void)
{
    return write_do(&run.write, run.map);
}

static odm_status sync_it(void)
{
    return odm_sync(run.map, NULL);
}

static odm_status compact_it(void)
{
    return odm_compact(run.map, NULL, NULL);
}

static odm_status verify_it(void)
{
    odm_report report = {.struct_size = sizeof report};
    odm_status status = odm_verify(run.map, &report, NULL, NULL);
    if (status == ODM_OK) cr_assert(report.bad_records == 0 && report.bad_slots == 0);
    return status;
}

/* A target that was begun and not finished is no map, and is taken up again. */
static odm_status backup_it(void)
{
    odm_status status = odm_backup(run.map, run.target, NULL, NULL);
    return status;
}

/* Every key, by a handle that has nothing mapped yet. */
static odm_status get_all(void)
{
    for (uint32_t id = 0; id < IDS; ++id) {
        const struct oracle_entry *entry = &run.before.entries[id];
        size_t key_size, size;
        const void *value, *key = key_of_id(id, &key_size);
        odm_status status = odm_get(run.map, key, key_size, &value, &size);
        if (status < 0) return status;
        cr_assert_eq(status, entry->present ? ODM_OK : ODM_NOT_FOUND, "%s: key %u", run.name, id);
        if (entry->present) cr_assert(size == entry->size && value_has_tag(value, size, entry->tag));
    }
    return ODM_OK;
}

static odm_status walk_it(void)
{
    odm_iter *iter;
    odm_status status = odm_iter_open(run.map, &iter);
    if (status != ODM_OK) return status;
    uint64_t count = 0;
    do {
        size_t n = 7;
        const void *keys[7], *values[7];
        uint64_t key_sizes[7], value_sizes[7];
        status = odm_iter_next_many(iter, &n, keys, key_sizes, values, value_sizes);
        if (status == ODM_OK) count += n;
    } while (status == ODM_OK);
    if (status == ODM_DONE)
        cr_assert_eq(count, run.before.count, "%s: a walk met %llu", run.name, (unsigned long long)count);
    cr_assert_eq(odm_iter_close(iter), ODM_OK);
    return status == ODM_DONE ? ODM_OK : status;
}

static odm_status dup_it(void)
{
    odm_map *dup;
    odm_status status = odm_dup(run.map, &dup, NULL);
    if (status != ODM_OK) return status;
    struct test_write write = {.kind = WRITE_PUT, .id = 5, .size = 33, .tag = 7};
    status = write_do(&write, dup);
    cr_assert_eq(odm_close(dup), ODM_OK);
    return status;
}

static odm_status stat_it(void)
{
    odm_statistics statistics = {.struct_size = sizeof statistics};
    odm_status status = odm_stat(run.map, &statistics);
    if (status == ODM_OK) cr_assert_eq(statistics.count, run.before.count);
    return status;
}

static odm_status close_it(void)
{
    odm_status status = odm_close(run.map);
    run.map = NULL;
    return status;
}

/* A put, its pair of removes, and puts of many keys at once. */
static odm_status write_many(void)
{
    enum { N = 6 };
    unsigned char keys[N * 400];
    uint64_t key_ends[N], value_ends[N];
    uint8_t ops[N] = {ODM_OP_PUT, ODM_OP_INSERT, ODM_OP_REMOVE, ODM_OP_PUT, ODM_OP_REMOVE, ODM_OP_PUT};
    static unsigned char values[N * 900];
    size_t n = N, keys_end = 0, values_end = 0;
    struct test_write writes[N];
    plan.counting = false; // What the test allocates must not fail.
    for (uint32_t i = 0; i < N; ++i) {
        size_t key_size;
        uint32_t id = ops[i] == ODM_OP_INSERT ? 397 : 20 + i;
        const void *key = key_of_id(id, &key_size);
        writes[i] = (struct test_write){ops[i] == ODM_OP_REMOVE ? WRITE_REMOVE : WRITE_PUT, id, 800, 4000 + i};
        if (ops[i] == ODM_OP_REMOVE) writes[i].size = 0;
        memcpy(keys + keys_end, key, key_size);
        memcpy(values + values_end, value_of_tag(writes[i].tag, writes[i].size), writes[i].size);
        key_ends[i] = keys_end += key_size;
        value_ends[i] = values_end += writes[i].size;
    }
    plan.counting = true;
    odm_status status = odm_write_many(run.map, &n, ops, keys, key_ends, values, value_ends, NULL);
    plan.counting = false;
    cr_assert(status < 0 || n == N);
    // Of a batch that failed the first n are done, and no more.
    oracle_free(&run.after);
    oracle_copy(&run.after, &run.before);
    for (size_t i = 0; i < n; ++i) write_apply(&writes[i], &run.after);
    if (status < 0) {
        oracle_free(&run.before);
        oracle_copy(&run.before, &run.after);
    }
    return status;
}

/* ---- a run -------------------------------------------------------------------------------------------------------------- */

static const char *what(void)
{
    static char text[200];
    if (plan.fails_at == 0) return run.name;
    snprintf(text, sizeof text, "%s, call %zu (%s): %s%s", run.name, plan.fails_at,
             plan.fails_at <= plan.calls ? plan.made[plan.fails_at - 1].name : "none", plan.error.name,
             plan.from_then_on ? " from then on" : "");
    return text;
}

static void expect_map(const struct oracle *expected, const char *when)
{
    const char *why = oracle_mismatch(expected, run.map);
    cr_assert_null(why, "%s: %s: %s", what(), when, why);
}

static void expect_ok(odm_status status, const char *when)
{
    cr_assert_eq(status, ODM_OK, "%s: %s: %s, %s", what(), when, odm_status_name(status),
                 run.map != NULL ? last_error_of(run.map).message : run.message);
}

/* A later backup to the same place is complete, whatever the failed one left. */
static void check_backup(const struct oracle *expected)
{
    odm_map *map = run.map;
    odm_options options = {.struct_size = sizeof options, .flags = ODM_MUST_EXIST};
    odm_status status = odm_open(run.target, &options, &run.map, NULL);
    if (status != ODM_OK) {
        run.map = map;
        expect_ok(odm_backup(run.map, run.target, NULL, NULL), "a later backup");
        expect_ok(odm_open(run.target, &options, &run.map, NULL), "open the backup");
    }
    expect_map(expected, "the backup");
    expect_ok(odm_close(run.map), "close the backup");
    run.map = map;
    remove_tree(run.target);
}

/* Later calls work, and the map is what it should be, now and when it is opened again. */
static void check_after(odm_status status, bool write)
{
    struct oracle *expected = status < 0 ? &run.before : &run.after;
    if (run.map == NULL) {
        status = open_it();
        expect_ok(status, "open again");
    }
    expect_map(expected, "after it");
    if (run.target != NULL) check_backup(expected);
    if (write) {
        struct test_write later = {.kind = WRITE_PUT, .id = 398, .size = 100, .tag = 99};
        expect_ok(write_do(&later, run.map), "a later put");
        write_apply(&later, expected);
        later.kind = WRITE_REMOVE;
        later.id = 0;
        expect_ok(write_do(&later, run.map), "a later remove");
        write_apply(&later, expected);
        odm_status synced = odm_sync(run.map, NULL);
        if (plan.sync_failed && run.operation == sync_it)
            cr_assert_eq(synced, ODM_E_IO, "%s: the next sync: %s", what(), odm_status_name(synced));
        // To an open and a sync any I/O error, or a `meta` written in part, may mean that something is lost.
        if (!plan.sync_failed && !plan.write_failed && (plan.error.bit != BAD_IO || plan.failed == 0))
            expect_ok(synced, "a later sync");
        expect_map(expected, "after later writes");
    }
    expect_ok(odm_close(run.map), "close");
    run.map = NULL;
    if (run.in_memory) return;
    lie_about_mount(write ? 7 : 0);
    expect_ok(open_it(), "open once more");
    expect_map(expected, "opened once more");
    expect_ok(odm_close(run.map), "close once more");
    run.map = NULL;
    lie_about_mount(0);
}

static bool warm;

static void do_run(bool write)
{
    struct oracle before, after;
    oracle_copy(&before, &run.before);
    oracle_copy(&after, &run.after);
    size_t descriptors = descriptor_count();
    int64_t mapped = mapped_bytes, allocated = allocations;
    bool opens = run.operation == open_it;
    if (run.image.count != 0) {
        image_write(&run.image, run.path);
        lie_about_files(&run.image, run.path);
    }
    if (!opens) expect_ok(open_it(), "open");

    plan.calls = plan.failed = 0;
    plan.sync_failed = plan.write_failed = false;
    plan.counting = true;
    odm_status status = run.operation();
    plan.counting = false;
    cr_assert(strcmp(odm_status_name(status), "unknown status") != 0, "%s: %d", what(), status);
    cr_assert(plan.failed != 0 || status == ODM_OK, "%s: %s", what(), odm_status_name(status));
    check_after(status, write);

    // The first time, what the test itself keeps for ever is allocated.
    if (plan.fails_at == 0 && !warm) allocated = allocations;
    warm = plan.fails_at == 0;
    cr_assert_eq(mapped_bytes, mapped, "%s: %lld bytes stay mapped", what(), (long long)(mapped_bytes - mapped));
    cr_assert_eq(allocations, allocated, "%s: %lld allocations stay", what(), (long long)(allocations - allocated));
    cr_assert_eq(descriptor_count(), descriptors, "%s: descriptors stay open", what());
    if (!run.in_memory) remove_tree(run.path);
    oracle_free(&run.before);
    oracle_free(&run.after);
    run.before = before;
    run.after = after;
}

/* One thread at a time: ThreadSanitizer has nothing to find here, and takes its time. */
#if defined(__SANITIZE_THREAD__)
enum { EVERY = 211 };
#else
enum { EVERY = 5 };
#endif

static void fail_everywhere(bool write)
{
    const char *text = getenv("ODM_TEST_FAILURES");
    bool all = text != NULL && strcmp(text, "all") == 0;
    size_t runs = 0, failures = 0, total;
    plan.fails_at = 0;
    do_run(write);
    do_run(write); // What the test itself allocates for good it has by now.
    total = plan.calls;
    cr_assert_lt(total, CALLS_MAX);
    static int possible[CALLS_MAX];
    for (size_t i = 0; i < total; ++i) possible[i] = plan.made[i].errors;
    for (size_t n = 1; n <= total; ++n) {
        size_t turn = 0;
        for (size_t e = 0; e < COUNT_OF(errors); ++e) {
            if ((possible[n - 1] & errors[e].bit) == 0) continue;
            for (int mode = 0; mode < 2; ++mode, ++turn) {
                if (!all && (turn + n) % EVERY != 0) continue;
                plan.fails_at = n;
                plan.error = errors[e];
                plan.from_then_on = mode == 1;
                do_run(write);
                ++runs;
                failures += plan.failed;
            }
        }
    }
    fprintf(stderr, "%s: %zu calls, %zu runs, %zu failures\n", run.name, total, runs, failures);
    image_free(&run.image);
    oracle_free(&run.before);
    oracle_free(&run.after);
}

/* ---- what is done ------------------------------------------------------------------------------------------------------- */

/* Write number i of the script by which maps are filled. */
static struct test_write script(uint32_t i)
{
    return (struct test_write){WRITE_PUT, i >= 11 ? i + 1 : i, 20 + i * 37 % 90, 100 + i};
}

/* Fills a map with the first `count` writes, synced up to half of them, and takes its files. */
static void prepare(const char *name, uint32_t count)
{
    memset(&run, 0, sizeof run);
    run.name = name;
    run.path = path_of(temp_directory(), "map");
    oracle_init(&run.before, IDS);
    expect_ok(open_it(), "prepare");
    for (uint32_t i = 0; i < count; ++i) {
        struct test_write write = script(i);
        expect_ok(write_do(&write, run.map), "prepare");
        write_apply(&write, &run.before);
        if (i == count / 2) expect_ok(odm_sync(run.map, NULL), "prepare");
    }
    expect_ok(odm_close(run.map), "prepare");
    run.map = NULL;
    run.image = image_take(run.path);
    remove_tree(run.path);
    oracle_copy(&run.after, &run.before);
}

/* The first write of the script, from `from` on, that does something to the map's shape. */
static uint32_t first_that(uint32_t from, bool (*does)(const odm_statistics *before, const odm_statistics *after))
{
    odm_map *map = open_map(temp_map_path(), .stripes = STRIPES);
    odm_statistics before = statistics_of(map);
    for (uint32_t i = 0;; ++i) {
        struct test_write write = script(i);
        ok(write_do(&write, map));
        odm_statistics after = statistics_of(map);
        if (i >= from && does(&before, &after)) {
            odm_close(map);
            return i;
        }
        before = after;
        cr_assert_lt(i, IDS - 5);
    }
}

static bool splits(const odm_statistics *before, const odm_statistics *after)
{
    return after->splits > before->splits;
}
static bool grows(const odm_statistics *before, const odm_statistics *after)
{
    return after->index_bytes > before->index_bytes;
}
static bool rolls_over(const odm_statistics *before, const odm_statistics *after)
{
    return after->tail >> 29 > before->tail >> 29;
}

static void put_number(const char *name, uint32_t number)
{
    prepare(name, number);
    run.operation = write_it;
    run.write = script(number);
    write_apply(&run.write, &run.after);
    fail_everywhere(true);
}

/* For all of these: whatever fails, a status, the map as before, nothing leaks, later calls work.
 * Method: as told at the top of this file. */
Test(fail, open_that_makes_the_map)
{
    memset(&run, 0, sizeof run);
    run.name = "open, new map";
    run.path = path_of(temp_directory(), "map");
    oracle_init(&run.before, IDS);
    oracle_init(&run.after, IDS);
    run.operation = open_it;
    fail_everywhere(true);
}

Test(fail, open_of_a_map_with_nothing_to_do)
{
    prepare("open", 60);
    run.operation = open_it;
    fail_everywhere(true);
}

Test(fail, open_that_rebuilds)
{
    prepare("open, reboot", 60);
    for (size_t i = 0; i < 2; ++i) image_drop(&run.image, i == 0 ? "index" : "lock");
    run.operation = open_it;
    fail_everywhere(true);
}

Test(fail, open_that_rebuilds_on_another_mount)
{
    prepare("open, another mount", 60);
    image_drop(&run.image, "index");
    run.operation = open_it;
    fail_everywhere(true);
}

Test(fail, open_for_reading)
{
    prepare("open, read only", 60);
    run.operation = open_it;
    run.flags = ODM_READ_ONLY;
    fail_everywhere(false);
}

Test(fail, open_for_reading_with_a_private_index)
{
    prepare("open, read only, private index", 60);
    image_drop(&run.image, "index");
    run.operation = open_it;
    run.flags = ODM_READ_ONLY;
    fail_everywhere(false);
}

Test(fail, open_in_memory)
{
    memset(&run, 0, sizeof run);
    run.name = "open, in memory";
    run.in_memory = true;
    oracle_init(&run.before, IDS);
    oracle_init(&run.after, IDS);
    run.operation = open_it;
    fail_everywhere(true);
}

Test(fail, put)
{
    put_number("put", 40);
}

Test(fail, put_that_replaces_a_value)
{
    prepare("put, update", 60);
    run.operation = write_it;
    run.write = (struct test_write){WRITE_PUT, 3, 60, 5000};
    write_apply(&run.write, &run.after);
    fail_everywhere(true);
}

Test(fail, put_that_splits)
{
    put_number("put, split", first_that(30, splits));
}

Test(fail, put_that_makes_the_index_grow)
{
    put_number("put, index grows", first_that(30, grows));
}

Test(fail, put_that_rolls_over)
{
    put_number("put, rollover", first_that(50, rolls_over));
}

Test(fail, put_of_an_oversized_record)
{
    prepare("put, oversized", 40);
    run.operation = write_it;
    run.write = (struct test_write){WRITE_PUT, 300, 20000, 5001};
    write_apply(&run.write, &run.after);
    fail_everywhere(true);
}

Test(fail, remove)
{
    prepare("remove", 60);
    run.operation = write_it;
    run.write = (struct test_write){.kind = WRITE_REMOVE, .id = 7};
    write_apply(&run.write, &run.after);
    fail_everywhere(true);
}

Test(fail, clear)
{
    prepare("clear", 60);
    run.operation = write_it;
    run.write = (struct test_write){.kind = WRITE_CLEAR};
    write_apply(&run.write, &run.after);
    fail_everywhere(true);
}

Test(fail, batch)
{
    prepare("batch", 60);
    run.operation = write_many;
    fail_everywhere(true);
}

Test(fail, sync)
{
    prepare("sync", 150);
    run.operation = sync_it;
    fail_everywhere(true);
}

Test(fail, get)
{
    prepare("get", 150);
    run.operation = get_all;
    fail_everywhere(true);
}

Test(fail, walk)
{
    prepare("walk", 150);
    run.operation = walk_it;
    fail_everywhere(true);
}

Test(fail, another_handle)
{
    prepare("dup", 60);
    run.operation = dup_it;
    struct test_write write = {.kind = WRITE_PUT, .id = 5, .size = 33, .tag = 7};
    write_apply(&write, &run.after);
    fail_everywhere(true);
}

Test(fail, statistics)
{
    prepare("stat", 60);
    run.operation = stat_it;
    fail_everywhere(true);
}

Test(fail, close)
{
    prepare("close", 60);
    run.operation = close_it;
    fail_everywhere(true);
}

/* Writes keys 0 to 60 again, so that most of the log is dead, and takes the files anew. */
static void make_dead(void)
{
    lie_about_files(&run.image, run.path);
    image_write(&run.image, run.path);
    expect_ok(open_it(), "prepare");
    for (uint32_t i = 0; i < 120; ++i) {
        struct test_write write = script(i % 40);
        write.tag += i;
        expect_ok(write_do(&write, run.map), "prepare");
        write_apply(&write, &run.before);
    }
    expect_ok(odm_close(run.map), "prepare");
    run.map = NULL;
    image_free(&run.image);
    run.image = image_take(run.path);
    remove_tree(run.path);
    oracle_free(&run.after);
    oracle_copy(&run.after, &run.before);
}

Test(fail, compact)
{
    keep_whole_log(); // Until odm_compact.
    prepare("compact", 100);
    make_dead();
    run.operation = compact_it;
    fail_everywhere(true);
}

Test(fail, put_that_compacts)
{
    keep_whole_log();
    prepare("put, compaction", 100);
    make_dead();
    odm__test_dead_bytes_min = 4096;
    run.operation = write_it;
    run.write = (struct test_write){WRITE_PUT, 3, 700, 5002};
    write_apply(&run.write, &run.after);
    fail_everywhere(true);
}

Test(fail, verify)
{
    prepare("verify", 100);
    run.operation = verify_it;
    fail_everywhere(true);
}

Test(fail, backup)
{
    prepare("backup", 60);
    run.operation = backup_it;
    run.target = path_of(temp_directory(), "copy");
    fail_everywhere(true);
}
