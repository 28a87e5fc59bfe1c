/* reader.h - looking up: hash -> slot -> record, without a lock, without a store to shared memory, without a system call.
 *
 * Calls index.h and log.h, and store.h for a newer index. A reader is the part of a handle that reads.
 *
 * What always holds: whatever a lookup has met, hit or miss or damage, is believed only if `recycled` is still what the
 * reader last saw. That one comparison covers chunks that were used again, segment numbers that have wrapped, segments that
 * were unlinked, and an index that was superseded. Else the reader looks at `recycled`, then at head, lets go of the segments
 * below head, and looks up again.
 *
 * Threads: a reader belongs to one handle.
 */
#ifndef ODM_READER_H
#define ODM_READER_H

#include <stdbool.h>

#include "index.h"
#include "log.h"
#include "store.h"

enum { READER_VIEW_COUNT = 1 << 16 }; // a view for every number modulo 2^16

/* A segment as the reader sees it: not mapped has end 0, so "not mapped" and "out of bounds" are one branch. */
struct segment_view {
    const unsigned char *base;
    uint64_t end; // bytes
};

/* A list of references on segments: a reader's, an iterator's, those of a private index. */
struct held_segment {
    struct held_segment *next;
    struct segment *segment;
};
/* Takes over a reference; without memory for that it is released. */
odm_status odm__held_add(struct held_segment **list, struct log *log, struct segment *segment, odm_error *error);
/* Releases all. */
void odm__held_release(struct held_segment **list, struct log *log);

struct reader {
    struct index index;
    struct segment_view *views; // by number modulo 2^16
    uint64_t seed;
    uint64_t recycled;            // as last seen
    uint64_t head;                // likewise
    uint64_t generation;          // of the index: raised whenever another one is attached
    bool lent;                    // slices were given out since the last refresh
    bool verify;                  // check both checksums of what is read
    struct held_segment *held;    // on segments of the map
    struct held_segment *dropped; // on those that have left it: only slices that were lent keep them
    struct log *log;
    struct store *store; // NULL: the index can not be superseded
};

odm_status odm__reader_open(struct reader *reader, struct store *store, struct log *log, uint64_t seed,
                            odm_error *error);
/* Looks through an index that the reader takes a reference on itself (store) or is lent (no store). */
void odm__reader_attach(struct reader *reader, struct index_file *file, const struct meta_fixed *fixed,
                        const struct lock_client *client, uint32_t wait_ms);
void odm__reader_close(struct reader *reader);

/* Finds a key's record. ODM_OK: *record and *slot are set; ODM_NOT_FOUND; an error. */
odm_status odm__reader_find(struct reader *reader, const void *key, size_t key_size, uint64_t hash,
                            const struct record_header **record, odm_error *error);

/* The same without waiting for anybody, asking the system, or changing anything, in a few hundred bytes of stack:
 * ODM_WOULD_BLOCK where odm__reader_find might do otherwise, or would report damage. */
odm_status odm__reader_try_find(struct reader *reader, const void *key, size_t key_size, uint64_t hash,
                                const struct record_header **record);

/* The record a slot names; the caller owns the stripe's lock, or believes it only after comparing `recycled`. */
odm_status odm__reader_resolve(struct reader *reader, uint64_t slot, struct record *record, odm_error *error);
/* Takes a reference of the caller's own on the segment a slot names, beside the reader's. */
odm_status odm__reader_segment_of(struct reader *reader, uint64_t slot, struct segment **segment, odm_error *error);
/* The segment of a record that was just found; the reference is the reader's. */
struct segment *odm__reader_segment_at(const struct reader *reader, const struct record_header *record);

/* Where a key is in its chunk, or would go. */
struct place {
    bool found;
    uint32_t at;  // its slot; or the slot for it: the first tombstone of the probe, else the empty slot at its end
    uint64_t lsn; // of its record, if found
    uint64_t size;
};
/* Looks for a key in the chunk that its hash belongs to. The caller owns the stripe's lock. */
odm_status odm__reader_locate(struct reader *reader, const struct chunk *chunk, const void *key, size_t key_size,
                              uint64_t hash, struct place *place, odm_error *error);
/* For splits: the hash of the key whose record a slot names. context is the reader. */
odm_status odm__reader_hash_of(void *context, uint64_t slot, uint64_t *hash, odm_error *error);

/* Whether something was recycled since the reader last looked. */
static inline bool odm__reader_is_stale(const struct reader *reader)
{
    // Acquire: partner of the release that raises it; what is compared before was loaded with acquire.
    return atomic_load_explicit(&reader->index.header->recycled, memory_order_acquire) != reader->recycled;
}
/* Looks again, and lets go of what lies below head. */
odm_status odm__reader_renew(struct reader *reader, odm_error *error);
/* Lets go of lent slices. */
odm_status odm__reader_refresh(struct reader *reader, odm_error *error);

