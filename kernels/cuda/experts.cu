/* experts: routed rows -> FC1 (gate, up) -> activation -> FC2, by matrix instructions. The plain
 * kernel: correct, tiled, no pipeline.
 *
 * Weights are operand A (16 rows), routed rows operand B (8 columns). A block of four warps computes
 * 128 output rows of one expert for 8 of its routed rows, the whole contraction at once: FC1's 128
 * are one slice of the intermediate, which the block activates and quantises in shared memory.
 *
 *   shared, FC1   float [8][SLICE] activated values | float [8] the largest magnitudes of rows
 *
 * Grids: x the slices; y loops over all groups of 8 routed rows of all active experts, whose number
 * only the device knows. Order of sums: k ascends in steps of 64 (bf16: 16) within one accumulator;
 * FC2 of NVFP4 w4a4 sums each slice of 128 columns by itself, times its global scale, slices
 * ascending. MXFP4 w4a16 sums each block of 32 columns by itself, times its scale. */
#include "kernels/cpu/activation.h"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/expert_layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/fp4.h"

#define SLICE SY_INTERMEDIATE_SLICE
#define COLUMNS 8 /* routed rows of a group */
#define WARPS 4u
#define EXPERT_THREADS (WARPS * SY_WARP)
#define FC1_SHARED_BYTES (COLUMNS * (SLICE + 1) * sizeof(float))
static_assert(SLICE % SY_CUDA_TILE_ROWS == 0, "a slice is whole tiles");

/* What a block works on: one expert, and up to 8 of its routed rows. */
struct group {
  const unsigned char *expert;
  int32_t first;
  int32_t count; /* 0: there is no such group */
};

/* Sizes that host functions know. */
struct sizes {
  struct sy_cuda_expert_layout layout;
  size_t intermediate_row_bytes;
  int64_t slices;      /* of the intermediate */
  int32_t scale_block; /* columns that share a scale */
};

/* The index-th group of 8 routed rows, active experts ascending. */
SY_DEVICE struct group find_group(const struct sy_experts_args &args, int64_t index) {
  const struct sy_routed *routed = args.routed;
  for (int32_t a = 0; a < routed->num_active; ++a) {
    const int32_t e = routed->active_expert[a];
    const int32_t begin = routed->expert_offset[e];
    const int32_t rows = routed->expert_offset[e + 1] - begin;
    const int64_t groups = (rows + COLUMNS - 1) / COLUMNS;
    if (index < groups) {
      const int32_t first = begin + static_cast<int32_t>(index) * COLUMNS;
      const int32_t left = begin + rows - first;
      return {args.weights + static_cast<size_t>(e) * args.expert_bytes, first,
              left < COLUMNS ? left : COLUMNS};
    }
    index -= groups;
  }
  return {nullptr, 0, 0};
}

/* Whether rows and intermediates have global scales. */
SY_DEVICE bool has_globals(const struct sy_stage_env &env) {
  return env.mode == SY_MODE_W4A4 && env.format == SY_FORMAT_NVFP4;
}

SY_DEVICE float global_of(const struct group &group, int projection) {
  return reinterpret_cast<const float *>(group.expert)[projection];
}

SY_DEVICE float bias_of(const struct sy_stage_env &env, const struct sizes &sizes,
                        const struct group &group, int projection, int64_t row) {
  return env.has_bias
             ? reinterpret_cast<const float *>(group.expert + sizes.layout.bias[projection])[row]
             : 0.0f;
}

/* ---- Operands ---- */

/* Of B, this lane's column: a row of codes and scales, or of bf16 values; null: no such row. */
struct column {
  const unsigned char *data;
  const unsigned char *scales;
};

SY_DEVICE uint32_t load_word(const unsigned char *data, int64_t offset, int64_t bytes) {
  uint32_t word = 0;
  if (data != nullptr && offset < bytes) {
    memcpy(&word, data + offset, sizeof word);
  }
  return word;
}

/* The scales of columns k .. k + 63 of a contraction: bytes beyond its end are zero. */
template <int BLOCK>
SY_DEVICE uint32_t load_scales(const unsigned char *scales, int64_t k, int64_t length) {
  uint32_t word = 0;
  for (int b = 0; b < SY_CUDA_FP4_STEP / BLOCK; ++b) {
    if (scales != nullptr && k + BLOCK * b < length) {
      word |= static_cast<uint32_t>(scales[k / BLOCK + b]) << (8 * b);
    }
  }
  return word;
}

