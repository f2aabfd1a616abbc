/* The CUDA library's tables: the stages, and the device seam over CUDA's runtime. */
#include "kernels/cuda/cuda.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cuda/architecture.h"
#include "kernels/cuda/expert_layout.h"
#include "kernels/cuda/weights.h"
#include "runtime/memory.h"
#include "runtime/status.h"

#define TRY_CUDA(call)                 \
  do {                                 \
    const cudaError_t error_ = (call); \
    if (error_ != cudaSuccess) {       \
      return failed(error_);           \
    }                                  \
  } while (0)

static _Thread_local cudaError_t last_error;

/* CUDA keeps the error too, for the next launch to find: it is taken back. */
static sy_status failed(cudaError_t error) {
  last_error = error;
  (void)cudaGetLastError();
  return SY_ERR_DEVICE;
}

/* A stage's launch that failed has left its error with CUDA. */
static const char *device_error_text(void) {
  static _Thread_local char text[200];
  const cudaError_t of_launch = cudaPeekAtLastError();
  const cudaError_t error = of_launch != cudaSuccess ? of_launch : last_error;
  snprintf(text, sizeof text, "CUDA: %s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
  return text;
}

static sy_status device_use(int32_t ordinal) {
  TRY_CUDA(cudaSetDevice(ordinal));
  return SY_OK;
}

/* ---- Memory ---- */

static void *device_alloc(size_t bytes) {
  void *block = NULL;
  const cudaError_t error = cudaMalloc(&block, bytes > 0 ? bytes : 1);
  if (error != cudaSuccess) {
    failed(error);
    return NULL;
  }
  return block;
}

static void device_free(void *block) { (void)cudaFree(block); }

static void *device_alloc_pinned(size_t bytes) {
  void *block = NULL;
  const cudaError_t error =
      cudaHostAlloc(&block, bytes > 0 ? bytes : 1, cudaHostAllocPortable | cudaHostAllocMapped);
  if (error != cudaSuccess) {
    failed(error);
    return NULL;
  }
  return block;
}

static void device_free_pinned(void *block) { (void)cudaFreeHost(block); }

static bool device_reaches(const void *p) {
  struct cudaPointerAttributes attributes;
  const cudaError_t error = cudaPointerGetAttributes(&attributes, p);
  if (error != cudaSuccess) {
    failed(error);
    return false;
  }
  return attributes.type != cudaMemoryTypeUnregistered;
}

static sy_status device_upload(void *to, const void *from, size_t bytes) {
  TRY_CUDA(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
  return SY_OK;
}

static sy_status device_download(void *to, const void *from, size_t bytes) {
  TRY_CUDA(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
  return SY_OK;
}

static sy_status device_copy(void *to, const void *from, size_t bytes, void *stream) {
  TRY_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
  return SY_OK;
}

static sy_status device_clear(void *to, size_t bytes, void *stream) {
  TRY_CUDA(cudaMemsetAsync(to, 0, bytes, stream));
  return SY_OK;
}

/* ---- Streams ---- */

static sy_status device_stream_create(void **stream_out) {
  cudaStream_t stream;
  TRY_CUDA(cudaStreamCreate(&stream));
  *stream_out = stream;
  return SY_OK;
}

static void device_stream_destroy(void *stream) { (void)cudaStreamDestroy(stream); }

static bool device_is_capturing(void *stream) {
  enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream, &capture);
  if (error != cudaSuccess) {
    failed(error);
    return false;
  }
  return capture != cudaStreamCaptureStatusNone;
}

static sy_status device_query(void *stream, bool *done_out) {
  const cudaError_t error = cudaStreamQuery(stream);
  if (error != cudaSuccess && error != cudaErrorNotReady) {
    return failed(error);
  }
  *done_out = error == cudaSuccess;
  return SY_OK;
}

const struct sy_device *sy_device_cuda(void) {
  static const struct sy_device table = {
      .name = "cuda",
      .use = device_use,
      .alloc = device_alloc,
      .free = device_free,
      .alloc_pinned = device_alloc_pinned,
      .free_pinned = device_free_pinned,
      .reaches = device_reaches,
      .upload = device_upload,
      .download = device_download,
      .copy = device_copy,
      .clear = device_clear,
      .stream_create = device_stream_create,
      .stream_destroy = device_stream_destroy,
      .is_capturing = device_is_capturing,
      .query = device_query,
      .error_text = device_error_text,
      .note_ids = sy_cuda_note_ids,
      .write_headers = sy_cuda_write_headers,
      .read_headers = sy_cuda_read_headers,
      .count_chunk = sy_cuda_count_chunk,
  };
  return &table;
}

/* ---- Stages ---- */

static size_t expert_bytes(const struct sy_stage_env *env) {
  return sy_cuda_expert_layout_make(env).bytes;
}

/* Into host memory: the runtime takes it to the device. */
static sy_status load_expert(const struct sy_stage_env *env, const struct sy_source *source,
                             unsigned char *expert, struct sy_bad_weight *bad) {
  unsigned char *staged = sy_alloc(sy_cpu_expert_bytes(env));
  if (staged == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%zu bytes to repack an expert cannot be allocated",
                   sy_cpu_expert_bytes(env));
  }
  const sy_status status = sy_cpu_load_expert(env, source, staged, bad);
  if (status == SY_OK) {
    sy_cuda_repack_expert(env, staged, expert);
  }
  sy_free(staged);
  return status;
}

/* ---- GPUs ---- */

sy_status sy_cuda_count_gpus(int32_t *count_out) {
  int count = 0;
  TRY_CUDA(cudaGetDeviceCount(&count));
  *count_out = count;
  return SY_OK;
}

sy_status sy_cuda_current_gpu(int32_t *device_out) {
  int device = 0;
  TRY_CUDA(cudaGetDevice(&device));
  *device_out = device;
  return SY_OK;
}

sy_status sy_cuda_query_gpu(int32_t device, sy_gpu_info *info_out) {
  struct cudaDeviceProp properties;
  TRY_CUDA(cudaGetDeviceProperties(&properties, device));
  snprintf(info_out->name, sizeof info_out->name, "%s", properties.name);
  info_out->compute_major = properties.major;
  info_out->compute_minor = properties.minor;
  info_out->num_sms = properties.multiProcessorCount;
  info_out->memory_bytes = properties.totalGlobalMem;
  info_out->is_usable =
      sy_cuda_choose_architecture(SY_CUDA_ARCHITECTURES, properties.major, properties.minor,
                                  info_out->kernels, sizeof info_out->kernels);
  return SY_OK;
}

sy_status sy_cuda_can_access_peer(int32_t device, int32_t peer, int32_t *can_out) {
  int can = 0;
  TRY_CUDA(cudaDeviceCanAccessPeer(&can, device, peer));
  *can_out = can;
  return SY_OK;
}

static bool is_available(void) {
  int32_t count = 0;
  return sy_cuda_count_gpus(&count) == SY_OK && count > 0;
}

static sy_status experts_by_bf16(const struct sy_stage_env *env,
                                 const struct sy_experts_args *args) {
  struct sy_stage_env dequantising = *env;
  dequantising.fp4_by_bf16 = true;
  return sy_cuda_experts(&dequantising, args);
}

#define SY_CUDA_KERNELS(name_, description_, experts_)                                             \
  {                                                                                                \
    .name = (name_), .description = (description_), .is_available = is_available,                  \
    .expert_bytes = expert_bytes, .load_expert = load_expert,                                      \
    .check_ids = sy_cpu_check_ids /* of host tensors */, .route = sy_cuda_route,                   \
    .pack = sy_cuda_pack, .group = sy_cuda_group, .experts = (experts_), .reduce = sy_cuda_reduce, \
    .combine = sy_cuda_combine,                                                                    \
  }

const struct sy_kernels *sy_kernels_cuda(void) {
  static const struct sy_kernels table =
      SY_CUDA_KERNELS("cuda", "tiles of 16 weight rows by 8 routed rows", sy_cuda_experts);
  return &table;
}

const struct sy_kernels *sy_kernels_cuda_by_bf16(void) {
  static const struct sy_kernels table =
      SY_CUDA_KERNELS("cuda by bf16", "the same, FP4 dequantised", experts_by_bf16);
  return &table;
}
