/* status.h - how a failure travels: a status as the result, its detail in the caller's odm_error.
 *
 * Calls nothing. Thread-safe. Every function here accepts a NULL error and returns the status it was given, so that a
 * failing branch is one line: return odm__fail(error, ODM_E_CORRUPT, "...").
 */
#ifndef ODM_STATUS_H
#define ODM_STATUS_H

#include "opendiskmap.h"

/* Sets *error to the status and a formatted message. */
odm_status odm__fail(odm_error *error, odm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a system call that has just failed: errno becomes the status, "verb name: reason" the message.
 * ENOSPC, EDQUOT and EFBIG: NO_SPACE; ENOMEM, EMFILE, ENFILE, EAGAIN: NO_MEMORY; EROFS: READ_ONLY; else IO. */
odm_status odm__fail_os(odm_error *error, const char *verb, const char *name);

/* Copies detail to a caller's struct of whatever size it has. to may be NULL. */
void odm__error_copy(odm_error *to, const odm_error *from);

#endif
