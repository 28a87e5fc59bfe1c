/* status.c - names, messages and the detail of failures. Contract: status.h. */
#include "status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *odm_status_name(odm_status status)
{
    switch (status) {
#define NAME(name, code, message) \
    case name: return #name;
        ODM_STATUS_LIST(NAME)
#undef NAME
        default: return "unknown status";
    }
}

const char *odm_status_message(odm_status status)
{
    switch (status) {
#define MESSAGE(name, code, message) \
    case name: return message;
        ODM_STATUS_LIST(MESSAGE)
#undef MESSAGE
        default: return "unknown status";
    }
}

uint32_t odm_version(void)
{
    return ODM_VERSION;
}

const char *odm_version_string(void)
{
    return ODM_VERSION_STRING;
}

void odm__note(odm_error *error, odm_status status, const char *format, ...)
{
    if (error == NULL) return;
    va_list arguments;
    va_start(arguments, format);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see the va_start before it.
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    error->status = status;
    error->os_errno = 0;
}

static odm_status status_of_errno(int number)
{
    switch (number) {
        case ENOSPC:
        case EDQUOT:
        case EFBIG: return ODM_E_NO_SPACE;
        case ENOMEM:
        case EMFILE:
        case ENFILE:
        case EAGAIN: return ODM_E_NO_MEMORY;
        case EROFS: return ODM_E_READ_ONLY;
        default: return ODM_E_IO;
    }
}

odm_status odm__note_os(odm_error *error, const char *verb, const char *name)
{
    enum { SHOWN = 120 }; // bytes of a name, its last ones: what happened must have room, too
    int number = errno;
    odm_status status = status_of_errno(number);
    size_t size = strlen(name);
    odm__note(error, status, "%s %s%s: %s", verb, size > SHOWN ? "..." : "", size > SHOWN ? name + size - SHOWN : name,
              strerror(number));
    if (error != NULL) error->os_errno = number;
    return status;
}

odm_status odm__fail_sync(odm_error *error, const char *name)
{
    (void)odm__note_os(error, "sync", name);
    if (error != NULL) error->status = ODM_E_IO;
    return ODM_E_IO;
}

void odm__error_copy(odm_error *to, const odm_error *from)
{
    if (to == NULL || to->struct_size < offsetof(odm_error, message)) return;
    uint32_t size = to->struct_size;
    size_t copied = size < sizeof *from ? size : sizeof *from;
    memcpy(to, from, copied);
    to->struct_size = size;
    if (copied > offsetof(odm_error, message)) ((char *)to)[copied - 1] = '\0';
}
