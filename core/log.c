/* log.c - segment files, and the records in them. Contract: log.h. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "checksum.h"
#include "status.h"

#define DIRECTORY_NAME "log"
enum { POPULATE_BYTES_MAX = 8 * 1024 * 1024 };
/* Smaller maps fit into memory, without asking: that takes longer than a get. */
#ifdef ODM_TEST_SMALL
#define OUTGROWN_BYTES_MIN UINT64_C(1)
#else
#define OUTGROWN_BYTES_MIN (UINT64_C(64) << 20)
#endif

/* ---- opening ------------------------------------------------------------------------------------------------------ */

odm_status odm__log_open(struct log *log, const struct directory *map_directory, const struct meta_fixed *fixed,
                         bool writable, bool create, odm_error *error)
{
    odm_status status = odm__directory_open_in(&log->directory, map_directory, DIRECTORY_NAME, "log/", create, error);
    if (status == ODM_NOT_FOUND) return odm__fail(error, ODM_E_CORRUPT, "the directory log/ is missing");
    if (status != ODM_OK) return status;
    log->fixed = fixed;
    log->writable = writable;
    return ODM_OK;
}

void odm__log_close(struct log *log)
{
    // In a child made by fork: what a thread of the parent was just taking or giving back.
    while (log->segments != NULL) {
        struct segment *left = log->segments;
        log->segments = left->next;
        if (left->writable != NULL) odm__file_unmap(left->writable, left->size);
        odm__file_unmap((void *)(uintptr_t)left->base, left->size + SEGMENT_GUARD);
        free(left);
    }
    odm__directory_close(&log->directory);
}

void odm__segment_name(uint64_t number, char name[SEGMENT_NAME_SIZE])
{
    snprintf(name, SEGMENT_NAME_SIZE, "%011" PRIu64, number);
}

/* The number a file name stands for, or 0. */
static uint64_t number_of_name(const char *name)
{
    if (strlen(name) != 11 || strspn(name, "0123456789") != 11) return 0;
    uint64_t number = strtoull(name, NULL, 10);
    return number <= SEGMENT_NUMBER_MAX ? number : 0;
}

/* ---- segments ----------------------------------------------------------------------------------------------------- */

static uint64_t header_check(const struct segment_header *header, uint64_t seed)
{
    return check_bytes(header, offsetof(struct segment_header, check), seed);
}

static bool header_is_whole(const struct log *log, const struct segment_header *header, uint64_t number, uint64_t size)
{
    // Acquire: partner of the release in write_header, after which nothing of it changes.
    uint64_t check = atomic_load_explicit(&header->check, memory_order_acquire);
    return check != 0 && header->magic == SEGMENT_MAGIC && header->number == number && header->size == size &&
           header->map_id[0] == log->fixed->map_id[0] && header->map_id[1] == log->fixed->map_id[1] &&
           check == header_check(header, log->fixed->seed);
}

/* A segment that lies in memory is mapped at once, rather than by a fault for every few pages. One that does not is left to
 * the faults: reading all of it from disk would take too long for the get that needs one page. */
static void map_resident(void *base, uint64_t size)
{
    unsigned char pages[POPULATE_BYTES_MAX / PAGE];
    if (size > POPULATE_BYTES_MAX || odm__os.resident(base, size, pages) != 0) return;
    for (uint64_t i = 0; i < size / PAGE; ++i) {
        if ((pages[i] & 1) == 0) return;
    }
    (void)odm__os.advise(base, size, MADV_POPULATE_READ);
}

static void segment_advise(const struct log *log, const struct segment *segment)
{
    int advice = log->outgrown && segment->in_order == 0 ? MADV_RANDOM : MADV_NORMAL;
    (void)odm__os.advise((void *)(uintptr_t)segment->base, segment->size, advice);
}

static odm_status segment_map(struct log *log, uint64_t number, struct segment **segment, odm_error *error)
{
    char name[SEGMENT_NAME_SIZE];
    odm__segment_name(number, name);
    int fd;
    odm_status status = odm__file_open(&log->directory, name, log->writable, &fd, error);
    if (status != ODM_OK) return status;

    struct segment *mapped = calloc(1, sizeof *mapped);
    struct file_identity identity;
    void *base = NULL;
    if (mapped == NULL) {
        status = odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    } else if (odm__os.identify(fd, &identity) != 0) {
        status = odm__fail_os(error, "look at", name);
    } else if (identity.size < PAGE || identity.size > SEGMENT_SIZE_MAX || identity.size % PAGE != 0) {
        status =
            odm__fail(error, ODM_E_CORRUPT, "log/%s has %" PRIu64 " bytes, which no segment has", name, identity.size);
    } else {
        // A writer's descriptor is writable even for this mapping, or msync on it would do nothing.
        status = odm__file_map(fd, identity.size, SEGMENT_GUARD, false, &base, error);
    }
    odm__os.close(fd);
    if (status != ODM_OK) {
        free(mapped);
        return status;
    }
    map_resident(base, identity.size);
    *mapped = (struct segment){.number = number, .size = identity.size, .base = base, .references = 1};
    if (log->outgrown) segment_advise(log, mapped);
    *segment = mapped;
    return ODM_OK;
}

odm_status odm__log_segment(struct log *log, uint64_t number, struct segment **segment, odm_error *error)
{
    odm_status status = ODM_OK;
    pthread_mutex_lock(&log->mutex);
    struct segment *found = log->segments;
    while (found != NULL && found->number != number) found = found->next;
    if (found != NULL) {
        ++found->references;
    } else {
        status = segment_map(log, number, &found, error);
        if (status == ODM_OK) {
            found->next = log->segments;
            log->segments = found;
        }
    }
    pthread_mutex_unlock(&log->mutex);
    if (status == ODM_OK) *segment = found;
    return status;
}

static void segment_unmap_writable(struct segment *segment)
{
    if (segment->writable != NULL) odm__file_unmap(segment->writable, segment->size);
    segment->writable = NULL;
}

void odm__log_release(struct log *log, struct segment *segment)
{
    pthread_mutex_lock(&log->mutex);
    assert(segment->references > 0);
    if (--segment->references == 0) {
        assert(segment->writers == 0);
        struct segment **link = &log->segments;
        while (*link != segment) link = &(*link)->next;
        *link = segment->next;
        odm__file_unmap((void *)(uintptr_t)segment->base, segment->size + SEGMENT_GUARD);
        free(segment);
    }
    pthread_mutex_unlock(&log->mutex);
}

