/* What calls refuse in a world of one, and that the next call works. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/internal.h"
#include "tests/support/backend.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"
#include "tests/support/spoil.h"

enum { NUM_TOKENS = 7 };

/* One case, one call that is open, and what it must give. */
struct subject {
  struct layer_case c;
  sy_group *group;
  struct layer_rank rank;
  struct layer_call call;
  void *expected;
  void *got;
};

static bool subject_open(struct subject *s, const struct call_options *options) {
  const sy_shape shape = spoil_shape();
  const struct token_split split = split_evenly(NUM_TOKENS, 1);
  layer_case_make(&s->c, &shape, NUM_TOKENS);
  s->expected = layer_case_outputs(&s->c, SY_DTYPE_BF16);
  s->got = layer_case_outputs(&s->c, SY_DTYPE_BF16);
  layer_case_alone(&s->c, options, s->expected);
  s->group = local_group(1);
  return layer_rank_open(&s->rank, &s->c, s->group) &&
         layer_call_open(&s->call, &s->rank, options, &split);
}

static void subject_close(struct subject *s) {
  layer_call_close(&s->call);
  layer_rank_close(&s->rank);
  sy_group_destroy(s->group);
  layer_case_free(&s->c);
}

static void check_works(struct subject *s, const char *after) {
  CHECK_OK(layer_call_forward(&s->call));
  layer_call_read(&s->call, s->got);
  same_bits(&s->c, SY_DTYPE_BF16, s->got, s->expected, 0, NUM_TOKENS, after);
  layer_call_renew(&s->call);
}

/* ---- Bad calls ---- */

static void check_spoilt(bool halves) {
  size_t count = 0;
  const struct spoil *list = spoils(&count);
  struct call_options options = spoil_options();
  options.halves = halves;
  struct subject s;
  const bool open = subject_open(&s, &options);
  for (size_t i = 0; open && i < count; ++i) {
    const struct spoilt spoilt = spoil_apply(&list[i], &s.call);
    const bool failed = CHECK_STATUS(layer_call_forward(&s.call), list[i].status);
    CHECK_STR_HAS(sy_last_error(s.group), "rank 0: ");
    for (int part = 0; part < 3 && list[i].said[part] != NULL; ++part) {
      CHECK_STR_HAS(sy_last_error(s.group), list[i].said[part]);
    }
    CHECK_EQ_STR(sy_last_error(NULL), sy_last_error(s.group));
    spoil_undo(&spoilt, &s.call);
    if (!CHECK(layer_call_is_untouched(&s.call)) || !failed) {
      fprintf(stderr, "this was about %s\n", list[i].name);
    }
    CHECK_OK(sy_group_poll(s.group));
    check_works(&s, list[i].name);
  }
  subject_close(&s);
}

TEST(bad_calls_are_refused_and_the_next_works) { check_spoilt(false); }
TEST(bad_halves_are_refused_and_the_next_work) { check_spoilt(true); }

TEST(calls_without_their_arguments_are_refused) {
  const struct call_options options = spoil_options();
  struct subject s;
  if (subject_open(&s, &options)) {
    const struct layer_call *call = &s.call;
    CHECK_FAILS(sy_forward(NULL, call->plan, &call->io, NULL, 0, NULL), NULL, SY_ERR_ARGUMENT,
                "layer is NULL");
    CHECK_FAILS(sy_forward(s.rank.layer, call->plan, NULL, NULL, 0, NULL), s.group, SY_ERR_ARGUMENT,
                "rank 0: io is NULL");
    CHECK_FAILS(sy_forward(s.rank.layer, call->plan, &call->io, NULL, 0, NULL), s.group,
                SY_ERR_TOO_SMALL, "scratch has 0 bytes"); /* none was reserved */
    int stream = 0;
    if (sy_group_memory(s.group) == SY_MEMORY_HOST) {
      CHECK_FAILS(sy_forward(s.rank.layer, call->plan, &call->io, call->scratch,
                             call->scratch_bytes, &stream),
                  s.group, SY_ERR_ARGUMENT, "stream is not NULL");
    }
    CHECK_STATUS(sy_dispatch_finish(NULL), SY_ERR_ARGUMENT);
    CHECK_STATUS(sy_group_reserve(NULL, call->plan, 0), SY_ERR_ARGUMENT);
    CHECK_FAILS(sy_group_reserve(s.group, NULL, 0), s.group, SY_ERR_ARGUMENT, "plan is NULL");
    CHECK(layer_call_is_untouched(call));
    check_works(&s, "calls without arguments");
  }
  subject_close(&s);
}

