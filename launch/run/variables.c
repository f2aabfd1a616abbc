#define _GNU_SOURCE /* process_vm_readv, sched_getaffinity */
#include "launch/run/variables.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ; /* unistd.h declares it for GNU sources only */

/* ---- Circumstances -------------------------------------------------------------------------- */

/* Containers forbid it by a filter of system calls, also between parent and child. */
static bool try_to_read_another(void) {
  static const char mine = 1;
  char copy = 0;
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  if (child < 0) {
    return true;
  }
  const struct iovec to = {.iov_base = &copy, .iov_len = 1};
  const struct iovec from = {.iov_base = (void *)(uintptr_t)&mine, .iov_len = 1};
  const bool can_read = process_vm_readv(child, &to, 1, &from, 1, 0) == 1;
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return can_read;
}

/* All hosts are taken to be like this one, and to get equal shares of the ranks. */
static int64_t ranks_per_host(const struct circumstances *here) {
  const int64_t num_hosts = here->hosts->num_hosts > 0 ? here->hosts->num_hosts : 1;
  return (here->num_ranks + num_hosts - 1) / num_hosts;
}

static void read_topology(struct circumstances *here) {
  const int64_t share = ranks_per_host(here);
  struct machine *machine = NULL;
  struct binding_table table = {.num_ranks = 0};
  if (share > BINDING_MAX_RANKS || !machine_load(NULL, &machine, here->note)) {
    return;
  }
  const struct binding_request wanted = {.num_ranks = (int32_t)share,
                                         .use_gpus = machine->num_gpus > 0,
                                         .visible_gpus = getenv("CUDA_VISIBLE_DEVICES")};
  if (binding_table_make(machine, &wanted, &table, here->note)) {
    const struct environment_request request = {
        .num_hosts = here->hosts->num_hosts > 1 ? (int32_t)here->hosts->num_hosts : 1,
        .use_gpus = wanted.use_gpus,
        .lookup = environment_of_process};
    here->num_topology = environment_list(machine, &table, &request, here->topology);
  }
  binding_table_free(&table);
  machine_destroy(machine);
}

void circumstances_find(const struct job *job, const struct hosts *hosts, int64_t num_ranks,
                        struct circumstances *here_out) {
  cpu_set_t cores;
  const bool counted = sched_getaffinity(0, sizeof cores, &cores) == 0;
  *here_out = (struct circumstances){
      .job = job,
      .hosts = hosts,
      .num_ranks = num_ranks,
      .num_cores = counted ? CPU_COUNT(&cores) : sysconf(_SC_NPROCESSORS_ONLN),
      .reads_others = try_to_read_another(),
  };
  read_topology(here_out);
}

/* ---- Choosing ------------------------------------------------------------------------------- */

static void set(struct variables *variables, const char *name, const char *value,
                const char *reason) {
  if (variables->count == VARIABLES_CAPACITY) {
    return;
  }
  struct environment_setting *v = &variables->list[variables->count++];
  const char *users = getenv(name);
  v->is_users = users != NULL;
  snprintf(v->name, sizeof v->name, "%s", name);
  snprintf(v->value, sizeof v->value, "%s", v->is_users ? users : value);
  snprintf(v->reason, sizeof v->reason, "%s%s", v->is_users ? "yours, kept; " : "", reason);
}

static void set_for_faults(struct variables *variables, const struct job *job) {
  static const char survive[] = "when a rank is lost the others say so, and are not killed";
  static const char one_place[] = "the job's files lie where they can be removed with it";
  set(variables, "OMPI_MCA_orte_enable_recovery", "1", survive);
  set(variables, "OMPI_MCA_orte_abort_on_non_zero_status", "0", survive);
  set(variables, "OMPI_MCA_orte_tmpdir_base", job->folder, one_place);
  set(variables, "OMPI_MCA_btl_vader_backing_directory", job->segments, one_place);
}

static void set_for_hosts(struct variables *variables) {
  static const char notice[] = "daemons notice a lost host in seconds, not in minutes";
  set(variables, "OMPI_MCA_oob_tcp_keepalive_time", "5", notice);
  set(variables, "OMPI_MCA_oob_tcp_keepalive_intvl", "2", notice);
  set(variables, "OMPI_MCA_oob_tcp_keepalive_probes", "5", notice);
}

static void set_for_few_cores(struct variables *variables) {
  static const char share[] = "ranks share cores: who waits gives its core away";
  set(variables, "OMPI_MCA_rmaps_base_oversubscribe", "1", "more ranks than cores are meant");
  set(variables, "OMPI_MCA_mpi_yield_when_idle", "1", share);
  set(variables, "OMP_WAIT_POLICY", "passive", share);
}

static bool is_set(const struct variables *variables, const char *name) {
  for (size_t i = 0; i < variables->count; ++i) {
    if (strcmp(variables->list[i].name, name) == 0) {
      return true;
    }
  }
  return false;
}

/* mpirun carries OMPI_MCA_ by itself. */
static bool is_concerned(const char *name) {
  static const char *const prefixes[] = {"SWITCHYARD_",          "NCCL_",    "UCX_", "OMP_",
                                         "CUDA_VISIBLE_DEVICES", "OMPI_MCA_"};
  for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; ++i) {
    if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
      return true;
    }
  }
  return false;
}

static void add_users(struct variables *variables) {
  for (char **entry = environ; *entry != NULL; ++entry) {
    char name[sizeof variables->list[0].name];
    const size_t length = strcspn(*entry, "=");
    if (length < sizeof name) {
      snprintf(name, sizeof name, "%.*s", (int)length, *entry);
      if (is_concerned(name) && !is_set(variables, name)) {
        set(variables, name, "", "carried to every rank");
      }
    }
  }
}

void variables_choose(const struct circumstances *here, struct variables *variables_out) {
  variables_out->count = 0;
  set_for_faults(variables_out, here->job);
  if (here->hosts->source != HOSTS_HERE) {
    set_for_hosts(variables_out);
  }
  if (ranks_per_host(here) > here->num_cores) {
    set_for_few_cores(variables_out);
  }
  if (!here->reads_others) {
    set(variables_out, "OMPI_MCA_btl_vader_single_copy_mechanism", "none",
        "this container forbids to read another process's memory");
  }
  for (int32_t i = 0; i < here->num_topology; ++i) {
    variables_out->list[variables_out->count++] = here->topology[i];
  }
  add_users(variables_out);
}
