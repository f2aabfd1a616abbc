#include "tests/simt/tensor_core.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/simt/machine.hpp"
#include "tests/simt/warp.hpp"

namespace simt {

namespace {

constexpr int ROWS = 16;
constexpr int COLUMNS = 8;
constexpr int FP4_K = 64;
constexpr int FP4_BLOCK = 16; /* products that are added exactly */
constexpr int BF16_K = 16;
constexpr int FP4_FRACTION_BITS = 35;
constexpr int BF16_FRACTION_BITS = 25;

float nan() {
  const uint32_t bits = 0x7FFFFFFFu;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/* ---- Sums ---- */

/* value = significand * 2^(exponent - fraction_bits); it is aligned by `exponent`. */
struct Term {
  int64_t significand;
  int exponent;
  int fraction_bits;
};

/* |exponent| < 1000. Much faster than ldexp. */
double power_of_two(int exponent) {
  const uint64_t bits = static_cast<uint64_t>(1023 + exponent) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/* Toward zero; beyond f32's range infinite. */
float round_toward_zero(int64_t significand, int exponent) {
  if (significand == 0) {
    return 0.0f;
  }
  uint64_t magnitude = static_cast<uint64_t>(significand < 0 ? -significand : significand);
  const int top = 63 - __builtin_clzll(magnitude) + exponent;
  const int last = std::max(top - 23, -149);
  if (last > exponent) {
    magnitude = last - exponent < 64 ? magnitude >> (last - exponent) : 0;
    exponent = last;
  }
  const double x = static_cast<double>(magnitude) * power_of_two(exponent);
  return static_cast<float>(significand < 0 ? -x : x);
}

/* At most 17 terms of less than 2^(fraction_bits + 20) units each: no overflow. */
float add_aligned(const Term *terms, int num_terms, int fraction_bits) {
  bool is_zero = true;
  int largest = 0;
  for (int i = 0; i < num_terms; ++i) {
    if (terms[i].significand != 0) {
      largest = is_zero ? terms[i].exponent : std::max(largest, terms[i].exponent);
      is_zero = false;
    }
  }
  int64_t sum = 0;
  for (int i = 0; i < num_terms; ++i) {
    const int shift = fraction_bits - terms[i].fraction_bits + terms[i].exponent - largest;
    const int64_t s = terms[i].significand;
    if (s == 0 || shift <= -63) {
      continue;
    }
    sum += shift >= 0 ? s * (int64_t{1} << shift)
           : s < 0    ? -(-s >> -shift)
                      : s >> -shift; /* toward zero */
  }
  return round_toward_zero(sum, largest - fraction_bits);
}

/* A finite float of `mantissa_bits`, whose bits are sign, exponent (bias 127), mantissa. */
Term split(uint32_t bits, int mantissa_bits) {
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1u);
  const int exponent = static_cast<int>(bits >> mantissa_bits & 0xFFu);
  const int64_t magnitude = exponent == 0 ? mantissa : mantissa | 1u << mantissa_bits;
  const bool is_negative = (bits >> (mantissa_bits + 8) & 1u) != 0;
  return {is_negative ? -magnitude : magnitude, std::max(exponent, 1) - 127, mantissa_bits};
}

Term split_f32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return split(bits, 23);
}

/* ---- Fragments ---- */

struct Operands {
  float *d;
  const uint32_t *a;
  const uint32_t *b;
  uint32_t scale_a;
  uint32_t scale_b;
  ScaleSelector selector;
  Site site;
};

const Operands &lane(void *const *slots, int l) { return *static_cast<const Operands *>(slots[l]); }

/* Where D's element is. */
float &element(void *const *slots, int row, int column) {
  return lane(slots, 4 * (row % 8) + column / 2).d[2 * (row / 8) + column % 2];
}

/* Registers of A and B as bytes in the order of k: 32 of FP4 or of BF16. */
void gather_bytes(void *const *slots, uint8_t (&a)[ROWS][32], uint8_t (&b)[COLUMNS][32]) {
  for (int l = 0; l < static_cast<int>(WARP); ++l) {
    const int g = l / 4;
    const int p = l % 4;
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 4; ++i) {
        a[g + 8 * (i % 2)][16 * (i / 2) + 4 * p + j] =
            static_cast<uint8_t>(lane(slots, l).a[i] >> (8 * j));
      }
      for (int i = 0; i < 2; ++i) {
        b[g][16 * i + 4 * p + j] = static_cast<uint8_t>(lane(slots, l).b[i] >> (8 * j));
      }
    }
  }
}

/* ---- FP4 ---- */

struct Scale {
  int64_t significand; /* in eighths */
  int exponent;
  bool is_nan;
};