TEST(outputs_and_handles_of_null_are_refused) {
  const sy_shape shape = spoil_shape();
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &shape;
  desc.max_tokens = 1;
  sy_group *group = local_group(1);
  CHECK_FAILS(sy_group_create_local(NULL, NULL), NULL, SY_ERR_ARGUMENT, "group_out is NULL");
  CHECK_FAILS(sy_layer_create(group, &shape, NULL), group, SY_ERR_ARGUMENT, "layer_out is NULL");
  CHECK_FAILS(sy_plan_create(&desc, NULL), NULL, SY_ERR_ARGUMENT, "plan_out is NULL");
  CHECK_FAILS(sy_group_poll(NULL), NULL, SY_ERR_ARGUMENT, "group is NULL");
  CHECK_FAILS(sy_group_wait(NULL, NULL, 1), NULL, SY_ERR_ARGUMENT, "group is NULL");
  sy_group_abort(NULL);
  CHECK_OK(sy_group_poll(group));
  sy_group_destroy(group);
}

/* The sentence is the bytes that do: with exactly them it works. */
TEST(scratch_of_exactly_the_plans_size_does) {
  for (int strategy = SY_STRATEGY_EXACT; strategy <= SY_STRATEGY_GATHER; ++strategy) {
    for (int combine = 0; combine < 2; ++combine) {
      struct call_options options = spoil_options();
      options.strategy = (sy_strategy)strategy;
      options.combine = (sy_combine)combine;
      struct subject s;
      if (subject_open(&s, &options)) { /* the caller's scratch is fenced */
        check_works(&s, "exact scratch");
      }
      subject_close(&s);
    }
  }
}

/* ---- Halves out of order ---- */

static sy_status start(struct subject *s) {
  return sy_dispatch_start(s->rank.layer, s->call.plan, &s->call.io, s->call.scratch,
                           s->call.scratch_bytes, NULL);
}

/* Everything but the half `next` is refused, and changes nothing. */
static void check_others_refused(struct subject *s, int next) {
  static sy_status (*const halves[])(sy_group *) = {NULL, sy_dispatch_finish, sy_experts,
                                                    sy_combine_start, sy_combine_finish};
  for (int half = 1; half <= 4; ++half) {
    if (half != next) {
      CHECK_FAILS(halves[half](s->group), s->group, SY_ERR_STATE, "rank 0", "out of order");
    }
  }
  if (next != 0) {
    struct layer_call whole = s->call;
    whole.options.halves = false;
    CHECK_FAILS(layer_call_forward(&whole), s->group, SY_ERR_STATE, "in flight");
    CHECK_FAILS(start(s), s->group, SY_ERR_STATE, "in flight");
    CHECK_FAILS(sy_group_reserve(s->group, s->call.plan, 1), s->group, SY_ERR_STATE, "in flight");
  }
}

