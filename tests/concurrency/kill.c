/* kill.c - writers killed at random moments, for as long as one likes.
 *
 * Several writers and readers share a map. Each key belongs to one writer, so that its history is known: a writer notes in
 * shared memory which of a key's writes it has started and which have returned. Whoever reads the key brackets the read with
 * these two numbers: the value must be one of the writes between them. Every value proves itself (proof.h), so one that is
 * torn or foreign shows. A counter that all writers raise by compare-and-swap shows increments that were lost or repeated.
 *
 * A round is one map with its own number of stripes, keys and writers; it ends after some kills or some MiB of log, with a
 * full check of the map, and of the index that is built anew from its log.
 *
 * ODM_TEST_KILLS: how many writers to kill in all. ODM_TEST_SEED: another storm.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "hash.h"
#include "map.h"
#include "proof.h"
#include "support.h"

TestSuite(kill, .fini = remove_temp_directories);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { KILLS_DEFAULT = 200 };
#else
enum { KILLS_DEFAULT = 300 };
#endif

enum { WRITERS_MAX = 6, READERS_MAX = 2, KEYS_MAX = 4096, PROBE_FIRST = 1000000, COUNTER_FIRST = 2000000 };
enum { COUNTERS = 3, HISTORY = 8, BATCH_MAX = 12 };
enum { ROUND_KILLS_MAX = 150, ROUND_BYTES_MAX = 40 << 20, HANG_SECONDS = 120 };

/* ---- what all processes of a round share --------------------------------------------------------------------------- */

/* A key's history. Writes are numbered from 1; what each does follows from its number. */
struct entry {
    _Atomic uint64_t started;
    _Atomic uint64_t returned;
    _Atomic uint64_t start_stamp[HISTORY]; // by sequence
    _Atomic uint64_t end_stamp[HISTORY];
};

struct writer {
    _Atomic uint64_t clear_start; // stamp of the clear in flight, or 0
    _Atomic uint64_t count_started[COUNTERS];
    _Atomic uint64_t count_returned[COUNTERS];
    uint64_t count_unknown[COUNTERS]; // increments in flight when it was killed
    _Atomic uint32_t batch_size;      // of the write_many in flight, or 0
    uint32_t batch_keys[BATCH_MAX];
    uint64_t batch_sequences[BATCH_MAX];
};

struct shared {
    _Atomic uint64_t clock;
    _Atomic uint64_t clear_last_start; // of those that have returned
    _Atomic uint64_t clear_last_end;
    _Atomic uint64_t bytes;
    _Atomic int stop;
    _Atomic int failed;
    char failure[400];
    _Atomic uint64_t reads[READERS_MAX];
    struct writer writers[WRITERS_MAX];
    struct entry entries[KEYS_MAX];
    struct entry probes[ODM_STRIPES_MAX];
};

static struct shared *shared;

static struct {
    const char *path;
    uint32_t stripes;
    uint32_t keys;
    uint32_t writers;
    uint32_t readers;
    bool clears;  // then nothing is known of counters
    bool watched; // the controller has the map open all the time, and writers inherit its handle
} round_;

static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
    random_state += UINT64_C(0x9E3779B97F4A7C15);
    return proof_mix(random_state, 7) % limit;
}

static bool one_in(uint64_t n)
{
    return random_below(n) == 0;
}

/* The first to fail tells why; the controller ends the test. */
static void fail(const char *format, ...)
{
    if (atomic_fetch_add(&shared->failed, 1) == 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(shared->failure, sizeof shared->failure, format, arguments);
        va_end(arguments);
        fprintf(stderr, "%s\n", shared->failure);
    }
    _exit(1);
}

static uint64_t stamp(void)
{
    return atomic_fetch_add(&shared->clock, 1) + 1;
}

/* ---- what a read may show ------------------------------------------------------------------------------------------- */

static bool is_remove(uint32_t key, uint64_t sequence)
{
    return sequence != 0 && proof_mix(key, sequence ^ 0x5555) % 8 == 0;
}

static struct entry *entry_of(uint32_t key)
{
    return key >= PROBE_FIRST ? &shared->probes[key - PROBE_FIRST] : &shared->entries[key];
}

/* Taken before a read. */
struct before {
    uint64_t returned;
    uint64_t start_stamp; // of that write
    uint64_t end_stamp;
    uint64_t clear_start; // a clear that has started after end_stamp and has returned by now took the key away
};

