#include "launch/surroundings.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

const char *environment_of_process(void *user, const char *name) {
  (void)user;
  return getenv(name);
}

struct reader {
  environment_lookup lookup;
  void *user;
};

static const char *value_of(const struct reader *reader, const char *name) {
  const char *value = reader->lookup(reader->user, name);
  return value != NULL && value[0] != '\0' ? value : NULL;
}

/* A whole number that starts the text, or otherwise. */
static int32_t number_of(const char *text, int32_t otherwise) {
  char *end = NULL;
  const long value = text == NULL ? -1 : strtol(text, &end, 10);
  return text == NULL || end == text || value < 0 || value > INT32_MAX ? otherwise : (int32_t)value;
}

/* Tasks of node `node` in Slurm's "4(x2),3": 4 on each of the first two nodes, 3 on the next. */
static int32_t tasks_on_node(const char *text, int32_t node) {
  while (text != NULL && *text != '\0') {
    const int32_t tasks = number_of(text, 1);
    const size_t length = strcspn(text, ",");
    const char *times = strstr(text, "(x");
    const bool repeats = times != NULL && times < text + length;
    node -= repeats ? number_of(times + 2, 1) : 1;
    if (node < 0) {
      return tasks;
    }
    text += length + (text[length] == ',' ? 1 : 0);
  }
  return 1;
}

/* orte_bound_at_launch is set when mpirun has bound the rank, by its default or as asked. */
static bool read_open_mpi(const struct reader *reader, struct surroundings *s) {
  const char *rank = value_of(reader, "OMPI_COMM_WORLD_LOCAL_RANK");
  if (rank == NULL) {
    return false;
  }
  s->launcher = "mpirun";
  s->local_rank = number_of(rank, 0);
  s->local_size = number_of(value_of(reader, "OMPI_COMM_WORLD_LOCAL_SIZE"), 1);
  if (value_of(reader, "OMPI_MCA_orte_bound_at_launch") != NULL) {
    s->bound_by = value_of(reader, "OMPI_MCA_hwloc_base_binding_policy") != NULL
                      ? "mpirun, as it was told"
                      : "mpirun, by its default; `mpirun --bind-to none` leaves it to Switchyard";
  }
  return true;
}

static bool read_slurm(const struct reader *reader, struct surroundings *s) {
  const char *rank = value_of(reader, "SLURM_LOCALID");
  const char *tasks = value_of(reader, "SLURM_STEP_TASKS_PER_NODE");
  if (rank == NULL || tasks == NULL) {
    return false; /* in an allocation, but not started by srun */
  }
  const char *binding = value_of(reader, "SLURM_CPU_BIND_TYPE");
  s->launcher = "srun";
  s->local_rank = number_of(rank, 0);
  s->local_size = tasks_on_node(tasks, number_of(value_of(reader, "SLURM_NODEID"), 0));
  if (binding != NULL && strncmp(binding, "none", 4) != 0) {
    s->bound_by = "srun (SLURM_CPU_BIND_TYPE); `srun --cpu-bind=none` leaves it to Switchyard";
  }
  return true;
}

static bool read_hydra(const struct reader *reader, struct surroundings *s) {
  const char *rank = value_of(reader, "MPI_LOCALRANKID");
  if (rank == NULL) {
    return false;
  }
  s->launcher = "mpiexec";
  s->local_rank = number_of(rank, 0);
  s->local_size = number_of(value_of(reader, "MPI_LOCALNRANKS"), 1);
  s->may_be_bound = true;
  return true;
}

/* These make OpenMP bind the threads of each rank, the first one even before main. */
static const char *read_openmp(const struct reader *reader) {
  static const char *const names[] = {"OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY",
                                      "OMP_PROC_BIND"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
    const char *value = value_of(reader, names[i]);
    if (value != NULL && strcmp(value, "false") != 0 && strcmp(value, "FALSE") != 0) {
      return names[i];
    }
  }
  return NULL;
}

struct surroundings surroundings_read(environment_lookup lookup, void *user) {
  const struct reader reader = {lookup, user};
  struct surroundings s = {.local_size = 1};
  if (!read_open_mpi(&reader, &s) && !read_slurm(&reader, &s)) {
    read_hydra(&reader, &s);
  }
  s.local_size = s.local_size > 1 ? s.local_size : 1;
  if (s.local_rank >= s.local_size) {
    s.may_be_bound = true; /* the launcher contradicts itself: nothing is known */
    s.local_rank = 0;
    s.local_size = 1;
  }
  if (s.bound_by == NULL) {
    s.bound_by = read_openmp(&reader);
  }
  s.threads = number_of(value_of(&reader, "OMP_NUM_THREADS"), 0);
  s.visible_gpus = lookup(user, "CUDA_VISIBLE_DEVICES"); /* empty means: none */
  s.wish = value_of(&reader, "SWITCHYARD_BIND");
  return s;
}
