#include "report/line_chart_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

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
constexpr double kLegendWidth = 300;
constexpr double kLegendLine = 20;
constexpr size_t kColours = 8;

/// Maps [low, high] to pixels logarithmically, with room at both ends.
class LogAxis {
 public:
  LogAxis(double low, double high, double first_pixel, double last_pixel)
      : first_pixel_(first_pixel), last_pixel_(last_pixel) {
    const double room = low == high ? 2 : std::pow(high / low, 0.05);
    low_ = low / room;
    high_ = high * room;
  }
  [[nodiscard]] double low() const { return low_; }
  [[nodiscard]] double high() const { return high_; }
  [[nodiscard]] double Pixel(double value) const {
    return first_pixel_ + (last_pixel_ - first_pixel_) * std::log(value / low_) / std::log(high_ / low_);
  }

 private:
  double low_;
  double high_;
  double first_pixel_;
  double last_pixel_;
};

bool Drawable(const Point& point) {
  return std::isfinite(point.first) && std::isfinite(point.second) && point.first > 0 && point.second > 0;
}

void DrawAxes(SvgCanvas& canvas, const LineChart& chart, const LogAxis& x_axis, const LogAxis& y_axis,
              const std::set<double>& marks) {
  constexpr int kTicks = 14;
  constexpr double kClosestLabels = 34;
  const double bottom = kTop + kPlotHeight;
  for (const double tick : LogTicks(y_axis.low(), y_axis.high(), kTicks)) {
    const double y = y_axis.Pixel(tick);
    canvas.Line(kLeft, y, kLeft + kPlotWidth, y, "grid");
    canvas.Text(kLeft - 8, y + 4, TickLabel(tick), "faint", Anchor::kEnd);
  }
  double last_label = -kClosestLabels;
  for (const double mark : marks) {
    const double x = x_axis.Pixel(mark);
    canvas.Line(x, kTop, x, bottom, "grid");
    if (x - last_label < kClosestLabels) continue;
    canvas.Text(x, bottom + 18, fmt::format("{}", mark), "faint", Anchor::kMiddle);
    last_label = x;
  }
  canvas.Line(kLeft, bottom, kLeft + kPlotWidth, bottom, "axis");
  canvas.Line(kLeft, kTop, kLeft, bottom, "axis");
  canvas.Text(kLeft + kPlotWidth / 2, bottom + 40, chart.x_label, "ink", Anchor::kMiddle);
  canvas.Text(kLeft - 60, kTop - 12, chart.y_label);
}

void DrawSeries(SvgCanvas& canvas, const Series& series, size_t index, const LogAxis& x_axis, const LogAxis& y_axis) {
  const std::string colour = fmt::format("s{}", index % kColours);
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

}  // namespace

std::string LineChartSvg(const LineChart& chart) {
  std::set<double> xs;
  std::set<double> ys;
  for (const Series& series : chart.series) {
    for (const Point& point : series.points) {
      if (!Drawable(point)) continue;
      xs.insert(point.first);
      ys.insert(point.second);
    }
  }
  const double legend = kLegendLine * static_cast<double>(chart.series.size());
  SvgCanvas canvas(kLeft + kPlotWidth + kLegendWidth, kTop + std::max(kPlotHeight, legend) + 56, chart.title);
  canvas.Text(20, 26, chart.title, "ink title");
  if (xs.empty()) {
    canvas.Text(kLeft, kTop + 20, "no points", "faint");
    return canvas.Finish();
  }
  const LogAxis x_axis(*xs.begin(), *xs.rbegin(), kLeft, kLeft + kPlotWidth);
  const LogAxis y_axis(*ys.begin(), *ys.rbegin(), kTop + kPlotHeight, kTop);
  DrawAxes(canvas, chart, x_axis, y_axis, xs);
  for (size_t i = 0; i < chart.series.size(); ++i) DrawSeries(canvas, chart.series[i], i, x_axis, y_axis);
  return canvas.Finish();
}

}  // namespace runahead::report
