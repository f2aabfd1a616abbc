#include "tests/support/oracle.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The sequence of the quantiser is written in f32: it must be evaluated in f32. */
_Static_assert(FLT_EVAL_METHOD == 0, "float expressions are evaluated in float");

enum {
  BLOCK = 16,
  MX_BLOCK = 32,
  SLICE = 128,
  E2M1_CODES = 8,
  E4M3_CODES = 127,
  E8M0_CODES = 255,
  E8M0_NAN = 255
};

static void *allocate(int64_t count, size_t bytes_each) {
  void *memory = calloc(count > 0 ? (size_t)count : 1, bytes_each);
  if (memory == NULL) {
    fprintf(stderr, "the oracle needs memory for %" PRId64 " values\n", count);
    abort();
  }
  return memory;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Number formats ---- */

static const double e2m1_values[E2M1_CODES] = {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0};

double oracle_e2m1_value(unsigned code) {
  const double magnitude = e2m1_values[code & 7u];
  return (code & 8u) != 0u ? -magnitude : magnitude;
}

/* 4 exponent bits with bias 7, 3 mantissa bits; exponent 0 is subnormal. */
double oracle_e4m3_value(unsigned code) {
  const int exponent = (int)(code >> 3);
  const int mantissa = (int)(code & 7u);
  return exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
}

double oracle_e8m0_value(unsigned code) { return ldexp(1.0, (int)code - 127); }

double oracle_bf16_value(uint16_t code) {
  const double sign = (code & 0x8000u) != 0u ? -1.0 : 1.0;
  const int exponent = (code >> 7) & 0xFF;
  const int mantissa = code & 0x7F;
  if (exponent == 0xFF) {
    return mantissa != 0 ? (double)NAN : sign * HUGE_VAL;
  }
  return sign * (exponent == 0 ? ldexp(mantissa, -133) : ldexp(128 + mantissa, exponent - 134));
}

/* 5 exponent bits with bias 15, 10 mantissa bits. */
double oracle_f16_value(uint16_t code) {
  const double sign = (code & 0x8000u) != 0u ? -1.0 : 1.0;
  const int exponent = (code >> 10) & 0x1F;
  const int mantissa = code & 0x3FF;
  if (exponent == 0x1F) {
    return mantissa != 0 ? (double)NAN : sign * HUGE_VAL;
  }
  return sign * (exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25));
}

/* The code whose value is nearest to x >= 0, among values that ascend with their codes; ties to the
 * even code; beyond the last value, the last code. */
static unsigned nearest(double (*value)(unsigned), unsigned num_codes, double x) {
  unsigned code = 0;
  while (code + 1 < num_codes) {
    const double distance = fabs(x - value(code));
    const double next_distance = fabs(x - value(code + 1));
    if (distance < next_distance || (distance == next_distance && code % 2 == 0)) {
      break;
    }
    ++code;
  }
  return code;
}

unsigned oracle_e2m1_nearest(double x) {
  const double magnitude = fmin(fabs(x), e2m1_values[E2M1_CODES - 1]);
  return nearest(oracle_e2m1_value, E2M1_CODES, magnitude) | (signbit(x) != 0 ? 8u : 0u);
}

unsigned oracle_e4m3_nearest(double x) {
  return nearest(oracle_e4m3_value, E4M3_CODES, fmin(x, oracle_e4m3_value(E4M3_CODES - 1)));
}

unsigned oracle_e8m0_above(double x) {
  unsigned code = 0;
  while (code + 1 < E8M0_CODES && oracle_e8m0_value(code) < x) {
    ++code;
  }
  return code;
}

/* x = n * 2^unit with n < 256 rounded to an integer; codes of one sign count such units. */
uint16_t oracle_bf16_nearest(double x) {
  const unsigned sign = signbit(x) != 0 ? 0x8000u : 0u;
  if (isnan(x)) {
    return (uint16_t)(sign | 0x7FC0u);
  }
  if (isinf(x)) {
    return (uint16_t)(sign | 0x7F80u);
  }
  int exponent = -1000; /* zero has none: the smallest unit will do */
  if (x != 0.0) {
    frexp(x, &exponent);
  }
  const int unit = exponent - 8 < -133 ? -133 : exponent - 8;
  const long code = (unit + 133) * 128L + lrint(ldexp(fabs(x), -unit));
  return (uint16_t)(sign | (unsigned)(code < 0x7F80 ? code : 0x7F80));
}

