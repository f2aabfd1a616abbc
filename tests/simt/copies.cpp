#include "tests/simt/copies.hpp"

#include <algorithm>
#include <cstring>

#include "tests/simt/machine.hpp"
#include "tests/simt/mbarrier.hpp"
#include "tests/simt/sanitizer.hpp"

namespace simt {

namespace {

void mark(Block &block, const Copy &copy, bool in_flight) {
  const size_t begin = static_cast<size_t>(copy.to - block.shared.data()) / 4;
  std::fill_n(block.in_flight.begin() + static_cast<std::ptrdiff_t>(begin), copy.bytes / 4,
              in_flight);
}

Copy issue(void *to, const void *from, uint32_t bytes, uint32_t source_bytes, uint32_t alignment,
           const char *what, Site site) {
  check_shared(to, bytes, alignment, what, site);
  check_global(from, source_bytes, alignment, what, site);
  Copy copy = {static_cast<char *>(to),
               static_cast<const char *>(from),
               bytes,
               source_bytes,
               0,
               nullptr,
               false,
               site};
  mark(*this_thread->block, copy, true);
  std::memset(to, POISON, bytes);
  forbid(to, bytes);
  ++this_grid->num_flying;
  return copy;
}

void land(Block &block, Copy &copy) {
  allow(copy.to, copy.bytes);
  for (uint32_t i = 0; i < copy.bytes; ++i) {
    if (static_cast<unsigned char>(copy.to[i]) != POISON) {
      note_violation(Kind::early_use, this_thread,
                     std::string(copy.site.file) + ":" + std::to_string(copy.site.line),
                     "the destination of the copy issued here was written while it was under way");
      break;
    }
  }
  std::memcpy(copy.to, copy.from, copy.source_bytes);
  std::memset(copy.to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  forbid(copy.to, copy.bytes);
  copy.has_landed = true;
  --this_grid->num_flying;
  if (copy.mbarrier != nullptr) {
    mbarrier_land(block, copy.mbarrier, copy.bytes);
  }
}

/* From now on the data may be used. */
void reveal(Block &block, Copy &copy) {
  if (!copy.has_landed) {
    land(block, copy);
  }
  mark(block, copy, false);
  allow(copy.to, copy.bytes);
}

/* Lands one of them, chosen by the seed. */
bool land_one_of(Block &block, std::vector<Copy> &copies) {
  const size_t begin = copies.empty() ? 0 : this_grid->schedule.random().below(copies.size());
  for (size_t i = 0; i < copies.size(); ++i) {
    Copy &copy = copies[(begin + i) % copies.size()];
    if (!copy.has_landed) {
      land(block, copy);
      return true;
    }
  }
  return false;
}

} // namespace

void copy_async(void *to, const void *from, uint32_t bytes, uint32_t source_bytes, Site site) {
  if (source_bytes > bytes) {
    fail(Kind::out_of_bounds, site, "cp.async: %u source bytes of %u", source_bytes, bytes);
  }
  Copy copy = issue(to, from, bytes, source_bytes, bytes, "cp.async", site);
  copy.group = this_thread->num_commits;
  this_thread->copies.push_back(copy);
}

void copy_commit() { ++this_thread->num_commits; }

void copy_wait(uint32_t groups) {
  auto &copies = this_thread->copies;
  for (size_t i = copies.size(); i-- > 0;) {
    if (copies[i].group + groups < this_thread->num_commits) {
      reveal(*this_thread->block, copies[i]);
      copies[i] = copies.back();
      copies.pop_back();
    }
  }
}

void copy_bulk(void *to, const void *from, uint32_t bytes, uint64_t *mbarrier, Site site) {
  if (bytes == 0 || bytes % 16 != 0) {
    fail(Kind::misaligned, site, "cp.async.bulk: %u bytes are not a multiple of 16", bytes);
  }
  Mbarrier &m = mbarrier_at(mbarrier, "cp.async.bulk", site);
  Copy copy = issue(to, from, bytes, bytes, 16, "cp.async.bulk", site);
  copy.group = m.phase;
  copy.mbarrier = mbarrier;
  m.unannounced[this_thread->number] += bytes;
  this_thread->block->bulk_copies.push_back(copy);
}

void reveal_bulk_copies(const uint64_t *mbarrier, uint32_t phase) {
  auto &copies = this_thread->block->bulk_copies;
  for (size_t i = copies.size(); i-- > 0;) {
    if (copies[i].mbarrier == mbarrier && copies[i].group < phase) {
      reveal(*this_thread->block, copies[i]);
      copies[i] = copies.back();
      copies.pop_back();
    }
  }
}

void land_some_copy(Block &block) {
  const size_t begin = this_grid->schedule.random().below(block.threads.size());
  if (land_one_of(block, block.bulk_copies)) {
    return;
  }
  for (size_t i = 0; i < block.threads.size(); ++i) {
    if (land_one_of(block, block.threads[(begin + i) % block.threads.size()].copies)) {
      return;
    }
  }
}

void leave_copies() {
  if (!this_thread->copies.empty()) {
    fail(Kind::unwaited, this_thread->copies.front().site,
         "the thread left the kernel without waiting for this copy");
  }
}

bool has_unwaited_copy(const Block &block, std::string *site_out) {
  if (block.bulk_copies.empty()) {
    return false;
  }
  const Site site = block.bulk_copies.front().site;
  *site_out = std::string(site.file) + ":" + std::to_string(site.line);
  return true;
}

bool is_destination(const Block &block, const void *p) {
  return block.shared.holds(p, 1) &&
         block.in_flight[static_cast<size_t>(static_cast<const char *>(p) - block.shared.data()) /
                         4];
}

} // namespace simt