static inline const unsigned char *record_key(const struct record_header *record)
{
    return (const unsigned char *)record + RECORD_HEADER_SIZE;
}
static inline uint32_t record_key_size(const struct record_header *record)
{
    return record_word_key_size(
        (uint32_t)(atomic_load_explicit(&((struct record_header *)(uintptr_t)record)->first, memory_order_relaxed) >>
                   32));
}
static inline const unsigned char *record_value(const struct record_header *record)
{
    return record_key(record) + padded(record_key_size(record));
}

/* Whether two keys of the same size are the same. Inlined: a call of memcmp costs as much as most keys. */
static inline bool same_bytes(const void *a, const void *b, size_t size)
{
    const unsigned char *x = a, *y = b;
    uint64_t p, q;
    if (size >= 8) {
        for (; size > 8; x += 8, y += 8, size -= 8) {
            __builtin_memcpy(&p, x, 8);
            __builtin_memcpy(&q, y, 8);
            if (p != q) return false;
        }
        __builtin_memcpy(&p, x + size - 8, 8); // The last eight bytes overlap the ones before.
        __builtin_memcpy(&q, y + size - 8, 8);
        return p == q;
    }
    if (size >= 4) {
        uint32_t r, s, t, u;
        __builtin_memcpy(&r, x, 4);
        __builtin_memcpy(&s, y, 4);
        __builtin_memcpy(&t, x + size - 4, 4);
        __builtin_memcpy(&u, y + size - 4, 4);
        return r == s && t == u;
    }
    for (size_t i = 0; i < size; ++i) {
        if (x[i] != y[i]) return false;
    }
    return true;
}

/* Where the record a slot names would stand, and how many bytes its segment has from there; NULL if that is not mapped. Nothing
 * is read from there. */
static inline struct record_header *odm__views_aim(const struct segment_view *views, uint64_t slot, uint64_t *left)
{
    const struct segment_view *view = &views[slot_number(slot)];
    uint64_t offset = slot_offset(slot);
    *left = view->end - offset;
    if (__builtin_expect(offset >= view->end, 0)) return NULL;
    return (struct record_header *)(uintptr_t)(view->base + offset);
}

/* Whether a whole record that holds this key stands there. */
static inline bool odm__record_holds(struct record_header *record, uint64_t left, const void *key, size_t key_size)
{
    // A header and a key may be read before the end is checked: SEGMENT_GUARD bytes follow.
    uint32_t word = (uint32_t)(atomic_load_explicit(&record->first, memory_order_relaxed) >> 32);
    return word == record_word(RECORD_PUT, key_size) && same_bytes(record_key(record), key, key_size) &&
           record_size(key_size, record->value_size) <= left;
}

/* The record a slot names, if it is mapped and whole of length and holds this key; else NULL. Believed only after comparing
 * `recycled`. */
static inline const struct record_header *odm__reader_match(const struct reader *reader, uint64_t slot, const void *key,
                                                            size_t key_size)
{
    uint64_t left;
    struct record_header *record = odm__views_aim(reader->views, slot, &left);
    return record != NULL && odm__record_holds(record, left, key, key_size) ? record : NULL;
}

/* The common case of odm__reader_find: the key's record, if it is found in the first line of its probe and nothing is in the
 * way; else NULL, which says nothing. Short, so that the processor begins the next lookup while this one waits for memory. */
static inline const struct record_header *odm__reader_find_at_once(struct reader *reader, const void *key,
                                                                   size_t key_size, uint64_t hash)
{
    const struct index *index = &reader->index;
    uint64_t word = odm__index_word_at_once(index, hash);
    uint64_t location = word >> WORD_LOCATION_SHIFT; // That of a big chunk is beyond the limit.
    if (__builtin_expect(location > index->limit, 0)) return NULL;

    uint32_t home = hash_home(hash) & (CHUNK_SLOTS - 1U) >> word_smaller(word);
    odm__u64 *line = (odm__u64 *)(void *)(index->base + location * INDEX_UNIT) + home;
    uint32_t matches = odm__line_matches(line, hash_tag(hash));
    if (__builtin_expect(matches == 0, 0)) return NULL;
    uint64_t slot = atomic_load_explicit(&line[__builtin_ctz(matches)], memory_order_acquire);
    const struct record_header *record = odm__reader_match(reader, slot, key, key_size);
    return __builtin_expect(odm__reader_is_stale(reader) || reader->verify, 0) ? NULL : record;
}

#endif
