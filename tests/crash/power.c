/* power.c - a judge of power loss: what may be on disk after it, as images of the map, each of which must open rightly.
 *
 * Model. Each file has a durable content, moved forward only by syncs, and a present one, which stores through mappings
 * change without a word. Power loss at any moment leaves of every unsynced page, or sector, the durable bytes, the present
 * ones, or those of any moment since its last sync; of every size that was changed the old or the new; and of every name
 * whose directory was not synced the old file, the new one, or none. Which of it is drawn by a seeded dice (ODM_TEST_SEED).
 *
 * Method. A writer works in a directory while the table of system calls is watched. Now and then, between any two of its
 * calls and writes, what the files hold is kept as a version, or an image is drawn. Some writes are run instruction by
 * instruction, by the trap flag, and then that may happen after any instruction of the engine. Each image is opened in another
 * boot, watched in turn, so that images are drawn of the recovery as well; those must be right, too. ODM_TEST_IMAGES sets how
 * many images are drawn, at least.
 *
 * Right means: it opens; it holds exactly the first n writes, for one n from what was synced to what was begun; and what an
 * open has shown stays. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>

#include "image.h"
#include "map.h"
#include "oracle.h"
#include "support.h"

enum { IMAGES_USUAL = 300, IDS = 60, WRITES_MAX = 160, SECTOR = 512, PAGE_BYTES = 4096 };

TestSuite(power, .init = lies_begin, .fini = remove_temp_directories, .timeout = 86400);

/* ---- the disk ----------------------------------------------------------------------------------------------------------- */

struct bytes {
    unsigned char *data;
    uint64_t size;
};

/* One file, from its creation on, also after it has lost its name. */
enum { VERSIONS_MAX = 6 };
struct disk_file {
    uint64_t inode;
    bool unlinked; // last holds its content
    struct bytes durable;
    struct bytes last;
    struct bytes versions[VERSIONS_MAX]; // since it was last synced, not all there were
    size_t version_count;
};

enum { FILES_MAX = 400, NAMES_MAX = 120, MAPPINGS_MAX = 400 };
struct disk_name {
    char name[48];
    int file; // index into files, or -1 for the directory log
};
struct names {
    struct disk_name names[NAMES_MAX];
    size_t count;
};

/* The disk that is watched: one map's directory, [0], and its log, [1]. */
static struct disk {
    const char *path;
    uint64_t directory_inode[2];
    struct disk_file files[FILES_MAX];
    size_t file_count;
    struct names durable[2];
    struct mapping {
        void *base;
        int file;
    } mappings[MAPPINGS_MAX];
    // When to draw.
    uint64_t events, next_draw;
    void (*draw)(void);
} disk;

static const struct odm__os *real;
static struct sequence dice;

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "the judge of power loss: %s: %s\n", what, strerror(errno));
    abort();
}

static void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){.data = NULL};
}

static void bytes_read(struct bytes *bytes, int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0) give_up("stat");
    bytes_free(bytes);
    bytes->size = (uint64_t)status.st_size;
    bytes->data = malloc(bytes->size + 1);
    if (bytes->data == NULL || pread(fd, bytes->data, bytes->size, 0) != (ssize_t)bytes->size) give_up("read");
}

static void versions_forget(struct disk_file *file)
{
    while (file->version_count > 0) bytes_free(&file->versions[--file->version_count]);
}

static int file_by_inode(uint64_t inode)
{
    for (size_t i = disk.file_count; i > 0; --i) {
        if (disk.files[i - 1].inode == inode && !disk.files[i - 1].unlinked) return (int)i - 1;
    }
    return -1;
}

static int file_by_fd(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 ? file_by_inode(status.st_ino) : -1;
}

static int file_add(uint64_t inode)
{
    if (disk.file_count == FILES_MAX) give_up("too many files");
    disk.files[disk.file_count] = (struct disk_file){.inode = inode};
    return (int)disk.file_count++;
}

static int directory_by_fd(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0) return -1;
    for (int i = 0; i < 2; ++i) {
        if (status.st_ino == disk.directory_inode[i]) return i;
    }
    return -1;
}

static const char *directory_path(int which)
{
    static char path[600];
    snprintf(path, sizeof path, "%s%s", disk.path, which == 0 ? "" : "/log");
    return path;
}

