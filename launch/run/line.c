#include "launch/run/line.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Making --------------------------------------------------------------------------------- */

struct words {
  char **list; /* ends with NULL */
  size_t count;
  bool failed;
};

static void add(struct words *words, const char *word) {
  char **longer = realloc(words->list, (words->count + 2) * sizeof *longer);
  if (longer == NULL) {
    words->failed = true;
    return;
  }
  words->list = longer;
  longer[words->count] = strdup(word);
  longer[words->count + 1] = NULL;
  if (longer[words->count] == NULL) {
    words->failed = true;
    return;
  }
  ++words->count;
}

static void add_variable(struct words *words, const struct environment_setting *variable) {
  static const char mca[] = "OMPI_MCA_";
  if (strncmp(variable->name, mca, sizeof mca - 1) == 0) {
    if (!variable->is_users) { /* mpirun reads the user's environment */
      add(words, "--mca");
      add(words, variable->name + sizeof mca - 1);
      add(words, variable->value);
    }
    return;
  }
  char setting[sizeof variable->name + sizeof variable->value + 1];
  snprintf(setting, sizeof setting, "%s=%s", variable->name, variable->value);
  add(words, "-x");
  add(words, variable->is_users ? variable->name : setting);
}

static void add_hosts(struct words *words, const struct circumstances *here) {
  char number[24];
  snprintf(number, sizeof number, "%" PRId64, here->num_ranks);
  add(words, "-n");
  add(words, number);
  if (here->hosts->source == HOSTS_LISTED || here->hosts->source == HOSTS_FILE) {
    add(words, here->hosts->source == HOSTS_LISTED ? "--host" : "--hostfile");
    add(words, here->hosts->text);
  }
}

char **line_make(const struct circumstances *here, const struct variables *variables,
                 const char *self, char **program) {
  struct words words = {0};
  char job[JOB_FILE_BYTES];
  add(&words, "mpirun");
  if (geteuid() == 0) {
    add(&words, "--allow-run-as-root");
  }
  add_hosts(&words, here);
  for (size_t i = 0; i < variables->count; ++i) {
    add_variable(&words, &variables->list[i]);
  }
  job_write(here->job, job, sizeof job);
  add(&words, self);
  add(&words, "--keep");
  add(&words, job);
  for (char **word = program; *word != NULL; ++word) {
    add(&words, *word);
  }
  if (words.failed) {
    line_free(words.list);
    return NULL;
  }
  return words.list;
}

void line_free(char **line) {
  for (char **word = line; word != NULL && *word != NULL; ++word) {
    free(*word);
  }
  free(line);
}

/* ---- Printing ------------------------------------------------------------------------------- */

static void print_hosts(FILE *out, const struct circumstances *here) {
  const struct hosts *hosts = here->hosts;
  fprintf(out, "%" PRId64 " rank%s", here->num_ranks, here->num_ranks == 1 ? "" : "s");
  switch (hosts->source) {
  case HOSTS_HERE:
    fprintf(out, " on this host, which has %" PRId64 " cores for them\n", here->num_cores);
    break;
  case HOSTS_LISTED:
  case HOSTS_FILE:
    fprintf(out, " on %" PRId64 " host%s with room for %" PRId64 ": %s\n", hosts->num_hosts,
            hosts->num_hosts == 1 ? "" : "s", hosts->num_slots, hosts->text);
    break;
  case HOSTS_SLURM:
    fprintf(out, " in Slurm's allocation of %s, which mpirun asks for its hosts\n", hosts->text);
    break;
  }
}

static void print_word(FILE *out, const char *word) {
  static const char plain[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=/.,:@%";
  if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
    fputs(word, out);
    return;
  }
  fputc('\'', out);
  for (const char *c = word; *c != '\0'; ++c) {
    fputs(*c == '\'' ? "'\\''" : (const char[]){*c, '\0'}, out);
  }
  fputc('\'', out);
}

void line_print(FILE *out, const struct circumstances *here, const struct variables *variables,
                char **line) {
  print_hosts(out, here);
  if (here->note[0] != '\0') {
    fprintf(out, "  nothing is set for this machine's topology: %s\n", here->note);
  }
  for (size_t i = 0; i < variables->count; ++i) {
    const struct environment_setting *v = &variables->list[i];
    fprintf(out, "  %s=%s\n      %s\n", v->name, v->value, v->reason);
  }
  for (char **word = line; *word != NULL; ++word) {
    if (word != line) {
      fputc(' ', out);
    }
    print_word(out, *word);
  }
  fputc('\n', out);
  fflush(out);
}
