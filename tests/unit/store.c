/* One map as processes have it open: store.h, and who may trust whose files: recover.h. */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "map.h"
#include "support.h"

TestSuite(store, .timeout = 60, .fini = remove_temp_directories);

/* ---- one process --------------------------------------------------------------------------------------------------- */

/* The writable handles of a process share one store, found by what `meta` is and not by its path; a read-only one has its
 * own. */
Test(store, two_opens_share)
{
    const char *directory = temp_directory(), *path = path_of(directory, "map");
    odm_map *a = open_map(path), *b = open_map(path);
    cr_assert_eq(a->store, b->store);
    cr_assert_eq(symlink("map", path_of(directory, "link")), 0);
    odm_map *c = open_map(path_of(directory, "link"));
    cr_assert_eq(a->store, c->store);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY), *other_reader = open_map(path, .flags = ODM_READ_ONLY);
    cr_assert_neq(reader->store, a->store);
    cr_assert_neq(reader->store, other_reader->store);
    odm_map *other = open_map(path_of(directory, "other"));
    cr_assert_neq(other->store, a->store);
    put(a, "a", "1");
    expect_value(c, "a", "1");
    expect_value(reader, "a", "1");
    expect_absent(other, "a");
    odm_close(a);
    put(b, "b", "2");
    odm_close(b);
    put(c, "c", "3");
    expect_value(reader, "c", "3");
    odm_close(c);
    expect_value(reader, "c", "3"); // After the last writer, too.
    odm_close(other);
    odm_close(other_reader);
    odm_close(reader);
}

/* The directory may be renamed while it is open; another map at the old path is another map. */
Test(store, a_renamed_map_is_still_the_same)
{
    const char *directory = temp_directory();
    odm_map *map = open_map(path_of(directory, "before"));
    put_numbers(map, 0, 100, 0);
    cr_assert_eq(rename(path_of(directory, "before"), path_of(directory, "after")), 0);
    put_numbers(map, 100, 400, 0);
    odm_map *again = open_map(path_of(directory, "after")), *fresh = open_map(path_of(directory, "before"));
    cr_assert_eq(again->store, map->store);
    expect_numbers(again, 0, 400, 0);
    cr_assert_eq(odm_count(fresh), 0);
    odm_close(fresh);
    odm_close(again);
    odm_close(map);
}

Test(store, nothing_stays_open_after_close)
{
    const char *path = temp_map_path();
    odm_close(open_map(path));
    size_t descriptors = descriptor_count();
    for (unsigned i = 0; i < 20; i++) {
        odm_map *map = open_map(path), *reader = open_map(path, .flags = ODM_READ_ONLY), *dup;
        put_numbers(map, 20 * i, 20 * i + 20, 0);
        ok(odm_dup(map, &dup, NULL));
        expect_numbers(dup, 0, 20, 0);
        ok(odm_close(dup));
        odm_iter *iter;
        ok(odm_iter_open(reader, &iter));
        ok(odm_iter_next(iter, NULL, NULL, NULL, NULL));
        ok(odm_sync(map, NULL));
        odm_close(reader);
        ok(odm_iter_close(iter));
        odm_close(map);
        cr_assert_eq(descriptor_count(), descriptors);
    }
}

static void open_and_write(void *context, unsigned number)
{
    const char *path = context;
    for (unsigned i = 0; i < 20; i++) {
        odm_map *map;
        odm_options options = {.struct_size = sizeof options, .flags = (number + i) % 3 == 0 ? ODM_READ_ONLY : 0};
        odm_status status = odm_open(path, &options, &map, NULL);
        if (status == ODM_NOT_FOUND && options.flags != 0) continue;
        cr_assert_eq(status, ODM_OK, "%s", odm_status_name(status));
        if (options.flags == 0) put_numbers(map, number * 1000 + i, number * 1000 + i + 1, 0);
        odm_close(map);
    }
}

