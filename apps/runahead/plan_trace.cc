#include "plan_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

#include "base/input_file.h"
#include "base/json.h"
#include "base/units.h"
#include "kv/kv_pages.h"
#include "output.h"
#include "report/table.h"
#include "report/units.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

using report::Align;

constexpr double kLongestTrace = 1e12;  // ms
constexpr int kHighestPriority = 1'000'000;

/// Reads lines one after the other.
class TraceReader {
 public:
  TraceReader(std::string name, int64_t room) : name_(std::move(name)), room_(room) {}

  void Add(std::string_view line) {
    ++line_;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
    const std::string origin = fmt::format("{}:{}", name_, line_);
    if (std::ssize(requests_) == kMostTraceRequests) {
      throw ConfigError(fmt::format("{}: more than {} requests", origin, kMostTraceRequests));
    }
    const Json json = ParseJson(line, origin);
    requests_.push_back(Read(JsonObject(json, origin)));
  }

  std::vector<TraceRequest> Take() {
    if (requests_.empty()) {
      throw ConfigError(fmt::format("{}: holds no request, expected a JSON object in each line", name_));
    }
    std::stable_sort(requests_.begin(), requests_.end(),
                     [](const auto& a, const auto& b) { return a.at_s < b.at_s; });
    return std::move(requests_);
  }

 private:
  TraceRequest Read(const JsonObject& object) {
    constexpr std::array<std::string_view, 6> kKnown = {"at_ms",  "prompt_tokens", "max_tokens",
                                                        "prefix", "prefix_tokens", "priority"};
    for (const auto& [key, value] : object.json().items()) {
      if (std::find(kKnown.begin(), kKnown.end(), key) != kKnown.end()) continue;
      object.Refuse(key.c_str(),
                    "is not known here (known: at_ms, prompt_tokens, max_tokens, prefix, prefix_tokens, "
                    "priority)");
    }
    TraceRequest request;
    const double at_ms = object.Number("at_ms");
    if (!(at_ms >= 0 && at_ms <= kLongestTrace)) object.Refuse("at_ms", "expected a time from 0 to 1e12 ms");
    request.at_s = at_ms / kMsPerSecond;
    request.prompt_tokens = object.Int("prompt_tokens", 1, room_);
    request.max_tokens = static_cast<int>(object.Int("max_tokens", 1, room_ - request.prompt_tokens + 1));
    request.priority = static_cast<int>(object.Int("priority", -kHighestPriority, kHighestPriority, 0));
    if (!object.Has("prefix")) {
      if (object.Has("prefix_tokens"))
        object.Refuse("prefix_tokens", "expected a `prefix` too, which names the text");
      return request;
    }
    const auto number = static_cast<int>(prefixes_.size());
    request.prefix = prefixes_.emplace(object.String("prefix"), number).first->second;
    request.prefix_tokens = object.Int("prefix_tokens", 1, request.prompt_tokens);
    return request;
  }

  std::string name_;
  int64_t room_;
  int64_t line_ = 0;
  std::map<std::string, int> prefixes_;  // numbers of texts
  std::vector<TraceRequest> requests_;
};

/// Mean and percentiles of one measure over the requests that have it.
struct Spread {
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
};

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {  // the least value that so many are not above
    const double rank = std::ceil(share * static_cast<double>(values.size()));
    return values[static_cast<size_t>(std::max(1.0, rank)) - 1];
  };
  return {std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()), at(0.5), at(0.9),
          at(0.99)};
}

/// What a policy's outcome comes to.
struct Summary {
  Spread ttft_ms;
  Spread tpot_ms;
  Spread pause_ms;
  int64_t refused = 0;
  int64_t together = 0;  // prompts that several ranks read
  int64_t cached_tokens = 0;
  int64_t new_tokens = 0;
  double tokens_per_s = 0;
};

Summary Summarize(const ServingOutcome& outcome) {
  Summary summary;
  std::vector<double> ttft;
  std::vector<double> tpot;
  std::vector<double> pause;
  for (const ServedRequest& served : outcome.requests) {
    if (served.refused) {
      ++summary.refused;
      continue;
    }
    ttft.push_back(served.ttft_ms);
    if (served.new_tokens > 1) {
      tpot.push_back(served.tpot_ms);
      pause.push_back(served.longest_pause_ms);
    }
    summary.together += served.members > 1 ? 1 : 0;
    summary.cached_tokens += served.cached_tokens;
    summary.new_tokens += served.new_tokens;
  }
  summary.ttft_ms = SpreadOf(std::move(ttft));
  summary.tpot_ms = SpreadOf(std::move(tpot));
  summary.pause_ms = SpreadOf(std::move(pause));
  if (outcome.seconds > 0) summary.tokens_per_s = static_cast<double>(summary.new_tokens) / outcome.seconds;
  return summary;
}

