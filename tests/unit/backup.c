/* Copies of a map while others write: backup.h and copy.h. */
#include "backup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "copy.h"
#include "image.h"
#include "map.h"
#include "oracle.h"
#include "failing.h"
#include "support.h"

TestSuite(backup, .init = lies_begin, .fini = remove_temp_directories, .timeout = 120);

enum { COUNT = 400 };

static odm_map *numbered(const char *path)
{
    odm_map *map = path == NULL ? open_in_memory() : open_map(path, .stripes = 4);
    put_numbers(map, 0, COUNT, 0);
    put_numbers(map, 0, COUNT / 4, 1);
    remove_numbers(map, COUNT / 2, COUNT / 2 + 40);
    return map;
}

static void expect_numbered(odm_map *map)
{
    expect_numbers(map, 0, COUNT / 4, 1);
    expect_numbers(map, COUNT / 4, COUNT / 2, 0);
    expect_no_numbers(map, COUNT / 2, COUNT / 2 + 40);
    expect_numbers(map, COUNT / 2 + 40, COUNT, 0);
    cr_assert_eq(odm_count(map), COUNT - 40);
    ok(odm_verify(map, NULL, NULL, NULL));
}

static uint64_t inode_of(const char *path, const char *name)
{
    struct stat status;
    cr_assert_eq(stat(path_of(path, name), &status), 0);
    return status.st_ino;
}

/* What a backup holds is whole, opens without a rebuild, and can be written. */
static void expect_backup(const char *path)
{
    cr_assert_not(file_exists(path_of(path, COPY_MARK)));
    uint64_t index = inode_of(path, "index");
    for (uint64_t turn = 0; turn < 3; turn++) {
        lie_about_boot(100 + turn);
        odm_map *map = open_map(path, .flags = turn == 0 ? ODM_READ_ONLY : ODM_MUST_EXIST);
        expect_numbered(map);
        if (turn == 0) cr_assert_eq(statistics_of(map).recovery_kind, ODM_RECOVERY_NONE);
        ok(odm_close(map));
        cr_assert_eq(inode_of(path, "index"), index, "it was rebuilt");
    }
    odm_map *map = open_map(path);
    put(map, "new", "1");
    ok(odm_close(map));
    lie_about_boot(200);
    map = open_map(path);
    expect_value(map, "new", "1");
    ok(odm_remove(map, "new", 3));
    expect_numbered(map);
    ok(odm_close(map));
    lie_about_boot(0);
}

Test(backup, is_a_whole_map_that_opens_at_once)
{
    const char *path = temp_map_path(), *to = temp_map_path();
    odm_map *map = numbered(path);
    ok(odm_backup(map, to, NULL, NULL));
    expect_backup(to);
    expect_numbered(map);
    odm_map *reader = open_map(path, .flags = ODM_READ_ONLY);
    to = temp_directory(); // an empty one
    ok(odm_backup(reader, to, NULL, NULL));
    expect_backup(to);
    ok(odm_close(reader));
    ok(odm_compact(map, NULL, NULL));
    to = temp_map_path();
    ok(odm_backup(map, to, NULL, NULL));
    expect_backup(to);
    ok(odm_close(map));
    map = open_map(to, .flags = ODM_READ_ONLY); // of a backup, by who only reads
    const char *again = temp_map_path();
    ok(odm_backup(map, again, NULL, NULL));
    expect_backup(again);
    ok(odm_close(map));
}

/* A map in memory comes to disk this way. */
Test(backup, brings_a_map_in_memory_to_disk)
{
    const char *to = temp_map_path();
    odm_map *map = numbered(NULL);
    ok(odm_backup(map, to, NULL, NULL));
    ok(odm_close(map));
    expect_backup(to);
}

