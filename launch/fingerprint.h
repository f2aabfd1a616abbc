/* A number that tells two checkpoints apart without reading them whole. */
#ifndef LAUNCH_FINGERPRINT_H
#define LAUNCH_FINGERPRINT_H

#include "launch/machine.h"

/* Of names, sizes and samples of the .json and .safetensors files in a folder: the first MiB of each
 * (configuration, index, a shard's header) and 16 blocks of 64 KiB all over it. Equal folders have
 * equal fingerprints wherever they lie; a changed byte between the samples goes unnoticed. False:
 * error names the file. */
bool fingerprint_folder(const char *path, uint64_t *fingerprint_out,
                        char error[LAUNCH_ERROR_BYTES]);

#endif
