/* Loading is lean: what is resident stays within the prepacked weights and 64 MiB. */
#include <stdio.h>
#include <sys/resource.h>

#include "runtime/switchyard_checkpoint.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"

#if defined(__SANITIZE_ADDRESS__)
enum { HAS_SHADOW = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { HAS_SHADOW = 1 };
#else
enum { HAS_SHADOW = 0 };
#endif
#else
enum { HAS_SHADOW = 0 };
#endif

enum { HIDDEN = 4096, INTERMEDIATE = 2048, EXPERTS = 2 };

static size_t peak_bytes(void) {
  struct rusage usage;
  CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
  return (size_t)usage.ru_maxrss * 1024;
}

/* Zeros, which take no memory here; an expert of 96 MiB in F32. */
static struct written_model *large_model(void) {
  static const char *const names[] = {"gate", "up", "down"};
  const int64_t shapes[][2] = {
      {INTERMEDIATE, HIDDEN}, {INTERMEDIATE, HIDDEN}, {HIDDEN, INTERMEDIATE}};
  struct written_model *model = written_model_create(&(struct written_sizes){0});
  model->sizes.layers = model->sizes.top_k = 1;
  model->sizes.hidden = HIDDEN;
  model->sizes.intermediate = INTERMEDIATE;
  model->sizes.experts = EXPERTS;
  for (int i = 0; i < 3 * EXPERTS; ++i) {
    char name[96];
    snprintf(name, sizeof name, "model.layers.0.mlp.experts.%d.%s_proj.weight", i / 3,
             names[i % 3]);
    written_tensor_add(model, name, "F32", 2, shapes[i % 3],
                       (size_t)HIDDEN * INTERMEDIATE * sizeof(float), NULL);
  }
  return model;
}

TEST(a_load_holds_the_prepacked_weights_and_little_else) {
  if (HAS_SHADOW) {
    SKIP("a sanitizer's shadow memory is resident too");
  }
  struct written_model *model = large_model();
  written_model_save(model, 1);
  sy_group *group = local_group(4);
  sy_checkpoint *checkpoint = NULL;
  sy_model_info info = SY_MODEL_INFO_INIT;
  sy_layer *layer = NULL;
  if (CHECK_OK(sy_checkpoint_open(model->folder, &checkpoint)) &&
      CHECK_OK(sy_checkpoint_model(checkpoint, &info))) {
    info.shape.mode = SY_MODE_W4A16;
    const size_t before = peak_bytes();
    if (CHECK_OK(sy_layer_create(group, &info.shape, &layer)) &&
        CHECK_OK(sy_layer_load_checkpoint(layer, checkpoint, 0))) {
      const size_t prepacked = sy_layer_weight_bytes(layer);
      const size_t grown = peak_bytes() - before;
      printf("resident: %zu bytes more, for %zu of prepacked weights\n", grown, prepacked);
      CHECK(grown >= prepacked / 2); /* the measure measures */
      CHECK(grown <= prepacked + ((size_t)64 << 20));
    }
  }
  sy_layer_destroy(layer);
  sy_checkpoint_close(checkpoint);
  sy_group_destroy(group);
  written_model_destroy(model);
}
