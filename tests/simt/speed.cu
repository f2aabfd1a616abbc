/* How fast the emulator is: a JSON line per kind of work, in processor time. */
#include <cstdio>
#include <ctime>

#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test.hpp"

namespace {

constexpr unsigned THREADS = 256;
constexpr int ROUNDS = 2000;

enum class Work { block_barrier, shuffle, atomic, mma_nvfp4, mma_bf16 };

SY_KERNEL void work_hard(Work work, uint32_t *sums, long long *steps) {
  uint32_t sum = threadIdx.x;
  float d[4] = {};
  const uint32_t a[4] = {0x3F803F80u, 0xBF80BF90u, 0x3F703F60u, 0xBE00BE08u};
  const uint32_t b[2] = {0x3F813F82u, 0x3F833F84u};
  for (int round = 0; round < ROUNDS; ++round) {
    switch (work) {
    case Work::block_barrier:
      __syncthreads();
      break;
    case Work::shuffle:
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
      break;
    case Work::atomic:
      sum += atomicAdd(sums, 1u);
      break;
    case Work::mma_nvfp4:
      sy_mma_nvfp4<0, 0>(d, a, b, 0x38383838u, 0x38383838u);
      break;
    case Work::mma_bf16:
      sy_mma_bf16(d, a, b);
      break;
    }
  }
  sums[1 + threadIdx.x] = sum + static_cast<uint32_t>(d[0] > 0.0f);
  *steps = clock64();
}

void measure(Work work, const char *name) {
  test::DeviceArray<uint32_t> sums(std::vector<uint32_t>(1 + THREADS, 0));
  test::DeviceArray<long long> steps(1);
  simt::set_seed(1);
  const std::clock_t begin = std::clock();
  if (SY_LAUNCH(work_hard, 1, THREADS, 0, nullptr, work, sums.data(), steps.data()) !=
      cudaSuccess) {
    printf("%s: %s\n", name, simt::take_violation()->text().c_str());
    return;
  }
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  printf("{\"bench\": \"simt\", \"work\": \"%s\", \"lane_switches_per_s\": %.3g, "
         "\"us_per_operation_of_a_warp\": %.3g}\n",
         name, static_cast<double>(steps.host()[0]) / seconds,
         seconds * 1e6 / (ROUNDS * THREADS / 32));
}

} // namespace

int main() {
  measure(Work::block_barrier, "__syncthreads");
  measure(Work::shuffle, "__shfl_xor_sync");
  measure(Work::atomic, "atomicAdd");
  measure(Work::mma_nvfp4, "mma_nvfp4");
  measure(Work::mma_bf16, "mma_bf16");
  return 0;
}
