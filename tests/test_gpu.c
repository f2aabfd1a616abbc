/* What only a GPU's groups have: device tensors, streams, CUDA graphs, faults that are told later. */
#include <cuda_runtime_api.h>
#include <stdio.h>

#include "kernels/fp4.h"
#include "runtime/switchyard_nccl.h"
#include "tests/support/backend.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"

enum { HIDDEN = 64, INTERMEDIATE = 48, EXPERTS = 6, TOP_K = 3, MAX_TOKENS = 7, WAVE_TOKENS = 4 };

#define CHECK_CUDA(call) CHECK_EQ_STR(cudaGetErrorName(call), "cudaSuccess")

/* A group, its layer, a plan of two waves, and device tensors for MAX_TOKENS tokens. */
struct lane {
  struct layer_case c;
  sy_group *group;
  struct layer_rank rank;
  sy_plan *plan;
  sy_io io;
  void *hidden, *ids, *weights;
  cudaStream_t stream;
};

static void fill(struct lane *lane, int64_t first, int64_t count) {
  const struct layer_case *c = &lane->c;
  int32_t ids[MAX_TOKENS * TOP_K];
  for (int64_t i = 0; i < (int64_t)MAX_TOKENS * TOP_K; ++i) {
    ids[i] = i < count * TOP_K ? c->ids[first * TOP_K + i] : -1;
  }
  backend_upload(lane->ids, ids, sizeof ids);
  backend_upload(lane->hidden, c->hidden + first * HIDDEN, (size_t)count * HIDDEN * 2);
  backend_upload(lane->weights, c->weights + first * TOP_K, (size_t)count * TOP_K * 4);
}

static bool lane_open(struct lane *lane, sy_mode mode, sy_strategy strategy, int64_t num_tokens) {
  const sy_shape shape = small_shape(mode, HIDDEN, INTERMEDIATE, EXPERTS, TOP_K);
  *lane = (struct lane){.group = local_group(1)};
  layer_case_make(&lane->c, &shape, num_tokens);
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &shape;
  desc.max_tokens = MAX_TOKENS;
  desc.wave_tokens = WAVE_TOKENS;
  desc.chunk_rows = 3;
  desc.strategy = strategy;
  if (!layer_rank_open(&lane->rank, &lane->c, lane->group) ||
      !CHECK_OK(sy_plan_create(&desc, &lane->plan)) ||
      !CHECK_OK(sy_group_reserve(lane->group, lane->plan, 1))) {
    return false;
  }
  lane->hidden = backend_alloc((size_t)MAX_TOKENS * HIDDEN * 2);
  lane->ids = backend_alloc((size_t)MAX_TOKENS * TOP_K * 4);
  lane->weights = backend_alloc((size_t)MAX_TOKENS * TOP_K * 4);
  lane->io = (sy_io)SY_IO_INIT;
  lane->io.memory = SY_MEMORY_DEVICE;
  lane->io.num_tokens = MAX_TOKENS;
  lane->io.hidden = lane->hidden;
  lane->io.expert_ids = lane->ids;
  lane->io.expert_weights = lane->weights;
  lane->io.output = backend_alloc((size_t)MAX_TOKENS * HIDDEN * 2);
  fill(lane, 0, MAX_TOKENS);
  return CHECK_CUDA(cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking));
}

static void lane_close(struct lane *lane) {
  backend_free(lane->hidden);
  backend_free(lane->ids);
  backend_free(lane->weights);
  backend_free(lane->io.output);
  if (lane->stream != NULL) {
    CHECK_CUDA(cudaStreamDestroy(lane->stream));
  }
  sy_plan_destroy(lane->plan);
  layer_rank_close(&lane->rank);
  sy_group_destroy(lane->group);
  layer_case_free(&lane->c);
}

static sy_status forward(struct lane *lane) {
  return sy_forward(lane->rank.layer, lane->plan, &lane->io, NULL, 0, lane->stream);
}

static sy_status wait_for(struct lane *lane) {
  return sy_group_wait(lane->group, lane->stream, 60000);
}

