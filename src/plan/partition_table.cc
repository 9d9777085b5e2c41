#include "plan/partition_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/units.h"
#include "plan/profile_key_json.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int64_t kTableVersion = 1;
constexpr double kFurthest = 2;  // longest prompt that is predicted, over the outermost entry

/// Each chunk's part of the prompt.
std::vector<double> SharesOf(const Partition& partition) {
  std::vector<double> shares;
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    shares.push_back(static_cast<double>(partition.rows(rank)) / static_cast<double>(partition.tokens()));
  }
  return shares;
}

/// `fraction` of the shares of `b`, the rest of those of `a`.
std::vector<double> Mix(const std::vector<double>& a, const std::vector<double>& b, double fraction) {
  std::vector<double> shares;
  for (size_t rank = 0; rank < a.size(); ++rank) shares.push_back(a[rank] + fraction * (b[rank] - a[rank]));
  return shares;
}

/// `shares`, moved as `from` would have to be to become `to`. Each keeps at least a tenth of itself.
std::vector<double> Move(std::vector<double> shares, const std::vector<double>& from, const std::vector<double>& to) {
  constexpr double kLeast = 0.1;
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    shares[rank] = std::max(kLeast * shares[rank], shares[rank] + to[rank] - from[rank]);
  }
  return shares;
}

}  // namespace

void PartitionTable::Put(TableEntry entry) {
  std::erase_if(entries, [&](const TableEntry& old) {
    return old.scheme == entry.scheme && old.partition.ranks() == entry.partition.ranks() &&
           old.partition.tokens() == entry.partition.tokens();
  });
  entries.push_back(std::move(entry));
}

const TableEntry* PartitionTable::Find(Scheme scheme, int ranks, int64_t tokens) const {
  for (const TableEntry& entry : entries) {
    const Partition& partition = entry.partition;
    if (entry.scheme == scheme && partition.ranks() == ranks && partition.tokens() == tokens) return &entry;
  }
  return nullptr;
}

std::optional<TableEntry> PartitionTable::Predict(Scheme scheme, int ranks, int64_t tokens,
                                                  const Solve& solve) const {
  const TableEntry* below = nullptr;  // the closest to both sides
  const TableEntry* above = nullptr;
  for (const TableEntry& entry : entries) {
    if (entry.scheme != scheme || entry.partition.ranks() != ranks || tokens < ranks) continue;
    const int64_t length = entry.partition.tokens();
    if (length <= tokens && (below == nullptr || length > below->partition.tokens())) below = &entry;
    if (length >= tokens && (above == nullptr || length < above->partition.tokens())) above = &entry;
  }
  if (below == nullptr && above == nullptr) return std::nullopt;
  if (below == above) return *below;
  const auto entry = [&](const std::vector<double>& shares, double ttft_s) {
    return TableEntry{scheme, RoundCuts(FractionPartition(tokens, shares), tile_rows), ttft_s};
  };
  if (below == nullptr || above == nullptr) {
    const TableEntry& nearest = below != nullptr ? *below : *above;
    const double ratio = static_cast<double>(tokens) / static_cast<double>(nearest.partition.tokens());
    if (std::max(ratio, 1 / ratio) > kFurthest) return std::nullopt;
    const SearchResult there = solve(scheme, ranks, nearest.partition.tokens());
    const SearchResult here = solve(scheme, ranks, tokens);
    return entry(Move(SharesOf(here.partition), SharesOf(there.partition), SharesOf(nearest.partition)),
                 nearest.ttft_s * here.cost / there.cost);
  }
  const auto low = static_cast<double>(below->partition.tokens());
  const auto high = static_cast<double>(above->partition.tokens());
  const double fraction = std::log(static_cast<double>(tokens) / low) / std::log(high / low);
  const double per_token = below->ttft_s / low + fraction * (above->ttft_s / high - below->ttft_s / low);
  return entry(Mix(SharesOf(below->partition), SharesOf(above->partition), fraction),
               per_token * static_cast<double>(tokens));
}

std::string ToJson(const PartitionTable& table) {
  Json entries = Json::array();
  for (const TableEntry& entry : table.entries) {
    entries.push_back({{"scheme", std::string(Name(entry.scheme))},
                       {"cuts", entry.partition.cuts()},
                       {"ttft_ms", entry.ttft_s * kMsPerSecond}});
  }
  return Json{{"version", kTableVersion}, {"key", KeyToJson(table.key)}, {"partitions", std::move(entries)}}.dump(1) +
         "\n";
}

PartitionTable ParsePartitionTable(std::string_view text, const std::string& origin) {
  const Json json = ParseJson(text, origin);
  const JsonObject file(json, origin);
  (void)file.Int("version", kTableVersion, kTableVersion);
  PartitionTable table;
  table.key = KeyFromJson(file);
  for (const JsonObject& object : ObjectsOf(file, "partitions")) {
    const std::optional<Scheme> scheme = ParseScheme(object.String("scheme"));
    if (!scheme) object.Refuse("scheme", "expected single, runahead chain or runahead direct");
    const Json& cuts = object.At("cuts");
    const bool integers = cuts.is_array() && std::all_of(cuts.begin(), cuts.end(),
                                                         [](const Json& cut) { return cut.is_number_integer(); });
    if (!integers) object.Refuse("cuts", "expected a list of integers");
    const auto values = cuts.get<std::vector<int64_t>>();
    const bool increases = std::adjacent_find(values.begin(), values.end(), std::greater_equal<>()) == values.end();
    if (values.size() < 2 || values.size() > static_cast<size_t>(table.key.ranks()) + 1 || values.front() != 0 ||
        !increases) {
      object.Refuse("cuts",
                    fmt::format("expected cut points that increase from 0, for at most {} ranks", table.key.ranks()));
    }
    table.Put({*scheme, Partition(values), NumberAtLeast(object, "ttft_ms", 0) / kMsPerSecond});
  }
  return table;
}

}  // namespace runahead
