/* Asynchronous copies from global into shared memory.
 *
 * A copy is queued; its data lands at some later moment, at the latest when it is waited for. Until
 * then its destination holds poison, and touching it is a violation: AddressSanitizer sees every
 * access, other builds those of the emulator's own functions. What is read is what the source holds
 * when the copy lands. */
#ifndef SY_TESTS_SIMT_COPIES_HPP
#define SY_TESTS_SIMT_COPIES_HPP

#include <cstdint>
#include <string>

#include "tests/simt/site.hpp"

namespace simt {

struct Block;

/* cp.async: source_bytes <= bytes are read, the rest becomes zero. */
void copy_async(void *to, const void *from, uint32_t bytes, uint32_t source_bytes, Site site);
void copy_commit();

/* Waits until at most `groups` of this thread's committed groups are under way. */
void copy_wait(uint32_t groups);

/* cp.async.bulk: completes on the mbarrier. */
void copy_bulk(void *to, const void *from, uint32_t bytes, uint64_t *mbarrier, Site site);

/* A wait for the mbarrier saw that the phases before `phase` are over. */
void reveal_bulk_copies(const uint64_t *mbarrier, uint32_t phase);

/* One copy of the block that has not landed, if there is one, lands. */
void land_some_copy(Block &block);

/* The running thread, or the whole block, leaves the kernel. */
void leave_copies();
bool has_unwaited_copy(const Block &block, std::string *site_out);

/* Whether p lies where a copy under way writes to. */
bool is_destination(const Block &block, const void *p);

} // namespace simt

#endif
