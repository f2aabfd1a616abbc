/* The stand-in for NCCL: communicators, groups, and what NCCL refuses. */
#include <mpi.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <deque>

#include "tests/simt/communicator.hpp"
#include "tests/simt/memory.hpp"

namespace {

/* What a group gathered for one stream of a communicator. */
struct PendingCall {
  cudaStream_t stream;
  std::vector<simt::Transfer> transfers;
  simt::OpRef last_before; /* on the stream, when the call was made */
  bool was_captured;
};

} // namespace

struct ncclComm {
  simt::ChannelRef channel = std::make_shared<simt::Channel>();
  int num_ranks = 0;
  int device = 0;
  bool is_blocking = true;
  std::unique_ptr<simt::Assembly> assembly; /* until all ranks have come */
  std::deque<PendingCall> pending;          /* not put on their streams yet */
  size_t polls_left = 0;                    /* before they are */
  simt::OpRef last;                         /* the newest call, on whatever stream */
  ncclResult_t error = ncclSuccess;         /* asynchronous */
  char text[256] = "";
};

namespace simt {

namespace {

int group_depth = 0;
ncclResult_t group_error = ncclSuccess;
std::vector<std::pair<ncclComm_t, PendingCall>> group_calls;
std::vector<ncclComm_t> communicators;

__attribute__((format(printf, 3, 4))) ncclResult_t refuse(ncclComm_t comm, ncclResult_t result,
                                                          const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (comm != nullptr) {
    std::memcpy(comm->text, text, sizeof text);
  }
  if (group_depth > 0) {
    group_error = result;
  }
  return result;
}

size_t bytes_of(ncclDataType_t type) {
  static constexpr size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return bytes[type];
}

/* Puts a call on its stream, behind the communicator's calls before. */
ncclResult_t put(ncclComm_t comm, const PendingCall &call) {
  Work work = exchange_work(comm->channel, call.transfers);
  if (call.was_captured != (call.stream->capture != nullptr) ||
      (!call.was_captured && call.stream->last != call.last_before)) {
    fail_host(Kind::communication,
              "the stream went on before the communicator had taken a call (ncclInProgress)");
  }
  const OpRef before = comm->last;
  if (before != nullptr && !call.was_captured) {
    work.begin = [begin = work.begin, before] {
      return [step = begin(), before] { return before->is_done ? step() : Step::stuck; };
    };
  }
  if (submit(call.stream, std::move(work)) != cudaSuccess) {
    return refuse(comm, ncclUnhandledCudaError, "the stream does not take the call");
  }
  comm->last = call.was_captured ? before : call.stream->last;
  return ncclSuccess;
}

ncclResult_t put_pending(ncclComm_t comm) {
  while (!comm->pending.empty()) {
    const PendingCall call = comm->pending.front();
    comm->pending.pop_front();
    const ncclResult_t result = put(comm, call);
    if (result != ncclSuccess) {
      return result;
    }
  }
  return ncclSuccess;
}

/* Moves a communicator that is in progress along. */
ncclResult_t poll_communicator(ncclComm_t comm) {
  if (comm->error != ncclSuccess) {
    return comm->error;
  }
  if (comm->assembly != nullptr) {
    const char *error = nullptr;
    if (!comm->assembly->step(&error)) {
      return ncclInProgress;
    }
    comm->assembly = nullptr;
    if (error != nullptr) {
      comm->error = refuse(comm, ncclInvalidUsage, "%s", error);
      return comm->error;
    }
  }
  if (comm->polls_left > 0 && --comm->polls_left > 0) {
    return ncclInProgress;
  }
  comm->error = put_pending(comm);
  return comm->error;
}

/* Whether the communicator takes a call now. */
ncclResult_t check_ready(ncclComm_t comm, const char *call) {
  if (enter(call) != cudaSuccess) {
    return refuse(nullptr, ncclUnhandledCudaError, "the device is lost");
  }
  if (comm == nullptr || !is_alive(comm, call)) {
    return refuse(nullptr, ncclInvalidArgument, "%s: no communicator", call);
  }
  if (comm->assembly != nullptr || !comm->pending.empty()) {
    fail_host(Kind::communication, "%s on a communicator that is in progress", call);
    return refuse(comm, ncclInvalidArgument,
                  "Attempt to use communicator before the previous operation returned ncclSuccess");
  }
  return comm->error == ncclSuccess ? ncclSuccess
                                    : refuse(comm, comm->error, "the communicator failed before");
}

ncclResult_t check_buffer(ncclComm_t comm, const void *data, size_t bytes, const char *call) {
  if (bytes > 0 && !is_device_memory(data, bytes)) {
    return refuse(comm, ncclInvalidArgument, "%s: %zu bytes at %p are no device memory", call,
                  bytes, data);
  }
  return ncclSuccess;
}

/* The group's call on this stream of this communicator. A collective stands alone. */
PendingCall *call_of(ncclComm_t comm, cudaStream_t stream, CallKind kind) {
  for (auto &entry : group_calls) {
    if (entry.first == comm && entry.second.stream == stream && kind == CallKind::point_to_point &&
        entry.second.transfers[0].kind == kind) {
      return &entry.second;
    }
  }
  group_calls.push_back({comm, {stream, {}, stream->last, stream->capture != nullptr}});
  return &group_calls.back().second;
}

ncclResult_t add(ncclComm_t comm, cudaStream_t handle, const std::vector<Transfer> &transfers) {
  cudaStream_t stream = stream_of(handle, "a call of NCCL");
  if (stream == nullptr) {
    return refuse(comm, ncclInvalidArgument, "the stream was destroyed");
  }
  PendingCall *call = call_of(comm, stream, transfers[0].kind);
  call->transfers.insert(call->transfers.end(), transfers.begin(), transfers.end());
  return ncclSuccess;
}

/* A communicator that does not block takes calls at once, or some polls later. */
ncclResult_t take_group() {
  std::vector<std::pair<ncclComm_t, PendingCall>> calls;
  calls.swap(group_calls);
  bool is_in_progress = false;
  for (auto &entry : calls) {
    ncclComm_t comm = entry.first;
    if (!comm->is_blocking && (!comm->pending.empty() || stream_random().one_in(2))) {
      comm->polls_left = 1 + stream_random().below(4);
      comm->pending.push_back(std::move(entry.second));
      is_in_progress = true;
    } else if (put(comm, entry.second) != ncclSuccess) {
      return ncclUnhandledCudaError;
    }
  }
  return is_in_progress ? ncclInProgress : ncclSuccess;
}

ncclResult_t point_to_point(bool is_send, void *data, size_t count, ncclDataType_t type, int peer,
                            ncclComm_t comm, cudaStream_t stream) {
  const char *call = is_send ? "ncclSend" : "ncclRecv";
  const size_t bytes = count * bytes_of(type);
  ncclGroupStart();
  ncclResult_t result = check_ready(comm, call);
  if (result == ncclSuccess && (peer < 0 || peer >= comm->num_ranks)) {
    result =
        refuse(comm, ncclInvalidArgument, "%s: peer %d of %d ranks", call, peer, comm->num_ranks);
  }
  if (result == ncclSuccess) {
    result = check_buffer(comm, data, bytes, call);
  }
  if (result == ncclSuccess && bytes > 0) {
    add(comm, stream,
        {{CallKind::point_to_point, is_send, peer, static_cast<char *>(data), bytes}});
  }
  const ncclResult_t ended = ncclGroupEnd();
  return result != ncclSuccess ? result : ended;
}

/* Own data to each peer, the peers' into parts of `to`. Own part `mine`, copied unless in place. */
ncclResult_t collective(CallKind kind, const void *from, void *to, size_t bytes, ncclComm_t comm,
                        cudaStream_t stream) {
  char *source = const_cast<char *>(static_cast<const char *>(from));
  char *target = static_cast<char *>(to);
  std::vector<Transfer> transfers;
  for (int i = 0; i < comm->num_ranks; ++i) {
    const int peer = (comm->channel->rank + i) % comm->num_ranks;
    const size_t begin = static_cast<size_t>(peer) * bytes;
    char *part = kind == CallKind::all_to_all ? source + begin : source;
    if (i > 0 || part != target + begin) {
      transfers.push_back({kind, true, peer, part, bytes});
      transfers.push_back({kind, false, peer, target + begin, bytes});
    }
  }
  if (bytes == 0 || transfers.empty()) {
    return ncclSuccess;
  }
  return add(comm, stream, transfers);
}

} // namespace

} // namespace simt

