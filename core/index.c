/* index.c - stripes, directories, chunks: growing, splitting, cleaning, recycling. Contract: index.h. */
#include "index.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "os.h"
#include "status.h"

enum { CHUNK_BYTES = CHUNK_SLOTS * (SLOT_SIZE + COLD_SIZE) };
/* The file ends this much after what is backed, in a hole, so that a location up to the end is safe to read from. */
enum { TAIL_BYTES = (CHUNK_BYTES + PAGE - 1) / PAGE * PAGE };
enum { CHUNK_SLOT_BITS_MAX = 24, DEPTH_BEYOND_AVERAGE_MAX = 8 };
/* Between these sizes new parts of the index lie in huge pages: a lookup in a big one costs a miss of the TLB, too. Not above, for
 * a store makes its whole page dirty: a trickle of puts would have all of the index written back twice a minute. There the
 * kernel is also told not to read ahead. */
#define HUGE_BYTES_MIN (UINT64_C(8) << 20)
#define HUGE_BYTES_MAX (UINT64_C(64) << 20)

static bool is_huge(uint64_t size)
{
    return size >= HUGE_BYTES_MIN && size <= HUGE_BYTES_MAX;
}

#ifdef ODM_TEST_SMALL
uint64_t odm__test_hash_mask = UINT64_MAX;
#define MAPPED_BYTES_MIN (UINT64_C(64) << 20)
#else
#define MAPPED_BYTES_MIN (UINT64_C(64) << 30)
#endif

#define MAPPED_BYTES_MAX (UINT64_C(1) << 45)

