#include "tests/support/alloc_free.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "tests/support/harness.h"
#include "tests/support/spoil.h"

/* ---- Counting ---- */

static atomic_bool watching;
static atomic_ullong calls;

void alloc_note(void) {
  if (atomic_load(&watching)) {
    atomic_fetch_add(&calls, 1);
  }
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__real_realloc(void *block, size_t bytes);
void *__wrap_realloc(void *block, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **block_out, size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **block_out, size_t alignment, size_t bytes);
void __real_free(void *block);
void __wrap_free(void *block);

void *__wrap_malloc(size_t bytes) {
  alloc_note();
  return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes) {
  alloc_note();
  return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *block, size_t bytes) {
  alloc_note();
  return __real_realloc(block, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
  alloc_note();
  return __real_aligned_alloc(alignment, bytes);
}

int __wrap_posix_memalign(void **block_out, size_t alignment, size_t bytes) {
  alloc_note();
  return __real_posix_memalign(block_out, alignment, bytes);
}

void __wrap_free(void *block) {
  alloc_note();
  __real_free(block);
}

void alloc_watch(void) {
  atomic_store(&calls, 0);
  atomic_store(&watching, true);
}

uint64_t alloc_watched(void) {
  atomic_store(&watching, false);
  return atomic_load(&calls);
}

/* ---- Forward ---- */

/* A call that works, one that fails, and the counters; the first of its plan, so that nothing can
 * have been allocated by one before. */
static void check_call(const struct layer_rank *rank, const struct call_options *options,
                       const struct token_split *split) {
  size_t num_spoils = 0;
  const struct spoil *bad_id = &spoils(&num_spoils)[0];
  struct layer_call call;
  if (layer_call_open(&call, rank, options, split)) {
    sy_stats stats = SY_STATS_INIT;
    uint64_t counts[SPOIL_EXPERTS];
    size_t count = 0;
    alloc_watch();
    CHECK_OK(layer_call_forward(&call));
    const struct spoilt spoilt = spoil_apply(bad_id, &call);
    CHECK_STATUS(layer_call_forward(&call), bad_id->status);
    spoil_undo(&spoilt, &call);
    CHECK_OK(layer_call_forward(&call));
    CHECK_OK(sy_group_stats(rank->group, 0, &stats));
    CHECK_OK(sy_layer_load_counts(rank->layer, 0, counts, SPOIL_EXPERTS, &count));
    CHECK_OK(sy_group_poll(rank->group));
    CHECK_EQ_U64(alloc_watched(), 0);
  }
  layer_call_close(&call);
}

void check_forward_is_alloc_free(const struct layer_rank *rank, const struct token_split *split) {
  for (int kind = 0; kind < 3 * 2 * 3; ++kind) {
    struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                                   .combine = (sy_combine)(kind / 3 % 2),
                                   .max_tokens = 9,
                                   .own_scratch = kind % 2 != 0};
    if (kind / 6 == 1) {
      options.wave_tokens = 2;
      options.chunk_rows = 3;
    }
    options.halves = kind / 6 == 2;
    check_call(rank, &options, split);
  }
}
