/* map.h - a handle, and the operations on one key.
 *
 * Calls reader.h, index.h, log.h, lock.h, store.h. Knows both keys' places and records' bytes, and the write intents that
 * join the two.
 *
 * What always holds: while a stripe's intent is set, its owner has reserved the record it names and has not yet applied it
 * to the index; whoever takes the stripe from the dead applies it, or makes it a filler. So a write happened or it did not.
 *
 * Threads: a handle is used by one thread at a time.
 */
#ifndef ODM_MAP_H
#define ODM_MAP_H

#include "log.h"
#include "opendiskmap.h"
#include "reader.h"
#include "store.h"

/* A handle's part in giving space back; of compact.c alone. */
struct compaction {
    uint64_t look_at;        // bytes appended by the handle, at which it looks whether there is something to do
    uint64_t measure_at;     // likewise, at which it measures again
    uint64_t looked_at;      // likewise, when it last did
    uint64_t segments_seen;  // the writer's, when it last did
    bool on;                 // there is so much dead that writers have to work
    double rate;             // bytes to look through for each byte appended
    double credit;           // bytes to look through
    struct segment *segment; // being looked through, or NULL
    uint64_t end;            // where the log leaves it
    uint64_t next;           // and where it goes on
    uint64_t head;           // whose position is known
    uint64_t head_position;
};

struct odm_map {
    struct reader reader;
    struct store *store;
    struct log_writer writer;
    struct compaction compaction;
    uint32_t flags;
    uint32_t wait_ms;
    struct odm_iter *iters; // open walks
    struct job *job;        // long work that is under way, or NULL
    uint64_t job_count;
    odm_error error; // detail of the last negative status
};

odm_status odm__map_open(struct store *store, uint32_t flags, uint32_t wait_ms, struct odm_map **result,
                         odm_error *error);
void odm__map_close(struct odm_map *map);

/* What a write asks of the key as it is. */
enum condition { ALWAYS, IF_ABSENT, IF_VERSION };

struct write {
    const void *key;
    size_t key_size;
    const void *value;
    size_t value_size;
    enum record_kind kind; // put or remove
    enum condition condition;
    uint64_t version; // for IF_VERSION
};

/* ODM_OK; ODM_NOT_FOUND (a remove); ODM_EXISTS (IF_ABSENT); ODM_CONFLICT (IF_VERSION); an error. */
odm_status odm__map_write(struct odm_map *map, const struct write *write);
odm_status odm__map_clear(struct odm_map *map);

/* Returns when every reservation below an address is made good or void. */
odm_status odm__map_settle(struct odm_map *map, uint64_t address);

/* Takes the locks of all stripes, so that nobody writes; or none. */
odm_status odm__map_take_all(struct odm_map *map);
void odm__map_give_all(struct odm_map *map);

/* Writes a live record anew at the tail, with its LSN, if it is still the one its key's slot names. The record lies below the
 * tail's segment, and its bytes stay mapped during the call. */
odm_status odm__map_move(struct odm_map *map, const struct record *record, uint64_t hash);

/* Takes a stripe's lock, mending what a dead owner left, and gives it back. */
odm_status odm__map_take_stripe(struct odm_map *map, uint32_t number);
void odm__map_give_stripe(struct odm_map *map, uint32_t number);

/* Finishes or takes back a replacement of the index whose owner died over it. The caller owns no stripe that he left. */
odm_status odm__map_mend_replacement(struct odm_map *map);

/* Takes and gives back every lock, so that whatever the dead have left in the log's tail and in the stripes is mended. */
odm_status odm__map_mend(struct odm_map *map);

#endif