static struct before look_before(uint32_t key)
{
    struct entry *entry = entry_of(key);
    struct before before;
    before.clear_start = atomic_load(&shared->clear_last_start);
    before.returned = atomic_load(&entry->returned);
    before.start_stamp = atomic_load(&entry->start_stamp[before.returned % HISTORY]);
    before.end_stamp = atomic_load(&entry->end_stamp[before.returned % HISTORY]);
    return before;
}

static bool a_clear_may_have_come_after(uint64_t since)
{
    for (uint32_t i = 0; i < WRITERS_MAX; ++i) {
        if (atomic_load(&shared->writers[i].clear_start) != 0) return true;
    }
    return atomic_load(&shared->clear_last_end) >= since;
}

/* Checks what a read has found; the sequence number it shows, 0 if the key was absent. */
static uint64_t check_found(const char *who, uint32_t key, const struct before *before, bool found, const void *value,
                            size_t size)
{
    uint64_t sequence = 0;
    bool proven = found && proof_read(key, value, size, &sequence);
    uint64_t started = atomic_load(&entry_of(key)->started);
    unsigned long long r = before->returned, s = started, q = sequence;
    if (found && !proven) fail("%s: key %u has a value nobody wrote, %zu bytes", who, key, size);
    if (found && (sequence < before->returned || sequence > started)) {
        fail("%s: key %u shows write %llu; %llu had returned, %llu was started", who, key, q, r, s);
    }
    if (found && is_remove(key, sequence)) fail("%s: key %u shows write %llu, a remove", who, key, q);
    if (started - before->returned >= HISTORY) return sequence; // The stamps may be those of later writes.
    if (found && started == before->returned && before->clear_start > before->end_stamp) {
        fail("%s: key %u shows write %llu, which a clear had removed", who, key, q);
    }
    if (!found && before->returned != 0) {
        bool removed = false;
        for (uint64_t i = before->returned; i <= started; ++i) removed |= is_remove(key, i);
        if (!removed && !(round_.clears && a_clear_may_have_come_after(before->start_stamp))) {
            fail("%s: key %u is gone; write %llu had returned, %llu was started", who, key, r, s);
        }
    }
    return sequence;
}

static uint64_t get_and_check(const char *who, odm_map *map, uint32_t key)
{
    unsigned char bytes[PROOF_KEY_MAX];
    const void *value = NULL;
    size_t size = 0;
    struct before before = look_before(key);
    odm_status status = odm_get(map, bytes, proof_key(key, bytes), &value, &size);
    if (status < 0) fail("%s: get of key %u: %s", who, key, last_error_of(map).message);
    return check_found(who, key, &before, status == ODM_OK, value, size);
}

/* ---- writers --------------------------------------------------------------------------------------------------------- */

static void begin(uint32_t key, uint64_t sequence)
{
    struct entry *entry = entry_of(key);
    atomic_store(&entry->start_stamp[sequence % HISTORY], stamp());
    atomic_store(&entry->started, sequence);
}

static void end(uint32_t key, uint64_t sequence)
{
    struct entry *entry = entry_of(key);
    atomic_store(&entry->end_stamp[sequence % HISTORY], stamp());
    atomic_store(&entry->returned, sequence);
}

static void expect_ok(odm_map *map, odm_status status, const char *what, uint32_t key)
{
    if (status != ODM_OK) fail("%s of key %u: %s, %s", what, key, odm_status_name(status), last_error_of(map).message);
}

static void write_key(odm_map *map, uint32_t key)
{
    static unsigned char value[PROOF_VALUE_MAX];
    unsigned char bytes[PROOF_KEY_MAX];
    size_t key_size = proof_key(key, bytes);
    struct entry *entry = entry_of(key);
    uint64_t sequence = atomic_load(&entry->started) + 1;
    bool sure = atomic_load(&entry->returned) + 1 == sequence && !round_.clears;
    begin(key, sequence);
    if (is_remove(key, sequence)) {
        odm_status status = odm_remove(map, bytes, key_size);
        bool was_there = sequence > 1 && !is_remove(key, sequence - 1);
        if (status != ODM_NOT_FOUND || (sure && was_there)) expect_ok(map, status, "remove", key);
        if (status == ODM_OK && sure && !was_there) fail("remove of key %u, write %llu, found it", key, sequence);
        end(key, sequence);
        return;
    }
    size_t size = proof_value(key, sequence, value);
    atomic_fetch_add(&shared->bytes, size + 64);
    if (one_in(4)) {
        uint64_t version;
        odm_status status = odm_entry_get(map, bytes, key_size, NULL, NULL, &version);
        if (status >= 0) status = odm_entry_put(map, bytes, key_size, value, size, version);
        // A write of ours that was killed in flight may be made good only now; or a clear comes between.
        if (!sure && (status == ODM_CONFLICT || status == ODM_EXISTS))
            status = odm_put(map, bytes, key_size, value, size);
        expect_ok(map, status, "entry_put", key);
    } else {
        expect_ok(map, odm_put(map, bytes, key_size, value, size), "put", key);
    }
    end(key, sequence);
}

