/* GPU groups on machines that a test makes up: without a driver, with a GPU that computes wrongly, with
 * memory that runs out; and what a call asks of the host. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/architecture.h"
#include "runtime/switchyard_nccl.h"
#include "tests/simt/host.h"
#include "tests/support/backend.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"

static void mend_machine(void) {
  simt_set_devices("sm120");
  simt_swap_scales(false);
  unsetenv("SWITCHYARD_GPU_MMA");
}

TEST(without_a_driver_or_a_gpu_it_is_said) {
  int32_t count = 7;
  sy_group *group = NULL;
  simt_set_devices("no driver");
  CHECK_FAILS(sy_gpu_count(&count), NULL, SY_ERR_DEVICE, "driver");
  CHECK_FAILS(sy_group_create_gpu(NULL, &group), NULL, SY_ERR_DEVICE, "driver");
  CHECK_EQ_I64(count, 7);
  simt_set_devices("");
  CHECK_FAILS(sy_group_create_gpu(NULL, &group), NULL, SY_ERR_DEVICE, "no CUDA-capable device");
  CHECK(group == NULL);
  mend_machine();
}

TEST(a_gpu_that_multiplies_wrongly_is_refused) {
  sy_group *group = NULL;
  simt_swap_scales(true);
  CHECK_FAILS(sy_group_create_gpu(NULL, &group), NULL, SY_ERR_UNSUPPORTED, "self-test", "case 0",
              "row 0, column 0", "instead of", "SWITCHYARD_GPU_MMA=bf16");
  simt_set_devices("sm90"); /* which does not use it */
  if (CHECK_OK(sy_group_create_gpu(NULL, &group))) {
    sy_group_destroy(group);
  }
  mend_machine();
}

/* The same outputs, by dequantising on such a GPU as by block scaling on a sound one. */
TEST(it_can_do_without_when_asked_to) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 48, 4, 2);
  const struct call_options options = {.strategy = SY_STRATEGY_AUTO};
  struct layer_case c;
  layer_case_make(&c, &shape, 5);
  void *expected = layer_case_outputs(&c, SY_DTYPE_BF16);
  void *got = layer_case_outputs(&c, SY_DTYPE_BF16);
  layer_case_alone(&c, &options, expected);
  simt_swap_scales(true);
  setenv("SWITCHYARD_GPU_MMA", "bf16", 1);
  layer_case_alone(&c, &options, got);
  same_bits(&c, SY_DTYPE_BF16, got, expected, 0, 5, "by way of bf16");
  sy_group *group = NULL;
  setenv("SWITCHYARD_GPU_MMA", "fp8", 1);
  CHECK_FAILS(sy_group_create_gpu(NULL, &group), NULL, SY_ERR_ARGUMENT,
              "SWITCHYARD_GPU_MMA is 'fp8'", "native, bf16");
  mend_machine();
  layer_case_free(&c);
}

TEST(memory_that_runs_out_leaves_nothing_behind) {
  const size_t alive = simt_num_alive();
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 48, 4, 2);
  bool whole = false;
  for (size_t most = 0; most < 40 && !whole; ++most) {
    sy_group *group = NULL;
    sy_layer *layer = NULL;
    sy_plan *plan = NULL;
    sy_plan_desc desc = SY_PLAN_DESC_INIT;
    desc.shape = &shape;
    desc.max_tokens = 4;
    CHECK_OK(sy_plan_create(&desc, &plan));
    simt_fail_allocations_after(most);
    sy_status status = sy_group_create_gpu(NULL, &group);
    status = status == SY_OK ? sy_layer_create(group, &shape, &layer) : status;
    status = status == SY_OK ? sy_group_reserve(group, plan, 1) : status;
    CHECK(status == SY_OK || status == SY_ERR_MEMORY);
    whole = status == SY_OK;
    simt_fail_allocations_after(SIZE_MAX);
    sy_layer_destroy(layer);
    sy_group_destroy(group);
    sy_plan_destroy(plan);
    CHECK_EQ_U64(simt_num_alive(), alive);
  }
  CHECK(whole);
}

/* ---- What a call asks of the host ---- */

