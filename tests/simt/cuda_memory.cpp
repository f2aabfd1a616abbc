/* The runtime's calls for memory: device memory, pinned host memory, copies. */
#include <climits>
#include <cstring>
#include <map>

#include "tests/simt/memory.hpp"
#include "tests/simt/stream.hpp"

namespace simt {

namespace {

size_t allocations_left = SIZE_MAX;

/* By address. */
std::map<const char *, GuardedMemory> &pinned_memory() {
  static auto *pieces = new std::map<const char *, GuardedMemory>();
  return *pieces;
}

/* The piece whose begin is the last one at or before p. */
const GuardedMemory *pinned_piece(const void *p) {
  auto next = pinned_memory().upper_bound(static_cast<const char *>(p));
  if (next == pinned_memory().begin()) {
    return nullptr;
  }
  const GuardedMemory &piece = std::prev(next)->second;
  return piece.holds(p, 0) ? &piece : nullptr;
}

enum class Place { device, pinned, pageable };

Place place_of(const void *p) {
  return device_piece(p) != nullptr   ? Place::device
         : pinned_piece(p) != nullptr ? Place::pinned
                                      : Place::pageable;
}

bool is_host(Place place) { return place != Place::device; }

/* A side of a copy or a fill lies in one piece. */
bool check_range(const void *p, size_t bytes, const char *call) {
  const GuardedMemory *piece = device_piece(p);
  piece = piece != nullptr ? piece : pinned_piece(p);
  if (piece == nullptr || piece->holds(p, bytes)) {
    return true;
  }
  std::string where;
  piece->locate(p, &where);
  fail_host(Kind::out_of_bounds, "%s of %zu bytes: begins %s", call, bytes, where.c_str());
  return false;
}

bool has_kind(cudaMemcpyKind kind, Place to, Place from) {
  const bool to_host = kind == cudaMemcpyHostToHost || kind == cudaMemcpyDeviceToHost;
  const bool from_host = kind == cudaMemcpyHostToHost || kind == cudaMemcpyHostToDevice;
  return kind == cudaMemcpyDefault || (to_host == is_host(to) && from_host == is_host(from));
}

struct Copy2D {
  char *to;
  size_t to_pitch;
  const char *from;
  size_t from_pitch;
  size_t width;
  size_t height;

  size_t to_bytes() const { return height == 0 ? 0 : (height - 1) * to_pitch + width; }
  size_t from_bytes() const { return height == 0 ? 0 : (height - 1) * from_pitch + width; }
};

void run_copy(const Copy2D &copy) {
  for (size_t row = 0; row < copy.height; ++row) {
    std::memmove(copy.to + row * copy.to_pitch, copy.from + row * copy.from_pitch, copy.width);
  }
}

Range mutable_range(const char *p, size_t bytes) { return {const_cast<char *>(p), bytes}; }

/* Pageable memory is read before the call returns; and written before, so that the host waits. */
cudaError_t copy_async(Copy2D copy, cudaMemcpyKind kind, cudaStream_t handle, const char *call) {
  const Place to = place_of(copy.to);
  const Place from = place_of(copy.from);
  cudaStream_t stream = stream_of(handle, call);
  if (stream == nullptr) {
    return cudaErrorInvalidResourceHandle;
  }
  if (!has_kind(kind, to, from)) {
    return cudaErrorInvalidMemcpyDirection;
  }
  if (!check_range(copy.to, copy.to_bytes(), call) ||
      !check_range(copy.from, copy.from_bytes(), call)) {
    return cudaErrorInvalidValue;
  }
  const bool is_pageable = to == Place::pageable || from == Place::pageable;
  if (is_pageable && stream->capture != nullptr) {
    stream->capture->is_invalid = true;
    fail_host(Kind::capture, "%s of pageable memory in a stream that is captured", call);
    return cudaErrorStreamCaptureUnsupported;
  }
  ++counts().copies;
  if (copy.width == 0 || copy.height == 0) {
    return cudaSuccess;
  }
  Work work;
  work.name = std::string(call) + (is_host(to) ? " to the host" : "");
  std::vector<char> staged;
  if (from == Place::pageable) {
    staged.assign(copy.from, copy.from + copy.from_bytes());
  } else {
    work.uses.push_back(mutable_range(copy.from, copy.from_bytes()));
  }
  work.uses.push_back({copy.to, copy.to_bytes()});
  if (to == Place::pinned) {
    work.host_writes.push_back({copy.to, copy.to_bytes()});
  }
  work.begin = [copy, staged = std::move(staged)] {
    return [copy, &staged] {
      Copy2D now = copy;
      now.from = staged.empty() ? copy.from : staged.data();
      run_copy(now);
      return Step::done;
    };
  };
  cudaError_t error = submit(stream, std::move(work));
  if (error == cudaSuccess && to == Place::pageable) {
    ++counts().waits;
    const OpRef op = stream->last;
    error = run_until([&op] { return op->is_done; }, call);
    observe(op);
  }
  return error;
}

cudaError_t fill_async(char *to, int value, size_t bytes, cudaStream_t stream, const char *call) {
  if (place_of(to) == Place::pageable) {
    return cudaErrorInvalidValue;
  }
  if (!check_range(to, bytes, call)) {
    return cudaErrorInvalidValue;
  }
  const auto fill = [to, value, bytes] {
    std::memset(to, value, bytes);
    return Step::done;
  };
  Work work = {call, [fill] { return fill; }, {{to, bytes}}, {}};
  if (place_of(to) == Place::pinned) {
    work.host_writes = work.uses;
  }
  return submit(stream, std::move(work));
}

/* Whether the allocator has any left; SIZE_MAX is for ever. */
bool may_allocate() {
  if (allocations_left == 0) {
    return false;
  }
  allocations_left -= allocations_left == SIZE_MAX ? 0 : 1;
  ++counts().allocations;
  return true;
}

/* Memory in use stays: the work is still to run. */
bool may_release(const GuardedMemory &piece, const char *call) {
  std::string name;
  if (is_in_use(piece.data(), piece.bytes(), &name)) {
    fail_host(Kind::in_use, "%s of memory that %s uses, which the host has not waited for", call,
              name.c_str());
    return false;
  }
  return true;
}

} // namespace

cudaError_t allocate_device(void **memory, size_t bytes) {
  void *fresh =
      bytes > free_device_bytes() || !may_allocate() ? nullptr : device_malloc(bytes, true);
  if (fresh == nullptr) {
    return cudaErrorMemoryAllocation;
  }
  take_device_bytes(static_cast<int64_t>(bytes));
  note_alive(fresh);
  *memory = fresh;
  return cudaSuccess;
}

cudaError_t release_device(void *memory, const char *call) {
  const GuardedMemory *piece = device_piece(memory);
  if (piece == nullptr || piece->data() != memory) {
    fail_host(Kind::destroyed, "%s of %p, which is no device memory", call, memory);
    return cudaErrorInvalidValue;
  }
  ++counts().frees;
  note_destroyed(memory);
  if (may_release(*piece, call)) {
    take_device_bytes(-static_cast<int64_t>(piece->bytes()));
    device_free(memory);
  }
  return cudaSuccess;
}

} // namespace simt

