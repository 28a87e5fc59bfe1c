/* copy.c - writing a map anew into a directory of its own. Contract: copy.h. */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "os.h"
#include "stamp.h"
#include "status.h"

enum { COPY_BUFFER_BYTES = 1024 * 1024, COPY_WRITE_BYTES = 64 * 1024 * 1024 };

struct copy {
    struct store target; // no map yet: directory, log and what meta is to say
    char *path;
    bool made; // the directory
    bool finished;
    int mark_fd;
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

/* ---- the target ------------------------------------------------------------------------------------------------------ */

static void copy_name_remove(void *context, const char *name)
{
    (void)odm__file_unlink(context, name, NULL);
}

static void map_name_remove(void *context, const char *name)
{
    static const char *const names[] = {"index", "lock", "meta"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        if (strncmp(name, names[i], strlen(names[i])) == 0) copy_name_remove(context, name);
    }
}

/* Removes everything but the mark. Only for a directory that has one. */
static odm_status remnant_remove(const struct directory *directory, odm_error *error)
{
    struct directory log;
    odm_status status = odm__directory_open_in(&log, directory, "log", "log/", false, error);
    if (status == ODM_OK) {
        status = odm__directory_list(&log, copy_name_remove, &log, error);
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
    if (first->name[0] == '\0') snprintf(first->name, sizeof first->name, "%s", name);
}

static odm_status mark_make(struct copy *copy, odm_error *error)
{
    const struct directory *directory = &copy->target.directory;
    struct first_name first = {.name = ""};
    odm_status status = odm__directory_list(directory, first_name_note, &first, error);
    if (status != ODM_OK) return status;
    if (first.name[0] != '\0') {
        return odm__fail(error, ODM_E_INVALID, "%s is not empty (%s is in it): a copy needs a directory of its own",
                         copy->path, first.name);
    }
    status = odm__file_create(directory, COPY_MARK, 0, &copy->mark_fd, error);
    return status == ODM_EXISTS ? odm__fail(error, ODM_E_BUSY, "%s: another copy is just being made there", copy->path)
                                : status;
}

/* Makes the directory ours: it was empty, or holds what a copy has left. */
static odm_status mark_take(struct copy *copy, odm_error *error)
{
    const struct directory *directory = &copy->target.directory;
    int fd;
    odm_status status = odm__file_open(directory, "meta", false, &fd, error);
    if (status == ODM_OK) {
        odm__os.close(fd);
        return odm__fail(error, ODM_EXISTS, "%s is a map already", copy->path);
    }
    if (status != ODM_NOT_FOUND) return status;
    status = odm__file_open(directory, COPY_MARK, true, &copy->mark_fd, error);
    if (status != ODM_OK) copy->mark_fd = -1;
    bool remnant = status == ODM_OK;
    if (status == ODM_NOT_FOUND) status = mark_make(copy, error);
    bool taken = false;
    if (status == ODM_OK) status = odm__file_lock_exclusive(copy->mark_fd, &taken, error);
    if (status == ODM_OK && !taken) {
        status = odm__fail(error, ODM_E_BUSY, "%s: another copy is just being made there", copy->path);
    }
    if (status != ODM_OK && copy->mark_fd >= 0) {
        odm__os.close(copy->mark_fd);
        copy->mark_fd = -1;
    }
    return status == ODM_OK && remnant ? remnant_remove(directory, error) : status;
}

static odm_status target_open(struct copy *copy, const struct store *source, odm_error *error)
{
    struct directory *directory = &copy->target.directory;
    odm_status status = odm__directory_open(directory, copy->path, error);
    if (status == ODM_NOT_FOUND) {
        copy->made = odm__os.make_directory(AT_FDCWD, copy->path, 0777) == 0;
        if (!copy->made) return odm__fail_os(error, "make the directory", copy->path);
        status = odm__directory_open(directory, copy->path, error);
    }
    if (status != ODM_OK) return status;
    directory->mode = source->directory.mode;
    directory->any_file_system = source->directory.any_file_system;
    if (copy->made && directory->mode != 0) {
        (void)odm__os.change_mode(directory->fd, odm__directory_mode(directory->mode));
    }
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

void odm__copy_free(struct copy *copy)
{
    struct directory *directory = &copy->target.directory;
    if (copy->replay != NULL) odm__replay_free(copy->replay);
    if (copy->segment_fd >= 0) odm__os.close(copy->segment_fd);
    if (copy->mark_fd >= 0) {
        // The mark goes last, so that a kill leaves a remnant that is known as such.
        if (!copy->finished && remnant_remove(directory, NULL) == ODM_OK) {
            (void)odm__file_unlink(directory, COPY_MARK, NULL);
        }
        odm__os.close(copy->mark_fd);
    }
    odm__log_close(&copy->target.log);
    pthread_mutex_destroy(&copy->target.log.mutex);
    odm__directory_close(directory);
    if (copy->made && !copy->finished) (void)odm__os.unlink(AT_FDCWD, copy->path, true); // Only if nothing is in it.
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
    // The first keeps its place in the map's history; the others follow what was copied.
    if (predecessor_end == 0) copy->position = odm__segment_position(segment, address_make(segment->number, 0));
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
    if (status == ODM_OK) status = odm__meta_create(&target->directory, &target->meta.fixed, &slot, error);
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
