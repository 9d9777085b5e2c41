// What the sessions of one engine share.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/phase_planner.h"
#include "engine/rank.h"
#include "link/link.h"
#include "model/decoder.h"
#include "runahead/engine.h"

namespace runahead {

/// The ranks, the weights that they share and the links between them. One session works at a time (`busy`).
class EngineState {
 public:
  EngineState(std::vector<std::unique_ptr<Rank>> ranks, int threads_per_rank, std::shared_ptr<const Decoder> decoder,
              double timeout_s, PhasePlanner planner);

  [[nodiscard]] int ranks() const { return static_cast<int>(ranks_.size()); }
  [[nodiscard]] int threads_per_rank() const { return threads_per_rank_; }
  [[nodiscard]] const Decoder& decoder() const { return *decoder_; }
  [[nodiscard]] std::chrono::duration<double> timeout() const { return timeout_; }
  Rank& rank(int index) { return *ranks_.at(static_cast<size_t>(index)); }
  Fabric& fabric() { return *fabric_; }
  std::mutex& busy() { return busy_; }

  /// Replaces the links after a failure; no rank may be working.
  void RenewFabric();
  /// Uses `fabric` from now on, for tests.
  void SetFabric(std::unique_ptr<Fabric> fabric) { fabric_ = std::move(fabric); }

  /// Tables for at least `positions` positions that a sequence of `tokens` needs. Grow; need `busy`.
  const PositionTables& PositionsFor(int64_t positions, int64_t tokens);

  /// Where prompts are cut, and over which ranks. Needs `busy`.
  PhasePlanner& planner() { return planner_; }

 private:
  std::shared_ptr<const Decoder> decoder_;
  int threads_per_rank_;
  std::chrono::duration<double> timeout_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::unique_ptr<Fabric> fabric_;
  PhasePlanner planner_;
  PositionTables tables_[2];  // of short and of long sequences
  std::mutex busy_;
};

/// Starts the ranks and loads the weights; throws as Engine::Load does.
std::shared_ptr<EngineState> LoadEngineState(const std::filesystem::path& model_dir, const EngineOptions& options);

}  // namespace runahead
