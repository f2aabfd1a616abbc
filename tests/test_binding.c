/* Bindings on captured and synthetic machines against golden tables. SY_TOPOLOGIES is their folder.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "launch/bind.h"
#include "launch/environment.h"
#include "tests/support/harness.h"

static struct machine *load(const char *name) {
  char path[600];
  char error[LAUNCH_ERROR_BYTES] = "";
  struct machine *machine = NULL;
  snprintf(path, sizeof path, "%s/%s.xml", SY_TOPOLOGIES, name);
  if (!CHECK(machine_load(path, &machine, error))) {
    printf("    %s\n", error);
  }
  return machine;
}

static void append(char *text, size_t bytes, const char *word) {
  strncat(text, word, bytes - strlen(text) - 1);
}

/* "0: gpu 0, 8 cores 0-7,64-71, memory 0, 8 threads, mlx5_0", a line for each rank. */
static const char *table_text(const struct machine *machine, const struct binding_table *table) {
  static char text[8192];
  text[0] = '\0';
  for (int32_t r = 0; r < table->num_ranks; ++r) {
    const struct binding *b = &table->ranks[r];
    char line[600];
    char cpus[256];
    char nodes[64];
    char gpu[32] = "";
    if (b->device >= 0) {
      snprintf(gpu, sizeof gpu, " gpu %d,", b->gpu);
    }
    snprintf(line, sizeof line, "%d:%s %d%s cores %s, memory %s, %d threads", r, gpu, b->num_cores,
             b->is_shared ? " shared" : "", bind_list_text(cpus, sizeof cpus, b->cpus),
             bind_list_text(nodes, sizeof nodes, b->nodes), b->threads);
    append(text, sizeof text, line);
    for (int32_t n = 0; n < b->num_nics; ++n) {
      const struct machine_nic *nic = &machine->nics[b->nics[n]];
      append(text, sizeof text, n == 0 ? ", " : "+");
      append(text, sizeof text, nic->hca[0] != '\0' ? nic->hca : nic->interface);
    }
    append(text, sizeof text, "\n");
  }
  return text;
}

static void check_table(const char *name, const struct binding_request *request,
                        const char *expected, const char *note) {
  struct machine *machine = load(name);
  struct binding_table table = {.num_ranks = 0};
  char error[LAUNCH_ERROR_BYTES] = "";
  if (machine == NULL) {
    return;
  }
  if (CHECK(binding_table_make(machine, request, &table, error))) {
    CHECK_EQ_STR(table_text(machine, &table), expected);
    CHECK_EQ_STR(table.note, note);
  } else {
    printf("    %s: %s\n", name, error);
  }
  binding_table_free(&table);
  machine_destroy(machine);
}

static void check_refused(const char *name, const struct binding_request *request,
                          const char *part) {
  struct machine *machine = load(name);
  struct binding_table table = {.num_ranks = 0};
  char error[LAUNCH_ERROR_BYTES] = "";
  if (machine != NULL) {
    CHECK(!binding_table_make(machine, request, &table, error));
    CHECK_STR_HAS(error, part);
    machine_destroy(machine);
  }
}

#define REQUEST(...) (&(struct binding_request){__VA_ARGS__})

/* ---- Golden tables -------------------------------------------------------------------------- */

TEST(desktop_with_one_gpu) {
  check_table("desktop", REQUEST(.num_ranks = 1, .use_gpus = true),
              "0: gpu 0, 8 cores 0-15, memory 0, 8 threads, enp4s0\n", "");
  check_table("desktop", REQUEST(.num_ranks = 2, .use_gpus = true),
              "0: gpu 0, 4 cores 0-3,8-11, memory 0, 4 threads, enp4s0\n"
              "1: gpu 0, 4 cores 4-7,12-15, memory 0, 4 threads, enp4s0\n",
              "2 ranks share 1 GPU");
  check_table("desktop", REQUEST(.num_ranks = 3),
              "0: 2 cores 0-1,8-9, memory 0, 2 threads, enp4s0\n"
              "1: 3 cores 2-4,10-12, memory 0, 3 threads, enp4s0\n"
              "2: 3 cores 5-7,13-15, memory 0, 3 threads, enp4s0\n",
              "");
}

