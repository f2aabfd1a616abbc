#include "tests/simt/warp.hpp"

namespace simt {

namespace {

void check_against(const Meeting &other, uint32_t mask, const char *name, Site site) {
  const uint32_t me = 1u << this_thread->lane();
  if (other.mask == mask) {
    if (!same_text(other.name, name) || !(other.site == site)) {
      fail(Kind::divergence, site, "%s of lane %u meets %s at %s:%d", name, this_thread->lane(),
           other.name, other.site.file, other.site.line);
    }
    return;
  }
  /* Each waits for the other, at different places. */
  if ((other.mask & me) != 0 && (other.arrived & mask) != 0) {
    fail(Kind::mask, site,
         "%s: lane %u names the mask 0x%08x, lanes 0x%08x wait with 0x%08x at %s:%d", name,
         this_thread->lane(), mask, other.arrived & mask, other.mask, other.site.file,
         other.site.line);
  }
}

uint32_t join(uint32_t a, uint32_t b) { return a | b; }

/* Whether everybody is there; then the meeting is over, and all but `last` are woken. */
bool close(Warp &warp, size_t i, const Thread *last) {
  const Meeting &open = warp.meetings[i];
  if (open.arrived != (open.mask & ~warp.gone)) {
    return false;
  }
  const Meeting meeting = open;
  warp.meetings.erase(warp.meetings.begin() + static_cast<std::ptrdiff_t>(i));
  if (meeting.finish != nullptr) {
    meeting.finish(meeting.slots, meeting.arrived);
  }
  for (uint32_t lane = 0; lane < WARP; ++lane) {
    if ((meeting.arrived >> lane & 1u) != 0 && meeting.threads[lane] != last) {
      wake(meeting.threads[lane]);
    }
  }
  return true;
}

} // namespace

void meet(uint32_t mask, const char *name, bool is_aligned, Site site, void *slot, Finish finish) {
  Warp &warp = warp_of(*this_thread);
  const uint32_t lane = this_thread->lane();
  if ((mask >> lane & 1u) == 0) {
    fail(Kind::mask, site, "%s: lane %u is not in its own mask 0x%08x", name, lane, mask);
  }
  if (is_aligned && (warp.gone & mask) != 0) {
    fail(Kind::divergence, site, "%s: lanes 0x%08x are not there any more", name, warp.gone & mask);
  }
  size_t i = 0;
  size_t mine = warp.meetings.size();
  for (; i < warp.meetings.size(); ++i) {
    check_against(warp.meetings[i], mask, name, site);
    mine = warp.meetings[i].mask == mask ? i : mine;
  }
  if (mine == warp.meetings.size()) {
    warp.meetings.push_back({mask, 0, name, site, is_aligned, {}, {}, finish});
  }
  Meeting &meeting = warp.meetings[mine];
  meeting.arrived |= 1u << lane;
  meeting.slots[lane] = slot;
  meeting.threads[lane] = this_thread;
  if (!close(warp, mine, this_thread)) {
    sleep(name, site);
  } else if (this_grid->schedule.random().one_in(2)) {
    wake(this_thread); /* the last to come need not be the first to go on */
    sleep(name, site);
  }
}

void leave_warp() {
  Warp &warp = warp_of(*this_thread);
  const uint32_t me = 1u << this_thread->lane();
  warp.gone |= me;
  for (size_t i = warp.meetings.size(); i-- > 0;) {
    const Meeting &meeting = warp.meetings[i];
    if ((meeting.mask & me) != 0 && meeting.is_aligned) {
      fail(Kind::divergence, meeting.site, "lane %u left the kernel while others wait for %s",
           this_thread->lane(), meeting.name);
    }
    if ((meeting.mask & me) != 0) {
      close(warp, i, this_thread);
    }
  }
}

uint32_t ballot(uint32_t mask, bool predicate, const char *name, Site site) {
  return reduce<uint32_t, join>(mask, predicate ? 1u << this_thread->lane() : 0u, name, site);
}

} // namespace simt
