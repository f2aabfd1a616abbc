#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include "tests/simt/communicator.hpp"
#include "tests/simt/memory.hpp"

namespace simt {

namespace {

constexpr int FIRST_TAG = 1 << 12; /* below it tags are the tests' own */
constexpr int IDS_PER_RANK = 1 << 8;

/* Before each message's bytes. */
struct Head {
  CallKind kind;
  uint32_t collective; /* how many the sender began before */
  uint64_t bytes;
};

struct Sending {
  std::vector<char> message;
  MPI_Request request;
};

/* Messages that nobody received, and MPI still reads. */
std::vector<std::unique_ptr<Sending>> &abandoned() {
  static auto *sendings = new std::vector<std::unique_ptr<Sending>>();
  return *sendings;
}

const char *name_of(CallKind kind) {
  static constexpr const char *names[] = {"ncclSend", "ncclAllGather", "ncclAlltoAll"};
  return names[static_cast<size_t>(kind)];
}

/* One call under way. */
class Exchange {
public:
  Exchange(ChannelRef channel, std::vector<Transfer> transfers)
      : channel_(std::move(channel)), transfers_(std::move(transfers)),
        receives_(channel_->world_rank.size()) {}

  ~Exchange() {
    for (auto &sending : sends_) {
      abandoned().push_back(std::move(sending));
    }
    if (channel_->running == this) {
      channel_->running = nullptr;
    }
  }

  Step step() {
    if (channel_->is_aborted) {
      return finish();
    }
    if (channel_->running != nullptr && channel_->running != this) {
      return Step::stuck;
    }
    if (!has_begun_) {
      begin();
    }
    const bool has_moved = progress_sends() | progress_receives();
    if (sends_.empty() && num_receives_ == 0) {
      return finish();
    }
    return has_moved ? Step::moved : Step::stuck;
  }

private:
  Step finish() {
    channel_->running = channel_->running == this ? nullptr : channel_->running;
    return Step::done;
  }

  void begin() {
    has_begun_ = true;
    channel_->running = this;
    std::deque<const Transfer *> own_sends;
    std::deque<const Transfer *> own_receives;
    for (const Transfer &transfer : transfers_) {
      if (transfer.peer == channel_->rank) {
        (transfer.is_send ? own_sends : own_receives).push_back(&transfer);
      } else if (transfer.is_send) {
        send(transfer);
      } else {
        std::memset(transfer.data, POISON, transfer.bytes);
        receives_[static_cast<size_t>(transfer.peer)].push_back(&transfer);
        ++num_receives_;
      }
    }
    copy_own(own_sends, own_receives);
    const bool is_collective =
        !transfers_.empty() && transfers_[0].kind != CallKind::point_to_point;
    collective_ = channel_->num_collectives;
    channel_->num_collectives += is_collective ? 1 : 0;
  }

  void copy_own(const std::deque<const Transfer *> &from, const std::deque<const Transfer *> &to) {
    for (size_t i = 0; i < std::min(from.size(), to.size()); ++i) {
      if (from[i]->bytes != to[i]->bytes) {
        fail_host(Kind::communication, "rank %d sends %zu bytes to itself and receives %zu",
                  channel_->rank, from[i]->bytes, to[i]->bytes);
      }
      std::memmove(to[i]->data, from[i]->data, std::min(from[i]->bytes, to[i]->bytes));
    }
    if (from.size() != to.size()) {
      fail_host(Kind::communication, "rank %d: %zu sends to itself, %zu receives in one group",
                channel_->rank, from.size(), to.size());
    }
  }

  void send(const Transfer &transfer) {
    auto sending = std::make_unique<Sending>();
    const Head head = {transfer.kind, channel_->num_collectives, transfer.bytes};
    sending->message.resize(sizeof head + transfer.bytes);
    std::memcpy(sending->message.data(), &head, sizeof head);
    if (transfer.bytes > 0) {
      std::memcpy(sending->message.data() + sizeof head, transfer.data, transfer.bytes);
    }
    MPI_Issend(sending->message.data(), static_cast<int>(sending->message.size()), MPI_BYTE,
               world_rank(transfer.peer), channel_->tag, MPI_COMM_WORLD, &sending->request);
    sends_.push_back(std::move(sending));
  }

