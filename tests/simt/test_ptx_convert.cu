/* The conversions against kernels/fp4.h and plain arithmetic: every code, every boundary between
 * codes with its neighbours, and values of all magnitudes. */
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdio>

#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test.hpp"

namespace {

enum { THREADS = 256 };

struct Codes {
  uint32_t e2m1x2, ue4m3x2, ue8m0x2;
};

SY_KERNEL void encode(const float *values, size_t count, Codes *codes) {
  const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i < count / 2) {
    const float low = values[2 * i];
    const float high = values[2 * i + 1];
    codes[i].e2m1x2 = sy_e2m1x2_from_f32(low, high);
    codes[i].ue4m3x2 = sy_ue4m3x2_from_f32(fabsf(low), fabsf(high));
    codes[i].ue8m0x2 = sy_ue8m0x2_from_f32(fabsf(low), fabsf(high));
  }
}

/* All pairs of bytes, and the byte as a pair of codes. */
SY_KERNEL void decode(float2 *e2m1x2, float2 *ue4m3x2, float2 *ue8m0x2) {
  const uint32_t low = threadIdx.x;
  const uint32_t high = blockIdx.x;
  const size_t i = 256 * high + low;
  e2m1x2[i] = sy_f32x2_from_e2m1x2(low);
  ue4m3x2[i] = sy_f32x2_from_ue4m3x2(low | high << 8);
  ue8m0x2[i] = sy_f32x2_from_ue8m0x2(low | high << 8);
}

/* x and what is next to it on both sides, with both signs. */
void add_neighbours(float x, std::vector<float> &values) {
  for (const float y : {std::nextafterf(x, 0.0f), x, std::nextafterf(x, HUGE_VALF)}) {
    values.push_back(y);
    values.push_back(-y);
  }
}

std::vector<float> interesting_values() {
  std::vector<float> values;
  for (unsigned code = 0; code < 7; ++code) {
    add_neighbours(0.5f * (sy_e2m1_to_f32(code) + sy_e2m1_to_f32(code + 1)), values);
    add_neighbours(sy_e2m1_to_f32(code + 1), values);
  }
  for (unsigned code = 0; code < 0x7E; ++code) {
    const float x = sy_e4m3_to_f32(static_cast<uint8_t>(code));
    const float next = sy_e4m3_to_f32(static_cast<uint8_t>(code + 1));
    add_neighbours(0.5f * (x + next), values);
    add_neighbours(next, values);
  }
  for (int exponent = -140; exponent < 128; ++exponent) {
    add_neighbours(std::ldexp(1.0f, exponent), values);
  }
  values.push_back(FLT_MAX);
  values.push_back(-FLT_MAX);
  add_neighbours(460.0f, values);
  add_neighbours(464.0f, values); /* halfway to the code that does not exist */
  while (values.size() < 40000) {
    const float x = static_cast<float>(sy_test_random_unit() + 0.5);
    values.push_back(std::ldexp(x, static_cast<int>(sy_test_random_between(-126, 126))));
    values.push_back(-std::ldexp(x, static_cast<int>(sy_test_random_between(-12, 10))));
  }
  return values;
}

/* By definition: the smallest power of two that is not below x. */
uint32_t plain_ue8m0(float x) {
  uint32_t code = 0;
  while (code < 254 && std::ldexp(1.0, static_cast<int>(code) - 127) < static_cast<double>(x)) {
    ++code;
  }
  return code;
}

/* By definition: the code of the nearest value, of two equally near ones the even one. */
uint32_t nearest(double x, uint32_t num_codes, double (*value)(uint32_t)) {
  x = std::min(x, value(num_codes - 1)); /* or differences would be rounded away */
  uint32_t best = 0;
  for (uint32_t code = 1; code < num_codes; ++code) {
    const double distance = std::fabs(x - value(code));
    const double least = std::fabs(x - value(best));
    if (distance < least || (distance == least && code % 2 == 0)) {
      best = code;
    }
  }
  return best;
}

bool same(float found, double expected) {
  return std::isnan(expected) ? std::isnan(found) : static_cast<double>(found) == expected;
}

} // namespace