/* A map in memory has no files whose mode the copy could have: it gets what new maps get. */
Test(backup, of_a_map_in_memory_is_for_whom_its_options_say)
{
    umask(027);
    static const struct {
        mode_t asked, files, directory;
    } cases[] = {{0, 0640, 0750}, {0600, 0600, 0700}, {0664, 0664, 0775}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        odm_map *map = open_map(NULL, .file_mode = cases[i].asked);
        put(map, "a", "1");
        const char *to = temp_map_path();
        ok(odm_backup(map, to, NULL, NULL));
        ok(odm_close(map));
        struct stat status;
        cr_assert_eq(stat(to, &status), 0);
        cr_assert_eq(status.st_mode & 0777, cases[i].directory, "case %zu: 0%o", i, status.st_mode);
        map = open_map(to, .flags = ODM_READ_ONLY);
        char segment[32];
        snprintf(segment, sizeof segment, "log/%011u", (unsigned)address_number(statistics_of(map).head));
        const char *const names[] = {"meta", "index", segment};
        for (size_t n = 0; n < COUNT_OF(names); n++) {
            cr_assert_eq(stat(path_of(to, names[n]), &status), 0, "%s", names[n]);
            cr_assert_eq(status.st_mode & 0777, cases[i].files, "case %zu, %s: 0%o", i, names[n], status.st_mode);
        }
        ok(odm_close(map));
    }
}

Test(backup, of_an_empty_map_is_an_empty_map)
{
    const char *to = temp_map_path();
    odm_map *map = open_map(temp_map_path(), .schema = "u64/str", .schema_size = 7);
    ok(odm_backup(map, to, NULL, NULL));
    ok(odm_close(map));
    map = open_map(to, .schema = "u64/str", .schema_size = 7);
    cr_assert_eq(odm_count(map), 0);
    put(map, "a", "1");
    ok(odm_verify(map, NULL, NULL, NULL));
    ok(odm_close(map));
}

enum { IDS = 60, WRITES = 3000 };
static struct test_write writes[WRITES];

/* While the map is written, removed from, cleared and compacted, the backup holds it as it was at the first step, or with some of the
 * writes that came then. Method: write between the steps; compare with a history. */
Test(backup, is_the_map_as_it_was_at_the_first_step)
{
    struct sequence dice = sequence_start(60);
    struct oracle start;
    oracle_init(&start, IDS);
    unsigned all_steps = 0;
    for (unsigned round = 0; round < 6; round++) {
        const char *path = temp_map_path(), *to = temp_map_path();
        odm_map *map = open_map(path, .stripes = 2), *other;
        ok(odm_dup(map, &other, NULL));
        size_t count = 0, first = 0;
        for (; count < 1000; count++) {
            writes[count] = write_random(&dice, IDS, 600, true);
            ok(write_do(&writes[count], other));
        }
        odm__os.now_ns = hasty_clock;
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
        first = count;
        unsigned steps = 0;
        uint64_t done = 0;
        odm_status status = ODM_OK;
        for (; status == ODM_OK; steps++) {
            status = odm_backup(map, to, &progress, NULL);
            cr_assert(progress.done >= done && progress.done <= progress.total);
            done = progress.done;
            odm_map *early;
            if (status == ODM_OK)
                cr_assert_neq(odm_open(to, &(odm_options){.struct_size = sizeof(odm_options), .flags = ODM_READ_ONLY},
                                       &early, NULL),
                              ODM_OK);
            for (unsigned k = 0; k < 40 && count < WRITES; k++, count++) {
                writes[count] = write_random(&dice, IDS, 600, true);
                ok(write_do(&writes[count], other));
            }
            if (steps == 3) ok(odm_compact(other, NULL, NULL));
        }
        cr_assert_eq(status, ODM_DONE, "step %u: %s", steps, last_error_of(map).message);
        cr_assert_eq(progress.done, progress.total);
        all_steps += steps;
        odm__os.now_ns = real_os()->now_ns;
        odm_map *copy = open_map(to, .flags = ODM_READ_ONLY);
        const char *why;
        size_t n = prefix_shown(copy, &start, writes, first, first, &why);
        cr_assert_neq(n, SIZE_MAX, "round %u: %s", round, why);
        ok(odm_verify(copy, NULL, NULL, NULL));
        ok(odm_close(copy));
        ok(odm_close(other));
        ok(odm_close(map));
    }
    cr_assert_gt(all_steps, 15);
    oracle_free(&start);
}

/* ---- the target -------------------------------------------------------------------------------------------------------- */

