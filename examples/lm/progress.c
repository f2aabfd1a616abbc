#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#include "team.h"

#define BAR_CHARACTERS 40
#define SECONDS_BETWEEN_DRAWINGS 0.1
#define SECONDS_BETWEEN_LINES 2.0

void lm_progress_begin(struct lm_progress *progress, bool shown, uint64_t total) {
  const double now = lm_seconds();
  *progress = (struct lm_progress){.shown = shown,
                                   .terminal = isatty(STDERR_FILENO) == 1,
                                   .total = total,
                                   .begun = now,
                                   .drawn = now};
}

static void draw(struct lm_progress *progress, uint64_t done, double now) {
  const double share = progress->total == 0 ? 1.0 : (double)done / (double)progress->total;
  const double megabytes = 1e-6 * (double)done;
  const double rate = megabytes / (now - progress->begun + 1e-9);
  if (!progress->terminal) {
    fprintf(stderr, "loading: %.1f of %.1f MB, %.0f MB/s\n", megabytes,
            1e-6 * (double)progress->total, rate);
  } else {
    char bar[BAR_CHARACTERS + 1];
    const int filled = (int)(share * BAR_CHARACTERS);
    for (int i = 0; i < BAR_CHARACTERS; ++i) {
      bar[i] = i < filled ? '#' : '.';
    }
    bar[BAR_CHARACTERS] = '\0';
    fprintf(stderr, "\rloading [%s] %3.0f %%  %.1f MB  %.0f MB/s ", bar, 100.0 * share, megabytes,
            rate);
    fflush(stderr);
  }
  progress->drawn = now;
}

static void draw_if_due(struct lm_progress *progress, uint64_t done) {
  const double now = lm_seconds();
  const double pause = progress->terminal ? SECONDS_BETWEEN_DRAWINGS : SECONDS_BETWEEN_LINES;
  if (progress->shown && now - progress->drawn >= pause) {
    draw(progress, done, now);
  }
}

void lm_progress_add(struct lm_progress *progress, uint64_t bytes) {
  progress->done += bytes;
  draw_if_due(progress, progress->done);
}

void lm_progress_callback(void *user, const char *what, uint64_t done_bytes, uint64_t total_bytes) {
  (void)what;
  (void)total_bytes;
  struct lm_progress *progress = user;
  draw_if_due(progress, progress->done + done_bytes);
}

void lm_progress_end(struct lm_progress *progress) {
  if (!progress->shown) {
    return;
  }
  draw(progress, progress->done, lm_seconds());
  if (progress->terminal) {
    fputc('\n', stderr);
  }
}
