/* How long one call takes on a GPU, captured in a CUDA graph: one JSON line per shape and number of
 * tokens, against the copy bandwidth of the same run. Bytes are what must be read: the weights of the
 * active experts. wrong counts outputs of later replays that differ from the first. */
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/switchyard_nccl.h"

enum { NUM_REPLAYS = 200, NUM_COPIES = 20 };

#define COPY_BYTES ((size_t)1 << 30)

struct shape {
  const char *name;
  int64_t hidden, intermediate;
  int32_t num_experts, top_k;
  sy_mode mode;
};

static const struct shape shapes[] = {
    {"H2048 I768 E64 K8", 2048, 768, 64, 8, SY_MODE_W4A4},
    {"H2048 I768 E64 K8", 2048, 768, 64, 8, SY_MODE_BF16},
    {"H4096 I1536 E16 K4", 4096, 1536, 16, 4, SY_MODE_W4A4},
};
static const int64_t token_counts[] = {1, 8, 64, 512};

static void check(sy_status status, const char *what) {
  if (status != SY_OK) {
    fprintf(stderr, "%s: %s\n", what, sy_last_error(NULL));
    exit(1);
  }
}

static void check_cuda(cudaError_t error, const char *what) {
  if (error != cudaSuccess) {
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    exit(1);
  }
}

static void *device_block(size_t bytes) {
  void *block = NULL;
  check_cuda(cudaMalloc(&block, bytes), "cudaMalloc");
  return block;
}

static uint64_t random_state = 1;

static double random_unit(void) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (double)(random_state >> 40) / 16777216.0;
}

static uint16_t bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (uint16_t)(bits >> 16);
}

static int by_size(const void *a, const void *b) {
  const float x = *(const float *)a;
  const float y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Bytes per second that one copy on the device reads; it writes as many. */
static double copy_bandwidth(cudaStream_t stream) {
  void *to = device_block(COPY_BYTES);
  void *from = device_block(COPY_BYTES);
  float ms[NUM_COPIES];
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin), "event");
  check_cuda(cudaEventCreate(&end), "event");
  for (int i = 0; i < NUM_COPIES; ++i) {
    check_cuda(cudaEventRecord(begin, stream), "record");
    check_cuda(cudaMemcpyAsync(to, from, COPY_BYTES, cudaMemcpyDeviceToDevice, stream), "copy");
    check_cuda(cudaEventRecord(end, stream), "record");
    check_cuda(cudaEventSynchronize(end), "copy");
    check_cuda(cudaEventElapsedTime(&ms[i], begin, end), "time");
  }
  qsort(ms, NUM_COPIES, sizeof *ms, by_size);
  check_cuda(cudaFree(to), "free");
  check_cuda(cudaFree(from), "free");
  return 2.0 * (double)COPY_BYTES / ((double)ms[NUM_COPIES / 2] * 1e-3);
}

static sy_layer *make_layer(sy_group *group, const sy_shape *shape) {
  const size_t values = (size_t)(shape->hidden * shape->intermediate);
  uint16_t *weights = malloc(values * sizeof *weights);
  sy_layer *layer = NULL;
  if (weights == NULL) {
    exit(1);
  }
  for (size_t i = 0; i < values; ++i) {
    weights[i] = bf16((float)(random_unit() - 0.5) * 0.1f);
  }
  check(sy_layer_create(group, shape, &layer), "layer");
  sy_expert_weights expert = SY_EXPERT_WEIGHTS_INIT;
  expert.dtype = SY_DTYPE_BF16;
  expert.gate = expert.up = expert.down = weights;
#pragma omp parallel for schedule(dynamic)
  for (int32_t e = 0; e < shape->num_experts; ++e) {
    check(sy_layer_load_expert(layer, e, &expert), "load");
  }
  free(weights);
  return layer;
}

struct tensors {
  sy_io io;
  uint16_t *first, *later; /* outputs, on the host */
  size_t output_bytes;
};

static struct tensors make_tensors(const sy_shape *shape, int64_t num_tokens) {
  const size_t values = (size_t)(num_tokens * shape->hidden);
  const size_t slots = (size_t)num_tokens * (size_t)shape->top_k;
  uint16_t *hidden = malloc(values * 2);
  int32_t *ids = malloc(slots * 4);
  float *weights = malloc(slots * 4);
  struct tensors t = {.io = SY_IO_INIT, .output_bytes = values * 2};
  t.first = malloc(t.output_bytes);
  t.later = malloc(t.output_bytes);
  if (hidden == NULL || ids == NULL || weights == NULL || t.first == NULL || t.later == NULL) {
    exit(1);
  }
  for (size_t i = 0; i < values; ++i) {
    hidden[i] = bf16((float)(random_unit() - 0.5));
  }
  for (size_t s = 0; s < slots; ++s) { /* distinct within a token */
    const int32_t stride = shape->num_experts / shape->top_k;
    ids[s] = (int32_t)(s % (size_t)shape->top_k) * stride + (int32_t)(random_unit() * stride);
    weights[s] = 1.0f / (float)shape->top_k;
  }
  void *device[] = {device_block(values * 2), device_block(slots * 4), device_block(slots * 4)};
  check_cuda(cudaMemcpy(device[0], hidden, values * 2, cudaMemcpyHostToDevice), "upload");
  check_cuda(cudaMemcpy(device[1], ids, slots * 4, cudaMemcpyHostToDevice), "upload");
  check_cuda(cudaMemcpy(device[2], weights, slots * 4, cudaMemcpyHostToDevice), "upload");
  t.io.memory = SY_MEMORY_DEVICE;
  t.io.num_tokens = num_tokens;
  t.io.hidden = device[0];
  t.io.expert_ids = device[1];
  t.io.expert_weights = device[2];
  t.io.output = device_block(t.output_bytes);
  free(hidden);
  free(ids);
  free(weights);
  return t;
}

