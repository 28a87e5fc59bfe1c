/* zero_copy.c - a C struct stored as a value, read where it lies, and kept while others write.
 *
 *     cc zero_copy.c -lopendiskmap -o zero_copy && ./zero_copy [directory] */
#include <opendiskmap.h>
#include <stdio.h>

struct city { // 8-byte aligned in the map, so any struct of numbers can be used in place.
    double latitude, longitude;
    uint64_t people;
};

/* Rome's value in the map itself; NULL if there is none. */
static const struct city *rome(odm_map *map)
{
    const void *value;
    size_t size;
    if (odm_get(map, "Rome", 4, &value, &size) != ODM_OK) return NULL;
    return size == sizeof(struct city) ? value : NULL;
}

int main(int argc, char **argv)
{
    odm_map *map = NULL;
    odm_options options = ODM_OPTIONS_INIT;
    options.schema = "str/struct{latitude:f64,longitude:f64,people:u64}"; // Checked at every open.
    options.schema_size = 49;
    odm_status status = odm_open(argc > 1 ? argv[1] : "cities.map", &options, &map, NULL);
    struct city city = {41.9, 12.5, 2750000};
    if (status == ODM_OK) status = odm_put(map, "Rome", 4, &city, sizeof city);
    const struct city *then = rome(map);
    city.people++;
    if (status == ODM_OK) status = odm_put(map, "Rome", 4, &city, sizeof city);
    const struct city *now = rome(map);
    if (then && now) printf("then %d, now %d people\n", (int)then->people, (int)now->people);
    odm_refresh(map); // Ends `then` and `now`: do not touch them any more.
    if (status != ODM_OK) fprintf(stderr, "zero_copy: %s\n", odm_status_message(status));
    odm_close(map);
    return status != ODM_OK || then == NULL || now == NULL;
}
