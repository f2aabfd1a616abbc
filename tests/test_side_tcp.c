/* The side channel over TCP, on the loopback interface: a process per rank. */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "comm/clock.h"
#include "comm/side.h"
#include "tests/support/harness.h"

enum { MAX_RANKS = 8, MAX_WORLD = 16, PATIENT_MS = 40000, HASTY_MS = 700 };

/* What a process found. */
struct outcome {
  sy_status status;
  int32_t num_wrong;
  int64_t took_ms;
  bool missing[MAX_WORLD];
  uint64_t steps[MAX_WORLD];
  char text[300];
};

static struct outcome *outcomes; /* [MAX_RANKS], shared with the processes */
static char address[64];

static void sleep_ms(int64_t ms) {
  const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  nanosleep(&pause, NULL);
}

static int64_t in_ms(int64_t ms) { return sy_clock_ns() + ms * 1000000; }

/* Listens at a free port of the loopback interface; address is that. */
static int listen_at_free_port(void) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof at;
  CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 8) == 0);
  getsockname(fd, (struct sockaddr *)&at, &bytes);
  snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(at.sin_port));
  return fd;
}

static int call_rank0(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  at.sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1));
  for (int tries = 0; tries < 2000; ++tries) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0) {
      return fd;
    }
    close(fd);
    sleep_ms(5);
  }
  return -1;
}

/* Runs body(i, outcome) in so many processes, and waits for them. */
static void run_processes(int count, void (*body)(int i, struct outcome *out)) {
  pid_t children[MAX_RANKS];
  outcomes = mmap(NULL, MAX_RANKS * sizeof *outcomes, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (!CHECK(outcomes != MAP_FAILED)) {
    return;
  }
  memset(outcomes, 0, MAX_RANKS * sizeof *outcomes);
  close(listen_at_free_port());
  fflush(NULL);
  for (int i = 0; i < count; ++i) {
    children[i] = fork();
    if (children[i] == 0) {
      body(i, &outcomes[i]);
      _exit(0);
    }
  }
  for (int i = 0; i < count; ++i) {
    int status = -1;
    waitpid(children[i], &status, 0);
    CHECK_EQ_I64(status, 0);
  }
}

static struct sy_side *join(int rank, int world, int64_t timeout_ms, struct outcome *out) {
  struct sy_side *side = NULL;
  const int64_t begin_ns = sy_clock_ns();
  out->status = sy_side_create_tcp(address, rank, world, in_ms(timeout_ms), &side);
  out->took_ms = (sy_clock_ns() - begin_ns) / 1000000;
  snprintf(out->text, sizeof out->text, "%s", out->status == SY_OK ? "" : sy_last_error(NULL));
  return side;
}

static unsigned char pattern(int32_t rank, size_t i) {
  return (unsigned char)((unsigned)rank * 37u + (unsigned)(i * 2654435761u >> 13));
}

/* One gathering; bytes that are wrong are counted. */
static sy_status gather(struct sy_side *side, size_t bytes, int64_t timeout_ms,
                        struct outcome *out) {
  unsigned char *mine = malloc(bytes + 1);
  unsigned char *all = calloc((size_t)side->world, bytes + 1);
  for (size_t i = 0; i < bytes; ++i) {
    mine[i] = pattern(side->rank, i);
  }
  const int64_t begin_ns = sy_clock_ns();
  const sy_status status = side->ops->allgather(side, mine, bytes, all, in_ms(timeout_ms));
  out->took_ms = (sy_clock_ns() - begin_ns) / 1000000;
  for (int32_t peer = 0; peer < side->world; ++peer) {
    out->missing[peer] = side->ops->missing(side, peer);
    for (size_t i = 0; i < bytes && status == SY_OK; ++i) {
      out->num_wrong += all[(size_t)peer * bytes + i] != pattern(peer, i);
    }
  }
  free(mine);
  free(all);
  return status;
}

static void check_all(int count, sy_status status, const char *part) {
  for (int i = 0; i < count; ++i) {
    CHECK_STATUS(outcomes[i].status, status);
    CHECK_EQ_I64(outcomes[i].num_wrong, 0);
    CHECK_STR_HAS(outcomes[i].text, part);
  }
}

/* ---- What works ---- */

static int world_of_case;

static void gather_sizes(int rank, struct outcome *out) {
  static const size_t sizes[] = {0, 1, 16, 255, 256, 4097};
  struct sy_side *side = join(rank, world_of_case, PATIENT_MS, out);
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes && out->status == SY_OK; ++i) {
    out->status = gather(side, sizes[i], PATIENT_MS, out);
  }
  if (side != NULL) {
    side->ops->destroy(side);
  }
}

