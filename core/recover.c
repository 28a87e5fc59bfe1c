/* recover.c - from the files of a map to a state that can be trusted. Contract: recover.h. */
#include "recover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checksum.h"
#include "os.h"
#include "reader.h"
#include "stamp.h"
#include "status.h"

#define INDEX_NAME "index"
#define INDEX_NEW_NAME "index.new"
#define LOCK_NAME "lock"
#define LOCK_NEW_NAME "lock.new"

/* ---- marks -------------------------------------------------------------------------------------------------------- */

odm_status odm__recover_marks(const struct store *store, int index_fd, int lock_fd, struct marks *marks,
                              odm_error *error)
{
    memset(marks, 0, sizeof *marks);
    struct file_identity index, lock, directory = {0};
    if (odm__os.identify(index_fd, &index) != 0 || odm__os.identify(lock_fd, &lock) != 0) {
        return odm__fail_os(error, "look at", "index and lock");
    }
    if (!store->in_memory && odm__os.identify(store->directory.fd, &directory) != 0) {
        return odm__fail_os(error, "look at", store->path);
    }
    if (odm__os.boot_id(marks->boot) != 0) marks->boot[0] = marks->boot[1] = 0;
    marks->device = index.device;
    marks->index_inode = index.inode;
    marks->index_birth_ns = index.birth_ns;
    marks->lock_inode = lock.inode;
    marks->lock_birth_ns = lock.birth_ns;
    marks->directory_inode = directory.inode;
    marks->directory_birth_ns = directory.birth_ns;
    marks->mount_id = index.mount_id;
    return ODM_OK;
}

static bool boot_is_known(const struct marks *marks)
{
    return (marks->boot[0] | marks->boot[1]) != 0;
}

static bool same_files(const struct marks *a, const struct marks *b)
{
    return a->device == b->device && a->index_inode == b->index_inode && a->index_birth_ns == b->index_birth_ns &&
           a->lock_inode == b->lock_inode && a->lock_birth_ns == b->lock_birth_ns &&
           a->directory_inode == b->directory_inode && a->directory_birth_ns == b->directory_birth_ns;
}

static bool same_boot(const struct marks *a, const struct marks *b)
{
    return boot_is_known(a) && a->boot[0] == b->boot[0] && a->boot[1] == b->boot[1];
}

/* What cannot be had counts as different. */
static bool all_is_known(const struct marks *marks)
{
    return marks->index_birth_ns != 0 && marks->lock_birth_ns != 0 && marks->directory_birth_ns != 0 &&
           marks->mount_id != 0;
}

/* Of files that are the same: all that was written to them since is there. */
static bool nothing_was_lost(const struct marks *then, const struct marks *now)
{
    return same_boot(then, now) && all_is_known(now) && then->mount_id == now->mount_id;
}

/* Same boot, same device, and a lock file that was in this place: its tail and intents may be believed if the log agrees. */
static bool same_place(const struct marks *a, const struct marks *b)
{
    return same_boot(a, b) && a->device == b->device && a->lock_inode == b->lock_inode &&
           a->directory_inode == b->directory_inode;
}

/* ---- the files as they are ---------------------------------------------------------------------------------------- */

odm_status odm__linked(odm_error *error, const char *name, uint32_t links)
{
    return odm__fail(error, ODM_E_CORRUPT, "%s has %u links: a map that is linked from two places can not be written",
                     name, links);
}

static odm_status check_links(int fd, const char *name, odm_error *error)
{
    struct file_identity identity;
    if (odm__os.identify(fd, &identity) != 0) return odm__fail_os(error, "look at", name);
    return identity.links <= 1 ? ODM_OK : odm__linked(error, name, identity.links);
}

struct found_files {
    struct index_file *index;
    int lock_fd;
    struct lock_file *lock; // mapped writable, or read into memory
    bool trusted;           // the index is what the log says, and the lock file goes with it
    bool same_place;        // the lock file's tail and intents are worth a look
    bool same_files;        // index and lock are the files they were made as, and no copy
};

static void found_close(struct found_files *found, bool writable)
{
    if (found->index != NULL) odm__index_close(found->index);
    if (found->lock != NULL && writable) odm__file_unmap(found->lock, sizeof *found->lock);
    if (found->lock != NULL && !writable) free(found->lock);
    if (found->lock_fd >= 0) odm__os.close(found->lock_fd);
    *found = (struct found_files){.lock_fd = -1};
}

static odm_status lock_load(int fd, bool writable, struct lock_file **lock, odm_error *error)
{
    struct file_identity identity;
    if (odm__os.identify(fd, &identity) != 0) return odm__fail_os(error, "look at", LOCK_NAME);
    if (identity.size != sizeof **lock) return ODM_NOT_FOUND; // Not worth anything; a new one will be made.
    if (writable) return odm__file_map(fd, sizeof **lock, 0, true, (void **)lock, error);
    *lock = aligned_alloc(PAGE, sizeof **lock);
    if (*lock == NULL) return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    if (odm__os.read_at(fd, *lock, sizeof **lock, 0) == (ssize_t)sizeof **lock) return ODM_OK;
    free(*lock);
    *lock = NULL;
    return odm__fail_os(error, "read", LOCK_NAME);
}

/* Opens index and lock and says how far they can be believed. attached: a writer is known to be attached. What is missing or
 * not ours is no error: it is not trusted. */
static odm_status find_files(const struct store *store, bool attached, struct found_files *found, odm_error *error)
{
    bool writable = !store->read_only;
    *found = (struct found_files){.lock_fd = -1};
    odm_status status =
        odm__index_open(&store->directory, INDEX_NAME, &store->meta.fixed, writable, &found->index, error);
    if (status != ODM_OK) found->index = NULL;
    // A reader that may not read a file can not trust it either.
    if (status != ODM_OK && status != ODM_NOT_FOUND && status != ODM_E_CORRUPT && writable) return status;
    if (writable && found->index != NULL) {
        status = check_links(found->index->fd, INDEX_NAME, error);
        if (status != ODM_OK) {
            found_close(found, writable);
            return status;
        }
    }
    status = odm__file_open(&store->directory, LOCK_NAME, writable, &found->lock_fd, error);
    if (status != ODM_OK && !writable) return ODM_OK;
    if (status == ODM_OK) status = lock_load(found->lock_fd, writable, &found->lock, error);
    if (status == ODM_NOT_FOUND) return ODM_OK;
    if (status == ODM_OK && writable) status = check_links(found->lock_fd, LOCK_NAME, error);
    if (status != ODM_OK) {
        found_close(found, writable);
        return status;
    }

    struct marks now;
    int index_fd = found->index != NULL ? found->index->fd : found->lock_fd;
    status = odm__recover_marks(store, index_fd, found->lock_fd, &now, error);
    if (status != ODM_OK) {
        found_close(found, writable);
        return status;
    }
    const struct marks *then = &found->lock->marks;
    bool same = found->index != NULL && same_files(then, &now);
    found->same_files = same;
    // Who is attached lives in this boot, even where that has no name.
    bool boot_may_be_same = same_boot(then, &now) || !boot_is_known(then) || !boot_is_known(&now);
    found->trusted = same && (attached ? boot_may_be_same : nothing_was_lost(then, &now));
    found->same_place = same_place(then, &now);
    return ODM_OK;
}