TEST(values_become_the_nearest_codes) {
  const std::vector<float> values = interesting_values();
  test::DeviceArray<float> in(values);
  test::DeviceArray<Codes> out(values.size() / 2);
  const unsigned blocks = static_cast<unsigned>((values.size() / 2 + THREADS - 1) / THREADS);
  CHECK_RUNS(SY_LAUNCH(encode, blocks, THREADS, 0, nullptr, in.data(), values.size(), out.data()));
  const std::vector<Codes> codes = out.host();
  const auto e2m1 = [](uint32_t c) { return static_cast<double>(sy_e2m1_to_f32(c)); };
  const auto e4m3 = [](uint32_t c) {
    return static_cast<double>(sy_e4m3_to_f32(static_cast<uint8_t>(c)));
  };
  for (size_t i = 0; i < values.size(); ++i) {
    const Codes &pair = codes[i / 2];
    const bool is_high = i % 2 == 1;
    const float magnitude = std::fabs(values[i]);
    const uint32_t sign = std::signbit(values[i]) ? 8u : 0u;
    const double m = static_cast<double>(magnitude);
    const bool held =
        CHECK_EQ_U64(pair.e2m1x2 >> (is_high ? 4 : 0) & 15u, nearest(m, 8, e2m1) | sign) &&
        CHECK_EQ_U64(pair.ue4m3x2 >> (is_high ? 8 : 0) & 0xFFu, nearest(m, 0x7F, e4m3)) &&
        (magnitude == 0.0f ||
         CHECK_EQ_U64(pair.ue8m0x2 >> (is_high ? 8 : 0) & 0xFFu, plain_ue8m0(magnitude)));
    if (!held || !CHECK_EQ_U64(pair.e2m1x2 >> 8 | pair.ue4m3x2 >> 16 | pair.ue8m0x2 >> 16, 0)) {
      fprintf(stderr, "value %zu is %a\n", i, static_cast<double>(values[i]));
      return;
    }
  }
}

TEST(codes_become_their_values) {
  test::DeviceArray<float2> e2m1x2(65536);
  test::DeviceArray<float2> ue4m3x2(65536);
  test::DeviceArray<float2> ue8m0x2(65536);
  CHECK_RUNS(
      SY_LAUNCH(decode, 256, 256, 0, nullptr, e2m1x2.data(), ue4m3x2.data(), ue8m0x2.data()));
  const std::vector<float2> e2m1 = e2m1x2.host();
  const std::vector<float2> ue4m3 = ue4m3x2.host();
  const std::vector<float2> ue8m0 = ue8m0x2.host();
  static const double doubled[] = {0, 1, 2, 3, 4, 6, 8, 12};
  const auto e2m1_value = [](size_t c) { return (c < 8 ? 0.5 : -0.5) * doubled[c % 8]; };
  const auto ue4m3_value = [](size_t c) {
    const int exponent = static_cast<int>(c / 8 % 16);
    const double mantissa = static_cast<double>(c % 8) / 8.0;
    return c % 128 == 127 ? std::nan("")
                          : std::ldexp(exponent == 0 ? mantissa : 1.0 + mantissa,
                                       (exponent == 0 ? 1 : exponent) - 7);
  };
  const auto ue8m0_value = [](size_t c) {
    return c == 255 ? std::nan("") : std::ldexp(1.0, static_cast<int>(c) - 127);
  };
  for (size_t i = 0; i < 65536; ++i) {
    const size_t low = i % 256;
    const size_t high = i / 256;
    const bool held =
        CHECK(same(e2m1[i].x, e2m1_value(low % 16))) &&
        CHECK(same(e2m1[i].y, e2m1_value(low / 16))) && CHECK(same(ue4m3[i].x, ue4m3_value(low))) &&
        CHECK(same(ue4m3[i].y, ue4m3_value(high))) && CHECK(same(ue8m0[i].x, ue8m0_value(low))) &&
        CHECK(same(ue8m0[i].y, ue8m0_value(high)));
    if (!held) {
      fprintf(stderr, "bytes 0x%02zx, 0x%02zx\n", low, high);
      return;
    }
  }
}
