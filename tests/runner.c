/* runner.c - runs Criterion tests, each in a plain fork. Takes the place of Criterion's own main.
 *
 * Criterion starts its tests in processes that it builds by itself, around memory at fixed addresses: ThreadSanitizer can
 * not start there. And they end by _exit, so LeakSanitizer and gcov never get to speak. Hence this runner in the presets
 * asan, tsan and coverage. The test files are the same: this file defines the functions by which a test talks to
 * Criterion, and the library is still there for all else.
 *
 * Known: init, fini, timeout (ten times as long), signal, exit_code, disabled, suites, parameters, cr_skip. Not known:
 * theories, redirected streams. Arguments: --filter 'suite/name' with * and ?; --jobs is accepted and ignored.
 */
#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <criterion/parameterized.h>
#include <fnmatch.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIMEOUT_FACTOR = 10 }; // What sanitizers may cost.

/* The sections in which Criterion's macros collect tests and suites. */
extern struct criterion_test *__start_cr_tst[] __attribute__((weak));
extern struct criterion_test *__stop_cr_tst[] __attribute__((weak));
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *__stop_cr_sts[] __attribute__((weak));

/* What a test and its own children tell the runner: shared memory. */
struct verdict {
    atomic_bool failed;
    atomic_bool skipped;
};
static struct verdict *verdict;

/* ---- in the test's process ----------------------------------------------------------------------------------------- */

static const struct criterion_test *current_test;
static const struct criterion_suite *current_suite; // NULL if the file declares none
static void *current_parameter;
static bool fini_begun;

static pid_t test_process;
static _Thread_local bool is_test_thread;
static jmp_buf end_of_test;

static void end_test(void)
{
    if (is_test_thread && getpid() == test_process) longjmp(end_of_test, 1);
    // From another thread or process there is no way back into the test.
    fflush(NULL);
    _exit(1);
}

void criterion_internal_test_setup(void)
{
    if (current_suite != NULL && current_suite->data->init != NULL) current_suite->data->init();
    if (current_test->data->init != NULL) current_test->data->init();
}

void criterion_internal_test_main(void (*function)(void))
{
    if (current_test->data->kind_ == CR_TEST_PARAMETERIZED) {
        ((void (*)(void *))function)(current_parameter);
    } else {
        function();
    }
}

void criterion_internal_test_teardown(void)
{
    fini_begun = true;
    if (current_test->data->fini != NULL) current_test->data->fini();
    if (current_suite != NULL && current_suite->data->fini != NULL) current_suite->data->fini();
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
    if (stats->passed) return;
    atomic_store(&verdict->failed, true);
    fprintf(stderr, "%s:%u: assertion failed: %s\n", stats->file, stats->line, stats->message);
}

void cri_asserts_passed_incr(void)
{
}

void criterion_abort_test(void)
{
    atomic_store(&verdict->failed, true);
    end_test();
    abort(); // Not reached; the declaration says that this does not return.
}

void criterion_continue_test(void)
{
    atomic_store(&verdict->failed, true);
}

void criterion_test_die(const char *message, ...)
{
    va_list arguments;
    va_start(arguments, message);
    vfprintf(stderr, message, arguments);
    va_end(arguments);
    criterion_abort_test();
}

void criterion_skip_test(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    atomic_store(&verdict->skipped, true);
    end_test();
    abort(); // Not reached.
}