/* Many threads may make, open and close one map at once. */
Test(store, many_threads_open_at_once)
{
    const char *path = temp_map_path();
    run_threads(6, open_and_write, (void *)(uintptr_t)path);
    odm_map *map = open_map(path);
    for (unsigned number = 0; number < 6; number++) {
        for (unsigned i = 0; i < 20; i++) {
            if ((number + i) % 3 != 0) expect_numbers(map, number * 1000 + i, number * 1000 + i + 1, 0);
        }
    }
    cr_assert_eq(odm_count(map), 6 * 20 - 40);
    odm_close(map);
}

/* ---- many processes ------------------------------------------------------------------------------------------------ */

struct opener {
    const char *path;
    unsigned number;
    _Atomic int *go;
};

static void open_in_child(void *context)
{
    struct opener *opener = context;
    wait_for(opener->go, 1);
    for (unsigned i = 0; i < 10; i++) {
        odm_map *map;
        odm_error error = {.struct_size = sizeof error};
        odm_status status = odm_open(opener->path, NULL, &map, &error);
        if (status != ODM_OK) fprintf(stderr, "open: %s: %s\n", odm_status_name(status), error.message);
        must(status == ODM_OK);
        char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
        unsigned number = opener->number * 1000 + i;
        must(odm_put(map, key, number_key(number, key), value, number_value(number, 0, value)) == ODM_OK);
        odm_close(map);
    }
}

/* Many processes may make and open one map at once; one of them makes it, and no write of any is lost. */
Test(store, many_processes_open_at_once)
{
    enum { CHILDREN = 8 };
    struct opener openers[CHILDREN];
    pid_t children[CHILDREN];
    const char *path = temp_map_path();
    _Atomic int *go = shared_memory(sizeof *go);
    for (unsigned i = 0; i < CHILDREN; i++) {
        openers[i] = (struct opener){path, i, go};
        children[i] = start_child(open_in_child, &openers[i]);
    }
    atomic_store(go, 1);
    for (unsigned i = 0; i < CHILDREN; i++) expect_child_succeeds(children[i]);
    odm_map *map = open_map(path);
    for (unsigned i = 0; i < CHILDREN; i++) expect_numbers(map, i * 1000, i * 1000 + 10, 0);
    cr_assert_eq(odm_count(map), CHILDREN * 10);
    cr_assert_eq(file_count(path), 4); // meta, lock, index, log: no temporary file stays.
    odm_close(map);
}

static void create_in_child(void *context)
{
    struct opener *opener = context;
    wait_for(opener->go, 1);
    odm_map *map;
    odm_options options = {.struct_size = sizeof options, .flags = ODM_MUST_CREATE};
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_open(opener->path, &options, &map, &error);
    if (status < 0) fprintf(stderr, "open: %s: %s\n", odm_status_name(status), error.message);
    must(status == ODM_OK || status == ODM_EXISTS);
    if (status == ODM_EXISTS) _exit(7);
    odm_close(map);
}

Test(store, exactly_one_of_many_creates)
{
    for (unsigned round = 0; round < 10; round++) {
        enum { CHILDREN = 4 };
        struct opener openers[CHILDREN];
        pid_t children[CHILDREN];
        const char *path = temp_map_path();
        _Atomic int *go = shared_memory(sizeof *go);
        for (unsigned i = 0; i < CHILDREN; i++) {
            openers[i] = (struct opener){path, i, go};
            children[i] = start_child(create_in_child, &openers[i]);
        }
        atomic_store(go, 1);
        unsigned created = 0;
        for (unsigned i = 0; i < CHILDREN; i++) {
            int status;
            cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
            cr_assert(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7));
            created += WEXITSTATUS(status) == 0;
        }
        cr_assert_eq(created, 1);
    }
}

static const char *meta_away, *meta_back;

/* Another opener makes the map just before this one looks at what is in the directory. */
static int list_after_it_was_made(int directory, void (*found)(void *context, const char *name), void *context)
{
    if (meta_away != NULL) cr_assert_eq(rename(meta_away, meta_back), 0);
    meta_away = NULL;
    return real_os()->list(directory, found, context);
}

