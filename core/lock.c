/* lock.c - lock words that outlive their owners. Contract: lock.h. */
#include "lock.h"

#include <errno.h>
#include <fcntl.h>

#include "os.h"
#include "status.h"

enum { WAITERS = 1, NUMBER_SHIFT = 1, TURNS_SHIFT = 12, INCARNATION_SHIFT = 32 };
enum { NUMBER_MASK = ATTACH_NUMBER_MAX, TURNS_MASK = (1 << 20) - 1 };
_Static_assert((ATTACH_NUMBER_MAX & (ATTACH_NUMBER_MAX + 1)) == 0, "a mask");

#ifdef ODM_TEST_SMALL
int odm__test_spins = 200;
#define SPINS odm__test_spins
#else
enum { SPINS = 200 };
#endif
enum { SLEEP_MIN_NS = 1000 * 1000, SLEEP_MAX_NS = 100 * 1000 * 1000 };

static uint32_t word_number(uint64_t word)
{
    return (uint32_t)(word >> NUMBER_SHIFT) & NUMBER_MASK;
}

static uint32_t word_incarnation(uint64_t word)
{
    return (uint32_t)(word >> INCARNATION_SHIFT);
}

/* The word after `client` has taken the lock. Turns make each owner's word another one, so that a waiter can tell a busy
 * lock from one holder that does not let go. */
static uint64_t word_of(const struct lock_client *client, uint64_t before, uint64_t waiters)
{
    uint64_t turns = ((before >> TURNS_SHIFT) + 1) & TURNS_MASK;
    return waiters | (uint64_t)client->number << NUMBER_SHIFT | turns << TURNS_SHIFT |
           (uint64_t)client->incarnation << INCARNATION_SHIFT;
}

/* What a waiter must see change for its patience to begin anew. */
static uint64_t word_owner(uint64_t word)
{
    return word & ~(uint64_t)WAITERS;
}

odm_status odm__lock_attach(struct lock_client *client, struct lock_file *file, int fd, odm_error *error)
{
    client->file = file;
    client->fd = fd;
    uint64_t start = atomic_fetch_add_explicit(&file->attach_hint, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < ATTACH_NUMBER_MAX; ++i) {
        uint32_t number = (uint32_t)((start + i) % ATTACH_NUMBER_MAX) + 1;
        if (fd >= 0 && odm__os.lock(fd, F_OFD_SETLK, F_WRLCK, number, 1, NULL) != 0) {
            if (errno == EAGAIN || errno == EACCES) continue;
            return odm__fail_os(error, "claim a number in", "lock");
        }
        // Killed between the two: the byte is free again, and the old incarnation as dead as before.
        client->number = number;
        client->incarnation = atomic_fetch_add_explicit(&file->incarnations[number], 1, memory_order_acq_rel) + 1;
        return ODM_OK;
    }
    return odm__fail(error, ODM_E_BUSY, "%d processes have this map open for writing: no more can", ATTACH_NUMBER_MAX);
}

bool odm__lock_anyone_attached(int fd)
{
    short found = F_UNLCK;
    return odm__os.lock(fd, F_OFD_GETLK, F_WRLCK, 1, ATTACH_NUMBER_MAX, &found) == 0 && found != F_UNLCK;
}

/* Whether the owner that a word names is gone. */
static bool owner_is_dead(const struct lock_client *client, uint64_t word)
{
    uint32_t number = word_number(word);
    uint32_t incarnation = atomic_load_explicit(&client->file->incarnations[number], memory_order_acquire);
    if (word_incarnation(word) != incarnation) return true;
    if (number == client->number || client->fd < 0) return false;
    short found = F_WRLCK;
    // If the kernel will not say, the owner counts as alive: nobody steals from the living.
    return odm__os.lock(client->fd, F_OFD_GETLK, F_WRLCK, number, 1, &found) == 0 && found == F_UNLCK;
}

