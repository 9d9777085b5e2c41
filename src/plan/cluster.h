// A cluster as a TOML file describes it: devices, links, a model and the prompts to plan for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/work_shape.h"

namespace runahead {

/// One device: what it reaches, or where it was measured.
struct ClusterDevice {
  DeviceRates rates;
  std::string profile;   // path of a cost profile; empty: the rates are used
  int profile_rank = 0;  // index of the device in the profile
  double slowdown = 1;   // factor of every duration
};

/// The file's content, checked.
struct Cluster {
  std::string origin;  // the file, for messages
  std::string model;   // a preset of make-model, or a folder
  std::string dtype = "bf16";
  std::vector<int64_t> contexts;
  std::vector<ClusterDevice> devices;
  LinkTable links;

  /// What `shape` costs on it. Reads the profiles, from paths relative to `folder`. Throws IoError for one that
  /// cannot be read and ConfigError for one that was measured for another model, dtype, or fewer ranks.
  [[nodiscard]] ClusterCosts CostsFor(const WorkShape& shape, const std::filesystem::path& folder) const;
};

/// Reads a description; `runahead plan --show-preset` shows the format. Throws ConfigError naming `origin`, the key
/// and the value for what is missing, misspelt, of another type or out of range.
Cluster ParseCluster(std::string_view text, const std::string& origin);

/// A described machine that many people have.
struct ClusterPreset {
  std::string_view name;
  std::string_view toml;
};

const std::vector<ClusterPreset>& ClusterPresets();

/// Throws ConfigError naming the preset and those that exist.
const ClusterPreset& FindClusterPreset(std::string_view name);

}  // namespace runahead