TEST(server_with_eight_gpus_on_two_sockets) {
  check_table("rtx8", REQUEST(.num_ranks = 8, .use_gpus = true),
              "0: gpu 0, 8 cores 0-7,64-71, memory 0, 8 threads, mlx5_0\n"
              "1: gpu 1, 8 cores 8-15,72-79, memory 0, 8 threads, mlx5_0\n"
              "2: gpu 2, 8 cores 16-23,80-87, memory 0, 8 threads, mlx5_1\n"
              "3: gpu 3, 8 cores 24-31,88-95, memory 0, 8 threads, mlx5_1\n"
              "4: gpu 4, 8 cores 32-39,96-103, memory 1, 8 threads, mlx5_2\n"
              "5: gpu 5, 8 cores 40-47,104-111, memory 1, 8 threads, mlx5_2\n"
              "6: gpu 6, 8 cores 48-55,112-119, memory 1, 8 threads, mlx5_3\n"
              "7: gpu 7, 8 cores 56-63,120-127, memory 1, 8 threads, mlx5_3\n",
              "");
  check_table("rtx8", REQUEST(.num_ranks = 1),
              "0: 64 cores 0-127, memory 0-1, 64 threads, mlx5_0+mlx5_1+mlx5_2+mlx5_3\n", "");
  check_table("rtx8", REQUEST(.num_ranks = 3),
              "0: 16 cores 0-15,64-79, memory 0, 16 threads, mlx5_0+mlx5_1\n"
              "1: 16 cores 16-31,80-95, memory 0, 16 threads, mlx5_0+mlx5_1\n"
              "2: 32 cores 32-63,96-127, memory 1, 32 threads, mlx5_2+mlx5_3\n",
              "");
}

/* CUDA_VISIBLE_DEVICES chooses and orders the GPUs; the cores follow. */
TEST(visible_devices_choose_the_gpus) {
  check_table("rtx8", REQUEST(.num_ranks = 2, .use_gpus = true, .visible_gpus = "6,1"),
              "0: gpu 6, 32 cores 32-63,96-127, memory 1, 32 threads, mlx5_3\n"
              "1: gpu 1, 32 cores 0-31,64-95, memory 0, 32 threads, mlx5_0\n",
              "");
  check_table("rtx8", REQUEST(.num_ranks = 1, .use_gpus = true, .visible_gpus = "2,99,3"),
              "0: gpu 2, 32 cores 0-31,64-95, memory 0, 32 threads, mlx5_1\n", "");
  check_table("rtx8", REQUEST(.num_ranks = 3, .use_gpus = true, .visible_gpus = "2,99,3"),
              "0: gpu 2, 10 cores 0-9,64-73, memory 0, 10 threads, mlx5_1\n"
              "1: gpu 2, 11 cores 10-20,74-84, memory 0, 11 threads, mlx5_1\n"
              "2: gpu 2, 11 cores 21-31,85-95, memory 0, 11 threads, mlx5_1\n",
              "3 ranks share 1 GPU");
  /* A UUID that the topology does not know still is a GPU, of unknown place. */
  check_table("spark", REQUEST(.num_ranks = 1, .use_gpus = true, .visible_gpus = "GPU-1f0a"),
              "0: gpu -1, 20 cores 0-19, memory 0, 20 threads, rocep1s0f1+roceP2p1s0f1\n", "");
  check_refused("rtx8", REQUEST(.num_ranks = 1, .use_gpus = true, .visible_gpus = ""),
                "no GPU: the machine has 8, CUDA_VISIBLE_DEVICES is ");
  check_refused("ci", REQUEST(.num_ranks = 1, .use_gpus = true), "no GPU: the machine has 0");
}

/* Both functions of the port that has a cable, and none of the other's. */
TEST(spark_uses_both_functions_of_a_port) {
  check_table("spark", REQUEST(.num_ranks = 1, .use_gpus = true),
              "0: gpu 0, 20 cores 0-19, memory 0, 20 threads, rocep1s0f1+roceP2p1s0f1\n", "");
}

TEST(small_virtual_machine) {
  check_table("ci", REQUEST(.num_ranks = 2),
              "0: 1 cores 0, memory 0, 1 threads, eth0\n"
              "1: 1 cores 1, memory 0, 1 threads, eth0\n",
              "");
  check_table("ci", REQUEST(.num_ranks = 3),
              "0: 2 shared cores 0-1, memory 0, 1 threads, eth0\n"
              "1: 2 shared cores 0-1, memory 0, 1 threads, eth0\n"
              "2: 2 shared cores 0-1, memory 0, 1 threads, eth0\n",
              "3 ranks share 2 cores");
}

