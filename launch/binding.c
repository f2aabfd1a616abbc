#include "launch/binding.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DOMAINS 512

/* NUMA nodes with the same cores: where a rank's memory is near, whichever of them it lies in. */
struct domain {
  hwloc_obj_t
      *cores; /* [num_cores] usable ones, in hwloc's order, which keeps neighbours together */
  int32_t num_cores;
  int32_t num_ranks; /* that were given to it */
  int32_t num_served;
};

struct work {
  const struct machine *machine;
  const struct binding_request *request;
  struct binding_table *table;
  hwloc_bitmap_t usable;
  hwloc_obj_t *cores; /* all domains' */
  int32_t num_cores;
  int32_t num_domains;
  struct domain domains[MAX_DOMAINS];
  int32_t *rank_domain; /* [num_ranks] the first one of each rank */
  int32_t num_visible;
  int32_t visible[MACHINE_MAX_DEVICES]; /* indices into machine->gpus, or -1: not in the topology */
};

/* ---- Domains -------------------------------------------------------------------------------- */

static hwloc_obj_type_t core_type(hwloc_topology_t topology) {
  return hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
}

/* Usable cores of the node that no domain has yet. */
static void add_domain(struct work *work, hwloc_obj_t node, hwloc_bitmap_t taken) {
  hwloc_topology_t topology = work->machine->topology;
  const hwloc_obj_type_t type = core_type(topology);
  struct domain domain = {.cores = work->cores + work->num_cores};
  hwloc_obj_t core = NULL;
  while ((core = hwloc_get_next_obj_by_type(topology, type, core)) != NULL) {
    if (hwloc_bitmap_intersects(core->cpuset, node->cpuset) &&
        hwloc_bitmap_intersects(core->cpuset, work->usable) &&
        !hwloc_bitmap_intersects(core->cpuset, taken)) {
      domain.cores[domain.num_cores++] = core;
      hwloc_bitmap_or(taken, taken, core->cpuset);
    }
  }
  if (domain.num_cores > 0 && work->num_domains < MAX_DOMAINS) {
    work->num_cores += domain.num_cores;
    work->domains[work->num_domains++] = domain;
  }
}

static bool find_domains(struct work *work, char *error) {
  hwloc_topology_t topology = work->machine->topology;
  const int count = hwloc_get_nbobjs_by_type(topology, core_type(topology));
  work->cores = calloc(count > 0 ? (size_t)count : 1, sizeof(hwloc_obj_t));
  hwloc_bitmap_t taken = hwloc_bitmap_alloc();
  if (work->cores == NULL || taken == NULL) {
    hwloc_bitmap_free(taken);
    snprintf(error, LAUNCH_ERROR_BYTES, "out of memory for %d cores", count);
    return false;
  }
  hwloc_obj_t node = NULL;
  while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != NULL) {
    add_domain(work, node, taken);
  }
  add_domain(work, hwloc_get_root_obj(topology), taken); /* cores beside all nodes */
  hwloc_bitmap_free(taken);
  if (work->num_cores == 0) {
    snprintf(error, LAUNCH_ERROR_BYTES, "none of the machine's %d cores may be used", count);
    return false;
  }
  work->table->num_usable_cores = work->num_cores;
  return true;
}

/* ---- GPUs ----------------------------------------------------------------------------------- */

static int32_t gpu_named(const struct machine *machine, const char *name, size_t length) {
  char *end = NULL;
  const long index = strtol(name, &end, 10);
  if (end == name + length && length > 0) {
    return index >= 0 && index < machine->num_gpus ? (int32_t)index : -1;
  }
  for (int32_t i = 0; i < machine->num_gpus; ++i) {
    if (length > 4 && strncmp(machine->gpus[i].uuid, name, length) == 0) { /* may be abbreviated */
      return i;
    }
  }
  return -1;
}

/* As CUDA reads it: a number that does not exist ends the list; UUIDs may be unknown here. */
static bool find_visible_gpus(struct work *work, char *error) {
  const struct machine *machine = work->machine;
  const char *list = work->request->visible_gpus;
  if (list == NULL) {
    for (int32_t i = 0; i < machine->num_gpus; ++i) {
      work->visible[work->num_visible++] = i;
    }
  }
  while (list != NULL && *list != '\0' && work->num_visible < MACHINE_MAX_DEVICES) {
    const size_t length = strcspn(list, ",");
    const int32_t gpu = gpu_named(machine, list, length);
    if (gpu < 0 && strncmp(list, "GPU-", 4) != 0 && strncmp(list, "MIG-", 4) != 0) {
      break;
    }
    work->visible[work->num_visible++] = gpu;
    list += length + (list[length] == ',' ? 1 : 0);
  }
  if (work->num_visible == 0) {
    snprintf(error, LAUNCH_ERROR_BYTES, "no GPU: the machine has %d%s%.100s", machine->num_gpus,
             work->request->visible_gpus != NULL ? ", CUDA_VISIBLE_DEVICES is " : "",
             work->request->visible_gpus != NULL ? work->request->visible_gpus : "");
    return false;
  }
  return true;
}