SY_DEVICE void load_a(const unsigned char *record, uint32_t (&a)[4]) {
  const uint4 words = *reinterpret_cast<const uint4 *>(record + sy_lane() * 16);
  a[0] = words.x;
  a[1] = words.y;
  a[2] = words.z;
  a[3] = words.w;
}

/* The scales of one row of a record: four, or MXFP4's two. */
SY_DEVICE uint32_t nvfp4_scales(const unsigned char *record, uint32_t row) {
  return reinterpret_cast<const uint32_t *>(record + SY_CUDA_LANE_BYTES)[row];
}

SY_DEVICE uint32_t mxfp4_scales(const unsigned char *record, uint32_t row) {
  return reinterpret_cast<const uint16_t *>(record + SY_CUDA_LANE_BYTES)[row];
}

/* ---- One tile times 8 columns ---- */

/* Codes of this lane's column k .. k + 63. */
SY_DEVICE void load_codes(const struct column &b, int64_t k, int64_t length, uint32_t (&codes)[2]) {
  const int64_t p = sy_lane() % 4;
  codes[0] = load_word(b.data, k / 2 + 4 * p, length / 2);
  codes[1] = load_word(b.data, k / 2 + 16 + 4 * p, length / 2);
}

/* Of A's scales lanes p = 0 and 1 of four provide rows g and g + 8; the others hold the same bytes. */
SY_DEVICE uint32_t scale_row() { return sy_lane() / 4 + 8 * (sy_lane() % 2); }

/* d += A B over k in [begin, end) of a contraction of `length`; begin is a multiple of 64. */
SY_DEVICE void multiply_nvfp4(const struct sy_stage_env &env, float (&d)[4],
                              const unsigned char *tile, const struct column &b, int64_t begin,
                              int64_t end, int64_t length) {
  for (int64_t k = begin; k < end; k += SY_CUDA_FP4_STEP) {
    const unsigned char *record = tile + k / SY_CUDA_FP4_STEP * SY_CUDA_NVFP4_RECORD;
    uint32_t a[4];
    uint32_t codes[2];
    load_a(record, a);
    load_codes(b, k, length, codes);
    const uint32_t scale_a = nvfp4_scales(record, scale_row());
    const uint32_t scale_b = load_scales<SY_NVFP4_BLOCK>(b.scales, k, length);
    if (env.fp4_by_bf16) {
      sy_mma_nvfp4_by_bf16<0, 0>(d, a, codes, scale_a, scale_b);
    } else {
      sy_mma_nvfp4<0, 0>(d, a, codes, scale_a, scale_b);
    }
  }
}

/* d += A B over a whole contraction. */
SY_DEVICE void multiply_mxfp4(const struct sy_stage_env &env, float (&d)[4],
                              const unsigned char *tile, const struct column &b, int64_t length) {
  for (int64_t k = 0; k < length; k += SY_CUDA_FP4_STEP) {
    const unsigned char *record = tile + k / SY_CUDA_FP4_STEP * SY_CUDA_MXFP4_RECORD;
    uint32_t a[4];
    uint32_t codes[2];
    load_a(record, a);
    load_codes(b, k, length, codes);
    const uint32_t scale_a = mxfp4_scales(record, scale_row());
    const uint32_t scale_b = load_scales<SY_MXFP4_BLOCK>(b.scales, k, length);
    if (env.fp4_by_bf16) {
      sy_mma_mxfp4_by_bf16<0, 0, 0, 0>(d, a, codes, scale_a, scale_b);
    } else {
      sy_mma_mxfp4<0, 0, 0, 0>(d, a, codes, scale_a, scale_b);
    }
  }
}

/* Byte j of the FP4 registers is the fragment of the j-th bf16 multiplication: k = 8 p + 2 j and the
 * next in each half of 32. Every code times scale is exact in bf16. */
