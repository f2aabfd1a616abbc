#include "launch/devices.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

/* Takes the address of a function; C has no cast from an object's. False: there is none. */
static int find(void *library, const char *name, void *function_out, size_t bytes) {
  void *address = dlsym(library, name);
  memcpy(function_out, &address, bytes);
  return address != NULL;
}

#define FIND(library, name, function) find(library, name, &(function), sizeof(function))

static void read_driver(void *library, struct device_facts *facts) {
  int (*init)(unsigned) = NULL;
  int (*get_version)(int *) = NULL;
  int (*get_count)(int *) = NULL;
  int (*get_name)(char *, int, int) = NULL;
  int (*get_memory)(size_t *, int) = NULL;
  int count = 0;
  int version = 0;
  size_t memory = 0;
  if (!FIND(library, "cuInit", init) || !FIND(library, "cuDriverGetVersion", get_version) ||
      !FIND(library, "cuDeviceGetCount", get_count) ||
      !FIND(library, "cuDeviceGetName", get_name) ||
      !FIND(library, "cuDeviceTotalMem_v2", get_memory)) {
    return;
  }
  if (get_version(&version) == 0) {
    facts->driver = version;
  }
  facts->num_gpus = 0;
  if (init(0) != 0 || get_count(&count) != 0) {
    return;
  }
  facts->num_gpus = count;
  if (count > 0 && get_name(facts->gpu_name, sizeof facts->gpu_name - 1, 0) == 0 &&
      get_memory(&memory, 0) == 0) {
    facts->gpu_memory_bytes = memory;
  }
}

void devices_read(struct device_facts *facts_out) {
  memset(facts_out, 0, sizeof *facts_out); /* padding too: it is sent */
  facts_out->num_gpus = -1;
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver != NULL) {
    read_driver(driver, facts_out); /* stays loaded: a driver may not be unloaded safely */
  }
  void *nccl = dlopen("libnccl.so.2", RTLD_LAZY | RTLD_LOCAL);
  int (*get_version)(int *) = NULL;
  int version = 0;
  if (nccl != NULL && FIND(nccl, "ncclGetVersion", get_version) && get_version(&version) == 0) {
    facts_out->nccl = version;
  }
}
