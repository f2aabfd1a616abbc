/* Bits per byte of a text. Window j covers bytes 256 j .. 256 j + 256: 256 inputs, each predicting
 * the next byte. Windows are dealt to the ranks in turn; rank 0 adds their sums in window order. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "decoder.h"
#include "report.h"
#include "session.h"

#define WINDOW 256

struct score {
  struct lm_session *session;
  struct lm_decoder decoder;
  struct lm_sequence sequence;
  struct lm_token *tokens; /* [WINDOW] */
  float *logits;           /* f32 [WINDOW, LM_VOCABULARY] */
  sy_plan *plan;
  unsigned char *text; /* [text_bytes] */
  int64_t num_windows;
  int64_t num_steps; /* ceil(num_windows / W): windows of the ranks that have most */
  double *bits;      /* [num_steps] of this rank's windows */
  double *all_bits;  /* [W, num_steps] on rank 0 */
};

static size_t text_bytes(const struct score *score) {
  return (size_t)score->num_windows * WINDOW + 1;
}

/* As much of the text as fills windows. */
static enum lm_exit read_windows(struct score *score, const char *path, FILE *file) {
  struct lm_team *team = score->session->team;
  struct stat info;
  if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
    return lm_fail(team, LM_INPUT, "--text: '%s' is not a file", path);
  }
  const int64_t most = score->session->options->max_windows;
  const int64_t full = (info.st_size - 1) / WINDOW;
  if (full < 1) {
    return lm_fail(team, LM_INPUT, "--text: '%s' has %lld bytes; one window needs %d", path,
                   (long long)info.st_size, WINDOW + 1);
  }
  score->num_windows = full < most ? full : most;
  const size_t needed = text_bytes(score);
  score->text = malloc(needed);
  if (score->text == NULL) {
    return lm_fail(team, LM_OTHER, "out of memory for %zu bytes of text", needed);
  }
  return fread(score->text, 1, needed, file) == needed
             ? LM_OK
             : lm_fail(team, LM_INPUT, "--text: '%s' cannot be read to its end", path);
}

/* Collective: ranks that score another text would be another measurement. */
static enum lm_exit read_text(struct score *score) {
  struct lm_team *team = score->session->team;
  const char *path = score->session->options->text;
  FILE *file = fopen(path, "rb");
  enum lm_exit code;
  if (file == NULL) {
    code = lm_fail(team, LM_INPUT, "--text: '%s' cannot be read", path);
  } else {
    code = read_windows(score, path, file);
    fclose(file);
  }
  const size_t bytes = code == LM_OK ? text_bytes(score) : 0;
  return lm_team_agree_on(team, code, lm_hash(LM_HASH_SEED, score->text, bytes), "another text");
}

static enum lm_exit set_up(struct score *score) {
  struct lm_session *session = score->session;
  struct lm_team *team = session->team;
  const struct lm_config *config = &session->model.config;
  if (config->max_positions < WINDOW) {
    return lm_fail(team, LM_INPUT, "config.json: max_position_embeddings is %d; a window needs %d",
                   config->max_positions, WINDOW);
  }
  const size_t steps = (size_t)((score->num_windows + team->world - 1) / team->world);
  score->num_steps = (int64_t)steps;
  score->tokens = calloc(WINDOW, sizeof *score->tokens);
  score->logits = calloc((size_t)WINDOW * LM_VOCABULARY, sizeof *score->logits);
  score->bits = calloc(steps, sizeof *score->bits);
  score->all_bits = calloc(team->rank == 0 ? (size_t)team->world * steps : 1, sizeof(double));
  const bool sequence = lm_sequence_create(&score->sequence, config, WINDOW);
  const bool decoder = lm_decoder_create(&score->decoder, &session->model, WINDOW);
  if (!sequence || !decoder || score->tokens == NULL || score->logits == NULL ||
      score->bits == NULL || score->all_bits == NULL) {
    return lm_fail(team, LM_OTHER, "out of memory for a window of %d tokens", WINDOW);
  }
  return lm_session_plan(session, WINDOW, &score->plan);
}

static void tear_down(struct score *score) {
  sy_plan_destroy(score->plan);
  lm_decoder_destroy(&score->decoder);
  lm_sequence_destroy(&score->sequence);
  free(score->tokens);
  free(score->logits);
  free(score->bits);
  free(score->all_bits);
  free(score->text);
}

