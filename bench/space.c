/* space.c - how long the log gets, how much is written, and how long a put takes, while the same entries are put again and again.
 *
 *   bench_space [--entries 1000000] [--times 20] [--seconds N] [--pattern 0] [--dir PATH]
 *
 * Makes a map of entries (8-byte keys, values of 1 to 250 bytes), then updates them until every entry was put `times` on average,
 * or for that many seconds: all evenly (pattern 0); nine of ten among one in a hundred (1); or in a window of one in a hundred that
 * moves once through the keys a round (2); without --pattern all three. Nobody syncs. Every thousandth put is followed by a look at
 * the map's statistics, which is not timed. Prints a Markdown table; the times of puts have the clock's own 20 ns in them. The exit
 * status is 1 if the log was ever longer than promised: twice the live bytes, or 64 MiB above them, with a segment and a record more.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "opendiskmap.h"

enum { VALUE_SIZE_MAX = 250, LOOK_EVERY = 1000, PATTERNS = 3 };
#define SLACK_BYTES (UINT64_C(64) << 20)

static const char *const pattern_names[PATTERNS] = {"uniform", "1 % hot", "sliding window"};

static uint64_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static void must(odm_status status, const char *what)
{
    if (status == ODM_OK) return;
    fprintf(stderr, "%s: %s\n", what, odm_status_name(status));
    exit(2);
}

static odm_statistics look(odm_map *map)
{
    odm_statistics statistics = {.struct_size = sizeof statistics};
    must(odm_stat(map, &statistics), "stat");
    return statistics;
}

static uint64_t disk_bytes(const char *path)
{
    char command[600], line[32] = "";
    snprintf(command, sizeof command, "du -s --block-size=1 '%s'", path);
    FILE *du = popen(command, "r");
    if (du == NULL || fgets(line, sizeof line, du) == NULL) line[0] = '0';
    if (du != NULL) (void)pclose(du);
    return strtoull(line, NULL, 10);
}

static uint64_t put_one(odm_map *map, uint64_t number, uint64_t *random)
{
    static unsigned char value[VALUE_SIZE_MAX];
    uint64_t key = number * UINT64_C(0x9E3779B97F4A7C15); // distinct, and not in order
    size_t size = 1 + random_next(random) % VALUE_SIZE_MAX;
    memcpy(value, &number, size < sizeof number ? size : sizeof number);
    must(odm_put(map, &key, sizeof key, value, size), "put");
    return sizeof key + size;
}

/* ---- times of puts: counted in classes of an eighth of a power of two ------------------------------------------------ */

enum { CLASSES = 64 * 8 };
static uint64_t counts[CLASSES];

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void count_time(uint64_t ns)
{
    unsigned bits = ns < 8 ? 3 : 63 - (unsigned)__builtin_clzll(ns);
    ++counts[bits * 8 + (ns >> (bits - 3) & 7)];
}

/* The upper end of the class in which the slowest of `share` of all puts lies: ns. */
static double percentile(double share)
{
    uint64_t all = 0, seen = 0;
    for (int i = 0; i < CLASSES; ++i) all += counts[i];
    for (int i = 0; i < CLASSES; ++i) {
        seen += counts[i];
        if ((double)seen >= share * (double)all && seen != 0) return (double)(UINT64_C(1) << i / 8) * (9 + i % 8) / 8;
    }
    return 0;
}

struct result {
    double log_to_live;   // the most there ever was
    double bound_to_live; // what was allowed then
    double amplification; // bytes appended for each byte of records put
    double disk_to_live;  // at the end, all files
    bool kept;            // the bound
};

static struct result run(const char *path, uint64_t entries, uint64_t times, uint64_t seconds, int pattern)
{
    odm_map *map;
    odm_error error = {.struct_size = sizeof error};
    odm_options options = {.struct_size = sizeof options, .flags = ODM_MUST_CREATE | ODM_ANY_FILE_SYSTEM};
    if (odm_open(path, &options, &map, &error) != ODM_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(2);
    }
    uint64_t random = 1, payload = 0, put_records = 0, puts = 0;
    for (uint64_t i = 0; i < entries; ++i) payload += put_one(map, i, &random);

