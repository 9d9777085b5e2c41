#include "report/bar_chart_svg.h"

#include <fmt/format.h>

#include <algorithm>

#include "report/axis.h"
#include "report/svg.h"
#include "report/ticks.h"

namespace runahead::report {
namespace {

using Anchor = SvgCanvas::Anchor;

constexpr double kBarsTop = 60;
constexpr double kMargin = 20;
constexpr double kBarsWidth = 560;
constexpr double kValueWidth = 90;
constexpr double kBarHeight = 20;
constexpr double kBarStep = 28;

}  // namespace

std::string BarChartSvg(const BarChart& chart) {
  double names = 0;  // pixels of the widest name
  double highest = chart.reach;
  for (const Bar& bar : chart.bars) {
    names = std::max(names, TextWidth(bar.name));
    highest = std::max(highest, bar.value);
  }
  const double left = kMargin + names + 12;
  const double bottom = kBarsTop + kBarStep * static_cast<double>(chart.bars.size()) + 6;
  const double width = std::max(left + kBarsWidth + kValueWidth, 2 * kMargin + 1.3 * TextWidth(chart.title));
  SvgCanvas canvas(width, bottom + 62, chart.title);
  canvas.Text(kMargin, 26, chart.title, "ink title");
  if (chart.bars.empty()) {
    canvas.Text(kMargin, kBarsTop, "no values", "faint");
    return canvas.Finish();
  }
  const Axis axis(Scale::kLinear, highest, highest, left, left + kBarsWidth);
  const auto room = [](const std::string& label) { return TextWidth(label) + 10; };
  for (const double mark : ClearMarks(axis, axis.Ticks(), room)) {
    const double x = axis.Pixel(mark);
    canvas.Line(x, kBarsTop, x, bottom, "grid");
    canvas.Text(x, bottom + 18, TickLabel(mark), "faint tick-x", Anchor::kMiddle);
  }
  for (size_t i = 0; i < chart.bars.size(); ++i) {
    const Bar& bar = chart.bars[i];
    const double y = kBarsTop + 4 + kBarStep * static_cast<double>(i);
    const double end = axis.Pixel(bar.value);
    const std::string value = fmt::format("{:.4g}", bar.value);
    canvas.Text(left - 8, y + 14, bar.name, "ink", Anchor::kEnd);
    canvas.Rect(left, y, end - left, kBarHeight, fmt::format("bar s{}", i % kSeriesColours),
                fmt::format("{}: {}", bar.name, value));
    canvas.Text(end + 6, y + 14, value, "ink value");
  }
  canvas.Line(left, kBarsTop, left, bottom, "axis");
  canvas.Line(left, bottom, left + kBarsWidth, bottom, "axis");
  canvas.Text(left + kBarsWidth / 2, bottom + 42, chart.value_label, "ink", Anchor::kMiddle);
  return canvas.Finish();
}

}  // namespace runahead::report