/* Whether `magnitude` lies between what the ends of x +- tolerance round to. */
static bool is_between(unsigned magnitude, unsigned (*round)(double), double x) {
  return magnitude >= round(x * (1.0 - ORACLE_BOUNDARY_TOLERANCE)) &&
         magnitude <= round(x * (1.0 + ORACLE_BOUNDARY_TOLERANCE));
}

bool oracle_allows_e2m1(unsigned code, double x) {
  const bool sign_agrees = (code & 8u) == (signbit(x) != 0 ? 8u : 0u);
  return !isnan(x) && (sign_agrees || (code & 7u) == 0u) &&
         is_between(code & 7u, oracle_e2m1_nearest, fabs(x));
}

bool oracle_allows_e4m3(unsigned code, double x) {
  return is_between(code, oracle_e4m3_nearest, x);
}

bool oracle_allows_e8m0(unsigned code, double x) { return is_between(code, oracle_e8m0_above, x); }

static unsigned bf16_magnitude(double x) { return oracle_bf16_nearest(x); }

bool oracle_allows_bf16(uint16_t code, double x) {
  if (fabs(x) < ORACLE_TINY) {
    return fabs(oracle_bf16_value(code)) <= ORACLE_TINY;
  }
  return !isnan(x) && ((code & 0x8000u) != 0u) == (signbit(x) != 0) &&
         is_between(code & 0x7FFFu, bf16_magnitude, fabs(x));
}

/* ---- The quantiser: f32 throughout ---- */

static float amax_of(const float *x, int64_t n) {
  float amax = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    amax = fmaxf(amax, fabsf(x[i]));
  }
  return amax;
}

float oracle_global(const float *x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!isfinite(x[i])) {
      return NAN;
    }
  }
  const float global = amax_of(x, n) / 2688.0f; /* 6 * 448 */
  return global != 0.0f ? global : 1.0f;
}

void oracle_quantise(const float *x, int64_t n, float global, uint8_t *codes, uint8_t *scales) {
  memset(codes, 0, (size_t)n);
  memset(scales, 0, (size_t)(n / BLOCK));
  for (int64_t b = 0; b < n / BLOCK && !isnan(global); ++b) {
    const float quotient = amax_of(x + b * BLOCK, BLOCK) / (6.0f * global);
    scales[b] = (uint8_t)oracle_e4m3_nearest((double)quotient);
    const float divisor = (float)oracle_e4m3_value(scales[b]) * global;
    for (int64_t i = b * BLOCK; i < (b + 1) * BLOCK && divisor != 0.0f; ++i) {
      const float scaled = x[i] / divisor;
      codes[i] = (uint8_t)oracle_e2m1_nearest((double)scaled);
    }
  }
}

void oracle_dequantise(const uint8_t *codes, const uint8_t *scales, float global, int64_t n,
                       double *values) {
  for (int64_t i = 0; i < n; ++i) {
    values[i] = oracle_e2m1_value(codes[i]) * oracle_e4m3_value(scales[i / BLOCK]) * (double)global;
  }
}

void oracle_mx_quantise(const float *x, int64_t n, uint8_t *codes, uint8_t *scales) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && isfinite(x[i]);
  }
  memset(codes, 0, (size_t)n);
  memset(scales, E8M0_NAN, (size_t)(n / MX_BLOCK));
  for (int64_t b = 0; b < n / MX_BLOCK && finite; ++b) {
    const float quotient = amax_of(x + b * MX_BLOCK, MX_BLOCK) / 6.0f;
    scales[b] = (uint8_t)oracle_e8m0_above((double)quotient);
    for (int64_t i = b * MX_BLOCK; i < (b + 1) * MX_BLOCK; ++i) {
      codes[i] = (uint8_t)oracle_e2m1_nearest((double)x[i] / oracle_e8m0_value(scales[b]));
    }
  }
}

