/* meta.c - the file `meta`. Contract: meta.h. */
#include "meta.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "checksum.h"
#include "status.h"

#define META_NAME "meta"

static uint64_t fixed_check(const struct meta_fixed *fixed)
{
    return check_bytes(fixed, offsetof(struct meta_fixed, check), 0);
}

static uint64_t slot_check(const struct meta_slot *slot, uint64_t seed)
{
    return check_bytes(slot, offsetof(struct meta_slot, check), seed);
}

static uint64_t hash_of_text(uint64_t seed)
{
    return XXH3_64bits_withSeed(META_HASHED_TEXT, sizeof META_HASHED_TEXT - 1, seed);
}

odm_status odm__meta_make(struct meta_fixed *fixed, const odm_options *options, odm_error *error)
{
    memset(fixed, 0, sizeof *fixed);
    fixed->magic = META_MAGIC;
    fixed->byte_order = BYTE_ORDER_MARK;
    fixed->format = FORMAT_VERSION;
    fixed->geometry = GEOMETRY;
    fixed->stripes = options->stripes;
    fixed->capacity = options->capacity;
    fixed->capacity_bytes = options->capacity_bytes;
    fixed->has_schema = options->schema != NULL;
    fixed->schema_size = (uint32_t)options->schema_size;
    if (options->schema != NULL && options->schema_size != 0)
        memcpy(fixed->schema, options->schema, options->schema_size);
    if (odm__os.random_bytes(fixed->map_id, sizeof fixed->map_id) != 0 ||
        odm__os.random_bytes(&fixed->seed, sizeof fixed->seed) != 0) {
        return odm__fail_os(error, "get", "random bytes");
    }
    fixed->hash_of_text = hash_of_text(fixed->seed);
    fixed->check = fixed_check(fixed);
    return ODM_OK;
}

static odm_status write_at(int fd, const void *bytes, size_t size, uint64_t offset, odm_error *error)
{
    ssize_t written = odm__os.write_at(fd, bytes, size, (off_t)offset);
    if (written == (ssize_t)size) return ODM_OK;
    if (written >= 0) errno = ENOSPC;
    return odm__fail_os(error, "write", META_NAME);
}

static odm_status write_slot_at(int fd, const struct meta_slot *slot, odm_error *error)
{
    uint64_t offset = slot->sequence % 2 == 0 ? META_SLOT_OFFSET_0 : META_SLOT_OFFSET_1;
    odm_status status = write_at(fd, slot, sizeof *slot, offset, error);
    if (status == ODM_OK && odm__os.sync_data(fd) != 0) status = odm__fail_os(error, "sync", META_NAME);
    return status;
}

odm_status odm__meta_create(const struct directory *directory, const struct meta_fixed *fixed,
                            const struct meta_slot *first, odm_error *error)
{
    char name[32];
    snprintf(name, sizeof name, META_NAME ".%016llx", (unsigned long long)fixed->map_id[0]);
    int fd = -1;
    odm_status status = odm__file_create(directory, name, META_SIZE, &fd, error);
    if (status != ODM_OK) return status;

    struct meta_slot slot = *first;
    slot.sequence = 0;
    slot.check = slot_check(&slot, fixed->seed);
    status = write_at(fd, fixed, sizeof *fixed, 0, error);
    if (status == ODM_OK) status = write_slot_at(fd, &slot, error);
    if (status == ODM_OK) status = odm__file_rename_new(directory, name, META_NAME, error);
    odm__os.close(fd);
    if (status != ODM_OK) (void)odm__file_unlink(directory, name, NULL);
    if (status == ODM_OK) status = odm__directory_sync(directory, error);
    return status;
}

