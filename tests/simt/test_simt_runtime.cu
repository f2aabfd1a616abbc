/* The stand-in for CUDA's runtime: host code that is right gets right results under every seed. */
#include <cstring>

#include "tests/simt/runtime_case.hpp"

using test::BYTES;
using test::check_violation;
using test::COUNT;
using test::count_seeds;
using test::Machine;

namespace {

SY_KERNEL void add_to(uint32_t *to, const uint32_t *from, uint32_t value) {
  for (uint32_t i = threadIdx.x; i < COUNT; i += blockDim.x) {
    to[i] = from[i] + value;
  }
}

void launch_add(uint32_t *to, const uint32_t *from, uint32_t value, cudaStream_t stream) {
  CHECK_CUDA(SY_LAUNCH(add_to, 1, 64, 0, stream, to, from, value));
}

} // namespace

TEST(work_on_a_stream_runs_in_order) {
  const unsigned wrong = count_seeds([] {
    Machine m;
    m.upload(0);
    launch_add(m.device[1], m.device[0], 5, m.stream[0]);
    launch_add(m.device[0], m.device[1], 2, m.stream[0]);
    m.download(0, 0);
    CHECK_CUDA(cudaStreamSynchronize(m.stream[0]));
    return m.num_wrong(3, 7) != 0;
  });
  CHECK_EQ_U64(wrong, 0);
  CHECK_EQ_U64(simt_num_alive(), 0);
}

TEST(events_order_streams) {
  const unsigned wrong = count_seeds([] {
    Machine m;
    m.upload(0);
    CHECK_CUDA(cudaEventRecord(m.event, m.stream[0]));
    CHECK_CUDA(cudaStreamWaitEvent(m.stream[1], m.event, 0));
    launch_add(m.device[1], m.device[0], 1, m.stream[1]);
    m.download(1, 1);
    CHECK_CUDA(cudaEventRecord(m.event, m.stream[1]));
    CHECK_CUDA(cudaEventSynchronize(m.event));
    return m.num_wrong(3, 1) != 0;
  });
  CHECK_EQ_U64(wrong, 0);
}

TEST(asking_makes_progress) {
  const unsigned wrong = count_seeds([] {
    Machine m;
    m.upload(0);
    m.download(0, 0);
    CHECK_CUDA(cudaEventRecord(m.event, m.stream[0]));
    size_t asked = 0;
    while (cudaStreamQuery(m.stream[0]) == cudaErrorNotReady && asked < 1000) {
      ++asked;
    }
    CHECK_CUDA(cudaEventQuery(m.event));
    CHECK_CUDA(cudaPeekAtLastError()); /* not ready is no error */
    return m.num_wrong(3, 0) != 0;
  });
  CHECK_EQ_U64(wrong, 0);
}

TEST(the_legacy_stream_waits_and_is_waited_for) {
  const unsigned wrong = count_seeds([] {
    Machine m;
    cudaStream_t blocking;
    CHECK_CUDA(cudaStreamCreate(&blocking));
    CHECK_CUDA(cudaMemcpyAsync(m.device[0], m.pinned[0], BYTES, cudaMemcpyHostToDevice, blocking));
    launch_add(m.device[1], m.device[0], 4, nullptr);
    CHECK_CUDA(cudaMemcpyAsync(m.pinned[1], m.device[1], BYTES, cudaMemcpyDeviceToHost, blocking));
    CHECK_CUDA(cudaStreamSynchronize(nullptr));
    CHECK_CUDA(cudaStreamSynchronize(blocking));
    CHECK_CUDA(cudaStreamDestroy(blocking));
    return m.num_wrong(3, 4) != 0;
  });
  CHECK_EQ_U64(wrong, 0);
}

TEST(copies_of_every_kind) {
  simt_reseed(sy_test_random());
  Machine m;
  std::vector<uint32_t> pageable(COUNT, 9);
  CHECK_CUDA(cudaMemcpy(m.device[0], pageable.data(), BYTES, cudaMemcpyHostToDevice));
  CHECK_CUDA(cudaMemset(m.device[1], 0, BYTES));
  CHECK_CUDA(cudaStreamSynchronize(nullptr));
  CHECK_CUDA(cudaMemcpy2DAsync(m.device[1], 16, m.device[0], 8, 4, COUNT / 4,
                               cudaMemcpyDeviceToDevice, m.stream[0]));
  CHECK_CUDA(cudaMemsetAsync(m.device[0], 0x11, 8, m.stream[0]));
  const uint64_t waits = simt_count().waits;
  CHECK_CUDA(cudaMemcpyAsync(pageable.data(), m.device[1], BYTES, cudaMemcpyDefault, m.stream[0]));
  CHECK_EQ_U64(simt_count().waits, waits + 1); /* to pageable memory: the host waits */
  for (size_t i = 0; i < COUNT; ++i) {
    CHECK_EQ_U64(pageable[i], i % 4 == 0 ? 9 : 0);
  }
  CHECK_CUDA(cudaMemcpy(pageable.data(), m.device[0], BYTES, cudaMemcpyDeviceToHost));
  CHECK_EQ_U64(pageable[1], 0x11111111u);
  CHECK_EQ_U64(pageable[2], 9);
  struct cudaPointerAttributes attributes;
  CHECK_CUDA(cudaPointerGetAttributes(&attributes, m.device[0] + 1));
  CHECK_EQ_I64(attributes.type, cudaMemoryTypeDevice);
  CHECK_CUDA(cudaPointerGetAttributes(&attributes, m.pinned[0] + 1));
  CHECK_EQ_I64(attributes.type, cudaMemoryTypeHost);
  CHECK_CUDA(cudaPointerGetAttributes(&attributes, pageable.data()));
  CHECK_EQ_I64(attributes.type, cudaMemoryTypeUnregistered);
  check_violation("");
}