/* Who finds no `meta`, but then the files of a map that another is just building, opens that one.
 * Method: make it appear in between. */
Test(store, a_map_that_is_made_meanwhile_is_opened)
{
    static const char *const names[] = {"index.new", "lock.new", "meta.0123456789abcdef"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *directory = temp_directory(), *path = path_of(directory, "map");
        odm_map *map = open_map(path);
        put(map, "a", "1");
        odm_close(map);
        make_file(path_of(path, names[i]), "x", 1);
        meta_back = path_of(path, "meta");
        meta_away = path_of(directory, "away");
        cr_assert_eq(rename(meta_back, meta_away), 0);
        odm__os.list = list_after_it_was_made;
        map = open_map(path);
        expect_value(map, "a", "1");
        odm_close(map);
        odm__os = *real_os();
    }
}

/* ---- fork ---------------------------------------------------------------------------------------------------------- */

struct forked {
    odm_map *map;
    odm_map *reader;
    const void *held;
    size_t held_size;
    _Atomic int *state;
};

static void go_on_in_child(void *context)
{
    struct forked *forked = context;
    char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
    must(memcmp(forked->held, "value 3 of 0", forked->held_size) == 0);
    for (unsigned i = 0; i < 300; i++) {
        const void *found;
        size_t size;
        must(odm_get(forked->map, key, number_key(i, key), &found, &size) == ODM_OK);
        must(odm_get(forked->reader, key, number_key(i, key), &found, &size) == ODM_OK);
    }
    must(odm_count(forked->map) >= 300);
    for (unsigned i = 1000; i < 1300; i++) {
        must(odm_put(forked->map, key, number_key(i, key), value, number_value(i, 1, value)) == ODM_OK);
    }
    atomic_store(forked->state, 1);
    must(odm_sync(forked->map, NULL) == ODM_OK);
    wait_for(forked->state, 2);
    must(odm_get(forked->map, "of the parent", 13, NULL, NULL) == ODM_OK);
    must(odm_get(forked->reader, "of the parent", 13, NULL, NULL) == ODM_OK);
    must(memcmp(forked->held, "value 3 of 0", forked->held_size) == 0);
    odm_close(forked->reader);
    odm_close(forked->map);
}

/* Parent and child both go on with the handles they have. */
Test(store, parent_and_child_both_go_on)
{
    const char *path = temp_map_path();
    struct forked forked = {.map = open_map(path), .state = shared_memory(sizeof(int))};
    put_numbers(forked.map, 0, 300, 0);
    forked.reader = open_map(path, .flags = ODM_READ_ONLY);
    ok(odm_get(forked.map, "key 3", 5, &forked.held, &forked.held_size));
    pid_t child = start_child(go_on_in_child, &forked);
    for (unsigned i = 0; atomic_load(forked.state) == 0; i++) {
        put_numbers(forked.map, 2000 + i % 300, 2001 + i % 300, 1);
        cr_assert_lt(i, 10 * 1000 * 1000);
    }
    put_numbers(forked.map, 2000, 2300, 1);
    put(forked.map, "of the parent", "1");
    atomic_store(forked.state, 2);
    expect_child_succeeds(child);
    expect_numbers(forked.map, 0, 300, 0);
    expect_numbers(forked.map, 1000, 1300, 1);
    expect_numbers(forked.map, 2000, 2300, 1);
    cr_assert_eq(odm_count(forked.map), 901);
    ok(odm_sync(forked.map, NULL));
    odm_close(forked.reader);
    odm_close(forked.map);
}

