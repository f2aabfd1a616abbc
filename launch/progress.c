#include "launch/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define BAR_CHARACTERS 40
#define SECONDS_BETWEEN_DRAWINGS 0.1
#define SECONDS_BETWEEN_LINES 2.0

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_begin(struct progress *progress, const char *what, bool shown, uint64_t total) {
  const double now = seconds();
  *progress = (struct progress){.what = what,
                                .shown = shown,
                                .terminal = isatty(STDERR_FILENO) == 1,
                                .total = total,
                                .begun = now,
                                .drawn = now};
}

static void draw(struct progress *progress, uint64_t done, double now) {
  const double share = progress->total == 0 ? 1.0 : (double)done / (double)progress->total;
  const double megabytes = 1e-6 * (double)done;
  const double rate = megabytes / (now - progress->begun + 1e-9);
  if (!progress->terminal) {
    fprintf(stderr, "%s: %.1f of %.1f MB, %.0f MB/s\n", progress->what, megabytes,
            1e-6 * (double)progress->total, rate);
  } else {
    char bar[BAR_CHARACTERS + 1];
    const int filled = (int)(share * BAR_CHARACTERS);
    for (int i = 0; i < BAR_CHARACTERS; ++i) {
      bar[i] = i < filled ? '#' : '.';
    }
    bar[BAR_CHARACTERS] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f %%  %.1f MB  %.0f MB/s ", progress->what, bar, 100.0 * share,
            megabytes, rate);
    fflush(stderr);
  }
  progress->drawn = now;
}

static void draw_if_due(struct progress *progress, uint64_t done) {
  const double now = seconds();
  const double pause = progress->terminal ? SECONDS_BETWEEN_DRAWINGS : SECONDS_BETWEEN_LINES;
  if (progress->shown && now - progress->drawn >= pause) {
    draw(progress, done, now);
  }
}

void progress_add(struct progress *progress, uint64_t bytes) {
  progress->done += bytes;
  draw_if_due(progress, progress->done);
}

void progress_callback(void *user, const char *what, uint64_t done_bytes, uint64_t total_bytes) {
  (void)what;
  (void)total_bytes;
  struct progress *progress = user;
  draw_if_due(progress, progress->done + done_bytes);
}

void progress_end(struct progress *progress) {
  if (!progress->shown) {
    return;
  }
  draw(progress, progress->done, seconds());
  if (progress->terminal) {
    fputc('\n', stderr);
  }
}
