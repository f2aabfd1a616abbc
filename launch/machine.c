#include "launch/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PCI_VENDOR_NVIDIA 0x10de
#define PCI_CLASS_DISPLAY 0x03 /* VGA (00) and 3D (02) controllers */

/* What hwloc reports of an InfiniBand or RoCE port that is up. */
#define PORT_ACTIVE "4"

static void copy_info(char *text, size_t bytes, hwloc_obj_t object, const char *key) {
  const char *value = hwloc_obj_get_info_by_name(object, key);
  snprintf(text, bytes, "%s", value == NULL ? "" : value);
}

static void name_pci(char text[16], hwloc_obj_t object) {
  const struct hwloc_pcidev_attr_s *pci = &object->attr->pcidev;
  snprintf(text, 16, "%04x:%02x:%02x.%01x", pci->domain & 0xffffu, pci->bus, pci->dev,
           pci->func & 0xfu);
}

/* ---- GPUs ----------------------------------------------------------------------------------- */

/* The driver's own page knows model and UUID, which hwloc only does when built with NVML. */
static void read_driver_page(struct machine_gpu *gpu) {
  char path[80];
  char line[200];
  snprintf(path, sizeof path, "/proc/driver/nvidia/gpus/%s/information", gpu->pci);
  FILE *file = fopen(path, "re");
  while (file != NULL && fgets(line, sizeof line, file) != NULL) {
    sscanf(line, "GPU UUID: %47s", gpu->uuid);
    sscanf(line, "Model: %63[^\n]", gpu->name);
  }
  if (file != NULL) {
    fclose(file);
  }
}

static void add_gpu(struct machine *machine, hwloc_obj_t object) {
  struct machine_gpu *gpu = &machine->gpus[machine->num_gpus++];
  gpu->object = object;
  name_pci(gpu->pci, object);
  copy_info(gpu->name, sizeof gpu->name, object, "PCIDevice");
  for (hwloc_obj_t os = object->io_first_child; os != NULL; os = os->next_sibling) {
    if (gpu->uuid[0] == '\0') {
      copy_info(gpu->uuid, sizeof gpu->uuid, os, "NVIDIAUUID");
    }
    if (gpu->name[0] == '\0') {
      copy_info(gpu->name, sizeof gpu->name, os, "GPUModel");
    }
  }
  if (machine->is_live) {
    read_driver_page(gpu);
  }
  if (gpu->name[0] == '\0') {
    snprintf(gpu->name, sizeof gpu->name, "NVIDIA GPU %04x", object->attr->pcidev.device_id);
  }
}

static int compare_gpus(const void *a, const void *b) {
  return strcmp(((const struct machine_gpu *)a)->pci, ((const struct machine_gpu *)b)->pci);
}

static bool is_gpu(hwloc_obj_t object) {
  return object->attr->pcidev.vendor_id == PCI_VENDOR_NVIDIA &&
         object->attr->pcidev.class_id >> 8 == PCI_CLASS_DISPLAY;
}

/* ---- NICs ----------------------------------------------------------------------------------- */

static bool interface_is_down(const char *name) {
  char path[80];
  char state[16] = "";
  snprintf(path, sizeof path, "/sys/class/net/%s/operstate", name);
  FILE *file = fopen(path, "re");
  if (file == NULL) {
    return false;
  }
  const bool is_down = fgets(state, sizeof state, file) != NULL && strcmp(state, "down\n") == 0;
  fclose(file);
  return is_down;
}

static void add_nic(struct machine *machine, hwloc_obj_t object) {
  struct machine_nic nic = {.object = object};
  name_pci(nic.pci, object);
  for (hwloc_obj_t os = object->io_first_child; os != NULL; os = os->next_sibling) {
    if (os->type != HWLOC_OBJ_OS_DEVICE || os->name == NULL) {
      continue;
    }
    if (os->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS && nic.hca[0] == '\0') {
      const char *state = hwloc_obj_get_info_by_name(os, "Port1State");
      snprintf(nic.hca, sizeof nic.hca, "%s", os->name);
      nic.is_down = nic.is_down || (state != NULL && strcmp(state, PORT_ACTIVE) != 0);
    } else if (os->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK && nic.interface[0] == '\0') {
      snprintf(nic.interface, sizeof nic.interface, "%s", os->name);
      nic.is_down = nic.is_down || (machine->is_live && interface_is_down(os->name));
    }
  }
  const bool is_wireless = strncmp(nic.interface, "wl", 2) == 0; /* by systemd's naming */
  if ((nic.hca[0] != '\0' || nic.interface[0] != '\0') && !is_wireless) {
    machine->nics[machine->num_nics++] = nic;
  }
}

static int compare_nics(const void *a, const void *b) {
  return strcmp(((const struct machine_nic *)a)->pci, ((const struct machine_nic *)b)->pci);
}

/* ---- Loading -------------------------------------------------------------------------------- */

