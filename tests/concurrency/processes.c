/* processes.c - processes that meet on one map: making it, opening it, stopping in the middle of a write, forking, living in
 * other namespaces, or being two copies of the library in one. What happens when they are killed: kill.c, step_kill.c.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "hash.h"
#include "map.h"
#include "support.h"

TestSuite(processes, .fini = remove_temp_directories, .timeout = 300);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { CROWD = 60, EFFORT = 1 };
#else
enum { CROWD = 500, EFFORT = 5 };
#endif

/* What a test and its children share. */
struct shared {
    const char *path;
    _Atomic int ready;
    _Atomic int go;
    _Atomic int stop;
    _Atomic int created;
    _Atomic int exist;
    _Atomic uint64_t returned;
    uint32_t key; // what one of them writes
    uint8_t map_id[256][16];
    odm_map *map;
};
static struct shared *shared;

static void pause_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

static void wait_for_go(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->go)) sched_yield();
}

/* In a child: opens and must succeed. */
static odm_map *open_in_child(uint32_t flags, uint32_t wait_ms)
{
    odm_map *map = NULL;
    odm_error error = {.struct_size = sizeof error};
    odm_options options = {.struct_size = sizeof options, .flags = flags, .wait_ms = wait_ms};
    odm_status status = odm_open(shared->path, &options, &map, &error);
    if (status != ODM_OK) fprintf(stderr, "open: %s, %s\n", odm_status_name(status), error.message);
    must(status == ODM_OK);
    return map;
}

static void must_be_ok(odm_map *map, odm_status status)
{
    if (status != ODM_OK) fprintf(stderr, "%s, %s\n", odm_status_name(status), last_error_of(map).message);
    must(status == ODM_OK);
}

static void put_number(odm_map *map, uint32_t key, uint64_t value)
{
    must_be_ok(map, odm_put(map, &key, sizeof key, &value, sizeof value));
}

static void must_have_number(odm_map *map, uint32_t key, uint64_t expected)
{
    const void *value;
    size_t size;
    must_be_ok(map, odm_get(map, &key, sizeof key, &value, &size));
    must(size == sizeof expected && memcmp(value, &expected, size) == 0);
}

static void count_up(odm_map *map, uint32_t key, int times)
{
    for (int i = 0; i < times; ++i) {
        for (;;) {
            const void *value;
            size_t size;
            uint64_t version, number = 0;
            odm_status status = odm_entry_get(map, &key, sizeof key, &value, &size, &version);
            must(status >= 0);
            if (status == ODM_OK) memcpy(&number, value, sizeof number);
            ++number;
            status = odm_entry_put(map, &key, sizeof key, &number, sizeof number, version);
            if (status == ODM_OK) break;
            if (status < 0) must_be_ok(map, status);
        }
    }
}

/* A key of a stripe. */
static uint32_t key_in_stripe(odm_map *map, uint32_t stripe)
{
    uint32_t key = 0;
    while (hash_stripe(hash_key(&key, sizeof key, map->reader.seed), map->reader.index.stripe_bits) != stripe) ++key;
    return key;
}

static void start_crowd(pid_t *children, int count, void (*body)(void *context))
{
    for (intptr_t i = 0; i < count; ++i) children[i] = start_child(body, (void *)i);
    while (atomic_load(&shared->ready) < count) pause_us(1000);
    atomic_store(&shared->go, 1);
}

static void end_crowd(const pid_t *children, int count)
{
    for (int i = 0; i < count; ++i) expect_child_succeeds(children[i]);
    atomic_store(&shared->ready, 0);
    atomic_store(&shared->go, 0);
}

