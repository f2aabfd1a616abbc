/* switchyard convert: a checkpoint whose experts are FP4 already. The ranks take turns at its shards.
 */
#include "launch/command.h"
#include "launch/options.h"
#include "launch/progress.h"
#include "runtime/switchyard_checkpoint.h"

#define NO_FORMAT (-1)

struct flags {
  const char *model;
  const char *output;
  int to;
};

static const struct option_choice formats[] = {
    {"nvfp4", SY_FORMAT_NVFP4}, {"mxfp4", SY_FORMAT_MXFP4}, {NULL, 0}};

static const struct option_spec specs[] = {
    {.kind = OPTION_HEADING, .name = "Options"},
    {.kind = OPTION_TEXT,
     .name = "model",
     .value = "DIR",
     .help = "folder of the checkpoint",
     .offset = offsetof(struct flags, model)},
    {.kind = OPTION_TEXT,
     .name = "output",
     .value = "DIR",
     .help = "folder to write: new or empty, or left by an interrupted run of the same conversion",
     .offset = offsetof(struct flags, output)},
    {.kind = OPTION_CHOICE,
     .name = "to",
     .value = "FORMAT",
     .help = "nvfp4 is written in ModelOpt's names, mxfp4 in those of compressed-tensors",
     .offset = offsetof(struct flags, to),
     .choices = formats},
};

static const struct option_page page = {
    .about = "Writes a checkpoint that loads faster and is a third as large: the experts' weights "
             "as FP4 "
             "codes and scales, the very ones that loading would make of them, everything else as "
             "it is. "
             "Files have temporary names until all are whole; an interrupted run is taken up by "
             "starting "
             "it again. Its input is read only.",
    .examples =
        "  switchyard convert --model examples/tiny-moe --to nvfp4 --output /tmp/tiny-moe-nvfp4\n"
        "  mpirun -n 4 switchyard convert --model DIR --to mxfp4 --output DIR-mxfp4\n",
    .specs = specs,
    .num_specs = sizeof specs / sizeof specs[0],
};

struct job {
  sy_checkpoint *checkpoint;
  sy_convert *convert;
  struct progress progress;
};

static int open_job(struct session *session, const struct flags *flags, struct job *job) {
  if (flags->model == NULL || flags->output == NULL || flags->to == NO_FORMAT) {
    return session_fail(session, CLI_USAGE, "%s is missing",
                        flags->model == NULL    ? "--model"
                        : flags->output == NULL ? "--output"
                                                : "--to");
  }
  sy_status status = sy_checkpoint_open(flags->model, &job->checkpoint);
  if (status == SY_OK) {
    status = sy_convert_create(job->checkpoint, flags->output, (sy_format)flags->to, &job->convert);
  }
  if (status == SY_OK && session->rank == 0) {
    status = sy_convert_begin(job->convert);
  }
  return status == SY_OK ? CLI_OK : session_fail_status(session, status, "");
}

static int convert_shard(struct session *session, struct job *job, int32_t shard) {
  if (shard >= sy_convert_num_shards(job->convert)) {
    return CLI_OK; /* the last turn may be short */
  }
  const sy_status status = sy_convert_shard(job->convert, shard, progress_callback, &job->progress);
  if (status != SY_OK) {
    return session_fail_status(session, status, "");
  }
  progress_add(&job->progress, sy_convert_shard_bytes(job->convert, shard));
  return CLI_OK;
}

/* Collective. The ranks agree after each turn: none goes on for long when another has failed. */
static int convert_all(struct session *session, struct job *job) {
  const int32_t count = sy_convert_num_shards(job->convert);
  uint64_t total = 0;
  for (int32_t shard = session->rank; shard < count; shard += session->world) {
    total += sy_convert_shard_bytes(job->convert, shard);
  }
  progress_begin(&job->progress, "converting", session->rank == 0, total);
  int code = CLI_OK;
  for (int32_t first = 0; first < count && code == CLI_OK; first += session->world) {
    code = session_agree(session, convert_shard(session, job, first + session->rank));
  }
  progress_end(&job->progress);
  return code;
}

int convert_command(struct session *session, int argc, char **argv) {
  struct flags flags = {.to = NO_FORMAT};
  struct job job = {.checkpoint = NULL};
  int code = options_parse(session, &page, argc, argv, &flags);
  if (code == CLI_OK) {
    code = open_job(session, &flags, &job);
  }
  code = session_agree(session, code);
  if (code == CLI_OK) {
    code = convert_all(session, &job);
  }
  if (code == CLI_OK && session->rank == 0) {
    const sy_status status = sy_convert_finish(job.convert);
    code = status == SY_OK ? CLI_OK : session_fail_status(session, status, "");
  }
  sy_convert_destroy(job.convert);
  sy_checkpoint_close(job.checkpoint);
  return code;
}
