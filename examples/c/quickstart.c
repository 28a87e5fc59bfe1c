/* quickstart.c - put, get, insert if absent, remove. Run it twice: what the first run put is there.
 *
 *     cc quickstart.c -lopendiskmap -o quickstart && ./quickstart [directory] */
#include <opendiskmap.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "colours.map";
    odm_error error = {.struct_size = sizeof error};
    odm_map *map = NULL;
    odm_status status = odm_open(path, NULL, &map, &error); // Makes the map if there is none.
    if (status != ODM_OK) {
        fprintf(stderr, "%s: %s\n", odm_status_name(status), error.message);
        return 1;
    }
    printf("entries found: %llu\n", (unsigned long long)odm_count(map));

    const void *value;
    size_t size;
    if ((status = odm_put(map, "red", 3, "#ff0000", 7)) != ODM_OK) goto done;
    if ((status = odm_put(map, "grey", 4, "#808080", 7)) != ODM_OK) goto done;
    if ((status = odm_get(map, "red", 3, &value, &size)) != ODM_OK) goto done;
    printf("red is %.*s\n", (int)size, (const char *)value); // No copy: it points into the map.

    status = odm_entry_put(map, "sky", 3, "#87ceeb", 7, 0); // 0: only if the key is absent.
    if (status < 0) goto done;
    printf("insert sky: %s\n", odm_status_message(status));
    if ((status = odm_remove(map, "grey", 4)) != ODM_OK) goto done;
    if ((status = odm_get(map, "grey", 4, NULL, NULL)) < 0) goto done;
    printf("grey after its removal: %s\n", odm_status_name(status));
    status = odm_sync(map, &error); // From here on all of it survives power loss too.
done:
    if (status < 0) odm_last_error(map, &error); // The detail: what, which file, the cure.
    if (status != ODM_OK) fprintf(stderr, "%s: %s\n", odm_status_name(status), error.message);
    odm_close(map);
    return status != ODM_OK;
}
