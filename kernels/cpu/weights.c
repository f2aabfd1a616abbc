/* Loading: one expert's weights, quantised as the mode asks (or taken as they are, when they are FP4
 * already) and prepacked in the layout of expert_layout.h. Tiles are packed in parallel. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expert_layout.h"
#include "kernels/fp4.h"
#include "kernels/source.h"

_Static_assert(SY_PANEL_ROWS == SY_TILE, "a panel is of one tile");
_Static_assert(SY_PANEL_COLUMNS % SY_MXFP4_BLOCK == 0, "a panel is whole blocks");

static const char *const names[SY_NUM_PROJECTIONS] = {"gate", "up", "down"};

/* One projection on its way into its tiles, which lie tile_stride bytes apart. */
struct task {
  const struct sy_stage_env *env;
  const struct sy_source *source;
  const struct sy_quantiser *quantiser;
  enum sy_projection projection;
  int64_t rows, columns;
  unsigned char *tiles;
  size_t tile_stride;
  float global; /* of NVFP4, once it is known */
};

/* ---- A panel of values ---- */

static struct sy_panel panel_at(const struct task *task, int64_t row, int64_t column) {
  const int64_t left = task->columns - column;
  return (struct sy_panel){task->projection, row, SY_TILE, column,
                           left < SY_PANEL_COLUMNS ? left : SY_PANEL_COLUMNS};
}

/* A value is bad if it is not finite, or becomes infinite when it is stored as BF16. */
static bool is_good(const struct task *task, float x) {
  return sy_is_finite(task->env->mode == SY_MODE_BF16 ? sy_bf16_to_f32(sy_f32_to_bf16(x)) : x);
}

/* Reads a panel, and looks for its first bad value. */
static sy_status read_panel(const struct task *task, const struct sy_panel *panel, float *values,
                            float *amax_out, struct sy_bad_weight *bad) {
  const sy_status status = task->source->read_values(task->source, panel, values);
  if (status != SY_OK) {
    return status;
  }
  *amax_out = task->quantiser->amax(values, panel->num_rows * panel->num_columns);
  if (is_good(task, *amax_out)) {
    return SY_OK;
  }
  int64_t i = 0;
  while (is_good(task, values[i])) {
    ++i;
  }
  *bad = (struct sy_bad_weight){names[task->projection], panel->row + i / panel->num_columns,
                                panel->column + i % panel->num_columns, values[i], -1};
  return SY_ERR_ARGUMENT;
}

/* ---- What is done with a tile ---- */

static sy_status find_amax(const struct task *task, int64_t row, float *amax_out,
                           struct sy_bad_weight *bad) {
  float values[SY_PANEL_ROWS * SY_PANEL_COLUMNS];
  sy_status status = SY_OK;
  *amax_out = 0.0f;
  for (int64_t c = 0; c < task->columns && status == SY_OK; c += SY_PANEL_COLUMNS) {
    const struct sy_panel panel = panel_at(task, row, c);
    float amax = 0.0f;
    status = read_panel(task, &panel, values, &amax, bad);
    *amax_out = amax > *amax_out ? amax : *amax_out;
  }
  return status;
}

static unsigned char *tile_at(const struct task *task, int64_t row) {
  return task->tiles + (size_t)(row / SY_TILE) * task->tile_stride;
}

static void pack_bf16_panel(const struct sy_panel *panel, const float *values,
                            unsigned char *tile) {
  uint16_t *out = (uint16_t *)(void *)tile + panel->column * SY_TILE;
  for (int64_t k = 0; k < panel->num_columns; ++k) {
    for (int64_t lane = 0; lane < SY_TILE; ++lane) {
      out[k * SY_TILE + lane] = sy_f32_to_bf16(values[lane * panel->num_columns + k]);
    }
  }
}

/* A panel's codes and scales, row by row -> where they lie in the tile. */
static void place(const struct task *task, const struct sy_panel *panel, const uint8_t *codes,
                  const uint8_t *scales, unsigned char *tile) {
  const int64_t block = sy_scale_block(task->env->format);
  task->quantiser->interleave(codes, panel->num_columns / 2, tile + panel->column / 2 * SY_TILE);
  task->quantiser->interleave(scales, panel->num_columns / block,
                              tile + task->columns / 2 * SY_TILE +
                                  panel->column / block * SY_FP4_SCALE_BYTES);
}

