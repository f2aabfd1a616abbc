/* The stand-in for NCCL: host code that is right gets right results under every seed, and what NCCL
 * forbids is refused or a violation. W processes. */
#include <mpi.h>
#include <nccl.h>

#include <cstring>

#include "tests/simt/runtime_case.hpp"

#define CHECK_NCCL(call) CHECK_EQ_STR(ncclGetErrorString(call), "no error")
#define CHECK_NCCL_IS(call, result) CHECK_EQ_I64(call, result)

using test::check_violation;
using test::count_seeds;

namespace {

constexpr size_t PART = 256; /* bytes for each rank */
constexpr size_t MOST = 4 * PART;

int rank() { return sy_test_rank(); }
int world() { return sy_test_world(); }

ncclUniqueId shared_id() {
  ncclUniqueId id = {};
  if (rank() == 0) {
    CHECK_NCCL(ncclGetUniqueId(&id));
  }
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
  return id;
}

void await(ncclComm_t comm) {
  ncclResult_t state = ncclInProgress;
  while (state == ncclInProgress) {
    CHECK_NCCL(ncclCommGetAsyncError(comm, &state));
  }
  CHECK_NCCL(state);
}

ncclComm_t make_comm(bool is_blocking) {
  ncclComm_t comm = nullptr;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = is_blocking ? 1 : 0;
  const ncclResult_t result = ncclCommInitRankConfig(&comm, world(), shared_id(), rank(), &config);
  CHECK_NCCL_IS(result, is_blocking ? ncclSuccess : ncclInProgress);
  await(comm);
  return comm;
}

/* Two device arrays, a stream and a communicator. */
struct Ranks {
  char *from = nullptr;
  char *to = nullptr;
  cudaStream_t stream = nullptr;
  ncclComm_t comm;
  bool is_comm_alive = true;

  explicit Ranks(bool is_blocking = true) : comm(make_comm(is_blocking)) {
    CHECK_NCCL(ncclMemAlloc(reinterpret_cast<void **>(&from), MOST));
    CHECK_CUDA(cudaMalloc(reinterpret_cast<void **>(&to), MOST));
    CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    std::vector<char> data(MOST);
    for (int peer = 0; peer < 4; ++peer) {
      std::memset(&data[static_cast<size_t>(peer) * PART], 16 * rank() + peer, PART);
    }
    CHECK_CUDA(cudaMemcpyAsync(from, data.data(), MOST, cudaMemcpyDefault, stream));
    CHECK_CUDA(cudaMemsetAsync(to, 0xEE, MOST, stream));
  }

  ~Ranks() {
    CHECK_CUDA(cudaStreamSynchronize(stream));
    if (is_comm_alive) {
      CHECK_NCCL(ncclCommDestroy(comm));
    }
    CHECK_CUDA(cudaStreamDestroy(stream));
    CHECK_NCCL(ncclMemFree(from));
    CHECK_CUDA(cudaFree(to));
  }

  /* Parts of `to` whose bytes are not base + step * peer. */
  unsigned num_wrong(int base, int step) {
    std::vector<char> data(MOST);
    CHECK_CUDA(cudaMemcpyAsync(data.data(), to, MOST, cudaMemcpyDefault, stream));
    unsigned count = 0;
    for (int peer = 0; peer < world(); ++peer) {
      for (size_t i = 0; i < PART; ++i) {
        count += data[static_cast<size_t>(peer) * PART + i] != base + step * peer ? 1u : 0u;
      }
    }
    return count;
  }

  char *part(char *of, int peer) const { return of + static_cast<size_t>(peer) * PART; }

  /* An all-to-all of sends and receives, peers staggered. */
  ncclResult_t exchange() {
    CHECK_NCCL(ncclGroupStart());
    for (int i = 0; i < world(); ++i) {
      const int next = (rank() + i) % world();
      const int before = (rank() + world() - i) % world();
      CHECK_NCCL(ncclSend(part(from, next), PART, ncclInt8, next, comm, stream));
      CHECK_NCCL(ncclRecv(part(to, before), PART / 4, ncclInt32, before, comm, stream));
    }
    return ncclGroupEnd();
  }
};

} // namespace

TEST(collectives_bring_what_they_should) {
  const unsigned wrong = count_seeds([] {
    Ranks r;
    CHECK_NCCL(ncclAlltoAll(r.from, r.to, PART, ncclInt8, r.comm, r.stream));
    unsigned count = r.num_wrong(rank(), 16);
    CHECK_NCCL(ncclAllGather(r.part(r.from, 1), r.to, PART, ncclInt8, r.comm, r.stream));
    count += r.num_wrong(1, 16);
    CHECK_CUDA(cudaMemcpyAsync(r.part(r.to, rank()), r.part(r.from, 2), PART, cudaMemcpyDefault,
                               r.stream));
    CHECK_NCCL(
        ncclAllGather(r.part(r.to, rank()), r.to, PART, ncclInt8, r.comm, r.stream)); /* in place */
    return count + r.num_wrong(2, 16) != 0;
  });
  CHECK_EQ_U64(wrong, 0);
}