bool odm__segment_is_whole(const struct log *log, const struct segment *segment)
{
    return header_is_whole(log, (const void *)segment->base, segment->number, segment->size);
}

uint64_t odm__segment_position(const struct segment *segment, uint64_t address)
{
    const struct segment_header *header = (const void *)segment->base;
    return header->position + address_offset(address);
}

bool odm__log_position(struct log *log, uint64_t address, uint64_t *position)
{
    struct segment *segment;
    if (odm__log_segment(log, address_number(address), &segment, NULL) != ODM_OK) return false;
    bool whole = odm__segment_is_whole(log, segment);
    *position = odm__segment_position(segment, address);
    odm__log_release(log, segment);
    return whole;
}

uint64_t odm__log_bytes(struct log *log, uint64_t head, uint64_t tail)
{
    uint64_t from, to;
    if (!odm__log_position(log, head, &from) || !odm__log_position(log, tail, &to)) return 0;
    return to > from ? to - from : 0;
}

uint64_t odm__log_unlinked_bytes(struct log *log, uint64_t head)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&log->mutex);
    for (const struct segment *segment = log->segments; segment != NULL; segment = segment->next) {
        if (segment->number < address_number(head)) bytes += segment->size;
    }
    pthread_mutex_unlock(&log->mutex);
    return bytes;
}

/* Big folios make a map fast to fill and to read; but one small synced write then writes back all of a folio. */
static bool big_folios_pay(const struct log *log)
{
    if (log->lock == NULL) return false;
    uint64_t synced = atomic_load_explicit(&log->lock->synced_number, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&log->lock->tail, memory_order_relaxed);
    return synced + 1 < address_number(tail);
}

static void populate(const struct log *log, int fd, uint64_t size)
{
    // A long file would take too long for the put that makes it; its pages come as they are stored to.
    if (size > POPULATE_BYTES_MAX) return;
    odm__file_populate(fd, 0, size, size >= POPULATE_HUGE && big_folios_pay(log) ? POPULATE_HUGE : POPULATE_USUAL);
}

/* Takes a reference on a segment and on a writable mapping of it. */
static odm_status segment_take_writable(struct log *log, uint64_t number, struct segment **taken, odm_error *error)
{
    struct segment *segment;
    odm_status status = odm__log_segment(log, number, &segment, error);
    char name[SEGMENT_NAME_SIZE];
    odm__segment_name(number, name);
    if (status == ODM_NOT_FOUND) return odm__fail(error, ODM_E_CORRUPT, "log/%s, to be written to, is missing", name);
    if (status != ODM_OK) return status;

    pthread_mutex_lock(&log->mutex);
    if (segment->writable == NULL) {
        int fd;
        void *base;
        status = odm__file_open(&log->directory, name, true, &fd, error);
        if (status == ODM_NOT_FOUND) status = odm__fail(error, ODM_E_CORRUPT, "log/%s is missing", name);
        if (status == ODM_OK) {
            status = odm__file_map(fd, segment->size, 0, true, &base, error);
            odm__os.close(fd);
        }
        if (status == ODM_OK) {
            segment->writable = base;
            bool huge = segment->size > POPULATE_BYTES_MAX && big_folios_pay(log);
            if (huge) (void)odm__os.advise(base, segment->size, MADV_HUGEPAGE);
        }
    }
    if (status == ODM_OK) ++segment->writers;
    pthread_mutex_unlock(&log->mutex);
    if (status != ODM_OK) {
        odm__log_release(log, segment);
        return status;
    }
    kill_fence(); // Not before it is whole: a child forked meanwhile gives back what it finds here.
    *taken = segment;
    return ODM_OK;
}

static void segment_give_writable(struct log *log, struct segment **segment)
{
    struct segment *given = *segment;
    if (given == NULL) return;
    // Forgotten first: a child forked meanwhile closes the handle, and must not give it back once more.
    *segment = NULL;
    kill_fence();
    pthread_mutex_lock(&log->mutex);
    assert(given->writers > 0);
    if (--given->writers == 0) segment_unmap_writable(given);
    pthread_mutex_unlock(&log->mutex);
    odm__log_release(log, given);
}

/* ---- what the kernel reads ahead ----------------------------------------------------------------------------------- */

static bool is_outgrown(struct log *log, uint64_t live_bytes, uint64_t count)
{
    if (log->directory.memory != NULL || live_bytes < OUTGROWN_BYTES_MIN || live_bytes / PAGE >= count) return false;
    if (log->memory_bytes == 0 && odm__os.memory_size(&log->memory_bytes) != 0) log->memory_bytes = UINT64_MAX;
    // What is dead, and the index, take about as much again.
    return live_bytes > log->memory_bytes / 2;
}

void odm__log_expect_gets(struct log *log, uint64_t live_bytes, uint64_t count)
{
    pthread_mutex_lock(&log->mutex);
    bool outgrown = is_outgrown(log, live_bytes, count);
    if (outgrown != log->outgrown) {
        log->outgrown = outgrown;
        for (const struct segment *segment = log->segments; segment != NULL; segment = segment->next) {
            segment_advise(log, segment);
        }
    }
    pthread_mutex_unlock(&log->mutex);
}

void odm__log_begin_in_order(struct log *log, struct segment *segment)
{
    pthread_mutex_lock(&log->mutex);
    if (++segment->in_order == 1 && log->outgrown) segment_advise(log, segment);
    pthread_mutex_unlock(&log->mutex);
}

