/* walk.c - walks over a map, removes entries during the walk, stops, and goes on from there.
 *
 *     cc walk.c -lopendiskmap -o walk && ./walk [directory] */
#include <opendiskmap.h>
#include <stdio.h>
enum { COUNT = 10000 };
static int seen[COUNT], missed = COUNT;

/* Visits up to `limit` entries from *position on, marks them, removes those with an odd key. */
static odm_status walk(odm_map *map, uint64_t *position, int limit)
{
    odm_iter *iter = NULL;
    const void *key;
    size_t size;
    odm_status status = odm_iter_open(map, &iter);
    if (status == ODM_OK) status = odm_iter_seek(iter, *position);
    while (status == ODM_OK && limit-- > 0) {
        if ((status = odm_iter_next(iter, &key, &size, NULL, NULL)) != ODM_OK) break;
        uint32_t n = size == 4 ? *(const uint32_t *)key : COUNT; // Keys are 8-byte aligned too.
        if (n >= COUNT) continue;                                // Not one of ours.
        if (seen[n]++ == 0) missed--;
        if (n % 2 == 1) status = odm_remove(map, key, size); // `key` lies in the map: that is fine.
    }
    if (status >= 0) odm_iter_position(iter, position); // Any process may go on from it.
    odm_iter_close(iter);
    return status;
}

int main(int argc, char **argv)
{
    uint64_t position = 0; // The start.
    odm_map *map = NULL;
    odm_status status = odm_open(argc > 1 ? argv[1] : "numbers.map", NULL, &map, NULL);
    for (uint32_t n = 0; n < COUNT && status == ODM_OK; n++) status = odm_put(map, &n, 4, NULL, 0);
    if (status == ODM_OK) status = walk(map, &position, COUNT / 3);
    if (status == ODM_OK) status = walk(map, &position, 2 * COUNT); // Another, to the end.
    FILE *to = status == ODM_DONE ? stdout : stderr;
    if (status == ODM_DONE) fprintf(to, "missed: %d, left: %d, ", missed, (int)odm_count(map));
    fprintf(to, "%s\n", odm_status_message(status));
    return odm_close(map) != ODM_OK || status != ODM_DONE;
}