static void give_gpus(struct work *work) {
  for (int32_t r = 0; r < work->table->num_ranks; ++r) {
    struct binding *binding = &work->table->ranks[r];
    binding->device = r % work->num_visible;
    binding->gpu = work->visible[binding->device];
  }
  if (work->table->num_ranks > work->num_visible) {
    snprintf(work->table->note, sizeof work->table->note, "%d ranks share %d GPU%s",
             work->table->num_ranks, work->num_visible, work->num_visible == 1 ? "" : "s");
  }
}

/* ---- Ranks to domains ----------------------------------------------------------------------- */

/* The domain, among those near `where` (NULL: all), that stays least crowded; -1: none is near. */
static int32_t least_crowded(const struct work *work, hwloc_const_cpuset_t where) {
  int32_t best = -1;
  for (int32_t d = 0; d < work->num_domains; ++d) {
    const struct domain *domain = &work->domains[d];
    if (where != NULL && !hwloc_bitmap_intersects(domain->cores[0]->cpuset, where)) {
      continue;
    }
    if (best < 0 || (int64_t)(domain->num_ranks + 1) * work->domains[best].num_cores <
                        (int64_t)(work->domains[best].num_ranks + 1) * domain->num_cores) {
      best = d;
    }
  }
  return best;
}

/* Each rank near its GPU. False: more ranks than cores somewhere. */
static bool settle_by_gpu(struct work *work) {
  bool fits = true;
  for (int32_t r = 0; r < work->table->num_ranks; ++r) {
    const int32_t gpu = work->table->ranks[r].gpu;
    hwloc_obj_t home = gpu < 0 ? NULL
                               : hwloc_get_non_io_ancestor_obj(work->machine->topology,
                                                               work->machine->gpus[gpu].object);
    int32_t d = least_crowded(work, home == NULL ? NULL : home->cpuset);
    d = d < 0 ? least_crowded(work, NULL) : d;
    work->rank_domain[r] = d;
    fits = ++work->domains[d].num_ranks <= work->domains[d].num_cores && fits;
  }
  return fits;
}

/* Neighbouring ranks on the same domain, as many on each as its cores call for. */
static void settle_evenly(struct work *work) {
  for (int32_t d = 0; d < work->num_domains; ++d) {
    work->domains[d].num_ranks = 0;
  }
  for (int32_t r = 0; r < work->table->num_ranks; ++r) {
    ++work->domains[least_crowded(work, NULL)].num_ranks;
  }
  int32_t rank = 0;
  for (int32_t d = 0; d < work->num_domains; ++d) {
    for (int32_t i = 0; i < work->domains[d].num_ranks; ++i) {
      work->rank_domain[rank++] = d;
    }
  }
}

/* ---- Cores to ranks ------------------------------------------------------------------------- */

static void give_cores(const struct work *work, struct binding *binding, hwloc_obj_t *cores,
                       int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    hwloc_bitmap_or(binding->cpus, binding->cpus, cores[i]->cpuset);
  }
  hwloc_bitmap_and(binding->cpus, binding->cpus, work->usable);
  binding->num_cores += count;
}

static void give_share_of_domain(struct work *work, int32_t rank) {
  struct domain *domain = &work->domains[work->rank_domain[rank]];
  const int32_t n = domain->num_ranks;
  const int32_t begin = (int32_t)((int64_t)domain->num_served * domain->num_cores / n);
  const int32_t end = (int32_t)((int64_t)(domain->num_served + 1) * domain->num_cores / n);
  ++domain->num_served;
  give_cores(work, &work->table->ranks[rank], domain->cores + begin, end - begin);
}

static void divide_cores(struct work *work) {
  const int32_t ranks = work->table->num_ranks;
  if (ranks > work->num_cores) {
    for (int32_t r = 0; r < ranks; ++r) {
      give_cores(work, &work->table->ranks[r], work->cores, work->num_cores);
      work->table->ranks[r].is_shared = true;
    }
    snprintf(work->table->note, sizeof work->table->note, "%d ranks share %d core%s", ranks,
             work->num_cores, work->num_cores == 1 ? "" : "s");
    return;
  }
  if (!work->request->use_gpus && ranks < work->num_domains) {
    for (int32_t r = 0; r < ranks; ++r) {
      for (int32_t d = r * work->num_domains / ranks; d < (r + 1) * work->num_domains / ranks;
           ++d) {
        give_cores(work, &work->table->ranks[r], work->domains[d].cores,
                   work->domains[d].num_cores);
      }
    }
    return;
  }
  if (!work->request->use_gpus || !settle_by_gpu(work)) {
    if (work->request->use_gpus) {
      snprintf(work->table->note, sizeof work->table->note,
               "too few usable cores near the GPUs: cores are divided without regard to them");
    }
    settle_evenly(work);
  }
  for (int32_t r = 0; r < ranks; ++r) {
    give_share_of_domain(work, r);
  }
}