odm_status odm__recover_tail(const struct store *store, uint64_t *tail, odm_error *error)
{
    struct found_files found = {.lock_fd = -1};
    *tail = 0;
    // Unlike in find_files, a want of memory or descriptors is told: with no tail less of the map would be kept.
    odm_status status = odm__index_open(&store->directory, INDEX_NAME, &store->meta.fixed, false, &found.index, error);
    if (status != ODM_OK) found.index = NULL;
    if (status == ODM_OK) status = odm__file_open(&store->directory, LOCK_NAME, false, &found.lock_fd, error);
    if (status == ODM_OK) status = lock_load(found.lock_fd, false, &found.lock, error);
    struct marks now;
    if (status == ODM_OK) status = odm__recover_marks(store, found.index->fd, found.lock_fd, &now, error);
    if (status == ODM_OK) {
        const struct marks *then = &found.lock->marks;
        if (same_files(then, &now) && nothing_was_lost(then, &now)) *tail = atomic_load(&found.lock->tail);
    }
    found_close(&found, false);
    return status == ODM_NOT_FOUND || status == ODM_E_CORRUPT ? ODM_OK : status;
}

/* ---- reading the log ---------------------------------------------------------------------------------------------- */

/* Where a rebuild reads, what it builds, and what it found. */
struct rebuild {
    const struct store *store;
    struct meta_slot slot;
    struct chain chain;
    struct reader reader;   // looks through the index that is being built
    struct lock_file *lock; // believed as far as tail and intents go, or NULL
    uint64_t *reserved;     // addresses of reserved records that an intent names
    size_t reserved_count;
    uint64_t records;
    uint64_t end;        // where the log ends
    uint64_t position;   // of the end: bytes since the map was made
    uint64_t number_max; // the highest number seen, in a file or in the lock file
    uint64_t capacity;   // entries to make room for from the start
    struct pending {
        struct record record;
        uint64_t hash;
    } pending[REPLAY_PENDING_MAX]; // read, not yet in the index: what they touch is on its way into the cache
    size_t pending_count;
    bool kept; // nothing returned is missing
    bool torn; // the log ends at a record that is not whole, rather than where nothing stands
};

static odm_status damage(uint64_t address, const char *why, odm_error *error)
{
    return odm__fail(error, ODM_E_CORRUPT,
                     "log/%011" PRIu64 ", offset %" PRIu64 ": %s, below what was synced. Nothing was changed",
                     address_number(address), address_offset(address), why);
}

static bool intent_names(const struct rebuild *rebuild, uint64_t address)
{
    uint32_t stripes = rebuild->store->meta.fixed.stripes;
    for (uint32_t i = 0; i < stripes; ++i) {
        struct intent *intent = intent_of(rebuild->lock, stripes, i);
        if (atomic_load(&intent->kind) != RECORD_NONE && atomic_load(&intent->address) == address) return true;
    }
    return false;
}

static void stripe_count_add(struct stripe *stripe, uint64_t count, uint64_t live_bytes)
{
    // Loads and stores, not additions in one: nobody else sees this index yet.
    count += atomic_load_explicit(&stripe->count, memory_order_relaxed);
    live_bytes += atomic_load_explicit(&stripe->live_bytes, memory_order_relaxed);
    atomic_store_explicit(&stripe->count, count, memory_order_relaxed);
    atomic_store_explicit(&stripe->live_bytes, live_bytes, memory_order_relaxed);
}

static odm_status replay_clear(struct rebuild *rebuild, odm_error *error)
{
    struct index *index = &rebuild->reader.index;
    for (uint32_t i = 0; i < rebuild->store->meta.fixed.stripes; ++i) {
        odm_status status = odm__index_clear(index, i, error);
        if (status != ODM_OK) return status;
        atomic_store(&index->stripes[i].count, 0);
        atomic_store(&index->stripes[i].live_bytes, 0);
    }
    return ODM_OK;
}

static odm_status replay_one(struct rebuild *rebuild, const struct record *record, uint64_t hash, odm_error *error)
{
    struct reader *reader = &rebuild->reader;
    struct stripe *stripe = &reader->index.stripes[hash_stripe(hash, reader->index.stripe_bits)];
    struct hash_source source = {odm__reader_hash_of, reader};
    struct chunk chunk;
    odm_status status = odm__index_chunk(&reader->index, hash, &chunk, error);
    if (status == ODM_OK && record->kind == RECORD_PUT) {
        status = odm__index_make_room(&reader->index, hash, &source, &chunk, error);
    }
    struct place place;
    if (status == ODM_OK) {
        status = odm__reader_locate(reader, &chunk, record->key, record->key_size, hash, &place, error);
    }
    if (status != ODM_OK) return status;

    if (place.found) stripe_count_add(stripe, UINT64_C(0) - 1, 0 - place.size);
    if (record->kind == RECORD_PUT) stripe_count_add(stripe, 1, record->size);
    if (record->kind == RECORD_PUT && place.found) odm__chunk_update(&chunk, place.at, record->address);
    if (record->kind == RECORD_PUT && !place.found) odm__chunk_insert(&chunk, place.at, hash, record->address);
    if (record->kind == RECORD_REMOVE && place.found) odm__chunk_remove(&chunk, place.at);
    return ODM_OK;
}

/* Takes the pending records in, in order. Their segment must still be mapped. */
static odm_status replay_pending(struct rebuild *rebuild, odm_error *error)
{
    odm_status status = ODM_OK;
    for (size_t i = 0; status == ODM_OK && i < rebuild->pending_count; ++i) {
        status = replay_one(rebuild, &rebuild->pending[i].record, rebuild->pending[i].hash, error);
    }
    rebuild->pending_count = 0;
    return status;
}

static odm_status replay(struct rebuild *rebuild, const struct record *record, odm_error *error)
{
    struct reader *reader = &rebuild->reader;
    if (record->kind >= RECORD_FILLER) return ODM_OK;
    odm_status status = ODM_OK;
    if (record->kind == RECORD_CLEAR || rebuild->pending_count == REPLAY_PENDING_MAX)
        status = replay_pending(rebuild, error);
    if (status != ODM_OK) return status;
    if (record->kind == RECORD_CLEAR) return replay_clear(rebuild, error);

    uint64_t hash = hash_key(record->key, record->key_size, reader->seed);
    odm__index_fetch(&reader->index, hash, true);
    rebuild->pending[rebuild->pending_count++] = (struct pending){*record, hash};
    return ODM_OK;
}

static odm_status note_reserved(struct rebuild *rebuild, uint64_t address, odm_error *error)
{
    uint64_t *more = realloc(rebuild->reserved, (rebuild->reserved_count + 1) * sizeof *more);
    if (more == NULL) return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    rebuild->reserved = more;
    rebuild->reserved[rebuild->reserved_count++] = address;
    return ODM_OK;
}

/* Whether anything stands behind the place where the log ends: then something is lost. */
static bool something_follows(const struct segment *segment, uint64_t address)
{
    enum { LOOK_BYTES_MAX = 16 * 1024 * 1024 };
    uint64_t end = address_offset(address) + LOOK_BYTES_MAX;
    if (end > segment->size) end = segment->size;
    for (uint64_t at = address_offset(address); at + 8 <= end; at += 8) {
        uint64_t word;
        memcpy(&word, segment->base + at, sizeof word);
        if (word != 0) return true;
    }
    return false;
}

