/* worker.c - one engine's part of one round: a program that runs one phase and prints what it measured.
 *
 *   bench_worker_<engine> --phase PHASE --workload NAME --size ENTRIES --operations N --seed N --dir EMPTY_DIRECTORY
 *
 * Phases, each a process of its own, in this order (the second and the third use the directory of the first):
 *   load     open a new map, put everything, read it in several ways, update, close
 *   reopen   open the closed map, get a key; then write, and die by SIGKILL without closing
 *   remove   open what the killed process left; then remove
 *   batch    open a new map, in another directory, and put everything by write_many
 *   describe print one line: version and settings
 *
 * Output: lines of "metric unit value", for runner.c. Every answer of the engine is checked: sums of the values' bytes
 * against those of the data, outside of the timed parts.
 */
#include "data.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

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
        tally.found += bench_engine.get_many(store, &block, values, value_sizes);
        for (size_t i = 0; i < block.count; i++) {
            if (values[i]) tally.sum += touch(values[i], value_sizes[i]);
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

static void measure_reads(const char *metric, void *store, struct tally (*pass)(void *, const struct list *),
                          const struct list *list, struct tally expected)
{
    uint64_t elapsed_ns = 0;
    uint64_t passes = 0;
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

/* Untimed: what is in the map is what was put there. */
static void check_reads(const char *metric, void *store, const struct list *list, struct tally expected)
{
    bench_engine.reads_begin(store);
    check_tally(metric, pass_get(store, list), expected);
    bench_engine.reads_end(store);
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

static void measure_disk(const char *directory, uint64_t payload_bytes)
{
    disk_bytes = 0;
    if (nftw(directory, add_disk_bytes, 16, FTW_PHYS) != 0) bench_die("%s: %s", directory, strerror(errno));
    report("disk", "ratio", (double)disk_bytes / (double)payload_bytes);
}

/* ---- phases ------------------------------------------------------------------------------------------------------ */

struct job {
    const char *phase;
    const struct workload *workload;
    size_t size;
    size_t operations;
    uint64_t seed;
    const char *directory;
};

static struct engine_setup setup_of(const struct job *job, uint64_t payload_bytes)
{
    return (struct engine_setup){
        .directory = job->directory,
        .create = payload_bytes != 0,
        .u64_keys = job->workload->u64_keys,
        .payload_bytes = payload_bytes,
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

    measure_writes("put", store, pass_put, &data.load);
    measure_disk(job->directory, data.load_bytes);

    struct tally before = {data.order.count, data.order_sum_before};
    measure_reads("get", store, pass_get, &data.order, before);
    measure_reads("get_miss", store, pass_get, &data.absent, (struct tally){0, 0});
    if (bench_engine.get_many) measure_reads("get_many", store, pass_get_many, &data.order, before);
    measure_reads("iterate", store, pass_walk, &data.load, (struct tally){data.load.count, data.load_sum});

    measure_writes("update", store, pass_put, &data.order);
    check_reads("update", store, &data.order, (struct tally){data.order.count, data.order_sum_after});

    uint64_t start_ns = now_ns();
    bench_engine.close(store);
    report_ns("close", now_ns() - start_ns, 1);
}

static void phase_reopen(const struct job *job)
{
    // The first keys of the big map: see data.h.
    size_t count = job->size < WRITES_BEFORE_KILL ? job->size : WRITES_BEFORE_KILL;
    struct data data;
    data_make(&data, job->workload, job->seed, count, 0);

    void *store = open_timed(job, &data.load, "open_closed", "first_get_closed");
    pass_put(store, &data.load);
    fflush(stdout);
    raise(SIGKILL);
}

static void phase_remove(const struct job *job)
{
    struct data data;
    data_make(&data, job->workload, job->seed, job->size, job->operations);

    void *store = open_timed(job, &data.load, "open_killed", "first_get_killed");
    uint64_t start_ns = now_ns();
    uint64_t removed = pass_remove(store, &data.order);
    bench_engine.writes_end(store);
    report_ns("remove", now_ns() - start_ns, data.order.count);
    if (removed != data.order.count) bench_die("%s: remove: keys were missing", bench_engine.name);
    check_reads("remove", store, &data.order, (struct tally){0, 0});
    bench_engine.close(store);
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
    {"load", phase_load, false},   {"reopen", phase_reopen, true},      {"remove", phase_remove, true},
    {"batch", phase_batch, false}, {"describe", phase_describe, false},
};

static struct job parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"phase", required_argument, NULL, 'p'},
        {"workload", required_argument, NULL, 'w'},
        {"size", required_argument, NULL, 's'},
        {"operations", required_argument, NULL, 'o'},
        {"seed", required_argument, NULL, 'r'},
        {"dir", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    struct job job = {.phase = "", .operations = SIZE_MAX, .seed = 1};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
            case 'p': job.phase = optarg; break;
            case 'w': job.workload = workload_find(optarg); break;
            case 's': job.size = strtoull(optarg, NULL, 10); break;
            case 'o': job.operations = strtoull(optarg, NULL, 10); break;
            case 'r': job.seed = strtoull(optarg, NULL, 10); break;
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
    struct job job = parse(argc, argv);
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        if (strcmp(phases[i].name, job.phase) != 0) continue;
        if (!phases[i].reopens || bench_engine.persistent) phases[i].run(&job);
        return 0;
    }
    bench_die("there is no phase '%s'", job.phase);
}
