#include "tensor_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

bool lm_linear_create(struct lm_linear *linear, const void *weights, int32_t out, int32_t in) {
  const int64_t num_panels = (out + LM_PANEL - 1) / LM_PANEL;
  const unsigned char *source = weights;
  uint16_t *panels = calloc((size_t)(num_panels * in), LM_PANEL * sizeof *panels);
  if (panels == NULL) {
    return false;
  }
  for (int64_t o = 0; o < out; ++o) {
    uint16_t *column = panels + o / LM_PANEL * in * LM_PANEL + o % LM_PANEL;
    for (int64_t i = 0; i < in; ++i) {
      memcpy(column + i * LM_PANEL, source + (o * in + i) * 2, 2);
    }
  }
  *linear = (struct lm_linear){.in = in, .out = out, .panels = panels};
  return true;
}

void lm_linear_destroy(struct lm_linear *linear) {
  free(linear->panels);
  linear->panels = NULL;
}

static void panel_apply(const uint16_t *restrict panel, const float *restrict x, int64_t in,
                        float *restrict sums) {
  float acc[LM_PANEL] = {0};
  for (int64_t i = 0; i < in; ++i) {
    const float xi = x[i];
    for (int o = 0; o < LM_PANEL; ++o) {
      acc[o] += xi * lm_bf16_to_f32(panel[i * LM_PANEL + o]);
    }
  }
  memcpy(sums, acc, sizeof acc);
}

void lm_linear_apply(const struct lm_linear *linear, const float *x, int64_t rows, float *y,
                     int32_t threads) {
  const int64_t in = linear->in, out = linear->out;
  const int64_t num_panels = (out + LM_PANEL - 1) / LM_PANEL;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int64_t p = 0; p < num_panels; ++p) {
    for (int64_t row = 0; row < rows; ++row) {
      float sums[LM_PANEL];
      panel_apply(linear->panels + p * in * LM_PANEL, x + row * in, in, sums);
      const int64_t first = p * LM_PANEL;
      const int64_t count = out - first < LM_PANEL ? out - first : LM_PANEL;
      memcpy(y + row * out + first, sums, (size_t)count * sizeof *y);
    }
  }
}

float lm_dot(const float *a, const float *b, int32_t n) {
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

void lm_rms_norm(const float *x, const float *weight, int32_t n, float eps, float *y) {
  const float scale = 1.0f / sqrtf(lm_dot(x, x, n) / (float)n + eps);
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
