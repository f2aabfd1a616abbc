/* Three charts over the number of ranks, both axes logarithmic: what a token moves and how long the
 * exchange takes, by exact rows and by gather, and what a rank keeps in memory. */
#include <math.h>

#include "launch/plan.h"
#include "launch/text.h"

enum { WIDTH = 300, HEIGHT = 220, LEFT = 66, TOP = 92, STEP = 388, BOTTOM = 62, CURVES = 3 };

/* A curve is a number for each world, 0 where there is none. */
struct curve {
  const char *name;
  const char *colour;
  double (*value)(const struct plan_sheet *sheet, const struct plan_rival *rivals);
};

struct chart {
  const char *title;
  double base; /* of the lines across */
  char *(*label)(char text[TEXT_SIZE], double value);
  struct curve curves[CURVES];
};

static double exact_bytes(const struct plan_sheet *sheet, const struct plan_rival *rivals) {
  (void)sheet;
  return rivals[0].token_bytes;
}

static double gather_bytes(const struct plan_sheet *sheet, const struct plan_rival *rivals) {
  (void)sheet;
  return rivals[1].token_bytes;
}

static double exact_time(const struct plan_sheet *sheet, const struct plan_rival *rivals) {
  (void)sheet;
  return rivals[0].exchange_us;
}

static double gather_time(const struct plan_sheet *sheet, const struct plan_rival *rivals) {
  (void)sheet;
  return rivals[1].exchange_us;
}

static double weight_memory(const struct plan_sheet *sheet, const struct plan_rival *rivals) {
  (void)rivals;
  return (double)sheet->info.weight_bytes;
}

static double exchange_memory(const struct plan_sheet *sheet, const struct plan_rival *rivals) {
  (void)rivals;
  return sheet->world > 1 ? (double)sheet->info.exchange_bytes : 0.0;
}

static double scratch_memory(const struct plan_sheet *sheet, const struct plan_rival *rivals) {
  (void)rivals;
  return (double)sheet->info.scratch_bytes;
}

static char *bytes_label(char text[TEXT_SIZE], double value) {
  return text_bytes(text, (uint64_t)(value + 0.5));
}

static const struct chart charts[] = {
    {"Expected traffic of a token",
     4.0,
     bytes_label,
     {{"exact", "#4269d0", exact_bytes}, {"gather", "#e8833a", gather_bytes}, {NULL, NULL, NULL}}},
    {"Predicted exchange",
     10.0,
     text_time,
     {{"exact", "#4269d0", exact_time}, {"gather", "#e8833a", gather_time}, {NULL, NULL, NULL}}},
    {"Memory of a rank, one layer",
     4.0,
     bytes_label,
     {{"weights", "#3ca951", weight_memory},
      {"exchange", "#9463d6", exchange_memory},
      {"scratch", "#8a5a44", scratch_memory}}},
};
enum { CHARTS = sizeof charts / sizeof charts[0] };

struct picture {
  FILE *out;
  const struct plan_sheet *sheets;
  const struct plan_rival (*rivals)[2];
  size_t count;
  double x0;        /* of the chart's left edge */
  double low, high; /* of its values */
};

static double x_of(const struct picture *p, double world) {
  const double first = (double)p->sheets[0].world;
  const double last = (double)p->sheets[p->count - 1].world;
  const double span = last > first ? log2(last / first) : 1.0;
  return p->x0 + WIDTH * log2(world / first) / span;
}

static double y_of(const struct picture *p, double value) {
  return TOP + HEIGHT - HEIGHT * log2(value / p->low) / log2(p->high / p->low);
}

/* Powers of the base around every value. */
static void find_range(struct picture *p, const struct chart *chart) {
  double least = INFINITY;
  double most = 0.0;
  for (int c = 0; c < CURVES && chart->curves[c].name != NULL; ++c) {
    for (size_t i = 0; i < p->count; ++i) {
      const double value = chart->curves[c].value(&p->sheets[i], p->rivals[i]);
      if (value > 0.0) {
        least = fmin(least, value);
        most = fmax(most, value);
      }
    }
  }
  least = isfinite(least) ? least : 1.0;
  most = fmax(most, least);
  p->low = pow(chart->base, floor(log2(least) / log2(chart->base)));
  p->high = pow(chart->base, ceil(log2(most) / log2(chart->base)));
  p->high = p->high > p->low ? p->high : chart->base * p->low;
}