/* The names a directory has at present. */
static void names_now(int which, struct names *names)
{
    names->count = 0;
    DIR *listing = opendir(directory_path(which));
    if (listing == NULL) return;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        if (names->count == NAMES_MAX) give_up("too many names");
        struct disk_name *name = &names->names[names->count++];
        snprintf(name->name, sizeof name->name, "%.40s", entry->d_name);
        struct stat status;
        if (fstatat(dirfd(listing), entry->d_name, &status, 0) != 0) give_up("stat a name");
        name->file = S_ISDIR(status.st_mode) ? -1 : file_by_inode(status.st_ino);
        if (!S_ISDIR(status.st_mode) && name->file < 0) give_up("an unknown file");
    }
    closedir(listing);
}

static const struct disk_name *names_find(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; ++i) {
        if (strcmp(names->names[i].name, name) == 0) return &names->names[i];
    }
    return NULL;
}

static void watch_directory(int which)
{
    struct stat status;
    disk.directory_inode[which] = stat(directory_path(which), &status) == 0 ? status.st_ino : 0;
}

/* Begins to watch a directory all of which is durable. */
static void disk_begin(const char *path)
{
    disk.path = path;
    disk.file_count = 0;
    memset(disk.mappings, 0, sizeof disk.mappings);
    for (int which = 0; which < 2; ++which) {
        watch_directory(which);
        DIR *listing = opendir(directory_path(which));
        for (struct dirent *entry; listing != NULL && (entry = readdir(listing)) != NULL;) {
            int fd = openat(dirfd(listing), entry->d_name, O_RDONLY | O_CLOEXEC);
            struct stat status;
            if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
                int file = file_add(status.st_ino);
                bytes_read(&disk.files[file].durable, fd);
            }
            if (fd >= 0) close(fd);
        }
        if (listing != NULL) closedir(listing);
        names_now(which, &disk.durable[which]);
    }
}

static void disk_end(void)
{
    for (size_t i = 0; i < disk.file_count; ++i) {
        bytes_free(&disk.files[i].durable);
        bytes_free(&disk.files[i].last);
        versions_forget(&disk.files[i]);
    }
    disk.file_count = 0;
    disk.path = NULL;
}

/* ---- drawing an image --------------------------------------------------------------------------------------------------- */

/* How the unsynced parts fall. */
enum style { HALF, MOSTLY_OLD, MOSTLY_NEW, ALL_OLD, ALL_NEW, ONE_NEW, ONE_OLD, ANY_VERSION, STYLES };

static bool is_new(enum style style, size_t at, size_t the_one)
{
    switch (style) {
        case HALF: return sequence_below(&dice, 2) == 0;
        case MOSTLY_OLD: return sequence_below(&dice, 10) == 0;
        case MOSTLY_NEW: return sequence_below(&dice, 10) != 0;
        case ALL_NEW: return true;
        case ONE_NEW: return at == the_one;
        case ONE_OLD: return at != the_one;
        default: return false;
    }
}

/* The bytes of a version that reaches that far; else the durable ones. */
static const struct bytes *draw_version(const struct disk_file *file, const struct bytes *present, uint64_t end)
{
    size_t which = sequence_below(&dice, file->version_count + 2);
    const struct bytes *drawn = which == 0                     ? &file->durable
                                : which <= file->version_count ? &file->versions[which - 1]
                                                               : present;
    return drawn->size >= end ? drawn : &file->durable;
}

/* A file as it may be on disk: unit by unit its durable or its present bytes, or those of a version between. */
static struct bytes draw_file(const struct disk_file *file, const struct bytes *present, enum style style, size_t unit)
{
    const struct bytes *durable = &file->durable;
    bool by_half = style == ONE_NEW || style == ANY_VERSION;
    bool new_size = durable->size == present->size || is_new(by_half ? HALF : style, 0, 0);
    struct bytes drawn = {.size = new_size ? present->size : durable->size};
    drawn.data = calloc(1, drawn.size + 1);
    if (drawn.data == NULL) give_up("draw");
    size_t differing = 0, the_one = 0;
    for (int turn = 0; turn < 2; ++turn) {
        size_t n = 0;
        for (uint64_t at = 0; at < drawn.size; at += unit) {
            uint64_t size = drawn.size - at < unit ? drawn.size - at : unit;
            static const unsigned char zeros[PAGE_BYTES];
            unsigned char old[PAGE_BYTES] = {0};
            if (at < durable->size)
                memcpy(old, durable->data + at, durable->size - at < size ? durable->size - at : size);
            const unsigned char *now = at < present->size ? present->data + at : zeros;
            if (present->size < at + size && at < present->size) now = old; // Sizes are whole pages but for this.
            if (style == ANY_VERSION) {
                const struct bytes *version = draw_version(file, present, at + size);
                if (turn == 1) memcpy(drawn.data + at, version->size >= at + size ? version->data + at : old, size);
                continue;
            }
            bool differs = memcmp(old, now, size) != 0;
            if (turn == 1) memcpy(drawn.data + at, differs && is_new(style, n, the_one) ? now : old, size);
            n += differs;
        }
        differing = n;
        the_one = sequence_below(&dice, differing);
    }
    return drawn;
}

