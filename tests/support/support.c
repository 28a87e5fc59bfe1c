/* support.c - what the test files share. Contract: support.h. */
#include "support.h"

#include "compact.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* ---- the table of system calls ------------------------------------------------------------------------------------ */

static struct odm__os os_at_start;

__attribute__((constructor)) static void remember_os(void)
{
    os_at_start = odm__os;
}

const struct odm__os *real_os(void)
{
    return &os_at_start;
}

uint64_t hasty_clock(void)
{
    static uint64_t told_ns;
    return told_ns += 10 * UINT64_C(1000000000);
}

/* ---- directories that go away ------------------------------------------------------------------------------------- */

#define TEMP_PREFIX "odm-test."

/* Each has a lock that ends with the process: a directory without one was left by a test that was killed. */
static struct temp_directory {
    struct temp_directory *next;
    pid_t owner;
    int lock;
    char path[512];
} * temp_directories;

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path) != 0 && errno != ENOENT ? -1 : 0;
}

void remove_tree(const char *path)
{
    struct stat status;
    if (lstat(path, &status) != 0) return;
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *temp_root(void)
{
    if (access("/dev/shm", W_OK) == 0) return "/dev/shm";
    const char *root = getenv("TMPDIR");
    return root != NULL && root[0] != '\0' ? root : "/tmp";
}

/* Removes what killed tests have left. */
static void sweep(const char *root)
{
    DIR *listing = opendir(root);
    if (listing == NULL) return;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        if (strncmp(entry->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)) != 0) continue;
        int fd = openat(dirfd(listing), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            char path[512];
            snprintf(path, sizeof path, "%s/%s", root, entry->d_name);
            remove_tree(path);
        }
        close(fd);
    }
    closedir(listing);
}

void remove_temp_directories(void)
{
    while (temp_directories != NULL) {
        struct temp_directory *directory = temp_directories;
        temp_directories = directory->next;
        if (directory->owner == getpid()) remove_tree(directory->path);
        close(directory->lock);
        free(directory);
    }
}

const char *temp_directory(void)
{
    const char *root = temp_root();
    if (temp_directories == NULL) {
        sweep(root);
        atexit(remove_temp_directories); // For suites that forgot it.
    }
    struct temp_directory *directory = calloc(1, sizeof *directory);
    cr_assert_not_null(directory);
    // Locked before it has a name that a sweep looks at.
    char unlocked[sizeof directory->path];
    snprintf(unlocked, sizeof unlocked, "%s/odm-new.XXXXXX", root);
    cr_assert_not_null(mkdtemp(unlocked), "%s: %s", unlocked, strerror(errno));
    directory->lock = open(unlocked, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(flock(directory->lock, LOCK_SH), 0, "%s: %s", unlocked, strerror(errno));
    snprintf(directory->path, sizeof directory->path, "%s/" TEMP_PREFIX "%s", root, strrchr(unlocked, '.') + 1);
    cr_assert_eq(rename(unlocked, directory->path), 0, "%s: %s", directory->path, strerror(errno));
    cr_assert_eq(chmod(directory->path, 0755), 0);
    directory->owner = getpid();
    directory->next = temp_directories;
    temp_directories = directory;
    return directory->path;
}

/* A string that lives as long as the process. */
static const char *keep(const char *format, ...)
{
    static struct kept {
        struct kept *next;
        char text[600];
    } * all;
    struct kept *kept = calloc(1, sizeof *kept);
    cr_assert_not_null(kept);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(kept->text, sizeof kept->text, format, arguments);
    va_end(arguments);
    kept->next = all;
    all = kept;
    return kept->text;
}

const char *path_of(const char *directory, const char *name)
{
    return keep("%s/%s", directory, name);
}

const char *temp_map_path(void)
{
    return path_of(temp_directory(), "map");
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);
    cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
    return fd;
}

void read_file_at(const char *path, uint64_t offset, void *bytes, size_t size)
{
    int fd = open_file(path, O_RDONLY);
    cr_assert_eq(pread(fd, bytes, size, (off_t)offset), (ssize_t)size, "%s is too short", path);
    close(fd);
}

