// The costs of a gang's members, remembered where taking them out takes long.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "plan/cluster_costs.h"

namespace runahead {

/// Takes members out of a cluster's costs, which it borrows. Not thread-safe.
class SelectedCosts {
 public:
  explicit SelectedCosts(const ClusterCosts& all) : all_(all) {}

  /// The costs of `members`, until the next call.
  const ClusterCosts& Of(const std::vector<int>& members) {
    constexpr size_t kFew = 32;  // members that are taken out each time
    constexpr size_t kMostRemembered = 16;
    if (members.size() <= kFew) return last_ = all_.Select(members);
    const auto known = large_.find(members);
    if (known != large_.end()) return known->second;
    if (large_.size() >= kMostRemembered) large_.clear();
    return large_.emplace(members, all_.Select(members)).first->second;
  }

 private:
  const ClusterCosts& all_;
  ClusterCosts last_;
  std::map<std::vector<int>, ClusterCosts> large_;
};

}  // namespace runahead
