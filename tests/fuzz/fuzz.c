#define _GNU_SOURCE /* memfd_create */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/status.h"

void fuzz_broken(const char *file, int line, const char *condition) {
  fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
  abort();
}

void fuzz_check_sentence(const char *sentence) {
  const size_t bytes = strlen(sentence);
  FUZZ_CHECK(bytes > 0 && bytes < SY_ERROR_TEXT_BYTES);
  for (size_t i = 0; i < bytes; ++i) {
    const unsigned char c = (unsigned char)sentence[i];
    FUZZ_CHECK(c >= 0x20 && c != 0x7F);
    FUZZ_CHECK(c != 0xC2 || (unsigned char)sentence[i + 1] >= 0xA0); /* C1 controls in UTF-8 */
  }
}

const char *fuzz_file(const void *bytes, size_t num_bytes, size_t zero_bytes) {
  static int fd = -1;
  static char path[64];
  if (fd < 0) {
    fd = memfd_create("fuzz", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  }
  FUZZ_CHECK(fd >= 0 && ftruncate(fd, 0) == 0);
  FUZZ_CHECK(num_bytes == 0 || pwrite(fd, bytes, num_bytes, 0) == (ssize_t)num_bytes);
  FUZZ_CHECK(ftruncate(fd, (off_t)(num_bytes + zero_bytes)) == 0);
  return path;
}