static void use_shared(const char *path)
{
    if (shared == NULL) shared = shared_memory(sizeof *shared);
    memset(shared, 0, sizeof *shared);
    shared->path = path;
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

enum { MAKERS = 16, MAKING_ROUNDS = 4 * EFFORT };

static void make_map(void *context)
{
    uint32_t number = (uint32_t)(intptr_t)context;
    wait_for_go();
    odm_map *map = open_in_child(0, 0);
    put_number(map, number, number);
    memcpy(shared->map_id[number], statistics_of(map).map_id, 16);
    odm_close(map);
}

/* Many processes may make one map at once: all succeed, and it is one map. */
Test(processes, make_one_map_all_at_once)
{
    for (int round = 0; round < MAKING_ROUNDS; ++round) {
        pid_t children[MAKERS];
        use_shared(temp_map_path());
        start_crowd(children, MAKERS, make_map);
        end_crowd(children, MAKERS);
        odm_map *map = open_map(shared->path);
        cr_assert_eq(odm_count(map), MAKERS);
        for (uint32_t i = 0; i < MAKERS; ++i) {
            cr_assert_eq(memcmp(shared->map_id[i], shared->map_id[0], 16), 0);
            must_have_number(map, i, i);
        }
        odm_close(map);
    }
}

static void must_make_map(void *context)
{
    (void)context;
    wait_for_go();
    odm_map *map;
    odm_options options = {.struct_size = sizeof options, .flags = ODM_MUST_CREATE};
    odm_status status = odm_open(shared->path, &options, &map, NULL);
    must(status == ODM_OK || status == ODM_EXISTS);
    atomic_fetch_add(status == ODM_OK ? &shared->created : &shared->exist, 1);
    odm_close(map);
}

/* Of those who insist on making it, exactly one makes it. */
Test(processes, make_a_map_once_if_it_must_be_new)
{
    for (int round = 0; round < MAKING_ROUNDS; ++round) {
        pid_t children[MAKERS];
        use_shared(temp_map_path());
        start_crowd(children, MAKERS, must_make_map);
        end_crowd(children, MAKERS);
        cr_assert_eq(atomic_load(&shared->created), 1);
        cr_assert_eq(atomic_load(&shared->exist), MAKERS - 1);
    }
}

static void visit(void *context)
{
    uint32_t number = (uint32_t)(intptr_t)context;
    wait_for_go();
    odm_map *map = open_in_child(0, 0);
    put_number(map, number, number * 3);
    count_up(map, 1000000, 3);
    must_have_number(map, number, number * 3);
    odm_close(map);
}

/* A crowd opens, writes and closes at once. */
Test(processes, open_and_close_in_a_crowd)
{
    static pid_t children[CROWD];
    use_shared(temp_map_path());
    start_crowd(children, CROWD, visit);
    end_crowd(children, CROWD);
    odm_map *map = open_map(shared->path);
    cr_assert_eq(odm_count(map), CROWD + 1);
    for (uint32_t i = 0; i < CROWD; ++i) must_have_number(map, i, i * 3);
    must_have_number(map, 1000000, CROWD * 3);
    odm_close(map);
}

/* ---- stopping ---------------------------------------------------------------------------------------------------------- */

enum { VALUE_SIZE = 600, STOPS_MAX = 4000, STOPS_HELD = 4 * EFFORT };

static void write_one_key(void *context)
{
    (void)context;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    odm_map *map = open_in_child(0, 0);
    uint64_t value[VALUE_SIZE / 8];
    while (!atomic_load(&shared->stop)) {
        uint64_t number = atomic_load(&shared->returned) + 1;
        for (size_t i = 0; i < COUNT_OF(value); ++i) value[i] = number;
        must_be_ok(map, odm_put(map, &shared->key, sizeof shared->key, value, sizeof value));
        atomic_store(&shared->returned, number);
    }
    odm_close(map);
}

static uint32_t owner_of(const struct lock_line *line)
{
    return (uint32_t)(atomic_load(&line->word) >> 1) & ATTACH_NUMBER_MAX;
}

/* The value is that of the last write that returned, or the one after. */
static void expect_current_value(odm_map *map)
{
    uint64_t returned = atomic_load(&shared->returned);
    const uint64_t *value;
    size_t size;
    odm_status status = odm_get(map, &shared->key, sizeof shared->key, (const void **)&value, &size);
    if (status == ODM_NOT_FOUND && returned == 0) return;
    expect_status(status, ODM_OK);
    cr_assert_eq(size, VALUE_SIZE);
    cr_assert(value[0] == returned || value[0] == returned + 1, "%llu, %llu had returned", (unsigned long long)value[0],
              (unsigned long long)returned);
    for (size_t i = 1; i < VALUE_SIZE / 8; ++i) cr_assert_eq(value[i], value[0]);
}

/* A client stopped in a write holds up nobody but those who want its stripe, and they are told; readers never notice; and
 * nobody takes its lock away.
 * Method: a writer is stopped at random moments until it was caught in a write some times. The survivor reads, writes to
 * another stripe, and tries the writer's own with little patience. Then the writer goes on, and its write must count. */
Test(processes, stop_in_a_write_and_keep_their_lock)
{
    use_shared(temp_map_path());
    odm_map *map = open_map(shared->path, .stripes = 2, .wait_ms = 20);
    struct lock_file *lock = map->store->client.file;
    uint32_t mine = map->store->client.number;
    shared->key = key_in_stripe(map, 0);
    uint32_t neighbour = shared->key + 1;
    while (hash_stripe(hash_key(&neighbour, 4, map->reader.seed), map->reader.index.stripe_bits) != 0) ++neighbour;
    uint32_t other = key_in_stripe(map, 1);
    // Both stripes have room from here on: who is stopped while it grows the index holds up whoever needs room, too.
    ok(odm_put(map, &other, sizeof other, &other, sizeof other));
    ok(odm_put(map, &neighbour, sizeof neighbour, &neighbour, sizeof neighbour));
    pid_t writer = start_child(write_one_key, NULL);
    int held = 0, append_held = 0;
    for (int i = 0; i < STOPS_MAX && (held < STOPS_HELD || atomic_load(&shared->returned) == 0); ++i) {
        pause_us(100 + i * 37 % 900);
        stop_child(writer);
        uint64_t word = atomic_load(&lock->stripes[0].word), append_word = atomic_load(&lock->append.word);
        bool has_stripe = owner_of(&lock->stripes[0]) != 0, has_append = owner_of(&lock->append) != 0;
        cr_assert_neq(owner_of(&lock->stripes[0]), mine);
        expect_current_value(map);
        expect_status(odm_put(map, &other, sizeof other, &i, sizeof i), has_append ? ODM_E_BUSY : ODM_OK);
        expect_status(odm_put(map, &neighbour, sizeof neighbour, &i, sizeof i),
                      has_stripe || has_append ? ODM_E_BUSY : ODM_OK);
        if (has_stripe) { // Only the bit of who waits may have changed.
            cr_assert_eq(atomic_load(&lock->stripes[0].word) | 1, word | 1, "a lock was stolen from the living");
        }
        if (has_append) cr_assert_eq(atomic_load(&lock->append.word) | 1, append_word | 1);
        if (has_stripe) expect_status(odm_clear(map, NULL), ODM_E_BUSY);
        expect_current_value(map);
        odm_refresh(map);
        held += has_stripe;
        append_held += has_append;
        cr_assert_eq(kill(writer, SIGCONT), 0);
    }
    atomic_store(&shared->stop, 1);
    expect_child_succeeds(writer);
    expect_current_value(map);
    cr_assert_gt(held, 0, "it was never caught in a write");
    fprintf(stderr, "stopped %d times in a write, %d of them in a reservation\n", held, append_held);
    odm_close(map);
}

/* ---- forking ------------------------------------------------------------------------------------------------------------ */

enum { FORKS = 8 * EFFORT, FORK_COUNTER = 500000 };

static void *write_beside(void *context)
{
    odm_map *map = context;
    for (uint64_t i = 1; !atomic_load(&shared->stop); ++i) {
        uint32_t key = 1000 + i % 500;
        put_number(map, key, i);
        atomic_store(&shared->returned, i);
        if (i % 64 != 0) continue;
        count_up(map, FORK_COUNTER, 1);
        odm_refresh(map); // Else it keeps all segments it ever read from, and a slow machine runs out of mappings.
    }
    return NULL;
}

/* Parent and child both go on with the handle that was open, also if another thread was just writing by another handle.
 * Method: while a thread writes, its process forks again and again; each child writes with the inherited handle, closes the
 * dead handle of the other thread, opens the map anew, and raises a counter together with all others. */
Test(processes, fork_while_a_thread_writes)
{
    use_shared(temp_map_path());
    odm_map *map = open_map(shared->path, .stripes = 4), *beside;
    ok(odm_dup(map, &beside, NULL));
    put_number(map, 1, 1);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, write_beside, beside), 0);
    while (atomic_load(&shared->returned) == 0) sched_yield(); // A busy machine may let it begin after the last fork.
    for (int i = 0; i < FORKS; ++i) {
        pid_t child = fork();
        cr_assert(child >= 0);
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            must_have_number(map, 1, 1);
            if (i % 2 == 0) odm_close(beside);
            count_up(map, FORK_COUNTER + 1, 10);
            put_number(map, 2, (uint64_t)i);
            must_have_number(map, 2, (uint64_t)i);
            if (i % 3 == 0) odm_close(map);
            odm_map *again = open_in_child(0, 0);
            count_up(again, FORK_COUNTER + 1, 10);
            odm_close(again);
            if (i % 3 != 0) odm_close(map);
            _exit(0);
        }
        count_up(map, FORK_COUNTER + 1, 10);
        expect_child_succeeds(child);
    }
    atomic_store(&shared->stop, 1);
    pthread_join(thread, NULL);
    must_have_number(map, FORK_COUNTER + 1, FORKS * 30);
    uint64_t last = atomic_load(&shared->returned);
    must_have_number(map, 1000 + (uint32_t)(last % 500), last);
    odm_close(beside);
    odm_close(map);
}

