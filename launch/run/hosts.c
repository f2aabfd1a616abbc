#include "launch/run/hosts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/values.h"

enum { SLOTS_MAX = 65536, LINE_BYTES = 1024 };

static bool fail(char error[HOSTS_ERROR_BYTES], const char *where, const char *found,
                 const char *expected) {
  snprintf(error, HOSTS_ERROR_BYTES, "%s: '%.100s' %s", where, found, expected);
  return false;
}

static bool read_slots(const char *text, int64_t *slots_out) {
  return value_integer(text, slots_out) == VALUE_OK && *slots_out >= 1 && *slots_out <= SLOTS_MAX;
}

/* "a" or "a:4"; text is changed. */
static bool add_listed(char *item, struct hosts *hosts, char error[HOSTS_ERROR_BYTES]) {
  char *colon = strrchr(item, ':');
  int64_t slots = 1;
  if (colon != NULL) {
    *colon = '\0';
    if (!read_slots(colon + 1, &slots)) {
      return fail(error, "--hosts", colon + 1, "is not a number of ranks; allowed: 1..65536");
    }
  }
  if (item[0] == '\0' || item[0] == '-' || strpbrk(item, " \t:") != NULL) {
    return fail(error, "--hosts", item, "is not the name of a host; expected NAME:RANKS,...");
  }
  ++hosts->num_hosts;
  hosts->num_slots += slots;
  return true;
}

static bool read_list(const char *list, struct hosts *hosts, char error[HOSTS_ERROR_BYTES]) {
  char *copy = strdup(list);
  if (copy == NULL) {
    return fail(error, "--hosts", list, "does not fit memory");
  }
  bool is_right = true;
  char *rest = copy;
  while (is_right && rest != NULL) {
    is_right = add_listed(strsep(&rest, ","), hosts, error);
  }
  free(copy);
  return is_right;
}

/* A line of Open MPI's host files: "name slots=4 max_slots=8 # why". */
static bool add_line(char *line, const char *path, struct hosts *hosts,
                     char error[HOSTS_ERROR_BYTES]) {
  line[strcspn(line, "#\n")] = '\0';
  char *rest = NULL;
  const char *name = strtok_r(line, " \t", &rest);
  if (name == NULL) {
    return true;
  }
  int64_t slots = 1;
  for (const char *word; (word = strtok_r(NULL, " \t", &rest)) != NULL;) {
    if (strncmp(word, "slots=", strlen("slots=")) == 0) {
      if (!read_slots(word + strlen("slots="), &slots)) {
        return fail(error, path, word, "is not a number of ranks; allowed: slots=1..65536");
      }
    } else if (strncmp(word, "max_slots=", strlen("max_slots=")) != 0 &&
               strncmp(word, "max-slots=", strlen("max-slots=")) != 0) {
      return fail(error, path, word, "is not understood; expected lines NAME slots=RANKS");
    }
  }
  ++hosts->num_hosts;
  hosts->num_slots += slots;
  return true;
}

static bool read_file(const char *path, struct hosts *hosts, char error[HOSTS_ERROR_BYTES]) {
  FILE *file = fopen(path, "r");
  if (file == NULL) {
    return fail(error, "--hostfile", path, strerror(errno));
  }
  char line[LINE_BYTES];
  bool is_right = true;
  while (is_right && fgets(line, sizeof line, file) != NULL) {
    is_right = add_line(line, path, hosts, error);
  }
  fclose(file);
  return is_right && (hosts->num_hosts > 0 || fail(error, "--hostfile", path, "names no host"));
}

static int64_t slurm_number(const char *variable) {
  const char *text = getenv(variable);
  int64_t value = 0;
  return text != NULL && value_integer(text, &value) == VALUE_OK && value > 0 ? value : 0;
}

bool hosts_find(const char *list, const char *file, struct hosts *hosts_out,
                char error[HOSTS_ERROR_BYTES]) {
  struct hosts hosts = {.source = HOSTS_HERE, .num_hosts = 1};
  const char *nodes = getenv("SLURM_JOB_NODELIST");
  if (list != NULL && file != NULL) {
    return fail(error, "--hostfile", file, "says what --hosts says already; give one of them");
  }
  if (list != NULL) {
    hosts = (struct hosts){.source = HOSTS_LISTED, .text = list};
    if (!read_list(list, &hosts, error)) {
      return false;
    }
  } else if (file != NULL) {
    hosts = (struct hosts){.source = HOSTS_FILE, .text = file};
    if (!read_file(file, &hosts, error)) {
      return false;
    }
  } else if (getenv("SLURM_JOB_ID") != NULL && nodes != NULL) {
    hosts = (struct hosts){.source = HOSTS_SLURM,
                           .text = nodes,
                           .num_hosts = slurm_number("SLURM_JOB_NUM_NODES"),
                           .num_slots = slurm_number("SLURM_NTASKS")};
  }
  *hosts_out = hosts;
  return true;
}
