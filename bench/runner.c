/* runner.c - runs every engine's worker, round by round, and writes what they measured as JSON lines; table.py reads them.
 *
 *   bench_runner --dir DIRECTORY --json FILE [--sizes N,N] [--workloads seed,u64,counter] [--engines odm,lmdb]
 *                [--phases load,reopen] [--rounds N] [--operations N] [--turnovers N] [--memory BYTES] [--seed N]
 *                [--under COMMAND]
 *
 * Within a round the engines take turns, so that what changes on the machine over minutes meets all of them; every
 * phase is a process of its own (worker.c), and one runs at a time. An engine that fails is named, here and in the
 * results, and is left out until the next round; the others go on.
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

enum {
    LIST_MAX = 16,
    PATH_SIZE = 4096,
    METRIC_SIZE = 32,
    UNIT_SIZE = 8,
    ROUNDS_MAX = 100,
    ARGUMENTS_MAX = LIST_MAX + 20
};

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
    struct names sizes, workloads, engines, phases;
    struct names under; // words of a command that starts the workers; may be empty
    unsigned rounds;
    const char *operations, *turnovers, *memory, *seed; // handed on as they are
    const char *directory, *json;
    char program_directory[PATH_SIZE]; // where the workers are: beside this program
};

static struct names split(const char *text, const char *separator)
{
    struct names names = {0};
    char *copy = strdup(text); // Kept: the names point into it.
    if (!copy) die("out of memory");
    for (char *name = strtok(copy, separator); name; name = strtok(NULL, separator)) {
        if (names.count == LIST_MAX) die("more than %d in '%s'", LIST_MAX, text);
        names.at[names.count++] = name;
    }
    return names;
}

static struct names list(const char *text)
{
    struct names names = split(text, ",");
    if (names.count == 0) die("an empty list was given");
    return names;
}

/* In the order in which they must run: all share a map, but the last, batch, which makes another. */
#define ALL_PHASES "load,reopen,killed,rebuild,parallel,outgrown,remove,batch"

static struct names phases_of(const char *text)
{
    struct names wanted = list(text), all = list(ALL_PHASES), phases = {0};
    for (size_t i = 0; i < all.count; i++) {
        for (size_t k = 0; k < wanted.count; k++) {
            if (strcmp(all.at[i], wanted.at[k]) != 0) continue;
            phases.at[phases.count++] = all.at[i];
            break;
        }
    }
    if (phases.count < wanted.count) die("--phases %s: each once, of %s", text, ALL_PHASES);
    return phases;
}

/* Checked here, so that it can be written to the results as it is. */
static const char *number(const char *text)
{
    if (*text == '\0' || strspn(text, "0123456789") != strlen(text)) die("'%s' is not a number", text);
    return text;
}

static void usage(FILE *to)
{
    fputs("bench_runner --dir DIRECTORY --json FILE [--sizes 1000000,10000000]\n"
          "             [--workloads seed,u64,counter] [--engines odm,lmdb] [--phases load,reopen,...]\n"
          "             [--rounds 3] [--operations 2000000] [--turnovers 2] [--memory 0] [--seed 1]\n"
          "             [--under COMMAND]\n",
          to);
}

static struct config parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"sizes", required_argument, NULL, 's'},
        {"workloads", required_argument, NULL, 'w'},
        {"engines", required_argument, NULL, 'e'},
        {"phases", required_argument, NULL, 'p'},
        {"rounds", required_argument, NULL, 'n'},
        {"operations", required_argument, NULL, 'o'},
        {"turnovers", required_argument, NULL, 't'},
        {"memory", required_argument, NULL, 'm'},
        {"seed", required_argument, NULL, 'r'},
        {"dir", required_argument, NULL, 'd'},
        {"json", required_argument, NULL, 'j'},
        {"under", required_argument, NULL, 'u'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct config config = {.rounds = 3, .operations = "2000000", .turnovers = "2", .memory = "0", .seed = "1"};
    const char *sizes = "1000000,10000000";
    const char *workloads = "seed,u64,counter";
    const char *engines = "odm,lmdb";
    const char *phases = ALL_PHASES;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
            case 's': sizes = optarg; break;
            case 'w': workloads = optarg; break;
            case 'e': engines = optarg; break;
            case 'p': phases = optarg; break;
            case 'n': config.rounds = (unsigned)strtoul(number(optarg), NULL, 10); break;
            case 'o': config.operations = number(optarg); break;
            case 't': config.turnovers = number(optarg); break;
            case 'm': config.memory = number(optarg); break;
            case 'r': config.seed = number(optarg); break;
            case 'd': config.directory = optarg; break;
            case 'j': config.json = optarg; break;
            case 'u': config.under = split(optarg, " "); break;
            case 'h': usage(stdout); exit(0);
            default: usage(stderr); exit(2);
        }
    }
    if (!config.directory || !config.json || optind < argc) {
        usage(stderr);
        exit(2);
    }
    if (config.rounds == 0 || config.rounds > ROUNDS_MAX) die("--rounds: 1 to %d", ROUNDS_MAX);
    config.sizes = list(sizes);
    for (size_t i = 0; i < config.sizes.count; i++) number(config.sizes.at[i]);
    config.workloads = list(workloads);
    config.engines = list(engines);
    config.phases = phases_of(phases);

    ssize_t length = readlink("/proc/self/exe", config.program_directory, PATH_SIZE - 1);
    if (length < 0) die("/proc/self/exe: %s", strerror(errno));
    config.program_directory[length] = '\0';
    *strrchr(config.program_directory, '/') = '\0';
    return config;
}

/* What is measured together: one workload at one size. */
struct series {
    const char *workload;
    const char *size;
};

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