Scale scale_of_ue4m3(uint32_t byte) {
  const int exponent = static_cast<int>(byte >> 3 & 15u);
  const int64_t mantissa = byte & 7u;
  return {exponent == 0 ? mantissa : mantissa + 8, std::max(exponent, 1) - 7,
          (byte & 0x7Fu) == 0x7Fu};
}

Scale scale_of_ue8m0(uint32_t byte) { return {8, static_cast<int>(byte) - 127, byte == 0xFFu}; }

void decode_e2m1(const uint8_t *bytes, int16_t *doubled) {
  static constexpr int16_t values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  for (int i = 0; i < FP4_K / 2; ++i) {
    doubled[2 * i] = values[bytes[i] & 15];
    doubled[2 * i + 1] = values[bytes[i] >> 4];
  }
}

/* Scales of one row or column for each of its four blocks of 16. A byte of ones is NaN: of UE4M3 one
 * that nothing here makes, so it was never written; of UE8M0 the one that is made on purpose, so that
 * only a whole word of them counts as never written. */
template <Scale (*Decode)(uint32_t), int SCALES>
void decode_scales(uint32_t word, uint32_t first_byte, Scale (&scales)[4], Site site) {
  for (uint32_t block = 0; block < 4; ++block) {
    const uint32_t byte = word >> (8 * (first_byte + block * SCALES / 4)) & 0xFFu;
    if (byte == POISON && (SCALES == 4 || word == 0xFFFFFFFFu) && config().report_poison) {
      fail(Kind::poison, site, "a scale byte of 0x%02x, which memory holds that was never written",
           byte);
    }
    scales[block] = Decode(byte);
  }
}

float dot_fp4(const int16_t *a, const int16_t *b, const Scale (&scale_a)[4],
              const Scale (&scale_b)[4], float addend) {
  Term terms[5];
  for (int block = 0; block < 4; ++block) {
    int32_t dot = 0; /* of doubled codes: in quarters */
    for (int k = FP4_BLOCK * block; k < FP4_BLOCK * (block + 1); ++k) {
      dot += a[k] * b[k];
    }
    const Scale &sa = scale_a[block];
    const Scale &sb = scale_b[block];
    if (sa.is_nan || sb.is_nan) {
      return nan();
    }
    terms[block] = {dot * sa.significand * sb.significand, sa.exponent + sb.exponent, 2 + 3 + 3};
  }
  if (!std::isfinite(addend)) {
    return std::isnan(addend) ? nan() : addend;
  }
  terms[4] = split_f32(addend);
  return add_aligned(terms, 5, FP4_FRACTION_BITS);
}

template <Scale (*Decode)(uint32_t), int SCALES> void multiply_fp4(void *const *slots, uint32_t) {
  uint8_t a_bytes[ROWS][32];
  uint8_t b_bytes[COLUMNS][32];
  int16_t a[ROWS][FP4_K];
  int16_t b[COLUMNS][FP4_K];
  Scale scale_a[ROWS][4];
  Scale scale_b[COLUMNS][4];
  gather_bytes(slots, a_bytes, b_bytes);
  const ScaleSelector s = lane(slots, 0).selector;
  const Site site = lane(slots, 0).site;
  for (int row = 0; row < ROWS; ++row) {
    const int provider = 4 * (row % 8) + 2 * static_cast<int>(s.thread_a) + row / 8;
    decode_e2m1(a_bytes[row], a[row]);
    decode_scales<Decode, SCALES>(lane(slots, provider).scale_a, s.byte_a, scale_a[row], site);
  }
  for (int column = 0; column < COLUMNS; ++column) {
    const int provider = 4 * column + static_cast<int>(s.thread_b);
    decode_e2m1(b_bytes[column], b[column]);
    decode_scales<Decode, SCALES>(lane(slots, provider).scale_b, s.byte_b, scale_b[column], site);
  }
  for (int row = 0; row < ROWS; ++row) {
    for (int column = 0; column < COLUMNS; ++column) {
      float &d = element(slots, row, column);
      d = dot_fp4(a[row], b[column], scale_a[row], scale_b[column], d);
    }
  }
}

/* ---- BF16 ---- */

/* 16 elements of a row or column. */
struct Bf16Vector {
  Term terms[BF16_K];
  bool is_finite = true;
};

double value_of(const Term &x) {
  return static_cast<double>(x.significand) * power_of_two(x.exponent - x.fraction_bits);
}

Bf16Vector decode_bf16(const uint8_t *bytes) {
  Bf16Vector v;
  for (int k = 0; k < BF16_K; ++k) {
    const uint32_t bits = bytes[2 * k] | static_cast<uint32_t>(bytes[2 * k + 1]) << 8;
    v.terms[k] = split(bits, 7);
    v.is_finite = v.is_finite && (bits & 0x7F80u) != 0x7F80u;
  }
  return v;
}

