// Who runs when: requests join and leave between the steps of the ranks.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "schedule/crew.h"
#include "schedule/sequence.h"

namespace runahead {

/// Decides what each rank does next. Short prompts run on single ranks side by side, long ones gang up those that
/// help, one gang at a time and in rounds; between rounds each rank takes a step of its answers. First come, first
/// served, higher priorities first; but a prompt that begins as one that is being read waits for its rows where that
/// is sooner. When a rank has no page left, its youngest sequence waits and is computed again
/// later. Knows no threads and no memory: everything is told to it, one call at a time.
class Scheduler {
 public:
  struct Limits {
    std::vector<int32_t> pages;  // [ranks], pages of each rank
    int64_t context = 0;         // most tokens of a sequence
    int64_t most_rows = 8192;    // most rows of prompts in a step of one rank
    double max_pause_s = 0.2;    // longest time that running answers wait for somebody's prompt phase, s
    int most_waiting = 100'000;  // most requests that wait
  };

  Scheduler(Crew& crew, Forecast& forecast, Limits limits);

  /// Queues a request. Throws ConfigError when it can never fit, and when too many wait.
  SequenceId Add(Request request, std::unique_ptr<Listener> listener);
  /// Ends a request early; unknown ones are taken for ended.
  void Cancel(SequenceId id);
  /// A step has ended.
  void Finish(StepResult result);
  /// Starts all that can start. To be called after any of the above.
  void Work();
  void CancelAll();

  /// Whether no request is left.
  [[nodiscard]] bool idle() const { return sequences_.empty(); }
  /// Whether no step is under way.
  [[nodiscard]] bool resting() const;
  [[nodiscard]] const RankPages& pages(int rank) const { return lanes_.at(static_cast<size_t>(rank)).pages; }

 private:
  /// One rank's work.
  struct Lane {
    explicit Lane(int32_t count) : pages(count) {}
    RankPages pages;
    std::optional<StepPlan> step;      // under way
    std::vector<Sequence*> answering;  // in the order in which they began
    std::vector<Sequence*> reading;    // prompts that it reads alone
    std::vector<SequenceId> ended;     // whose samplers it shall forget
    bool stepped = false;              // it took a step since the gang's last round
    double answer_s = 0;               // time of a step of answers alone, s
  };
  /// A long prompt on several ranks.
  struct Gang {
    Sequence* sequence = nullptr;
    GangChoice choice;
    std::vector<HeldPages> pages;                 // [members], of the last one the sequence's own
    std::vector<int64_t> held;                    // [members], rows that each has
    std::vector<std::optional<PageCopy>> copies;  // [members]
    std::vector<int64_t> cuts;                    // of the round under way
    int running = 0;                              // members that are at work
    bool stopped = false;
    std::string error;
    std::optional<Drawn> drawn;
    double began_s = 0;
  };
  enum class Placed : unsigned char { kYes, kLater, kNoPages };

  [[nodiscard]] Lane& LaneOf(int rank) { return lanes_.at(static_cast<size_t>(rank)); }
  [[nodiscard]] bool InGang(int rank) const;
  void Admit();
  [[nodiscard]] Placed Place(Sequence& sequence);
  [[nodiscard]] Placed PlaceAlone(Sequence& sequence);
  [[nodiscard]] Placed PlaceGang(Sequence& sequence, int holder);
  void Begin(Sequence& sequence, int rank, RankPages::Start start);

  void StartLane(int rank);
  void AddAnswers(int rank, StepPlan& plan);
  void AddReading(int rank, StepPlan& plan);
  [[nodiscard]] int64_t RowsWithin(int64_t begin, int64_t most, double seconds, int ranks) const;
  void AddChunk(int rank, Sequence& sequence, int64_t rows, StepPlan& plan);
  void AddSampler(int rank, Sequence& sequence, StepPlan& plan);
  [[nodiscard]] bool MakeRoom(int rank, Sequence& sequence);

  void StartRound();
  [[nodiscard]] int64_t RoundEnd() const;
  [[nodiscard]] bool GrowGang(const std::vector<int64_t>& cuts);
  void FinishMember(StepResult result);
  void FinishRound();
  void DropGang();
  void GoOnAlone();

  void Answer(Sequence& sequence, const Drawn& drawn);
  void Learn(double work, double seconds);
  /// Predicted time of its prompt phase alone, s; 0: nothing is known.
  [[nodiscard]] double Predicted(const Sequence& sequence) const;
  /// Time that the prompts before a new one take, s; 0: nothing is known.
  [[nodiscard]] double WaitingSeconds() const;
  void Wait(Sequence& sequence);
  void End(Sequence& sequence, FinishReason finish, const std::string& error = {});
  /// Takes it off its rank's lists, or out of the queue.
  void Leave(Sequence& sequence);
  /// It waits once more, and its rows are kept as a prefix while there is room.
  void BackToQueue(Sequence& sequence);
  /// Rows of a prompt are complete.
  void FinishReading(Sequence& sequence);
  [[nodiscard]] StepPlan NewStep(int rank);

  Crew& crew_;
  Forecast& forecast_;
  Limits limits_;
  std::deque<Lane> lanes_;  // [ranks]; a lane does not move
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  // Priority and number: those that come first.
  std::map<std::pair<int, SequenceId>, Sequence*> waiting_;
  std::optional<Gang> gang_;
  SequenceId last_id_ = 0;
  uint64_t last_step_ = 0;
  double rate_ = 0;  // FLOPs of prompts per second and rank, as seen; 0: none seen yet
};

}  // namespace runahead