SY_DEVICE void multiply_nvfp4_a16(float (&d)[4], const unsigned char *tile, const struct column &b,
                                  int64_t length) {
  const int64_t p = sy_lane() % 4;
  for (int64_t k = 0; k < length; k += SY_CUDA_FP4_STEP) {
    const unsigned char *record = tile + k / SY_CUDA_FP4_STEP * SY_CUDA_NVFP4_RECORD;
    uint32_t a[4];
    uint32_t pairs[4];
    load_a(record, a);
    SY_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t block = i / 2 * 2 + static_cast<uint32_t>(p) / 2;
      pairs[i] =
          sy_bf16x2_from_ue4m3(nvfp4_scales(record, sy_lane() / 4 + 8 * (i % 2)) >> (8 * block));
    }
    SY_UNROLL
    for (int j = 0; j < 4; ++j) {
      uint32_t a16[4];
      SY_UNROLL
      for (int i = 0; i < 4; ++i) {
        a16[i] = sy_mul_bf16x2(sy_bf16x2_from_e2m1x2(a[i] >> (8 * j)), pairs[i]);
      }
      const uint32_t values[2] = {load_word(b.data, 2 * (k + 8 * p + 2 * j), 2 * length),
                                  load_word(b.data, 2 * (k + 32 + 8 * p + 2 * j), 2 * length)};
      sy_mma_bf16(d, a16, values);
    }
  }
}

/* Scales multiply the sums of their blocks: code times scale may lie beyond bf16, and beyond f32. A
 * block is half h of a step's k, two multiplications of its own: bytes 2 q and 2 q + 1 of its
 * registers, k = 8 p + 4 q .. 8 p + 4 q + 3. */