static void look_in_child(void *context)
{
    odm_map *map = context;
    odm_statistics statistics = {.struct_size = sizeof statistics};
    const void *schema;
    size_t size;
    // Before its first write the child is not attached: all that only looks must do without.
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_stat(map, &statistics);
    odm_last_error(map, &error);
    if (status != ODM_OK) fprintf(stderr, "odm_stat: %s: %s\n", odm_status_name(status), error.message);
    must(status == ODM_OK);
    must(statistics.count == 100 && statistics.watermark != 0 && statistics.tail >= statistics.watermark);
    must(odm_count(map) == 100);
    must(odm_schema(map, &schema, &size) == ODM_OK);
    must(odm_refresh(map) == ODM_OK);
    odm_map *dup;
    must(odm_dup(map, &dup, NULL) == ODM_OK);
    must(odm_stat(dup, &statistics) == ODM_OK);
    odm_iter *iter;
    must(odm_iter_open(dup, &iter) == ODM_OK);
    must(odm_iter_next(iter, NULL, NULL, NULL, NULL) == ODM_OK);
    odm_iter_close(iter);
    odm_close(dup);
    must(odm_close(map) == ODM_OK);
}

Test(store, a_child_may_look_before_it_writes)
{
    odm_map *map = open_map(temp_map_path());
    put_numbers(map, 0, 100, 0);
    expect_child_succeeds(start_child(look_in_child, map));
    put_numbers(map, 0, 100, 1);
    odm_close(map);
}

static void fork_again(void *context)
{
    odm_map *map = context;
    must(odm_put(map, "child", 5, "1", 1) == ODM_OK);
    pid_t grandchild = fork();
    must(grandchild >= 0);
    if (grandchild == 0) {
        must(odm_put(map, "grandchild", 10, "1", 1) == ODM_OK);
        must(odm_close(map) == ODM_OK);
        _exit(0);
    }
    int status;
    must(waitpid(grandchild, &status, 0) == grandchild && status == 0);
    must(odm_get(map, "grandchild", 10, NULL, NULL) == ODM_OK);
    must(odm_close(map) == ODM_OK);
}

Test(store, a_child_may_have_children)
{
    odm_map *map = open_map(temp_map_path());
    expect_child_succeeds(start_child(fork_again, map));
    expect_value(map, "child", "1");
    expect_value(map, "grandchild", "1");
    odm_close(map);
}

/* The child does not keep the parent's locks alive: the parent's death is seen. */
static void hold_and_fork(void *context)
{
    struct forked *forked = context;
    must(odm_put(forked->map, "a", 1, "1", 1) == ODM_OK); // It has a number of its own by now.
    pid_t grandchild = fork();
    must(grandchild >= 0);
    if (grandchild == 0) {
        atomic_store(forked->state, 1);
        wait_for(forked->state, 3); // Lives on, with all it inherited.
        atomic_store(forked->state, 4);
        _exit(0);
    }
    bool mend;
    must(odm__lock_take(&forked->map->store->client, &forked->map->store->client.file->stripes[0], 1000, "it", &mend,
                        NULL) == ODM_OK);
    wait_for(forked->state, 1);
    atomic_store(forked->state, 2);
    for (;;) pause();
}

Test(store, a_child_does_not_keep_its_dead_parent_alive)
{
    const char *path = temp_map_path();
    struct forked forked = {.map = open_map(path, .stripes = 1, .wait_ms = 2000), .state = shared_memory(sizeof(int))};
    pid_t child = start_child(hold_and_fork, &forked);
    wait_for(forked.state, 2);
    expect_status(odm_put(forked.map, "b", 1, "1", 1), ODM_E_BUSY);
    kill_child(child);
    put(forked.map, "b", "2");
    atomic_store(forked.state, 3);
    wait_for(forked.state, 4);
    odm_close(forked.map);
}

/* Nobody holds a file lock on the map, though a child of this process lives that was forked when one was held. */
static void expect_unlocked(const char *path)
{
    enum file_lock_state state;
    int meta_fd = open(path_of(path, "meta"), O_RDWR | O_CLOEXEC),
        lock_fd = open(path_of(path, "lock"), O_RDWR | O_CLOEXEC);
    ok(odm__file_lock_state(meta_fd, &state, NULL));
    cr_assert_eq(state, FILE_UNLOCKED);
    cr_assert_not(odm__lock_anyone_attached(lock_fd));
    close(meta_fd);
    close(lock_fd);
}

