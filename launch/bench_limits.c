#include "launch/bench_limits.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <omp.h>

#define HUGE_PAGE ((size_t)2 << 20)

double bench_now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

bool limits_open(struct limits *limits, int num_threads, size_t cache_bytes) {
  /* Three times the caches, so that a pass through a slice leaves nothing of what was there; four
   * slices, so that none of it is there when its turn comes again. */
  const size_t slice = (3 * cache_bytes + HUGE_PAGE) / HUGE_PAGE * HUGE_PAGE;
  void *memory = NULL;
  *limits = (struct limits){.num_threads = num_threads, .slice_bytes = slice, .num_slices = 4};
  if (posix_memalign(&memory, HUGE_PAGE, limits->num_slices * slice) != 0) {
    return false;
  }
#if defined(MADV_HUGEPAGE)
  madvise(memory, limits->num_slices * slice, MADV_HUGEPAGE); /* advice: may be refused */
#endif
  memset(memory, 1, limits->num_slices * slice);
  limits->memory = memory;
  return true;
}

void limits_close(struct limits *limits) { free(limits->memory); }

static unsigned char *next_slice(struct limits *limits) {
  unsigned char *slice = limits->memory + limits->next * limits->slice_bytes;
  limits->next = (limits->next + 1) % limits->num_slices;
  return slice;
}

static uint64_t sum_of(const unsigned char *bytes, size_t count) {
  const uint64_t *words = (const uint64_t *)(const void *)bytes;
  uint64_t sums[8] = {0};
  for (size_t i = 0; i + 8 <= count / sizeof *words; i += 8) {
    for (int j = 0; j < 8; ++j) {
      sums[j] += words[i + (size_t)j];
    }
  }
  uint64_t sum = 0;
  for (int j = 0; j < 8; ++j) {
    sum += sums[j];
  }
  return sum;
}

/* A thread's share of `bytes`, in whole lines. */
static size_t share_begin(size_t bytes, int thread, int num_threads) {
  return bytes / 64 * (size_t)thread / (size_t)num_threads * 64;
}

double limits_read_gbs(struct limits *limits) {
  const unsigned char *slice = next_slice(limits);
  const size_t bytes = limits->slice_bytes;
  const int threads = limits->num_threads;
  volatile uint64_t sink = 0; /* the sums must be worth their making */
  uint64_t sum = 0;
  const double begin = bench_now_us();
#pragma omp parallel num_threads(threads) reduction(+ : sum)
  {
    const int t = omp_get_thread_num();
    const size_t from = share_begin(bytes, t, threads);
    sum += sum_of(slice + from, share_begin(bytes, t + 1, threads) - from);
  }
  sink = sink + sum;
  return (double)bytes / (bench_now_us() - begin) * 1e-3;
}

double limits_copy_gbs(struct limits *limits) {
  const unsigned char *from = next_slice(limits);
  unsigned char *to = next_slice(limits);
  const size_t bytes = limits->slice_bytes;
  const int threads = limits->num_threads;
  const double begin = bench_now_us();
#pragma omp parallel num_threads(threads)
  {
    const int t = omp_get_thread_num();
    const size_t first = share_begin(bytes, t, threads);
    memcpy(to + first, from + first, share_begin(bytes, t + 1, threads) - first);
  }
  return (double)bytes / (bench_now_us() - begin) * 1e-3;
}

double limits_rate_gops(const struct limits *limits, enum rate_unit unit) {
  static const struct rates *const known[] = {
#if defined(SWITCHYARD_HAVE_X86_RATES)
    &rates_avx512,
    &rates_avx2,
#endif
    &rates_generic
  };
  const size_t last = sizeof known / sizeof known[0] - 1; /* it always is available */
  size_t best = 0;
  while (best < last && !known[best]->is_available()) {
    ++best;
  }
  if (known[best]->run[unit] == NULL) {
    return 0.0;
  }
  uint64_t operations = 0;
  const double begin = bench_now_us();
#pragma omp parallel num_threads(limits->num_threads) reduction(+ : operations)
  operations += known[best]->run[unit]();
  return (double)operations / (bench_now_us() - begin) * 1e-3;
}
