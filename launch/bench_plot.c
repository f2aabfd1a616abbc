/* Two charts side by side over the number of tokens, both axes logarithmic: bandwidth with the read
 * limit, and rate with the roofline, which is what the limits allow for the bytes and operations of
 * each T. */
#include <math.h>
#include <stdio.h>

#include "launch/bench.h"

enum { WIDTH = 460, HEIGHT = 300, LEFT = 70, TOP = 60, GAP = 90, BOTTOM = 50 };

struct chart {
  FILE *out;
  const struct bench_report *report;
  const char *title;
  const char *unit;
  double x0;        /* of the chart's left edge */
  double low, high; /* of the values */
  double (*value)(const struct bench_report *report, const struct bench_result *r);
  double (*limit)(const struct bench_report *report, const struct bench_result *r);
};

static double bandwidth(const struct bench_report *report, const struct bench_result *r) {
  (void)report;
  return r->gbs;
}

static double bandwidth_limit(const struct bench_report *report, const struct bench_result *r) {
  (void)report;
  return r->limit_gbs;
}

static double rate(const struct bench_report *report, const struct bench_result *r) {
  (void)report;
  return r->gops;
}

static double roofline(const struct bench_report *report, const struct bench_result *r) {
  (void)report;
  return r->operations / r->floor_us * 1e-3;
}

static double x_of(const struct chart *c, double tokens) {
  const struct bench_report *report = c->report;
  double least = (double)report->results[0].tokens;
  double most = least;
  for (size_t i = 1; i < report->num_results; ++i) {
    least = fmin(least, (double)report->results[i].tokens);
    most = fmax(most, (double)report->results[i].tokens);
  }
  const double span = most > least ? log2(most / least) : 1.0;
  return c->x0 + 24.0 + (WIDTH - 48.0) * log2(tokens / least) / span;
}

static double y_of(const struct chart *c, double value) {
  const double share = log2(fmax(value, c->low) / c->low) / log2(c->high / c->low);
  return TOP + HEIGHT - HEIGHT * fmin(share, 1.0);
}

/* The powers of two around all values and limits. */
static void find_range(struct chart *c) {
  double least = HUGE_VAL;
  double most = 0.0;
  for (size_t i = 0; i < c->report->num_results; ++i) {
    const struct bench_result *r = &c->report->results[i];
    least = fmin(least, fmin(c->value(c->report, r), c->limit(c->report, r)));
    most = fmax(most, fmax(c->value(c->report, r), c->limit(c->report, r)));
  }
  c->low = exp2(floor(log2(least)));
  c->high = exp2(ceil(log2(most)));
  c->high = c->high > c->low ? c->high : 2.0 * c->low;
}

static void draw_axes(const struct chart *c) {
  fprintf(c->out,
          "<rect x=\"%.1f\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" "
          "stroke=\"#888\"/>\n<text x=\"%.1f\" y=\"%d\" font-weight=\"bold\">%s</text>\n",
          c->x0, TOP, WIDTH, HEIGHT, c->x0, TOP - 14, c->title);
  const int doublings = (int)lround(log2(c->high / c->low));
  for (int i = 0; i <= doublings; ++i) {
    const double v = ldexp(c->low, i);
    const double y = y_of(c, v);
    fprintf(c->out,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n"
            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
            c->x0, c->x0 + WIDTH, y, y, c->x0 - 6.0, y + 4.0, v);
  }
  for (size_t i = 0; i < c->report->num_results; ++i) {
    const double tokens = (double)c->report->results[i].tokens;
    fprintf(c->out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n", x_of(c, tokens),
            TOP + HEIGHT + 18, tokens);
  }
  fprintf(c->out,
          "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">tokens</text>\n"
          "<text x=\"%.1f\" y=\"%d\" text-anchor=\"end\">%s</text>\n",
          c->x0 + WIDTH / 2.0, TOP + HEIGHT + 38, c->x0 + WIDTH, TOP - 14, c->unit);
}

static void draw_line(const struct chart *c,
                      double (*value)(const struct bench_report *, const struct bench_result *),
                      const char *style) {
  fprintf(c->out, "<polyline fill=\"none\" %s points=\"", style);
  for (size_t i = 0; i < c->report->num_results; ++i) {
    const struct bench_result *r = &c->report->results[i];
    fprintf(c->out, "%.1f,%.1f ", x_of(c, (double)r->tokens), y_of(c, value(c->report, r)));
  }
  fprintf(c->out, "\"/>\n");
}

static void draw_chart(struct chart *c) {
  find_range(c);
  draw_axes(c);
  draw_line(c, c->limit, "stroke=\"#c33\" stroke-dasharray=\"6 4\" stroke-width=\"2\"");
  draw_line(c, c->value, "stroke=\"#247\" stroke-width=\"2\"");
  for (size_t i = 0; i < c->report->num_results; ++i) {
    const struct bench_result *r = &c->report->results[i];
    const double value = c->value(c->report, r);
    const double x = x_of(c, (double)r->tokens);
    const double y = y_of(c, value);
    const double label = y + 20.0 < TOP + HEIGHT ? y + 20.0 : y - 10.0;
    fprintf(c->out,
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"#247\"/>\n"
            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"#247\">%.*f</text>\n",
            x, y, x, label, value < 100.0 ? 1 : 0, value);
  }
}

bool bench_plot(const struct bench_report *report, const char *path) {
  FILE *out = fopen(path, "w");
  if (out == NULL) {
    return false;
  }
  const struct bench_request *request = report->request;
  const sy_shape *shape = &request->shape;
  struct chart charts[] = {{out, report, "Bandwidth", "GB/s; dashed: read limit", LEFT, 0, 0,
                            bandwidth, bandwidth_limit},
                           {out, report, "Rate", "1e9 operations/s; dashed: roofline",
                            LEFT + WIDTH + GAP, 0, 0, rate, roofline}};
  fprintf(
      out,
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
      "<text x=\"%d\" y=\"24\" font-size=\"15\">%s: %s%shidden %d, intermediate %d, %d experts, "
      "top-%d, %s, %s, %d threads</text>\n",
      LEFT + 2 * WIDTH + GAP + 30, TOP + HEIGHT + BOTTOM, LEFT, request->name,
      request->model == NULL ? "" : request->model, request->model == NULL ? "" : ", ",
      (int)shape->hidden, (int)shape->intermediate, (int)shape->num_experts, (int)shape->top_k,
      option_choice_name(layer_modes, (int)shape->mode),
      option_choice_name(bench_numerics, (int)request->numerics), report->num_threads);
  draw_chart(&charts[0]);
  draw_chart(&charts[1]);
  fprintf(out, "</svg>\n");
  const bool whole = ferror(out) == 0;
  return fclose(out) == 0 && whole;
}
