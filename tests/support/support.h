/* support.h - what the test files share: directories that go away, maps by strings and numbers, children, damaged files.
 *
 * Whatever fails here fails the running test, and names the caller's line. In a child made by fork use must(), because a
 * Criterion assertion belongs to the process of the test.
 *
 * Suites that make directories end with .fini = remove_temp_directories. What a killed test leaves behind is removed by the
 * next run of any test.
 */
#ifndef ODM_TEST_SUPPORT_H
#define ODM_TEST_SUPPORT_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include "opendiskmap.h"
#include "os.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

/* ---- directories and files ---------------------------------------------------------------------------------------- */

/* A new empty directory on /dev/shm, else in $TMPDIR or /tmp. It is removed with all that is in it when the test ends. */
const char *temp_directory(void);
/* "directory/name". Valid until the process ends. */
const char *path_of(const char *directory, const char *name);
/* A name that is not taken, in a new directory of its own: for a map to be made. */
const char *temp_map_path(void);
void remove_temp_directories(void);

/* Removes a file or a whole directory; missing is fine. */
void remove_tree(const char *path);
/* Copies a directory with its files and subdirectories, byte by byte. `to` must not be there. */
void copy_tree(const char *from, const char *to);
/* A number that changes when a name, a size or a byte of the files below `path` does. 1 if there is no such path. */
uint64_t tree_digest(const char *path);

void read_file_at(const char *path, uint64_t offset, void *bytes, size_t size);
void write_file_at(const char *path, uint64_t offset, const void *bytes, size_t size);
void flip_bits_at(const char *path, uint64_t offset, unsigned char bits);
void make_file(const char *path, const void *bytes, size_t size);
uint64_t file_size(const char *path);
bool file_exists(const char *path);
/* Names in a directory, without "." and "..". */
size_t file_count(const char *path);
/* Descriptors this process has open. */
size_t descriptor_count(void);

/* ---- maps --------------------------------------------------------------------------------------------------------- */

/* Fails the test unless the status is the one expected; shows both by name. */
#define expect_status(actual, expected) expect_status_at(__FILE__, __LINE__, #actual, actual, expected)
void expect_status_at(const char *file, int line, const char *what, odm_status actual, odm_status expected);
#define ok(call) expect_status(call, ODM_OK)

/* Opens, or makes, a map. options: an odm_options initialiser without the braces, such as `.stripes = 4`. */
#define open_map(path, ...) \
    open_map_at(__FILE__, __LINE__, path, &(odm_options){.struct_size = sizeof(odm_options), ##__VA_ARGS__})
odm_map *open_map_at(const char *file, int line, const char *path, const odm_options *options);
/* The status of an open that is expected to fail; closes the map if it does not. error may be NULL. */
#define try_open(path, error, ...) \
    try_open_with(path, error, &(odm_options){.struct_size = sizeof(odm_options), ##__VA_ARGS__})
odm_status try_open_with(const char *path, odm_error *error, const odm_options *options);
odm_map *open_in_memory(void);

/* Strings without their terminating zero. */
#define put(map, key, value) put_at(__FILE__, __LINE__, map, key, value)
#define expect_value(map, key, value) expect_value_at(__FILE__, __LINE__, map, key, value)
#define expect_absent(map, key) expect_absent_at(__FILE__, __LINE__, map, key)
void put_at(const char *file, int line, odm_map *map, const char *key, const char *value);
void expect_value_at(const char *file, int line, odm_map *map, const char *key, const char *value);
void expect_absent_at(const char *file, int line, odm_map *map, const char *key);

/* Keys "key 17" with values "value 17 of 3" for the round 3; from <= number < to. */
#define put_numbers(map, from, to, round) put_numbers_at(__FILE__, __LINE__, map, from, to, round)
#define remove_numbers(map, from, to) remove_numbers_at(__FILE__, __LINE__, map, from, to)
#define expect_numbers(map, from, to, round) expect_numbers_at(__FILE__, __LINE__, map, from, to, round)
#define expect_no_numbers(map, from, to) expect_no_numbers_at(__FILE__, __LINE__, map, from, to)
void put_numbers_at(const char *file, int line, odm_map *map, unsigned from, unsigned to, unsigned round);
void remove_numbers_at(const char *file, int line, odm_map *map, unsigned from, unsigned to);
void expect_numbers_at(const char *file, int line, odm_map *map, unsigned from, unsigned to, unsigned round);
void expect_no_numbers_at(const char *file, int line, odm_map *map, unsigned from, unsigned to);
enum { NUMBER_TEXT_SIZE = 48 };
size_t number_key(unsigned number, char text[NUMBER_TEXT_SIZE]);
size_t number_value(unsigned number, unsigned round, char text[NUMBER_TEXT_SIZE]);

odm_statistics statistics_of(odm_map *map);
/* odm_last_error. */
odm_error last_error_of(odm_map *map);
/* Whether a message names a thing. */
#define expect_message(error, part) \
    cr_assert(strstr((error).message, part) != NULL, "the message is \"%s\", without \"%s\"", (error).message, part)

/* From here on this process, and its children, give no space back as they write: head stays where it is, and the log holds all
 * that was ever written. */
void keep_whole_log(void);
/* Leaves the index as big as it is: the next odm_compact moves nothing, and only builds a smaller one. */
void compact_all_but_the_index(odm_map *map);

/* ---- processes and threads ---------------------------------------------------------------------------------------- */

/* For children made by fork: ends the process with 1 and a line on stderr unless the condition holds. */
#define must(condition)                                                                         \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: in a child: not so: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                                           \
        }                                                                                       \
    } while (0)

/* Runs body(context) in a child, which then ends with 0. */
pid_t start_child(void (*body)(void *context), void *context);
/* Fails the test unless the child ended with 0. */
#define expect_child_succeeds(child) expect_child_succeeds_at(__FILE__, __LINE__, child)
void expect_child_succeeds_at(const char *file, int line, pid_t child);
/* Kills it and waits until it is gone. */
void kill_child(pid_t child);
/* Stops it and waits until it is stopped. */
void stop_child(pid_t child);

/* Shared memory of zeros, for a test and its children. */
void *shared_memory(size_t size);
/* Waits until a word of shared memory has a value; gives up, and ends the process, after a minute. */
void wait_for(const _Atomic int *word, int value);

/* Runs body(context, 0) ... body(context, count - 1) in threads of their own, and waits for all. */
void run_threads(unsigned count, void (*body)(void *context, unsigned number), void *context);

/* ---- system calls ------------------------------------------------------------------------------------------------- */

/* The table as it was before any test changed it: what a replacement calls to do the real thing. */
const struct odm__os *real_os(void);
/* For odm__os.now_ns: it is ten seconds later each time somebody looks. */
uint64_t hasty_clock(void);

#endif