TEST(groups_of_sends_and_receives) {
  const unsigned wrong = count_seeds([] {
    Ranks r;
    CHECK_NCCL(r.exchange());
    return r.num_wrong(rank(), 16) != 0;
  });
  CHECK_EQ_U64(wrong, 0);
}

TEST(communicators_that_do_not_block) {
  unsigned num_in_progress = 0;
  const unsigned wrong = count_seeds([&] {
    Ranks r(false);
    unsigned count = 0;
    for (int i = 0; i < 3; ++i) {
      const ncclResult_t result = r.exchange();
      num_in_progress += result == ncclInProgress ? 1 : 0;
      CHECK(result == ncclInProgress || result == ncclSuccess);
      await(r.comm);
      count += r.num_wrong(rank(), 16);
    }
    return count != 0;
  });
  CHECK_EQ_U64(wrong, 0);
  CHECK(num_in_progress > 0);
}

TEST(one_group_over_two_communicators) {
  const unsigned wrong = count_seeds([] {
    Ranks a;
    Ranks b;
    CHECK_NCCL(ncclGroupStart());
    CHECK_NCCL(ncclAlltoAll(a.from, a.to, PART, ncclInt8, a.comm, a.stream));
    CHECK_NCCL(b.exchange());
    CHECK_NCCL(ncclGroupEnd());
    return a.num_wrong(rank(), 16) + b.num_wrong(rank(), 16) != 0;
  });
  CHECK_EQ_U64(wrong, 0);
}