void write_file_at(const char *path, uint64_t offset, const void *bytes, size_t size)
{
    int fd = open_file(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, bytes, size, (off_t)offset), (ssize_t)size, "%s: %s", path, strerror(errno));
    close(fd);
}

void flip_bits_at(const char *path, uint64_t offset, unsigned char bits)
{
    unsigned char byte;
    read_file_at(path, offset, &byte, 1);
    byte ^= bits;
    write_file_at(path, offset, &byte, 1);
}

void make_file(const char *path, const void *bytes, size_t size)
{
    close(open_file(path, O_WRONLY | O_CREAT | O_TRUNC));
    if (size != 0) write_file_at(path, 0, bytes, size);
}

uint64_t file_size(const char *path)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0, "%s: %s", path, strerror(errno));
    return (uint64_t)status.st_size;
}

bool file_exists(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

static size_t count_names(const char *path)
{
    size_t count = 0;
    DIR *listing = opendir(path);
    cr_assert_not_null(listing, "%s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(listing);
    return count;
}

size_t file_count(const char *path)
{
    return count_names(path);
}

size_t descriptor_count(void)
{
    return count_names("/proc/self/fd") - 1; // the listing's own
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static uint64_t mix(uint64_t digest, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) digest = (digest ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001b3);
    return digest;
}

static uint64_t digest_entry(uint64_t digest, const char *path)
{
    struct stat status;
    if (lstat(path, &status) != 0) return mix(digest, "gone", 4);
    digest = mix(digest, &status.st_mode, sizeof status.st_mode);
    if (S_ISREG(status.st_mode)) {
        digest = mix(digest, &status.st_size, sizeof status.st_size);
        unsigned char bytes[4096];
        int fd = open_file(path, O_RDONLY);
        for (ssize_t size; (size = read(fd, bytes, sizeof bytes)) > 0;) digest = mix(digest, bytes, (size_t)size);
        close(fd);
    }
    if (!S_ISDIR(status.st_mode)) return digest;
    struct dirent **names;
    int count = scandir(path, &names, NULL, compare_names);
    cr_assert(count >= 0, "%s: %s", path, strerror(errno));
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            digest = mix(digest, name, strlen(name));
            char child[1024];
            snprintf(child, sizeof child, "%s/%s", path, name);
            digest = digest_entry(digest, child);
        }
        free(names[i]);
    }
    free(names);
    return digest;
}

uint64_t tree_digest(const char *path)
{
    if (!file_exists(path)) return 1;
    return digest_entry(UINT64_C(0xcbf29ce484222325), path);
}

static void copy_file(const char *from, const char *to, mode_t mode)
{
    unsigned char bytes[4096];
    int in = open_file(from, O_RDONLY);
    int out = open_file(to, O_WRONLY | O_CREAT | O_EXCL);
    cr_assert_eq(fchmod(out, mode & 07777), 0);
    for (ssize_t size; (size = read(in, bytes, sizeof bytes)) > 0;) cr_assert_eq(write(out, bytes, (size_t)size), size);
    close(in);
    close(out);
}

void copy_tree(const char *from, const char *to)
{
    struct stat status;
    cr_assert_eq(lstat(from, &status), 0, "%s: %s", from, strerror(errno));
    if (!S_ISDIR(status.st_mode)) {
        copy_file(from, to, status.st_mode);
        return;
    }
    cr_assert_eq(mkdir(to, status.st_mode & 07777), 0, "%s: %s", to, strerror(errno));
    struct dirent **names;
    int count = scandir(from, &names, NULL, compare_names);
    cr_assert(count >= 0, "%s: %s", from, strerror(errno));
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            char child[1024], copy[1024];
            snprintf(child, sizeof child, "%s/%s", from, name);
            snprintf(copy, sizeof copy, "%s/%s", to, name);
            copy_tree(child, copy);
        }
        free(names[i]);
    }
    free(names);
}

/* ---- maps --------------------------------------------------------------------------------------------------------- */

