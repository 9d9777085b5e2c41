// Where requests begin: alone on a rank, or together on several.
#include <algorithm>
#include <bit>
#include <limits>
#include <tuple>

#include "base/check.h"
#include "kv/kv_pages.h"
#include "schedule/scheduler.h"

namespace runahead {
namespace {

constexpr int64_t kRowsWorthARank = 512;  // rows of a prompt for each member of a gang that nobody asked for
constexpr int64_t kRowsWhileIdle = 64;    // the same where the ranks have no other prompt to read
constexpr int64_t kSlowerInAGang = 4;     // a lane reads in a quarter of the time between a gang's rounds

constexpr int64_t kRowsWorthAWait = 128;  // rows saved by waiting for the end of a prompt that is being read
constexpr int kLookedAt = 64;             // requests that may pass those that wait for such a prompt

/// Where a prompt can be read.
struct LanePlace {
  int64_t rows_before;  // rows before its first token, its own among them
  int rank;
  bool later;  // once a prompt has ended that is being read there, whose rows it can use

  bool operator<(const LanePlace& other) const {
    return std::tie(rows_before, rank) < std::tie(other.rows_before, other.rank);
  }
};

/// Rows that `sequence` can use once `other` has been read.
int64_t RowsOf(const Sequence& other, const Sequence& sequence) {
  if (other.long_angles != sequence.long_angles) return 0;
  const auto [end, unused] =
      std::mismatch(sequence.tokens.begin(), sequence.tokens.end() - 1, other.tokens.begin(), other.tokens.end());
  return end - sequence.tokens.begin();
}

}  // namespace

void Scheduler::Admit() {
  admit_ = false;
  std::array<Queue::iterator, 2> next = {waiting_[0].begin(), waiting_[1].begin()};
  std::array<bool, 2> later{};  // kinds of which none can begin before others have gone on
  for (int passed = 0; passed < kLookedAt;) {
    const auto none = [&](size_t kind) { return later[kind] || next[kind] == waiting_[kind].end(); };
    if (none(0) && none(1)) return;
    const size_t kind = none(0) || (!none(1) && next[1]->first < next[0]->first) ? 1 : 0;
    Sequence& sequence = *(next[kind]++)->second;
    switch (Place(sequence)) {
      case Placed::kYes:
        StopWaiting(sequence);
        TellProgress(sequence);
        break;
      case Placed::kLoading:
        StopWaiting(sequence);
        break;
      case Placed::kLater:
        later[kind] = true;
        break;
      case Placed::kForPrefix:
        ++passed;
        break;
      case Placed::kNoPages:  // those behind it would take what it waits for
        ++waits_for_pages_;
        return;
    }
  }
}

Scheduler::Kind Scheduler::KindOf(const Sequence& sequence) const {
  const int64_t rows = std::ssize(sequence.tokens);
  const auto members = std::ssize(sequence.choice.members);
  const bool worth_it = sequence.choice.asked_for || rows >= members * kRowsWorthARank;
  return members > 1 && rows >= members && worth_it ? Kind::kTogether : Kind::kAlone;
}

bool Scheduler::MayGangUpWhileIdle(const Sequence& sequence) const {
  const GangChoice& choice = sequence.choice;
  const auto members = std::ssize(choice.members);
  if (members < 2 || choice.predicted_s <= 0 || std::ssize(sequence.tokens) < members * kRowsWhileIdle) return false;
  if (counts().waiting > 1 || !gangs_.empty()) return false;
  return std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.reading.empty(); });
}

Scheduler::Placed Scheduler::Place(Sequence& sequence) {
  if (const std::optional<Placed> placed = LoadFirst(sequence)) return *placed;
  return sequence.together || MayGangUpWhileIdle(sequence) ? PlaceGang(sequence) : PlaceAlone(sequence);
}

int64_t Scheduler::CachedOn(int rank, const Sequence& sequence) {
  if (!sequence.reuses() || LaneOf(rank).gone) return 0;
  return LaneOf(rank).pages.Cached(sequence.tokens, std::ssize(sequence.tokens) - 1, sequence.long_angles);
}

int64_t Scheduler::RowsBefore(const Lane& lane, int64_t own) const {
  int64_t all = 0;
  for (const Sequence* other : lane.reading) all += other->missing();
  if (lane.reading.empty()) return 0;
  const int64_t behind_first = all - lane.reading.front()->missing();
  return std::min(all, 2 * behind_first + own);  // the first one gets half of each step
}

int64_t Scheduler::RowsToCome(int rank, const Sequence& sequence) const {
  if (!sequence.reuses() || forecast_.windowed()) return 0;  // rows behind a window are no prefix of all others
  const Lane& lane = LaneOf(rank);
  int64_t most = 0;
  for (const Sequence* other : lane.reading) most = std::max(most, RowsOf(*other, sequence));
  if (lane.gang != nullptr && lane.gang->sequence->rank == rank) {
    most = std::max(most, RowsOf(*lane.gang->sequence, sequence));
  }
  return most;
}

