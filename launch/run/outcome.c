#include "launch/run/outcome.h"

#include <stdlib.h>
#include <string.h>

#include "launch/run/run.h"

bool outcome_make(struct outcome *outcome, int num_ranks) {
  *outcome = (struct outcome){.num_ranks = num_ranks,
                              .first_failed = -1,
                              .ranks = calloc((size_t)num_ranks, sizeof *outcome->ranks)};
  return outcome->ranks != NULL;
}

void outcome_free(struct outcome *outcome) { free(outcome->ranks); }

static bool is_failure(const struct report *report) {
  return report->kind != REPORT_BEGUN && (report->kind != REPORT_EXITED || report->value != 0);
}

void outcome_note(struct outcome *outcome, const struct report *report, int64_t now_ns) {
  if (report->rank >= outcome->num_ranks || outcome->is_closed) {
    return;
  }
  struct rank_outcome *rank = &outcome->ranks[report->rank];
  outcome->num_begun += rank->has_begun ? 0 : 1;
  rank->has_begun = true;
  rank->last = *report;
  if (report->kind != REPORT_BEGUN && !rank->has_ended) {
    rank->has_ended = true;
    ++outcome->num_ended;
  }
  if (is_failure(report) && outcome->first_failed < 0) {
    outcome->first_failed = report->rank;
    outcome->failed_ns = now_ns;
  }
}

void outcome_close(struct outcome *outcome) { outcome->is_closed = true; }

int outcome_num_ended(const struct outcome *outcome) { return outcome->num_ended; }

/* ---- Telling -------------------------------------------------------------------------------- */

static bool is_alike(const struct rank_outcome *a, const struct rank_outcome *b) {
  if (a->has_begun != b->has_begun || a->has_ended != b->has_ended) {
    return false;
  }
  return !a->has_begun ||
         (strcmp(a->last.host, b->last.host) == 0 &&
          (!a->has_ended || (a->last.kind == b->last.kind && a->last.value == b->last.value)));
}

static void print_fate(const struct rank_outcome *rank, FILE *out) {
  const struct report *last = &rank->last;
  if (!rank->has_begun) {
    fputs(": not heard of\n", out);
  } else if (!rank->has_ended) {
    fprintf(out, " on %s: not heard to have ended\n", last->host);
  } else if (last->kind == REPORT_SIGNALLED) {
    fprintf(out, " on %s: ended by signal %d (%s)\n", last->host, last->value,
            strsignal(last->value));
  } else if (last->kind == REPORT_STOPPED) {
    fprintf(out, " on %s: stopped for %d s, and killed\n", last->host, last->value);
  } else {
    fprintf(out, " on %s: left with exit code %d\n", last->host, last->value);
  }
}

/* One line for this rank and all that ended like it. */
static void print_like(const struct outcome *outcome, const struct rank_outcome *like, FILE *out) {
  bool is_first = true;
  for (int r = 0; r < outcome->num_ranks; ++r) {
    if (is_alike(&outcome->ranks[r], like)) {
      fprintf(out, "%s%d", is_first ? "switchyard-run: rank " : ", ", r);
      is_first = false;
    }
  }
  print_fate(like, out);
}

/* Whether a lower rank ended alike, or the one that failed first: then it is told of. */
static bool is_told(const struct outcome *outcome, int rank) {
  const struct rank_outcome *ranks = outcome->ranks;
  bool told = outcome->first_failed >= 0 && is_alike(&ranks[outcome->first_failed], &ranks[rank]);
  for (int r = 0; r < rank && !told; ++r) {
    told = is_alike(&ranks[r], &ranks[rank]);
  }
  return told;
}

static int code_of(const struct report *report) {
  switch (report->kind) {
  case REPORT_SIGNALLED:
    return RUN_SIGNAL_BASE + report->value;
  case REPORT_STOPPED:
    return RUN_UNHEARD;
  default:
    return report->value;
  }
}

int outcome_print(const struct outcome *outcome, FILE *out) {
  if (outcome->num_ended == outcome->num_ranks && outcome->first_failed < 0) {
    return 0;
  }
  if (outcome->first_failed >= 0) {
    print_like(outcome, &outcome->ranks[outcome->first_failed], out);
  }
  for (int r = 0; r < outcome->num_ranks; ++r) {
    if (!is_told(outcome, r)) {
      print_like(outcome, &outcome->ranks[r], out);
    }
  }
  return outcome->first_failed < 0 ? 0 : code_of(&outcome->ranks[outcome->first_failed].last);
}
