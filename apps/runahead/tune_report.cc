#include "tune_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "report/table.h"
#include "report/units.h"

namespace runahead::cli {
namespace {

std::string Describe(const LinkCost& link) {
  return fmt::format("{:.3g} GB/s, {:.1f} us of set-up, {:.1f} us to wake the receiver\n", link.bytes_per_s / 1e9,
                     1e6 * link.setup_s, 1e6 * link.latency_s);
}

/// One line where all are alike, else one for each direction.
std::string LinksText(const LinkTable& links) {
  std::string each;
  bool alike = true;
  for (int from = 0; from < links.ranks(); ++from) {
    for (int to = 0; to < links.ranks(); ++to) {
      if (from == to) continue;
      alike = alike && links.Between(from, to) == links.Between(0, 1);
      each += fmt::format("link {} -> {}: {}", from, to, Describe(links.Between(from, to)));
    }
  }
  return alike && !each.empty() ? "links: " + Describe(links.Between(0, 1)) : each;
}

}  // namespace

std::string ToText(const CostProfile& profile) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [active, costs] : profile.active) {
    for (size_t rank = 0; rank < costs.devices.size(); ++rank) {
      const RowCost& most = costs.devices[rank].knots.back();
      rows.push_back({std::to_string(active), std::to_string(rank), report::Grouped(most.rows),
                      fmt::format("{:.2f} us", 1e6 * most.layer_s / static_cast<double>(most.rows)),
                      fmt::format("{:.2f} ns", 1e9 * most.pair_s), fmt::format("{:.1f} us", 1e6 * costs.start_s),
                      costs.devices[rank].name});
    }
  }
  const std::string text = report::FormatTable({{"ranks at work"},
                                                {"rank"},
                                                {"rows"},
                                                {"a row of a layer"},
                                                {"a pair of a layer"},
                                                {"start"},
                                                {"device", report::Align::kLeft}},
                                               rows);
  return text + LinksText(profile.active.rbegin()->second.links);
}

std::string ToText(const std::vector<SearchReport>& reports) {
  std::vector<std::vector<std::string>> rows;
  double single_s = 0;
  for (const SearchReport& report : reports) {
    const Partition& partition = report.best.partition;
    const bool single = partition.ranks() == 1;
    if (single) single_s = report.best.ttft_s;
    rows.push_back({report::Grouped(partition.tokens()), std::to_string(partition.ranks()),
                    std::string(Name(report.best.scheme)), report::Milliseconds(report.best.ttft_s * 1e3),
                    fmt::format("{:.2f}x", single_s / report.best.ttft_s), single ? "" : partition.ToString(),
                    single ? "" : report.direct_solve.ToString(), single ? "" : std::to_string(report.evaluations)});
  }
  return report::FormatTable({{"tokens"},
                              {"ranks"},
                              {"strategy", report::Align::kLeft},
                              {"TTFT"},
                              {"speed-up"},
                              {"searched"},
                              {"solved directly"},
                              {"partitions timed"}},
                             rows);
}

std::string ToText(const std::vector<Checked>& checked) {
  std::vector<std::vector<std::string>> rows;
  double largest = 0;
  for (const Checked& row : checked) {
    largest = std::max(largest, std::abs(row.difference));
    rows.push_back({report::Grouped(row.context), row.way, row.partition, report::Milliseconds(row.predicted_ms),
                    report::Milliseconds(row.measured_ms), fmt::format("{:.2f}x", row.slowdown),
                    fmt::format("{:+.1f} %", 100 * row.difference),
                    fmt::format("{} of {}", row.undisturbed, row.rounds)});
  }
  return report::FormatTable({{"tokens"},
                              {"strategy", report::Align::kLeft},
                              {"partition"},
                              {"predicted"},
                              {"measured"},
                              {"slowdown"},
                              {"difference"},
                              {"undisturbed"}},
                             rows) +
         fmt::format("largest difference: {:.1f} %\n", 100 * largest);
}

std::string ToJson(const std::vector<Checked>& checked) {
  Json rows = Json::array();
  for (const Checked& row : checked) {
    rows.push_back({{"context", row.context},
                    {"strategy", row.way},
                    {"partition", row.partition},
                    {"predicted_ms", row.predicted_ms},
                    {"measured_ms", row.measured_ms},
                    {"slowdown", row.slowdown},
                    {"difference", row.difference},
                    {"rounds", row.rounds},
                    {"undisturbed_rounds", row.undisturbed}});
  }
  return Json{{"checked", std::move(rows)}}.dump(1) + "\n";
}

}  // namespace runahead::cli
