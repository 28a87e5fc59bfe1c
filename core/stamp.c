/* stamp.c - the mark that a map was left in good order. Contract: stamp.h. */
#include "stamp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "os.h"
#include "status.h"

#define STAMP_PREFIX "stamp."
enum { STAMP_NAME_SIZE = 32, STAMP_SIZE = 16 };

static bool stamps_are_equal(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] == b[0] && a[1] == b[1];
}

/* ---- the places ---------------------------------------------------------------------------------------------------- */

/* The file in log/ that whoever lists log/ only now knows of. */
static void stamp_name(const uint64_t stamp[2], char name[STAMP_NAME_SIZE])
{
    snprintf(name, STAMP_NAME_SIZE, STAMP_PREFIX "%016" PRIx64, stamp[0]);
}

static void stamp_name_remove(void *context, const char *name)
{
    if (strncmp(name, STAMP_PREFIX, sizeof STAMP_PREFIX - 1) != 0) return;
    (void)odm__file_unlink(context, name, NULL); // One that stays names no stamp that counts.
}

static odm_status stamp_names_remove(const struct log *log, odm_error *error)
{
    return odm__directory_list(&log->directory, stamp_name_remove, (void *)(uintptr_t)&log->directory, error);
}

/* The last bytes of the file, in the part behind what is used: a system call goes there, for a store would need a block. */
static odm_status index_end(const struct index_file *index, off_t *offset, odm_error *error)
{
    struct file_identity identity;
    if (odm__os.identify(index->fd, &identity) != 0) return odm__fail_os(error, "look at", "index");
    *offset = (off_t)(identity.size - STAMP_SIZE);
    return ODM_OK;
}

static odm_status index_end_read(const struct index_file *index, uint64_t stamp[2], odm_error *error)
{
    off_t offset = 0;
    odm_status status = index_end(index, &offset, error);
    if (status != ODM_OK) return status;
    ssize_t size = odm__os.read_at(index->fd, stamp, STAMP_SIZE, offset);
    if (size == STAMP_SIZE) return ODM_OK;
    return size < 0 ? odm__fail_os(error, "read", "index")
                    : odm__fail(error, ODM_E_CORRUPT, "index: its end is missing");
}

static odm_status index_end_write(const struct index_file *index, const uint64_t stamp[2], odm_error *error)
{
    off_t offset = 0;
    odm_status status = index_end(index, &offset, error);
    if (status != ODM_OK) return status;
    // Asked first: a write beyond this limit kills the process with SIGXFSZ, though the file is that long already.
    uint64_t limit = UINT64_MAX;
    if (odm__os.file_size_limit(&limit) != 0 || (uint64_t)offset + STAMP_SIZE > limit) {
        errno = EFBIG;
        return odm__fail_os(error, "write", "index");
    }
    ssize_t size = odm__os.write_at(index->fd, stamp, STAMP_SIZE, offset);
    if (size == STAMP_SIZE) return ODM_OK;
    if (size >= 0) errno = ENOSPC;
    return odm__fail_os(error, "write", "index");
}

static void index_begin_write(struct index_file *index, const uint64_t stamp[2])
{
    struct index_header *header = (void *)index->base;
    for (int i = 0; i < 2; ++i) atomic_store_explicit(&header->stamp[i], stamp[i], memory_order_relaxed);
}

/* ---- whether there is one ------------------------------------------------------------------------------------------- */

/* Whether the log goes from head to the watermark without a gap, by its segments' headers. */
static odm_status log_is_complete(const struct log *log, const struct meta_slot *slot, bool *complete, odm_error *error)
{
    *complete = false;
    struct chain chain;
    odm_status status = odm__log_chain(log, slot->head, &chain, error);
    if (status != ODM_OK) return status;
    uint64_t address = slot->head;
    for (size_t i = 0; i < chain.count; ++i) {
        const struct chain_link *link = &chain.links[i];
        if (link->number != address_number(address)) continue;
        if (!link->whole) break;
        if (link->number == address_number(slot->watermark)) {
            *complete = address_offset(slot->watermark) <= link->size && slot->watermark >= address;
            break;
        }
        uint64_t end;
        odm__chain_next(&chain, address, &end, &address);
        if (end == UINT64_MAX) break;
    }
    odm__chain_free(&chain);
    return ODM_OK;
}

static odm_status name_is_there(const struct log *log, const uint64_t stamp[2], bool *there, odm_error *error)
{
    char name[STAMP_NAME_SIZE];
    stamp_name(stamp, name);
    int fd;
    odm_status status = odm__file_open(&log->directory, name, false, &fd, error);
    *there = status == ODM_OK;
    if (*there) odm__os.close(fd);
    return status == ODM_NOT_FOUND ? ODM_OK : status;
}

odm_status odm__stamp_fits(const struct log *log, const struct meta_slot *slot, const struct index_file *index,
                           bool *fits, odm_error *error)
{
    *fits = false;
    const struct index_header *header = (const void *)index->base;
    // Who noted a failed sync may have taken for durable what is not.
    bool failed = (slot->failed_boot[0] | slot->failed_boot[1]) != 0;
    uint64_t begin[2] = {atomic_load(&header->stamp[0]), atomic_load(&header->stamp[1])}, end[2];
    if (stamp_is_none(slot->stamp) || failed || !stamps_are_equal(slot->stamp, begin)) return ODM_OK;
    if (slot->head == 0 || atomic_load(&header->head) != slot->head || atomic_load(&header->superseded) != 0)
        return ODM_OK;
    odm_status status = index_end_read(index, end, error);
    if (status != ODM_OK || !stamps_are_equal(slot->stamp, end)) return status;
    status = name_is_there(log, slot->stamp, fits, error);
    return status == ODM_OK && *fits ? log_is_complete(log, slot, fits, error) : status;
}

