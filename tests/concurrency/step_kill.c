/* step_kill.c - a writer killed after every single instruction of a call.
 *
 * The writer is stepped with ptrace. A first run of a call finds the steps after which something that outlives the writer has
 * changed: a byte of the lock file, the index or the log, or a system call was made. Between two such steps all kills are
 * alike. Then, for each of these steps, the files are put back to what they were, another writer makes the same call and is
 * killed there; while it stands still, and when it is dead, a survivor must read at once, and then write.
 *
 * The random numbers of a map, the clock, and the marks by which files are told from their copies, are held fixed, so that
 * each writer does the very same. A breakpoint brings it near the step in question.
 *
 * ODM_TEST_STEPS: "all" = after each instruction; a number = at most so many steps of each call. Default: 250.
 */
#include "support.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "compact.h"
#include "hash.h"
#include "map.h"
#include "oracle.h"
#include "proof.h"

/* ---- a world in which all is the same each time --------------------------------------------------------------------- */

static int same_random_bytes(void *buffer, size_t size)
{
    memset(buffer, 0x5a, size);
    return 0;
}

static void make_same(struct file_identity *identity)
{
    identity->inode = identity->birth_ns = identity->mount_id = 1;
}

static int same_identity(int fd, struct file_identity *identity)
{
    int result = real_os()->identify(fd, identity);
    make_same(identity);
    return result;
}

static int same_identity_of_name(int directory, const char *name, struct file_identity *identity)
{
    int result = real_os()->identify_name(directory, name, identity);
    make_same(identity);
    return result;
}

static uint64_t same_now_ns(void)
{
    static uint64_t now_ns;
    return now_ns += 1000;
}

/* Who holds a lock here is dead; so nobody needs to sleep. */
static int no_sleep(void *word, uint32_t expected, uint64_t timeout_ns)
{
    (void)word;
    (void)expected;
    (void)timeout_ns;
    return 0;
}

static void make_world(void)
{
    odm__os.now_ns = same_now_ns;
    odm__os.futex_wait = no_sleep;
    odm__os.random_bytes = same_random_bytes;
    odm__os.identify = same_identity;
    odm__os.identify_name = same_identity_of_name;
}

TestSuite(step_kill, .init = make_world, .fini = remove_temp_directories, .timeout = 86400);

/* ---- what a map should hold ------------------------------------------------------------------------------------------ */

enum { KEYS_MAX = 1024, PROBES = 100000, STRIPES = 2 };

/* By key: the sequence number of its value, 0 = absent; before and after what is in flight. */
static uint64_t old_sequence[KEYS_MAX], new_sequence[KEYS_MAX];
static uint32_t key_count;

struct write_op {
    enum { PUT, REMOVE, CLEAR, SYNC, COMPACT, GET, WALK } kind;
    uint32_t key;
    uint64_t sequence; // of a put
};

/* Made before the call is stepped. */
static struct arguments {
    unsigned char key[PROOF_KEY_MAX];
    unsigned char value[PROOF_VALUE_MAX];
    size_t key_size, value_size;
} arguments;

static void make_arguments(const struct write_op *op)
{
    arguments.key_size = proof_key(op->key, arguments.key);
    if (op->kind == PUT) arguments.value_size = proof_value(op->key, op->sequence, arguments.value);
}

/* What a call that reads has found: in memory shared with who made it. */
static struct found {
    uint64_t sequence;
    uint8_t times[KEYS_MAX];
} * found;

static odm_status call_walk(odm_map *map)
{
    odm_iter *iter;
    odm_status status = odm_iter_open(map, &iter);
    while (status == ODM_OK) {
        const void *key, *value;
        size_t key_size, value_size;
        uint32_t number;
        uint64_t sequence;
        status = odm_iter_next(iter, &key, &key_size, &value, &value_size);
        if (status != ODM_OK) break;
        if (!proof_number(key, key_size, &number) || !proof_read(number, value, value_size, &sequence))
            return ODM_E_CORRUPT;
        ++found->times[number];
    }
    odm_iter_close(iter);
    return status == ODM_DONE ? ODM_OK : status;
}

static odm_status call_get(odm_map *map, const struct write_op *op)
{
    const void *value;
    size_t size;
    odm_status status = odm_get(map, arguments.key, arguments.key_size, &value, &size);
    found->sequence = 0;
    if (status != ODM_OK) return status < 0 ? status : ODM_OK;
    return proof_read(op->key, value, size, &found->sequence) ? ODM_OK : ODM_E_CORRUPT;
}

static odm_status call(odm_map *map, const struct write_op *op)
{
    switch (op->kind) {
        case PUT: return odm_put(map, arguments.key, arguments.key_size, arguments.value, arguments.value_size);
        case REMOVE: return odm_remove(map, arguments.key, arguments.key_size);
        case CLEAR: return odm_clear(map, NULL);
        case COMPACT: return odm_compact(map, NULL, NULL);
        case GET: return call_get(map, op);
        case WALK: return call_walk(map);
        default: return odm_sync(map, NULL);
    }
}

static odm_status apply(odm_map *map, const struct write_op *op)
{
    make_arguments(op);
    return call(map, op);
}

static void expect_after(const struct write_op *op, uint64_t *sequences)
{
    if (op->kind == PUT) sequences[op->key] = op->sequence;
    if (op->kind == REMOVE) sequences[op->key] = 0;
    if (op->kind == CLEAR) memset(sequences, 0, KEYS_MAX * sizeof *sequences);
    if (op->kind == PUT && op->key >= key_count) key_count = op->key + 1;
}

/* A put of a key whose value has so many bytes. */
static struct write_op put_sized(uint32_t key, size_t size_min, size_t size_max)
{
    static unsigned char value[PROOF_VALUE_MAX];
    for (uint64_t sequence = 2;; ++sequence) {
        size_t size = proof_value(key, sequence, value);
        if (size >= size_min && size <= size_max) return (struct write_op){PUT, key, sequence};
    }
}

/* Writes number i of a script. */
static struct write_op fill(uint32_t i)
{
    return put_sized(i, 16, 40);
}

/* A number of keys that stays the same, but always other keys: their chunks fill with tombstones. */
static struct write_op churn(uint32_t i)
{
    enum { LIVE = 64, KEYS = 300 };
    if (i < LIVE) return fill(i);
    i -= LIVE;
    if (i % 2 == 0) return fill((LIVE + i / 2) % KEYS);
    return (struct write_op){REMOVE, i / 2 % KEYS, 0};
}

/* The same keys again and again: most of the log is dead. */
static struct write_op rewrite(uint32_t i)
{
    enum { KEYS = 24 };
    return fill(i % KEYS);
}

/* What a script's writes do to the map's shape. */
struct shape {
    uint64_t slots, splits, depth, recycled, tail_number;
};

static struct shape shape_of(odm_map *map)
{
    struct index *index = &map->reader.index;
    odm_statistics statistics = statistics_of(map);
    uint64_t depth = 0;
    for (uint32_t i = 0; i < STRIPES; ++i) depth += root_depth(atomic_load(&index->stripes[i].root));
    return (struct shape){statistics.slots, statistics.splits, depth, atomic_load(&index->header->recycled),
                          address_number(statistics.tail)};
}

