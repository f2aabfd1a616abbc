/* switchyard topo: where ranks go on a machine, and which variables it calls for. */
#include "launch/topo.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/command.h"
#include "launch/new_file.h"
#include "launch/options.h"

enum devices { DEVICES_AUTO, DEVICES_CPU, DEVICES_GPU };

static const struct option_choice device_choices[] = {
    {"auto", DEVICES_AUTO}, {"cpu", DEVICES_CPU}, {"gpu", DEVICES_GPU}, {NULL, 0}};

#define NOT_GIVEN (-1)

struct flags {
  int64_t ranks, hosts;
  int devices;
  bool oversubscribe, json;
  const char *topology, *svg, *export;
};

#define AT(field) .offset = offsetof(struct flags, field)

static const struct option_spec specs[] = {
    {.kind = OPTION_HEADING, .name = "The machine and the ranks"},
    {.kind = OPTION_TEXT,
     .name = "topology",
     .value = "FILE",
     .help = "a machine in hwloc's XML, such as --export or lstopo writes (default: this host)",
     AT(topology)},
    {.kind = OPTION_INTEGER,
     .name = "ranks",
     .value = "N",
     .help = "on each host (default: one for each GPU, or else for each NUMA node; under mpirun "
             "those of this host)",
     AT(ranks),
     .min = 1,
     .max = BINDING_MAX_RANKS},
    {.kind = OPTION_INTEGER,
     .name = "hosts",
     .value = "N",
     .help = "machines like this one",
     AT(hosts),
     .min = 1,
     .max = 65536},
    {.kind = OPTION_CHOICE,
     .name = "devices",
     .value = "NAME",
     .help = "whether ranks compute on GPUs; auto: where there are any",
     AT(devices),
     .choices = device_choices},
    {.kind = OPTION_SWITCH,
     .name = "oversubscribe",
     .help = "allow more ranks than cores",
     AT(oversubscribe)},
    {.kind = OPTION_HEADING, .name = "Output"},
    {.kind = OPTION_TEXT,
     .name = "svg",
     .value = "FILE",
     .help = "draw the machine with its ranks",
     AT(svg)},
    {.kind = OPTION_TEXT,
     .name = "export",
     .value = "FILE",
     .help = "write the machine in hwloc's XML",
     AT(export)},
    {.kind = OPTION_SWITCH, .name = "json", .help = "print JSON", AT(json)},
};

static const struct option_page page = {
    .about =
        "Shows which GPU, cores, memory and network adapters each rank of a host would get, and "
        "the environment variables that the machine calls for. Programs of Switchyard take these "
        "cores by themselves when they start, unless mpirun, srun, OpenMP's variables or "
        "SWITCHYARD_BIND=none have decided otherwise; `mpirun -n N switchyard info` shows what "
        "each rank found.",
    .examples = "  switchyard topo\n"
                "  switchyard topo --ranks 4 --svg machine.svg\n"
                "  switchyard topo --topology tests/topologies/rtx8.xml --json\n"
                "  switchyard topo --topology tests/topologies/spark.xml --hosts 4\n",
    .specs = specs,
    .num_specs = sizeof specs / sizeof specs[0],
};

/* ---- What the sheet's printers share -------------------------------------------------------- */

const char *topo_host_name(const struct topo_sheet *sheet) {
  const char *name =
      hwloc_obj_get_info_by_name(hwloc_get_root_obj(sheet->machine->topology), "HostName");
  return name == NULL ? "" : name;
}

const char *topo_nic_name(const struct machine_nic *nic) {
  return nic->hca[0] != '\0' ? nic->hca : nic->interface;
}

uint64_t topo_memory_bytes(const struct machine *machine) {
  if (machine->is_live) { /* hwloc's sum misses memory that a virtual machine was given later */
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
  }
  return hwloc_get_root_obj(machine->topology)->total_memory;
}

/* ---- What is found -------------------------------------------------------------------------- */

