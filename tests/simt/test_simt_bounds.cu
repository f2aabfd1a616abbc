/* Broken kernels that AddressSanitizer catches in the act, at their line, in their thread. */
#include "tests/simt/broken.hpp"

using simt::Kind;
using test::check_always_caught;
using test::check_caught;
using test::check_site;
using test::DeviceArray;

namespace {

/* ---- Off by one ---- */

constexpr int ADD_LINE = __LINE__ + 5;

/* The last thread reads its neighbour, whom it does not have. */
SY_KERNEL void add_neighbour(const uint32_t *in, uint32_t *out, unsigned count) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i < count ? i : 0] = in[i] + in[i + 1];
}

constexpr int SHIFT_LINE = __LINE__ + 4;

SY_KERNEL void shift_in_shared(uint32_t *out) {
  uint32_t *shared = reinterpret_cast<uint32_t *>(sy_shared());
  shared[threadIdx.x + 1] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}

SY_KERNEL void read_before(const uint32_t *in, uint32_t *out) {
  out[threadIdx.x] = in[static_cast<int>(threadIdx.x) - 1];
}

} // namespace

TEST(an_off_by_one_read_is_caught_at_its_line) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(128, 1));
  DeviceArray<uint32_t> out(128);
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    const auto v = check_caught(
        Kind::out_of_bounds, "add_neighbour", "device memory, 0 bytes past the end of 512 bytes",
        [&] { return SY_LAUNCH(add_neighbour, 4, 32, 0, nullptr, in.data(), out.data(), 128u); });
    check_site(v, __FILE__, ADD_LINE);
    CHECK_EQ_U64(v.block.x, 3);
    CHECK_EQ_U64(v.thread.x, 31);
    CHECK_STR_HAS(v.what.c_str(), "READ of size 4");
  }
}

TEST(an_off_by_one_write_to_shared_memory_is_caught_at_its_line) {
  DeviceArray<uint32_t> out(64);
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    const auto v = check_caught(
        Kind::out_of_bounds, "shift_in_shared", "shared memory, 0 bytes past the end of 256 bytes",
        [&] { return SY_LAUNCH(shift_in_shared, 1, 64, 256, nullptr, out.data()); });
    check_site(v, __FILE__, SHIFT_LINE);
    CHECK_EQ_U64(v.thread.x, 63);
    CHECK_STR_HAS(v.what.c_str(), "WRITE of size 4");
  }
}

TEST(a_read_before_the_beginning_is_caught) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(32, 1));
  DeviceArray<uint32_t> out(32);
  check_always_caught(Kind::out_of_bounds, "read_before", "4 bytes before of 128 bytes", [&] {
    return SY_LAUNCH(read_before, 1, 32, 0, nullptr, in.data(), out.data());
  });
}

/* ---- A buffer sized by a count of something else ---- */

namespace {

constexpr int LIST_LINE = __LINE__ + 8;

/* Writes the local expert of each routed row: `ids` needs an entry per routed row, of which there
 * may be more than local experts. */
SY_KERNEL void list_experts(const uint32_t *expert_offset, uint32_t num_experts, uint32_t *ids) {
  for (uint32_t e = threadIdx.x; e < num_experts; e += blockDim.x) {
    const uint32_t end = expert_offset[e + 1];
    for (uint32_t routed_row = expert_offset[e]; routed_row < end; ++routed_row) {
      ids[routed_row] = e;
    }
  }
}

} // namespace

/* (tokens, top-k, experts) = (2, 8, 8), (4, 8, 16), (4, 4, 8), every slot in use. */
TEST(an_id_buffer_sized_by_local_experts_is_caught) {
  const uint32_t shapes[][3] = {{2, 8, 8}, {4, 8, 16}, {4, 4, 8}};
  for (const auto &shape : shapes) {
    const uint32_t num_routed = shape[0] * shape[1];
    const uint32_t num_experts = shape[2];
    std::vector<uint32_t> offsets(num_experts + 1);
    for (uint32_t e = 0; e <= num_experts; ++e) {
      offsets[e] = num_routed * e / num_experts;
    }
    DeviceArray<uint32_t> expert_offset(offsets);
    for (const bool by_experts : {false, true}) {
      DeviceArray<uint32_t> ids(by_experts ? num_experts : num_routed);
      const auto launch = [&] {
        test::reseed();
        return SY_LAUNCH(list_experts, 1, 32, 0, nullptr, expert_offset.data(), num_experts,
                         ids.data());
      };
      if (!by_experts) {
        CHECK_RUNS(launch());
        continue;
      }
      const auto v = check_caught(Kind::out_of_bounds, "list_experts", "past the end of", launch);
      check_site(v, __FILE__, LIST_LINE);
    }
  }
}