static void write_batch(odm_map *map, struct writer *self, const uint32_t *keys, uint32_t count)
{
    static unsigned char values[BATCH_MAX * PROOF_VALUE_MAX];
    unsigned char key_bytes[BATCH_MAX * PROOF_KEY_MAX];
    uint64_t key_ends[BATCH_MAX], value_ends[BATCH_MAX];
    uint8_t ops[BATCH_MAX], outcomes[BATCH_MAX];
    size_t keys_end = 0, values_end = 0;
    for (uint32_t i = 0; i < count; ++i) {
        uint64_t sequence = atomic_load(&entry_of(keys[i])->started) + 1;
        keys_end += proof_key(keys[i], key_bytes + keys_end);
        ops[i] = is_remove(keys[i], sequence) ? ODM_OP_REMOVE : one_in(3) ? ODM_OP_INSERT : ODM_OP_PUT;
        if (ops[i] != ODM_OP_REMOVE) values_end += proof_value(keys[i], sequence, values + values_end);
        key_ends[i] = keys_end;
        value_ends[i] = values_end;
        self->batch_keys[i] = keys[i];
        self->batch_sequences[i] = ops[i] == ODM_OP_PUT ? sequence : 0;
        begin(keys[i], sequence);
    }
    atomic_fetch_add(&shared->bytes, values_end + count * 64);
    atomic_store(&self->batch_size, count);
    size_t n = count;
    odm_status status = odm_write_many(map, &n, ops, key_bytes, key_ends, values, value_ends, outcomes);
    if (status != ODM_OK || n != count) fail("write_many: %s", last_error_of(map).message);
    atomic_store(&self->batch_size, 0);
    for (uint32_t i = 0; i < count; ++i) {
        uint64_t sequence = atomic_load(&entry_of(keys[i])->started);
        uint64_t from = i == 0 ? 0 : value_ends[i - 1];
        if (outcomes[i] == ODM_EXISTS) { // The insert did nothing: the same write again, as a put.
            unsigned char bytes[PROOF_KEY_MAX];
            size_t key_size = proof_key(keys[i], bytes);
            expect_ok(map, odm_put(map, bytes, key_size, values + from, (size_t)(value_ends[i] - from)), "put",
                      keys[i]);
        }
        end(keys[i], sequence);
    }
}

static size_t counter_key(uint32_t counter, unsigned char key[PROOF_KEY_MAX])
{
    return proof_key(COUNTER_FIRST + counter, key);
}

static uint64_t counter_value(odm_map *map, uint32_t counter, uint64_t *version)
{
    unsigned char key[PROOF_KEY_MAX];
    const void *value;
    size_t size;
    uint64_t number = 0;
    odm_status status = odm_entry_get(map, key, counter_key(counter, key), &value, &size, version);
    if (status < 0) fail("get of a counter: %s", last_error_of(map).message);
    if (status == ODM_OK && size != 8) fail("a counter has %zu bytes", size);
    if (status == ODM_OK) memcpy(&number, value, 8);
    return number;
}

static void raise_counter(odm_map *map, struct writer *self, uint32_t counter)
{
    unsigned char key[PROOF_KEY_MAX];
    size_t key_size = counter_key(counter, key);
    atomic_store(&self->count_started[counter], atomic_load(&self->count_returned[counter]) + 1);
    for (;;) {
        uint64_t version;
        uint64_t number = counter_value(map, counter, &version) + 1;
        odm_status status = odm_entry_put(map, key, key_size, &number, 8, version);
        if (status == ODM_OK) break;
        if (status < 0) fail("a counter: %s", last_error_of(map).message);
    }
    atomic_fetch_add(&self->count_returned[counter], 1);
}

