#include <opendiskmap.h>
#include <string.h>

int main(void)
{
    odm_map *map;
    const void *value;
    size_t size;
    if (odm_open(NULL, NULL, &map, NULL) != ODM_OK) return 1;
    if (odm_put(map, "red", 3, "#f00", 4) != ODM_OK) return 2;
    if (odm_get(map, "red", 3, &value, &size) != ODM_OK || size != 4 || memcmp(value, "#f00", 4) != 0) return 3;
    return odm_close(map);
}
