/* The test harness: one program per test source, one CTest entry per case.
 *
 *   TEST(counts_add_up) {
 *     CHECK_EQ_I64(sum(3), 6);
 *   }
 *
 * The line must begin with TEST(name) or TEST_SLOW(name): CMake finds the cases by it. The program
 * runs the cases named by its arguments, or all of them.
 *
 * Checks never jump out: in a multi-rank case the other ranks would wait for ever. A check returns
 * whether it held, so that a case can leave by itself where going on makes no sense:
 *
 *   if (!CHECK_OK(sy_plan_create(&desc, &plan))) { return; }
 *
 * Checks belong to the thread that runs the case. At the end of a case the failures of all ranks
 * are added up; a case fails on every rank or on none. A watchdog ends a stuck case.
 *
 * Environment: SY_TEST_SEED (of the random numbers; printed), SY_TEST_TIMEOUT_S (of the watchdog).
 * Exit codes: 0 passed, 1 failed, 77 all named cases were skipped. */
#ifndef SY_TESTS_SUPPORT_HARNESS_H
#define SY_TESTS_SUPPORT_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/switchyard.h"

struct sy_test_case {
  const char *name;
  void (*run)(void);
  struct sy_test_case *next;
};

void sy_test_register(struct sy_test_case *test_case);

#define TEST(case_name)                                                            \
  static void sy_test_run_##case_name(void);                                       \
  __attribute__((constructor)) static void sy_test_register_##case_name(void) {    \
    static struct sy_test_case self = {#case_name, sy_test_run_##case_name, NULL}; \
    sy_test_register(&self);                                                       \
  }                                                                                \
  static void sy_test_run_##case_name(void)

/* Labelled slow, with a longer time limit; left out of the quick runs. */
#define TEST_SLOW(case_name) TEST(case_name)

/* Where this process stands: 0 of 1 in a unit test. */
int sy_test_rank(void);
int sy_test_world(void);

/* Random numbers, the same on all ranks, a fresh sequence for each case. */
uint64_t sy_test_seed(void);
uint64_t sy_test_random(void);
/* In [low, high], both included. */
int64_t sy_test_random_between(int64_t low, int64_t high);
/* In [0, 1). */
double sy_test_random_unit(void);

/* Leaves the case, saying why it cannot run here. In a multi-rank case all ranks must skip. */
#define SKIP(reason)      \
  do {                    \
    sy_test_skip(reason); \
    return;               \
  } while (0)

#define CHECK(condition) sy_test_check((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ_I64(a, b) sy_test_eq_i64((a), (b), __FILE__, __LINE__, #a, #b)
#define CHECK_EQ_U64(a, b) sy_test_eq_u64((a), (b), __FILE__, __LINE__, #a, #b)
#define CHECK_EQ_STR(a, b) sy_test_eq_str((a), (b), __FILE__, __LINE__, #a, #b)
#define CHECK_EQ_BYTES(a, b, bytes) sy_test_eq_bytes((a), (b), (bytes), __FILE__, __LINE__, #a, #b)
#define CHECK_STR_HAS(text, part) sy_test_str_has((text), (part), __FILE__, __LINE__, #text)
/* |a - b| <= tolerance; fails for NaN. */
#define CHECK_NEAR(a, b, tolerance) sy_test_near((a), (b), (tolerance), __FILE__, __LINE__, #a, #b)
#define CHECK_STATUS(call, expected) sy_test_status((call), (expected), __FILE__, __LINE__, #call)
#define CHECK_OK(call) CHECK_STATUS(call, SY_OK)

void sy_test_skip(const char *reason);
bool sy_test_check(bool held, const char *file, int line, const char *what);
bool sy_test_eq_i64(int64_t a, int64_t b, const char *file, int line, const char *a_text,
                    const char *b_text);
bool sy_test_eq_u64(uint64_t a, uint64_t b, const char *file, int line, const char *a_text,
                    const char *b_text);
bool sy_test_eq_str(const char *a, const char *b, const char *file, int line, const char *a_text,
                    const char *b_text);
bool sy_test_eq_bytes(const void *a, const void *b, size_t bytes, const char *file, int line,
                      const char *a_text, const char *b_text);
bool sy_test_str_has(const char *text, const char *part, const char *file, int line,
                     const char *what);
bool sy_test_near(double a, double b, double tolerance, const char *file, int line,
                  const char *a_text, const char *b_text);
bool sy_test_status(sy_status status, sy_status expected, const char *file, int line,
                    const char *what);

#endif
