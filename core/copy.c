/* copy.c - writing a map anew into a directory of its own. Contract: copy.h. */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "os.h"
#include "stamp.h"
#include "status.h"

enum { COPY_BUFFER_BYTES = 1024 * 1024, COPY_WRITE_BYTES = 64 * 1024 * 1024 };

struct copy {
    struct copy *next;   // all copies of the process, for fork
    bool inherited;      // this is a child made by fork: its parent goes on with it
    struct store target; // no map yet: directory, log and what meta is to say
    char *path;
    bool made; // the directory
    bool finished;
    int mark_fd; // -1: nothing in the directory is ours
    struct replay *replay;
    uint64_t head;
    uint64_t end; // address up to which the log was copied
    int segment_fd;
    uint64_t segment_number;
    uint64_t position; // bytes of the segments before it
    unsigned char *buffer;
    uint64_t buffer_offset; // in the segment's file
    uint64_t buffered;
    unsigned unsettled; // records that the index does not have yet
};

/* ---- the copies of this process, and fork ------------------------------------------------------------------------ */

/* Held while a mark is opened and locked, or closed: the handlers know every mark that a child would keep locked. */
static pthread_mutex_t copies_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct copy *copies;
static pthread_once_t copies_once = PTHREAD_ONCE_INIT;

static void copies_before_fork(void)
{
    pthread_mutex_lock(&copies_mutex);
}

static void copies_after_fork(void)
{
    pthread_mutex_unlock(&copies_mutex);
}

/* The child lets go of the marks: their locks tell that the parent lives, and without one nothing is removed. */
static void copies_in_child(void)
{
    for (struct copy *copy = copies; copy != NULL; copy = copy->next) {
        copy->inherited = true;
        if (copy->mark_fd >= 0) odm__os.close(copy->mark_fd);
        copy->mark_fd = -1;
    }
    pthread_mutex_unlock(&copies_mutex);
}

static void copies_register(void)
{
    (void)pthread_atfork(copies_before_fork, copies_after_fork, copies_in_child);
}

static void copies_add(struct copy *copy)
{
    pthread_once(&copies_once, copies_register);
    pthread_mutex_lock(&copies_mutex);
    copy->next = copies;
    copies = copy;
    pthread_mutex_unlock(&copies_mutex);
}

static void copies_remove(struct copy *copy)
{
    pthread_mutex_lock(&copies_mutex);
    struct copy **link = &copies;
    while (*link != copy) link = &(*link)->next;
    *link = copy->next;
    if (copy->mark_fd >= 0) odm__os.close(copy->mark_fd);
    copy->mark_fd = -1;
    pthread_mutex_unlock(&copies_mutex);
}

bool odm__copy_is_inherited(const struct copy *copy)
{
    return copy->inherited;
}

/* ---- the target ------------------------------------------------------------------------------------------------------ */

static odm_status check_no_meta(const struct copy *copy, odm_error *error)
{
    int fd;
    odm_status status = odm__file_open(&copy->target.directory, "meta", false, &fd, error);
    if (status == ODM_NOT_FOUND) return ODM_OK;
    if (status != ODM_OK) return status;
    odm__os.close(fd);
    return odm__fail(error, ODM_EXISTS, "%s is a map already", copy->path);
}

/* Whether it is what stands before the digits, and so many of them. */
static bool is_numbered(const char *name, const char *before, const char *digits, size_t count)
{
    size_t length = strlen(before);
    return strncmp(name, before, length) == 0 && strlen(name) == length + count &&
           strspn(name + length, digits) == count;
}

static void log_name_remove(void *context, const char *name)
{
    bool ours = is_numbered(name, "", "0123456789", 11) || is_numbered(name, "stamp.", "0123456789abcdef", 16);
    if (ours) (void)odm__file_unlink(context, name, NULL);
}

static void map_name_remove(void *context, const char *name)
{
    static const char *const names[] = {"index", "index.new", "lock", "lock.new"};
    bool ours = is_numbered(name, "meta.", "0123456789abcdef", 16);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) ours |= strcmp(name, names[i]) == 0;
    if (ours) (void)odm__file_unlink(context, name, NULL);
}