void odm__log_end_in_order(struct log *log, struct segment *segment)
{
    pthread_mutex_lock(&log->mutex);
    assert(segment->in_order > 0);
    if (--segment->in_order == 0 && log->outgrown) segment_advise(log, segment);
    pthread_mutex_unlock(&log->mutex);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

enum record_state odm__log_read(const struct log *log, const struct segment *segment, uint64_t address,
                                enum record_check check, struct record *record)
{
    uint64_t seed = log->fixed->seed;
    uint64_t offset = address_offset(address);
    // Checked, not asserted: an address may come from a damaged index, the bytes from a damaged file.
    if (offset < SEGMENT_HEADER_SIZE || offset > segment->size || segment->size - offset < RECORD_HEADER_SIZE) {
        return RECORD_BAD;
    }
    struct record_header *header = (struct record_header *)(uintptr_t)(segment->base + offset);
    // Acquire: partner of the release that stores it last.
    uint64_t first = atomic_load_explicit(&header->first, memory_order_acquire);
    if (first == 0) return RECORD_ABSENT;

    uint32_t word = (uint32_t)(first >> 32);
    uint64_t key_size = record_word_key_size(word);
    uint64_t left = segment->size - offset - RECORD_HEADER_SIZE;
    // Subtracted, not added: the sum may wrap; left is what the segment has.
    if (padded(key_size) > left || padded(header->value_size) > left - padded(key_size)) return RECORD_BAD;

    *record = (struct record){
        .kind = record_word_kind(word),
        .address = address,
        .lsn = header->lsn,
        .size = record_size(key_size, header->value_size),
        .key = segment->base + offset + RECORD_HEADER_SIZE,
        .key_size = key_size,
        .value = segment->base + offset + RECORD_HEADER_SIZE + padded(key_size),
        .value_size = header->value_size,
    };
    if (record->kind == RECORD_NONE || record->kind > RECORD_RESERVED || word >> 28 != 0) return RECORD_BAD;
    if (check == CHECK_NOTHING) return RECORD_WHOLE;

    if (record->kind >= RECORD_FILLER) {
        uint64_t whole = first_of_room(record->kind, key_size, header->value_size, header->lsn, seed, address);
        return first == whole ? RECORD_WHOLE : RECORD_BAD;
    }
    if ((uint32_t)first !=
        check_header(word, header->value_size, header->check_b, header->lsn, record->key, key_size, seed, address)) {
        return RECORD_BAD;
    }
    if (check == CHECK_ALL && header->check_b != check_value(record->value, record->value_size, seed, address)) {
        return RECORD_BAD;
    }
    return RECORD_WHOLE;
}

uint64_t odm__log_search(const struct log *log, const struct segment *segment, uint64_t address, uint64_t end)
{
    // Longer keys are not believed: hashing them at each place, in a file made to do harm, would take for ever.
    enum { KEY_SIZE_MAX = 4096 };
    uint64_t last = end != UINT64_MAX ? end : address_make(segment->number, segment->size);
    // No record is shorter than a header, so the next is no nearer.
    for (address += RECORD_HEADER_SIZE / ADDRESS_UNIT; address < last; ++address) {
        struct record record;
        enum record_state state = odm__log_read(log, segment, address, CHECK_NOTHING, &record);
        if (state != RECORD_WHOLE || record.key_size > KEY_SIZE_MAX) continue;
        if (record.size / ADDRESS_UNIT > last - address) continue;
        if (odm__log_read(log, segment, address, CHECK_HEADER, &record) == RECORD_WHOLE) return address;
    }
    return last;
}

/* ---- walking ------------------------------------------------------------------------------------------------------ */

struct listing {
    struct chain *chain;
    uint64_t number_min; // of those that are wanted
    uint64_t number_end; // likewise, the first that is not
    size_t room;
    bool out_of_memory;
};

static void listing_push(struct listing *listing, uint64_t number)
{
    struct chain *chain = listing->chain;
    if (chain->count == listing->room) {
        size_t room = listing->room == 0 ? 64 : listing->room * 2;
        struct chain_link *links = realloc(chain->links, room * sizeof *links);
        if (links == NULL) {
            listing->out_of_memory = true;
            return;
        }
        chain->links = links;
        listing->room = room;
    }
    chain->links[chain->count++] = (struct chain_link){.number = number};
}

static void listing_add(void *context, const char *name)
{
    struct listing *listing = context;
    struct chain *chain = listing->chain;
    uint64_t number = number_of_name(name);
    if (number == 0) return;
    // A number that could not have been given out is not ours: it is left alone, and no number is counted from it.
    if (number >= listing->number_min + SEGMENT_SPAN_MAX + SEGMENT_SPAN_MAX / 2) return;
    if (number > chain->number_max) chain->number_max = number;
    if (number >= listing->number_min) listing_push(listing, number);
}

static int compare_links(const void *a, const void *b)
{
    const struct chain_link *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

static odm_status link_read(const struct log *log, struct chain_link *link, odm_error *error)
{
    char name[SEGMENT_NAME_SIZE];
    odm__segment_name(link->number, name);
    int fd;
    odm_status status = odm__file_open(&log->directory, name, false, &fd, error);
    if (status == ODM_NOT_FOUND) return ODM_OK; // Unlinked since it was listed.
    if (status != ODM_OK) return status;

    struct segment_header header;
    struct file_identity identity;
    if (odm__os.identify(fd, &identity) != 0) {
        status = odm__fail_os(error, "look at", name);
    } else {
        ssize_t size = odm__os.read_at(fd, &header, sizeof header, 0);
        if (size < 0) status = odm__fail_os(error, "read", name);
        link->size = identity.size;
        link->whole = size == sizeof header && header_is_whole(log, &header, link->number, identity.size);
        if (link->whole) {
            link->predecessor_end = header.predecessor_end;
            link->position = header.position;
        }
    }
    odm__os.close(fd);
    return status;
}

odm_status odm__log_chain(const struct log *log, uint64_t head, struct chain *chain, odm_error *error)
{
    *chain = (struct chain){.links = NULL};
    struct listing listing = {.chain = chain, .number_min = head == 0 ? FIRST_NUMBER : address_number(head)};
    odm_status status = odm__directory_list(&log->directory, listing_add, &listing, error);
    if (status == ODM_OK && listing.out_of_memory) status = odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    for (size_t i = 0; status == ODM_OK && i < chain->count; ++i) status = link_read(log, &chain->links[i], error);
    if (status != ODM_OK) {
        odm__chain_free(chain);
        return status;
    }
    if (chain->count != 0) qsort(chain->links, chain->count, sizeof *chain->links, compare_links);
    return ODM_OK;
}

void odm__chain_free(struct chain *chain)
{
    free(chain->links);
    *chain = (struct chain){.links = NULL};
}

void odm__chain_next(const struct chain *chain, uint64_t address, uint64_t *end, uint64_t *first)
{
    *end = *first = UINT64_MAX;
    for (size_t i = 0; i < chain->count; ++i) {
        const struct chain_link *link = &chain->links[i];
        bool follows = link->whole && link->number > address_number(address) &&
                       address_number(link->predecessor_end) == address_number(address) &&
                       link->predecessor_end >= address;
        // Should two name one end, the later was made by a recovery that distrusted the other.
        if (!follows || link->predecessor_end > *end) continue;
        *end = link->predecessor_end;
        *first = address_make(link->number, SEGMENT_HEADER_SIZE);
    }
}

odm_status odm__log_successor(struct log *log, uint64_t number, uint64_t tail, uint64_t *end, uint64_t *first,
                              odm_error *error)
{
    // Few numbers are left out, so the files are asked for by name rather than listed.
    uint64_t last = address_number(tail) < number + SEGMENT_SPAN_MAX ? address_number(tail) : number + SEGMENT_SPAN_MAX;
    for (uint64_t next = number + 1; next <= last; ++next) {
        struct segment *segment;
        odm_error detail = {.struct_size = sizeof detail};
        odm_status status = odm__log_segment(log, next, &segment, &detail);
        // Not even the size of a segment: its maker died, or is at work, between its creation and its reservation.
        if (status == ODM_NOT_FOUND || status == ODM_E_CORRUPT) continue;
        if (status != ODM_OK) {
            odm__error_copy(error, &detail);
            return status;
        }
        const struct segment_header *header = (const void *)segment->base;
        bool follows = odm__segment_is_whole(log, segment) && address_number(header->predecessor_end) == number;
        *end = header->predecessor_end;
        odm__log_release(log, segment);
        if (!follows) continue;
        *first = address_make(next, SEGMENT_HEADER_SIZE);
        return ODM_OK;
    }
    return odm__fail(error, ODM_E_CORRUPT, "log/%011" PRIu64 ": no segment follows it towards the tail", number);
}

/* ---- making segments ---------------------------------------------------------------------------------------------- */

static uint64_t power_of_two_up(uint64_t size)
{
    uint64_t power = SEGMENT_SIZE_MIN;
    while (power < size && power < SEGMENT_SIZE_MAX) power *= 2;
    return power;
}

static uint64_t segment_size_min(uint64_t number, uint64_t record_bytes)
{
    uint64_t size = record_bytes + SEGMENT_HEADER_SIZE;
    if (number >= SEGMENT_NUMBER_LATE && size < SEGMENT_SIZE_MIN_LATE) size = SEGMENT_SIZE_MIN_LATE;
    return size < SEGMENT_SIZE_MIN ? SEGMENT_SIZE_MIN : size;
}

/* A few hundred segments at most; a small map that was written much gets bigger ones, so that it rolls over rarely.
 * log_bytes: from head to tail; position: appended since the map was made. */
static uint64_t segment_size(const struct log *log, uint64_t number, uint64_t log_bytes, uint64_t position,
                             uint64_t record_bytes)
{
    if (log->fixed->capacity_bytes > log_bytes) log_bytes = log->fixed->capacity_bytes;
    uint64_t size = log_bytes / SEGMENTS_PER_LOG;
    uint64_t hot = position / SEGMENTS_PER_LOG < SEGMENT_SIZE_HOT ? position / SEGMENTS_PER_LOG : SEGMENT_SIZE_HOT;
    if (size < hot) size = hot;
    // To make a file takes as long as a thousand puts. So a small log has fewer, up to the size of a huge page.
    uint64_t young = log_bytes / SEGMENTS_PER_SMALL_LOG;
    if (young > POPULATE_HUGE) young = POPULATE_HUGE;
    if (size < young) size = young;
    if (size < segment_size_min(number, record_bytes)) size = segment_size_min(number, record_bytes);
    size = power_of_two_up(size);
    return size < SEGMENT_SIZE_MAX ? size : SEGMENT_SIZE_MAX;
}

static void write_header(const struct log *log, struct segment_header *header, uint64_t number, uint64_t size,
                         uint64_t predecessor_end, uint64_t position)
{
    // A writer may have died over this header: it must not look whole while it is written again.
    if (atomic_load_explicit(&header->check, memory_order_relaxed) != 0) {
        atomic_store_explicit(&header->check, 0, memory_order_release);
        atomic_thread_fence(memory_order_release);
    }
    header->magic = SEGMENT_MAGIC;
    header->number = number;
    header->predecessor_end = predecessor_end;
    header->size = size;
    header->map_id[0] = log->fixed->map_id[0];
    header->map_id[1] = log->fixed->map_id[1];
    header->position = position;
    uint64_t check = header_check(header, log->fixed->seed);
    // Release: partner of the acquire in header_is_whole.
    atomic_store_explicit(&header->check, check, memory_order_release);
}

void odm__segment_header(const struct log *log, const struct segment *segment, uint64_t predecessor_end,
                         uint64_t position, struct segment_header *header)
{
    memset(header, 0, sizeof *header);
    write_header(log, header, segment->number, segment->size, predecessor_end, position);
}

odm_status odm__log_begin(struct log *log, uint64_t number, uint64_t predecessor_end, uint64_t position,
                          uint64_t log_bytes, odm_error *error)
{
    uint64_t size = segment_size(log, number, log_bytes, position, 0);
    char name[SEGMENT_NAME_SIZE];
    odm__segment_name(number, name);
    int fd;
    odm_status status = odm__file_create(&log->directory, name, size, &fd, error);
    if (status == ODM_EXISTS) return odm__fail(error, ODM_E_BUSY, "log/%s has appeared", name);
    if (status != ODM_OK) return status;
    populate(log, fd, size);
    void *base;
    status = odm__file_map(fd, size, 0, true, &base, error);
    odm__os.close(fd);
    if (status != ODM_OK) return status;
    write_header(log, base, number, size, predecessor_end, position);
    if (odm__os.sync_map(base, size) != 0) status = odm__fail_sync(error, name);
    odm__file_unmap(base, size);
    if (status == ODM_OK) status = odm__directory_sync(&log->directory, error);
    return status;
}

odm_status odm__log_sync_segment(struct log *log, uint64_t number, odm_error *error)
{
    struct segment *segment;
    odm_status status = odm__log_segment(log, number, &segment, error);
    if (status == ODM_NOT_FOUND) return odm__fail(error, ODM_E_CORRUPT, "log/%011" PRIu64 " is missing", number);
    if (status != ODM_OK) return status;
    if (odm__os.sync_map((void *)(uintptr_t)segment->base, segment->size) != 0) status = odm__fail_sync(error, "log/");
    odm__log_release(log, segment);
    return status;
}

/* ---- the append lock ---------------------------------------------------------------------------------------------- */

/* The spares above the tail's segment, the lower number first. */
struct spares {
    uint64_t word[SPARES_MAX];
    unsigned count;
    unsigned vacant; // a place in the lock file that none of them takes
};

static struct spares spares_above(const struct lock_file *lock, uint64_t tail)
{
    struct spares spares = {.count = 0};
    for (unsigned i = 0; i < SPARES_MAX; ++i) {
        uint64_t word = atomic_load_explicit(&lock->spare[i], memory_order_relaxed);
        if (spare_number(word) <= address_number(tail)) { // The tail has taken or passed it.
            spares.vacant = i;
            continue;
        }
        unsigned at = spares.count++;
        for (; at > 0 && spares.word[at - 1] > word; --at) spares.word[at] = spares.word[at - 1];
        spares.word[at] = word;
    }
    return spares;
}

/* Finishes a rollover that a dead owner of the append lock began, and voids what it noted but did not reserve. */
static odm_status append_mend(struct log_writer *writer, odm_error *error)
{
    struct log *log = writer->log;
    struct lock_file *lock = log->lock;
    uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_acquire);
    struct spares spares = spares_above(lock, tail);
    for (unsigned i = 0; i < spares.count; ++i) {
        uint64_t number = spare_number(spares.word[i]);
        struct segment *segment;
        odm_status status = odm__log_segment(log, number, &segment, error);
        if (status == ODM_NOT_FOUND) continue; // Its maker died before it was anything.
        if (status != ODM_OK) return status;
        bool whole = odm__segment_is_whole(log, segment);
        odm__log_release(log, segment);
        if (!whole) continue;
        tail = address_make(number, SEGMENT_HEADER_SIZE);
        atomic_store_explicit(&lock->tail, tail, memory_order_release);
        break; // The higher of two can not be filled in: the lower is taken first, or passed.
    }
    // Room at the tail was never reserved, so nobody may finish what was to go there.
    for (uint32_t stripe = 0; stripe < log->fixed->stripes; ++stripe) {
        struct intent *intent = intent_of(lock, log->fixed->stripes, stripe);
        uint64_t kind = atomic_load_explicit(&intent->kind, memory_order_acquire);
        uint64_t address = atomic_load_explicit(&intent->address, memory_order_relaxed);
        if (kind != RECORD_NONE && address == tail)
            atomic_store_explicit(&intent->kind, RECORD_NONE, memory_order_release);
    }
    return ODM_OK;
}

static odm_status append_take(struct log_writer *writer, odm_error *error)
{
    struct lock_line *line = &writer->log->lock->append;
    bool mend;
    odm_status status = odm__lock_take(writer->client, line, writer->wait_ms, "the append lock", &mend, error);
    if (__builtin_expect(status != ODM_OK || !mend, 1)) return status;
    status = append_mend(writer, error);
    if (status == ODM_OK) {
        odm__lock_mended(line);
    } else {
        odm__lock_give(writer->client, line);
    }
    return status;
}

static void append_give(struct log_writer *writer)
{
    odm__lock_give(writer->client, &writer->log->lock->append);
}

odm_status odm__log_settle_tail(struct log_writer *writer, odm_error *error)
{
    odm_status status = append_take(writer, error);
    if (status == ODM_OK) append_give(writer);
    return status;
}

/* ---- spares ------------------------------------------------------------------------------------------------------- */

/* Where a new spare with room for `size_min` goes: a vacant place, or that of the lowest if all are taken and too small.
 * False: nowhere. *dropped: the number of the one that leaves, or 0. */
static bool spare_place(const struct lock_file *lock, const struct spares *spares, uint64_t size_min, unsigned *place,
                        uint64_t *dropped)
{
    *place = spares->vacant;
    if (spares->count < SPARES_MAX) return true;
    for (unsigned i = 0; i < spares->count; ++i) {
        if (spare_size(spares->word[i]) >= size_min) return false;
    }
    *dropped = spare_number(spares->word[0]);
    for (*place = 0; atomic_load_explicit(&lock->spare[*place], memory_order_relaxed) != spares->word[0];) ++*place;
    return true;
}

/* Makes a file a spare. *installed tells; *dropped is the number that left for it, or 0. */
static odm_status spare_install(struct log_writer *writer, uint64_t word, uint64_t size_min, bool *installed,
                                uint64_t *dropped, odm_error *error)
{
    struct lock_file *lock = writer->log->lock;
    *installed = false;
    *dropped = 0;
    odm_status status = append_take(writer, error);
    if (status != ODM_OK) return status;
    uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_relaxed);
    struct spares spares = spares_above(lock, tail);
    unsigned place;
    if (spare_number(word) > address_number(tail) && spare_place(lock, &spares, size_min, &place, dropped)) {
        // One word, one store: a kill leaves the old spare or the new one.
        atomic_store_explicit(&lock->spare[place], word, memory_order_release);
        *installed = true;
    }
    // Whether there are less than are kept is known to all: then puts leave the room that is left to removes and compaction.
    unsigned count = spares.count + (*installed && *dropped == 0);
    if (count >= SPARES_KEPT) atomic_store_explicit(&lock->no_space, 0, memory_order_relaxed);
    append_give(writer);
    return ODM_OK;
}

