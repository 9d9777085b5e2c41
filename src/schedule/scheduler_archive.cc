// Pages that come from an archive before a prompt is read, and go there behind it.
#include <algorithm>

#include "base/check.h"
#include "kv/kv_pages.h"
#include "schedule/scheduler.h"

namespace runahead {
namespace {

int64_t WholePages(int64_t rows) { return rows / kPageRows * kPageRows; }

std::span<const int32_t> FirstOf(const std::vector<int32_t>& tokens, int64_t count) {
  return std::span(tokens).first(static_cast<size_t>(count));
}

}  // namespace

int64_t Scheduler::Archived(const Sequence& sequence) const {
  const bool goes_on = sequence.choice.members.size() < 2 || sequence.choice.strategy == Strategy::kRunahead;
  if (archive_ == nullptr || !sequence.reuses() || !goes_on) return 0;
  return archive_->Kept(FirstOf(sequence.tokens, std::ssize(sequence.tokens) - 1), sequence.long_angles);
}

std::pair<int, int64_t> Scheduler::RankToLoad(const Sequence& sequence) {
  std::pair<int, int64_t> best{-1, 0};
  int64_t least_before = 0;
  for (int rank = 0; rank < crew_.ranks(); ++rank) {
    const Lane& lane = LaneOf(rank);
    if (lane.gone || !archive_->Serves(rank) || PagesOf(std::ssize(sequence.tokens)) > lane.pages.pages()) continue;
    const int64_t cached = WholePages(CachedOn(rank, sequence));
    const int64_t before = RowsBefore(lane, std::ssize(sequence.tokens)) + std::ssize(lane.answering);
    if (best.first >= 0 && (cached < best.second || (cached == best.second && before >= least_before))) continue;
    best = {rank, cached};
    least_before = before;
  }
  return best;
}

std::vector<double> Scheduler::PageSeconds(const Sequence& sequence, int64_t begin, int64_t end) const {
  const double whole_s = Predicted(sequence, 0);
  const double work = forecast_.Work(0, std::ssize(sequence.tokens));
  std::vector<double> seconds;
  if (whole_s <= 0 || work <= 0) return seconds;
  for (int64_t row = begin; row < end; row += kPageRows) {
    seconds.push_back(whole_s * forecast_.Work(row, row + kPageRows) / work);
  }
  return seconds;
}

std::optional<Scheduler::Placed> Scheduler::LoadFirst(Sequence& sequence) {
  if (sequence.archived <= Cached(sequence)) return std::nullopt;
  for (const auto& [id, other] : moving_) {
    if (other.sequence == 0 || other.long_angles != sequence.long_angles) continue;
    const auto [end, unused] =
        std::mismatch(other.tokens.begin(), other.tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
    if (end - other.tokens.begin() >= kPageRows) return Placed::kForPrefix;  // they are on their way
  }
  const auto [rank, cached] = RankToLoad(sequence);
  if (rank < 0) return std::nullopt;
  const int64_t rows = sequence.archived;
  std::optional<RankPages::Start> start =
      LaneOf(rank).pages.Begin(FirstOf(sequence.tokens, rows), cached, rows, sequence.long_angles);
  if (!start) return Placed::kNoPages;
  sequence.archived = 0;
  sequence.loading = true;
  const std::span<const int32_t> tokens = FirstOf(sequence.tokens, rows);
  PageMove move;
  move.id = ++last_move_;
  move.rank = rank;
  move.tokens.assign(tokens.begin(), tokens.end());
  move.long_angles = sequence.long_angles;
  move.pages = start->held.pages;
  move.first = start->cached / kPageRows;
  move.compute_s = PageSeconds(sequence, move.first * kPageRows, rows);
  moving_[move.id] = {rank, std::move(start->held), move.tokens, move.long_angles, sequence.id};
  archive_->Load(std::move(move));
  return Placed::kLoading;
}

void Scheduler::Loaded(uint64_t move, int64_t tokens) {
  const auto found = moving_.find(move);
  CHECK(found != moving_.end());
  Moving moving = std::move(found->second);
  moving_.erase(found);
  LaneOf(moving.rank).pages.End(moving.held, FirstOf(moving.tokens, tokens), 0, moving.long_angles);
  admit_ = true;
  const auto sequence = sequences_.find(moving.sequence);
  if (sequence == sequences_.end()) return;  // it was cancelled
  sequence->second->loading = false;
  Wait(*sequence->second);
}

void Scheduler::Save(Sequence& sequence, std::span<const int32_t> tokens) {
  constexpr int64_t kMostHeld = 2;  // one part of so many of a rank's pages may wait to be saved
  const int rank = sequence.rank;
  if (archive_ == nullptr || LaneOf(rank).gone || !archive_->Serves(rank)) return;
  RankPages& pages = LaneOf(rank).pages;
  int64_t room = pages.pages() / kMostHeld;
  for (const auto& [id, other] : moving_) room -= other.rank == rank ? std::ssize(other.held.pages) : 0;
  const int64_t most = std::min(std::ssize(tokens), room * kPageRows);  // less where the disk does not keep up
  const int64_t rows = most > 0 ? WholePages(pages.Cached(tokens, most, sequence.long_angles)) : 0;
  if (rows <= sequence.saved) return;
  tokens = tokens.first(static_cast<size_t>(rows));
  if (pages.Cached(tokens, rows, sequence.long_angles) < rows)
    return;  // a prefix that is valid only when it is longer
  std::optional<RankPages::Start> start = pages.Begin(tokens, rows, rows, sequence.long_angles);
  CHECK(start && start->cached == rows);
  if (start->valid_from > 0) return pages.Drop(start->held);  // behind a window some pages lack rows
  sequence.saved = rows;
  PageMove move;
  move.id = ++last_move_;
  move.rank = rank;
  move.tokens.assign(tokens.begin(), tokens.begin() + rows);
  move.long_angles = sequence.long_angles;
  move.pages = start->held.pages;
  moving_[move.id] = {rank, std::move(start->held), {}, move.long_angles, 0};
  archive_->Save(std::move(move));
}

void Scheduler::Saved(uint64_t move) {
  const auto found = moving_.find(move);
  CHECK(found != moving_.end());
  LaneOf(found->second.rank).pages.Drop(found->second.held);
  moving_.erase(found);
  admit_ = true;
}

}  // namespace runahead
