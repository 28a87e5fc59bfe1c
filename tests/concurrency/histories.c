/* histories.c - what clients did and saw, recorded, and checked for linearizability key by key.
 *
 * Clients - processes, or threads - use few keys at once: put, remove, insert, compare-and-swap, get. Each notes the stamp
 * of a shared counter before and after a call, and what the call said. Then, for each key, an order of all its calls is looked for in
 * which each takes effect at one moment between its two stamps, and in which every answer is that of a plain variable. If there
 * is none, some get was stale, some write was lost, or two clients saw the writes in different orders. Every value is written
 * once, so an answer tells which write it saw. A client that is killed leaves a call that may or may not have taken effect.
 *
 * ODM_TEST_HISTORIES: how many histories each test records. ODM_TEST_SEED: others. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "oracle.h"
#include "proof.h"
#include "support.h"

TestSuite(histories, .fini = remove_temp_directories, .timeout = 86400);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { HISTORIES_USUAL = 10 };
#else
enum { HISTORIES_USUAL = 60 };
#endif
enum { CLIENTS = 5, CALLS = 120, KEYS = 3, VALUE_MAX = 600 };

/* ---- recording -------------------------------------------------------------------------------------------------------- */

enum what { PUT, REMOVE, INSERT, SWAP, GET };
#define PENDING UINT64_MAX

/* One call. ABSENT stands for no value. */
enum { ABSENT = 0 };
struct call {
    enum what what;
    uint32_t key;
    uint64_t begun, ended; // stamps
    uint32_t value;        // what it writes
    uint32_t expected;     // of a swap: the value whose version it had
    uint32_t seen;         // of a get: what it found
    bool done;             // whether the write says it took effect
};

static struct shared {
    _Atomic uint64_t clock;
    _Atomic int ready;
    _Atomic uint32_t used[CLIENTS];
    struct call calls[CLIENTS][CALLS];
} * shared;

static const char *path;
static odm_map *map_of_threads; // whose dups the threads use; NULL: they are processes

/* The bytes of a value tell its number; some are big enough to end a segment. */
static size_t value_make(uint32_t value, unsigned char bytes[VALUE_MAX])
{
    size_t size = 8 + proof_mix(value, 3) % (VALUE_MAX - 8);
    for (size_t i = 0; i < size; ++i) bytes[i] = (unsigned char)proof_mix(value, i / 8);
    memcpy(bytes, &value, sizeof value);
    return size;
}

static uint32_t value_read(const void *bytes, size_t size)
{
    unsigned char expected[VALUE_MAX];
    uint32_t value;
    must(size >= sizeof value && size <= VALUE_MAX);
    memcpy(&value, bytes, sizeof value);
    must(value_make(value, expected) == size && memcmp(expected, bytes, size) == 0);
    return value;
}

static void make_call(odm_map *map, struct call *call)
{
    unsigned char bytes[VALUE_MAX];
    uint32_t key = call->key;
    size_t size = value_make(call->value, bytes), found_size;
    const void *found;
    uint64_t version = 0;
    odm_status status;
    if (call->what == SWAP) { // The look at the version is no part of the call: it may be as old as it likes.
        status = odm_entry_get(map, &key, sizeof key, &found, &found_size, &version);
        must(status >= 0);
        call->expected = status == ODM_OK ? value_read(found, found_size) : ABSENT;
    }
    call->begun = atomic_fetch_add(&shared->clock, 1);
    switch (call->what) {
        case PUT: status = odm_put(map, &key, sizeof key, bytes, size); break;
        case REMOVE: status = odm_remove(map, &key, sizeof key); break;
        case INSERT: status = odm_entry_put(map, &key, sizeof key, bytes, size, 0); break;
        case SWAP: status = odm_entry_put(map, &key, sizeof key, bytes, size, version); break;
        default: status = odm_get(map, &key, sizeof key, &found, &found_size);
    }
    must(status >= 0);
    call->done = status == ODM_OK;
    if (call->what == GET) call->seen = status == ODM_OK ? value_read(found, found_size) : ABSENT;
    call->ended = atomic_fetch_add(&shared->clock, 1);
}

static void compact(odm_map *map)
{
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_compact(map, NULL, &error);
    if (status != ODM_OK) fprintf(stderr, "odm_compact: %s, %s\n", odm_status_name(status), error.message);
    must(status == ODM_OK);
}

static void use_map(odm_map *map, uint32_t client, uint64_t seed)
{
    struct sequence sequence = {.state = seed};
    atomic_fetch_add(&shared->ready, 1);
    while (atomic_load(&shared->ready) < CLIENTS) continue;
    for (uint32_t i = 0; i < CALLS; ++i) {
        struct call *call = &shared->calls[client][i];
        *call = (struct call){
            .what = (enum what)sequence_below(&sequence, GET + 3), // gets are the most
            .key = (uint32_t)sequence_below(&sequence, KEYS),
            .ended = PENDING,
            .value = 1 + client * CALLS + i,
        };
        if (call->what > GET) call->what = GET;
        atomic_store(&shared->used[client], i + 1);
        make_call(map, call);
        if (sequence_below(&sequence, 8) == 0) odm_refresh(map);
        if (sequence_below(&sequence, 60) == 0) compact(map);
    }
}