static uint64_t page_up(uint64_t size)
{
    return (size + PAGE - 1) / PAGE * PAGE;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

/* Maps it with address space to grow into; less of that where it is limited. */
static odm_status file_map(struct index_file *file, uint64_t file_size, odm_error *error)
{
    if (file_size > MAPPED_BYTES_MAX) return odm__fail(error, ODM_E_CORRUPT, "index: %" PRIu64 " bytes", file_size);
    odm_status status = ODM_E_NO_MEMORY;
    uint64_t size = MAPPED_BYTES_MIN;
    while (size < file_size * 2) size *= 2;
    if (!file->writable) size = file_size > size ? file_size : size;
    for (; size >= file_size; size /= 2) {
        void *base = NULL;
        status = odm__file_map(file->fd, size, 0, file->writable, &base, error);
        if (status != ODM_OK) continue;
        file->base = base;
        file->mapped = size;
        if (file_size > HUGE_BYTES_MAX) (void)odm__os.advise(base, size, MADV_RANDOM);
        return ODM_OK;
    }
    return status;
}

static odm_status file_adopt(const struct directory *directory, int fd, bool writable, uint64_t size,
                             struct index_file **file, odm_error *error)
{
    odm_status status = ODM_OK;
    struct index_file *adopted = calloc(1, sizeof *adopted);
    if (adopted == NULL) {
        status = odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
    } else {
        *adopted = (struct index_file){.fd = fd, .references = 1, .writable = writable, .directory = directory};
        status = file_map(adopted, size, error);
    }
    if (status != ODM_OK) {
        odm__os.close(fd);
        free(adopted);
        return status;
    }
    *file = adopted;
    return ODM_OK;
}

void odm__index_close(struct index_file *file)
{
    odm__file_unmap(file->base, file->mapped);
    odm__os.close(file->fd);
    free(file);
}

void odm__index_supersede(struct index_file *file)
{
    struct index_header *header = (void *)file->base;
    atomic_store_explicit(&header->superseded, 1, memory_order_release);
    atomic_fetch_add_explicit(&header->recycled, 1, memory_order_release);
}

/* Depth at which `capacity` entries need no split, on average; 0 if first chunks are enough. */
static unsigned depth_for(uint64_t capacity, uint32_t stripes)
{
    uint64_t per_stripe = capacity / stripes + 1;
    if (per_stripe <= FIRST_CHUNK_SLOTS / 2) return 0;
    unsigned depth = DIRECTORY_DEPTH_MIN;
    while (depth < DIRECTORY_DEPTH_MAX && (UINT64_C(1) << depth) * (CHUNK_SLOTS * 6 / 10) < per_stripe) ++depth;
    return depth;
}

static uint64_t stripes_end(uint32_t stripes)
{
    return page_up(INDEX_STRIPES_OFFSET + stripes * sizeof(struct stripe));
}

/* header | stripes | a directory each | a first chunk each, or the chunks that the capacity asks for */
struct layout {
    unsigned depth; // of the chunks
    unsigned directory_depth;
    unsigned slot_bits;
    uint64_t chunks_each;
    uint64_t directories; // where they begin, in units
    uint64_t chunks;      // likewise
    uint64_t size;        // bytes
};

static struct layout layout_for(uint64_t capacity, uint32_t stripes)
{
    struct layout layout = {.depth = depth_for(capacity, stripes)};
    layout.directory_depth = layout.depth == 0 ? DIRECTORY_DEPTH_MIN : layout.depth;
    layout.slot_bits = layout.depth == 0 ? FIRST_CHUNK_SLOT_BITS : CHUNK_SLOT_BITS;
    layout.chunks_each = UINT64_C(1) << layout.depth;
    layout.directories = stripes_end(stripes) / INDEX_UNIT;
    uint64_t directories_end = layout.directories + stripes * directory_units(layout.directory_depth);
    layout.chunks = page_up(directories_end * INDEX_UNIT) / INDEX_UNIT;
    layout.size = page_up((layout.chunks + stripes * layout.chunks_each * chunk_units(layout.slot_bits)) * INDEX_UNIT);
    return layout;
}

uint64_t odm__index_bytes_for(const struct meta_fixed *fixed, uint64_t capacity)
{
    return layout_for(capacity, fixed->stripes).size;
}

odm_status odm__index_create(const struct directory *directory, const char *name, const struct meta_fixed *fixed,
                             uint64_t capacity, struct index_file **file, odm_error *error)
{
    struct layout layout = layout_for(capacity, fixed->stripes);
    uint64_t size = layout.size;
    int fd;
    odm_status status = odm__file_create(directory, name, size, &fd, error);
    if (status == ODM_EXISTS) return odm__fail(error, ODM_E_BUSY, "%s has appeared", name);
    if (status != ODM_OK) return status;
    status = odm__file_grow(directory, name, fd, size, size, TAIL_BYTES, error);
    if (status != ODM_OK) {
        odm__os.close(fd);
        return status;
    }
    odm__file_populate(fd, 0, size, is_huge(size) ? POPULATE_HUGE : POPULATE_SMALL);
    status = file_adopt(directory, fd, true, size + TAIL_BYTES, file, error);
    if (status != ODM_OK) return status;

    struct index_header *header = (void *)(*file)->base;
    header->magic = INDEX_MAGIC;
    header->format = FORMAT_VERSION;
    header->geometry = GEOMETRY;
    header->map_id[0] = fixed->map_id[0];
    header->map_id[1] = fixed->map_id[1];
    header->stripes = fixed->stripes;
    atomic_store(&header->size, size);
    atomic_store(&header->next, size / INDEX_UNIT);
    for (uint32_t i = 0; i < fixed->stripes; ++i) {
        struct stripe *stripe = (struct stripe *)(void *)((*file)->base + INDEX_STRIPES_OFFSET) + i;
        uint64_t location = layout.directories + i * directory_units(layout.directory_depth);
        odm__u64 *words = (odm__u64 *)(void *)((*file)->base + location * INDEX_UNIT);
        for (uint64_t k = 0; k < UINT64_C(1) << layout.directory_depth; ++k) {
            uint64_t chunk = layout.depth == 0 ? 0 : k;
            uint64_t at = layout.chunks + (i * layout.chunks_each + chunk) * chunk_units(layout.slot_bits);
            atomic_store_explicit(&words[k], word_make(at, layout.slot_bits, layout.depth), memory_order_relaxed);
        }
        atomic_store(&stripe->root, root_make(location, layout.directory_depth));
    }
    return ODM_OK;
}

odm_status odm__index_open(const struct directory *directory, const char *name, const struct meta_fixed *fixed,
                           bool writable, struct index_file **file, odm_error *error)
{
    int fd;
    odm_status status = odm__file_open(directory, name, writable, &fd, error);
    if (status != ODM_OK) return status;
    struct file_identity identity;
    if (odm__os.identify(fd, &identity) != 0) {
        status = odm__fail_os(error, "look at", name);
    } else if (identity.size < stripes_end(fixed->stripes) + TAIL_BYTES) {
        status = odm__fail(error, ODM_E_CORRUPT, "%s has only %" PRIu64 " bytes", name, identity.size);
    }
    if (status != ODM_OK) {
        odm__os.close(fd);
        return status;
    }
    status = file_adopt(directory, fd, writable, identity.size, file, error);
    if (status != ODM_OK) return status;

    const struct index_header *header = (const void *)(*file)->base;
    if (header->magic != INDEX_MAGIC || header->format != FORMAT_VERSION || header->geometry != GEOMETRY ||
        header->map_id[0] != fixed->map_id[0] || header->map_id[1] != fixed->map_id[1] ||
        header->stripes != fixed->stripes || atomic_load(&header->size) > identity.size - TAIL_BYTES) {
        odm__index_close(*file);
        return odm__fail(error, ODM_E_CORRUPT, "%s is not that of this map", name);
    }
    return ODM_OK;
}

void odm__index_view(struct index *index, struct index_file *file, const struct meta_fixed *fixed,
                     const struct lock_client *client, uint32_t wait_ms)
{
    memset(index, 0, sizeof *index);
    index->file = file;
    index->base = file->base;
    index->header = (void *)file->base;
    index->stripes = (void *)(file->base + INDEX_STRIPES_OFFSET);
    index->stripe_bits = (unsigned)__builtin_ctz(fixed->stripes);
    index->stripe_shift = 6 - index->stripe_bits;
    index->client = client;
    index->wait_ms = wait_ms;
    // Until a root was read: words that lie beyond every limit. A damaged index may say that a root is 0.
    static odm__u64 nowhere[2] = {UINT64_MAX, UINT64_MAX};
    for (unsigned i = 0; i < fixed->stripes; ++i) {
        index->roots[i] = (struct root_cache){.at = &index->stripes[i].root, .words = nowhere, .shift = 63, .depth = 1};
    }
}

/* ---- looking up --------------------------------------------------------------------------------------------------- */

static odm_status limit_refresh(struct index *index, odm_error *error)
{
    uint64_t size = atomic_load_explicit(&index->header->size, memory_order_acquire);
    struct file_identity identity;
    // The size is a number in a file: the file itself must agree, or a load would be a SIGBUS.
    if (odm__os.identify(index->file->fd, &identity) != 0) return odm__fail_os(error, "look at", "index");
    if (size > identity.size || identity.size - size < TAIL_BYTES) {
        return odm__fail(error, ODM_E_CORRUPT, "index: says it has %" PRIu64 " bytes, the file has %" PRIu64, size,
                         identity.size);
    }
    if (size + TAIL_BYTES > index->file->mapped) {
        return odm__fail(error, ODM_E_NO_MEMORY,
                         "the index has outgrown its %" PRIu64 " bytes of addresses: open the map again",
                         index->file->mapped);
    }
    index->limit = size / INDEX_UNIT;
    return ODM_OK;
}

/* A root that is known to be sane, as it is cached. */
static struct root_cache root_view(const struct index *index, const odm__u64 *at, uint64_t root)
{
    unsigned depth = root_depth(root);
    return (struct root_cache){
        .at = at,
        .root = root,
        .words = (odm__u64 *)(void *)(index->base + root_location(root) * INDEX_UNIT),
        .mask = (UINT32_C(1) << depth) - 1,
        .shift = (uint8_t)(64 - index->stripe_bits - depth),
        .depth = (uint8_t)depth,
    };
}

static odm_status root_refresh(struct index *index, uint32_t stripe, odm_error *error)
{
    struct root_cache *cache = &index->roots[stripe];
    uint64_t root = atomic_load_explicit(&index->stripes[stripe].root, memory_order_acquire);
    if (root == cache->root && root != 0) return ODM_OK;
    unsigned depth = root_depth(root);
    bool sane = depth >= DIRECTORY_DEPTH_MIN && depth <= DIRECTORY_DEPTH_MAX && root_location(root) != 0;
    if (sane && root_location(root) + directory_units(depth) > index->limit) {
        odm_status status = limit_refresh(index, error);
        if (status != ODM_OK) return status;
        sane = root_location(root) + directory_units(depth) <= index->limit;
    }
    if (!sane) return odm__fail(error, ODM_E_CORRUPT, "index: the root of stripe %u is %" PRIx64, stripe, root);
    *cache = root_view(index, cache->at, root);
    return ODM_OK;
}

static bool word_is_sane(const struct index *index, uint64_t word)
{
    unsigned smaller = word_smaller(word), bigger = word_bigger(word);
    if (smaller > CHUNK_SLOT_BITS - FIRST_CHUNK_SLOT_BITS || bigger > CHUNK_SLOT_BITS_MAX - CHUNK_SLOT_BITS)
        return false;
    if ((bigger != 0) != ((word & WORD_BIG) != 0) || word_location(word) == 0) return false;
    return word_location(word) + chunk_units(word_bits(word)) <= index->limit;
}

/* Whether a word is that of a chunk of the usual size, within what is known of the file. */
static bool word_is_usual(const struct index *index, uint64_t word)
{
    uint64_t unusual = WORD_BIG | UINT64_C(31) << WORD_BIGGER_SHIFT | UINT64_C(31) << WORD_SMALLER_SHIFT;
    uint64_t location = word_location(word);
    return (word & unusual) == 0 && location != 0 && location + chunk_units(CHUNK_SLOT_BITS) <= index->limit;
}

/* The fast path looks only at where a chunk begins; here it is used as a whole, and the file may have grown since. */
static __attribute__((noinline, cold)) bool unusual_word_is_sane(struct index *index, uint64_t word)
{
    return word_is_sane(index, word) || (limit_refresh(index, NULL) == ODM_OK && word_is_sane(index, word));
}

static inline bool word_is_usable(struct index *index, uint64_t word, unsigned depth_max)
{
    if (word_depth(word) > depth_max) return false;
    return __builtin_expect(word_is_usual(index, word), 1) || unusual_word_is_sane(index, word);
}

odm_status odm__index_seek_slowly(struct index *index, uint64_t hash, uint64_t *word, odm_error *error)
{
    uint32_t stripe = hash_stripe(hash, index->stripe_bits);
    odm_status status = root_refresh(index, stripe, error);
    if (status != ODM_OK) return status;
    const struct root_cache *cache = &index->roots[stripe];
    uint64_t at = hash_prefix(hash, index->stripe_bits, cache->depth);
    *word = atomic_load_explicit(&cache->words[at], memory_order_acquire);

    if (word_is_sane(index, *word)) return ODM_OK;
    status = limit_refresh(index, error);
    if (status != ODM_OK) return status;
    if (word_is_sane(index, *word)) return ODM_OK;
    return odm__fail(error, ODM_E_CORRUPT, "index: word %" PRIu64 " of stripe %u is %" PRIx64, at, stripe, *word);
}

odm_status odm__index_names(struct index *index, uint64_t hash, uint64_t address, bool *named, odm_error *error)
{
    uint64_t word;
    *named = false;
    odm_status status = odm__index_word(index, hash, &word, error);
    if (status != ODM_OK) return status;
    struct probe probe;
    odm__probe_start(index, word, hash, &probe);
    uint64_t wanted = slot_make(0, address);
    for (;;) {
        uint64_t slot = odm__probe_next(&probe);
        *named = slot != SLOT_EMPTY && (slot & SLOT_ADDRESS_MASK) == wanted;
        if (slot == SLOT_EMPTY || *named) return ODM_OK;
    }
}

/* ---- space -------------------------------------------------------------------------------------------------------- */

static odm_status grow_locked(struct index *index, uint64_t size_min, odm_error *error)
{
    uint64_t size = atomic_load_explicit(&index->header->size, memory_order_relaxed);
    if (size >= size_min) return ODM_OK;
    // Checked, not asserted: it comes from a file. A file that is cut off where it is in use would be a SIGBUS.
    if (size < index->limit * INDEX_UNIT) {
        return odm__fail(error, ODM_E_CORRUPT, "index: says it has %" PRIu64 " bytes, and had %" PRIu64, size,
                         index->limit * INDEX_UNIT);
    }
    uint64_t new_size = page_up(size_min + (size_min - size > size / 16 ? 0 : size / 16));
    // A bigger one by a huge page at a time: more would be too long a wait for one put.
    bool huge = is_huge(new_size);
    if (huge) new_size = (size_min + POPULATE_HUGE - 1) / POPULATE_HUGE * POPULATE_HUGE;
    if (new_size + TAIL_BYTES > index->file->mapped) {
        return odm__fail(error, ODM_E_NO_MEMORY,
                         "the index needs more than %" PRIu64 " bytes of addresses: open the map again",
                         index->file->mapped);
    }
    // The hole after the end too; at no moment does a reader find the file too short.
    odm_status status =
        odm__file_grow(index->file->directory, "index", index->file->fd, size, new_size, TAIL_BYTES, error);
    if (status != ODM_OK) return status;
    // Nobody uses it before the size says so.
    odm__file_populate(index->file->fd, size, new_size, huge ? POPULATE_HUGE : POPULATE_SMALL);
    atomic_store_explicit(&index->header->size, new_size, memory_order_release);
    return ODM_OK;
}

static odm_status grow(struct index *index, uint64_t size_min, odm_error *error)
{
    if (index->client == NULL) return grow_locked(index, size_min, error);
    struct lock_line *line = &index->client->file->grow;
    bool mend;
    odm_status status = odm__lock_take(index->client, line, index->wait_ms, "the index's size", &mend, error);
    if (status != ODM_OK) return status;
    if (mend) odm__lock_mended(line); // A file longer than its header says does no harm.
    status = grow_locked(index, size_min, error);
    odm__lock_give(index->client, line);
    return status;
}

/* Takes units that were never used before. Killed before they are named somewhere: they stay unused until the index is
 * built anew. */
static odm_status take_units(struct index *index, uint64_t units, uint64_t *location, odm_error *error)
{
    uint64_t next = atomic_load_explicit(&index->header->next, memory_order_relaxed);
    for (;;) {
        // Checked, not asserted: it comes from a file. A word has no room for more, and the size below must not wrap.
        if (next >> WORD_LOCATION_BITS != 0) {
            return odm__fail(error, ODM_E_CORRUPT, "index: says that %" PRIx64 " is its first unused unit", next);
        }
        uint64_t size_min = (next + units) * INDEX_UNIT;
        if (size_min > atomic_load_explicit(&index->header->size, memory_order_acquire)) {
            odm_status status = grow(index, size_min, error);
            if (status != ODM_OK) return status;
        }
        if (atomic_compare_exchange_weak_explicit(&index->header->next, &next, next + units, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            *location = next;
            return ODM_OK;
        }
    }
}

/* ---- chunks ------------------------------------------------------------------------------------------------------- */

static odm__u64 *chunk_slots(const struct index *index, uint64_t word)
{
    return (odm__u64 *)(void *)(index->base + word_location(word) * INDEX_UNIT);
}

static odm__u32 *chunk_cold(const struct index *index, uint64_t word)
{
    return (odm__u32 *)(void *)(chunk_slots(index, word) + (UINT64_C(1) << word_bits(word)));
}

static odm__u32 *directory_used(const struct root_cache *cache)
{
    return (odm__u32 *)(void *)(cache->words + (UINT64_C(1) << cache->depth));
}

static bool slot_is_live(uint64_t slot)
{
    return slot != SLOT_EMPTY && slot != SLOT_TOMBSTONE;
}

odm_status odm__index_chunk(struct index *index, uint64_t hash, struct chunk *chunk, odm_error *error)
{
    uint64_t word;
    odm_status status = odm__index_word(index, hash, &word, error);
    if (status != ODM_OK) return status;
    const struct root_cache *cache = &index->roots[hash_stripe(hash, index->stripe_bits)];
    if (!word_is_usable(index, word, cache->depth)) {
        return odm__fail(error, ODM_E_CORRUPT, "index: a word is %" PRIx64, word);
    }
    unsigned deeper = cache->depth - word_depth(word);
    chunk->slots = chunk_slots(index, word);
    chunk->slot_count = UINT32_C(1) << word_bits(word);
    chunk->cold = (odm__u32 *)(void *)(chunk->slots + chunk->slot_count);
    chunk->word = word;
    chunk->first = (hash >> cache->shift & cache->mask) >> deeper << deeper;
    chunk->used = &directory_used(cache)[chunk->first];
    return ODM_OK;
}

static void used_add(struct chunk *chunk, uint32_t difference)
{
    // Only the owner of the stripe's lock stores; others look, for statistics.
    uint32_t used = atomic_load_explicit(chunk->used, memory_order_relaxed);
    atomic_store_explicit(chunk->used, used + difference, memory_order_relaxed);
}

void odm__chunk_insert(struct chunk *chunk, uint32_t at, uint64_t hash, uint64_t address)
{
    uint64_t seen = atomic_load_explicit(&chunk->slots[at], memory_order_relaxed);
    assert(!slot_is_live(seen));
    if (seen == SLOT_EMPTY) used_add(chunk, 1); // Before the slot: a kill may leave it too high, never too low.
    kill_fence();
    atomic_store_explicit(&chunk->cold[at], cold_make(hash), memory_order_relaxed);
    // Release: partner of the acquire in odm__probe_next.
    atomic_store_explicit(&chunk->slots[at], slot_make(hash_tag(hash), address), memory_order_release);
}

bool odm__chunk_find(const struct chunk *chunk, uint64_t hash, uint64_t address, uint32_t *at)
{
    uint32_t mask = chunk->slot_count - 1;
    uint64_t wanted = slot_make(hash_tag(hash), address);
    *at = hash_home(hash) & mask;
    for (uint32_t i = 0; i < chunk->slot_count; ++i, *at = (*at + 1) & mask) {
        uint64_t slot = atomic_load_explicit(&chunk->slots[*at], memory_order_relaxed);
        if (slot == wanted) return true;
        if (slot == SLOT_EMPTY) return false;
    }
    return false;
}

void odm__chunk_update(struct chunk *chunk, uint32_t at, uint64_t address)
{
    uint64_t seen = atomic_load_explicit(&chunk->slots[at], memory_order_relaxed);
    assert(slot_is_live(seen));
    atomic_store_explicit(&chunk->slots[at], slot_make(seen >> SLOT_TAG_SHIFT, address), memory_order_release);
}

void odm__chunk_remove(struct chunk *chunk, uint32_t at)
{
    uint32_t mask = chunk->slot_count - 1;
    uint64_t right = atomic_load_explicit(&chunk->slots[(at + 1) & mask], memory_order_relaxed);
    if (right != SLOT_EMPTY) {
        atomic_store_explicit(&chunk->slots[at], SLOT_TOMBSTONE, memory_order_release);
        return;
    }
    // No probe goes on past this slot, so it may be empty; and then the tombstones left of it may, too.
    uint32_t freed = 0;
    do {
        atomic_store_explicit(&chunk->slots[at], SLOT_EMPTY, memory_order_release);
        ++freed;
        at = (at - 1) & mask;
    } while (atomic_load_explicit(&chunk->slots[at], memory_order_relaxed) == SLOT_TOMBSTONE);
    kill_fence();
    used_add(chunk, 0 - freed); // After the slots, for the same reason.
}

/* Sees to it that spare chunk i of a stripe exists, and empties it. */
static odm_status spare_prepare(struct index *index, struct stripe *stripe, unsigned i, uint64_t *location,
                                odm_error *error)
{
    if (stripe->spare[i] == 0) {
        uint64_t fresh;
        odm_status status = take_units(index, chunk_units(CHUNK_SLOT_BITS), &fresh, error);
        if (status != ODM_OK) return status;
        stripe->spare[i] = fresh << 1 | 1;
    }
    *location = stripe->spare[i] >> 1;
    if (*location + chunk_units(CHUNK_SLOT_BITS) > index->limit) {
        odm_status status = limit_refresh(index, error);
        if (status != ODM_OK) return status;
    }
    // Checked, not asserted: it comes from a file.
    if (*location == 0 || *location + chunk_units(CHUNK_SLOT_BITS) > index->limit) {
        return odm__fail(error, ODM_E_CORRUPT, "index: a spare chunk lies at %" PRIx64, *location);
    }
    bool virgin = stripe->spare[i] & 1;
    if (!virgin) {
        // Somebody may still read it: told first, so that no lookup which meets what comes now is believed.
        atomic_fetch_add_explicit(&index->header->recycled, 1, memory_order_release);
        atomic_thread_fence(memory_order_release);
    }
    odm__u64 *slots = (odm__u64 *)(void *)(index->base + *location * INDEX_UNIT);
    for (uint32_t k = 0; k < CHUNK_SLOTS; ++k) atomic_store_explicit(&slots[k], SLOT_EMPTY, memory_order_relaxed);
    return ODM_OK;
}

static odm_status overlapping(odm_error *error)
{
    return odm__fail(error, ODM_E_CORRUPT, "index: chunks overlap");
}

/* Puts a copied slot where its key's probe will find it. False: there is no empty slot. */
static bool copy_slot(odm__u64 *slots, odm__u32 *cold, uint32_t slot_count, uint64_t slot, uint32_t cold_word)
{
    uint32_t mask = slot_count - 1;
    uint32_t at = cold_home(cold_word) & mask;
    uint32_t left = slot_count;
    while (left > 0 && atomic_load_explicit(&slots[at], memory_order_relaxed) != SLOT_EMPTY) {
        at = (at + 1) & mask;
        --left;
    }
    if (left == 0) return false; // Chunks that overlap, in a damaged file.
    atomic_store_explicit(&cold[at], cold_word, memory_order_relaxed);
    atomic_store_explicit(&slots[at], slot, memory_order_relaxed);
    return true;
}

/* Stores what the stripe's change says, whether for the first time or again. */
static void change_apply(struct index *index, uint32_t stripe_number, const uint32_t used[2])
{
    struct stripe *stripe = &index->stripes[stripe_number];
    struct change *change = &stripe->change;
    struct root_cache *cache = &index->roots[stripe_number];
    bool split = atomic_load_explicit(&change->kind, memory_order_relaxed) == CHANGE_SPLIT;
    uint64_t count = UINT64_C(1) << (cache->depth - word_depth(change->old));
    odm__u32 *counts = &directory_used(cache)[change->first];
    atomic_store_explicit(&counts[0], used[0], memory_order_relaxed);
    if (split) atomic_store_explicit(&counts[count / 2], used[1], memory_order_relaxed);
    for (uint64_t i = 0; i < count; ++i) {
        uint64_t word = split && i >= count / 2 ? change->right : change->left;
        // Release: who sees the word sees the chunk it names.
        atomic_store_explicit(&cache->words[change->first + i], word, memory_order_release);
    }
    stripe->spare[0] = change->spare[0];
    stripe->spare[1] = change->spare[1];
    // Killed before this store: the next owner of the stripe stores all of it again. After it: done.
    atomic_store_explicit(&change->kind, CHANGE_NONE, memory_order_release);
}

/* Notes what is about to change, and changes it. */
static void change_make(struct index *index, uint32_t stripe_number, enum change_kind kind, const struct chunk *old,
                        uint64_t left, uint64_t right, const uint32_t used[2])
{
    struct stripe *stripe = &index->stripes[stripe_number];
    struct change *change = &stripe->change;
    bool reusable = word_bits(old->word) == CHUNK_SLOT_BITS;
    change->first = old->first;
    change->old = old->word;
    change->left = left;
    change->right = right;
    if (word_bits(left) == CHUNK_SLOT_BITS) {
        // The old chunk is free as soon as no word names it; a first chunk is too small to serve again.
        change->spare[0] = reusable ? word_location(old->word) << 1 : 0;
        change->spare[1] = kind == CHANGE_SPLIT ? 0 : stripe->spare[1];
    } else {
        change->spare[0] = stripe->spare[0];
        change->spare[1] = stripe->spare[1];
    }
    atomic_store_explicit(&change->kind, kind, memory_order_release);
    kill_fence();
    change_apply(index, stripe_number, used);
}

static uint32_t count_used(const struct index *index, uint64_t word)
{
    uint32_t used = 0;
    const odm__u64 *slots = chunk_slots(index, word);
    for (uint32_t i = 0; i < UINT32_C(1) << word_bits(word); ++i) {
        used += atomic_load_explicit(&slots[i], memory_order_relaxed) != SLOT_EMPTY;
    }
    return used;
}

static uint32_t count_live(const struct chunk *chunk)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < chunk->slot_count; ++i) {
        live += slot_is_live(atomic_load_explicit(&chunk->slots[i], memory_order_relaxed));
    }
    return live;
}