TEST(container_keeps_to_its_cgroup) {
  check_table("container", REQUEST(.num_ranks = 2),
              "0: 3 cores 5-7,21-23, memory 0, 3 threads\n"
              "1: 5 cores 8-12,24-27, memory 1, 5 threads\n",
              "");
  check_table("container", REQUEST(.num_ranks = 8),
              "0: 1 cores 5,21, memory 0, 1 threads\n"
              "1: 1 cores 6,22, memory 0, 1 threads\n"
              "2: 1 cores 7,23, memory 0, 1 threads\n"
              "3: 1 cores 8,24, memory 1, 1 threads\n"
              "4: 1 cores 9,25, memory 1, 1 threads\n"
              "5: 1 cores 10,26, memory 1, 1 threads\n"
              "6: 1 cores 11,27, memory 1, 1 threads\n"
              "7: 1 cores 12, memory 1, 1 threads\n",
              "");
}

/* What the process may use (of taskset, say) bounds the table; OMP_NUM_THREADS is the user's. */
TEST(the_request_bounds_cores_and_threads) {
  hwloc_bitmap_t usable = hwloc_bitmap_alloc();
  hwloc_bitmap_set_range(usable, 30, 33);
  check_table("rtx8", REQUEST(.num_ranks = 2, .usable = usable, .threads = 7),
              "0: 2 cores 30-31, memory 0, 7 threads, mlx5_0+mlx5_1\n"
              "1: 2 cores 32-33, memory 1, 7 threads, mlx5_2+mlx5_3\n",
              "");
  /* Near GPUs 0 to 3 there are two cores only: the four ranks take all four. */
  check_table(
      "rtx8",
      REQUEST(.num_ranks = 4, .usable = usable, .use_gpus = true, .visible_gpus = "0,1,2,3"),
      "0: gpu 0, 1 cores 30, memory 0, 1 threads, mlx5_0\n"
      "1: gpu 1, 1 cores 31, memory 0, 1 threads, mlx5_0\n"
      "2: gpu 2, 1 cores 32, memory 1, 1 threads, mlx5_1\n"
      "3: gpu 3, 1 cores 33, memory 1, 1 threads, mlx5_1\n",
      "too few usable cores near the GPUs: cores are divided without regard to them");
  hwloc_bitmap_zero(usable);
  check_refused("rtx8", REQUEST(.num_ranks = 1, .usable = usable),
                "none of the machine's 64 cores may be used");
  hwloc_bitmap_free(usable);
  check_refused("rtx8", REQUEST(.num_ranks = 0), "0 ranks on one host; allowed: 1..4096");
  check_refused("rtx8", REQUEST(.num_ranks = 4097), "4097 ranks on one host; allowed: 1..4096");
}

/* On every machine and for every number of ranks: disjoint, all usable cores used, none else. */
TEST(cores_are_divided_without_loss) {
  static const char *const names[] = {"desktop", "rtx8", "spark", "ci", "container"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
    struct machine *machine = load(names[i]);
    hwloc_bitmap_t all = hwloc_bitmap_alloc();
    for (int32_t ranks = 1; machine != NULL && ranks <= 64; ++ranks) {
      struct binding_table table = {.num_ranks = 0};
      char error[LAUNCH_ERROR_BYTES];
      CHECK(binding_table_make(machine, REQUEST(.num_ranks = ranks), &table, error));
      hwloc_bitmap_zero(all);
      bool disjoint = true;
      for (int32_t r = 0; r < table.num_ranks && !table.ranks[r].is_shared; ++r) {
        disjoint = disjoint && !hwloc_bitmap_intersects(all, table.ranks[r].cpus) &&
                   !hwloc_bitmap_iszero(table.ranks[r].cpus) &&
                   !hwloc_bitmap_iszero(table.ranks[r].nodes);
        hwloc_bitmap_or(all, all, table.ranks[r].cpus);
      }
      CHECK(disjoint);
      CHECK(ranks > table.num_usable_cores ||
            hwloc_bitmap_isequal(all, hwloc_topology_get_allowed_cpuset(machine->topology)));
      CHECK_EQ_I64(table.ranks[0].is_shared, ranks > table.num_usable_cores);
      binding_table_free(&table);
    }
    hwloc_bitmap_free(all);
    machine_destroy(machine);
  }
}

/* ---- Files ---------------------------------------------------------------------------------- */