static void segment_unlink(struct log *log, uint64_t number)
{
    char name[SEGMENT_NAME_SIZE];
    odm__segment_name(number, name);
    (void)odm__file_unlink(&log->directory, name, NULL); // A file that stays goes with the next rebuild.
}

static void below_add(void *context, const char *name)
{
    struct listing *listing = context;
    uint64_t number = number_of_name(name);
    if (number == 0 || number >= listing->number_end) return;
    listing_push(listing, number);
}

void odm__log_unlink_below(struct log *log, uint64_t old_head, uint64_t head)
{
    // Not by name, either, if a damaged index says that head was far away.
    if (old_head != 0 && address_number(head) - address_number(old_head) < SEGMENT_SPAN_MAX) {
        for (uint64_t n = address_number(old_head); n < address_number(head); ++n) segment_unlink(log, n);
        return;
    }
    struct chain below = {.links = NULL};
    struct listing listing = {.chain = &below, .number_end = address_number(head)};
    (void)odm__directory_list(&log->directory, below_add, &listing, NULL);
    for (size_t i = 0; i < below.count; ++i) segment_unlink(log, below.links[i].number);
    odm__chain_free(&below);
}

odm_status odm__log_make_spare(struct log *log, uint64_t number, uint64_t position, uint64_t log_bytes,
                               uint64_t record_bytes, bool shrink, uint64_t *spare, odm_error *error)
{
    uint64_t size = segment_size(log, number, log_bytes, position, record_bytes);
    uint64_t size_min = shrink ? segment_size_min(number, record_bytes) : size;
    char name[SEGMENT_NAME_SIZE];
    odm__segment_name(number, name);
    int fd;
    odm_status status = odm__file_create(&log->directory, name, size, &fd, error);
    // A full disk may still have room for a smaller one: maybe the one that compaction has just given back.
    while (status == ODM_E_NO_SPACE && size / 2 >= size_min) {
        size = power_of_two_up(size / 2);
        status = odm__file_create(&log->directory, name, size, &fd, error);
    }
    if (status != ODM_OK) return status;
    populate(log, fd, size);
    odm__os.close(fd);
    *spare = number << 20 | size / PAGE;
    return ODM_OK;
}

