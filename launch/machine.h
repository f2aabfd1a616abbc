/* A machine as far as ranks care: what hwloc knows of its cores and memory, and its GPUs and NICs.
 * Read from this host, or from an XML file that lstopo or `switchyard topo --export` wrote. */
#ifndef LAUNCH_MACHINE_H
#define LAUNCH_MACHINE_H

#include <hwloc.h>
#include <stdbool.h>
#include <stdint.h>

#define LAUNCH_ERROR_BYTES 400
#define MACHINE_MAX_DEVICES 64
#define MACHINE_NAME_BYTES 64

/* NVIDIA GPUs, in the order of their PCI addresses: that of CUDA_DEVICE_ORDER=PCI_BUS_ID. */
struct machine_gpu {
  char pci[16]; /* "0000:41:00.0" */
  char name[MACHINE_NAME_BYTES];
  char uuid[48]; /* "GPU-…"; empty where nothing says it */
  hwloc_obj_t object;
};

/* One PCI function of a network adapter. Wireless ones are left out. */
struct machine_nic {
  char pci[16];
  char hca[32];       /* "mlx5_0": speaks RDMA; empty: only TCP */
  char interface[32]; /* "enp1s0f0np0"; may be empty */
  bool is_down;       /* its port says that no cable works */
  hwloc_obj_t object;
};

struct machine {
  hwloc_topology_t topology;
  bool is_live; /* this host, not a file */
  int32_t num_gpus;
  int32_t num_nics;
  struct machine_gpu gpus[MACHINE_MAX_DEVICES];
  struct machine_nic nics[MACHINE_MAX_DEVICES];
};

/* xml_path NULL: this host. False: error has the sentence. */
bool machine_load(const char *xml_path, struct machine **machine_out,
                  char error[LAUNCH_ERROR_BYTES]);
void machine_destroy(struct machine *machine);

/* How far apart two PCI devices are, in NCCL's words. */
enum machine_distance {
  MACHINE_PIX, /* behind one PCIe switch */
  MACHINE_PXB, /* across several switches, under one root */
  MACHINE_PHB, /* through the processor, within one NUMA node */
  MACHINE_SYS, /* between NUMA nodes */
};
enum machine_distance machine_distance(hwloc_obj_t a, hwloc_obj_t b);
const char *machine_distance_name(enum machine_distance distance);

/* The model of the first processor; empty where nothing says it. */
const char *machine_processor(const struct machine *machine);

#endif
