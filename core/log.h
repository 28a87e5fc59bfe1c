/* log.h - the log: records, appended in one order to segment files.
 *
 * Calls file.h and lock.h. Knows nothing of keys' places in the index, and nothing of what is live.
 *
 * What always holds:
 *   1. A byte of the log is given to one record once, and a whole record never changes: reading needs no lock.
 *   2. Below the tail there are whole records, fillers, and reserved ones that an intent names. Nothing else.
 *   3. Of all segments above the tail's at most one has a whole header, and only while the append lock is held or its
 *      owner is dead: that one's first record is then where the tail belongs.
 *   4. A record's LSN is the address it was first written at. Copies keep it, and come later.
 *
 * Threads: a log belongs to a process and may be used by all its threads; a writer belongs to one handle.
 */
#ifndef ODM_LOG_H
#define ODM_LOG_H

#include <pthread.h>
#include <stdbool.h>

#include "file.h"
#include "format.h"
#include "lock.h"

/* A segment file as this process maps it. */
struct segment {
    struct segment *next;
    uint64_t number;
    uint64_t size;             // bytes
    const unsigned char *base; // read-only
    unsigned char *writable;   // the same bytes, or NULL while no writer needs them
    unsigned references;
    unsigned writers;
    unsigned in_order; // how many read it record after record
};

struct log {
    struct directory directory;
    pthread_mutex_t mutex; // guards segments and their counts, and what follows
    struct segment *segments;
    uint64_t memory_bytes; // that this process may use; 0: not asked yet
    bool outgrown;         // that memory: see odm__log_expect_gets
    const struct meta_fixed *fixed;
    struct lock_file *lock; // NULL if this process only reads
    bool writable;
};

odm_status odm__log_open(struct log *log, const struct directory *map_directory, const struct meta_fixed *fixed,
                         bool writable, bool create, odm_error *error);
void odm__log_close(struct log *log);

/* ---- segments ----------------------------------------------------------------------------------------------------- */

/* Takes a reference on a mapped segment, mapping it if nobody has. ODM_NOT_FOUND, without a message, if there is no such
 * file. After the last byte of its file SEGMENT_GUARD more bytes can be read, so that a header and a key may be read before
 * their end is checked. */
odm_status odm__log_segment(struct log *log, uint64_t number, struct segment **segment, odm_error *error);
void odm__log_release(struct log *log, struct segment *segment);
enum { SEGMENT_GUARD = 16 * 1024 * 1024 + PAGE };

/* Whether its header is that of this segment of this map; a spare's is not. */
bool odm__segment_is_whole(const struct log *log, const struct segment *segment);
/* The header of a copy of it, which is to follow another end, and other bytes. */
void odm__segment_header(const struct log *log, const struct segment *segment, uint64_t predecessor_end,
                         uint64_t position, struct segment_header *header);
/* What stands before an address since the map was made: bytes. The segment's header must be whole. */
uint64_t odm__segment_position(const struct segment *segment, uint64_t address);
/* What stands before an address since the map was made, in bytes; false if its segment is gone. */
bool odm__log_position(struct log *log, uint64_t address, uint64_t *position);
/* Bytes from head to tail; 0 if head's segment is gone. */
uint64_t odm__log_bytes(struct log *log, uint64_t head, uint64_t tail);

/* Bytes of segments that are still mapped although they lie below head. */
uint64_t odm__log_unlinked_bytes(struct log *log, uint64_t head);

/* ---- what the kernel reads ahead ----------------------------------------------------------------------------------- */

/* Gets are to come; live_bytes, count: of the records they may ask for. Around what one of them touches the kernel reads more,
 * so that a map that was not in memory soon is. If memory can not hold the map, that throws out what others need: then
 * the kernel is told to read no more than what is touched. Not if records are long: a get would wait for each page of one. */
void odm__log_expect_gets(struct log *log, uint64_t live_bytes, uint64_t count);

/* Who reads a segment record after record says so before and after: there the kernel reads ahead in any case. */
void odm__log_begin_in_order(struct log *log, struct segment *segment);
void odm__log_end_in_order(struct log *log, struct segment *segment);

/* ---- reading ------------------------------------------------------------------------------------------------------ */

struct record {
    enum record_kind kind;
    uint64_t address;
    uint64_t lsn;
    uint64_t size; // bytes, all of it
    const unsigned char *key;
    uint64_t key_size;
    const unsigned char *value;
    uint64_t value_size;
};

enum record_check { CHECK_NOTHING, CHECK_HEADER, CHECK_ALL };
enum record_state { RECORD_WHOLE, RECORD_ABSENT, RECORD_BAD };

/* Reads what stands at an address. RECORD_ABSENT: bytes 0-7 are zero. RECORD_BAD: impossible, out of the segment, or a check
 * fails. A record that is reserved is whole as such: record->kind tells. */
enum record_state odm__log_read(const struct log *log, const struct segment *segment, uint64_t address,
                                enum record_check check, struct record *record);

/* After a record whose header is damaged: the next place at which a whole header stands, or the end (UINT64_MAX: that of the
 * file). */
uint64_t odm__log_search(const struct log *log, const struct segment *segment, uint64_t address, uint64_t end);

