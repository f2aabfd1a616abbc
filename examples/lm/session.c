#include "session.h"

#include <stdio.h>
#include <switchyard_mpi.h>

#include "launch/fingerprint.h"

/* The GPU of this rank, or -1: the CPU. Collective. */
static enum lm_exit choose_device(struct lm_session *session, int32_t *device_out) {
  struct lm_team *team = session->team;
  const enum lm_device wanted = session->options->device;
  char why[512] = "";
  *device_out = -1;
  if (wanted == LM_DEVICE_CPU || (wanted == LM_DEVICE_AUTO && !lm_gpu_is_built())) {
    return LM_OK;
  }
  int32_t device = team->bind.device;
  const bool found =
      lm_gpu_find(team->bind.local_rank, wanted == LM_DEVICE_CUDA, &device, why, sizeof why);
  if (wanted == LM_DEVICE_CUDA) {
    *device_out = device;
    return found ? LM_OK : lm_fail(team, LM_USAGE, "--device cuda: %s", why);
  }
  bool everywhere = false;
  const enum lm_exit code = lm_team_all(team, found, &everywhere);
  if (code == LM_OK && !everywhere && team->rank == 0) {
    fprintf(stderr, "lm: the experts run on the CPU: %s\n",
            found ? "another rank has no GPU for itself" : why);
  }
  *device_out = everywhere ? device : -1;
  return code;
}

static enum lm_exit create_group(struct lm_session *session) {
  struct lm_team *team = session->team;
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.timeout_ms = team->timeout_ms;
  desc.load_timeout_ms = LM_LOAD_TIMEOUT_MS;
  desc.num_threads = team->threads;
  desc.progress = progress_callback;
  desc.user = &session->model.loading;
  enum lm_exit code = lm_team_agree(team, choose_device(session, &desc.device));
  if (code != LM_OK) {
    return code;
  }
  const sy_status status = desc.device >= 0
                               ? lm_gpu_group(team, &desc, &session->group)
                               : sy_group_create_mpi(team->comm, &desc, &session->group);
  return lm_team_agree(
      team, status == SY_OK ? LM_OK : lm_fail_status(team, status, LM_OTHER, "creating the group"));
}

/* Ranks that read different checkpoints of one shape would compute something, and nobody would know
 * what. */
static enum lm_exit agree_on_checkpoint(struct lm_session *session) {
  uint64_t fingerprint = 0;
  char error[LAUNCH_ERROR_BYTES];
  const enum lm_exit code = fingerprint_folder(session->options->model, &fingerprint, error)
                                ? LM_OK
                                : lm_fail(session->team, LM_INPUT, "--model: %s", error);
  return lm_team_agree_on(session->team, code,
                          lm_hash(LM_HASH_SEED, &fingerprint, sizeof fingerprint),
                          "another checkpoint");
}

enum lm_exit lm_session_open(struct lm_session *session) {
  struct lm_team *team = session->team;
  const struct lm_options *options = session->options;
  enum lm_exit code = create_group(session);
  if (code == LM_OK) {
    code = agree_on_checkpoint(session);
  }
  if (code == LM_OK) {
    code = lm_model_load(team, session->group, options->model, options->quant, &session->model);
  }
  return code;
}

void lm_session_close(struct lm_session *session) {
  lm_model_destroy(&session->model);
  sy_group_destroy(session->group);
}

enum lm_exit lm_session_plan(struct lm_session *session, int64_t max_tokens, sy_plan **plan_out) {
  const struct lm_options *options = session->options;
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &session->model.config.shape;
  desc.world = session->team->world;
  desc.rank = session->team->rank;
  desc.max_tokens = max_tokens;
  desc.wave_tokens = options->wave_tokens;
  desc.chunk_rows = options->chunk_rows;
  desc.strategy = options->strategy;
  desc.link = options->link;
  desc.combine = options->combine;
  desc.return_dtype = options->return_dtype;
  const sy_status status = sy_plan_create(&desc, plan_out);
  return status == SY_OK ? LM_OK
                         : lm_fail_status(session->team, status, LM_USAGE, "planning the exchange");
}

enum lm_exit lm_session_reserve(struct lm_session *session, const sy_plan *plan) {
  const sy_status status = sy_group_reserve(session->group, plan, 1);
  return status == SY_OK
             ? LM_OK
             : lm_fail_status(session->team, status, LM_OTHER, "making room for the exchange");
}

sy_strategy lm_plan_strategy(const sy_plan *plan) {
  sy_plan_info info = SY_PLAN_INFO_INIT;
  sy_plan_query(plan, &info);
  return info.strategy;
}
