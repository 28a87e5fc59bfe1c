/* index.h - hash -> slot: an extendible hash table per stripe, in one mapped file.
 *
 * Calls file.h and lock.h. Knows nothing of records' bytes: where a hash is needed that the index has not kept, it asks the
 * caller for it. A cache: lost or distrusted, it is built anew from the log.
 *
 * What always holds:
 *   1. A key never moves inside a chunk; a chunk is changed in shape only by copying it, after which the old one is frozen:
 *      who still reads it sees the state at the moment of the directory's store, which lies within his call.
 *   2. Chunks stay chunks: never unmapped, never anything but slots. Before a frozen chunk is written again, `recycled` is
 *      raised: no lookup that meets the new contents is believed.
 *   3. Every chunk has an empty slot, so every probe ends. A used count is never too low.
 *   4. A stripe is changed by the owner of its lock only. What it was about to store in the directory is in its change, so
 *      that who mends the stripe can store it again.
 *
 * Threads: a view belongs to one handle; an index_file is shared by the handles of a process (its users count references
 * under a mutex of their own).
 */
#ifndef ODM_INDEX_H
#define ODM_INDEX_H

#include <stdbool.h>

#include "file.h"
#include "format.h"
#include "hash.h"
#include "lock.h"

/* One mapping of one index file. */
struct index_file {
    int fd;
    unsigned char *base;
    uint64_t mapped; // bytes of address space, some of it beyond the end of the file
    unsigned references;
    bool writable;
    const struct directory *directory;
};

/* One handle's view of it. */
struct index {
    struct index_file *file;
    unsigned char *base;
    struct index_header *header;
    struct stripe *stripes;
    uint64_t limit; // a chunk at a location up to here lies in the file
    unsigned stripe_bits;
    const struct lock_client *client; // NULL while nobody else can see the index
    uint32_t wait_ms;
    unsigned stripe_shift; // of a hash's top 6 bits
    struct root_cache {
        const odm__u64 *at; // the root itself
        uint64_t root;      // as last seen, and what follows from it
        odm__u64 *words;
        uint32_t mask;
        uint8_t shift; // a hash shifted right by this, masked: the index of its word
        uint8_t depth;
    } roots[ODM_STRIPES_MAX];
};

/* Makes an index that has room for `capacity` entries, under this name. */
odm_status odm__index_create(const struct directory *directory, const char *name, const struct meta_fixed *fixed,
                             uint64_t capacity, struct index_file **file, odm_error *error);
/* ODM_NOT_FOUND, without a message, if there is none; ODM_E_CORRUPT if it is not one of this map. */
odm_status odm__index_open(const struct directory *directory, const char *name, const struct meta_fixed *fixed,
                           bool writable, struct index_file **file, odm_error *error);
void odm__index_close(struct index_file *file);
/* Tells all that look through it that there is a newer one. */
void odm__index_supersede(struct index_file *file);

void odm__index_view(struct index *index, struct index_file *file, const struct meta_fixed *fixed,
                     const struct lock_client *client, uint32_t wait_ms);

/* ---- looking up --------------------------------------------------------------------------------------------------- */

/* One key's way through its chunk, a cache line of slots at a time, from the first slot of its home line. Looking at all of a
 * line costs less than guessing, slot by slot, where in it the probe ends. */
struct probe {
    odm__u64 *slots;
    uint64_t tag; // in the low bits
    uint32_t mask;
    uint32_t line;    // first slot of the line being looked at
    uint32_t lines;   // still to be looked at, this one included
    uint32_t matches; // slots of the line that have the tag and were not returned, a bit each
};

// Not under ThreadSanitizer, which does not know that the lanes of such a load are atomic.
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#include <emmintrin.h>
#define LINE_BY_SSE2
#endif

/* Reads the root again and checks it; or the size of the file, for a word that points beyond what was known of it. The
 * unlikely half of odm__index_seek. */
odm_status odm__index_seek_slowly(struct index *index, uint64_t hash, uint64_t *word, odm_error *error);

/* Where the directory word for a hash stands, as long as the root is as it was when that was asked. */
struct word_place {
    const odm__u64 *root_at;
    uint64_t root;
    odm__u64 *word_at;
};
static inline struct word_place odm__index_word_place(const struct index *index, uint64_t hash)
{
    const struct root_cache *cache = &index->roots[hash >> 58 >> index->stripe_shift];
    return (struct word_place){cache->at, cache->root, &cache->words[hash >> cache->shift & cache->mask]};
}
/* The word; or one that lies beyond every limit, if the root is another by now. */
static inline uint64_t odm__word_at(const struct word_place *place)
{
    // Acquire: partner of the release that stores a doubled directory.
    if (__builtin_expect(atomic_load_explicit(place->root_at, memory_order_acquire) != place->root, 0))
        return UINT64_MAX;
    // Acquire: partner of the release in change_apply.
    return atomic_load_explicit(place->word_at, memory_order_acquire);
}

/* The directory word for a hash, if the root is as last seen; else one that lies beyond every limit. */
static inline uint64_t odm__index_word_at_once(const struct index *index, uint64_t hash)
{
    const struct word_place place = odm__index_word_place(index, hash);
    return odm__word_at(&place);
}