Scheduler::Placed Scheduler::PlaceAlone(Sequence& sequence) {
  const int64_t rows = std::ssize(sequence.tokens);
  std::vector<LanePlace> places;
  bool room = false;
  for (int rank = 0; rank < crew_.ranks(); ++rank) {
    const Lane& lane = LaneOf(rank);
    if (lane.gone) continue;
    const int64_t before = RowsBefore(lane, rows);
    if (before - rows >= limits_.most_rows || PagesOf(rows) > lane.pages.pages()) continue;
    room = true;
    const int64_t cached = CachedOn(rank, sequence);
    if (PagesOf(rows) > lane.pages.available() + cached / kPageRows) continue;
    const int64_t to_come = RowsToCome(rank, sequence);
    const bool later = to_come >= cached + kRowsWorthAWait;
    const int64_t until = (before + rows - (later ? to_come : cached)) * (lane.gang != nullptr ? kSlowerInAGang : 1);
    places.push_back({until + std::ssize(lane.answering), rank, later});
  }
  if (!room) return Placed::kLater;
  std::sort(places.begin(), places.end());
  if (!places.empty() && places.front().later) return Placed::kForPrefix;
  std::erase_if(places, [](const LanePlace& place) { return place.later; });
  for (const auto& [before, rank, later] : places) {
    Lane& lane = LaneOf(rank);
    std::optional<RankPages::Start> start =
        lane.pages.Begin(sequence.tokens, sequence.reuses() ? rows - 1 : 0, rows, sequence.long_angles);
    if (!start) continue;
    Begin(sequence, rank, *std::move(start));
    CountAlone(sequence);
    InsertByAge(lane.reading, sequence);
    return Placed::kYes;
  }
  return Placed::kNoPages;
}

void Scheduler::CountAlone(Sequence& sequence) {
  RequestStats& stats = sequence.stats;
  const bool read_before = !stats.cuts.empty();
  if (stats.new_tokens > 0 || (read_before && sequence.missing() <= 1)) return;  // its prompt phase is over
  ++stats.rounds;
  if (read_before) return;
  stats.members = {sequence.rank};
  stats.cuts = {sequence.done, std::ssize(sequence.tokens)};
}

void Scheduler::Begin(Sequence& sequence, int rank, RankPages::Start start) {
  sequence.rank = rank;
  sequence.held = std::move(start.held);
  sequence.copy = start.copy;
  sequence.done = start.cached;
  sequence.valid_from = start.valid_from;
  sequence.reading_s = crew_.Now();
  sequence.read_from = start.cached;
  if (sequence.begun_s >= 0) return;  // it begins again
  sequence.begun_s = crew_.Now();
  sequence.stats.cached_tokens = start.cached;
  const double reading_s = Predicted(sequence, start.cached);
  if (reading_s <= 0) return;  // nothing is measured
  sequence.stats.predicted_ttft_ms = (sequence.begun_s - sequence.submitted_s + reading_s) * 1e3;
}

std::vector<int> Scheduler::MembersFor(const Sequence& sequence) {
  const std::vector<int>& chosen = sequence.choice.members;
  const auto free = [&](int rank) { return LaneOf(rank).gang == nullptr && !LaneOf(rank).gone; };
  if (!forecast_.alike()) {
    return std::all_of(chosen.begin(), chosen.end(), free) ? chosen : std::vector<int>();
  }
  // Neighbours, which share a host where hosts have a power of two of ranks.
  const auto count = static_cast<int>(chosen.size());
  std::vector<int> there;
  for (int rank = 0; rank < crew_.ranks(); ++rank) {
    if (!LaneOf(rank).gone) there.push_back(rank);
  }
  const auto ranks = static_cast<int>(there.size());
  const int power = static_cast<int>(std::bit_ceil(static_cast<unsigned>(count)));
  const int step = ranks % power == 0 ? power : count;
  const int64_t rows = std::ssize(sequence.tokens);
  int64_t least = std::numeric_limits<int64_t>::max();
  std::vector<int> best;
  for (int first = 0; first + count <= ranks; first += step) {
    int64_t load = 0;
    int64_t cached = 0;
    std::vector<int> members;
    for (int i = first; i < first + count && free(there[static_cast<size_t>(i)]); ++i) {
      const int rank = there[static_cast<size_t>(i)];
      const Lane& lane = LaneOf(rank);
      cached = std::max(cached, CachedOn(rank, sequence));
      load = std::max(load, RowsBefore(lane, rows) + std::ssize(lane.answering));
      if (lane.pages.available() < PagesOf(rows)) load = std::max(load, rows);
      members.push_back(rank);
    }
    if (static_cast<int>(members.size()) < count || load - cached >= least) continue;
    least = load - cached;
    best = std::move(members);
  }
  return best;
}