static void write_out(const char *directory, const char *name, const struct bytes *bytes)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, bytes->data, bytes->size) != (ssize_t)bytes->size) give_up(path);
    close(fd);
}

/* The present bytes of a name. */
static struct bytes read_name(int which, const char *name)
{
    struct bytes bytes = {.data = NULL};
    char path[700];
    snprintf(path, sizeof path, "%s/%s", directory_path(which), name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) give_up(path);
    bytes_read(&bytes, fd);
    close(fd);
    return bytes;
}

/* Keeps what the files hold now: write-back may take any page at any time. */
static void keep_versions(void)
{
    for (int which = 0; which < 2; ++which) {
        struct names now;
        names_now(which, &now);
        for (size_t i = 0; i < now.count; ++i) {
            if (now.names[i].file < 0) continue;
            struct disk_file *file = &disk.files[now.names[i].file];
            const struct bytes *before =
                file->version_count == 0 ? &file->durable : &file->versions[file->version_count - 1];
            struct bytes bytes = read_name(which, now.names[i].name);
            bool same =
                bytes.size == before->size && (bytes.size == 0 || memcmp(bytes.data, before->data, bytes.size) == 0);
            if (same) {
                bytes_free(&bytes);
                continue;
            }
            size_t place =
                file->version_count < VERSIONS_MAX ? file->version_count++ : sequence_below(&dice, VERSIONS_MAX);
            bytes_free(&file->versions[place]);
            file->versions[place] = bytes;
        }
    }
}

/* Power is lost now: writes to `to` what may be on disk. */
static void draw_image(const char *to)
{
    enum style style = (enum style)sequence_below(&dice, STYLES);
    size_t unit = sequence_below(&dice, 3) == 0 ? SECTOR : PAGE_BYTES;
    enum style name_style = (enum style)sequence_below(&dice, 5); // not the ones of a single unit
    if (mkdir(to, 0755) != 0) give_up(to);
    bool has_log = false;
    for (int which = 0; which < 2; ++which) {
        if (which == 1 && !has_log) break;
        char directory[600];
        snprintf(directory, sizeof directory, "%s%s", to, which == 0 ? "" : "/log");
        struct names now;
        names_now(which, &now);
        // Every name that there is, or was when its directory was last synced.
        for (size_t i = 0; i < now.count + disk.durable[which].count; ++i) {
            bool from_now = i < now.count;
            const char *name = from_now ? now.names[i].name : disk.durable[which].names[i - now.count].name;
            const struct disk_name *current = names_find(&now, name), *old = names_find(&disk.durable[which], name);
            if (!from_now && current != NULL) continue; // had its turn
            bool same = current != NULL && old != NULL && current->file == old->file;
            const struct disk_name *chosen = same || is_new(name_style, 0, 0) ? current : old;
            if (chosen == NULL) continue;
            if (chosen->file < 0) {
                char log[600];
                snprintf(log, sizeof log, "%s/log", to);
                if (mkdir(log, 0755) != 0) give_up(log);
                has_log = true;
                continue;
            }
            struct disk_file *file = &disk.files[chosen->file];
            struct bytes present = {.data = NULL};
            if (!file->unlinked) {
                // Under its present name, which need not be the chosen one.
                struct disk_name *found = NULL;
                for (size_t k = 0; k < now.count; ++k) {
                    if (now.names[k].file == chosen->file) found = &now.names[k];
                }
                present = read_name(which, found->name);
            }
            struct bytes drawn = draw_file(file, file->unlinked ? &file->last : &present, style, unit);
            write_out(directory, name, &drawn);
            bytes_free(&drawn);
            bytes_free(&present);
        }
    }
}

