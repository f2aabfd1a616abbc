/* pack: hidden states -> rows in the wire format, written where they land. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/fp4.h"

/* The row's largest magnitude; false if a value is not finite. */
static bool row_amax(const uint16_t *hidden, int64_t n, float *amax_out) {
  uint16_t amax = 0; /* magnitudes of bf16 order as integers */
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t magnitude = hidden[i] & 0x7FFFu;
    amax = magnitude > amax ? magnitude : amax;
  }
  *amax_out = sy_bf16_to_f32(amax);
  return amax < 0x7F80u;
}

/* Columns that are widened at once: whole blocks of either format. */
#define CHUNK 256

static void widen(const uint16_t *hidden, int64_t n, float *x) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    x[i] = sy_bf16_to_f32(hidden[i]);
  }
}

/* sy_nvfp4_quantise and sy_mxfp4_quantise over a bf16 row, without an f32 copy of it. */
static void pack_fp4(const struct sy_stage_env *env, const struct sy_quantiser *quantiser,
                     const uint16_t *hidden, unsigned char *row) {
  const bool nvfp4 = env->format == SY_FORMAT_NVFP4;
  const int64_t block = sy_scale_block(env->format);
  uint8_t *scales = row + env->wire_row.scales;
  float amax;
  float global = sy_f32_of_bits(0x7FC00000u);
  if (row_amax(hidden, env->hidden, &amax)) {
    global = sy_nvfp4_global(amax);
    for (int64_t c = 0; c < env->hidden; c += CHUNK) {
      const int64_t n = env->hidden - c < CHUNK ? env->hidden - c : CHUNK;
      float x[CHUNK];
      widen(hidden + c, n, x);
      if (nvfp4) {
        quantiser->nvfp4(x, n, global, row + c / 2, scales + c / block);
      } else {
        quantiser->mxfp4(x, n, row + c / 2, scales + c / block);
      }
    }
  } else {
    memset(row, 0, (size_t)env->hidden / 2);
    memset(scales, nvfp4 ? 0 : (int)SY_E8M0_NAN, (size_t)(env->hidden / block));
  }
  if (nvfp4) {
    memcpy(row + env->wire_row.global, &global, sizeof global);
  }
}

/* One non-finite value makes the whole row NaN: an infinity could otherwise meet a zero weight, or
 * a saturating activation, and leave finite numbers behind. */
static void pack_bf16(const struct sy_stage_env *env, const uint16_t *hidden, unsigned char *row) {
  float amax;
  if (row_amax(hidden, env->hidden, &amax)) {
    memcpy(row, hidden, (size_t)env->hidden * sizeof *hidden);
    return;
  }
  uint16_t *out = (uint16_t *)(void *)row;
  for (int64_t i = 0; i < env->hidden; ++i) {
    out[i] = 0x7FC0u;
  }
}

static void pack_slots(const struct sy_stage_env *env, const struct sy_pack_args *args,
                       int32_t send_row, unsigned char *row) {
  struct sy_wire_slot *slots = (struct sy_wire_slot *)(void *)(row + env->wire_row.slots);
  const int32_t first = args->send_slot_offset[send_row];
  const int32_t count = args->send_slot_offset[send_row + 1] - first;
  for (int32_t j = 0; j < env->slots_per_row; ++j) {
    slots[j] = j < count ? args->send_slots[first + j]
                         : (struct sy_wire_slot){.weight = 0.0f, .expert = SY_WIRE_NO_EXPERT};
  }
}

/* Bytes of a row that only depend on the token: all but its slots. */
static void copy_payload(const struct sy_stage_env *env, const unsigned char *from,
                         unsigned char *to) {
  memcpy(to, from, env->wire_row.slots);
  memcpy(to + env->wire_row.global, from + env->wire_row.global,
         env->wire_row.bytes - env->wire_row.global);
}

static void pack_payload(const struct sy_stage_env *env, const struct sy_quantiser *quantiser,
                         const uint16_t *hidden, unsigned char *row) {
  if (env->mode == SY_MODE_W4A4) {
    pack_fp4(env, quantiser, hidden, row);
  } else {
    pack_bf16(env, hidden, row);
  }
}

static void pack_token(const struct sy_stage_env *env, const struct sy_pack_args *args,
                       const struct sy_quantiser *quantiser, int64_t token) {
  const uint16_t *hidden =
      (const uint16_t *)(const void *)((const char *)args->hidden + token * args->hidden_stride);
  const struct sy_row_ref own = {env->rank, (int32_t)token};
  const struct sy_row_ref *refs = env->gather ? &own : args->token_row + args->token_offset[token];
  const int32_t num_refs =
      env->gather ? 1 : args->token_offset[token + 1] - args->token_offset[token];
  unsigned char *first = NULL;
  for (int32_t i = 0; i < num_refs; ++i) {
    unsigned char *row = args->landing[refs[i].rank] + (size_t)refs[i].row * env->wire_row.bytes;
    if (first != NULL) {
      copy_payload(env, first, row);
    } else {
      pack_payload(env, quantiser, hidden, row);
    }
    first = first == NULL ? row : first;
    const int32_t base = env->gather ? 0 : args->send_offset[refs[i].rank];
    pack_slots(env, args, base + refs[i].row, row);
  }
}

sy_status sy_cpu_pack_by(const struct sy_quantiser *quantiser, const struct sy_stage_env *env,
                         const struct sy_pack_args *args) {
#pragma omp parallel for schedule(static) \
    num_threads(env->num_threads) if (env->num_threads > 1 && args->num_tokens > 1)
  for (int64_t t = 0; t < args->num_tokens; ++t) {
    pack_token(env, args, quantiser, t);
  }
  return SY_OK;
}

sy_status sy_cpu_pack(const struct sy_stage_env *env, const struct sy_pack_args *args) {
  return sy_cpu_pack_by(&sy_quantiser_generic, env, args);
}
