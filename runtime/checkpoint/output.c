#include "runtime/checkpoint/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/checkpoint/file.h"
#include "runtime/memory.h"
#include "runtime/status.h"

sy_status sy_output_create(const char *path, struct sy_output *output_out) {
  const size_t bytes = strlen(path) + 64;
  char *temporary = sy_alloc(bytes);
  if (temporary == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory for its path", sy_path_shown(path));
  }
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(temporary, bytes, "%s.%lx-%lx%s", path, (unsigned long)getpid(),
           (unsigned long)now.tv_sec * 1000000000UL + (unsigned long)now.tv_nsec, SY_OUTPUT_SUFFIX);
  const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) {
    const sy_status status =
        sy_fail(SY_ERR_IO, "%s: cannot be created: %s", sy_path_shown(temporary), strerror(errno));
    sy_free(temporary);
    return status;
  }
  *output_out = (struct sy_output){.fd = fd, .temporary = temporary};
  return SY_OK;
}

sy_status sy_output_write_at(const struct sy_output *output, size_t offset, const void *bytes,
                             size_t num_bytes) {
  size_t done = 0;
  while (done < num_bytes) {
    const ssize_t put =
        pwrite(output->fd, (const char *)bytes + done, num_bytes - done, (off_t)(offset + done));
    if (put < 0 && errno == EINTR) {
      continue;
    }
    if (put < 0) {
      return sy_fail(SY_ERR_IO, "%s: cannot be written at byte %zu: %s",
                     sy_path_shown(output->temporary), offset + done, strerror(errno));
    }
    done += (size_t)put;
  }
  return SY_OK;
}

void sy_output_abandon(struct sy_output *output) {
  close(output->fd);
  unlink(output->temporary);
  sy_free(output->temporary);
}

sy_status sy_output_commit(struct sy_output *output, const char *path) {
  const char *failed = fsync(output->fd) != 0 ? "cannot be brought to the disk" : NULL;
  int error = errno;
  if (failed == NULL && rename(output->temporary, path) != 0) {
    failed = "cannot be renamed";
    error = errno;
  }
  if (failed != NULL) {
    const sy_status status =
        sy_fail(SY_ERR_IO, "%s: %s: %s", sy_path_shown(output->temporary), failed, strerror(error));
    sy_output_abandon(output);
    return status;
  }
  close(output->fd);
  sy_free(output->temporary);
  return SY_OK;
}

static bool is_temporary(const char *name) {
  const size_t suffix_bytes = sizeof SY_OUTPUT_SUFFIX - 1;
  const size_t bytes = strlen(name);
  return bytes > suffix_bytes && strcmp(name + bytes - suffix_bytes, SY_OUTPUT_SUFFIX) == 0;
}

sy_status sy_output_clean(const char *folder) {
  DIR *open_folder = opendir(folder);
  if (open_folder == NULL) {
    return sy_fail(SY_ERR_IO, "%s: cannot be opened as a folder: %s", sy_path_shown(folder),
                   strerror(errno));
  }
  sy_status status = SY_OK;
  for (struct dirent *entry; status == SY_OK && (entry = readdir(open_folder)) != NULL;) {
    if (is_temporary(entry->d_name) && unlinkat(dirfd(open_folder), entry->d_name, 0) != 0) {
      status = sy_fail(SY_ERR_IO, "%s/%s: cannot be removed: %s", sy_path_shown(folder),
                       entry->d_name, strerror(errno));
    }
  }
  closedir(open_folder);
  return status;
}

sy_status sy_output_save(const char *path, const void *bytes, size_t num_bytes) {
  struct sy_output output;
  SY_TRY(sy_output_create(path, &output));
  const sy_status status = sy_output_write_at(&output, 0, bytes, num_bytes);
  if (status != SY_OK) {
    sy_output_abandon(&output);
    return status;
  }
  return sy_output_commit(&output, path);
}