/* Infinity or NaN, as plain arithmetic has it. */
float dot_not_finite(const Bf16Vector &a, const Bf16Vector &b, float addend) {
  const auto value = [](const Term &x) {
    const bool is_finite = x.exponent < 128;
    return is_finite               ? value_of(x)
           : x.significand == 128  ? HUGE_VAL
           : x.significand == -128 ? -HUGE_VAL
                                   : std::nan("");
  };
  double sum = static_cast<double>(addend);
  for (int k = 0; k < BF16_K; ++k) {
    sum += value(a.terms[k]) * value(b.terms[k]);
  }
  return std::isnan(sum) ? nan() : static_cast<float>(sum);
}

float dot_bf16(const Bf16Vector &a, const Bf16Vector &b, float addend) {
  if (!a.is_finite || !b.is_finite || !std::isfinite(addend)) {
    return dot_not_finite(a, b, addend);
  }
  Term terms[BF16_K + 1];
  for (int k = 0; k < BF16_K; ++k) {
    terms[k] = {a.terms[k].significand * b.terms[k].significand,
                a.terms[k].exponent + b.terms[k].exponent, 7 + 7};
  }
  terms[BF16_K] = split_f32(addend);
  return add_aligned(terms, BF16_K + 1, BF16_FRACTION_BITS);
}

void multiply_bf16(void *const *slots, uint32_t) {
  uint8_t a_bytes[ROWS][32];
  uint8_t b_bytes[COLUMNS][32];
  Bf16Vector b[COLUMNS];
  gather_bytes(slots, a_bytes, b_bytes);
  for (int column = 0; column < COLUMNS; ++column) {
    b[column] = decode_bf16(b_bytes[column]);
  }
  for (int row = 0; row < ROWS; ++row) {
    const Bf16Vector a = decode_bf16(a_bytes[row]);
    for (int column = 0; column < COLUMNS; ++column) {
      float &d = element(slots, row, column);
      d = dot_bf16(a, b[column], d);
    }
  }
}

/* Two BF16 of nothing but ones: a NaN that no arithmetic makes. */
void check_poison(const uint32_t *registers, int count, const char *name, Site site) {
  for (int i = 0; i < count && config().report_poison; ++i) {
    if (registers[i] == 0xFFFFFFFFu) {
      fail(Kind::poison, site,
           "register %d of %s is 0xFFFFFFFF, as memory is that was never written", i, name);
    }
  }
}

} // namespace

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  check_poison(a, 4, "A", site);
  check_poison(b, 2, "B", site);
  Operands mine = {d, a, b, 0, 0, {}, site};
  meet(ALL_LANES, "mma_bf16", true, site, &mine, multiply_bf16);
}

bool swaps_scales = false;

void mma_nvfp4(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], uint32_t scale_a,
               uint32_t scale_b, ScaleSelector selector, Site site) {
  if (swaps_scales) {
    scale_b = scale_b << 16 | scale_b >> 16;
  }
  Operands mine = {d, a, b, scale_a, scale_b, selector, site};
  meet(ALL_LANES, "mma_nvfp4", true, site, &mine, multiply_fp4<scale_of_ue4m3, 4>);
}

void mma_mxfp4(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], uint32_t scale_a,
               uint32_t scale_b, ScaleSelector selector, Site site) {
  Operands mine = {d, a, b, scale_a, scale_b, selector, site};
  meet(ALL_LANES, "mma_mxfp4", true, site, &mine, multiply_fp4<scale_of_ue8m0, 2>);
}

namespace {

struct RowRequest {
  const char *row;
  uint32_t *r;
  uint32_t num_matrices;
};

} // namespace

void ldmatrix(uint32_t *r, uint32_t num_matrices, const void *row, Site site) {
  if (this_thread->lane() < 8 * num_matrices) {
    check_shared(row, 16, 16, "ldmatrix", site);
  }
  RowRequest mine = {static_cast<const char *>(row), r, num_matrices};
  meet(ALL_LANES, "ldmatrix", true, site, &mine, [](void *const *slots, uint32_t) {
    const auto request = [slots](uint32_t l) { return static_cast<RowRequest *>(slots[l]); };
    for (uint32_t l = 0; l < WARP; ++l) {
      for (uint32_t i = 0; i < request(l)->num_matrices; ++i) {
        std::memcpy(&request(l)->r[i], request(8 * i + l / 4)->row + 4 * (l % 4), 4);
      }
    }
  });
}

} // namespace simt