static bool nothing_special(const struct shape *a, const struct shape *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}
static bool first_chunk_grows(const struct shape *a, const struct shape *b)
{
    return b->slots > a->slots && b->splits == a->splits;
}
static bool splits(const struct shape *a, const struct shape *b)
{
    return b->splits > a->splits && b->depth == a->depth;
}
static bool doubles(const struct shape *a, const struct shape *b)
{
    return b->depth > a->depth;
}
static bool cleans(const struct shape *a, const struct shape *b)
{
    return b->recycled > a->recycled && b->splits == a->splits;
}
static bool splits_into_used_chunks(const struct shape *a, const struct shape *b)
{
    return b->recycled > a->recycled && b->splits > a->splits;
}
static bool rolls_over(const struct shape *a, const struct shape *b)
{
    return b->tail_number > a->tail_number;
}

static const char *prepared, *work;

static odm_map *open_work(void)
{
    return open_map(work, .stripes = STRIPES);
}

/* Makes the prepared files: the script up to the first write, from number `from` on, that does something. That write is not
 * yet made, but returned. */
static struct write_op prepare(struct write_op (*script)(uint32_t i), uint32_t from,
                               bool (*does)(const struct shape *before, const struct shape *after))
{
    const char *scratch = temp_map_path();
    odm_map *map = open_map(scratch, .stripes = STRIPES);
    struct shape shape = shape_of(map);
    uint32_t count = 0;
    for (;; ++count) {
        struct write_op op = script(count);
        ok(apply(map, &op));
        struct shape next = shape_of(map);
        if (count >= from && does(&shape, &next)) break;
        shape = next;
        cr_assert_lt(count, 4000, "the script never does it");
    }
    odm_close(map);
    remove_tree(scratch);

    memset(old_sequence, 0, sizeof old_sequence);
    key_count = 0;
    prepared = temp_map_path();
    work = temp_map_path();
    map = open_map(prepared, .stripes = STRIPES);
    for (uint32_t i = 0; i < count; ++i) {
        struct write_op op = script(i);
        ok(apply(map, &op));
        expect_after(&op, old_sequence);
    }
    odm_close(map);
    return script(count);
}

/* ---- checks ---------------------------------------------------------------------------------------------------------- */

static int never_wait(void *word, uint32_t expected, uint64_t timeout_ns)
{
    (void)word;
    (void)expected;
    (void)timeout_ns;
    cr_assert(false, "a reader waits");
    return -1;
}

static unsigned long long step_now; // for messages

static uint64_t get_sequence(odm_map *map, uint32_t key)
{
    unsigned char bytes[PROOF_KEY_MAX];
    const void *value;
    size_t size;
    uint64_t sequence = 0;
    odm_status status = odm_get(map, bytes, proof_key(key, bytes), &value, &size);
    cr_assert_geq(status, 0, "step %llu: get: %s", step_now, status < 0 ? last_error_of(map).message : "");
    if (status == ODM_OK) {
        cr_assert(proof_read(key, value, size, &sequence), "step %llu: key %u has a value nobody wrote", step_now, key);
    }
    return sequence;
}

/* Reads all keys: each is as before or as after what is in flight. */
static void read_all(odm_map *map, uint64_t sequences[KEYS_MAX])
{
    for (uint32_t i = 0; i < key_count; ++i) {
        sequences[i] = get_sequence(map, i);
        cr_assert(sequences[i] == old_sequence[i] || sequences[i] == new_sequence[i],
                  "step %llu: key %u shows write %llu, expected %llu or %llu", step_now, i,
                  (unsigned long long)sequences[i], (unsigned long long)old_sequence[i],
                  (unsigned long long)new_sequence[i]);
    }
    odm_refresh(map);
}

/* What was seen to have happened does not go back. */
static void expect_no_return(const uint64_t before[KEYS_MAX], const uint64_t after[KEYS_MAX])
{
    for (uint32_t i = 0; i < key_count; ++i) {
        if (old_sequence[i] == new_sequence[i] || before[i] == old_sequence[i]) continue;
        cr_assert_eq(after[i], before[i], "step %llu: key %u went back to write %llu", step_now, i,
                     (unsigned long long)after[i]);
    }
}

struct content {
    uint64_t sequence[KEYS_MAX];
    uint64_t version[KEYS_MAX];
    uint64_t count, bytes;
};

static void take_content(odm_map *map, struct content *content)
{
    memset(content, 0, sizeof *content);
    odm_iter *iter;
    ok(odm_iter_open(map, &iter));
    const void *key, *value;
    size_t key_size, value_size;
    odm_status status;
    while ((status = odm_iter_next(iter, &key, &key_size, &value, &value_size)) == ODM_OK) {
        uint32_t number;
        ++content->count;
        content->bytes += record_size(key_size, value_size);
        cr_assert(proof_number(key, key_size, &number));
        if (number >= PROBES) continue;
        cr_assert_eq(content->sequence[number], 0, "step %llu: key %u comes twice", step_now, number);
        cr_assert(proof_read(number, value, value_size, &content->sequence[number]));
        uint64_t version;
        ok(odm_entry_get(map, key, key_size, NULL, NULL, &version));
        content->version[number] = version;
    }
    expect_status(status, ODM_DONE);
    odm_iter_close(iter);
    odm_statistics statistics = statistics_of(map);
    cr_assert_eq(statistics.count, content->count, "step %llu: count is %llu, a walk meets %llu", step_now,
                 (unsigned long long)statistics.count, (unsigned long long)content->count);
    cr_assert_eq(statistics.live_bytes, content->bytes, "step %llu: live_bytes is %llu, a walk meets %llu", step_now,
                 (unsigned long long)statistics.live_bytes, (unsigned long long)content->bytes);
}

/* Writes to every stripe. */
static void touch_stripes(odm_map *map)
{
    uint64_t done = 0;
    for (uint32_t i = PROBES; done != (UINT64_C(1) << STRIPES) - 1; ++i) {
        unsigned char key[PROOF_KEY_MAX];
        size_t size = proof_key(i, key);
        uint64_t bit = UINT64_C(1) << hash_stripe(hash_key(key, size, map->reader.seed), map->reader.index.stripe_bits);
        if (done & bit) continue;
        odm_status status = odm_put(map, key, size, "mended", 6);
        cr_assert_eq(status, ODM_OK, "step %llu: a write after the kill: %s, %s", step_now, odm_status_name(status),
                     last_error_of(map).message);
        done |= bit;
    }
}

/* What lookups do not show at once, but what goes wrong with it later: all words for a chunk are the same, and no used count is
 * too low. Only of stripes that were mended. */