static void live_on(void *context)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    atomic_store((_Atomic int *)context, 1);
    for (;;) pause();
}

/* A child that does nothing, and has let go of what its fork handler lets go of. */
static pid_t start_idle_child(void)
{
    _Atomic int *state = shared_memory(sizeof *state);
    pid_t child = start_child(live_on, (void *)state);
    wait_for(state, 1);
    return child;
}

static void *index_base;
static pid_t living;

static int fork_and_unmap(void *base, size_t size)
{
    if (base == index_base) living = start_idle_child();
    return real_os()->unmap(base, size);
}

/* A child does not keep the map locked that was forked while another thread was just closing it.
 * Method: fork when the store is known to nobody any more, but its mappings are there. */
Test(store, a_child_of_a_close_does_not_keep_the_map_locked)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 20, 0);
    ok(odm_compact(map, NULL, NULL)); // So that it is stamped, under the exclusive lock.
    index_base = map->store->index->base;
    odm__os.unmap = fork_and_unmap;
    ok(odm_close(map));
    odm__os = *real_os();
    cr_assert_neq(living, 0);
    expect_unlocked(path);
    map = open_map(path, .wait_ms = UINT32_MAX);
    expect_numbers(map, 0, 20, 0);
    ok(odm_close(map));
    kill_child(living);
}

/* ---- a fork while somebody waits for a file lock ---------------------------------------------------------------- */

static _Atomic int looks;  // calls for locks
static _Atomic int claims; // of attach numbers

static int lock_watched(int fd, int command, short type, off_t at, off_t size, short *type_found)
{
    atomic_fetch_add(&looks, 1);
    int result = real_os()->lock(fd, command, type, at, size, type_found);
    if (result == 0 && command == F_OFD_SETLK && type == F_WRLCK && at != 0) atomic_fetch_add(&claims, 1);
    return result;
}

/* From here on the locks of this process are watched. */
static void watch_locks(void)
{
    atomic_store(&looks, 0);
    atomic_store(&claims, 0);
    odm__os.lock = lock_watched;
}

/* Until somebody has found `meta` locked, and asks or sleeps for it. */
static void wait_for_looks(int count)
{
    while (atomic_load(&looks) < count) usleep(1000);
}

/* Holds the file lock on `meta` as another opener would. */
static int hold_meta(const char *path)
{
    int fd = open(path_of(path, "meta"), O_RDWR | O_CLOEXEC);
    bool taken;
    ok(odm__file_lock_exclusive(fd, &taken, NULL));
    cr_assert(taken);
    return fd;
}

struct late_open {
    const char *path;
    uint32_t flags;
    odm_map *map;
};

static void *open_late(void *context)
{
    struct late_open *late = context;
    late->map = open_map(late->path, .flags = late->flags);
    return NULL;
}

/* A fork does not wait for a thread that waits for a file lock: whoever has it may be waiting for the fork. And the
 * child does not keep what the thread gets afterwards. */
Test(store, a_fork_does_not_wait_for_who_waits_for_a_file_lock, .timeout = 20)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put_numbers(map, 0, 20, 0);
    ok(odm_close(map));
    for (int i = 0; i < 2; i++) {
        struct late_open late = {.path = path, .flags = i == 0 ? 0 : ODM_READ_ONLY};
        int meta_fd = hold_meta(path);
        watch_locks();
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, open_late, &late), 0);
        wait_for_looks(3);
        pid_t child = start_idle_child();
        odm__file_unlock(meta_fd);
        pthread_join(thread, NULL);
        odm__os = *real_os();
        expect_numbers(late.map, 0, 20, 0);
        ok(odm_close(late.map));
        expect_unlocked(path);
        close(meta_fd);
        kill_child(child);
    }
}

struct attaching {
    odm_map *maps[3];
    _Atomic int *state;
};

static void *put_late(void *context)
{
    must(odm_put(context, "child", 5, "1", 1) == ODM_OK);
    return NULL;
}

