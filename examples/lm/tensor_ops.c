#include "tensor_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

/* The static functions in which the time goes are also compiled for wider vectors; which one runs is chosen
 * when the program starts. Their bits are the same. (Thread sanitizer fails in such a choice.) */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_THREAD__)
#define VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define VECTOR_CLONES
#endif

#define ROWS_TOGETHER 4 /* so many rows share each load of a panel's weights */

bool lm_linear_create(struct lm_linear *linear, const uint16_t *weights, int32_t out, int32_t in) {
  const int64_t num_panels = (out + LM_PANEL - 1) / LM_PANEL;
  uint16_t *panels = calloc((size_t)(num_panels * in), LM_PANEL * sizeof *panels);
  if (panels == NULL) {
    return false;
  }
  for (int64_t o = 0; o < out; ++o) {
    uint16_t *column = panels + o / LM_PANEL * in * LM_PANEL + o % LM_PANEL;
    for (int64_t i = 0; i < in; ++i) {
      column[i * LM_PANEL] = weights[o * in + i];
    }
  }
  *linear = (struct lm_linear){.in = in, .out = out, .panels = panels};
  return true;
}

void lm_linear_destroy(struct lm_linear *linear) {
  free(linear->panels);
  linear->panels = NULL;
}

/* x f32 [num_rows, in] -> sums f32 [num_rows, LM_PANEL]; num_rows is a constant where inlined. */
__attribute__((always_inline)) static inline void panel_apply(const uint16_t *restrict panel,
                                                              const float *restrict x, int64_t in,
                                                              int num_rows,
                                                              float (*restrict sums)[LM_PANEL]) {
  float acc[ROWS_TOGETHER][LM_PANEL] = {{0}};
  for (int64_t i = 0; i < in; ++i) {
    float weights[LM_PANEL];
    for (int o = 0; o < LM_PANEL; ++o) {
      weights[o] = lm_bf16_to_f32(panel[i * LM_PANEL + o]);
    }
    for (int row = 0; row < num_rows; ++row) {
      const float value = x[row * in + i];
      for (int o = 0; o < LM_PANEL; ++o) {
        acc[row][o] += value * weights[o];
      }
    }
  }
  memcpy(sums, acc, (size_t)num_rows * sizeof acc[0]);
}

VECTOR_CLONES static void panel_apply_rows(const uint16_t *panel, const float *x, int64_t in,
                                           float (*sums)[LM_PANEL]) {
  panel_apply(panel, x, in, ROWS_TOGETHER, sums);
}

VECTOR_CLONES static void panel_apply_row(const uint16_t *panel, const float *x, int64_t in,
                                          float (*sums)[LM_PANEL]) {
  panel_apply(panel, x, in, 1, sums);
}

/* One panel, for at most ROWS_TOGETHER rows. */
static void panel_block(const struct lm_linear *linear, int64_t panel_idx, const float *x,
                        int64_t num_rows, float *y) {
  const int64_t in = linear->in, out = linear->out, first = panel_idx * LM_PANEL;
  const int64_t count = out - first < LM_PANEL ? out - first : LM_PANEL;
  const uint16_t *panel = linear->panels + panel_idx * in * LM_PANEL;
  float sums[ROWS_TOGETHER][LM_PANEL];
  if (num_rows == ROWS_TOGETHER) {
    panel_apply_rows(panel, x, in, sums);
  } else {
    for (int64_t row = 0; row < num_rows; ++row) {
      panel_apply_row(panel, x + row * in, in, sums + row);
    }
  }
  for (int64_t row = 0; row < num_rows; ++row) {
    memcpy(y + row * out + first, sums[row], (size_t)count * sizeof *y);
  }
}

void lm_linear_apply(const struct lm_linear *linear, const float *x, int64_t rows, float *y,
                     int32_t threads) {
  const int64_t num_panels = (linear->out + LM_PANEL - 1) / LM_PANEL;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int64_t panel_idx = 0; panel_idx < num_panels; ++panel_idx) {
    for (int64_t row = 0; row < rows; row += ROWS_TOGETHER) {
      const int64_t num_rows = rows - row < ROWS_TOGETHER ? rows - row : ROWS_TOGETHER;
      panel_block(linear, panel_idx, x + row * linear->in, num_rows, y + row * linear->out);
    }
  }
}

__attribute__((always_inline)) static inline float dot(const float *a, const float *b, int32_t n) {
  float part[LM_LANES] = {0};
  int32_t i = 0;
  for (; i + LM_LANES <= n; i += LM_LANES) {
    for (int j = 0; j < LM_LANES; ++j) {
      part[j] += a[i + j] * b[i + j];
    }
  }
  for (int j = 0; i + j < n; ++j) {
    part[j] += a[i + j] * b[i + j];
  }
  for (int half = LM_LANES / 2; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) {
      part[j] += part[j + half];
    }
  }
  return part[0];
}

VECTOR_CLONES static void scores_of(const float *query, const float *keys, int32_t count, int32_t n,
                                    float scale, float *scores) {
  for (int64_t p = 0; p < count; ++p) {
    scores[p] = scale * dot(query, keys + p * n, n);
  }
}

void lm_scores(const float *query, const float *keys, int32_t count, int32_t n, float scale,
               float *scores) {
  scores_of(query, keys, count, n, scale, scores);
}

VECTOR_CLONES static void weighted_sum(const float *weights, const float *restrict values,
                                       int32_t count, int32_t n, float *restrict sum) {
  memset(sum, 0, (size_t)n * sizeof *sum);
  for (int64_t p = 0; p < count; ++p) {
    const float weight = weights[p];
    for (int32_t i = 0; i < n; ++i) {
      sum[i] += weight * values[p * n + i];
    }
  }
}

void lm_weighted_sum(const float *weights, const float *values, int32_t count, int32_t n,
                     float *sum) {
  weighted_sum(weights, values, count, n, sum);
}

void lm_rms_norm(const float *x, const float *weight, int32_t n, float eps, float *y) {
  const float scale = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
  for (int32_t i = 0; i < n; ++i) {
    y[i] = x[i] * scale * weight[i];
  }
}

void lm_rotate(float *x, const float *cosines, const float *sines, int32_t n) {
  const int32_t half = n / 2;
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
}

void lm_softmax(float *x, int32_t n) {
  float largest = x[0];
  for (int32_t i = 1; i < n; ++i) {
    largest = x[i] > largest ? x[i] : largest;
  }
  double sum = 0.0;
  for (int32_t i = 0; i < n; ++i) {
    x[i] = expf(x[i] - largest);
    sum += (double)x[i];
  }
  const float scale = (float)(1.0 / sum);
  for (int32_t i = 0; i < n; ++i) {
    x[i] *= scale;
  }
}
