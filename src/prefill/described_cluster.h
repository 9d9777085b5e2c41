// A described cluster together with the sizes of the model that runs on it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "plan/cluster.h"
#include "plan/cluster_costs.h"
#include "plan/work_shape.h"

namespace runahead {

/// The description, the model's sizes, and what they cost on it.
struct DescribedCluster {
  Cluster cluster;
  WorkShape shape;
  ClusterCosts costs;
};

/// The cluster used where none is named.
inline constexpr std::string_view kUsualCluster = "8xh100-nvlink";

/// The longest prompt that plans are made for, tokens.
inline constexpr int64_t kLongestPlanned = int64_t{1} << 32;

/// Costs of `cluster` for `model`: a preset of make-model or a Hugging Face folder; empty: the description's own.
/// Cost profiles are relative to `folder`. Throws ConfigError or IoError naming the thing and the value.
DescribedCluster Describe(Cluster cluster, const std::string& model, const std::filesystem::path& folder);

/// The cluster of a TOML file.
DescribedCluster DescribeFile(const std::string& path, const std::string& model);

/// A known cluster.
DescribedCluster DescribePreset(std::string_view name, const std::string& model);

}  // namespace runahead
