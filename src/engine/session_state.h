// One sequence on the ranks of an engine.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/timeline.h"
#include "engine/engine_state.h"
#include "kv/kv_cache.h"

namespace runahead {

/// The caches of a sequence, one per rank, made when a prompt first needs them, and the logits of its last position.
class SessionState {
 public:
  SessionState(std::shared_ptr<EngineState> engine, int64_t capacity);

  PrefillReport Prefill(std::span<const int32_t> tokens, const PrefillOptions& options);
  void Append(int32_t token);

  [[nodiscard]] std::span<const float> logits() const { return logits_; }
  [[nodiscard]] int64_t size() const { return size_; }
  [[nodiscard]] int64_t capacity() const { return capacity_; }
  [[nodiscard]] std::vector<float> CacheRows(int layer, bool values);

 private:
  void CheckPrompt(std::span<const int32_t> tokens) const;
  void CheckToken(int32_t token, int64_t position) const;
  /// Makes the cache of every member of `plan` large enough, or throws ConfigError before any is touched.
  void ReserveCaches(Strategy strategy, const PhasePlan& plan);
  /// Runs all ranks and waits for all of them. Rethrows what the first rank to fail threw.
  void RunRanks(std::span<const int32_t> tokens, const PrefillOptions& options, const PhasePlan& plan,
                std::vector<RankTimeline>& timelines);
  /// Whether the angles of all positions change when the sequence grows to `tokens` (LongRoPE).
  [[nodiscard]] bool ChangesAngles(int64_t tokens) const;
  /// Copies the logits that `rank` computed to the host; on the rank's thread.
  void FetchLogits(Rank& rank);

  std::shared_ptr<EngineState> engine_;
  int64_t capacity_;
  int64_t size_ = 0;
  std::vector<int32_t> tokens_;  // [size]
  PrefillOptions options_;       // of the last prompt
  int last_rank_ = 0;            // holds the whole cache
  std::vector<std::optional<KvCache>> caches_;
  std::vector<float> logits_;  // [vocab]
};

}  // namespace runahead