/* Removes a map's files but the mark, which is ours; where `meta` is they are another's. */
static odm_status remnant_remove(const struct copy *copy, odm_error *error)
{
    const struct directory *directory = &copy->target.directory;
    odm_status status = check_no_meta(copy, error);
    if (status != ODM_OK) return status;
    struct directory log;
    // If it is empty it goes without a descriptor: there may be none left.
    bool removed = odm__os.unlink(directory->fd, "log", true) == 0;
    status = removed ? ODM_NOT_FOUND : odm__directory_open_in(&log, directory, "log", "log/", false, error);
    if (status == ODM_OK) {
        status = odm__directory_list(&log, log_name_remove, &log, error);
        odm__directory_close(&log);
        if (status == ODM_OK && odm__os.unlink(directory->fd, "log", true) != 0) {
            status = odm__fail_os(error, "remove", "log/");
        }
    } else if (status == ODM_NOT_FOUND) {
        status = ODM_OK;
    }
    if (status != ODM_OK) return status;
    return odm__directory_list(directory, map_name_remove, (void *)(uintptr_t)directory, error);
}

struct first_name {
    char name[64];
};

static void first_name_note(void *context, const char *name)
{
    struct first_name *first = context;
    if (strcmp(name, COPY_MARK) == 0) return;
    if (first->name[0] == '\0') snprintf(first->name, sizeof first->name, "%s", name);
}

static odm_status check_nothing_else(const struct copy *copy, odm_error *error)
{
    struct first_name first = {.name = ""};
    odm_status status = odm__directory_list(&copy->target.directory, first_name_note, &first, error);
    if (status != ODM_OK || first.name[0] == '\0') return status;
    return odm__fail(error, ODM_E_INVALID, "%s is not empty (%s is in it): a copy needs a directory of its own",
                     copy->path, first.name);
}

static odm_status copy_busy(const struct copy *copy, odm_error *error)
{
    return odm__fail(error, ODM_E_BUSY, "%s: another copy is just being made there", copy->path);
}

/* The caller holds the copies' mutex. *made: there was no mark. */
static odm_status mark_lock(struct copy *copy, bool *made, odm_error *error)
{
    const struct directory *directory = &copy->target.directory;
    odm_status status = odm__file_open(directory, COPY_MARK, true, &copy->mark_fd, error);
    *made = status == ODM_NOT_FOUND;
    if (*made) status = check_nothing_else(copy, error);
    if (*made && status == ODM_OK) status = odm__file_create(directory, COPY_MARK, 0, &copy->mark_fd, error);
    if (status == ODM_EXISTS) status = copy_busy(copy, error);
    if (status != ODM_OK) {
        copy->mark_fd = -1;
        return status;
    }
    bool taken = false;
    status = odm__file_lock_exclusive(copy->mark_fd, &taken, error);
    if (status == ODM_OK && !taken) status = copy_busy(copy, error);
    // Who had the lock may have ended, and removed the mark.
    struct file_identity ours, named;
    if (status == ODM_OK &&
        (odm__os.identify(copy->mark_fd, &ours) != 0 || odm__os.identify_name(directory->fd, COPY_MARK, &named) != 0 ||
         !file_is_same(&ours, &named))) {
        status = check_no_meta(copy, error);
        if (status == ODM_OK) status = copy_busy(copy, error);
    }
    if (status != ODM_OK) {
        odm__os.close(copy->mark_fd);
        copy->mark_fd = -1;
    }
    return status;
}

/* Makes the directory ours: it was empty, or holds what a copy has left. */
static odm_status mark_take(struct copy *copy, odm_error *error)
{
    odm_status status = check_no_meta(copy, error);
    if (status != ODM_OK) return status;
    bool made;
    pthread_mutex_lock(&copies_mutex);
    status = mark_lock(copy, &made, error);
    pthread_mutex_unlock(&copies_mutex);
    if (status != ODM_OK) return status;
    // Looked at again: a map may have been made before the mark was ours. Who makes one looks for the mark after log/
    // is there, and we for log/ after the mark is; so one of the two sees the other.
    status = check_no_meta(copy, error);
    if (status == ODM_OK && !made) status = remnant_remove(copy, error);
    if (status == ODM_OK) status = check_nothing_else(copy, error);
    if (status == ODM_OK) return ODM_OK;
    if (made) (void)odm__file_unlink(&copy->target.directory, COPY_MARK, NULL);
    pthread_mutex_lock(&copies_mutex);
    odm__os.close(copy->mark_fd);
    copy->mark_fd = -1; // What is there is not removed.
    pthread_mutex_unlock(&copies_mutex);
    return status;
}

