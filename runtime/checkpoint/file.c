#include "runtime/checkpoint/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/memory.h"
#include "runtime/status.h"

/* Leaves room in SY_ERROR_TEXT_BYTES for a tensor's name and the rest of the sentence. */
#define SHOWN_PATH_BYTES 160

sy_status sy_path_join(const char *folder, const char *name, char **path_out) {
  const size_t folder_bytes = folder == NULL ? 0 : strlen(folder) + 1;
  const size_t name_bytes = strlen(name) + 1;
  char *path = sy_alloc(folder_bytes + name_bytes);
  if (path == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory for its path", sy_path_shown(name));
  }
  if (folder != NULL) {
    memcpy(path, folder, folder_bytes - 1);
    path[folder_bytes - 1] = '/';
  }
  memcpy(path + folder_bytes, name, name_bytes);
  *path_out = path;
  return SY_OK;
}

const char *sy_path_shown(const char *path) {
  const size_t bytes = strlen(path);
  return bytes <= SHOWN_PATH_BYTES ? path : path + (bytes - SHOWN_PATH_BYTES);
}

bool sy_path_exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0;
}

static struct sy_file_version version_of(const struct stat *info) {
  return (struct sy_file_version){.bytes = (size_t)info->st_size, .modified = info->st_mtim};
}

sy_status sy_file_open(const char *path, int *fd_out, struct sy_file_version *version_out) {
  /* O_NONBLOCK: opening a pipe without a writer would wait for one. */
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return sy_fail(SY_ERR_IO, "%s: cannot be opened: %s", sy_path_shown(path), strerror(errno));
  }
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    close(fd);
    return sy_fail(SY_ERR_IO, "%s: cannot be examined: %s", sy_path_shown(path), strerror(error));
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return sy_fail(SY_ERR_IO, "%s: is a %s; expected a regular file", sy_path_shown(path),
                   S_ISDIR(info.st_mode) ? "directory" : "pipe, socket or device");
  }
  *fd_out = fd;
  *version_out = version_of(&info);
  return SY_OK;
}

sy_status sy_file_check_unchanged(int fd, const char *where, const struct sy_file_version *opened) {
  struct stat info;
  if (fstat(fd, &info) != 0) {
    return sy_fail(SY_ERR_IO, "%s: the file cannot be examined: %s", where, strerror(errno));
  }
  const struct sy_file_version now = version_of(&info);
  if (now.bytes != opened->bytes) {
    return sy_fail(SY_ERR_IO, "%s: the file has changed while open: found %zu bytes, expected %zu",
                   where, now.bytes, opened->bytes);
  }
  if (now.modified.tv_sec != opened->modified.tv_sec ||
      now.modified.tv_nsec != opened->modified.tv_nsec) {
    return sy_fail(SY_ERR_IO,
                   "%s: the file has changed while open: found it written to at %lld.%09ld, "
                   "expected at %lld.%09ld s",
                   where, (long long)now.modified.tv_sec, now.modified.tv_nsec,
                   (long long)opened->modified.tv_sec, opened->modified.tv_nsec);
  }
  return SY_OK;
}

sy_status sy_file_read_at(int fd, const char *where, size_t offset, void *buffer, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread(fd, (char *)buffer + done, bytes - done, (off_t)(offset + done));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return sy_fail(SY_ERR_IO, "%s: cannot be read: %s", where, strerror(errno));
    }
    if (got == 0) {
      return sy_fail(SY_ERR_IO,
                     "%s: the file ends at byte %zu while it is read; expected at least %zu bytes",
                     where, offset + done, offset + bytes);
    }
    done += (size_t)got;
  }
  return SY_OK;
}

sy_status sy_file_read(const char *path, size_t max_bytes, char **text_out, size_t *bytes_out) {
  int fd = -1;
  struct sy_file_version version;
  SY_TRY(sy_file_open(path, &fd, &version));
  const size_t bytes = version.bytes;
  if (bytes > max_bytes) {
    close(fd);
    return sy_fail(SY_ERR_FORMAT, "%s: has %zu bytes; allowed: at most %zu", sy_path_shown(path),
                   bytes, max_bytes);
  }
  char *text = sy_alloc(bytes + 1);
  if (text == NULL) {
    close(fd);
    return sy_fail(SY_ERR_MEMORY, "%s: no memory for its %zu bytes", sy_path_shown(path), bytes);
  }
  const sy_status status = sy_file_read_at(fd, sy_path_shown(path), 0, text, bytes);
  close(fd);
  if (status != SY_OK) {
    sy_free(text);
    return status;
  }
  text[bytes] = '\0';
  *text_out = text;
  *bytes_out = bytes;
  return SY_OK;
}
