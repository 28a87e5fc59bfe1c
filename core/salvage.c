/* salvage.c - keeping what is whole of a damaged map. Contract: salvage.h. */
#include "salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"
#include "os.h"
#include "status.h"
#include "verify.h"

enum { DAMAGED_NAMES_MAX = 1000, SETTLE_RECORDS = 1000 };

struct salvage {
    struct store source; // only directory, meta and log
    struct meta_slot slot;
    struct chain chain;
    struct copy *copy;
    struct copy_report report;
    uint64_t bound;    // all below it was part of the log: behind damage one reads on. UINT64_MAX: nobody knows
    uint64_t head;     // of what is kept
    uint64_t end;      // of the copy's log
    uint64_t position; // of the end, as the damaged log's headers tell
    uint64_t rest;     // bytes that stand behind the end in its segment
};

static void note_left_out(struct salvage *salvage, uint64_t address, uint64_t bytes)
{
    salvage->report.bytes_cut += bytes;
    if (salvage->report.from == 0) salvage->report.from = address;
}

/* ---- the damaged map ------------------------------------------------------------------------------------------------- */

/* ODM_EXISTS: another has just salvaged it. */
static odm_status source_open(struct salvage *salvage, const char *path, const odm_options *options, odm_error *error)
{
    struct store *source = &salvage->source;
    odm_status status = ODM_OK;
    source->directory.any_file_system = (options->flags & ODM_ANY_FILE_SYSTEM) != 0;
    if (status == ODM_OK) status = odm__directory_check_kind(&source->directory, error);
    if (status == ODM_OK) status = odm__meta_open(&source->directory, true, &source->meta, error);
    if (status == ODM_NOT_FOUND)
        status = odm__fail(error, ODM_E_CORRUPT, "meta is missing: without it nothing can be read");
    if (status != ODM_OK) return status;
    struct file_identity identity;
    if (odm__os.identify(source->meta.fd, &identity) != 0) return odm__fail_os(error, "look at", "meta");
    source->directory.mode = identity.mode & 0666;
    bool alone = false;
    status = odm__file_lock_exclusive(source->meta.fd, &alone, error);
    if (status == ODM_OK && !alone) {
        status = odm__fail(error, ODM_E_BUSY,
                           "%s is damaged, but open elsewhere: it can be salvaged when all have closed it", path);
    }
    if (status == ODM_OK) status = odm__recover_check_place(source, path, error);
    if (status == ODM_OK) {
        status = odm__log_open(&source->log, &source->directory, &source->meta.fixed, false, false, error);
    }
    if (status != ODM_OK) return status;
    // With both slots lost nothing is known but the segments themselves: all they hold counts.
    if (odm__meta_read_slot(&source->meta, &salvage->slot, NULL) != ODM_OK || salvage->slot.head == 0) {
        salvage->slot = (struct meta_slot){.watermark = UINT64_MAX};
    }
    // Without power loss the log goes on to its tail, whether it was synced or not.
    uint64_t tail = 0;
    status = odm__recover_tail(source, &tail, error);
    if (status != ODM_OK) return status;
    salvage->bound = tail > salvage->slot.watermark ? tail : salvage->slot.watermark;
    return odm__log_chain(&source->log, salvage->slot.head, &salvage->chain, error);
}

static void source_close(struct salvage *salvage)
{
    odm__chain_free(&salvage->chain);
    odm__log_close(&salvage->source.log);
    pthread_mutex_destroy(&salvage->source.log.mutex);
    // A child made by fork meanwhile has the descriptor, too, and with it would keep what is not given back.
    if (salvage->source.meta.fd >= 0) odm__file_unlock(salvage->source.meta.fd);
    odm__meta_close(&salvage->source.meta);
    odm__directory_close(&salvage->source.directory);
}

/* ---- where things stand ----------------------------------------------------------------------------------------- */

/* What stood before a segment since the map was made: by its own header or, if that is lost, by its successor's. */
static bool start_of_segment(const struct salvage *salvage, uint64_t number, uint64_t *position)
{
    bool known = false;
    for (size_t i = 0; i < salvage->chain.count; ++i) {
        const struct chain_link *link = &salvage->chain.links[i];
        if (!link->whole || link->number < number) continue;
        uint64_t before = link->number == number ? 0 : address_offset(link->predecessor_end);
        bool tells = link->number == number || address_number(link->predecessor_end) == number;
        if (!tells || link->position < before) continue;
        *position = link->position - before;
        known = true;
        if (link->number == number) break;
    }
    return known;
}

