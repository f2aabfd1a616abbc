/* What lanes of a warp do together. All lanes named by a mask come; the last one computes for all.
 *
 * A lane that left the kernel is no longer waited for, except by aligned instructions (the matrix
 * instructions), which want the whole warp. */
#ifndef SY_TESTS_SIMT_WARP_HPP
#define SY_TESTS_SIMT_WARP_HPP

#include <cstdint>
#include <cstring>

#include "tests/simt/machine.hpp"

namespace simt {

constexpr uint32_t ALL_LANES = 0xFFFFFFFFu;

/* slots[lane] is what each lane of `present` passed as `slot`. */
using Finish = void (*)(void *const *slots, uint32_t present);

/* Returns when all lanes of the mask have come and `finish` has run. */
void meet(uint32_t mask, const char *name, bool is_aligned, Site site, void *slot, Finish finish);

/* The running thread leaves the kernel. */
void leave_warp();

template <class T> struct Shuffle {
  T value;
  uint32_t source; /* lane */
  T result;
};

/* A source that does not take part gives poison. */
template <class T> T shuffle(uint32_t mask, T value, uint32_t source, const char *name, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "lanes exchange 32 or 64 bits");
  Shuffle<T> mine = {value, source, {}};
  meet(mask, name, false, site, &mine, [](void *const *slots, uint32_t present) {
    for (uint32_t lane = 0; lane < WARP; ++lane) {
      if ((present >> lane & 1u) != 0) {
        auto *to = static_cast<Shuffle<T> *>(slots[lane]);
        if ((present >> to->source & 1u) != 0) {
          to->result = static_cast<Shuffle<T> *>(slots[to->source])->value;
        } else {
          std::memset(&to->result, POISON, sizeof to->result);
        }
      }
    }
  });
  return mine.result;
}

/* The lanes whose predicate held. */
uint32_t ballot(uint32_t mask, bool predicate, const char *name, Site site);

/* All lanes that take part get combine(... combine(v0, v1) ..., vn). */
template <class T, T (*Combine)(T, T)>
T reduce(uint32_t mask, T value, const char *name, Site site) {
  T mine = value;
  meet(mask, name, false, site, &mine, [](void *const *slots, uint32_t present) {
    bool has_sum = false;
    T sum{};
    for (uint32_t lane = 0; lane < WARP; ++lane) {
      if ((present >> lane & 1u) != 0) {
        const T next = *static_cast<T *>(slots[lane]);
        sum = has_sum ? Combine(sum, next) : next;
        has_sum = true;
      }
    }
    for (uint32_t lane = 0; lane < WARP; ++lane) {
      if ((present >> lane & 1u) != 0) {
        *static_cast<T *>(slots[lane]) = sum;
      }
    }
  });
  return mine;
}

} // namespace simt

#endif