TEST(ranks_come_together_and_gather) {
  static const int worlds[] = {1, 2, 3, 7};
  for (int i = 0; i < 4; ++i) {
    world_of_case = worlds[i];
    run_processes(world_of_case, gather_sizes);
    check_all(world_of_case, SY_OK, "");
  }
}

static void on_alarm(int signal_number) { (void)signal_number; }

/* Sockets fill up in both directions, and a signal interrupts whatever is interrupted. */
static void gather_much(int rank, struct outcome *out) {
  const struct sigaction action = {.sa_handler = on_alarm};
  const struct itimerval timer = {{0, 1000}, {0, 1000}};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &timer, NULL);
  struct sy_side *side = join(rank, 3, PATIENT_MS, out);
  for (int i = 0; i < 4 && out->status == SY_OK; ++i) {
    side->ops->beat(side, (uint64_t)i + 1);
    out->status = gather(side, (size_t)4 << 20, PATIENT_MS, out);
  }
  if (side != NULL) {
    side->ops->destroy(side);
  }
}

TEST(large_gatherings_under_signals) {
  run_processes(3, gather_much);
  check_all(3, SY_OK, "");
}

static void come_late(int rank, struct outcome *out) {
  if (rank == 0) {
    sleep_ms(400); /* the others find nobody at first */
  }
  gather_sizes(rank, out);
}

TEST(rank_0_may_come_last) {
  world_of_case = 3;
  run_processes(3, come_late);
  check_all(3, SY_OK, "");
}

static void beat_thousands(int rank, struct outcome *out) {
  enum { LAST = 5000 };
  struct sy_side *side = join(rank, 3, PATIENT_MS, out);
  if (side == NULL) {
    return;
  }
  for (uint64_t step = 1; step <= LAST && rank == 1; ++step) {
    side->ops->beat(side, step);
  }
  const int64_t deadline_ns = in_ms(PATIENT_MS);
  do {
    side->ops->steps(side, out->steps);
  } while (out->steps[1] < LAST && sy_clock_ns() < deadline_ns);
  out->status = gather(side, 16, PATIENT_MS, out); /* nobody leaves before */
  side->ops->destroy(side);
}

TEST(beats_arrive_while_nobody_gathers) {
  run_processes(3, beat_thousands);
  check_all(3, SY_OK, "");
  for (int i = 0; i < 3; ++i) {
    CHECK_EQ_U64(outcomes[i].steps[0], 0);
    CHECK_EQ_U64(outcomes[i].steps[1], 5000);
    CHECK_EQ_U64(outcomes[i].steps[2], 0);
  }
}

static void gather_other_sizes(int rank, struct outcome *out) {
  struct sy_side *side = join(rank, 3, PATIENT_MS, out);
  if (side == NULL) {
    return;
  }
  out->status = gather(side, rank == 2 ? 5000 : 48, PATIENT_MS, out);
  snprintf(out->text, sizeof out->text, "%s", sy_last_error(NULL));
  out->num_wrong = gather(side, 100, PATIENT_MS, out) != SY_OK; /* and the next works */
  side->ops->destroy(side);
}

TEST(sizes_that_differ_are_named) {
  run_processes(3, gather_other_sizes);
  check_all(3, SY_ERR_MISMATCH, "rank 2");
}

/* ---- Ranks that are not there ---- */

static void alone(int i, struct outcome *out) {
  (void)i;
  join(1, 2, HASTY_MS, out);
}

TEST(nobody_is_at_the_address) {
  run_processes(1, alone);
  check_all(1, SY_ERR_PEER, "nobody is reached at 127.0.0.1:");
  check_all(1, SY_ERR_PEER, "Connection refused");
  CHECK(outcomes[0].took_ms >= HASTY_MS);
}

/* Rank 0 waits for a short time, and tells the others why they have waited in vain. */
static void without_rank_2(int rank, struct outcome *out) {
  join(rank, 3, rank == 0 ? HASTY_MS : PATIENT_MS, out);
}

TEST(a_rank_that_does_not_come_is_named_on_all) {
  run_processes(2, without_rank_2);
  check_all(2, SY_ERR_PEER, "missing: rank 2");
}

