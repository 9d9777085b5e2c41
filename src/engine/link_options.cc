#include "engine/link_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr double kSlowest = 1e3;  // bytes per second
constexpr double kFastest = 1e15;

/// "10GB/s", "500MB/s", "80Gbit/s" in bytes per second.
std::optional<double> ParseRate(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 4> kUnits{
      {{"GB/s", 1e9}, {"MB/s", 1e6}, {"kB/s", 1e3}, {"Gbit/s", 1e9 / 8}}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  for (const auto& [name, factor] : kUnits) {
    if (name != unit) continue;
    const double rate = number * factor;
    return rate >= kSlowest && rate <= kFastest ? std::optional(rate) : std::nullopt;
  }
  return std::nullopt;
}

std::vector<std::string_view> Split(std::string_view text) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t comma = text.find(',');
    parts.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

/// "0-1": two different ranks.
std::optional<std::pair<int, int>> ParsePair(std::string_view text, int ranks) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  std::array<int, 2> ends{};
  const std::array parts{text.substr(0, dash), text.substr(dash + 1)};
  for (size_t i = 0; i < parts.size(); ++i) {
    const char* const last = parts[i].data() + parts[i].size();
    const auto [end, error] = std::from_chars(parts[i].data(), last, ends[i]);
    if (error != std::errc() || end != last || ends[i] < 0 || ends[i] >= ranks) return std::nullopt;
  }
  if (ends[0] == ends[1]) return std::nullopt;
  return std::pair(ends[0], ends[1]);
}

/// One rate for all links, single links' rates, or the first with some of the second, which then count.
std::vector<double> ParseLinkRates(const std::string& text, int ranks) {
  const auto n = static_cast<size_t>(ranks);
  std::vector<double> rates(n * n, 0.0);
  for (const std::string_view part : Split(text)) {
    const size_t equals = part.find('=');
    const std::optional<double> rate = ParseRate(equals == std::string_view::npos ? part : part.substr(equals + 1));
    const auto pair = equals == std::string_view::npos ? std::nullopt : ParsePair(part.substr(0, equals), ranks);
    if (!rate || (equals != std::string_view::npos && !pair)) {
      throw ConfigError(
          fmt::format("link-bandwidth: expected a rate like 10GB/s, or rates of links between the {} ranks like "
                      "0-1=10GB/s,1-2=500MB/s, got '{}'",
                      ranks, text));
    }
    if (pair) {
      rates[static_cast<size_t>(pair->first) * n + static_cast<size_t>(pair->second)] = *rate;
    } else {
      std::fill(rates.begin(), rates.end(), *rate);
    }
  }
  return rates;
}

/// One rate for all ranks, or one for each.
std::vector<double> ParseRankRates(const std::string& text, int ranks) {
  std::vector<double> rates;
  for (const std::string_view part : Split(text)) rates.push_back(ParseRate(part).value_or(0));
  const bool fits = rates.size() == 1 || rates.size() == static_cast<size_t>(ranks);
  if (!fits || std::find(rates.begin(), rates.end(), 0) != rates.end()) {
    throw ConfigError(fmt::format(
        "rank-bandwidth: expected a rate like 10GB/s, or one for each of {} ranks, got '{}'", ranks, text));
  }
  rates.resize(static_cast<size_t>(ranks), rates.front());
  return rates;
}

}  // namespace

LinkOptions ParseLinkOptions(const EngineOptions& options, int ranks) {
  LinkOptions parsed;
  if (options.link != "auto" && options.link != "host") {
    throw ConfigError(fmt::format("link: expected auto or host, got '{}'", options.link));
  }
  parsed.through_host = options.link == "host";
  parsed.wire.format = ParseWire(options.wire);
  if (!options.link_bandwidth.empty()) {
    parsed.rates.of_link = ParseLinkRates(options.link_bandwidth, ranks);
    parsed.limits += "links limited to " + options.link_bandwidth;
  }
  if (!options.rank_bandwidth.empty()) {
    parsed.rates.of_rank = ParseRankRates(options.rank_bandwidth, ranks);
    parsed.limits += (parsed.limits.empty() ? "" : ", ") + ("ranks limited to " + options.rank_bandwidth);
  }
  return parsed;
}

ClusterCosts Limited(const ClusterCosts& costs, const LinkRates& rates) {
  if (!rates.any()) return costs;
  constexpr double kWakingUp = 5e-5;  // time, s, to wake a thread that sleeps until rows are due
  const int ranks = costs.ranks();
  const Sharing sharing = rates.of_rank.empty() ? Sharing::kPairs : Sharing::kPorts;
  ClusterCosts limited = costs;
  limited.links = LinkTable(ranks, costs.links.Between(0, 0), sharing);
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      if (from == to) continue;
      LinkCost cost = costs.links.Between(from, to);
      const double rate = rates.Between(from, to, ranks);
      if (rate > 0) {
        if (cost.mover == Mover::kThread) cost.latency_s += kWakingUp;
        cost.mover = Mover::kEngine;
        cost.bytes_per_s = std::min(cost.bytes_per_s, rate);
      }
      limited.links.Set(from, to, cost);
    }
  }
  return limited;
}

}  // namespace runahead
