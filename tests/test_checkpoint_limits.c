/* What a file can make the library allocate is bounded by its own length, never by a number in it.
 * The bounds are those that safetensors.h, index.c and checkpoint.c state; the files here are the
 * dearest that we know for each. */
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/memory.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/harness.h"

/* ---- Counting: the JSON parser's memory, and the library's own, to which the linker leads ---- */

#define BLOCK_OVERHEAD 16 /* what malloc keeps beside a block */

static size_t now_bytes, peak_bytes;

static void *counted(void *block) {
  if (block != NULL) {
    now_bytes += malloc_usable_size(block) + BLOCK_OVERHEAD;
    peak_bytes = now_bytes > peak_bytes ? now_bytes : peak_bytes;
  }
  return block;
}

static void uncounted(void *block) {
  if (block != NULL) {
    now_bytes -= malloc_usable_size(block) + BLOCK_OVERHEAD;
  }
}

static void *json_alloc(size_t bytes) { return counted(malloc(bytes)); }

static void json_release(void *block) {
  uncounted(block);
  free(block);
}

void *__real_sy_alloc(size_t bytes);
void *__wrap_sy_alloc(size_t bytes);
void __real_sy_free(void *block);
void __wrap_sy_free(void *block);

void *__wrap_sy_alloc(size_t bytes) { return counted(__real_sy_alloc(bytes)); }

void __wrap_sy_free(void *block) {
  uncounted(block);
  __real_sy_free(block);
}

struct cost {
  sy_status status;
  double peak; /* for each byte of the file's text */
  double kept; /* after opening, before closing */
};

static struct cost cost_of_opening(const char *path, size_t text_bytes) {
  json_set_alloc_funcs(json_alloc, json_release);
  struct cost cost;
  sy_checkpoint *checkpoint = NULL;
  now_bytes = peak_bytes = 0;
  cost.status = sy_checkpoint_open(path, &checkpoint);
  cost.kept = (double)now_bytes / (double)text_bytes;
  cost.peak = (double)peak_bytes / (double)text_bytes;
  sy_checkpoint_close(checkpoint);
  CHECK_EQ_U64(now_bytes, 0);
  return cost;
}

/* ---- Dear texts ---- */

/* `begin`, then count times "name" and `item` with a comma between, then `end`; %d in item and the
 * names are numbers, so that no two are alike. */
static char *repeat(const char *begin, const char *name, const char *item, int count,
                    const char *end) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *out = open_memstream(&text, &bytes);
  fputs(begin, out);
  for (int i = 0; i < count; ++i) {
    fputs(i == 0 ? "" : ",", out);
    if (name != NULL) {
      fprintf(out, "\"%s%x\":", name, i);
    }
    fputs(item, out);
  }
  fputs(end, out);
  fclose(out);
  return text;
}

#define COUNT 30000

static const struct dear {
  const char *begin, *name, *item, *end;
} dear_headers[] = {
    {"{", "", "{}", "}"},
    {"{", "1234567", "{}", "}"}, /* as many brackets as are allowed */
    {"{\"a\":{\"shape\":[", NULL, "0", "]}}"},
    {"{\"a\":{\"shape\":[", NULL, "\"\"", "]}}"},
    {"{\"a\":{\"shape\":[", NULL, "1e1", "]}}"},
    {"{\"a\":{", "", "[]", "}}"},
    {"{\"a\":{", "1234567", "[]", "}}"},
    {"{\"a\":{", "12", "[0,0]", "}}"},
    {"{\"a\":{", "", "0", "}}"},
};

TEST(a_header_costs_at_most_40_times_its_length) {
  struct written_model *model = written_model_create(&(struct written_sizes){0});
  double dearest = 0.0;
  for (size_t i = 0; i < sizeof dear_headers / sizeof dear_headers[0]; ++i) {
    const struct dear *dear = &dear_headers[i];
    char *text = repeat(dear->begin, dear->name, dear->item, COUNT, dear->end);
    written_header_save(model, "bad.safetensors", text, 0);
    const struct cost cost = cost_of_opening(written_path(model, "bad.safetensors"), strlen(text));
    CHECK_EQ_I64(cost.status, SY_ERR_FORMAT);
    CHECK(cost.peak <= 40.0);
    CHECK_NEAR(cost.kept, 0.0, 0.0);
    printf("header of %s %s: %.1f times its length\n", dear->name == NULL ? "-" : dear->name,
           dear->item, cost.peak);
    dearest = cost.peak > dearest ? cost.peak : dearest;
    free(text);
  }
  CHECK(dearest > 10.0); /* or nothing is counted */
  written_model_destroy(model);
}

TEST(tensors_keep_at_most_8_times_their_header) {
  struct written_model *model = written_model_create(&(struct written_sizes){0});
  char *text =
      repeat("{", "", "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", COUNT, "}");
  written_header_save(model, "many.safetensors", text, 0);
  const struct cost cost = cost_of_opening(written_path(model, "many.safetensors"), strlen(text));
  CHECK_EQ_I64(cost.status, SY_OK);
  CHECK(cost.peak <= 40.0);
  CHECK(cost.kept > 1.0 && cost.kept <= 8.0);
  printf("open tensors keep %.1f times their header\n", cost.kept);
  free(text);
  written_model_destroy(model);
}

TEST(an_index_costs_at_most_40_times_its_length) {
  static const struct dear dear_indices[] = {
      {"{\"weight_map\":{", "", "\"\"", "}}"},
      {"{\"weight_map\":{", "", "0", "}}"},
      {"{", "1234567", "{}", "}"},
      {"{\"weight_map\":{", "", "\"a.safetensors\"", "}}"},
  };
  struct written_model *model = written_model_create(&(struct written_sizes){
      .layers = 1, .hidden = 16, .intermediate = 16, .experts = 1, .top_k = 1});
  written_config_save(model, NULL, NULL);
  for (size_t i = 0; i < sizeof dear_indices / sizeof dear_indices[0]; ++i) {
    const struct dear *dear = &dear_indices[i];
    char *text = repeat(dear->begin, dear->name, dear->item, COUNT, dear->end);
    written_file_save(model, "model.safetensors.index.json", text, strlen(text));
    const struct cost cost = cost_of_opening(model->folder, strlen(text));
    CHECK(cost.status == SY_ERR_FORMAT || cost.status == SY_ERR_IO);
    CHECK(cost.peak <= 40.0);
    CHECK_NEAR(cost.kept, 0.0, 0.0);
    printf("index of %s: %.1f times its length\n", dear->item, cost.peak);
    free(text);
  }
  written_model_destroy(model);
}

TEST(a_config_costs_at_most_100_times_its_length) {
  static const struct dear dear_configs[] = {{"{\"a\":[", NULL, "{}", "]}"},
                                             {"{\"a\":[", NULL, "[]", "]}"},
                                             {"{\"a\":[", NULL, "0", "]}"}};
  struct written_model *model = written_model_create(&(struct written_sizes){0});
  for (size_t i = 0; i < sizeof dear_configs / sizeof dear_configs[0]; ++i) {
    const struct dear *dear = &dear_configs[i];
    char *text = repeat(dear->begin, dear->name, dear->item, COUNT, dear->end);
    written_file_save(model, "config.json", text, strlen(text));
    const struct cost cost = cost_of_opening(model->folder, strlen(text));
    CHECK_EQ_I64(cost.status, SY_ERR_FORMAT); /* no model_type */
    CHECK(cost.peak > 5.0 && cost.peak <= 100.0);
    printf("config of %s: %.1f times its length\n", dear->item, cost.peak);
    free(text);
  }
  written_model_destroy(model);
}
