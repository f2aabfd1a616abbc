/* What the two halves of the stand-in for NCCL share: its calls (nccl.cpp) make work for streams, and
 * the work exchanges bytes (nccl_exchange.cpp). Each rank is a process under mpirun. */
#ifndef SY_TESTS_SIMT_COMMUNICATOR_HPP
#define SY_TESTS_SIMT_COMMUNICATOR_HPP

#include <cstdint>
#include <memory>
#include <vector>

#include <nccl.h>

#include "tests/simt/stream.hpp"

namespace simt {

enum class CallKind : uint32_t { point_to_point, all_gather, all_to_all };

/* One message of a call, to or from a peer. */
struct Transfer {
  CallKind kind;
  bool is_send;
  int peer;
  char *data;
  size_t bytes;
};

/* The part of a communicator that its work needs, and that outlives its handle. */
struct Channel {
  int tag = 0; /* of MPI */
  int rank = 0;
  std::vector<int> world_rank; /* in MPI_COMM_WORLD, by rank */
  bool is_aborted = false;
  const void *running = nullptr; /* the work that runs; one at a time */
  uint32_t num_collectives = 0;  /* begun */
};

using ChannelRef = std::shared_ptr<Channel>;

/* The work of one rank's call, or of what a group gathered. A send ends when its receive has begun,
 * never before: a buffer in between would hide a receive that is missing. */
Work exchange_work(const ChannelRef &channel, std::vector<Transfer> transfers);

/* Ranks come together under an id. A step at a time; done: *error_out is NULL or says what is wrong. */
class Assembly {
public:
  Assembly(const ncclUniqueId &id, int num_ranks, int rank, ChannelRef channel);
  bool step(const char **error_out);

private:
  struct Join;
  void gather();

  ChannelRef channel_;
  int num_ranks_;
  int root_;
  std::vector<std::shared_ptr<Join>> joins_; /* the root's: who came */
  const char *error_ = nullptr;
  bool is_sent_ = false;
};

/* An id that ranks which know it can come together under; this process must be one of them. */
ncclUniqueId make_unique_id();

} // namespace simt

#endif
