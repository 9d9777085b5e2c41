#include "plan_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/json.h"
#include "base/units.h"
#include "output.h"
#include "report/line_chart_svg.h"
#include "report/svg.h"
#include "report/table.h"
#include "report/timeline_svg.h"
#include "report/units.h"

namespace runahead::cli {
namespace {

using report::Align;

constexpr int kMostChunks = 8;  // chunks of a partition, in a table

std::string Chunks(const Partition& partition) {
  if (partition.ranks() <= kMostChunks) return partition.ToString();
  return fmt::format("{} ... {}", partition.rows(0), partition.rows(partition.ranks() - 1));
}

/// TTFT of one scheme, or "" where the row has none.
std::string TimeOf(const PlanRow& row, Scheme scheme) {
  for (const PlannedScheme& planned : row.schemes) {
    if (planned.scheme == scheme) return report::Milliseconds(planned.ttft_s * kMsPerSecond);
  }
  return "";
}

std::string MainTable(const PlanTable& table) {
  std::vector<report::Column> columns = {{"tokens"},   {"ranks"},      {"best", Align::kLeft}, {"TTFT"},
                                         {"speed-up"}, {"efficiency"}, {"busiest link"}};
  for (const Scheme scheme : kSchemes) {
    if (scheme != Scheme::kSingle) columns.push_back({std::string(Name(scheme))});
  }
  columns.push_back({"partition", Align::kLeft});
  std::vector<std::vector<std::string>> cells;
  for (const PlanRow& row : table.rows) {
    const PlannedScheme& best = row.schemes[row.best];
    std::vector<std::string> line = {
        report::Grouped(row.context),          std::to_string(row.members.size()),
        std::string(Name(best.scheme)),        report::Milliseconds(best.ttft_s * kMsPerSecond),
        fmt::format("{:.2f}x", row.SpeedUp()), fmt::format("{:.0f} %", 100 * row.Efficiency()),
        report::Bytes(best.busiest_bytes)};
    for (const Scheme scheme : kSchemes) {
      if (scheme != Scheme::kSingle) line.push_back(TimeOf(row, scheme));
    }
    line.push_back(Chunks(best.partition));
    cells.push_back(std::move(line));
  }
  return report::FormatTable(columns, cells);
}

std::string CounterTables(const PlanTable& table) {
  std::string text;
  for (const CountedScheme& counted : table.counters) {
    int64_t busiest = 0;
    int64_t entries = 0;
    std::vector<std::vector<std::string>> cells;
    for (size_t rank = 0; rank < counted.ranks.size(); ++rank) {
      const RankCounters& counters = counted.ranks[rank];
      busiest = std::max(busiest, counters.dot_products);
      entries += counters.sent_entries;
      const bool chunks = counted.scheme != Scheme::kTensorParallel;
      cells.push_back({std::to_string(rank),
                       report::Grouped(chunks ? counted.partition.rows(static_cast<int>(rank)) : counted.context),
                       report::Grouped(counters.dot_products), report::Grouped(counters.sent_entries),
                       fmt::format("{:.4g}", counters.linear_flops), fmt::format("{:.4g}", counters.attention_flops),
                       report::Bytes(counters.sent_bytes), report::Bytes(counters.received_bytes)});
    }
    text +=
        fmt::format("\n{}, {} tokens on {} ranks: {} dot products on the busiest rank, {} entries of K and V moved\n",
                    Name(counted.scheme), report::Grouped(counted.context), counted.ranks.size(),
                    report::Grouped(busiest), report::Grouped(entries));
    text += report::FormatTable({{"rank"},
                                 {"tokens"},
                                 {"dot products"},
                                 {"entries sent"},
                                 {"matmul FLOPs"},
                                 {"attention FLOPs"},
                                 {"sent"},
                                 {"received"}},
                                cells);
  }
  if (!text.empty())
    text += "Dot products and entries are those of one head in one layer; the rest is the whole phase.\n";
  return text;
}

Json JsonOf(const CountedScheme& counted) {
  Json ranks = Json::array();
  for (const RankCounters& counters : counted.ranks) {
    ranks.push_back({{"dot_products", counters.dot_products},
                     {"entries_sent", counters.sent_entries},
                     {"linear_flops", counters.linear_flops},
                     {"attention_flops", counters.attention_flops},
                     {"sent_bytes", counters.sent_bytes},
                     {"received_bytes", counters.received_bytes}});
  }
  return {{"context", counted.context},
          {"strategy", std::string(Name(counted.scheme))},
          {"cuts", counted.partition.cuts()},
          {"ranks", std::move(ranks)}};
}

Json JsonOf(const PlanRow& row) {
  Json schemes = Json::array();
  for (const PlannedScheme& planned : row.schemes) {
    schemes.push_back({{"strategy", std::string(Name(planned.scheme))},
                       {"ttft_ms", planned.ttft_s * kMsPerSecond},
                       {"speed_up", row.single_s / planned.ttft_s},
                       {"busiest_link_bytes", planned.busiest_bytes},
                       {"cuts", planned.partition.cuts()}});
  }
  const PlannedScheme& best = row.schemes[row.best];
  return {{"context", row.context},
          {"ranks", row.members.size()},
          {"devices", row.members},
          {"best", std::string(Name(best.scheme))},
          {"ttft_ms", best.ttft_s * kMsPerSecond},
          {"speed_up", row.SpeedUp()},
          {"efficiency", row.Efficiency()},
          {"busiest_link_bytes", best.busiest_bytes},
          {"left_out", row.left_out},
          {"strategies", std::move(schemes)}};
}

/// The model and the cluster, by the names of their folder and file.
std::string Subject(const PlanTable& table) {
  return fmt::format("{} on {}", NameOfFolder(table.model), NameOfFolder(table.cluster));
}

}  // namespace

std::string ToText(const PlanTable& table) {
  std::string text = fmt::format(
      "{}: {}, {}{}\n\n{}", table.cluster, table.model, table.dtype,
      table.wire == WireFormat::kExact ? "" : fmt::format(", rows in {}", Name(table.wire)), MainTable(table));
  for (const PlanRow& row : table.rows) {
    if (row.left_out.empty()) continue;
    text += fmt::format("{} tokens on {} ranks: better without device {}\n", report::Grouped(row.context),
                        row.members.size(), fmt::join(row.left_out, ", "));
  }
  return text + CounterTables(table);
}

std::string ToJson(const PlanTable& table) {
  Json rows = Json::array();
  for (const PlanRow& row : table.rows) rows.push_back(JsonOf(row));
  Json json = {{"cluster", table.cluster},
               {"model", table.model},
               {"dtype", table.dtype},
               {"wire", std::string(Name(table.wire))},
               {"results", std::move(rows)}};
  for (const CountedScheme& counted : table.counters) json["counters"].push_back(JsonOf(counted));
  return json.dump(1) + "\n";
}

std::string TimelineOf(const PlanTable& table, const Simulation& played) {
  const PlanRow& row = table.rows.back();
  const PlannedScheme& best = row.schemes[row.best];
  report::TimelineSvgOptions options;
  options.title =
      fmt::format("{}: {} tokens, {} over {} ranks, {} predicted", Subject(table), report::Grouped(row.context),
                  Name(best.scheme), row.members.size(), report::Milliseconds(best.ttft_s * kMsPerSecond));
  for (int rank = 0; rank < best.partition.ranks(); ++rank) {
    options.lanes.push_back(fmt::format("rank {}: {} tokens", rank, report::Grouped(best.partition.rows(rank))));
  }
  if (best.scheme == Scheme::kTensorParallel) options.lanes.clear();
  return report::TimelineSvg(played.timeline, options);
}

std::string ToSvg(const PlanTable& table, const Simulation& played) {
  constexpr double kVisible = 0.2;  // share of the ranks: below it an axis up to them would hide the speed-ups
  report::LineChart chart{fmt::format("{}: speed-up of the best strategy", Subject(table)),
                          "ranks",
                          "speed-up",
                          {},
                          report::Scale::kLinear};
  double most_ranks = 0;
  double most_speed_up = 0;
  for (const PlanRow& row : table.rows) {
    const std::string name = report::Grouped(row.context) + " tokens";
    if (chart.series.empty() || chart.series.back().name != name) chart.series.push_back({name, {}});
    chart.series.back().points.emplace_back(static_cast<double>(row.members.size()), row.SpeedUp());
    most_ranks = std::max(most_ranks, static_cast<double>(row.members.size()));
    most_speed_up = std::max(most_speed_up, row.SpeedUp());
  }
  if (most_speed_up >= kVisible * most_ranks) chart.y_reach = most_ranks;
  const std::vector<std::string> both = {report::LineChartSvg(chart), TimelineOf(table, played)};
  return report::StackSvg(both);
}

}  // namespace runahead::cli