using namespace simt;

void simt_fail_allocations_after(size_t count) { allocations_left = count; }

cudaError_t cudaMalloc(void **memory, size_t bytes) {
  SIMT_ENTER(enter_device(__func__));
  SIMT_ENTER(enter_unrecorded(__func__));
  if (memory == nullptr) {
    return remember(cudaErrorInvalidValue);
  }
  if (bytes == 0) {
    *memory = nullptr;
    return cudaSuccess;
  }
  return remember(allocate_device(memory, bytes));
}

cudaError_t cudaFree(void *memory) {
  SIMT_ENTER(enter_unrecorded(__func__));
  return memory == nullptr ? cudaSuccess : remember(release_device(memory, __func__));
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags) {
  SIMT_ENTER(enter_device(__func__));
  SIMT_ENTER(enter_unrecorded(__func__));
  if (memory == nullptr || (flags & ~7u) != 0) {
    return remember(cudaErrorInvalidValue);
  }
  if (!may_allocate()) {
    return remember(cudaErrorMemoryAllocation);
  }
  GuardedMemory piece(bytes);
  *memory = piece.data();
  note_alive(*memory);
  pinned_memory().emplace(piece.data(), std::move(piece));
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes) {
  return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *memory) {
  SIMT_ENTER(enter_unrecorded(__func__));
  if (memory == nullptr) {
    return cudaSuccess;
  }
  const auto found = pinned_memory().find(static_cast<char *>(memory));
  if (found == pinned_memory().end()) {
    fail_host(Kind::destroyed, "%s of %p, which is no pinned memory", __func__, memory);
    return remember(cudaErrorInvalidValue);
  }
  ++counts().frees;
  note_destroyed(memory);
  if (!may_release(found->second, __func__)) {
    return cudaSuccess;
  }
  std::string text;
  if (found->second.is_damaged(&text)) {
    fail_host(Kind::out_of_bounds, "something wrote to pinned memory %s", text.c_str());
  }
  pinned_memory().erase(found);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *p) {
  SIMT_ENTER(enter_device(__func__));
  if (attributes == nullptr) {
    return remember(cudaErrorInvalidValue);
  }
  const Place place = place_of(p);
  void *same = const_cast<void *>(p);
  *attributes = {place == Place::device   ? cudaMemoryTypeDevice
                 : place == Place::pinned ? cudaMemoryTypeHost
                                          : cudaMemoryTypeUnregistered,
                 place == Place::pageable ? -2 : 0, place == Place::pageable ? nullptr : same,
                 place == Place::device ? nullptr : same};
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
  SIMT_ENTER(enter_device(__func__));
  const Copy2D copy = {
      static_cast<char *>(to), bytes, static_cast<const char *>(from), bytes, bytes, 1};
  return remember(copy_async(copy, kind, stream, __func__));
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
  SIMT_ENTER(enter_device(__func__));
  if (width > to_pitch || width > from_pitch) {
    return remember(cudaErrorInvalidValue);
  }
  const Copy2D copy = {static_cast<char *>(to),
                       to_pitch,
                       static_cast<const char *>(from),
                       from_pitch,
                       width,
                       height};
  return remember(copy_async(copy, kind, stream, __func__));
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  SIMT_ENTER(enter_device(__func__));
  SIMT_ENTER(enter_unrecorded(__func__));
  const Copy2D copy = {
      static_cast<char *>(to), bytes, static_cast<const char *>(from), bytes, bytes, 1};
  SIMT_ENTER(copy_async(copy, kind, nullptr, __func__));
  return cudaStreamSynchronize(nullptr);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  SIMT_ENTER(enter_device(__func__));
  return remember(fill_async(static_cast<char *>(to), value, bytes, stream, __func__));
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
  SIMT_ENTER(enter_device(__func__));
  SIMT_ENTER(enter_unrecorded(__func__));
  return remember(fill_async(static_cast<char *>(to), value, bytes, nullptr, __func__));
}
