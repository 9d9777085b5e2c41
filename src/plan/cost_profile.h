// The cost profile: what a model's work was measured to cost on a group of devices.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/work_shape.h"

namespace runahead {

/// What measurements hold for: they are worth nothing for anything else.
struct ProfileKey {
  std::string model;                 // WorkShape::ToString
  std::string dtype;                 // the compute dtype
  std::vector<std::string> devices;  // one for each rank, with their threads

  [[nodiscard]] int ranks() const { return static_cast<int>(devices.size()); }
  /// A short name for files: FamilyStem and a number that tells devices apart.
  [[nodiscard]] std::string FileStem() const;
  /// What the names of all keys of this model and dtype begin with: "5f3a...-bf16-".
  [[nodiscard]] std::string FamilyStem() const;
  /// Throws ConfigError "<origin>: measured for ..., but ..." where `wanted` differs.
  void CheckFits(const ProfileKey& wanted, const std::string& origin) const;

  friend bool operator==(const ProfileKey&, const ProfileKey&) = default;
};

/// Costs by the number of ranks that worked while they were measured: ranks of one machine share its memory and its
/// clock, so that several are slower than one.
struct CostProfile {
  ProfileKey key;
  std::map<int, ClusterCosts> active;  // key: ranks at work. Each value has the costs of all ranks. Never empty

  /// Those measured with the fewest ranks that are at least `ranks`, or with the most there are.
  [[nodiscard]] const ClusterCosts& While(int ranks) const;
};

/// Readable JSON: times in microseconds, pairs in nanoseconds, links in GB/s.
std::string ToJson(const CostProfile& profile);
/// Throws ConfigError naming `origin`, the field and the value.
CostProfile ParseCostProfile(std::string_view text, const std::string& origin);

}  // namespace runahead
