#include "report/timeline_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/check.h"
#include "report/lanes.h"
#include "report/units.h"

namespace runahead::report {
namespace {

/// Activities of a rank itself.
constexpr std::array kOwnActivities = {Activity::kCompute, Activity::kWait, Activity::kSend};
constexpr const char* kIdleMark = " ";

const char* Mark(Activity activity) {
  switch (activity) {
    case Activity::kCompute:
      return "█";
    case Activity::kWait:
      return "░";
    case Activity::kSend:
      return "▲";
    case Activity::kReceive:
      break;  // done by the sender, or while this rank waits
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown activity");
}

/// Time of each activity in each column, in columns.
using ColumnTimes = std::vector<std::array<double, kOwnActivities.size()>>;

ColumnTimes Fill(const Lane& lane, double end_ms, int columns) {
  ColumnTimes times(static_cast<size_t>(columns));
  for (const TimelineEvent& event : lane.events) {
    if (event.activity == Activity::kReceive) continue;
    const double begin = event.begin_ms / end_ms * columns;
    const double end = event.end_ms / end_ms * columns;
    const int last = std::min(static_cast<int>(end), columns - 1);
    for (int i = std::min(static_cast<int>(begin), columns - 1); i <= last; ++i) {
      const double shared = std::min(end, i + 1.0) - std::max(begin, static_cast<double>(i));
      times[static_cast<size_t>(i)][static_cast<size_t>(event.activity)] += std::max(shared, 0.0);
    }
  }
  return times;
}

std::string BarOf(const Lane& lane, double end_ms, int columns) {
  constexpr double kMostlyIdle = 0.5;
  std::string bar;
  for (const auto& column : Fill(lane, end_ms, columns)) {
    const auto most = std::max_element(column.begin(), column.end());
    const double busy = column[0] + column[1] + column[2];
    bar += busy < kMostlyIdle ? kIdleMark : Mark(kOwnActivities[static_cast<size_t>(most - column.begin())]);
  }
  return bar;
}

std::string Shares(const Lane& lane, double end_ms) {
  std::string shares;
  for (const Activity activity : kOwnActivities) {
    shares += fmt::format("{:>4.0f}%", 100 * lane.Busy(activity) / end_ms);
  }
  return shares;
}

}  // namespace

std::string TimelineText(std::span<const TimelineEvent> events, int columns) {
  CHECK_GT(columns, 0);
  const Lanes lanes = SplitIntoLanes(events);
  if (!(lanes.end_ms > 0)) return "(the timeline is empty)\n";
  const size_t label = fmt::format("rank {}", lanes.ranks.size() - 1).size();
  const std::string margin(label, ' ');

  std::string text = fmt::format("{}  {:{}}  {:>5}{:>5}{:>5}\n", margin, "", columns, Mark(Activity::kCompute),
                                 Mark(Activity::kWait), Mark(Activity::kSend));
  for (const Lane& lane : lanes.ranks) {
    text += fmt::format("{:{}} |{}|{}\n", fmt::format("rank {}", lane.rank), label,
                        BarOf(lane, lanes.end_ms, columns), Shares(lane, lanes.end_ms));
  }
  const std::string end = Milliseconds(lanes.end_ms);
  const int gap = std::max(1, columns - 1 - static_cast<int>(end.size()));
  text += fmt::format("{}  0{:{}}{}\n", margin, "", gap, end);
  text += fmt::format("{}  {} compute   {} wait for rows   {} send rows\n", margin, Mark(Activity::kCompute),
                      Mark(Activity::kWait), Mark(Activity::kSend));
  return text;
}

}  // namespace runahead::report
