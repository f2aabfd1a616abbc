/* The dense arithmetic of the model: f32, on weights that are BF16.
 *
 * Same token, same bits: the order of every sum is fixed by the model's shape alone. A linear map
 * adds its inputs in ascending order, one output to a vector lane; a sum along a row is made of
 * LM_LANES partial sums that meet in a fixed tree. Threads share out tokens and outputs, never a
 * sum. Both forms vectorise without letting the compiler reorder anything. */
#ifndef LM_TENSOR_OPS_H
#define LM_TENSOR_OPS_H

#include <stdbool.h>
#include <stdint.h>

#define LM_PANEL 32
#define LM_LANES 16

/* y = W x. Weights lie in panels of LM_PANEL outputs; within a panel all weights of input 0 come
 * first, then those of input 1, and so on: a panel is read once, from end to end. */
struct lm_linear {
  int32_t in;
  int32_t out;
  uint16_t *panels; /* bf16 [ceil(out / LM_PANEL), in, LM_PANEL], padded with zeros */
};

/* Takes row-major weights bf16 [out, in]. False: out of memory. */
bool lm_linear_create(struct lm_linear *linear, const uint16_t *weights, int32_t out, int32_t in);
void lm_linear_destroy(struct lm_linear *linear);

/* x f32 [rows, in] -> y f32 [rows, out] */
void lm_linear_apply(const struct lm_linear *linear, const float *x, int64_t rows, float *y,
                     int32_t threads);

/* scores[p] = scale * the dot product of query and keys[p]; keys f32 [count, n]. */
void lm_scores(const float *query, const float *keys, int32_t count, int32_t n, float scale,
               float *scores);

/* sum = the values' weighted sum, in ascending order; values f32 [count, n]. */
void lm_weighted_sum(const float *weights, const float *values, int32_t count, int32_t n,
                     float *sum);

/* y = x / sqrt(mean(x^2) + eps) * weight; y may be x. */
void lm_rms_norm(const float *x, const float *weight, int32_t n, float eps, float *y);

/* Rotates the pairs (x[i], x[i + n/2]) by angles whose cosines and sines are given [n/2]. */
void lm_rotate(float *x, const float *cosines, const float *sines, int32_t n);

/* In place; n >= 1. */
void lm_softmax(float *x, int32_t n);

#endif