static void pack_fp4_panel(const struct task *task, const struct sy_panel *panel,
                           const float *values, unsigned char *tile) {
  uint8_t codes[SY_PANEL_ROWS * SY_PANEL_COLUMNS / 2];
  uint8_t scales[SY_PANEL_ROWS * SY_PANEL_COLUMNS / SY_NVFP4_BLOCK];
  const int64_t n = panel->num_columns;
  const int64_t blocks = n / sy_scale_block(task->env->format);
  for (int64_t lane = 0; lane < SY_TILE; ++lane) {
    const float *x = values + lane * n;
    if (task->env->format == SY_FORMAT_MXFP4) {
      task->quantiser->mxfp4(x, n, codes + lane * n / 2, scales + lane * blocks);
    } else {
      task->quantiser->nvfp4(x, n, task->global, codes + lane * n / 2, scales + lane * blocks);
    }
  }
  place(task, panel, codes, scales, tile);
}

static sy_status pack_values(const struct task *task, int64_t row, float *amax,
                             struct sy_bad_weight *bad) {
  float values[SY_PANEL_ROWS * SY_PANEL_COLUMNS];
  sy_status status = SY_OK;
  for (int64_t c = 0; c < task->columns && status == SY_OK; c += SY_PANEL_COLUMNS) {
    const struct sy_panel panel = panel_at(task, row, c);
    status = read_panel(task, &panel, values, amax, bad);
    if (status == SY_OK && task->env->mode == SY_MODE_BF16) {
      pack_bf16_panel(&panel, values, tile_at(task, row));
    } else if (status == SY_OK) {
      pack_fp4_panel(task, &panel, values, tile_at(task, row));
    }
  }
  return status;
}

/* NaN, and what only a signed E4M3 has: a UE4M3 code has no sign. */
static bool is_good_scale(sy_format format, uint8_t code) {
  return format == SY_FORMAT_MXFP4 ? code != SY_E8M0_NAN : code <= SY_E4M3_MAX_CODE;
}

static sy_status pack_codes(const struct task *task, int64_t row, float *amax,
                            struct sy_bad_weight *bad) {
  uint8_t codes[SY_PANEL_ROWS * SY_PANEL_COLUMNS / 2];
  uint8_t scales[SY_PANEL_ROWS * SY_PANEL_COLUMNS / SY_NVFP4_BLOCK];
  const sy_format format = task->env->format;
  const int64_t block = sy_scale_block(format);
  *amax = 0.0f;
  for (int64_t c = 0; c < task->columns; c += SY_PANEL_COLUMNS) {
    const struct sy_panel panel = panel_at(task, row, c);
    const int64_t blocks = panel.num_columns / block;
    const sy_status status = task->source->read_codes(task->source, &panel, codes, scales);
    if (status != SY_OK) {
      return status;
    }
    for (int64_t i = 0; i < SY_TILE * blocks; ++i) {
      if (!is_good_scale(format, scales[i])) {
        *bad = (struct sy_bad_weight){names[task->projection], row + i / blocks,
                                      c + i % blocks * block, 0, scales[i]};
        return SY_ERR_ARGUMENT;
      }
    }
    place(task, &panel, codes, scales, tile_at(task, row));
  }
  return SY_OK;
}

/* ---- All tiles ---- */

typedef sy_status (*tile_fn)(const struct task *task, int64_t row, float *amax,
                             struct sy_bad_weight *bad);

/* Of several failures the first row's is told. */
static sy_status for_each_tile(const struct task *task, tile_fn work, float *amax_out,
                               struct sy_bad_weight *bad) {
  sy_status status = SY_OK;
  int64_t failed_row = 0;
  float amax = 0.0f;
#pragma omp parallel for schedule(dynamic) reduction(max     \
                                                     : amax) \
    num_threads(task->env->num_threads) if (task->env->num_threads > 1)
  for (int64_t row = 0; row < task->rows; row += SY_TILE) {
    struct sy_bad_weight found = {0};
    float tile_amax = 0.0f;
    const sy_status result = work(task, row, &tile_amax, &found);
    amax = tile_amax > amax ? tile_amax : amax;
    if (result != SY_OK) {
#pragma omp critical(sy_cpu_load_expert)
      if (status == SY_OK || row < failed_row) {
        status = result;
        failed_row = row;
        *bad = found;
      }
    }
  }
  *amax_out = amax;
  return status;
}

