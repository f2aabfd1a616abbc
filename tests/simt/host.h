/* What tests ask of the stand-ins for CUDA and NCCL, besides their calls. */
#ifndef SY_TESTS_SIMT_HOST_H
#define SY_TESTS_SIMT_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Begins anew: kernels and streams follow this seed from now on. At first it is SY_TEST_SEED, or 1. */
void simt_reseed(uint64_t seed);

/* The first violation since it was last asked for, as text; NULL when there is none. The device works
 * again. Valid until the next call. */
const char *simt_take_violation(void);

/* What the program did so far. */
struct simt_counts {
  uint64_t allocations; /* of device and pinned memory */
  uint64_t frees;
  uint64_t waits;   /* of the host: synchronisations, also those hidden in other calls */
  uint64_t queries; /* of streams and events */
  uint64_t launches;
  uint64_t copies;
};
struct simt_counts simt_count(void);

/* Streams, events, graphs, pieces of memory and communicators that were not given back. */
size_t simt_num_alive(void);

/* The machine's GPUs, by the names "sm120", "sm121" and "sm90" with commas between them; "" for none,
 * "no driver". At first it is what SY_SIMT_DEVICES says, or one sm120. False: an unknown name. */
bool simt_set_devices(const char *names);

/* Whether block-scaled matrix instructions take B's scales from the wrong half of their word. */
void simt_swap_scales(bool swaps);

/* Allocations fail once so many have succeeded from now on; SIZE_MAX: never. */
void simt_fail_allocations_after(size_t count);

/* A wait that lasts longer is a violation: work that never ends. */
void simt_set_patience_ms(int64_t ms);

/* All communicators of this process fail asynchronously, with this ncclResult_t. */
void simt_fail_communicators(int result);

#ifdef __cplusplus
}
#endif

#endif