static void expect_sound_shape(odm_map *map)
{
    const struct index *index = &map->reader.index;
    for (uint32_t i = 0; i < STRIPES; ++i) {
        uint64_t root = atomic_load(&index->stripes[i].root), words_count = UINT64_C(1) << root_depth(root),
                 chunk_words;
        odm__u64 *words = (odm__u64 *)(void *)(index->base + root_location(root) * INDEX_UNIT);
        odm__u32 *used = (odm__u32 *)(void *)(words + words_count); // by the first word of a chunk
        for (uint64_t first = 0; first < words_count; first += chunk_words) {
            uint64_t word = atomic_load(&words[first]), in_use = 0;
            chunk_words = words_count >> word_depth(word);
            for (uint64_t k = first; k < first + chunk_words; ++k) {
                cr_assert_eq(atomic_load(&words[k]), word, "step %llu: word %llu of stripe %u differs from %llu",
                             step_now, (unsigned long long)k, i, (unsigned long long)first);
            }
            const odm__u64 *slots = (const odm__u64 *)(const void *)(index->base + word_location(word) * INDEX_UNIT);
            for (uint32_t k = 0; k < UINT32_C(1) << word_bits(word); ++k) in_use += slots[k] != SLOT_EMPTY;
            cr_assert_geq(atomic_load(&used[first]), in_use, "step %llu: stripe %u has a used count that is too low",
                          step_now, i);
        }
    }
}

static bool whole_clear; // a clear has happened as a whole, or not at all

static void check_clear(const struct content *content)
{
    uint64_t there = 0, expected = 0;
    for (uint32_t i = 0; i < key_count; ++i) {
        there += content->sequence[i] != 0;
        expected += old_sequence[i] != 0;
    }
    cr_assert(there == 0 || there == expected, "step %llu: a clear left %llu of %llu keys", step_now,
              (unsigned long long)there, (unsigned long long)expected);
}

static void check_rebuilt(const struct content *content, const uint64_t before[KEYS_MAX])
{
    static struct content rebuilt;
    static uint64_t sequences[KEYS_MAX];
    remove_tree(path_of(work, "index"));
    odm_map *map = open_work();
    cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_KEPT, "step %llu: the log was cut", step_now);
    read_all(map, sequences);
    take_content(map, &rebuilt);
    if (content != NULL) {
        cr_assert_eq(memcmp(&rebuilt, content, sizeof rebuilt), 0, "step %llu: index and log differ", step_now);
    } else {
        if (!whole_clear) expect_no_return(before, sequences);
        if (whole_clear) check_clear(&rebuilt);
        touch_stripes(map);
        take_content(map, &rebuilt);
    }
    odm_close(map);
}

/* What a survivor finds when the writer is dead. mended: survivors go on; else nobody is left and the index is lost. */
static void check_after_kill(odm_map *map, const uint64_t before[KEYS_MAX], bool mended)
{
    static uint64_t after[KEYS_MAX];
    static struct content content;
    if (!mended) {
        odm_close(map);
        check_rebuilt(NULL, before);
        return;
    }
    touch_stripes(map);
    expect_sound_shape(map);
    read_all(map, after);
    expect_no_return(before, after);
    take_content(map, &content);
    if (whole_clear) check_clear(&content);
    odm_close(map);
    check_rebuilt(&content, NULL);
}

/* ---- stepping -------------------------------------------------------------------------------------------------------- */

enum { NOT_PERMITTED = 77 };

static _Atomic int *op_done;

static pid_t start_writer(odm_map *map, const struct write_op *op)
{
    atomic_store(op_done, 0);
    pid_t writer = fork();
    cr_assert(writer >= 0, "fork: %s", strerror(errno));
    if (writer == 0) {
        must(odm__store_attach(map->store, NULL) == ODM_OK);
        make_arguments(op);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(NOT_PERMITTED);
        raise(SIGSTOP);
        odm_status status = call(map, op);
        atomic_store(op_done, status == ODM_OK ? 1 : 2);
        for (;;) raise(SIGSTOP);
    }
    int status;
    cr_assert_eq(waitpid(writer, &status, 0), writer);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_PERMITTED) cr_skip("ptrace is not permitted");
    cr_assert(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "the writer did not start");
    cr_assert_eq(ptrace(PTRACE_SETOPTIONS, writer, NULL, (void *)PTRACE_O_EXITKILL), 0);
    return writer;
}

/* One instruction further. False: the call has returned. */
static bool step(pid_t writer)
{
    int status;
    cr_assert_eq(ptrace(PTRACE_SINGLESTEP, writer, NULL, NULL), 0, "step: %s", strerror(errno));
    cr_assert_eq(waitpid(writer, &status, 0), writer);
    cr_assert(WIFSTOPPED(status), "the writer ended while it was stepped");
    int done = atomic_load(op_done);
    cr_assert_neq(done, 2, "the stepped call failed");
    return done == 0;
}

static uint64_t place_of(pid_t writer)
{
    struct user_regs_struct registers;
    cr_assert_eq(ptrace(PTRACE_GETREGS, writer, NULL, &registers), 0);
    return registers.rip;
}

/* Runs to an instruction that the writer is to meet `times` times before it stops there. False: the call has returned. */
static bool run_to(pid_t writer, uint64_t place, uint64_t times)
{
    void *at = (void *)(uintptr_t)place;
    errno = 0;
    long text = ptrace(PTRACE_PEEKTEXT, writer, at, NULL);
    cr_assert_eq(errno, 0);
    long trap = (text & ~0xffL) | 0xcc;
    for (uint64_t met = 0;; ++met) {
        int status;
        struct user_regs_struct registers;
        cr_assert_eq(ptrace(PTRACE_POKETEXT, writer, at, (void *)trap), 0);
        cr_assert_eq(ptrace(PTRACE_CONT, writer, NULL, NULL), 0);
        cr_assert_eq(waitpid(writer, &status, 0), writer);
        cr_assert(WIFSTOPPED(status), "the writer ended while it was stepped");
        cr_assert_eq(ptrace(PTRACE_POKETEXT, writer, at, (void *)text), 0);
        if (atomic_load(op_done) != 0) return false;
        cr_assert_eq(ptrace(PTRACE_GETREGS, writer, NULL, &registers), 0);
        cr_assert_eq(registers.rip, place + 1);
        registers.rip = place;
        cr_assert_eq(ptrace(PTRACE_SETREGS, writer, NULL, &registers), 0);
        if (met == times) return true;
        if (!step(writer)) return false;
    }
}

static void end_writer(pid_t writer)
{
    int status;
    kill(writer, SIGKILL);
    cr_assert_eq(waitpid(writer, &status, 0), writer);
    cr_assert(WIFSIGNALED(status));
}

/* What outlives a writer. */
struct view {
    odm_map *map;
    struct segment *segments[1 + SPARES_MAX];
};

static void view_open(struct view *view, odm_map *map)
{
    struct lock_file *lock = map->store->client.file;
    view->map = map;
    for (int i = 0; i <= SPARES_MAX; ++i) {
        uint64_t tail = address_number(atomic_load(&lock->tail));
        uint64_t number = i == SPARES_MAX ? tail : spare_number(atomic_load(&lock->spare[i]));
        view->segments[i] = NULL;
        (void)odm__log_segment(&map->store->log, number, &view->segments[i], NULL);
    }
}

static void view_close(struct view *view)
{
    for (int i = 0; i <= SPARES_MAX; ++i) {
        if (view->segments[i] != NULL) odm__log_release(&view->map->store->log, view->segments[i]);
    }
}

