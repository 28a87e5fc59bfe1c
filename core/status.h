/* status.h - how a failure travels: a status as the result, its detail in the caller's odm_error.
 *
 * Calls nothing. Thread-safe. Everything here accepts a NULL error; odm__fail is the status it was given, so that a
 * failing branch is one line: return odm__fail(error, ODM_E_CORRUPT, "...").
 */
#ifndef ODM_STATUS_H
#define ODM_STATUS_H

#include "opendiskmap.h"

/* Sets *error to the status and a formatted message. */
void odm__note(odm_error *error, odm_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

static inline odm_status odm__same(odm_status status)
{
    return status;
}

/* The same, and is the status: a macro, so that who checks the code sees that it is not ODM_OK. */
#define odm__fail(error, status, ...) (odm__note(error, status, __VA_ARGS__), odm__same(status))

/* The same for a system call that has just failed: errno becomes the status, "verb name: reason" the message.
 * ENOSPC, EDQUOT and EFBIG: NO_SPACE; ENOMEM, EMFILE, ENFILE, EAGAIN: NO_MEMORY; EROFS: READ_ONLY; else IO. */
odm_status odm__note_os(odm_error *error, const char *verb, const char *name);
static inline odm_status odm__fail_os(odm_error *error, const char *verb, const char *name)
{
    odm_status status = odm__note_os(error, verb, name);
    if (status == ODM_OK) __builtin_unreachable(); // For who checks the code.
    return status;
}

/* The same for a sync: ODM_E_IO whatever errno says, for whatever the reason, what was to be written may be gone. */
odm_status odm__fail_sync(odm_error *error, const char *name);

/* Copies detail to a caller's struct of whatever size it has. to may be NULL. */
void odm__error_copy(odm_error *to, const odm_error *from);

#endif
