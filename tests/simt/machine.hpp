/* The machine: a grid of blocks of warps of threads, and the device whose limits it keeps. */
#ifndef SY_TESTS_SIMT_MACHINE_HPP
#define SY_TESTS_SIMT_MACHINE_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <vector_types.h>

#include "tests/simt/fibre.hpp"
#include "tests/simt/memory.hpp"
#include "tests/simt/schedule.hpp"
#include "tests/simt/site.hpp"
#include "tests/simt/violation.hpp"

namespace simt {

constexpr uint32_t WARP = 32;
constexpr uint32_t NUM_BARRIERS = 16;

/* An RTX 50 card's limits per block and per SM; few SMs, so that cooperative grids stay small. */
struct Device {
  uint32_t num_sms = 4;
  uint32_t max_threads_per_block = 1024;
  uint32_t max_threads_per_sm = 1536;
  uint32_t max_blocks_per_sm = 24;
  size_t max_shared_bytes_per_block = 101376;
  size_t shared_bytes_per_sm = 102400;
};

struct Config {
  Device device;
  bool report_poison = true; /* operands of matrix instructions that were never written */
};

Config &config();

/* Launches from now on follow this seed; they are counted from 0 again. */
void set_seed(uint64_t seed);
uint64_t current_seed();

struct Launch {
  const char *kernel = "?";
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  bool cooperative = false;            /* all blocks are alive at once */
  std::function<void()> body;          /* what each thread does */
  std::vector<const void *> arguments; /* those that are addresses in device memory */
};

/* A copy into shared memory that is under way: copies.hpp. */
struct Copy {
  char *to;
  const char *from;
  uint32_t bytes;
  uint32_t source_bytes; /* the rest of `bytes` becomes zero */
  uint32_t group;     /* cp.async: commits of its thread before it; bulk: phase of its mbarrier */
  uint64_t *mbarrier; /* bulk copies */
  bool has_landed;    /* the data is there, though nobody waited for it yet */
  Site site;
};

struct Block;
struct Grid;

struct Thread {
  Fibre *fibre = nullptr;
  Block *block = nullptr;
  uint3 index = {0, 0, 0};
  uint32_t number = 0;             /* in the block, x fastest */
  const char *waits_for = nullptr; /* while it sleeps or polls */
  Site site;
  uint32_t num_commits = 0;
  std::vector<Copy> copies; /* cp.async that this thread has not waited for */

  uint32_t lane() const { return number % WARP; }
};

/* Lanes that come together for a shuffle, a vote or a matrix instruction: warp.hpp. */
struct Meeting {
  uint32_t mask;
  uint32_t arrived;
  const char *name;
  Site site;
  bool is_aligned; /* the whole warp, or nobody */
  void *slots[WARP];
  Thread *threads[WARP];
  void (*finish)(void *const *slots, uint32_t present);
};

struct Warp {
  uint32_t gone = 0; /* lanes that left the kernel or never were */
  std::vector<Meeting> meetings;
};

/* __syncthreads (0) and the named barriers: barrier.hpp. */
struct Barrier {
  uint32_t expected = 0; /* of this generation; 0 before the first arrival */
  uint32_t arrived = 0;
  Site site; /* of the first arrival */
  std::vector<Thread *> sleepers;
};

/* mbarrier.hpp */
struct Mbarrier {
  uint32_t count;
  uint32_t pending;
  uint32_t phase;
  int64_t bytes_to_come;                   /* announced less landed */
  std::map<uint32_t, int64_t> unannounced; /* by thread: bytes of copies issued, not yet expected */
};

struct Block {
  uint3 index = {0, 0, 0};
  std::vector<Thread> threads;
  uint32_t num_left = 0; /* threads that returned from the kernel */
  std::vector<Warp> warps;
  Barrier barriers[NUM_BARRIERS];
  std::map<const uint64_t *, Mbarrier> mbarriers;
  std::vector<Copy> bulk_copies;
  GuardedMemory shared;
  std::vector<bool> in_flight; /* 4-byte words of shared memory that a copy writes */
};

struct Grid {
  const Launch *launch;
  Schedule schedule;
  std::vector<std::unique_ptr<Block>> blocks; /* those alive */
  std::optional<Violation> violation;
  uint64_t steps = 0;
  uint64_t idle_steps = 0; /* polls since anything changed that a poller may wait for */
  size_t num_flying = 0;   /* copies that have not landed */
};

/* The grid that runs and its thread that runs, or nullptr. */
extern Grid *this_grid;
extern Thread *this_thread;

inline Warp &warp_of(const Thread &thread) { return thread.block->warps[thread.number / WARP]; }

/* The running thread sleeps until it is woken. */
void sleep(const char *waits_for, Site site);
void wake(Thread *thread);

/* The running thread lets others run, to look again at what they may change. */
void poll(const char *waits_for, Site site);

/* Something changed that pollers may wait for. */
void note_progress();

/* The first violation stays. From outside of a fibre, or where the fibre must go on. */
void note_violation(Kind kind, const Thread *thread, const std::string &site,
                    const std::string &what);

} // namespace simt

#endif
