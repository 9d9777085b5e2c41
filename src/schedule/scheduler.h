// Who runs when: requests join and leave between the steps of the ranks.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runahead/engine_status.h"
#include "schedule/crew.h"
#include "schedule/sequence.h"

namespace runahead {

/// What the scheduler has to do, and what it did.
struct SchedulerCounts {
  int64_t waiting = 0;          // requests that wait
  int64_t running = 0;          // requests that have pages
  int64_t preempted = 0;        // times that a sequence had to make room for an older one
  int64_t waits_for_pages = 0;  // times that the first that waits found too few pages
};

/// A request that was taken.
struct Admission {
  SequenceId id = 0;
  double predicted_ttft_s = 0;  // predicted time to its first token, waiting included, s; 0: nothing is known
};

/// Decides what each rank does next. Short prompts run on single ranks side by side, long ones gang up those that
/// help, in rounds; between rounds each rank takes a step of its answers. First come, first served, higher priorities
/// first; but a prompt that begins as one that is being read waits for its rows where that is sooner. When a rank has
/// no page left, its youngest sequence waits and is computed again later. Knows no threads and no memory: everything
/// is told to it, one call at a time.
class Scheduler {
 public:
  struct Limits {
    std::vector<int32_t> pages;  // [ranks], pages of each rank
    int64_t context = 0;         // most tokens of a sequence
    int64_t most_rows = 8192;    // most rows of prompts in a step of one rank
    double max_pause_s = 0.2;    // longest time that running answers wait for somebody's prompt phase, s
    int most_waiting = 100'000;  // most requests that wait
    bool replan = false;         // a prompt whose links failed is read again
  };

  /// `archive`: may be null.
  Scheduler(Crew& crew, Forecast& forecast, Limits limits, Archive* archive = nullptr);

  /// Queues a request; listeners: [choices], whose ids follow that of the first. Throws ConfigError when it can never
  /// fit; RefusedError when too many wait, and when its deadline cannot be met.
  Admission Add(Request request, std::vector<std::unique_ptr<Listener>> listeners);
  Admission Add(Request request, std::unique_ptr<Listener> listener);
  /// Ends a choice early, and with the first one those that have not begun; unknown ones are taken for ended.
  void Cancel(SequenceId id);
  /// A step has ended.
  void Finish(StepResult result);
  /// The archive's answers. Rows of the first `tokens` tokens of a load are there now.
  void Loaded(uint64_t move, int64_t tokens);
  void Saved(uint64_t move);
  /// Starts all that can start. To be called after any of the above.
  void Work();
  void CancelAll();
  /// `rank` is gone with all rows that it had: the others compute them again. Its step, if it has one, is still to be
  /// finished, and its result does not count.
  void Lose(int rank);
  /// `rank` is back, with `pages` pages that hold nothing.
  void Return(int rank, int32_t pages);
  /// Ends all requests with `error`, whatever state an exception has left them in; the steps under way are stopped.
  /// The scheduler is not to be used afterwards, but for idle() and counts().
  void Abandon(const std::string& error) noexcept;

  /// Whether no request is left.
  [[nodiscard]] bool idle() const { return sequences_.empty(); }
  /// What all do now; the names of the devices are left out.
  [[nodiscard]] EngineStatus Status() const;
  /// Whether no step is under way.
  [[nodiscard]] bool resting() const { return at_work_ == 0; }
  [[nodiscard]] SchedulerCounts counts() const;
  [[nodiscard]] const RankPages& pages(int rank) const { return lanes_.at(static_cast<size_t>(rank)).pages; }

