/* What the system calls tell: os.h. */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

TestSuite(os, .timeout = 60);

static bool write_text(const char *directory, const char *file, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    return close(fd) == 0 && written;
}

/* The memory that a process in a control group finds, in MiB; 0: it could not be put there. */
static int memory_found_in(const char *group)
{
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        char text[16];
        snprintf(text, sizeof text, "%d", (int)getpid());
        uint64_t bytes = 0;
        if (!write_text(group, "cgroup.procs", text) || odm__os.memory_size(&bytes) != 0) _exit(0);
        _exit(bytes >> 20 < 255 ? (int)(bytes >> 20) : 255);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

Test(os, memory_is_no_more_than_the_machine_has)
{
    struct sysinfo machine;
    uint64_t bytes = 0;
    cr_assert_eq(sysinfo(&machine), 0);
    ok(odm__os.memory_size(&bytes));
    cr_assert_leq(bytes, (uint64_t)machine.totalram * machine.mem_unit);
    cr_assert_gt(bytes, UINT64_C(1) << 20);
}

/* It is what the process's control group may use, or one above it may. Method: a group of 100 MiB, and one in it of the same and
 * of less. */
Test(os, memory_is_what_control_groups_leave)
{
    static const struct {
        const char *root, *limit;
    } hierarchies[] = {{"/sys/fs/cgroup", "memory.max"}, {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}};
    for (size_t i = 0; i < COUNT_OF(hierarchies); i++) {
        char outer[64], inner[72];
        snprintf(outer, sizeof outer, "%s/odm_test_%d", hierarchies[i].root, (int)getpid());
        snprintf(inner, sizeof inner, "%s/inner", outer);
        if (mkdir(outer, 0755) != 0) continue;
        bool limited = write_text(outer, hierarchies[i].limit, "104857600") && mkdir(inner, 0755) == 0;
        int above = 0, own = 0;
        if (limited) above = memory_found_in(inner);
        // Version 2 has the file in the inner group only if the outer one hands the controller on.
        (void)write_text(outer, "cgroup.subtree_control", "+memory");
        if (limited && write_text(inner, hierarchies[i].limit, "52428800")) own = memory_found_in(inner);
        if (limited) (void)rmdir(inner);
        (void)rmdir(outer);
        if (above == 0 || own == 0) continue;
        cr_assert_eq(above, 100);
        cr_assert_eq(own, 50);
        return;
    }
    cr_skip_test("no control group with less memory can be made here");
}