/* What is in the way is told, and not touched. */
Test(backup, goes_only_where_nothing_is)
{
    odm_map *map = numbered(temp_map_path());
    odm_error error = {.struct_size = sizeof error};
    const char *to = temp_directory();
    make_file(path_of(to, "letter"), "dear", 4);
    uint64_t digest = tree_digest(to);
    expect_status(odm_backup(map, to, NULL, &error), ODM_E_INVALID);
    expect_message(error, "letter");
    cr_assert_eq(tree_digest(to), digest);
    expect_status(odm_backup(map, path_of(to, "letter"), NULL, &error), ODM_E_INVALID);
    expect_status(odm_backup(map, path_of(to, "no/such"), NULL, &error), ODM_E_IO);
    expect_status(odm_backup(map, NULL, NULL, &error), ODM_E_INVALID);
    expect_status(odm_backup(map, "", NULL, &error), ODM_E_INVALID);
    expect_status(odm_backup(NULL, to, NULL, NULL), ODM_E_INVALID);
    const char *other = temp_map_path();
    ok(odm_close(open_map(other)));
    digest = tree_digest(other);
    expect_status(odm_backup(map, other, NULL, &error), ODM_EXISTS);
    cr_assert_eq(tree_digest(other), digest);
    expect_message(error, other);
    expect_message(error, "is a map already");
    expect_status(odm_backup(map, map->store->path, NULL, &error), ODM_EXISTS);
    expect_message(error, map->store->path);
    // A damaged map whose meta is missing is no remnant of a copy.
    cr_assert_eq(unlink(path_of(other, "meta")), 0);
    digest = tree_digest(other);
    expect_status(odm_backup(map, other, NULL, &error), ODM_E_INVALID);
    cr_assert_eq(tree_digest(other), digest);
    expect_numbered(map);
    ok(odm_close(map));
}

/* Two at once to one place: the second is told. */
Test(backup, is_made_by_one_at_a_time)
{
    odm_map *map = numbered(temp_map_path()), *other;
    ok(odm_dup(map, &other, NULL));
    const char *to = temp_map_path();
    odm__os.now_ns = hasty_clock;
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
    ok(odm_backup(map, to, &progress, NULL));
    odm_error error = {.struct_size = sizeof error};
    expect_status(odm_backup(other, to, NULL, &error), ODM_E_BUSY);
    odm_status status = ODM_OK;
    while (status == ODM_OK) status = odm_backup(map, to, &progress, NULL);
    expect_status(status, ODM_DONE);
    ok(odm_close(other));
    ok(odm_close(map));
    odm__os.now_ns = real_os()->now_ns;
    expect_backup(to);
}

/* Dropped, by a refresh, by other work or by closing, it leaves nothing. */
Test(backup, leaves_nothing_when_it_is_given_up)
{
    odm_map *map = numbered(temp_map_path());
    const char *to = temp_map_path();
    odm__os.now_ns = hasty_clock;
    for (int how = 0; how < 3; how++) {
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
        ok(odm_backup(map, to, &progress, NULL));
        ok(odm_backup(map, to, &progress, NULL));
        cr_assert(file_exists(to));
        if (how == 0) ok(odm_refresh(map));
        if (how == 1) ok(odm_verify(map, NULL, NULL, NULL));
        if (how == 2) ok(odm_close(map));
        cr_assert_not(file_exists(to), "%d", how);
    }
}

/* Also if the process has another working directory by then, and an empty directory of the same name lies there. */
Test(backup, given_up_elsewhere_leaves_strangers_directories)
{
    const char *top = temp_directory(), *elsewhere = temp_directory();
    cr_assert_eq(mkdir(path_of(elsewhere, "copy"), 0777), 0);
    odm_map *map = numbered(temp_map_path());
    odm__os.now_ns = hasty_clock;
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
    cr_assert_eq(chdir(top), 0);
    ok(odm_backup(map, "copy/", &progress, NULL));
    cr_assert(file_exists(path_of(top, "copy")));
    cr_assert_eq(chdir(elsewhere), 0);
    ok(odm_close(map));
    cr_assert(file_exists(path_of(elsewhere, "copy")));
    cr_assert_not(file_exists(path_of(top, "copy")));
    cr_assert_eq(chdir("/"), 0);
}