 private:
  struct Gang;
  /// A step under way.
  struct Running {
    struct Part {
      SequenceId sequence = 0;
      int64_t begin = 0;
      int64_t end = 0;
    };
    uint64_t step = 0;
    std::vector<Part> parts;
    bool together = false;  // of a gang
    bool reads = false;     // rows of prompts
    std::shared_ptr<std::atomic<bool>> stop;
    double expected_end_s = 0;  // 0: nobody knows
  };
  /// One rank's work.
  struct Lane {
    explicit Lane(int32_t count) : pages(count) {}
    RankPages pages;
    std::optional<Running> step;       // under way
    std::vector<Sequence*> answering;  // the oldest first
    std::vector<Sequence*> reading;    // prompts that it reads alone, the oldest first
    std::vector<SequenceId> ended;     // whose samplers it shall forget
    Gang* gang = nullptr;              // the one that it belongs to
    bool stepped = false;              // it took a step since the gang's last round
    bool gone = false;                 // it is lost: it takes no steps, and no request begins there
    double answer_s = 0;               // time of a step of answers alone, s
    double last_token_s = 0;           // time at which its answers got their last tokens
    double rate = 0;                   // FLOPs of prompts per second, as seen; 0: none seen yet
    double busy_s = 0;                 // time of its steps, s
    double wait_s = 0;                 // the part of it in which it waited for rows of others, s
    int64_t bytes_sent = 0;            // rows that it handed over
  };
  /// A long prompt on several ranks.
  struct Gang {
    Sequence* sequence = nullptr;
    GangChoice choice;
    std::vector<HeldPages> pages;                 // [members], of the last one the sequence's own
    std::vector<int64_t> held;                    // [members], rows that each has, but for the last layer
    std::vector<int64_t> whole;                   // [members], rows that each has in all layers
    std::vector<std::optional<PageCopy>> copies;  // [members]
    std::vector<int64_t> cuts;                    // of the round under way
    int running = 0;                              // members that are at work
    bool stopped = false;
    bool lost = false;         // a member is gone since the round began
    bool link_failed = false;  // rows of the round did not arrive
    std::string error;
    std::optional<Drawn> drawn;
    std::shared_ptr<std::atomic<bool>> stop;  // of the round under way
    double began_s = 0;
    double busy_until_s = 0;  // time at which the steps of its members are expected to have ended
    double rate = 0;          // FLOPs per second and member; 0: nothing is known
  };
  /// Pages on their way between a rank and the archive, which hold them until then.
  struct Moving {
    int rank = 0;
    HeldPages held;
    std::vector<int32_t> tokens;
    bool long_angles = false;
    SequenceId sequence = 0;  // which waits for them; 0: they are saved
  };
  enum class Placed : unsigned char { kYes, kLoading, kLater, kForPrefix, kNoPages };
  enum class Kind : unsigned char { kAlone, kTogether };
  using Queue = std::map<std::pair<int, SequenceId>, Sequence*>;  // those that come first, first

  [[nodiscard]] Lane& LaneOf(int rank) { return lanes_.at(static_cast<size_t>(rank)); }
  [[nodiscard]] const Lane& LaneOf(int rank) const { return lanes_.at(static_cast<size_t>(rank)); }
  /// The gang that reads its prompt, or nullptr.
  [[nodiscard]] Gang* GangOf(const Sequence& sequence);

  // ---- Requests
  [[nodiscard]] std::unique_ptr<Sequence> NewSequence(Request request, std::unique_ptr<Listener> listener);
  void Answer(Sequence& sequence, const Drawn& drawn);
  /// Ends it for all who listen.
  void TellEnd(Sequence& sequence, FinishReason finish, const std::string& error);
  /// The prompt has been read: its other answers wait for a step.
  void BeginOthers(Sequence& sequence);
  /// Predicted time of its prompt phase alone, behind `cached` rows that are there already, s; 0: nothing is known.
  [[nodiscard]] double Predicted(const Sequence& sequence, int64_t cached) const;
  [[nodiscard]] double PredictedLeft(const Sequence& sequence) const;
  /// Rows of its prompt that some rank has.
  [[nodiscard]] int64_t Cached(const Sequence& sequence);
  void TellProgress(Sequence& sequence);
  void RefuseWhenFull() const;
  /// Time that the prompts before a new one of `priority` take, s; 0: nothing is known.
  [[nodiscard]] double WaitingSeconds(int priority) const;
  void Wait(Sequence& sequence);
  void StopWaiting(Sequence& sequence);
  void CompleteStats(Sequence& sequence) const;
  void End(Sequence& sequence, FinishReason finish, const std::string& error = {});
  /// Takes it off its rank's lists, or out of the queue.
  void Leave(Sequence& sequence);
  /// It waits once more, and its rows are kept as a prefix while there is room.
  void BackToQueue(Sequence& sequence);
  /// Which ranks that are there read its prompt.
  [[nodiscard]] GangChoice Chosen(int64_t tokens, const PrefillOptions& options);
  /// Rows that the largest cache has room for.
  [[nodiscard]] int64_t Room() const;

  // ---- Places
  void Admit();
  [[nodiscard]] Kind KindOf(const Sequence& sequence) const;
  [[nodiscard]] bool MayGangUpWhileIdle(const Sequence& sequence) const;
  [[nodiscard]] Placed Place(Sequence& sequence);
  [[nodiscard]] Placed PlaceAlone(Sequence& sequence);
  [[nodiscard]] Placed PlaceGang(Sequence& sequence);
  /// Its rank reads the rest of its prompt, or all of it, alone.
  void CountAlone(Sequence& sequence);
  [[nodiscard]] int64_t RowsBefore(const Lane& lane, int64_t own) const;
  /// Rows that it can use once a prompt that `rank` has begun to read has been read.
  [[nodiscard]] int64_t RowsToCome(int rank, const Sequence& sequence) const;
  [[nodiscard]] int64_t CachedOn(int rank, const Sequence& sequence);
  /// The members of its gang, none of which is in another one; empty: there are none now.
  [[nodiscard]] std::vector<int> MembersFor(const Sequence& sequence);
  [[nodiscard]] int HolderAmong(const std::vector<int>& members, const Sequence& sequence);
  /// Who reads a prompt together, and whether behind the prefix that the last one has.
  struct Readers {
    std::vector<int> members;
    bool reuse = true;
  };
  /// The soonest of: `members`, half of them, and so on down to the last one, behind the prefix which that one has;
  /// all of them from the first token on.
  [[nodiscard]] Readers SoonestOf(const std::vector<int>& members, const Sequence& sequence);
  void Begin(Sequence& sequence, int rank, RankPages::Start start);
  /// The sequence has begun on the last of `members`, which shall read it together.
  void FormGang(Sequence& sequence, const std::vector<int>& members);

