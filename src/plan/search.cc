#include "plan/search.h"

#include <algorithm>
#include <limits>
#include <map>
#include <vector>

#include "base/check.h"

namespace runahead {
namespace {

constexpr int64_t kWholeGrid = 64;  // evaluations that a level's whole grid may take

using Cuts = std::vector<int64_t>;

/// Binomial coefficient, or a large number where it is one.
int64_t Choose(int64_t n, int64_t k) {
  constexpr int64_t kLarge = 1'000'000'000;
  int64_t result = 1;
  for (int64_t i = 1; i <= k; ++i) {
    result = result * (n - k + i) / i;
    if (result > kLarge) return kLarge;
  }
  return result;
}

class Search {
 public:
  Search(int64_t tokens, int ranks, const Objective& objective, const GridSearchOptions& options)
      : tokens_(tokens), cuts_(ranks - 1), objective_(objective), options_(options) {}

  SearchResult Run() {
    Try(EvenPartition(tokens_, cuts_ + 1).cuts());
    for (const Partition& start : options_.starts) {
      CHECK_EQ(start.tokens(), tokens_);
      CHECK_EQ(start.ranks(), cuts_ + 1);
      Try(start.cuts());
    }
    if (cuts_ > 0) {
      const int64_t divisions = CoarseDivisions();
      const int64_t step = std::max<int64_t>(1, tokens_ / (divisions > 0 ? divisions : Divisions()));
      if (divisions > 0) CoarseGrid(Cuts{0}, step);
      for (const Cuts& start : BestSoFar(options_.descents)) Descend(start, step);
    }
    const Cuts best = BestSoFar(1).front();
    return {Partition(best), seen_.at(best), static_cast<int>(seen_.size())};
  }

 private:
  [[nodiscard]] int64_t Divisions() const { return std::min<int64_t>(options_.divisions, tokens_); }

  /// Divisions of the prompt by the coarse grid; 0: there is none.
  [[nodiscard]] int64_t CoarseDivisions() const {
    if (!options_.coarse_grid) return 0;
    const int64_t most = std::min<int64_t>(kWholeGrid, options_.most_evaluations / 2);
    int64_t divisions = Divisions();
    while (divisions > cuts_ + 1 && Choose(divisions - 1, cuts_) > most) --divisions;
    return divisions > cuts_ + 1 ? divisions : 0;  // otherwise there is one point at most, the even chunks
  }

  [[nodiscard]] bool Spent() const { return seen_.size() >= static_cast<size_t>(options_.most_evaluations); }

  /// What `cuts` cost; infinitely much when they are none, or may not be evaluated any more.
  double Try(const Cuts& cuts) {
    if (const auto known = seen_.find(cuts); known != seen_.end()) return known->second;
    const bool increases = std::adjacent_find(cuts.begin(), cuts.end(), std::greater_equal<>()) == cuts.end();
    if (!increases || (Spent() && !seen_.empty())) return std::numeric_limits<double>::infinity();
    return seen_.emplace(cuts, objective_(Partition(cuts))).first->second;
  }

  [[nodiscard]] std::vector<Cuts> BestSoFar(int count) const {
    std::vector<std::pair<double, const Cuts*>> sorted;
    for (const auto& [cuts, cost] : seen_) sorted.emplace_back(cost, &cuts);
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Cuts> best;
    for (const auto& [cost, cuts] : sorted) {
      if (best.size() < static_cast<size_t>(count)) best.push_back(*cuts);
    }
    return best;
  }

  /// Finer and finer grids around the best, from `start`.
  void Descend(const Cuts& start, int64_t step) {
    const int64_t finest = std::max<int64_t>(1, options_.finest);
    center_ = start;
    center_cost_ = Try(start);
    while (true) {
      while (Level(step) && !Spent()) {
      }
      if (step <= finest || Spent()) return;
      step = std::max(finest, step / 2);
    }
  }

  /// Moves the center to `cuts` where they are better.
  void TryAsCenter(const Cuts& cuts) {
    const double cost = Try(cuts);
    if (!(cost < center_cost_)) return;
    center_ = cuts;
    center_cost_ = cost;
  }

  /// All cuts on multiples of `step`; `chosen` are the first of them.
  void CoarseGrid(const Cuts& chosen, int64_t step) {
    if (static_cast<int>(chosen.size()) == cuts_ + 1) {
      Cuts cuts = chosen;
      cuts.push_back(tokens_);
      Try(cuts);
      return;
    }
    const int64_t behind = (cuts_ - static_cast<int64_t>(chosen.size())) * step;  // room for the later cuts
    for (int64_t cut = chosen.back() + step; cut + behind < tokens_; cut += step) {
      Cuts longer = chosen;
      longer.push_back(cut);
      CoarseGrid(longer, step);
    }
  }

  /// One look around the center; true when it moved.
  bool Level(int64_t step) {
    const Cuts center = center_;
    const double before = center_cost_;
    int64_t box = 1;
    for (int i = 0; i < cuts_ && box <= kWholeGrid; ++i) box *= 3;
    if (box <= kWholeGrid) {
      Box(center, 1, step);
    } else {
      Axes(step);
    }
    return center_cost_ < before;
  }