/* Where the log leaves a segment whose successor is lost: as many bytes stand in it as are missing before the next
 * that is known. */
static uint64_t end_by_position(const struct salvage *salvage, const struct segment *segment)
{
    uint64_t start, next = UINT64_MAX, next_start = 0;
    for (size_t i = 0; i < salvage->chain.count; ++i) {
        const struct chain_link *link = &salvage->chain.links[i];
        if (!link->whole || link->number <= segment->number) continue;
        uint64_t before = address_number(link->predecessor_end), at = address_offset(link->predecessor_end);
        bool tells = before > segment->number && before < link->number && link->position >= at;
        uint64_t number = tells ? before : link->number;
        if (number >= next) continue;
        next = number;
        next_start = tells ? link->position - at : link->position;
    }
    if (next == UINT64_MAX || !start_of_segment(salvage, segment->number, &start) || next_start < start)
        return UINT64_MAX;
    uint64_t bytes = (next_start - start) / ADDRESS_UNIT * ADDRESS_UNIT;
    return address_make(segment->number, bytes < segment->size ? bytes : segment->size);
}

/* Up to where in a segment everything was part of the log. Behind it, in the same file, may stand what was once cut
 * off. */
static uint64_t sure_end(const struct salvage *salvage, const struct segment *segment, uint64_t end)
{
    uint64_t sure = address_make(segment->number, segment->size);
    bool last = salvage->bound == UINT64_MAX || segment->number == address_number(salvage->bound);
    if (end == UINT64_MAX && !last) return 0; // Nobody tells.
    if (end < sure) sure = end;
    return salvage->bound < sure ? salvage->bound : sure;
}

/* Bytes from an address to the last one that is not zero. */
static uint64_t bytes_standing(const struct segment *segment, uint64_t address, uint64_t last)
{
    uint64_t from = address_offset(address), to = address_offset(last), word = 0;
    for (; to > from; to -= sizeof word) {
        memcpy(&word, segment->base + to - sizeof word, sizeof word);
        if (word != 0) return to - from;
    }
    return 0;
}

/* Whether a file is a segment to be read. If its header is damaged, the records in it tell: their checks go with the
 * place. Segments that were cut off were removed before meta or the lock file named anything above them; so below the
 * bound every file with records of its own place is of the log. */
static odm_status is_segment(struct salvage *salvage, const struct chain_link *link, bool *is, odm_error *error)
{
    *is = link->whole;
    bool may_be = link->size >= PAGE && link->size <= SEGMENT_SIZE_MAX && link->size % PAGE == 0;
    if (link->whole || !may_be || link->number > address_number(salvage->bound)) return ODM_OK;
    struct log *log = &salvage->source.log;
    struct segment *segment;
    odm_status status = odm__log_segment(log, link->number, &segment, error);
    if (status != ODM_OK) return status;
    uint64_t first = address_make(link->number, SEGMENT_HEADER_SIZE);
    struct record record;
    *is = odm__log_read(log, segment, first, CHECK_HEADER, &record) == RECORD_WHOLE ||
          odm__log_search(log, segment, first, UINT64_MAX) < address_make(link->number, segment->size);
    odm__log_release(log, segment);
    return ODM_OK;
}

/* ---- what is whole --------------------------------------------------------------------------------------------------- */