/* The directory word for a hash. */
static inline odm_status odm__index_word(struct index *index, uint64_t hash, uint64_t *word, odm_error *error)
{
    *word = odm__index_word_at_once(index, hash);
    if (__builtin_expect(*word >> WORD_LOCATION_SHIFT <= index->limit, 1)) return ODM_OK;
    return odm__index_seek_slowly(index, hash, word, error);
}

/* Brings what a hash's probe will touch first into the cache: its home line, and for a writer the cold words too. Returns the
 * line, or NULL. */
static inline odm__u64 *odm__index_fetch(struct index *index, uint64_t hash, bool to_write)
{
    uint64_t word;
    if (odm__index_word(index, hash, &word, NULL) != ODM_OK) return NULL;
    uint32_t mask = (CHUNK_SLOTS - 1U) >> word_smaller(word);
    odm__u64 *slots = (odm__u64 *)(void *)(index->base + word_location(word) * INDEX_UNIT);
    uint32_t home = hash_home(hash) & mask;
    if (to_write) {
        __builtin_prefetch((const void *)&slots[home], 1);
        __builtin_prefetch((const unsigned char *)&slots[mask + 1U] + home * sizeof(odm__u32), 1);
    } else {
        __builtin_prefetch((const void *)&slots[home]);
    }
    return &slots[home];
}

#ifdef LINE_BY_SSE2
/* Slots of a line, a pair in each. A slot is a lane of an aligned load, which the processor does not tear; and it loads in
 * order. */
static inline __m128i line_pair(const odm__u64 *line, int i)
{
    return _mm_load_si128((const __m128i *)(const void *)line + i);
}

/* A bit for each slot of a line: the sign of its lane in one of four pairs. Packing keeps signs. */
static inline uint32_t line_bits(__m128i a, __m128i b, __m128i c, __m128i d)
{
#define HIGH_HALVES(x, y) \
    _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(x), _mm_castsi128_ps(y), _MM_SHUFFLE(3, 1, 3, 1)))
    __m128i words = _mm_packs_epi32(HIGH_HALVES(a, b), HIGH_HALVES(c, d));
#undef HIGH_HALVES
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(words, _mm_setzero_si128()));
}
#endif

/* Which slots of a line have a tag: a bit each. Acquire: partner of the release that stores a slot; the record and the cold
 * word were stored before it. */
static inline uint32_t odm__line_matches(odm__u64 *line, uint64_t tag)
{
#ifdef LINE_BY_SSE2
    __m128i tags = _mm_set1_epi16((short)tag);
#define HAVE_TAG(i) _mm_cmpeq_epi16(line_pair(line, i), tags) // A slot's highest 16 bits are its tag.
    uint32_t matches = line_bits(HAVE_TAG(0), HAVE_TAG(1), HAVE_TAG(2), HAVE_TAG(3));
#undef HAVE_TAG
    atomic_signal_fence(memory_order_acquire);
#else
    uint32_t matches = 0;
    for (uint32_t i = 0; i < LINE_SLOTS; ++i) {
        uint64_t slot = atomic_load_explicit(&line[i], memory_order_acquire);
        matches |= (uint32_t)(slot >> SLOT_TAG_SHIFT == tag) << i;
    }
#endif
    return matches;
}

/* Which slots of a line are empty: a bit each. */
static inline uint32_t odm__line_empties(odm__u64 *line)
{
#ifdef LINE_BY_SSE2
    __m128i zero = _mm_setzero_si128();
#define ZEROS(i) _mm_cmpeq_epi32(line_pair(line, i), zero)
#define ARE_EMPTY(i) _mm_and_si128(ZEROS(i), _mm_slli_epi64(ZEROS(i), 32)) // Both halves of the slot are zero.
    uint32_t empties = line_bits(ARE_EMPTY(0), ARE_EMPTY(1), ARE_EMPTY(2), ARE_EMPTY(3));
#undef ARE_EMPTY
#undef ZEROS
    atomic_signal_fence(memory_order_acquire);
#else
    uint32_t empties = 0;
    for (uint32_t i = 0; i < LINE_SLOTS; ++i) {
        empties |= (uint32_t)(atomic_load_explicit(&line[i], memory_order_acquire) == SLOT_EMPTY) << i;
    }
#endif
    return empties;
}

static inline void odm__probe_start(const struct index *index, uint64_t word, uint64_t hash, struct probe *probe)
{
    uint32_t mask = (CHUNK_SLOTS - 1U) >> word_smaller(word);
    if (__builtin_expect((word & WORD_BIG) != 0, 0)) mask = (UINT32_C(1) << word_bits(word)) - 1;
    probe->slots = (odm__u64 *)(void *)(index->base + word_location(word) * INDEX_UNIT);
    probe->tag = hash_tag(hash);
    probe->mask = mask;
    probe->line = hash_home(hash) & mask;
    probe->lines = (mask + LINE_SLOTS) / LINE_SLOTS; // Rounded up: a damaged word may stand for less than a line.
    probe->matches = odm__line_matches(&probe->slots[probe->line], probe->tag);
}

