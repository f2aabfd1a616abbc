#include "runtime/checkpoint/storage.h"

#include <stdio.h>
#include <string.h>

#include "runtime/checkpoint/file.h"
#include "runtime/status.h"

static const struct sy_storage storages[] = {
    {.name = "bf16", .dtype = SY_DTYPE_BF16, .weight = ".weight", .weight_dtype = SY_TENSOR_BF16},
    {.name = "f16", .dtype = SY_DTYPE_F16, .weight = ".weight", .weight_dtype = SY_TENSOR_F16},
    {.name = "f32", .dtype = SY_DTYPE_F32, .weight = ".weight", .weight_dtype = SY_TENSOR_F32},
    /* DeepSeek-V3's name says inverse; the scale multiplies all the same. */
    {.name = "fp8",
     .dtype = SY_DTYPE_F8_E4M3,
     .weight = ".weight",
     .weight_dtype = SY_TENSOR_F8_E4M3,
     .scales = ".weight_scale_inv",
     .scales_dtype = SY_TENSOR_F32},
    /* ModelOpt. Its input_scale is for static activations, which are quantised per token here. */
    {.name = "nvfp4",
     .dtype = SY_DTYPE_NVFP4,
     .weight = ".weight",
     .weight_dtype = SY_TENSOR_U8,
     .scales = ".weight_scale",
     .scales_dtype = SY_TENSOR_F8_E4M3,
     .global = ".weight_scale_2"},
    /* compressed-tensors. */
    {.name = "nvfp4",
     .dtype = SY_DTYPE_NVFP4,
     .weight = ".weight_packed",
     .weight_dtype = SY_TENSOR_U8,
     .scales = ".weight_scale",
     .scales_dtype = SY_TENSOR_F8_E4M3,
     .global = ".weight_global_scale",
     .reciprocal = true},
    {.name = "mxfp4",
     .dtype = SY_DTYPE_MXFP4,
     .weight = ".weight_packed",
     .weight_dtype = SY_TENSOR_U8,
     .scales = ".weight_scale",
     .scales_dtype = SY_TENSOR_U8},
    /* gpt-oss: blocks [experts, rows, columns / 32, 16]. */
    {.name = "mxfp4",
     .stacked = true,
     .dtype = SY_DTYPE_MXFP4,
     .weight = "_blocks",
     .weight_dtype = SY_TENSOR_U8,
     .scales = "_scales",
     .scales_dtype = SY_TENSOR_U8},
};
#define NUM_STORAGES (sizeof storages / sizeof storages[0])

static const struct sy_checkpoint_tensor *lookup(const sy_checkpoint *checkpoint, const char *stem,
                                                 const char *suffix) {
  char name[SY_TENSOR_NAME_BYTES];
  snprintf(name, sizeof name, "%s%s", stem, suffix);
  return sy_checkpoint_lookup(checkpoint, name);
}

const struct sy_checkpoint_tensor *sy_storage_tensor(const sy_checkpoint *checkpoint,
                                                     const char *stem, const char *suffix) {
  char name[SY_TENSOR_NAME_BYTES];
  snprintf(name, sizeof name, "%s%s", stem, suffix);
  return sy_checkpoint_find(checkpoint, name);
}

const struct sy_checkpoint_tensor *sy_storage_lookup(const sy_checkpoint *checkpoint, bool stacked,
                                                     const char *stem) {
  const struct sy_checkpoint_tensor *found = NULL;
  for (size_t i = 0; i < NUM_STORAGES && found == NULL; ++i) {
    found = storages[i].stacked == stacked ? lookup(checkpoint, stem, storages[i].weight) : NULL;
  }
  return found;
}

/* A tensor that is there, but of a dtype that none of the storages with this suffix has. */
static sy_status fail_dtype(const struct sy_checkpoint_tensor *tensor, bool stacked,
                            const char *suffix) {
  char expected[96] = "";
  for (size_t i = 0; i < NUM_STORAGES; ++i) {
    const struct sy_storage *s = &storages[i];
    const bool is_weight = strcmp(s->weight, suffix) == 0;
    const bool is_scales = s->scales != NULL && strcmp(s->scales, suffix) == 0;
    const char *name = sy_tensor_dtype_name(is_weight ? s->weight_dtype : s->scales_dtype);
    if (s->stacked == stacked && (is_weight || is_scales) && strstr(expected, name) == NULL) {
      const size_t used = strlen(expected);
      snprintf(expected + used, sizeof expected - used, "%s%s", used == 0 ? "" : ", ", name);
    }
  }
  return sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': dtype is %s; expected %s",
                 sy_path_shown(tensor->file->path), tensor->name,
                 sy_tensor_dtype_name(tensor->entry->tensor.dtype), expected);
}

/* The suffix of the tensor that keeps the projection from being stored so; NULL: it is. Scales that
 * are missing are no reason: that is said when they are wanted. */
static const char *mismatch(const sy_checkpoint *checkpoint, const struct sy_storage *s,
                            const char *stem) {
  if (lookup(checkpoint, stem, s->weight)->entry->tensor.dtype != s->weight_dtype) {
    return s->weight;
  }
  const struct sy_checkpoint_tensor *scales =
      s->scales == NULL ? NULL : lookup(checkpoint, stem, s->scales);
  return scales == NULL || scales->entry->tensor.dtype == s->scales_dtype ? NULL : s->scales;
}

sy_status sy_storage_find(const sy_checkpoint *checkpoint, bool stacked, const char *stem,
                          const struct sy_storage **storage_out) {
  const char *culprit = NULL;
  for (size_t i = 0; i < NUM_STORAGES; ++i) {
    const struct sy_storage *s = &storages[i];
    if (s->stacked != stacked || lookup(checkpoint, stem, s->weight) == NULL) {
      continue;
    }
    if (sy_storage_tensor(checkpoint, stem, s->weight) == NULL) {
      return SY_ERR_FORMAT; /* of a dtype that nobody knows */
    }
    const char *suffix = mismatch(checkpoint, s, stem);
    if (suffix == NULL) {
      *storage_out = s;
      return SY_OK;
    }
    culprit = culprit == NULL || suffix == s->scales ? suffix : culprit;
  }
  if (culprit == NULL) {
    sy_storage_tensor(checkpoint, stem, stacked ? "_blocks" : ".weight"); /* says it is missing */
    return SY_ERR_FORMAT;
  }
  const struct sy_checkpoint_tensor *tensor = sy_storage_tensor(checkpoint, stem, culprit);
  return tensor == NULL ? SY_ERR_FORMAT : fail_dtype(tensor, stacked, culprit);
}