  // ---- The archive
  /// Rows of its prompt that the archive has, in whole pages.
  [[nodiscard]] int64_t Archived(const Sequence& sequence) const;
  /// Has the archive load rows that no rank has. Nothing: there are none.
  [[nodiscard]] std::optional<Placed> LoadFirst(Sequence& sequence);
  /// The rank to load to, and the rows in whole pages that it has; -1: none.
  [[nodiscard]] std::pair<int, int64_t> RankToLoad(const Sequence& sequence);
  /// Times in which the pages of rows [begin, end) are computed, s; empty: nobody knows.
  [[nodiscard]] std::vector<double> PageSeconds(const Sequence& sequence, int64_t begin, int64_t end) const;
  /// Gives the archive the pages of `tokens`, whose rows are complete on the sequence's rank.
  void Save(Sequence& sequence, std::span<const int32_t> tokens);

  // ---- Steps of single ranks
  void StartLane(int rank);
  [[nodiscard]] bool HoldsForGang(int rank) const;
  void AddAnswers(int rank, StepPlan& plan);
  void AddReading(int rank, StepPlan& plan);
  [[nodiscard]] double ReadingSeconds(int rank) const;
  [[nodiscard]] double RateOf(const Lane& lane) const { return lane.rate > 0 ? lane.rate : rate_; }
  [[nodiscard]] int64_t RowsOfWork(int64_t begin, int64_t fewest, int64_t most, double work) const;
  void AddChunk(int rank, Sequence& sequence, int64_t rows, StepPlan& plan);
  void AddSampler(int rank, Sequence& sequence, StepPlan& plan);
  [[nodiscard]] bool MakeRoom(int rank, Sequence& sequence);
  void SendBackYoungest(int rank, Sequence& youngest);
  [[nodiscard]] StepPlan NewStep(int rank);
  void Record(int rank, const StepPlan& plan, double seconds);
  void FinishParts(Lane& lane, const Running& step, const StepResult& result);
  /// Rows of a prompt are complete.
  void FinishReading(Sequence& sequence);
  void Learn(Lane& lane, double work, double seconds);

  // ---- Rounds of gangs
  void StartRounds();
  void StartRound(Gang& gang);
  [[nodiscard]] bool ReadyForRound(const Gang& gang) const;
  [[nodiscard]] double RoundSeconds(const Gang& gang) const;
  [[nodiscard]] int64_t RoundEnd(const Gang& gang) const;
  /// The gang goes on without `member`, which is not the last one.
  void LeaveOut(Gang& gang, int member);
  /// Its members have the rows of the round that has ended.
  static void CountRows(Gang& gang);
  void FinishMember(Gang& gang, StepResult result);
  /// What `result` says of the time of its step goes to the timeline of `sequence`, where one is recorded.
  static void RecordTimeline(Sequence& sequence, const StepResult& result, const std::vector<int>& members);
  void FinishRound(Gang& gang);
  /// A round that was stopped or failed: its request ends.
  void FinishBroken(Gang& gang);
  void DropGang(Gang& gang);
  void GoOnAlone(Gang& gang);

  // ---- Ranks that are lost
  /// The sequence waits once more, and nothing of it is kept.
  void Recompute(Sequence& sequence);
  void FinishLost(const Running& step);
  /// The gang ends and its sequence waits once more; rows that members have, as far as they are there, are kept.
  void Disband(Gang& gang);
  /// The links of its round failed, while nobody is known to be gone.
  void ReadAgain(Gang& gang);
  /// Requests are planned for the ranks that are there; those that none has room for end.
  void PlanAnew();
  void EndWithoutRoom(Sequence& sequence);

  Crew& crew_;
  Forecast& forecast_;
  Limits limits_;
  Archive* archive_;                   // may be null
  std::map<uint64_t, Moving> moving_;  // by the move's id
  uint64_t last_move_ = 0;
  std::deque<Lane> lanes_;  // [ranks]; a lane does not move
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::array<Queue, 2> waiting_;        // by Kind
  std::map<int, double> waiting_work_;  // by priority, the highest first: FLOPs of what waits
  std::list<Gang> gangs_;               // of different ranks
  int at_work_ = 0;                     // lanes with a step under way
  bool admit_ = false;                  // something changed that lets requests begin
  bool again_ = false;                  // a lane that was looked at already has got work
  SequenceId last_id_ = 0;
  uint64_t last_step_ = 0;
  double rate_ = 0;  // FLOPs of prompts per second and rank, as seen; 0: none seen yet
  int64_t preempted_ = 0;
  int64_t waits_for_pages_ = 0;
  RequestTotals totals_;
};

}  // namespace runahead