TEST(halves_out_of_order_are_refused) {
  struct call_options options = spoil_options();
  options.halves = true;
  struct subject s;
  if (subject_open(&s, &options)) {
    check_others_refused(&s, 0);
    CHECK_OK(start(&s));
    check_others_refused(&s, 1);
    CHECK_OK(sy_dispatch_finish(s.group));
    check_others_refused(&s, 2);
    CHECK_OK(sy_experts(s.group));
    check_others_refused(&s, 3);
    CHECK_OK(sy_combine_start(s.group));
    check_others_refused(&s, 4);
    CHECK(layer_call_is_untouched(&s.call));
    CHECK_OK(sy_combine_finish(s.group));
    layer_call_read(&s.call, s.got);
    same_bits(&s.c, SY_DTYPE_BF16, s.got, s.expected, 0, NUM_TOKENS, "halves");
    check_others_refused(&s, 0);
    check_works(&s, "halves out of order");
  }
  subject_close(&s);
}

TEST(halves_take_one_wave) {
  struct call_options options = spoil_options();
  options.halves = true;
  options.wave_tokens = NUM_TOKENS - 1;
  struct subject s;
  if (subject_open(&s, &options)) {
    CHECK_FAILS(layer_call_forward(&s.call), s.group, SY_ERR_ARGUMENT, "rank 0: io.num_tokens is 7",
                "0..6 tokens");
    CHECK(layer_call_is_untouched(&s.call));
    s.call.options.halves = false;
    check_works(&s, "halves of too many tokens");
  }
  subject_close(&s);
}

/* ---- Fences ---- */

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZER_REPORTS = 1 };
#else
enum { SANITIZER_REPORTS = 0 };
#endif

static const struct sy_kernels *true_kernels;

/* One value more than there is room for. */
static sy_status run_over(const struct sy_stage_env *env, const struct sy_experts_args *args) {
  const sy_status status = true_kernels->experts(env, args);
  args->expert_out[NUM_TOKENS * SPOIL_TOP_K * SPOIL_HIDDEN] = 1.0f;
  return status;
}

static void check_call_fails(struct subject *s) {
  CHECK_FAILS(layer_call_forward(&s->call), s->group, SY_ERR_INTERNAL, "rank 0: buffer ",
              "was overrun before stage 5 ended");
  CHECK(layer_call_is_untouched(&s->call));
}

/* AddressSanitizer ends the process, with a code of its own, where the stage writes. */
static void check_process_ends(struct subject *s) {
  enum { CALL_RETURNED = 0, SANITIZER_ENDED_IT = 1 };
  const pid_t child = fork();
  if (child == 0) {
    layer_call_forward(&s->call);
    _exit(CALL_RETURNED);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == SANITIZER_ENDED_IT);
}

TEST(a_stage_that_writes_too_far_is_noticed) {
  struct call_options options = spoil_options();
  options.max_tokens = NUM_TOKENS;
  options.wave_tokens = 0;
  struct subject s;
  const bool open = subject_open(&s, &options);
  if (open && s.call.scratch_on_device) {
    sy_test_skip("on a GPU the emulator's margins and compute-sanitizer look at memory");
  } else if (open) {
    true_kernels = s.group->kernels;
    struct sy_kernels bad = *true_kernels;
    bad.experts = run_over;
    s.group->kernels = &bad;
    (SANITIZER_REPORTS ? check_process_ends : check_call_fails)(&s);
    s.group->kernels = true_kernels;
    check_works(&s, "a stage that wrote too far");
  }
  subject_close(&s);
}

/* ---- Layers ---- */

TEST(experts_not_loaded_are_named) {
  const struct call_options options = spoil_options();
  struct subject s;
  if (subject_open(&s, &options)) {
    struct fences memory = {NULL};
    sy_expert_weights good = layer_case_expert(&s.c, 5, &memory);
    sy_expert_weights bad = good;
    float *down = FENCED(&memory, float, SPOIL_HIDDEN * 48, "down");
    memcpy(down, good.down, SPOIL_HIDDEN * 48 * sizeof *down);
    down[7 * 48 + 11] = INFINITY;
    bad.down = down;
    CHECK_FAILS(sy_layer_load_expert(s.rank.layer, 5, &bad), NULL, SY_ERR_ARGUMENT, "expert 5",
                "down[7, 11] is inf");
    CHECK_FAILS(layer_call_forward(&s.call), s.group, SY_ERR_STATE, "rank 0",
                "local expert 5 (global expert 5) is not loaded");
    CHECK(layer_call_is_untouched(&s.call));
    CHECK_OK(sy_layer_load_expert(s.rank.layer, 5, &good));
    fences_free(&memory);
    check_works(&s, "an expert that was not loaded");
  }
  subject_close(&s);
}