static void clear_map(odm_map *map, struct writer *self)
{
    uint64_t start = stamp();
    atomic_store(&self->clear_start, start);
    expect_ok(map, odm_clear(map, NULL), "clear", 0);
    uint64_t now = stamp();
    uint64_t seen = atomic_load(&shared->clear_last_end);
    while (seen < now && !atomic_compare_exchange_weak(&shared->clear_last_end, &seen, now)) continue;
    seen = atomic_load(&shared->clear_last_start);
    while (seen < start && !atomic_compare_exchange_weak(&shared->clear_last_start, &seen, start)) continue;
    atomic_store(&self->clear_start, 0);
}

/* A key that belongs to a writer. */
static uint32_t own_key(uint32_t number)
{
    uint32_t keys_each = round_.keys / round_.writers;
    return (uint32_t)random_below(keys_each) * round_.writers + number;
}

static void write_for_ever(odm_map *map, uint32_t number)
{
    struct writer *self = &shared->writers[number];
    while (!atomic_load(&shared->stop)) {
        uint64_t choice = random_below(1000);
        if (choice < 700) {
            write_key(map, own_key(number));
        } else if (choice < 780) {
            uint32_t keys[BATCH_MAX], count = 0, wanted = 2 + (uint32_t)random_below(BATCH_MAX - 1);
            for (uint32_t i = 0; i < 2 * BATCH_MAX && count < wanted; ++i) {
                uint32_t key = own_key(number), k = 0;
                while (k < count && keys[k] != key) ++k;
                if (k == count) keys[count++] = key;
            }
            write_batch(map, self, keys, count);
        } else if (choice < 880) {
            if (!round_.clears) raise_counter(map, self, (uint32_t)random_below(COUNTERS));
        } else if (choice < 998) {
            get_and_check("a writer", map, one_in(2) ? own_key(number) : (uint32_t)random_below(round_.keys));
            if (one_in(8)) odm_refresh(map);
        } else if (choice < 999) {
            odm_status status = odm_sync(map, NULL);
            if (status != ODM_OK) fail("sync: %s", last_error_of(map).message);
        } else if (round_.clears) {
            clear_map(map, self);
        } else if (one_in(8)) {
            odm_status status = odm_compact(map, NULL, NULL);
            if (status != ODM_OK) fail("compact: %s", last_error_of(map).message);
        }
    }
}

/* ---- readers --------------------------------------------------------------------------------------------------------- */

static int never_wait(void *word, uint32_t expected, uint64_t timeout_ns)
{
    (void)word;
    (void)expected;
    (void)timeout_ns;
    fail("a reader waits");
    return -1;
}

/* What a reader saw last of each key: nothing ever goes back. */
static uint64_t seen[KEYS_MAX];
static bool gone_since[KEYS_MAX];

static void check_order(uint32_t key, uint64_t sequence)
{
    if (sequence == 0) {
        gone_since[key] = true;
        return;
    }
    bool back = sequence < seen[key] || (sequence == seen[key] && gone_since[key]);
    if (back) {
        fail("a reader: key %u went back to write %llu after %llu%s", key, (unsigned long long)sequence,
             (unsigned long long)seen[key], gone_since[key] ? " and absence" : "");
    }
    seen[key] = sequence;
    gone_since[key] = false;
}

static void read_many(odm_map *map)
{
    enum { N = 32 };
    unsigned char bytes[N * PROOF_KEY_MAX];
    uint32_t keys[N];
    uint64_t ends[N], sizes[N];
    const void *values[N];
    struct before before[N];
    size_t n = N, size = 0;
    for (uint32_t i = 0; i < N; ++i) {
        keys[i] = (uint32_t)random_below(round_.keys);
        size += proof_key(keys[i], bytes + size);
        ends[i] = size;
        before[i] = look_before(keys[i]);
    }
    if (odm_get_many(map, &n, bytes, ends, values, sizes) != ODM_OK) fail("get_many: %s", last_error_of(map).message);
    for (uint32_t i = 0; i < N; ++i) {
        bool found = sizes[i] != ODM_ABSENT;
        check_found("get_many", keys[i], &before[i], found, values[i], found ? sizes[i] : 0);
    }
}

