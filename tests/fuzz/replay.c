/* replay.c - gives a fuzz target every file of a folder, in the order of their names: the corpus as an ordinary test.
 * Each is given to the real kernel, and to that of ramdisk.h.
 *
 *   fuzz_<target> <folder or file>... */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "scratch.h"

static size_t replayed;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    right(file != NULL, "%s", path);
    static uint8_t bytes[1 << 20];
    size_t size = fread(bytes, 1, sizeof bytes, file);
    right(size < sizeof bytes && !ferror(file), "%s is too long", path);
    fclose(file);
    fprintf(stderr, "%s\n", path);
    // A copy of its own, so that AddressSanitizer sees who reads beyond its end.
    uint8_t *copy = malloc(size + 1);
    right(copy != NULL, "memory");
    memcpy(copy, bytes, size);
    for (int in_memory = 0; in_memory < 2; ++in_memory) {
        scratch_choose(in_memory != 0);
        (void)LLVMFuzzerTestOneInput(copy, size);
    }
    free(copy);
    ++replayed;
}

static void replay(const char *path)
{
    struct stat status;
    right(stat(path, &status) == 0, "%s", path);
    if (!S_ISDIR(status.st_mode)) {
        replay_file(path);
        return;
    }
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; ++i) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.') replay(inner);
        free(names[i]);
    }
    if (count >= 0) free(names);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; ++i) replay(argv[i]);
    printf("%zu inputs\n", replayed);
    return replayed == 0; // A corpus that is not there tests nothing.
}