    struct result result = {.kept = true};
    uint64_t hot = entries / 100 + 1, updates = entries * times;
    odm_statistics before = look(map);
    memset(counts, 0, sizeof counts);
    uint64_t end_ns = now_ns() + seconds * 1000000000U;
    for (; seconds != 0 ? puts % LOOK_EVERY != 0 || now_ns() < end_ns : puts < updates; ++puts) {
        uint64_t any = random_next(&random);
        uint64_t number = pattern == 0   ? any % entries
                          : pattern == 1 ? (any % 10 != 0 ? any / 10 % hot : any / 10 % entries)
                                         : (puts * entries / (updates / times) + any % hot) % entries;
        uint64_t since_ns = now_ns();
        uint64_t size = put_one(map, number, &random);
        count_time(now_ns() - since_ns);
        put_records += (24 + 8 + (size - 8 + 7) / 8 * 8);
        if (puts % LOOK_EVERY != 0) continue;
        odm_statistics now = look(map);
        uint64_t slack = now.live_bytes > SLACK_BYTES ? now.live_bytes : SLACK_BYTES;
        double ratio = (double)now.log_bytes / (double)now.live_bytes;
        uint64_t segment = now.log_bytes / now.segments * 2; // of the biggest, more or less
        if (now.log_bytes > now.live_bytes + slack + segment + VALUE_SIZE_MAX) result.kept = false;
        if (ratio > result.log_to_live) {
            result.log_to_live = ratio;
            result.bound_to_live = (double)(now.live_bytes + slack) / (double)now.live_bytes;
        }
    }
    odm_statistics after = look(map);
    result.amplification = 1 + (double)(after.compacted_bytes - before.compacted_bytes) / (double)put_records;
    result.disk_to_live = (double)disk_bytes(path) / (double)after.live_bytes;
    (void)odm_close(map);
    return result;
}

static void remove_map(const char *path)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0) fprintf(stderr, "%s stays\n", path);
}

int main(int argc, char **argv)
{
    uint64_t entries = 1000000, times = 20, seconds = 0;
    int only = -1;
    const char *parent = getenv("TMPDIR");
    if (parent == NULL) parent = "/tmp";
    static const struct option known[] = {
        {"entries", required_argument, NULL, 'e'}, {"times", required_argument, NULL, 't'},
        {"seconds", required_argument, NULL, 's'}, {"pattern", required_argument, NULL, 'p'},
        {"dir", required_argument, NULL, 'd'},     {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 'e')
            entries = strtoull(optarg, NULL, 10);
        else if (option == 't')
            times = strtoull(optarg, NULL, 10);
        else if (option == 's')
            seconds = strtoull(optarg, NULL, 10);
        else if (option == 'p')
            only = (int)strtol(optarg, NULL, 10);
        else if (option == 'd')
            parent = optarg;
        else
            return 2;
    }
    if (entries == 0 || times == 0 || optind != argc) {
        fprintf(stderr, "bench_space [--entries N] [--times N] [--seconds N] [--pattern 0|1|2] [--dir PATH]\n");
        return 2;
    }
    bool kept = true;
    printf(
        "| updates of %" PRIu64 " entries | log ÷ live, most | bound then | bytes written ÷ put | disk ÷ live "
        "| put: median | 99 %% | 99.9 %% | 99.99 %% | longest |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        entries);
    for (int pattern = 0; pattern < PATTERNS; ++pattern) {
        if (only >= 0 && pattern != only) continue;
        char path[512];
        snprintf(path, sizeof path, "%s/bench_space.%ld.%d", parent, (long)time(NULL), pattern);
        struct result result = run(path, entries, times, seconds, pattern);
        printf("| %s | %.2f | %.2f | %.2f | %.2f | %.0f ns | %.1f µs | %.1f µs | %.0f µs | %.1f ms |%s\n",
               pattern_names[pattern], result.log_to_live, result.bound_to_live, result.amplification,
               result.disk_to_live, percentile(0.5), percentile(0.99) / 1e3, percentile(0.999) / 1e3,
               percentile(0.9999) / 1e3, percentile(1) / 1e6, result.kept ? "" : " above the bound!");
        fflush(stdout);
        remove_map(path);
        kept = kept && result.kept;
    }
    return kept ? 0 : 1;
}