/* The outputs must be those of a group alone, of tokens [first, first + count) of the case. */
static void check_outputs(struct lane *lane, int64_t first, int64_t count, const char *what) {
  const struct call_options options = {.strategy = SY_STRATEGY_AUTO};
  uint16_t *expected = layer_case_outputs(&lane->c, SY_DTYPE_BF16);
  uint16_t *got = layer_case_outputs(&lane->c, SY_DTYPE_BF16);
  layer_case_alone(&lane->c, &options, expected);
  backend_download(got + first * HIDDEN, lane->io.output, (size_t)count * HIDDEN * 2);
  same_bits(&lane->c, SY_DTYPE_BF16, got, expected, first, first + count, what);
}

/* ---- Graphs ---- */

static void check_replays(sy_mode mode, sy_strategy strategy) {
  struct lane lane;
  cudaGraph_t graph = NULL;
  cudaGraphExec_t exec = NULL;
  if (lane_open(&lane, mode, strategy, 2 * MAX_TOKENS)) {
    CHECK_CUDA(cudaStreamBeginCapture(lane.stream, cudaStreamCaptureModeThreadLocal));
    CHECK_OK(forward(&lane));
    CHECK_CUDA(cudaStreamEndCapture(lane.stream, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    const struct {
      int64_t first, count;
    } uses[] = {{0, MAX_TOKENS}, {MAX_TOKENS, MAX_TOKENS}, {3, 2}, {0, MAX_TOKENS}};
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; ++i) {
      fill(&lane, uses[i].first, uses[i].count);
      CHECK_CUDA(cudaGraphLaunch(exec, lane.stream));
      CHECK_OK(wait_for(&lane));
      check_outputs(&lane, uses[i].first, uses[i].count, "a replay");
      CHECK_OK(forward(&lane));
      CHECK_OK(wait_for(&lane));
      check_outputs(&lane, uses[i].first, uses[i].count, "the same call, uncaptured");
    }
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    CHECK_CUDA(cudaGraphDestroy(graph));
  }
  lane_close(&lane);
}

TEST(a_graph_of_fixed_replays_with_other_tokens) {
  check_replays(SY_MODE_W4A4, SY_STRATEGY_FIXED);
  check_replays(SY_MODE_BF16, SY_STRATEGY_FIXED);
}

TEST(a_graph_of_gather_replays_with_other_tokens) {
  check_replays(SY_MODE_W4A16, SY_STRATEGY_GATHER);
}

TEST(calls_that_wait_are_not_captured) {
  struct lane lane;
  cudaGraph_t graph = NULL;
  if (lane_open(&lane, SY_MODE_BF16, SY_STRATEGY_EXACT, MAX_TOKENS)) {
    CHECK_CUDA(cudaStreamBeginCapture(lane.stream, cudaStreamCaptureModeThreadLocal));
    CHECK_FAILS(forward(&lane), lane.group, SY_ERR_STATE, "being captured", "fixed or gather");
    CHECK_CUDA(cudaStreamEndCapture(lane.stream, &graph));
    CHECK_CUDA(cudaGraphDestroy(graph));
    CHECK_OK(forward(&lane));
    CHECK_OK(wait_for(&lane));
    check_outputs(&lane, 0, MAX_TOKENS, "the next call");
  }
  lane_close(&lane);
}

/* ---- Faults that are told later ---- */

TEST(a_bad_id_acts_as_masked_and_is_told_by_the_next_wait) {
  const sy_strategy strategies[] = {SY_STRATEGY_FIXED, SY_STRATEGY_GATHER, SY_STRATEGY_EXACT};
  for (int s = 0; s < 3; ++s) {
    for (int32_t bad = -2; bad <= EXPERTS; bad += EXPERTS + 2) {
      struct lane lane;
      if (lane_open(&lane, SY_MODE_W4A4, strategies[s], MAX_TOKENS)) {
        const int64_t at = 5 * TOP_K + 1; /* of token 5: in the second wave */
        char said[64];
        snprintf(said, sizeof said, "token 5, top-k slot 1: expert id %d", (int)bad);
        lane.c.ids[at] = bad;
        lane.c.ids[at + 1] = EXPERTS + 100; /* the first is told */
        fill(&lane, 0, MAX_TOKENS);
        CHECK_OK(forward(&lane));
        CHECK_FAILS(wait_for(&lane), lane.group, SY_ERR_ROUTING, "rank 0", said);
        CHECK_OK(wait_for(&lane));
        CHECK_OK(sy_group_poll(lane.group));
        lane.c.ids[at] = -1;
        lane.c.ids[at + 1] = -1;
        check_outputs(&lane, 0, MAX_TOKENS, "bad ids");
      }
      lane_close(&lane);
    }
  }
}

TEST(memory_that_the_gpu_cannot_reach_is_refused) {
  struct lane lane;
  if (lane_open(&lane, SY_MODE_BF16, SY_STRATEGY_FIXED, MAX_TOKENS)) {
    const sy_io good = lane.io;
    const size_t scratch_bytes = sy_plan_scratch_bytes(lane.plan);
    void *scratch = fences_alloc(&lane.c.memory, scratch_bytes, "scratch on the host");
    lane.io.expert_ids = lane.c.ids;
    CHECK_FAILS(forward(&lane), lane.group, SY_ERR_ARGUMENT, "io.expert_ids is no memory that");
    lane.io = good;
    CHECK_FAILS(
        sy_forward(lane.rank.layer, lane.plan, &lane.io, scratch, scratch_bytes, lane.stream),
        lane.group, SY_ERR_ARGUMENT, "scratch is no memory that");
    CHECK_STATUS(wait_for(&lane), SY_ERR_ARGUMENT); /* the own header told it too */
    CHECK_OK(forward(&lane));
    CHECK_OK(wait_for(&lane));
    check_outputs(&lane, 0, MAX_TOKENS, "the next call");
  }
  lane_close(&lane);
}

/* ---- Streams ---- */

TEST(two_lanes_on_two_streams) {
  struct lane lanes[2];
  const bool open = lane_open(&lanes[0], SY_MODE_W4A4, SY_STRATEGY_FIXED, MAX_TOKENS) &&
                    lane_open(&lanes[1], SY_MODE_BF16, SY_STRATEGY_GATHER, MAX_TOKENS);
  for (int round = 0; open && round < 3; ++round) {
    CHECK_OK(forward(&lanes[0]));
    CHECK_OK(forward(&lanes[1]));
  }
  for (int i = 1; open && i >= 0; --i) {
    CHECK_OK(wait_for(&lanes[i]));
    check_outputs(&lanes[i], 0, MAX_TOKENS, "a lane");
  }
  lane_close(&lanes[0]);
  lane_close(&lanes[1]);
}

TEST(counters_outlive_the_stream) {
  struct lane lane;
  if (lane_open(&lane, SY_MODE_BF16, SY_STRATEGY_FIXED, MAX_TOKENS)) {
    sy_stats stats = SY_STATS_INIT;
    CHECK_OK(forward(&lane));
    CHECK_OK(wait_for(&lane));
    CHECK_CUDA(cudaStreamDestroy(lane.stream));
    lane.stream = NULL;
    CHECK_OK(sy_group_stats(lane.group, 1, &stats));
    CHECK_EQ_U64(stats.received_rows, MAX_TOKENS);
    CHECK_EQ_U64(stats.routed_rows, MAX_TOKENS * TOP_K);
    CHECK_EQ_U64(stats.waves, 2);
  }
  lane_close(&lane);
}

/* ---- GPUs ---- */

TEST(gpus_are_described) {
  sy_group_destroy(local_group(1)); /* skips where there is none */
  int32_t count = 0;
  sy_gpu_info info = SY_GPU_INFO_INIT;
  int32_t can = 7;
  CHECK_OK(sy_gpu_count(&count));
  CHECK(count > 0);
  CHECK_OK(sy_gpu_query(0, &info));
  CHECK(info.name[0] != '\0' && info.num_sms > 0 && info.memory_bytes > 0);
  CHECK_EQ_I64(info.is_usable, 1);
  CHECK_STR_HAS(info.kernels, "sm_");
  CHECK_OK(sy_gpu_can_access_peer(0, 0, &can));
  CHECK_EQ_I64(can, 0); /* of itself, says CUDA */
  CHECK_FAILS(sy_gpu_query(count, &info), NULL, SY_ERR_ARGUMENT, "allowed are 0 to");
  CHECK_FAILS(sy_gpu_can_access_peer(0, -1, &can), NULL, SY_ERR_ARGUMENT, "GPU -1 of");
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  sy_group *group = NULL;
  desc.device = count;
  CHECK_FAILS(sy_group_create_gpu(&desc, &group), NULL, SY_ERR_ARGUMENT, "allowed are 0 to");
}
