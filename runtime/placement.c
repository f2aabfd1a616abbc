/* The shape of a layer, checked, and where its experts live. */
#include <math.h>
#include <string.h>

#include "runtime/internal.h"
#include "runtime/memory.h"

#define SY_MAX_SIZE (INT64_C(1) << 20)
#define SY_MAX_EXPERTS 65534
#define SY_MAX_TOP_K 1024
#define SY_MAX_WORLD 65536

uint64_t sy_hash(uint64_t hash, const void *data, size_t bytes) {
  const unsigned char *byte = data;
  for (size_t i = 0; i < bytes; ++i) {
    /* NOLINTNEXTLINE(clang-analyzer-core.*): it loses the bytes of an int64_t beyond the first */
    hash = (hash ^ byte[i]) * UINT64_C(1099511628211);
  }
  return hash;
}

static sy_status check_size(const char *name, int64_t value, int64_t multiple) {
  if (value < multiple || value > SY_MAX_SIZE || value % multiple != 0) {
    return sy_fail(SY_ERR_ARGUMENT, "%s is %lld; allowed: multiples of %lld from %lld to %lld",
                   name, (long long)value, (long long)multiple, (long long)multiple,
                   (long long)SY_MAX_SIZE);
  }
  return SY_OK;
}

sy_status sy_check_range(const char *name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    return sy_fail(SY_ERR_ARGUMENT, "%s is %lld; allowed: %lld to %lld", name, (long long)value,
                   (long long)low, (long long)high);
  }
  return SY_OK;
}

static sy_status check_shape(const sy_shape *shape, int32_t world) {
  if (!SY_DESC_OK(shape)) {
    return sy_fail(SY_ERR_ARGUMENT, "shape is NULL, or not initialised with SY_SHAPE_INIT");
  }
  SY_TRY(sy_check_range("world", world, 1, SY_MAX_WORLD));
  SY_TRY(sy_check_range("mode", (int64_t)shape->mode, SY_MODE_W4A4, SY_MODE_BF16));
  SY_TRY(sy_check_range("format", (int64_t)shape->format, SY_FORMAT_NVFP4, SY_FORMAT_MXFP4));
  const int64_t multiple = shape->mode == SY_MODE_BF16 ? 16 : sy_scale_block(shape->format);
  SY_TRY(check_size("hidden", shape->hidden, multiple));
  SY_TRY(check_size("intermediate", shape->intermediate, multiple));
  SY_TRY(sy_check_range("num_experts", shape->num_experts, 1, SY_MAX_EXPERTS));
  SY_TRY(sy_check_range("top_k", shape->top_k, 1, SY_MAX_TOP_K));
  SY_TRY(sy_check_range("activation", (int64_t)shape->activation, SY_ACTIVATION_SWIGLU,
                        SY_ACTIVATION_RELU2));
  SY_TRY(sy_check_range("has_bias", shape->has_bias, 0, 1));
  if (shape->activation == SY_ACTIVATION_SWIGLU_CLAMPED &&
      !(isfinite(shape->swiglu_alpha) && isfinite(shape->swiglu_limit) &&
        shape->swiglu_limit > 0.0f)) {
    return sy_fail(SY_ERR_ARGUMENT,
                   "swiglu_alpha is %g and swiglu_limit %g; allowed: finite, and a limit above 0",
                   (double)shape->swiglu_alpha, (double)shape->swiglu_limit);
  }
  if (shape->expert_local != NULL && shape->expert_rank == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "expert_local is given without expert_rank");
  }
  return SY_OK;
}

/* The first num_experts % world ranks own one expert more. */
static int32_t contiguous_rank(int32_t expert, int32_t num_experts, int32_t world) {
  const int32_t base = num_experts / world;
  const int32_t longer = num_experts % world;
  const int32_t in_longer = longer * (base + 1);
  return expert < in_longer ? expert / (base + 1) : longer + (expert - in_longer) / base;
}

static sy_status place_on_ranks(const sy_shape *shape, int32_t world, int32_t *rank_of) {
  for (int32_t e = 0; e < shape->num_experts; ++e) {
    rank_of[e] = shape->expert_rank != NULL ? shape->expert_rank[e]
                                            : contiguous_rank(e, shape->num_experts, world);
    if (rank_of[e] < 0 || rank_of[e] >= world) {
      return sy_fail(SY_ERR_ARGUMENT, "expert_rank[%d] is %d; allowed: 0 to %d", (int)e,
                     (int)rank_of[e], (int)world - 1);
    }
  }
  return SY_OK;
}

/* rank_experts: how many experts each rank owns. With a table of local experts, each rank's must be
 * 0 .. E_local - 1, once each: `seen` marks (rank, local) pairs, rank by rank. */