/* ---- putting and withdrawing ---------------------------------------------------------------------------------------- */

static void stamp_take_back(const struct log *log, struct index_file *index, const uint64_t stamp[2])
{
    static const uint64_t none[2] = {0, 0};
    char name[STAMP_NAME_SIZE];
    stamp_name(stamp, name);
    index_begin_write(index, none);
    (void)index_end_write(index, none, NULL);
    (void)odm__file_unlink(&log->directory, name, NULL);
}

odm_status odm__stamp_prepare(const struct log *log, struct index_file *index, struct meta_slot *slot, odm_error *error)
{
    struct meta_slot next = *slot;
    if (odm__os.random_bytes(next.stamp, sizeof next.stamp) != 0) return odm__fail_os(error, "get", "random bytes");
    next.failed_boot[0] = next.failed_boot[1] = 0;
    char name[STAMP_NAME_SIZE];
    stamp_name(next.stamp, name);

    odm_status status = stamp_names_remove(log, error);
    int fd = -1;
    if (status == ODM_OK) status = odm__file_create(&log->directory, name, 0, &fd, error);
    if (status == ODM_EXISTS) return odm__fail(error, ODM_E_BUSY, "log/%s exists before it was made", name);
    if (status != ODM_OK) return status;
    odm__os.close(fd);
    status = odm__directory_sync(&log->directory, error);
    if (status == ODM_OK) status = index_end_write(index, next.stamp, error);
    if (status == ODM_OK) {
        index_begin_write(index, next.stamp);
        if (odm__os.sync_data(index->fd) != 0) status = odm__fail_sync(error, "index");
    }
    if (status == ODM_OK) {
        *slot = next;
    } else {
        stamp_take_back(log, index, next.stamp);
    }
    return status;
}

odm_status odm__stamp_put(const struct log *log, const struct meta *meta, struct index_file *index,
                          struct meta_slot *slot, odm_error *error)
{
    struct meta_slot next = *slot;
    odm_status status = odm__stamp_prepare(log, index, &next, error);
    if (status != ODM_OK) return status;
    // Last: killed or powerless before it, the stamps in the other places are nobody's.
    status = odm__meta_write_slot(meta, &next, error);
    if (status == ODM_OK) {
        *slot = next;
    } else {
        stamp_take_back(log, index, next.stamp);
    }
    return status;
}

/* What is read of `meta` may be in memory only. */
static odm_status meta_make_durable(const struct meta *meta, odm_error *error)
{
    return odm__os.sync_data(meta->fd) == 0 ? ODM_OK : odm__fail_sync(error, "meta");
}

/* The caller holds the sync lock. anew: also if it is gone, because that may never have reached the disk. */
static odm_status stamp_withdraw_locked(const struct log *log, const struct meta *meta, struct index_file *index,
                                        bool anew, odm_error *error)
{
    static const uint64_t none[2] = {0, 0};
    struct meta_slot slot;
    odm_status status = odm__meta_read_slot(meta, &slot, error);
    if (status != ODM_OK) return status;
    if (stamp_is_none(slot.stamp)) return anew ? odm__meta_write_slot(meta, &slot, error) : ODM_OK;
    // The index first: should we die in between, the stamp still in `meta` is withdrawn by the next; but bytes left at the end of
    // the file would come to lie in a chunk when it grows.
    status = index_end_write(index, none, error);
    if (status != ODM_OK) return status;
    index_begin_write(index, none);
    slot.stamp[0] = slot.stamp[1] = 0;
    status = odm__meta_write_slot(meta, &slot, error);
    if (status == ODM_OK) (void)stamp_names_remove(log, NULL);
    return status;
}

odm_status odm__stamp_withdraw(const struct log *log, const struct meta *meta, const struct lock_client *client,
                               struct index_file *index, uint32_t wait_ms, odm_error *error)
{
    struct lock_line *line = &client->file->sync;
    struct meta_slot slot;
    odm_status status = odm__meta_read_slot(meta, &slot, error);
    if (status != ODM_OK) return status;
    // It is gone, but maybe not yet on disk: who withdrew it may be about to sync that, or have died before he could. Asked after
    // the slot was read: who has written it by then still has the lock, or has synced it. If he could not, a sync has failed.
    // Acquire: partner of the release below.
    bool failed = atomic_load_explicit(&client->file->sync_failed, memory_order_acquire) != 0;
    if (stamp_is_none(slot.stamp) && !failed) {
        return odm__lock_is_at_rest(line) ? ODM_OK : meta_make_durable(meta, error);
    }
    bool mend; // What else a dead owner left, the next who syncs is still told of.
    status = odm__lock_take(client, line, wait_ms, "the sync lock", &mend, error);
    if (status != ODM_OK) return status;
    failed = atomic_load_explicit(&client->file->sync_failed, memory_order_acquire) != 0;
    status = stamp_withdraw_locked(log, meta, index, mend || failed, error);
    // What was written may never reach the disk, though a second sync would say so. Before the lock is given back.
    if (status == ODM_E_IO) atomic_store_explicit(&client->file->sync_failed, 1, memory_order_release);
    odm__lock_give(client, line);
    return status;
}