/* A map in a directory that is closed to others: so is its backup, whatever the umask. */
Test(backup, has_a_directory_like_the_maps)
{
    static const mode_t masks[] = {0, 022, 077}, modes[] = {0700, 0750, 0755, 02770, 0555};
    for (size_t i = 0; i < COUNT_OF(masks); i++) {
        for (size_t k = 0; k < COUNT_OF(modes); k++) {
            const char *path = temp_map_path(), *to = temp_map_path();
            umask(022);
            odm_map *map = open_map(path);
            put(map, "a", "1");
            cr_assert_eq(chmod(path, modes[k]), 0);
            umask(masks[i]);
            ok(odm_backup(map, to, NULL, NULL));
            struct stat status;
            cr_assert_eq(stat(to, &status), 0);
            mode_t expected =
                modes[k] | 0700; // Its owner must be able to make files there, and be it one for reading only.
            cr_assert_eq(status.st_mode & 07777, expected, "umask 0%o, 0%o: 0%o", masks[i], modes[k], status.st_mode);
            ok(odm_close(map));
        }
    }
}

/* ---- others at the same place ------------------------------------------------------------------------------------ */

/* Of a remnant only what is a map's by its whole name goes; what else is there is told. */
Test(backup, removes_no_file_that_only_looks_like_a_remnants)
{
    odm_map *map = numbered(temp_map_path());
    static const char *const strangers[] = {
        "index.html", "index.news", "metadata", "meta.json", "meta.0123456789abcdeF", "meta.0123456789abcdef0",
        "locksmith",  "log/notes",  "log/1",    "log/stamp", "log/stamp.collection",  "log/000000000011",
    };
    static const char *const remnants[] = {
        "index", "index.new", "lock", "meta.0123456789abcdef", "log/00000000001", "log/stamp.0123456789abcdef",
    };
    for (size_t i = 0; i <= COUNT_OF(strangers); i++) {
        const char *to = temp_directory();
        make_file(path_of(to, COPY_MARK), "", 0);
        cr_assert_eq(mkdir(path_of(to, "log"), 0777), 0);
        for (size_t k = 0; k < COUNT_OF(remnants); k++) make_file(path_of(to, remnants[k]), "x", 1);
        if (i == COUNT_OF(strangers)) {
            ok(odm_backup(map, to, NULL, NULL));
            expect_backup(to);
            continue;
        }
        make_file(path_of(to, strangers[i]), "precious", 8);
        odm_error error = {.struct_size = sizeof error};
        expect_status(odm_backup(map, to, NULL, &error),
                      strncmp(strangers[i], "log/", 4) == 0 ? ODM_E_IO : ODM_E_INVALID);
        expect_message(error, strncmp(strangers[i], "log/", 4) == 0 ? "log/" : strangers[i]);
        cr_assert_eq(file_size(path_of(to, strangers[i])), 8, "%s", strangers[i]);
    }
    ok(odm_close(map));
}

/* The mark does not make another directory's files ours. */
Test(backup, follows_no_link)
{
    odm_map *map = numbered(temp_map_path());
    const char *to = temp_directory(), *victim = temp_directory();
    make_file(path_of(victim, "00000000001"), "precious", 8);
    make_file(path_of(victim, "stamp.0123456789abcdef"), "precious", 8);
    make_file(path_of(to, COPY_MARK), "", 0);
    cr_assert_eq(symlink(victim, path_of(to, "log")), 0);
    uint64_t digest = tree_digest(victim);
    odm_error error = {.struct_size = sizeof error};
    expect_status(odm_backup(map, to, NULL, &error), ODM_E_CORRUPT);
    expect_message(error, "log is a symbolic link");
    cr_assert_eq(tree_digest(victim), digest);
    ok(odm_close(map));
}

/* A mark that a kill has left beside `meta` means nothing. */
Test(backup, leaves_a_map_with_a_mark)
{
    odm_map *map = numbered(temp_map_path());
    const char *to = temp_map_path();
    ok(odm_backup(map, to, NULL, NULL));
    make_file(path_of(to, COPY_MARK), "", 0);
    uint64_t digest = tree_digest(to);
    expect_status(odm_backup(map, to, NULL, NULL), ODM_EXISTS);
    cr_assert_eq(tree_digest(to), digest);
    ok(odm_close(map));
}

static struct {
    odm_map *map;
    const char *to;
    odm_progress progress;
    _Atomic int *turn;
    bool whole; // a map, or only half of one
    enum { FINISHED, GIVEN_UP, BEGUN_ANEW } end;
} meeting;