static void find(struct topo_sheet *sheet, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void find(struct topo_sheet *sheet, const char *format, ...) {
  if (sheet->num_findings < TOPO_MAX_FINDINGS) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sheet->findings[sheet->num_findings++], LAUNCH_ERROR_BYTES, format, arguments);
    va_end(arguments);
  }
}

static void find_limits(struct topo_sheet *sheet, hwloc_const_bitmap_t usable) {
  hwloc_topology_t topology = sheet->machine->topology;
  hwloc_const_bitmap_t allowed = hwloc_topology_get_allowed_cpuset(topology);
  const char *cgroup = hwloc_obj_get_info_by_name(hwloc_get_root_obj(topology), "LinuxCgroup");
  char list[200];
  if (cgroup != NULL &&
      !hwloc_bitmap_isequal(allowed, hwloc_topology_get_complete_cpuset(topology))) {
    find(sheet, "the cgroup %.100s allows hardware threads %s", cgroup,
         bind_list_text(list, sizeof list, allowed));
  }
  if (usable != NULL && !hwloc_bitmap_isincluded(allowed, usable)) {
    find(sheet, "this process was started on hardware threads %s",
         bind_list_text(list, sizeof list, usable));
  }
}

static void find_settings(struct topo_sheet *sheet, const struct surroundings *s, bool use_gpus) {
  if (s->bound_by != NULL) {
    find(sheet, "ranks started like this process stay as they were bound by %s", s->bound_by);
  }
  if (s->wish != NULL) {
    find(sheet, "SWITCHYARD_BIND is '%.100s'", s->wish);
  }
  if (s->threads > 0) {
    find(sheet, "OMP_NUM_THREADS asks for %d threads a rank", s->threads);
  }
  if (s->visible_gpus != NULL && use_gpus) {
    find(sheet, "CUDA_VISIBLE_DEVICES shows '%.200s'", s->visible_gpus);
  }
}

/* ---- Making the sheet ----------------------------------------------------------------------- */

static int32_t default_ranks(const struct machine *machine, bool use_gpus, int32_t local_size) {
  if (local_size > 1) {
    return local_size;
  }
  const int nodes = hwloc_get_nbobjs_by_type(machine->topology, HWLOC_OBJ_NUMANODE);
  return use_gpus && machine->num_gpus > 0 ? machine->num_gpus : nodes > 0 ? nodes : 1;
}

static int make_table(struct session *session, const struct flags *flags, struct topo_sheet *sheet,
                      struct binding_request *request) {
  char error[LAUNCH_ERROR_BYTES];
  if (!binding_table_make(sheet->machine, request, &sheet->table, error)) {
    return session_fail(session, CLI_USAGE, "%s", error);
  }
  if (request->num_ranks > sheet->table.num_usable_cores && !flags->oversubscribe) {
    return session_fail(session, CLI_USAGE,
                        "--ranks %d exceeds the machine's %d usable core%s; --oversubscribe lets "
                        "them share",
                        request->num_ranks, sheet->table.num_usable_cores,
                        sheet->table.num_usable_cores == 1 ? "" : "s");
  }
  if (sheet->table.note[0] != '\0') {
    find(sheet, "%s", sheet->table.note);
  }
  return CLI_OK;
}

/* A file's machine knows nothing of this process, whose variables count all the same. */
static int fill_sheet(struct session *session, const struct flags *flags,
                      struct topo_sheet *sheet) {
  const struct machine *machine = sheet->machine;
  const struct surroundings s = surroundings_read(environment_of_process, NULL);
  const bool use_gpus =
      flags->devices == DEVICES_GPU || (flags->devices == DEVICES_AUTO && machine->num_gpus > 0 &&
                                        (s.visible_gpus == NULL || s.visible_gpus[0] != '\0'));
  hwloc_bitmap_t usable = machine->is_live ? hwloc_bitmap_alloc() : NULL;
  if (usable != NULL && hwloc_get_cpubind(machine->topology, usable, HWLOC_CPUBIND_PROCESS) != 0) {
    hwloc_bitmap_fill(usable);
  }
  struct binding_request request = {
      .num_ranks = flags->ranks != NOT_GIVEN
                       ? (int32_t)flags->ranks
                       : default_ranks(machine, use_gpus, machine->is_live ? s.local_size : 1),
      .usable = usable,
      .threads = s.threads,
      .use_gpus = use_gpus,
      .visible_gpus = s.visible_gpus};
  find_limits(sheet, usable);
  find_settings(sheet, &s, use_gpus);
  const int code = make_table(session, flags, sheet, &request);
  hwloc_bitmap_free(usable);
  if (code == CLI_OK) {
    const struct environment_request wanted = {
        .num_hosts = sheet->num_hosts, .use_gpus = use_gpus, .lookup = environment_of_process};
    sheet->num_settings = environment_list(machine, &sheet->table, &wanted, sheet->settings);
  }
  return code;
}