static uint64_t view_digest(const struct view *view)
{
    const struct index *index = &view->map->reader.index;
    const struct lock_file *lock = view->map->store->client.file;
    uint64_t digest = XXH3_64bits_withSeed(lock, offsetof(struct lock_file, incarnations), 0);
    digest = XXH3_64bits_withSeed(index->base, (size_t)atomic_load(&index->header->size), digest);
    for (int i = 0; i <= SPARES_MAX; ++i) {
        const struct segment *segment = view->segments[i];
        if (segment != NULL) digest = XXH3_64bits_withSeed(segment->base, (size_t)segment->size, digest);
    }
    return digest;
}

static bool is_at_system_call(pid_t writer, uint64_t place)
{
    errno = 0;
    long text = ptrace(PTRACE_PEEKTEXT, writer, (void *)(uintptr_t)place, NULL);
    return errno == 0 && (text & 0xffff) == 0x050f;
}

/* Steps after which to kill; and where the writer is after each step. */
struct steps {
    uint64_t *at;
    size_t count, room;
    uint64_t *places;
    uint64_t total;
};
enum { INSTRUCTIONS_MAX = 1 << 20 };

/* Goes on to after a step: the fewest stops lead there over a place that is not met often. False: it came out elsewhere,
 * because memory is allocated in another way each time. That is as good a place to be killed at. */
static bool go_to_step(pid_t writer, const struct steps *steps, uint64_t wanted)
{
    enum { NEAR = 300 };
    uint64_t best = 0, best_times = 0, best_stops = wanted;
    for (uint64_t from = wanted; from > 0 && wanted - from < NEAR && wanted - from < best_stops; --from) {
        uint64_t times = 0;
        for (uint64_t i = 0; i < from; ++i) times += steps->places[i] == steps->places[from];
        if (steps->places[from] == steps->places[0] || 2 * times + wanted - from + 4 >= best_stops) continue;
        best = from;
        best_times = times;
        best_stops = 2 * times + wanted - from + 4;
    }
    if (best != 0 && !run_to(writer, steps->places[best], best_times)) return false;
    for (uint64_t i = best; i < wanted; ++i) {
        if (!step(writer)) return false;
    }
    return place_of(writer) == steps->places[wanted];
}

static void steps_add(struct steps *steps, uint64_t at)
{
    if (steps->count == steps->room) {
        steps->room = steps->room == 0 ? 256 : steps->room * 2;
        steps->at = realloc(steps->at, steps->room * sizeof *steps->at);
        cr_assert_not_null(steps->at);
    }
    steps->at[steps->count++] = at;
}

/* A writer that died earlier, in a call of its own. */
struct earlier {
    struct write_op op;
    struct steps steps;
    uint64_t step; // 0: there was none
};

/* Fresh files, and the earlier death in them. */
static odm_map *open_fresh(const struct earlier *earlier)
{
    remove_tree(work);
    copy_tree(prepared, work);
    odm_map *map = open_work();
    cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE, "the copy is not trusted");
    if (earlier->step != 0) {
        pid_t writer = start_writer(map, &earlier->op);
        cr_assert(go_to_step(writer, &earlier->steps, earlier->step), "the call took another way this time");
        end_writer(writer);
    }
    return map;
}

/* Finds the steps of a call that differ. */
static struct steps survey(const struct earlier *earlier, const struct write_op *op, bool all)
{
    struct steps steps = {.at = NULL};
    odm_map *map = open_fresh(earlier);
    struct view view;
    view_open(&view, map);
    pid_t writer = start_writer(map, op);
    uint64_t digest = view_digest(&view);
    steps_add(&steps, 0);
    steps.places = calloc(INSTRUCTIONS_MAX, sizeof *steps.places);
    cr_assert_not_null(steps.places);
    steps.places[0] = place_of(writer);
    for (uint64_t i = 1;; ++i) {
        bool calls = !all && is_at_system_call(writer, steps.places[i - 1]);
        if (!step(writer)) {
            steps.total = i;
            break;
        }
        cr_assert_lt(i, INSTRUCTIONS_MAX);
        steps.places[i] = place_of(writer);
        uint64_t next = all ? 0 : view_digest(&view);
        // Of an instruction that repeats itself the first and the last turn.
        bool repeats =
            !all && i > 1 && steps.places[i] == steps.places[i - 1] && steps.places[i] == steps.places[i - 2];
        if ((all || calls || next != digest) && !repeats) steps_add(&steps, i);
        digest = next;
    }
    end_writer(writer);
    view_close(&view);
    odm_close(map);
    return steps;
}

static size_t steps_wanted(bool *all)
{
    const char *text = getenv("ODM_TEST_STEPS");
    *all = text != NULL && strcmp(text, "all") == 0;
    return *all ? SIZE_MAX : text != NULL ? (size_t)strtoull(text, NULL, 10) : 250;
}

/* Kills a writer at every step of a call. */
static void kill_everywhere(const char *name, const struct earlier *earlier, const struct write_op *op)
{
    bool all;
    size_t wanted = steps_wanted(&all);
    op_done = shared_memory(sizeof *op_done);
    memcpy(new_sequence, old_sequence, sizeof new_sequence);
    if (earlier->step != 0) expect_after(&earlier->op, new_sequence);
    expect_after(op, new_sequence);
    whole_clear = op->kind == CLEAR;

    struct steps steps = survey(earlier, op, all);
    size_t rounds = 2 * steps.count, tried = 0, strayed = 0;
    size_t every = rounds / wanted + 1;
    if (every % 2 == 0) ++every; // So that both ways to go on come in turn.
    for (size_t i = 0; i < rounds; i += every, ++tried) {
        static uint64_t frozen[KEYS_MAX], before[KEYS_MAX];
        step_now = steps.at[i / 2];
        odm_map *map = open_fresh(earlier);
        pid_t writer = start_writer(map, op);
        strayed += !go_to_step(writer, &steps, steps.at[i / 2]);
        odm__os.futex_wait = never_wait;
        read_all(map, frozen); // While it stands still.
        end_writer(writer);
        read_all(map, before);
        odm__os.futex_wait = no_sleep;
        expect_no_return(frozen, before);
        check_after_kill(map, before, i % 2 == 0);
    }
    fprintf(stderr, "%s: %llu instructions, %zu states, %zu kills", name, (unsigned long long)steps.total, steps.count,
            tried);
    fprintf(stderr, strayed == 0 ? "\n" : ", %zu of them elsewhere\n", strayed);
    free(steps.at);
    free(steps.places);
    remove_tree(prepared);
    remove_tree(work);
}

static const struct earlier nobody = {.step = 0};

/* ---- the calls ------------------------------------------------------------------------------------------------------- */

/* For all of these: killed at any instruction, a write has happened or it has not; readers go on at once, the next writer by
 * itself, and index, counts and log agree. Method: as told at the top of this file. */
Test(step_kill, put_of_a_new_key)
{
    struct write_op op = prepare(fill, 10, nothing_special);
    kill_everywhere("put, new key", &nobody, &op);
}