odm_status odm__index_mend(struct index *index, uint32_t stripe_number, odm_error *error)
{
    struct change *change = &index->stripes[stripe_number].change;
    uint64_t kind = atomic_load_explicit(&change->kind, memory_order_acquire);
    if (kind == CHANGE_NONE) return ODM_OK;
    odm_status status = root_refresh(index, stripe_number, error);
    if (status == ODM_OK) status = limit_refresh(index, error);
    if (status != ODM_OK) return status;

    unsigned depth = index->roots[stripe_number].depth;
    unsigned split_depth = word_depth(change->old) + (kind == CHANGE_SPLIT);
    bool sane = kind <= CHANGE_SPLIT && split_depth <= depth && word_is_sane(index, change->left) &&
                (kind == CHANGE_REPLACE || word_is_sane(index, change->right)) &&
                change->first < UINT64_C(1) << depth &&
                change->first % (UINT64_C(1) << (depth - word_depth(change->old))) == 0;
    if (!sane) return odm__fail(error, ODM_E_CORRUPT, "index: the change of stripe %u is not one", stripe_number);
    uint32_t used[2] = {count_used(index, change->left), kind == CHANGE_SPLIT ? count_used(index, change->right) : 0};
    change_apply(index, stripe_number, used);
    return ODM_OK;
}

