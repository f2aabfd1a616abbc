#include "tests/simt/stream.hpp"

#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <unordered_set>

#include "tests/simt/memory.hpp"
#include "tests/simt/sanitizer.hpp"

namespace simt {

namespace {

/* How soon work runs that was asked for. */
enum class Haste { at_once, now_and_then, when_waited_for };

struct State {
  Random random{1};
  Haste haste = Haste::now_and_then;
  cudaError_t device_error = cudaSuccess; /* of a kernel: all later calls return it */
  cudaError_t last_error = cudaSuccess;
  bool is_in_host_function = false;
  int num_device_turns = 0;
  int64_t patience_ms = 60000;
  std::thread::id thread;
  bool has_thread = false;
  std::vector<cudaStream_t> streams;
  std::vector<OpRef> unobserved;
  std::unordered_set<const void *> alive;
  std::unordered_set<const void *> destroyed;
  struct simt_counts counts = {};
};

State &state() {
  static State *the_state = new State(); /* outlives what destructors call */
  return *the_state;
}

int64_t now_ns() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

/* ---- Observation ---------------------------------------------------------------------------- */

void forget_observed() {
  auto &ops = state().unobserved;
  ops.erase(std::remove_if(ops.begin(), ops.end(), [](const OpRef &op) { return op->is_observed; }),
            ops.end());
}

/* Once per doubling, so that a program that never waits stays linear. */
void note_unobserved(const OpRef &op) {
  auto &ops = state().unobserved;
  if (ops.size() == ops.capacity()) {
    forget_observed();
  }
  ops.push_back(op);
}

void mark_host_writes(const Op &op, bool is_forbidden) {
  for (const Range &range : op.work.host_writes) {
    is_forbidden ? forbid(range.begin, range.bytes) : allow(range.begin, range.bytes);
  }
}

/* What the host may not touch yet, unless the device has its turn. */
void forbid_host_writes() {
  if (has_asan && state().num_device_turns == 0) {
    for (const OpRef &op : state().unobserved) {
      if (!op->is_observed) {
        mark_host_writes(*op, true);
      }
    }
  }
}

bool overlaps(const Range &range, const void *p, size_t bytes) {
  const char *begin = static_cast<const char *>(p);
  return range.begin < begin + bytes && begin < range.begin + range.bytes;
}

/* ---- Running -------------------------------------------------------------------------------- */

bool is_ready(const Op &op) {
  return std::all_of(op.after.begin(), op.after.end(), [](const OpRef &o) { return o->is_done; });
}

Step step_of(Op &op) {
  if (state().device_error != cudaSuccess) {
    return Step::done; /* the device is lost: nothing runs any more */
  }
  DeviceTurn turn;
  if (!op.step) {
    op.step = op.work.begin();
  }
  return op.step();
}

cudaError_t enqueue_launch(cudaStream_t handle, Launch launch) {
  const cudaError_t error = enter("a kernel launch");
  if (error != cudaSuccess) {
    return remember(error);
  }
  ++state().counts.launches;
  Work work;
  work.name = std::string("kernel ") + launch.kernel;
  for (const void *p : launch.arguments) {
    const GuardedMemory *piece = device_piece(p);
    work.uses.push_back({piece->data(), piece->bytes()});
  }
  work.begin = [launch = std::move(launch)] {
    return [launch] {
      std::optional<Violation> violation = run(launch);
      if (violation) {
        state().device_error = keep_violation(std::move(*violation));
      }
      return Step::done;
    };
  };
  return remember(submit(handle, std::move(work)));
}

bool find_host_write(const void *p, std::string *name_out) {
  for (const OpRef &op : state().unobserved) {
    for (const Range &range : op->work.host_writes) {
      if (!op->is_observed && overlaps(range, p, 1)) {
        *name_out = op->work.name;
        return true;
      }
    }
  }
  return false;
}

/* A violation that no test looked at. */
void report_at_exit() {
  const auto violation = take_violation();
  if (violation) {
    fprintf(stderr, "a violation that nobody looked at: %s\n", violation->text().c_str());
    fflush(stderr);
    _exit(1);
  }
}

/* Kernels go to streams in every program that makes a runtime call. */
__attribute__((constructor)) void take_launches() {
  enqueue = enqueue_launch;
  is_written_by_device = find_host_write;
  const char *seed = getenv("SY_TEST_SEED");
  simt_reseed(seed != nullptr ? strtoull(seed, nullptr, 0) : 1);
  atexit(report_at_exit);
}

} // namespace

Random &stream_random() { return state().random; }

struct simt_counts &counts() {
  return state().counts;
}

const std::vector<cudaStream_t> &all_streams() {
  if (state().streams.empty()) {
    state().streams.push_back(new CUstream_st());
  }
  return state().streams;
}

/* ---- Handles -------------------------------------------------------------------------------- */

void note_alive(const void *handle) {
  state().alive.insert(handle);
  state().destroyed.erase(handle);
}

void note_destroyed(const void *handle) {
  state().alive.erase(handle);
  state().destroyed.insert(handle);
}

bool is_alive(const void *handle, const char *call) {
  if (state().alive.count(handle) != 0) {
    return true;
  }
  fail_host(Kind::destroyed, "%s of %p, which %s", call, handle,
            state().destroyed.count(handle) != 0 ? "was destroyed" : "never was created");
  return false;
}

cudaStream_t stream_of(cudaStream_t handle, const char *call) {
  if (handle == nullptr || handle == cudaStreamLegacy || handle == all_streams()[0]) {
    return all_streams()[0];
  }
  return is_alive(handle, call) ? handle : nullptr;
}

/* ---- Entering ------------------------------------------------------------------------------- */

cudaError_t enter(const char *call) {
  State &s = state();
  if (!s.has_thread) {
    s.thread = std::this_thread::get_id();
    s.has_thread = true;
  }
  if (s.thread != std::this_thread::get_id()) {
    fail_host(Kind::limit, "%s by another thread: the emulator has one", call);
    return cudaErrorNotPermitted;
  }
  if (s.is_in_host_function) {
    fail_host(Kind::deadlock, "%s in a host function of a stream", call);
    return cudaErrorNotPermitted;
  }
  return s.device_error;
}

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) {
    state().last_error = error;
  }
  return error;
}

