/* Failing system calls: failing.h. */
#include "failing.h"

#include <errno.h>
#include <sys/types.h>

#include "support.h"

static size_t fail_at, call_number;
static int fail_errno;

static bool fails_now(void)
{
    if (++call_number != fail_at) return false;
    errno = fail_errno;
    return true;
}
#define FAILING(result, name, parameters, arguments)         \
    static result failing_##name parameters                  \
    {                                                        \
        return fails_now() ? -1 : real_os()->name arguments; \
    }
FAILING(int, open, (int directory, const char *name, int flags, mode_t mode), (directory, name, flags, mode))
FAILING(ssize_t, read_at, (int fd, void *buffer, size_t size, off_t offset), (fd, buffer, size, offset))
FAILING(ssize_t, write_at, (int fd, const void *buffer, size_t size, off_t offset), (fd, buffer, size, offset))
FAILING(int, reserve, (int fd, off_t offset, off_t size), (fd, offset, size))
FAILING(int, truncate, (int fd, off_t size), (fd, size))
FAILING(int, sync_data, (int fd), (fd))
FAILING(int, sync_directory, (int fd), (fd))
FAILING(int, make_directory, (int directory, const char *name, mode_t mode), (directory, name, mode))
FAILING(int, rename_new, (int directory, const char *from, const char *to), (directory, from, to))
FAILING(int, exchange, (int directory, const char *a, const char *b), (directory, a, b))
FAILING(int, random_bytes, (void *buffer, size_t size), (buffer, size))
FAILING(int, list, (int directory, void (*found)(void *, const char *), void *context), (directory, found, context))
FAILING(int, sync_map, (void *base, size_t size), (base, size))
FAILING(int, unlink, (int directory, const char *name, bool is_directory), (directory, name, is_directory))

void fail_call(size_t n, int number)
{
    call_number = 0;
    fail_at = n;
    fail_errno = number;
    odm__os.open = failing_open;
    odm__os.read_at = failing_read_at;
    odm__os.write_at = failing_write_at;
    odm__os.reserve = failing_reserve;
    odm__os.truncate = failing_truncate;
    odm__os.sync_data = failing_sync_data;
    odm__os.sync_directory = failing_sync_directory;
    odm__os.make_directory = failing_make_directory;
    odm__os.rename_new = failing_rename_new;
    odm__os.exchange = failing_exchange;
    odm__os.random_bytes = failing_random_bytes;
    odm__os.list = failing_list;
    odm__os.sync_map = failing_sync_map;
    odm__os.unlink = failing_unlink;
}

bool fail_no_more(void)
{
    bool came = call_number >= fail_at;
    fail_at = 0;
    return came;
}
