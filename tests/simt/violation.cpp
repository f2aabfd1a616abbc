#include "tests/simt/violation.hpp"

#include <cstdarg>
#include <cstdio>

#include "tests/simt/launch.hpp"

namespace simt {

namespace {

std::string coordinates(uint3 at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) +
         ")";
}

} // namespace

const char *name_of(Kind kind) {
  switch (kind) {
  case Kind::limit:
    return "beyond the device's limits";
  case Kind::divergence:
    return "divergence";
  case Kind::mask:
    return "mismatched masks";
  case Kind::out_of_bounds:
    return "out of bounds";
  case Kind::misaligned:
    return "misaligned";
  case Kind::early_use:
    return "used before it was waited for";
  case Kind::unwaited:
    return "not waited for";
  case Kind::poison:
    return "never written";
  case Kind::barrier:
    return "misuse of a barrier";
  case Kind::deadlock:
    return "deadlock";
  case Kind::trap:
    return "trap";
  case Kind::capture:
    return "not allowed during capture";
  case Kind::in_use:
    return "in use";
  case Kind::destroyed:
    return "use of what was destroyed";
  case Kind::host_access:
    return "device memory touched by the host";
  case Kind::communication:
    return "misuse of a communicator";
  }
  return "?";
}

std::string Violation::text() const {
  if (kernel.empty()) {
    return std::string(name_of(kind)) + ": " + what + " [host code, seed " + std::to_string(seed) +
           "]";
  }
  return std::string(name_of(kind)) + " at " + site + ": " + what + " [kernel " + kernel +
         ", block " + coordinates(block) + ", thread " + coordinates(thread) + ", seed " +
         std::to_string(seed) + ", launch " + std::to_string(launch) + "]";
}

void fail_host(Kind kind, const char *format, ...) {
  char what[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  keep_violation({kind, "", {0, 0, 0}, {0, 0, 0}, "?", current_seed(), 0, what});
}

void fail(Kind kind, Site site, const char *format, ...) {
  char what[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  note_violation(kind, this_thread, std::string(site.file) + ":" + std::to_string(site.line), what);
  for (;;) {
    Fibre::suspend();
  }
}

} // namespace simt
