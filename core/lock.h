/* lock.h - lock words that live in a file and outlive their owners.
 *
 * Calls os.h. The only place that knows futexes, lock words and attach numbers.
 *
 * A client is known by an attach number: it holds the kernel's file lock on that byte of the lock file, so it is alive
 * exactly as long as its process keeps the descriptor, in whatever container. Claiming a number raises its incarnation,
 * and a lock word holds both: whoever finds a word of an older incarnation, or of a number whose byte is free, takes the
 * lock over, by one compare-and-swap from exactly the word it saw. Its own number a client never asks about, because the
 * kernel does not show a descriptor its own locks.
 *
 * What always holds:
 *   1. A lock is never taken from the living, however long they sleep.
 *   2. Every change of hands is one compare-and-swap on one word.
 *   3. Who takes a lock from the dead is told so, and mends what the dead left before anything else.
 *
 * Order: stripes (ascending), then append or grow. sync and compact are taken while holding nothing.
 *
 * Threads: a client may be used by all threads of a process.
 */
#ifndef ODM_LOCK_H
#define ODM_LOCK_H

#include <stdbool.h>

#include "format.h"
#include "opendiskmap.h"

#ifdef ODM_TEST_SMALL
extern int odm__test_spins; // how often a lock that is held is looked at before its taker sleeps
#endif

struct lock_client {
    struct lock_file *file;
    int fd; // -1 in memory: there is nobody else
    uint32_t number;
    uint32_t incarnation;
};

/* Claims a number. ODM_E_BUSY if all are taken. */
odm_status odm__lock_attach(struct lock_client *client, struct lock_file *file, int fd, odm_error *error);

/* Whether some other descriptor of the lock file holds a number. */
bool odm__lock_anyone_attached(int fd);

/* Takes a lock, waiting up to wait_ms for one and the same live holder (UINT32_MAX: not at all); then ODM_E_BUSY.
 * *mend: an owner died holding it and nobody has mended what it left: do so, then call odm__lock_mended. What can not be
 * mended now is left to the next who takes the lock. what: for the message. */
odm_status odm__lock_take(const struct lock_client *client, struct lock_line *lock, uint32_t wait_ms, const char *what,
                          bool *mend, odm_error *error);
void odm__lock_mended(struct lock_line *lock);
void odm__lock_give(const struct lock_client *client, struct lock_line *lock);

/* Whether nobody has it, and nobody died over it. */
bool odm__lock_is_at_rest(struct lock_line *lock);

/* For assertions. */
bool odm__lock_is_mine(const struct lock_client *client, struct lock_line *lock);

/* The kernel's locks on one byte of meta: writers hold it shared, who opens or rebuilds holds it exclusively.
 * *taken tells whether it was had. None waits: who sleeps for a lock can not let a fork pass. */
odm_status odm__file_lock_exclusive(int fd, bool *taken, odm_error *error);
odm_status odm__file_lock_shared(int fd, bool *taken, odm_error *error);
void odm__file_unlock(int fd);
/* Whether some other descriptor holds it, and how. */
enum file_lock_state { FILE_UNLOCKED, FILE_LOCKED_SHARED, FILE_LOCKED_EXCLUSIVE };
odm_status odm__file_lock_state(int fd, enum file_lock_state *state, odm_error *error);

#endif