/* Takes in one record. *ends: the log ends before it. */
static odm_status read_record(struct rebuild *rebuild, const struct segment *segment, uint64_t *address, bool *ends,
                              odm_error *error)
{
    bool synced = *address < rebuild->slot.watermark;
    struct record record;
    enum record_state state =
        odm__log_read(&rebuild->store->log, segment, *address, synced ? CHECK_HEADER : CHECK_ALL, &record);
    if (state != RECORD_WHOLE) {
        if (synced)
            return damage(*address, state == RECORD_BAD ? "a record is not whole" : "a record is missing", error);
        *ends = true;
        rebuild->torn = state == RECORD_BAD || something_follows(segment, *address);
        return ODM_OK;
    }
    odm_status status = ODM_OK;
    if (record.kind == RECORD_RESERVED) {
        if (synced) return damage(*address, "a record was never completed", error);
        if (rebuild->lock == NULL || !intent_names(rebuild, *address)) {
            *ends = rebuild->torn = true;
            return ODM_OK;
        }
        status = note_reserved(rebuild, *address, error);
    } else {
        status = replay(rebuild, &record, error);
    }
    ++rebuild->records;
    *address += record.size / ADDRESS_UNIT;
    return status;
}

static void note_in_log(struct chain *chain, uint64_t number)
{
    for (size_t i = 0; i < chain->count; ++i) {
        if (chain->links[i].number == number) chain->links[i].in_log = true;
    }
}

/* Reads the log from head to its end. */
static odm_status read_log(struct rebuild *rebuild, odm_error *error)
{
    struct log *log = (struct log *)(uintptr_t)&rebuild->store->log;
    uint64_t address = rebuild->slot.head;
    uint64_t tail = rebuild->lock == NULL ? UINT64_MAX : atomic_load(&rebuild->lock->tail);
    uint64_t segment_end = UINT64_MAX, next_first = UINT64_MAX;
    uint64_t position = UINT64_MAX; // that the next segment must have
    struct segment *segment = NULL;
    odm_status status = ODM_OK;
    bool ends = address == 0;
    // A number in a file: where the log ends, and with it how big new segments are, would follow from it.
    if (!ends && address_offset(address) != SEGMENT_HEADER_SIZE) {
        return odm__fail(error, ODM_E_CORRUPT,
                         "meta: the log is said to begin in the midst of log/%011" PRIu64 ". Nothing was changed",
                         address_number(address));
    }
    while (!ends && status == ODM_OK) {
        // Asked before what stands there is looked at: the rest of a segment that was left is no record.
        if (address == segment_end) address = next_first;
        if (segment == NULL || segment->number != address_number(address)) {
            if (segment != NULL) {
                status = replay_pending(rebuild, error);
                position = odm__segment_position(segment, segment_end);
                odm__log_end_in_order(log, segment);
                odm__log_release(log, segment);
                segment = NULL;
            }
            odm__chain_next(&rebuild->chain, address, &segment_end, &next_first);
            if (status == ODM_OK) status = odm__log_segment(log, address_number(address), &segment, error);
            if (status == ODM_OK) odm__log_begin_in_order(log, segment);
            if (status == ODM_NOT_FOUND || (status == ODM_OK && !odm__segment_is_whole(log, segment))) {
                status = damage(address, "the segment is missing or its header is damaged", error);
            }
            if (status != ODM_OK) break;
            // The size of new segments goes by it.
            uint64_t stated = odm__segment_position(segment, address_make(segment->number, 0));
            if (position != UINT64_MAX && stated != position) {
                status = odm__fail(error, ODM_E_CORRUPT,
                                   "log/%011" PRIu64 ": its header says that %" PRIu64
                                   " bytes stand before it, but it is %" PRIu64 ". Nothing was changed",
                                   segment->number, stated, position);
                break;
            }
            note_in_log(&rebuild->chain, segment->number);
        }
        if (address == tail) break;
        if (address == segment_end) continue; // A segment that was begun and not written to.
        bool over = segment->size - address_offset(address) < RECORD_HEADER_SIZE;
        if (over && address < rebuild->slot.watermark) status = damage(address, "the next segment is missing", error);
        if (over || status != ODM_OK) break;
        status = read_record(rebuild, segment, &address, &ends, error);
    }
    if (status == ODM_OK) status = replay_pending(rebuild, error);
    rebuild->end = address;
    if (status == ODM_OK && segment != NULL) rebuild->position = odm__segment_position(segment, address);
    if (segment != NULL) {
        odm__log_end_in_order(log, segment);
        odm__log_release(log, segment);
    }
    if (status == ODM_OK && address < rebuild->slot.watermark) status = damage(address, "the log ends", error);
    return status;
}

/* What may stand at the tail if nothing is missing: nothing yet, or a reservation that was never made good. */
static bool tail_is_clean(const struct rebuild *rebuild)
{
    struct log *log = (struct log *)(uintptr_t)&rebuild->store->log;
    struct segment *segment;
    if (odm__log_segment(log, address_number(rebuild->end), &segment, NULL) != ODM_OK) return false;
    struct record record;
    bool over = segment->size - address_offset(rebuild->end) < RECORD_HEADER_SIZE;
    enum record_state state = over ? RECORD_ABSENT : odm__log_read(log, segment, rebuild->end, CHECK_HEADER, &record);
    bool clean = state == RECORD_ABSENT || (state == RECORD_WHOLE && record.kind == RECORD_RESERVED);
    odm__log_release(log, segment);
    return clean;
}

/* Whether the log ends at the tail; or at the begin of a segment that follows it, whose maker died before it stored the tail. */
static bool ends_at(const struct rebuild *rebuild, uint64_t tail)
{
    if (rebuild->end == tail) return true;
    for (size_t i = 0; i < rebuild->chain.count; ++i) {
        const struct chain_link *link = &rebuild->chain.links[i];
        bool begun = link->whole && rebuild->end == address_make(link->number, SEGMENT_HEADER_SIZE);
        if (begun && link->predecessor_end == tail) return true;
    }
    return false;
}

/* Builds an index from the log, under this name; lock: whose tail and intents are to be believed, or NULL. */
static odm_status rebuild_run(struct rebuild *rebuild, const struct directory *directory, const char *name,
                              struct lock_file *lock, struct index_file **index, odm_error *error)
{
    const struct store *store = rebuild->store;
    rebuild->lock = lock;
    rebuild->reserved_count = rebuild->pending_count = 0;
    rebuild->records = 0;
    rebuild->torn = false;
    for (size_t i = 0; i < rebuild->chain.count; ++i) rebuild->chain.links[i].in_log = false;
    odm_status status = odm__index_create(directory, name, &store->meta.fixed, rebuild->capacity, index, error);
    if (status != ODM_OK) return status;
    struct index_header *header = (void *)(*index)->base;
    atomic_store(&header->head, rebuild->slot.head);

    struct log *log = (struct log *)(uintptr_t)&store->log;
    status = odm__reader_open(&rebuild->reader, NULL, log, store->meta.fixed.seed, error);
    if (status == ODM_OK) {
        odm__reader_attach(&rebuild->reader, *index, &store->meta.fixed, NULL, 0);
        status = read_log(rebuild, error);
        odm__reader_close(&rebuild->reader);
    }
    if (status == ODM_OK && lock != NULL)
        rebuild->kept = ends_at(rebuild, atomic_load(&lock->tail)) && tail_is_clean(rebuild);
    if (status != ODM_OK) {
        odm__index_close(*index);
        *index = NULL;
    }
    return status;
}

/* First with the lock file's word for where the log ends, if there is one; if the log does not bear it out, without. */
static odm_status rebuild_index(struct rebuild *rebuild, const struct directory *directory, const char *name,
                                struct lock_file *lock, struct index_file **index, odm_error *error)
{
    rebuild->kept = false;
    if (lock != NULL && atomic_load(&lock->tail) >= rebuild->slot.watermark && rebuild->slot.head != 0) {
        odm_status status = rebuild_run(rebuild, directory, name, lock, index, error);
        if (status != ODM_OK || rebuild->kept) return status;
        odm__index_close(*index);
        status = odm__file_unlink(directory, name, error);
        if (status != ODM_OK) return status;
    }
    return rebuild_run(rebuild, directory, name, NULL, index, error);
}

