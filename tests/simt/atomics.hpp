/* CUDA's atomics on 32 and 64-bit integers. Each lets other threads run first. There are none on
 * floats: their order would decide the bits. */
#ifndef SY_TESTS_SIMT_ATOMICS_HPP
#define SY_TESTS_SIMT_ATOMICS_HPP

#include <cstdint>
#include <type_traits>

#include "tests/simt/machine.hpp"

namespace simt {

template <class T> struct Same { using type = T; };

/* The other operands convert to the pointer's type, as with CUDA's overloads. */
template <class T> using Operand = typename Same<T>::type;

template <class T, class Update> T atomic(T *p, const char *name, Site site, Update update) {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "atomics are for 32 and 64-bit integers");
  poll(name, site);
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T) != 0) {
    fail(Kind::misaligned, site, "%s: address %p is not a multiple of %zu", name,
         static_cast<void *>(p), sizeof(T));
  }
  const T before = *p;
  const T after = update(before);
  *p = after;
  if (after != before) {
    note_progress();
  }
  return before;
}

} // namespace simt

template <class T> T atomicAdd(T *p, simt::Operand<T> value, simt::Site site = simt::Site::here()) {
  using Bits = std::make_unsigned_t<T>;
  return simt::atomic(p, "atomicAdd", site, [value](T old) {
    return static_cast<T>(static_cast<Bits>(old) + static_cast<Bits>(value));
  });
}

template <class T> T atomicMax(T *p, simt::Operand<T> value, simt::Site site = simt::Site::here()) {
  return simt::atomic(p, "atomicMax", site, [value](T old) { return old < value ? value : old; });
}

template <class T> T atomicMin(T *p, simt::Operand<T> value, simt::Site site = simt::Site::here()) {
  return simt::atomic(p, "atomicMin", site, [value](T old) { return value < old ? value : old; });
}

template <class T> T atomicOr(T *p, simt::Operand<T> value, simt::Site site = simt::Site::here()) {
  return simt::atomic(p, "atomicOr", site, [value](T old) { return old | value; });
}

template <class T> T atomicAnd(T *p, simt::Operand<T> value, simt::Site site = simt::Site::here()) {
  return simt::atomic(p, "atomicAnd", site, [value](T old) { return old & value; });
}

template <class T>
T atomicExch(T *p, simt::Operand<T> value, simt::Site site = simt::Site::here()) {
  return simt::atomic(p, "atomicExch", site, [value](T) { return value; });
}

template <class T>
T atomicCAS(T *p, simt::Operand<T> expected, simt::Operand<T> value,
            simt::Site site = simt::Site::here()) {
  return simt::atomic(p, "atomicCAS", site,
                      [expected, value](T old) { return old == expected ? value : old; });
}

#endif