/* The directory as accessible as the source's: a private map may lie in a private one. In memory, as its files. */
static void directory_mode_copy(const struct directory *directory, const struct directory *source)
{
    struct file_identity identity;
    if (source->fd >= 0 && odm__os.identify(source->fd, &identity) == 0) {
        (void)odm__os.change_mode(directory->fd, (identity.mode & 07777) | 0700); // Files are still to be made in it.
    } else if (source->mode != 0) {
        (void)odm__os.change_mode(directory->fd, odm__directory_mode(source->mode));
    }
}

static odm_status target_open(struct copy *copy, const struct store *source, odm_error *error)
{
    struct directory *directory = &copy->target.directory;
    odm_status status = odm__directory_open(directory, copy->path, error);
    if (status == ODM_NOT_FOUND) {
        copy->made = odm__os.make_directory(AT_FDCWD, copy->path, 0777) == 0;
        if (!copy->made) return odm__fail_os(error, "make the directory", copy->path);
        status = odm__directory_open(directory, copy->path, error);
        if (status != ODM_OK) (void)odm__os.unlink(AT_FDCWD, copy->path, true);
    }
    if (status != ODM_OK) return status;
    directory->mode = source->directory.mode;
    directory->any_file_system = source->directory.any_file_system;
    if (copy->made) directory_mode_copy(directory, &source->directory);
    status = odm__directory_check_kind(directory, error);
    if (status == ODM_OK) status = mark_take(copy, error);
    if (status == ODM_OK) {
        status = odm__log_open(&copy->target.log, directory, &copy->target.meta.fixed, false, true, error);
    }
    return status;
}

odm_status odm__copy_begin(const struct store *source, const char *path, uint64_t head, uint64_t capacity,
                           struct copy **result, odm_error *error)
{
    struct copy *copy = calloc(1, sizeof *copy);
    if (copy == NULL) return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    struct store *target = &copy->target;
    target->directory.fd = target->private_directory.fd = target->log.directory.fd = -1;
    target->meta = (struct meta){.fd = -1, .fixed = source->meta.fixed};
    target->lock_fd = copy->mark_fd = copy->segment_fd = -1;
    pthread_mutex_init(&target->log.mutex, NULL);
    copies_add(copy);
    copy->head = copy->end = head;
    copy->path = malloc(strlen(path) + 1);
    copy->buffer = malloc(COPY_BUFFER_BYTES);
    odm_status status = ODM_OK;
    if (copy->path == NULL || copy->buffer == NULL) status = odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    if (status == ODM_OK) memcpy(copy->path, path, strlen(path) + 1);
    if (status == ODM_OK) status = target_open(copy, source, error);
    if (status == ODM_OK) status = odm__replay_begin(target, "index", head, capacity, &copy->replay, error);
    if (status != ODM_OK) {
        odm__copy_free(copy);
        return status;
    }
    *result = copy;
    return ODM_OK;
}

/* Removes the directory, if nothing is in it. By its parent as it is: the path may lead elsewhere by now. */
static void target_remove(const struct copy *copy)
{
    const char *path = copy->path;
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/') --end;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') --begin;
    char name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%.*s", (int)(end - begin), path + begin);
    int parent = odm__os.open(copy->target.directory.fd, "..", O_PATH | O_DIRECTORY, 0);
    bool by_path = parent < 0; // for want of descriptors
    if (by_path) parent = AT_FDCWD;
    struct file_identity ours, named;
    if (odm__os.identify(copy->target.directory.fd, &ours) == 0 &&
        odm__os.identify_name(parent, by_path ? path : name, &named) == 0 && file_is_same(&ours, &named)) {
        (void)odm__os.unlink(parent, by_path ? path : name, true);
    }
    if (!by_path) odm__os.close(parent);
}