/* -log2 of the probability that these logits give to a byte. */
static double bits_of(const float *logits, unsigned char byte) {
  float largest = logits[0];
  for (int i = 1; i < LM_VOCABULARY; ++i) {
    largest = logits[i] > largest ? logits[i] : largest;
  }
  double sum = 0.0;
  for (int i = 0; i < LM_VOCABULARY; ++i) {
    sum += exp((double)logits[i] - (double)largest);
  }
  return (log(sum) - ((double)logits[byte] - (double)largest)) / log(2.0);
}

/* The own window of one step; a rank that has none takes part with no tokens. */
static enum lm_exit score_step(struct score *score, int64_t step) {
  struct lm_session *session = score->session;
  const int64_t window = step * session->team->world + session->team->rank;
  const unsigned char *text = score->text + window * WINDOW;
  const int64_t num_tokens = window < score->num_windows ? WINDOW : 0;
  for (int32_t p = 0; p < num_tokens; ++p) {
    score->tokens[p] = (struct lm_token){&score->sequence, p, text[p]};
  }
  const sy_status status = lm_decoder_run(&score->decoder, score->plan, score->tokens, num_tokens);
  if (status != SY_OK) {
    return lm_fail_status(session->team, status, LM_OTHER, "scoring");
  }
  lm_decoder_logits(&score->decoder, 0, num_tokens, score->logits);
  for (int64_t p = 0; p < num_tokens; ++p) {
    score->bits[step] += bits_of(score->logits + p * LM_VOCABULARY, text[p + 1]);
  }
  return LM_OK;
}

static enum lm_exit score_windows(struct score *score) {
  enum lm_exit code = lm_session_reserve(score->session, score->plan);
  for (int64_t step = 0; step < score->num_steps && code == LM_OK; ++step) {
    code = score_step(score, step);
  }
  return code == LM_OK ? lm_team_gather(score->session->team, score->bits,
                                        (size_t)score->num_steps * sizeof(double), score->all_bits)
                       : code;
}

static double bits_per_byte(const struct score *score) {
  const int64_t world = score->session->team->world;
  double sum = 0.0;
  for (int64_t window = 0; window < score->num_windows; ++window) {
    sum += score->all_bits[window % world * score->num_steps + window / world];
  }
  return sum / ((double)score->num_windows * WINDOW);
}

static enum lm_exit print(const struct score *score, const struct lm_report *report) {
  const struct lm_options *options = score->session->options;
  struct lm_team *team = score->session->team;
  const char *strategy = lm_strategy_name(lm_plan_strategy(score->plan));
  const double figure = bits_per_byte(score);
  if (!isfinite(figure)) {
    return lm_fail(team, LM_OTHER, "the model's logits are not finite");
  }
  if (options->json) {
    json_t *object = json_pack("{s:f, s:I, s:s}", "bits_per_byte", figure, "windows",
                               (json_int_t)score->num_windows, "strategy", strategy);
    json_object_update_new(object, lm_report_json(report, options));
    return lm_print_json(team, object);
  }
  printf("%.17g bits per byte\n%lld windows of %d bytes; ", figure, (long long)score->num_windows,
         WINDOW);
  printf("world %d, %s, %s %s, %s; %.2f s\n\n", team->world, lm_quant_name(options->quant),
         lm_combine_name(options->combine), lm_return_name(options->return_dtype), strategy,
         report->seconds);
  lm_report_print(report, stdout);
  return LM_OK;
}

enum lm_exit lm_score(struct lm_session *session) {
  struct score score = {.session = session};
  struct lm_report report = {0};
  struct lm_team *team = session->team;
  enum lm_exit code = read_text(&score);
  if (code == LM_OK) {
    code = lm_session_open(session);
  }
  if (code == LM_OK) {
    code = lm_team_agree(team, set_up(&score));
  }
  const double begun = lm_seconds();
  if (code == LM_OK) {
    code = lm_team_agree(team, score_windows(&score));
  }
  report.seconds = lm_seconds() - begun;
  if (code == LM_OK) {
    code = lm_team_agree(team, lm_report_gather(&report, team, session->group));
  }
  if (code == LM_OK) {
    code = lm_team_agree(team, team->rank == 0 ? print(&score, &report) : LM_OK);
  }
  lm_report_destroy(&report);
  tear_down(&score);
  return code;
}
