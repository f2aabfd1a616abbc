/* CUDA's own spelling of what kernels use, for the host's compiler. What is missing here a kernel
 * may not use: static __shared__ arrays, __activemask, float atomics. */
#ifndef SY_TESTS_SIMT_DEVICE_HPP
#define SY_TESTS_SIMT_DEVICE_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/simt/atomics.hpp"
#include "tests/simt/barrier.hpp"
#include "tests/simt/launch.hpp"
#include "tests/simt/warp.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (simt::this_thread->index)
#define blockIdx (simt::this_thread->block->index)
#define blockDim (simt::this_grid->launch->block)
#define gridDim (simt::this_grid->launch->grid)
#define warpSize 32

inline void __syncthreads(simt::Site site = simt::Site::here()) { simt::sync_threads(site); }

inline void __syncwarp(uint32_t mask = simt::ALL_LANES, simt::Site site = simt::Site::here()) {
  simt::meet(mask, "__syncwarp", false, site, nullptr, nullptr);
}

/* The emulator's threads see each other's writes at once: only real hardware can miss a fence. */
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

/* Lets others run. */
inline void __nanosleep(unsigned, simt::Site site = simt::Site::here()) {
  simt::poll("__nanosleep", site);
}

/* Steps of the schedule. */
inline long long clock64() { return static_cast<long long>(simt::this_grid->steps); }

[[noreturn]] inline void __trap(simt::Site site = simt::Site::here()) {
  simt::fail(simt::Kind::trap, site, "the kernel called __trap");
}

/* ---- Shuffles, votes, reductions ---- */

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
              simt::Site site = simt::Site::here()) {
  const uint32_t w = static_cast<uint32_t>(width);
  const uint32_t begin = simt::this_thread->lane() & ~(w - 1);
  return simt::shuffle(mask, value, begin + (static_cast<uint32_t>(source) & (w - 1)),
                       "__shfl_sync", site);
}

template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 simt::Site site = simt::Site::here()) {
  const uint32_t lane = simt::this_thread->lane();
  const uint32_t within = lane & (static_cast<uint32_t>(width) - 1);
  return simt::shuffle(mask, value, delta <= within ? lane - delta : lane, "__shfl_up_sync", site);
}

template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   simt::Site site = simt::Site::here()) {
  const uint32_t lane = simt::this_thread->lane();
  const uint32_t w = static_cast<uint32_t>(width);
  const bool is_inside = delta < w - (lane & (w - 1));
  return simt::shuffle(mask, value, is_inside ? lane + delta : lane, "__shfl_down_sync", site);
}

template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                  simt::Site site = simt::Site::here()) {
  const uint32_t lane = simt::this_thread->lane();
  const uint32_t source = lane ^ static_cast<uint32_t>(lane_mask);
  const bool is_inside = source <= (lane | (static_cast<uint32_t>(width) - 1));
  return simt::shuffle(mask, value, is_inside ? source : lane, "__shfl_xor_sync", site);
}

inline unsigned __ballot_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate != 0, "__ballot_sync", site);
}

inline int __any_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate != 0, "__any_sync", site) != 0;
}

inline int __all_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate == 0, "__all_sync", site) == 0;
}

namespace simt {

template <class T> T sum_of(T a, T b) { return static_cast<T>(a + b); }
template <class T> T larger_of(T a, T b) { return a < b ? b : a; }
template <class T> T smaller_of(T a, T b) { return b < a ? b : a; }

} // namespace simt

template <class T>
T __reduce_add_sync(uint32_t mask, T value, simt::Site site = simt::Site::here()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4, "reductions are of 32-bit integers");
  return simt::reduce<T, simt::sum_of<T>>(mask, value, "__reduce_add_sync", site);
}

template <class T>
T __reduce_max_sync(uint32_t mask, T value, simt::Site site = simt::Site::here()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4, "reductions are of 32-bit integers");
  return simt::reduce<T, simt::larger_of<T>>(mask, value, "__reduce_max_sync", site);
}

template <class T>
T __reduce_min_sync(uint32_t mask, T value, simt::Site site = simt::Site::here()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4, "reductions are of 32-bit integers");
  return simt::reduce<T, simt::smaller_of<T>>(mask, value, "__reduce_min_sync", site);
}

/* ---- Arithmetic ---- */

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class T> T __ldg(const T *p) { return *p; }

template <class T> constexpr T min(T a, T b) { return b < a ? b : a; }
template <class T> constexpr T max(T a, T b) { return a < b ? b : a; }

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#endif
