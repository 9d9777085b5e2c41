// What the sessions of one engine share.
#pragma once

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/link_options.h"
#include "engine/phase_planner.h"
#include "link/all_gather.h"
#include "link/link.h"
#include "model/decoder.h"
#include "model/model_loader.h"
#include "runahead/engine.h"
#include "worker/rank_worker.h"

namespace runahead {

class Conductor;
struct EngineGroup;
class HeldEngine;

/// The ranks of this process, the weights that they share and the links between them. One session works at a time:
/// what changes is reached through a HeldEngine alone. Ranks are numbered over all processes.
class EngineState {
 public:
  /// `decoders`: one for each rank here; ranks of one memory share theirs.
  /// `model`: the folder or file that they were loaded from.
  EngineState(std::filesystem::path model, std::vector<std::unique_ptr<Rank>> ranks, int threads_per_rank,
              std::vector<std::shared_ptr<const Decoder>> decoders, EngineOptions options, LinkOptions links,
              PhasePlanner planner, std::unique_ptr<EngineGroup> group);
  ~EngineState();
  EngineState(const EngineState&) = delete;
  EngineState& operator=(const EngineState&) = delete;

  /// Ranks of all processes.
  [[nodiscard]] int ranks() const { return static_cast<int>(device_names_.size()); }
  /// Ranks of this one, which are first_rank() and those behind it.
  [[nodiscard]] int local_ranks() const { return static_cast<int>(ranks_.size()); }
  [[nodiscard]] int first_rank() const { return first_rank_; }
  /// Null where there is one process.
  [[nodiscard]] EngineGroup* group() const { return group_.get(); }
  /// Processes of the group on this host.
  [[nodiscard]] int processes_here() const;
  [[nodiscard]] const std::filesystem::path& model() const { return model_; }
  [[nodiscard]] int threads_per_rank() const { return threads_per_rank_; }
  /// The model as a rank here has it; its shape is the same on all.
  [[nodiscard]] const Decoder& decoder() const { return *decoders_.front(); }
  [[nodiscard]] const Decoder& decoder(int rank) const { return *decoders_.at(IndexOf(rank)); }
  [[nodiscard]] std::chrono::duration<double> timeout() const {
    return std::chrono::duration<double>(options_.timeout_s);
  }
  Rank& rank(int rank) { return *ranks_.at(IndexOf(rank)); }
  [[nodiscard]] bool on_gpus() const { return !gpus_.empty(); }
  /// The first rank whose tables and weights `rank` uses: itself on a GPU.
  [[nodiscard]] int MemoryOf(int rank) const { return gpus_.empty() ? first_rank_ : rank; }
  [[nodiscard]] std::vector<Device*> DevicesHere() const;
  [[nodiscard]] const std::vector<std::string>& device_names() const { return device_names_; }

  /// Blocks until nobody else holds the engine.
  [[nodiscard]] HeldEngine Hold();
  /// What runs requests; made when first asked for. Throws as Conductor does.
  [[nodiscard]] Conductor& conductor();
  /// What the ranks do for requests. Waits for nothing.
  [[nodiscard]] EngineStatus Status() const;

 private:
  friend class HeldEngine;

  /// The tables of one memory.
  struct Tables {
    PositionTables of_short;
    PositionTables of_long;
  };

  [[nodiscard]] std::unique_ptr<Fabric> NewFabric(bool limited = true) const;
  [[nodiscard]] size_t IndexOf(int rank) const { return static_cast<size_t>(rank - first_rank_); }

  std::filesystem::path model_;
  std::unique_ptr<EngineGroup> group_;  // null: there is one process
  int first_rank_;
  std::vector<std::shared_ptr<const Decoder>> decoders_;  // [ranks here]
  int threads_per_rank_;
  EngineOptions options_;
  std::vector<std::unique_ptr<Rank>> ranks_;  // [ranks here]
  std::vector<int> gpus_;                     // [ranks here] by their ordinals; empty: CPU ranks

  std::mutex mutex_;  // held by the one HeldEngine, guards all below
  LinkOptions links_;
  std::shared_ptr<Throttle> throttle_;  // null: nothing is limited
  std::unique_ptr<Fabric> fabric_;
  std::map<std::vector<int>, std::unique_ptr<AllGather>> gathers_;  // key: members of the group
  PhasePlanner planner_;
  std::vector<Tables> tables_;  // [ranks here], used as MemoryOf says

  std::vector<std::string> device_names_;  // [ranks]
  std::mutex making_conductor_;
  std::atomic<const Conductor*> made_conductor_ = nullptr;
  std::unique_ptr<Conductor> conductor_;  // guarded by making_conductor_; last: it uses all of the above
};

/// Proof that the engine is held: while it lives, no other session and no measurement works on the ranks. What it
/// gives is valid as long as itself. A thread that holds the engine must not use a session of it, which would wait
/// for ever.
class HeldEngine {
 public:
  explicit HeldEngine(EngineState& engine) : engine_(&engine), lock_(engine.mutex_) {}

  [[nodiscard]] EngineState& engine() const { return *engine_; }

  [[nodiscard]] Fabric& fabric() const { return *engine_->fabric_; }
  /// Links like the engine's own, which share their limits; without limits when `limited` is false.
  [[nodiscard]] std::unique_ptr<Fabric> NewFabric(bool limited = true) const { return engine_->NewFabric(limited); }
  /// Replaces the links after a failure; no rank may be working. Does not throw: where a device has failed for good,
  /// the new links fail with the reason.
  void RenewFabric() noexcept;
  /// Replaces the links, and what plans know of them; a partition table that was loaded is forgotten.
  void SetLinks(LinkOptions links);
  /// Uses `fabric` from now on, for tests.
  void SetFabric(std::unique_ptr<Fabric> fabric) { engine_->fabric_ = std::move(fabric); }
  /// The all-gather among `members` by NCCL; made when first asked for. Throws ConfigError where NCCL is not, or the
  /// GPUs are not all different.
  AllGather& GatherOf(const std::vector<int>& members);

  /// Tables in the memory of rank `index` for at least `positions` positions that a sequence of `tokens` needs. They
  /// grow in place.
  const PositionTables& PositionsFor(int index, int64_t positions, int64_t tokens);
  /// Where PositionsFor puts the tables of rank `index`; they may grow between passes.
  [[nodiscard]] RankWorker::Tables TablesOf(int index) const;
  /// Whether PositionsFor would make them.
  [[nodiscard]] bool LacksPositions(int index, int64_t positions, int64_t tokens) const;
  /// Bytes that it would allocate; none for a model without rotations.
  [[nodiscard]] size_t MissingPositionBytes(int index, int64_t positions, int64_t tokens) const;

  /// Where prompts are cut, and over which ranks. Copy it to look at it while others work.
  [[nodiscard]] PhasePlanner& planner() const { return engine_->planner_; }

 private:
  EngineState* engine_;
  std::lock_guard<std::mutex> lock_;
};

inline HeldEngine EngineState::Hold() { return HeldEngine(*this); }

/// What `engine` is made of, for this library's own measurements and tests.
std::shared_ptr<EngineState> StateOf(const Engine& engine);

/// Meets the group of `options`, if there is one, starts the ranks and loads the weights; throws as Engine::Load
/// does. At process 0 of a group it waits until all others did.
std::shared_ptr<EngineState> LoadEngineState(const ModelConfig& config, const EngineOptions& options);

}  // namespace runahead