TEST(a_captured_exchange_repeats) {
  const unsigned wrong = count_seeds([] {
    Ranks r(false);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK_CUDA(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeGlobal));
    r.exchange();
    await(r.comm);
    CHECK_CUDA(cudaStreamEndCapture(r.stream, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    CHECK_CUDA(cudaGraphDestroy(graph));
    unsigned count = 0;
    for (int i = 0; i < 3; ++i) {
      CHECK_CUDA(cudaMemsetAsync(r.from, 7 * i + rank(), MOST, r.stream));
      CHECK_CUDA(cudaGraphLaunch(exec, r.stream));
      count += r.num_wrong(7 * i, 1);
    }
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    return count != 0;
  });
  CHECK_EQ_U64(wrong, 0);
}

/* ---- What is refused ------------------------------------------------------------------------ */

TEST(what_nccl_refuses) {
  Ranks r;
  std::vector<char> host(MOST);
  CHECK_NCCL_IS(ncclAlltoAll(r.to, r.to, PART, ncclInt8, r.comm, r.stream), ncclInvalidArgument);
  CHECK_STR_HAS(ncclGetLastError(r.comm), "ncclAlltoAll in place");
  CHECK_NCCL_IS(ncclSend(r.from, PART, ncclInt8, world(), r.comm, r.stream), ncclInvalidArgument);
  CHECK_NCCL_IS(ncclSend(host.data(), PART, ncclInt8, 0, r.comm, r.stream), ncclInvalidArgument);
  CHECK_STR_HAS(ncclGetLastError(r.comm), "are no device memory");
  CHECK_NCCL_IS(ncclRecv(r.to, MOST + 1, ncclInt8, 0, r.comm, r.stream), ncclInvalidArgument);
  CHECK_NCCL_IS(ncclGroupEnd(), ncclInvalidUsage);
  /* A group with a call that was refused does nothing. */
  CHECK_NCCL(ncclGroupStart());
  CHECK_NCCL(ncclSend(r.from, PART, ncclInt8, rank(), r.comm, r.stream));
  CHECK_NCCL_IS(ncclRecv(host.data(), PART, ncclInt8, rank(), r.comm, r.stream),
                ncclInvalidArgument);
  CHECK_NCCL_IS(ncclGroupEnd(), ncclInvalidArgument);
  CHECK_NCCL(r.exchange());
  CHECK_EQ_U64(r.num_wrong(rank(), 16), 0);
  ncclComm_t comm = nullptr;
  CHECK_NCCL_IS(ncclCommInitRank(&comm, 2, shared_id(), 2), ncclInvalidArgument);
  check_violation("");
}

TEST(ranks_that_are_given_twice) {
  ncclComm_t comm = nullptr;
  const ncclResult_t expected = world() == 1 ? ncclSuccess : ncclInvalidUsage;
  CHECK_NCCL_IS(ncclCommInitRank(&comm, world(), shared_id(), 0), expected);
  CHECK_NCCL(ncclCommAbort(comm));
}

/* ---- What is a violation -------------------------------------------------------------------- */

static void always(const char *part, const std::function<void(Ranks &r)> &host_code,
                   bool is_blocking = true) {
  for (unsigned i = 0; i < 8; ++i) {
    simt_reseed(sy_test_random());
    {
      Ranks r(is_blocking);
      host_code(r);
      CHECK_CUDA(cudaStreamSynchronize(r.stream));
      check_violation(part);
    }
    MPI_Barrier(MPI_COMM_WORLD);
  }
}

TEST(counts_that_differ) {
  if (world() == 1) {
    SKIP("needs a peer");
  }
  always(rank() == 0 ? "" : "counts do not match: rank 0 sends 128 bytes, rank", [](Ranks &r) {
    const size_t count = rank() == 0 ? PART / 2 : PART;
    CHECK_NCCL(ncclGroupStart());
    if (rank() == 0) {
      for (int peer = 1; peer < world(); ++peer) {
        CHECK_NCCL(ncclSend(r.from, count, ncclInt8, peer, r.comm, r.stream));
      }
    } else {
      CHECK_NCCL(ncclRecv(r.to, count, ncclInt8, 0, r.comm, r.stream));
    }
    CHECK_NCCL(ncclGroupEnd());
  });
}

TEST(calls_in_another_order) {
  if (world() == 1) {
    SKIP("needs a peer");
  }
  always("calls do not match: rank", [](Ranks &r) {
    for (int i = 0; i < 2; ++i) {
      if ((i + rank()) % 2 == 0) {
        CHECK_NCCL(ncclAlltoAll(r.from, r.to, PART, ncclInt8, r.comm, r.stream));
      } else {
        CHECK_NCCL(ncclAllGather(r.from, r.to, PART, ncclInt8, r.comm, r.stream));
      }
    }
  });
}

TEST(a_send_to_oneself_without_a_receive) {
  always("sends to itself, 0 receives in one group",
         [](Ranks &r) { CHECK_NCCL(ncclSend(r.from, PART, ncclInt8, rank(), r.comm, r.stream)); });
}

TEST(a_communicator_used_before_it_is_ready) {
  unsigned num_found = 0;
  for (unsigned i = 0; i < 16; ++i) {
    simt_reseed(sy_test_random());
    Ranks r(false);
    if (r.exchange() == ncclInProgress) {
      CHECK_NCCL_IS(ncclAllGather(r.from, r.to, PART, ncclInt8, r.comm, r.stream),
                    ncclInvalidArgument);
      check_violation("ncclAllGather on a communicator that is in progress");
      ++num_found;
    }
    await(r.comm);
    CHECK_CUDA(cudaStreamSynchronize(r.stream));
  }
  CHECK(num_found > 0);
}

TEST(a_stream_that_does_not_wait_for_the_communicator) {
  unsigned num_found = 0;
  for (unsigned i = 0; i < 16; ++i) {
    simt_reseed(sy_test_random());
    Ranks r(false);
    const bool is_in_progress = r.exchange() == ncclInProgress;
    CHECK_CUDA(
        cudaMemsetAsync(r.to, 0, MOST, r.stream)); /* before the communicator took the call */
    await(r.comm);
    check_violation(is_in_progress ? "the stream went on before the communicator had taken a call"
                                   : "");
    num_found += is_in_progress ? 1 : 0;
    CHECK_CUDA(cudaStreamSynchronize(r.stream));
  }
  CHECK(num_found > 0);
}

TEST(a_communicator_used_after_its_end) {
  always("use of what was destroyed: ncclAllGather", [](Ranks &r) {
    CHECK_NCCL(ncclCommAbort(r.comm));
    r.is_comm_alive = false;
    CHECK_NCCL_IS(ncclAllGather(r.from, r.to, PART, ncclInt8, r.comm, r.stream),
                  ncclInvalidArgument);
  });
}

TEST(memory_freed_during_an_exchange) {
  always("in use: ncclMemFree of memory that a call of NCCL (ncclAllGather) uses", [](Ranks &r) {
    void *p = nullptr;
    CHECK_NCCL(ncclMemAlloc(&p, MOST));
    CHECK_NCCL(ncclAllGather(r.from, p, PART, ncclInt8, r.comm, r.stream));
    ncclMemFree(p);
  });
}

/* The receive never comes; the wait is a violation and no hang, and the abort ends the work. */
TEST(a_send_that_nobody_receives) {
  if (world() == 1) {
    SKIP("needs a peer");
  }
  simt_reseed(sy_test_random());
  Ranks r;
  if (rank() == 0) {
    simt_set_patience_ms(300);
    CHECK_NCCL(ncclSend(r.from, PART, ncclInt8, 1, r.comm, r.stream));
    CHECK_CUDA_IS(cudaStreamSynchronize(r.stream), cudaErrorLaunchTimeout);
    check_violation("deadlock: cudaStreamSynchronize waits for work that never ends");
    simt_set_patience_ms(60000);
  }
  CHECK_NCCL(ncclCommAbort(r.comm));
  r.is_comm_alive = false;
}

TEST(a_communicator_that_fails) {
  Ranks r;
  ncclResult_t state = ncclSuccess;
  simt_fail_communicators(ncclRemoteError);
  CHECK_NCCL(ncclCommGetAsyncError(r.comm, &state));
  CHECK_NCCL_IS(state, ncclRemoteError);
  CHECK_NCCL_IS(ncclAllGather(r.from, r.to, PART, ncclInt8, r.comm, r.stream), ncclRemoteError);
  CHECK_NCCL(ncclCommAbort(r.comm));
  r.is_comm_alive = false;
}
