/* test.h: criterion, or, under ThreadSanitizer (criterion does not run there), a shim of the same
 * names: each test is run in a process of its own, by fork and exec of the program with the test's
 * name. Old-style cr_ macros only. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#if !defined(__SANITIZE_THREAD__)
#include <criterion/criterion.h>
#else
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct shim_options {
    int signal; /* that the test must end by */
    void (*init)(void), (*fini)(void);
    double timeout;
    bool disabled;
    const char *description;
};
struct shim_test {
    const char *suite, *name;
    void (*run)(void);
    const struct shim_options *options;
    struct shim_test *next;
};
/* Weak: a program of several files that include this has one list and one main. */
__attribute__((weak)) struct shim_test *shim_tests;

#define Test(suite_, name_, ...)                                                            \
    static void suite_##_##name_(void);                                                     \
    static const struct shim_options suite_##_##name_##_options = { __VA_ARGS__ };          \
    static struct shim_test suite_##_##name_##_entry = { #suite_, #name_, suite_##_##name_, \
                                                         &suite_##_##name_##_options, 0 };  \
    __attribute__((constructor)) static void suite_##_##name_##_add(void)                   \
    {                                                                                       \
        suite_##_##name_##_entry.next = shim_tests;                                         \
        shim_tests = &suite_##_##name_##_entry;                                             \
    }                                                                                       \
    static void suite_##_##name_(void)

static inline void shim_fail(const char *file, int line, const char *what, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s:%d: %s: ", file, line, what);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}
#define shim_check(cond, what, ...)                               \
    do {                                                          \
        if (!(cond))                                              \
            shim_fail(__FILE__, __LINE__, what, " " __VA_ARGS__); \
    } while (0)
#define cr_assert(cond, ...) shim_check(cond, #cond, ##__VA_ARGS__)
#define cr_expect cr_assert
#define cr_assert_not(cond, ...) shim_check(!(cond), "not " #cond, ##__VA_ARGS__)
#define cr_assert_eq(a, b, ...) shim_check((a) == (b), #a " == " #b, ##__VA_ARGS__)
#define cr_assert_neq(a, b, ...) shim_check((a) != (b), #a " != " #b, ##__VA_ARGS__)
#define cr_assert_lt(a, b, ...) shim_check((a) < (b), #a " < " #b, ##__VA_ARGS__)
#define cr_assert_leq(a, b, ...) shim_check((a) <= (b), #a " <= " #b, ##__VA_ARGS__)
#define cr_assert_gt(a, b, ...) shim_check((a) > (b), #a " > " #b, ##__VA_ARGS__)
#define cr_assert_geq(a, b, ...) shim_check((a) >= (b), #a " >= " #b, ##__VA_ARGS__)
#define cr_assert_null(a, ...) shim_check((a) == NULL, #a " is NULL", ##__VA_ARGS__)
#define cr_assert_not_null(a, ...) shim_check((a) != NULL, #a " is not NULL", ##__VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) shim_check(strcmp(a, b) == 0, #a " is " #b, ##__VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) shim_check(strcmp(a, b) != 0, #a " is not " #b, ##__VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) shim_check(memcmp(a, b, n) == 0, #a " is " #b, ##__VA_ARGS__)
#define cr_assert_fail(...) shim_check(0, "fail", ##__VA_ARGS__)
#define cr_fail(...) shim_check(0, "fail", ##__VA_ARGS__)
#define cr_fatal(...) shim_check(0, "fatal", ##__VA_ARGS__)
#define cr_log_info(...) fprintf(stderr, __VA_ARGS__)
#define cr_skip_test(...) exit(0)

__attribute__((weak)) int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    for (struct shim_test *test = shim_tests; test; test = test->next) {
        char id[256];
        snprintf(id, sizeof(id), "%s/%s", test->suite, test->name);
        if (argc == 3 && strcmp(argv[1], "--run") == 0) {
            if (strcmp(argv[2], id) == 0) {
                if (test->options->init)
                    test->options->init();
                test->run();
                if (test->options->fini)
                    test->options->fini();
                return 0;
            }
            continue;
        }
        if (test->options->disabled)
            continue;
        pid_t pid = fork();
        if (pid == 0) {
            execl("/proc/self/exe", argv[0], "--run", id, NULL);
            _exit(127);
        }
        int status;
        waitpid(pid, &status, 0);
        int wanted = test->options->signal;
        bool good = wanted ? WIFSIGNALED(status) && WTERMSIG(status) == wanted : status == 0;
        if (!good)
            fprintf(stderr, "FAILED %s (status %d)\n", id, status);
        good ? passed++ : failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
#endif

#endif
