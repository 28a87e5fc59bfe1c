/* failing.h - the n-th system call of an operation fails: for tests that go through all n until a run has none left.
 *
 * Which calls count: open, read, write, reserve, truncate, the syncs, make a directory, rename, unlink, list, random bytes.
 */
#ifndef ODM_TEST_FAILING_H
#define ODM_TEST_FAILING_H

#include <stdbool.h>
#include <stddef.h>

/* From here on calls are counted, and the n-th (from 1) fails with this errno. */
void fail_call(size_t n, int number);
/* None fails any more. True: there were so many calls that the n-th came. */
bool fail_no_more(void);

#endif