static void maker_that_waits(void *context)
{
    (void)context;
    odm__os.now_ns = hasty_clock;
    odm_map *map;
    must(odm_open(meeting.to + strlen(meeting.to) + 1, NULL, &map, NULL) == ODM_OK);
    odm_status status = odm_backup(map, meeting.to, &meeting.progress, NULL);
    must(status == ODM_OK);
    *meeting.turn = 1;
    wait_for(meeting.turn, 2);
    if (meeting.end != FINISHED) must(odm_refresh(map) == ODM_OK);
    if (meeting.end == BEGUN_ANEW) {
        meeting.progress.position[0] = 0;
        must(odm_backup(map, meeting.to, &meeting.progress, NULL) == ODM_OK);
        *meeting.turn = 3;
        wait_for(meeting.turn, 4);
    }
    while (meeting.end != GIVEN_UP && status == ODM_OK) {
        status = odm_backup(map, meeting.to, &meeting.progress, NULL);
    }
    must(status == (meeting.end == GIVEN_UP ? ODM_OK : ODM_DONE));
    must(odm_close(map) == ODM_OK);
    *meeting.turn = 3;
}

static int lock_after_the_other_is_done(int fd, int command, short type, off_t at, off_t size, short *found)
{
    if (meeting.turn != NULL && *meeting.turn == 1 && type == F_WRLCK) {
        *meeting.turn = 2;
        wait_for(meeting.turn, 3);
    }
    return real_os()->lock(fd, command, type, at, size, found);
}

/* Another backup ends, is given up, or begins anew between the look for `meta` and the lock on its mark: what
 * is there then stays. */
Test(backup, does_not_take_a_finished_one_for_a_remnant)
{
    static char paths[2 * 4096];
    for (int end = FINISHED; end <= BEGUN_ANEW; end++) {
        const char *path = temp_map_path(), *to = end == BEGUN_ANEW ? temp_directory() : temp_map_path();
        ok(odm_close(numbered(path)));
        snprintf(paths, sizeof paths, "%s", to);
        snprintf(paths + strlen(to) + 1, sizeof paths - strlen(to) - 1, "%s", path);
        meeting.to = paths;
        meeting.end = end;
        meeting.progress = (odm_progress){.struct_size = sizeof meeting.progress, .max_ms = 1};
        meeting.turn = shared_memory(sizeof *meeting.turn);
        pid_t maker = start_child(maker_that_waits, NULL);
        wait_for(meeting.turn, 1);
        odm_map *map = open_map(path, .flags = ODM_READ_ONLY);
        odm__os.lock = lock_after_the_other_is_done;
        odm_error error = {.struct_size = sizeof error};
        expect_status(odm_backup(map, to, NULL, &error), end == FINISHED ? ODM_EXISTS : ODM_E_BUSY);
        odm__os.lock = real_os()->lock;
        expect_message(error, end == FINISHED ? "is a map already" : "another copy");
        if (end == BEGUN_ANEW) *meeting.turn = 4;
        expect_child_succeeds(maker);
        if (end == GIVEN_UP) ok(odm_backup(map, to, NULL, NULL));
        ok(odm_close(map));
        expect_backup(to);
    }
}

static int backup_before_log(int directory, const char *name, mode_t mode)
{
    if (strcmp(name, "log") == 0 && meeting.map != NULL) {
        odm_map *map = meeting.map;
        meeting.map = NULL;
        ok(odm_backup(map, meeting.to, &meeting.progress, NULL));
    }
    return real_os()->make_directory(directory, name, mode);
}

/* A backup begins where a map is just being made, and has found nothing: the map is refused, the backup goes on. */
Test(backup, keeps_makers_of_a_map_out)
{
    for (int there = 0; there < 2; there++) {
        odm_map *map = numbered(temp_map_path());
        meeting.map = map;
        meeting.to = there ? temp_directory() : temp_map_path();
        meeting.progress = (odm_progress){.struct_size = sizeof meeting.progress, .max_ms = 1};
        odm__os.now_ns = hasty_clock;
        odm__os.make_directory = backup_before_log;
        odm_error error = {.struct_size = sizeof error};
        expect_status(try_open(meeting.to, &error), ODM_E_INVALID);
        expect_message(error, COPY_MARK);
        cr_assert_null(meeting.map);
        odm__os.make_directory = real_os()->make_directory;
        odm_status status = ODM_OK;
        while (status == ODM_OK) status = odm_backup(map, meeting.to, &meeting.progress, NULL);
        expect_status(status, ODM_DONE);
        odm__os.now_ns = real_os()->now_ns;
        expect_backup(meeting.to);
        ok(odm_close(map));
    }
}

