#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <omp.h>
#include <switchyard_checkpoint.h>

#include "launch/bench.h"

#define BLOCK_BYTES ((size_t)1 << 20)

struct bench_files {
  const char *path;
  int num_threads;
  struct dirent **entries; /* the safetensors files */
  int num_files;
  unsigned char *blocks; /* [num_threads, BLOCK_BYTES] */
  sy_checkpoint *checkpoint;
  sy_group *group;
  sy_layer *layer; /* holds one model layer after another */
  int32_t num_model_layers;
  int32_t num_layers; /* of these, the ones that have experts */
  uint64_t bytes;     /* of all their experts, in the files */
};

static int is_safetensors(const struct dirent *entry) {
  static const char end[] = ".safetensors";
  const size_t length = strlen(entry->d_name);
  return length >= sizeof end && strcmp(entry->d_name + length - (sizeof end - 1), end) == 0;
}

static sy_status add_up_layers(struct bench_files *files) {
  sy_status status = SY_OK;
  for (int32_t i = 0; status == SY_OK && i < files->num_model_layers; ++i) {
    sy_layer_info info = SY_LAYER_INFO_INIT;
    status = sy_checkpoint_check_layer(files->checkpoint, i, &info);
    files->num_layers += status == SY_OK && info.is_dense == 0;
    files->bytes += info.expert_bytes;
  }
  return status;
}

static sy_status open_checkpoint(struct bench_files *files, struct bench_request *request) {
  sy_model_info info = SY_MODEL_INFO_INIT;
  const sy_mode mode = request->shape.mode;
  const sy_format format = request->shape.format;
  sy_status status = sy_checkpoint_open(files->path, &files->checkpoint);
  if (status == SY_OK) {
    status = sy_checkpoint_model(files->checkpoint, &info);
  }
  if (status == SY_OK) {
    request->shape = info.shape;
    request->shape.mode = mode;
    request->shape.format = format;
    files->num_model_layers = info.num_layers;
    status = add_up_layers(files);
  }
  return status;
}

int bench_files_open(struct session *session, struct bench_request *request,
                     struct bench_files **files_out) {
  struct bench_files *files = calloc(1, sizeof *files);
  if (files == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  *files_out = files;
  files->path = request->checkpoint;
  files->num_threads = request->num_threads > 0 ? (int)request->num_threads : omp_get_max_threads();
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.num_threads = (int32_t)files->num_threads;
  sy_status status = open_checkpoint(files, request);
  if (status == SY_OK) {
    status = sy_group_create_local(&desc, &files->group);
  }
  if (status == SY_OK) {
    status = sy_layer_create(files->group, &request->shape, &files->layer);
  }
  if (status != SY_OK) {
    return session_fail_status(session, status, "");
  }
  if (files->num_layers == 0) {
    return session_fail(session, CLI_BAD_FILE, "--checkpoint '%s' has no layer with experts",
                        files->path);
  }
  files->num_files = scandir(files->path, &files->entries, is_safetensors, alphasort);
  if (files->num_files < 0) {
    return session_fail(session, CLI_BAD_FILE, "--checkpoint '%s' cannot be read: %s", files->path,
                        strerror(errno));
  }
  files->blocks = malloc((size_t)files->num_threads * BLOCK_BYTES);
  if (files->blocks == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  double gbs;
  return bench_files_read(session, files, &gbs); /* into the page cache with them */
}

void bench_files_close(struct bench_files *files) {
  if (files != NULL) {
    for (int i = 0; i < files->num_files; ++i) {
      free(files->entries[i]);
    }
    free(files->entries);
    free(files->blocks);
    sy_layer_destroy(files->layer);
    sy_group_destroy(files->group);
    sy_checkpoint_close(files->checkpoint);
    free(files);
  }
}

int bench_files_threads(const struct bench_files *files) { return files->num_threads; }
int32_t bench_files_layers(const struct bench_files *files) { return files->num_layers; }
double bench_files_bytes(const struct bench_files *files) { return (double)files->bytes; }

double bench_files_prepacked_bytes(const struct bench_files *files) {
  return (double)sy_layer_weight_bytes(files->layer) * (double)files->num_layers;
}

/* Reads a whole file, by blocks of which each thread takes the next. False: errno says why. */
static bool read_file(const struct bench_files *files, const char *path, int64_t *bytes_out) {
  struct stat status;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return false;
  }
  int error = fstat(file, &status) == 0 ? 0 : errno;
  const int64_t size = error == 0 ? (int64_t)status.st_size : 0;
  const int64_t blocks = (size + (int64_t)BLOCK_BYTES - 1) / (int64_t)BLOCK_BYTES;
#pragma omp parallel for num_threads(files->num_threads) schedule(dynamic) reduction(max : error)
  for (int64_t i = 0; i < blocks; ++i) {
    unsigned char *block = files->blocks + (size_t)omp_get_thread_num() * BLOCK_BYTES;
    /* Regular files are read short at their end alone, which is not looked at here. */
    if (pread(file, block, BLOCK_BYTES, (off_t)(i * (int64_t)BLOCK_BYTES)) < 0) {
      error = errno;
    }
  }
  close(file);
  errno = error;
  *bytes_out = size;
  return error == 0;
}

int bench_files_read(struct session *session, const struct bench_files *files, double *gbs_out) {
  double bytes = 0.0;
  const double begin = bench_now_us();
  for (int i = 0; i < files->num_files; ++i) {
    char path[PATH_MAX];
    int64_t size = 0;
    snprintf(path, sizeof path, "%s/%s", files->path, files->entries[i]->d_name);
    if (!read_file(files, path, &size)) {
      return session_fail(session, CLI_BAD_FILE, "checkpoint file '%s' cannot be read: %s", path,
                          strerror(errno));
    }
    bytes += (double)size;
  }
  *gbs_out = bytes / (bench_now_us() - begin) * 1e-3;
  return CLI_OK;
}

int bench_files_load(struct session *session, const struct bench_files *files) {
  for (int32_t i = 0; i < files->num_model_layers; ++i) {
    sy_layer_info info = SY_LAYER_INFO_INIT;
    sy_status status = sy_checkpoint_check_layer(files->checkpoint, i, &info);
    if (status == SY_OK && info.is_dense == 0) {
      status = sy_layer_load_checkpoint(files->layer, files->checkpoint, i);
    }
    if (status != SY_OK) {
      return session_fail_status(session, status, "");
    }
  }
  return CLI_OK;
}