static sy_status place_locally(const sy_shape *shape, int32_t world, const int32_t *rank_of,
                               int32_t *local_of, int32_t *rank_experts, int32_t *first_of,
                               unsigned char *seen) {
  memset(rank_experts, 0, (size_t)world * sizeof *rank_experts);
  for (int32_t e = 0; e < shape->num_experts; ++e) {
    local_of[e] = rank_experts[rank_of[e]]++;
  }
  if (shape->expert_local == NULL) {
    return SY_OK;
  }
  int32_t first = 0;
  for (int32_t p = 0; p < world; ++p) {
    first_of[p] = first;
    first += rank_experts[p];
  }
  memset(seen, 0, (size_t)shape->num_experts);
  for (int32_t e = 0; e < shape->num_experts; ++e) {
    const int32_t local = shape->expert_local[e];
    const int32_t count = rank_experts[rank_of[e]];
    if (local < 0 || local >= count) {
      return sy_fail(SY_ERR_ARGUMENT, "expert_local[%d] is %d; rank %d owns %d experts, so 0 to %d",
                     (int)e, (int)local, (int)rank_of[e], (int)count, (int)count - 1);
    }
    unsigned char *mark = &seen[first_of[rank_of[e]] + local];
    if (*mark != 0) {
      return sy_fail(SY_ERR_ARGUMENT, "expert_local[%d] is %d, which rank %d has given already",
                     (int)e, (int)local, (int)rank_of[e]);
    }
    *mark = 1;
    local_of[e] = local;
  }
  return SY_OK;
}

static uint64_t hash_model(const struct sy_model *model) {
  const sy_shape *s = &model->shape;
  const bool clamped = s->activation == SY_ACTIVATION_SWIGLU_CLAMPED;
  const sy_format format = s->mode == SY_MODE_BF16 ? SY_FORMAT_NVFP4 : s->format;
  const int64_t numbers[] = {s->hidden,   s->intermediate,  s->num_experts,
                             s->top_k,    (int64_t)s->mode, (int64_t)s->activation,
                             s->has_bias, model->world,     (int64_t)format};
  const float clamp[] = {clamped ? s->swiglu_alpha : 0.0f, clamped ? s->swiglu_limit : 0.0f};
  const size_t table_bytes = (size_t)s->num_experts * sizeof(int32_t);
  uint64_t hash = sy_hash(SY_HASH_SEED, numbers, sizeof numbers);
  hash = sy_hash(hash, clamp, sizeof clamp);
  hash = sy_hash(hash, model->expert_rank, table_bytes);
  return sy_hash(hash, model->expert_local, table_bytes);
}

sy_status sy_model_resolve(const sy_shape *shape, int32_t world, struct sy_model *model_out) {
  SY_TRY(check_shape(shape, world));
  const size_t experts = (size_t)shape->num_experts;
  struct sy_model model = {.shape = *shape, .world = world};
  model.expert_rank = sy_alloc(experts * sizeof *model.expert_rank);
  model.expert_local = sy_alloc(experts * sizeof *model.expert_local);
  model.rank_experts = sy_alloc((size_t)world * sizeof *model.rank_experts);
  int32_t *first_of = sy_alloc((size_t)world * sizeof *first_of);
  unsigned char *seen = sy_alloc(experts);
  sy_status status = SY_OK;
  if (model.expert_rank == NULL || model.expert_local == NULL || model.rank_experts == NULL ||
      first_of == NULL || seen == NULL) {
    status = sy_fail(SY_ERR_MEMORY, "the placement of %d experts cannot be allocated",
                     (int)shape->num_experts);
  }
  if (status == SY_OK) {
    status = place_on_ranks(shape, world, model.expert_rank);
  }
  if (status == SY_OK) {
    status = place_locally(shape, world, model.expert_rank, model.expert_local, model.rank_experts,
                           first_of, seen);
  }
  sy_free(first_of);
  sy_free(seen);
  if (status != SY_OK) {
    sy_model_release(&model);
    return status;
  }
  for (int32_t p = 0; p < world; ++p) {
    const int32_t count = model.rank_experts[p];
    model.max_local_experts = count > model.max_local_experts ? count : model.max_local_experts;
  }
  model.shape.expert_rank = model.expert_rank;
  model.shape.expert_local = model.expert_local;
  model.hash = hash_model(&model);
  *model_out = model;
  return SY_OK;
}

void sy_model_release(struct sy_model *model) {
  sy_free(model->expert_rank);
  sy_free(model->expert_local);
  sy_free(model->rank_experts);
  memset(model, 0, sizeof *model);
}

sy_status sy_placement_resolve(const sy_shape *shape, int32_t world, int32_t *rank_out,
                               int32_t *local_out) {
  struct sy_model model;
  SY_TRY(sy_model_resolve(shape, world, &model));
  const size_t bytes = (size_t)model.shape.num_experts * sizeof(int32_t);
  if (rank_out != NULL) {
    memcpy(rank_out, model.expert_rank, bytes);
  }
  if (local_out != NULL) {
    memcpy(local_out, model.expert_local, bytes);
  }
  sy_model_release(&model);
  return SY_OK;
}
