/* Continues prompts. Prompt j belongs to rank j mod W. A rank runs all its prompts in one batch,
 * then steps its sequences together, one token each. Every rank knows every prompt, so all know how
 * many steps there are; a rank without prompts takes part with no tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "decoder.h"
#include "report.h"
#include "sample.h"
#include "session.h"

/* One of this rank's sequences. */
struct continuation {
  struct lm_sequence cache;
  int32_t prompt_idx;
  int32_t position; /* of the token to come */
};

struct generate {
  struct lm_session *session;
  int32_t max_own; /* ceil(num_prompts / W): sequences of the ranks that have most */
  int32_t num_own;
  int64_t prompt_tokens; /* of this rank */
  int32_t num_bytes;     /* to generate for each prompt */
  struct continuation *own;
  struct lm_token *tokens; /* [max(prompt_tokens, num_own)] */
  struct lm_decoder decoder;
  sy_plan *prefill, *decode;
  uint8_t *latest;     /* [max_own] the newest byte of each own sequence */
  uint8_t *all_latest; /* [W, max_own] on rank 0 */
  uint8_t *text;       /* [num_prompts, num_bytes] on rank 0 */
};

static int32_t prompt_length(const struct generate *g, int32_t prompt_idx) {
  return (int32_t)strlen(g->session->options->prompts[prompt_idx]);
}

static int64_t tokens_of_rank(const struct generate *g, int32_t rank) {
  int64_t tokens = 0;
  for (int32_t j = rank; j < g->session->options->num_prompts; j += g->session->team->world) {
    tokens += prompt_length(g, j);
  }
  return tokens;
}

/* How many bytes every prompt gets, so that the longest still fits the model. The last byte is
 * never run, and so needs no position. */
static enum lm_exit settle_length(struct generate *g) {
  const struct lm_options *options = g->session->options;
  const int32_t positions = g->session->model.config.max_positions;
  int32_t longest = 0;
  for (int32_t j = 1; j < options->num_prompts; ++j) {
    longest = prompt_length(g, j) > prompt_length(g, longest) ? j : longest;
  }
  const int32_t length = prompt_length(g, longest);
  const int32_t room = positions - length + 1;
  if (room < 1) {
    return lm_fail(g->session->team, LM_USAGE,
                   "--prompt: prompt %d has %d bytes; this model's range is 1 to %d", longest + 1,
                   length, positions);
  }
  if (options->max_tokens > room) {
    return lm_fail(g->session->team, LM_USAGE,
                   "--max-tokens: %lld is too much after prompt %d of %d bytes; with this model's "
                   "%d positions the range is 1 to %d",
                   (long long)options->max_tokens, longest + 1, length, positions, room);
  }
  const int32_t usual = room < LM_DEFAULT_MAX_TOKENS ? room : LM_DEFAULT_MAX_TOKENS;
  g->num_bytes = options->max_tokens == 0 ? usual : (int32_t)options->max_tokens;
  return LM_OK;
}

static bool create_sequences(struct generate *g) {
  const struct lm_team *team = g->session->team;
  g->own = calloc((size_t)g->max_own, sizeof *g->own);
  if (g->own == NULL) {
    return false;
  }
  for (int32_t j = team->rank; j < g->session->options->num_prompts; j += team->world) {
    struct continuation *c = &g->own[g->num_own++];
    c->prompt_idx = j;
    if (!lm_sequence_create(&c->cache, &g->session->model.config,
                            prompt_length(g, j) + g->num_bytes)) {
      return false;
    }
  }
  return true;
}

static enum lm_exit set_up(struct generate *g) {
  struct lm_session *session = g->session;
  const struct lm_team *team = session->team;
  const int32_t num_prompts = session->options->num_prompts;
  enum lm_exit code = settle_length(g);
  if (g->num_bytes < 1) {
    return code;
  }
  int64_t most_tokens = 0;
  for (int32_t rank = 0; rank < team->world; ++rank) {
    const int64_t tokens = tokens_of_rank(g, rank);
    most_tokens = tokens > most_tokens ? tokens : most_tokens;
  }
  g->max_own = (num_prompts + team->world - 1) / team->world;
  g->prompt_tokens = tokens_of_rank(g, team->rank);
  const size_t latest = (size_t)g->max_own;
  g->tokens = calloc((size_t)g->prompt_tokens + 1, sizeof *g->tokens);
  g->latest = calloc(latest, 1);
  g->all_latest = calloc(latest, (size_t)team->world);
  g->text = calloc((size_t)num_prompts, (size_t)g->num_bytes);
  const bool sequences = create_sequences(g);
  const bool decoder = lm_decoder_create(&g->decoder, &session->model, g->prompt_tokens);
  if (!sequences || !decoder || g->tokens == NULL || g->latest == NULL || g->all_latest == NULL ||
      g->text == NULL) {
    return lm_fail(session->team, LM_OTHER, "out of memory for %d sequences", g->max_own);
  }
  code = lm_session_plan(session, most_tokens, &g->prefill);
  return code == LM_OK ? lm_session_plan(session, g->max_own, &g->decode) : code;
}

