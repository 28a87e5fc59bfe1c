/* image.h - a map's directory held in memory: taken, damaged, written out again; and a kernel that lies about it.
 *
 * The lies: another boot, another mount, and files that pass for those they were copied from, so that the copy of a map is
 * believed as if it were the map itself. They begin with lies_begin and hold for children made by fork.
 */
#ifndef ODM_TEST_IMAGE_H
#define ODM_TEST_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os.h"

struct image_file {
    char name[64]; // from the map's directory on: "meta", "log/00000000001"
    unsigned char *bytes;
    uint64_t size;
    struct file_identity identity;
};
struct image {
    struct image_file *files; // ordered by name
    size_t count;
    struct file_identity identity; // of the directory
};

/* Images are taken from and written to the kernel that odm__os was when the program began, or when this was called. */
void image_kernel_changed(void);

struct image image_take(const char *path);
void image_free(struct image *image);
struct image_file *image_find(const struct image *image, const char *name);
/* Takes a file out. */
void image_drop(struct image *image, const char *name);
/* A file's bytes become these many; new ones are zero. */
void image_resize(struct image_file *file, uint64_t size);
/* Writes all files to a directory that must not be there yet, or be empty. */
void image_write(const struct image *image, const char *path);
/* What differs between the image and the directory, names, sizes, bytes and which files they are; NULL if nothing. */
const char *image_difference(const struct image *image, const char *path);

void lies_begin(void);
void lies_end(void);
/* 0: the truth. */
void lie_about_boot(uint64_t boot);
void lie_about_mount(uint64_t mount);
/* From now on the files at `path`, an image written there, pass for those it was taken from. */
void lie_about_files(const struct image *image, const char *path);
/* Syncs do nothing: for tests in which no power is lost. */
void lie_about_syncs(void);

/* This process kills itself before its n-th system call from now on (the first is 1); 0: never. */
void die_before_call(size_t n);
size_t calls_so_far(void);

#endif
