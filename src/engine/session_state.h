// One sequence on the ranks of an engine.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/timeline.h"
#include "engine/engine_state.h"
#include "engine/session_ranks.h"

namespace runahead {

class GroupLinks;
struct GivenWork;

/// One sequence: what its ranks here have, what ranks elsewhere are told of it, and the logits of its last position.
class SessionState {
 public:
  SessionState(std::shared_ptr<EngineState> engine, int64_t capacity);
  /// Waits for the work that is ahead.
  ~SessionState();
  SessionState(const SessionState&) = delete;
  SessionState& operator=(const SessionState&) = delete;

  PrefillReport Prefill(std::span<const int32_t> tokens, const PrefillOptions& options);
  void Append(int32_t token);
  int32_t AppendGreedy(int32_t token, bool go_on);

  [[nodiscard]] std::span<const float> logits() const { return logits_; }
  [[nodiscard]] int64_t size() const { return size_; }
  [[nodiscard]] int64_t capacity() const { return capacity_; }
  [[nodiscard]] std::vector<float> CacheRows(int layer, bool values);

 private:
  void CheckPrompt(std::span<const int32_t> tokens) const;
  void CheckToken(int32_t token, int64_t position) const;
  /// Runs all ranks and waits for all of them. Rethrows what the first rank here to fail threw, and throws LinkError
  /// for one elsewhere.
  void RunRanks(HeldEngine& held, const PhaseOrder& order, double planned_s, AllGather* gather,
                Clock::time_point begin, PrefillReport& report);
  /// Tells the other processes of the order's members of it.
  [[nodiscard]] std::vector<GivenWork> Tell(const PhaseOrder& order, double planned_s);
  void AwaitOthers(std::vector<GivenWork> given, const PhaseOrder& order, Clock::time_point begin,
                   PrefillReport& report);
  /// Whether the angles of all positions change when the sequence grows to `tokens` (LongRoPE).
  [[nodiscard]] bool ChangesAngles(int64_t tokens) const;
  /// The next token on a rank elsewhere.
  void AppendElsewhere(int32_t token);

  void CheckAppend(int32_t token) const;
  /// The cache of the rank that holds all rows.
  [[nodiscard]] const KvCache& LastCache() const { return here_.cache(last_rank_); }
  /// Enqueues the pass of a token at position size_ and the choice of the next one, unless that was done ahead;
  /// returns where the choice will be. On the rank's thread.
  ChosenToken& ChooseNext(Rank& rank, int32_t token, const PositionTables& tables);
  /// Blocks until no work of this session is enqueued and forgets it.
  void DropAhead();

  /// The pass that was enqueued before its token was known to the host.
  struct Ahead {
    int64_t position = 0;
    int32_t token = 0;
  };

  std::shared_ptr<EngineState> engine_;
  int64_t capacity_;
  int64_t size_ = 0;
  std::vector<int32_t> tokens_;  // [size]
  PrefillOptions options_;       // options of the last prompt
  int last_rank_ = 0;            // the rank that holds the whole cache
  SessionRanks here_;
  uint64_t number_;                    // number of the session for other processes
  std::set<int> elsewhere_;            // processes that know of it
  std::unique_ptr<GroupLinks> links_;  // links between processes; null: there is one
  std::vector<float> logits_;          // [vocab]
  // Greedy decoding on a GPU: choices in turn, on rank chosen_on_; its next one is in chosen_[0].
  std::array<std::unique_ptr<ChosenToken>, 2> chosen_;
  int chosen_on_ = -1;
  std::optional<Ahead> ahead_;  // work done ahead; its choice goes to chosen_[0]
};

}  // namespace runahead
