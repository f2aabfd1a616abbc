/* Streams: work that is asked for now and runs late.
 *
 * Work on one stream runs in order; between streams the order is drawn from the seed, except where
 * events say otherwise. It runs when the host waits or asks, some of it also when it is asked for:
 * under some seeds at once, under others as late as can be. What host code forgot to wait for then
 * shows as poison, as stale values, or as a violation. */
#ifndef SY_TESTS_SIMT_STREAM_HPP
#define SY_TESTS_SIMT_STREAM_HPP

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "tests/simt/host.h"
#include "tests/simt/launch.hpp"

namespace simt {

struct Range {
  char *begin;
  size_t bytes;
};

enum class Step {
  done,
  moved, /* there is more to do */
  stuck  /* it waits for another process */
};

/* What a stream is asked to do. A graph begins it once for each of its launches. */
struct Work {
  std::string name;
  std::function<std::function<Step()>()> begin; /* gives what does a part of it, until done */
  std::vector<Range> uses;                      /* memory that it reads or writes, where known */
  std::vector<Range> host_writes; /* of these, host memory that the host may not touch meanwhile */
};

/* Work on a stream. */
struct Op {
  Work work;
  std::function<Step()> step;             /* empty until it has begun */
  std::vector<std::shared_ptr<Op>> after; /* what must be done before; empty once observed */
  bool is_done = false;
  bool is_observed = false; /* the host knows that it is done */
};

using OpRef = std::shared_ptr<Op>;

/* A stream is being recorded. */
struct Node {
  Work work;
  std::vector<size_t> after; /* numbers of nodes */
};

struct Capture {
  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  bool is_invalid = false;
  std::vector<Node> nodes;
  std::vector<cudaStream_t> streams; /* that it goes through */
};

/* Puts work at the end of a stream, or into the graph that the stream is recorded to. */
cudaError_t submit(cudaStream_t stream, Work work);

/* Does a part of some stream's next work. False: nothing can be done now. */
bool advance();

/* Runs work until `is_over`. LaunchTimeout, and a violation, instead of waiting for ever. */
cudaError_t run_until(const std::function<bool()> &is_over, const char *call);

/* The host has seen that an op is done, and so all that came before it. */
void observe(const OpRef &op);

/* Whether work that the host has not waited for uses any of these bytes; *name_out: which. */
bool is_in_use(const void *p, size_t bytes, std::string *name_out);

/* While it lives, hidden memory and what work writes to can be touched. */
class DeviceTurn {
public:
  DeviceTurn();
  ~DeviceTurn();
  DeviceTurn(const DeviceTurn &) = delete;
  DeviceTurn &operator=(const DeviceTurn &) = delete;
};

/* First thing in every runtime call: an earlier error of the device, or a call from a host function
 * or from another thread than the first call's. */
cudaError_t enter(const char *call);

/* As enter, where the machine has a driver and a device. */
cudaError_t enter_device(const char *call);

/* Device memory, and how much of it there is. */
cudaError_t allocate_device(void **memory, size_t bytes);
cudaError_t release_device(void *memory, const char *call);
size_t free_device_bytes();
void take_device_bytes(int64_t bytes);

/* Keeps an error for cudaGetLastError, and hands it on. */
cudaError_t remember(cudaError_t error);

/* As enter; and a violation, which spoils the recording, where a stream is recorded in a mode that
 * forbids calls of this kind. */
cudaError_t enter_unrecorded(const char *call);

/* Whether the handle is of something alive; a violation otherwise. */
bool is_alive(const void *handle, const char *call);
void note_alive(const void *handle);
void note_destroyed(const void *handle);

/* The stream of a handle: the legacy one for NULL. nullptr, and a violation, when it is destroyed. */
cudaStream_t stream_of(cudaStream_t handle, const char *call);

/* All streams alive, the legacy one first. */
const std::vector<cudaStream_t> &all_streams();

Random &stream_random();

struct simt_counts &counts();

#define SIMT_ENTER(entered)               \
  do {                                    \
    const cudaError_t entered_ = entered; \
    if (entered_ != cudaSuccess) {        \
      return simt::remember(entered_);    \
    }                                     \
  } while (0)

} // namespace simt

struct CUstream_st {
  unsigned flags = 0;
  std::deque<simt::OpRef> queue; /* not done */
  simt::OpRef last;              /* the newest, done or not */
  std::shared_ptr<simt::Capture> capture;
  std::vector<size_t> tail; /* nodes that the next one comes after */
};

struct CUevent_st {
  simt::OpRef op; /* null: never recorded, or recorded in a capture */
  std::shared_ptr<int64_t> time_ns;
  std::weak_ptr<simt::Capture> capture;
  std::vector<size_t> tail;
};

#endif
