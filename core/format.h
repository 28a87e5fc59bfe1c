/* format.h - every byte of a map on disk: sizes, offsets, structs. FORMAT.md says the same in words.
 *
 * Calls nothing. All numbers are little-endian; a map is not opened on a machine of the other byte order. The structs lie
 * in shared memory: a field that two clients may touch at once is atomic, and its comment names who writes it under
 * which lock. Who may store, and in which order, is in README.md ("Atomics").
 */
#ifndef ODM_FORMAT_H
#define ODM_FORMAT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "opendiskmap runs on little-endian machines only"
#endif

typedef _Atomic uint64_t odm__u64;
typedef _Atomic uint32_t odm__u32;
_Static_assert(sizeof(odm__u64) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "atomics in files must be plain words");

/* What stands before is in memory before what stands after, as the survivors of a kill see it: the compiler may not swap
 * them. The processor need not be told; all a dead client stored is seen by who takes its lock. */
static inline void kill_fence(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

enum { FORMAT_VERSION = 1, BYTE_ORDER_MARK = 0x01020304 };
enum { CACHE_LINE = 64, PAGE = 4096 };

/* ---- geometry: small in test builds, so that splits, rollovers and wraps happen within tens of puts --------------- */

#ifdef ODM_TEST_SMALL
enum { CHUNK_SLOT_BITS = 6, FIRST_CHUNK_SLOT_BITS = 4, COLD_HASH_BITS = 8 };
enum { SLOT_NUMBER_BITS = 10, FIRST_NUMBER = 1020 }; // The number wraps with the fourth segment.
enum { SEGMENT_SIZE_MIN = PAGE, SEGMENTS_PER_LOG = 32, SEGMENTS_PER_SMALL_LOG = 32, SEGMENT_SIZE_HOT = 4 * PAGE };
enum { STAMP_LOG_BYTES_MIN = 1024 * 1024 };
#else
enum { CHUNK_SLOT_BITS = 12, FIRST_CHUNK_SLOT_BITS = 8, COLD_HASH_BITS = 20 };
enum { SLOT_NUMBER_BITS = 16, FIRST_NUMBER = 1 };
enum {
    SEGMENT_SIZE_MIN = 64 * 1024,
    SEGMENTS_PER_LOG = 64,
    SEGMENTS_PER_SMALL_LOG = 16,
    SEGMENT_SIZE_HOT = 1024 * 1024
};
enum { STAMP_LOG_BYTES_MIN = 64 * 1024 * 1024 }; // a longer log is worth a stamp when the map is closed
#endif

enum { CHUNK_SLOTS = 1 << CHUNK_SLOT_BITS, FIRST_CHUNK_SLOTS = 1 << FIRST_CHUNK_SLOT_BITS };
enum { SLOT_SIZE = 8, COLD_SIZE = 4 }; // bytes
enum { LINE_SLOTS = CACHE_LINE / SLOT_SIZE };
/* Recorded in meta: a map of another geometry is refused. */
#define GEOMETRY \
    ((uint32_t)(CHUNK_SLOT_BITS | FIRST_CHUNK_SLOT_BITS << 8 | COLD_HASH_BITS << 16 | SLOT_NUMBER_BITS << 24))

/* ---- places in the log: segment number << 29 | offset / 8 --------------------------------------------------------- */

enum { ADDRESS_OFFSET_BITS = 29, ADDRESS_NUMBER_BITS = 35, ADDRESS_UNIT = 8 };
enum { SEGMENT_HEADER_SIZE = 64, RECORD_HEADER_SIZE = 24 };
#define SEGMENT_SIZE_MAX (UINT64_C(4294967296) - PAGE)
#define SEGMENT_SIZE_MIN_LATE (UINT64_C(16) << 20) // from this number on segments are big: 35 bits must last
#define SEGMENT_NUMBER_LATE (UINT64_C(1) << 24)
#define SEGMENT_NUMBER_MAX ((UINT64_C(1) << ADDRESS_NUMBER_BITS) - 1)
/* Head and tail stay this close, and head never moves further at once: so a number modulo 2^SLOT_NUMBER_BITS is enough even
 * for a reader that has not yet seen head move. */
#define SEGMENT_SPAN_MAX (UINT64_C(1) << (SLOT_NUMBER_BITS - 1))

static inline uint64_t address_make(uint64_t number, uint64_t offset)
{
    assert(offset % ADDRESS_UNIT == 0 && offset <= SEGMENT_SIZE_MAX);
    return number << ADDRESS_OFFSET_BITS | offset / ADDRESS_UNIT;
}
static inline uint64_t address_number(uint64_t address)
{
    return address >> ADDRESS_OFFSET_BITS;
}
static inline uint64_t address_offset(uint64_t address)
{
    return (address & ((UINT64_C(1) << ADDRESS_OFFSET_BITS) - 1)) * ADDRESS_UNIT;
}
static inline uint64_t padded(uint64_t size)
{
    return (size + 7) & ~UINT64_C(7);
}

/* ---- records ------------------------------------------------------------------------------------------------------ */

enum record_kind {
    RECORD_NONE = 0,
    RECORD_PUT = 1,
    RECORD_REMOVE = 2,
    RECORD_CLEAR = 3,
    RECORD_FILLER = 4,
    RECORD_RESERVED = 5
};

/* Followed by the key and then the value, each padded with zeros to a multiple of 8.
 * `first` is stored last and as one word: check A in the low half, RECORD_WORD in the high half. */
struct record_header {
    odm__u64 first;
    uint32_t value_size; // bytes
    uint32_t check_b;    // of the value
    uint64_t lsn;        // the address the record was first written at; a copy keeps it
};
_Static_assert(sizeof(struct record_header) == RECORD_HEADER_SIZE, "records are 8-byte aligned");

/* The high half of `first`: key size (24 bits), kind (4), flags (4, all zero in this version). */
static inline uint32_t record_word(enum record_kind kind, uint64_t key_size)
{
    assert(key_size < UINT64_C(1) << 24);
    return (uint32_t)key_size | (uint32_t)kind << 24;
}
static inline enum record_kind record_word_kind(uint32_t word)
{
    return (enum record_kind)(word >> 24 & 15);
}
static inline uint32_t record_word_key_size(uint32_t word)
{
    return word & 0xffffff;
}
static inline uint64_t record_size(uint64_t key_size, uint64_t value_size)
{
    return RECORD_HEADER_SIZE + padded(key_size) + padded(value_size);
}

/* First in every segment file. `check` is stored last: a header is whole or it is none. */
struct segment_header {
    uint64_t magic;
    uint64_t number;
    uint64_t predecessor_end; // address at which the log goes on here; 0 in the first segment
    uint64_t size;            // bytes of the file
    uint64_t map_id[2];
    uint64_t position; // bytes of all segments before this one, since the map was made, up to their ends
    odm__u64 check;    // XXH3-64 of the 56 bytes before, seeded with the map's seed
};
_Static_assert(sizeof(struct segment_header) == SEGMENT_HEADER_SIZE, "records start at 64");
#define SEGMENT_MAGIC UINT64_C(0x316765732d6d646f) // "odm-seg1"

/* ---- slots and chunks --------------------------------------------------------------------------------------------- */

/* A slot: tag (16 bits) | spare (3) | segment number modulo 2^16 (16) | offset / 8 (29). 0 is empty. */
enum { SLOT_TAG_SHIFT = 48 };
#define SLOT_ADDRESS_MASK ((UINT64_C(1) << 45) - 1)
#define SLOT_EMPTY UINT64_C(0)
#define SLOT_TOMBSTONE (UINT64_C(1) << SLOT_TAG_SHIFT) // a tag of 1 without an address

static inline uint64_t slot_make(uint64_t tag, uint64_t address)
{
    uint64_t number = address_number(address) & ((UINT64_C(1) << SLOT_NUMBER_BITS) - 1);
    uint64_t offset = address & ((UINT64_C(1) << ADDRESS_OFFSET_BITS) - 1);
    return tag << SLOT_TAG_SHIFT | number << ADDRESS_OFFSET_BITS | offset;
}
static inline uint64_t slot_number(uint64_t slot)
{
    return slot >> ADDRESS_OFFSET_BITS & 0xffff;
}
static inline uint64_t slot_offset(uint64_t slot)
{
    return (slot & ((UINT64_C(1) << ADDRESS_OFFSET_BITS) - 1)) * ADDRESS_UNIT;
}

/* A directory word: big (bit 63) | location in 64-byte units (35 bits, from bit 28) | how much bigger (5, from 13) or smaller
 * (5, from 8) than usual the chunk is, as powers of two | depth (8). A chunk: its slots, then as many cold words. The high
 * bit keeps big chunks off the fast path; and whatever is in it, a word without it never means more slots than usual. */
enum { WORD_LOCATION_SHIFT = 28, WORD_LOCATION_BITS = 35 };
enum { WORD_BIGGER_SHIFT = 13, WORD_SMALLER_SHIFT = 8, INDEX_UNIT = 64 };
#define WORD_BIG (UINT64_C(1) << 63)

static inline uint64_t word_make(uint64_t location, unsigned slot_bits, unsigned depth)
{
    uint64_t bigger = slot_bits > CHUNK_SLOT_BITS ? slot_bits - CHUNK_SLOT_BITS : 0;
    uint64_t smaller = slot_bits < CHUNK_SLOT_BITS ? CHUNK_SLOT_BITS - slot_bits : 0;
    return (bigger != 0 ? WORD_BIG : 0) | location << WORD_LOCATION_SHIFT | bigger << WORD_BIGGER_SHIFT |
           smaller << WORD_SMALLER_SHIFT | depth;
}
static inline uint64_t word_location(uint64_t word)
{
    return (word & ~WORD_BIG) >> WORD_LOCATION_SHIFT;
}
static inline unsigned word_smaller(uint64_t word)
{
    return word >> WORD_SMALLER_SHIFT & 31;
}
static inline unsigned word_bigger(uint64_t word)
{
    return word >> WORD_BIGGER_SHIFT & 31;
}
/* Of a word that is known to be sane. */
static inline unsigned word_bits(uint64_t word)
{
    return CHUNK_SLOT_BITS - word_smaller(word) + word_bigger(word);
}
static inline unsigned word_depth(uint64_t word)
{
    return word & 0xff;
}
static inline uint64_t chunk_units(unsigned slot_bits)
{
    return ((UINT64_C(1) << slot_bits) * (SLOT_SIZE + COLD_SIZE) + INDEX_UNIT - 1) / INDEX_UNIT;
}

/* A root: location of the directory in 64-byte units << 8 | its depth. A directory of depth g: 2^g words, then 2^g used
 * counts of 4 bytes (slots of the chunk that are not empty, kept at the first of the chunk's words). */
static inline uint64_t root_make(uint64_t location, unsigned depth)
{
    return location << 8 | depth;
}
static inline uint64_t root_location(uint64_t root)
{
    return root >> 8;
}
static inline unsigned root_depth(uint64_t root)
{
    return root & 0xff;
}
static inline uint64_t directory_units(unsigned depth)
{
    return ((UINT64_C(1) << depth) * (8 + 4) + INDEX_UNIT - 1) / INDEX_UNIT;
}
enum { DIRECTORY_DEPTH_MIN = 1, DIRECTORY_DEPTH_MAX = 30 };

/* ---- the index file ----------------------------------------------------------------------------------------------- */

enum change_kind { CHANGE_NONE = 0, CHANGE_REPLACE = 1, CHANGE_SPLIT = 2 };

/* What a stripe's owner is about to store in its directory: repaired by storing it again. `kind` is stored last and cleared
 * first. */
struct change {
    odm__u64 kind;
    uint64_t first;    // first word of the old chunk
    uint64_t old;      // the old word
    uint64_t left;     // for the lower half of its words (all of them, if replaced)
    uint64_t right;    // for the upper half
    uint64_t spare[2]; // the stripe's spare chunks afterwards
};

struct stripe {
    _Alignas(CACHE_LINE) odm__u64 root;  // read by every get
    _Alignas(CACHE_LINE) odm__u64 count; // this line and the next: only the owner of the stripe's lock stores
    odm__u64 live_bytes;
    uint64_t spare[2];        // free chunks: location << 1 | never published
    uint64_t spare_directory; // a root that was reserved but not yet used
    odm__u64 splits;
    _Alignas(CACHE_LINE) struct change change;
    _Alignas(CACHE_LINE) uint64_t reserved[8];
};
_Static_assert(sizeof(struct stripe) == 256, "16 stripes fill a page");

struct index_header {
    uint64_t magic;
    uint32_t format;
    uint32_t geometry;
    uint64_t map_id[2];
    uint32_t stripes;
    uint32_t recovery_kind;
    uint64_t recovery_records;
    uint64_t recovery_bytes_cut;
    uint64_t recovery_from;
    odm__u64 stamp[2]; // the last 16 bytes of the file repeat it
    uint64_t reserved[5];
    odm__u64 size; // bytes that are backed by the disk; under the grow lock
    odm__u64 next; // first free unit of 64 bytes
    uint64_t reserved_2[6];
    _Alignas(CACHE_LINE) odm__u64 recycled; // raised before memory or a segment number is used again
    _Alignas(CACHE_LINE) odm__u64 head;     // oldest record
    odm__u32 superseded;                    // 1: a newer index lies under this one's name
};
#define INDEX_MAGIC UINT64_C(0x317864692d6d646f) // "odm-idx1"
enum { INDEX_STRIPES_OFFSET = PAGE };
_Static_assert(sizeof(struct index_header) <= PAGE, "the stripes follow in the second page");

/* ---- the lock file: mapped by writers only; all zeros is valid and unlocked ---------------------------------------- */

/* A lock word: waiters (bit 0) | attach number (11) | turns (20, counts the owners) | incarnation of the number (32).
 * Number 0: free. The futex is the low half. */
enum { ATTACH_NUMBER_MAX = 2047 };

/* Two are kept for removes and compaction; a put brings its own before it takes one. */
enum { SPARES_KEPT = 2, SPARES_MAX = 3 };

struct lock_line {
    _Alignas(CACHE_LINE) odm__u64 word;
    odm__u32 dirty; // 1: an owner died, and what it left is not yet mended. Only the owner stores
};

/* A write in flight. `kind` is stored last and cleared first. */
struct intent {
    odm__u64 kind; // enum record_kind
    odm__u64 address;
    uint64_t count; // what the stripe's count and live bytes are once the write has happened
    uint64_t live_bytes;
};

/* Which files, on which mount, since which boot: if all of it is so still, the page cache has survived. */
struct marks {
    uint64_t boot[2];
    uint64_t device;
    uint64_t index_inode;
    uint64_t index_birth_ns;
    uint64_t lock_inode;
    uint64_t lock_birth_ns;
    uint64_t directory_inode;
    uint64_t directory_birth_ns;
    uint64_t mount_id;
};

struct lock_file {
    struct marks marks;
    _Alignas(CACHE_LINE) odm__u64 next_number; // segment numbers: taken by one atomic add
    odm__u64 attach_hint;
    odm__u64 lock_waits;
    odm__u64 compacted_bytes;
    odm__u64 synced_number; // segment in which the last sync ended
    odm__u32 sync_failed;
    odm__u32 no_space; // 1: a try to make a spare failed, and there are fewer than are kept
    _Alignas(CACHE_LINE) odm__u64 spare[SPARES_MAX]; // number << 20 | size / 4096; under the append lock
    struct lock_line append;
    struct lock_line grow;
    struct lock_line sync;
    struct lock_line compact;
    odm__u64 compacted_to;          // records below it have been judged, and moved if live; under the compact lock
    odm__u64 emptied_to;            // the begin of a segment: nothing below it is live; under the compact lock
    odm__u64 compaction_stopped_at; // a damaged record that compaction does not pass, or 0; under the compact lock
    odm__u32 replacing;             // 1: the index is being replaced; under the compact lock and all stripes'
    // The tail and the intents share one page: even an old version of it is a state the map was in.
    _Alignas(PAGE) odm__u64 tail; // under the append lock
    _Alignas(CACHE_LINE) unsigned char intents[PAGE - CACHE_LINE];
    _Alignas(PAGE) struct lock_line stripes[64];
    _Alignas(PAGE) odm__u32 incarnations[ATTACH_NUMBER_MAX + 1];
};
_Static_assert(sizeof(struct lock_file) == 5 * PAGE, "marks and locks, tail and intents, stripes, incarnations");

/* A line for each intent where there is room for that. */
static inline struct intent *intent_of(struct lock_file *lock, uint32_t stripes, uint32_t stripe)
{
    size_t stride = stripes <= 32 ? CACHE_LINE : sizeof(struct intent);
    return (struct intent *)(void *)(lock->intents + stripe * stride);
}

/* ---- meta --------------------------------------------------------------------------------------------------------- */

/* Written once, when the map is made. */
struct meta_fixed {
    uint64_t magic;
    uint32_t byte_order;
    uint32_t format;
    uint64_t features_incompatible; // an unknown bit: refuse to open
    uint64_t features_readable;     // an unknown bit: open for reading only
    uint64_t features_compatible;   // an unknown bit: no matter
    uint64_t map_id[2];
    uint64_t seed;
    uint64_t hash_of_text; // of META_HASHED_TEXT with the seed: another hash function is refused
    uint32_t geometry;
    uint32_t stripes;
    uint64_t capacity;
    uint64_t capacity_bytes;
    uint32_t has_schema;
    uint32_t schema_size;
    uint8_t schema[1024];
    uint64_t check; // XXH3-64 of all before
};
#define META_MAGIC UINT64_C(0x3174656d2d6d646f) // "odm-met1"
#define META_HASHED_TEXT "opendiskmap"

/* Two, written in turn under the sync lock; the one with the higher sequence counts. */
struct meta_slot {
    uint64_t sequence;
    uint64_t head;
    uint64_t watermark;
    uint64_t stamp[2];
    uint64_t failed_boot[2]; // the boot in which a sync failed, or 0
    uint64_t reserved;
    uint64_t check; // XXH3-64 of all before, seeded with the map's seed
};

static inline bool stamp_is_none(const uint64_t stamp[2])
{
    return (stamp[0] | stamp[1]) == 0;
}

enum { META_SLOT_OFFSET_0 = PAGE, META_SLOT_OFFSET_1 = 2 * PAGE, META_SIZE = 3 * PAGE };
_Static_assert(sizeof(struct meta_fixed) <= PAGE, "a slot has a page of its own");

#endif