  void Box(const Cuts& cuts, size_t index, int64_t step) {
    if (index + 1 == cuts.size()) {
      TryAsCenter(cuts);
      return;
    }
    for (const int64_t move : {int64_t{0}, -step, step}) {
      Cuts moved = cuts;
      moved[index] += move;
      Box(moved, index + 1, step);
    }
  }

  /// Along each axis in turn, from wherever the center is by then.
  void Axes(int64_t step) {
    for (size_t index = 1; index <= static_cast<size_t>(cuts_); ++index) {
      for (const bool all_behind : {false, true}) {
        for (const int64_t move : {-step, step}) {
          Cuts moved = center_;
          const size_t last = all_behind ? static_cast<size_t>(cuts_) : index;
          for (size_t i = index; i <= last; ++i) moved[i] += move;
          TryAsCenter(moved);
          if (Spent()) return;  // nothing new can be tried, of thousands of axes
        }
      }
    }
  }

  int64_t tokens_;
  int cuts_;  // number of cut points between the ends
  const Objective& objective_;
  const GridSearchOptions& options_;
  std::map<Cuts, double> seen_;
  Cuts center_;
  double center_cost_ = std::numeric_limits<double>::infinity();
};

}  // namespace

SearchResult GridSearch(int64_t tokens, int ranks, const Objective& objective, const GridSearchOptions& options) {
  CHECK_GT(tokens, 0);
  CHECK_GT(ranks, 0);
  CHECK_GT(options.divisions, 0);
  return Search(tokens, static_cast<int>(std::min<int64_t>(tokens, ranks)), objective, options).Run();
}

ClusterCosts CostsAsMeasured(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme,
                             const Partition& partition, std::span<const double> compute_s) {
  const Simulation simulation = Simulate(shape, costs, scheme, partition);
  CHECK_EQ(compute_s.size(), simulation.compute_s.size());
  ClusterCosts measured = costs;
  for (size_t rank = 0; rank < compute_s.size(); ++rank) {
    if (!(compute_s[rank] > 0 && simulation.compute_s[rank] > 0)) continue;
    measured.devices[rank] = costs.devices[rank].Slowed(compute_s[rank] / simulation.compute_s[rank]);
  }
  return measured;
}

size_t SurelyFastest(std::span<const std::vector<double>> seconds) {
  CHECK(!seconds.empty() && !seconds.front().empty());
  const auto median = [](std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  };
  const std::vector<double>& first = seconds.front();
  size_t best = 0;
  for (size_t i = 1; i < seconds.size(); ++i) {
    CHECK_EQ(seconds[i].size(), first.size());
    size_t wins = 0;
    for (size_t round = 0; round < first.size(); ++round) wins += seconds[i][round] < first[round] ? 1 : 0;
    if (4 * wins >= 3 * first.size() && median(seconds[i]) < median(seconds[best])) best = i;
  }
  return best;
}

Partition BalancedCompute(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, int64_t tokens,
                          int64_t origin) {
  if (!IsRunahead(scheme)) return EvenPartition(tokens, costs.ranks()).Behind(origin);
  const double inner = shape.layers - 1;
  const std::vector<LayersOfWindow> layers = shape.FirstLayers(shape.layers - 1);
  const auto seconds = [&](int rank, int64_t begin, int64_t end) {
    const RowCost cost = costs.devices[static_cast<size_t>(rank)].At(end - begin);
    double pairs = 0;
    for (const LayersOfWindow& alike : layers) {
      pairs += alike.layers * static_cast<double>(CausalPairs(origin + begin, origin + end, alike.window));
    }
    return cost.before_s + inner * cost.layer_s + cost.pair_s * pairs;
  };
  return BalancedPartition(tokens, costs.ranks(), seconds).Behind(origin);
}

SolvedPartition SolvePartition(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, int64_t tokens,
                               int64_t most_events) {
  const Partition balanced = BalancedCompute(shape, costs, scheme, tokens);
  const bool fewer = balanced.ranks() < costs.ranks();
  std::vector<int> first;
  for (int rank = 0; rank < balanced.ranks(); ++rank) first.push_back(rank);
  const ClusterCosts used = fewer ? costs.Select(first) : costs;
  Simulation simulation = Simulate(shape, used, scheme, balanced);
  const int64_t affordable = most_events / std::max<int64_t>(1, simulation.events);
  if (!IsRunahead(scheme) || balanced.ranks() == 1 || affordable < 2) {
    return {{balanced, simulation.ttft_s, 1}, std::move(simulation)};
  }
  constexpr int kEnough = 600;
  constexpr int64_t kFinestShare = 1024;  // finest step as a fraction of the prompt: 1 / 1024
  GridSearchOptions options;
  options.divisions = 32;  // the start is good already
  options.finest = std::max<int64_t>(1, tokens / kFinestShare);
  options.most_evaluations = static_cast<int>(std::min<int64_t>(kEnough, affordable));
  constexpr int kAffordsWholeGrids = 150;
  options.coarse_grid = affordable >= kAffordsWholeGrids;
  options.descents = options.coarse_grid ? 3 : 1;
  options.starts = {balanced};
  const auto seconds = [&](const Partition& partition) { return Simulate(shape, used, scheme, partition).ttft_s; };
  return {GridSearch(tokens, used.ranks(), seconds, options), std::nullopt};
}

}  // namespace runahead