/* Takes a word that is free or whose owner is dead. */
static bool take_from(const struct lock_client *client, odm__u64 *word, uint64_t seen, uint64_t waiters)
{
    // Acquire: all that the last owner stored is seen. Partner: the release in odm__lock_give. A dead owner gave nothing
    // back, but its stores went to memory that all share, and it asked the kernel for nothing that could overtake them.
    return atomic_compare_exchange_strong_explicit(word, &seen, word_of(client, seen, waiters), memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static __attribute__((noinline, cold)) odm_status take_slowly(const struct lock_client *client, struct lock_line *lock,
                                                              uint32_t wait_ms, const char *what, odm_error *error)
{
    odm__u64 *word = &lock->word;
    for (int i = 0; i < SPINS; ++i) {
        uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
        if (word_number(seen) == 0 && take_from(client, word, seen, seen & WAITERS)) return ODM_OK;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    uint64_t owner = 0, since_ns = 0, sleep_ns = SLEEP_MIN_NS, waiters = 0;
    bool slept_on_owner = false;
    for (;;) {
        uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
        if (word_number(seen) == 0) {
            // Others may sleep on: once one has slept, it hands the wake-up on.
            if (take_from(client, word, seen, (seen & WAITERS) | waiters)) return ODM_OK;
            continue;
        }
        if (word_owner(seen) != owner) {
            owner = word_owner(seen);
            since_ns = odm__os.now_ns();
            sleep_ns = SLEEP_MIN_NS;
            slept_on_owner = false;
        }
        // Asked once per sleep, and at once if there is to be no waiting.
        if ((slept_on_owner || wait_ms == UINT32_MAX) && owner_is_dead(client, seen)) {
            if (!take_from(client, word, seen, WAITERS)) continue;
            // Killed before this store: the word names the dead again, and the next to take it stores it.
            atomic_store_explicit(&lock->dirty, 1, memory_order_relaxed);
            return ODM_OK;
        }
        uint64_t waited_ns = odm__os.now_ns() - since_ns;
        if (wait_ms == UINT32_MAX || waited_ns >= (uint64_t)wait_ms * 1000000U) {
            return odm__fail(error, ODM_E_BUSY, "client %u has held %s for %llu ms and is still alive",
                             word_number(seen), what, (unsigned long long)(waited_ns / 1000000U));
        }
        uint64_t waiting = seen | WAITERS;
        if (seen != waiting && !atomic_compare_exchange_strong_explicit(word, &seen, waiting, memory_order_relaxed,
                                                                        memory_order_relaxed)) {
            continue;
        }
        atomic_fetch_add_explicit(&client->file->lock_waits, 1, memory_order_relaxed);
        (void)odm__os.futex_wait(word, (uint32_t)waiting, sleep_ns); // its low half, on a little-endian machine
        waiters = WAITERS;
        slept_on_owner = true;
        if (sleep_ns < SLEEP_MAX_NS) sleep_ns *= 2;
    }
}

odm_status odm__lock_take(const struct lock_client *client, struct lock_line *lock, uint32_t wait_ms, const char *what,
                          bool *mend, odm_error *error)
{
    uint64_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
    bool taken = word_number(seen) == 0 && take_from(client, &lock->word, seen, seen & WAITERS);
    if (__builtin_expect(!taken, 0)) {
        odm_status status = take_slowly(client, lock, wait_ms, what, error);
        if (status != ODM_OK) {
            *mend = false;
            return status;
        }
    }
    *mend = atomic_load_explicit(&lock->dirty, memory_order_relaxed) != 0;
    return ODM_OK;
}

void odm__lock_mended(struct lock_line *lock)
{
    atomic_store_explicit(&lock->dirty, 0, memory_order_relaxed);
}

void odm__lock_give(const struct lock_client *client, struct lock_line *lock)
{
    assert(odm__lock_is_mine(client, lock));
    (void)client;
    uint64_t mine = atomic_load_explicit(&lock->word, memory_order_relaxed);
    uint64_t free_word = mine & ((uint64_t)TURNS_MASK << TURNS_SHIFT);
    // Release: partner of the acquire in take_from.
    uint64_t last = atomic_exchange_explicit(&lock->word, free_word, memory_order_release);
    // Killed before the wake-up: the sleepers wake by themselves, within SLEEP_MAX_NS.
    if (last & WAITERS) (void)odm__os.futex_wake(&lock->word, 1);
}

bool odm__lock_is_at_rest(struct lock_line *lock)
{
    // Acquire: partner of the release in odm__lock_give.
    uint64_t seen = atomic_load_explicit(&lock->word, memory_order_acquire);
    return word_number(seen) == 0 && atomic_load_explicit(&lock->dirty, memory_order_relaxed) == 0;
}

bool odm__lock_is_mine(const struct lock_client *client, struct lock_line *lock)
{
    uint64_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
    return word_number(seen) == client->number && word_incarnation(seen) == client->incarnation;
}

/* ---- the kernel's locks on meta ----------------------------------------------------------------------------------- */

enum { META_LOCK_BYTE = 0 };

static odm_status file_lock(int fd, short type, bool *taken, odm_error *error)
{
    *taken = odm__os.lock(fd, F_OFD_SETLK, type, META_LOCK_BYTE, 1, NULL) == 0;
    if (*taken || errno == EAGAIN || errno == EACCES) return ODM_OK;
    return odm__fail_os(error, "lock", "meta");
}

odm_status odm__file_lock_exclusive(int fd, bool *taken, odm_error *error)
{
    return file_lock(fd, F_WRLCK, taken, error);
}

odm_status odm__file_lock_shared(int fd, bool *taken, odm_error *error)
{
    return file_lock(fd, F_RDLCK, taken, error);
}

void odm__file_unlock(int fd)
{
    (void)odm__os.lock(fd, F_OFD_SETLK, F_UNLCK, META_LOCK_BYTE, 1, NULL);
}

odm_status odm__file_lock_state(int fd, enum file_lock_state *state, odm_error *error)
{
    short found = F_UNLCK;
    if (odm__os.lock(fd, F_OFD_GETLK, F_WRLCK, META_LOCK_BYTE, 1, &found) != 0)
        return odm__fail_os(error, "ask", "meta");
    *state = found == F_UNLCK ? FILE_UNLOCKED : found == F_RDLCK ? FILE_LOCKED_SHARED : FILE_LOCKED_EXCLUSIVE;
    return ODM_OK;
}
