/* lm: a Qwen3-MoE language model whose expert layers run on Switchyard.
 *
 *   main -> session (group, model) -> generate or score -> decoder -> attention, router, sy_forward
 */
#include <stdio.h>

#include "options.h"
#include "session.h"
#include "team.h"

static enum lm_exit run_command(struct lm_team *team, const struct lm_options *options) {
  if (options->timeout_ms > 0) {
    team->timeout_ms = options->timeout_ms;
  }
  if (options->threads > 0) {
    team->threads = options->threads;
  }
  struct lm_session session = {.team = team, .options = options};
  const enum lm_exit code =
      options->command == LM_SCORE ? lm_score(&session) : lm_generate(&session);
  lm_session_close(&session);
  return code;
}

static enum lm_exit run(struct lm_team *team, const struct lm_options *options) {
  switch (options->command) {
  case LM_HELP:
    if (team->rank == 0) {
      lm_options_print_help();
    }
    return LM_OK;
  case LM_VERSION:
    if (team->rank == 0) {
      printf("lm (Switchyard) %s\n", sy_version());
    }
    return LM_OK;
  default:
    return run_command(team, options);
  }
}

static enum lm_exit check_output(struct lm_team *team) {
  if (fflush(stdout) != 0 || ferror(stdout)) {
    return lm_fail(team, LM_OTHER, "standard output cannot be written");
  }
  return LM_OK;
}

int main(int argc, char **argv) {
  struct lm_team team;
  struct lm_options options = {0};
  enum lm_exit code = lm_team_join(&team, &argc, &argv);
  if (code == LM_OK) {
    code = lm_options_parse(&team, argc, argv, &options);
  }
  code = lm_team_agree_on(&team, code, lm_options_hash(&options), "other options");
  if (code == LM_OK) {
    code = run(&team, &options);
  }
  if (code == LM_OK) {
    code = lm_team_agree(&team, check_output(&team));
  }
  lm_options_release(&options);
  return lm_team_leave(&team, code);
}
