#include "tests/support/program.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/harness.h"

extern char **environ; /* unistd.h declares it for GNU sources only */

/* Splits in place at spaces; ends with NULL. The caller frees the array. */
static char **split(char *line) {
  size_t count = 1;
  for (const char *c = line; *c != '\0'; ++c) {
    count += *c == ' ' ? 1 : 0;
  }
  char **words = calloc(count + 1, sizeof *words);
  if (words != NULL) {
    char *rest = line;
    for (size_t i = 0; i < count; ++i) {
      words[i] = strsep(&rest, " ");
    }
  }
  return words;
}

static char *read_all(FILE *file) {
  size_t used = 0;
  size_t room = 4096;
  char *text = malloc(room);
  rewind(file);
  while (text != NULL) {
    used += fread(text + used, 1, room - used - 1, file);
    if (used < room - 1) {
      text[used] = '\0';
      return text;
    }
    room *= 2;
    char *larger = realloc(text, room);
    if (larger == NULL) {
      free(text);
    }
    text = larger;
  }
  abort(); /* a test without memory has nothing to say */
}

/* posix_spawn, because a fork under qemu's user emulation may never return in the child. 0: failed.
 */
static pid_t start(char **words, int out, int err) {
  posix_spawn_file_actions_t actions;
  pid_t child = 0;
  if (posix_spawn_file_actions_init(&actions) != 0) {
    return 0;
  }
  const bool started = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO) == 0 &&
                       posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO) == 0 &&
                       posix_spawnp(&child, words[0], &actions, NULL, words, environ) == 0;
  posix_spawn_file_actions_destroy(&actions);
  return started ? child : 0;
}

static int spawn(char **words, int out, int err) {
  int status = 0;
  const pid_t child = start(words, out, err);
  if (child == 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
    return -1;
  }
  return WEXITSTATUS(status);
}

pid_t program_start(const char *command_line) {
  char *line = strdup(command_line);
  char **words = line != NULL ? split(line) : NULL;
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (words == NULL || nowhere < 0) {
    abort();
  }
  const pid_t child = start(words, nowhere, nowhere);
  close(nowhere);
  free(words);
  free(line);
  return child;
}

struct program_run program_run_into(const char *out_path, const char *command_line) {
  struct program_run run = {.code = -1};
  FILE *out = tmpfile();
  FILE *err = tmpfile();
  char *line = strdup(command_line);
  char **words = line != NULL ? split(line) : NULL;
  if (out == NULL || err == NULL || words == NULL) {
    abort();
  }
  const int elsewhere = out_path != NULL ? open(out_path, O_WRONLY | O_CLOEXEC) : -1;
  run.code = spawn(words, elsewhere >= 0 ? elsewhere : fileno(out), fileno(err));
  run.out = read_all(out);
  run.err = read_all(err);
  if (elsewhere >= 0) {
    close(elsewhere);
  }
  fclose(out);
  fclose(err);
  free(words);
  free(line);
  return run;
}

struct program_run program_run(const char *command_line) {
  return program_run_into(NULL, command_line);
}

void program_run_free(struct program_run *run) {
  free(run->out);
  free(run->err);
  *run = (struct program_run){.code = -1};
}

void check_readable(const char *out) {
  size_t column = 0;
  size_t widest = 0;
  bool plain = true;
  for (const char *c = out; *c != '\0'; ++c) {
    plain = plain && (*c == '\n' || (*c >= ' ' && *c <= '~'));
    column = *c == '\n' ? 0 : column + 1;
    widest = column > widest ? column : widest;
  }
  CHECK(plain);
  CHECK(out[0] != '\0');
  if (!CHECK(widest <= 100)) {
    printf("%s", out);
  }
}