static void rebuild_report(const struct rebuild *rebuild, struct index_file *index, bool fresh, bool private_index)
{
    struct index_header *header = (void *)index->base;
    uint64_t cut = 0;
    for (size_t i = 0; i < rebuild->chain.count; ++i) {
        const struct chain_link *link = &rebuild->chain.links[i];
        if (rebuild->kept || rebuild->end == 0 || link->in_log || !link->whole) continue;
        cut += link->size; // More or less: the last segment of the log is seldom full.
    }
    header->recovery_kind = private_index   ? ODM_RECOVERY_PRIVATE
                            : fresh         ? ODM_RECOVERY_NONE
                            : rebuild->kept ? ODM_RECOVERY_KEPT
                                            : ODM_RECOVERY_CUT;
    header->recovery_records = rebuild->records;
    header->recovery_bytes_cut = cut;
    bool seen_cut = !rebuild->kept && (rebuild->torn || cut != 0);
    header->recovery_from = seen_cut ? rebuild->end : 0;
}

/* How many entries to make room for: what the map was made for, or as many as the index that can not be trusted had; so the new
 * one need not grow by splitting every chunk again and again. A number that the log has no room for is none. */
static uint64_t capacity_for(const struct rebuild *rebuild, const struct index_file *old)
{
    const struct meta_fixed *fixed = &rebuild->store->meta.fixed;
    uint64_t capacity = fixed->capacity, log_bytes = 0, count = 0;
    for (size_t i = 0; i < rebuild->chain.count; ++i) {
        if (rebuild->chain.links[i].whole) log_bytes += rebuild->chain.links[i].size;
    }
    const struct stripe *stripes = old == NULL ? NULL : (const void *)(old->base + INDEX_STRIPES_OFFSET);
    for (uint32_t i = 0; stripes != NULL && i < fixed->stripes; ++i) {
        uint64_t more = atomic_load_explicit(&stripes[i].count, memory_order_relaxed);
        if (more > log_bytes / RECORD_HEADER_SIZE - count) return capacity;
        count += more;
    }
    return count > capacity ? count : capacity;
}

static void rebuild_free(struct rebuild *rebuild)
{
    odm__chain_free(&rebuild->chain);
    free(rebuild->reserved);
}

/* A map whose meta says that nothing was ever written to it has no records; else the newer slot of meta is lost. */
static odm_status check_fresh(const struct rebuild *rebuild, odm_error *error)
{
    struct log *log = (struct log *)(uintptr_t)&rebuild->store->log;
    odm_status status = ODM_OK;
    for (size_t i = 0; status == ODM_OK && rebuild->slot.head == 0 && i < rebuild->chain.count; ++i) {
        if (!rebuild->chain.links[i].whole) continue;
        struct segment *segment;
        struct record record;
        uint64_t number = rebuild->chain.links[i].number;
        status = odm__log_segment(log, number, &segment, error);
        if (status != ODM_OK) break;
        uint64_t first = address_make(number, SEGMENT_HEADER_SIZE);
        if (odm__log_read(log, segment, first, CHECK_NOTHING, &record) != RECORD_ABSENT) {
            status = odm__fail(error, ODM_E_CORRUPT,
                               "meta says that the map is new, but log/ has records: one of its slots is lost. Nothing "
                               "was changed");
        }
        odm__log_release(log, segment);
    }
    return status;
}

/* ---- an index for a copy ------------------------------------------------------------------------------------------- */

struct replay {
    struct rebuild rebuild;
    struct index_file *index;
};

odm_status odm__replay_begin(const struct store *store, const char *name, uint64_t head, uint64_t capacity,
                             struct replay **result, odm_error *error)
{
    struct replay *begun = calloc(1, sizeof *begun);
    if (begun == NULL) return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    const struct meta_fixed *fixed = &store->meta.fixed;
    begun->rebuild.store = store;
    odm_status status = odm__index_create(&store->directory, name, fixed, capacity, &begun->index, error);
    if (status == ODM_OK) {
        struct index_header *header = (void *)begun->index->base;
        atomic_store(&header->head, head);
        struct log *log = (struct log *)(uintptr_t)&store->log;
        status = odm__reader_open(&begun->rebuild.reader, NULL, log, fixed->seed, error);
    }
    if (status == ODM_OK) odm__reader_attach(&begun->rebuild.reader, begun->index, fixed, NULL, 0);
    if (status != ODM_OK) {
        odm__replay_free(begun);
        return status;
    }
    *result = begun;
    return ODM_OK;
}

odm_status odm__replay_record(struct replay *state, const struct record *record, odm_error *error)
{
    ++state->rebuild.records;
    return replay(&state->rebuild, record, error);
}

odm_status odm__replay_flush(struct replay *state, odm_error *error)
{
    return replay_pending(&state->rebuild, error);
}

odm_status odm__replay_end(struct replay *state, struct index_file **index, odm_error *error)
{
    odm_status status = replay_pending(&state->rebuild, error);
    if (status == ODM_OK) {
        *index = state->index;
        state->index = NULL;
    }
    odm__replay_free(state);
    return status;
}

void odm__replay_free(struct replay *state)
{
    odm__reader_close(&state->rebuild.reader);
    if (state->index != NULL) odm__index_close(state->index);
    free(state);
}

/* ---- a writable rebuild ------------------------------------------------------------------------------------------- */

/* Room that the dead reserved and did not fill becomes fillers. */
static odm_status fill_reserved(struct rebuild *rebuild, odm_error *error)
{
    struct log_writer writer = {.log = (struct log *)(uintptr_t)&rebuild->store->log};
    for (size_t i = 0; i < rebuild->reserved_count; ++i) {
        odm_status status = odm__log_fill(&writer, rebuild->reserved[i], error);
        if (status != ODM_OK) return status;
    }
    return ODM_OK;
}

/* Removes the files that are no part of the log: behind its end, spares, or left by a rebuild that was killed. */
static odm_status remove_others(const struct rebuild *rebuild, odm_error *error)
{
    const struct log *log = &rebuild->store->log;
    odm_status status = ODM_OK;
    for (size_t i = 0; status == ODM_OK && i < rebuild->chain.count; ++i) {
        if (rebuild->chain.links[i].in_log) continue;
        char name[SEGMENT_NAME_SIZE];
        odm__segment_name(rebuild->chain.links[i].number, name);
        status = odm__file_unlink(&log->directory, name, error);
    }
    return status == ODM_OK ? odm__directory_sync(&log->directory, error) : status;
}

/* Makes what was kept durable, ends it with a new segment, and removes what lies behind. */
static odm_status seal_log(struct rebuild *rebuild, uint64_t *tail, odm_error *error)
{
    struct log *log = (struct log *)(uintptr_t)&rebuild->store->log;
    uint64_t number_max = rebuild->chain.number_max;
    if (rebuild->number_max > number_max) number_max = rebuild->number_max;
    uint64_t number = number_max < FIRST_NUMBER ? FIRST_NUMBER : number_max + 1;
    uint64_t head_number = rebuild->slot.head == 0 ? number : address_number(rebuild->slot.head);
    // Further on, a slot could not tell the new segments from the oldest.
    if (number + 2 > SEGMENT_NUMBER_MAX || number + 2 >= head_number + 2 * SEGMENT_SPAN_MAX) {
        return odm__fail(error, ODM_E_NO_SPACE, "log/ has a file of number %" PRIu64 ": no numbers are left after it",
                         number - 1);
    }
    odm_status status = ODM_OK;
    for (size_t i = 0; status == ODM_OK && i < rebuild->chain.count; ++i) {
        uint64_t at = rebuild->chain.links[i].number;
        if (at < address_number(rebuild->slot.watermark)) continue;
        if (rebuild->chain.links[i].in_log) status = odm__log_sync_segment(log, at, error);
    }
    uint64_t head_position = 0;
    if (rebuild->chain.count != 0 && rebuild->chain.links[0].whole) head_position = rebuild->chain.links[0].position;
    uint64_t log_bytes = rebuild->end == 0 ? 0 : rebuild->position - head_position;
    if (status == ODM_OK) status = odm__log_begin(log, number, rebuild->end, rebuild->position, log_bytes, error);
    if (status != ODM_OK) return status;
    *tail = address_make(number, SEGMENT_HEADER_SIZE);
    return remove_others(rebuild, error);
}

