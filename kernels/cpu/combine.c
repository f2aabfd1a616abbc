/* combine: the return rows of a token, summed in ascending rank order (per_slot: in top-k slot
 * order)
 * -> its output row. */
#include "kernels/cpu/cpu.h"
#include "kernels/fp4.h"

#define COLUMNS 16 /* summed together; divides hidden */

static void add_row(const struct sy_stage_env *env, const unsigned char *row, int64_t i,
                    float *sum) {
  if (env->return_dtype == SY_DTYPE_F32) {
    const float *values = (const float *)(const void *)row + i;
    for (int c = 0; c < COLUMNS; ++c) {
      sum[c] += values[c];
    }
  } else {
    const uint16_t *values = (const uint16_t *)(const void *)row + i;
    for (int c = 0; c < COLUMNS; ++c) {
      sum[c] += sy_bf16_to_f32(values[c]);
    }
  }
}

static void store(const struct sy_combine_args *args, unsigned char *out, int64_t i,
                  const float *sum) {
  for (int c = 0; c < COLUMNS; ++c) {
    if (args->output_dtype == SY_DTYPE_F32) {
      float *value = (float *)(void *)out + i + c;
      *value = args->accumulate ? *value + sum[c] : sum[c];
    } else {
      uint16_t *value = (uint16_t *)(void *)out + i + c;
      *value = sy_f32_to_bf16(args->accumulate ? sy_bf16_to_f32(*value) + sum[c] : sum[c]);
    }
  }
}

static void combine_token(const struct sy_stage_env *env, const struct sy_combine_args *args,
                          int64_t token) {
  const int32_t begin = args->token_offset[token];
  const struct sy_row_ref *refs =
      env->per_slot ? args->slot_return + token * env->top_k : args->token_row + begin;
  const int32_t num_refs = env->per_slot ? env->top_k : args->token_offset[token + 1] - begin;
  unsigned char *out = (unsigned char *)args->output + token * args->output_stride;
  for (int64_t i = 0; i < env->hidden; i += COLUMNS) {
    float sum[COLUMNS] = {0.0f};
    for (int32_t r = 0; r < num_refs; ++r) {
      if (refs[r].rank >= 0) {
        const unsigned char *row =
            args->returned[refs[r].rank] + (size_t)refs[r].row * env->return_row_bytes;
        add_row(env, row, i, sum);
      }
    }
    store(args, out, i, sum);
  }
}

sy_status SY_CPU_ENTRY(combine)(const struct sy_stage_env *env,
                                const struct sy_combine_args *args) {
#pragma omp parallel for schedule(static) \
    num_threads(env->num_threads) if (env->num_threads > 1 && args->num_tokens > 1)
  for (int64_t t = 0; t < args->num_tokens; ++t) {
    combine_token(env, args, t);
  }
  return SY_OK;
}