static odm_status number_take(struct lock_file *lock, uint64_t head, uint64_t *number, odm_error *error)
{
    // Asked before one is taken: who fails for want of numbers must not use them up.
    *number = atomic_load_explicit(&lock->next_number, memory_order_relaxed);
    if (*number - address_number(head) < SEGMENT_SPAN_MAX) {
        *number = atomic_fetch_add_explicit(&lock->next_number, 1, memory_order_relaxed);
    }
    if (*number - address_number(head) < SEGMENT_SPAN_MAX && *number <= SEGMENT_NUMBER_MAX) return ODM_OK;
    return odm__fail(error, ODM_E_NO_SPACE, "the log has %" PRIu64 " segments: compact the map", SEGMENT_SPAN_MAX);
}

/* Makes one spare with room for a record of this size; a smaller one than it should be if the disk has no room and `shrink`. The append lock is not held. */
static odm_status spare_make(struct log_writer *writer, uint64_t head, uint64_t record_bytes, bool shrink,
                             odm_error *error)
{
    struct log *log = writer->log;
    struct lock_file *lock = log->lock;
    uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_acquire);
    uint64_t log_bytes = odm__log_bytes(log, head, tail);
    uint64_t position =
        writer->tail != NULL ? odm__segment_position(writer->tail, address_make(writer->tail->number, 0)) : 0;

    uint64_t word, number;
    odm_status status;
    do { // A file that has the name already was made by somebody who failed, and could not even unlink it.
        status = number_take(lock, head, &number, error);
        if (status != ODM_OK) return status;
        status = odm__log_make_spare(log, number, position, log_bytes, record_bytes, shrink, &word, error);
    } while (status == ODM_EXISTS);
    if (status == ODM_E_NO_SPACE) atomic_store_explicit(&lock->no_space, 1, memory_order_relaxed);
    if (status != ODM_OK) {
        // Nobody has seen the number: it is given back if it is still the last, or a full disk would use all of them up.
        uint64_t after = number + 1;
        (void)atomic_compare_exchange_strong_explicit(&lock->next_number, &after, number, memory_order_relaxed,
                                                      memory_order_relaxed);
        return status;
    }

    bool installed;
    uint64_t dropped;
    status = spare_install(writer, word, record_bytes + SEGMENT_HEADER_SIZE, &installed, &dropped, error);
    if (dropped != 0) segment_unlink(log, dropped);
    if (!installed) segment_unlink(log, number);
    return status;
}