/* Without room for spares the map opens all the same: it can be read, and entries can be removed. */
static void make_first_spares(const struct rebuild *rebuild, uint64_t tail, uint64_t spare[SPARES_KEPT])
{
    struct log *log = (struct log *)(uintptr_t)&rebuild->store->log;
    for (uint64_t i = 0; i < SPARES_KEPT; ++i) {
        uint64_t number = address_number(tail) + 1 + i;
        if (odm__log_make_spare(log, number, rebuild->position, 0, 0, false, &spare[i], NULL) != ODM_OK) break;
    }
}

/* Writes a lock file that goes with the index, and gives it its name. */
static odm_status lock_make(const struct store *store, const struct index_file *index, uint64_t tail,
                            const uint64_t spare[SPARES_KEPT], bool sync_failed, odm_error *error)
{
    odm_status status = odm__file_unlink(&store->directory, LOCK_NEW_NAME, error);
    int fd;
    if (status == ODM_OK)
        status = odm__file_create(&store->directory, LOCK_NEW_NAME, sizeof(struct lock_file), &fd, error);
    if (status != ODM_OK) return status;
    void *base = NULL;
    struct marks marks;
    status = odm__file_map(fd, sizeof(struct lock_file), 0, true, &base, error);
    if (status == ODM_OK) {
        status = odm__recover_marks(store, index->fd, fd, &marks, error);
        struct lock_file *lock = base;
        lock->marks = marks;
        atomic_store(&lock->tail, tail);
        atomic_store(&lock->next_number, address_number(tail) + 3);
        for (int i = 0; i < SPARES_KEPT; ++i) atomic_store(&lock->spare[i], spare[i]);
        atomic_store(&lock->no_space, spare[SPARES_KEPT - 1] == 0);
        atomic_store(&lock->sync_failed, sync_failed);
        odm__file_unmap(base, sizeof(struct lock_file));
    }
    odm__os.close(fd);
    if (status == ODM_OK) status = odm__file_rename(&store->directory, LOCK_NEW_NAME, LOCK_NAME, error);
    if (status != ODM_OK) (void)odm__file_unlink(&store->directory, LOCK_NEW_NAME, NULL);
    return status;
}

/* Whether a sync failed in this boot: then the kernel may hold pages it will never write. */
static bool has_failed_sync(const struct meta_slot *slot, const struct lock_file *lock)
{
    uint64_t boot[2];
    if (lock != NULL && atomic_load(&lock->sync_failed) != 0) return true;
    return odm__os.boot_id(boot) == 0 && (slot->failed_boot[0] | slot->failed_boot[1]) != 0 &&
           slot->failed_boot[0] == boot[0] && slot->failed_boot[1] == boot[1];
}

/* Removes what an earlier rebuild has left under the name of the index that is being built: it may be one that some reader
 * still looks through. */
static odm_status discard_index_new(const struct store *store, odm_error *error)
{
    struct index_file *old;
    if (odm__index_open(&store->directory, INDEX_NEW_NAME, &store->meta.fixed, true, &old, NULL) == ODM_OK) {
        odm__index_supersede(old);
        odm__index_close(old);
    }
    return odm__file_unlink(&store->directory, INDEX_NEW_NAME, error);
}

/* Takes back what this open has made of a map that can not be made: nothing was ever written to it. `meta` goes last, and only
 * if all else could go: a directory that has files of a map without it would be a damaged one. */
static void unmake(struct store *store)
{
    static const char *const names[] = {INDEX_NAME, LOCK_NEW_NAME, LOCK_NAME, "meta"};
    struct chain chain;
    odm_status status = odm__log_chain(&store->log, 0, &chain, NULL);
    if (status != ODM_OK) return;
    for (size_t i = 0; status == ODM_OK && i < chain.count; ++i) {
        char name[SEGMENT_NAME_SIZE];
        odm__segment_name(chain.links[i].number, name);
        status = odm__file_unlink(&store->log.directory, name, NULL);
    }
    odm__chain_free(&chain);
    for (size_t i = 0; status == ODM_OK && i < sizeof names / sizeof names[0]; ++i) {
        status = odm__file_unlink(&store->directory, names[i], NULL);
    }
    if (status == ODM_OK && !store->in_memory) (void)odm__os.unlink(store->directory.fd, "log", true);
}

/* The kernel may have dropped what could not be written, and answer the next sync with a false success: the next opener of
 * this boot is told. */
static void note_failed_sync(const struct store *store, struct meta_slot slot)
{
    if (odm__os.boot_id(slot.failed_boot) == 0) (void)odm__meta_write_slot(&store->meta, &slot, NULL);
}

static odm_status rebuild_replace(struct store *store, struct rebuild *rebuild, struct found_files *found,
                                  struct index_file *index, odm_error *error)
{
    bool sync_failed = has_failed_sync(&rebuild->slot, found->same_place ? found->lock : NULL);
    uint64_t tail = 0, spare[SPARES_KEPT] = {0};
    // From here on the log no longer goes with the old index and lock file: should we be killed, or fail, whoever still has the
    // old marks must not trust them. Tail and intents may still be believed if the log bears them out.
    if (found->lock != NULL) found->lock->marks.index_inode = 0;
    kill_fence();
    odm_status status = fill_reserved(rebuild, error);
    if (status == ODM_OK) status = seal_log(rebuild, &tail, error);
    if (status == ODM_E_IO) note_failed_sync(store, rebuild->slot);
    if (status != ODM_OK) return status;
    make_first_spares(rebuild, tail, spare);

    struct index_header *header = (void *)index->base;
    bool first = rebuild->slot.head == 0;
    if (first) rebuild->slot.head = tail;
    // After a failed sync the kernel may answer another with a false success: nothing more is known to be on disk.
    if (first || !sync_failed) rebuild->slot.watermark = tail;
    if (!sync_failed) rebuild->slot.failed_boot[0] = rebuild->slot.failed_boot[1] = 0;
    rebuild->slot.stamp[0] = rebuild->slot.stamp[1] = 0;
    atomic_store(&header->head, rebuild->slot.head);
    rebuild_report(rebuild, index, first, false);

    odm__log_unlink_below(&store->log, 0, rebuild->slot.head); // What compaction was about to remove.