static void attach_and_fork(void *context)
{
    struct attaching *attaching = context;
    atomic_store(attaching->state, 1);
    wait_for(attaching->state, 2);
    watch_locks();
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) must(pthread_create(&threads[i], NULL, put_late, attaching->maps[i]) == 0);
    wait_for_looks(8);
    pid_t grandchild = fork();
    must(grandchild >= 0);
    if (grandchild == 0) {
        must(attaching->maps[2]->store->meta.fd < 0);
        must(odm_put(attaching->maps[2], "grandchild", 10, "1", 1) == ODM_OK);
        wait_for(attaching->state, 4);
        _exit(0);
    }
    atomic_store(attaching->state, 3);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    must(atomic_load(&claims) == 1); // Who had to wait for the other has found it done.
    must(odm_get(attaching->maps[0], "child", 5, NULL, NULL) == ODM_OK);
    atomic_store(attaching->state, 4);
    int status;
    must(waitpid(grandchild, &status, 0) == grandchild && status == 0);
}

/* The same where threads of a child wait to attach anew: a fork passes, and has no part in what they get. */
Test(store, a_fork_does_not_wait_for_who_attaches_anew, .timeout = 20)
{
    const char *path = temp_map_path();
    struct attaching attaching = {.maps = {open_map(path)}, .state = shared_memory(sizeof(int))};
    for (int i = 1; i < 3; i++) ok(odm_dup(attaching.maps[0], &attaching.maps[i], NULL));
    put_numbers(attaching.maps[0], 0, 20, 0);
    pid_t child = start_child(attach_and_fork, &attaching);
    wait_for(attaching.state, 1);
    for (int i = 0; i < 3; i++) ok(odm_close(attaching.maps[i]));
    int meta_fd = hold_meta(path);
    atomic_store(attaching.state, 2);
    wait_for(attaching.state, 3);
    close(meta_fd);
    expect_child_succeeds(child);
    odm_map *map = open_map(path);
    expect_value(map, "child", "1");
    expect_value(map, "grandchild", "1");
    expect_numbers(map, 0, 20, 0);
    ok(odm_close(map));
}

/* ---- whose files are trusted --------------------------------------------------------------------------------------- */

static void write_and_be_killed(void *context)
{
    struct forked *forked = context;
    put_numbers(forked->map, 0, 500, 0);
    atomic_store(forked->state, 1);
    for (;;) pause();
}

/* A killed process loses nothing, and the next open has nothing to rebuild. */
Test(store, a_killed_process_loses_nothing)
{
    const char *path = temp_map_path();
    struct forked forked = {.map = open_map(path), .state = shared_memory(sizeof(int))};
    pid_t child = start_child(write_and_be_killed, &forked);
    wait_for(forked.state, 1);
    odm_close(forked.map);
    kill_child(child);
    odm_map *map = open_map(path);
    expect_numbers(map, 0, 500, 0);
    cr_assert_eq(odm_count(map), 500);
    odm_close(map);
}

static int boot_other(uint64_t id[2])
{
    id[0] = 1;
    id[1] = 2;
    return 0;
}

static int boot_unknown(uint64_t id[2])
{
    (void)id;
    errno = EACCES;
    return -1;
}

static uint64_t mount_id, birth_ns;

static int identify_changed(int fd, struct file_identity *identity)
{
    int result = real_os()->identify(fd, identity);
    identity->mount_id = mount_id;
    if (birth_ns != 0) identity->birth_ns = birth_ns;
    return result;
}

/* Files of this boot and mount are trusted as they are; of another mount they must prove themselves; of another boot, or where
 * that can not be told, the log is read as after power loss. Nothing that was written is missing in any of the three.
 * Method: pretend other boots and mounts. */
