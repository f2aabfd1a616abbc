/* A rank reads the bytes of its own experts and no others, and all ranks together read the experts of
 * the file once: counted byte by byte, where the library calls pread. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/internal.h"
#include "runtime/switchyard_mpi.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/harness.h"

/* One per byte of the file: read by this rank. NULL: nobody counts. */
static unsigned char *touched;
static size_t touched_bytes;

ssize_t __real_pread(int fd, void *buffer, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset);

ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset) {
  const ssize_t got = __real_pread(fd, buffer, bytes, offset);
  if (touched != NULL && got > 0) {
    CHECK((size_t)offset + (size_t)got <= touched_bytes);
    memset(touched + offset, 1, (size_t)got); /* threads write the same value */
  }
  return got;
}

static void mark(unsigned char *bytes, const struct sy_checkpoint_tensor *tensor, size_t part,
                 size_t parts) {
  const size_t size = tensor->entry->tensor.bytes / parts;
  memset(bytes + tensor->entry->begin + part * size, 1, size);
}

/* The bytes of a global expert: its tensors, or its part of those that have all experts. Input scales
 * are nobody's. */
static void mark_expert(const sy_checkpoint *checkpoint, int32_t expert, int32_t num_experts,
                        unsigned char *bytes) {
  char part[32];
  snprintf(part, sizeof part, ".experts.%d.", expert);
  for (size_t i = 0; i < checkpoint->num_tensors; ++i) {
    const struct sy_checkpoint_tensor *tensor = &checkpoint->tensors[i];
    const bool input = strstr(tensor->name, ".input_") != NULL;
    if (strstr(tensor->name, part) != NULL && !input) {
      mark(bytes, tensor, 0, 1);
    } else if (strstr(tensor->name, ".experts.gate_up") != NULL ||
               strstr(tensor->name, ".experts.down") != NULL) {
      mark(bytes, tensor, (size_t)expert, (size_t)num_experts);
    }
  }
}

static void check_bytes(sy_layer *layer, const sy_checkpoint *checkpoint) {
  const int32_t experts = layer->model.shape.num_experts;
  touched_bytes = checkpoint->files[0]->version.bytes;
  unsigned char *own = calloc(touched_bytes, 1);
  unsigned char *all = calloc(touched_bytes, 1);
  unsigned char *sum = calloc(touched_bytes, 1);
  unsigned char *read = calloc(touched_bytes, 1);
  if (CHECK(own != NULL && all != NULL && sum != NULL && read != NULL)) {
    for (int32_t e = 0; e < experts; ++e) {
      mark_expert(checkpoint, e, experts, all);
      if (layer->model.expert_rank[e] == sy_test_rank()) {
        mark_expert(checkpoint, e, experts, own);
      }
    }
    touched = read;
    CHECK_OK(sy_layer_load_checkpoint(layer, checkpoint, 0));
    touched = NULL;
    CHECK_EQ_BYTES(read, own, touched_bytes);
    MPI_Allreduce(read, sum, (int)touched_bytes, MPI_UNSIGNED_CHAR, MPI_SUM, MPI_COMM_WORLD);
    CHECK_EQ_BYTES(sum, all, touched_bytes);
  }
  free(own);
  free(all);
  free(sum);
  free(read);
}

static void check_model(const char *family, const char *storage, sy_mode mode, sy_format format) {
  const struct written_sizes sizes = {.layers = 1,
                                      .hidden = 160,
                                      .intermediate = 96,
                                      .experts = 5,
                                      .top_k = 2,
                                      .family = family,
                                      .storage = storage};
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  sy_group *group = NULL;
  sy_layer *layer = NULL;
  sy_checkpoint *checkpoint = NULL;
  sy_model_info info = SY_MODEL_INFO_INIT;
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.num_threads = 2;
  if (CHECK_OK(sy_group_create_mpi(MPI_COMM_WORLD, &desc, &group)) &&
      CHECK_OK(sy_checkpoint_open(model->folder, &checkpoint)) &&
      CHECK_OK(sy_checkpoint_model(checkpoint, &info))) {
    info.shape.mode = mode;
    info.shape.format = format;
    if (CHECK_OK(sy_layer_create(group, &info.shape, &layer))) {
      check_bytes(layer, checkpoint);
    }
  }
  sy_layer_destroy(layer);
  sy_checkpoint_close(checkpoint);
  sy_group_destroy(group);
  written_model_destroy(model);
}

TEST(values_are_read_by_their_rank_alone) {
  check_model("qwen3_moe", "bf16", SY_MODE_W4A4, SY_FORMAT_NVFP4);
}

TEST(codes_and_scales_are_read_by_their_rank_alone) {
  check_model("mixtral", "modelopt", SY_MODE_W4A16, SY_FORMAT_NVFP4);
  check_model("deepseek_v3", "fp8", SY_MODE_BF16, SY_FORMAT_NVFP4);
}

TEST(experts_that_share_a_tensor_are_read_by_their_rank_alone) {
  check_model("gpt_oss", "gpt-oss", SY_MODE_W4A4, SY_FORMAT_MXFP4);
}