static int open_after_a_map(int directory, const char *name, int flags, mode_t mode)
{
    if (strcmp(name, COPY_MARK) == 0 && (flags & O_CREAT) != 0 && meeting.to != NULL) {
        const char *to = meeting.to;
        meeting.to = NULL;
        if (meeting.whole) {
            odm_map *map = open_map(to);
            put(map, "mine", "1");
            ok(odm_close(map));
        } else {
            cr_assert_eq(mkdir(path_of(to, "log"), 0777), 0);
        }
    }
    return real_os()->open(directory, name, flags, mode);
}

/* A map is made, or half of one, after the backup has found its place empty: it is refused, and leaves no mark. */
Test(backup, keeps_out_of_a_map_that_is_being_made)
{
    odm_map *map = numbered(temp_map_path());
    for (int whole = 0; whole < 2; whole++) {
        const char *to = temp_directory();
        meeting.to = to;
        meeting.whole = whole;
        odm__os.open = open_after_a_map;
        expect_status(odm_backup(map, to, NULL, NULL), whole ? ODM_EXISTS : ODM_E_INVALID);
        odm__os.open = real_os()->open;
        cr_assert_null(meeting.to);
        cr_assert_not(file_exists(path_of(to, COPY_MARK)));
        cr_assert(file_exists(path_of(to, "log")));
        odm_map *other = open_map(to);
        if (whole) expect_value(other, "mine", "1");
        ok(odm_close(other));
    }
    ok(odm_close(map));
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

/* A child has the handle, and with it the backup that its parent is at. It can neither go on with it nor remove it. */
Test(backup, belongs_to_the_process_that_began_it)
{
    for (int how = 0; how < 4; how++) {
        odm_map *map = numbered(temp_map_path());
        const char *to = temp_map_path();
        odm__os.now_ns = hasty_clock;
        odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
        ok(odm_backup(map, to, &progress, NULL));
        ok(odm_backup(map, to, &progress, NULL));
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            size_t descriptors = descriptor_count();
            odm_error error = {.struct_size = sizeof error};
            if (how == 0) must(odm_refresh(map) == ODM_OK);
            if (how == 1) {
                must(odm_backup(map, to, &progress, &error) == ODM_E_INVALID);
                must(strstr(error.message, "forked") != NULL);
                must(odm_backup(map, to, &progress, NULL) == ODM_E_INVALID);
            }
            if (how == 2) must(odm_backup(map, to, NULL, NULL) == ODM_E_BUSY);
            must(odm_close(map) == ODM_OK);
            must(descriptor_count() < descriptors);
            _exit(0);
        }
        expect_child_succeeds(child);
        odm_status status = ODM_OK;
        while (status == ODM_OK) status = odm_backup(map, to, &progress, NULL);
        expect_status(status, ODM_DONE);
        ok(odm_close(map));
        odm__os.now_ns = real_os()->now_ns;
        expect_backup(to);
    }
}

/* Nor does it take away what its parent has finished since. */
Test(backup, that_is_finished_stays_when_a_child_closes)
{
    odm_map *map = numbered(temp_map_path());
    const char *to = temp_map_path();
    odm__os.now_ns = hasty_clock;
    odm_progress progress = {.struct_size = sizeof progress, .max_ms = 1};
    ok(odm_backup(map, to, &progress, NULL));
    _Atomic int *turn = shared_memory(sizeof *turn);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        wait_for(turn, 1);
        must(odm_close(map) == ODM_OK);
        _exit(0);
    }
    odm_status status = ODM_OK;
    while (status == ODM_OK) status = odm_backup(map, to, &progress, NULL);
    expect_status(status, ODM_DONE);
    *turn = 1;
    expect_child_succeeds(child);
    ok(odm_close(map));
    odm__os.now_ns = real_os()->now_ns;
    expect_backup(to);
}

static size_t calls_until_fork;

static int strict_close(int fd)
{
    must(real_os()->close(fd) == 0); // It was open: none is closed twice, which might be another's by then.
    return 0;
}

/* In the midst of a step as it is when another thread forks. */
static void fork_in_between(void)
{
    if (calls_until_fork == 0 || --calls_until_fork != 0) return;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        odm__os.close = strict_close;
        must(odm_close(meeting.map) == ODM_OK);
        _exit(0);
    }
    expect_child_succeeds(child);
}
#define FORKING(result, name, parameters, arguments) \
    static result forking_##name parameters          \
    {                                                \
        fork_in_between();                           \
        return real_os()->name arguments;            \
    }