static void walk_and_check(odm_map *map)
{
    static struct before before[KEYS_MAX];
    static uint8_t times[KEYS_MAX];
    memset(times, 0, sizeof times);
    for (uint32_t i = 0; i < round_.keys; ++i) before[i] = look_before(i);
    odm_iter *iter;
    if (odm_iter_open(map, &iter) != ODM_OK) fail("iter_open: %s", last_error_of(map).message);
    const void *key, *value;
    size_t key_size, value_size;
    odm_status status;
    while ((status = odm_iter_next(iter, &key, &key_size, &value, &value_size)) == ODM_OK) {
        uint32_t number;
        if (!proof_number(key, key_size, &number)) fail("a walk met a key nobody wrote");
        if (number >= PROBE_FIRST) continue;
        if (number >= round_.keys) fail("a walk met key %u", number);
        check_found("a walk", number, &before[number], true, value, value_size);
        if (times[number] < 255) ++times[number];
    }
    if (status != ODM_DONE) fail("a walk: %s, %s", odm_status_name(status), last_error_of(map).message);
    odm_iter_close(iter);
    for (uint32_t i = 0; i < round_.keys; ++i) {
        uint64_t started = atomic_load(&entry_of(i)->started);
        if (times[i] == 0) check_found("a whole walk", i, &before[i], false, NULL, 0);
        // A key that was taken away and came back meanwhile may be met twice.
        bool stayed = !round_.clears;
        for (uint64_t k = before[i].returned; k <= started; ++k) stayed &= !is_remove(i, k);
        if (stayed && times[i] > 1) fail("a walk met key %u %u times", i, times[i]);
    }
}

static odm_map *open_or_fail(uint32_t flags)
{
    odm_map *map = NULL;
    odm_error error = {.struct_size = sizeof error};
    odm_options options = {.struct_size = sizeof options, .flags = flags | ODM_MUST_EXIST};
    if (flags & ODM_READ_ONLY) options.flags = flags;
    odm_status status = odm_open(round_.path, &options, &map, &error);
    if (status != ODM_OK) fail("open: %s, %s", odm_status_name(status), error.message);
    return map;
}

static void read_for_ever(uint32_t number)
{
    uint32_t flags = (number == 0 ? 0U : (uint32_t)ODM_READ_ONLY) | (one_in(2) ? (uint32_t)ODM_VERIFY_READS : 0);
    odm_map *map = open_or_fail(flags);
    odm__os.futex_wait = never_wait;
    while (!atomic_load(&shared->stop)) {
        uint64_t choice = random_below(1000);
        if (choice < 980) {
            uint32_t key = (uint32_t)random_below(round_.keys);
            check_order(key, get_and_check("a reader", map, key));
        } else if (choice < 996) {
            read_many(map);
        } else if (choice < 999) {
            walk_and_check(map);
        } else if (flags & ODM_READ_ONLY) {
            odm_close(map);
            map = open_or_fail(flags);
        }
        if (one_in(16)) odm_refresh(map);
        atomic_fetch_add(&shared->reads[number], 1);
    }
    odm__os = *real_os(); // Who closes last stamps the map, and waits for the dead.
    odm_close(map);
}

/* ---- the controller --------------------------------------------------------------------------------------------------- */

static pid_t writers[WRITERS_MAX], readers[READERS_MAX];
static odm_map *watch; // the controller's handle, if the round is watched
static uint64_t kills, rounds, storms, storms_holding;
static uint32_t probe_keys[ODM_STRIPES_MAX];

static void check_failed(void)
{
    if (!atomic_load(&shared->failed)) return;
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); // For the text to be there.
    cr_assert(false, "round %llu (%u stripes, %u keys, %u writers%s%s): %s", (unsigned long long)rounds, round_.stripes,
              round_.keys, round_.writers, round_.clears ? ", clears" : "", round_.watched ? ", watched" : "",
              shared->failure);
}

static pid_t start(void (*body)(uint32_t number), uint32_t number)
{
    uint64_t seed = proof_mix(random_state, number + 100);
    random_below(2);
    pid_t child = fork();
    cr_assert(child >= 0, "fork: %s", strerror(errno));
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    random_state = seed;
    body(number);
    _exit(0);
}

static void writer_main(uint32_t number)
{
    odm_map *map = watch;
    if (!round_.watched) map = open_or_fail(0);
    if (round_.watched && one_in(2) && odm_dup(watch, &map, NULL) != ODM_OK) fail("dup");
    write_for_ever(map, number);
    odm_close(map);
}

static void start_writer(uint32_t i)
{
    struct writer *writer = &shared->writers[i];
    for (uint32_t c = 0; c < COUNTERS; ++c) { // An increment was in flight: it has happened, or not.
        writer->count_unknown[c] += atomic_load(&writer->count_started[c]) > atomic_load(&writer->count_returned[c]);
        atomic_store(&writer->count_started[c], 0);
    }
    atomic_store(&writer->batch_size, 0);
    writers[i] = start(writer_main, i);
}

