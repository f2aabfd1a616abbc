/* __syncthreads and the named barriers of a block.
 *
 * __syncthreads is for every thread of the block at one place: another place, or a thread that has
 * left the kernel, is divergence. A named barrier counts threads, wherever they are. */
#ifndef SY_TESTS_SIMT_BARRIER_HPP
#define SY_TESTS_SIMT_BARRIER_HPP

#include <cstdint>

#include "tests/simt/site.hpp"

namespace simt {

void sync_threads(Site site);

/* Barrier `id`, 1 to 15, is over when `threads` have come: those that sync wait for it, those that
 * arrive do not. */
void barrier_sync(uint32_t id, uint32_t threads, Site site);
void barrier_arrive(uint32_t id, uint32_t threads, Site site);

/* The running thread leaves the kernel. */
void leave_barriers();

} // namespace simt

#endif
