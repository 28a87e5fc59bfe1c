/* entry.c - counts words, in a map that any number of these programs may count into at once:
 * read an entry with its version, decide, write only if it is still at that version; else again.
 *
 *     cc entry.c -lopendiskmap -o entry && ./entry [directory] < text */
#include <opendiskmap.h>
#include <stdio.h>
#include <string.h>

/* Adds 1 to the count of `word`; *n becomes the new count. */
static odm_status count(odm_map *map, const char *word, uint64_t *n)
{
    const void *value;
    size_t size;
    uint64_t version; // 0 means "vacant": put only if there still is no such entry.
    odm_status status;
    do {
        odm_refresh(map); // Lets go of the `value` of the last round.
        status = odm_entry_get(map, word, strlen(word), &value, &size, &version);
        if (status < 0) return status;
        *n = 0;
        if (status == ODM_OK && size == sizeof *n) memcpy(n, value, sizeof *n);
        *n += 1;
        status = odm_entry_put(map, word, strlen(word), n, sizeof *n, version);
    } while (status == ODM_EXISTS || status == ODM_CONFLICT); // Somebody else was faster.
    return status;
}

int main(int argc, char **argv)
{
    odm_map *map = NULL;
    char word[64]; // A word is what blanks separate; a longer one is counted in pieces.
    uint64_t n;
    odm_status status = odm_open(argc > 1 ? argv[1] : "words.map", NULL, &map, NULL);
    while (status == ODM_OK && scanf("%63s", word) == 1)
        if ((status = count(map, word, &n)) == ODM_OK) printf("%s %d\n", word, (int)n);
    if (status != ODM_OK) fprintf(stderr, "entry: %s\n", odm_status_message(status));
    odm_close(map);
    return status != ODM_OK;
}