/* ---- splitting, cleaning, growing --------------------------------------------------------------------------------- */

static odm_status directory_double(struct index *index, uint32_t stripe_number, odm_error *error)
{
    struct stripe *stripe = &index->stripes[stripe_number];
    struct root_cache *cache = &index->roots[stripe_number];
    unsigned depth = cache->depth + 1;
    if (root_depth(stripe->spare_directory) != depth) {
        uint64_t location;
        odm_status status = take_units(index, directory_units(depth), &location, error);
        if (status != ODM_OK) return status;
        stripe->spare_directory = root_make(location, depth);
    }
    kill_fence();
    uint64_t root = stripe->spare_directory;
    odm_status status = limit_refresh(index, error);
    if (status != ODM_OK) return status;
    if (root_location(root) == 0 || root_location(root) + directory_units(depth) > index->limit) {
        return odm__fail(error, ODM_E_CORRUPT, "index: a spare directory is %" PRIx64, root);
    }
    struct root_cache doubled = root_view(index, cache->at, root);
    odm__u32 *used = directory_used(&doubled);
    for (uint64_t i = 0; i < UINT64_C(1) << cache->depth; ++i) {
        uint64_t word = atomic_load_explicit(&cache->words[i], memory_order_relaxed);
        atomic_store_explicit(&doubled.words[2 * i], word, memory_order_relaxed);
        atomic_store_explicit(&doubled.words[2 * i + 1], word, memory_order_relaxed);
        uint32_t count = atomic_load_explicit(&directory_used(cache)[i], memory_order_relaxed);
        atomic_store_explicit(&used[2 * i], count, memory_order_relaxed);
        atomic_store_explicit(&used[2 * i + 1], 0, memory_order_relaxed);
    }
    // Release: who sees the root sees the words. Killed before it: the old directory goes on; after it: the new one.
    atomic_store_explicit(&stripe->root, root, memory_order_release);
    *cache = doubled;
    return ODM_OK;
}

