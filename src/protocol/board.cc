#include "protocol/board.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "protocol/answer_form.h"
#include "protocol/json_text.h"
#include "protocol/timeline_json.h"

namespace runahead::protocol {
namespace {

constexpr size_t kMostShown = 200;
constexpr size_t kMostRecent = 20;

std::string JsonOf(const BoardEntry& entry) {
  const int64_t answered = entry.new_tokens;
  const char* const state = answered > 0 ? "answering" : entry.begun ? "reading" : "waiting";
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - entry.begin;
  return fmt::format(
      R"({{"id":{},"state":"{}","prompt_tokens":{},"prompt_done":{},"cached_tokens":{},"new_tokens":{},)"
      R"("predicted_ttft_ms":{},"predicted_left_ms":{},"elapsed_ms":{}}})",
      Quoted(entry.id), state, entry.prompt_tokens, entry.prompt_done.load(), entry.cached_tokens.load(), answered,
      NumberText(entry.predicted_ttft_ms), NumberText(entry.predicted_left_ms), NumberText(elapsed.count()));
}

}  // namespace

std::shared_ptr<BoardEntry> Board::Add(std::string id, int64_t prompt_tokens) {
  auto entry = std::make_shared<BoardEntry>();
  entry->id = std::move(id);
  entry->prompt_tokens = prompt_tokens;
  const std::lock_guard lock(mutex_);
  entry->number = next_++;
  running_.emplace(entry->number, entry);
  return entry;
}

void Board::Remove(const BoardEntry& entry) {
  const std::lock_guard lock(mutex_);
  running_.erase(entry.number);
}

void Board::End(const BoardEntry& entry, FinishReason finish, RequestStats stats) {
  auto ended = std::make_shared<Ended>();
  ended->id = entry.id;
  ended->finish = finish;
  ended->predicted_ttft_ms = entry.predicted_ttft_ms;
  ended->stats = std::move(stats);
  std::shared_ptr<Ended> oldest;  // destroyed behind the lock
  const std::lock_guard lock(mutex_);
  running_.erase(entry.number);
  recent_.push_front(std::move(ended));
  if (recent_.size() <= kMostRecent) return;
  oldest = std::move(recent_.back());
  recent_.pop_back();
}

std::string Board::RequestsJson() const {
  std::vector<std::shared_ptr<BoardEntry>> entries;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [number, entry] : running_) {
      if (entries.size() == kMostShown) break;
      entries.push_back(entry);
    }
  }
  std::string list;
  for (const auto& entry : entries) AddTo(list, protocol::JsonOf(*entry));
  return "[" + list + "]";
}

std::string Board::RecentJson(std::string_view known) const {
  std::vector<std::shared_ptr<Ended>> recent;
  {
    const std::lock_guard lock(mutex_);
    recent.assign(recent_.begin(), recent_.end());
  }
  std::string list;
  for (const auto& ended : recent) {
    if (ended->id == known) break;
    std::call_once(ended->once, [&] {
      ended->json = JsonOf(*ended);
      ended->stats = {};
    });
    AddTo(list, ended->json);
  }
  return "[" + list + "]";
}

std::string Board::JsonOf(const Ended& ended) {
  const RequestStats& stats = ended.stats;
  return fmt::format(
      R"({{"id":{},"prompt_tokens":{},"cached_tokens":{},"new_tokens":{},"finish":"{}","predicted_ttft_ms":{},)"
      R"("ttft_ms":{},"tpot_ms":{},"queued_ms":{},"members":[{}],"cuts":[{}],"rounds":{},"timeline":{}}})",
      Quoted(ended.id), stats.prompt_tokens, stats.cached_tokens, stats.new_tokens, FinishName(ended.finish),
      NumberText(ended.predicted_ttft_ms), NumberText(stats.ttft_ms), NumberText(stats.tpot_ms),
      NumberText(stats.queued_ms), fmt::join(stats.members, ","), fmt::join(stats.cuts, ","), stats.rounds,
      TimelineJson(stats.timeline));
}

}  // namespace runahead::protocol