/* The name of a segment file, for messages. */
enum { SEGMENT_NAME_SIZE = 24 };
void odm__segment_name(uint64_t number, char name[SEGMENT_NAME_SIZE]);

/* ---- walking: the segments as their headers chain them ------------------------------------------------------------- */

struct chain_link {
    uint64_t number;
    uint64_t size;            // bytes of the file
    uint64_t predecessor_end; // meaningful if whole
    uint64_t position;        // likewise
    bool whole;               // its header passes its check
    bool in_log;              // for who walks the log: it belongs to it
};
struct chain {
    struct chain_link *links; // ascending by number
    size_t count;
    uint64_t number_max; // the highest number that any file has, whatever is in it
};

/* Lists the segment files from head on. */
odm_status odm__log_chain(const struct log *log, uint64_t head, struct chain *chain, odm_error *error);
void odm__chain_free(struct chain *chain);
/* Where the log leaves the segment `number`, and the first record after it, as the header of its successor says: for who
 * follows the log of a map that is open, where the tail lies beyond. ODM_E_CORRUPT if no segment up to the tail's follows. */
odm_status odm__log_successor(struct log *log, uint64_t number, uint64_t tail, uint64_t *end, uint64_t *first,
                              odm_error *error);
/* Where the log leaves a segment: the first end at or after `address` that a later segment names, and that segment's first
 * record. *end is UINT64_MAX if no segment follows. */
void odm__chain_next(const struct chain *chain, uint64_t address, uint64_t *end, uint64_t *first);

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* What a record is for decides which of the room that is left on a full disk it may take. */
enum append_class { APPEND_PUT, APPEND_REMOVE, APPEND_MOVE };

struct append {
    enum record_kind kind;
    enum append_class class;
    uint64_t key_size;
    uint64_t value_size;
    uint64_t lsn;    // 0: the address the record gets
    uint32_t stripe; // the intent is noted in these
    uint32_t stripe_count;
    uint64_t count;       // of the stripe, once the record is applied
    uint64_t live_bytes;  // likewise
    uint64_t address;     // out
    unsigned char *place; // out: where to write
};

/* A handle's way to append. */
struct log_writer {
    struct log *log;
    const struct lock_client *client;
    struct segment *tail;  // writable, or NULL
    struct segment *spare; // likewise: the one to roll over to
    uint32_t wait_ms;
    uint64_t sealed;             // number of a segment this writer has sealed and not yet looked after, or 0
    uint64_t passed[SPARES_MAX]; // numbers of spares that were too small when it did so, or 0
    uint64_t appended_bytes;     // by this writer, ever
    uint64_t segments;           // that it has appended to, ever
};

/* Reserves room at the tail and notes the intent, rolling over to another segment if need be. head: the map's, for the span
 * of segment numbers and their size. On failure nothing is noted.
 * The caller holds the locks of the stripes. */
odm_status odm__log_reserve(struct log_writer *writer, uint64_t head, struct append *append, odm_error *error);

/* Goes on in a new segment, if anything stands in the tail's; anew: whatever stands there. *first: where its first record goes,
 * or the tail as it was. The caller holds nothing. */
odm_status odm__log_roll(struct log_writer *writer, uint64_t head, bool anew, uint64_t *first, odm_error *error);

/* Fills reserved room: value, key, check B, and last, in one store, what makes it a record. */
void odm__log_complete(const struct log *log, const struct append *append, const void *key, const void *value);

/* Turns reserved room into a filler. */
odm_status odm__log_fill(struct log_writer *writer, uint64_t address, odm_error *error);

/* Takes and gives back the append lock, so that what a dead owner of it left is mended. */
odm_status odm__log_settle_tail(struct log_writer *writer, odm_error *error);

/* After a rollover, while holding nothing: starts write-back of what was sealed and makes spares. Failure to make one is
 * noted in the lock file, and no failure of the caller. */
void odm__log_after_rollover(struct log_writer *writer, uint64_t head);

/* Lets go of the segments a writer holds. */
void odm__log_writer_close(struct log_writer *writer);

/* Makes a segment that goes on where `predecessor_end` ends, and syncs its header. For recovery. position: the bytes of the
 * log before it since the map was made; log_bytes: those since head. */
odm_status odm__log_begin(struct log *log, uint64_t number, uint64_t predecessor_end, uint64_t position,
                          uint64_t log_bytes, odm_error *error);
/* Makes a file to be a spare, and the word for it; a smaller one than it should be if the disk has no room and `shrink`. ODM_EXISTS, without a message, if the name is taken. */
odm_status odm__log_make_spare(struct log *log, uint64_t number, uint64_t position, uint64_t log_bytes,
                               uint64_t record_bytes, bool shrink, uint64_t *spare, odm_error *error);
/* Removes the files of segments that lie below head: those from `old_head` on; 0: whatever is in the directory. A file that
 * can not be removed goes the next time. */
void odm__log_unlink_below(struct log *log, uint64_t old_head, uint64_t head);
/* Syncs the bytes of a segment. */
odm_status odm__log_sync_segment(struct log *log, uint64_t number, odm_error *error);

/* Spares: a spare word is number << 20 | size / 4096. */
static inline uint64_t spare_number(uint64_t spare)
{
    return spare >> 20;
}
static inline uint64_t spare_size(uint64_t spare)
{
    return (spare & 0xfffff) * PAGE;
}

#endif