/* The stripe's intent then names nothing yet. */
Test(step_kill, put_of_the_first_key)
{
    struct write_op op = prepare(fill, 0, nothing_special);
    kill_everywhere("put, first key", &nobody, &op);
}

Test(step_kill, put_of_a_key_that_is_there)
{
    prepare(fill, 10, nothing_special);
    struct write_op op = put_sized(3, 60, 100);
    kill_everywhere("put, update", &nobody, &op);
}

Test(step_kill, remove)
{
    prepare(fill, 20, nothing_special);
    struct write_op op = {REMOVE, 5, 0};
    kill_everywhere("remove", &nobody, &op);
}

Test(step_kill, put_that_replaces_the_first_chunk)
{
    struct write_op op = prepare(fill, 8, first_chunk_grows);
    kill_everywhere("put, first chunk", &nobody, &op);
}

Test(step_kill, put_that_splits_a_chunk)
{
    struct write_op op = prepare(fill, 30, splits);
    kill_everywhere("put, split", &nobody, &op);
}

Test(step_kill, put_that_doubles_a_directory)
{
    struct write_op op = prepare(fill, 30, doubles);
    kill_everywhere("put, doubling", &nobody, &op);
}

Test(step_kill, put_that_splits_into_a_chunk_used_before)
{
    struct write_op op = prepare(fill, 30, splits_into_used_chunks);
    kill_everywhere("put, split, chunk used before", &nobody, &op);
}

Test(step_kill, put_that_cleans_a_chunk)
{
    struct write_op op = prepare(churn, 100, cleans);
    kill_everywhere("put, cleaning", &nobody, &op);
}

Test(step_kill, put_that_rolls_over)
{
    struct write_op op = prepare(fill, 30, rolls_over);
    kill_everywhere("put, rollover", &nobody, &op);
}

Test(step_kill, put_of_an_oversized_record)
{
    prepare(fill, 20, nothing_special);
    struct write_op op = put_sized(7, 20000, 30000);
    kill_everywhere("put, oversized", &nobody, &op);
}

Test(step_kill, clear)
{
    prepare(fill, 60, nothing_special);
    struct write_op op = {CLEAR, 0, 0};
    kill_everywhere("clear", &nobody, &op);
}

Test(step_kill, sync)
{
    prepare(fill, 60, nothing_special);
    struct write_op op = {SYNC, 0, 0};
    kill_everywhere("sync", &nobody, &op);
}

/* What is live is moved, head goes on, segments are unlinked, and the map will be stamped. */
Test(step_kill, compact)
{
    keep_whole_log(); // Until odm_compact.
    prepare(rewrite, 200, nothing_special);
    struct write_op op = {COMPACT, 0, 0};
    kill_everywhere("compact", &nobody, &op);
}

/* A put that looks through the oldest records when it is done, and moves what is live. */
Test(step_kill, put_that_compacts)
{
    keep_whole_log();
    prepare(rewrite, 200, nothing_special);
    odm__test_dead_bytes_min = 1024;
    struct write_op op = put_sized(3, 1000, 3000);
    kill_everywhere("put, compaction", &nobody, &op);
}

/* ---- and a death before ------------------------------------------------------------------------------------------------ */

/* A death in a call, at the first step after which something holds. */
static struct earlier die_when(const struct write_op *op, bool (*holds)(odm_map *map, uint64_t tail))
{
    op_done = shared_memory(sizeof *op_done);
    struct earlier earlier = {.op = *op};
    earlier.steps.places = calloc(INSTRUCTIONS_MAX, sizeof *earlier.steps.places);
    cr_assert_not_null(earlier.steps.places);
    odm_map *map = open_fresh(&nobody);
    uint64_t tail = atomic_load(&map->store->client.file->tail);
    pid_t writer = start_writer(map, op);
    while (earlier.steps.places[earlier.step] = place_of(writer), !holds(map, tail)) {
        cr_assert(step(writer), "it never holds");
        ++earlier.step;
    }
    end_writer(writer);
    odm_close(map);
    return earlier;
}

static bool tail_has_moved(odm_map *map, uint64_t tail)
{
    return atomic_load(&map->store->client.file->tail) != tail;
}

static struct record record_at(odm_map *map, uint64_t address)
{
    struct segment *segment;
    struct record record = {.kind = RECORD_NONE};
    ok(odm__log_segment(&map->store->log, address_number(address), &segment, NULL));
    (void)odm__log_read(&map->store->log, segment, address, CHECK_HEADER, &record);
    odm__log_release(&map->store->log, segment);
    return record;
}

static bool record_is_reserved_only(odm_map *map, uint64_t tail)
{
    return record_at(map, tail).kind == RECORD_RESERVED && !tail_has_moved(map, tail);
}

static bool record_is_whole(odm_map *map, uint64_t tail)
{
    enum record_kind kind = record_at(map, tail).kind;
    return kind == RECORD_PUT || kind == RECORD_CLEAR;
}

static bool change_is_noted(odm_map *map, uint64_t tail)
{
    (void)tail;
    for (uint32_t i = 0; i < STRIPES; ++i) {
        if (atomic_load(&map->reader.index.stripes[i].change.kind) != CHANGE_NONE) return true;
    }
    return false;
}

static uint32_t stripe_of_key(uint32_t number)
{
    unsigned char key[PROOF_KEY_MAX];
    uint64_t seed;
    same_random_bytes(&seed, sizeof seed);
    return hash_stripe(hash_key(key, proof_key(number, key), seed), (unsigned)__builtin_ctz(STRIPES));
}

/* A key that is not there yet. */
static uint32_t new_key_in_stripe(uint32_t stripe)
{
    uint32_t key = key_count;
    while (stripe_of_key(key) != stripe) ++key;
    cr_assert_lt(key, KEYS_MAX);
    return key;
}

/* Who mends what a dead writer left may be killed, too.
 * Method: one writer dies in a put, with its room reserved, its record whole or its room not yet its own; the next, who writes
 * to the same stripe, is killed at every step. */
static void kill_the_mender(const char *name, bool (*holds)(odm_map *map, uint64_t tail))
{
    struct write_op first = prepare(fill, 20, nothing_special);
    struct earlier earlier = die_when(&first, holds);
    struct write_op op = put_sized(new_key_in_stripe(stripe_of_key(first.key)), 16, 40);
    while (op.key == first.key) op = put_sized(++op.key, 16, 40);
    kill_everywhere(name, &earlier, &op);
}

Test(step_kill, of_who_mends_room_that_was_reserved)
{
    kill_the_mender("mending, reserved", tail_has_moved);
}

Test(step_kill, of_who_mends_room_that_was_not_yet_reserved)
{
    kill_the_mender("mending, not reserved", record_is_reserved_only);
}

Test(step_kill, of_who_mends_a_whole_record)
{
    kill_the_mender("mending, whole", record_is_whole);
}

Test(step_kill, of_who_mends_a_split)
{
    struct write_op first = prepare(fill, 30, splits);
    struct earlier earlier = die_when(&first, change_is_noted);
    uint32_t key = 0;
    while (stripe_of_key(key) != stripe_of_key(first.key)) ++key;
    struct write_op op = put_sized(key, 60, 100);
    kill_everywhere("mending, split", &earlier, &op);
}