void odm__copy_free(struct copy *copy)
{
    struct directory *directory = &copy->target.directory;
    if (copy->replay != NULL) odm__replay_free(copy->replay);
    if (copy->segment_fd >= 0) odm__os.close(copy->segment_fd);
    odm__log_close(&copy->target.log); // Removing needs descriptors.
    // The mark goes last, so that a kill leaves a remnant that is known as such.
    if (copy->mark_fd >= 0 && !copy->finished && remnant_remove(copy, NULL) == ODM_OK) {
        (void)odm__file_unlink(directory, COPY_MARK, NULL);
    }
    copies_remove(copy);
    pthread_mutex_destroy(&copy->target.log.mutex);
    if (copy->made && !copy->finished && !copy->inherited) target_remove(copy);
    odm__directory_close(directory);
    free(copy->path);
    free(copy->buffer);
    free(copy);
}

/* ---- writing --------------------------------------------------------------------------------------------------------- */

static odm_status copy_write(const struct copy *copy, const void *bytes, uint64_t size, uint64_t offset,
                             odm_error *error)
{
    const unsigned char *from = bytes;
    while (size > 0) {
        uint64_t part = size < COPY_WRITE_BYTES ? size : COPY_WRITE_BYTES;
        ssize_t written = odm__os.write_at(copy->segment_fd, from, part, (off_t)offset);
        if (written <= 0) {
            if (written == 0) errno = ENOSPC;
            return odm__fail_os(error, "write", "a segment of the copy");
        }
        from += written;
        offset += (uint64_t)written;
        size -= (uint64_t)written;
    }
    return ODM_OK;
}

static odm_status copy_flush(struct copy *copy, odm_error *error)
{
    odm_status status = copy_write(copy, copy->buffer, copy->buffered, copy->buffer_offset, error);
    copy->buffer_offset += copy->buffered;
    copy->buffered = 0;
    return status;
}

/* Appends bytes to what goes to the segment. */
static odm_status copy_append(struct copy *copy, const void *bytes, uint64_t size, odm_error *error)
{
    odm_status status = ODM_OK;
    if (size > COPY_BUFFER_BYTES - copy->buffered) status = copy_flush(copy, error);
    if (status == ODM_OK && size > COPY_BUFFER_BYTES) {
        status = copy_write(copy, bytes, size, copy->buffer_offset, error);
        copy->buffer_offset += size;
    } else if (status == ODM_OK) {
        memcpy(copy->buffer + copy->buffered, bytes, size);
        copy->buffered += size;
    }
    return status;
}

/* Room that stays zero, but for a filler's header. */
static odm_status copy_append_filler(struct copy *copy, uint64_t address, uint64_t key_size, uint64_t value_size,
                                     odm_error *error)
{
    struct record_header header = {.value_size = (uint32_t)value_size, .lsn = address};
    atomic_store(&header.first, first_of_room(RECORD_FILLER, key_size, header.value_size, header.lsn,
                                              copy->target.meta.fixed.seed, address));
    odm_status status = copy_append(copy, &header, sizeof header, error);
    if (status == ODM_OK) status = copy_flush(copy, error);
    copy->buffer_offset = address_offset(address) + record_size(key_size, value_size);
    return status;
}

odm_status odm__copy_segment(struct copy *copy, const struct segment *segment, uint64_t predecessor_end,
                             odm_error *error)
{
    char name[SEGMENT_NAME_SIZE];
    odm__segment_name(segment->number, name);
    odm_status status = odm__file_create(&copy->target.log.directory, name, segment->size, &copy->segment_fd, error);
    if (status == ODM_EXISTS) status = odm__fail(error, ODM_E_BUSY, "log/%s has appeared", name);
    if (status != ODM_OK) {
        copy->segment_fd = -1;
        return status;
    }
    copy->segment_number = segment->number;
    copy->buffer_offset = copy->buffered = 0;
    struct segment_header header;
    // The first keeps its place in the map's history, if it is known; the others follow what was copied.
    if (predecessor_end == 0 && odm__segment_is_whole(&copy->target.log, segment))
        copy->position = odm__segment_position(segment, address_make(segment->number, 0));
    odm__segment_header(&copy->target.log, segment, predecessor_end, copy->position, &header);
    return copy_append(copy, &header, sizeof header, error);
}