static odm_map *inherited;

static void look_around(void *context)
{
    (void)context;
    odm_statistics statistics = {.struct_size = sizeof statistics};
    must(odm_count(inherited) == 3);
    must_be_ok(inherited, odm_stat(inherited, &statistics));
    must(statistics.count == 3 && statistics.log_bytes != 0);
    odm_map *dup;
    must_be_ok(inherited, odm_dup(inherited, &dup, NULL));
    must_have_number(dup, 1, 1);
    must_be_ok(inherited, odm_sync(dup, NULL));
    must(odm_close(dup) == ODM_OK);
    must(odm_close(inherited) == ODM_OK);
}

/* A bug of the fork handler: a child has no descriptor of `meta` until its first write, and odm_stat failed without one. */
Test(processes, look_at_a_map_in_a_child_before_it_writes)
{
    inherited = open_map(temp_map_path());
    for (uint32_t i = 0; i < 3; ++i) put_number(inherited, i, i);
    expect_child_succeeds(start_child(look_around, NULL));
    put_number(inherited, 7, 7);
    odm_close(inherited);
}

enum { DEAD = 99 };

static int die(int directory, const char *name, int flags, mode_t mode)
{
    (void)directory;
    (void)name;
    (void)flags;
    (void)mode;
    kill(getpid(), SIGKILL);
    _exit(DEAD); // The first process of a pid namespace does not die of its own signals.
}