/* ---- watching ------------------------------------------------------------------------------------------------------------- */

/* While the watchers themselves work, nothing is looked at: they are not the engine, and their books are not in order. */
static int watching;

static int enter(void)
{
    return ++watching;
}

static void leave(const int *depth)
{
    watching = *depth - 1;
}
#define WATCHER __attribute__((cleanup(leave), unused)) int watcher_depth = enter()

/* A moment at which power may be lost. */
static void event(void)
{
    if (disk.path == NULL || disk.draw == NULL) return;
    if (sequence_below(&dice, 60) == 0) keep_versions();
    if (++disk.events >= disk.next_draw) disk.draw();
}

static int watched_open(int directory, const char *name, int flags, mode_t mode)
{
    WATCHER;
    event();
    int fd = real->open(directory, name, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) != 0 && disk.path != NULL) {
        struct stat status;
        if (fstat(fd, &status) != 0) give_up("stat a new file");
        file_add(status.st_ino);
    }
    return fd;
}

static int watched_make_directory(int directory, const char *name, mode_t mode)
{
    WATCHER;
    event();
    int result = real->make_directory(directory, name, mode);
    if (disk.path != NULL) watch_directory(1);
    return result;
}

static void lose_name(int directory, const char *name)
{
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    int file = fd < 0 ? -1 : file_by_fd(fd);
    if (file >= 0) {
        bytes_read(&disk.files[file].last, fd);
        disk.files[file].unlinked = true;
    }
    if (fd >= 0) close(fd);
}

static int watched_unlink(int directory, const char *name, bool is_directory)
{
    WATCHER;
    event();
    lose_name(directory, name);
    return real->unlink(directory, name, is_directory);
}

static int watched_rename(int directory, const char *from, const char *to)
{
    WATCHER;
    event();
    lose_name(directory, to);
    return real->rename(directory, from, to);
}

static int watched_exchange(int directory, const char *a, const char *b)
{
    WATCHER;
    event();
    return real->exchange(directory, a, b);
}

static int watched_rename_new(int directory, const char *from, const char *to)
{
    WATCHER;
    event();
    return real->rename_new(directory, from, to);
}

static int watched_sync_directory(int fd)
{
    WATCHER;
    event();
    int which = directory_by_fd(fd);
    if (which >= 0) names_now(which, &disk.durable[which]);
    event();
    return 0;
}

static int watched_sync_data(int fd)
{
    WATCHER;
    event();
    int file = file_by_fd(fd);
    if (file >= 0) bytes_read(&disk.files[file].durable, fd);
    if (file >= 0) versions_forget(&disk.files[file]);
    return 0;
}

static void *watched_map(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    WATCHER;
    void *base = real->map(at, size, protection, flags, fd, offset);
    int file = fd < 0 || base == MAP_FAILED ? -1 : file_by_fd(fd);
    if (file < 0) return base;
    size_t i = 0;
    while (i < MAPPINGS_MAX && disk.mappings[i].base != NULL && disk.mappings[i].base != base) ++i;
    if (i == MAPPINGS_MAX) give_up("too many mappings");
    disk.mappings[i] = (struct mapping){base, file};
    return base;
}

static int watched_unmap(void *base, size_t size)
{
    WATCHER;
    for (size_t i = 0; i < MAPPINGS_MAX; ++i) {
        if (disk.mappings[i].base == base) disk.mappings[i].base = NULL;
    }
    return real->unmap(base, size);
}

static int watched_sync_map(void *base, size_t size)
{
    WATCHER;
    event();
    for (size_t i = 0; i < MAPPINGS_MAX && disk.path != NULL; ++i) {
        if (disk.mappings[i].base != base) continue;
        // A sync that was broken off has written some pages: that is drawn before. This one has written them all.
        struct bytes *durable = &disk.files[disk.mappings[i].file].durable;
        if (durable->size < size) {
            durable->data = realloc(durable->data, size + 1);
            durable->size = size;
        }
        memcpy(durable->data, base, size);
        versions_forget(&disk.files[disk.mappings[i].file]);
    }
    event();
    return 0;
}

static ssize_t watched_write_at(int fd, const void *buffer, size_t size, off_t offset)
{
    WATCHER;
    event();
    ssize_t written = real->write_at(fd, buffer, size, offset);
    event();
    return written;
}