void odm__log_after_rollover(struct log_writer *writer, uint64_t head)
{
    struct log *log = writer->log;
    char name[SEGMENT_NAME_SIZE];
    int fd;
    odm__segment_name(writer->sealed, name);
    writer->sealed = 0;
    if (odm__file_open(&log->directory, name, true, &fd, NULL) == ODM_OK) {
        if (log->directory.memory == NULL) (void)odm__os.start_write_back(fd, 0, 0);
        odm__os.close(fd);
    }
    segment_give_writable(log, &writer->spare);
    // The tail has passed them, so nobody can take them any more.
    for (int i = 0; i < SPARES_MAX; ++i) {
        if (writer->passed[i] != 0) segment_unlink(log, writer->passed[i]);
        writer->passed[i] = 0;
    }
    for (int i = 0; i < SPARES_KEPT; ++i) {
        uint64_t tail = atomic_load_explicit(&log->lock->tail, memory_order_acquire);
        if (spares_above(log->lock, tail).count >= SPARES_KEPT) return;
        if (spare_make(writer, head, 0, false, NULL) != ODM_OK) return;
    }
}

/* ---- reserving ---------------------------------------------------------------------------------------------------- */

static odm_status writer_move(struct log_writer *writer, struct segment **slot, uint64_t number, odm_error *error)
{
    segment_give_writable(writer->log, slot);
    odm_status status = segment_take_writable(writer->log, number, slot, error);
    if (status != ODM_OK) *slot = NULL;
    return status;
}

/* What is appended to a segment whose header is damaged would not be found again; nor can its position be believed. That the
 * segment is gone is no failure if the log has gone on since it was looked at: compaction may have retired it by now. */
static odm_status tail_move(struct log_writer *writer, uint64_t number, odm_error *error)
{
    odm_status status = writer_move(writer, &writer->tail, number, error);
    uint64_t tail = atomic_load_explicit(&writer->log->lock->tail, memory_order_acquire);
    if (status == ODM_E_CORRUPT && address_number(tail) != number) return ODM_OK;
    ++writer->segments;
    if (status != ODM_OK || odm__segment_is_whole(writer->log, writer->tail)) return status;
    segment_give_writable(writer->log, &writer->tail);
    return odm__fail(error, ODM_E_CORRUPT, "log/%011" PRIu64 ", to be written to, has a damaged header", number);
}

