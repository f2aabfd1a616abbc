/* mbarriers: barriers in shared memory that count arrivals, and bytes of bulk copies.
 *
 * A phase ends when `count` arrivals have come and every announced byte has landed. Stricter than
 * the hardware: a thread announces exactly the bytes of the copies that it issued to the mbarrier,
 * after issuing them (ptx/copy.cuh says why). */
#ifndef SY_TESTS_SIMT_MBARRIER_HPP
#define SY_TESTS_SIMT_MBARRIER_HPP

#include <cstdint>

#include "tests/simt/site.hpp"

namespace simt {

struct Block;
struct Mbarrier;

void mbarrier_init(uint64_t *p, uint32_t count, Site site);
void mbarrier_arrive(uint64_t *p, Site site);
void mbarrier_arrive_expect(uint64_t *p, uint32_t bytes, Site site);

/* Whether the phase of this parity is over. May say no though it is, as the hardware may. */
bool mbarrier_try_wait(uint64_t *p, uint32_t parity, Site site);

/* The mbarrier at p, which must be one. */
Mbarrier &mbarrier_at(uint64_t *p, const char *what, Site site);

/* Bytes of a bulk copy have landed. */
void mbarrier_land(Block &block, const uint64_t *p, uint32_t bytes);

} // namespace simt

#endif
