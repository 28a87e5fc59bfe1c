/* file.h - files of one directory: create, reserve, map, sync, rename, unlink, list.
 *
 * Calls os.h. Knows nothing of what is in the files. A directory is one on disk, kept open by descriptor, so that it may
 * be renamed under a map; or one in memory, whose files are memfds known to this process only.
 *
 * What always holds: a file is reserved on disk before it is mapped, so that a full disk is a status here and never a
 * SIGBUS in a store; a file whose reservation failed is gone again, with its blocks.
 *
 * Threads: a directory may be used by many at once.
 */
#ifndef ODM_FILE_H
#define ODM_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opendiskmap.h"
#include "os.h"

struct memory_directory;

struct directory {
    int fd; // -1 in memory
    struct memory_directory *memory;
    const char *name;   // for messages: "" or "log/"
    uint32_t mode;      // of new files; 0 = 0644 less the umask
    bool give_to_owner; // running as root: new files belong to the directory's owner
    uint32_t uid, gid;  // of the directory
    bool any_file_system;
};

/* The mode of a directory whose files have this one: who may read may search. */
uint32_t odm__directory_mode(uint32_t file_mode);

/* Opens the directory `path` on disk; ODM_NOT_FOUND if there is none, ODM_E_INVALID if it is something else. */
odm_status odm__directory_open(struct directory *directory, const char *path, odm_error *error);
/* Opens `name` in `parent`, making it if `create`. ODM_NOT_FOUND if there is none. In memory: a fresh one. */
odm_status odm__directory_open_in(struct directory *directory, const struct directory *parent, const char *name,
                                  const char *shown_as, bool create, odm_error *error);
void odm__directory_close(struct directory *directory);
odm_status odm__directory_sync(const struct directory *directory, odm_error *error);
/* ODM_E_UNSUPPORTED, naming the kind, on network and layered file systems, unless directory->any_file_system. */
odm_status odm__directory_check_kind(const struct directory *directory, odm_error *error);
/* Calls found for every name in it, in no order. found touches no file of the directory. */
odm_status odm__directory_list(const struct directory *directory, void (*found)(void *context, const char *name),
                               void *context, odm_error *error);

/* ODM_NOT_FOUND, without a message, if there is no such file. */
odm_status odm__file_open(const struct directory *directory, const char *name, bool writable, int *fd,
                          odm_error *error);
/* A new file of zeros, reserved on disk. ODM_EXISTS if the name is taken. */
odm_status odm__file_create(const struct directory *directory, const char *name, uint64_t size, int *fd,
                            odm_error *error);
/* Grows a file from `size` to `new_size`, reserved, with `hole` bytes after it that are not; on failure it is as before.
 * At no moment is it shorter. */
odm_status odm__file_grow(const struct directory *directory, const char *name, int fd, uint64_t size, uint64_t new_size,
                          uint64_t hole, odm_error *error);
/* Writes zeros to a reserved part that nobody else knows of yet, `block_size` bytes at a time. The pages are then in memory,
 * in folios of about that size, and a first store to them costs a tenth of what it costs otherwise. Only the speed depends
 * on it: failures are ignored. */
void odm__file_populate(int fd, uint64_t from, uint64_t to, uint64_t block_size);
enum { POPULATE_SMALL = 16 * 1024, POPULATE_USUAL = 64 * 1024, POPULATE_HUGE = 2 * 1024 * 1024 }; // bytes
/* Renames over `to`. */
odm_status odm__file_rename(const struct directory *directory, const char *from, const char *to, odm_error *error);
/* Lets two files change names, so that the one that goes can still be opened; if that can not be had, renames `from` over
 * `to`. */
odm_status odm__file_exchange(const struct directory *directory, const char *from, const char *to, odm_error *error);
/* Renames, but never over another file: ODM_EXISTS. */
odm_status odm__file_rename_new(const struct directory *directory, const char *from, const char *to, odm_error *error);
/* Missing is fine. */
odm_status odm__file_unlink(const struct directory *directory, const char *name, odm_error *error);

/* Maps the first `size` bytes, shared. guard_size: this many readable zero bytes after them. */
odm_status odm__file_map(int fd, uint64_t size, uint64_t guard_size, bool writable, void **base, odm_error *error);
void odm__file_unmap(void *base, uint64_t size);

#endif