/* Dies in a put, holding the stripe of its key. */
static void die_in_a_put(odm_map *map)
{
    odm__os.open = die; // A handle's first put opens the segment to write to, under the lock.
    put_number(map, shared->key, 1);
    must(false);
}

static void go_on_alone(odm_map *map)
{
    prctl(PR_SET_PDEATHSIG, 0);
    atomic_store(&shared->ready, 1);
    wait_for(&shared->go, 1);
    put_number(map, shared->key, 2); // Takes the lock of its dead parent.
    put_number(map, 3, 3);
    must_have_number(map, 1, 1);
    odm_close(map);
    atomic_store(&shared->exist, 1);
    _exit(0);
}

static void fork_and_die(void *context)
{
    (void)context;
    odm_map *map = open_in_child(0, 0);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) go_on_alone(map);
    wait_for(&shared->ready, 1);
    die_in_a_put(map);
}

static void expect_killed(pid_t child)
{
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it did not die as it should");
}

/* A child goes on when its parent has died in a write: it does not keep the parent's locks alive by the descriptors it has
 * inherited. */
Test(processes, go_on_when_the_parent_dies_in_a_write)
{
    use_shared(temp_map_path());
    odm_map *map = open_map(shared->path, .stripes = 2);
    put_number(map, 1, 1);
    shared->key = key_in_stripe(map, 1) + 100000;
    odm_close(map);
    expect_killed(start_child(fork_and_die, NULL));
    atomic_store(&shared->go, 1);
    wait_for(&shared->exist, 1);
    map = open_map(shared->path);
    must_have_number(map, shared->key, 2);
    must_have_number(map, 3, 3);
    cr_assert_eq(odm_count(map), 3);
    odm_close(map);
}

