#include "tests/support/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "runtime/switchyard_nccl.h"

enum { SKIPPED = 77 }; /* the harness's exit code */

/* Where there is no GPU the program ends, and says why. */
sy_status backend_group(const sy_group_desc *desc, sy_group **group_out) {
  int32_t count = 0;
  if (sy_gpu_count(&count) != SY_OK || count == 0) {
    fprintf(stderr, "skipped: no GPU: %s\n", sy_last_error(NULL));
    exit(SKIPPED);
  }
  return sy_group_create_gpu(desc, group_out);
}

static void check(sy_status status, const char *what, size_t bytes) {
  if (status != SY_OK) {
    fprintf(stderr, "%s of %zu bytes: %s\n", what, bytes, sy_device_cuda()->error_text());
    abort();
  }
}

void *backend_alloc(size_t bytes) {
  void *block = sy_device_cuda()->alloc(bytes);
  check(block == NULL ? SY_ERR_MEMORY : SY_OK, "allocation", bytes);
  return block;
}

void backend_free(void *block) { sy_device_cuda()->free(block); }

void backend_upload(void *to, const void *from, size_t bytes) {
  check(sy_device_cuda()->upload(to, from, bytes), "upload", bytes);
}

void backend_download(void *to, const void *from, size_t bytes) {
  check(sy_device_cuda()->download(to, from, bytes), "download", bytes);
}

bool backend_is_gpu(void) { return true; }

bool backend_takes_device_tensors(void) {
  const char *wanted = getenv("SY_TEST_TENSORS");
  return wanted != NULL && strcmp(wanted, "device") == 0;
}