/* Copies a chunk without its tombstones, at its own depth: to a usual chunk, or to a bigger one. */
static odm_status chunk_replace(struct index *index, uint32_t stripe_number, const struct chunk *old,
                                unsigned slot_bits, odm_error *error)
{
    struct stripe *stripe = &index->stripes[stripe_number];
    uint64_t location;
    odm_status status;
    if (slot_bits == CHUNK_SLOT_BITS) {
        status = spare_prepare(index, stripe, 0, &location, error);
    } else {
        status = take_units(index, chunk_units(slot_bits), &location, error);
    }
    if (status == ODM_OK) status = limit_refresh(index, error);
    if (status != ODM_OK) return status;

    uint64_t word = word_make(location, slot_bits, word_depth(old->word));
    uint32_t used[2] = {0, 0};
    for (uint32_t i = 0; i < old->slot_count; ++i) {
        uint64_t slot = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        if (!slot_is_live(slot)) continue;
        uint32_t cold = atomic_load_explicit(&old->cold[i], memory_order_relaxed);
        if (!copy_slot(chunk_slots(index, word), chunk_cold(index, word), UINT32_C(1) << slot_bits, slot, cold)) {
            return overlapping(error);
        }
        ++used[0];
    }
    change_make(index, stripe_number, CHANGE_REPLACE, old, word, 0, used);
    return ODM_OK;
}

