#include "tests/simt/barrier.hpp"

#include "tests/simt/machine.hpp"

namespace simt {

namespace {

/* Whether the running thread is the last one. */
bool is_complete(Barrier &barrier, uint32_t expected, Site site) {
  if (barrier.arrived == 0) {
    barrier.expected = expected;
    barrier.site = site;
  }
  if (++barrier.arrived < barrier.expected) {
    return false;
  }
  barrier.arrived = 0;
  for (Thread *sleeper : barrier.sleepers) {
    wake(sleeper);
  }
  barrier.sleepers.clear();
  note_progress();
  return true;
}

void wait_at(Barrier &barrier, const char *what, Site site) {
  barrier.sleepers.push_back(this_thread);
  sleep(what, site);
}

Barrier &named(uint32_t id, uint32_t threads, Site site) {
  Block &block = *this_thread->block;
  if (id == 0 || id >= NUM_BARRIERS) {
    fail(Kind::barrier, site, "barrier %u: named barriers are 1 to %u (0 is __syncthreads)", id,
         NUM_BARRIERS - 1);
  }
  if (threads == 0 || threads % WARP != 0 || threads > block.warps.size() * WARP) {
    fail(Kind::barrier, site, "barrier %u: %u threads are not whole warps of the block's %zu", id,
         threads, block.threads.size());
  }
  Barrier &barrier = block.barriers[id];
  if (barrier.arrived > 0 && barrier.expected != threads) {
    fail(Kind::barrier, site, "barrier %u: %u threads here, %u at %s:%d", id, threads,
         barrier.expected, barrier.site.file, barrier.site.line);
  }
  return barrier;
}

} // namespace

void sync_threads(Site site) {
  Block &block = *this_thread->block;
  Barrier &barrier = block.barriers[0];
  if (block.num_left > 0) {
    fail(Kind::divergence, site, "__syncthreads: %u threads of the block have left the kernel",
         block.num_left);
  }
  if (barrier.arrived > 0 && !(barrier.site == site)) {
    fail(Kind::divergence, site, "__syncthreads: others of the block wait at %s:%d",
         barrier.site.file, barrier.site.line);
  }
  if (!is_complete(barrier, static_cast<uint32_t>(block.threads.size()), site)) {
    wait_at(barrier, "__syncthreads", site);
  }
}

void barrier_sync(uint32_t id, uint32_t threads, Site site) {
  Barrier &barrier = named(id, threads, site);
  if (!is_complete(barrier, threads, site)) {
    wait_at(barrier, "a named barrier", site);
  }
}

void barrier_arrive(uint32_t id, uint32_t threads, Site site) {
  is_complete(named(id, threads, site), threads, site);
}

void leave_barriers() {
  const Barrier &barrier = this_thread->block->barriers[0];
  if (barrier.arrived > 0) {
    fail(Kind::divergence, barrier.site,
         "a thread left the kernel while others wait at __syncthreads");
  }
}

} // namespace simt
