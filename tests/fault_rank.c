/* A rank to which something happens. Not a test by itself: test_fault.sh starts it, and says by
 *
 *   SY_FAULT=<rank>:<point>:<what>     kill, stop, halt:<ms> (stopped for so long), memory, leave
 *
 * what happens to which rank, and where: at its start (before MPI), create, load, reserve, or at the
 * beginning of a stage of the third forward. SY_FAULT_STEPS: forwards in all; SY_FAULT_PAUSE_MS:
 * before each.
 *
 * A rank whose call fails says why and leaves with the code 4, without MPI_Finalize; one whose
 * outputs differ from those that a single process computes leaves with 5. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <mpi.h>

#include "runtime/internal.h"
#include "runtime/switchyard_mpi.h"
#include "tests/support/expect.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"

enum { FAULT_STEP = 3, LEFT_BY_ERROR = 4, LEFT_BY_BITS = 5, LEFT_BY_FAULT = 3 };

static int step; /* of the forward under way, from 1; 0 before the first */

/* ---- The fault ------------------------------------------------------------------------------ */

static void sleep_ms(long ms) {
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void halt(long ms) {
  const pid_t self = getpid();
  const pid_t helper = fork();
  if (helper == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    sleep_ms(ms);
    kill(self, SIGCONT);
    _exit(0);
  }
  raise(SIGSTOP);
}

static void happen(const char *what) {
  fprintf(stderr, "fault_rank: %s\n", what);
  if (strcmp(what, "kill") == 0) {
    raise(SIGKILL);
  } else if (strcmp(what, "stop") == 0) {
    raise(SIGSTOP);
  } else if (strncmp(what, "halt:", 5) == 0) {
    halt(strtol(what + 5, NULL, 10));
  } else if (strcmp(what, "memory") == 0) {
    const struct rlimit none = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20}; /* less than it has */
    setrlimit(RLIMIT_AS, &none);
  } else {
    _exit(LEFT_BY_FAULT);
  }
}

/* Stages come in every step; the fault is in one of them. */
static void at(const char *point) {
  const char *fault = getenv("SY_FAULT");
  const char *rank = getenv("OMPI_COMM_WORLD_RANK");
  char here[64];
  snprintf(here, sizeof here, "%s:%s:", rank != NULL ? rank : "0", point);
  if (fault != NULL && strncmp(fault, here, strlen(here)) == 0 &&
      (step == 0 || step == FAULT_STEP)) {
    happen(fault + strlen(here));
  }
}

__attribute__((constructor)) static void start(void) { at("start"); }

/* ---- Its points: the two tables that the runtime calls through -------------------------------- */

static const struct sy_kernels *kernels;
static const struct sy_transport_ops *ops;

static sy_status load_expert(const struct sy_stage_env *env, const struct sy_source *source,
                             unsigned char *expert, struct sy_bad_weight *bad) {
  at("load");
  return kernels->load_expert(env, source, expert, bad);
}

#define STAGE(stage)                                                                               \
  static sy_status at_##stage(const struct sy_stage_env *env, const struct sy_##stage##_args *a) { \
    at(#stage);                                                                                    \
    return kernels->stage(env, a);                                                                 \
  }
STAGE(route)
STAGE(pack)
STAGE(group)
STAGE(experts)
STAGE(reduce)
STAGE(combine)

static sy_status at_start(struct sy_transport *t, enum sy_direction direction) {
  at(direction == SY_DISPATCH ? "dispatch" : "return");
  return ops->start(t, direction);
}

static void watch(sy_group *group) {
  static struct sy_kernels watched_kernels;
  static struct sy_transport_ops watched_ops;
  kernels = group->kernels;
  ops = group->transport->ops;
  watched_kernels = *kernels;
  watched_kernels.load_expert = load_expert;
  watched_kernels.route = at_route;
  watched_kernels.pack = at_pack;
  watched_kernels.group = at_group;
  watched_kernels.experts = at_experts;
  watched_kernels.reduce = at_reduce;
  watched_kernels.combine = at_combine;
  watched_ops = *ops;
  watched_ops.start = at_start;
  group->kernels = &watched_kernels;
  group->transport->ops = &watched_ops;
}

/* ---- The work ------------------------------------------------------------------------------- */

static int32_t number(const char *variable, int32_t otherwise) {
  const char *text = getenv(variable);
  return text == NULL ? otherwise : (int32_t)atoi(text);
}

static void leave_unless_ok(sy_status status) {
  if (status != SY_OK) {
    fprintf(stderr, "fault_rank: %s: %s\n", sy_status_name(status), sy_last_error(NULL));
    _exit(LEFT_BY_ERROR);
  }
}

TEST(work) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 64, 8, 2);
  /* Room for so much that memory can run out. */
  const struct call_options options = {.strategy = SY_STRATEGY_EXACT, .max_tokens = 8192};
  const int64_t num_tokens = 4 * sy_test_world();
  const struct token_split split = split_evenly(num_tokens, sy_test_world());
  const int rank = sy_test_rank();
  struct layer_case c;
  struct layer_rank part = {.c = &c};
  layer_case_make(&c, &shape, num_tokens);
  void *expected = layer_case_outputs(&c, options.output_dtype);
  void *got = layer_case_outputs(&c, options.output_dtype);
  expect_outputs(&c, &options, sy_test_world(), expected);
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.timeout_ms = number("SY_FAULT_TIMEOUT_MS", 3000);
  desc.load_timeout_ms = 2 * desc.timeout_ms;
  desc.num_threads = 1;
  at("create");
  leave_unless_ok(sy_group_create_mpi(MPI_COMM_WORLD, &desc, &part.group));
  watch(part.group);
  struct layer_call call;
  if (!layer_rank_open(&part, &c, part.group)) {
    _exit(LEFT_BY_ERROR);
  }
  at("reserve");
  if (!layer_call_open(&call, &part, &options, &split)) {
    _exit(LEFT_BY_ERROR);
  }
  for (step = 1; step <= number("SY_FAULT_STEPS", 5); ++step) {
    sleep_ms(number("SY_FAULT_PAUSE_MS", 0));
    leave_unless_ok(layer_call_forward(&call));
    layer_call_read(&call, got);
    if (!same_bits(&c, options.output_dtype, got, expected, split.first[rank],
                   split.first[rank + 1], "a step")) {
      _exit(LEFT_BY_BITS);
    }
  }
  layer_call_close(&call);
  layer_rank_close(&part);
  sy_group_destroy(part.group);
  layer_case_free(&c);
}