static void json_series(FILE *json, const struct series *series, const char *engine, unsigned round)
{
    fputc('{', json);
    json_string(json, "workload", series->workload);
    fprintf(json, ",\"size\":%s,", series->size);
    json_string(json, "engine", engine);
    fprintf(json, ",\"round\":%u,", round);
}

static void json_sample(FILE *json, const char *metric, const char *unit, double value)
{
    json_string(json, "metric", metric);
    fputc(',', json);
    json_string(json, "unit", unit);
    fprintf(json, ",\"value\":%.6g}\n", value);
    fflush(json); // A run takes minutes: what was measured stays, whatever comes.
}

static void json_failure(FILE *json, const char *phase, const char *how)
{
    json_string(json, "failed", phase);
    fputc(',', json);
    json_string(json, "how", how);
    fputs("}\n", json);
    fflush(json);
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
    const char *const own[] = {
        path,           "--phase",         phase,
        "--workload",   series->workload,  "--size",
        series->size,   "--operations",    config->operations,
        "--turnovers",  config->turnovers, "--memory",
        config->memory, "--seed",          config->seed,
        "--dir",        directory,         NULL,
    };
    const char *arguments[ARGUMENTS_MAX];
    _Static_assert(LIST_MAX + sizeof own / sizeof *own <= ARGUMENTS_MAX, "all arguments have room");
    memcpy(arguments, config->under.at, config->under.count * sizeof *arguments);
    memcpy(arguments + config->under.count, own, sizeof own);

    int ends[2];
    if (pipe(ends) != 0) die("pipe: %s", strerror(errno));
    fflush(NULL); // Else the child would write our buffers a second time.
    *process = fork();
    if (*process < 0) die("fork: %s", strerror(errno));
    if (*process == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execvp(arguments[0], (char *const *)(uintptr_t)arguments); // It changes none of them.
        fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
        _exit(1);
    }
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    if (!output) die("fdopen: %s", strerror(errno));
    return output;
}

/* How the worker ended, if that was not well; else "". What a phase measured before it failed counts. */
static const char *worker_end(FILE *output, pid_t process, const char *phase)
{
    static char how[64];
    fclose(output);
    int status;
    if (waitpid(process, &status, 0) != process) die("waitpid: %s", strerror(errno));
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    killed |= WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGKILL; // as a command of --under may tell it
    bool kills_itself = strcmp(phase, "reopen") == 0;                    // worker.c
    if ((kills_itself && killed) || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) return "";
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "signal %d, %s", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(how, sizeof how, "exit code %d", WEXITSTATUS(status));
    return how;
}

static bool has_failed; // any phase of any engine

static bool run_phase(const struct config *config, FILE *json, const struct series *series, const char *engine,
                      unsigned round, const char *phase, const char *directory)
{
    char metric[METRIC_SIZE], unit[UNIT_SIZE];
    double value;
    pid_t process;
    FILE *output = worker_start(config, engine, phase, series, directory, &process);
    // The widths are METRIC_SIZE - 1 and UNIT_SIZE - 1.
    while (fscanf(output, "%31s %7s %lf", metric, unit, &value) == 3) {
        json_series(json, series, engine, round);
        json_sample(json, metric, unit, value);
    }
    const char *how = worker_end(output, process, phase);
    if (*how == '\0') return true;
    fprintf(stderr, "%s has FAILED in phase %s of %s, %s entries: %s\n", engine, phase, series->workload, series->size,
            how);
    json_series(json, series, engine, round);
    json_failure(json, phase, how);
    has_failed = true;
    return false;
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
    char directory[PATH_SIZE];
    fprintf(stderr, "round %u of %u: %s %s, %s\n", round, config->rounds, series->workload, series->size, engine);
    make_directory(config, engine, directory);
    for (size_t i = 0; i < config->phases.count; i++) {
        const char *phase = config->phases.at[i];
        if (strcmp(phase, "batch") == 0) {
            remove_directory(directory);
            make_directory(config, engine, directory);
        }
        if (!run_phase(config, json, series, engine, round, phase, directory)) break;
    }
    remove_directory(directory);
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

    fprintf(json, "{\"rounds\":%u,\"operations\":%s,\"turnovers\":%s,\"memory_limit_bytes\":%s,\"seed\":%s,",
            config->rounds, config->operations, config->turnovers, config->memory, config->seed);
    fprintf(json, "\"cores\":%ld,\"memory_bytes\":%lld,", cores, memory_bytes);
    json_string(json, "date", date);
    fputc(',', json);
    json_string(json, "cpu", model);
    fputc(',', json);
    json_string(json, "kernel", system.release);
    fputc(',', json);
    json_string(json, "file_system", file_system);
    fputs("}\n", json);
}

static void describe_engine(const struct config *config, FILE *json, const char *engine)
{
    for (size_t i = 0; i < config->workloads.count; i++) {
        // MDB_INTEGERKEY and the like: settings depend on the workload.
        struct series series = {config->workloads.at[i], "1"};
        pid_t process;
        char text[512] = "";
        FILE *output = worker_start(config, engine, "describe", &series, config->directory, &process);
        if (!fgets(text, sizeof text, output)) text[0] = '\0';
        const char *how = worker_end(output, process, "describe");
        if (*how != '\0' || text[0] == '\0') die("%s, %s: no answer: %s", engine, series.workload, how);
        text[strcspn(text, "\n")] = '\0';
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
            for (unsigned round = 1; round <= config.rounds; round++) {
                for (size_t e = 0; e < config.engines.count; e++) {
                    run_round(&config, json, &series, config.engines.at[e], round);
                }
            }
        }
    }
    if (fclose(json) != 0) die("%s: %s", config.json, strerror(errno));
    return has_failed;
}