/* With one thing wrong in the weights of an expert. */
#define WEIGHTS_REFUSED(change, ...)                                                           \
  do {                                                                                         \
    sy_expert_weights weights = good;                                                          \
    change;                                                                                    \
    CHECK_FAILS(sy_layer_load_expert(layer, 1, &weights), NULL, SY_ERR_ARGUMENT, __VA_ARGS__); \
  } while (0)

TEST(weights_that_do_not_fit_the_shape_are_refused) {
  sy_shape shape = spoil_shape();
  struct layer_case c;
  struct fences memory = {NULL};
  sy_group *group = local_group(1);
  sy_layer *layer = NULL;
  layer_case_make(&c, &shape, 1);
  CHECK_OK(sy_layer_create(group, &shape, &layer));
  const sy_expert_weights good = layer_case_expert(&c, 1, &memory);
  const float bias[48] = {0.0f};
  WEIGHTS_REFUSED(weights.gate = NULL, "weights.gate is NULL", "given");
  WEIGHTS_REFUSED(weights.up = NULL, "weights.up is");
  WEIGHTS_REFUSED(weights.down = NULL, "weights.down is");
  WEIGHTS_REFUSED(weights.up_bias = bias, "weights.up_bias is not NULL", "left out");
  WEIGHTS_REFUSED(weights.dtype = (sy_dtype)6, "weights.dtype is 6", "0 to 5");
  WEIGHTS_REFUSED(weights.up_scales = bias, "weights.up_scales is not NULL", "dtype f32",
                  "left out");
  WEIGHTS_REFUSED(weights.dtype = SY_DTYPE_F8_E4M3, "weights.gate_scales is NULL", "f8_e4m3",
                  "given");
  WEIGHTS_REFUSED(weights.struct_size = 8, "SY_EXPERT_WEIGHTS_INIT");
  CHECK_FAILS(sy_layer_load_expert(layer, 8, &good), NULL, SY_ERR_ARGUMENT, "local expert is 8",
              "rank 0 owns 8");
  CHECK_FAILS(sy_layer_load_expert(layer, -1, &good), NULL, SY_ERR_ARGUMENT, "local expert is -1");
  CHECK_FAILS(sy_layer_load_expert(NULL, 0, &good), NULL, SY_ERR_ARGUMENT, "layer is NULL");
  CHECK_EQ_I64(sy_layer_global_expert(layer, 8), -1);
  CHECK_EQ_I64(sy_layer_global_expert(layer, -1), -1);
  CHECK_EQ_I64(sy_layer_global_expert(layer, 7), 7);
  sy_layer_destroy(layer);
  sy_layer_destroy(NULL);

  layer = NULL;
  shape.hidden = 17;
  CHECK_FAILS(sy_layer_create(group, &shape, &layer), group, SY_ERR_ARGUMENT, "hidden is 17");
  shape.struct_size = 0;
  CHECK_FAILS(sy_layer_create(group, &shape, &layer), group, SY_ERR_ARGUMENT, "SY_SHAPE_INIT");
  CHECK_FAILS(sy_layer_create(NULL, &shape, &layer), NULL, SY_ERR_ARGUMENT, "group is NULL");
  CHECK(layer == NULL);
  sy_group_destroy(group);
  fences_free(&memory);
  layer_case_free(&c);
}

