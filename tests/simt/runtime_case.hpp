/* What tests of host code on the stand-in for CUDA's runtime share. */
#ifndef SY_TESTS_SIMT_RUNTIME_CASE_HPP
#define SY_TESTS_SIMT_RUNTIME_CASE_HPP

#include <cstdint>
#include <functional>
#include <string>

#include <cuda_runtime.h>

#include "tests/simt/host.h"
#include "tests/simt/sanitizer.hpp"
#include "tests/simt/test.hpp"

#define CHECK_CUDA(call) CHECK_EQ_STR(cudaGetErrorName(call), "cudaSuccess")
#define CHECK_CUDA_IS(call, error) CHECK_EQ_STR(cudaGetErrorName(call), #error)

namespace test {

constexpr size_t COUNT = 1000; /* elements of each array here */
constexpr size_t BYTES = COUNT * sizeof(uint32_t);
constexpr unsigned NUM_SEEDS = 24;

/* Two arrays of each kind of memory and two streams; gives them back. */
struct Machine {
  uint32_t *device[2] = {};
  uint32_t *pinned[2] = {};
  cudaStream_t stream[2] = {};
  cudaEvent_t event = nullptr;

  Machine() {
    for (int i = 0; i < 2; ++i) {
      CHECK_CUDA(cudaMalloc(reinterpret_cast<void **>(&device[i]), BYTES));
      CHECK_CUDA(cudaMallocHost(reinterpret_cast<void **>(&pinned[i]), BYTES));
      CHECK_CUDA(cudaStreamCreateWithFlags(&stream[i], cudaStreamNonBlocking));
    }
    CHECK_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    for (size_t i = 0; i < COUNT; ++i) {
      pinned[0][i] = static_cast<uint32_t>(3 * i);
      pinned[1][i] = 0;
    }
  }

  ~Machine() {
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaEventDestroy(event));
    for (int i = 0; i < 2; ++i) {
      CHECK_CUDA(cudaStreamDestroy(stream[i]));
      CHECK_CUDA(cudaFreeHost(pinned[i]));
      CHECK_CUDA(cudaFree(device[i]));
    }
  }

  /* pinned[0] -> device[0] on a stream. */
  void upload(int s) {
    CHECK_CUDA(cudaMemcpyAsync(device[0], pinned[0], BYTES, cudaMemcpyDefault, stream[s]));
  }

  /* device[i] -> pinned[1] on a stream. */
  void download(int i, int s) {
    CHECK_CUDA(cudaMemcpyAsync(pinned[1], device[i], BYTES, cudaMemcpyDefault, stream[s]));
  }

  /* Elements of pinned[1] that are not factor * i + add. */
  size_t num_wrong(uint32_t factor, uint32_t add) const {
    size_t count = 0;
    for (size_t i = 0; i < COUNT; ++i) {
      count += pinned[1][i] != factor * static_cast<uint32_t>(i) + add;
    }
    return count;
  }
};

/* In how many of so many seeds `is_wrong` says so. */
inline unsigned count_seeds(const std::function<bool()> &is_wrong) {
  unsigned count = 0;
  for (unsigned i = 0; i < NUM_SEEDS; ++i) {
    simt_reseed(sy_test_random());
    count += is_wrong() ? 1u : 0u;
  }
  return count;
}

/* The violation's text has this in it; none when part is empty. */
inline bool check_violation(const char *part) {
  const char *text = simt_take_violation();
  return part[0] == '\0' ? CHECK_EQ_STR(text != nullptr ? text : "", "")
                         : CHECK_STR_HAS(text != nullptr ? text : "no violation", part);
}

} // namespace test

#endif
