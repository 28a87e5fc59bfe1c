/* memory_limit.h - less memory for this process, as if the machine had no more: by a control group, version 2 or 1. */
#ifndef BENCH_MEMORY_LIMIT_H
#define BENCH_MEMORY_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

/* From here on what this process allocates, and the page cache it fills, are limited together. What it has already stays
 * outside of the limit. False: the machine has no such groups, or we may not make one. */
bool memory_limit_enter(uint64_t bytes);

/* The end of that. */
void memory_limit_leave(void);

/* Writes all files of a directory to the disk and lets go of their pages, which would else be used without being counted. */
void memory_limit_evict(const char *directory);

#endif
