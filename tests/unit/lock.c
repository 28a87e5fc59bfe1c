/* Lock words that outlive their owners: lock.h. */
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "support.h"

TestSuite(lock, .timeout = 60, .fini = remove_temp_directories);

enum { WAIT_MS = 30 * 1000 };

/* A lock file of zeros, and this process's mapping of it. */
static const char *lock_path;
static struct lock_file *lock_file;

static int open_lock_file(void)
{
    int fd = open(lock_path, O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0);
    return fd;
}

static void make_lock_file(void)
{
    static const unsigned char zeros[sizeof(struct lock_file)];
    lock_path = path_of(temp_directory(), "lock");
    make_file(lock_path, zeros, sizeof zeros);
    int fd = open_lock_file();
    lock_file = mmap(NULL, sizeof *lock_file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(lock_file, MAP_FAILED);
    close(fd);
}

/* A client with a descriptor of its own: for the kernel another one, even in the same process. */
static struct lock_client new_client(void)
{
    struct lock_client client;
    ok(odm__lock_attach(&client, lock_file, open_lock_file(), NULL));
    return client;
}

static void take(const struct lock_client *client, struct lock_line *lock, bool mend_expected)
{
    bool mend;
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm__lock_take(client, lock, WAIT_MS, "it", &mend, &error);
    cr_assert_eq(status, ODM_OK, "%s", error.message);
    cr_assert_eq(mend, mend_expected);
    cr_assert(odm__lock_is_mine(client, lock));
}

static odm_status try_take(const struct lock_client *client, struct lock_line *lock)
{
    bool mend;
    return odm__lock_take(client, lock, UINT32_MAX, "it", &mend, NULL);
}

/* ---- mutual exclusion ---------------------------------------------------------------------------------------------- */

enum { TURNS = 2000, THREADS = 4 };

struct counting {
    struct lock_client clients[THREADS];
    uint64_t count; // no atomic: the lock guards it
};

static void count_up(void *context, unsigned number)
{
    struct counting *counting = context;
    for (int i = 0; i < TURNS; i++) {
        bool mend;
        if (odm__lock_take(&counting->clients[number], &lock_file->grow, WAIT_MS, "it", &mend, NULL) != ODM_OK) return;
        counting->count++;
        odm__lock_give(&counting->clients[number], &lock_file->grow);
    }
}

/* One owner at a time. Method: a plain counter under the lock; a lost update is a wrong sum, and a race to
 * ThreadSanitizer. Half of the threads share a client, as the handles of a process do. */
Test(lock, threads_exclude_each_other)
{
    make_lock_file();
    struct counting counting = {.count = 0};
    for (int i = 0; i < THREADS; i++) counting.clients[i] = i == 1 ? counting.clients[0] : new_client();
    run_threads(THREADS, count_up, &counting);
    cr_assert_eq(counting.count, (uint64_t)THREADS * TURNS);
    cr_assert_eq(try_take(&counting.clients[0], &lock_file->grow), ODM_OK);
}

struct in_child {
    struct lock_line *lock;
    struct shared {
        _Atomic int state;
        uint64_t count;
    } * shared;
};

static void count_up_in_child(void *context)
{
    struct in_child *in_child = context;
    struct lock_client client;
    must(odm__lock_attach(&client, lock_file, open_lock_file(), NULL) == ODM_OK);
    for (int i = 0; i < TURNS; i++) {
        bool mend;
        must(odm__lock_take(&client, in_child->lock, WAIT_MS, "it", &mend, NULL) == ODM_OK);
        must(!mend);
        in_child->shared->count++;
        odm__lock_give(&client, in_child->lock);
    }
}

Test(lock, processes_exclude_each_other)
{
    make_lock_file();
    struct in_child in_child = {&lock_file->append, shared_memory(sizeof(struct shared))};
    pid_t children[3];
    for (int i = 0; i < 3; i++) children[i] = start_child(count_up_in_child, &in_child);
    for (int i = 0; i < 3; i++) expect_child_succeeds(children[i]);
    cr_assert_eq(in_child.shared->count, 3 * TURNS);
}

Test(lock, locks_do_not_depend_on_each_other)
{
    make_lock_file();
    struct lock_client a = new_client(), b = new_client();
    take(&a, &lock_file->stripes[0], false);
    take(&b, &lock_file->stripes[1], false);
    take(&b, &lock_file->stripes[63], false);
    take(&a, &lock_file->sync, false);
    expect_status(try_take(&a, &lock_file->stripes[1]), ODM_E_BUSY);
    odm__lock_give(&b, &lock_file->stripes[1]);
    take(&a, &lock_file->stripes[1], false);
}

/* ---- the dead ------------------------------------------------------------------------------------------------------ */

static void take_and_wait(void *context)
{
    struct in_child *in_child = context;
    struct lock_client client;
    bool mend;
    must(odm__lock_attach(&client, lock_file, open_lock_file(), NULL) == ODM_OK);
    must(odm__lock_take(&client, in_child->lock, WAIT_MS, "it", &mend, NULL) == ODM_OK);
    atomic_store(&in_child->shared->state, 1);
    wait_for(&in_child->shared->state, 2);
    odm__lock_give(&client, in_child->lock);
}

static pid_t start_holder(struct in_child *in_child, struct lock_line *lock)
{
    *in_child = (struct in_child){lock, shared_memory(sizeof(struct shared))};
    pid_t holder = start_child(take_and_wait, in_child);
    wait_for(&in_child->shared->state, 1);
    return holder;
}

/* Who takes a lock from a process that was killed gets it within wait_ms of a second, and is told to mend. */
Test(lock, is_taken_over_from_a_killed_process)
{
    make_lock_file();
    struct lock_client client = new_client();
    struct in_child in_child;
    kill_child(start_holder(&in_child, &lock_file->stripes[3]));
    bool mend = false;
    ok(odm__lock_take(&client, &lock_file->stripes[3], 1000, "it", &mend, NULL));
    cr_assert(mend);
    cr_assert(odm__lock_is_mine(&client, &lock_file->stripes[3]));
}

Test(lock, is_taken_over_at_once_if_there_is_to_be_no_waiting)
{
    make_lock_file();
    struct lock_client client = new_client();
    struct in_child in_child;
    kill_child(start_holder(&in_child, &lock_file->append));
    bool mend = false;
    ok(odm__lock_take(&client, &lock_file->append, UINT32_MAX, "it", &mend, NULL));
    cr_assert(mend);
}

/* The same while somebody sleeps on the lock already when its owner is killed. */
static void take_in_thread(void *context, unsigned number)
{
    struct in_child *in_child = context;
    if (number == 0) {
        struct lock_client client;
        bool mend = false;
        ok(odm__lock_attach(&client, lock_file, open_lock_file(), NULL));
        ok(odm__lock_take(&client, in_child->lock, WAIT_MS, "it", &mend, NULL));
        cr_assert(mend);
        return;
    }
    while (atomic_load(&lock_file->lock_waits) == 0) usleep(1000);
    kill(in_child->shared->state, SIGKILL);
}

Test(lock, a_sleeper_takes_over_from_who_is_killed_meanwhile)
{
    make_lock_file();
    struct in_child in_child;
    pid_t holder = start_holder(&in_child, &lock_file->sync);
    atomic_store(&in_child.shared->state, holder);
    run_threads(2, take_in_thread, &in_child);
}

/* Nobody steals from the living, however long they sleep. Method: stop a holder, wait, let it go on: it still owns it. */
Test(lock, is_never_taken_from_a_stopped_process)
{
    make_lock_file();
    struct lock_client client = new_client();
    struct in_child in_child;
    pid_t holder = start_holder(&in_child, &lock_file->stripes[0]);
    stop_child(holder);
    uint64_t before = atomic_load(&lock_file->stripes[0].word);
    odm_error error = {.struct_size = sizeof error};
    bool mend = true;
    expect_status(odm__lock_take(&client, &lock_file->stripes[0], 200, "a stripe", &mend, &error), ODM_E_BUSY);
    expect_message(error, "a stripe");
    expect_message(error, "alive");
    cr_assert_not(mend);
    expect_status(try_take(&client, &lock_file->stripes[0]), ODM_E_BUSY);
    cr_assert_eq(atomic_load(&lock_file->stripes[0].word) | 1, before | 1, "the owner changed");
    cr_assert_eq(kill(holder, SIGCONT), 0);
    atomic_store(&in_child.shared->state, 2);
    expect_child_succeeds(holder);
    take(&client, &lock_file->stripes[0], false);
}

static unsigned questions;
static int64_t asked_about;

static int lock_counted(int fd, int command, short type, off_t at, off_t size, short *found)
{
    if (command == F_OFD_GETLK) {
        questions++;
        asked_about = at;
    }
    return real_os()->lock(fd, command, type, at, size, found);
}

/* A word of an older incarnation of its number is dead, although the number's byte is locked again.
 * Method: the same number twice; count the questions to the kernel, which would say "alive". */
Test(lock, an_older_incarnation_is_dead_without_asking)
{
    make_lock_file();
    struct lock_client other = new_client(), first = new_client();
    take(&first, &lock_file->append, false);
    close(first.fd);
    atomic_store(&lock_file->attach_hint, first.number - 1);
    struct lock_client second = new_client();
    cr_assert_eq(second.number, first.number);
    cr_assert_eq(second.incarnation, first.incarnation + 1);
    cr_assert_not(odm__lock_is_mine(&second, &lock_file->append));

    odm__os.lock = lock_counted;
    bool mend = false;
    ok(odm__lock_take(&other, &lock_file->append, UINT32_MAX, "it", &mend, NULL));
    cr_assert(mend);
    cr_assert_eq(questions, 0);
    odm__lock_mended(&lock_file->append);
    odm__lock_give(&other, &lock_file->append);

    // And whoever has the number now takes over its predecessor's locks like anybody else.
    take(&second, &lock_file->append, false);
    close(second.fd);
    atomic_store(&lock_file->attach_hint, first.number - 1);
    struct lock_client third = new_client();
    cr_assert_eq(third.number, first.number);
    take(&third, &lock_file->append, true);
}

/* The kernel does not show a descriptor its own locks: asked about its own number, a client would rob another thread. */
Test(lock, a_client_never_asks_about_itself)
{
    make_lock_file();
    struct lock_client client = new_client();
    take(&client, &lock_file->stripes[5], false);
    odm__os.lock = lock_counted;
    expect_status(try_take(&client, &lock_file->stripes[5]), ODM_E_BUSY);
    bool mend;
    expect_status(odm__lock_take(&client, &lock_file->stripes[5], 20, "it", &mend, NULL), ODM_E_BUSY);
    cr_assert_eq(questions, 0);
    struct lock_client other = new_client();
    expect_status(try_take(&other, &lock_file->stripes[5]), ODM_E_BUSY);
    cr_assert_eq(questions, 1);
    cr_assert_eq(asked_about, client.number);
}

static int lock_says_nothing(int fd, int command, short type, off_t at, off_t size, short *found)
{
    if (command != F_OFD_GETLK) return real_os()->lock(fd, command, type, at, size, found);
    errno = EIO;
    return -1;
}

Test(lock, an_owner_counts_as_alive_if_the_kernel_will_not_say)
{
    make_lock_file();
    struct lock_client a = new_client(), b = new_client();
    take(&a, &lock_file->grow, false);
    close(a.fd);
    odm__os.lock = lock_says_nothing;
    expect_status(try_take(&b, &lock_file->grow), ODM_E_BUSY);
    odm__os.lock = real_os()->lock;
    take(&b, &lock_file->grow, true);
}

/* What could not be mended is left to the next who takes the lock, also if its owner gave it back in order. */
Test(lock, stays_dirty_until_it_is_mended)
{
    make_lock_file();
    struct lock_client dead = new_client(), client = new_client(), other = new_client();
    take(&dead, &lock_file->stripes[9], false);
    close(dead.fd);
    take(&client, &lock_file->stripes[9], true);
    odm__lock_give(&client, &lock_file->stripes[9]); // Its mending failed.
    take(&other, &lock_file->stripes[9], true);
    close(other.fd); // It died over it.
    take(&client, &lock_file->stripes[9], true);
    odm__lock_mended(&lock_file->stripes[9]);
    odm__lock_give(&client, &lock_file->stripes[9]);
    take(&client, &lock_file->stripes[9], false);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

static uint64_t fake_now_ns;
static unsigned sleeps;
static struct lock_client passing; // the clients that own the lock in turn

static uint64_t second_by_second(void)
{
    return fake_now_ns += 1000000000U;
}

/* While somebody sleeps, the owner gives the lock back and the next one takes it; after a hundred turns it is free. */
static int pass_on(void *word, uint32_t expected, uint64_t timeout_ns)
{
    (void)expected, (void)timeout_ns;
    struct lock_line *line = (struct lock_line *)word;
    odm__lock_give(&passing, line);
    if (++sleeps < 100) cr_assert_eq(try_take(&passing, line), ODM_OK);
    return 0;
}

/* wait_ms is the patience with one holder: a busy lock that changes hands is no reason to give up.
 * Method: a clock that runs a second a look, and a sleep in which the lock is handed on. */
Test(lock, patience_begins_anew_with_every_owner)
{
    make_lock_file();
    struct lock_client client = new_client();
    passing = new_client();
    take(&passing, &lock_file->compact, false);
    odm__os.now_ns = second_by_second;
    odm__os.futex_wait = pass_on;
    bool mend;
    ok(odm__lock_take(&client, &lock_file->compact, 5000, "it", &mend, NULL));
    cr_assert_eq(sleeps, 100);
    cr_assert_geq(fake_now_ns, UINT64_C(100) * 1000000000U);
}

static unsigned wake_ups;

static int wake_counted(void *word, int waiters)
{
    wake_ups++;
    return real_os()->futex_wake(word, waiters);
}

Test(lock, asks_the_kernel_to_wake_only_if_somebody_sleeps)
{
    make_lock_file();
    struct lock_client a = new_client(), b = new_client();
    odm__os.futex_wake = wake_counted;
    take(&a, &lock_file->sync, false);
    odm__lock_give(&a, &lock_file->sync);
    cr_assert_eq(wake_ups, 0);
    take(&a, &lock_file->sync, false);
    bool mend;
    expect_status(odm__lock_take(&b, &lock_file->sync, 20, "it", &mend, NULL), ODM_E_BUSY);
    cr_assert_gt(atomic_load(&lock_file->lock_waits), 0);
    odm__lock_give(&a, &lock_file->sync);
    cr_assert_eq(wake_ups, 1);
}

/* ---- numbers ------------------------------------------------------------------------------------------------------- */

static int lock_range(short type, off_t first, off_t count)
{
    int fd = open_lock_file();
    cr_assert_eq(real_os()->lock(fd, F_OFD_SETLK, type, first, count, NULL), 0);
    return fd;
}

/* 2047 clients, and not one more. Method: a descriptor holds all bytes, then all but one. */
Test(lock, there_are_2047_numbers)
{
    make_lock_file();
    struct lock_client client;
    odm_error error = {.struct_size = sizeof error};
    int all = lock_range(F_WRLCK, 1, ATTACH_NUMBER_MAX);
    int fd = open_lock_file();
    expect_status(odm__lock_attach(&client, lock_file, fd, &error), ODM_E_BUSY);
    expect_message(error, "2047");
    cr_assert(odm__lock_anyone_attached(fd));
    close(all);
    cr_assert_not(odm__lock_anyone_attached(fd));

    static const uint32_t last_free[] = {1, 1024, 2047};
    for (size_t i = 0; i < COUNT_OF(last_free); i++) {
        int below = last_free[i] > 1 ? lock_range(F_WRLCK, 1, last_free[i] - 1) : -1;
        int above = last_free[i] < 2047 ? lock_range(F_WRLCK, last_free[i] + 1, 2047 - last_free[i]) : -1;
        ok(odm__lock_attach(&client, lock_file, open_lock_file(), &error));
        cr_assert_eq(client.number, last_free[i]);
        close(client.fd);
        if (below >= 0) close(below);
        if (above >= 0) close(above);
    }
}

Test(lock, numbers_differ_and_incarnations_rise)
{
    make_lock_file();
    static bool taken[ATTACH_NUMBER_MAX + 1];
    enum { CLIENTS = 300 };
    struct lock_client clients[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = new_client();
        cr_assert(clients[i].number >= 1 && clients[i].number <= ATTACH_NUMBER_MAX);
        cr_assert_not(taken[clients[i].number]);
        cr_assert_gt(clients[i].incarnation, 0);
        taken[clients[i].number] = true;
    }
    for (int i = 0; i < CLIENTS; i++) close(clients[i].fd);
    for (int i = 0; i < 5000; i++) {
        atomic_store(&lock_file->attach_hint, i % 3);
        uint32_t before = atomic_load(&lock_file->incarnations[i % 3 + 1]);
        struct lock_client client = new_client();
        cr_assert_eq(client.number, (uint32_t)i % 3 + 1);
        cr_assert_eq(client.incarnation, before + 1);
        close(client.fd);
    }
}

/* ---- the kernel's locks on meta ------------------------------------------------------------------------------------ */

Test(lock, meta_is_locked_shared_or_exclusively)
{
    make_lock_file();
    int a = open_lock_file(), b = open_lock_file(), c = open_lock_file();
    bool taken;
    enum file_lock_state state;
    ok(odm__file_lock_state(c, &state, NULL));
    cr_assert_eq(state, FILE_UNLOCKED);
    ok(odm__file_lock_exclusive(a, &taken, NULL));
    cr_assert(taken);
    ok(odm__file_lock_shared(b, &taken, NULL));
    cr_assert_not(taken);
    ok(odm__file_lock_state(c, &state, NULL));
    cr_assert_eq(state, FILE_LOCKED_EXCLUSIVE);
    ok(odm__file_lock_shared(a, &taken, NULL));
    cr_assert(taken);
    ok(odm__file_lock_shared(b, &taken, NULL));
    cr_assert(taken);
    ok(odm__file_lock_exclusive(c, &taken, NULL));
    cr_assert_not(taken);
    ok(odm__file_lock_state(c, &state, NULL));
    cr_assert_eq(state, FILE_LOCKED_SHARED);
    odm__file_unlock(a);
    close(b); // A killed process unlocks by that.
    ok(odm__file_lock_exclusive(c, &taken, NULL));
    cr_assert(taken);
    cr_assert_not(odm__lock_anyone_attached(a)); // That byte is no attach number.
}