/* Copies what is whole of a segment, up to `end` (UINT64_MAX: as far as something stands there). *over: the log ends in it. */
static odm_status keep_records(struct salvage *salvage, const struct segment *segment, uint64_t end, bool *over,
                               odm_error *error)
{
    struct log *log = &salvage->source.log;
    uint64_t file_end = address_make(segment->number, segment->size);
    if (end == UINT64_MAX) end = end_by_position(salvage, segment);
    uint64_t last = end < file_end ? end : file_end;
    uint64_t sure = sure_end(salvage, segment, end);
    uint64_t unsettled = 0;
    odm_status status = ODM_OK;
    while (status == ODM_OK && salvage->end < last) {
        uint64_t address = salvage->end;
        struct record record;
        enum record_state state = odm__log_read(log, segment, address, CHECK_ALL, &record);
        bool fits = state == RECORD_WHOLE && record.size / ADDRESS_UNIT <= last - address;
        if (fits && (address < salvage->bound || record.kind != RECORD_RESERVED)) {
            status = odm__copy_record(salvage->copy, &record, error);
            salvage->end = address + record.size / ADDRESS_UNIT;
            ++salvage->report.records;
            if (record.kind == RECORD_RESERVED) note_left_out(salvage, address, record.size);
            if (status == ODM_OK && ++unsettled % SETTLE_RECORDS == 0) status = odm__copy_settle(salvage->copy, error);
            continue;
        }
        // Above the bound the log ends here, as after power loss.
        *over = address >= salvage->bound;
        if (address >= sure) break;
        bool header = odm__log_read(log, segment, address, CHECK_HEADER, &record) == RECORD_WHOLE &&
                      record.size / ADDRESS_UNIT <= sure - address;
        uint64_t next = header ? address + record.size / ADDRESS_UNIT : odm__log_search(log, segment, address, sure);
        if (next == sure && sure == file_end && end == UINT64_MAX) break; // Nothing follows.
        if ((next - address) * ADDRESS_UNIT < RECORD_HEADER_SIZE)
            break; // The rest of a segment: too short for a record.
        status = odm__copy_fill(salvage->copy, address, next, error);
        note_left_out(salvage, address, (next - address) * ADDRESS_UNIT);
        salvage->end = next;
    }
    salvage->rest = bytes_standing(segment, salvage->end, last);
    return status;
}

/* What lay between two segments: in files that are gone, or behind the place where the first could not be read on. */
static void note_between(struct salvage *salvage, uint64_t start)
{
    if (start > salvage->position) note_left_out(salvage, salvage->end, start - salvage->position);
}

static odm_status keep_segment(struct salvage *salvage, uint64_t number, uint64_t first, uint64_t end, bool *over,
                               odm_error *error)
{
    struct segment *segment;
    odm_status status = odm__log_segment(&salvage->source.log, number, &segment, error);
    if (status != ODM_OK) return status;
    uint64_t before = salvage->end;
    uint64_t start = salvage->position + salvage->rest; // If nobody tells.
    (void)start_of_segment(salvage, number, &start);
    if (before != 0) note_between(salvage, start);
    status = odm__copy_segment(salvage->copy, segment, before, error);
    salvage->end = first;
    if (status == ODM_OK) status = keep_records(salvage, segment, end, over, error);
    if (status == ODM_OK) status = odm__copy_segment_end(salvage->copy, salvage->end, error);
    salvage->position = start + address_offset(salvage->end);
    odm__log_release(&salvage->source.log, segment);
    return status;
}

/* After a segment that no other says it follows: the next that is there, as far as the log is known to have come. */
static odm_status next_there(struct salvage *salvage, uint64_t number, uint64_t *first, odm_error *error)
{
    odm_status status = ODM_OK;
    *first = 0;
    for (size_t i = 0; status == ODM_OK && *first == 0 && i < salvage->chain.count; ++i) {
        const struct chain_link *link = &salvage->chain.links[i];
        bool is = false;
        if (link->number <= number || link->number > address_number(salvage->bound)) continue;
        status = is_segment(salvage, link, &is, error);
        if (is) *first = address_make(link->number, SEGMENT_HEADER_SIZE);
    }
    return status;
}

/* What stands behind the last that is kept: so it is seen that something was cut off. */
static void note_behind(struct salvage *salvage, uint64_t number)
{
    uint64_t bytes = salvage->rest;
    for (size_t i = 0; i < salvage->chain.count; ++i) {
        const struct chain_link *link = &salvage->chain.links[i];
        struct segment *segment;
        if (link->number <= number || odm__log_segment(&salvage->source.log, link->number, &segment, NULL) != ODM_OK)
            continue;
        uint64_t first = address_make(link->number, SEGMENT_HEADER_SIZE);
        struct record record;
        // A spare is not looked through.
        bool empty = odm__log_read(&salvage->source.log, segment, first, CHECK_NOTHING, &record) == RECORD_ABSENT;
        if (!empty) bytes += bytes_standing(segment, first, address_make(link->number, segment->size));
        odm__log_release(&salvage->source.log, segment);
    }
    if (bytes != 0) note_left_out(salvage, salvage->end, bytes);
}

/* Segment by segment, as their headers chain them; over those that are missing. */
static odm_status keep_all(struct salvage *salvage, odm_error *error)
{
    odm_status status = ODM_OK;
    bool over = false;
    uint64_t number = 0;
    for (uint64_t first = salvage->head; status == ODM_OK && !over && first != 0;) {
        uint64_t end, next;
        number = address_number(first);
        odm__chain_next(&salvage->chain, first, &end, &next);
        status = keep_segment(salvage, number, first, end, &over, error);
        first = next != UINT64_MAX ? next : 0;
        if (status == ODM_OK && first == 0) status = next_there(salvage, number, &first, error);
    }
    if (status == ODM_OK) note_behind(salvage, number);
    return status;
}

