#include "report/timeline_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "report/lanes.h"
#include "report/svg.h"
#include "report/ticks.h"
#include "report/units.h"

namespace runahead::report {
namespace {

constexpr double kLanesLeft = 170;
constexpr double kLanesWidth = 820;
constexpr double kWidth = kLanesLeft + kLanesWidth + 30;
constexpr double kLanesTop = 70;
constexpr double kBar = 22;
constexpr double kTransfers = 5;  // the height of the sends below the bar, and of the receives below them
constexpr double kLane = kBar + 2 * (kTransfers + 1) + 11;
constexpr double kThinnest = 0.4;  // smallest width of an event, so that short ones can be seen
constexpr double kThinnestTransfer = 1;
constexpr std::array kActivities = {Activity::kCompute, Activity::kWait, Activity::kSend, Activity::kReceive};

std::string Tooltip(const TimelineEvent& event) {
  const double ms = event.end_ms - event.begin_ms;
  std::string text = fmt::format("rank {}, layer {}: {} {} (from {})", event.rank, event.layer, Name(event.activity),
                                 Milliseconds(ms), Milliseconds(event.begin_ms));
  if (event.peer >= 0)
    text += fmt::format(" {} rank {}", event.activity == Activity::kSend ? "to" : "from", event.peer);
  if (event.bytes == 0) return text;
  text += ", " + Bytes(event.bytes);
  if (event.activity == Activity::kWait) return text;
  if (const std::string rate = Rate(event.bytes, ms); !rate.empty()) text += " at " + rate;
  return text;
}

std::string Classes(const TimelineEvent& event) {
  std::string classes(Name(event.activity));
  if (event.activity == Activity::kCompute && event.layer % 2 == 1) classes += " odd";
  return classes;
}

/// Pixels from a lane's top to an activity's bar.
double OffsetOf(Activity activity) {
  switch (activity) {
    case Activity::kCompute:
    case Activity::kWait:
      return 0;
    case Activity::kSend:
      return kBar + 1;
    case Activity::kReceive:
      return kBar + kTransfers + 2;
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown activity");
}

void DrawLane(SvgCanvas& canvas, const Lane& lane, double y, double pixels_per_ms) {
  for (const TimelineEvent& event : lane.events) {
    const double x = kLanesLeft + event.begin_ms * pixels_per_ms;
    const bool transfer = event.activity == Activity::kSend || event.activity == Activity::kReceive;
    const double thinnest = transfer ? kThinnestTransfer : kThinnest;
    const double width = std::max(thinnest, (event.end_ms - event.begin_ms) * pixels_per_ms);
    canvas.Rect(x, y + OffsetOf(event.activity), width, transfer ? kTransfers : kBar, Classes(event), Tooltip(event));
    if (event.activity == Activity::kCompute) canvas.Line(x, y, x, y + kBar, "layer");
  }
}

void DrawLegend(SvgCanvas& canvas) {
  double x = kLanesLeft;
  for (const Activity activity : kActivities) {
    canvas.Rect(x, 40, 12, 12, Name(activity));
    canvas.Text(x + 18, 50, Name(activity), "faint");
    x += 90;
  }
  canvas.Text(x, 50, "shades tell layers apart", "faint");
}

void DrawAxis(SvgCanvas& canvas, double end_ms, double pixels_per_ms, double bottom) {
  constexpr int kTicks = 8;
  for (const double tick : LinearTicks(end_ms, kTicks)) {
    const double x = kLanesLeft + tick * pixels_per_ms;
    canvas.Line(x, kLanesTop - 6, x, bottom, "grid");
    canvas.Text(x, bottom + 16, TickLabel(tick), "faint", SvgCanvas::Anchor::kMiddle);
  }
  canvas.Line(kLanesLeft, bottom, kLanesLeft + kLanesWidth, bottom, "axis");
  canvas.Text(kLanesLeft + kLanesWidth, bottom + 34, "ms since the prompt phase began", "faint",
              SvgCanvas::Anchor::kEnd);
}

}  // namespace

std::string TimelineSvg(std::span<const TimelineEvent> events, const TimelineSvgOptions& options) {
  const Lanes lanes = SplitIntoLanes(events);
  const double bottom = kLanesTop + kLane * static_cast<double>(std::max<size_t>(lanes.ranks.size(), 1));
  SvgCanvas canvas(kWidth, bottom + 46, options.title);
  canvas.Text(20, 26, options.title, "ink title");
  DrawLegend(canvas);
  if (!(lanes.end_ms > 0)) {
    canvas.Text(kLanesLeft, kLanesTop + kBar, "no events were recorded", "faint");
    return canvas.Finish();
  }
  const double pixels_per_ms = kLanesWidth / lanes.end_ms;
  DrawAxis(canvas, lanes.end_ms, pixels_per_ms, bottom);
  double y = kLanesTop;
  for (const Lane& lane : lanes.ranks) {
    const auto index = static_cast<size_t>(lane.rank);
    const std::string label = index < options.lanes.size() ? options.lanes[index] : fmt::format("rank {}", lane.rank);
    canvas.Text(kLanesLeft - 12, y + kBar - 6, label, "ink", SvgCanvas::Anchor::kEnd);
    DrawLane(canvas, lane, y, pixels_per_ms);
    y += kLane;
  }
  return canvas.Finish();
}

}  // namespace runahead::report
