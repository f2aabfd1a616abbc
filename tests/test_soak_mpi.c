/* Forward after forward with random routing: the bits stay, memory stays. Latencies are reported.
 * SY_SOAK_S: for how many seconds (default 5). */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "comm/clock.h"
#include "tests/support/expect.h"
#include "tests/support/harness.h"
#include "tests/support/team.h"

enum {
  TOKENS_PER_RANK = 8,
  NUM_EXPERTS = 16,
  TOP_K = 4,
  NUM_ROUTINGS = 8, /* those whose outputs are known */
  NUM_BUCKETS = 4096,
  BUCKET_US = 25,
};

struct soak {
  struct team team;
  struct token_split split;
  struct layer_call call;
  int32_t *routings[NUM_ROUTINGS]; /* [tokens of all ranks, TOP_K] */
  void *expected[NUM_ROUTINGS];
  void *got;
};

/* Distinct experts for each token. */
static void draw_routing(int32_t *ids, int64_t num_tokens) {
  for (int64_t t = 0; t < num_tokens; ++t) {
    const int64_t first = sy_test_random_between(0, NUM_EXPERTS - 1);
    const int64_t stride = 2 * sy_test_random_between(0, NUM_EXPERTS / 2 - 1) + 1;
    for (int64_t k = 0; k < TOP_K; ++k) { /* an odd stride meets each of 2^n experts once */
      ids[t * TOP_K + k] = (int32_t)((first + k * stride) % NUM_EXPERTS);
    }
  }
}

/* This rank's tokens of a routing -> the tensor of the call. */
static void use_routing(struct soak *s, const int32_t *ids) {
  int32_t *own = (int32_t *)(uintptr_t)s->call.io.expert_ids; /* the test's own memory */
  memcpy(own, ids + s->call.first_token * TOP_K, (size_t)s->call.num_tokens * TOP_K * sizeof *own);
}

static bool soak_open(struct soak *s, const struct call_options *options) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 128, 64, NUM_EXPERTS, TOP_K);
  const int64_t num_tokens = (int64_t)TOKENS_PER_RANK * sy_test_world();
  s->split = split_evenly(num_tokens, sy_test_world());
  if (!team_open(&s->team, &shape, num_tokens)) {
    return false;
  }
  for (int i = 0; i < NUM_ROUTINGS; ++i) {
    draw_routing(s->team.c.ids, num_tokens);
    s->routings[i] =
        FENCED(&s->team.c.memory, int32_t, num_tokens * TOP_K, "a routing of the soak");
    memcpy(s->routings[i], s->team.c.ids, (size_t)num_tokens * TOP_K * sizeof(int32_t));
    s->expected[i] = layer_case_outputs(&s->team.c, options->output_dtype);
    expect_outputs(&s->team.c, options, sy_test_world(), s->expected[i]);
  }
  s->got = layer_case_outputs(&s->team.c, options->output_dtype);
  return layer_call_open(&s->call, &s->team.rank, options, &s->split);
}

static int64_t resident_kib(void) {
  long pages = 0;
  long resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (CHECK(file != NULL)) {
    CHECK(fscanf(file, "%ld %ld", &pages, &resident) == 2);
    fclose(file);
  }
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Latencies of one half of the time, in steps of BUCKET_US; the last bucket has all that is slower. */
struct latencies {
  int64_t count;
  int64_t buckets[NUM_BUCKETS];
};

static void note_latency(struct latencies *l, int64_t ns) {
  const int64_t bucket = ns / (1000 * BUCKET_US);
  ++l->buckets[bucket < NUM_BUCKETS ? bucket : NUM_BUCKETS - 1];
  ++l->count;
}

static double percentile_us(const struct latencies *l, double share) {
  int64_t seen = 0;
  int bucket = 0;
  while (bucket < NUM_BUCKETS - 1 &&
         (double)(seen += l->buckets[bucket]) < share * (double)l->count) {
    ++bucket;
  }
  return (bucket + 1) * (double)BUCKET_US;
}

static bool is_over(int64_t end_ns) {
  int over = sy_clock_ns() >= end_ns; /* as rank 0 sees it */
  MPI_Bcast(&over, 1, MPI_INT, 0, MPI_COMM_WORLD);
  return over != 0;
}

/* One known routing, whose outputs are compared, then some that nobody has seen before. */
static void run_round(struct soak *s, struct latencies *latencies) {
  enum { UNKNOWN = 15 };
  int32_t ids[LAYER_CASE_MAX_WORLD * TOKENS_PER_RANK * TOP_K];
  const int known = (int)sy_test_random_between(0, NUM_ROUTINGS - 1);
  const int rank = sy_test_rank();
  for (int i = 0; i <= UNKNOWN; ++i) {
    draw_routing(ids, s->team.c.num_tokens);
    use_routing(s, i == 0 ? s->routings[known] : ids);
    const int64_t begin_ns = sy_clock_ns();
    CHECK_OK(layer_call_forward(&s->call));
    note_latency(latencies, sy_clock_ns() - begin_ns);
    if (i == 0) {
      layer_call_read(&s->call, s->got);
      same_bits(&s->team.c, s->call.options.output_dtype, s->got, s->expected[known],
                s->split.first[rank], s->split.first[rank + 1], "a known routing");
    }
  }
}

/* Sanitizers hold back what MPI frees, and note what it touches. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { GROWTH_KIB = 1 << 20 };
#else
enum { GROWTH_KIB = 512 };
#endif

TEST(bits_and_memory_stay) {
  enum { WARM_UP = 20 };
  static struct latencies halves[2];
  const char *seconds = getenv("SY_SOAK_S");
  const int64_t soak_ns = (int64_t)(seconds != NULL ? atoi(seconds) : 5) * 1000000000;
  const struct call_options options = {.strategy = SY_STRATEGY_EXACT};
  struct soak s;
  if (soak_open(&s, &options)) {
    for (int i = 0; i < WARM_UP; ++i) {
      run_round(&s, &halves[0]);
    }
    memset(halves, 0, sizeof halves);
    const int64_t before_kib = resident_kib();
    const int64_t begin_ns = sy_clock_ns();
    while (!is_over(begin_ns + soak_ns)) {
      run_round(&s, &halves[sy_clock_ns() - begin_ns > soak_ns / 2]);
    }
    const int64_t after_kib = resident_kib();
    CHECK(after_kib - before_kib <= GROWTH_KIB);
    for (int rank = 0; rank < sy_test_world(); ++rank) {
      if (rank == sy_test_rank()) {
        printf(
            "rank %d: %lld forwards; p50 %.0f then %.0f us, p99 %.0f then %.0f us, p99/p50 %.1f; "
            "resident %lld then %lld KiB\n",
            rank, (long long)(halves[0].count + halves[1].count), percentile_us(&halves[0], 0.5),
            percentile_us(&halves[1], 0.5), percentile_us(&halves[0], 0.99),
            percentile_us(&halves[1], 0.99),
            percentile_us(&halves[1], 0.99) / percentile_us(&halves[1], 0.5), (long long)before_kib,
            (long long)after_kib);
        fflush(stdout);
      }
      MPI_Barrier(MPI_COMM_WORLD);
    }
    layer_call_close(&s.call);
  }
  team_close(&s.team);
}
