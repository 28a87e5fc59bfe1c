/* get_cost.c - gets and puts over a small map, for counting instructions: see instructions.sh.
 *
 *   bench_get_cost --dir EMPTY_DIRECTORY [--gets N] [--puts N]
 *
 * The map has 10,000 integer keys with values of 8 bytes. Two runs that differ only in N differ only in N times the loop:
 * its instructions are the call's own and some ten of the loop around it.
 */
#include <opendiskmap.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum { KEY_COUNT = 10000 };

/* Spreads the counter over all bits, one to one: so the keys are distinct. */
static uint64_t key_at(uint64_t i)
{
    return (i % KEY_COUNT + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void check(odm_status status, const char *what)
{
    if (status == ODM_OK) return;
    fprintf(stderr, "%s: %s\n", what, odm_status_name(status));
    exit(1);
}

static void put_all(odm_map *map, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key = key_at(i);
        check(odm_put(map, &key, sizeof key, &i, sizeof i), "put");
    }
}

static uint64_t get_all(odm_map *map, uint64_t count)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key = key_at(i);
        const void *value;
        size_t value_size;
        check(odm_get(map, &key, sizeof key, &value, &value_size), "get");
        sum += *(const uint64_t *)value; // Values are 8-byte aligned.
    }
    return sum;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'},
        {"gets", required_argument, NULL, 'g'},
        {"puts", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    const char *directory = NULL;
    uint64_t gets = 0;
    uint64_t puts_count = 0;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
            case 'd': directory = optarg; break;
            case 'g': gets = strtoull(optarg, NULL, 10); break;
            case 'p': puts_count = strtoull(optarg, NULL, 10); break;
            default: return 2;
        }
    }
    if (!directory) {
        fputs("--dir is needed\n", stderr);
        return 2;
    }

    odm_map *map;
    odm_error error = {.struct_size = sizeof error};
    if (odm_open(directory, NULL, &map, &error) != ODM_OK) {
        fprintf(stderr, "open: %s\n", error.message);
        return 1;
    }
    put_all(map, KEY_COUNT);
    put_all(map, puts_count);                                 // Updates: the keys are the same again.
    printf("%llu\n", (unsigned long long)get_all(map, gets)); // Printed, so that it is computed.
    check(odm_close(map), "close");
    return 0;
}
