/* runner.c - runs every engine's worker, round by round, and prints the medians as Markdown.
 *
 *   bench_runner --dir DIRECTORY [--sizes N,N] [--workloads seed,u64] [--engines odm,lmdb] [--rounds N]
 *                [--operations N] [--seed N] [--json FILE]
 *
 * Within a round the engines take turns, so that what changes on the machine over minutes meets all of them; every
 * phase is a process of its own (worker.c), and one runs at a time. The first engine is the one the others are compared
 * with.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIST_MAX = 16, PATH_SIZE = 4096, METRIC_SIZE = 32, UNIT_SIZE = 8, ROUNDS_MAX = 100 };

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

struct names {
    size_t count;
    char *at[LIST_MAX];
};

struct config {
    struct names sizes, workloads, engines;
    unsigned rounds;
    const char *operations, *seed; // handed on as they are
    const char *directory, *json;
    char program_directory[PATH_SIZE]; // where the workers are: beside this program
};

static struct names split(const char *text)
{
    struct names names = {0};
    char *copy = strdup(text); // Kept: the names point into it.
    if (!copy) die("out of memory");
    for (char *name = strtok(copy, ","); name; name = strtok(NULL, ",")) {
        if (names.count == LIST_MAX) die("more than %d in '%s'", LIST_MAX, text);
        names.at[names.count++] = name;
    }
    if (names.count == 0) die("an empty list was given");
    return names;
}

/* Checked here, so that it can be written to the results as it is. */
static const char *number(const char *text)
{
    if (*text == '\0' || strspn(text, "0123456789") != strlen(text)) die("'%s' is not a number", text);
    return text;
}

static void usage(FILE *to)
{
    fputs("bench_runner --dir DIRECTORY [--sizes 1000000,10000000] [--workloads seed,u64]\n"
          "             [--engines odm,lmdb] [--rounds 3] [--operations 2000000] [--seed 1]\n"
          "             [--json FILE]\n",
          to);
}

static struct config parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"sizes", required_argument, NULL, 's'},
        {"workloads", required_argument, NULL, 'w'},
        {"engines", required_argument, NULL, 'e'},
        {"rounds", required_argument, NULL, 'n'},
        {"operations", required_argument, NULL, 'o'},
        {"seed", required_argument, NULL, 'r'},
        {"dir", required_argument, NULL, 'd'},
        {"json", required_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct config config = {.rounds = 3, .operations = "2000000", .seed = "1", .json = "/dev/null"};
    const char *sizes = "1000000,10000000";
    const char *workloads = "seed,u64";
    const char *engines = "odm,lmdb";
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
            case 's': sizes = optarg; break;
            case 'w': workloads = optarg; break;
            case 'e': engines = optarg; break;
            case 'n': config.rounds = (unsigned)strtoul(number(optarg), NULL, 10); break;
            case 'o': config.operations = number(optarg); break;
            case 'r': config.seed = number(optarg); break;
            case 'd': config.directory = optarg; break;
            case 'j': config.json = optarg; break;
            case 'h': usage(stdout); exit(0);
            default: usage(stderr); exit(2);
        }
    }
    if (!config.directory || optind < argc) {
        usage(stderr);
        exit(2);
    }
    if (config.rounds == 0 || config.rounds > ROUNDS_MAX) die("--rounds: 1 to %d", ROUNDS_MAX);
    config.sizes = split(sizes);
    for (size_t i = 0; i < config.sizes.count; i++) number(config.sizes.at[i]);
    config.workloads = split(workloads);
    config.engines = split(engines);

    ssize_t length = readlink("/proc/self/exe", config.program_directory, PATH_SIZE - 1);
    if (length < 0) die("/proc/self/exe: %s", strerror(errno));
    config.program_directory[length] = '\0';
    *strrchr(config.program_directory, '/') = '\0';
    return config;
}

/* ---- samples ----------------------------------------------------------------------------------------------------- */

/* What is measured together: one workload at one size. */
struct series {
    const char *workload;
    const char *size;
};

struct sample {
    const char *engine;
    unsigned round;
    char metric[METRIC_SIZE];
    char unit[UNIT_SIZE];
    double value;
};

/* Those of the current series. */
static struct sample *samples;
static size_t sample_count;