    // The log is whole and durable: now the word for it, then the new index, then the lock file that vouches for it.
    status = odm__meta_write_slot(&store->meta, &rebuild->slot, error);
    if (status == ODM_OK) status = odm__file_exchange(&store->directory, INDEX_NEW_NAME, INDEX_NAME, error);
    // Readers of the old index are told before the new one can be trusted. Killed before that: the next opener finds the old
    // one under the new one's former name.
    if (status == ODM_OK && found->index != NULL) odm__index_supersede(found->index);
    if (status == ODM_OK) status = discard_index_new(store, error);
    if (status == ODM_OK) status = lock_make(store, index, tail, spare, sync_failed, error);
    // Who can only read, and looked when he was told, could not trust the new one yet. Now he can.
    if (status == ODM_OK && found->index != NULL) odm__index_supersede(found->index);
    return status == ODM_OK ? odm__directory_sync(&store->directory, error) : status;
}

/* The caller holds the exclusive lock on meta. */
static odm_status rebuild_writable(struct store *store, struct found_files *found, odm_error *error)
{
    struct rebuild rebuild = {.store = store};
    struct index_file *index = NULL;
    struct lock_file *lock = found->same_place ? found->lock : NULL;
    odm_status status = odm__meta_read_slot(&store->meta, &rebuild.slot, error);
    if (status == ODM_OK) status = odm__log_chain(&store->log, rebuild.slot.head, &rebuild.chain, error);
    if (status == ODM_OK) status = check_fresh(&rebuild, error);
    if (status == ODM_OK) status = discard_index_new(store, error);
    if (status == ODM_OK && lock != NULL) {
        uint64_t next = atomic_load(&lock->next_number);
        if (next < address_number(rebuild.slot.head) + SEGMENT_SPAN_MAX) rebuild.number_max = next;
    }
    rebuild.capacity = capacity_for(&rebuild, found->index);
    if (status == ODM_OK) status = rebuild_index(&rebuild, &store->directory, INDEX_NEW_NAME, lock, &index, error);
    if (status == ODM_OK) {
        status = rebuild_replace(store, &rebuild, found, index, error);
        odm__index_close(index);
    }
    if (status != ODM_OK) (void)discard_index_new(store, NULL);
    if (status != ODM_OK && rebuild.slot.head == 0 && store->made) unmake(store);
    rebuild_free(&rebuild);
    return status;
}

/* ---- a stamped map ------------------------------------------------------------------------------------------------ */

/* Notes which segments are the log of a stamped map. *goes_on: others lie behind its end. */
static odm_status note_stamped_log(struct rebuild *rebuild, bool *goes_on, odm_error *error)
{
    const uint64_t watermark = rebuild->slot.watermark;
    for (uint64_t address = rebuild->slot.head, end;;) {
        note_in_log(&rebuild->chain, address_number(address));
        if (address_number(address) == address_number(watermark)) break;
        odm__chain_next(&rebuild->chain, address, &end, &address);
        if (end == UINT64_MAX) return damage(address, "the next segment is missing", error);
    }
    *goes_on = false;
    for (size_t i = 0; i < rebuild->chain.count; ++i) {
        const struct chain_link *link = &rebuild->chain.links[i];
        if (link->whole && !link->in_log) *goes_on = true;
    }
    struct log *log = (struct log *)(uintptr_t)&rebuild->store->log;
    struct segment *segment;
    odm_status status = odm__log_segment(log, address_number(watermark), &segment, error);
    if (status != ODM_OK) return status;
    rebuild->end = watermark;
    rebuild->position = odm__segment_position(segment, watermark);
    odm__log_release(log, segment);
    return ODM_OK;
}

/* What a copier left in memory is made durable, for the stamp says that it is. */
static odm_status sync_copy(const struct rebuild *rebuild, const struct index_file *index, odm_error *error)
{
    struct log *log = (struct log *)(uintptr_t)&rebuild->store->log;
    odm_status status = ODM_OK;
    if (odm__os.sync_data(index->fd) != 0) status = odm__fail_sync(error, INDEX_NAME);
    for (size_t i = 0; status == ODM_OK && i < rebuild->chain.count; ++i) {
        if (rebuild->chain.links[i].in_log) status = odm__log_sync_segment(log, rebuild->chain.links[i].number, error);
    }
    return status;
}

/* A copier may have left holes where the index was zero; a store to one needs a block, and on a full disk that is a SIGBUS. Of what
 * lies behind the part in use nothing is ever stored to. */
static odm_status reserve_copy(const struct index_file *index, odm_error *error)
{
    const struct index_header *header = (const void *)index->base;
    if (odm__os.reserve(index->fd, 0, (off_t)atomic_load(&header->size)) == 0) return ODM_OK;
    // Where nothing can be reserved, who makes the next segment tells, or has been told that it does not matter.
    return errno == EOPNOTSUPP ? ODM_OK : odm__fail_os(error, "reserve room for", INDEX_NAME);
}

/* Makes the lock file that goes with the index of a stamped map. The log goes on at the watermark; in a copy, where anything may
 * stand behind it, in a new segment. */
static odm_status open_stamped(struct store *store, struct rebuild *rebuild, const struct found_files *found,
                               odm_error *error)
{
    bool goes_on = false;
    odm_status status = note_stamped_log(rebuild, &goes_on, error);
    uint64_t tail = rebuild->slot.watermark, spare[SPARES_KEPT] = {0};
    if (status == ODM_OK && !found->same_files) status = reserve_copy(found->index, error);
    if (status == ODM_OK && (goes_on || !found->same_files)) {
        status = sync_copy(rebuild, found->index, error);
        if (status == ODM_OK) status = seal_log(rebuild, &tail, error);
    } else if (status == ODM_OK) {
        status = remove_others(rebuild, error);
    }
    if (status != ODM_OK) return status;
    odm__log_unlink_below(&store->log, 0, rebuild->slot.head); // What compaction was about to remove.
    make_first_spares(rebuild, tail, spare);
    bool sync_failed = has_failed_sync(&rebuild->slot, found->same_place ? found->lock : NULL);
    status = lock_make(store, found->index, tail, spare, sync_failed, error);
    return status == ODM_OK ? odm__directory_sync(&store->directory, error) : status;
}

/* ---- opening for writing ------------------------------------------------------------------------------------------ */

static bool same_file(int a, int b)
{
    struct file_identity x, y;
    return odm__os.identify(a, &x) == 0 && odm__os.identify(b, &y) == 0 && file_is_same(&x, &y);
}

/* Takes over found files into the store; the old mappings of a child made by fork are given back. */
static void adopt(struct store *store, struct found_files *found)
{
    if (store->client.file != NULL) odm__file_unmap(store->client.file, sizeof *store->client.file);
    if (store->lock_fd >= 0) odm__os.close(store->lock_fd);
    if (store->index != NULL) {
        // A child made by fork: if another index lies there by now, its handles must not go on with the old one.
        if (!same_file(store->index->fd, found->index->fd)) odm__index_supersede(store->index);
        if (--store->index->references == 0) odm__index_close(store->index);
    }
    store->index = found->index;
    store->lock_fd = found->lock_fd;
    store->client = (struct lock_client){.file = found->lock, .fd = found->lock_fd};
    store->log.lock = found->lock;
    *found = (struct found_files){.lock_fd = -1};
}

static odm_status check_meta(const struct store *store, odm_error *error)
{
    struct file_identity identity;
    if (store->in_memory) return ODM_OK;
    if (odm__os.identify(store->meta.fd, &identity) != 0) return odm__fail_os(error, "look at", "meta");
    if (identity.links != 0) return check_links(store->meta.fd, "meta", error);
    return odm__fail(error, ODM_E_BUSY, "%s was taken back by another opener, which could not make it: try again",
                     store->path);
}