int Scheduler::HolderAmong(const std::vector<int>& members, const Sequence& sequence) {
  const int64_t pages = PagesOf(std::ssize(sequence.tokens));
  const auto fits = [&](int rank) { return LaneOf(rank).pages.pages() >= pages; };
  int holder = fits(members.back()) ? members.back() : -1;
  if (!forecast_.alike() && holder >= 0) return holder;
  int64_t most = -1;
  for (const int rank : members) {  // the longest prefix, then the fewest answers
    if (!fits(rank)) continue;
    const int64_t cached = CachedOn(rank, sequence);
    const bool calmer = holder < 0 || LaneOf(rank).answering.size() < LaneOf(holder).answering.size();
    if (cached > most || (cached == most && calmer)) {
      most = cached;
      holder = rank;
    }
  }
  return holder;
}

Scheduler::Readers Scheduler::SoonestOf(const std::vector<int>& members, const Sequence& sequence) {
  const int64_t cached = CachedOn(members.back(), sequence);
  Readers best{members, true};
  if (cached == 0) return best;
  double least_s = std::numeric_limits<double>::infinity();
  const auto look_at = [&](Readers readers) {
    GangChoice choice = sequence.choice;
    choice.members = readers.members;
    if (choice.members.size() == 1) choice.strategy = Strategy::kSingle;
    std::vector<int64_t> held;
    for (const int member : choice.members) {
      held.push_back(readers.reuse ? std::min(cached, CachedOn(member, sequence)) : 0);
    }
    const double seconds = forecast_.Seconds(choice, sequence.request.prefill, held, readers.reuse ? cached : 0,
                                             std::ssize(sequence.tokens));
    if (seconds <= 0 || seconds >= least_s) return;
    least_s = seconds;
    best = std::move(readers);
  };
  const auto all = std::ssize(members);
  for (auto count = all; count >= 1; count /= 2) {
    look_at({{members.end() - count, members.end()}, true});
    if (sequence.choice.asked_for) break;
  }
  look_at({members, false});
  return best;
}

Scheduler::Placed Scheduler::PlaceGang(Sequence& sequence) {
  const int64_t rows = std::ssize(sequence.tokens);
  std::vector<int> members = MembersFor(sequence);
  if (members.empty()) return Placed::kLater;
  const int holder = HolderAmong(members, sequence);
  if (holder < 0) return PlaceAlone(sequence);
  const int64_t missing = rows - CachedOn(holder, sequence);
  const bool goes_on = sequence.choice.strategy == Strategy::kRunahead;  // behind rows that are there already
  const int64_t worth_it = (sequence.together ? kRowsWorthARank : kRowsWhileIdle) * std::ssize(members);
  if (!sequence.choice.asked_for && missing < worth_it) return PlaceAlone(sequence);
  for (const Gang& other : gangs_) {
    if (2 * (RowsToCome(other.sequence->rank, sequence) - (rows - missing)) > missing) return Placed::kForPrefix;
  }
  std::erase(members, holder);
  members.push_back(holder);
  const auto [readers, reuse] = SoonestOf(members, sequence);
  if (readers.size() == 1) return PlaceAlone(sequence);
  const int64_t most = sequence.reuses() && goes_on && reuse ? rows - 1 : 0;
  std::optional<RankPages::Start> start =
      LaneOf(holder).pages.Begin(sequence.tokens, most, rows, sequence.long_angles);
  if (!start) return Placed::kNoPages;
  Begin(sequence, holder, *std::move(start));
  FormGang(sequence, readers);
  return Placed::kYes;
}

void Scheduler::FormGang(Sequence& sequence, const std::vector<int>& members) {
  const int64_t rows = std::ssize(sequence.tokens);
  Gang& gang = gangs_.emplace_back();
  gang.sequence = &sequence;
  gang.choice = sequence.choice;
  gang.choice.members.clear();
  const double predicted_s = sequence.choice.predicted_s;
  const auto planned = static_cast<double>(sequence.choice.members.size());
  gang.rate = predicted_s > 0 ? forecast_.Work(0, rows) / predicted_s / planned : rate_;
  for (const int member : members) {
    HeldPages held;  // the last one's are the sequence's own
    int64_t there = sequence.done;
    std::optional<PageCopy> copy = sequence.copy;
    if (member != sequence.rank) {
      std::optional<RankPages::Start> part =
          LaneOf(member).pages.Begin(sequence.tokens, sequence.done, rows, sequence.long_angles);
      if (!part) continue;  // the others read without it
      held = std::move(part->held);
      there = part->cached;
      copy = part->copy;
    }
    LaneOf(member).gang = &gang;
    gang.choice.members.push_back(member);
    gang.pages.push_back(std::move(held));
    gang.held.push_back(there);
    gang.whole.push_back(there);
    gang.copies.push_back(copy);
  }
  if (sequence.stats.cuts.empty()) sequence.stats.members = gang.choice.members;
  if (gang.choice.members.size() < 2) GoOnAlone(gang);
}

}  // namespace runahead
