/* status.c - the version and the statuses that the library tells are those of the header. */
#include "opendiskmap.h"

#include <stdio.h>
#include <string.h>

static int failures;

static void check(int holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "not so: %s\n", what);
    failures++;
}

static void check_status(odm_status status, int code, const char *name, const char *message)
{
    check(status == code, name);
    check(strcmp(odm_status_name(status), name) == 0, name);
    check(strcmp(odm_status_message(status), message) == 0, name);
    check(message[0] != '\0' && message[strlen(message) - 1] != '.', name);
}

static void check_unknown(odm_status status)
{
    check(strcmp(odm_status_name(status), "unknown status") == 0, "the name of an unknown status");
    check(strcmp(odm_status_message(status), "unknown status") == 0, "the message of an unknown status");
}

int main(void)
{
    check(odm_version() == ODM_VERSION, "odm_version() is ODM_VERSION");
    check(strcmp(odm_version_string(), ODM_VERSION_STRING) == 0, "odm_version_string() is ODM_VERSION_STRING");
    check(strcmp(odm_version_string(), PROJECT_VERSION) == 0, "odm_version_string() is the version CMake knows");
    char numbers[32];
    snprintf(numbers, sizeof numbers, "%d.%d.%d", ODM_VERSION_MAJOR, ODM_VERSION_MINOR, ODM_VERSION_PATCH);
    check(strcmp(numbers, ODM_VERSION_STRING) == 0, "the version's numbers are those of its string");

#define CHECK(name, code, message) check_status(name, code, #name, message);
    ODM_STATUS_LIST(CHECK)
#undef CHECK
    check_unknown(ODM_WOULD_BLOCK + 1);
    check_unknown(ODM_E_UNSUPPORTED - 1);
    check_unknown(INT32_MAX);
    check_unknown(INT32_MIN);
    return failures != 0;
}
