/* config.json. Input: its text. */
#include <math.h>

#include "runtime/checkpoint/family.h"
#include "runtime/checkpoint/json.h"
#include "runtime/status.h"
#include "tests/fuzz/fuzz.h"

static void check_model(const struct sy_checkpoint_model *model) {
  const sy_shape *shape = &model->info.shape;
  FUZZ_CHECK(model->family != NULL && model->info.num_layers >= 1);
  FUZZ_CHECK(shape->hidden >= 16 && shape->hidden <= 1 << 20 && shape->hidden % 16 == 0);
  FUZZ_CHECK(shape->intermediate >= 16 && shape->intermediate <= 1 << 20 &&
             shape->intermediate % 16 == 0);
  FUZZ_CHECK(shape->num_experts >= 1 && shape->num_experts <= 65534);
  FUZZ_CHECK(shape->top_k >= 1 && shape->top_k <= shape->num_experts && shape->top_k <= 1024);
  const int32_t last = model->info.num_layers - 1;
  (void)sy_checkpoint_layer_is_dense(model, 0);
  (void)sy_checkpoint_layer_is_dense(model, last);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json_t *config = NULL;
  if (sy_json_parse("config.json", (const char *)data, size, NULL, &config) != SY_OK) {
    FUZZ_CHECK(config == NULL);
    fuzz_check_sentence(sy_last_error(NULL));
    return 0;
  }
  struct sy_checkpoint_model model;
  if (sy_checkpoint_model_read("config.json", config, &model) == SY_OK) {
    check_model(&model);
  } else {
    fuzz_check_sentence(sy_last_error(NULL));
  }
  double number = NAN;
  if (sy_json_number("config.json", config, "rms_norm_eps", &number) == SY_OK) {
    FUZZ_CHECK(!isnan(number));
  } else {
    fuzz_check_sentence(sy_last_error(NULL));
  }
  json_decref(config);
  return 0;
}
