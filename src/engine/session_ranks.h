// One sequence on the ranks of this process.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <future>
#include <mutex>
#include <optional>
#include <vector>

#include "base/timeline.h"
#include "engine/engine_state.h"
#include "engine/rank_orders.h"
#include "kv/kv_cache.h"
#include "prefill/exchanges.h"

namespace runahead {

/// The caches of a sequence, one per rank here, made when a prompt first needs them. Whoever uses it holds the
/// engine.
class SessionRanks {
 public:
  /// Throws ConfigError for a capacity beyond the model's context, or one that does not fit in memory.
  SessionRanks(EngineState& engine, int64_t capacity);

  [[nodiscard]] int64_t capacity() const { return capacity_; }
  /// The cache of a rank here that has been in a prompt phase.
  [[nodiscard]] const KvCache& cache(int rank) const { return *caches_.at(IndexOf(rank)); }
  [[nodiscard]] bool Has(int rank) const {
    return rank >= engine_.first_rank() && rank < engine_.first_rank() + engine_.local_ranks();
  }
  [[nodiscard]] bool HasCache(int rank) const { return caches_.at(IndexOf(rank)).has_value(); }

  /// Makes the caches and tables of the members here large enough, or throws ConfigError before any is touched.
  void Reserve(HeldEngine& held, const PhaseOrder& order);
  /// The pass of `token` at `position`, and its logits.
  void Append(HeldEngine& held, int rank, int32_t token, int64_t position, std::vector<float>& logits);
  /// Enqueues the pass of one token on the rank's thread; returns where its logits will be.
  TensorView RunToken(Rank& rank, const Chunk& chunk);
  /// Copies the logits of the last pass of one row to the host. [vocab]; on the rank's thread.
  void FetchLogits(Rank& rank, std::vector<float>& logits) const;

 private:
  [[nodiscard]] size_t IndexOf(int rank) const { return static_cast<size_t>(rank - engine_.first_rank()); }

  EngineState& engine_;
  int64_t capacity_;
  std::vector<std::optional<KvCache>> caches_;  // [ranks here]
};

/// A prompt phase of the members in this process, which are at work from begin to end. All that it is given must
/// outlive it.
class PhaseHere {
 public:
  /// `links` are numbered as all ranks are. `gather` may be null.
  PhaseHere(SessionRanks& session, HeldEngine& held, const PhaseOrder& order, Fabric& links, AllGather* gather,
            Clock::time_point origin);
  /// Waits for them.
  ~PhaseHere();
  PhaseHere(const PhaseHere&) = delete;
  PhaseHere& operator=(const PhaseHere&) = delete;

  /// Waits for them; rethrows what the first to fail threw, for which the links have failed. Once a process of the
  /// group is lost, the members give up at their next layer.
  void Await();
  /// Of all members here, ranks and peers by their places.
  [[nodiscard]] std::vector<TimelineEvent> Timeline() const;
  /// Behind the prompt, where the last member is here. [vocab]
  [[nodiscard]] const std::vector<float>& logits() const { return logits_; }
  /// What left all members here, after Await.
  [[nodiscard]] HandedRows Sent() const;

 private:
  void Start(size_t member, const PositionTables& tables);
  void Run(size_t member, Rank& rank, const PositionTables& tables);
  void Keep(std::exception_ptr failure, const Status& reason);

  SessionRanks& session_;
  EngineState& engine_;
  const PhaseOrder& order_;
  Partition partition_;
  Fabric& links_;
  std::unique_ptr<Fabric> members_;
  AllGather* gather_;
  std::vector<RankTimeline> timelines_;  // [members]
  std::vector<HandedRows> sent_;         // [members]
  std::vector<float> logits_;
  std::mutex mutex_;
  std::exception_ptr failure_;  // what the first to fail threw, guarded by mutex_
  std::atomic<bool> failed_ = false;
  std::vector<std::future<void>> done_;
};

}  // namespace runahead
