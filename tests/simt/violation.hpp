/* What a kernel, or host code that drives the GPU, did wrong. A kernel's first violation ends its
 * grid; simt::run returns it. */
#ifndef SY_TESTS_SIMT_VIOLATION_HPP
#define SY_TESTS_SIMT_VIOLATION_HPP

#include <cstdint>
#include <string>

#include <vector_types.h>

#include "tests/simt/site.hpp"

namespace simt {

enum class Kind {
  limit,         /* the launch asks for more than the device has */
  divergence,    /* threads that must meet are at different places, or one has left */
  mask,          /* lanes disagree about who takes part, or one takes part in what names others */
  out_of_bounds, /* an address outside of the memory it was meant for */
  misaligned,
  early_use, /* a copy's destination was used before the copy was waited for */
  unwaited,  /* a copy that nobody waited for */
  poison,    /* memory that was never written was used */
  barrier,   /* a named barrier or mbarrier used against its rules */
  deadlock,  /* nobody can go on */
  trap,
  /* What host code did wrong. */
  capture, /* a call that a stream being captured does not allow */
  in_use,  /* memory freed, or read or written by the host, before the work on it was waited for */
  destroyed,    /* a stream, an event, a graph or a communicator that is no more */
  host_access,  /* the host touched device memory */
  communication /* ranks whose calls do not match, or a call that NCCL forbids */
};

const char *name_of(Kind kind);

struct Violation {
  Kind kind;
  std::string kernel;
  uint3 block;
  uint3 thread;
  std::string site; /* file:line, where known */
  uint64_t seed;    /* simt::config().seed, and how many launches came after it was set: */
  uint64_t launch;  /* both replay the schedule */
  std::string what;

  std::string text() const;
};

/* A violation of host code. The first one is kept for take_violation(); one that nobody takes makes
 * the program fail. printf's format. */
void fail_host(Kind kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the grid in the name of the running thread, and does not return to it: its stack is left as
 * it is, so the caller must hold nothing that needs a destructor. printf's format. */
[[noreturn]] void fail(Kind kind, Site site, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

} // namespace simt

#endif