/* Copies a chunk into two, by the next bit of the hash. */
static odm_status chunk_split(struct index *index, uint32_t stripe_number, const struct chunk *old,
                              const struct hash_source *source, odm_error *error)
{
    struct stripe *stripe = &index->stripes[stripe_number];
    unsigned depth = word_depth(old->word);
    unsigned bit = index->stripe_bits + depth; // from the top
    uint64_t word[2];
    for (unsigned side = 0; side < 2; ++side) {
        uint64_t location;
        odm_status status = spare_prepare(index, stripe, side, &location, error);
        if (status != ODM_OK) return status;
        word[side] = word_make(location, CHUNK_SLOT_BITS, depth + 1);
    }
    odm_status status = limit_refresh(index, error);
    if (status != ODM_OK) return status;

    uint32_t used[2] = {0, 0};
    for (uint32_t i = 0; i < old->slot_count; ++i) {
        uint64_t slot = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        if (!slot_is_live(slot)) continue;
        uint32_t cold = atomic_load_explicit(&old->cold[i], memory_order_relaxed);
        uint64_t hash = cold_hash(cold);
        if (bit >= COLD_HASH_BITS) {
            status = source->hash_of(source->context, slot, &hash, error);
            if (status != ODM_OK) return status;
        }
        unsigned side = hash >> (63 - bit) & 1;
        if (!copy_slot(chunk_slots(index, word[side]), chunk_cold(index, word[side]), CHUNK_SLOTS, slot, cold)) {
            return overlapping(error);
        }
        ++used[side];
    }
    change_make(index, stripe_number, CHANGE_SPLIT, old, word[0], word[1], used);
    atomic_fetch_add_explicit(&stripe->splits, 1, memory_order_relaxed);
    return ODM_OK;
}

