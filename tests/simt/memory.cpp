#include "tests/simt/memory.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <new>
#include <utility>

#include "tests/simt/machine.hpp"
#include "tests/simt/sanitizer.hpp"

namespace simt {

namespace {

constexpr size_t MARGIN = 16 * 1024;
constexpr unsigned char MARGIN_BYTE = 0xA5;
constexpr uint64_t MARGIN_WORD = 0xA5A5A5A5A5A5A5A5u;
constexpr size_t ALIGNMENT = 1024;
constexpr std::align_val_t ALIGN{ALIGNMENT}; /* new: allocations by C's names are the project's */

static_assert(MARGIN % ALIGNMENT == 0, "the memory begins where its margin ends");

struct DevicePiece {
  GuardedMemory memory;
  bool is_hidden;
};

/* By address. */
std::map<const char *, DevicePiece> &device_memory() {
  static std::map<const char *, DevicePiece> pieces;
  return pieces;
}

/* The piece whose first byte, less its margin, is the last one at or before p, which may be anything. */
GuardedMemory *piece_near(const void *p) {
  const uintptr_t behind = reinterpret_cast<uintptr_t>(p) + MARGIN;
  auto next = device_memory().upper_bound(reinterpret_cast<const char *>(behind));
  return next == device_memory().begin() ? nullptr : &std::prev(next)->second.memory;
}

using AnyWord = uint64_t __attribute__((aligned(1), may_alias));

/* The first byte that is not as fill_margins left it, or `bytes`, a multiple of 8. AddressSanitizer
 * forbids the margins to everybody else. */
__attribute__((no_sanitize("address", "undefined"))) size_t first_difference(const char *p,
                                                                             size_t bytes) {
  size_t i = 0;
  while (i < bytes && *reinterpret_cast<const AnyWord *>(p + i) == MARGIN_WORD) {
    i += sizeof(AnyWord);
  }
  while (i < bytes && static_cast<unsigned char>(p[i]) == MARGIN_BYTE) {
    ++i;
  }
  return i;
}

} // namespace

GuardedMemory::GuardedMemory(size_t bytes) : bytes_(bytes) {
  const size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  data_ = static_cast<char *>(::operator new(MARGIN + rounded + MARGIN, ALIGN)) + MARGIN;
  std::memset(data_, POISON, bytes_);
  fill_margins();
}

GuardedMemory::~GuardedMemory() {
  if (data_ != nullptr) {
    allow(data_ - MARGIN, MARGIN + bytes_ + MARGIN);
    ::operator delete(data_ - MARGIN, ALIGN);
  }
}

GuardedMemory::GuardedMemory(GuardedMemory &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

GuardedMemory &GuardedMemory::operator=(GuardedMemory &&other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void GuardedMemory::fill_margins() {
  allow(data_ - MARGIN, MARGIN);
  allow(data_ + bytes_, MARGIN);
  std::memset(data_ - MARGIN, MARGIN_BYTE, MARGIN);
  std::memset(data_ + bytes_, MARGIN_BYTE, MARGIN);
  forbid(data_ - MARGIN, MARGIN);
  forbid(data_ + bytes_, MARGIN);
}

bool GuardedMemory::holds(const void *p, size_t bytes) const {
  const char *begin = static_cast<const char *>(p);
  return begin >= data_ && bytes <= bytes_ && begin <= data_ + (bytes_ - bytes);
}

bool GuardedMemory::locate(const void *p, std::string *text_out) const {
  const char *at = static_cast<const char *>(p);
  if (data_ == nullptr || at < data_ - MARGIN || at >= data_ + bytes_ + MARGIN) {
    return false;
  }
  const std::string size = "of " + std::to_string(bytes_) + " bytes";
  if (at < data_) {
    *text_out = std::to_string(data_ - at) + " bytes before " + size;
  } else if (at < data_ + bytes_) {
    *text_out = "at byte " + std::to_string(at - data_) + " " + size;
  } else {
    *text_out = std::to_string(at - (data_ + bytes_)) + " bytes past the end " + size;
  }
  return true;
}

bool GuardedMemory::is_damaged(std::string *text_out) {
  const size_t before = first_difference(data_ - MARGIN, MARGIN);
  const size_t behind = first_difference(data_ + bytes_, MARGIN);
  if (before == MARGIN && behind == MARGIN) {
    return false;
  }
  locate(behind < MARGIN ? data_ + bytes_ + behind : data_ - MARGIN + before, text_out);
  fill_margins();
  return true;
}

void *device_malloc(size_t bytes, bool hidden) {
  try {
    GuardedMemory piece(bytes);
    char *data = piece.data();
    if (hidden) {
      forbid(data, bytes);
    }
    device_memory().emplace(data, DevicePiece{std::move(piece), hidden});
    return data;
  } catch (const std::bad_alloc &) {
    return nullptr;
  }
}

bool device_free(void *p) { return device_memory().erase(static_cast<char *>(p)) == 1; }

bool is_device_memory(const void *p, size_t bytes) {
  const GuardedMemory *piece = piece_near(p);
  return piece != nullptr && piece->holds(p, bytes);
}

const GuardedMemory *device_piece(const void *p) {
  const GuardedMemory *piece = piece_near(p);
  return piece != nullptr && piece->holds(p, 0) ? piece : nullptr;
}

void show_hidden_memory() {
  for (const auto &entry : device_memory()) {
    if (has_asan && entry.second.is_hidden) {
      allow(entry.second.memory.data(), entry.second.memory.bytes());
    }
  }
}

void hide_hidden_memory() {
  for (const auto &entry : device_memory()) {
    if (has_asan && entry.second.is_hidden) {
      forbid(entry.second.memory.data(), entry.second.memory.bytes());
    }
  }
}

bool locate_in_device_memory(const void *p, std::string *text_out) {
  const GuardedMemory *piece = piece_near(p);
  return piece != nullptr && piece->locate(p, text_out);
}

bool is_device_memory_damaged(std::string *text_out) {
  for (auto &entry : device_memory()) {
    if (entry.second.memory.is_damaged(text_out)) {
      return true;
    }
  }
  return false;
}

static void check_alignment(const void *p, size_t alignment, const char *what, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0) {
    fail(Kind::misaligned, site, "%s: address %p is not a multiple of %zu", what, p, alignment);
  }
}

void check_global(const void *p, size_t bytes, size_t alignment, const char *what, Site site) {
  check_alignment(p, alignment, what, site);
  if (!is_device_memory(p, bytes)) {
    char where[128] = "not in device memory";
    {
      std::string text;
      if (locate_in_device_memory(p, &text)) {
        snprintf(where, sizeof where, "%s", text.c_str());
      }
    }
    fail(Kind::out_of_bounds, site, "%s: %zu bytes at %p: %s", what, bytes, p, where);
  }
}

void check_shared(const void *p, size_t bytes, size_t alignment, const char *what, Site site) {
  check_alignment(p, alignment, what, site);
  const Block &block = *this_thread->block;
  if (!block.shared.holds(p, bytes)) {
    fail(Kind::out_of_bounds, site, "%s: %zu bytes at byte %td of %zu bytes of shared memory", what,
         bytes, static_cast<const char *>(p) - block.shared.data(), block.shared.bytes());
  }
  const size_t begin = static_cast<size_t>(static_cast<const char *>(p) - block.shared.data());
  for (size_t word = begin / 4; word < (begin + bytes + 3) / 4; ++word) {
    if (block.in_flight[word]) {
      fail(Kind::early_use, site, "%s: a copy to byte %zu of shared memory is under way", what,
           word * 4);
    }
  }
}

} // namespace simt