void oracle_mx_dequantise(const uint8_t *codes, const uint8_t *scales, int64_t n, double *values) {
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t scale = scales[i / MX_BLOCK];
    values[i] =
        scale == E8M0_NAN ? (double)NAN : oracle_e2m1_value(codes[i]) * oracle_e8m0_value(scale);
  }
}

/* ---- The layer ---- */

/* What n values are worth when they are FP4. */
static void round_fp4(sy_format format, const float *x, int64_t n, double *values) {
  uint8_t *codes = allocate(n, 1);
  uint8_t *scales = allocate(n / BLOCK, 1);
  if (format == SY_FORMAT_MXFP4) {
    oracle_mx_quantise(x, n, codes, scales);
    oracle_mx_dequantise(codes, scales, n, values);
  } else {
    const float global = oracle_global(x, n);
    oracle_quantise(x, n, global, codes, scales);
    oracle_dequantise(codes, scales, global, n, values);
  }
  free(codes);
  free(scales);
}

/* A matrix [rows, columns] as the caller gave it. */
struct given {
  sy_dtype dtype;
  const void *data, *scales;
  float global;
  int64_t rows, columns;
};

static float given_value(const struct given *m, int64_t i) {
  const uint16_t *halves = m->data;
  switch (m->dtype) {
  case SY_DTYPE_F32:
    return ((const float *)m->data)[i];
  case SY_DTYPE_BF16:
    return (float)oracle_bf16_value(halves[i]);
  case SY_DTYPE_F16:
    return (float)oracle_f16_value(halves[i]);
  default: {
    const uint8_t code = ((const uint8_t *)m->data)[i];
    const int64_t block = i / m->columns / 128 * ((m->columns + 127) / 128) + i % m->columns / 128;
    const float magnitude = (float)oracle_e4m3_value(code & 0x7Fu);
    return (code & 0x80u ? -magnitude : magnitude) * ((const float *)m->scales)[block];
  }
  }
}

static double *decode_matrix(const struct given *m) {
  const int64_t n = m->rows * m->columns;
  double *values = allocate(n, sizeof *values);
  uint8_t *codes = allocate(n, 1);
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t pair = ((const uint8_t *)m->data)[i / 2];
    codes[i] = i % 2 == 0 ? pair & 0xFu : pair >> 4;
  }
  if (m->dtype == SY_DTYPE_MXFP4) {
    oracle_mx_dequantise(codes, m->scales, n, values);
  } else {
    oracle_dequantise(codes, m->scales, m->global, n, values);
  }
  free(codes);
  return values;
}

static double *round_matrix(const sy_shape *shape, const struct given *m) {
  if (m->data == NULL) {
    return NULL;
  }
  if (m->dtype == SY_DTYPE_NVFP4 || m->dtype == SY_DTYPE_MXFP4) {
    return decode_matrix(m);
  }
  const int64_t n = m->rows * m->columns;
  double *values = allocate(n, sizeof *values);
  float *x = allocate(n, sizeof *x);
  for (int64_t i = 0; i < n; ++i) {
    x[i] = given_value(m, i);
    values[i] = oracle_bf16_value(oracle_bf16_nearest((double)x[i]));
  }
  if (shape->mode != SY_MODE_BF16) {
    round_fp4(shape->format, x, n, values);
  }
  free(x);
  return values;
}

static double *widen(const float *bias, int64_t n) {
  if (bias == NULL) {
    return NULL;
  }
  double *values = allocate(n, sizeof *values);
  for (int64_t i = 0; i < n; ++i) {
    values[i] = (double)bias[i];
  }
  return values;
}