Test(store, what_was_written_is_there_in_another_boot_or_mount)
{
    static const struct {
        int (*boot_id)(uint64_t id[2]);
        uint64_t mount_id;
        uint32_t kind;
    } cases[] = {{NULL, 5, ODM_RECOVERY_NONE},
                 {NULL, 6, ODM_RECOVERY_KEPT},
                 {NULL, 0, ODM_RECOVERY_KEPT},
                 {boot_other, 5, ODM_RECOVERY_CUT},
                 {boot_unknown, 5, ODM_RECOVERY_CUT}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *path = temp_map_path();
        mount_id = 5;
        birth_ns = 1234;
        odm__os.identify = identify_changed;
        odm_map *map = open_map(path);
        put_numbers(map, 0, 300, 0);
        ok(odm_sync(map, NULL));
        put_numbers(map, 0, 300, 1);
        remove_numbers(map, 250, 300);
        odm_close(map);

        mount_id = cases[i].mount_id;
        if (cases[i].boot_id != NULL) odm__os.boot_id = cases[i].boot_id;
        map = open_map(path);
        cr_assert_eq(statistics_of(map).recovery_kind, cases[i].kind, "case %zu: %u", i,
                     statistics_of(map).recovery_kind);
        expect_numbers(map, 0, 250, 1);
        expect_no_numbers(map, 250, 300);
        cr_assert_eq(odm_count(map), 250);
        odm_statistics statistics = statistics_of(map);
        cr_assert_eq(statistics.recovery_bytes_cut, 0);
        cr_assert_eq(statistics.recovery_from, 0);
        if (cases[i].kind != ODM_RECOVERY_NONE) cr_assert_eq(statistics.recovery_records, 650);
        put_numbers(map, 0, 300, 2);
        expect_numbers(map, 0, 300, 2);
        odm_close(map);
        odm__os = *real_os();
    }
}

static uint64_t put_back;

static int identify_put_back(int fd, struct file_identity *identity)
{
    int result = real_os()->identify(fd, identity);
    identity->mount_id = 5;
    if (identity->birth_ns == 0) identity->birth_ns = 1234;
    if (identity->inode == put_back) ++identity->birth_ns;
    return result;
}

/* A file that was put back from a copy may get the number its original had. Only its birth tells: then the index is not believed.
 * Method: pretend another birth of each file in turn. */
Test(store, a_file_that_was_put_back_under_the_same_number_is_another_file)
{
    static const char *const names[] = {"index", "lock", "."};
    const char *path = temp_map_path();
    odm__os.identify = identify_put_back;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        put_back = 0;
        odm_map *map = open_map(path);
        put_numbers(map, 0, 200, 0);
        odm_close(map);
        map = open_map(path);
        cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
        odm_close(map);

        struct stat status;
        cr_assert_eq(stat(path_of(path, names[i]), &status), 0);
        put_back = (uint64_t)status.st_ino;
        map = open_map(path);
        cr_assert_neq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE, "%s", names[i]);
        expect_numbers(map, 0, 200, 0);
        odm_close(map);
        remove_tree(path);
    }
}

/* A copy opens as after power loss: its files are others. */
Test(store, a_copy_of_a_map_is_another_map_with_the_same_entries)
{
    const char *directory = temp_directory();
    odm_map *map = open_map(path_of(directory, "map"));
    put_numbers(map, 0, 200, 0);
    copy_tree(path_of(directory, "map"), path_of(directory, "copy"));
    odm_map *copy = open_map(path_of(directory, "copy"));
    cr_assert_neq(copy->store, map->store);
    cr_assert_eq(statistics_of(copy).recovery_kind, ODM_RECOVERY_CUT);
    expect_numbers(copy, 0, 200, 0);
    put_numbers(copy, 0, 200, 1);
    expect_numbers(map, 0, 200, 0);
    odm_close(copy);
    odm_close(map);
}

/* After power loss the log ends at its first record that is not whole; what lay behind never comes back, and it is said.
 * Method: damage a record above the watermark in the files of another boot. */
