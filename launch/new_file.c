#include "launch/new_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Through links to the file itself, so that they stay; NULL: errno says why. */
static char *name_beside(const char *path) {
  char *place = realpath(path, NULL);
  if (place == NULL && errno != ENOENT) {
    return NULL;
  }
  const char *target = place != NULL ? place : path;
  const size_t bytes = strlen(target) + 32;
  char *beside = malloc(bytes);
  if (beside != NULL) {
    snprintf(beside, bytes, "%s.%ld.part", target, (long)getpid());
  }
  free(place);
  return beside;
}

bool new_file_open(struct new_file *file, const char *path) {
  struct stat found;
  *file = (struct new_file){.path = path};
  if (stat(path, &found) == 0 && !S_ISREG(found.st_mode)) {
    file->out = fopen(path, "we");
    return file->out != NULL;
  }
  file->beside = name_beside(path);
  file->out = file->beside == NULL ? NULL : fopen(file->beside, "we");
  if (file->out == NULL) {
    const int error = errno;
    free(file->beside);
    errno = error;
    return false;
  }
  return true;
}

/* Puts the finished file into its place, through links. */
static bool put_in_place(const struct new_file *file) {
  char *place = realpath(file->path, NULL);
  const bool is_put = rename(file->beside, place != NULL ? place : file->path) == 0;
  const int error = errno;
  free(place);
  errno = error;
  return is_put;
}

bool new_file_close(struct new_file *file, bool is_complete) {
  int error = errno != 0 ? errno : EIO; /* of a write that failed before */
  bool is_written = is_complete && ferror(file->out) == 0;
  if (fclose(file->out) != 0) {
    error = errno;
    is_written = false;
  }
  if (file->beside != NULL && is_written && !put_in_place(file)) {
    error = errno;
    is_written = false;
  }
  if (file->beside != NULL && !is_written) {
    unlink(file->beside);
  }
  free(file->beside);
  errno = error;
  return is_written;
}