void cr_log(enum criterion_severity severity, const char *format, ...)
{
    (void)severity;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* Criterion's allocators carry memory into the processes it builds; a fork has it anyway. */
void *cr_malloc(size_t size)
{
    return malloc(size);
}

void *cr_calloc(size_t count, size_t size)
{
    return calloc(count, size);
}

void *cr_realloc(void *pointer, size_t size)
{
    return realloc(pointer, size);
}

void cr_free(void *pointer)
{
    free(pointer);
}

static void run_in_this_process(void)
{
    setpgid(0, 0); // So that a timeout ends the children of the test as well.
    signal(SIGALRM, SIG_DFL);
    test_process = getpid();
    is_test_thread = true;
    if (setjmp(end_of_test) == 0) {
        current_test->test();
    } else if (!fini_begun) {
        criterion_internal_test_teardown();
    }
    if (atomic_load(&verdict->failed)) {
        // A test that broke off has not tidied up: what it leaks is no news.
        fflush(NULL);
        _exit(1);
    }
    exit(0); // Here LeakSanitizer looks for leaks, and gcov writes its counts.
}

/* ---- in the runner ------------------------------------------------------------------------------------------------- */

static volatile pid_t running;
static volatile sig_atomic_t timed_out;

static void on_timeout(int signal_number)
{
    (void)signal_number;
    timed_out = 1;
    kill(-running, SIGKILL);
    kill(running, SIGKILL); // It may not have a group of its own yet.
}

static void set_timeout(double seconds)
{
    struct itimerval timer = {0};
    timer.it_value.tv_sec = (time_t)seconds;
    timer.it_value.tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static const struct criterion_suite *suite_of(const struct criterion_test *test)
{
    for (struct criterion_suite **suite = __start_cr_sts; suite < __stop_cr_sts; suite++) {
        if (*suite != NULL && strcmp((*suite)->name, test->category) == 0) return *suite;
    }
    return NULL;
}

/* Options of a suite are the defaults of its tests. */
#define OPTION(field) \
    (current_test->data->field || current_suite == NULL ? current_test->data->field : current_suite->data->field)

/* Runs current_test in a child. True if it did what it promised, or was skipped. */
static bool run_in_child(void)
{
    atomic_store(&verdict->failed, false);
    atomic_store(&verdict->skipped, false);
    timed_out = 0;
    fflush(NULL);
    running = fork();
    if (running < 0) {
        perror("fork");
        exit(1);
    }
    if (running == 0) run_in_this_process();

    int status;
    set_timeout(OPTION(timeout) * TIMEOUT_FACTOR);
    while (waitpid(running, &status, 0) < 0) continue; // EINTR
    set_timeout(0);

    const char *name = current_test->name;
    const char *suite = current_test->category;
    int exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    int signal_number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (timed_out) {
        printf("[FAIL] %s::%s: took too long\n", suite, name);
    } else if (atomic_load(&verdict->failed)) {
        printf("[FAIL] %s::%s\n", suite, name);
    } else if (exit_code != OPTION(exit_code) && !atomic_load(&verdict->skipped)) {
        printf("[FAIL] %s::%s: exited with %d\n", suite, name, exit_code);
    } else if (signal_number != OPTION(signal) && !atomic_load(&verdict->skipped)) {
        printf("[FAIL] %s::%s: ended by signal %d\n", suite, name, signal_number);
    } else {
        printf("[%s] %s::%s\n", atomic_load(&verdict->skipped) ? "SKIP" : "PASS", suite, name);
        return true;
    }
    return false;
}

/* Runs current_test, once for each of its parameters. The number of failures. */
static size_t run_test(void)
{
    if (current_test->data->kind_ != CR_TEST_PARAMETERIZED) return run_in_child() ? 0 : 1;

    size_t failures = 0;
    struct criterion_test_params parameters = current_test->data->param_();
    for (size_t i = 0; i < parameters.length; i++) {
        current_parameter = (char *)parameters.params + i * parameters.size;
        if (!run_in_child()) failures++;
    }
    if (parameters.cleanup != NULL) parameters.cleanup(&parameters);
    return failures;
}

int main(int argc, char **argv)
{
    const char *filter = "*";
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "--filter") == 0) {
            filter = argv[++i];
        } else if (i + 1 < argc && strcmp(argv[i], "--jobs") == 0) {
            i++;
        } else {
            fprintf(stderr, "usage: %s [--filter 'suite/name']\n", argv[0]);
            return 2;
        }
    }

    verdict = mmap(NULL, sizeof *verdict, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (verdict == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    struct sigaction timeout = {.sa_handler = on_timeout};
    sigaction(SIGALRM, &timeout, NULL);

    size_t tests = 0;
    size_t failures = 0;
    for (struct criterion_test **test = __start_cr_tst; test < __stop_cr_tst; test++) {
        if (*test == NULL || fnmatch(filter, (*test)->data->identifier_, 0) != 0) continue;
        current_test = *test;
        current_suite = suite_of(current_test);
        if (OPTION(disabled)) continue;
        tests++;
        failures += run_test();
    }
    printf("%zu tests, %zu failures\n", tests, failures);
    return tests == 0 || failures != 0; // No test at all is a mistake, too.
}