static struct simt_counts counted_call(sy_strategy strategy) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 48, 4, 2);
  struct simt_counts spent = {0};
  struct layer_case c;
  struct layer_rank rank;
  layer_case_make(&c, &shape, 6);
  sy_group *group = local_group(1);
  sy_plan *plan = NULL;
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &shape;
  desc.max_tokens = 6;
  desc.wave_tokens = 4;
  desc.strategy = strategy;
  sy_io io = SY_IO_INIT;
  io.memory = SY_MEMORY_DEVICE;
  io.num_tokens = 6;
  io.hidden = backend_alloc(6 * 64 * 2);
  io.expert_ids = backend_alloc(6 * 2 * 4);
  io.expert_weights = backend_alloc(6 * 2 * 4);
  io.output = backend_alloc(6 * 64 * 2);
  backend_upload((void *)(uintptr_t)io.hidden, c.hidden, 6 * 64 * 2);
  backend_upload((void *)(uintptr_t)io.expert_ids, c.ids, 6 * 2 * 4);
  backend_upload((void *)(uintptr_t)io.expert_weights, c.weights, 6 * 2 * 4);
  if (layer_rank_open(&rank, &c, group) && CHECK_OK(sy_plan_create(&desc, &plan)) &&
      CHECK_OK(sy_group_reserve(group, plan, 1))) {
    const struct simt_counts before = simt_count();
    CHECK_OK(sy_forward(rank.layer, plan, &io, NULL, 0, NULL));
    const struct simt_counts after = simt_count();
    spent = (struct simt_counts){.allocations = after.allocations - before.allocations,
                                 .frees = after.frees - before.frees,
                                 .waits = after.waits - before.waits,
                                 .queries = after.queries - before.queries,
                                 .launches = after.launches - before.launches,
                                 .copies = after.copies - before.copies};
    CHECK_OK(sy_group_wait(group, NULL, 60000));
  }
  backend_free((void *)(uintptr_t)io.hidden);
  backend_free((void *)(uintptr_t)io.expert_ids);
  backend_free((void *)(uintptr_t)io.expert_weights);
  backend_free(io.output);
  sy_plan_destroy(plan);
  layer_rank_close(&rank);
  sy_group_destroy(group);
  layer_case_free(&c);
  return spent;
}

TEST(fixed_and_gather_never_wait_and_exact_waits_per_wave) {
  for (int s = SY_STRATEGY_EXACT; s <= SY_STRATEGY_GATHER; ++s) {
    const struct simt_counts spent = counted_call((sy_strategy)s);
    CHECK_EQ_U64(spent.allocations, 0);
    CHECK_EQ_U64(spent.frees, 0);
    CHECK_EQ_U64(spent.waits, 0);
    CHECK_EQ_U64(spent.copies, 0);
    CHECK(spent.launches > 2 * 10);
    CHECK((spent.queries > 0) == (s == SY_STRATEGY_EXACT));
  }
}

/* ---- Architectures ---- */

TEST(kernels_are_chosen_by_compute_capability) {
  const struct {
    const char *compiled;
    int32_t major, minor;
    const char *said; /* NULL: there are none */
  } cases[] = {
      {"80,90,120f", 12, 0, "sm_120f: FP4 by block-scaled"},
      {"80,90,120f", 12, 1, "sm_120f: FP4 by block-scaled"},
      {"80,90,120f", 9, 0, "sm_90: FP4 dequantised"},
      {"80,90,120f", 8, 0, "sm_80: FP4 dequantised"},
      {"80,90,120f", 8, 9, "sm_80: FP4 dequantised"},
      {"80,86,90", 8, 9, "sm_86: FP4 dequantised"},
      {"86", 8, 0, NULL},
      {"80,90,120f", 7, 5, NULL},
      {"80,90,120f", 10, 0, NULL},
      {"80", 12, 0, NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    char text[160];
    const bool found = sy_cuda_choose_architecture(cases[i].compiled, cases[i].major,
                                                   cases[i].minor, text, sizeof text);
    CHECK(found == (cases[i].said != NULL));
    CHECK_STR_HAS(text, found ? cases[i].said : "none: compiled for sm_");
  }
}