/* Slots in use at which a chunk is split or cleaned: 5/8 to 7/8, spread by its place, or all would split at once. */
static uint32_t used_max(const struct chunk *chunk)
{
    if (chunk->slot_count < CHUNK_SLOTS) return chunk->slot_count / 8 * 7;
    uint64_t place = (chunk->first + 1) * UINT64_C(0x9E3779B97F4A7C15) >> 56; // 0 to 255
    return (uint32_t)(chunk->slot_count / 8 * 5 + (uint64_t)chunk->slot_count / 4 * place / 256);
}

/* Whether a chunk lies so much deeper than the stripe's others that its keys' hashes must be equal: splitting would not
 * part them. */
static bool splitting_is_no_use(const struct index *index, const struct stripe *stripe, unsigned depth)
{
    uint64_t chunks = atomic_load_explicit(&stripe->count, memory_order_relaxed) / (CHUNK_SLOTS / 2) + 1;
    unsigned average = 64 - (unsigned)__builtin_clzll(chunks);
    return depth >= average + DEPTH_BEYOND_AVERAGE_MAX || depth >= DIRECTORY_DEPTH_MAX ||
           index->stripe_bits + depth >= 36; // below these bits the tag begins
}

static odm_status change_shape(struct index *index, uint64_t hash, const struct chunk *chunk,
                               const struct hash_source *source, odm_error *error)
{
    uint32_t stripe_number = hash_stripe(hash, index->stripe_bits);
    struct stripe *stripe = &index->stripes[stripe_number];
    unsigned bits = word_bits(chunk->word);
    unsigned depth = word_depth(chunk->word);
    if (bits < CHUNK_SLOT_BITS) return chunk_replace(index, stripe_number, chunk, CHUNK_SLOT_BITS, error);

    uint32_t live = count_live(chunk);
    if (live + chunk->slot_count / 8 <= used_max(chunk)) {
        return chunk_replace(index, stripe_number, chunk, bits, error);
    }
    if (bits > CHUNK_SLOT_BITS || splitting_is_no_use(index, stripe, depth)) {
        if (bits == CHUNK_SLOT_BITS_MAX) {
            return odm__fail(error, ODM_E_NO_SPACE, "%u keys have the same hash", live);
        }
        return chunk_replace(index, stripe_number, chunk, bits + 1, error);
    }
    if (depth == index->roots[stripe_number].depth) return directory_double(index, stripe_number, error);
    return chunk_split(index, stripe_number, chunk, source, error);
}

static bool has_room(const struct chunk *chunk)
{
    return atomic_load_explicit(chunk->used, memory_order_relaxed) < used_max(chunk);
}

static __attribute__((noinline)) odm_status make_room_slowly(struct index *index, uint64_t hash,
                                                             const struct hash_source *source, struct chunk *chunk,
                                                             odm_error *error)
{
    while (!has_room(chunk)) {
        uint32_t used = atomic_load_explicit(chunk->used, memory_order_relaxed);
        odm_error detail = {.struct_size = sizeof detail};
        odm_status status = change_shape(index, hash, chunk, source, &detail);
        // A full disk: go on while one slot stays empty.
        bool full = status == ODM_E_NO_SPACE || status == ODM_E_NO_MEMORY;
        if (full && used + 1 < chunk->slot_count) return ODM_OK;
        if (status != ODM_OK && error != NULL) *error = detail;
        if (status == ODM_OK) status = odm__index_chunk(index, hash, chunk, error);
        if (status != ODM_OK) return status;
    }
    return ODM_OK;
}

odm_status odm__index_make_room(struct index *index, uint64_t hash, const struct hash_source *source,
                                struct chunk *chunk, odm_error *error)
{
    return __builtin_expect(has_room(chunk), 1) ? ODM_OK : make_room_slowly(index, hash, source, chunk, error);
}

/* ---- copying all --------------------------------------------------------------------------------------------------- */

/* The first hash that the chunk at word `first` of a stripe's directory is for. */
static uint64_t hash_of_word(const struct index *index, uint32_t stripe, uint64_t first)
{
    unsigned depth = index->roots[stripe].depth;
    uint64_t hash = index->stripe_bits == 0 ? 0 : (uint64_t)stripe << (64 - index->stripe_bits);
    return hash | first << (64 - depth) >> index->stripe_bits;
}

/* Copies one slot. The hash is put together from what the index keeps of it; if that is not enough to find the chunk, the
 * record's key is hashed. */
static odm_status copy_live(struct index *to, uint32_t stripe, uint64_t slot, uint32_t cold,
                            const struct hash_source *source, odm_error *error)
{
    enum { DEPTH_AHEAD = 4 }; // of splits on the way
    uint64_t hash = cold_hash(cold) | (slot >> SLOT_TAG_SHIFT) << HASH_TAG_SHIFT | cold_home(cold);
    bool exact = false;
    for (;;) {
        struct chunk chunk;
        odm_status status = root_refresh(to, stripe, error);
        unsigned bits = to->stripe_bits + to->roots[stripe].depth;
        if (status == ODM_OK && !exact && bits + DEPTH_AHEAD > COLD_HASH_BITS) {
            status = source->hash_of(source->context, slot, &hash, error);
            exact = true;
        }
        if (status == ODM_OK) status = odm__index_chunk(to, hash, &chunk, error);
        if (status == ODM_OK) status = odm__index_make_room(to, hash, source, &chunk, error);
        if (status != ODM_OK) return status;
        if (!exact && to->stripe_bits + word_depth(chunk.word) > COLD_HASH_BITS) continue;
        if (!copy_slot(chunk.slots, chunk.cold, chunk.slot_count, slot, cold)) return overlapping(error);
        used_add(&chunk, 1);
        return ODM_OK;
    }
}

