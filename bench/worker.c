/* worker.c - one engine's part of one round: a program that runs one phase and prints what it measured.
 *
 *   bench_worker_<engine> --phase PHASE --workload NAME --size ENTRIES --operations N --seed N --dir EMPTY_DIRECTORY
 *                         --turnovers N --memory BYTES
 *
 * Phases, each a process of its own, in this order (down to remove they use the directory of the first):
 *   load     open a new map, put everything, read it in several ways, update until the log has turned over twice, close
 *   reopen   open the closed map, get a key; then write, and die by SIGKILL without closing
 *   killed   open what the killed process left, get a key
 *   rebuild  open it again as after a new start of the machine; only for a store that builds something then
 *   parallel read and overwrite by several threads, then by several processes
 *   outgrown read and overwrite while --memory is all the memory that the store may use; 0: nothing
 *   remove   open what is there; then remove
 *   batch    open a new map, in another directory, and put everything by write_many
 *   describe print one line: version and settings
 *
 * Output: lines of "metric unit value", for runner.c. Every answer of the engine is checked: sums of the values' bytes
 * against those of the data, outside of the timed parts.
 */
#include "data.h"
#include "memory_limit.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A pass of gets is repeated until it took this long: a small map is read within some milliseconds, too short to
 * time. */
#define READ_NS_MIN (UINT64_C(500) * 1000 * 1000)

enum { WRITES_BEFORE_KILL = 5000 }; // less than a transaction of LMDB: it dies with one open

void bench_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

static void report(const char *metric, const char *unit, double value)
{
    printf("%s %s %.6g\n", metric, unit, value);
}

static void report_ns(const char *metric, uint64_t elapsed_ns, uint64_t operations)
{
    report(metric, "ns", (double)elapsed_ns / (double)operations);
}

/* ---- passes over a list: the timed loops ------------------------------------------------------------------------- */

/* What a pass of reads came to. */
struct tally {
    uint64_t found;
    uint64_t sum; // of touch
};

static struct tally pass_get(void *store, const struct list *list)
{
    struct tally tally = {0, 0};
    for (size_t number = 0; number < list_block_count(list); number++) {
        struct block block = list_block(list, number);
        uint64_t begin = 0;
        for (size_t i = 0; i < block.count; begin = block.key_ends[i++]) {
            const void *value;
            size_t value_size;
            if (bench_engine.get(store, block.keys + begin, block.key_ends[i] - begin, &value, &value_size)) {
                tally.found++;
                tally.sum += touch(value, value_size);
            }
        }
    }
    return tally;
}

static struct tally pass_get_many(void *store, const struct list *list)
{
    struct tally tally = {0, 0};
    for (size_t number = 0; number < list_block_count(list); number++) {
        struct block block = list_block(list, number);
        const void *values[BENCH_BLOCK_SIZE];
        uint64_t value_sizes[BENCH_BLOCK_SIZE];
        bench_engine.get_many(store, &block, values, value_sizes);
        for (size_t i = 0; i < block.count; i++) {
            if (!values[i]) continue;
            tally.found++;
            tally.sum += touch(values[i], value_sizes[i]);
        }
    }
    return tally;
}

static struct tally pass_walk(void *store, const struct list *list)
{
    (void)list; // A walk finds its keys itself.
    struct tally tally = {0, 0};
    const void *key;
    const void *value;
    size_t key_size, value_size;
    bench_engine.walk_begin(store);
    while (bench_engine.walk_next(store, &key, &key_size, &value, &value_size)) {
        tally.found++;
        tally.sum += touch(value, value_size);
    }
    bench_engine.walk_end(store);
    return tally;
}

static void pass_put(void *store, const struct list *list)
{
    for (size_t number = 0; number < list_block_count(list); number++) {
        struct block block = list_block(list, number);
        uint64_t key_begin = 0;
        uint64_t value_begin = 0;
        for (size_t i = 0; i < block.count; i++) {
            bench_engine.put(store, block.keys + key_begin, block.key_ends[i] - key_begin, block.values + value_begin,
                             block.value_ends[i] - value_begin);
            key_begin = block.key_ends[i];
            value_begin = block.value_ends[i];
        }
    }
}

