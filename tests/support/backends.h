/* One body per test, run over every backend that this machine has. */
#ifndef SY_TESTS_SUPPORT_BACKENDS_H
#define SY_TESTS_SUPPORT_BACKENDS_H

#include <stdio.h>

#include "kernels/kernels.h"

#if defined(SY_TEST_BACKEND) /* this program is built for one backend */

const struct sy_kernels *SY_TEST_BACKEND(void);

static inline void on_every_backend(void (*body)(const struct sy_kernels *kernels)) {
  printf("on %s\n", SY_TEST_BACKEND()->name);
  body(SY_TEST_BACKEND());
}

#else

static inline void on_every_backend(void (*body)(const struct sy_kernels *kernels)) {
  size_t count = 0;
  const struct sy_kernels *levels = sy_kernels_cpu_levels(&count);
  for (size_t i = 0; i < count; ++i) {
    if (levels[i].is_available()) {
      printf("on %s\n", levels[i].name);
      body(&levels[i]);
    }
  }
}

#endif

#endif