static void expect_ended(pid_t child, bool killed)
{
    int status;
    while (waitpid(child, &status, 0) < 0) cr_assert_eq(errno, EINTR);
    check_failed();
    bool right =
        killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : WIFEXITED(status) && WEXITSTATUS(status) == 0;
    cr_assert(right, "a child ended by %s %d", WIFEXITED(status) ? "exit" : "signal",
              WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

/* A key of each stripe, for the controller to write. */
static void choose_probes(odm_map *map)
{
    memset(probe_keys, 0, sizeof probe_keys);
    uint32_t found = 0;
    for (uint32_t i = 0; found < round_.stripes; ++i) {
        unsigned char key[PROOF_KEY_MAX];
        uint32_t number = PROBE_FIRST + ODM_STRIPES_MAX + i;
        uint64_t hash = hash_key(key, proof_key(number, key), map->reader.seed);
        uint32_t stripe = hash_stripe(hash, map->reader.index.stripe_bits);
        if (probe_keys[stripe] != 0) continue;
        probe_keys[stripe] = number;
        ++found;
    }
}

/* Writes to every stripe: whatever the dead have left is mended then. */
static void touch_stripes(odm_map *map)
{
    for (uint32_t i = 0; i < round_.stripes; ++i) {
        unsigned char key[PROOF_KEY_MAX];
        uint64_t value = stamp();
        odm_status status = odm_put(map, key, proof_key(probe_keys[i], key), &value, sizeof value);
        if (status != ODM_OK) fail("a write after a kill: %s, %s", odm_status_name(status), last_error_of(map).message);
    }
}

/* The writes of a batch are done strictly in order: if one happened, those before it did, too. */
static void check_batch_prefix(odm_map *map, const struct writer *writer, uint32_t count)
{
    bool missed = false;
    for (uint32_t i = 0; i < count; ++i) {
        if (writer->batch_sequences[i] == 0) continue;
        uint64_t sequence = get_and_check("after a kill", map, writer->batch_keys[i]);
        bool happened = sequence == writer->batch_sequences[i];
        if (happened && missed) fail("a batch was done out of order");
        missed |= !happened;
    }
}

/* What survivors must find as soon as a writer is dead, and after they have mended what it left. */
static void look_after_kill(const bool killed[WRITERS_MAX])
{
    bool cleared = false, batched = false;
    for (uint32_t i = 0; i < round_.writers; ++i) {
        cleared |= killed[i] && atomic_load(&shared->writers[i].clear_start) != 0;
        batched |= killed[i] && atomic_load(&shared->writers[i].batch_size) != 0;
    }
    if (!cleared && !batched && !one_in(3)) return;
    odm_map *map = round_.watched ? watch : open_or_fail(0);
    for (int i = 0; i < 20; ++i) get_and_check("a survivor", map, (uint32_t)random_below(round_.keys));
    if (cleared || batched || one_in(2)) touch_stripes(map);
    for (uint32_t i = 0; i < round_.writers; ++i) {
        struct writer *writer = &shared->writers[i];
        if (!killed[i]) continue;
        if (cleared && atomic_load(&writer->clear_start) != 0) {
            uint64_t now = stamp(), last = atomic_load(&shared->clear_last_end);
            while (last < now && !atomic_compare_exchange_weak(&shared->clear_last_end, &last, now)) continue;
            atomic_store(&writer->clear_start, 0);
        }
        uint32_t count = atomic_load(&writer->batch_size);
        if (count != 0 && !round_.clears) check_batch_prefix(map, writer, count);
    }
    odm_refresh(map);
    if (!round_.watched) odm_close(map);
}

/* Readers go on although all writers are dead. */
static void expect_progress(void)
{
    for (uint32_t i = 0; i < round_.readers; ++i) {
        uint64_t reads = atomic_load(&shared->reads[i]);
        for (int k = 0; atomic_load(&shared->reads[i]) == reads; ++k) {
            check_failed();
            cr_assert(k < HANG_SECONDS * 1000, "reader %u does not go on", i);
            cr_assert_eq(waitpid(readers[i], NULL, WNOHANG), 0, "reader %u has ended", i);
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
}

/* Whether a stripe is locked: for the report, how many kills have hit a writer in a write. */
static bool a_stripe_is_locked(void)
{
    struct lock_file *lock = watch->store->client.file;
    for (uint32_t i = 0; i < round_.stripes; ++i) {
        if ((atomic_load(&lock->stripes[i].word) >> 1 & ATTACH_NUMBER_MAX) != 0) return true;
    }
    return false;
}

static void kill_some(void)
{
    bool killed[WRITERS_MAX] = {false};
    bool all = one_in(20);
    uint32_t victim = (uint32_t)random_below(round_.writers);
    for (uint32_t i = 0; i < round_.writers; ++i) {
        killed[i] = all || i == victim;
        if (killed[i]) kill(writers[i], SIGKILL);
    }
    for (uint32_t i = 0; i < round_.writers; ++i) {
        if (!killed[i]) continue;
        expect_ended(writers[i], true);
        writers[i] = 0;
        ++kills;
    }
    if (all) {
        if (watch != NULL) storms_holding += a_stripe_is_locked();
        storms += watch != NULL;
        expect_progress();
    }
    look_after_kill(killed);
    for (uint32_t i = 0; i < round_.writers; ++i) {
        if (killed[i]) start_writer(i);
    }
}

/* ---- the end of a round ------------------------------------------------------------------------------------------------ */

/* All that is in a map. */
struct content {
    uint64_t sequence[KEYS_MAX];
    uint64_t version[KEYS_MAX];
    uint64_t counters[COUNTERS];
    uint64_t count;
    uint64_t bytes;
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
        ++content->count;
        content->bytes += record_size(key_size, value_size);
        uint32_t number;
        cr_assert(proof_number(key, key_size, &number));
        if (number >= PROBE_FIRST) continue;
        cr_assert_lt(number, round_.keys);
        cr_assert_eq(content->sequence[number], 0, "key %u comes twice", number);
        cr_assert(proof_read(number, value, value_size, &content->sequence[number]));
        uint64_t version;
        ok(odm_entry_get(map, key, key_size, NULL, NULL, &version));
        content->version[number] = version;
    }
    expect_status(status, ODM_DONE);
    odm_iter_close(iter);
    for (uint32_t i = 0; i < COUNTERS; ++i) {
        uint64_t version;
        content->counters[i] = counter_value(map, i, &version);
    }
}

static void check_statistics(odm_map *map, const struct content *content)
{
    odm_statistics statistics = statistics_of(map);
    cr_assert_eq(statistics.count, content->count, "count is %llu, a walk meets %llu",
                 (unsigned long long)statistics.count, (unsigned long long)content->count);
    cr_assert_eq(statistics.live_bytes, content->bytes, "live_bytes is %llu, a walk meets %llu",
                 (unsigned long long)statistics.live_bytes, (unsigned long long)content->bytes);
    cr_assert_eq(odm_count(map), content->count);
}

static void check_all_keys(odm_map *map)
{
    for (uint32_t i = 0; i < round_.keys; ++i) get_and_check("the end", map, i);
    check_failed();
    for (uint32_t c = 0; c < COUNTERS && !round_.clears; ++c) {
        uint64_t returned = 0, unknown = 0, version;
        for (uint32_t i = 0; i < round_.writers; ++i) {
            const struct writer *writer = &shared->writers[i];
            returned += atomic_load(&writer->count_returned[c]);
            unknown += writer->count_unknown[c];
            unknown += atomic_load(&writer->count_started[c]) > atomic_load(&writer->count_returned[c]);
        }
        uint64_t value = counter_value(map, c, &version);
        cr_assert(value >= returned && value <= returned + unknown, "a counter is %llu, expected %llu to %llu",
                  (unsigned long long)value, (unsigned long long)returned, (unsigned long long)(returned + unknown));
    }
}

static void check_same(const struct content *a, const struct content *b)
{
    cr_assert_eq(a->count, b->count);
    cr_assert_eq(a->bytes, b->bytes);
    for (uint32_t i = 0; i < round_.keys; ++i) {
        cr_assert_eq(a->sequence[i], b->sequence[i], "key %u: write %llu in the index, %llu in the log", i,
                     (unsigned long long)a->sequence[i], (unsigned long long)b->sequence[i]);
        cr_assert_eq(a->version[i], b->version[i]);
    }
    cr_assert_eq(memcmp(a->counters, b->counters, sizeof a->counters), 0);
}

static void check_round(void)
{
    static struct content content, rebuilt;
    // Either what the dead left is mended by living writers, and the log must tell the same; or nobody was left, the index
    // is distrusted at once, and a rebuild must find every write that returned.
    bool mended = one_in(2);
    bool without_lock = mended && one_in(2);
    if (mended) {
        odm_map *map = round_.watched ? watch : open_or_fail(0);
        touch_stripes(map);
        take_content(map, &content);
        check_statistics(map, &content);
        check_all_keys(map);
        if (!round_.watched) odm_close(map);
    }
    if (watch != NULL) odm_close(watch);
    watch = NULL;
    remove_tree(path_of(round_.path, "index"));
    if (without_lock) remove_tree(path_of(round_.path, "lock"));

    odm_map *map = open_or_fail(0);
    if (mended) {
        take_content(map, &rebuilt);
        check_same(&content, &rebuilt);
    }
    odm_statistics statistics = statistics_of(map);
    uint32_t kind = without_lock ? ODM_RECOVERY_CUT : ODM_RECOVERY_KEPT;
    cr_assert_eq(statistics.recovery_kind, kind, "recovery_kind is %u, expected %u", statistics.recovery_kind, kind);
    take_content(map, &content);
    check_statistics(map, &content);
    check_all_keys(map);
    touch_stripes(map);
    odm_close(map);
}

static void run_round(uint64_t kills_wanted)
{
    ++rounds;
    static const uint64_t masks[] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, ~(UINT64_C(0xffff) << 12), ~UINT64_C(0x3f)};
    memset(shared, 0, sizeof *shared);
    round_.path = temp_map_path();
    round_.stripes = 1U << random_below(5);
    round_.writers = 3 + (uint32_t)random_below(4);
    round_.readers = (uint32_t)random_below(READERS_MAX + 1);
    round_.keys = (one_in(3) ? 48 : one_in(2) ? 600 : KEYS_MAX) / round_.writers * round_.writers;
    round_.clears = one_in(3);
    round_.watched = one_in(2);
    odm__test_hash_mask = masks[random_below(COUNT_OF(masks))];

    odm_map *map = open_map(round_.path, .stripes = round_.stripes);
    choose_probes(map);
    if (round_.watched)
        watch = map;
    else
        odm_close(map);
    for (uint32_t i = 0; i < round_.readers; ++i) {
        readers[i] = start(read_for_ever, i);
    }
    for (uint32_t i = 0; i < round_.writers; ++i) start_writer(i);

    uint64_t limit = kills + 1 + random_below(ROUND_KILLS_MAX);
    if (limit > kills_wanted) limit = kills_wanted;
    while (kills < limit && atomic_load(&shared->bytes) < ROUND_BYTES_MAX) {
        uint64_t pause_us = one_in(2) ? random_below(300) : random_below(3000);
        nanosleep(&(struct timespec){.tv_nsec = (long)pause_us * 1000}, NULL);
        check_failed();
        kill_some();
    }
    bool kill_all = one_in(2);
    if (!kill_all) atomic_store(&shared->stop, 1);
    for (uint32_t i = 0; i < round_.writers; ++i) {
        if (kill_all) kill(writers[i], SIGKILL);
    }
    for (uint32_t i = 0; i < round_.writers; ++i) {
        expect_ended(writers[i], kill_all);
        kills += kill_all;
    }
    if (kill_all && atomic_load(&shared->stop) == 0) expect_progress();
    atomic_store(&shared->stop, 1);
    for (uint32_t i = 0; i < round_.readers; ++i) expect_ended(readers[i], false);
    check_round();
    remove_temp_directories();
}

/* A process may be killed at any instruction: every returned write stays, the one in flight happened or did not, readers
 * never wait, and the next writer goes on.
 * Method: as told at the top of this file. */
Test(kill, returned_writes_stay_whoever_is_killed, .timeout = 86400)
{
    const char *text = getenv("ODM_TEST_KILLS");
    uint64_t wanted = text != NULL ? strtoull(text, NULL, 10) : KILLS_DEFAULT;
    text = getenv("ODM_TEST_SEED");
    random_state = text != NULL ? strtoull(text, NULL, 10) : 1;
    shared = shared_memory(sizeof *shared);
    while (kills < wanted) run_round(wanted);
    fprintf(stderr, "%llu kills in %llu rounds; of %llu looked at, %llu left a stripe locked\n",
            (unsigned long long)kills, (unsigned long long)rounds, (unsigned long long)storms,
            (unsigned long long)storms_holding);
}
