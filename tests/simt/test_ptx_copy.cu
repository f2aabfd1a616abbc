/* Asynchronous copies and mbarriers: pipelines whose threads read what others copied. */
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test.hpp"

namespace {

constexpr unsigned THREADS = 96;
constexpr unsigned STAGES = 4;
constexpr int REPEATS = 5;

std::vector<unsigned char> random_bytes(size_t count) {
  std::vector<unsigned char> bytes(count);
  for (unsigned char &byte : bytes) {
    byte = static_cast<unsigned char>(sy_test_random());
  }
  return bytes;
}

/* ---- cp.async ---- */

/* Tile t goes to stage t % STAGES; past the end an empty group, so that groups count tiles. */
template <unsigned BYTES>
SY_DEVICE void issue(unsigned char *stages, const unsigned char *in, unsigned num_tiles,
                     unsigned tile) {
  const size_t place = BYTES * threadIdx.x;
  if (tile < num_tiles) {
    sy_cp_async<BYTES>(stages + tile % STAGES * BYTES * THREADS + place,
                       in + size_t{tile} * BYTES * THREADS + place);
  }
  sy_cp_async_commit();
}

/* A thread reads what its neighbour copied. */
template <unsigned BYTES>
SY_KERNEL void pass_through_ring(const unsigned char *in, unsigned char *out, unsigned num_tiles) {
  unsigned char *stages = sy_shared();
  for (unsigned tile = 0; tile < STAGES - 1; ++tile) {
    issue<BYTES>(stages, in, num_tiles, tile);
  }
  const unsigned neighbour = (threadIdx.x + 1) % THREADS;
  for (unsigned tile = 0; tile < num_tiles; ++tile) {
    sy_cp_async_wait<STAGES - 2>();
    __syncthreads(); /* also: the stage that is filled next was read by everybody */
    issue<BYTES>(stages, in, num_tiles, tile + STAGES - 1);
    for (unsigned i = 0; i < BYTES; ++i) {
      out[size_t{tile} * BYTES * THREADS + BYTES * neighbour + i] =
          stages[tile % STAGES * BYTES * THREADS + BYTES * neighbour + i];
    }
  }
  sy_cp_async_wait<0>();
}

template <unsigned BYTES> void check_ring() {
  for (const unsigned num_tiles : {1u, 3u, 4u, 17u}) {
    const auto bytes = random_bytes(size_t{num_tiles} * BYTES * THREADS);
    test::DeviceArray<unsigned char> in(bytes);
    for (int repeat = 0; repeat < REPEATS; ++repeat) {
      test::DeviceArray<unsigned char> out(bytes.size());
      test::reseed();
      CHECK_RUNS(SY_LAUNCH(pass_through_ring<BYTES>, 1, THREADS, STAGES * BYTES * THREADS, nullptr,
                           in.data(), out.data(), num_tiles));
      CHECK_EQ_VECTOR(out.host(), bytes);
    }
  }
}

/* Thread i copies i of BYTES bytes. */
template <unsigned BYTES> SY_KERNEL void copy_parts(const unsigned char *in, unsigned char *out) {
  const unsigned place = BYTES * threadIdx.x;
  sy_cp_async_zero_fill<BYTES>(sy_shared() + place, in + place, threadIdx.x);
  sy_cp_async_commit();
  sy_cp_async_wait<0>();
  for (unsigned i = 0; i < BYTES; ++i) {
    out[place + i] = sy_shared()[place + i];
  }
}

template <unsigned BYTES> void check_parts() {
  const unsigned threads = BYTES + 1;
  auto bytes = random_bytes(BYTES * threads);
  test::DeviceArray<unsigned char> in(bytes);
  test::DeviceArray<unsigned char> out(bytes.size());
  test::reseed();
  CHECK_RUNS(
      SY_LAUNCH(copy_parts<BYTES>, 1, threads, BYTES * threads, nullptr, in.data(), out.data()));
  for (unsigned i = 0; i < BYTES * threads; ++i) {
    bytes[i] = i % BYTES < i / BYTES ? bytes[i] : 0;
  }
  CHECK_EQ_VECTOR(out.host(), bytes);
}

/* ---- Bulk copies ---- */

constexpr unsigned CONSUMERS = 64;
constexpr unsigned TILE_BYTES = 16 * CONSUMERS;
constexpr unsigned BULK_STAGES = 3;

/* What one thread of the first warp does: two copies to a tile. */
SY_DEVICE void produce(const unsigned char *in, unsigned num_tiles, unsigned char *stages,
                       uint64_t *full, uint64_t *empty) {
  for (unsigned tile = 0; tile < num_tiles; ++tile) {
    const unsigned stage = tile % BULK_STAGES;
    const unsigned char *from = in + size_t{tile} * TILE_BYTES;
    unsigned char *to = stages + stage * TILE_BYTES;
    sy_prefetch_l2(from);
    sy_bulk_prefetch_l2(from, TILE_BYTES);
    if (tile >= BULK_STAGES) {
      sy_mbarrier_wait(&empty[stage], (tile / BULK_STAGES - 1) % 2);
    }
    sy_bulk_copy(to, from, 48, &full[stage]);
    sy_bulk_copy_hinted(to + 48, from + 48, TILE_BYTES - 48, &full[stage], sy_policy_evict_last());
    sy_mbarrier_arrive_expect(&full[stage], TILE_BYTES);
  }
}

/* What the other warps do: 16 bytes each. */
SY_DEVICE void consume(unsigned char *out, unsigned num_tiles, const unsigned char *stages,
                       uint64_t *full, uint64_t *empty) {
  const unsigned place = 16 * (threadIdx.x - 32);
  for (unsigned tile = 0; tile < num_tiles; ++tile) {
    const unsigned stage = tile % BULK_STAGES;
    sy_mbarrier_wait(&full[stage], tile / BULK_STAGES % 2);
    for (unsigned i = 0; i < 16; ++i) {
      out[size_t{tile} * TILE_BYTES + place + i] = stages[stage * TILE_BYTES + place + i];
    }
    sy_mbarrier_arrive(&empty[stage]);
  }
}

SY_KERNEL void pass_through_bulk(const unsigned char *in, unsigned char *out, unsigned num_tiles) {
  unsigned char *stages = sy_shared();
  uint64_t *full = reinterpret_cast<uint64_t *>(stages + BULK_STAGES * TILE_BYTES);
  uint64_t *empty = full + BULK_STAGES;
  if (threadIdx.x == 0) {
    for (unsigned stage = 0; stage < BULK_STAGES; ++stage) {
      sy_mbarrier_init(&full[stage], 1);
      sy_mbarrier_init(&empty[stage], CONSUMERS);
    }
    sy_fence_mbarrier_init();
    sy_fence_proxy_async();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    produce(in, num_tiles, stages, full, empty);
  } else if (threadIdx.x >= 32) {
    consume(out, num_tiles, stages, full, empty);
  }
}

} // namespace

TEST(cp_async_fills_a_ring) {
  check_ring<4>();
  check_ring<8>();
  check_ring<16>();
}

TEST(cp_async_fills_up_with_zeros) {
  check_parts<4>();
  check_parts<8>();
  check_parts<16>();
}

TEST(bulk_copies_fill_a_ring) {
  for (const unsigned num_tiles : {1u, 3u, 4u, 20u}) {
    const auto bytes = random_bytes(size_t{num_tiles} * TILE_BYTES);
    test::DeviceArray<unsigned char> in(bytes);
    for (int repeat = 0; repeat < REPEATS; ++repeat) {
      test::DeviceArray<unsigned char> out(bytes.size());
      test::reseed();
      CHECK_RUNS(SY_LAUNCH(pass_through_bulk, 1, 32 + CONSUMERS,
                           BULK_STAGES * (TILE_BYTES + 2 * sizeof(uint64_t)), nullptr, in.data(),
                           out.data(), num_tiles));
      CHECK_EQ_VECTOR(out.host(), bytes);
    }
  }
}
