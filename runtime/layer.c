/* A layer: this rank's experts, quantised and prepacked. */
#include <string.h>

#include "runtime/gpu.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

static struct sy_stage_env layer_env(const sy_group *group, const struct sy_model *model) {
  const sy_shape *shape = &model->shape;
  return (struct sy_stage_env){.hidden = shape->hidden,
                               .intermediate = shape->intermediate,
                               .num_experts = shape->num_experts,
                               .top_k = shape->top_k,
                               .world = group->world,
                               .rank = group->rank,
                               .local_experts = model->rank_experts[group->rank],
                               .mode = shape->mode,
                               .format = shape->format,
                               .activation = shape->activation,
                               .swiglu_alpha = shape->swiglu_alpha,
                               .swiglu_limit = shape->swiglu_limit,
                               .has_bias = shape->has_bias != 0,
                               .expert_rank = model->expert_rank,
                               .expert_local = model->expert_local,
                               .num_threads = group->desc.num_threads};
}

/* Memory of the backend. */
static void *backend_alloc(const sy_group *group, size_t bytes) {
  return group->device != NULL ? group->device->alloc(bytes) : sy_alloc(bytes);
}

/* On a dead group the device may still be at work: what it reaches stays. */
static void backend_free(const sy_group *group, void *block) {
  if (group->device == NULL) {
    sy_free(block);
  } else if (!group->dead) {
    group->device->free(block);
  }
}

static sy_status backend_clear(sy_group *group, void *block, size_t bytes) {
  if (group->device == NULL) {
    memset(block, 0, bytes);
    return SY_OK;
  }
  return sy_gpu_check(group, group->device->clear(block, bytes, group->gpu->stream), "layer");
}

/* Kernels on a GPU read the placement there. */
static sy_status upload_placement(sy_layer *layer) {
  const sy_group *group = layer->group;
  const size_t num_experts = (size_t)layer->env.num_experts;
  const size_t bytes = num_experts * sizeof *layer->placement;
  layer->placement = group->device->alloc(2 * bytes);
  if (layer->placement == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%zu bytes for a placement cannot be allocated", 2 * bytes);
  }
  layer->env.expert_rank = layer->placement;
  layer->env.expert_local = layer->placement + num_experts;
  const struct sy_device *device = group->device;
  if (device->upload(layer->placement, layer->model.expert_rank, bytes) != SY_OK ||
      device->upload(layer->placement + num_experts, layer->model.expert_local, bytes) != SY_OK) {
    return sy_fail(SY_ERR_DEVICE, "placement: %s", device->error_text());
  }
  return SY_OK;
}

static sy_status allocate(sy_layer *layer) {
  sy_group *group = layer->group;
  const size_t experts = (size_t)layer->env.local_experts;
  layer->expert_bytes = group->kernels->expert_bytes(&layer->env);
  if (experts > 0 && layer->expert_bytes > SIZE_MAX / experts) {
    return sy_fail(SY_ERR_OVERFLOW, "%zu experts of %zu bytes exceed SIZE_MAX", experts,
                   layer->expert_bytes);
  }
  layer->global_expert = sy_alloc(experts * sizeof *layer->global_expert);
  layer->loaded = sy_alloc(experts);
  layer->load_counts = backend_alloc(group, experts * sizeof *layer->load_counts);
  layer->active = backend_alloc(group, experts);
  layer->weights = backend_alloc(group, experts * layer->expert_bytes);
  if (layer->global_expert == NULL || layer->loaded == NULL || layer->load_counts == NULL ||
      layer->active == NULL || layer->weights == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%zu bytes for the weights of %zu experts cannot be allocated",
                   experts * layer->expert_bytes, experts);
  }
  memset(layer->loaded, 0, experts);
  for (int32_t e = 0; e < layer->env.num_experts; ++e) {
    if (layer->model.expert_rank[e] == group->rank) {
      layer->global_expert[layer->model.expert_local[e]] = e;
    }
  }
  SY_TRY(backend_clear(group, layer->load_counts, experts * sizeof *layer->load_counts));
  return group->device != NULL ? upload_placement(layer) : SY_OK;
}

sy_status sy_layer_create(sy_group *group, const sy_shape *shape, sy_layer **layer_out) {
  if (group == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "group is NULL");
  }
  if (layer_out == NULL) {
    return sy_group_fail(group, SY_ERR_ARGUMENT, "layer_out is NULL");
  }
  sy_layer *layer = sy_alloc(sizeof *layer);
  if (layer == NULL) {
    return sy_group_fail(group, SY_ERR_MEMORY, "%zu bytes for a layer cannot be allocated",
                         sizeof *layer);
  }
  memset(layer, 0, sizeof *layer);
  layer->group = group;
  ++group->num_layers;
  sy_status status = sy_model_resolve(shape, group->world, &layer->model);
  if (status == SY_OK && group->device != NULL) {
    status = group->device->use(group->desc.device);
  }
  if (status == SY_OK) {
    layer->env = layer_env(group, &layer->model);
    status = allocate(layer);
  }
  if (status != SY_OK) {
    sy_layer_destroy(layer);
    return sy_group_fail(group, status, "%s", sy_last_error(NULL));
  }
  *layer_out = layer;
  return SY_OK;
}

