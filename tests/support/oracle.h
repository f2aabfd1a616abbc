/* The judge: one mixture-of-experts layer in float64, stage by stage, with encoders, decoders and a
 * quantiser of its own. The quantiser is the f32 sequence that the number rules fix, so its codes
 * must be equal to the bit; every rounding in it is a search for the nearest representable value.
 *
 * Why stage by stage: one flipped code of the intermediate moves a result by more than any honest
 * tolerance, so that each stage is judged from what really entered it. */
#ifndef SY_TESTS_SUPPORT_ORACLE_H
#define SY_TESTS_SUPPORT_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/switchyard.h"

/* Sums in f32 against float64: relative L2 of a row. */
#define ORACLE_SUM_TOLERANCE 1e-5
/* A code may differ where the exact value lies this close to a rounding boundary, relatively. */
#define ORACLE_BOUNDARY_TOLERANCE 1e-5

/* ---- Number formats ---- */

/* Values of codes: E2M1 0..15, E4M3 0..0x7E (not signed here), E8M0 0..0xFE, any bf16. */
double oracle_e2m1_value(unsigned code);
double oracle_e4m3_value(unsigned code);
double oracle_e8m0_value(unsigned code);
double oracle_bf16_value(uint16_t code);
double oracle_f16_value(uint16_t code);

/* The nearest code, ties to the even one. E2M1 and E4M3 saturate; E4M3 wants x >= 0; bf16 overflows
 * to infinity and keeps NaN. */
unsigned oracle_e2m1_nearest(double x);
unsigned oracle_e4m3_nearest(double x);
uint16_t oracle_bf16_nearest(double x);

/* The first E8M0 code whose value is not below x >= 0; the last code if there is none. */
unsigned oracle_e8m0_above(double x);

/* Whether an f32 computation of x may give this code: some value within ORACLE_BOUNDARY_TOLERANCE
 * of x rounds to it. The sign of zero is free. What is smaller than ORACLE_TINY counts as zero: an
 * f32 activation may have lost a factor to underflow (sigmoid of -88 times gate times up). */
#define ORACLE_TINY 0x1p-110
bool oracle_allows_e2m1(unsigned code, double x);
bool oracle_allows_e4m3(unsigned code, double x);
bool oracle_allows_e8m0(unsigned code, double x);
bool oracle_allows_bf16(uint16_t code, double x);

/* ---- The quantiser ---- */

/* The global scale of n values. NaN when one is not finite. */
float oracle_global(const float *x, int64_t n);

/* n values (a multiple of 16) under a given global scale -> one code per byte, n / 16 scales. */
void oracle_quantise(const float *x, int64_t n, float global, uint8_t *codes, uint8_t *scales);

/* What n codes (one per byte) are worth. */
void oracle_dequantise(const uint8_t *codes, const uint8_t *scales, float global, int64_t n,
                       double *values);

/* The same of MXFP4: n a multiple of 32, n / 32 scales; 255 is NaN. */
void oracle_mx_quantise(const float *x, int64_t n, uint8_t *codes, uint8_t *scales);
void oracle_mx_dequantise(const uint8_t *codes, const uint8_t *scales, int64_t n, double *values);

/* ---- The layer ---- */

/* Values of the weights as they are after loading. gate is NULL for RELU2; biases NULL: none. */
struct oracle_expert {
  double *gate, *up, *down;
  double *gate_bias, *up_bias, *down_bias;
};

struct oracle_layer {
  sy_shape shape;
  struct oracle_expert *experts; /* [num_experts], by global expert */
};

/* Quantises weights[num_experts], of any dtype, as the shape's mode asks; takes FP4 at its word. Ends the program when memory is out. */
void oracle_layer_make(const sy_shape *shape, const sy_expert_weights *weights,
                       struct oracle_layer *layer_out);
void oracle_layer_free(struct oracle_layer *layer);

/* A token as the experts see it: quantised in w4a4. One non-finite value makes all of it NaN. */
void oracle_row(const struct oracle_layer *layer, const uint16_t *hidden, double *row);

/* row [hidden] -> gate and up [intermediate], biases included. RELU2 leaves gate alone. */
void oracle_fc1(const struct oracle_layer *layer, int32_t expert, const double *row, double *gate,
                double *up);

double oracle_activate(const struct oracle_layer *layer, double gate, double up);

/* What of the activation the mode keeps: BF16, or FP4; NVFP4 has one global scale per 128 columns. */
void oracle_round_intermediate(const struct oracle_layer *layer, double *intermediate);

/* intermediate [intermediate] -> out [hidden], bias included. */
void oracle_fc2(const struct oracle_layer *layer, int32_t expert, const double *intermediate,
                double *out);

/* One token from end to end, with the oracle's own codes; id -1 is masked. */
void oracle_forward(const struct oracle_layer *layer, const uint16_t *hidden, const int32_t *ids,
                    const float *weights, double *out);

/* ---- Verdicts ---- */

/* Relative L2 distance; 0 when both are zero, NaN when anything is NaN. */
double oracle_distance(const float *got, const double *exact, int64_t n);

/* Whether the distance is within the tolerance; if not, says which row of what, the distance, and
 * the first coordinate that is far off. NaN is never within. */
bool oracle_is_near(const char *what, int64_t row, const float *got, const double *exact, int64_t n,
                    double tolerance);

/* Judges one routed row's stored intermediate from the exact activations of its own FC1: BF16
 * values, or codes (two per byte, the even column low), scales and (NVFP4) slice globals. values
 * gets what is stored, for FC2. Says where the first fault is. */
bool oracle_judge_bf16(int64_t row, const uint16_t *stored, const double *exact, int64_t n,
                       double *values);
bool oracle_judge_nvfp4(int64_t row, const uint8_t *codes, const uint8_t *scales,
                        const float *globals, const double *exact, int64_t n, double *values);
bool oracle_judge_mxfp4(int64_t row, const uint8_t *codes, const uint8_t *scales,
                        const double *exact, int64_t n, double *values);

#endif
