// The partition table of KVR-P: searched partitions by context length, and what lies between them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/cost_profile.h"
#include "plan/partition.h"
#include "plan/scheme.h"
#include "plan/search.h"

namespace runahead {

/// The best partition that a search found for the first so many ranks.
struct TableEntry {
  Scheme scheme = Scheme::kSingle;
  Partition partition;
  double ttft_s = 0;  // measured TTFT, s
};

/// A planner's partition for a length that nobody has searched, and its TTFT in seconds.
using Solve = std::function<SearchResult(Scheme scheme, int ranks, int64_t tokens)>;

/// Searched partitions of one model on one group of devices. A value.
struct PartitionTable {
  ProfileKey key;
  std::vector<TableEntry> entries;
  int64_t tile_rows = 1;  // cuts between the entries are at multiples of this (RoundCuts); not stored

  /// Adds an entry, in place of one with its scheme, ranks and length.
  void Put(TableEntry entry);

  /// The searched one for exactly this length, or nothing.
  [[nodiscard]] const TableEntry* Find(Scheme scheme, int ranks, int64_t tokens) const;

  /// KVR-P: cut points as fractions of the prompt, and the time per token, interpolated linearly over the logarithm
  /// of the length between the entries to both sides. Up to twice beyond the outermost entry: the cuts that `solve`
  /// finds, moved by as much of the prompt as the search moved them at that entry, whose time grows as `solve`'s
  /// does. Further away, and where the table has no such entry, there is nothing.
  [[nodiscard]] std::optional<TableEntry> Predict(Scheme scheme, int ranks, int64_t tokens, const Solve& solve) const;
};

/// Readable JSON.
std::string ToJson(const PartitionTable& table);
/// Throws ConfigError naming `origin`, the field and the value.
PartitionTable ParsePartitionTable(std::string_view text, const std::string& origin);

}  // namespace runahead