/* A clear's record may be whole while its writer dies before the stripes are empty; whoever comes next empties them. */
Test(step_kill, of_who_mends_a_clear)
{
    prepare(fill, 60, nothing_special);
    struct write_op first = {CLEAR, 0, 0};
    struct earlier earlier = die_when(&first, record_is_whole);
    struct write_op op = put_sized(key_count, 16, 40);
    kill_everywhere("mending, clear", &earlier, &op);
}

/* The same keys again and again, all of one stripe. */
static struct write_op rewrite_one_stripe(uint32_t i)
{
    enum { KEYS = 24 };
    uint32_t key = 0;
    for (uint32_t left = i % KEYS;; ++key) {
        if (stripe_of_key(key) == 0 && left-- == 0) return fill(key);
    }
}

/* Compaction looks past what the index does not name. What a dead writer has in the log is named only when its stripe was
 * mended, and of this stripe nothing is moved, for it has nothing else.
 * Method: a compaction runs to its end; in long runs another is killed at every step. */
static void compact_behind(const char *name, bool (*holds)(odm_map *map, uint64_t tail), bool happened)
{
    keep_whole_log();
    prepare(rewrite_one_stripe, 100, nothing_special);
    struct write_op first = put_sized(new_key_in_stripe(1), 60, 100);
    struct earlier earlier = die_when(&first, holds);
    struct write_op op = {COMPACT, 0, 0};

    static uint64_t before[KEYS_MAX];
    memcpy(new_sequence, old_sequence, sizeof new_sequence);
    expect_after(&first, new_sequence);
    odm_map *map = open_fresh(&earlier);
    odm_status status = apply(map, &op);
    cr_assert_eq(status, ODM_OK, "%s, %s", odm_status_name(status), last_error_of(map).message);
    read_all(map, before);
    cr_assert_eq(before[first.key], happened ? first.sequence : 0);
    check_after_kill(map, before, true);
    if (getenv("ODM_TEST_STEPS") != NULL) kill_everywhere(name, &earlier, &op); // It takes long.
    free(earlier.steps.places);
}

Test(step_kill, compact_behind_a_record_that_is_whole)
{
    compact_behind("compact, whole record of the dead", record_is_whole, true);
}

Test(step_kill, compact_behind_room_that_was_reserved)
{
    compact_behind("compact, reserved room of the dead", tail_has_moved, false);
}

/* A call of the n-th in a line of writers that all die: to a key of its own, in one stripe or in the other. */
static struct write_op call_in_line(struct sequence *sequence, uint32_t n)
{
    switch (sequence_below(sequence, 8)) {
        case 0: return (struct write_op){SYNC, 0, 0};
        case 1: return (struct write_op){COMPACT, 0, 0};
        case 2: return (struct write_op){REMOVE, n, 0};
        case 3: return put_sized(n, 3700, 3900); // rolls over
        case 4: return put_sized(n, 16, 100);
        default: return put_sized(key_count, 16, 40);
    }
}

/* And whoever mends what a mender left, and so on.
 * Method: a line of writers, each of which is killed after any number of instructions, or gets its call done; the last is a
 * survivor. What was once seen to have happened stays, and what returned has happened. */
Test(step_kill, of_a_line_of_menders)
{
    enum { LINE = 8, LINES_USUAL = 4 };
    bool all;
    size_t wanted = steps_wanted(&all), returned = 0, killed = 0;
    size_t lines = all ? 3000 : wanted < LINES_USUAL ? wanted : LINES_USUAL;
    struct sequence sequence = sequence_start(77);
    op_done = shared_memory(sizeof *op_done);
    whole_clear = false;
    prepare(rewrite, 80, nothing_special);
    static uint64_t old_prepared[KEYS_MAX], before[KEYS_MAX], after[KEYS_MAX];
    memcpy(old_prepared, old_sequence, sizeof old_prepared);
    uint32_t keys_prepared = key_count;
    for (size_t i = 0; i < lines; ++i) {
        step_now = i;
        memcpy(old_sequence, old_prepared, sizeof old_sequence);
        memcpy(new_sequence, old_prepared, sizeof new_sequence);
        key_count = keys_prepared;
        odm_map *map = open_fresh(&nobody);
        memcpy(before, old_sequence, sizeof before);
        memcpy(after, old_sequence, sizeof after); // also of keys that do not count yet
        for (uint32_t n = 0; n < LINE; ++n) {
            struct write_op op = call_in_line(&sequence, n);
            expect_after(&op, new_sequence);
            pid_t writer = start_writer(map, &op);
            // Most of what matters is done early, after the handle was begun to be used; some calls are long.
            uint64_t instructions = sequence_below(&sequence, n % 3 == 2 ? 20000 : 4000);
            while (instructions > 0 && step(writer)) --instructions;
            bool done = atomic_load(op_done) == 1;
            returned += done;
            killed += !done;
            end_writer(writer);
            if (done) expect_after(&op, old_sequence);
            odm__os.futex_wait = never_wait;
            read_all(map, after);
            odm__os.futex_wait = no_sleep;
            expect_no_return(before, after);
            memcpy(before, after, sizeof before);
        }
        check_after_kill(map, before, i % 2 == 0);
    }
    fprintf(stderr, "a line of menders: %zu lines, %zu killed, %zu returned\n", lines, killed, returned);
    remove_tree(prepared);
    remove_tree(work);
}

/* A bug of the rebuild: a writer that died between a new segment's header and the tail made it distrust the lock file; then
 * the room another writer had reserved and not filled was taken for the end of the log, and writes that had returned behind
 * it were cut off.
 * Method: one writer dies with its room reserved, in a stripe that nobody else writes to; a put returns; then a writer rolls
 * over and is killed at every step, and the index is lost in every second case. */
Test(step_kill, put_that_rolls_over_behind_room_that_was_reserved)
{
    struct write_op first = prepare(fill, 20, nothing_special);
    struct earlier earlier = die_when(&first, tail_has_moved);
    uint32_t key = 0;
    while (stripe_of_key(key) == stripe_of_key(first.key)) ++key;
    struct write_op op = put_sized(key, 3700, 3900);
    kill_everywhere("put, rollover behind reserved room", &earlier, &op);
}

/* ---- and one who is slow ----------------------------------------------------------------------------------------------- */

/* Lets a stopped writer finish its call. */
static void finish(pid_t writer)
{
    int status;
    cr_assert_eq(ptrace(PTRACE_CONT, writer, NULL, NULL), 0);
    cr_assert_eq(waitpid(writer, &status, 0), writer);
    cr_assert(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "step %llu: the slow call ended in another way",
              step_now);
    cr_assert_eq(atomic_load(op_done), 1, "step %llu: the slow call failed", step_now);
}