odm_status odm__copy_record(struct copy *copy, const struct record *record, odm_error *error)
{
    assert(address_number(record->address) == copy->segment_number);
    copy->end = record->address + record->size / ADDRESS_UNIT;
    if (record->kind == RECORD_RESERVED) {
        return copy_append_filler(copy, record->address, record->key_size, record->value_size, error);
    }
    // The index compares keys in the copy, so they must be there before it takes in what it was given.
    odm_status status = ODM_OK;
    if (record->kind == RECORD_CLEAR || copy->unsettled == REPLAY_PENDING_MAX) status = odm__copy_settle(copy, error);
    if (status == ODM_OK) status = copy_append(copy, record->key - RECORD_HEADER_SIZE, record->size, error);
    ++copy->unsettled;
    return status == ODM_OK ? odm__replay_record(copy->replay, record, error) : status;
}

odm_status odm__copy_fill(struct copy *copy, uint64_t address, uint64_t end, odm_error *error)
{
    odm_status status = ODM_OK;
    copy->end = end;
    while (status == ODM_OK && address < end) {
        uint64_t size = (end - address) * ADDRESS_UNIT;
        if (size > ODM_RECORD_SIZE_MAX) size = ODM_RECORD_SIZE_MAX - RECORD_HEADER_SIZE; // and room for another
        assert(size >= RECORD_HEADER_SIZE);
        status = copy_append_filler(copy, address, 0, size - RECORD_HEADER_SIZE, error);
        address += size / ADDRESS_UNIT;
    }
    return status;
}

odm_status odm__copy_settle(struct copy *copy, odm_error *error)
{
    copy->unsettled = 0;
    odm_status status = copy->segment_fd >= 0 ? copy_flush(copy, error) : ODM_OK;
    return status == ODM_OK ? odm__replay_flush(copy->replay, error) : status;
}

odm_status odm__copy_segment_end(struct copy *copy, uint64_t end, odm_error *error)
{
    copy->end = end;
    copy->position += address_offset(end);
    odm_status status = odm__copy_settle(copy, error);
    if (status == ODM_OK && odm__os.sync_data(copy->segment_fd) != 0) {
        status = odm__fail_sync(error, "a segment of the copy");
    }
    odm__os.close(copy->segment_fd);
    copy->segment_fd = -1;
    return status;
}

odm_status odm__copy_finish(struct copy *copy, const struct copy_report *report, odm_error *error)
{
    struct store *target = &copy->target;
    struct index_file *index = NULL;
    odm_status status = odm__replay_end(copy->replay, &index, error);
    copy->replay = NULL;
    if (status != ODM_OK) return status;
    if (report != NULL) {
        struct index_header *header = (void *)index->base;
        header->recovery_kind = report->recovery_kind;
        header->recovery_records = report->records;
        header->recovery_bytes_cut = report->bytes_cut;
        header->recovery_from = report->from;
    }
    struct meta_slot slot = {.head = copy->head, .watermark = copy->end};
    status = odm__stamp_prepare(&target->log, index, &slot, error);
    odm__index_close(index);
    if (status == ODM_OK) status = odm__directory_sync(&target->directory, error);
    // So that one which is there after a failure is ours.
    if (status == ODM_OK) status = check_no_meta(copy, error);
    if (status != ODM_OK) return status;
    status = odm__meta_create(&target->directory, &target->meta.fixed, &slot, error);
    if (status == ODM_EXISTS) return odm__fail(error, ODM_EXISTS, "%s is a map by now", copy->path);
    if (status != ODM_OK) {
        (void)odm__file_unlink(&target->directory, "meta", NULL); // It may have its name, but not for good.
        return status;
    }
    copy->finished = true;
    (void)odm__file_unlink(&target->directory, COPY_MARK, NULL);
    int parent = odm__os.open(target->directory.fd, "..", O_RDONLY | O_DIRECTORY, 0);
    if (parent >= 0) {
        (void)odm__os.sync_directory(parent);
        odm__os.close(parent);
    }
    return ODM_OK;
}
