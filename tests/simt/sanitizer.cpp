#include "tests/simt/sanitizer.hpp"

#include <string>

#if SIMT_ASAN

#include <unistd.h>

#include <cstring>

#include "tests/simt/copies.hpp"
#include "tests/simt/machine.hpp"

/* A finding in a kernel must not end the program: the test looks at the violation. Outside of a
 * kernel on_report ends it. Every finding counts, also a second one at the same place. */
extern "C" const char *__asan_default_options() {
  return "halt_on_error=0:suppress_equal_pcs=0:detect_stack_use_after_return=0";
}

namespace simt {

bool (*is_written_by_device)(const void *, std::string *) = [](const void *, std::string *) {
  return false;
};

namespace {

/* The innermost place in a kernel source, as file:line. The report's stack has it as
 * "#1 0x... in kernel(int*) /path/file.cu:12", with some compilers ":34" behind it. */
std::string innermost_kernel_line(const char *report) {
  const char *extension = std::strstr(report, ".cu");
  if (extension == nullptr) {
    return "?";
  }
  const char *begin = extension;
  while (begin > report && begin[-1] != ' ') {
    --begin;
  }
  const char *line = extension + std::strcspn(extension, ": \n") + 1;
  return std::string(begin, line + std::strspn(line, "0123456789"));
}

/* The report's "READ of size 4" or "WRITE of size 4". */
std::string access(const char *report) {
  const char *at = std::strstr(report, "\nREAD of size");
  at = at != nullptr ? at : std::strstr(report, "\nWRITE of size");
  if (at == nullptr) {
    return "access";
  }
  const std::string line(at + 1, std::strcspn(at + 1, "\n"));
  return line.substr(0, line.find(" at "));
}

/* Host code touched what is not its own, or not yet; anything else ends the program. */
void on_host_report(const void *address, const char *report) {
  std::string where;
  if (is_written_by_device(address, &where)) {
    fail_host(Kind::in_use, "%s by the host: %s, which it has not waited for, writes there",
              access(report).c_str(), where.c_str());
  } else if (locate_in_device_memory(address, &where)) {
    fail_host(Kind::host_access, "%s by the host: device memory, %s", access(report).c_str(),
              where.c_str());
  } else {
    _exit(1);
  }
}

void on_report(const char *report) {
  const void *address = __asan_get_report_address();
  if (this_thread == nullptr) {
    on_host_report(address, report);
    return;
  }
  std::string where;
  Kind kind = Kind::out_of_bounds;
  if (is_destination(*this_thread->block, address)) {
    kind = Kind::early_use;
    where = "shared memory that a copy is writing to";
  } else if (this_thread->block->shared.locate(address, &where)) {
    where = "shared memory, " + where;
  } else if (locate_in_device_memory(address, &where)) {
    where = "device memory, " + where;
  } else {
    where = "memory that is not the device's";
  }
  note_violation(kind, this_thread, innermost_kernel_line(report), access(report) + ": " + where);
}

} // namespace

__attribute__((constructor)) void listen_to_sanitizer() {
  __asan_set_error_report_callback(on_report);
}

} // namespace simt

#else

namespace simt {

bool (*is_written_by_device)(const void *, std::string *) = nullptr;

void listen_to_sanitizer() {}

} // namespace simt

#endif