void sy_layer_destroy(sy_layer *layer) {
  if (layer != NULL) {
    --layer->group->num_layers;
    sy_gpu_settle(layer->group);
    sy_free(layer->global_expert);
    sy_free(layer->loaded);
    backend_free(layer->group, layer->load_counts);
    backend_free(layer->group, layer->active);
    backend_free(layer->group, layer->weights);
    backend_free(layer->group, layer->placement);
    sy_model_release(&layer->model);
    sy_free(layer);
  }
}

sy_status sy_layer_check_format(const sy_layer *layer, sy_format format) {
  static const char *const names[] = {"NVFP4", "MXFP4"};
  if (layer->env.mode == SY_MODE_BF16) {
    return sy_fail(SY_ERR_UNSUPPORTED,
                   "the weights are %s already, the layer's mode is bf16; allowed: w4a4, w4a16",
                   names[format]);
  }
  if (layer->env.format != format) {
    return sy_fail(SY_ERR_UNSUPPORTED,
                   "the weights are %s already, the layer's format is %s: they are taken code for "
                   "code, never quantised again",
                   names[format], names[layer->env.format]);
  }
  return SY_OK;
}

/* A failure of the source's own has its sentence from there. */
static sy_status load(sy_layer *layer, int32_t local_expert, const struct sy_source *source,
                      unsigned char *expert, struct sy_bad_weight *bad_out) {
  struct sy_bad_weight bad = {.projection = NULL};
  const int global_expert = (int)layer->global_expert[local_expert];
  const sy_status status = layer->group->kernels->load_expert(&layer->env, source, expert, &bad);
  if (status != SY_ERR_ARGUMENT) {
    return status;
  }
  *bad_out = bad;
  if (bad.scale_code >= 0) {
    return sy_fail(status,
                   "expert %d: the block scale of %s[%lld, %lld..] is code 0x%02x; scales must be "
                   "finite and without sign",
                   global_expert, bad.projection, (long long)bad.row, (long long)bad.column,
                   (unsigned)bad.scale_code);
  }
  return sy_fail(
      status,
      "expert %d: %s[%lld, %lld] is %g; weights must be finite, and in mode bf16 at most 3.39e38",
      global_expert, bad.projection, (long long)bad.row, (long long)bad.column, (double)bad.value);
}

/* Prepacked on the host, then taken to the GPU. */
static sy_status load_through_host(sy_layer *layer, int32_t local_expert,
                                   const struct sy_source *source, unsigned char *expert,
                                   struct sy_bad_weight *bad_out) {
  const sy_group *group = layer->group;
  unsigned char *staged = sy_alloc(layer->expert_bytes);
  if (staged == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%zu bytes to stage an expert cannot be allocated",
                   layer->expert_bytes);
  }
  sy_status status = load(layer, local_expert, source, staged, bad_out);
  if (status == SY_OK && (group->device->use(group->desc.device) != SY_OK ||
                          group->device->upload(expert, staged, layer->expert_bytes) != SY_OK)) {
    status = sy_fail(SY_ERR_DEVICE, "expert %d: %s", (int)layer->global_expert[local_expert],
                     group->device->error_text());
  }
  sy_free(staged);
  return status;
}

sy_status sy_layer_load_source(sy_layer *layer, int32_t local_expert,
                               const struct sy_source *source, struct sy_bad_weight *bad_out) {
  unsigned char *expert = layer->weights + (size_t)local_expert * layer->expert_bytes;
  layer->loaded[local_expert] = 0;
  SY_TRY(layer->group->device != NULL
             ? load_through_host(layer, local_expert, source, expert, bad_out)
             : load(layer, local_expert, source, expert, bad_out));
  layer->loaded[local_expert] = 1;
  return SY_OK;
}

int32_t sy_layer_num_local_experts(const sy_layer *layer) { return layer->env.local_experts; }

int32_t sy_layer_global_expert(const sy_layer *layer, int32_t local_expert) {
  return local_expert >= 0 && local_expert < layer->env.local_experts
             ? layer->global_expert[local_expert]
             : -1;
}

size_t sy_layer_weight_bytes(const sy_layer *layer) {
  return (size_t)layer->env.local_experts * layer->expert_bytes;
}

sy_status sy_layer_load_counts(sy_layer *layer, int32_t reset, uint64_t *counts_out,
                               size_t capacity, size_t *count_out) {
  if (layer == NULL || count_out == NULL || (counts_out == NULL && capacity > 0)) {
    return sy_fail(SY_ERR_ARGUMENT, "layer, counts_out or count_out is NULL");
  }
  const size_t count = (size_t)layer->env.local_experts;
  *count_out = count;
  if (capacity < count) {
    return sy_group_fail(layer->group, SY_ERR_TOO_SMALL,
                         "capacity is %zu; the rank owns %zu experts", capacity, count);
  }
  if (count > 0 && layer->group->device != NULL) {
    return sy_gpu_read_counts(layer->group, reset != 0, layer->load_counts,
                              count * sizeof *counts_out, counts_out);
  }
  if (count > 0) {
    memcpy(counts_out, layer->load_counts, count * sizeof *counts_out);
    if (reset != 0) {
      memset(layer->load_counts, 0, count * sizeof *counts_out);
    }
  }
  return SY_OK;
}

const sy_shape *sy_layer_shape(const sy_layer *layer) { return &layer->model.shape; }

void sy_layer_report_progress(sy_layer *layer, const char *what, uint64_t done_bytes,
                              uint64_t total_bytes) {
  const sy_group_desc *desc = &layer->group->desc;
  if (desc->progress != NULL) {
    desc->progress(desc->user, what, done_bytes, total_bytes);
  }
}
