#include "launch/environment.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct list {
  const struct machine *machine;
  const struct binding_table *table;
  const struct environment_request *request;
  struct environment_setting *settings;
  int32_t count;
};

static void add(struct list *list, const char *name, const char *value, const char *reason) {
  const char *users = list->request->lookup(list->request->user, name);
  assert(list->count < ENVIRONMENT_CAPACITY);
  struct environment_setting *setting = &list->settings[list->count++];
  setting->is_users = users != NULL;
  snprintf(setting->name, sizeof setting->name, "%s", name);
  snprintf(setting->value, sizeof setting->value, "%s", users != NULL ? users : value);
  snprintf(setting->reason, sizeof setting->reason, "%s%s", users != NULL ? "yours, kept; " : "",
           reason);
}

static void append(char *text, size_t bytes, const char *separator, const char *prefix,
                   const char *word, const char *suffix) {
  const size_t used = strlen(text);
  snprintf(text + used, bytes - used, "%s%s%s%s", used > 0 ? separator : "", prefix, word, suffix);
}

/* ---- GPUs of one host ----------------------------------------------------------------------- */

/* NCCL sends directly between GPUs that are at most PXB apart, unless told. */
static void add_gpu_level(struct list *list) {
  const struct binding_table *table = list->table;
  const struct machine_gpu *gpus = list->machine->gpus;
  enum machine_distance farthest = MACHINE_PIX;
  int32_t first = 0;
  int32_t second = 0;
  for (int32_t a = 0; a < table->num_ranks; ++a) {
    for (int32_t b = 0; b < a; ++b) {
      const int32_t i = table->ranks[b].gpu;
      const int32_t j = table->ranks[a].gpu;
      if (i < 0 || j < 0 || i == j) {
        continue;
      }
      const enum machine_distance d = machine_distance(gpus[i].object, gpus[j].object);
      if (d > farthest) {
        farthest = d;
        first = i;
        second = j;
      }
    }
  }
  if (farthest > MACHINE_PXB) {
    char reason[200];
    snprintf(reason, sizeof reason,
             "GPUs %d and %d meet %s; by default NCCL may copy such pairs through host memory",
             first, second,
             farthest == MACHINE_SYS ? "across NUMA nodes" : "in the processor only");
    add(list, "NCCL_P2P_LEVEL", machine_distance_name(farthest), reason);
  }
}

/* ---- NICs between hosts --------------------------------------------------------------------- */

/* Adapters that some rank has as its nearest, in the machine's order. */
static bool is_used(const struct list *list, int32_t nic) {
  for (int32_t r = 0; r < list->table->num_ranks; ++r) {
    const struct binding *binding = &list->table->ranks[r];
    for (int32_t n = 0; n < binding->num_nics; ++n) {
      if (binding->nics[n] == nic) {
        return true;
      }
    }
  }
  return false;
}

static void add_nics(struct list *list) {
  char hcas[400] = "";
  char ports[400] = "";
  char interfaces[400] = "";
  char reason[256];
  int32_t num_hcas = 0;
  int32_t num_interfaces = 0;
  for (int32_t n = 0; n < list->machine->num_nics; ++n) {
    const struct machine_nic *nic = &list->machine->nics[n];
    if (!is_used(list, n)) {
      continue;
    }
    if (nic->hca[0] != '\0') {
      append(hcas, sizeof hcas, ",", "", nic->hca, "");
      append(ports, sizeof ports, ",", "", nic->hca, ":1");
      ++num_hcas;
    }
    if (nic->interface[0] != '\0') {
      append(interfaces, sizeof interfaces, ",", "", nic->interface, "");
      ++num_interfaces;
    }
  }
  if (num_hcas > 0) {
    char exact[sizeof hcas + 1];
    snprintf(exact, sizeof exact, "=%s", hcas);
    snprintf(reason, sizeof reason, "%s",
             num_hcas == 1 ? "the RDMA function nearest to the ranks that has a working port"
                           : "the RDMA functions nearest to the ranks, each with its own share of "
                             "PCIe: by default one of them may be left idle");
    if (list->request->use_gpus) {
      add(list, "NCCL_IB_HCA", exact, reason);
    }
    add(list, "UCX_NET_DEVICES", ports, reason);
  }
  /* Of several adapters that know only TCP, nothing here tells which one reaches the other hosts. */
  if (num_interfaces == 1 || (num_interfaces > 1 && num_hcas > 0)) {
    snprintf(reason, sizeof reason, "%s",
             num_hcas > 0 ? "the interfaces of these adapters; others may not reach the other hosts"
                          : "the only adapter with a cable; bridges of containers are not tried");
    if (list->request->use_gpus) {
      add(list, "NCCL_SOCKET_IFNAME", interfaces, reason);
    }
    add(list, "OMPI_MCA_btl_tcp_if_include", interfaces, reason);
  }
}

int32_t environment_list(const struct machine *machine, const struct binding_table *table,
                         const struct environment_request *request,
                         struct environment_setting settings_out[ENVIRONMENT_CAPACITY]) {
  struct list list = {
      .machine = machine, .table = table, .request = request, .settings = settings_out};
  add(&list, "OMPI_MCA_hwloc_base_binding_policy", "none",
      "the ranks take the cores of the table by themselves");
  if (request->use_gpus) {
    add(&list, "CUDA_DEVICE_ORDER", "PCI_BUS_ID", "GPUs are numbered as in the table");
    add_gpu_level(&list);
  }
  if (request->num_hosts > 1) {
    add_nics(&list);
  }
  return list.count;
}
