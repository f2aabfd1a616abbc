#include "tests/gpu/pinned.h"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <cuda_runtime.h>

namespace {

constexpr size_t ARENA_BYTES = size_t{2} << 30;
constexpr int SY_TEST_SKIPPED = 77; /* the harness's exit code */

/* Blocks follow each other; when none is left alive the arena begins anew. */
struct Arena {
  unsigned char *start = nullptr;
  size_t used = 0;
  size_t alive = 0;
};

Arena arena;

unsigned char *pinned(size_t bytes) {
  void *memory = nullptr;
  const cudaError_t error = cudaHostAlloc(&memory, bytes, cudaHostAllocDefault);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) {
    fprintf(stderr, "skipped: %s\n", cudaGetErrorString(error));
    _Exit(SY_TEST_SKIPPED);
  }
  if (error != cudaSuccess) {
    fprintf(stderr, "cudaHostAlloc of %zu bytes: %s\n", bytes, cudaGetErrorString(error));
    abort();
  }
  return static_cast<unsigned char *>(memory);
}

} // namespace

extern "C" {

void __real_free(void *block);
int __wrap_posix_memalign(void **block, size_t alignment, size_t bytes);
void __wrap_free(void *block);

void *pinned_alloc_forever(size_t bytes) { return pinned(bytes); }

int __wrap_posix_memalign(void **block, size_t alignment, size_t bytes) {
  if (arena.start == nullptr) {
    arena.start = pinned(ARENA_BYTES);
  }
  const size_t begin = (arena.used + alignment - 1) / alignment * alignment;
  if (bytes > ARENA_BYTES || begin > ARENA_BYTES - bytes) {
    return ENOMEM;
  }
  arena.used = begin + bytes;
  ++arena.alive;
  *block = arena.start + begin;
  return 0;
}

void __wrap_free(void *block) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(block);
  const uintptr_t start = reinterpret_cast<uintptr_t>(arena.start);
  if (arena.start == nullptr || at < start || at >= start + ARENA_BYTES) {
    __real_free(block);
    return;
  }
  if (--arena.alive == 0) {
    arena.used = 0;
  }
}
}
