/* space.c - how long the log gets, and how much is written, while the same entries are put again and again.
 *
 *   bench_space [--entries 1000000] [--times 20] [--dir PATH]
 *
 * Makes a map of entries (8-byte keys, values of 1 to 250 bytes), then updates them until `times` the live bytes were put: all
 * evenly; nine of ten among one in a hundred; or in a window of one in a hundred that moves once through the keys a round. Nobody
 * syncs. Every thousandth put looks at the map's statistics. Prints a Markdown table. The exit status is 1 if the log was ever
 * longer than promised: twice the live bytes, or 64 MiB above them, with a segment and a record more.
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

struct result {
    double log_to_live;   // the most there ever was
    double bound_to_live; // what was allowed then
    double amplification; // bytes appended for each byte of records put
    double disk_to_live;  // at the end, all files
    bool kept;            // the bound
};

static struct result run(const char *path, uint64_t entries, uint64_t times, int pattern)
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
    for (; puts < updates; ++puts) {
        uint64_t any = random_next(&random);
        uint64_t number = pattern == 0   ? any % entries
                          : pattern == 1 ? (any % 10 != 0 ? any / 10 % hot : any / 10 % entries)
                                         : (puts * entries / (updates / times) + any % hot) % entries;
        uint64_t size = put_one(map, number, &random);
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
    uint64_t entries = 1000000, times = 20;
    const char *parent = getenv("TMPDIR");
    if (parent == NULL) parent = "/tmp";
    static const struct option known[] = {{"entries", required_argument, NULL, 'e'},
                                          {"times", required_argument, NULL, 't'},
                                          {"dir", required_argument, NULL, 'd'},
                                          {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 'e') entries = strtoull(optarg, NULL, 10);
        else if (option == 't') times = strtoull(optarg, NULL, 10);
        else if (option == 'd') parent = optarg;
        else return 2;
    }
    if (entries == 0 || times == 0 || optind != argc) {
        fprintf(stderr, "bench_space [--entries N] [--times N] [--dir PATH]\n");
        return 2;
    }
    bool kept = true;
    printf("| updates, %" PRIu64 " entries, %" PRIu64 " times | log ÷ live, most | bound then | bytes written ÷ put | disk ÷ live |\n",
           entries, times);
    printf("|---|---:|---:|---:|---:|\n");
    for (int pattern = 0; pattern < PATTERNS; ++pattern) {
        char path[512];
        snprintf(path, sizeof path, "%s/bench_space.%ld.%d", parent, (long)time(NULL), pattern);
        struct result result = run(path, entries, times, pattern);
        printf("| %s | %.2f | %.2f | %.2f | %.2f |%s\n", pattern_names[pattern], result.log_to_live,
               result.bound_to_live, result.amplification, result.disk_to_live, result.kept ? "" : " above the bound!");
        fflush(stdout);
        remove_map(path);
        kept = kept && result.kept;
    }
    return kept ? 0 : 1;
}
