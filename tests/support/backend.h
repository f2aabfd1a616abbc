/* The backend that a program's groups work on: backend_cpu.c or, linked instead, backend_gpu.c (the
 * emulated GPU or a real one). In programs of several ranks backend_*_mpi.c makes their groups. */
#ifndef SY_TESTS_SUPPORT_BACKEND_H
#define SY_TESTS_SUPPORT_BACKEND_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/switchyard.h"

/* A group of one process. */
sy_status backend_group(const sy_group_desc *desc, sy_group **group_out);

/* A group of all ranks of the program. Collective. */
sy_status backend_group_mpi(const sy_group_desc *desc, sy_group **group_out);

/* Where scratch and device tensors lie; ends the program when there is none left. `to` and `from` are
 * in such memory and in the host's. */
void *backend_alloc(size_t bytes);
void backend_free(void *block);
void backend_upload(void *to, const void *from, size_t bytes);
void backend_download(void *to, const void *from, size_t bytes);

bool backend_is_gpu(void);

/* Whether calls bring device tensors: on a GPU, when SY_TEST_TENSORS is "device". */
bool backend_takes_device_tensors(void);

#endif
