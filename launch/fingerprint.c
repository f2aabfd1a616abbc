#include "launch/fingerprint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_BYTES ((size_t)1 << 20)
#define SAMPLE_BYTES ((size_t)64 << 10)
#define NUM_SAMPLES 16

static uint64_t hash(uint64_t state, const void *data, size_t bytes) { /* FNV-1a */
  const unsigned char *byte = data;
  for (size_t i = 0; i < bytes; ++i) {
    state = (state ^ byte[i]) * UINT64_C(1099511628211);
  }
  return state;
}

static bool ends_with(const char *name, const char *end) {
  const size_t length = strlen(name);
  return length > strlen(end) && strcmp(name + length - strlen(end), end) == 0;
}

static int is_part(const struct dirent *entry) {
  return ends_with(entry->d_name, ".json") || ends_with(entry->d_name, ".safetensors");
}

/* Bytes [offset, offset + bytes), as far as the file has them. */
static bool hash_range(int file, off_t offset, size_t bytes, unsigned char *buffer,
                       uint64_t *state) {
  while (bytes > 0) {
    const ssize_t got = pread(file, buffer, bytes < HEAD_BYTES ? bytes : HEAD_BYTES, offset);
    if (got < 0) {
      return false;
    }
    if (got == 0) {
      break;
    }
    *state = hash(*state, buffer, (size_t)got);
    offset += got;
    bytes -= (size_t)got;
  }
  return true;
}

static bool hash_file(const char *path, unsigned char *buffer, uint64_t *state) {
  struct stat status;
  const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is no checkpoint */
  if (file < 0) {
    return false;
  }
  bool read = fstat(file, &status) == 0;
  if (read) {
    const int64_t size = status.st_size;
    *state = hash(*state, &size, sizeof size);
    read = hash_range(file, 0, HEAD_BYTES, buffer, state);
    for (int64_t i = 0; read && i < NUM_SAMPLES; ++i) {
      read = hash_range(file, (off_t)(size / NUM_SAMPLES * i), SAMPLE_BYTES, buffer, state);
    }
  }
  const int error = errno;
  close(file);
  errno = error;
  return read;
}

static bool hash_entries(const char *path, struct dirent **entries, int count,
                         unsigned char *buffer, uint64_t *state, char *error) {
  for (int i = 0; i < count; ++i) {
    char full[4096];
    snprintf(full, sizeof full, "%s/%s", path, entries[i]->d_name);
    *state = hash(*state, entries[i]->d_name, strlen(entries[i]->d_name) + 1);
    if (!hash_file(full, buffer, state)) {
      snprintf(error, LAUNCH_ERROR_BYTES, "checkpoint file '%.250s' cannot be read: %s", full,
               strerror(errno));
      return false;
    }
  }
  return true;
}

bool fingerprint_folder(const char *path, uint64_t *fingerprint_out,
                        char error[LAUNCH_ERROR_BYTES]) {
  struct dirent **entries = NULL;
  uint64_t state = UINT64_C(14695981039346656037);
  const int count = scandir(path, &entries, is_part, alphasort);
  if (count < 0) {
    snprintf(error, LAUNCH_ERROR_BYTES, "checkpoint '%.250s' cannot be read: %s", path,
             strerror(errno));
    return false;
  }
  unsigned char *buffer = malloc(HEAD_BYTES);
  bool read = false;
  if (buffer == NULL) {
    snprintf(error, LAUNCH_ERROR_BYTES, "out of memory for a fingerprint");
  } else {
    read = hash_entries(path, entries, count, buffer, &state, error);
  }
  for (int i = 0; i < count; ++i) {
    free(entries[i]);
  }
  free(entries);
  free(buffer);
  if (read) {
    *fingerprint_out = state;
  }
  return read;
}