/* Maps a spare. That it is gone is no failure if another writer has put a bigger one in its place since it was looked at. */
static odm_status spare_move(struct log_writer *writer, uint64_t number, odm_error *error)
{
    odm_status status = writer_move(writer, &writer->spare, number, error);
    if (status != ODM_E_CORRUPT) return status;
    const struct lock_file *lock = writer->log->lock;
    struct spares spares = spares_above(lock, atomic_load_explicit(&lock->tail, memory_order_acquire));
    for (unsigned i = 0; i < spares.count; ++i) {
        if (spare_number(spares.word[i]) == number) return status;
    }
    return ODM_OK;
}

void odm__log_writer_close(struct log_writer *writer)
{
    segment_give_writable(writer->log, &writer->tail);
    segment_give_writable(writer->log, &writer->spare);
}

/* What keeps a reservation from being made under the append lock as it is. */
enum obstacle {
    OBSTACLE_NONE,
    OBSTACLE_TAIL_NOT_MAPPED,
    OBSTACLE_SPARE_NOT_MAPPED,
    OBSTACLE_NO_SPARE,
    OBSTACLE_DAMAGE
};

/* Rolls over to the first spare with room, if this class of record may and the spare is mapped. */
static __attribute__((noinline)) enum obstacle roll(struct log_writer *writer, enum append_class class, uint64_t size,
                                                    uint64_t *number)
{
    struct log *log = writer->log;
    struct lock_file *lock = log->lock;
    uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_relaxed);
    struct spares spares = spares_above(lock, tail);
    // On a full disk one spare is for removes, and the last for compaction: nothing else gives disk space back. A put brings
    // its own first.
    unsigned needed = class == APPEND_PUT ? SPARES_MAX : class == APPEND_REMOVE ? SPARES_KEPT : 1;
    if (spares.count < needed) return OBSTACLE_NO_SPARE;
    for (unsigned i = 0; i < spares.count; ++i) {
        if (spare_size(spares.word[i]) < size + SEGMENT_HEADER_SIZE) continue;
        *number = spare_number(spares.word[i]);
        if (writer->spare == NULL || writer->spare->number != *number) return OBSTACLE_SPARE_NOT_MAPPED;

        // Killed here: no header is whole, nothing has happened.
        write_header(log, (void *)writer->spare->writable, *number, writer->spare->size, tail,
                     odm__segment_position(writer->tail, tail));
        // Killed here: the next owner of the lock finds the header and stores the tail.
        atomic_store_explicit(&lock->tail, address_make(*number, SEGMENT_HEADER_SIZE), memory_order_release);
        writer->sealed = address_number(tail);
        for (unsigned k = 0; k < i; ++k) writer->passed[k] = spare_number(spares.word[k]);
        return OBSTACLE_NONE;
    }
    return OBSTACLE_NO_SPARE;
}

/* Notes the intents and writes the reserved header at the tail; then the room is ours. */
static void reserve_at_tail(struct log_writer *writer, uint64_t tail, uint64_t size, struct append *append)
{
    struct log *log = writer->log;
    struct lock_file *lock = log->lock;
    append->address = tail;
    append->place = writer->tail->writable + address_offset(tail);
    if (append->lsn == 0) append->lsn = tail;

    // The intent before the tail. Killed between the two, the next owner of the append lock finds an intent at the tail and
    // voids it. Kind last: partner of the acquire in append_mend and in who mends the stripe.
    for (uint32_t i = append->stripe; i < append->stripe + append->stripe_count; ++i) {
        struct intent *intent = intent_of(lock, log->fixed->stripes, i);
        atomic_store_explicit(&intent->address, tail, memory_order_relaxed);
        intent->count = append->count;
        intent->live_bytes = append->live_bytes;
        atomic_store_explicit(&intent->kind, append->kind, memory_order_release);
    }
    struct record_header *header = (struct record_header *)(void *)append->place;
    // A dead writer's reservation that was taken back may stand here, of another size.
    if (atomic_load_explicit(&header->first, memory_order_relaxed) != 0) {
        atomic_store_explicit(&header->first, 0, memory_order_release);
        atomic_thread_fence(memory_order_release);
    }
    header->value_size = (uint32_t)append->value_size;
    header->lsn = append->lsn;
    uint64_t first =
        first_of_room(RECORD_RESERVED, append->key_size, header->value_size, append->lsn, log->fixed->seed, tail);
    atomic_store_explicit(&header->first, first, memory_order_release);
    // Release: who sees this tail sees a reserved header or a whole record below it, and the intent. Killed after it: the
    // room is a hole that whoever mends the stripe turns into a filler.
    atomic_store_explicit(&lock->tail, tail + size / ADDRESS_UNIT, memory_order_release);
}

/* Makes the spare that is mapped the tail, if it has become the tail. */
static __attribute__((noinline)) bool tail_is_spare(struct log_writer *writer, uint64_t number)
{
    if (writer->spare == NULL || writer->spare->number != number) return false;
    struct segment *old = writer->tail, *spare = writer->spare;
    writer->spare = NULL; // Never both the same, as a child forked meanwhile may see it.
    kill_fence();
    writer->tail = spare;
    kill_fence();
    writer->spare = old; // Let go of later, while no lock is held.
    ++writer->segments;
    return true;
}

/* Sees to it that the segment the tail lies in is mapped for writing: as the spare just rolled over to, if by this writer. */
static inline enum obstacle tail_ready(struct log_writer *writer, uint64_t tail)
{
    uint64_t number = address_number(tail);
    bool ready = writer->tail != NULL && writer->tail->number == number;
    if (__builtin_expect(!ready, 0) && !tail_is_spare(writer, number)) return OBSTACLE_TAIL_NOT_MAPPED;
    // Checked, not asserted: the tail comes from a file.
    uint64_t offset = address_offset(tail);
    return offset < SEGMENT_HEADER_SIZE || offset > writer->tail->size ? OBSTACLE_DAMAGE : OBSTACLE_NONE;
}