using namespace simt;

void simt_fail_communicators(int result) {
  for (ncclComm_t comm : communicators) {
    comm->error = static_cast<ncclResult_t>(result);
    snprintf(comm->text, sizeof comm->text, "a test said so");
  }
}

ncclResult_t ncclGetVersion(int *version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
  static const char *const texts[] = {"no error",
                                      "unhandled cuda error",
                                      "system error",
                                      "internal error",
                                      "invalid argument",
                                      "invalid usage",
                                      "remote process exited or there was a network error",
                                      "NCCL operation in progress"};
  return result >= 0 && result < ncclNumResults ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t comm) { return comm != nullptr ? comm->text : ""; }

/* ---- Communicators -------------------------------------------------------------------------- */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  *id = make_unique_id();
  return ncclSuccess;
}

static ncclResult_t wait_until_ready(ncclComm_t comm) {
  ncclResult_t result = ncclInProgress;
  const auto is_ready = [&] {
    result = poll_communicator(comm);
    return result != ncclInProgress;
  };
  return run_until(is_ready, "ncclCommInitRank") == cudaSuccess ? result : ncclSystemError;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
  if (enter_unrecorded(__func__) != cudaSuccess) {
    return ncclUnhandledCudaError;
  }
  if (config != nullptr && (config->magic != 0xcafebeef || config->size != sizeof *config)) {
    return ncclInvalidArgument;
  }
  if (comm == nullptr || nranks < 1 || rank < 0 || rank >= nranks) {
    return ncclInvalidArgument;
  }
  ncclComm_t fresh = new ncclComm();
  fresh->num_ranks = nranks;
  cudaGetDevice(&fresh->device);
  fresh->is_blocking = config == nullptr || config->blocking != 0;
  fresh->assembly = std::make_unique<Assembly>(id, nranks, rank, fresh->channel);
  communicators.push_back(fresh);
  note_alive(fresh);
  *comm = fresh;
  return fresh->is_blocking ? wait_until_ready(fresh) : ncclInProgress;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId id, int rank) {
  return ncclCommInitRankConfig(comm, nranks, id, rank, nullptr);
}

