/* AddressSanitizer, where the build has it: marks memory that nobody may touch, and follows the
 * switches between stacks. Without it these are empty. */
#ifndef SY_TESTS_SIMT_SANITIZER_HPP
#define SY_TESTS_SIMT_SANITIZER_HPP

#include <cstddef>
#include <string>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#ifndef SIMT_ASAN
#define SIMT_ASAN 0
#endif

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

/* A stack, as a switch to it or away from it must name it. */
struct StackBounds {
  const void *bottom = nullptr;
  size_t bytes = 0;
};

#if SIMT_ASAN

constexpr bool has_asan = true;

inline void forbid(const void *p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void allow(const void *p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }

/* Before a switch to `to`; *fake_stack keeps what belongs to the stack that is left, nullptr when
 * that stack ends here. */
inline void before_switch(void **fake_stack, StackBounds to) {
  __sanitizer_start_switch_fiber(fake_stack, to.bottom, to.bytes);
}

/* First thing on the new stack; *from tells the stack that was left. */
inline void after_switch(void *fake_stack, StackBounds *from) {
  __sanitizer_finish_switch_fiber(fake_stack, from != nullptr ? &from->bottom : nullptr,
                                  from != nullptr ? &from->bytes : nullptr);
}

#else

constexpr bool has_asan = false;

inline void forbid(const void *, size_t) {}
inline void allow(const void *, size_t) {}
inline void before_switch(void **, StackBounds) {}
inline void after_switch(void *, StackBounds *) {}

#endif

/* Whether work that the host has not waited for writes to p; *name_out: which. Streams are put here. */
extern bool (*is_written_by_device)(const void *p, std::string *name_out);

/* Turns AddressSanitizer's findings inside kernels into violations. Done when the program starts;
 * the call makes sure that the part that does it is linked. */
void listen_to_sanitizer();

} // namespace simt

#endif