static odm_status find_head(struct salvage *salvage, odm_error *error)
{
    odm_status status = next_there(salvage, 0, &salvage->head, error);
    if (status != ODM_OK) return status;
    if (salvage->head == 0) return odm__fail(error, ODM_E_CORRUPT, "log/ has no segment of this map that is whole");
    if (address_number(salvage->head) == address_number(salvage->slot.head)) salvage->head = salvage->slot.head;
    return ODM_OK;
}

/* The oldest segments may be gone: how much of it the next one tells, if it was but one. */
static void note_missing_head(struct salvage *salvage)
{
    uint64_t head = salvage->slot.head;
    if (head == 0 || salvage->head == head) return;
    uint64_t bytes = 0;
    for (size_t i = 0; i < salvage->chain.count; ++i) {
        const struct chain_link *link = &salvage->chain.links[i];
        if (link->number != address_number(salvage->head)) continue;
        if (address_number(link->predecessor_end) == address_number(head)) {
            bytes = (link->predecessor_end - head) * ADDRESS_UNIT;
        }
    }
    note_left_out(salvage, head, bytes);
}

/* ---- names ----------------------------------------------------------------------------------------------------------- */

/* Gives the damaged map a name of its own, and its old name to the new one. */
static odm_status change_names(const char *path, const char *salvaged, char *name, size_t name_size, odm_error *error)
{
    bool exchanged = odm__os.exchange(AT_FDCWD, path, salvaged) == 0;
    const char *damaged = exchanged ? salvaged : path;
    for (unsigned i = 0; i < DAMAGED_NAMES_MAX; ++i) {
        snprintf(name, name_size, i == 0 ? "%s.damaged" : "%s.damaged.%u", path, i);
        if (odm__os.rename_new(AT_FDCWD, damaged, name) == 0) {
            if (!exchanged && odm__os.rename(AT_FDCWD, salvaged, path) != 0)
                return odm__fail_os(error, "rename", salvaged);
            return ODM_OK;
        }
    }
    return odm__fail_os(error, "rename", damaged);
}

static void sync_parent_of(const char *path)
{
    int fd = odm__os.open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    int parent = fd < 0 ? -1 : odm__os.open(fd, "..", O_RDONLY | O_DIRECTORY, 0);
    if (parent >= 0) {
        (void)odm__os.sync_directory(parent);
        odm__os.close(parent);
    }
    if (fd >= 0) odm__os.close(fd);
}

/* ODM_E_CORRUPT: it is damaged, whether it opens or not. Looks only: an open for writing might rebuild something. */
static odm_status is_sound(const char *path, const odm_options *options, odm_error *error)
{
    odm_options ordinary = *options;
    ordinary.flags = (options->flags & ODM_ANY_FILE_SYSTEM) | ODM_READ_ONLY;
    struct store *store;
    struct odm_map *map;
    odm_status status = odm__store_open(path, &ordinary, &store, error);
    if (status != ODM_OK) return status;
    status = odm__map_open(store, ordinary.flags, ordinary.wait_ms, &map, error);
    odm__store_release(store);
    if (status != ODM_OK) return status;
    status = odm__verify(map, NULL, NULL);
    if (status != ODM_OK && error != NULL) *error = map->error;
    odm__map_close(map);
    return status;
}

/* The names a salvage needs. */
struct names {
    char *plain, *salvaged, *damaged;
    size_t room;
};

/* Finds the directory's own name: what is exchanged is not a symbolic link, and what lies beside it is. */
static odm_status names_find(struct names *names, const char *path, odm_error *error)
{
    names->plain = realpath(path, NULL);
    if (names->plain == NULL) return odm__fail_os(error, "find the name of", path);
    size_t length = strlen(names->plain);
    names->room = length + 32;
    names->salvaged = calloc(1, names->room);
    names->damaged = calloc(1, names->room);
    char *here = realpath(".", NULL);
    odm_status status = ODM_OK;
    if (names->salvaged == NULL || names->damaged == NULL) {
        status = odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    } else if (path[0] != '/' && here != NULL && strncmp(here, names->plain, length) == 0 &&
               (here[length] == '/' || here[length] == '\0')) {
        // It would still lead to the damaged map afterwards.
        status =
            odm__fail(error, ODM_E_INVALID,
                      "the working directory lies in the map, which is to change its name: give the whole path, %s",
                      names->plain);
    } else {
        snprintf(names->salvaged, names->room, "%s.salvaged", names->plain);
    }
    free(here);
    return status;
}