/* ---- NICs ----------------------------------------------------------------------------------- */

/* Without a GPU, a NIC is as near as its NUMA node. */
static enum machine_distance nic_distance(const struct work *work, const struct binding *binding,
                                          const struct machine_nic *nic) {
  if (binding->gpu >= 0) {
    return machine_distance(work->machine->gpus[binding->gpu].object, nic->object);
  }
  hwloc_obj_t home = hwloc_get_non_io_ancestor_obj(work->machine->topology, nic->object);
  return hwloc_bitmap_intersects(home->cpuset, binding->cpus) ? MACHINE_PHB : MACHINE_SYS;
}

/* RDMA before TCP only, then the nearest of these. */
static void give_nics(const struct work *work, struct binding *binding) {
  const struct machine *machine = work->machine;
  bool any_rdma = false;
  for (int32_t n = 0; n < machine->num_nics; ++n) {
    any_rdma = any_rdma || (machine->nics[n].hca[0] != '\0' && !machine->nics[n].is_down);
  }
  enum machine_distance nearest = MACHINE_SYS;
  for (int32_t n = 0; n < machine->num_nics; ++n) {
    const struct machine_nic *nic = &machine->nics[n];
    if (nic->is_down || (any_rdma && nic->hca[0] == '\0')) {
      continue;
    }
    const enum machine_distance distance = nic_distance(work, binding, nic);
    if (distance < nearest) {
      nearest = distance;
      binding->num_nics = 0;
    }
    if (distance == nearest) {
      binding->nics[binding->num_nics++] = n;
    }
  }
}

/* ---- The table ------------------------------------------------------------------------------ */

static bool allocate(struct work *work, char *error) {
  struct binding_table *table = work->table;
  table->num_ranks = work->request->num_ranks;
  table->ranks = calloc((size_t)table->num_ranks, sizeof *table->ranks);
  work->rank_domain = calloc((size_t)table->num_ranks, sizeof *work->rank_domain);
  work->usable = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(work->machine->topology));
  bool complete = table->ranks != NULL && work->rank_domain != NULL && work->usable != NULL;
  for (int32_t r = 0; complete && r < table->num_ranks; ++r) {
    struct binding *binding = &table->ranks[r];
    binding->gpu = binding->device = -1;
    binding->cpus = hwloc_bitmap_alloc();
    binding->nodes = hwloc_bitmap_alloc();
    complete = binding->cpus != NULL && binding->nodes != NULL;
  }
  if (!complete) {
    snprintf(error, LAUNCH_ERROR_BYTES, "out of memory for the bindings of %d ranks",
             table->num_ranks);
  } else if (work->request->usable != NULL) {
    hwloc_bitmap_and(work->usable, work->usable, work->request->usable);
  }
  return complete;
}

static bool build(struct work *work, char *error) {
  if (!allocate(work, error) || !find_domains(work, error)) {
    return false;
  }
  if (work->request->use_gpus) {
    if (!find_visible_gpus(work, error)) {
      return false;
    }
    give_gpus(work);
  }
  divide_cores(work);
  for (int32_t r = 0; r < work->table->num_ranks; ++r) {
    struct binding *binding = &work->table->ranks[r];
    hwloc_cpuset_to_nodeset(work->machine->topology, binding->cpus, binding->nodes);
    const int32_t share = work->num_cores / work->table->num_ranks;
    binding->threads = work->request->threads > 0 ? work->request->threads
                       : !binding->is_shared      ? binding->num_cores
                       : share > 0                ? share
                                                  : 1;
    give_nics(work, binding);
  }
  return true;
}

bool binding_table_make(const struct machine *machine, const struct binding_request *request,
                        struct binding_table *table_out, char error[LAUNCH_ERROR_BYTES]) {
  struct binding_table table = {.num_ranks = 0};
  if (request->num_ranks < 1 || request->num_ranks > BINDING_MAX_RANKS) {
    snprintf(error, LAUNCH_ERROR_BYTES, "%d ranks on one host; allowed: 1..%d", request->num_ranks,
             BINDING_MAX_RANKS);
    return false;
  }
  struct work *work = calloc(1, sizeof *work);
  if (work == NULL) {
    snprintf(error, LAUNCH_ERROR_BYTES, "out of memory for a table of bindings");
    return false;
  }
  work->machine = machine;
  work->request = request;
  work->table = &table;
  const bool built = build(work, error);
  hwloc_bitmap_free(work->usable);
  free(work->cores);
  free(work->rank_domain);
  free(work);
  if (built) {
    *table_out = table;
  } else {
    binding_table_free(&table);
  }
  return built;
}

void binding_table_free(struct binding_table *table) {
  for (int32_t r = 0; table->ranks != NULL && r < table->num_ranks; ++r) {
    hwloc_bitmap_free(table->ranks[r].cpus);
    hwloc_bitmap_free(table->ranks[r].nodes);
  }
  free(table->ranks);
  *table = (struct binding_table){.num_ranks = 0};
}