static void tear_down(struct generate *g) {
  for (int32_t i = 0; i < g->num_own; ++i) {
    lm_sequence_destroy(&g->own[i].cache);
  }
  sy_plan_destroy(g->prefill);
  sy_plan_destroy(g->decode);
  lm_decoder_destroy(&g->decoder);
  free(g->own);
  free(g->tokens);
  free(g->latest);
  free(g->all_latest);
  free(g->text);
}

static enum lm_exit run(struct generate *g, const sy_plan *plan, int64_t num_tokens) {
  const sy_status status = lm_decoder_run(&g->decoder, plan, g->tokens, num_tokens);
  return status == SY_OK ? LM_OK : lm_fail_status(g->session->team, status, LM_OTHER, "generating");
}

/* Chooses the byte that follows a token of the last batch. */
static void choose(struct generate *g, int32_t own_idx, int64_t token) {
  float logits[LM_VOCABULARY];
  const struct continuation *c = &g->own[own_idx];
  lm_decoder_logits(&g->decoder, token, 1, logits);
  g->latest[own_idx] = lm_sample(g->session->options, logits, c->prompt_idx, c->position);
}

static enum lm_exit read_prompts(struct generate *g) {
  int64_t count = 0;
  for (int32_t i = 0; i < g->num_own; ++i) {
    struct continuation *c = &g->own[i];
    const char *prompt = g->session->options->prompts[c->prompt_idx];
    for (; prompt[c->position] != '\0'; ++c->position) {
      g->tokens[count++] = (struct lm_token){&c->cache, c->position, (uint8_t)prompt[c->position]};
    }
  }
  const enum lm_exit code = run(g, g->prefill, count);
  int64_t last = -1;
  for (int32_t i = 0; i < g->num_own && code == LM_OK; ++i) {
    last += g->own[i].position;
    choose(g, i, last);
  }
  return code;
}

static enum lm_exit decode_step(struct generate *g) {
  for (int32_t i = 0; i < g->num_own; ++i) {
    struct continuation *c = &g->own[i];
    g->tokens[i] = (struct lm_token){&c->cache, c->position++, g->latest[i]};
  }
  const enum lm_exit code = run(g, g->decode, g->num_own);
  for (int32_t i = 0; i < g->num_own && code == LM_OK; ++i) {
    choose(g, i, i);
  }
  return code;
}

static void print_heading(const struct generate *g, int32_t prompt_idx) {
  const struct lm_options *options = g->session->options;
  printf("--- prompt %d of %d, rank %d ---\n%s", prompt_idx + 1, options->num_prompts,
         prompt_idx % g->session->team->world, options->prompts[prompt_idx]);
  fflush(stdout);
}

/* Rank 0 keeps byte n of every text, and prints that of the first prompt at once. */
static enum lm_exit collect(struct generate *g, int32_t n) {
  const struct lm_options *options = g->session->options;
  struct lm_team *team = g->session->team;
  const enum lm_exit code = lm_team_gather(team, g->latest, (size_t)g->max_own, g->all_latest);
  if (code != LM_OK || team->rank != 0) {
    return code;
  }
  for (int32_t j = 0; j < options->num_prompts; ++j) {
    g->text[(int64_t)j * g->num_bytes + n] =
        g->all_latest[j % team->world * g->max_own + j / team->world];
  }
  if (!options->json) {
    putchar(g->text[n]);
    fflush(stdout);
  }
  return LM_OK;
}