/* Makes files that can not be trusted as they are into such that can. */
static odm_status bring_up(struct store *store, struct found_files *found, odm_error *error)
{
    struct rebuild rebuild = {.store = store};
    bool stamped = false;
    odm_status status = odm__meta_read_slot(&store->meta, &rebuild.slot, error);
    if (status == ODM_OK && found->index != NULL) {
        status = odm__stamp_fits(&store->log, &rebuild.slot, found->index, &stamped, error);
    }
    if (status == ODM_OK && stamped) {
        status = odm__log_chain(&store->log, rebuild.slot.head, &rebuild.chain, error);
        if (status == ODM_OK) status = open_stamped(store, &rebuild, found, error);
        rebuild_free(&rebuild);
        return status;
    }
    return status == ODM_OK ? rebuild_writable(store, found, error) : status;
}

/* Alone: nobody else is attached, and nobody can be until we let go. */
static odm_status make_trusted(struct store *store, odm_error *error)
{
    struct found_files found;
    odm_status status = check_meta(store, error);
    if (status == ODM_OK) status = find_files(store, false, &found, error);
    if (status != ODM_OK) return status;
    if (!found.trusted) {
        status = bring_up(store, &found, error);
        found_close(&found, true);
        if (status == ODM_OK) status = find_files(store, true, &found, error);
        if (status == ODM_OK && !found.trusted) {
            found_close(&found, true);
            status = odm__fail(error, ODM_E_IO, "%s was changed by others while it was opened", store->path);
        }
    }
    if (status == ODM_OK) adopt(store, &found);
    return status;
}

/* ---- a replacement that was not finished --------------------------------------------------------------------------- */

static bool same_index(const struct marks *a, const struct marks *b)
{
    return a->index_inode == b->index_inode && a->index_birth_ns == b->index_birth_ns;
}

odm_status odm__recover_replacement(const struct store *store, struct lock_file *lock, int lock_fd,
                                    struct index_file *old, odm_error *error)
{
    if (atomic_load_explicit(&lock->replacing, memory_order_acquire) == 0) return ODM_OK;
    struct index_file *named;
    struct marks now, looked_through;
    odm_status status = odm__index_open(&store->directory, INDEX_NAME, &store->meta.fixed, true, &named, error);
    if (status == ODM_NOT_FOUND) return odm__fail(error, ODM_E_CORRUPT, "index is missing");
    if (status != ODM_OK) return status;
    status = odm__recover_marks(store, named->fd, lock_fd, &now, error);
    odm__index_close(named);
    if (status == ODM_OK && old != NULL) status = odm__recover_marks(store, old->fd, lock_fd, &looked_through, error);
    if (status != ODM_OK) return status;
    // The marks first: who can only read looks once when he is told, and must find an index that is trusted.
    lock->marks.index_inode = now.index_inode;
    lock->marks.index_birth_ns = now.index_birth_ns;
    kill_fence();
    // If the names were exchanged, whoever looks through the old one is told before anything is written to the new one.
    if (old != NULL && !same_index(&looked_through, &now)) odm__index_supersede(old);
    status = discard_index_new(store, error);
    if (status != ODM_OK) return status;
    atomic_store_explicit(&lock->replacing, 0, memory_order_release);
    return ODM_OK;
}

/* For an opener that finds others attached, who may sleep for long before they write again. */
static void mend_replacement(const struct store *store, const struct found_files *found)
{
    struct lock_client client;
    bool mend;
    if (odm__lock_attach(&client, found->lock, found->lock_fd, NULL) != ODM_OK)
        return; // Until the descriptor is closed.
    if (odm__lock_take(&client, &found->lock->compact, UINT32_MAX, "the compaction lock", &mend, NULL) != ODM_OK)
        return;
    odm_status status = odm__recover_replacement(store, found->lock, found->lock_fd, NULL, NULL);
    if (status == ODM_OK) odm__lock_mended(&found->lock->compact);
    odm__lock_give(&client, &found->lock->compact);
}

/* Beside others that have the lock shared: fine if one of them is a writer that is attached. */
static odm_status join(struct store *store, bool *joined, odm_error *error)
{
    struct found_files found;
    odm_status status = find_files(store, false, &found, error);
    if (status != ODM_OK) return status;
    if (!found.trusted && found.lock_fd >= 0 && odm__lock_anyone_attached(found.lock_fd)) {
        found_close(&found, true);
        status = find_files(store, true, &found, error);
        if (status != ODM_OK) return status;
    }
    *joined = found.trusted;
    if (*joined) {
        adopt(store, &found);
        return ODM_OK;
    }
    if (found.lock != NULL && atomic_load(&found.lock->replacing) != 0) mend_replacement(store, &found);
    found_close(&found, true);
    return ODM_OK;
}

static odm_status attach(struct store *store, odm_error *error)
{
    struct lock_client client = {.file = NULL};
    int fd = store->in_memory ? -1 : store->lock_fd;
    odm_status status = odm__lock_attach(&client, store->client.file, fd, error);
    if (status != ODM_OK) return status;
    store->client = client;
    atomic_store_explicit(&store->attached, true, memory_order_release);
    return ODM_OK;
}

static void pause_ms(unsigned ms)
{
    struct timespec time = {.tv_sec = 0, .tv_nsec = (long)ms * 1000000};
    nanosleep(&time, NULL);
}

/* While this one waits for a file lock, forks pass: whoever has it may be waiting for a fork that waits for this store.
 * So do other threads of a child made by fork, which then attach in our stead: between two tries nothing is half
 * done. */
static void pause_and_let_pass(struct store *store, unsigned ms)
{
    pthread_mutex_unlock(&store->mutex);
    pause_ms(ms);
    pthread_mutex_lock(&store->mutex);
}

static odm_status just_being_made(const struct store *store, odm_error *error)
{
    return odm__fail(error, ODM_E_BUSY, "%s is just being made or rebuilt", store->path);
}

