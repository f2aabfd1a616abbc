/* The runtime's calls for devices: the machine's GPUs are what a test says they are. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "tests/simt/stream.hpp"
#include "tests/simt/tensor_core.hpp"

namespace simt {

namespace {

/* Figures of the real ones, but few SMs and little memory. */
struct Model {
  const char *key;
  const char *name;
  int major;
  int minor;
  bool is_integrated;
  size_t max_shared_bytes_per_block;
  size_t shared_bytes_per_sm;
  int max_threads_per_sm;
  int max_blocks_per_sm;
  int l2_bytes;
};

constexpr Model models[] = {
    {"sm120", "Emulated RTX 50", 12, 0, false, 101376, 102400, 1536, 24, 96 << 20},
    {"sm121", "Emulated GB10", 12, 1, true, 101376, 102400, 1536, 24, 24 << 20},
    {"sm90", "Emulated H100", 9, 0, false, 232448, 233472, 2048, 32, 50 << 20},
};
constexpr size_t DEVICE_BYTES = size_t{1} << 30;

struct Machine {
  bool has_driver = true;
  std::vector<const Model *> devices;
  int current = 0;
  int64_t used_bytes = 0;
};

Machine &machine() {
  static Machine the_machine;
  static bool is_set = false;
  if (!is_set) {
    is_set = true;
    const char *names = getenv("SY_SIMT_DEVICES");
    if (!simt_set_devices(names != nullptr ? names : "sm120")) {
      fail_host(Kind::limit, "SY_SIMT_DEVICES is '%s'", names);
    }
  }
  return the_machine;
}

bool is_device(int device) {
  return device >= 0 && device < static_cast<int>(machine().devices.size());
}

/* What the emulator holds kernels to. */
void use_limits(const Model &model) {
  Device &device = config().device;
  device.max_threads_per_sm = static_cast<uint32_t>(model.max_threads_per_sm);
  device.max_blocks_per_sm = static_cast<uint32_t>(model.max_blocks_per_sm);
  device.max_shared_bytes_per_block = model.max_shared_bytes_per_block;
  device.shared_bytes_per_sm = model.shared_bytes_per_sm;
}

cudaDeviceProp properties_of(int number) {
  const Model &model = *machine().devices[static_cast<size_t>(number)];
  cudaDeviceProp p = {};
  snprintf(p.name, sizeof p.name, "%s", model.name);
  p.totalGlobalMem = DEVICE_BYTES;
  p.sharedMemPerBlock = 48 * 1024;
  p.warpSize = 32;
  p.maxThreadsPerBlock = 1024;
  p.major = model.major;
  p.minor = model.minor;
  p.multiProcessorCount = static_cast<int>(config().device.num_sms);
  p.integrated = model.is_integrated ? 1 : 0;
  p.pciBusID = number + 1;
  p.l2CacheSize = model.l2_bytes;
  p.memoryBusWidth = 256;
  p.maxThreadsPerMultiProcessor = model.max_threads_per_sm;
  p.sharedMemPerMultiprocessor = model.shared_bytes_per_sm;
  p.cooperativeLaunch = 1;
  p.sharedMemPerBlockOptin = model.max_shared_bytes_per_block;
  p.maxBlocksPerMultiProcessor = model.max_blocks_per_sm;
  return p;
}

} // namespace

size_t free_device_bytes() { return DEVICE_BYTES - static_cast<size_t>(machine().used_bytes); }

void take_device_bytes(int64_t bytes) { machine().used_bytes += bytes; }

cudaError_t enter_device(const char *call) {
  if (!machine().has_driver) {
    return cudaErrorInsufficientDriver;
  }
  return machine().devices.empty() ? cudaErrorNoDevice : enter(call);
}

} // namespace simt

using namespace simt;

bool simt_set_devices(const char *names) {
  Machine fresh;
  fresh.has_driver = std::strcmp(names, "no driver") != 0;
  std::istringstream words(fresh.has_driver ? names : "");
  for (std::string word; std::getline(words, word, ',');) {
    const Model *found = nullptr;
    for (const Model &model : models) {
      found = word == model.key ? &model : found;
    }
    if (found == nullptr) {
      return false;
    }
    fresh.devices.push_back(found);
  }
  if (!fresh.devices.empty()) {
    use_limits(*fresh.devices[0]);
  }
  machine() = fresh;
  return true;
}

void simt_swap_scales(bool swaps) { swaps_scales = swaps; }

cudaError_t cudaDriverGetVersion(int *version) {
  *version = machine().has_driver ? CUDART_VERSION : 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = static_cast<int>(machine().devices.size());
  SIMT_ENTER(enter_device(__func__));
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
  SIMT_ENTER(enter_device(__func__));
  *device = machine().current;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  SIMT_ENTER(enter_device(__func__));
  if (!is_device(device)) {
    return remember(cudaErrorInvalidDevice);
  }
  machine().current = device;
  use_limits(*machine().devices[static_cast<size_t>(device)]);
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
  SIMT_ENTER(enter_device(__func__));
  if (!is_device(device)) {
    return remember(cudaErrorInvalidDevice);
  }
  *properties = properties_of(device);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  SIMT_ENTER(enter_device(__func__));
  if (!is_device(device)) {
    return remember(cudaErrorInvalidDevice);
  }
  const cudaDeviceProp p = properties_of(device);
  switch (attribute) {
  case cudaDevAttrMaxSharedMemoryPerBlock:
    *value = static_cast<int>(p.sharedMemPerBlock);
    return cudaSuccess;
  case cudaDevAttrMultiProcessorCount:
    *value = p.multiProcessorCount;
    return cudaSuccess;
  case cudaDevAttrIntegrated:
    *value = p.integrated;
    return cudaSuccess;
  case cudaDevAttrComputeCapabilityMajor:
    *value = p.major;
    return cudaSuccess;
  case cudaDevAttrComputeCapabilityMinor:
    *value = p.minor;
    return cudaSuccess;
  case cudaDevAttrCooperativeLaunch:
    *value = p.cooperativeLaunch;
    return cudaSuccess;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    *value = static_cast<int>(p.sharedMemPerBlockOptin);
    return cudaSuccess;
  }
  return remember(cudaErrorInvalidValue);
}

/* As RTX cards: never. */
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  SIMT_ENTER(enter_device(__func__));
  if (!is_device(device) || !is_device(peer)) {
    return remember(cudaErrorInvalidDevice);
  }
  *can = 0;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
  SIMT_ENTER(enter_device(__func__));
  *free_bytes = free_device_bytes();
  *total_bytes = DEVICE_BYTES;
  return cudaSuccess;
}