static void without_rank_2_at_gathering(int rank, struct outcome *out) {
  struct sy_side *side = join(rank, 3, PATIENT_MS, out);
  if (side != NULL && rank < 2) {
    out->status = gather(side, 64, HASTY_MS, out);
  } else {
    sleep_ms(3 * HASTY_MS);
  }
}

TEST(a_rank_that_does_not_gather_is_named) {
  run_processes(3, without_rank_2_at_gathering);
  for (int i = 0; i < 2; ++i) {
    CHECK_STATUS(outcomes[i].status, SY_ERR_PEER);
    for (int peer = 0; peer < 3; ++peer) {
      CHECK_EQ_I64(outcomes[i].missing[peer], peer == 2);
    }
  }
}

/* Its end is known at once, long before the deadline. */
static void rank_1_dies(int rank, struct outcome *out) {
  struct sy_side *side = join(rank, 3, PATIENT_MS, out);
  if (side != NULL && rank != 1) {
    out->status = gather(side, 64, 10 * PATIENT_MS, out);
    if (rank == 0) { /* stays until rank 2 has seen it too */
      sleep_ms(HASTY_MS);
    }
  }
}

TEST(a_rank_that_died_is_named_at_once) {
  run_processes(3, rank_1_dies);
  for (int i = 0; i < 3; i += 2) {
    CHECK_STATUS(outcomes[i].status, SY_ERR_PEER);
    CHECK(outcomes[i].missing[1]);
    CHECK(!outcomes[i].missing[2 - i]);
    CHECK(outcomes[i].took_ms < PATIENT_MS);
  }
}

/* ---- Ranks that disagree ---- */

static void two_of_rank_1(int i, struct outcome *out) { join(i == 0 ? 0 : 1, 3, PATIENT_MS, out); }

TEST(two_processes_with_one_rank) {
  run_processes(3, two_of_rank_1);
  check_all(3, SY_ERR_MISMATCH, "two processes are rank 1");
}

static void other_world(int rank, struct outcome *out) {
  join(rank, rank == 0 ? 2 : 3, PATIENT_MS, out);
}

TEST(another_number_of_ranks) {
  run_processes(2, other_world);
  check_all(2, SY_ERR_MISMATCH, "rank 1 was started as one of 3 ranks, rank 0 as one of 2");
}

/* ---- Strangers ---- */

/* As side_tcp.c has them. */
struct greeting {
  char magic[8];
  uint32_t version;
  int32_t rank;
  int32_t world;
  uint32_t port;
  uint64_t session;
};
enum { ANSWER_BYTES = 224, PLACE_BYTES = 20, FRAME_BYTES = 16 };

static struct greeting greeting_of(uint32_t version, int32_t rank, int32_t world) {
  struct greeting g = {.version = version, .rank = rank, .world = world, .port = 1};
  memcpy(g.magic, "SYSIDE\r\n", sizeof g.magic);
  return g;
}

static void another_version(int i, struct outcome *out) {
  if (i == 0) {
    join(0, 2, PATIENT_MS, out);
    return;
  }
  const struct greeting g = greeting_of(99, 1, 2);
  char answer[ANSWER_BYTES];
  const int fd = call_rank0();
  out->num_wrong = send(fd, &g, sizeof g, 0) != (ssize_t)sizeof g ||
                   recv(fd, answer, sizeof answer, MSG_WAITALL) != (ssize_t)sizeof answer;
  out->status = SY_ERR_MISMATCH;
  memcpy(out->text, answer + ANSWER_BYTES - 200, 200);
}

TEST(another_version) {
  run_processes(2, another_version);
  check_all(2, SY_ERR_MISMATCH, "a rank speaks version 99 of the rendezvous, rank 0 version 1");
}

/* Process 2 is no rank: it calls three times, and sends nothing, rubbish, half a greeting. */
static void strangers_call(int i, struct outcome *out) {
  if (i < 2) {
    world_of_case = 2;
    if (i == 1) {
      sleep_ms(HASTY_MS); /* the strangers come first */
    }
    gather_sizes(i, out);
    return;
  }
  const struct greeting g = greeting_of(1, 1, 2);
  close(call_rank0());
  int fd = call_rank0();
  out->num_wrong = send(fd, "GET / HTTP/1.1\r\nHost: rank 0\r\n\r\n", 33, MSG_NOSIGNAL) != 33;
  sleep_ms(10);
  close(fd);
  fd = call_rank0();
  out->num_wrong += send(fd, &g, sizeof g / 2, MSG_NOSIGNAL) != (ssize_t)(sizeof g / 2);
  close(fd);
}