/* The next slot that has the key's tag; 0 when there is none. If probe->lines is 0 by then, no slot was empty: the index is
 * damaged. A match behind the probe's end may come too: it is another key's.
 *
 * That a slot is empty is looked at later than the tags, and that is as good: whenever a slot in a key's way becomes empty,
 * the key is not behind it; so a key that neither look has met was absent at a moment between the two. */
static inline uint64_t odm__probe_next(struct probe *probe)
{
    for (;;) {
        while (probe->matches != 0) {
            uint32_t i = (uint32_t)__builtin_ctz(probe->matches);
            probe->matches &= probe->matches - 1;
            uint64_t slot = atomic_load_explicit(&probe->slots[probe->line + i], memory_order_acquire);
            // Not empty, no tombstone, and not another key's by now.
            if (__builtin_expect((slot & SLOT_ADDRESS_MASK) != 0 && slot >> SLOT_TAG_SHIFT == probe->tag, 1))
                return slot;
        }
        if (odm__line_empties(&probe->slots[probe->line]) != 0) return SLOT_EMPTY;
        if (--probe->lines == 0) return SLOT_EMPTY;
        probe->line = (probe->line + LINE_SLOTS) & probe->mask;
        probe->matches = odm__line_matches(&probe->slots[probe->line], probe->tag);
    }
}

/* Whether some slot names the record at an address; the hash is its key's. Without a lock: believed only after comparing
 * `recycled`. */
odm_status odm__index_names(struct index *index, uint64_t hash, uint64_t address, bool *named, odm_error *error);

/* ---- changing: the caller owns the stripe's lock -------------------------------------------------------------------- */

/* A chunk, for its owner. */
struct chunk {
    odm__u64 *slots;
    odm__u32 *cold;
    odm__u32 *used; // slots that are not empty, or more
    uint32_t slot_count;
    uint64_t word;
    uint64_t first; // of the directory words that name it
};

/* Tells the hash of the key whose record a slot names; for splits deeper than the index keeps bits. */
struct hash_source {
    odm_status (*hash_of)(void *context, uint64_t slot, uint64_t *hash, odm_error *error);
    void *context;
};

/* Mends what a dead owner of the stripe left half done in the index. */
odm_status odm__index_mend(struct index *index, uint32_t stripe, odm_error *error);

/* Finds the hash's chunk. */
odm_status odm__index_chunk(struct index *index, uint64_t hash, struct chunk *chunk, odm_error *error);

/* Sees to it that the hash's chunk can take one more key, by splitting or cleaning it; *chunk is the chunk it then is. If
 * that fails for want of space and an empty slot would remain all the same, it succeeds. */
odm_status odm__index_make_room(struct index *index, uint64_t hash, const struct hash_source *source,
                                struct chunk *chunk, odm_error *error);

/* The slot that names the record at an address, if there is one; the hash is its key's. */
bool odm__chunk_find(const struct chunk *chunk, uint64_t hash, uint64_t address, uint32_t *at);
/* Stores a slot that holds no key yet: empty, or a tombstone. */
void odm__chunk_insert(struct chunk *chunk, uint32_t at, uint64_t hash, uint64_t address);
/* Makes a slot name a newer record of its key. */
void odm__chunk_update(struct chunk *chunk, uint32_t at, uint64_t address);
/* Takes a key's slot away. */
void odm__chunk_remove(struct chunk *chunk, uint32_t at);

/* Bytes of an index that odm__index_create would make for that many entries. */
uint64_t odm__index_bytes_for(const struct meta_fixed *fixed, uint64_t capacity);
/* Copies all that is live, and what the stripes and the header count, into an empty index that nobody else sees yet. The caller
 * owns the locks of all stripes. */
odm_status odm__index_copy_all(struct index *from, struct index *to, const struct hash_source *source,
                               odm_error *error);

/* Empties every chunk of a stripe, in place: a key that a probe no longer reaches is gone for good. Doing it again does no
 * harm. */
odm_status odm__index_clear(struct index *index, uint32_t stripe, odm_error *error);

/* ---- looking at all ------------------------------------------------------------------------------------------------ */

/* A consistent copy of the chunk that a hash lies in, taken without a lock. */
struct chunk_copy {
    uint64_t word;
    uint64_t hash_first; // of the hashes the chunk is for
    uint64_t hash_last;
    odm__u64 *live; // the slots themselves
    uint64_t *slots;
    uint32_t slot_count;
    uint32_t room; // slots that fit into the copy
};
/* *torn: `recycled` has changed meanwhile, or was not *recycled: copy again. */
odm_status odm__index_copy(struct index *index, uint64_t hash, uint64_t recycled, struct chunk_copy *copy, bool *torn,
                           odm_error *error);
void odm__chunk_copy_free(struct chunk_copy *copy);

struct index_totals {
    uint64_t count, live_bytes, slots, used, splits;
};
/* Adds up the stripes; slots and used too if `chunks`, which looks at every directory. */
odm_status odm__index_totals(struct index *index, bool chunks, struct index_totals *totals, odm_error *error);

#endif
