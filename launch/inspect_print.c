#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "launch/inspect.h"
#include "launch/layer_options.h"
#include "launch/text.h"

#define LABEL_COLUMNS 13
#define SHOWN_ERRORS 8

static void print_fact(const struct text_style *style, const char *label, const char *words) {
  printf("  %s%-10s%s ", style->dim, label, style->end);
  text_wrap(stdout, LABEL_COLUMNS, words);
}

/* "bf16", or "bf16, nvfp4" where layers differ; each once. */
static void list_formats(const struct inspect_sheet *sheet, char *text, size_t bytes) {
  text[0] = '\0';
  for (int32_t i = 0; i < sheet->info.num_layers; ++i) {
    const char *format = sheet->layers[i].info.format;
    const size_t used = strlen(text);
    if (format != NULL && strstr(text, format) == NULL) {
      snprintf(text + used, bytes - used, "%s%s", used == 0 ? "" : ", ", format);
    }
  }
}

static void print_facts(const struct text_style *style, const struct inspect_sheet *sheet) {
  const sy_shape *shape = &sheet->info.shape;
  char words[300];
  char formats[100];
  char size[TEXT_SIZE];
  print_fact(style, "Family", sheet->info.family);
  snprintf(words, sizeof words, "%d, %d of them with experts", (int)sheet->info.num_layers,
           (int)(sheet->info.num_layers - sheet->num_dense));
  print_fact(style, "Layers", words);
  snprintf(words, sizeof words,
           "hidden %" PRId64 ", intermediate %" PRId64 ", %d experts, top-%d, %s%s", shape->hidden,
           shape->intermediate, (int)shape->num_experts, (int)shape->top_k,
           option_choice_name(layer_activations, (int)shape->activation),
           shape->has_bias != 0 ? " with biases" : "");
  print_fact(style, "Layer", words);
  list_formats(sheet, formats, sizeof formats);
  snprintf(words, sizeof words, "%s; %s in the files", formats[0] != '\0' ? formats : "none",
           text_bytes(size, sheet->expert_bytes));
  print_fact(style, "Experts", words);
}

static void print_worlds(const struct text_style *style, const struct inspect_sheet *sheet) {
  char size[TEXT_SIZE];
  printf("\n%sBytes per rank%s\n%s%7s  %7s  %9s", style->bold, style->end, style->dim, "world",
         "experts", "read");
  for (int kind = 0; kind < INSPECT_NUM_KINDS; ++kind) {
    printf("  %9s", inspect_kinds[kind]);
  }
  printf("%s\n", style->end);
  for (size_t i = 0; i < sheet->num_worlds; ++i) {
    const struct inspect_world *world = &sheet->worlds[i];
    printf("%7d  %7d  %9s", (int)world->world, (int)world->experts,
           text_bytes(size, world->read_bytes));
    for (int kind = 0; kind < INSPECT_NUM_KINDS; ++kind) {
      printf("  %9s",
             sheet->refusals[kind][0] != '\0' ? "-" : text_bytes(size, world->weight_bytes[kind]));
    }
    printf("\n");
  }
  printf("\n%s", style->dim);
  text_wrap(stdout, 0,
            "Of rank 0, which has the most; all layers together. read: of the files. bf16, nvfp4, "
            "mxfp4: memory for its experts, prepacked; w4a4 and w4a16 keep the same.");
  printf("%s", style->end);
}

static void print_errors(const struct text_style *style, const struct inspect_sheet *sheet) {
  char label[32];
  int shown = 0;
  printf("\n%s%s%s\n", style->bold, sheet->num_broken > 0 ? "Would not load" : "Every layer loads",
         style->end);
  for (int32_t i = 0; i < sheet->info.num_layers && shown < SHOWN_ERRORS; ++i) {
    if (sheet->layers[i].error[0] != '\0') {
      snprintf(label, sizeof label, "layer %d", (int)i);
      print_fact(style, label, sheet->layers[i].error);
      ++shown;
    }
  }
  if (sheet->num_broken > shown) {
    printf("  and %d layers more; --json lists all\n", (int)sheet->num_broken - shown);
  }
  for (int kind = 0; kind < INSPECT_NUM_KINDS; ++kind) {
    if (sheet->refusals[kind][0] != '\0') {
      snprintf(label, sizeof label, "as %s", inspect_kinds[kind]);
      print_fact(style, label, sheet->refusals[kind]);
    }
  }
}

void inspect_print_text(const struct inspect_sheet *sheet) {
  const struct text_style style = text_style_of_stdout();
  printf("%sCheckpoint %s%s\n\n", style.bold, sheet->path, style.end);
  print_facts(&style, sheet);
  print_worlds(&style, sheet);
  print_errors(&style, sheet);
}

/* ---- JSON ---- */

static json_t *layers_json(const struct inspect_sheet *sheet) {
  json_t *list = json_array();
  for (int32_t i = 0; i < sheet->info.num_layers; ++i) {
    const struct inspect_layer *layer = &sheet->layers[i];
    json_array_append_new(list, json_pack("{s:i, s:b, s:s?, s:I, s:s?}", "layer", (int)i, "dense",
                                          (int)layer->info.is_dense, "format", layer->info.format,
                                          "expert_bytes", (json_int_t)layer->info.expert_bytes,
                                          "error", layer->error[0] != '\0' ? layer->error : NULL));
  }
  return list;
}

static json_t *worlds_json(const struct inspect_sheet *sheet) {
  json_t *list = json_array();
  for (size_t i = 0; i < sheet->num_worlds; ++i) {
    const struct inspect_world *world = &sheet->worlds[i];
    json_t *object = json_pack("{s:i, s:i, s:I}", "world", (int)world->world, "experts",
                               (int)world->experts, "read_bytes", (json_int_t)world->read_bytes);
    for (int kind = 0; kind < INSPECT_NUM_KINDS; ++kind) {
      char key[32];
      snprintf(key, sizeof key, "%s_bytes", inspect_kinds[kind]);
      json_object_set_new(object, key,
                          sheet->refusals[kind][0] != '\0'
                              ? json_null()
                              : json_integer((json_int_t)world->weight_bytes[kind]));
    }
    json_array_append_new(list, object);
  }
  return list;
}

static json_t *refusals_json(const struct inspect_sheet *sheet) {
  json_t *object = json_object();
  for (int kind = 0; kind < INSPECT_NUM_KINDS; ++kind) {
    if (sheet->refusals[kind][0] != '\0') {
      json_object_set_new(object, inspect_kinds[kind], json_string(sheet->refusals[kind]));
    }
  }
  return object;
}

bool inspect_print_json(const struct inspect_sheet *sheet) {
  const sy_shape *shape = &sheet->info.shape;
  json_t *root =
      json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:i, s:i, s:s, s:b, s:I, s:o, s:o, s:o}", "version",
                sy_version(), "model", sheet->path, "family", sheet->info.family, "loads",
                sheet->num_broken == 0, "hidden", (json_int_t)shape->hidden, "intermediate",
                (json_int_t)shape->intermediate, "experts", (int)shape->num_experts, "top_k",
                (int)shape->top_k, "activation",
                option_choice_name(layer_activations, (int)shape->activation), "bias",
                (int)shape->has_bias, "expert_bytes", (json_int_t)sheet->expert_bytes, "layers",
                layers_json(sheet), "refused", refusals_json(sheet), "ranks", worlds_json(sheet));
  if (root == NULL) {
    return false;
  }
  json_dumpf(root, stdout, JSON_INDENT(2)); /* main looks at stdout's error state */
  putchar('\n');
  json_decref(root);
  return true;
}
