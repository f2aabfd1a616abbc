/* Host code that is broken on purpose: the stand-in for CUDA's runtime catches it. What is illegal is
 * a violation under every seed; what is missing shows in results, under many. */
#include <cstring>

#include "tests/simt/runtime_case.hpp"

using test::BYTES;
using test::check_violation;
using test::COUNT;
using test::count_seeds;
using test::Machine;

namespace {

SY_KERNEL void copy_words(uint32_t *to, const uint32_t *from, uint32_t count) {
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    to[i] = from[i];
  }
}

/* Many of the seeds, not just one by luck. */
void check_often(unsigned num_seeds) { CHECK(num_seeds >= test::NUM_SEEDS / 6); }

} // namespace

/* ---- What is missing shows in results ------------------------------------------------------- */

TEST(a_missing_wait_for_an_event) {
  check_often(count_seeds([] {
    Machine m;
    m.upload(0);
    CHECK_CUDA(cudaEventRecord(m.event, m.stream[0]));
    m.download(0, 1); /* on the other stream, which does not wait for the event */
    CHECK_CUDA(cudaStreamSynchronize(m.stream[1]));
    return m.num_wrong(3, 0) != 0;
  }));
}

TEST(a_wait_for_the_wrong_stream) {
  if (simt::has_asan) {
    SKIP("AddressSanitizer forbids the read: reading_before_the_copy_was_waited_for");
  }
  check_often(count_seeds([] {
    Machine m;
    m.upload(0);
    m.download(0, 0);
    CHECK_CUDA(cudaStreamSynchronize(m.stream[1]));
    return m.num_wrong(3, 0) != 0;
  }));
}

TEST(a_source_that_changes_before_it_was_copied) {
  check_often(count_seeds([] {
    Machine m;
    m.upload(0);
    std::memset(m.pinned[0], 0, BYTES);
    m.download(0, 0);
    CHECK_CUDA(cudaStreamSynchronize(m.stream[0]));
    return m.num_wrong(3, 0) != 0;
  }));
}