static struct sample *sample_add(void)
{
    static size_t capacity;
    if (sample_count == capacity) {
        capacity = capacity ? capacity * 2 : 64;
        samples = realloc(samples, capacity * sizeof *samples);
        if (!samples) die("out of memory");
    }
    return &samples[sample_count++];
}

struct summary {
    bool present;
    bool is_time; // ns, else a plain number
    double median, lowest, highest;
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct summary summarize(const char *engine, const char *metric)
{
    struct summary summary = {0};
    double values[ROUNDS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < sample_count; i++) {
        if (strcmp(samples[i].engine, engine) != 0 || strcmp(samples[i].metric, metric) != 0) continue;
        if (count < ROUNDS_MAX) values[count++] = samples[i].value;
        summary.is_time = strcmp(samples[i].unit, "ns") == 0;
    }
    if (count == 0) return summary;
    qsort(values, count, sizeof *values, compare);
    summary.present = true;
    summary.median = (values[(count - 1) / 2] + values[count / 2]) / 2;
    summary.lowest = values[0];
    summary.highest = values[count - 1];
    return summary;
}

/* ---- JSON lines -------------------------------------------------------------------------------------------------- */

static void json_string(FILE *json, const char *name, const char *value)
{
    fprintf(json, "\"%s\":\"", name);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\') fputc('\\', json);
        if ((unsigned char)*value >= ' ') fputc(*value, json);
    }
    fputc('"', json);
}

