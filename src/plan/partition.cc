#include "plan/partition.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "runahead/error.h"

namespace runahead {
namespace {

int UsableRanks(int64_t tokens, int64_t ranks) {
  CHECK_GT(tokens, 0);
  CHECK_GT(ranks, 0);
  return static_cast<int>(std::min<int64_t>(tokens, ranks));
}

/// The largest end in [lowest, highest] whose chunk from `begin` costs at most `budget`; `lowest` when none does.
int64_t FurthestEnd(const RankChunkCost& cost, int rank, int64_t begin, int64_t lowest, int64_t highest,
                    double budget) {
  while (lowest < highest) {
    const int64_t middle = lowest + (highest - lowest + 1) / 2;
    if (cost(rank, begin, middle) <= budget) {
      lowest = middle;
    } else {
      highest = middle - 1;
    }
  }
  return lowest;
}

/// Cuts made greedily: each rank takes as much as `budget` allows, the last one takes the rest.
std::vector<int64_t> CutsWithin(const RankChunkCost& cost, int64_t tokens, int ranks, double budget) {
  std::vector<int64_t> cuts{0};
  for (int rank = 0; rank + 1 < ranks; ++rank) {
    const int64_t begin = cuts.back();
    const int64_t left_for_others = ranks - 1 - rank;  // a token each
    cuts.push_back(FurthestEnd(cost, rank, begin, begin + 1, tokens - left_for_others, budget));
  }
  cuts.push_back(tokens);
  return cuts;
}

}  // namespace

Partition::Partition(std::vector<int64_t> cuts) : cuts_(std::move(cuts)) {
  const bool increases = std::adjacent_find(cuts_.begin(), cuts_.end(), std::greater_equal<>()) == cuts_.end();
  if (cuts_.size() < 2 || cuts_.front() < 0 || !increases) {
    throw ConfigError(
        fmt::format("partition: cut points must increase from 0 or more, got {}", fmt::join(cuts_, ",")));
  }
}

Partition Partition::Behind(int64_t tokens) const {
  std::vector<int64_t> cuts = cuts_;
  for (int64_t& cut : cuts) cut += tokens;
  return Partition(std::move(cuts));
}

std::string Partition::ToString() const {
  std::vector<int64_t> rows_of;
  for (int rank = 0; rank < ranks(); ++rank) rows_of.push_back(rows(rank));
  return fmt::format("{}", fmt::join(rows_of, "/"));
}

double ChunkCost::operator()(int64_t begin, int64_t end) const {
  const auto rows = static_cast<double>(end - begin);
  const double mean_keys = (static_cast<double>(begin) + static_cast<double>(end) + 1) / 2;
  return per_token * rows + per_pair * rows * mean_keys;
}

Partition EvenPartition(int64_t tokens, int ranks) {
  const int used = UsableRanks(tokens, ranks);
  std::vector<int64_t> cuts{0};
  for (int rank = 0; rank < used; ++rank)
    cuts.push_back(cuts.back() + tokens / used + (rank < tokens % used ? 1 : 0));
  return Partition(std::move(cuts));
}

Partition RoundCuts(const Partition& partition, int64_t rows) {
  constexpr int64_t kShortest = 8;  // times the rows; of a shorter chunk the rounding is a large part
  std::vector<int64_t> cuts = partition.cuts();
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    if (partition.rows(rank) < kShortest * rows) return partition;
    if (rank > 0) cuts[static_cast<size_t>(rank)] = (partition.begin(rank) + rows / 2) / rows * rows;
  }
  return Partition(std::move(cuts));
}

Partition FractionPartition(int64_t tokens, std::span<const double> fractions) {
  for (const double fraction : fractions) {
    if (!std::isfinite(fraction) || fraction <= 0) {
      throw ConfigError(fmt::format("partition: fractions must be positive, got {}", fraction));
    }
  }
  const int used = UsableRanks(tokens, static_cast<int64_t>(fractions.size()));
  const auto taken = fractions.first(static_cast<size_t>(used));
  const double total = std::accumulate(taken.begin(), taken.end(), 0.0);
  std::vector<int64_t> cuts{0};
  double sum = 0;
  for (int rank = 0; rank + 1 < used; ++rank) {
    sum += taken[static_cast<size_t>(rank)];
    const int64_t cut = std::llround(sum / total * static_cast<double>(tokens));
    cuts.push_back(std::clamp(cut, cuts.back() + 1, tokens - (used - 1 - rank)));
  }
  cuts.push_back(tokens);
  return Partition(std::move(cuts));
}

Partition BalancedPartition(int64_t tokens, int ranks, const ChunkCost& cost) {
  return BalancedPartition(tokens, ranks, [&](int /*rank*/, int64_t begin, int64_t end) { return cost(begin, end); });
}

Partition BalancedPartition(int64_t tokens, int ranks, const RankChunkCost& cost) {
  const int used = UsableRanks(tokens, ranks);
  double too_small = 0;
  double enough = 0;  // the cost of the slowest rank with the whole prompt
  for (int rank = 0; rank < used; ++rank) enough = std::max(enough, cost(rank, 0, tokens));
  constexpr double kPrecise = 1e-9;  // precision as a share of the budget: less than a token
  while (enough - too_small > kPrecise * enough) {
    const double budget = (too_small + enough) / 2;
    const std::vector<int64_t> cuts = CutsWithin(cost, tokens, used, budget);
    const bool fits = cost(used - 1, cuts[cuts.size() - 2], tokens) <= budget;
    (fits ? enough : too_small) = budget;
  }
  return Partition(CutsWithin(cost, tokens, used, enough));
}

}  // namespace runahead
