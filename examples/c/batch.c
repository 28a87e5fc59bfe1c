/* batch.c - many keys in one call: puts, inserts and removes mixed, then many gets at once.
 * Keys lie packed in one buffer; ends[i] is where key i ends. Values likewise.
 *
 *     cc batch.c -lopendiskmap -o batch && ./batch [directory] */
#include <opendiskmap.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    odm_map *map = NULL;
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_open(argc > 1 ? argv[1] : "fruit.map", NULL, &map, &error);
    if (status != ODM_OK) {
        fprintf(stderr, "%s: %s\n", odm_status_name(status), error.message);
        return 1;
    }
    static const uint8_t ops[4] = {ODM_OP_PUT, ODM_OP_INSERT, ODM_OP_REMOVE, ODM_OP_PUT};
    static const uint64_t key_ends[4] = {5, 9, 13, 18}, value_ends[4] = {3, 9, 9, 14};
    const char *keys = "applepearplumpeach";
    uint8_t outcomes[4];
    size_t n = 4; // In: how many. Out: how many were done: all, unless an error is returned.
    status = odm_write_many(map, &n, ops, keys, key_ends, "redyellowround", value_ends, outcomes);
    for (size_t i = 0; i < n; i++) printf("write %zu: %s\n", i, odm_status_message(outcomes[i]));
    if (status != ODM_OK) goto done;

    const void *values[4]; // They point into the map: nothing is copied, nothing to free.
    uint64_t sizes[4];
    status = odm_get_many(map, &n, keys, key_ends, values, sizes);
    for (size_t i = 0; i < n; i++)
        if (sizes[i] == ODM_ABSENT)
            printf("get %zu: absent\n", i);
        else
            printf("get %zu: %.*s\n", i, (int)sizes[i], (const char *)values[i]);
done:
    if (status != ODM_OK) fprintf(stderr, "batch: %s\n", odm_status_message(status));
    odm_close(map);
    return status != ODM_OK;
}