SY_DEVICE void multiply_mxfp4_a16(float (&d)[4], const unsigned char *tile, const struct column &b,
                                  int64_t length) {
  const int64_t p = sy_lane() % 4;
  for (int64_t k = 0; k < length; k += SY_CUDA_FP4_STEP) {
    const unsigned char *record = tile + k / SY_CUDA_FP4_STEP * SY_CUDA_MXFP4_RECORD;
    const uint32_t scales[2] = {mxfp4_scales(record, sy_lane() / 4),
                                mxfp4_scales(record, sy_lane() / 4 + 8)};
    uint32_t a[4];
    load_a(record, a);
    SY_UNROLL
    for (int h = 0; h < 2; ++h) {
      float dot[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      SY_UNROLL
      for (int q = 0; q < 2; ++q) {
        const int64_t first = k + 32 * h + 8 * p + 4 * q;
        uint32_t a16[4];
        SY_UNROLL
        for (int i = 0; i < 4; ++i) {
          a16[i] = sy_bf16x2_from_e2m1x2(a[2 * h + i % 2] >> (8 * (2 * q + i / 2)));
        }
        const uint32_t values[2] = {load_word(b.data, 2 * first, 2 * length),
                                    load_word(b.data, 2 * (first + 2), 2 * length)};
        sy_mma_bf16(dot, a16, values);
      }
      SY_UNROLL
      for (int i = 0; i < 4; ++i) {
        const uint32_t scale = scales[i / 2] >> (8 * h) & 0xFFu;
        d[i] = fmaf(dot[i], sy_e8m0_to_f32(static_cast<uint8_t>(scale)), d[i]);
      }
    }
  }
}

SY_DEVICE void multiply_bf16(float (&d)[4], const unsigned char *tile, const struct column &b,
                             int64_t length) {
  const int64_t p = sy_lane() % 4;
  for (int64_t k = 0; k < length; k += SY_CUDA_BF16_STEP) {
    uint32_t a[4];
    load_a(tile + k / SY_CUDA_BF16_STEP * SY_CUDA_BF16_RECORD, a);
    const uint32_t values[2] = {load_word(b.data, 2 * (k + 2 * p), 2 * length),
                                load_word(b.data, 2 * (k + 8 + 2 * p), 2 * length)};
    sy_mma_bf16(d, a, values);
  }
}

/* d = A B over a whole contraction. */
SY_DEVICE void multiply(const struct sy_stage_env &env, float (&d)[4], const unsigned char *tile,
                        const struct column &b, int64_t length) {
  SY_UNROLL
  for (int i = 0; i < 4; ++i) {
    d[i] = 0.0f;
  }
  const bool mxfp4 = env.format == SY_FORMAT_MXFP4;
  if (env.mode == SY_MODE_BF16) {
    multiply_bf16(d, tile, b, length);
  } else if (env.mode == SY_MODE_W4A4 && mxfp4) {
    multiply_mxfp4(env, d, tile, b, length);
  } else if (env.mode == SY_MODE_W4A4) {
    multiply_nvfp4(env, d, tile, b, 0, length, length);
  } else if (mxfp4) {
    multiply_mxfp4_a16(d, tile, b, length);
  } else {
    multiply_nvfp4_a16(d, tile, b, length);
  }
}

/* ---- FC1 ---- */

/* This lane's B column is routed row g; its D columns are routed rows 2p and 2p + 1. */
SY_DEVICE struct column received_column(const struct sy_stage_env &env,
                                        const struct sy_routed &routed, const struct group &group) {
  const int32_t g = static_cast<int32_t>(sy_lane() / 4);
  if (g >= group.count) {
    return {nullptr, nullptr};
  }
  const unsigned char *row = routed.received_row[routed.routed_source[group.first + g]];
  return {row, row + env.wire_row.scales};
}

SY_DEVICE float received_global(const struct sy_stage_env &env, const struct sy_routed &routed,
                                int32_t routed_row) {
  float global = 1.0f;
  if (has_globals(env)) {
    const unsigned char *row = routed.received_row[routed.routed_source[routed_row]];
    memcpy(&global, row + env.wire_row.global, sizeof global);
  }
  return global;
}

/* One element of the slice: column `c` of it, routed row group.first + r, from the sums of its gate
 * (without one: unused) and up. */
SY_DEVICE void finish_fc1(const struct sy_stage_env &env, const struct sy_experts_args &args,
                          const struct sizes &sizes, const struct group &group, int64_t column,
                          int32_t c, int32_t r, float gate_sum, float up_sum, float *values) {
  if (r >= group.count || column + c >= env.intermediate) {
    return;
  }
  const int64_t row = column + c;
  const float global = received_global(env, *args.routed, group.first + r);
  float gate = 0.0f;
  if (env.activation != SY_ACTIVATION_RELU2) {
    gate = gate_sum * (global * global_of(group, 0)) + bias_of(env, sizes, group, 0, row);
  }
  const float up = up_sum * (global * global_of(group, 1)) + bias_of(env, sizes, group, 1, row);
  if (args.fc1_trace != nullptr) {
    float *trace = args.fc1_trace + (group.first + r) * 2 * env.intermediate + row;
    trace[0] = gate;
    trace[env.intermediate] = up;
  }
  values[r * SLICE + c] = sy_activate(env.activation, gate, up, env.swiglu_alpha, env.swiglu_limit);
}

/* One warp's tiles of the slice. */
SY_DEVICE void compute_fc1(const struct sy_stage_env &env, const struct sy_experts_args &args,
                           const struct sizes &sizes, const struct group &group, int64_t column,
                           float *values) {
  const int32_t width = sizes.layout.fc1_columns;
  const int32_t g = static_cast<int32_t>(sy_lane() / 4);
  const int32_t p = static_cast<int32_t>(sy_lane() % 4);
  const struct column b = received_column(env, *args.routed, group);
  const int32_t stride = static_cast<int32_t>(WARPS) * width;
  for (int32_t c = static_cast<int32_t>(threadIdx.x / SY_WARP) * width; c < SLICE; c += stride) {
    if (column + c >= env.intermediate) {
      break;
    }
    const unsigned char *tile =
        group.expert + sizes.layout.fc1 +
        static_cast<size_t>((column + c) / width) * sizes.layout.fc1_tile_bytes;
    float d[4];
    multiply(env, d, tile, b, env.hidden);
    SY_UNROLL
    for (int32_t i = 0; i < 2; ++i) {
      if (width == 8) { /* d[i] is the gate, d[i + 2] the up of one element */
        finish_fc1(env, args, sizes, group, column, c + g, 2 * p + i, d[i], d[i + 2], values);
      } else {
        finish_fc1(env, args, sizes, group, column, c + g, 2 * p + i, 0.0f, d[i], values);
        finish_fc1(env, args, sizes, group, column, c + g + 8, 2 * p + i, 0.0f, d[i + 2], values);
      }
    }
  }
}

/* A thread per row and scale block. A value that is not finite makes its row's slice NaN, by the
 * global scale or, in MXFP4, by the scales. */
SY_DEVICE void store_fp4(const struct sy_stage_env &env, const struct sy_experts_args &args,
                         const struct sizes &sizes, const struct group &group, int64_t column,
                         int32_t columns, const float *values, const float *maxima) {
  const bool nvfp4 = env.format == SY_FORMAT_NVFP4;
  const int32_t width = sizes.scale_block;
  const int32_t blocks = columns / width;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < group.count * blocks;
       i += static_cast<int32_t>(EXPERT_THREADS)) {
    const int32_t r = i / blocks;
    const int32_t block = i % blocks;
    const int64_t row = group.first + r;
    const bool finite = sy_is_finite(maxima[r]);
    const float global = finite ? sy_nvfp4_global(maxima[r]) : sy_f32_of_bits(0x7FC00000u);
    const float *x = values + r * SLICE + width * block;
    unsigned char *codes = args.intermediate +
                           static_cast<size_t>(row) * sizes.intermediate_row_bytes +
                           (column + width * block) / 2;
    unsigned char *scale =
        args.intermediate_scales + (row * env.intermediate + column) / width + block;
    if (!finite) {
      memset(codes, 0, static_cast<size_t>(width / 2));
      *scale = nvfp4 ? 0 : SY_E8M0_NAN;
    } else if (nvfp4) {
      sy_nvfp4_quantise_block(x, global, codes, scale);
    } else {
      sy_mxfp4_quantise_block(x, codes, scale);
    }
    if (nvfp4 && block == 0) {
      args.intermediate_global[row * sizes.slices + column / SLICE] = global;
    }
  }
}