FORKING(ssize_t, write_at, (int fd, const void *buffer, size_t size, off_t offset), (fd, buffer, size, offset))
FORKING(int, reserve, (int fd, off_t offset, off_t size), (fd, offset, size))
FORKING(int, sync_data, (int fd), (fd))
FORKING(int, sync_directory, (int fd), (fd))
FORKING(int, rename_new, (int directory, const char *from, const char *to), (directory, from, to))

static int forking_close(int fd)
{
    char link[32], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = '\0';
    int result = real_os()->close(fd);
    // Only its segments: others are closed with a mutex that a fork by the same thread would wait for.
    if (strncmp(path, meeting.to, strlen(meeting.to)) == 0 && strstr(path, "/log/0") != NULL) fork_in_between();
    return result;
}

/* Wherever another thread of its maker is when it is forked, a child that closes the handle harms nothing. */
Test(backup, is_not_harmed_by_children_of_its_midst)
{
    odm_map *map = numbered(temp_map_path());
    meeting.map = map;
    odm__os.write_at = forking_write_at;
    odm__os.reserve = forking_reserve;
    odm__os.sync_data = forking_sync_data;
    odm__os.sync_directory = forking_sync_directory;
    odm__os.rename_new = forking_rename_new;
    odm__os.close = forking_close;
    size_t n = 1;
    for (bool forked = true; forked; n++) {
        const char *to = temp_map_path();
        meeting.to = to;
        calls_until_fork = n;
        ok(odm_backup(map, to, NULL, NULL));
        forked = calls_until_fork == 0;
        calls_until_fork = 0;
        odm_map *copy = open_map(to, .flags = ODM_READ_ONLY);
        expect_numbered(copy);
        ok(odm_close(copy));
        cr_assert_not(file_exists(path_of(to, COPY_MARK)));
        remove_tree(to);
    }
    cr_assert_gt(n, 20);
    ok(odm_close(map));
}

static void maker_with_a_child(void *context)
{
    _Atomic int *child = context;
    odm__os.now_ns = hasty_clock;
    odm_map *map;
    must(odm_open(meeting.to + strlen(meeting.to) + 1, NULL, &map, NULL) == ODM_OK);
    must(odm_backup(map, meeting.to, &meeting.progress, NULL) == ODM_OK);
    pid_t pid = fork();
    if (pid == 0) *child = getpid();
    for (;;) pause();
}

/* Its maker was killed, and left a child that knows of nothing: the place can be used again. */
Test(backup, of_a_dead_maker_is_not_kept_by_its_child)
{
    static char paths[2 * 4096];
    const char *path = temp_map_path(), *to = temp_map_path();
    ok(odm_close(numbered(path)));
    snprintf(paths, sizeof paths, "%s", to);
    snprintf(paths + strlen(to) + 1, sizeof paths - strlen(to) - 1, "%s", path);
    meeting.to = paths;
    meeting.progress = (odm_progress){.struct_size = sizeof meeting.progress, .max_ms = 1};
    _Atomic int *child = shared_memory(sizeof *child);
    pid_t maker = start_child(maker_with_a_child, (void *)child);
    while (*child == 0) usleep(1000);
    kill_child(maker);
    cr_assert(file_exists(path_of(to, COPY_MARK)));
    odm_map *map = open_map(path);
    odm_status status = odm_backup(map, to, NULL, NULL);
    kill(*child, SIGKILL);
    ok(status);
    ok(odm_close(map));
    expect_backup(to);
}

/* What is damaged is not copied as if it were not. */
Test(backup, refuses_damage_and_names_it)
{
    const char *path = temp_map_path(), *to = temp_map_path();
    odm_map *map = numbered(path);
    uint64_t head = statistics_of(map).head;
    char name[32];
    snprintf(name, sizeof name, "log/%011u", (unsigned)address_number(head));
    flip_bits_at(path_of(path, name), SEGMENT_HEADER_SIZE + RECORD_HEADER_SIZE + 2, 1);
    odm_error error = {.struct_size = sizeof error};
    expect_status(odm_backup(map, to, NULL, &error), ODM_E_CORRUPT);
    expect_message(error, name);
    expect_message(error, "offset 64");
    cr_assert_not(file_exists(to));
    ok(odm_close(map));
}

