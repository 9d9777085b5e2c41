// Where a prompt is cut: one contiguous chunk of tokens per rank.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace runahead {

/// p + 1 strictly increasing cut points, from the tokens that are computed already (0 for a whole prompt) to the
/// number of tokens. A value; never empty: every rank owns at least one token.
class Partition {
 public:
  /// Throws ConfigError naming the cuts when they start below 0 or do not increase.
  explicit Partition(std::vector<int64_t> cuts);

  [[nodiscard]] int ranks() const { return static_cast<int>(cuts_.size()) - 1; }
  [[nodiscard]] int64_t origin() const { return cuts_.front(); }
  [[nodiscard]] int64_t tokens() const { return cuts_.back(); }
  [[nodiscard]] int64_t begin(int rank) const { return cuts_.at(static_cast<size_t>(rank)); }
  [[nodiscard]] int64_t end(int rank) const { return cuts_.at(static_cast<size_t>(rank) + 1); }
  [[nodiscard]] int64_t rows(int rank) const { return end(rank) - begin(rank); }
  [[nodiscard]] const std::vector<int64_t>& cuts() const { return cuts_; }
  /// The same chunks behind `tokens` more.
  [[nodiscard]] Partition Behind(int64_t tokens) const;
  /// Tokens of each chunk, "4/3/2".
  [[nodiscard]] std::string ToString() const;

  friend bool operator==(const Partition&, const Partition&) = default;

 private:
  std::vector<int64_t> cuts_;
};

/// What a chunk [begin, end) costs the rank that owns it, in any unit: `per_token` for each row (the matmuls) and
/// `per_pair` for each query-key pair of causal attention.
struct ChunkCost {
  double per_token = 1;
  double per_pair = 0;

  [[nodiscard]] double operator()(int64_t begin, int64_t end) const;
};

// Each function below uses min(ranks, tokens) ranks. tokens and ranks must be positive.

/// KVR-E: equal chunks, the earlier ones one token longer where they do not divide.
Partition EvenPartition(int64_t tokens, int ranks);

/// Chunks in proportion to `fractions` (any positive numbers), rounded so that every rank keeps a token. With fewer
/// tokens than fractions the first ones are used. Throws ConfigError naming a fraction that is not positive and
/// finite.
Partition FractionPartition(int64_t tokens, std::span<const double> fractions);

/// `partition` with its cuts at multiples of `rows`, or unchanged where a chunk is shorter than eight times that.
Partition RoundCuts(const Partition& partition, int64_t rows);

/// What the chunk [begin, end) costs rank `rank`; must not fall as the chunk grows.
using RankChunkCost = std::function<double(int rank, int64_t begin, int64_t end)>;

/// The cuts that make the costliest chunk as cheap as possible, so that all ranks finish together.
Partition BalancedPartition(int64_t tokens, int ranks, const ChunkCost& cost);
Partition BalancedPartition(int64_t tokens, int ranks, const RankChunkCost& cost);

}  // namespace runahead
