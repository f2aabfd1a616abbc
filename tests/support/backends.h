/* One body per test, run over every backend that this machine has. */
#ifndef SY_TESTS_SUPPORT_BACKENDS_H
#define SY_TESTS_SUPPORT_BACKENDS_H

#include <stdio.h>

#include "kernels/kernels.h"

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