static void names_free(struct names *names)
{
    free(names->plain);
    free(names->salvaged);
    free(names->damaged);
}

/* Makes the new map's directory, as accessible as the damaged one and its owner's; so the files in it will be, too. One
 * that is there is left to the copy: it takes only what a copy has left. */
static odm_status make_alike(const struct directory *old, const char *to, odm_error *error)
{
    (void)odm__os.unlink(AT_FDCWD, to, true); // An empty one, of a maker who was killed here.
    if (odm__os.make_directory(AT_FDCWD, to, 0700) != 0)
        return errno == EEXIST ? ODM_OK : odm__fail_os(error, "make the directory", to);
    struct file_identity wanted, made;
    int fd = odm__os.open(AT_FDCWD, to, O_RDONLY | O_DIRECTORY, 0);
    bool done = fd >= 0 && odm__os.identify(old->fd, &wanted) == 0 && odm__os.identify(fd, &made) == 0;
    if (done && (made.uid != wanted.uid || made.gid != wanted.gid)) {
        // Who is not root can give it to a group of his at most, and reads and writes the map by the rights of others.
        done = odm__os.change_owner(fd, wanted.uid, wanted.gid) == 0;
        if (!done && geteuid() != 0) {
            (void)odm__os.change_owner(fd, (uid_t)-1, wanted.gid);
            done = true;
        }
    }
    if (done) done = odm__os.change_mode(fd, (wanted.mode & 07777) | 0700) == 0; // Files are still to be made in it.
    odm_status status = done ? ODM_OK : odm__fail_os(error, "make alike", to);
    if (fd >= 0) odm__os.close(fd);
    return status;
}

static odm_status salvage_copy(struct salvage *salvage, const char *to, odm_error *error)
{
    struct store *source = &salvage->source;
    odm_status status = find_head(salvage, error);
    if (status != ODM_OK) return status;
    note_missing_head(salvage);
    status = make_alike(&source->directory, to, error);
    if (status != ODM_OK) return status;
    status = odm__copy_begin(source, to, salvage->head, source->meta.fixed.capacity, &salvage->copy, error);
    if (status == ODM_EXISTS) {
        return odm__fail(error, ODM_E_BUSY, "%s, where the salvaged map is made, is a map already: take it away first",
                         to);
    }
    if (status == ODM_OK) status = keep_all(salvage, error);
    return status == ODM_OK ? odm__copy_finish(salvage->copy, &salvage->report, error) : status;
}

/* ODM_EXISTS: another has just done it. */
static odm_status salvage_as(struct salvage *salvage, const struct names *names, const odm_options *options,
                             odm_error *error)
{
    odm_status status = source_open(salvage, names->plain, options, error);
    if (status != ODM_OK) return status;
    status = salvage_copy(salvage, names->salvaged, error);
    if (salvage->copy != NULL) odm__copy_free(salvage->copy);
    // Only if nothing is in it, and only with the lock: without, it may be what another is just making.
    if (status != ODM_OK) (void)odm__os.unlink(AT_FDCWD, names->salvaged, true);
    if (status == ODM_OK) status = change_names(names->plain, names->salvaged, names->damaged, names->room, error);
    if (status == ODM_OK) sync_parent_of(names->plain);
    return status;
}

odm_status odm__salvage(const char *path, const odm_options *options, odm_error *error)
{
    struct salvage salvage = {.report = {.recovery_kind = ODM_RECOVERY_SALVAGED}};
    struct store *source = &salvage.source;
    source->log.directory.fd = source->meta.fd = -1;
    pthread_mutex_init(&source->log.mutex, NULL);
    struct names names = {.plain = NULL};
    // Before it is looked at: if another salvages it meanwhile, this is not what lies there then.
    odm_status status = odm__directory_open(&source->directory, path, error);
    if (status == ODM_OK) status = is_sound(path, options, error);
    if (status == ODM_E_CORRUPT) {
        status = names_find(&names, path, error);
        if (status == ODM_OK) status = salvage_as(&salvage, &names, options, error);
        if (status == ODM_EXISTS) status = is_sound(path, options, error);
    }
    source_close(&salvage);
    names_free(&names);
    return status;
}