void expect_status_at(const char *file, int line, const char *what, odm_status actual, odm_status expected)
{
    cr_assert_eq(actual, expected, "%s:%d: %s is %s, expected %s", file, line, what, odm_status_name(actual),
                 odm_status_name(expected));
}

odm_map *open_map_at(const char *file, int line, const char *path, const odm_options *options)
{
    odm_map *map = NULL;
    odm_error error = {.struct_size = sizeof error};
    odm_status status = odm_open(path, options, &map, &error);
    cr_assert_eq(status, ODM_OK, "%s:%d: open: %s, %s", file, line, odm_status_name(status), error.message);
    cr_assert_not_null(map, "%s:%d", file, line);
    return map;
}

odm_status try_open_with(const char *path, odm_error *error, const odm_options *options)
{
    odm_map *map = NULL;
    if (error != NULL) *error = (odm_error){.struct_size = sizeof *error};
    odm_status status = odm_open(path, options, &map, error);
    cr_assert_eq(map != NULL, status == ODM_OK);
    if (error != NULL) cr_assert_eq(error->status, status);
    odm_close(map);
    return status;
}

odm_map *open_in_memory(void)
{
    return open_map(NULL);
}

void put_at(const char *file, int line, odm_map *map, const char *key, const char *value)
{
    odm_status status = odm_put(map, key, strlen(key), value, strlen(value));
    cr_assert_eq(status, ODM_OK, "%s:%d: put \"%s\": %s, %s", file, line, key, odm_status_name(status),
                 last_error_of(map).message);
}

static void expect_bytes(const char *file, int line, odm_map *map, const char *key, size_t key_size, const char *value,
                         size_t value_size)
{
    const void *found = NULL;
    size_t found_size = 0;
    odm_status status = odm_get(map, key, key_size, &found, &found_size);
    cr_assert_eq(status, ODM_OK, "%s:%d: get \"%.*s\": %s, %s", file, line, (int)key_size, key, odm_status_name(status),
                 status < 0 ? last_error_of(map).message : "");
    cr_assert(found_size == value_size && memcmp(found, value, value_size) == 0,
              "%s:%d: \"%.*s\" is \"%.*s\", expected \"%.*s\"", file, line, (int)key_size, key, (int)found_size,
              (const char *)found, (int)value_size, value);
}

static void expect_missing(const char *file, int line, odm_map *map, const char *key, size_t key_size)
{
    odm_status status = odm_get(map, key, key_size, NULL, NULL);
    cr_assert_eq(status, ODM_NOT_FOUND, "%s:%d: get \"%.*s\": %s, expected ODM_NOT_FOUND", file, line, (int)key_size,
                 key, odm_status_name(status));
}

void expect_value_at(const char *file, int line, odm_map *map, const char *key, const char *value)
{
    expect_bytes(file, line, map, key, strlen(key), value, strlen(value));
}

void expect_absent_at(const char *file, int line, odm_map *map, const char *key)
{
    expect_missing(file, line, map, key, strlen(key));
}

size_t number_key(unsigned number, char text[NUMBER_TEXT_SIZE])
{
    return (size_t)snprintf(text, NUMBER_TEXT_SIZE, "key %u", number);
}

size_t number_value(unsigned number, unsigned round, char text[NUMBER_TEXT_SIZE])
{
    return (size_t)snprintf(text, NUMBER_TEXT_SIZE, "value %u of %u", number, round);
}

void put_numbers_at(const char *file, int line, odm_map *map, unsigned from, unsigned to, unsigned round)
{
    char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
    for (unsigned i = from; i < to; i++) {
        odm_status status = odm_put(map, key, number_key(i, key), value, number_value(i, round, value));
        cr_assert_eq(status, ODM_OK, "%s:%d: put \"%s\": %s, %s", file, line, key, odm_status_name(status),
                     last_error_of(map).message);
    }
}

void remove_numbers_at(const char *file, int line, odm_map *map, unsigned from, unsigned to)
{
    char key[NUMBER_TEXT_SIZE];
    for (unsigned i = from; i < to; i++) {
        odm_status status = odm_remove(map, key, number_key(i, key));
        cr_assert_eq(status, ODM_OK, "%s:%d: remove \"%s\": %s", file, line, key, odm_status_name(status));
    }
}