TEST(host_functions_run_in_order) {
  const unsigned wrong = count_seeds([] {
    Machine m;
    struct Seen {
      const uint32_t *from;
      uint32_t value;
    } seen = {m.pinned[1], 0};
    m.upload(0);
    m.download(0, 0);
    CHECK_CUDA(cudaLaunchHostFunc(
        m.stream[0],
        [](void *data) {
          Seen *s = static_cast<Seen *>(data);
          s->value = s->from[7];
        },
        &seen));
    CHECK_CUDA(cudaStreamSynchronize(m.stream[0]));
    return seen.value != 21;
  });
  CHECK_EQ_U64(wrong, 0);
}

/* ---- Graphs --------------------------------------------------------------------------------- */

namespace {

/* Upload on one stream, the kernel on another, download on the first. */
cudaGraphExec_t record_fork(const Machine &m, bool is_joined) {
  cudaEvent_t fork;
  cudaEvent_t join;
  CHECK_CUDA(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
  CHECK_CUDA(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
  CHECK_CUDA(cudaStreamBeginCapture(m.stream[0], cudaStreamCaptureModeGlobal));
  CHECK_CUDA(cudaMemcpyAsync(m.device[0], m.pinned[0], BYTES, cudaMemcpyDefault, m.stream[0]));
  CHECK_CUDA(cudaEventRecord(fork, m.stream[0]));
  CHECK_CUDA(cudaStreamWaitEvent(m.stream[1], fork, 0));
  enum cudaStreamCaptureStatus status;
  CHECK_CUDA(cudaStreamIsCapturing(m.stream[1], &status));
  CHECK_EQ_I64(status, cudaStreamCaptureStatusActive);
  launch_add(m.device[1], m.device[0], 6, m.stream[1]);
  CHECK_CUDA(cudaEventRecord(join, m.stream[1]));
  if (is_joined) {
    CHECK_CUDA(cudaStreamWaitEvent(m.stream[0], join, 0));
  }
  CHECK_CUDA(cudaMemcpyAsync(m.pinned[1], m.device[1], BYTES, cudaMemcpyDefault, m.stream[0]));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  if (is_joined) {
    CHECK_CUDA(cudaStreamEndCapture(m.stream[0], &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    CHECK_CUDA(cudaGraphDestroy(graph));
  } else {
    CHECK_CUDA_IS(cudaStreamEndCapture(m.stream[0], &graph), cudaErrorStreamCaptureUnjoined);
    CHECK(graph == nullptr);
  }
  CHECK_CUDA(cudaEventDestroy(fork));
  CHECK_CUDA(cudaEventDestroy(join));
  return exec;
}

} // namespace

TEST(a_graph_repeats_what_was_recorded) {
  const unsigned wrong = count_seeds([] {
    Machine m;
    cudaGraphExec_t exec = record_fork(m, true);
    CHECK_EQ_U64(m.num_wrong(0, 0), 0); /* recording runs nothing */
    size_t num_wrong = 0;
    for (uint32_t round = 0; round < 3; ++round) {
      for (uint32_t i = 0; i < COUNT; ++i) {
        m.pinned[0][i] = (round + 1) * i;
      }
      CHECK_CUDA(cudaGraphLaunch(exec, m.stream[round % 2]));
      CHECK_CUDA(cudaStreamSynchronize(m.stream[round % 2]));
      num_wrong += m.num_wrong(round + 1, 6);
    }
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    return num_wrong != 0;
  });
  CHECK_EQ_U64(wrong, 0);
  CHECK_EQ_U64(simt_num_alive(), 0);
}

TEST(launches_of_one_graph_follow_each_other) {
  const unsigned wrong = count_seeds([] {
    Machine m;
    CHECK_CUDA(cudaMemset(m.device[0], 0, BYTES));
    CHECK_CUDA(cudaDeviceSynchronize());
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK_CUDA(cudaStreamBeginCapture(m.stream[0], cudaStreamCaptureModeThreadLocal));
    launch_add(m.device[0], m.device[0], 1, m.stream[0]);
    CHECK_CUDA(cudaMemcpyAsync(m.pinned[1], m.device[0], BYTES, cudaMemcpyDefault, m.stream[0]));
    CHECK_CUDA(cudaStreamEndCapture(m.stream[0], &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 6; ++i) {
      CHECK_CUDA(cudaGraphLaunch(exec, m.stream[i % 2]));
    }
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    CHECK_CUDA(cudaGraphDestroy(graph));
    return m.num_wrong(0, 6) != 0;
  });
  CHECK_EQ_U64(wrong, 0);
}

TEST(a_fork_that_does_not_join_is_refused) {
  Machine m;
  record_fork(m, false);
  CHECK_CUDA_IS(cudaGetLastError(), cudaErrorStreamCaptureUnjoined);
  m.upload(0); /* the stream is free again */
  m.download(0, 0);
  CHECK_CUDA(cudaStreamSynchronize(m.stream[0]));
  CHECK_EQ_U64(m.num_wrong(3, 0), 0);
  check_violation("");
}

/* ---- Devices -------------------------------------------------------------------------------- */

TEST(devices_are_what_a_test_says) {
  int count = -1;
  CHECK(simt_set_devices("sm120,sm121,sm90"));
  CHECK_CUDA(cudaGetDeviceCount(&count));
  CHECK_EQ_I64(count, 3);
  static const int majors[] = {12, 12, 9};
  static const int minors[] = {0, 1, 0};
  for (int i = 0; i < 3; ++i) {
    struct cudaDeviceProp properties;
    int major = 0;
    int can = 1;
    CHECK_CUDA(cudaGetDeviceProperties(&properties, i));
    CHECK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i));
    CHECK_EQ_I64(properties.major, majors[i]);
    CHECK_EQ_I64(properties.minor, minors[i]);
    CHECK_EQ_I64(major, majors[i]);
    CHECK_EQ_I64(properties.pciBusID, i + 1);
    CHECK_CUDA(cudaDeviceCanAccessPeer(&can, i, (i + 1) % 3));
    CHECK_EQ_I64(can, 0);
  }
  CHECK_CUDA_IS(cudaSetDevice(3), cudaErrorInvalidDevice);
  CHECK_CUDA_IS(cudaGetLastError(), cudaErrorInvalidDevice);
  CHECK_CUDA(cudaSetDevice(2));
  CHECK_CUDA(cudaGetDevice(&count));
  CHECK_EQ_I64(count, 2);
  CHECK(!simt_set_devices("sm120,sm8086"));
  CHECK(simt_set_devices("sm120"));
}

TEST(machines_without_a_gpu) {
  int count = -1;
  int version = -1;
  void *p = nullptr;
  CHECK(simt_set_devices(""));
  CHECK_CUDA_IS(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  CHECK_EQ_I64(count, 0);
  CHECK_CUDA_IS(cudaMalloc(&p, 16), cudaErrorNoDevice);
  CHECK(simt_set_devices("no driver"));
  CHECK_CUDA_IS(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
  CHECK_CUDA(cudaDriverGetVersion(&version));
  CHECK_EQ_I64(version, 0);
  CHECK_STR_HAS(cudaGetErrorString(cudaErrorInsufficientDriver), "insufficient");
  CHECK(simt_set_devices("sm120"));
  check_violation("");
}

TEST(memory_runs_out) {
  void *p = nullptr;
  size_t free_bytes = 0;
  size_t total = 0;
  CHECK_CUDA(cudaMemGetInfo(&free_bytes, &total));
  CHECK_EQ_U64(free_bytes, total);
  CHECK_CUDA_IS(cudaMalloc(&p, total + 1), cudaErrorMemoryAllocation);
  CHECK_CUDA_IS(cudaGetLastError(), cudaErrorMemoryAllocation);
  CHECK_CUDA(cudaMalloc(&p, 1 << 20));
  CHECK_CUDA(cudaMemGetInfo(&free_bytes, &total));
  CHECK_EQ_U64(free_bytes, total - (1 << 20));
  CHECK_CUDA(cudaFree(p));
  simt_fail_allocations_after(1);
  CHECK_CUDA(cudaMalloc(&p, 16));
  void *q = nullptr;
  CHECK_CUDA_IS(cudaMallocHost(&q, 16), cudaErrorMemoryAllocation);
  CHECK_CUDA_IS(cudaMalloc(&q, 16), cudaErrorMemoryAllocation);
  simt_fail_allocations_after(SIZE_MAX);
  CHECK_CUDA(cudaFree(p));
  CHECK_EQ_U64(simt_num_alive(), 0);
}