/* Returns the projection's global scale. */
static sy_status pack_projection(struct task *task, float *global_out, struct sy_bad_weight *bad) {
  const bool nvfp4 = task->env->mode != SY_MODE_BF16 && task->env->format == SY_FORMAT_NVFP4;
  const bool quantised = task->source->read_codes != NULL;
  float amax = 0.0f;
  sy_status status = SY_OK;
  task->global = nvfp4 && quantised ? task->source->global[task->projection] : 1.0f;
  if (nvfp4 && !quantised) {
    status = for_each_tile(task, find_amax, &amax, bad);
    task->global = sy_nvfp4_global(amax);
  }
  *global_out = task->global;
  return status != SY_OK ? status
                         : for_each_tile(task, quantised ? pack_codes : pack_values, &amax, bad);
}

/* ---- Biases ---- */

static sy_status copy_bias(const float *bias, int64_t count, const char *name, float *out,
                           struct sy_bad_weight *bad) {
  for (int64_t i = 0; i < count; ++i) {
    if (!sy_is_finite(bias[i])) {
      *bad = (struct sy_bad_weight){name, i, 0, bias[i], -1};
      return SY_ERR_ARGUMENT;
    }
    out[i] = bias[i];
  }
  return SY_OK;
}

static sy_status copy_biases(const struct sy_stage_env *env, const struct sy_expert_layout *layout,
                             const struct sy_source *source, unsigned char *expert,
                             struct sy_bad_weight *bad) {
  static const char *const bias_names[] = {"gate_bias", "up_bias", "down_bias"};
  const int first = sy_is_gated(env->activation) ? SY_GATE : SY_UP;
  for (int p = first; env->has_bias && p < SY_NUM_PROJECTIONS; ++p) {
    const int64_t count = p == SY_DOWN ? env->hidden : env->intermediate;
    const sy_status status = copy_bias(source->bias[p], count, bias_names[p],
                                       (float *)(void *)(expert + layout->bias[p]), bad);
    if (status != SY_OK) {
      return status;
    }
  }
  return SY_OK;
}

/* ---- Entries ---- */

size_t sy_cpu_expert_bytes(const struct sy_stage_env *env) {
  return sy_expert_layout_make(env).bytes;
}

sy_status sy_cpu_load_expert_by(const struct sy_quantiser *quantiser,
                                const struct sy_stage_env *env, const struct sy_source *source,
                                unsigned char *expert, struct sy_bad_weight *bad) {
  const struct sy_expert_layout layout = sy_expert_layout_make(env);
  float *globals = (float *)(void *)expert;
  const bool gated = sy_is_gated(env->activation);
  const size_t fc1_stride = (size_t)layout.fc1_projections * layout.fc1_tile_bytes;
  unsigned char *up = expert + layout.fc1 + (gated ? layout.fc1_tile_bytes : 0);
  struct task tasks[SY_NUM_PROJECTIONS] = {
      {env, source, quantiser, SY_GATE, env->intermediate, env->hidden, expert + layout.fc1,
       fc1_stride, 1.0f},
      {env, source, quantiser, SY_UP, env->intermediate, env->hidden, up, fc1_stride, 1.0f},
      {env, source, quantiser, SY_DOWN, env->hidden, env->intermediate, expert + layout.fc2,
       layout.fc2_tile_bytes, 1.0f}};
  globals[SY_GATE] = 1.0f;
  for (int p = gated ? SY_GATE : SY_UP; p < SY_NUM_PROJECTIONS; ++p) {
    const sy_status status = pack_projection(&tasks[p], &globals[p], bad);
    if (status != SY_OK) {
      return status;
    }
  }
  return copy_biases(env, &layout, source, expert, bad);
}

sy_status sy_cpu_load_expert(const struct sy_stage_env *env, const struct sy_source *source,
                             unsigned char *expert, struct sy_bad_weight *bad) {
  return sy_cpu_load_expert_by(&sy_quantiser_generic, env, source, expert, bad);
}
