/* os.h - the table through which every system call on files, memory and time goes.
 *
 * A test replaces entries: to fail the n-th call, to pretend another boot, to record what was synced. Each entry behaves as
 * the call it is named after (-1 and errno, or MAP_FAILED), but that a signal does not interrupt those on files, and reads
 * and writes go on until they are done or can not. The table is set up at load time and only tests write it.
 */
#ifndef ODM_OS_H
#define ODM_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 // Linux 5.14; older kernels say no, and pages come one by one.
#endif

/* What tells one file from another, and a file from its copy. 0 for what cannot be had. */
struct file_identity {
    uint64_t device;
    uint64_t inode;
    uint64_t birth_ns;
    uint64_t mount_id; // unique since boot; kernels before 6.8 have none
    uint64_t size;     // bytes
    uint32_t links;
    uint32_t mode; // with the type
    uint32_t uid;
    uint32_t gid;
};

/* Whether both are of one file, by whatever name. */
static inline bool file_is_same(const struct file_identity *a, const struct file_identity *b)
{
    return a->device == b->device && a->inode == b->inode;
}

struct odm__os {
    int (*open)(int directory, const char *name, int flags, mode_t mode);
    int (*memory_file)(const char *name);
    int (*duplicate)(int fd);
    int (*close)(int fd);
    int (*identify)(int fd, struct file_identity *identity);
    int (*identify_name)(int directory, const char *name, struct file_identity *identity);
    int (*file_system)(int fd, uint64_t *magic);
    ssize_t (*read_at)(int fd, void *buffer, size_t size, off_t offset);
    ssize_t (*write_at)(int fd, const void *buffer, size_t size, off_t offset);
    int (*reserve)(int fd, off_t offset, off_t size);
    int (*truncate)(int fd, off_t size);
    int (*file_size_limit)(uint64_t *bytes);
    int (*memory_size)(uint64_t *bytes); // of the machine, or what a control group leaves this process of it
    int (*sync_data)(int fd);
    int (*sync_directory)(int fd);
    int (*sync_map)(void *base, size_t size);
    int (*start_write_back)(int fd, off_t offset, off_t size);
    void *(*map)(void *at, size_t size, int protection, int flags, int fd, off_t offset);
    int (*unmap)(void *base, size_t size);
    int (*advise)(void *base, size_t size, int advice);
    int (*resident)(void *base, size_t size, unsigned char *pages); // bit 0 of a byte for each page
    int (*make_directory)(int directory, const char *name, mode_t mode);
    int (*rename_new)(int directory, const char *from, const char *to); // EEXIST if `to` is there
    int (*rename)(int directory, const char *from, const char *to);
    int (*exchange)(int directory, const char *a, const char *b); // the two names
    int (*unlink)(int directory, const char *name, bool is_directory);
    int (*list)(int directory, void (*found)(void *context, const char *name), void *context);
    int (*change_owner)(int fd, uid_t uid, gid_t gid);
    int (*change_mode)(int fd, mode_t mode);
    int (*set_no_copy_on_write)(int fd);
    int (*lock)(int fd, int command, short type, off_t at, off_t size, short *type_found);
    int (*boot_id)(uint64_t id[2]);
    int (*random_bytes)(void *buffer, size_t size);
    uint64_t (*now_ns)(void);
    int (*futex_wait)(void *word, uint32_t expected, uint64_t timeout_ns);
    int (*futex_wake)(void *word, int waiters);
};

extern struct odm__os odm__os;

#endif
