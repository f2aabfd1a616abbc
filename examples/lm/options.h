/* The command line of lm. */
#ifndef LM_OPTIONS_H
#define LM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <switchyard.h>

#include "config.h"
#include "device.h"
#include "team.h"

enum lm_command { LM_GENERATE = 1, LM_SCORE = 2, LM_HELP = 4, LM_VERSION = 8 };

#define LM_DEFAULT_MAX_TOKENS 200
#define LM_MAX_TOKENS_LIMIT 1048576

struct lm_options {
  enum lm_command command;
  bool json;
  const char *model;
  enum lm_quant quant;
  sy_combine combine;
  sy_dtype return_dtype;
  sy_strategy strategy;
  enum lm_device device;
  sy_link link;
  int64_t wave_tokens; /* 0: from the plan's budget */
  int64_t chunk_rows;  /* 0: from the plan's budget */
  int32_t threads;     /* 0: this rank's share of the cores */
  int32_t timeout_ms;

  /* generate */
  const char **prompts; /* [num_prompts], at least one */
  int32_t num_prompts;
  int64_t max_tokens; /* 0: LM_DEFAULT_MAX_TOKENS, or fewer where the model has no more room */
  double temperature; /* 0: greedy */
  double top_p;
  uint64_t seed;

  /* score */
  const char *text;
  int64_t max_windows;
};

/* Reads the command line; argv must outlive the options. Prints nothing: lm_fail has
 * the sentence. */
enum lm_exit lm_options_parse(struct lm_team *team, int argc, char **argv,
                              struct lm_options *options);
void lm_options_release(struct lm_options *options);

/* Of what ranks must have in common: all that decides which calls they make, and what the text is. */
uint32_t lm_options_hash(const struct lm_options *options);

void lm_options_print_help(void);

/* Names as on the command line. */
const char *lm_quant_name(enum lm_quant quant);
const char *lm_combine_name(sy_combine combine);
const char *lm_return_name(sy_dtype return_dtype);
const char *lm_strategy_name(sy_strategy strategy);

#endif
