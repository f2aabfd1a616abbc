#include "tests/simt/schedule.hpp"

#include <algorithm>

namespace simt {

namespace {

/* While others are ready, one step in so many lets a poller look. */
constexpr size_t POLL_PERIOD = 8;

/* When all wait, what they wait for comes after so many steps. */
constexpr size_t LONGEST_IDLE_LANDING = 64;

} // namespace

Schedule::Schedule(uint64_t seed) : random_(seed) {
  static constexpr size_t steadiness[] = {1, 8, 256};
  static constexpr size_t landing_times[] = {2, 32, 4096};
  steadiness_ = steadiness[random_.below(3)];
  landing_time_ = landing_times[random_.below(3)];
}

void Schedule::add_ready(Thread *thread) {
  ready_.push_back(thread);
  const size_t last = ready_.size() - 1;
  std::swap(ready_[last], ready_[num_settled_ + random_.below(ready_.size() - num_settled_)]);
}

bool Schedule::lets_copy_land() {
  return random_.one_in(ready_.empty() ? std::min(landing_time_, LONGEST_IDLE_LANDING)
                                       : landing_time_);
}

Thread *Schedule::take(std::vector<Thread *> &from, size_t i) {
  Thread *thread = from[i];
  from[i] = from.back();
  from.pop_back();
  num_settled_ = ready_.size();
  return thread;
}

Thread *Schedule::pick(bool *is_poller_out) {
  *is_poller_out = !pollers_.empty() && (ready_.empty() || random_.one_in(POLL_PERIOD));
  if (*is_poller_out) {
    return take(pollers_, random_.below(pollers_.size()));
  }
  if (ready_.empty()) {
    return nullptr;
  }
  return take(ready_,
              random_.one_in(steadiness_) ? random_.below(ready_.size()) : ready_.size() - 1);
}

} // namespace simt
