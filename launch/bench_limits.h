/* What this machine can do at best, measured beside what is benchmarked: both see the same
 * neighbours. */
#ifndef LAUNCH_BENCH_LIMITS_H
#define LAUNCH_BENCH_LIMITS_H

#include <stddef.h>

#include "launch/rates.h"

struct limits {
  int num_threads;
  size_t slice_bytes; /* more than all caches hold */
  size_t num_slices;
  size_t next;
  unsigned char *memory; /* [num_slices * slice_bytes] */
};

/* cache_bytes: of the last level, all of it. False: out of memory. */
bool limits_open(struct limits *limits, int num_threads, size_t cache_bytes);
void limits_close(struct limits *limits);

/* One short measurement each, on all threads. Reading leaves nothing else in the caches; 1e9 bytes
 * per second. */
double limits_read_gbs(struct limits *limits);

/* Bytes copied, which are read and written. */
double limits_copy_gbs(struct limits *limits);

/* 1e9 operations per second; 0: the CPU has no such unit. */
double limits_rate_gops(const struct limits *limits, enum rate_unit unit);

double bench_now_us(void);

#endif
