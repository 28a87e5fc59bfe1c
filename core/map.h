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

struct odm_map {
    struct reader reader;
    struct store *store;
    struct log_writer writer;
    uint32_t flags;
    uint32_t wait_ms;
    struct odm_iter *iters; // open walks
    odm_error error;        // detail of the last negative status
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

/* After writes, while holding nothing: what a rollover has left to do. */
void odm__map_after_writes(struct odm_map *map);

#endif