/* A copy that compaction made is durable before what it was copied from may go. */
static void expect_moved_is_durable(odm_map *map)
{
    struct meta_slot slot;
    ok(odm__meta_read_slot(&map->store->meta, &slot, NULL));
    for (uint32_t i = 0; i < key_count; ++i) {
        unsigned char key[PROOF_KEY_MAX];
        size_t size = proof_key(i, key);
        const struct record_header *record;
        uint64_t hash = hash_key(key, size, map->reader.seed), lsn = UINT64_MAX;
        if (odm__reader_find(&map->reader, key, size, hash, &record, NULL) == ODM_OK) lsn = record->lsn;
        for (const struct held_segment *held = map->reader.held; lsn < slot.head && held != NULL; held = held->next) {
            uint64_t offset = (uint64_t)((const unsigned char *)record - held->segment->base);
            if (offset >= held->segment->size) continue;
            cr_assert_lt(address_make(held->segment->number, offset), slot.watermark,
                         "step %llu: key %u was moved, is not synced, and what it was moved from is gone", step_now, i);
        }
    }
}

/* Of all steps those in code of this program that is no loop: where one waits or copies, one turn is like another. */
static void leave_out_loops(struct steps *steps)
{
    enum { TURNS = 3 };
    extern const char __executable_start, etext;
    uint64_t from = (uint64_t)(uintptr_t)&__executable_start, to = (uint64_t)(uintptr_t)&etext;
    steps->count = 0;
    for (uint64_t i = 0; i < steps->total; ++i) {
        uint64_t times = 0, place = steps->places[i];
        if (place < from || place >= to) continue;
        for (uint64_t k = 0; k < i && times < TURNS; ++k) times += steps->places[k] == place;
        if (times < TURNS) steps->at[steps->count++] = i;
    }
}

static bool without_limit; // what a test is after may happen between two instructions only

/* Stops a writer at every step of a call while another makes a call of its own; then the slow one goes on. Here all steps
 * differ, as it may just have looked at something. */
static void overtake_everywhere(const char *name, const struct earlier *earlier, const struct write_op *slow,
                                const struct write_op *fast)
{
    bool all;
    size_t wanted = steps_wanted(&all), tried = 0, strayed = 0, waited = 0;
    if (without_limit) wanted = SIZE_MAX;
    op_done = shared_memory(sizeof *op_done);
    memcpy(new_sequence, old_sequence, sizeof new_sequence);
    if (earlier->step != 0) expect_after(&earlier->op, new_sequence);
    expect_after(slow, new_sequence);
    expect_after(fast, new_sequence);
    whole_clear = false;

    struct steps steps = survey(earlier, slow, true);
    if (!all) leave_out_loops(&steps);
    size_t every = steps.count / wanted + 1;
    for (size_t i = 0; i < steps.count; i += every, ++tried) {
        static uint64_t before[KEYS_MAX];
        static struct content content;
        step_now = steps.at[i];
        odm_map *map = open_fresh(earlier);
        pid_t writer = start_writer(map, slow);
        strayed += !go_to_step(writer, &steps, steps.at[i]);
        map->wait_ms = map->writer.wait_ms = map->reader.index.wait_ms = UINT32_MAX; // Only try.
        odm_status status = apply(map, fast);
        if (status != ODM_OK) expect_status(status, ODM_E_BUSY);
        read_all(map, before);
        finish(writer);
        expect_moved_is_durable(map);
        map->wait_ms = map->writer.wait_ms = map->reader.index.wait_ms = 30000;
        waited += status != ODM_OK;
        if (status != ODM_OK) ok(apply(map, fast));
        end_writer(writer);
        touch_stripes(map);
        read_all(map, before);
        take_content(map, &content);
        cr_assert_eq(before[slow->key], new_sequence[slow->key], "step %llu: the slow write is lost", step_now);
        cr_assert_eq(before[fast->key], new_sequence[fast->key], "step %llu: the fast write is lost", step_now);
        odm_close(map);
        check_rebuilt(&content, NULL);
    }
    fprintf(stderr, "%s: %llu instructions, %zu of interest, %zu stops", name, (unsigned long long)steps.total,
            steps.count, tried);
    fprintf(stderr, ", %zu times the other had to wait, %zu elsewhere\n", waited, strayed);
    free(steps.at);
    free(steps.places);
    remove_tree(prepared);
    remove_tree(work);
}

/* A new key in the stripe that a key is not in. */
static uint32_t new_key_beside(uint32_t key)
{
    return new_key_in_stripe(1 - stripe_of_key(key));
}

/* A writer may be as slow as it likes, at any instruction: who overtakes it is told to wait or succeeds, and in the end both
 * writes are there. Method: it is stopped at every step, and another writes to the other stripe, or rolls over. */
Test(step_kill, slow_put_is_overtaken)
{
    struct write_op slow = prepare(fill, 20, nothing_special);
    struct write_op fast = put_sized(new_key_beside(slow.key), 16, 40);
    overtake_everywhere("slow put, fast put", &nobody, &slow, &fast);
}

Test(step_kill, slow_put_is_overtaken_by_a_rollover)
{
    struct write_op slow = prepare(fill, 20, nothing_special);
    struct write_op fast = put_sized(new_key_beside(slow.key), 3700, 3900);
    overtake_everywhere("slow put, fast rollover", &nobody, &slow, &fast);
}

Test(step_kill, slow_rollover_is_overtaken)
{
    struct write_op slow = prepare(fill, 30, rolls_over);
    struct write_op fast = put_sized(new_key_beside(slow.key), 16, 40);
    overtake_everywhere("slow rollover, fast put", &nobody, &slow, &fast);
}

Test(step_kill, slow_rollover_is_overtaken_by_an_oversized_record)
{
    struct write_op slow = prepare(fill, 30, rolls_over);
    struct write_op fast = put_sized(new_key_beside(slow.key), 20000, 30000);
    overtake_everywhere("slow rollover, fast oversized record", &nobody, &slow, &fast);
}

Test(step_kill, slow_split_is_overtaken)
{
    struct write_op slow = prepare(fill, 30, splits);
    struct write_op fast = put_sized(new_key_beside(slow.key), 16, 40);
    overtake_everywhere("slow split, fast put", &nobody, &slow, &fast);
}

Test(step_kill, slow_sync_is_overtaken)
{
    prepare(fill, 60, nothing_special);
    struct write_op slow = {SYNC, 0, 0};
    struct write_op fast = put_sized(3, 3700, 3900);
    overtake_everywhere("slow sync, fast rollover", &nobody, &slow, &fast);
}

static uint64_t hasty_now_ns(void)
{
    static uint64_t now_ns;
    return now_ns += UINT64_C(10) * 1000 * 1000 * 1000;
}

/* A sync may retire what compaction has emptied meanwhile only if it syncs what was moved out of it, too.
 * Method: it is stopped at each of its first steps, while a compaction moves all and is then left alone. */
