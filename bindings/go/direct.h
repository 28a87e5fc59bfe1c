/* direct.h - when a look-up may be a direct call (internal/direct), for handles and for lanes.
 *
 * In the preambles of abi.go and lanes.go, which define _GNU_SOURCE first; hence all is static.
 */
#ifndef ODM_GO_DIRECT_H
#define ODM_GO_DIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <opendiskmap.h>

enum {
    ODM_GO_DIRECT_CALLS = 1024, // until one through cgo, which lets Go's scheduler in; one in 64 could be felt
    ODM_GO_FIRST_CALLS = 16,    // likewise at first; twice as many each time, unless the thread waited for the disk
    ODM_GO_COLD_CALLS = 4096,   // through cgo, after a thread had to wait for the disk
    ODM_GO_KEY_SIZE_MAX = 1024, // longer ones take too long
};

/* Whether C is compiled to what a direct call may call: sanitizers and no optimization make it need more stack. */
#if defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer)
#define ODM_GO_SANITIZED
#endif
#endif
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__ || defined ODM_GO_SANITIZED || !defined __OPTIMIZE__
enum { ODM_GO_DIRECT = false };
#else
enum { ODM_GO_DIRECT = true };
#endif

/* How many look-ups of one user may be direct calls before the next through cgo. Zeros to begin with. */
typedef struct {
    uint32_t direct; // that many still
    uint32_t run;    // as many it was last
    uint32_t cold;   // look-ups through cgo until direct ones are tried again
} odm_go_pace;

/* Whether the calling thread had to wait for the disk since it was asked last, for whichever user: one may be on another thread
 * each time, but a thread that waits is asked again. */
static inline bool odm_go_waited(void)
{
    static __thread int64_t faults = -1; // the thread's, that waited for the disk
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    bool waited = faults >= 0 && usage.ru_majflt != faults;
    faults = usage.ru_majflt;
    return waited;
}

/* Before a look-up through cgo. True every now and then, for what is to be done as seldom. */
static inline bool odm_go_not_direct(odm_go_pace *pace)
{
    if (pace->cold > 0) return --pace->cold % 64 == 0;
    if (pace->direct > 0) { // It would have blocked, or the key is long.
        --pace->direct;
        return false;
    }
    if (odm_go_waited()) { // Which is for calls that Go's scheduler knows of.
        pace->cold = ODM_GO_COLD_CALLS;
        pace->run = 0;
    } else if (pace->run == 0) {
        pace->run = ODM_GO_FIRST_CALLS;
    } else if (pace->run < ODM_GO_DIRECT_CALLS) {
        pace->run *= 2;
    }
    pace->direct = pace->run;
    return true;
}

/* Has the processor fetch a short value, of which the look-up has seen the beginning, while it goes back to Go. Without a branch
 * that depends on the size: it would wait for it. */
static inline void odm_go_fetch(const void *value, size_t size)
{
    const char *bytes = value;
    __builtin_prefetch(bytes + 64);
    __builtin_prefetch(bytes + 128);
    __builtin_prefetch(bytes + size - 1);
}

/* A look-up for direct calls. ODM_WOULD_BLOCK also where it must not be one: then through cgo. */
static inline __attribute__((always_inline)) odm_status odm_go_try_get(odm_go_pace *pace, odm_map *map, const char *key,
                                                                       size_t key_size, const void **value,
                                                                       size_t *value_size)
{
    if (__builtin_expect(key_size > ODM_GO_KEY_SIZE_MAX || pace->direct == 0, 0)) return ODM_WOULD_BLOCK;
    --pace->direct;
    odm_status status = odm_try_get(map, key, key_size, value, value_size);
    if (__builtin_expect(status == ODM_OK, 1)) odm_go_fetch(*value, *value_size);
    return status;
}

#endif
