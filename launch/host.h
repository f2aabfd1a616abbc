/* What this process can see of its host. */
#ifndef LAUNCH_HOST_H
#define LAUNCH_HOST_H

#include <stdbool.h>
#include <stdint.h>

#define HOST_CACHE_LEVELS 3

/* Sent between ranks as it is: plain values only. */
struct host_facts {
  char name[64];
  char processor[64]; /* empty where the system does not say */
  char cpu_list[128]; /* "0-3,8": hardware threads that this process may use */
  int32_t usable_cores;
  int32_t usable_cpus; /* hardware threads */
  int32_t cores;       /* of the whole host */
  int32_t cpus;
  int32_t numa_nodes;
  int32_t caches[HOST_CACHE_LEVELS]; /* how many L1 (data), L2, L3 */
  uint64_t cache_bytes[HOST_CACHE_LEVELS];
  uint64_t memory_bytes;
};

/* False: the topology cannot be read. */
bool host_discover(struct host_facts *facts_out);

#endif
