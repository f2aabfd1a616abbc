/* Kernels that are wrong on purpose: what must be said of them. */
#ifndef SY_TESTS_SIMT_BROKEN_HPP
#define SY_TESTS_SIMT_BROKEN_HPP

#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test.hpp"

namespace test {

/* Under each of so many seeds. */
constexpr int NUM_SEEDS = 20;

/* `launch` ends in a violation of this kind, in this kernel, whose text has `part`. Returns it. */
template <class Launch>
simt::Violation check_caught(simt::Kind kind, const char *kernel, const char *part, Launch launch) {
  CHECK(launch() != cudaSuccess);
  const auto violation = simt::take_violation();
  if (!CHECK(violation.has_value())) {
    return {};
  }
  CHECK_EQ_STR(simt::name_of(violation->kind), simt::name_of(kind));
  CHECK_EQ_STR(violation->kernel.c_str(), kernel);
  CHECK_STR_HAS(violation->text().c_str(), part);
  return *violation;
}

/* The same under every seed. */
template <class Launch>
void check_always_caught(simt::Kind kind, const char *kernel, const char *part, Launch launch) {
  for (int i = 0; i < NUM_SEEDS; ++i) {
    reseed();
    check_caught(kind, kernel, part, launch);
  }
}

/* The violation is at this line of this file. */
inline void check_site(const simt::Violation &violation, const char *file, int line) {
  CHECK_EQ_STR(violation.site.c_str(), (std::string(file) + ":" + std::to_string(line)).c_str());
}

} // namespace test

#endif