SY_DEVICE void store_bf16(const struct sy_experts_args &args, const struct sizes &sizes,
                          const struct group &group, int64_t column, int32_t columns,
                          const float *values) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < group.count * columns;
       i += static_cast<int32_t>(EXPERT_THREADS)) {
    const int32_t r = i / columns;
    const int32_t c = i % columns;
    unsigned char *row =
        args.intermediate + static_cast<size_t>(group.first + r) * sizes.intermediate_row_bytes;
    reinterpret_cast<uint16_t *>(row)[column + c] = sy_f32_to_bf16(values[r * SLICE + c]);
  }
}

SY_KERNEL void fc1(struct sy_stage_env env, struct sy_experts_args args, struct sizes sizes) {
  float *values = reinterpret_cast<float *>(sy_shared());
  float *maxima = values + COLUMNS * SLICE;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * SLICE;
  const int64_t left = env.intermediate - column;
  const int32_t columns = static_cast<int32_t>(left < SLICE ? left : SLICE);
  for (int64_t index = blockIdx.y;; index += gridDim.y) {
    const struct group group = find_group(args, index);
    if (group.count == 0) {
      return;
    }
    compute_fc1(env, args, sizes, group, column, values);
    __syncthreads();
    if (env.mode == SY_MODE_W4A4) {
      if (static_cast<int32_t>(threadIdx.x) < group.count) {
        maxima[threadIdx.x] = sy_amax(values + threadIdx.x * SLICE, columns);
      }
      __syncthreads();
      store_fp4(env, args, sizes, group, column, columns, values, maxima);
    } else {
      store_bf16(args, sizes, group, column, columns, values);
    }
    __syncthreads(); /* values and maxima are free for the next group */
  }
}

/* ---- FC2 ---- */

SY_DEVICE struct column intermediate_column(const struct sy_stage_env &env,
                                            const struct sy_experts_args &args,
                                            const struct sizes &sizes, const struct group &group) {
  const int32_t g = static_cast<int32_t>(sy_lane() / 4);
  if (g >= group.count) {
    return {nullptr, nullptr};
  }
  const size_t row = static_cast<size_t>(group.first + g);
  const unsigned char *scales =
      env.mode == SY_MODE_W4A4 ? args.intermediate_scales +
                                     row * static_cast<size_t>(env.intermediate / sizes.scale_block)
                               : nullptr;
  return {args.intermediate + row * sizes.intermediate_row_bytes, scales};
}