void oracle_layer_make(const sy_shape *shape, const sy_expert_weights *weights,
                       struct oracle_layer *layer_out) {
  const int64_t h = shape->hidden;
  const int64_t n = shape->intermediate;
  layer_out->shape = *shape;
  layer_out->experts = allocate(shape->num_experts, sizeof *layer_out->experts);
  for (int32_t e = 0; e < shape->num_experts; ++e) {
    const sy_expert_weights *w = &weights[e];
    const struct given gate = {w->dtype, w->gate, w->gate_scales, w->gate_global, n, h};
    const struct given up = {w->dtype, w->up, w->up_scales, w->up_global, n, h};
    const struct given down = {w->dtype, w->down, w->down_scales, w->down_global, h, n};
    layer_out->experts[e] = (struct oracle_expert){
        .gate = round_matrix(shape, &gate),
        .up = round_matrix(shape, &up),
        .down = round_matrix(shape, &down),
        .gate_bias = widen(w->gate_bias, n),
        .up_bias = widen(w->up_bias, n),
        .down_bias = widen(w->down_bias, h),
    };
  }
}

void oracle_layer_free(struct oracle_layer *layer) {
  for (int32_t e = 0; layer->experts != NULL && e < layer->shape.num_experts; ++e) {
    const struct oracle_expert *x = &layer->experts[e];
    free(x->gate);
    free(x->up);
    free(x->down);
    free(x->gate_bias);
    free(x->up_bias);
    free(x->down_bias);
  }
  free(layer->experts);
  layer->experts = NULL;
}

void oracle_row(const struct oracle_layer *layer, const uint16_t *hidden, double *row) {
  const int64_t h = layer->shape.hidden;
  float *x = allocate(h, sizeof *x);
  for (int64_t i = 0; i < h; ++i) {
    x[i] = (float)oracle_bf16_value(hidden[i]);
  }
  const float global = oracle_global(x, h);
  for (int64_t i = 0; i < h; ++i) {
    row[i] = isnan(global) ? (double)NAN : (double)x[i];
  }
  if (layer->shape.mode == SY_MODE_W4A4) {
    round_fp4(layer->shape.format, x, h, row);
  }
  free(x);
}

/* out[rows] = matrix [rows, columns] * x + bias */
static void multiply(const double *matrix, const double *bias, const double *x, int64_t rows,
                     int64_t columns, double *out) {
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0.0;
    for (int64_t c = 0; c < columns; ++c) {
      sum += matrix[r * columns + c] * x[c];
    }
    out[r] = bias != NULL ? sum + bias[r] : sum;
  }
}

void oracle_fc1(const struct oracle_layer *layer, int32_t expert, const double *row, double *gate,
                double *up) {
  const struct oracle_expert *x = &layer->experts[expert];
  const int64_t h = layer->shape.hidden;
  const int64_t n = layer->shape.intermediate;
  if (x->gate != NULL) {
    multiply(x->gate, x->gate_bias, row, n, h, gate);
  }
  multiply(x->up, x->up_bias, row, n, h, up);
}

double oracle_activate(const struct oracle_layer *layer, double gate, double up) {
  const double alpha = (double)layer->shape.swiglu_alpha;
  const double limit = (double)layer->shape.swiglu_limit;
  switch (layer->shape.activation) {
  case SY_ACTIVATION_SWIGLU:
    return gate / (1.0 + exp(-gate)) * up;
  case SY_ACTIVATION_SWIGLU_CLAMPED: {
    const double g = gate > limit ? limit : gate;
    const double u = up > limit ? limit : up < -limit ? -limit : up;
    return g / (1.0 + exp(-alpha * g)) * (u + 1.0);
  }
  case SY_ACTIVATION_GELU_TANH: {
    /* (1 + tanh z) / 2 = 1 / (1 + exp(-2 z)), which keeps its digits where tanh nears -1. */
    const double z = sqrt(2.0 / acos(-1.0)) * (gate + 0.044715 * gate * gate * gate);
    return gate / (1.0 + exp(-2.0 * z)) * up;
  }
  case SY_ACTIVATION_RELU2:
    return up <= 0.0 ? 0.0 : up * up;
  }
  return (double)NAN;
}

static void round_slice(sy_format format, double *values, int64_t n) {
  float x[SLICE];
  for (int64_t i = 0; i < n; ++i) {
    x[i] = (float)values[i];
  }
  round_fp4(format, x, n, values);
}

