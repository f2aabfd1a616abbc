/* What `switchyard bench` is asked (bench_options.c), what it runs (bench_case.c, bench_files.c),
 * measures (bench.c) and prints (bench_print.c, bench_plot.c). */
#ifndef LAUNCH_BENCH_H
#define LAUNCH_BENCH_H

#include "launch/bench_limits.h"
#include "launch/layer_options.h"

enum bench_kind { BENCH_EXPERTS, BENCH_LAYER, BENCH_LOAD };

struct bench_request {
  enum bench_kind kind;
  const char *name;       /* "experts", "layer" or "load" */
  const char *model;      /* NULL: given by its numbers, or a checkpoint's */
  const char *checkpoint; /* to load; NULL: weights of chance */
  sy_shape shape;
  sy_numerics numerics;
  struct value_list tokens; /* T; of load: one entry that nobody looks at */
  int64_t num_threads;      /* 0: what the library takes */
  int64_t rounds;
  const char *plot; /* NULL, or the SVG to write */
  bool json;
};

extern const struct option_choice bench_numerics[];

int bench_options_parse(struct session *session, enum bench_kind kind, int argc, char **argv,
                        struct bench_request *request_out);

/* ---- What runs ----------------------------------------------------------------------------- */

/* A layer with weights of chance, its tokens, and a smaller layer of the same weights on the scalar
 * specification, which says what is right. */
struct bench_case;

int bench_case_open(struct session *session, const struct bench_request *request,
                    struct bench_case **case_out);
void bench_case_close(struct bench_case *c);

int bench_case_threads(const struct bench_case *c);
size_t bench_case_source_bytes(const struct bench_case *c); /* of an expert, BF16 */
size_t bench_case_expert_bytes(const struct bench_case *c); /* prepacked */
size_t bench_case_row_bytes(const struct bench_case *c);    /* of a dispatched row */

/* Makes an expert's weights, a function of its number alone; good until the next are made. */
sy_expert_weights bench_case_weights(struct bench_case *c, int32_t expert);
int bench_case_load(struct session *session, struct bench_case *c, int32_t expert,
                    const sy_expert_weights *weights);

/* One forward of T tokens over experts drawn anew. */
struct bench_call {
  double forward_us;
  double experts_us; /* of it, in the experts stage */
  double routed_rows;
  double active_experts;
};
int bench_case_call(struct session *session, struct bench_case *c, int64_t tokens,
                    struct bench_call *call_out);

/* Values of the first and the last of T tokens that are not what the specification says: with
 * fastest, all values of a row that is further away than its rounding to BF16. */
int bench_case_count_wrong(struct session *session, struct bench_case *c, int64_t tokens,
                           int64_t *wrong_out);

/* A checkpoint, all of whose layers are loaded by one process, one after another into one layer. */
struct bench_files;

/* Takes the sizes of request's shape from the checkpoint. Its files are in the page cache then. */
int bench_files_open(struct session *session, struct bench_request *request,
                     struct bench_files **files_out);
void bench_files_close(struct bench_files *files);

int bench_files_threads(const struct bench_files *files);
int32_t bench_files_layers(const struct bench_files *files); /* with experts */
double bench_files_bytes(const struct bench_files *files);   /* of all experts, in the files */
double bench_files_prepacked_bytes(const struct bench_files *files);

/* Reads the files from end to end, by as many threads, and drops what it has read: how fast, in 1e9
 * bytes per second. */
int bench_files_read(struct session *session, const struct bench_files *files, double *gbs_out);
int bench_files_load(struct session *session, const struct bench_files *files);

/* ---- What comes out ------------------------------------------------------------------------ */

/* Quantities per call are means, times percentiles over calls, shares medians of each call's own
 * ratio to what was measured just before it. */
struct bench_result {
  int64_t tokens;
  int64_t calls;
  double routed_rows;
  double active_experts;
  int32_t layers;      /* of a checkpoint */
  double weight_bytes; /* of the experts that were touched; of load: the source's */
  double bytes;        /* these, and the rows that are read and written */
  double operations;
  double p50_us, p99_us, min_us;
  double around_us;      /* layer: median of what is not the experts stage */
  double gbs, gops;      /* bytes and operations over the median time */
  double limit_gbs;      /* median; of load: copied */
  double limit_file_gbs; /* median; of a checkpoint: its files read */
  double limit_gops;     /* 0: not known, or of no interest */
  double floor_us;       /* the least time that the limits allow */
  double share_bytes;    /* of the bandwidth */
  double share_file;     /* of reading the files */
  double share_operations;
  double share_floor;
  int64_t wrong; /* of a checkpoint: not looked at */
};

struct bench_report {
  const struct bench_request *request;
  int num_threads;
  double read_gbs, copy_gbs;
  double rate_gops[RATE_UNITS];
  enum rate_unit unit; /* the one that the experts' arithmetic needs */
  const struct bench_result *results;
  size_t num_results;
};

const char *bench_unit_name(enum rate_unit unit);

void bench_print_table(const struct bench_report *report);
/* False: out of memory. */
bool bench_print_json(const struct bench_report *report);
/* False: the file cannot be written. */
bool bench_plot(const struct bench_report *report, const char *path);

#endif