static void find_devices(struct machine *machine) {
  hwloc_obj_t object = NULL;
  while ((object = hwloc_get_next_pcidev(machine->topology, object)) != NULL) {
    if (is_gpu(object) && machine->num_gpus < MACHINE_MAX_DEVICES) {
      add_gpu(machine, object);
    } else if (machine->num_nics < MACHINE_MAX_DEVICES) {
      add_nic(machine, object);
    }
  }
  qsort(machine->gpus, (size_t)machine->num_gpus, sizeof machine->gpus[0], compare_gpus);
  qsort(machine->nics, (size_t)machine->num_nics, sizeof machine->nics[0], compare_nics);
}

static bool load_topology(struct machine *machine, const char *xml_path, char *error) {
  hwloc_topology_t topology = machine->topology;
  if (xml_path != NULL && access(xml_path, R_OK) != 0) {
    snprintf(error, LAUNCH_ERROR_BYTES, "topology '%.200s' cannot be read: %s", xml_path,
             strerror(errno));
    return false;
  }
  if (xml_path != NULL && hwloc_topology_set_xml(topology, xml_path) != 0) {
    snprintf(error, LAUNCH_ERROR_BYTES,
             "topology '%.200s' is not a file of hwloc in XML, such as `lstopo file.xml` writes",
             xml_path);
    return false;
  }
  /* Linux's own files tell the same of PCI as the plugin, which leaks what it has allocated. */
  hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "pci");
  if (hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) == 0 &&
      hwloc_topology_load(topology) == 0) {
    return true;
  }
  if (xml_path == NULL) {
    snprintf(error, LAUNCH_ERROR_BYTES, "hwloc cannot read the topology of this host");
  } else {
    snprintf(error, LAUNCH_ERROR_BYTES,
             "topology '%.200s' is not a file of hwloc in XML, such as `lstopo file.xml` writes",
             xml_path);
  }
  return false;
}

bool machine_load(const char *xml_path, struct machine **machine_out,
                  char error[LAUNCH_ERROR_BYTES]) {
  struct machine *machine = calloc(1, sizeof *machine);
  if (machine == NULL || hwloc_topology_init(&machine->topology) != 0) {
    free(machine);
    snprintf(error, LAUNCH_ERROR_BYTES, "out of memory for a topology");
    return false;
  }
  machine->is_live = xml_path == NULL;
  if (!load_topology(machine, xml_path, error)) {
    machine_destroy(machine);
    return false;
  }
  find_devices(machine);
  *machine_out = machine;
  return true;
}

void machine_destroy(struct machine *machine) {
  if (machine != NULL) {
    hwloc_topology_destroy(machine->topology);
    free(machine);
  }
}

/* ---- Distance ------------------------------------------------------------------------------- */

static bool is_pci_bridge(hwloc_obj_t object) {
  return object->type == HWLOC_OBJ_BRIDGE &&
         object->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI;
}

/* PCI bridges strictly between the device and one of its ancestors. */
static int bridges_below(hwloc_obj_t device, hwloc_obj_t ancestor) {
  int count = 0;
  for (hwloc_obj_t up = device->parent; up != ancestor; up = up->parent) {
    count += is_pci_bridge(up) ? 1 : 0;
  }
  return count;
}

static hwloc_obj_t common_ancestor(hwloc_obj_t a, hwloc_obj_t b) {
  for (hwloc_obj_t up = a->parent; up != NULL; up = up->parent) {
    for (hwloc_obj_t other = b->parent; other != NULL; other = other->parent) {
      if (up == other) {
        return up;
      }
    }
  }
  return NULL; /* devices of two topologies */
}

enum machine_distance machine_distance(hwloc_obj_t a, hwloc_obj_t b) {
  const hwloc_obj_t meeting = common_ancestor(a, b);
  if (meeting == NULL) {
    return MACHINE_SYS;
  }
  if (is_pci_bridge(meeting)) {
    /* A switch is one upstream bridge with a downstream one for each of its ports. */
    return bridges_below(a, meeting) <= 1 && bridges_below(b, meeting) <= 1 ? MACHINE_PIX
                                                                            : MACHINE_PXB;
  }
  if (meeting->type == HWLOC_OBJ_BRIDGE) {
    return MACHINE_PHB;
  }
  return hwloc_bitmap_weight(meeting->nodeset) == 1 ? MACHINE_PHB : MACHINE_SYS;
}

const char *machine_distance_name(enum machine_distance distance) {
  static const char *const names[] = {"PIX", "PXB", "PHB", "SYS"};
  return names[distance];
}

const char *machine_processor(const struct machine *machine) {
  hwloc_obj_t package = hwloc_get_obj_by_type(machine->topology, HWLOC_OBJ_PACKAGE, 0);
  hwloc_obj_t holder = package != NULL ? package : hwloc_get_root_obj(machine->topology);
  const char *model = hwloc_obj_get_info_by_name(holder, "CPUModel");
  return model == NULL ? "" : model;
}