void oracle_round_intermediate(const struct oracle_layer *layer, double *intermediate) {
  const int64_t n = layer->shape.intermediate;
  if (layer->shape.mode == SY_MODE_W4A4) {
    for (int64_t i = 0; i < n; i += SLICE) {
      round_slice(layer->shape.format, intermediate + i, smaller(n - i, SLICE));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      intermediate[i] = oracle_bf16_value(oracle_bf16_nearest(intermediate[i]));
    }
  }
}

void oracle_fc2(const struct oracle_layer *layer, int32_t expert, const double *intermediate,
                double *out) {
  const struct oracle_expert *x = &layer->experts[expert];
  multiply(x->down, x->down_bias, intermediate, layer->shape.hidden, layer->shape.intermediate,
           out);
}

void oracle_forward(const struct oracle_layer *layer, const uint16_t *hidden, const int32_t *ids,
                    const float *weights, double *out) {
  const int64_t h = layer->shape.hidden;
  const int64_t n = layer->shape.intermediate;
  double *row = allocate(2 * h + 2 * n, sizeof *row);
  double *result = row + h;
  double *gate = result + h;
  double *up = gate + n;
  oracle_row(layer, hidden, row);
  memset(out, 0, (size_t)h * sizeof *out);
  for (int32_t k = 0; k < layer->shape.top_k; ++k) {
    if (ids[k] < 0) {
      continue;
    }
    oracle_fc1(layer, ids[k], row, gate, up);
    for (int64_t i = 0; i < n; ++i) {
      up[i] = oracle_activate(layer, gate[i], up[i]);
    }
    oracle_round_intermediate(layer, up);
    oracle_fc2(layer, ids[k], up, result);
    for (int64_t i = 0; i < h; ++i) {
      out[i] += (double)weights[k] * result[i];
    }
  }
  free(row);
}

/* ---- Verdicts ---- */

double oracle_distance(const float *got, const double *exact, int64_t n) {
  double error = 0.0;
  double norm = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double difference = (double)got[i] - exact[i];
    error += difference * difference;
    norm += exact[i] * exact[i];
  }
  return error == 0.0 ? 0.0 : sqrt(error / norm);
}

bool oracle_is_near(const char *what, int64_t row, const float *got, const double *exact, int64_t n,
                    double tolerance) {
  const double distance = oracle_distance(got, exact, n);
  if (distance <= tolerance) {
    return true;
  }
  double norm = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    norm += exact[i] * exact[i];
  }
  const double typical = sqrt(norm / (double)n);
  for (int64_t i = 0; i < n; ++i) {
    if (!(fabs((double)got[i] - exact[i]) <= tolerance * typical)) {
      fprintf(stderr,
              "%s: row %" PRId64 " is off by %.3g (allowed: %.3g); first at [%" PRId64
              "]: %.9g, exact %.17g\n",
              what, row, distance, tolerance, i, (double)got[i], exact[i]);
      break;
    }
  }
  return false;
}

bool oracle_judge_bf16(int64_t row, const uint16_t *stored, const double *exact, int64_t n,
                       double *values) {
  for (int64_t i = 0; i < n; ++i) {
    values[i] = oracle_bf16_value(stored[i]);
    if (!oracle_allows_bf16(stored[i], exact[i])) {
      fprintf(stderr, "intermediate: row %" PRId64 " [%" PRId64 "] is %.9g, exact %.17g\n", row, i,
              values[i], exact[i]);
      return false;
    }
  }
  return true;
}

