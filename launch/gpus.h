/* The GPUs of this host that CUDA shows to this process. One of two files is built: gpus_cuda.c, or
 * gpus_none.c where the GPU library was not built. */
#ifndef LAUNCH_GPUS_H
#define LAUNCH_GPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GPUS_MAX = 16 };

struct gpu_facts {
  char name[256];
  char kernels[160]; /* which ones it will use and why, or why none */
  int compute_major, compute_minor;
  int num_sms;
  size_t memory_bytes;
  bool is_usable;
  bool reaches[GPUS_MAX]; /* reads that GPU's memory */
};

struct gpus {
  bool is_built;
  char missing[512]; /* why there is none, or empty */
  int count;         /* <= GPUS_MAX */
  struct gpu_facts gpu[GPUS_MAX];
};

void gpus_discover(struct gpus *gpus_out);

#endif
