/* switchyard inspect: what a checkpoint holds, what a rank makes of it, what would not load. */
#include "launch/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "launch/command.h"

const char *const inspect_kinds[INSPECT_NUM_KINDS] = {"bf16", "nvfp4", "mxfp4"};

struct flags {
  const char *model;
  struct value_list worlds;
  bool json;
};

static const struct option_spec specs[] = {
    {.kind = OPTION_HEADING, .name = "Options"},
    {.kind = OPTION_TEXT,
     .name = "model",
     .value = "DIR",
     .help = "folder of the checkpoint: config.json and safetensors",
     .offset = offsetof(struct flags, model)},
    {.kind = OPTION_INTEGERS,
     .name = "world",
     .value = "W",
     .help = "numbers of ranks to show bytes for",
     .offset = offsetof(struct flags, worlds),
     .min = 1,
     .max = 65536},
    {.kind = OPTION_SWITCH,
     .name = "json",
     .help = "print JSON",
     .offset = offsetof(struct flags, json)},
};

static const struct option_page page = {
    .about =
        "Shows a checkpoint's family, layers, experts and formats, how many bytes of it a rank "
        "reads and keeps, and what would not load and why. Reads the headers of its files and "
        "nothing else. Exits with 3 when a layer would not load.",
    .examples = "  switchyard inspect --model examples/tiny-moe\n"
                "  switchyard inspect --model examples/tiny-moe --world 1..64 --json\n",
    .specs = specs,
    .num_specs = sizeof specs / sizeof specs[0],
};

static void inspect_layers(const sy_checkpoint *checkpoint, struct inspect_sheet *sheet) {
  for (int32_t i = 0; i < sheet->info.num_layers; ++i) {
    struct inspect_layer *layer = &sheet->layers[i];
    layer->info = (sy_layer_info)SY_LAYER_INFO_INIT;
    if (sy_checkpoint_check_layer(checkpoint, i, &layer->info) != SY_OK) {
      snprintf(layer->error, sizeof layer->error, "%s", sy_last_error(NULL));
      ++sheet->num_broken;
    }
    sheet->num_dense += layer->info.is_dense;
    sheet->expert_bytes += layer->info.expert_bytes;
  }
}

/* Experts that are FP4 already are taken as they are, or not at all. */
static void refuse_kinds(struct inspect_sheet *sheet) {
  for (int32_t i = 0; i < sheet->info.num_layers; ++i) {
    const sy_layer_info *layer = &sheet->layers[i].info;
    for (int kind = 0; kind < INSPECT_NUM_KINDS; ++kind) {
      const bool is_fp4 = layer->format != NULL &&
                          (layer->dtype == SY_DTYPE_NVFP4 || layer->dtype == SY_DTYPE_MXFP4);
      if (is_fp4 && strcmp(layer->format, inspect_kinds[kind]) != 0) {
        snprintf(sheet->refusals[kind], sizeof sheet->refusals[kind],
                 "the experts of layer %d are %s already, and never quantised again", (int)i,
                 layer->format);
      }
    }
  }
}

/* The weights of one layer, by the plan that would run it. A refusal of the sizes is kept, and no
 * error. */
static void weigh(struct inspect_sheet *sheet, struct inspect_world *world, int kind) {
  static const struct {
    sy_mode mode;
    sy_format format;
  } kinds[INSPECT_NUM_KINDS] = {[INSPECT_BF16] = {SY_MODE_BF16, SY_FORMAT_NVFP4},
                                [INSPECT_NVFP4] = {SY_MODE_W4A4, SY_FORMAT_NVFP4},
                                [INSPECT_MXFP4] = {SY_MODE_W4A4, SY_FORMAT_MXFP4}};
  sy_shape shape = sheet->info.shape;
  shape.mode = kinds[kind].mode;
  shape.format = kinds[kind].format;
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &shape;
  desc.world = world->world;
  desc.max_tokens = 1;
  sy_plan *plan = NULL;
  sy_plan_info info = SY_PLAN_INFO_INIT;
  if (sy_plan_create(&desc, &plan) != SY_OK || sy_plan_query(plan, &info) != SY_OK) {
    snprintf(sheet->refusals[kind], sizeof sheet->refusals[kind], "%s", sy_last_error(NULL));
  }
  sy_plan_destroy(plan);
  const uint64_t layers = (uint64_t)(sheet->info.num_layers - sheet->num_dense);
  world->weight_bytes[kind] = info.weight_bytes * layers;
}

static void inspect_worlds(struct inspect_sheet *sheet, const struct value_list *worlds) {
  const int32_t experts = sheet->info.shape.num_experts;
  for (size_t i = 0; i < worlds->count; ++i) {
    struct inspect_world *world = &sheet->worlds[i];
    world->world = (int32_t)worlds->values[i];
    world->experts = (experts + world->world - 1) / world->world;
    world->read_bytes = sheet->expert_bytes / (uint64_t)experts * (uint64_t)world->experts;
    for (int kind = 0; kind < INSPECT_NUM_KINDS; ++kind) {
      if (sheet->refusals[kind][0] == '\0') {
        weigh(sheet, world, kind);
      }
    }
  }
}

static int inspect(struct session *session, const struct flags *flags,
                   const sy_checkpoint *checkpoint, struct inspect_sheet *sheet) {
  sheet->path = flags->model;
  sheet->info = (sy_model_info)SY_MODEL_INFO_INIT;
  const sy_status status = sy_checkpoint_model(checkpoint, &sheet->info);
  if (status != SY_OK) {
    return session_fail_status(session, status, "");
  }
  sheet->num_worlds = flags->worlds.count;
  sheet->layers = calloc((uint32_t)sheet->info.num_layers, sizeof *sheet->layers);
  sheet->worlds = calloc(sheet->num_worlds, sizeof *sheet->worlds);
  if (sheet->layers == NULL || sheet->worlds == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory for %d layers",
                        (int)sheet->info.num_layers);
  }
  inspect_layers(checkpoint, sheet);
  refuse_kinds(sheet);
  inspect_worlds(sheet, &flags->worlds);
  return CLI_OK;
}

static int print(struct session *session, const struct inspect_sheet *sheet, bool json) {
  if (!json) {
    inspect_print_text(sheet);
  } else if (!inspect_print_json(sheet)) {
    return session_fail(session, CLI_FAILED, "out of memory, or --model is not UTF-8");
  }
  return CLI_OK;
}

int inspect_command(struct session *session, int argc, char **argv) {
  struct flags flags = {.worlds = {.count = 4, .values = {1, 2, 4, 8}}};
  struct inspect_sheet sheet = {.path = NULL};
  sy_checkpoint *checkpoint = NULL;
  int code = options_parse(session, &page, argc, argv, &flags);
  if (code == CLI_OK && flags.model == NULL) {
    code = session_fail(session, CLI_USAGE, "--model is missing");
  }
  if (code == CLI_OK) {
    const sy_status status = sy_checkpoint_open(flags.model, &checkpoint);
    code = status == SY_OK ? inspect(session, &flags, checkpoint, &sheet)
                           : session_fail_status(session, status, "");
  }
  code = session_agree(session, code);
  if (code == CLI_OK && session->rank == 0) {
    code = print(session, &sheet, flags.json);
  }
  if (code == CLI_OK && sheet.num_broken > 0) {
    code = CLI_BAD_FILE; /* what is wrong has been printed */
  }
  free(sheet.layers);
  free(sheet.worlds);
  sy_checkpoint_close(checkpoint);
  return code;
}
