// Predictions: what a prompt would take on a cluster that need not exist.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/error.h"
#include "runahead/export.h"
#include "runahead/options.h"
#include "runahead/timeline.h"

namespace runahead {

/// One way to spread a prompt over some devices, as the simulator sees it.
struct PlannedStrategy {
  std::string scheme;             // "single", "runahead chain", "runahead direct", "tsp", "tsp-causal" or "tp"
  std::vector<int64_t> cuts;      // [ranks + 1], tokens; for "tp" only the ranks and the last cut count
  double ttft_ms = 0;             // predicted TTFT, ms
  size_t busiest_link_bytes = 0;  // bytes of the link that carries most
};

/// All that a prompt of one length could do with one number of devices.
struct PromptPlan {
  int64_t context = 0;                      // tokens of the prompt
  std::vector<int> devices;                 // the devices of the description, one for each rank
  std::vector<std::string> left_out;        // names of devices that the best strategy is faster without
  std::vector<PlannedStrategy> strategies;  // one on one rank; five on several
  size_t best = 0;                          // index into `strategies`
  double single_ms = 0;                     // TTFT of the fastest device alone, ms

  [[nodiscard]] const PlannedStrategy& Best() const { return strategies[best]; }
  [[nodiscard]] double SpeedUp() const { return single_ms / Best().ttft_ms; }
};

struct PlanOptions {
  std::vector<int64_t> contexts;  // tokens of each prompt, 1 to 2^32; empty: those of the description
  std::vector<int64_t> ranks;     // use the so many fastest devices; empty: 1 to 8, powers of two, and all
  PartitionRequest partition;     // kAuto (searched on the simulator), kEven or kManual
};

/// One prompt phase as the simulator played it.
struct SimulatedPrompt {
  double ttft_ms = 0;                   // ms
  std::vector<double> compute_ms;       // [ranks], ms
  size_t busiest_link_bytes = 0;        // bytes of the link that carries most
  std::vector<TimelineEvent> timeline;  // empty unless asked for
};

struct DescribedCluster;

/// A described cluster and the model that runs on it. Immutable and cheap to copy (shared); thread-safe.
class RUNAHEAD_API Planner {
 public:
  /// The names of the clusters that are known.
  static std::vector<std::string> KnownClusters();
  /// The description of a known cluster as TOML, to start one's own from. Throws ConfigError naming what is known.
  static std::string Description(std::string_view cluster);
  /// The names of the models whose sizes are known.
  static std::vector<std::string> KnownModels();

  /// `cluster`: the name of a known cluster, or the path of a description in TOML. `model`: the name of a known
  /// model, or a Hugging Face folder; empty: the description's. Throws ConfigError or IoError naming the thing and
  /// the value.
  static Planner Load(const std::string& cluster, const std::string& model = "");
  /// `toml` is the description itself. Cost profiles that it names are relative to `folder`.
  static Planner Parse(std::string_view toml, const std::string& model = "",
                       const std::filesystem::path& folder = "");

  [[nodiscard]] int devices() const;
  [[nodiscard]] std::vector<std::string> device_names() const;  // [devices]
  [[nodiscard]] const std::string& model() const;
  [[nodiscard]] const std::string& dtype() const;
  [[nodiscard]] const std::vector<int64_t>& contexts() const;  // tokens of the prompts that the description names

  /// A plan for each context and each number of ranks that is not above the tokens, contexts first. Throws
  /// ConfigError for numbers out of range and for fractions that are not one for each rank.
  [[nodiscard]] std::vector<PromptPlan> Plan(const PlanOptions& options = {}) const;

  /// Plays the prompt phase of `cuts` [ranks + 1] (0, ..., tokens) with a scheme named as in PlannedStrategy.
  /// `devices`: one for each rank, by its place in the description; empty: the fastest ones. Throws ConfigError for
  /// an unknown scheme, cuts that do not start at 0 or do not increase, and devices that are missing or named twice.
  [[nodiscard]] SimulatedPrompt Simulate(std::string_view scheme, std::vector<int64_t> cuts,
                                         std::vector<int> devices = {}, bool keep_timeline = false) const;

 private:
  explicit Planner(std::shared_ptr<const DescribedCluster> cluster);

  std::shared_ptr<const DescribedCluster> cluster_;
};

}  // namespace runahead