static void process_main(void *context)
{
    uint32_t client = *(const uint32_t *)context;
    odm_map *map;
    must(odm_open(path, NULL, &map, NULL) == ODM_OK);
    use_map(map, client, seed_of_run() * 1000003 + client + 77 * (uint64_t)atomic_load(&shared->clock));
    must(odm_close(map) == ODM_OK);
}

static void thread_main(void *context, unsigned client)
{
    odm_map *map;
    must(odm_dup(map_of_threads, &map, NULL) == ODM_OK);
    use_map(map, client, *(const uint64_t *)context + client);
    must(odm_close(map) == ODM_OK);
}

/* ---- checking ---------------------------------------------------------------------------------------------------------- */

enum { KEY_CALLS_MAX = CLIENTS * CALLS + 1, WORDS = (KEY_CALLS_MAX + 63) / 64 };

/* A state of the search: which calls have taken effect, and what the variable is. */
struct state {
    uint64_t taken[WORDS];
    uint32_t value;
};

static struct {
    struct state *states;
    size_t count, room; // a power of two
} visited;

static void visited_forget(void)
{
    free(visited.states);
    memset(&visited, 0, sizeof visited);
}

static bool visit(const struct state *state)
{
    if (visited.count * 2 >= visited.room) {
        size_t room = visited.room == 0 ? 1024 : visited.room * 2, old_room = visited.room;
        struct state *old = visited.states;
        visited.states = calloc(room, sizeof *visited.states);
        cr_assert_not_null(visited.states);
        visited.room = room;
        visited.count = 0;
        for (size_t i = 0; i < old_room; ++i) {
            if (old[i].taken[0] != 0) (void)visit(&old[i]);
        }
        free(old);
    }
    uint64_t hash = state->value;
    for (size_t i = 0; i < WORDS; ++i) hash = proof_mix(hash, state->taken[i]);
    size_t at = hash & (visited.room - 1);
    for (; visited.states[at].taken[0] != 0; at = (at + 1) & (visited.room - 1)) {
        if (memcmp(&visited.states[at], state, sizeof *state) == 0) return false;
    }
    visited.states[at] = *state;
    ++visited.count;
    return true;
}

/* Whether a call's answer is that of a variable with this value; *after: what it is then. */
static bool answers(const struct call *call, uint32_t value, uint32_t *after)
{
    bool pending = call->ended == PENDING;
    *after = value;
    switch (call->what) {
        case PUT: *after = call->value; return pending || call->done;
        case REMOVE: *after = ABSENT; return pending || call->done == (value != ABSENT);
        case INSERT:
            if (value == ABSENT) *after = call->value;
            return pending || call->done == (value == ABSENT);
        case SWAP: {
            // Version 0 is "only if absent".
            bool fits = value == call->expected;
            if (fits) *after = call->value;
            return pending || call->done == fits;
        }
        default: return pending || call->seen == value;
    }
}

/* Finds an order; `calls` are sorted by begun. The first word's bit 0 is always set, so that a state is never all zeros. */
static bool search(const struct call *calls, size_t count, struct state *state)
{
    // Only calls that began before the first end of those not yet taken may be next.
    uint64_t first_end = PENDING;
    bool left = false;
    for (size_t i = 0; i < count; ++i) {
        bool taken = state->taken[(i + 1) / 64] >> ((i + 1) % 64) & 1;
        if (taken) continue;
        if (calls[i].ended != PENDING) left = true;
        if (calls[i].ended < first_end) first_end = calls[i].ended;
    }
    if (!left) return true; // What is pending need not have happened.
    for (size_t i = 0; i < count && calls[i].begun < first_end; ++i) {
        uint64_t bit = UINT64_C(1) << ((i + 1) % 64);
        uint32_t after;
        if ((state->taken[(i + 1) / 64] & bit) != 0 || !answers(&calls[i], state->value, &after)) continue;
        struct state next = *state;
        next.taken[(i + 1) / 64] |= bit;
        next.value = after;
        if (visit(&next) && search(calls, count, &next)) return true;
    }
    return false;
}

static int by_begun(const void *a, const void *b)
{
    const struct call *x = a, *y = b;
    return x->begun < y->begun ? -1 : x->begun > y->begun;
}

