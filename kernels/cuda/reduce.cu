/* reduce: the routed rows of a received row, weighted, summed in slot order -> its return row. A
 * block per received row, a thread per column. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/fp4.h"

SY_DEVICE void store(const struct sy_stage_env &env, unsigned char *row, int64_t i, float value) {
  if (env.return_dtype == SY_DTYPE_F32) {
    reinterpret_cast<float *>(row)[i] = value;
  } else {
    reinterpret_cast<uint16_t *>(row)[i] = sy_f32_to_bf16(value);
  }
}

SY_DEVICE void reduce_row(const struct sy_stage_env &env, const struct sy_routed &routed,
                          const float *expert_out, int64_t row) {
  const int32_t begin = routed.row_slot_offset[row];
  const int32_t end = routed.row_slot_offset[row + 1];
  for (int64_t i = threadIdx.x; i < env.hidden; i += SY_THREADS) {
    float sum = 0.0f;
    for (int32_t s = begin; s < end; ++s) {
      const int32_t r = routed.slot_routed[s];
      const float y = routed.routed_weight[r] * expert_out[r * env.hidden + i];
      if (env.per_slot) {
        const size_t offset = static_cast<size_t>(s - begin) * env.return_row_bytes;
        store(env, routed.return_row[row] + offset, i, y);
      } else {
        sum += y;
      }
    }
    if (!env.per_slot && begin < end) { /* gather: nobody reads the row of one without experts */
      store(env, routed.return_row[row], i, sum);
    }
  }
}

SY_KERNEL void reduce_rows(struct sy_stage_env env, struct sy_reduce_args args) {
  for (int64_t row = blockIdx.x; row < args.routed->num_received; row += gridDim.x) {
    reduce_row(env, *args.routed, args.expert_out, row);
  }
}

sy_status sy_cuda_reduce(const struct sy_stage_env *env, const struct sy_reduce_args *args) {
  SY_CUDA_TRY(
      SY_LAUNCH(reduce_rows, sy_grid(args->max_rows), SY_THREADS, 0, sy_stream(env), *env, *args));
  return SY_OK;
}
