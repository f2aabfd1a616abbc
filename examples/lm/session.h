/* What both commands work with: the ranks, the options, the group and the model on it. */
#ifndef LM_SESSION_H
#define LM_SESSION_H

#include <switchyard.h>

#include "model.h"
#include "options.h"
#include "team.h"

/* Zero but for team and options until it is opened. */
struct lm_session {
  struct lm_team *team;
  const struct lm_options *options;
  sy_group *group;
  struct lm_model model;
};

/* Creates the group and loads the model. Collective; already agreed on. The session can be closed
 * whether it was opened or not. */
enum lm_exit lm_session_open(struct lm_session *session);
void lm_session_close(struct lm_session *session);

/* A plan for batches of at most max_tokens tokens on any rank. Local. */
enum lm_exit lm_session_plan(struct lm_session *session, int64_t max_tokens, sy_plan **plan_out);

/* Makes room for a plan. Collective. */
enum lm_exit lm_session_reserve(struct lm_session *session, const sy_plan *plan);

/* The strategy that the plan has settled on. */
sy_strategy lm_plan_strategy(const sy_plan *plan);

/* The commands: each opens the session, runs, and prints on rank 0. Collective;
 * already agreed on. */
enum lm_exit lm_generate(struct lm_session *session);
enum lm_exit lm_score(struct lm_session *session);

#endif