cudaError_t enter_unrecorded(const char *call) {
  const cudaError_t error = enter(call);
  if (error != cudaSuccess) {
    return error;
  }
  for (cudaStream_t stream : all_streams()) {
    if (stream->capture != nullptr && stream->capture->mode != cudaStreamCaptureModeRelaxed) {
      stream->capture->is_invalid = true;
      fail_host(Kind::capture, "%s while a stream is captured", call);
      return cudaErrorStreamCaptureUnsupported;
    }
  }
  return cudaSuccess;
}

/* ---- Work ----------------------------------------------------------------------------------- */

DeviceTurn::DeviceTurn() {
  if (has_asan && state().num_device_turns++ == 0) {
    show_hidden_memory();
    for (const OpRef &op : state().unobserved) {
      mark_host_writes(*op, false);
    }
  }
}

DeviceTurn::~DeviceTurn() {
  if (has_asan && --state().num_device_turns == 0) {
    hide_hidden_memory();
    forbid_host_writes();
  }
}

/* Iterative: chains of work get long. */
void observe(const OpRef &last) {
  std::vector<OpRef> pending;
  if (last != nullptr && !last->is_observed) {
    pending.push_back(last);
  }
  while (!pending.empty()) {
    const OpRef op = std::move(pending.back());
    pending.pop_back();
    if (op->is_observed) {
      continue;
    }
    op->is_observed = true;
    if (has_asan) {
      mark_host_writes(*op, false);
    }
    pending.insert(pending.end(), op->after.begin(), op->after.end());
    op->after.clear();
  }
  forbid_host_writes();
}

bool is_in_use(const void *p, size_t bytes, std::string *name_out) {
  for (const OpRef &op : state().unobserved) {
    for (const Range &range : op->work.uses) {
      if (!op->is_observed && overlaps(range, p, bytes)) {
        *name_out = op->work.name;
        return true;
      }
    }
  }
  return false;
}