  bool progress_sends() {
    const size_t before = sends_.size();
    sends_.erase(std::remove_if(sends_.begin(), sends_.end(),
                                [](const std::unique_ptr<Sending> &sending) {
                                  int is_done = 0;
                                  MPI_Test(&sending->request, &is_done, MPI_STATUS_IGNORE);
                                  return is_done != 0;
                                }),
                 sends_.end());
    return sends_.size() != before;
  }

  bool progress_receives() {
    bool has_moved = false;
    for (auto &pending : receives_) {
      while (!pending.empty() && receive(*pending.front())) {
        pending.pop_front();
        --num_receives_;
        has_moved = true;
      }
    }
    return has_moved;
  }

  bool receive(const Transfer &transfer) {
    int is_there = 0;
    MPI_Message handle = MPI_MESSAGE_NULL;
    MPI_Status status;
    MPI_Improbe(world_rank(transfer.peer), channel_->tag, MPI_COMM_WORLD, &is_there, &handle,
                &status);
    if (is_there == 0) {
      return false;
    }
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    std::vector<char> message(static_cast<size_t>(bytes));
    MPI_Mrecv(message.data(), bytes, MPI_BYTE, &handle, MPI_STATUS_IGNORE);
    Head head;
    std::memcpy(&head, message.data(), sizeof head);
    if (matches(head, transfer) && transfer.bytes > 0) {
      std::memcpy(transfer.data, message.data() + sizeof head, transfer.bytes);
    }
    return true;
  }

  bool matches(const Head &head, const Transfer &transfer) const {
    if (head.kind != transfer.kind ||
        (head.kind != CallKind::point_to_point && head.collective != collective_)) {
      fail_host(Kind::communication,
                "calls do not match: rank %d is in %s (collective %u), rank %d in %s (%u)",
                transfer.peer, name_of(head.kind), head.collective, channel_->rank,
                name_of(transfer.kind), collective_);
      return false;
    }
    if (head.bytes != transfer.bytes) {
      fail_host(Kind::communication,
                "counts do not match: rank %d sends %zu bytes, rank %d "
                "receives %zu (%s)",
                transfer.peer, static_cast<size_t>(head.bytes), channel_->rank, transfer.bytes,
                name_of(transfer.kind));
      return false;
    }
    return true;
  }

  int world_rank(int rank) const { return channel_->world_rank[static_cast<size_t>(rank)]; }