/* d[i] belongs to routed row 2p + i % 2. */
SY_DEVICE void multiply_slices(float (&total)[4], const struct sy_stage_env &env,
                               const struct sy_experts_args &args, const struct sizes &sizes,
                               const struct group &group, const unsigned char *tile,
                               const struct column &b) {
  const int32_t p = static_cast<int32_t>(sy_lane() % 4);
  SY_UNROLL
  for (int i = 0; i < 4; ++i) {
    total[i] = 0.0f;
  }
  for (int64_t s = 0; s < sizes.slices; ++s) {
    const int64_t end = (s + 1) * SLICE < env.intermediate ? (s + 1) * SLICE : env.intermediate;
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    multiply_nvfp4(env, d, tile, b, s * SLICE, end, env.intermediate);
    SY_UNROLL
    for (int32_t i = 0; i < 4; ++i) {
      const int32_t r = 2 * p + i % 2;
      if (r < group.count) {
        total[i] += d[i] * args.intermediate_global[(group.first + r) * sizes.slices + s];
      }
    }
  }
}

SY_KERNEL void fc2(struct sy_stage_env env, struct sy_experts_args args, struct sizes sizes) {
  const int32_t g = static_cast<int32_t>(sy_lane() / 4);
  const int32_t p = static_cast<int32_t>(sy_lane() % 4);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * SLICE;
  const int64_t end = begin + SLICE < env.hidden ? begin + SLICE : env.hidden;
  const int64_t warp_rows = (threadIdx.x / SY_WARP) * SY_CUDA_TILE_ROWS;
  for (int64_t index = blockIdx.y;; index += gridDim.y) {
    const struct group group = find_group(args, index);
    if (group.count == 0) {
      return;
    }
    const struct column b = intermediate_column(env, args, sizes, group);
    for (int64_t row = begin + warp_rows; row < end; row += WARPS * SY_CUDA_TILE_ROWS) {
      const unsigned char *tile =
          group.expert + sizes.layout.fc2 +
          static_cast<size_t>(row / SY_CUDA_TILE_ROWS) * sizes.layout.fc2_tile_bytes;
      float d[4];
      if (has_globals(env)) {
        multiply_slices(d, env, args, sizes, group, tile, b);
      } else {
        multiply(env, d, tile, b, env.intermediate);
      }
      SY_UNROLL
      for (int32_t i = 0; i < 4; ++i) {
        const int64_t h = row + g + 8 * (i / 2);
        const int32_t r = 2 * p + i % 2;
        if (r < group.count) {
          args.expert_out[(group.first + r) * env.hidden + h] =
              d[i] * global_of(group, 2) + bias_of(env, sizes, group, 2, h);
        }
      }
    }
  }
}

/* ---- Entry ---- */

/* Groups of 8 routed rows: at most one of each expert is not full. */
static int64_t max_groups(const struct sy_stage_env *env, const struct sy_experts_args *args) {
  const int64_t experts = env->local_experts;
  const int64_t routed = args->max_rows * (env->top_k < experts ? env->top_k : experts);
  const int64_t split = routed / COLUMNS + experts;
  return routed < split ? routed : split;
}

sy_status sy_cuda_experts(const struct sy_stage_env *env, const struct sy_experts_args *args) {
  const struct sizes sizes = {
      sy_cuda_expert_layout_make(env),
      sy_intermediate_row_bytes(env->mode, env->intermediate),
      (env->intermediate + SLICE - 1) / SLICE,
      static_cast<int32_t>(sy_scale_block(env->format)),
  };
  const int64_t groups = max_groups(env, args);
  if (groups == 0) {
    return SY_OK;
  }
  const dim3 fc1_grid(static_cast<unsigned>(sizes.slices), sy_grid(groups));
  const dim3 fc2_grid(static_cast<unsigned>((env->hidden + SLICE - 1) / SLICE), sy_grid(groups));
  const cudaStream_t stream = sy_stream(env);
  SY_CUDA_TRY(
      SY_LAUNCH(fc1, fc1_grid, EXPERT_THREADS, FC1_SHARED_BYTES, stream, *env, *args, sizes));
  SY_CUDA_TRY(SY_LAUNCH(fc2, fc2_grid, EXPERT_THREADS, 0, stream, *env, *args, sizes));
  return SY_OK;
}