/* ---- Copies that are under way ---- */

namespace {

constexpr int PEEK_LINE = __LINE__ + 8;

/* The issuing thread waits; the others do not wait for it. */
SY_KERNEL void peek(const uint32_t *in, uint32_t *out) {
  if (threadIdx.x == 0) {
    sy_cp_async<16>(sy_shared(), in);
    sy_cp_async_commit();
  } else {
    out[threadIdx.x] = *reinterpret_cast<uint32_t *>(sy_shared());
  }
  __syncwarp();
  sy_cp_async_wait<0>();
}

constexpr int BULK_LINE = __LINE__ + 9;

/* The bytes have landed or not: without the wait nobody knows. */
SY_KERNEL void peek_at_bulk(const uint32_t *in, uint32_t *out) {
  uint64_t *m = reinterpret_cast<uint64_t *>(sy_shared());
  sy_mbarrier_init(m, 1);
  sy_bulk_copy(sy_shared() + 16, in, 32, m);
  sy_mbarrier_arrive_expect(m, 32);
  __nanosleep(1);
  out[0] = sy_shared()[40];
  sy_mbarrier_wait(m, 0);
}

constexpr int OVERWRITE_LINE = __LINE__ + 6;

/* The data of a stage is overwritten while the next copy there is under way. */
SY_KERNEL void write_too_soon(const uint32_t *in) {
  sy_cp_async<16>(sy_shared(), in);
  sy_cp_async_commit();
  sy_shared()[15] = 1;
  sy_cp_async_wait<0>();
}

} // namespace

TEST(a_peek_at_a_copy_is_caught_at_its_line) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(8, 1));
  DeviceArray<uint32_t> out(32);
  int num_caught = 0;
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    SY_LAUNCH(peek, 1, 2, 16, nullptr, in.data(), out.data());
    if (const auto v = simt::take_violation()) { /* else thread 1 was first, and read poison */
      ++num_caught;
      CHECK(v->kind == Kind::early_use);
      CHECK_EQ_U64(v->thread.x, 1);
      check_site(*v, __FILE__, PEEK_LINE);
    }
  }
  CHECK(num_caught > 0);
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    const auto v = check_caught(Kind::early_use, "peek_at_bulk", "READ of size 1", [&] {
      return SY_LAUNCH(peek_at_bulk, 1, 1, 48, nullptr, in.data(), out.data());
    });
    check_site(v, __FILE__, BULK_LINE);
  }
  const auto v = check_caught(Kind::early_use, "write_too_soon", "WRITE of size 1", [&] {
    return SY_LAUNCH(write_too_soon, 1, 1, 16, nullptr, in.data());
  });
  check_site(v, __FILE__, OVERWRITE_LINE);
}

/* ---- Memory that is not the device's ---- */

namespace {

SY_KERNEL void read(const uint32_t *in, uint32_t *out) { *out = *in; }

} // namespace

TEST(freed_memory_is_caught) {
  DeviceArray<uint32_t> out(1);
  uint32_t *in = static_cast<uint32_t *>(simt::device_malloc(64));
  CHECK_RUNS(SY_LAUNCH(read, 1, 1, 0, nullptr, in, out.data()));
  simt::device_free(in);
  check_always_caught(Kind::out_of_bounds, "read", "memory that is not the device's",
                      [&] { return SY_LAUNCH(read, 1, 1, 0, nullptr, in, out.data()); });
}

TEST(after_a_violation_stacks_are_clean) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(128, 1));
  DeviceArray<uint32_t> out(128);
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    CHECK(SY_LAUNCH(add_neighbour, 4, 32, 0, nullptr, in.data(), out.data(), 128u) != cudaSuccess);
    CHECK(simt::take_violation().has_value());
    CHECK_RUNS(SY_LAUNCH(add_neighbour, 1, 127, 0, nullptr, in.data(), out.data(), 127u));
  }
}