Test(step_kill, slow_sync_is_overtaken_by_compaction)
{
    enum { FIRST_STEPS = 200 };
    keep_whole_log();
    prepare(rewrite, 200, nothing_special);
    struct write_op slow = {SYNC, 0, 0};
    op_done = shared_memory(sizeof *op_done);
    struct steps steps = survey(&nobody, &slow, true);
    leave_out_loops(&steps);
    size_t tried = 0;
    for (; tried < steps.count && steps.at[tried] < FIRST_STEPS; ++tried) {
        step_now = steps.at[tried];
        odm_map *map = open_fresh(&nobody);
        struct lock_file *lock = map->store->client.file;
        pid_t writer = start_writer(map, &slow);
        (void)go_to_step(writer, &steps, steps.at[tried]);
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
        odm__os.now_ns = hasty_now_ns; // A step a call.
        while (atomic_load(&lock->emptied_to) <= atomic_load(&map->reader.index.header->head)) {
            ok(odm_compact(map, &progress, NULL));
        }
        odm__os.now_ns = same_now_ns;
        finish(writer);
        expect_moved_is_durable(map);
        end_writer(writer);
        odm_close(map);
    }
    fprintf(stderr, "slow sync, compaction: %zu stops\n", tried);
    free(steps.at);
    free(steps.places);
    remove_tree(prepared);
    remove_tree(work);
}

/* Between the mender's look at an intent and its look at the tail, another writer may take the append lock from the
 * dead, void the intent, and be given the very same room; then the mender took that writer's record for the dead one's.
 * Method: the mender is stopped at every step while another writes; the dead had noted an intent and reserved nothing. */
Test(step_kill, slow_mending_of_room_that_was_not_reserved_is_overtaken)
{
    struct write_op first = prepare(fill, 20, nothing_special);
    struct earlier earlier = die_when(&first, record_is_reserved_only);
    key_count = first.key + 1;
    struct write_op slow = put_sized(new_key_in_stripe(stripe_of_key(first.key)), 16, 40);
    struct write_op fast = put_sized(new_key_beside(first.key), 16, 40);
    without_limit = true;
    overtake_everywhere("slow mending, not reserved, fast put", &earlier, &slow, &fast);
}

Test(step_kill, slow_mending_of_reserved_room_is_overtaken)
{
    struct write_op first = prepare(fill, 20, nothing_special);
    struct earlier earlier = die_when(&first, tail_has_moved);
    key_count = first.key + 1;
    struct write_op slow = put_sized(new_key_in_stripe(stripe_of_key(first.key)), 16, 40);
    struct write_op fast = put_sized(new_key_beside(first.key), 16, 40);
    overtake_everywhere("slow mending, reserved, fast put", &earlier, &slow, &fast);
}

/* ---- and a reader who is slow -------------------------------------------------------------------------------------------- */

enum { OVERTAKING_PUTS = 300 };

/* Stops a reader at every step of a call while so many keys are put that its chunk is split, and used again for others. */
static void overtake_reader_everywhere(const char *name, const struct write_op *slow)
{
    bool all;
    size_t wanted = steps_wanted(&all), tried = 0, strayed = 0;
    op_done = shared_memory(sizeof *op_done);
    found = shared_memory(sizeof *found);
    memcpy(new_sequence, old_sequence, sizeof new_sequence);
    uint32_t first = key_count;
    struct steps steps = survey(&nobody, slow, true);
    if (!all) leave_out_loops(&steps);
    size_t every = steps.count / wanted + 1;
    for (size_t i = 0; i < steps.count; i += every, ++tried) {
        step_now = steps.at[i];
        odm_map *map = open_fresh(&nobody);
        struct shape before = shape_of(map);
        memset(found, 0, sizeof *found);
        pid_t reader = start_writer(map, slow);
        strayed += !go_to_step(reader, &steps, steps.at[i]);
        for (uint32_t k = first; k < first + OVERTAKING_PUTS; ++k) {
            struct write_op op = fill(k);
            ok(apply(map, &op));
        }
        struct shape after = shape_of(map);
        cr_assert_gt(after.recycled, before.recycled + 2);
        finish(reader);
        if (slow->kind == GET) {
            cr_assert_eq(found->sequence, old_sequence[slow->key], "step %llu: the get found write %llu", step_now,
                         (unsigned long long)found->sequence);
        }
        for (uint32_t k = 0; k < first && slow->kind == WALK; ++k) {
            cr_assert_eq(found->times[k], 1, "step %llu: key %u came %u times", step_now, k, found->times[k]);
        }
        end_writer(reader);
        odm_close(map);
    }
    fprintf(stderr, "%s: %llu instructions, %zu of interest, %zu stops, %zu elsewhere\n", name,
            (unsigned long long)steps.total, steps.count, tried, strayed);
    free(steps.at);
    free(steps.places);
    remove_tree(prepared);
    remove_tree(work);
}

/* A get is right however long it takes: chunks it looks at may be split and used again meanwhile.
 * Method: it is stopped at every instruction, while others put hundreds of keys; then it goes on. */
Test(step_kill, slow_get_is_overtaken)
{
    prepare(fill, 30, splits);
    struct write_op slow = {GET, 5, 0};
    overtake_reader_everywhere("slow get", &slow);
}

Test(step_kill, slow_get_of_a_key_that_is_not_there_is_overtaken)
{
    prepare(fill, 30, splits);
    struct write_op slow = {GET, KEYS_MAX - 1, 0};
    overtake_reader_everywhere("slow get, absent", &slow);
}

/* The same for a walk: keys that stay come exactly once. */
Test(step_kill, slow_walk_is_overtaken)
{
    prepare(fill, 30, splits);
    struct write_op slow = {WALK, 0, 0};
    overtake_reader_everywhere("slow walk", &slow);
}

/* A reader that still looks at a chunk which was split believes what it met unless `recycled` was raised. So that comes first;
 * a miss in a chunk that is being emptied would else be believed. No reader above is stopped while a writer stands in the midst
 * of that. Method: the writer is stepped, and looked at after every instruction. */
Test(step_kill, recycled_is_raised_before_a_chunk_is_used_again)
{
    struct write_op op = prepare(fill, 30, splits_into_used_chunks);
    op_done = shared_memory(sizeof *op_done);
    odm_map *map = open_fresh(&nobody);
    const struct index *index = &map->reader.index;
    uint64_t recycled = atomic_load(&index->header->recycled);
    static uint64_t was[2][CHUNK_SLOTS];
    const void *chunk[2] = {NULL, NULL};
    for (int side = 0; side < 2; ++side) {
        uint64_t spare = index->stripes[stripe_of_key(op.key)].spare[side];
        if (spare == 0 || (spare & 1) != 0) continue; // There is none, or nobody has ever seen it.
        chunk[side] = index->base + (spare >> 1) * INDEX_UNIT;
        memcpy(was[side], chunk[side], sizeof was[side]);
    }
    cr_assert(chunk[0] != NULL || chunk[1] != NULL, "no chunk is used again");

    pid_t writer = start_writer(map, &op);
    uint64_t steps = 0;
    while (step(writer) && atomic_load(&index->header->recycled) == recycled) {
        ++steps;
        for (int side = 0; side < 2; ++side) {
            bool same = chunk[side] == NULL || memcmp(chunk[side], was[side], sizeof was[side]) == 0;
            cr_assert(same, "step %llu: a chunk changes, and `recycled` is as before", (unsigned long long)steps);
        }
    }
    cr_assert_gt(atomic_load(&index->header->recycled), recycled);
    end_writer(writer);
    odm_close(map);
}

#else

Test(step_kill, is_for_x86_64_linux_without_sanitizers)
{
    cr_skip("nothing to do here");
}

#endif