static enum lm_exit generate_text(struct generate *g) {
  enum lm_exit code = lm_session_reserve(g->session, g->prefill);
  if (code == LM_OK) {
    code = lm_session_reserve(g->session, g->decode);
  }
  if (code == LM_OK && g->session->team->rank == 0 && !g->session->options->json) {
    print_heading(g, 0);
  }
  if (code == LM_OK) {
    code = read_prompts(g);
  }
  for (int32_t n = 0; n < g->num_bytes && code == LM_OK; ++n) {
    code = n == 0 ? LM_OK : decode_step(g);
    if (code == LM_OK) {
      code = collect(g, n);
    }
  }
  return code;
}

/* Bytes as the characters U+0000 .. U+00FF: JSON has no others that hold any byte. */
static json_t *json_bytes(const void *bytes, int64_t count) {
  const unsigned char *source = bytes;
  char *utf8 = malloc(2 * (size_t)count + 1);
  if (utf8 == NULL) {
    return NULL;
  }
  size_t used = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (source[i] < 0x80) {
      utf8[used++] = (char)source[i];
    } else {
      utf8[used++] = (char)(0xC0 | source[i] >> 6);
      utf8[used++] = (char)(0x80 | (source[i] & 0x3F));
    }
  }
  json_t *string = json_stringn(utf8, used);
  free(utf8);
  return string;
}

static json_t *texts_json(const struct generate *g) {
  const struct lm_options *options = g->session->options;
  json_t *texts = json_array();
  for (int32_t j = 0; j < options->num_prompts; ++j) {
    json_array_append_new(texts,
                          json_pack("{s:o, s:o, s:i}", "prompt",
                                    json_bytes(options->prompts[j], prompt_length(g, j)), "text",
                                    json_bytes(g->text + (int64_t)j * g->num_bytes, g->num_bytes),
                                    "rank", (int)(j % g->session->team->world)));
  }
  return texts;
}

static enum lm_exit print_json(const struct generate *g, const struct lm_report *report) {
  json_t *object = json_pack("{s:o, s:s, s:s}", "texts", texts_json(g), "prefill_strategy",
                             lm_strategy_name(lm_plan_strategy(g->prefill)), "decode_strategy",
                             lm_strategy_name(lm_plan_strategy(g->decode)));
  json_object_update_new(object, lm_report_json(report, g->session->options));
  return lm_print_json(g->session->team, object);
}

/* mpirun forwards stdout and stderr apart, in the order in which it happens to look at them: the
 * texts get a moment's start, so that the table does not appear within them. */
static void let_text_go_first(int32_t world) {
  fflush(stdout);
  if (world > 1) {
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
  }
}

/* The first text is there already. */
static enum lm_exit print(const struct generate *g, const struct lm_report *report) {
  const struct lm_options *options = g->session->options;
  if (options->json) {
    return print_json(g, report);
  }
  for (int32_t j = 1; j < options->num_prompts; ++j) {
    putchar('\n');
    print_heading(g, j);
    fwrite(g->text + (int64_t)j * g->num_bytes, 1, (size_t)g->num_bytes, stdout);
  }
  putchar('\n');
  let_text_go_first(report->world);
  const int64_t bytes = (int64_t)options->num_prompts * g->num_bytes;
  fprintf(stderr, "\n%lld bytes, %.1f per second; ", (long long)bytes,
          (double)bytes / report->seconds);
  fprintf(stderr, "world %d, %s, %s %s, prompts %s, then %s\n\n", report->world,
          lm_quant_name(options->quant), lm_combine_name(options->combine),
          lm_return_name(options->return_dtype), lm_strategy_name(lm_plan_strategy(g->prefill)),
          lm_strategy_name(lm_plan_strategy(g->decode)));
  lm_report_print(report, stderr);
  return LM_OK;
}

enum lm_exit lm_generate(struct lm_session *session) {
  struct generate g = {.session = session};
  struct lm_report report = {0};
  struct lm_team *team = session->team;
  enum lm_exit code = lm_session_open(session);
  if (code == LM_OK) {
    code = lm_team_agree(team, set_up(&g));
  }
  const double begun = lm_seconds();
  if (code == LM_OK) {
    code = lm_team_agree(team, generate_text(&g));
  }
  report.seconds = lm_seconds() - begun;
  if (code == LM_OK) {
    code = lm_team_agree(team, lm_report_gather(&report, team, session->group));
  }
  if (code == LM_OK) {
    code = lm_team_agree(team, team->rank == 0 ? print(&g, &report) : LM_OK);
  }
  lm_report_destroy(&report);
  tear_down(&g);
  return code;
}