static uint64_t pass_remove(void *store, const struct list *list)
{
    uint64_t removed = 0;
    for (size_t number = 0; number < list_block_count(list); number++) {
        struct block block = list_block(list, number);
        uint64_t begin = 0;
        for (size_t i = 0; i < block.count; begin = block.key_ends[i++]) {
            removed += bench_engine.remove(store, block.keys + begin, block.key_ends[i] - begin);
        }
    }
    return removed;
}

static void pass_increment(void *store, const struct list *list)
{
    for (size_t number = 0; number < list_block_count(list); number++) {
        struct block block = list_block(list, number);
        uint64_t begin = 0;
        for (size_t i = 0; i < block.count; begin = block.key_ends[i++]) {
            bench_engine.increment(store, block.keys + begin, block.key_ends[i] - begin);
        }
    }
}

static void pass_write_many(void *store, const struct list *list)
{
    for (size_t number = 0; number < list_block_count(list); number++) {
        struct block block = list_block(list, number);
        bench_engine.write_many(store, &block);
    }
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

static void check_tally(const char *metric, struct tally got, struct tally expected)
{
    if (got.found == expected.found && got.sum == expected.sum) return;
    bench_die("%s: %s: wrong answers: %" PRIu64 " found, sum %" PRIu64 "; expected %" PRIu64 ", sum %" PRIu64,
              bench_engine.name, metric, got.found, got.sum, expected.found, expected.sum);
}

static void announce(void *store, const struct list *list)
{
    if (!bench_engine.expect) return;
    bench_engine.expect(store, NULL);
    for (size_t number = 0; number < list_block_count(list); number++) {
        struct block block = list_block(list, number);
        bench_engine.expect(store, &block);
    }
}

static void measure_reads(const char *metric, void *store, struct tally (*pass)(void *, const struct list *),
                          const struct list *list, struct tally expected)
{
    uint64_t elapsed_ns = 0;
    uint64_t passes = 0;
    announce(store, list);
    do {
        uint64_t start_ns = now_ns();
        bench_engine.reads_begin(store);
        struct tally tally = pass(store, list);
        bench_engine.reads_end(store);
        elapsed_ns += now_ns() - start_ns;
        check_tally(metric, tally, expected);
        passes++;
    } while (elapsed_ns < READ_NS_MIN);
    report_ns(metric, elapsed_ns, passes * list->count);
}

static void measure_writes(const char *metric, void *store, void (*pass)(void *, const struct list *),
                           const struct list *list)
{
    uint64_t start_ns = now_ns();
    pass(store, list);
    bench_engine.writes_end(store);
    report_ns(metric, now_ns() - start_ns, list->count);
}

static int compare_ns(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The longest of the shortest `share` of all. */
static void report_percentile(const char *operation, const char *name, const uint32_t *sorted_ns, size_t count,
                              double share)
{
    char metric[32];
    snprintf(metric, sizeof metric, "%s_%s", operation, name);
    size_t at = (size_t)((double)count * share);
    report(metric, "ns", sorted_ns[at < count ? at : count - 1]);
}

/* Each operation timed by itself; what it takes to look at the clock, some 20 ns, is in every figure. */
static void measure_latency(const char *operation, void *store, const struct list *list, bool writes)
{
    uint32_t *each_ns = malloc(list->count * sizeof *each_ns);
    if (!each_ns) bench_die("out of memory");
    uint64_t sum = 0;
    if (!writes) bench_engine.reads_begin(store);
    uint64_t before_ns = now_ns();
    for (size_t number = 0, at = 0; number < list_block_count(list); number++) {
        struct block block = list_block(list, number);
        uint64_t key_begin = 0, value_begin = 0;
        for (size_t i = 0; i < block.count; i++) {
            const void *key = block.keys + key_begin, *value;
            size_t key_size = block.key_ends[i] - key_begin, value_size;
            if (writes) {
                bench_engine.put(store, key, key_size, block.values + value_begin, block.value_ends[i] - value_begin);
            } else if (bench_engine.get(store, key, key_size, &value, &value_size)) {
                sum += touch(value, value_size);
            }
            uint64_t after_ns = now_ns();
            each_ns[at++] = after_ns - before_ns < UINT32_MAX ? (uint32_t)(after_ns - before_ns) : UINT32_MAX;
            before_ns = after_ns;
            key_begin = block.key_ends[i];
            value_begin = block.value_ends[i];
        }
    }
    if (writes)
        bench_engine.writes_end(store);
    else
        bench_engine.reads_end(store);
    if (!writes && sum == 0) bench_die("%s: nothing was read", bench_engine.name);
    qsort(each_ns, list->count, sizeof *each_ns, compare_ns);
    report_percentile(operation, "p50", each_ns, list->count, 0.5);
    report_percentile(operation, "p90", each_ns, list->count, 0.9);
    report_percentile(operation, "p99", each_ns, list->count, 0.99);
    report_percentile(operation, "p99.9", each_ns, list->count, 0.999);
    report_percentile(operation, "p99.99", each_ns, list->count, 0.9999);
    report_percentile(operation, "max", each_ns, list->count, 1);
    free(each_ns);
}

/* Untimed: what is in the map is what was put there. */
static void check_reads(const char *metric, void *store, const struct list *list, struct tally expected)
{
    bench_engine.reads_begin(store);
    check_tally(metric, pass_get(store, list), expected);
    bench_engine.reads_end(store);
}

/* The sum of the numbers that are the values of these keys. */
static uint64_t sum_of_numbers(void *store, const struct list *list)
{
    uint64_t sum = 0;
    bench_engine.reads_begin(store);
    for (size_t at = 0; at < list_block_count(list); at++) {
        struct block block = list_block(list, at);
        uint64_t begin = 0;
        for (size_t i = 0; i < block.count; begin = block.key_ends[i++]) {
            const void *value;
            size_t value_size;
            uint64_t number;
            if (!bench_engine.get(store, block.keys + begin, block.key_ends[i] - begin, &value, &value_size)) continue;
            memcpy(&number, value, sizeof number);
            sum += number;
        }
    }
    bench_engine.reads_end(store);
    return sum;
}

static void measure_increments(void *store, const struct list *list)
{
    uint64_t before = sum_of_numbers(store, list);
    measure_writes("increment", store, pass_increment, list);
    uint64_t counted = sum_of_numbers(store, list) - before;
    if (counted != list->count) {
        bench_die("%s: increment: counted to %" PRIu64 ", not %zu", bench_engine.name, counted, list->count);
    }
}

static uint64_t disk_bytes;

static int add_disk_bytes(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)path;
    (void)place;
    // Blocks, not sizes: the files of some engines have holes.
    if (type == FTW_F) disk_bytes += (uint64_t)status->st_blocks * 512;
    return 0;
}

static void measure_disk(const char *metric, const char *directory, uint64_t payload_bytes)
{
    if (!bench_engine.persistent) return;
    disk_bytes = 0;
    if (nftw(directory, add_disk_bytes, 16, FTW_PHYS) != 0) bench_die("%s: %s", directory, strerror(errno));
    report(metric, "ratio", (double)disk_bytes / (double)payload_bytes);
}

/* ---- phases ------------------------------------------------------------------------------------------------------ */

struct job {
    const char *phase;
    const struct workload *workload;
    size_t size;
    size_t operations;
    uint64_t seed;
    unsigned turnovers;
    uint64_t memory_bytes;
    const char *directory;
};

static struct engine_setup setup_of(const struct job *job, uint64_t payload_bytes)
{
    return (struct engine_setup){
        .directory = job->directory,
        .create = payload_bytes != 0,
        .u64_keys = job->workload->u64_keys,
        .payload_bytes = payload_bytes,
        .entries = payload_bytes != 0 ? job->size : 0,
    };
}

/* Opens what an earlier process left and gets one key, as a program does that starts and wants an answer. */
static void *open_timed(const struct job *job, const struct list *list, const char *open_metric, const char *get_metric)
{
    struct engine_setup setup = setup_of(job, 0);
    struct block block = list_block(list, 0);
    const void *value;
    size_t value_size;

    uint64_t start_ns = now_ns();
    void *store = bench_engine.open(&setup);
    uint64_t opened_ns = now_ns();
    bench_engine.reads_begin(store);
    bool found = bench_engine.get(store, block.keys, block.key_ends[0], &value, &value_size);
    if (found) found = touch(value, value_size) <= UINT8_MAX * 2;
    uint64_t got_ns = now_ns();
    bench_engine.reads_end(store);

    if (!found) bench_die("%s: the first key is not in the map", bench_engine.name);
    report_ns(open_metric, opened_ns - start_ns, 1);
    report_ns(get_metric, got_ns - opened_ns, 1);
    return store;
}

static void phase_load(const struct job *job)
{
    struct data data;
    data_make(&data, job->workload, job->seed, job->size, job->operations);
    struct engine_setup setup = setup_of(job, data.load_bytes);
    void *store = bench_engine.open(&setup);

    if (bench_engine.reads_only)
        pass_put(store, &data.load);
    else
        measure_writes("put", store, pass_put, &data.load);
    measure_disk("disk", job->directory, data.load_bytes);

    struct tally before = {data.order.count, data.order_sum_before};
    measure_reads("get", store, pass_get, &data.order, before);
    measure_reads("get_miss", store, pass_get, &data.absent, (struct tally){0, 0});
    if (bench_engine.get_many) measure_reads("get_many", store, pass_get_many, &data.order, before);
    if (bench_engine.walk_begin) {
        struct tally all = {data.load.count, data.load_sum};
        measure_reads("iterate", store, pass_walk, &data.load, all);
    }

    if (!bench_engine.reads_only) {
        measure_latency("get", store, &data.order, false);
        measure_writes("update", store, pass_put, &data.order);
        // Until everything was written twice more: by then a store that must give room back is doing so.
        for (uint64_t written = 0; written < data.load.count * job->turnovers; written += data.order.count) {
            pass_put(store, &data.order);
        }
        if (job->turnovers > 0) measure_writes("update_steady", store, pass_put, &data.again);
        measure_latency("put", store, &data.order, true);
        measure_disk("disk_steady", job->directory, data.load_bytes);
        check_reads("update", store, &data.order, (struct tally){data.order.count, data.order_sum_after});
        // In an order that is not that of the next phases' reads.
        if (workload_counts(job->workload)) measure_increments(store, &data.order);
    }

    uint64_t start_ns = now_ns();
    bench_engine.close(store);
    if (!bench_engine.reads_only) report_ns("close", now_ns() - start_ns, 1);
}

static void phase_reopen(const struct job *job)
{
    // The first keys of the big map: see data.h.
    size_t count = job->size < WRITES_BEFORE_KILL ? job->size : WRITES_BEFORE_KILL;
    struct data data;
    data_make(&data, job->workload, job->seed, count, 0);

    void *store = open_timed(job, &data.load, "open_closed", "first_get_closed");
    pass_put(store, &data.load);
    raise(SIGKILL);
}

static void phase_killed(const struct job *job)
{
    struct data data;
    data_make(&data, job->workload, job->seed, 1, 0);
    bench_engine.close(open_timed(job, &data.load, "open_killed", "first_get_killed"));
}

static void phase_remove(const struct job *job)
{
    if (!bench_engine.remove) return;
    struct data data;
    data_make(&data, job->workload, job->seed, job->size, job->operations);
    struct engine_setup setup = setup_of(job, 0);
    void *store = bench_engine.open(&setup);
    uint64_t start_ns = now_ns();
    uint64_t removed = pass_remove(store, &data.again);
    bench_engine.writes_end(store);
    report_ns("remove", now_ns() - start_ns, data.again.count);
    if (removed != data.again.count) bench_die("%s: remove: keys were missing", bench_engine.name);
    check_reads("remove", store, &data.again, (struct tally){0, 0});
    bench_engine.close(store);
}

static void phase_rebuild(const struct job *job)
{
    if (!bench_engine.forget) return;
    struct data data;
    data_make(&data, job->workload, job->seed, 1, 0);
    bench_engine.forget(job->directory);
    struct engine_setup setup = setup_of(job, 0);
    uint64_t start_ns = now_ns();
    void *store = bench_engine.open(&setup);
    uint64_t elapsed_ns = now_ns() - start_ns;
    report_ns("open_rebuild", elapsed_ns, 1);
    report("rebuild", "GB/s", (double)bench_engine.log_bytes(store) / (double)elapsed_ns);
    bench_engine.close(store);
}

/* ---- several threads, several processes --------------------------------------------------------------------------- */

enum { WORKERS_MAX = 64, PARALLEL_PASSES = 4 };

/* What one thread or process does: every n-th block of the list, PARALLEL_PASSES times. */
struct part {
    const struct list *list;
    unsigned number, count;
    bool writes;
    void *store;
    _Atomic unsigned *waiting; // reaches 0 when all are ready
};

static void part_run(const struct part *part)
{
    atomic_fetch_sub(part->waiting, 1);
    while (atomic_load(part->waiting) != 0) sched_yield();
    uint64_t sum = 0;
    if (!part->writes) bench_engine.reads_begin(part->store);
    for (unsigned pass = 0; pass < PARALLEL_PASSES; pass++) {
        for (size_t number = part->number; number < list_block_count(part->list); number += part->count) {
            struct block block = list_block(part->list, number);
            uint64_t key_begin = 0, value_begin = 0;
            for (size_t i = 0; i < block.count; i++) {
                const void *key = block.keys + key_begin, *value;
                size_t key_size = block.key_ends[i] - key_begin, value_size;
                if (part->writes) {
                    bench_engine.put(part->store, key, key_size, block.values + value_begin,
                                     block.value_ends[i] - value_begin);
                } else if (bench_engine.get(part->store, key, key_size, &value, &value_size)) {
                    sum += touch(value, value_size);
                } else {
                    bench_die("%s: a key is missing", bench_engine.name);
                }
                key_begin = block.key_ends[i];
                value_begin = block.value_ends[i];
            }
        }
    }
    if (part->writes)
        bench_engine.writes_end(part->store);
    else
        bench_engine.reads_end(part->store);
    if (!part->writes && sum == 0) bench_die("%s: nothing was read", bench_engine.name);
}

static void *thread_run(void *part)
{
    part_run(part);
    return NULL;
}

static void report_parallel(const struct part *part, const char *kind, uint64_t elapsed_ns)
{
    char metric[32];
    snprintf(metric, sizeof metric, "%s_%s_%u", part->writes ? "put" : "get", kind, part->count);
    report_ns(metric, elapsed_ns, part->list->count * PARALLEL_PASSES);
}

static void measure_threads(void *store, const struct list *list, unsigned count, bool writes)
{
    pthread_t threads[WORKERS_MAX];
    struct part parts[WORKERS_MAX];
    _Atomic unsigned waiting = count + 1;
    for (unsigned i = 0; i < count; i++) {
        parts[i] = (struct part){list, i, count, writes, bench_engine.share(store), &waiting};
        if (pthread_create(&threads[i], NULL, thread_run, &parts[i]) != 0) bench_die("no thread could be made");
    }
    while (atomic_load(&waiting) != 1) sched_yield();
    uint64_t start_ns = now_ns();
    atomic_fetch_sub(&waiting, 1);
    for (unsigned i = 0; i < count; i++) pthread_join(threads[i], NULL);
    report_parallel(&parts[0], "threads", now_ns() - start_ns);
    for (unsigned i = 0; i < count; i++) bench_engine.unshare(parts[i].store);
}

static void measure_processes(const struct job *job, const struct list *list, unsigned count, bool writes)
{
    _Atomic unsigned *waiting = mmap(NULL, sizeof *waiting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (waiting == MAP_FAILED) bench_die("mmap: %s", strerror(errno));
    atomic_store(waiting, count + 1);
    for (unsigned i = 0; i < count; i++) {
        pid_t process = fork();
        if (process < 0) bench_die("fork: %s", strerror(errno));
        if (process > 0) continue;
        struct engine_setup setup = setup_of(job, 0);
        struct part part = {list, i, count, writes, bench_engine.open(&setup), waiting};
        part_run(&part);
        _exit(0); // An engine that has to close takes the time of that outside of what is measured, or not at all.
    }
    while (atomic_load(waiting) != 1) {
        if (waitpid(-1, NULL, WNOHANG) != 0) bench_die("%s: a process has failed", bench_engine.name);
        sched_yield();
    }
    uint64_t start_ns = now_ns();
    atomic_fetch_sub(waiting, 1);
    for (unsigned i = 0; i < count; i++) {
        int status;
        if (wait(&status) < 0 || status != 0) bench_die("%s: a process has failed", bench_engine.name);
    }
    struct part part = {list, 0, count, writes, NULL, NULL};
    report_parallel(&part, "processes", now_ns() - start_ns);
    munmap((void *)waiting, sizeof *waiting);
}

/* One after the other up to as many as there are cores, doubling. */
static void phase_parallel(const struct job *job)
{
    if (!bench_engine.share) return;
    struct data data;
    data_make(&data, job->workload, job->seed, job->size, job->operations);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > WORKERS_MAX) cores = WORKERS_MAX;
    struct engine_setup setup = setup_of(job, 0);
    void *store = bench_engine.open(&setup);
    // Not in the order in which they were written last: that would be to read a log from its begin to its end.
    for (unsigned count = 1; count <= cores; count *= 2) {
        measure_threads(store, &data.again, count, false);
        measure_threads(store, &data.order, count, true);
    }
    bench_engine.close(store);
    if (!bench_engine.processes) return;
    for (unsigned count = 1; count <= cores; count *= 2) {
        measure_processes(job, &data.again, count, false);
        measure_processes(job, &data.order, count, true);
    }
}

/* ---- a map larger than memory ------------------------------------------------------------------------------------- */

enum { OUTGROWN_OPERATIONS_MAX = 1600 * BENCH_BLOCK_SIZE }; // of each kind: the disk is slow

/* Bytes that this process made the disk read. 0 if the kernel does not tell. */
static uint64_t bytes_read(void)
{
    char line[64];
    uint64_t bytes = 0;
    FILE *file = fopen("/proc/self/io", "r");
    while (file && fgets(line, sizeof line, file)) sscanf(line, "read_bytes: %" SCNu64, &bytes);
    if (file) fclose(file);
    return bytes;
}

static void phase_outgrown(const struct job *job)
{
    if (job->memory_bytes == 0) return;
    // Any keys, not only those that were updated: these lie together at the end of a log.
    struct data data;
    data_make(&data, job->workload, job->seed, job->size, job->size);
    size_t count = job->operations < OUTGROWN_OPERATIONS_MAX ? job->operations : OUTGROWN_OPERATIONS_MAX;
    count -= count % BENCH_BLOCK_SIZE;
    struct list first = list_slice(&data.again, 0, count);
    struct list read = list_slice(&data.again, count, count);
    struct list written = list_slice(&data.again, 2 * count, count);
    if (written.count == 0) bench_die("outgrown: the map is too small for %zu operations of each kind", count);
    memory_limit_evict(job->directory);
    if (!memory_limit_enter(job->memory_bytes)) {
        fprintf(stderr, "%s: outgrown: skipped: no control group with less memory can be made here\n",
                bench_engine.name);
        return;
    }
    struct engine_setup setup = setup_of(job, 0);
    setup.outgrown = true;
    void *store = bench_engine.open(&setup);

    bench_engine.reads_begin(store);
    pass_get(store, &first); // Until memory is full.
    uint64_t read_before = bytes_read();
    uint64_t start_ns = now_ns();
    struct tally tally = pass_get(store, &read);
    report_ns("get_outgrown", now_ns() - start_ns, read.count);
    report("read_outgrown", "KiB", (double)(bytes_read() - read_before) / 1024 / (double)read.count);
    bench_engine.reads_end(store);
    if (tally.found != read.count) {
        bench_die("%s: outgrown: %" PRIu64 " of %zu keys found", bench_engine.name, tally.found, read.count);
    }
    measure_writes("update_outgrown", store, pass_put, &written);
    bench_engine.close(store);
    memory_limit_leave();
}

static void phase_batch(const struct job *job)
{
    if (!bench_engine.write_many) return;
    struct data data;
    data_make(&data, job->workload, job->seed, job->size, job->operations);
    struct engine_setup setup = setup_of(job, data.load_bytes);
    void *store = bench_engine.open(&setup);
    measure_writes("write_many", store, pass_write_many, &data.load);
    check_reads("write_many", store, &data.order, (struct tally){data.order.count, data.order_sum_before});
    bench_engine.close(store);
}

static void phase_describe(const struct job *job)
{
    char text[512];
    bench_engine.describe(text, sizeof text, job->workload->u64_keys);
    puts(text);
}

static const struct {
    const char *name;
    void (*run)(const struct job *);
    bool reopens;
} phases[] = {
    {"load", phase_load, false},      {"reopen", phase_reopen, true},     {"killed", phase_killed, true},
    {"rebuild", phase_rebuild, true}, {"parallel", phase_parallel, true}, {"outgrown", phase_outgrown, true},
    {"remove", phase_remove, true},   {"batch", phase_batch, false},      {"describe", phase_describe, false},
};

static struct job parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"phase", required_argument, NULL, 'p'},
        {"workload", required_argument, NULL, 'w'},
        {"size", required_argument, NULL, 's'},
        {"operations", required_argument, NULL, 'o'},
        {"seed", required_argument, NULL, 'r'},
        {"turnovers", required_argument, NULL, 't'},
        {"memory", required_argument, NULL, 'm'},
        {"dir", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    struct job job = {.phase = "", .operations = SIZE_MAX, .seed = 1, .turnovers = 2};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
            case 'p': job.phase = optarg; break;
            case 'w': job.workload = workload_find(optarg); break;
            case 's': job.size = strtoull(optarg, NULL, 10); break;
            case 'o': job.operations = strtoull(optarg, NULL, 10); break;
            case 'r': job.seed = strtoull(optarg, NULL, 10); break;
            case 't': job.turnovers = (unsigned)strtoul(optarg, NULL, 10); break;
            case 'm': job.memory_bytes = strtoull(optarg, NULL, 10); break;
            case 'd': job.directory = optarg; break;
            default: exit(2);
        }
    }
    if (!job.workload || job.size == 0 || !job.directory) bench_die("--workload, --size and --dir are needed");
    if (job.operations > job.size) job.operations = job.size;
    return job;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0); // What was measured is told even if this process is killed.
    struct job job = parse(argc, argv);
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        if (strcmp(phases[i].name, job.phase) != 0) continue;
        if (!phases[i].reopens || bench_engine.persistent) phases[i].run(&job);
        return 0;
    }
    bench_die("there is no phase '%s'", job.phase);
}