/* One slice of n <= 128 columns. codes holds one code per byte. */
static bool judge_slice(int64_t row, int64_t first, const uint8_t *codes, const uint8_t *scales,
                        float global, const double *exact, int64_t n) {
  double amax = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    amax = fmax(amax, fabs(exact[i]));
  }
  const double exact_global = amax == 0.0 ? 1.0 : amax / 2688.0;
  if (!(fabs((double)global - exact_global) <= ORACLE_BOUNDARY_TOLERANCE * exact_global)) {
    fprintf(stderr,
            "intermediate: row %" PRId64 " global of [%" PRId64 "..] is %.9g, exact %.17g\n", row,
            first, (double)global, exact_global);
    return false;
  }
  for (int64_t b = 0; b < n / BLOCK; ++b) {
    double block_amax = 0.0;
    for (int64_t i = b * BLOCK; i < (b + 1) * BLOCK; ++i) {
      block_amax = fmax(block_amax, fabs(exact[i]));
    }
    const double quotient = block_amax / (6.0 * (double)global);
    if (!oracle_allows_e4m3(scales[b], quotient)) {
      fprintf(stderr,
              "intermediate: row %" PRId64 " scale of [%" PRId64 "..] is code %u, exact %.17g\n",
              row, first + b * BLOCK, scales[b], quotient);
      return false;
    }
    const double step = oracle_e4m3_value(scales[b]) * (double)global;
    for (int64_t i = b * BLOCK; i < (b + 1) * BLOCK; ++i) {
      if ((float)step == 0.0f ? codes[i] != 0 : !oracle_allows_e2m1(codes[i], exact[i] / step)) {
        fprintf(stderr,
                "intermediate: row %" PRId64 " [%" PRId64 "] is code %u, exact %.17g of a step\n",
                row, first + i, codes[i], exact[i] / step);
        return false;
      }
    }
  }
  return true;
}

bool oracle_judge_nvfp4(int64_t row, const uint8_t *codes, const uint8_t *scales,
                        const float *globals, const double *exact, int64_t n, double *values) {
  for (int64_t first = 0; first < n; first += SLICE) {
    const int64_t columns = smaller(n - first, SLICE);
    uint8_t slice[SLICE];
    for (int64_t i = 0; i < columns; ++i) {
      const uint8_t pair = codes[(first + i) / 2];
      slice[i] = i % 2 == 0 ? pair & 0xFu : pair >> 4;
    }
    const float global = globals[first / SLICE];
    const uint8_t *slice_scales = scales + first / BLOCK;
    if (!judge_slice(row, first, slice, slice_scales, global, exact + first, columns)) {
      return false;
    }
    oracle_dequantise(slice, slice_scales, global, columns, values + first);
  }
  return true;
}

/* One block of 32 columns, one code per byte. */
static bool judge_mx_block(int64_t row, int64_t first, const uint8_t *codes, uint8_t scale,
                           const double *exact) {
  double amax = 0.0;
  for (int64_t i = 0; i < MX_BLOCK; ++i) {
    amax = fmax(amax, fabs(exact[i]));
  }
  if (!oracle_allows_e8m0(scale, amax / 6.0)) {
    fprintf(stderr,
            "intermediate: row %" PRId64 " scale of [%" PRId64 "..] is code %u, exact %.17g\n", row,
            first, scale, amax / 6.0);
    return false;
  }
  for (int64_t i = 0; i < MX_BLOCK; ++i) {
    const double steps = exact[i] / oracle_e8m0_value(scale);
    if (!oracle_allows_e2m1(codes[i], steps)) {
      fprintf(stderr,
              "intermediate: row %" PRId64 " [%" PRId64 "] is code %u, exact %.17g of a step\n",
              row, first + i, codes[i], steps);
      return false;
    }
  }
  return true;
}

bool oracle_judge_mxfp4(int64_t row, const uint8_t *codes, const uint8_t *scales,
                        const double *exact, int64_t n, double *values) {
  for (int64_t first = 0; first < n; first += MX_BLOCK) {
    uint8_t block[MX_BLOCK];
    for (int64_t i = 0; i < MX_BLOCK; ++i) {
      const uint8_t pair = codes[(first + i) / 2];
      block[i] = i % 2 == 0 ? pair & 0xFu : pair >> 4;
    }
    if (!judge_mx_block(row, first, block, scales[first / MX_BLOCK], exact + first)) {
      return false;
    }
    oracle_mx_dequantise(block, scales + first / MX_BLOCK, MX_BLOCK, values + first);
  }
  return true;
}