static odm_status check_fixed(const struct meta_fixed *fixed, bool writable, odm_error *error)
{
    if (fixed->magic != META_MAGIC) return odm__fail(error, ODM_E_CORRUPT, META_NAME " is not that of an opendiskmap");
    if (fixed->byte_order != BYTE_ORDER_MARK) {
        return odm__fail(error, ODM_E_VERSION, "the map was made on a machine of the other byte order");
    }
    if (fixed->format != FORMAT_VERSION) {
        return odm__fail(error, ODM_E_VERSION, "the map has format %u, this library knows format %d: use a newer one",
                         fixed->format, FORMAT_VERSION);
    }
    if (fixed->check != fixed_check(fixed))
        return odm__fail(error, ODM_E_CORRUPT, META_NAME ": the check of its first page fails");
    if (fixed->features_incompatible != 0 || (writable && fixed->features_readable != 0)) {
        return odm__fail(error, ODM_E_VERSION, "the map uses features this library does not know: %llx, %llx",
                         (unsigned long long)fixed->features_incompatible,
                         (unsigned long long)fixed->features_readable);
    }
    if (fixed->geometry != GEOMETRY) {
        return odm__fail(error, ODM_E_VERSION, "the map has geometry %x, this library has %x", fixed->geometry,
                         GEOMETRY);
    }
    if (fixed->hash_of_text != hash_of_text(fixed->seed)) {
        return odm__fail(error, ODM_E_VERSION, "the map was made with another hash function");
    }
    bool power_of_two = fixed->stripes != 0 && (fixed->stripes & (fixed->stripes - 1)) == 0;
    if (!power_of_two || fixed->stripes > ODM_STRIPES_MAX || fixed->schema_size > sizeof fixed->schema) {
        return odm__fail(error, ODM_E_CORRUPT, META_NAME ": %u stripes, a schema of %u bytes", fixed->stripes,
                         fixed->schema_size);
    }
    return ODM_OK;
}

odm_status odm__meta_open(const struct directory *directory, bool writable, struct meta *meta, odm_error *error)
{
    odm_status status = odm__file_open(directory, META_NAME, writable, &meta->fd, error);
    if (status != ODM_OK) return status;

    ssize_t size = odm__os.read_at(meta->fd, &meta->fixed, sizeof meta->fixed, 0);
    if (size < 0) {
        status = odm__fail_os(error, "read", META_NAME);
    } else if (size != sizeof meta->fixed) {
        status = odm__fail(error, ODM_E_CORRUPT, META_NAME " has only %zd bytes", size);
    } else {
        status = check_fixed(&meta->fixed, writable, error);
    }
    if (status != ODM_OK) odm__meta_close(meta);
    return status;
}

void odm__meta_close(struct meta *meta)
{
    if (meta->fd >= 0) odm__os.close(meta->fd);
    meta->fd = -1;
}

odm_status odm__meta_read_slot(const struct meta *meta, struct meta_slot *slot, odm_error *error)
{
    static const uint64_t offsets[2] = {META_SLOT_OFFSET_0, META_SLOT_OFFSET_1};
    bool found = false;
    for (size_t i = 0; i < 2; ++i) {
        struct meta_slot read;
        ssize_t size = odm__os.read_at(meta->fd, &read, sizeof read, (off_t)offsets[i]);
        if (size < 0) return odm__fail_os(error, "read", META_NAME);
        if (size != sizeof read || read.check != slot_check(&read, meta->fixed.seed)) continue;
        if (found && read.sequence < slot->sequence) continue;
        *slot = read;
        found = true;
    }
    if (!found) return odm__fail(error, ODM_E_CORRUPT, META_NAME ": the checks of both its slots fail");
    return ODM_OK;
}

odm_status odm__meta_write_slot(const struct meta *meta, struct meta_slot *slot, odm_error *error)
{
    struct meta_slot next = *slot;
    next.sequence = slot->sequence + 1;
    next.check = slot_check(&next, meta->fixed.seed);
    odm_status status = write_slot_at(meta->fd, &next, error);
    if (status == ODM_OK) *slot = next;
    return status;
}

odm_status odm__meta_check_schema(const struct meta_fixed *fixed, const odm_options *options, odm_error *error)
{
    if (options->schema == NULL) return ODM_OK;
    bool same = fixed->has_schema && fixed->schema_size == options->schema_size &&
                memcmp(fixed->schema, options->schema, fixed->schema_size) == 0;
    if (same) return ODM_OK;
    if (!fixed->has_schema) {
        return odm__fail(error, ODM_E_MISMATCH, "the map was made without a schema, asked for is \"%.*s\"",
                         (int)options->schema_size, (const char *)options->schema);
    }
    return odm__fail(error, ODM_E_MISMATCH, "the map has the schema \"%.*s\", asked for is \"%.*s\"",
                     (int)fixed->schema_size, (const char *)fixed->schema, (int)options->schema_size,
                     (const char *)options->schema);
}