static cudaError_t record(cudaStream_t stream, Work work) {
  Capture &capture = *stream->capture;
  if (capture.is_invalid) {
    return cudaErrorStreamCaptureInvalidated;
  }
  capture.nodes.push_back({std::move(work), stream->tail});
  stream->tail = {capture.nodes.size() - 1};
  return cudaSuccess;
}

/* The legacy stream and those that do not opt out of it wait for each other. */
static void add_legacy_order(cudaStream_t stream, Op *op) {
  cudaStream_t legacy = all_streams()[0];
  for (cudaStream_t other : all_streams()) {
    const bool is_ordered = stream == legacy
                                ? (other->flags & cudaStreamNonBlocking) == 0
                                : other == legacy && (stream->flags & cudaStreamNonBlocking) == 0;
    if (is_ordered && other != stream && other->last != nullptr) {
      op->after.push_back(other->last);
    }
  }
}

cudaError_t submit(cudaStream_t handle, Work work) {
  cudaStream_t stream = stream_of(handle, work.name.c_str());
  if (stream == nullptr) {
    return cudaErrorInvalidResourceHandle;
  }
  if (stream->capture != nullptr) {
    return record(stream, std::move(work));
  }
  if (stream == all_streams()[0]) {
    for (cudaStream_t other : all_streams()) {
      if (other->capture != nullptr && (other->flags & cudaStreamNonBlocking) == 0) {
        other->capture->is_invalid = true;
        fail_host(Kind::capture, "%s on the legacy stream while a blocking one is captured",
                  work.name.c_str());
        return cudaErrorStreamCaptureImplicit;
      }
    }
  }
  auto op = std::make_shared<Op>();
  op->work = std::move(work);
  if (stream->last != nullptr) {
    op->after.push_back(stream->last);
  }
  add_legacy_order(stream, op.get());
  stream->last = op;
  stream->queue.push_back(op);
  note_unobserved(op);
  forbid_host_writes();
  State &s = state();
  if (s.haste == Haste::at_once || (s.haste == Haste::now_and_then && s.random.one_in(3))) {
    for (size_t n = s.haste == Haste::at_once ? SIZE_MAX : s.random.below(4); n > 0 && advance();
         --n) {
    }
  }
  return cudaSuccess;
}

bool advance() {
  std::vector<cudaStream_t> ready;
  for (cudaStream_t stream : all_streams()) {
    if (!stream->queue.empty() && is_ready(*stream->queue.front())) {
      ready.push_back(stream);
    }
  }
  for (size_t left = ready.size(); left > 0; --left) {
    std::swap(ready[left - 1], ready[state().random.below(left)]);
    cudaStream_t stream = ready[left - 1];
    const OpRef op = stream->queue.front();
    const Step step = step_of(*op);
    if (step == Step::done) {
      op->is_done = true;
      op->step = nullptr;
      stream->queue.pop_front();
    }
    if (step != Step::stuck) {
      return true;
    }
  }
  return false;
}

cudaError_t run_until(const std::function<bool()> &is_over, const char *call) {
  const int64_t begin_ns = now_ns();
  while (!is_over()) {
    if (advance()) {
      continue;
    }
    if (now_ns() - begin_ns > state().patience_ms * 1000000) {
      fail_host(Kind::deadlock, "%s waits for work that never ends", call);
      return cudaErrorLaunchTimeout;
    }
    usleep(100); /* other processes must bring something */
  }
  return state().device_error;
}

} // namespace simt

using namespace simt;

/* ---- What tests ask for --------------------------------------------------------------------- */

void simt_reseed(uint64_t seed) {
  set_seed(seed);
  state().random = Random(seed ^ 0x5EED0F57EA345u);
  static constexpr Haste hastes[] = {Haste::at_once, Haste::now_and_then, Haste::when_waited_for};
  state().haste = hastes[state().random.below(3)];
}

const char *simt_take_violation(void) {
  static std::string text;
  const auto violation = take_violation();
  state().device_error = cudaSuccess;
  state().last_error = cudaSuccess;
  text = violation ? violation->text() : "";
  return violation ? text.c_str() : nullptr;
}

struct simt_counts simt_count(void) {
  return state().counts;
}

size_t simt_num_alive(void) { return state().alive.size(); }

void simt_set_patience_ms(int64_t ms) { state().patience_ms = ms; }