Test(store, a_torn_log_is_cut_and_what_was_cut_never_comes_back)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 1);
    put_numbers(map, 0, 100, 0);
    ok(odm_sync(map, NULL));
    put_numbers(map, 100, 300, 0);
    uint64_t version;
    char key[NUMBER_TEXT_SIZE], name[SEGMENT_NAME_SIZE], file[SEGMENT_NAME_SIZE + 4];
    ok(odm_entry_get(map, key, number_key(150, key), NULL, NULL, &version));
    odm_close(map);
    odm__segment_name(address_number(version), name);
    snprintf(file, sizeof file, "log/%s", name);
    flip_bits_at(path_of(path, file), address_offset(version) + 24, 1);
    odm__os.boot_id = boot_other;
    for (int opened = 0; opened < 3; opened++) {
        map = open_map(path);
        odm_statistics statistics = statistics_of(map);
        cr_assert_eq(statistics.recovery_kind, opened < 2 ? ODM_RECOVERY_CUT : ODM_RECOVERY_KEPT);
        if (opened < 2) cr_assert_eq(statistics.recovery_from, version);
        if (opened < 2) cr_assert_gt(statistics.recovery_bytes_cut, 0);
        expect_numbers(map, 0, 150, 0);
        expect_no_numbers(map, 150, 300);
        cr_assert_eq(odm_count(map), 150);
        cr_assert_eq(statistics.watermark, statistics.tail);
        odm_close(map);
        if (opened == 1) cr_assert_eq(unlink(path_of(path, "index")), 0);
    }
    map = open_map(path);
    put_numbers(map, 150, 400, 1);
    expect_numbers(map, 150, 400, 1);
    odm_close(map);
}

/* Damage below the watermark is refused by name, and nothing is touched. */
Test(store, damage_below_the_watermark_is_refused_by_name)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 1);
    put_numbers(map, 0, 300, 0);
    ok(odm_sync(map, NULL));
    uint64_t version;
    char key[NUMBER_TEXT_SIZE], name[SEGMENT_NAME_SIZE], file[SEGMENT_NAME_SIZE + 4], offset[32];
    ok(odm_entry_get(map, key, number_key(150, key), NULL, NULL, &version));
    odm_close(map);
    odm__segment_name(address_number(version), name);
    snprintf(file, sizeof file, "log/%s", name);
    snprintf(offset, sizeof offset, "offset %u", (unsigned)address_offset(version));
    flip_bits_at(path_of(path, file), address_offset(version) + 24, 1);
    odm__os.boot_id = boot_other;
    uint64_t digest = tree_digest(path);
    odm_error error;
    expect_status(try_open(path, &error), ODM_E_CORRUPT);
    expect_message(error, file);
    expect_message(error, offset);
    expect_status(try_open(path, &error, .flags = ODM_READ_ONLY), ODM_E_CORRUPT);
    cr_assert_eq(tree_digest(path), digest);
}

/* ---- waiting for who opens ----------------------------------------------------------------------------------------- */

/* Who opens while another makes or rebuilds the map waits for it; with UINT32_MAX it is told instead. */
Test(store, an_open_that_must_not_wait_is_told)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path);
    put(map, "a", "1");
    odm_close(map);
    struct directory directory;
    struct meta meta;
    bool taken;
    ok(odm__directory_open(&directory, path, NULL));
    ok(odm__meta_open(&directory, true, &meta, NULL));
    ok(odm__file_lock_exclusive(meta.fd, &taken, NULL));
    cr_assert(taken);
    odm_error error;
    uint64_t digest = tree_digest(path);
    expect_status(try_open(path, &error, .wait_ms = UINT32_MAX), ODM_E_BUSY);
    expect_message(error, path);
    expect_status(try_open(path, &error, .flags = ODM_READ_ONLY, .wait_ms = UINT32_MAX), ODM_E_BUSY);
    expect_message(error, path);
    cr_assert_eq(tree_digest(path), digest);
    odm__file_unlock(meta.fd);
    odm_close(open_map(path, .flags = ODM_READ_ONLY, .wait_ms = UINT32_MAX));
    map = open_map(path, .wait_ms = UINT32_MAX);
    expect_value(map, "a", "1");
    odm_close(map);
    odm__meta_close(&meta);
    odm__directory_close(&directory);
}
