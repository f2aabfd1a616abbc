/* A failure must have its status, and a sentence that names what the reader needs. */
#ifndef SY_TESTS_SUPPORT_FAILURE_H
#define SY_TESTS_SUPPORT_FAILURE_H

#include "tests/support/harness.h"

/* CHECK_FAILS(call, group, status, "part of the sentence", ...); group NULL: the thread's error. */
#define CHECK_FAILS(call, group, status, ...)                                            \
  do {                                                                                   \
    if (CHECK_STATUS(call, status)) {                                                    \
      const char *const parts_[] = {__VA_ARGS__};                                        \
      for (size_t part_ = 0; part_ < sizeof parts_ / sizeof parts_[0]; ++part_) {        \
        sy_test_str_has(sy_last_error(group), parts_[part_], __FILE__, __LINE__, #call); \
      }                                                                                  \
    }                                                                                    \
  } while (0)

#endif
