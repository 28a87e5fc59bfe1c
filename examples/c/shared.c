/* shared.c - two processes on one map: each reads at once what the other has just written.
 *
 *     cc shared.c -lopendiskmap -o shared && ./shared [directory] */
#include <opendiskmap.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Waits until the number under `key` is `n`, for 10 s at most. */
static int wait_for(odm_map *map, const char *key, uint64_t n)
{
    const void *value;
    size_t size;
    for (int tries = 0; tries < 100000; tries++, usleep(100)) {
        odm_refresh(map); // Lets go of the last `value`.
        if (odm_get(map, key, 1, &value, &size) != ODM_OK || size != sizeof n) continue;
        if (*(const uint64_t *)value == n) return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    odm_map *map = NULL;
    if (odm_open(argc > 1 ? argv[1] : "shared.map", NULL, &map, NULL) < 0) return 1;
    if (odm_remove(map, "q", 1) < 0 || odm_remove(map, "a", 1) < 0) return 1; // Of an earlier run.
    pid_t child = fork(); // Both go on using the map, each with its copy of the handle.
    int ended = -1, ok = child >= 0;
    for (uint64_t n = 1; n <= 5 && ok; n++) {
        uint64_t sq = n * n;
        ok = child == 0 ? odm_put(map, "q", 1, &n, 8) == ODM_OK && wait_for(map, "a", sq)  // Asks, waits.
                        : wait_for(map, "q", n) && odm_put(map, "a", 1, &sq, 8) == ODM_OK; // Answers.
        if (child > 0 && ok) printf("the child asked %d, the parent put %d\n", (int)n, (int)sq);
    }
    if (!ok) fprintf(stderr, "shared: the other process did not answer, or the map failed\n");
    if (child > 0) waitpid(child, &ended, 0);
    odm_close(map);
    return !ok || (child > 0 && ended != 0);
}