TEST(strangers_are_hung_up_on) {
  run_processes(3, strangers_call);
  check_all(3, SY_OK, "");
}

static void another_service(int i, struct outcome *out) {
  (void)i;
  char rubbish[1024];
  memset(rubbish, 'x', sizeof rubbish);
  const int listener = listen_at_free_port();
  if (fork() == 0) {
    const int fd = accept(listener, NULL, NULL);
    send(fd, rubbish, sizeof rubbish, 0);
    sleep_ms(HASTY_MS);
    _exit(0);
  }
  join(1, 2, PATIENT_MS, out);
  wait(NULL);
}

TEST(somebody_else_is_at_the_address) {
  run_processes(1, another_service);
  check_all(1, SY_ERR_MISMATCH, "is no rank 0 of Switchyard");
}

/* Rank 1 is made by hand, and sends every byte by itself. */
static void send_slowly(int fd, const void *data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    send(fd, (const char *)data + i, 1, MSG_NOSIGNAL);
    sleep_ms(1);
  }
}

static void byte_by_byte(int i, struct outcome *out) {
  enum { GATHERED = 48 };
  if (i == 0) {
    struct sy_side *side = join(0, 2, PATIENT_MS, out);
    out->status = out->status == SY_OK ? gather(side, GATHERED, PATIENT_MS, out) : out->status;
    if (side != NULL) {
      side->ops->steps(side, out->steps);
      side->ops->destroy(side);
    }
    return;
  }
  const int on = 1;
  const int fd = call_rank0();
  setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
  const struct greeting g = greeting_of(1, 1, 2);
  send_slowly(fd, &g, sizeof g);
  char answer[ANSWER_BYTES + 2 * PLACE_BYTES];
  out->num_wrong = recv(fd, answer, sizeof answer, MSG_WAITALL) != (ssize_t)sizeof answer;
  const uint32_t kinds[] = {1, 2};
  const uint64_t values[] = {77, GATHERED};
  for (int k = 0; k < 2; ++k) {
    send_slowly(fd, &kinds[k], sizeof kinds[k]);
    send_slowly(fd, "\0\0\0\0", 4);
    send_slowly(fd, &values[k], sizeof values[k]);
  }
  unsigned char mine[GATHERED];
  for (size_t b = 0; b < GATHERED; ++b) {
    mine[b] = pattern(1, b);
  }
  send_slowly(fd, mine, sizeof mine);
  char theirs[FRAME_BYTES + GATHERED];
  out->num_wrong += recv(fd, theirs, sizeof theirs, MSG_WAITALL) != (ssize_t)sizeof theirs;
}

TEST(messages_may_come_in_pieces) {
  run_processes(2, byte_by_byte);
  check_all(2, SY_OK, "");
  CHECK_EQ_U64(outcomes[0].steps[1], 77);
}

/* ---- Addresses ---- */

TEST(addresses_that_are_none) {
  static const char *const wrong[] = {"localhost", ":29500", "localhost:", "localhost:http", ""};
  struct sy_side *side = NULL;
  for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
    CHECK_STATUS(sy_side_create_tcp(wrong[i], 0, 2, in_ms(PATIENT_MS), &side), SY_ERR_ARGUMENT);
    CHECK_STR_HAS(sy_last_error(NULL), "is not of the form host:port");
  }
  CHECK_STATUS(sy_side_create_tcp(NULL, 0, 2, in_ms(PATIENT_MS), &side), SY_ERR_ARGUMENT);
  CHECK_STATUS(sy_side_create_tcp("localhost:1", 2, 2, in_ms(PATIENT_MS), &side), SY_ERR_ARGUMENT);
  CHECK_STR_HAS(sy_last_error(NULL), "rank is 2 of 2");
  CHECK(side == NULL);
}

TEST(a_port_in_use_is_named) {
  struct sy_side *side = NULL;
  const int listener = listen_at_free_port();
  CHECK_STATUS(sy_side_create_tcp(address, 0, 2, in_ms(PATIENT_MS), &side), SY_ERR_TRANSPORT);
  CHECK_STR_HAS(sy_last_error(NULL), address);
  CHECK_STR_HAS(sy_last_error(NULL), "Address already in use");
  close(listener);
}