/* ---- Errors --------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError(void) { return std::exchange(state().last_error, cudaSuccess); }

cudaError_t cudaPeekAtLastError(void) { return state().last_error; }

const char *cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define SIMT_CUDA_NAME(name, value, text) \
  case name:                              \
    return #name;
    SIMT_CUDA_ERRORS(SIMT_CUDA_NAME)
#undef SIMT_CUDA_NAME
  }
  return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define SIMT_CUDA_TEXT(name, value, text) \
  case name:                              \
    return text;
    SIMT_CUDA_ERRORS(SIMT_CUDA_TEXT)
#undef SIMT_CUDA_TEXT
  }
  return "unrecognized error code";
}

/* ---- Streams -------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  SIMT_ENTER(enter(__func__));
  if (stream == nullptr || flags > cudaStreamNonBlocking) {
    return remember(cudaErrorInvalidValue);
  }
  all_streams();
  *stream = new CUstream_st();
  (*stream)->flags = flags;
  state().streams.push_back(*stream);
  note_alive(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

/* Its work goes on: here it is run to its end at once. */
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  SIMT_ENTER(enter(__func__));
  if (stream == nullptr || !is_alive(stream, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture != nullptr) {
    stream->capture->is_invalid = true;
    fail_host(Kind::capture, "%s of a stream that is captured", __func__);
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  const cudaError_t error = run_until([stream] { return stream->queue.empty(); }, __func__);
  auto &streams = state().streams;
  streams.erase(std::find(streams.begin(), streams.end(), stream));
  note_destroyed(stream);
  delete stream;
  return remember(error);
}

static cudaError_t refuse_captured(cudaStream_t stream, const char *call) {
  if (stream->capture == nullptr) {
    return cudaSuccess;
  }
  stream->capture->is_invalid = true;
  fail_host(Kind::capture, "%s of a stream that is captured", call);
  return cudaErrorStreamCaptureUnsupported;
}

/* What the legacy stream waits for is its own last work's. */
static void touch_legacy(cudaStream_t stream) {
  if (stream == all_streams()[0]) {
    submit(nullptr, {"a wait", [] { return [] { return Step::done; }; }, {}, {}});
  }
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  SIMT_ENTER(enter(__func__));
  cudaStream_t stream = stream_of(handle, __func__);
  if (stream == nullptr) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  SIMT_ENTER(refuse_captured(stream, __func__));
  ++counts().waits;
  touch_legacy(stream);
  const OpRef last = stream->last;
  const cudaError_t error =
      run_until([&last] { return last == nullptr || last->is_done; }, __func__);
  if (error == cudaSuccess) {
    observe(last);
  }
  return remember(error);
}

static cudaError_t query(const OpRef &op) {
  ++state().counts.queries;
  for (size_t n = 1 + state().random.below(8); n > 0 && advance(); --n) {
  }
  if (state().device_error != cudaSuccess) {
    return state().device_error;
  }
  if (op != nullptr && !op->is_done) {
    usleep(20);
    return cudaErrorNotReady;
  }
  observe(op);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  SIMT_ENTER(enter(__func__));
  cudaStream_t stream = stream_of(handle, __func__);
  if (stream == nullptr) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  SIMT_ENTER(refuse_captured(stream, __func__));
  const cudaError_t error = query(stream->last);
  return error == cudaErrorNotReady ? error : remember(error);
}

cudaError_t cudaDeviceSynchronize(void) {
  SIMT_ENTER(enter_unrecorded(__func__));
  ++counts().waits;
  const auto is_idle = [] {
    const auto &streams = all_streams();
    return std::all_of(streams.begin(), streams.end(),
                       [](cudaStream_t s) { return s->queue.empty(); });
  };
  SIMT_ENTER(run_until(is_idle, __func__));
  for (cudaStream_t stream : all_streams()) {
    observe(stream->last);
  }
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
  SIMT_ENTER(enter(__func__));
  const auto call = [function, data] {
    state().is_in_host_function = true;
    function(data);
    state().is_in_host_function = false;
    return Step::done;
  };
  return remember(submit(stream, {"a host function", [call] { return call; }, {}, {}}));
}

/* ---- Events --------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  SIMT_ENTER(enter(__func__));
  if (event == nullptr || (flags & ~3u) != 0) {
    return remember(cudaErrorInvalidValue);
  }
  *event = new CUevent_st();
  if ((flags & cudaEventDisableTiming) == 0) {
    (*event)->time_ns = std::make_shared<int64_t>(0);
  }
  note_alive(*event);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  SIMT_ENTER(enter(__func__));
  if (!is_alive(event, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  note_destroyed(event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  SIMT_ENTER(enter(__func__));
  cudaStream_t stream = stream_of(handle, __func__);
  if (stream == nullptr || !is_alive(event, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture != nullptr) {
    event->op = nullptr;
    event->capture = stream->capture;
    event->tail = stream->tail;
    return cudaSuccess;
  }
  const auto time_ns = event->time_ns;
  const auto take_time = [time_ns] {
    if (time_ns != nullptr) {
      *time_ns = now_ns();
    }
    return Step::done;
  };
  SIMT_ENTER(submit(stream, {"an event", [take_time] { return take_time; }, {}, {}}));
  event->op = stream->last;
  event->capture.reset();
  return cudaSuccess;
}

/* The stream joins the event's capture, or goes on in it. */
static cudaError_t join_capture(cudaStream_t stream, cudaEvent_t event) {
  const auto capture = event->capture.lock();
  if (stream->capture != nullptr && stream->capture != capture) {
    return cudaErrorStreamCaptureMerge;
  }
  if (stream->capture == nullptr) {
    stream->capture = capture;
    stream->tail.clear();
    capture->streams.push_back(stream);
  }
  for (size_t node : event->tail) {
    if (std::find(stream->tail.begin(), stream->tail.end(), node) == stream->tail.end()) {
      stream->tail.push_back(node);
    }
  }
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
  SIMT_ENTER(enter(__func__));
  cudaStream_t stream = stream_of(handle, __func__);
  if (stream == nullptr || !is_alive(event, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (flags != 0) {
    return remember(cudaErrorInvalidValue);
  }
  if (!event->capture.expired()) {
    return remember(join_capture(stream, event));
  }
  if (stream->capture != nullptr) {
    stream->capture->is_invalid = true;
    fail_host(Kind::capture, "a captured stream waits for an event that is outside of its graph");
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  const OpRef awaited = event->op;
  if (awaited == nullptr || awaited->is_observed) {
    return cudaSuccess;
  }
  const auto wait = [awaited] { return awaited->is_done ? Step::done : Step::stuck; };
  const cudaError_t error =
      submit(stream, {"a wait for an event", [wait] { return wait; }, {}, {}});
  if (error == cudaSuccess && !stream->last->is_observed) {
    stream->last->after.push_back(awaited);
  }
  return remember(error);
}

static cudaError_t refuse_captured_event(cudaEvent_t event, const char *call) {
  if (!is_alive(event, call)) {
    return cudaErrorInvalidResourceHandle;
  }
  if (event->capture.expired()) {
    return cudaSuccess;
  }
  event->capture.lock()->is_invalid = true;
  fail_host(Kind::capture, "%s of an event that was recorded in a capture", call);
  return cudaErrorCapturedEvent;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  SIMT_ENTER(enter(__func__));
  SIMT_ENTER(refuse_captured_event(event, __func__));
  const cudaError_t error = query(event->op);
  return error == cudaErrorNotReady ? error : remember(error);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  SIMT_ENTER(enter(__func__));
  SIMT_ENTER(refuse_captured_event(event, __func__));
  ++counts().waits;
  const OpRef op = event->op;
  SIMT_ENTER(run_until([&op] { return op == nullptr || op->is_done; }, __func__));
  observe(op);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) {
  SIMT_ENTER(enter(__func__));
  if (!is_alive(begin, __func__) || !is_alive(end, __func__) || begin->time_ns == nullptr ||
      end->time_ns == nullptr || begin->op == nullptr || end->op == nullptr) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (!begin->op->is_done || !end->op->is_done) {
    return cudaErrorNotReady;
  }
  *ms = static_cast<float>(*end->time_ns - *begin->time_ns) / 1e6f;
  return cudaSuccess;
}
