/* combine: the return rows of a token, summed in ascending rank order (per_slot: in top-k slot order)
 * -> its output row. A block per token, a thread per column. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/fp4.h"

SY_DEVICE float load(const struct sy_stage_env &env, const unsigned char *row, int64_t i) {
  return env.return_dtype == SY_DTYPE_F32
             ? reinterpret_cast<const float *>(row)[i]
             : sy_bf16_to_f32(reinterpret_cast<const uint16_t *>(row)[i]);
}

SY_DEVICE void store(const struct sy_combine_args &args, unsigned char *out, int64_t i, float sum) {
  if (args.output_dtype == SY_DTYPE_F32) {
    float *value = reinterpret_cast<float *>(out) + i;
    *value = args.accumulate ? *value + sum : sum;
  } else {
    uint16_t *value = reinterpret_cast<uint16_t *>(out) + i;
    *value = sy_f32_to_bf16(args.accumulate ? sy_bf16_to_f32(*value) + sum : sum);
  }
}

SY_KERNEL void combine_tokens(struct sy_stage_env env, struct sy_combine_args args) {
  for (int64_t token = blockIdx.x; token < args.num_tokens; token += gridDim.x) {
    const int32_t begin = args.token_offset[token];
    const struct sy_row_ref *refs =
        env.per_slot ? args.slot_return + token * env.top_k : args.token_row + begin;
    const int32_t num_refs = env.per_slot ? env.top_k : args.token_offset[token + 1] - begin;
    unsigned char *out = static_cast<unsigned char *>(args.output) + token * args.output_stride;
    for (int64_t i = threadIdx.x; i < env.hidden; i += SY_THREADS) {
      float sum = 0.0f;
      for (int32_t r = 0; r < num_refs; ++r) {
        if (refs[r].rank >= 0) {
          const size_t offset = static_cast<size_t>(refs[r].row) * env.return_row_bytes;
          sum += load(env, args.returned[refs[r].rank] + offset, i);
        }
      }
      store(args, out, i, sum);
    }
  }
}

sy_status sy_cuda_combine(const struct sy_stage_env *env, const struct sy_combine_args *args) {
  SY_CUDA_TRY(SY_LAUNCH(combine_tokens, sy_grid(args->num_tokens), SY_THREADS, 0, sy_stream(env),
                        *env, *args));
  return SY_OK;
}