void expect_numbers_at(const char *file, int line, odm_map *map, unsigned from, unsigned to, unsigned round)
{
    char key[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
    for (unsigned i = from; i < to; i++) {
        size_t key_size = number_key(i, key);
        expect_bytes(file, line, map, key, key_size, value, number_value(i, round, value));
    }
}

void expect_no_numbers_at(const char *file, int line, odm_map *map, unsigned from, unsigned to)
{
    char key[NUMBER_TEXT_SIZE];
    for (unsigned i = from; i < to; i++) {
        size_t key_size = number_key(i, key);
        expect_missing(file, line, map, key, key_size);
    }
}

odm_statistics statistics_of(odm_map *map)
{
    odm_statistics statistics = {.struct_size = sizeof statistics};
    ok(odm_stat(map, &statistics));
    return statistics;
}

odm_error last_error_of(odm_map *map)
{
    odm_error error = {.struct_size = sizeof error};
    ok(odm_last_error(map, &error));
    return error;
}

void keep_whole_log(void)
{
    odm__test_dead_bytes_min = UINT64_MAX;
}

static int open_but_no_new_index(int directory, const char *name, int flags, mode_t mode)
{
    if (strcmp(name, "index.new") != 0) return os_at_start.open(directory, name, flags, mode);
    errno = ENOSPC;
    return -1;
}

void compact_all_but_the_index(odm_map *map)
{
    odm__os.open = open_but_no_new_index;
    ok(odm_compact(map, NULL, NULL));
    odm__os.open = os_at_start.open;
}

/* ---- processes and threads ---------------------------------------------------------------------------------------- */

pid_t start_child(void (*body)(void *context), void *context)
{
    fflush(NULL);
    pid_t child = fork();
    cr_assert(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        body(context);
        fflush(NULL);
        _exit(0);
    }
    return child;
}

static int wait_until_gone(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0) cr_assert_eq(errno, EINTR, "waitpid: %s", strerror(errno));
    return status;
}

void expect_child_succeeds_at(const char *file, int line, pid_t child)
{
    int status = wait_until_gone(child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s:%d: the child ended by %s %d", file, line,
              WIFEXITED(status) ? "exit" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

void kill_child(pid_t child)
{
    cr_assert_eq(kill(child, SIGKILL), 0, "kill: %s", strerror(errno));
    wait_until_gone(child);
}

void stop_child(pid_t child)
{
    cr_assert_eq(kill(child, SIGSTOP), 0, "kill: %s", strerror(errno));
    int status;
    while (waitpid(child, &status, WUNTRACED) < 0) cr_assert_eq(errno, EINTR, "waitpid: %s", strerror(errno));
    cr_assert(WIFSTOPPED(status), "the child did not stop");
}

void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(memory, MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

void wait_for(const _Atomic int *word, int value)
{
    for (int i = 0; i < 60 * 1000; i++) {
        if (atomic_load(word) == value) return;
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    }
    fprintf(stderr, "waited in vain for a word to become %d\n", value);
    _exit(1);
}

struct thread {
    pthread_t id;
    unsigned number;
    void (*body)(void *context, unsigned number);
    void *context;
};

static void *thread_main(void *context)
{
    struct thread *thread = context;
    thread->body(thread->context, thread->number);
    return NULL;
}

void run_threads(unsigned count, void (*body)(void *context, unsigned number), void *context)
{
    struct thread *threads = calloc(count, sizeof *threads);
    cr_assert_not_null(threads);
    for (unsigned i = 0; i < count; i++) {
        threads[i] = (struct thread){.number = i, .body = body, .context = context};
        cr_assert_eq(pthread_create(&threads[i].id, NULL, thread_main, &threads[i]), 0);
    }
    for (unsigned i = 0; i < count; i++) cr_assert_eq(pthread_join(threads[i].id, NULL), 0);
    free(threads);
}