static void draw_axes(const struct picture *p, const struct chart *chart) {
  char text[TEXT_SIZE];
  const int steps = (int)lround(log2(p->high / p->low) / log2(chart->base));
  for (int step = 0; step <= steps; step += (steps + 5) / 6) {
    const double value = p->low * pow(chart->base, step);
    fprintf(p->out,
            "<path d=\"M%.1f %.1fh%d\" class=\"grid\"/><text x=\"%.1f\" y=\"%.1f\" "
            "class=\"tick right\">%s</text>\n",
            p->x0, y_of(p, value), WIDTH, p->x0 - 8.0, y_of(p, value) + 4.0,
            chart->label(text, value));
  }
  double free_from = 0.0;
  for (size_t i = 0; i < p->count; ++i) {
    const double x = x_of(p, (double)p->sheets[i].world);
    if (x >= free_from) {
      fprintf(p->out, "<text x=\"%.1f\" y=\"%d\" class=\"tick middle\">%d</text>\n", x,
              TOP + HEIGHT + 20, (int)p->sheets[i].world);
      free_from = x + 26.0;
    }
  }
  fprintf(p->out, "<text x=\"%.1f\" y=\"%d\" class=\"tick middle\">ranks</text>\n",
          p->x0 + WIDTH / 2.0, TOP + HEIGHT + 40);
}

static void draw_curve(const struct picture *p, const struct curve *curve) {
  const char *command = "M";
  fprintf(p->out,
          "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2.5\" stroke-linejoin=\"round\" "
          "d=\"",
          curve->colour);
  for (size_t i = 0; i < p->count; ++i) {
    const double value = curve->value(&p->sheets[i], p->rivals[i]);
    if (value > 0.0) {
      fprintf(p->out, "%s%.1f %.1f", command, x_of(p, (double)p->sheets[i].world), y_of(p, value));
      command = "L";
    }
  }
  fprintf(p->out, "\"/>\n");
  for (size_t i = 0; i < p->count; ++i) {
    const double value = curve->value(&p->sheets[i], p->rivals[i]);
    if (value > 0.0) {
      fprintf(p->out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.2\" fill=\"%s\"/>\n",
              x_of(p, (double)p->sheets[i].world), y_of(p, value), curve->colour);
    }
  }
}

static void draw_chart(struct picture *p, const struct chart *chart) {
  find_range(p, chart);
  fprintf(p->out, "<text x=\"%.1f\" y=\"%d\" class=\"title\">%s</text>\n", p->x0, TOP - 30,
          chart->title);
  draw_axes(p, chart);
  double x = p->x0;
  for (int c = 0; c < CURVES && chart->curves[c].name != NULL; ++c) {
    const struct curve *curve = &chart->curves[c];
    draw_curve(p, curve);
    fprintf(p->out,
            "<circle cx=\"%.1f\" cy=\"%d\" r=\"4\" fill=\"%s\"/><text x=\"%.1f\" y=\"%d\" "
            "class=\"tick\">%s</text>\n",
            x + 4.0, TOP - 14, curve->colour, x + 13.0, TOP - 10, curve->name);
    x += 84.0;
  }
}

/* "qwen3-30b, 4096 tokens a rank; in a host ..." */
static void draw_head(const struct picture *p, const struct plan_request *request) {
  const sy_link *link = &request->desc.link;
  fprintf(p->out, "<text x=\"24\" y=\"34\" class=\"head\">%s: %lld tokens a rank, %s, %s</text>\n",
          request->model != NULL ? request->model : "One layer",
          (long long)request->desc.max_tokens,
          option_choice_name(layer_modes, (int)request->shape.mode),
          option_choice_name(plan_combines, (int)request->desc.combine));
  fprintf(p->out, "<text x=\"%d\" y=\"34\" class=\"tick right\">links: %g us, %g GB/s",
          CHARTS * STEP + 4, link->in_host.latency_us, link->in_host.bandwidth_gbs);
  if (link->ranks_per_host > 0) {
    fprintf(p->out, " in a host of %d; %g us, %g GB/s between", (int)link->ranks_per_host,
            link->between_hosts.latency_us, link->between_hosts.bandwidth_gbs);
  }
  fprintf(p->out, "</text>\n");
}

bool plan_draw(const struct plan_request *request, const struct plan_sheet *sheets,
               const struct plan_rival (*rivals)[2], size_t count, FILE *out) {
  struct picture picture = {.out = out, .sheets = sheets, .rivals = rivals, .count = count};
  const int width = CHARTS * STEP + 28;
  const int height = TOP + HEIGHT + BOTTOM;
  fprintf(out,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
          "viewBox=\"0 0 %d %d\" font-family=\"Inter, 'Helvetica Neue', Arial, sans-serif\">\n"
          "<style>text{fill:#1e293b}.head{font-size:17px;font-weight:600}"
          ".title{font-size:14px;font-weight:600}.tick{font-size:11px;fill:#475569}"
          ".right{text-anchor:end}.middle{text-anchor:middle}"
          ".grid{stroke:#dde5ee;stroke-width:1}</style>\n"
          "<rect width=\"%d\" height=\"%d\" rx=\"14\" fill=\"#fff\"/>\n",
          width, height, width, height, width, height);
  draw_head(&picture, request);
  for (int c = 0; c < CHARTS; ++c) {
    picture.x0 = LEFT + 8.0 + c * STEP;
    draw_chart(&picture, &charts[c]);
  }
  fprintf(out, "</svg>\n");
  return ferror(out) == 0;
}