static _Thread_local bool is_opener;

/* When the opener has just taken a file lock, lets the other thread fork, or try to: fork may wait for the opener. */
static int lock_after_fork(int fd, int command, short type, off_t at, off_t size, short *type_found)
{
    int result = real_os()->lock(fd, command, type, at, size, type_found);
    if (is_opener && command == F_OFD_SETLK && type == F_WRLCK && result == 0 && atomic_load(&shared->ready) == 0) {
        atomic_store(&shared->ready, 1);
        for (int i = 0; i < 300 && atomic_load(&shared->ready) != 2; ++i) pause_us(1000);
    }
    return result;
}

static void *open_slowly(void *context)
{
    (void)context;
    is_opener = true;
    shared->map = open_in_child(0, 0);
    return NULL;
}

static void fork_while_opening(void *context)
{
    (void)context;
    pthread_t thread;
    wait_for(&shared->go, 1);
    odm__os.lock = lock_after_fork;
    must(pthread_create(&thread, NULL, open_slowly, NULL) == 0);
    wait_for(&shared->ready, 1);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) { // Has nothing to do with the map, and lives on.
        wait_for(&shared->stop, 1);
        _exit(0);
    }
    atomic_store(&shared->ready, 2);
    pthread_join(thread, NULL);
    die_in_a_put(shared->map);
}

/* The same for a child that was forked while another thread was just opening the map. */
Test(processes, do_not_keep_locks_of_a_thread_that_was_opening)
{
    use_shared(temp_map_path());
    pid_t child = start_child(fork_while_opening, NULL);
    odm_map *map = open_map(shared->path, .stripes = 2, .wait_ms = 5000);
    shared->key = 17;
    atomic_store(&shared->go, 1);
    expect_killed(child);
    odm_status status = odm_put(map, &shared->key, sizeof shared->key, "x", 1);
    atomic_store(&shared->stop, 1);
    expect_status(status, ODM_OK);
    odm_close(map);
}

static void close_and_go(void *context)
{
    (void)context;
    must(odm_close(inherited) == ODM_OK);
}

static void exit_at_once(void *context)
{
    (void)context;
}