odm_status odm__index_copy_all(struct index *from, struct index *to, const struct hash_source *source, odm_error *error)
{
    for (uint32_t i = 0; i < UINT32_C(1) << from->stripe_bits; ++i) {
        odm_status status = root_refresh(from, i, error);
        uint64_t step = 0;
        for (uint64_t first = 0; status == ODM_OK && first < UINT64_C(1) << from->roots[i].depth; first += step) {
            struct chunk chunk;
            status = odm__index_chunk(from, hash_of_word(from, i, first), &chunk, error);
            if (status != ODM_OK) break;
            step = UINT64_C(1) << (from->roots[i].depth - word_depth(chunk.word));
            for (uint32_t k = 0; status == ODM_OK && k < chunk.slot_count; ++k) {
                uint64_t slot = atomic_load_explicit(&chunk.slots[k], memory_order_relaxed);
                uint32_t cold = atomic_load_explicit(&chunk.cold[k], memory_order_relaxed);
                if (slot_is_live(slot)) status = copy_live(to, i, slot, cold, source, error);
            }
        }
        if (status != ODM_OK) return status;
        const struct stripe *old = &from->stripes[i];
        atomic_store(&to->stripes[i].count, atomic_load(&old->count));
        atomic_store(&to->stripes[i].live_bytes, atomic_load(&old->live_bytes));
        atomic_store(&to->stripes[i].splits, atomic_load(&old->splits));
    }
    const struct index_header *old = from->header;
    to->header->recovery_kind = old->recovery_kind;
    to->header->recovery_records = old->recovery_records;
    to->header->recovery_bytes_cut = old->recovery_bytes_cut;
    to->header->recovery_from = old->recovery_from;
    atomic_store(&to->header->head, atomic_load(&old->head));
    return ODM_OK;
}

odm_status odm__index_clear(struct index *index, uint32_t stripe_number, odm_error *error)
{
    odm_status status = root_refresh(index, stripe_number, error);
    if (status != ODM_OK) return status;
    struct root_cache *cache = &index->roots[stripe_number];
    uint64_t step;
    for (uint64_t first = 0; first < UINT64_C(1) << cache->depth; first += step) {
        struct chunk chunk;
        status = odm__index_chunk(index, hash_of_word(index, stripe_number, first), &chunk, error);
        if (status != ODM_OK) return status;
        step = UINT64_C(1) << (cache->depth - word_depth(chunk.word));
        for (uint32_t i = 0; i < chunk.slot_count; ++i) {
            if (atomic_load_explicit(&chunk.slots[i], memory_order_relaxed) == SLOT_EMPTY) continue;
            atomic_store_explicit(&chunk.slots[i], SLOT_EMPTY, memory_order_release);
        }
        kill_fence();
        atomic_store_explicit(chunk.used, 0, memory_order_relaxed); // After the slots: never too low.
    }
    return ODM_OK;
}

/* ---- looking at all ----------------------------------------------------------------------------------------------- */

odm_status odm__index_copy(struct index *index, uint64_t hash, uint64_t recycled, struct chunk_copy *copy, bool *torn,
                           odm_error *error)
{
    uint64_t word;
    odm_status status = odm__index_word(index, hash, &word, error);
    if (status != ODM_OK) return status;
    if (!word_is_usable(index, word, index->roots[hash_stripe(hash, index->stripe_bits)].depth)) {
        return odm__fail(error, ODM_E_CORRUPT, "index: a word is %" PRIx64, word);
    }
    uint32_t slot_count = UINT32_C(1) << word_bits(word);
    if (slot_count > copy->room) {
        odm__chunk_copy_free(copy);
        copy->slots = malloc(slot_count * sizeof *copy->slots);
        if (copy->slots == NULL) return odm__fail(error, ODM_E_NO_MEMORY, "out of memory");
        copy->room = slot_count;
    }
    copy->word = word;
    copy->live = chunk_slots(index, word);
    copy->slot_count = slot_count;
    odm__u64 *live = copy->live;
    uint64_t *slots = copy->slots;
    for (uint32_t i = 0; i < slot_count; ++i) slots[i] = atomic_load_explicit(&live[i], memory_order_acquire);
    unsigned top = index->stripe_bits + word_depth(word);
    copy->hash_last = top == 0 ? UINT64_MAX : hash | UINT64_MAX >> top;
    copy->hash_first = top == 0 ? 0 : hash & ~(UINT64_MAX >> top);
    *torn = atomic_load_explicit(&index->header->recycled, memory_order_acquire) != recycled;
    return ODM_OK;
}

void odm__chunk_copy_free(struct chunk_copy *copy)
{
    free(copy->slots);
    copy->slots = NULL;
    copy->room = 0;
}

static odm_status stripe_totals(struct index *index, uint32_t stripe, struct index_totals *totals, odm_error *error)
{
    odm_status status = root_refresh(index, stripe, error);
    if (status != ODM_OK) return status;
    const struct root_cache *cache = &index->roots[stripe];
    for (uint64_t i = 0; i < UINT64_C(1) << cache->depth;) {
        uint64_t word = atomic_load_explicit(&cache->words[i], memory_order_acquire);
        if (!word_is_usable(index, word, cache->depth)) {
            return odm__fail(error, ODM_E_CORRUPT, "index: word %" PRIu64 " of stripe %u is %" PRIx64, i, stripe, word);
        }
        totals->slots += UINT64_C(1) << word_bits(word);
        totals->used += atomic_load_explicit(&directory_used(cache)[i], memory_order_relaxed);
        i += UINT64_C(1) << (cache->depth - word_depth(word));
    }
    return ODM_OK;
}

odm_status odm__index_totals(struct index *index, bool chunks, struct index_totals *totals, odm_error *error)
{
    *totals = (struct index_totals){.count = 0};
    for (uint32_t i = 0; i < UINT32_C(1) << index->stripe_bits; ++i) {
        struct stripe *stripe = &index->stripes[i];
        totals->count += atomic_load_explicit(&stripe->count, memory_order_relaxed);
        totals->live_bytes += atomic_load_explicit(&stripe->live_bytes, memory_order_relaxed);
        totals->splits += atomic_load_explicit(&stripe->splits, memory_order_relaxed);
        if (!chunks) continue;
        odm_status status = stripe_totals(index, i, totals, error);
        if (status != ODM_OK) return status;
    }
    return ODM_OK;
}
