/* The self-test's table: operands whose products and sums are exact in f32 in any order, with all codes,
 * and scales that differ between all rows, columns and blocks. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/fp4.h"

enum { ROWS = 16, COLUMNS = 8, LENGTH = 64, BLOCKS = 4, NVFP4_CASES = 4 };

/* Operands as matrices, before they are dealt to lanes. MXFP4 has two blocks; the other scales are not
 * to be read. */
struct matrices {
  sy_format format;
  uint8_t a[ROWS][LENGTH], b[COLUMNS][LENGTH]; /* E2M1 codes */
  uint8_t scale_a[ROWS][BLOCKS], scale_b[COLUMNS][BLOCKS];
};

static uint32_t next_random(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 16;
}

/* Powers of two from 2^-3 to 2^4; in the last case of NVFP4 subnormal: 1 to 7 times 2^-9. */
static uint8_t make_scale(int number, uint32_t *state) {
  const uint32_t r = next_random(state);
  if (number >= NVFP4_CASES) {
    return (uint8_t)(124 + r % 8);
  }
  return (uint8_t)(number == NVFP4_CASES - 1 ? 1 + r % 7 : (4 + r % 8) << 3);
}

static struct matrices make_matrices(int number) {
  struct matrices m;
  m.format = number < NVFP4_CASES ? SY_FORMAT_NVFP4 : SY_FORMAT_MXFP4;
  uint32_t state = 1u + (uint32_t)number;
  for (int k = 0; k < LENGTH; ++k) {
    for (int r = 0; r < ROWS; ++r) {
      m.a[r][k] = next_random(&state) % 16;
    }
    for (int c = 0; c < COLUMNS; ++c) {
      m.b[c][k] = next_random(&state) % 16;
    }
  }
  for (int j = 0; j < BLOCKS; ++j) {
    for (int r = 0; r < ROWS; ++r) {
      m.scale_a[r][j] = make_scale(number, &state);
    }
    for (int c = 0; c < COLUMNS; ++c) {
      m.scale_b[c][j] = make_scale(number, &state);
    }
  }
  return m;
}

static uint32_t eight_codes(const uint8_t *codes) {
  uint32_t word = 0;
  for (int n = 0; n < 8; ++n) {
    word |= (uint32_t)codes[n] << (4 * n);
  }
  return word;
}

static uint32_t four_scales(const uint8_t *scales) {
  return (uint32_t)scales[0] | (uint32_t)scales[1] << 8 | (uint32_t)scales[2] << 16 |
         (uint32_t)scales[3] << 24;
}

/* As kernels/cuda/ptx/mma.cuh says; lanes whose scales are ignored repeat them. */
static void deal(const struct matrices *m, struct sy_self_test_operands *out) {
  out->format = m->format;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4;
    const int p = lane % 4;
    for (int i = 0; i < 4; ++i) {
      out->a[lane][i] = eight_codes(&m->a[g + 8 * (i % 2)][32 * (i / 2) + 8 * p]);
    }
    for (int i = 0; i < 2; ++i) {
      out->b[lane][i] = eight_codes(&m->b[g][32 * i + 8 * p]);
    }
    out->scale_a[lane] = four_scales(m->scale_a[g + 8 * (p % 2)]);
    out->scale_b[lane] = four_scales(m->scale_b[g]);
  }
}

static double scale_value(sy_format format, uint8_t code) {
  return (double)(format == SY_FORMAT_MXFP4 ? sy_e8m0_to_f32(code) : sy_e4m3_to_f32(code));
}

static double product(const struct matrices *m, int row, int column) {
  double sum = 0.0;
  for (int k = 0; k < LENGTH; ++k) {
    sum += (double)sy_e2m1_to_f32(m->a[row][k]) * (double)sy_e2m1_to_f32(m->b[column][k]) *
           scale_value(m->format, m->scale_a[row][k / sy_scale_block(m->format)]) *
           scale_value(m->format, m->scale_b[column][k / sy_scale_block(m->format)]);
  }
  return sum;
}

static sy_status compare(const struct matrices *m, int number,
                         const struct sy_self_test_results *got, char *text_out,
                         size_t text_bytes) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2);
      const int column = 2 * (lane % 4) + i % 2;
      const double expected = product(m, row, column);
      if (!((double)got->d[lane][i] == expected)) {
        snprintf(text_out, text_bytes,
                 "case %d of its table, row %d, column %d: %.9g instead of %.9g", number, row,
                 column, (double)got->d[lane][i], expected);
        return SY_ERR_UNSUPPORTED;
      }
    }
  }
  return SY_OK;
}

static sy_status run(struct sy_self_test_operands *on_device, struct sy_self_test_results *results,
                     struct sy_self_test_results *got) {
  const struct sy_device *device = sy_device_cuda();
  struct sy_self_test_operands operands[SY_SELF_TEST_CASES];
  for (int i = 0; i < SY_SELF_TEST_CASES; ++i) {
    const struct matrices m = make_matrices(i);
    deal(&m, &operands[i]);
  }
  sy_status status = device->upload(on_device, operands, sizeof operands);
  if (status == SY_OK) {
    status = sy_cuda_multiply_self_test(on_device, results);
  }
  return status == SY_OK ? device->download(got, results, SY_SELF_TEST_CASES * sizeof *got)
                         : status;
}

sy_status sy_cuda_self_test(char *text_out, size_t text_bytes) {
  const struct sy_device *device = sy_device_cuda();
  struct sy_self_test_results got[SY_SELF_TEST_CASES];
  void *operands = device->alloc(SY_SELF_TEST_CASES * sizeof(struct sy_self_test_operands));
  void *results = device->alloc(sizeof got);
  sy_status status =
      operands == NULL || results == NULL ? SY_ERR_MEMORY : run(operands, results, got);
  device->free(operands);
  device->free(results);
  if (status != SY_OK) {
    snprintf(text_out, text_bytes, "%s", device->error_text());
  }
  for (int i = 0; i < SY_SELF_TEST_CASES && status == SY_OK; ++i) {
    const struct matrices m = make_matrices(i);
    status = compare(&m, i, &got[i], text_out, text_bytes);
  }
  return status;
}