static void check_key(uint32_t key)
{
    static struct call calls[KEY_CALLS_MAX];
    size_t count = 0;
    for (uint32_t client = 0; client < CLIENTS; ++client) {
        for (uint32_t i = 0; i < atomic_load(&shared->used[client]); ++i) {
            struct call *call = &shared->calls[client][i];
            if (call->key != key || call->begun == 0) continue; // Killed before it began.
            calls[count++] = *call;
        }
    }
    qsort(calls, count, sizeof *calls, by_begun);
    struct state start = {.taken = {1}, .value = ABSENT};
    if (search(calls, count, &start)) goto done;
    fprintf(stderr, "key %u:\n", key);
    static const char *const names[] = {"put", "remove", "insert", "swap", "get"};
    for (size_t i = 0; i < count; ++i) {
        fprintf(stderr, "%llu-%lld %s writes %u, expects %u, saw %u: %s\n", (unsigned long long)calls[i].begun,
                (long long)calls[i].ended, names[calls[i].what], calls[i].value, calls[i].expected, calls[i].seen,
                calls[i].done ? "ok" : "not");
    }
    cr_assert(false, "seed %llu: the calls on key %u have no order", (unsigned long long)seed_of_run(), key);
done:
    visited_forget();
}

static void begin_history(void)
{
    memset(shared, 0, sizeof *shared);
    atomic_store(&shared->clock, 1); // 0: never begun
}

/* ---- tests --------------------------------------------------------------------------------------------------------------- */

/* Calls of several processes on one key are as if done one after the other, whoever is killed meanwhile.
 * Method: as told at the top of this file; in every second history one or two clients are killed. */
Test(histories, of_processes_are_linearizable)
{
    size_t histories = count_of("ODM_TEST_HISTORIES", HISTORIES_USUAL);
    struct sequence sequence = sequence_start(51);
    shared = shared_memory(sizeof *shared);
    for (size_t n = 0; n < histories; ++n) {
        path = temp_map_path();
        odm_close(open_map(path, .stripes = 1U << n % 3));
        begin_history();
        atomic_store(&shared->clock, 1 + n); // Each history draws its own calls.
        pid_t children[CLIENTS];
        uint32_t numbers[CLIENTS];
        for (uint32_t i = 0; i < CLIENTS; ++i) {
            numbers[i] = i;
            children[i] = start_child(process_main, &numbers[i]);
        }
        uint32_t victims = n % 2 == 0 ? 0 : 1 + (uint32_t)sequence_below(&sequence, 2);
        for (uint32_t i = 0; i < victims; ++i) {
            uint64_t when = sequence_below(&sequence, CLIENTS * CALLS);
            while (atomic_load(&shared->clock) < when && waitpid(children[i], NULL, WNOHANG | WNOWAIT) == 0) continue;
            kill(children[i], SIGKILL);
            atomic_fetch_add(&shared->ready, CLIENTS); // Nobody waits for it.
        }
        for (uint32_t i = 0; i < CLIENTS; ++i) {
            int status;
            cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
            bool killed = i < victims && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
            cr_assert(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "history %zu: a client failed", n);
        }
        for (uint32_t key = 0; key < KEYS; ++key) check_key(key);
        remove_temp_directories();
    }
}

/* The same for threads with handles of their own. */
Test(histories, of_threads_are_linearizable)
{
    size_t histories = count_of("ODM_TEST_HISTORIES", HISTORIES_USUAL);
    shared = shared_memory(sizeof *shared);
    for (size_t n = 0; n < histories; ++n) {
        map_of_threads = open_map(temp_map_path(), .stripes = 1U << n % 3);
        begin_history();
        uint64_t seed = seed_of_run() * 7919 + n * 100;
        run_threads(CLIENTS, thread_main, &seed);
        for (uint32_t key = 0; key < KEYS; ++key) check_key(key);
        odm_close(map_of_threads);
        remove_temp_directories();
    }
}

/* The checker itself: a history that has no order is found out. */
Test(histories, that_are_wrong_are_found)
{
    shared = shared_memory(sizeof *shared);
    begin_history();
    struct call *calls = shared->calls[0];
    calls[0] = (struct call){.what = PUT, .begun = 1, .ended = 2, .value = 1, .done = true};
    calls[1] = (struct call){.what = PUT, .begun = 3, .ended = 6, .value = 2, .done = true};
    calls[2] = (struct call){.what = GET, .begun = 4, .ended = 5, .seen = 2};
    calls[3] = (struct call){.what = GET, .begun = 7, .ended = 8, .seen = 1}; // Back to the first.
    struct state start = {.taken = {1}, .value = ABSENT};
    cr_assert(search(calls, 3, &start));
    cr_assert_not(search(calls, 4, &start));
    calls[3] = (struct call){.what = REMOVE, .begun = 7, .ended = 8, .done = false}; // It is there.
    visited_forget();
    cr_assert_not(search(calls, 4, &start));
    visited_forget();
}
