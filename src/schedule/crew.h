// What the scheduler knows of the world: ranks that take steps, a forecast of what they cost, and somebody who waits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runahead/options.h"
#include "runahead/request.h"
#include "worker/step_plan.h"

namespace runahead {

/// The ranks. What is started is answered, once each, through Scheduler::Finish.
class Crew {
 public:
  virtual ~Crew() = default;
  [[nodiscard]] virtual int ranks() const = 0;
  /// Lets `rank` run `plan` behind what it was told before.
  virtual void Start(int rank, StepPlan plan) = 0;
  /// The steps of a gang, one for each member, which all are idle.
  virtual void StartTogether(std::vector<StepPlan> plans) = 0;
  /// The members of a gang, which failed or was stopped, are idle again: what still travels between them is dropped.
  virtual void Renew(std::span<const int> members) = 0;
  /// A request has ended, as the scheduler's Status says already; who waits for it is told next.
  virtual void OnEnded() {}
  /// Time on a clock that only goes forward, s.
  [[nodiscard]] virtual double Now() const = 0;
};

/// Which ranks a prompt is best spread over.
struct GangChoice {
  std::vector<int> members;  // one: no gang
  Strategy strategy = Strategy::kSingle;
  Topology topology = Topology::kChain;
  bool asked_for = false;        // by the request's options, so that it is done however short the prompt is
  double predicted_s = 0;        // predicted TTFT of an undisturbed prompt phase, s; 0: nothing is measured
  std::vector<WireFormat> wire;  // [ranks][ranks] of the crew, from one to another; empty: all rows travel exact
};

/// What plans know of the model and of the ranks.
class Forecast {
 public:
  virtual ~Forecast() = default;
  [[nodiscard]] virtual GangChoice Choose(int64_t tokens, const PrefillOptions& options) = 0;
  /// Only these ranks are there from now on. What is chosen may name others still.
  virtual void PlanOver(const std::vector<int>& /*there*/) {}
  /// Cut points [members + 1] of positions [begin, end) over the members of `choice`, or over fewer.
  [[nodiscard]] virtual std::vector<int64_t> Cuts(const GangChoice& choice, const PrefillOptions& options,
                                                  int64_t begin, int64_t end) = 0;
  /// Predicted time in which the members of `choice` read positions [begin, end), s; 0: nothing is measured. The last
  /// member has all rows before them, and hands over those that the others lack. held: [members], rows that each has.
  [[nodiscard]] virtual double Seconds(const GangChoice& choice, const PrefillOptions& options,
                                       std::span<const int64_t> held, int64_t begin, int64_t end) = 0;
  /// Whether all ranks cost the same, so that any of them can be the last member of a gang.
  [[nodiscard]] virtual bool alike() const = 0;
  /// FLOPs of positions [begin, end) of a prompt.
  [[nodiscard]] virtual double Work(int64_t begin, int64_t end) const = 0;
  /// RopeSpec::IsLong.
  [[nodiscard]] virtual bool IsLong(int64_t tokens) const = 0;
  /// Whether some layer attends within a window alone.
  [[nodiscard]] virtual bool windowed() const = 0;
};

/// How far the prompt phase of a request is.
struct PromptProgress {
  int64_t done = 0;          // tokens whose rows are there
  int64_t total = 0;         // all tokens
  int64_t cached = 0;        // tokens of the prompt whose rows were in the cache
  double left_s = 0;         // predicted time until the first token, s; 0: nothing is known, or none is left
  std::vector<int> members;  // ranks that read it
};

/// Whole pages of a sequence that move between a rank's cache and an archive.
struct PageMove {
  uint64_t id = 0;
  int rank = 0;
  std::vector<int32_t> tokens;    // whose rows they are; whole pages
  bool long_angles = false;       // RopeSpec::IsLong of the sequence
  PageList pages;                 // of all tokens, in the rank's cache
  int64_t first = 0;              // the first of them to be loaded; those before it are there
  std::vector<double> compute_s;  // time in which each page from `first` on is computed, s; empty: nobody knows
};

/// Where pages outlive the ranks' caches. Thread-safe.
class Archive {
 public:
  virtual ~Archive() = default;
  /// Whether pages of `rank` can move.
  [[nodiscard]] virtual bool Serves(int rank) const = 0;
  /// Tokens of the longest prefix of `tokens` that is in the archive, in whole pages.
  [[nodiscard]] virtual int64_t Kept(std::span<const int32_t> tokens, bool long_angles) = 0;
  /// Fills the move's pages from `first` on, as far as the archive has them, and until the others seem to be computed
  /// sooner. Answered, once, through Scheduler::Loaded.
  virtual void Load(PageMove move) = 0;
  /// Keeps all of the move's pages, which nobody changes until it is answered through Scheduler::Saved.
  virtual void Save(PageMove move) = 0;
};

/// Who waits for a request's answer. Called by the thread that works with the scheduler.
class Listener {
 public:
  virtual ~Listener() = default;
  /// The prompt phase begins, or a part of it is done.
  virtual void OnProgress(const PromptProgress& progress) = 0;
  /// One more token; returns why the answer ends with it, or nothing.
  virtual std::optional<FinishReason> OnToken(const Drawn& drawn) = 0;
  /// The last call. `error`: why it failed, with FinishReason::kError.
  virtual void OnEnd(FinishReason finish, const std::string& error, const RequestStats& stats) = 0;
};

}  // namespace runahead