/* FP4 weights fit one format and the modes that compute with it. */
TEST(quantised_weights_that_do_not_fit_the_layer_are_refused) {
  static const struct {
    sy_dtype dtype;
    sy_mode mode;
    sy_format format;
    sy_status status;
    const char *parts[2];
  } cases[] = {{SY_DTYPE_NVFP4, SY_MODE_W4A4, SY_FORMAT_NVFP4, SY_OK, {"", ""}},
               {SY_DTYPE_MXFP4, SY_MODE_W4A16, SY_FORMAT_MXFP4, SY_OK, {"", ""}},
               {SY_DTYPE_NVFP4,
                SY_MODE_W4A4,
                SY_FORMAT_MXFP4,
                SY_ERR_UNSUPPORTED,
                {"weights are NVFP4", "format is MXFP4"}},
               {SY_DTYPE_MXFP4,
                SY_MODE_W4A16,
                SY_FORMAT_NVFP4,
                SY_ERR_UNSUPPORTED,
                {"weights are MXFP4", "never quantised again"}},
               {SY_DTYPE_MXFP4,
                SY_MODE_BF16,
                SY_FORMAT_MXFP4,
                SY_ERR_UNSUPPORTED,
                {"weights are MXFP4", "mode is bf16; allowed: w4a4, w4a16"}}};
  static const uint8_t zeros[32 * 32] = {0};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    sy_shape shape = small_shape(cases[i].mode, 32, 32, 1, 1);
    shape.format = cases[i].format;
    sy_group *group = local_group(1);
    sy_layer *layer = NULL;
    CHECK_OK(sy_layer_create(group, &shape, &layer));
    sy_expert_weights weights = SY_EXPERT_WEIGHTS_INIT;
    weights.dtype = cases[i].dtype;
    weights.gate = weights.up = weights.down = zeros;
    weights.gate_scales = weights.up_scales = weights.down_scales = zeros;
    if (cases[i].status == SY_OK) {
      CHECK_OK(sy_layer_load_expert(layer, 0, &weights));
    } else {
      CHECK_FAILS(sy_layer_load_expert(layer, 0, &weights), NULL, cases[i].status,
                  cases[i].parts[0], cases[i].parts[1]);
    }
    sy_layer_destroy(layer);
    sy_group_destroy(group);
  }
}

TEST(global_scales_that_are_not_numbers_are_refused) {
  static const uint8_t zeros[32 * 32] = {0};
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 2, 1);
  sy_group *group = local_group(1);
  sy_layer *layer = NULL;
  CHECK_OK(sy_layer_create(group, &shape, &layer));
  sy_expert_weights good = SY_EXPERT_WEIGHTS_INIT;
  good.dtype = SY_DTYPE_NVFP4;
  good.gate = good.up = good.down = zeros;
  good.gate_scales = good.up_scales = good.down_scales = zeros;
  CHECK_OK(sy_layer_load_expert(layer, 0, &good));
  WEIGHTS_REFUSED(weights.gate_global = NAN, "weights.gate_global is nan", "finite");
  WEIGHTS_REFUSED(weights.up_global = INFINITY, "weights.up_global is inf", "finite");
  WEIGHTS_REFUSED(weights.down_global = -1.0f, "weights.down_global is -1", "0 or more");
  sy_layer_destroy(layer);
  sy_group_destroy(group);
}

/* ---- Groups ---- */

#define GROUP_REFUSED(change, ...)                                                         \
  do {                                                                                     \
    sy_group_desc desc = SY_GROUP_DESC_INIT;                                               \
    sy_group *group = NULL;                                                                \
    change;                                                                                \
    CHECK_FAILS(sy_group_create_local(&desc, &group), NULL, SY_ERR_ARGUMENT, __VA_ARGS__); \
    CHECK(group == NULL);                                                                  \
  } while (0)