static void free_tensors(struct tensors *t) {
  check_cuda(cudaFree((void *)(uintptr_t)t->io.hidden), "free");
  check_cuda(cudaFree((void *)(uintptr_t)t->io.expert_ids), "free");
  check_cuda(cudaFree((void *)(uintptr_t)t->io.expert_weights), "free");
  check_cuda(cudaFree(t->io.output), "free");
  free(t->first);
  free(t->later);
}

static void replay(cudaGraphExec_t exec, struct tensors *t, cudaStream_t stream, float *ms,
                   int *wrong_out) {
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin), "event");
  check_cuda(cudaEventCreate(&end), "event");
  *wrong_out = 0;
  for (int i = -3; i < NUM_REPLAYS; ++i) { /* the first warm up */
    check_cuda(cudaEventRecord(begin, stream), "record");
    check_cuda(cudaGraphLaunch(exec, stream), "launch");
    check_cuda(cudaEventRecord(end, stream), "record");
    check_cuda(cudaEventSynchronize(end), "replay");
    float this_ms = 0.0f;
    check_cuda(cudaEventElapsedTime(&this_ms, begin, end), "time");
    void *output = i == -3 ? t->first : t->later;
    check_cuda(cudaMemcpy(output, t->io.output, t->output_bytes, cudaMemcpyDeviceToHost), "output");
    *wrong_out += i > -3 && memcmp(t->first, t->later, t->output_bytes) != 0 ? 1 : 0;
    if (i >= 0) {
      ms[i] = this_ms;
    }
  }
  qsort(ms, NUM_REPLAYS, sizeof *ms, by_size);
}

static int run(sy_layer *layer, sy_group *group, const sy_shape *shape, const char *name,
               int64_t num_tokens, cudaStream_t stream, double copy_rate) {
  struct tensors t = make_tensors(shape, num_tokens);
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  sy_plan *plan = NULL;
  cudaGraph_t graph = NULL;
  cudaGraphExec_t exec = NULL;
  float ms[NUM_REPLAYS];
  int wrong = 0;
  desc.shape = shape;
  desc.max_tokens = num_tokens;
  desc.strategy = SY_STRATEGY_FIXED;
  check(sy_plan_create(&desc, &plan), "plan");
  check(sy_group_reserve(group, plan, 1), "reserve");
  sy_stats stats = SY_STATS_INIT;
  check(sy_group_stats(group, 1, &stats), "stats");
  check(sy_forward(layer, plan, &t.io, NULL, 0, stream), "forward");
  check(sy_group_wait(group, stream, 60000), "wait");
  check(sy_group_stats(group, 0, &stats), "stats");
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  check(sy_forward(layer, plan, &t.io, NULL, 0, stream), "forward");
  check_cuda(cudaStreamEndCapture(stream, &graph), "capture");
  check_cuda(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  replay(exec, &t, stream, ms, &wrong);
  check(sy_group_wait(group, stream, 60000), "wait");
  const double bytes = (double)sy_layer_weight_bytes(layer) * (double)stats.active_experts /
                       (double)shape->num_experts;
  const double p50 = (double)ms[NUM_REPLAYS / 2] * 1e-3;
  printf("{\"shape\": \"%s\", \"mode\": %d, \"tokens\": %lld, \"active_experts\": %llu, "
         "\"weight_bytes\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"gbs\": %.1f, "
         "\"copy_gbs\": %.1f, \"percent_of_copy\": %.1f, \"wrong\": %d}\n",
         name, (int)shape->mode, (long long)num_tokens, (unsigned long long)stats.active_experts,
         bytes, p50 * 1e6, (double)ms[NUM_REPLAYS * 99 / 100] * 1e3, bytes / p50 * 1e-9,
         copy_rate * 1e-9, 100.0 * bytes / p50 / copy_rate, wrong);
  check_cuda(cudaGraphExecDestroy(exec), "graph");
  check_cuda(cudaGraphDestroy(graph), "graph");
  sy_plan_destroy(plan);
  free_tensors(&t);
  return wrong;
}

int main(void) {
  sy_group *group = NULL;
  int32_t count = 0;
  int wrong = 0;
  if (sy_gpu_count(&count) != SY_OK || count == 0) {
    fprintf(stderr, "skipped: no GPU: %s\n", sy_last_error(NULL));
    return 77;
  }
  cudaStream_t stream = NULL;
  check(sy_group_create_gpu(NULL, &group), "group");
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  const double copy_rate = copy_bandwidth(stream);
  for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; ++s) {
    sy_shape shape = SY_SHAPE_INIT;
    shape.hidden = shapes[s].hidden;
    shape.intermediate = shapes[s].intermediate;
    shape.num_experts = shapes[s].num_experts;
    shape.top_k = shapes[s].top_k;
    shape.mode = shapes[s].mode;
    sy_layer *layer = make_layer(group, &shape);
    for (size_t i = 0; i < sizeof token_counts / sizeof token_counts[0]; ++i) {
      wrong += run(layer, group, &shape, shapes[s].name, token_counts[i], stream, copy_rate);
    }
    sy_layer_destroy(layer);
  }
  check_cuda(cudaStreamDestroy(stream), "stream");
  sy_group_destroy(group);
  return wrong == 0 ? 0 : 1;
}
