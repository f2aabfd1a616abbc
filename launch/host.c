#include "launch/host.h"

#include <hwloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int32_t count(hwloc_topology_t topology, hwloc_obj_type_t type) {
  const int found = hwloc_get_nbobjs_by_type(topology, type);
  return found < 0 ? 0 : found;
}

/* Cores of which the process may use at least one hardware thread. */
static int32_t count_usable_cores(hwloc_topology_t topology, hwloc_const_cpuset_t usable) {
  int32_t cores = 0;
  hwloc_obj_t core = NULL;
  while ((core = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, core)) != NULL) {
    cores += hwloc_bitmap_intersects(core->cpuset, usable) ? 1 : 0;
  }
  return cores;
}

static bool read_usable(hwloc_topology_t topology, struct host_facts *facts) {
  hwloc_bitmap_t usable = hwloc_bitmap_alloc();
  if (usable == NULL) {
    return false;
  }
  /* Where the binding cannot be asked for, everything that the system allows is usable. */
  if (hwloc_get_cpubind(topology, usable, HWLOC_CPUBIND_PROCESS) != 0) {
    hwloc_bitmap_fill(usable);
  }
  hwloc_bitmap_and(usable, usable, hwloc_topology_get_allowed_cpuset(topology));
  facts->usable_cpus = hwloc_bitmap_weight(usable);
  facts->usable_cores = count_usable_cores(topology, usable);
  hwloc_bitmap_list_snprintf(facts->cpu_list, sizeof facts->cpu_list, usable);
  hwloc_bitmap_free(usable);
  return true;
}

static void read_host(hwloc_topology_t topology, struct host_facts *facts) {
  static const hwloc_obj_type_t caches[HOST_CACHE_LEVELS] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE,
                                                             HWLOC_OBJ_L3CACHE};
  facts->cores = count(topology, HWLOC_OBJ_CORE);
  facts->cpus = count(topology, HWLOC_OBJ_PU);
  facts->numa_nodes = count(topology, HWLOC_OBJ_NUMANODE);
  /* Not hwloc's sum over nodes, which misses memory that a virtual machine was given later. */
  facts->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
  for (int level = 0; level < HOST_CACHE_LEVELS; ++level) {
    facts->caches[level] = count(topology, caches[level]);
    if (facts->caches[level] > 0) {
      facts->cache_bytes[level] =
          hwloc_get_obj_by_type(topology, caches[level], 0)->attr->cache.size;
    }
  }
  hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
  const char *model = package == NULL ? NULL : hwloc_obj_get_info_by_name(package, "CPUModel");
  snprintf(facts->processor, sizeof facts->processor, "%s", model == NULL ? "" : model);
}

bool host_discover(struct host_facts *facts_out) {
  struct host_facts facts;
  memset(&facts, 0, sizeof facts); /* padding too: it is sent */
  gethostname(facts.name, sizeof facts.name - 1);
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) {
    return false;
  }
  /* Disallowed resources are counted among the host's, not among the usable ones. */
  const bool loaded =
      hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) == 0 &&
      hwloc_topology_load(topology) == 0 && read_usable(topology, &facts);
  if (loaded) {
    read_host(topology, &facts);
    memcpy(facts_out, &facts, sizeof facts);
  }
  hwloc_topology_destroy(topology);
  return loaded;
}