TEST(wrong_files_are_named) {
  static const char *const texts[] = {"", "hello", "<topology", "<?xml version=\"1.0\"?><html/>",
                                      "<topology version=\"2.0\"><object type=\"Machine\"/>"};
  struct machine *machine = NULL;
  char error[LAUNCH_ERROR_BYTES];
  CHECK(!machine_load("/no/such.xml", &machine, error));
  CHECK_EQ_STR(error, "topology '/no/such.xml' cannot be read: No such file or directory");
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i) {
    char path[] = "/tmp/switchyard_topology_XXXXXX";
    const int file = mkstemp(path);
    const size_t length = strlen(texts[i]);
    if (!CHECK(file >= 0 && write(file, texts[i], length) == (ssize_t)length)) {
      return;
    }
    close(file);
    CHECK(!machine_load(path, &machine, error));
    CHECK_STR_HAS(error, "is not a file of hwloc in XML");
    unlink(path);
  }
  CHECK(!machine_load("/tmp", &machine, error));
  CHECK_STR_HAS(error, "topology '/tmp' ");
}

/* ---- Variables ------------------------------------------------------------------------------ */

/* "NAME=value" entries up to NULL. */
static const char *lookup_in(void *user, const char *name) {
  const char *const *entries = user;
  const size_t length = strlen(name);
  for (; *entries != NULL; ++entries) {
    if (strncmp(*entries, name, length) == 0 && (*entries)[length] == '=') {
      return *entries + length + 1;
    }
  }
  return NULL;
}

static void check_variables(const char *name, int32_t ranks, int32_t hosts,
                            const char *const *users, const char *expected) {
  struct machine *machine = load(name);
  struct binding_table table = {.num_ranks = 0};
  struct environment_setting settings[ENVIRONMENT_CAPACITY];
  char error[LAUNCH_ERROR_BYTES];
  char text[2048] = "";
  if (machine == NULL) {
    return;
  }
  const bool use_gpus = machine->num_gpus > 0;
  CHECK(binding_table_make(machine, REQUEST(.num_ranks = ranks, .use_gpus = use_gpus), &table,
                           error));
  const struct environment_request request = {
      .num_hosts = hosts, .use_gpus = use_gpus, .lookup = lookup_in, .user = (void *)users};
  const int32_t count = environment_list(machine, &table, &request, settings);
  for (int32_t i = 0; i < count; ++i) {
    append(text, sizeof text, settings[i].name);
    append(text, sizeof text, settings[i].is_users ? "=(users) " : "=");
    append(text, sizeof text, settings[i].value);
    append(text, sizeof text, "\n");
    CHECK(settings[i].reason[0] != '\0');
  }
  CHECK_EQ_STR(text, expected);
  binding_table_free(&table);
  machine_destroy(machine);
}

TEST(variables_follow_the_topology) {
  static const char *const nothing[] = {NULL};
  check_variables("ci", 2, 1, nothing, "OMPI_MCA_hwloc_base_binding_policy=none\n");
  check_variables("ci", 2, 2, nothing,
                  "OMPI_MCA_hwloc_base_binding_policy=none\n"
                  "OMPI_MCA_btl_tcp_if_include=eth0\n");
  check_variables("desktop", 1, 1, nothing,
                  "OMPI_MCA_hwloc_base_binding_policy=none\n"
                  "CUDA_DEVICE_ORDER=PCI_BUS_ID\n");
  check_variables("rtx8", 8, 1, nothing,
                  "OMPI_MCA_hwloc_base_binding_policy=none\n"
                  "CUDA_DEVICE_ORDER=PCI_BUS_ID\n"
                  "NCCL_P2P_LEVEL=SYS\n");
  check_variables("rtx8", 4, 1, nothing, /* GPUs 0 to 3: two switches of one socket */
                  "OMPI_MCA_hwloc_base_binding_policy=none\n"
                  "CUDA_DEVICE_ORDER=PCI_BUS_ID\n"
                  "NCCL_P2P_LEVEL=PHB\n");
  check_variables("rtx8", 2, 1, nothing, /* GPUs 0 and 1: one switch */
                  "OMPI_MCA_hwloc_base_binding_policy=none\n"
                  "CUDA_DEVICE_ORDER=PCI_BUS_ID\n");
  check_variables("spark", 1, 4, nothing,
                  "OMPI_MCA_hwloc_base_binding_policy=none\n"
                  "CUDA_DEVICE_ORDER=PCI_BUS_ID\n"
                  "NCCL_IB_HCA==rocep1s0f1,roceP2p1s0f1\n"
                  "UCX_NET_DEVICES=rocep1s0f1:1,roceP2p1s0f1:1\n"
                  "NCCL_SOCKET_IFNAME=enp1s0f1np1,enP2p1s0f1np1\n"
                  "OMPI_MCA_btl_tcp_if_include=enp1s0f1np1,enP2p1s0f1np1\n");
}

