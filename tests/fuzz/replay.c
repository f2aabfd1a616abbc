/* Feeds files to a fuzz target, and all files of folders: fuzz_<target> FILE|FOLDER... */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static int replayed;

static void replay_file(const char *path) {
  FILE *file = fopen(path, "rb");
  uint8_t *data = NULL;
  size_t size = 0;
  FUZZ_CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
  size = (size_t)ftell(file);
  rewind(file);
  data = malloc(size > 0 ? size : 1);
  FUZZ_CHECK(data != NULL && fread(data, 1, size, file) == size);
  fclose(file);
  fprintf(stderr, "%s\n", path); /* the last one printed is the one that broke */
  LLVMFuzzerTestOneInput(data, size);
  free(data);
  ++replayed;
}

static void replay_folder(const char *path, DIR *folder) {
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    char name[1024];
    struct stat info;
    snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
    if (stat(name, &info) == 0 && S_ISREG(info.st_mode)) {
      replay_file(name);
    }
  }
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; ++i) {
    DIR *folder = opendir(argv[i]);
    if (folder == NULL) {
      replay_file(argv[i]);
    } else {
      replay_folder(argv[i], folder);
      closedir(folder);
    }
  }
  printf("%d inputs replayed\n", replayed);
  return replayed > 0 ? 0 : 1;
}
