/* What tests of device code share: the harness, arrays in device memory, and launches that must
 * succeed. The same tests run under the emulator and, built by nvcc, on a GPU. */
#ifndef SY_TESTS_SIMT_TEST_HPP
#define SY_TESTS_SIMT_TEST_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/cuda/compat.cuh"

extern "C" {
#include "tests/support/harness.h"
}

namespace test {

#if defined(SY_SIMT)

inline void *allocate(size_t bytes) { return simt::device_malloc(bytes); }
inline void release(void *p) { simt::device_free(p); }
inline void copy(void *to, const void *from, size_t bytes) { std::memcpy(to, from, bytes); }

/* Empty when the launch, and what it ran, succeeded. */
inline std::string outcome(cudaError_t error) {
  const auto violation = simt::take_violation();
  return violation ? violation->text() : error == cudaSuccess ? "" : "an error without a violation";
}

/* Another schedule for the launches that follow. */
inline void reseed() { simt::set_seed(sy_test_random()); }

#else

inline void *allocate(size_t bytes) {
  void *p = nullptr;
  if (cudaMalloc(&p, bytes) != cudaSuccess) {
    std::abort();
  }
  cudaMemset(p, 0xFF, bytes);
  return p;
}
inline void release(void *p) { cudaFree(p); }
inline void copy(void *to, const void *from, size_t bytes) {
  cudaMemcpy(to, from, bytes, cudaMemcpyDefault);
}

inline std::string outcome(cudaError_t error) {
  const cudaError_t later = cudaDeviceSynchronize();
  error = error == cudaSuccess ? later : error;
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

inline void reseed() {}

#endif

/* An array in device memory, poison at first. */
template <class T> class DeviceArray {
public:
  explicit DeviceArray(size_t count)
      : count_(count), data_(static_cast<T *>(allocate(count * sizeof(T)))) {}
  explicit DeviceArray(const std::vector<T> &values) : DeviceArray(values.size()) {
    static_assert(std::is_trivially_copyable_v<T>, "bytes travel");
    copy(data_, values.data(), count_ * sizeof(T));
  }
  ~DeviceArray() { release(data_); }
  DeviceArray(const DeviceArray &) = delete;
  DeviceArray &operator=(const DeviceArray &) = delete;

  T *data() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> values(count_);
    copy(values.data(), data_, count_ * sizeof(T));
    return values;
  }

private:
  size_t count_;
  T *data_;
};

} // namespace test

/* The kernel ran to its end. */
#define CHECK_RUNS(launch) CHECK_EQ_STR(test::outcome(launch).c_str(), "")

/* Two vectors of the same bytes. */
#define CHECK_EQ_VECTOR(a, b)              \
  (CHECK_EQ_U64((a).size(), (b).size()) && \
   CHECK_EQ_BYTES((a).data(), (b).data(), (a).size() * sizeof((a)[0])))

#endif