  ChannelRef channel_;
  std::vector<Transfer> transfers_;
  bool has_begun_ = false;
  uint32_t collective_ = 0;
  std::vector<std::unique_ptr<Sending>> sends_;
  std::vector<std::deque<const Transfer *>> receives_; /* by rank, in the order asked for */
  size_t num_receives_ = 0;
};

} // namespace

Work exchange_work(const ChannelRef &channel, std::vector<Transfer> transfers) {
  Work work;
  work.name = std::string("a call of NCCL (") + name_of(transfers[0].kind) + ")";
  for (const Transfer &transfer : transfers) {
    work.uses.push_back({transfer.data, transfer.bytes});
  }
  work.begin = [channel, transfers = std::move(transfers)] {
    auto exchange = std::make_shared<Exchange>(channel, transfers);
    return [exchange] { return exchange->step(); };
  };
  return work;
}

/* ---- Coming together ------------------------------------------------------------------------ */

namespace {

/* What an id holds. */
struct Identity {
  char magic[8];
  int root; /* in MPI_COMM_WORLD */
  int tag;
};

constexpr char MAGIC[8] = "simt-id";

Identity identity_of(const ncclUniqueId &id) {
  Identity identity;
  std::memcpy(&identity, id.internal, sizeof identity);
  return identity;
}

int own_world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

} // namespace

struct Assembly::Join {
  int num_ranks;
  int rank;
  int world_rank;
};

ncclUniqueId make_unique_id() {
  static int num_ids = 0;
  Identity identity = {};
  std::memcpy(identity.magic, MAGIC, sizeof MAGIC);
  identity.root = own_world_rank();
  /* A tag for coming together, and the next for the communicator's messages. */
  identity.tag = FIRST_TAG + 2 * (identity.root * IDS_PER_RANK + num_ids++ % IDS_PER_RANK);
  ncclUniqueId id = {};
  std::memcpy(id.internal, &identity, sizeof identity);
  return id;
}

Assembly::Assembly(const ncclUniqueId &id, int num_ranks, int rank, ChannelRef channel)
    : channel_(std::move(channel)), num_ranks_(num_ranks), root_(identity_of(id).root) {
  const Identity identity = identity_of(id);
  channel_->rank = rank;
  channel_->tag = identity.tag + 1;
  if (std::memcmp(identity.magic, MAGIC, sizeof MAGIC) != 0) {
    error_ = "the unique id is none";
    return;
  }
  const Join join = {num_ranks, rank, own_world_rank()};
  if (join.world_rank == root_) {
    joins_.push_back(std::make_shared<Join>(join));
  } else { /* small enough for MPI to take along */
    MPI_Request request;
    auto *message = new Sending{std::vector<char>(sizeof join), MPI_REQUEST_NULL};
    std::memcpy(message->message.data(), &join, sizeof join);
    MPI_Isend(message->message.data(), sizeof join, MPI_BYTE, root_, identity.tag, MPI_COMM_WORLD,
              &request);
    message->request = request;
    abandoned().emplace_back(message);
  }
}

void Assembly::gather() {
  int is_there = 1;
  while (is_there != 0 && joins_.size() < static_cast<size_t>(num_ranks_)) {
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, channel_->tag - 1, MPI_COMM_WORLD, &is_there, &status);
    if (is_there != 0) {
      Join join;
      MPI_Recv(&join, sizeof join, MPI_BYTE, status.MPI_SOURCE, channel_->tag - 1, MPI_COMM_WORLD,
               MPI_STATUS_IGNORE);
      joins_.push_back(std::make_shared<Join>(join));
    }
  }
}

bool Assembly::step(const char **error_out) {
  const size_t num_ranks = static_cast<size_t>(num_ranks_);
  *error_out = error_;
  if (error_ != nullptr || !channel_->world_rank.empty()) {
    return true;
  }
  std::vector<int> table(num_ranks, -1);
  if (joins_.empty()) {
    int is_there = 0;
    MPI_Iprobe(root_, channel_->tag - 1, MPI_COMM_WORLD, &is_there, MPI_STATUS_IGNORE);
    if (is_there == 0) {
      return false;
    }
    MPI_Recv(table.data(), num_ranks_, MPI_INT, root_, channel_->tag - 1, MPI_COMM_WORLD,
             MPI_STATUS_IGNORE);
  } else {
    gather();
    if (joins_.size() < num_ranks) {
      return false;
    }
    for (const auto &join : joins_) {
      if (join->num_ranks == num_ranks_ && join->rank < num_ranks_) {
        table[static_cast<size_t>(join->rank)] = join->world_rank;
      }
    }
    for (const auto &join : joins_) {
      if (join->world_rank != root_) {
        auto *message = new Sending{std::vector<char>(num_ranks * sizeof(int)), MPI_REQUEST_NULL};
        std::memcpy(message->message.data(), table.data(), num_ranks * sizeof(int));
        MPI_Isend(message->message.data(), num_ranks_, MPI_INT, join->world_rank, channel_->tag - 1,
                  MPI_COMM_WORLD, &message->request);
        abandoned().emplace_back(message);
      }
    }
  }
  if (std::find(table.begin(), table.end(), -1) != table.end()) {
    error_ = "ranks or their number differ from what they must be";
    *error_out = error_;
    return true;
  }
  channel_->world_rank = table;
  return true;
}

} // namespace simt