static void json_sample(FILE *json, const struct series *series, const struct sample *sample)
{
    fputc('{', json);
    json_string(json, "workload", series->workload);
    fprintf(json, ",\"size\":%s,", series->size);
    json_string(json, "engine", sample->engine);
    fprintf(json, ",\"round\":%u,", sample->round);
    json_string(json, "metric", sample->metric);
    fputc(',', json);
    json_string(json, "unit", sample->unit);
    fprintf(json, ",\"value\":%.6g}\n", sample->value);
    fflush(json); // A run takes minutes: what was measured stays, whatever comes.
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static void worker_path(const struct config *config, const char *engine, char *path)
{
    int length = snprintf(path, PATH_SIZE, "%s/bench_worker_%s", config->program_directory, engine);
    if (length < 0 || length >= PATH_SIZE) die("the path of the worker is too long");
}

static FILE *worker_start(const struct config *config, const char *engine, const char *phase,
                          const struct series *series, const char *directory, pid_t *process)
{
    char path[PATH_SIZE];
    worker_path(config, engine, path);
    int ends[2];
    if (pipe(ends) != 0) die("pipe: %s", strerror(errno));
    fflush(NULL); // Else the child would write our buffers a second time.
    *process = fork();
    if (*process < 0) die("fork: %s", strerror(errno));
    if (*process == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(path, path, "--phase", phase, "--workload", series->workload, "--size", series->size, "--operations",
              config->operations, "--seed", config->seed, "--dir", directory, (char *)NULL);
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        _exit(1);
    }
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    if (!output) die("fdopen: %s", strerror(errno));
    return output;
}

static void worker_end(FILE *output, pid_t process, const char *engine, const char *phase)
{
    fclose(output);
    int status;
    if (waitpid(process, &status, 0) != process) die("waitpid: %s", strerror(errno));
    bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    // This phase ends by killing itself: worker.c.
    bool may_be_killed = strcmp(phase, "reopen") == 0;
    if (ended_well || (may_be_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) return;
    die("%s: phase %s failed: %s %d", engine, phase, WIFEXITED(status) ? "exit code" : "signal",
        WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static void run_phase(const struct config *config, FILE *json, const struct series *series, const char *engine,
                      unsigned round, const char *phase, const char *directory)
{
    pid_t process;
    FILE *output = worker_start(config, engine, phase, series, directory, &process);
    struct sample sample = {.engine = engine, .round = round};
    // The widths are METRIC_SIZE - 1 and UNIT_SIZE - 1.
    while (fscanf(output, "%31s %7s %lf", sample.metric, sample.unit, &sample.value) == 3) {
        *sample_add() = sample;
        json_sample(json, series, &sample);
    }
    worker_end(output, process, engine, phase);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

static void make_directory(const struct config *config, const char *engine, char *directory)
{
    int length = snprintf(directory, PATH_SIZE, "%s/%s", config->directory, engine);
    if (length < 0 || length >= PATH_SIZE) die("--dir is too long");
    if (mkdir(directory, 0755) != 0) die("mkdir %s: %s", directory, strerror(errno));
}

/* Before the next engine starts: the kernel then drops the pages that it has not written yet, instead of writing them
 * while that one is measured. */
static void remove_directory(const char *directory)
{
    if (nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0) die("remove %s: %s", directory, strerror(errno));
}

static void run_round(const struct config *config, FILE *json, const struct series *series, const char *engine,
                      unsigned round)
{
    static const char *const one_map[] = {"load", "reopen", "killed", "rebuild", "parallel", "remove"};
    char directory[PATH_SIZE];
    fprintf(stderr, "round %u of %u: %s %s, %s\n", round, config->rounds, series->workload, series->size, engine);

    make_directory(config, engine, directory);
    for (size_t i = 0; i < sizeof one_map / sizeof *one_map; i++) {
        run_phase(config, json, series, engine, round, one_map[i], directory);
    }
    remove_directory(directory);

    make_directory(config, engine, directory);
    run_phase(config, json, series, engine, round, "batch", directory);
    remove_directory(directory);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* A line of the table. Goals are promises of the project: against LMDB, against our own single gets, or absolute. 0:
 * none. */
struct row {
    const char *metric;
    const char *label;
    const char *instead; // the metric of a peer without this one that it is compared by; or NULL
    double goal_ratio;   // LMDB's figure divided by ours, at least
    double goal_own;     // our `instead` divided by ours, at least; for fixed keys only
    double goal_ns_max;  // ours, below
};

static const struct row rows[] = {
    {"put", "put", NULL, 4, 0, 0},
    {"write_many", "put, 64 a call", "put", 0, 0, 0},
    {"get", "get, hit", NULL, 5, 0, 0},
    {"get_miss", "get, miss", NULL, 0, 0, 0},
    {"get_many", "get, 64 a call", "get", 0, 4, 0},
    {"iterate", "iterate", NULL, 1, 0, 0},
    {"update", "update", NULL, 0, 0, 0},
    {"update_steady", "update, log turned over twice", NULL, 2, 0, 0},
    {"remove", "remove", NULL, 0, 0, 0},
    {"close", "close", NULL, 0, 0, 0},
    {"open_closed", "open, closed cleanly", NULL, 0, 0, 1e6},
    {"first_get_closed", "first get of that process", NULL, 0, 0, 0},
    {"open_killed", "open, killed", NULL, 0, 0, 1e6},
    {"first_get_killed", "first get of that process", NULL, 0, 0, 0},
    {"open_rebuild", "open, index lost", NULL, 0, 0, 0},
    {"rebuild", "GB of log a second of it", NULL, 0, 0, 0},
    {"disk", "bytes on disk per byte of payload", NULL, 0, 0, 0},
    {"disk_steady", "the same after the updates", NULL, 0, 0, 0},
    {"get_p50", "one get, with the clock: median", NULL, 0, 0, 0},
    {"get_p99", "99 %", NULL, 0, 0, 0},
    {"get_p99.99", "99.99 %", NULL, 0, 0, 0},
    {"get_max", "longest", NULL, 0, 0, 0},
    {"put_p50", "one update, with the clock: median", NULL, 0, 0, 0},
    {"put_p99", "99 %", NULL, 0, 0, 0},
    {"put_p99.99", "99.99 %", NULL, 0, 0, 1e5},
    {"put_max", "longest", NULL, 0, 0, 0},
    {"get_threads_1", "get, 1 thread", NULL, 0, 0, 0},
    {"get_threads_2", "get, 2 threads together", NULL, 0, 0, 0},
    {"put_threads_1", "update, 1 thread", NULL, 0, 0, 0},
    {"put_threads_2", "update, 2 threads together", NULL, 0, 0, 0},
    {"get_processes_2", "get, 2 processes together", NULL, 0, 0, 0},
    {"put_processes_2", "update, 2 processes together", NULL, 0, 0, 0},
};

/* How a figure of this magnitude is written. */
struct scale {
    const char *unit;
    double divisor;
    int decimals;
};

static struct scale scale_of(bool is_time, double value)
{
    if (!is_time) return (struct scale){"", 1, 2};
    if (value < 100) return (struct scale){" ns", 1, 1};
    if (value < 1e4) return (struct scale){" ns", 1, 0};
    if (value < 1e6) return (struct scale){" µs", 1e3, 0};
    return (struct scale){" ms", 1e6, value < 1e8 ? 1 : 0};
}

static void print_cell(const struct summary *summary)
{
    if (!summary->present) {
        printf(" – |");
        return;
    }
    struct scale scale = scale_of(summary->is_time, summary->median);
    printf(" %.*f%s", scale.decimals, summary->median / scale.divisor, scale.unit);
    if (summary->lowest < summary->highest) {
        printf(" (%.*f–%.*f)", scale.decimals, summary->lowest / scale.divisor, scale.decimals,
               summary->highest / scale.divisor);
    }
    printf(" |");
}

/* The peer's own figure, or that of the call it has instead. */
static double peer_figure(const char *peer, const struct row *row, bool *instead)
{
    struct summary figure = summarize(peer, row->metric);
    *instead = !figure.present && row->instead != NULL;
    if (*instead) figure = summarize(peer, row->instead);
    return figure.present ? figure.median : 0;
}

static void print_goal(const struct row *row, const struct summary *ours, const struct series *series)
{
    bool instead;
    double theirs = peer_figure("lmdb", row, &instead);
    printf(" ");
    if (row->goal_ratio > 0 && theirs > 0) {
        printf("≥ %g × LMDB: %s", row->goal_ratio, theirs / ours->median >= row->goal_ratio ? "met" : "**missed**");
    }
    if (row->goal_own > 0 && strcmp(series->workload, "u64") == 0) {
        double ratio = summarize("odm", row->instead).median / ours->median;
        printf("≥ %g × single: %.1f, %s", row->goal_own, ratio, ratio >= row->goal_own ? "met" : "**missed**");
    }
    if (row->goal_ns_max > 0) {
        printf("≤ %g ms: %s", row->goal_ns_max / 1e6, ours->median < row->goal_ns_max ? "met" : "**missed**");
    }
    printf(" |");
}

static void print_row(const struct config *config, const struct series *series, const struct row *row)
{
    const struct names *engines = &config->engines;
    struct summary first = summarize(engines->at[0], row->metric);
    printf("| %s |", row->label);
    for (size_t i = 0; i < engines->count; i++) {
        struct summary summary = summarize(engines->at[i], row->metric);
        print_cell(&summary);
    }
    for (size_t i = 1; i < engines->count; i++) {
        bool instead;
        double theirs = peer_figure(engines->at[i], row, &instead);
        if (!first.present || theirs <= 0)
            printf(" – |");
        else
            printf(" %.2f ×%s |", theirs / first.median, instead ? " (single)" : "");
    }
    if (strcmp(engines->at[0], "odm") == 0 && first.present)
        print_goal(row, &first, series);
    else
        printf(" |");
    printf("\n");
}

static void print_table(const struct config *config, const struct series *series)
{
    const struct names *engines = &config->engines;
    unsigned long long size = strtoull(series->size, NULL, 10);
    bool millions = size % 1000000 == 0;
    printf("\n### %s, %llu%s entries\n\n| |", series->workload, millions ? size / 1000000 : size, millions ? " M" : "");
    for (size_t i = 0; i < engines->count; i++) printf(" %s |", engines->at[i]);
    for (size_t i = 1; i < engines->count; i++) printf(" %s / %s |", engines->at[i], engines->at[0]);
    printf(" goal |\n|---|");
    for (size_t i = 0; i < engines->count * 2 - 1; i++) printf("---:|");
    printf("---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool measured = false;
        for (size_t j = 0; j < engines->count; j++) measured |= summarize(engines->at[j], rows[i].metric).present;
        if (measured) print_row(config, series, &rows[i]);
    }
    fflush(stdout);
}

/* ---- the machine and the engines --------------------------------------------------------------------------------- */

static void cpu_model(char *model, size_t model_size)
{
    snprintf(model, model_size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    char line[512];
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(model, model_size, "%.200s", colon + 2);
        break;
    }
    fclose(file);
}

static const char *file_system_name(const char *directory)
{
    struct statfs status;
    if (statfs(directory, &status) != 0) die("%s: %s", directory, strerror(errno));
    switch ((unsigned long)status.f_type) {
        case 0xef53: return "ext4";
        case 0x58465342: return "xfs";
        case 0x9123683e: return "btrfs";
        case 0x01021994: return "tmpfs";
        case 0x794c7630: return "overlay";
        case 0x2fc12fc1: return "zfs";
        default: return "another file system";
    }
}

static void describe_machine(const struct config *config, FILE *json)
{
    char model[256];
    char date[32];
    struct utsname system;
    time_t now = time(NULL);
    cpu_model(model, sizeof model);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%MZ", gmtime(&now));
    if (uname(&system) != 0) die("uname: %s", strerror(errno));
    const char *file_system = file_system_name(config->directory);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long long memory_bytes = (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);

    fprintf(json, "{\"rounds\":%u,\"operations\":%s,\"seed\":%s,\"cores\":%ld,\"memory_bytes\":%lld,", config->rounds,
            config->operations, config->seed, cores, memory_bytes);
    json_string(json, "date", date);
    fputc(',', json);
    json_string(json, "cpu", model);
    fputc(',', json);
    json_string(json, "kernel", system.release);
    fputc(',', json);
    json_string(json, "file_system", file_system);
    fputs("}\n", json);

    printf("%s, %ld cores, %lld GiB, Linux %s, %s. Medians of %u rounds (lowest–highest), %s.\n\n", model, cores,
           memory_bytes >> 30, system.release, file_system, config->rounds, date);
}

static void describe_engine(const struct config *config, FILE *json, const char *engine)
{
    // MDB_INTEGERKEY and the like: the workload of integer keys shows all settings.
    struct series series = {.workload = "u64", .size = "1"};
    for (size_t i = 0; i < config->workloads.count; i++) {
        series.workload = config->workloads.at[i];
        pid_t process;
        char text[512] = "";
        FILE *output = worker_start(config, engine, "describe", &series, config->directory, &process);
        if (!fgets(text, sizeof text, output)) die("%s: no answer", engine);
        worker_end(output, process, engine, "describe");
        text[strcspn(text, "\n")] = '\0';
        printf("- %s, %s: %s\n", engine, series.workload, text);
        fputc('{', json);
        json_string(json, "engine", engine);
        fputc(',', json);
        json_string(json, "workload", series.workload);
        fputc(',', json);
        json_string(json, "settings", text);
        fputs("}\n", json);
    }
}

/* A peer that was not built is left out: its library was not there. */
static void drop_missing(struct config *config)
{
    size_t kept = 0;
    for (size_t i = 0; i < config->engines.count; i++) {
        char path[PATH_SIZE];
        worker_path(config, config->engines.at[i], path);
        if (access(path, X_OK) == 0)
            config->engines.at[kept++] = config->engines.at[i];
        else
            fprintf(stderr, "%s is left out: there is no %s\n", config->engines.at[i], path);
    }
    config->engines.count = kept;
    if (kept == 0) die("no engine is left");
}

int main(int argc, char **argv)
{
    struct config config = parse(argc, argv);
    drop_missing(&config);
    FILE *json = fopen(config.json, "we");
    if (!json) die("%s: %s", config.json, strerror(errno));

    describe_machine(&config, json);
    for (size_t i = 0; i < config.engines.count; i++) describe_engine(&config, json, config.engines.at[i]);

    for (size_t w = 0; w < config.workloads.count; w++) {
        for (size_t s = 0; s < config.sizes.count; s++) {
            struct series series = {config.workloads.at[w], config.sizes.at[s]};
            sample_count = 0;
            for (unsigned round = 1; round <= config.rounds; round++) {
                for (size_t e = 0; e < config.engines.count; e++) {
                    run_round(&config, json, &series, config.engines.at[e], round);
                }
            }
            print_table(&config, &series);
        }
    }
    if (fclose(json) != 0) die("%s: %s", config.json, strerror(errno));
    return 0;
}