odm_status odm__recover_check_place(const struct store *store, const char *path, odm_error *error)
{
    struct file_identity ours, named;
    int fd = odm__os.open(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    // A name that is gone was moved by somebody, with the map: that is still the one to open.
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return ODM_OK;
    if (fd < 0) return odm__fail_os(error, "open", path);
    odm_status status = ODM_OK;
    if (odm__os.identify(store->directory.fd, &ours) != 0 || odm__os.identify(fd, &named) != 0) {
        status = odm__fail_os(error, "look at", path);
    } else if (!file_is_same(&named, &ours)) {
        status = ODM_EXISTS;
    }
    odm__os.close(fd);
    return status;
}

odm_status odm__recover_writable(struct store *store, const char *path, uint32_t wait_ms, odm_error *error)
{
    uint64_t since_ns = odm__os.now_ns();
    uint64_t patience_ms = wait_ms == UINT32_MAX ? 200 : wait_ms == 0 ? 30 * 1000 : wait_ms;
    for (unsigned attempt = 0; !atomic_load(&store->attached); ++attempt) {
        bool taken = false, joined = false;
        odm_status status = odm__file_lock_exclusive(store->meta.fd, &taken, error);
        if (status != ODM_OK) return status;
        if (taken) {
            if (path != NULL) status = odm__recover_check_place(store, path, error);
            if (status == ODM_OK) status = make_trusted(store, error);
            if (status != ODM_OK) {
                odm__file_unlock(store->meta.fd);
                return status;
            }
            status = odm__file_lock_shared(store->meta.fd, &taken, error);
            return status == ODM_OK ? attach(store, error) : status;
        }
        // Somebody is attached, or opening. Who opens may be rebuilding for long: wait as long as he lives.
        status = odm__file_lock_shared(store->meta.fd, &taken, error);
        if (status == ODM_OK && !taken && wait_ms == UINT32_MAX) return just_being_made(store, error);
        if (status == ODM_OK && taken && path != NULL) status = odm__recover_check_place(store, path, error);
        if (status == ODM_OK && taken) status = join(store, &joined, error);
        if (status == ODM_OK && joined) return attach(store, error);
        // All that opened before us have died or failed; and now some of us hold the lock shared and none can have it alone.
        odm__file_unlock(store->meta.fd);
        if (status != ODM_OK) return status;
        if (taken && odm__os.now_ns() - since_ns > patience_ms * 1000000U) {
            return odm__fail(error, ODM_E_BUSY,
                             "%s is held by a client whose index or lock file is not the one that is there",
                             store->path);
        }
        pause_and_let_pass(store, 1 + (attempt * 7 + (unsigned)store->meta.fd * 3) % 20);
    }
    return ODM_OK;
}

/* ---- opening for reading ------------------------------------------------------------------------------------------ */

/* Opens the index on disk if it can be trusted; else found->index is NULL. */
static odm_status find_trusted(const struct store *store, struct found_files *found, odm_error *error)
{
    odm_status status = find_files(store, false, found, error);
    if (status == ODM_OK && !found->trusted && found->lock_fd >= 0 && odm__lock_anyone_attached(found->lock_fd)) {
        found_close(found, false);
        status = find_files(store, true, found, error);
    }
    if (status != ODM_OK || found->trusted || found->index == NULL) return status;
    struct meta_slot slot;
    bool stamped = false;
    status = odm__meta_read_slot(&store->meta, &slot, error);
    if (status == ODM_OK) status = odm__stamp_fits(&store->log, &slot, found->index, &stamped, error);
    if (status == ODM_OK && !stamped) {
        odm__index_close(found->index);
        found->index = NULL;
    }
    if (status != ODM_OK) found_close(found, false);
    return status;
}

/* For a handle that came in by the stamp, and still looks through that index. Once the stamp is gone somebody has written since:
 * he has made the lock file that is there, or trusted it. */
static odm_status trust_lock(struct store *store, odm_error *error)
{
    struct meta_slot slot;
    odm_status status = odm__meta_read_slot(&store->meta, &slot, error);
    // While it stands nothing is written, and the watermark is the tail. All there is to do at most refreshes of a map at rest.
    if (status != ODM_OK || !stamp_is_none(slot.stamp)) return status;
    struct found_files found;
    status = find_files(store, true, &found, error);
    if (status == ODM_OK && found.trusted && same_file(found.index->fd, store->index->fd))
        store->lock_is_current = true;
    found_close(&found, false);
    return status;
}

odm_status odm__recover_look_again(struct store *store, odm_error *error)
{
    struct file_identity named = {0};
    if (odm__os.identify_name(store->directory.fd, INDEX_NAME, &named) != 0) return ODM_OK;
    bool same = named.inode == store->index_seen.inode && named.birth_ns == store->index_seen.birth_ns;
    if (same && !store->private_index) return store->lock_is_current ? ODM_OK : trust_lock(store, error);

    struct found_files found;
    odm_status status = find_trusted(store, &found, error);
    if (status == ODM_OK && found.index != NULL) {
        if (--store->index->references == 0) {
            odm__recover_leave_private(store, store->index);
            odm__index_close(store->index);
        }
        store->index = found.index;
        store->private_index = false;
        store->lock_is_current = found.trusted;
        store->index_seen = named; // Only now: in the middle of a rebuild the new one is not trusted yet.
        found.index = NULL;
    }
    found_close(&found, false);
    return status;
}

/* Gives back the segments that were kept for a private index. */
static void release_private_log(struct store *store)
{
    store->private_log.index = NULL;
    odm__held_release(&store->private_log.held, &store->log);
}

void odm__recover_leave_private(struct store *store, const struct index_file *index)
{
    // Slices that were lent, and what iterators name, their handles hold themselves.
    if (index != store->private_log.index) return;
    release_private_log(store);
    odm__directory_close(&store->private_directory);
}

/* Keeps the segments that a private index names mapped as long as a handle looks through it: a writer may come and retire them. */
static odm_status hold_segments_of(struct store *store, const struct chain *chain, odm_error *error)
{
    for (size_t i = 0; i < chain->count; ++i) {
        const struct chain_link *link = &chain->links[i];
        if (!link->in_log) continue;
        struct segment *segment;
        odm_status status = odm__log_segment(&store->log, link->number, &segment, error);
        if (status == ODM_NOT_FOUND) {
            status = odm__fail(error, ODM_E_CORRUPT, "log/%011" PRIu64 " has just been removed", link->number);
        }
        if (status == ODM_OK) status = odm__held_add(&store->private_log.held, &store->log, segment, error);
        if (status != ODM_OK) return status;
    }
    return ODM_OK;
}

static odm_status build_private_from(struct store *store, const struct meta_slot *slot, odm_error *error)
{
    struct rebuild rebuild = {.store = store, .slot = *slot, .capacity = store->meta.fixed.capacity};
    struct index_file *index = NULL;
    odm_status status = odm__log_chain(&store->log, slot->head, &rebuild.chain, error);
    if (status == ODM_OK) status = check_fresh(&rebuild, error);
    if (status == ODM_OK) status = rebuild_index(&rebuild, &store->private_directory, INDEX_NAME, NULL, &index, error);
    if (status == ODM_OK) {
        status = hold_segments_of(store, &rebuild.chain, error);
        if (status != ODM_OK) {
            release_private_log(store);
            odm__index_close(index);
        }
    }
    if (status == ODM_OK) {
        rebuild_report(&rebuild, index, false, true);
        store->index = index;
        store->private_log.index = index;
        store->private_index = true;
        store->log_end = rebuild.end;
    } else {
        (void)odm__file_unlink(&store->private_directory, INDEX_NAME, NULL);
    }
    rebuild_free(&rebuild);
    return status;
}

static odm_status build_private(struct store *store, odm_error *error)
{
    odm_status status = odm__directory_open_in(&store->private_directory, NULL, "", "", true, error);
    for (;;) {
        struct meta_slot slot, now;
        if (status == ODM_OK) status = odm__meta_read_slot(&store->meta, &slot, error);
        if (status != ODM_OK) return status;
        status = build_private_from(store, &slot, error);
        // What is missing may have been retired by a writer meanwhile.
        bool moved =
            status == ODM_E_CORRUPT && odm__meta_read_slot(&store->meta, &now, NULL) == ODM_OK && now.head != slot.head;
        if (!moved) return status;
        status = ODM_OK;
    }
}

odm_status odm__recover_read_only(struct store *store, const char *path, uint32_t wait_ms, odm_error *error)
{
    for (unsigned attempt = 0;; ++attempt) {
        enum file_lock_state state;
        odm_status status = odm__file_lock_state(store->meta.fd, &state, error);
        if (status != ODM_OK) return status;
        // Somebody is opening it: in a moment, or after a rebuild, there is an index that can be trusted.
        if (state == FILE_LOCKED_EXCLUSIVE) {
            if (wait_ms == UINT32_MAX) return just_being_made(store, error);
            pause_and_let_pass(store, 1 + attempt % 20);
            continue;
        }
        status = odm__recover_check_place(store, path, error);
        if (status != ODM_OK) return status;
        (void)odm__os.identify_name(store->directory.fd, INDEX_NAME, &store->index_seen);
        struct found_files found;
        status = find_trusted(store, &found, error);
        if (status != ODM_OK) {
            found_close(&found, false);
            return status;
        }
        store->index = found.index;
        store->lock_is_current = found.trusted;
        found.index = NULL;
        found_close(&found, false);
        return store->index != NULL ? ODM_OK : build_private(store, error);
    }
}
