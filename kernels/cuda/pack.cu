/* pack: hidden states -> rows in the wire format, where they land. A block per token: it quantises
 * the token once and writes the row to every rank that must see it. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/fp4.h"

#define PACK_THREADS 128u
#define PACK_SHARED_BYTES (PACK_THREADS / SY_WARP * sizeof(uint32_t))

/* The largest magnitude of a bf16 row; magnitudes order as integers. 0x7F80 and more: the row has a
 * value that is not finite. `maxima` is PACK_SHARED_BYTES of shared memory. */
SY_DEVICE uint32_t row_amax(const uint16_t *hidden, int64_t n, uint32_t *maxima) {
  uint32_t amax = 0;
  for (int64_t i = threadIdx.x; i < n; i += PACK_THREADS) {
    const uint32_t magnitude = hidden[i] & 0x7FFFu;
    amax = magnitude > amax ? magnitude : amax;
  }
  for (int delta = 16; delta > 0; delta /= 2) {
    const uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, amax, delta);
    amax = other > amax ? other : amax;
  }
  if (threadIdx.x % SY_WARP == 0) {
    maxima[threadIdx.x / SY_WARP] = amax;
  }
  __syncthreads();
  for (unsigned w = 0; w < PACK_THREADS / SY_WARP; ++w) {
    amax = maxima[w] > amax ? maxima[w] : amax;
  }
  __syncthreads(); /* maxima is free for the next token */
  return amax;
}

SY_DEVICE void pack_nvfp4(const struct sy_stage_env &env, const uint16_t *hidden, uint32_t amax,
                          unsigned char *row) {
  const bool finite = amax < 0x7F80u;
  const float global = finite ? sy_nvfp4_global(sy_bf16_to_f32(static_cast<uint16_t>(amax)))
                              : sy_f32_of_bits(0x7FC00000u);
  for (int64_t b = threadIdx.x; b < env.hidden / SY_NVFP4_BLOCK; b += PACK_THREADS) {
    uint8_t codes[SY_NVFP4_BLOCK / 2] = {0};
    uint8_t scale = 0;
    if (finite) {
      float x[SY_NVFP4_BLOCK];
      for (int i = 0; i < SY_NVFP4_BLOCK; ++i) {
        x[i] = sy_bf16_to_f32(hidden[b * SY_NVFP4_BLOCK + i]);
      }
      sy_nvfp4_quantise_block(x, global, codes, &scale);
    }
    memcpy(row + b * (SY_NVFP4_BLOCK / 2), codes, sizeof codes);
    row[static_cast<int64_t>(env.wire_row.scales) + b] = scale;
  }
  if (threadIdx.x == 0) {
    memcpy(row + env.wire_row.global, &global, sizeof global);
  }
}

SY_DEVICE void pack_mxfp4(const struct sy_stage_env &env, const uint16_t *hidden, uint32_t amax,
                          unsigned char *row) {
  for (int64_t b = threadIdx.x; b < env.hidden / SY_MXFP4_BLOCK; b += PACK_THREADS) {
    uint8_t codes[SY_MXFP4_BLOCK / 2] = {0};
    uint8_t scale = SY_E8M0_NAN;
    if (amax < 0x7F80u) {
      float x[SY_MXFP4_BLOCK];
      for (int i = 0; i < SY_MXFP4_BLOCK; ++i) {
        x[i] = sy_bf16_to_f32(hidden[b * SY_MXFP4_BLOCK + i]);
      }
      sy_mxfp4_quantise_block(x, codes, &scale);
    }
    memcpy(row + b * (SY_MXFP4_BLOCK / 2), codes, sizeof codes);
    row[static_cast<int64_t>(env.wire_row.scales) + b] = scale;
  }
}

SY_DEVICE void pack_bf16(const struct sy_stage_env &env, const uint16_t *hidden, uint32_t amax,
                         unsigned char *row) {
  uint16_t *out = reinterpret_cast<uint16_t *>(row);
  for (int64_t i = threadIdx.x; i < env.hidden; i += PACK_THREADS) {
    out[i] = amax < 0x7F80u ? hidden[i] : static_cast<uint16_t>(0x7FC0u);
  }
}

SY_DEVICE void pack_slots(const struct sy_stage_env &env, const struct sy_pack_args &args,
                          int32_t send_row, unsigned char *row) {
  struct sy_wire_slot *slots = reinterpret_cast<struct sy_wire_slot *>(row + env.wire_row.slots);
  const int32_t first = args.send_slot_offset[send_row];
  const int32_t count = args.send_slot_offset[send_row + 1] - first;
  for (int32_t j = static_cast<int32_t>(threadIdx.x); j < env.slots_per_row;
       j += static_cast<int32_t>(PACK_THREADS)) {
    slots[j] = j < count ? args.send_slots[first + j]
                         : sy_wire_slot{0.0f, static_cast<uint16_t>(SY_WIRE_NO_EXPERT), 0};
  }
}

SY_KERNEL void pack_tokens(struct sy_stage_env env, struct sy_pack_args args) {
  uint32_t *maxima = reinterpret_cast<uint32_t *>(sy_shared());
  for (int64_t token = blockIdx.x; token < args.num_tokens; token += gridDim.x) {
    const uint16_t *hidden = reinterpret_cast<const uint16_t *>(
        static_cast<const char *>(args.hidden) + token * args.hidden_stride);
    const uint32_t amax = row_amax(hidden, env.hidden, maxima);
    const int32_t begin = env.gather ? 0 : args.token_offset[token];
    const int32_t end = env.gather ? 1 : args.token_offset[token + 1];
    for (int32_t i = begin; i < end; ++i) {
      const struct sy_row_ref ref =
          env.gather ? sy_row_ref{env.rank, static_cast<int32_t>(token)} : args.token_row[i];
      unsigned char *row =
          args.landing[ref.rank] + static_cast<size_t>(ref.row) * env.wire_row.bytes;
      if (env.mode == SY_MODE_W4A4 && env.format == SY_FORMAT_MXFP4) {
        pack_mxfp4(env, hidden, amax, row);
      } else if (env.mode == SY_MODE_W4A4) {
        pack_nvfp4(env, hidden, amax, row);
      } else {
        pack_bf16(env, hidden, amax, row);
      }
      pack_slots(env, args, (env.gather ? 0 : args.send_offset[ref.rank]) + ref.row, row);
    }
  }
}

sy_status sy_cuda_pack(const struct sy_stage_env *env, const struct sy_pack_args *args) {
  SY_CUDA_TRY(SY_LAUNCH(pack_tokens, sy_grid(args->num_tokens), PACK_THREADS, PACK_SHARED_BYTES,
                        sy_stream(env), *env, *args));
  return SY_OK;
}