static int watched_reserve(int fd, off_t offset, off_t size)
{
    WATCHER;
    event();
    return real->reserve(fd, offset, size);
}

static int no_write_back(int fd, off_t offset, off_t size)
{
    (void)fd;
    (void)offset;
    (void)size;
    return 0;
}

static void watch(void)
{
    static struct odm__os before;
    before = odm__os;
    real = &before;
    odm__os.open = watched_open;
    odm__os.make_directory = watched_make_directory;
    odm__os.unlink = watched_unlink;
    odm__os.rename = watched_rename;
    odm__os.rename_new = watched_rename_new;
    odm__os.exchange = watched_exchange;
    odm__os.sync_directory = watched_sync_directory;
    odm__os.sync_data = watched_sync_data;
    odm__os.sync_map = watched_sync_map;
    odm__os.start_write_back = no_write_back;
    odm__os.map = watched_map;
    odm__os.unmap = watched_unmap;
    odm__os.write_at = watched_write_at;
    odm__os.reserve = watched_reserve;
}

/* ---- instruction by instruction ------------------------------------------------------------------------------------------ */

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

extern const char __executable_start, etext;
static uint64_t traps, steps; // instructions since stepping began: all of them, and those of this program
static uint64_t next_step;    // when something is to happen next
enum { TRAP_FLAG = 0x100, TRAPS_MAX = 8000, STEPS_BETWEEN = 400 };

/* After each instruction while the trap flag is set; in here it is not. Code of libraries is left alone: it may hold locks. */
static void after_instruction(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t place = (uint64_t)registers[REG_RIP];
    if (++traps == TRAPS_MAX) registers[REG_EFL] &= ~TRAP_FLAG; // Each takes some 10 us.
    if (place < (uint64_t)(uintptr_t)&__executable_start || place >= (uint64_t)(uintptr_t)&etext) return;
    if (watching != 0 || ++steps < next_step || disk.draw == NULL) return;
    next_step = steps + 1 + sequence_below(&dice, STEPS_BETWEEN);
    if (sequence_below(&dice, 2) == 0)
        keep_versions();
    else
        disk.draw();
}

