#include "runahead/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/units.h"
#include "model/make_model.h"
#include "plan/plan_table.h"
#include "plan/planner.h"
#include "plan/simulator.h"
#include "prefill/described_cluster.h"

namespace runahead {
namespace {

/// Throws ConfigError "<name>: expected ..., got <value>" for one outside [1, most].
void CheckRange(const char* name, const std::vector<int64_t>& values, int64_t most) {
  for (const int64_t value : values) {
    if (value < 1 || value > most) {
      throw ConfigError(fmt::format("{}: expected 1 to {}, got {}", name, most, value));
    }
  }
}

PromptPlan Published(const PlanRow& row) {
  PromptPlan plan{row.context, row.members, row.left_out, {}, row.best, row.single_s * kMsPerSecond};
  for (const PlannedScheme& scheme : row.schemes) {
    plan.strategies.push_back({std::string(Name(scheme.scheme)), scheme.partition.cuts(),
                               scheme.ttft_s * kMsPerSecond, scheme.busiest_bytes});
  }
  return plan;
}

Scheme FindScheme(std::string_view name) {
  if (const std::optional<Scheme> scheme = ParseScheme(name)) return *scheme;
  std::string known;
  for (const Scheme scheme : kSchemes) known += fmt::format("{}{}", known.empty() ? "" : ", ", Name(scheme));
  throw ConfigError(fmt::format("scheme: unknown '{}' (known: {})", name, known));
}

void CheckDevices(const std::vector<int>& devices, int there_are, int ranks) {
  if (devices.size() != static_cast<size_t>(ranks)) {
    throw ConfigError(fmt::format("devices: expected one for each of {} ranks, got {}", ranks, devices.size()));
  }
  for (const int device : devices) {
    if (device < 0 || device >= there_are) {
      throw ConfigError(fmt::format("devices: expected 0 to {}, got {}", there_are - 1, device));
    }
  }
  if (std::set(devices.begin(), devices.end()).size() != devices.size()) {
    throw ConfigError("devices: one is named twice");
  }
}

}  // namespace

std::vector<std::string> Planner::KnownClusters() {
  std::vector<std::string> names;
  for (const ClusterPreset& preset : ClusterPresets()) names.emplace_back(preset.name);
  return names;
}

std::string Planner::Description(std::string_view cluster) { return std::string(FindClusterPreset(cluster).toml); }

std::vector<std::string> Planner::KnownModels() {
  const std::vector<std::string_view> names = PresetNames();
  return {names.begin(), names.end()};
}

Planner Planner::Load(const std::string& cluster, const std::string& model) {
  const std::vector<std::string> known = KnownClusters();
  const bool is_known = std::find(known.begin(), known.end(), cluster) != known.end();
  const bool is_path = cluster.ends_with(".toml") || cluster.find('/') != std::string::npos;
  return Planner(std::make_shared<const DescribedCluster>(is_known || !is_path ? DescribePreset(cluster, model)
                                                                               : DescribeFile(cluster, model)));
}

Planner Planner::Parse(std::string_view toml, const std::string& model, const std::filesystem::path& folder) {
  return Planner(std::make_shared<const DescribedCluster>(Describe(ParseCluster(toml, "cluster"), model, folder)));
}

Planner::Planner(std::shared_ptr<const DescribedCluster> cluster) : cluster_(std::move(cluster)) {}

int Planner::devices() const { return cluster_->costs.ranks(); }

std::vector<std::string> Planner::device_names() const {
  std::vector<std::string> names;
  for (const DeviceCost& device : cluster_->costs.devices) names.push_back(device.name);
  return names;
}

const std::string& Planner::model() const { return cluster_->cluster.model; }
const std::string& Planner::dtype() const { return cluster_->cluster.dtype; }
const std::vector<int64_t>& Planner::contexts() const { return cluster_->cluster.contexts; }

std::vector<PromptPlan> Planner::Plan(const PlanOptions& options) const {
  CheckRange("contexts", options.contexts, kLongestPlanned);
  CheckRange("ranks", options.ranks, devices());
  const std::vector<PlanRow> rows = FillPlanTable(
      cluster_->shape, cluster_->costs, cluster_->costs, options.contexts.empty() ? contexts() : options.contexts,
      options.ranks.empty() ? UsualCounts(devices()) : options.ranks, options.partition, [](double) {});
  std::vector<PromptPlan> plans;
  for (const PlanRow& row : rows) plans.push_back(Published(row));
  return plans;
}

SimulatedPrompt Planner::Simulate(std::string_view scheme_name, std::vector<int64_t> cuts, std::vector<int> devices,
                                  bool keep_timeline) const {
  const Scheme scheme = FindScheme(scheme_name);
  const Partition partition(std::move(cuts));
  if (partition.origin() != 0) {
    throw ConfigError(fmt::format("cuts: expected the first one at 0, got {}", partition.origin()));
  }
  const DescribedCluster& described = *cluster_;
  if (partition.ranks() > described.costs.ranks()) {
    throw ConfigError(
        fmt::format("cuts: {} chunks, but the cluster has {} devices", partition.ranks(), described.costs.ranks()));
  }
  if (partition.tokens() > kLongestPlanned) {
    throw ConfigError(fmt::format("cuts: expected at most {} tokens, got {}", kLongestPlanned, partition.tokens()));
  }
  if (scheme == Scheme::kSingle && partition.ranks() != 1) {
    throw ConfigError(fmt::format("cuts: the scheme 'single' has one chunk, got {}", partition.ranks()));
  }
  if (devices.empty()) {
    devices = FastestRanks(described.shape, described.costs, partition.ranks(), partition.tokens());
  }
  CheckDevices(devices, described.costs.ranks(), partition.ranks());
  Simulation played = runahead::Simulate(described.shape, described.costs.Select(devices), scheme, partition,
                                         keep_timeline ? KeepTimeline::kYes : KeepTimeline::kNo);
  for (double& seconds : played.compute_s) seconds *= kMsPerSecond;
  return {played.ttft_s * kMsPerSecond, std::move(played.compute_s), played.busiest_bytes,
          std::move(played.timeline)};
}

}  // namespace runahead
