/* The ranks of a run as a team: one way to fail together, and to speak with one voice.
 *
 * Every rank walks the same sequence of lm_team_agree and lm_team_gather. Work between two of them
 * may fail on one rank alone; the next lm_team_agree tells all. No wait here is without a deadline:
 * a rank that stays away ends the run of the others. */
#ifndef LM_TEAM_H
#define LM_TEAM_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <switchyard.h>

#include "launch/bind.h"

/* Exit codes of the program. */
enum lm_exit {
  LM_OK = 0,
  LM_OTHER = 1, /* out of memory, or output that cannot be written */
  LM_USAGE = 2, /* a wrong flag, value or combination */
  LM_INPUT = 3, /* a bad input file */
  LM_PEER = 4   /* another rank, or the exchange, failed */
};

#define LM_TEXT_BYTES 1024

struct lm_team {
  MPI_Comm comm;
  int32_t rank;
  int32_t world;
  int32_t threads;         /* of this rank */
  struct bind_report bind; /* this rank's cores, and why these */
  int32_t timeout_ms;      /* of one exchange */
  bool dead;               /* peers are lost: nothing may be sent or awaited any more */
  char text[LM_TEXT_BYTES];
  MPI_Request *requests; /* [world] */
};

#define LM_TIMEOUT_MS 30000
#define LM_LOAD_TIMEOUT_MS 600000

/* Takes this rank's cores and starts MPI; also works without mpirun. Collective. */
enum lm_exit lm_team_join(struct lm_team *team, int *argc, char ***argv);

/* Ends MPI where the peers are alive; returns the process's exit code. */
int lm_team_leave(struct lm_team *team, enum lm_exit code);

/* Keeps the sentence for lm_team_agree to print; returns code. */
enum lm_exit lm_fail(struct lm_team *team, enum lm_exit code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with the library's sentence about this thread's last failing call. `what` says what was
 * attempted; bad_call is the code for a call that the library refuses. */
enum lm_exit lm_fail_status(struct lm_team *team, sy_status status, enum lm_exit bad_call,
                            const char *what);

/* Hears whether all ranks are well. Where not, the lowest rank that failed prints its sentence, and
 * all ranks return its code. When peers are lost it prints and ends the process.
 * Collective. */
enum lm_exit lm_team_agree(struct lm_team *team, enum lm_exit mine);

/* The same; and where all are well they must come with the same hash, or it is LM_USAGE: "rank 2 has
 * `other` than rank 0". */
enum lm_exit lm_team_agree_on(struct lm_team *team, enum lm_exit mine, uint32_t common_hash,
                              const char *other);

/* `bytes` from each rank, into all[world * bytes] in rank order on rank 0 (elsewhere all is not
 * touched). Collective. */
enum lm_exit lm_team_gather(struct lm_team *team, const void *mine, size_t bytes, void *all);

/* Whether it is so on every rank. Collective. */
enum lm_exit lm_team_all(struct lm_team *team, bool mine, bool *all_out);

/* FNV-1a, 32 bits. */
#define LM_HASH_SEED UINT32_C(2166136261)
uint32_t lm_hash(uint32_t hash, const void *data, size_t bytes);

/* Seconds on a clock that never goes back. */
double lm_seconds(void);

#endif