std::vector<std::string> SpreadCells(std::string_view policy, const std::string& measure, const Spread& spread) {
  return {std::string(policy),
          measure,
          report::Milliseconds(spread.mean),
          report::Milliseconds(spread.p50),
          report::Milliseconds(spread.p90),
          report::Milliseconds(spread.p99)};
}

Json JsonOf(const Spread& spread) {
  return {{"mean", spread.mean}, {"p50", spread.p50}, {"p90", spread.p90}, {"p99", spread.p99}};
}

}  // namespace

std::vector<TraceRequest> ReadTrace(const std::string& path, int64_t room) {
  const std::string content = ReadInput(path);
  TraceReader reader(path == "-" ? "stdin" : path, room);
  std::string_view rest = content;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    reader.Add(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return reader.Take();
}

int32_t PagesOfMemory(const WorkShape& shape, size_t bytes) {
  constexpr size_t kMostPages = size_t{1} << 20;
  const size_t page_bytes = shape.RowBytes() * static_cast<size_t>(shape.layers) * static_cast<size_t>(kPageRows);
  const size_t pages = std::min(bytes / page_bytes, kMostPages);
  if (pages == 0) {
    throw ConfigError(fmt::format("--kv-memory: {} bytes hold no page of {} tokens, which takes {} bytes", bytes,
                                  kPageRows, page_bytes));
  }
  return static_cast<int32_t>(pages);
}

ServingTable PlayTrace(const DescribedCluster& described, const std::string& path, const ServingLimits& limits) {
  const std::vector<TraceRequest> trace = ReadTrace(path, limits.pages * kPageRows);
  ServingTable table;
  table.model = described.cluster.model;
  table.dtype = described.cluster.dtype;
  table.cluster = described.cluster.origin;
  table.trace = path;
  Progress progress("simulating");
  for (const ServingPolicy policy : kServingPolicies) {
    const auto before = static_cast<double>(table.outcomes.size());
    table.outcomes.push_back(SimulateServing(
        described.shape, described.costs, limits, trace, policy,
        [&](double share) { progress.Show((before + share) / static_cast<double>(kServingPolicies.size())); }));
  }
  return table;
}

std::string ToText(const ServingTable& table) {
  std::vector<std::vector<std::string>> times;
  std::vector<std::vector<std::string>> counts;
  for (const ServingOutcome& outcome : table.outcomes) {
    const Summary summary = Summarize(outcome);
    const std::string_view name = Name(outcome.policy);
    times.push_back(SpreadCells(name, "TTFT", summary.ttft_ms));
    times.push_back(SpreadCells("", "TPOT", summary.tpot_ms));
    times.push_back(SpreadCells("", "longest pause", summary.pause_ms));
    counts.push_back({std::string(name), report::Grouped(std::ssize(outcome.requests) - summary.refused),
                      report::Grouped(summary.refused), report::Grouped(summary.together),
                      report::Grouped(std::llround(summary.tokens_per_s)), report::Grouped(summary.cached_tokens),
                      report::Grouped(outcome.preempted), fmt::format("{:.0f} %", 100 * outcome.busy_share),
                      report::Milliseconds(kMsPerSecond * outcome.seconds)});
  }
  return fmt::format(
      "{}: {}, {}, requests of {}\n\n{}\n{}", table.cluster, table.model, table.dtype, table.trace,
      report::FormatTable({{"policy", Align::kLeft}, {"", Align::kLeft}, {"mean"}, {"50 %"}, {"90 %"}, {"99 %"}},
                          times),
      report::FormatTable({{"policy", Align::kLeft},
                           {"requests"},
                           {"refused"},
                           {"over several ranks"},
                           {"tokens/s"},
                           {"cached tokens"},
                           {"preempted"},
                           {"ranks busy"},
                           {"took"}},
                          counts));
}

std::string ToJson(const ServingTable& table) {
  Json policies = Json::array();
  for (const ServingOutcome& outcome : table.outcomes) {
    const Summary summary = Summarize(outcome);
    policies.push_back({{"policy", std::string(Name(outcome.policy))},
                        {"requests", std::ssize(outcome.requests) - summary.refused},
                        {"refused", summary.refused},
                        {"over_several_ranks", summary.together},
                        {"ttft_ms", JsonOf(summary.ttft_ms)},
                        {"tpot_ms", JsonOf(summary.tpot_ms)},
                        {"longest_pause_ms", JsonOf(summary.pause_ms)},
                        {"tokens_per_second", summary.tokens_per_s},
                        {"new_tokens", summary.new_tokens},
                        {"cached_tokens", summary.cached_tokens},
                        {"preempted", outcome.preempted},
                        {"busy", outcome.busy_share},
                        {"seconds", outcome.seconds}});
  }
  const Json json = {{"cluster", table.cluster},
                     {"model", table.model},
                     {"dtype", table.dtype},
                     {"trace", table.trace},
                     {"policies", std::move(policies)}};
  return json.dump(1) + "\n";
}

}  // namespace runahead::cli
