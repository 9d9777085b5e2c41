#include <algorithm>
#include <numeric>

#include "engine/engine_group.h"
#include "runahead/error.h"
#include "tune/measure_profile.h"

namespace runahead {
namespace {

constexpr int64_t kMostRows = 4096;  // rows of a large hand-over
constexpr int64_t kFewOfMany = 4;    // a smaller one is that part of it
constexpr int kSmallRounds = 15;     // rounds of one row
constexpr int kMostRounds = 9;       // rounds of more
constexpr int kFewestRounds = 3;
constexpr double kEnoughHopsS = 0.5;  // time, s, after which no more rounds than the fewest are made

/// Pairs that no rank is in twice, in as many rounds as it takes for every rank to meet every other.
std::vector<std::vector<std::pair<int, int>>> MeetingsOf(int ranks) {
  const int seats = ranks + ranks % 2;  // the last one of an odd number meets nobody
  std::vector<std::vector<std::pair<int, int>>> rounds;
  for (int round = 0; round + 1 < seats; ++round) {
    std::vector<std::pair<int, int>> pairs;
    for (int i = 0; i < seats / 2; ++i) {
      const int a = i == 0 ? seats - 1 : (round + i) % (seats - 1);
      const int b = (round + seats - 1 - i) % (seats - 1);
      if (a < ranks && b < ranks) pairs.emplace_back(std::min(a, b), std::max(a, b));
    }
    rounds.push_back(std::move(pairs));
  }
  return rounds;
}

HopsSeen Together(const std::vector<HopsSeen>& all) {
  const auto add = [](const std::vector<double>& from, std::vector<double>& to) {
    to.insert(to.end(), from.begin(), from.end());
  };
  HopsSeen together = all.front();
  for (size_t i = 1; i < all.size(); ++i) {
    for (const auto& [pair, seen] : all[i]) {
      HopSamples& to = together.at(pair);
      add(seen.one_row, to.one_row);
      add(seen.few_rows, to.few_rows);
      add(seen.many_rows, to.many_rows);
    }
  }
  return together;
}

std::vector<std::pair<int, int>> TheOtherWay(std::vector<std::pair<int, int>> pairs) {
  for (auto& [from, to] : pairs) std::swap(from, to);
  return pairs;
}

std::vector<int> AllRanks(int ranks) {
  std::vector<int> all(static_cast<size_t>(ranks));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace

HopProbe::HopProbe(HeldEngine& held, int64_t longest)
    : ranks_(held.engine().ranks()),
      many_(std::clamp<int64_t>(longest / 2, 2, kMostRows)),
      row_bytes_(held.engine().decoder().spec().kv_shape(held.engine().decoder().compute_dtype()).BytesPerToken() /
                 static_cast<size_t>(held.engine().decoder().spec().layers)),
      probe_(held, AllRanks(ranks_), many_ + 1) {}

HopsSeen HopProbe::Measure(HeldEngine& held) {
  const int64_t few = std::max<int64_t>(1, many_ / kFewOfMany);
  HopsSeen seen;
  const auto hop = [&](const std::vector<std::pair<int, int>>& pairs, int64_t rows, int rounds,
                       std::vector<double> HopSamples::*kept) {
    double longest_s = 0;
    for (const HopTimes& times : probe_.Hop(held, pairs, rows, rounds)) {
      HopSamples& samples =
          seen.try_emplace({times.from, times.to}, HopSamples{few, many_, row_bytes_, {}, {}, {}}).first->second;
      std::vector<double>& all = samples.*kept;
      all.insert(all.end(), times.round_s.begin() + (rounds > 1 ? 1 : 0), times.round_s.end());  // the first warms up
      for (const double s : times.round_s) longest_s = std::max(longest_s, s);
    }
    return longest_s;
  };
  for (const std::vector<std::pair<int, int>>& there : MeetingsOf(ranks_)) {
    for (const bool back : {false, true}) {
      const std::vector<std::pair<int, int>> pairs = back ? TheOtherWay(there) : there;
      hop(pairs, 1, kSmallRounds, &HopSamples::one_row);
      const double few_s = hop(pairs, few, kFewestRounds, &HopSamples::few_rows);
      const auto many_s = few_s * static_cast<double>(kFewOfMany);
      const int rounds = std::clamp(static_cast<int>(kEnoughHopsS / many_s), kFewestRounds, kMostRounds);
      hop(pairs, few, rounds, &HopSamples::few_rows);
      hop(pairs, many_, rounds, &HopSamples::many_rows);
    }
  }
  return seen;
}

LinkTable MeasureHops(const std::shared_ptr<EngineState>& engine, int64_t longest, int repeats,
                      const std::function<void(double)>& on_repeat) {
  if (engine->group() == nullptr) throw ConfigError("links: all ranks are in one process, whose profile has them");
  HeldEngine held = engine->Hold();
  HopProbe probe(held, std::clamp<int64_t>(longest, 2, engine->decoder().spec().max_positions));
  std::vector<HopsSeen> seen;
  for (int repeat = 1; repeat <= repeats; ++repeat) {
    seen.push_back(probe.Measure(held));
    on_repeat(static_cast<double>(repeat) / repeats);
  }
  return FitHops(*engine, seen);
}

LinkTable FitHops(EngineState& engine, const std::vector<HopsSeen>& seen) {
  const ProcessGroup& group = *engine.group()->processes;
  LinkTable links(engine.ranks(), {0, 1e9, 0, Mover::kEngine});
  for (const auto& [pair, samples] : Together(seen)) {
    const bool threads = !engine.on_gpus() && group.ProcessOf(pair.first) == group.ProcessOf(pair.second);
    links.Set(pair.first, pair.second, FitHop(samples, threads ? Mover::kThread : Mover::kEngine));
  }
  std::map<std::string, int> numbers;  // by host
  std::vector<int> hosts;
  for (int rank = 0; rank < engine.ranks(); ++rank) {
    const auto next = static_cast<int>(numbers.size());
    hosts.push_back(numbers.try_emplace(group.MemberOf(group.ProcessOf(rank)).host, next).first->second);
  }
  if (numbers.size() > 1) links.SetHosts(std::move(hosts));
  return links;
}

}  // namespace runahead
