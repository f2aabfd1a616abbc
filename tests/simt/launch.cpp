#include "tests/simt/launch.hpp"

#include <algorithm>
#include <cstring>

#include "tests/simt/barrier.hpp"
#include "tests/simt/copies.hpp"
#include "tests/simt/sanitizer.hpp"
#include "tests/simt/warp.hpp"

namespace simt {

Grid *this_grid = nullptr;
Thread *this_thread = nullptr;
cudaError_t (*enqueue)(cudaStream_t, Launch) = run_now;

namespace {

/* So many polls in a row without any change, and nobody ready to make one: a deadlock. */
constexpr uint64_t MAX_IDLE_STEPS = 200000;
constexpr uint64_t MAX_IDLE_STEPS_PER_POLLER = 64;

constexpr size_t MAX_REPORTED_WAITS = 16;

/* Of a grid that is not cooperative, at most so many blocks run side by side. */
constexpr size_t MAX_BLOCKS_AT_ONCE = 4;

uint64_t seed = 1;
uint64_t num_launches = 0;

std::optional<Violation> &kept_violation() {
  static auto *violation = new std::optional<Violation>(); /* looked at when the program ends */
  return *violation;
}

std::vector<std::unique_ptr<Fibre>> &idle_fibres() {
  static std::vector<std::unique_ptr<Fibre>> fibres;
  return fibres;
}

size_t count(dim3 d) { return static_cast<size_t>(d.x) * d.y * d.z; }

uint3 coordinates_of(size_t number, dim3 extent) {
  return {static_cast<unsigned>(number % extent.x),
          static_cast<unsigned>(number / extent.x % extent.y),
          static_cast<unsigned>(number / extent.x / extent.y)};
}

/* ---- Limits ---- */

/* Blocks that the device holds at once. */
size_t capacity(const Launch &launch) {
  const Device &device = config().device;
  constexpr size_t reserved = 1024; /* shared memory that each block uses besides its own */
  size_t per_sm = device.max_blocks_per_sm;
  per_sm = std::min(per_sm, device.max_threads_per_sm / count(launch.block));
  per_sm = std::min(per_sm, device.shared_bytes_per_sm / (launch.shared_bytes + reserved));
  return per_sm * device.num_sms;
}

/* Empty when the device can run it. */
std::string excess(const Launch &launch) {
  const Device &device = config().device;
  const auto compare = [](const char *what, size_t found, size_t most) {
    return std::string(what) + ": " + std::to_string(found) + "; 1 to " + std::to_string(most) +
           " are possible";
  };
  if (count(launch.block) < 1 || count(launch.block) > device.max_threads_per_block) {
    return compare("threads per block", count(launch.block), device.max_threads_per_block);
  }
  if (count(launch.grid) < 1 || launch.grid.x > 0x7FFFFFFFu) {
    return compare("blocks in x", launch.grid.x, 0x7FFFFFFFu);
  }
  if (launch.grid.y > 65535 || launch.grid.z > 65535) {
    return compare("blocks in y or z", std::max(launch.grid.y, launch.grid.z), 65535);
  }
  if (launch.shared_bytes > device.max_shared_bytes_per_block) {
    return compare("bytes of shared memory", launch.shared_bytes,
                   device.max_shared_bytes_per_block);
  }
  if (launch.cooperative && count(launch.grid) > capacity(launch)) {
    return compare("blocks of a cooperative grid", count(launch.grid), capacity(launch));
  }
  return {};
}

/* ---- Blocks ---- */

/* What a fibre does. */
void run_thread(void *) {
  this_grid->launch->body();
  leave_copies();
  leave_warp();
  leave_barriers();
  ++this_thread->block->num_left;
  note_progress();
}

Fibre *take_fibre() {
  auto &idle = idle_fibres();
  if (idle.empty()) {
    return new Fibre();
  }
  Fibre *fibre = idle.back().release();
  idle.pop_back();
  return fibre;
}

void begin_block(size_t number) {
  auto block = std::make_unique<Block>();
  const size_t num_threads = count(this_grid->launch->block);
  block->index = coordinates_of(number, this_grid->launch->grid);
  block->shared = GuardedMemory(this_grid->launch->shared_bytes);
  block->in_flight.assign((this_grid->launch->shared_bytes + 3) / 4, false);
  block->warps.resize((num_threads + WARP - 1) / WARP);
  if (num_threads % WARP != 0) {
    block->warps.back().gone = ALL_LANES << (num_threads % WARP);
  }
  block->threads.resize(num_threads);
  for (size_t i = 0; i < num_threads; ++i) {
    Thread &thread = block->threads[i];
    thread.fibre = take_fibre();
    thread.block = block.get();
    thread.index = coordinates_of(i, this_grid->launch->block);
    thread.number = static_cast<uint32_t>(i);
    thread.fibre->start(run_thread, nullptr);
    this_grid->schedule.add_ready(&thread);
  }
  this_grid->blocks.push_back(std::move(block));
}

void end_block(Block *block) {
  std::string text;
  if (block->shared.is_damaged(&text)) {
    note_violation(Kind::out_of_bounds, &block->threads[0], "?",
                   "the block wrote to shared memory " + text);
  }
  if (block->num_left == block->threads.size() && has_unwaited_copy(*block, &text)) {
    note_violation(Kind::unwaited, &block->threads[0], text,
                   "the block left the kernel, and nobody waited for this copy");
  }
  this_grid->num_flying -=
      static_cast<size_t>(std::count_if(block->bulk_copies.begin(), block->bulk_copies.end(),
                                        [](const Copy &copy) { return !copy.has_landed; }));
  allow(block->shared.data(), block->shared.bytes());
  for (Thread &thread : block->threads) {
    idle_fibres().emplace_back(thread.fibre);
  }
  const auto same = [block](const std::unique_ptr<Block> &b) { return b.get() == block; };
  this_grid->blocks.erase(std::find_if(this_grid->blocks.begin(), this_grid->blocks.end(), same));
}

/* ---- Deadlock ---- */

/* Who waits where: threads of a block that wait at one place share a line. */
std::string describe_waits() {
  std::string text = "nobody can go on:";
  size_t num_lines = 0;
  for (const auto &block : this_grid->blocks) {
    std::map<std::string, std::pair<uint32_t, uint32_t>> waits; /* count and first thread */
    for (const Thread &thread : block->threads) {
      if (thread.waits_for != nullptr) {
        const std::string place = std::string(thread.waits_for) + " at " + thread.site.file + ":" +
                                  std::to_string(thread.site.line);
        ++waits.emplace(place, std::make_pair(0u, thread.number)).first->second.first;
      }
    }
    for (const auto &wait : waits) {
      if (++num_lines <= MAX_REPORTED_WAITS) {
        text += " block " + std::to_string(block->index.x) + "," + std::to_string(block->index.y) +
                "," + std::to_string(block->index.z) + ": " + std::to_string(wait.second.first) +
                " of " + std::to_string(block->threads.size()) + " threads (the first is " +
                std::to_string(wait.second.second) + ") wait for " + wait.first + ";";
      }
    }
  }
  return text + (num_lines > MAX_REPORTED_WAITS ? " and others" : "");
}

void report_deadlock() {
  for (const auto &block : this_grid->blocks) {
    for (const Thread &thread : block->threads) {
      if (thread.waits_for != nullptr) {
        note_violation(Kind::deadlock, &thread,
                       std::string(thread.site.file) + ":" + std::to_string(thread.site.line),
                       describe_waits());
        return;
      }
    }
  }
}

/* ---- The loop ---- */

/* One thread runs until it suspends. */
void step() {
  bool is_poller = false;
  Thread *thread = this_grid->schedule.pick(&is_poller);
  const uint64_t most =
      MAX_IDLE_STEPS + MAX_IDLE_STEPS_PER_POLLER * this_grid->schedule.num_pollers();
  this_grid->idle_steps = is_poller ? this_grid->idle_steps + 1 : 0;
  if (thread == nullptr || this_grid->idle_steps > most) {
    report_deadlock();
    return;
  }
  ++this_grid->steps;
  this_thread = thread;
  thread->fibre->resume();
  this_thread = nullptr;
  if (thread->block->num_left == thread->block->threads.size()) {
    end_block(thread->block);
  }
  if (this_grid->num_flying > 0 && this_grid->schedule.lets_copy_land()) {
    auto &blocks = this_grid->blocks;
    land_some_copy(*blocks[this_grid->schedule.random().below(blocks.size())]);
  }
}

void run_blocks() {
  const size_t num_blocks = count(this_grid->launch->grid);
  Random &random = this_grid->schedule.random();
  std::vector<size_t> order(num_blocks);
  for (size_t i = 0; i < num_blocks; ++i) {
    order[i] = i;
    std::swap(order[i], order[random.below(i + 1)]);
  }
  const size_t room =
      this_grid->launch->cooperative
          ? num_blocks
          : 1 + random.below(std::min(capacity(*this_grid->launch), MAX_BLOCKS_AT_ONCE));
  while (!this_grid->violation && (!order.empty() || !this_grid->blocks.empty())) {
    while (!order.empty() && this_grid->blocks.size() < room) {
      begin_block(order.back());
      order.pop_back();
    }
    step();
  }
  while (!this_grid->blocks.empty()) {
    end_block(this_grid->blocks.back().get());
  }
}

} // namespace

Config &config() {
  static Config the_config;
  return the_config;
}

void set_seed(uint64_t new_seed) {
  seed = new_seed;
  num_launches = 0;
}

uint64_t current_seed() { return seed; }

void note_arguments(const void *values, size_t bytes, Launch *launch) {
  const char *at = static_cast<const char *>(values);
  for (size_t i = 0; i + sizeof(void *) <= bytes; i += sizeof(void *)) {
    const void *p = nullptr;
    std::memcpy(&p, at + i, sizeof p);
    if (device_piece(p) != nullptr) {
      launch->arguments.push_back(p);
    }
  }
}

void sleep(const char *waits_for, Site site) {
  this_thread->waits_for = waits_for;
  this_thread->site = site;
  Fibre::suspend();
  this_thread->waits_for = nullptr;
}

void wake(Thread *thread) {
  this_grid->schedule.add_ready(thread);
  note_progress();
}

void poll(const char *waits_for, Site site) {
  this_grid->schedule.add_poller(this_thread);
  sleep(waits_for, site);
}

void note_progress() { this_grid->idle_steps = 0; }

void note_violation(Kind kind, const Thread *thread, const std::string &site,
                    const std::string &what) {
  if (!this_grid->violation) {
    const uint3 nowhere = {0, 0, 0};
    this_grid->violation = {kind,
                            this_grid->launch->kernel,
                            thread != nullptr ? thread->block->index : nowhere,
                            thread != nullptr ? thread->index : nowhere,
                            site,
                            seed,
                            num_launches - 1,
                            what};
  }
}

std::optional<Violation> run(const Launch &launch) {
  listen_to_sanitizer();
  Random mixed(seed ^ (0x9E3779B97F4A7C15u * ++num_launches));
  Grid the_grid = {&launch, Schedule(mixed.next()), {}, {}, 0, 0, 0};
  this_grid = &the_grid;
  const std::string too_much = excess(launch);
  if (!too_much.empty()) {
    note_violation(Kind::limit, nullptr, "launch", too_much);
  } else {
    run_blocks();
  }
  std::string text;
  if (is_device_memory_damaged(&text)) {
    note_violation(Kind::out_of_bounds, nullptr, "?", "the grid wrote to device memory " + text);
  }
  this_grid = nullptr;
  return std::move(the_grid.violation);
}

cudaError_t run_now(cudaStream_t, Launch launch) {
  std::optional<Violation> violation = run(launch);
  return violation ? keep_violation(std::move(*violation)) : cudaSuccess;
}

cudaError_t keep_violation(Violation violation) {
  const Kind kind = violation.kind;
  if (!kept_violation()) {
    kept_violation() = std::move(violation);
  }
  switch (kind) {
  case Kind::limit:
    return cudaErrorInvalidConfiguration;
  case Kind::out_of_bounds:
    return cudaErrorIllegalAddress;
  case Kind::misaligned:
    return cudaErrorMisalignedAddress;
  default:
    return cudaErrorLaunchFailure;
  }
}

std::optional<Violation> take_violation() { return std::exchange(kept_violation(), std::nullopt); }

} // namespace simt