/* ---- every step fails, every step is the last ------------------------------------------------------------------------ */

/* Whichever call fails, it is a status, the source is as it was, and the same place can be used again. */
Test(backup, any_call_may_fail)
{
    odm_map *map = open_map(temp_map_path(), .stripes = 2);
    put_numbers(map, 0, 60, 0);
    for (int kind = 0; kind < 2; kind++) {
        bool failed = true;
        size_t n = 1;
        for (; failed; n++) {
            cr_assert_lt(n, 600);
            const char *to = temp_map_path();
            size_t descriptors = descriptor_count();
            fail_call(n, kind == 0 ? EIO : ENOSPC);
            odm_status status = odm_backup(map, to, NULL, NULL);
            failed = fail_no_more();
            cr_assert_eq(descriptor_count(), descriptors, "call %zu: %zu descriptors, not %zu, after %s", n,
                         descriptor_count(), descriptors, odm_status_name(status));
            if (status != ODM_OK) {
                cr_assert(status == ODM_E_IO || status == ODM_E_NO_SPACE, "call %zu: %s", n, odm_status_name(status));
                cr_assert(!file_exists(path_of(to, "meta")), "call %zu", n);
                ok(odm_backup(map, to, NULL, NULL));
            }
            odm_map *copy = open_map(to, .flags = ODM_READ_ONLY);
            expect_numbers(copy, 0, 60, 0);
            ok(odm_close(copy));
            remove_tree(to);
        }
        cr_assert_gt(n, 30);
    }
    ok(odm_verify(map, NULL, NULL, NULL));
    ok(odm_close(map));
}

/* Nor does it leave anything for want of descriptors, which removing needs as well. */
Test(backup, leaves_nothing_for_want_of_descriptors)
{
    enum { DESCRIPTORS = 64 };
    odm_map *map = numbered(temp_map_path());
    const char *to = temp_map_path();
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){DESCRIPTORS, DESCRIPTORS}), 0);
    size_t left = 0;
    for (odm_status status = ODM_E_NO_MEMORY; status != ODM_OK; left++) {
        cr_assert_lt(left, 20);
        int taken[DESCRIPTORS];
        size_t count = 0;
        while ((taken[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) count++;
        for (size_t i = 0; i < left; i++) close(taken[--count]);
        status = odm_backup(map, to, NULL, NULL);
        bool there = file_exists(to);
        while (count > 0) close(taken[--count]);
        cr_assert(status == ODM_OK || status == ODM_E_NO_MEMORY, "%zu: %s", left, odm_status_name(status));
        cr_assert_eq(there, status == ODM_OK, "%zu: %s", left, odm_status_name(status));
    }
    cr_assert_gt(left, 5);
    ok(odm_close(map));
    expect_backup(to);
}

/* Killed anywhere, the target is no map, or the whole one; and the next backup may go there. */
Test(backup, survives_a_kill_anywhere)
{
    const char *path = temp_map_path();
    odm_map *map = open_map(path, .stripes = 2);
    put_numbers(map, 0, 60, 0);
    ok(odm_close(map));
    bool finished = false;
    size_t n = 1;
    for (; !finished; n++) {
        cr_assert_lt(n, 900);
        const char *to = temp_map_path();
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            must(odm_open(path, NULL, &map, NULL) == ODM_OK);
            die_before_call(n);
            must(odm_backup(map, to, NULL, NULL) == ODM_OK);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        finished = WIFEXITED(status);
        if (finished) cr_assert_eq(WEXITSTATUS(status), 0);
        if (file_exists(to) && !file_exists(path_of(to, "meta")) && file_exists(path_of(to, COPY_MARK))) {
            cr_assert_neq(try_open(to, NULL), ODM_OK, "call %zu: a remnant opens", n);
        }
        map = open_map(path);
        odm_status again = odm_backup(map, to, NULL, NULL);
        cr_assert(again == ODM_OK || (again == ODM_EXISTS && file_exists(path_of(to, "meta"))), "call %zu: %s", n,
                  odm_status_name(again));
        ok(odm_close(map));
        map = open_map(to);
        expect_numbers(map, 0, 60, 0);
        ok(odm_verify(map, NULL, NULL, NULL));
        ok(odm_close(map));
        remove_tree(to);
    }
    cr_assert_gt(n, 40);
}
