#include "launch/bind.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *bind_list_text(char *text, size_t bytes, hwloc_const_bitmap_t set) {
  const int length = hwloc_bitmap_list_snprintf(text, bytes, set);
  if (length < 0 || (size_t)length >= bytes) {
    memcpy(text + bytes - 4, "...", 4);
  }
  return text;
}

static void say(struct bind_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct bind_report *report, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(report->sentence, sizeof report->sentence, format, arguments);
  va_end(arguments);
}

/* Memory follows the cores, without force: when the nodes are full, others serve. */
static const char *bind_memory(hwloc_topology_t topology, hwloc_const_nodeset_t nodes) {
  const int flags = HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET; /* later threads inherit it */
  hwloc_membind_policy_t policy = HWLOC_MEMBIND_FIRSTTOUCH;
  hwloc_bitmap_t now = hwloc_bitmap_alloc();
  const bool known = now != NULL && hwloc_get_membind(topology, now, &policy, flags) == 0;
  hwloc_bitmap_free(now);
  if (hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) <= 1) {
    return "";
  }
  if (known && policy != HWLOC_MEMBIND_FIRSTTOUCH && policy != HWLOC_MEMBIND_DEFAULT) {
    return "; memory stays as it was bound already";
  }
  return hwloc_set_membind(topology, nodes, HWLOC_MEMBIND_BIND, flags) == 0
             ? ""
             : "; the system does not let memory be bound";
}

static void apply(const struct machine *machine, const struct binding *binding,
                  struct bind_report *report) {
  char nodes[64];
  bind_list_text(report->cpus, sizeof report->cpus, binding->cpus);
  if (hwloc_set_cpubind(machine->topology, binding->cpus, HWLOC_CPUBIND_PROCESS) != 0) {
    say(report, "not bound: the system refuses cores %.200s: %s", report->cpus, strerror(errno));
    return;
  }
  const char *memory = bind_memory(machine->topology, binding->nodes);
  report->is_bound = true;
  say(report, "bound to hardware threads %.200s (%d core%s) and memory of node %s%s", report->cpus,
      binding->num_cores, binding->num_cores == 1 ? "" : "s",
      bind_list_text(nodes, sizeof nodes, binding->nodes), memory);
}

/* True: somebody has decided; the report says who. */
static bool is_decided(const struct surroundings *s, bool is_narrowed, struct bind_report *report) {
  if (s->wish != NULL && strcmp(s->wish, "none") == 0) {
    say(report, "not bound: SWITCHYARD_BIND=none");
    return true;
  }
  if (s->bound_by != NULL) {
    say(report, "left as it was bound by %s", s->bound_by);
    return true;
  }
  if (is_narrowed && s->may_be_bound) {
    say(report, "left on the hardware threads %.200s that it was started on", report->cpus);
    return true;
  }
  return false;
}

/* By the GPUs where there are enough, by the cores otherwise. */
static bool make_table(const struct machine *machine, struct binding_request *request,
                       bool near_gpus, struct binding_table *table, char *error) {
  request->use_gpus = near_gpus && machine->num_gpus >= request->num_ranks;
  if (request->use_gpus && binding_table_make(machine, request, table, error)) {
    if (table->ranks[request->num_ranks - 1].device == request->num_ranks - 1) {
      return true;
    }
    binding_table_free(table); /* CUDA_VISIBLE_DEVICES shows fewer than there are ranks */
  }
  request->use_gpus = false;
  return binding_table_make(machine, request, table, error);
}

static void settle(const struct machine *machine, const struct surroundings *s, bool near_gpus,
                   struct bind_report *report) {
  char error[LAUNCH_ERROR_BYTES];
  hwloc_bitmap_t usable = hwloc_bitmap_alloc();
  struct binding_table table = {.num_ranks = 0};
  if (usable == NULL || hwloc_get_cpubind(machine->topology, usable, HWLOC_CPUBIND_PROCESS) != 0) {
    say(report, "not bound: the system does not say which cores this process may use");
    hwloc_bitmap_free(usable);
    return;
  }
  bind_list_text(report->cpus, sizeof report->cpus, usable);
  hwloc_const_bitmap_t allowed = hwloc_topology_get_allowed_cpuset(machine->topology);
  struct binding_request request = {.num_ranks = s->local_size,
                                    .usable = usable,
                                    .threads = s->threads,
                                    .visible_gpus = s->visible_gpus};
  if (is_decided(s, !hwloc_bitmap_isincluded(allowed, usable), report)) {
    /* the sentence is there */
  } else if (!make_table(machine, &request, near_gpus, &table, error)) {
    say(report, "not bound: %.300s", error);
  } else {
    const struct binding *mine = &table.ranks[s->local_rank];
    report->threads = mine->threads;
    report->device = mine->device;
    if (mine->is_shared) {
      say(report, "not bound: %.300s", table.note);
    } else if (s->local_size == 1 && !request.use_gpus) {
      say(report, "the only rank of this host: all its %d usable cores", mine->num_cores);
    } else {
      apply(machine, mine, report);
    }
  }
  binding_table_free(&table);
  hwloc_bitmap_free(usable);
}

bool bind_self(bool near_gpus, struct bind_report *report_out) {
  const struct surroundings s = surroundings_read(environment_of_process, NULL);
  struct machine *machine = NULL;
  char error[LAUNCH_ERROR_BYTES];
  *report_out =
      (struct bind_report){.local_rank = s.local_rank, .local_size = s.local_size, .device = -1};
  if (s.wish != NULL && strcmp(s.wish, "auto") != 0 && strcmp(s.wish, "none") != 0) {
    say(report_out, "SWITCHYARD_BIND is '%.100s'; allowed: auto, none", s.wish);
    return false;
  }
  if (!machine_load(NULL, &machine, error)) {
    say(report_out, "not bound: %.300s", error);
    return true;
  }
  settle(machine, &s, near_gpus, report_out);
  if (report_out->device >= 0) {
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
  }
  machine_destroy(machine);
  return true;
}