TEST(groups_out_of_range_are_refused) {
  GROUP_REFUSED(desc.timeout_ms = 0, "timeout_ms is 0", "above 0");
  GROUP_REFUSED(desc.load_timeout_ms = -1, "load_timeout_ms -1", "above 0");
  GROUP_REFUSED(desc.num_threads = -1, "num_threads is -1", "0 to 4096");
  GROUP_REFUSED(desc.num_threads = 4097, "num_threads is 4097", "0 to 4096");
  GROUP_REFUSED(desc.struct_size = 3, "SY_GROUP_DESC_INIT");
  setenv("SWITCHYARD_CPU_LEVEL", "abacus", 1);
  GROUP_REFUSED((void)0, "SWITCHYARD_CPU_LEVEL is 'abacus'", "generic");
  CHECK_STR_HAS(sy_backend(), "abacus");
  unsetenv("SWITCHYARD_CPU_LEVEL");
  sy_group_destroy(NULL);
}

TEST(an_aborted_group_is_dead) {
  const struct call_options options = spoil_options();
  struct subject s;
  if (subject_open(&s, &options)) {
    CHECK_OK(sy_group_poll(s.group));
    CHECK_OK(sy_group_wait(s.group, NULL, 10));
    CHECK_FAILS(sy_group_wait(s.group, NULL, -1), s.group, SY_ERR_ARGUMENT, "timeout_ms (-1)");
    sy_group_abort(s.group);
    sy_group_abort(s.group);
    CHECK_FAILS(layer_call_forward(&s.call), s.group, SY_ERR_PEER, "sy_group_abort");
    CHECK_STATUS(start(&s), SY_ERR_PEER);
    CHECK_STATUS(sy_dispatch_finish(s.group), SY_ERR_PEER);
    CHECK_STATUS(sy_group_reserve(s.group, s.call.plan, 1), SY_ERR_PEER);
    CHECK_STATUS(sy_group_poll(s.group), SY_ERR_PEER);
    CHECK_STATUS(sy_group_wait(s.group, NULL, 10), SY_ERR_PEER);
    CHECK(layer_call_is_untouched(&s.call));
  }
  subject_close(&s);
}

/* What is still fenced or at work there shows. */
static void use_scratch(const struct subject *s) {
  if (!s->call.scratch_on_device) {
    memset(s->call.scratch, 0, s->call.scratch_bytes);
  }
}

TEST(a_group_may_be_aborted_between_halves) {
  const struct call_options options = spoil_options();
  struct subject s;
  if (subject_open(&s, &options)) {
    CHECK_OK(start(&s));
    CHECK_OK(sy_dispatch_finish(s.group));
    sy_group_abort(s.group);
    CHECK_STATUS(sy_experts(s.group), SY_ERR_PEER);
    CHECK(layer_call_is_untouched(&s.call));
    use_scratch(&s); /* the caller's again, fences and all */
  }
  subject_close(&s);
}

TEST(a_group_may_be_destroyed_between_halves) {
  const struct call_options options = spoil_options();
  struct subject s;
  if (subject_open(&s, &options)) {
    CHECK_OK(start(&s));
    layer_rank_close(&s.rank);
    sy_group_destroy(s.group);
    s.group = NULL;
    use_scratch(&s);
    CHECK(layer_call_is_untouched(&s.call));
  }
  subject_close(&s);
}

TEST(every_status_has_a_name_and_a_text) {
  CHECK_EQ_STR(sy_status_name(SY_ERR_PEER), "SY_ERR_PEER");
  CHECK_STR_HAS(sy_status_text(SY_ERR_PEER), "missing");
  CHECK_EQ_STR(sy_status_name(SY_OK), "SY_OK");
  CHECK_EQ_STR(sy_status_name((sy_status)999), "unknown status");
  CHECK_EQ_STR(sy_status_text((sy_status)-1), "unknown status");
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", SY_VERSION_MAJOR, SY_VERSION_MINOR,
           SY_VERSION_PATCH);
  CHECK_EQ_STR(sy_version(), version);
  CHECK(sy_backend()[0] != '\0');
}
