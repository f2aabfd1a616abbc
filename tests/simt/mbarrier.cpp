#include "tests/simt/mbarrier.hpp"

#include "tests/simt/copies.hpp"
#include "tests/simt/machine.hpp"

namespace simt {

namespace {

constexpr uint32_t MAX_COUNT = (1u << 20) - 1;

/* What the word itself holds: whoever writes to it destroys this. */
uint64_t seal(const uint64_t *p) { return 0x6D62617272696572u ^ reinterpret_cast<uintptr_t>(p); }

void end_phase_if_due(Mbarrier &m) {
  if (m.pending == 0 && m.bytes_to_come == 0) {
    m.pending = m.count;
    ++m.phase;
    note_progress();
  }
}

void arrive(Mbarrier &m, int64_t bytes, const char *what, Site site) {
  int64_t &unannounced = m.unannounced[this_thread->number];
  if (bytes != unannounced) {
    fail(Kind::barrier, site, "%s: %lld bytes are announced, %lld were copied by this thread", what,
         static_cast<long long>(bytes), static_cast<long long>(unannounced));
  }
  if (m.pending == 0) {
    fail(Kind::barrier, site, "%s: one arrival more than the %u of the phase", what, m.count);
  }
  unannounced = 0;
  m.bytes_to_come += bytes;
  --m.pending;
  end_phase_if_due(m);
}

} // namespace

Mbarrier &mbarrier_at(uint64_t *p, const char *what, Site site) {
  check_shared(p, sizeof *p, sizeof *p, what, site);
  auto &mbarriers = this_thread->block->mbarriers;
  const auto found = mbarriers.find(p);
  if (found == mbarriers.end()) {
    fail(Kind::barrier, site, "%s: there is no mbarrier here (yet): it was not initialised", what);
  }
  if (*p != seal(p)) {
    fail(Kind::barrier, site, "%s: the mbarrier's memory was written to", what);
  }
  return found->second;
}

void mbarrier_init(uint64_t *p, uint32_t count, Site site) {
  const char *what = "mbarrier_init";
  check_shared(p, sizeof *p, sizeof *p, what, site);
  if (count == 0 || count > MAX_COUNT) {
    fail(Kind::barrier, site, "%s: a count of %u: 1 to %u are possible", what, count, MAX_COUNT);
  }
  if (!this_thread->block->mbarriers.emplace(p, Mbarrier{count, count, 0, 0, {}}).second) {
    fail(Kind::barrier, site, "%s: there is an mbarrier here already", what);
  }
  *p = seal(p);
  note_progress();
}

void mbarrier_arrive(uint64_t *p, Site site) {
  arrive(mbarrier_at(p, "mbarrier_arrive", site), 0, "mbarrier_arrive", site);
}

void mbarrier_arrive_expect(uint64_t *p, uint32_t bytes, Site site) {
  arrive(mbarrier_at(p, "mbarrier_arrive_expect", site), bytes, "mbarrier_arrive_expect", site);
}

bool mbarrier_try_wait(uint64_t *p, uint32_t parity, Site site) {
  poll("an mbarrier", site);
  const Mbarrier &m = mbarrier_at(p, "mbarrier_try_wait", site);
  if ((m.phase & 1u) == (parity & 1u) || this_grid->schedule.random().one_in(4)) {
    return false;
  }
  reveal_bulk_copies(p, m.phase);
  return true;
}

void mbarrier_land(Block &block, const uint64_t *p, uint32_t bytes) {
  Mbarrier &m = block.mbarriers.at(p);
  m.bytes_to_come -= bytes;
  end_phase_if_due(m);
}

} // namespace simt