/* ---- Output --------------------------------------------------------------------------------- */

static int fail_write(struct session *session, const char *option, const char *path) {
  return session_fail(session, CLI_FAILED, "%s '%.200s' cannot be written: %s", option, path,
                      strerror(errno));
}

static int write_svg(struct session *session, const struct topo_sheet *sheet, const char *path) {
  struct new_file file;
  return new_file_open(&file, path) && new_file_close(&file, topo_draw(sheet, file.out))
             ? CLI_OK
             : fail_write(session, "--svg", path);
}

static int write_xml(struct session *session, const struct topo_sheet *sheet, const char *path) {
  struct new_file file;
  char *xml = NULL;
  int bytes = 0; /* with the NUL at its end */
  if (hwloc_topology_export_xmlbuffer(sheet->machine->topology, &xml, &bytes, 0) != 0) {
    return fail_write(session, "--export", path);
  }
  const bool is_open = new_file_open(&file, path);
  const bool is_written =
      is_open && new_file_close(&file, fwrite(xml, (size_t)bytes - 1, 1, file.out) == 1);
  const int error = errno;
  hwloc_free_xmlbuffer(sheet->machine->topology, xml);
  errno = error;
  return is_written ? CLI_OK : fail_write(session, "--export", path);
}

static int write_files(struct session *session, const struct flags *flags,
                       const struct topo_sheet *sheet) {
  const int code = flags->export != NULL ? write_xml(session, sheet, flags->export) : CLI_OK;
  return code == CLI_OK && flags->svg != NULL ? write_svg(session, sheet, flags->svg) : code;
}

static int print(struct session *session, const struct flags *flags,
                 const struct topo_sheet *sheet) {
  const int code = write_files(session, flags, sheet);
  if (code != CLI_OK) {
    return code;
  }
  if (!flags->json) {
    topo_print_text(sheet);
  } else if (!topo_print_json(sheet)) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  return CLI_OK;
}

int topo_command(struct session *session, int argc, char **argv) {
  struct flags flags = {.ranks = NOT_GIVEN, .hosts = 1};
  struct topo_sheet *sheet = NULL;
  struct machine *machine = NULL;
  char error[LAUNCH_ERROR_BYTES];
  int code = options_parse(session, &page, argc, argv, &flags);
  if (code == CLI_OK && !machine_load(flags.topology, &machine, error)) {
    code = session_fail(session, flags.topology != NULL ? CLI_BAD_FILE : CLI_FAILED, "%s", error);
  }
  sheet = code == CLI_OK ? calloc(1, sizeof *sheet) : NULL;
  if (code == CLI_OK && sheet == NULL) {
    code = session_fail(session, CLI_FAILED, "out of memory");
  } else if (sheet != NULL) {
    sheet->machine = machine;
    sheet->num_hosts = (int32_t)flags.hosts;
    code = fill_sheet(session, &flags, sheet);
  }
  code = session_agree(session, code);
  if (code == CLI_OK && session->rank == 0 && sheet != NULL) {
    code = print(session, &flags, sheet);
  }
  if (sheet != NULL) {
    binding_table_free(&sheet->table);
  }
  free(sheet);
  machine_destroy(machine);
  return code;
}