static void step_begin(void)
{
    struct sigaction action = {.sa_sigaction = after_instruction, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    traps = steps = 0;
    next_step = 1 + sequence_below(&dice, STEPS_BETWEEN);
    __asm__ volatile("pushfq; orq %0, (%%rsp); popfq" : : "i"(TRAP_FLAG) : "memory", "cc");
}

static void step_end(void)
{
    __asm__ volatile("pushfq; andq %0, (%%rsp); popfq" : : "i"(~TRAP_FLAG) : "memory", "cc");
}

#else

static void step_begin(void)
{
}

static void step_end(void)
{
}

#endif

/* ---- the judge -------------------------------------------------------------------------------------------------------------- */

/* What the writer of a generation is known to have done. */
struct generation {
    struct oracle start;
    struct test_write writes[WRITES_MAX];
    size_t begun, done, synced;
};

/* An image, and what it may show. */
struct drawn {
    const char *path;
    size_t from, to;
};
enum { DRAWN_MAX = 80 };
static struct drawn drawn[DRAWN_MAX];
static size_t drawn_count;
static struct generation *writing; // whose writes are being watched
static uint64_t spread;            // events between two images, at most

/* A path for an image, or for a map that is watched: all in one directory, which stays until the end. */
static const char *new_path(void)
{
    static const char *root;
    static uint64_t number;
    if (root == NULL) root = temp_directory();
    char name[40];
    snprintf(name, sizeof name, "%llu", (unsigned long long)++number);
    return path_of(root, name);
}

static void draw(void)
{
    disk.next_draw = disk.events + 1 + sequence_below(&dice, spread);
    if (drawn_count == DRAWN_MAX) return;
    const char *path = new_path();
    draw_image(path);
    drawn[drawn_count++] = (struct drawn){path, writing->synced, writing->begun};
}

/* The writer dies and another comes, on another mount: the page cache is as it was, and what the newcomer shows and has
 * rebuilt from it counts as synced. */
static void change_writers(struct generation *generation, odm_map **map)
{
    static uint64_t mount;
    struct meta_slot slot;
    ok(odm__meta_read_slot(&(*map)->store->meta, &slot, NULL));
    // Not written to since it was stamped, or to be stamped now: nothing to rebuild.
    bool stamped = (slot.stamp[0] | slot.stamp[1]) != 0 || atomic_load(&(*map)->store->stamp_at_close);
    ok(odm_close(*map));
    lie_about_mount(++mount);
    *map = open_map(disk.path);
    if (!stamped) cr_assert_eq(statistics_of(*map).recovery_kind, ODM_RECOVERY_KEPT);
    generation->synced = generation->done;
}

static uint64_t next_boot = 1;

/* The map is closed as a long one is, with a stamp, and comes back; maybe after a reboot in good order. */
static void rest(struct generation *generation, odm_map **map)
{
    atomic_store(&(*map)->store->stamp_at_close, true);
    ok(odm_close(*map));
    generation->synced = generation->done;
    event();
    if (sequence_below(&dice, 2) == 0) lie_about_boot(next_boot++);
    *map = open_map(disk.path);
}

/* Writes a generation to an open map, watched. */
static void write_generation(struct generation *generation, odm_map **opened, size_t count)
{
    odm_map *map = *opened;
    for (size_t i = 0; i < count; ++i) {
        // Small keys with values of few sizes, so that what one crash left fits what comes next.
        struct test_write *write = &generation->writes[i];
        *write = write_random(&dice, IDS, i % 40 == 39 ? 5000 : 300, true);
        if (write->id == 11) write->id = 12; // the long key
        generation->begun = i + 1;
        event();
        bool stepped = sequence_below(&dice, 200) == 0;
        if (stepped) step_begin();
        odm_status status = write_do(write, map);
        if (stepped) step_end();
        expect_status(status, ODM_OK);
        generation->done = i + 1;
        event();
        if (sequence_below(&dice, 12) == 0) {
            size_t done = generation->done;
            ok(odm_sync(map, NULL));
            generation->synced = done;
        }
        if (sequence_below(&dice, 80) == 0) {
            size_t done = generation->done;
            ok(odm_compact(map, NULL, NULL)); // It syncs, too.
            if (statistics_of(map).watermark == statistics_of(map).tail) generation->synced = done;
        }
        if (sequence_below(&dice, 60) == 0) change_writers(generation, &map);
        if (sequence_below(&dice, 20) == 0) rest(generation, &map);
    }
    event();
    *opened = map;
}

static odm_map *open_image(const char *path, const char *what)
{
    odm_map *map = NULL;
    odm_error error = {.struct_size = sizeof error};
    lie_about_boot(next_boot++);
    odm_status status = odm_open(path, &(odm_options){.struct_size = sizeof(odm_options), .stripes = 4}, &map, &error);
    cr_assert_eq(status, ODM_OK, "seed %llu, %s: an image does not open: %s, %s (%s)",
                 (unsigned long long)seed_of_run(), what, odm_status_name(status), error.message, path);
    return map;
}

/* Which of its writes a generation's image shows. */
static size_t judge(odm_map *map, const struct generation *generation, size_t from, size_t to, const char *what)
{
    const char *why;
    size_t n = prefix_shown(map, &generation->start, generation->writes, from, to, &why);
    cr_assert_neq(n, SIZE_MAX, "seed %llu, %s: %s", (unsigned long long)seed_of_run(), what, why);
    return n;
}

/* Draws images of a map that `depth` more crashes may befall, and judges them. first: whose start the images may show. */
static size_t judge_images(struct generation *generation, const struct drawn *images, size_t count, int depth);

static size_t judge_image(struct generation *generation, const struct drawn *image, int depth)
{
    size_t judged = 1;
    char what[64];
    snprintf(what, sizeof what, "crash %d, image of %zu to %zu writes", 3 - depth, image->from, image->to);
    if (depth == 0) {
        odm_map *map = open_image(image->path, what);
        (void)judge(map, generation, image->from, image->to, what);
        ok(odm_close(map));
        remove_tree(image->path);
        return judged;
    }
    // The recovery itself is watched: images of it may show what this one may.
    struct generation next = {.begun = 0};
    struct drawn during[DRAWN_MAX], after[DRAWN_MAX];
    size_t during_count, after_count;
    struct generation recovering = {.begun = image->to, .synced = image->from};
    drawn_count = 0;
    writing = &recovering;
    spread = 60;
    disk_begin(image->path);
    disk.draw = draw;
    disk.events = 0;
    disk.next_draw = 1 + sequence_below(&dice, 60);
    odm_map *map = open_image(image->path, what);
    disk.draw = NULL;
    during_count = drawn_count;
    memcpy(during, drawn, sizeof during);
    size_t shown = judge(map, generation, image->from, image->to, what);
    // What it showed stays, whatever comes: a new generation begins with it.
    oracle_copy(&next.start, &generation->start);
    for (size_t i = 0; i < shown; ++i) write_apply(&generation->writes[i], &next.start);
    drawn_count = 0;
    writing = &next;
    spread = 120;
    disk.draw = draw;
    disk.next_draw = disk.events + 1 + sequence_below(&dice, 40);
    write_generation(&next, &map, 12 + sequence_below(&dice, 20));
    disk.draw = NULL;
    after_count = drawn_count;
    memcpy(after, drawn, sizeof after);
    ok(odm_close(map));
    disk_end();
    remove_tree(image->path);
    judged += judge_images(generation, during, during_count, 0);
    judged += judge_images(&next, after, after_count, depth - 1);
    oracle_free(&next.start);
    return judged;
}

static size_t judge_images(struct generation *generation, const struct drawn *images, size_t count, int depth)
{
    size_t judged = 0;
    for (size_t i = 0; i < count; ++i) {
        // Few crash again: the number of images would grow as a tree does.
        judged += judge_image(generation, &images[i], depth > 0 && i % 4 == 0 ? depth : 0);
    }
    return judged;
}

/* Power loss at any moment, any subset of unsynced pages, sectors, sizes and names on disk: the map opens by itself, holds a
 * prefix of the writes that includes every synced one and not a byte nobody wrote; also if power is lost again during the
 * recovery or after it. */
Test(power, leaves_a_prefix_with_all_that_was_synced)
{
    size_t images = count_of("ODM_TEST_IMAGES", IMAGES_USUAL), judged = 0;
    dice = sequence_start(31);
    watch();
    while (judged < images) {
        struct generation first = {.begun = 0};
        oracle_init(&first.start, IDS);
        const char *path = new_path();
        cr_assert_eq(mkdir(path, 0755), 0);
        drawn_count = 0;
        writing = &first;
        spread = 200;
        disk_begin(path);
        disk.draw = draw;
        disk.events = 0;
        disk.next_draw = 1 + sequence_below(&dice, 30); // in the making of the map, too
        lie_about_boot(next_boot++);
        odm_map *map = open_map(path, .stripes = 4);
        write_generation(&first, &map, 30 + sequence_below(&dice, WRITES_MAX - 30));
        disk.draw = NULL;
        size_t count = drawn_count;
        struct drawn images_of_first[DRAWN_MAX];
        memcpy(images_of_first, drawn, sizeof images_of_first);
        ok(odm_close(map));
        disk_end();
        remove_tree(path);
        judged += judge_images(&first, images_of_first, count, 2);
        oracle_free(&first.start);
    }
}

/* While a map is made there is none, or an empty one, at every moment.
 * Method: images at every single call of the first open, many times over, because each is one throw of the dice. */
Test(power, leaves_no_map_or_an_empty_one_while_it_is_made)
{
    dice = sequence_start(32);
    watch();
    size_t judged = 0;
    for (int round = 0; round < 12; ++round) {
        struct generation empty = {.begun = 0};
        oracle_init(&empty.start, IDS);
        const char *path = new_path();
        cr_assert_eq(mkdir(path, 0755), 0);
        drawn_count = 0;
        writing = &empty;
        spread = 1;
        disk_begin(path);
        disk.draw = draw;
        disk.events = 0;
        disk.next_draw = 1;
        lie_about_boot(next_boot++);
        odm_map *map = open_map(path, .stripes = 4);
        disk.draw = NULL;
        cr_assert(drawn_count > 10 && drawn_count < DRAWN_MAX, "%zu images", drawn_count);
        struct drawn images[DRAWN_MAX];
        size_t count = drawn_count;
        memcpy(images, drawn, sizeof images);
        ok(odm_close(map));
        disk_end();
        remove_tree(path);
        judged += judge_images(&empty, images, count, 1);
        oracle_free(&empty.start);
    }
    cr_assert_gt(judged, 100);
}
