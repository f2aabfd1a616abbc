/* What this process sees of NVIDIA's libraries, asked by their own names: nothing is linked. */
#ifndef LAUNCH_DEVICES_H
#define LAUNCH_DEVICES_H

#include <stdint.h>

/* Sent between ranks as it is: plain values only. */
struct device_facts {
  int32_t num_gpus;  /* visible to CUDA; -1: there is no driver */
  int32_t driver;    /* CUDA version that the driver serves: 13000; 0: none */
  int32_t nccl;      /* 22809; 0: there is no libnccl.so.2 */
  char gpu_name[64]; /* of the first */
  uint64_t gpu_memory_bytes;
};

void devices_read(struct device_facts *facts_out);

#endif
