#include "launch/session.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "launch/peers.h"

/* What a rank brings to session_agree. */
struct report {
  int32_t code;
  char command[sizeof(((struct session *)0)->command)];
  char error[SESSION_ERROR_BYTES];
};

int session_open(struct session *session, const char *program, bool takes_place) {
  *session = (struct session){.world = 1};
  snprintf(session->command, sizeof session->command, "%s", program);
  const bool placed = !takes_place || bind_self(false, &session->bind);
  if (!peers_open(&session->rank, &session->world)) {
    return session_fail(session, CLI_PEER, "MPI could not be started");
  }
  return placed ? CLI_OK : session_fail(session, CLI_USAGE, "%s", session->bind.sentence);
}

int session_fail(struct session *session, int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(session->error, sizeof session->error, format, arguments);
  va_end(arguments);
  return code;
}

static int code_of_status(sy_status status) {
  switch (status) {
  case SY_OK:
    return CLI_OK;
  case SY_ERR_ARGUMENT:
  case SY_ERR_ROUTING:
  case SY_ERR_UNSUPPORTED:
  case SY_ERR_OVERFLOW:
  case SY_ERR_TOO_SMALL:
    return CLI_USAGE;
  case SY_ERR_IO:
  case SY_ERR_FORMAT:
    return CLI_BAD_FILE;
  case SY_ERR_MISMATCH:
  case SY_ERR_PEER:
  case SY_ERR_TRANSPORT:
    return CLI_PEER;
  case SY_ERR_STATE:
  case SY_ERR_MEMORY:
  case SY_ERR_DEVICE:
  case SY_ERR_INTERNAL:
    break;
  }
  return CLI_FAILED;
}

int session_fail_status(struct session *session, sy_status status, const char *where) {
  const char *sentence = sy_last_error(NULL);
  return session_fail(session, code_of_status(status), "%s%s", where,
                      sentence[0] != '\0' ? sentence : sy_status_text(status));
}

static void print_error(const struct report *report, const char *ranks, int others) {
  char rest[64] = "";
  if (others > 0) {
    snprintf(rest, sizeof rest, " (%d other rank%s failed too)", others, others == 1 ? "" : "s");
  }
  fprintf(stderr, "%s: %s%s%s\n", report->command, ranks, report->error, rest);
  if (report->code == CLI_USAGE) {
    fprintf(stderr, "Try '%s --help'.\n", report->command);
  }
}

static bool same_report(const struct report *a, const struct report *b) {
  return a->code == b->code && strcmp(a->command, b->command) == 0 &&
         strcmp(a->error, b->error) == 0;
}

/* "rank 3: ", or "ranks 0-2,5: " for all that report the same as `first`, the first that does. */
static void name_ranks(const struct report *all, int world, int first, char *text, size_t bytes) {
  int count = 0;
  size_t used = 0;
  char list[160] = "";
  for (int rank = first; rank < world; ++rank) {
    if (!same_report(&all[first], &all[rank])) {
      continue;
    }
    int last = rank;
    while (last + 1 < world && same_report(&all[first], &all[last + 1])) {
      ++last;
    }
    count += last - rank + 1;
    const char *comma = rank == first ? "" : ",";
    if (used < sizeof list) {
      used += (size_t)(rank == last ? snprintf(list + used, sizeof list - used, "%s%d", comma, rank)
                                    : snprintf(list + used, sizeof list - used, "%s%d-%d", comma,
                                               rank, last));
    }
    rank = last;
  }
  snprintf(text, bytes, "rank%s %s%s: ", count == 1 ? "" : "s", list,
           used < sizeof list ? "" : "...");
}

/* What is wrong with a file is mostly wrong for every rank, in other words for each: the first rank
 * with the worst code speaks for all. */
static void print_worst(const struct report *all, int world, int worst) {
  int first = 0;
  int others = 0;
  while (all[first].code != worst) {
    ++first;
  }
  for (int rank = 0; rank < world; ++rank) {
    others += all[rank].code > CLI_OK && !same_report(&all[first], &all[rank]) ? 1 : 0;
  }
  char ranks[192];
  name_ranks(all, world, first, ranks, sizeof ranks);
  print_error(&all[first], ranks, others);
}

/* The worst code of all ranks: any error before CLI_DONE, and that before CLI_OK. */
static int worst_code(const struct report *all, int world) {
  int worst = CLI_OK;
  bool any_done = false;
  for (int rank = 0; rank < world; ++rank) {
    worst = all[rank].code > worst ? all[rank].code : worst;
    any_done = any_done || all[rank].code == CLI_DONE;
  }
  return worst == CLI_OK && any_done ? CLI_DONE : worst;
}

/* The same on every rank; rank 0 prints what is wrong. */
static int conclude(struct session *session, const struct report *all) {
  const int worst = worst_code(all, session->world);
  if (worst > CLI_OK) {
    session->error[0] = '\0';
    if (session->rank == 0) {
      print_worst(all, session->world, worst);
    }
    return worst;
  }
  for (int rank = 1; rank < session->world; ++rank) {
    if (strcmp(all[rank].command, all[0].command) != 0) {
      if (session->rank == 0) {
        fprintf(stderr, "%s: all ranks must run the same command; rank %d runs '%s'\n",
                session->command, rank, all[rank].command);
      }
      return CLI_USAGE;
    }
  }
  return worst;
}

int session_agree(struct session *session, int code) {
  if (session->world == 1) {
    return code;
  }
  struct report *all = calloc((size_t)session->world + 1, sizeof *all);
  if (all == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory for the reports of %d ranks",
                        session->world);
  }
  struct report *mine = &all[session->world];
  mine->code = code;
  memcpy(mine->command, session->command, sizeof mine->command);
  memcpy(mine->error, session->error, sizeof mine->error);
  const int common = peers_allgather(mine, all, sizeof *mine)
                         ? conclude(session, all)
                         : session_fail(session, CLI_PEER, "the ranks cannot reach each other");
  free(all);
  return common;
}

int session_close(struct session *session, int code) {
  if (code > CLI_OK && session->error[0] != '\0') {
    struct report report = {.code = code};
    char rank[32] = "";
    memcpy(report.command, session->command, sizeof report.command);
    memcpy(report.error, session->error, sizeof report.error);
    if (session->world > 1) {
      snprintf(rank, sizeof rank, "rank %d: ", session->rank);
    }
    print_error(&report, rank, 0);
    if (session->world > 1) {
      peers_abort(code); /* the others have not agreed, and may be waiting for this rank */
    }
  }
  peers_close();
  return code == CLI_DONE ? CLI_OK : code;
}

void session_print_exit_codes(FILE *out) {
  static const struct {
    int code;
    const char *meaning;
  } exits[] = {
      {CLI_OK, "success"},
      {CLI_FAILED, "anything else went wrong, such as too little memory"},
      {CLI_USAGE, "a wrong option, value or combination"},
      {CLI_BAD_FILE, "a file is missing or malformed, or cannot be read or written"},
      {CLI_PEER, "a rank is missing, or the exchange between ranks failed"},
  };
  fprintf(out, "\nExit codes:\n");
  for (size_t i = 0; i < sizeof exits / sizeof exits[0]; ++i) {
    fprintf(out, "  %d  %s\n", exits[i].code, exits[i].meaning);
  }
}