static enum obstacle try_reserve(struct log_writer *writer, struct append *append, uint64_t size, uint64_t *number)
{
    struct lock_file *lock = writer->log->lock;
    for (;;) {
        // Relaxed: only the owner of the append lock moves the tail, and that is us.
        uint64_t tail = atomic_load_explicit(&lock->tail, memory_order_relaxed);
        *number = address_number(tail);
        enum obstacle obstacle = tail_ready(writer, tail);
        if (obstacle != OBSTACLE_NONE) return obstacle;
        // While no spare can be made, the last one is compaction's also when it has become the tail.
        bool left_to_moves = append->class != APPEND_MOVE &&
                             atomic_load_explicit(&lock->no_space, memory_order_relaxed) != 0 &&
                             spares_above(lock, tail).count == 0;
        if (__builtin_expect(left_to_moves, 0)) return OBSTACLE_NO_SPARE;
        if (size <= writer->tail->size - address_offset(tail)) {
            reserve_at_tail(writer, tail, size, append);
            return OBSTACLE_NONE;
        }
        obstacle = roll(writer, append->class, size, number);
        if (obstacle != OBSTACLE_NONE) return obstacle;
    }
}

static enum obstacle try_roll(struct log_writer *writer, bool anew, uint64_t *number)
{
    uint64_t tail = atomic_load_explicit(&writer->log->lock->tail, memory_order_relaxed);
    *number = address_number(tail);
    enum obstacle obstacle = tail_ready(writer, tail);
    bool begun = !anew && address_offset(tail) == SEGMENT_HEADER_SIZE;
    if (obstacle != OBSTACLE_NONE || begun) return obstacle;
    return roll(writer, APPEND_MOVE, 0, number);
}

/* Takes an obstacle out of the way, while the append lock is not held; size: of the record that is to be appended. */
static __attribute__((noinline)) odm_status overcome(struct log_writer *writer, uint64_t head, enum obstacle obstacle,
                                                     uint64_t number, enum append_class class, uint64_t size,
                                                     odm_error *error)
{
    switch (obstacle) {
        case OBSTACLE_NONE: return ODM_OK;
        case OBSTACLE_TAIL_NOT_MAPPED: return tail_move(writer, number, error);
        case OBSTACLE_SPARE_NOT_MAPPED: return spare_move(writer, number, error);
        case OBSTACLE_NO_SPARE: return spare_make(writer, head, size, class == APPEND_MOVE, error);
        case OBSTACLE_DAMAGE: break;
    }
    return odm__fail(error, ODM_E_CORRUPT, "lock: the tail lies outside log/%011" PRIu64, number);
}

odm_status odm__log_reserve(struct log_writer *writer, uint64_t head, struct append *append, odm_error *error)
{
    struct lock_file *lock = writer->log->lock;
    uint64_t size = record_size(append->key_size, append->value_size);
    assert(size <= ODM_RECORD_SIZE_MAX);

    while (append->class == APPEND_PUT && atomic_load_explicit(&lock->no_space, memory_order_relaxed) != 0) {
        odm_status status = spare_make(writer, head, size, false, error);
        if (status != ODM_OK) return status;
    }
    for (;;) {
        odm_status status = append_take(writer, error);
        if (status != ODM_OK) return status;
        uint64_t number = 0;
        enum obstacle obstacle = try_reserve(writer, append, size, &number);
        append_give(writer);
        if (obstacle == OBSTACLE_NONE) {
            writer->appended_bytes += size;
            return ODM_OK;
        }
        status = overcome(writer, head, obstacle, number, append->class, size, error);
        if (status != ODM_OK) return status;
    }
}

odm_status odm__log_roll(struct log_writer *writer, uint64_t head, bool anew, uint64_t *first, odm_error *error)
{
    for (;;) {
        odm_status status = append_take(writer, error);
        if (status != ODM_OK) return status;
        uint64_t number = 0;
        enum obstacle obstacle = try_roll(writer, anew, &number);
        *first = atomic_load_explicit(&writer->log->lock->tail, memory_order_relaxed);
        append_give(writer);
        if (obstacle == OBSTACLE_NONE) return ODM_OK;
        status = overcome(writer, head, obstacle, number, APPEND_MOVE, 0, error);
        if (status != ODM_OK) return status;
    }
}

/* Copies bytes, and zeros to the next multiple of 8. */
static inline void copy_padded(unsigned char *to, const void *from, uint64_t size)
{
    if (size == 8) { // not worth a call
        memcpy(to, from, 8);
    } else if (size != 0) {
        memset(to + padded(size) - 8, 0, 8);
        memcpy(to, from, size);
    }
}

void odm__log_complete(const struct log *log, const struct append *append, const void *key, const void *value)
{
    uint64_t seed = log->fixed->seed;
    struct record_header *header = (struct record_header *)(void *)append->place;
    unsigned char *to = append->place + RECORD_HEADER_SIZE;
    copy_padded(to, key, append->key_size);
    to += padded(append->key_size);
    copy_padded(to, value, append->value_size);

    uint32_t word = record_word(append->kind, append->key_size);
    header->check_b = check_value(to, append->value_size, seed, append->address);
    uint32_t check_a = check_header(word, header->value_size, header->check_b, append->lsn, key, append->key_size, seed,
                                    append->address);
    // Release: who sees it sees the whole record. Killed before it: reserved; after it: a record.
    atomic_store_explicit(&header->first, (uint64_t)word << 32 | check_a, memory_order_release);
}

odm_status odm__log_fill(struct log_writer *writer, uint64_t address, odm_error *error)
{
    struct log *log = writer->log;
    struct segment *segment;
    odm_status status = segment_take_writable(log, address_number(address), &segment, error);
    if (status != ODM_OK) return status;
    struct record_header *header = (struct record_header *)(void *)(segment->writable + address_offset(address));
    uint32_t word = (uint32_t)(atomic_load_explicit(&header->first, memory_order_acquire) >> 32);
    assert(record_word_kind(word) == RECORD_RESERVED);
    uint64_t first = first_of_room(RECORD_FILLER, record_word_key_size(word), header->value_size, header->lsn,
                                   log->fixed->seed, address);
    atomic_store_explicit(&header->first, first, memory_order_release);
    segment_give_writable(log, &segment);
    return ODM_OK;
}