TEST(a_graph_without_an_edge) {
  check_often(count_seeds([] {
    Machine m;
    CHECK_CUDA(cudaStreamBeginCapture(m.stream[0], cudaStreamCaptureModeGlobal));
    CHECK_CUDA(cudaEventRecord(m.event, m.stream[0]));
    CHECK_CUDA(cudaStreamWaitEvent(m.stream[1], m.event, 0));
    m.upload(0);
    m.download(0, 1);
    CHECK_CUDA(cudaEventRecord(m.event, m.stream[1]));
    CHECK_CUDA(cudaStreamWaitEvent(m.stream[0], m.event, 0));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK_CUDA(cudaStreamEndCapture(m.stream[0], &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    CHECK_CUDA(cudaGraphLaunch(exec, m.stream[0]));
    CHECK_CUDA(cudaStreamSynchronize(m.stream[0]));
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    CHECK_CUDA(cudaGraphDestroy(graph));
    return m.num_wrong(3, 0) != 0;
  }));
}

/* ---- What is illegal is a violation, whatever the seed -------------------------------------- */

/* The violation names this, under every seed. A report of AddressSanitizer takes a second. */
static void always(const char *part, const std::function<void(Machine &m)> &host_code,
                   unsigned num_seeds = test::NUM_SEEDS) {
  for (unsigned i = 0; i < num_seeds; ++i) {
    simt_reseed(sy_test_random());
    Machine m;
    host_code(m);
    check_violation(part);
  }
}

constexpr unsigned FEW_SEEDS = 2;

TEST(reading_before_the_copy_was_waited_for) {
  if (!simt::has_asan) {
    SKIP("only AddressSanitizer sees what the host reads");
  }
  always(
      "in use: READ of size 4 by the host: cudaMemcpyAsync to the host",
      [](Machine &m) {
        m.upload(0);
        m.download(0, 0);
        volatile uint32_t value = m.pinned[1][17];
        static_cast<void>(value);
      },
      FEW_SEEDS);
}

TEST(the_host_touches_device_memory) {
  if (!simt::has_asan) {
    SKIP("only AddressSanitizer sees what the host touches");
  }
  always(
      "device memory touched by the host: WRITE of size 4",
      [](Machine &m) { *const_cast<volatile uint32_t *>(m.device[0]) = 1; }, FEW_SEEDS);
}

TEST(memory_freed_while_a_copy_uses_it) {
  always("in use: cudaFree of memory that cudaMemcpyAsync uses", [](Machine &m) {
    void *p;
    CHECK_CUDA(cudaMalloc(&p, 64));
    CHECK_CUDA(cudaMemcpyAsync(p, m.pinned[0], 64, cudaMemcpyDefault, m.stream[0]));
    CHECK_CUDA(cudaStreamSynchronize(m.stream[1]));
    cudaDeviceSynchronize(); /* legal, and enough: but not to free before it */
    CHECK_CUDA(cudaFree(p));
    check_violation("");
    CHECK_CUDA(cudaMalloc(&p, 64));
    CHECK_CUDA(cudaMemcpyAsync(p, m.pinned[0], 64, cudaMemcpyDefault, m.stream[0]));
    cudaFree(p);
  });
}

TEST(memory_freed_while_a_kernel_uses_it) {
  always("in use: cudaFree of memory that kernel copy_words uses", [](Machine &m) {
    void *p;
    CHECK_CUDA(cudaMalloc(&p, BYTES));
    CHECK_CUDA(
        SY_LAUNCH(copy_words, 1, 32, 0, m.stream[0], static_cast<uint32_t *>(p), m.device[0], 1u));
    cudaFree(p);
  });
}

TEST(pinned_memory_freed_while_a_copy_uses_it) {
  always("in use: cudaFreeHost of memory that cudaMemcpyAsync uses", [](Machine &m) {
    void *p;
    CHECK_CUDA(cudaMallocHost(&p, 64));
    CHECK_CUDA(cudaMemcpyAsync(m.device[0], p, 64, cudaMemcpyDefault, m.stream[0]));
    cudaFreeHost(p);
  });
}

TEST(memory_freed_twice) {
  always("which is no device memory", [](Machine &) {
    void *p;
    CHECK_CUDA(cudaMalloc(&p, 64));
    CHECK_CUDA(cudaFree(p));
    CHECK_CUDA_IS(cudaFree(p), cudaErrorInvalidValue);
  });
}

TEST(a_destroyed_stream_is_used) {
  always("use of what was destroyed: cudaStreamSynchronize", [](Machine &) {
    cudaStream_t stream;
    CHECK_CUDA(cudaStreamCreate(&stream));
    CHECK_CUDA(cudaStreamDestroy(stream));
    CHECK_CUDA_IS(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  });
}

TEST(a_destroyed_event_is_used) {
  always("use of what was destroyed: cudaStreamWaitEvent", [](Machine &m) {
    cudaEvent_t event;
    CHECK_CUDA(cudaEventCreate(&event));
    CHECK_CUDA(cudaEventRecord(event, m.stream[0]));
    CHECK_CUDA(cudaEventDestroy(event));
    CHECK_CUDA_IS(cudaStreamWaitEvent(m.stream[1], event, 0), cudaErrorInvalidResourceHandle);
  });
}

TEST(a_destroyed_graph_is_launched) {
  always("use of what was destroyed: cudaGraphLaunch", [](Machine &m) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK_CUDA(cudaStreamBeginCapture(m.stream[0], cudaStreamCaptureModeGlobal));
    CHECK_CUDA(cudaStreamEndCapture(m.stream[0], &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    CHECK_CUDA(cudaGraphDestroy(graph));
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    CHECK_CUDA_IS(cudaGraphLaunch(exec, m.stream[0]), cudaErrorInvalidResourceHandle);
  });
}

TEST(copies_that_miss) {
  always("out of bounds: cudaMemcpyAsync of 4001 bytes", [](Machine &m) {
    CHECK_CUDA_IS(
        cudaMemcpyAsync(m.device[0], m.pinned[0], BYTES + 1, cudaMemcpyDefault, m.stream[0]),
        cudaErrorInvalidValue);
    CHECK_CUDA_IS(
        cudaMemcpyAsync(m.device[0], m.pinned[0], 16, cudaMemcpyDeviceToHost, m.stream[0]),
        cudaErrorInvalidMemcpyDirection);
  });
}

TEST(a_host_function_that_calls_the_runtime) {
  always("deadlock: cudaMalloc in a host function", [](Machine &m) {
    CHECK_CUDA(cudaLaunchHostFunc(
        m.stream[0],
        [](void *) {
          void *p = nullptr;
          cudaMalloc(&p, 16);
        },
        nullptr));
    CHECK_CUDA(cudaStreamSynchronize(m.stream[0]));
  });
}

TEST(a_kernel_that_fails_loses_the_device) {
  always(
      "out of bounds",
      [](Machine &m) {
        m.upload(0);
        SY_LAUNCH(copy_words, 1, 32, 0, m.stream[0], m.device[1] + 1, m.device[0],
                  static_cast<uint32_t>(COUNT));
        CHECK_CUDA_IS(cudaStreamSynchronize(m.stream[0]), cudaErrorIllegalAddress);
        CHECK_CUDA_IS(cudaStreamQuery(m.stream[1]), cudaErrorIllegalAddress); /* and ever after */
      },
      simt::has_asan ? FEW_SEEDS : test::NUM_SEEDS);
}

/* ---- Capture -------------------------------------------------------------------------------- */

/* The call is refused, the violation names it, and the recording is spoiled. */
static void spoils_a_capture(const char *name, const std::function<cudaError_t(Machine &m)> &call) {
  always(name, [&](Machine &m) {
    cudaGraph_t graph;
    CHECK_CUDA(cudaStreamBeginCapture(m.stream[0], cudaStreamCaptureModeGlobal));
    CHECK(call(m) != cudaSuccess);
    CHECK_CUDA_IS(cudaStreamEndCapture(m.stream[0], &graph), cudaErrorStreamCaptureInvalidated);
  });
}

TEST(synchronising_while_capturing) {
  spoils_a_capture("not allowed during capture: cudaStreamSynchronize",
                   [](Machine &m) { return cudaStreamSynchronize(m.stream[0]); });
  spoils_a_capture("not allowed during capture: cudaStreamQuery",
                   [](Machine &m) { return cudaStreamQuery(m.stream[0]); });
  spoils_a_capture("not allowed during capture: cudaDeviceSynchronize",
                   [](Machine &) { return cudaDeviceSynchronize(); });
  spoils_a_capture("not allowed during capture: cudaEventQuery", [](Machine &m) {
    CHECK_CUDA(cudaEventRecord(m.event, m.stream[0]));
    return cudaEventQuery(m.event);
  });
}

TEST(allocating_while_capturing) {
  spoils_a_capture("not allowed during capture: cudaMalloc", [](Machine &) {
    void *p;
    return cudaMalloc(&p, 16);
  });
  spoils_a_capture("not allowed during capture: cudaFree",
                   [](Machine &m) { return cudaFree(m.device[0]); });
}

TEST(copying_while_capturing) {
  spoils_a_capture("not allowed during capture: cudaMemcpyAsync of pageable memory",
                   [](Machine &m) {
                     char host[16] = {};
                     return cudaMemcpyAsync(m.device[0], host, 16, cudaMemcpyDefault, m.stream[0]);
                   });
  spoils_a_capture("not allowed during capture: cudaMemcpy", [](Machine &m) {
    return cudaMemcpy(m.device[0], m.pinned[0], 16, cudaMemcpyDefault);
  });
}

TEST(a_capture_that_waits_for_what_is_outside) {
  spoils_a_capture("a captured stream waits for an event that is outside", [](Machine &m) {
    CHECK_CUDA(cudaEventRecord(m.event, m.stream[1]));
    return cudaStreamWaitEvent(m.stream[0], m.event, 0);
  });
}

TEST(a_captured_stream_is_destroyed) {
  spoils_a_capture("not allowed during capture: cudaStreamDestroy",
                   [](Machine &m) { return cudaStreamDestroy(m.stream[0]); });
}
