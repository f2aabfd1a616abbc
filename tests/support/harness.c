#include "tests/support/harness.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/world.h"

enum { EXIT_SKIPPED = 77, DEFAULT_TIMEOUT_S = 60 };

/* After so many the cause is known, and a log that nobody can read helps no one. */
enum { MAX_PRINTED_FAILURES = 20 };

static struct sy_test_case *first_case;
static struct sy_test_case **last_link = &first_case;

static int this_rank;
static int this_world = 1;
static uint64_t seed;
static uint64_t random_state;
static int num_failures; /* of the running case, on this rank */
static int num_skips;
static char watchdog_text[256]; /* written before the alarm is set: the handler only writes it */
static size_t watchdog_bytes;

void sy_test_register(struct sy_test_case *test_case) {
  *last_link = test_case;
  last_link = &test_case->next;
}

int sy_test_rank(void) { return this_rank; }
int sy_test_world(void) { return this_world; }

/* ---- Random numbers ---- */

uint64_t sy_test_seed(void) { return seed; }

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t sy_test_random(void) {
  uint64_t z = random_state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

int64_t sy_test_random_between(int64_t low, int64_t high) {
  const uint64_t span = (uint64_t)high - (uint64_t)low + 1u; /* 0: all of int64 */
  const uint64_t x = sy_test_random();
  return (int64_t)((uint64_t)low + (span == 0u ? x : x % span));
}

double sy_test_random_unit(void) { return (double)(sy_test_random() >> 11) * 0x1.0p-53; }

/* ---- Checks ---- */

static bool note_failure(const char *file, int line) {
  ++num_failures;
  if (num_failures == MAX_PRINTED_FAILURES + 1) {
    fprintf(stderr, "rank %d: further failures are counted, not printed\n", this_rank);
  }
  if (num_failures > MAX_PRINTED_FAILURES) {
    return false;
  }
  fprintf(stderr, "%s:%d: rank %d: ", file, line, this_rank);
  return true;
}

void sy_test_skip(const char *reason) {
  ++num_skips;
  if (this_rank == 0) {
    printf("skipped: %s\n", reason);
  }
}

bool sy_test_check(bool held, const char *file, int line, const char *what) {
  if (!held && note_failure(file, line)) {
    fprintf(stderr, "not so: %s\n", what);
  }
  return held;
}

bool sy_test_eq_i64(int64_t a, int64_t b, const char *file, int line, const char *a_text,
                    const char *b_text) {
  if (a != b && note_failure(file, line)) {
    fprintf(stderr, "%s is %" PRId64 ", %s is %" PRId64 "\n", a_text, a, b_text, b);
  }
  return a == b;
}

bool sy_test_eq_u64(uint64_t a, uint64_t b, const char *file, int line, const char *a_text,
                    const char *b_text) {
  if (a != b && note_failure(file, line)) {
    fprintf(stderr, "%s is %" PRIu64 ", %s is %" PRIu64 "\n", a_text, a, b_text, b);
  }
  return a == b;
}

bool sy_test_eq_str(const char *a, const char *b, const char *file, int line, const char *a_text,
                    const char *b_text) {
  const bool held = a != NULL && b != NULL && strcmp(a, b) == 0;
  if (!held && note_failure(file, line)) {
    fprintf(stderr, "%s is \"%s\", %s is \"%s\"\n", a_text, a != NULL ? a : "(null)", b_text,
            b != NULL ? b : "(null)");
  }
  return held;
}

bool sy_test_eq_bytes(const void *a, const void *b, size_t bytes, const char *file, int line,
                      const char *a_text, const char *b_text) {
  const unsigned char *x = a;
  const unsigned char *y = b;
  size_t num_different = 0;
  size_t first = 0;
  for (size_t i = 0; i < bytes; ++i) {
    if (x[i] != y[i] && num_different++ == 0) {
      first = i;
    }
  }
  if (num_different > 0 && note_failure(file, line)) {
    fprintf(stderr, "%s and %s differ in %zu of %zu bytes, first at byte %zu: 0x%02x and 0x%02x\n",
            a_text, b_text, num_different, bytes, first, x[first], y[first]);
  }
  return num_different == 0;
}

bool sy_test_str_has(const char *text, const char *part, const char *file, int line,
                     const char *what) {
  const bool held = text != NULL && strstr(text, part) != NULL;
  if (!held && note_failure(file, line)) {
    fprintf(stderr, "%s has no \"%s\": \"%s\"\n", what, part, text != NULL ? text : "(null)");
  }
  return held;
}

bool sy_test_near(double a, double b, double tolerance, const char *file, int line,
                  const char *a_text, const char *b_text) {
  const bool held = fabs(a - b) <= tolerance;
  if (!held && note_failure(file, line)) {
    fprintf(stderr, "%s is %.17g, %s is %.17g: further apart than %g\n", a_text, a, b_text, b,
            tolerance);
  }
  return held;
}

bool sy_test_status(sy_status status, sy_status expected, const char *file, int line,
                    const char *what) {
  if (status != expected && note_failure(file, line)) {
    fprintf(stderr, "%s gave %d, expected %d; last error: \"%s\"\n", what, (int)status,
            (int)expected, sy_last_error(NULL));
  }
  return status == expected;
}

/* ---- Running cases ---- */

static uint64_t environment_number(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  if (text == NULL || *text == '\0') {
    return otherwise;
  }
  char *end = NULL;
  const uint64_t value = strtoull(text, &end, 0);
  if (*end != '\0') {
    fprintf(stderr, "%s is \"%s\", which is not a number\n", name, text);
    exit(EXIT_FAILURE);
  }
  return value;
}

/* Only what a signal handler may call. */
static void on_alarm(int signal_number) {
  (void)signal_number;
  const ssize_t written = write(STDERR_FILENO, watchdog_text, watchdog_bytes);
  (void)written;
  _exit(EXIT_FAILURE);
}

static void watch(const char *case_name, unsigned timeout_s) {
  const int n =
      snprintf(watchdog_text, sizeof watchdog_text,
               "rank %d: case %s is stuck: not over after %u s\n", this_rank, case_name, timeout_s);
  watchdog_bytes = (size_t)n < sizeof watchdog_text ? (size_t)n : sizeof watchdog_text - 1;
  alarm(timeout_s);
}

/* Returns the failures of all ranks. */
static int run_case(const struct sy_test_case *test_case, unsigned timeout_s) {
  num_failures = 0;
  random_state = seed;
  watch(test_case->name, timeout_s);
  test_case->run();
  const int failures = sy_test_world_sum(num_failures);
  alarm(0);
  if (this_rank == 0) {
    printf("%s: %s (seed %" PRIu64 ", %d rank%s)\n", test_case->name,
           failures == 0 ? "passed" : "FAILED", seed, this_world, this_world == 1 ? "" : "s");
    fflush(stdout);
  }
  return failures;
}

static bool is_named(const struct sy_test_case *test_case, int num_names, char **names) {
  for (int i = 0; i < num_names; ++i) {
    if (strcmp(names[i], test_case->name) == 0) {
      return true;
    }
  }
  return num_names == 0;
}

int main(int argc, char **argv) {
  if (!sy_test_world_begin(&this_rank, &this_world)) {
    fprintf(stderr, "the ranks of the test cannot be set up\n");
    return EXIT_FAILURE;
  }
  seed = environment_number("SY_TEST_SEED", 1);
  const unsigned timeout_s = (unsigned)environment_number("SY_TEST_TIMEOUT_S", DEFAULT_TIMEOUT_S);
  signal(SIGALRM, on_alarm);
  int num_run = 0;
  int failures = 0;
  for (const struct sy_test_case *c = first_case; c != NULL; c = c->next) {
    if (is_named(c, argc - 1, argv + 1)) {
      ++num_run;
      failures += run_case(c, timeout_s);
    }
  }
  failures += sy_test_world_end();
  if (num_run < argc - 1 || num_run == 0) {
    fprintf(stderr, "rank %d: %d cases were named, %d of them exist\n", this_rank, argc - 1,
            num_run);
    return EXIT_FAILURE;
  }
  if (failures > 0) {
    return EXIT_FAILURE;
  }
  return num_skips == num_run ? EXIT_SKIPPED : EXIT_SUCCESS;
}
