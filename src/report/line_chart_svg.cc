#include "report/line_chart_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "report/bar_chart_svg.h"
#include "report/svg.h"
#include "report/ticks.h"

namespace runahead::report {
namespace {

using Anchor = SvgCanvas::Anchor;
using Point = std::pair<double, double>;

constexpr double kLeft = 80;
constexpr double kTop = 60;
constexpr double kPlotWidth = 620;
constexpr double kPlotHeight = 360;
constexpr double kLegendWidth = 60;  // beside its longest name
constexpr double kLegendLine = 20;

bool Drawable(const Point& point) {
  return std::isfinite(point.first) && std::isfinite(point.second) && point.first > 0 && point.second > 0;
}

void DrawAxes(SvgCanvas& canvas, const LineChart& chart, const Axis& x_axis, const Axis& y_axis,
              const std::set<double>& xs) {
  const double bottom = kTop + kPlotHeight;
  for (const double mark : ClearMarks(y_axis, y_axis.Ticks(), [](const std::string&) { return 18.0; })) {
    const double y = y_axis.Pixel(mark);
    canvas.Line(kLeft, y, kLeft + kPlotWidth, y, "grid");
    canvas.Text(kLeft - 8, y + 4, TickLabel(mark), "faint tick-y", Anchor::kEnd);
  }
  std::vector<double> wanted = {*xs.rbegin()};  // the ends first
  wanted.insert(wanted.end(), xs.begin(), xs.end());
  const auto room = [](const std::string& label) { return TextWidth(label) + 10; };
  if (ClearMarks(x_axis, wanted, room).size() < 3) {  // points too close to each other
    for (const double tick : x_axis.Ticks()) wanted.push_back(tick);
  }
  for (const double mark : ClearMarks(x_axis, wanted, room)) {
    const double x = x_axis.Pixel(mark);
    canvas.Line(x, kTop, x, bottom, "grid");
    canvas.Text(x, bottom + 18, TickLabel(mark), "faint tick-x", Anchor::kMiddle);
  }
  canvas.Line(kLeft, bottom, kLeft + kPlotWidth, bottom, "axis");
  canvas.Line(kLeft, kTop, kLeft, bottom, "axis");
  canvas.Text(kLeft + kPlotWidth / 2, bottom + 40, chart.x_label, "ink", Anchor::kMiddle);
  canvas.Text(20, kTop - 12, chart.y_label);
}

void DrawSeries(SvgCanvas& canvas, const Series& series, size_t index, const Axis& x_axis, const Axis& y_axis) {
  const std::string colour = fmt::format("s{}", index % kSeriesColours);
  std::vector<Point> pixels;
  for (const Point& point : series.points) {
    if (Drawable(point)) pixels.emplace_back(x_axis.Pixel(point.first), y_axis.Pixel(point.second));
  }
  canvas.Polyline(pixels, colour);
  for (const Point& point : series.points) {
    if (!Drawable(point)) continue;
    canvas.Dot(x_axis.Pixel(point.first), y_axis.Pixel(point.second), colour,
               fmt::format("{}: {:.4g} at {}", series.name, point.second, point.first));
  }
  const double x = kLeft + kPlotWidth + 24;
  const double y = kTop + 10 + kLegendLine * static_cast<double>(index);
  canvas.Line(x, y, x + 22, y, "key " + colour);
  canvas.Text(x + 30, y + 4, series.name);
}

/// A bar for each point: by series where all have one x, by x otherwise.
std::string AsBars(const LineChart& chart, bool one_x) {
  BarChart bars{chart.title, chart.y_label, {}, chart.y_reach};
  for (const Series& series : chart.series) {
    for (const Point& point : series.points) {
      if (!Drawable(point)) continue;
      const std::string x = fmt::format("{} {}", TickLabel(point.first), chart.x_label);
      if (bars.bars.empty()) bars.title += one_x ? ", " + x : ", " + series.name;
      bars.bars.push_back({one_x ? series.name : x, point.second});
    }
  }
  return BarChartSvg(bars);
}

}  // namespace

std::string LineChartSvg(const LineChart& chart) {
  constexpr double kMostLinear = 16;  // times the smallest x
  std::set<double> xs;
  std::set<double> ys;
  double names = 0;  // pixels of the widest name
  for (const Series& series : chart.series) {
    names = std::max(names, TextWidth(series.name));
    for (const Point& point : series.points) {
      if (!Drawable(point)) continue;
      xs.insert(point.first);
      ys.insert(point.second);
    }
  }
  if (xs.size() == 1 || (!xs.empty() && chart.series.size() == 1)) return AsBars(chart, xs.size() == 1);
  const double legend = kLegendLine * static_cast<double>(chart.series.size());
  const double width = kLeft + kPlotWidth + kLegendWidth + names;
  SvgCanvas canvas(std::max(width, 40 + 1.3 * TextWidth(chart.title)), kTop + std::max(kPlotHeight, legend) + 56,
                   chart.title);
  canvas.Text(20, 26, chart.title, "ink title");
  if (xs.empty()) {
    canvas.Text(kLeft, kTop + 20, "no points", "faint");
    return canvas.Finish();
  }
  const bool linear = chart.y_scale == Scale::kLinear;
  const Scale x_scale = linear && *xs.rbegin() <= kMostLinear * *xs.begin() ? Scale::kLinear : Scale::kLogarithmic;
  const Axis x_axis(x_scale, *xs.begin(), *xs.rbegin(), kLeft, kLeft + kPlotWidth);
  const double highest = linear ? std::max(*ys.rbegin(), chart.y_reach) : *ys.rbegin();
  const Axis y_axis(chart.y_scale, *ys.begin(), highest, kTop + kPlotHeight, kTop);
  DrawAxes(canvas, chart, x_axis, y_axis, xs);
  for (size_t i = 0; i < chart.series.size(); ++i) DrawSeries(canvas, chart.series[i], i, x_axis, y_axis);
  return canvas.Finish();
}

}  // namespace runahead::report