static void release(ncclComm_t comm) {
  comm->channel->is_aborted = true; /* its work ends, wherever it stands */
  for (size_t i = 0; i < communicators.size(); ++i) {
    if (communicators[i] == comm) {
      communicators.erase(communicators.begin() + static_cast<std::ptrdiff_t>(i));
      break;
    }
  }
  note_destroyed(comm);
  delete comm;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) { return check_ready(comm, __func__); }

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm == nullptr || !is_alive(comm, __func__)) {
    return ncclInvalidArgument;
  }
  if (!comm->pending.empty() || (comm->last != nullptr && !comm->last->is_done)) {
    fail_host(Kind::in_use, "%s: calls of the communicator were not waited for", __func__);
  }
  release(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (comm == nullptr || !is_alive(comm, __func__)) {
    return ncclInvalidArgument;
  }
  release(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
  if (comm == nullptr || error == nullptr || !is_alive(comm, __func__)) {
    return ncclInvalidArgument;
  }
  *error = poll_communicator(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
  const ncclResult_t result = check_ready(comm, __func__);
  *count = result == ncclSuccess ? comm->num_ranks : *count;
  return result;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
  const ncclResult_t result = check_ready(comm, __func__);
  *rank = result == ncclSuccess ? comm->channel->rank : *rank;
  return result;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device) {
  const ncclResult_t result = check_ready(comm, __func__);
  *device = result == ncclSuccess ? comm->device : *device;
  return result;
}

ncclResult_t ncclMemAlloc(void **memory, size_t bytes) {
  return enter_unrecorded(__func__) == cudaSuccess && allocate_device(memory, bytes) == cudaSuccess
             ? ncclSuccess
             : ncclUnhandledCudaError;
}

ncclResult_t ncclMemFree(void *memory) {
  return memory == nullptr || (enter_unrecorded(__func__) == cudaSuccess &&
                               release_device(memory, __func__) == cudaSuccess)
             ? ncclSuccess
             : ncclUnhandledCudaError;
}

/* ---- Calls ---------------------------------------------------------------------------------- */

ncclResult_t ncclGroupStart(void) {
  ++group_depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
  if (group_depth == 0) {
    return ncclInvalidUsage;
  }
  if (--group_depth > 0) {
    return ncclSuccess;
  }
  const ncclResult_t error = group_error;
  group_error = ncclSuccess;
  if (error != ncclSuccess) {
    group_calls.clear();
    return error;
  }
  return take_group();
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return point_to_point(true, const_cast<void *>(from), count, type, peer, comm, stream);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return point_to_point(false, to, count, type, peer, comm, stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  const size_t bytes = count * bytes_of(type);
  ncclGroupStart();
  ncclResult_t result = check_ready(comm, __func__);
  if (result == ncclSuccess) {
    result = check_buffer(comm, from, bytes, __func__);
  }
  if (result == ncclSuccess) {
    result = check_buffer(comm, to, bytes * static_cast<size_t>(comm->num_ranks), __func__);
  }
  if (result == ncclSuccess) {
    collective(CallKind::all_gather, from, to, bytes, comm, stream);
  }
  const ncclResult_t ended = ncclGroupEnd();
  return result != ncclSuccess ? result : ended;
}

ncclResult_t ncclAlltoAll(const void *from, void *to, size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream) {
  const size_t bytes = count * bytes_of(type);
  ncclGroupStart();
  ncclResult_t result = check_ready(comm, __func__);
  if (result == ncclSuccess && from == to) {
    result = refuse(comm, ncclInvalidArgument, "%s in place", __func__);
  }
  for (const void *side : {from, static_cast<const void *>(to)}) {
    if (result == ncclSuccess) {
      result = check_buffer(comm, side, bytes * static_cast<size_t>(comm->num_ranks), __func__);
    }
  }
  if (result == ncclSuccess) {
    collective(CallKind::all_to_all, from, to, bytes, comm, stream);
  }
  const ncclResult_t ended = ncclGroupEnd();
  return result != ncclSuccess ? result : ended;
}

/* ---- MPI ------------------------------------------------------------------------------------ */

/* NCCL's thread and the GPU go on while their host waits for others by MPI: what our transport polls
 * with. (MPI's profiling interface. The exchanges here poll with other calls.) */
int MPI_Testsome(int num_requests, MPI_Request requests[], int *num_done, int done[],
                 MPI_Status statuses[]) {
  for (ncclComm_t comm : communicators) {
    poll_communicator(comm);
  }
  advance();
  return PMPI_Testsome(num_requests, requests, num_done, done, statuses);
}
