/* Statuses and the detail of failures: status.h, and odm_error in opendiskmap.h. */
#include "status.h"

#include <errno.h>
#include <string.h>

#include "support.h"

TestSuite(status, .timeout = 60);

/* Every status has a name and a message of its own, and a number that is none has neither.
 * Method: the list of the header, and the whole range of numbers around it. */
Test(status, names_and_messages_are_those_of_the_list)
{
#define EXPECT(name, code, message)                 \
    cr_assert_eq(name, code);                       \
    cr_assert_str_eq(odm_status_name(code), #name); \
    cr_assert_str_eq(odm_status_message(code), message);
    ODM_STATUS_LIST(EXPECT)
#undef EXPECT
    unsigned known = 0;
    for (odm_status status = -100; status <= 100; status++) {
        cr_assert_not_null(odm_status_message(status));
        known += strcmp(odm_status_name(status), "unknown status") != 0;
    }
    cr_assert_eq(known, 17);
    cr_assert_str_eq(odm_status_name(INT32_MIN), "unknown status");
    cr_assert_str_eq(odm_status_message(INT32_MAX), "unknown status");
}

Test(status, versions_agree)
{
    char text[32];
    uint32_t version = odm_version();
    snprintf(text, sizeof text, "%u.%u.%u", version / 10000, version / 100 % 100, version % 100);
    cr_assert_str_eq(text, odm_version_string());
    cr_assert_eq(version, ODM_VERSION);
}

/* However long a path is, what happened is told, and which of many paths it was. */
Test(status, a_long_name_leaves_room_for_what_happened)
{
    char name[5000];
    memset(name, 'n', sizeof name);
    memcpy(name + sizeof name - 5, "/map", 5);
    odm_error error = {.struct_size = sizeof error};
    errno = ENAMETOOLONG;
    expect_status(odm__note_os(&error, "open", name), ODM_E_IO);
    expect_message(error, "open ...nnn");
    expect_message(error, "/map: ");
    expect_message(error, strerror(ENAMETOOLONG));
}

/* What the operating system says becomes the status that the header promises for it. */
Test(status, an_errno_becomes_its_status)
{
    static const struct {
        int number;
        odm_status status;
    } cases[] = {
        {ENOSPC, ODM_E_NO_SPACE},  {EDQUOT, ODM_E_NO_SPACE},  {EFBIG, ODM_E_NO_SPACE},   {ENOMEM, ODM_E_NO_MEMORY},
        {EMFILE, ODM_E_NO_MEMORY}, {ENFILE, ODM_E_NO_MEMORY}, {EAGAIN, ODM_E_NO_MEMORY}, {EROFS, ODM_E_READ_ONLY},
        {EACCES, ODM_E_IO},        {EIO, ODM_E_IO},           {EPERM, ODM_E_IO},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        odm_error error = {.struct_size = sizeof error};
        errno = cases[i].number;
        expect_status(odm__fail_os(&error, "open", "meta"), cases[i].status);
        cr_assert_eq(error.status, cases[i].status);
        cr_assert_eq(error.os_errno, cases[i].number);
        expect_message(error, "open meta: ");
        expect_message(error, strerror(cases[i].number));
    }
}

Test(status, a_failure_without_an_errno_clears_the_last_one)
{
    odm_error error = {.struct_size = sizeof error, .os_errno = EIO};
    expect_status(odm__fail(&error, ODM_E_CORRUPT, "at %d", 17), ODM_E_CORRUPT);
    cr_assert_eq(error.os_errno, 0);
    cr_assert_str_eq(error.message, "at 17");
    expect_status(odm__fail(NULL, ODM_E_BUSY, "nobody listens"), ODM_E_BUSY);
}

Test(status, a_long_message_is_cut_and_ends_with_zero)
{
    odm_error error = {.struct_size = sizeof error};
    memset(error.message, 'x', sizeof error.message);
    odm__note(&error, ODM_E_INVALID, "%0400d", 1);
    cr_assert_eq(strlen(error.message), sizeof error.message - 1);
}

/* A caller's odm_error may be older and smaller, or newer and larger, than ours.
 * Method: copy into structs of many sizes with a fence of known bytes behind them. */
Test(status, detail_fits_into_a_struct_of_any_size)
{
    odm_error from = {.struct_size = sizeof from};
    odm__note(&from, ODM_E_BUSY, "a message of some length, that does not fit into everything");
    for (uint32_t size = 0; size <= sizeof from + 32; size++) {
        union {
            odm_error error;
            unsigned char bytes[sizeof from + 64];
        } to;
        memset(&to, 0xee, sizeof to);
        to.error.struct_size = size;
        odm__error_copy(&to.error, &from);
        cr_assert_eq(to.error.struct_size, size);
        uint32_t end = size < sizeof from ? size : (uint32_t)sizeof from;
        if (size < offsetof(odm_error, message)) end = sizeof size; // Too small to hold anything.
        for (size_t i = end; i < sizeof to; i++) cr_assert_eq(to.bytes[i], 0xee, "size %u, byte %zu", size, i);
        if (end <= offsetof(odm_error, message)) continue;
        cr_assert_eq(to.error.status, ODM_E_BUSY);
        size_t room = end - offsetof(odm_error, message);
        cr_assert(memchr(to.error.message, 0, room) != NULL, "size %u: no zero at the end", size);
        cr_assert_eq(strncmp(to.error.message, from.message, strlen(to.error.message)), 0);
    }
    odm__error_copy(NULL, &from);
}