TEST(variables_of_the_user_win) {
  static const char *const users[] = {"NCCL_P2P_LEVEL=PIX",
                                      "OMPI_MCA_hwloc_base_binding_policy=core", NULL};
  check_variables("rtx8", 8, 1, users,
                  "OMPI_MCA_hwloc_base_binding_policy=(users) core\n"
                  "CUDA_DEVICE_ORDER=PCI_BUS_ID\n"
                  "NCCL_P2P_LEVEL=(users) PIX\n");
}

/* ---- What a launcher says ------------------------------------------------------------------- */

static struct surroundings read_entries(const char *const *entries) {
  return surroundings_read(lookup_in, (void *)entries);
}

TEST(launchers_are_understood) {
  struct surroundings s = read_entries((const char *const[]){NULL});
  CHECK(s.launcher == NULL && s.bound_by == NULL && s.visible_gpus == NULL);
  CHECK_EQ_I64(s.local_size, 1);
  s = read_entries((const char *const[]){"OMPI_COMM_WORLD_LOCAL_RANK=2",
                                         "OMPI_COMM_WORLD_LOCAL_SIZE=4", "OMP_NUM_THREADS=3",
                                         "CUDA_VISIBLE_DEVICES=1", NULL});
  CHECK_EQ_I64(s.local_rank, 2);
  CHECK_EQ_I64(s.local_size, 4);
  CHECK_EQ_I64(s.threads, 3);
  CHECK_EQ_STR(s.visible_gpus, "1");
  CHECK(s.bound_by == NULL);
  s = read_entries((const char *const[]){"SLURM_LOCALID=1", "SLURM_NODEID=2",
                                         "SLURM_STEP_TASKS_PER_NODE=4(x2),3",
                                         "SLURM_CPU_BIND_TYPE=none", NULL});
  CHECK_EQ_STR(s.launcher, "srun");
  CHECK_EQ_I64(s.local_rank, 1);
  CHECK_EQ_I64(s.local_size, 3);
  CHECK(s.bound_by == NULL);
  s = read_entries((const char *const[]){"MPI_LOCALRANKID=1", "MPI_LOCALNRANKS=2", NULL});
  CHECK_EQ_STR(s.launcher, "mpiexec");
  CHECK_EQ_I64(s.local_size, 2);
  CHECK(s.may_be_bound);
}

TEST(what_others_have_bound_is_seen) {
  struct surroundings s = read_entries(
      (const char *const[]){"OMPI_COMM_WORLD_LOCAL_RANK=0", "OMPI_COMM_WORLD_LOCAL_SIZE=2",
                            "OMPI_MCA_orte_bound_at_launch=1", NULL});
  CHECK_STR_HAS(s.bound_by, "mpirun, by its default");
  s = read_entries((const char *const[]){
      "OMPI_COMM_WORLD_LOCAL_RANK=0", "OMPI_COMM_WORLD_LOCAL_SIZE=2",
      "OMPI_MCA_orte_bound_at_launch=1", "OMPI_MCA_hwloc_base_binding_policy=socket", NULL});
  CHECK_EQ_STR(s.bound_by, "mpirun, as it was told");
  s = read_entries((const char *const[]){"SLURM_LOCALID=0", "SLURM_STEP_TASKS_PER_NODE=2",
                                         "SLURM_CPU_BIND_TYPE=mask_cpu:", NULL});
  CHECK_STR_HAS(s.bound_by, "srun");
  s = read_entries((const char *const[]){"OMP_PROC_BIND=close", NULL});
  CHECK_EQ_STR(s.bound_by, "OMP_PROC_BIND");
  s = read_entries((const char *const[]){"OMP_PROC_BIND=false", NULL});
  CHECK(s.bound_by == NULL);
}

TEST(senseless_environments_do_no_harm) {
  struct surroundings s = read_entries((const char *const[]){
      "OMPI_COMM_WORLD_LOCAL_RANK=7", "OMPI_COMM_WORLD_LOCAL_SIZE=x", "OMP_NUM_THREADS=-3", NULL});
  CHECK_EQ_I64(s.local_rank, 0);
  CHECK_EQ_I64(s.local_size, 1);
  CHECK_EQ_I64(s.threads, 0);
  s = read_entries((const char *const[]){"SLURM_LOCALID=5", "SLURM_STEP_TASKS_PER_NODE=(x(x,,",
                                         "SLURM_NODEID=99999999999", NULL});
  CHECK_EQ_I64(s.local_rank, 0);
  CHECK_EQ_I64(s.local_size, 1);
}
