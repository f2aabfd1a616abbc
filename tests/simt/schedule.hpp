/* Who runs next: every choice of the emulator comes from one seeded source, so that a seed replays.
 *
 * How far one thread runs ahead of the others differs from launch to launch: in some every step
 * picks anyone, in others whoever became ready last goes on, so that a warp runs ahead until it must
 * wait. Missing barriers show in the second kind, lost updates in the first. Likewise copies land
 * soon or late. */
#ifndef SY_TESTS_SIMT_SCHEDULE_HPP
#define SY_TESTS_SIMT_SCHEDULE_HPP

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace simt {

struct Thread;

/* SplitMix64 (Steele, Lea, Flood 2014). */
class Random {
public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  /* In [0, bound), bound >= 1 and far below 2^32. */
  size_t below(size_t bound) { return static_cast<size_t>(((next() >> 32) * bound) >> 32); }

  bool one_in(size_t n) { return below(n) == 0; }

private:
  uint64_t state_;
};

class Schedule {
public:
  explicit Schedule(uint64_t seed);

  Random &random() { return random_; }

  /* Ready to run; shuffled among those that became ready since the last pick. */
  void add_ready(Thread *thread);

  /* Wants to look again at something that another thread may change. */
  void add_poller(Thread *thread) { pollers_.push_back(thread); }

  /* Takes out the next one; nullptr when nobody can run. *is_poller_out: it only looks again. */
  Thread *pick(bool *is_poller_out);

  size_t num_pollers() const { return pollers_.size(); }

  /* Whether a copy under way lands now. */
  bool lets_copy_land();

private:
  Thread *take(std::vector<Thread *> &from, size_t i);

  Random random_;
  size_t steadiness_;   /* one step in so many picks anyone */
  size_t landing_time_; /* one step in so many lets a copy land */
  std::vector<Thread *> ready_;
  size_t num_settled_ = 0; /* of ready_, from before the last pick */
  std::vector<Thread *> pollers_;
};

} // namespace simt

#endif