/* What a child closes, or leaves open when it ends, is its own affair. */
Test(processes, close_a_handle_in_the_child_only)
{
    inherited = open_map(temp_map_path());
    put_number(inherited, 1, 1);
    for (int i = 0; i < 10; ++i) {
        expect_child_succeeds(start_child(i % 2 == 0 ? close_and_go : exit_at_once, NULL));
        put_number(inherited, 2, (uint64_t)i);
        must_have_number(inherited, 1, 1);
    }
    // It is still known to be attached: nobody else may rebuild or take its locks.
    cr_assert(odm__lock_is_mine(&inherited->store->client, &inherited->store->client.file->stripes[0]) == false);
    int fd = open(path_of(inherited->store->path, "lock"), O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert(odm__lock_anyone_attached(fd));
    close(fd);
    odm_close(inherited);
}

/* ---- spares that go ------------------------------------------------------------------------------------------------------ */

static void put_oversized(void *context)
{
    (void)context;
    static unsigned char value[100000];
    wait_for(&shared->go, 1);
    odm_map *map = open_in_child(0, 0);
    must_be_ok(map, odm_put(map, &shared->key, sizeof shared->key, value, sizeof value));
    odm_close(map);
    atomic_store(&shared->ready, 1);
}

static char segment_name[SEGMENT_NAME_SIZE];

/* Before the first open of a segment, lets another process do what it is there for. */
static int open_too_late(int directory, const char *name, int flags, mode_t mode)
{
    if (strcmp(name, segment_name) == 0 && atomic_load(&shared->go) == 0) {
        atomic_store(&shared->go, 1);
        wait_for(&shared->ready, 1);
    }
    return real_os()->open(directory, name, flags, mode);
}

/* A bug of reserving: between the look at which segment comes next and the mapping of it, while no lock is held, a writer of
 * a big record may replace that segment by one with more room; the put then failed, saying that a log file is missing. */
Test(processes, put_although_the_spare_is_replaced)
{
    use_shared(temp_map_path());
    pid_t child = start_child(put_oversized, NULL);
    odm_map *map = open_map(shared->path, .stripes = 2);
    shared->key = key_in_stripe(map, 0);
    uint32_t key = key_in_stripe(map, 1);
    put_number(map, key, 1);
    const struct lock_file *lock = map->store->client.file;
    uint64_t first = UINT64_MAX;
    for (int i = 0; i < SPARES_MAX; ++i) {
        uint64_t spare = atomic_load(&lock->spare[i]);
        if (spare_number(spare) > address_number(atomic_load(&lock->tail)) && spare < first) first = spare;
    }
    odm__segment_name(spare_number(first), segment_name);
    odm__os.open = open_too_late;
    unsigned char value[1000] = {0};
    for (int i = 0; atomic_load(&shared->ready) == 0; ++i) {
        ok(odm_put(map, &key, sizeof key, value, sizeof value));
        cr_assert_lt(i, 1000);
    }
    odm__os.open = real_os()->open;
    expect_child_succeeds(child);
    ok(odm_get(map, &shared->key, sizeof shared->key, NULL, NULL));
    odm_close(map);
}

/* Updates a key until the segment that the log ended in has been retired. */
static void put_until_it_is_gone(void *context)
{
    const char *segment_path = context;
    unsigned char value[1000] = {0};
    wait_for(&shared->go, 1);
    odm_map *map = open_in_child(0, 0);
    for (int i = 0; file_exists(segment_path); ++i) {
        must_be_ok(map, odm_put(map, &shared->key, sizeof shared->key, value, sizeof value));
        must(i < 5000);
    }
    odm_close(map);
    atomic_store(&shared->ready, 1);
}

/* A bug of reserving: between the look at where the log ends and the mapping of that segment, while no lock is held, others may
 * write so much that compaction retires the segment; the put, or an odm_compact, then failed, saying that a log file is missing.
 * Found by random kills and by recorded histories. */
Test(processes, put_although_the_log_has_left_its_segment)
{
    use_shared(temp_map_path());
    odm_map *map = open_map(shared->path, .stripes = 2);
    shared->key = key_in_stripe(map, 0);
    uint32_t key = key_in_stripe(map, 1);
    put_number(map, shared->key, 1);
    odm__segment_name(address_number(statistics_of(map).tail), segment_name);
    odm_close(map);

    char inner[40];
    snprintf(inner, sizeof inner, "log/%s", segment_name);
    pid_t child = start_child(put_until_it_is_gone, (void *)(uintptr_t)path_of(shared->path, inner));
    map = open_map(shared->path);
    odm__os.open = open_too_late;
    put_number(map, key, 2);
    odm__os.open = real_os()->open;
    cr_assert_eq(atomic_load(&shared->ready), 1);
    expect_child_succeeds(child);
    must_have_number(map, key, 2);
    odm_close(map);
}

/* ---- other worlds --------------------------------------------------------------------------------------------------------- */

enum { RAISES = 2000 };

static void raise_in_namespace(void *context)
{
    (void)context;
    if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) _exit(77);
    pid_t child = fork();
    if (child < 0) _exit(77);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        must(getpid() == 1);
        odm_map *map = open_in_child(0, 0);
        atomic_store(&shared->ready, 1);
        wait_for(&shared->go, 1);
        count_up(map, 5, RAISES);
        odm_close(map);
        die_in_a_put(open_in_child(0, 0));
    }
    int status;
    must(waitpid(child, &status, 0) == child);
    must(WIFEXITED(status) && WEXITSTATUS(status) == DEAD);
}

