/* reduce: the routed rows of a received row, weighted, summed in slot order -> its return row. */
#include "kernels/cpu/cpu.h"
#include "kernels/fp4.h"

static void store(const struct sy_stage_env *env, unsigned char *row, int64_t i, float value) {
  if (env->return_dtype == SY_DTYPE_F32) {
    ((float *)(void *)row)[i] = value;
  } else {
    ((uint16_t *)(void *)row)[i] = sy_f32_to_bf16(value);
  }
}

static void reduce_per_slot(const struct sy_stage_env *env, const struct sy_reduce_args *args,
                            int64_t row) {
  const struct sy_routed *routed = args->routed;
  unsigned char *out = routed->return_row[row];
  for (int32_t s = routed->row_slot_offset[row]; s < routed->row_slot_offset[row + 1]; ++s) {
    const int32_t r = routed->slot_routed[s];
    const float weight = routed->routed_weight[r];
    const float *y = args->expert_out + (int64_t)r * env->hidden;
    for (int64_t i = 0; i < env->hidden; ++i) {
      store(env, out, i, weight * y[i]);
    }
    out += env->return_row_bytes;
  }
}

/* Columns summed together, so that the running sums stay in registers. Divides hidden. */
#define COLUMNS 16

static void reduce_per_rank(const struct sy_stage_env *env, const struct sy_reduce_args *args,
                            int64_t row) {
  const struct sy_routed *routed = args->routed;
  const int32_t begin = routed->row_slot_offset[row];
  const int32_t end = routed->row_slot_offset[row + 1];
  if (begin == end) {
    return; /* gather: this row has no expert here, and nobody reads its return row */
  }
  for (int64_t i = 0; i < env->hidden; i += COLUMNS) {
    float sum[COLUMNS] = {0.0f};
    for (int32_t s = begin; s < end; ++s) {
      const int32_t r = routed->slot_routed[s];
      const float weight = routed->routed_weight[r];
      const float *y = args->expert_out + (int64_t)r * env->hidden + i;
      for (int c = 0; c < COLUMNS; ++c) {
        sum[c] += weight * y[c];
      }
    }
    for (int c = 0; c < COLUMNS; ++c) {
      store(env, routed->return_row[row], i + c, sum[c]);
    }
  }
}

sy_status SY_CPU_ENTRY(reduce)(const struct sy_stage_env *env, const struct sy_reduce_args *args) {
  const int64_t rows = args->routed->num_received;
#pragma omp parallel for schedule(static) \
    num_threads(env->num_threads) if (env->num_threads > 1 && rows > 1)
  for (int64_t row = 0; row < rows; ++row) {
    if (env->per_slot) {
      reduce_per_slot(env, args, row);
    } else {
      reduce_per_rank(env, args, row);
    }
  }
  return SY_OK;
}