/* A process in another pid namespace is a client like any other, alive and dead. */
Test(processes, meet_across_pid_namespaces)
{
    use_shared(temp_map_path());
    pid_t child = start_child(raise_in_namespace, NULL);
    odm_map *map = open_map(shared->path, .stripes = 1);
    while (atomic_load(&shared->ready) == 0) {
        int status;
        if (waitpid(child, &status, WNOHANG) == child) {
            cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 77);
            cr_skip("no pid namespaces here");
        }
        pause_us(1000);
    }
    atomic_store(&shared->go, 1);
    count_up(map, 5, RAISES);
    expect_child_succeeds(child);
    put_number(map, 9, 9);
    must_have_number(map, 5, 2 * RAISES);
    odm_close(map);
}

/* The functions of one copy of the library. */
struct library {
    odm_status (*open)(const char *path, const odm_options *options, odm_map **map, odm_error *error);
    odm_status (*close)(odm_map *map);
    odm_status (*entry_get)(odm_map *map, const void *key, size_t key_size, const void **value, size_t *value_size,
                            uint64_t *version);
    odm_status (*entry_put)(odm_map *map, const void *key, size_t key_size, const void *value, size_t value_size,
                            uint64_t version);
    odm_map *map;
    int raised;
};

static bool load_library(struct library *library, const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return false;
    }
    *(void **)&library->open = dlsym(handle, "odm_open");
    *(void **)&library->close = dlsym(handle, "odm_close");
    *(void **)&library->entry_get = dlsym(handle, "odm_entry_get");
    *(void **)&library->entry_put = dlsym(handle, "odm_entry_put");
    return library->open != NULL && library->close != NULL && library->entry_get != NULL && library->entry_put != NULL;
}

static void raise_by_copy(void *context, unsigned number)
{
    struct library *library = (struct library *)context + number;
    while (library->raised < RAISES) {
        const void *value;
        size_t size;
        uint64_t version, sum = 0;
        must(library->entry_get(library->map, "n", 1, &value, &size, &version) >= 0);
        if (version != 0) memcpy(&sum, value, sizeof sum);
        ++sum;
        odm_status status = library->entry_put(library->map, "n", 1, &sum, sizeof sum, version);
        must(status >= 0);
        library->raised += status == ODM_OK;
    }
}

/* Two copies of the library in one process - an application's and a plugin's, say - are two clients.
 * Method: the shared library and a copy of its file are loaded; a thread by each raises one counter; each may close first. */
Test(processes, hold_two_copies_of_the_library)
{
    char path[4096];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 64);
    cr_assert_gt(size, 0);
    path[size] = '\0';
    strcpy(strrchr(path, '/'), "/../core/libopendiskmap.so");
    if (!file_exists(path)) cr_skip("the shared library was not built");
    const char *copy = path_of(temp_directory(), "copy.so");
    size_t bytes = (size_t)file_size(path);
    void *text = malloc(bytes);
    read_file_at(path, 0, text, bytes);
    make_file(copy, text, bytes);
    free(text);

    struct library libraries[2] = {{.raised = 0}, {.raised = 0}};
    cr_assert(load_library(&libraries[0], path));
    cr_assert(load_library(&libraries[1], copy));
    cr_assert_neq((void *)libraries[0].open, (void *)libraries[1].open);
    const char *map_path = temp_map_path();
    for (int i = 0; i < 2; ++i) ok(libraries[i].open(map_path, NULL, &libraries[i].map, NULL));
    run_threads(2, raise_by_copy, libraries);
    ok(libraries[0].close(libraries[0].map));
    const void *value;
    size_t value_size;
    uint64_t version, sum;
    ok(libraries[1].entry_get(libraries[1].map, "n", 1, &value, &value_size, &version));
    memcpy(&sum, value, sizeof sum);
    cr_assert_eq(sum, 2 * RAISES);
    ok(libraries[1].entry_put(libraries[1].map, "n", 1, &sum, sizeof sum, version));
    ok(libraries[1].close(libraries[1].map));
}
